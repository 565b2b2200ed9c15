//! `dataset prepare`: unpacks an original archive into the layout and checks it against the catalogue.
//!
//! Only catalogued paths are written, so no entry name of a hostile archive reaches the file system. Sizes are bounded
//! during unpacking, whatever the archive's headers say. The finished set appears by one rename, or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use zip::ZipArchive;

use super::Problems;
use super::catalogue::Entry;
use super::error::DatasetError;
use super::text::MAX_FILE_BYTES;

/// Maximum total size of the unpacked files, in bytes. No catalogued set is nearly as large.
const MAX_TOTAL_BYTES: u64 = 512 << 20;
/// Maximum number of entries in an archive.
const MAX_ENTRIES: usize = 20_000;
/// First bytes of a zip archive.
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";

/// The result of [`prepare`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The set's folder.
    pub root: PathBuf,
    /// Items by split.
    pub items: BTreeMap<String, usize>,
    /// Differences from the catalogue. Empty unless `any_revision` was set.
    pub differences: Vec<String>,
    /// Files of the archive that match no catalogued path.
    pub left_out: Vec<String>,
}

/// Unpacks `archive` to the new folder `out`. `archive` is a zip, or, for a set with a single file, that file itself.
///
/// `any_revision` accepts files that differ from the catalogue in hash or item count. Rows are still checked.
///
/// # Errors
/// When `out` is occupied, the archive is unsafe or incomplete, a row is malformed, files differ from the catalogue, or
/// `stopped` returns true. In these cases nothing is written to `out`.
pub fn prepare(
    entry: &Entry,
    archive: &Path,
    out: &Path,
    any_revision: bool,
    stopped: &dyn Fn() -> bool,
) -> Result<Prepared, DatasetError> {
    refuse_occupied(out)?;
    let mut file = File::open(archive).map_err(|e| DatasetError::io(archive, e))?;
    let start = start(&mut file).map_err(|e| DatasetError::io(archive, e))?;
    if start == LFS_POINTER {
        return Err(bad(archive, LFS_ADVICE));
    }
    let staging = Staging::beside(out)?;
    let left_out = if start.starts_with(ZIP_MAGIC) {
        unpack(entry, archive, file, &staging.path, stopped)?
    } else {
        take_single(entry, archive, file, &staging.path)?;
        Vec::new()
    };
    for support in entry.layout.support_files() {
        let path = staging.path.join(support.path);
        if !path.exists() {
            write(&path, (support.content)().as_bytes())?;
        }
    }

    let comparison = entry.compare(&staging.path).map_err(|e| staging.hide(e, archive))?;
    if !comparison.differences.is_empty() && !any_revision {
        let advice = "another revision of the set? `--any-revision` takes it as it is";
        return Err(bad(archive, format!("{}; {advice}", comparison.differences.join("; "))));
    }
    if stopped() {
        return Err(DatasetError::Stopped);
    }
    staging.publish(out)?;
    let root = out.to_path_buf();
    Ok(Prepared { root, items: comparison.items, differences: comparison.differences, left_out })
}

pub(super) fn bad(archive: &Path, message: impl Into<String>) -> DatasetError {
    DatasetError::Archive { path: archive.to_path_buf(), message: message.into() }
}

pub(super) fn refuse_occupied(out: &Path) -> Result<(), DatasetError> {
    let free = match fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => !out.exists(),
    };
    let expected = "a new folder; remove it first, or name another with --out";
    if free { Ok(()) } else { Err(DatasetError::layout(out, "something there already", expected)) }
}

/// Start of the pointer that stands for a large file in a repository cloned without Git LFS.
pub(super) const LFS_POINTER: &[u8] = b"version https://git-lfs";
/// What to do with one.
pub(super) const LFS_ADVICE: &str =
    "it is a Git LFS pointer, not the file itself; download the file it stands for (git lfs pull)";

/// Reads the first bytes of a file, enough to tell its type.
pub(super) fn start(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(LFS_POINTER.len());
    file.by_ref().take(LFS_POINTER.len() as u64).read_to_end(&mut start)?;
    file.rewind()?;
    Ok(start)
}

/// Accepts the data file itself for a set with a single file.
fn take_single(entry: &Entry, archive: &Path, file: File, to: &Path) -> Result<(), DatasetError> {
    let [only] = entry.files.as_slice() else {
        return Err(bad(
            archive,
            format!("found no zip archive; expected the original of `{}`: {}", entry.name, entry.original),
        ));
    };
    let bytes = read_bounded(file, archive, &only.path)?;
    write(&to.join(&only.path), &bytes)
}

