//! Operator timing: a device that times every operator of another device.
//!
//! [`Timed`] wraps a device and is transparent to both the forward pass and that device. A model loaded without it has
//! no overhead. Besides the time, it counts the minimum work of each operator ([`cost`](super::cost)). Linear layers are
//! identified by the role of their weights, and their bytes follow from the weights' own form.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::cost::Work;
use super::group::DeviceGroup;
use super::rotary::RotaryTable;
use super::sensors::Sensors;
use super::{
    AttentionShape, Device, DeviceError, DeviceInfo, HostTensor, KvChannels, KvShape, LinearShape,
    LinearWeight, Role, SequenceView, Storage,
};

/// The operators of a forward pass, by their role in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operator {
    /// Lookup of rows of the embedding table.
    Embed,
    /// RMS norms.
    Norm,
    /// Projection to queries, keys and values.
    Qkv,
    /// Rotary embedding.
    Rotary,
    /// Write of keys and values to the cache.
    WriteKv,
    /// Attention over the cache.
    Attention,
    /// The linear layer after attention.
    OutputProjection,
    /// Residual additions.
    Add,
    /// Both halves of the feed-forward layer and their SwiGLU.
    GateUp,
    /// The linear layer back to the residual stream.
    Down,
    /// Sums over tensor-parallel ranks.
    AllReduce,
    /// Selection of the rows that need logits.
    Gather,
    /// The output layer, which computes the logits.
    LmHead,
    /// Copy of the logits to the host.
    Download,
}

impl Operator {
    /// All operators, in the order of the forward pass.
    pub const ALL: [Self; 14] = [
        Self::Embed,
        Self::Norm,
        Self::Qkv,
        Self::Rotary,
        Self::WriteKv,
        Self::Attention,
        Self::OutputProjection,
        Self::Add,
        Self::GateUp,
        Self::Down,
        Self::AllReduce,
        Self::Gather,
        Self::LmHead,
        Self::Download,
    ];

    /// Returns the operator of a linear layer; `None` for layers that run at load only.
    fn of(role: Role) -> Option<Self> {
        match role {
            Role::Qkv => Some(Self::Qkv),
            Role::Dense => Some(Self::OutputProjection),
            Role::GateUp => Some(Self::GateUp),
            Role::Down => Some(Self::Down),
            Role::Output => Some(Self::LmHead),
            Role::Prefix => None,
        }
    }

    /// Returns the name used in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::Norm => "norm",
            Self::Qkv => "qkv",
            Self::Rotary => "rotary",
            Self::WriteKv => "write_kv",
            Self::Attention => "attention",
            Self::OutputProjection => "o_proj",
            Self::Add => "add",
            Self::GateUp => "gate_up",
            Self::Down => "down",
            Self::AllReduce => "all_reduce",
            Self::Gather => "gather",
            Self::LmHead => "lm_head",
            Self::Download => "download",
        }
    }
}

/// Time and minimum work of one operator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OperatorTotals {
    /// Number of calls.
    pub calls: u64,
    /// Total time in nanoseconds.
    pub time_ns: u64,
    /// Bytes of weights, embedding rows and KV cache.
    pub bytes: u64,
    /// Multiplications and additions of matrix products and attention.
    pub flops: u64,
}

impl std::ops::AddAssign for OperatorTotals {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.time_ns += other.time_ns;
        self.bytes += other.bytes;
        self.flops += other.flops;
    }
}

/// The totals of a [`Timed`] device. The driver of the model shares it, and empties it after each step.
#[derive(Debug, Default)]
pub struct OperatorClock(Mutex<[OperatorTotals; Operator::ALL.len()]>);

impl OperatorClock {
    fn add(&self, operator: Operator, one: OperatorTotals) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[operator as usize] += one;
    }

    /// Returns the totals since the last call and resets them. Operators without calls are left out.
    pub fn take(&self) -> Vec<(Operator, OperatorTotals)> {
        let totals = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        Operator::ALL.into_iter().zip(totals).filter(|(_, totals)| totals.calls > 0).collect()
    }
}

/// A device whose operators are timed.
#[derive(Debug)]
pub struct Timed<D> {
    device: D,
    /// `None` for ranks that are not timed.
    clock: Option<Arc<OperatorClock>>,
}

/// An activation of the inner device, with the number of rows in use.
#[derive(Debug)]
pub struct TimedActivation<A> {
    inner: A,
    width: usize,
    rows: usize,
}

/// A weight of the inner device, with what the work of a product with it follows from.
#[derive(Debug)]
pub struct TimedLinear<L> {
    inner: L,
    shape: LinearShape,
    storage: Storage,
}

impl<L> TimedLinear<L> {
    fn work(&self, rows: usize) -> Work {
        Work::linear(self.shape, self.storage, rows as u64)
    }
}

