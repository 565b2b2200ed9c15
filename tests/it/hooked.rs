//! The reference device with hooks: it computes what the reference computes, and a test observes or fails single operators.
//! Every method of a device is here once.

use glmbench_device::reference::Reference;
use glmbench_device::rotary::RotaryTable;
use glmbench_device::{
    AttentionShape, Device, DeviceError, DeviceInfo, HostTensor, KvChannels, KvShape, LinearWeight, Role,
    SequenceView,
};

/// What a test does around operators. Errors end the operator before it computes.
pub(crate) trait Hooks: Send {
    /// Changes the description of the device.
    fn info(&self, of: DeviceInfo) -> DeviceInfo {
        of
    }

    /// Called before a cache is made.
    fn kv_cache(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    /// Called before a linear product.
    fn linear(&mut self) {}

    /// Called before an addition.
    fn add(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    /// The time on the device's own clock; `None` without one.
    fn modelled_ns(&self) -> Option<u64> {
        None
    }
}

/// The device.
pub(crate) struct Hooked<H> {
    pub(crate) inner: Reference,
    pub(crate) hooks: H,
}

type Of<T> = Result<T, DeviceError>;
type Activation = <Reference as Device>::Activation;
type Linear = <Reference as Device>::Linear;
type Table = <Reference as Device>::Table;
type KvCache = <Reference as Device>::KvCache;

impl<H: Hooks> Device for Hooked<H> {
    type Activation = Activation;
    type Linear = Linear;
    type Vector = Vec<f32>;
    type Table = Table;
    type Rotary = RotaryTable;
    type KvCache = KvCache;

    fn info(&self) -> DeviceInfo {
        self.hooks.info(self.inner.info())
    }

    fn activation(&self, max_rows: usize, width: usize) -> Of<Activation> {
        self.inner.activation(max_rows, width)
    }

    fn upload_linear(
        &self,
        role: Role,
        weight: LinearWeight<'_>,
        bias: Option<HostTensor<'_>>,
    ) -> Of<Linear> {
        self.inner.upload_linear(role, weight, bias)
    }

    fn upload_vector(&self, values: HostTensor<'_>) -> Of<Vec<f32>> {
        self.inner.upload_vector(values)
    }

    fn upload_table(&self, table: HostTensor<'_>) -> Of<Table> {
        self.inner.upload_table(table)
    }

    fn upload_rotary(&self, table: &RotaryTable) -> Of<RotaryTable> {
        self.inner.upload_rotary(table)
    }

    fn kv_cache(&self, shape: KvShape) -> Of<KvCache> {
        self.hooks.kv_cache()?;
        self.inner.kv_cache(shape)
    }

    fn kv_cache_of_channels(&self, shape: KvShape, channels: &KvChannels) -> Of<KvCache> {
        self.hooks.kv_cache()?;
        self.inner.kv_cache_of_channels(shape, channels)
    }

    fn embed(&mut self, table: &Table, ids: &[u32], out: &mut Activation) -> Of<()> {
        self.inner.embed(table, ids, out)
    }

    fn rms_norm(&mut self, x: &Activation, weight: &Vec<f32>, epsilon: f32, out: &mut Activation) -> Of<()> {
        self.inner.rms_norm(x, weight, epsilon, out)
    }

    fn linear(&mut self, x: &Activation, weight: &Linear, out: &mut Activation) -> Of<()> {
        self.hooks.linear();
        self.inner.linear(x, weight, out)
    }

    fn rotary(
        &mut self,
        qkv: &mut Activation,
        table: &RotaryTable,
        positions: &[u32],
        shape: AttentionShape,
    ) -> Of<()> {
        self.inner.rotary(qkv, table, positions, shape)
    }

    fn write_kv(
        &mut self,
        qkv: &Activation,
        cache: &mut KvCache,
        layer: usize,
        sequences: &[SequenceView<'_>],
        shape: AttentionShape,
    ) -> Of<()> {
        self.inner.write_kv(qkv, cache, layer, sequences, shape)
    }

    fn copy_kv_block(&mut self, cache: &mut KvCache, from: u32, to: u32, tokens: usize) -> Of<()> {
        self.inner.copy_kv_block(cache, from, to, tokens)
    }

    fn attention(
        &mut self,
        qkv: &Activation,
        cache: &KvCache,
        layer: usize,
        sequences: &[SequenceView<'_>],
        shape: AttentionShape,
        out: &mut Activation,
    ) -> Of<()> {
        self.inner.attention(qkv, cache, layer, sequences, shape, out)
    }

    fn add(&mut self, x: &mut Activation, y: &Activation) -> Of<()> {
        self.hooks.add()?;
        self.inner.add(x, y)
    }

    fn swiglu(&mut self, h: &Activation, out: &mut Activation) -> Of<()> {
        self.inner.swiglu(h, out)
    }

    fn gather(&mut self, x: &Activation, rows: &[usize], out: &mut Activation) -> Of<()> {
        self.inner.gather(x, rows, out)
    }

    fn all_reduce(&mut self, x: &mut Activation) -> Of<()> {
        self.inner.all_reduce(x)
    }

    fn modelled_ns(&self) -> Option<u64> {
        self.hooks.modelled_ns()
    }

    fn download(&mut self, x: &Activation, out: &mut Vec<f32>) -> Of<()> {
        self.inner.download(x, out)
    }

    fn upload(&mut self, rows: &[f32], out: &mut Activation) -> Of<()> {
        self.inner.upload(rows, out)
    }
}
