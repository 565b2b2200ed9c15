//! Quantised products: numbers by the formulas of their pages, and the refusals of each chip.

use std::ptr::null_mut;

use super::session::{Array, Session, message, tensor};
use crate::copy::aclrtMemcpy;
use crate::half::DType::{Bf16, Float, Float16, Int8, Int32, Uint64};
use crate::half::{DType, round_to};
use crate::ops::linear::{aclnnTransMatmulWeight, aclnnTransMatmulWeightGetWorkspaceSize};
use crate::ops::quant::{
    aclnnAscendQuantV3, aclnnAscendQuantV3GetWorkspaceSize, aclnnQuantMatmulV4,
    aclnnQuantMatmulV4GetWorkspaceSize, aclnnWeightQuantBatchMatmulV2,
    aclnnWeightQuantBatchMatmulV2GetWorkspaceSize,
};
use crate::tensor::{RawTensor, aclDestroyTensor};

const DUO: &str = "soc = Ascend310P3";
const A2: &str = "soc = Ascend910B4";

/// An array of int8.
fn int8(dims: &[i64], numbers: &[i8]) -> Array {
    let array = Array::empty(Int8, dims);
    array.write(&numbers.iter().map(|q| *q as u8).collect::<Vec<_>>());
    array
}

fn read_int8(array: &Array, len: usize) -> Vec<i8> {
    let mut out = vec![0i8; len];
    // SAFETY: as many bytes on both sides.
    let code = unsafe { aclrtMemcpy(out.as_mut_ptr().cast(), len, array.memory.0, len, 2) };
    assert_eq!(code, 0, "{}", message());
    out
}

/// Integers of both signs, with the extremes.
fn integers(count: usize, step: usize) -> Vec<i8> {
    (0..count).map(|i| (i * step % 256) as u8 as i8).collect()
}

#[test]
fn rows_are_scaled_moved_rounded_to_even_and_saturated() {
    for (settings, dtype) in [(DUO, Float16), (A2, Float16), (A2, Bf16)] {
        let s = Session::new(settings);
        let x = Array::new(dtype, &[2, 4], &[0.0, 0.25, 0.75, -0.25, 1.0, 1000.0, -1000.0, 3.0]);
        let (scale, offset) = (Array::new(dtype, &[1], &[2.0]), Array::new(dtype, &[1], &[3.0]));
        let y = Array::empty(Int8, &[2, 4]);
        s.run(
            // SAFETY: live handles.
            |w, e| unsafe {
                let mode = c"round".as_ptr();
                let (x, y) = (x.tensor, y.tensor);
                aclnnAscendQuantV3GetWorkspaceSize(
                    x,
                    scale.tensor,
                    offset.tensor,
                    false,
                    mode,
                    2,
                    -1,
                    y,
                    w,
                    e,
                )
            },
            aclnnAscendQuantV3,
        );
        // 3.5 and 4.5 both go to 4, 2.5 to 2.
        assert_eq!(read_int8(&y, 8), [3, 4, 4, 2, 5, 127, -128, 9]);
        drop((x, scale, offset, y));
        s.end();
    }
}

/// By the formula, with weights as stored and in blocks of 16 by 32, and the scale's upper bits alone.
#[test]
fn integer_products_add_the_bias_and_use_nineteen_bits_of_the_scale() {
    for (settings, out_type) in [(DUO, Float16), (A2, Float16), (A2, Bf16)] {
        let s = Session::new(settings);
        let (m, k, n) = (3usize, 70usize, 35usize);
        let (a, w) = (integers(m * k, 37), integers(n * k, 91));
        let bias: Vec<f32> = (0..n).map(|i| (i as f32 - 9.0) * 100.0).collect();
        let scales: Vec<f32> = (0..n).map(|i| f32::from_bits(0x3812_3FFF + i as u32 * 9999)).collect();
        let x1 = int8(&[3, 70], &a);
        let bias_array = Array::new(Int32, &[35], &bias);
        let wide = out_type == Float16;
        let scale = if wide {
            let array = Array::empty(Uint64, &[35]);
            let bits = |scale: &f32| (u64::from(scale.to_bits()) | 1 << 46).to_le_bytes();
            array.write(&scales.iter().flat_map(bits).collect::<Vec<_>>());
            array
        } else {
            Array::new(Float, &[35], &scales)
        };
        let room = Array::empty(Int8, &[48 * 96]);
        room.write(&w.iter().map(|q| *q as u8).collect::<Vec<_>>());
        let plain = tensor(room.memory.0, Int8, &[35, 70], None, 0, 2, &[35, 70]);
        let blocks = tensor(room.memory.0, Int8, &[35, 70], None, 0, 29, &[3, 3, 16, 32]);
        for x2 in [plain, blocks] {
            if x2 == blocks {
                s.run(
                    // SAFETY: a live handle.
                    |w, e| unsafe { aclnnTransMatmulWeightGetWorkspaceSize(plain, w, e) },
                    aclnnTransMatmulWeight,
                );
            }
            let out = Array::empty(out_type, &[3, 35]);
            s.run(
                |w, e| matmul(&x1, x2, &scale, null_mut(), bias_array.tensor, &out, w, e),
                aclnnQuantMatmulV4,
            );
            for (i, found) in out.read().into_iter().enumerate() {
                let (row, column) = (i / n, i % n);
                let pairs = (0..k).map(|j| i32::from(a[row * k + j]) * i32::from(w[column * k + j]));
                let sum = pairs.sum::<i32>() + bias[column] as i32;
                let scale = scales[column];
                let scale = if wide { f32::from_bits(scale.to_bits() & 0xFFFF_E000) } else { scale };
                assert_eq!(found, round_to(out_type, sum as f32 * scale), "{settings} at {i}");
            }
        }
        // SAFETY: handles of our own.
        unsafe {
            aclDestroyTensor(plain);
            aclDestroyTensor(blocks);
        }
        drop((x1, bias_array, scale, room));
        s.end();
    }
}

