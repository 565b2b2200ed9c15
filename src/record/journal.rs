//! Append-only files of whole lines: one JSON record per line, each written as soon as it is known.
//!
//! For any byte prefix of a journal, reading returns the records of all its whole lines, and appending continues after
//! the last of them. A kill at any moment therefore costs at most the line being written.
//!
//! A line ends with its [`sum`](super::sum). [`read`] rejects a file with a damaged line. [`examine`] reports the
//! faults of each line.

use super::error::RecordError;
use super::keyed::Keyed;
use super::sum::{LINE, Sum};
use super::wire::{WITH_SUMS, Wire, parse_numbered};
use serde::Serialize;
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// A journal opened for appending. Holds an advisory lock on the file until dropped.
#[derive(Debug)]
pub(super) struct Journal<R: Keyed> {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines. A partly written line is truncated to this length.
    whole_bytes: u64,
    keys: HashSet<R::Key>,
}

impl<R: Keyed> Journal<R> {
    /// Opens or creates the file, cuts off a torn last line, and reads the keys of the existing lines.
    pub(super) fn open(path: &Path, lock: Lock) -> Result<Self, RecordError> {
        Self::of(opened(path, lock)?, path)
    }

    /// Like [`Journal::open`], for a file from [`opened`].
    pub(super) fn of(file: File, path: &Path) -> Result<Self, RecordError> {
        let bytes = fs::read(path).map_err(RecordError::io("read", path))?;
        let whole_bytes = whole_lines(&bytes).len() as u64;
        if whole_bytes < bytes.len() as u64 {
            file.set_len(whole_bytes).map_err(RecordError::io("cut the torn last line off", path))?;
        }
        let keys = parse_lines::<R>(path, &bytes)?.iter().map(R::key).collect();
        Ok(Self { path: path.to_owned(), file, whole_bytes, keys })
    }

    /// Whether the journal has a record with this key.
    pub(super) fn has(&self, record: &R) -> bool {
        self.keys.contains(&record.key())
    }

    /// Writes one line in a single call. On failure the file keeps its whole lines only.
    pub(super) fn append(&mut self, record: &R) -> Result<(), RecordError> {
        let key = record.key();
        if self.keys.contains(&key) {
            return Err(RecordError::Duplicate { path: self.path.clone(), key: key.to_string() });
        }
        let line = line(record).map_err(RecordError::io("encode a line for", &self.path))?;
        if let Err(source) = self.file.write_all(&line) {
            // If truncating fails too, the next process to open the file cuts the torn line off.
            let _ = self.file.set_len(self.whole_bytes);
            return Err(RecordError::io("append to", &self.path)(source));
        }
        self.whole_bytes += line.len() as u64;
        self.keys.insert(key);
        Ok(())
    }

    /// Waits until all appended lines are on disk.
    pub(super) fn sync(&self) -> Result<(), RecordError> {
        self.file.sync_data().map_err(RecordError::io("flush", &self.path))
    }
}

/// How other processes are kept away from a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    /// By a lock on the file.
    File,
    /// By [`writer.json`](super::writer) in its directory, which several machines share.
    Writer,
}

/// Opens or creates a file for appending, and locks it if asked to.
pub(super) fn opened(path: &Path, lock: Lock) -> Result<File, RecordError> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(RecordError::io("open for appending", path))?;
    if lock == Lock::Writer {
        return Ok(file);
    }
    // A file system without locks is still usable.
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(RecordError::Locked(path.to_owned())),
        _ => Ok(file),
    }
}

/// A journal as found on disk.
#[derive(Debug, Clone)]
pub struct Examined<R> {
    /// The whole lines.
    pub lines: Vec<Line<R>>,
    /// Whether there are bytes behind the last whole line.
    pub torn: bool,
    /// Whether the file exists.
    pub exists: bool,
}

/// A whole line as found on disk.
#[derive(Debug, Clone)]
pub struct Line<R> {
    /// The line number, from 1.
    pub number: usize,
    /// Byte offset of the end of the line, including its `\n`.
    pub end: u64,
    /// The schema that the line names; 0 if it cannot be read.
    pub schema: u32,
    /// The record, or why it cannot be read.
    pub record: Result<R, String>,
    /// Whether the checksum is correct. Always true for lines of schemas 1 and 2, which have none.
    pub is_sound: bool,
}

