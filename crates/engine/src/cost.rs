//! The minimum work of a forward pass, from the model's shape and types.
//!
//! The formulas of single operators are in [`glmbench_device::cost`]. This module knows which operators a pass has. Only
//! tokens with logits go through the output layer, and through the last layer beyond its queries, keys and values.

use glmbench_device::cost::Work;
use glmbench_device::{LinearShape, Precision, Storage};

use super::config::ModelConfig;
use super::model::attention_shape;
use super::weights::layout::LinearId;

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
        let quantised = config.quantised.as_ref();
        let storage = |id: LinearId, width: u64| match quantised {
            Some(quantised) => quantised.storage(id, width).unwrap_or(Storage::Dense(precision.dtype)),
            None => precision.storage(),
        };
        let of = |id, linear: LinearShape| Work::linear(linear, storage(id, linear.width), 1);
        let of_layer = |layer: usize| {
            config
                .layer_linears()
                .map(|linear| of(LinearId { layer: Some(layer), role: linear.role }, linear))
        };
        let layers = config.num_layers as u64;
        let last = config.num_layers.saturating_sub(1);
        let [qkv, others @ ..] = of_layer(last);
        let others: Work = others.into_iter().sum();
        let before: Work = if quantised.is_some() {
            (0..last).flat_map(of_layer).sum()
        } else {
            let layer: Work = of_layer(last).into_iter().sum();
            Work { bytes: last as u64 * layer.bytes, flops: last as u64 * layer.flops }
        };
        let shape = attention_shape(config);
        Self {
            layers,
            body: before + qkv,
            head: others + of(LinearId::OUTPUT, config.output_linear()),
            attention: Work::attention(shape, precision.kv_token_bytes(shape), 1, 1),
        }
    }
}
