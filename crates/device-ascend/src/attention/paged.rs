//! Operators that read the paged cache directly: the fused one (A2) and the incremental one.

use glmbench_device::{DeviceError, KV_BLOCK_TOKENS, SequenceView};

use super::super::core::{Core, Words};
use super::super::kv::{BlockOrder, KvCache};
use super::super::layout::HeadLayout;
use super::super::memory::Buffer;
use super::super::ops::{self, CAUSAL_MASK_SIDE, FusedStep, PagedOperator};
use super::super::tensor::{Element, IntArray, View};
use super::{Step, heads, used_blocks};

pub(super) struct Paged {
    layout: HeadLayout,
    /// Block table `[sequences, largest number of blocks]`.
    table: Words,
    mask: Option<Buffer>,
    /// Operands of the last call. The next layer of the same step has the same.
    step: Option<(StepKey, FusedStep)>,
}

/// What a [`FusedStep`] depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StepKey {
    operator: &'static str,
    ends: Vec<i64>,
    contexts: Vec<i64>,
    columns: usize,
    places: [usize; 3],
}

impl Paged {
    pub(super) fn new(layout: HeadLayout) -> Self {
        Self { layout, table: Words::new("block tables"), mask: None, step: None }
    }

    pub(super) fn fused(
        &mut self,
        core: &Core,
        cache: &KvCache,
        layer: usize,
        step: Step,
        sequences: &[SequenceView<'_>],
    ) -> Result<(), DeviceError> {
        let (heads_count, channels) = (self.layout.shape.heads, self.layout.channels);
        let dims = [step.rows, heads_count, channels];
        let causal = sequences.iter().any(|s| s.rows.len() > 1);
        self.prepare(core, "fused", step, sequences, &dims, causal)?;
        let (_, prepared) = self.step.as_ref().expect("invariant: just prepared");
        let plan = ops::fused_attention(
            core.api(),
            prepared,
            cache.lists(layer),
            heads(&self.layout),
            KV_BLOCK_TOKENS,
        );
        core.run(plan)
    }

    pub(super) fn incremental(
        &mut self,
        core: &Core,
        cache: &KvCache,
        layer: usize,
        step: Step,
        sequences: &[SequenceView<'_>],
    ) -> Result<(), DeviceError> {
        // One token per sequence, so its heads are contiguous in both layouts.
        let (dims, operator): (&[usize], PagedOperator) = match cache.order {
            BlockOrder::TokenHead => (&[step.rows, 1, self.layout.q_width()], ops::incremental_attention),
            BlockOrder::HeadToken => (
                &[step.rows, self.layout.shape.heads, 1, self.layout.channels],
                ops::incremental_attention_by_heads,
            ),
        };
        self.prepare(core, "incremental", step, sequences, dims, false)?;
        let (_, prepared) = self.step.as_ref().expect("invariant: just prepared");
        let lists = cache.lists(layer);
        core.run(operator(core.api(), prepared, lists, heads(&self.layout), KV_BLOCK_TOKENS))
    }

    /// Sends the block table and creates the operands' descriptors, unless the last layer had the same.
    fn prepare(
        &mut self,
        core: &Core,
        operator: &'static str,
        step: Step,
        sequences: &[SequenceView<'_>],
        dims: &[usize],
        causal: bool,
    ) -> Result<(), DeviceError> {
        let columns = self.fill_table(sequences);
        core.send_words(&mut self.table)?;
        let table = self.table.inbox.buffer().at(0);
        let key = StepKey {
            operator,
            ends: sequences.iter().map(|s| s.rows.end as i64).collect(),
            contexts: sequences.iter().map(|s| s.context as i64).collect(),
            columns,
            places: [step.query, step.out, table].map(|place| place as usize),
        };
        if self.step.as_ref().is_some_and(|(last, _)| *last == key) {
            return Ok(());
        }
        let api = core.api();
        let mask = if causal { Some(self.mask(core)?.tensor(api)?) } else { None };
        let made = FusedStep {
            query: View::new(step.query, core.element(), dims).tensor(api)?,
            out: View::new(step.out, core.element(), dims).tensor(api)?,
            table: View::new(table, Element::Int32, &[sequences.len(), columns]).tensor(api)?,
            ends: IntArray::new(api, &key.ends)?,
            contexts: IntArray::new(api, &key.contexts)?,
            mask,
        };
        self.step = Some((key, made));
        Ok(())
    }

    /// Fills the table with one row of blocks per sequence, padded with block 0. Returns the blocks per row.
    fn fill_table(&mut self, sequences: &[SequenceView<'_>]) -> usize {
        let columns = sequences.iter().map(|s| used_blocks(s).len()).max().unwrap_or(0);
        self.table.words.clear();
        for (i, sequence) in sequences.iter().enumerate() {
            self.table.words.extend(used_blocks(sequence).iter().map(|block| *block as i32));
            self.table.words.resize((i + 1) * columns, 0);
        }
        columns
    }

    /// Returns the documented causal mask: 1 above the diagonal.
    fn mask(&mut self, core: &Core) -> Result<View, DeviceError> {
        if self.mask.is_none() {
            let side = CAUSAL_MASK_SIDE;
            let bytes: Vec<u8> = (0..side * side).map(|i| u8::from(i % side > i / side)).collect();
            self.mask = Some(core.slab.put(&bytes, "the causal mask")?);
        }
        let mask = self.mask.as_ref().expect("invariant: just made");
        Ok(View::new(mask.at(0), Element::Bool, &[CAUSAL_MASK_SIDE, CAUSAL_MASK_SIDE]))
    }
}
