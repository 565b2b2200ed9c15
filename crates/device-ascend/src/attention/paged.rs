//! Operators that read the paged cache directly: the fused one (A2) and the incremental one.

use std::ops::Range;

use glmbench_device::{DeviceError, SequenceView};

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
    /// Operands of the last layer's calls. The next layer of the same step has the same.
    last: Option<(StepKey, Vec<FusedStep>)>,
}

/// Rows of the table are padded to so many block numbers if there are several calls, so that each call's operands begin at
/// multiples of 64 bytes.
const TABLE_UNIT: usize = 16;

/// One call of an operator.
struct Call {
    /// Its sequences.
    sequences: Range<usize>,
    /// Shape of its queries.
    dims: Vec<usize>,
    /// The query lengths that the operator wants.
    lengths: Vec<i64>,
    /// Whether a sequence has several queries, which need a mask.
    causal: bool,
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
        Self { layout, table: Words::new("block tables"), mask: None, last: None }
    }

    pub(super) fn fused(
        &mut self,
        core: &Core,
        cache: &KvCache,
        layer: usize,
        step: Step,
        sequences: &[SequenceView<'_>],
    ) -> Result<(), DeviceError> {
        let calls =
            if cache.channels.is_some() { self.calls(sequences) } else { vec![self.ragged(sequences)] };
        self.prepare(core, "fused", step, sequences, calls)?;
        self.run(core, cache, layer, ops::fused_attention)
    }

    /// Returns the one call of a ragged batch.
    fn ragged(&self, sequences: &[SequenceView<'_>]) -> Call {
        let rows = sequences.iter().map(|s| s.rows.len()).sum();
        Call {
            sequences: 0..sequences.len(),
            dims: vec![rows, self.layout.shape.heads, self.layout.channels],
            lengths: sequences.iter().map(|s| s.rows.end as i64).collect(),
            causal: sequences.iter().any(|s| s.rows.len() > 1),
        }
    }

    /// Returns the calls over an int8 cache: one for each chunk, and one for neighbours with one row each.
    fn calls(&self, sequences: &[SequenceView<'_>]) -> Vec<Call> {
        let mut first = 0;
        let groups = sequences.chunk_by(|a, b| a.rows.len() == 1 && b.rows.len() == 1);
        groups
            .map(|group| {
                let (begin, rows) = (first, group[0].rows.len());
                first += group.len();
                Call {
                    sequences: begin..first,
                    dims: vec![group.len(), rows, self.layout.q_width()],
                    lengths: vec![rows as i64; group.len()],
                    causal: rows > 1,
                }
            })
            .collect()
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
        let (dims, operator): (Vec<usize>, PagedOperator) = match cache.order {
            BlockOrder::TokenHead => (vec![step.rows, 1, self.layout.q_width()], ops::incremental_attention),
            BlockOrder::HeadToken => (
                vec![step.rows, self.layout.shape.heads, 1, self.layout.channels],
                ops::incremental_attention_by_heads,
            ),
        };
        let call = Call { dims, causal: false, ..self.ragged(sequences) };
        self.prepare(core, "incremental", step, sequences, vec![call])?;
        self.run(core, cache, layer, operator)
    }

    /// Runs the prepared calls on a layer.
    fn run(
        &self,
        core: &Core,
        cache: &KvCache,
        layer: usize,
        operator: PagedOperator,
    ) -> Result<(), DeviceError> {
        let (_, prepared) = self.last.as_ref().expect("invariant: just prepared");
        prepared.iter().try_for_each(|step| {
            core.run(operator(core.api(), step, cache.paged(layer), heads(&self.layout)))
        })
    }

    /// Sends the block table and creates the operands' descriptors, unless the last layer had the same.
    fn prepare(
        &mut self,
        core: &Core,
        operator: &'static str,
        step: Step,
        sequences: &[SequenceView<'_>],
        calls: Vec<Call>,
    ) -> Result<(), DeviceError> {
        let columns = self.fill_table(sequences, if calls.len() > 1 { TABLE_UNIT } else { 1 });
        core.send_words(&mut self.table)?;
        let table = self.table.inbox.buffer().at(0);
        let key = StepKey {
            operator,
            ends: sequences.iter().map(|s| s.rows.end as i64).collect(),
            contexts: sequences.iter().map(|s| s.context as i64).collect(),
            columns,
            places: [step.query, step.out, table].map(|place| place as usize),
        };
        if self.last.as_ref().is_some_and(|(last, _)| *last == key) {
            return Ok(());
        }
        let made = calls
            .into_iter()
            .map(|call| self.operands(core, step, sequences, &key, &call))
            .collect::<Result<_, _>>()?;
        self.last = Some((key, made));
        Ok(())
    }

    fn operands(
        &mut self,
        core: &Core,
        step: Step,
        sequences: &[SequenceView<'_>],
        key: &StepKey,
        call: &Call,
    ) -> Result<FusedStep, DeviceError> {
        let api = core.api();
        let mask = if call.causal { Some(self.mask(core)?.tensor(api)?) } else { None };
        let of = call.sequences.clone();
        let first_row = sequences.get(of.start).map_or(0, |s| s.rows.start);
        let row_bytes = self.layout.q_width() * core.dtype.bytes();
        let rows = |start: *mut std::ffi::c_void| {
            View::new(start.wrapping_byte_add(first_row * row_bytes), core.element(), &call.dims).tensor(api)
        };
        let table = self.table.inbox.buffer().at(of.start * key.columns * size_of::<i32>());
        Ok(FusedStep {
            query: rows(step.query)?,
            out: rows(step.out)?,
            table: View::new(table, Element::Int32, &[of.len(), key.columns]).tensor(api)?,
            ends: IntArray::new(api, &call.lengths)?,
            contexts: IntArray::new(api, &key.contexts[of])?,
            mask,
        })
    }

    /// Fills the table with one row of blocks per sequence, padded with block 0 to a multiple of `unit`. Returns the blocks
    /// per row.
    fn fill_table(&mut self, sequences: &[SequenceView<'_>], unit: usize) -> usize {
        let columns =
            sequences.iter().map(|s| used_blocks(s).len()).max().unwrap_or(0).next_multiple_of(unit);
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
