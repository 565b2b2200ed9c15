//! Weights in int8, with one scale per output channel.

use std::ops::Range;

use glmbench_device::{DeviceError, HostTensor, Int8StaticWeight, Int8Weight, StaticChannel, StaticInput};

use crate::buffer::Buffer;
use crate::packs::{Packed, Packs};
use crate::pool::Pool;
use crate::simd::Vectors;

use super::{PANEL, QUAD, TILE_BYTES, TILE_K, padded_vector};

/// Maximum number of products of ±127 that fit a 32-bit sum.
const MOST_K: usize = i32::MAX as usize / (127 * 127);

/// A weight, by how its inputs are quantised.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    /// Per token.
    PerToken(Int8Weight<'a>),
    /// By a stored scale.
    Static(Int8StaticWeight<'a>),
}

impl Source<'_> {
    fn shape(&self) -> (usize, usize) {
        match self {
            Self::PerToken(int8) => (int8.rows, int8.width),
            Self::Static(int8) => (int8.rows, int8.width),
        }
    }

    /// Writes the integers of an output channel, and returns what turns their sum into a number.
    fn row(&self, row: usize, numbers: &mut [f32], out: &mut [i8]) -> StaticChannel {
        match self {
            Self::PerToken(int8) => StaticChannel { deq_scale: int8.row(row, numbers, out), quant_bias: 0 },
            Self::Static(int8) => int8.row(row, numbers, out),
        }
    }
}

/// A weight `[out, in]` in panels of sixteen output columns, each `[in/4][16][4]` with `in` padded to a multiple of 64.
/// Every 64 inputs are one tile of 1 KiB. The distance between panels is an odd number of tiles. This spreads the same
/// inputs of many panels over the sets of a cache.
#[derive(Debug)]
pub(crate) struct Int8Linear {
    /// Output width.
    pub(crate) n: usize,
    /// Input width.
    pub(crate) k: usize,
    /// Quantisation of the inputs; `None` if each token has a scale of its own.
    pub(crate) input: Option<StaticInput>,
    data: Packed<i8>,
    /// One scale per output channel.
    scales: Packed<f32>,
    /// One integer bias per output channel, for inputs with a stored scale.
    quant_bias: Option<Packed<i32>>,
    bias: Option<Buffer<f32>>,
}

impl Int8Linear {
    /// Packs `weight` `[n, k]`, one panel at a time, and rounds the bias to the type of `vectors`. Integers are stored
    /// with `offset` added, modulo 256. Each thread of the pool writes the parts that it will read.
    ///
    /// # Errors
    /// Rows are too long for 32-bit sums, or memory ran out.
    pub(crate) fn pack(
        weight: Source<'_>,
        bias: Option<HostTensor<'_>>,
        (vectors, offset): (Vectors, i32),
        (packs, pool): (&mut Packs, &mut Pool),
    ) -> Result<Self, DeviceError> {
        let (n, k) = weight.shape();
        if k > MOST_K {
            return Err(DeviceError::Unsupported {
                device: crate::NAME,
                problem: format!(
                    "a linear layer has {k} inputs, sums of int8 products hold {MOST_K} at most; use fp16"
                ),
            });
        }
        let panels = n.div_ceil(PANEL);
        let (padded, stride) = (k.next_multiple_of(TILE_K), panel_stride(k));
        let mut data = packs.take(panels * stride, "weights")?;
        let mut scales = packs.take(panels * PANEL, "weights")?;
        let input = if let Source::Static(weight) = weight { Some(weight.input) } else { None };
        let mut quant_bias = packs.take(if input.is_some() { panels * PANEL } else { 0 }, "weights")?;
        if let (Some(data), Some(scales), Some(quant_bias)) =
            (data.fresh(), scales.fresh(), quant_bias.fresh())
        {
            let (panels_of, scales_of, biases_of) = (data.shared(), scales.shared(), quant_bias.shared());
            pool.split(panels, n * k, &|range| {
                let (mut row, mut integers) = (vec![0.0; k], vec![0i8; padded]);
                for panel in range {
                    // SAFETY: every panel is written by one thread only.
                    let out = unsafe { panels_of.range(panel * stride..panel * stride + padded * PANEL) };
                    // SAFETY: as above.
                    let scales = unsafe { scales_of.range(panel * PANEL..(panel + 1) * PANEL) };
                    for (column, n) in (panel * PANEL..n.min((panel + 1) * PANEL)).enumerate() {
                        let channel = weight.row(n, &mut row, &mut integers[..k]);
                        scales[column] = channel.deq_scale;
                        if input.is_some() {
                            // SAFETY: as above.
                            let quant_bias = unsafe { biases_of.range(n..n + 1) };
                            quant_bias[0] = channel.quant_bias;
                        }
                        let quads =
                            integers.as_chunks::<QUAD>().0.iter().zip(out.chunks_exact_mut(QUAD * PANEL));
                        quads.for_each(|(quad, out)| {
                            let quad = quad.map(|q| q.wrapping_add(offset as i8));
                            out[column * QUAD..(column + 1) * QUAD].copy_from_slice(&quad);
                        });
                    }
                }
            });
        }
        packs.keep(&data);
        packs.keep(&scales);
        packs.keep(&quant_bias);
        let bias = bias.map(|b| padded_vector(b, vectors.dtype())).transpose()?;
        let quant_bias = input.is_some().then_some(quant_bias);
        Ok(Self { n, k, input, data, scales, quant_bias, bias })
    }

    /// Returns the size of a weight `[n, k]` with its scales, in bytes.
    pub(crate) fn bytes(n: usize, k: usize) -> usize {
        n.div_ceil(PANEL) * (panel_stride(k) + PANEL * size_of::<f32>())
    }

    /// Returns the size of the integer biases of a weight with `n` outputs, in bytes.
    pub(crate) fn quant_bias_bytes(n: usize) -> usize {
        n.next_multiple_of(PANEL) * size_of::<i32>()
    }

    /// Returns the number of panels.
    pub(crate) fn panels(&self) -> usize {
        self.n.div_ceil(PANEL)
    }

    /// Returns the number of tiles of depth.
    pub(crate) fn depth(&self) -> usize {
        self.k.div_ceil(TILE_K)
    }

    /// Returns the scales of `columns`.
    pub(crate) fn scales(&self, columns: Range<usize>) -> &[f32] {
        &self.scales[columns]
    }

    /// Returns the integer biases of `columns`; `None` if each token has a scale of its own.
    pub(crate) fn quant_bias(&self, columns: Range<usize>) -> Option<&[i32]> {
        self.quant_bias.as_ref().map(|bias| &bias[columns])
    }

    /// Returns the bias of `columns`, which are whole panels.
    pub(crate) fn bias(&self, columns: Range<usize>) -> Option<&[f32]> {
        self.bias.as_ref().map(|bias| &bias[columns])
    }

    /// Returns the numbers of a panel from depth tile `tile` on, and those of the panels after it.
    pub(crate) fn panels_from(&self, panel: usize, tile: usize) -> &[i8] {
        &self.data[panel * panel_stride(self.k) + tile * TILE_BYTES..]
    }

    /// Returns a range of depth tiles of a panel.
    pub(crate) fn tiles(&self, panel: usize, tiles: &Range<usize>) -> &[i8] {
        let begin = panel * panel_stride(self.k);
        &self.data[begin + tiles.start * TILE_BYTES..begin + tiles.end * TILE_BYTES]
    }
}

/// Returns the distance between panels, in numbers.
pub(crate) fn panel_stride(k: usize) -> usize {
    (k.div_ceil(TILE_K) | 1) * TILE_BYTES
}
