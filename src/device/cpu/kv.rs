//! The paged KV cache.
//!
//! A block holds 128 tokens of one layer and KV head as panels of sixteen columns: keys as eight panels of 16 tokens, whose depth
//! is the channels, values as panels of 16 channels, whose depth is the tokens. Scores and weighted sums are then the very
//! product of the linear layers, with the query heads that share a KV head as its rows: the cache is read once for all of them.
//! A panel lies as [`Order`] has it, in tiles where the kernels multiply by tiles.
//!
//! Keys and values in int8 have a scale for each token beside them. Keys lie in tiles of integers where such tiles multiply them.
//! Values lie the same way for all kernels: the vector kernels make them numbers again a block at a time, as they do with keys, and
//! for tiles they are widened.

use crate::device::{DeviceError, KV_BLOCK_TOKENS, KvForm, KvShape, Precision};

use super::buffer::{Buffer, SharedSlice};
use super::int8::{Int8Kernels, Multiply};
use super::kernels::{Kernels, PANEL};
use super::linear::Order;
use super::tiles::{IntegerKernels, TILE_DEPTH, TileKernels, TileUnit};

/// Keys and values of all layers.
#[derive(Debug)]
pub struct KvCache {
    layout: Layout,
    keys: Buffer<u8>,
    values: Buffer<u8>,
    int8: Option<Int8>,
}

/// Where things lie.
#[derive(Debug, Clone, Copy)]
struct Layout {
    shape: KvShape,
    /// Bytes of a number.
    bytes: usize,
    /// A panel of keys.
    keys: Order,
    /// A panel of values.
    values: Order,
    /// Values lie in tiles of the device's type.
    tiles: bool,
}

/// What goes with keys and values in int8.
#[derive(Debug)]
struct Int8 {
    kernels: Int8Kernels,
    /// A scale for each token of each block and head.
    key_scales: Buffer<f32>,
    value_scales: Buffer<f32>,
    /// The channels of each head as integers, while they are written.
    rows: Buffer<i8>,
}

/// Panels of one block and head.
#[derive(Debug, Clone, Copy)]
pub enum Panels<'a> {
    /// In the type of the device.
    Stored(&'a [u8]),
    /// In int8, with a scale for each token.
    Int8(&'a [i8], &'a [f32]),
}

impl<'a> Panels<'a> {
    /// What is read when they are: the scales, which come first, and the numbers.
    pub fn bytes(self) -> [&'a [u8]; 2] {
        match self {
            Self::Stored(bytes) => [&[], bytes],
            Self::Int8(numbers, scales) => [bytemuck::cast_slice(scales), bytemuck::cast_slice(numbers)],
        }
    }

    /// Numbers of the device's type, as a cache of that type has them.
    pub fn stored(self) -> &'a [u8] {
        let Self::Stored(bytes) = self else {
            unreachable!("invariant: kernels are given the cache that they are for")
        };
        bytes
    }

    /// Integers and the tokens' scales, as a cache of integers has them.
    pub fn integers(self) -> (&'a [i8], &'a [f32]) {
        let Self::Int8(numbers, scales) = self else {
            unreachable!("invariant: kernels are given the cache that they are for")
        };
        (numbers, scales)
    }
}

/// Who multiplies a cache, which decides how it lies.
#[derive(Debug, Clone, Copy)]
pub enum CacheKernels {
    /// The vector kernels.
    Vector,
    /// The tiles of the device's type.
    Tiles(TileKernels),
    /// Tiles for integers: of values, and of keys.
    Int8Tiles(IntegerKernels, TileUnit<i32>),
}

impl CacheKernels {
    /// For a cache of this precision: tiles where the kernels have them.
    pub fn new(precision: Precision, kernels: &Kernels, int8: &Int8Kernels) -> Self {
        match (precision.kv, kernels.tiles, int8.multiply) {
            (KvForm::Auto, Some(tiles), _) => Self::Tiles(tiles),
            (KvForm::Int8, Some(tiles), Multiply::Tiles(of_keys)) => Self::Int8Tiles(tiles.integers, of_keys),
            _ => Self::Vector,
        }
    }
}

