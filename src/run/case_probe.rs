//! Measurement of the machine limits around the repetitions of cases with targets.

use std::collections::BTreeSet;

use glmbench_cpu::LimitsProbe;

use crate::record::{Clock, RooflineSample, RunRecord, Target};

use super::machine::{Machine, reset_peak_rss};

/// Which limits to measure, and around which cases.
#[derive(Debug, Clone)]
pub(crate) struct CaseProbe {
    probe: LimitsProbe,
    cases: BTreeSet<String>,
}

impl CaseProbe {
    /// Creates the probe of a run that has targets and the machine's measured limits. Otherwise there is nothing to
    /// measure.
    pub(crate) fn of(run: &RunRecord) -> Option<Self> {
        let limits = run.provenance.roofline.as_ref()?.measured.as_ref()?;
        let targets = &run.plan.targets;
        if targets.is_empty() || run.provenance.clock != Clock::Measured {
            return None;
        }
        let named = targets.iter().filter_map(|target| target.unit.as_ref());
        let units: BTreeSet<&str> = named.chain(&limits.peak_unit).map(String::as_str).collect();
        let spoken_of = |target: &Target| [target.case_id.clone(), target.over.clone()];
        Some(Self {
            probe: LimitsProbe::new(limits.threads as usize, &limits.reader, units),
            cases: targets.iter().flat_map(spoken_of).flatten().collect(),
        })
    }

    /// Whether a target refers to the case.
    pub(crate) fn is_for(&self, case_id: &str) -> bool {
        self.cases.contains(case_id)
    }

    /// Measures the limits. The engine must be idle.
    pub(crate) fn measure(&self) -> RooflineSample {
        let sample = self.probe.measure(Machine::read().available_bytes);
        // The memory used here is freed again and must not count for the case.
        reset_peak_rss();
        RooflineSample {
            bandwidth_bytes_per_s: sample.bandwidth.map(|rate| rate.round() as u64),
            peak_ops_per_s: sample
                .peaks
                .iter()
                .map(|(unit, rate)| (unit.name().to_owned(), rate.round() as u64))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Figure, MeasuredLimits, MeasuredRate, Roofline};

    fn target(case: &str, over: Option<&str>) -> Target {
        Target {
            figure: Figure::DecodeSpeedup,
            case_id: Some(case.to_owned()),
            over: over.map(str::to_owned),
            unit: None,
            at_least: Some(1.0),
            at_most: None,
        }
    }

    #[test]
    fn only_the_cases_that_targets_speak_of_are_measured_around_and_only_on_a_real_clock() {
        let mut run = crate::record::golden::run();
        run.plan.targets = vec![target("b8", Some("b1"))];
        assert!(CaseProbe::of(&run).is_none(), "limits that were not measured before");
        let rate = MeasuredRate { median: 1.0, low: 1.0, high: 1.0 };
        let limits = MeasuredLimits {
            threads: 1,
            method: "a test".into(),
            bandwidth: rate,
            bandwidth_one_thread: rate,
            units: Vec::new(),
            peak_unit: None,
            peak_products: 1,
            reader: String::new(),
        };
        run.provenance.roofline =
            Some(Roofline { bandwidth_bytes_per_s: 1.0, peak_flops_per_s: 1.0, measured: Some(limits) });
        let probe = CaseProbe::of(&run).unwrap();
        assert!(probe.is_for("b1") && probe.is_for("b8") && !probe.is_for("b2"));
        run.provenance.clock = Clock::Modelled;
        assert!(CaseProbe::of(&run).is_none());
        run.provenance.clock = Clock::Measured;
        run.plan.targets.clear();
        assert!(CaseProbe::of(&run).is_none());
    }
}
