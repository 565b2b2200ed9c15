//! Compares a timed case in two runs: the time ratio of each phase, and the verdict on it.

use super::evidence::{Basis, Evidence, Joined, Metric};
use super::{Options, Pair, Side};
use crate::language::{Text, ToText, text};
use crate::record::{Clock, PerfRow, PerformanceCase, Phase, RequestRecord};
use crate::report::performance::Repetitions;
use crate::stats::{
    Change, Interval, Shift, adjusted, blocks_needed, geometric_mean, median, rules_out, runs_needed,
    two_modes,
};
use std::collections::BTreeSet;

/// Verdict on a ratio of times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpeedVerdict {
    /// The other run takes less time, by more than the threshold.
    Faster,
    /// They differ by less than the threshold.
    Same,
    /// The other run takes more time, by more than the threshold.
    Slower,
    /// None of these can be claimed.
    CannotTell,
    /// The runs were not timed in turn and do not alternate, and no noise floor applies: no verdict.
    NotInTurn,
    /// The phase fails its own conditions: no verdict.
    Unstable,
    /// Both clocks are virtual: an exact ratio of two profiles, without a test.
    ModelledRatio,
    /// One clock is virtual and the other is not: never a verdict.
    NotComparable,
    /// One of the rows may not be used.
    Invalid,
}

impl ToText for SpeedVerdict {
    fn to_text(&self) -> Text {
        match self {
            Self::Faster => text!("faster"),
            Self::Same => text!("same"),
            Self::Slower => text!("slower"),
            Self::CannotTell => text!("cannot tell"),
            Self::NotInTurn => text!("not timed in turn"),
            Self::Unstable => text!("unstable"),
            Self::ModelledRatio => text!("modelled ratio"),
            Self::NotComparable => text!("not comparable: measured vs modelled"),
            Self::Invalid => text!("invalid"),
        }
    }
}

/// One phase of a case in two runs.
#[derive(Debug, Clone, PartialEq)]
pub struct PhaseComparison {
    /// The phase.
    pub phase: Phase,
    /// The base's row. For blocks or runs, its median is the geometric mean of their medians.
    pub a: PerfRow,
    /// The other run's row.
    pub b: PerfRow,
    /// Second over first: for blocks and runs from the mean of their logarithms, for two runs and modelled times from
    /// the medians. `None` if they are not comparable.
    pub ratio: Option<f64>,
    /// 95 % interval of the ratio, if the evidence has one.
    pub interval: Option<Interval>,
    /// p-value of "no difference", for blocks and runs.
    pub p: Option<f64>,
    /// The p-value adjusted by Holm over all phases of the comparison.
    pub p_holm: Option<f64>,
    /// The verdict.
    pub verdict: SpeedVerdict,
    /// The kind of evidence. `None` if there is nothing to test.
    pub basis: Option<Basis>,
    /// Why there is no verdict, and other remarks.
    pub notes: Vec<Text>,
    /// The evidence with all values.
    evidence: Option<Evidence>,
}

impl PhaseComparison {
    /// `slower` or `faster` if the test rejects "no difference" but the threshold is not exceeded.
    pub fn leaning(&self) -> Option<Text> {
        let ratio = self.ratio.filter(|_| self.verdict == SpeedVerdict::CannotTell && self.differs())?;
        Some(if ratio > 1.0 { text!("slower") } else { text!("faster") })
    }

    /// Reasons for an unstable phase, a few words each.
    pub fn unstable(&self) -> &[Text] {
        let evidence = self.evidence.as_ref().filter(|_| self.verdict == SpeedVerdict::Unstable);
        evidence.map_or(&[], |evidence| &evidence.unstable)
    }

    /// Whether the evidence rejects "no difference".
    fn differs(&self) -> bool {
        match self.basis {
            Some(Basis::Floor(_)) => self.interval.is_some_and(|interval| !interval.contains(1.0)),
            _ => self.p_holm.is_some_and(rules_out),
        }
    }

    fn decide(&mut self, threshold: f64) {
        let Some(evidence) = &self.evidence else { return };
        if evidence.basis == Basis::Apart {
            self.verdict = SpeedVerdict::NotInTurn;
            return;
        }
        if evidence.basis == Basis::Unlike {
            self.verdict = SpeedVerdict::CannotTell;
            return;
        }
        if !evidence.unstable.is_empty() {
            self.verdict = SpeedVerdict::Unstable;
            return;
        }
        self.verdict = match Change::of(evidence.ratio.ln(), self.differs(), evidence.within(), threshold) {
            Change::Faster => SpeedVerdict::Faster,
            Change::Same => SpeedVerdict::Same,
            Change::Slower => SpeedVerdict::Slower,
            Change::CannotTell => SpeedVerdict::CannotTell,
        };
    }
}

/// A timed case in two runs.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseComparison {
    /// The base's case.
    pub a: PerformanceCase,
    /// The other run's case.
    pub b: PerformanceCase,
    /// Prefill, decode if there is one, end to end.
    pub phases: Vec<PhaseComparison>,
    /// Whether both wrote the same tokens. `None` if one has none.
    pub same_output: Option<bool>,
}

