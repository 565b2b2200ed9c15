//! The loops of x86-64.

use std::arch::x86_64::{
    __m256i, __m512bh, __m512h, _mm256_add_epi32, _mm256_dpbusd_avx_epi32, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi16, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm512_dpbf16_ps, _mm512_dpbusd_epi32,
    _mm512_fmadd_ph, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi16,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
};
use std::hint::black_box;
use std::mem::transmute;

use super::{K, Operand, PASSES, Unit, bf16, fp16, fp32};

/// Returns the loop of a unit; `None` if this machine does not have the unit, and for units of other modules.
pub(super) fn work(unit: Unit) -> Option<Box<dyn Fn() -> u64 + Sync>> {
    let of: unsafe fn() -> u64 = match unit {
        Unit::Fp32Avx512 => fp32_avx512,
        Unit::Bf16Avx512 => bf16_avx512,
        Unit::Fp16Avx512 => fp16_avx512,
        Unit::Int8Avx2 => int8_avx2,
        Unit::Int8AvxVnni => int8_avx_vnni,
        Unit::Int8Avx512Vnni => int8_avx512_vnni,
        Unit::Fp32Avx2 => fp32_avx2,
        _ => return None,
    };
    if !unit.available() {
        return None;
    }
    // SAFETY: the machine has the unit.
    Some(Box::new(move || unsafe { of() }))
}

/// Six rows and sixteen columns: twelve accumulators in sixteen registers.
#[target_feature(enable = "avx2,fma")]
fn fp32_avx2() -> u64 {
    const ROWS: usize = 6;
    static A: Operand<f32, { ROWS * K }> = fp32();
    static B: Operand<f32, { 16 * K }> = fp32();
    let (a, b) = (black_box(&A.0), black_box(&B.0));
    let mut c = [[_mm256_setzero_ps(); 2]; ROWS];
    for _ in 0..PASSES {
        for (x, y) in a.as_chunks::<ROWS>().0.iter().zip(b.as_chunks::<16>().0) {
            // SAFETY: sixteen numbers.
            let y = unsafe { [_mm256_loadu_ps(y.as_ptr()), _mm256_loadu_ps(y[8..].as_ptr())] };
            for (c, x) in c.iter_mut().zip(x) {
                let x = _mm256_set1_ps(*x);
                *c = [_mm256_fmadd_ps(x, y[0], c[0]), _mm256_fmadd_ps(x, y[1], c[1])];
            }
        }
    }
    black_box(c);
    (2 * ROWS * 16 * K * PASSES) as u64
}

/// Twelve rows and thirty-two columns: twenty-four accumulators in thirty-two registers.
#[target_feature(enable = "avx512f")]
fn fp32_avx512() -> u64 {
    const ROWS: usize = 12;
    static A: Operand<f32, { ROWS * K }> = fp32();
    static B: Operand<f32, { 32 * K }> = fp32();
    let (a, b) = (black_box(&A.0), black_box(&B.0));
    let mut c = [[_mm512_setzero_ps(); 2]; ROWS];
    for _ in 0..PASSES {
        for (x, y) in a.as_chunks::<ROWS>().0.iter().zip(b.as_chunks::<32>().0) {
            // SAFETY: thirty-two numbers.
            let y = unsafe { [_mm512_loadu_ps(y.as_ptr()), _mm512_loadu_ps(y[16..].as_ptr())] };
            for (c, x) in c.iter_mut().zip(x) {
                let x = _mm512_set1_ps(*x);
                *c = [_mm512_fmadd_ps(x, y[0], c[0]), _mm512_fmadd_ps(x, y[1], c[1])];
            }
        }
    }
    black_box(c);
    (2 * ROWS * 32 * K * PASSES) as u64
}

/// Eight rows and forty-eight columns of pairs: twenty-four accumulators.
#[target_feature(enable = "avx512f,avx512bf16")]
fn bf16_avx512() -> u64 {
    const ROWS: usize = 8;
    static A: Operand<u16, { ROWS * K }> = bf16();
    static B: Operand<u16, { 48 * K }> = bf16();
    let (a, b) = (black_box(&A.0), black_box(&B.0));
    let mut c = [[_mm512_setzero_ps(); 3]; ROWS];
    for _ in 0..PASSES {
        for (x, y) in a.as_chunks::<{ 2 * ROWS }>().0.iter().zip(b.as_chunks::<96>().0) {
            // SAFETY: three vectors of 32 numbers; a vector is bits of any type.
            let y: [__m512bh; 3] = std::array::from_fn(|i| unsafe {
                transmute(_mm512_loadu_si512(y[32 * i..].as_ptr().cast()))
            });
            for (c, x) in c.iter_mut().zip(x.as_chunks::<2>().0) {
                let pair = i32::from(x[0]) | i32::from(x[1]) << 16;
                // SAFETY: a vector is bits of any type.
                let x: __m512bh = unsafe { transmute(_mm512_set1_epi32(pair)) };
                *c = [
                    _mm512_dpbf16_ps(c[0], x, y[0]),
                    _mm512_dpbf16_ps(c[1], x, y[1]),
                    _mm512_dpbf16_ps(c[2], x, y[2]),
                ];
            }
        }
    }
    black_box(c);
    (2 * ROWS * 48 * K * PASSES) as u64
}

