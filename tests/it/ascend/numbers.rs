//! What a sequence's numbers do not depend on: chunks, batch, plans, ranks.

use std::sync::Arc;

use glmbench_ascend::{AscendGroup, Chip, GroupSettings};
use glmbench_device::reference::Reference;
use glmbench_device::rotary::RotaryMode;
use glmbench_device::{AttentionShape, DType, Device, KV_BLOCK_TOKENS, KvShape, SequenceView};
use glmbench_engine::Engine;
use glmbench_engine::model::attention_shape;
use glmbench_engine::parallel::{Cut, Ranks};
use glmbench_engine::weights::WeightSource;

use super::{CHIPS, answers, capacity, engine, left, prompts, random, settings};

/// Plans that cannot be kept are created again, with the same results.
#[test]
fn plans_that_cannot_be_kept_change_no_number() {
    let (config, source) = random();
    for chip in CHIPS {
        let answered = |lines: &str| {
            let group = AscendGroup::new(settings(chip, attention_shape(&config), lines, "")).unwrap();
            let mut engine = engine(&group, &config, &source, 64).unwrap();
            let first = answers(&mut engine, &prompts(), 320);
            // Kept plans are released, and come from the cache when they are created again.
            engine.start_afresh().unwrap();
            let second = answers(&mut engine, &prompts(), 320);
            drop(engine);
            assert_eq!(left(&group), [], "{} {lines}", chip.name());
            (first, second)
        };
        let (first, second) = answered("");
        assert_eq!(first, second);
        for lines in ["executor_cache = on", "fault = single-use:RmsNorm", "fault = single-use:Embedding"] {
            assert_eq!(answered(lines), (first.clone(), first.clone()), "{} {lines}", chip.name());
        }
    }
}

/// The prompt operator computes whole prompts and later chunks alike, so chunks do not change a bit.
#[test]
fn chunks_of_a_prompt_on_a_310p_do_not_change_a_bit() {
    let (config, source) = random();
    let group = |step| {
        let group =
            AscendGroup::new(settings(Chip::Duo300i, attention_shape(&config), "", "kv=copy")).unwrap();
        let mut engine = engine(&group, &config, &source, step).unwrap();
        let prompt: Vec<u32> = (0..290).map(|i| (i * 37) % 320).collect();
        answers(&mut engine, &[prompt], 320)
    };
    let whole = group(512);
    for step in [24, 100, 145] {
        assert!(group(step) == whole, "chunks of {step}");
    }
}

/// A chunk in a context of more than 4,096 tokens, with packed heads and by matmul, against plain loops.
#[test]
fn a_late_chunk_of_a_long_prompt_is_right_by_every_plan() {
    const CONTEXT: usize = 4_300;
    const ROWS: usize = 280;
    let heads = AttentionShape { heads: 8, kv_heads: 2, channels: 16 };
    let shape = KvShape { layers: 1, kv_heads: 2, channels: 16, blocks: CONTEXT.div_ceil(KV_BLOCK_TOKENS) };
    let blocks: Vec<u32> = (0..shape.blocks as u32).rev().collect();
    let width = (heads.heads + 2 * heads.kv_heads) * heads.channels;
    let numbers: Vec<f32> = (0..CONTEXT * width)
        .map(|i| DType::Fp16.round(((i * 7919 % 2003) as f32 / 1001.0 - 1.0) * 1.5))
        .collect();
    fn late<D: Device>(
        device: &mut D,
        (heads, shape): (AttentionShape, KvShape),
        blocks: &[u32],
        numbers: &[f32],
    ) -> Vec<f32> {
        let mut cache = device.kv_cache(shape).unwrap();
        let before = CONTEXT - ROWS;
        let width = numbers.len() / CONTEXT;
        let mut out = device.activation(ROWS, heads.heads * heads.channels).unwrap();
        // Queued work uses the activations until the results are there.
        let mut kept = Vec::new();
        for (range, context) in [(0..before, before), (before..CONTEXT, CONTEXT)] {
            let mut qkv = device.qkv_activation(range.len(), heads).unwrap();
            device.upload(&numbers[range.start * width..range.end * width], &mut qkv).unwrap();
            let sequences = [SequenceView { rows: 0..range.len(), context, blocks }];
            device.write_kv(&qkv, &mut cache, 0, &sequences, heads).unwrap();
            if context == CONTEXT {
                device.attention(&qkv, &cache, 0, &sequences, heads, &mut out).unwrap();
            }
            kept.push(qkv);
        }
        let mut result = Vec::new();
        device.download(&out, &mut result).unwrap();
        result
    }
    let expected = late(&mut Reference::default(), (heads, shape), &blocks, &numbers);
    let largest = expected.iter().fold(0f32, |most, v| most.max(v.abs()));
    for forced in ["", "prefill=prompt-square", "prefill=matmul"] {
        let group = AscendGroup::new(settings(Chip::Duo300i, heads, "", forced)).unwrap();
        let ours = late(&mut group.rank(0).unwrap(), (heads, shape), &blocks, &numbers);
        let error = ours.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        // Six roundings, as in the self-test.
        assert!(error <= 12.0 * largest.max(1e-3) / 2048.0, "{forced}: {error} of {largest}");
        eprintln!("{forced}: largest error {error:.1e} of {largest:.2}");
    }
}

