//! The machine's measured limits as kept in records, and the suite's targets and budgets that depend on them.

use std::time::Instant;

use glmbench_cpu::{MachineLimits, Rate, UnitPeak};
use glmbench_device::Precision;

use glmbench_engine::Engine;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::memory::MemoryEstimate;

use crate::bench::PhaseCost;
use crate::record::{self, LimitRate, LoadFacts, Roofline, UnitLimit};
use crate::suite::{self, Suite};

use super::machine::{peak_rss_bytes, reset_peak_rss};
use super::plan::Plan;
use crate::workload::shapes::plan::cost;

/// Converts the limits to a record, with the roofline's peak for `precision`.
pub fn limits_record(limits: &MachineLimits, precision: Precision) -> record::MachineLimits {
    let rate = |rate: &Rate| LimitRate { median: rate.median, low: rate.low, high: rate.high };
    let unit = |peak: &UnitPeak| UnitLimit {
        unit: peak.unit.name().to_owned(),
        all_threads: rate(&peak.all),
        one_thread: rate(&peak.one),
    };
    let peak = limits.peak(precision);
    record::MachineLimits {
        threads: limits.threads as u32,
        method: limits.method(),
        bandwidth: rate(&limits.bandwidth.all),
        bandwidth_one_thread: rate(&limits.bandwidth.one),
        units: limits.units.iter().map(unit).collect(),
        peak_unit: peak.map(|(peak, _)| peak.unit.name().to_owned()),
        peak_products: peak.map_or(1, |(_, products)| products),
        reader: limits.bandwidth.reader.clone(),
    }
}

/// Returns the roofline for `precision` on a machine with these limits.
pub fn roofline(limits: &MachineLimits, precision: Precision) -> Roofline {
    Roofline {
        bandwidth_bytes_per_s: limits.bandwidth.all.median,
        peak_flops_per_s: limits
            .peak(precision)
            .map_or(0.0, |(peak, products)| peak.all.median / f64::from(products)),
        limits: Some(limits_record(limits, precision)),
    }
}

/// Returns the suite's targets that apply to a run in `precision`.
pub(super) fn targets(suite: &Suite, precision: Precision) -> Vec<record::Target> {
    let fits = |target: &&suite::Target| target.dtype.is_none_or(|of| of.as_str() == precision.type_name());
    let figure = |figure: suite::Figure| match figure {
        suite::Figure::DecodeBandwidth => record::Figure::DecodeBandwidth,
        suite::Figure::DecodeSpeedup => record::Figure::DecodeSpeedup,
        suite::Figure::AttentionBandwidth => record::Figure::AttentionBandwidth,
        suite::Figure::PrefillPeak => record::Figure::PrefillPeak,
        suite::Figure::PrefillRate => record::Figure::PrefillRate,
        suite::Figure::LoadTime => record::Figure::LoadTime,
        suite::Figure::LoadMemory => record::Figure::LoadMemory,
    };
    let target = |target: &suite::Target| record::Target {
        figure: figure(target.figure),
        case_id: target.case.clone(),
        over: target.over.clone(),
        unit: target.unit.clone(),
        at_least: target.at_least,
        at_most: target.at_most,
    };
    suite.targets.iter().filter(fits).map(target).collect()
}

impl Plan<'_> {
    /// Excludes the shapes that exceed the suite's time budget even at the machine's roofline. [Check the
    /// memory](Plan::fit_memory) again afterwards.
    pub fn fit_budget(&mut self, config: &ModelConfig, precision: Precision, roofline: &Roofline) {
        let step_tokens = self.step_tokens();
        for run in self.performance.iter_mut().filter(|run| run.unfit.is_none()) {
            let Some(budget_s) = run.budget_s else { continue };
            let (prefill, decode) = cost(run, config, precision, step_tokens);
            let least = |cost: PhaseCost| {
                let memory = cost.bytes as f64 / roofline.bandwidth_bytes_per_s;
                memory.max(cost.flops as f64 / roofline.peak_flops_per_s)
            };
            let times = run.timed() + run.warm_up.most.min(1);
            let least_s = times as f64 * (least(prefill) + least(decode));
            if least_s > budget_s as f64 {
                run.unfit = Some(format!(
                    "over budget: {least_s:.0} s at least on this machine, the suite gives it {budget_s} s; --over-budget \
                     runs it"
                ));
            }
        }
        self.limits = self.worlds().into_iter().map(|world| (world, self.largest(config, world))).collect();
    }
}

/// Loads a model and records the time and memory taken.
///
/// `estimate` is the expected memory. `made` says whether the weights are generated rather than read.
///
/// # Errors
/// The errors of `load`.
pub fn timed_load<E>(
    load: impl FnOnce() -> Result<Engine, E>,
    estimate: MemoryEstimate,
    made: bool,
) -> Result<(Engine, LoadFacts), E> {
    reset_peak_rss();
    let start = Instant::now();
    let engine = load()?;
    let facts = LoadFacts {
        load_ns: start.elapsed().as_nanos() as u64,
        peak_rss_bytes: peak_rss_bytes(),
        weight_bytes: estimate.weight_bytes,
        kv_bytes: estimate.kv_bytes,
        working_bytes: estimate.activation_bytes,
        made,
    };
    Ok((engine, facts))
}
