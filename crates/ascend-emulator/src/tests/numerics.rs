//! Operators against plain loops in fp64. The bounds follow from the number format. Rounding the result contributes half a
//! unit in the last place, and fp32 accumulation contributes `k * 2^-24 * sum|a b|`.

use std::ptr::null_mut;

use super::session::{Array, Session, assert_close, epsilon, message, random, rounded, tensor};
use crate::half::DType::{Bf16, Float, Float16, Int32, Int64};
use crate::half::{DType, round_to};
use crate::ops::elementwise::{
    aclnnAdd, aclnnAddGetWorkspaceSize, aclnnCast, aclnnCastGetWorkspaceSize, aclnnInplaceAdd,
    aclnnInplaceAddGetWorkspaceSize, aclnnInplaceCopy, aclnnInplaceCopyGetWorkspaceSize, aclnnMul,
    aclnnMulGetWorkspaceSize, aclnnMuls, aclnnMulsGetWorkspaceSize, aclnnPermute,
    aclnnPermuteGetWorkspaceSize, aclnnSwiGlu, aclnnSwiGluGetWorkspaceSize,
};
use crate::ops::indexing::{
    aclnnEmbedding, aclnnEmbeddingGetWorkspaceSize, aclnnGatherV2, aclnnGatherV2GetWorkspaceSize,
    aclnnInplaceIndexCopy, aclnnInplaceIndexCopyGetWorkspaceSize, aclnnScatterPaKvCache,
    aclnnScatterPaKvCacheGetWorkspaceSize, aclnnSlice, aclnnSliceGetWorkspaceSize,
};
use crate::ops::linear::{
    aclnnAddmm, aclnnAddmmGetWorkspaceSize, aclnnBatchMatMul, aclnnBatchMatMulGetWorkspaceSize,
    aclnnCalculateMatmulWeightSizeV2, aclnnMatmul, aclnnMatmulGetWorkspaceSize, aclnnMatmulWeightNz,
    aclnnMatmulWeightNzGetWorkspaceSize, aclnnMm, aclnnMmGetWorkspaceSize, aclnnTransMatmulWeight,
    aclnnTransMatmulWeightGetWorkspaceSize,
};
use crate::ops::norm::{
    aclnnAddRmsNorm, aclnnAddRmsNormGetWorkspaceSize, aclnnArgMax, aclnnArgMaxGetWorkspaceSize, aclnnRmsNorm,
    aclnnRmsNormGetWorkspaceSize, aclnnSoftmax, aclnnSoftmaxGetWorkspaceSize,
};
use crate::ops::rotary::{
    aclnnApplyRotaryPosEmb, aclnnApplyRotaryPosEmbGetWorkspaceSize, aclnnApplyRotaryPosEmbV2,
    aclnnApplyRotaryPosEmbV2GetWorkspaceSize, aclnnRotaryPositionEmbedding,
    aclnnRotaryPositionEmbeddingGetWorkspaceSize,
};
use crate::tensor::{
    RawScalar, aclCreateIntArray, aclCreateScalar, aclDestroyIntArray, aclDestroyScalar, aclDestroyTensor,
};

const DUO: &str = "soc = Ascend310P3";
const A2: &str = "soc = Ascend910B4";

fn number(x: f32) -> RawScalar {
    let mut x = x;
    // SAFETY: a number of the type.
    unsafe { aclCreateScalar((&raw mut x).cast(), Float as i32) }
}

/// `a[m,k] * w[n,k]^T` in fp64, and the sum of magnitudes for the bound.
fn product(a: &[f32], w: &[f32], m: usize, k: usize, n: usize) -> (Vec<f32>, Vec<f32>) {
    let (mut sums, mut bounds) = (Vec::new(), Vec::new());
    for i in 0..m {
        for j in 0..n {
            let pairs = (0..k).map(|l| f64::from(a[i * k + l]) * f64::from(w[j * k + l]));
            sums.push(pairs.clone().sum::<f64>() as f32);
            bounds.push(pairs.map(f64::abs).sum::<f64>() as f32);
        }
    }
    (sums, bounds)
}

