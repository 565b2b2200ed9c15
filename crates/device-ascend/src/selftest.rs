//! Every operator that the device uses, once, at a model's widths with few rows, held against plain fp32 loops.
//!
//! The first thing to run on hardware: what the documentation leaves open shows here. Inputs are small pseudo-random numbers
//! in the device's type, so that the only differences are roundings; each bound is derived from them (see `bound`).

mod operators;

pub(super) use self::operators::{Rows, run_attention};

use glmbench_device::group::DeviceGroup as _;
use glmbench_device::reference::Reference;
use glmbench_device::{AttentionShape, DType, Device, DeviceError, DeviceInfo, HostTensor};

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
    /// Time on the stream between two events, second of two runs; none where no stream takes part.
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

/// The outcome.
#[derive(Debug)]
pub struct Selftest {
    /// The device, with the choices that were made.
    pub info: DeviceInfo,
    /// The table; it ends where the device was lost.
    pub rows: Vec<SelftestRow>,
    /// The device was lost on the way.
    pub lost: Option<DeviceError>,
}

/// Runs the table on rank 0 of a group; with more ranks the collective too, for which every rank gets a thread.
///
/// # Errors
/// The device cannot be had at all. What fails after that is a row.
pub fn selftest(group: &AscendGroup, widths: Widths) -> Result<Selftest, DeviceError> {
    let world = group.settings().world;
    std::thread::scope(|scope| {
        let of_rank = |rank: usize| {
            let device = group.rank(rank);
            // The others would wait for it.
            device.inspect_err(|_| group.abort())
        };
        // Ranks that wait in a sum that one cannot join would wait for half an hour.
        let together = |device: &mut Ascend| collective(device).inspect_err(|_| group.abort());
        // The first rank does the table alone, which takes longer than HCCL waits for a rank to connect (HCCL_CONNECT_TIMEOUT, 120 s).
        // So the others enter their first collective when it does.
        let (starts, others): (Vec<_>, Vec<_>) = (1..world)
            .map(|rank| {
                let (start, wait) = std::sync::mpsc::channel::<()>();
                let of_other = move || {
                    let mut device = of_rank(rank)?;
                    // The first rank ends without a collective where its table did.
                    wait.recv().ok().map(|()| together(&mut device)).transpose()
                };
                (start, scope.spawn(of_other))
            })
            .unzip();
        let first = match of_rank(0) {
            Ok(device) => device,
            Err(error) => {
                // The others may wait to be told to start.
                drop(starts);
                let causes = others.into_iter().filter_map(|other| other.join().ok()?.err());
                // One that was called off says nothing of why.
                let cause =
                    causes.chain([error]).min_by_key(|error| matches!(error, DeviceError::Lost { .. }));
                return Err(cause.expect("invariant: the first rank's error is one"));
            }
        };
        let mut table = Table::new(first, widths);
        table.run();
        let info = table.device.info();
        if world > 1 && table.lost.is_none() {
            starts.iter().for_each(|start| {
                // A rank that failed has gone; its error comes with its thread.
                let _ = start.send(());
            });
            let mut sum = together(&mut table.device);
            for other in others {
                let failed = Sum { error: f64::INFINITY, time_ns: 0 };
                let other = other.join().unwrap_or(Ok(Some(failed)));
                sum = sum.and_then(|sum| match other? {
                    Some(other) => Ok(Sum { error: sum.error.max(other.error), ..sum }),
                    None => Ok(sum),
                });
            }
            table.collective(world, sum);
        } else if world == 1 {
            let note = "one rank has nothing to sum; try --tp 2";
            table.rows.push(SelftestRow::unsupported("all_reduce", "HcclAllReduce", note));
        }
        // With the table goes its rank: others that still wait for it are told so.
        let Table { rows, lost, .. } = table;
        Ok(Selftest { info, rows, lost })
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

/// What a rank saw of a sum over the ranks.
struct Sum {
    /// Largest error.
    error: f64,
    time_ns: u64,
}

/// 1, 2, 3 … summed over the ranks, each rank with its own start, twice; the time is the second's.
fn collective(device: &mut Ascend) -> Result<Sum, DeviceError> {
    let (world, rank) = (device.info().world, device.rank);
    let width = 256;
    let of = |rank: usize| (0..width).map(move |i| (rank * 3 + i % 50) as f32);
    let expected: Vec<f32> = (0..width).map(|i| (0..world).map(|r| (r * 3 + i % 50) as f32).sum()).collect();
    let mut x = device.activation(1, width)?;
    let (mut sum, mut result) = (Vec::new(), Sum { error: 0.0, time_ns: 0 });
    for _ in 0..2 {
        device.upload(&of(rank).collect::<Vec<_>>(), &mut x)?;
        result.time_ns = timed(device, |device| device.all_reduce(&mut x))?;
        device.download(&x, &mut sum)?;
        result.error = result.error.max(largest_error(&sum, &expected));
    }
    Ok(result)
}

/// The time of work between two events.
fn timed(
    device: &mut Ascend,
    work: impl FnOnce(&mut Ascend) -> Result<(), DeviceError>,
) -> Result<u64, DeviceError> {
    let (start, end) = (Event::timed(&device.core.context)?, Event::timed(&device.core.context)?);
    start.record(&device.core.stream)?;
    work(device)?;
    end.record(&device.core.stream)?;
    device.core.stream.synchronize()?;
    start.elapsed_ns(&end)
}

/// NaN is infinitely wrong.
pub(super) fn largest_error(ours: &[f32], theirs: &[f32]) -> f64 {
    let errors = ours.iter().zip(theirs).map(|(a, b)| f64::from((a - b).abs()));
    errors.fold(0.0, |most, e| if e.is_nan() { f64::INFINITY } else { e.max(most) })
}

/// What rounding explains. `unit` is half a unit in the last place of the type, relative.
///
/// A result that is one sum of products, accumulated in fp32 and rounded once, is off by `unit * |result|` plus what fp32 adds,
/// which is far less; the reference's fp32 sum is in another order. Where an operator rounds on its way (a product, then a bias; scores,
/// then weights of a softmax), each rounding adds as much again. The bound is that for the largest result, times two for
/// roundings that are documented nowhere.
pub(super) fn bound(dtype: DType, roundings: f64, largest: f32) -> f64 {
    let unit = if dtype == DType::Bf16 { 2f64.powi(-8) } else { 2f64.powi(-11) };
    2.0 * roundings * unit * f64::from(largest).max(1e-3)
}

/// Small numbers that look random, representable in the type; each seed gives others.
pub(super) fn numbers(dtype: DType, count: usize, seed: u64, spread: f32) -> Vec<f32> {
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
    lost: Option<DeviceError>,
}

/// An operator's results on the device and by the reference, and its time.
struct Pair {
    ours: Vec<f32>,
    theirs: Vec<f32>,
    time_ns: u64,
}

impl Pair {
    /// Twice the same on the device, and the reference's result in `out`.
    fn of(
        (ours, time_ns): (Vec<f32>, u64),
        reference: &mut Reference,
        out: &<Reference as Device>::Activation,
    ) -> Result<Self, DeviceError> {
        let mut theirs = Vec::new();
        reference.download(out, &mut theirs)?;
        Ok(Self { ours, theirs: theirs.repeat(2), time_ns })
    }
}

impl Table {
    fn new(device: Ascend, widths: Widths) -> Self {
        let (dtype, modelled) = (device.core.dtype, device.modelled_ns().is_some());
        Self { device, widths, dtype, modelled, rows: Vec::new(), lost: None }
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
            if self.lost.is_some() {
                return;
            }
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
        let mut row = SelftestRow { shape, ..SelftestRow::unsupported(operator, variant, "") };
        match outcome {
            Err(error) => self.failed(&mut row, error),
            Ok(Pair { ours, theirs, time_ns }) => {
                let largest = theirs.iter().fold(0f32, |most, v| most.max(v.abs()));
                let error = largest_error(&ours, &theirs);
                let bound = if roundings == 0.0 { 0.0 } else { bound(self.dtype, roundings, largest) };
                let alike = ours.len() == theirs.len();
                row.status = if alike && error <= bound { Status::Pass } else { Status::Fail };
                (row.max_error, row.bound, row.time_ns) = (Some(error), Some(bound), Some(time_ns));
            }
        }
        self.push(row);
    }

    fn collective(&mut self, world: usize, sum: Result<Sum, DeviceError>) {
        let shape = format!("{world} x [1, 256]");
        let mut row = SelftestRow { shape, ..SelftestRow::unsupported("all_reduce", "HcclAllReduce", "") };
        match sum {
            Err(error) => self.failed(&mut row, error),
            Ok(sum) => {
                row.status = if sum.error == 0.0 { Status::Pass } else { Status::Fail };
                (row.max_error, row.bound, row.time_ns) = (Some(sum.error), Some(0.0), Some(sum.time_ns));
                row.note = "whole numbers, so exact".into();
            }
        }
        self.push(row);
    }

    fn failed(&mut self, row: &mut SelftestRow, error: DeviceError) {
        (row.status, row.note) = (Status::Fail, error.to_string());
        if let DeviceError::Lost { .. } = error {
            self.lost = Some(error);
        }
    }

    fn push(&mut self, row: SelftestRow) {
        self.rows.push(SelftestRow { modelled: self.modelled, ..row });
    }

    fn memory(&mut self) {
        let bytes: Vec<u8> = (0..1u32 << 20).map(|i| (i * 7 % 251) as u8).collect();
        let outcome = self.device.core.slab.put(&bytes, "a test").and_then(|buffer| {
            let mut back = vec![0; bytes.len()];
            buffer.read(0, &mut back)?;
            Ok(back == bytes)
        });
        let shape = "1 MiB there and back".to_owned();
        let mut row = SelftestRow { shape, ..SelftestRow::unsupported("copies", "aclrtMemcpy", "") };
        match outcome {
            Err(error) => self.failed(&mut row, error),
            Ok(same) => {
                row.status = if same { Status::Pass } else { Status::Fail };
                let came = if same { "the same bytes came back" } else { "other bytes came back" };
                row.note = format!("{came}; not timed: such a copy stands in no stream");
            }
        }
        self.push(row);
    }

    fn events(&mut self) {
        let outcome = timed(&mut self.device, |_| Ok(()));
        let mut row =
            SelftestRow::unsupported("events", "aclrtEventElapsedTime", "nothing between two events");
        match outcome {
            Err(error) => self.failed(&mut row, error),
            Ok(time_ns) => (row.status, row.time_ns) = (Status::Pass, Some(time_ns)),
        }
        self.push(row);
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
            self.push(SelftestRow { status, ..SelftestRow::unsupported(name, method, &note) });
        }
    }
}
