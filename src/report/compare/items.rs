//! Joins the items of a task in two runs: which can be paired, and which came out differently.

use crate::record::{SampleRecord, SampleState};
use crate::report::accuracy::category_rank;
use crate::stats::PairCounts;
use std::collections::{BTreeMap, HashMap};

/// An item in both runs.
pub(super) type PairedItem<'a> = (&'a SampleRecord, &'a SampleRecord);

/// Result of the join.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JoinReport {
    /// Items that both runs answered.
    pub paired: u64,
    /// Items that failed in at least one run. They are not paired and in no figure.
    pub failed: u64,
    /// Items that only the base has.
    pub only_a: u64,
    /// Items that only the other run has.
    pub only_b: u64,
    /// Items of the same name whose content differs; they are not paired.
    pub changed: u64,
    /// The first of those, by name.
    pub changed_example: Option<String>,
    /// Paired items whose prompts differ.
    pub prompts_differ: u64,
    /// Paired items whose answers differ though both are right or both are wrong.
    pub answers_differ: u64,
}

/// An item that only one of the runs got right.
#[derive(Debug, Clone, PartialEq)]
pub struct Flip {
    /// The item's name.
    pub doc_id: String,
    /// SHA-256 of the item.
    pub doc_hash: String,
    /// Subject.
    pub subject: String,
    /// Category.
    pub category: String,
    /// Right in the base, wrong in the other run.
    pub lost: bool,
    /// The right answer.
    pub gold: String,
    /// The base's answer.
    pub pred_a: Option<String>,
    /// The other run's answer.
    pub pred_b: Option<String>,
    /// Margin by which the base preferred its answer, in log-probability.
    pub margin_a: Option<f32>,
    /// The same for the other run.
    pub margin_b: Option<f32>,
    /// Whether both had the same prompt.
    pub prompt_equal: bool,
}

impl Flip {
    fn of((a, b): PairedItem<'_>) -> Self {
        Self {
            doc_id: a.doc_id.clone(),
            doc_hash: a.doc_hash.clone(),
            subject: a.subject.clone(),
            category: a.category.clone(),
            lost: is_right(a),
            gold: a.gold.clone(),
            pred_a: a.pred.clone(),
            pred_b: b.pred.clone(),
            margin_a: a.margin,
            margin_b: b.margin,
            prompt_equal: a.prompt_hash == b.prompt_hash,
        }
    }

    /// Distance in log-probability by which the answer changed: the sum of both margins. Small if the answer was
    /// close; large if something is wrong. `None` if answers are read from text.
    pub fn moved(&self) -> Option<f32> {
        self.margin_a.zip(self.margin_b).map(|(a, b)| a + b)
    }
}

pub(super) fn is_right(sample: &SampleRecord) -> bool {
    sample.state == SampleState::Scored && sample.correct
}