fn assert_product(found: &[f32], (sums, bounds): &(Vec<f32>, Vec<f32>), k: usize, dtype: DType) {
    for ((f, e), b) in found.iter().zip(sums).zip(bounds) {
        let bound = epsilon(dtype) * e.abs() + k as f32 * 6e-8 * b + 6e-8;
        assert!((f - e).abs() <= bound, "{f} instead of {e}, bound {bound}");
    }
}

#[test]
fn a_product_is_right_in_every_layout_of_the_weights() {
    for (settings, dtype) in [(DUO, Float16), (A2, Float16), (A2, Bf16), (A2, Float)] {
        let s = Session::new(settings);
        // Sizes around the tile limits: 6 rows, 16 columns, depth 1024.
        for (m, k, n) in [(1, 48, 33), (7, 1040, 16), (13, 32, 50)] {
            let a = rounded(dtype, &random(1, m * k));
            let w = rounded(dtype, &random(2, n * k));
            let expected = product(&a, &w, m, k, n);
            let (mi, ki, ni) = (m as i64, k as i64, n as i64);
            let x = Array::new(dtype, &[mi, ki], &a);
            let weight = Array::new(dtype, &[ni, ki], &w);
            let transposed: Vec<f32> = (0..k * n).map(|i| w[i % n * k + i / n]).collect();
            let straight = Array::new(dtype, &[ki, ni], &transposed);
            let view = tensor(weight.memory.0, dtype, &[ki, ni], Some(&[1, ki]), 0, 2, &[ni, ki]);
            for mat2 in [view, straight.tensor] {
                let out = Array::empty(dtype, &[mi, ni]);
                // SAFETY: live handles.
                s.run(
                    |w, e| unsafe { aclnnMatmulGetWorkspaceSize(x.tensor, mat2, out.tensor, 0, w, e) },
                    aclnnMatmul,
                );
                assert_product(&out.read(), &expected, k, dtype);
                let again = Array::empty(dtype, &[mi, ni]);
                // SAFETY: live handles.
                s.run(
                    |w, e| unsafe { aclnnMmGetWorkspaceSize(x.tensor, mat2, again.tensor, 0, w, e) },
                    aclnnMm,
                );
                assert_eq!(out.read(), again.read());
            }
            // SAFETY: a handle of our own.
            unsafe { aclDestroyTensor(view) };
        }
        s.end();
    }
}

