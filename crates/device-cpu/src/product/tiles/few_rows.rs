//! Products of few rows by vectors, with the bits of the tile registers. Few rows wait for memory. On an Intel Xeon with
//! AMX, vectors read it 1.1 to 1.3 times as fast as the loops over tiles (`docs/SPEED.md`).
//!
//! Integers are exact in any order. Floating-point numbers follow `TDPBF16PS`. For each tile, one chain of fused
//! multiply-adds goes over the even `k`, another one over the odd `k`. Then both are added to each other and to the sum.
//!
//! Meanwhile, the control register makes subnormal numbers zero. The compiler relies on that register outside `asm!`, so
//! one block of assembly holds a whole product, and restores it.

use std::arch::x86_64::{
    _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_reduce_add_epi32, _mm512_set1_epi8, _mm512_set1_epi32,
    _mm512_setzero_si512, _mm512_storeu_si512, _mm512_sub_epi32, _mm512_xor_si512,
};

use crate::buffer::{LINE_BYTES, prefetch_line};
use crate::pack::{PANEL, QUAD, TILE_BYTES, TILE_ROWS};
use crate::simd::{Avx512, Avx512Vnni};

use super::amx::AHEAD_BYTES;
use super::{FewRows, HALF, HIGH, NARROW, Shape, TileProduct};

/// Rows of integers. With so many, vectors read at least 0.8 as much memory as with one, and as much as tiles did.
const INTEGER_ROWS: usize = 8;
/// Rows of bf16: with four panels and two sums for each row, more do not fit the registers.
const BF16_ROWS: usize = 4;
/// Rows of fp16. With two, the arithmetic of three products for one takes longer than memory.
const FP16_ROWS: usize = 1;

impl FewRows<i32> {
    /// Returns the product of integers.
    pub(super) fn integers(_: Avx512Vnni) -> Self {
        Self { most: INTEGER_ROWS, multiply: multiply_integers }
    }
}

impl FewRows<f32> {
    /// Returns the product of numbers in `parts` parts.
    pub(super) fn numbers(_: Avx512, parts: usize) -> Self {
        match parts {
            1 => Self { most: BF16_ROWS, multiply: multiply_bf16 },
            _ => Self { most: FP16_ROWS, multiply: multiply_fp16 },
        }
    }
}

/// Returns the number of rows of a narrow product.
fn rows_of<C>(t: &TileProduct<C>) -> usize {
    match t.shape {
        Shape::Narrow { rows } => rows,
        Shape::Wide => unreachable!("invariant: a product of few rows is narrow"),
    }
}

/// # Safety
/// As [`TileUnit::multiply`](super::TileUnit::multiply); AVX-512 VNNI must be present.
unsafe fn multiply_integers(t: &TileProduct<i32>) {
    // SAFETY: the caller's promise. Seven rows by four panels would not fit the registers.
    unsafe {
        match rows_of(t) {
            1 => integers::<1, NARROW>(t, 0),
            2 => integers::<2, NARROW>(t, 0),
            3 => integers::<3, NARROW>(t, 0),
            4 => integers::<4, NARROW>(t, 0),
            5 => integers::<5, NARROW>(t, 0),
            6 => integers::<6, NARROW>(t, 0),
            7 => [0, 2].into_iter().for_each(|first| integers::<7, 2>(t, first)),
            INTEGER_ROWS => [0, 2].into_iter().for_each(|first| integers::<8, 2>(t, first)),
            rows => unreachable!("invariant: {rows} rows are few"),
        }
    }
}

