//! The paged KV cache.
//!
//! A block holds 128 tokens of one layer and KV head, in panels of sixteen columns. Keys are eight panels of 16 tokens,
//! with the channels as depth. Values are panels of 16 channels, with the tokens as depth. Scores and weighted sums are
//! then the same product as in linear layers. Its rows are the query heads that share a KV head, so the cache is read
//! once for all of them. [`Order`] gives the layout of a panel: tiled if the kernels multiply tiles.
//!
//! Keys and values in int8 have one scale per token. Keys have a zero point, too. Keys are stored in integer tiles
//! if such tiles multiply them. Values have the same layout for all kernels. The vector kernels dequantise values,
//! and keys, one block at a time; tile kernels widen the values.

use std::ops::Range;

use glmbench_device::{DeviceError, KV_BLOCK_TOKENS, KvChannels, KvForm, KvShape, Precision};

use crate::buffer::{Buffer, SharedSlice};
use crate::pack::quantise::Quantise;
use crate::pack::{Narrow, Order, PANEL, TILE_DEPTH};
use crate::product::tiles::{TileKernels, TileUnit};
use crate::simd::Vectors;

use super::channel_cache::{HeadChannels, Planes, QuantiseChannels};
use super::int8_cache::{QuantiseKey, Step};

/// Keys and values of all layers.
#[derive(Debug)]
pub struct KvCache {
    layout: Layout,
    keys: Buffer<u8>,
    values: Buffer<u8>,
    int8: Option<Int8>,
    channels: Option<Channels>,
}

/// Memory layout of the cache.
#[derive(Debug, Clone, Copy)]
struct Layout {
    shape: KvShape,
    /// Bytes per number.
    bytes: usize,
    /// Layout of a panel of keys.
    keys: Order,
    /// Layout of a panel of values.
    values: Order,
    /// Whether values are in tiles of the device type.
    tiles: bool,
}

/// Additional data for keys and values in int8.
#[derive(Debug)]
struct Int8 {
    /// One scale per token of each block and head.
    key_scales: Buffer<f32>,
    /// One zero point per key.
    key_zeros: Buffer<i8>,
    value_scales: Buffer<f32>,
    /// Quantised channels of each head, used while writing.
    rows: Buffer<i8>,
}

/// Additional data for keys and values in int8 by the channels of a checkpoint.
#[derive(Debug)]
struct Channels {
    /// Channels of the keys, and of the values.
    planes: [Planes; 2],
    /// Quantised channels of each head, used while writing.
    rows: Buffer<i8>,
}

/// The panels of one block and head.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Panels<'a> {
    /// In the device's type.
    Stored(&'a [u8]),
    /// Values in int8, with one scale per token.
    Int8Values(&'a [i8], &'a [f32]),
    /// Keys in int8, with one scale and one zero point per token.
    Int8Keys(&'a [i8], Steps<'a>),
    /// In int8, with one scale and offset per channel.
    Channels(&'a [i8], HeadChannels<'a>),
}

/// The scales and zero points of the keys of one block and head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steps<'a> {
    pub(crate) scales: &'a [f32],
    pub(crate) zeros: &'a [i8],
}

impl<'a> Panels<'a> {
    /// Returns the bytes that a reader of these panels reads: what the tokens have, then the numbers.
    pub(crate) fn bytes(self) -> [&'a [u8]; 3] {
        let (of_tokens, numbers) = match self {
            Self::Stored(bytes) => return [&[], &[], bytes],
            Self::Int8Values(numbers, scales) => ([&[], bytemuck::cast_slice(scales)], numbers),
            Self::Int8Keys(numbers, Steps { scales, zeros }) => {
                ([bytemuck::cast_slice(zeros), bytemuck::cast_slice(scales)], numbers)
            }
            Self::Channels(numbers, _) => ([&[][..]; 2], numbers),
        };
        [of_tokens[0], of_tokens[1], bytemuck::cast_slice(numbers)]
    }

