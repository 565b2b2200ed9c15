//! The kernels, written once over [`Simd16`] and compiled for each instruction set. [`gemm`](super::gemm) and
//! [`softmax`] have modules of their own.
//!
//! Every result is one fixed sequence of IEEE operations. A GEMM output is a chain of fused multiply-adds over
//! ascending `k`, whatever the tile. Sums over a row use sixteen lanes, by index modulo 16. The bits are therefore the
//! same for every vector instruction set, batch, chunk and number of threads. AMX sums in another order
//! ([`super::tiles`]). Its results are equal across batches, chunks and threads, and close to those of the vector
//! kernels.

use glmbench_device::DType;

use super::gemm::{Product, gemm};
use super::simd::{Portable, Simd16};
use super::softmax::{self, RowState, Scores, Weights};
use super::tiles::TileKernels;

/// Columns per weight panel.
pub(crate) const PANEL: usize = 16;

/// Kernels of one instruction set for one [`DType`].
///
/// All functions are `unsafe`. The instruction set must be present. Pointers must be valid for the given lengths
/// rounded up to sixteen numbers; buffers are padded accordingly. Outputs must not overlap inputs unless stated.
#[derive(Debug, Clone, Copy)]
pub struct Kernels {
    /// Name of the instruction set, for the record.
    pub name: &'static str,
    /// Computes a [`Product`] with panels of the device's type.
    pub gemm: unsafe fn(&Product),
    /// Computes a [`Product`] with fp32 panels.
    pub gemm_f32: unsafe fn(&Product),
    /// Widens `n` stored numbers to fp32: `(from, to, n)`, with `n` a multiple of 16.
    pub widen: unsafe fn(*const u8, *mut f32, usize),
    /// Rounds `n` fp32 numbers and stores them: `(from, to, n)`. Writes exactly `n` numbers.
    pub narrow: unsafe fn(*const f32, *mut u8, usize),
    /// `c[i] = round(c[i] + bias[i])` in place, `n` numbers; the bias may be null.
    pub finish: unsafe fn(*mut f32, *const f32, usize),
    /// `out = round(x / sqrt(mean(x^2) + epsilon) * weight)`: `(x, weight, epsilon, n, out)`.
    pub rms_norm: unsafe fn(*const f32, *const f32, f32, usize, *mut f32),
    /// [`softmax::online`]: `(row, scale, (n, padded), to, state)`.
    pub softmax: unsafe fn(&Scores, f32, (usize, usize), Weights, &mut RowState) -> f32,
    /// [`softmax::decay`]: `(before, now)`.
    pub decay: unsafe fn(f32, f32) -> f32,
    /// `x = x * a + y * b`, each step rounded to fp32: `(x, a, y, b, n)`.
    pub mix: unsafe fn(*mut f32, f32, *const f32, f32, usize),
    /// `out = round(x / divisor)`: `(x, divisor, n, out)`.
    pub divide: unsafe fn(*const f32, f32, usize, *mut f32),
    /// `x = round(x + y)`: `(x, y, n)`.
    pub add: unsafe fn(*mut f32, *const f32, usize),
    /// `out = round(round(silu(gate)) * up)`: `(gate, up, n, out)`.
    pub swiglu: unsafe fn(*const f32, *const f32, usize, *mut f32),
    /// Rotates `pairs` adjacent pairs of one head in place, each product and the sum rounded: `(head, cos, sin, pairs)`.
    pub rotate: unsafe fn(*mut f32, *const f32, *const f32, usize),
    /// Number of panels that [`Self::gemm`] reads side by side if there are many rows.
    pub tile_panels: usize,
    /// Tile products with weights and KV cache, if the family has them. If so, [`Self::gemm`] is not used.
    pub tiles: Option<TileKernels>,
}

/// A storage type as used by the kernels.
pub(crate) trait Element {
    /// Size of a number in bytes.
    const BYTES: usize;
    /// Loads sixteen numbers.
    unsafe fn load<V: Simd16>(p: *const u8) -> V;
    /// Rounds sixteen numbers and stores them.
    unsafe fn store<V: Simd16>(v: V, p: *mut u8);
    /// Rounds to the type.
    unsafe fn round<V: Simd16>(v: V) -> V;
}

struct F32;
struct F16;
struct Bf16;

