//! The model's shape, read from a Hugging Face `config.json` of the ChatGLM2 family.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::device::rotary::RotaryScaling;

/// Why a `config.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no JSON, or a key is missing or has the wrong type.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, column and key.
        source: serde_json::Error,
    },
    /// The values are readable but describe no model that this engine runs.
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
    /// Channels of one attention head.
    pub kv_channels: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// KV heads: each serves `num_attention_heads / num_kv_heads` query heads (`multi_query_group_num`).
    pub num_kv_heads: usize,
    /// Rows of the embedding and of the output layer.
    pub padded_vocab_size: usize,
    /// Positions the model was made for: the longest context.
    pub seq_length: usize,
    /// Added to the mean of squares in RMSNorm.
    pub layernorm_epsilon: f32,
    /// How far rotary positions are stretched, see [`ModelConfig::rotary_scaling`]; `None` where the file has no such
    /// key (ChatGLM2-6B itself).
    pub rope_ratio: Option<f64>,
    /// The query/key/value projection has a bias.
    pub qkv_bias: bool,
    /// Virtual tokens of a P-tuning v2 prefix.
    pub pre_seq_len: Option<usize>,
    /// The prefix goes through a two-layer network.
    pub prefix_projection: bool,
    /// End of sequence.
    pub eos_token_id: u32,
    /// Padding.
    pub pad_token_id: u32,
    /// `torch_dtype` as written, e.g. `float16`.
    pub torch_dtype: Option<String>,
    /// `_name_or_path` as written.
    pub name: Option<String>,
}

/// The keys that matter, as they stand in the file.
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
    #[serde(default)]
    multi_query_attention: bool,
    #[serde(default = "one")]
    multi_query_group_num: usize,
    padded_vocab_size: usize,
    seq_length: usize,
    #[serde(default = "default_epsilon")]
    layernorm_epsilon: f64,
    rope_ratio: Option<f64>,
    #[serde(default = "yes")]
    rmsnorm: bool,
    #[serde(default = "yes")]
    post_layer_norm: bool,
    #[serde(default)]
    apply_residual_connection_post_layernorm: bool,
    #[serde(default)]
    add_bias_linear: bool,
    #[serde(default)]
    add_qkv_bias: bool,
    #[serde(default)]
    fp32_residual_connection: bool,
    pre_seq_len: Option<usize>,
    #[serde(default)]
    prefix_projection: bool,
    #[serde(default = "default_eos")]
    eos_token_id: u32,
    #[serde(default)]
    pad_token_id: Option<u32>,
    torch_dtype: Option<String>,
}

fn yes() -> bool {
    true
}

fn one() -> usize {
    1
}

fn default_epsilon() -> f64 {
    1e-5
}

fn default_eos() -> u32 {
    2
}

impl ModelConfig {
    /// Reads and checks a `config.json`.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
        Self::from_json(&text, path)
    }

    /// Parses and checks the text of a `config.json`; `path` is for messages.
    pub fn from_json(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let wire: Wire = serde_json::from_str(text)
            .map_err(|source| ConfigError::Json { path: path.to_path_buf(), source })?;
        let unsupported = |problem: String| ConfigError::Unsupported { path: path.to_path_buf(), problem };
        check_flags(&wire).map_err(unsupported)?;
        let config = Self::from_wire(wire);
        config.check_shape().map_err(unsupported)?;
        Ok(config)
    }

    /// ChatGLM2-6B's own shape.
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
            qkv_bias: true,
            pre_seq_len: None,
            prefix_projection: false,
            eos_token_id: 2,
            pad_token_id: 0,
            torch_dtype: Some("float16".into()),
            name: Some("chatglm2-6b".into()),
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
            num_kv_heads: wire.multi_query_group_num,
            padded_vocab_size: wire.padded_vocab_size,
            seq_length: wire.seq_length,
            layernorm_epsilon: wire.layernorm_epsilon as f32,
            rope_ratio: wire.rope_ratio,
            qkv_bias: wire.add_qkv_bias,
            pre_seq_len: wire.pre_seq_len.filter(|&n| n > 0),
            prefix_projection: wire.prefix_projection,
            eos_token_id: wire.eos_token_id,
            pad_token_id: wire.pad_token_id.unwrap_or(0),
            torch_dtype: wire.torch_dtype,
            name: wire.name,
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
        if self.rope_ratio.is_some_and(|r| !r.is_finite() || r <= 0.0) {
            return Err(format!("rope_ratio is {:?}, expected a positive number", self.rope_ratio));
        }
        Ok(())
    }

    /// Width of all query heads.
    pub fn q_width(&self) -> usize {
        self.num_attention_heads * self.kv_channels
    }

    /// Width of all key heads (or of all value heads).
    pub fn kv_width(&self) -> usize {
        self.num_kv_heads * self.kv_channels
    }

    /// Output width of the fused query/key/value projection: `[q | k | v]`.
    pub fn qkv_width(&self) -> usize {
        self.q_width() + 2 * self.kv_width()
    }

    /// Channels of a head that are rotated: the first half.
    pub fn rotary_channels(&self) -> usize {
        self.kv_channels / 2
    }

    /// What `rope_ratio` means. ChatGLM2-6B-32k divides positions by it, ChatGLM3 and later multiply the base with it;
    /// only `_name_or_path` tells the two files apart.
    pub fn rotary_scaling(&self) -> RotaryScaling {
        let name = self.name.as_deref().unwrap_or_default().to_ascii_lowercase();
        let interpolates = name.contains("chatglm2") && name.contains("32k");
        match self.rope_ratio {
            None => RotaryScaling::None,
            Some(ratio) if interpolates => RotaryScaling::Positions(ratio),
            Some(ratio) => RotaryScaling::Base(ratio),
        }
    }

    /// Numbers in all weights, prefix excluded.
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

    /// `[out, in]` of the weight matrix of the output layer.
    pub fn output_matrix(&self) -> [u64; 2] {
        [self.padded_vocab_size as u64, self.hidden_size as u64]
    }

    /// `[out, in]` of the weight matrices of one layer: queries, keys and values; attention's output; the feed-forward
    /// layer's two halves and its way down.
    pub fn layer_matrices(&self) -> [[u64; 2]; 4] {
        let [hidden, q, qkv, ffn] =
            [self.hidden_size, self.q_width(), self.qkv_width(), self.ffn_hidden_size].map(|n| n as u64);
        [[qkv, hidden], [hidden, q], [2 * ffn, hidden], [hidden, ffn]]
    }
}