#[test]
fn blocked_weights_give_the_same_bits_and_need_the_block_format() {
    let s = Session::new(DUO);
    let (m, k, n) = (5usize, 40usize, 24usize);
    let (a, w) = (rounded(Float16, &random(3, m * k)), rounded(Float16, &random(4, n * k)));
    let x = Array::new(Float16, &[5, 40], &a);
    let plain = Array::new(Float16, &[24, 40], &w);
    let view = tensor(plain.memory.0, Float16, &[40, 24], Some(&[1, 40]), 0, 2, &[24, 40]);
    let expected = Array::empty(Float16, &[5, 24]);
    // SAFETY: live handles.
    s.run(
        |w, e| unsafe { aclnnMatmulGetWorkspaceSize(x.tensor, view, expected.tensor, 0, w, e) },
        aclnnMatmul,
    );

    let dims = [24i64, 40];
    let mut elements = 0u64;
    // SAFETY: live handles, a place for the number.
    unsafe {
        let shape = aclCreateIntArray(dims.as_ptr(), 2);
        assert_eq!(aclnnCalculateMatmulWeightSizeV2(shape, 1, &raw mut elements), 0);
        aclDestroyIntArray(shape);
    }
    assert_eq!(elements, 32 * 48);
    let room = Array::empty(Float16, &[elements as i64]);
    let bytes: Vec<u8> = w.iter().flat_map(|x| crate::half::f32_to_f16(*x).to_le_bytes()).collect();
    room.write(&bytes);
    let weight = tensor(room.memory.0, Float16, &[24, 40], None, 0, 2, &[24, 40]);
    // SAFETY: a live handle.
    s.run(|w, e| unsafe { aclnnTransMatmulWeightGetWorkspaceSize(weight, w, e) }, aclnnTransMatmulWeight);
    let blocks = tensor(room.memory.0, Float16, &[40, 24], Some(&[1, 40]), 0, 29, &[3, 2, 16, 16]);
    for nz in [true, false] {
        let out = Array::empty(Float16, &[5, 24]);
        if nz {
            s.run(
                // SAFETY: live handles.
                |w, e| unsafe { aclnnMatmulWeightNzGetWorkspaceSize(x.tensor, blocks, out.tensor, 0, w, e) },
                aclnnMatmulWeightNz,
            );
        } else {
            // SAFETY: live handles.
            s.run(
                |w, e| unsafe { aclnnMatmulGetWorkspaceSize(x.tensor, blocks, out.tensor, 0, w, e) },
                aclnnMatmul,
            );
        }
        assert_eq!(out.read(), expected.read());
    }
    // Read as row-major, the blocks form another matrix.
    let wrong = tensor(room.memory.0, Float16, &[40, 24], Some(&[1, 40]), 0, 2, &[24, 40]);
    let out = Array::empty(Float16, &[5, 24]);
    // SAFETY: live handles.
    s.run(|w, e| unsafe { aclnnMatmulGetWorkspaceSize(x.tensor, wrong, out.tensor, 0, w, e) }, aclnnMatmul);
    assert_ne!(out.read(), expected.read());
    let (mut size, mut executor) = (0, null_mut());
    // SAFETY: live handles.
    unsafe {
        let code = aclnnMatmulWeightNzGetWorkspaceSize(
            x.tensor,
            view,
            out.tensor,
            0,
            &raw mut size,
            &raw mut executor,
        );
        assert_eq!(code, 161_002);
        assert!(message().contains("mat2: expected the format FRACTAL_NZ"));
        for t in [view, weight, blocks, wrong] {
            aclDestroyTensor(t);
        }
    }
    drop((x, plain, expected, room, out));
    s.end();
}

#[test]
fn a_row_does_not_depend_on_the_others() {
    let s = Session::new(DUO);
    let (k, n) = (1100usize, 40usize);
    let a = random(5, 13 * k);
    let w = Array::new(Float16, &[k as i64, n as i64], &random(6, n * k));
    let mut all = Vec::new();
    for m in [13usize, 1] {
        let x = Array::new(Float16, &[m as i64, k as i64], &a[(13 - m) * k..]);
        let out = Array::empty(Float16, &[m as i64, n as i64]);
        // SAFETY: live handles.
        s.run(
            |ws, e| unsafe { aclnnMatmulGetWorkspaceSize(x.tensor, w.tensor, out.tensor, 0, ws, e) },
            aclnnMatmul,
        );
        all.push(out.read());
    }
    assert_eq!(all[0][12 * n..], all[1][..]);
    drop(w);
    s.end();
}

#[test]
fn addmm_rounds_once_and_broadcasts_the_bias() {
    let s = Session::new(DUO);
    let (m, k, n) = (4usize, 64usize, 20usize);
    let (a, w) = (rounded(Float16, &random(7, m * k)), rounded(Float16, &random(8, n * k)));
    let bias = rounded(Float16, &random(9, n));
    let (x, weight) = (Array::new(Float16, &[4, 64], &a), Array::new(Float16, &[20, 64], &w));
    let c = Array::new(Float16, &[20], &bias);
    let view = tensor(weight.memory.0, Float16, &[64, 20], Some(&[1, 64]), 0, 2, &[20, 64]);
    let out = Array::empty(Float16, &[4, 20]);
    let (one, two) = (number(1.0), number(2.0));
    s.run(
        // SAFETY: live handles.
        |ws, e| unsafe {
            aclnnAddmmGetWorkspaceSize(c.tensor, x.tensor, view, two, one, out.tensor, 0, ws, e)
        },
        aclnnAddmm,
    );
    let (mut sums, bounds) = product(&a, &w, m, k, n);
    for (i, sum) in sums.iter_mut().enumerate() {
        *sum += 2.0 * bias[i % n];
    }
    assert_product(&out.read(), &(sums, bounds), k + 2, Float16);
    // SAFETY: handles of our own.
    unsafe {
        aclDestroyTensor(view);
        aclDestroyScalar(one);
        aclDestroyScalar(two);
    }
    drop((x, weight, c, out));
    s.end();
}