/// A table or cache of the inner device, with the size in bytes of one row or token.
#[derive(Debug)]
pub struct TimedStore<T> {
    inner: T,
    each_bytes: u64,
}

impl<D: Device> Timed<D> {
    /// Times `device`. Without a clock, every call is only forwarded.
    pub fn new(device: D, clock: Option<Arc<OperatorClock>>) -> Self {
        Self { device, clock }
    }

    /// Returns the size of a token's keys and values in one layer, in bytes.
    fn kv_token_bytes(&self, KvShape { kv_heads, channels, .. }: KvShape) -> u64 {
        let of_token = AttentionShape { heads: kv_heads, kv_heads, channels };
        self.device.info().precision.kv_token_bytes(of_token)
    }

    /// Times `call`, which does at least this work.
    fn time<T>(
        &mut self,
        operator: Operator,
        Work { bytes, flops }: Work,
        call: impl FnOnce(&mut D) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        let Some(clock) = &self.clock else { return call(&mut self.device) };
        let start = Instant::now();
        let result = call(&mut self.device);
        let time_ns = start.elapsed().as_nanos() as u64;
        clock.add(operator, OperatorTotals { calls: 1, time_ns, bytes, flops });
        result
    }
}

impl<D: Device> Device for Timed<D> {
    type Activation = TimedActivation<D::Activation>;
    type Linear = TimedLinear<D::Linear>;
    type Vector = D::Vector;
    type Table = TimedStore<D::Table>;
    type Rotary = D::Rotary;
    type KvCache = TimedStore<D::KvCache>;

    fn info(&self) -> DeviceInfo {
        self.device.info()
    }

    fn activation(&self, max_rows: usize, width: usize) -> Result<Self::Activation, DeviceError> {
        Ok(TimedActivation { inner: self.device.activation(max_rows, width)?, width, rows: 0 })
    }

    fn qkv_activation(
        &self,
        max_rows: usize,
        shape: AttentionShape,
    ) -> Result<Self::Activation, DeviceError> {
        let width = (shape.heads + 2 * shape.kv_heads) * shape.channels;
        Ok(TimedActivation { inner: self.device.qkv_activation(max_rows, shape)?, width, rows: 0 })
    }

    fn upload_linear(
        &self,
        role: Role,
        weight: LinearWeight<'_>,
        bias: Option<HostTensor<'_>>,
    ) -> Result<Self::Linear, DeviceError> {
        let inner = self.device.upload_linear(role, weight, bias)?;
        let storage = weight.storage(self.device.info().precision.dtype);
        Ok(TimedLinear { inner, shape: weight.shape(role), storage })
    }

    fn upload_vector(&self, values: HostTensor<'_>) -> Result<Self::Vector, DeviceError> {
        self.device.upload_vector(values)
    }

    fn upload_table(&self, table: HostTensor<'_>) -> Result<Self::Table, DeviceError> {
        let each_bytes = (table.width * self.device.info().precision.dtype.bytes()) as u64;
        Ok(TimedStore { inner: self.device.upload_table(table)?, each_bytes })
    }

    fn upload_rotary(&self, table: &RotaryTable) -> Result<Self::Rotary, DeviceError> {
        self.device.upload_rotary(table)
    }

    fn kv_cache(&self, shape: KvShape) -> Result<Self::KvCache, DeviceError> {
        Ok(TimedStore { inner: self.device.kv_cache(shape)?, each_bytes: self.kv_token_bytes(shape) })
    }

    fn kv_cache_of_channels(
        &self,
        shape: KvShape,
        channels: &KvChannels,
    ) -> Result<Self::KvCache, DeviceError> {
        let inner = self.device.kv_cache_of_channels(shape, channels)?;
        Ok(TimedStore { inner, each_bytes: self.kv_token_bytes(shape) })
    }

