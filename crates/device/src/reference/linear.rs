//! Linear layers of every weight form, in plain loops: the formulas that all devices are tested against.

use crate::{
    DType, HostTensor, Inputs, Int4Weight, Int8StaticWeight, Int8Weight, LinearWeight, StaticChannel,
    StaticInput,
};

/// A weight `[out, in]` and an optional bias `[out]`.
#[derive(Debug)]
pub struct Linear {
    width: usize,
    /// The numbers or integers of a row are `width` long.
    weight: Weight,
    bias: Option<Vec<f32>>,
}

/// The numbers of a weight, by form.
#[derive(Debug)]
enum Weight {
    Dense(Vec<f32>),
    Int8 { integers: Vec<i8>, scales: Vec<f32>, inputs: Inputs },
    Int8Static { integers: Vec<i8>, channels: Vec<StaticChannel>, input: StaticInput },
    Int4 { integers: Vec<i8>, scales: Vec<f32>, group: usize, inputs: Inputs },
}

/// The largest integer of inputs that are quantised per token.
const LARGEST: f32 = 127.0;

impl Linear {
    /// Copies a weight and its bias.
    pub fn new(weight: LinearWeight<'_>, bias: Option<HostTensor<'_>>) -> Self {
        let width = weight.width();
        let weight = match weight {
            LinearWeight::Dense(dense) => Weight::Dense(dense.to_f32()),
            LinearWeight::Int8(int8) => of_int8(&int8),
            LinearWeight::Int8Static(int8) => of_int8_static(&int8),
            LinearWeight::Int4(int4) => of_int4(&int4),
        };
        Self { width, weight, bias: bias.map(|b| b.to_f32()) }
    }

    /// Computes the outputs of one row of inputs, rounded to `dtype` as a device of this type rounds them. Biases are
    /// rounded to the type, too.
    ///
    /// Integers with integers: the sums are exact and wrap at 32 bits. Integers with floating-point inputs: a sum is a
    /// chain of fused multiply-adds over ascending inputs. Either way, the sums of the groups are added up by fused
    /// multiply-adds with their scales.
    pub fn row(&self, x: &[f32], dtype: DType) -> Vec<f32> {
        let biased =
            |(n, y): (usize, f32)| dtype.round(self.bias.as_ref().map_or(y, |bias| y + dtype.round(bias[n])));
        self.products(x).into_iter().enumerate().map(biased).collect()
    }

    /// Returns the products without bias, in fp32.
    fn products(&self, x: &[f32]) -> Vec<f32> {
        match &self.weight {
            Weight::Dense(numbers) => {
                numbers.chunks_exact(self.width).map(|w| x.iter().zip(w).map(|(x, w)| x * w).sum()).collect()
            }
            Weight::Int8 { integers, scales, inputs: Inputs::Float } => {
                let rows = integers.chunks_exact(self.width).zip(scales);
                rows.map(|(w, scale)| chain(x, w).mul_add(*scale, 0.0)).collect()
            }
            Weight::Int8 { integers, scales, .. } => {
                let (q, x_scale) = quantise(x);
                let rows = integers.chunks_exact(self.width).zip(scales);
                rows.map(|(w, scale)| sum(&q, w) as f32 * x_scale * scale).collect()
            }
            Weight::Int8Static { integers, channels, input } => {
                let q: Vec<i8> = x.iter().map(|x| input.quantise(*x)).collect();
                // A row with NaN has no numbers.
                let valid = if x.iter().any(|x| x.is_nan()) { f32::NAN } else { 1.0 };
                let rows = integers.chunks_exact(self.width).zip(channels);
                let of_row = |(w, channel): (&[i8], &StaticChannel)| {
                    sum(&q, w).wrapping_add(channel.quant_bias) as f32 * valid * channel.deq_scale
                };
                rows.map(of_row).collect()
            }
            Weight::Int4 { integers, scales, group, inputs } => {
                let (q, x_scale) = quantise(x);
                let of_row = |(w, scales): (&[i8], &[f32])| {
                    let groups = w.chunks(*group).zip(scales).enumerate();
                    let of_group = |total: f32, (g, (w, scale)): (usize, (&[i8], &f32))| match inputs {
                        Inputs::Float => chain(&x[g * group..], w).mul_add(*scale, total),
                        _ => (sum(&q[g * group..], w) as f32).mul_add(*scale, total),
                    };
                    let total = groups.fold(0.0, of_group);
                    if *inputs == Inputs::Float { total } else { total * x_scale }
                };
                let scales = scales.chunks_exact(self.width.div_ceil(*group));
                integers.chunks_exact(self.width).zip(scales).map(of_row).collect()
            }
        }
    }
}

fn of_int8(int8: &Int8Weight<'_>) -> Weight {
    let mut integers = vec![0; int8.rows * int8.width];
    let mut numbers = vec![0.0; int8.width];
    let rows = integers.chunks_exact_mut(int8.width).enumerate();
    let scales = rows.map(|(row, out)| int8.row(row, &mut numbers, out)).collect();
    Weight::Int8 { integers, scales, inputs: int8.inputs }
}

