//! Times of operators over shapes, of copies, and of collectives by size: what the parameters of a chip profile are fitted
//! to.

use std::time::Instant;

use ascend_sys::ACL_MEMCPY_DEVICE_TO_DEVICE;

use glmbench_device::cost::Work;
use glmbench_device::{
    Device, DeviceError, KV_BLOCK_TOKENS, KvShape, LinearShape, Precision, Role, SequenceView,
};

use super::super::Ascend;
use super::super::compare::numbers;
use super::super::memory::{Inbox, Outbox};
use super::super::work::{Work as Priced, WorkCounter};
use super::{Host, Widths, timed};

/// Timed runs of an operator, after one warm-up.
const RUNS: usize = 5;
/// Rows of the operators other than attention: decoding, batches, and prompts.
const ROWS: [usize; 6] = [1, 4, 16, 64, 256, 1024];
/// Sequences and context of decode attention.
const DECODE: [(usize, usize); 5] = [(1, 128), (1, 1024), (1, 4096), (8, 1024), (32, 1024)];
/// Rows and context of prefill attention: whole prompts, and a later chunk.
const PREFILL: [(usize, usize); 5] = [(128, 128), (512, 512), (2048, 2048), (4096, 4096), (2048, 4096)];
/// Sizes of copies, in bytes.
const COPIES: [usize; 3] = [4 << 10, 1 << 20, 64 << 20];
/// Launches of the smallest operator, one after another.
const LAUNCHES: usize = 100;

/// The times of one operator at one shape.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorTime {
    /// The operator, as in the table of operators.
    pub operator: &'static str,
    /// Sizes by name.
    pub shape: Vec<(&'static str, u64)>,
    /// The minimum work ([`glmbench_device::cost`]); zero for operators that only touch activations.
    pub work: Work,
    /// Time of each run on the device, in nanoseconds.
    pub time_ns: Vec<u64>,
    /// The work that the emulator's clock prices, of one run. Empty on hardware, and without the emulator's `record = on`.
    pub priced: Priced,
}

/// The times of a copy or collective of one size.
#[derive(Debug, Clone, PartialEq)]
pub struct SizeTime {
    /// `device`, `to_device`, `from_device` or `all_reduce`.
    pub what: &'static str,
    /// Bytes of each rank.
    pub bytes: u64,
    /// Time of each run on the device, in nanoseconds.
    pub time_ns: Vec<u64>,
    /// The work that the emulator's clock prices, of one run. Empty on hardware, and without the emulator's `record = on`.
    pub priced: Priced,
}

/// Times over shapes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timings {
    /// Operators.
    pub operators: Vec<OperatorTime>,
    /// Copies.
    pub copies: Vec<SizeTime>,
    /// Sums over the ranks; none with one rank.
    pub collectives: Vec<SizeTime>,
    /// Host time to launch the smallest operator, without waiting for it, in nanoseconds.
    pub host_launch_ns: Option<u64>,
}

/// Times of the runs of an operator, and the work of the last.
pub(super) type Runs = (Vec<u64>, Priced);

/// Runs work once, then times [`RUNS`] runs.
pub(super) fn repeated(
    device: &mut Ascend,
    mut work: impl FnMut(&mut Ascend) -> Result<(), DeviceError>,
) -> Result<Runs, DeviceError> {
    timed(device, &mut work)?;
    // The emulator counts the work of the first rank.
    let counter = (device.rank == 0).then(|| WorkCounter { api: device.core.context.api.clone() });
    let (mut times, mut priced) = (Vec::with_capacity(RUNS), Priced::default());
    for _ in 0..RUNS {
        counter.as_ref().map(WorkCounter::take);
        times.push(timed(device, &mut work)?);
        priced = counter.as_ref().map(WorkCounter::take).unwrap_or_default();
    }
    Ok((times, priced))
}

impl Timings {
    /// Measures all but the collectives. What was measured before a failure stays.
    pub(super) fn measure(&mut self, device: &mut Ascend, widths: Widths) -> Result<(), DeviceError> {
        self.rows(device, widths)?;
        self.linears(device, widths)?;
        self.attention(device, widths)?;
        self.copies(device)?;
        self.launches(device)
    }

