use proptest::prelude::*;

use glmbench_device::DType;

use super::*;
use crate::pack::{PANEL, TILE_DEPTH, TILE_ROWS};
use crate::product::tiles::{Shape, TileKernels, TileProduct};

/// Returns the implementations that this machine has, the reference first.
fn implementations() -> impl Iterator<Item = TileKernels> {
    [TileKernels::reference, TileKernels::amx].into_iter().filter_map(|of| of(DType::Bf16))
}

fn bf16(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}

/// Weights as the softmax writes them, including zeros, and scales of many magnitudes.
fn weights(k: usize) -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
    let weight = prop_oneof![1 => Just(0.0f32), 4 => (0f32..=1.0).prop_map(|x| DType::Fp16.round(x * x * x))];
    let scale = prop::sample::select(vec![0.0f32, 4.7e-10, 1.3e-3, 0.07, 515.9]);
    (
        prop::collection::vec(weight, k),
        prop::collection::vec((scale, 0.5f32..1.0).prop_map(|(a, b)| a * b), k),
    )
}

fn integers(seed: u64, n: usize) -> Vec<i8> {
    let mut state = seed | 1;
    let number = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 33) % 255) as i8
    };
    std::iter::repeat_with(number).take(n).collect()
}

/// Packs rows of a block of sixteen.
fn packed(kernels: &TileKernels, rows: &[(Vec<f32>, Vec<f32>)]) -> Vec<u8> {
    let k = rows[0].0.len();
    let mut block = vec![0; k / TILE_DEPTH * WEIGHT_PARTS * TILE_BYTES];
    for (row, (weights, scales)) in rows.iter().enumerate() {
        kernels.pack_weights(weights, scales, &mut block, row);
    }
    block
}

/// Widens panels `[tiles * 32][16]` of integers.
fn widened(kernels: &TileKernels, panel: &[i8]) -> Vec<u8> {
    let tiles = panel.len() / INTEGER_BYTES;
    let mut out = vec![0xFF; tiles * TILE_BYTES];
    kernels.unpack_integers().run(bytemuck::cast_slice(panel), &mut out);
    out
}

/// Every integer is exact in bf16, with the two numbers of a pair side by side.
#[test]
fn integers_are_exact_in_bf16() {
    let panel: Vec<i8> = (0..3 * INTEGER_BYTES).map(|i| (i * 7 % 256) as u8 as i8).collect();
    for kernels in implementations() {
        let out = widened(&kernels, &panel);
        for (i, bytes) in out.as_chunks::<2>().0.iter().enumerate() {
            let (depth, column) = (i / (2 * PANEL) * 2 + i % 2, i / 2 % PANEL);
            assert_eq!(
                bf16(*bytes),
                f32::from(panel[depth * PANEL + column]),
                "depth {depth} column {column}"
            );
        }
    }
}

