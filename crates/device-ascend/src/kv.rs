//! The paged KV cache, and writes to it.
//!
//! A layer's keys (and values) are `[blocks, 128, heads, channels]` if an operator reads the paged cache itself. They are
//! `[blocks, heads, 128, channels]` if blocks are gathered first: a sequence's gathered blocks are then contiguous for
//! each head.

use ascend_sys::ACL_MEMCPY_DEVICE_TO_DEVICE;

use glmbench_device::{DeviceError, KV_BLOCK_TOKENS, KvShape, SequenceView};

use super::choice::{Decode, KvWrite};
use super::core::{Core, Words};
use super::layout::HeadLayout;
use super::memory::Buffer;
use super::ops;
use super::tensor::{Element, TensorList, View};

/// Order of the axes after the block number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockOrder {
    /// `[128, heads, channels]`.
    TokenHead,
    /// `[heads, 128, channels]`.
    HeadToken,
}

impl BlockOrder {
    /// Returns the order that the decode operator requires.
    pub(super) fn of(decode: Decode) -> Self {
        match decode {
            Decode::Fused | Decode::Incremental => Self::TokenHead,
            Decode::IncrementalByHeads | Decode::Prompt | Decode::Matmul => Self::HeadToken,
        }
    }
}

/// Keys and values of all layers.
pub struct KvCache {
    keys: Buffer,
    values: Buffer,
    /// The shape, with the padded number of channels per head.
    shape: KvShape,
    pub(super) order: BlockOrder,
    bytes: usize,
    element: Element,
    /// Keys and values of every layer, for operators that take lists. Their shape is `[blocks, 128, heads * channels]` or
    /// `[blocks, heads, 128, channels]`.
    lists: Vec<[TensorList; 2]>,
}

impl KvCache {
    /// Allocates a zeroed cache. Operators multiply what they read past a sequence's end by zero, so it must not be NaN.
    pub(super) fn new(core: &Core, shape: KvShape, order: BlockOrder) -> Result<Self, DeviceError> {
        let numbers = shape.layers * shape.blocks * KV_BLOCK_TOKENS * shape.kv_heads * shape.channels;
        let bytes = core.dtype.bytes();
        let keys = core.slab.take(numbers * bytes, "the KV cache (keys)")?;
        let values = core.slab.take(numbers * bytes, "the KV cache (values)")?;
        keys.clear()?;
        values.clear()?;
        let mut cache =
            Self { keys, values, shape, order, bytes, element: core.element(), lists: Vec::new() };
        let dims = match order {
            BlockOrder::TokenHead => vec![shape.blocks, KV_BLOCK_TOKENS, shape.kv_heads * shape.channels],
            BlockOrder::HeadToken => vec![shape.blocks, shape.kv_heads, KV_BLOCK_TOKENS, shape.channels],
        };
        for layer in 0..shape.layers {
            let list = |buffer: &Buffer| {
                let view = View::new(cache.start(buffer, layer, 0), cache.element, &dims);
                TensorList::of(core.api(), view)
            };
            let pair = [list(&cache.keys)?, list(&cache.values)?];
            cache.lists.push(pair);
        }
        Ok(cache)
    }

