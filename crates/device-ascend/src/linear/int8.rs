//! Linear layers with int8 weights: static W8A8 and W8A16.
//!
//! **Static W8A8.** `aclnnAscendQuantV3` quantises the rows. It multiplies, so it gets the reciprocal of the stored scale, in
//! the type of the rows. `aclnnQuantMatmulV4` adds the integer bias to the sums and applies the scale of the output channel.
//! For fp16 results the chip takes the scale as 64 bits, and reads 19 bits of its fp32. On a 310P the weight is in fractals.
//!
//! **W8A16.** `aclnnWeightQuantBatchMatmulV2` dequantises the weight on the way.

use ascend_sys::ACL_INT8;

use glmbench_device::{DType, DeviceError, Form, HostTensor, Inputs, LinearWeight, StaticChannel};

use super::super::choice::{Choices, WeightFormat};
use super::super::core::Core;
use super::super::layout::encode;
use super::super::memory::Buffer;
use super::super::ops;
use super::super::tensor::{Element, Operand, View};
use super::fractal_numbers;

/// The forms that a card has operators for.
const FORMS: [Form; 3] = [Form::Dense, Form::Int8(Inputs::Int8Static), Form::Int8(Inputs::Float)];

/// The bits of an fp32 scale that the chip reads.
const SCALE_BITS: u32 = 0xFFFF_E000;
/// The bit that marks a scale without an offset (`aclnnTransQuantParamV2`).
const SCALE_MARK: u64 = 1 << 46;
/// Bytes between the scale and the offset of the inputs.
const OFFSET_AT: usize = 64;

/// A weight `[n, k]` in int8.
pub(in super::super) struct Int8Matrix {
    weight: Buffer,
    /// A scale per output channel.
    scales: Buffer,
    how: How,
    pub(super) n: usize,
    pub(super) k: usize,
    fractal: bool,
}

/// How inputs enter the product, with what it needs.
enum How {
    /// Quantised by the scale and the offset in `input`, in this order. `bias` is one of integers.
    Static { input: Buffer, bias: Buffer },
    /// As they are.
    Float { bias: Option<Buffer> },
}

/// What a weight holds, in host memory.
struct Parts {
    integers: Vec<i8>,
    channels: Vec<StaticChannel>,
    bias: Vec<f32>,
}

impl Int8Matrix {
    /// Uploads the selected rows of a weight and its bias, or all rows if `rows` is `None`. A bias of a static layer becomes
    /// part of the integer bias, as in its file.
    ///
    /// # Errors
    /// Memory ran out, or the card has no operator for the weight's form.
    pub(super) fn upload(
        core: &Core,
        choices: Choices,
        weight: LinearWeight<'_>,
        bias: Option<HostTensor<'_>>,
        rows: Option<&[Option<usize>]>,
    ) -> Result<Self, DeviceError> {
        let is_static = match weight.form() {
            Form::Int8(Inputs::Int8Static) => true,
            Form::Int8(Inputs::Float) => false,
            _ => return Err(weight.refused(core.api().device, FORMS)),
        };
        let (n, k) = (rows.map_or(weight.rows(), <[_]>::len), weight.width());
        let fractal = is_static && choices.weights != WeightFormat::Plain;
        let numbers = if fractal { fractal_numbers(core, n, k, ACL_INT8)? } else { n * k };
        let buffer = core.slab.take(numbers, "weights")?;
        let parts = if core.timing_only {
            let still = StaticChannel { deq_scale: 1.0, quant_bias: 0 };
            Parts { integers: Vec::new(), channels: vec![still; n], bias: vec![0.0; n] }
        } else {
            picked(weight, bias, rows, [n, k])
        };
        buffer.write(0, bytemuck::cast_slice(&parts.integers))?;
        let how = how(core, weight, bias.is_some(), &parts)?;
        let scales = core.slab.put(&encoded(&parts.channels, is_static, core.dtype), "scales")?;
        let matrix = Self { weight: buffer, scales, how, n, k, fractal };
        if fractal {
            core.run(ops::to_fractals(core.api(), matrix.stored()))?;
            core.stream.synchronize()?;
        }
        Ok(matrix)
    }

    /// Returns the weight `[n, k]` as uploaded.
    fn stored(&self) -> View {
        View::new(self.weight.at(0), Element::Int8, &[self.n, self.k])
    }

    /// Quantises the rows of a static layer.
    pub(super) fn input(&self, core: &Core, x: Operand, rows: usize) -> Result<Operand, DeviceError> {
        let How::Static { input, .. } = &self.how else { return Ok(x) };
        let mut held = core.quantised.borrow_mut();
        if held.as_ref().is_none_or(|buffer| buffer.len() < rows * self.k) {
            // Queued work may still use the old buffer.
            core.stream.synchronize()?;
            *held = None;
            *held = Some(core.slab.take((rows * self.k).next_power_of_two(), "quantised rows")?);
        }
        let to = held.as_ref().expect("invariant: just made");
        let view = View::new(to.at(0), Element::Int8, &[rows, self.k]);
        let shape = (rows as u64) << 32 | self.k as u64;
        core.run_cached(("quantise", [x.id, input.id, to.id, shape]), |api| {
            let of = |at| View::new(input.at(at), core.element(), &[1]);
            ops::quantise(api, x.view, [of(0), of(OFFSET_AT)], view)
        })?;
        Ok(Operand { view, id: to.id })
    }

