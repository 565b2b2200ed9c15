//! How a checkpoint's linear layers are quantised: what `config.json` says, and which layers stay in float.
//!
//! Sources of the formats: the page `quantized_weight_format.md` of Ascend's `msmodelslim`, and `quantization.py` in THUDM's
//! int4 and int8 checkpoints.

use std::collections::BTreeSet;

use serde_json::Value;

use glmbench_device::words::one_of;
use glmbench_device::{Role, Storage, WeightForm};

use crate::linear::LinearId;

/// A scheme of quantised weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// ModelSlim's W8A8: int8 weights with a scale per output channel, int8 inputs with a stored scale per layer.
    W8a8,
    /// ModelSlim's sparse W8A8 before compression: W8A8 with weights within four bits.
    W8a8s,
    /// ModelSlim's W8A8_DYNAMIC: int8 weights with a scale per output channel, int8 inputs with a scale per token.
    W8a8Dynamic,
    /// ModelSlim's W8A16: int8 weights with a scale per output channel, inputs in float.
    W8a16,
    /// ModelSlim's W4A16: weights within four bits, one a byte, with a scale per group of inputs or per output channel.
    W4a16,
    /// THUDM's int8 checkpoints: weights as in W8A16.
    Int8,
    /// THUDM's int4 checkpoints: two weights a byte, with a scale per output channel.
    Int4,
}

impl Scheme {
    /// All schemes, in the order of messages.
    pub const ALL: [Self; 7] =
        [Self::W8a8, Self::W8a8s, Self::W8a8Dynamic, Self::W8a16, Self::W4a16, Self::Int8, Self::Int4];

    /// Returns the word of the scheme, which ModelSlim's files have in their names.
    pub fn word(self) -> &'static str {
        match self {
            Self::W8a8 => "w8a8",
            Self::W8a8s => "w8a8s",
            Self::W8a8Dynamic => "w8a8_dynamic",
            Self::W8a16 => "w8a16",
            Self::W4a16 => "w4a16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }

    /// Returns the word of a quantised tensor in ModelSlim's description; `None` for THUDM's schemes, which have none.
    pub fn description_word(self) -> Option<&'static str> {
        match self {
            Self::W8a8 => Some("W8A8"),
            Self::W8a8s => Some("W8A8S"),
            Self::W8a8Dynamic => Some("W8A8_DYNAMIC"),
            Self::W8a16 => Some("W8A16"),
            Self::W4a16 => Some("W4A16"),
            Self::Int8 | Self::Int4 => None,
        }
    }

    /// Says in a few words what the scheme does, for help texts; `None` if its word says it.
    pub fn about(self) -> Option<&'static str> {
        match self {
            Self::W8a8 | Self::Int8 | Self::Int4 => None,
            Self::W8a8s => Some("weights within four bits"),
            Self::W8a8Dynamic => Some("inputs scaled per token"),
            Self::W8a16 | Self::W4a16 => Some("weights only"),
        }
    }

    /// Lists the schemes in which this engine writes checkpoints: ModelSlim's.
    pub fn written() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|scheme| scheme.description_word().is_some())
    }

    /// Whether inputs are quantised, by stored scales or per token.
    pub fn has_integer_inputs(self) -> bool {
        self.has_static_inputs() || self == Self::W8a8Dynamic
    }

    /// Whether inputs are quantised as well, with the scales in the file.
    pub fn has_static_inputs(self) -> bool {
        matches!(self, Self::W8a8 | Self::W8a8s)
    }

    /// Returns the form of the linear layers in a run.
    pub fn form(self) -> WeightForm {
        match self {
            Self::W8a8 | Self::W8a8s => WeightForm::W8a8,
            Self::W8a8Dynamic => WeightForm::W8a8Dynamic,
            Self::W8a16 | Self::Int8 => WeightForm::W8a16,
            Self::W4a16 | Self::Int4 => WeightForm::W4a16,
        }
    }

    /// Returns the key and value of `config.json`.
    pub fn said(self) -> String {
        match self {
            Self::Int8 => "quantization_bit = 8".to_owned(),
            Self::Int4 => "quantization_bit = 4".to_owned(),
            _ => format!("quantize = \"{}\"", self.word()),
        }
    }

    /// Lists what `config.json` can say, for messages.
    pub fn expected() -> String {
        one_of(Self::ALL.map(Self::said))
    }

    /// Returns the ModelSlim scheme with this word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::written().find(|scheme| scheme.word() == word)
    }
}

/// What is known of a quantised checkpoint before its tensors are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quantised {
    /// The keys and values in `config.json`, e.g. `quantization_bit = 4`.
    pub said: String,
    /// The scheme; `None` if this engine does not read it.
    pub scheme: Option<Scheme>,
    /// Whether the KV cache is int8 with scales and offsets in the file ("C8").
    pub kv_c8: bool,
    /// `group_size` of `quantization_config`: inputs that share a scale under W4A16. 0 means one scale per output channel.
    pub group: Option<usize>,
    /// Whether it is known which layers are quantised: ModelSlim's description was there, or the scheme needs none.
    pub is_described: bool,
    /// Linear layers that are not quantised.
    pub float: BTreeSet<LinearId>,
}

