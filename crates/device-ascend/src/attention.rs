//! Attention over the paged cache, with the operators that the chip supports.

mod gathered;
mod paged;
mod square;

use std::ffi::c_void;

use glmbench_device::{DeviceError, KV_BLOCK_TOKENS, SequenceView};

use super::choice::{Choices, Decode, Prefill};
use super::core::Core;
use super::kv::KvCache;
use super::layout::HeadLayout;
use super::ops::{CAUSAL_MASK_SIDE, Heads};

use self::gathered::Gathered;
pub(super) use self::gathered::SCRATCH_BYTES;
use self::paged::Paged;
use self::square::Square;
pub(super) use self::square::{SHORT_CONTEXT, memory_bytes as square_bytes};

/// Bytes of the mask of the operators over paged caches.
pub(super) const CAUSAL_MASK_BYTES: u64 = (CAUSAL_MASK_SIDE * CAUSAL_MASK_SIDE) as u64;

/// A step's queries, new keys and values, and the place of the result. Rows are contiguous.
#[derive(Clone, Copy)]
pub(super) struct Step {
    /// `[rows, heads * channels]`.
    pub(super) query: *mut c_void,
    /// `[rows, kv heads * channels]`.
    pub(super) key: *mut c_void,
    /// `[rows, kv heads * channels]`.
    pub(super) value: *mut c_void,
    /// `[rows, heads * channels]`.
    pub(super) out: *mut c_void,
    /// Number of rows.
    pub(super) rows: usize,
}

/// The attention operator.
pub(super) struct Attention {
    decode: Decode,
    prefill: Prefill,
    layout: HeadLayout,
    paged: Paged,
    gathered: Gathered,
}

impl Attention {
    pub(super) fn new(choices: Choices, layout: HeadLayout) -> Self {
        Self {
            decode: choices.decode,
            prefill: choices.prefill,
            layout,
            paged: Paged::new(layout),
            gathered: Gathered::new(layout),
        }
    }

    /// Computes attention of all rows of a step over the cache of a layer. The cache already holds the step's keys
    /// and values.
    pub(super) fn run(
        &mut self,
        core: &Core,
        cache: &KvCache,
        layer: usize,
        step: Step,
        sequences: &[SequenceView<'_>],
    ) -> Result<(), DeviceError> {
        let decode = sequences.iter().all(|s| s.rows.len() == 1);
        self.gathered.begin();
        match (decode, self.decode, self.prefill) {
            (true, Decode::Fused, _) | (false, _, Prefill::Fused) => {
                self.paged.fused(core, cache, layer, step, sequences)
            }
            (true, Decode::Incremental | Decode::IncrementalByHeads, _) => {
                self.paged.incremental(core, cache, layer, step, sequences)
            }
            (true, Decode::Prompt, _) => self.gathered.decode(core, cache, layer, step, sequences),
            (true, Decode::Matmul, _) | (false, _, Prefill::Matmul) => {
                sequences.iter().try_for_each(|s| self.gathered.by_matmul(core, cache, layer, step, s))
            }
            (false, _, Prefill::Prompt | Prefill::PromptSquare) => {
                let packed = self.prefill == Prefill::Prompt;
                let group = self.layout.shape.heads / self.layout.shape.kv_heads;
                sequences.iter().try_for_each(|s| match Square::of(s.rows.len(), s.context, group, packed) {
                    Some(square) => self.gathered.prompt(core, cache, layer, step, s, square),
                    None => self.gathered.by_matmul(core, cache, layer, step, s),
                })
            }
        }
    }
}

/// Returns the operator's head counts and scale for a model.
fn heads(layout: &HeadLayout) -> Heads {
    Heads {
        query: layout.shape.heads,
        kv: layout.shape.kv_heads,
        scale: 1.0 / (layout.shape.channels as f64).sqrt(),
    }
}

/// Returns the blocks that hold a sequence's tokens.
fn used_blocks<'a>(sequence: &SequenceView<'a>) -> &'a [u32] {
    &sequence.blocks[..sequence.context.div_ceil(KV_BLOCK_TOKENS)]
}
