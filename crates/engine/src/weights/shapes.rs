//! The tensors of a ChatGLM2 model: names and shapes as in its Hugging Face checkpoints.

use glmbench_device::Role;
use glmbench_device::words::one_of;

use crate::config::ModelConfig;
use crate::linear::LinearId;

/// Word embedding, `[padded_vocab_size, hidden_size]`.
pub const EMBEDDING: &str = "transformer.embedding.word_embeddings.weight";
/// RMSNorm after the last layer, `[hidden_size]`.
pub const FINAL_NORM: &str = "transformer.encoder.final_layernorm.weight";
/// Output layer, `[padded_vocab_size, hidden_size]`.
pub const OUTPUT: &str = "transformer.output_layer.weight";
/// Rotary frequencies that some checkpoints contain. They are computed from the config, never read.
pub const INV_FREQ: &str = "transformer.rotary_pos_emb.inv_freq";

/// P-tuning v2: one row per virtual token, `[pre_seq_len, prefix width]`.
pub const PREFIX_EMBEDDING: &str = "transformer.prefix_encoder.embedding.weight";
/// P-tuning v2 with projection: first linear layer, `[hidden_size, prefix width]`.
pub const PREFIX_DOWN_WEIGHT: &str = "transformer.prefix_encoder.trans.0.weight";
/// P-tuning v2 with projection: its bias, `[hidden_size]`.
pub const PREFIX_DOWN_BIAS: &str = "transformer.prefix_encoder.trans.0.bias";
/// P-tuning v2 with projection: second linear layer (after a tanh), `[prefix width, hidden_size]`.
pub const PREFIX_UP_WEIGHT: &str = "transformer.prefix_encoder.trans.2.weight";
/// P-tuning v2 with projection: its bias, `[prefix width]`.
pub const PREFIX_UP_BIAS: &str = "transformer.prefix_encoder.trans.2.bias";
/// Common prefix of the names of all P-tuning tensors.
pub const PREFIX: &str = "transformer.prefix_encoder.";

/// Per layer: RMSNorm before attention, `[hidden_size]`.
pub const INPUT_NORM: &str = "input_layernorm.weight";
/// Per layer: fused projection, rows `[q | k | v]`, `[qkv_width, hidden_size]`.
pub const QKV_WEIGHT: &str = "self_attention.query_key_value.weight";
/// Per layer: bias of the fused projection, `[qkv_width]`; only with `add_qkv_bias`.
pub const QKV_BIAS: &str = "self_attention.query_key_value.bias";
/// Per layer: projection of the head outputs, `[hidden_size, q_width]`.
pub const ATTENTION_DENSE: &str = "self_attention.dense.weight";
/// Per layer: RMSNorm before the feed-forward part, `[hidden_size]`.
pub const POST_NORM: &str = "post_attention_layernorm.weight";
/// Per layer: feed-forward, rows `[gate | up]`, `[2 ffn_hidden_size, hidden_size]`.
pub const FFN_UP: &str = "mlp.dense_h_to_4h.weight";
/// Per layer: feed-forward back to the residual stream, `[hidden_size, ffn_hidden_size]`.
pub const FFN_DOWN: &str = "mlp.dense_4h_to_h.weight";

/// Common prefix of all names.
pub(super) const ROOT: &str = "transformer.";
/// Common prefix of the names of the tensors in layers.
pub(super) const LAYERS: &str = "transformer.encoder.layers.";
const LAYER_PARTS: [&str; 7] =
    [INPUT_NORM, QKV_WEIGHT, QKV_BIAS, ATTENTION_DENSE, POST_NORM, FFN_UP, FFN_DOWN];
const FRONT: [&str; 1] = [EMBEDDING];
const BACK: [&str; 7] = [
    FINAL_NORM,
    OUTPUT,
    PREFIX_EMBEDDING,
    PREFIX_DOWN_WEIGHT,
    PREFIX_DOWN_BIAS,
    PREFIX_UP_WEIGHT,
    PREFIX_UP_BIAS,
];

/// Returns the full name of a tensor in a layer, e.g. `layer_tensor(3, QKV_BIAS)`.
pub fn layer_tensor(layer: usize, part: &str) -> String {
    format!("{LAYERS}{layer}.{part}")
}

