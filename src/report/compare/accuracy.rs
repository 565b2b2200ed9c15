//! Compares a task in two runs: the difference in accuracy, and whether it is significant.

use super::items::{Flip, JoinReport, PairedItem, SubjectKey, SubjectTally, Tally, by_subject, flips, join};
use super::{Options, Pair, Side};
use crate::language::{Text, ToText, text};
use crate::record::{AccuracyCase, SampleRecord};
use crate::report::accuracy::{ALL, categories, part};
use crate::report::format::fixed;
use crate::report::measures::{leading, perplexities};
use crate::stats::{
    Estimate, Interval, LEAST_DISCORDANT, PairCounts, RESAMPLES, detectable_difference, difference_interval,
    discordant_share, holm, identical_items_to_show_same, items_needed, items_to_show_same,
    macro_difference_interval, mcnemar_exact, mean, score_interval, wilson,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Seed of the bootstrap behind every interval. Arbitrary but fixed.
const SEED: u64 = 1;
/// Statistical power of "needs n" and of the detectable difference.
pub(super) const POWER: f64 = 0.8;

/// Verdict on a difference in accuracy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccuracyVerdict {
    /// The other run is better: McNemar's test, adjusted for all tasks, is below 0.05.
    Better,
    /// They differ by less than the margin: the whole 90 % score interval lies within it.
    Same,
    /// The other run is worse.
    Worse,
    /// Neither can be claimed with this number of items.
    CannotTell {
        /// Number of items that would decide with probability 0.8. They confirm the observed difference if it exceeds
        /// the margin, else show the two to be the same.
        needs: Option<u64>,
    },
}

impl ToText for AccuracyVerdict {
    fn to_text(&self) -> Text {
        match self {
            Self::Better => text!("better"),
            Self::Same => text!("same"),
            Self::Worse => text!("worse"),
            Self::CannotTell { needs: Some(n) } => text!("cannot tell (needs n = {n})", n),
            Self::CannotTell { needs: None } => text!("cannot tell"),
        }
    }
}

/// A group of the items in a task: all, a category, the hard part, or a subject.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupComparison {
    /// Category, `Hard`, or `all`.
    pub category: String,
    /// Subject, or `all`.
    pub subject: String,
    /// Items in both runs, and those that only one got right.
    pub counts: PairCounts,
    /// Accuracy of the base over these items, with Wilson's interval.
    pub a: Estimate,
    /// Accuracy of the other run.
    pub b: Estimate,
    /// Second minus first, with its stratified paired bootstrap interval. With fewer than [`LEAST_DISCORDANT`]
    /// discordant items, with the score interval.
    pub difference: Estimate,
}

/// The mean accuracy over a task's subjects in two runs, each subject with equal weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MacroMean {
    /// In the base.
    pub a: f64,
    /// In the other run.
    pub b: f64,
    /// Second minus first.
    pub difference: Estimate,
}

/// A task in two runs.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskComparison {
    /// The task.
    pub task: String,
    /// The base's protocol, and the other run's if it differs.
    pub protocol: String,
    /// How the items were joined.
    pub join: JoinReport,
    /// The whole first, then categories, the hard part, subjects.
    pub groups: Vec<GroupComparison>,
    /// Mean over subjects. `None` without subjects.
    pub macro_mean: Option<MacroMean>,
    /// p-value of the exact McNemar test over all items.
    pub p: f64,
    /// The p-value adjusted by Holm over every task of the comparison.
    pub p_holm: f64,
    /// The verdict.
    pub verdict: AccuracyVerdict,
    /// The least true difference that this number of items detects with probability 0.8.
    pub detectable: Option<f64>,
    /// Items that only one of the runs got right, farthest moved first.
    pub flips: Vec<Flip>,
}

impl TaskComparison {
    /// All items.
    pub fn whole(&self) -> &GroupComparison {
        &self.groups[0]
    }

    /// Whether every item of either run is in both, answered, and with the same answer.
    pub fn is_identical(&self) -> bool {
        let join = &self.join;
        let unpaired = join.failed + join.only_a + join.only_b + join.changed;
        self.flips.is_empty() && join.answers_differ + unpaired == 0
    }
}

