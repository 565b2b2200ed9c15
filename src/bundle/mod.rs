//! The bundle of `npu-selftest`: one file that a person with a card can send.
//!
//! It has versions and choices. It has every operator with its time and error, every first stage with arguments and
//! status, and times over shapes. Listed environment variables are included. It has no weights, prompts, host names,
//! user names or home folders ([`privacy`]). `docs/FORMATS.md` lists the fields.
//!
//! [`collect`] makes a bundle from a self-test, [`archive`] writes and reads it, [`replay`] compares two of them.

pub mod archive;
pub mod collect;
pub mod privacy;
pub mod replay;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use glmbench_ascend::Widths;
use glmbench_device::{AttentionShape, DType, DeviceKind, Word};

use crate::record::Clock;

/// Schema of bundles. A reader refuses others.
pub const SCHEMA: u32 = 1;
/// What `kind` says in `bundle.json`.
pub const KIND: &str = "npu-selftest";

/// A bundle. Each field is a file of the archive.
#[derive(Debug, Clone, PartialEq)]
pub struct Bundle {
    /// `bundle.json`.
    pub summary: Summary,
    /// `machine.json`.
    pub machine: Machine,
    /// `capabilities.json`.
    pub capabilities: Capabilities,
    /// `operators.json`.
    pub operators: Operators,
    /// `calls.json`.
    pub calls: Calls,
    /// `timings.json`.
    pub timings: Timings,
}

/// What was tested, and the result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// [`SCHEMA`].
    pub schema: u32,
    /// [`KIND`].
    pub kind: String,
    /// Program and version.
    pub program: String,
    /// When the test ended, in UTC.
    pub created: String,
    /// The card, as for `--device`.
    pub card: Word<DeviceKind>,
    /// The clock of all times in the bundle.
    pub clock: Clock,
    /// The chip profile behind modelled times.
    pub profile: Option<Profile>,
    /// Type of weights and activations.
    pub dtype: Word<DType>,
    /// Number of ranks.
    pub tp: usize,
    /// The widths of the operators.
    pub widths: Shapes,
    /// Number of rows in `operators.json` that fail.
    pub failed: usize,
    /// Why the device was lost, if it was.
    pub lost: Option<String>,
    /// The first row that fails.
    pub first_failure: Option<Failure>,
    /// SHA-256 of each other file.
    pub files: BTreeMap<String, String>,
}

/// The operator of a failure before there is a device.
pub const START: &str = "start";

impl Bundle {
    /// Returns the failure of a card that did not start: there are no operators, alternatives and times then.
    pub fn start_failure(&self) -> Option<&Failure> {
        self.summary.first_failure.as_ref().filter(|failure| failure.operator == START)
    }
}

/// A chip profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// SHA-256 of its file.
    pub sha256: String,
}

/// The widths of the operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shapes {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of one half of the feed-forward layer.
    pub ffn: usize,
    /// Query heads.
    pub heads: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Channels of a head.
    pub channels: usize,
    /// Rows of the embedding.
    pub vocab: usize,
}

impl From<Widths> for Shapes {
    fn from(widths: Widths) -> Self {
        let Widths { hidden, ffn, heads: AttentionShape { heads, kv_heads, channels }, vocab } = widths;
        Self { hidden, ffn, heads, kv_heads, channels, vocab }
    }
}

impl From<Shapes> for Widths {
    fn from(shapes: Shapes) -> Self {
        let Shapes { hidden, ffn, heads, kv_heads, channels, vocab } = shapes;
        Self { hidden, ffn, heads: AttentionShape { heads, kv_heads, channels }, vocab }
    }
}

/// The first row that fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The row's operator.
    pub operator: String,
    /// What it says.
    pub note: String,
    /// The first call of that row which was refused, or else the last one.
    pub call: Option<Call>,
}

/// The machine: versions, memory, environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Operating system and processor architecture.
    pub system: String,
    /// The runtime's name of the chip.
    pub chip: Option<String>,
    /// Version of CANN's runtime.
    pub runtime: Option<String>,
    /// Version of the driver.
    pub driver: Option<String>,
    /// File names of the opened libraries.
    pub libraries: Vec<String>,
    /// Further details of the device, by name.
    pub details: BTreeMap<String, Vec<String>>,
    /// Memory of each chip of the test.
    pub memory: Vec<ChipMemory>,
    /// Environment variables on the list ([`privacy::VARIABLES`]) that are set.
    pub environment: BTreeMap<String, String>,
}

/// Memory of a chip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChipMemory {
    /// Free bytes before the test.
    pub free_bytes: Option<u64>,
    /// All bytes.
    pub total_bytes: Option<u64>,
    /// Why they are unknown.
    pub problem: Option<String>,
}

/// What the card and its libraries can do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// The alternative in use, by capability.
    pub choices: BTreeMap<String, String>,
    /// Every alternative, and whether its first stages are accepted.
    pub alternatives: Vec<Alternative>,
}

/// An alternative of a capability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alternative {
    /// The capability.
    pub capability: String,
    /// The alternative.
    pub word: String,
    /// Why it is refused; `None` if it is accepted.
    pub refused: Option<String>,
}

/// The rows of the self-test.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Operators {
    /// In the order of the test.
    pub rows: Vec<Row>,
}

/// Outcome of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowStatus {
    /// Within the bound.
    Pass,
    /// Outside the bound, or an error.
    Fail,
    /// Not available on this machine.
    NotHere,
}

/// A row of the self-test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The tested operator.
    pub operator: String,
    /// The alternative that ran.
    pub variant: String,
    /// Shapes, as text.
    pub shape: String,
    /// The outcome.
    pub status: RowStatus,
    /// Largest difference from the oracle. `None` if nothing was compared, or the difference is not finite.
    pub max_error: Option<f64>,
    /// Largest difference that rounding explains.
    pub bound: Option<f64>,
    /// Time on the device.
    pub time_ns: Option<u64>,
    /// Remarks.
    pub note: String,
}

/// First stages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// In the order of the test; equal calls of one phase once.
    pub calls: Vec<Call>,
}

/// A first stage.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Call {
    /// `survey`, or the operator of a row.
    pub phase: String,
    /// The operator of the library.
    pub operator: String,
    /// Its arguments as texts, in order.
    pub arguments: Vec<String>,
    /// Its status; 0 if accepted. `None` if no library has it, or the device is lost.
    pub code: Option<i32>,
    /// The library's message.
    pub message: String,
}

/// Times over shapes. `calibrate` holds operators and collectives against the emulator's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    /// Operators.
    pub operators: Vec<OperatorTime>,
    /// Copies: `device`, `to_device`, `from_device`.
    pub copies: Vec<SizeTime>,
    /// Sums over the ranks: `all_reduce`. Empty with one rank.
    pub collectives: Vec<SizeTime>,
    /// Host time of one launch.
    pub host_launch_ns: Option<u64>,
}

/// The times of one operator at one shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorTime {
    /// The operator.
    pub operator: String,
    /// Sizes by name.
    pub shape: BTreeMap<String, u64>,
    /// Bytes of weights, keys and values that must cross the memory bus.
    pub bytes: u64,
    /// Floating-point operations of products and attention.
    pub flops: u64,
    /// Time of each run on the device.
    pub time_ns: Vec<u64>,
}

/// The times of a copy or collective of one size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeTime {
    /// What was timed.
    pub what: String,
    /// Bytes of each rank.
    pub bytes: u64,
    /// Time of each run on the device.
    pub time_ns: Vec<u64>,
}
