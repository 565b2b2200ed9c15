//! [`Simd16`] on AVX2: two 256-bit registers.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _CMP_UNORD_Q, _MM_FROUND_TO_NEAREST_INT, _mm_add_ps, _mm_cvtss_f32,
    _mm_loadl_epi64, _mm_loadu_si128, _mm_max_ps, _mm_movehdup_ps, _mm_movehl_ps, _mm_packus_epi32,
    _mm_storeu_si128, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256, _mm256_blendv_epi8,
    _mm256_blendv_ps, _mm256_castps_si256, _mm256_castps256_ps128, _mm256_castsi256_ps,
    _mm256_castsi256_si128, _mm256_cmp_ps, _mm256_cmpgt_epi32, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps,
    _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_cvtps_epi32, _mm256_cvtps_ph, _mm256_div_ps,
    _mm256_extractf128_ps, _mm256_extracti128_si256, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps, _mm256_or_si256, _mm256_round_ps, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_setr_epi32, _mm256_slli_epi32, _mm256_srai_epi32, _mm256_srli_epi32,
    _mm256_storeu_ps, _mm256_sub_ps,
};

use super::{Avx2, NEAREST, fold_lanes};
use crate::simd::{Element, Isa, Kernel, LANES, Simd16};

/// Two 256-bit registers.
#[derive(Clone, Copy)]
pub(crate) struct Avx2Vector(__m256, __m256);

/// Converts eight fp32 to bf16 bits in the low halves of eight 32-bit lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn bf16_lanes(x: __m256) -> __m256i {
    let bits = _mm256_castps_si256(x);
    let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd);
    let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
    let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x));
    _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan))
}

/// Rounds eight fp32 to bf16 and returns them as fp32.
#[inline]
#[target_feature(enable = "avx2")]
fn bf16_rounded(x: __m256) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bf16_lanes(x)))
}

/// Returns eight consecutive lane numbers, starting at `first`.
#[inline]
#[target_feature(enable = "avx2")]
fn lane_numbers(first: i32) -> __m256i {
    _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(first))
}

/// Packs the low halves of eight 32-bit lanes next to each other.
#[inline]
#[target_feature(enable = "avx2")]
fn pack_lanes(x: __m256i) -> __m128i {
    _mm_packus_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x))
}

macro_rules! lanewise {
    ($name:ident, $intrinsic:ident) => {
        #[inline(always)]
        fn $name(self, b: Self) -> Self {
            // SAFETY: the set is present, by `self`.
            unsafe { Self($intrinsic(self.0, b.0), $intrinsic(self.1, b.1)) }
        }
    };
}

impl Isa for Avx2 {
    type Vector = Avx2Vector;
    type Nibbles = (__m256i, __m256i);
    // 6 rows: 12 accumulators, two weight registers, one broadcast: 15 of 16 registers.
    const TILE_ROWS: usize = 6;
    const TILE_PANELS: usize = 1;
    const HAS_FMA: bool = true;

    #[inline]
    fn run<E: Element, K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn compiled<E: Element, K: Kernel>(isa: Avx2, kernel: K) -> K::Output {
            kernel.run::<_, E>(isa)
        }
        // SAFETY: a value of this type proves that the machine has the set.
        unsafe { compiled::<E, K>(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Avx2Vector {
        // SAFETY: the set is present, by `self`.
        unsafe { Avx2Vector(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Avx2Vector {
        // SAFETY: sixteen numbers; the set is present, by `self`.
        unsafe { Avx2Vector(_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from[8..].as_ptr())) }
    }

    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> Avx2Vector {
        // SAFETY: sixteen numbers; the set is present, by `self`.
        unsafe {
            Avx2Vector(
                _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(from[8..].as_ptr().cast())),
            )
        }
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u16; LANES]) -> Avx2Vector {
        // SAFETY: sixteen numbers; the set is present, by `self`.
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(from[8..].as_ptr().cast()));
            Avx2Vector(
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            )
        }
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Avx2Vector {
        // SAFETY: sixteen numbers; the set is present, by `self`.
        unsafe {
            Avx2Vector(
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.as_ptr().cast()))),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from[8..].as_ptr().cast()))),
            )
        }
    }

    #[inline(always)]
    fn load_nibbles(self, from: &[[u8; 4]; LANES]) -> (__m256i, __m256i) {
        // SAFETY: 32 bytes each; the set is present, by `self`.
        unsafe { (_mm256_loadu_si256(from.as_ptr().cast()), _mm256_loadu_si256(from[8..].as_ptr().cast())) }
    }

    #[inline(always)]
    fn lowest(self, nibbles: (__m256i, __m256i)) -> Avx2Vector {
        // SAFETY: the set is present, by `self`.
        unsafe {
            let (low, high) = (_mm256_slli_epi32::<28>(nibbles.0), _mm256_slli_epi32::<28>(nibbles.1));
            Avx2Vector(
                _mm256_cvtepi32_ps(_mm256_srai_epi32::<28>(low)),
                _mm256_cvtepi32_ps(_mm256_srai_epi32::<28>(high)),
            )
        }
    }

    #[inline(always)]
    fn without_lowest(self, nibbles: (__m256i, __m256i)) -> (__m256i, __m256i) {
        // SAFETY: the set is present, by `self`.
        unsafe { (_mm256_srli_epi32::<4>(nibbles.0), _mm256_srli_epi32::<4>(nibbles.1)) }
    }
}