impl Quantised {
    /// Returns how the weight of a linear layer of `width` inputs is stored; `None` if it stays in float.
    pub fn storage(&self, linear: LinearId, width: u64) -> Option<Storage> {
        let scheme = self.scheme.filter(|_| !self.float.contains(&linear))?;
        Some(match scheme {
            Scheme::W8a8 | Scheme::W8a8s => Storage::Int8Static,
            Scheme::W8a8Dynamic | Scheme::W8a16 | Scheme::Int8 => Storage::Int8,
            Scheme::Int4 => Storage::Int4 { group: width as usize },
            Scheme::W4a16 => {
                let group = self.group.filter(|&group| group > 0).unwrap_or(width as usize);
                Storage::Int4 { group }
            }
        })
    }

    /// Returns the word for records and tables: `w8a8`, `w8a16+kv-c8`.
    pub fn word(&self) -> String {
        let weights = self.scheme.map_or(self.said.as_str(), |scheme| scheme.word());
        if self.kv_c8 { format!("{weights}+kv-c8") } else { weights.to_owned() }
    }
}

/// What the keys of quantisation in `config.json` say.
#[derive(Debug, Default)]
pub(super) struct Said {
    words: Vec<String>,
    schemes: Vec<Option<Scheme>>,
    kv_c8: bool,
    group: Option<usize>,
}

impl Said {
    /// Takes one key with its value, which is written `short` in messages.
    pub(super) fn add(&mut self, key: &str, value: &Value, short: &str) {
        self.words.push(format!("{key} = {short}"));
        match (key, value) {
            ("quantize", Value::String(word)) => self.schemes.push(Scheme::of_word(word)),
            ("quantization_bit", Value::Number(bits)) => self.schemes.push(match bits.as_u64() {
                Some(8) => Some(Scheme::Int8),
                Some(4) => Some(Scheme::Int4),
                _ => None,
            }),
            ("quantization_config", Value::Object(keys)) => {
                for (key, value) in keys {
                    match (key.as_str(), value) {
                        ("kv_quant_type", Value::String(word)) if word == "C8" => self.kv_c8 = true,
                        ("group_size", Value::Number(size)) if size.is_u64() => {
                            self.group = size.as_u64().map(|size| size as usize);
                        }
                        (_, Value::Null) => {}
                        _ => self.schemes.push(None),
                    }
                }
            }
            _ => self.schemes.push(None),
        }
    }

    /// Returns what all keys say together; `None` if there is none. Two schemes are as unknown as one that is not read.
    pub(super) fn quantised(self) -> Option<Quantised> {
        let Self { words, schemes, kv_c8, group } = self;
        (!words.is_empty()).then(|| Quantised {
            said: words.join(", "),
            scheme: if let [one] = schemes.as_slice() { *one } else { None },
            kv_c8,
            group,
            is_described: false,
            float: BTreeSet::new(),
        })
    }
}

/// Returns the layers that ModelSlim's scripts for ChatGLM2 leave in float by default: their "NEW" lists for W8A8 and its
/// relatives. W8A8_DYNAMIC has W8A8's. Sparse files also keep `dense` where they keep `query_key_value`. Layers that the model
/// lacks are left out. The lists are for 28 layers and name the last down projection. In a model of another depth its own last
/// one takes that place.
pub fn default_float(scheme: Scheme, layers: usize) -> BTreeSet<LinearId> {
    const QKV: [usize; 13] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 14, 19];
    let down: Vec<usize> = [0, 1, 2, 20].into_iter().chain(layers.checked_sub(1)).collect();
    const UP: [usize; 2] = [1, 2];
    let of = |role, of: &[usize]| -> Vec<LinearId> {
        of.iter().map(|&layer| LinearId { layer: Some(layer), role }).collect()
    };
    let mut all = vec![LinearId::OUTPUT];
    match scheme {
        Scheme::W8a8 | Scheme::W8a8Dynamic => {
            all.extend([of(Role::Qkv, &QKV), of(Role::Down, &down), of(Role::GateUp, &UP)].concat());
        }
        Scheme::W8a8s => {
            let sparse = &QKV[1..];
            all.extend([of(Role::Qkv, sparse), of(Role::Dense, sparse)].concat());
            all.extend([of(Role::Down, &down), of(Role::GateUp, &UP)].concat());
        }
        Scheme::W8a16 | Scheme::W4a16 | Scheme::Int8 | Scheme::Int4 => {}
    }
    all.into_iter().filter(|linear| linear.layer.is_none_or(|layer| layer < layers)).collect()
}