impl CaseComparison {
    /// Batch, input and output length, and the ranks unless both have one.
    pub fn name(&self) -> String {
        let shape = format!("b{}-i{}-o{}", self.a.batch, self.a.input_tokens, self.a.output_tokens);
        match (self.a.tp, self.b.tp) {
            (1, 1) => shape,
            (a, b) if a == b => format!("{shape}-tp{a}"),
            (a, b) => format!("{shape} tp {a} / {b}"),
        }
    }
}

/// Cases that both runs have timed, with the same shape and ranks. If no rank count is common, with the same shape.
pub(super) fn joined<'a>(a: &'a Side, b: &'a Side, notes: &mut Vec<Text>) -> Vec<Joined<'a>> {
    let (cases_a, cases_b) = (&a.run().plan.performance, &b.run().plan.performance);
    let ranks = |cases: &[PerformanceCase]| cases.iter().map(|case| case.tp).collect::<BTreeSet<u32>>();
    let (ranks_a, ranks_b) = (ranks(cases_a), ranks(cases_b));
    let by_shape_only = ranks_a.is_disjoint(&ranks_b);
    // Prompts from another source are other work, whatever the shape.
    let source = |case: &PerformanceCase| case.prompts.as_ref().map(|prompts| prompts.source.clone());
    let shape = |case: &PerformanceCase| (case.batch, case.input_tokens, case.output_tokens, source(case));
    let equal =
        |x: &PerformanceCase, y: &PerformanceCase| shape(x) == shape(y) && (by_shape_only || x.tp == y.tp);
    let timed = |side: &Side, case: &PerformanceCase| !Repetitions::of(case, &side.requests).good.is_empty();
    let mut joined = Vec::new();
    for case_a in cases_a {
        // Of several rank counts take the lowest: the base's case is compared with one case, not with each.
        let Some(case_b) = cases_b.iter().filter(|other| equal(case_a, other)).min_by_key(|other| other.tp)
        else {
            continue;
        };
        if timed(a, case_a) && timed(b, case_b) {
            joined.push(Joined { a, b, case_a, case_b });
        }
    }
    if by_shape_only && !joined.is_empty() {
        let listed = |ranks: &BTreeSet<u32>| ranks.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        notes.push(text!("No tensor-parallel size is common: {a} has tp {ranks_a}, {b} has tp {ranks_b}; cases are joined by shape alone.", a = a.letter, ranks_a = listed(&ranks_a), b = b.letter, ranks_b = listed(&ranks_b)));
    }
    let alone = |cases: &[PerformanceCase], others: &[PerformanceCase]| {
        cases.iter().filter(|case| !others.iter().any(|other| equal(case, other))).count()
    };
    for (side, count) in [(a, alone(cases_a, cases_b)), (b, alone(cases_b, cases_a))] {
        if count > 0 {
            notes.push(text!(
                "{count} timed case{count:s} only in {letter}, left out.",
                count,
                letter = side.letter
            ));
        }
    }
    joined
}

/// Number of compared phases of a case.
pub(super) fn phases(joined: &Joined<'_>) -> usize {
    if joined.case_a.output_tokens < 2 { 2 } else { 3 }
}

/// Compares a case in a comparison of `phases` phases. [`decide`] adds the verdicts.
pub(super) fn compare_case(joined: &Joined<'_>, options: &Options, phases: usize) -> CaseComparison {
    let Joined { a, b, case_a, case_b } = *joined;
    let good_a = Repetitions::of(case_a, &a.requests).good;
    let good_b = Repetitions::of(case_b, &b.requests).good;
    let row = |side: &Side, case: &PerformanceCase, phase| {
        side.summary.performance.iter().find(|row| row.case_id == case.case_id && row.phase == phase).cloned()
    };
    let compared = [Phase::Prefill, Phase::Decode, Phase::E2e].into_iter().filter_map(|phase| {
        let rows = (row(a, case_a, phase)?, row(b, case_b, phase)?);
        rows.0.median_ns.and(rows.1.median_ns)?;
        Some(compare_phase(phase, rows, (&good_a, &good_b), joined, options, phases))
    });
    let group = |r: &RequestRecord| r.prompts.as_ref().map(|prompts| prompts.group);
    let same_prompts =
        |a: &RequestRecord| good_b.iter().find(|b| group(b) == group(a)).map(|b| (a.output_hash.clone(), b));
    let hashes = good_a.iter().find_map(|a| same_prompts(a)).map(|(hash, b)| hash == b.output_hash);
    CaseComparison { a: case_a.clone(), b: case_b.clone(), phases: compared.collect(), same_output: hashes }
}

