//! Repairing a run's journals so that the run can be resumed: afterwards each is a prefix of its plan.
//!
//! A journal is only ever cut, at the first line that deviates from the plan. Good lines behind the cut are kept in a
//! file beside it. The resumed run puts them in their places, so no good measurement is repeated. If other lines are
//! cut off, the original journal is copied to a `.set-aside` file.

use super::course::{Course, Timed, in_order, walk};
use super::dir::{FoundRun, RunDir};
use super::error::RecordError;
use super::files::write_whole;
use super::journal::{self, Examined, Line};
use super::keyed::Keyed;
use super::plan::{Field, ForEachKind, JOURNALS, Plan};
use super::prompt::PromptRecord;
use super::run::{RunRecord, Status};
use super::sample::{SampleKey, SampleRecord, SampleState};
use super::sum::Sum;
use super::wire::WITH_SUMS;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, OpenOptions};
use std::path::PathBuf;

/// An item of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedItem<'a> {
    /// The item's task.
    pub task: &'a str,
    /// The item's name within the task.
    pub doc_id: &'a str,
    /// Content hash of the item.
    pub doc_hash: &'a str,
}

/// The target state of a repair.
#[derive(Debug, Clone, Copy)]
pub struct Mending<'a> {
    /// The run as found on disk.
    pub found: &'a RunRecord,
    /// The plan to resume with.
    pub plan: &'a Plan,
    /// The items of the precision cases, in run order.
    pub items: &'a [PlannedItem<'a>],
    /// Whether failed lines are run again.
    pub retry_failed: bool,
}

impl SampleRecord {
    fn has_failed(&self) -> bool {
        self.state == SampleState::Failed
    }

    fn is_of(&self, item: &PlannedItem<'_>) -> bool {
        (self.task.as_str(), self.doc_id.as_str(), self.doc_hash.as_str())
            == (item.task, item.doc_id, item.doc_hash)
    }
}

/// The journal entries of an item.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemLines {
    /// The line of `samples.jsonl`.
    pub sample: SampleRecord,
    /// The line of `prompts.jsonl`; `None` for an item that the model was never asked.
    pub prompts: Option<PromptRecord>,
}

impl RunDir {
    /// Repairs every journal and returns one sentence for each change. The directory must be [locked](Self::lock).
    ///
    /// # Errors
    /// Fails if a file cannot be read or written. A kill at any moment leaves files that can be repaired again.
    pub fn mend(&self, mending: &Mending<'_>) -> Result<Vec<String>, RecordError> {
        let sealed = self.changed_since_seal(mending.found)?;
        let mut said = self.record_faults(mending.found)?;
        said.extend(self.mend_samples(mending, &sealed)?);
        let mut cases = MendCases { dir: self, mending, sealed: &sealed, said: Vec::new() };
        Plan::for_each_kind(&mut cases)?;
        said.extend(cases.said);
        if sealed.contains("telemetry.csv") {
            let aside = self.set_aside("telemetry.csv")?;
            self.remove("telemetry.csv")?;
            said.push(format!("telemetry.csv was not as it was sealed; it is set aside as {aside}"));
        }
        Ok(said)
    }

    /// Returns the kept lines of items: good lines of a repaired run, which wait for their places.
    pub fn kept_samples(&self) -> Result<Vec<ItemLines>, RecordError> {
        let mut prompts: HashMap<SampleKey, PromptRecord> =
            self.kept::<PromptRecord>("prompts.jsonl")?.into_iter().map(|p| (p.key(), p)).collect();
        let with_prompts = |sample: SampleRecord| {
            let prompts = prompts.remove(&sample.key());
            ItemLines { sample, prompts }
        };
        Ok(self.kept::<SampleRecord>("samples.jsonl")?.into_iter().map(with_prompts).collect())
    }

    /// Appends the kept lines of a timed part that the journal does not have yet.
    pub(crate) fn restore<C: Course>(&mut self, id: &str) -> Result<(), RecordError> {
        let kept = self.kept::<C::Line>(C::JOURNAL)?;
        if kept.is_empty() {
            return Ok(());
        }
        let there: BTreeSet<String> = self.read::<C>()?.iter().map(|line| line.key().to_string()).collect();
        let missing = |line: &&C::Line| C::part_of(line) == id && !there.contains(&line.key().to_string());
        kept.iter().filter(missing).try_for_each(|line| self.append::<C>(line))
    }

    /// Returns the latest time in the journals, also of kept lines, on the run's clock; 0 in a new run.
    pub fn recorded_until_ns(&self) -> Result<u64, RecordError> {
        let mut latest = Latest { dir: self, ns: self.sampled_until_ns()? };
        Plan::for_each_kind(&mut latest)?;
        Ok(latest.ns)
    }

