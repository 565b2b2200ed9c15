//! Sixteen fp32 lanes, as each instruction set offers them.
//!
//! Kernels are written once over [`Simd16`]. Every operation is one IEEE operation a lane, in one order, so all
//! instruction sets give the same bits; a property test holds them to it.

/// Sixteen lanes of fp32.
///
/// # Safety
/// The methods of an implementation may only be called where its instruction set is present; pointers must be valid for
/// sixteen numbers (no alignment asked).
pub trait Simd16: Copy {
    /// Rows of the widest GEMM tile that fits the registers.
    const TILE_ROWS: usize;

    /// Every lane `x`.
    unsafe fn splat(x: f32) -> Self;
    /// Sixteen fp32.
    unsafe fn load(p: *const f32) -> Self;
    /// Sixteen fp16, widened (exact).
    unsafe fn load_f16(p: *const u16) -> Self;
    /// Sixteen bf16, widened (exact).
    unsafe fn load_bf16(p: *const u16) -> Self;
    /// Writes the lanes.
    unsafe fn store(self, p: *mut f32);
    /// Writes the lanes rounded to fp16 (to nearest, ties to even).
    unsafe fn store_f16(self, p: *mut u16);
    /// Writes the lanes rounded to bf16 (to nearest, ties to even).
    unsafe fn store_bf16(self, p: *mut u16);
    /// `self * b + c`, rounded once.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// `self + b`.
    unsafe fn add(self, b: Self) -> Self;
    /// `self - b`.
    unsafe fn sub(self, b: Self) -> Self;
    /// `self * b`.
    unsafe fn mul(self, b: Self) -> Self;
    /// `self / b`.
    unsafe fn div(self, b: Self) -> Self;
    /// The larger, lane by lane; the second where one is NaN.
    unsafe fn max(self, b: Self) -> Self;
    /// The smaller, lane by lane; the second where one is NaN.
    unsafe fn min(self, b: Self) -> Self;
    /// Rounded to the nearest whole number, ties to even.
    unsafe fn round(self) -> Self;
    /// `2^n` of whole numbers `-126..=127`.
    unsafe fn pow2(self) -> Self;
    /// `self * 2^n` of whole numbers `-126..=127`, rounded once.
    #[inline(always)]
    unsafe fn scale_pow2(self, n: Self) -> Self {
        // SAFETY: the instruction set is present by the caller's promise.
        unsafe { self.mul(n.pow2()) }
    }
    /// Each lane rounded to fp16 and back.
    #[inline(always)]
    unsafe fn round_f16(self) -> Self {
        let mut half = [0u16; 16];
        // SAFETY: sixteen numbers; the instruction set is present by the caller's promise.
        unsafe {
            self.store_f16(half.as_mut_ptr());
            Self::load_f16(half.as_ptr())
        }
    }
    /// Each lane rounded to bf16 and back.
    #[inline(always)]
    unsafe fn round_bf16(self) -> Self {
        let mut half = [0u16; 16];
        // SAFETY: as in `round_f16`.
        unsafe {
            self.store_bf16(half.as_mut_ptr());
            Self::load_bf16(half.as_ptr())
        }
    }
    /// The first `n` lanes, up to sixteen, and `rest` in the others.
    #[inline(always)]
    unsafe fn first(self, n: usize, rest: f32) -> Self {
        let mut part = [rest; 16];
        // SAFETY: sixteen numbers; the instruction set is present by the caller's promise.
        unsafe {
            part[..n].copy_from_slice(&self.lanes()[..n]);
            Self::load(part.as_ptr())
        }
    }
    /// The sum of the lanes, halving: 16, 8, 4, 2, 1.
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: the caller's promise.
        fold_halves(unsafe { self.lanes() }, |x, y| x + y)
    }
    /// The largest lane; any of them where one is NaN.
    #[inline(always)]
    unsafe fn max_lane(self) -> f32 {
        // SAFETY: the caller's promise.
        fold_halves(unsafe { self.lanes() }, |x, y| if x > y { x } else { y })
    }
    /// The lanes in order.
    #[inline(always)]
    unsafe fn lanes(self) -> [f32; 16] {
        let mut lanes = [0.0; 16];
        // SAFETY: sixteen numbers.
        unsafe { self.store(lanes.as_mut_ptr()) };
        lanes
    }
}

/// Lane `i` with lane `i + 8` for the first eight, then `i` with `i + 4`, and so on to one.
#[inline(always)]
fn fold_halves(mut lanes: [f32; 16], fold: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = fold(lanes[i], lanes[i + half]);
        }
    }
    lanes[0]
}

/// The portable twin: plain arrays.
#[derive(Clone, Copy)]
pub struct Portable([f32; 16]);

impl Portable {
    #[inline(always)]
    fn zip(self, b: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], b.0[i])))
    }
}

impl Simd16 for Portable {
    const TILE_ROWS: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 16])
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: sixteen numbers by the trait's contract.
        Self(unsafe { p.cast::<[f32; 16]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self {
        // SAFETY: sixteen numbers by the trait's contract.
        let bits = unsafe { p.cast::<[u16; 16]>().read_unaligned() };
        Self(bits.map(|b| half::f16::from_bits(b).to_f32_const()))
    }

    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        // SAFETY: sixteen numbers by the trait's contract.
        let bits = unsafe { p.cast::<[u16; 16]>().read_unaligned() };
        Self(bits.map(|b| f32::from_bits(u32::from(b) << 16)))
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: sixteen numbers by the trait's contract.
        unsafe { p.cast::<[f32; 16]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16) {
        let bits = self.0.map(|x| half::f16::from_f32_const(x).to_bits());
        // SAFETY: sixteen numbers by the trait's contract.
        unsafe { p.cast::<[u16; 16]>().write_unaligned(bits) }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16) {
        // SAFETY: sixteen numbers by the trait's contract.
        unsafe { p.cast::<[u16; 16]>().write_unaligned(self.0.map(bf16_bits)) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].mul_add(b.0[i], c.0[i])))
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        self.zip(b, |x, y| x + y)
    }

    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        self.zip(b, |x, y| x - y)
    }

    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        self.zip(b, |x, y| x * y)
    }

    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        self.zip(b, |x, y| x / y)
    }

    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        self.zip(b, |x, y| if x > y { x } else { y })
    }

    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        self.zip(b, |x, y| if x < y { x } else { y })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(self.0.map(f32::round_ties_even))
    }

    #[inline(always)]
    unsafe fn pow2(self) -> Self {
        Self(self.0.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23)))
    }
}

/// fp32 to bf16 bits, to nearest, ties to even; a NaN stays a (quiet) NaN.
#[inline(always)]
fn bf16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return ((bits >> 16) | 0x40) as u16;
    }
    ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) as u16
}
