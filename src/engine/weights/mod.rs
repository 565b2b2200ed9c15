//! Checkpoints in, tensors out.
//!
//! A model gets its tensors one at a time from a [`WeightSource`]: it asks for a tensor, packs it for its device
//! and releases it, so that never two copies of a model are in memory. Sources are safetensors files
//! ([`safetensors`]), random numbers of a given shape ([`dummy`]), and a P-tuning prefix over either ([`overlay`]).
//! [`watch`] finds numbers in them that are none. [`layout`] says which tensors a model has. One of several ranks asks for its [`Part`] of each. Pickled `.bin` files
//! become safetensors first ([`convert`]).

mod choice;
pub mod convert;
pub mod dummy;
pub mod layout;
mod map;
mod output;
pub mod overlay;
mod part;
mod pickle;
pub(in crate::engine) mod quantised;
pub mod safetensors;
mod tensor;
mod torch_zip;
pub mod unread;
pub mod watch;

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub use self::choice::Choice;
pub use self::part::Part;
pub use self::tensor::{StorageType, TensorView};

/// Why weights cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// A file cannot be opened, read or mapped.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The folder holds nothing that can be loaded.
    #[error(
        "{}: no weights here, expected model.safetensors, shards with model.safetensors.index.json, or shards numbered 1 to \
         their number (model-00001-of-00007.safetensors){}",
        dir.display(), beside(others)
    )]
    NotFound {
        /// The folder.
        dir: PathBuf,
        /// Safetensors of other names that it holds.
        others: Vec<String>,
    },
    /// The folder holds two sets of weights, and nothing says which is meant.
    #[error("{}: two sets of weights, {first} and {second}; move one of them away", dir.display())]
    TwoSets {
        /// The folder.
        dir: PathBuf,
        /// One set's files.
        first: Box<str>,
        /// The other's.
        second: Box<str>,
    },
    /// Shards without an index, of which some are not there.
    #[error("{}: {found} of {count} shards are here; missing: {missing}", dir.display())]
    Incomplete {
        /// The folder.
        dir: PathBuf,
        /// Shards that are there.
        found: usize,
        /// Shards that there should be.
        count: u32,
        /// The names of the others.
        missing: String,
    },
    /// The weights are quantised, or the configuration says so of weights that are not.
    #[error("{place}: {problem}")]
    Quantised {
        /// The source.
        place: String,
        /// What was found, what was expected.
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
        /// The file that was found.
        file: String,
    },
    /// A safetensors file or a shard index is broken.
    #[error("{}: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was found, what was expected.
        problem: String,
    },
    /// The source has no such tensor.
    #[error("{place}: tensor {name} is missing, expected shape {expected:?}")]
    MissingTensor {
        /// The source.
        place: String,
        /// The tensor.
        name: String,
        /// The shape wanted.
        expected: Vec<usize>,
    },
    /// The tensor has another shape.
    #[error("{place}: tensor {name} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The file or source.
        place: String,
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape wanted.
        expected: Vec<usize>,
    },
    /// The tensor's numbers are of a type that weights do not have.
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
        /// Tensor by tensor.
        problems: layout::Problems,
    },
    /// One thing puts the names of most tensors out.
    #[error("{place}: {problem}")]
    Misnamed {
        /// The source.
        place: String,
        /// The names found, and what is wrong with them.
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

/// What a source says of one tensor without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its type as the file spells it, e.g. `F16`; not every type can be a weight.
    pub dtype: String,
    /// Extent of each dimension, outermost first.
    pub shape: Vec<usize>,
    /// Bytes of its numbers.
    pub bytes: u64,
    /// The file that holds it, for messages.
    pub origin: String,
}

/// Where tensors come from: a checkpoint on disk, or a generator.
pub trait WeightSource: Send + Sync {
    /// What this source is, for messages: a folder, or what generates the numbers.
    fn place(&self) -> String;

    /// Every tensor the source holds, in no particular order.
    fn stored(&self) -> Vec<StoredTensor>;

    /// The tensor of this name, which must have this shape and a [`StorageType`].
    ///
    /// # Errors
    /// Names the tensor, where it was looked for, what was found and what was expected.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>, WeightError>;

    /// A part of the tensor of this name, which must have this shape as a whole. Sources that make their numbers need not make
    /// the others.
    ///
    /// # Errors
    /// As [`WeightSource::tensor`].
    fn part(&self, name: &str, shape: &[usize], part: &Part) -> Result<TensorView<'_>, WeightError> {
        Ok(part.of(self.tensor(name, shape)?))
    }

    /// Says that this tensor is not needed any more, so that its pages can leave memory. Asking for it again is
    /// allowed and gives the same numbers.
    fn release(&self, name: &str);

    /// The type that most of the stored bytes have.
    fn dtype(&self) -> StorageType;

    /// What decides whether two models have the same weights: 64 hexadecimal digits.
    ///
    /// For a checkpoint every byte of every tensor is read and hashed (SHA-256, all cores; the disk sets the
    /// pace), because only that is honest; `hashed` is told the bytes done since its last call, from several
    /// threads. How the tensors are spread over files does not count.
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

/// Opens the weights in a model folder: `model.safetensors`, the shards of `model.safetensors.index.json`, or shards that are
/// numbered and all there.
///
/// Only headers are read; whether the tensors are those of a config is [`layout::check`]'s to say.
///
/// # Errors
/// No weights, two sets of them or an incomplete one, pickled weights only (the message says how to convert them), or a broken
/// file.
pub fn open_checkpoint(dir: &Path) -> Result<Box<dyn WeightSource>, WeightError> {
    Ok(Box::new(match Choice::of(dir)? {
        Choice::Single(path) => safetensors::Checkpoint::open_file(&path)?,
        Choice::Index(path) => safetensors::Checkpoint::open_index(&path)?,
        Choice::Numbered(paths) => safetensors::Checkpoint::open_shards(dir, &paths)?,
    }))
}

/// One hash of several, in their order.
fn combine(hashes: impl IntoIterator<Item = impl AsRef<[u8]>>) -> String {
    let mut hasher = Sha256::new();
    hashes.into_iter().for_each(|hash| hasher.update(hash));
    hasher.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
