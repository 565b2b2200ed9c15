//! Bundles on disk: a zip of JSON files. It is written as a whole, and read with every size bounded.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Cursor, Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::privacy::Private;
use super::{Bundle, KIND, SCHEMA, Summary};
use crate::bounded;
use crate::record::{RecordError, hex, write_whole};

/// Maximum size of a bundle, in bytes. A bundle with the shapes of the 6B model has about 40 kB.
const MAX_ARCHIVE: u64 = 64 << 20;
/// Maximum unpacked size of a file, in bytes.
const MAX_FILE: u64 = 16 << 20;
/// The file with the schema.
const SUMMARY: &str = "bundle.json";
/// All files.
const FILES: [&str; 6] =
    [SUMMARY, "machine.json", "capabilities.json", "operators.json", "calls.json", "timings.json"];

/// Errors of bundles.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] RecordError),
    /// The archive cannot be made.
    #[error("the bundle cannot be packed: {0}")]
    Pack(String),
    /// The file is no bundle that this version reads.
    #[error("{}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What was found, and what was expected.
        problem: String,
    },
}

impl Bundle {
    /// Writes the bundle by rename, without the names in `private`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path, private: &Private) -> Result<(), BundleError> {
        Ok(write_whole(path, &self.packed(private)?)?)
    }

    fn packed(&self, private: &Private) -> Result<Vec<u8>, BundleError> {
        let others = [
            (FILES[1], json(&self.machine, private)?),
            (FILES[2], json(&self.capabilities, private)?),
            (FILES[3], json(&self.operators, private)?),
            (FILES[4], json(&self.calls, private)?),
            (FILES[5], json(&self.timings, private)?),
        ];
        let files = others.iter().map(|(name, bytes)| ((*name).to_owned(), sum(bytes))).collect();
        let summary = Summary { files, ..self.summary.clone() };
        // Sums are no texts, but names in the summary's other fields are.
        let first = (SUMMARY, json(&summary, private)?);
        let pack = || -> Result<Vec<u8>, ZipError> {
            let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
            let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
            for (name, bytes) in std::iter::once(first).chain(others) {
                zip.start_file(name, options)?;
                zip.write_all(&bytes)?;
            }
            Ok(zip.finish()?.into_inner())
        };
        pack().map_err(|error| BundleError::Pack(error.to_string()))
    }

    /// Reads a bundle. Nothing of the file is trusted.
    ///
    /// # Errors
    /// The file cannot be read, is no zip, is too large, or lacks a file or has another one. Or a sum is wrong, a field is
    /// missing, or the schema is another.
    pub fn read(path: &Path) -> Result<Self, BundleError> {
        let read = |source| BundleError::Read { path: path.to_owned(), source };
        let file = bounded::open(path).map_err(read)?;
        let size = file.metadata().map_err(read)?.len();
        let bundle = if size > MAX_ARCHIVE {
            Err(format!("found {size} bytes; expected {MAX_ARCHIVE} at most"))
        } else {
            unpack(BufReader::new(file))
        };
        bundle.map_err(|problem| BundleError::Invalid { path: path.to_owned(), problem })
    }
}

fn json(value: &impl Serialize, private: &Private) -> Result<Vec<u8>, BundleError> {
    let packed = |error: serde_json::Error| BundleError::Pack(error.to_string());
    let mut value = serde_json::to_value(value).map_err(packed)?;
    private.remove_from(&mut value);
    let mut bytes = serde_json::to_vec_pretty(&value).map_err(packed)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn sum(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn unpack(reader: impl Read + io::Seek) -> Result<Bundle, String> {
    let mut zip = ZipArchive::new(reader).map_err(|e| format!("found no zip: {e}; expected a bundle"))?;
    if zip.len() != FILES.len() {
        return Err(format!("found {} files; expected {}: {}", zip.len(), FILES.len(), FILES.join(", ")));
    }
    let mut files = BTreeMap::new();
    for index in 0..zip.len() {
        let member = zip.by_index(index).map_err(|e| e.to_string())?;
        let name = member.name().map_err(|e| e.to_string())?.into_owned();
        let Some(known) = FILES.into_iter().find(|known| *known == name) else {
            return Err(format!("found the file {name:?}; expected one of {}", FILES.join(", ")));
        };
        // Sizes in the archive are not trusted.
        let mut bytes = Vec::new();
        member
            .take(MAX_FILE + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| format!("{known} cannot be unpacked: {e}"))?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(format!("{known} unpacks to more than {MAX_FILE} bytes"));
        }
        if files.insert(known, bytes).is_some() {
            return Err(format!("found {known} twice; expected it once"));
        }
    }
    let of = |name: &str| files.get(name).map(Vec::as_slice).ok_or_else(|| format!("found no {name}"));
    check_schema(of(SUMMARY)?)?;
    let summary: Summary = parsed(SUMMARY, of(SUMMARY)?)?;
    for name in &FILES[1..] {
        let (found, expected) = (sum(of(name)?), summary.files.get(*name));
        if expected != Some(&found) {
            let expected = expected.map_or("none", String::as_str);
            return Err(format!(
                "{name} has the SHA-256 {found}; {SUMMARY} says {expected}. The bundle was changed after it was written"
            ));
        }
    }
    let bundle = Bundle {
        machine: parsed(FILES[1], of(FILES[1])?)?,
        capabilities: parsed(FILES[2], of(FILES[2])?)?,
        operators: parsed(FILES[3], of(FILES[3])?)?,
        calls: parsed(FILES[4], of(FILES[4])?)?,
        timings: parsed(FILES[5], of(FILES[5])?)?,
        summary,
    };
    Ok(bundle)
}

/// Checks kind and schema before the other fields, which another schema may not have.
fn check_schema(bytes: &[u8]) -> Result<(), String> {
    let value: Value = parsed(SUMMARY, bytes)?;
    if value.get("kind").and_then(Value::as_str) != Some(KIND) {
        let found = value.get("kind").map_or_else(|| "nothing".to_owned(), Value::to_string);
        return Err(format!("{SUMMARY}: kind is {found}, expected \"{KIND}\""));
    }
    match value.get("schema").and_then(Value::as_u64) {
        Some(found) if found == u64::from(SCHEMA) => Ok(()),
        Some(newer) if newer > u64::from(SCHEMA) => Err(format!(
            "{SUMMARY}: schema is {newer}, expected {SCHEMA}; a newer glmbench wrote the bundle, use that version or a later one"
        )),
        found => {
            let found = found.map_or_else(|| "missing".to_owned(), |found| found.to_string());
            Err(format!("{SUMMARY}: schema is {found}, expected {SCHEMA}"))
        }
    }
}

fn parsed<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("{name}: {error}"))
}
