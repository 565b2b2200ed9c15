//! The values that a history follows over runs.

mod marks;

use crate::stats::Interval;
use serde::{Deserialize, Serialize};

pub(crate) use marks::Marks;

/// What a figure is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Share of right answers.
    Accuracy,
    /// Perplexity of texts.
    Perplexity,
    /// Prompt tokens per second.
    Prefill,
    /// Generated tokens per second after the first.
    Decode,
    /// Generated tokens per second under load.
    Throughput,
    /// Requests per second that keep their objectives.
    Goodput,
    /// Largest batch that keeps its limits.
    LargestBatch,
}

impl Kind {
    /// All kinds, in the order of the page.
    pub(in crate::report) const ALL: [Self; 7] = [
        Self::Accuracy,
        Self::Perplexity,
        Self::Prefill,
        Self::Decode,
        Self::Throughput,
        Self::Goodput,
        Self::LargestBatch,
    ];

    /// Its name, as in files.
    pub(in crate::report) fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Perplexity => "perplexity",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Throughput => "throughput",
            Self::Goodput => "goodput",
            Self::LargestBatch => "largest_batch",
        }
    }

    /// Its heading.
    pub(in crate::report) fn title(self) -> &'static str {
        match self {
            Self::Accuracy => "Accuracy",
            Self::Perplexity => "Perplexity",
            Self::Prefill => "Prefill",
            Self::Decode => "Decode",
            Self::Throughput => "Throughput under load",
            Self::Goodput => "Goodput under load",
            Self::LargestBatch => "Largest batch",
        }
    }

    /// The unit of its values as shown.
    pub(in crate::report) fn unit(self) -> &'static str {
        match self {
            Self::Accuracy => "%",
            Self::Perplexity => "",
            Self::Prefill | Self::Decode | Self::Throughput => "tokens/s",
            Self::Goodput => "requests/s",
            Self::LargestBatch => "sequences",
        }
    }

    /// Whether its values are from a clock.
    pub(in crate::report) fn is_timed(self) -> bool {
        !matches!(self, Self::Accuracy | Self::Perplexity)
    }

    /// Whether a larger value is better.
    pub(in crate::report) fn rises(self) -> bool {
        self != Self::Perplexity
    }
}

/// One value of a run with its 95 % interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// What it is of.
    pub(crate) kind: Kind,
    /// The task or case, as shown.
    pub(crate) case: String,
    /// What else must be equal for two values to be of the same thing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) basis: String,
    /// Tensor-parallel ranks.
    pub(crate) tp: u32,
    /// The value.
    pub(crate) value: f64,
    /// Lower end of its interval. `None` where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) low: Option<f64>,
    /// Upper end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) high: Option<f64>,
    /// Items, repetitions, requests or probes behind it.
    pub(crate) n: u64,
    /// Which items were right. `None` for other kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) marks: Option<Marks>,
}

impl Figure {
    /// Returns the interval.
    pub(in crate::report) fn interval(&self) -> Option<Interval> {
        Some(Interval { low: self.low?, high: self.high? })
    }
}
