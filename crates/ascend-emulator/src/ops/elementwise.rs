//! Element-wise operators: add, multiply, copy, cast, SwiGLU.

use crate::clock::Cost;
use crate::executor::{Plan, Planned};
use crate::half::{DType, read_f64, write_f64};
use crate::ops::Kernel;
use crate::ops::linear::broadcast;
use crate::ops::rows::{dimension, for_each_row, load, outer, store};
use crate::ops::two_stage;
use crate::status::{NN_PARAM_INVALID, Outcome, fail};
use crate::tensor::{RawIntArray, RawScalar, RawTensor, View, int_array, scalar};

/// Operation on two operands.
#[derive(Debug, Clone, Copy)]
enum Pair {
    /// `a + alpha * b`.
    Add(f64),
    /// `a * b`.
    Mul,
}

/// `out = a op b`, in fp32 with one rounding (integers: in fp64). Views: a, b and out, or a (in place) and b.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Binary {
    pair: Pair,
}

impl Binary {
    /// # Safety
    /// Every view lies inside live memory.
    pub(crate) unsafe fn run(self, views: &[View]) {
        let (a, b, out) = match *views {
            [a, b] => (a, b, a),
            [a, b, out] => (a, b, out),
            _ => return,
        };
        let (Some(a), Some(b)) = (a.broadcast_to(out.dims()), b.broadcast_to(out.dims())) else { return };
        let (a, b, out) = (at_least_a_row(&a), at_least_a_row(&b), at_least_a_row(&out));
        let width = out.width();
        let (mut x, mut y) = (vec![0f32; width], vec![0f32; width]);
        for_each_row(outer(&out).0, [outer(&a).1, outer(&b).1, outer(&out).1], |[oa, ob, oo]| {
            // SAFETY: the caller's promise.
            unsafe {
                if !out.dtype.is_float() {
                    for i in 0..width as i64 {
                        let left = read_f64(a.dtype, a.at(oa + i * a.last_stride()));
                        let right = read_f64(b.dtype, b.at(ob + i * b.last_stride()));
                        let result = match self.pair {
                            Pair::Add(alpha) => left + alpha * right,
                            Pair::Mul => left * right,
                        };
                        write_f64(out.dtype, result, out.at(oo + i * out.last_stride()));
                    }
                    return;
                }
                load(&a, oa, &mut x);
                load(&b, ob, &mut y);
                match self.pair {
                    Pair::Add(alpha) => x.iter_mut().zip(&y).for_each(|(x, y)| *x += alpha as f32 * y),
                    Pair::Mul => x.iter_mut().zip(&y).for_each(|(x, y)| *x *= y),
                }
                store(&out, oo, &x);
            }
        });
    }
}

/// Operation on one operand. Views: x and out.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unary {
    /// Multiplication by a number.
    Scale(f64),
    /// The same values in the output's type and shape. The second view is the source.
    Copy,
    /// The same values in the output's type.
    Cast,
    /// `silu(first half) * second half` along the last dimension of both views.
    SwiGlu,
}

impl Unary {
    /// # Safety
    /// Every view lies inside live memory.
    pub(crate) unsafe fn run(self, views: &[View]) {
        let (x, out) = match (self, views) {
            (Self::Copy, [out, x]) | (_, [x, out]) => (*x, *out),
            _ => return,
        };
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::Copy | Self::Cast => copy(&x, &out),
                Self::Scale(factor) => {
                    let (x, out) = (at_least_a_row(&x), at_least_a_row(&out));
                    let mut row = vec![0f32; out.width()];
                    for_each_row(outer(&out).0, [outer(&x).1, outer(&out).1], |[ox, oo]| {
                        load(&x, ox, &mut row);
                        row.iter_mut().for_each(|v| *v *= factor as f32);
                        store(&out, oo, &row);
                    });
                }
                Self::SwiGlu => swiglu(&x, &out),
            }
        }
    }
}

/// # Safety
/// Both views lie inside live memory.
unsafe fn swiglu(x: &View, out: &View) {
    let half = out.width();
    let mut row = vec![0f32; 2 * half];
    for_each_row(outer(out).0, [outer(x).1, outer(out).1], |[ox, oo]| {
        // SAFETY: the caller's promise.
        unsafe { load(x, ox, &mut row) };
        let (gate, up) = row.split_at_mut(half);
        for (g, u) in gate.iter_mut().zip(up) {
            *g = *g / (1.0 + (-*g).exp()) * *u;
        }
        // SAFETY: the caller's promise.
        unsafe { store(out, oo, gate) };
    });
}

