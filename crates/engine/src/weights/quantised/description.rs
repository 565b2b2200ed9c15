//! ModelSlim's description: one flat JSON object, tensor name to `FLOAT` or the word of the scheme.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::names::{self, Suffix};
use crate::config::{ModelConfig, Scheme};
use crate::linear::LinearId;
use crate::weights::WeightError;

/// Word of a tensor that is not quantised.
pub const FLOAT: &str = "FLOAT";
/// Key with the word of the whole model.
pub const MODEL_TYPE: &str = "model_quant_type";
/// Key with the word of the KV cache.
pub const KV_TYPE: &str = "kv_cache_type";
/// Word of an int8 KV cache with stored scales.
pub const C8: &str = "C8";

/// Largest accepted file; ChatGLM2-6B's have about 60,000 bytes.
const MOST_BYTES: u64 = 64 << 20;

/// Reads which linear layers of the checkpoint in `dir` stay in float, and notes them in `config`. THUDM's checkpoints have no
/// description: they quantise all linear layers but the output layer. Does nothing for plain checkpoints, for schemes that are
/// not read, and without a description: such weights are rejected when they are opened.
///
/// # Errors
/// The description is no JSON object, does not name a linear layer, or has another word than `config.json`.
pub(crate) fn read(dir: &Path, config: &mut ModelConfig) -> Result<(), WeightError> {
    let Some((quantised, scheme)) = config.quantised.as_ref().and_then(|q| Some((q, q.scheme?))) else {
        return Ok(());
    };
    let float = match scheme.description_word() {
        None => BTreeSet::from([LinearId::OUTPUT]),
        Some(word) => {
            let path = dir.join(names::description(scheme));
            if !path.exists() {
                return Ok(());
            }
            let read = Description { path, word, said: &quantised.said, words: Map::new() }.read()?;
            read.check_model(quantised.kv_c8)?;
            let quantised = LinearId::all(config).map(|id| Ok((id, read.is_float(id, scheme)?)));
            let quantised: Vec<(LinearId, bool)> = quantised.collect::<Result<_, WeightError>>()?;
            quantised.into_iter().filter(|(_, is_float)| *is_float).map(|(id, _)| id).collect()
        }
    };
    if let Some(quantised) = &mut config.quantised {
        (quantised.float, quantised.is_described) = (float, true);
    }
    Ok(())
}

/// A description that is being read.
struct Description<'a> {
    path: PathBuf,
    /// The word of quantised tensors under the scheme of `config.json`.
    word: &'static str,
    /// What `config.json` says.
    said: &'a str,
    words: Map<String, Value>,
}

impl Description<'_> {
    fn read(mut self) -> Result<Self, WeightError> {
        let failed = |source| WeightError::Read { path: self.path.clone(), source };
        let found = std::fs::metadata(&self.path).map_err(failed)?;
        if !found.is_file() || found.len() > MOST_BYTES {
            return Err(self.broken(format!("expected a regular file of at most {MOST_BYTES} bytes")));
        }
        let text = std::fs::read_to_string(&self.path).map_err(failed)?;
        self.words = serde_json::from_str(&text).map_err(|error| self.broken(error.to_string()))?;
        Ok(self)
    }

    fn broken(&self, problem: String) -> WeightError {
        WeightError::Format { path: self.path.clone(), problem }
    }

    /// Checks the words of the whole model, which older files lack.
    fn check_model(&self, kv_c8: bool) -> Result<(), WeightError> {
        if let Some(found) = self.words.get(MODEL_TYPE)
            && found.as_str() != Some(self.word)
        {
            let (word, said) = (self.word, self.said);
            return Err(
                self.broken(format!("{MODEL_TYPE} is {found}, expected \"{word}\": config.json says {said}"))
            );
        }
        match self.words.get(KV_TYPE) {
            Some(Value::String(found)) if found == C8 && !kv_c8 => Err(self.broken(format!(
                "{KV_TYPE} is \"{C8}\", and config.json has no \"quantization_config\": {{\"kv_quant_type\": \"{C8}\"}}"
            ))),
            Some(Value::String(found)) if found == C8 => Ok(()),
            found if kv_c8 => {
                let found = found.map_or_else(|| "missing".to_owned(), Value::to_string);
                Err(self.broken(format!("{KV_TYPE} is {found}, expected \"{C8}\": config.json says {}", self.said)))
            }
            None | Some(Value::Null) => Ok(()),
            Some(found) => {
                Err(self.broken(format!("{KV_TYPE} is {found}, expected \"{C8}\" or no such key")))
            }
        }
    }

    /// Returns whether a linear layer stays in float. All its tensors must agree.
    fn is_float(&self, id: LinearId, scheme: Scheme) -> Result<bool, WeightError> {
        let (name, word) = (id.weight(), self.word);
        let Some(found) = self.words.get(&name) else {
            return Err(self.broken(format!("no word for {name}, expected \"{word}\" or \"{FLOAT}\"")));
        };
        let is_float = match found.as_str() {
            Some(FLOAT) => true,
            Some(found) if found == word => false,
            _ => {
                return Err(self.broken(format!(
                    "{name} is {found}, expected \"{word}\" or \"{FLOAT}\": config.json says {}",
                    self.said
                )));
            }
        };
        let parts: &[Suffix] = if scheme.has_static_inputs() {
            &[Suffix::InputScale, Suffix::InputOffset, Suffix::QuantBias, Suffix::DeqScale]
        } else {
            &[Suffix::WeightScale, Suffix::WeightOffset]
        };
        let expected = if is_float { FLOAT } else { word };
        for name in parts.iter().map(|part| part.of(id)) {
            if let Some(found) = self.words.get(&name)
                && found.as_str() != Some(expected)
            {
                let weight = id.weight();
                return Err(
                    self.broken(format!("{name} is {found}, expected \"{expected}\" as for {weight}"))
                );
            }
        }
        Ok(is_float)
    }
}
