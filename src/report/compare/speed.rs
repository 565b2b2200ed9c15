//! A timed case in two runs: how much longer or shorter each phase takes, and whether that is more than noise.

use super::{Options, Side};
use crate::record::{Clock, PerfRow, PerformanceCase, Phase, RequestRecord};
use crate::report::format::counted;
use crate::report::performance::{Repetitions, phase_ns, tpot_ns, ttft_ns};
use crate::stats::{
    Change, LEAST_SAMPLES, MedianRatio, RESAMPLES, drift, geometric_mean, mann_whitney, median,
    ratio_of_medians, ratio_of_medians_by_block, two_modes,
};
use std::collections::BTreeSet;

/// The stream of the bootstrap behind every interval: any number will do, but always the same.
const SEED: u64 = 1;
/// Change along the repetitions, as a share of their mean, that is worth a note.
const DRIFT_SHARE: f64 = 0.05;

/// A time of a repetition that a gate or a table may be about.
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
    /// The metric of one repetition, ns.
    pub fn of(self, request: &RequestRecord) -> Option<f64> {
        match self {
            Self::Ttft => ttft_ns(request).map(|ns| ns as f64),
            Self::Tpot => tpot_ns(request),
            Self::Phase(phase) => phase_ns(request, phase).map(|ns| ns as f64),
        }
    }
}

/// What a ratio of times comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpeedVerdict {
    /// The other run takes less time, by more than the threshold.
    Faster,
    /// They differ by less than the threshold.
    Same,
    /// The other run takes more time, by more than the threshold.
    Slower,
    /// Neither can be claimed.
    CannotTell,
    /// Both clocks are virtual: a ratio of two profiles, without noise and without a test.
    ModelledRatio,
    /// One clock is virtual and the other is not: no verdict, ever.
    NotComparable,
    /// One of the rows may not be used.
    Invalid,
}

impl std::fmt::Display for SpeedVerdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Faster => "faster",
            Self::Same => "same",
            Self::Slower => "slower",
            Self::CannotTell => "cannot tell",
            Self::ModelledRatio => "modelled ratio",
            Self::NotComparable => "not comparable: measured vs modelled",
            Self::Invalid => "invalid",
        })
    }
}

/// One phase of a case in two runs.
#[derive(Debug, Clone, PartialEq)]
pub struct PhaseComparison {
    /// The phase.
    pub phase: Phase,
    /// The base's row.
    pub a: PerfRow,
    /// The other run's row.
    pub b: PerfRow,
    /// Second median over first; `None` where they are not comparable.
    pub ratio: Option<f64>,
    /// 95 % bootstrap interval of the ratio, where both are measured.
    pub interval: Option<(f64, f64)>,
    /// Mann–Whitney, where both are measured.
    pub p: Option<f64>,
    /// What it comes to.
    pub verdict: SpeedVerdict,
    /// The interval was drawn by blocks of an interleaved run.
    pub by_block: bool,
    /// Why there is no verdict, and what else to know.
    pub notes: Vec<String>,
}

impl PhaseComparison {
    /// `slower` or `faster` where the interval shuts out no change, but not a change within the threshold.
    pub fn leaning(&self) -> Option<&'static str> {
        let (low, high) = self.interval.filter(|_| self.verdict == SpeedVerdict::CannotTell)?;
        match () {
            () if low > 1.0 => Some("slower"),
            () if high < 1.0 => Some("faster"),
            () => None,
        }
    }
}

/// A timed case in two runs.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseComparison {
    /// The base's case.
    pub a: PerformanceCase,
    /// The other run's.
    pub b: PerformanceCase,
    /// Prefill, decode where there is any, end to end.
    pub phases: Vec<PhaseComparison>,
    /// Both wrote the same tokens; `None` where one has none.
    pub same_output: Option<bool>,
}

impl CaseComparison {
    /// Batch, input and output length; the ranks where they are not one on both sides.
    pub fn name(&self) -> String {
        let shape = format!("b{}-i{}-o{}", self.a.batch, self.a.input_tokens, self.a.output_tokens);
        match (self.a.tp, self.b.tp) {
            (1, 1) => shape,
            (a, b) if a == b => format!("{shape}-tp{a}"),
            (a, b) => format!("{shape} tp {a} / {b}"),
        }
    }
}

