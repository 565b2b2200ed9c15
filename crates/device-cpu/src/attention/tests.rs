//! Tests that attention is correct, and gives the same bits however the work is split, in both kernel families.

use proptest::prelude::*;

use glmbench_device::{
    AttentionShape, DType, Device, KV_BLOCK_TOKENS, KvChannel, KvChannels, KvForm, KvLayerChannels, KvShape,
    Precision, SequenceView,
};

use crate::{Cpu, CpuOptions, Family, InstructionSet, Matrix};

/// A whole run, a whole block and part of a block.
const LONG: usize = super::RUN_TOKENS + 150;
/// Two whole runs, a whole block and part of a block.
const LONGER: usize = LONG + super::RUN_TOKENS;

/// The configuration of a test.
#[derive(Debug, Clone, Copy)]
struct Setup {
    set: InstructionSet,
    precision: Precision,
    shape: AttentionShape,
    threads: usize,
}

/// Three heads per KV head, and channels that do not fill a tile.
const SMALL: AttentionShape = AttentionShape { heads: 6, kv_heads: 2, channels: 20 };
/// The same with half the work, for the reference kernels of the tiles.
const ONE_GROUP: AttentionShape = AttentionShape { heads: 3, kv_heads: 1, ..SMALL };

impl Setup {
    fn new(set: InstructionSet, precision: impl Into<Precision>) -> Self {
        Self { set, precision: precision.into(), shape: SMALL, threads: 2 }
    }

    fn q_width(self) -> usize {
        self.shape.heads * self.shape.channels
    }

    /// Returns the width of a `[q | k | v]` row.
    fn width(self) -> usize {
        self.q_width() + 2 * self.shape.kv_heads * self.shape.channels
    }

    /// Generates `[q | k | v]` rows of a sequence in the type. The scores are large enough for weights to differ by
    /// orders of magnitude.
    fn rows(self, seed: u64, tokens: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 22) as f32 - 2.0
        };
        (0..tokens * self.width()).map(|_| self.precision.dtype.round(next())).collect()
    }
}

/// A sequence of the batch: its rows, and how many of them each step feeds.
#[derive(Debug, Clone, Copy)]
struct Fed<'a> {
    rows: &'a [f32],
    steps: &'a [usize],
}

/// A device and a cache with space for some sequences.
struct Bench {
    setup: Setup,
    cpu: Cpu,
    cache: <Cpu as Device>::KvCache,
    qkv: Matrix,
    out: Matrix,
    blocks: usize,
}

impl Bench {
    fn new(setup: Setup, sequences: usize, context: usize) -> Self {
        let options = CpuOptions {
            threads: setup.threads,
            instruction_set: Some(setup.set),
            ..CpuOptions::plain(setup.precision, context, setup.shape)
        };
        let cpu = Cpu::new(options).unwrap();
        let blocks = context.div_ceil(KV_BLOCK_TOKENS);
        let AttentionShape { kv_heads, channels, .. } = setup.shape;
        let shape = KvShape { layers: 1, kv_heads, channels, blocks: blocks * sequences };
        let cache = if setup.precision.kv == KvForm::C8 {
            let all: Vec<KvChannel> = (0..kv_heads).flat_map(|_| (0..channels).map(channel)).collect();
            let layer = KvLayerChannels { keys: all.clone(), values: all };
            cpu.kv_cache_of_channels(shape, &KvChannels::new(vec![layer], kv_heads * channels).unwrap())
        } else {
            cpu.kv_cache(shape)
        };
        let cache = cache.unwrap();
        let qkv = cpu.activation(context * sequences, setup.width()).unwrap();
        let out = cpu.activation(context * sequences, setup.q_width()).unwrap();
        Self { setup, cpu, cache, qkv, out, blocks }
    }

