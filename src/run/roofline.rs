//! The machine's roofline as kept in records, the suite's targets that depend on it, and the facts of loading.

use std::time::Instant;

use glmbench_cpu::{MachineLimits, Rate, UnitPeak};
use glmbench_device::Precision;

use glmbench_engine::memory::MemoryEstimate;

use crate::record::{self, LoadFacts, MeasuredRate, MeasuredUnit};
use crate::suite::{self, Suite};

use super::huge_pages::of_process;
use super::machine::{peak_rss_bytes, reset_peak_rss};

/// Converts the limits to a record, with its peak for `precision`.
pub fn limits_record(limits: &MachineLimits, precision: Precision) -> record::MeasuredLimits {
    let rate = |rate: &Rate| MeasuredRate { median: rate.median, low: rate.low, high: rate.high };
    let unit = |peak: &UnitPeak| MeasuredUnit {
        unit: peak.unit.name().to_owned(),
        all_threads: rate(&peak.all),
        one_thread: rate(&peak.one),
    };
    let peak = limits.peak(precision);
    record::MeasuredLimits {
        threads: limits.threads as u32,
        method: limits.method(),
        bandwidth: rate(&limits.bandwidth.all),
        bandwidth_one_thread: rate(&limits.bandwidth.one),
        units: limits.units.iter().map(unit).collect(),
        peak_unit: peak.map(|peak| peak.of.unit.name().to_owned()),
        peak_products: peak.map_or(1, |peak| peak.products),
        reader: limits.bandwidth.reader.clone(),
    }
}

/// Returns the roofline for `precision` of a machine with these limits.
pub fn roofline(measured: &MachineLimits, precision: Precision) -> record::Roofline {
    record::Roofline {
        bandwidth_bytes_per_s: measured.bandwidth.all.median,
        peak_flops_per_s: measured.peak(precision).map_or(0.0, |peak| peak.rate()),
        measured: Some(limits_record(measured, precision)),
    }
}

/// Returns the suite's targets that apply to a run in `precision`.
pub(super) fn targets(suite: &Suite, precision: Precision) -> Vec<record::Target> {
    let fits =
        |target: &&suite::Target| target.dtype.is_none_or(|of| of.type_name() == precision.type_name());
    suite.targets.iter().filter(fits).map(|target| target.expected.clone()).collect()
}

/// Loads a model and records the time and memory taken.
///
/// `estimate` is the expected memory. `made` says whether the weights are generated rather than read.
///
/// # Errors
/// The errors of `load`.
pub fn timed_load<T, E>(
    load: impl FnOnce() -> Result<T, E>,
    estimate: MemoryEstimate,
    made: bool,
) -> Result<(T, LoadFacts), E> {
    reset_peak_rss();
    let start = Instant::now();
    let loaded = load()?;
    let facts = LoadFacts {
        load_ns: start.elapsed().as_nanos() as u64,
        peak_rss_bytes: peak_rss_bytes(),
        weight_bytes: estimate.weight_bytes,
        kv_bytes: estimate.kv_bytes,
        working_bytes: estimate.activation_bytes,
        made,
        pack_cache: None,
        huge_pages: of_process(),
    };
    Ok((loaded, facts))
}
