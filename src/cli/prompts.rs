//! Files of token-id prompts, shared by `logits` and `parity`.

use std::path::Path;

use anyhow::{Context, bail};

use glmbench_engine::config::ModelConfig;

use crate::bounded;

/// Maximum size of a file of prompts in bytes: about ten million token ids.
const MAX_BYTES: u64 = 64 << 20;

/// Reads a JSON list of id lists and checks every id against the vocabulary.
pub fn read_prompts(path: &Path, config: &ModelConfig) -> anyhow::Result<Vec<Vec<u32>>> {
    let text = bounded::text(path, MAX_BYTES).with_context(|| format!("--prompts {}", path.display()))?;
    parse_prompts(&text, config).with_context(|| format!("--prompts {}", path.display()))
}

/// Parses a JSON list of id lists and checks every id against the vocabulary.
pub fn parse_prompts(text: &str, config: &ModelConfig) -> anyhow::Result<Vec<Vec<u32>>> {
    let prompts: Vec<Vec<u32>> = serde_json::from_str(text)
        .context("expected a list of lists of token ids, such as [[64790, 64792, 36474]]")?;
    if prompts.is_empty() {
        bail!("the list is empty, expected at least one list of token ids");
    }
    for (i, prompt) in prompts.iter().enumerate() {
        if prompt.is_empty() {
            bail!("prompt {i} is empty, expected at least one token id");
        }
        if let Some(id) = prompt.iter().find(|id| **id as usize >= config.padded_vocab_size) {
            bail!(
                "prompt {i}: token id {id} is outside the model's vocabulary of {}",
                config.padded_vocab_size
            );
        }
    }
    Ok(prompts)
}
