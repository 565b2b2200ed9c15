//! Matrix products and the block format of weights.

use crate::clock::Cost;
use crate::executor::{Plan, Planned};
use crate::half::{DType, round_to};
use crate::nz;
use crate::ops::Kernel;
use crate::ops::gemm::{PANEL, Product, Right};
use crate::ops::rows::{load, outer};
use crate::ops::two_stage;
use crate::status::{NN_PARAM_INVALID, NN_PARAM_NULLPTR, Outcome, entry, fail};
use crate::tensor::{Format, RawIntArray, RawScalar, RawTensor, View, int_array, scalar};

/// `out = alpha * a * b + beta * c`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matmul {
    alpha: f32,
    beta: f32,
    /// Whether fp32 operands are rounded to fp16 first, as the chip's matrix unit requires.
    through_fp16: bool,
}

impl Matmul {
    /// # Safety
    /// Every view lies inside live memory.
    pub(crate) unsafe fn run(self, views: &[View]) {
        let [a, b, out, ref bias @ ..] = *views else { return };
        let bias = bias.first().copied();
        let batches: Vec<i64> = out.dims()[..out.rank() - 2].to_vec();
        let whole_a = a.rank() == out.rank() && b.rank() == 2 && b.format == Format::Nd;
        if whole_a && a.is_contiguous() && out.is_contiguous() && bias.is_none() {
            // If the right side is a single matrix, all rows on the left form one matrix.
            let flat = |v: &View| {
                let w = v.width() as i64;
                v.with_shape(&[v.len() as i64 / w.max(1), w], &[w, 1])
            };
            // SAFETY: the caller's promise.
            unsafe { self.matrix(&flat(&a), &b, &flat(&out), None) };
            return;
        }
        let strides = |v: &View| -> Vec<i64> {
            let own = v.rank() - 2;
            let mut strides = vec![0; batches.len()];
            for i in 0..own {
                let at = batches.len() - own + i;
                strides[at] = if v.dims()[i] == 1 { 0 } else { v.strides()[i] };
            }
            strides
        };
        let (sa, sb, so) = (strides(&a), strides(&b), strides(&out));
        crate::ops::rows::for_each_row(&batches, [&sa, &sb, &so], |[oa, ob, oo]| {
            let cut = |v: &View, by: i64| {
                let n = v.rank() - 2;
                let mut cut = v.with_shape(&v.dims()[n..], &v.strides()[n..]);
                cut.offset += by;
                cut
            };
            // SAFETY: the caller's promise.
            unsafe { self.matrix(&cut(&a, oa), &cut(&b, ob), &cut(&out, oo), bias) };
        });
    }

    /// Multiplies two-dimensional views.
    unsafe fn matrix(self, a: &View, b: &View, out: &View, bias: Option<View>) {
        let (m, k) = (a.dims()[0] as usize, a.dims()[1] as usize);
        let n = b.dims()[1] as usize;
        let mut left = vec![0f32; m * k];
        let mut right = Vec::new();
        for (row, numbers) in left.chunks_exact_mut(k.max(1)).enumerate() {
            // SAFETY: the caller's promise.
            unsafe { load(a, row as i64 * a.strides()[0], numbers) };
            if self.through_fp16 {
                numbers.iter_mut().for_each(|x| *x = round_to(DType::Float16, *x));
            }
        }
        let (s0, s1) = (b.strides()[0] as usize, b.strides()[1] as usize);
        let mut layout = match b.format {
            Format::Nz if nz::base(b).2 => Right::BlocksTransposed,
            Format::Nz => Right::Blocks,
            Format::Nd if s1 == 1 => Right::Rows(s0),
            Format::Nd if s0 == 1 => Right::Columns(s1),
            Format::Nd => Right::Strided(s0, s1),
        };
        let mut pointer: *const u8 = b.at(0);
        if self.through_fp16 && b.dtype == DType::Float && b.format == Format::Nd {
            right.resize(k * n, 0f32);
            let flipped = b.with_shape(&[k as i64, n as i64], &[s0 as i64, s1 as i64]);
            for (row, numbers) in right.chunks_exact_mut(n.max(1)).enumerate() {
                // SAFETY: the caller's promise.
                unsafe { load(&flipped, (row * s0) as i64, numbers) };
                numbers.iter_mut().for_each(|x| *x = round_to(DType::Float16, *x));
            }
            layout = Right::Rows(n);
            pointer = right.as_ptr().cast();
        }
        let product = Product { a: &left, m, k, n, b: pointer, dtype: b.dtype, layout };
        let width = n.next_multiple_of(PANEL);
        let mut sums = vec![0f32; m * width];
        // SAFETY: the caller's promise.
        unsafe { product.run(&mut sums) };
        let bias = bias.and_then(|c| c.broadcast_to(out.dims()));
        let mut addend = vec![0f32; n];
        for (row, sums) in sums.chunks_exact_mut(width.max(1)).enumerate() {
            let sums = &mut sums[..n];
            if self.alpha != 1.0 {
                sums.iter_mut().for_each(|x| *x *= self.alpha);
            }
            if let Some(c) = &bias {
                // SAFETY: the caller's promise.
                unsafe { load(c, row as i64 * c.strides()[0], &mut addend) };
                sums.iter_mut().zip(&addend).for_each(|(x, c)| *x += self.beta * c);
            }
            // SAFETY: the caller's promise.
            unsafe { crate::ops::rows::store(out, row as i64 * out.strides()[0], sums) };
        }
    }
}