#[test]
fn batches_of_products_take_broadcast_and_strided_operands() {
    let s = Session::new(DUO);
    // [2, 3, 8] * [2, 8, 5], with the right side a view of [2, 5, 8]. Then the left side repeats by stride 0.
    let (a, w) = (rounded(Float16, &random(10, 48)), rounded(Float16, &random(11, 80)));
    let (x, weight) = (Array::new(Float16, &[2, 3, 8], &a), Array::new(Float16, &[2, 5, 8], &w));
    let view = tensor(weight.memory.0, Float16, &[2, 8, 5], Some(&[40, 1, 8]), 0, 2, &[2, 5, 8]);
    let repeated = tensor(x.memory.0, Float16, &[2, 3, 8], Some(&[0, 8, 1]), 0, 2, &[2, 3, 8]);
    for (left, second) in [(x.tensor, 24), (repeated, 0)] {
        let out = Array::empty(Float16, &[2, 3, 5]);
        s.run(
            // SAFETY: live handles.
            |ws, e| unsafe { aclnnBatchMatMulGetWorkspaceSize(left, view, out.tensor, 0, ws, e) },
            aclnnBatchMatMul,
        );
        let found = out.read();
        assert_product(&found[..15], &product(&a[..24], &w[..40], 3, 8, 5), 8, Float16);
        assert_product(&found[15..], &product(&a[second..second + 24], &w[40..], 3, 8, 5), 8, Float16);
    }
    // SAFETY: handles of our own.
    unsafe {
        aclDestroyTensor(view);
        aclDestroyTensor(repeated);
    }
    drop((x, weight));
    s.end();
}

#[test]
fn fp32_on_310p_is_computed_in_fp16() {
    let s = Session::new(DUO);
    let (a, w) = (random(12, 32), random(13, 32 * 3));
    let (x, weight) = (Array::new(Float, &[1, 32], &a), Array::new(Float, &[32, 3], &w));
    let out = Array::empty(Float, &[1, 3]);
    // SAFETY: live handles.
    s.run(
        |ws, e| unsafe { aclnnMatmulGetWorkspaceSize(x.tensor, weight.tensor, out.tensor, 1, ws, e) },
        aclnnMatmul,
    );
    let (a, w) = (rounded(Float16, &a), rounded(Float16, &w));
    let transposed: Vec<f32> = (0..96).map(|i| w[i % 32 * 3 + i / 32]).collect();
    assert_product(&out.read(), &product(&a, &transposed, 1, 32, 3), 32, Float);
    drop((x, weight, out));
    s.end();
}