/// Copies with broadcast, strides and conversion. Copies bytes if the types match.
///
/// # Safety
/// Both views lie inside live memory.
pub(crate) unsafe fn copy(x: &View, out: &View) {
    let Some(x) = x.broadcast_to(out.dims()) else { return };
    let (x, out) = (at_least_a_row(&x), at_least_a_row(out));
    let (width, bytes) = (out.width(), out.dtype.bytes());
    let mut row = vec![0f32; width];
    for_each_row(outer(&out).0, [outer(&x).1, outer(&out).1], |[ox, oo]| {
        // SAFETY: the caller's promise.
        unsafe {
            if x.dtype == out.dtype {
                if x.last_stride() == 1 && out.last_stride() == 1 {
                    std::ptr::copy(x.at(ox), out.at(oo), width * bytes);
                } else {
                    for i in 0..width as i64 {
                        let (from, to) = (x.at(ox + i * x.last_stride()), out.at(oo + i * out.last_stride()));
                        std::ptr::copy(from, to, bytes);
                    }
                }
            } else if x.dtype.is_float() && out.dtype.is_float() {
                load(&x, ox, &mut row);
                store(&out, oo, &row);
            } else {
                for i in 0..width as i64 {
                    let number = read_f64(x.dtype, x.at(ox + i * x.last_stride()));
                    write_f64(out.dtype, number, out.at(oo + i * out.last_stride()));
                }
            }
        }
    });
}

/// A view with at least one dimension: a scalar becomes a row of one element.
fn at_least_a_row(view: &View) -> View {
    if view.rank() == 0 { view.with_shape(&[1], &[1]) } else { *view }
}

two_stage! {
    /// `out = self + alpha * other`.
    aclnnAdd, aclnnAddGetWorkspaceSize(a: RawTensor, b: RawTensor, alpha: RawScalar, out: RawTensor) = add;
    /// `self = self + alpha * other`.
    aclnnInplaceAdd, aclnnInplaceAddGetWorkspaceSize(a: RawTensor, b: RawTensor, alpha: RawScalar) = inplace_add;
    /// `out = self * other`.
    aclnnMul, aclnnMulGetWorkspaceSize(a: RawTensor, b: RawTensor, out: RawTensor) = mul;
    /// `out = self * number`.
    aclnnMuls, aclnnMulsGetWorkspaceSize(a: RawTensor, factor: RawScalar, out: RawTensor) = muls;
    /// Converts to another type.
    aclnnCast, aclnnCastGetWorkspaceSize(a: RawTensor, dtype: i32, out: RawTensor) = cast;
    /// `self = source`, broadcast and strided.
    aclnnInplaceCopy, aclnnInplaceCopyGetWorkspaceSize(out: RawTensor, source: RawTensor) = inplace_copy;
    /// Permutes the dimensions.
    aclnnPermute, aclnnPermuteGetWorkspaceSize(a: RawTensor, dims: RawIntArray, out: RawTensor) = permute;
    /// `out = silu(first half) * second half` along a dimension.
    aclnnSwiGlu, aclnnSwiGluGetWorkspaceSize(x: RawTensor, dim: i64, out: RawTensor) = swi_glu;
}

const ARITHMETIC: &[DType] = &[DType::Float16, DType::Float, DType::Bf16, DType::Int32, DType::Int64];
const COPIED: &[DType] = &[
    DType::Float16,
    DType::Float,
    DType::Bf16,
    DType::Int8,
    DType::Uint8,
    DType::Int16,
    DType::Int32,
    DType::Int64,
    DType::Bool,
];

/// Rejects operators that the pages exclude on the 310P, in `doc` mode. The chip's kernel list has them.
fn only_by_kernel_list(p: &Plan<'_>) -> Outcome {
    if p.is_310p() && p.by_the_book() { p.no_kernel() } else { Ok(()) }
}

fn pair(p: &Plan<'_>, a: &View, b: &View, out: &View, pair: Pair) -> Outcome<Planned> {
    for (view, name) in [(a, "self"), (b, "other"), (out, "out")] {
        p.dtype(view, name, ARITHMETIC)?;
    }
    p.same_dtype((a, "self"), (b, "other"))?;
    p.same_dtype((a, "self"), (out, "out"))?;
    if a.dims() != b.dims() {
        p.form("broadcast")?;
    }
    match broadcast(a.dims(), b.dims()) {
        Some(dims) => p.shape(out, "out", &dims)?,
        None => {
            return fail(
                NN_PARAM_INVALID,
                format!("self has shape {}, other has {}: they do not broadcast", a.shape(), b.shape()),
            );
        }
    }
    let numbers = out.len() as f64;
    let cost = Cost {
        vector_flops: numbers * if matches!(pair, Pair::Add(alpha) if alpha != 1.0) { 2.0 } else { 1.0 },
        bytes: a.bytes() + b.bytes() + out.bytes(),
        ..Cost::default()
    };
    let kernel = if out.is_empty() { Kernel::Nothing } else { Kernel::Binary(Binary { pair }) };
    Ok(Planned { kernel, cost, workspace: 0 })
}

fn add(p: &mut Plan<'_>, a: RawTensor, b: RawTensor, alpha: RawScalar, out: RawTensor) -> Outcome<Planned> {
    only_by_kernel_list(p)?;
    let (a, b) = (p.input(a, "self")?, p.input(b, "other")?);
    let alpha = scalar(alpha, "alpha")?;
    let out = p.output(out, "out")?;
    pair(p, &a, &b, &out, Pair::Add(alpha))
}

