//! The loops of aarch64.

use std::arch::aarch64::{vdupq_n_f32, vdupq_n_s32, vfmaq_f32, vld1q_f32, vld1q_s8};
use std::hint::black_box;

use crate::simd::neon::{sdot, smmla};
use crate::simd::{NeonDotProd, NeonI8mm};

use super::{K, Operand, PASSES, fp32 as numbers, int8 as integers};

/// Six rows and sixteen columns: twenty-four accumulators in thirty-two registers.
pub(super) fn fp32() -> u64 {
    const ROWS: usize = 6;
    static A: Operand<f32, { ROWS * K }> = numbers();
    static B: Operand<f32, { 16 * K }> = numbers();
    let (a, b) = (black_box(&A.0), black_box(&B.0));
    // SAFETY: every processor of this architecture has NEON.
    let mut c = [[unsafe { vdupq_n_f32(0.0) }; 4]; ROWS];
    for _ in 0..PASSES {
        for (x, y) in a.as_chunks::<ROWS>().0.iter().zip(b.as_chunks::<16>().0) {
            let y = y.as_chunks::<4>().0;
            // SAFETY: as above; four numbers each.
            let y: [_; 4] = std::array::from_fn(|i| unsafe { vld1q_f32(y[i].as_ptr()) });
            for (c, x) in c.iter_mut().zip(x) {
                // SAFETY: as above.
                unsafe {
                    let x = vdupq_n_f32(*x);
                    *c = std::array::from_fn(|i| vfmaq_f32(c[i], x, y[i]));
                }
            }
        }
    }
    black_box(c);
    (2 * ROWS * 16 * K * PASSES) as u64
}

/// Six rows and sixteen columns, sixteen inputs a step: twenty-four accumulators.
pub(super) fn dotprod(_: NeonDotProd) -> u64 {
    #[target_feature(enable = "neon,dotprod")]
    fn compiled() -> u64 {
        const ROWS: usize = 6;
        static A: Operand<i8, { ROWS * K }> = integers();
        static B: Operand<i8, { 16 * K }> = integers();
        let (a, b) = (black_box(&A.0), black_box(&B.0));
        let mut c = [[vdupq_n_s32(0); 4]; ROWS];
        for _ in 0..PASSES {
            for (x, y) in a.as_chunks::<{ 16 * ROWS }>().0.iter().zip(b.as_chunks::<256>().0) {
                // SAFETY: sixteen numbers each.
                let x: [_; ROWS] = std::array::from_fn(|row| unsafe { vld1q_s8(x[16 * row..].as_ptr()) });
                /// Four inputs of all rows and columns.
                macro_rules! quad {
                    ($lane:literal) => {
                        for i in 0..4 {
                            // SAFETY: sixteen numbers.
                            let y = unsafe { vld1q_s8(y[64 * $lane + 16 * i..].as_ptr()) };
                            for row in 0..ROWS {
                                c[row][i] = sdot::<$lane>(c[row][i], y, x[row]);
                            }
                        }
                    };
                }
                quad!(0);
                quad!(1);
                quad!(2);
                quad!(3);
            }
        }
        black_box(c);
        (2 * ROWS * 16 * K * PASSES) as u64
    }
    // SAFETY: the argument proves that the machine has the instructions.
    unsafe { compiled() }
}

/// Three pairs of rows and eight pairs of columns, eight inputs a step: twenty-four accumulators.
pub(super) fn i8mm(_: NeonI8mm) -> u64 {
    #[target_feature(enable = "neon,dotprod,i8mm")]
    fn compiled() -> u64 {
        const PAIRS: usize = 3;
        static A: Operand<i8, { 2 * PAIRS * K }> = integers();
        static B: Operand<i8, { 16 * K }> = integers();
        let (a, b) = (black_box(&A.0), black_box(&B.0));
        let mut c = [[vdupq_n_s32(0); 8]; PAIRS];
        for _ in 0..PASSES {
            for (x, y) in a.as_chunks::<{ 16 * PAIRS }>().0.iter().zip(b.as_chunks::<128>().0) {
                // SAFETY: sixteen numbers each.
                let x: [_; PAIRS] = std::array::from_fn(|pair| unsafe { vld1q_s8(x[16 * pair..].as_ptr()) });
                for i in 0..8 {
                    // SAFETY: sixteen numbers.
                    let y = unsafe { vld1q_s8(y[16 * i..].as_ptr()) };
                    for pair in 0..PAIRS {
                        c[pair][i] = smmla(c[pair][i], x[pair], y);
                    }
                }
            }
        }
        black_box(c);
        (2 * 2 * PAIRS * 16 * K * PASSES) as u64
    }
    // SAFETY: the argument proves that the machine has the instructions.
    unsafe { compiled() }
}
