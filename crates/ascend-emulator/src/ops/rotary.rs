//! Rotary position embedding.

use crate::clock::Cost;
use crate::executor::{Plan, Planned};
use crate::half::{DType, round_bf16_away, round_to};
use crate::ops::Kernel;
use crate::ops::indexing::text;
use crate::ops::rows::{load, store};
use crate::ops::two_stage;
use crate::status::Outcome;
use crate::tensor::{RawTensor, View};

use std::ffi::c_char;

/// Which channels form a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pairs {
    /// `(i, i + D/2)`.
    Half,
    /// `(2i, 2i + 1)`.
    Interleaved,
}

/// Rotates every head by its token's cosine and sine. Views in place: query, key, cos, sin. Otherwise: x, cos, sin,
/// out.
///
/// For fp16 operands, the in-place operators multiply and add in fp16: both products are rounded, then their sum. In
/// bf16, and in the other operator, all is fp32 with one rounding. In the in-place operators' bf16, that rounding sends
/// ties away from zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rotary {
    pairs: Pairs,
    in_place: bool,
}

impl Rotary {
    /// # Safety
    /// Every view lies inside live memory.
    pub(crate) unsafe fn run(self, views: &[View]) {
        let &[a, b, c, d] = views else { return };
        // SAFETY: the caller's promise.
        unsafe {
            if self.in_place {
                self.rotate(&a, &c, &d, &a);
                self.rotate(&b, &c, &d, &b);
            } else {
                self.rotate(&a, &b, &c, &d);
            }
        }
    }

    /// # Safety
    /// As [`Rotary::run`].
    unsafe fn rotate(self, x: &View, cos: &View, sin: &View, out: &View) {
        let d = x.width();
        let mut rows = [vec![0f32; d], vec![0f32; d], vec![0f32; d]];
        let mut result = vec![0f32; d];
        let (Some(cos), Some(sin)) = (cos.broadcast_to(x.dims()), sin.broadcast_to(x.dims())) else { return };
        let n = x.rank() - 1;
        let strides = [&x.strides()[..n], &cos.strides()[..n], &sin.strides()[..n], &out.strides()[..n]];
        crate::ops::rows::for_each_row(&x.dims()[..n], strides, |[ox, oc, os, oo]| {
            let [numbers, cosine, sine] = &mut rows;
            // SAFETY: the caller's promise.
            unsafe {
                load(x, ox, numbers);
                load(&cos, oc, cosine);
                load(&sin, os, sine);
            }
            let in_fp16 = self.in_place && x.dtype == DType::Float16;
            let product = if in_fp16 { DType::Float16 } else { DType::Float };
            for i in 0..d {
                let (partner, sign) = match self.pairs {
                    Pairs::Half if i < d / 2 => (i + d / 2, -1.0),
                    Pairs::Half => (i - d / 2, 1.0),
                    Pairs::Interleaved if i.is_multiple_of(2) => (i + 1, -1.0),
                    Pairs::Interleaved => (i - 1, 1.0),
                };
                result[i] = round_to(product, numbers[i] * cosine[i])
                    + round_to(product, sign * numbers[partner] * sine[i]);
            }
            if self.in_place && x.dtype == DType::Bf16 {
                result.iter_mut().for_each(|r| *r = round_bf16_away(*r));
            }
            // SAFETY: the caller's promise.
            unsafe { store(out, oo, &result) };
        });
    }
}

two_stage! {
    /// Rotates queries and keys in place, in mode "half".
    aclnnApplyRotaryPosEmb, aclnnApplyRotaryPosEmbGetWorkspaceSize(query: RawTensor, key: RawTensor, cos: RawTensor, sin: RawTensor, layout: i64) = apply;
    /// Rotates queries and keys in place.
    aclnnApplyRotaryPosEmbV2, aclnnApplyRotaryPosEmbV2GetWorkspaceSize(query: RawTensor, key: RawTensor, cos: RawTensor, sin: RawTensor, layout: i64, mode: *mut c_char) = apply_v2;
    /// Rotates one tensor (not on 310P).
    aclnnRotaryPositionEmbedding, aclnnRotaryPositionEmbeddingGetWorkspaceSize(x: RawTensor, cos: RawTensor, sin: RawTensor, mode: i64, out: RawTensor) = embedding;
}

fn apply(
    p: &mut Plan<'_>,
    query: RawTensor,
    key: RawTensor,
    cos: RawTensor,
    sin: RawTensor,
    layout: i64,
) -> Outcome<Planned> {
    in_place(p, query, key, cos, sin, layout, Pairs::Half)
}

