//! The model's shape, read from a Hugging Face `config.json` of the ChatGLM2 family.
//!
//! Every key of the file is used, known to have no effect on the numbers, rejected, or kept as unread (`words`). A key
//! with value `null` counts as absent.

mod quantised;
mod scaling;
mod words;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use glmbench_device::rotary::RotaryScaling;
use glmbench_device::{DeviceKind, KvForm, LinearShape, Precision, Role, WeightForm};

use crate::EngineError;

pub use self::quantised::{Quantised, Scheme, default_float};
pub use self::scaling::RopeScaling;

/// Largest accepted file. ChatGLM2-6B's has 1,300 bytes; the labels of a classifier add a few thousand.
const MOST_BYTES: u64 = 16 << 20;

/// Errors of a `config.json` that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is not JSON, or a key is missing or has the wrong type.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, column and key.
        source: serde_json::Error,
    },
    /// The values are readable but describe a model that this engine does not run.
    #[error("{path}: {problem}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// Key, value found, value expected.
        problem: String,
    },
}

/// Shape and constants of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Transformer layers.
    pub num_layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of one half (gate or up) of the feed-forward layer.
    pub ffn_hidden_size: usize,
    /// Channels per attention head.
    pub kv_channels: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// KV heads (`multi_query_group_num`). Each serves `num_attention_heads / num_kv_heads` query heads.
    pub num_kv_heads: usize,
    /// Rows of the embedding and of the output layer.
    pub padded_vocab_size: usize,
    /// Longest context, in positions.
    pub seq_length: usize,
    /// Epsilon of RMSNorm, added to the mean of squares.
    pub layernorm_epsilon: f32,
    /// Stretch factor of the rotary positions; `None` if the file has no such key (ChatGLM2-6B itself).
    pub rope_ratio: Option<f64>,
    /// What `rope_ratio` scales; `None` if there is no `rope_ratio`.
    pub rope_scaling: Option<RopeScaling>,
    /// Whether the query/key/value projection has a bias.
    pub qkv_bias: bool,
    /// Number of virtual tokens of a P-tuning v2 prefix.
    pub pre_seq_len: Option<usize>,
    /// Whether the prefix goes through a two-layer network.
    pub prefix_projection: bool,
    /// Tokens that end a sequence. Empty if the file names none: then the tokenizer's own end token applies.
    pub eos_token_ids: Vec<u32>,
    /// `_name_or_path` as written.
    pub name: Option<String>,
    /// How the weights are quantised; `None` if they are plain numbers.
    pub quantised: Option<Quantised>,
    /// Keys of the file that this engine does not know, with their values as JSON.
    pub unread: BTreeMap<String, String>,
}

/// The keys that this engine uses, as written in the file.
#[derive(Deserialize)]
struct Wire {
    #[serde(rename = "_name_or_path")]
    name: Option<String>,
    model_type: Option<String>,
    num_layers: usize,
    hidden_size: usize,
    ffn_hidden_size: usize,
    kv_channels: Option<usize>,
    num_attention_heads: usize,
    multi_query_attention: Option<bool>,
    multi_query_group_num: Option<usize>,
    padded_vocab_size: usize,
    seq_length: usize,
    layernorm_epsilon: Option<f64>,
    rope_ratio: Option<f64>,
    rmsnorm: Option<bool>,
    post_layer_norm: Option<bool>,
    apply_residual_connection_post_layernorm: Option<bool>,
    add_bias_linear: Option<bool>,
    add_qkv_bias: Option<bool>,
    fp32_residual_connection: Option<bool>,
    pre_seq_len: Option<usize>,
    prefix_projection: Option<bool>,
    eos_token_id: Option<OneOrMore>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// One token id, or a list of them.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a token id or a list of token ids")]
enum OneOrMore {
    One(u32),
    More(Vec<u32>),
}

impl ModelConfig {
    /// Reads and checks a `config.json`.
    ///
    /// # Errors
    /// The file cannot be read or is not JSON, or it has a shape or key that this engine does not run. Also if the
    /// meaning of a `rope_ratio` is unknown.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        Self::from_file_as(path, None)
    }

