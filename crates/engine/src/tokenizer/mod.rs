//! SentencePiece tokenizer of the ChatGLM2 family: text to token ids and back.
//!
//! # Files
//! A folder holds `tokenizer.model` (SentencePiece, preferred) or `tokenizer.json` (the `tokenizers` library). It may
//! also hold `tokenizer_config.json`. Nothing about the vocabulary is assumed; everything is read from the files:
//!
//! | question | answer |
//! |---|---|
//! | Does text begin with a dummy space? | `normalizer_spec.add_dummy_prefix` of `tokenizer.model` |
//! | Which id ends a sequence? | `eos_piece` of `tokenizer.model`, `eos_token` of `tokenizer_config.json` beside a `tokenizer.json` |
//! | Are there ChatGLM2's special tokens? | see below |
//! | Which ids go before a prompt? | see below |
//!
//! **Special tokens.** The Hugging Face class `ChatGLMTokenizer` gives `[MASK] [gMASK] [sMASK] sop eop` the ids after
//! the last piece of `tokenizer.model`. They exist here in two cases:
//!
//! - `tokenizer_config.json` names that class (`tokenizer_class` or `auto_map`).
//! - It names no class and the model has a dummy prefix, as ChatGLM2's has. A file that is missing or empty, or has a
//!   class that fits every vocabulary, names no class.
//!
//! **Prompt prefix.** The first of these that applies:
//!
//! 1. `prefix_tokens` of `tokenizer_config.json`, our own key: a list of pieces such as `["[gMASK]", "sop"]` or `[]`.
//! 2. `[gMASK] sop`, if the special tokens exist.
//! 3. What the post-processor of `tokenizer.json` puts before a text.
//! 4. Nothing.
//!
//! If `config.json` says `chatglm` but another file contradicts a prefix that the vocabulary could have, the folder is
//! rejected until `prefix_tokens` decides. Without its prefix, the model's answers are useless.
//!
//! Special tokens are never found in text: `"[gMASK]"` becomes ordinary pieces.

mod decode;
mod json;
mod proto;
mod sentencepiece;
#[cfg(test)]
mod testing;

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use decode::PieceDecoder;
use json::{JsonDecoder, JsonTokenizer};
use sentencepiece::SentencePiece;

pub use sentencepiece::Memo;

/// Special tokens that `ChatGLMTokenizer` appends to the vocabulary, in id order.
const CHATGLM_SPECIALS: [&str; 5] = ["[MASK]", "[gMASK]", "[sMASK]", "sop", "eop"];
/// Classes that fit every vocabulary, so they carry no information about this one.
const ANY_CLASS: [&str; 4] = ["", "PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend"];
/// Tokens that `ChatGLMTokenizer` puts before a prompt.
const CHATGLM_PREFIX: [&str; 2] = ["[gMASK]", "sop"];

/// File of the settings beside the vocabulary.
const CONFIG_FILE: &str = "tokenizer_config.json";

/// Largest accepted tokenizer file. ChatGLM2's has 1 MB, the largest known ones a few tens of MB.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Errors of loading a tokenizer.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The folder has no tokenizer file.
    #[error("{dir}: neither tokenizer.model nor tokenizer.json is there")]
    Missing {
        /// The folder.
        dir: PathBuf,
    },
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file is damaged, or requires something that this tokenizer does not do exactly.
    #[error("{path}: {problem}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        problem: String,
    },
}

/// A loaded tokenizer; cheap to share between threads by reference.
#[derive(Debug)]
pub struct Tokenizer {
    model: Model,
    /// Special tokens after the last piece.
    specials: &'static [&'static str],
    prefix: Vec<u32>,
    prefix_from: &'static str,
    eos_id: Option<u32>,
    sha256: String,
}

/// The contents of the files beside the vocabulary.
#[derive(Default)]
struct Beside {
    /// `tokenizer_config.json`, or its defaults if the file is missing.
    config: WireConfig,
    /// Whether `config.json` says that the model is of the ChatGLM family.
    is_chatglm: bool,
}

/// The tokenizer class according to `tokenizer_config.json`.
enum Class<'a> {
    ChatGlm,
    Other(&'a str),
    Unsaid,
}

#[derive(Debug)]
enum Model {
    SentencePiece(Box<SentencePiece>),
    Json(Box<JsonTokenizer>),
}

/// The keys of `tokenizer_config.json` that this reader uses.
#[derive(Default, Deserialize)]
struct WireConfig {
    tokenizer_class: Option<String>,
    #[serde(default)]
    auto_map: Value,
    prefix_tokens: Option<Vec<String>>,
    #[serde(default)]
    eos_token: Value,
}

