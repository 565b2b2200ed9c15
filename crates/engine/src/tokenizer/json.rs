//! Reader of a `tokenizer.json` of the `tokenizers` library.
//!
//! The crate reads the file itself, after checks of our own. They reject files that would make the crate panic, files
//! without a fixed result (dropout), and models other than BPE.

use std::collections::HashMap;
use std::panic::catch_unwind;

use serde::Deserialize;
use serde_json::Value;

use crate::lfs;

/// A loaded `tokenizer.json`.
pub(super) struct JsonTokenizer {
    tokenizer: tokenizers::Tokenizer,
    pieces: HashMap<u32, String>,
    prefix: Vec<u32>,
}

/// The keys that are checked before the crate reads the file.
#[derive(Deserialize)]
struct Wire {
    model: WireModel,
    normalizer: Option<Value>,
    decoder: Option<Value>,
}

#[derive(Deserialize)]
struct WireModel {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    vocab: Value,
    #[serde(default)]
    merges: Vec<WireMerge>,
    dropout: Option<f32>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WireMerge {
    Pair((String, String)),
    Line(String),
}

impl JsonTokenizer {
    /// Reads the bytes of a `tokenizer.json`. The error says which part cannot be used.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        if lfs::is_pointer(bytes) {
            return Err(lfs::POINTER.into());
        }
        let wire: Wire =
            serde_json::from_slice(bytes).map_err(|error| format!("not a tokenizer.json: {error}"))?;
        check_model(&wire.model)?;
        wire.normalizer.as_ref().map_or(Ok(()), check_normalizer)?;
        wire.decoder.as_ref().map_or(Ok(()), check_decoder)?;
        let (tokenizer, prefix) =
            catch_unwind(|| build(bytes)).map_err(|_| "the tokenizers library fails on it".to_owned())??;
        let pieces = tokenizer.get_vocab(true).into_iter().map(|(piece, id)| (id, piece)).collect();
        Ok(Self { tokenizer, pieces, prefix })
    }

    /// Returns the ids that the post-processor puts before every text.
    pub(super) fn prefix(&self) -> &[u32] {
        &self.prefix
    }

    /// Returns the highest id plus one.
    pub(super) fn vocab_size(&self) -> usize {
        self.pieces.keys().max().map_or(0, |&id| id as usize + 1)
    }

    pub(super) fn piece(&self, id: u32) -> Option<&str> {
        self.pieces.get(&id).map(String::as_str)
    }

    pub(super) fn id(&self, piece: &str) -> Option<u32> {
        self.tokenizer.token_to_id(piece)
    }

    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        let encoding = self.tokenizer.encode_fast(text, false);
        encoding.expect("invariant: a BPE model with its unknown token encodes any text").get_ids().to_vec()
    }

    pub(super) fn decode(&self, ids: &[u32]) -> String {
        self.tokenizer.decode(ids, true).expect("invariant: the decoders let in decode any pieces")
    }
}

impl std::fmt::Debug for JsonTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JsonTokenizer").field("pieces", &self.pieces.len()).finish_non_exhaustive()
    }
}

/// Builds the tokenizer and the ids that it puts before a text.
fn build(bytes: &[u8]) -> Result<(tokenizers::Tokenizer, Vec<u32>), String> {
    let mut tokenizer =
        tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| format!("not a tokenizer.json: {error}"))?;
    // Ids come from the text's characters alone: no truncation, no padding, no special tokens found in text.
    tokenizer.with_padding(None).with_truncation(None).map_err(|error| error.to_string())?;
    tokenizer.set_encode_special_tokens(true);
    let prefix = prefix_of(&tokenizer)?;
    Ok((tokenizer, prefix))
}