/// A side of the comparison with its items.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answered<'a> {
    /// The side.
    pub(super) side: &'a Side,
    /// Its items.
    pub(super) samples: &'a [SampleRecord],
}

impl<'a> Answered<'a> {
    /// The items of a task.
    fn of_task(self, task: &str) -> Vec<&'a SampleRecord> {
        self.samples.iter().filter(|sample| sample.task == task).collect()
    }
}

/// Compares every task with items in both runs. Adds remarks on unpaired items to `notes`.
pub(super) fn compare_tasks(
    of_a: Answered<'_>,
    of_b: Answered<'_>,
    options: &Options,
    notes: &mut Vec<Text>,
) -> Vec<TaskComparison> {
    let (a, b) = (of_a.side, of_b.side);
    let planned = |side: &Side| -> Vec<AccuracyCase> { side.run().plan.accuracy.clone() };
    let (cases_a, cases_b) = (planned(a), planned(b));
    let missing =
        |of: &[AccuracyCase], than: &[AccuracyCase], side: &Side, notes: &mut Vec<Text>| {
            let alone = of.iter().filter(|case| than.iter().all(|other| other.task != case.task));
            notes.extend(alone.map(|case| {
                text!("Only {letter} has the task {task}.", letter = side.letter, task = case.task)
            }));
        };
    missing(&cases_a, &cases_b, a, notes);
    missing(&cases_b, &cases_a, b, notes);
    let mut tasks = Vec::new();
    for case in cases_a.iter().filter(|case| !case.keyless) {
        let Some(other) = cases_b.iter().find(|other| other.task == case.task) else { continue };
        let (pairs, report) = join(&of_a.of_task(&case.task), &of_b.of_task(&case.task));
        notes.extend(join_notes(&case.task, &report, a, b));
        if pairs.is_empty() {
            notes.push(text!("The runs have no finished item of {task} in common.", task = case.task));
            continue;
        }
        tasks.push(task(case, other, &pairs, report, options));
    }
    tasks
}

/// A figure of texts that have no right answer, in both runs, over the texts that both scored.
#[derive(Debug, Clone, PartialEq)]
pub struct TextFigure {
    /// The task.
    pub task: String,
    /// The figure: the first perplexity, or else a mean score.
    pub name: Text,
    /// In the base.
    pub a: f64,
    /// In the other run.
    pub b: f64,
    /// Number of texts.
    pub texts: usize,
    /// Decimals that are shown.
    decimals: usize,
}

impl TextFigure {
    /// The base's figure.
    pub(super) fn of_base(&self) -> String {
        fixed(Some(self.a), self.decimals)
    }

    /// The other run's figure.
    pub(super) fn of_other(&self) -> String {
        fixed(Some(self.b), self.decimals)
    }

    /// Returns `wikitext-2: word perplexity 12.310, A 12.298 (62 texts, not tested)`, where A is the base's letter.
    pub(super) fn words(&self, base: &Side) -> Text {
        text!(
            "{task}: {name} {other}, {letter} {one} ({texts} text{texts:s}, not tested)",
            task = self.task,
            name = self.name,
            other = self.of_other(),
            letter = base.letter,
            one = self.of_base(),
            texts = self.texts
        )
    }
}

/// Returns the figures of the common tasks whose items have no right answer.
pub(super) fn text_figures(of_a: Answered<'_>, of_b: Answered<'_>) -> Vec<TextFigure> {
    let (a, b) = (of_a.side, of_b.side);
    let common = |task: &str| b.run().plan.accuracy.iter().any(|other| other.task == task);
    let keyless = a.run().plan.accuracy.iter().filter(|case| case.keyless && common(&case.task));
    let of_task = |case: &AccuracyCase| {
        let (pairs, _) = join(&of_a.of_task(&case.task), &of_b.of_task(&case.task));
        let first = perplexities(pairs.iter().map(|pair| pair.0)).into_iter().next();
        let second = perplexities(pairs.iter().map(|pair| pair.1)).into_iter().next();
        let (name, a, b, texts, decimals) = if let (Some((name, a, texts)), Some((_, b, _))) = (first, second)
        {
            (name, a, b, texts, 3)
        } else {
            let (name, b, a) = headline(&pairs)?;
            (name.into(), a, b, pairs.len(), 4)
        };
        Some(TextFigure { task: case.task.clone(), name, a, b, texts, decimals })
    };
    keyless.filter_map(of_task).collect()
}