fn inplace_add(p: &mut Plan<'_>, a: RawTensor, b: RawTensor, alpha: RawScalar) -> Outcome<Planned> {
    only_by_kernel_list(p)?;
    let (a, b) = (p.both(a, "selfRef")?, p.input(b, "other")?);
    pair(p, &a, &b, &a, Pair::Add(scalar(alpha, "alpha")?))
}

fn mul(p: &mut Plan<'_>, a: RawTensor, b: RawTensor, out: RawTensor) -> Outcome<Planned> {
    let (a, b) = (p.input(a, "self")?, p.input(b, "other")?);
    let out = p.output(out, "out")?;
    pair(p, &a, &b, &out, Pair::Mul)
}

fn planned_unary(kernel: Unary, x: &View, out: &View, flops: f64) -> Planned {
    let cost =
        Cost { vector_flops: flops * out.len() as f64, bytes: x.bytes() + out.bytes(), ..Cost::default() };
    let kernel = if out.is_empty() { Kernel::Nothing } else { Kernel::Unary(kernel) };
    Planned { kernel, cost, workspace: 0 }
}

fn muls(p: &mut Plan<'_>, a: RawTensor, factor: RawScalar, out: RawTensor) -> Outcome<Planned> {
    let (a, factor) = (p.input(a, "self")?, scalar(factor, "other")?);
    let out = p.output(out, "out")?;
    p.float(&a, "self")?;
    p.same_dtype((&a, "self"), (&out, "out"))?;
    p.shape(&out, "out", a.dims())?;
    Ok(planned_unary(Unary::Scale(factor), &a, &out, 1.0))
}

fn cast(p: &mut Plan<'_>, a: RawTensor, dtype: i32, out: RawTensor) -> Outcome<Planned> {
    let (a, out) = (p.input(a, "self")?, p.output(out, "out")?);
    p.dtype(&a, "self", COPIED)?;
    p.dtype(&out, "out", COPIED)?;
    p.require(DType::from_code(dtype) == Some(out.dtype), || {
        format!("dtype is {dtype}, out has {}", out.dtype.name())
    })?;
    p.shape(&out, "out", a.dims())?;
    Ok(planned_unary(Unary::Cast, &a, &out, 1.0))
}

fn inplace_copy(p: &mut Plan<'_>, out: RawTensor, source: RawTensor) -> Outcome<Planned> {
    let (out, source) = (p.both(out, "selfRef")?, p.input(source, "src")?);
    p.dtype(&out, "selfRef", COPIED)?;
    p.dtype(&source, "src", COPIED)?;
    p.require(source.broadcast_to(out.dims()).is_some(), || {
        format!("src has shape {}, which does not broadcast to {}", source.shape(), out.shape())
    })?;
    Ok(planned_unary(Unary::Copy, &source, &out, 0.0))
}

fn permute(p: &mut Plan<'_>, a: RawTensor, dims: RawIntArray, out: RawTensor) -> Outcome<Planned> {
    only_by_kernel_list(p)?;
    let (a, dims) = (p.input(a, "self")?, int_array(dims, "dims")?);
    let out = p.output(out, "out")?;
    p.dtype(&a, "self", COPIED)?;
    p.same_dtype((&a, "self"), (&out, "out"))?;
    let order: Option<Vec<usize>> = dims.iter().map(|d| dimension(*d, a.rank())).collect();
    let order = order.unwrap_or_default();
    let complete = order.len() == a.rank() && (0..a.rank()).all(|d| order.contains(&d));
    p.require(complete, || format!("dims is {dims:?}, self has {} dimensions", a.rank()))?;
    let sizes: Vec<i64> = order.iter().map(|d| a.dims()[*d]).collect();
    let strides: Vec<i64> = order.iter().map(|d| a.strides()[*d]).collect();
    p.shape(&out, "out", &sizes)?;
    let planned = planned_unary(Unary::Cast, &a, &out, 0.0);
    p.reshape(0, &a.with_shape(&sizes, &strides));
    Ok(planned)
}

fn swi_glu(p: &mut Plan<'_>, x: RawTensor, dim: i64, out: RawTensor) -> Outcome<Planned> {
    let (x, out) = (p.input(x, "x")?, p.output(out, "out")?);
    p.float(&x, "x")?;
    p.same_dtype((&x, "x"), (&out, "out"))?;
    p.contiguous(&x, "x")?;
    let found = dimension(dim, x.rank());
    p.require(found == x.rank().checked_sub(1) && found.is_some(), || {
        format!("dim is {dim}, expected the last dimension of {} (others are not played)", x.shape())
    })?;
    p.require(x.width().is_multiple_of(2), || format!("x has shape {}: the last size is odd", x.shape()))?;
    let mut expected = x.dims().to_vec();
    if let Some(last) = expected.last_mut() {
        *last /= 2;
    }
    p.shape(&out, "out", &expected)?;
    let half = x.width() / 2 * x.dtype.bytes();
    p.tiling(!p.is_310p() || half.is_multiple_of(64), || {
        format!("half of the last axis of x has {half} bytes, expected a multiple of 64")
    })?;
    Ok(planned_unary(Unary::SwiGlu, &x, &out, 6.0))
}