/// Returns the part that [`layer_tensor`] was given, e.g. [`QKV_BIAS`]; `None` for a tensor outside the layers.
pub fn part_of_layer(name: &str) -> Option<&str> {
    name.strip_prefix(LAYERS)?.split_once('.').map(|(_, part)| part)
}

impl LinearId {
    /// Returns the linear layer with this weight; `None` if the tensor is no weight of a linear layer.
    pub fn of_weight(name: &str) -> Option<Self> {
        if name == OUTPUT {
            return Some(Self::OUTPUT);
        }
        let (index, part) = name.strip_prefix(LAYERS)?.split_once('.')?;
        let role = Self::ROLES.into_iter().find(|&role| part_of_role(role) == Some(part))?;
        Some(Self { layer: Some(index.parse().ok()?), role })
    }

    /// Returns the linear layers of a model, in the order of the forward pass.
    pub fn all(config: &ModelConfig) -> impl Iterator<Item = Self> + use<> {
        let of_layer = |layer| Self::ROLES.map(|role| Self { layer: Some(layer), role });
        (0..config.num_layers).flat_map(of_layer).chain(std::iter::once(Self::OUTPUT))
    }

    /// Returns the name of its weight.
    pub fn weight(self) -> String {
        match (self.layer, part_of_role(self.role)) {
            (Some(layer), Some(part)) => layer_tensor(layer, part),
            _ => OUTPUT.to_owned(),
        }
    }

    /// Returns its name: that of its weight without `.weight`.
    pub fn name(self) -> String {
        let weight = self.weight();
        weight.strip_suffix(".weight").unwrap_or(&weight).to_owned()
    }

    /// Returns the shape `[out, in]` of its weight.
    pub fn shape(self, config: &ModelConfig) -> [usize; 2] {
        match *expected_shape(config, &self.weight()).unwrap_or_default() {
            [out, width] => [out, width],
            _ => [0, 0],
        }
    }

    /// Returns the tensor of the norm that makes its input; `None` if its input does not come from a norm.
    pub fn norm_before(self) -> Option<String> {
        match (self.role, self.layer) {
            (Role::Qkv, Some(layer)) => Some(layer_tensor(layer, INPUT_NORM)),
            (Role::GateUp, Some(layer)) => Some(layer_tensor(layer, POST_NORM)),
            (Role::Output, _) => Some(FINAL_NORM.to_owned()),
            _ => None,
        }
    }
}

/// Returns the weight of a linear layer in a transformer layer; `None` for roles outside the layers.
fn part_of_role(role: Role) -> Option<&'static str> {
    match role {
        Role::Qkv => Some(QKV_WEIGHT),
        Role::Dense => Some(ATTENTION_DENSE),
        Role::GateUp => Some(FFN_UP),
        Role::Down => Some(FFN_DOWN),
        Role::Output | Role::Prefix => None,
    }
}

/// Returns the width of a prefix row: keys and values of every layer.
pub fn prefix_width(config: &ModelConfig) -> usize {
    config.num_layers * 2 * config.kv_width()
}

/// Returns the shape of tensor `name` in a model of this config; `None` if the model has no such tensor.
pub fn expected_shape(config: &ModelConfig, name: &str) -> Option<Vec<usize>> {
    if let Some(rest) = name.strip_prefix(LAYERS) {
        let (index, part) = rest.split_once('.')?;
        let layer: usize = index.parse().ok()?;
        let is_canonical = layer < config.num_layers && layer.to_string() == index;
        return if is_canonical { layer_shape(config, part) } else { None };
    }
    let hidden = config.hidden_size;
    let projection = config.prefix_projection;
    match (name, config.pre_seq_len) {
        (EMBEDDING | OUTPUT, _) => Some(vec![config.padded_vocab_size, hidden]),
        (FINAL_NORM, _) => Some(vec![hidden]),
        (PREFIX_EMBEDDING, Some(rows)) => Some(vec![rows, prefix_width(config)]),
        (PREFIX_DOWN_WEIGHT, Some(_)) if projection => Some(vec![hidden, prefix_width(config)]),
        (PREFIX_DOWN_BIAS, Some(_)) if projection => Some(vec![hidden]),
        (PREFIX_UP_WEIGHT, Some(_)) if projection => Some(vec![prefix_width(config), hidden]),
        (PREFIX_UP_BIAS, Some(_)) if projection => Some(vec![prefix_width(config)]),
        _ => None,
    }
}

