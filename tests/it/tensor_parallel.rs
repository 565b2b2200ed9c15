//! A model on several ranks matches the model on one: numbers, rejections, failures and shutdown.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use glmbench::stats::parity::PositionParity;
use glmbench_device::rotary::RotaryMode;
use glmbench_device::{DType, Precision};
use glmbench_engine::Engine;
use glmbench_engine::Request;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::load::{DeviceKind, Emulate, LoadOptions, load, load_tokenizer};
use glmbench_engine::memory::MemoryEstimate;
use glmbench_engine::model::Capacity;
use glmbench_engine::weights::dummy::Dummy;
use glmbench_engine::weights::{StorageType, WeightSource, open_checkpoint};

use crate::support::{answer, glmbench, loud, shared};

/// Returns a small model that 1, 2, 4 and 8 ranks can share, with `keys` overridden.
fn config(keys: &str) -> ModelConfig {
    let mut all: serde_json::Value = serde_json::from_str(
        r#"{"model_type":"chatglm","num_layers":2,"hidden_size":40,"ffn_hidden_size":72,"kv_channels":12,
        "num_attention_heads":8,"multi_query_attention":true,"multi_query_group_num":2,
        "padded_vocab_size":96,"seq_length":4096,"add_qkv_bias":true}"#,
    )
    .unwrap();
    let keys: serde_json::Value = serde_json::from_str(keys).unwrap();
    for (key, value) in keys.as_object().unwrap() {
        all[key] = value.clone();
    }
    ModelConfig::from_json(&all.to_string(), Path::new("config.json")).unwrap()
}

const MODELS: [&str; 5] = [
    "{}",
    r#"{"multi_query_group_num":1}"#,
    r#"{"multi_query_group_num":8,"add_qkv_bias":false}"#,
    r#"{"pre_seq_len":5,"multi_query_group_num":4}"#,
    r#"{"pre_seq_len":130,"prefix_projection":true}"#,
];

#[derive(Debug, Clone, Copy)]
struct Setup {
    device: DeviceKind,
    dtype: DType,
    tp: usize,
    threads: usize,
    chunk: usize,
    batch: usize,
}

/// One CPU rank in fp16.
const CPU: Setup =
    Setup { device: DeviceKind::Cpu, dtype: DType::Fp16, tp: 1, threads: 2, chunk: 512, batch: 8 };

fn engine(config: &ModelConfig, source: Arc<dyn WeightSource>, setup: Setup) -> Engine {
    let capacity = Capacity {
        max_step_tokens: setup.chunk,
        max_logit_rows: 64,
        ..Capacity::for_batch(config, setup.batch, 400)
    };
    let options = LoadOptions {
        emulate: setup.device.is_card().then_some(Emulate { profile: None, timing_only: false }),
        rotary: RotaryMode::Exact,
        threads: Some(setup.threads),
        tp: setup.tp,
        ..LoadOptions::plain(setup.device, setup.dtype.into(), capacity)
    };
    load(config, source, &options, &mut |_, _| {}).unwrap()
}

fn random(config: &ModelConfig, setup: Setup) -> Engine {
    engine(config, Arc::new(loud(Dummy::new(config.clone(), StorageType::F32, 5), 10.0)), setup)
}

/// Returns the logits of every position of a prompt.
fn logits(engine: &mut Engine, prompt: &[u32]) -> Vec<Vec<f32>> {
    let mut rows = Vec::new();
    engine.teacher_force(prompt, &mut |_, row| rows.push(row.to_vec())).unwrap();
    rows
}

/// Returns output tokens and the bits of every log-probability after the prompt, one sequence per row.
fn answers(engine: &mut Engine, prompts: &[Vec<u32>], max_new_tokens: usize) -> Vec<(Vec<u32>, Vec<u32>)> {
    let vocab = engine.config().padded_vocab_size as u32;
    for prompt in prompts {
        let choice_ids = (0..vocab).collect();
        let request = Request { prompt: prompt.clone(), max_new_tokens, choice_ids, ..Request::probe() };
        engine.submit(Request { ignore_eos: true, ..request }).unwrap();
    }
    let mut finished = Vec::new();
    while !engine.is_idle() {
        finished.extend(engine.step().unwrap().finished);
    }
    finished.sort_by_key(|c| c.id);
    let bits = |logprobs: Vec<f32>| logprobs.into_iter().map(f32::to_bits).collect();
    finished.into_iter().map(|c| (c.tokens, bits(c.choice_logprobs))).collect()
}

fn prompts(vocab: u32) -> Vec<Vec<u32>> {
    [1, 3, 40, 129, 17].map(|n| (0..n).map(|i| (i * i + 7 * i + n) % vocab).collect()).to_vec()
}

