//! Which items of a task were right, in the plan's order, so that two runs can be compared item by item.

use crate::record::{SampleRecord, SampleState};
use crate::stats::PairCounts;
use serde::{Deserialize, Serialize};

/// A bit for each item.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Marks {
    /// Number of items.
    items: usize,
    /// Four items a hexadecimal digit, the first item in the highest bit: 1 for a right answer.
    right: String,
    /// Places of failed items, which count in no comparison.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    failed: Vec<usize>,
}

impl Marks {
    /// Takes the marks of the items in a task.
    pub(in crate::report) fn of<'a>(samples: impl Iterator<Item = &'a SampleRecord>) -> Self {
        let (mut right, mut failed) = (Vec::new(), Vec::new());
        for (place, sample) in samples.enumerate() {
            right.push(sample.state == SampleState::Scored && sample.correct);
            if sample.state == SampleState::Failed {
                failed.push(place);
            }
        }
        let digit = |four: &[bool]| {
            let bits = (0..4).fold(0, |bits, at| 2 * bits + u32::from(four.get(at) == Some(&true)));
            char::from_digit(bits, 16).expect("invariant: four bits are a digit")
        };
        Self { items: right.len(), right: right.chunks(4).map(digit).collect(), failed }
    }

    /// Counts the items that both runs answered, and those that only one got right. `None` if the lists have other lengths,
    /// or a digit is none.
    pub(in crate::report) fn against(&self, other: &Self) -> Option<PairCounts> {
        let digits = self.items.div_ceil(4);
        if self.items != other.items || self.right.len() != digits || other.right.len() != digits {
            return None;
        }
        let mut counts = PairCounts { n: self.items as u64, only_a: 0, only_b: 0 };
        for (a, b) in self.right.chars().zip(other.right.chars()) {
            let (a, b) = (a.to_digit(16)?, b.to_digit(16)?);
            counts.only_a += u64::from((a & !b).count_ones());
            counts.only_b += u64::from((b & !a).count_ones());
        }
        let mut failed: Vec<usize> = self.failed.iter().chain(&other.failed).copied().collect();
        failed.sort_unstable();
        failed.dedup();
        for place in failed.into_iter().filter(|place| *place < self.items) {
            counts.n -= 1;
            match (self.is_right(place), other.is_right(place)) {
                (true, false) => counts.only_a -= 1,
                (false, true) => counts.only_b -= 1,
                _ => {}
            }
        }
        Some(counts)
    }

    fn is_right(&self, place: usize) -> bool {
        let digit = self.right.as_bytes().get(place / 4).and_then(|byte| char::from(*byte).to_digit(16));
        digit.is_some_and(|digit| digit >> (3 - place % 4) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::sample;
    use proptest::prelude::*;

    fn marks(of: &[(bool, bool)]) -> Marks {
        let samples: Vec<SampleRecord> = of
            .iter()
            .map(|&(correct, failed)| SampleRecord {
                correct: correct && !failed,
                state: if failed { SampleState::Failed } else { SampleState::Scored },
                ..sample()
            })
            .collect();
        Marks::of(samples.iter())
    }

    proptest! {
        #[test]
        fn counts_are_those_of_the_items(of in prop::collection::vec(any::<(bool, bool, bool, bool)>(), 0..40)) {
            let a: Vec<(bool, bool)> = of.iter().map(|&(right, failed, ..)| (right, failed)).collect();
            let b: Vec<(bool, bool)> = of.iter().map(|&(.., right, failed)| (right, failed)).collect();
            let both: Vec<(bool, bool)> =
                a.iter().zip(&b).filter(|(a, b)| !a.1 && !b.1).map(|(a, b)| (a.0, b.0)).collect();
            let count = |x: (bool, bool)| both.iter().filter(|pair| **pair == x).count() as u64;
            let expected = PairCounts {
                n: both.len() as u64, only_a: count((true, false)), only_b: count((false, true)),
            };
            prop_assert_eq!(marks(&a).against(&marks(&b)), Some(expected));
        }
    }

    #[test]
    fn lists_of_other_lengths_are_not_compared() {
        let three = marks(&[(true, false); 3]);
        assert_eq!(three.right, "e");
        assert_eq!(three.against(&marks(&[(true, false); 4])), None);
        let torn = Marks { right: String::new(), ..three.clone() };
        assert_eq!(three.against(&torn), None);
        let odd = Marks { right: "?".into(), ..three.clone() };
        assert_eq!(odd.against(&three), None);
        let far = Marks { failed: vec![1, 99], ..three.clone() };
        assert_eq!(far.against(&three).map(|counts| counts.n), Some(2));
    }
}
