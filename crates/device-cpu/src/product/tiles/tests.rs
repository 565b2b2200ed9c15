use proptest::prelude::*;

use glmbench_device::HostTensor;

use super::*;
use crate::elementwise::SwiGlu;
use crate::pack::{Rows, RowsMut, TILE_DEPTH};
use crate::packs::Packs;
use crate::pool::Pool;
use crate::product::{Epilogue, Scratch, WeightKernels};
use crate::simd::{Family, InstructionSet, Vectors};

/// Returns the tile layers of a set; `None` if this machine does not have it.
fn layers(set: InstructionSet, dtype: DType) -> Option<TileLayers> {
    let tiles = match set {
        InstructionSet::Amx => TileKernels::amx(dtype)?,
        InstructionSet::Avx512Bf16 => TileKernels::pairs(dtype)?,
        InstructionSet::Avx512Bf16Portable => TileKernels::reference_pairs(dtype)?,
        _ => TileKernels::reference(dtype)?,
    };
    Some(TileLayers { tiles, vectors: Vectors::detect(set, dtype)?, name: set.name() })
}

/// Generates numbers of the type, of many magnitudes, from a seed.
fn numbers(seed: u64, n: usize, dtype: DType) -> Vec<f32> {
    let mut state = seed | 1;
    let number = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let unit = (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
        dtype.round(unit * [1.0, 1e-2, 1e-4, 3e-7][(state >> 33) as usize % 4])
    };
    std::iter::repeat_with(number).take(n).collect()
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Computes `x [rows, k] * weight [n, k]^T + bias` with the kernels of `set`.
fn product(set: InstructionSet, dtype: DType, x: &[f32], weight: &[f32], bias: &[f32], k: usize) -> Vec<f32> {
    ended(Epilogue::Bias, weight.len() / k, set, dtype, x, (weight, bias, k))
}

/// Computes the same with an epilogue that leaves `columns` columns.
fn ended(
    epilogue: Epilogue,
    columns: usize,
    set: InstructionSet,
    dtype: DType,
    x: &[f32],
    weights: (&[f32], &[f32], usize),
) -> Vec<f32> {
    multiplied(&layers(set, dtype).unwrap(), epilogue, columns, x, weights)
}

/// Computes the same with the given kernels.
fn multiplied(
    kernels: &TileLayers,
    epilogue: Epilogue,
    columns: usize,
    x: &[f32],
    (weight, bias, k): (&[f32], &[f32], usize),
) -> Vec<f32> {
    let (rows, n) = (x.len() / k, weight.len() / k);
    let mut pool = Pool::new(2);
    let (weight, bias) = (little_endian(weight), little_endian(bias));
    let tensor = |data, rows, width| HostTensor { dtype: DType::Fp32, rows, width, data };
    let packed = kernels
        .pack(tensor(&weight, n, k).into(), Some(tensor(&bias, 1, n)), (&mut Packs::Fresh, &mut pool))
        .unwrap();
    let (stride, out_stride) = (k.next_multiple_of(16), columns.next_multiple_of(16));
    // The gaps between rows must not affect the result.
    let mut padded = vec![f32::NAN; rows * stride + 16];
    for (to, from) in padded.chunks_mut(stride).zip(x.chunks_exact(k)) {
        to[..k].copy_from_slice(from);
    }
    let mut out = vec![f32::NAN; rows * out_stride];
    let x = Rows { data: &padded, rows, stride };
    let mut to = RowsMut { data: &mut out, stride: out_stride };
    let mut scratch = Scratch::new(pool.threads()).unwrap();
    scratch.reserve(kernels.row_bytes(k, k).unwrap()).unwrap();
    packed.multiply(x, epilogue, &mut to, &mut scratch, &mut pool);
    out.chunks_exact(out_stride).flat_map(|row| row[..columns].to_vec()).collect()
}

/// Generates a set in plain Rust, with a type that it multiplies in tiles.
fn of_tiles() -> impl Strategy<Value = (InstructionSet, DType)> {
    prop::sample::select(vec![
        (InstructionSet::AmxPortable, DType::Fp16),
        (InstructionSet::AmxPortable, DType::Bf16),
        (InstructionSet::Avx512Bf16Portable, DType::Bf16),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Every number is the rounded exact sum, within the rounding error of the sum. A row computed alone gives the same.
    #[test]
    fn products_are_right_and_rows_do_not_matter_to_each_other(
        rows in 1usize..70, n in 1usize..90, k in 1usize..600, (set, dtype) in of_tiles(), seed: u64,
    ) {
        let fp16 = dtype == DType::Fp16;
        let (x, weight) = (numbers(seed, rows * k, dtype), numbers(seed ^ 7, n * k, dtype));
        let bias = numbers(seed ^ 9, n, dtype);
        let of = |x: &[f32]| product(set, dtype, x, &weight, &bias, k);
        let all = of(&x);
        for (row, got) in all.chunks_exact(n).enumerate() {
            let x = &x[row * k..][..k];
            for (column, got) in got.iter().enumerate() {
                let terms = x.iter().zip(&weight[column * k..][..k]).map(|(a, b)| f64::from(*a) * f64::from(*b));
                let sizes: f64 = terms.clone().map(f64::abs).sum();
                let exact = terms.sum::<f64>() + f64::from(bias[column]);
                // Each of these rounds once: sums of 32 numbers in a tile, at most three sums per tile, and the bias. In a
                // sum of pairs, every product does. The type fp16 leaves out low by low.
                let roundings = match set.family() {
                    Family::Pairs => k + 2,
                    _ => TILE_DEPTH + 3 * k.div_ceil(TILE_DEPTH) + 2,
                } as f64;
                let left_out = if fp16 { 2f64.powi(-16) } else { 0.0 };
                let of_sums = (roundings * f64::from(f32::EPSILON) + left_out) * (sizes + exact.abs()) + 1e-30;
                let spacing = if fp16 { 2f64.powi(-11) } else { 2f64.powi(-8) };
                let of_result = exact.abs() * spacing + 2f64.powi(-25);
                prop_assert!((f64::from(*got) - exact).abs() <= of_sums + of_result, "{got} for {exact}");
            }
        }
        for row in [0, rows / 2, rows - 1] {
            let alone = of(&x[row * k..][..k]);
            let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&alone), bits(&all[row * n..][..n]));
        }
    }

    /// The halves joined in the epilogue equal the halves that are stored without it.
    #[test]
    fn swiglu_may_be_the_end_of_a_product(
        rows in 1usize..70, panels in 1usize..5, k in 1usize..600, (set, dtype) in of_tiles(), seed: u64,
    ) {
        let half = 16 * panels;
        let (x, weight) = (numbers(seed, rows * k, dtype), numbers(seed ^ 7, 2 * half * k, dtype));
        let bias = numbers(seed ^ 9, 2 * half, dtype);
        let joined = ended(Epilogue::SwiGlu, half, set, dtype, &x, (&weight, &bias, k));
        let halves = product(set, dtype, &x, &weight, &bias, k);
        let vectors = Vectors::detect(set, dtype).unwrap();
        let mut expected = vec![0.0; half];
        for (halves, joined) in halves.chunks_exact(2 * half).zip(joined.chunks_exact(half)) {
            let (gate, up) = halves.split_at(half);
            vectors.run(SwiGlu { gate, up, out: &mut expected, streamed: false });
            prop_assert_eq!(&expected, joined);
        }
    }

    /// The instructions, if present, and their reference give the same bits.
    #[test]
    fn instructions_and_their_reference_agree(
        rows in 1usize..70, n in 1usize..90, k in 1usize..600, (reference, dtype) in of_tiles(), seed: u64,
    ) {
        let set = reference.family().best();
        if set == reference {
            return Ok(());
        }
        let (x, weight) = (numbers(seed, rows * k, dtype), numbers(seed ^ 7, n * k, dtype));
        let bias = numbers(seed ^ 9, n, dtype);
        let of = |set| product(set, dtype, &x, &weight, &bias, k);
        let (found, expected) = (of(set), of(reference));
        prop_assert!(found.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()), "{}", set.name());
    }
}

