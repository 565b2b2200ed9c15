//! Where a model comes from: its shape, its weights and its tokenizer.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use glmbench_device::DType;

use crate::EngineError;
use crate::config::{ModelConfig, RopeScaling};
use crate::tokenizer::{Tokenizer, TokenizerError};
use crate::weights::dummy::Dummy;
use crate::weights::{Choice, StorageType, WeightSource, layout, open_model, quantised};

/// Seed of the `dummy:` weights.
const DUMMY_SEED: u64 = 0;
/// ChatGLM2's end-of-sequence token `</s>`, for models without a file that names one.
const CHATGLM2_END: u32 = 2;

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelPath {
    /// A folder with `config.json` and weights.
    Folder(PathBuf),
    /// Random weights of ChatGLM2-6B's shape.
    DummyChatglm2,
    /// Random weights of the shape in a `config.json`.
    Dummy(PathBuf),
}

impl ModelPath {
    /// Parses the value of `--model`: a folder, `dummy:chatglm2-6b`, or `dummy:PATH/config.json`. The caller turns
    /// `demo` into a folder.
    pub fn parse(word: &OsStr) -> Self {
        match word.to_str().and_then(|word| word.strip_prefix("dummy:")) {
            Some("chatglm2-6b") => Self::DummyChatglm2,
            Some(path) => Self::Dummy(PathBuf::from(path)),
            None => dummy_of_bytes(word).map_or_else(|| Self::Folder(PathBuf::from(word)), Self::Dummy),
        }
    }

    /// Returns the model's shape. `scaling` is the user's choice of what `rope_ratio` scales.
    /// If `config.json` names no end-of-sequence token, the tokenizer's own is used.
    pub fn config(&self, scaling: Option<RopeScaling>) -> Result<ModelConfig, EngineError> {
        let read = |path: &Path| ModelConfig::from_file_as(path, scaling);
        let mut config = match self {
            Self::Folder(dir) => read(&dir.join("config.json"))?,
            Self::DummyChatglm2 => ModelConfig::chatglm2_6b(),
            Self::Dummy(path) if path.is_dir() => read(&path.join("config.json"))?,
            Self::Dummy(path) => read(path)?,
        };
        if let Self::Folder(dir) = self {
            quantised::description::read(dir, &mut config)?;
        }
        if config.eos_token_ids.is_empty() {
            config.eos_token_ids.push(self.end_of_sequence()?);
        }
        Ok(config)
    }

    /// Returns the end-of-sequence id from the tokenizer's files, or ChatGLM2's if there is no tokenizer.
    fn end_of_sequence(&self) -> Result<u32, EngineError> {
        let Some(dir) = self.tokenizer_dir() else { return Ok(CHATGLM2_END) };
        match Tokenizer::from_dir(dir) {
            Ok(tokenizer) => tokenizer.eos_id().ok_or_else(|| {
                EngineError::Option(format!(
                    "{}: nothing says which token ends a sequence: config.json has no eos_token_id, and the tokenizer names \
                     none",
                    dir.display()
                ))
            }),
            // A missing tokenizer is reported where it is needed.
            Err(TokenizerError::Missing { .. }) => Ok(CHATGLM2_END),
            Err(error) => Err(EngineError::Option(error.to_string())),
        }
    }

    /// Describes the weights in words; [`weights`](Self::weights) opens them.
    pub fn weights_in_words(&self, config: &ModelConfig) -> Result<String, EngineError> {
        Ok(match self {
            Self::Folder(dir) => Choice::of_model(dir, config)?.words() + &quantised::in_words(config),
            Self::DummyChatglm2 | Self::Dummy(_) => format!("random, seed {DUMMY_SEED}"),
        })
    }

    /// Returns the folder with the tokenizer files; random weights have none.
    pub fn tokenizer_dir(&self) -> Option<&Path> {
        match self {
            Self::Folder(dir) => Some(dir),
            Self::DummyChatglm2 | Self::Dummy(_) => None,
        }
    }

    /// Opens the weights and checks them against the shape, without reading them.
    pub fn weights(&self, config: &ModelConfig, dtype: DType) -> Result<Box<dyn WeightSource>, EngineError> {
        if let Self::Folder(dir) = self {
            let source = open_model(dir, config)?;
            layout::check(&*source, config)?;
            return Ok(source);
        }
        quantised::refuse_random(config)?;
        Ok(Box::new(Dummy::new(config.clone(), storage(dtype), DUMMY_SEED)))
    }
}

/// Returns the path after `dummy:` if it is not UTF-8, which paths need not be.
#[cfg(unix)]
fn dummy_of_bytes(word: &OsStr) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    Some(OsStr::from_bytes(word.as_bytes().strip_prefix(b"dummy:")?).into())
}

#[cfg(not(unix))]
fn dummy_of_bytes(_: &OsStr) -> Option<PathBuf> {
    None
}

/// Returns the storage type that corresponds to a device type.
pub(super) fn storage(dtype: DType) -> StorageType {
    match dtype {
        DType::Fp32 => StorageType::F32,
        DType::Fp16 => StorageType::F16,
        DType::Bf16 => StorageType::Bf16,
    }
}

/// Reads the tokenizer of a folder and checks that the model has an embedding row for each of its ids.
///
/// Byte pieces are exempt: a vocabulary converted from another kind of tokenizer may place them behind the last row.
/// Text that needs such a piece is rejected later.
pub fn load_tokenizer(dir: &Path, config: Option<&ModelConfig>) -> Result<Tokenizer, EngineError> {
    let tokenizer = Tokenizer::from_dir(dir).map_err(|e| EngineError::Option(e.to_string()))?;
    if let Some(config) = config {
        let rows = config.padded_vocab_size as u32;
        let is_byte = |id: u32| tokenizer.piece(id).is_some_and(|p| p.starts_with("<0x") && p.len() == 6);
        if let Some(id) = (rows..tokenizer.vocab_size() as u32).find(|id| !is_byte(*id)) {
            return Err(EngineError::Option(format!(
                "{}: the tokenizer has {} ids, the model only {rows} (padded_vocab_size): there is no row for {id}",
                dir.display(),
                tokenizer.vocab_size(),
            )));
        }
    }
    Ok(tokenizer)
}
