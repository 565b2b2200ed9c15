//! Every operator that the device uses, once, at a model's widths with few rows, held against plain fp32 loops.
//!
//! The first thing to run on hardware: what the documentation leaves open shows here. Inputs are small pseudo-random numbers
//! in the device's type, so that the only differences are roundings; each bound is derived from them (see `bound`).

use std::ops::Range;

use super::super::reference::Reference;
use super::super::rotary::{RotaryMode, RotaryScaling, RotarySpec, RotaryTable};
use super::super::{
    AttentionShape, DType, Device, DeviceError, DeviceInfo, HostTensor, KV_BLOCK_TOKENS, KvShape,
    SequenceView,
};
use super::layout::encode;
use super::runtime::Event;
use super::{Ascend, AscendGroup};

/// How a row of the table ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Within the bound.
    Pass,
    /// Outside, or an error.
    Fail,
    /// The machine does not have it; no fault.
    Unsupported,
}

/// A row of the table.
#[derive(Debug, Clone)]
pub struct SelftestRow {
    /// What was asked for.
    pub operator: String,
    /// Which alternative did it.
    pub variant: String,
    /// Shapes in words.
    pub shape: String,
    /// How it went.
    pub status: Status,
    /// Largest difference from the reference; none where nothing is compared.
    pub max_error: Option<f64>,
    /// Largest difference that rounding explains.
    pub bound: Option<f64>,
    /// Time on the stream between two events, second of two runs.
    pub time_ns: Option<u64>,
    /// The time is that of a virtual clock.
    pub modelled: bool,
    /// What else there is to say.
    pub note: String,
}

/// Widths of the model whose operators are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Widths {
    /// Residual stream.
    pub hidden: usize,
    /// One half of the feed-forward layer.
    pub ffn: usize,
    /// Heads.
    pub heads: AttentionShape,
    /// Rows of the embedding that are uploaded.
    pub vocab: usize,
}

impl Widths {
    /// ChatGLM2-6B's; of the vocabulary only a part, since rows do not depend on each other.
    pub fn chatglm2_6b() -> Self {
        let heads = AttentionShape { heads: 32, kv_heads: 2, channels: 128 };
        Self { hidden: 4096, ffn: 13696, heads, vocab: 1024 }
    }
}

/// Runs the table on rank 0 of a group; with more ranks the collective too, for which every rank gets a thread.
///
/// # Errors
/// The device cannot be had at all. What fails after that is a row.
pub fn selftest(group: &AscendGroup, widths: Widths) -> Result<(DeviceInfo, Vec<SelftestRow>), DeviceError> {
    let world = group.settings().world;
    std::thread::scope(|scope| {
        let others: Vec<_> =
            (1..world).map(|rank| scope.spawn(move || collective(&mut group.rank(rank)?))).collect();
        let mut table = Table::new(group.rank(0)?, widths);
        table.run();
        let mut rows = std::mem::take(&mut table.rows);
        if world > 1 {
            let sum = collective(&mut table.device);
            let all: Vec<_> = others.into_iter().map(|other| other.join()).collect();
            let others = all.into_iter().map(|joined| joined.unwrap_or(Ok(f64::INFINITY)));
            let worst = others.fold(sum, |worst, error| Ok(worst?.max(error?)));
            rows.push(collective_row(worst, world, table.modelled));
        } else {
            rows.push(SelftestRow::unsupported(
                "all_reduce",
                "HcclAllReduce",
                "one rank has nothing to sum; try --tp 2",
            ));
        }
        Ok((table.device.info(), rows))
    })
}

impl SelftestRow {
    fn unsupported(operator: &str, variant: &str, note: &str) -> Self {
        Self {
            operator: operator.into(),
            variant: variant.into(),
            shape: String::new(),
            status: Status::Unsupported,
            max_error: None,
            bound: None,
            time_ns: None,
            modelled: false,
            note: note.into(),
        }
    }
}