    /// Returns the key and value buffers of all layers.
    pub(super) fn in_memory(&self) -> [(&'static str, &Buffer); 2] {
        [("keys", &self.keys), ("values", &self.values)]
    }

    /// Returns the elements per block.
    pub(super) fn block_numbers(&self) -> usize {
        KV_BLOCK_TOKENS * self.shape.kv_heads * self.shape.channels
    }

    /// Returns the blocks per layer.
    pub(super) fn blocks(&self) -> usize {
        self.shape.blocks
    }

    /// Returns the address of an element of a layer.
    fn start(&self, buffer: &Buffer, layer: usize, number: usize) -> *mut std::ffi::c_void {
        buffer.at((layer * self.shape.blocks * self.block_numbers() + number) * self.bytes)
    }

    /// Returns views of the keys and values of a layer with shape `dims`.
    pub(super) fn layer(&self, layer: usize, dims: &[usize]) -> [View; 2] {
        [&self.keys, &self.values].map(|b| View::new(self.start(b, layer, 0), self.element, dims))
    }

    /// Returns the tensor lists of the keys and values of a layer.
    pub(super) fn lists(&self, layer: usize) -> [&TensorList; 2] {
        let [keys, values] = &self.lists[layer];
        [keys, values]
    }

    /// Queues copies of a block of every layer to another.
    pub(super) fn copy_block(&self, core: &Core, from: usize, to: usize) -> Result<(), DeviceError> {
        let (numbers, bytes) = (self.block_numbers(), self.block_numbers() * self.bytes);
        for layer in 0..self.shape.layers {
            for buffer in [&self.keys, &self.values] {
                let [from, to] = [from, to].map(|block| self.start(buffer, layer, block * numbers));
                // SAFETY: both places are blocks inside a live buffer of the device.
                unsafe { core.stream.copy(to, from, bytes, ACL_MEMCPY_DEVICE_TO_DEVICE)? };
            }
        }
        Ok(())
    }

    /// Returns `tokens` slots of one block, starting at `place`, as `[tokens, heads, channels]`.
    fn run(&self, layer: usize, (block, place): (usize, usize), tokens: usize) -> [View; 2] {
        let KvShape { kv_heads, channels, .. } = self.shape;
        let strides = match self.order {
            BlockOrder::TokenHead => [kv_heads * channels, channels, 1],
            BlockOrder::HeadToken => [channels, KV_BLOCK_TOKENS * channels, 1],
        };
        let first = block * self.block_numbers() + place * strides[0];
        [&self.keys, &self.values].map(|buffer| {
            let start = self.start(buffer, layer, first);
            View::strided(start, self.element, &[tokens, kv_heads, channels], &strides)
        })
    }
}

/// A step's new keys and values, `[rows, heads * channels]` each.
#[derive(Clone, Copy)]
pub(super) struct NewKv {
    pub(super) key: *mut std::ffi::c_void,
    pub(super) value: *mut std::ffi::c_void,
    pub(super) rows: usize,
    /// Buffer id of the activation.
    pub(super) id: u64,
}

/// Writes to caches.
pub(super) struct KvWriter {
    how: KvWrite,
    layout: HeadLayout,
    slots: Words,
}

impl KvWriter {
    pub(super) fn new(how: KvWrite, layout: HeadLayout) -> Self {
        Self { how, layout, slots: Words::new("slots of the KV cache") }
    }