    /// Computes the product with rows from [`Self::input`].
    pub(super) fn product(
        &self,
        core: &Core,
        x: Operand,
        out: Operand,
        rows: usize,
    ) -> Result<(), DeviceError> {
        let ids = [x.id, self.weight.id, out.id, rows as u64];
        let (n, in_fp32) = ([self.n], core.dtype == DType::Bf16);
        match &self.how {
            How::Static { bias, .. } => core.run_cached(("quant matmul", ids), |api| {
                let kind = if in_fp32 { Element::Fp32 } else { Element::Uint64 };
                let scales = View::new(self.scales.at(0), kind, &n);
                let bias = View::new(bias.at(0), Element::Int32, &n);
                let weight = if self.fractal { self.stored().in_fractals() } else { self.stored() };
                ops::quant_matmul(api, x.view, weight, [scales, bias], out.view)
            }),
            How::Float { bias } => core.run_cached(("weight quant", ids), |api| {
                let scales = View::new(self.scales.at(0), core.element(), &n);
                let kind = if in_fp32 { Element::Fp32 } else { core.element() };
                let bias = bias.as_ref().map(|bias| View::new(bias.at(0), kind, &n));
                let weight = self.stored().transposed();
                ops::weight_quant_matmul(api, x.view, weight, scales, bias, out.view)
            }),
        }
    }
}

/// Reads the selected rows of a weight and its bias. `None` is a row of zeros.
fn picked(
    weight: LinearWeight<'_>,
    bias: Option<HostTensor<'_>>,
    rows: Option<&[Option<usize>]>,
    [n, k]: [usize; 2],
) -> Parts {
    let all = bias.map(|bias| bias.to_f32());
    let mut integers = vec![0i8; n * k];
    let mut channels = vec![StaticChannel { deq_scale: 1.0, quant_bias: 0 }; n];
    let (mut bias, mut numbers) = (vec![0.0; n], vec![0.0; k]);
    for (i, out) in integers.chunks_exact_mut(k).enumerate() {
        let Some(row) = rows.map_or(Some(i), |rows| rows[i]) else { continue };
        channels[i] = match weight {
            LinearWeight::Int8Static(int8) => int8.row(row, &mut numbers, out),
            LinearWeight::Int8(int8) => {
                StaticChannel { deq_scale: int8.row(row, &mut numbers, out), quant_bias: 0 }
            }
            LinearWeight::Dense(_) | LinearWeight::Int4(_) => {
                unreachable!("invariant: the form is one of int8")
            }
        };
        bias[i] = all.as_ref().map_or(0.0, |all| all[row]);
    }
    Parts { integers, channels, bias }
}

/// Uploads what the product needs besides weight and scales.
fn how(core: &Core, weight: LinearWeight<'_>, has_bias: bool, parts: &Parts) -> Result<How, DeviceError> {
    let LinearWeight::Int8Static(int8) = weight else {
        // A card that computes in bf16 takes biases of this operator in fp32.
        let dtype = if core.dtype == DType::Bf16 { DType::Fp32 } else { core.dtype };
        let bias = has_bias.then(|| core.slab.put(&encode(&parts.bias, dtype), "a bias")).transpose()?;
        return Ok(How::Float { bias });
    };
    let with_bias = |(channel, bias): (&StaticChannel, &f32)| {
        let bias = (bias / channel.deq_scale).round_ties_even() as i32;
        channel.quant_bias.wrapping_add(bias).to_le_bytes()
    };
    let bias: Vec<u8> = parts.channels.iter().zip(&parts.bias).flat_map(with_bias).collect();
    let mut input = encode(&[1.0 / int8.input.scale], core.dtype);
    input.resize(OFFSET_AT, 0);
    input.extend(encode(&[int8.input.offset], core.dtype));
    Ok(How::Static { input: core.slab.put(&input, "a scale")?, bias: core.slab.put(&bias, "a bias")? })
}

/// Encodes the scales of output channels: in 64 bits for static layers with fp16 results, else as numbers.
fn encoded(channels: &[StaticChannel], is_static: bool, dtype: DType) -> Vec<u8> {
    let numbers: Vec<f32> = channels.iter().map(|channel| channel.deq_scale).collect();
    match (is_static, dtype) {
        (true, DType::Bf16) => encode(&numbers, DType::Fp32),
        (true, _) => {
            let bits = |scale: &f32| u64::from(scale.to_bits() & SCALE_BITS) | SCALE_MARK;
            numbers.iter().flat_map(|scale| bits(scale).to_le_bytes()).collect()
        }
        (false, _) => encode(&numbers, dtype),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_keeps_the_bits_that_the_chip_reads() {
        let channel = StaticChannel { deq_scale: f32::from_bits(0x3C12_3FFF), quant_bias: 0 };
        let bytes = encoded(&[channel], true, DType::Fp16);
        assert_eq!(u64::from_le_bytes(bytes.try_into().unwrap()), 0x4000_3C12_2000);
        assert_eq!(encoded(&[channel], true, DType::Bf16), 0x3C12_3FFFu32.to_le_bytes());
        assert_eq!(encoded(&[channel], false, DType::Fp16).len(), 2);
    }
}
