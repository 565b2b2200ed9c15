//! Operator times of a repetition.

use super::clock::Clock;
use super::summary::Phase;
use serde::{Deserialize, Serialize};

/// An operator in one phase of one repetition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorRecord {
    /// Prefill or decode.
    pub phase: Phase,
    /// The operator; `rest` for time in the engine's steps outside any operator.
    pub operator: String,
    /// Number of calls.
    pub calls: u64,
    /// Total time.
    pub time_ns: u64,
    /// Minimum bytes to move: weights, embedding rows and KV cache.
    pub bytes: u64,
    /// Floating-point operations of matrix products and attention.
    pub flops: u64,
}

/// A row of `operators.csv`: an operator in one phase of one case, over its timed repetitions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperatorRow {
    /// [`crate::record::SCHEMA`].
    pub schema: u32,
    /// The run.
    pub run_id: String,
    /// The case.
    pub case_id: String,
    /// The clock of the times.
    pub clock: Clock,
    /// Prefill or decode.
    pub phase: Phase,
    /// The operator; `rest` for time in the engine's steps outside any operator.
    pub operator: String,
    /// Number of timed repetitions counted.
    pub reps: u64,
    /// Calls per repetition.
    pub calls: u64,
    /// Time per repetition: the median over the repetitions.
    pub time_ns: u64,
    /// Bytes per repetition.
    pub bytes: u64,
    /// Floating-point operations per repetition.
    pub flops: u64,
    /// `time_ns` divided by the total over all operators of the phase, 0 to 1.
    pub share: Option<f64>,
    /// `bytes` divided by `time_ns`, in 10⁹ bytes per second; empty if no bytes are counted.
    pub achieved_gb_s: Option<f64>,
    /// `flops` divided by `time_ns`, in 10⁹ operations per second; empty if no operations are counted.
    pub achieved_gflop_s: Option<f64>,
    /// The minimum time that the machine's measured limits allow, as a percentage of `time_ns`.
    pub roofline_pct: Option<f64>,
}

impl OperatorRow {
    /// The header of `operators.csv`.
    pub const HEADER: &'static str = "schema,run_id,case_id,clock,phase,operator,reps,calls,time_ns,bytes,flops,share,\
        achieved_gb_s,achieved_gflop_s,roofline_pct";
}