    /// Like [`from_file`](Self::from_file), with the user's choice of what `rope_ratio` scales, if given.
    pub fn from_file_as(path: &Path, scaling: Option<RopeScaling>) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Read { path: path.to_path_buf(), source };
        let found = std::fs::metadata(path).map_err(failed)?;
        if !found.is_file() || found.len() > MOST_BYTES {
            let problem = format!("expected a regular file of at most {MOST_BYTES} bytes");
            return Err(ConfigError::Unsupported { path: path.to_path_buf(), problem });
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        Self::from_json_as(&text, path, scaling)
    }

    /// Like [`from_file`](Self::from_file), for callers that need only the shape: the meaning of `rope_ratio` may be
    /// unknown.
    pub fn shape_of(path: &Path) -> Result<Self, ConfigError> {
        Self::from_file(path)
            .or_else(|error| Self::from_file_as(path, Some(RopeScaling::Base)).map_err(|_| error))
    }

    /// Parses and checks the text of a `config.json`. `path` is used in messages only.
    pub fn from_json(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Self::from_json_as(text, path, None)
    }

    fn from_json_as(text: &str, path: &Path, scaling: Option<RopeScaling>) -> Result<Self, ConfigError> {
        let mut wire: Wire = serde_json::from_str(text)
            .map_err(|source| ConfigError::Json { path: path.to_path_buf(), source })?;
        let unsupported = |problem: String| ConfigError::Unsupported { path: path.to_path_buf(), problem };
        check_flags(&wire).map_err(unsupported)?;
        let others = std::mem::take(&mut wire.others);
        let mut config = Self::from_wire(wire);
        config.check_shape().map_err(unsupported)?;
        config.rope_scaling =
            scaling::decided(config.rope_ratio, config.name.as_deref(), scaling).map_err(unsupported)?;
        let words = words::sort(others, &config).map_err(unsupported)?;
        (config.quantised, config.unread) = (words.quantised, words.unread);
        Ok(config)
    }

    /// Returns ChatGLM2-6B's own shape.
    pub fn chatglm2_6b() -> Self {
        Self {
            num_layers: 28,
            hidden_size: 4096,
            ffn_hidden_size: 13696,
            kv_channels: 128,
            num_attention_heads: 32,
            num_kv_heads: 2,
            padded_vocab_size: 65024,
            seq_length: 32768,
            layernorm_epsilon: 1e-5,
            rope_ratio: None,
            rope_scaling: None,
            qkv_bias: true,
            pre_seq_len: None,
            prefix_projection: false,
            eos_token_ids: vec![2],
            name: Some("chatglm2-6b".into()),
            quantised: None,
            unread: BTreeMap::new(),
        }
    }

    fn from_wire(wire: Wire) -> Self {
        let kv_channels = wire.kv_channels.unwrap_or(wire.hidden_size / wire.num_attention_heads.max(1));
        Self {
            num_layers: wire.num_layers,
            hidden_size: wire.hidden_size,
            ffn_hidden_size: wire.ffn_hidden_size,
            kv_channels,
            num_attention_heads: wire.num_attention_heads,
            num_kv_heads: wire.multi_query_group_num.unwrap_or(1),
            padded_vocab_size: wire.padded_vocab_size,
            seq_length: wire.seq_length,
            layernorm_epsilon: wire.layernorm_epsilon.unwrap_or(1e-5) as f32,
            rope_ratio: wire.rope_ratio,
            rope_scaling: None,
            qkv_bias: wire.add_qkv_bias.unwrap_or(false),
            pre_seq_len: wire.pre_seq_len.filter(|&n| n > 0),
            prefix_projection: wire.prefix_projection.unwrap_or(false),
            eos_token_ids: match wire.eos_token_id {
                None => Vec::new(),
                Some(OneOrMore::One(id)) => vec![id],
                Some(OneOrMore::More(ids)) => ids,
            },
            name: wire.name,
            quantised: None,
            unread: BTreeMap::new(),
        }
    }

