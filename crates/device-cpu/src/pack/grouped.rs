//! Integer weights in panels, with one scale per output channel and group of inputs.
//!
//! A panel of sixteen output columns holds its groups one after the other. A group holds lines of eight inputs, the last
//! one padded with the integer zero, then sixteen fp32 scales. So a panel is read from memory as one stream.

use std::ops::Range;

use glmbench_device::{DeviceError, HostTensor, Int4Weight, Int8Weight};

use crate::buffer::{Buffer, LINE_BYTES};
use crate::packs::{Packed, Packs};
use crate::pool::Pool;
use crate::simd::Vectors;

use super::{PANEL, padded_vector};

/// Inputs per line.
pub(crate) const LINE: usize = 8;
/// Bytes of the scales of a group.
const SCALE_BYTES: usize = PANEL * size_of::<f32>();

/// How the integers of a line are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// int8, input by input: `[8][16]`.
    Bytes,
    /// int4, eight to a lane of 32 bits: `[16][8]`, the first in the lowest bits.
    Lanes,
    /// int4 plus 8: `[16][4]` bytes with input `j` in the low half and input `j + 4` in the high half.
    Halves,
}

impl Packing {
    /// Returns the size of a line in bytes.
    pub(crate) const fn line_bytes(self) -> usize {
        match self {
            Self::Bytes => LINE * PANEL,
            Self::Lanes | Self::Halves => LINE * PANEL / 2,
        }
    }

    /// Writes a column's integers of a line.
    fn put(self, integers: [i8; LINE], column: usize, line: &mut [u8]) {
        match self {
            Self::Bytes => {
                for (place, q) in line.chunks_exact_mut(PANEL).zip(integers) {
                    place[column] = q as u8;
                }
            }
            Self::Lanes => {
                let lane = integers.iter().rev().fold(0u32, |lane, q| lane << 4 | u32::from(*q as u8 & 15));
                line[4 * column..][..4].copy_from_slice(&lane.to_le_bytes());
            }
            Self::Halves => {
                let above = |q: i8| (q + 8) as u8;
                for (j, byte) in line[4 * column..][..4].iter_mut().enumerate() {
                    *byte = above(integers[j]) | above(integers[j + 4]) << 4;
                }
            }
        }
    }
}

/// The layout of a panel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Groups {
    /// Inputs.
    k: usize,
    /// Inputs per group; the last group may have fewer.
    group: usize,
    packing: Packing,
    // Kept, because the loops of products cannot afford divisions.
    count: usize,
    group_bytes: usize,
    panel_bytes: usize,
}

impl Groups {
    /// Creates the layout for `k` inputs in groups of `group`.
    pub(crate) fn new(k: usize, group: usize, packing: Packing) -> Self {
        let group = group.clamp(1, k.max(1));
        let bytes = |inputs: usize| inputs.div_ceil(LINE) * packing.line_bytes() + SCALE_BYTES;
        let (count, group_bytes) = (k.div_ceil(group), bytes(group));
        let before = count.saturating_sub(1);
        // An odd number of cache lines spreads the panels over the sets of a cache.
        let panel_bytes =
            (((before * group_bytes + bytes(k - before * group)) / LINE_BYTES) | 1) * LINE_BYTES;
        Self { k, group, packing, count, group_bytes, panel_bytes }
    }

    /// Returns the number of inputs.
    pub(crate) fn k(&self) -> usize {
        self.k
    }

    /// Returns the number of groups.
    #[inline(always)]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Returns the number of inputs of a group that is not the last.
    pub(crate) fn group(&self) -> usize {
        self.group
    }

    /// Returns the inputs of a group.
    #[inline(always)]
    pub(crate) fn inputs(&self, group: usize) -> Range<usize> {
        group * self.group..self.k.min((group + 1) * self.group)
    }

    /// Returns the offset of a group in its panel, in bytes.
    #[inline(always)]
    pub(crate) fn at(&self, group: usize) -> usize {
        group * self.group_bytes
    }

    /// Returns the bytes of the integers of a group of `inputs` inputs: the offset of its scales.
    #[inline(always)]
    pub(crate) fn integer_bytes(&self, inputs: usize) -> usize {
        inputs.div_ceil(LINE) * self.packing.line_bytes()
    }

    /// Returns the bytes of a panel.
    #[inline(always)]
    pub(crate) fn panel_bytes(&self) -> usize {
        self.panel_bytes
    }
}

/// A weight with integers of its own, row by row.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rows<'a> {
    /// int8, one group.
    Int8(Int8Weight<'a>),
    /// int4.
    Int4(Int4Weight<'a>),
}

impl Rows<'_> {
    fn shape(&self) -> (usize, usize) {
        match self {
            Self::Int8(int8) => (int8.rows, int8.width),
            Self::Int4(int4) => (int4.rows, int4.width),
        }
    }

    fn group(&self) -> usize {
        match self {
            Self::Int8(int8) => int8.width,
            Self::Int4(int4) => int4.group,
        }
    }

    fn row(&self, row: usize, numbers: &mut [f32], integers: &mut [i8], scales: &mut [f32]) {
        match self {
            Self::Int8(int8) => scales[0] = int8.row(row, numbers, integers),
            Self::Int4(int4) => int4.row(row, numbers, integers, scales),
        }
    }
}

