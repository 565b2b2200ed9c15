//! The minimum work of operators: the one place for its formulas.
//!
//! Bytes cross the memory bus at least once: weights, embedding rows, keys and values. Activations count as zero.
//! Operations are those of matrix products and attention; a multiply-add counts as two. The timing device
//! ([`timed`](super::timed)) counts a step with these functions, and the engine a whole pass.

use super::{AttentionShape, LinearShape, Precision, Storage};

/// Minimum work of an operator, a step or a phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Bytes across the memory bus.
    pub bytes: u64,
    /// Floating-point operations.
    pub flops: u64,
}

impl Work {
    /// The work of operators that only touch activations.
    pub const NONE: Self = Self { bytes: 0, flops: 0 };

    /// Returns the work of a product of `rows` rows with a weight. The weight is read once.
    pub fn linear(weight: LinearShape, storage: Storage, rows: u64) -> Self {
        let LinearShape { out, width, .. } = weight;
        Self { bytes: storage.bytes(out, width), flops: 2 * rows * out * width }
    }

    /// Returns the work of attention in one layer. The keys and values of `read` tokens come from memory. `seen` is the
    /// number of tokens that the queries see, summed over the queries.
    pub fn attention(shape: AttentionShape, token_bytes: u64, read: u64, seen: u64) -> Self {
        let flops = 4 * (shape.heads * shape.channels) as u64;
        Self { bytes: read * token_bytes, flops: seen * flops }
    }
}

impl std::ops::Add for Work {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, flops: self.flops + other.flops }
    }
}

impl std::iter::Sum for Work {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::NONE, |sum, one| sum + one)
    }
}

impl Precision {
    /// Returns the size in bytes of the keys and values of one token in one layer.
    pub fn kv_token_bytes(self, shape: AttentionShape) -> u64 {
        shape.kv_heads as u64 * self.kv_bytes(shape.channels as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Role};

    #[test]
    fn a_weight_is_read_once_and_multiplied_by_every_row() {
        let weight = LinearShape { role: Role::Down, out: 3, width: 10 };
        let work = Work::linear(weight, Storage::Dense(DType::Fp16), 7);
        assert_eq!(work, Work { bytes: 60, flops: 2 * 7 * 30 });
        assert_eq!(Work::linear(weight, Storage::Int8, 1), Work { bytes: 42, flops: 60 });
    }

    #[test]
    fn queries_see_all_heads_and_tokens_hold_the_kv_heads() {
        let shape = AttentionShape { heads: 4, kv_heads: 2, channels: 16 };
        let precision = Precision::from(DType::Fp16);
        let token = precision.kv_token_bytes(shape);
        assert_eq!(token, 2 * 2 * 16 * 2);
        assert_eq!(Work::attention(shape, token, 9, 10), Work { bytes: 9 * 128, flops: 10 * 4 * 64 });
    }
}