    /// Writes a layer's new keys and values to the last slots of each sequence.
    pub(super) fn write(
        &mut self,
        core: &Core,
        cache: &KvCache,
        layer: usize,
        new: NewKv,
        sequences: &[SequenceView<'_>],
    ) -> Result<(), DeviceError> {
        match self.how {
            KvWrite::Scatter => self.scatter(core, cache, layer, new, sequences),
            KvWrite::IndexCopy => self.index_copy(core, cache, layer, new, sequences),
            KvWrite::Copy => self.runs(cache, layer, new, core.element(), sequences, &mut |to, from| {
                core.run(ops::copy(core.api(), to, from))
            }),
            KvWrite::Memory => self.runs(cache, layer, new, core.element(), sequences, &mut |to, from| {
                copy_rows(core, cache, to, from)
            }),
        }
    }

    /// Computes `slot = block * 128 + place` of every row.
    fn slots(&mut self, sequences: &[SequenceView<'_>]) {
        self.slots.words.clear();
        for sequence in sequences {
            for i in 0..sequence.rows.len() {
                let (block, place) = sequence.slot(sequence.visible(i) - 1);
                self.slots.words.push((block * KV_BLOCK_TOKENS + place) as i32);
            }
        }
    }

    fn scatter(
        &mut self,
        core: &Core,
        cache: &KvCache,
        layer: usize,
        new: NewKv,
        sequences: &[SequenceView<'_>],
    ) -> Result<(), DeviceError> {
        self.slots(sequences);
        core.send_words(&mut self.slots)?;
        let slots = View::new(self.slots.inbox.buffer().at(0), Element::Int32, &[new.rows]);
        let heads = [self.layout.shape.kv_heads, self.layout.channels];
        let [keys, values] = cache.layer(layer, &[cache.blocks(), KV_BLOCK_TOKENS, heads[0], heads[1]]);
        let rows = |start| View::new(start, core.element(), &[new.rows, heads[0], heads[1]]);
        let key = self.key(cache, layer, new);
        core.run_cached(("scatter-kv", key), |api| {
            ops::scatter_kv(api, [rows(new.key), keys], [rows(new.value), values], slots)
        })
    }

    fn index_copy(
        &mut self,
        core: &Core,
        cache: &KvCache,
        layer: usize,
        new: NewKv,
        sequences: &[SequenceView<'_>],
    ) -> Result<(), DeviceError> {
        self.slots(sequences);
        let (heads, channels) = (self.layout.shape.kv_heads, self.layout.channels);
        // A row of the cache is its largest contiguous piece: all heads of a token, or one head.
        let (row, per_token) = match cache.order {
            BlockOrder::TokenHead => (heads * channels, 1),
            BlockOrder::HeadToken => (channels, heads),
        };
        if cache.order == BlockOrder::HeadToken {
            let of_head = |slot: &i32| {
                let (block, place) = (*slot as usize / KV_BLOCK_TOKENS, *slot as usize % KV_BLOCK_TOKENS);
                (0..heads).map(move |head| ((block * heads + head) * KV_BLOCK_TOKENS + place) as i32)
            };
            self.slots.words = self.slots.words.iter().flat_map(of_head).collect();
        }
        core.send_words(&mut self.slots)?;
        let count = new.rows * per_token;
        let slots = View::new(self.slots.inbox.buffer().at(0), Element::Int32, &[count]);
        let places = cache.blocks() * KV_BLOCK_TOKENS * per_token;
        let [keys, values] = cache.layer(layer, &[places, row]);
        let rows = |start| View::new(start, core.element(), &[count, row]);
        let key = self.key(cache, layer, new);
        core.run_cached(("index-copy-k", key), |api| ops::index_copy(api, keys, slots, rows(new.key)))?;
        core.run_cached(("index-copy-v", key), |api| ops::index_copy(api, values, slots, rows(new.value)))
    }

    fn key(&self, cache: &KvCache, layer: usize, new: NewKv) -> [u64; 4] {
        let slots = self.slots.inbox.buffer().id;
        [cache.keys.id << 32 | layer as u64, new.id, slots, new.rows as u64]
    }

    /// Copies runs of rows that are contiguous within a block.
    fn runs(
        &self,
        cache: &KvCache,
        layer: usize,
        new: NewKv,
        element: Element,
        sequences: &[SequenceView<'_>],
        copy: &mut dyn FnMut(View, View) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        let (heads, channels) = (self.layout.shape.kv_heads, self.layout.channels);
        let row_bytes = heads * channels * cache.bytes;
        for sequence in sequences {
            let mut row = sequence.rows.start;
            let mut token = sequence.visible(0) - 1;
            while row < sequence.rows.end {
                let slot = sequence.slot(token);
                let tokens = (KV_BLOCK_TOKENS - slot.1).min(sequence.rows.end - row);
                let [keys, values] = cache.run(layer, slot, tokens);
                for (to, from) in [(keys, new.key), (values, new.value)] {
                    let start = from.wrapping_byte_add(row * row_bytes);
                    copy(to, View::new(start, element, &[tokens, heads, channels]))?;
                }
                row += tokens;
                token += tokens;
            }
        }
        Ok(())
    }
}

/// Copies by memory: a whole run if heads are contiguous, else by head and token.
fn copy_rows(core: &Core, cache: &KvCache, to: View, from: View) -> Result<(), DeviceError> {
    let memory = |to: *mut std::ffi::c_void, from: *mut std::ffi::c_void, bytes: usize| {
        // SAFETY: both places are rows inside live buffers of the device.
        unsafe { core.stream.copy(to, from, bytes, ACL_MEMCPY_DEVICE_TO_DEVICE) }
    };
    if cache.order == BlockOrder::TokenHead {
        return memory(to.start(), from.start(), from.bytes());
    }
    let KvShape { kv_heads, channels, .. } = cache.shape;
    let row = channels * cache.bytes;
    let tokens = from.bytes() / (kv_heads * row);
    for token in 0..tokens {
        for head in 0..kv_heads {
            let target = to.start().wrapping_byte_add((head * KV_BLOCK_TOKENS + token) * row);
            memory(target, from.start().wrapping_byte_add((token * kv_heads + head) * row), row)?;
        }
    }
    Ok(())
}