    /// Returns the latest time of a sample, also of a kept one, on the run's clock; 0 if there is none.
    fn sampled_until_ns(&self) -> Result<u64, RecordError> {
        let kept = self.kept::<SampleRecord>("samples.jsonl")?;
        Ok(self.read_samples()?.iter().chain(&kept).map(|line| line.t_end_ns).max().unwrap_or(0))
    }

    /// Returns the latest time of a line of this kind, also of a kept one, on the run's clock; 0 if there is none.
    fn timed_until_ns<C: Course>(&self) -> Result<u64, RecordError> {
        let kept = self.kept::<C::Line>(C::JOURNAL)?;
        Ok(self.read::<C>()?.iter().chain(&kept).map(Timed::end_ns).max().unwrap_or(0))
    }

    /// Removes the kept lines: the run is complete, and all good lines are in their places.
    pub fn forget_kept(&self) -> Result<(), RecordError> {
        let lines = JOURNALS.iter().filter(|file| kept_name(file) != **file);
        lines.map(|file| kept_name(file)).try_for_each(|file| self.remove(&file))
    }

    fn kept<R: Keyed>(&self, file: &str) -> Result<Vec<R>, RecordError> {
        let found: Examined<R> = journal::examine(&self.file(&kept_name(file)))?;
        Ok(found.lines.into_iter().filter(|line| line.is_sound).filter_map(|line| line.record.ok()).collect())
    }

    /// Replaces the kept lines of a journal. Without lines, removes the file.
    fn keep<R: Keyed>(&self, file: &str, lines: &[&R]) -> Result<(), RecordError> {
        let path = self.file(&kept_name(file));
        if lines.is_empty() {
            return self.remove(&kept_name(file));
        }
        let mut bytes = Vec::new();
        for line in lines {
            bytes.extend(journal::line(line).map_err(RecordError::io("encode a line for", &path))?);
        }
        write_whole(&path, &bytes)
    }

