//! Draws the sample of a run to verify.

use std::collections::{BTreeMap, BTreeSet};

use crate::record::{Contents, PerformanceCase, RepetitionKind, RequestRecord, SampleRecord};
use crate::stats::Rng;

/// The sample to rerun.
#[derive(Debug, Clone, Default)]
pub struct Picked {
    /// Items by task, in the order of the record.
    pub items: BTreeMap<String, Vec<SampleRecord>>,
    /// Timed cases with random prompts.
    pub cases: Vec<PerformanceCase>,
    /// Timed cases that cannot be rerun.
    pub skipped: Vec<Skipped>,
}

/// A timed case that cannot be rerun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The case.
    pub case_id: String,
    /// Why it cannot be rerun.
    pub reason: &'static str,
}

impl Picked {
    /// Draws `items` items and `cases` timed cases, all equally likely. The result depends on seed and record only.
    pub fn of(contents: &Contents, items: usize, cases: usize, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut picked = Self::default();
        let tasks: BTreeSet<&str> =
            contents.run.plan.accuracy.iter().map(|case| case.task.as_str()).collect();
        let known: Vec<&SampleRecord> =
            contents.samples.iter().filter(|sample| tasks.contains(sample.task.as_str())).collect();
        for at in draw(known.len(), items, &mut rng) {
            picked.items.entry(known[at].task.clone()).or_default().push(known[at].clone());
        }
        let mut timed = Vec::new();
        for case in contents.run.plan.performance.iter().filter(|case| case.unfit.is_none()) {
            let reason = if recorded_hashes(case, &contents.requests).is_empty() {
                "the record has no timed repetition"
            } else if case.prompts.is_some() {
                "its prompts come from a data set, and a record does not keep them"
            } else if case.seed.is_none() {
                "the record has no seed of its prompts, because an older version made it"
            } else {
                timed.push(case);
                continue;
            };
            picked.skipped.push(Skipped { case_id: case.case_id.clone(), reason });
        }
        picked.cases = draw(timed.len(), cases, &mut rng).into_iter().map(|at| timed[at].clone()).collect();
        picked
    }

    /// Returns the number of items.
    pub fn item_count(&self) -> usize {
        self.items.values().map(Vec::len).sum()
    }
}

/// Draws `count` different numbers below `of`, all equally likely, and returns them in order.
fn draw(of: usize, count: usize, rng: &mut Rng) -> BTreeSet<usize> {
    let mut all: Vec<usize> = (0..of).collect();
    for i in 0..count.min(of) {
        let other = i + rng.below((of - i) as u64) as usize;
        all.swap(i, other);
    }
    all.truncate(count);
    all.into_iter().collect()
}

/// Returns the output hashes of the timed repetitions of a case.
pub(super) fn recorded_hashes<'a>(
    case: &PerformanceCase,
    requests: &'a [RequestRecord],
) -> BTreeSet<&'a str> {
    let timed = requests
        .iter()
        .filter(|r| r.case_id == case.case_id && r.kind == RepetitionKind::Timed && r.error.is_none());
    timed.map(|request| request.output_hash.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_drawn_without_replacement_and_by_its_seed() {
        let drawn = |seed| draw(100, 20, &mut Rng::new(seed));
        assert_eq!(drawn(1).len(), 20);
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        assert_eq!(draw(3, 20, &mut Rng::new(1)), BTreeSet::from([0, 1, 2]));
        assert!(draw(0, 20, &mut Rng::new(1)).is_empty());
        // All are equally likely: 2,000 draws of 20 of 100 give about 400 of each.
        let mut counts = [0_u32; 100];
        (0..2000).flat_map(drawn).for_each(|at| counts[at] += 1);
        assert!(counts.iter().all(|count| (300..500).contains(count)), "{counts:?}");
    }
}