#[test]
fn in_fp32_ranks_only_add_in_another_order() {
    for keys in MODELS {
        let config = config(keys);
        let oracle = Setup { device: DeviceKind::Reference, dtype: DType::Fp32, ..CPU };
        let prompt = &prompts(96)[2];
        let one = logits(&mut random(&config, oracle), prompt);
        for (device, tp) in [(DeviceKind::Reference, 2), (DeviceKind::Reference, 8), (DeviceKind::Cpu, 4)] {
            let several = logits(&mut random(&config, Setup { device, tp, ..oracle }), prompt);
            assert_eq!(several.len(), one.len());
            let differences = one
                .iter()
                .flatten()
                .zip(several.iter().flatten())
                .map(|(a, b)| (a - b).abs() / b.abs().max(1.0));
            let most = differences.fold(0.0, f32::max);
            println!("{keys} {} tp {tp}: {most:.1e}", device.name());
            assert!(most <= 1e-5, "{keys} {} tp {tp}: {most}", device.name());
        }
    }
}

/// Returns the index of the largest logit and its lead over the next.
fn best(logits: &[f32]) -> (usize, f32) {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    (order[0], logits[order[0]] - logits[order[1]])
}

/// Returns the largest lead of a choice that several ranks may make differently.
///
/// A rank's part of a sum is rounded, and so is the total. A single rank rounds only the total. That makes `ranks + 1`
/// roundings for each of the two sums per layer, and one for the logit itself. A rounding is off by at most 2^-11 of
/// its number, with an RMS of 2^-11 / sqrt(3). The roundings are independent, so their squares add up, and both logits
/// have them. The bound is four times the RMS, relative to the largest logit.
fn may_be_ahead(config: &ModelConfig, tp: usize, logits: &[f32]) -> f32 {
    let roundings = (2 * config.num_layers * (tp + 1) + 1) as f32;
    let largest = logits.iter().fold(0f32, |most, x| most.max(x.abs()));
    4.0 * (2.0 * roundings / 3.0).sqrt() * 2f32.powi(-11) * largest
}

/// Compares several ranks of a device with one, over prompts and their greedy continuations by one rank. Logits must be
/// within the gate, and choices equal wherever rounding cannot decide them.
fn held(config: &ModelConfig, source: &Arc<dyn WeightSource>, device: DeviceKind, tp: usize) {
    let of = |tp| engine(config, Arc::clone(source), Setup { device, tp, ..CPU });
    let (mut one, mut several) = (of(1), of(tp));
    assert_eq!(several.device_info().tp, tp);
    let what = format!("{} tp {tp}", device.name());
    let prompts = prompts(config.padded_vocab_size as u32);
    let (mut worst, mut close, mut all, mut ahead) = (0.0f64, 0, 0, 0f32);
    for (prompt, (continuation, _)) in prompts.iter().zip(answers(&mut one, &prompts, 24)) {
        let fed = [prompt.as_slice(), &continuation].concat();
        for (a, b) in logits(&mut one, &fed).iter().zip(logits(&mut several, &fed)) {
            worst = worst.max(PositionParity::new(a, &b).kl);
            let ((choice, margin), (other, _)) = (best(a), best(&b));
            let allowed = may_be_ahead(config, tp, a);
            assert!(choice == other || margin <= allowed, "{what}: {other} for {choice}, ahead by {margin}");
            if choice != other {
                (close, ahead) = (close + 1, ahead.max(margin / allowed));
            }
            all += 1;
        }
    }
    println!("{what}: max KL {worst:.1e}, {close} choices of {all} differ, at most {ahead:.2} of the bound");
    assert!(worst <= 1e-3, "{what}: {worst}");
}

/// Returns the small model of these tests, the demo model, and the goldens' models if available.
fn checkpoints() -> Vec<(ModelConfig, Arc<dyn WeightSource>)> {
    let small = config("{}");
    let dummy = Dummy::new(small.clone(), StorageType::F32, 5);
    let mut all: Vec<(_, Arc<dyn WeightSource>)> = vec![(small, Arc::new(loud(dummy, 10.0)))];
    let goldens = ["goldens/tiny-g2", "goldens/prefix-g2"].iter().filter_map(|name| shared(name));
    for dir in std::iter::once(demo()).chain(goldens) {
        let config = ModelConfig::from_file(&dir.join("config.json")).unwrap();
        all.push((config, open_checkpoint(&dir).unwrap().into()));
    }
    all
}

#[test]
fn in_fp16_ranks_stay_within_the_gate() {
    for (config, source) in checkpoints() {
        held(&config, &source, DeviceKind::Cpu, 2);
        held(&config, &source, DeviceKind::Cpu, 4);
    }
}

