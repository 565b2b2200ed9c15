//! Where the time of a repetition went, operator by operator.

use super::request::Clock;
use super::summary::Phase;
use serde::{Deserialize, Serialize};

/// An operator in one phase of one repetition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorRecord {
    /// Prefill or decode.
    pub phase: Phase,
    /// The operator; `rest` for what of the engine's steps is in none.
    pub operator: String,
    /// How often it was called.
    pub calls: u64,
    /// Time in it.
    pub time_ns: u64,
    /// Bytes of weights, embedding rows and KV cache that it had to move at least.
    pub bytes: u64,
    /// Operations of matrix products and attention.
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
    /// The operator; `rest` for what of the engine's steps is in none.
    pub operator: String,
    /// Timed repetitions counted.
    pub reps: u64,
    /// Calls in one repetition.
    pub calls: u64,
    /// Time in one repetition, median over them.
    pub time_ns: u64,
    /// Bytes of one repetition.
    pub bytes: u64,
    /// Operations of one repetition.
    pub flops: u64,
    /// `time_ns` over the sum of all operators' of the phase, 0 to 1.
    pub share: Option<f64>,
    /// `bytes` over `time_ns`, 10⁹ bytes a second; empty where nothing has to be moved.
    pub achieved_gb_s: Option<f64>,
    /// `flops` over `time_ns`, 10⁹ a second; empty where nothing is counted.
    pub achieved_gflop_s: Option<f64>,
    /// The least time that the machine's measured limits allow, as a percentage of `time_ns`.
    pub roofline_pct: Option<f64>,
}

impl OperatorRow {
    /// The header of `operators.csv`.
    pub const HEADER: &'static str = "schema,run_id,case_id,clock,phase,operator,reps,calls,time_ns,bytes,flops,share,\
        achieved_gb_s,achieved_gflop_s,roofline_pct";
}