    /// Returns the numbers of a cache in the device type.
    pub(crate) fn stored(self) -> &'a [u8] {
        let Self::Stored(bytes) = self else {
            unreachable!("invariant: kernels are given the cache that they are for")
        };
        bytes
    }

    /// Returns the values of an int8 cache and the scales of their tokens.
    pub(crate) fn int8_values(self) -> (&'a [i8], &'a [f32]) {
        let Self::Int8Values(numbers, scales) = self else {
            unreachable!("invariant: kernels are given the cache that they are for")
        };
        (numbers, scales)
    }

    /// Returns the keys of an int8 cache, and their scales and zero points.
    pub(crate) fn int8_keys(self) -> (&'a [i8], Steps<'a>) {
        let Self::Int8Keys(numbers, steps) = self else {
            unreachable!("invariant: kernels are given the cache that they are for")
        };
        (numbers, steps)
    }
}

/// The kernels that multiply a cache. They determine its layout.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CacheKernels {
    /// The vector kernels.
    Vector,
    /// Tile kernels for the device's type.
    Tiles(TileKernels),
    /// Tile kernels for integers: one for values, one for keys.
    Int8Tiles(TileKernels, TileUnit<i32>),
}

impl Layout {
    fn new(shape: KvShape, precision: Precision, kernels: &CacheKernels) -> Self {
        let bytes = match precision.kv {
            KvForm::Auto => precision.dtype.bytes(),
            KvForm::Int8 | KvForm::C8 => 1,
        };
        let (keys, values) = match kernels {
            CacheKernels::Vector => (Order::rows(shape.channels), Order::rows(KV_BLOCK_TOKENS)),
            CacheKernels::Tiles(_) => (Order::tiles(shape.channels), Order::tiles(KV_BLOCK_TOKENS)),
            CacheKernels::Int8Tiles(..) => (Order::integers(shape.channels), Order::rows(KV_BLOCK_TOKENS)),
        };
        Self { shape, bytes, keys, values, tiles: matches!(kernels, CacheKernels::Tiles(_)) }
    }

    /// Returns the number of `(layer, block, head)` triples.
    fn heads(&self) -> usize {
        self.shape.layers * self.shape.blocks * self.shape.kv_heads
    }

    /// Returns the index of a triple, in memory order.
    fn index(&self, layer: usize, block: usize, head: usize) -> usize {
        (layer * self.shape.blocks + block) * self.shape.kv_heads + head
    }

    /// Returns the size of the keys of one block and head, in bytes.
    fn key_bytes(&self) -> usize {
        KV_BLOCK_TOKENS / PANEL * self.keys.numbers() * self.bytes
    }

    /// Returns the size of the values of one block and head, in bytes.
    fn value_bytes(&self) -> usize {
        self.shape.channels.div_ceil(PANEL) * self.values.numbers() * self.bytes
    }
}

impl KvCache {
    /// Allocates an empty cache.
    pub(crate) fn new(
        shape: KvShape,
        precision: Precision,
        kernels: &CacheKernels,
    ) -> Result<Self, DeviceError> {
        let layout = Layout::new(shape, precision, kernels);
        let scales = || Buffer::zeroed(layout.heads() * KV_BLOCK_TOKENS, WHAT);
        let int8 = match precision.kv {
            KvForm::Auto | KvForm::C8 => None,
            KvForm::Int8 => Some(Int8 {
                key_scales: scales()?,
                key_zeros: Buffer::zeroed(layout.heads() * KV_BLOCK_TOKENS, WHAT)?,
                value_scales: scales()?,
                rows: Buffer::zeroed(shape.kv_heads * shape.channels, WHAT)?,
            }),
        };
        let keys = Buffer::zeroed(layout.heads() * layout.key_bytes(), WHAT)?;
        let values = Buffer::zeroed(layout.heads() * layout.value_bytes(), WHAT)?;
        Ok(Self { layout, keys, values, int8, channels: None })
    }

    /// Allocates an empty cache that is quantised by the channels of a checkpoint, which fit the shape.
    pub(crate) fn of_channels(
        shape: KvShape,
        precision: Precision,
        kernels: &CacheKernels,
        channels: &KvChannels,
    ) -> Result<Self, DeviceError> {
        let rows = Buffer::zeroed(shape.kv_heads * shape.channels, WHAT)?;
        let channels = Some(Channels { planes: Planes::both(shape, channels)?, rows });
        Ok(Self { channels, ..Self::new(shape, precision, kernels)? })
    }