impl<R> Line<R> {
    /// Returns the record if the line is undamaged.
    pub fn sound(&self) -> Option<&R> {
        self.record.as_ref().ok().filter(|_| self.is_sound)
    }
}

/// Reads every line with its faults. Changes nothing on disk.
pub(super) fn examine<R: Keyed>(path: &Path) -> Result<Examined<R>, RecordError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok(Examined { lines: Vec::new(), torn: false, exists: false });
        }
        Err(e) => return Err(RecordError::io("read", path)(e)),
    };
    let mut end = 0;
    let line = |(number, text): (usize, &[u8])| {
        end += text.len() as u64;
        line_of(text, number, end)
    };
    let lines = (1..).zip(lines(&bytes)).map(line).collect();
    Ok(Examined { lines, torn: whole_lines(&bytes).len() < bytes.len(), exists: true })
}

/// The state of a journal file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalState {
    /// Whether the file exists.
    pub exists: bool,
    /// Whether it ends within a line.
    pub torn: bool,
}

/// Like [`examine`], but passes on one line at a time without storing them.
pub(super) fn examine_each<R: Keyed>(
    path: &Path,
    mut each: impl FnMut(Line<R>),
) -> Result<JournalState, RecordError> {
    let mut file = match crate::bounded::open(path) {
        Ok(file) => BufReader::new(file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok(JournalState { exists: false, torn: false });
        }
        Err(e) => return Err(RecordError::io("read", path)(e)),
    };
    let (mut text, mut end, mut number) = (Vec::new(), 0, 0);
    loop {
        text.clear();
        let length = file.read_until(b'\n', &mut text).map_err(RecordError::io("read", path))?;
        if !text.ends_with(b"\n") {
            return Ok(JournalState { exists: true, torn: length > 0 });
        }
        end += length as u64;
        number += 1;
        each(line_of(&text, number, end));
    }
}