fn of_int8_static(int8: &Int8StaticWeight<'_>) -> Weight {
    let mut integers = vec![0; int8.rows * int8.width];
    let mut numbers = vec![0.0; int8.width];
    let rows = integers.chunks_exact_mut(int8.width).enumerate();
    let channels = rows.map(|(row, out)| int8.row(row, &mut numbers, out)).collect();
    Weight::Int8Static { integers, channels, input: int8.input }
}

fn of_int4(int4: &Int4Weight<'_>) -> Weight {
    let mut integers = vec![0; int4.rows * int4.width];
    let mut scales = vec![0.0; int4.rows * int4.groups()];
    let mut numbers = vec![0.0; int4.width];
    let rows = integers.chunks_exact_mut(int4.width).zip(scales.chunks_exact_mut(int4.groups()));
    rows.enumerate().for_each(|(row, (out, scales))| int4.row(row, &mut numbers, out, scales));
    Weight::Int4 { integers, scales, group: int4.group, inputs: int4.inputs }
}

/// Sums products of numbers with integers, one fused multiply-add after the other.
fn chain(x: &[f32], w: &[i8]) -> f32 {
    x.iter().zip(w).fold(0.0, |sum, (x, w)| x.mul_add(f32::from(*w), sum))
}

/// Sums products of integers; wraps at 32 bits.
fn sum(x: &[i8], w: &[i8]) -> i32 {
    x.iter().zip(w).fold(0, |sum, (x, w)| sum.wrapping_add(i32::from(*x) * i32::from(*w)))
}

/// Quantises a row with one scale: `max|x| / 127`, ties to even. A row with NaN or infinity has the scale NaN.
fn quantise(x: &[f32]) -> (Vec<i8>, f32) {
    if x.iter().any(|x| !x.is_finite()) {
        return (vec![0; x.len()], f32::NAN);
    }
    let scale = x.iter().fold(0.0, |most: f32, x| most.max(x.abs())) / LARGEST;
    let q = |x: &f32| if scale == 0.0 { 0.0 } else { (x / scale).round_ties_even().clamp(-LARGEST, LARGEST) };
    (x.iter().map(|x| q(x) as i8).collect(), scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{StaticChannels, StaticInput};

    const X: [f32; 4] = [0.25, -1.0, 3.0, 100.0];

    /// By hand: inputs are [2, -1, 7, 127] with the offset 1, and 127 is where 201 is clipped.
    #[test]
    fn static_layers_add_the_integer_bias_before_they_scale() {
        let input = StaticInput::new(0.5, 1.0).unwrap();
        let channels = StaticChannels { deq_scale: &[0.125, 0.5], quant_bias: &[-3, 5] };
        let integers = [1, 2, 3, 4, -127, 0, 1, 0];
        let weight = Int8StaticWeight::stored(2, 4, &integers, input, channels).unwrap();
        let linear = Linear::new(LinearWeight::Int8Static(weight), None);
        // 0.25 / 0.5 + 1 = 1.5 goes to the even 2.
        let sums = [526, -242];
        let expected = [sums[0] as f32 * 0.125, sums[1] as f32 * 0.5];
        assert_eq!(linear.row(&X, DType::Fp32), expected);
        let nan = linear.row(&[f32::NAN, 0.0, 0.0, 0.0], DType::Fp32);
        assert!(nan.iter().all(|y| y.is_nan()), "{nan:?}");
        let clipped = linear.row(&[f32::INFINITY, 0.0, 0.0, 0.0], DType::Fp32);
        assert_eq!(clipped, [(127 + 2 + 3 + 4 - 3) as f32 * 0.125, (-127 * 127 + 1 + 5) as f32 * 0.5]);
    }

    #[test]
    fn integer_weights_are_their_numbers_times_floating_point_inputs() {
        let int8 = Int8Weight::stored(1, 4, &[1, -2, 3, 4], &[0.5], Inputs::Float).unwrap();
        let linear = Linear::new(LinearWeight::Int8(int8), None);
        assert_eq!(linear.row(&X, DType::Fp32), [0.5 * (0.25 + 2.0 + 9.0 + 400.0)]);
        let int4 = Int4Weight::unpacked(1, 4, 2, &[1, -2, 3, -8], &[0.5, 0.25], Inputs::Float).unwrap();
        let linear = Linear::new(LinearWeight::Int4(int4), None);
        assert_eq!(linear.row(&X, DType::Fp32), [0.5 * 2.25 + 0.25 * (9.0 - 800.0)]);
    }

    /// The inputs are exact multiples of their scale.
    #[test]
    fn int4_weights_with_int8_inputs_sum_group_by_group() {
        let x = [127.0, -3.0, 2.0, 64.0];
        let int4 =
            Int4Weight::unpacked(1, 4, 2, &[1, -2, 7, -8], &[0.5, 0.25], Inputs::Int8PerToken).unwrap();
        let linear = Linear::new(LinearWeight::Int4(int4), None);
        assert_eq!(linear.row(&x, DType::Fp32), [0.5 * 133.0 + 0.25 * (14.0 - 512.0)]);
    }
}
