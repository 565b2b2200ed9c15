//! Weight sources: checkpoints in, tensors out.
//!
//! A model gets its tensors one at a time from a [`WeightSource`]: it requests a tensor, packs it for its device and
//! releases it. There are never two copies of a model in memory. Sources are safetensors files ([`safetensors`]),
//! random numbers of a given shape ([`dummy`]), and a P-tuning prefix over either ([`overlay`]).
//! [`watch`] finds non-finite numbers in them, and [`layout`] defines the tensors of a model. With several ranks, each
//! requests its [`Part`] of each tensor. Pickled `.bin` files are converted to safetensors first ([`convert`]). `packed` keeps
//! weights in a device's own layout beside a checkpoint.
//! [`quantised`] reads the integers of quantised checkpoints.

mod choice;
pub mod convert;
pub mod dummy;
pub mod layout;
mod map;
pub(crate) mod output;
pub mod overlay;
pub mod packed;
mod part;
mod pickle;
pub mod quantised;
pub mod safetensors;
mod shapes;
mod tensor;
mod torch_zip;
pub mod unread;
pub mod watch;

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub use self::choice::Choice;
pub use self::part::Part;
pub use self::quantised::RawTensor;
pub use self::tensor::{StorageType, TensorView};
use crate::config::ModelConfig;

/// Errors of opening or reading weights.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// A file cannot be opened, read or mapped.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The folder holds no weights that can be loaded.
    #[error(
        "{}: no weights here, expected model.safetensors, shards with model.safetensors.index.json, or shards numbered 1 to \
         their number (model-00001-of-00007.safetensors){}",
        dir.display(), beside(others)
    )]
    NotFound {
        /// The folder.
        dir: PathBuf,
        /// Safetensors files with other names in the folder.
        others: Vec<String>,
    },
    /// The folder holds two sets of weights, and nothing says which to use.
    #[error("{}: two sets of weights, {first} and {second}; move one of them away", dir.display())]
    TwoSets {
        /// The folder.
        dir: PathBuf,
        /// The first set's files.
        first: Box<str>,
        /// The second set's files.
        second: Box<str>,
    },
    /// Some of the shards are missing, and there is no index.
    #[error("{}: {found} of {count} shards are here; missing: {missing}", dir.display())]
    Incomplete {
        /// The folder.
        dir: PathBuf,
        /// Number of shards found.
        found: usize,
        /// Number of shards expected.
        count: u32,
        /// Names of the missing shards.
        missing: String,
    },
    /// The weights are quantised, or the configuration says so although they are not.
    #[error("{place}: {problem}")]
    Quantised {
        /// The source.
        place: String,
        /// What was found and what was expected.
        problem: String,
    },
    /// The folder holds pickled weights only.
    #[error(
        "{}: the weights are pickled ({file}); make safetensors of them: glmbench convert {} OUT",
        dir.display(), dir.display()
    )]
    Pickled {
        /// The folder.
        dir: PathBuf,
        /// The pickled file.
        file: String,
    },
    /// A safetensors file or a shard index is broken.
    #[error("{}: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        problem: String,
    },
    /// The source has no tensor with this name.
    #[error("{place}: tensor {name} is missing, expected shape {expected:?}")]
    MissingTensor {
        /// The source.
        place: String,
        /// The tensor.
        name: String,
        /// The expected shape.
        expected: Vec<usize>,
    },
    /// The tensor has an unexpected shape.
    #[error("{place}: tensor {name} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The file or source.
        place: String,
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The expected shape.
        expected: Vec<usize>,
    },
    /// The tensor's type is not a weight type.
    #[error("{place}: tensor {name} has type {found}, expected F16, BF16 or F32")]
    Type {
        /// The file or source.
        place: String,
        /// The tensor.
        name: String,
        /// Its type, as the file spells it.
        found: String,
    },
    /// The source does not hold the model of the config.
    #[error("{place}: the weights do not fit config.json:\n  {problems}")]
    Mismatch {
        /// The source.
        place: String,
        /// The problems, tensor by tensor.
        problems: layout::Problems,
    },
    /// Most names are wrong for one common reason.
    #[error("{place}: {problem}")]
    Misnamed {
        /// The source.
        place: String,
        /// The names found, and why they are wrong.
        problem: String,
    },
    /// A generated tensor does not fit in memory.
    #[error("tensor {name} of shape {shape:?} does not fit in memory")]
    TooLarge {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
}

fn beside(others: &[String]) -> String {
    if others.is_empty() { String::new() } else { format!("; there is {}", others.join(", ")) }
}

