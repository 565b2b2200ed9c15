//! The order of the lines of a plan's timed parts, and when a part is complete.

use super::load::{Level, LoadCase, LoadLevelRecord, next_level};
use super::probe::{ProbeOutcome, ProbeRecord, SearchCase, next_probe};
use super::request::{RepetitionKind, RequestRecord};
use super::run::{PerformanceCase, Plan};
use std::collections::BTreeMap;

/// A part of the plan. Its next line always follows from the plan and its lines so far.
pub(super) trait Course {
    /// A line of the part.
    type Line;
    /// The relevant state after some of its lines.
    type State: Default;
    /// Name of this kind of part, for messages.
    const KIND: &'static str;
    /// Returns the part's name.
    fn id(&self) -> &str;
    /// Returns the part's tensor-parallel ranks.
    fn tp(&self) -> u32;
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
    /// Whether such a line is from alternating parts instead of one part after another.
    fn in_turns(_line: &Self::Line) -> bool {
        false
    }
}

impl PerformanceCase {
    /// Whether the line has the planned shape. Real prompts have lengths of their own.
    fn is_shape_of(&self, line: &RequestRecord) -> bool {
        (line.batch, line.output_tokens, line.tp) == (self.batch, self.output_tokens, self.tp)
            && (self.prompts.is_some() || line.input_tokens == self.input_tokens)
    }
}

impl SearchCase {
    /// Whether the outcome follows from the times and the limits.
    fn is_judged_so(&self, line: &ProbeRecord) -> bool {
        let passes =
            |ns: Option<u64>, limit: Option<u64>| ns.zip(limit).is_some_and(|(ns, limit)| ns > limit);
        let slow = passes(line.tpot_ns, Some(self.limit_tpot_ns)) || passes(line.ttft_ns, self.limit_ttft_ns);
        match line.outcome {
            ProbeOutcome::Fits => !slow,
            ProbeOutcome::TooSlow => slow,
            ProbeOutcome::OutOfMemory | ProbeOutcome::Failed => true,
        }
    }
}

/// The recorded repetitions of a case.
#[derive(Default)]
pub(super) struct Repeated {
    warm_ups: u32,
    timed: u32,
    has_failed: bool,
}

impl Course for PerformanceCase {
    type Line = RequestRecord;
    type State = Repeated;
    const KIND: &'static str = "case";

    fn id(&self) -> &str {
        &self.case_id
    }

    fn tp(&self) -> u32 {
        self.tp
    }

    fn part_of(line: &RequestRecord) -> &str {
        &line.case_id
    }

    fn follows(&self, state: &Repeated, line: &RequestRecord) -> bool {
        let before = match line.kind {
            RepetitionKind::Warmup => state.warm_ups,
            RepetitionKind::Timed => state.timed,
        };
        !self.is_whole(state) && line.repetition == before && self.is_shape_of(line)
    }

    fn take(state: &mut Repeated, line: &RequestRecord) {
        match line.kind {
            RepetitionKind::Warmup => state.warm_ups += 1,
            RepetitionKind::Timed => state.timed += 1,
        }
        state.has_failed |= line.error.is_some();
    }

    /// A failed repetition ends its case.
    fn is_whole(&self, state: &Repeated) -> bool {
        self.unfit.is_some() || u64::from(state.timed) >= self.timed() || state.has_failed
    }

    fn extent(&self, state: &Repeated) -> String {
        format!("{} of {} timed repetitions", state.timed, self.timed())
    }

    fn in_turns(line: &RequestRecord) -> bool {
        line.block.is_some()
    }
}

impl Course for SearchCase {
    type Line = ProbeRecord;
    type State = Vec<ProbeRecord>;
    const KIND: &'static str = "search";

    fn id(&self) -> &str {
        &self.search_id
    }

    fn tp(&self) -> u32 {
        self.tp
    }

    fn part_of(line: &ProbeRecord) -> &str {
        &line.search_id
    }

    fn follows(&self, state: &Self::State, line: &ProbeRecord) -> bool {
        line.probe as usize == state.len()
            && next_probe(self, state) == Some((line.batch, line.purpose))
            && self.is_judged_so(line)
    }