fn check_model(model: &WireModel) -> Result<(), String> {
    if model.kind.as_deref().is_some_and(|kind| kind != "BPE") {
        return Err(format!("its model is {}, expected BPE", model.kind.as_deref().unwrap_or_default()));
    }
    if model.dropout.is_some_and(|dropout| dropout != 0.0) {
        return Err("its model has dropout, so a text has no fixed ids".into());
    }
    for (key, value) in [
        ("continuing_subword_prefix", &model.continuing_subword_prefix),
        ("end_of_word_suffix", &model.end_of_word_suffix),
    ] {
        if value.as_ref().is_some_and(|value| !value.is_empty()) {
            return Err(format!("its model has a {key}, which this reader does not support"));
        }
    }
    let Value::Object(vocab) = &model.vocab else {
        return Err("its model has no vocab".into());
    };
    if let Some(unk) = model.unk_token.as_ref().filter(|unk| !vocab.contains_key(*unk)) {
        return Err(format!("its unk_token {unk:?} is not in its vocab"));
    }
    for (rank, merge) in model.merges.iter().enumerate() {
        let joined = match merge {
            WireMerge::Pair((left, right)) => format!("{left}{right}"),
            WireMerge::Line(line) => line.replacen(' ', "", 1),
        };
        if !vocab.contains_key(&joined) {
            return Err(format!("its merge {rank} makes {joined:?}, which is not in its vocab"));
        }
    }
    Ok(())
}

/// Rejects precompiled rules, because the crate trusts their bytes.
fn check_normalizer(normalizer: &Value) -> Result<(), String> {
    match normalizer["type"].as_str() {
        Some("Precompiled") => {
            Err("its normalizer has a precompiled_charsmap, which this reader does not support".into())
        }
        Some("Sequence") => {
            normalizer["normalizers"].as_array().into_iter().flatten().try_for_each(check_normalizer)
        }
        _ => Ok(()),
    }
}

/// Accepts only the decoders that belong to BPE models.
fn check_decoder(decoder: &Value) -> Result<(), String> {
    match decoder["type"].as_str() {
        None if decoder.is_null() => Ok(()),
        Some("ByteLevel" | "ByteFallback" | "Fuse" | "Metaspace" | "Replace") => Ok(()),
        // The crate panics if it strips both ends of a piece that is too short.
        Some("Strip") if decoder["stop"] == 0 => Ok(()),
        Some("Sequence") => decoder["decoders"].as_array().into_iter().flatten().try_for_each(check_decoder),
        _ => Err(format!("its decoder {decoder} is not supported")),
    }
}

fn prefix_of(tokenizer: &tokenizers::Tokenizer) -> Result<Vec<u32>, String> {
    let encode = |special| match tokenizer.encode("a", special) {
        Ok(encoding) => Ok(encoding.get_ids().to_vec()),
        Err(error) => Err(format!("it cannot encode the letter a: {error}")),
    };
    let (mut with, without) = (encode(true)?, encode(false)?);
    if !with.ends_with(&without) {
        return Err("its post_processor adds tokens after the text, expected before it or none".into());
    }
    with.truncate(with.len() - without.len());
    Ok(with)
}

/// Number of earlier ids to decode together with new ones, so that a decoder's start-of-text handling is applied only
/// once.
const CONTEXT: usize = 8;

/// Decodes a growing list of ids with the crate's decoder, which supports whole lists only.
#[derive(Debug, Clone)]
pub(super) struct JsonDecoder<'a> {
    model: &'a JsonTokenizer,
    /// The last ids, both those already output and those pending.
    ids: Vec<u32>,
    /// Number of ids at the front of `ids` already output.
    done: usize,
}

impl<'a> JsonDecoder<'a> {
    pub(super) fn new(model: &'a JsonTokenizer) -> Self {
        Self::resume(model, Vec::new(), 0)
    }

    /// Continues with the ids that [`suspend`](Self::suspend) returned.
    pub(super) fn resume(model: &'a JsonTokenizer, ids: Vec<u32>, done: usize) -> Self {
        Self { model, ids, done }
    }

    /// Returns the last ids, and the number of those already output.
    pub(super) fn suspend(self) -> (Vec<u32>, usize) {
        (self.ids, self.done)
    }

    pub(super) fn push(&mut self, id: u32) -> String {
        self.ids.push(id);
        let text = self.waiting();
        // Later bytes may complete this character.
        if text.ends_with('\u{fffd}') {
            return String::new();
        }
        self.done = self.ids.len();
        self.forget();
        text
    }

    pub(super) fn finish(&mut self) -> String {
        let text = self.waiting();
        self.done = self.ids.len();
        text
    }

    fn waiting(&self) -> String {
        let before = self.model.decode(&self.ids[..self.done]);
        let all = self.model.decode(&self.ids);
        all.get(before.len()..).unwrap_or_default().to_owned()
    }

    fn forget(&mut self) {
        if self.ids.len() > 2 * CONTEXT {
            let start = self.ids.len() - CONTEXT;
            self.ids.drain(..start);
            self.done = self.ids.len();
        }
    }
}