    fn embed(
        &mut self,
        table: &Self::Table,
        ids: &[u32],
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError> {
        out.rows = ids.len();
        let work = Work { bytes: ids.len() as u64 * table.each_bytes, flops: 0 };
        self.time(Operator::Embed, work, |d| d.embed(&table.inner, ids, &mut out.inner))
    }

    fn rms_norm(
        &mut self,
        x: &Self::Activation,
        weight: &Self::Vector,
        epsilon: f32,
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError> {
        out.rows = x.rows;
        self.time(Operator::Norm, Work::NONE, |d| d.rms_norm(&x.inner, weight, epsilon, &mut out.inner))
    }

    fn linear(
        &mut self,
        x: &Self::Activation,
        weight: &Self::Linear,
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError> {
        out.rows = x.rows;
        let mut call = |d: &mut D| d.linear(&x.inner, &weight.inner, &mut out.inner);
        match Operator::of(weight.shape.role) {
            Some(operator) => self.time(operator, weight.work(x.rows), call),
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
        self.time(Operator::Rotary, Work::NONE, |d| d.rotary(&mut qkv.inner, table, positions, shape))
    }

    fn write_kv(
        &mut self,
        qkv: &Self::Activation,
        cache: &mut Self::KvCache,
        layer: usize,
        sequences: &[SequenceView<'_>],
        shape: AttentionShape,
    ) -> Result<(), DeviceError> {
        let tokens: usize = sequences.iter().map(|s| s.rows.len()).sum();
        let work = Work { bytes: tokens as u64 * cache.each_bytes, flops: 0 };
        self.time(Operator::WriteKv, work, |d| {
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
        self.time(Operator::Attention, work, |d| {
            d.attention(&qkv.inner, &cache.inner, layer, sequences, shape, &mut out.inner)
        })
    }

    fn add(&mut self, x: &mut Self::Activation, y: &Self::Activation) -> Result<(), DeviceError> {
        self.time(Operator::Add, Work::NONE, |d| d.add(&mut x.inner, &y.inner))
    }

    fn swiglu(&mut self, h: &Self::Activation, out: &mut Self::Activation) -> Result<(), DeviceError> {
        out.rows = h.rows;
        self.time(Operator::GateUp, Work::NONE, |d| d.swiglu(&h.inner, &mut out.inner))
    }

    fn gate_up(
        &mut self,
        x: &Self::Activation,
        weight: &Self::Linear,
        h: &mut Self::Activation,
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError> {
        out.rows = x.rows;
        self.time(Operator::GateUp, weight.work(x.rows), |d| {
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
        self.time(Operator::Gather, Work::NONE, |d| d.gather(&x.inner, rows, &mut out.inner))
    }

    fn gather_queries(
        &mut self,
        qkv: &Self::Activation,
        rows: &[usize],
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError> {
        out.rows = rows.len();
        self.time(Operator::Gather, Work::NONE, |d| d.gather_queries(&qkv.inner, rows, &mut out.inner))
    }

    fn all_reduce(&mut self, x: &mut Self::Activation) -> Result<(), DeviceError> {
        self.time(Operator::AllReduce, Work::NONE, |d| d.all_reduce(&mut x.inner))
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
        self.time(Operator::Download, Work::NONE, |d| d.download(&x.inner, out))
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

/// A group whose first rank is timed. All ranks do the same work, so one is representative.
#[derive(Debug)]
pub struct TimedGroup<G> {
    group: G,
    clock: Arc<OperatorClock>,
}

impl<G> TimedGroup<G> {
    /// Times the first rank of `group`.
    pub fn new(group: G, clock: Arc<OperatorClock>) -> Self {
        Self { group, clock }
    }
}

impl<G: DeviceGroup> DeviceGroup for TimedGroup<G> {
    type Device = Timed<G::Device>;

    fn name(&self) -> &'static str {
        self.group.name()
    }

    fn tp(&self) -> usize {
        self.group.tp()
    }

    fn device(&self, rank: usize) -> Result<Self::Device, DeviceError> {
        let clock = (rank == 0).then(|| Arc::clone(&self.clock));
        Ok(Timed::new(self.group.device(rank)?, clock))
    }

    fn abort(&self) {
        self.group.abort();
    }

    fn sensors(&self) -> Option<Box<dyn Sensors>> {
        self.group.sensors()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_has_its_place_and_word() {
        for (i, operator) in Operator::ALL.into_iter().enumerate() {
            assert_eq!(operator as usize, i);
            assert!(Operator::ALL[..i].iter().all(|other| other.name() != operator.name()));
        }
    }

    #[test]
    fn a_clock_is_empty_once_it_was_read() {
        let clock = OperatorClock::default();
        let one = OperatorTotals { calls: 1, time_ns: 5, bytes: 7, flops: 9 };
        clock.add(Operator::Norm, one);
        clock.add(Operator::Norm, one);
        let two = OperatorTotals { calls: 2, time_ns: 10, bytes: 14, flops: 18 };
        assert_eq!(clock.take(), [(Operator::Norm, two)]);
        assert_eq!(clock.take(), []);
    }

    #[test]
    fn a_row_sees_what_came_before_and_itself() {
        let view = |rows, context| SequenceView { rows, context, blocks: &[] };
        for sequence in [view(0..1, 1), view(3..4, 9), view(0..5, 5), view(2..6, 11)] {
            let sum: usize = (0..sequence.rows.len()).map(|i| sequence.visible(i)).sum();
            assert_eq!(seen(&sequence), sum);
        }
    }
}
