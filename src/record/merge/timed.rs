//! Merges the lines of timed cases: all lines of a case are of one shard.

use super::super::course::{Course, in_order};
use super::super::journal;
use super::super::plan::{Field, ForEachKind, Plan};
use super::super::run::JournalSeal;
use super::super::shard::ShardCase;
use super::super::{RecordError, RunDir};
use super::gather::Source;
use super::{MergeError, Output};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

/// The timed lines of shards that are being merged.
pub(super) struct Merging<'a> {
    sources: &'a [Source],
    partial: bool,
    /// The lines of each case that is whole, by journal and case.
    lines: BTreeMap<(&'static str, String), Vec<u8>>,
    /// The names of the cases that are whole.
    whole: BTreeSet<String>,
}

impl<'a> Merging<'a> {
    pub(super) fn new(sources: &'a [Source], partial: bool) -> Self {
        Self { sources, partial, lines: BTreeMap::new(), whole: BTreeSet::new() }
    }

    /// Returns the cases of a shard that are in the result.
    pub(super) fn cases_of(&self, source: &Source) -> Vec<ShardCase> {
        source.part().cases.iter().filter(|case| self.whole.contains(&case.id)).cloned().collect()
    }

    /// Replaces the timed cases of the plan by those of the shards that ran them.
    pub(super) fn adopt_all(&mut self, plan: &mut Plan) -> Result<(), MergeError> {
        Plan::for_each_kind(&mut Adopting { merging: self, plan })
    }

    /// Writes the journals of the timed cases of the plan.
    pub(super) fn write_all(
        &self,
        plan: &Plan,
        dir: &RunDir,
        seal: &mut BTreeMap<String, JournalSeal>,
    ) -> Result<(), MergeError> {
        Plan::for_each_kind(&mut Writing { merging: self, plan, dir, seal })
    }

    /// Replaces cases of the whole plan by the cases in the shards, which say why a machine left them out. Reads their
    /// lines. Cases that are not whole are removed from an incomplete result.
    fn adopt<C: Course + Clone>(
        &mut self,
        cases: &mut Vec<C>,
        of: fn(&Plan) -> &Vec<C>,
    ) -> Result<(), MergeError> {
        let mut own: BTreeMap<String, C> = BTreeMap::new();
        for source in self.sources {
            let planned = of(&source.record.plan);
            let mut parts = read::<C>(source, planned)?;
            for case in planned {
                let (state, lines) = parts.remove(case.id()).unwrap_or_default();
                if case.is_whole(&state) {
                    self.lines.insert((C::JOURNAL, case.id().to_owned()), lines);
                    own.insert(case.id().to_owned(), case.clone());
                } else if source.is_complete() {
                    return Err(source.refused(&format!(
                        "{} {} has {}; the same --shard with --resume goes on",
                        C::KIND,
                        case.id(),
                        case.extent(&state)
                    )));
                }
            }
        }
        let of_plan: Vec<String> = cases.iter().map(|case| case.id().to_owned()).collect();
        if let Some(id) = of_plan.iter().find(|id| !own.contains_key(*id)).filter(|_| !self.partial) {
            return Err(MergeError::Refused(format!(
                "{} {id} is of no shard; a run.json is damaged",
                C::KIND
            )));
        }
        self.whole.extend(own.keys().cloned());
        *cases = of_plan.iter().filter_map(|id| own.remove(id)).collect();
        Ok(())
    }

    /// Writes the journal of one kind of cases, in the plan's order.
    fn write<C: Course>(
        &self,
        plan: &Plan,
        cases: &[C],
        dir: &RunDir,
        seal: &mut BTreeMap<String, JournalSeal>,
    ) -> Result<(), MergeError> {
        let all = in_order(&plan.tp_sizes(), cases);
        let lines: Vec<&Vec<u8>> =
            all.iter().filter_map(|case| self.lines.get(&(C::JOURNAL, case.id().to_owned()))).collect();
        if lines.iter().all(|lines| lines.is_empty()) && !C::IN_EVERY_RUN {
            return Ok(());
        }
        let mut output = Output::create(&dir.file(C::JOURNAL))?;
        lines.into_iter().try_for_each(|lines| output.append(lines))?;
        seal.insert(C::JOURNAL.to_owned(), output.finish()?);
        Ok(())
    }
}

/// Takes the timed cases of the shards.
struct Adopting<'a, 'b> {
    merging: &'a mut Merging<'b>,
    plan: &'a mut Plan,
}

impl ForEachKind for Adopting<'_, '_> {
    type Error = MergeError;

    fn kind<C: Course + Clone>(&mut self, field: &Field<C>) -> Result<(), MergeError> {
        self.merging.adopt((field.of_mut)(self.plan), field.of)
    }
}

/// Writes the journals of timed cases.
struct Writing<'a, 'b> {
    merging: &'a Merging<'b>,
    plan: &'a Plan,
    dir: &'a RunDir,
    seal: &'a mut BTreeMap<String, JournalSeal>,
}

impl ForEachKind for Writing<'_, '_> {
    type Error = MergeError;

    fn kind<C: Course + Clone>(&mut self, field: &Field<C>) -> Result<(), MergeError> {
        self.merging.write(self.plan, (field.of)(self.plan), self.dir, self.seal)
    }
}

/// State and lines of a case.
type Found<C> = (<C as Course>::State, Vec<u8>);

/// Reads the lines of one kind of cases of a shard, as far as they continue each other.
fn read<C: Course>(source: &Source, cases: &[C]) -> Result<BTreeMap<String, Found<C>>, MergeError> {
    source.check_seal_of(C::JOURNAL)?;
    let path = source.file(C::JOURNAL);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(e) => return Err(RecordError::io("read", &path)(e).into()),
    };
    let by_id: BTreeMap<&str, &C> = cases.iter().map(|case| (case.id(), case)).collect();
    let mut found: BTreeMap<String, Found<C>> = BTreeMap::new();
    let mut start = 0;
    for line in journal::examine::<C::Line>(&path)?.lines {
        let (from, to) = (start, line.end as usize);
        start = to;
        let Some((record, text)) = line.sound().zip(bytes.get(from..to)) else { continue };
        let Some(case) = by_id.get(C::part_of(record)) else { continue };
        let (state, lines) = found.entry(case.id().to_owned()).or_default();
        if case.follows(state, record) {
            C::take(state, record);
            lines.extend_from_slice(text);
        }
    }
    Ok(found)
}
