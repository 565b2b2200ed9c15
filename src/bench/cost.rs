//! The least a phase must do: bytes across the memory bus and floating-point operations, for the roofline.

use crate::device::Precision;
use crate::engine::config::ModelConfig;

use super::Shape;

/// Work of one phase of one repetition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PhaseCost {
    /// Bytes: weights once a pass over the model, KV cache as it is read and written.
    pub bytes: u64,
    /// Floating-point operations of the matrix products and of attention (multiply and add count two).
    pub flops: u64,
}

/// Cost of prefill and of all decode steps together of a batch of equal sequences. Prompts are fed `step_tokens` at a
/// time, and each such chunk passes over the weights once.
pub fn case_cost(
    config: &ModelConfig,
    precision: Precision,
    step_tokens: usize,
    shape: Shape,
) -> (PhaseCost, PhaseCost) {
    let inputs = vec![shape.input_tokens; shape.batch];
    batch_cost(config, precision, step_tokens, &inputs, shape.output_tokens)
}

/// [`case_cost`] of a batch of prompts of these lengths.
pub fn batch_cost(
    config: &ModelConfig,
    precision: Precision,
    step_tokens: usize,
    inputs: &[usize],
    output_tokens: usize,
) -> (PhaseCost, PhaseCost) {
    let c = Counts::new(config, precision);
    let (batch, output) = (inputs.len() as u64, output_tokens as u64);
    let prefix = config.pre_seq_len.unwrap_or(0) as u64;
    let tokens: u64 = inputs.iter().map(|&n| n as u64).sum();
    let passes = tokens.div_ceil(step_tokens.max(1) as u64);
    // Token i of a sequence sees the prefix, those before it, and itself.
    let seen = |from: u64, to: u64| (to - from) * prefix + (to - from) * (from + 1 + to) / 2;
    let steps = output.saturating_sub(1);
    let (mut prefill_seen, mut decode_seen) = (0, 0);
    for &input in inputs {
        let input = input as u64;
        prefill_seen += seen(0, input);
        decode_seen += seen(input, input + steps);
    }
    let prefill = PhaseCost {
        bytes: passes * c.layer_bytes + c.output_bytes + tokens * c.kv_bytes,
        flops: tokens * c.layer_flops + batch * c.output_flops + prefill_seen * c.attention_flops,
    };
    let decode = PhaseCost {
        bytes: steps * (c.layer_bytes + c.output_bytes) + decode_seen * c.kv_bytes,
        flops: batch * steps * (c.layer_flops + c.output_flops) + decode_seen * c.attention_flops,
    };
    (prefill, decode)
}

/// Per pass, per token, and per token and token seen.
struct Counts {
    layer_bytes: u64,
    layer_flops: u64,
    output_bytes: u64,
    output_flops: u64,
    kv_bytes: u64,
    attention_flops: u64,
}

impl Counts {
    fn new(config: &ModelConfig, precision: Precision) -> Self {
        let layers = config.num_layers as u64;
        let matrices = config.layer_matrices();
        let layer_bytes: u64 = matrices.iter().map(|[n, k]| precision.linear_bytes(*n, *k)).sum();
        let layer_numbers: u64 = matrices.iter().map(|[n, k]| n * k).sum();
        let [vocabulary, hidden] = config.output_matrix();
        Self {
            layer_bytes: layers * layer_bytes,
            layer_flops: 2 * layers * layer_numbers,
            output_bytes: precision.linear_bytes(vocabulary, hidden),
            output_flops: 2 * vocabulary * hidden,
            kv_bytes: layers * 2 * config.num_kv_heads as u64 * precision.kv_bytes(config.kv_channels as u64),
            attention_flops: layers * 4 * config.q_width() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DType;

    #[test]
    fn the_6b_shape_costs_what_the_arithmetic_says() {
        let config = ModelConfig::chatglm2_6b();
        let shape = Shape { batch: 1, input_tokens: 512, output_tokens: 2 };
        let (prefill, decode) = case_cost(&config, DType::Fp16.into(), 512, shape);
        // facts: a decode step reads all weights less the embedding, 11.95 GB, and 28,672 bytes a token seen.
        let kv = 513 * 28_672;
        assert_eq!((decode.bytes - kv) / 10_000_000, 1195);
        // facts: about 11.4 GFLOP a token for the 28 layers.
        let layers = prefill.flops as f64 / 512.0 / 1e9;
        assert!((11.4..11.7).contains(&layers), "{layers}");
    }

    #[test]
    fn integers_halve_the_bytes_and_add_their_scales() {
        let config = ModelConfig::chatglm2_6b();
        let shape = Shape { batch: 1, input_tokens: 512, output_tokens: 2 };
        let fp16 = case_cost(&config, DType::Fp16.into(), 512, shape).1;
        let int8 = case_cost(&config, "w8a8-dynamic+kv-int8".parse().unwrap(), 512, shape).1;
        assert_eq!(int8.flops, fp16.flops);
        // A scale of four bytes an output channel, and one a token's key or value of a head.
        let weights = (fp16.bytes - 513 * 28_672) / 2;
        let channels = 28 * (4608 + 4096 + 27_392 + 4096) + 65_024;
        assert_eq!(int8.bytes, weights + 4 * channels + 513 * 28 * 2 * 2 * (128 + 4));
        // facts: 5.98 GB a token.
        assert_eq!(weights / 10_000_000, 597);
    }
}