fn check_flags(wire: &Wire) -> Result<(), String> {
    if let Some(kind) = wire.model_type.as_deref()
        && kind != "chatglm"
    {
        return Err(format!("model_type is \"{kind}\", expected \"chatglm\""));
    }
    let flags = [
        // Without it the rows of the fused projection lie head by head, q, k and v of each together.
        ("multi_query_attention", wire.multi_query_attention, true),
        ("rmsnorm", wire.rmsnorm, true),
        ("post_layer_norm", wire.post_layer_norm, true),
        ("apply_residual_connection_post_layernorm", wire.apply_residual_connection_post_layernorm, false),
        ("add_bias_linear", wire.add_bias_linear, false),
        ("fp32_residual_connection", wire.fp32_residual_connection, false),
    ];
    match flags.iter().find(|(_, found, expected)| found != expected) {
        Some((key, found, expected)) => Err(format!("{key} is {found}, this engine runs {expected} only")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: &str = r#"{"model_type":"chatglm","num_layers":2,"hidden_size":64,"ffn_hidden_size":160,
        "kv_channels":16,"num_attention_heads":4,"multi_query_attention":true,"multi_query_group_num":2,
        "padded_vocab_size":512,"seq_length":2048,"add_qkv_bias":true}"#;

    fn parse(text: &str) -> Result<ModelConfig, ConfigError> {
        ModelConfig::from_json(text, Path::new("config.json"))
    }

    #[test]
    fn the_6b_shape_has_its_published_number_of_parameters() {
        assert_eq!(ModelConfig::chatglm2_6b().parameters(), 6_243_584_032 - 32); // the file also holds inv_freq [32]
    }

    #[test]
    fn a_shape_that_cannot_be_names_the_key() {
        for (from, to, key) in [
            ("\"multi_query_group_num\":2", "\"multi_query_group_num\":3", "multi_query_group_num"),
            ("\"kv_channels\":16", "\"kv_channels\":6", "kv_channels"),
            ("\"num_layers\":2", "\"num_layers\":0", "num_layers"),
            ("\"chatglm\"", "\"llama\"", "model_type"),
            ("\"hidden_size\":64,", "", "hidden_size"),
            ("\"add_qkv_bias\":true", "\"rmsnorm\":false", "rmsnorm"),
            (
                "\"multi_query_attention\":true",
                "\"multi_query_attention\":false",
                "multi_query_attention is false",
            ),
            ("\"multi_query_attention\":true,", "", "multi_query_attention is false"),
        ] {
            let error = parse(&TINY.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        assert!(parse(TINY).is_ok());
    }

    #[test]
    fn the_name_decides_what_rope_ratio_does() {
        let scaling =
            |keys: &str| parse(&TINY.replacen('{', &format!("{{{keys}"), 1)).unwrap().rotary_scaling();
        let named = |name: &str| scaling(&format!(r#""_name_or_path":"{name}","rope_ratio":16,"#));
        assert_eq!(scaling(""), RotaryScaling::None);
        assert_eq!(named("THUDM/chatglm2-6b-32k"), RotaryScaling::Positions(16.0));
        assert_eq!(named("THUDM/chatglm3-6b-32k"), RotaryScaling::Base(16.0));
        assert_eq!(scaling(r#""rope_ratio":10.0,"#), RotaryScaling::Base(10.0));
    }
}