/// A layer of one panel that has `stored` bytes of it.
struct Short {
    unit: TileUnit,
    stored: Vec<u8>,
}

impl Layer for Short {
    type Sum = f32;

    fn unit(&self) -> TileUnit {
        self.unit
    }

    fn unpack(&self) -> Option<Unpack> {
        None
    }

    fn stored(&self, _panel: usize, _tiles: &std::ops::Range<usize>) -> &[u8] {
        &self.stored
    }

    fn finish(&self, _: &mut [f32], _: usize, _: std::ops::Range<usize>, _: usize) {}
}

/// A layer with less than its panels, rows without space, and a layout for other parts panic.
#[test]
fn operands_that_are_too_short_panic() {
    const TILES: usize = 3;
    let unit = TileKernels::reference(DType::Bf16).unwrap().unit;
    let run = |rows: usize, stored: usize, row_bytes: usize, parts: usize| {
        let layer = Short { unit, stored: vec![0; stored] };
        let layout = match parts {
            1 => Layout::new(rows, TILES, &unit),
            _ => Layout::new(rows, TILES, &TileKernels::reference(DType::Fp16).unwrap().unit),
        };
        let (mut pool, mut scratch) = (Pool::new(1), Scratch::new(1).unwrap());
        scratch.reserve(row_bytes).unwrap();
        MacroKernel { layer: &layer, halves: 1, outputs: 1, layout, scratch: &scratch, threads: 1 }
            .run(1, &mut pool);
    };
    let (stored, row_bytes) = (TILES * TILE_BYTES, BLOCK_BYTES / TILE_ROWS);
    for rows in [1, 512] {
        run(rows, stored, row_bytes, 1);
        for (stored, row_bytes, parts) in [(stored - 1, row_bytes, 1), (stored, 1, 1), (stored, row_bytes, 2)]
        {
            let found = std::panic::catch_unwind(|| run(rows, stored, row_bytes, parts));
            assert!(found.is_err(), "{rows} {stored} {row_bytes} {parts}");
        }
    }
}

