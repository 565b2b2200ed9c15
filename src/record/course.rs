//! The order of lines for the timed parts of a plan, and when a part is complete.

use super::clock::Clock;
use super::keyed::Keyed;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// A line of a timed part.
pub(crate) trait Timed: Keyed {
    /// The clock of its times.
    fn clock(&self) -> Clock;
    /// When it ended, on the run's clock.
    fn end_ns(&self) -> u64;
    /// Whether it failed, for a reason that may have passed.
    fn has_failed(&self) -> bool;
}

/// A part of the plan. Its next line always follows from the plan and its lines so far.
pub(crate) trait Course: Serialize + DeserializeOwned {
    /// A line of the part.
    type Line: Timed + 'static;
    /// The relevant state after some of its lines.
    type State: Default;
    /// Name of this kind of part, for messages.
    const KIND: &'static str;
    /// The journal of all parts of this kind.
    const JOURNAL: &'static str;
    /// Whether every run has the journal, and the parts in its plan, even if it has no such part.
    const IN_EVERY_RUN: bool = false;
    /// Returns the part's name.
    fn id(&self) -> &str;
    /// Returns the part's tensor-parallel ranks.
    fn tp(&self) -> u32;
    /// Whether the part is run at all.
    fn is_run(&self) -> bool {
        true
    }
    /// Returns the name of the part that a line belongs to.
    fn part_of(line: &Self::Line) -> &str;
    /// Whether the line may come next.
    fn follows(&self, state: &Self::State, line: &Self::Line) -> bool;
    /// Updates the state with a line.
    fn take(state: &mut Self::State, line: &Self::Line);
    /// Whether the part is complete.
    fn is_whole(&self, state: &Self::State) -> bool;
    /// Describes the progress, for messages: `2 of 3 timed repetitions`.
    fn extent(&self, state: &Self::State) -> String;
    /// Describes what the lines of all parts of this kind lack, if anything. `operators` says that every repetition has operator
    /// times.
    fn shortcoming(_operators: bool, _lines: &[Self::Line]) -> Option<String> {
        None
    }
    /// Whether such a line is from alternating parts instead of one part after another.
    fn in_turns(_line: &Self::Line) -> bool {
        false
    }
}

/// Returns the parts in run order: an engine is loaded for each of the numbers of ranks in turn.
pub(in crate::record) fn in_order<'a, C: Course>(tp_sizes: &[u32], parts: &'a [C]) -> Vec<&'a C> {
    let of = |&tp: &u32| parts.iter().filter(move |part| part.tp() == tp);
    tp_sizes.iter().flat_map(of).collect()
}

/// Result of checking the lines of a journal against the plan.
pub(in crate::record) struct Walk<S> {
    /// Number of leading lines in planned order, with each part complete before the next begins.
    pub(in crate::record) prefix: usize,
    /// The lines of each part, by the part's name.
    pub(in crate::record) parts: BTreeMap<String, Part<S>>,
    /// Number of lines of each part that do not continue those before.
    pub(in crate::record) stray: BTreeMap<String, usize>,
    /// Number of lines that belong to no part of the plan.
    pub(in crate::record) unknown: usize,
    /// The first part that has lines although an earlier part is incomplete.
    pub(in crate::record) early: Option<String>,
    /// Whether the parts alternate.
    pub(in crate::record) in_turns: bool,
}

/// The lines of a part that continue from its first without a gap, at any place in the file.
#[derive(Default)]
pub(in crate::record) struct Part<S> {
    /// State after these lines.
    pub(in crate::record) state: S,
    /// Indices of these lines in the file, from 0.
    pub(in crate::record) lines: Vec<usize>,
}

impl<S: Default> Walk<S> {
    /// Whether the part has all its lines.
    pub(in crate::record) fn is_whole<C: Course<State = S>>(&self, part: &C) -> bool {
        match self.parts.get(part.id()) {
            Some(found) => part.is_whole(&found.state),
            None => part.is_whole(&S::default()),
        }
    }

    /// Describes the part's progress, for messages.
    pub(in crate::record) fn extent<C: Course<State = S>>(&self, part: &C) -> String {
        match self.parts.get(part.id()) {
            Some(found) => part.extent(&found.state),
            None => part.extent(&S::default()),
        }
    }
}

