//! Pickled checkpoints into safetensors, shard by shard, without executing anything.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::output::{Outcome, put};
pub use super::pickle::PickleError;
use super::pickle::StateTensor;
use super::safetensors::{INDEX_FILE, IndexWire, SINGLE_FILE};
pub use super::torch_zip::TorchError;
use super::torch_zip::{TorchFile, open_regular, tensor_bytes};
use super::{WeightError, safetensors};

/// The name of a pickled checkpoint in one file.
const PICKLED_FILE: &str = "pytorch_model.bin";
/// The name of the index of a pickled checkpoint in shards.
const PICKLED_INDEX: &str = "pytorch_model.bin.index.json";
/// Small files that belong to a model, by extension: config, tokenizer, and the code that other programs load it with.
const COMPANIONS: [&str; 4] = ["json", "model", "py", "txt"];

/// Why a checkpoint is not converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The folder holds no pickled weights.
    #[error("{}: expected {PICKLED_FILE}, or shards with {PICKLED_INDEX}{}", dir.display(), hint(*is_safetensors))]
    NothingToConvert {
        /// The folder.
        dir: PathBuf,
        /// It holds safetensors instead.
        is_safetensors: bool,
    },
    /// The shard index is broken.
    #[error(transparent)]
    Index(#[from] WeightError),
    /// A `.bin` file is broken or holds more than plain tensors.
    #[error("{}: {source}", path.display())]
    Torch {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TorchError,
    },
    /// Files that do not fit together.
    #[error("{}: {problem}", path.display())]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// What was found, what was expected.
        problem: String,
    },
    /// A file of the output is there already and is another.
    #[error("{}: exists and differs from what would be written; remove it or choose an empty folder", path.display())]
    Exists {
        /// The file, left as it is.
        path: PathBuf,
    },
    /// Another program converts into the same folder.
    #[error("{}: another conversion is writing here", dir.display())]
    Busy {
        /// The folder.
        dir: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn hint(is_safetensors: bool) -> &'static str {
    if is_safetensors { "; the weights are safetensors already" } else { "" }
}

/// An error that names its file later, where the name is known.
enum FillError {
    Source(TorchError),
    Target(io::Error),
}

impl From<io::Error> for FillError {
    fn from(error: io::Error) -> Self {
        Self::Target(error)
    }
}

/// A pickled checkpoint, read and checked but for its numbers.
pub struct Plan {
    dir: PathBuf,
    shards: Vec<TorchFile>,
    is_sharded: bool,
}

/// What a conversion left in the output folder.
#[derive(Debug, Default)]
pub struct Converted {
    /// Names of the files written.
    pub written: Vec<String>,
    /// Names of the files that were there already with the same bytes.
    pub same: Vec<String>,
}

impl Plan {
    /// Reads the index and the pickles of the checkpoint in `dir`.
    ///
    /// # Errors
    /// No `.bin` checkpoint; an index that leads to other files than in its folder or disagrees with them; a
    /// pickle that holds more than tensors (opcode or global named); tensors that are not fp32, fp16 or bf16,
    /// not contiguous, or not inside the file.
    pub fn read(dir: &Path) -> Result<Self, ConvertError> {
        let index_path = dir.join(PICKLED_INDEX);
        let plan = if index_path.exists() {
            let index = IndexWire::read(&index_path)?;
            let shards =
                index.files().into_iter().map(|file| open(&dir.join(file))).collect::<Result<_, _>>()?;
            let plan = Self { dir: dir.to_path_buf(), shards, is_sharded: true };
            plan.check_index(&index_path, &index)?;
            plan
        } else if dir.join(PICKLED_FILE).exists() {
            let shards = vec![open(&dir.join(PICKLED_FILE))?];
            Self { dir: dir.to_path_buf(), shards, is_sharded: false }
        } else {
            let is_safetensors = [SINGLE_FILE, INDEX_FILE].iter().any(|file| dir.join(file).exists());
            return Err(ConvertError::NothingToConvert { dir: dir.to_path_buf(), is_safetensors });
        };
        plan.check_size()?;
        Ok(plan)
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.tensors().map(tensor_bytes).sum()
    }

    /// Tensors of all shards.
    pub fn tensor_count(&self) -> usize {
        self.tensors().count()
    }

