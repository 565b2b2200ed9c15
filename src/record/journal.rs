//! Files that grow by whole lines: one JSON record a line, each on disk as soon as it is known.
//!
//! The law: for any byte prefix of a journal, reading gives the records of all whole lines in it, and appending goes
//! on after the last whole line. That is what makes a kill at any moment cost at most the line being written.

use super::error::RecordError;
use super::wire::{Wire, parse};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::fmt::Display;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::Hash;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// A record with a name that no other line of its journal may have.
pub(super) trait Keyed: Serialize + DeserializeOwned {
    /// The name.
    type Key: Eq + Hash + Display;
    /// The record's name.
    fn key(&self) -> Self::Key;
}

/// A journal opened for appending; holds an advisory lock on the file until dropped.
#[derive(Debug)]
pub(super) struct Journal<R: Keyed> {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines: where a line that could not be written whole is cut off again.
    whole_bytes: u64,
    keys: HashSet<R::Key>,
}

impl<R: Keyed> Journal<R> {
    /// Opens or makes the file, cuts off a torn last line, and remembers the names of the lines that are there.
    pub(super) fn open(path: &Path) -> Result<Self, RecordError> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(RecordError::io("open for appending", path))?;
        // A file system without locks is no reason not to run on it.
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(RecordError::Locked(path.to_owned()));
        }
        let bytes = fs::read(path).map_err(RecordError::io("read", path))?;
        let whole_bytes = whole_lines(&bytes).len() as u64;
        if whole_bytes < bytes.len() as u64 {
            file.set_len(whole_bytes).map_err(RecordError::io("cut the torn last line off", path))?;
        }
        let keys = parse_lines::<R>(path, &bytes)?.iter().map(R::key).collect();
        Ok(Self { path: path.to_owned(), file, whole_bytes, keys })
    }

    /// Whether a record of that name is there.
    pub(super) fn has(&self, record: &R) -> bool {
        self.keys.contains(&record.key())
    }

    /// Writes one line in one call. On failure the file is left with its whole lines only.
    pub(super) fn append(&mut self, record: &R) -> Result<(), RecordError> {
        let key = record.key();
        if self.keys.contains(&key) {
            return Err(RecordError::Duplicate { path: self.path.clone(), key: key.to_string() });
        }
        let line = line(record).map_err(RecordError::io("encode a line for", &self.path))?;
        if let Err(source) = self.file.write_all(&line) {
            // If cutting fails too, the torn line is cut off by whoever opens the file next.
            let _ = self.file.set_len(self.whole_bytes);
            return Err(RecordError::io("append to", &self.path)(source));
        }
        self.whole_bytes += line.len() as u64;
        self.keys.insert(key);
        Ok(())
    }

    /// Waits until everything appended is on the disk itself.
    pub(super) fn sync(&self) -> Result<(), RecordError> {
        self.file.sync_data().map_err(RecordError::io("flush", &self.path))
    }
}

/// The records of all whole lines; none when the file is not there. Changes nothing on disk.
pub(super) fn read<R: Keyed>(path: &Path) -> Result<Vec<R>, RecordError> {
    match fs::read(path) {
        Ok(bytes) => parse_lines(path, &bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(RecordError::io("read", path)(e)),
    }
}

/// The records of the whole lines that `wanted` picks, without holding the others in memory; none when the file is not
/// there.
pub(super) fn read_some<R: Keyed>(
    path: &Path,
    mut wanted: impl FnMut(&R) -> bool,
) -> Result<Vec<R>, RecordError> {
    let mut lines = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(RecordError::io("read", path)(e)),
    };
    let (mut line, mut records) = (Vec::new(), Vec::new());
    for number in 1.. {
        line.clear();
        lines.read_until(b'\n', &mut line).map_err(RecordError::io("read", path))?;
        if !line.ends_with(b"\n") {
            break;
        }
        let record: R = parse(&line).map_err(|message| RecordError::Malformed {
            path: path.to_owned(),
            line: number,
            message,
        })?;
        if wanted(&record) {
            records.push(record);
        }
    }
    Ok(records)
}

/// One record as its line, `\n` included.
fn line<R: Serialize>(record: &R) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Wire::new(record))?;
    line.push(b'\n');
    Ok(line)
}

/// The bytes up to and with the last `\n`.
fn whole_lines(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    &bytes[..end]
}

/// The whole lines, each with its `\n`. Through [`BufRead`], which looks for a byte many at a time.
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
        let record: R = parse(line).map_err(|message| RecordError::Malformed {
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
            // Going on needs the disk, so only every 29th cut and those around a line's end are tried.
            let at_line_end = bytes[cut.saturating_sub(2)..bytes.len().min(cut + 2)].contains(&b'\n');
            if !at_line_end && cut % 29 != 0 {
                continue;
            }
            fs::write(&path, &bytes[..cut]).unwrap();
            assert_eq!(read::<SampleRecord>(&path).unwrap(), records[..whole]);
            let mut journal = Journal::open(&path).unwrap();
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
        let mut journal = Journal::open(&path).unwrap();
        journal.append(&sample()).unwrap();
        let refused = journal.append(&sample()).unwrap_err().to_string();
        assert!(refused.contains("item val-7 of task ceval is recorded already"), "{refused}");
        drop(journal);
        assert!(Journal::<SampleRecord>::open(&path).unwrap().append(&sample()).is_err());
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
            (good.replace("\"schema\":2", "\"schema\":9"), "schema 9 was found, 1 to 2 was expected"),
            (good.replace("\"timed\"", "\"other\""), "unknown variant `other`"),
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
        let first = now.replace("\"schema\":2", "\"schema\":1").replace("\"tp\":1,\"block\":null,", "");
        assert!(!first.contains("block"), "{first}");
        fs::write(&path, first).unwrap();
        assert_eq!(read::<RequestRecord>(&path).unwrap(), [request()]);
    }

    #[test]
    fn one_writer_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("samples.jsonl");
        let first = Journal::<SampleRecord>::open(&path).unwrap();
        assert!(matches!(Journal::<SampleRecord>::open(&path), Err(RecordError::Locked(_))));
        drop(first);
        assert!(Journal::<SampleRecord>::open(&path).is_ok());
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
