//! The quantised weight of one linear layer, and the error of what it computes.

use std::thread::available_parallelism;

use glmbench_device::{DType, HostTensor, Inputs, Int4Weight, Int8Weight, StaticInput};

use super::QuantiseError;
use crate::config::Scheme;
use crate::weights::TensorView;
use crate::weights::quantised::names::Suffix;

/// The float weight of a linear layer, with its input channels multiplied by the factors of SmoothQuant.
pub(super) struct FloatRows<'a> {
    pub(super) view: TensorView<'a>,
    pub(super) factors: Option<&'a [f32]>,
    pub(super) rows: usize,
    pub(super) width: usize,
}

impl FloatRows<'_> {
    /// Writes output channel `row` to `out`.
    fn read(&self, row: usize, out: &mut [f32]) {
        self.view.read_f32(row * self.width, out);
        if let Some(factors) = self.factors {
            out.iter_mut().zip(factors).for_each(|(w, factor)| *w *= factor);
        }
    }

    /// Returns the largest magnitude of each input channel.
    pub(super) fn magnitudes(&self) -> Vec<f32> {
        let mut most = vec![0.0f32; self.width];
        let mut row = vec![0.0; self.width];
        for number in 0..self.rows {
            self.read(number, &mut row);
            most.iter_mut().zip(&row).for_each(|(most, w)| *most = most.max(w.abs()));
        }
        most
    }
}

/// Integers `[rows, width]` and scales `[rows, width / group]`.
pub(super) struct IntegerRows {
    pub(super) integers: Vec<i8>,
    pub(super) scales: Vec<f32>,
    /// Inputs that share a scale.
    pub(super) group: usize,
}

impl IntegerRows {
    /// Quantises a weight symmetrically, on all cores. `group` is the group of W4A16, `width` of the weight for one scale per
    /// output channel. A channel of zeros has scale 1.
    ///
    /// # Errors
    /// A number is NaN or infinite.
    pub(super) fn of(float: &FloatRows<'_>, scheme: Scheme, group: usize) -> Result<Self, QuantiseError> {
        let FloatRows { rows, width, .. } = *float;
        let group = if scheme == Scheme::W4a16 { group } else { width };
        let each = width / group.max(1);
        let (mut integers, mut scales) = (vec![0i8; rows * width], vec![0f32; rows * each]);
        let share = rows.div_ceil(available_parallelism().map_or(1, usize::from)).max(1);
        std::thread::scope(|scope| {
            let parts = integers.chunks_mut(share * width).zip(scales.chunks_mut(share * each));
            for (part, (integers, scales)) in parts.enumerate() {
                scope.spawn(move || {
                    let mut numbers = vec![0.0; width];
                    let rows = integers.chunks_exact_mut(width).zip(scales.chunks_exact_mut(each));
                    for (at, (q, scales)) in rows.enumerate() {
                        float.read(part * share + at, &mut numbers);
                        quantise_row(&numbers, scheme, group, q, scales);
                    }
                });
            }
        });
        match scales.iter().position(|scale| !scale.is_finite()) {
            Some(at) => Err(QuantiseError::NotFinite {
                what: format!("tensor {}, output channel {}", float.view.name, at / each.max(1)),
            }),
            None => Ok(Self { integers, scales, group }),
        }
    }

    /// Returns the sum of the integers in each output channel.
    fn sums(&self, width: usize) -> impl Iterator<Item = i64> + '_ {
        self.integers.chunks_exact(width).map(|row| row.iter().map(|&q| i64::from(q)).sum())
    }

    /// Writes the numbers that output channel `row` stands for to `out`.
    fn read(&self, row: usize, width: usize, out: &mut [f32]) {
        let each = width / self.group;
        let scales = &self.scales[row * each..(row + 1) * each];
        let q = self.integers[row * width..(row + 1) * width].chunks(self.group);
        for ((out, q), scale) in out.chunks_mut(self.group).zip(q).zip(scales) {
            out.iter_mut().zip(q).for_each(|(out, q)| *out = f32::from(*q) * scale);
        }
    }
}