fn matmul(
    x1: &Array,
    x2: RawTensor,
    scale: &Array,
    pertoken: RawTensor,
    bias: RawTensor,
    out: &Array,
    workspace: *mut u64,
    executor: *mut crate::executor::RawExecutor,
) -> i32 {
    let (x1, scale, none, out) = (x1.tensor, scale.tensor, null_mut(), out.tensor);
    // SAFETY: live handles.
    unsafe {
        aclnnQuantMatmulV4GetWorkspaceSize(
            x1, x2, scale, none, pertoken, bias, false, true, out, workspace, executor,
        )
    }
}

/// Per-token scales multiply on an A2, and are refused on a 310P.
#[test]
fn scales_per_token_are_the_a2s() {
    let (m, k, n) = (2usize, 4usize, 3usize);
    let (a, w) = (integers(m * k, 37), integers(n * k, 91));
    for settings in [A2, DUO] {
        let s = Session::new(settings);
        let (x1, x2) = (int8(&[2, 4], &a), int8(&[3, 4], &w));
        let (scale, tokens) =
            (Array::new(Float, &[3], &[0.5, 0.25, 1.0]), Array::new(Float, &[2], &[0.5, 2.0]));
        let out = Array::empty(Float16, &[2, 3]);
        if settings == A2 {
            s.run(
                |ws, e| matmul(&x1, x2.tensor, &scale, tokens.tensor, null_mut(), &out, ws, e),
                aclnnQuantMatmulV4,
            );
            let sum: i32 = (0..k).map(|j| i32::from(a[k + j]) * i32::from(w[k + j])).sum();
            assert_eq!(out.read()[4], round_to(Float16, sum as f32 * 0.25 * 2.0));
        } else {
            let (mut size, mut executor) = (0, null_mut());
            let code = matmul(
                &x1,
                x2.tensor,
                &scale,
                tokens.tensor,
                null_mut(),
                &out,
                &raw mut size,
                &raw mut executor,
            );
            assert_eq!(code, 161_002);
            assert!(
                message().contains("pertokenScaleOptional is not supported on Ascend310P3"),
                "{}",
                message()
            );
        }
        drop((x1, x2, scale, tokens, out));
        s.end();
    }
}

/// The scale of a static product has 64 bits on a 310P.
#[test]
fn combinations_that_no_page_has_are_refused() {
    let s = Session::new(DUO);
    let (x1, x2) = (int8(&[2, 4], &integers(8, 37)), int8(&[3, 4], &integers(12, 91)));
    let scale = Array::new(Float, &[3], &[0.5, 0.25, 1.0]);
    let out = Array::empty(Float16, &[2, 3]);
    let (mut size, mut executor) = (0, null_mut());
    let code = matmul(&x1, x2.tensor, &scale, null_mut(), null_mut(), &out, &raw mut size, &raw mut executor);
    assert_eq!(code, 161_002);
    assert!(message().contains("scale has data type FLOAT, out has FLOAT16"), "{}", message());
    drop((x1, x2, scale, out));
    s.end();
}

#[test]
fn weights_are_dequantised_to_the_type_of_the_rows() {
    for (settings, dtype) in [(DUO, Float16), (A2, Float16), (A2, Bf16)] {
        let s = Session::new(settings);
        let (k, n) = (5usize, 3usize);
        let x = Array::new(dtype, &[1, 5], &[1.0, -2.0, 0.5, 4.0, 0.25]);
        let w = integers(n * k, 91);
        let weight = int8(&[3, 5], &w);
        let view = tensor(weight.memory.0, Int8, &[5, 3], Some(&[1, 5]), 0, 2, &[3, 5]);
        let scales = [0.3, 0.125, 0.7].map(|scale| round_to(dtype, scale));
        let scale = Array::new(dtype, &[3], &scales);
        let kind: DType = if dtype == Bf16 { Float } else { Float16 };
        let bias = Array::new(kind, &[3], &[1.0, 2.0, -3.0]);
        let y = Array::empty(dtype, &[1, 3]);
        s.run(
            |ws, e| {
                let (x, none) = (x.tensor, null_mut());
                let (scale, bias, y) = (scale.tensor, bias.tensor, y.tensor);
                // SAFETY: live handles.
                unsafe {
                    aclnnWeightQuantBatchMatmulV2GetWorkspaceSize(
                        x, view, scale, none, none, none, bias, 0, y, ws, e,
                    )
                }
            },
            aclnnWeightQuantBatchMatmulV2,
        );
        for (i, found) in y.read().into_iter().enumerate() {
            let rows = [1.0f32, -2.0, 0.5, 4.0, 0.25];
            let terms = rows.iter().zip(&w[i * k..]);
            let sum: f32 = terms.map(|(x, q)| x * round_to(dtype, f32::from(*q) * scales[i])).sum();
            let expected = sum + [1.0, 2.0, -3.0][i];
            assert!(
                (found - expected).abs() <= expected.abs() / 128.0,
                "{settings} at {i}: {found} for {expected}"
            );
        }
        // SAFETY: a handle of our own.
        unsafe { aclDestroyTensor(view) };
        drop((x, weight, scale, bias, y));
        s.end();
    }
}
