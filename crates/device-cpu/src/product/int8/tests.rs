//! Tests that every kernel family equals plain arithmetic, to the bit, including hostile numbers.

use proptest::prelude::*;

use glmbench_device::reference::Linear;
use glmbench_device::{
    DType, HostTensor, Inputs, Int8StaticWeight, Int8Weight, LinearWeight, StaticChannels, StaticInput,
};

use super::super::weight_only::tests::{apply as apply_value, bytes};
use super::gemm::Product;
use super::{Int8Gemm, Int8Kernels, Multiply, StaticKernels};
use crate::buffer::{SharedSlice, Strided};
use crate::elementwise::SwiGlu;
use crate::pack::quantise::{Quantise, QuantiseTiles, TileRow};
use crate::pack::{PANEL, QUAD, Rows, RowsMut, TILE_BYTES, TILE_K, TILE_ROWS};
use crate::packs::Packs;
use crate::pool::Pool;
use crate::product::tiles::{Shape, TileProduct, amx_int8, few_rows_int8, reference_int8};
use crate::product::{Epilogue, Scratch, WeightKernels};
use crate::simd::{InstructionSet, Vectors};

/// Returns all kernels of this machine: those of each set of vectors, and the tiles.
fn kernels() -> impl Iterator<Item = Int8Kernels> {
    let vectors = |set| {
        let vectors = Vectors::detect(set, DType::Fp16).into_iter();
        vectors.flat_map(move |vectors| {
            Int8Gemm::all_of(set).map(move |gemm| Int8Kernels::without_tiles(vectors, gemm))
        })
    };
    let best = vectors(InstructionSet::best_vector()).next().unwrap();
    let tiles = [
        (Some(reference_int8()), "reference"),
        (few_rows_int8(), "reference, few rows by vectors"),
        (amx_int8(), "amx"),
    ];
    let tiles = tiles
        .into_iter()
        .filter_map(move |(unit, name)| Some(Int8Kernels { multiply: Multiply::Tiles(unit?), name, ..best }));
    let sets = InstructionSet::ALL.into_iter().filter(|set| set.vector() == *set);
    sets.flat_map(vectors).chain(tiles)
}

/// Computes the integers and scale of a run in plain arithmetic.
fn plain(x: &[f32]) -> (Vec<i32>, f32) {
    if x.iter().any(|v| !v.is_finite()) {
        return (vec![0; x.len()], f32::NAN);
    }
    let scale = x.iter().fold(0.0, |max: f32, v| max.max(v.abs())) / 127.0;
    let q =
        |v: &f32| if scale == 0.0 { 0 } else { (v / scale).round_ties_even().clamp(-127.0, 127.0) as i32 };
    (x.iter().map(q).collect(), scale)
}

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

/// Computes a linear layer by the formula.
fn expected(x: &[f32], w: &[f32], bias: Option<&[f32]>, k: usize, dtype: DType) -> Vec<f32> {
    let weights: Vec<_> = w.chunks_exact(k).map(plain).collect();
    let of_row = |x: &[f32]| {
        let (q, x_scale) = plain(x);
        let of_channel = |(n, (w, w_scale)): (usize, &(Vec<i32>, f32))| {
            let sum: i64 = q.iter().zip(w).map(|(a, b)| i64::from(a * b)).sum();
            let y = i32::try_from(sum).unwrap() as f32 * x_scale * w_scale;
            dtype.round(bias.map_or(y, |bias| y + dtype.round(bias[n])))
        };
        weights.iter().enumerate().map(of_channel).collect::<Vec<_>>()
    };
    x.chunks_exact(k).flat_map(of_row).collect()
}

fn apply(
    int8: Int8Kernels,
    threads: usize,
    xwb: (&[f32], &[f32], Option<&[f32]>),
    shape: (usize, usize, usize),
) -> Vec<f32> {
    apply_with(Epilogue::Bias, int8, threads, xwb, shape)
}