/// 1, 2, 3 … summed over the ranks, each rank with its own start; the largest error.
fn collective(device: &mut Ascend) -> Result<f64, DeviceError> {
    let (world, rank) = (device.info().world, device.rank);
    let width = 256;
    let mut x = device.activation(1, width)?;
    let of = |rank: usize| (0..width).map(move |i| (rank * 3 + i % 50) as f32);
    device.upload(&of(rank).collect::<Vec<_>>(), &mut x)?;
    device.all_reduce(&mut x)?;
    let mut sum = Vec::new();
    device.download(&x, &mut sum)?;
    let expected = (0..width).map(|i| (0..world).map(|rank| (rank * 3 + i % 50) as f32).sum::<f32>());
    Ok(sum.iter().zip(expected).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max))
}

fn collective_row(worst: Result<f64, DeviceError>, world: usize, modelled: bool) -> SelftestRow {
    let (status, max_error, note) = match worst {
        Ok(error) if error == 0.0 => (Status::Pass, Some(error), "whole numbers: exact".to_owned()),
        Ok(error) => (Status::Fail, Some(error), "whole numbers must be exact".to_owned()),
        Err(error) => (Status::Fail, None, error.to_string()),
    };
    SelftestRow {
        shape: format!("{world} x [1, 256]"),
        status,
        max_error,
        bound: Some(0.0),
        modelled,
        note,
        ..SelftestRow::unsupported("all_reduce", "HcclAllReduce", "")
    }
}

/// What rounding explains. `unit` is half a unit in the last place of the type, relative.
///
/// A result that is one sum of products, accumulated in fp32 and rounded once, is off by `unit * |result|` plus what fp32 adds,
/// which is far less; the reference's fp32 sum is in another order. Where an operator rounds on its way (a product, then a bias; scores,
/// then weights of a softmax), each rounding adds as much again. The bound is that for the largest result, times two for
/// roundings that are documented nowhere.
fn bound(dtype: DType, roundings: f64, largest: f32) -> f64 {
    let unit = if dtype == DType::Bf16 { 2f64.powi(-8) } else { 2f64.powi(-11) };
    2.0 * roundings * unit * f64::from(largest).max(1e-3)
}

/// Small numbers that look random, representable in the type; each seed gives others.
fn numbers(dtype: DType, count: usize, seed: u64, spread: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        dtype.round(((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * spread)
    };
    (0..count).map(|_| next()).collect()
}

/// A matrix on its way to a device.
struct Host {
    bytes: Vec<u8>,
    dtype: DType,
    rows: usize,
    width: usize,
}

impl Host {
    fn new(dtype: DType, rows: usize, width: usize, seed: u64, spread: f32) -> Self {
        Self { bytes: encode(&numbers(dtype, rows * width, seed, spread), dtype), dtype, rows, width }
    }

    fn view(&self) -> HostTensor<'_> {
        HostTensor { dtype: self.dtype, rows: self.rows, width: self.width, data: &self.bytes }
    }
}

/// What makes a row.
type Run = fn(&mut Table) -> Result<Pair, DeviceError>;

/// The table being made.
struct Table {
    device: Ascend,
    widths: Widths,
    dtype: DType,
    modelled: bool,
    rows: Vec<SelftestRow>,
}

/// An operator's result on the device and by the reference, and its time.
struct Pair {
    ours: Vec<f32>,
    theirs: Vec<f32>,
    time_ns: Option<u64>,
}

impl Table {
    fn new(device: Ascend, widths: Widths) -> Self {
        let (dtype, modelled) = (device.core.dtype, device.modelled_ns().is_some());
        Self { device, widths, dtype, modelled, rows: Vec::new() }
    }

