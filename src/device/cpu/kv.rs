//! The paged KV cache.
//!
//! A block holds 128 tokens of one layer and KV head as GEMM panels: keys as eight panels `[channels][16 tokens]`, values
//! as panels `[128 tokens][16 channels]`. Scores and weighted sums are then the very product of the linear layers, with
//! the query heads that share a KV head as its rows: the cache is read once for all of them. Keys and values in int8 lie in the
//! same order, with a scale for each token beside them, and are made numbers again a block at a time.

use crate::device::{DeviceError, KV_BLOCK_TOKENS, KvForm, KvShape, Precision};

use super::buffer::Buffer;
use super::int8::Int8Kernels;
use super::kernels::{Kernels, PANEL};

/// Keys and values of all layers.
#[derive(Debug)]
pub struct KvCache {
    shape: KvShape,
    /// Bytes of a number.
    bytes: usize,
    keys: Buffer<u8>,
    values: Buffer<u8>,
    int8: Option<Int8>,
}

/// What goes with keys and values in int8.
#[derive(Debug)]
struct Int8 {
    kernels: Int8Kernels,
    /// A scale for each token of each block and head.
    key_scales: Buffer<f32>,
    value_scales: Buffer<f32>,
    /// A head's channels as integers, while they are written.
    row: Vec<i8>,
}

/// Panels of one block and head.
#[derive(Debug, Clone, Copy)]
pub enum Panels<'a> {
    /// In the type of the device.
    Stored(&'a [u8]),
    /// In int8, with a scale for each token.
    Int8(&'a [i8], &'a [f32]),
}

impl KvCache {
    /// An empty cache.
    pub fn new(shape: KvShape, precision: Precision, kernels: Int8Kernels) -> Result<Self, DeviceError> {
        let heads = shape.layers * shape.blocks * shape.kv_heads;
        let tokens = heads * KV_BLOCK_TOKENS;
        let scales = || Buffer::zeroed(tokens, "the KV cache");
        let (bytes, int8) = match precision.kv {
            KvForm::Auto => (precision.dtype.bytes(), None),
            KvForm::Int8 => {
                let row = vec![0; shape.channels];
                (1, Some(Int8 { kernels, key_scales: scales()?, value_scales: scales()?, row }))
            }
        };
        let padded = shape.channels.next_multiple_of(PANEL);
        Ok(Self {
            shape,
            bytes,
            keys: Buffer::zeroed(tokens * shape.channels * bytes, "the KV cache")?,
            values: Buffer::zeroed(tokens * padded * bytes, "the KV cache")?,
            int8,
        })
    }

    /// Which of the `(layer, block, head)` triples, in memory order.
    pub fn index(&self, layer: usize, block: usize, head: usize) -> usize {
        (layer * self.shape.blocks + block) * self.shape.kv_heads + head
    }

    /// Bytes of the keys of one block and head.
    fn key_bytes(&self) -> usize {
        KV_BLOCK_TOKENS * self.shape.channels * self.bytes
    }

    /// Bytes of the values of one block and head.
    fn value_bytes(&self) -> usize {
        KV_BLOCK_TOKENS * self.shape.channels.next_multiple_of(PANEL) * self.bytes
    }

    /// Keys of one block and head ([`KvCache::index`]), eight panels.
    pub fn keys(&self, at: usize) -> Panels<'_> {
        let stored = &self.keys[at * self.key_bytes()..(at + 1) * self.key_bytes()];
        panels(stored, at, self.int8.as_ref().map(|int8| &*int8.key_scales))
    }

    /// Values of one block and head ([`KvCache::index`]), a panel for sixteen channels.
    pub fn values(&self, at: usize) -> Panels<'_> {
        let stored = &self.values[at * self.value_bytes()..(at + 1) * self.value_bytes()];
        panels(stored, at, self.int8.as_ref().map(|int8| &*int8.value_scales))
    }

    /// Writes one token's key and value of one head (numbers already representable in the type).
    pub fn write(
        &mut self,
        layer: usize,
        (block, place): (usize, usize),
        head: usize,
        key: &[f32],
        value: &[f32],
        kernels: &Kernels,
    ) {
        let at = self.index(layer, block, head);
        let (keys_at, values_at) = (at * self.key_bytes(), at * self.value_bytes());
        let keys_at = keys_at + place / PANEL * self.shape.channels * PANEL * self.bytes;
        let (lane, bytes) = (place % PANEL, self.bytes);
        if let Some(int8) = &mut self.int8 {
            let token = at * KV_BLOCK_TOKENS + place;
            int8.key_scales[token] = int8.quantise(key);
            for (channel, q) in int8.row.iter().enumerate() {
                self.keys[keys_at + channel * PANEL + lane] = *q as u8;
            }
            int8.value_scales[token] = int8.quantise(value);
            for (panel, q) in int8.row.chunks(PANEL).enumerate() {
                let at = values_at + (panel * KV_BLOCK_TOKENS + place) * PANEL;
                self.values[at..at + q.len()].copy_from_slice(bytemuck::cast_slice(q));
            }
            return;
        }
        let mut stored = [0u8; 4 * PANEL];
        for first in (0..self.shape.channels).step_by(PANEL) {
            let n = PANEL.min(self.shape.channels - first);
            // SAFETY: at most sixteen numbers of at most 4 bytes.
            unsafe { (kernels.narrow)(key[first..first + n].as_ptr(), stored.as_mut_ptr(), n) };
            for (i, number) in stored[..n * bytes].chunks_exact(bytes).enumerate() {
                let at = keys_at + ((first + i) * PANEL + lane) * bytes;
                self.keys[at..at + bytes].copy_from_slice(number);
            }
            let at = values_at + (first / PANEL * KV_BLOCK_TOKENS + place) * PANEL * bytes;
            let out = &mut self.values[at..at + n * bytes];
            // SAFETY: `n` numbers on both sides.
            unsafe { (kernels.narrow)(value[first..first + n].as_ptr(), out.as_mut_ptr(), n) };
        }
    }
}

impl Int8 {
    /// A head's channels to integers in `row`; their scale.
    fn quantise(&mut self, x: &[f32]) -> f32 {
        // SAFETY: the kernels belong to this machine.
        unsafe { (self.kernels.quantise)(x, &mut self.row) }.scale
    }
}

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