    /// Returns the channels of a head of the keys (0) or of the values (1), if there are any.
    fn of_head(&self, which: usize, at: usize) -> Option<HeadChannels<'_>> {
        let KvShape { blocks, kv_heads, .. } = self.layout.shape;
        self.channels.as_ref().map(|c| c.planes[which].of(at / (blocks * kv_heads), at % kv_heads))
    }

    /// Returns the size of one block of one layer and head, in bytes.
    pub(crate) fn block_bytes(channels: usize, precision: Precision, kernels: &CacheKernels) -> usize {
        let layout = Layout::new(KvShape { layers: 1, kv_heads: 1, channels, blocks: 1 }, precision, kernels);
        let scales = match precision.kv {
            KvForm::Auto | KvForm::C8 => 0,
            KvForm::Int8 => KV_BLOCK_TOKENS * (2 * size_of::<f32>() + size_of::<i8>()),
        };
        layout.key_bytes() + layout.value_bytes() + scales
    }

    /// Returns the index of a `(layer, block, head)` triple, in memory order.
    pub(crate) fn index(&self, layer: usize, block: usize, head: usize) -> usize {
        self.layout.index(layer, block, head)
    }

    /// Returns the keys of one block and head ([`KvCache::index`]): eight panels.
    pub(crate) fn keys(&self, at: usize) -> Panels<'_> {
        let bytes = self.layout.key_bytes();
        let stored = &self.keys[at * bytes..(at + 1) * bytes];
        match (self.of_head(0, at), &self.int8) {
            (Some(channels), _) => Panels::Channels(bytemuck::cast_slice(stored), channels),
            (None, Some(int8)) => {
                let tokens = at * KV_BLOCK_TOKENS..(at + 1) * KV_BLOCK_TOKENS;
                let (scales, zeros) = (&int8.key_scales[tokens.clone()], &int8.key_zeros[tokens]);
                Panels::Int8Keys(bytemuck::cast_slice(stored), Steps { scales, zeros })
            }
            (None, None) => Panels::Stored(stored),
        }
    }

    /// Returns the values of one block and head ([`KvCache::index`]): one panel per sixteen channels.
    pub(crate) fn values(&self, at: usize) -> Panels<'_> {
        let bytes = self.layout.value_bytes();
        let stored = &self.values[at * bytes..(at + 1) * bytes];
        match (self.of_head(1, at), &self.int8) {
            (Some(channels), _) => Panels::Channels(bytemuck::cast_slice(stored), channels),
            (None, Some(int8)) => {
                let scales = &int8.value_scales[at * KV_BLOCK_TOKENS..(at + 1) * KV_BLOCK_TOKENS];
                Panels::Int8Values(bytemuck::cast_slice(stored), scales)
            }
            (None, None) => Panels::Stored(stored),
        }
    }

    /// Copies the first `tokens` tokens of a block to another, in every layer. Whole blocks are copied, and what tiles multiply
    /// together with these tokens is cleared ([`Writer::write`]).
    pub(crate) fn copy_block(&mut self, from: usize, to: usize, tokens: usize) {
        let layout = self.layout;
        let (key_bytes, value_bytes) = (layout.key_bytes(), layout.value_bytes());
        for layer in 0..layout.shape.layers {
            let [from, to] = [from, to].map(|block| layout.index(layer, block, 0));
            let heads = from..from + layout.shape.kv_heads;
            let each = |size: usize| (heads.start * size..heads.end * size, to * size);
            let copy = |bytes: &mut [u8], (from, to)| bytes.copy_within::<Range<usize>>(from, to);
            copy(&mut self.keys, each(key_bytes));
            copy(&mut self.values, each(value_bytes));
            if let Some(int8) = &mut self.int8 {
                let (from, to) = each(KV_BLOCK_TOKENS);
                int8.key_scales.copy_within(from.clone(), to);
                int8.key_zeros.copy_within(from.clone(), to);
                int8.value_scales.copy_within(from, to);
            }
            if layout.tiles {
                let values = &mut self.values[to * value_bytes..(to + layout.shape.kv_heads) * value_bytes];
                values.chunks_exact_mut(value_bytes).for_each(|head| clear_after(head, tokens));
            }
        }
    }

    /// Returns a handle through which several threads write, each to its own heads.
    pub(crate) fn writer(&mut self, vectors: Vectors) -> Writer<'_> {
        let int8 = self.int8.as_mut().map(|int8| Int8Writer {
            key_scales: int8.key_scales.shared(),
            key_zeros: int8.key_zeros.shared(),
            value_scales: int8.value_scales.shared(),
            rows: int8.rows.shared(),
        });
        let (keys, values) = (self.keys.shared(), self.values.shared());
        let channels = self.channels.as_mut().map(|c| (&c.planes, c.rows.shared()));
        Writer { layout: self.layout, vectors, keys, values, int8, channels }
    }
}

