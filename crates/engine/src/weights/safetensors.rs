//! Checkpoints in memory-mapped safetensors files: one file, or shards.
//!
//! Format: eight bytes of header length, a JSON header (name → type, shape, byte range), the data.
//! <https://github.com/huggingface/safetensors>

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use ::safetensors::tensor::Metadata;
use serde::Deserialize;
use serde_json::{Map, json};
use sha2::{Digest, Sha256};

use super::map::WeightMap;
use super::tensor::ElementType;
use super::{RawTensor, StorageType, StoredTensor, TensorView, WeightError, WeightSource, combine, layout};
use crate::lfs;

/// File name of a checkpoint in one file.
pub const SINGLE_FILE: &str = "model.safetensors";
/// File name of the index of a sharded checkpoint.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// Largest accepted header and index, in bytes; the 6B model's have about 25,000.
const HEADER_LIMIT: u64 = 100_000_000;
/// Size in bytes of the length field before the header.
const LENGTH_FIELD: usize = 8;
/// Bytes hashed between two releases of pages.
const HASH_CHUNK: usize = 4 << 20;

/// A shard index; pickled checkpoints use the same format.
#[derive(Deserialize)]
pub(super) struct IndexWire {
    /// Tensor name to file name.
    pub(super) weight_map: BTreeMap<String, String>,
}

