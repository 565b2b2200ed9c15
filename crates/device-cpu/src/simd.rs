//! Vectors of sixteen fp32 lanes, for each instruction set.
//!
//! Kernels are written once over [`Simd16`]. Every operation is one IEEE operation per lane, in a fixed order, so all
//! instruction sets give the same bits. A property test checks this.

/// Sixteen lanes of fp32.
///
/// # Safety
/// The methods may only be called if the implementation's instruction set is present. Pointers must be valid for
/// sixteen numbers; no alignment is required.
pub(crate) trait Simd16: Copy {
    /// Rows of the largest GEMM tile whose sums fit the registers, at most eight.
    const TILE_ROWS: usize;
    /// Panels of that tile, at most three.
    const TILE_PANELS: usize;

    /// Returns `x` in every lane.
    unsafe fn splat(x: f32) -> Self;
    /// Loads sixteen fp32.
    unsafe fn load(p: *const f32) -> Self;
    /// Loads sixteen fp16 and widens them (exact).
    unsafe fn load_f16(p: *const u16) -> Self;
    /// Loads sixteen bf16 and widens them (exact).
    unsafe fn load_bf16(p: *const u16) -> Self;
    /// Stores the lanes.
    unsafe fn store(self, p: *mut f32);
    /// Stores the lanes rounded to fp16 (to nearest, ties to even).
    unsafe fn store_f16(self, p: *mut u16);
    /// Stores the lanes rounded to bf16 (to nearest, ties to even).
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
    /// The larger number of each lane; the second number if one is NaN.
    unsafe fn max(self, b: Self) -> Self;
    /// The smaller number of each lane; the second number if one is NaN.
    unsafe fn min(self, b: Self) -> Self;
    /// Rounds to the nearest integer, ties to even.
    unsafe fn round(self) -> Self;
    /// `2^self`, for integers `-126..=127`.
    unsafe fn pow2(self) -> Self;
    /// `self * 2^n`, for integers `n` in `-126..=127`, rounded once.
    #[inline(always)]
    unsafe fn scale_pow2(self, n: Self) -> Self {
        // SAFETY: the instruction set is present by the caller's promise.
        unsafe { self.mul(n.pow2()) }
    }
    /// Rounds each lane to fp16 and back.
    #[inline(always)]
    unsafe fn round_f16(self) -> Self {
        let mut half = [0u16; 16];
        // SAFETY: sixteen numbers; the instruction set is present by the caller's promise.
        unsafe {
            self.store_f16(half.as_mut_ptr());
            Self::load_f16(half.as_ptr())
        }
    }
    /// Rounds each lane to bf16 and back.
    #[inline(always)]
    unsafe fn round_bf16(self) -> Self {
        let mut half = [0u16; 16];
        // SAFETY: as in `round_f16`.
        unsafe {
            self.store_bf16(half.as_mut_ptr());
            Self::load_bf16(half.as_ptr())
        }
    }
    /// Keeps the first `n` lanes, up to sixteen, and sets the others to `rest`.
    #[inline(always)]
    unsafe fn first(self, n: usize, rest: f32) -> Self {
        let mut part = [rest; 16];
        // SAFETY: sixteen numbers; the instruction set is present by the caller's promise.
        unsafe {
            part[..n].copy_from_slice(&self.lanes()[..n]);
            Self::load(part.as_ptr())
        }
    }
    /// Returns the sum of the lanes, by halving: 16, 8, 4, 2, 1.
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: the caller's promise.
        fold_halves(unsafe { self.lanes() }, |x, y| x + y)
    }
    /// Returns the largest lane; unspecified if one is NaN.
    #[inline(always)]
    unsafe fn max_lane(self) -> f32 {
        // SAFETY: the caller's promise.
        fold_halves(unsafe { self.lanes() }, |x, y| if x > y { x } else { y })
    }
    /// Returns the lanes in order.
    #[inline(always)]
    unsafe fn lanes(self) -> [f32; 16] {
        let mut lanes = [0.0; 16];
        // SAFETY: sixteen numbers.
        unsafe { self.store(lanes.as_mut_ptr()) };
        lanes
    }
}