/// Purpose of the memory, for errors.
const WHAT: &str = "the KV cache";

/// Writes tokens to a cache.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    layout: Layout,
    vectors: Vectors,
    keys: SharedSlice<'a, u8>,
    values: SharedSlice<'a, u8>,
    int8: Option<Int8Writer<'a>>,
    channels: Option<(&'a [Planes; 2], SharedSlice<'a, i8>)>,
}

#[derive(Debug)]
struct Int8Writer<'a> {
    key_scales: SharedSlice<'a, f32>,
    key_zeros: SharedSlice<'a, i8>,
    value_scales: SharedSlice<'a, f32>,
    rows: SharedSlice<'a, i8>,
}

impl Writer<'_> {
    /// Writes one token's key and value of one head. The numbers must be representable in the cache's type. The tokens
    /// of a sequence must be written in order.
    ///
    /// Tiles multiply values 32 tokens at a time. Another sequence may have left NaN or infinity in the places of later
    /// tokens, which a weight of zero would not cancel. The first token of each 32 therefore clears the places of the
    /// others. Attention would find the NaN, but compute the rows again for every token of a new sequence.
    ///
    /// Integers are always finite. If a value contains NaN or infinity, the key scale of the token becomes NaN instead.
    /// Every row that sees the token then has a NaN score, and other rows are not affected.
    ///
    /// # Safety
    /// No two threads may write tokens of the same layer and head at the same time.
    pub(crate) unsafe fn write(
        &self,
        layer: usize,
        (block, place): (usize, usize),
        head: usize,
        key: &[f32],
        value: &[f32],
    ) {
        let layout = &self.layout;
        let at = layout.index(layer, block, head);
        let (key_bytes, value_bytes) = (layout.key_bytes(), layout.value_bytes());
        // SAFETY: the head belongs to this thread.
        let (keys, values) = unsafe {
            let keys = self.keys.range(at * key_bytes..(at + 1) * key_bytes);
            (keys, self.values.range(at * value_bytes..(at + 1) * value_bytes))
        };
        if let Some(int8) = &self.int8 {
            let (token, channels) = (at * KV_BLOCK_TOKENS + place, layout.shape.channels);
            // SAFETY: as above.
            let (row, key_scale, key_zero, value_scale) = unsafe {
                let row = int8.rows.range(head * channels..(head + 1) * channels);
                let token = token..token + 1;
                let (scale, zero) =
                    (int8.key_scales.range(token.clone()), int8.key_zeros.range(token.clone()));
                (row, &mut scale[0], &mut zero[0], &mut int8.value_scales.range(token)[0])
            };
            Step { scale: *key_scale, zero: *key_zero } = self.vectors.run(QuantiseKey { x: key, out: row });
            layout.put_key(keys.as_chunks_mut().0, place, 0, numbers(row));
            *value_scale = self.vectors.run(Quantise { x: value, out: row, by: None }).scale;
            layout.put_value(values.as_chunks_mut().0, place, 0, numbers(row));
            if value_scale.is_nan() {
                (*key_scale, *value_scale) = (f32::NAN, 0.0);
            }
        } else if let Some((planes, rows)) = &self.channels {
            let channels = layout.shape.channels;
            // SAFETY: as above.
            let row = unsafe { rows.range(head * channels..(head + 1) * channels) };
            let [of_keys, of_values] = planes.each_ref().map(|planes| planes.of(layer, head));
            self.vectors.run_fp32(QuantiseChannels { x: key, by: of_keys, out: row });
            layout.put_key(keys.as_chunks_mut().0, place, 0, numbers(row));
            self.vectors.run_fp32(QuantiseChannels { x: value, by: of_values, out: row });
            layout.put_value(values.as_chunks_mut().0, place, 0, numbers(row));
        } else if layout.bytes == 2 {
            self.put::<2>(keys, values, place, key, value);
        } else {
            self.put::<4>(keys, values, place, key, value);
        }
    }

    /// Writes a token whose numbers take `BYTES` bytes each.
    fn put<const BYTES: usize>(
        &self,
        keys: &mut [u8],
        values: &mut [u8],
        place: usize,
        key: &[f32],
        value: &[f32],
    ) {
        let (keys, values) = (keys.as_chunks_mut::<BYTES>().0, values.as_chunks_mut::<BYTES>().0);
        if self.layout.tiles && place.is_multiple_of(TILE_DEPTH) {
            let tile = place * PANEL..(place + TILE_DEPTH) * PANEL;
            let panels = values.chunks_exact_mut(self.layout.values.numbers());
            panels.for_each(|panel| panel[tile.clone()].fill([0; BYTES]));
        }
        for (i, (key, value)) in key.chunks(PANEL).zip(value.chunks(PANEL)).enumerate() {
            let [of_key, of_value] = [key, value].map(|numbers| self.narrowed::<BYTES>(numbers));
            self.layout.put_key(keys, place, i * PANEL, &of_key[..key.len()]);
            self.layout.put_value(values, place, i * PANEL, &of_value[..value.len()]);
        }
    }

    /// Converts up to sixteen numbers to the stored type.
    fn narrowed<const BYTES: usize>(&self, numbers: &[f32]) -> [[u8; BYTES]; PANEL] {
        let mut stored = [[0; BYTES]; PANEL];
        self.vectors.run(Narrow { from: numbers, to: stored[..numbers.len()].as_flattened_mut() });
        stored
    }
}

