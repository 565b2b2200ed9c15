//! What a card makes of the sizes of a model, for estimates before anything is loaded.

use glmbench_device::{
    AttentionShape, KV_BLOCK_TOKENS, KvForm, LinearShape, Precision, Role, Storage, WeightForm,
};

use super::attention::{CAUSAL_MASK_BYTES, SCRATCH_BYTES, SHORT_CONTEXT, square_bytes};
use super::layout::padded_channels;
use super::settings::Chip;
use super::widener::FOLDED;

/// On a 310P, the halves of SwiGLU's input begin at multiples of this many elements: the chip moves 64-byte pieces only.
pub(super) const SWIGLU_ALIGNMENT: usize = 32;

/// Bytes of what does not depend on the model's size: the operators' workspace, small inputs, gaps between pieces.
const SMALL_BYTES: u64 = 16 << 20;
/// Largest number of tokens that is counted with.
const MAX_TOKENS: usize = 1 << 40;

/// Returns the elements in one half of a feed-forward activation of `ffn` elements, as stored on the chip.
pub(super) fn swiglu_half(chip: Chip, ffn: usize) -> usize {
    if chip == Chip::Duo300i { ffn.next_multiple_of(SWIGLU_ALIGNMENT) } else { ffn }
}

/// The properties of a card that determine the memory of a model.
///
/// Heads count as padded to 64 or 128 channels. If the rotary operator of a chip takes 128 channels only, the chip pads
/// 64 further. This is not known before the operator is asked.
#[derive(Debug, Clone, Copy)]
pub struct AscendMemory {
    chip: Chip,
    precision: Precision,
}

impl AscendMemory {
    /// Describes a card that computes in these types.
    pub fn new(chip: Chip, precision: Precision) -> Self {
        Self { chip, precision }
    }

    /// Returns the same card with the weights of linear layers in the type of the activations.
    #[must_use]
    pub fn with_float_weights(self) -> Self {
        Self { precision: Precision { weights: WeightForm::Plain, ..self.precision }, ..self }
    }

    /// Returns the types of weights, activations and cache.
    pub fn precision(self) -> Precision {
        self.precision
    }

    fn bytes(self, numbers: u64) -> u64 {
        numbers.saturating_mul(self.precision.dtype.bytes() as u64)
    }

    /// Returns the size in bytes of a linear layer weight, in a model with these heads.
    pub fn linear_bytes(self, linear: LinearShape, heads: AttentionShape) -> u64 {
        let LinearShape { role, out, width } = linear;
        let out = match role {
            Role::Qkv => {
                let all = heads.heads.saturating_add(heads.kv_heads.saturating_mul(2)) as u64;
                all.saturating_mul(padded_channels(heads.channels) as u64)
            }
            Role::GateUp => 2 * swiglu_half(self.chip, out as usize / 2) as u64,
            Role::Dense | Role::Down | Role::Output | Role::Prefix => out,
        };
        match self.precision.storage() {
            Storage::Dense(_) => self.bytes(out.saturating_mul(width)),
            quantised => quantised.bytes(out, width),
        }
    }

    /// Returns the size in bytes of a row of `width` activations.
    pub fn row_bytes(self, width: usize) -> u64 {
        // Two padded halves, and the by-product of a norm.
        self.bytes(width.next_multiple_of(2 * SWIGLU_ALIGNMENT) as u64) + 4
    }