/// Compares every case that both runs have, of the same shape and ranks; where no ranks are common, of the same shape.
pub(super) fn compare_cases(
    a: &Side,
    b: &Side,
    options: &Options,
    notes: &mut Vec<String>,
) -> Vec<CaseComparison> {
    let (cases_a, cases_b) = (&a.run().plan.performance, &b.run().plan.performance);
    let ranks = |cases: &[PerformanceCase]| cases.iter().map(|case| case.tp).collect::<BTreeSet<u32>>();
    let (ranks_a, ranks_b) = (ranks(cases_a), ranks(cases_b));
    let by_shape_only = ranks_a.is_disjoint(&ranks_b);
    // Prompts of another source are other work, of whatever shape.
    let source = |case: &PerformanceCase| case.prompts.as_ref().map(|prompts| prompts.source.clone());
    let shape = |case: &PerformanceCase| (case.batch, case.input_tokens, case.output_tokens, source(case));
    let equal =
        |x: &PerformanceCase, y: &PerformanceCase| shape(x) == shape(y) && (by_shape_only || x.tp == y.tp);
    let mut compared = Vec::new();
    for case in cases_a {
        // Of several ranks the fewest: the base's case of a shape is held against one case, not against each.
        let Some(other) = cases_b.iter().filter(|other| equal(case, other)).min_by_key(|other| other.tp)
        else {
            continue;
        };
        compared.extend(compare_case((a, case), (b, other), options));
    }
    if by_shape_only && !compared.is_empty() {
        let listed = |ranks: &BTreeSet<u32>| ranks.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        notes.push(format!(
            "No tensor-parallel size is common: {} has tp {}, {} has tp {}; cases are joined by shape alone.",
            a.letter,
            listed(&ranks_a),
            b.letter,
            listed(&ranks_b)
        ));
    }
    let alone = |cases: &[PerformanceCase], others: &[PerformanceCase]| {
        cases.iter().filter(|case| !others.iter().any(|other| equal(case, other))).count()
    };
    for (side, count) in [(a, alone(cases_a, cases_b)), (b, alone(cases_b, cases_a))] {
        if count > 0 {
            notes.push(format!("{} only in {}, left out.", counted(count as u64, "timed case"), side.letter));
        }
    }
    compared
}

/// `None` where neither phase of the case has been timed in both runs.
fn compare_case(
    (a, case_a): (&Side, &PerformanceCase),
    (b, case_b): (&Side, &PerformanceCase),
    options: &Options,
) -> Option<CaseComparison> {
    let good_a = Repetitions::of(case_a, &a.requests).good;
    let good_b = Repetitions::of(case_b, &b.requests).good;
    if good_a.is_empty() || good_b.is_empty() {
        return None;
    }
    let row = |side: &Side, case: &PerformanceCase, phase| {
        side.summary.performance.iter().find(|row| row.case_id == case.case_id && row.phase == phase).cloned()
    };
    let phases = [Phase::Prefill, Phase::Decode, Phase::E2e].into_iter().filter_map(|phase| {
        let rows = (row(a, case_a, phase)?, row(b, case_b, phase)?);
        rows.0.median_ns.and(rows.1.median_ns)?;
        Some(compare_phase(phase, rows, (&good_a, &good_b), (a, b), options))
    });
    let group = |r: &RequestRecord| r.prompts.as_ref().map(|prompts| prompts.group);
    let same_prompts =
        |a: &RequestRecord| good_b.iter().find(|b| group(b) == group(a)).map(|b| (a.output_hash.clone(), b));
    let hashes = good_a.iter().find_map(|a| same_prompts(a)).map(|(hash, b)| hash == b.output_hash);
    Some(CaseComparison {
        a: case_a.clone(),
        b: case_b.clone(),
        phases: phases.collect(),
        same_output: hashes,
    })
}

/// Whether the runs are of one command, so that equal block numbers mean repetitions side by side.
pub(super) fn interleaved(a: &Side, b: &Side) -> bool {
    let group = |side: &Side| side.run().provenance.group.as_ref().map(|group| group.id.clone());
    group(a).is_some() && group(a) == group(b)
}

