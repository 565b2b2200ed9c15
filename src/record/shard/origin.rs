//! Where a merged shard ran, and whether times of two machines may be judged together.

use serde::{Deserialize, Serialize};

use super::super::clock::Clock;
use super::super::roofline::Roofline;
use super::super::run::{RunRecord, Status};
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
    /// Returns where a run was made.
    pub(in crate::record) fn of(record: &RunRecord, complete: bool) -> Self {
        let of = &record.provenance;
        Self {
            run_id: record.run_id.clone(),
            complete,
            host: of.host.clone(),
            cpu_model: of.cpu_model.clone(),
            kernel: of.kernel.clone(),
            threads: of.threads,
            governor: of.governor.clone(),
            roofline: of.roofline.clone(),
            load: of.load.clone(),
            started: of.started.clone(),
            finished: of.finished.clone(),
            resumed: of.resumed,
        }
    }

    /// Whether times of the two machines may be judged together: the same processor and kernels, and measured limits that
    /// agree within [`ALIKE_SHARE`]. Without measured limits, only the same host with
    /// the same number of threads is.
    pub fn is_like(&self, other: &Self) -> bool {
        self.differences(other).is_empty()
    }

    /// Describes for which differences times of the two machines must not be judged together.
    fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (what, a, b) in
            [("processors", &self.cpu_model, &other.cpu_model), ("kernels", &self.kernel, &other.kernel)]
        {
            if a != b {
                found.push(format!("{what} {a} and {b}"));
            }
        }
        if let (Some(a), Some(b)) = (&self.roofline, &other.roofline) {
            let (memory, arithmetic) = (
                (a.bandwidth_bytes_per_s, b.bandwidth_bytes_per_s),
                (a.peak_flops_per_s, b.peak_flops_per_s),
            );
            for (what, (a, b), unit) in [("bandwidth", memory, "GB/s"), ("arithmetic", arithmetic, "GFLOP/s")]
            {
                if (a - b).abs() > ALIKE_SHARE * a.max(b) {
                    found.push(format!("{what} {:.1} and {:.1} {unit}", a / 1e9, b / 1e9));
                }
            }
        } else {
            // Measured limits show what threads make of a machine.
            if self.threads != other.threads {
                found.push(format!("threads {} and {}", self.threads, other.threads));
            }
            if self.host != other.host {
                found.push("limits that were not measured on both".to_owned());
            }
        }
        found
    }

    /// `same host, bandwidth 1.7 and 2.3 GB/s`, or `a and b: bandwidth 1.7 and 2.3 GB/s`.
    pub(super) fn difference_words(&self, other: &Self) -> String {
        let differences = self.differences(other).join(", ");
        if self.host == other.host {
            format!("same host, {differences}")
        } else {
            format!("{} and {}: {differences}", self.host, other.host)
        }
    }
}

impl RunRecord {
    /// Returns where a timed case of a merged run was timed.
    pub fn origin_of(&self, case_id: &str) -> Option<&ShardOrigin> {
        self.shards.as_ref()?.origin_of(case_id)
    }

    /// Returns the name of the host that timed a case.
    pub fn host_of(&self, case_id: &str) -> &str {
        self.origin_of(case_id).map_or(&self.provenance.host, |origin| &origin.host)
    }

    /// Returns why the times of two cases must not be judged together: a shard timed one, and the machines are not alike.
    /// `None` if they may, if no run is merged, or on a virtual clock, which no machine changes.
    pub fn unlike_machines(&self, case_id: &str, other: &Self, other_id: &str) -> Option<String> {
        if [self, other].iter().all(|run| run.provenance.clock == Clock::Modelled) {
            return None;
        }
        let of = |run: &Self, id: &str| {
            run.origin_of(id).cloned().unwrap_or_else(|| ShardOrigin::of(run, run.status == Status::Complete))
        };
        if self.origin_of(case_id).is_none() && other.origin_of(other_id).is_none() {
            return None;
        }
        let (a, b) = (of(self, case_id), of(other, other_id));
        (!a.is_like(&b)).then(|| format!("timed on unlike machines, {}", a.difference_words(&b)))
    }

    /// Returns the limits of the machine that timed a case, measured before its cases.
    pub fn roofline_of(&self, case_id: &str) -> Option<&Roofline> {
        match self.origin_of(case_id) {
            Some(origin) => origin.roofline.as_ref(),
            None => self.provenance.roofline.as_ref(),
        }
    }
}
