//! The loops of aarch64.

use std::arch::aarch64::{vdupq_n_f32, vfmaq_f32, vld1q_f32};
use std::hint::black_box;

use super::{K, Operand, PASSES, fp32 as numbers};

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