/// # Safety
/// The view lies inside live memory that holds the padded matrix.
pub(crate) unsafe fn to_blocks(view: &View) {
    let (rows, columns, _) = nz::base(view);
    // SAFETY: the caller's promise.
    unsafe { nz::to_blocks(view.at(0), rows, columns, view.dtype) };
}

two_stage! {
    /// `out = self * mat2`. The right side has two dimensions, or as many as the left.
    aclnnMatmul, aclnnMatmulGetWorkspaceSize(a: RawTensor, b: RawTensor, out: RawTensor, cube_math_type: i8) = matmul;
    /// `out = self * mat2`, with two dimensions each.
    aclnnMm, aclnnMmGetWorkspaceSize(a: RawTensor, b: RawTensor, out: RawTensor, cube_math_type: i8) = mm;
    /// `out = self * mat2`, with three dimensions each.
    aclnnBatchMatMul, aclnnBatchMatMulGetWorkspaceSize(a: RawTensor, b: RawTensor, out: RawTensor, cube_math_type: i8) = batch_matmul;
    /// `out = self * mat2` with blocked weights.
    aclnnMatmulWeightNz, aclnnMatmulWeightNzGetWorkspaceSize(a: RawTensor, b: RawTensor, out: RawTensor, cube_math_type: i8) = matmul_nz;
    /// `out = beta * self + alpha * mat1 * mat2`.
    aclnnAddmm, aclnnAddmmGetWorkspaceSize(c: RawTensor, a: RawTensor, b: RawTensor, beta: RawScalar, alpha: RawScalar, out: RawTensor, cube_math_type: i8) = addmm;
    /// Converts weights to blocks, in place.
    aclnnTransMatmulWeight, aclnnTransMatmulWeightGetWorkspaceSize(weight: RawTensor) = trans_weight;
}

fn matmul(p: &mut Plan<'_>, a: RawTensor, b: RawTensor, out: RawTensor, kind: i8) -> Outcome<Planned> {
    let (a, b) = (p.input(a, "self")?, p.input(b, "mat2")?);
    let out = p.output(out, "out")?;
    p.page(b.format == Format::Nd, || "mat2 is FRACTAL_NZ, expected ND".to_owned())?;
    product(p, &a, &b, &out, kind)
}

fn mm(p: &mut Plan<'_>, a: RawTensor, b: RawTensor, out: RawTensor, kind: i8) -> Outcome<Planned> {
    let (a, b) = (p.input(a, "self")?, p.input(b, "mat2")?);
    let out = p.output(out, "out")?;
    rank(p, &a, "self", 2)?;
    rank(p, &b, "mat2", 2)?;
    product(p, &a, &b, &out, kind)
}

fn batch_matmul(p: &mut Plan<'_>, a: RawTensor, b: RawTensor, out: RawTensor, kind: i8) -> Outcome<Planned> {
    let (a, b) = (p.input(a, "self")?, p.input(b, "mat2")?);
    let out = p.output(out, "out")?;
    rank(p, &a, "self", 3)?;
    rank(p, &b, "mat2", 3)?;
    product(p, &a, &b, &out, kind)
}