impl Tokenizer {
    /// Loads the tokenizer of a model folder. The module documentation says which files decide what.
    ///
    /// # Errors
    /// There is no tokenizer file, a file cannot be read or is damaged, or a prefix token does not exist. Also if a
    /// file requires what this tokenizer does not do exactly: a unigram model, normalization rules, user-defined
    /// pieces.
    pub fn from_dir(dir: &Path) -> Result<Self, TokenizerError> {
        let beside = Beside { config: read_config(dir)?, is_chatglm: is_chatglm(dir) };
        for (name, load) in
            [("tokenizer.model", load_model as Loader), ("tokenizer.json", load_json as Loader)]
        {
            let path = dir.join(name);
            if let Some(bytes) = read(&path)? {
                let unusable = |problem| TokenizerError::Unusable { path: path.clone(), problem };
                let mut tokenizer = load(&bytes, &beside).map_err(unusable)?;
                tokenizer.sha256 = hex(&Sha256::digest(&bytes));
                if let Some(tokens) = &beside.config.prefix_tokens {
                    tokenizer.set_prefix(tokens, "prefix_tokens of tokenizer_config.json").map_err(
                        |problem| TokenizerError::Unusable { path: dir.join(CONFIG_FILE), problem },
                    )?;
                }
                return Ok(tokenizer);
            }
        }
        Err(TokenizerError::Missing { dir: dir.to_path_buf() })
    }

    fn set_prefix<S: AsRef<str>>(&mut self, tokens: &[S], from: &'static str) -> Result<(), String> {
        let id = |token: &S| {
            let token = token.as_ref();
            self.token_id(token)
                .ok_or_else(|| format!("prefix_tokens has {token:?}, which is no piece of the vocabulary"))
        };
        self.prefix = tokens.iter().map(id).collect::<Result<_, _>>()?;
        self.prefix_from = from;
        Ok(())
    }

    /// Encodes a text, without prefix. Special tokens are never found in text. Empty text has no ids.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        match &self.model {
            Model::SentencePiece(model) => model.encode(text),
            Model::Json(model) => model.encode(text),
        }
    }

    /// Returns what [`encode`](Self::encode) returns, and remembers it: the next text with this `memo` is encoded from the place
    /// on where it differs. Prompts with the same demonstrations differ in their last part.
    pub fn encode_from<'m>(&self, memo: &'m mut Memo, text: &str) -> &'m [u32] {
        match &self.model {
            Model::SentencePiece(model) => model.encode_from(memo, text),
            Model::Json(model) => memo.replace(model.encode(text)),
        }
        memo.ids()
    }

    /// Encodes a whole prompt: [`prefix_ids`](Self::prefix_ids), then the text.
    pub fn encode_prompt(&self, text: &str) -> Vec<u32> {
        [self.prefix_ids(), &self.encode(text)].concat()
    }

    /// Returns the ids before every prompt: `[gMASK] sop` for ChatGLM2, none for models without a prefix.
    pub fn prefix_ids(&self) -> &[u32] {
        &self.prefix
    }

    /// Describes what decided on [`prefix_ids`](Self::prefix_ids).
    pub fn prefix_from(&self) -> &'static str {
        self.prefix_from
    }

    /// Decodes ids as ChatGLM2's tokenizer class does.
    ///
    /// Special tokens, end and beginning of sequence, padding (the unknown piece) and ids outside the vocabulary have
    /// no text. Each byte that belongs to no character becomes U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        decode_all(self.stream(), ids)
    }

    /// Decodes ids as SentencePiece does: like [`decode`](Self::decode), but the unknown piece is shown (` ⁇ `).
    pub fn decode_pieces(&self, ids: &[u32]) -> String {
        match &self.model {
            Model::SentencePiece(model) => {
                decode_all(StreamDecoder::of(PieceDecoder::new(model, model.unk_surface())), ids)
            }
            Model::Json(_) => self.decode(ids),
        }
    }

    /// Returns a decoder for ids that arrive one by one.
    pub fn stream(&self) -> StreamDecoder<'_> {
        match &self.model {
            Model::SentencePiece(model) => StreamDecoder::of(PieceDecoder::new(model, "")),
            Model::Json(model) => StreamDecoder(Decoder::Json(JsonDecoder::new(model))),
        }
    }

    /// Continues a decoder that was [suspended](StreamDecoder::suspend); a fresh one for the default state.
    ///
    /// The state must come from a decoder of this tokenizer.
    pub fn resume(&self, state: DecoderState) -> StreamDecoder<'_> {
        match (&self.model, state.0) {
            (Model::SentencePiece(model), State::Pieces { bytes, at_start }) => {
                StreamDecoder::of(PieceDecoder::resume(model, "", bytes, at_start))
            }
            (Model::Json(model), State::Json { ids, done }) => {
                StreamDecoder(Decoder::Json(JsonDecoder::resume(model, ids, done)))
            }
            _ => self.stream(),
        }
    }

    /// Returns the id that ends a sequence, if the files name one.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos_id
    }

    /// Returns the id of a special token or of a piece as written in the vocabulary (`▁` for a space).
    pub fn token_id(&self, piece: &str) -> Option<u32> {
        match &self.model {
            Model::SentencePiece(model) => match self.specials.iter().position(|special| *special == piece) {
                Some(place) => Some((model.len() + place) as u32),
                None => model.id(piece),
            },
            Model::Json(model) => model.id(piece),
        }
    }

    /// Returns the piece or special token with this id.
    pub fn piece(&self, id: u32) -> Option<&str> {
        match &self.model {
            Model::SentencePiece(model) => match model.piece(id) {
                Some(piece) => Some(&piece.text),
                None => self.specials.get(id as usize - model.len()).copied(),
            },
            Model::Json(model) => model.piece(id),
        }
    }

    /// Returns the number of embedding rows that a model needs: the highest id of a piece or prefix token, plus one.
    pub fn vocab_size(&self) -> usize {
        let pieces = match &self.model {
            Model::SentencePiece(model) => model.len(),
            Model::Json(model) => model.vocab_size(),
        };
        self.prefix.iter().map(|&id| id as usize + 1).fold(pieces, usize::max)
    }

    /// Returns the SHA-256 of the tokenizer file, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