/// Quantises an output channel. The devices' own quantisation does it, so that a file has the numbers of `--dtype`.
fn quantise_row(numbers: &[f32], scheme: Scheme, group: usize, q: &mut [i8], scales: &mut [f32]) {
    let width = numbers.len();
    let data: &[u8] = bytemuck::cast_slice(numbers);
    let dense = HostTensor { dtype: DType::Fp32, rows: 1, width, data };
    let mut scratch = vec![0.0; width];
    match scheme {
        Scheme::W4a16 | Scheme::Int4 => {
            Int4Weight::quantised(dense, group, Inputs::Float).row(0, &mut scratch, q, scales);
        }
        Scheme::W8a8s => scales[0] = sparse_row(numbers, q),
        Scheme::W8a8 | Scheme::W8a8Dynamic | Scheme::W8a16 | Scheme::Int8 => {
            scales[0] = Int8Weight::quantised(dense, Inputs::Float).row(0, &mut scratch, q);
        }
    }
    scales.iter_mut().filter(|scale| **scale == 0.0).for_each(|scale| *scale = 1.0);
}

/// Quantises an output channel to integers from -8 to 7 and returns its scale. 33 scales from `max|w| / 7` down to half of it
/// are tried. The one with the least sum of squared errors is taken, the first of equal ones. Most weights of a channel then
/// are 0, which makes the weight sparse. A channel that is not finite has the scale NaN.
fn sparse_row(numbers: &[f32], q: &mut [i8]) -> f32 {
    const CANDIDATES: u8 = 33;
    let largest = numbers.iter().fold(0.0f32, |most, w| most.max(w.abs()));
    if numbers.iter().any(|w| !w.is_finite()) {
        return f32::NAN;
    }
    let integer = |w: f32, scale: f32| (w / scale).round_ties_even().clamp(-8.0, 7.0);
    let (mut least, mut best) = (f64::INFINITY, 0.0);
    for candidate in 0..CANDIDATES {
        let scale = largest / 7.0 * (1.0 - 0.5 * f32::from(candidate) / f32::from(CANDIDATES - 1));
        if scale == 0.0 {
            break;
        }
        let error = |w: &f32| f64::from(integer(*w, scale) * scale - w).powi(2);
        let error: f64 = numbers.iter().map(error).sum();
        if error < least {
            (least, best) = (error, scale);
        }
    }
    if best > 0.0 {
        q.iter_mut().zip(numbers).for_each(|(q, w)| *q = integer(*w, best) as i8);
    }
    best
}

/// A tensor of a quantised layer.
pub(super) struct NewTensor {
    pub(super) suffix: Suffix,
    pub(super) data: Vec<u8>,
}

/// Returns `deq_scale`, the product of the scales of inputs and weight.
pub(super) fn deq_scales(input: StaticInput, integers: &IntegerRows) -> Vec<f32> {
    integers.scales.iter().map(|scale| (input.scale * scale).max(f32::MIN_POSITIVE)).collect()
}

/// Returns `quant_bias = round(bias / deq_scale) - offset * (sum of the channel's integers)`.
///
/// # Errors
/// A bias exceeds the 32 bits that the sum has.
pub(super) fn quant_biases(
    name: &str,
    input: StaticInput,
    deq_scales: &[f32],
    integers: &IntegerRows,
    width: usize,
    bias: Option<&[f32]>,
) -> Result<Vec<i32>, QuantiseError> {
    let of = |(row, sum): (usize, i64)| {
        let bias = bias.map_or(0.0, |bias| f64::from(bias[row]) / f64::from(deq_scales[row]));
        let found = bias.round_ties_even() - f64::from(input.offset) * sum as f64;
        if f64::from(i32::MIN) <= found && found <= f64::from(i32::MAX) {
            Ok(found as i32)
        } else {
            Err(QuantiseError::NotFinite {
                what: format!("the bias of {name}, output channel {row}, {found} in units of its scale"),
            })
        }
    };
    integers.sums(width).enumerate().map(of).collect()
}

