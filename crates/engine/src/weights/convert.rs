//! Conversion of pickled checkpoints to safetensors, shard by shard, without executing any code.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::choice::{Choice, Names};
use super::output::Staging;
pub use super::pickle::PickleError;
use super::pickle::StateTensor;
use super::safetensors::{INDEX_FILE, IndexWire, SINGLE_FILE};
pub use super::torch_zip::TorchError;
use super::torch_zip::{TorchFile, open_regular, tensor_bytes};
use super::{WeightError, safetensors};

/// File names of pickled checkpoints.
const PICKLED: Names<'static> = Names {
    single: "pytorch_model.bin",
    index: "pytorch_model.bin.index.json",
    stem: None,
    extension: "bin",
};
/// Extensions of small files that belong to a model: config, tokenizer, and the code with which other programs load it.
const COMPANIONS: [&str; 4] = ["json", "model", "py", "txt"];

/// Errors of a conversion.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The folder holds no pickled weights.
    #[error(
        "{}: expected {}, shards with {}, or shards numbered 1 to their number{}",
        dir.display(), PICKLED.single, PICKLED.index, hint(*is_safetensors)
    )]
    NothingToConvert {
        /// The folder.
        dir: PathBuf,
        /// Whether it holds safetensors instead.
        is_safetensors: bool,
    },
    /// The shard index is broken, or the shards are not one complete set.
    #[error(transparent)]
    Shards(#[from] WeightError),
    /// A `.bin` file is broken or holds more than plain tensors.
    #[error("{}: {source}", path.display())]
    Torch {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TorchError,
    },
    /// Files that contradict each other.
    #[error("{}: {problem}", path.display())]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        problem: String,
    },
    /// The output folder is not empty.
    #[error("{}: something is there already; choose a new or an empty folder", out.display())]
    Exists {
        /// The folder, left unchanged.
        out: PathBuf,
    },
    /// The caller stopped the conversion.
    #[error("stopped before it was done; nothing of it is left")]
    Stopped,
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

fn hint(is_safetensors: bool) -> &'static str {
    if is_safetensors { "; the weights are safetensors already" } else { "" }
}

/// An error without its file's name, which the caller adds.
enum FillError {
    Source(TorchError),
    Target(io::Error),
    Stopped,
}

impl From<io::Error> for FillError {
    fn from(error: io::Error) -> Self {
        Self::Target(error)
    }
}

/// A pickled checkpoint, read and checked except for the tensors' values.
pub struct Plan {
    dir: PathBuf,
    shards: Vec<TorchFile>,
    is_sharded: bool,
}

impl Plan {
    /// Reads the index and the pickles of the checkpoint in `dir`.
    ///
    /// # Errors
    /// There is no `.bin` checkpoint. The index names files outside its folder or disagrees with the files. A pickle
    /// holds more than tensors; the error names the opcode or global. Tensors are not fp32, fp16 or bf16, not
    /// contiguous, or not inside the file.
    pub fn read(dir: &Path) -> Result<Self, ConvertError> {
        let opened = |paths: Vec<PathBuf>, is_sharded| -> Result<Self, ConvertError> {
            let shards = paths.iter().map(|path| open(path)).collect::<Result<_, _>>()?;
            Ok(Self { dir: dir.to_path_buf(), shards, is_sharded })
        };
        let plan = match Choice::among(dir, &PICKLED)? {
            Some(Choice::Single(path)) => opened(vec![path], false)?,
            Some(Choice::Index(path)) => {
                let index = IndexWire::read(&path)?;
                let plan = opened(index.files().into_iter().map(|file| dir.join(file)).collect(), true)?;
                plan.check_index(&path, &index)?;
                plan
            }
            Some(Choice::Numbered(paths)) => {
                let plan = opened(paths, true)?;
                plan.check_names()?;
                plan
            }
            None => {
                let is_safetensors = [SINGLE_FILE, INDEX_FILE].iter().any(|file| dir.join(file).exists());
                return Err(ConvertError::NothingToConvert { dir: dir.to_path_buf(), is_safetensors });
            }
        };
        plan.check_size()?;
        Ok(plan)
    }

