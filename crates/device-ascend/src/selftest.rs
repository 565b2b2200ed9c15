//! Runs every operator of the device, at a model's widths with few rows, and compares it with plain fp32 loops.
//!
//! Run it first on hardware: it shows what the documentation leaves open. Inputs are small pseudo-random values in the
//! device's type, so that the only differences are roundings. Each bound is derived from them (see `bound`).

mod operators;

pub(super) use self::operators::{Rows, run_attention};

use glmbench_device::group::DeviceGroup as _;
use glmbench_device::reference::Reference;
use glmbench_device::{AttentionShape, DType, Device, DeviceError, DeviceInfo, HostTensor};

use super::layout::encode;
use super::runtime::Event;
use super::{Ascend, AscendGroup};

/// Outcome of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Within the bound.
    Pass,
    /// Outside the bound, or an error.
    Fail,
    /// Not available on this machine; no failure.
    Unsupported,
}

/// A row of the self-test's table.
#[derive(Debug, Clone)]
pub struct SelftestRow {
    /// The tested capability.
    pub operator: String,
    /// The alternative that ran.
    pub variant: String,
    /// Shapes, as text.
    pub shape: String,
    /// The outcome.
    pub status: Status,
    /// Largest difference from the reference, or `None` if nothing is compared.
    pub max_error: Option<f64>,
    /// Largest difference that rounding explains.
    pub bound: Option<f64>,
    /// Time on the stream between two events, of the second of two runs. `None` if no stream is involved.
    pub time_ns: Option<u64>,
    /// True if the time is that of a virtual clock.
    pub modelled: bool,
    /// Further remarks.
    pub note: String,
}

/// Widths of the model whose operators are tested.
#[derive(Debug, Clone, Copy)]
pub struct Widths {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of one half of the feed-forward layer.
    pub ffn: usize,
    /// Heads of attention.
    pub heads: AttentionShape,
    /// Uploaded rows of the embedding.
    pub vocab: usize,
}

impl Widths {
    /// Returns the widths of ChatGLM2-6B, with part of the vocabulary, because its rows are independent.
    pub fn chatglm2_6b() -> Self {
        let heads = AttentionShape { heads: 32, kv_heads: 2, channels: 128 };
        Self { hidden: 4096, ffn: 13696, heads, vocab: 1024 }
    }
}

/// The result of a self-test.
#[derive(Debug)]
pub struct Selftest {
    /// The device, with its choices.
    pub info: DeviceInfo,
    /// The table. It ends where the device was lost.
    pub rows: Vec<SelftestRow>,
    /// The error, if the device was lost during the test.
    pub lost: Option<DeviceError>,
}

/// Runs the table on rank 0 of a group. With more ranks, it also tests the collective, with a thread for every rank.
///
/// # Errors
/// Fails if the device is unavailable. A later failure is a row.
pub fn selftest(group: &AscendGroup, widths: Widths) -> Result<Selftest, DeviceError> {
    let tp = group.settings().tp;
    std::thread::scope(|scope| {
        let of_rank = |rank: usize| {
            let device = group.rank(rank);
            // The other ranks would wait for this one.
            device.inspect_err(|_| group.abort())
        };
        // Without the abort, ranks would wait half an hour in a sum that one of them cannot join.
        let together = |device: &mut Ascend| collective(device).inspect_err(|_| group.abort());
        // The first rank runs the table alone, which takes longer than HCCL's limit to connect (HCCL_CONNECT_TIMEOUT, 120
        // s). So the others enter their first collective when it does.
        let (starts, others): (Vec<_>, Vec<_>) = (1..tp)
            .map(|rank| {
                let (start, wait) = std::sync::mpsc::channel::<()>();
                let of_other = move || {
                    let mut device = of_rank(rank)?;
                    // If the table ends early, the first rank ends without a collective.
                    wait.recv().ok().map(|()| together(&mut device)).transpose()
                };
                (start, scope.spawn(of_other))
            })
            .unzip();
        let first = match of_rank(0) {
            Ok(device) => device,
            Err(error) => {
                // The others may wait for the start.
                drop(starts);
                let causes = others.into_iter().filter_map(|other| other.join().ok()?.err());
                // The error of an aborted rank does not tell the cause.
                let cause =
                    causes.chain([error]).min_by_key(|error| matches!(error, DeviceError::Lost { .. }));
                return Err(cause.expect("invariant: the first rank's error is one"));
            }
        };
        let mut table = Table::new(first, widths);
        table.run();
        let info = table.device.info();
        if tp > 1 && table.lost.is_none() {
            starts.iter().for_each(|start| {
                // A failed rank has already ended; joining its thread returns its error.
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
            table.collective(tp, sum);
        } else if tp == 1 {
            let note = "one rank has nothing to sum; try --tp 2";
            table.rows.push(SelftestRow::unsupported("all_reduce", "HcclAllReduce", note));
        }
        // Dropping the table drops its rank, so the others stop waiting for it.
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

/// A rank's result of the sum over the ranks.
struct Sum {
    /// Largest error.
    error: f64,
    time_ns: u64,
}

/// Sums 1, 2, 3 … over the ranks twice, each rank with its own start. The time is that of the second sum.
fn collective(device: &mut Ascend) -> Result<Sum, DeviceError> {
    let (tp, rank) = (device.info().tp, device.rank);
    let width = 256;
    let of = |rank: usize| (0..width).map(move |i| (rank * 3 + i % 50) as f32);
    let expected: Vec<f32> = (0..width).map(|i| (0..tp).map(|r| (r * 3 + i % 50) as f32).sum()).collect();
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

/// Returns the time of work between two events.
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

/// Returns the largest difference. NaN counts as infinite.
pub(super) fn largest_error(ours: &[f32], theirs: &[f32]) -> f64 {
    let errors = ours.iter().zip(theirs).map(|(a, b)| f64::from((a - b).abs()));
    errors.fold(0.0, |most, e| if e.is_nan() { f64::INFINITY } else { e.max(most) })
}

/// Returns the largest error that rounding explains. `unit` is half a unit in the last place of the type, relative.
///
/// A result may be one sum of products, accumulated in fp32 and rounded once. It is then off by `unit * |result|`, plus
/// fp32's own error, which is far less; the reference's fp32 sum is in another order. Some operators round intermediate
/// values: a product before a bias, or scores before softmax weights. Each such rounding adds as much again. The bound is
/// that of the largest result, times two for undocumented roundings.
pub(super) fn bound(dtype: DType, roundings: f64, largest: f32) -> f64 {
    let unit = if dtype == DType::Bf16 { 2f64.powi(-8) } else { 2f64.powi(-11) };
    2.0 * roundings * unit * f64::from(largest).max(1e-3)
}

/// Returns small pseudo-random values, representable in the type. Each seed gives others.
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

/// A matrix to upload to a device.
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

/// Runs a row's operator.
type Run = fn(&mut Table) -> Result<Pair, DeviceError>;

/// The table under construction.
struct Table {
    device: Ascend,
    widths: Widths,
    dtype: DType,
    modelled: bool,
    rows: Vec<SelftestRow>,
    lost: Option<DeviceError>,
}

/// An operator's results on the device and in the reference, and its time.
struct Pair {
    ours: Vec<f32>,
    theirs: Vec<f32>,
    time_ns: u64,
}

impl Pair {
    /// Creates a pair from two equal runs on the device and the reference's result in `out`.
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

    fn collective(&mut self, tp: usize, sum: Result<Sum, DeviceError>) {
        let shape = format!("{tp} x [1, 256]");
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