/// Twelve rows and sixty-four columns: twenty-four accumulators.
#[target_feature(enable = "avx512f,avx512fp16")]
fn fp16_avx512() -> u64 {
    const ROWS: usize = 12;
    static A: Operand<u16, { ROWS * K }> = fp16();
    static B: Operand<u16, { 64 * K }> = fp16();
    let (a, b) = (black_box(&A.0), black_box(&B.0));
    // SAFETY: a vector is bits of any type.
    let zero: __m512h = unsafe { transmute(_mm512_setzero_si512()) };
    let mut c = [[zero; 2]; ROWS];
    for _ in 0..PASSES {
        for (x, y) in a.as_chunks::<ROWS>().0.iter().zip(b.as_chunks::<64>().0) {
            // SAFETY: two vectors of 32 numbers; a vector is bits of any type.
            let y: [__m512h; 2] = std::array::from_fn(|i| unsafe {
                transmute(_mm512_loadu_si512(y[32 * i..].as_ptr().cast()))
            });
            for (c, x) in c.iter_mut().zip(x) {
                // SAFETY: a vector is bits of any type.
                let x: __m512h = unsafe { transmute(_mm512_set1_epi16(*x as i16)) };
                *c = [_mm512_fmadd_ph(x, y[0], c[0]), _mm512_fmadd_ph(x, y[1], c[1])];
            }
        }
    }
    black_box(c);
    (2 * ROWS * 64 * K * PASSES) as u64
}

/// A loop over int8 operands. Each step takes `$rows` rows of four numbers and two vectors with four numbers per
/// column.
macro_rules! int8 {
    (
        $(#[$about:meta])* $name:ident, $features:literal, $rows:literal rows, $lanes:literal lanes,
        $zero:ident, $splat:ident, $load:ident, $dot:ident
    ) => {
        $(#[$about])*
        #[target_feature(enable = $features)]
        fn $name() -> u64 {
            const BYTES: usize = 4 * $lanes;
            static A: Operand<i8, { $rows * K }> = super::int8();
            static B: Operand<i8, { 2 * $lanes * K }> = super::int8();
            let (a, b) = (black_box(&A.0), black_box(&B.0));
            let mut c = [[$zero(); 2]; $rows];
            for _ in 0..PASSES {
                for (x, y) in a.as_chunks::<{ 4 * $rows }>().0.iter().zip(b.as_chunks::<{ 2 * BYTES }>().0) {
                    // SAFETY: two vectors.
                    let y = unsafe { [$load(y.as_ptr().cast()), $load(y[BYTES..].as_ptr().cast())] };
                    for (c, x) in c.iter_mut().zip(x.as_chunks::<4>().0) {
                        let x = $splat(i32::from_le_bytes(x.map(|x| x as u8)));
                        *c = [$dot(c[0], x, y[0]), $dot(c[1], x, y[1])];
                    }
                }
            }
            black_box(c);
            (2 * $rows * 2 * $lanes * K * PASSES) as u64
        }
    };
}

int8!(
    /// Five rows and sixteen columns: ten accumulators, and a vector of ones for adding pairs.
    int8_avx2, "avx2", 5 rows, 8 lanes,
    _mm256_setzero_si256, _mm256_set1_epi32, _mm256_loadu_si256, dot_avx2
);
int8!(
    /// Six rows and sixteen columns.
    int8_avx_vnni, "avxvnni", 6 rows, 8 lanes,
    _mm256_setzero_si256, _mm256_set1_epi32, _mm256_loadu_si256, _mm256_dpbusd_avx_epi32
);
int8!(
    /// Twelve rows and thirty-two columns.
    int8_avx512_vnni, "avx512f,avx512vnni", 12 rows, 16 lanes,
    _mm512_setzero_si512, _mm512_set1_epi32, _mm512_loadu_si512, _mm512_dpbusd_epi32
);

/// Computes what `vpdpbusd` does, in three instructions.
#[inline]
#[target_feature(enable = "avx2")]
fn dot_avx2(c: __m256i, x: __m256i, y: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(x, y);
    _mm256_add_epi32(c, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}
