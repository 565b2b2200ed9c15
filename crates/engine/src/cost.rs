//! The minimum work of a forward pass, from the model's shape and types.
//!
//! The formulas of single operators are in [`glmbench_device::cost`]. This module knows which operators a pass has. Only
//! tokens with logits go through the output layer, and through the last layer beyond its queries, keys and values.

use glmbench_device::Precision;
use glmbench_device::cost::Work;

use super::config::ModelConfig;
use super::model::attention_shape;

/// The work of the parts of a forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassCost {
    /// Transformer layers.
    pub layers: u64,
    /// The linear layers that every token goes through: all layers but the last, and the QKV projection of the last. Bytes
    /// are per pass, operations per token.
    pub body: Work,
    /// The remaining linear layers, up to the logits. Bytes are per pass with logits, operations per token with logits.
    pub head: Work,
    /// Attention of one layer, for one token's keys and values read and one token seen.
    pub attention: Work,
}

impl PassCost {
    /// Returns the costs of a model in these types.
    pub fn new(config: &ModelConfig, precision: Precision) -> Self {
        let of = |linear| Work::linear(linear, precision.storage(), 1);
        let layers = config.num_layers as u64;
        let [qkv, others @ ..] = config.layer_linears().map(of);
        let others: Work = others.into_iter().sum();
        let layer = qkv + others;
        let before = layers.saturating_sub(1);
        let shape = attention_shape(config);
        Self {
            layers,
            body: Work { bytes: before * layer.bytes, flops: before * layer.flops } + qkv,
            head: others + of(config.output_linear()),
            attention: Work::attention(shape, precision.kv_token_bytes(shape), 1, 1),
        }
    }
}
