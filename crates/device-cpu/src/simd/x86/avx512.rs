//! [`Simd16`] on AVX-512: one 512-bit register.

use std::arch::x86_64::{
    __m256, __m512, __m512i, _CMP_UNORD_Q, _mm_add_ps, _mm_cvtss_f32, _mm_loadu_si128, _mm_max_ps,
    _mm_movehdup_ps, _mm_movehl_ps, _mm256_add_ps, _mm256_castpd_ps, _mm256_castps256_ps128,
    _mm256_extractf128_ps, _mm256_loadu_si256, _mm256_max_ps, _mm256_storeu_si256, _mm512_add_epi32,
    _mm512_add_ps, _mm512_and_si512, _mm512_castps_pd, _mm512_castps_si512, _mm512_castsi512_ps,
    _mm512_cmp_ps_mask, _mm512_cvtepi8_epi32, _mm512_cvtepi32_epi16, _mm512_cvtepi32_ps,
    _mm512_cvtepu16_epi32, _mm512_cvtph_ps, _mm512_cvtps_epi32, _mm512_cvtps_ph, _mm512_div_ps,
    _mm512_extractf64x4_pd, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_blend_ps,
    _mm512_mask_or_epi32, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_permutexvar_ps,
    _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_ps,
    _mm512_slli_epi32, _mm512_srli_epi32, _mm512_storeu_ps, _mm512_stream_ps, _mm512_sub_ps,
};

use super::{Avx512, NEAREST, fold_lanes};
use crate::simd::{Element, Isa, Kernel, LANES, Simd16};

/// One 512-bit register.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Vector(__m512);

/// Rounds sixteen fp32 to bf16. The bf16 bits are the high halves of the lanes; the low halves are unspecified.
#[inline]
#[target_feature(enable = "avx512f")]
fn bf16_high(x: __m512) -> __m512i {
    let bits = _mm512_castps_si512(x);
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
    _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x40_0000))
}

/// Returns the eight lanes starting at `8 * HALF`.
#[inline]
#[target_feature(enable = "avx512f")]
fn half<const HALF: i32>(x: __m512) -> __m256 {
    _mm256_castpd_ps(_mm512_extractf64x4_pd::<HALF>(_mm512_castps_pd(x)))
}

macro_rules! lanewise512 {
    ($name:ident, $intrinsic:ident) => {
        #[inline(always)]
        fn $name(self, b: Self) -> Self {
            // SAFETY: the set is present, by `self`.
            unsafe { Self($intrinsic(self.0, b.0)) }
        }
    };
}

impl Isa for Avx512 {
    type Vector = Avx512Vector;
    type Nibbles = __m512i;
    // 8 rows by 3 panels: 24 accumulators, three registers of weights and a broadcast, so 28 of 32 registers. A step of
    // depth has 11 loads for 24 multiply-adds. 12 rows by one panel had 13 loads for 12, the limit of the load units.
    const TILE_ROWS: usize = 8;
    const TILE_PANELS: usize = 3;
    const HAS_FMA: bool = true;

    #[inline]
    fn run<E: Element, K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
        fn compiled<E: Element, K: Kernel>(isa: Avx512, kernel: K) -> K::Output {
            kernel.run::<_, E>(isa)
        }
        // SAFETY: a value of this type proves that the machine has the set.
        unsafe { compiled::<E, K>(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Avx512Vector {
        // SAFETY: the set is present, by `self`.
        unsafe { Avx512Vector(_mm512_set1_ps(x)) }
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Avx512Vector {
        // SAFETY: sixteen numbers; the set is present, by `self`.
        unsafe { Avx512Vector(_mm512_loadu_ps(from.as_ptr())) }
    }

    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> Avx512Vector {
        // SAFETY: sixteen numbers; the set is present, by `self`.
        unsafe { Avx512Vector(_mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u16; LANES]) -> Avx512Vector {
        // SAFETY: sixteen numbers; the set is present, by `self`.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
            Avx512Vector(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)))
        }
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Avx512Vector {
        // SAFETY: sixteen numbers; the set is present, by `self`.
        unsafe {
            Avx512Vector(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast()))))
        }
    }

    #[inline(always)]
    fn load_nibbles(self, from: &[[u8; 4]; LANES]) -> __m512i {
        // SAFETY: 64 bytes; the set is present, by `self`.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    /// A table of sixteen numbers, which the instruction indexes by the lowest four bits of a lane.
    #[inline(always)]
    fn lowest(self, nibbles: __m512i) -> Avx512Vector {
        // SAFETY: the set is present, by `self`.
        unsafe {
            let table = _mm512_setr_ps(
                0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, -8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0,
            );
            Avx512Vector(_mm512_permutexvar_ps(nibbles, table))
        }
    }

    #[inline(always)]
    fn without_lowest(self, nibbles: __m512i) -> __m512i {
        // SAFETY: the set is present, by `self`.
        unsafe { _mm512_srli_epi32::<4>(nibbles) }
    }
}