/// Multiplies up to sixteen rows of packed weights by four panels, or thirty-two rows by two panels.
fn product(kernels: &TileKernels, wide: bool, rows: &[(Vec<f32>, Vec<f32>)], panels: &[Vec<i8>]) -> Vec<f32> {
    let blocks: Vec<Vec<u8>> = rows.chunks(TILE_ROWS).map(|rows| packed(kernels, rows)).collect();
    let panels: Vec<Vec<u8>> = panels.iter().map(|panel| widened(kernels, panel)).collect();
    let shape = if wide { Shape::Wide } else { Shape::Narrow { rows: rows.len() } };
    // The first product starts from zero, the second adds to the existing sums.
    let mut c = vec![f32::NAN; 1024];
    for fresh in [true, false] {
        let product = TileProduct {
            shape,
            a: [0, blocks.len() - 1].map(|block| blocks[block].as_ptr()),
            b: std::array::from_fn(|i| panels[i % panels.len()].as_ptr()),
            ahead_lines: 0,
            tiles: rows[0].0.len() / TILE_DEPTH,
            fresh,
            c: c.as_mut_ptr(),
        };
        let unit = kernels.weighted_integers.unwrap();
        let configured = unit.configure(shape);
        // SAFETY: rows, panels and sums hold the shape.
        unsafe { unit.multiply(&configured, &product) };
        unit.release(configured);
    }
    c
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// The parts of a weight times its scale lose less than `2^-16` of it, and nothing if it is a bf16 number. Both
    /// implementations write the same bits, and leave the other rows unchanged.
    #[test]
    fn weights_are_cut_into_two_parts((weights, scales) in weights(96), row in 0..TILE_ROWS) {
        let mut rows = vec![(vec![0.0; 96], vec![0.0; 96]); TILE_ROWS];
        rows[row] = (weights.clone(), scales.clone());
        let blocks: Vec<_> = implementations().map(|kernels| packed(&kernels, &rows)).collect();
        prop_assert!(blocks.iter().all(|block| *block == blocks[0]));
        let numbers = blocks[0].as_chunks::<2>().0;
        for (i, (weight, scale)) in weights.iter().zip(&scales).enumerate() {
            let at = i / TILE_DEPTH * WEIGHT_PARTS * TILE_BYTES / 2 + row * TILE_DEPTH + i % TILE_DEPTH;
            let parts = [0, TILE_BYTES / 2].map(|part| f64::from(bf16(numbers[at + part])));
            let scaled = f64::from(weight * scale);
            let missing = (parts[0] + parts[1] - scaled).abs();
            prop_assert!(missing <= scaled * 2f64.powi(-16), "{scaled}: {parts:?}");
            prop_assert!(!parts.iter().any(|part| *part != 0.0 && part.abs() < f64::from(f32::MIN_POSITIVE)));
        }
        let own = |i: usize| i % (TILE_BYTES / 2) / TILE_DEPTH == row;
        prop_assert!(numbers.iter().enumerate().all(|(i, number)| own(i) || *number == [0; 2]));
    }

    /// A product is the weighted sum of the integers, within the loss of the parts and the roundings of the sum.
    /// Both implementations give the same bits, and a row does not depend on the others.
    #[test]
    fn products_are_weighted_sums(
        rows in prop::collection::vec(weights(96), TILE_ROWS), count in 1..=TILE_ROWS, wide: bool, seed: u64,
    ) {
        let rows = if wide { [rows.clone(), rows].concat() } else { rows[..count].to_vec() };
        let count = if wide { 2 } else { 4 };
        let panels: Vec<_> = (0..count).map(|i| integers(seed ^ i, 3 * INTEGER_BYTES)).collect();
        let all: Vec<_> = implementations().map(|kernels| product(&kernels, wide, &rows, &panels)).collect();
        let width = panels.len() * PANEL;
        let sums = |c: &[f32]| c[..rows.len() * width].iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        prop_assert!(all.iter().all(|c| sums(c) == sums(&all[0])));
        for (row, (weights, scales)) in rows.iter().enumerate() {
            for (column, got) in all[0][row * width..][..width].iter().enumerate() {
                let of_panel = |k: usize| f64::from(panels[column / PANEL][k * PANEL + column % PANEL]);
                let terms = (0..96).map(|k| f64::from(weights[k] * scales[k]) * of_panel(k));
                let (exact, sizes) = (2.0 * terms.clone().sum::<f64>(), 2.0 * terms.map(f64::abs).sum::<f64>());
                // A tile sums 32 numbers of each part, and there are two products of three tiles and two parts.
                let roundings = f64::from(f32::EPSILON) * (TILE_DEPTH + 12) as f64;
                let bound = sizes * (roundings + 2f64.powi(-16));
                prop_assert!((f64::from(*got) - exact).abs() <= bound, "{got} for {exact}");
            }
        }
        if !wide {
            let alone = product(&implementations().next().unwrap(), false, &rows[rows.len() - 1..], &panels);
            prop_assert_eq!(sums(&all[0])[(rows.len() - 1) * width..].to_vec(), alone[..width].iter().map(|x| x.to_bits()).collect::<Vec<_>>());
        }
    }
}
