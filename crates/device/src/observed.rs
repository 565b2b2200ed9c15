//! Observation of a forward pass: a device that shows the inputs of linear layers, and keys and values, to an [`Observer`].
//!
//! [`Observed`] wraps a device as [`Timed`](super::timed::Timed) does, and is transparent to the forward pass. Quantisation
//! is calibrated with it, so that there is no second forward pass.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::rotary::RotaryTable;
use super::{
    AttentionShape, Device, DeviceError, DeviceInfo, HostTensor, KvChannels, KvShape, LinearWeight, Role,
    SequenceView,
};

/// Receives what a forward pass computes.
pub trait Observer: Send {
    /// Receives the inputs of a linear layer: rows of `width` numbers. `number` counts the linear layers in the order of their
    /// upload, from 0, those of the P-tuning prefix left out.
    fn inputs(&mut self, number: usize, rows: &[f32], width: usize);

    /// Receives rows `[keys | values]` of layer `layer` as they are written to the cache.
    fn keys_and_values(&mut self, layer: usize, rows: &[f32], width: usize);
}

/// A device whose linear layers and cache are observed.
pub struct Observed<D> {
    device: D,
    observer: Arc<Mutex<dyn Observer>>,
    uploaded: AtomicUsize,
    numbers: Vec<f32>,
}

/// A weight of the inner device, with what tells its layer.
pub struct ObservedLinear<L> {
    inner: L,
    /// `None` for layers that run at load only.
    number: Option<usize>,
    width: usize,
}

impl<D: Device> Observed<D> {
    /// Shows what `device` computes to `observer`.
    pub fn new(device: D, observer: Arc<Mutex<dyn Observer>>) -> Self {
        Self { device, observer, uploaded: AtomicUsize::new(0), numbers: Vec::new() }
    }

    fn show(&mut self, x: &D::Activation, weight: &ObservedLinear<D::Linear>) -> Result<(), DeviceError> {
        let Some(number) = weight.number else { return Ok(()) };
        self.device.download(x, &mut self.numbers)?;
        let mut observer = self.observer.lock().unwrap_or_else(PoisonError::into_inner);
        observer.inputs(number, &self.numbers, weight.width);
        Ok(())
    }
}

impl<D: Device> Device for Observed<D> {
    type Activation = D::Activation;
    type Linear = ObservedLinear<D::Linear>;
    type Vector = D::Vector;
    type Table = D::Table;
    type Rotary = D::Rotary;
    type KvCache = D::KvCache;

    fn info(&self) -> DeviceInfo {
        self.device.info()
    }

    fn activation(&self, max_rows: usize, width: usize) -> Result<Self::Activation, DeviceError> {
        self.device.activation(max_rows, width)
    }

    fn qkv_activation(
        &self,
        max_rows: usize,
        shape: AttentionShape,
    ) -> Result<Self::Activation, DeviceError> {
        self.device.qkv_activation(max_rows, shape)
    }

    fn upload_linear(
        &self,
        role: Role,
        weight: LinearWeight<'_>,
        bias: Option<HostTensor<'_>>,
    ) -> Result<Self::Linear, DeviceError> {
        let number = (role != Role::Prefix).then(|| self.uploaded.fetch_add(1, Ordering::Relaxed));
        let width = weight.width();
        Ok(ObservedLinear { inner: self.device.upload_linear(role, weight, bias)?, number, width })
    }

    fn upload_vector(&self, values: HostTensor<'_>) -> Result<Self::Vector, DeviceError> {
        self.device.upload_vector(values)
    }

    fn upload_table(&self, table: HostTensor<'_>) -> Result<Self::Table, DeviceError> {
        self.device.upload_table(table)
    }

    fn upload_rotary(&self, table: &RotaryTable) -> Result<Self::Rotary, DeviceError> {
        self.device.upload_rotary(table)
    }

    fn kv_cache(&self, shape: KvShape) -> Result<Self::KvCache, DeviceError> {
        self.device.kv_cache(shape)
    }