    fn take(state: &mut Self::State, line: &ProbeRecord) {
        state.push(line.clone());
    }

    fn is_whole(&self, state: &Self::State) -> bool {
        next_probe(self, state).is_none()
    }

    fn extent(&self, state: &Self::State) -> String {
        match next_probe(self, state) {
            Some((batch, _)) => format!("{} probes, and batch {batch} would be next", state.len()),
            None => format!("{} probes", state.len()),
        }
    }
}

impl Course for LoadCase {
    type Line = LoadLevelRecord;
    type State = Vec<LoadLevelRecord>;
    const KIND: &'static str = "load";

    fn id(&self) -> &str {
        &self.load_id
    }

    fn tp(&self) -> u32 {
        self.tp
    }

    fn part_of(line: &LoadLevelRecord) -> &str {
        &line.load_id
    }

    fn follows(&self, state: &Self::State, line: &LoadLevelRecord) -> bool {
        line.level as usize == state.len() && next_level(self, state) == Some(line.offers())
    }

    fn take(state: &mut Self::State, line: &LoadLevelRecord) {
        state.push(line.clone());
    }

    fn is_whole(&self, state: &Self::State) -> bool {
        next_level(self, state).is_none()
    }

    fn extent(&self, state: &Self::State) -> String {
        match next_level(self, state) {
            Some(Level::Rate(rate)) => format!("{} rates, and {rate} requests/s would be next", state.len()),
            Some(level @ Level::Concurrency(_)) => {
                format!("{} levels, and {level} would be next", state.len())
            }
            Some(Level::AtOnce) => "no rate".to_owned(),
            None => format!("{} rates", state.len()),
        }
    }
}

/// Returns the parts in run order. An engine is loaded for each number of ranks in turn.
pub(super) fn in_order<'a, C: Course>(plan: &Plan, parts: &'a [C]) -> Vec<&'a C> {
    let of = |tp: u32| parts.iter().filter(move |part| part.tp() == tp);
    plan.worlds().into_iter().flat_map(of).collect()
}

/// Result of checking the lines of a journal against the plan.
pub(super) struct Walk<S> {
    /// Number of leading lines in planned order, with each part complete before the next begins.
    pub(super) prefix: usize,
    /// The lines of each part, by the part's name.
    pub(super) parts: BTreeMap<String, Part<S>>,
    /// Number of lines of each part that do not continue those before.
    pub(super) stray: BTreeMap<String, usize>,
    /// Number of lines that belong to no part of the plan.
    pub(super) unknown: usize,
    /// The first part that has lines although an earlier part is incomplete.
    pub(super) early: Option<String>,
    /// Whether the parts alternate.
    pub(super) in_turns: bool,
}

/// The lines of a part that continue from its first without a gap, at any place in the file.
#[derive(Default)]
pub(super) struct Part<S> {
    /// State after these lines.
    pub(super) state: S,
    /// Indices of these lines in the file, from 0.
    pub(super) lines: Vec<usize>,
}

impl<S: Default> Walk<S> {
    /// Whether the part has all its lines.
    pub(super) fn is_whole<C: Course<State = S>>(&self, part: &C) -> bool {
        match self.parts.get(part.id()) {
            Some(found) => part.is_whole(&found.state),
            None => part.is_whole(&S::default()),
        }
    }

    /// Describes the part's progress, for messages.
    pub(super) fn extent<C: Course<State = S>>(&self, part: &C) -> String {
        match self.parts.get(part.id()) {
            Some(found) => part.extent(&found.state),
            None => part.extent(&S::default()),
        }
    }
}

/// Checks `lines` in file order; a line that is damaged or to be redone is `None`. `in_turns` says that the run's group
/// has blocks, even if no line says so.
pub(super) fn walk<'a, C: Course>(
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

    fn case(id: &str, repetitions: u32) -> PerformanceCase {
        let case = &crate::record::golden::run().plan.performance[0];
        PerformanceCase { case_id: id.into(), repetitions, ..case.clone() }
    }

    /// `a0` is the first timed repetition of case a, `aw0` its first warm-up, and `?` a line that cannot be read.
    fn walked(words: &str) -> Walk<Repeated> {
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