/// Folds lane `i` with lane `i + 8` for the first eight lanes, then `i` with `i + 4`, and so on down to one lane.
#[inline(always)]
fn fold_halves(mut lanes: [f32; 16], fold: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = fold(lanes[i], lanes[i + half]);
        }
    }
    lanes[0]
}

/// The portable implementation: plain arrays.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 16]);

impl Portable {
    #[inline(always)]
    fn zip(self, b: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], b.0[i])))
    }
}

impl Simd16 for Portable {
    const TILE_ROWS: usize = 4;
    const TILE_PANELS: usize = 1;

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

/// Converts fp32 to bf16 bits, to nearest, ties to even. A NaN becomes a quiet NaN.
#[inline(always)]
fn bf16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return ((bits >> 16) | 0x40) as u16;
    }
    ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    #[cfg(target_arch = "aarch64")]
    use crate::simd_neon::Neon;
    #[cfg(target_arch = "x86_64")]
    use crate::{
        instruction_set::InstructionSet,
        simd_x86::{Avx2, Avx512},
    };

    /// Calls a generic function for every implementation that this machine supports.
    macro_rules! on_every_set {
        ($law:ident($($argument:expr),*)) => {{
            $law::<Portable>($($argument),*)?;
            #[cfg(target_arch = "aarch64")]
            $law::<Neon>($($argument),*)?;
            #[cfg(target_arch = "x86_64")]
            if InstructionSet::Avx2.available() {
                $law::<Avx2>($($argument),*)?;
            }
            #[cfg(target_arch = "x86_64")]
            if InstructionSet::Avx512.available() {
                $law::<Avx512>($($argument),*)?;
            }
        }};
    }

    /// Arbitrary bits, with emphasis on hard cases of rounding: ties of fp16 and bf16, and their neighbours.
    fn number() -> impl Strategy<Value = f32> {
        let near_half =
            (any::<u16>(), -1i32..=1, prop_oneof![Just(0), Just(0x1000)]).prop_map(|(half, step, tie)| {
                (half::f16::from_bits(half).to_f32_const().to_bits() + tie).wrapping_add_signed(step)
            });
        let near_bf16 = (any::<u16>(), -1i32..=1, prop_oneof![Just(0), Just(0x8000)])
            .prop_map(|(high, step, tie)| ((u32::from(high) << 16) + tie).wrapping_add_signed(step));
        let bits = prop_oneof![any::<u32>(), near_half, near_bf16, (0u32..0x0100_0000)];
        prop_oneof![9 => bits.prop_map(f32::from_bits), 1 => (-200i32..200).prop_map(|n| n as f32 / 2.0)]
    }

    /// Checks for equal bits, or NaN on both sides. Which NaN results from several NaN operands depends on the
    /// processor.
    fn same(found: [f32; 16], expected: [f32; 16], what: &str) -> Result<(), TestCaseError> {
        for (i, (x, y)) in found.into_iter().zip(expected).enumerate() {
            let equal = x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan();
            prop_assert!(equal, "{what}, lane {i}: {x:e} and not {y:e}");
        }
        Ok(())
    }

    /// Checks that every operation equals the portable one, lane by lane.
    fn computes<V: Simd16>(a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> Result<(), TestCaseError> {
        let whole = a.map(|x| if x.is_finite() { x.clamp(-126.0, 127.0).round() } else { 0.0 });
        // SAFETY: the set is available, and the arrays have sixteen numbers.
        unsafe {
            let (v, w, x) = (V::load(a.as_ptr()), V::load(b.as_ptr()), V::load(c.as_ptr()));
            let (p, q, r) = (Portable(a), Portable(b), Portable(c));
            same(v.lanes(), a, "load and store")?;
            same(V::splat(a[0]).lanes(), [a[0]; 16], "splat")?;
            same(v.mul_add(w, x).lanes(), p.mul_add(q, r).0, "mul_add")?;
            same(v.add(w).lanes(), p.add(q).0, "add")?;
            same(v.sub(w).lanes(), p.sub(q).0, "sub")?;
            same(v.mul(w).lanes(), p.mul(q).0, "mul")?;
            same(v.div(w).lanes(), p.div(q).0, "div")?;
            same(v.max(w).lanes(), p.max(q).0, "max")?;
            same(v.min(w).lanes(), p.min(q).0, "min")?;
            same(v.round().lanes(), p.round().0, "round")?;
            same(V::load(whole.as_ptr()).pow2().lanes(), Portable(whole).pow2().0, "pow2")?;
        }
        Ok(())
    }

    /// Checks that rounding to 16 bits equals the portable form, including NaN bits, and that rounding in registers
    /// equals storing and loading.
    fn narrows<V: Simd16>(a: [f32; 16]) -> Result<(), TestCaseError> {
        let (mut found, mut expected) = ([0; 16], [0; 16]);
        // SAFETY: the set is available, and the arrays have sixteen numbers.
        unsafe {
            let (v, p) = (V::load(a.as_ptr()), Portable(a));
            v.store_f16(found.as_mut_ptr());
            p.store_f16(expected.as_mut_ptr());
            prop_assert_eq!(found, expected, "fp16 of {:?}", a);
            let stored = V::load_f16(found.as_ptr()).lanes();
            prop_assert_eq!(v.round_f16().lanes().map(f32::to_bits), stored.map(f32::to_bits));
            v.store_bf16(found.as_mut_ptr());
            p.store_bf16(expected.as_mut_ptr());
            prop_assert_eq!(found, expected, "bf16 of {:?}", a);
            let stored = V::load_bf16(found.as_ptr()).lanes();
            prop_assert_eq!(v.round_bf16().lanes().map(f32::to_bits), stored.map(f32::to_bits));
        }
        Ok(())
    }

    /// Checks that widening 16-bit numbers equals the portable form, including NaN bits.
    fn widens<V: Simd16>(stored: [u16; 16]) -> Result<(), TestCaseError> {
        // SAFETY: the set is available, and the array has sixteen numbers.
        unsafe {
            let found = [V::load_f16(stored.as_ptr()).lanes(), V::load_bf16(stored.as_ptr()).lanes()];
            let expected = [Portable::load_f16(stored.as_ptr()).0, Portable::load_bf16(stored.as_ptr()).0];
            prop_assert_eq!(found.map(|of| of.map(f32::to_bits)), expected.map(|of| of.map(f32::to_bits)));
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn every_set_computes_as_the_portable_one(
            a in prop::array::uniform16(number()),
            b in prop::array::uniform16(number()),
            c in prop::array::uniform16(number()),
        ) {
            on_every_set!(computes(a, b, c));
        }

        #[test]
        fn every_set_rounds_to_sixteen_bits_as_the_portable_one(a in prop::array::uniform16(number())) {
            on_every_set!(narrows(a));
        }
    }

    #[test]
    fn every_set_widens_all_sixteen_bit_numbers_as_the_portable_one() -> Result<(), TestCaseError> {
        for first in (0..=u16::MAX).step_by(16) {
            let stored: [u16; 16] = std::array::from_fn(|i| first + i as u16);
            on_every_set!(widens(stored));
        }
        Ok(())
    }

    /// Checks that the second number is chosen if one is NaN, and from two zeros of any signs: [`Simd16::max`] and
    /// [`Simd16::min`] are the x86-64 instructions.
    fn chooses_the_second<V: Simd16>() -> Result<(), TestCaseError> {
        for (a, b) in [(f32::NAN, 1.0), (1.0, f32::NAN), (0.0, -0.0), (-0.0, 0.0)] {
            // SAFETY: the set is available.
            let (max, min) =
                unsafe { (V::splat(a).max(V::splat(b)).lanes(), V::splat(a).min(V::splat(b)).lanes()) };
            prop_assert_eq!(
                [max, min].map(|of| of.map(f32::to_bits)),
                [[b.to_bits(); 16]; 2],
                "{} and {}",
                a,
                b
            );
        }
        Ok(())
    }

    #[test]
    fn of_nan_and_of_zeros_every_set_chooses_the_second() -> Result<(), TestCaseError> {
        on_every_set!(chooses_the_second());
        Ok(())
    }
}