    fn run(&mut self) {
        let w = self.widths;
        let choices = self.device.choices;
        let h = w.hidden;
        let operators: [(&str, &str, String, f64, Run); 9] = [
            ("embed", "aclnnEmbedding", format!("[{}, {h}] by 5", w.vocab), 0.0, Self::embed),
            ("rms_norm", "aclnnRmsNorm", format!("[3, {h}]"), 1.0, Self::rms_norm),
            ("linear", choices.weights.word(), format!("[3, {h}] x [{h}, {h}]"), 1.0, Self::linear),
            ("qkv with bias", choices.weights.word(), format!("[3, {h}]"), 2.0, Self::qkv),
            (
                "gate_up and swiglu",
                "aclnnSwiGlu",
                format!("[3, {h}] x [{}, {h}]", 2 * w.ffn),
                3.0,
                Self::swiglu,
            ),
            ("add", choices.add.word(), format!("[3, {h}]"), 1.0, Self::add),
            ("gather", "aclnnGatherV2", format!("[5, {h}] by 3"), 0.0, Self::gather),
            ("attention, prefill", choices.prefill.word(), "130 + 3 tokens".into(), 6.0, Self::prefill),
            ("attention, decode", choices.decode.word(), "contexts 131, 4".into(), 6.0, Self::decode),
        ];
        for (operator, variant, shape, roundings, run) in operators {
            let outcome = run(self);
            self.compared(operator, variant, shape, roundings, outcome);
        }
        self.memory();
        self.events();
        self.telemetry();
    }

    fn compared(
        &mut self,
        operator: &str,
        variant: &str,
        shape: String,
        roundings: f64,
        outcome: Result<Pair, DeviceError>,
    ) {
        let mut row =
            SelftestRow { shape, modelled: self.modelled, ..SelftestRow::unsupported(operator, variant, "") };
        match outcome {
            Err(error) => (row.status, row.note) = (Status::Fail, error.to_string()),
            Ok(Pair { ours, theirs, time_ns }) => {
                let largest = theirs.iter().fold(0f32, |most, v| most.max(v.abs()));
                let error = ours.iter().zip(&theirs).map(|(a, b)| f64::from((a - b).abs()));
                // NaN is never within a bound.
                let error = error.fold(0.0, |most, e| if e.is_nan() { f64::INFINITY } else { e.max(most) });
                let bound = if roundings == 0.0 { 0.0 } else { bound(self.dtype, roundings, largest) };
                let alike = ours.len() == theirs.len();
                row.status = if alike && error <= bound { Status::Pass } else { Status::Fail };
                (row.max_error, row.bound, row.time_ns) = (Some(error), Some(bound), time_ns);
            }
        }
        self.rows.push(row);
    }

    /// Runs work twice, the second time between two events.
    fn timed(
        &mut self,
        mut work: impl FnMut(&mut Ascend) -> Result<(), DeviceError>,
    ) -> Result<Option<u64>, DeviceError> {
        work(&mut self.device)?;
        let (start, end) = (Event::new(&self.device.core.context)?, Event::new(&self.device.core.context)?);
        start.record(&self.device.core.stream)?;
        work(&mut self.device)?;
        end.record(&self.device.core.stream)?;
        self.device.core.stream.synchronize()?;
        start.elapsed_ns(&end).map(Some)
    }

    fn embed(&mut self) -> Result<Pair, DeviceError> {
        let Widths { hidden, vocab, .. } = self.widths;
        let table = Host::new(self.dtype, vocab, hidden, 1, 1.0);
        let ids = [0, vocab as u32 - 1, 7, 7, 99];
        let ours = self.device.upload_table(table.view())?;
        let mut out = self.device.activation(ids.len(), hidden)?;
        let time_ns = self.timed(|device| device.embed(&ours, &ids, &mut out))?;
        let mut pair = self.downloaded(&out, time_ns)?;
        let reference = Reference::default().upload_table(table.view())?;
        let mut expected = Reference::default().activation(ids.len(), hidden)?;
        Reference::default().embed(&reference, &ids, &mut expected)?;
        Reference::default().download(&expected, &mut pair.theirs)?;
        Ok(pair)
    }

    fn downloaded(&mut self, out: &super::Activation, time_ns: Option<u64>) -> Result<Pair, DeviceError> {
        let mut ours = Vec::new();
        self.device.download(out, &mut ours)?;
        Ok(Pair { ours, theirs: Vec::new(), time_ns })
    }

