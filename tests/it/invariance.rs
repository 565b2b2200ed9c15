//! The numbers of a sequence are equal to the last bit whatever the rest of the batch, the prompt's chunks, or the
//! number of threads. They are also equal for all instruction sets of a family (vectors, or AMX tiles).

use std::path::Path;
use std::sync::Arc;

use glmbench_cpu::{Family, InstructionSet};
use glmbench_device::Precision;
use glmbench_device::rotary::RotaryMode;
use glmbench_engine::Engine;
use glmbench_engine::Request;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::load::{DeviceKind, LoadOptions, load};
use glmbench_engine::model::Capacity;
use glmbench_engine::weights::StorageType;
use glmbench_engine::weights::dummy::Dummy;
use proptest::prelude::*;

const VOCAB: usize = 96;

/// Shapes with widths that are not multiples of convenient sizes.
fn config(shape: usize) -> ModelConfig {
    let (heads, groups, channels, prefix) =
        [(4, 2, 16, ""), (4, 1, 12, ""), (4, 4, 20, r#","pre_seq_len":5"#), (6, 3, 32, "")][shape];
    let text = format!(
        r#"{{"model_type":"chatglm","num_layers":2,"hidden_size":52,"ffn_hidden_size":75,"kv_channels":{channels},
        "num_attention_heads":{heads},"multi_query_attention":true,"multi_query_group_num":{groups},
        "padded_vocab_size":{VOCAB},"seq_length":4096,"add_qkv_bias":true{prefix}}}"#
    );
    ModelConfig::from_json(&text, Path::new("config.json")).unwrap()
}

#[derive(Debug, Clone, Copy)]
struct Setup {
    shape: usize,
    precision: Precision,
    threads: usize,
    chunk: usize,
    batch: usize,
    instruction_set: InstructionSet,
}

impl Setup {
    fn engine(self) -> Engine {
        let config = config(self.shape);
        let capacity =
            Capacity { max_step_tokens: self.chunk, ..Capacity::for_batch(&config, self.batch, 400) };
        let options = LoadOptions {
            rotary: RotaryMode::Model,
            threads: Some(self.threads),
            instruction_set: Some(self.instruction_set),
            ..LoadOptions::plain(DeviceKind::Cpu, self.precision, capacity)
        };
        let source = Dummy::new(config.clone(), StorageType::F32, 3);
        load(&config, Arc::new(source), &options, &mut |_, _| {}).unwrap()
    }
}

/// Returns output tokens and the bits of every log-probability after the prompt, one sequence per row.
fn run(setup: Setup, prompts: &[Vec<u32>]) -> Vec<(Vec<u32>, Vec<u32>)> {
    let mut engine = setup.engine();
    for prompt in prompts {
        let request = Request {
            prompt: prompt.clone(),
            max_new_tokens: 6,
            ignore_eos: true,
            choice_ids: (0..VOCAB as u32).collect(),
            ..Request::probe()
        };
        engine.submit(request).unwrap();
    }
    let mut finished = Vec::new();
    while !engine.is_idle() {
        finished.extend(engine.step().unwrap().finished);
    }
    finished.sort_by_key(|c| c.id);
    finished
        .into_iter()
        .map(|c| (c.tokens, c.choice_logprobs.iter().map(|l| l.to_bits()).collect()))
        .collect()
}

/// Returns the best kernels of each family on this machine.
fn families() -> impl Strategy<Value = InstructionSet> {
    prop::sample::select(Family::ALL.map(Family::best).to_vec())
}

fn precision(word: &str) -> Precision {
    word.parse().unwrap()
}

fn precisions() -> impl Strategy<Value = Precision> {
    let words = [
        "fp32",
        "fp16",
        "bf16",
        "w8a8-dynamic",
        "fp16+kv-int8",
        "w8a8-dynamic+kv-int8",
        "w8a8",
        "w8a16",
        "w4a16+kv-int8",
        "w4a8-dynamic",
    ];
    prop::sample::select(words.map(precision).to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn batch_chunks_and_threads_do_not_move_a_bit(
        prompts in prop::collection::vec(prop::collection::vec(0..VOCAB as u32, 1..200), 1..5),
        shape in 0..4usize,
        precision in precisions(),
        instruction_set in families(),
        threads in 1..=2usize,
        chunk in 1..64usize,
        batch in 1..=4usize,
    ) {
        let alone = Setup { shape, precision, threads: 1, chunk: 512, batch: 1, instruction_set };
        let mixed = Setup { threads, chunk, batch, ..alone };
        let expected: Vec<_> = prompts.iter().flat_map(|p| run(alone, std::slice::from_ref(p))).collect();
        prop_assert_eq!(run(mixed, &prompts), expected);
    }
}

#[test]
fn instruction_sets_of_a_family_agree_to_the_bit() {
    let prompts = [vec![5; 70], (0..40).collect(), vec![9, 8, 7]];
    for (shape, word) in [
        (0, "fp16"),
        (2, "bf16"),
        (3, "fp32"),
        (0, "w8a8-dynamic"),
        (2, "w8a8-dynamic+kv-int8"),
        (1, "bf16+kv-int8"),
        (0, "w8a8"),
        (2, "w8a16"),
        (1, "w4a16"),
        (3, "w4a8-dynamic+kv-int8"),
    ] {
        let precision = precision(word);
        let of = |instruction_set| {
            run(Setup { shape, precision, threads: 2, chunk: 48, batch: 3, instruction_set }, &prompts)
        };
        for family in Family::ALL {
            let expected = of(family.reference());
            for set in family.sets().filter(|set| *set != family.reference()) {
                assert_eq!(of(set), expected, "{} {precision}", set.name());
            }
        }
    }
}
