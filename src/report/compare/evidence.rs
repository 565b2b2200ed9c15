//! Evidence for a difference in a time: blocks or runs that were placed anew, a noise floor between runs, or only two
//! runs.

use super::{Options, Side};
use crate::language::{Text, text};
use crate::record::{PerfRow, PerformanceCase, Phase, RequestRecord};
use crate::report::performance::{Repetitions, phase_ns, tpot_ns, ttft_ns};
use crate::report::validity::{DRIFT_SHARE, FEW_REPETITIONS, WIDE_SHARE};
use crate::stats::{
    Interval, MedianRatio, RESAMPLES, Shift, block_log_ratio, drift, mean, median, ratio_of_medians, within,
};
use std::collections::BTreeMap;

/// Seed of the bootstrap behind every interval. Arbitrary but fixed.
const SEED: u64 = 1;

/// A time of a repetition that a gate or a table may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Time to first token.
    Ttft,
    /// Time per token after the first.
    Tpot,
    /// A whole phase.
    Phase(Phase),
}

impl Metric {
    /// The metric of one repetition, in ns.
    pub fn of(self, request: &RequestRecord) -> Option<f64> {
        match self {
            Self::Ttft => ttft_ns(request).map(|ns| ns as f64),
            Self::Tpot => tpot_ns(request),
            Self::Phase(phase) => phase_ns(request, phase).map(|ns| ns as f64),
        }
    }

    /// The phase with the conditions that apply to the metric.
    pub fn phase(self) -> Phase {
        match self {
            Self::Ttft => Phase::Prefill,
            Self::Tpot => Phase::Decode,
            Self::Phase(phase) => phase,
        }
    }
}

/// Kind of evidence for a difference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Basis {
    /// Number of blocks. Each block is a process that timed both sides in turn.
    Blocks(usize),
    /// Number of runs of either side.
    Runs(usize, usize),
    /// Two runs, with the noise floor between equal runs (a share above 1).
    Floor(f64),
    /// No verdict: two runs not timed in turn and without a noise floor, or several a side that do not alternate.
    Apart,
    /// No verdict: the two were timed on unlike machines.
    Unlike,
}

/// A difference in a time between the two sides of a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// The kind of evidence.
    pub basis: Basis,
    /// Second over first.
    pub ratio: f64,
    /// For blocks and runs.
    shift: Option<Shift>,
    /// For two runs: the variation within them.
    within_runs: Option<MedianRatio>,
    /// Reasons that rule out a verdict, a few words each.
    pub unstable: Vec<Text>,
    /// Why the evidence is no better, if worth saying.
    pub note: Option<Text>,
}

impl Evidence {
    /// Two-sided p-value of the hypothesis that the true ratio is `ratio`. `None` with only two runs.
    pub fn p(&self, ratio: f64) -> Option<f64> {
        self.shift.as_ref().map(|shift| shift.p(ratio.ln()))
    }

    /// Values of the test, for blocks and for runs.
    pub fn shift(&self) -> Option<&Shift> {
        self.shift.as_ref()
    }

    /// 95 % interval of the ratio. For two runs, their bootstrap interval widened by the floor. `None` with too few
    /// blocks or runs, or without a noise floor.
    pub fn interval(&self) -> Option<Interval> {
        match self.basis {
            Basis::Blocks(_) | Basis::Runs(..) => {
                self.shift.as_ref()?.interval(0.95).map(|log| log.map(f64::exp))
            }
            Basis::Floor(floor) => self.within_runs.map(|ratio| widened(ratio.interval, floor)),
            Basis::Apart | Basis::Unlike => None,
        }
    }

    /// The 90 % interval of the log-ratio, which decides "same".
    pub fn within(&self) -> Option<Interval> {
        match self.basis {
            Basis::Blocks(_) | Basis::Runs(..) => self.shift.as_ref().and_then(within),
            Basis::Floor(floor) => Some(widened(self.within_runs?.equivalence_interval, floor).map(f64::ln)),
            Basis::Apart | Basis::Unlike => None,
        }
    }
}

fn widened(interval: Interval, floor: f64) -> Interval {
    Interval { low: interval.low / (1.0 + floor), high: interval.high * (1.0 + floor) }
}

/// A timed case of both sides.
#[derive(Debug, Clone, Copy)]
pub struct Joined<'a> {
    /// The base.
    pub a: &'a Side,
    /// The other run.
    pub b: &'a Side,
    /// The base's case.
    pub case_a: &'a PerformanceCase,
    /// The other run's case.
    pub case_b: &'a PerformanceCase,
}

