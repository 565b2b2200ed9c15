//! Quantised products: static quantisation of rows, int8 by int8, and floating point by int8.
//!
//! Sums of int8 products are int32 and wrap. A scale in 64 bits is an fp32 in its low half. The chip reads the upper 19 bits
//! of that half. Rounding to an integer is to nearest, ties to even: the pages say "round" and no more.

use std::ffi::{CStr, c_char};

use crate::clock::Cost;
use crate::executor::{Plan, Planned};
use crate::half::{DType, read_f64, round_to};
use crate::nz;
use crate::ops::Kernel;
use crate::ops::gemm::{PANEL, Product, Right};
use crate::ops::rows::{load, store};
use crate::ops::two_stage;
use crate::status::Outcome;
use crate::tensor::{Format, RawTensor, View};

/// Largest last dimension of an int8 operand.
const MOST: i64 = 65_535;
/// The bits of a scale that the chip reads.
const SCALE_BITS: u64 = 0xFFFF_E000;
/// Code of int8, which the operator calls "dstType".
const DST_INT8: i32 = 2;

/// `y = round(x * scale + offset)`, saturated to int8; views x, scale, offset (or none), y.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quantise;

impl Quantise {
    /// # Safety
    /// Every view lies inside live memory.
    pub(crate) unsafe fn run(self, views: &[View]) {
        let [x, scale, offset, y] = *views else { return };
        let (rows, width) = (x.dims()[0], x.width());
        let mut row = vec![0f32; width];
        // SAFETY: the caller's promise, as in all of this function.
        let number = |view: &View, i: usize| unsafe {
            let i = if view.len() == 1 { 0 } else { i as i64 };
            read_f64(view.dtype, view.at(i * view.last_stride())) as f32
        };
        for i in 0..rows {
            // SAFETY: see above.
            unsafe { load(&x, i * x.strides()[0], &mut row) };
            for (j, x) in row.iter().enumerate() {
                let added = if offset.rank() == 0 { 0.0 } else { number(&offset, j) };
                let q = (x * number(&scale, j) + added).round_ties_even().clamp(-128.0, 127.0) as i8;
                // SAFETY: see above; a place of the row.
                unsafe { y.at(i * y.strides()[0] + j as i64 * y.last_stride()).cast::<i8>().write(q) };
            }
        }
    }
}

/// `out = (x1 * x2 + bias) * scale * pertoken`; views x1, x2, scale, pertoken (or none), bias (or none), out. `x2` is
/// `[n, k]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QuantMatmul;

impl QuantMatmul {
    /// # Safety
    /// Every view lies inside live memory.
    pub(crate) unsafe fn run(self, views: &[View]) {
        let [x1, x2, scale, pertoken, bias, out] = *views else { return };
        let (m, k, n) = (x1.dims()[0] as usize, x1.width(), x2.dims()[0] as usize);
        // SAFETY: the caller's promise, as in all of this function.
        let scales: Vec<f32> = (0..n).map(|i| unsafe { scale_at(&scale, i) }).collect();
        let biases: Vec<i32> = (0..n)
            .map(|i| {
                // SAFETY: see above.
                if bias.rank() == 0 { 0 } else { unsafe { bias.at(i as i64).cast::<i32>().read_unaligned() } }
            })
            .collect();
        // SAFETY: see above.
        let weights: Vec<Vec<i8>> = (0..n).map(|row| unsafe { int8_row(&x2, row, k) }).collect();
        let mut numbers = vec![0f32; n];
        for row in 0..m {
            // SAFETY: see above.
            let x = unsafe { int8_row(&x1, row, k) };
            let by = if pertoken.rank() == 0 {
                1.0
            } else {
                // SAFETY: see above.
                unsafe { read_f64(pertoken.dtype, pertoken.at(row as i64 * pertoken.last_stride())) as f32 }
            };
            for (i, (y, w)) in numbers.iter_mut().zip(&weights).enumerate() {
                let sum = x
                    .iter()
                    .zip(w)
                    .fold(biases[i], |sum, (x, w)| sum.wrapping_add(i32::from(*x) * i32::from(*w)));
                *y = sum as f32 * scales[i] * by;
            }
            // SAFETY: see above.
            unsafe { store(&out, row as i64 * out.strides()[0], &numbers) };
        }
    }
}

