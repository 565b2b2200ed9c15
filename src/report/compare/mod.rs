//! Compares two or more runs: what differs about them, their differences in accuracy and speed, and whether these are
//! significant.
//!
//! The first run is the base, and each other run is compared with it. [`compare`] reads and decides,
//! [`write_comparison`](super::write_comparison) writes the files.
//!
//! Measured and modelled times are never compared: such a pair is shown without a verdict. Two modelled times have no
//! noise. Their ratio is exact, concerns only the two profiles, and is reported as "modelled ratio".

mod accuracy;
pub(super) mod answer;
pub(super) mod charts;
pub(crate) mod common;
mod deciding;
mod differences;
mod evidence;
pub(super) mod files;
mod fits;
mod floor;
pub(super) mod headline;
mod items;
mod overview;
pub(super) mod page;
mod side;
mod speed;
pub(super) mod speedup;
pub(super) mod tables;

#[cfg(test)]
mod tests;

use crate::language::{Language, Text, ToText, text};
pub use accuracy::{AccuracyVerdict, GroupComparison, MacroMean, TaskComparison, TextFigure};
pub use deciding::{command, same_command};
pub use differences::{Field, PairDifferences};
pub use evidence::{Basis, Evidence, Joined, Metric};
pub use files::{ComparisonRow, FlipRow};
pub use floor::NoiseFloors;
pub use items::{Flip, JoinReport};
pub use side::{FurtherRun, Side};
pub use speed::{CaseComparison, PhaseComparison, SpeedVerdict};
pub use tables::gates as gate_table;

use self::accuracy::Answered;
use super::Summary;
use super::check::Verdict;
use super::error::ReportError;
use super::workloads;
use crate::record::ParityCase;
use crate::workload::parity::report::ParityFound;
use common::Compared;
use serde::Serialize;
use std::path::PathBuf;

/// Options of a comparison.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether to compare runs of different identity, with every differing field shown on top.
    pub allow_mismatch: bool,
    /// Whether to compare runs of another model, another form of it, or another suite, as with a baseline. What is asked of a common
    /// task must be the same. Differing fields are shown on top.
    pub allow_model: bool,
    /// Change of a time that counts as one, as a share (0.03). Default: 3 %.
    pub threshold: Option<f64>,
    /// The change that the machine shows between equal runs. Two runs that were not timed in turn are compared with
    /// it.
    pub noise: NoiseFloors,
    /// Difference of an accuracy below which two runs may be called the same, as a share.
    pub accuracy_margin: f64,
    /// Runs of the same command but of other things: shown beside the comparison, not compared.
    pub beside: Vec<PathBuf>,
    /// Further runs of each compared run, in the order of the runs. May be shorter than the list of runs.
    pub further_runs: Vec<Vec<PathBuf>>,
    /// Folder for the files of [`render_comparison`](super::render_comparison). Default: a new folder beside the base run.
    pub out: Option<PathBuf>,
    /// The language of pages and charts.
    pub language: Language,
}

/// Default threshold of a comparison of times.
pub const DEFAULT_THRESHOLD: f64 = 0.03;

impl Default for Options {
    fn default() -> Self {
        Self {
            allow_mismatch: false,
            allow_model: false,
            threshold: None,
            noise: NoiseFloors::default(),
            accuracy_margin: 0.01,
            beside: Vec::new(),
            further_runs: Vec::new(),
            out: None,
            language: Language::default(),
        }
    }
}

impl Options {
    /// The threshold for times.
    pub fn threshold(&self) -> f64 {
        self.threshold.unwrap_or(DEFAULT_THRESHOLD)
    }

    /// The threshold, formatted: `3.0 %`.
    pub fn threshold_words(&self) -> String {
        format!("{:.1} %", 100.0 * self.threshold())
    }
}

/// Runs side by side.
#[derive(Debug)]
pub struct Comparison {
    /// The runs, the base first.
    pub sides: Vec<Side>,
    /// Each other run against the base, in order.
    pub pairs: Vec<Pair>,
    /// Runs that are shown but not compared.
    pub beside: Vec<Summary>,
    /// The options.
    pub options: Options,
}

