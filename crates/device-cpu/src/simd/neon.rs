//! [`Simd16`] on aarch64: four 128-bit registers of NEON, which every aarch64 processor has.
//!
//! The base instructions convert fp16; fp16 arithmetic is not required. SVE is not used: the target hosts (Kunpeng 920,
//! ARMv8.2) do not have it.

mod integers;

use std::arch::aarch64::{
    float32x4_t, uint32x4_t, vaddq_f32, vaddq_s32, vaddq_u32, vandq_u32, vbslq_f32, vbslq_u32, vceqq_f32,
    vcgtq_f32, vcltq_f32, vcvt_f16_f32, vcvt_f32_f16, vcvtq_f32_s32, vcvtq_s32_f32, vdivq_f32, vdupq_n_f32,
    vdupq_n_s32, vdupq_n_u32, vfmaq_f32, vget_high_s8, vget_high_s16, vget_low_s8, vget_low_s16, vld1_u16,
    vld1q_f32, vld1q_s8, vld1q_u8, vmovl_s8, vmovl_s16, vmovl_u16, vmulq_f32, vorrq_u32,
    vreinterpret_f16_u16, vreinterpret_u16_f16, vreinterpretq_f32_s32, vreinterpretq_f32_u32,
    vreinterpretq_s32_u32, vreinterpretq_u32_f32, vreinterpretq_u32_u8, vrndnq_f32, vshlq_n_s32, vshlq_n_u32,
    vshrn_n_u32, vshrq_n_s32, vshrq_n_u32, vst1_u16, vst1q_f32, vsubq_f32,
};

use super::{Element, Isa, Kernel, LANES, Simd16};

pub(crate) use self::integers::{NeonDotProd, NeonI8mm, prefetch_ahead, sdot, sdot_half, smmla};

/// NEON.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neon(());

impl Neon {
    /// Returns the set if this machine has it.
    pub(crate) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}

/// Four 128-bit registers.
#[derive(Clone, Copy)]
pub(crate) struct NeonVector(float32x4_t, float32x4_t, float32x4_t, float32x4_t);

/// Methods that apply an intrinsic, or one of the functions below, to each register.
macro_rules! registers {
    ($($name:ident($($operand:ident),*) = $register:ident;)*) => {
        $(
            #[inline(always)]
            fn $name(self $(, $operand: Self)*) -> Self {
                // SAFETY: the set is present, by `self`.
                unsafe {
                    Self(
                        $register(self.0 $(, $operand.0)*),
                        $register(self.1 $(, $operand.1)*),
                        $register(self.2 $(, $operand.2)*),
                        $register(self.3 $(, $operand.3)*),
                    )
                }
            }
        )*
    };
}

impl Isa for Neon {
    type Vector = NeonVector;
    type Nibbles = [uint32x4_t; 4];
    // 6 rows: 24 accumulators, four registers of weights and a broadcast: 29 of 32 registers.
    const TILE_ROWS: usize = 6;
    const TILE_PANELS: usize = 1;
    const HAS_FMA: bool = false;