    /// Returns the most bytes that operators take for themselves. Steps have up to `rows` rows of `hidden` elements, and prompts up
    /// to `context` tokens.
    ///
    /// A 310P gathers keys and values of later chunks and arranges their rows in a square. It keeps masks, and rows with
    /// one more column for a bias.
    pub fn working_bytes(self, heads: AttentionShape, hidden: usize, rows: usize, context: usize) -> u64 {
        if self.chip == Chip::A2800i {
            // Rows of keys and values in integers, before they are written to an int8 cache.
            let row = 2 * heads.kv_heads.saturating_mul(padded_channels(heads.channels)) as u64;
            let numbers = (rows.min(MAX_TOKENS) as u64).saturating_mul(row);
            let integers = match self.precision.kv {
                KvForm::C8 => numbers.checked_next_power_of_two().unwrap_or(u64::MAX),
                _ => 0,
            };
            return (CAUSAL_MASK_BYTES + SMALL_BYTES).saturating_add(integers);
        }
        // Absurd sizes are cut, so that sums of them saturate.
        let (rows, context) = (rows.min(MAX_TOKENS), context.min(MAX_TOKENS));
        let widened = (rows.next_power_of_two() as u64).saturating_mul((hidden + FOLDED) as u64);
        let (rows, channels) = (rows.min(context), padded_channels(heads.channels));
        let of_heads = |tokens: usize, heads: usize| {
            let numbers = (tokens as u64).saturating_mul((heads * channels) as u64);
            self.bytes(numbers).checked_next_power_of_two().unwrap_or(u64::MAX)
        };
        let group = heads.heads / heads.kv_heads.max(1);
        // Packed heads keep the square's rows below twice the chunk's, unless all heads of a group are packed.
        let packed = context.min(2 * rows).max(context / group.max(1)).next_multiple_of(KV_BLOCK_TOKENS);
        let square = of_heads(packed, heads.heads);
        let whole = of_heads(rows.next_multiple_of(KV_BLOCK_TOKENS), heads.heads);
        let gathered = of_heads(context.next_multiple_of(KV_BLOCK_TOKENS), heads.kv_heads);
        let scores = if context > SHORT_CONTEXT { SCRATCH_BYTES as u64 } else { 0 };
        // Queries and results; scores and weights; keys and values.
        [square, square.max(scores), whole.max(gathered)]
            .map(|bytes| bytes.saturating_mul(2))
            .into_iter()
            .fold(square_bytes(rows, context).saturating_add(SMALL_BYTES), u64::saturating_add)
            .saturating_add(self.bytes(widened))
    }

    /// Returns the size in bytes of a KV cache block of one layer and head with `channels` channels.
    pub fn kv_block_bytes(self, channels: usize) -> u64 {
        KV_BLOCK_TOKENS as u64 * self.precision.kv_bytes(padded_channels(channels) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use glmbench_device::{DType, WeightForm};

    /// The shape of ChatGLM2-6B, in steps of 4,096 tokens.
    #[test]
    fn a_long_prompt_takes_a_square_and_its_rows() {
        let heads = AttentionShape { heads: 32, kv_heads: 2, channels: 128 };
        let duo = AscendMemory::new(Chip::Duo300i, DType::Fp16.into());
        let mib = |context| (duo.working_bytes(heads, 4096, 4096, context) - SMALL_BYTES) >> 20;
        // Six buffers of 4,096 rows and a mask of 16 MiB. Twice the context takes twice four of them, and 64 MiB more.
        assert_eq!(mib(4096), 6 * 32 + 64 + 32);
        assert_eq!(mib(8192), 2 * 32 + 4 * 64 + 64 + 16 + 32);
        // The mask of 32,768 tokens takes 1 GiB.
        assert_eq!(mib(32_768), 2 * 32 + 4 * 64 + 1024 + 16 + 32);
        let a2 = AscendMemory::new(Chip::A2800i, DType::Fp16.into());
        assert_eq!(a2.working_bytes(heads, 4096, 4096, 8192) - SMALL_BYTES, 4 << 20);
    }

    #[test]
    fn heads_and_halves_count_as_they_are_stored() {
        let card = AscendMemory::new(Chip::Duo300i, DType::Fp16.into());
        let block = |channels| card.kv_block_bytes(channels) / (2 * 2 * KV_BLOCK_TOKENS as u64);
        assert_eq!([16, 64, 80, 128].map(block), [64, 64, 128, 128]);
        let c8 = AscendMemory::new(Chip::A2800i, Precision { kv: KvForm::C8, ..DType::Fp16.into() });
        assert_eq!(2 * c8.kv_block_bytes(80), card.kv_block_bytes(80));
        let heads = AttentionShape { heads: 4, kv_heads: 2, channels: 16 };
        let linear = |role, out, width| LinearShape { role, out, width };
        assert_eq!(card.linear_bytes(linear(Role::Qkv, 8 * 16, 10), heads), 8 * 64 * 10 * 2);
        assert_eq!(card.linear_bytes(linear(Role::GateUp, 2 * 40, 10), heads), 2 * 64 * 10 * 2);
        assert_eq!(card.linear_bytes(linear(Role::Down, 10, 40), heads), 10 * 40 * 2);
        let static_int8 = AscendMemory::new(Chip::Duo300i, Precision::quantised(WeightForm::W8a8));
        assert_eq!(static_int8.linear_bytes(linear(Role::Down, 10, 40), heads), 10 * 40 + 10 * 8);
        let other = AscendMemory::new(Chip::A2800i, DType::Bf16.into());
        assert_eq!(other.linear_bytes(linear(Role::GateUp, 2 * 40, 10), heads), 2 * 40 * 10 * 2);
    }
}
