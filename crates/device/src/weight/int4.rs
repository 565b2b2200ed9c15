//! int4 weights with one scale per output channel and group of inputs.

use super::{Count, HostTensor, Inputs, InvalidWeight, check_inputs, check_scales, quantise};

/// Inputs that share a scale when a dense weight is quantised at load, as in ModelSlim's W4A16.
pub const INT4_GROUP: usize = 128;

/// The largest integer of a dense weight that is quantised; -8 does not occur.
const LARGEST: f32 = 7.0;

/// An int4 weight: `w[n][k] = q[n][k] * scale[n][k / group]`, with `q` from -8 to 7.
#[derive(Debug, Clone, Copy)]
pub struct Int4Weight<'a> {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub width: usize,
    /// Inputs that share a scale; `width` for one scale per output channel. The last group of a row may have fewer.
    pub group: usize,
    /// How inputs enter the product.
    pub inputs: Inputs,
    integers: Integers<'a>,
}

/// Where the integers come from.
#[derive(Debug, Clone, Copy)]
enum Integers<'a> {
    /// Byte `j` of a row holds input `2j` in its high half and input `2j + 1` in its low half, both in two's complement.
    /// This is the order of THUDM's `chatglm2-6b-int4`.
    Packed { packed: &'a [u8], scales: &'a [f32] },
    /// One integer to a byte, as in ModelSlim's W4A16.
    Stored { integers: &'a [i8], scales: &'a [f32] },
    /// Quantised when a row is read.
    Rounded(HostTensor<'a>),
}

impl<'a> Int4Weight<'a> {
    /// Creates a weight from packed integers `[rows, width / 2]` and scales `[rows, width / group]`. Byte `j` of a row
    /// holds input `2j` in its high half and input `2j + 1` in its low half.
    ///
    /// # Errors
    /// A count does not fit the shape, the groups do not divide the inputs, or a scale is not a positive number. Or
    /// the inputs need a scale of their own.
    pub fn stored(
        rows: usize,
        width: usize,
        group: usize,
        packed: &'a [u8],
        scales: &'a [f32],
        inputs: Inputs,
    ) -> Result<Self, InvalidWeight> {
        if !width.is_multiple_of(2) {
            return Err(InvalidWeight::Group { group, width });
        }
        let count = Count { rows, width };
        check_groups(&count, group, scales, || {
            count.check("bytes of packed integers", packed.len(), rows * width / 2)
        })?;
        check_inputs(inputs)?;
        Ok(Self { rows, width, group, inputs, integers: Integers::Packed { packed, scales } })
    }

    /// Creates a weight from integers `[rows, width]`, one to a byte, and scales `[rows, width / group]`.
    ///
    /// # Errors
    /// As [`stored`](Self::stored); or an integer is not from -8 to 7.
    pub fn unpacked(
        rows: usize,
        width: usize,
        group: usize,
        integers: &'a [i8],
        scales: &'a [f32],
        inputs: Inputs,
    ) -> Result<Self, InvalidWeight> {
        let count = Count { rows, width };
        check_groups(&count, group, scales, || count.check("integers", integers.len(), rows * width))?;
        check_inputs(inputs)?;
        if let Some(at) = integers.iter().position(|q| !(-8..=7).contains(q)) {
            return Err(InvalidWeight::Int4 { row: at / width, column: at % width, value: integers[at] });
        }
        Ok(Self { rows, width, group, inputs, integers: Integers::Stored { integers, scales } })
    }

    /// Quantises a dense weight in groups of `group` inputs, symmetrically: `scale = max|w| / 7`, and `q = w / scale`
    /// rounded to the nearest integer, ties to even. The last group of a row may have fewer inputs. A group with NaN or
    /// infinity has the scale NaN and only zeros.
    ///
    /// # Panics
    /// If `group` is zero.
    pub fn quantised(dense: HostTensor<'a>, group: usize, inputs: Inputs) -> Self {
        assert!(group > 0, "invariant: a group has inputs");
        let (rows, width) = (dense.rows, dense.width);
        Self { rows, width, group, inputs, integers: Integers::Rounded(dense) }
    }

    /// Returns the number of groups of an output channel.
    pub fn groups(&self) -> usize {
        self.width.div_ceil(self.group)
    }

    /// Writes the integers of output channel `row` to `out`, which has `width` of them, and the scales of its
    /// [groups](Self::groups) to `scales`. `numbers` is scratch space for `width` numbers.
    pub fn row(&self, row: usize, numbers: &mut [f32], out: &mut [i8], scales: &mut [f32]) {
        let groups = self.groups();
        let of_row = |stored: &[f32], scales: &mut [f32]| {
            scales.copy_from_slice(&stored[row * groups..(row + 1) * groups]);
        };
        match self.integers {
            Integers::Packed { packed, scales: stored } => {
                let bytes = self.width / 2;
                for (pair, byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(&packed[row * bytes..][..bytes])
                {
                    *pair = [*byte as i8 >> 4, (*byte << 4) as i8 >> 4];
                }
                of_row(stored, scales);
            }
            Integers::Stored { integers, scales: stored } => {
                out.copy_from_slice(&integers[row * self.width..(row + 1) * self.width]);
                of_row(stored, scales);
            }
            Integers::Rounded(dense) => {
                dense.row_f32(row, numbers);
                let groups = numbers.chunks(self.group).zip(out.chunks_mut(self.group));
                for ((x, q), scale) in groups.zip(scales) {
                    *scale = quantise(x, LARGEST, q);
                }
            }
        }
    }
}

/// Checks groups, integers and scales, in this order.
fn check_groups(
    count: &Count,
    group: usize,
    scales: &[f32],
    integers: impl FnOnce() -> Result<(), InvalidWeight>,
) -> Result<(), InvalidWeight> {
    let Count { rows, width } = *count;
    if group == 0 || !width.is_multiple_of(group) {
        return Err(InvalidWeight::Group { group, width });
    }
    integers()?;
    count.check("scales", scales.len(), rows * (width / group))?;
    check_scales(scales, width / group)
}
