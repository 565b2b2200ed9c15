//! Static W8A8: int8 weights whose inputs are quantised by a stored scale and offset.

use super::{Count, HostTensor, INT8_LARGEST, InvalidWeight, check_integers, first_improper, quantise};

/// Quantisation of the inputs: `q = clip(round(x / scale + offset), -128, 127)`, ties to even.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StaticInput {
    /// Distance between two integers.
    pub scale: f32,
    /// The integer of zero, from -128 to 127.
    pub offset: f32,
}

impl StaticInput {
    /// Checks that the scale is positive and finite, and that the offset is an int8.
    ///
    /// # Errors
    /// One of them is not.
    pub fn new(scale: f32, offset: f32) -> Result<Self, InvalidWeight> {
        if first_improper(&[scale]).is_some() {
            return Err(InvalidWeight::InputScale { value: scale });
        }
        if !((-128.0..=127.0).contains(&offset) && offset.fract() == 0.0) {
            return Err(InvalidWeight::InputOffset { value: offset });
        }
        Ok(Self { scale, offset })
    }

    /// Quantises a number. Infinity is clipped. NaN becomes an integer, which depends on the device. The reference and the
    /// CPU make the whole row of its results NaN. Cards do not.
    pub fn quantise(self, x: f32) -> i8 {
        (x / self.scale + self.offset).round_ties_even().clamp(-128.0, 127.0) as i8
    }
}

/// What turns an output channel's sum into a number: `y = (sum + quant_bias) * deq_scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StaticChannel {
    /// Scale of the inputs times the weight scale of the channel.
    pub deq_scale: f32,
    /// `round(bias / deq_scale) - input_offset * sum of the channel's integers`. The sum wraps at 32 bits.
    pub quant_bias: i32,
}

/// The output channels of a weight in a checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct StaticChannels<'a> {
    /// A scale per output channel ([`StaticChannel::deq_scale`]).
    pub deq_scale: &'a [f32],
    /// A bias per output channel ([`StaticChannel::quant_bias`]). It holds the layer's bias and the offset of the inputs.
    pub quant_bias: &'a [i32],
}

/// An int8 weight for inputs that are quantised by a stored scale, as in ModelSlim's W8A8. It is
/// `y = (x_q . w + quant_bias) * deq_scale`, with `x_q` of [`StaticInput::quantise`] and `w` within ±127.
///
/// A rank of a row-parallel layer adds a part of the sum. One of them has the `quant_bias`, the others have zeros.
#[derive(Debug, Clone, Copy)]
pub struct Int8StaticWeight<'a> {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub width: usize,
    /// Quantisation of the inputs.
    pub input: StaticInput,
    integers: Integers<'a>,
}

/// Where the integers come from.
#[derive(Debug, Clone, Copy)]
enum Integers<'a> {
    Stored {
        integers: &'a [i8],
        channels: StaticChannels<'a>,
    },
    /// Quantised when a row is read.
    Rounded(HostTensor<'a>),
}

impl<'a> Int8StaticWeight<'a> {
    /// Creates a weight from a checkpoint's integers `[rows, width]` and channels `[rows]`.
    ///
    /// # Errors
    /// A count does not fit the shape, an integer is -128, or a `deq_scale` is not a positive number.
    pub fn stored(
        rows: usize,
        width: usize,
        integers: &'a [i8],
        input: StaticInput,
        channels: StaticChannels<'a>,
    ) -> Result<Self, InvalidWeight> {
        let count = Count { rows, width };
        count.check("integers", integers.len(), rows * width)?;
        count.check("deq_scale", channels.deq_scale.len(), rows)?;
        count.check("quant_bias", channels.quant_bias.len(), rows)?;
        check_integers(integers, width)?;
        if let Some(row) = first_improper(channels.deq_scale) {
            return Err(InvalidWeight::DeqScale { row, value: channels.deq_scale[row] });
        }
        Ok(Self { rows, width, input, integers: Integers::Stored { integers, channels } })
    }

    /// Quantises a dense weight, symmetrically for each output channel, as
    /// [`Int8Weight::quantised`](super::Int8Weight::quantised) does. The caller determines the range of the inputs.
    ///
    /// # Panics
    /// If the inputs have an offset: it needs the sums of the integers, which a checkpoint stores as `quant_bias`.
    pub fn quantised(dense: HostTensor<'a>, input: StaticInput) -> Self {
        assert!(input.offset == 0.0, "invariant: inputs are quantised symmetrically");
        Self { rows: dense.rows, width: dense.width, input, integers: Integers::Rounded(dense) }
    }

    /// Writes the integers of output channel `row` to `out`, which has `width` of them, and returns what turns their sum
    /// into a number. `numbers` is scratch space for `width` numbers.
    pub fn row(&self, row: usize, numbers: &mut [f32], out: &mut [i8]) -> StaticChannel {
        match self.integers {
            Integers::Stored { integers, channels } => {
                out.copy_from_slice(&integers[row * self.width..(row + 1) * self.width]);
                StaticChannel { deq_scale: channels.deq_scale[row], quant_bias: channels.quant_bias[row] }
            }
            Integers::Rounded(dense) => {
                dense.row_f32(row, numbers);
                let scale = quantise(numbers, INT8_LARGEST, out);
                StaticChannel { deq_scale: self.input.scale * scale, quant_bias: 0 }
            }
        }
    }
}
