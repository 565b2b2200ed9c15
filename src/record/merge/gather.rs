//! Finds the runs of shards, checks that they are of one plan, and takes one run for each shard.

use super::super::course::Course;
use super::super::dir::{RunDir, seal_of};
use super::super::journal::{self, Line};
use super::super::keyed::Keyed;
use super::super::plan::{Field, ForEachKind, Plan};
use super::super::run::{RunRecord, Status};
use super::super::shard::{ShardPart, Shards, numbers};
use super::super::writer::{FoundWriter, WRITER};
use super::super::{PromptRecord, RecordError, SampleRecord};
use super::{MergeError, lacking};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// The run of a shard.
pub(super) struct Source {
    /// Its directory.
    pub(super) path: PathBuf,
    /// Its `run.json`.
    pub(super) record: RunRecord,
    /// The number of the shard.
    pub(super) index: u32,
}

impl Source {
    /// Returns the run if it is that of a shard.
    fn of(path: &Path, record: RunRecord) -> Option<Self> {
        let index = record.shards.as_ref()?.single()?.index;
        record.shards.as_ref()?.whole.as_ref()?;
        Some(Self { path: path.to_owned(), record, index })
    }

    /// Returns the shards that the run belongs to.
    pub(super) fn shards(&self) -> &Shards {
        self.record.shards.as_deref().expect("invariant: a source is the run of a shard")
    }

    /// Returns the shard.
    pub(super) fn part(&self) -> &ShardPart {
        &self.shards().parts[0]
    }

    /// Returns the whole plan.
    pub(super) fn whole(&self) -> Result<&Plan, MergeError> {
        self.shards().whole.as_ref().ok_or_else(|| self.refused("its run.json has no whole plan"))
    }

    /// Whether the run calls itself complete.
    pub(super) fn is_complete(&self) -> bool {
        self.record.status == Status::Complete && self.record.seal.is_some()
    }

    /// Returns the path of a file.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Refuses the run for a reason.
    pub(super) fn refused(&self, why: &str) -> MergeError {
        MergeError::Refused(format!(
            "shard {} of {} in {}: {why}",
            self.index,
            self.shards().count,
            self.path.display()
        ))
    }

    /// Refuses a journal of a complete run that is not as it was sealed, given its number of lines and its hash.
    pub(super) fn check_seal(&self, file: &str, found: Option<(u64, &str)>) -> Result<(), MergeError> {
        let sealed = self.record.seal.as_ref().and_then(|seal| seal.get(file));
        let sealed = sealed.map(|seal| (seal.lines, seal.sha256.as_str()));
        if !self.is_complete() || sealed == found {
            return Ok(());
        }
        let lines =
            |of: Option<(u64, &str)>| of.map_or_else(|| "no file".to_owned(), |(n, _)| format!("{n} lines"));
        Err(self.refused(&format!(
            "{file} is not as it was sealed ({} found, {} sealed); the same --shard with --resume mends it",
            lines(found),
            lines(sealed)
        )))
    }

    /// Like [`Source::check_seal`], for a journal that is read for this.
    pub(super) fn check_seal_of(&self, file: &str) -> Result<(), MergeError> {
        let found = seal_of(&self.file(file))?;
        self.check_seal(file, found.as_ref().map(|seal| (seal.lines, seal.sha256.as_str())))
    }
}

/// Returns one run for each shard that is there, by number.
pub(super) fn gather(
    paths: &[PathBuf],
    partial: bool,
    notes: &mut Vec<String>,
) -> Result<Vec<Source>, MergeError> {
    let all = read_all(paths, notes)?;
    agree(&all)?;
    let count = all[0].shards().count;
    let mut of_shard: BTreeMap<u32, Vec<Source>> = BTreeMap::new();
    for source in all {
        // A run that is complete and sealed is checked against its seal, whoever left a writer.json there.
        if !source.is_complete() {
            match FoundWriter::read(&source.path)? {
                Some(found) if !found.stale && !partial => {
                    return Err(source.refused(&format!(
                        "it is being written by {}; --partial takes what is there",
                        found.words()
                    )));
                }
                Some(found) if found.is_ahead() => {
                    notes.push(format!("{} is of {}", source.file(WRITER).display(), found.words()));
                }
                _ => {}
            }
        }
        of_shard.entry(source.index).or_default().push(source);
    }
    let missing: Vec<u32> = (1..=count).filter(|index| !of_shard.contains_key(index)).collect();
    if !missing.is_empty() && !partial {
        return Err(lacking(&missing, count, "missing"));
    }
    let mut chosen = Vec::new();
    for runs in of_shard.into_values() {
        chosen.push(one_of(runs, notes)?);
    }
    let short: Vec<u32> =
        chosen.iter().filter(|source| !source.is_complete()).map(|source| source.index).collect();
    if !short.is_empty() && !partial {
        return Err(lacking(&short, count, "incomplete"));
    }
    Ok(chosen)
}