    /// Writes the safetensors files, copies config and tokenizer, and writes the index last, so that an unfinished
    /// conversion is never taken for a checkpoint. `copied` is told the bytes of numbers moved since its last call.
    ///
    /// Each file appears whole under its name or not at all. A file that is there already stays: with the same
    /// bytes it counts as done (an interrupted conversion goes on), with others it is an error.
    pub fn write(mut self, out: &Path, copied: &mut dyn FnMut(u64)) -> Result<Converted, ConvertError> {
        let targets = self.target_names()?;
        let failed = |source| ConvertError::File { path: out.to_path_buf(), source };
        std::fs::create_dir_all(out).map_err(failed)?;
        let _lock = lock(out)?;
        check_precedence(out, &targets)?;
        let mut converted = Converted::default();
        for (shard, target) in self.shards.iter_mut().zip(&targets) {
            let outcome = write_shard(shard, &out.join(target), copied)?;
            converted.note(&out.join(target), outcome)?;
        }
        for file in companions(&self.dir)? {
            converted.note(&out.join(&file), copy_file(&self.dir.join(&file), &out.join(&file))?)?;
        }
        if self.is_sharded {
            let text = self.index_text(&targets);
            let path = out.join(INDEX_FILE);
            let outcome = put(&path, |file| file.write_all(text.as_bytes()));
            converted
                .note(&path, outcome.map_err(|source| ConvertError::File { path: path.clone(), source })?)?;
        }
        Ok(converted)
    }

    fn tensors(&self) -> impl Iterator<Item = &StateTensor> {
        self.shards.iter().flat_map(TorchFile::tensors)
    }

    /// Every tensor is in the shard that the index says, and in no other.
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

    /// Tensors may share a storage (tied weights do); a small file that would fill the disk is refused.
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

impl Converted {
    fn note(&mut self, path: &Path, outcome: Outcome) -> Result<(), ConvertError> {
        match outcome {
            Outcome::Written => self.written.push(file_name(path)),
            Outcome::Same => self.same.push(file_name(path)),
            Outcome::Differs => return Err(ConvertError::Exists { path: path.to_path_buf() }),
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<TorchFile, ConvertError> {
    TorchFile::open(path).map_err(|source| ConvertError::Torch { path: path.to_path_buf(), source })
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Held while files are written, so that two conversions never share a hidden file.
fn lock(out: &Path) -> Result<Option<File>, ConvertError> {
    // Where a folder cannot be opened or locked (some systems, some network disks) there is no lock to have.
    let Ok(dir) = File::open(out) else { return Ok(None) };
    match dir.try_lock() {
        Err(std::fs::TryLockError::WouldBlock) => Err(ConvertError::Busy { dir: out.to_path_buf() }),
        Ok(()) | Err(std::fs::TryLockError::Error(_)) => Ok(Some(dir)),
    }
}

/// A single file is loaded before shards: an older one must not lie beside new shards.
fn check_precedence(out: &Path, targets: &[String]) -> Result<(), ConvertError> {
    let single = out.join(SINGLE_FILE);
    if single.exists() && !targets.iter().any(|target| target == SINGLE_FILE) {
        return Err(ConvertError::Exists { path: single });
    }
    Ok(())
}

fn write_shard(
    shard: &mut TorchFile,
    target: &Path,
    copied: &mut dyn FnMut(u64),
) -> Result<Outcome, ConvertError> {
    let mut order: Vec<usize> = (0..shard.tensors().len()).collect();
    // Wide numbers first keeps every tensor aligned; otherwise the order of the model.
    order.sort_by_key(|&index| std::cmp::Reverse(shard.tensors()[index].dtype.bytes()));
    let outcome = put(target, |out| {
        let tensors = order.iter().map(|&index| &shard.tensors()[index]);
        let header = safetensors::header(tensors.map(|t| (t.name.as_str(), t.dtype, t.shape.as_slice())));
        out.write_all(&header)?;
        for &index in &order {
            shard.copy_tensor(index, out, copied).map_err(FillError::Source)??;
        }
        Ok(())
    });
    outcome.map_err(|error| match error {
        FillError::Source(source) => ConvertError::Torch { path: shard.path().to_path_buf(), source },
        FillError::Target(source) => ConvertError::File { path: target.to_path_buf(), source },
    })
}

/// Names of the small files that belong to the model, sorted.
fn companions(dir: &Path) -> Result<BTreeSet<String>, ConvertError> {
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

fn copy_file(from: &Path, to: &Path) -> Result<Outcome, ConvertError> {
    let failed = |path: &Path, source| ConvertError::File { path: path.to_path_buf(), source };
    let mut source = open_regular(from).map_err(|error| failed(from, error))?;
    put(to, |out| io::copy(&mut source, out).map(|_| ())).map_err(|error| failed(to, error))
}
