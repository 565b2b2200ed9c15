//! What a card makes of a model's sizes, for estimates before anything is loaded.

use glmbench_device::{AttentionShape, DType, KV_BLOCK_TOKENS, LinearShape, Role};

use super::layout::padded_channels;
use super::settings::Chip;

/// On a 310P, the halves of SwiGLU's input begin at multiples of this many elements: the chip moves 64-byte pieces only.
pub(super) const SWIGLU_ALIGNMENT: usize = 32;

/// Returns the elements in one half of a feed-forward activation of `ffn` elements, as stored on the chip.
pub(super) fn swiglu_half(chip: Chip, ffn: usize) -> usize {
    if chip == Chip::Duo300i { ffn.next_multiple_of(SWIGLU_ALIGNMENT) } else { ffn }
}

/// The properties of a card that determine the memory of a model.
///
/// Heads count as padded to 64 or 128 channels. A chip whose rotary operator turns out to take 128 only pads 64 further,
/// which is not known before it is asked.
#[derive(Debug, Clone, Copy)]
pub struct AscendMemory {
    chip: Chip,
    dtype: DType,
}

impl AscendMemory {
    /// Describes a card that computes in `dtype`.
    pub fn new(chip: Chip, dtype: DType) -> Self {
        Self { chip, dtype }
    }

    /// Returns the type of weights, activations and cache.
    pub fn dtype(self) -> DType {
        self.dtype
    }

    fn bytes(self, numbers: u64) -> u64 {
        numbers.saturating_mul(self.dtype.bytes() as u64)
    }

    /// Returns the size in bytes of a linear layer's weight, in a model with these heads.
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
        self.bytes(out.saturating_mul(width))
    }

    /// Returns the size in bytes of a KV cache block of one layer and head with `channels` channels.
    pub fn kv_block_bytes(self, channels: usize) -> u64 {
        self.bytes((2 * KV_BLOCK_TOKENS) as u64 * padded_channels(channels) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_and_halves_count_as_they_are_stored() {
        let card = AscendMemory::new(Chip::Duo300i, DType::Fp16);
        let block = |channels| card.kv_block_bytes(channels) / (2 * 2 * KV_BLOCK_TOKENS as u64);
        assert_eq!([16, 64, 80, 128].map(block), [64, 64, 128, 128]);
        let heads = AttentionShape { heads: 4, kv_heads: 2, channels: 16 };
        let linear = |role, out, width| LinearShape { role, out, width };
        assert_eq!(card.linear_bytes(linear(Role::Qkv, 8 * 16, 10), heads), 8 * 64 * 10 * 2);
        assert_eq!(card.linear_bytes(linear(Role::GateUp, 2 * 40, 10), heads), 2 * 64 * 10 * 2);
        assert_eq!(card.linear_bytes(linear(Role::Down, 10, 40), heads), 10 * 40 * 2);
        let other = AscendMemory::new(Chip::A2800i, DType::Bf16);
        assert_eq!(other.linear_bytes(linear(Role::GateUp, 2 * 40, 10), heads), 2 * 40 * 10 * 2);
    }
}
