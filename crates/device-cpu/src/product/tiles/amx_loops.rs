//! The depth loops that all tile products share: sixteen rows by four panels, or thirty-two rows by two panels.
//!
//! A product `t` has `shape`, `tiles` (its depth), rows `a` and panels `b` in tile order, and sums `c`. It has `fresh`
//! if the sums begin at zero. One block of assembly holds a whole loop, including loads and stores of the sums. The
//! compiler therefore never has to track a tile register.

/// Prefetches the sixteen lines of a tile that is `ahead` bytes after a panel's current tile.
macro_rules! tile_ahead {
    ($panel:literal) => {
        tile_ahead!($panel, 0 64 128 192 256 320 384 448 512 576 640 704 768 832 896 960)
    };
    ($panel:literal, $($line:literal)+) => {
        concat!($("prefetcht1 [{", $panel, "} + {ahead} + ", $line, "]\n"),+)
    };
}

/// A loop over depth, with initialisation of the sums before it and stores after it.
macro_rules! tile_loop {
    ($t:expr, $c_bytes:literal, $second_row:literal, $($step:expr),+ $(,)?) => {
        ::std::arch::asm!(
            "lea {ahead}, [{c} + 4096]",
            "test {fresh:e}, {fresh:e}",
            "jz 3f",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "jmp 2f",
            "3:",
            "tileloadd tmm0, [{c} + {cs}*1]",
            "tileloadd tmm1, [{c} + {cs}*1 + 64]",
            concat!("tileloadd tmm2, [{c} + {cs}*1 + ", $second_row, "]"),
            concat!("tileloadd tmm3, [{c} + {cs}*1 + ", $second_row, " + 64]"),
            "2:",
            $($step,)+
            "dec {n}",
            "jnz 2b",
            "tilestored [{c} + {cs}*1], tmm0",
            "tilestored [{c} + {cs}*1 + 64], tmm1",
            concat!("tilestored [{c} + {cs}*1 + ", $second_row, "], tmm2"),
            concat!("tilestored [{c} + {cs}*1 + ", $second_row, " + 64], tmm3"),
            "/* {lines} */",
            fresh = in(reg) u32::from($t.fresh),
            ahead = out(reg) _,
            lines = in(reg) $t.ahead_lines,
            c = in(reg) $t.c,
            cs = in(reg) $c_bytes,
            s = in(reg) 64usize,
            n = inout(reg) $t.tiles => _,
            a0 = inout(reg) $t.a[0] => _,
            a1 = inout(reg) $t.a[1] => _,
            b0 = inout(reg) $t.b[0] => _,
            b1 = inout(reg) $t.b[1] => _,
            b2 = inout(reg) $t.b[2] => _,
            b3 = inout(reg) $t.b[3] => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}
pub(super) use {tile_ahead, tile_loop};

/// Prefetches four lines of the sums of the next product, from the first one on.
macro_rules! next_sums {
    ($first:literal) => {
        concat!(
            "prefetcht0 [{ahead} + ",
            $first,
            "]\n",
            "prefetcht0 [{ahead} + ",
            $first,
            " + 64]\n",
            "prefetcht0 [{ahead} + ",
            $first,
            " + 128]\n",
            "prefetcht0 [{ahead} + ",
            $first,
            " + 192]\n",
        )
    };
}
pub(super) use next_sums;

/// The step of a wide [`tile_loop`]: thirty-two rows in two bf16 parts, 1 KiB apart, times one tile of each of two
/// panels.
macro_rules! wide_row_parts {
    () => {
        concat!(
            "tileloadd tmm6, [{b0} + {s}*1]\n",
            "tileloadd tmm4, [{a0} + {s}*1]\n",
            "tdpbf16ps tmm0, tmm4, tmm6\n",
            "tileloadd tmm7, [{b1} + {s}*1]\n",
            "tdpbf16ps tmm1, tmm4, tmm7\n",
            "tileloadd tmm5, [{a1} + {s}*1]\n",
            next_sums!("0"),
            "tdpbf16ps tmm2, tmm5, tmm6\n",
            next_sums!("256"),
            "tdpbf16ps tmm3, tmm5, tmm7\n",
            "tileloadd tmm4, [{a0} + {s}*1 + 1024]\n",
            next_sums!("512"),
            "tdpbf16ps tmm0, tmm4, tmm6\n",
            next_sums!("768"),
            "tdpbf16ps tmm1, tmm4, tmm7\n",
            "add {ahead}, 1024\n",
            "tileloadd tmm5, [{a1} + {s}*1 + 1024]\n",
            "tdpbf16ps tmm2, tmm5, tmm6\n",
            "tdpbf16ps tmm3, tmm5, tmm7\n",
        )
    };
}
pub(super) use wide_row_parts;

/// A whole product that takes one instruction per tile of depth.
macro_rules! tile_product {
    ($t:expr, $product:literal) => {
        match $t.shape {
            // Weights come from memory, so every panel's next tile is prefetched. After the last tile there is none.
            Shape::Narrow { .. } => tile_loop!(
                $t,
                256usize,
                "128",
                "xor {ahead:e}, {ahead:e}",
                "cmp {n}, 1",
                "setne {ahead:l}",
                "shl {ahead:e}, 10",
                "tileloadd tmm4, [{a0} + {s}*1]",
                tile_ahead!("b0"),
                "tileloadd tmm6, [{b0} + {s}*1]",
                concat!($product, " tmm0, tmm4, tmm6"),
                tile_ahead!("b1"),
                "tileloadd tmm7, [{b1} + {s}*1]",
                concat!($product, " tmm1, tmm4, tmm7"),
                tile_ahead!("b2"),
                "tileloadd tmm6, [{b2} + {s}*1]",
                concat!($product, " tmm2, tmm4, tmm6"),
                tile_ahead!("b3"),
                "tileloadd tmm7, [{b3} + {s}*1]",
                concat!($product, " tmm3, tmm4, tmm7"),
                "add {a0}, 1024",
                "add {b0}, 1024",
                "add {b1}, 1024",
                "add {b2}, 1024",
                "add {b3}, 1024",
                "/* {a1} */",
            ),
            // Over the whole depth: the panels of the next step are prefetched from memory meanwhile.
            Shape::Wide if $t.ahead_lines > 0 => tile_loop!(
                $t,
                128usize,
                "2048",
                "tileloadd tmm6, [{b0} + {s}*1]",
                "tileloadd tmm4, [{a0} + {s}*1]",
                concat!($product, " tmm0, tmm4, tmm6"),
                "tileloadd tmm7, [{b1} + {s}*1]",
                concat!($product, " tmm1, tmm4, tmm7"),
                "tileloadd tmm5, [{a1} + {s}*1]",
                concat!($product, " tmm2, tmm5, tmm6"),
                concat!($product, " tmm3, tmm5, tmm7"),
                "mov {ahead}, {lines}",
                "4:",
                "prefetcht1 [{b2}]",
                "prefetcht1 [{b3}]",
                "add {b2}, 64",
                "add {b3}, 64",
                "dec {ahead}",
                "jnz 4b",
                "add {a0}, 1024",
                "add {a1}, 1024",
                "add {b0}, 1024",
                "add {b1}, 1024",
            ),
            // `tileloaddt1` loads the rows past L1, so the panels stay there. The sums of the next product follow these in
            // memory, and are prefetched from L2.
            Shape::Wide => tile_loop!(
                $t,
                128usize,
                "2048",
                "tileloadd tmm6, [{b0} + {s}*1]",
                "tileloaddt1 tmm4, [{a0} + {s}*1]",
                next_sums!("0"),
                concat!($product, " tmm0, tmm4, tmm6"),
                "tileloadd tmm7, [{b1} + {s}*1]",
                next_sums!("256"),
                concat!($product, " tmm1, tmm4, tmm7"),
                "tileloaddt1 tmm5, [{a1} + {s}*1]",
                concat!($product, " tmm2, tmm5, tmm6"),
                concat!($product, " tmm3, tmm5, tmm7"),
                "add {ahead}, 512",
                "add {a0}, 1024",
                "add {a1}, 1024",
                "add {b0}, 1024",
                "add {b1}, 1024",
                "/* {b2} {b3} */",
            ),
        }
    };
}
pub(super) use tile_product;
