//! The file of packed weights beside a checkpoint. Later processes map it, instead of reading and packing the weights.
//!
//! The file has a header of `HEADER` bytes, the parts of all ranks at multiples of `ALIGNMENT`, and an index in JSON at
//! its end. The header has, little-endian: `MAGIC`, `SCHEMA` (32 bits), 32 zero bits, offset and length of the index (64 bits
//! each), the key, and the SHA-256 of these fields and the index. The key is the SHA-256 of all that decides on the parts.
//!
//! All of it is checked before a part is used: header and index by the SHA-256, each part by its CRC-32 in the index. Only the
//! padding between parts may be anything.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::map::WeightMap;
use super::output::{sweep, sync_folder};
use super::watch::WeightFault;
use super::{Part, RawTensor, StorageType, StoredTensor, TensorView, WeightError, WeightSource, layout};

/// Extension of the file's name.
pub const EXTENSION: &str = "packs";
/// The first bytes of the file.
const MAGIC: [u8; 8] = *b"glmpacks";
/// The layout of the file, and the order in which a model is loaded: that of the parts.
const SCHEMA: u32 = 1;
/// Size of the header in bytes: its fields, padded to [`ALIGNMENT`].
const HEADER: usize = 128;
/// Bytes of the header that the checksum covers.
const COVERED: usize = 64;
/// Alignment of each part in bytes: a cache line.
const ALIGNMENT: u64 = 64;
/// Largest index that is read, in bytes.
const INDEX_LIMIT: u64 = 1 << 26;
/// Age in seconds from which a file's times tell whether it was changed. File systems round times, some to two seconds.
const SETTLED_S: i64 = 5;

/// SHA-256 of all that decides on the bytes of the parts.
type Key = [u8; 32];

/// Where a part is in the file, and the CRC-32 of its content.
type Checked = (Range<usize>, u32);

/// The index.
#[derive(Debug, Serialize, Deserialize)]
struct Index {
    /// Offset and length in bytes of each part, and the CRC-32 of its content, rank by rank.
    ranks: Vec<Vec<(u64, u64, u32)>>,
    faults: Vec<Fault>,
}

/// A [`WeightFault`].
#[derive(Debug, Serialize, Deserialize)]
struct Fault {
    tensor: String,
    index: Vec<usize>,
    stored: String,
    /// The bits, because JSON has no NaN.
    value: u32,
    becomes: Option<String>,
    count: usize,
    of: usize,
}

impl From<&WeightFault> for Fault {
    fn from(fault: &WeightFault) -> Self {
        Self {
            tensor: fault.tensor.clone(),
            index: fault.index.clone(),
            stored: fault.stored.name().to_owned(),
            value: fault.value.to_bits(),
            becomes: fault.becomes.map(|dtype| dtype.name().to_owned()),
            count: fault.count,
            of: fault.of,
        }
    }
}

impl Fault {
    fn read(self) -> Option<WeightFault> {
        Some(WeightFault {
            tensor: self.tensor,
            index: self.index,
            stored: StorageType::from_name(&self.stored)?,
            value: f32::from_bits(self.value),
            becomes: self.becomes.map(|word| word.parse()).transpose().ok()?,
            count: self.count,
            of: self.of,
        })
    }
}

/// What became of the cache of packed weights.
#[derive(Debug)]
pub struct PackCache {
    /// Where the weights came from, and whether they were kept.
    pub used: PackUse,
    /// What the user should know, sentence by sentence.
    pub notes: Vec<String>,
}

/// How a cache of packed weights was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackUse {
    /// The weights were mapped from it.
    Mapped,
    /// The weights were packed, and written to it.
    Written,
    /// The weights were packed. The cache could not be written.
    Failed,
}

impl PackUse {
    /// Returns the word for the record.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mapped => "mapped",
            Self::Written => "written",
            Self::Failed => "failed",
        }
    }
}

/// A file of packed weights, by its place and key.
#[derive(Debug)]
pub(crate) struct PackFile {
    path: PathBuf,
    /// All that decides on the parts besides the weights.
    made: String,
    ranks: usize,
    key: Key,
    /// Whether later changes of the checkpoint would change the times of its files.
    is_settled: bool,
}