/// A shape has the rows of its tiles, and a configuration serves the shapes with as many.
#[test]
fn a_configuration_serves_the_shapes_with_its_rows() {
    let unit = TileKernels::reference(DType::Bf16).unwrap().unit;
    let wide = unit.configure(Shape::Wide);
    assert!(wide.serves(Shape::Wide) && wide.serves(Shape::Narrow { rows: TILE_ROWS }));
    assert!(!wide.serves(Shape::Narrow { rows: 3 }));
    for rows in [0, TILE_ROWS + 1] {
        assert!(std::panic::catch_unwind(|| unit.configure(Shape::Narrow { rows })).is_err(), "{rows}");
    }
}

/// More rows than a block, groups of several steps, several blocks of depth: with the reference, and with the registers
/// if present.
#[test]
fn rows_beyond_a_block_are_rows_like_any_other() {
    let (rows, n, k) = (530, 700, 333);
    for (family, dtype) in [(Family::Tiles, DType::Fp16), (Family::Pairs, DType::Bf16)] {
        let x = numbers(5, rows * k, dtype);
        let (weight, bias) = (numbers(6, n * k, dtype), vec![0.0; n]);
        let of = |set, x: &[f32]| product(set, dtype, x, &weight, &bias, k);
        let all = of(family.reference(), &x);
        for set in family.sets() {
            assert!(of(set, &x) == all, "{}", set.name());
            assert_eq!(of(set, &x[500 * k..]), all[500 * n..], "{}", set.name());
            assert_eq!(of(set, &x[529 * k..]), all[529 * n..], "{}", set.name());
        }
    }
}

/// Whatever a product of so many rows keeps in which cache, its rows are those of a product of a few: several blocks of
/// depth, and the depth at once.
#[test]
fn the_number_of_rows_does_not_matter() {
    let (n, k, most) = (75, 683, 129);
    for (family, dtype) in
        [(Family::Tiles, DType::Fp16), (Family::Tiles, DType::Bf16), (Family::Pairs, DType::Bf16)]
    {
        let x = numbers(11, most * k, dtype);
        let (weight, bias) = (numbers(12, n * k, dtype), numbers(13, n, dtype));
        let of = |set, x: &[f32]| product(set, dtype, x, &weight, &bias, k);
        let all: Vec<f32> = x.chunks(3 * k).flat_map(|x| of(family.reference(), x)).collect();
        for set in family.sets() {
            for rows in [15, 16, 17, 32, 33, 48, 64, 65, 96, 97, 128, most] {
                assert!(of(set, &x[..rows * k]) == all[..rows * n], "{} {dtype} {rows}", set.name());
            }
        }
    }
}

