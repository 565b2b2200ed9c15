//! Tests that every instruction set computes as the portable one, to the bit.

use proptest::prelude::*;

use super::*;

/// Calls a generic function for every instruction set that this machine has.
macro_rules! on_every_set {
    ($law:ident($($argument:expr),*)) => {{
        $law(Portable, $($argument),*)?;
        #[cfg(target_arch = "aarch64")]
        $law(Neon::detect().unwrap(), $($argument),*)?;
        #[cfg(target_arch = "x86_64")]
        if let Some(isa) = Avx2::detect() {
            $law(isa, $($argument),*)?;
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(isa) = Avx512::detect() {
            $law(isa, $($argument),*)?;
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
fn computes<I: Isa>(isa: I, a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> Result<(), TestCaseError> {
    let whole = a.map(|x| if x.is_finite() { x.clamp(-126.0, 127.0).round() } else { 0.0 });
    let (v, w, x) = (isa.load(&a), isa.load(&b), isa.load(&c));
    let (p, q, r) = (Portable.load(&a), Portable.load(&b), Portable.load(&c));
    same(v.lanes(), a, "load and store")?;
    same(isa.splat(a[0]).lanes(), [a[0]; 16], "splat")?;
    same(v.mul_add(w, x).lanes(), p.mul_add(q, r).lanes(), "mul_add")?;
    same(v.add(w).lanes(), p.add(q).lanes(), "add")?;
    same(v.sub(w).lanes(), p.sub(q).lanes(), "sub")?;
    same(v.mul(w).lanes(), p.mul(q).lanes(), "mul")?;
    same(v.div(w).lanes(), p.div(q).lanes(), "div")?;
    same(v.max(w).lanes(), p.max(q).lanes(), "max")?;
    same(v.min(w).lanes(), p.min(q).lanes(), "min")?;
    same(v.round().lanes(), p.round().lanes(), "round")?;
    same(isa.load(&whole).pow2().lanes(), Portable.load(&whole).pow2().lanes(), "pow2")?;
    for n in 0..=16 {
        same(v.first(n, 7.0).lanes(), p.first(n, 7.0).lanes(), "first")?;
    }
    Ok(())
}

/// Checks that rounding to 16 bits equals the portable form, including NaN bits, and that rounding in registers
/// equals storing and loading.
fn narrows<I: Isa>(isa: I, a: [f32; 16]) -> Result<(), TestCaseError> {
    let (mut found, mut expected) = ([0; 16], [0; 16]);
    let (v, p) = (isa.load(&a), Portable.load(&a));
    v.store_f16(&mut found);
    p.store_f16(&mut expected);
    prop_assert_eq!(found, expected, "fp16 of {:?}", a);
    let stored = isa.load_f16(&found).lanes();
    prop_assert_eq!(v.round_f16().lanes().map(f32::to_bits), stored.map(f32::to_bits));
    v.store_bf16(&mut found);
    p.store_bf16(&mut expected);
    prop_assert_eq!(found, expected, "bf16 of {:?}", a);
    let stored = isa.load_bf16(&found).lanes();
    prop_assert_eq!(v.round_bf16().lanes().map(f32::to_bits), stored.map(f32::to_bits));
    Ok(())
}

/// Checks that widening 16-bit numbers equals the portable form, including NaN bits.
fn widens<I: Isa>(isa: I, stored: [u16; 16]) -> Result<(), TestCaseError> {
    let found = [isa.load_f16(&stored).lanes(), isa.load_bf16(&stored).lanes()];
    let expected = [Portable.load_f16(&stored).lanes(), Portable.load_bf16(&stored).lanes()];
    prop_assert_eq!(found.map(|of| of.map(f32::to_bits)), expected.map(|of| of.map(f32::to_bits)));
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

/// Checks that integers are widened as the portable set does.
fn widens_integers<I: Isa>(isa: I, bytes: [u8; 64]) -> Result<(), TestCaseError> {
    let integers: [i8; 16] = std::array::from_fn(|i| bytes[i] as i8);
    prop_assert_eq!(isa.load_i8(&integers).lanes(), integers.map(f32::from));
    let lanes: [[u8; 4]; 16] = std::array::from_fn(|i| std::array::from_fn(|j| bytes[4 * i + j]));
    let mut nibbles = isa.load_nibbles(&lanes);
    for j in 0..8 {
        let expected = lanes.map(|lane| {
            let nibble = lane[j / 2] >> (j % 2 * 4) & 15;
            f32::from(nibble) - if nibble > 7 { 16.0 } else { 0.0 }
        });
        prop_assert_eq!(isa.lowest(nibbles).lanes(), expected, "int4 number {}", j);
        nibbles = isa.without_lowest(nibbles);
    }
    Ok(())
}

#[test]
fn every_set_widens_all_integers() -> Result<(), TestCaseError> {
    for first in 0..=u8::MAX {
        let bytes: [u8; 64] = std::array::from_fn(|i| first.wrapping_add((i * 37) as u8));
        on_every_set!(widens_integers(bytes));
    }
    Ok(())
}

/// Checks that the second number is chosen if one is NaN, and from two zeros of any signs: [`Simd16::max`] and
/// [`Simd16::min`] are the x86-64 instructions.
fn chooses_the_second<I: Isa>(isa: I) -> Result<(), TestCaseError> {
    for (a, b) in [(f32::NAN, 1.0), (1.0, f32::NAN), (0.0, -0.0), (-0.0, 0.0)] {
        let (v, w) = (isa.splat(a), isa.splat(b));
        let found = [v.max(w).lanes(), v.min(w).lanes()].map(|of| of.map(f32::to_bits));
        prop_assert_eq!(found, [[b.to_bits(); 16]; 2], "{} and {}", a, b);
    }
    Ok(())
}

#[test]
fn of_nan_and_of_zeros_every_set_chooses_the_second() -> Result<(), TestCaseError> {
    on_every_set!(chooses_the_second());
    Ok(())
}