fn apply_v2(
    p: &mut Plan<'_>,
    query: RawTensor,
    key: RawTensor,
    cos: RawTensor,
    sin: RawTensor,
    layout: i64,
    mode: *mut c_char,
) -> Outcome<Planned> {
    let mode = text(mode);
    let interleaved = mode == "interleave" && !p.by_the_book();
    p.require(mode == "half" || interleaved, || {
        let others = if p.by_the_book() { "" } else { " or \"interleave\"" };
        format!("rotaryMode is \"{mode}\", expected \"half\"{others}")
    })?;
    let pairs = if interleaved { Pairs::Interleaved } else { Pairs::Half };
    in_place(p, query, key, cos, sin, layout, pairs)
}

fn in_place(
    p: &mut Plan<'_>,
    query: RawTensor,
    key: RawTensor,
    cos: RawTensor,
    sin: RawTensor,
    layout: i64,
    pairs: Pairs,
) -> Outcome<Planned> {
    let (query, key) = (p.both(query, "queryRef")?, p.both(key, "keyRef")?);
    let (cos, sin) = (p.input(cos, "cos")?, p.input(sin, "sin")?);
    p.require(layout == 1, || format!("layout is {layout}, expected 1 (BSND)"))?;
    for (view, name) in [(&query, "queryRef"), (&key, "keyRef"), (&cos, "cos"), (&sin, "sin")] {
        p.float(view, name)?;
        p.same_dtype((&query, "queryRef"), (view, name))?;
        p.require(view.rank() == 4, || format!("{name} has shape {}, expected [B, S, N, D]", view.shape()))?;
        p.contiguous(view, name)?;
    }
    let [b, s, _, d] = *query.dims() else { return p.no_kernel() };
    p.require(d == 64 || d == 128, || format!("the last size of queryRef is {d}, expected 64 or 128"))?;
    p.page(d == 128, || format!("the last size of queryRef is {d}, expected 128"))?;
    if d == 64 {
        p.form("D64")?;
    }
    p.require(key.dims()[..2] == [b, s] && key.dims()[3] == d, || {
        format!("keyRef has shape {}, queryRef has {}", key.shape(), query.shape())
    })?;
    p.shape(&cos, "cos", &[b, s, 1, d])?;
    p.shape(&sin, "sin", &[b, s, 1, d])?;
    let numbers = (query.len() + key.len()) as f64;
    let cost = Cost {
        vector_flops: 4.0 * numbers,
        bytes: 2.0 * (query.bytes() + key.bytes()) + cos.bytes() + sin.bytes(),
        ..Cost::default()
    };
    Ok(Planned { kernel: Kernel::Rotary(Rotary { pairs, in_place: true }), cost, workspace: 0 })
}

fn embedding(
    p: &mut Plan<'_>,
    x: RawTensor,
    cos: RawTensor,
    sin: RawTensor,
    mode: i64,
    out: RawTensor,
) -> Outcome<Planned> {
    if p.is_310p() {
        return p.no_kernel();
    }
    let (x, cos, sin) = (p.input(x, "x")?, p.input(cos, "cos")?, p.input(sin, "sin")?);
    let out = p.output(out, "out")?;
    p.dtype(&x, "x", &[DType::Float16, DType::Float, DType::Bf16])?;
    let pairs = match mode {
        0 => Pairs::Half,
        1 => Pairs::Interleaved,
        _ => {
            p.require(false, || format!("mode is {mode}, expected 0 (half) or 1 (interleave)"))?;
            Pairs::Half
        }
    };
    for (view, name) in [(&x, "x"), (&cos, "cos"), (&sin, "sin"), (&out, "out")] {
        p.same_dtype((&x, "x"), (view, name))?;
        p.require(view.rank() == 4, || {
            format!("{name} has shape {}, expected four dimensions", view.shape())
        })?;
    }
    p.shape(&out, "out", x.dims())?;
    p.require(x.width().is_multiple_of(2), || {
        format!("the last size of x is {}, expected an even one", x.width())
    })?;
    for (view, name) in [(&cos, "cos"), (&sin, "sin")] {
        p.require(view.broadcast_to(x.dims()).is_some() && view.width() == x.width(), || {
            format!("{name} has shape {}, which does not broadcast to {}", view.shape(), x.shape())
        })?;
    }
    let cost = Cost {
        vector_flops: 4.0 * x.len() as f64,
        bytes: 2.0 * x.bytes() + cos.bytes() + sin.bytes(),
        ..Cost::default()
    };
    Ok(Planned { kernel: Kernel::Rotary(Rotary { pairs, in_place: false }), cost, workspace: 0 })
}