fn matmul_nz(p: &mut Plan<'_>, a: RawTensor, b: RawTensor, out: RawTensor, kind: i8) -> Outcome<Planned> {
    let (a, b) = (p.input(a, "self")?, p.input(b, "mat2")?);
    let out = p.output(out, "out")?;
    p.require(b.format == Format::Nz, || "mat2: expected the format FRACTAL_NZ".to_owned())?;
    rank(p, &a, "self", 2)?;
    rank(p, &b, "mat2", 2)?;
    p.require(b.dims().iter().all(|n| *n > 1), || {
        format!("mat2 has shape {}, expected no size of 1", b.shape())
    })?;
    let padded = nz::elements(&b) as i64;
    p.require(b.storage == padded && b.storage_rank == 4, || {
        format!(
            "mat2: the storage shape has {} dimensions and {} elements, expected 4 and {padded}",
            b.storage_rank, b.storage
        )
    })?;
    product(p, &a, &b, &out, kind)
}

fn addmm(
    p: &mut Plan<'_>,
    c: RawTensor,
    a: RawTensor,
    b: RawTensor,
    beta: RawScalar,
    alpha: RawScalar,
    out: RawTensor,
    kind: i8,
) -> Outcome<Planned> {
    let (a, b) = (p.input(a, "mat1")?, p.input(b, "mat2")?);
    let out = p.output(out, "out")?;
    let c = p.input(c, "self")?;
    let (alpha, beta) = (scalar(alpha, "alpha")? as f32, scalar(beta, "beta")? as f32);
    rank(p, &a, "mat1", 2)?;
    rank(p, &b, "mat2", 2)?;
    p.require(b.format == Format::Nd, || "mat2: blocked weights are not supported".to_owned())?;
    p.float(&c, "self")?;
    p.same_dtype((&a, "mat1"), (&c, "self"))?;
    let mut planned = product(p, &a, &b, &out, kind)?;
    p.require(c.broadcast_to(out.dims()).is_some(), || {
        format!("self has shape {:?}, which does not broadcast to {:?}", c.dims(), out.dims())
    })?;
    if let Kernel::Matmul(kernel) = &mut planned.kernel {
        (kernel.alpha, kernel.beta) = (alpha, beta);
    }
    planned.cost.bytes += c.bytes();
    // The caller's order is self, mat1, mat2, out.
    p.order(&[1, 2, 3, 0]);
    Ok(planned)
}

fn rank(p: &Plan<'_>, view: &View, name: &str, rank: usize) -> Outcome {
    p.require(view.rank() == rank, || format!("{name} has {} dimensions, expected {rank}", view.rank()))
}

fn product(p: &Plan<'_>, a: &View, b: &View, out: &View, kind: i8) -> Outcome<Planned> {
    p.float(a, "self")?;
    p.float(b, "mat2")?;
    p.float(out, "out")?;
    p.same_dtype((a, "self"), (b, "mat2"))?;
    p.same_dtype((a, "self"), (out, "out"))?;
    let last = if p.is_310p() { 2 } else { 3 };
    p.require((0..=last).contains(&kind), || {
        format!("cubeMathType is {kind}, expected 0 to {last} on {}", p.soc().name())
    })?;
    let fp32_on_310p = p.is_310p() && a.dtype == DType::Float;
    p.require(!fp32_on_310p || kind == 1, || {
        format!("cubeMathType is {kind}, FLOAT operands on {} want 1 (computed in FLOAT16)", p.soc().name())
    })?;
    p.require(a.rank() >= 2 && b.rank() >= 2, || {
        format!("self has shape {:?}, mat2 has {:?}: expected two dimensions at least", a.dims(), b.dims())
    })?;
    p.require(b.format == Format::Nd || b.rank() == 2, || {
        "mat2: blocked weights have two dimensions".to_owned()
    })?;
    p.require(a.format == Format::Nd && out.format == Format::Nd, || {
        "self and out: expected the format ND".to_owned()
    })?;
    let (m, k) = (a.dims()[a.rank() - 2], a.dims()[a.rank() - 1]);
    let (rows, n) = (b.dims()[b.rank() - 2], b.dims()[b.rank() - 1]);
    p.require(k == rows, || {
        format!("self has shape {:?}, mat2 has {:?}: the inner sizes differ", a.dims(), b.dims())
    })?;
    if a.rank() == 2 && b.rank() == 2 {
        p.shape(out, "out", &[m, n])?;
        return Ok(product_planned(a, b, out, k, a.dtype == DType::Float && (fp32_on_310p || kind == 2)));
    }
    let batches = broadcast(outer_dims(a), outer_dims(b));
    let Some(mut expected) = batches else {
        return fail(
            NN_PARAM_INVALID,
            format!("self has shape {:?}, mat2 has {:?}: the batches differ", a.dims(), b.dims()),
        );
    };
    expected.extend([m, n]);
    p.shape(out, "out", &expected)?;
    Ok(product_planned(a, b, out, k, a.dtype == DType::Float && (fp32_on_310p || kind == 2)))
}

