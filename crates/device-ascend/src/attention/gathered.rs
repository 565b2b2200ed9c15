//! Operators that require contiguous keys and values: a sequence's blocks are gathered first.

use glmbench_device::{DeviceError, KV_BLOCK_TOKENS, SequenceView};

use super::super::adder;
use super::super::core::{Core, Scratch, Words};
use super::super::kv::{BlockOrder, KvCache};
use super::super::layout::{HeadLayout, encode};
use super::super::memory::Buffer;
use super::super::ops::{self, Heads, PromptLayout};
use super::super::tensor::{Element, View};
use super::square::{Square, Squares};
use super::{Step, heads, used_blocks};

use ascend_sys::ACL_MEMCPY_DEVICE_TO_DEVICE;

/// Limit of gathered keys (and of values) in one call of decode, and of the scores of one tile, in bytes. A single
/// sequence or row may exceed it.
pub(in super::super) const SCRATCH_BYTES: usize = 64 << 20;
/// Maximum sequences in one call of the prompt operator on a 310P.
const PROMPT_BATCH: usize = 128;
/// Added to a masked score: the lowest fp16 value.
const MASKED: f32 = -65504.0;

pub(super) struct Gathered {
    layout: HeadLayout,
    blocks: Words,
    /// Gathered blocks of an int8 cache.
    integers: Scratch,
    keys: Scratch,
    values: Scratch,
    queries: Scratch,
    scores: Scratch,
    weights: Scratch,
    results: Scratch,
    /// Additive masks.
    mask: Option<Mask>,
    squares: Squares,
}

/// Gathered keys and values `[kv heads, context, channels]`, with the strides of heads and tokens.
struct Contiguous {
    keys: View,
    values: View,
}

impl Gathered {
    pub(super) fn new(layout: HeadLayout) -> Self {
        let none = Scratch::default;
        Self {
            layout,
            blocks: Words::new("blocks to gather"),
            integers: none(),
            keys: none(),
            values: none(),
            queries: none(),
            scores: none(),
            weights: none(),
            results: none(),
            mask: None,
            squares: Squares::default(),
        }
    }