/// Returns the [leading] measure of scored texts with its means in the second and the first run. `None` if an item lacks it.
fn headline<'m>(pairs: &[(&'m SampleRecord, &SampleRecord)]) -> Option<(&'m str, f64, f64)> {
    let (first, _) = pairs.first()?;
    let name = leading(first)?;
    let mut sums = [0.0; 2];
    for (one, other) in pairs {
        sums[0] += one.measures.get(name)?;
        sums[1] += other.measures.get(name)?;
    }
    let mean = |sum: f64| sum / pairs.len() as f64;
    Some((name, mean(sums[1]), mean(sums[0])))
}

fn join_notes(task: &str, report: &JoinReport, a: &Side, b: &Side) -> Vec<Text> {
    let (a, b) = (a.letter, b.letter);
    let mut notes = Vec::new();
    let mut note = |items: u64, what: Text| {
        if items > 0 {
            notes.push(text!("{task}: {items} item{items:s} {what}", task, items, what));
        }
    };
    note(report.only_a, text!("only in {letter}, left out.", letter = a));
    note(report.only_b, text!("only in {letter}, left out.", letter = b));
    let example = report.changed_example.as_deref().unwrap_or_default();
    note(report.changed, text!("of the same name but other content (such as {example}), left out.", example));
    note(report.failed, text!("failed in a run, left out."));
    note(report.prompts_differ, text!("put with different prompts."));
    notes
}

fn task(
    case: &AccuracyCase,
    other: &AccuracyCase,
    pairs: &[PairedItem<'_>],
    join: JoinReport,
    options: &Options,
) -> TaskComparison {
    let subjects = by_subject(categories(case), pairs);
    let groups = groups(&subjects, part(case));
    let whole = groups[0].counts;
    let p = mcnemar_exact(whole.only_a, whole.only_b);
    let protocol = match (&case.protocol, &other.protocol) {
        (a, b) if a == b => a.clone(),
        (a, b) => format!("{a} / {b}"),
    };
    let mut task = TaskComparison {
        task: case.task.clone(),
        protocol,
        join,
        macro_mean: macro_mean(&subjects),
        p,
        p_holm: p,
        verdict: AccuracyVerdict::CannotTell { needs: None },
        detectable: discordant_share(whole).and_then(|d| detectable_difference(whole.n, d, POWER)),
        flips: flips(pairs),
        groups,
    };
    task.verdict = verdict(&task, options);
    task
}

fn verdict(task: &TaskComparison, options: &Options) -> AccuracyVerdict {
    let counts = task.whole().counts;
    let (margin, difference) = (options.accuracy_margin, counts.difference().unwrap_or_default());
    if task.p_holm < 0.05 {
        return if difference > 0.0 { AccuracyVerdict::Better } else { AccuracyVerdict::Worse };
    }
    let within = |of: Interval| -margin < of.low && of.high < margin;
    if score_interval(counts, 0.9).is_some_and(within) {
        return AccuracyVerdict::Same;
    }
    let needs = match discordant_share(counts) {
        _ if counts.discordant() == 0 => identical_items_to_show_same(margin),
        Some(share) if difference.abs() > margin => items_needed(difference, share, POWER),
        Some(share) => items_to_show_same(margin, share, POWER),
        None => None,
    };
    // The formulas are approximate, and the present items were not enough.
    AccuracyVerdict::CannotTell { needs: needs.map(|n| n.max(counts.n + 1)) }
}

/// Adjusts the tests of all tasks of all pairs for one another, and sets the verdicts again.
pub(super) fn decide(pairs: &mut [Pair], options: &Options) {
    let p: Vec<f64> = pairs.iter().flat_map(|pair| pair.tasks.iter().map(|task| task.p)).collect();
    let tasks = pairs.iter_mut().flat_map(|pair| &mut pair.tasks);
    for (task, p_holm) in tasks.zip(holm(&p)) {
        task.p_holm = p_holm;
        task.verdict = verdict(task, options);
    }
}

/// The whole, categories, the hard part, subjects, in the order of the report of a run.
fn groups(subjects: &BTreeMap<SubjectKey<'_>, SubjectTally>, part: &str) -> Vec<GroupComparison> {
    let of = |category: &str, subject: &str, strata: Vec<Tally>| Strata {
        category: category.to_owned(),
        subject: subject.to_owned(),
        strata,
    };
    let mut groups = vec![of(ALL, ALL, subjects.values().map(|s| s.all).collect())];
    let categories: BTreeSet<(usize, &str)> = subjects.keys().map(|(rank, name, _)| (*rank, *name)).collect();
    for (_, name) in categories.into_iter().filter(|(_, name)| !name.is_empty()) {
        let of_category = subjects.iter().filter(|((_, category, _), _)| *category == name);
        groups.push(of(name, ALL, of_category.map(|(_, s)| s.all).collect()));
    }
    let hard: Vec<Tally> = subjects.values().map(|s| s.hard).filter(|t| t.counts.n > 0).collect();
    if !hard.is_empty() {
        groups.push(of(part, ALL, hard));
    }
    for ((_, category, subject), tally) in subjects.iter().filter(|((.., subject), _)| !subject.is_empty()) {
        groups.push(of(if category.is_empty() { ALL } else { category }, subject, vec![tally.all]));
    }
    on_every_core(&groups, group)
}

/// A group with the tallies of its strata.
struct Strata {
    category: String,
    subject: String,
    strata: Vec<Tally>,
}

/// Applies `work` to each item in parallel; returns the results in order. Each item has its own random stream, so the
/// number of cores changes no result.
fn on_every_core<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, work) = (&AtomicUsize::new(0), &work);
    let take_turns = move || {
        let turn = || {
            let index = next.fetch_add(1, Ordering::Relaxed);
            Some((index, work(items.get(index)?)))
        };
        std::iter::from_fn(turn).collect::<Vec<(usize, R)>>()
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(take_turns)).collect();
        let joined = threads.into_iter().map(|t| t.join().expect("invariant: statistics do not panic"));
        joined.flatten().collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Combines strata into one group.
