//! Functions of vectors.

use super::{Isa, Simd16};

/// Computes `e^x` to about one unit in the last place. Below -87.3 it returns the smallest normal number, above 88.3
/// the largest power. Uses range reduction by `ln 2` in two parts and a degree-6 polynomial (Cephes' `expf`). NaN stays
/// NaN.
#[inline(always)]
pub(crate) fn exp<I: Isa>(isa: I, x: I::Vector) -> I::Vector {
    // The order of the operands passes a NaN through.
    let x = isa.splat(88.376_26).min(isa.splat(-87.336_54).max(x));
    let n = x.mul(isa.splat(std::f32::consts::LOG2_E)).round();
    let r = n.mul_add(isa.splat(-0.693_359_4), x);
    let r = n.mul_add(isa.splat(2.121_944_4e-4), r);
    let mut p = isa.splat(1.987_569_1e-4);
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        p = p.mul_add(r, isa.splat(c));
    }
    let y = p.mul_add(r.mul(r), r.add(isa.splat(1.0)));
    y.scale_pow2(n)
}
