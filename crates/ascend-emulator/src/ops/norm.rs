//! RMS norms, softmax and arg-max, one row at a time.

use crate::clock::Cost;
use crate::executor::{Plan, Planned};
use crate::half::{DType, round_to, write_f64};
use crate::ops::Kernel;
use crate::ops::rows::{dimension, for_each_row, load, move_last, outer, store};
use crate::ops::two_stage;
use crate::status::Outcome;
use crate::tensor::{RawTensor, View};

/// `y = x / sqrt(mean(x^2) + epsilon) * gamma`. Views: x, gamma, y, rstd; with `add`: x1, x2, gamma, y, rstd, x.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RmsNorm {
    epsilon: f32,
}

impl RmsNorm {
    /// # Safety
    /// Every view lies inside live memory.
    pub(crate) unsafe fn run(self, views: &[View]) {
        let (x1, x2, gamma, y, rstd, sum) = match *views {
            [x, gamma, y, rstd] => (x, None, gamma, y, rstd, None),
            [x1, x2, gamma, y, rstd, sum] => (x1, Some(x2), gamma, y, rstd, Some(sum)),
            _ => return,
        };
        let width = gamma.len();
        let mut weight = vec![0f32; width];
        let (mut row, mut other) = (vec![0f32; width], vec![0f32; width]);
        let flat = |view: &View| {
            let rows = (view.len() / width) as i64;
            view.with_shape(&[rows, width as i64], &[width as i64, 1])
        };
        let (x1, y) = (flat(&x1), flat(&y));
        let (x2, sum) = (x2.map(|v| flat(&v)), sum.map(|v| flat(&v)));
        // SAFETY: the caller's promise; all views are contiguous (checked in the first stage).
        unsafe {
            load(&gamma.with_shape(&[width as i64], &[1]), 0, &mut weight);
            for i in 0..x1.dims()[0] {
                let at = i * width as i64;
                load(&x1, at, &mut row);
                if let (Some(x2), Some(sum)) = (&x2, &sum) {
                    load(x2, at, &mut other);
                    for (a, b) in row.iter_mut().zip(&other) {
                        *a = round_to(sum.dtype, *a + b);
                    }
                    store(sum, at, &row);
                }
                let mean = row.iter().map(|v| v * v).sum::<f32>() / width as f32;
                let scale = 1.0 / (mean + self.epsilon).sqrt();
                for (v, w) in row.iter_mut().zip(&weight) {
                    *v = *v * scale * w;
                }
                store(&y, at, &row);
                write_f64(rstd.dtype, f64::from(scale), rstd.at(i));
            }
        }
    }
}

/// Softmax along the last dimension of both views.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Softmax {
    dim: usize,
}

impl Softmax {
    /// # Safety
    /// Every view lies inside live memory.
    pub(crate) unsafe fn run(self, views: &[View]) {
        let [x, out] = views else { return };
        let (x, out) = (move_last(x, self.dim), move_last(out, self.dim));
        let mut row = vec![0f32; x.width()];
        for_each_row(outer(&x).0, [outer(&x).1, outer(&out).1], |[from, to]| {
            // SAFETY: the caller's promise.
            unsafe { load(&x, from, &mut row) };
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut total = 0.0;
            for v in &mut row {
                *v = (*v - max).exp();
                total += *v;
            }
            row.iter_mut().for_each(|v| *v /= total);
            // SAFETY: the caller's promise.
            unsafe { store(&out, to, &row) };
        });
    }
}

/// Index of the first of the largest elements along a dimension. NaN counts as largest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ArgMax {
    dim: usize,
}

impl ArgMax {
    /// # Safety
    /// Every view lies inside live memory.
    pub(crate) unsafe fn run(self, views: &[View]) {
        let [x, out] = views else { return };
        let x = move_last(x, self.dim);
        let mut row = vec![0f32; x.width()];
        let mut index = 0;
        for_each_row(outer(&x).0, [outer(&x).1], |[from]| {
            // SAFETY: the caller's promise.
            unsafe { load(&x, from, &mut row) };
            let mut best = 0;
            for (i, v) in row.iter().enumerate() {
                if *v > row[best] || (v.is_nan() && !row[best].is_nan()) {
                    best = i;
                }
            }
            // SAFETY: the output is contiguous and has a number a row.
            unsafe { write_f64(out.dtype, best as f64, out.at(index)) };
            index += 1;
        });
    }
}

two_stage! {
    /// RMS norm over the dimensions of gamma.
    aclnnRmsNorm, aclnnRmsNormGetWorkspaceSize(x: RawTensor, gamma: RawTensor, epsilon: f64, y: RawTensor, rstd: RawTensor) = rms_norm;
    /// `x = x1 + x2`, rounded, and the RMS norm of it.
    aclnnAddRmsNorm, aclnnAddRmsNormGetWorkspaceSize(x1: RawTensor, x2: RawTensor, gamma: RawTensor, epsilon: f64, y: RawTensor, rstd: RawTensor, x: RawTensor) = add_rms_norm;
    /// Softmax along a dimension, in fp32.
    aclnnSoftmax, aclnnSoftmaxGetWorkspaceSize(x: RawTensor, dim: i64, out: RawTensor) = softmax;
    /// Index of the largest element along a dimension.
    aclnnArgMax, aclnnArgMaxGetWorkspaceSize(x: RawTensor, dim: i64, keepdim: bool, out: RawTensor) = arg_max;
}

