//! The run directory: creating, opening, appending, reading.

use super::course::Course;
use super::error::RecordError;
use super::files::{create_unique, write_whole};
use super::identity::Identity;
use super::journal::{self, Examined, Journal, JournalState, Line, Lock};
use super::keyed::Keyed;
use super::plan::{Field, ForEachKind, JOURNALS, Plan};
use super::prompt::PromptRecord;
use super::run::{JournalSeal, RunRecord};
use super::sample::SampleRecord;
use super::sum::{PAGE, Sum};
use super::telemetry::{CsvLog, ServerMetricRow, TelemetryRow};
use super::time::compact_utc;
use super::wire::{WITH_SUMS, Wire, parse_numbered};
use super::writer::{Claim, FoundWriter, Holder, WRITER};
use crate::bounded;
use sha2::{Digest, Sha256};
use std::any::Any;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::{self, Debug};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Maximum size of `run.json` in bytes. Its plan has about one line per case.
const MAX_RUN_BYTES: u64 = 256 << 20;

/// Returns `<UTC yyyymmddThhmmssZ>-<suite>-<device>-<6 hex of identity>`.
///
/// Letters, digits, `.` and `_` of suite and device are kept in lower case. All other characters become `-`, so that
/// the name is a single path component on every system.
pub fn run_id(started: SystemTime, suite: &str, device: &str, identity: &Identity) -> String {
    let plain = |name: &str| -> String {
        let keep = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
        name.chars().map(|c| if keep(c) { c.to_ascii_lowercase() } else { '-' }).collect()
    };
    format!("{}-{}-{}-{}", compact_utc(started), plain(suite), plain(device), &identity.hash()[..6])
}

/// A run's directory. [`RunDir::hold`] or the first append opens the journals and locks them against a second writer.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// `samples.jsonl`, locked but not yet opened as a journal.
    held: Option<File>,
    samples: Option<Journal<SampleRecord>>,
    prompts: Option<Journal<PromptRecord>>,
    telemetry: Option<CsvLog>,
    server_metrics: Option<CsvLog>,
    /// The open journals of timed parts, by file name.
    timed: BTreeMap<&'static str, Box<dyn AnyJournal>>,
    /// Keeps a directory that several machines share. `None` if file locks do.
    holder: Option<Holder>,
    /// When the lines were last forced to disk in a shared directory.
    synced: Option<Instant>,
}

/// A `run.json`, as it was found.
pub(super) struct FoundRun {
    pub(super) record: RunRecord,
    /// Its schema.
    pub(super) schema: u32,
    /// Whether its sum is that of its bytes.
    pub(super) sum: Sum,
}

/// Opens the journals of timed cases that every run has.
struct Opening<'a>(&'a mut RunDir);

impl ForEachKind for Opening<'_> {
    type Error = RecordError;

    fn kind<C: Course + Clone>(&mut self, _: &Field<C>) -> Result<(), RecordError> {
        if C::IN_EVERY_RUN {
            self.0.journal::<C>()?;
        }
        Ok(())
    }
}

/// Longest time for which the lines of a shared directory stay in this machine's memory.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// A journal of any timed part.
trait AnyJournal: Any {
    fn sync(&self) -> Result<(), RecordError>;
}

impl<R: Keyed + 'static> AnyJournal for Journal<R> {
    fn sync(&self) -> Result<(), RecordError> {
        Self::sync(self)
    }
}

impl Debug for dyn AnyJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Journal")
    }
}

impl RunDir {
    /// Creates `root/run_id`, and `root` if it is missing. If the name is taken, tries `run_id-2`, `run_id-3`…. Two
    /// processes that ask for the same name at the same time get different directories.
    pub fn create(root: &Path, run_id: &str) -> Result<Self, RecordError> {
        Ok(Self::at(create_unique(root, run_id)?))
    }

