//! The weight of a linear layer as a value: what it is for, its form, its numbers and its scales.
//!
//! The form belongs to the weight, not to the device: a checkpoint can keep one layer dense and the next in int8. A device
//! packs the forms that it has kernels for, and refuses the others by name ([`LinearWeight::refused`]).

mod int4;
mod int8;
mod int8_static;

use super::words::one_of;
use super::{DType, DeviceError, HostTensor};

pub use self::int4::{INT4_GROUP, Int4Weight};
pub use self::int8::Int8Weight;
pub use self::int8_static::{Int8StaticWeight, StaticChannel, StaticChannels, StaticInput};

/// What a linear layer computes in a forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Queries, keys and values: output `[q | k | v]`.
    Qkv,
    /// The layer after attention.
    Dense,
    /// Both halves of the feed-forward layer: output `[gate | up]`, for [`Device::gate_up`](super::Device::gate_up).
    GateUp,
    /// The feed-forward layer's way back to the residual stream.
    Down,
    /// The logits.
    Output,
    /// A layer of the P-tuning prefix encoder. It runs at load only.
    Prefix,
}

/// Shape and role of a linear layer weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearShape {
    /// What the layer computes.
    pub role: Role,
    /// Outputs.
    pub out: u64,
    /// Inputs.
    pub width: u64,
}

/// How a weight is stored, which determines its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Storage {
    /// Numbers of this type.
    Dense(DType),
    /// int8 with one fp32 scale per output channel.
    Int8,
    /// int8 with an fp32 scale and an int32 bias per output channel, for inputs with a stored scale.
    Int8Static,
    /// int4, two to a byte, with one fp32 scale per output channel and group of `group` inputs.
    Int4 {
        /// Inputs that share a scale.
        group: usize,
    },
}

/// Size of a quantisation scale in bytes.
pub(super) const SCALE_BYTES: u64 = 4;
/// Size of an integer bias in bytes.
const BIAS_BYTES: u64 = 4;

impl Storage {
    /// Returns how many of `width` inputs share a scale: all of them, unless the form has groups.
    pub fn group(self, width: usize) -> usize {
        match self {
            Self::Dense(_) | Self::Int8 | Self::Int8Static => width,
            Self::Int4 { group } => group,
        }
    }

    /// Returns the size in bytes of a weight `[out, width]` with its scales, without padding.
    pub fn bytes(self, out: u64, width: u64) -> u64 {
        let numbers = out.saturating_mul(width);
        match self {
            Self::Dense(dtype) => numbers.saturating_mul(dtype.bytes() as u64),
            Self::Int8 => numbers.saturating_add(out.saturating_mul(SCALE_BYTES)),
            Self::Int8Static => numbers.saturating_add(out.saturating_mul(SCALE_BYTES + BIAS_BYTES)),
            Self::Int4 { group } => {
                let scales = out.saturating_mul(width.div_ceil(group as u64));
                numbers.div_ceil(2).saturating_add(scales.saturating_mul(SCALE_BYTES))
            }
        }
    }
}

/// How a layer's inputs enter the product with an integer weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Inputs {
    /// As they are: the weight is dequantised (W8A16, W4A16).
    Float,
    /// Quantised to int8 with one scale per token, determined at run time. Sums are int32.
    Int8PerToken,
    /// Quantised to int8 with the scale and the offset that are stored beside the weight (static W8A8). Sums are int32.
    Int8Static,
}

impl Inputs {
    fn words(self) -> &'static str {
        match self {
            Self::Float => "floating-point inputs",
            Self::Int8PerToken => "inputs quantised per token",
            Self::Int8Static => "inputs quantised by a stored scale",
        }
    }
}

/// The form of a weight: what a device chooses its kernels by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// Floating-point numbers, of any type.
    Dense,
    /// int8 with one scale per output channel.
    Int8(Inputs),
    /// Packed int4 with group scales, in groups of any size.
    Int4(Inputs),
}