/// `VDPBF16PS` on one pair, as its manual defines it: the odd product first, each rounded once, subnormal numbers zero.
#[test]
fn pairs_are_summed_as_the_manual_says() {
    let tiny = f32::from_bits(1 << 16);
    let cases = [
        // In the other order, the sum would be 0.
        ([1.0, 1.0], [16777216.0, -16777216.0], 1.0, 1.0),
        // The odd product meets the sum first: 1 + 2^24 rounds to 2^24.
        ([1.0, 1.0], [-16777216.0, 16777216.0], 1.0, 0.0),
        ([1.0, 1.0], [16777216.0, 1.0], 1.0, 16777218.0),
        ([tiny, 2.0], [3e38, 4.0], 0.5, 8.5),
        // Rounded to 24 bits, the sum is below the smallest normal number, so it is subnormal.
        ([-1.5 * 2f32.powi(-75), 0.0], [2f32.powi(-76), 0.0], f32::MIN_POSITIVE, 0.0),
        ([-(2f32.powi(-75)), 0.0], [2f32.powi(-76), 0.0], f32::MIN_POSITIVE, f32::MIN_POSITIVE),
    ];
    for (a, b, start, expected) in cases {
        let bits = |x: f32| (x.to_bits() >> 16) as u16;
        let (mut rows, mut panel) = (vec![0u16; 512], vec![0u16; 512]);
        for i in 0..2 {
            (rows[i], panel[i]) = (bits(a[i]), bits(b[i]));
        }
        for set in Family::Pairs.sets() {
            let unit = layers(set, DType::Bf16).unwrap().tiles.unit;
            let mut c = vec![start; TILE_ROWS * NARROW * 16];
            let (a, b) = (rows.as_ptr().cast(), [panel.as_ptr().cast(); NARROW]);
            let shape = Shape::Narrow { rows: 1 };
            let product = TileProduct {
                shape,
                a: [a; WIDE],
                b,
                ahead_lines: 0,
                tiles: 1,
                fresh: false,
                c: c.as_mut_ptr(),
            };
            let configured = unit.configure(shape);
            // SAFETY: a tile of rows, of panels, and sums for the shape.
            unsafe { unit.multiply(&configured, &product) };
            unit.release(configured);
            assert_eq!(c[0], expected, "{a:?} {b:?} {}", set.name());
        }
    }
}

/// Returns the reference kernels with the vectors that multiply few rows on AMX; `None` if this machine does not have
/// them.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn by_vectors(dtype: DType) -> Option<TileKernels> {
    let kernels = TileKernels::reference(dtype).unwrap();
    let few_rows = Some(FewRows::numbers(Avx512::detect()?, kernels.parts));
    Some(TileKernels { unit: TileUnit { few_rows, ..kernels.unit }, ..kernels })
}

/// Vectors multiply up to so many rows, and no more.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn few_rows_are_so_many() {
    fn check<C>(unit: &TileUnit<C>, most: usize, takes_stored: bool) {
        for rows in 1..=TILE_ROWS {
            let shape = Shape::Narrow { rows };
            assert_eq!(unit.few_rows(shape).is_some(), rows <= most, "{rows}");
            assert_eq!(unit.takes_stored(shape), takes_stored && rows <= most, "{rows}");
        }
        assert!(unit.few_rows(Shape::Wide).is_none() && !unit.takes_stored(Shape::Wide));
    }
    for (dtype, most) in [(DType::Bf16, 4), (DType::Fp16, 1)] {
        let Some(kernels) = by_vectors(dtype) else { return };
        check(&kernels.unit, most, dtype == DType::Fp16);
    }
    let Some(unit) = few_rows_int8() else { return };
    check(&unit, 8, false);
}