impl Layout {
    fn new(shape: KvShape, precision: Precision, kernels: &CacheKernels) -> Self {
        let bytes = match precision.kv {
            KvForm::Auto => precision.dtype.bytes(),
            KvForm::Int8 => 1,
        };
        let tiles = if let CacheKernels::Tiles(tiles) = kernels { Some(tiles) } else { None };
        let keys = match kernels {
            CacheKernels::Int8Tiles(..) => Order::integers(shape.channels),
            _ => Order::new(shape.channels, tiles),
        };
        Self { shape, bytes, keys, values: Order::new(KV_BLOCK_TOKENS, tiles), tiles: tiles.is_some() }
    }

    /// `(layer, block, head)` triples.
    fn heads(&self) -> usize {
        self.shape.layers * self.shape.blocks * self.shape.kv_heads
    }

    /// Which of them, in memory order.
    fn index(&self, layer: usize, block: usize, head: usize) -> usize {
        (layer * self.shape.blocks + block) * self.shape.kv_heads + head
    }

    /// Bytes of the keys of one block and head.
    fn key_bytes(&self) -> usize {
        KV_BLOCK_TOKENS / PANEL * self.keys.numbers() * self.bytes
    }

    /// Bytes of the values of one block and head.
    fn value_bytes(&self) -> usize {
        self.shape.channels.div_ceil(PANEL) * self.values.numbers() * self.bytes
    }
}

impl KvCache {
    /// An empty cache.
    pub fn new(
        shape: KvShape,
        precision: Precision,
        kernels: &Kernels,
        int8: Int8Kernels,
    ) -> Result<Self, DeviceError> {
        let layout = Layout::new(shape, precision, &CacheKernels::new(precision, kernels, &int8));
        let scales = || Buffer::zeroed(layout.heads() * KV_BLOCK_TOKENS, WHAT);
        let int8 = match precision.kv {
            KvForm::Auto => None,
            KvForm::Int8 => Some(Int8 {
                kernels: int8,
                key_scales: scales()?,
                value_scales: scales()?,
                rows: Buffer::zeroed(shape.kv_heads * shape.channels, WHAT)?,
            }),
        };
        let keys = Buffer::zeroed(layout.heads() * layout.key_bytes(), WHAT)?;
        let values = Buffer::zeroed(layout.heads() * layout.value_bytes(), WHAT)?;
        Ok(Self { layout, keys, values, int8 })
    }

    /// Bytes of a block of one layer and head.
    pub fn block_bytes(channels: usize, precision: Precision, kernels: &CacheKernels) -> usize {
        let layout = Layout::new(KvShape { layers: 1, kv_heads: 1, channels, blocks: 1 }, precision, kernels);
        let scales = match precision.kv {
            KvForm::Auto => 0,
            KvForm::Int8 => 2 * KV_BLOCK_TOKENS * size_of::<f32>(),
        };
        layout.key_bytes() + layout.value_bytes() + scales
    }

    /// Which of the `(layer, block, head)` triples, in memory order.
    pub fn index(&self, layer: usize, block: usize, head: usize) -> usize {
        self.layout.index(layer, block, head)
    }

    /// Keys of one block and head ([`KvCache::index`]), eight panels.
    pub fn keys(&self, at: usize) -> Panels<'_> {
        let bytes = self.layout.key_bytes();
        panels(&self.keys[at * bytes..(at + 1) * bytes], at, self.int8.as_ref().map(|i| &*i.key_scales))
    }

    /// Values of one block and head ([`KvCache::index`]), a panel for sixteen channels.
    pub fn values(&self, at: usize) -> Panels<'_> {
        let bytes = self.layout.value_bytes();
        panels(&self.values[at * bytes..(at + 1) * bytes], at, self.int8.as_ref().map(|i| &*i.value_scales))
    }

    /// A handle through which threads write, each its own heads.
    pub fn writer<'a>(&'a mut self, kernels: &'a Kernels) -> Writer<'a> {
        let int8 = self.int8.as_mut().map(|int8| Int8Writer {
            kernels: int8.kernels,
            key_scales: int8.key_scales.shared(),
            value_scales: int8.value_scales.shared(),
            rows: int8.rows.shared(),
        });
        let (keys, values) = (self.keys.shared(), self.values.shared());
        Writer { layout: self.layout, kernels, keys, values, int8 }
    }
}