#[test]
fn in_fp16_emulated_chips_stay_within_the_gate() {
    for (config, source) in checkpoints() {
        held(&config, &source, DeviceKind::Duo300i, 2);
        held(&config, &source, DeviceKind::A2800i, 2);
        held(&config, &source, DeviceKind::A2800i, 4);
        if config.num_attention_heads.is_multiple_of(8) {
            held(&config, &source, DeviceKind::A2800i, 8);
        }
    }
}

fn demo() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/demo")
}

#[test]
fn the_demo_model_writes_the_same_on_any_number_of_ranks() {
    let config = ModelConfig::from_file(&demo().join("config.json")).unwrap();
    let tokenizer = load_tokenizer(&demo(), Some(&config)).unwrap();
    let questions = [
        "The kitchen has the cook. The tower has the farmer. The station has the painter.\nQuestion: does the station \
         have the cook?\nAnswer:",
        "First came the farmer, then the teacher, and last the cook.\nQuestion: did the cook come before the farmer?\n\
         Answer:",
        "以下是中国关于世界首都考试的单项选择题，请选出其中的正确答案。\n法国的首都是____。\nA. 柏林\nB. 巴黎\nC. 罗马\nD. 东京\n答案：",
    ];
    let prompts = questions.map(|text| tokenizer.encode_prompt(text));
    let source: Arc<dyn WeightSource> = open_checkpoint(&demo()).unwrap().into();
    let tokens = |device, tp| -> Vec<Vec<u32>> {
        let mut engine = engine(&config, Arc::clone(&source), Setup { device, tp, ..CPU });
        answers(&mut engine, &prompts, 16).into_iter().map(|(tokens, _)| tokens).collect()
    };
    for (device, tp_sizes) in
        [(DeviceKind::Cpu, &[2, 4][..]), (DeviceKind::Duo300i, &[2]), (DeviceKind::A2800i, &[2, 4])]
    {
        let one = tokens(device, 1);
        for tp in tp_sizes {
            assert_eq!(tokens(device, *tp), one, "{} tp {tp}", device.name());
        }
    }
}

#[test]
fn batch_chunks_and_threads_do_not_move_a_bit_of_several_ranks() {
    for (keys, tp, dtype) in [
        (MODELS[0], 2, DType::Fp16),
        (MODELS[1], 4, DType::Bf16),
        (MODELS[3], 2, DType::Fp32),
        (MODELS[4], 8, DType::Fp16),
    ] {
        let config = config(keys);
        let alone = Setup { tp, dtype, threads: 1, batch: 1, ..CPU };
        let prompts = prompts(96);
        let expected = answers(&mut random(&config, alone), &prompts, 5);
        for (threads, chunk, batch) in [(1, 23, 3), (5, 64, 5), (16, 512, 2)] {
            let mixed = Setup { threads, chunk, batch, ..alone };
            assert_eq!(answers(&mut random(&config, mixed), &prompts, 5), expected, "{keys} {mixed:?}");
        }
    }
}

