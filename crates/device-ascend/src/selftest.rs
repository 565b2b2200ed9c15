//! Runs every operator of the device, at a model's widths with few rows, and compares it with plain fp32 loops.
//!
//! Run it first on hardware: it shows what the documentation leaves open. Inputs are small pseudo-random values in the
//! device's type, so that the only differences are roundings. Each bound is derived from them (see `compare::bound`).

mod collective;
mod operators;
mod table;
mod timings;

use self::collective::{Sum, collective};
use self::table::Table;
pub use self::timings::{OperatorTime, SizeTime, Timings};

use glmbench_device::group::DeviceGroup as _;
use glmbench_device::{AttentionShape, DType, Device, DeviceError, DeviceInfo, HostTensor};

use super::compare::numbers;
use super::layout::encode;
use super::probe::Alternative;
use super::runtime::Event;
use super::trace::Call;
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

/// A row of the self-test table.
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

/// What a self-test does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Compares every operator with plain loops.
    Table,
    /// The same, with a survey of all alternatives and a record of all calls.
    Survey,
    /// Times operators, copies and collectives over shapes. Nothing is compared, so the clock alone is enough.
    Times,
    /// Everything.
    All,
}

impl Scope {
    fn compares(self) -> bool {
        self != Self::Times
    }

    fn records(self) -> bool {
        matches!(self, Self::Survey | Self::All)
    }

    fn times(self) -> bool {
        matches!(self, Self::Times | Self::All)
    }
}

/// The result of a self-test.
#[derive(Debug)]
pub struct Selftest {
    /// The device, with its choices.
    pub info: DeviceInfo,
    /// The table. It ends where the device was lost.
    pub rows: Vec<SelftestRow>,
    /// Every alternative, and whether its first stages are accepted.
    pub alternatives: Vec<Alternative>,
    /// The recorded calls.
    pub calls: Vec<Call>,
    /// Times over shapes.
    pub timings: Timings,
    /// The error, if the device was lost during the test.
    pub lost: Option<DeviceError>,
}

/// Runs the table on rank 0 of a group. With more ranks, it also tests the collective, with a thread for every rank.
///
/// # Errors
/// Fails if the device is unavailable; [`AscendGroup::recorded`] then has the first stages so far. A later failure is a row.
pub fn selftest(group: &AscendGroup, widths: Widths, scope: Scope) -> Result<Selftest, DeviceError> {
    let tp = group.settings().tp;
    if scope.records() {
        group.record_start();
    }
    std::thread::scope(|threads| {
        let of_rank = |rank: usize| {
            let device = group.rank(rank);
            // The other ranks would wait for this one.
            device.inspect_err(|_| group.abort())
        };
        // Without the abort, ranks would wait half an hour in a sum that one of them cannot join.
        let together =
            |device: &mut Ascend| collective(device, widths, scope.times()).inspect_err(|_| group.abort());
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
                (start, threads.spawn(of_other))
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
        // The calls of a start that succeeded are those of the survey, with its reasons.
        first.core.api().trace.take();
        let mut table = Table::new(first, widths, scope);
        table.run();
        let info = table.device.info();
        if tp > 1 && table.lost.is_none() {
            starts.iter().for_each(|start| {
                // A failed rank has already ended; joining its thread returns its error.
                let _ = start.send(());
            });
            let mut sum = together(&mut table.device);
            for other in others {
                let failed = Sum { error: f64::INFINITY, ..Sum::default() };
                let other = other.join().unwrap_or(Ok(Some(failed)));
                sum = sum.and_then(|sum| match other? {
                    Some(other) => {
                        let error = sum.error.max(other.error);
                        Ok(Sum { error, ..sum })
                    }
                    None => Ok(sum),
                });
            }
            table.collective(tp, sum);
        } else if tp == 1 {
            let note = "one rank has nothing to sum; try --tp 2";
            table.rows.push(SelftestRow::unsupported("all_reduce", "HcclAllReduce", note));
        }
        // Dropping the table drops its rank, so the others stop waiting for it.
        let Table { rows, lost, alternatives, timings, device, .. } = table;
        let calls = device.core.api().trace.take();
        Ok(Selftest { info, rows, alternatives, calls, timings, lost })
    })
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