/// One run against the base.
#[derive(Debug)]
pub struct Pair {
    /// Index of the run in [`Comparison::sides`].
    pub other: usize,
    /// What differs about the two runs, and what is equal.
    pub differences: PairDifferences,
    /// The common tasks, in the base's order.
    pub tasks: Vec<TaskComparison>,
    /// Perplexities or scores of the common tasks whose items have no right answer.
    pub text_figures: Vec<TextFigure>,
    /// The common timed cases, in the base's order.
    pub cases: Vec<CaseComparison>,
    /// The common cases of the other workloads.
    pub(crate) workloads: Vec<Box<dyn Compared>>,
    /// What only one of them has, and other remarks, one sentence each.
    pub notes: Vec<Text>,
    /// What would decide the speed of phases without a verdict, with the command.
    pub advice: Option<Text>,
}

/// Result of a gate, as the comparison shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judgement {
    /// The gate and its subject, such as `accuracy drop of ceval`.
    pub gate: Text,
    /// The letter of the judged run.
    pub run: String,
    /// The limit, formatted.
    pub limit: Text,
    /// What was found.
    pub found: Text,
    /// The outcome.
    pub outcome: GateOutcome,
    /// For an undecided gate: what decides it, with the command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decide: Option<Text>,
}

/// Outcome of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GateOutcome {
    /// The whole interval is within the limit.
    Pass,
    /// The whole interval is past the limit, or nothing matches the gate.
    Fail,
    /// The limit is within the interval, there is too little data, or the two runs were not timed in turn.
    Undecided,
}

impl ToText for GateOutcome {
    fn to_text(&self) -> Text {
        match self {
            Self::Pass => text!("pass"),
            Self::Fail => text!("FAIL"),
            Self::Undecided => text!("undecided"),
        }
    }
}

/// Reads and compares the runs in `paths`. The first is the base.
///
/// # Errors
/// Fails for a folder that is not a run, for runs of different identity unless allowed, and for runs with nothing in
/// common.
pub fn compare(paths: &[PathBuf], options: &Options) -> Result<Comparison, ReportError> {
    let [_, _, ..] = paths else {
        return Err(ReportError::Compare(format!(
            "{} given; a comparison needs two runs or more",
            paths.len()
        )));
    };
    refuse_twice(paths, &options.further_runs)?;
    let (mut sides, samples) = side::read_all(paths)?;
    for (side, further) in sides.iter_mut().zip(&options.further_runs) {
        for path in further {
            let run = FurtherRun::read(path)?;
            if !options.allow_mismatch {
                differences::refuse_another(side, &run)?;
            }
            side.further_runs.push(run);
        }
    }
    let mut pairs = Vec::new();
    let mut joined = Vec::new();
    for other in 1..sides.len() {
        let (a, b) = (&sides[0], &sides[other]);
        let differences = PairDifferences::of(a, b);
        if !options.allow_mismatch {
            differences.refuse_mismatch(a, b, options.allow_model)?;
        }
        let mut notes = differences::untold(a, b);
        let of_a = Answered { side: a, samples: &samples[0] };
        let of_b = Answered { side: b, samples: &samples[other] };
        let tasks = accuracy::compare_tasks(of_a, of_b, options, &mut notes);
        let text_figures = accuracy::text_figures(of_a, of_b);
        joined.push(speed::joined(a, b, &mut notes));
        let workloads = common::compare(a, b, &mut notes);
        pairs.push(Pair {
            other,
            differences,
            tasks,
            text_figures,
            cases: Vec::new(),
            workloads,
            notes,
            advice: None,
        });
    }
    let phases = joined.iter().flatten().map(speed::phases).sum();
    for (pair, joined) in pairs.iter_mut().zip(joined) {
        pair.cases = joined.iter().map(|case| speed::compare_case(case, options, phases)).collect();
        let nothing = pair.tasks.is_empty() && pair.text_figures.is_empty() && pair.cases.is_empty();
        if nothing && pair.workloads.iter().all(|common| common.is_empty()) {
            return Err(nothing_in_common(&sides[0], &sides[pair.other]));
        }
    }
    accuracy::decide(&mut pairs, options);
    speed::decide(&mut pairs, options);
    let beside = options
        .beside
        .iter()
        .map(|path| Ok(side::read(path)?.summary))
        .collect::<Result<_, ReportError>>()?;
    let mut comparison = Comparison { sides, pairs, beside, options: options.clone() };
    let advice: Vec<_> = comparison.pairs.iter().map(|pair| deciding::advice(&comparison, pair)).collect();
    comparison.pairs.iter_mut().zip(advice).for_each(|(pair, advice)| pair.advice = advice);
    Ok(comparison)
}

