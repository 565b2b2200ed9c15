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
use std::io::{self, BufWriter, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parquet::basic::Compression;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Row;

use super::error::DatasetError;
use super::prepare::{LFS_ADVICE, LFS_POINTER, Staging, bad, refuse_occupied, start};

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
/// When `out` is occupied, there is no Parquet file, a shard is missing, or a file is damaged or of an unknown compression. When
/// a disk is full, or `stopped` returns true. In these cases nothing is written to `out`.
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
        // Names that differ in case may be one file there.
        let file = File::create_new(&path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                DatasetError::layout(shards[0], format!("a second file for {name}"), "one file of each name")
            }
            _ => written(error),
        })?;
        let mut to = BufWriter::new(file);
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
        // A folder of shards alone is named by itself.
        let whole = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let below = path.strip_prefix(root).ok().filter(|below| !below.as_os_str().is_empty());
        let mut parts: Vec<String> = below
            .unwrap_or(Path::new(""))
            .components()
            .map(|part| whole(part.as_os_str().as_ref()))
            .collect();
        if parts.is_empty() {
            parts.push(whole(path));
        } else if parts.len() == 1 && number(parts[0].trim_end_matches(".parquet"), 4).is_some() {
            let folder = fs::canonicalize(root).map_err(failed)?;
            parts.insert(0, whole(&folder));
        }
        let name = parts.join("/");
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
    for entry in &entries {
        if entry.is_symlink() && !entry.is_file() {
            // It could lead round in circles, or stand for a shard that was not downloaded.
            let found = "a link to a folder, or to nothing";
            return Err(DatasetError::layout(entry, found, "files, folders, or links to files"));
        }
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

/// Reads a word of exactly `digits` digits.
fn number(word: &str, digits: usize) -> Option<usize> {
    (word.len() == digits && word.bytes().all(|byte| byte.is_ascii_digit())).then(|| word.parse().ok())?
}

/// Reads `test-00000-of-00002`, which a hash may follow, and `test/0000` beside others. Other names are whole.
fn shard<'a>(name: &'a str, has: &dyn Fn(&str) -> bool) -> Shard<'a> {
    if let Some((rest, count)) = name.rsplit_once("-of-")
        && let Some((whole, index)) = rest.rsplit_once('-')
        && let count = count.split_once('-').map_or(count, |(count, _)| count)
        && let (Some(index), Some(count)) = (number(index, 5), number(count, 5))
    {
        return Shard { whole, index, count: Some(count) };
    }
    // Without the first, the numbers are names, such as those of years.
    match name.rsplit_once('/').and_then(|(whole, last)| Some((whole, number(last, 4)?))) {
        Some((whole, index)) if has(&format!("{whole}/0000")) => Shard { whole, index, count: None },
        _ => Shard { whole: name, index: 0, count: Some(1) },
    }
}

/// Returns the files to write, each with its shards in order.
fn joined(files: &[(String, PathBuf)]) -> Result<BTreeMap<String, Vec<&Path>>, DatasetError> {
    let mut wholes: BTreeMap<&str, Vec<(Shard<'_>, &Path)>> = BTreeMap::new();
    for (name, path) in files {
        let shard = shard(name, &|name| files.iter().any(|(other, _)| other == name));
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
    let mut file = File::open(path).map_err(|e| DatasetError::io(path, e))?;
    let start = start(&mut file).map_err(|e| DatasetError::io(path, e))?;
    if start == LFS_POINTER {
        return Err(bad(path, LFS_ADVICE));
    }
    if !start.starts_with(MAGIC) {
        return Err(bad(path, "found no Parquet file; expected one that begins with PAR1"));
    }
    let damaged = |error: parquet::errors::ParquetError| bad(path, error.to_string());
    // The library panics on some damaged files, and on some types.
    let panicked = |_| bad(path, "the file is damaged, or has a column of a type that cannot be read");
    let open = || -> Result<SerializedFileReader<File>, DatasetError> {
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
        Ok(reader)
    };
    let reader = catch_unwind(AssertUnwindSafe(open)).map_err(panicked)??;
    let rows = catch_unwind(AssertUnwindSafe(|| reader.get_row_iter(None))).map_err(panicked)?;
    let mut rows = rows.map_err(damaged)?;
    while let Some(row) = catch_unwind(AssertUnwindSafe(|| rows.next())).map_err(panicked)? {
        each(row.map_err(damaged)?)?;
    }
    Ok(())
}

/// A row as a line of JSONL, the columns in their order.
fn line(row: &Row) -> String {
    let member = |(name, field): (&String, &parquet::record::Field)| {
        format!("{}: {}", serde_json::Value::from(name.as_str()), field.to_json_value())
    };
    format!("{{{}}}\n", row.get_column_iter().map(member).collect::<Vec<_>>().join(", "))
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
    fn shards_are_told_by_their_names() {
        let of = |names: &[&str]| -> Vec<(String, usize)> {
            let files: Vec<_> = names.iter().map(|name| ((*name).to_owned(), PathBuf::from(name))).collect();
            joined(&files).unwrap().into_iter().map(|(name, shards)| (name, shards.len())).collect()
        };
        let one = |name: &str, shards| vec![(name.to_owned(), shards)];
        assert_eq!(of(&["a/t-00001-of-00002-9f8e", "a/t-00000-of-00002-77aa"]), one("a/t.jsonl", 2));
        assert_eq!(of(&["a/t/0001", "a/t/0000"]), one("a/t.jsonl", 2));
        assert_eq!(of(&["a/2024"]), one("a/2024.jsonl", 1));
        // A folder of shards alone has its own name.
        let mut files = Vec::new();
        let folder = Path::new(FIXTURES).join("set/default/validation");
        find(&folder, &folder, &mut files).unwrap();
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["validation/0000", "validation/0001"]);
    }

    /// Names come from archives of any system.
    #[cfg(unix)]
    #[test]
    fn no_name_leads_out_of_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let (out, set) = (dir.path().join("deep/out"), dir.path().join("set"));
        fs::create_dir(&set).unwrap();
        fs::copy(Path::new(FIXTURES).join("set/train.parquet"), set.join("..\\x.parquet")).unwrap();
        let done = rewrite(&set, &out, &|| false).unwrap();
        assert_eq!(done.rows.keys().collect::<Vec<_>>(), ["..\\x.jsonl"]);
        assert!(out.join("..\\x.jsonl").is_file());
        std::os::unix::fs::symlink("nowhere", set.join("test.parquet")).unwrap();
        let said = rewrite(&set, &dir.path().join("other"), &|| false).unwrap_err().to_string();
        assert!(said.contains("test.parquet") && said.contains("to nothing"), "{said}");
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

    /// Whichever byte of a file is another, and wherever it ends.
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