/// In a whole layer, few rows by vectors and the others have the bits of the reference.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn layers_that_multiply_few_rows_by_vectors_have_the_bits_of_the_reference() {
    let (n, k) = (75, 683);
    for dtype in [DType::Bf16, DType::Fp16] {
        let Some(tiles) = by_vectors(dtype) else { return };
        let reference = layers(InstructionSet::AmxPortable, dtype).unwrap();
        let kernels = TileLayers { tiles, ..reference };
        let x = numbers(21, 33 * k, dtype);
        let (weight, bias) = (numbers(22, n * k, dtype), numbers(23, n, dtype));
        let of = |kernels, x| multiplied(kernels, Epilogue::Bias, n, x, (&weight, &bias, k));
        let all = of(&reference, &x);
        for rows in (1..=17).chain([33]) {
            assert!(of(&kernels, &x[..rows * k]) == all[..rows * n], "{dtype} {rows}");
        }
    }
}

/// A sum just below the smallest normal number is zero, and one that rounds to it stays: for even and odd `k`, by the
/// reference, the vectors and the registers, if present.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn sums_are_rounded_before_they_are_flushed() {
    let bits = |x: f32| (x.to_bits() >> 16) as u16;
    let power = |exponent: i32| 2f32.powi(exponent);
    let vectors = by_vectors(DType::Bf16);
    let amx = TileKernels::amx(DType::Bf16);
    let tiles = amx.map(|kernels| TileUnit { few_rows: None, ..kernels.unit });
    let reference = TileKernels::reference(DType::Bf16).unwrap().unit;
    for unit in [Some(reference), vectors.map(|kernels| kernels.unit), tiles].into_iter().flatten() {
        for (factor, expected) in [(-1.5, 0.0), (-1.0, f32::MIN_POSITIVE)] {
            for odd in [0, 1] {
                let (mut row, mut panel) = (vec![0u16; TILE_BYTES / 2], vec![0u16; TILE_BYTES / 2]);
                // Pairs of the row are side by side; those of a panel are a line apart.
                (row[odd], panel[odd]) = (bits(power(-63)), bits(power(-63)));
                (row[2 + odd], panel[32 + odd]) = (bits(factor * power(-75)), bits(power(-76)));
                let b = std::array::from_fn(|_| bytemuck::cast_slice(&panel).to_vec());
                let before = vec![0.0; TILE_ROWS * NARROW * 16];
                let found = sums(&unit, 1, (bytemuck::cast_slice(&row), &b), (&before, true), false);
                assert_eq!(found[0].to_bits(), expected.to_bits(), "{factor} {odd}");
            }
        }
    }
}

/// Returns the sums of a narrow product, which begin at `before`. `stored` says whether panels are as stored.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn sums<C: Clone>(
    unit: &TileUnit<C>,
    rows: usize,
    (a, b): (&[u8], &[Vec<u8>; NARROW]),
    (before, fresh): (&[C], bool),
    stored: bool,
) -> Vec<C> {
    let shape = Shape::Narrow { rows };
    let mut c = before.to_vec();
    let product = TileProduct {
        shape,
        a: [a.as_ptr(); WIDE],
        b: b.each_ref().map(|panel| panel.as_ptr()),
        ahead_lines: 0,
        tiles: a.len() / unit.row_bytes(),
        fresh,
        c: c.as_mut_ptr(),
    };
    let configured = unit.configure(shape);
    let mut workspace = vec![0; NARROW * unit.panel_bytes()];
    // SAFETY: rows, panels and sums hold the shape.
    unsafe {
        if stored {
            unit.multiply_stored(&configured, &product, &mut workspace);
        } else {
            unit.multiply(&configured, &product);
        }
    }
    unit.release(configured);
    c
}

/// Generates bytes from a seed.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn bytes(seed: u64, n: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let byte = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(byte).take(n).collect()
}