fn layer_shape(config: &ModelConfig, part: &str) -> Option<Vec<usize>> {
    let hidden = config.hidden_size;
    match part {
        INPUT_NORM | POST_NORM => Some(vec![hidden]),
        QKV_WEIGHT => Some(vec![config.qkv_width(), hidden]),
        QKV_BIAS if config.qkv_bias => Some(vec![config.qkv_width()]),
        ATTENTION_DENSE => Some(vec![hidden, config.q_width()]),
        FFN_UP => Some(vec![2 * config.ffn_hidden_size, hidden]),
        FFN_DOWN => Some(vec![hidden, config.ffn_hidden_size]),
        _ => None,
    }
}

/// Returns every tensor (name, shape) of a model of this config, in the order of the forward pass, prefix last.
pub fn model_tensors(config: &ModelConfig) -> impl Iterator<Item = (String, Vec<usize>)> + '_ {
    let named = |name: &&str| (*name).to_owned();
    let layers = (0..config.num_layers)
        .flat_map(|layer| LAYER_PARTS.iter().map(move |part| layer_tensor(layer, part)));
    FRONT
        .iter()
        .map(named)
        .chain(layers)
        .chain(BACK.iter().map(named))
        .filter_map(|name| expected_shape(config, &name).map(|shape| (name, shape)))
}

/// A tensor that a checkpoint needs, or may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExpectedTensor {
    pub(super) name: String,
    /// The shapes that it may have, the usual one first.
    pub(super) shapes: Vec<Vec<usize>>,
    /// The types that it may have, as files spell them.
    pub(super) types: &'static [&'static str],
    pub(super) is_optional: bool,
    /// Why it is expected in this form, for messages; empty if it is an ordinary tensor of the model.
    pub(super) because: String,
}

impl ExpectedTensor {
    /// The types of ordinary tensors.
    pub(super) const FLOAT: &'static [&'static str] = &["F16", "BF16", "F32"];

    /// Returns an ordinary tensor of the model.
    pub(super) fn dense(name: String, shape: Vec<usize>) -> Self {
        let shapes = std::iter::once(shape).collect();
        Self { name, shapes, types: Self::FLOAT, is_optional: false, because: String::new() }
    }

    pub(super) fn shapes_in_words(&self) -> String {
        one_of(self.shapes.iter().map(|shape| format!("{shape:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_6b_model_has_199_tensors_of_its_published_size() {
        let config = ModelConfig::chatglm2_6b();
        let tensors: Vec<_> = model_tensors(&config).collect();
        assert_eq!(tensors.len(), 28 * 7 + 3); // a checkpoint's 200th tensor is inv_freq
        let numbers: usize = tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        assert_eq!(numbers as u64, config.parameters());
    }

    #[test]
    fn names_that_only_look_right_are_no_tensors() {
        let config = ModelConfig::chatglm2_6b();
        assert_eq!(expected_shape(&config, &layer_tensor(27, QKV_BIAS)), Some(vec![4608]));
        for name in [
            layer_tensor(28, QKV_BIAS),
            format!("{LAYERS}01.{QKV_BIAS}"),
            format!("{LAYERS}+1.{QKV_BIAS}"),
            format!("{LAYERS}1"),
            PREFIX_EMBEDDING.to_owned(),
            INV_FREQ.to_owned(),
        ] {
            assert_eq!(expected_shape(&config, &name), None, "{name}");
        }
    }

    #[test]
    fn a_prefix_adds_its_tensors() {
        let base = ModelConfig::chatglm2_6b();
        let plain = ModelConfig { pre_seq_len: Some(128), ..base.clone() };
        let projected = ModelConfig { prefix_projection: true, ..plain.clone() };
        assert_eq!(expected_shape(&plain, PREFIX_EMBEDDING), Some(vec![128, 14336]));
        assert_eq!(model_tensors(&plain).count(), 200);
        assert_eq!(expected_shape(&projected, PREFIX_DOWN_WEIGHT), Some(vec![4096, 14336]));
        assert_eq!(model_tensors(&projected).count(), 204);
    }
}
