//! The integer product on AMX: `TDPBSSD` multiplies sixteen rows of 64 integers with a tile of a panel, exactly.

use std::arch::asm;

use crate::device::cpu::amx;
use crate::device::cpu::kernels::PANEL;
use crate::device::cpu::tiles::amx::{configure, release};
use crate::device::cpu::tiles::{Shape, TILE_BYTES, TILE_ROWS};

use super::kernels::{Int8Product, TILE_K};

/// Panels of a product of few rows, one for each tile of sums.
const NARROW: usize = 4;
/// Panels, and blocks of rows, of a product of many rows.
const WIDE: usize = 2;

/// This machine can run [`gemm`].
pub fn available() -> bool {
    amx::found().is_ok_and(|amx| amx.int8)
}

/// [`Int8Product`] on tiles.
///
/// # Safety
/// As [`super::kernels::Int8Kernels`], and AMX-INT8 must be [`available`].
pub unsafe fn gemm(t: &Int8Product) {
    assert!(t.k.is_multiple_of(TILE_K), "invariant: whole tiles of depth");
    if t.k == 0 {
        return;
    }
    let many = t.rows / (WIDE * TILE_ROWS) * (WIDE * TILE_ROWS);
    // SAFETY: all blocks lie inside the product; each is of the shape configured before it.
    unsafe {
        if many > 0 {
            configure(Shape::Wide);
            let pairs = t.panels / WIDE * WIDE;
            for panel in (0..pairs).step_by(WIDE) {
                (0..many).step_by(WIDE * TILE_ROWS).for_each(|row| two_by_two(t, row, panel));
            }
            for panel in pairs..t.panels {
                (0..many).step_by(TILE_ROWS).for_each(|row| one_by_one(t, row, panel));
            }
        }
        for row in (many..t.rows).step_by(TILE_ROWS) {
            configure(Shape::Narrow { rows: TILE_ROWS.min(t.rows - row) });
            let whole = t.panels / NARROW * NARROW;
            (0..whole).step_by(NARROW).for_each(|panel| one_by_four(t, row, panel));
            (whole..t.panels).for_each(|panel| one_by_one(t, row, panel));
        }
        release();
    }
}

/// Where rows, a panel and their sums begin.
unsafe fn begin(t: &Int8Product, row: usize, panel: usize) -> (*const i8, *const i8, *mut i32) {
    // SAFETY: inside the product by the caller's promise.
    unsafe {
        (
            t.a.add(row * t.a_stride),
            t.w.add(panel * t.panel_stride),
            t.c.add(row * t.c_stride + panel * PANEL),
        )
    }
}

