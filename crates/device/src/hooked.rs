//! A device around another one: it computes what that computes, and calls [`Hooks`] around the operators.
//!
//! [`Hooked`] is transparent to both the forward pass and the inner device. It tells the hooks the minimum work of each operator
//! ([`cost`](super::cost)). Linear layers are identified by the role of their weights, and their bytes follow from the weights' own
//! form.

use super::cost::Work;
use super::operator::Operator;
use super::rotary::RotaryTable;
use super::{
    AttentionShape, Device, DeviceError, DeviceInfo, HostTensor, KvChannels, KvShape, LinearShape,
    LinearWeight, Role, SequenceView, Storage,
};

/// What is done around the operators of a device. An error ends the operator before it computes.
pub trait Hooks<D: Device>: Send {
    /// What the hooks keep of a linear weight.
    type Mark: Send;

    /// Returns the mark of a linear weight that is uploaded.
    fn mark(&self, role: Role, weight: &LinearWeight<'_>) -> Self::Mark;

    /// Changes the description of the device.
    fn info(&self, of: DeviceInfo) -> DeviceInfo {
        of
    }

    /// Called before a cache is allocated.
    fn kv_cache(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    /// Called before a product of `x` with the weight of this mark.
    fn linear(&mut self, device: &mut D, x: &D::Activation, mark: &Self::Mark) -> Result<(), DeviceError> {
        let _ = (device, x, mark);
        Ok(())
    }

    /// Called before the keys and values of `qkv` are written to the cache of a layer.
    fn write_kv(
        &mut self,
        device: &mut D,
        qkv: &D::Activation,
        layer: usize,
        shape: AttentionShape,
    ) -> Result<(), DeviceError> {
        let _ = (device, qkv, layer, shape);
        Ok(())
    }

    /// Called before an addition.
    fn add(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    /// Runs `call`, which is an operator of the forward pass with at least this work.
    fn run<T>(
        &mut self,
        device: &mut D,
        operator: Operator,
        work: Work,
        call: impl FnOnce(&mut D) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        let _ = (operator, work);
        call(device)
    }

    /// Returns the virtual clock of the device in nanoseconds.
    fn modelled_ns(&self, device: &D) -> Option<u64> {
        device.modelled_ns()
    }
}

/// A device with hooks.
#[derive(Debug)]
pub struct Hooked<D, H> {
    device: D,
    hooks: H,
}

/// An activation of the inner device, with the number of rows in use.
#[derive(Debug)]
pub struct HookedActivation<A> {
    inner: A,
    width: usize,
    rows: usize,
}

/// A weight of the inner device, with what the work of a product with it follows from, and the hooks' mark.
#[derive(Debug)]
pub struct HookedLinear<L, M> {
    inner: L,
    shape: LinearShape,
    storage: Storage,
    mark: M,
}

impl<L, M> HookedLinear<L, M> {
    fn work(&self, rows: usize) -> Work {
        Work::linear(self.shape, self.storage, rows as u64)
    }
}

/// A table or cache of the inner device, with the size in bytes of one row or token.
#[derive(Debug)]
pub struct HookedStore<T> {
    inner: T,
    each_bytes: u64,
}

impl<D: Device, H: Hooks<D>> Hooked<D, H> {
    /// Wraps `device`.
    pub fn new(device: D, hooks: H) -> Self {
        Self { device, hooks }
    }

    /// Returns the size of the keys and values of a token in one layer, in bytes.
    fn kv_token_bytes(&self, KvShape { kv_heads, channels, .. }: KvShape) -> u64 {
        let of_token = AttentionShape { heads: kv_heads, kv_heads, channels };
        self.device.info().precision.kv_token_bytes(of_token)
    }

    fn run<T>(
        &mut self,
        operator: Operator,
        work: Work,
        call: impl FnOnce(&mut D) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        self.hooks.run(&mut self.device, operator, work, call)
    }
}

impl<D: Device, H: Hooks<D>> Device for Hooked<D, H> {
    type Activation = HookedActivation<D::Activation>;
    type Linear = HookedLinear<D::Linear, H::Mark>;
    type Vector = D::Vector;
    type Table = HookedStore<D::Table>;
    type Rotary = D::Rotary;
    type KvCache = HookedStore<D::KvCache>;

    fn info(&self) -> DeviceInfo {
        self.hooks.info(self.device.info())
    }

    fn activation(&self, max_rows: usize, width: usize) -> Result<Self::Activation, DeviceError> {
        Ok(HookedActivation { inner: self.device.activation(max_rows, width)?, width, rows: 0 })
    }

    fn qkv_activation(
        &self,
        max_rows: usize,
        shape: AttentionShape,
    ) -> Result<Self::Activation, DeviceError> {
        let width = (shape.heads + 2 * shape.kv_heads) * shape.channels;
        Ok(HookedActivation { inner: self.device.qkv_activation(max_rows, shape)?, width, rows: 0 })
    }

    fn upload_linear(
        &self,
        role: Role,
        weight: LinearWeight<'_>,
        bias: Option<HostTensor<'_>>,
    ) -> Result<Self::Linear, DeviceError> {
        let inner = self.device.upload_linear(role, weight, bias)?;
        let storage = weight.storage(self.device.info().precision.dtype);
        Ok(HookedLinear { inner, shape: weight.shape(role), storage, mark: self.hooks.mark(role, &weight) })
    }

    fn upload_vector(&self, values: HostTensor<'_>) -> Result<Self::Vector, DeviceError> {
        self.device.upload_vector(values)
    }

    fn upload_table(&self, table: HostTensor<'_>) -> Result<Self::Table, DeviceError> {
        let each_bytes = (table.width * self.device.info().precision.dtype.bytes()) as u64;
        Ok(HookedStore { inner: self.device.upload_table(table)?, each_bytes })
    }

    fn upload_rotary(&self, table: &RotaryTable) -> Result<Self::Rotary, DeviceError> {
        self.device.upload_rotary(table)
    }

    fn kv_cache(&self, shape: KvShape) -> Result<Self::KvCache, DeviceError> {
        self.hooks.kv_cache()?;
        Ok(HookedStore { inner: self.device.kv_cache(shape)?, each_bytes: self.kv_token_bytes(shape) })
    }

    fn kv_cache_of_channels(
        &self,
        shape: KvShape,
        channels: &KvChannels,
    ) -> Result<Self::KvCache, DeviceError> {
        self.hooks.kv_cache()?;
        let inner = self.device.kv_cache_of_channels(shape, channels)?;
        Ok(HookedStore { inner, each_bytes: self.kv_token_bytes(shape) })
    }

    fn embed(
        &mut self,
        table: &Self::Table,
        ids: &[u32],
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError> {
        out.rows = ids.len();
        let work = Work { bytes: ids.len() as u64 * table.each_bytes, flops: 0 };
        self.run(Operator::Embed, work, |d| d.embed(&table.inner, ids, &mut out.inner))
    }

    fn rms_norm(
        &mut self,
        x: &Self::Activation,
        weight: &Self::Vector,
        epsilon: f32,
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError> {
        out.rows = x.rows;
        self.run(Operator::Norm, Work::NONE, |d| d.rms_norm(&x.inner, weight, epsilon, &mut out.inner))
    }

    fn linear(
        &mut self,
        x: &Self::Activation,
        weight: &Self::Linear,
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError> {
        out.rows = x.rows;
        self.hooks.linear(&mut self.device, &x.inner, &weight.mark)?;
        let mut call = |d: &mut D| d.linear(&x.inner, &weight.inner, &mut out.inner);
        match Operator::of(weight.shape.role) {
            Some(operator) => self.run(operator, weight.work(x.rows), call),
            None => call(&mut self.device),
        }
    }

    fn rotary(
        &mut self,
        qkv: &mut Self::Activation,
        table: &Self::Rotary,
        positions: &[u32],
        shape: AttentionShape,
    ) -> Result<(), DeviceError> {
        self.run(Operator::Rotary, Work::NONE, |d| d.rotary(&mut qkv.inner, table, positions, shape))
    }

    fn write_kv(
        &mut self,
        qkv: &Self::Activation,
        cache: &mut Self::KvCache,
        layer: usize,
        sequences: &[SequenceView<'_>],
        shape: AttentionShape,
    ) -> Result<(), DeviceError> {
        self.hooks.write_kv(&mut self.device, &qkv.inner, layer, shape)?;
        let tokens: usize = sequences.iter().map(|s| s.rows.len()).sum();
        let work = Work { bytes: tokens as u64 * cache.each_bytes, flops: 0 };
        self.run(Operator::WriteKv, work, |d| {
            d.write_kv(&qkv.inner, &mut cache.inner, layer, sequences, shape)
        })
    }

    fn copy_kv_block(
        &mut self,
        cache: &mut Self::KvCache,
        from: u32,
        to: u32,
        tokens: usize,
    ) -> Result<(), DeviceError> {
        self.device.copy_kv_block(&mut cache.inner, from, to, tokens)
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
        out.rows = qkv.rows;
        // The rows written in this step are still in cache. Earlier ones come from memory, once for
        // all heads.
        let read: usize = sequences.iter().map(|s| s.context - s.rows.len()).sum();
        let seen: usize = sequences.iter().map(seen).sum();
        let work = Work::attention(shape, cache.each_bytes, read as u64, seen as u64);
        self.run(Operator::Attention, work, |d| {
            d.attention(&qkv.inner, &cache.inner, layer, sequences, shape, &mut out.inner)
        })
    }

    fn add(&mut self, x: &mut Self::Activation, y: &Self::Activation) -> Result<(), DeviceError> {
        self.hooks.add()?;
        self.run(Operator::Add, Work::NONE, |d| d.add(&mut x.inner, &y.inner))
    }

    fn swiglu(&mut self, h: &Self::Activation, out: &mut Self::Activation) -> Result<(), DeviceError> {
        out.rows = h.rows;
        self.run(Operator::GateUp, Work::NONE, |d| d.swiglu(&h.inner, &mut out.inner))
    }

    fn gate_up(
        &mut self,
        x: &Self::Activation,
        weight: &Self::Linear,
        h: &mut Self::Activation,
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError> {
        out.rows = x.rows;
        self.hooks.linear(&mut self.device, &x.inner, &weight.mark)?;
        self.run(Operator::GateUp, weight.work(x.rows), |d| {
            d.gate_up(&x.inner, &weight.inner, &mut h.inner, &mut out.inner)
        })
    }

    fn gather(
        &mut self,
        x: &Self::Activation,
        rows: &[usize],
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError> {
        out.rows = rows.len();
        self.run(Operator::Gather, Work::NONE, |d| d.gather(&x.inner, rows, &mut out.inner))
    }

    fn gather_queries(
        &mut self,
        qkv: &Self::Activation,
        rows: &[usize],
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError> {
        out.rows = rows.len();
        self.run(Operator::Gather, Work::NONE, |d| d.gather_queries(&qkv.inner, rows, &mut out.inner))
    }

    fn all_reduce(&mut self, x: &mut Self::Activation) -> Result<(), DeviceError> {
        self.run(Operator::AllReduce, Work::NONE, |d| d.all_reduce(&mut x.inner))
    }

    fn modelled_ns(&self) -> Option<u64> {
        self.hooks.modelled_ns(&self.device)
    }

    fn idle(&mut self, duration_ns: u64) {
        self.device.idle(duration_ns);
    }

    fn release_cached(&mut self) -> Result<(), DeviceError> {
        self.device.release_cached()
    }

    fn download(&mut self, x: &Self::Activation, out: &mut Vec<f32>) -> Result<(), DeviceError> {
        self.run(Operator::Download, Work::NONE, |d| d.download(&x.inner, out))
    }

    fn upload(&mut self, rows: &[f32], out: &mut Self::Activation) -> Result<(), DeviceError> {
        out.rows = rows.len() / out.width;
        self.device.upload(rows, &mut out.inner)
    }
}

/// Returns the number of tokens that the sequence's rows of this step see, summed over the rows.
fn seen(sequence: &SequenceView<'_>) -> usize {
    let rows = sequence.rows.len();
    // The rows see `context - rows + 1` to `context` tokens.
    rows * (2 * sequence.context - rows + 1) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_sees_what_came_before_and_itself() {
        let view = |rows, context| SequenceView { rows, context, blocks: &[] };
        for sequence in [view(0..1, 1), view(3..4, 9), view(0..5, 5), view(2..6, 11)] {
            let sum: usize = (0..sequence.rows.len()).map(|i| sequence.visible(i)).sum();
            assert_eq!(seen(&sequence), sum);
        }
    }
}