/// Reads the scale of an output channel.
///
/// # Safety
/// The view lies inside live memory.
unsafe fn scale_at(scale: &View, i: usize) -> f32 {
    let i = if scale.len() == 1 { 0 } else { i as i64 * scale.last_stride() };
    // SAFETY: the caller's promise.
    unsafe {
        match scale.dtype {
            DType::Uint64 | DType::Int64 => {
                f32::from_bits((scale.at(i).cast::<u64>().read_unaligned() & SCALE_BITS) as u32)
            }
            dtype => read_f64(dtype, scale.at(i)) as f32,
        }
    }
}

/// Reads a row of an int8 matrix, which may be in blocks.
///
/// # Safety
/// The view lies inside live memory.
unsafe fn int8_row(view: &View, row: usize, k: usize) -> Vec<i8> {
    let block = nz::block_columns(DType::Int8);
    let place = |column: usize| match view.format {
        Format::Nz => nz::place(row, column, view.dims()[0] as usize, block) as i64,
        Format::Nd => row as i64 * view.strides()[0] + column as i64 * view.strides()[1],
    };
    // SAFETY: the caller's promise.
    (0..k).map(|column| unsafe { view.at(place(column)).cast::<i8>().read() }).collect()
}

/// `y = x * (weight * scale) + bias`, with the weight rounded to the type of `x`; views x, weight, scale, bias (or none), y.
/// The weight is `[k, n]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WeightQuant;

impl WeightQuant {
    /// # Safety
    /// Every view lies inside live memory.
    pub(crate) unsafe fn run(self, views: &[View]) {
        let [x, weight, scale, bias, y] = *views else { return };
        let (m, k, n) = (x.dims()[0] as usize, x.width(), weight.width());
        let mut right = vec![0f32; k * n];
        for column in 0..n {
            // SAFETY: the caller's promise, as in all of this function.
            let by = unsafe { scale_at(&scale, column) };
            for row in 0..k {
                let at = row as i64 * weight.strides()[0] + column as i64 * weight.strides()[1];
                // SAFETY: see above.
                let q = unsafe { weight.at(at).cast::<i8>().read() };
                right[row * n + column] = round_to(x.dtype, f32::from(q) * by);
            }
        }
        let mut left = vec![0f32; m * k];
        for (row, numbers) in left.chunks_exact_mut(k).enumerate() {
            // SAFETY: see above.
            unsafe { load(&x, row as i64 * x.strides()[0], numbers) };
        }
        let (b, layout) = (right.as_ptr().cast(), Right::Rows(n));
        let width = n.next_multiple_of(PANEL);
        let mut sums = vec![0f32; m * width];
        // SAFETY: the right matrix is `[k, n]`, by rows.
        unsafe { Product { a: &left, m, k, n, b, dtype: DType::Float, layout }.run(&mut sums) };
        let mut addend = vec![0f32; n];
        if bias.rank() > 0 {
            // SAFETY: see above.
            unsafe { load(&bias, 0, &mut addend) };
        }
        for (row, sums) in sums.chunks_exact_mut(width).enumerate() {
            sums.iter_mut().zip(&addend).for_each(|(y, bias)| *y += bias);
            // SAFETY: see above.
            unsafe { store(&y, row as i64 * y.strides()[0], &sums[..n]) };
        }
    }
}

two_stage! {
    /// `y = round(x * scale + offset)`, saturated.
    aclnnAscendQuantV3, aclnnAscendQuantV3GetWorkspaceSize(x: RawTensor, scale: RawTensor, offset: RawTensor, sqrt_mode: bool, round_mode: *const c_char, dst_type: i32, axis: i32, y: RawTensor) = quantise;
    /// `out = (x1 * x2 + bias) * scale`.
    aclnnQuantMatmulV4, aclnnQuantMatmulV4GetWorkspaceSize(x1: RawTensor, x2: RawTensor, scale: RawTensor, offset: RawTensor, pertoken: RawTensor, bias: RawTensor, transpose_x1: bool, transpose_x2: bool, out: RawTensor) = quant_matmul;
    /// `y = x * dequantised weight + bias`.
    aclnnWeightQuantBatchMatmulV2, aclnnWeightQuantBatchMatmulV2GetWorkspaceSize(x: RawTensor, weight: RawTensor, scale: RawTensor, offset: RawTensor, quant_scale: RawTensor, quant_offset: RawTensor, bias: RawTensor, group: i32, y: RawTensor) = weight_quant;
}

