//! The weight of a linear layer as a value: what it is for, its form, its numbers and its scales.
//!
//! The form belongs to the weight, not to the device: a checkpoint can keep one layer dense and the next in int8. A device
//! packs the forms that it has kernels for, and refuses the others by name ([`LinearWeight::refused`]).

use super::words::one_of;
use super::{DType, DeviceError, HostTensor};

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

/// Shape and role of a linear layer's weight.
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
    /// int4, two to a byte, with one fp32 scale per output channel and group of `group` inputs.
    Int4 {
        /// Inputs that share a scale.
        group: usize,
    },
}

/// Size of a quantisation scale in bytes.
pub(super) const SCALE_BYTES: u64 = 4;

impl Storage {
    /// Returns the size in bytes of a weight `[out, width]` with its scales, without padding.
    pub fn bytes(self, out: u64, width: u64) -> u64 {
        let numbers = out.saturating_mul(width);
        match self {
            Self::Dense(dtype) => numbers.saturating_mul(dtype.bytes() as u64),
            Self::Int8 => numbers.saturating_add(out.saturating_mul(SCALE_BYTES)),
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
}

impl Inputs {
    fn words(self) -> &'static str {
        match self {
            Self::Float => "floating-point inputs",
            Self::Int8PerToken => "inputs quantised per token",
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
    /// Packed int4 with group scales.
    Int4(Int4Weight<'a>),
}

impl<'a> LinearWeight<'a> {
    /// Returns the number of outputs.
    pub fn rows(&self) -> usize {
        match self {
            Self::Dense(dense) => dense.rows,
            Self::Int8(int8) => int8.rows,
            Self::Int4(int4) => int4.rows,
        }
    }

    /// Returns the number of inputs.
    pub fn width(&self) -> usize {
        match self {
            Self::Dense(dense) => dense.width,
            Self::Int8(int8) => int8.width,
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
            Self::Int4(int4) => Storage::Int4 { group: int4.group },
        }
    }

    /// Returns the form.
    pub fn form(&self) -> Form {
        match self {
            Self::Dense(_) => Form::Dense,
            Self::Int8(int8) => Form::Int8(int8.inputs),
            Self::Int4(int4) => Form::Int4(int4.inputs),
        }
    }

    /// Describes the form in words, for messages.
    fn words(&self) -> String {
        match self {
            Self::Dense(dense) => dense.dtype.to_string(),
            Self::Int8(int8) => format!("int8 with {}", int8.inputs.words()),
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
            Self::Int8(_) | Self::Int4(_) => Err(self.refused(device, [Form::Dense])),
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
    /// A scale that is zero, negative, infinite or NaN.
    #[error("scale {value} of output channel {row}, expected a positive number")]
    Scale {
        /// Output channel.
        row: usize,
        /// The scale.
        value: f32,
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

/// Checks that all scales of a weight are positive and finite; `each` scales belong to an output channel.
fn check_scales(scales: &[f32], each: usize) -> Result<(), InvalidWeight> {
    match scales.iter().position(|scale| !(scale.is_finite() && *scale > 0.0)) {
        Some(at) => Err(InvalidWeight::Scale { row: at / each.max(1), value: scales[at] }),
        None => Ok(()),
    }
}

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
    /// A count does not fit the shape, an integer is -128, or a scale is not a positive number.
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
        if let Some(at) = integers.iter().position(|&q| q == i8::MIN) {
            return Err(InvalidWeight::Integer { row: at / width, column: at % width, value: i8::MIN });
        }
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
                quantise(numbers, out)
            }
        }
    }
}

/// Quantises a row as [`Int8Weight::quantised`] defines, and returns its scale.
fn quantise(x: &[f32], out: &mut [i8]) -> f32 {
    /// The largest integer.
    const LARGEST: f32 = 127.0;
    /// Added to a number within ±2^22, it leaves the nearest integer (ties to even) in the lowest bits: numbers from 2^23 to
    /// 2^24 have a spacing of 1. Every instruction set does this in vectors, which is not so for rounding.
    const ROUND: f32 = 12_582_912.0;

    // Magnitudes have the order of their bits, and NaN is above infinity.
    let largest = f32::from_bits(x.iter().fold(0, |most, x| most.max(x.to_bits() & (u32::MAX >> 1))));
    let scale = if largest.is_finite() { largest / LARGEST } else { f32::NAN };
    if scale.is_nan() || scale == 0.0 {
        out.fill(0);
        return scale;
    }
    for (q, x) in out.iter_mut().zip(x) {
        *q = ((x / scale).clamp(-LARGEST, LARGEST) + ROUND).to_bits() as i8;
    }
    scale
}

/// An int4 weight: `w[n][k] = q[n][k] * scale[n][k / group]`, with `q` from -8 to 7.
///
/// Byte `j` of a row holds input `2j` in its high half and input `2j + 1` in its low half, both in two's complement. This
/// is the order of THUDM's `chatglm2-6b-int4`.
#[derive(Debug, Clone, Copy)]
pub struct Int4Weight<'a> {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub width: usize,
    /// Inputs that share a scale; `width` for one scale per output channel.
    pub group: usize,
    /// How inputs enter the product.
    pub inputs: Inputs,
    packed: &'a [u8],
    scales: &'a [f32],
}

impl<'a> Int4Weight<'a> {
    /// Creates a weight from packed integers `[rows, width / 2]` and scales `[rows, width / group]`.
    ///
    /// # Errors
    /// A count does not fit the shape, the groups do not divide the inputs, or a scale is not a positive number.
    pub fn stored(
        rows: usize,
        width: usize,
        group: usize,
        packed: &'a [u8],
        scales: &'a [f32],
        inputs: Inputs,
    ) -> Result<Self, InvalidWeight> {
        if group == 0 || !width.is_multiple_of(group) || !width.is_multiple_of(2) {
            return Err(InvalidWeight::Group { group, width });
        }
        let count = Count { rows, width };
        count.check("bytes of packed integers", packed.len(), rows * width / 2)?;
        count.check("scales", scales.len(), rows * (width / group))?;
        check_scales(scales, width / group)?;
        Ok(Self { rows, width, group, inputs, packed, scales })
    }

    /// Writes the integers of output channel `row` to `out`, which has `width` of them, and returns the scales of its
    /// groups.
    pub fn row(&self, row: usize, out: &mut [i8]) -> &'a [f32] {
        let bytes = self.width / 2;
        for (pair, byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(&self.packed[row * bytes..][..bytes]) {
            *pair = [*byte as i8 >> 4, (*byte << 4) as i8 >> 4];
        }
        let groups = self.width / self.group;
        &self.scales[row * groups..(row + 1) * groups]
    }
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
            assert_eq!(quantise(&x, &mut q).to_bits(), scale.to_bits());
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
        let mut out = [0; 4];
        assert_eq!((weight.row(0, &mut out), out), (&[1., 2.][..], [7, -1, -8, 0]));
        assert_eq!((weight.row(1, &mut out), out), (&[3., 4.][..], [1, 2, -7, -2]));
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

    #[test]
    fn sizes_include_the_scales() {
        assert_eq!(Storage::Dense(DType::Fp16).bytes(3, 10), 60);
        assert_eq!(Storage::Int8.bytes(3, 10), 42);
        assert_eq!(Storage::Int4 { group: 5 }.bytes(3, 10), 15 + 3 * 2 * 4);
        assert_eq!(Storage::Int8.bytes(u64::MAX, 2), u64::MAX);
    }
}