#[test]
fn rms_norms_round_once_and_keep_the_sum() {
    for (settings, dtype) in [(DUO, Float16), (A2, Bf16), (DUO, Float)] {
        let s = Session::new(settings);
        let (rows, width) = (3usize, 40usize);
        let (a, b) = (rounded(dtype, &random(14, 120)), rounded(dtype, &random(15, 120)));
        let gamma = rounded(dtype, &random(16, width));
        let norm = |x: &[f32]| -> (Vec<f32>, Vec<f32>) {
            let mut scales = Vec::new();
            let y = x
                .chunks(width)
                .flat_map(|row| {
                    let mean = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / width as f64;
                    let scale = 1.0 / (mean + 1e-5).sqrt();
                    scales.push(scale as f32);
                    row.iter()
                        .zip(&gamma)
                        .map(|(v, g)| (f64::from(*v) * scale * f64::from(*g)) as f32)
                        .collect::<Vec<_>>()
                })
                .collect();
            (y, scales)
        };
        let dims = [rows as i64, width as i64];
        let (x1, x2) = (Array::new(dtype, &dims, &a), Array::new(dtype, &dims, &b));
        let weight = Array::new(dtype, &[width as i64], &gamma);
        let (y, x) = (Array::empty(dtype, &dims), Array::empty(dtype, &dims));
        let rstd = Array::empty(Float, &[rows as i64, 1]);
        s.run(
            // SAFETY: live handles.
            |ws, e| unsafe {
                aclnnRmsNormGetWorkspaceSize(x1.tensor, weight.tensor, 1e-5, y.tensor, rstd.tensor, ws, e)
            },
            aclnnRmsNorm,
        );
        let (expected, scales) = norm(&a);
        assert_close(&y.read(), &expected, epsilon(dtype) + 1e-5, 6e-8);
        assert_close(&rstd.read(), &scales, 1e-5, 0.0);
        s.run(
            // SAFETY: live handles.
            |ws, e| unsafe {
                aclnnAddRmsNormGetWorkspaceSize(
                    x1.tensor,
                    x2.tensor,
                    weight.tensor,
                    1e-5,
                    y.tensor,
                    rstd.tensor,
                    x.tensor,
                    ws,
                    e,
                )
            },
            aclnnAddRmsNorm,
        );
        let sum: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        let sum = rounded(dtype, &sum);
        assert_eq!(x.read(), sum);
        assert_close(&y.read(), &norm(&sum).0, epsilon(dtype) + 1e-5, 6e-8);
        drop((x1, x2, weight, y, x, rstd));
        s.end();
    }
}

#[test]
fn elementwise_operators_broadcast_and_round_once() {
    let s = Session::new(DUO);
    let (a, b) = (rounded(Float16, &random(17, 24)), rounded(Float16, &random(18, 6)));
    let (x, y) = (Array::new(Float16, &[4, 6], &a), Array::new(Float16, &[6], &b));
    let out = Array::empty(Float16, &[4, 6]);
    let alpha = number(0.5);
    // SAFETY: live handles, here and below.
    s.run(|w, e| unsafe { aclnnAddGetWorkspaceSize(x.tensor, y.tensor, alpha, out.tensor, w, e) }, aclnnAdd);
    let sum: Vec<f32> = a.iter().enumerate().map(|(i, a)| a + 0.5 * b[i % 6]).collect();
    assert_eq!(out.read(), rounded(Float16, &sum));
    // SAFETY: live handles.
    s.run(|w, e| unsafe { aclnnMulGetWorkspaceSize(x.tensor, y.tensor, out.tensor, w, e) }, aclnnMul);
    let times: Vec<f32> = a.iter().enumerate().map(|(i, a)| a * b[i % 6]).collect();
    assert_eq!(out.read(), rounded(Float16, &times));
    // SAFETY: live handles.
    s.run(|w, e| unsafe { aclnnMulsGetWorkspaceSize(x.tensor, alpha, out.tensor, w, e) }, aclnnMuls);
    assert_eq!(out.read(), rounded(Float16, &a.iter().map(|a| 0.5 * a).collect::<Vec<_>>()));
    // SAFETY: live handles.
    s.run(
        |w, e| unsafe { aclnnInplaceAddGetWorkspaceSize(x.tensor, y.tensor, alpha, w, e) },
        aclnnInplaceAdd,
    );
    assert_eq!(x.read(), rounded(Float16, &sum));
    let wide = Array::empty(Float, &[4, 6]);
    // SAFETY: live handles.
    s.run(|w, e| unsafe { aclnnCastGetWorkspaceSize(x.tensor, 0, wide.tensor, w, e) }, aclnnCast);
    assert_eq!(wide.read(), x.read());
    // A row is copied over two strided columns of every row.
    let column = tensor(x.memory.0, Float16, &[4, 2], Some(&[6, 3]), 1, 2, &[4, 6]);
    let source = Array::new(Float16, &[2], &[7.0, 9.0]);
    // SAFETY: live handles.
    s.run(|w, e| unsafe { aclnnInplaceCopyGetWorkspaceSize(column, source.tensor, w, e) }, aclnnInplaceCopy);
    let mut expected = rounded(Float16, &sum);
    for row in expected.chunks_mut(6) {
        (row[1], row[4]) = (7.0, 9.0);
    }
    assert_eq!(x.read(), expected);
    let (i, j) = (Array::new(Int64, &[3], &[1.0, -5.0, 3e9]), Array::new(Int64, &[1], &[2.0]));
    // SAFETY: live handles.
    s.run(
        |w, e| unsafe { aclnnInplaceAddGetWorkspaceSize(i.tensor, j.tensor, alpha, w, e) },
        aclnnInplaceAdd,
    );
    assert_eq!(i.read(), [2.0, -4.0, 3e9 + 1.0]);
    // SAFETY: handles of our own.
    unsafe {
        aclDestroyTensor(column);
        aclDestroyScalar(alpha);
    }
    drop((x, y, out, wide, source, i, j));
    s.end();
}