    /// Returns the size of all tensors in bytes.
    pub fn bytes(&self) -> u64 {
        self.tensors().map(tensor_bytes).sum()
    }

    /// Returns the number of tensors in all shards.
    pub fn tensor_count(&self) -> usize {
        self.tensors().count()
    }

    /// Writes the folder `out` with the safetensors files, their index, config and tokenizer. Returns the names of the
    /// files.
    /// `copied` receives the bytes of tensor data copied since its last call.
    ///
    /// The folder appears with all its files, or stays as it was: absent or empty.
    ///
    /// # Errors
    /// `out` exists and is not empty (checked before anything is written), a `.bin` file is damaged after its header,
    /// or an I/O error.
    pub fn write(self, out: &Path, copied: &mut dyn FnMut(u64)) -> Result<Vec<String>, ConvertError> {
        self.write_until(out, copied, &|| false)
    }

    /// Like [`write`](Self::write). Checks `stopped` between tensors and ends early if it returns true.
    pub fn write_until(
        mut self,
        out: &Path,
        copied: &mut dyn FnMut(u64),
        stopped: &dyn Fn() -> bool,
    ) -> Result<Vec<String>, ConvertError> {
        let targets = self.target_names()?;
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
                ConvertError::Exists { out: out.to_path_buf() }
            }
            _ => ConvertError::File { path: out.to_path_buf(), source },
        };
        let staging = Staging::new(out).map_err(failed)?;
        let of_file = |name: &str| {
            let path = out.join(name);
            move |source| ConvertError::File { path, source }
        };
        for (shard, target) in self.shards.iter_mut().zip(&targets) {
            write_shard(shard, &staging, target, (copied, stopped)).map_err(|error| match error {
                FillError::Stopped => ConvertError::Stopped,
                FillError::Source(source) => ConvertError::Torch { path: shard.path().to_path_buf(), source },
                FillError::Target(source) => of_file(target)(source),
            })?;
        }
        let companions = companions(&self.dir)?;
        for name in &companions {
            let from = self.dir.join(name);
            let mut source =
                open_regular(&from).map_err(|source| ConvertError::File { path: from, source })?;
            staging.write(name, |out| io::copy(&mut source, out).map(|_| ())).map_err(of_file(name))?;
        }
        let mut written: Vec<String> = targets.iter().cloned().chain(companions).collect();
        if self.is_sharded {
            let text = self.index_text(&targets);
            staging.write(INDEX_FILE, |out| out.write_all(text.as_bytes())).map_err(of_file(INDEX_FILE))?;
            written.push(INDEX_FILE.to_owned());
        }
        if stopped() {
            return Err(ConvertError::Stopped);
        }
        staging.publish().map_err(failed)?;
        Ok(written)
    }

    fn tensors(&self) -> impl Iterator<Item = &StateTensor> {
        self.shards.iter().flat_map(TorchFile::tensors)
    }

    /// Checks that every tensor is in the shard that the index names, and in no other.
    fn check_index(&self, path: &Path, index: &IndexWire) -> Result<(), ConvertError> {
        let inconsistent = |problem| Err(ConvertError::Inconsistent { path: path.to_path_buf(), problem });
        let mut unseen = index.weight_map.clone();
        for shard in &self.shards {
            let file = file_name(shard.path());
            for tensor in shard.tensors() {
                match unseen.remove(&tensor.name) {
                    Some(expected) if expected == file => {}
                    Some(expected) => {
                        return inconsistent(format!(
                            "tensor {} is in {file}, not in {expected}",
                            tensor.name
                        ));
                    }
                    None => {
                        let name = &tensor.name;
                        return inconsistent(format!(
                            "tensor {name} of {file} is in another shard or not listed"
                        ));
                    }
                }
            }
        }
        match unseen.into_iter().next() {
            Some((name, file)) => {
                inconsistent(format!("tensor {name} is not in {file}, where this index has it"))
            }
            None => Ok(()),
        }
    }

    /// Checks that every tensor is in one shard only.
    fn check_names(&self) -> Result<(), ConvertError> {
        let mut seen = BTreeMap::new();
        for shard in &self.shards {
            let file = file_name(shard.path());
            for tensor in shard.tensors() {
                if let Some(first) = seen.insert(tensor.name.as_str(), file.clone()) {
                    let problem =
                        format!("tensor {} is also in {first}, expected it in one shard only", tensor.name);
                    return Err(ConvertError::Inconsistent { path: shard.path().to_path_buf(), problem });
                }
            }
        }
        Ok(())
    }

    /// Rejects small files that would fill the disk. Tensors may share a storage, as tied weights do.
    fn check_size(&self) -> Result<(), ConvertError> {
        for shard in &self.shards {
            let path = shard.path().to_path_buf();
            let failed = |source| ConvertError::File { path: path.clone(), source };
            let size = std::fs::metadata(&path).map_err(failed)?.len();
            let bytes = shard.tensors().iter().map(tensor_bytes).fold(0, u64::saturating_add);
            if bytes > size.saturating_mul(2) {
                let problem =
                    format!("{bytes} bytes of tensors in a file of {size}: they share their storages");
                return Err(ConvertError::Inconsistent { path, problem });
            }
        }
        Ok(())
    }

    fn target_names(&self) -> Result<Vec<String>, ConvertError> {
        if !self.is_sharded {
            return Ok(vec![SINGLE_FILE.to_owned()]);
        }
        let mut seen = BTreeSet::new();
        let mut names = Vec::new();
        for shard in &self.shards {
            let stem = shard.path().file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let name = format!("{}.safetensors", stem.strip_prefix("pytorch_").unwrap_or(&stem));
            if name == SINGLE_FILE || !seen.insert(name.clone()) {
                let problem = format!("would become {name}, which is not a shard's own name");
                return Err(ConvertError::Inconsistent { path: shard.path().to_path_buf(), problem });
            }
            names.push(name);
        }
        Ok(names)
    }

    fn index_text(&self, targets: &[String]) -> String {
        let shards = self.shards.iter().zip(targets);
        let weight_map: Map<String, Value> = shards
            .flat_map(|(shard, file)| {
                shard.tensors().iter().map(move |tensor| (tensor.name.clone(), file.clone().into()))
            })
            .collect();
        let index = json!({"metadata": {"total_size": self.bytes()}, "weight_map": weight_map});
        format!("{index:#}\n")
    }
}