    fn rms_norm(&mut self) -> Result<Pair, DeviceError> {
        let hidden = self.widths.hidden;
        let x = numbers(self.dtype, 3 * hidden, 2, 4.0);
        let weight = Host::new(self.dtype, 1, hidden, 3, 1.0);
        let (gamma, mut from) =
            (self.device.upload_vector(weight.view())?, self.device.activation(3, hidden)?);
        let mut out = self.device.activation(3, hidden)?;
        self.device.upload(&x, &mut from)?;
        let time_ns = self.timed(|device| device.rms_norm(&from, &gamma, 1e-5, &mut out))?;
        let mut pair = self.downloaded(&out, time_ns)?;
        let mut reference = Reference::default();
        let gamma = reference.upload_vector(weight.view())?;
        let (mut from, mut out) = (reference.activation(3, hidden)?, reference.activation(3, hidden)?);
        reference.upload(&x, &mut from)?;
        reference.rms_norm(&from, &gamma, 1e-5, &mut out)?;
        reference.download(&out, &mut pair.theirs)?;
        Ok(pair)
    }

    fn linear(&mut self) -> Result<Pair, DeviceError> {
        let hidden = self.widths.hidden;
        let weight = Host::new(self.dtype, hidden, hidden, 4, 0.02);
        let x = numbers(self.dtype, 3 * hidden, 5, 1.0);
        let ours = self.device.upload_linear(weight.view(), None)?;
        let (mut from, mut out) = (self.device.activation(3, hidden)?, self.device.activation(3, hidden)?);
        self.device.upload(&x, &mut from)?;
        let time_ns = self.timed(|device| device.linear(&from, &ours, &mut out))?;
        let mut pair = self.downloaded(&out, time_ns)?;
        let mut reference = Reference::default();
        let theirs = reference.upload_linear(weight.view(), None)?;
        let (mut from, mut out) = (reference.activation(3, hidden)?, reference.activation(3, hidden)?);
        reference.upload(&x, &mut from)?;
        reference.linear(&from, &theirs, &mut out)?;
        reference.download(&out, &mut pair.theirs)?;
        Ok(pair)
    }

    /// Through rotary and attention of one token, whose result is its own value: shows the split, the bias and the layout.
    fn qkv(&mut self) -> Result<Pair, DeviceError> {
        let (hidden, heads) = (self.widths.hidden, self.widths.heads);
        let width = (heads.heads + 2 * heads.kv_heads) * heads.channels;
        let weight = Host::new(self.dtype, width, hidden, 6, 0.02);
        let bias = Host::new(self.dtype, 1, width, 7, 1.0);
        let x = numbers(self.dtype, 3 * hidden, 8, 1.0);
        let blocks = [[0u32], [1], [2]];
        let sequences: Vec<SequenceView<'_>> = blocks
            .iter()
            .enumerate()
            .map(|(i, blocks)| SequenceView { rows: i..i + 1, context: 1, blocks })
            .collect();
        let shape = KvShape { layers: 1, kv_heads: heads.kv_heads, channels: heads.channels, blocks: 3 };
        let mut time_ns = None;
        let ours = {
            let linear = self.device.upload_qkv(weight.view(), Some(bias.view()), heads)?;
            let (mut from, mut qkv) =
                (self.device.activation(3, hidden)?, self.device.qkv_activation(3, heads)?);
            let mut out = self.device.activation(3, heads.heads * heads.channels)?;
            let mut cache = self.device.kv_cache(shape)?;
            self.device.upload(&x, &mut from)?;
            time_ns = self.timed(|device| device.linear(&from, &linear, &mut qkv))?.or(time_ns);
            self.device.write_kv(&qkv, &mut cache, 0, &sequences, heads)?;
            self.device.attention(&qkv, &cache, 0, &sequences, heads, &mut out)?;
            let mut ours = Vec::new();
            self.device.download(&out, &mut ours)?;
            ours
        };
        let mut reference = Reference::default();
        let linear = reference.upload_qkv(weight.view(), Some(bias.view()), heads)?;
        let (mut from, mut qkv) = (reference.activation(3, hidden)?, reference.qkv_activation(3, heads)?);
        let mut out = reference.activation(3, heads.heads * heads.channels)?;
        let mut cache = reference.kv_cache(shape)?;
        reference.upload(&x, &mut from)?;
        reference.linear(&from, &linear, &mut qkv)?;
        reference.write_kv(&qkv, &mut cache, 0, &sequences, heads)?;
        reference.attention(&qkv, &cache, 0, &sequences, heads, &mut out)?;
        let mut theirs = Vec::new();
        reference.download(&out, &mut theirs)?;
        Ok(Pair { ours, theirs, time_ns })
    }

