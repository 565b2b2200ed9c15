//! What was read of each run, kept beside the page, so that the next page reads only the runs that changed.
//!
//! The first line says the version, the program, and the SHA-256 of all that follows. Then comes a line for each run. A cache that
//! is missing, torn, altered or of another program is as good as none: every run is read again.

use super::figures::{RunFigures, VERSION, hash, program};
use crate::record::{JOURNALS, RecordError, read_whole, write_whole};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Name of the file, in the folder beside the page.
pub(super) const FILE: &str = "cache.jsonl";
/// Most bytes of a cache.
const MAX_BYTES: u64 = 1 << 30;

/// The first line.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    version: u32,
    program: String,
    /// SHA-256 (hex) of the lines after this one.
    sum: String,
}

/// What was found in a folder of a run: its figures, or why it cannot be read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum What {
    Run(Box<RunFigures>),
    Broken(String),
}

/// A line: a run's folder as it was when it was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Known {
    /// The folder's name.
    pub(super) folder: String,
    /// Its [stamp].
    pub(super) stamp: String,
    /// What was found.
    pub(super) what: What,
}

/// Returns the sizes and modification times of the files in a run, hashed: equal as long as no file
/// changed.
pub(super) fn stamp(folder: &Path) -> String {
    let mut words = String::new();
    for name in ["run.json", super::figures::FILE].iter().chain(JOURNALS) {
        if let Ok(found) = folder.join(name).metadata() {
            let changed = found.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            words += &format!("{name} {} {:?}\n", found.len(), changed.map(|since| since.as_nanos()));
        }
    }
    hash(words.as_bytes())[..24].to_owned()
}

/// Reads a cache. Empty if there is none that this program can use.
pub(super) fn read(path: &Path) -> HashMap<String, Known> {
    let Ok(bytes) = read_whole(path, MAX_BYTES) else { return HashMap::new() };
    parsed(&bytes).unwrap_or_default()
}

fn parsed(bytes: &[u8]) -> Option<HashMap<String, Known>> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (head, rest) = (&bytes[..end], &bytes[end + 1..]);
    let head: Head = serde_json::from_slice(head).ok()?;
    if (head.version, head.program, head.sum) != (VERSION, program(), hash(rest)) {
        return None;
    }
    let lines: Vec<&[u8]> = rest.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let known = super::found::spread(&lines, |line| serde_json::from_slice::<Known>(line).ok());
    known.into_iter().map(|known| known.map(|known| (known.folder.clone(), known))).collect()
}

/// Writes a cache of these runs.
///
/// # Errors
/// The file cannot be written.
pub(super) fn write(path: &Path, known: &BTreeMap<String, &Known>) -> Result<(), RecordError> {
    let mut lines = Vec::new();
    for known in known.values() {
        let encode = |e: serde_json::Error| RecordError::io("encode", path)(e.into());
        serde_json::to_writer(&mut lines, known).map_err(encode)?;
        lines.push(b'\n');
    }
    let head = Head { version: VERSION, program: program(), sum: hash(&lines) };
    let mut bytes = serde_json::to_vec(&head).map_err(|e| RecordError::io("encode", path)(e.into()))?;
    bytes.push(b'\n');
    bytes.extend(lines);
    write_whole(path, &bytes)
}

/// Returns the cache path of a history folder.
pub(super) fn path(beside: &Path) -> PathBuf {
    beside.join(FILE)
}