fn compare_phase(
    phase: Phase,
    (a, b): (PerfRow, PerfRow),
    (good_a, good_b): (&[&RequestRecord], &[&RequestRecord]),
    sides: (&Side, &Side),
    options: &Options,
) -> PhaseComparison {
    let mut compared = PhaseComparison {
        phase,
        ratio: None,
        interval: None,
        p: None,
        verdict: SpeedVerdict::NotComparable,
        by_block: false,
        notes: Vec::new(),
        a,
        b,
    };
    for (side, row) in [(sides.0, &compared.a), (sides.1, &compared.b)] {
        if row.valid == Some(false) {
            let reason = row.invalid_reason.clone().unwrap_or_default();
            compared.notes.push(format!("{}: {reason}", side.letter));
            compared.verdict = SpeedVerdict::Invalid;
        }
    }
    if compared.a.clock != compared.b.clock || compared.verdict == SpeedVerdict::Invalid {
        return compared;
    }
    let metric = Metric::Phase(phase);
    let times = |good: &[&RequestRecord]| -> Vec<f64> { good.iter().filter_map(|r| metric.of(r)).collect() };
    let (times_a, times_b) = (times(good_a), times(good_b));
    compared.ratio = median(&times_b).zip(median(&times_a)).filter(|(_, a)| *a > 0.0).map(|(b, a)| b / a);
    if compared.a.clock == Clock::Modelled {
        compared.verdict = SpeedVerdict::ModelledRatio;
        return compared;
    }
    compared.p = mann_whitney(&times_a, &times_b);
    let (ratio, by_block) = metric_ratio(metric, good_a, good_b, interleaved(sides.0, sides.1));
    compared.by_block = by_block;
    compared.interval = ratio.map(|r| r.interval);
    compared.notes = notes_on(&[(sides.0.letter, &times_a), (sides.1.letter, &times_b)]);
    compared.verdict = SpeedVerdict::CannotTell;
    if times_a.len().min(times_b.len()) < LEAST_SAMPLES {
        compared.notes.push(format!("fewer than {LEAST_SAMPLES} repetitions"));
    } else if let Some(ratio) = ratio {
        decide(&mut compared, ratio, options.threshold(phase));
    }
    compared
}

fn decide(compared: &mut PhaseComparison, ratio: MedianRatio, threshold: f64) {
    compared.verdict = match ratio.change(threshold) {
        Change::Faster => SpeedVerdict::Faster,
        Change::Same => SpeedVerdict::Same,
        Change::Slower => SpeedVerdict::Slower,
        Change::CannotTell => SpeedVerdict::CannotTell,
    };
}

/// The ratio of the medians of a metric, and whether it was drawn by blocks: both sides belong to one interleaved command
/// and every repetition has its block.
pub fn metric_ratio(
    metric: Metric,
    good_a: &[&RequestRecord],
    good_b: &[&RequestRecord],
    interleaved: bool,
) -> (Option<MedianRatio>, bool) {
    let blocks = |good: &[&RequestRecord]| -> Option<Vec<(u32, f64)>> {
        good.iter().map(|r| Some((r.block?, metric.of(r)?))).collect()
    };
    if interleaved
        && let (Some(a), Some(b)) = (blocks(good_a), blocks(good_b))
        && let Some(ratio) = ratio_of_medians_by_block(&a, &b, RESAMPLES, SEED)
    {
        return (Some(ratio), true);
    }
    let times = |good: &[&RequestRecord]| -> Vec<f64> { good.iter().filter_map(|r| metric.of(r)).collect() };
    (ratio_of_medians(&times(good_a), &times(good_b), RESAMPLES, SEED), false)
}

/// What the shape of the samples says against their medians.
fn notes_on(sides: &[(char, &[f64])]) -> Vec<String> {
    let mut notes = Vec::new();
    for (side, times) in sides {
        if drift(times).is_some_and(|d| d.exceeds(DRIFT_SHARE)) {
            notes.push(format!("{side} drifts"));
        }
        if let Some(modes) = two_modes(times) {
            notes.push(format!(
                "{side} has two speeds ({:.0} % of repetitions {:.1} % slower)",
                100.0 * modes.high_share,
                100.0 * (modes.high / modes.low - 1.0)
            ));
        }
    }
    notes
}

/// The geometric mean of a phase's ratios over the cases whose clocks are both `clock`, and how many those are.
pub(super) fn geomean(cases: &[CaseComparison], phase: Phase, clock: Clock) -> Option<(f64, usize)> {
    let of_phase =
        cases.iter().flat_map(|case| &case.phases).filter(|p| p.phase == phase && p.a.clock == clock);
    let ratios: Vec<f64> = of_phase.filter_map(|p| p.ratio).collect();
    geometric_mean(&ratios).map(|mean| (mean, ratios.len()))
}
