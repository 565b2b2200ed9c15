//! Dot products of int8, extensions of NEON, and a prefetch for them. Their intrinsics are not stable yet, so each is
//! one instruction in `asm!`.

use std::arch::aarch64::{int8x8_t, int8x16_t, int32x4_t};
use std::arch::asm;

/// NEON with `sdot` (`FEAT_DotProd`; Kunpeng 920 has it).
#[derive(Debug, Clone, Copy)]
pub(crate) struct NeonDotProd(());

/// NEON with `smmla` (`FEAT_I8MM`), and with `sdot`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NeonI8mm(NeonDotProd);

impl NeonDotProd {
    /// Returns the set if this machine has it.
    pub(crate) fn detect() -> Option<Self> {
        let all = std::arch::is_aarch64_feature_detected!("neon")
            && std::arch::is_aarch64_feature_detected!("dotprod");
        all.then_some(Self(()))
    }
}

impl NeonI8mm {
    /// Returns the set if this machine has it.
    pub(crate) fn detect() -> Option<Self> {
        NeonDotProd::detect().filter(|_| std::arch::is_aarch64_feature_detected!("i8mm")).map(Self)
    }

    /// Returns the set without `smmla`.
    pub(crate) fn dotprod(self) -> NeonDotProd {
        self.0
    }
}

/// Adds to each of four sums the products of four numbers of `w` with the four numbers `4 LANE..` of `x`. Sums wrap.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn sdot<const LANE: usize>(mut sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    const { assert!(LANE < 4) };
    // SAFETY: reads and writes these registers only; the function enables the instruction.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {w:v}.16b, {x:v}.4b[{lane}]",
            sums = inout(vreg) sums,
            w = in(vreg) w,
            x = in(vreg) x,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// As [`sdot`], with half a register of `x`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn sdot_half<const LANE: usize>(mut sums: int32x4_t, w: int8x16_t, x: int8x8_t) -> int32x4_t {
    const { assert!(LANE < 2) };
    // SAFETY: as in `sdot`.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {w:v}.16b, {x:v}.4b[{lane}]",
            sums = inout(vreg) sums,
            w = in(vreg) w,
            x = in(vreg) x,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// Prefetches the cache line `AHEAD` bytes after `place` into the first-level cache. `place` may be any address. The
/// distance is part of the instruction, so the address is that of a load beside it.
#[inline(always)]
pub(crate) fn prefetch_ahead<const AHEAD: usize>(place: *const u8) {
    const { assert!(AHEAD.is_multiple_of(8) && AHEAD < 1 << 15) };
    // SAFETY: every processor of this architecture has the instruction; it changes no memory and never faults.
    unsafe {
        asm!(
            "prfm pldl1keep, [{place}, #{ahead}]",
            place = in(reg) place.addr(),
            ahead = const AHEAD,
            options(nomem, nostack, preserves_flags),
        );
    }
}

/// Adds the products of two rows `x` of eight numbers with two columns `w`: the sums `[row][column]`. Sums wrap.
#[inline]
#[target_feature(enable = "neon,i8mm")]
pub(crate) fn smmla(mut sums: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
    // SAFETY: as in `sdot`.
    unsafe {
        asm!(
            "smmla {sums:v}.4s, {x:v}.16b, {w:v}.16b",
            sums = inout(vreg) sums,
            x = in(vreg) x,
            w = in(vreg) w,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}