    fn remove(&self, file: &str) -> Result<(), RecordError> {
        let path = self.file(file);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(RecordError::io("remove", &path)(e)),
            _ => Ok(()),
        }
    }

    /// Describes the faults of `run.json`, which is rewritten.
    fn record_faults(&self, found: &RunRecord) -> Result<Vec<String>, RecordError> {
        let FoundRun { schema, sum, .. } = self.read_run_with_sum()?;
        let mut said = Vec::new();
        if sum == Sum::Wrong {
            let started = &found.provenance.started;
            said.push(format!(
                "run.json is not as it was written and is written anew; name, start ({started}) and number of resumes are kept"
            ));
        }
        if found.status == Status::Complete && found.seal.is_none() && schema >= WITH_SUMS {
            said.push(
                "run.json had no seal, so nothing tells whether lines were changed with their sums"
                    .to_owned(),
            );
        }
        Ok(said)
    }

    /// Returns the journals of a complete run that have changed since the run was sealed.
    fn changed_since_seal(&self, found: &RunRecord) -> Result<BTreeSet<String>, RecordError> {
        let Some(sealed) = found.seal.as_ref().filter(|_| found.status == Status::Complete) else {
            return Ok(BTreeSet::new());
        };
        let now = self.seal()?;
        Ok(now
            .into_iter()
            .filter(|(file, seal)| sealed.get(file) != Some(seal))
            .map(|(file, _)| file)
            .collect())
    }

    /// Copies a journal to an unused name and returns that name.
    fn set_aside(&self, file: &str) -> Result<String, RecordError> {
        let (mut free, mut number) = (format!("{file}.set-aside"), 1_u64);
        while self.file(&free).exists() {
            number += 1;
            free = format!("{file}.set-aside-{number}");
        }
        let path = self.file(&free);
        fs::copy(self.file(file), &path).map_err(RecordError::io("write", &path))?;
        Ok(free)
    }

    /// Truncates a journal to `end` bytes.
    fn cut(&self, file: &str, end: u64) -> Result<(), RecordError> {
        let path: PathBuf = self.file(file);
        let cut = || OpenOptions::new().write(true).open(&path)?.set_len(end);
        match cut() {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            done => done.map_err(RecordError::io("cut", &path)),
        }
    }

    /// Repairs samples and prompts together, because their lines belong together.
    fn mend_samples(
        &self,
        mending: &Mending<'_>,
        sealed: &BTreeSet<String>,
    ) -> Result<Vec<String>, RecordError> {
        let samples = self.examine_samples()?;
        let mut prompts = Vec::new();
        self.examine_prompts(|line| prompts.push(line))?;
        let good = |line: &Line<SampleRecord>| {
            let sample = line.sound()?;
            let is_good =
                sample.correct == sample.is_right() && !(mending.retry_failed && sample.has_failed());
            is_good.then(|| sample.clone())
        };
        // Samples of schema 1 have no prompts.
        let needs = |line: &Line<SampleRecord>, sample: &SampleRecord| line.schema > 1 && sample.was_asked();
        let mut at = Front::default();
        for (line, item) in samples.lines.iter().zip(mending.items) {
            let Some(sample) = good(line).filter(|sample| sample.is_of(item)) else { break };
            if needs(line, &sample) {
                let Some(own) = prompts.get(at.prompts) else { break };
                if !own.sound().is_some_and(|prompts| prompts.is_of(&sample) && prompts.agrees_with(&sample))
                {
                    break;
                }
                (at.prompts, at.prompt_bytes) = (at.prompts + 1, own.end);
            }
            (at.samples, at.sample_bytes) = (at.samples + 1, line.end);
        }
        let whole = at.samples == samples.lines.len() && !samples.torn;
        let suspect = ["samples.jsonl", "prompts.jsonl"].iter().any(|file| sealed.contains(*file));
        let forged = suspect && whole && at.prompts == prompts.len() && at.samples == mending.items.len();
        if forged {
            at = Front::default();
        }
        // A kill between an item's two lines leaves prompts without a sample.
        let ahead = prompts.len() == at.prompts + 1
            && prompts[at.prompts].sound().is_some_and(|p| {
                mending
                    .items
                    .get(at.samples)
                    .is_some_and(|i| (p.task.as_str(), p.doc_id.as_str()) == (i.task, i.doc_id))
            });
        let complete = mending.found.status == Status::Complete;
        if whole && (at.prompts == prompts.len() || ahead) && !forged {
            let short = complete && at.samples < mending.items.len();
            let cut = Cut { front: at.samples, ..Cut::default() };
            return Ok(short.then(|| cut.told(SAMPLES)).into_iter().collect());
        }
        let mut pool: HashMap<SampleKey, SampleRecord> = HashMap::new();
        let mut prompts_of: HashMap<SampleKey, PromptRecord> = HashMap::new();
        if !forged {
            let behind = samples.lines[at.samples..].iter().filter_map(good);
            let before = self.kept::<SampleRecord>("samples.jsonl")?;
            for sample in behind.chain(before) {
                pool.entry(sample.key()).or_insert(sample);
            }
            let all = prompts.iter().filter_map(Line::sound).cloned();
            for record in all.chain(self.kept::<PromptRecord>("prompts.jsonl")?) {
                prompts_of.entry(record.key()).or_insert(record);
            }
        }
        let mut kept: Vec<(&SampleRecord, Option<&PromptRecord>)> = Vec::new();
        for item in &mending.items[at.samples.min(mending.items.len())..] {
            let key = SampleKey { task: item.task.to_owned(), doc_id: item.doc_id.to_owned() };
            let Some(sample) = pool.get(&key).filter(|sample| sample.is_of(item)) else { continue };
            let own = prompts_of.get(&key).filter(|prompts| prompts.agrees_with(sample));
            if own.is_some() || !sample.was_asked() {
                kept.push((sample, own));
            }
        }
        let lost = (samples.lines.len() - at.samples).saturating_sub(kept.len());
        let aside = if lost > 0 { Some(self.set_aside("samples.jsonl")?) } else { None };
        if lost > 0 && !prompts.is_empty() {
            self.set_aside("prompts.jsonl")?;
        }
        // In an unfinished run, a torn line is the normal result of a kill.
        let is_told =
            complete || !kept.is_empty() || lost > 0 || prompts.len() > at.prompts + usize::from(ahead);
        let cut = Cut { front: at.samples, kept: kept.len(), lost, aside };
        self.keep("prompts.jsonl", &kept.iter().filter_map(|(_, prompts)| *prompts).collect::<Vec<_>>())?;
        self.keep("samples.jsonl", &kept.iter().map(|(sample, _)| *sample).collect::<Vec<_>>())?;
        self.cut("prompts.jsonl", at.prompt_bytes)?;
        self.cut("samples.jsonl", at.sample_bytes)?;
        Ok(is_told.then(|| cut.told(SAMPLES)).into_iter().collect())
    }

    /// Repairs the journal of the timed `parts` of the plan, all of one kind.
    fn mend_timed<C: Course>(
        &self,
        parts: &[C],
        mending: &Mending<'_>,
        sealed: &BTreeSet<String>,
    ) -> Result<Option<String>, RecordError> {
        let (file, found, order) =
            (C::JOURNAL, self.examine::<C>()?, in_order(&mending.plan.tp_sizes(), parts));
        let good = |line: &&C::Line| !(mending.retry_failed && line.has_failed());
        let lines: Vec<Option<&C::Line>> = found.lines.iter().map(|line| line.sound().filter(good)).collect();
        let mut walked = walk(&order, &lines, mending.found.is_in_turns());
        let whole = walked.prefix == lines.len() && !found.torn;
        let all = order.iter().all(|part| walked.is_whole(*part));
        let forged = whole && sealed.contains(file) && all;
        let complete = mending.found.status == Status::Complete;
        if whole && !forged {
            let cut = Cut { front: walked.prefix, ..Cut::default() };
            return Ok((complete && !all).then(|| cut.told(file)));
        }
        let before: Vec<C::Line> = if forged { Vec::new() } else { self.kept::<C::Line>(file)? };
        if forged {
            (walked.prefix, walked.parts) = (0, BTreeMap::new());
        }
        let mut kept: Vec<&C::Line> = Vec::new();
        // If two configurations are timed alternately, both sides of a block belong together, so nothing is kept.
        for part in order.iter().filter(|_| !walked.in_turns) {
            let mut own = walked.parts.remove(part.id()).unwrap_or_default();
            kept.extend(own.lines.iter().filter(|&&at| at >= walked.prefix).filter_map(|&at| lines[at]));
            for line in before.iter().filter(|line| C::part_of(line) == part.id()) {
                if part.follows(&own.state, line) {
                    C::take(&mut own.state, line);
                    kept.push(line);
                }
            }
        }
        let lost = (found.lines.len() - walked.prefix).saturating_sub(kept.len());
        let aside = if lost > 0 { Some(self.set_aside(file)?) } else { None };
        self.keep(file, &kept)?;
        let end = walked.prefix.checked_sub(1).map_or(0, |last| found.lines[last].end);
        self.cut(file, end)?;
        let cut = Cut { front: walked.prefix, kept: kept.len(), lost, aside };
        // In an unfinished run, a torn line is the normal result of a kill.
        Ok((complete || cut.kept + cut.lost > 0).then(|| cut.told(file)))
    }
}