/// Packed weights of a file.
#[derive(Debug)]
pub(crate) struct PackedWeights {
    /// The file.
    pub(crate) map: Arc<WeightMap>,
    /// The parts of each rank, in the order in which they were kept.
    pub(crate) ranks: Vec<Vec<Range<usize>>>,
    /// What was found when the weights were packed.
    pub(crate) faults: Vec<WeightFault>,
}

impl PackFile {
    /// Describes the file with this path for the weights of `source`. `made` is all that decides on the parts besides the
    /// weights.
    ///
    /// # Errors
    /// The system does not tell the state of a weight file.
    pub(crate) fn new(
        path: PathBuf,
        made: &str,
        ranks: usize,
        source: &dyn WeightSource,
    ) -> Result<Self, String> {
        let made = format!("{made}\0{ranks}");
        let (key, newest) = identity(&made, source)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let is_settled = newest <= now as i64 - SETTLED_S;
        Ok(Self { path, made, ranks, key, is_settled })
    }

    /// Opens the file; `None` if there is none.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or is of other weights or settings.
    pub(crate) fn open(&self) -> Result<Option<PackedWeights>, String> {
        let map = match WeightMap::open(&self.path) {
            Err(WeightError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            opened => opened.map_err(|error| error.to_string())?,
        };
        let read = self.read(map.bytes()).and_then(|(parts, faults)| {
            // One by one, pages would take as long to map as to check.
            map.populate();
            Ok((checked(map.bytes(), parts)?, faults))
        });
        let (ranks, faults) = read.map_err(|problem| format!("{}: {problem}", self.path.display()))?;
        Ok(Some(PackedWeights { map: Arc::new(map), ranks, faults }))
    }

    /// Checks header and index. Returns the parts of each rank, with their checksums.
    fn read(&self, bytes: &[u8]) -> Result<(Vec<Vec<Checked>>, Vec<WeightFault>), String> {
        let header = bytes.first_chunk::<HEADER>().ok_or_else(|| damaged("cut short"))?;
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        if header[..8] != MAGIC || header[8..16] != u64::from(SCHEMA).to_le_bytes() {
            return Err(format!("no packed weights of schema {SCHEMA}"));
        }
        let (start, length) = (long(16), long(24));
        if start.checked_add(length) != Some(bytes.len() as u64) {
            return Err(damaged("its length is not that in the header"));
        }
        let index = bytes.get(start as usize..).filter(|_| start >= HEADER as u64 && length <= INDEX_LIMIT);
        let index = index.ok_or_else(|| damaged("the index is out of place"))?;
        let (covered, rest) = header.split_at(COVERED);
        let (sum, padding) = rest.split_at(size_of::<Key>());
        if *sum != checksum(covered, index) || padding.iter().any(|&byte| byte != 0) {
            return Err(damaged("the checksum of header and index is wrong"));
        }
        if covered[COVERED - size_of::<Key>()..] != self.key {
            return Err("of other weights, or of another version of this program".to_owned());
        }
        let index: Index = serde_json::from_slice(index).map_err(|error| damaged(&error.to_string()))?;
        let part = |(at, length, crc): (u64, u64, u32)| {
            let end = at.checked_add(length).filter(|&end| end <= start)?;
            (at >= HEADER as u64 && at.is_multiple_of(ALIGNMENT)).then_some((at as usize..end as usize, crc))
        };
        let ranks: Option<Vec<Vec<_>>> =
            index.ranks.into_iter().map(|parts| parts.into_iter().map(part).collect()).collect();
        let ranks = ranks.filter(|ranks| ranks.len() == self.ranks);
        let faults: Option<Vec<_>> = index.faults.into_iter().map(Fault::read).collect();
        ranks.zip(faults).ok_or_else(|| damaged("the index has parts or words that cannot be"))
    }

    /// Starts to write the file. It gets its name once it is complete.
    ///
    /// # Errors
    /// The weights have just changed, or the folder cannot be written.
    pub(crate) fn create(self) -> Result<Writer, String> {
        /// Distinguishes the writers of a process.
        static WRITERS: AtomicU64 = AtomicU64::new(0);
        if !self.is_settled {
            return Err(format!(
                "the times of the weight files say that they changed less than {SETTLED_S} s ago; a later run can keep them"
            ));
        }
        let (folder, name) = (self.path.parent().unwrap_or(Path::new(".")), self.path.file_name());
        let hidden = format!(".{}.part-", name.unwrap_or_default().to_string_lossy());
        let number = u64::from(std::process::id()) * 1000 + WRITERS.fetch_add(1, Ordering::Relaxed) % 1000;
        let part = folder.join(format!("{hidden}{number}"));
        let create = || {
            sweep(folder, &hidden)?;
            let out = File::create_new(&part)?;
            // Held against the sweep of other processes. Where files cannot be locked, they count as held.
            drop(out.try_lock());
            Ok(out)
        };
        let out = create().map_err(|error: io::Error| format!("{}: {error}", part.display()))?;
        let ranks = vec![Vec::new(); self.ranks];
        let state = State { out, end: 0, ranks, result: Ok(()), is_published: false };
        let writer = Writer { file: self, part, state: Mutex::new(state) };
        writer.lock().append(&[0; HEADER]);
        Ok(writer)
    }
}

/// Returns the SHA-256 of a header's fields and the index.
fn checksum(covered: &[u8], index: &[u8]) -> Key {
    Sha256::new().chain_update(covered).chain_update(index).finalize().into()
}

fn damaged(problem: &str) -> String {
    format!("damaged: {problem}")
}

/// Checks the content of all parts, on all cores.
fn checked(bytes: &[u8], ranks: Vec<Vec<Checked>>) -> Result<Vec<Vec<Range<usize>>>, String> {
    let parts = ranks.concat();
    // Parts that overlap could have more bytes than anyone wants to read.
    let total = parts.iter().try_fold(0_usize, |total, (part, _)| total.checked_add(part.len()));
    if total.is_none_or(|total| total > bytes.len()) {
        return Err(damaged("its parts overlap"));
    }
    let (next, are_whole) = (AtomicUsize::new(0), AtomicBool::new(true));
    let work = || {
        while let Some((part, crc)) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
            if crc32fast::hash(&bytes[part.clone()]) != *crc {
                are_whole.store(false, Ordering::Relaxed);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    if !are_whole.into_inner() {
        return Err(damaged("the checksum of a weight is wrong"));
    }
    let ranges = |parts: Vec<Checked>| parts.into_iter().map(|(part, _)| part).collect();
    Ok(ranks.into_iter().map(ranges).collect())
}

/// Returns the key, and the latest time of a weight file in seconds since 1970. Tensors count by name, type and shape; their files
/// by name and state.
fn identity(made: &str, source: &dyn WeightSource) -> Result<(Key, i64), String> {
    let mut hasher = Sha256::new().chain_update(made);
    let mut stored = source.stored();
    stored.sort_by(|a, b| a.name.cmp(&b.name));
    for StoredTensor { name, dtype, shape, origin, .. } in &stored {
        hasher.update(format!("\0{name}\0{dtype}\0{shape:?}\0{}", name_of(origin)));
    }
    let mut newest = 0;
    for file in stored.iter().map(|tensor| &tensor.origin).collect::<BTreeSet<_>>() {
        let (state, time) = state(file).map_err(|error| format!("{file}: {error}"))?;
        newest = newest.max(time);
        hasher.update(format!("\0{}\0{state}", name_of(file)));
    }
    Ok((hasher.finalize().into(), newest))
}

fn name_of(file: &str) -> String {
    Path::new(file).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Returns what changes if a file's content does, and the later of its two times in seconds since 1970.
///
/// The times are those of the last write and of the last change of the inode. Programs can set the first one back, not the second.
#[cfg(unix)]
fn state(file: &str) -> io::Result<(String, i64)> {
    use std::os::unix::fs::MetadataExt as _;
    let found = fs::metadata(file)?;
    let written = (found.mtime(), found.mtime_nsec());
    let changed = (found.ctime(), found.ctime_nsec());
    let state = format!("{} {written:?} {changed:?} {}", found.len(), found.ino());
    Ok((state, written.0.max(changed.0)))
}

/// Without an inode, a file that replaced another of the same size and time would not be noticed.
#[cfg(not(unix))]
fn state(_: &str) -> io::Result<(String, i64)> {
    Err(io::Error::other("this system does not tell whether a file was replaced"))
}

/// Writes the file under a hidden name, and removes it unless it is published. The next writer removes what a killed process
/// left.
#[derive(Debug)]
pub(crate) struct Writer {
    file: PackFile,
    part: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    out: File,
    end: u64,
    ranks: Vec<Vec<(u64, u64, u32)>>,
    /// The first error. Nothing is written after it.
    result: io::Result<()>,
    is_published: bool,
}

impl State {
    fn append(&mut self, bytes: &[u8]) {
        if self.result.is_ok() {
            self.result = self.out.write_all(bytes);
            self.end += bytes.len() as u64;
        }
    }

    fn pad(&mut self) {
        let padding = self.end.next_multiple_of(ALIGNMENT) - self.end;
        self.append(&[0; ALIGNMENT as usize][..padding as usize]);
    }
}

impl Writer {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a part of a rank. [`publish`](Self::publish) returns the error, if any.
    pub(crate) fn keep(&self, rank: usize, part: &[u8]) {
        let mut state = self.lock();
        state.pad();
        let at = state.end;
        state.ranks[rank].push((at, part.len() as u64, crc32fast::hash(part)));
        state.append(part);
    }

    /// Completes the file and gives it its name, or removes it.
    ///
    /// # Errors
    /// An I/O error, or the weights changed since the writer was created.
    pub(crate) fn publish(&self, source: &dyn WeightSource, faults: &[WeightFault]) -> Result<(), String> {
        let published = self.try_publish(source, faults);
        if published.is_err() {
            self.remove();
        }
        published
    }

    fn try_publish(&self, source: &dyn WeightSource, faults: &[WeightFault]) -> Result<(), String> {
        let PackFile { path, made, key, .. } = &self.file;
        if identity(made, source)?.0 != *key {
            return Err("the weights changed while they were read".to_owned());
        }
        let mut state = self.lock();
        let named = self.finish(&mut state, faults).and_then(|()| fs::rename(&self.part, path));
        named.map_err(|error| format!("{}: {error}", self.part.display()))?;
        state.is_published = true;
        sync_folder(path.parent().unwrap_or(Path::new(".")));
        Ok(())
    }

    fn finish(&self, state: &mut State, faults: &[WeightFault]) -> io::Result<()> {
        state.pad();
        let ranks = std::mem::take(&mut state.ranks);
        let index = serde_json::to_vec(&Index { ranks, faults: faults.iter().map(Fault::from).collect() })?;
        let numbers = [u64::from_le_bytes(MAGIC), u64::from(SCHEMA), state.end, index.len() as u64];
        let mut header = numbers.map(u64::to_le_bytes).concat();
        header.extend(self.file.key);
        header.extend(checksum(&header, &index));
        state.append(&index);
        std::mem::replace(&mut state.result, Ok(()))?;
        state.out.seek(SeekFrom::Start(0))?;
        state.out.write_all(&header)?;
        // Before the name, so that no crash of the system leaves a named file with holes.
        state.out.sync_all()
    }

    fn remove(&self) {
        // If this fails, the next writer removes the file.
        drop(fs::remove_file(&self.part));
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.lock().is_published {
            self.remove();
        }
    }
}

/// A source that gives matrices without their numbers, for a device whose packed weights were kept. Vectors have their
/// numbers, and so has the embedding of a P-tuning prefix, which is computed with while a model is loaded.
pub(crate) struct Hollow(pub(crate) Arc<dyn WeightSource>);

impl WeightSource for Hollow {
    fn place(&self) -> String {
        self.0.place()
    }

    fn stored(&self) -> Vec<StoredTensor> {
        self.0.stored()
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>, WeightError> {
        self.part(name, shape, &Part::Whole)
    }

    fn part(&self, name: &str, shape: &[usize], part: &Part) -> Result<TensorView<'_>, WeightError> {
        if shape.len() != 2 || name == layout::PREFIX_EMBEDDING {
            return self.0.part(name, shape, part);
        }
        let data = (&[] as &[u8]).into();
        Ok(TensorView { name: name.to_owned(), dtype: self.0.dtype(), shape: part.shape(shape), data })
    }

    fn raw(&self, name: &str) -> Option<RawTensor<'_>> {
        let raw = self.0.raw(name)?;
        // Only weights are int8.
        Some(if raw.dtype == "I8" { RawTensor { data: (&[] as &[u8]).into(), ..raw } } else { raw })
    }

    fn release(&self, name: &str) {
        self.0.release(name);
    }

    fn dtype(&self) -> StorageType {
        self.0.dtype()
    }

    fn fingerprint(&self, hashed: &(dyn Fn(u64) + Sync)) -> Result<String, WeightError> {
        self.0.fingerprint(hashed)
    }
}

#[cfg(test)]
mod tests;
