//! Attention over contexts of several runs: right, and the same bits however the work is cut.

use crate::device::cpu::{Cpu, CpuOptions, Matrix};
use crate::device::{AttentionShape, DType, Device, KvShape, SequenceView};

const SHAPE: AttentionShape = AttentionShape { heads: 6, kv_heads: 2, channels: 20 };
const Q_WIDTH: usize = SHAPE.heads * SHAPE.channels;
const KV_WIDTH: usize = SHAPE.kv_heads * SHAPE.channels;
const WIDTH: usize = Q_WIDTH + 2 * KV_WIDTH;
/// Two whole runs, a whole block and a part of one.
const CONTEXT: usize = 2 * super::RUN_TOKENS + 150;

fn cpu(threads: usize, dtype: DType) -> Cpu {
    let options = CpuOptions {
        precision: dtype.into(),
        threads,
        instruction_set: None,
        max_context: CONTEXT,
        attention: SHAPE,
    };
    Cpu::new(options).unwrap()
}

/// `[q | k | v]` rows of a sequence, with scores large enough that weights differ by orders of magnitude.
fn rows(seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 22) as f32 - 2.0
    };
    (0..CONTEXT * WIDTH).map(|_| half::f16::from_f32(next()).to_f32()).collect()
}

/// A sequence of the batch: its rows, and how many of them are fed step by step.
struct Fed<'a> {
    rows: &'a [f32],
    steps: &'a [usize],
}

/// Feeds sequences side by side, a step each at a time; what attention gives for every row of each.
fn attend(threads: usize, dtype: DType, fed: &[Fed<'_>]) -> Vec<Vec<f32>> {
    let mut cpu = cpu(threads, dtype);
    let blocks = CONTEXT.div_ceil(128);
    let shape =
        KvShape { layers: 1, kv_heads: SHAPE.kv_heads, channels: SHAPE.channels, blocks: blocks * fed.len() };
    let mut cache = cpu.kv_cache(shape).unwrap();
    let (mut qkv, mut out) = (
        cpu.activation(CONTEXT * fed.len(), WIDTH).unwrap(),
        cpu.activation(CONTEXT * fed.len(), Q_WIDTH).unwrap(),
    );
    // The last sequence's blocks come first.
    let tables: Vec<Vec<u32>> =
        (0..fed.len()).rev().map(|i| (0..blocks).map(|b| (i * blocks + b) as u32).collect()).collect();
    let mut results = vec![Vec::new(); fed.len()];
    for step in 0..fed.iter().map(|f| f.steps.len()).max().unwrap_or(0) {
        let mut input = Vec::new();
        let mut views = Vec::new();
        for (i, f) in fed.iter().enumerate() {
            let Some(&tokens) = f.steps.get(step) else { continue };
            let before: usize = f.steps[..step].iter().sum();
            let first = input.len() / WIDTH;
            input.extend_from_slice(&f.rows[before * WIDTH..(before + tokens) * WIDTH]);
            let view =
                SequenceView { rows: first..first + tokens, context: before + tokens, blocks: &tables[i] };
            views.push((i, view));
        }
        let (owners, views): (Vec<usize>, Vec<_>) = views.into_iter().unzip();
        cpu.upload(&input, &mut qkv).unwrap();
        cpu.write_kv(&qkv, &mut cache, 0, &views, SHAPE).unwrap();
        cpu.attention(&qkv, &cache, 0, &views, SHAPE, &mut out).unwrap();
        let all = download(&mut cpu, &out);
        for (owner, view) in owners.into_iter().zip(&views) {
            results[owner].extend_from_slice(&all[view.rows.start * Q_WIDTH..view.rows.end * Q_WIDTH]);
        }
    }
    results
}

fn download(cpu: &mut Cpu, out: &Matrix) -> Vec<f32> {
    let mut all = Vec::new();
    cpu.download(out, &mut all).unwrap();
    all
}

/// Attention by the formula, in f64.
fn formula(rows: &[f32], token: usize, head: usize) -> Vec<f64> {
    let at = |t: usize, column: usize| f64::from(rows[t * WIDTH + column]);
    let kv_head = head / (SHAPE.heads / SHAPE.kv_heads);
    let (query, key) = (head * SHAPE.channels, Q_WIDTH + kv_head * SHAPE.channels);
    let scores: Vec<f64> = (0..=token)
        .map(|t| (0..SHAPE.channels).map(|c| at(token, query + c) * at(t, key + c)).sum::<f64>())
        .map(|dot| dot / (SHAPE.channels as f64).sqrt())
        .collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    let value = |c: usize| {
        let of_token = |(t, w): (usize, &f64)| w * at(t, key + KV_WIDTH + c);
        weights.iter().enumerate().map(of_token).sum::<f64>() / total
    };
    (0..SHAPE.channels).map(value).collect()
}

#[test]
fn contexts_of_several_runs_give_what_the_formula_says() {
    let rows = rows(1);
    for (dtype, bound) in [(DType::Fp32, 2e-5), (DType::Fp16, 4e-3), (DType::Bf16, 3e-2)] {
        let rows: Vec<f32> = rows.iter().map(|x| dtype.round(*x)).collect();
        let ours = attend(2, dtype, &[Fed { rows: &rows, steps: &[CONTEXT] }]).remove(0);
        for token in [0, 1, 127, 128, 511, 512, 700, 1023, 1024, CONTEXT - 1] {
            for head in 0..SHAPE.heads {
                let expected = formula(&rows, token, head);
                let begin = token * Q_WIDTH + head * SHAPE.channels;
                for (x, y) in ours[begin..begin + SHAPE.channels].iter().zip(&expected) {
                    assert!((f64::from(*x) - y).abs() <= bound, "{dtype} token {token} head {head}: {x} {y}");
                }
            }
        }
    }
}

#[test]
fn threads_chunks_and_company_do_not_move_a_bit() {
    let (mine, other) = (rows(2), rows(3));
    let bits = |rows: &[f32]| rows.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let whole = attend(1, DType::Fp16, &[Fed { rows: &mine, steps: &[CONTEXT] }]).remove(0);
    let expected = bits(&whole);
    // Single tokens at the end, so that there are few items and their runs are shared.
    let cut = [CONTEXT - 200, 61, 100, 30, 3, 1, 1, 1, 1, 1, 1];
    for threads in [1, 2, 5] {
        let alone = attend(threads, DType::Fp16, &[Fed { rows: &mine, steps: &cut }]).remove(0);
        assert!(bits(&alone) == expected, "{threads} threads");
        let beside =
            [Fed { rows: &other, steps: &[700, 1, 1, 1, 5, 1, 1, 1] }, Fed { rows: &mine, steps: &cut }];
        let beside = attend(threads, DType::Fp16, &beside).remove(1);
        assert!(bits(&beside) == expected, "{threads} threads, beside another");
    }
}
