//! How far a run is: read from its journals without holding their lines.

use super::course::Course;
use super::dir::RunDir;
use super::error::RecordError;
use super::journal::{self, Line};
use super::plan::{Field, ForEachKind, Plan};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// The lines of a run so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Number of items.
    pub items: u64,
    /// Names of the timed cases that are whole.
    pub cases: Vec<String>,
    /// Names of those of them that have lines: cases that do not fit are whole without.
    pub timed: Vec<String>,
    /// Latest time of a line, in nanoseconds on the run's clock.
    pub until_ns: u64,
    /// Time that the items took: from the end of the preceding line to the end of each line, whatever journal the
    /// preceding line is in.
    pub items_ns: u64,
    /// Time that the whole timed cases took.
    pub cases_ns: u64,
    /// The end of each line. Gone when the progress is returned.
    ends: Vec<LineEnd>,
    names: Vec<String>,
}

/// When a line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct LineEnd {
    /// In nanoseconds on the run's clock.
    end_ns: u64,
    /// The place of its case in `names`; `None` for an item.
    case: Option<usize>,
}

impl Progress {
    /// Deals the time out to items and cases.
    fn deal_time(&mut self) {
        self.ends.sort_unstable();
        let whole: BTreeSet<&str> = self.timed.iter().map(String::as_str).collect();
        let mut before = 0;
        for LineEnd { end_ns, case } in std::mem::take(&mut self.ends) {
            let took = end_ns - before;
            before = end_ns;
            match case.map(|at| self.names[at].as_str()) {
                None => self.items_ns += took,
                Some(name) if whole.contains(name) => self.cases_ns += took,
                Some(_) => {}
            }
        }
        self.names = Vec::new();
    }
}

/// Adds how far the timed cases are.
struct Adding<'a> {
    dir: &'a RunDir,
    plan: &'a Plan,
    to: &'a mut Progress,
}

impl ForEachKind for Adding<'_> {
    type Error = RecordError;

    fn kind<C: Course + Clone>(&mut self, field: &Field<C>) -> Result<(), RecordError> {
        self.dir.add_progress((field.of)(self.plan), self.to)
    }
}

/// The end of the line of an item.
#[derive(Deserialize)]
struct End {
    t_end_ns: u64,
}

impl RunDir {
    /// Returns how far the run is. Damaged lines do not count.
    ///
    /// # Errors
    /// A journal cannot be read.
    pub fn progress(&self, plan: &Plan) -> Result<Progress, RecordError> {
        let mut progress = Progress::default();
        journal::each_text(&self.file("samples.jsonl"), |text| {
            if let Ok(end) = serde_json::from_slice::<End>(text) {
                progress.items += 1;
                progress.until_ns = progress.until_ns.max(end.t_end_ns);
                progress.ends.push(LineEnd { end_ns: end.t_end_ns, case: None });
            }
        })?;
        Plan::for_each_kind(&mut Adding { dir: self, plan, to: &mut progress })?;
        progress.deal_time();
        Ok(progress)
    }

    /// Adds the cases of one kind.
    fn add_progress<C: Course>(&self, cases: &[C], to: &mut Progress) -> Result<(), RecordError> {
        let first = to.names.len();
        to.names.extend(cases.iter().map(|case| case.id().to_owned()));
        let by_id: BTreeMap<&str, (usize, &C)> =
            cases.iter().enumerate().map(|(place, case)| (case.id(), (first + place, case))).collect();
        let mut states: BTreeMap<String, C::State> = BTreeMap::new();
        journal::examine_each(&self.file(C::JOURNAL), |line: Line<C::Line>| {
            let Some(record) = line.sound() else { return };
            let Some((place, case)) = by_id.get(C::part_of(record)) else { return };
            C::take(states.entry(case.id().to_owned()).or_default(), record);
            let end = super::course::Timed::end_ns(record);
            to.until_ns = to.until_ns.max(end);
            to.ends.push(LineEnd { end_ns: end, case: Some(*place) });
        })?;
        let whole = |case: &&C| match states.get(case.id()) {
            Some(state) => case.is_whole(state),
            None => case.is_whole(&C::State::default()),
        };
        let whole: Vec<&C> = cases.iter().filter(whole).collect();
        to.timed.extend(
            whole.iter().filter(|case| states.contains_key(case.id())).map(|case| case.id().to_owned()),
        );
        to.cases.extend(whole.iter().map(|case| case.id().to_owned()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_dealt_out_to_items_and_whole_cases() {
        let mut progress = Progress {
            timed: vec!["done".into()],
            names: vec!["done".into(), "begun".into()],
            // Not in the order of time: the journals are read one after the other.
            ends: [(10, None), (30, None), (100, Some(0)), (120, Some(1)), (35, Some(0))]
                .map(|(end_ns, case)| LineEnd { end_ns, case })
                .to_vec(),
            ..Progress::default()
        };
        progress.deal_time();
        assert_eq!((progress.items_ns, progress.cases_ns), (30, 70));
    }
}