    fn swiglu(&mut self) -> Result<Pair, DeviceError> {
        let Widths { hidden, ffn, .. } = self.widths;
        let weight = Host::new(self.dtype, 2 * ffn, hidden, 9, 0.02);
        let x = numbers(self.dtype, 3 * hidden, 10, 1.0);
        let ours = self.device.upload_gate_up(weight.view())?;
        let mut from = self.device.activation(3, hidden)?;
        let (mut h, mut out) = (self.device.activation(3, 2 * ffn)?, self.device.activation(3, ffn)?);
        self.device.upload(&x, &mut from)?;
        self.device.linear(&from, &ours, &mut h)?;
        let time_ns = self.timed(|device| device.swiglu(&h, &mut out))?;
        let mut pair = self.downloaded(&out, time_ns)?;
        let mut reference = Reference::default();
        let theirs = reference.upload_gate_up(weight.view())?;
        let mut from = reference.activation(3, hidden)?;
        let (mut h, mut out) = (reference.activation(3, 2 * ffn)?, reference.activation(3, ffn)?);
        reference.upload(&x, &mut from)?;
        reference.linear(&from, &theirs, &mut h)?;
        reference.swiglu(&h, &mut out)?;
        reference.download(&out, &mut pair.theirs)?;
        Ok(pair)
    }

    fn add(&mut self) -> Result<Pair, DeviceError> {
        let hidden = self.widths.hidden;
        let (a, b) = (numbers(self.dtype, 3 * hidden, 11, 1.0), numbers(self.dtype, 3 * hidden, 12, 1.0));
        let (mut x, mut y) = (self.device.activation(3, hidden)?, self.device.activation(3, hidden)?);
        self.device.upload(&a, &mut x)?;
        self.device.upload(&b, &mut y)?;
        // Twice, as all that is timed.
        let time_ns = self.timed(|device| device.add(&mut x, &y))?;
        let theirs = a.iter().zip(&b).map(|(a, b)| self.dtype.round(a + b) + b).collect();
        Ok(Pair { theirs, ..self.downloaded(&x, time_ns)? })
    }

    fn gather(&mut self) -> Result<Pair, DeviceError> {
        let hidden = self.widths.hidden;
        let x = numbers(self.dtype, 5 * hidden, 13, 1.0);
        let (mut from, mut out) = (self.device.activation(5, hidden)?, self.device.activation(3, hidden)?);
        self.device.upload(&x, &mut from)?;
        let rows = [4, 0, 2];
        let time_ns = self.timed(|device| device.gather(&from, &rows, &mut out))?;
        let theirs = rows.iter().flat_map(|row| x[row * hidden..(row + 1) * hidden].to_vec()).collect();
        Ok(Pair { theirs, ..self.downloaded(&out, time_ns)? })
    }

    /// Two prompts, one of which fills more than a block and goes on after a chunk.
    fn prefill(&mut self) -> Result<Pair, DeviceError> {
        self.attention(&[&[(0..100, 0), (100..103, 1)], &[(0..30, 0)]])
    }

    /// The same, and one more token of each.
    fn decode(&mut self) -> Result<Pair, DeviceError> {
        self.attention(&[&[(0..130, 0), (130..133, 1)], &[(0..1, 0), (1..2, 1)]])
    }

    /// Rotary, KV write and attention: steps of two sequences, each a range of rows and whose they are. The last step's
    /// result is compared.
    fn attention(&mut self, steps: &[&[(Range<usize>, usize)]]) -> Result<Pair, DeviceError> {
        let (dtype, heads) = (self.dtype, self.widths.heads);
        let device = run_attention(&mut self.device, dtype, heads, steps)?;
        let theirs = run_attention(&mut Reference::default(), dtype, heads, steps)?;
        Ok(Pair { ours: device, theirs, time_ns: None })
    }