#[test]
fn a_sequence_does_not_depend_on_its_batch() {
    let (config, source) = random();
    for chip in CHIPS {
        for forced in ["", "decode=prompt", "decode=matmul"] {
            let group = AscendGroup::new(settings(chip, attention_shape(&config), "", forced)).unwrap();
            let mut engine = engine(&group, &config, &source, 256).unwrap();
            let together = answers(&mut engine, &prompts(), 320);
            let alone: Vec<_> =
                prompts().iter().flat_map(|p| answers(&mut engine, std::slice::from_ref(p), 320)).collect();
            assert!(together == alone, "{} {forced}", chip.name());
        }
    }
}

/// For choices where one operator computes all rows of a chunk, whatever their number.
#[test]
fn a_sequence_does_not_depend_on_its_chunks() {
    let (config, source) = random();
    for (chip, forced) in [
        (Chip::A2800i, ""),
        (Chip::A2800i, "prefill=matmul,decode=matmul"),
        (Chip::Duo300i, ""),
        (Chip::Duo300i, "prefill=matmul,decode=matmul"),
    ] {
        let of_step = |step| {
            let group = AscendGroup::new(settings(chip, attention_shape(&config), "", forced)).unwrap();
            answers(&mut engine(&group, &config, &source, step).unwrap(), &prompts(), 320)
        };
        assert!(of_step(256) == of_step(29), "{} {forced}", chip.name());
    }
}

/// Streams are lazy, so a forgotten wait shows. `tensor_parallel.rs` tests choices and whole logits.
#[test]
fn two_ranks_wait_for_each_other() {
    let (config, source) = random();
    let source: Arc<dyn WeightSource> = Arc::new(source);
    for chip in CHIPS {
        let of_tp = |tp| {
            let rank = Cut::new(&config, 0, tp).unwrap().config(&config);
            let settings = GroupSettings { tp, ..settings(chip, attention_shape(&rank), "", "") };
            let group = AscendGroup::new(settings).unwrap();
            let capacity = capacity(&config, 64);
            let ranks =
                Ranks::load(group, &config, RotaryMode::Model, capacity, source.clone(), &mut |_, _| {});
            answers(&mut Engine::new(Box::new(ranks.unwrap())), &prompts(), 320)
        };
        for ((a, _), (b, _)) in of_tp(1).iter().zip(&of_tp(2)) {
            let kl: f64 = a.iter().zip(b).map(|(p, q)| f64::from(*p).exp() * f64::from(p - q)).sum();
            assert!(kl.abs() <= 1e-4, "{} {kl}", chip.name());
        }
    }
}
