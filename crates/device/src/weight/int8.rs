//! int8 weights with one scale per output channel.

use super::{
    Count, HostTensor, INT8_LARGEST, Inputs, InvalidWeight, check_inputs, check_integers, check_scales,
    quantise,
};

/// An int8 weight: `w[n][k] = q[n][k] * scale[n]`, with `q` within ±127.
#[derive(Debug, Clone, Copy)]
pub struct Int8Weight<'a> {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub width: usize,
    /// How inputs enter the product.
    pub inputs: Inputs,
    integers: Integers<'a>,
}

/// Where the integers come from.
#[derive(Debug, Clone, Copy)]
enum Integers<'a> {
    Stored {
        integers: &'a [i8],
        scales: &'a [f32],
    },
    /// Quantised when a row is read, so that a model never holds the integers twice while it is loaded.
    Rounded(HostTensor<'a>),
}

impl<'a> Int8Weight<'a> {
    /// Creates a weight from a checkpoint's integers `[rows, width]` and scales `[rows]`.
    ///
    /// # Errors
    /// A count does not fit the shape, an integer is -128, or a scale is not a positive number. The inputs need a scale of their own
    /// ([`Int8StaticWeight`](super::Int8StaticWeight)).
    pub fn stored(
        rows: usize,
        width: usize,
        integers: &'a [i8],
        scales: &'a [f32],
        inputs: Inputs,
    ) -> Result<Self, InvalidWeight> {
        let count = Count { rows, width };
        count.check("integers", integers.len(), rows * width)?;
        count.check("scales", scales.len(), rows)?;
        check_inputs(inputs)?;
        check_integers(integers, width)?;
        check_scales(scales, 1)?;
        Ok(Self { rows, width, inputs, integers: Integers::Stored { integers, scales } })
    }

    /// Quantises a dense weight, symmetrically for each output channel: `scale = max|w| / 127`, and `q = w / scale`
    /// rounded to the nearest integer, ties to even. A row with NaN or infinity has the scale NaN and only zeros.
    /// Results that use it are NaN, so the fault is visible.
    pub fn quantised(dense: HostTensor<'a>, inputs: Inputs) -> Self {
        Self { rows: dense.rows, width: dense.width, inputs, integers: Integers::Rounded(dense) }
    }

    /// Writes the integers of output channel `row` to `out`, which has `width` of them, and returns their scale.
    /// `numbers` is scratch space for `width` numbers.
    pub fn row(&self, row: usize, numbers: &mut [f32], out: &mut [i8]) -> f32 {
        match self.integers {
            Integers::Stored { integers, scales } => {
                out.copy_from_slice(&integers[row * self.width..(row + 1) * self.width]);
                scales[row]
            }
            Integers::Rounded(dense) => {
                dense.row_f32(row, numbers);
                quantise(numbers, INT8_LARGEST, out)
            }
        }
    }
}