impl Form {
    /// Returns how inputs enter the product.
    pub fn inputs(self) -> Inputs {
        match self {
            Self::Dense => Inputs::Float,
            Self::Int8(inputs) | Self::Int4(inputs) => inputs,
        }
    }

    /// Lists the forms in words, for messages. Each type of dense numbers is a word.
    pub fn one_of(forms: impl IntoIterator<Item = Self>) -> String {
        let words = |form| match form {
            Self::Dense => DType::ALL.map(|dtype| dtype.to_string()).to_vec(),
            Self::Int8(inputs) => vec![format!("int8 with {}", inputs.words())],
            Self::Int4(inputs) => vec![format!("int4 with {}", inputs.words())],
        };
        one_of(forms.into_iter().flat_map(words))
    }
}

/// The weight `[rows, width]` = `[out, in]` of a linear layer, in host memory.
#[derive(Debug, Clone, Copy)]
pub enum LinearWeight<'a> {
    /// Floating-point numbers.
    Dense(HostTensor<'a>),
    /// int8 with one scale per output channel.
    Int8(Int8Weight<'a>),
    /// int8 for inputs that are quantised by a stored scale.
    Int8Static(Int8StaticWeight<'a>),
    /// Packed int4 with group scales.
    Int4(Int4Weight<'a>),
}

impl<'a> LinearWeight<'a> {
    /// Returns the number of outputs.
    pub fn rows(&self) -> usize {
        match self {
            Self::Dense(dense) => dense.rows,
            Self::Int8(int8) => int8.rows,
            Self::Int8Static(int8) => int8.rows,
            Self::Int4(int4) => int4.rows,
        }
    }

    /// Returns the number of inputs.
    pub fn width(&self) -> usize {
        match self {
            Self::Dense(dense) => dense.width,
            Self::Int8(int8) => int8.width,
            Self::Int8Static(int8) => int8.width,
            Self::Int4(int4) => int4.width,
        }
    }

    /// Returns the shape of this weight in the role `role`.
    pub fn shape(&self, role: Role) -> LinearShape {
        LinearShape { role, out: self.rows() as u64, width: self.width() as u64 }
    }

    /// Returns how a device that computes in `dtype` stores this weight. It converts a dense weight to its own type.
    pub fn storage(&self, dtype: DType) -> Storage {
        match self {
            Self::Dense(_) => Storage::Dense(dtype),
            Self::Int8(_) => Storage::Int8,
            Self::Int8Static(_) => Storage::Int8Static,
            Self::Int4(int4) => Storage::Int4 { group: int4.group },
        }
    }

    /// Returns the form.
    pub fn form(&self) -> Form {
        match self {
            Self::Dense(_) => Form::Dense,
            Self::Int8(int8) => Form::Int8(int8.inputs),
            Self::Int8Static(_) => Form::Int8(Inputs::Int8Static),
            Self::Int4(int4) => Form::Int4(int4.inputs),
        }
    }

    /// Describes the form in words, for messages.
    fn words(&self) -> String {
        match self {
            Self::Dense(dense) => dense.dtype.to_string(),
            Self::Int8(int8) => format!("int8 with {}", int8.inputs.words()),
            Self::Int8Static(_) => format!("int8 with {}", Inputs::Int8Static.words()),
            Self::Int4(int4) => format!("int4 in groups of {} with {}", int4.group, int4.inputs.words()),
        }
    }

    /// Returns the error of a device that has no kernel for this form. `expected` are the forms that it has.
    pub fn refused(&self, device: &'static str, expected: impl IntoIterator<Item = Form>) -> DeviceError {
        let expected = Form::one_of(expected);
        let problem = format!("the weight of a linear layer is {}, expected {expected}", self.words());
        DeviceError::Unsupported { device, problem }
    }

    /// Returns the dense numbers, for devices that have no other form.
    ///
    /// # Errors
    /// The weight is quantised.
    pub fn dense(self, device: &'static str) -> Result<HostTensor<'a>, DeviceError> {
        match self {
            Self::Dense(dense) => Ok(dense),
            Self::Int8(_) | Self::Int8Static(_) | Self::Int4(_) => Err(self.refused(device, [Form::Dense])),
        }
    }
}

impl<'a> From<HostTensor<'a>> for LinearWeight<'a> {
    fn from(dense: HostTensor<'a>) -> Self {
        Self::Dense(dense)
    }
}

/// A quantised weight whose parts do not fit together.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidWeight {
    /// The number of integers, bytes or scales does not follow from the shape.
    #[error("{found} {what}, expected {expected} for [{rows}, {width}]")]
    Count {
        /// What was counted.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many the shape needs.
        expected: usize,
        /// Outputs.
        rows: usize,
        /// Inputs.
        width: usize,
    },
    /// An integer beyond the symmetric range.
    #[error("integer {value} at [{row}, {column}], expected -127 to 127")]
    Integer {
        /// Output channel.
        row: usize,
        /// Input channel.
        column: usize,
        /// The integer.
        value: i8,
    },
    /// An int4 beyond its range.
    #[error("integer {value} at [{row}, {column}], expected -8 to 7")]
    Int4 {
        /// Output channel.
        row: usize,
        /// Input channel.
        column: usize,
        /// The integer.
        value: i8,
    },
    /// A scale that is zero, negative, infinite or NaN.
    #[error("scale {value} of output channel {row}, expected a positive number")]
    Scale {
        /// Output channel.
        row: usize,
        /// The scale.
        value: f32,
    },
    /// A combined scale that is zero, negative, infinite or NaN.
    #[error("deq_scale {value} of output channel {row}, expected a positive number")]
    DeqScale {
        /// Output channel.
        row: usize,
        /// The scale of inputs times that of the weight.
        value: f32,
    },
    /// A scale of the inputs that is zero, negative, infinite or NaN.
    #[error("input_scale {value}, expected a positive number")]
    InputScale {
        /// The scale.
        value: f32,
    },
    /// An offset of the inputs that is no int8.
    #[error("input_offset {value}, expected an integer from -128 to 127")]
    InputOffset {
        /// The offset.
        value: f32,
    },
    /// The number of channels of a KV cache is not that of the model.
    #[error("{found} {what}, expected {expected}")]
    Channels {
        /// What was counted.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many the model has.
        expected: usize,
    },
    /// A scale of a KV cache that is zero, negative, infinite or NaN.
    #[error("scale {value} of {row} among the {what}, expected a positive number")]
    KvScale {
        /// Which channels.
        what: &'static str,
        /// The channel.
        row: usize,
        /// The scale.
        value: f32,
    },
    /// An offset of a KV cache that is infinite or NaN.
    #[error("offset {value} of {row} among the {what}, expected a finite number")]
    KvOffset {
        /// Which channels.
        what: &'static str,
        /// The channel.
        row: usize,
        /// The offset.
        value: f32,
    },
    /// Inputs that are quantised in a way that the weight cannot say.
    #[error(
        "{found}, expected floating-point inputs or inputs quantised per token: a stored scale has a weight of its own"
    )]
    Inputs {
        /// How the inputs enter, in words.
        found: &'static str,
    },
    /// A group that does not divide the inputs, or rows that end within a byte.
    #[error("groups of {group} of {width} inputs, expected groups that divide an even number of inputs")]
    Group {
        /// Inputs that share a scale.
        group: usize,
        /// Inputs.
        width: usize,
    },
}

