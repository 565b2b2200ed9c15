//! Checking a run's records against plan and seal.
//!
//! A run's `status` is only trusted if its journals confirm it. Every item and repetition of the plan must have exactly
//! one undamaged line, and there must be no other lines. The journals of an unfinished run must be a prefix of that.

use super::accuracy::{AccuracyCase, items_hash};
use super::course::{Course, in_order, walk};
use super::dir::RunDir;
use super::error::RecordError;
use super::journal::{Examined, JournalState, Line};
use super::keyed::Keyed;
use super::prompt::PromptRecord;
use super::run::{JournalSeal, RunRecord};
use super::sample::SampleRecord;
use crate::language::{Text, text};
use std::collections::{BTreeMap, HashMap, HashSet};

/// The faults in the records of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// One sentence for each deviation from plan or seal; empty for a sound record.
    pub faults: Vec<String>,
    /// A sentence about samples with a [`correct`](SampleRecord::correct) that contradicts answer and key.
    pub contradiction: Option<String>,
    /// Whether the run is sealed.
    pub seal: SealState,
}

/// Whether a run has a seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealState {
    /// The run is complete and has a hash of each journal.
    Sealed,
    /// The run is complete and has no seal: a program older than seals made it.
    NotSealed,
    /// The run is incomplete, so there is nothing to seal yet.
    Open,
}

impl Audit {
    /// Whether the records agree with plan and seal.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty() && self.contradiction.is_none()
    }

    /// Returns the first few faults in one line, or `None` if there are none.
    pub fn words(&self) -> Option<Text> {
        const SHOWN: usize = 4;
        // The contradiction goes first, because it affects scores.
        let all: Vec<&str> = self.contradiction.iter().chain(&self.faults).map(String::as_str).collect();
        let shown = all[..all.len().min(SHOWN)].join("; ");
        match all.len() {
            0 => None,
            n if n > SHOWN => Some(text!("{shown}; and {more} more", shown, more = n - SHOWN)),
            _ => Some(shown.into()),
        }
    }
}

/// Collects faults.
pub(super) struct Auditor<'a> {
    pub(super) run: &'a RunRecord,
    pub(super) finished: bool,
    /// The current state of the journals in a sealed run.
    pub(super) now: BTreeMap<String, JournalSeal>,
    pub(super) faults: Vec<String>,
}

/// Faults of one kind.
struct Tally {
    count: usize,
    /// The first of them, in words.
    first: Option<String>,
}

impl Tally {
    fn add(&mut self, words: String) {
        self.count += 1;
        self.first.get_or_insert(words);
    }
}