#[test]
fn permute_and_slice_move_bytes() {
    let s = Session::new(DUO);
    let numbers: Vec<f32> = (0..24u8).map(f32::from).collect();
    let x = Array::new(Int32, &[2, 3, 4], &numbers);
    let out = Array::empty(Int32, &[4, 2, 3]);
    let order = [2i64, 0, 1];
    // SAFETY: an array of three.
    let dims = unsafe { aclCreateIntArray(order.as_ptr(), 3) };
    // SAFETY: live handles.
    s.run(|w, e| unsafe { aclnnPermuteGetWorkspaceSize(x.tensor, dims, out.tensor, w, e) }, aclnnPermute);
    let found = out.read();
    for (c, a, b) in (0..4).flat_map(|c| (0..2).flat_map(move |a| (0..3).map(move |b| (c, a, b)))) {
        assert_eq!(found[(c * 2 + a) * 3 + b], numbers[(a * 3 + b) * 4 + c]);
    }
    let cut = Array::empty(Int32, &[2, 3, 2]);
    // SAFETY: live handles.
    s.run(|w, e| unsafe { aclnnSliceGetWorkspaceSize(x.tensor, -1, 1, 4, 2, cut.tensor, w, e) }, aclnnSlice);
    let expected: Vec<f32> = numbers.chunks(4).flat_map(|row| [row[1], row[3]]).collect();
    assert_eq!(cut.read(), expected);
    // SAFETY: a handle of our own.
    unsafe { aclDestroyIntArray(dims) };
    drop((x, out, cut));
    s.end();
}

#[test]
fn swiglu_softmax_and_argmax_follow_their_formulas() {
    let s = Session::new(DUO);
    let a = rounded(Float16, &random(19, 2 * 64).iter().map(|x| 8.0 * x).collect::<Vec<_>>());
    let x = Array::new(Float16, &[2, 64], &a);
    let out = Array::empty(Float16, &[2, 32]);
    // SAFETY: live handles, here and below.
    s.run(|w, e| unsafe { aclnnSwiGluGetWorkspaceSize(x.tensor, -1, out.tensor, w, e) }, aclnnSwiGlu);
    let silu = |g: f32, u: f32| (f64::from(g) / (1.0 + (-f64::from(g)).exp()) * f64::from(u)) as f32;
    let expected: Vec<f32> =
        a.chunks(64).flat_map(|row| (0..32).map(|i| silu(row[i], row[32 + i])).collect::<Vec<_>>()).collect();
    assert_close(&out.read(), &expected, epsilon(Float16) + 1e-5, 6e-8);
    let soft = Array::empty(Float16, &[2, 64]);
    for (dim, stride, count) in [(1, 1, 64), (0, 64, 2)] {
        // SAFETY: live handles.
        s.run(|w, e| unsafe { aclnnSoftmaxGetWorkspaceSize(x.tensor, dim, soft.tensor, w, e) }, aclnnSoftmax);
        let expected: Vec<f32> = (0..128)
            .map(|i: usize| {
                let first = if dim == 1 { i / 64 * 64 } else { i % 64 };
                let group: Vec<f64> = (0..count).map(|j| f64::from(a[first + j * stride])).collect();
                let max = group.iter().copied().fold(f64::MIN, f64::max);
                let total: f64 = group.iter().map(|v| (v - max).exp()).sum();
                ((f64::from(a[i]) - max).exp() / total) as f32
            })
            .collect();
        assert_close(&soft.read(), &expected, epsilon(Float16) + 1e-5, 6e-8);
    }
    let best = Array::empty(Int64, &[2]);
    // SAFETY: live handles.
    s.run(|w, e| unsafe { aclnnArgMaxGetWorkspaceSize(x.tensor, 1, false, best.tensor, w, e) }, aclnnArgMax);
    for (row, found) in a.chunks(64).zip(best.read()) {
        let max = row.iter().copied().fold(f32::MIN, f32::max);
        assert_eq!(row.iter().position(|v| *v == max).unwrap() as f32, found);
    }
    drop((x, out, soft, best));
    s.end();
}