fn product_planned(a: &View, b: &View, out: &View, k: i64, through_fp16: bool) -> Planned {
    let cost = Cost {
        cube: Some(if through_fp16 { DType::Float16 } else { a.dtype }),
        cube_flops: 2.0 * out.len() as f64 * k as f64,
        vector_flops: 0.0,
        bytes: a.bytes() + b.bytes() + out.bytes(),
        prompt: false,
    };
    let kernel = if out.is_empty() {
        Kernel::Nothing
    } else {
        Kernel::Matmul(Matmul { alpha: 1.0, beta: 1.0, through_fp16 })
    };
    Planned { kernel, cost, workspace: 0 }
}

fn outer_dims(view: &View) -> &[i64] {
    let (dims, _) = outer(view);
    &dims[..dims.len().saturating_sub(1)]
}

/// Broadcast shape of two shapes: dimensions may differ if one of them is 1.
pub(crate) fn broadcast(a: &[i64], b: &[i64]) -> Option<Vec<i64>> {
    let rank = a.len().max(b.len());
    let get = |dims: &[i64], i: usize| {
        let front = rank - dims.len();
        if i < front { 1 } else { dims[i - front] }
    };
    (0..rank)
        .map(|i| match (get(a, i), get(b, i)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

fn trans_weight(p: &mut Plan<'_>, weight: RawTensor) -> Outcome<Planned> {
    let view = p.both(weight, "weightRef")?;
    p.dtype(&view, "weightRef", &[DType::Float16, DType::Bf16, DType::Int8])?;
    rank(p, &view, "weightRef", 2)?;
    p.require(view.format == Format::Nd, || "weightRef is in blocks already".to_owned())?;
    p.contiguous(&view, "weightRef")?;
    p.as_blocks();
    let cost = Cost { bytes: 2.0 * view.bytes(), ..Cost::default() };
    Ok(Planned { kernel: Kernel::ToBlocks, cost, workspace: 0 })
}

/// Number of elements of a weight in blocks.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclnnCalculateMatmulWeightSizeV2(
    shape: RawIntArray,
    dtype: i32,
    elements: *mut u64,
) -> i32 {
    entry("aclnnCalculateMatmulWeightSizeV2", || {
        let dims = int_array(shape, "tensorShape")?;
        if elements.is_null() {
            return fail(NN_PARAM_NULLPTR, "weightTensorSize is null");
        }
        let dtype = match DType::from_code(dtype) {
            Some(dtype @ (DType::Float16 | DType::Bf16 | DType::Int8)) => dtype,
            _ => return fail(NN_PARAM_INVALID, format!("dataType {dtype} has no blocked format")),
        };
        let [batches @ .., rows, columns] = dims else {
            return fail(NN_PARAM_INVALID, format!("tensorShape is {dims:?}, expected two numbers at least"));
        };
        if dims.iter().any(|d| !(1..1 << 30).contains(d)) {
            return fail(NN_PARAM_INVALID, format!("tensorShape is {dims:?}"));
        }
        let matrix = nz::padded(*rows as usize, *columns as usize, dtype) as u64;
        // SAFETY: not null; the caller's pointer.
        unsafe { elements.write(batches.iter().fold(matrix, |n, d| n * *d as u64)) };
        Ok(())
    })
}
