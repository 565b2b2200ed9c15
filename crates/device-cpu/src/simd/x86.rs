//! [`Simd16`] on x86-64: two 256-bit registers (AVX2, FMA, F16C) or one 512-bit register (AVX-512F).

use std::arch::x86_64::{
    __m128i, __m256, __m256i, __m512, __m512i, _CMP_UNORD_Q, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT,
    _mm_add_ps, _mm_cvtss_f32, _mm_loadu_si128, _mm_max_ps, _mm_movehdup_ps, _mm_movehl_ps, _mm_packus_epi32,
    _mm_storeu_si128, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256, _mm256_blendv_epi8,
    _mm256_blendv_ps, _mm256_castpd_ps, _mm256_castps_si256, _mm256_castps256_ps128, _mm256_castsi256_ps,
    _mm256_castsi256_si128, _mm256_cmp_ps, _mm256_cmpgt_epi32, _mm256_cvtepu16_epi32, _mm256_cvtph_ps,
    _mm256_cvtps_epi32, _mm256_cvtps_ph, _mm256_div_ps, _mm256_extractf128_ps, _mm256_extracti128_si256,
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps,
    _mm256_or_si256, _mm256_round_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32,
    _mm256_slli_epi32, _mm256_srli_epi32, _mm256_storeu_ps, _mm256_storeu_si256, _mm256_sub_ps,
    _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512, _mm512_castps_pd, _mm512_castps_si512,
    _mm512_castsi512_ps, _mm512_cmp_ps_mask, _mm512_cvtepi32_epi16, _mm512_cvtepu16_epi32, _mm512_cvtph_ps,
    _mm512_cvtps_epi32, _mm512_cvtps_ph, _mm512_div_ps, _mm512_extractf64x4_pd, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_mask_blend_ps, _mm512_mask_or_epi32, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps,
    _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_slli_epi32,
    _mm512_srli_epi32, _mm512_storeu_ps, _mm512_sub_ps,
};

use super::{Element, Isa, Kernel, LANES, Simd16};

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

/// AVX2 with FMA and F16C.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

/// AVX-512 (F, BW, VL), with AVX2.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(());

/// AVX-512 with VNNI, the dot products of integers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512Vnni(());

impl Avx2 {
    /// Returns the set if this machine has it.
    pub(crate) fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        all.then_some(Self(()))
    }
}

impl Avx512 {
    /// Returns the set if this machine has it.
    pub(crate) fn detect() -> Option<Self> {
        let all = Avx2::detect().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl");
        all.then_some(Self(()))
    }
}

impl Avx512Vnni {
    /// Returns the set if this machine has it.
    pub(crate) fn detect() -> Option<Self> {
        let all = Avx512::detect().is_some() && is_x86_feature_detected!("avx512vnni");
        all.then_some(Self(()))
    }
}

/// Two 256-bit registers.
#[derive(Clone, Copy)]
pub(crate) struct Avx2Vector(__m256, __m256);

/// One 512-bit register.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Vector(__m512);

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

/// Folds the halves of a register into each other down to one lane, with a 128-bit operation. Lane `i` is folded with
/// lane `i + 4`, then `i` with `i + 2`, then the first with the second.
macro_rules! fold_lanes {
    ($eight:expr, $fold:ident) => {{
        let eight: __m256 = $eight;
        let four = $fold(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = $fold(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32($fold(two, _mm_movehdup_ps(two)))
    }};
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