/// Reads the runs in the paths, each once. A folder may also hold other runs, which are skipped. A damaged run of a shard
/// is not: its work would be missing without a word.
fn read_all(paths: &[PathBuf], notes: &mut Vec<String>) -> Result<Vec<Source>, MergeError> {
    let mut seen = std::collections::BTreeSet::new();
    let mut all = Vec::new();
    for path in paths {
        let is_run = path.join("run.json").is_file();
        let inside = if is_run { vec![path.clone()] } else { runs_in(path)? };
        for run in inside {
            if !seen.insert(run.canonicalize().unwrap_or_else(|_| run.clone())) {
                continue;
            }
            let dir = RunDir::open(&run)?;
            let record = match dir.read_sound_run() {
                Ok(record) => record,
                Err(error) if !is_run && !dir.names_shards() => {
                    notes.push(format!("{} is skipped: {error}", run.display()));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            match Source::of(&run, record) {
                Some(source) => all.push(source),
                None if is_run => {
                    return Err(MergeError::Refused(format!(
                        "{} is not the run of a shard; expected runs of `glmbench run --shard K/N`",
                        run.display()
                    )));
                }
                None => {}
            }
        }
    }
    if all.is_empty() {
        let places: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(MergeError::Refused(format!(
            "found no run of a shard in {}; expected runs of `glmbench run --shard K/N`",
            places.join(", ")
        )));
    }
    Ok(all)
}

/// Returns the run directories in a folder, by name. Hidden ones are unfinished merges.
pub fn runs_in(folder: &Path) -> Result<Vec<PathBuf>, RecordError> {
    let entries = fs::read_dir(folder).map_err(RecordError::io("read", folder))?;
    let mut runs: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .map(|entry| entry.path())
        .filter(|path| path.join("run.json").is_file())
        .collect();
    runs.sort();
    Ok(runs)
}

/// Checks that all runs are shards of the same plan, of the same weights, program, device and clock.
fn agree(all: &[Source]) -> Result<(), MergeError> {
    for source in all {
        if source.whole()?.hash() != source.shards().plan_hash {
            return Err(source.refused("run.json: plan_hash is not that of its whole plan"));
        }
    }
    let first = &all[0];
    for other in &all[1..] {
        let refuse = |what: String| {
            Err(MergeError::Refused(format!(
                "{} and {} are not of one run: {what}; merge the shards of one command line",
                first.path.display(),
                other.path.display()
            )))
        };
        let differences = first.record.identity.differences(&other.record.identity);
        if let Some(difference) = differences.first() {
            let of = |side: &Option<String>| side.clone().unwrap_or_else(|| "nothing".into());
            let more = if differences.len() > 1 {
                format!(" (and {} more)", differences.len() - 1)
            } else {
                String::new()
            };
            return refuse(format!(
                "their {} differ: {} and {}{more}",
                difference.field,
                of(&difference.left),
                of(&difference.right)
            ));
        }
        let (a, b) = (&first.record.provenance, &other.record.provenance);
        let hash = |of: &Source| of.record.identity.hash().to_owned();
        let facts = [
            ("identities", hash(first), hash(other)),
            ("numbers of shards", first.shards().count.to_string(), other.shards().count.to_string()),
            ("plans", first.shards().plan_hash.clone(), other.shards().plan_hash.clone()),
            ("programs", a.engine.clone(), b.engine.clone()),
            ("devices", a.device.to_string(), b.device.to_string()),
            ("clocks", a.clock.to_string(), b.clock.to_string()),
            (
                "chip profiles",
                a.clock_profile.clone().unwrap_or_default(),
                b.clock_profile.clone().unwrap_or_default(),
            ),
        ];
        if let Some((what, left, right)) = facts.into_iter().find(|(_, left, right)| left != right) {
            return refuse(format!("their {what} differ: {left} and {right}"));
        }
    }
    Ok(())
}

/// Takes one of the runs of a shard: a complete one, the first to start. The others must have no other answers.
fn one_of(mut runs: Vec<Source>, notes: &mut Vec<String>) -> Result<Source, MergeError> {
    let lines =
        |source: &Source| seal_of(&source.file("samples.jsonl")).ok().flatten().map_or(0, |seal| seal.lines);
    runs.sort_by_cached_key(|source| {
        let started = source.record.provenance.started.clone();
        (
            !source.is_complete(),
            std::cmp::Reverse(if source.is_complete() { 0 } else { lines(source) }),
            started,
        )
    });
    let others = runs.split_off(1);
    let Some(chosen) = runs.pop() else { return Err(MergeError::Refused("found no run".into())) };
    for other in others {
        compare::<SampleRecord>(&chosen, &other, "samples.jsonl", without_times)?;
        compare::<PromptRecord>(&chosen, &other, "prompts.jsonl", without_times)?;
        let mut timed = Comparing { a: &chosen, b: &other, bare: Vec::new() };
        Plan::for_each_kind(&mut timed)?;
        let bare = timed.bare;
        let mut note = format!(
            "{} has two runs without a difference; {} is taken, {} is not needed",
            numbers(&[chosen.index]),
            chosen.path.display(),
            other.path.display()
        );
        if !bare.is_empty() {
            note += &format!(
                "; the lines of {} have no output to compare, and their times were not compared",
                bare.join(" and ")
            );
        }
        notes.push(note);
    }
    Ok(chosen)
}

/// Compares the lines that two runs of a shard have in common, by what `facts` keeps of them. Returns whether it keeps
/// nothing of one of them.
fn compare<R: Keyed>(
    a: &Source,
    b: &Source,
    file: &str,
    facts: fn(&serde_json::Value) -> serde_json::Value,
) -> Result<bool, MergeError> {
    let of = |record: &R| serde_json::to_value(record).map(|value| facts(&value)).unwrap_or_default();
    let mut known: HashMap<String, serde_json::Value> = HashMap::new();
    journal::examine_each(&a.file(file), |line: Line<R>| {
        if let Some(record) = line.sound() {
            known.insert(record.key().to_string(), of(record));
        }
    })?;
    let (mut differs, mut bare) = (None, false);
    journal::examine_each(&b.file(file), |line: Line<R>| {
        let Some(record) = line.sound() else { return };
        let key = record.key().to_string();
        let Some(facts) = known.get(&key) else { return };
        bare |= facts.is_null();
        if differs.is_none() && *facts != of(record) {
            differs = Some(key);
        }
    })?;
    match differs {
        None => Ok(bare),
        Some(key) => Err(MergeError::Refused(format!(
            "{file}: {key} differs in two runs of shard {}: {} and {}; give only the one that counts",
            a.index,
            a.path.display(),
            b.path.display()
        ))),
    }
}

/// Compares the timed lines that two runs of a shard have in common. Times differ from run to run; outputs do not.
struct Comparing<'a> {
    a: &'a Source,
    b: &'a Source,
    /// The journals with lines that have no output to compare.
    bare: Vec<&'static str>,
}

impl ForEachKind for Comparing<'_> {
    type Error = MergeError;

    fn kind<C: Course + Clone>(&mut self, _: &Field<C>) -> Result<(), MergeError> {
        let output = |line: &serde_json::Value| line.get("output_hash").cloned().unwrap_or_default();
        if compare::<C::Line>(self.a, self.b, C::JOURNAL, output)? {
            self.bare.push(C::JOURNAL);
        }
        Ok(())
    }
}

/// Removes the times of an item.
fn without_times(line: &serde_json::Value) -> serde_json::Value {
    let mut line = line.clone();
    if let Some(fields) = line.as_object_mut() {
        fields.retain(|name, _| !name.ends_with("_ns"));
    }
    line
}