    /// Returns the directory's name, which is the run's id.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Opens an existing run directory, for reading or to resume it. It must contain a `run.json`.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let run = path.join("run.json");
        fs::metadata(&run).map_err(RecordError::io("open the run directory of", &run))?;
        Ok(Self::at(path.to_owned()))
    }

    /// Returns the directory of a run that is being merged, which has no `run.json` yet.
    pub(super) fn for_merging(path: &Path) -> Self {
        Self::at(path.to_owned())
    }

    fn at(path: PathBuf) -> Self {
        Self {
            path,
            held: None,
            samples: None,
            prompts: None,
            telemetry: None,
            server_metrics: None,
            timed: BTreeMap::new(),
            holder: None,
            synced: None,
        }
    }

    /// Returns the directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of a file of the run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Keeps other writers out until this is dropped. Changes no existing data.
    pub fn lock(&mut self) -> Result<(), RecordError> {
        if self.held.is_none() && self.samples.is_none() {
            self.held = Some(journal::opened(&self.path.join("samples.jsonl"), self.how_locked())?);
        }
        Ok(())
    }

    /// Claims a directory that several machines share for this process on `host`, until this is dropped. From then on no file
    /// is locked, and lines are forced to disk every second. Returns a sentence about a stale writer before, or the writer
    /// that has the directory.
    pub fn claim(&mut self, host: &str) -> Result<Result<Option<String>, FoundWriter>, RecordError> {
        Ok(match Holder::claim(&self.path, host)? {
            Claim::Mine(holder, told) => {
                self.holder = Some(holder);
                Ok(told)
            }
            Claim::Busy(found) => Err(found),
        })
    }

    fn how_locked(&self) -> Lock {
        if self.holder.is_some() { Lock::Writer } else { Lock::File }
    }

    /// In a shared directory, forces new lines to disk once a second.
    fn settle(&mut self) -> Result<(), RecordError> {
        let Some(holder) = &self.holder else { return Ok(()) };
        if !holder.holds() {
            return Err(RecordError::TakenOver(self.file(WRITER)));
        }
        if self.synced.is_none_or(|at| at.elapsed() >= SYNC_EVERY) {
            self.sync()?;
            self.synced = Some(Instant::now());
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), RecordError> {
        self.samples.as_ref().map_or(Ok(()), Journal::sync)?;
        self.prompts.as_ref().map_or(Ok(()), Journal::sync)?;
        self.timed.values().try_for_each(|journal| journal.sync())
    }

    /// Takes the directory for writing. Torn last lines are cut off, and other writers are rejected until this is
    /// dropped.
    pub fn hold(&mut self) -> Result<(), RecordError> {
        self.lock()?;
        if let Some(file) = self.held.take() {
            self.samples = Some(Journal::of(file, &self.path.join("samples.jsonl"))?);
        }
        let lock = self.how_locked();
        opened(&mut self.prompts, &self.path.join("prompts.jsonl"), lock)?;
        Plan::for_each_kind(&mut Opening(self))
    }

    /// Returns the journal of the parts of one kind. Opens it first if needed.
    fn journal<C: Course>(&mut self) -> Result<&mut Journal<C::Line>, RecordError> {
        let lock = self.how_locked();
        let journal: &mut dyn Any = match self.timed.entry(C::JOURNAL) {
            Entry::Occupied(open) => &mut **open.into_mut(),
            Entry::Vacant(place) => {
                &mut **place.insert(Box::new(Journal::<C::Line>::open(&self.path.join(C::JOURNAL), lock)?))
            }
        };
        Ok(journal.downcast_mut().expect("invariant: one kind of line in each journal"))
    }

    /// Appends a line to the journal of its kind. Rejects one that is already there.
    pub(crate) fn append<C: Course>(&mut self, line: &C::Line) -> Result<(), RecordError> {
        self.journal::<C>()?.append(line)?;
        self.settle()
    }

    /// Reads all whole lines of the parts of one kind, in order; none if the file does not exist.
    pub(crate) fn read<C: Course>(&self) -> Result<Vec<C::Line>, RecordError> {
        journal::read(&self.file(C::JOURNAL))
    }

    /// Reads all lines of the parts of one kind, with the faults of each.
    pub(super) fn examine<C: Course>(&self) -> Result<Examined<C::Line>, RecordError> {
        journal::examine(&self.file(C::JOURNAL))
    }

    /// Appends a line to `samples.jsonl`. Rejects an item that is already there.
    pub fn append_sample(&mut self, record: &SampleRecord) -> Result<(), RecordError> {
        let lock = self.how_locked();
        opened(&mut self.samples, &self.path.join("samples.jsonl"), lock)?.append(record)?;
        self.settle()
    }

    /// Appends a line to `prompts.jsonl`, unless the item has one. A run that was killed between an item's two lines
    /// produces the same prompts again.
    pub fn append_prompts(&mut self, record: &PromptRecord) -> Result<(), RecordError> {
        let lock = self.how_locked();
        let journal = opened(&mut self.prompts, &self.path.join("prompts.jsonl"), lock)?;
        if journal.has(record) { Ok(()) } else { journal.append(record) }
    }

    /// Reads all whole lines of `samples.jsonl`, in order; none if the file does not exist.
    pub fn read_samples(&self) -> Result<Vec<SampleRecord>, RecordError> {
        journal::read(&self.file("samples.jsonl"))
    }

    /// Reads the whole lines of `prompts.jsonl` that `wanted` selects, in order; none if the file does not exist, as in
    /// runs of schema 1. Other lines are skipped one by one.
    pub fn read_prompts(
        &self,
        wanted: impl FnMut(&PromptRecord) -> bool,
    ) -> Result<Vec<PromptRecord>, RecordError> {
        journal::read_some(&self.file("prompts.jsonl"), wanted)
    }

    /// Reads all lines of `samples.jsonl`, with the faults of each.
    pub fn examine_samples(&self) -> Result<Examined<SampleRecord>, RecordError> {
        journal::examine(&self.file("samples.jsonl"))
    }

    /// Passes the lines of `prompts.jsonl` to `each` one by one, with their faults. Returns whether the file exists,
    /// and whether its last line is torn.
    pub fn examine_prompts(&self, each: impl FnMut(Line<PromptRecord>)) -> Result<JournalState, RecordError> {
        journal::examine_each(&self.file("prompts.jsonl"), each)
    }

    /// Returns the current state of every journal, which is the seal in `run.json`.
    pub fn seal(&self) -> Result<BTreeMap<String, JournalSeal>, RecordError> {
        let of = |name: &&str| seal_of(&self.file(name)).map(|seal| Some(((*name).to_owned(), seal?)));
        JOURNALS.iter().map(of).filter_map(Result::transpose).collect()
    }

    /// Replaces `run.json`. Syncs the journals to disk first, so that a record that says `complete` never outlives the
    /// lines it counts.
    pub fn write_run(&self, record: &RunRecord) -> Result<(), RecordError> {
        if self.holder.as_ref().is_some_and(|holder| !holder.is_own()) {
            return Err(RecordError::TakenOver(self.file(WRITER)));
        }
        self.sync()?;
        let path = self.file("run.json");
        let json = serde_json::to_vec_pretty(&Wire::new(record))
            .map_err(|e| RecordError::io("encode", &path)(e.into()))?;
        write_whole(&path, &PAGE.close(json))
    }

    /// Reads `run.json` and checks the hash of the identity. [`Contents`](super::Contents) checks the rest.
    pub fn read_run(&self) -> Result<RunRecord, RecordError> {
        self.read_run_with_sum().map(|found| found.record)
    }

    /// Like [`RunDir::read_run`], and refuses a file that was changed after it was written.
    pub(crate) fn read_sound_run(&self) -> Result<RunRecord, RecordError> {
        let FoundRun { record, sum, .. } = self.read_run_with_sum()?;
        if sum == Sum::Wrong {
            let message = "its sum is not that of its bytes".to_owned();
            return Err(RecordError::Malformed { path: self.file("run.json"), line: 1, message });
        }
        Ok(record)
    }

    /// Whether a `run.json` that cannot be used is that of a shard. It speaks of shards, or was cut before it could and its
    /// directory is named as for a shard: `…-3of16`.
    pub(crate) fn names_shards(&self) -> bool {
        let text = bounded::regular(&self.file("run.json"), MAX_RUN_BYTES).unwrap_or_default();
        let key = b"\"shards\":";
        text.windows(key.len()).any(|part| part == key) || is_shard_name(&self.name())
    }

    /// Like [`RunDir::read_run`], with the schema and the result of the checksum.
    pub(super) fn read_run_with_sum(&self) -> Result<FoundRun, RecordError> {
        let path = self.file("run.json");
        let bytes = bounded::file(&path, MAX_RUN_BYTES).map_err(RecordError::io("read", &path))?;
        let malformed = |message| RecordError::Malformed { path: path.clone(), line: 1, message };
        let (schema, mut record): (u32, RunRecord) = parse_numbered(&bytes).map_err(malformed)?;
        record.complete();
        if !record.identity.is_consistent() {
            return Err(malformed("the identity's hash does not belong to its fields".to_owned()));
        }
        if let Some(shards) = &record.shards {
            shards.check().map_err(malformed)?;
        }
        let sum = match PAGE.check(&bytes) {
            Sum::Absent if schema >= WITH_SUMS => Sum::Wrong,
            sum => sum,
        };
        Ok(FoundRun { record, schema, sum })
    }

    /// Appends a row to `telemetry.csv`.
    pub fn append_telemetry(&mut self, row: &TelemetryRow) -> Result<(), RecordError> {
        let path = self.path.join("telemetry.csv");
        match &mut self.telemetry {
            Some(log) => log.append(row),
            None => self.telemetry.insert(CsvLog::open(&path, TelemetryRow::HEADER)?).append(row),
        }
    }

    /// Appends a row to `server_metrics.csv`. The seal does not cover this file: it is no measurement of this program.
    pub fn append_server_metric(&mut self, row: &ServerMetricRow) -> Result<(), RecordError> {
        let path = self.path.join("server_metrics.csv");
        match &mut self.server_metrics {
            Some(log) => log.append(row),
            None => self.server_metrics.insert(CsvLog::open(&path, ServerMetricRow::HEADER)?).append(row),
        }
    }
}

