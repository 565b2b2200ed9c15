//! `dataset prepare parquet`: rewrites Parquet files as JSONL, which task files read.
//!
//! A row becomes an object with the columns in their order. Shards are joined: `test-00000-of-00002.parquet` and its other shard
//! become `test.jsonl`, and `test/0000.parquet` and those that follow become `test.jsonl` as well. The new folder appears by one rename,
//! or not at all.
//!
//! Format: <https://parquet.apache.org/docs/file-format/>. Compression by snappy, gzip and LZ4 is read. Zstandard and Brotli are not:
//! their libraries need C or are large.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parquet::basic::Compression;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Row;

use super::error::DatasetError;
use super::prepare::{Staging, refuse_occupied};

/// First and last bytes of a Parquet file.
const MAGIC: &[u8] = b"PAR1";
/// Largest total of the written files, in bytes: a few bytes of Parquet can stand for any number of rows.
const MOST_BYTES: u64 = 16 << 30;
/// Most files that are looked for.
const MOST_FILES: usize = 20_000;

/// The result of [`rewrite`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// The new folder.
    pub root: PathBuf,
    /// The files by their path in it, with their rows.
    pub rows: BTreeMap<String, u64>,
}

/// Rewrites a Parquet file, or all below a folder, to the new folder `out`.
///
/// # Errors
/// When `out` is occupied, there is no Parquet file, a shard is missing, a file is damaged or of an unknown compression, a disk is
/// full, or `stopped` returns true. In these cases nothing is written to `out`.
pub fn rewrite(source: &Path, out: &Path, stopped: &dyn Fn() -> bool) -> Result<Rewritten, DatasetError> {
    refuse_occupied(out)?;
    let mut files = Vec::new();
    find(source, source, &mut files)?;
    if files.is_empty() {
        return Err(DatasetError::layout(
            source,
            "no Parquet file",
            "a file NAME.parquet, or a folder with some",
        ));
    }
    let staging = Staging::beside(out)?;
    let (mut rows, mut bytes) = (BTreeMap::new(), 0);
    for (name, shards) in joined(&files)? {
        let path = staging.path.join(&name);
        let written = |error| DatasetError::io(&out.join(&name), error);
        fs::create_dir_all(path.parent().unwrap_or(&staging.path)).map_err(written)?;
        let mut to = BufWriter::new(File::create(&path).map_err(written)?);
        let mut count = 0;
        for shard in shards {
            each_row(shard, &mut |row| {
                if count % 1024 == 0 && stopped() {
                    return Err(DatasetError::Stopped);
                }
                let line = line(&row);
                (count, bytes) = (count + 1, bytes + line.len() as u64);
                if bytes > MOST_BYTES {
                    return Err(bad(
                        shard,
                        format!("its rows take more than {} GiB as JSON", MOST_BYTES >> 30),
                    ));
                }
                to.write_all(line.as_bytes()).map_err(written)
            })?;
        }
        to.flush().map_err(written)?;
        rows.insert(name, count);
    }
    staging.publish(out)?;
    Ok(Rewritten { root: out.to_path_buf(), rows })
}

/// Adds the Parquet files below `path`, each with its path below `root`.
fn find(root: &Path, path: &Path, files: &mut Vec<(String, PathBuf)>) -> Result<(), DatasetError> {
    let failed = |error| DatasetError::io(path, error);
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        let below = path.strip_prefix(root).ok().filter(|below| !below.as_os_str().is_empty());
        let name = below.unwrap_or(Path::new(path.file_name().unwrap_or_default()));
        let name = name.to_string_lossy().replace('\\', "/");
        // A file that is given by itself may have any name.
        if name.ends_with(".parquet") || path == root {
            files.push((name.strip_suffix(".parquet").unwrap_or(&name).to_owned(), path.to_owned()));
        }
        return Ok(());
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>())
        .map_err(failed)?;
    entries.sort();
    // A link could lead round in circles.
    for entry in entries.iter().filter(|entry| !entry.is_symlink() || entry.is_file()) {
        find(root, entry, files)?;
        if files.len() > MOST_FILES {
            return Err(DatasetError::layout(root, format!("more than {MOST_FILES} Parquet files"), "fewer"));
        }
    }
    Ok(())
}