    #[inline]
    fn run<E: Element, K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn compiled<E: Element, K: Kernel>(isa: Neon, kernel: K) -> K::Output {
            kernel.run::<_, E>(isa)
        }
        // SAFETY: a value of this type proves that the machine has the set.
        unsafe { compiled::<E, K>(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> NeonVector {
        // SAFETY: the set is present, by `self`.
        let x = unsafe { vdupq_n_f32(x) };
        NeonVector(x, x, x, x)
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> NeonVector {
        // SAFETY: four numbers each; the set is present, by `self`.
        unsafe {
            NeonVector(
                vld1q_f32(from.as_ptr()),
                vld1q_f32(from[4..].as_ptr()),
                vld1q_f32(from[8..].as_ptr()),
                vld1q_f32(from[12..].as_ptr()),
            )
        }
    }

    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> NeonVector {
        // SAFETY: four numbers each; the set is present, by `self`.
        unsafe {
            NeonVector(
                load_f16(from.as_ptr()),
                load_f16(from[4..].as_ptr()),
                load_f16(from[8..].as_ptr()),
                load_f16(from[12..].as_ptr()),
            )
        }
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u16; LANES]) -> NeonVector {
        // SAFETY: four numbers each; the set is present, by `self`.
        unsafe {
            NeonVector(
                load_bf16(from.as_ptr()),
                load_bf16(from[4..].as_ptr()),
                load_bf16(from[8..].as_ptr()),
                load_bf16(from[12..].as_ptr()),
            )
        }
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> NeonVector {
        // SAFETY: sixteen numbers; the set is present, by `self`.
        unsafe {
            let all = vld1q_s8(from.as_ptr());
            let (low, high) = (vmovl_s8(vget_low_s8(all)), vmovl_s8(vget_high_s8(all)));
            NeonVector(
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_s16(vget_high_s16(high))),
            )
        }
    }

    #[inline(always)]
    fn load_nibbles(self, from: &[[u8; 4]; LANES]) -> [uint32x4_t; 4] {
        let bytes: &[u8] = from.as_flattened();
        // SAFETY: sixteen bytes each; the set is present, by `self`.
        unsafe {
            [
                vreinterpretq_u32_u8(vld1q_u8(bytes.as_ptr())),
                vreinterpretq_u32_u8(vld1q_u8(bytes[16..].as_ptr())),
                vreinterpretq_u32_u8(vld1q_u8(bytes[32..].as_ptr())),
                vreinterpretq_u32_u8(vld1q_u8(bytes[48..].as_ptr())),
            ]
        }
    }

    #[inline(always)]
    fn lowest(self, nibbles: [uint32x4_t; 4]) -> NeonVector {
        // SAFETY: the set is present, by `self`.
        unsafe { NeonVector(lowest(nibbles[0]), lowest(nibbles[1]), lowest(nibbles[2]), lowest(nibbles[3])) }
    }

    #[inline(always)]
    fn without_lowest(self, nibbles: [uint32x4_t; 4]) -> [uint32x4_t; 4] {
        // SAFETY: the set is present, by `self`.
        unsafe {
            [
                vshrq_n_u32::<4>(nibbles[0]),
                vshrq_n_u32::<4>(nibbles[1]),
                vshrq_n_u32::<4>(nibbles[2]),
                vshrq_n_u32::<4>(nibbles[3]),
            ]
        }
    }
}

impl Simd16 for NeonVector {
    registers! {
        mul_add(b, c) = mul_add;
        add(b) = vaddq_f32;
        sub(b) = vsubq_f32;
        mul(b) = vmulq_f32;
        div(b) = vdivq_f32;
        max(b) = larger;
        min(b) = smaller;
        round() = vrndnq_f32;
        pow2() = pow2;
        round_f16() = round_f16;
        round_bf16() = round_bf16;
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        // SAFETY: four numbers each; the set is present, by `self`.
        unsafe {
            vst1q_f32(to.as_mut_ptr(), self.0);
            vst1q_f32(to[4..].as_mut_ptr(), self.1);
            vst1q_f32(to[8..].as_mut_ptr(), self.2);
            vst1q_f32(to[12..].as_mut_ptr(), self.3);
        }
    }

    #[inline(always)]
    fn store_f16(self, to: &mut [u16; LANES]) {
        // SAFETY: four numbers each; the set is present, by `self`.
        unsafe {
            store_f16(self.0, to.as_mut_ptr());
            store_f16(self.1, to[4..].as_mut_ptr());
            store_f16(self.2, to[8..].as_mut_ptr());
            store_f16(self.3, to[12..].as_mut_ptr());
        }
    }

    #[inline(always)]
    fn store_bf16(self, to: &mut [u16; LANES]) {
        // SAFETY: four numbers each; the set is present, by `self`.
        unsafe {
            store_bf16(self.0, to.as_mut_ptr());
            store_bf16(self.1, to[4..].as_mut_ptr());
            store_bf16(self.2, to[8..].as_mut_ptr());
            store_bf16(self.3, to[12..].as_mut_ptr());
        }
    }

    #[inline(always)]
    fn first(self, n: usize, rest: f32) -> Self {
        let mut part = [rest; LANES];
        part[..n].copy_from_slice(&self.lanes()[..n]);
        // SAFETY: four numbers each; the set is present, by `self`.
        unsafe {
            Self(
                vld1q_f32(part.as_ptr()),
                vld1q_f32(part[4..].as_ptr()),
                vld1q_f32(part[8..].as_ptr()),
                vld1q_f32(part[12..].as_ptr()),
            )
        }
    }
}

// Operations on one register.

#[inline]
#[target_feature(enable = "neon")]
fn mul_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
    vfmaq_f32(c, a, b)
}

/// By comparison, because `fmax` returns NaN if either operand is NaN.
#[inline]
#[target_feature(enable = "neon")]
fn larger(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vbslq_f32(vcgtq_f32(a, b), a, b)
}

/// By comparison, as in [`larger`].
#[inline]
#[target_feature(enable = "neon")]
fn smaller(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vbslq_f32(vcltq_f32(a, b), a, b)
}

#[inline]
#[target_feature(enable = "neon")]
fn pow2(n: float32x4_t) -> float32x4_t {
    let exponent = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
    vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
}

#[inline]
#[target_feature(enable = "neon")]
fn round_f16(x: float32x4_t) -> float32x4_t {
    vcvt_f32_f16(vcvt_f16_f32(x))
}

#[inline]
#[target_feature(enable = "neon")]
fn round_bf16(x: float32x4_t) -> float32x4_t {
    vreinterpretq_f32_u32(vandq_u32(bf16_lanes(x), vdupq_n_u32(0xFFFF_0000)))
}

/// Converts four fp32 to bf16 bits in the high halves of four 32-bit lanes. A NaN becomes a quiet NaN.
#[inline]
#[target_feature(enable = "neon")]
fn bf16_lanes(x: float32x4_t) -> uint32x4_t {
    let bits = vreinterpretq_u32_f32(x);
    let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
    let rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7FFF)), odd);
    let quiet = vorrq_u32(bits, vdupq_n_u32(0x40_0000));
    vbslq_u32(vceqq_f32(x, x), rounded, quiet)
}

/// Widens the lowest int4 of four lanes.
#[inline]
#[target_feature(enable = "neon")]
fn lowest(lanes: uint32x4_t) -> float32x4_t {
    vcvtq_f32_s32(vshrq_n_s32::<28>(vreinterpretq_s32_u32(vshlq_n_u32::<28>(lanes))))
}

#[inline(always)]
unsafe fn load_f16(p: *const u16) -> float32x4_t {
    // SAFETY: four numbers by the caller's promise.
    unsafe { vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))) }
}

#[inline(always)]
unsafe fn load_bf16(p: *const u16) -> float32x4_t {
    // SAFETY: four numbers by the caller's promise.
    unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(vld1_u16(p)))) }
}

#[inline(always)]
unsafe fn store_f16(x: float32x4_t, p: *mut u16) {
    // SAFETY: four numbers by the caller's promise.
    unsafe { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(x))) }
}

#[inline(always)]
unsafe fn store_bf16(x: float32x4_t, p: *mut u16) {
    // SAFETY: four numbers by the caller's promise.
    unsafe { vst1_u16(p, vshrn_n_u32::<16>(bf16_lanes(x))) }
}