/// Generates bf16 numbers of sixteen exponents, from `first` on. Those of exponent 0 are subnormal.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn of_exponents(seed: u64, n: usize, first: u16) -> Vec<f32> {
    let bytes = bytes(seed, 2 * n);
    let number = |bits: u16| {
        let bits = bits & 0x807f | (first + (bits >> 7 & 0xf)) << 7;
        f32::from_bits(u32::from(bits) << 16)
    };
    bytes.as_chunks().0.iter().map(|bits| number(u16::from_le_bytes(*bits))).collect()
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Few rows by vectors have the bits of the tiles, and other rows keep theirs: by the reference, and by the registers
    /// if present. Numbers of bf16 have all exponents, so that products and sums are subnormal, or overflow. Some
    /// numbers of fp16 are infinite or NaN.
    #[test]
    fn few_rows_by_vectors_have_the_bits_of_tiles(
        rows in 1usize..=4, tiles in 1usize..8, fresh: bool,
        exponents in (0u16..=240, 0u16..=240, 0u16..=240), near: bool, special: bool, seed: u64,
    ) {
        // Products near the smallest normal number: the exponents of their factors add up to that.
        let (of_rows, of_panels, of_sums) = exponents;
        let (of_panels, of_sums) = if near { (120 - of_rows / 2, 0) } else { (of_panels, of_sums) };
        let of_rows = if near { of_rows / 2 } else { of_rows };
        for dtype in [DType::Bf16, DType::Fp16] {
            let Some(kernels) = by_vectors(dtype) else { return Ok(()) };
            let unit = &kernels.unit;
            let rows = rows.min(unit.few_rows.unwrap().most);
            let stored = unit.takes_stored(Shape::Narrow { rows });
            let fresh = fresh || stored;
            let of_type = |seed, n, exponent| {
                if dtype == DType::Bf16 {
                    return of_exponents(seed, n, exponent);
                }
                let mut numbers = numbers(seed, n, dtype);
                if special {
                    numbers[seed as usize % n] = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN][seed as usize % 3];
                }
                numbers
            };
            let as_stored: [Vec<u8>; NARROW] = std::array::from_fn(|panel| {
                let bits = |x: f32| match dtype {
                    DType::Fp16 => half::f16::from_f32(x).to_bits(),
                    _ => (x.to_bits() >> 16) as u16,
                };
                let numbers = of_type(seed ^ (panel as u64 + 1), tiles * TILE_BYTES / 2, of_panels);
                numbers.into_iter().flat_map(|x| bits(x).to_le_bytes()).collect()
            });
            let panels = as_stored.clone().map(|panel| match kernels.unpack() {
                Some(unpack) => {
                    let mut parts = vec![0; panel.len() * kernels.parts];
                    unpack.run(&panel, &mut parts);
                    parts
                }
                None => panel,
            });
            let mut a = vec![0; tiles * unit.row_bytes()];
            for row in 0..TILE_ROWS {
                let x = of_type(seed ^ (row as u64 + 100), tiles * TILE_DEPTH, of_rows);
                kernels.pack_row(&x, &mut a, row);
            }
            let before = of_type(!seed, TILE_ROWS * NARROW * 16, of_sums);
            let of = |unit: &TileUnit, panels, stored| {
                let sums = sums(unit, rows, (&a, panels), (&before, fresh), stored);
                sums.into_iter().map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() }).collect::<Vec<_>>()
            };
            let found = of(unit, &as_stored, stored);
            let tiles = [TileKernels::reference(dtype), TileKernels::amx(dtype)].into_iter().flatten();
            for tiles in tiles.map(|kernels| TileUnit { few_rows: None, ..kernels.unit }) {
                prop_assert_eq!(&found, &of(&tiles, &panels, false));
            }
        }
    }

    /// The same for integers, of all values and with sums that wrap.
    #[test]
    fn few_rows_of_integers_by_vectors_have_the_bits_of_tiles(
        rows in 1usize..=8, tiles in 1usize..8, fresh: bool, seed: u64,
    ) {
        let Some(unit) = few_rows_int8() else { return Ok(()) };
        let a = bytes(seed, tiles * TILE_BYTES);
        let b = std::array::from_fn(|panel| bytes(seed ^ (panel as u64 + 1), tiles * TILE_BYTES));
        let before = bytes(!seed, TILE_ROWS * NARROW * 16 * 4);
        let before: Vec<i32> = before.as_chunks().0.iter().map(|sum| i32::from_le_bytes(*sum)).collect();
        let of = |unit: &TileUnit<i32>| sums(unit, rows, (&a, &b), (&before, fresh), false);
        let found = of(&unit);
        for unit in [Some(reference_int8()), amx_int8()].into_iter().flatten() {
            prop_assert_eq!(&found, &of(&TileUnit { few_rows: None, ..unit }));
        }
    }
}