impl IndexWire {
    /// Reads an index. All its files must lie in its folder.
    pub(super) fn read(path: &Path) -> Result<Self, WeightError> {
        let failed = |source| WeightError::Read { path: path.to_path_buf(), source };
        let broken = |problem| WeightError::Format { path: path.to_path_buf(), problem };
        let found = std::fs::metadata(path).map_err(failed)?;
        if !found.is_file() || found.len() > HEADER_LIMIT {
            return Err(broken(format!("expected a regular file of at most {HEADER_LIMIT} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let index: Self = serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
        match index.weight_map.iter().find(|(_, file)| !is_plain_name(file)) {
            Some((name, file)) => Err(broken(format!(
                "tensor {name} is in {file:?}, expected the name of a file in this folder"
            ))),
            None => Ok(index),
        }
    }

    /// Returns the shards' file names, without duplicates, sorted.
    pub(super) fn files(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }
}

fn is_plain_name(file: &str) -> bool {
    let mut parts = Path::new(file).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == file)
}

/// Location of one tensor.
#[derive(Debug)]
struct Entry {
    shard: usize,
    dtype: String,
    shape: Vec<usize>,
    range: Range<usize>,
}

/// Mapped safetensors files and the locations of their tensors.
#[derive(Debug)]
pub struct Checkpoint {
    place: PathBuf,
    shards: Vec<WeightMap>,
    entries: BTreeMap<String, Entry>,
}

impl Checkpoint {
    /// Opens a checkpoint in one file.
    pub fn open_file(path: &Path) -> Result<Self, WeightError> {
        let mut checkpoint = Self::empty(path);
        checkpoint.add_shard(path)?;
        Ok(checkpoint)
    }

    /// Opens the shards of an index, and checks that each tensor is in the file that the index names.
    pub fn open_index(path: &Path) -> Result<Self, WeightError> {
        let index = IndexWire::read(path)?;
        let mut checkpoint = Self::empty(path);
        for file in index.files() {
            checkpoint.add_shard(&path.with_file_name(file))?;
        }
        checkpoint.check_index(&index)?;
        Ok(checkpoint)
    }

    /// Opens the shards that together form the checkpoint of the folder `dir`.
    pub fn open_shards(dir: &Path, paths: &[PathBuf]) -> Result<Self, WeightError> {
        let mut checkpoint = Self::empty(dir);
        paths.iter().try_for_each(|path| checkpoint.add_shard(path))?;
        Ok(checkpoint)
    }

    fn empty(place: &Path) -> Self {
        Self { place: place.to_path_buf(), shards: Vec::new(), entries: BTreeMap::new() }
    }

    fn add_shard(&mut self, path: &Path) -> Result<(), WeightError> {
        let map = WeightMap::open(path)?;
        let broken = |problem| WeightError::Format { path: path.to_path_buf(), problem };
        let (header, data_start) = read_header(map.bytes()).map_err(broken)?;
        for (name, info) in header.tensors() {
            let entry = Entry {
                shard: self.shards.len(),
                dtype: info.dtype.to_string(),
                shape: info.shape.clone(),
                range: data_start + info.data_offsets.0..data_start + info.data_offsets.1,
            };
            if let Some(other) = self.entries.get(&name) {
                let other = self.shards[other.shard].path().display();
                return Err(broken(format!(
                    "tensor {name} is also in {other}, expected it in one file only"
                )));
            }
            self.entries.insert(name, entry);
        }
        self.shards.push(map);
        Ok(())
    }

    fn check_index(&self, index: &IndexWire) -> Result<(), WeightError> {
        let is_there = |name: &str, file: &str| {
            self.entries.get(name).is_some_and(|entry| self.shards[entry.shard].path().ends_with(file))
        };
        match index.weight_map.iter().find(|(name, file)| !is_there(name, file)) {
            Some((name, file)) => Err(WeightError::Format {
                path: self.place.clone(),
                problem: format!("tensor {name} is not in {file}, where this index has it"),
            }),
            None => Ok(()),
        }
    }

    fn origin(&self, entry: &Entry) -> String {
        self.shards[entry.shard].path().display().to_string()
    }

    /// Hashes one tensor: name, type, shape and data.
    fn digest(&self, name: &str, entry: &Entry, hashed: &(dyn Fn(u64) + Sync)) -> Vec<u8> {
        let shard = &self.shards[entry.shard];
        let mut hasher = Sha256::new();
        hasher.update(format!("{name}\0{}\0{:?}\0", entry.dtype, entry.shape));
        for start in entry.range.clone().step_by(HASH_CHUNK) {
            let range = start..entry.range.end.min(start + HASH_CHUNK);
            hasher.update(&shard.bytes()[range.clone()]);
            hashed(range.len() as u64);
            shard.release(range);
        }
        hasher.finalize().to_vec()
    }
}

/// Reads a file's header and the offset of its data. Checks that every byte range lies inside the file, and that they
/// cover all data.
fn read_header(bytes: &[u8]) -> Result<(Metadata, usize), String> {
    if lfs::is_pointer(bytes) {
        return Err(lfs::POINTER.to_owned());
    }
    let (length, rest) = bytes
        .split_first_chunk::<LENGTH_FIELD>()
        .ok_or_else(|| format!("{} bytes are no safetensors file", bytes.len()))?;
    let length = u64::from_le_bytes(*length);
    if length > HEADER_LIMIT {
        return Err(format!(
            "no safetensors file: a header of {length} bytes, expected at most {HEADER_LIMIT}"
        ));
    }
    let header = rest.get(..length as usize).ok_or_else(|| {
        format!("cut short: the header alone has {length} bytes, the file {} in all", bytes.len())
    })?;
    let metadata: Metadata =
        serde_json::from_slice(header).map_err(|error| format!("safetensors header: {error}"))?;
    let (found, expected) = (rest.len() - header.len(), metadata.data_len());
    match found.cmp(&expected) {
        std::cmp::Ordering::Less => {
            Err(format!("cut short: {found} bytes of numbers, the header promises {expected}"))
        }
        std::cmp::Ordering::Greater => {
            Err(format!("{found} bytes of numbers, more than the {expected} of the header"))
        }
        std::cmp::Ordering::Equal => Ok((metadata, LENGTH_FIELD + length as usize)),
    }
}

/// Returns the length field and header of a file with these tensors (name, type, shape) in this order, without gaps.
pub(super) fn header<'a>(tensors: impl Iterator<Item = (&'a str, ElementType, &'a [usize])>) -> Vec<u8> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut start = 0;
    for (name, dtype, shape) in tensors {
        let end = start + shape.iter().product::<usize>() * dtype.bytes();
        let info = json!({"dtype": dtype.name(), "shape": shape, "data_offsets": [start, end]});
        header.insert(name.to_owned(), info);
        start = end;
    }
    framed(&serde_json::Value::Object(header))
}

/// Returns a header with its length field.
pub(crate) fn framed(header: &serde_json::Value) -> Vec<u8> {
    let mut text = header.to_string();
    // Padded with blanks to a multiple of eight, which aligns the data in the file.
    text.push_str(&" ".repeat(text.len().next_multiple_of(LENGTH_FIELD) - text.len()));
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

impl WeightSource for Checkpoint {
    fn place(&self) -> String {
        self.place.display().to_string()
    }

    fn stored(&self) -> Vec<StoredTensor> {
        let describe = |(name, entry): (&String, &Entry)| StoredTensor {
            name: name.clone(),
            dtype: entry.dtype.clone(),
            shape: entry.shape.clone(),
            bytes: entry.range.len() as u64,
            origin: self.origin(entry),
        };
        self.entries.iter().map(describe).collect()
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>, WeightError> {
        let name = name.to_owned();
        let Some(entry) = self.entries.get(&name) else {
            return Err(WeightError::MissingTensor { place: self.place(), name, expected: shape.to_vec() });
        };
        let place = self.origin(entry);
        if entry.shape != shape {
            let (found, expected) = (entry.shape.clone(), shape.to_vec());
            return Err(WeightError::Shape { place, name, found, expected });
        }
        let Some(dtype) = StorageType::from_name(&entry.dtype) else {
            return Err(WeightError::Type { place, name, found: entry.dtype.clone() });
        };
        let data = Cow::Borrowed(&self.shards[entry.shard].bytes()[entry.range.clone()]);
        Ok(TensorView { name, dtype, shape: entry.shape.clone(), data })
    }

    fn raw(&self, name: &str) -> Option<RawTensor<'_>> {
        let entry = self.entries.get(name)?;
        Some(RawTensor {
            dtype: entry.dtype.clone(),
            shape: entry.shape.clone(),
            data: Cow::Borrowed(&self.shards[entry.shard].bytes()[entry.range.clone()]),
            origin: self.origin(entry),
        })
    }

    fn release(&self, name: &str) {
        if let Some(entry) = self.entries.get(name) {
            self.shards[entry.shard].release(entry.range.clone());
        }
    }

    fn dtype(&self) -> StorageType {
        let stored = |dtype: &StorageType| -> usize {
            let same = self.entries.values().filter(|entry| entry.dtype == dtype.name());
            same.map(|entry| entry.range.len()).sum()
        };
        // On a tie the last one wins: fp16, the main type.
        [StorageType::F32, StorageType::Bf16, StorageType::F16]
            .into_iter()
            .max_by_key(stored)
            .expect("invariant: there are storage types")
    }

    fn fingerprint(&self, hashed: &(dyn Fn(u64) + Sync)) -> Result<String, WeightError> {
        let entries: Vec<_> = self.entries.iter().filter(|(name, _)| *name != layout::INV_FREQ).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            let mut digests = Vec::new();
            while let Some((name, entry)) = entries.get(next.fetch_add(1, Ordering::Relaxed)) {
                digests.push((*name, self.digest(name, entry, hashed)));
            }
            digests
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let digests: BTreeMap<_, _> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let join = |worker: std::thread::ScopedJoinHandle<'_, _>| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            workers.into_iter().flat_map(join).collect::<BTreeMap<&String, Vec<u8>>>()
        });
        Ok(combine(digests.into_values()))
    }
}