#[test]
fn indices_pick_and_place_rows() {
    let s = Session::new(A2);
    let table: Vec<f32> = (0..20u8).map(f32::from).collect();
    let weight = Array::new(Float16, &[5, 4], &table);
    let ids = Array::new(Int32, &[2, 2], &[4.0, 0.0, 2.0, 2.0]);
    let out = Array::empty(Float16, &[2, 2, 4]);
    // SAFETY: live handles, here and below.
    s.run(
        |w, e| unsafe { aclnnEmbeddingGetWorkspaceSize(weight.tensor, ids.tensor, out.tensor, w, e) },
        aclnnEmbedding,
    );
    let rows =
        |ids: &[usize]| ids.iter().flat_map(|i| table[i * 4..i * 4 + 4].to_vec()).collect::<Vec<f32>>();
    assert_eq!(out.read(), rows(&[4, 0, 2, 2]));
    let columns = Array::new(Int64, &[2], &[3.0, 1.0]);
    let picked = Array::empty(Float16, &[5, 2]);
    s.run(
        // SAFETY: live handles.
        |w, e| unsafe {
            aclnnGatherV2GetWorkspaceSize(weight.tensor, 1, columns.tensor, picked.tensor, w, e)
        },
        aclnnGatherV2,
    );
    assert_eq!(picked.read(), table.chunks(4).flat_map(|r| [r[3], r[1]]).collect::<Vec<_>>());
    let source = Array::new(Float16, &[2, 4], &[-1.0; 8]);
    let places = Array::new(Int64, &[2], &[3.0, 0.0]);
    s.run(
        // SAFETY: live handles.
        |w, e| unsafe {
            aclnnInplaceIndexCopyGetWorkspaceSize(weight.tensor, 0, places.tensor, source.tensor, w, e)
        },
        aclnnInplaceIndexCopy,
    );
    assert_eq!(weight.read(), [vec![-1.0; 4], rows(&[1, 2]), vec![-1.0; 4], rows(&[4])].concat());

    // Two heads of three channels, blocks of two tokens.
    let (key, value) = (random(20, 18), random(21, 18));
    let (k, v) = (Array::new(Float16, &[3, 2, 3], &key), Array::new(Float16, &[3, 2, 3], &value));
    let (kc, vc) =
        (Array::new(Float16, &[3, 2, 2, 3], &[0.0; 36]), Array::new(Float16, &[3, 2, 2, 3], &[0.0; 36]));
    let slots = Array::new(Int32, &[3], &[5.0, 3.0, 0.0]);
    let none = null_mut();
    s.run(
        // SAFETY: live handles and nulls.
        |w, e| unsafe {
            aclnnScatterPaKvCacheGetWorkspaceSize(
                k.tensor,
                kc.tensor,
                slots.tensor,
                v.tensor,
                vc.tensor,
                none,
                none,
                none,
                null_mut(),
                null_mut(),
                null_mut(),
                null_mut(),
                w,
                e,
            )
        },
        aclnnScatterPaKvCache,
    );
    for (cache, from) in [(kc.read(), rounded(Float16, &key)), (vc.read(), rounded(Float16, &value))] {
        assert_eq!(cache[30..], from[..6]);
        assert_eq!(cache[..6], from[12..]);
        assert_eq!(cache[18..24], from[6..12]);
        assert!(cache[6..18].iter().chain(&cache[24..30]).all(|x| *x == 0.0));
    }
    drop((weight, ids, out, columns, picked, source, places, k, v, kc, vc, slots));
    s.end();
}