    fn check_shape(&self) -> Result<(), String> {
        const LIMIT: usize = 1 << 24;
        if self.num_layers == 0 || self.num_layers > 4096 {
            return Err(format!("num_layers is {}, expected 1 to 4096", self.num_layers));
        }
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("ffn_hidden_size", self.ffn_hidden_size),
            ("kv_channels", self.kv_channels),
            ("num_attention_heads", self.num_attention_heads),
            ("multi_query_group_num", self.num_kv_heads),
            ("padded_vocab_size", self.padded_vocab_size),
            ("seq_length", self.seq_length),
        ];
        for (key, value) in sizes {
            if value == 0 || value > LIMIT {
                return Err(format!("{key} is {value}, expected 1 to {LIMIT}"));
            }
        }
        if !self.num_attention_heads.is_multiple_of(self.num_kv_heads) {
            return Err(format!(
                "num_attention_heads {} is not a multiple of multi_query_group_num {}",
                self.num_attention_heads, self.num_kv_heads
            ));
        }
        if !self.kv_channels.is_multiple_of(4) {
            return Err(format!(
                "kv_channels is {}, expected a multiple of 4 (rotary pairs fill its first half)",
                self.kv_channels
            ));
        }
        if self.num_attention_heads * self.kv_channels > LIMIT {
            return Err(format!("num_attention_heads x kv_channels exceeds {LIMIT}"));
        }
        if self.pre_seq_len.is_some_and(|n| n > LIMIT) {
            return Err(format!("pre_seq_len exceeds {LIMIT}"));
        }
        if !self.layernorm_epsilon.is_finite() || self.layernorm_epsilon < 0.0 {
            return Err(format!(
                "layernorm_epsilon is {}, expected a small positive number",
                self.layernorm_epsilon
            ));
        }
        if let Some(ratio) = self.rope_ratio.filter(|r| !r.is_finite() || *r <= 0.0) {
            return Err(format!("rope_ratio is {ratio}, expected a positive number"));
        }
        Ok(())
    }

    /// Returns the width of all query heads.
    pub fn q_width(&self) -> usize {
        self.num_attention_heads * self.kv_channels
    }

    /// Returns the width of all key heads, which is also that of all value heads.
    pub fn kv_width(&self) -> usize {
        self.num_kv_heads * self.kv_channels
    }

    /// Returns the output width of the fused query/key/value projection: `[q | k | v]`.
    pub fn qkv_width(&self) -> usize {
        self.q_width() + 2 * self.kv_width()
    }

    /// Returns the number of rotated channels per head: the first half.
    pub fn rotary_channels(&self) -> usize {
        self.kv_channels / 2
    }

    /// Returns what `rope_ratio` scales, with its value.
    pub fn rotary_scaling(&self) -> RotaryScaling {
        match (self.rope_scaling, self.rope_ratio) {
            (Some(RopeScaling::Positions), Some(ratio)) => RotaryScaling::Positions(ratio),
            (Some(RopeScaling::Base), Some(ratio)) => RotaryScaling::Base(ratio),
            _ => RotaryScaling::None,
        }
    }

    /// Returns the shape as text. Two models with the same text do the same work per token.
    pub fn shape(&self) -> String {
        let prefix = self.pre_seq_len.map(|n| format!(", prefix {n}")).unwrap_or_default();
        format!(
            "{} layers, hidden {}, ffn {}, {} heads of {}, {} KV heads, vocabulary {}{prefix}",
            self.num_layers,
            self.hidden_size,
            self.ffn_hidden_size,
            self.num_attention_heads,
            self.kv_channels,
            self.num_kv_heads,
            self.padded_vocab_size
        )
    }

    /// Returns the types in which a run computes that asked for `asked`. A quantised checkpoint has its own form of weights,
    /// and may have its own KV cache.
    ///
    /// # Errors
    /// The run asked for another form than the checkpoint's, or for scales that the checkpoint does not have.
    pub fn precision(&self, asked: Precision) -> Result<Precision, EngineError> {
        let Some(quantised) = &self.quantised else {
            return match asked.kv {
                KvForm::C8 => Err(EngineError::Option(
                    "KV cache c8 needs the scales of a quantised checkpoint, and config.json has no \"kv_quant_type\": \"C8\"; \
                     expected --kv auto or int8"
                        .into(),
                )),
                _ => Ok(asked),
            };
        };
        let Some(weights) = quantised.scheme.map(Scheme::form) else { return Ok(asked) };
        if asked.weights != WeightForm::Plain && asked.weights != weights {
            return Err(EngineError::Option(format!(
                "dtype {} was asked for, and the checkpoint is {} (config.json says {}); leave --dtype out",
                asked.type_name(),
                quantised.word(),
                quantised.said
            )));
        }
        let kv = match (asked.kv, quantised.kv_c8) {
            (KvForm::Auto, true) => KvForm::C8,
            (KvForm::C8, false) => {
                return Err(EngineError::Option(
                    "KV cache c8 was asked for, and the checkpoint has no scales for it; expected --kv auto or int8".into(),
                ));
            }
            (kv, _) => kv,
        };
        Ok(Precision { dtype: asked.dtype, weights, kv })
    }

    /// Returns the types that `device` must support for a run in `precision`. A device that computes in one type takes the forms
    /// of a checkpoint as they are.
    pub fn types_on(&self, device: DeviceKind, precision: Precision) -> Precision {
        match self.quantised {
            Some(_) if device.only_type().is_some() => precision.dtype.into(),
            _ => precision,
        }
    }

    /// Returns the number of parameters, prefix excluded.
    pub fn parameters(&self) -> u64 {
        let hidden = self.hidden_size as u64;
        let qkv = self.qkv_width() as u64;
        let bias = if self.qkv_bias { qkv } else { 0 };
        let layer = 2 * hidden
            + qkv * hidden
            + bias
            + hidden * self.q_width() as u64
            + 3 * hidden * self.ffn_hidden_size as u64;
        layer * self.num_layers as u64 + hidden + 2 * hidden * self.padded_vocab_size as u64
    }

    /// Returns the weight shape of the output layer.
    pub fn output_linear(&self) -> LinearShape {
        LinearShape { role: Role::Output, out: self.padded_vocab_size as u64, width: self.hidden_size as u64 }
    }

    /// Returns the weight shapes of the linear layers in one transformer layer, in the order of the forward pass.
    pub fn layer_linears(&self) -> [LinearShape; 4] {
        let [hidden, q, qkv, ffn] =
            [self.hidden_size, self.q_width(), self.qkv_width(), self.ffn_hidden_size].map(|n| n as u64);
        [
            LinearShape { role: Role::Qkv, out: qkv, width: hidden },
            LinearShape { role: Role::Dense, out: hidden, width: q },
            LinearShape { role: Role::GateUp, out: 2 * ffn, width: hidden },
            LinearShape { role: Role::Down, out: hidden, width: ffn },
        ]
    }
}

fn check_flags(wire: &Wire) -> Result<(), String> {
    if let Some(kind) = wire.model_type.as_deref()
        && kind != "chatglm"
    {
        return Err(format!("model_type is \"{kind}\", expected \"chatglm\""));
    }
    let flags = [
        // Without this flag, the rows of the fused projection are ordered by head: q, k and v of each head together.
        ("multi_query_attention", wire.multi_query_attention.unwrap_or(false), true),
        ("rmsnorm", wire.rmsnorm.unwrap_or(true), true),
        ("post_layer_norm", wire.post_layer_norm.unwrap_or(true), true),
        (
            "apply_residual_connection_post_layernorm",
            wire.apply_residual_connection_post_layernorm.unwrap_or(false),
            false,
        ),
        ("add_bias_linear", wire.add_bias_linear.unwrap_or(false), false),
        ("fp32_residual_connection", wire.fp32_residual_connection.unwrap_or(false), false),
    ];
    match flags.iter().find(|(_, found, expected)| found != expected) {
        Some((key, found, expected)) => Err(format!("{key} is {found}, this engine runs {expected} only")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