    fn memory(&mut self) {
        let bytes: Vec<u8> = (0..1u32 << 20).map(|i| (i * 7 % 251) as u8).collect();
        let outcome = self.device.core.slab.put(&bytes, "a test").and_then(|buffer| {
            let mut back = vec![0; bytes.len()];
            buffer.read(0, &mut back)?;
            Ok(back == bytes)
        });
        let (status, note) = match outcome {
            Ok(true) => (Status::Pass, "the same bytes came back".to_owned()),
            Ok(false) => (Status::Fail, "other bytes came back".to_owned()),
            Err(error) => (Status::Fail, error.to_string()),
        };
        let shape = "1 MiB there and back".to_owned();
        self.rows.push(SelftestRow {
            shape,
            status,
            note,
            ..SelftestRow::unsupported("memory", "aclrtMemcpy", "")
        });
    }

    fn events(&mut self) {
        let outcome = self.timed(|device| device.core.slab.take(64, "a test").map(drop));
        let (status, time_ns, note) = match outcome {
            Ok(time_ns) => (Status::Pass, time_ns, String::new()),
            Err(error) => (Status::Fail, None, error.to_string()),
        };
        let modelled = self.modelled;
        let row = SelftestRow::unsupported("events", "aclrtEventElapsedTime", "");
        self.rows.push(SelftestRow { status, time_ns, modelled, note, ..row });
    }

    fn telemetry(&mut self) {
        let told = self.device.telemetry();
        let chip = self.device.settings.chip;
        let values = [
            told.power_w.map(|v| format!("{v} W")),
            told.temp_c.map(|v| format!("{v} degrees Celsius")),
            told.utilisation.map(|v| format!("{v}")),
            told.memory.map(|m| format!("{} of {} bytes free", m.free_bytes, m.total_bytes)),
        ];
        for ((name, method), value) in super::Telemetry::methods(chip).into_iter().zip(values) {
            let (status, note) = match value {
                Ok(value) => (Status::Pass, value),
                Err(reason) => (Status::Unsupported, reason),
            };
            self.rows.push(SelftestRow { status, ..SelftestRow::unsupported(name, method, &note) });
        }
    }
}

/// Steps of rotary, KV write and attention on any device; the last step's result.
fn run_attention<D: Device>(
    device: &mut D,
    dtype: DType,
    heads: AttentionShape,
    steps: &[&[(Range<usize>, usize)]],
) -> Result<Vec<f32>, DeviceError> {
    let width = (heads.heads + 2 * heads.kv_heads) * heads.channels;
    let spec = RotarySpec {
        channels: heads.channels / 2,
        scaling: RotaryScaling::None,
        mode: RotaryMode::Exact,
        dtype,
    };
    let table = device.upload_rotary(&RotaryTable::new(spec, 256))?;
    // Each sequence's blocks lie apart and out of order.
    let blocks = [[3u32, 0], [1, 2]];
    let shape = KvShape { layers: 2, kv_heads: heads.kv_heads, channels: heads.channels, blocks: 4 };
    let mut cache = device.kv_cache(shape)?;
    let mut contexts = [0usize; 2];
    let mut result = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let rows = step.last().map_or(0, |(rows, _)| rows.end);
        let mut positions = Vec::new();
        let mut sequences = Vec::new();
        for (rows, sequence) in *step {
            let begin = contexts[*sequence];
            positions.extend(begin as u32..(begin + rows.len()) as u32);
            contexts[*sequence] += rows.len();
            let context = contexts[*sequence];
            assert!(context <= 2 * KV_BLOCK_TOKENS, "invariant: two blocks a sequence");
            sequences.push(SequenceView { rows: rows.clone(), context, blocks: &blocks[*sequence] });
        }
        let mut qkv = device.qkv_activation(rows, heads)?;
        let mut out = device.activation(rows, heads.heads * heads.channels)?;
        device.upload(&numbers(dtype, rows * width, 20 + index as u64, 1.0), &mut qkv)?;
        device.rotary(&mut qkv, &table, &positions, heads)?;
        device.write_kv(&qkv, &mut cache, 1, &sequences, heads)?;
        device.attention(&qkv, &cache, 1, &sequences, heads, &mut out)?;
        device.download(&out, &mut result)?;
    }
    Ok(result)
}
