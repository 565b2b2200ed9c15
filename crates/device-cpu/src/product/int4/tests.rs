//! Tests that int4 weights with int8 activations give what the reference device's formula says, to the bit, on every set.

use proptest::prelude::*;

use glmbench_device::reference::Linear;
use glmbench_device::{DType, HostTensor, Inputs, Int4Weight, LinearWeight};

use super::super::int8::Int8Gemm;
use super::super::weight_only::tests::{apply, bytes, numbers};
use super::Int4Kernels;
use crate::simd::{InstructionSet, Vectors};

/// Checks a weight on every set against the formula.
fn check(weight: Int4Weight<'_>, x: &[f32], bias: Option<&[f32]>) {
    let weight = LinearWeight::Int4(weight);
    let bias = bias.map(bytes);
    let host =
        || bias.as_ref().map(|data| HostTensor { dtype: DType::Fp32, rows: 1, width: weight.rows(), data });
    let plain = Linear::new(weight, host());
    let expected: Vec<f32> = x.chunks_exact(weight.width()).flat_map(|x| plain.row(x, DType::Fp16)).collect();
    for set in InstructionSet::ALL {
        let Some(vectors) = Vectors::detect(set, DType::Fp16) else { continue };
        for (gemm, threads) in Int8Gemm::all_of(set).flat_map(|gemm| [(gemm, 1), (gemm, 3)]) {
            let found = apply(&Int4Kernels { vectors, gemm }, weight, host(), x, threads);
            for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
                let same = a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
                assert!(same, "{} on {threads} at {i}: {a} for {b}", gemm.name());
            }
        }
    }
}

#[test]
fn layers_are_what_the_formula_says_on_every_set() {
    for (rows, n, k) in
        [(1, 17, 3), (1, 150, 70), (2, 49, 130), (5, 133, 257), (8, 70, 64), (30, 40, 2600), (530, 21, 70)]
    {
        let (x, w, bias) = (numbers(rows * k, 37), bytes(&numbers(n * k, 91)), numbers(n, 17));
        let dense = HostTensor { dtype: DType::Fp32, rows: n, width: k, data: &w };
        for group in [1, 35, 63, 128, k] {
            check(Int4Weight::quantised(dense, group, Inputs::Int8PerToken), &x, Some(&bias));
        }
    }
}

/// All weights are -8, which a dense weight never has, and all activations the largest.
#[test]
fn deep_products_of_the_largest_numbers_are_exact() {
    let k = 13_696;
    let packed = vec![0x88; k];
    for sign in [1.0, -1.0] {
        let weight = Int4Weight::stored(2, k, k, &packed, &[0.5, 0.25], Inputs::Int8PerToken).unwrap();
        check(weight, &vec![sign * 3.0; 2 * k], None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

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
        check(Int4Weight::stored(n, k, 2 * group, &packed, &scales, Inputs::Int8PerToken).unwrap(), &x, None);
    }
}
