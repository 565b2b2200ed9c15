//! Names of the files and tensors in quantised checkpoints of ModelSlim and THUDM.

use super::KV_ROLE;
use crate::config::Scheme;
use crate::linear::LinearId;

/// What a tensor of a quantised linear layer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suffix {
    /// The integers.
    Weight,
    /// W8A8: the scale of the inputs.
    InputScale,
    /// W8A8: the zero point of the inputs.
    InputOffset,
    /// W8A8: the bias in units of `deq_scale`, less what the zero point adds.
    QuantBias,
    /// W8A8: `input_scale` times the weight's scale, per output channel.
    DeqScale,
    /// Weight-only schemes: scales per output channel, or per group.
    WeightScale,
    /// Weight-only schemes: zero points, all 0 if the scheme is symmetric.
    WeightOffset,
}

impl Suffix {
    /// Returns the end of the tensor name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::InputScale => "input_scale",
            Self::InputOffset => "input_offset",
            Self::QuantBias => "quant_bias",
            Self::DeqScale => "deq_scale",
            Self::WeightScale => "weight_scale",
            Self::WeightOffset => "weight_offset",
        }
    }

    /// Returns the tensor's name in a linear layer.
    pub fn of(self, linear: LinearId) -> String {
        format!("{}.{}", linear.name(), self.name())
    }
}

/// Key and value scales and offsets of a layer.
pub const KV_PARTS: [&str; 4] =
    ["k_proj.kv_cache_scale", "k_proj.kv_cache_offset", "v_proj.kv_cache_scale", "v_proj.kv_cache_offset"];

/// Returns the name of a tensor of the KV cache, one of [`KV_PARTS`].
pub fn kv(layer: usize, part: &str) -> String {
    format!("{}.{part}", LinearId { layer: Some(layer), role: KV_ROLE }.name())
}

/// Returns the name of a smoothed norm's `weight` or `bias`. `norm` is the weight name of the plain norm.
pub fn module(norm: &str, part: &str) -> String {
    format!("{}.module.{part}", norm.strip_suffix(".weight").unwrap_or(norm))
}

/// Returns the name of ModelSlim's weight file, without its extension.
pub fn weight_stem(scheme: Scheme) -> String {
    format!("quant_model_weight_{}", scheme.word())
}

/// Returns the name of ModelSlim's description.
pub fn description(scheme: Scheme) -> String {
    format!("quant_model_description_{}.json", scheme.word())
}