    fn kv_cache_of_channels(
        &self,
        shape: KvShape,
        channels: &KvChannels,
    ) -> Result<Self::KvCache, DeviceError> {
        self.device.kv_cache_of_channels(shape, channels)
    }

    fn embed(
        &mut self,
        table: &Self::Table,
        ids: &[u32],
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError> {
        self.device.embed(table, ids, out)
    }

    fn rms_norm(
        &mut self,
        x: &Self::Activation,
        weight: &Self::Vector,
        epsilon: f32,
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError> {
        self.device.rms_norm(x, weight, epsilon, out)
    }

    fn linear(
        &mut self,
        x: &Self::Activation,
        weight: &Self::Linear,
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError> {
        self.show(x, weight)?;
        self.device.linear(x, &weight.inner, out)
    }

    fn rotary(
        &mut self,
        qkv: &mut Self::Activation,
        table: &Self::Rotary,
        positions: &[u32],
        shape: AttentionShape,
    ) -> Result<(), DeviceError> {
        self.device.rotary(qkv, table, positions, shape)
    }

    fn write_kv(
        &mut self,
        qkv: &Self::Activation,
        cache: &mut Self::KvCache,
        layer: usize,
        sequences: &[SequenceView<'_>],
        shape: AttentionShape,
    ) -> Result<(), DeviceError> {
        self.device.download(qkv, &mut self.numbers)?;
        let (queries, all) =
            (shape.heads * shape.channels, (shape.heads + 2 * shape.kv_heads) * shape.channels);
        let rows: Vec<f32> =
            self.numbers.chunks_exact(all).flat_map(|row| &row[queries..]).copied().collect();
        let mut observer = self.observer.lock().unwrap_or_else(PoisonError::into_inner);
        observer.keys_and_values(layer, &rows, all - queries);
        drop(observer);
        self.device.write_kv(qkv, cache, layer, sequences, shape)
    }

    fn copy_kv_block(
        &mut self,
        cache: &mut Self::KvCache,
        from: u32,
        to: u32,
        tokens: usize,
    ) -> Result<(), DeviceError> {
        self.device.copy_kv_block(cache, from, to, tokens)
    }

    fn attention(
        &mut self,
        qkv: &Self::Activation,
        cache: &Self::KvCache,
        layer: usize,
        sequences: &[SequenceView<'_>],
        shape: AttentionShape,
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError> {
        self.device.attention(qkv, cache, layer, sequences, shape, out)
    }

    fn add(&mut self, x: &mut Self::Activation, y: &Self::Activation) -> Result<(), DeviceError> {
        self.device.add(x, y)
    }

    fn swiglu(&mut self, h: &Self::Activation, out: &mut Self::Activation) -> Result<(), DeviceError> {
        self.device.swiglu(h, out)
    }

    fn gate_up(
        &mut self,
        x: &Self::Activation,
        weight: &Self::Linear,
        h: &mut Self::Activation,
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError> {
        self.show(x, weight)?;
        self.device.gate_up(x, &weight.inner, h, out)
    }

    fn gather(
        &mut self,
        x: &Self::Activation,
        rows: &[usize],
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError> {
        self.device.gather(x, rows, out)
    }

    fn gather_queries(
        &mut self,
        qkv: &Self::Activation,
        rows: &[usize],
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError> {
        self.device.gather_queries(qkv, rows, out)
    }

    fn all_reduce(&mut self, x: &mut Self::Activation) -> Result<(), DeviceError> {
        self.device.all_reduce(x)
    }

    fn modelled_ns(&self) -> Option<u64> {
        self.device.modelled_ns()
    }

    fn idle(&mut self, duration_ns: u64) {
        self.device.idle(duration_ns);
    }

    fn release_cached(&mut self) -> Result<(), DeviceError> {
        self.device.release_cached()
    }

    fn download(&mut self, x: &Self::Activation, out: &mut Vec<f32>) -> Result<(), DeviceError> {
        self.device.download(x, out)
    }

    fn upload(&mut self, rows: &[f32], out: &mut Self::Activation) -> Result<(), DeviceError> {
        self.device.upload(rows, out)
    }
}