fn apply_with(
    epilogue: Epilogue,
    int8: Int8Kernels,
    threads: usize,
    (x, w, bias): (&[f32], &[f32], Option<&[f32]>),
    (rows, n, k): (usize, usize, usize),
) -> Vec<f32> {
    let (w, bias) = (bytes(w), bias.map(bytes));
    let host = |data, rows, width| HostTensor { dtype: DType::Fp32, rows, width, data };
    let mut pool = Pool::new(threads);
    let bias = bias.as_deref().map(|b| host(b, 1, n));
    let weight = Int8Weight::quantised(host(&w, n, k), Inputs::Int8PerToken);
    let packed = int8.pack(LinearWeight::Int8(weight), bias, (&mut Packs::Fresh, &mut pool)).unwrap();
    let (x_stride, stride) = (k.next_multiple_of(PANEL), n.next_multiple_of(PANEL));
    let mut padded = vec![f32::NAN; rows * x_stride + PANEL];
    x.chunks_exact(k).zip(padded.chunks_mut(x_stride)).for_each(|(x, out)| out[..k].copy_from_slice(x));
    let mut out = vec![f32::NAN; rows * stride + PANEL];
    let mut scratch = Scratch::new(threads).unwrap();
    scratch.reserve(int8.row_bytes(k, k).unwrap()).unwrap();
    // The earlier contents must not matter.
    scratch.rows.fill(1);
    packed.multiply(
        Rows { data: &padded, rows, stride: x_stride },
        epilogue,
        &mut RowsMut { data: &mut out, stride },
        &mut scratch,
        &mut pool,
    );
    let n = if epilogue == Epilogue::SwiGlu { n / 2 } else { n };
    out.chunks_exact(stride).take(rows).flat_map(|row| row[..n].to_vec()).collect()
}

/// Numbers of one row: mostly ordinary, some awkward.
fn number() -> impl Strategy<Value = f32> {
    prop_oneof![
        40 => -8.0f32..8.0,
        4 => Just(0.0),
        2 => Just(-0.0),
        1 => prop::sample::select(vec![65504.0, -65504.0, 6e-8, -1e-45, 127.0, 0.5, -2.5]),
    ]
}

#[derive(Debug, Clone)]
struct Case {
    shape: (usize, usize, usize),
    x: Vec<f32>,
    w: Vec<f32>,
    bias: Option<Vec<f32>>,
}