/// What the memory is for.
const WHAT: &str = "the KV cache";

/// The panels of block and head `at`, given their scales where there are any.
fn panels<'a>(stored: &'a [u8], at: usize, scales: Option<&'a [f32]>) -> Panels<'a> {
    match scales {
        None => Panels::Stored(stored),
        Some(scales) => {
            let of_block = &scales[at * KV_BLOCK_TOKENS..(at + 1) * KV_BLOCK_TOKENS];
            Panels::Int8(bytemuck::cast_slice(stored), of_block)
        }
    }
}

/// Writes tokens into a cache.
#[derive(Debug)]
pub struct Writer<'a> {
    layout: Layout,
    kernels: &'a Kernels,
    keys: SharedSlice<'a, u8>,
    values: SharedSlice<'a, u8>,
    int8: Option<Int8Writer<'a>>,
}

#[derive(Debug)]
struct Int8Writer<'a> {
    kernels: Int8Kernels,
    key_scales: SharedSlice<'a, f32>,
    value_scales: SharedSlice<'a, f32>,
    rows: SharedSlice<'a, i8>,
}

impl Writer<'_> {
    /// Writes one token's key and value of one head (numbers already representable in the type). A sequence's tokens are
    /// written in order: values in tiles are multiplied 32 tokens at a time, so the first of these clears the places of the
    /// others, in which another sequence may have left numbers that times zero are none. Integers are never such, and a value
    /// that is spoilt spoils its token's key instead: whoever sees the token has a score that is none, and nobody else has
    /// anything of it.
    ///
    /// # Safety
    /// No two threads may write tokens of the same layer and head at a time.
    pub unsafe fn write(
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
            let (row, key_scale, value_scale) = unsafe {
                let row = int8.rows.range(head * channels..(head + 1) * channels);
                let token = token..token + 1;
                (row, int8.key_scales.range(token.clone()), int8.value_scales.range(token))
            };
            // SAFETY: the kernels belong to this machine.
            key_scale[0] = unsafe { (int8.kernels.quantise)(key, row) }.scale;
            layout.put_key(keys.as_chunks_mut().0, place, 0, numbers(row));
            // SAFETY: as above.
            value_scale[0] = unsafe { (int8.kernels.quantise)(value, row) }.scale;
            layout.put_value(values.as_chunks_mut().0, place, 0, numbers(row));
            if value_scale[0].is_nan() {
                (key_scale[0], value_scale[0]) = (f32::NAN, 0.0);
            }
        } else if layout.bytes == 2 {
            self.put::<2>(keys, values, place, key, value);
        } else {
            self.put::<4>(keys, values, place, key, value);
        }
    }

    /// Writes a token's numbers of `BYTES` bytes.
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

    /// Up to sixteen numbers as they are stored.
    fn narrowed<const BYTES: usize>(&self, numbers: &[f32]) -> [[u8; BYTES]; PANEL] {
        let mut stored = [[0; BYTES]; PANEL];
        let to = stored[..numbers.len()].as_mut_ptr().cast();
        // SAFETY: as many numbers on both sides, of the device's type.
        unsafe { (self.kernels.narrow)(numbers.as_ptr(), to, numbers.len()) };
        stored
    }
}

impl Layout {
    /// Writes a token's key from channel `first` on.
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

    /// Writes a token's value from channel `first` on, a multiple of sixteen.
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

/// Integers as numbers of a byte.
fn numbers(row: &[i8]) -> &[[u8; 1]] {
    bytemuck::cast_slice::<i8, u8>(row).as_chunks().0
}