impl Simd16 for Avx512Vector {
    lanewise512!(add, _mm512_add_ps);
    lanewise512!(sub, _mm512_sub_ps);
    lanewise512!(mul, _mm512_mul_ps);
    lanewise512!(div, _mm512_div_ps);
    lanewise512!(max, _mm512_max_ps);
    lanewise512!(min, _mm512_min_ps);

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        // SAFETY: sixteen numbers; the set is present, by `self`.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn stream(self, to: &mut [f32; LANES]) {
        let place = to.as_mut_ptr();
        if place.addr().is_multiple_of(size_of::<__m512>()) {
            // SAFETY: sixteen numbers, aligned to the register's size; the set is present, by `self`. Writers fence before they
            // hand the numbers on (`fence_streams`).
            unsafe { _mm512_stream_ps(place, self.0) }
        } else {
            self.store(to);
        }
    }

    #[inline(always)]
    fn store_f16(self, to: &mut [u16; LANES]) {
        // SAFETY: sixteen numbers; the set is present, by `self`.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtps_ph::<NEAREST>(self.0)) }
    }

    #[inline(always)]
    fn store_bf16(self, to: &mut [u16; LANES]) {
        // SAFETY: sixteen numbers; the set is present, by `self`.
        unsafe {
            let high = _mm512_srli_epi32::<16>(bf16_high(self.0));
            _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(high));
        }
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: the set is present, by `self`.
        unsafe { Self(_mm512_fmadd_ps(self.0, b.0, c.0)) }
    }

    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: the set is present, by `self`.
        unsafe { Self(_mm512_roundscale_ps::<NEAREST>(self.0)) }
    }

    #[inline(always)]
    fn pow2(self) -> Self {
        // SAFETY: the set is present, by `self`.
        unsafe {
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent)))
        }
    }

    #[inline(always)]
    fn scale_pow2(self, n: Self) -> Self {
        // SAFETY: the set is present, by `self`.
        unsafe { Self(_mm512_scalef_ps(self.0, n.0)) }
    }

    #[inline(always)]
    fn round_f16(self) -> Self {
        // SAFETY: the set is present, by `self`.
        unsafe { Self(_mm512_cvtph_ps(_mm512_cvtps_ph::<NEAREST>(self.0))) }
    }

    #[inline(always)]
    fn round_bf16(self) -> Self {
        // SAFETY: the set is present, by `self`.
        unsafe {
            let high = _mm512_and_si512(bf16_high(self.0), _mm512_set1_epi32(0xFFFF_0000_u32 as i32));
            Self(_mm512_castsi512_ps(high))
        }
    }

    #[inline(always)]
    fn first(self, n: usize, rest: f32) -> Self {
        let lanes = ((1u32 << n) - 1) as u16;
        // SAFETY: the set is present, by `self`.
        unsafe { Self(_mm512_mask_blend_ps(lanes, _mm512_set1_ps(rest), self.0)) }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: the set is present, by `self`.
        unsafe { fold_lanes!(_mm256_add_ps(half::<0>(self.0), half::<1>(self.0)), _mm_add_ps) }
    }

    #[inline(always)]
    fn max_lane(self) -> f32 {
        // SAFETY: the set is present, by `self`.
        unsafe { fold_lanes!(_mm256_max_ps(half::<0>(self.0), half::<1>(self.0)), _mm_max_ps) }
    }
}