/// Pairs the items of one task. Pairs by name if the content is equal, and the rest by content alone. A set in
/// another order or with other names therefore still pairs.
pub(super) fn join<'a>(a: &[&'a SampleRecord], b: &[&'a SampleRecord]) -> (Vec<PairedItem<'a>>, JoinReport) {
    let mut report = JoinReport::default();
    let mut by_name: HashMap<&str, &SampleRecord> = b.iter().map(|s| (s.doc_id.as_str(), *s)).collect();
    let mut pairs: Vec<PairedItem<'a>> = Vec::new();
    let mut left_of_a = Vec::new();
    for sample in a {
        match by_name.get(sample.doc_id.as_str()) {
            Some(other) if other.doc_hash == sample.doc_hash => {
                pairs.push((sample, other));
                by_name.remove(sample.doc_id.as_str());
            }
            _ => left_of_a.push(*sample),
        }
    }
    let mut by_content: HashMap<&str, Vec<&SampleRecord>> = HashMap::new();
    // File order reversed, so that popping from the end follows it.
    for sample in b.iter().rev().filter(|s| by_name.contains_key(s.doc_id.as_str())) {
        by_content.entry(&sample.doc_hash).or_default().push(sample);
    }
    for sample in left_of_a {
        if let Some(other) = by_content.get_mut(sample.doc_hash.as_str()).and_then(Vec::pop) {
            by_name.remove(other.doc_id.as_str());
            pairs.push((sample, other));
        } else if by_name.remove(sample.doc_id.as_str()).is_some() {
            report.changed += 1;
            report.changed_example.get_or_insert_with(|| sample.doc_id.clone());
        } else {
            report.only_a += 1;
        }
    }
    report.only_b = by_name.len() as u64;
    let answered = |s: &SampleRecord| s.state != SampleState::Failed;
    let found = pairs.len() as u64;
    pairs.retain(|(a, b)| answered(a) && answered(b));
    report.paired = pairs.len() as u64;
    report.failed = found - report.paired;
    report.prompts_differ = count(&pairs, |a, b| a.prompt_hash != b.prompt_hash);
    report.answers_differ = count(&pairs, |a, b| a.pred != b.pred && is_right(a) == is_right(b));
    (pairs, report)
}

fn count(pairs: &[PairedItem<'_>], holds: impl Fn(&SampleRecord, &SampleRecord) -> bool) -> u64 {
    pairs.iter().filter(|(a, b)| holds(a, b)).count() as u64
}

/// The flipped items, farthest moved first. Items without a margin come last.
pub(super) fn flips(pairs: &[PairedItem<'_>]) -> Vec<Flip> {
    let flipped = pairs.iter().filter(|(a, b)| is_right(a) != is_right(b));
    let mut flips: Vec<Flip> = flipped.map(|&pair| Flip::of(pair)).collect();
    let rank = |flip: &Flip| flip.moved().filter(|m| m.is_finite()).unwrap_or(f32::NEG_INFINITY);
    flips.sort_by(|x, y| rank(y).total_cmp(&rank(x)).then_with(|| x.doc_id.cmp(&y.doc_id)));
    flips
}

/// Outcome counts of a set of pairs.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    /// Number of pairs, and those that only one side got right.
    pub(super) counts: PairCounts,
    /// Right in the base.
    pub(super) right_a: u64,
    /// Right in the other run.
    pub(super) right_b: u64,
}

impl Tally {
    fn add(&mut self, (a, b): PairedItem<'_>) {
        let (a, b) = (is_right(a), is_right(b));
        self.counts.n += 1;
        self.counts.only_a += u64::from(a && !b);
        self.counts.only_b += u64::from(b && !a);
        self.right_a += u64::from(a);
        self.right_b += u64::from(b);
    }

    /// Adds two tallies.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            counts: self.counts.plus(other.counts),
            right_a: self.right_a + other.right_a,
            right_b: self.right_b + other.right_b,
        }
    }
}

/// One subject's pairs.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SubjectTally {
    /// All pairs.
    pub(super) all: Tally,
    /// Pairs in the hard part of the set.
    pub(super) hard: Tally,
}

/// Sort key of a subject: rank of its category, category, name.
pub(super) type SubjectKey<'a> = (usize, &'a str, &'a str);

/// Groups pairs by subject, in the order of the report of a run. `known` has the benchmark's categories. A set
/// without subjects has one unnamed subject.
pub(super) fn by_subject<'a>(
    known: &[&str],
    pairs: &[PairedItem<'a>],
) -> BTreeMap<SubjectKey<'a>, SubjectTally> {
    let mut subjects: BTreeMap<SubjectKey<'a>, SubjectTally> = BTreeMap::new();
    for &pair in pairs {
        let item = pair.0;
        let key = (category_rank(known, &item.category), item.category.as_str(), item.subject.as_str());
        let subject = subjects.entry(key).or_default();
        subject.all.add(pair);
        if item.hard {
            subject.hard.add(pair);
        }
    }
    subjects
}