/// A source's description of one tensor, without its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// Its name in the checkpoint.
    pub name: String,
    /// Type as the file spells it, e.g. `F16`. Not every type can be a weight.
    pub dtype: String,
    /// Extent of each dimension, outermost first.
    pub shape: Vec<usize>,
    /// Size of its data in bytes.
    pub bytes: u64,
    /// The file that holds it, for messages.
    pub origin: String,
}

/// A source of tensors: a checkpoint on disk, or a generator.
pub trait WeightSource: Send + Sync {
    /// Describes the source in messages: a folder, or the generator of the numbers.
    fn place(&self) -> String;

    /// Returns every tensor of the source, in no particular order.
    fn stored(&self) -> Vec<StoredTensor>;

    /// Returns the tensor of this name, which must have this shape and a [`StorageType`].
    ///
    /// # Errors
    /// The tensor is missing or differs. The error gives its name, the place, what was found and what was expected.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>, WeightError>;

    /// Returns a part of the tensor of this name. `shape` is the shape of the whole tensor. Sources that generate their
    /// numbers may generate this part only.
    ///
    /// # Errors
    /// As in [`WeightSource::tensor`].
    fn part(&self, name: &str, shape: &[usize], part: &Part) -> Result<TensorView<'_>, WeightError> {
        Ok(part.of(self.tensor(name, shape)?))
    }

    /// Returns the tensor of this name as it is stored, of any type and shape; `None` if there is none. Quantised weights
    /// consist of such tensors. Sources of plain numbers only may have none.
    fn raw(&self, name: &str) -> Option<RawTensor<'_>> {
        let _ = name;
        None
    }

    /// Declares that this tensor is no longer needed, so that its pages can leave memory. It may be requested again,
    /// with the same numbers.
    fn release(&self, name: &str);

    /// Returns the type of most of the stored bytes.
    fn dtype(&self) -> StorageType;

    /// Returns 64 hexadecimal digits that are equal for models with the same weights.
    ///
    /// For a checkpoint, every byte of every tensor is read and hashed, because anything less would miss changes. The
    /// hash is SHA-256 on all cores; the disk sets the pace. `hashed` receives the bytes done since its last call, from
    /// several threads. The distribution of tensors over files does not matter.
    fn fingerprint(&self, hashed: &(dyn Fn(u64) + Sync)) -> Result<String, WeightError>;
}

impl<S: WeightSource + ?Sized> WeightSource for Box<S> {
    fn place(&self) -> String {
        (**self).place()
    }

    fn stored(&self) -> Vec<StoredTensor> {
        (**self).stored()
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>, WeightError> {
        (**self).tensor(name, shape)
    }

    fn part(&self, name: &str, shape: &[usize], part: &Part) -> Result<TensorView<'_>, WeightError> {
        (**self).part(name, shape, part)
    }

    fn raw(&self, name: &str) -> Option<RawTensor<'_>> {
        (**self).raw(name)
    }

    fn release(&self, name: &str) {
        (**self).release(name);
    }

    fn dtype(&self) -> StorageType {
        (**self).dtype()
    }

    fn fingerprint(&self, hashed: &(dyn Fn(u64) + Sync)) -> Result<String, WeightError> {
        (**self).fingerprint(hashed)
    }
}

/// Opens the weights in a model folder: `model.safetensors`, the shards of `model.safetensors.index.json`, or a
/// complete set of numbered shards.
///
/// Only headers are read. [`layout::check`] checks that the tensors fit a config.
///
/// # Errors
/// There are no weights, two sets of weights, an incomplete set, or a broken file. If there are pickled weights only,
/// the message says how to convert them.
pub fn open_checkpoint(dir: &Path) -> Result<Box<dyn WeightSource>, WeightError> {
    open(dir, Choice::of(dir)?)
}

/// Like [`open_checkpoint`], for the weights that `config` names: ModelSlim's quantised weights have names of their own, and
/// may lie beside the float weights.
pub fn open_model(dir: &Path, config: &ModelConfig) -> Result<Box<dyn WeightSource>, WeightError> {
    open(dir, Choice::of_model(dir, config)?)
}

fn open(dir: &Path, choice: Choice) -> Result<Box<dyn WeightSource>, WeightError> {
    Ok(Box::new(match choice {
        Choice::Single(path) => safetensors::Checkpoint::open_file(&path)?,
        Choice::Index(path) => safetensors::Checkpoint::open_index(&path)?,
        Choice::Numbered(paths) => safetensors::Checkpoint::open_shards(dir, &paths)?,
    }))
}

/// Returns one hash of several, in order.
fn combine(hashes: impl IntoIterator<Item = impl AsRef<[u8]>>) -> String {
    let mut hasher = Sha256::new();
    hashes.into_iter().for_each(|hash| hasher.update(hash));
    hasher.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