/// Whether a run directory is named as for a shard: `…-3of16`, or `…-3of16-2` where that name was taken.
fn is_shard_name(name: &str) -> bool {
    let is_shard = |part: &str| {
        let numbers =
            part.split_once("of").and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        numbers.is_some_and(|(index, count): (u32, u32)| (1..=count).contains(&index))
    };
    name.rsplit('-').take(2).any(is_shard)
}

/// Returns a file's line count and hash, or `None` if it does not exist.
pub(super) fn seal_of(path: &Path) -> Result<Option<JournalSeal>, RecordError> {
    let mut file = match bounded::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(RecordError::io("read", path)(e)),
    };
    let (mut digest, mut lines, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 18]);
    loop {
        let length = file.read(&mut buffer).map_err(RecordError::io("read", path))?;
        if length == 0 {
            return Ok(Some(JournalSeal { lines, sha256: super::identity::hex(&digest.finalize()) }));
        }
        digest.update(&buffer[..length]);
        lines += buffer[..length].split(|&byte| byte == b'\n').count() as u64 - 1;
    }
}

fn opened<'a, R: Keyed>(
    slot: &'a mut Option<Journal<R>>,
    path: &Path,
    lock: Lock,
) -> Result<&'a mut Journal<R>, RecordError> {
    match slot {
        Some(journal) => Ok(journal),
        None => Ok(slot.insert(Journal::open(path, lock)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::golden::{identity, request, run, sample};
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn the_name_of_a_shards_directory_is_known() {
        for (name, expected) in [
            ("20260101T000000Z-s-cpu-abcdef-3of16", true),
            ("20260101T000000Z-s-cpu-abcdef-3of16-2", true),
            ("20260101T000000Z-3of16-cpu-abcdef", false),
            ("20260101T000000Z-s-cpu-abcdef-17of16", false),
            ("20260101T000000Z-s-cpu-abcdef-0of16", false),
            ("20260101T000000Z-s-cpu-abcdef", false),
            ("", false),
        ] {
            assert_eq!(is_shard_name(name), expected, "{name}");
        }
    }

    #[test]
    fn a_run_id_is_one_plain_path_part() {
        let started = UNIX_EPOCH + Duration::from_secs(951_782_399);
        let identity = identity();
        let id = run_id(started, "Quick/start 中", "300i-duo", &identity);
        assert_eq!(id, format!("20000228T235959Z-quick-start---300i-duo-{}", &identity.hash()[..6]));
    }

    #[test]
    fn a_directory_is_made_once_and_read_back() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("not/yet/there");
        let mut dir = RunDir::create(&root, "r").unwrap();
        assert_eq!(RunDir::create(&root, "r").unwrap().name(), "r-2");
        assert_eq!(RunDir::create(&root, "r").unwrap().name(), "r-3");
        assert_eq!(dir.read_samples().unwrap(), []);
        dir.append_sample(&sample()).unwrap();
        dir.append_request(&request()).unwrap();
        dir.write_run(&run()).unwrap();
        let mut again = RunDir::open(dir.path()).unwrap();
        assert_eq!(again.read_run().unwrap(), run());
        assert_eq!(again.read_samples().unwrap(), [sample()]);
        assert_eq!(again.read_requests().unwrap(), [request()]);
        assert!(matches!(again.append_sample(&sample()), Err(RecordError::Locked(_))));
        assert!(!dir.file("run.json.tmp").exists());
    }

    #[test]
    fn an_edited_identity_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let dir = RunDir::create(root.path(), "r").unwrap();
        dir.write_run(&run()).unwrap();
        let json = fs::read_to_string(dir.file("run.json")).unwrap();
        fs::write(dir.file("run.json"), json.replace("\"dtype\": \"fp16\"", "\"dtype\": \"fp32\"")).unwrap();
        let message = dir.read_run().unwrap_err().to_string();
        assert!(message.contains("run.json:1: ") && message.contains("identity"), "{message}");
    }

    #[test]
    fn places_that_cannot_be_written_are_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let message = RunDir::create(&file.path().join("runs"), "r").unwrap_err().to_string();
        assert!(message.starts_with("cannot create ") && message.contains("runs"), "{message}");
        let message = RunDir::open(Path::new("nowhere")).unwrap_err().to_string();
        assert!(message.contains("nowhere/run.json"), "{message}");
        let message = write_whole(Path::new("nowhere/x.csv"), b"").unwrap_err().to_string();
        assert!(message.starts_with("cannot write nowhere/x.csv: "), "{message}");
    }
}
