//! Targets: what a suite expects of the machine's limits, and how a run kept it.

use serde::{Deserialize, Serialize};

/// What is held against a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// Bytes of the decode phase a second, over the bandwidth: weights once a step, and the cache.
    DecodeBandwidth,
    /// Decode tokens a second, over those of another case.
    DecodeSpeedup,
    /// Bytes of the KV cache a second that attention reads in the decode phase, over the bandwidth.
    AttentionBandwidth,
    /// Operations of the prefill phase a second, over a unit's peak.
    PrefillPeak,
    /// Operations of the prefill phase a second, over those of another case.
    PrefillRate,
    /// Seconds until the model was ready.
    LoadTime,
    /// Bytes beyond weights and KV cache that the process held at most while the model was loaded.
    LoadMemory,
}

/// One thing expected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// What.
    pub figure: Figure,
    /// The case; none for loading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case_id: Option<String>,
    /// The case that it is compared with, where the figure is a ratio of two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<String>,
    /// The unit whose peak counts; the fastest for the run's type where `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The least share, ratio, seconds or bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// The most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
}

/// What loading the model took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadFacts {
    /// From the start of loading until the model was ready.
    pub load_ns: u64,
    /// Most resident memory meanwhile; `None` where the system does not tell.
    pub peak_rss_bytes: Option<u64>,
    /// Weights as the device lays them out, all ranks.
    pub weight_bytes: u64,
    /// KV cache, all ranks.
    pub kv_bytes: u64,
    /// Activations, logits and working memory by estimate, all ranks.
    pub working_bytes: u64,
    /// The weights were made, not read from files.
    pub made: bool,
}

/// A row of `limits.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LimitRow {
    /// [`crate::record::SCHEMA`].
    pub schema: u32,
    /// The run.
    pub run_id: String,
    /// What.
    pub figure: Figure,
    /// The case, if it is of one.
    pub case_id: Option<String>,
    /// What was reached, in `unit`: the median over the repetitions.
    pub value: Option<f64>,
    /// What it is held against, in `unit`: where it was measured around each repetition, the median over them.
    pub limit: Option<f64>,
    /// `byte/s`, `token/s`, `flop/s`, `s` or `GB`.
    pub unit: String,
    /// What the limit is: `bandwidth`, a unit's word, a case, or empty.
    pub limit_of: Option<String>,
    /// Where the limit was measured around each repetition, the median over them of rate over limit: no ratio of the medians.
    /// Else `value` over `limit`.
    pub ratio: Option<f64>,
    /// The least ratio of a repetition to its limit right before or right after it; empty where that was not measured.
    pub ratio_low: Option<f64>,
    /// The greatest, likewise.
    pub ratio_high: Option<f64>,
    /// The least ratio.
    pub at_least: Option<f64>,
    /// The most of `value`.
    pub at_most: Option<f64>,
    /// The target is met: in every repetition against the limit before it and that after it, or in none; empty where in some, or
    /// where that cannot be said.
    pub met: Option<bool>,
    /// Why something is empty, or what to know.
    pub note: Option<String>,
}

impl LimitRow {
    /// The header of `limits.csv`.
    pub const HEADER: &'static str = "schema,run_id,figure,case_id,value,limit,unit,limit_of,\
        ratio,ratio_low,ratio_high,at_least,at_most,met,note";
}