#[test]
fn a_tensor_parallel_size_that_cannot_be_is_refused_before_anything_is_loaded() {
    let config = config(r#"{"padded_vocab_size":100}"#);
    let capacity = Capacity::for_batch(&config, 1, 100);
    for (tp, device) in [(3, DeviceKind::Cpu), (8, DeviceKind::Reference), (0, DeviceKind::Cpu)] {
        let options = LoadOptions {
            rotary: RotaryMode::Exact,
            threads: None,
            tp,
            ..LoadOptions::plain(device, DType::Fp32.into(), capacity)
        };
        let source = Arc::new(Dummy::new(config.clone(), StorageType::F16, 1));
        let loaded = load(&config, source, &options, &mut |_, _| panic!("something was loaded"));
        let error = loaded.err().unwrap().to_string();
        assert!(error.contains(&format!("tp {tp} cannot be: ")), "{error}");
        assert!(error.ends_with("this model can run with tp 1, 2, 4"), "{error}");
    }
}

/// A 300I DUO has two chips. This model could be split into four.
#[test]
fn more_ranks_than_chips_are_refused_with_those_that_can_be() {
    let out = tempfile::tempdir().unwrap();
    let out = out.path().to_str().unwrap();
    let card = ["--model", "demo", "--device", "300i-duo", "--emulate", "--tp", "4"];
    let run = ["run", "suites/quickstart.toml", "--out", out];
    for words in [&["chat", "--prompt", "a"][..], &run] {
        let said = ["tp 4 needs 4 chips, visible is 2: tp 1 to 2 can be"];
        answer(&[words, &card].concat()).expect(5, &said);
    }
    assert_eq!(std::fs::read_dir(out).unwrap().count(), 0);
}

#[test]
fn a_rank_needs_its_part_of_the_memory() {
    let config = ModelConfig::chatglm2_6b();
    let capacity = Capacity::for_batch(&config, 4, 2048);
    let rank = |tp| MemoryEstimate::per_rank(&config, DType::Fp16, capacity, tp).unwrap();
    assert_eq!(rank(1), MemoryEstimate::new(&config, DType::Fp16, capacity));
    let (one, two, four) = (rank(1), rank(2), rank(4));
    assert_eq!((two.kv_bytes, four.kv_bytes), (one.kv_bytes / 2, one.kv_bytes / 2));
    // Half of everything but embedding and norms, which every rank holds whole.
    let whole = 2 * (65024 * 4096 + 57 * 4096);
    assert_eq!(two.weight_bytes, (one.weight_bytes - whole) / 2 + whole);
    assert_eq!(two.of_ranks(2).kv_bytes, one.kv_bytes);
    assert!(MemoryEstimate::per_rank(&config, DType::Fp16, capacity, 5).is_err());
}

#[test]
fn integers_take_half_the_memory_of_what_they_hold() {
    let config = ModelConfig::chatglm2_6b();
    let capacity = Capacity::for_batch(&config, 4, 2048);
    let of = |word: &str| MemoryEstimate::new(&config, word.parse::<Precision>().unwrap(), capacity);
    let (fp16, w8a8, kv) = (of("fp16"), of("w8a8-dynamic"), of("fp16+kv-int8"));
    // Four matrices per layer and the output layer are integers, with one 4-byte scale per output channel.
    let numbers = 28 * (4608 + 4096 + 2 * 13_696 + 13_696) * 4096 + 65_024 * 4096;
    let channels = 28 * (4608 + 4096 + 2 * 13_696 + 4096) + 65_024;
    assert_eq!(w8a8.weight_bytes, fp16.weight_bytes - numbers + 4 * channels);
    assert_eq!((w8a8.kv_bytes, kv.weight_bytes), (fp16.kv_bytes, fp16.weight_bytes));
    // A key and a value have 128 bytes and a 4-byte scale per head, instead of 128 numbers of two bytes. The key has a zero point.
    assert_eq!(kv.kv_bytes, fp16.kv_bytes / 512 * (2 * 132 + 1));
}

#[test]
fn several_ranks_say_so() {
    let info = random(&config("{}"), Setup { tp: 4, threads: 8, ..CPU }).device_info();
    assert_eq!((info.tp, info.threads, info.name.as_str()), (4, 8, "cpu"));
}

#[test]
fn parity_on_the_command_line_compares_ranks_with_one() {
    let words = ["parity", "--model", "demo", "--tp", "2", "--against", "cpu", "--decode", "8", "--json"];
    let outcome: serde_json::Value = serde_json::from_str(&answer(&words).expect(0, &[]).out).unwrap();
    assert_eq!(outcome["pass"], true, "{outcome}");
    // The model was really split: sums in another order are not equal to the bit.
    assert!(outcome["max_abs_difference"].as_f64().unwrap() > 0.0, "{outcome}");
}

#[test]
fn the_environment_stands_in_for_the_flags() {
    let chat = ["chat", "--model", "demo", "--greedy", "--max-new-tokens", "2", "--prompt", "a"];
    let with = |name: &str, value: &str, more: &[&str]| {
        glmbench(&[&chat, more].concat()).env(name, value).output().unwrap()
    };
    let words = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let refused = with("TP_WORLD_SIZE", "3", &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(words(&refused).contains("tp 3 cannot be: 4 query heads"), "{}", words(&refused));
    let refused = with("TP_WORLD_SIZE", "two", &[]);
    assert!(words(&refused).contains("TP_WORLD_SIZE is \"two\", expected a number of ranks"));
    let refused = with("BIND_CPU", "yes", &[]);
    assert!(words(&refused).contains("BIND_CPU is \"yes\", expected 0 or 1"));
    // The flag takes precedence.
    assert_eq!(with("TP_WORLD_SIZE", "3", &["--tp", "2"]).status.code(), Some(0));
    assert_eq!(with("TP_WORLD_SIZE", "2", &["--bind"]).status.code(), Some(0));
    assert_eq!(with("BIND_CPU", "1", &[]).status.code(), Some(0));
}

#[test]
fn a_suite_s_impossible_ranks_are_known_before_it_runs() {
    let out = tempfile::tempdir().unwrap();
    let out = out.path().to_str().unwrap();
    let words = ["run", "suites/quickstart.toml", "--model", "demo", "--tp", "8", "--out", out];
    answer(&words).expect(2, &["tp 8 cannot be: 4 query heads", "tp 1, 2, 4"]);
}