/// Multiplies `M` rows by `P` panels from `first` on. `VPDPBUSD` multiplies unsigned by signed numbers. So 128 is added
/// to each weight on the way, and 128 times the sum of its row is taken from each sum.
///
/// # Safety
/// As [`multiply_integers`]. The product must have the rows and panels.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn integers<const M: usize, const P: usize>(t: &TileProduct<i32>, first: usize) {
    let offset = _mm512_set1_epi8(i8::MIN);
    let mut sums = [[_mm512_setzero_si512(); P]; M];
    let mut excess = [_mm512_setzero_si512(); M];
    // SAFETY: the product has the rows, the panels, the tiles and the sums; a prefetch may name any address.
    unsafe {
        let c = |m: usize, p: usize| t.c.add((m * NARROW + first + p) * PANEL).cast();
        if !t.fresh {
            for m in 0..M {
                for p in 0..P {
                    sums[m][p] = _mm512_loadu_si512(c(m, p));
                }
            }
        }
        for tile in 0..t.tiles {
            let a = t.a[0].add(tile * TILE_BYTES);
            let b: [_; P] = std::array::from_fn(|p| t.b[first + p].add(tile * TILE_BYTES));
            for m in 0..M {
                let row = _mm512_loadu_si512(a.add(m * LINE_BYTES).cast());
                excess[m] = _mm512_dpbusd_epi32(excess[m], offset, row);
            }
            for line in 0..TILE_ROWS {
                let mut weights = [_mm512_setzero_si512(); P];
                for p in 0..P {
                    let from = b[p].add(line * LINE_BYTES);
                    prefetch_line(from.wrapping_add(AHEAD_BYTES));
                    weights[p] = _mm512_xor_si512(_mm512_loadu_si512(from.cast()), offset);
                }
                for m in 0..M {
                    let x = a.add(m * LINE_BYTES + line * QUAD).cast::<i32>().read_unaligned();
                    let x = _mm512_set1_epi32(x);
                    for p in 0..P {
                        sums[m][p] = _mm512_dpbusd_epi32(sums[m][p], weights[p], x);
                    }
                }
            }
        }
        for m in 0..M {
            let excess = _mm512_set1_epi32(_mm512_reduce_add_epi32(excess[m]));
            for p in 0..P {
                _mm512_storeu_si512(c(m, p), _mm512_sub_epi32(sums[m][p], excess));
            }
        }
    }
}

/// Zeroes the sums of a fresh product.
///
/// # Safety
/// The product must have the sums.
unsafe fn begin(t: &TileProduct) {
    if t.fresh {
        // SAFETY: the caller's promise.
        unsafe { t.c.write_bytes(0, rows_of(t) * NARROW * PANEL) };
    }
}

/// The control register for the numbers of `TDPBF16PS`: exceptions are masked, rounding is to nearest even, and
/// subnormal numbers are zero as operands and as results.
static CONTROL: u32 = 0x9fc0;

/// The numbers of a tile's rows in fp32, with all parts of each row.
#[repr(align(64))]
struct Widened([[f32; 2 * TILE_ROWS]; BF16_ROWS]);

/// The assembly of a product: what it begins with, a tile of depth, and what it ends with. A tile of rows has `$bytes` bytes.
///
/// # Safety
/// The product must have the rows, the panels, the sums and a tile. The assembly ends with the control register that it
/// found. A prefetch may name any address.
macro_rules! product {
    ($t:ident, $bytes:literal, [$($begin:expr,)+], [$($tile:expr,)+], [$($end:expr,)+], $($operand:tt)+) => {{
        let mut widened = Widened([[0.0; 2 * TILE_ROWS]; BF16_ROWS]);
        let mut control = 0u32;
        ::std::arch::asm!(
            "stmxcsr [{old}]",
            "ldmxcsr [{new}]",
            $($begin,)+
            "2:",
            $($tile,)+
            concat!("add {a}, ", $bytes),
            "add {b0}, 1024",
            "add {b1}, 1024",
            "add {b2}, 1024",
            "add {b3}, 1024",
            "dec {n}",
            "jnz 2b",
            $($end,)+
            "ldmxcsr [{old}]",
            old = in(reg) &raw mut control,
            new = in(reg) &raw const CONTROL,
            x = in(reg) &raw mut widened.0,
            ahead = const AHEAD_BYTES,
            c = in(reg) $t.c,
            n = inout(reg) $t.tiles => _,
            a = inout(reg) $t.a[0] => _,
            b0 = inout(reg) $t.b[0] => _,
            b1 = inout(reg) $t.b[1] => _,
            b2 = inout(reg) $t.b[2] => _,
            b3 = inout(reg) $t.b[3] => _,
            $($operand)+
            out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _,
            out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
            out("zmm12") _, out("zmm13") _, out("zmm14") _, out("zmm15") _, out("zmm16") _, out("zmm17") _,
            out("zmm18") _, out("zmm19") _, out("zmm20") _, out("zmm21") _, out("zmm22") _, out("zmm23") _,
            out("zmm24") _, out("zmm25") _,
            options(nostack),
        )
    }};
}

/// Loads or stores the sums of a row: one register for each panel.
#[rustfmt::skip]
macro_rules! sums {
    (load $c0:literal $c1:literal $c2:literal $c3:literal, $at:literal) => {
        concat!(
            "vmovups ", $c0, ", [{c} + ", $at, "]\n",
            "vmovups ", $c1, ", [{c} + ", $at, " + 64]\n",
            "vmovups ", $c2, ", [{c} + ", $at, " + 128]\n",
            "vmovups ", $c3, ", [{c} + ", $at, " + 192]\n",
        )
    };
    (store $c0:literal $c1:literal $c2:literal $c3:literal, $at:literal) => {
        concat!(
            "vmovups [{c} + ", $at, "], ", $c0, "\n",
            "vmovups [{c} + ", $at, " + 64], ", $c1, "\n",
            "vmovups [{c} + ", $at, " + 128], ", $c2, "\n",
            "vmovups [{c} + ", $at, " + 192], ", $c3, "\n",
        )
    };
}