/// Unpacks the catalogued files and returns the names of the others.
fn unpack(
    entry: &Entry,
    archive: &Path,
    file: File,
    to: &Path,
    stopped: &dyn Fn() -> bool,
) -> Result<Vec<String>, DatasetError> {
    let mut zip = ZipArchive::new(file).map_err(|e| bad(archive, e.to_string()))?;
    if zip.len() > MAX_ENTRIES {
        return Err(bad(archive, format!("found {} entries; expected at most {MAX_ENTRIES}", zip.len())));
    }
    let mut wanted: BTreeSet<&str> = entry.files.iter().map(|f| f.path.as_str()).collect();
    wanted.extend(entry.layout.support_files().iter().map(|support| support.path));
    let mut taken: BTreeMap<&str, String> = BTreeMap::new();
    let mut left_out = Vec::new();
    let mut total = 0;
    for index in 0..zip.len() {
        if stopped() {
            return Err(DatasetError::Stopped);
        }
        let member = zip.by_index(index).map_err(|e| bad(archive, e.to_string()))?;
        // Some Windows programs write `\` as the path separator into archives.
        let name = member.name().map_err(|e| bad(archive, e.to_string()))?.replace('\\', "/");
        if !stays_inside(&name) {
            return Err(bad(
                archive,
                format!("the entry {name:?} points outside the archive; expected paths inside it"),
            ));
        }
        if member.is_dir() || name.ends_with('/') {
            continue;
        }
        let Some(path) = wanted.iter().copied().find(|path| is_at(&name, path)) else {
            left_out.push(name);
            continue;
        };
        if !member.is_file() {
            return Err(bad(archive, format!("the entry {name:?} is a link; expected a file")));
        }
        if let Some(first) = taken.insert(path, name.clone()) {
            return Err(bad(archive, format!("both {first:?} and {name:?} are {path}; expected one")));
        }
        let bytes = read_bounded(member, archive, &name)?;
        total += bytes.len() as u64;
        if total > MAX_TOTAL_BYTES {
            return Err(bad(archive, format!("unpacks to more than {MAX_TOTAL_BYTES} bytes")));
        }
        write(&to.join(path), &bytes)?;
    }
    let missing: Vec<&str> =
        entry.files.iter().map(|f| f.path.as_str()).filter(|path| !taken.contains_key(path)).collect();
    match missing.as_slice() {
        [] => Ok(left_out),
        [first, ..] => Err(bad(
            archive,
            format!(
                "holds {} of the {} files of `{}`; missing: {first}{}",
                entry.files.len() - missing.len(),
                entry.files.len(),
                entry.name,
                if missing.len() > 1 { ", …" } else { "" }
            ),
        )),
    }
}

/// Returns whether an entry's name (separator `/`) is a plain relative path on every operating system.
fn stays_inside(name: &str) -> bool {
    let mut components = name.split('/');
    !name.starts_with('/') && !name.contains(['\0', ':']) && components.all(|c| c != "..")
}

/// Returns whether an archive entry is the catalogued path, at the top level or in a folder.
fn is_at(name: &str, path: &str) -> bool {
    name.strip_suffix(path).is_some_and(|before| before.is_empty() || before.ends_with('/'))
}