/// The shard that a file name stands for.
struct Shard<'a> {
    /// The name without what counts shards.
    whole: &'a str,
    index: usize,
    /// Number of shards, if the name says it.
    count: Option<usize>,
}

/// Reads `test-00000-of-00002` and `test/0000`. Other names are whole.
fn shard(name: &str) -> Shard<'_> {
    let digits = |word: &str, width| {
        (word.len() == width && word.bytes().all(|byte| byte.is_ascii_digit())).then(|| word.parse().ok())?
    };
    if let Some((rest, count)) = name.rsplit_once("-of-")
        && let Some((whole, index)) = rest.rsplit_once('-')
        && let (Some(index), Some(count)) = (digits(index, 5), digits(count, 5))
    {
        return Shard { whole, index, count: Some(count) };
    }
    match name.rsplit_once('/') {
        Some((whole, last)) if digits(last, 4).is_some() => {
            Shard { whole, index: digits(last, 4).unwrap_or(0), count: None }
        }
        _ => Shard { whole: name, index: 0, count: Some(1) },
    }
}

/// Returns the files to write, each with its shards in order.
fn joined(files: &[(String, PathBuf)]) -> Result<BTreeMap<String, Vec<&Path>>, DatasetError> {
    let mut wholes: BTreeMap<&str, Vec<(Shard<'_>, &Path)>> = BTreeMap::new();
    for (name, path) in files {
        let shard = shard(name);
        wholes.entry(shard.whole).or_default().push((shard, path));
    }
    let mut joined = BTreeMap::new();
    for (whole, mut shards) in wholes {
        shards.sort_by_key(|(shard, _)| shard.index);
        let count = shards[0].0.count.unwrap_or(shards.len());
        let fits = |(at, (shard, _)): (usize, &(Shard<'_>, &Path))| {
            shard.index == at && shard.count.unwrap_or(count) == count
        };
        if shards.len() != count || !shards.iter().enumerate().all(fits) {
            let found: Vec<usize> = shards.iter().map(|(shard, _)| shard.index).collect();
            let found = format!("shards {found:?} of `{whole}`");
            let expected = format!("each of 0 to {} once, and no other file for it", count.max(1) - 1);
            return Err(DatasetError::layout(shards[0].1, found, expected));
        }
        joined.insert(format!("{whole}.jsonl"), shards.into_iter().map(|(_, path)| path).collect());
    }
    Ok(joined)
}

/// Calls `each` with the rows of a file.
fn each_row(path: &Path, each: &mut dyn FnMut(Row) -> Result<(), DatasetError>) -> Result<(), DatasetError> {
    let mut start = [0; 4];
    let mut file = File::open(path).map_err(|e| DatasetError::io(path, e))?;
    let _ = file.read(&mut start).map_err(|e| DatasetError::io(path, e))?;
    if start != MAGIC {
        return Err(bad(path, "found no Parquet file; expected one that begins with PAR1"));
    }
    // The library panics on some damaged files.
    let read = || -> Result<(), DatasetError> {
        let damaged = |error: parquet::errors::ParquetError| bad(path, error.to_string());
        let reader = SerializedFileReader::new(file).map_err(damaged)?;
        let groups = reader.metadata().row_groups();
        for column in groups.iter().flat_map(|group| group.columns()) {
            if let Compression::ZSTD(_) | Compression::BROTLI(_) | Compression::LZO = column.compression() {
                return Err(bad(
                    path,
                    format!(
                        "column {} is compressed by {}; expected snappy, gzip, LZ4 or none: write the file again, in Python by \
                         `pyarrow.parquet.write_table(pyarrow.parquet.read_table(FILE), NEW, compression=\"snappy\")`",
                        column.column_path(),
                        column.compression()
                    ),
                ));
            }
        }
        for row in reader.get_row_iter(None).map_err(damaged)? {
            each(row.map_err(damaged)?)?;
        }
        Ok(())
    };
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(bad(path, "the file is damaged")))
}

/// A row as a line of JSONL, the columns in their order.
fn line(row: &Row) -> String {
    let member = |(name, field): (&String, &parquet::record::Field)| {
        format!("{}: {}", serde_json::Value::from(name.as_str()), field.to_json_value())
    };
    format!("{{{}}}\n", row.get_column_iter().map(member).collect::<Vec<_>>().join(", "))
}

fn bad(path: &Path, message: impl Into<String>) -> DatasetError {
    DatasetError::Archive { path: path.to_owned(), message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const FIXTURES: &str = "tests/fixtures/parquet";

    fn lines(path: &Path) -> Vec<Value> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The fixtures are pyarrow's, with what Python's own json says of their rows beside them.
    #[test]
    fn rows_are_those_that_python_reads() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let done = rewrite(&Path::new(FIXTURES).join("set"), &out, &|| false).unwrap();
        let rows = |name: &str| done.rows[name];
        assert_eq!(done.rows.len(), 3);
        assert_eq!(
            (rows("data/test.jsonl"), rows("default/validation.jsonl"), rows("train.jsonl")),
            (5, 4, 3)
        );
        for name in done.rows.keys() {
            let expected = lines(&Path::new(FIXTURES).join("expected").join(name));
            assert_eq!(lines(&out.join(name)), expected, "{name}");
        }
        let text = fs::read_to_string(out.join("data/test.jsonl")).unwrap();
        assert!(text.starts_with("{\"question\": "), "columns keep their order: {text}");
        let again = rewrite(&Path::new(FIXTURES).join("set"), &out, &|| false).unwrap_err().to_string();
        assert!(again.contains("something there already"), "{again}");
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let (out, set) = (dir.path().join("out"), dir.path().join("set"));
        let refused = |source: &Path, says: &[&str]| {
            let said = rewrite(source, &out, &|| false).unwrap_err().to_string();
            assert!(says.iter().all(|says| said.contains(says)), "{said}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left");
        };
        fs::create_dir(&set).unwrap();
        refused(&set, &["no Parquet file"]);
        refused(&set.join("none"), &["set/none"]);
        let good = fs::read(Path::new(FIXTURES).join("set/train.parquet")).unwrap();
        fs::write(set.join("a.parquet"), "question,answer\n").unwrap();
        refused(&set, &["a.parquet", "begins with PAR1"]);
        refused(&Path::new(FIXTURES).join("zstd.parquet"), &["ZSTD", "compression=\"snappy\""]);
        fs::remove_file(set.join("a.parquet")).unwrap();
        fs::write(set.join("test-00001-of-00002.parquet"), &good).unwrap();
        refused(&set, &["shards [1] of `test`", "each of 0 to 1 once"]);
        fs::write(set.join("test-00000-of-00002.parquet"), &good).unwrap();
        fs::write(set.join("test.parquet"), &good).unwrap();
        refused(&set, &["shards [0, 0, 1] of `test`"]);
        let stopped = rewrite(&Path::new(FIXTURES).join("set"), &out, &|| true).unwrap_err();
        assert!(matches!(stopped, DatasetError::Stopped));
    }

    /// No byte of a file ends the program.
    #[test]
    fn damaged_files_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let good = fs::read(Path::new(FIXTURES).join("set/data/test-00000-of-00002.parquet")).unwrap();
        let (path, mut errors) = (dir.path().join("x.parquet"), 0);
        for at in 0..good.len() {
            for changed in [good[at] ^ 0x01, good[at] ^ 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = changed;
                fs::write(&path, &bytes).unwrap();
                errors += usize::from(
                    each_row(&path, &mut |row| {
                        line(&row);
                        Ok(())
                    })
                    .is_err(),
                );
            }
        }
        for end in 0..good.len() {
            fs::write(&path, &good[..end]).unwrap();
            assert!(each_row(&path, &mut |_| Ok(())).is_err(), "{end}");
        }
        assert!(errors > good.len() / 2, "{errors}");
        assert_eq!(line_of(&good, dir.path())["answer"], json!(1));
    }

    fn line_of(bytes: &[u8], dir: &Path) -> Value {
        let path = dir.join("good.parquet");
        fs::write(&path, bytes).unwrap();
        let mut first = None;
        each_row(&path, &mut |row| {
            first.get_or_insert(line(&row));
            Ok(())
        })
        .unwrap();
        serde_json::from_str(&first.unwrap()).unwrap()
    }
}