    fn note(&mut self, operator: &'static str, shape: &[(&'static str, usize)], (time_ns, priced): Runs) {
        let shape = shape.iter().map(|(name, size)| (*name, *size as u64)).collect();
        self.operators.push(OperatorTime { operator, shape, work: Work::NONE, time_ns, priced });
    }

    /// Operators on rows of activations.
    fn rows(&mut self, device: &mut Ascend, widths: Widths) -> Result<(), DeviceError> {
        let Widths { hidden, vocab, .. } = widths;
        let dtype = device.core.dtype;
        let most = ROWS[ROWS.len() - 1];
        let table = device.upload_table(Host::new(dtype, vocab, hidden, 1, 1.0).view())?;
        let gamma = device.upload_vector(Host::new(dtype, 1, hidden, 3, 1.0).view())?;
        let (mut x, mut y) = (device.activation(most, hidden)?, device.activation(most, hidden)?);
        for rows in ROWS {
            let shape = [("rows", rows), ("width", hidden)];
            let values = numbers(dtype, rows * hidden, 2, 1.0);
            device.upload(&values, &mut x)?;
            device.upload(&values, &mut y)?;
            let runs = repeated(device, |device| device.rms_norm(&x, &gamma, 1e-5, &mut y))?;
            self.note("rms_norm", &shape, runs);
            let runs = repeated(device, |device| device.add(&mut x, &y))?;
            self.note("add", &shape, runs);
            let ids: Vec<u32> = (0..rows).map(|i| (i % vocab) as u32).collect();
            let runs = repeated(device, |device| device.embed(&table, &ids, &mut y))?;
            self.note("embed", &shape, runs);
        }
        Ok(())
    }

    /// Products with the weights of a layer, and the operator between two of them.
    fn linears(&mut self, device: &mut Ascend, widths: Widths) -> Result<(), DeviceError> {
        let Widths { hidden, ffn, heads, .. } = widths;
        let dtype = device.core.dtype;
        let most = ROWS[ROWS.len() - 1];
        let qkv = (heads.heads + 2 * heads.kv_heads) * heads.channels;
        for (operator, role, n, k) in [
            ("linear qkv", Role::Qkv, qkv, hidden),
            ("linear dense", Role::Dense, hidden, heads.heads * heads.channels),
            ("linear gate_up", Role::GateUp, 2 * ffn, hidden),
            ("linear down", Role::Down, hidden, ffn),
        ] {
            let weight = Host::new(dtype, n, k, 4, 0.02);
            let bias = Host::new(dtype, 1, n, 5, 1.0);
            let bias = (role == Role::Qkv).then(|| bias.view());
            let linear = device.upload_linear(role, weight.view().into(), bias)?;
            let mut x = device.activation(most, k)?;
            let mut out = match role {
                Role::Qkv => device.qkv_activation(most, heads)?,
                _ => device.activation(most, n)?,
            };
            let mut half = device.activation(most, ffn)?;
            for rows in ROWS {
                device.upload(&numbers(dtype, rows * k, 6, 1.0), &mut x)?;
                let runs = repeated(device, |device| device.linear(&x, &linear, &mut out))?;
                self.note(operator, &[("rows", rows), ("k", k), ("n", n)], runs);
                let shape = LinearShape { role, out: n as u64, width: k as u64 };
                let work = Work::linear(shape, Precision::from(dtype).storage(), rows as u64);
                if let Some(last) = self.operators.last_mut() {
                    last.work = work;
                }
                if role == Role::GateUp {
                    let runs = repeated(device, |device| device.swiglu(&out, &mut half))?;
                    self.note("swiglu", &[("rows", rows), ("width", ffn)], runs);
                }
            }
        }
        Ok(())
    }

    fn attention(&mut self, device: &mut Ascend, widths: Widths) -> Result<(), DeviceError> {
        for (batch, context) in DECODE {
            let shape = [("sequences", batch), ("context", context)];
            self.attend(device, widths, ("attention, decode", &shape), (batch, 1, context))?;
        }
        for (rows, context) in PREFILL {
            let shape = [("rows", rows), ("context", context)];
            self.attend(device, widths, ("attention, prefill", &shape), (1, rows, context))?;
        }
        Ok(())
    }

    /// The write of new keys and values, and attention of the last `rows` tokens of each of `batch` sequences.
    fn attend(
        &mut self,
        device: &mut Ascend,
        widths: Widths,
        (operator, shape): (&'static str, &[(&'static str, usize)]),
        (batch, rows, context): (usize, usize, usize),
    ) -> Result<(), DeviceError> {
        let (heads, dtype) = (widths.heads, device.core.dtype);
        let each = context.div_ceil(KV_BLOCK_TOKENS);
        let (kv_heads, channels) = (heads.kv_heads, heads.channels);
        let mut cache = device.kv_cache(KvShape { layers: 1, kv_heads, channels, blocks: batch * each })?;
        let blocks: Vec<Vec<u32>> =
            (0..batch).map(|i| (0..each).map(|j| (j * batch + i) as u32).collect()).collect();
        let sequences: Vec<SequenceView<'_>> = (0..batch)
            .map(|i| SequenceView { rows: i * rows..(i + 1) * rows, context, blocks: &blocks[i] })
            .collect();
        let width = (heads.heads + 2 * heads.kv_heads) * heads.channels;
        let mut qkv = device.qkv_activation(batch * rows, heads)?;
        let mut out = device.activation(batch * rows, heads.heads * heads.channels)?;
        device.upload(&numbers(dtype, batch * rows * width, 7, 1.0), &mut qkv)?;
        let runs = repeated(device, |device| device.write_kv(&qkv, &mut cache, 0, &sequences, heads))?;
        self.note("write_kv", shape, runs);
        let runs = repeated(device, |device| device.attention(&qkv, &cache, 0, &sequences, heads, &mut out))?;
        self.note(operator, shape, runs);
        let seen: usize = sequences.iter().map(|s| (0..rows).map(|i| s.visible(i)).sum::<usize>()).sum();
        let token_bytes = Precision::from(dtype).kv_token_bytes(heads);
        if let Some(last) = self.operators.last_mut() {
            last.work = Work::attention(heads, token_bytes, (batch * context) as u64, seen as u64);
        }
        Ok(())
    }

    fn copies(&mut self, device: &mut Ascend) -> Result<(), DeviceError> {
        let mut note = |what, bytes, (time_ns, priced): Runs| {
            self.copies.push(SizeTime { what, bytes, time_ns, priced });
        };
        for bytes in COPIES {
            let (from, to) =
                (device.core.slab.take(bytes, "a test")?, device.core.slab.take(bytes, "a test")?);
            from.clear()?;
            let runs = repeated(device, |device| {
                // SAFETY: both buffers have the bytes, and live until the stream was waited for.
                unsafe { device.core.stream.copy(to.at(0), from.at(0), bytes, ACL_MEMCPY_DEVICE_TO_DEVICE) }
            })?;
            note("device", bytes as u64, runs);
            let mut inbox = Inbox::new("a test");
            let runs =
                repeated(device, |device| inbox.send(&device.core.slab, &device.core.stream, bytes, |_| {}))?;
            note("to_device", bytes as u64, runs);
            let mut outbox = Outbox::default();
            let runs = repeated(device, |device| {
                outbox.receive(&device.core.context, &device.core.stream, from.at(0), bytes).map(drop)
            })?;
            note("from_device", bytes as u64, runs);
        }
        Ok(())
    }

    /// A train of the smallest operator: time on the device, and on the host to launch it.
    fn launches(&mut self, device: &mut Ascend) -> Result<(), DeviceError> {
        let (mut x, mut y) = (device.activation(1, 64)?, device.activation(1, 64)?);
        device.upload(&[0.0; 64], &mut x)?;
        device.upload(&[0.0; 64], &mut y)?;
        let mut train = |device: &mut Ascend| (0..LAUNCHES).try_for_each(|_| device.add(&mut x, &y));
        let runs = repeated(device, &mut train)?;
        self.note("add, one after another", &[("launches", LAUNCHES), ("width", 64)], runs);
        let (begin, modelled) = (Instant::now(), device.modelled_ns());
        train(device)?;
        let spent = match (modelled, device.modelled_ns()) {
            (Some(begin), Some(end)) => end.saturating_sub(begin),
            _ => u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX),
        };
        device.core.stream.synchronize()?;
        self.host_launch_ns = Some(spent / LAUNCHES as u64);
        Ok(())
    }
}
