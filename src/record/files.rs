//! Creates folders and replaces whole files, so that a reader never sees half of one.

use super::error::RecordError;
use super::summary::AccuracyRow;
use crate::bounded;
use crate::text;
use serde::Serialize;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Creates a directory in `root`, and `root` if it is missing. If `name` is taken, tries `name-2`, `name-3`…. Two
/// processes that ask for the same name at the same time get different directories.
pub fn create_unique(root: &Path, name: &str) -> Result<PathBuf, RecordError> {
    fs::create_dir_all(root).map_err(RecordError::io("create", root))?;
    let mut number = 1_u64;
    loop {
        let path = root.join(if number == 1 { name.to_owned() } else { format!("{name}-{number}") });
        match fs::create_dir(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(e) => return Err(RecordError::io("create", &path)(e)),
            Ok(()) => return Ok(path),
        }
    }
}

/// Writes rows as an `accuracy.csv` outside a run directory.
pub fn write_accuracy_csv(path: &Path, rows: &[AccuracyRow]) -> Result<(), RecordError> {
    write_csv(path, AccuracyRow::HEADER, rows)
}

fn write_csv<R: Serialize>(path: &Path, header: &str, rows: &[R]) -> Result<(), RecordError> {
    let bytes = csv_table(header, rows).map_err(|e| RecordError::io("encode", path)(e.into()))?;
    write_whole(path, &bytes)
}

/// Formats rows as RFC 4180 below a header, which is written even without rows. People open such files in spreadsheets,
/// so a cell that begins like a formula is [defused](text::cell).
pub fn csv_table<R: Serialize>(header: &str, rows: &[R]) -> csv::Result<Vec<u8>> {
    // serde formats the cells, so they are escaped in its output.
    let mut plain = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    rows.iter().try_for_each(|row| plain.serialize(row))?;
    let plain = plain.into_inner().map_err(|e| csv::Error::from(e.into_error()))?;
    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record(header.split(','))?;
    for record in csv::ReaderBuilder::new().has_headers(false).from_reader(plain.as_slice()).records() {
        table.write_record(record?.iter().map(|cell| text::cell(cell).into_owned()))?;
    }
    table.into_inner().map_err(|e| csv::Error::from(e.into_error()))
}

/// Reads a regular file of up to `most` bytes.
pub fn read_whole(path: &Path, most: u64) -> Result<Vec<u8>, RecordError> {
    bounded::regular(path, most).map_err(RecordError::io("read", path))
}

/// Replaces a file atomically: writes a temporary file beside it, flushes that to disk, and renames it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), RecordError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_parent(path)
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&temporary);
        RecordError::io("write", path)(source)
    })
}

/// Syncs the directory, because a rename is only on disk once its directory is. Systems that cannot open a directory
/// ensure this otherwise.
fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent().map(File::open) {
        Some(Ok(directory)) if cfg!(unix) => directory.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::summary::PerfRow;
    use super::super::target::LimitRow;
    use super::*;
    use crate::record::golden::{accuracy_row, limit_row, perf_row};

    #[test]
    fn csv_files_have_their_header_and_quote_by_rfc_4180() {
        let root = tempfile::tempdir().unwrap();
        let file = |name: &str| root.path().join(name);
        write_csv(&file("accuracy.csv"), AccuracyRow::HEADER, &[accuracy_row()]).unwrap();
        let invalid = PerfRow { invalid_reason: Some("hash \"a\", then \"b\"".into()), ..perf_row() };
        write_csv(&file("perf.csv"), PerfRow::HEADER, &[perf_row(), invalid]).unwrap();
        write_csv(&file("limits.csv"), LimitRow::HEADER, &[limit_row()]).unwrap();
        let text = |name| fs::read_to_string(file(name)).unwrap();
        insta::assert_snapshot!("accuracy.csv", text("accuracy.csv"));
        insta::assert_snapshot!("perf.csv", text("perf.csv"));
        insta::assert_snapshot!("limits.csv", text("limits.csv"));
        // serde's own header is the same, so no column is misplaced.
        let own = [serdes_header(perf_row()), serdes_header(accuracy_row()), serdes_header(limit_row())];
        assert_eq!(own, [PerfRow::HEADER, AccuracyRow::HEADER, LimitRow::HEADER]);
    }

    fn serdes_header(row: impl Serialize) -> String {
        let mut own = csv::Writer::from_writer(Vec::new());
        own.serialize(row).unwrap();
        let own = String::from_utf8(own.into_inner().unwrap()).unwrap();
        own.lines().next().unwrap().to_owned()
    }
}