/// Checks `lines` in file order; a line that is damaged or to be redone is `None`. `in_turns` says that the run's group
/// has blocks, even if no line says so.
pub(in crate::record) fn walk<'a, C: Course>(
    order: &[&C],
    lines: &[Option<&'a C::Line>],
    in_turns: bool,
) -> Walk<C::State>
where
    C::Line: 'a,
{
    let place: BTreeMap<&str, usize> = order.iter().zip(0..).map(|(part, at)| (part.id(), at)).collect();
    let mut found = Walk {
        prefix: 0,
        parts: BTreeMap::new(),
        stray: BTreeMap::new(),
        unknown: 0,
        early: None,
        in_turns: in_turns || lines.iter().flatten().any(|line| C::in_turns(line)),
    };
    // `open` is the first incomplete part. `front` is the part of the last leading line, or `None` after a line out of
    // place.
    let (mut open, mut front) = (0, Some(0));
    for (index, line) in lines.iter().enumerate() {
        let Some(line) = line else {
            front = None;
            continue;
        };
        let id = C::part_of(line);
        let Some(&at) = place.get(id) else {
            (found.unknown, front) = (found.unknown + 1, None);
            continue;
        };
        let own = found.parts.entry(id.to_owned()).or_default();
        if !order[at].follows(&own.state, line) {
            *found.stray.entry(id.to_owned()).or_default() += 1;
            front = None;
            continue;
        }
        C::take(&mut own.state, line);
        own.lines.push(index);
        while open < order.len() && open < at && found.is_whole(order[open]) {
            open += 1;
        }
        let in_place = found.in_turns || open >= at;
        if !in_place && found.early.is_none() {
            found.early = Some(id.to_owned());
        }
        front = front.filter(|now| found.in_turns || (in_place && *now <= at)).map(|_| at);
        found.prefix += usize::from(front.is_some());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::golden::request;
    use crate::record::{PerformanceCase, RepetitionKind, RequestRecord};

    fn case(id: &str, repetitions: u32) -> PerformanceCase {
        let case = &crate::record::golden::run().plan.performance[0];
        PerformanceCase { case_id: id.into(), repetitions, ..case.clone() }
    }

    /// `a0` is the first timed repetition of case a, `aw0` its first warm-up, and `?` a line that cannot be read.
    fn walked(words: &str) -> Walk<<PerformanceCase as Course>::State> {
        let cases = [case("a", 2), case("b", 1)];
        let line = |word: &str| {
            let (kind, number) = match word[1..].strip_prefix('w') {
                Some(number) => (RepetitionKind::Warmup, number),
                None => (RepetitionKind::Timed, &word[1..]),
            };
            let repetition = number.parse().ok()?;
            Some(RequestRecord { case_id: word[..1].into(), kind, repetition, ..request() })
        };
        let lines: Vec<Option<RequestRecord>> = words.split(' ').map(line).collect();
        let lines: Vec<Option<&RequestRecord>> = lines.iter().map(Option::as_ref).collect();
        walk(&cases.iter().collect::<Vec<_>>(), &lines, false)
    }

    #[test]
    fn a_journal_is_the_plans_as_far_as_its_parts_come_one_after_another() {
        for (words, prefix) in [
            ("aw0 aw1 a0 a1 bw0 b0", 6),
            ("a0 a1 b0", 3),
            // Resumed within a case, which warms up again.
            ("aw0 a0 aw1 a1 b0", 5),
            ("a0 b0 a1", 1),
            ("a1 b0", 0),
            ("a0 a0 a1", 1),
            ("a0 a1 a2 b0", 2),
            ("a0 ? a1", 1),
            ("a0 c0 a1", 1),
            ("b0 a0 a1", 0),
        ] {
            assert_eq!(walked(words).prefix, prefix, "{words}");
        }
        let found = walked("a0 b0 a1 c0 a1");
        assert_eq!((found.unknown, found.stray["a"], found.early.as_deref()), (1, 1, Some("b")));
        assert_eq!(found.parts["a"].lines, [0, 2]);
        assert!(walked("a0 a1 b0").is_whole(&case("b", 1)) && !walked("a0").is_whole(&case("a", 2)));
    }
}