impl Auditor<'_> {
    pub(super) fn say(&mut self, fault: String) {
        self.faults.push(fault);
    }

    /// Formats a counted fault, in words for one and for many: `3 lines cannot be read (the first is line 7: …)`.
    fn say_of(&mut self, file: &str, Tally { count, first }: Tally, one: &str, many: &str) {
        let Some(first) = first else { return };
        let words = if count == 1 { format!("1 {one}") } else { format!("{count} {many}") };
        self.say(format!("{file}: {words} ({}{first})", if count == 1 { "" } else { "the first is " }));
    }

    /// Checks the plan against the fields that the identity has.
    pub(super) fn identity(&mut self) {
        // The identity is that of the whole plan.
        let is_part = self.run.is_part();
        let of_case = |case: &AccuracyCase| {
            let told = [
                ("items", case.items.to_string()),
                ("protocol", case.protocol.clone()),
                ("shots", case.shots.to_string()),
            ];
            let field = |(name, planned): (&str, String)| {
                if is_part && name == "items" {
                    return None;
                }
                let known = self.run.identity.get(&format!("{}.{name}", case.task))?;
                (known != planned).then(|| {
                    format!(
                        "run.json: the plan has {planned} for the {name} of {}, its identity {known}",
                        case.task
                    )
                })
            };
            told.into_iter().filter_map(field).collect::<Vec<_>>()
        };
        let faults: Vec<String> = self.run.plan.accuracy.iter().flat_map(of_case).collect();
        self.faults.extend(faults);
    }

    /// Returns the records of a journal, each key once, and reports unreadable, damaged and repeated lines.
    pub(super) fn lines<R: Keyed>(&mut self, file: &str, found: Examined<R>, planned: bool) -> Vec<R> {
        if !found.exists && planned && self.finished {
            self.say(format!("{file} is missing"));
        }
        if found.torn && self.finished {
            self.say(format!("{file}: its last line is torn"));
        }
        let [mut unreadable, mut changed, mut twice] = [const { Tally { count: 0, first: None } }; 3];
        let mut names = HashSet::with_capacity(found.lines.len());
        let mut records = Vec::with_capacity(found.lines.len());
        for line in found.lines {
            let number = line.number;
            let record = match line.record {
                Ok(record) => record,
                Err(message) => {
                    unreadable.add(format!("line {number}: {message}"));
                    continue;
                }
            };
            let key = record.key();
            if !line.is_sound {
                changed.add(format!("line {number}, {key}"));
            }
            if names.contains(&key) {
                twice.add(format!("line {number}, {key}"));
            } else {
                names.insert(key);
                records.push(record);
            }
        }
        self.say_of(file, unreadable, "line cannot be read", "lines cannot be read");
        self.say_of(file, changed, "line is not as it was written", "lines are not as they were written");
        self.say_of(file, twice, "line repeats another", "lines repeat others");
        records
    }

    /// Checks a journal of timed lines against the parts of the plan.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub(super) fn journal<C: Course>(
        &mut self,
        dir: &RunDir,
        parts: &[C],
    ) -> Result<Vec<C::Line>, RecordError> {
        let (file, found) = (C::JOURNAL, dir.examine::<C>()?);
        let order = in_order(&self.run.plan.tp_sizes(), parts);
        // A skipped part needs no lines.
        let planned = order.iter().any(|part| !part.is_whole(&C::State::default()));
        let records = self.lines(file, found, planned);
        let walked = walk(&order, &records.iter().map(Some).collect::<Vec<_>>(), self.run.is_in_turns());
        if walked.unknown > 0 {
            self.say(format!("{file}: {} of no {} of the plan", lines_are(walked.unknown), C::KIND));
        }
        for (id, count) in &walked.stray {
            let lines = lines_are(*count);
            self.say(format!("{file}: {lines} out of place in {} {id}", C::KIND));
        }
        if self.finished {
            let short: Vec<&C> = order.iter().copied().filter(|part| !walked.is_whole(*part)).collect();
            for part in short.iter().take(3) {
                self.say(format!("{file}: {} {} has {}", C::KIND, part.id(), walked.extent(*part)));
            }
            if short.len() > 3 {
                self.say(format!("{file}: {} more are not whole", short.len() - 3));
            }
        } else if let Some(id) = &walked.early {
            self.say(format!("{file}: lines are missing before those of {} {id}", C::KIND));
        }
        if let Some(fault) = C::shortcoming(self.run.plan.operators, &records) {
            self.say(format!("{file}: {fault}"));
        }
        Ok(records)
    }

    /// Checks that each task has the items of the plan.
    pub(super) fn samples(&mut self, samples: &[SampleRecord]) {
        let mut tasks: HashMap<&str, Vec<&SampleRecord>> = HashMap::new();
        for sample in samples {
            tasks.entry(&sample.task).or_default().push(sample);
        }
        let tp_sizes = self.run.plan.tp_sizes();
        let cases = &self.run.plan.accuracy;
        let order: Vec<&AccuracyCase> =
            tp_sizes.iter().flat_map(|tp| cases.iter().filter(move |case| case.tp == *tp)).collect();
        let mut whole = true;
        for case in order {
            let own = tasks.remove(case.task.as_str()).unwrap_or_default();
            let (there, planned) = (own.len() as u64, case.items);
            let names = || items_hash(own.iter().map(|s| (s.doc_id.as_str(), s.doc_hash.as_str())));
            if there > planned {
                self.say(format!(
                    "samples.jsonl: task {} has {there} items, {planned} are in the plan",
                    case.task
                ));
            } else if there < planned && self.finished {
                self.say(format!("samples.jsonl: task {} has {there} of {planned} items", case.task));
            } else if there == planned && case.items_hash.as_ref().is_some_and(|hash| *hash != names()) {
                self.say(format!("samples.jsonl: the items of task {} are not those of the plan", case.task));
            }
            if !self.finished && !whole && there > 0 {
                self.say(format!("samples.jsonl: lines are missing before those of task {}", case.task));
            }
            whole &= there >= planned;
        }
        let unknown: usize = tasks.values().map(Vec::len).sum();
        if unknown > 0 {
            self.say(format!("samples.jsonl: {} of no task of the plan", lines_are(unknown)));
        }
    }

    /// Checks that each item put to the model has its prompts, in the order of the samples. The first `promptless`
    /// samples are from a program that did not record prompts. Rescored runs are skipped, because the original run has
    /// their prompts.
    pub(super) fn prompts(
        &mut self,
        dir: &RunDir,
        samples: &[SampleRecord],
        promptless: usize,
    ) -> Result<(), RecordError> {
        const FILE: &str = "prompts.jsonl";
        if self.run.provenance.scored_from.is_some() || self.is_as_sealed(FILE) {
            return Ok(());
        }
        let kept_from = promptless.min(samples.len());
        let due: Vec<&SampleRecord> =
            samples[kept_from..].iter().filter(|sample| sample.was_asked()).collect();
        let places: HashMap<(&str, &str), usize> =
            due.iter().map(|sample| (sample.task.as_str(), sample.doc_id.as_str())).zip(0..).collect();
        let finished = self.finished;
        let mut wrong = Vec::new();
        let (mut next, mut missing, mut others, mut ahead) = (0, Vec::new(), 0, HashSet::new());
        let JournalState { exists, torn } = dir.examine_prompts(|line: Line<PromptRecord>| {
            let Ok(record) = &line.record else {
                wrong.push(line);
                return;
            };
            match places.get(&(record.task.as_str(), record.doc_id.as_str())) {
                Some(&at) if at >= next => {
                    missing.extend(next..at);
                    next = at + 1;
                    if !(line.is_sound && record.agrees_with(due[at])) {
                        wrong.push(Line { is_sound: false, ..line });
                    }
                }
                // There is no sample yet: the run was killed between the two lines of an item, or is still in progress.
                None if next == due.len()
                    && !finished
                    && line.is_sound
                    && self.run.plan.accuracy.iter().any(|case| case.task == record.task)
                    && ahead.insert((record.task.clone(), record.doc_id.clone())) => {}
                _ => others += 1,
            }
        })?;
        missing.extend(next..due.len());
        let found = Examined { lines: wrong, torn, exists };
        self.lines(FILE, found, !due.is_empty());
        if exists {
            let first = missing.first().map(|&at: &usize| due[at].doc_id.clone());
            let tally = Tally { count: missing.len(), first };
            self.say_of(FILE, tally, "item has no prompts", "items have no prompts");
        } else if !missing.is_empty() && !finished {
            self.say(format!("{FILE} is missing"));
        }
        if others > 0 {
            let lines = match others {
                1 => "1 line repeats another or is".to_owned(),
                n => format!("{n} lines repeat others or are"),
            };
            self.say(format!("{FILE}: {lines} not of the item of samples.jsonl that is next"));
        }
        Ok(())
    }

    /// Whether the file still matches the seal.
    fn is_as_sealed(&self, file: &str) -> bool {
        let sealed = self.run.seal.as_ref().and_then(|seal| seal.get(file));
        sealed.is_some() && sealed == self.now.get(file)
    }

    /// Checks that every journal matches the seal. A journal with a reported fault is not reported again.
    pub(super) fn seal(&mut self) {
        let Some(seal) = self.run.seal.as_ref().filter(|_| self.finished) else { return };
        let now = std::mem::take(&mut self.now);
        let files: BTreeMap<&String, [Option<&JournalSeal>; 2]> =
            seal.keys().chain(now.keys()).map(|file| (file, [seal.get(file), now.get(file)])).collect();
        for (file, [sealed, found]) in files {
            if sealed == found || self.faults.iter().any(|fault| fault.starts_with(file.as_str())) {
                continue;
            }
            self.say(match (sealed, found) {
                (Some(sealed), Some(found)) if sealed.lines != found.lines => {
                    format!("{file}: {} lines, it was sealed with {}", found.lines, sealed.lines)
                }
                (Some(_), Some(_)) => format!("{file}: its bytes are not those that it was sealed with"),
                (Some(_), None) => format!("{file} is missing"),
                (None, _) => format!("{file} was not there when the run was sealed"),
            });
        }
    }
}

/// Recomputes `correct` from answer and key and ignores the recorded value. Describes the samples that differed.
pub(super) fn answers(samples: &mut [SampleRecord]) -> Option<String> {
    let wrong = samples.iter_mut().filter(|sample| sample.correct != sample.is_right());
    let mut names = wrong.map(|sample| {
        sample.correct = sample.is_right();
        format!("item {} of task {}", sample.doc_id, sample.task)
    });
    let first = names.next()?;
    Some(match names.count() {
        0 => format!("samples.jsonl: `correct` of {first} is not what answer and key say; these count"),
        more => format!(
            "samples.jsonl: `correct` of {} items is not what answer and key say (the first is {first}); these count",
            more + 1
        ),
    })
}

fn lines_are(count: usize) -> String {
    if count == 1 { "1 line is".to_owned() } else { format!("{count} lines are") }
}