/// Widens a row of a tile of rows to fp32, from `$from` on, to `$to`.
#[rustfmt::skip]
macro_rules! widen {
    ($from:literal, $to:literal) => {
        concat!(
            "vpmovzxwd zmm24, ymmword ptr [{a} + ", $from, "]\n",
            "vpmovzxwd zmm25, ymmword ptr [{a} + ", $from, " + 32]\n",
            "vpslld zmm24, zmm24, 16\n",
            "vpslld zmm25, zmm25, 16\n",
            "vmovaps [{x} + ", $to, "], zmm24\n",
            "vmovaps [{x} + ", $to, " + 64], zmm25\n",
        )
    };
}

/// Multiplies rows by a tile of a panel of bf16. A line has an even and an odd number of each column.
macro_rules! bf16_panel {
    ($b:literal, $([$c:literal $even:literal $odd:literal, $x:literal])+) => {
        concat!(
            $("vpxord ", $even, ", ", $even, ", ", $even, "\n", "vpxord ", $odd, ", ", $odd, ", ", $odd, "\n",)+
            ".irp line, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n",
            "prefetcht0 [{", $b, "} + 64*\\line + {ahead}]\n",
            "vmovdqu64 zmm24, [{", $b, "} + 64*\\line]\n",
            "vpslld zmm25, zmm24, 16\n",
            "vpandd zmm24, zmm24, {high}\n",
            $(
                "vfmadd231ps ", $even, ", zmm25, dword ptr [{x} + ", $x, " + 8*\\line]{{1to16}}\n",
                "vfmadd231ps ", $odd, ", zmm24, dword ptr [{x} + ", $x, " + 8*\\line + 4]{{1to16}}\n",
            )+
            ".endr\n",
            $("vaddps ", $even, ", ", $even, ", ", $odd, "\n", "vaddps ", $c, ", ", $c, ", ", $even, "\n",)+
        )
    };
}

/// A product of bf16 rows. Each row has registers for the sums of the panels, and for the sums of even and of odd numbers
/// of a tile. Then come the places of its sums, of its numbers in a tile, and of its widened numbers.
macro_rules! bf16_rows {
    ($t:ident, $([$c0:literal $c1:literal $c2:literal $c3:literal, $e:literal $o:literal, $c:literal $a:literal $x:literal])+) => {
        product!(
            $t,
            "1024",
            [$(sums!(load $c0 $c1 $c2 $c3, $c),)+],
            [
                $(widen!($a, $x),)+
                bf16_panel!("b0", $([$c0 $e $o, $x])+),
                bf16_panel!("b1", $([$c1 $e $o, $x])+),
                bf16_panel!("b2", $([$c2 $e $o, $x])+),
                bf16_panel!("b3", $([$c3 $e $o, $x])+),
            ],
            [$(sums!(store $c0 $c1 $c2 $c3, $c),)+],
            high = in(zmm_reg) _mm512_set1_epi32(HIGH as i32),
        )
    };
}

/// # Safety
/// As [`TileUnit::multiply`](super::TileUnit::multiply); AVX-512 must be present.
#[target_feature(enable = "avx512f")]
unsafe fn multiply_bf16(t: &TileProduct) {
    // SAFETY: the product has the rows, the panels, the sums and a tile.
    unsafe {
        begin(t);
        match rows_of(t) {
            1 => bf16_rows!(t, ["zmm0" "zmm1" "zmm2" "zmm3", "zmm16" "zmm17", "0" "0" "0"]),
            2 => bf16_rows!(
                t,
                ["zmm0" "zmm1" "zmm2" "zmm3", "zmm16" "zmm17", "0" "0" "0"]
                ["zmm4" "zmm5" "zmm6" "zmm7", "zmm18" "zmm19", "256" "64" "128"]
            ),
            3 => bf16_rows!(
                t,
                ["zmm0" "zmm1" "zmm2" "zmm3", "zmm16" "zmm17", "0" "0" "0"]
                ["zmm4" "zmm5" "zmm6" "zmm7", "zmm18" "zmm19", "256" "64" "128"]
                ["zmm8" "zmm9" "zmm10" "zmm11", "zmm20" "zmm21", "512" "128" "256"]
            ),
            BF16_ROWS => bf16_rows!(
                t,
                ["zmm0" "zmm1" "zmm2" "zmm3", "zmm16" "zmm17", "0" "0" "0"]
                ["zmm4" "zmm5" "zmm6" "zmm7", "zmm18" "zmm19", "256" "64" "128"]
                ["zmm8" "zmm9" "zmm10" "zmm11", "zmm20" "zmm21", "512" "128" "256"]
                ["zmm12" "zmm13" "zmm14" "zmm15", "zmm22" "zmm23", "768" "192" "384"]
            ),
            rows => unreachable!("invariant: {rows} rows are few"),
        }
    }
}