type Loader = fn(&[u8], &Beside) -> Result<Tokenizer, String>;

fn load_model(bytes: &[u8], beside: &Beside) -> Result<Tokenizer, String> {
    let model = SentencePiece::from_bytes(bytes)?;
    let (eos_id, dummy) = (model.eos_id(), model.add_dummy_prefix());
    let asked = beside.config.prefix_tokens.as_deref();
    let from = match beside.config.class() {
        Class::ChatGlm => Some("the class in tokenizer_config.json"),
        Class::Unsaid if dummy => {
            Some("ChatGLM2's: no file names another class, and the model has a dummy prefix")
        }
        Class::Other(class) if beside.is_chatglm && dummy && asked.is_none() => return Err(undecided(class)),
        Class::Unsaid | Class::Other(_) => None,
    };
    // A special token in `prefix_tokens` exists, whatever the class.
    let is_asked = |name: &&str| asked.is_some_and(|tokens| tokens.iter().any(|token| token == name));
    let has_specials =
        from.is_some() || CHATGLM_SPECIALS.iter().any(|s| is_asked(s) && model.id(s).is_none());
    let mut tokenizer = Tokenizer {
        model: Model::SentencePiece(Box::new(model)),
        specials: if has_specials { &CHATGLM_SPECIALS } else { &[] },
        prefix: Vec::new(),
        prefix_from: "no file says that there is one",
        eos_id,
        sha256: String::new(),
    };
    if let Some(from) = from {
        tokenizer.set_prefix(&CHATGLM_PREFIX, from)?;
    }
    Ok(tokenizer)
}

fn load_json(bytes: &[u8], beside: &Beside) -> Result<Tokenizer, String> {
    let model = JsonTokenizer::from_bytes(bytes)?;
    let eos_id = beside.config.eos_token().and_then(|token| model.id(token));
    let prefix = model.prefix().to_vec();
    let from = if prefix.is_empty() {
        "no file says that there is one"
    } else {
        "the post-processor of tokenizer.json"
    };
    let could_have = || ["[gMASK]", "sop"].iter().all(|token| model.id(token).is_some());
    if prefix.is_empty() && beside.is_chatglm && beside.config.prefix_tokens.is_none() && could_have() {
        return Err(undecided("that of tokenizer.json, whose post-processor adds nothing"));
    }
    Ok(Tokenizer {
        model: Model::Json(Box::new(model)),
        specials: &[],
        prefix,
        prefix_from: from,
        eos_id,
        sha256: String::new(),
    })
}

/// Returns the message for a folder that does not decide on a prefix that the model probably needs.
fn undecided(class: &str) -> String {
    format!(
        "config.json says model_type \"chatglm\", whose prompts begin with [gMASK] sop, and the tokenizer's class is {class}; \
         decide in {CONFIG_FILE}: \"prefix_tokens\": [\"[gMASK]\", \"sop\"], or \"prefix_tokens\": [] for none"
    )
}