impl Element for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load<V: Simd16>(p: *const u8) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store<V: Simd16>(v: V, p: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { v.store(p.cast()) }
    }
    #[inline(always)]
    unsafe fn round<V: Simd16>(v: V) -> V {
        v
    }
}

impl Element for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<V: Simd16>(p: *const u8) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_f16(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store<V: Simd16>(v: V, p: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { v.store_f16(p.cast()) }
    }
    #[inline(always)]
    unsafe fn round<V: Simd16>(v: V) -> V {
        // SAFETY: the caller's promise.
        unsafe { v.round_f16() }
    }
}

impl Element for Bf16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<V: Simd16>(p: *const u8) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_bf16(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store<V: Simd16>(v: V, p: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { v.store_bf16(p.cast()) }
    }
    #[inline(always)]
    unsafe fn round<V: Simd16>(v: V) -> V {
        // SAFETY: the caller's promise.
        unsafe { v.round_bf16() }
    }
}

/// # Safety
/// As [`Kernels`].
#[inline(always)]
unsafe fn widen<V: Simd16, E: Element>(from: *const u8, to: *mut f32, n: usize) {
    for i in (0..n).step_by(PANEL) {
        // SAFETY: `n` numbers on both sides.
        unsafe { E::load::<V>(from.add(i * E::BYTES)).store(to.add(i)) };
    }
}

/// # Safety
/// As [`Kernels`].
#[inline(always)]
unsafe fn narrow<V: Simd16, E: Element>(from: *const f32, to: *mut u8, n: usize) {
    let whole = n / PANEL * PANEL;
    // SAFETY: whole groups lie inside; the rest goes through a local array.
    unsafe {
        for i in (0..whole).step_by(PANEL) {
            E::store(V::load(from.add(i)), to.add(i * E::BYTES));
        }
        if whole < n {
            let mut rest = [0u8; PANEL * 4];
            E::store(load_part::<V>(from.add(whole), n - whole), rest.as_mut_ptr());
            std::ptr::copy_nonoverlapping(rest.as_ptr(), to.add(whole * E::BYTES), (n - whole) * E::BYTES);
        }
    }
}

/// Loads `n < 16` numbers, followed by zeros.
#[inline(always)]
unsafe fn load_part<V: Simd16>(p: *const f32, n: usize) -> V {
    let mut part = [0.0f32; PANEL];
    // SAFETY: `n` numbers.
    unsafe {
        std::ptr::copy_nonoverlapping(p, part.as_mut_ptr(), n);
        V::load(part.as_ptr())
    }
}

/// # Safety
/// As [`Kernels`].
#[inline(always)]
unsafe fn finish<V: Simd16, E: Element>(c: *mut f32, bias: *const f32, n: usize) {
    for i in (0..n).step_by(PANEL) {
        // SAFETY: buffers are padded to sixteen numbers.
        unsafe {
            let mut v = V::load(c.add(i));
            if !bias.is_null() {
                v = v.add(V::load(bias.add(i)));
            }
            E::round(v).store(c.add(i));
        }
    }
}

/// # Safety
/// As [`Kernels`].
#[inline(always)]
unsafe fn rms_norm<V: Simd16, E: Element>(
    x: *const f32,
    weight: *const f32,
    epsilon: f32,
    n: usize,
    out: *mut f32,
) {
    // SAFETY: buffers are padded to sixteen numbers; only `n` enter the sum.
    unsafe {
        let whole = n / PANEL * PANEL;
        let mut squares = V::splat(0.0);
        for i in (0..whole).step_by(PANEL) {
            let v = V::load(x.add(i));
            squares = v.mul_add(v, squares);
        }
        if whole < n {
            let v = load_part::<V>(x.add(whole), n - whole);
            squares = v.mul_add(v, squares);
        }
        let scale = V::splat(1.0 / (squares.sum() / n as f32 + epsilon).sqrt());
        for i in (0..n).step_by(PANEL) {
            let v = V::load(x.add(i)).mul(scale).mul(V::load(weight.add(i)));
            E::round(v).store(out.add(i));
        }
    }
}