fn open(path: &Path) -> Result<TorchFile, ConvertError> {
    TorchFile::open(path).map_err(|source| ConvertError::Torch { path: path.to_path_buf(), source })
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn write_shard(
    shard: &mut TorchFile,
    staging: &Staging,
    target: &str,
    (copied, stopped): (&mut dyn FnMut(u64), &dyn Fn() -> bool),
) -> Result<(), FillError> {
    let mut order: Vec<usize> = (0..shard.tensors().len()).collect();
    // Wide types first keeps every tensor aligned. Within a type, the model's order stays.
    order.sort_by_key(|&index| std::cmp::Reverse(shard.tensors()[index].dtype.bytes()));
    staging.write(target, |out| {
        let tensors = order.iter().map(|&index| &shard.tensors()[index]);
        let header = safetensors::header(tensors.map(|t| (t.name.as_str(), t.dtype, t.shape.as_slice())));
        out.write_all(&header)?;
        for &index in &order {
            if stopped() {
                return Err(FillError::Stopped);
            }
            shard.copy_tensor(index, out, copied).map_err(FillError::Source)??;
        }
        Ok(())
    })
}

/// Returns the names of the small files that belong to the model, sorted.
pub(crate) fn companions(dir: &Path) -> Result<BTreeSet<String>, ConvertError> {
    let failed = |source| ConvertError::File { path: dir.to_path_buf(), source };
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let extension = path.extension().unwrap_or_default();
        let name = file_name(&path);
        let is_companion = COMPANIONS.iter().any(|companion| extension == *companion);
        if is_companion && path.is_file() && !name.ends_with(".index.json") && !name.starts_with('.') {
            names.insert(name);
        }
    }
    Ok(names)
}
