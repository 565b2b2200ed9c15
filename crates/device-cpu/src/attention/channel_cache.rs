//! An int8 cache with one scale and offset per channel, which a checkpoint stores ("C8").
//!
//! Integers have the layout of the other int8 cache for vectors. A channel is a row of a panel of keys and a column of a
//! panel of values. The vector kernels dequantise a block at a time, in every family.

use glmbench_device::{DeviceError, KvChannel, KvChannels, KvShape};

use crate::buffer::Buffer;
use crate::pack::PANEL;
use crate::simd::{Element, Isa, Kernel, Simd16};

use super::WHAT;

/// Scales and offsets of the channels of a head, padded to whole panels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadChannels<'a> {
    pub(super) scales: &'a [f32],
    pub(super) offsets: &'a [f32],
}

/// Scales and offsets of the keys, or of the values, of all layers and heads.
#[derive(Debug)]
pub(super) struct Planes {
    kv_heads: usize,
    /// Channels of a head, padded to whole panels.
    padded: usize,
    scales: Buffer<f32>,
    offsets: Buffer<f32>,
}

impl Planes {
    /// Copies the channels of the keys and of the values.
    pub(super) fn both(shape: KvShape, channels: &KvChannels) -> Result<[Self; 2], DeviceError> {
        let mut keys = Self::new(shape)?;
        let mut values = Self::new(shape)?;
        for (layer, of) in channels.layers().iter().enumerate() {
            keys.fill(layer, shape.channels, &of.keys);
            values.fill(layer, shape.channels, &of.values);
        }
        Ok([keys, values])
    }

    fn new(shape: KvShape) -> Result<Self, DeviceError> {
        let padded = shape.channels.next_multiple_of(PANEL);
        let numbers = || Buffer::zeroed(shape.layers * shape.kv_heads * padded, WHAT);
        Ok(Self { kv_heads: shape.kv_heads, padded, scales: numbers()?, offsets: numbers()? })
    }

    fn fill(&mut self, layer: usize, width: usize, channels: &[KvChannel]) {
        for (head, channels) in channels.chunks_exact(width).enumerate() {
            let at = (layer * self.kv_heads + head) * self.padded;
            for (i, channel) in channels.iter().enumerate() {
                self.scales[at + i] = channel.scale;
                self.offsets[at + i] = channel.offset;
            }
        }
    }

    /// Returns the channels of a head.
    pub(super) fn of(&self, layer: usize, head: usize) -> HeadChannels<'_> {
        let at = (layer * self.kv_heads + head) * self.padded;
        let head = at..at + self.padded;
        HeadChannels { scales: &self.scales[head.clone()], offsets: &self.offsets[head] }
    }
}

/// Quantises the numbers of one head, channel by channel.
pub(super) struct QuantiseChannels<'a> {
    pub(super) x: &'a [f32],
    pub(super) by: HeadChannels<'a>,
    pub(super) out: &'a mut [i8],
}

impl Kernel for QuantiseChannels<'_> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::manual_clamp, reason = "of NaN and a number, `max` is the number; `clamp` keeps NaN")]
    fn run<I: Isa, E: Element>(self, _isa: I) {
        let channels = self.by.scales.iter().zip(self.by.offsets);
        for ((q, x), (scale, offset)) in self.out.iter_mut().zip(self.x).zip(channels) {
            let whole = (x / scale + offset).round_ties_even().max(-128.0).min(127.0);
            // SAFETY: an integer from -128 to 127: of NaN and a number, `max` is the number.
            *q = unsafe { whole.to_int_unchecked::<i32>() } as i8;
        }
    }
}

/// Dequantises a panel of keys `[channels][16]`.
pub(super) struct WidenKeys<'a> {
    pub(super) q: &'a [i8],
    pub(super) by: HeadChannels<'a>,
    pub(super) out: &'a mut [f32],
}

impl Kernel for WidenKeys<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, isa: I) {
        let rows = self.q.as_chunks::<PANEL>().0.iter().zip(self.out.as_chunks_mut::<PANEL>().0);
        for ((q, out), (scale, offset)) in rows.zip(self.by.scales.iter().zip(self.by.offsets)) {
            isa.load_i8(q).sub(isa.splat(*offset)).mul(isa.splat(*scale)).store(out);
        }
    }
}

/// Dequantises the first `tokens` rows of a panel of values `[tokens][16]`, which begins with a channel.
pub(super) struct WidenValues<'a> {
    pub(super) q: &'a [i8],
    pub(super) by: HeadChannels<'a>,
    pub(super) first: usize,
    pub(super) tokens: usize,
    pub(super) out: &'a mut [f32],
}

impl Kernel for WidenValues<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, isa: I) {
        let of = |numbers: &[f32]| isa.load_part(&numbers[self.first..][..PANEL]);
        let (scales, offsets) = (of(self.by.scales), of(self.by.offsets));
        let rows = self.q.as_chunks::<PANEL>().0.iter().zip(self.out.as_chunks_mut::<PANEL>().0);
        for (q, out) in rows.take(self.tokens) {
            isa.load_i8(q).sub(offsets).mul(scales).store(out);
        }
    }
}