/// Computes `e^x` to about one unit in the last place. Below -87.3 it returns the smallest normal number, above 88.3
/// the largest power. Uses range reduction by `ln 2` in two parts and a degree-6 polynomial (Cephes' `expf`). NaN stays
/// NaN.
#[inline(always)]
pub(crate) unsafe fn exp<V: Simd16>(x: V) -> V {
    // SAFETY: register arithmetic by the caller's promise.
    unsafe {
        // The order of the operands passes a NaN through.
        let x = V::splat(88.376_26).min(V::splat(-87.336_54).max(x));
        let n = x.mul(V::splat(std::f32::consts::LOG2_E)).round();
        let r = n.mul_add(V::splat(-0.693_359_4), x);
        let r = n.mul_add(V::splat(2.121_944_4e-4), r);
        let mut p = V::splat(1.987_569_1e-4);
        for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
            p = p.mul_add(r, V::splat(c));
        }
        let y = p.mul_add(r.mul(r), r.add(V::splat(1.0)));
        y.scale_pow2(n)
    }
}

/// # Safety
/// As [`Kernels`].
#[inline(always)]
unsafe fn mix<V: Simd16>(x: *mut f32, a: f32, y: *const f32, b: f32, n: usize) {
    for i in (0..n).step_by(PANEL) {
        // SAFETY: buffers are padded to sixteen numbers.
        unsafe {
            let x = x.add(i);
            V::load(x).mul(V::splat(a)).add(V::load(y.add(i)).mul(V::splat(b))).store(x);
        }
    }
}

/// # Safety
/// As [`Kernels`].
#[inline(always)]
unsafe fn divide<V: Simd16, E: Element>(x: *const f32, divisor: f32, n: usize, out: *mut f32) {
    // SAFETY: the input is padded to sixteen numbers; the output's last group is written in part.
    unsafe {
        let divisor = V::splat(divisor);
        for i in (0..n).step_by(PANEL) {
            let v = E::round(V::load(x.add(i)).div(divisor));
            if n - i >= PANEL {
                v.store(out.add(i));
            } else {
                std::ptr::copy_nonoverlapping(v.lanes().as_ptr(), out.add(i), n - i);
            }
        }
    }
}

/// # Safety
/// As [`Kernels`].
#[inline(always)]
unsafe fn add<V: Simd16, E: Element>(x: *mut f32, y: *const f32, n: usize) {
    for i in (0..n).step_by(PANEL) {
        // SAFETY: buffers are padded to sixteen numbers.
        unsafe { E::round(V::load(x.add(i)).add(V::load(y.add(i)))).store(x.add(i)) };
    }
}

/// # Safety
/// As [`Kernels`].
#[inline(always)]
unsafe fn swiglu<V: Simd16, E: Element>(gate: *const f32, up: *const f32, n: usize, out: *mut f32) {
    for i in (0..n).step_by(PANEL) {
        // SAFETY: buffers are padded to sixteen numbers.
        unsafe {
            let g = V::load(gate.add(i));
            let one = V::splat(1.0);
            let silu = E::round(g.div(one.add(exp(V::splat(0.0).sub(g)))));
            E::round(silu.mul(V::load(up.add(i)))).store(out.add(i));
        }
    }
}

/// # Safety
/// As [`Kernels`]. Exactly `2 * pairs` numbers of `head` and `pairs` of the table are accessed.
#[inline(always)]
unsafe fn rotate<V: Simd16, E: Element>(head: *mut f32, cos: *const f32, sin: *const f32, pairs: usize) {
    for first in (0..pairs).step_by(PANEL) {
        let n = PANEL.min(pairs - first);
        // SAFETY: `n` pairs, starting at `first`.
        unsafe {
            let head = head.add(2 * first);
            let (mut a, mut b) = ([0.0; PANEL], [0.0; PANEL]);
            for i in 0..n {
                a[i] = *head.add(2 * i);
                b[i] = *head.add(2 * i + 1);
            }
            let (a, b) = (V::load(a.as_ptr()), V::load(b.as_ptr()));
            let (c, s) = (load_part::<V>(cos.add(first), n), load_part::<V>(sin.add(first), n));
            let x = E::round(E::round(a.mul(c)).sub(E::round(b.mul(s)))).lanes();
            let y = E::round(E::round(b.mul(c)).add(E::round(a.mul(s)))).lanes();
            for i in 0..n {
                *head.add(2 * i) = x[i];
                *head.add(2 * i + 1) = y[i];
            }
        }
    }
}