impl Simd16 for Avx2Vector {
    lanewise!(add, _mm256_add_ps);
    lanewise!(sub, _mm256_sub_ps);
    lanewise!(mul, _mm256_mul_ps);
    lanewise!(div, _mm256_div_ps);
    lanewise!(max, _mm256_max_ps);
    lanewise!(min, _mm256_min_ps);

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        // SAFETY: sixteen numbers; the set is present, by `self`.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), self.0);
            _mm256_storeu_ps(to[8..].as_mut_ptr(), self.1);
        }
    }

    #[inline(always)]
    fn store_f16(self, to: &mut [u16; LANES]) {
        // SAFETY: sixteen numbers; the set is present, by `self`.
        unsafe {
            _mm_storeu_si128(to.as_mut_ptr().cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0));
            _mm_storeu_si128(
                to[8..].as_mut_ptr().cast(),
                _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.1),
            );
        }
    }

    #[inline(always)]
    fn store_bf16(self, to: &mut [u16; LANES]) {
        // SAFETY: sixteen numbers; the set is present, by `self`.
        unsafe {
            _mm_storeu_si128(to.as_mut_ptr().cast(), pack_lanes(bf16_lanes(self.0)));
            _mm_storeu_si128(to[8..].as_mut_ptr().cast(), pack_lanes(bf16_lanes(self.1)));
        }
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: the set is present, by `self`.
        unsafe { Self(_mm256_fmadd_ps(self.0, b.0, c.0), _mm256_fmadd_ps(self.1, b.1, c.1)) }
    }

    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: the set is present, by `self`.
        unsafe { Self(_mm256_round_ps::<NEAREST>(self.0), _mm256_round_ps::<NEAREST>(self.1)) }
    }

    #[inline(always)]
    fn pow2(self) -> Self {
        // SAFETY: the set is present, by `self`.
        unsafe {
            let half = |n: __m256| {
                let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
            };
            Self(half(self.0), half(self.1))
        }
    }

    #[inline(always)]
    fn round_f16(self) -> Self {
        // SAFETY: the set is present, by `self`.
        unsafe {
            let half = |x: __m256| _mm256_cvtph_ps(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x));
            Self(half(self.0), half(self.1))
        }
    }

    #[inline(always)]
    fn round_bf16(self) -> Self {
        // SAFETY: the set is present, by `self`.
        unsafe { Self(bf16_rounded(self.0), bf16_rounded(self.1)) }
    }

    #[inline(always)]
    fn first(self, n: usize, rest: f32) -> Self {
        // SAFETY: the set is present, by `self`.
        unsafe {
            let (n, rest) = (_mm256_set1_epi32(n as i32), _mm256_set1_ps(rest));
            let part = |x: __m256, lanes: __m256i| {
                _mm256_blendv_ps(rest, x, _mm256_castsi256_ps(_mm256_cmpgt_epi32(n, lanes)))
            };
            Self(part(self.0, lane_numbers(0)), part(self.1, lane_numbers(8)))
        }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: the set is present, by `self`.
        unsafe { fold_lanes!(_mm256_add_ps(self.0, self.1), _mm_add_ps) }
    }

    #[inline(always)]
    fn max_lane(self) -> f32 {
        // SAFETY: the set is present, by `self`.
        unsafe { fold_lanes!(_mm256_max_ps(self.0, self.1), _mm_max_ps) }
    }
}
