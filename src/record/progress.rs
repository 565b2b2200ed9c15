//! How far a run is: read from its journals without holding their lines.

use super::cases::Plan;
use super::course::Course;
use super::dir::RunDir;
use super::error::RecordError;
use super::journal::{self, Line};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The lines of a run so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Number of items.
    pub items: u64,
    /// Names of the timed cases that are whole.
    pub cases: Vec<String>,
    /// Latest time of a line, in nanoseconds on the run's clock.
    pub until_ns: u64,
}

/// The end of an item's line.
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
            }
        })?;
        plan.add_timed_progress(self, &mut progress)?;
        Ok(progress)
    }

    /// Adds the cases of one kind.
    pub(super) fn add_progress<C: Course>(&self, cases: &[C], to: &mut Progress) -> Result<(), RecordError> {
        let by_id: BTreeMap<&str, &C> = cases.iter().map(|case| (case.id(), case)).collect();
        let mut states: BTreeMap<String, C::State> = BTreeMap::new();
        journal::examine_each(&self.file(C::JOURNAL), |line: Line<C::Line>| {
            let Some(record) = line.sound() else { return };
            let Some(case) = by_id.get(C::part_of(record)) else { return };
            C::take(states.entry(case.id().to_owned()).or_default(), record);
            to.until_ns = to.until_ns.max(super::course::Timed::end_ns(record));
        })?;
        let whole = |case: &&C| match states.get(case.id()) {
            Some(state) => case.is_whole(state),
            None => case.is_whole(&C::State::default()),
        };
        to.cases.extend(cases.iter().filter(whole).map(|case| case.id().to_owned()));
        Ok(())
    }
}