fn quantise(
    p: &mut Plan<'_>,
    x: RawTensor,
    scale: RawTensor,
    offset: RawTensor,
    sqrt_mode: bool,
    round_mode: *const c_char,
    dst_type: i32,
    axis: i32,
    y: RawTensor,
) -> Outcome<Planned> {
    let (x, scale) = (p.input(x, "x")?, p.input(scale, "scale")?);
    let offset = p.optional(offset, "offset")?;
    let y = p.output(y, "y")?;
    p.float(&x, "x")?;
    p.dtype(&y, "y", &[DType::Int8])?;
    rank(p, &x, "x", 2)?;
    // SAFETY: the caller's string, or null.
    let mode = (!round_mode.is_null()).then(|| unsafe { CStr::from_ptr(round_mode) });
    p.require(mode == Some(c"round"), || {
        format!("roundMode is {mode:?}, expected round (others are not played)")
    })?;
    p.require(!sqrt_mode, || "sqrtMode is true, expected false".to_owned())?;
    p.require(dst_type == DST_INT8, || format!("dstType is {dst_type}, expected {DST_INT8} (INT8)"))?;
    p.require(axis == -1 || (axis == 1 && !p.is_310p()), || format!("axis is {axis}, expected -1"))?;
    for (view, name) in [(Some(scale), "scale"), (offset, "offset")] {
        let Some(view) = view else { continue };
        p.same_dtype((&x, "x"), (&view, name))?;
        let fits = view.rank() == 1 && [1, x.width()].contains(&view.len());
        p.require(fits, || format!("{name} has shape {}, expected [1] or [{}]", view.shape(), x.width()))?;
    }
    p.shape(&y, "y", x.dims())?;
    p.contiguous(&y, "y")?;
    let cost = Cost { vector_flops: 3.0 * x.len() as f64, bytes: x.bytes() + y.bytes(), ..Cost::default() };
    let kernel = if y.is_empty() { Kernel::Nothing } else { Kernel::Quantise(Quantise) };
    Ok(Planned { kernel, cost, workspace: 0 })
}

fn quant_matmul(
    p: &mut Plan<'_>,
    x1: RawTensor,
    x2: RawTensor,
    scale: RawTensor,
    offset: RawTensor,
    pertoken: RawTensor,
    bias: RawTensor,
    transpose_x1: bool,
    transpose_x2: bool,
    out: RawTensor,
) -> Outcome<Planned> {
    let (x1, x2, scale) = (p.input(x1, "x1")?, p.input(x2, "x2")?, p.input(scale, "scale")?);
    p.require(offset.is_null(), || "offset is for an INT8 out, expected null".to_owned())?;
    let pertoken = p.optional(pertoken, "pertokenScaleOptional")?;
    let bias = p.optional(bias, "bias")?;
    let out = p.output(out, "out")?;
    p.dtype(&x1, "x1", &[DType::Int8])?;
    p.dtype(&x2, "x2", &[DType::Int8])?;
    rank(p, &x1, "x1", 2)?;
    rank(p, &x2, "x2", 2)?;
    p.require(!transpose_x1 && transpose_x2, || {
        format!("transposeX1 is {transpose_x1} and transposeX2 is {transpose_x2}, expected false and true (others are not played)")
    })?;
    let (m, k, n) = (x1.dims()[0], x1.dims()[1], x2.dims()[0]);
    p.require(m > 0 && k > 0 && n > 0, || "x1 or x2 is empty".to_owned())?;
    p.require(k == x2.dims()[1], || {
        format!("x1 has shape {}, x2 has {}: the inner sizes differ", x1.shape(), x2.shape())
    })?;
    p.require(k <= MOST, || format!("the last size is {k}, expected {MOST} at most"))?;
    let lonely = x2.format == Format::Nz && (n == 1 || k == 1);
    p.require(!lonely, || format!("x2 has shape {} in FRACTAL_NZ, expected no size of 1", x2.shape()))?;
    let padded = nz::elements(&x2) as i64;
    p.require(x2.format == Format::Nd || x2.storage == padded, || {
        format!("x2: the storage has {} elements, expected {padded}", x2.storage)
    })?;
    combination(p, &scale, pertoken.as_ref(), &out)?;
    let per_channel = scale.rank() == 1 && [1, n as usize].contains(&scale.len());
    p.require(per_channel, || format!("scale has shape {}, expected [1] or [{n}]", scale.shape()))?;
    if let Some(pertoken) = &pertoken {
        p.shape(pertoken, "pertokenScaleOptional", &[m])?;
    }
    if let Some(bias) = &bias {
        p.dtype(bias, "bias", &[DType::Int32])?;
        p.shape(bias, "bias", &[n])?;
        p.contiguous(bias, "bias")?;
    }
    p.shape(&out, "out", &[m, n])?;
    let cost = Cost {
        cube: Some(DType::Int8),
        cube_flops: 2.0 * (m * n * k) as f64,
        bytes: x1.bytes() + x2.bytes() + scale.bytes() + bias.map_or(0.0, |b| b.bytes()) + out.bytes(),
        ..Cost::default()
    };
    Ok(Planned { kernel: Kernel::QuantMatmul(QuantMatmul), cost, workspace: 0 })
}