impl Layout {
    /// Writes a token's key, starting at channel `first`.
    fn put_key<const BYTES: usize>(
        &self,
        keys: &mut [[u8; BYTES]],
        place: usize,
        first: usize,
        numbers: &[[u8; BYTES]],
    ) {
        let panel = &mut keys[place / PANEL * self.keys.numbers()..][..self.keys.numbers()];
        for (i, number) in numbers.iter().enumerate() {
            panel[self.keys.at(first + i, place % PANEL)] = *number;
        }
    }

    /// Writes a token's value, starting at channel `first`, a multiple of sixteen.
    fn put_value<const BYTES: usize>(
        &self,
        values: &mut [[u8; BYTES]],
        place: usize,
        first: usize,
        numbers: &[[u8; BYTES]],
    ) {
        let panels = values[first / PANEL * self.values.numbers()..].chunks_exact_mut(self.values.numbers());
        for (numbers, panel) in numbers.chunks(PANEL).zip(panels) {
            for (i, number) in numbers.iter().enumerate() {
                panel[self.values.at(place, i)] = *number;
            }
        }
    }
}

/// Clears the values of one block and head that share a tile with the first `tokens` tokens, but come after them. The tiles
/// hold numbers of two bytes.
pub(super) fn clear_after(values: &mut [u8], tokens: usize) {
    let order = Order::tiles(KV_BLOCK_TOKENS);
    for panel in values.as_chunks_mut::<2>().0.chunks_exact_mut(order.numbers()) {
        for place in tokens..tokens.next_multiple_of(TILE_DEPTH) {
            for channel in 0..PANEL {
                panel[order.at(place, channel)] = [0; 2];
            }
        }
    }
}

/// Reinterprets integers as one-byte numbers.
fn numbers(row: &[i8]) -> &[[u8; 1]] {
    bytemuck::cast_slice::<i8, u8>(row).as_chunks().0
}