impl Joined<'_> {
    /// Returns the evidence on a metric of a case, in a comparison of `phases` phases. `None` if a side lacks the
    /// time.
    pub fn evidence(&self, metric: Metric, options: &Options, phases: usize) -> Option<Evidence> {
        let good = [(self.a, self.case_a), (self.b, self.case_b)]
            .map(|(side, case)| Repetitions::of(case, &side.requests).good);
        let times =
            good.each_ref().map(|good| good.iter().filter_map(|r| metric.of(r)).collect::<Vec<f64>>());
        let ratio = median(&times[1])? / median(&times[0]).filter(|a| *a > 0.0)?;
        let (a, b) = (self.a.run(), self.b.run());
        if let Some(why) = a.unlike_machines(&self.case_a.case_id, b, &self.case_b.case_id) {
            return Some(Evidence {
                basis: Basis::Unlike,
                ratio,
                shift: None,
                within_runs: None,
                unstable: Vec::new(),
                note: Some(why),
            });
        }
        let mut evidence = if !self.a.further_runs.is_empty() || !self.b.further_runs.is_empty() {
            self.of_runs(metric)?
        } else if interleaved(self.a, self.b) {
            // Without a usable block they count as two runs.
            of_blocks(metric, &good[0], &good[1])
                .unwrap_or_else(|| self.of_two_runs(metric, &times, ratio, options, phases))
        } else {
            self.of_two_runs(metric, &times, ratio, options, phases)
        };
        let rows = self.rows(metric.phase());
        evidence.unstable.extend(rows.into_iter().flat_map(|(letter, row)| conditions(letter, row)));
        // Across turns and runs, drift affects both sides. Two runs each drift on their own.
        if matches!(evidence.basis, Basis::Floor(_) | Basis::Apart) {
            for (side, times) in [self.a, self.b].into_iter().zip(&times) {
                if drift(times).is_some_and(|d| d.exceeds(DRIFT_SHARE)) {
                    evidence.unstable.push(text!("{letter} drifts", letter = side.letter));
                }
            }
        }
        Some(evidence)
    }

    /// The rows of a phase in every run of either side.
    pub(super) fn rows(&self, phase: Phase) -> Vec<(char, &PerfRow)> {
        let mut rows = Vec::new();
        for (side, case) in [(self.a, self.case_a), (self.b, self.case_b)] {
            let runs = std::iter::once(&side.summary).chain(side.further_runs.iter().map(|run| &run.summary));
            let of_run = runs.filter_map(|summary| {
                summary.performance.iter().find(|row| row.case_id == case.case_id && row.phase == phase)
            });
            rows.extend(of_run.map(|row| (side.letter, row)));
        }
        rows
    }

    /// Changes the rows to what the evidence compares. Each side shows the geometric mean of the medians of its blocks
    /// or runs, and the number of runs. The median over all repetitions could order the sides differently.
    pub(super) fn sum_up(&self, metric: Metric, basis: Basis, rows: [&mut PerfRow; 2]) {
        let sides = [(self.a, self.case_a), (self.b, self.case_b)];
        for (row, (side, case)) in rows.into_iter().zip(sides) {
            let logs = match basis {
                Basis::Blocks(_) => block_medians(metric, &Repetitions::of(case, &side.requests).good),
                Basis::Runs(..) => run_medians(metric, side, case),
                Basis::Floor(_) | Basis::Apart | Basis::Unlike => return,
            };
            row.median_ns = mean(&logs).map(|log| log.exp().round() as u64);
            if let Basis::Runs(..) = basis {
                row.reps = logs.len() as u64;
            }
            (row.ci95_lo_ns, row.ci95_hi_ns) = (None, None);
        }
    }

    fn of_two_runs(
        &self,
        metric: Metric,
        [a, b]: &[Vec<f64>; 2],
        ratio: f64,
        options: &Options,
        phases: usize,
    ) -> Evidence {
        let shorter = median(a).unwrap_or(0.0).min(median(b).unwrap_or(0.0));
        let foreign = options.noise.foreign([&self.a.run().provenance, &self.b.run().provenance]);
        let floor = options.noise.of(&self.case_a.case_id, metric.phase(), shorter, phases);
        let note = match (&foreign, floor) {
            (Some(why), _) => Some(why.clone()),
            (None, None) if options.noise.is_known() => {
                Some(text!("the noise floor was measured on longer phases"))
            }
            _ => None,
        };
        let basis = match floor.filter(|_| foreign.is_none()) {
            Some(floor) => Basis::Floor(floor),
            None => Basis::Apart,
        };
        let within_runs = ratio_of_medians(a, b, RESAMPLES, SEED);
        Evidence { basis, ratio, shift: None, within_runs, unstable: Vec::new(), note }
    }

    /// Evidence from several runs a side; each run's median is one value.
    fn of_runs(&self, metric: Metric) -> Option<Evidence> {
        let a = run_medians(metric, self.a, self.case_a);
        let b = run_medians(metric, self.b, self.case_b);
        let shift = Shift::of_runs(&a, &b)?;
        let ratio = shift.estimate.exp();
        let (basis, note) = if alternate(self.a, self.b) {
            (Basis::Runs(a.len(), b.len()), None)
        } else {
            let note = text!(
                "the runs of the two do not alternate in time, so the machine's hour is in the difference"
            );
            (Basis::Apart, Some(note))
        };
        Some(Evidence { basis, ratio, shift: Some(shift), within_runs: None, unstable: Vec::new(), note })
    }
}