fn group(Strata { category, subject, strata }: &Strata) -> GroupComparison {
    let whole = strata.iter().copied().fold(Tally::default(), Tally::plus);
    let n = whole.counts.n;
    let estimate = |right: u64| Estimate { value: right as f64 / n as f64, interval: wilson(right, n, 0.95) };
    let counts: Vec<PairCounts> = strata.iter().map(|stratum| stratum.counts).collect();
    GroupComparison {
        category: category.clone(),
        subject: subject.clone(),
        counts: whole.counts,
        a: estimate(whole.right_a),
        b: estimate(whole.right_b),
        difference: Estimate {
            value: whole.counts.difference().unwrap_or_default(),
            interval: interval(whole.counts, &counts),
        },
    }
}

/// 95 % interval of a difference. With few discordant items a bootstrap would hardly vary, and without any not at
/// all.
fn interval(whole: PairCounts, strata: &[PairCounts]) -> Option<Interval> {
    if whole.discordant() < LEAST_DISCORDANT {
        score_interval(whole, 0.95)
    } else {
        difference_interval(strata, 0.95, RESAMPLES, SEED)
    }
}

/// Mean over subjects, each with equal weight.
fn macro_mean(subjects: &BTreeMap<SubjectKey<'_>, SubjectTally>) -> Option<MacroMean> {
    if subjects.keys().any(|(.., name)| name.is_empty()) {
        return None;
    }
    let share = |right: fn(&Tally) -> u64| {
        let of = |subject: &SubjectTally| right(&subject.all) as f64 / subject.all.counts.n as f64;
        mean(&subjects.values().map(of).collect::<Vec<_>>())
    };
    let (a, b) = (share(|tally| tally.right_a)?, share(|tally| tally.right_b)?);
    let counts: Vec<PairCounts> = subjects.values().map(|subject| subject.all.counts).collect();
    let whole = counts.iter().copied().fold(PairCounts::default(), PairCounts::plus);
    let drawn = || macro_difference_interval(&counts, 0.95, RESAMPLES, SEED);
    let interval = (whole.discordant() >= LEAST_DISCORDANT).then(drawn).flatten();
    Some(MacroMean { a, b, difference: Estimate { value: b - a, interval } })
}