fn cases() -> impl Strategy<Value = Case> {
    (1..=70usize, 1..70usize, 1..150usize).prop_flat_map(|(rows, n, k)| {
        let numbers = |count| prop::collection::vec(number(), count);
        let bias = prop::option::of(numbers(n));
        // Sometimes a row of zeros, or a row with NaN or infinity.
        let spoilt = prop::option::of((
            0..rows,
            prop::sample::select(vec![0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY]),
        ));
        (numbers(rows * k), numbers(n * k), bias, spoilt).prop_map(move |(mut x, w, bias, spoilt)| {
            if let Some((row, with)) = spoilt {
                let row = &mut x[row * k..(row + 1) * k];
                if with == 0.0 { row.fill(0.0) } else { row[k / 2] = with }
            }
            Case { shape: (rows, n, k), x, w, bias }
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn linear_layers_are_what_the_formula_says_on_every_kernel(case in cases(), threads in 1..=3usize) {
        let Case { shape, x, w, bias } = &case;
        let expected = expected(x, w, bias.as_deref(), shape.2, DType::Fp16);
        for int8 in kernels() {
            let ours = apply(int8, threads, (x, w, bias.as_deref()), *shape);
            for (i, (a, b)) in ours.iter().zip(&expected).enumerate() {
                prop_assert!(same(*a, *b), "{} at {i}: {a} for {b}", int8.name);
            }
        }
    }
}

/// The largest number of a run, with numbers that its scale divides to halfway between two integers, exactly or almost.
fn ties() -> impl Strategy<Value = Vec<f32>> {
    ((1u32..250 << 23), prop::collection::vec((0..127u32, -3..=3i32), 1..100)).prop_map(|(bits, near)| {
        let max = f32::from_bits(bits);
        let numbers = near.into_iter().map(|(whole, off)| {
            let tie = ((f64::from(whole) + 0.5) * f64::from(max / 127.0)) as f32;
            f32::from_bits(tie.to_bits().saturating_add_signed(off)).min(max)
        });
        std::iter::once(-max).chain(numbers).collect()
    })
}

proptest! {
    #[test]
    fn numbers_are_divided_by_their_scale_to_the_bit_on_every_kernel(x in ties()) {
        let (expected, _) = plain(&x);
        for int8 in kernels() {
            let mut q = vec![1; x.len() + 3];
            let scaled = int8.vectors.run(Quantise { x: &x, out: &mut q, by: None });
            prop_assert!(q[..x.len()].iter().map(|&q| i32::from(q)).eq(expected.iter().copied()), "{}", int8.name);
            prop_assert_eq!(scaled.sum, expected.iter().sum::<i32>());
        }
    }
}

#[test]
fn deep_products_of_the_largest_numbers_are_exact() {
    // 13,696 is the depth of ChatGLM2-6B's deepest layer. All signs agree, so the sums are as large as possible.
    let (rows, n, k) = (26, 17, 13_696);
    for (x, w) in [(1.0, 1.0), (-3.0, 2.0), (-1.0, -1.0)] {
        let (x, w) = (vec![x; rows * k], vec![w; n * k]);
        let expected = expected(&x, &w, None, k, DType::Fp16);
        for int8 in kernels() {
            assert!(apply(int8, 2, (&x, &w, None), (rows, n, k)) == expected, "{}", int8.name);
        }
    }
}

#[test]
fn spoilt_rows_and_channels_are_nan_and_the_others_are_not() {
    let (rows, n, k) = (3, 20, 70);
    let (mut x, mut w) = (vec![1.0; rows * k], vec![0.5; n * k]);
    x[k + 69] = f32::INFINITY;
    w[7 * k] = f32::NAN;
    for int8 in kernels() {
        let y = apply(int8, 1, (&x, &w, None), (rows, n, k));
        for (i, y) in y.iter().enumerate() {
            assert_eq!(y.is_nan(), i / n == 1 || i % n == 7, "{} at {i}: {y}", int8.name);
        }
    }
}

/// Static layers are what the reference device's formula says, to the bit, on every kernel. They have an offset, biases that
/// wrap the sums, inputs that are clipped, and rows with NaN.
#[test]
fn static_layers_are_what_the_formula_says_on_every_kernel() {
    for (rows, n, k, offset) in
        [(1, 17, 3, 0.0), (3, 40, 130, -128.0), (17, 33, 257, 5.0), (30, 70, 64, 127.0), (530, 20, 70, -3.0)]
    {
        let mut x: Vec<f32> = integers(rows * k, 37).into_iter().map(|q| f32::from(q) / 16.0).collect();
        (x[0], x[k - 1]) = (f32::INFINITY, -1e30);
        x[(rows / 2) * k] = if rows > 1 { f32::NAN } else { 1.0 };
        let weights = integers(n * k, 91);
        let quant_bias: Vec<i32> =
            (0..n as i32).map(|i| (i - 7) * if i == 3 { 536_870_912 } else { 999 }).collect();
        let deq_scale: Vec<f32> = (0..n).map(|i| 0.01 + i as f32 / 700.0).collect();
        let channels = StaticChannels { deq_scale: &deq_scale, quant_bias: &quant_bias };
        let input = StaticInput::new(0.03, offset).unwrap();
        let weight = Int8StaticWeight::stored(n, k, &weights, input, channels).unwrap();
        let weight = LinearWeight::Int8Static(weight);
        let bias = bytes(&(0..n).map(|i| i as f32 / 8.0 - 3.0).collect::<Vec<_>>());
        let bias = || Some(HostTensor { dtype: DType::Fp32, rows: 1, width: n, data: &bias });
        let plain = Linear::new(weight, bias());
        let expected: Vec<f32> = x.chunks_exact(k).flat_map(|x| plain.row(x, DType::Fp16)).collect();
        for int8 in kernels() {
            for threads in [1, 2] {
                let ours = apply_value(&StaticKernels(int8), weight, bias(), &x, threads);
                for (i, (a, b)) in ours.iter().zip(&expected).enumerate() {
                    assert!(same(*a, *b), "{} {rows} x {n} x {k} at {i}: {a} for {b}", int8.name);
                }
            }
        }
    }
}

/// Integers of both signs that cover ±127, in mixed order.
fn integers(count: usize, step: usize) -> Vec<i8> {
    (0..count).map(|i| (i * step % 255) as u8 as i8).map(|q| q.max(-127)).collect()
}

/// Covers every piece, group and block of depth of a layer, because the first and the last differ from the others. The
/// rows are more than one block.
#[test]
fn layers_of_many_blocks_are_what_the_formula_says_on_every_kernel() {
    for (rows, n, k) in [(530, 23, 130), (70, 330, 1_100), (16, 330, 1_100), (33, 17, 513), (1, 700, 520)] {
        let x: Vec<f32> = integers(rows * k, 37).into_iter().map(|q| f32::from(q) / 16.0).collect();
        let w: Vec<f32> = integers(n * k, 91).into_iter().map(|q| f32::from(q) / 64.0).collect();
        let bias: Vec<f32> = (0..n).map(|i| i as f32 / 8.0 - 9.0).collect();
        let expected = expected(&x, &w, Some(&bias), k, DType::Fp16);
        for int8 in kernels() {
            for threads in [1, 2] {
                let ours = apply(int8, threads, (&x, &w, Some(&bias)), (rows, n, k));
                assert!(ours == expected, "{} {rows} x {n} x {k} on {threads}", int8.name);
            }
        }
    }
}

/// Halves that are joined in cache equal the results of the two separate operators.
#[test]
fn swiglu_ends_a_product_as_the_operator_does() {
    for (rows, half, k) in [(530, 16, 70), (70, 336, 1_100), (16, 176, 1_100), (1, 48, 520), (3, 400, 64)] {
        let n = 2 * half;
        let x: Vec<f32> = integers(rows * k, 37).into_iter().map(|q| f32::from(q) / 640.0).collect();
        let w: Vec<f32> = integers(n * k, 91).into_iter().map(|q| f32::from(q) / 640.0).collect();
        let bias: Vec<f32> = (0..n).map(|i| (i % 19) as f32 / 8.0 - 1.0).collect();
        let xwb = (&x[..], &w[..], Some(&bias[..]));
        for int8 in kernels() {
            let mut expected = vec![0.0; rows * half];
            let halves = apply(int8, 1, xwb, (rows, n, k));
            for (h, out) in halves.chunks_exact(n).zip(expected.chunks_exact_mut(half)) {
                let (gate, up) = h.split_at(half);
                int8.vectors.run(SwiGlu { gate, up, out, streamed: false });
            }
            for threads in [1, 2] {
                let ours = apply_with(Epilogue::SwiGlu, int8, threads, xwb, (rows, n, k));
                assert!(ours == expected, "{} {rows} x {n} x {k} on {threads}", int8.name);
            }
        }
    }
}

/// A row in tiles holds the same numbers as a run.
#[test]
fn rows_in_tiles_are_rows() {
    const BLOCK: usize = 8;
    let block_stride = 3 * BLOCK * TILE_BYTES;
    for k in [1, 63, 64, 65, 511, 512, 513, 1_100] {
        for spoil in [1.0, 0.0, f32::NAN] {
            let x: Vec<f32> = integers(k, 37).into_iter().map(|q| f32::from(q) * spoil).collect();
            for int8 in kernels() {
                let mut run = vec![1; k.next_multiple_of(TILE_K)];
                let mut tiles = vec![1u8; 4 * block_stride];
                // SAFETY: nothing else accesses the tiles.
                let to =
                    unsafe { TileRow::new(SharedSlice::new(&mut tiles), 5 * TILE_K, BLOCK, block_stride) };
                let scaled = int8.vectors.run(Quantise { x: &x, out: &mut run, by: None });
                let scale = int8.vectors.run(QuantiseTiles { x: &x, to, by: None });
                assert!(same(scaled.scale, scale), "{} {k}", int8.name);
                for (i, piece) in run.chunks_exact(TILE_K).enumerate() {
                    let at = i / BLOCK * block_stride + i % BLOCK * TILE_BYTES + 5 * TILE_K;
                    assert!(
                        tiles[at..at + TILE_K] == *bytemuck::cast_slice::<i8, u8>(piece),
                        "{} {k} at {i}",
                        int8.name
                    );
                    tiles[at..at + TILE_K].fill(1);
                }
                assert!(tiles.iter().all(|&q| q == 1), "{} {k} writes elsewhere", int8.name);
            }
        }
    }
}

/// Products continue sums: consecutive blocks of `k` give the result of one product, wrapping at 32 bits.
#[test]
fn products_add_to_the_sums_that_are_there() {
    let (rows, panels, k) = (45, 5, 3 * TILE_K);
    let (a, w) = (integers(rows * k, 37), integers(panels * k * PANEL, 91));
    for int8 in kernels() {
        let Multiply::Rows(gemm) = int8.multiply else { continue };
        let stored: Vec<i8> = w.iter().map(|w| w.wrapping_add(gemm.offset() as i8)).collect();
        let product = |from: usize, k_block: usize, c: &mut Vec<i32>| {
            gemm.run(&Product {
                a: &a[from..],
                a_stride: k,
                w: &stored[from * PANEL..],
                panel_stride: k * PANEL,
                k: k_block,
                c: Strided::new(c, rows, panels * PANEL, panels * PANEL),
                next: &[],
            });
        };
        let start: Vec<i32> = (0..rows * panels * PANEL).map(|i| i32::MAX - i as i32).collect();
        let (mut whole, mut blocks) = (start.clone(), start.clone());
        product(0, k, &mut whole);
        for from in (0..k).step_by(TILE_K) {
            product(from, TILE_K, &mut blocks);
        }
        assert!(whole == blocks && whole != start, "{}", int8.name);
        for (i, (&sum, &start)) in whole.iter().zip(&start).enumerate() {
            let (row, column) = (i / (panels * PANEL), i % (panels * PANEL));
            let at =
                |q: usize| (column / PANEL * k + q / QUAD * QUAD) * PANEL + column % PANEL * QUAD + q % QUAD;
            let terms = (0..k).map(|q| i32::from(a[row * k + q]) * (i32::from(w[at(q)]) + gemm.offset()));
            assert_eq!(sum, start.wrapping_add(terms.sum()), "{} at {i}", int8.name);
        }
    }
}

/// Every height of a tile, with -128 among the activations, rows and panels at odd distances, and numbers between the rows
/// of sums, which stay.
#[test]
fn every_number_of_rows_and_panels_gives_the_portable_sums() {
    for (rows, panels, k) in (1..=27).flat_map(|rows| [(rows, 1, 64), (rows, 3, 1_088), (rows, 5, 128)]) {
        let (a_stride, panel_stride, stride) = (k + 3, k * PANEL + 5, panels * PANEL + 1);
        let a: Vec<i8> = (0..rows * a_stride).map(|i| (i * 37) as u8 as i8).collect();
        let w = integers(panels * panel_stride, 91);
        let run = |gemm: Int8Gemm| {
            let mut c: Vec<i32> = (0..rows * stride).map(|i| i32::MAX - 999 * i as i32).collect();
            let sums = Strided::new(&mut c, rows, panels * PANEL, stride);
            let w: Vec<i8> = w.iter().map(|w| w.wrapping_add(gemm.offset() as i8)).collect();
            gemm.run(&Product { a: &a, a_stride, w: &w, panel_stride, k, c: sums, next: &[] });
            c
        };
        let expected = run(Int8Gemm::Portable);
        for int8 in kernels() {
            let Multiply::Rows(gemm) = int8.multiply else { continue };
            for (i, (sum, expected)) in run(gemm).into_iter().zip(&expected).enumerate() {
                let x: i32 = a[i / stride * a_stride..][..k].iter().map(|&x| i32::from(x)).sum();
                let excess = if i % stride < panels * PANEL { gemm.offset() * x } else { 0 };
                assert_eq!(
                    sum.wrapping_sub(excess),
                    *expected,
                    "{} {rows} x {panels} x {k} at {i}",
                    int8.name
                );
            }
        }
    }
}

/// Three rows by two panels need their operands, also if the needed length wraps to a small one.
#[test]
fn operands_that_are_too_short_panic() {
    let run = |gemm: Int8Gemm, (a, a_stride): (usize, usize), (w, panel_stride): (usize, usize), k: usize| {
        let (a, w, mut c) = (vec![0; a], vec![0; w], vec![0; 3 * 2 * PANEL]);
        let c = Strided::new(&mut c, 3, 2 * PANEL, 2 * PANEL);
        gemm.run(&Product { a: &a, a_stride, w: &w, panel_stride, k, c, next: &[] });
    };
    const PANEL_LEN: usize = TILE_K * PANEL;
    const HALF: usize = usize::MAX / 2 + 1;
    let (a, w) = ((3 * TILE_K, TILE_K), (2 * PANEL_LEN, PANEL_LEN));
    for int8 in kernels() {
        let Multiply::Rows(gemm) = int8.multiply else { continue };
        run(gemm, a, w, TILE_K);
        for (a, w, k) in [
            ((a.0 - 1, a.1), w, TILE_K),
            (a, (w.0 - 1, w.1), TILE_K),
            (a, w, TILE_K - 1),
            ((a.0, HALF), w, TILE_K),
            (a, (w.0, usize::MAX), TILE_K),
            (a, w, HALF),
        ] {
            let found = std::panic::catch_unwind(|| run(gemm, a, w, k));
            assert!(found.is_err(), "{} {a:?} {w:?} {k}", int8.name);
        }
    }
}

/// The same for tiles, in both shapes.
#[test]
fn products_of_tiles_add_to_the_sums_that_are_there() {
    const TILES: usize = 3;
    let a = [37, 41].map(|step| integers(TILES * TILE_BYTES, step));
    let b = [91, 97, 101, 103].map(|step| integers(TILES * TILE_BYTES, step));
    let shapes = (1..=TILE_ROWS).map(|rows| Shape::Narrow { rows }).chain([Shape::Wide]);
    for (int8, shape) in kernels().flat_map(|int8| shapes.clone().map(move |shape| (int8, shape))) {
        let Some(unit) = int8.tiles() else { continue };
        let panels = shape.panels();
        let rows = if let Shape::Narrow { rows } = shape { rows } else { shape.rows() };
        let product = |range: std::ops::Range<usize>, fresh: bool, c: &mut [i32]| {
            let begin = range.start * TILE_BYTES;
            let (a, b) = (
                a.each_ref().map(|a| a[begin..].as_ptr().cast()),
                b.each_ref().map(|b| b[begin..].as_ptr().cast()),
            );
            let t = TileProduct { shape, a, b, ahead_lines: 0, tiles: range.len(), fresh, c: c.as_mut_ptr() };
            let configured = unit.configure(shape);
            // SAFETY: the number of tiles is right.
            unsafe { unit.multiply(&configured, &t) };
            unit.release(configured);
        };
        let start: Vec<i32> = (0..shape.rows() * panels * PANEL).map(|i| i32::MAX - i as i32).collect();
        let (mut whole, mut blocks, mut fresh) = (start.clone(), start.clone(), start.clone());
        product(0..TILES, false, &mut whole);
        (0..TILES).for_each(|i| product(i..i + 1, false, &mut blocks));
        product(0..TILES, true, &mut fresh);
        assert!(whole == blocks, "{} {shape:?}", int8.name);
        for (i, &start) in start.iter().enumerate() {
            let (row, column) = (i / (panels * PANEL), i % (panels * PANEL));
            if row >= rows {
                assert!(whole[i] == start && fresh[i] == start, "{} {shape:?} at {i}", int8.name);
                continue;
            }
            let sum: i32 = (0..TILES * TILE_K)
                .map(|q| {
                    let (tile, q) = (q / TILE_K * TILE_BYTES, q % TILE_K);
                    let x = a[row / TILE_ROWS][tile + row % TILE_ROWS * TILE_K + q];
                    let w = b[column / PANEL][tile + q / QUAD * TILE_K + column % PANEL * QUAD + q % QUAD];
                    i32::from(x) * i32::from(w)
                })
                .sum();
            assert_eq!(fresh[i], sum, "{} {shape:?} at {i}", int8.name);
            assert_eq!(whole[i], start.wrapping_add(sum), "{} {shape:?} at {i}", int8.name);
        }
    }
}