/// Passes the text of every whole line to `each`. Does nothing if the file does not exist.
pub(super) fn each_text(path: &Path, mut each: impl FnMut(&[u8])) -> Result<(), RecordError> {
    let mut file = match crate::bounded::open(path) {
        Ok(file) => BufReader::new(file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(RecordError::io("read", path)(e)),
    };
    let mut text = Vec::new();
    loop {
        text.clear();
        file.read_until(b'\n', &mut text).map_err(RecordError::io("read", path))?;
        if !text.ends_with(b"\n") {
            return Ok(());
        }
        each(&text);
    }
}

fn line_of<R: Keyed>(text: &[u8], number: usize, end: u64) -> Line<R> {
    match parse_numbered::<R>(text) {
        Ok((schema, record)) => {
            Line { number, end, schema, record: Ok(record), is_sound: is_sound(schema, text) }
        }
        Err(message) => Line { number, end, schema: 0, record: Err(message), is_sound: false },
    }
}

/// Lines of schemas 1 and 2 have no sums.
fn is_sound(schema: u32, line: &[u8]) -> bool {
    schema < WITH_SUMS || LINE.check(line) == Sum::Right
}

/// Parses a record and rejects a damaged line.
fn parse_sound<R: Keyed>(line: &[u8]) -> Result<R, String> {
    let (schema, record) = parse_numbered(line)?;
    if is_sound(schema, line) {
        return Ok(record);
    }
    Err("the line is not as it was written: its sum is not that of its bytes".to_owned())
}

/// Reads the records of all whole lines; none if the file does not exist. Changes nothing on disk.
pub(super) fn read<R: Keyed>(path: &Path) -> Result<Vec<R>, RecordError> {
    match fs::read(path) {
        Ok(bytes) => parse_lines(path, &bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(RecordError::io("read", path)(e)),
    }
}

/// Reads the records of the whole lines that `wanted` selects, without holding the others in memory. Returns none if
/// the file does not exist. Skips unreadable lines, which [`examine_each`] reports.
pub(super) fn read_some<R: Keyed>(
    path: &Path,
    mut wanted: impl FnMut(&R) -> bool,
) -> Result<Vec<R>, RecordError> {
    let mut records = Vec::new();
    examine_each(path, |line: Line<R>| records.extend(line.record.ok().filter(&mut wanted)))?;
    Ok(records)
}

/// Encodes a record as its line, including sum and `\n`.
pub(super) fn line<R: Serialize>(record: &R) -> io::Result<Vec<u8>> {
    Ok(LINE.close(serde_json::to_vec(&Wire::new(record))?))
}

/// Returns the bytes up to and including the last `\n`.
fn whole_lines(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    &bytes[..end]
}

/// Iterates over the whole lines, each with its `\n`. Uses [`BufRead`], which searches many bytes at a time.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = whole_lines(bytes);
    std::iter::from_fn(move || {
        let line = rest;
        // Reading from memory cannot fail.
        let length = rest.skip_until(b'\n').unwrap_or_default();
        (length > 0).then(|| &line[..length])
    })
}

fn parse_lines<R: Keyed>(path: &Path, bytes: &[u8]) -> Result<Vec<R>, RecordError> {
    let count = lines(bytes).count();
    let mut keys = HashSet::with_capacity(count);
    let mut records = Vec::with_capacity(count);
    for (index, line) in lines(bytes).enumerate() {
        let record: R = parse_sound(line).map_err(|message| RecordError::Malformed {
            path: path.to_owned(),
            line: index + 1,
            message,
        })?;
        if !keys.insert(record.key()) {
            return Err(RecordError::Duplicate { path: path.to_owned(), key: record.key().to_string() });
        }
        records.push(record);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::golden::{request, sample};
    use crate::record::{RequestRecord, SampleRecord};
    use proptest::prelude::*;

    fn three() -> Vec<SampleRecord> {
        ["a", "b", "题 3"].map(|id| SampleRecord { doc_id: id.to_owned(), ..sample() }).to_vec()
    }

    fn bytes_of(records: &[SampleRecord]) -> Vec<u8> {
        records.iter().flat_map(|r| line(r).unwrap()).collect()
    }

    fn line_ends(bytes: &[u8]) -> usize {
        bytes.split(|&byte| byte == b'\n').count() - 1
    }

    #[test]
    fn every_prefix_reads_as_its_whole_lines_and_can_be_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("samples.jsonl");
        let records = three();
        let bytes = bytes_of(&records);
        for cut in 0..=bytes.len() {
            let whole = line_ends(&bytes[..cut]);
            assert_eq!(parse_lines::<SampleRecord>(&path, &bytes[..cut]).unwrap(), records[..whole]);
            // Resuming needs the disk, so it is only tried at every 29th cut and at cuts around line ends.
            let at_line_end = bytes[cut.saturating_sub(2)..bytes.len().min(cut + 2)].contains(&b'\n');
            if !at_line_end && cut % 29 != 0 {
                continue;
            }
            fs::write(&path, &bytes[..cut]).unwrap();
            assert_eq!(read::<SampleRecord>(&path).unwrap(), records[..whole]);
            let mut journal = Journal::open(&path, Lock::File).unwrap();
            for record in &records[whole..] {
                journal.append(record).unwrap();
            }
            assert_eq!(fs::read(&path).unwrap(), bytes, "cut at byte {cut}");
        }
    }

    #[test]
    fn an_item_is_recorded_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("samples.jsonl");
        let mut journal = Journal::open(&path, Lock::File).unwrap();
        journal.append(&sample()).unwrap();
        let refused = journal.append(&sample()).unwrap_err().to_string();
        assert!(refused.contains("item val-7 of task ceval is recorded already"), "{refused}");
        drop(journal);
        assert!(Journal::<SampleRecord>::open(&path, Lock::File).unwrap().append(&sample()).is_err());
        fs::write(&path, bytes_of(&[sample(), sample()])).unwrap();
        assert!(matches!(read::<SampleRecord>(&path), Err(RecordError::Duplicate { .. })));
    }

    #[test]
    fn a_whole_line_that_is_wrong_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("requests.jsonl");
        let good = String::from_utf8(line(&request()).unwrap()).unwrap();
        for (bad, says) in [
            ("{\"schema\":1}\n".to_owned(), "missing field"),
            (good.replace("\"schema\":4", "\"schema\":9"), "schema 9 was found, 1 to 4 was expected"),
            (good.replace("\"timed\"", "\"other\""), "unknown variant `other`"),
            (good.replace("\"repetition\":0", "\"repetition\":1"), "its sum is not that of its bytes"),
            ("\n".to_owned(), "EOF"),
        ] {
            fs::write(&path, format!("{good}{bad}")).unwrap();
            let message = read::<RequestRecord>(&path).unwrap_err().to_string();
            assert!(message.contains("requests.jsonl:2: ") && message.contains(says), "{message}");
        }
        fs::write(&path, b"\xff\xfe\n").unwrap();
        assert!(read::<RequestRecord>(&path).unwrap_err().to_string().contains("not UTF-8"));
    }

    #[test]
    fn lines_of_the_first_schema_read_with_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("requests.jsonl");
        let now = String::from_utf8(line(&request()).unwrap()).unwrap();
        let first = now.replace("\"schema\":4", "\"schema\":1").replace("\"tp\":1,\"block\":null,", "");
        let first = format!("{}}}\n", first.split(",\"sum\"").next().unwrap());
        assert!(!first.contains("block"), "{first}");
        fs::write(&path, &first).unwrap();
        assert_eq!(read::<RequestRecord>(&path).unwrap(), [request()]);
        // A line of the current schema must have its sum.
        fs::write(&path, first.replace("\"schema\":1", "\"schema\":4")).unwrap();
        assert!(read::<RequestRecord>(&path).unwrap_err().to_string().contains("its sum is not that"));
    }

    #[test]
    fn each_line_is_examined_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("samples.jsonl");
        let bytes = String::from_utf8(bytes_of(&three())).unwrap();
        let lines: Vec<&str> = bytes.lines().collect();
        let changed = lines[1].replace("\"gold\":\"B\"", "\"gold\":\"C\"");
        fs::write(&path, [lines[0], &changed, "{half", lines[2], "{\"schema\":4,"].join("\n")).unwrap();
        let found = examine::<SampleRecord>(&path).unwrap();
        let sound: Vec<bool> = found.lines.iter().map(|line| line.sound().is_some()).collect();
        let read: Vec<bool> = found.lines.iter().map(|line| line.record.is_ok()).collect();
        assert_eq!((sound, read), (vec![true, false, false, true], vec![true, true, false, true]));
        assert!(found.torn && found.exists);
        assert_eq!(found.lines[0].end as usize, lines[0].len() + 1);
        let mut ends = Vec::new();
        let there = examine_each(&path, |line: Line<SampleRecord>| ends.push(line.end)).unwrap();
        assert_eq!((there.exists, there.torn), (true, true));
        assert_eq!(ends, found.lines.iter().map(|line| line.end).collect::<Vec<_>>());
        assert!(!examine::<SampleRecord>(&dir.path().join("none")).unwrap().exists);
        assert_eq!(
            examine_each(&dir.path().join("none"), |_: Line<SampleRecord>| ()).unwrap(),
            JournalState { exists: false, torn: false }
        );
    }

    #[test]
    fn one_writer_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("samples.jsonl");
        let first = Journal::<SampleRecord>::open(&path, Lock::File).unwrap();
        assert!(matches!(Journal::<SampleRecord>::open(&path, Lock::File), Err(RecordError::Locked(_))));
        drop(first);
        assert!(Journal::<SampleRecord>::open(&path, Lock::File).is_ok());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error_that_names_the_file() {
        let file = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let mut journal =
            Journal { path: "runs/samples.jsonl".into(), file, whole_bytes: 0, keys: HashSet::new() };
        let message = journal.append(&sample()).unwrap_err().to_string();
        assert!(message.contains("cannot append to runs/samples.jsonl: No space left"), "{message}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            text in ".*", logprobs in prop::collection::vec(prop::num::f32::NORMAL, 0..5), start: u64, doc in ".+",
            tokens in prop::collection::vec(any::<u32>(), 0..5),
        ) {
            let record = SampleRecord {
                text, choice_logprobs: logprobs, t_start_ns: start, doc_id: doc, output_tokens: tokens, ..sample()
            };
            let bytes = line(&record).unwrap();
            prop_assert_eq!(line_ends(&bytes), 1);
            prop_assert_eq!(parse_lines::<SampleRecord>(Path::new("x"), &bytes).unwrap(), vec![record]);
        }
    }
}
