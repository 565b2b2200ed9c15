//! Minimum work of a phase for the roofline: bytes across the memory bus and floating-point operations.
//!
//! The engine knows what a pass costs ([`PassCost`]). This module counts passes and tokens. Only the last token of a prompt
//! has logits. It reads the keys and values of the other tokens from the cache.

use std::collections::BTreeSet;

use glmbench_device::Precision;

use glmbench_engine::config::ModelConfig;
use glmbench_engine::cost::PassCost;

use super::Shape;

/// Work of one phase of one repetition: weights once per pass over the model, and KV cache as read and written.
pub use glmbench_device::cost::Work as PhaseCost;

/// Work of the phases of one repetition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaseCost {
    /// Prefill.
    pub prefill: PhaseCost,
    /// All decode steps together.
    pub decode: PhaseCost,
}

impl CaseCost {
    /// No work.
    pub const NONE: Self =
        Self { prefill: PhaseCost { bytes: 0, flops: 0 }, decode: PhaseCost { bytes: 0, flops: 0 } };
}

/// Returns the cost of a batch of equal sequences. Prefill steps take
/// up to `step_tokens` tokens each. Each step passes over the layers' weights once; a step in which a prompt ends also
/// computes logits.
pub fn case_cost(config: &ModelConfig, precision: Precision, step_tokens: usize, shape: Shape) -> CaseCost {
    let inputs = vec![shape.input_tokens; shape.batch];
    batch_cost(config, precision, step_tokens, &inputs, shape.output_tokens)
}

/// Like [`case_cost`], for a batch of prompts with these lengths.
pub fn batch_cost(
    config: &ModelConfig,
    precision: Precision,
    step_tokens: usize,
    inputs: &[usize],
    output_tokens: usize,
) -> CaseCost {
    let PassCost { layers, body, head, attention } = PassCost::new(config, precision);
    let (batch, output) = (inputs.len() as u64, output_tokens as u64);
    let prefix = config.pre_seq_len.unwrap_or(0) as u64;
    let tokens: u64 = inputs.iter().map(|&n| n as u64).sum();
    let step_tokens = step_tokens.max(1) as u64;
    let passes = tokens.div_ceil(step_tokens);
    let ends = inputs.iter().scan(0, |end, &input| {
        *end += input as u64;
        Some(end.saturating_sub(1) / step_tokens)
    });
    let passes_to_logits = ends.collect::<BTreeSet<u64>>().len() as u64;
    // Token i of a sequence attends to the prefix, the tokens before it, and itself.
    let seen = |from: u64, to: u64| (to - from) * prefix + (to - from) * (from + 1 + to) / 2;
    let steps = output.saturating_sub(1);
    let (mut prefill_seen, mut last_seen, mut decode_seen) = (0, 0, 0);
    for &input in inputs {
        let input = input as u64;
        prefill_seen += seen(0, input);
        last_seen += seen(input.saturating_sub(1), input);
        decode_seen += seen(input, input + steps);
    }
    let prefill_attended = (layers - 1) * prefill_seen + last_seen;
    let prefill = PhaseCost {
        bytes: passes * body.bytes
            + passes_to_logits * head.bytes
            + (layers * tokens + last_seen).saturating_sub(batch) * attention.bytes,
        flops: tokens * body.flops + batch * head.flops + prefill_attended * attention.flops,
    };
    let decode = PhaseCost {
        bytes: steps * (body.bytes + head.bytes) + layers * decode_seen * attention.bytes,
        flops: batch * steps * (body.flops + head.flops) + layers * decode_seen * attention.flops,
    };
    CaseCost { prefill, decode }
}

#[cfg(test)]
mod tests {
    use super::*;
    use glmbench_device::{DType, LinearShape};

    #[test]
    fn the_6b_shape_costs_what_the_arithmetic_says() {
        let config = ModelConfig::chatglm2_6b();
        let shape = Shape { batch: 1, input_tokens: 512, output_tokens: 2 };
        let CaseCost { prefill, decode } = case_cost(&config, DType::Fp16.into(), 512, shape);
        // facts: a decode step reads all weights except the embedding, 11.95 GB, and 28,672 bytes per attended token.
        let kv = 513 * 28_672;
        assert_eq!((decode.bytes - kv) / 10_000_000, 1195);
        // facts: 2 * 5.711e9 operations per token for the 28 layers' weights, and 4,096 * 4 per layer and attended
        // token. 27 layers count in full.
        let layer = 2.0 * 5.711e9 / 28.0 + 256.5 * 4.0 * 4096.0;
        let qkv = 2.0 * 4608.0 * 4096.0;
        let last = layer + 2.0 * 65_024.0 * 4096.0;
        let expected = 512.0 * (27.0 * layer + qkv) + last;
        assert!((prefill.flops as f64 / expected - 1.0).abs() < 1e-4, "{} {expected}", prefill.flops);
    }

    #[test]
    fn every_step_in_which_a_prompt_ends_reads_the_weights_behind_the_last_cache() {
        let config = ModelConfig::chatglm2_6b();
        let bytes = |inputs: &[usize]| batch_cost(&config, DType::Fp16.into(), 512, inputs, 1).prefill.bytes;
        // Both batches take two steps. With 300, 300 and 300 tokens, the first prompt ends in the first step and the
        // others in the second. With 880, 10 and 10, all end in the second.
        let (two, one) = (bytes(&[300, 300, 300]), bytes(&[880, 10, 10]));
        let of = |linear: LinearShape| 2 * linear.out * linear.width;
        let [_qkv, others @ ..] = config.layer_linears().map(of);
        assert_eq!(two - one, others.iter().sum::<u64>() + of(config.output_linear()));
    }

    #[test]
    fn integers_halve_the_bytes_and_add_their_scales() {
        let config = ModelConfig::chatglm2_6b();
        let shape = Shape { batch: 1, input_tokens: 512, output_tokens: 2 };
        let fp16 = case_cost(&config, DType::Fp16.into(), 512, shape).decode;
        let int8 = case_cost(&config, "w8a8-dynamic+kv-int8".parse().unwrap(), 512, shape).decode;
        assert_eq!(int8.flops, fp16.flops);
        // One 4-byte scale per output channel, one per token and head for keys and for values, and a byte for a key's zero point.
        let weights = (fp16.bytes - 513 * 28_672) / 2;
        let channels = 28 * (4608 + 4096 + 27_392 + 4096) + 65_024;
        assert_eq!(int8.bytes, weights + 4 * channels + 513 * 28 * 2 * (2 * (128 + 4) + 1));
        // facts: 5.98 GB per token.
        assert_eq!(weights / 10_000_000, 597);
    }
}
