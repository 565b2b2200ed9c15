//! The paged KV cache, and writes to it.
//!
//! A layer's keys (and values) are `[blocks, 128, heads, channels]` if an operator reads the paged cache itself. They are
//! `[blocks, heads, 128, channels]` if blocks are gathered first: a sequence's gathered blocks are then contiguous for
//! each head.
//!
//! Numbers have the model's type, or are integers by the channels of a checkpoint ([`channels`]). New rows are then
//! quantised into a buffer, from which they are written like any others.

mod channels;

use ascend_sys::ACL_MEMCPY_DEVICE_TO_DEVICE;

use glmbench_device::{DeviceError, KV_BLOCK_TOKENS, KvChannels, KvShape, SequenceView};

use super::choice::{Decode, KvWrite};
use super::core::{Core, Words};
use super::layout::HeadLayout;
use super::memory::Buffer;
use super::ops::{self, PagedCache};
use super::tensor::{Element, TensorList, View};

use self::channels::Channels;

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
    pub(super) element: Element,
    /// What turns numbers into the cache's integers and back, if it holds integers.
    pub(super) channels: Option<Channels>,
    /// Keys and values of every layer, for operators that take lists. Their shape is `[blocks, 128, heads * channels]` or
    /// `[blocks, heads, 128, channels]`.
    lists: Vec<[TensorList; 2]>,
}

impl KvCache {
    /// Allocates a zeroed cache. Operators multiply what they read past a sequence's end by zero, so it must not be NaN.
    pub(super) fn new(core: &Core, shape: KvShape, order: BlockOrder) -> Result<Self, DeviceError> {
        Self::of(core, shape, order, None)
    }

    /// Allocates a cache of integers by the channels of a checkpoint.
    ///
    /// # Errors
    /// Fails as [`Channels::new`] does.
    pub(super) fn of_channels(
        core: &Core,
        layout: &HeadLayout,
        shape: KvShape,
        order: BlockOrder,
        channels: &KvChannels,
    ) -> Result<Self, DeviceError> {
        let channels = Channels::new(core, layout, order, shape, channels)?;
        Self::of(core, shape, order, Some(channels))
    }

    fn of(
        core: &Core,
        shape: KvShape,
        order: BlockOrder,
        channels: Option<Channels>,
    ) -> Result<Self, DeviceError> {
        let numbers = shape.layers * shape.blocks * KV_BLOCK_TOKENS * shape.kv_heads * shape.channels;
        let (element, bytes) = match channels {
            None => (core.element(), core.dtype.bytes()),
            Some(_) => (Element::Int8, 1),
        };
        let keys = core.slab.take(numbers * bytes, "the KV cache (keys)")?;
        let values = core.slab.take(numbers * bytes, "the KV cache (values)")?;
        keys.clear()?;
        values.clear()?;
        let mut cache = Self { keys, values, shape, order, bytes, element, channels, lists: Vec::new() };
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

    /// Returns a layer for the operators over paged caches.
    pub(super) fn paged(&self, layer: usize) -> PagedCache<'_> {
        let [keys, values] = &self.lists[layer];
        let antiquant = self.channels.as_ref().map(|channels| channels.antiquant(layer));
        PagedCache { lists: [keys, values], block: KV_BLOCK_TOKENS, antiquant }
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
    /// Rows in integers: keys in the first half, values in the second.
    integers: Option<Buffer>,
}

impl KvWriter {
    pub(super) fn new(how: KvWrite, layout: HeadLayout) -> Self {
        Self { how, layout, slots: Words::new("slots of the KV cache"), integers: None }
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
        let new = match &cache.channels {
            None => new,
            Some(channels) => self.quantised(core, cache, channels, layer, new)?,
        };
        match self.how {
            KvWrite::Scatter => self.scatter(core, cache, layer, new, sequences),
            KvWrite::IndexCopy => self.index_copy(core, cache, layer, new, sequences),
            KvWrite::Copy => self.runs(cache, layer, new, sequences, &mut |to, from| {
                core.run(ops::copy(core.api(), to, from))
            }),
            KvWrite::Memory => {
                self.runs(cache, layer, new, sequences, &mut |to, from| copy_rows(core, cache, to, from))
            }
        }
    }

    /// Quantises new rows by the channels of a layer.
    fn quantised(
        &mut self,
        core: &Core,
        cache: &KvCache,
        channels: &Channels,
        layer: usize,
        new: NewKv,
    ) -> Result<NewKv, DeviceError> {
        let width = self.layout.kv_width();
        if self.integers.as_ref().is_none_or(|buffer| buffer.len() < 2 * new.rows * width) {
            // Queued work may still use the old buffer.
            core.stream.synchronize()?;
            self.integers = None;
            let bytes = (2 * new.rows * width).next_power_of_two();
            self.integers = Some(core.slab.take(bytes, "quantised keys and values")?);
        }
        let buffer = self.integers.as_ref().expect("invariant: just made");
        let (key, value) = (buffer.at(0), buffer.at(buffer.len() / 2));
        let dims = [new.rows, width];
        let ids = [new.id, buffer.id, cache.keys.id << 32 | layer as u64, new.rows as u64];
        for (name, which, from, to) in [("quantise-k", 0, new.key, key), ("quantise-v", 1, new.value, value)]
        {
            core.run_cached((name, ids), |api| {
                let (from, to) =
                    (View::new(from, core.element(), &dims), View::new(to, Element::Int8, &dims));
                ops::quantise(api, from, channels.quantising(layer, which), to)
            })?;
        }
        Ok(NewKv { key, value, rows: new.rows, id: buffer.id })
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
        let rows = |start| View::new(start, cache.element, &[new.rows, heads[0], heads[1]]);
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
        let rows = |start| View::new(start, cache.element, &[count, row]);
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
                    copy(to, View::new(start, cache.element, &[tokens, heads, channels]))?;
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