/// # Safety
/// As [`gemm`]; thirty-two rows and two panels from `row` and `panel` on.
unsafe fn two_by_two(t: &Int8Product, row: usize, panel: usize) {
    // SAFETY: inside the product by the caller's promise; the tiles are configured for sixteen rows.
    unsafe {
        let (a, b, c) = begin(t, row, panel);
        asm!(
            "tileloadd tmm0, [{c0} + {cs}*1]",
            "tileloadd tmm1, [{c0} + {cs}*1 + 64]",
            "tileloadd tmm2, [{c1} + {cs}*1]",
            "tileloadd tmm3, [{c1} + {cs}*1 + 64]",
            "2:",
            "tileloadd tmm6, [{b0} + {s}*1]",
            "tileloadd tmm4, [{a0} + {stride}*1]",
            "tdpbssd tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b1} + {s}*1]",
            "tdpbssd tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a1} + {stride}*1]",
            "tdpbssd tmm2, tmm5, tmm6",
            "tdpbssd tmm3, tmm5, tmm7",
            "add {a0}, 64",
            "add {a1}, 64",
            "add {b0}, 1024",
            "add {b1}, 1024",
            "dec {n}",
            "jnz 2b",
            "tilestored [{c0} + {cs}*1], tmm0",
            "tilestored [{c0} + {cs}*1 + 64], tmm1",
            "tilestored [{c1} + {cs}*1], tmm2",
            "tilestored [{c1} + {cs}*1 + 64], tmm3",
            c0 = in(reg) c,
            c1 = in(reg) c.add(TILE_ROWS * t.c_stride),
            cs = in(reg) t.c_stride * size_of::<i32>(),
            s = in(reg) TILE_BYTES / TILE_ROWS,
            stride = in(reg) t.a_stride,
            n = inout(reg) t.k / TILE_K => _,
            a0 = inout(reg) a => _,
            a1 = inout(reg) a.add(TILE_ROWS * t.a_stride) => _,
            b0 = inout(reg) b => _,
            b1 = inout(reg) b.add(t.panel_stride) => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// # Safety
/// As [`gemm`]; the rows configured and four panels from `row` and `panel` on.
unsafe fn one_by_four(t: &Int8Product, row: usize, panel: usize) {
    // SAFETY: inside the product by the caller's promise; the tiles are configured for the rows.
    unsafe {
        let (a, b, c) = begin(t, row, panel);
        asm!(
            "tileloadd tmm0, [{c} + {cs}*1]",
            "tileloadd tmm1, [{c} + {cs}*1 + 64]",
            "tileloadd tmm2, [{c} + {cs}*1 + 128]",
            "tileloadd tmm3, [{c} + {cs}*1 + 192]",
            "2:",
            "tileloadd tmm4, [{a} + {stride}*1]",
            "tileloadd tmm6, [{b0} + {s}*1]",
            "tdpbssd tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b1} + {s}*1]",
            "tdpbssd tmm1, tmm4, tmm7",
            "tileloadd tmm6, [{b2} + {s}*1]",
            "tdpbssd tmm2, tmm4, tmm6",
            "tileloadd tmm7, [{b3} + {s}*1]",
            "tdpbssd tmm3, tmm4, tmm7",
            "add {a}, 64",
            "add {b0}, 1024",
            "add {b1}, 1024",
            "add {b2}, 1024",
            "add {b3}, 1024",
            "dec {n}",
            "jnz 2b",
            "tilestored [{c} + {cs}*1], tmm0",
            "tilestored [{c} + {cs}*1 + 64], tmm1",
            "tilestored [{c} + {cs}*1 + 128], tmm2",
            "tilestored [{c} + {cs}*1 + 192], tmm3",
            c = in(reg) c,
            cs = in(reg) t.c_stride * size_of::<i32>(),
            s = in(reg) TILE_BYTES / TILE_ROWS,
            stride = in(reg) t.a_stride,
            n = inout(reg) t.k / TILE_K => _,
            a = inout(reg) a => _,
            b0 = inout(reg) b => _,
            b1 = inout(reg) b.add(t.panel_stride) => _,
            b2 = inout(reg) b.add(2 * t.panel_stride) => _,
            b3 = inout(reg) b.add(3 * t.panel_stride) => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// # Safety
/// As [`gemm`]; the rows configured and one panel from `row` and `panel` on.
unsafe fn one_by_one(t: &Int8Product, row: usize, panel: usize) {
    // SAFETY: inside the product by the caller's promise; the tiles are configured for the rows.
    unsafe {
        let (a, b, c) = begin(t, row, panel);
        asm!(
            "tileloadd tmm0, [{c} + {cs}*1]",
            "2:",
            "tileloadd tmm4, [{a} + {stride}*1]",
            "tileloadd tmm6, [{b} + {s}*1]",
            "tdpbssd tmm0, tmm4, tmm6",
            "add {a}, 64",
            "add {b}, 1024",
            "dec {n}",
            "jnz 2b",
            "tilestored [{c} + {cs}*1], tmm0",
            c = in(reg) c,
            cs = in(reg) t.c_stride * size_of::<i32>(),
            s = in(reg) TILE_BYTES / TILE_ROWS,
            stride = in(reg) t.a_stride,
            n = inout(reg) t.k / TILE_K => _,
            a = inout(reg) a => _,
            b = inout(reg) b => _,
            out("tmm0") _, out("tmm4") _, out("tmm6") _,
            options(nostack),
        );
    }
}