/// Checks the number of channels of a KV cache.
pub(super) fn check_count(what: &'static str, found: usize, expected: usize) -> Result<(), InvalidWeight> {
    if found == expected { Ok(()) } else { Err(InvalidWeight::Channels { what, found, expected }) }
}

/// The shape that counts are checked against.
struct Count {
    rows: usize,
    width: usize,
}

impl Count {
    fn check(&self, what: &'static str, found: usize, expected: usize) -> Result<(), InvalidWeight> {
        let Self { rows, width } = *self;
        if found == expected {
            return Ok(());
        }
        Err(InvalidWeight::Count { what, found, expected, rows, width })
    }
}

/// Checks that a weight without a stored scale of its inputs does not ask for one.
fn check_inputs(inputs: Inputs) -> Result<(), InvalidWeight> {
    match inputs {
        Inputs::Float | Inputs::Int8PerToken => Ok(()),
        Inputs::Int8Static => Err(InvalidWeight::Inputs { found: inputs.words() }),
    }
}

/// Returns the first number that is not positive and finite.
fn first_improper(scales: &[f32]) -> Option<usize> {
    scales.iter().position(|scale| !(scale.is_finite() && *scale > 0.0))
}

/// Checks that all integers are within ±127.
fn check_integers(integers: &[i8], width: usize) -> Result<(), InvalidWeight> {
    match integers.iter().position(|&q| q == i8::MIN) {
        Some(at) => Err(InvalidWeight::Integer { row: at / width, column: at % width, value: i8::MIN }),
        None => Ok(()),
    }
}

