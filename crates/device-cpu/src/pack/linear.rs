//! Weight matrices in panels, in the type of the device.

use std::ops::Range;

use glmbench_device::{DType, DeviceError, HostTensor};

use crate::buffer::Buffer;
use crate::packs::{Packed, Packs};
use crate::pool::Pool;
use crate::simd::Vectors;

use super::{Narrow, Order, PAIR, PANEL, TILE_BYTES, TILE_DEPTH};

/// A weight `[out, in]` in panels of sixteen output columns. A panel is contiguous in memory, and so are the panels of
/// a thread.
#[derive(Debug)]
pub(crate) struct Linear {
    /// Output width.
    pub(crate) n: usize,
    /// Input width.
    pub(crate) k: usize,
    order: Order,
    dtype: DType,
    /// Numbers in the device's storage type, as bytes.
    data: Packed<u8>,
    bias: Option<Buffer<f32>>,
}

impl Linear {
    /// Packs `weight` `[n, k]` in `order`, rounded to the type of `vectors`. Each thread of the pool writes the parts
    /// that it will read.
    pub(crate) fn pack(
        weight: HostTensor<'_>,
        bias: Option<HostTensor<'_>>,
        order: Order,
        vectors: Vectors,
        (packs, pool): (&mut Packs, &mut Pool),
    ) -> Result<Self, DeviceError> {
        let (n, k, dtype) = (weight.rows, weight.width, vectors.dtype());
        let panels = n.div_ceil(PANEL);
        let panel_bytes = order.numbers() * dtype.bytes();
        let mut data = packs.take(Self::bytes(n, order, dtype), "weights")?;
        if let Some(shared) = data.fresh().map(Buffer::shared) {
            pool.split(panels, n * k, &|range| {
                let mut packer = Packer { weight, order, vectors, row: vec![0.0; k], rows: Vec::new() };
                for panel in range {
                    // SAFETY: every panel is written by one thread only.
                    let out = unsafe { shared.range(panel * panel_bytes..(panel + 1) * panel_bytes) };
                    packer.panel(panel * PANEL..n.min((panel + 1) * PANEL), out);
                }
            });
        }
        packs.keep(&data);
        let bias = bias.map(|b| padded_vector(b, dtype)).transpose()?;
        Ok(Self { n, k, order, dtype, data, bias })
    }

    /// Returns the size in bytes of a packed weight with `n` outputs.
    pub(crate) fn bytes(n: usize, order: Order, dtype: DType) -> usize {
        n.div_ceil(PANEL) * order.numbers() * dtype.bytes()
    }

    /// Returns a range of depth tiles of a panel in tiled layout.
    pub(crate) fn tiles(&self, panel: usize, tiles: &Range<usize>) -> &[u8] {
        let first = panel * self.order.depth() / TILE_DEPTH;
        &self.data[(first + tiles.start) * TILE_BYTES..(first + tiles.end) * TILE_BYTES]
    }

    /// Returns the numbers of a panel in row layout from input `k` on, and those of the panels after it.
    pub(crate) fn rows(&self, panel: usize, k: usize) -> &[u8] {
        &self.data[(panel * self.order.numbers() + k * PANEL) * self.dtype.bytes()..]
    }

    /// Returns the bias of `columns`, which are whole panels.
    pub(crate) fn bias(&self, columns: Range<usize>) -> Option<&[f32]> {
        self.bias.as_ref().map(|bias| &bias[columns])
    }
}

/// Packs panels of one weight.
struct Packer<'a> {
    weight: HostTensor<'a>,
    order: Order,
    vectors: Vectors,
    /// A row of the weight in fp32.
    row: Vec<f32>,
    /// A panel's rows in the device's type, if the weight has another type.
    rows: Vec<u8>,
}

impl Packer<'_> {
    /// Packs the weight's rows `rows` as columns of the zeroed panel `out`.
    fn panel(&mut self, rows: Range<usize>, out: &mut [u8]) {
        let bytes = self.weight.width * self.vectors.dtype().bytes();
        let stored = if self.vectors.dtype() == self.weight.dtype {
            &self.weight.data[rows.start * bytes..rows.end * bytes]
        } else {
            self.convert(rows);
            &self.rows
        };
        match self.vectors.dtype().bytes() {
            2 => self.place::<2>(stored, out),
            _ => self.place::<4>(stored, out),
        }
    }

    /// Converts rows of the weight to the device type.
    fn convert(&mut self, rows: Range<usize>) {
        let bytes = self.weight.width * self.vectors.dtype().bytes();
        self.rows.resize(rows.len() * bytes, 0);
        for (row, out) in rows.zip(self.rows.chunks_exact_mut(bytes)) {
            self.weight.row_f32(row, &mut self.row);
            self.vectors.run(Narrow { from: &self.row, to: out });
        }
    }

    /// Packs numbers that already have the device's type.
    fn place<const BYTES: usize>(&self, stored: &[u8], out: &mut [u8]) {
        let (stored, out) = (stored.as_chunks::<BYTES>().0, out.as_chunks_mut::<BYTES>().0);
        match self.order.together() {
            1 => transpose::<BYTES, 1>(stored, self.weight.width, out),
            _ => transpose::<BYTES, PAIR>(stored, self.weight.width, out),
        }
    }
}

/// Transposes rows of `k` numbers into a panel with `TOGETHER` inputs side by side. It handles a short stretch of all
/// rows at a time, so that the stretch of the panel stays in the first-level cache.
fn transpose<const BYTES: usize, const TOGETHER: usize>(
    rows: &[[u8; BYTES]],
    k: usize,
    panel: &mut [[u8; BYTES]],
) {
    const STRETCH: usize = 64;
    for (stretch, out) in panel.chunks_mut(STRETCH * PANEL).enumerate() {
        for (i, row) in rows.chunks_exact(k).enumerate() {
            let row = &row[k.min(stretch * STRETCH)..k.min((stretch + 1) * STRETCH)];
            let (whole, rest) = row.as_chunks::<TOGETHER>();
            let mut places = out.chunks_exact_mut(PANEL * TOGETHER);
            for (numbers, place) in whole.iter().zip(&mut places) {
                place.as_chunks_mut::<TOGETHER>().0[i] = *numbers;
            }
            if let Some(place) = places.next() {
                place[i * TOGETHER..][..rest.len()].copy_from_slice(rest);
            }
        }
    }
}

/// Converts a vector to fp32, rounded to `dtype` and padded to sixteen numbers.
pub(crate) fn padded_vector(values: HostTensor<'_>, dtype: DType) -> Result<Buffer<f32>, DeviceError> {
    let values = values.to_f32();
    let mut out = Buffer::zeroed(values.len().next_multiple_of(PANEL), "a vector")?;
    for (o, v) in out.iter_mut().zip(values) {
        *o = dtype.round(v);
    }
    Ok(out)
}
