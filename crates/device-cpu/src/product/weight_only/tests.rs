//! Tests that integer weights with floating-point inputs give what the reference device's formula says, to the bit, on
//! every set.

use proptest::prelude::*;

use glmbench_device::reference::Linear;
use glmbench_device::{DType, HostTensor, Inputs, Int4Weight, Int8Weight, LinearWeight};

use super::{Int4, Int8, WeightOnly};
use crate::pack::PANEL;
use crate::pack::{Rows, RowsMut};
use crate::packs::Packs;
use crate::pool::Pool;
use crate::product::{Epilogue, Scratch, WeightKernels};
use crate::simd::{InstructionSet, Vectors};

/// Applies packed kernels to rows of `k` numbers.
pub(in crate::product) fn apply(
    kernels: &dyn WeightKernels,
    weight: LinearWeight<'_>,
    bias: Option<HostTensor<'_>>,
    x: &[f32],
    threads: usize,
) -> Vec<f32> {
    let (n, k) = (weight.rows(), weight.width());
    let rows = x.len() / k;
    let mut pool = Pool::new(threads);
    let group = weight.storage(DType::Fp16).group(k);
    let packed = kernels.pack(weight, bias, (&mut Packs::Fresh, &mut pool)).unwrap();
    assert_eq!(packed.shape(), (n, k));
    let (x_stride, stride) = (k.next_multiple_of(PANEL), n.next_multiple_of(PANEL));
    let mut padded = vec![f32::NAN; rows * x_stride + PANEL];
    x.chunks_exact(k).zip(padded.chunks_mut(x_stride)).for_each(|(x, out)| out[..k].copy_from_slice(x));
    let mut out = vec![f32::NAN; rows * stride + PANEL];
    let mut scratch = Scratch::new(threads).unwrap();
    if let Some(row_bytes) = kernels.row_bytes(k, group) {
        scratch.reserve(row_bytes).unwrap();
        // The earlier contents must not matter.
        scratch.rows.fill(1);
    }
    packed.multiply(
        Rows { data: &padded, rows, stride: x_stride },
        Epilogue::Bias,
        &mut RowsMut { data: &mut out, stride },
        &mut scratch,
        &mut pool,
    );
    out.chunks_exact(stride).take(rows).flat_map(|row| row[..n].to_vec()).collect()
}

/// Numbers that tell the orders of sums apart.
pub(in crate::product) fn numbers(count: usize, step: usize) -> Vec<f32> {
    (0..count).map(|i| (i * step % 251) as f32 / 16.0 - 7.7).collect()
}

pub(in crate::product) fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Checks a weight on every set against the formula.
fn check(
    make: impl Fn(Vectors) -> Box<dyn WeightKernels>,
    weight: LinearWeight<'_>,
    (x, bias): (&[f32], Option<&[f32]>),
    dtype: DType,
) {
    let bias = bias.map(bytes);
    let host =
        || bias.as_ref().map(|data| HostTensor { dtype: DType::Fp32, rows: 1, width: weight.rows(), data });
    let plain = Linear::new(weight, host());
    let expected: Vec<f32> = x.chunks_exact(weight.width()).flat_map(|x| plain.row(x, dtype)).collect();
    for set in InstructionSet::ALL {
        let Some(vectors) = Vectors::detect(set, dtype) else { continue };
        for threads in [1, 3] {
            let found = apply(&*make(vectors), weight, host(), x, threads);
            for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
                let same = a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
                assert!(
                    same,
                    "{set:?} on {threads} at {i} of {:?}: {a} for {b}",
                    weight.shape(glmbench_device::Role::Down)
                );
            }
        }
    }
}

fn int8(vectors: Vectors) -> Box<dyn WeightKernels> {
    Box::new(WeightOnly::<Int8>::new(vectors))
}

fn int4(vectors: Vectors) -> Box<dyn WeightKernels> {
    Box::new(WeightOnly::<Int4>::new(vectors))
}

/// Shapes that fill no panel, no line and no block, of few and of many rows.
const SHAPES: [(usize, usize, usize); 7] =
    [(1, 17, 3), (1, 150, 70), (2, 49, 130), (5, 33, 257), (9, 70, 64), (30, 40, 600), (61, 205, 520)];

#[test]
fn layers_are_what_the_formula_says_on_every_set() {
    for (rows, n, k) in SHAPES {
        let (x, w) = (numbers(rows * k, 37), bytes(&numbers(n * k, 91)));
        let bias = numbers(n, 17);
        let dense = HostTensor { dtype: DType::Fp32, rows: n, width: k, data: &w };
        for dtype in [DType::Fp16, DType::Fp32] {
            let weight = LinearWeight::Int8(Int8Weight::quantised(dense, Inputs::Float));
            check(int8, weight, (&x, Some(&bias)), dtype);
            for group in [1, 35, 128, k] {
                let weight = LinearWeight::Int4(Int4Weight::quantised(dense, group, Inputs::Float));
                check(int4, weight, (&x, None), dtype);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Stored integers, with rows that contain NaN or infinity.
    #[test]
    fn stored_weights_are_what_the_formula_says_on_every_set(
        rows in 1..30usize, n in 1..40usize, groups in 1..4usize, group in 1..20usize, seed in 1..1000usize,
        spoilt in prop::option::of(prop::sample::select(vec![f32::NAN, f32::INFINITY])),
    ) {
        let k = 2 * group * groups;
        let mut x = numbers(rows * k, seed);
        if let Some(with) = spoilt {
            x[k / 2] = with;
        }
        let packed: Vec<u8> = (0..n * k / 2).map(|i| (i * seed) as u8).collect();
        let scales: Vec<f32> = (0..n * groups).map(|i| 0.25 + (i * seed % 7) as f32).collect();
        let weight = Int4Weight::stored(n, k, 2 * group, &packed, &scales, Inputs::Float).unwrap();
        check(int4, LinearWeight::Int4(weight), (&x, None), DType::Bf16);
        let integers: Vec<i8> = packed.iter().chain(&packed).map(|q| (*q as i8).max(-127)).collect();
        let weight = Int8Weight::stored(n, k, &integers, &scales[..n], Inputs::Float).unwrap();
        check(int8, LinearWeight::Int8(weight), (&x, None), DType::Bf16);
    }
}