fn rms_norm(
    p: &mut Plan<'_>,
    x: RawTensor,
    gamma: RawTensor,
    epsilon: f64,
    y: RawTensor,
    rstd: RawTensor,
) -> Outcome<Planned> {
    let (x, gamma) = (p.input(x, "x")?, p.input(gamma, "gamma")?);
    let (y, rstd) = (p.output(y, "yOut")?, p.output(rstd, "rstdOut")?);
    p.float(&x, "x")?;
    check_norm(p, &x, "x", &gamma, &y, &rstd)?;
    Ok(norm_planned(epsilon, false, &[&x, &gamma, &y, &rstd]))
}

fn add_rms_norm(
    p: &mut Plan<'_>,
    x1: RawTensor,
    x2: RawTensor,
    gamma: RawTensor,
    epsilon: f64,
    y: RawTensor,
    rstd: RawTensor,
    x: RawTensor,
) -> Outcome<Planned> {
    let (x1, x2, gamma) = (p.input(x1, "x1")?, p.input(x2, "x2")?, p.input(gamma, "gamma")?);
    let (y, rstd, x) = (p.output(y, "yOut")?, p.output(rstd, "rstdOut")?, p.output(x, "xOut")?);
    p.float(&x1, "x1")?;
    for (view, name) in [(&x2, "x2"), (&x, "xOut")] {
        p.same_dtype((&x1, "x1"), (view, name))?;
        p.shape(view, name, x1.dims())?;
        p.contiguous(view, name)?;
    }
    check_norm(p, &x1, "x1", &gamma, &y, &rstd)?;
    Ok(norm_planned(epsilon, true, &[&x1, &x2, &gamma, &y, &rstd, &x]))
}

fn check_norm(p: &Plan<'_>, x: &View, name: &'static str, gamma: &View, y: &View, rstd: &View) -> Outcome {
    p.same_dtype((x, name), (gamma, "gamma"))?;
    p.same_dtype((x, name), (y, "yOut"))?;
    p.dtype(rstd, "rstdOut", &[DType::Float])?;
    p.require(gamma.rank() >= 1 && gamma.rank() <= x.rank() && x.dims().ends_with(gamma.dims()), || {
        format!("gamma has shape {}, expected the last dimensions of {}", gamma.shape(), x.shape())
    })?;
    p.shape(y, "yOut", x.dims())?;
    let mut expected = x.dims().to_vec();
    let front = x.rank() - gamma.rank();
    expected[front..].fill(1);
    p.shape(rstd, "rstdOut", &expected)?;
    for (view, name) in [(x, name), (gamma, "gamma"), (y, "yOut"), (rstd, "rstdOut")] {
        p.contiguous(view, name)?;
    }
    p.tiling(!p.is_310p() || x.width() * x.dtype.bytes() >= 32, || {
        format!("the last axis of {name} has {} bytes, expected 32 at least", x.width() * x.dtype.bytes())
    })
}

fn norm_planned(epsilon: f64, add: bool, views: &[&View]) -> Planned {
    let numbers = views[0].len() as f64;
    let cost = Cost {
        vector_flops: numbers * if add { 5.0 } else { 4.0 },
        bytes: views.iter().map(|v| v.bytes()).sum(),
        ..Cost::default()
    };
    let kernel = if views[0].is_empty() {
        Kernel::Nothing
    } else {
        Kernel::RmsNorm(RmsNorm { epsilon: epsilon as f32 })
    };
    Planned { kernel, cost, workspace: 0 }
}

fn softmax(p: &mut Plan<'_>, x: RawTensor, dim: i64, out: RawTensor) -> Outcome<Planned> {
    let (x, out) = (p.input(x, "self")?, p.output(out, "out")?);
    p.float(&x, "self")?;
    p.float(&out, "out")?;
    p.shape(&out, "out", x.dims())?;
    let found = dimension(dim, x.rank());
    p.require(found.is_some(), || format!("dim is {dim}, self has shape {}", x.shape()))?;
    let cost = Cost { vector_flops: 5.0 * x.len() as f64, bytes: x.bytes() + out.bytes(), ..Cost::default() };
    let kernel =
        found.filter(|_| !x.is_empty()).map_or(Kernel::Nothing, |dim| Kernel::Softmax(Softmax { dim }));
    Ok(Planned { kernel, cost, workspace: 0 })
}

fn arg_max(p: &mut Plan<'_>, x: RawTensor, dim: i64, keepdim: bool, out: RawTensor) -> Outcome<Planned> {
    let (x, out) = (p.input(x, "self")?, p.output(out, "out")?);
    p.float(&x, "self")?;
    p.dtype(&out, "out", &[DType::Int64, DType::Int32])?;
    p.contiguous(&out, "out")?;
    let found = dimension(dim, x.rank());
    p.require(found.is_some() && !x.is_empty(), || format!("dim is {dim}, self has shape {}", x.shape()))?;
    let dim = found.unwrap_or(0);
    let mut expected = x.dims().to_vec();
    if keepdim {
        expected[dim] = 1;
    } else {
        expected.remove(dim);
    }
    p.shape(&out, "out", &expected)?;
    let cost = Cost { vector_flops: x.len() as f64, bytes: x.bytes() + out.bytes(), ..Cost::default() };
    Ok(Planned { kernel: Kernel::ArgMax(ArgMax { dim }), cost, workspace: 0 })
}
