//! Targets: what a suite expects relative to the machine's limits, and whether a run met it.

use crate::language::Text;
use serde::{Deserialize, Serialize};

/// A figure that is compared with a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// Bytes per second of the decode phase, as a share of the bandwidth. Weights count once per step, plus the cache.
    DecodeBandwidth,
    /// Decode tokens per second, relative to another case.
    DecodeSpeedup,
    /// Bytes per second of the KV cache that attention reads in the decode phase, as a share of the bandwidth.
    AttentionBandwidth,
    /// Operations per second of the prefill phase, as a share of the peak of a unit.
    PrefillPeak,
    /// Operations per second of the prefill phase, relative to another case.
    PrefillRate,
    /// Seconds until the model was ready.
    LoadTime,
    /// Peak memory of the process while loading the model, less weights and KV cache, in GB.
    LoadMemory,
}

impl Figure {
    /// All figures.
    pub const ALL: [Self; 7] = [
        Self::DecodeBandwidth,
        Self::DecodeSpeedup,
        Self::AttentionBandwidth,
        Self::PrefillPeak,
        Self::PrefillRate,
        Self::LoadTime,
        Self::LoadMemory,
    ];

    /// Returns the word of suites and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DecodeBandwidth => "decode-bandwidth",
            Self::DecodeSpeedup => "decode-speedup",
            Self::AttentionBandwidth => "attention-bandwidth",
            Self::PrefillPeak => "prefill-peak",
            Self::PrefillRate => "prefill-rate",
            Self::LoadTime => "load-time",
            Self::LoadMemory => "load-memory",
        }
    }

    /// Whether the figure is about loading. Such a figure has no case.
    pub fn is_of_loading(self) -> bool {
        matches!(self, Self::LoadTime | Self::LoadMemory)
    }

    /// Whether the figure is a ratio of two cases.
    pub fn is_of_two(self) -> bool {
        matches!(self, Self::DecodeSpeedup | Self::PrefillRate)
    }
}

/// One expectation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// The figure.
    pub figure: Figure,
    /// The case; `None` for loading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case_id: Option<String>,
    /// The case to compare with, if the figure is a ratio of two cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<String>,
    /// The unit to take the peak from; `None` for the fastest unit for the run's type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Lower bound of a share or ratio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// Upper bound of a figure of loading, in seconds or GB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
}

/// Time and memory that loading the model took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadFacts {
    /// Time from the start of loading until the model was ready.
    pub load_ns: u64,
    /// Peak resident memory while loading; `None` if the system does not report it.
    pub peak_rss_bytes: Option<u64>,
    /// Bytes of the weights in the device layout, all ranks.
    pub weight_bytes: u64,
    /// Bytes of the KV cache, all ranks.
    pub kv_bytes: u64,
    /// Estimated bytes of activations, logits and working memory, all ranks.
    pub working_bytes: u64,
    /// Whether the weights were generated instead of read from files.
    pub made: bool,
    /// How the cache of packed weights was used: `mapped` from it, `written` to it, or `failed`. `None` without a cache, and in
    /// records older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pack_cache: Option<String>,
    /// Where the weights lie after loading. `None` if the system does not tell or nothing asked for huge pages, and in
    /// records older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub huge_pages: Option<HugePages>,
}

/// How much of the memory that the engine streams lies on huge pages.
///
/// It has the buffers that asked for huge pages and were written, such as packed weights, and a mapped cache of packed
/// weights. Memory that never asked, such as the program's heap, does not count. Nor do the ends of a mapping, which no
/// whole huge page fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugePages {
    /// Bytes in memory that huge pages could hold.
    pub possible_bytes: u64,
    /// Bytes of these that huge pages hold.
    pub huge_bytes: u64,
}

impl HugePages {
    /// Command, for root, after which more free memory can become huge pages.
    pub const JOIN_PIECES: &str =
        "sync; echo 3 > /proc/sys/vm/drop_caches; echo 1 > /proc/sys/vm/compact_memory";

    /// The share that huge pages hold. `None` if there is nothing to hold.
    pub fn share(self) -> Option<f64> {
        let held = self.huge_bytes.min(self.possible_bytes);
        (self.possible_bytes > 0).then(|| held as f64 / self.possible_bytes as f64)
    }
}

/// A row of `limits.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LimitRow {
    /// [`crate::record::SCHEMA`].
    pub schema: u32,
    /// The run.
    pub run_id: String,
    /// The figure.
    pub figure: Figure,
    /// The case, if the figure is of one case.
    pub case_id: Option<String>,
    /// The value reached, in `unit`: the median over the repetitions.
    pub value: Option<f64>,
    /// The limit, in `unit`. If it was measured around each repetition, this is the median over them.
    pub limit: Option<f64>,
    /// `byte/s`, `token/s`, `flop/s`, `s` or `GB`.
    pub unit: String,
    /// What the limit is of: `bandwidth`, a unit's name, a case, or empty.
    pub limit_of: Option<String>,
    /// If the limit was measured around each repetition: the median ratio of the repetitions, not the ratio of the
    /// medians. Otherwise, and for repetitions with different batches of prompts: `value` over `limit`.
    pub ratio: Option<f64>,
    /// The smallest ratio of a repetition to a limit measured just before or after it. Empty if no such limit was
    /// measured.
    pub ratio_low: Option<f64>,
    /// The largest such ratio.
    pub ratio_high: Option<f64>,
    /// Smallest ratio that meets the target.
    pub at_least: Option<f64>,
    /// Largest `value` that meets the target.
    pub at_most: Option<f64>,
    /// Whether the target is met. True if every repetition meets it against the limits before and after it, false if
    /// none does. Empty if only some do, or if it is unknown.
    pub met: Option<bool>,
    /// Why a cell is empty, or other remarks.
    pub note: Option<Text>,
}

impl LimitRow {
    /// The header of `limits.csv`.
    pub const HEADER: &'static str = "schema,run_id,figure,case_id,value,limit,unit,limit_of,\
        ratio,ratio_low,ratio_high,at_least,at_most,met,note";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_has_one_word() {
        for figure in Figure::ALL {
            assert_eq!(serde_json::to_value(figure).unwrap(), figure.as_str());
        }
    }

    #[test]
    fn facts_of_loading_are_read_without_later_fields_and_written_as_they_were() {
        let old = r#"{"load_ns":1,"peak_rss_bytes":null,"weight_bytes":2,"kv_bytes":3,"working_bytes":4,"made":false}"#;
        let facts: LoadFacts = serde_json::from_str(old).unwrap();
        assert_eq!((&facts.pack_cache, facts.huge_pages), (&None, None));
        assert_eq!(serde_json::to_string(&facts).unwrap(), old);
        let told = HugePages { possible_bytes: 8, huge_bytes: 6 };
        let facts = LoadFacts { huge_pages: Some(told), ..facts };
        let new = serde_json::to_string(&facts).unwrap();
        assert!(new.ends_with(r#""huge_pages":{"possible_bytes":8,"huge_bytes":6}}"#), "{new}");
        assert_eq!(serde_json::from_str::<LoadFacts>(&new).unwrap(), facts);
    }

    #[test]
    fn a_share_is_one_at_most_and_nothing_has_none() {
        let share = |possible_bytes, huge_bytes| HugePages { possible_bytes, huge_bytes }.share();
        assert_eq!((share(8, 6), share(8, 0), share(8, u64::MAX)), (Some(0.75), Some(0.0), Some(1.0)));
        assert_eq!(share(0, 6), None);
    }
}
