//! The softmax of attention, a block of the context at a time.
//!
//! What is known of a row so far is relative to its largest score so far; when a block has a larger one, what went before
//! is scaled down by the factor that [`online`] returns. So scores never lie in memory for more than a block, however long
//! the context.

use super::kernels::{Element, PANEL, exp, sum_lanes};
use super::simd::Simd16;

/// What is known of a row after some of its scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowState {
    /// The largest score.
    pub max: f32,
    /// Sum of `exp(score - max)`, not rounded to the type.
    pub total: f32,
}

impl RowState {
    /// Before any score.
    pub const EMPTY: Self = Self { max: f32::NEG_INFINITY, total: 0.0 };
}

/// Takes `n` more scores of a row, in place: each becomes `exp(score * scale - max)` rounded to the type, zero from `n` to
/// `padded`. Weighted sums made before are to be multiplied by the factor returned.
///
/// The weights are rounded before they meet the values, as NPU and GPU do.
///
/// # Safety
/// As [`super::kernels::Kernels`]; the row holds `padded` numbers, a multiple of sixteen, and `n` is at least one.
#[inline(always)]
pub unsafe fn online<V: Simd16, E: Element>(
    row: *mut f32,
    scale: f32,
    n: usize,
    padded: usize,
    state: &mut RowState,
) -> f32 {
    // SAFETY: the row is padded to sixteen numbers.
    unsafe {
        let scale = V::splat(scale);
        let whole = n / PANEL * PANEL;
        let mut max = V::splat(f32::NEG_INFINITY);
        for i in (0..n).step_by(PANEL) {
            let mut v = V::load(row.add(i)).mul(scale);
            if i == whole {
                v = first_lanes(v, n - whole, f32::NEG_INFINITY);
            }
            v.store(row.add(i));
            max = max.max(v);
        }
        let largest = max.lanes().into_iter().fold(state.max, f32::max);
        let mut sum = V::splat(0.0);
        for i in (0..n).step_by(PANEL) {
            let mut e = exp(V::load(row.add(i)).sub(V::splat(largest)));
            if i == whole {
                e = first_lanes(e, n - whole, 0.0);
            }
            E::round(e).store(row.add(i));
            sum = sum.add(e);
        }
        for i in (n.next_multiple_of(PANEL)..padded).step_by(PANEL) {
            V::splat(0.0).store(row.add(i));
        }
        let factor = decay::<V>(state.max, largest);
        *state = RowState { max: largest, total: state.total * factor + sum_lanes(sum) };
        factor
    }
}

/// `exp(before - now)` for maxima of which `now` is the larger: what numbers relative to the one are worth relative to the
/// other. One where nothing came before, as there is nothing to scale then.
///
/// # Safety
/// As [`super::kernels::Kernels`].
#[inline(always)]
pub unsafe fn decay<V: Simd16>(before: f32, now: f32) -> f32 {
    if before == now || before == f32::NEG_INFINITY {
        return 1.0;
    }
    // SAFETY: register arithmetic by the caller's promise.
    unsafe { exp(V::splat(before - now)).lanes()[0] }
}

/// The first `n` lanes, `rest` in the others.
#[inline(always)]
unsafe fn first_lanes<V: Simd16>(v: V, n: usize, rest: f32) -> V {
    let mut part = [rest; PANEL];
    // SAFETY: sixteen numbers; the instruction set is present by the caller's promise.
    unsafe {
        part[..n].copy_from_slice(&v.lanes()[..n]);
        V::load(part.as_ptr())
    }
}