/// The output error of a layer over the samples.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct OutputError {
    /// `sum (y' - y)^2`.
    pub(super) absolute: f64,
    /// That over `sum y^2`.
    pub(super) relative: f64,
}

/// The form in which inputs enter a layer's product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum InputForm {
    /// As they are.
    Float,
    /// As integers, by a scale and an offset of the layer.
    Static(StaticInput),
    /// As integers, by a scale of each token.
    PerToken,
}

impl InputForm {
    /// Returns rows of inputs as the product sees them: quantised and dequantised.
    fn read(self, rows: &[f32], width: usize) -> Vec<f32> {
        match self {
            Self::Float => rows.to_vec(),
            Self::Static(input) => {
                rows.iter().map(|&x| (f32::from(input.quantise(x)) - input.offset) * input.scale).collect()
            }
            Self::PerToken => {
                let mut q = vec![0; width];
                let mut scale = [0.0];
                let of_row = |row: &[f32]| {
                    // Tokens and output channels are quantised by the same rule.
                    quantise_row(row, Scheme::W8a8Dynamic, width, &mut q, &mut scale);
                    q.iter().map(|&q| f32::from(q) * scale[0]).collect::<Vec<f32>>()
                };
                rows.chunks_exact(width).flat_map(of_row).collect()
            }
        }
    }
}

/// Returns the output error of the layer for each of these forms of its inputs.
pub(super) fn output_errors(
    float: &FloatRows<'_>,
    integers: &IntegerRows,
    samples: &[f32],
    inputs: &[InputForm],
) -> Vec<OutputError> {
    let FloatRows { rows, width, .. } = *float;
    let samples = match float.factors {
        Some(factors) => samples.iter().zip(factors.iter().cycle()).map(|(x, factor)| x / factor).collect(),
        None => samples.to_vec(),
    };
    let entering: Vec<Vec<f32>> = inputs.iter().map(|input| input.read(&samples, width)).collect();
    // One slot per output channel and quantity, so that the sum does not depend on the number of threads.
    let each = inputs.len() + 1;
    let mut sums = vec![0f64; rows * each];
    let share = rows.div_ceil(available_parallelism().map_or(1, usize::from)).max(1);
    std::thread::scope(|scope| {
        for (part, sums) in sums.chunks_mut(share * each).enumerate() {
            let (samples, entering) = (&samples, &entering);
            scope.spawn(move || {
                let (mut exact, mut rounded) = (vec![0.0; width], vec![0.0; width]);
                for (at, sums) in sums.chunks_exact_mut(each).enumerate() {
                    let row = part * share + at;
                    float.read(row, &mut exact);
                    integers.read(row, width, &mut rounded);
                    for sample in 0..samples.len() / width {
                        let of = |all: &[f32]| sample * width..(sample * width + width).min(all.len());
                        let y = dot(&samples[of(samples)], &exact);
                        sums[0] += f64::from(y) * f64::from(y);
                        for (sum, x) in sums[1..].iter_mut().zip(entering) {
                            *sum += f64::from(dot(&x[of(x)], &rounded) - y).powi(2);
                        }
                    }
                }
            });
        }
    });
    let total = |of: usize| sums.iter().skip(of).step_by(each).sum::<f64>();
    let norm = total(0);
    let error = |of| {
        let absolute = total(of);
        OutputError { absolute, relative: if norm > 0.0 { absolute / norm } else { 0.0 } }
    };
    (1..each).map(error).collect()
}

/// Returns the product of two vectors. Eight sums run beside each other, which the compiler turns into vectors.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 8;
    let mut sums = [0.0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_per_token_are_multiples_of_their_largest_over_127() {
        let rows = [1.0, -0.5, 0.003, 0.0, 0.0, 0.0];
        let of = |x: f32| (x * 127.0).round_ties_even() / 127.0;
        let found = InputForm::PerToken.read(&rows, 3);
        for (found, expected) in found.iter().zip([1.0, of(-0.5), of(0.003), 0.0, 0.0, 0.0]) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        assert_eq!(InputForm::Float.read(&rows, 3), rows);
    }
}