/// Indices of every second lane of two registers, the even and the odd ones.
static EVEN_ODD: [[u32; 16]; 2] = {
    let mut index = [[0; 16]; 2];
    let mut i = 0;
    while i < 16 {
        index[0][i] = 2 * i as u32;
        index[1][i] = 2 * i as u32 + 1;
        i += 1;
    }
    index
};

/// Adds the products of a tile to the sums of a panel. Two registers hold those of even and odd numbers, side by side.
#[rustfmt::skip]
macro_rules! join {
    ($c:literal, $first:literal $second:literal) => {
        concat!(
            "vmovdqa64 zmm20, {even}\n",
            "vpermi2ps zmm20, ", $first, ", ", $second, "\n",
            "vpermt2ps ", $first, ", {odd}, ", $second, "\n",
            "vaddps ", $first, ", ", $first, ", zmm20\n",
            "vaddps ", $c, ", ", $c, ", ", $first, "\n",
        )
    };
}

/// Multiplies a row in two parts by a tile of a panel of fp16. A line is split as [`parts`](super::amx::parts) does, but
/// stays in fp32. Registers 8 and 9 sum high by high, 10 and 11 low by high, 12 and 13 high by low.
#[rustfmt::skip]
macro_rules! fp16_panel {
    ($b:literal, $c:literal) => {
        concat!(
            ".irp sum, 8, 9, 10, 11, 12, 13\n",
            "vpxord zmm\\sum, zmm\\sum, zmm\\sum\n",
            ".endr\n",
            ".irp line, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n",
            "prefetcht0 [{", $b, "} + 64*\\line + {ahead}]\n",
            "vcvtph2ps zmm20, ymmword ptr [{", $b, "} + 64*\\line]\n",
            "vcvtph2ps zmm21, ymmword ptr [{", $b, "} + 64*\\line + 32]\n",
            "vpaddd zmm22, zmm20, {half}\n",
            "vpaddd zmm23, zmm21, {half}\n",
            "vpandd zmm22, zmm22, {high}\n",
            "vpandd zmm23, zmm23, {high}\n",
            "vsubps zmm20, zmm20, zmm22\n",
            "vsubps zmm21, zmm21, zmm23\n",
            "vbroadcastsd zmm24, qword ptr [{x} + 8*\\line]\n",
            "vbroadcastsd zmm25, qword ptr [{x} + 8*\\line + 128]\n",
            "vfmadd231ps zmm8, zmm22, zmm24\n",
            "vfmadd231ps zmm9, zmm23, zmm24\n",
            "vfmadd231ps zmm10, zmm22, zmm25\n",
            "vfmadd231ps zmm11, zmm23, zmm25\n",
            "vfmadd231ps zmm12, zmm20, zmm24\n",
            "vfmadd231ps zmm13, zmm21, zmm24\n",
            ".endr\n",
            join!($c, "zmm8" "zmm9"),
            join!($c, "zmm10" "zmm11"),
            join!($c, "zmm12" "zmm13"),
        )
    };
}

/// # Safety
/// As [`TileUnit::multiply_stored`](super::TileUnit::multiply_stored); AVX-512 must be present.
#[target_feature(enable = "avx512f")]
unsafe fn multiply_fp16(t: &TileProduct) {
    assert_eq!(rows_of(t), FP16_ROWS, "invariant: one row is few");
    // SAFETY: the product has the row, the panels, the sums and a tile.
    unsafe {
        begin(t);
        product!(
            t,
            "2048",
            [sums!(load "zmm0" "zmm1" "zmm2" "zmm3", "0"),],
            [
                widen!("0", "0"),
                widen!("1024", "128"),
                fp16_panel!("b0", "zmm0"),
                fp16_panel!("b1", "zmm1"),
                fp16_panel!("b2", "zmm2"),
                fp16_panel!("b3", "zmm3"),
            ],
            [sums!(store "zmm0" "zmm1" "zmm2" "zmm3", "0"),],
            half = in(zmm_reg) _mm512_set1_epi32(HALF as i32),
            high = in(zmm_reg) _mm512_set1_epi32(HIGH as i32),
            even = in(zmm_reg) _mm512_loadu_si512(EVEN_ODD[0].as_ptr().cast()),
            odd = in(zmm_reg) _mm512_loadu_si512(EVEN_ODD[1].as_ptr().cast()),
        );
    }
}