/// Reads at most [`MAX_FILE_BYTES`]. Archive headers are not trusted.
fn read_bounded(reader: impl Read, archive: &Path, name: &str) -> Result<Vec<u8>, DatasetError> {
    let mut bytes = Vec::new();
    reader
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| bad(archive, format!("the entry {name:?} cannot be unpacked: {e}")))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(bad(archive, format!("the entry {name:?} unpacks to more than {MAX_FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), DatasetError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|e| DatasetError::io(parent, e))?;
    }
    fs::write(path, bytes).map_err(|e| DatasetError::io(path, e))
}

/// A temporary folder next to the final one, removed unless published.
pub(super) struct Staging {
    pub(super) path: PathBuf,
}

impl Staging {
    pub(super) fn beside(out: &Path) -> Result<Self, DatasetError> {
        let Some(name) = out.file_name() else {
            return Err(DatasetError::layout(out, "no folder name", "the name of a new folder"));
        };
        let parent = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(|e| DatasetError::io(parent, e))?;
        let path = parent.join(format!(".{}.preparing-{}", name.to_string_lossy(), std::process::id()));
        fs::create_dir(&path).map_err(|e| DatasetError::io(&path, e))?;
        Ok(Self { path })
    }

    /// Rewrites paths in the staging folder to paths in the archive. The staging folder no longer exists when the error
    /// is read.
    fn hide(&self, error: DatasetError, archive: &Path) -> DatasetError {
        let relative = |path: &Path| archive.join(path.strip_prefix(&self.path).unwrap_or(path));
        match error {
            DatasetError::Rows(Problems(mut problems)) => {
                for problem in &mut problems {
                    problem.path = relative(&problem.path);
                }
                DatasetError::Rows(Problems(problems))
            }
            DatasetError::Layout { path, found, expected } => {
                DatasetError::Layout { path: relative(&path), found, expected }
            }
            other => other,
        }
    }

    pub(super) fn publish(self, out: &Path) -> Result<(), DatasetError> {
        fs::rename(&self.path, out).map_err(|e| DatasetError::io(out, e))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After `publish` the path no longer exists, so this removal fails harmlessly.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{BOOLQ, DataFile, sha256_hex};
    use std::io::{Cursor, Write as _};
    use zip::write::SimpleFileOptions;

    const ROW: &str =
        "{\"question\": \"is it so\", \"title\": \"It\", \"answer\": true, \"passage\": \"It is so.\"}\n";

    fn entry() -> Entry {
        Entry {
            name: "boolq-tiny".into(),
            benchmark: &BOOLQ,
            layout: BOOLQ.layouts[0],
            licence: String::new(),
            original: "the test above".into(),
            shipped: false,
            files: vec![DataFile { path: "dev.jsonl".into(), sha256: sha256_hex(ROW.as_bytes()), items: 1 }],
        }
    }

    fn zip_of(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in members {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    /// Prepares the bytes as an archive in a fresh folder. Also returns the folder's contents afterwards.
    fn try_prepare(archive: &[u8], any_revision: bool) -> (Result<Prepared, String>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("original");
        fs::write(&path, archive).unwrap();
        let result = prepare(&entry(), &path, &dir.path().join("set"), any_revision, &|| false);
        let mut left: Vec<String> =
            fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        (result.map_err(|e| e.to_string()), left)
    }

    fn refused(archive: &[u8]) -> String {
        let (result, left) = try_prepare(archive, false);
        assert_eq!(left, ["original"], "nothing is left behind");
        result.unwrap_err()
    }

    #[test]
    fn a_set_of_one_file_is_taken_as_that_file_or_from_a_zip_at_any_depth() {
        let zips = [
            zip_of(&[("dev.jsonl", ROW.as_bytes())]),
            zip_of(&[("BoolQ/data/dev.jsonl", ROW.as_bytes()), ("README", b"x")]),
            zip_of(&[("BoolQ\\data\\", b""), ("BoolQ\\data\\dev.jsonl", ROW.as_bytes())]),
        ];
        for archive in [ROW.as_bytes(), &zips[0], &zips[1], &zips[2]] {
            let (result, left) = try_prepare(archive, false);
            assert_eq!(result.unwrap().items["dev"], 1);
            assert_eq!(left, ["original", "set"]);
        }
        assert_eq!(try_prepare(&zips[1], false).0.unwrap().left_out, ["README"]);
    }

    #[test]
    fn an_entry_that_points_outside_refuses_the_archive() {
        for name in [
            "../dev.jsonl",
            "/dev.jsonl",
            "a/../../dev.jsonl",
            "..\\dev.jsonl",
            "a\\..\\dev.jsonl",
            "\\dev.jsonl",
            "\\\\host\\dev.jsonl",
            "C:/dev.jsonl",
            "C:\\dev.jsonl",
        ] {
            let message = refused(&zip_of(&[(name, ROW.as_bytes())]));
            assert!(message.contains("points outside"), "{message}");
        }
    }

    #[test]
    fn a_bomb_is_cut_off_at_the_limit() {
        let zeros = vec![0; (MAX_FILE_BYTES + 1) as usize];
        let message = refused(&zip_of(&[("dev.jsonl", &zeros)]));
        assert!(message.contains("more than"), "{message}");
    }

    #[test]
    fn two_entries_for_one_file_a_missing_file_and_a_cut_archive_are_refused() {
        for second in ["b/dev.jsonl", "b\\dev.jsonl", "a\\dev.jsonl"] {
            let twice = zip_of(&[("a/dev.jsonl", ROW.as_bytes()), (second, ROW.as_bytes())]);
            assert!(refused(&twice).contains("expected one"), "{second}");
        }
        assert!(refused(&zip_of(&[("train.jsonl", ROW.as_bytes())])).contains("missing: dev.jsonl"));
        let whole = zip_of(&[("dev.jsonl", ROW.as_bytes())]);
        for cut in [5, whole.len() / 2, whole.len() - 1] {
            refused(&whole[..cut]);
        }
    }

    #[test]
    fn a_pointer_of_git_lfs_is_called_that() {
        let message = refused(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
        assert!(message.contains("Git LFS pointer"), "{message}");
        assert!(!refused(b"ver").contains("Git LFS pointer"));
    }

    #[test]
    fn another_revision_is_refused_unless_asked_for_and_a_wrong_row_always() {
        let other = ROW.replace("is it so", "is it");
        assert!(refused(other.as_bytes()).contains("--any-revision"));
        let prepared = try_prepare(other.as_bytes(), true).0.unwrap();
        assert!(prepared.differences[0].starts_with("dev.jsonl has the sha256"));
        let message = try_prepare(b"{}\n", true).0.unwrap_err();
        assert!(message.contains("original/dev.jsonl:1: "), "{message}");
    }

    #[test]
    fn an_occupied_place_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("dev.jsonl");
        fs::write(&archive, ROW).unwrap();
        let message = prepare(&entry(), &archive, dir.path(), false, &|| false).unwrap_err().to_string();
        assert!(message.contains("something there already"), "{message}");
    }

    #[test]
    fn what_is_stopped_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("dev.jsonl");
        fs::write(&archive, ROW).unwrap();
        let error = prepare(&entry(), &archive, &dir.path().join("set"), true, &|| true).unwrap_err();
        assert!(matches!(error, DatasetError::Stopped), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