    /// Feeds the sequences side by side, one step of each at a time. Returns the attention output for every row of each
    /// sequence.
    fn attend(&mut self, fed: &[Fed<'_>]) -> Vec<Vec<f32>> {
        let width = self.setup.width();
        let mut results = vec![Vec::new(); fed.len()];
        for step in 0..fed.iter().map(|f| f.steps.len()).max().unwrap_or(0) {
            let mut parts = vec![(0, &[][..]); fed.len()];
            for (f, part) in fed.iter().zip(&mut parts) {
                let Some(&tokens) = f.steps.get(step) else { continue };
                let before = f.steps[..step].iter().sum();
                *part = (before, &f.rows[before * width..(before + tokens) * width]);
            }
            for (result, out) in results.iter_mut().zip(self.step(&parts)) {
                result.extend(out);
            }
        }
        results
    }

    /// Feeds some rows of each sequence, after its first tokens. Tokens that follow them in the cache are taken back.
    /// Returns the attention output for the rows.
    fn step(&mut self, parts: &[(usize, &[f32])]) -> Vec<Vec<f32>> {
        let (width, q_width) = (self.setup.width(), self.setup.q_width());
        // The last sequence's blocks come first.
        let table = |i: usize| (0..self.blocks).map(|b| (i * self.blocks + b) as u32).collect::<Vec<_>>();
        let tables: Vec<Vec<u32>> = (0..parts.len()).rev().map(table).collect();
        let mut input = Vec::new();
        let mut views = Vec::new();
        for ((before, rows), blocks) in parts.iter().zip(&tables).filter(|((_, rows), _)| !rows.is_empty()) {
            let (first, tokens) = (input.len() / width, rows.len() / width);
            input.extend_from_slice(rows);
            views.push(SequenceView { rows: first..first + tokens, context: before + tokens, blocks });
        }
        let Self { cpu, cache, qkv, out, setup, .. } = self;
        cpu.upload(&input, qkv).unwrap();
        cpu.write_kv(qkv, cache, 0, &views, setup.shape).unwrap();
        cpu.attention(qkv, cache, 0, &views, setup.shape, out).unwrap();
        let mut all = Vec::new();
        cpu.download(out, &mut all).unwrap();
        let mut rest = &all[..];
        let mut of = |(_, rows): &(usize, &[f32])| {
            let (out, later) = rest.split_at(rows.len() / width * q_width);
            rest = later;
            out.to_vec()
        };
        parts.iter().map(&mut of).collect()
    }
}

/// Returns the attention output for every row of each sequence.
fn attend(setup: Setup, fed: &[Fed<'_>]) -> Vec<Vec<f32>> {
    let longest = fed.iter().map(|f| f.steps.iter().sum()).max().unwrap_or(0);
    Bench::new(setup, fed.len(), longest).attend(fed)
}

fn bits(rows: &[f32]) -> Vec<u32> {
    rows.iter().map(|x| x.to_bits()).collect()
}

/// Returns the bits of numbers, the same for every NaN: its sign and payload depend on the processor.
fn bits_but_nan(rows: &[f32]) -> Vec<u32> {
    rows.iter().map(|x| if x.is_nan() { f32::NAN } else { *x }.to_bits()).collect()
}

/// Returns every set of this machine with every type and every form of KV cache.
fn all_setups() -> impl Iterator<Item = Setup> {
    let types = [DType::Fp32, DType::Fp16, DType::Bf16];
    let precisions = move || {
        KvForm::ALL.into_iter().flat_map(move |kv| types.map(|dtype| Precision { kv, ..dtype.into() }))
    };
    let sets = Family::ALL.into_iter().flat_map(Family::sets);
    sets.flat_map(move |set| precisions().map(move |precision| Setup::new(set, precision)))
}

/// Returns this machine's instruction sets, of all families.
fn sets() -> Vec<InstructionSet> {
    InstructionSet::ALL.into_iter().filter(|set| set.available()).collect()
}

/// A channel of a head, in a cache with the channels of a checkpoint.
fn channel(i: usize) -> KvChannel {
    KvChannel { scale: 1.0 / (50 + i % 7) as f32, offset: (i % 5) as f32 - 2.0 }
}

/// Returns the numbers of keys or values as the cache reproduces them.
fn cached(precision: Precision, is_key: bool, row: &[f32]) -> Vec<f64> {
    let [low, high] = row.iter().fold([0.0f32; 2], |[low, high], x| [low.min(*x), high.max(*x)]);
    let scale = if is_key { high / 255.0 - low / 255.0 } else { high.max(-low) / 127.0 };
    let of = |(i, x): (usize, &f32)| match precision.kv {
        KvForm::Auto => *x,
        KvForm::C8 => channel(i).number(channel(i).quantise(*x)),
        KvForm::Int8 if is_key => {
            // The largest number may round to one step more than there is.
            let most = 255.0 + (low / scale).round_ties_even();
            (x / scale).round_ties_even().min(most) * scale
        }
        KvForm::Int8 => (x / scale).round_ties_even() * scale,
    };
    row.iter().enumerate().map(|x| f64::from(of(x))).collect()
}

/// Computes one head of one token by the formula in f64, with the permitted error of each number.
fn formula(setup: Setup, rows: &[f32], token: usize, head: usize) -> Vec<(f64, f64)> {
    let (AttentionShape { heads, kv_heads, channels }, dtype) = (setup.shape, setup.precision.dtype);
    let at = |t: usize, column: usize| &rows[t * setup.width() + column..][..channels];
    let key_at = setup.q_width() + head / (heads / kv_heads) * channels;
    let query: Vec<f64> = at(token, head * channels).iter().map(|x| f64::from(*x)).collect();
    let keys: Vec<Vec<f64>> = (0..=token).map(|t| cached(setup.precision, true, at(t, key_at))).collect();
    let value_at = key_at + kv_heads * channels;
    let values: Vec<Vec<f64>> =
        (0..=token).map(|t| cached(setup.precision, false, at(t, value_at))).collect();

    let root = (channels as f64).sqrt();
    let dot = |key: &Vec<f64>| query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>();
    let size = |key: &Vec<f64>| query.iter().zip(key).map(|(q, k)| (q * k).abs()).sum::<f64>();
    let scores: Vec<f64> = keys.iter().map(|key| dot(key) / root).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let total: f64 = weights.iter().sum();

    // A sum of k products has fewer than k + 40 roundings in either family. The vector kernels round once per product.
    // Tiles round 32 numbers, and then at most four times per tile. fp16 parts leave out low by low ([`super::tiles`]).
    let rounding = f64::from(f32::EPSILON);
    // Integer tiles keep as much of a weight times the scale of its value. The error of their queries is slightly more
    // than half a step, and a step is 1 / 32,639 of the row's largest number. Their sums are exact.
    let tiles = setup.set.family() == Family::Tiles && dtype != DType::Fp32;
    let integers = tiles && setup.precision.kv == KvForm::Int8;
    let cut = if integers || tiles && dtype == DType::Fp16 { 2f64.powi(-16) } else { 0.0 };
    let of_sum = |k: usize| (k + 40) as f64 * rounding + cut;
    let step = query.iter().fold(0.0, |max: f64, q| max.max(q.abs())) / 32_639.0;
    let of_query = if integers { 0.504 * step } else { 0.0 };
    // Errors of a score: its sum, the scale and the product with it, the difference from the maximum.
    let score_error = |key: &Vec<f64>| {
        let of_key = of_query * key.iter().map(|k| k.abs()).sum::<f64>();
        (of_sum(channels) * size(key) + of_key) / root + 6.0 * rounding * max.abs()
    };
    let worst = keys.iter().map(score_error).fold(0.0, f64::max);
    // Errors of a weight: the scores, the exponential, and the changes of the maximum, one block and one run at a time.
    let changes = (4 + 3 * token / KV_BLOCK_TOKENS) as f64;
    let of_weight = (2.0 * worst).exp_m1() + changes * 4.0 * rounding;
    // Rounding to the type. Near its lower end, fp16 has steps of 2^-24.
    let (of_type, least) = match dtype {
        DType::Fp32 => (rounding, 0.0),
        DType::Fp16 => (2f64.powi(-11), 2f64.powi(-25)),
        DType::Bf16 => (2f64.powi(-8), 0.0),
    };
    let value = |c: usize| {
        let terms = || weights.iter().zip(&values).map(|(w, v)| w * v[c]);
        let exact = terms().sum::<f64>() / total;
        let sizes = terms().map(f64::abs).sum::<f64>() / total;
        let heights = values.iter().map(|v| v[c].abs()).sum::<f64>() / total;
        // Errors of the numerator, the denominator and the quotient.
        let above = sizes * (of_weight + of_type + of_sum(token + 1)) + least * heights;
        let below = exact.abs() * (of_weight + of_sum(token + 1));
        (exact, 1.01 * (above + below) + exact.abs() * (of_type + rounding) + least)
    };
    (0..channels).map(value).collect()
}

/// Checks every head of some tokens against the formula.
fn check(setup: Setup, rows: &[f32], ours: &[f32], tokens: &[usize]) -> Result<(), TestCaseError> {
    for &token in tokens {
        for head in 0..setup.shape.heads {
            let begin = token * setup.q_width() + head * setup.shape.channels;
            for (x, (exact, bound)) in ours[begin..].iter().zip(formula(setup, rows, token, head)) {
                let off = (f64::from(*x) - exact).abs();
                prop_assert!(
                    off <= bound,
                    "{setup:?} token {token} head {head}: {x} for {exact}, within {bound}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn contexts_of_several_runs_give_what_the_formula_says() {
    let vector = InstructionSet::best_vector();
    let int8 = |dtype: DType| Precision { kv: KvForm::Int8, ..dtype.into() };
    for (set, precision, tokens) in [
        (vector, DType::Fp32.into(), LONGER),
        (vector, DType::Fp16.into(), LONGER),
        (vector, DType::Bf16.into(), LONGER),
        (vector, int8(DType::Fp16), LONGER),
        (vector, Precision { kv: KvForm::C8, ..DType::Fp16.into() }, LONGER),
        (InstructionSet::AmxPortable, DType::Fp16.into(), LONG),
        (InstructionSet::AmxPortable, DType::Bf16.into(), LONG),
        (InstructionSet::AmxPortable, int8(DType::Fp16), LONG),
        (InstructionSet::AmxPortable, int8(DType::Bf16), LONG),
        (Family::Pairs.best(), DType::Bf16.into(), LONG),
    ] {
        let shape = if set.family() == Family::Vectors { SMALL } else { ONE_GROUP };
        let setup = Setup { shape, ..Setup::new(set, precision) };
        let rows = setup.rows(1, tokens);
        // Most rows in one step, the others by threads that split runs.
        let steps = [tokens - 2, 1, 1];
        let ours = attend(setup, &[Fed { rows: &rows, steps: &steps }]).remove(0);
        check(setup, &rows, &ours, &[0, 1, 127, 128, 511, 512, 639, 640, tokens - 2, tokens - 1]).unwrap();
    }
}

fn precision() -> impl Strategy<Value = Precision> {
    let dtype = prop::sample::select(vec![DType::Fp16, DType::Bf16]);
    let kv = prop::sample::select(vec![KvForm::Auto, KvForm::Auto, KvForm::Int8, KvForm::C8]);
    (dtype, kv).prop_map(|(dtype, kv)| Precision { kv, ..dtype.into() })
}

/// Few and many rows per token, including more than a chunk; channels that fill tiles and channels that do not.
fn shape() -> impl Strategy<Value = AttentionShape> {
    let heads = prop::sample::select(vec![(4, 4), (6, 2), (16, 1), (20, 1), (40, 1)]);
    let channels = prop::sample::select(vec![1, 12, 20, 32, 64, 80, 128]);
    (heads, channels).prop_map(|((heads, kv_heads), channels)| AttentionShape { heads, kv_heads, channels })
}

/// Generates a set of each family.
fn family() -> impl Strategy<Value = InstructionSet> {
    prop::sample::select(vec![
        InstructionSet::best_vector(),
        InstructionSet::AmxPortable,
        Family::Pairs.best(),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Every number equals the formula, within the permitted roundings.
    #[test]
    fn ragged_batches_give_what_the_formula_says(
        precision in precision(), shape in shape(), set in family(), threads in 1usize..4, seed: u64,
        lengths in prop::collection::vec(1usize..150, 1..4), chunk in 1usize..90,
    ) {
        let setup = Setup { set, precision, shape, threads };
        let rows: Vec<_> = (0..).zip(&lengths).map(|(i, n)| setup.rows(seed ^ i, *n)).collect();
        let steps = |n: usize| (0..n).step_by(chunk).map(|first| chunk.min(n - first)).collect::<Vec<_>>();
        let steps: Vec<_> = lengths.iter().map(|n| steps(*n)).collect();
        let fed: Vec<_> = rows.iter().zip(&steps).map(|(rows, steps)| Fed { rows, steps }).collect();
        for ((rows, n), ours) in rows.iter().zip(&lengths).zip(attend(setup, &fed)) {
            check(setup, rows, &ours, &[0, n / 3, n / 2, n - 1])?;
        }
    }

    /// The tile registers, if present, and their reference kernels give the same bits. So do all vector kernels.
    #[test]
    fn sets_of_a_family_agree(
        precision in precision(), shape in shape(), seed: u64, tokens in 1usize..140, chunk in 1usize..90,
    ) {
        let of = |set| {
            let setup = Setup { set, precision, shape, threads: 2 };
            let rows = setup.rows(seed, tokens);
            let steps: Vec<_> = (0..tokens).step_by(chunk).map(|first| chunk.min(tokens - first)).collect();
            bits(&attend(setup, &[Fed { rows: &rows, steps: &steps }]).remove(0))
        };
        for family in Family::ALL.into_iter().filter(|family| family.sets().count() > 1) {
            let all: Vec<_> = family.sets().map(of).collect();
            prop_assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{family:?}");
        }
    }
}

#[test]
fn threads_chunks_and_company_do_not_move_a_bit() {
    let int8 = Precision { kv: KvForm::Int8, ..DType::Fp16.into() };
    for (set, precision, tokens) in [
        (InstructionSet::best_vector(), DType::Fp16.into(), LONGER),
        (InstructionSet::best_vector(), int8, LONG),
        (InstructionSet::best_vector(), Precision { kv: KvForm::C8, ..int8 }, LONG),
        (InstructionSet::AmxPortable, DType::Fp16.into(), LONG),
        (InstructionSet::AmxPortable, DType::Bf16.into(), LONG),
        (InstructionSet::AmxPortable, int8, LONG),
        (InstructionSet::AmxPortable, Precision { kv: KvForm::C8, ..int8 }, LONG),
        (Family::Pairs.best(), DType::Bf16.into(), LONG),
    ] {
        let shape = if set.family() == Family::Vectors { SMALL } else { ONE_GROUP };
        let setup = Setup { shape, ..Setup::new(set, precision) };
        let (mine, other) = (setup.rows(2, tokens), setup.rows(3, tokens));
        let whole = Setup { threads: 1, ..setup };
        let expected = bits(&attend(whole, &[Fed { rows: &mine, steps: &[tokens] }]).remove(0));
        // Single tokens at the end, so that there are few items and their runs are split.
        let cut = [tokens - 200, 61, 100, 30, 3, 1, 1, 1, 1, 1, 1];
        // With sixteen threads, items have one or few tokens.
        let setup = Setup { threads: 16, ..setup };
        let alone = attend(setup, &[Fed { rows: &mine, steps: &cut }]).remove(0);
        assert!(bits(&alone) == expected, "{setup:?}");
        let setup = Setup { threads: 2, ..setup };
        let beside = [Fed { rows: &other, steps: &[130, 1, 1, 5, 1] }, Fed { rows: &mine, steps: &cut }];
        let beside = attend(setup, &beside).remove(1);
        assert!(bits(&beside) == expected, "{setup:?}, beside another");
    }
}

/// The rows of many heads form several chunks, and the last one is narrow.
#[test]
fn chunks_of_rows_do_not_know_of_each_other() {
    const CHANNELS: usize = 40;
    const TOKENS: usize = 50;
    let int8 = Precision { kv: KvForm::Int8, ..DType::Fp16.into() };
    let sets = [InstructionSet::AmxPortable, InstructionSet::best_vector()];
    let types = [DType::Fp16.into(), DType::Bf16.into(), int8];
    for (set, precision) in sets.into_iter().flat_map(|set| types.map(|precision| (set, precision))) {
        let of = |heads: usize| Setup {
            shape: AttentionShape { heads, kv_heads: 1, channels: CHANNELS },
            ..Setup::new(set, precision)
        };
        let (many, one) = (of(45), of(1));
        let rows = many.rows(4, TOKENS);
        let all = attend(many, &[Fed { rows: &rows, steps: &[TOKENS] }]).remove(0);
        for head in [0, 15, 16, 31, 32, 44] {
            let of_head = |row: &[f32]| row[head * CHANNELS..][..CHANNELS].to_vec();
            let with_kv = |row: &[f32]| [of_head(row), row[many.q_width()..].to_vec()].concat();
            let expected: Vec<f32> = all.chunks_exact(many.q_width()).flat_map(of_head).collect();
            let rows: Vec<f32> = rows.chunks_exact(many.width()).flat_map(with_kv).collect();
            let alone = attend(one, &[Fed { rows: &rows, steps: &[TOKENS] }]).remove(0);
            assert!(bits(&alone) == bits(&expected), "{precision} head {head}");
        }
    }
}

/// Blocks keep the data of earlier sequences, which must not affect later ones.
#[test]
fn what_a_block_held_before_reaches_nobody() {
    for setup in all_setups() {
        let setup = Setup { shape: AttentionShape { heads: 2, ..SMALL }, ..setup };
        let steps = [1, 30, 2, 63, 5, 1, 31, 1, 1];
        let tokens = steps.iter().sum();
        let rows = setup.rows(5, tokens);
        let mine = [Fed { rows: &rows, steps: &steps }];
        let expected = attend(setup, &mine).remove(0);
        let mut bench = Bench::new(setup, 1, 2 * KV_BLOCK_TOKENS);
        let spoilt = vec![f32::NAN; 2 * KV_BLOCK_TOKENS * setup.width()];
        bench.attend(&[Fed { rows: &spoilt, steps: &[2 * KV_BLOCK_TOKENS] }]);
        let after = bench.attend(&mine).remove(0);
        assert!(after.iter().all(|x| x.is_finite()), "{setup:?}");
        assert_eq!(bits(&after), bits(&expected), "{setup:?}");
    }
}

/// Guesses that the model rejects stay in the cache after the sequence, and must not affect its next rows. The threads
/// split the runs of the long context.
#[test]
fn tokens_that_were_taken_back_reach_nobody() {
    let split = all_setups().filter(|setup| setup.set == setup.set.family().best());
    let split = split.map(|setup| (Setup { shape: ONE_GROUP, threads: 16, ..setup }, super::RUN_TOKENS + 35));
    for (setup, kept) in all_setups().map(|setup| (setup, 35)).chain(split) {
        const STEPS: [usize; 7] = [1, 1, 3, 1, 20, 1, 1];
        const GUESSES: usize = 12;
        let tokens = kept + STEPS.iter().sum::<usize>();
        let (width, rows) = (setup.width(), setup.rows(7, tokens));
        let steps = [&[kept][..], &STEPS].concat();
        let expected = attend(setup, &[Fed { rows: &rows, steps: &steps }]).remove(0);
        for number in [f32::INFINITY, f32::NAN] {
            let mut bench = Bench::new(setup, 1, tokens + GUESSES);
            let mut ours = bench.step(&[(0, &rows[..kept * width])]).remove(0);
            let mut before = kept;
            for step in STEPS {
                let mine = &rows[before * width..(before + step) * width];
                let with_guesses = [mine, &vec![number; GUESSES * width]].concat();
                bench.step(&[(before, &with_guesses)]);
                ours.extend(bench.step(&[(before, mine)]).remove(0));
                before += step;
            }
            assert!(bits(&ours) == bits(&expected), "{setup:?} {number}");
        }
    }
}

/// A row that is alone in its step finds no later tokens in the cache. Its numbers are those of the same row in a chunk,
/// where later keys and values are infinite, NaN, or so large that int8 numbers or scores overflow.
#[test]
fn later_tokens_that_are_not_finite_move_no_bit() {
    const TOKENS: usize = 60;
    let nan_of_ones = f32::from_bits(u32::MAX >> 1);
    for setup in all_setups() {
        let clean = setup.rows(8, TOKENS);
        let large = match setup.precision.dtype {
            DType::Fp32 => f32::MAX,
            DType::Fp16 => 65_504.0,
            DType::Bf16 => f32::from_bits(f32::MAX.to_bits() & 0xFFFF_0000),
        };
        let AttentionShape { kv_heads, channels, .. } = setup.shape;
        for (number, is_value) in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, nan_of_ones, large, -large]
            .into_iter()
            .flat_map(|number| [(number, false), (number, true)])
        {
            let mut rows = clean.clone();
            // Two tokens of one head: the second one spoils another channel.
            for (token, channel) in [(20, 3), (45, 17)] {
                let at = channel + if is_value { kv_heads * channels } else { 0 };
                rows[token * setup.width() + setup.q_width() + at] = number;
            }
            let of = |threads, chunk: usize| {
                let steps: Vec<_> = (0..TOKENS).step_by(chunk).map(|at| chunk.min(TOKENS - at)).collect();
                let fed = Fed { rows: &rows, steps: &steps };
                bits_but_nan(&attend(Setup { threads, ..setup }, &[fed]).remove(0))
            };
            let expected = of(1, 1);
            assert!(expected[..20 * setup.q_width()].iter().all(|x| f32::from_bits(*x).is_finite()));
            for (threads, chunk) in [(1, 13), (1, TOKENS), (4, TOKENS)] {
                let what = || format!("{setup:?}: {number} as a value: {is_value}, chunks of {chunk}");
                let found = of(threads, chunk);
                let wrong = found.iter().zip(&expected).position(|(x, expected)| x != expected);
                assert!(wrong.is_none(), "{}: number {wrong:?}", what());
            }
        }
    }
}

/// A non-finite key or value makes the results of the rows that see it NaN, and affects no other row.
#[test]
fn integers_that_are_spoilt_are_seen_by_those_who_see_the_token() {
    const TOKENS: usize = 60;
    for set in sets() {
        let setup = Setup::new(set, Precision { kv: KvForm::Int8, ..DType::Fp16.into() });
        let AttentionShape { kv_heads, channels, .. } = setup.shape;
        let clean = setup.rows(6, TOKENS);
        let of = |rows: &[f32]| attend(setup, &[Fed { rows, steps: &[TOKENS - 1, 1] }]).remove(0);
        let expected = of(&clean);
        for (token, channel) in [(20, 3), (45, kv_heads * channels + 7)] {
            let mut rows = clean.clone();
            rows[token * setup.width() + setup.q_width() + channel] = f32::INFINITY;
            let ours = of(&rows);
            // The channel belongs to the first KV head, so to the first half of the heads.
            for (i, (x, expected)) in ours.iter().zip(&expected).enumerate() {
                let sees = i / setup.q_width() >= token && i % setup.q_width() < setup.q_width() / 2;
                let right = if sees { x.is_nan() } else { x.to_bits() == expected.to_bits() };
                assert!(right, "{setup:?} token {token}: {x} at {i}");
            }
        }
    }
}

/// A sum of minus zero stays so if nothing is added, and becomes zero if a later value is added with a weight of zero. Both
/// are zero in the results.
#[test]
fn later_tokens_do_not_move_the_sign_of_zero() {
    for setup in all_setups() {
        let shape = AttentionShape { heads: 1, kv_heads: 1, channels: 16 };
        let setup = Setup { shape, threads: 1, ..setup };
        // The weight of the first token is so small that its product with the value rounds to minus zero. The first item
        // has half the tokens.
        let tokens = [(0.0, -1e-30), (400.0, -0.0), (0.0, 5.0), (0.0, 5.0), (0.0, 5.0), (0.0, 5.0)];
        let rows = tokens.map(|(key, value)| [[1.0; 16], [key; 16], [value; 16]].concat()).concat();
        let of = |steps: &[usize]| bits(&attend(setup, &[Fed { rows: &rows, steps }]).remove(0));
        assert_eq!(of(&[6]), of(&[1; 6]), "{setup:?}");
    }
}