/// Checks the types of scale, pertoken and out: the combinations on the operator page.
fn combination(p: &Plan<'_>, scale: &View, pertoken: Option<&View>, out: &View) -> Outcome {
    p.require(!(p.is_310p() && pertoken.is_some()), || {
        format!("pertokenScaleOptional is not supported on {}", p.soc().name())
    })?;
    let wide = matches!(scale.dtype, DType::Uint64 | DType::Int64);
    let holds = match (out.dtype, pertoken.map(|pertoken| pertoken.dtype)) {
        (DType::Float16, None) => wide,
        (DType::Float16, Some(DType::Float)) => scale.dtype == DType::Float,
        (DType::Bf16, None | Some(DType::Float)) if !p.is_310p() => {
            matches!(scale.dtype, DType::Float | DType::Bf16)
        }
        _ => false,
    };
    p.require(holds, || {
        format!(
            "scale has data type {}, out has {}: no combination of the page on {}",
            scale.dtype.name(),
            out.dtype.name(),
            p.soc().name()
        )
    })
}

fn weight_quant(
    p: &mut Plan<'_>,
    x: RawTensor,
    weight: RawTensor,
    scale: RawTensor,
    offset: RawTensor,
    quant_scale: RawTensor,
    quant_offset: RawTensor,
    bias: RawTensor,
    group: i32,
    y: RawTensor,
) -> Outcome<Planned> {
    let (x, weight, scale) =
        (p.input(x, "x")?, p.input(weight, "weight")?, p.input(scale, "antiquantScale")?);
    for (name, handle) in [
        ("antiquantOffsetOptional", offset),
        ("quantScaleOptional", quant_scale),
        ("quantOffsetOptional", quant_offset),
    ] {
        p.require(handle.is_null(), || format!("{name}: not supported by the emulator, expected null"))?;
    }
    let bias = p.optional(bias, "biasOptional")?;
    let y = p.output(y, "y")?;
    p.dtype(&x, "x", &[DType::Float16, DType::Bf16])?;
    p.dtype(&weight, "weight", &[DType::Int8])?;
    p.same_dtype((&x, "x"), (&scale, "antiquantScale"))?;
    p.same_dtype((&x, "x"), (&y, "y"))?;
    rank(p, &x, "x", 2)?;
    rank(p, &weight, "weight", 2)?;
    p.require(weight.format == Format::Nd, || {
        "weight is FRACTAL_NZ, expected ND (blocks are not played)".to_owned()
    })?;
    p.require(group == 0, || format!("antiquantGroupSize is {group}, expected 0 (groups are not played)"))?;
    let (m, k, n) = (x.dims()[0], x.dims()[1], weight.dims()[1]);
    p.require(k == weight.dims()[0], || {
        format!("x has shape {}, weight has {}: the inner sizes differ", x.shape(), weight.shape())
    })?;
    p.require((1..=MOST).contains(&k) && (1..=MOST).contains(&n) && m > 0, || {
        format!("x has shape {}, weight has {}: expected sizes from 1 to {MOST}", x.shape(), weight.shape())
    })?;
    let per_channel = scale.rank() == 1 && [1, n as usize].contains(&scale.len());
    p.require(per_channel, || format!("antiquantScale has shape {}, expected [{n}]", scale.shape()))?;
    if let Some(bias) = &bias {
        let expected = if x.dtype == DType::Bf16 { DType::Float } else { DType::Float16 };
        p.dtype(bias, "biasOptional", &[expected])?;
        p.shape(bias, "biasOptional", &[n])?;
    }
    p.shape(&y, "y", &[m, n])?;
    let cost = Cost {
        cube: Some(x.dtype),
        cube_flops: 2.0 * (m * n * k) as f64,
        bytes: x.bytes() + weight.bytes() + scale.bytes() + bias.map_or(0.0, |b| b.bytes()) + y.bytes(),
        ..Cost::default()
    };
    Ok(Planned { kernel: Kernel::WeightQuant(WeightQuant), cost, workspace: 0 })
}

fn rank(p: &Plan<'_>, view: &View, name: &str, rank: usize) -> Outcome {
    p.require(view.rank() == rank, || format!("{name} has {} dimensions, expected {rank}", view.rank()))
}