/// Repairs the journals of timed cases.
struct MendCases<'a> {
    dir: &'a RunDir,
    mending: &'a Mending<'a>,
    sealed: &'a BTreeSet<String>,
    /// A sentence for each change.
    said: Vec<String>,
}

impl ForEachKind for MendCases<'_> {
    type Error = RecordError;

    fn kind<C: Course + Clone>(&mut self, field: &Field<C>) -> Result<(), RecordError> {
        let parts = (field.of)(self.mending.plan);
        self.said.extend(self.dir.mend_timed(parts, self.mending, self.sealed)?);
        Ok(())
    }
}

/// Finds the latest time in the journals.
struct Latest<'a> {
    dir: &'a RunDir,
    ns: u64,
}

impl ForEachKind for Latest<'_> {
    type Error = RecordError;

    fn kind<C: Course + Clone>(&mut self, _: &Field<C>) -> Result<(), RecordError> {
        self.ns = self.ns.max(self.dir.timed_until_ns::<C>()?);
        Ok(())
    }
}

/// The journals of items and prompts, as named in messages.
const SAMPLES: &str = "samples.jsonl (with prompts.jsonl)";

/// How far the journals of samples and prompts follow the plan.
#[derive(Default)]
struct Front {
    samples: usize,
    sample_bytes: u64,
    prompts: usize,
    prompt_bytes: u64,
}

/// Returns the name of the file of kept lines: `samples.kept.jsonl`.
fn kept_name(file: &str) -> String {
    file.replace(".jsonl", ".kept.jsonl")
}

/// What was done to a journal.
#[derive(Default)]
struct Cut {
    /// Lines before the cut.
    front: usize,
    /// Lines behind the cut that are kept.
    kept: usize,
    /// Lines behind the cut that are not kept.
    lost: usize,
    /// Name of the copy of the original journal.
    aside: Option<String>,
}

impl Cut {
    fn told(&self, file: &str) -> String {
        let mut words = format!("{file}: {} lines stand", self.front);
        if self.kept > 0 {
            words += &format!(", {} more are kept for their places", self.kept);
        }
        if self.lost > 0 {
            words += &format!(", {} are cut off", self.lost);
        }
        if let Some(aside) = &self.aside {
            words += &format!(" and set aside in {aside}");
        }
        words + "; what is missing, if anything, is done again"
    }
}