    /// Gathers blocks of a layer into the scratch buffers, `columns` blocks per sequence. Integers become numbers.
    fn gather(
        &mut self,
        core: &Core,
        cache: &KvCache,
        layer: usize,
        sequences: &[SequenceView<'_>],
        columns: usize,
    ) -> Result<[*mut std::ffi::c_void; 2], DeviceError> {
        let kv_heads = self.layout.shape.kv_heads;
        let parts = if cache.order == BlockOrder::HeadToken { kv_heads } else { 1 };
        self.blocks.words.clear();
        for sequence in sequences {
            let used = used_blocks(sequence);
            for part in 0..parts {
                for column in 0..columns {
                    // Past a sequence's end any block does: it is masked or not counted.
                    let block = used.get(column).copied().unwrap_or(used[0]) as usize;
                    self.blocks.words.push((block * parts + part) as i32);
                }
            }
        }
        core.send_words(&mut self.blocks)?;
        let count = self.blocks.words.len();
        let row = cache.block_numbers() / parts;
        let bytes = count * row * core.dtype.bytes();
        let places = [self.keys.reserve(core, bytes)?, self.values.reserve(core, bytes)?];
        let indices = View::new(self.blocks.inbox.buffer().at(0), Element::Int32, &[count]);
        let (api, dims) = (core.api(), [count, row]);
        for (which, from) in cache.layer(layer, &[cache.blocks() * parts, row]).into_iter().enumerate() {
            let Some(channels) = &cache.channels else {
                core.run(ops::gather(api, from, indices, View::new(places[which], core.element(), &dims)))?;
                continue;
            };
            let integers = View::new(self.integers.reserve(core, count * row)?, Element::Int8, &dims);
            core.run(ops::gather(api, from, indices, integers))?;
            let (heads, channel_count) = (kv_heads, self.layout.channels);
            let (dims, by) = match cache.order {
                BlockOrder::TokenHead => {
                    (vec![count * KV_BLOCK_TOKENS, heads * channel_count], vec![heads * channel_count])
                }
                BlockOrder::HeadToken => (
                    vec![sequences.len(), heads, columns * KV_BLOCK_TOKENS, channel_count],
                    vec![heads, 1, channel_count],
                ),
            };
            let to = View::new(places[which], core.element(), &dims);
            let [scale, offset] = channels
                .dequantising(layer, which)
                .map(|channels| View::new(channels.start(), core.element(), &by));
            core.run(ops::copy(api, to, View::new(integers.start(), Element::Int8, &dims)))?;
            adder::add(core, None, to, offset)?;
            core.run(ops::multiply(api, to, scale))?;
        }
        Ok(places)
    }

    /// Computes one token of every sequence with the prompt operator. The query heads that share a KV head are its tokens.
    pub(super) fn decode(
        &mut self,
        core: &Core,
        cache: &KvCache,
        layer: usize,
        step: Step,
        sequences: &[SequenceView<'_>],
    ) -> Result<(), DeviceError> {
        let (kv_heads, channels) = (self.layout.shape.kv_heads, self.layout.channels);
        let group = self.layout.shape.heads / kv_heads;
        let columns = sequences.iter().map(|s| used_blocks(s).len()).max().unwrap_or(0);
        let tokens = columns * KV_BLOCK_TOKENS;
        let sequence_bytes = tokens * self.layout.kv_width() * core.dtype.bytes();
        let together = (SCRATCH_BYTES / sequence_bytes.max(1)).clamp(1, PROMPT_BATCH);
        for part in sequences.chunks(together) {
            let [keys, values] = self.gather(core, cache, layer, part, columns)?;
            let first = part[0].rows.start * self.layout.q_width() * core.dtype.bytes();
            let small = |start: *mut std::ffi::c_void| {
                let start = start.wrapping_byte_add(first);
                View::new(start, core.element(), &[part.len(), kv_heads, group, channels])
            };
            let large = |start| View::new(start, core.element(), &[part.len(), kv_heads, tokens, channels]);
            let rows = vec![group as i64; part.len()];
            let contexts: Vec<i64> = part.iter().map(|s| s.context as i64).collect();
            let views = [small(step.query), large(keys), large(values), small(step.out)];
            let heads = Heads { query: kv_heads, kv: 0, ..heads(&self.layout) };
            let lengths = [rows.as_slice(), contexts.as_slice()];
            core.run(ops::prompt_attention(core.api(), views, None, lengths, heads, PromptLayout::Bnsd))?;
        }
        Ok(())
    }

    /// Begins a step's call of a layer: masks that it does not use may be dropped.
    pub(super) fn begin(&mut self) {
        self.squares.begin();
    }

    /// Computes rows of a prompt with the prompt operator, as `square` arranges them. Every head of the operator gets its
    /// own copy of keys and values. Queries outside the chunk are leftover memory, and their results are discarded.
    /// Queries, keys and values are padded with rows that no real row attends to.
    pub(super) fn prompt(
        &mut self,
        core: &Core,
        cache: &KvCache,
        layer: usize,
        step: Step,
        sequence: &SequenceView<'_>,
        square: Square,
    ) -> Result<(), DeviceError> {
        let (layout, rows, context) = (self.layout, sequence.rows.len(), sequence.context);
        let (kv_heads, channels) = (layout.shape.kv_heads, layout.channels);
        let (api, element, size) = (core.api(), core.element(), core.dtype.bytes());
        let head_count = layout.shape.heads / square.pack;
        let width = head_count * channels;
        let bytes = square.side * width * size;
        let query = self.queries.reserve(core, bytes)?;
        let out = self.results.reserve(core, bytes)?;
        // The rows of a step are no integers yet, and all chunks must see the same keys and values.
        let ([keys, values], wide) = if context == rows && cache.channels.is_none() {
            let wide = [self.keys.reserve(core, bytes)?, self.values.reserve(core, bytes)?];
            (self.new_rows(core, step, sequence), wide)
        } else {
            let columns = used_blocks(sequence).len();
            let places = self.gather(core, cache, layer, std::slice::from_ref(sequence), columns)?;
            let Contiguous { keys, values } = self.contiguous(core, cache, places, context, columns);
            ([keys, values], [self.scores.reserve(core, bytes)?, self.weights.reserve(core, bytes)?])
        };
        for (to, from) in wide.into_iter().zip([keys, values]) {
            // `[kv head, token, channel]`, with each head repeated for the operator's heads that share it.
            let [head, token, _] = from.strides();
            let dims = [context, kv_heads, head_count / kv_heads, channels];
            let from = View::strided(from.start(), element, &dims, &[token, head, 0, 1]);
            core.run(ops::copy(api, View::new(to, element, &dims), from))?;
        }
        // The chunk's rows among those of all sequences, and in the square.
        let first = sequence.rows.start * layout.q_width() * size;
        let theirs = |start: *mut std::ffi::c_void| {
            let dims = [rows, square.pack, head_count, channels];
            let strides = [layout.q_width(), channels, square.pack * channels, 1];
            View::strided(start.wrapping_byte_add(first), element, &dims, &strides)
        };
        let ours = |start: *mut std::ffi::c_void| {
            let start = start.wrapping_byte_add(square.first_row(rows, context) * width * size);
            View::new(start, element, &[rows, square.pack, head_count, channels])
        };
        move_rows(core, square, ours(query), theirs(step.query))?;
        let mask = self.squares.mask(core, square)?;
        let view = |start| View::new(start, element, &[1, square.side, width]);
        let views = [view(query), view(wide[0]), view(wide[1]), view(out)];
        let length = [context as i64];
        let heads = Heads { query: head_count, kv: 0, ..heads(&layout) };
        let mask = (mask, square.is_causal());
        let lengths = [&length[..], &length[..]];
        core.run(ops::prompt_attention(api, views, Some(mask), lengths, heads, PromptLayout::Bsh))?;
        move_rows(core, square, theirs(step.out), ours(out))
    }

    /// Returns views of the keys and values that the step adds, `[kv heads, rows, channels]`.
    fn new_rows(&self, core: &Core, step: Step, sequence: &SequenceView<'_>) -> [View; 2] {
        let (kv_heads, channels) = (self.layout.shape.kv_heads, self.layout.channels);
        let first = sequence.rows.start * self.layout.kv_width() * core.dtype.bytes();
        [step.key, step.value].map(|start| {
            let dims = [kv_heads, sequence.rows.len(), channels];
            let strides = [channels, self.layout.kv_width(), 1];
            View::strided(start.wrapping_byte_add(first), core.element(), &dims, &strides)
        })
    }

    /// Computes rows of one sequence with products, mask and softmax, which every chip supports. Rows go in tiles, so that
    /// the scores fit.
    pub(super) fn by_matmul(
        &mut self,
        core: &Core,
        cache: &KvCache,
        layer: usize,
        step: Step,
        sequence: &SequenceView<'_>,
    ) -> Result<(), DeviceError> {
        let columns = used_blocks(sequence).len();
        let places = self.gather(core, cache, layer, std::slice::from_ref(sequence), columns)?;
        let gathered = self.contiguous(core, cache, places, sequence.context, columns);
        let row_bytes = self.layout.shape.heads * sequence.context * core.dtype.bytes();
        let tile = (SCRATCH_BYTES / row_bytes).clamp(1, sequence.rows.len());
        for begin in (0..sequence.rows.len()).step_by(tile) {
            let rows = tile.min(sequence.rows.len() - begin);
            self.tile(core, step, sequence, &gathered, begin, rows)?;
        }
        Ok(())
    }

    fn contiguous(
        &self,
        core: &Core,
        cache: &KvCache,
        places: [*mut std::ffi::c_void; 2],
        context: usize,
        columns: usize,
    ) -> Contiguous {
        let (kv_heads, channels) = (self.layout.shape.kv_heads, self.layout.channels);
        let strides = match cache.order {
            BlockOrder::TokenHead => [channels, kv_heads * channels, 1],
            BlockOrder::HeadToken => [columns * KV_BLOCK_TOKENS * channels, channels, 1],
        };
        let [keys, values] = places
            .map(|start| View::strided(start, core.element(), &[kv_heads, context, channels], &strides));
        Contiguous { keys, values }
    }

    fn tile(
        &mut self,
        core: &Core,
        step: Step,
        sequence: &SequenceView<'_>,
        gathered: &Contiguous,
        begin: usize,
        rows: usize,
    ) -> Result<(), DeviceError> {
        let layout = self.layout;
        let (kv_heads, channels, context) = (layout.shape.kv_heads, layout.channels, sequence.context);
        let group = layout.shape.heads / kv_heads;
        let (api, element, size) = (core.api(), core.element(), core.dtype.bytes());
        let first = (sequence.rows.start + begin) * layout.q_width() * size;
        // Rows of [kv head, group, channel], viewed as [kv head, row, group, channel].
        let seen = |start: *mut std::ffi::c_void| {
            let strides = [group * channels, layout.q_width(), channels, 1];
            let start = start.wrapping_byte_add(first);
            View::strided(start, element, &[kv_heads, rows, group, channels], &strides)
        };
        let numbers = kv_heads * rows * group;
        let query = self.queries.reserve(core, numbers * channels * size)?;
        let scores = self.scores.reserve(core, numbers * context * size)?;
        let weights = self.weights.reserve(core, numbers * context * size)?;
        let result = self.results.reserve(core, numbers * channels * size)?;
        let heads = heads(&layout);
        let apart = [kv_heads, rows, group, channels];
        core.run(ops::scale(api, seen(step.query), heads.scale as f32, View::new(query, element, &apart)))?;
        let flat = |start, width| View::new(start, element, &[kv_heads, rows * group, width]);
        let (narrow, wide) = (flat(query, channels), flat(scores, context));
        core.run(ops::batch_matmul(api, narrow, gathered.keys.transposed(), wide))?;
        let visible = sequence.visible(begin);
        if visible < context {
            let mask = self.mask(core, visible, rows, context)?;
            let scores = View::new(scores, element, &[kv_heads, rows, group, context]);
            adder::add(core, None, scores, mask)?;
        }
        core.run(ops::softmax(api, wide, flat(weights, context)))?;
        core.run(ops::batch_matmul(api, flat(weights, context), gathered.values, flat(result, channels)))?;
        core.run(ops::copy(api, seen(step.out), View::new(result, element, &apart)))
    }

    /// Returns the mask `[rows, 1, context]`, which hides the tokens after each row's own. The first row sees `visible`
    /// tokens.
    ///
    /// One table serves all masks: row `r` of `[tallest, 2 * widest]` hides the columns after `widest + r`. Viewed from
    /// column `widest - visible + 1`, row `r` shows `visible + r` tokens.
    fn mask(
        &mut self,
        core: &Core,
        visible: usize,
        rows: usize,
        context: usize,
    ) -> Result<View, DeviceError> {
        let size = core.dtype.bytes();
        if self.mask.as_ref().is_none_or(|mask| mask.rows < rows || mask.widest < context) {
            let old = self.mask.take().map_or((0, 0), |mask| (mask.rows, mask.widest));
            // Queued work may still use the old table.
            core.stream.synchronize()?;
            self.mask = Some(Mask::new(core, old.0.max(rows), old.1.max(context))?);
        }
        let mask = self.mask.as_ref().expect("invariant: just made");
        let width = 2 * mask.widest;
        let start = mask.table.at((mask.widest - visible + 1) * size);
        Ok(View::strided(start, core.element(), &[rows, 1, context], &[width, width, 1]))
    }
}

/// Copies the rows of a chunk, from or to the arrangement of its square.
fn move_rows(core: &Core, square: Square, to: View, from: View) -> Result<(), DeviceError> {
    if square.pack > 1 {
        return core.run(ops::copy(core.api(), to, from));
    }
    // SAFETY: both places hold the rows, which are contiguous if heads are not packed.
    unsafe { core.stream.copy(to.start(), from.start(), to.bytes(), ACL_MEMCPY_DEVICE_TO_DEVICE) }
}

/// The table of masks, see [`Gathered::mask`].
struct Mask {
    table: Buffer,
    rows: usize,
    widest: usize,
}

impl Mask {
    fn new(core: &Core, rows: usize, context: usize) -> Result<Self, DeviceError> {
        let widest = context.next_power_of_two();
        let [open, hidden] = [0.0, MASKED].map(|value| encode(&[value], core.dtype));
        let row = |row: usize| {
            let shown = widest + row + 1;
            [open.repeat(shown.min(2 * widest)), hidden.repeat((2 * widest).saturating_sub(shown))].concat()
        };
        let bytes: Vec<u8> = (0..rows).flat_map(row).collect();
        Ok(Self { table: core.slab.put(&bytes, "attention masks")?, rows, widest })
    }
}