/// Rejects a run that is given twice: comparing a run with itself says nothing.
fn refuse_twice(paths: &[PathBuf], further: &[Vec<PathBuf>]) -> Result<(), ReportError> {
    let paths: Vec<&PathBuf> = paths.iter().chain(further.iter().flatten()).collect();
    let real: Vec<PathBuf> =
        paths.iter().map(|path| path.canonicalize().unwrap_or_else(|_| (*path).clone())).collect();
    let twice = (0..real.len()).find(|&i| real[..i].contains(&real[i]));
    let refused = |i: usize| {
        let path = paths[i].display();
        Err(ReportError::Compare(format!(
            "{path} is given twice; expected different runs: a run against itself says nothing"
        )))
    };
    twice.map_or(Ok(()), refused)
}

fn nothing_in_common(a: &Side, b: &Side) -> ReportError {
    let mut kinds: Vec<&str> = workloads::counts(a.run()).iter().map(|(_, [one, _])| *one).collect();
    let last = kinds.pop().unwrap_or_default();
    ReportError::Compare(format!(
        "{} and {} have no finished item, {} or {last} in common; {} has {}, {} has {}",
        a.path.display(),
        b.path.display(),
        kinds.join(", "),
        a.letter,
        a.contents(),
        b.letter,
        b.contents()
    ))
}

impl Comparison {
    /// The base.
    pub fn base(&self) -> &Side {
        &self.sides[0]
    }

    /// The run that a pair compares with the base.
    pub fn other(&self, pair: &Pair) -> &Side {
        &self.sides[pair.other]
    }

    /// The parity cases that the base has.
    pub(crate) fn parities(&self) -> Vec<&ParityCase> {
        self.base().run().plan.parity.iter().filter(|case| case.unfit.is_none()).collect()
    }

    /// What a run has of a parity case of the base. `None` if it was compared with another reference.
    pub(crate) fn parity<'a>(&'a self, side: &'a Side, case: &ParityCase) -> Option<&'a ParityFound> {
        let own = side.workloads.parity.found(case)?;
        let base = self.base().workloads.parity.found(case)?;
        Some(own).filter(|own| own.is_against_the_same(base))
    }

    /// Number of compared phases over all pairs.
    pub fn phases(&self) -> usize {
        self.pairs.iter().flat_map(|pair| &pair.cases).map(|case| case.phases.len()).sum()
    }

    /// A case of a pair with its two runs.
    pub fn joined<'a>(&'a self, pair: &Pair, case: &'a CaseComparison) -> Joined<'a> {
        Joined { a: self.base(), b: self.other(pair), case_a: &case.a, case_b: &case.b }
    }

    /// The worst verdict of any run: invalid before incomplete before valid.
    pub fn verdict(&self) -> Verdict {
        let runs = |side: &Side| {
            let further: Vec<Verdict> = side.further_runs.iter().map(|run| run.summary.verdict()).collect();
            std::iter::once(side.summary.verdict()).chain(further).collect::<Vec<_>>()
        };
        let verdicts: Vec<Verdict> = self.sides.iter().flat_map(runs).collect();
        [Verdict::Invalid, Verdict::Incomplete]
            .into_iter()
            .find(|bad| verdicts.contains(bad))
            .unwrap_or(Verdict::Valid)
    }

    /// Differing identity fields, one line each.
    pub fn mismatches(&self) -> Vec<Text> {
        let of_pair = |pair: &Pair| {
            let (a, b) = (self.base().letter, self.other(pair).letter);
            let line = move |field: &Field| {
                text!(
                    "{field}: {a} {left}, {b} {right}",
                    field = field.name,
                    a,
                    left = shown(field.left.as_ref()),
                    b,
                    right = shown(field.right.as_ref())
                )
            };
            pair.differences.identity.iter().map(line).collect::<Vec<_>>()
        };
        self.pairs.iter().flat_map(of_pair).collect()
    }
}

/// A value, or `none`.
fn shown(value: Option<&Text>) -> Text {
    value.cloned().unwrap_or_else(|| text!("none"))
}