fn compare_phase(
    phase: Phase,
    (a, b): (PerfRow, PerfRow),
    (good_a, good_b): (&[&RequestRecord], &[&RequestRecord]),
    joined: &Joined<'_>,
    options: &Options,
    phases: usize,
) -> PhaseComparison {
    let mut compared = PhaseComparison {
        phase,
        ratio: None,
        interval: None,
        p: None,
        p_holm: None,
        verdict: SpeedVerdict::NotComparable,
        basis: None,
        notes: Vec::new(),
        evidence: None,
        a,
        b,
    };
    for (letter, row) in joined.rows(phase) {
        if row.valid == Some(false) {
            let reason = row.invalid_reason.clone().unwrap_or_default();
            compared.notes.push(text!("{letter}: {reason}", letter, reason));
            compared.verdict = SpeedVerdict::Invalid;
        }
    }
    if compared.a.clock != compared.b.clock || compared.verdict == SpeedVerdict::Invalid {
        return compared;
    }
    let metric = Metric::Phase(phase);
    let times = |good: &[&RequestRecord]| -> Vec<f64> { good.iter().filter_map(|r| metric.of(r)).collect() };
    let (times_a, times_b) = (times(good_a), times(good_b));
    if compared.a.clock == Clock::Modelled {
        compared.ratio = median(&times_b).zip(median(&times_a)).filter(|(_, a)| *a > 0.0).map(|(b, a)| b / a);
        compared.verdict = SpeedVerdict::ModelledRatio;
        return compared;
    }
    compared.verdict = SpeedVerdict::CannotTell;
    compared.notes = two_speeds(&[(joined.a.letter, &times_a), (joined.b.letter, &times_b)]);
    let Some(evidence) = joined.evidence(metric, options, phases) else { return compared };
    joined.sum_up(metric, evidence.basis, [&mut compared.a, &mut compared.b]);
    compared.ratio = Some(evidence.ratio);
    compared.interval = evidence.interval();
    compared.p = evidence.p(1.0).filter(|_| evidence.basis != Basis::Apart);
    compared.basis = Some(evidence.basis);
    compared.notes.extend(evidence.note.iter().chain(&evidence.unstable).cloned());
    compared.evidence = Some(evidence);
    compared
}

/// Sets the verdicts. "No difference" is rejected at a level that holds for all phases of all pairs.
pub(super) fn decide(pairs: &mut [Pair], options: &Options) {
    let shifts: Vec<Shift> = phases_of(pairs).filter_map(|phase| tested(phase).cloned()).collect();
    let mut p_holm = adjusted(&shifts.iter().collect::<Vec<_>>()).into_iter();
    let cases = pairs.iter_mut().flat_map(|pair| &mut pair.cases);
    for phase in cases.flat_map(|case| &mut case.phases) {
        if tested(phase).is_some() {
            phase.p_holm = p_holm.next();
        }
        phase.decide(options.threshold());
    }
}

fn phases_of(pairs: &[Pair]) -> impl Iterator<Item = &PhaseComparison> {
    pairs.iter().flat_map(|pair| &pair.cases).flat_map(|case| &case.phases)
}

/// The shift of a phase that is tested.
fn tested(phase: &PhaseComparison) -> Option<&Shift> {
    phase.evidence.as_ref().filter(|evidence| evidence.basis != Basis::Apart)?.shift()
}

/// `5 blocks cannot decide 24 phases; at least 10 are needed`. `None` if there are enough.
pub(super) fn too_few(pair: &Pair, phases: usize) -> Option<Text> {
    let fewest = |of: fn(Basis) -> Option<usize>| {
        let bases = pair.cases.iter().flat_map(|case| &case.phases).filter_map(|phase| phase.basis);
        bases.filter_map(of).min()
    };
    let blocks = fewest(|basis| if let Basis::Blocks(n) = basis { Some(n) } else { None });
    let runs = fewest(|basis| if let Basis::Runs(a, b) = basis { Some(a.min(b)) } else { None });
    let needed = blocks_needed(phases);
    if let Some(blocks) = blocks.filter(|have| *have < needed) {
        return Some(text!(
            "{blocks} block{blocks:s} cannot decide {phases} phase{phases:s}; at least {needed} are needed",
            blocks,
            phases,
            needed
        ));
    }
    let needed = runs_needed(phases);
    runs.filter(|have| *have < needed).map(|runs| {
        text!(
            "{runs} run{runs:s} a side cannot decide {phases} phase{phases:s}; at least {needed} are needed",
            runs,
            phases,
            needed
        )
    })
}

/// Notes for medians that hide two speeds.
fn two_speeds(sides: &[(char, &[f64])]) -> Vec<Text> {
    let modes = |(side, times): &(char, &[f64])| {
        let modes = two_modes(times)?;
        Some(text!(
            "{side} has two speeds ({share} % of repetitions {slower} % slower)",
            side,
            share = format!("{:.0}", 100.0 * modes.high_share),
            slower = format!("{:.1}", 100.0 * (modes.high / modes.low - 1.0))
        ))
    };
    sides.iter().filter_map(modes).collect()
}

/// The geometric mean ratio of a phase over the cases timed by `clock`, and the number of those cases.
pub(super) fn geomean(cases: &[CaseComparison], phase: Phase, clock: Clock) -> Option<(f64, usize)> {
    let of_phase =
        cases.iter().flat_map(|case| &case.phases).filter(|p| p.phase == phase && p.a.clock == clock);
    let ratios: Vec<f64> = of_phase.filter_map(|p| p.ratio).collect();
    geometric_mean(&ratios).map(|mean| (mean, ratios.len()))
}