/// Compiles every kernel for one instruction set: a module with one entry point per kernel, with the target features
/// enabled.
macro_rules! instruction_set {
    ($module:ident, $vector:ty, $name:literal $(, $features:literal)?) => {
        pub(crate) mod $module {
            use super::{DType, Element, Kernels, Product, RowState, Scores, Simd16, Weights};
            type V = $vector;

            $(#[target_feature(enable = $features)])?
            unsafe fn gemm<E: Element, const AHEAD: bool>(t: &Product) {
                // SAFETY: the caller's promise, here and below.
                unsafe { super::gemm::<V, E, AHEAD>(t) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn widen<E: Element>(from: *const u8, to: *mut f32, n: usize) {
                // SAFETY: as above.
                unsafe { super::widen::<V, E>(from, to, n) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn narrow<E: Element>(from: *const f32, to: *mut u8, n: usize) {
                // SAFETY: as above.
                unsafe { super::narrow::<V, E>(from, to, n) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn finish<E: Element>(c: *mut f32, bias: *const f32, n: usize) {
                // SAFETY: as above.
                unsafe { super::finish::<V, E>(c, bias, n) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn rms_norm<E: Element>(x: *const f32, weight: *const f32, epsilon: f32, n: usize, out: *mut f32) {
                // SAFETY: as above.
                unsafe { super::rms_norm::<V, E>(x, weight, epsilon, n, out) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn softmax<E: Element>(
                row: &Scores,
                scale: f32,
                numbers: (usize, usize),
                to: Weights,
                state: &mut RowState,
            ) -> f32 {
                // SAFETY: as above.
                unsafe { super::softmax::online::<V, E>(row, scale, numbers, to, state) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn decay(before: f32, now: f32) -> f32 {
                // SAFETY: as above.
                unsafe { super::softmax::decay::<V>(before, now) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn mix(x: *mut f32, a: f32, y: *const f32, b: f32, n: usize) {
                // SAFETY: as above.
                unsafe { super::mix::<V>(x, a, y, b, n) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn divide<E: Element>(x: *const f32, divisor: f32, n: usize, out: *mut f32) {
                // SAFETY: as above.
                unsafe { super::divide::<V, E>(x, divisor, n, out) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn add<E: Element>(x: *mut f32, y: *const f32, n: usize) {
                // SAFETY: as above.
                unsafe { super::add::<V, E>(x, y, n) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn swiglu<E: Element>(gate: *const f32, up: *const f32, n: usize, out: *mut f32) {
                // SAFETY: as above.
                unsafe { super::swiglu::<V, E>(gate, up, n, out) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn rotate<E: Element>(head: *mut f32, cos: *const f32, sin: *const f32, pairs: usize) {
                // SAFETY: as above.
                unsafe { super::rotate::<V, E>(head, cos, sin, pairs) }
            }

            fn of<E: Element>() -> Kernels {
                Kernels {
                    name: $name,
                    gemm: gemm::<E, true>,
                    gemm_f32: gemm::<super::F32, false>,
                    widen: widen::<E>,
                    narrow: narrow::<E>,
                    finish: finish::<E>,
                    rms_norm: rms_norm::<E>,
                    softmax: softmax::<E>,
                    decay,
                    mix,
                    divide: divide::<E>,
                    add: add::<E>,
                    swiglu: swiglu::<E>,
                    rotate: rotate::<E>,
                    tile_panels: <V as Simd16>::TILE_PANELS,
                    tiles: None,
                }
            }

            /// Returns the kernels for one storage type.
            pub(crate) fn kernels(dtype: DType) -> Kernels {
                match dtype {
                    DType::Fp32 => of::<super::F32>(),
                    DType::Fp16 => of::<super::F16>(),
                    DType::Bf16 => of::<super::Bf16>(),
                }
            }
        }
    };
}

instruction_set!(portable, super::Portable, "portable");
#[cfg(target_arch = "aarch64")]
instruction_set!(neon, crate::simd_neon::Neon, "neon", "neon");
#[cfg(target_arch = "x86_64")]
instruction_set!(avx2, crate::simd_x86::Avx2, "avx2", "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
instruction_set!(avx512, crate::simd_x86::Avx512, "avx512", "avx512f,avx512bw,avx512vl,avx2,fma,f16c");