/// A weight `[out, in]` in panels, with its bias.
#[derive(Debug)]
pub(crate) struct GroupedLinear {
    /// Output width.
    pub(crate) n: usize,
    /// The layout of a panel.
    pub(crate) groups: Groups,
    data: Packed<u8>,
    bias: Option<Buffer<f32>>,
}

impl GroupedLinear {
    /// Packs a weight, one panel at a time, and rounds the bias to the type of `vectors`. Each thread of the pool writes
    /// the parts that it will read.
    ///
    /// # Errors
    /// Memory ran out.
    pub(crate) fn pack(
        weight: Rows<'_>,
        packing: Packing,
        bias: Option<HostTensor<'_>>,
        vectors: Vectors,
        (packs, pool): (&mut Packs, &mut Pool),
    ) -> Result<Self, DeviceError> {
        let (n, k) = weight.shape();
        let groups = Groups::new(k, weight.group(), packing);
        let panel_bytes = groups.panel_bytes();
        let mut data = packs.take(Self::bytes(n, groups), "weights")?;
        if let Some(shared) = data.fresh().map(Buffer::shared) {
            pool.split(n.div_ceil(PANEL), n * k, &|panels| {
                let (mut numbers, mut integers) = (vec![0.0; k], vec![0; k]);
                let mut scales = vec![0.0; groups.count()];
                for panel in panels {
                    // SAFETY: every panel is written by one thread only.
                    let out = unsafe { shared.range(panel * panel_bytes..(panel + 1) * panel_bytes) };
                    for (column, row) in (panel * PANEL..n.min((panel + 1) * PANEL)).enumerate() {
                        weight.row(row, &mut numbers, &mut integers, &mut scales);
                        put(&groups, &integers, &scales, column, out);
                    }
                }
            });
        }
        packs.keep(&data);
        let bias = bias.map(|b| padded_vector(b, vectors.dtype())).transpose()?;
        Ok(Self { n, groups, data, bias })
    }

    /// Returns the size in bytes of a packed weight with `n` outputs.
    pub(crate) fn bytes(n: usize, groups: Groups) -> usize {
        n.div_ceil(PANEL) * groups.panel_bytes()
    }

    /// Returns the bytes of a panel, and those of the panels after it.
    pub(crate) fn panels_from(&self, panel: usize) -> &[u8] {
        &self.data[panel * self.groups.panel_bytes()..]
    }

    /// Returns the bias of `columns`, which are whole panels.
    pub(crate) fn bias(&self, columns: Range<usize>) -> Option<&[f32]> {
        self.bias.as_ref().map(|bias| &bias[columns])
    }
}

/// Writes a column of a panel.
fn put(groups: &Groups, integers: &[i8], scales: &[f32], column: usize, panel: &mut [u8]) {
    let line_bytes = groups.packing.line_bytes();
    for (group, scale) in scales.iter().enumerate() {
        let integers = &integers[groups.inputs(group)];
        let (lines, rest) = panel[groups.at(group)..].split_at_mut(groups.integer_bytes(integers.len()));
        for (line, integers) in lines.chunks_exact_mut(line_bytes).zip(integers.chunks(LINE)) {
            let mut padded = [0; LINE];
            padded[..integers.len()].copy_from_slice(integers);
            groups.packing.put(padded, column, line);
        }
        rest[4 * column..][..4].copy_from_slice(&scale.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_hold_whole_lines_and_the_scales_of_every_group() {
        let groups = Groups::new(70, 35, Packing::Lanes);
        assert_eq!((groups.count(), groups.inputs(1)), (2, 35..70));
        // Five lines of 64 bytes and the scales.
        assert_eq!((groups.at(1), groups.panel_bytes()), (384, 13 * 64));
        let whole = Groups::new(70, 70, Packing::Bytes);
        assert_eq!((whole.count(), whole.integer_bytes(70), whole.panel_bytes()), (1, 9 * 128, 19 * 64));
        let ragged = Groups::new(130, 128, Packing::Halves);
        assert_eq!((ragged.count(), ragged.inputs(1).len(), ragged.panel_bytes()), (2, 2, 19 * 64));
    }

    #[test]
    fn a_line_holds_eight_inputs_of_every_column() {
        let integers = [-8, 7, 0, 1, -1, 2, -2, 3];
        let mut bytes = vec![0; Packing::Bytes.line_bytes()];
        Packing::Bytes.put(integers, 3, &mut bytes);
        assert_eq!(std::array::from_fn(|j| bytes[j * PANEL + 3] as i8), integers);
        let mut lanes = vec![0; Packing::Lanes.line_bytes()];
        Packing::Lanes.put(integers, 3, &mut lanes);
        assert_eq!(lanes[12..16], [0x78, 0x10, 0x2F, 0x3E]);
        let mut halves = vec![0; Packing::Halves.line_bytes()];
        Packing::Halves.put(integers, 3, &mut halves);
        assert_eq!(halves[12..16], [0x70, 0xAF, 0x68, 0xB9]);
    }
}