/// Logarithm of the metric median in each run of a side.
fn run_medians(metric: Metric, side: &Side, case: &PerformanceCase) -> Vec<f64> {
    let further = side.further_runs.iter().map(|run| &run.requests);
    let all = std::iter::once(&side.requests).chain(further);
    let medians = all.filter_map(|requests| {
        let good = Repetitions::of(case, requests).good;
        median(&good.iter().filter_map(|r| metric.of(r)).collect::<Vec<f64>>())
    });
    medians.filter(|median| *median > 0.0).map(f64::ln).collect()
}

/// Logarithm of the metric median in each block of a side.
fn block_medians(metric: Metric, good: &[&RequestRecord]) -> Vec<f64> {
    let mut blocks: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for request in good {
        if let Some((block, time)) = request.block.zip(metric.of(request)) {
            blocks.entry(block).or_default().push(time);
        }
    }
    let medians = blocks.into_values().filter_map(|times| median(&times));
    medians.filter(|median| *median > 0.0).map(f64::ln).collect()
}

/// Broken conditions that make a phase's figures unreliable.
fn conditions(letter: char, row: &PerfRow) -> Vec<Text> {
    let mut broken = Vec::new();
    if row.reps < FEW_REPETITIONS as u64 {
        broken.push(text!("{letter} has fewer than {few} repetitions", letter, few = FEW_REPETITIONS));
    }
    if let (Some(median), Some(ns)) = (row.median_ns, row.interval_ns()) {
        let half = (ns.high - ns.low) / 2.0 / median.max(1) as f64;
        if half > WIDE_SHARE {
            broken.push(text!(
                "{letter}'s median is known to ± {known} %, not to ± {wanted} %",
                letter,
                known = format!("{:.1}", 100.0 * half),
                wanted = format!("{:.0}", 100.0 * WIDE_SHARE)
            ));
        }
    }
    broken.dedup();
    broken
}

/// Whether one command timed the runs in turn, each block in a process of its own.
pub(super) fn interleaved(a: &Side, b: &Side) -> bool {
    let group = |side: &Side| {
        side.run().provenance.group.as_ref().filter(|g| g.blocks.is_some()).map(|g| g.id.clone())
    };
    group(a).is_some() && group(a) == group(b)
}

fn of_blocks(metric: Metric, good_a: &[&RequestRecord], good_b: &[&RequestRecord]) -> Option<Evidence> {
    let log_ratios = block_log_ratios(metric, good_a, good_b);
    let shift = Shift::of_blocks(&log_ratios)?;
    let ratios: Vec<f64> = log_ratios.iter().map(|x| x.exp()).collect();
    let drifts = drift(&ratios).is_some_and(|d| d.exceeds(DRIFT_SHARE));
    Some(Evidence {
        basis: Basis::Blocks(log_ratios.len()),
        ratio: shift.estimate.exp(),
        shift: Some(shift),
        within_runs: None,
        unstable: drifts.then(|| text!("the ratio drifts from block to block")).into_iter().collect(),
        note: None,
    })
}

/// The log-ratio of each block, in order. Repetitions with the same number are neighbours in their block.
fn block_log_ratios(metric: Metric, good_a: &[&RequestRecord], good_b: &[&RequestRecord]) -> Vec<f64> {
    let mut blocks: BTreeMap<u32, BTreeMap<u32, [Option<f64>; 2]>> = BTreeMap::new();
    for (side, good) in [good_a, good_b].into_iter().enumerate() {
        for request in good {
            if let Some(block) = request.block {
                blocks.entry(block).or_default().entry(request.repetition).or_default()[side] =
                    metric.of(request);
            }
        }
    }
    let pairs = |block: BTreeMap<u32, [Option<f64>; 2]>| -> Vec<(f64, f64)> {
        block.into_values().filter_map(|[a, b]| a.zip(b)).collect()
    };
    blocks.into_values().filter_map(|block| block_log_ratio(&pairs(block))).collect()
}

/// Whether the runs of two sides alternate in time. Compares the mean ranks of both sides by start time. If one
/// side came first entirely, these would differ most. They may differ by at most half of that. Always true if no host is common to both sides.
fn alternate(a: &Side, b: &Side) -> bool {
    let begun = |side: &Side| {
        let further = side.further_runs.iter().map(|run| run.summary.run.provenance.clone());
        std::iter::once(side.run().provenance.clone()).chain(further).collect::<Vec<_>>()
    };
    let (a, b) = (begun(a), begun(b));
    if !a.iter().any(|run| b.iter().any(|other| other.host == run.host)) {
        return true;
    }
    let mut order: Vec<(&str, bool)> = a.iter().map(|run| (run.started.as_str(), true)).collect();
    order.extend(b.iter().map(|run| (run.started.as_str(), false)));
    order.sort_unstable();
    let mean_place = |of: bool, count: usize| {
        let places = order.iter().enumerate().filter(|(_, (_, is_a))| *is_a == of).map(|(place, _)| place);
        places.sum::<usize>() as f64 / count as f64
    };
    let apart = (mean_place(true, a.len()) - mean_place(false, b.len())).abs();
    apart <= 0.25 * order.len() as f64
}