/// Checks that all scales of a weight are positive and finite; `each` scales belong to an output channel.
fn check_scales(scales: &[f32], each: usize) -> Result<(), InvalidWeight> {
    match first_improper(scales) {
        Some(at) => Err(InvalidWeight::Scale { row: at / each.max(1), value: scales[at] }),
        None => Ok(()),
    }
}

/// The largest integer of int8 weights and inputs, of either sign.
const INT8_LARGEST: f32 = 127.0;

/// Quantises a run symmetrically and returns its scale: `scale = max|x| / largest`, and `q = x / scale` rounded to the
/// nearest integer, ties to even. A run with NaN or infinity has the scale NaN and only zeros.
fn quantise(x: &[f32], largest_integer: f32, out: &mut [i8]) -> f32 {
    /// Added to a number within ±2^22, it leaves the nearest integer (ties to even) in the lowest bits. Numbers from 2^23 to
    /// 2^24 have a spacing of 1. Every instruction set does this in vectors, which is not so for rounding.
    const ROUND: f32 = 12_582_912.0;

    // Magnitudes have the order of their bits, and NaN is above infinity.
    let largest = f32::from_bits(x.iter().fold(0, |most, x| most.max(x.to_bits() & (u32::MAX >> 1))));
    let scale = if largest.is_finite() { largest / largest_integer } else { f32::NAN };
    if scale.is_nan() || scale == 0.0 {
        out.fill(0);
        return scale;
    }
    for (q, x) in out.iter_mut().zip(x) {
        *q = ((x / scale).clamp(-largest_integer, largest_integer) + ROUND).to_bits() as i8;
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dense(bytes: &[u8], rows: usize) -> HostTensor<'_> {
        HostTensor { dtype: DType::Fp32, rows, width: bytes.len() / 4 / rows, data: bytes }
    }

    fn bytes(numbers: &[f32]) -> Vec<u8> {
        numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    /// By division and `round_ties_even`, for every distance from a tie and for awkward scales.
    #[test]
    fn integers_are_the_nearest_with_ties_to_even() {
        for largest in [127.0f32, 1.0, 3.0e38, 2.7e-39, 1e-45, 190.0 * f32::from_bits(1), 0.1, 65504.0] {
            let scale = largest / 127.0;
            let near = |i: i32| {
                let tie = ((f64::from(i) + 0.5) * f64::from(scale)) as f32;
                [-1, 0, 1].map(|off| {
                    f32::from_bits(tie.to_bits().saturating_add_signed(off)).clamp(-largest, largest)
                })
            };
            let x = std::iter::once(-largest).chain((-127..127).flat_map(near));
            // The number before -0.0 is NaN.
            let x: Vec<f32> = x.filter(|x| x.is_finite()).collect();
            let mut q = vec![1i8; x.len()];
            assert_eq!(quantise(&x, INT8_LARGEST, &mut q).to_bits(), scale.to_bits());
            for (x, q) in x.iter().zip(q) {
                let expected =
                    if scale == 0.0 { 0.0 } else { (x / scale).round_ties_even().clamp(-127.0, 127.0) };
                assert_eq!(f32::from(q), expected + 0.0, "{x} by {scale}");
            }
        }
    }

    #[test]
    fn a_row_that_is_not_finite_has_zeros_and_no_scale() {
        let bytes = bytes(&[1.0, -2.0, f32::NAN, 1.0, f32::INFINITY, 0.5, 0.0, -0.0]);
        let weight = Int8Weight::quantised(dense(&bytes, 4), Inputs::Int8PerToken);
        let rows: Vec<([i8; 2], f32)> = (0..4)
            .map(|row| {
                let (mut numbers, mut out) = ([0.0; 2], [1; 2]);
                let scale = weight.row(row, &mut numbers, &mut out);
                (out, scale)
            })
            .collect();
        assert_eq!(rows[0], ([64, -127], 2.0 / 127.0));
        assert!(rows[1..3].iter().all(|(q, scale)| *q == [0, 0] && scale.is_nan()));
        assert_eq!(rows[3], ([0, 0], 0.0));
    }

    #[test]
    fn the_high_half_of_a_byte_is_the_even_input() {
        let weight =
            Int4Weight::stored(2, 4, 2, &[0x7F, 0x80, 0x12, 0x9E], &[1., 2., 3., 4.], Inputs::Float).unwrap();
        let row = |row| {
            let (mut out, mut scales) = ([0; 4], [0.0; 2]);
            weight.row(row, &mut [0.0; 4], &mut out, &mut scales);
            (scales, out)
        };
        assert_eq!(row(0), ([1., 2.], [7, -1, -8, 0]));
        assert_eq!(row(1), ([3., 4.], [1, 2, -7, -2]));
    }

    #[test]
    fn what_does_not_fit_together_is_refused_by_name() {
        let int8 = |integers: &[i8], scales: &[f32]| {
            Int8Weight::stored(2, 2, integers, scales, Inputs::Float).unwrap_err().to_string()
        };
        assert_eq!(int8(&[1; 3], &[1.0; 2]), "3 integers, expected 4 for [2, 2]");
        assert_eq!(int8(&[1; 4], &[1.0; 3]), "3 scales, expected 2 for [2, 2]");
        assert_eq!(int8(&[1, 2, 3, -128], &[1.0; 2]), "integer -128 at [1, 1], expected -127 to 127");
        for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let found = int8(&[1; 4], &[1.0, scale]);
            assert_eq!(found, format!("scale {scale} of output channel 1, expected a positive number"));
        }
        let int4 = |group, bytes: &[u8], scales: &[f32]| {
            Int4Weight::stored(1, 6, group, bytes, scales, Inputs::Float).unwrap_err().to_string()
        };
        assert!(int4(4, &[0; 3], &[1.0; 2]).contains("groups of 4 of 6 inputs"));
        assert!(int4(3, &[0; 2], &[1.0; 2]).contains("2 bytes of packed integers, expected 3"));
        assert!(int4(3, &[0; 3], &[1.0; 1]).contains("1 scales, expected 2"));
        assert!(int4(2, &[0; 3], &[1.0, 1.0, 0.0]).contains("output channel 0"));
    }

    /// The last group may have fewer inputs than the others.
    #[test]
    fn a_dense_weight_is_quantised_group_by_group() {
        let bytes = bytes(&[7.0, -3.5, 0.25, 0.0, -0.5, 14.0, f32::NAN, 1.0, 0.0, 0.0]);
        let weight = Int4Weight::quantised(dense(&bytes, 2), 2, Inputs::Float);
        assert_eq!(weight.groups(), 3);
        let row = |row| {
            let (mut out, mut scales) = ([9; 5], [9.0; 3]);
            weight.row(row, &mut [0.0; 5], &mut out, &mut scales);
            (scales, out)
        };
        // -3.5 lies between two integers.
        assert_eq!(row(0), ([1.0, 0.25 / 7.0, 0.5 / 7.0], [7, -4, 7, 0, -7]));
        let (scales, integers) = row(1);
        assert!(scales[0].is_nan() && scales[1] == 1.0 / 7.0 && scales[2] == 0.0, "{scales:?}");
        assert_eq!(integers, [0, 0, 7, 0, 0]);
    }

    #[test]
    fn inputs_are_rounded_to_even_after_the_offset_and_clipped() {
        let input = StaticInput::new(0.5, 3.0).unwrap();
        let of = |x: f32| input.quantise(x);
        assert_eq!([0.0, 0.25, 0.75, -0.25, 1.0].map(of), [3, 4, 4, 2, 5]);
        assert_eq!([62.0, 1e30, f32::INFINITY, -65.5, -1e30].map(of), [127, 127, 127, -128, -128]);
        for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let found = StaticInput::new(scale, 0.0).unwrap_err().to_string();
            assert_eq!(found, format!("input_scale {scale}, expected a positive number"));
        }
        for offset in [0.5, 128.0, -129.0, f32::NAN] {
            let found = StaticInput::new(1.0, offset).unwrap_err().to_string();
            assert_eq!(found, format!("input_offset {offset}, expected an integer from -128 to 127"));
        }
    }

    #[test]
    fn static_weights_that_do_not_fit_together_are_refused_by_name() {
        let input = StaticInput { scale: 1.0, offset: 0.0 };
        let of = |integers: &[i8], deq_scale: &[f32], quant_bias: &[i32]| {
            let channels = StaticChannels { deq_scale, quant_bias };
            Int8StaticWeight::stored(2, 2, integers, input, channels).unwrap_err().to_string()
        };
        assert_eq!(of(&[1; 3], &[1.0; 2], &[0; 2]), "3 integers, expected 4 for [2, 2]");
        assert_eq!(of(&[1; 4], &[1.0; 1], &[0; 2]), "1 deq_scale, expected 2 for [2, 2]");
        assert_eq!(of(&[1; 4], &[1.0; 2], &[0; 3]), "3 quant_bias, expected 2 for [2, 2]");
        assert_eq!(of(&[-128; 4], &[1.0; 2], &[0; 2]), "integer -128 at [0, 0], expected -127 to 127");
        let found = of(&[1; 4], &[1.0, f32::NAN], &[0; 2]);
        assert_eq!(found, "deq_scale NaN of output channel 1, expected a positive number");
        let other = Int8Weight::stored(1, 1, &[1], &[1.0], Inputs::Int8Static).unwrap_err().to_string();
        assert!(other.starts_with("inputs quantised by a stored scale, expected floating-point"), "{other}");
        let int4 = Int4Weight::unpacked(1, 2, 2, &[7, 8], &[1.0], Inputs::Float).unwrap_err().to_string();
        assert_eq!(int4, "integer 8 at [0, 1], expected -8 to 7");
    }

    #[test]
    fn sizes_include_the_scales() {
        assert_eq!(Storage::Dense(DType::Fp16).bytes(3, 10), 60);
        assert_eq!(Storage::Int8.bytes(3, 10), 42);
        assert_eq!(Storage::Int8Static.bytes(3, 10), 54);
        assert_eq!(Storage::Int4 { group: 5 }.bytes(3, 10), 15 + 3 * 2 * 4);
        assert_eq!(Storage::Int8.bytes(u64::MAX, 2), u64::MAX);
    }
}