#[test]
fn rotary_turns_pairs_by_their_angle() {
    for settings in [DUO, A2] {
        let s = Session::new(settings);
        let (b, n, d) = (3usize, 2usize, 64usize);
        let (q, k) = (rounded(Float16, &random(22, b * n * d)), rounded(Float16, &random(23, b * d)));
        let angles: Vec<f32> = random(24, b * d / 2).iter().map(|x| 3.0 * x).collect();
        // Mode "half" repeats the angles of the first half. Mode "interleave" repeats each angle.
        for interleaved in [false, true] {
            let angle =
                |row: usize, i: usize| angles[row * d / 2 + if interleaved { i / 2 } else { i % (d / 2) }];
            let table = |f: fn(f32) -> f32| -> Vec<f32> {
                let all = (0..b * d).map(|i| f(angle(i / d, i % d))).collect::<Vec<_>>();
                rounded(Float16, &all)
            };
            let (cos, sin) = (table(f32::cos), table(f32::sin));
            let dims = |heads: i64| [b as i64, 1, heads, d as i64];
            let query = Array::new(Float16, &dims(2), &q);
            let key = Array::new(Float16, &dims(1), &k);
            let (c, si) = (Array::new(Float16, &dims(1), &cos), Array::new(Float16, &dims(1), &sin));
            // In place, fp16 rounds both products and their sum. The other operator rounds only the sum.
            let turned = |x: &[f32], heads: usize, product: DType| -> Vec<f32> {
                (0..x.len())
                    .map(|at| {
                        let (row, i) = (at / (heads * d), at % d);
                        let partner = match (interleaved, i) {
                            (true, i) => i ^ 1,
                            (false, i) => (i + d / 2) % d,
                        };
                        let sign = if partner > i { -1.0 } else { 1.0 };
                        let other = x[at - i + partner];
                        let own = round_to(product, x[at] * cos[row * d + i]);
                        round_to(Float16, own + round_to(product, sign * other * sin[row * d + i]))
                    })
                    .collect()
            };
            if interleaved {
                s.run(
                    // SAFETY: live handles, a C string.
                    |w, e| unsafe {
                        aclnnApplyRotaryPosEmbV2GetWorkspaceSize(
                            query.tensor,
                            key.tensor,
                            c.tensor,
                            si.tensor,
                            1,
                            c"interleave".as_ptr().cast_mut(),
                            w,
                            e,
                        )
                    },
                    aclnnApplyRotaryPosEmbV2,
                );
            } else {
                s.run(
                    // SAFETY: live handles.
                    |w, e| unsafe {
                        aclnnApplyRotaryPosEmbGetWorkspaceSize(
                            query.tensor,
                            key.tensor,
                            c.tensor,
                            si.tensor,
                            1,
                            w,
                            e,
                        )
                    },
                    aclnnApplyRotaryPosEmb,
                );
            }
            assert_eq!(query.read(), turned(&q, 2, Float16));
            assert_eq!(key.read(), turned(&k, 1, Float16));
            if settings == A2 {
                let x = Array::new(Float16, &dims(2), &q);
                let out = Array::empty(Float16, &dims(2));
                let mode = i64::from(interleaved);
                s.run(
                    // SAFETY: live handles.
                    |w, e| unsafe {
                        aclnnRotaryPositionEmbeddingGetWorkspaceSize(
                            x.tensor, c.tensor, si.tensor, mode, out.tensor, w, e,
                        )
                    },
                    aclnnRotaryPositionEmbedding,
                );
                assert_eq!(out.read(), turned(&q, 2, Float));
                assert_ne!(out.read(), query.read());
            }
        }
        s.end();
    }
}
