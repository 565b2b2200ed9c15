//! Where a merged shard ran, and whether times of two machines may be judged together.

use crate::language::{Text, joined, text};
use serde::{Deserialize, Serialize};

use super::super::roofline::Roofline;
use super::super::target::LoadFacts;

/// Change of a measured limit, as a share, up to which two machines count as alike. The limits of one machine vary by a
/// few percent from one measurement to the next.
pub const ALIKE_SHARE: f64 = 0.1;

/// Where a merged shard ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardOrigin {
    /// Its run.
    pub run_id: String,
    /// Whether all of it is here.
    pub complete: bool,
    /// Host name.
    pub host: String,
    /// CPU model.
    pub cpu_model: String,
    /// Kernels.
    pub kernel: String,
    /// Engine threads.
    pub threads: u32,
    /// Frequency governor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governor: Option<String>,
    /// The machine's limits, measured before the shard's cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roofline: Option<Roofline>,
    /// Time and memory of loading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadFacts>,
    /// When it first started.
    pub started: String,
    /// When it last ended.
    pub finished: Option<String>,
    /// How often it was resumed.
    pub resumed: u32,
}

impl ShardOrigin {
    /// Whether times of the two machines may be judged together: the same processor and kernels, and measured limits that
    /// agree within [`ALIKE_SHARE`]. Without measured limits, only the same host with
    /// the same number of threads is.
    pub fn is_like(&self, other: &Self) -> bool {
        self.differences(other).is_empty()
    }

    /// Describes for which differences times of the two machines must not be judged together.
    fn differences(&self, other: &Self) -> Vec<Text> {
        let mut found = Vec::new();
        if self.cpu_model != other.cpu_model {
            found.push(text!("processors {a} and {b}", a = self.cpu_model, b = other.cpu_model));
        }
        if self.kernel != other.kernel {
            found.push(text!("kernels {a} and {b}", a = self.kernel, b = other.kernel));
        }
        if let (Some(a), Some(b)) = (&self.roofline, &other.roofline) {
            let (memory, arithmetic) = (
                (a.bandwidth_bytes_per_s, b.bandwidth_bytes_per_s),
                (a.peak_flops_per_s, b.peak_flops_per_s),
            );
            let are_apart = |(a, b): (f64, f64)| (a - b).abs() > ALIKE_SHARE * a.max(b);
            let shown = |rate: f64| format!("{:.1}", rate / 1e9);
            if are_apart(memory) {
                found.push(text!("bandwidth {a} and {b} GB/s", a = shown(memory.0), b = shown(memory.1)));
            }
            if are_apart(arithmetic) {
                let (a, b) = (shown(arithmetic.0), shown(arithmetic.1));
                found.push(text!("arithmetic {a} and {b} GFLOP/s", a, b));
            }
        } else {
            // Measured limits show what threads make of a machine.
            if self.threads != other.threads {
                found.push(text!("threads {a} and {b}", a = self.threads, b = other.threads));
            }
            if self.host != other.host {
                found.push(text!("limits that were not measured on both"));
            }
        }
        found
    }

    /// `same host, bandwidth 1.7 and 2.3 GB/s`, or `a and b: bandwidth 1.7 and 2.3 GB/s`.
    pub(in crate::record) fn difference_words(&self, other: &Self) -> Text {
        let differences = joined(self.differences(other), ", ");
        if self.host == other.host {
            text!("same host, {differences}", differences)
        } else {
            text!("{a} and {b}: {differences}", a = self.host, b = other.host, differences)
        }
    }
}