impl WireConfig {
    fn class(&self) -> Class<'_> {
        // `auto_map` holds "tokenization_chatglm.ChatGLMTokenizer", possibly with a repository name before it.
        let auto = &self.auto_map["AutoTokenizer"];
        let auto = auto.as_array().into_iter().flatten().chain([auto]).filter_map(Value::as_str);
        let mut classes = self.tokenizer_class.as_deref().into_iter().chain(auto);
        if classes.clone().any(|class| class.ends_with("ChatGLMTokenizer")) {
            return Class::ChatGlm;
        }
        classes.find(|class| !ANY_CLASS.contains(class)).map_or(Class::Unsaid, Class::Other)
    }

    /// Returns the token of `"</s>"` or `{"content": "</s>", …}`.
    fn eos_token(&self) -> Option<&str> {
        self.eos_token.as_str().or_else(|| self.eos_token["content"].as_str())
    }
}

/// Reads `tokenizer_config.json`; returns the defaults if it is missing.
fn read_config(dir: &Path) -> Result<WireConfig, TokenizerError> {
    let path = dir.join(CONFIG_FILE);
    let parse = |bytes: Vec<u8>| {
        serde_json::from_slice(&bytes)
            .map_err(|error| TokenizerError::Unusable { path: path.clone(), problem: error.to_string() })
    };
    Ok(read(&path)?.map(parse).transpose()?.unwrap_or_default())
}

/// Whether a `config.json` beside the tokenizer says that the model is of the ChatGLM family. Errors in that file are
/// left to its own reader.
fn is_chatglm(dir: &Path) -> bool {
    let bytes = read(&dir.join("config.json")).ok().flatten();
    let config: Option<Value> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    config.is_some_and(|config| config["model_type"] == "chatglm")
}

/// Reads a file; returns `None` if it does not exist.
fn read(path: &Path) -> Result<Option<Vec<u8>>, TokenizerError> {
    let failed = |source| TokenizerError::Read { path: path.to_path_buf(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let problem = format!("it is larger than {MAX_FILE_BYTES} bytes, expected a tokenizer file");
        return Err(TokenizerError::Unusable { path: path.to_path_buf(), problem });
    }
    Ok(Some(bytes))
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])).collect()
}

fn decode_all(mut decoder: StreamDecoder<'_>, ids: &[u32]) -> String {
    let mut text: String = ids.iter().map(|&id| decoder.push(id)).collect();
    text.push_str(&decoder.finish());
    text
}

/// Decodes ids as they are generated.
///
/// The texts of all [`push`](Self::push) calls and of [`finish`](Self::finish), joined, equal [`Tokenizer::decode`] of
/// all ids. A character that spans several byte pieces is output once it is complete.
#[derive(Debug, Clone)]
pub struct StreamDecoder<'a>(Decoder<'a>);

/// What a [`StreamDecoder`] remembers, without the tokenizer that it borrows.
#[derive(Debug, Clone, Default)]
pub struct DecoderState(State);

#[derive(Debug, Clone, Default)]
enum State {
    /// Nothing yet.
    #[default]
    Fresh,
    Pieces {
        bytes: Vec<u8>,
        at_start: bool,
    },
    Json {
        ids: Vec<u32>,
        done: usize,
    },
}

#[derive(Debug, Clone)]
enum Decoder<'a> {
    Pieces(PieceDecoder<'a>),
    Json(JsonDecoder<'a>),
}

impl<'a> StreamDecoder<'a> {
    fn of(decoder: PieceDecoder<'a>) -> Self {
        Self(Decoder::Pieces(decoder))
    }

    /// Returns what the decoder remembers; [`Tokenizer::resume`] goes on from there.
    pub fn suspend(self) -> DecoderState {
        DecoderState(match self.0 {
            Decoder::Pieces(decoder) => {
                let (bytes, at_start) = decoder.suspend();
                State::Pieces { bytes, at_start }
            }
            Decoder::Json(decoder) => {
                let (ids, done) = decoder.suspend();
                State::Json { ids, done }
            }
        })
    }

    /// Takes the next id. Returns the text that no later id can change, often empty.
    pub fn push(&mut self, id: u32) -> String {
        match &mut self.0 {
            Decoder::Pieces(decoder) => decoder.push(id),
            Decoder::Json(decoder) => decoder.push(id),
        }
    }

    /// Returns the text still held back: U+FFFD for each byte of a character that was never completed.
    pub fn finish(&mut self) -> String {
        match &mut self.0 {
            Decoder::Pieces(decoder) => decoder.finish(),
            Decoder::Json(decoder) => decoder.finish(),
        }
    }
}

#[cfg(test)]
mod tests;
