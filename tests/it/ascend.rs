//! The Ascend device on the emulator: results against the model's own code, every alternative, every fault.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glmbench_ascend::{
    Ascend, AscendGroup, AscendMemory, Chip, Emulation, Forced, GroupSettings, Scope, Selftest, Status,
    Widths, selftest,
};
use glmbench_device::group::DeviceGroup;
use glmbench_device::reference::Reference;
use glmbench_device::rotary::RotaryMode;
use glmbench_device::{
    AttentionShape, DType, Device, DeviceError, KV_BLOCK_TOKENS, KvShape, SequenceView, WeightForm,
};
use glmbench_engine::Engine;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::load::{DeviceKind, LoadOptions, load};
use glmbench_engine::memory::{MemoryEstimate, MemoryOf};
use glmbench_engine::model::{Capacity, Forward, Model, StepInput, attention_shape};
use glmbench_engine::parallel::{Cut, Ranks};
use glmbench_engine::sampler::Sampling;
use glmbench_engine::weights::dummy::Dummy;
use glmbench_engine::weights::{StorageType, WeightSource, open_checkpoint};
use glmbench_engine::{EngineError, Request};

use crate::goldens::{Golden, Seen, margin};
use crate::support::{Loud, answer, shared};

pub(crate) const CHIPS: [Chip; 2] = [Chip::Duo300i, Chip::A2800i];

/// Settings of an emulated machine whose streams run only when somebody waits, so that a forgotten wait shows.
pub(crate) fn settings(chip: Chip, attention: AttentionShape, lines: &str, forced: &str) -> GroupSettings {
    let timing = lines.contains("mode = timing");
    GroupSettings {
        chip,
        tp: 1,
        dtype: DType::Fp16,
        weights: WeightForm::Plain,
        attention,
        bind: false,
        forced: Forced::parse(forced).unwrap(),
        emulation: Some(Emulation::new(chip, None, timing).unwrap().with("streams = lazy").with(lines)),
    }
}

fn config(dir: &Path) -> ModelConfig {
    ModelConfig::from_file(&dir.join("config.json")).unwrap()
}

pub(crate) fn limits(config: &ModelConfig, step: usize) -> Capacity {
    let mut limits = Capacity::for_batch(config, 8, 1024);
    (limits.max_step_tokens, limits.max_logit_rows) = (step, step);
    limits
}

/// Loads a model on rank 0 of a group, on this thread.
pub(crate) fn engine(
    group: &AscendGroup,
    config: &ModelConfig,
    source: &dyn WeightSource,
    step: usize,
) -> Result<Engine, EngineError> {
    let (device, limits): (Ascend, _) = (group.rank(0)?, limits(config, step));
    let model = Model::load(device, config, RotaryMode::Model, limits, source, &mut |_, _| {})?;
    Ok(Engine::new(Box::new(model)))
}

/// Compares our fp16 logits of a golden's prompts, fed in chunks of `step` tokens. Then compares a greedy continuation.
fn compare(dir: &Path, chip: Chip, lines: &str, forced: &str, step: usize) -> Seen {
    let config = config(dir);
    compare_in(dir, &config, settings(chip, attention_shape(&config), lines, forced), step)
}

/// Like [`compare`], with any settings, in their type.
fn compare_in(dir: &Path, config: &ModelConfig, settings: GroupSettings, step: usize) -> Seen {
    let (golden, dtype) = (Golden::read(dir), settings.dtype);
    let group = AscendGroup::new(settings).unwrap();
    let mut engine = engine(&group, config, &*open_checkpoint(dir).unwrap(), step).unwrap();
    let vocab = config.padded_vocab_size;
    let mut seen = Seen::default();
    for (i, prompt) in golden.prompts.iter().enumerate() {
        let expected = golden.array(&format!("{dtype}.prompt{i}"));
        engine
            .teacher_force(prompt, &mut |position, logits| {
                seen.add(&expected[position * vocab..(position + 1) * vocab], logits);
            })
            .unwrap();
        let chosen_by = golden.array(&format!("{dtype}.decode{i}"));
        let clearly = margin(&chosen_by[..vocab]) > 0.05;
        decode(&mut engine, prompt, &golden.ids(&format!("{dtype}.greedy{i}")), clearly);
    }
    seen
}

/// Decodes greedily. The first token must be the golden's, if the golden's choice was clear.
fn decode(engine: &mut Engine, prompt: &[u32], golden: &[u32], clearly: bool) {
    let request = greedy(prompt, golden.len());
    engine.submit(request).unwrap();
    let mut ours = Vec::new();
    while !engine.is_idle() {
        ours.extend(engine.step().unwrap().emitted.into_iter().map(|(_, token)| token));
    }
    assert!(!clearly || ours[0] == golden[0], "the first token of {} prompt tokens", prompt.len());
}

pub(crate) fn greedy(prompt: &[u32], tokens: usize) -> Request {
    Request {
        prompt: prompt.to_vec(),
        max_new_tokens: tokens,
        sampling: Sampling::Greedy,
        ignore_eos: true,
        ..Request::probe()
    }
}

#[track_caller]
fn assert_gate(seen: &Seen, what: &str) {
    eprintln!("{what}: max KL {:.2e}, share above 1e-4 {:.4}", seen.max_kl(), seen.share_above(1e-4));
    assert!(seen.max_kl() <= 1e-3, "{what}: {}", seen.max_kl());
    assert!(seen.share_above(1e-4) <= 0.005, "{what}: {}", seen.share_above(1e-4));
}

#[test]
fn the_goldens_fp16_gate_is_met_on_both_chips() {
    for name in ["tiny-g2", "prefix-g2"] {
        let Some(dir) = shared(&format!("goldens/{name}")) else { return };
        for chip in CHIPS {
            assert_gate(&compare(&dir, chip, "", "", 512), &format!("{name} {}", chip.name()));
        }
    }
}

/// The golden rounds where the CPU device does. That device keeps its largest KL of 1e-3 in bf16, too. The card's
/// operators round at other places, where that limit is too tight. KL grows with the square of a rounding's effect, and
/// bf16's unit is eight times fp16's. So the mean may be 64 times that of fp16, which must pass its gate; twice that,
/// since both are samples. This holds if both types round at the same places, so it uses the rotary operator that goes
/// through fp32 in both.
#[test]
fn on_the_a2_bf16_is_off_by_its_rounding_alone() {
    for name in ["tiny-g2", "prefix-g2"] {
        let Some(dir) = shared(&format!("goldens/{name}")) else { return };
        let config = config(&dir);
        let seen = |dtype, forced| {
            let fp16 = settings(Chip::A2800i, attention_shape(&config), "", forced);
            compare_in(&dir, &config, GroupSettings { dtype, ..fp16 }, 512)
        };
        let bf16 = seen(DType::Bf16, "rotary=each");
        let means = [seen(DType::Fp16, "rotary=each").mean_kl(), bf16.mean_kl()];
        eprintln!("{name} 800i-a2: mean KL {:.2e} in fp16, {:.2e} in bf16", means[0], means[1]);
        assert!(means[1] <= 2.0 * 64.0 * means[0], "{name}: {means:?}");
        for bf16 in [bf16, seen(DType::Bf16, "")] {
            assert!(bf16.max_kl() <= 4e-3, "{name}: {}", bf16.max_kl());
        }
    }
}

#[test]
fn a_type_that_the_chip_lacks_is_refused_before_anything_is_read() {
    let out = tempfile::tempdir().unwrap();
    let out = out.path().to_str().unwrap();
    for (device, dtype, expected) in
        [("300i-duo", "bf16", "expected fp16, the one type"), ("800i-a2", "fp32", "expected fp16 or bf16")]
    {
        let card = ["--model", "demo", "--device", device, "--dtype", dtype, "--emulate"];
        let said = [&*format!("{device}: dtype {dtype} was asked for"), expected];
        answer(&[&["run", "suites/quickstart.toml", "--out", out][..], &card].concat()).expect(5, &said);
        answer(&[&["chat", "--prompt", "a"][..], &card].concat()).expect(5, &said);
    }
    assert_eq!(std::fs::read_dir(out).unwrap().count(), 0);
}

/// Chunks of 24 tokens, so that every prefill alternative meets earlier context.
#[test]
fn every_alternative_meets_the_gate() {
    let Some(dir) = shared("goldens/prefix-g2") else { return };
    let both = [
        "decode=prompt,prefill=prompt,kv=index-copy",
        "decode=matmul,prefill=matmul,kv=copy",
        "decode=matmul,prefill=prompt,kv=memory",
        "decode=incre,prefill=matmul,kv=memory",
        "decode=incre,kv=copy,rotary=host",
        "prefill=prompt-square",
        "add=add-rms-norm,weights=nz",
        "add=add-repeated,weights=nz-mm,decode=matmul,prefill=matmul",
        "bias=added",
        "bias=folded,weights=plain",
        "weights=nz-operator,decode=incre,prefill=prompt",
        "weights=plain,reuse=anew",
    ];
    let a2 = [
        "decode=incre,prefill=fused,kv=scatter",
        "decode=incre-bnsd,prefill=prompt,kv=index-copy",
        "rotary=each,kv=index-copy",
        "decode=fused,prefill=matmul",
    ];
    let ways = CHIPS.iter().flat_map(|chip| both.iter().map(move |forced| (*chip, *forced)));
    for (chip, forced) in ways.chain(a2.map(|forced| (Chip::A2800i, forced))) {
        assert_gate(&compare(&dir, chip, "", forced, 24), &format!("{} {forced}", chip.name()));
    }
}

/// 4 KV groups of 16 channels, and weights large enough for attention to discriminate. The bias of queries, keys and
/// values is the rounding that costs most (`crates/device-ascend/NUMBERS.md`).
#[test]
fn a_bias_within_the_sums_keeps_the_gate_and_an_added_one_is_farther_off() {
    let text = r#"{"model_type":"chatglm","num_layers":3,"hidden_size":128,"ffn_hidden_size":344,"kv_channels":16,
        "num_attention_heads":8,"multi_query_attention":true,"multi_query_group_num":4,"padded_vocab_size":512,
        "seq_length":1024,"add_qkv_bias":true}"#;
    let config = ModelConfig::from_json(text, Path::new("config.json")).unwrap();
    let source = || Loud(Dummy::new(config.clone(), StorageType::F32, 5), 7.5);
    let prompts: Vec<Vec<u32>> = [60usize, 200, 350]
        .iter()
        .map(|n| (0..*n as u32).map(|i| (i * 193 + *n as u32) % 509).collect())
        .collect();
    let logits = |engine: &mut Engine| {
        let mut rows = Vec::new();
        for prompt in &prompts {
            engine.teacher_force(prompt, &mut |_, logits| rows.push(logits.to_vec())).unwrap();
        }
        rows
    };
    let options = LoadOptions {
        device: DeviceKind::Cpu,
        precision: DType::Fp16.into(),
        emulate: None,
        rotary: RotaryMode::Model,
        threads: Some(2),
        instruction_set: None,
        tp: 1,
        bind: false,
        profile_operators: false,
        capacity: limits(&config, 512),
    };
    let cpu = logits(&mut load(&config, Arc::new(source()), &options, &mut |_, _| {}).unwrap());
    let of_card = |forced: &str| {
        let group = AscendGroup::new(settings(Chip::Duo300i, attention_shape(&config), "", forced)).unwrap();
        logits(&mut engine(&group, &config, &source(), 512).unwrap())
    };
    let seen = |card: &[Vec<f32>]| {
        let mut seen = Seen::default();
        cpu.iter().zip(card).for_each(|(a, b)| seen.add(a, b));
        seen
    };
    let folded = of_card("");
    let (within, added) = (seen(&folded), seen(&of_card("bias=added")));
    assert_gate(&within, "a bias within the sums");
    eprintln!(
        "mean KL {:.2e} with the bias within the sums, {:.2e} added",
        within.mean_kl(),
        added.mean_kl()
    );
    assert!(within.mean_kl() < 0.75 * added.mean_kl());
    // A bias folded into the weight's column gives the same result as the operator with a bias.
    assert!(folded == of_card("weights=plain,bias=addmm"));
}

/// By the letter of the documentation, a 310P has no addition, no indexed copy and no grouped decode attention.
#[test]
fn the_letter_of_the_documentation_is_enough() {
    let Some(dir) = shared("goldens/tiny-g2") else { return };
    for chip in CHIPS {
        assert_gate(&compare(&dir, chip, "strict = doc", "", 100), &format!("{} by the book", chip.name()));
    }
}

/// A wrong kernel with an accepting first stage is found at start, named, and avoided.
#[test]
fn a_wrong_kernel_is_gone_around() {
    let heads = AttentionShape { heads: 8, kv_heads: 2, channels: 32 };
    for (chip, operator, capability, word) in [
        (Chip::Duo300i, "InplaceIndexCopy", "kv", "index-copy"),
        (Chip::Duo300i, "IncreFlashAttentionV4", "decode", "incre"),
        (Chip::Duo300i, "PromptFlashAttentionV3", "prefill", "prompt"),
        (Chip::A2800i, "ScatterPaKvCache", "kv", "scatter"),
        (Chip::A2800i, "FusedInferAttentionScoreV2", "prefill", "fused"),
    ] {
        let lines = format!("fault = broken:{operator}");
        let group = AscendGroup::new(settings(chip, heads, &lines, "")).unwrap();
        let details = group.rank(0).unwrap().info().details;
        let of = |name: &str| {
            details.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>()
        };
        assert_ne!(of(capability), [word], "{operator}");
        let refused = of(&format!("{capability} refused"));
        assert!(
            refused.iter().any(|why| why.contains(word) && why.contains("at start")),
            "{operator}: {details:?}"
        );
        // If there is no alternative, it is an error.
        let forced = format!("{capability}={word}");
        let forced = AscendGroup::new(settings(chip, heads, &lines, &forced)).unwrap().rank(0);
        let told = forced.err().unwrap().to_string();
        assert!(told.contains(&format!("no way to do {capability} is accepted: {word}: ")), "{told}");
    }
    let Some(dir) = shared("goldens/tiny-g2") else { return };
    for (chip, operator) in
        [(Chip::Duo300i, "IncreFlashAttentionV4"), (Chip::A2800i, "FusedInferAttentionScoreV2")]
    {
        let lines = format!("fault = broken:{operator}");
        assert_gate(&compare(&dir, chip, &lines, "", 100), &format!("{} without {operator}", chip.name()));
    }
}

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

#[test]
fn what_was_chosen_stands_in_the_record() {
    let heads = AttentionShape { heads: 8, kv_heads: 2, channels: 32 };
    let told = |chip, lines: &str, forced: &str| {
        let group = AscendGroup::new(settings(chip, heads, lines, forced)).unwrap();
        let info = group.rank(0).unwrap().info();
        assert_eq!(info.name, format!("{} (emulated)", chip.name()));
        assert_eq!(info.modelled_by.unwrap().name, chip.name());
        info.details
    };
    let value = |details: &[(String, String)], name: &str| {
        details.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default()
    };
    let duo = told(Chip::Duo300i, "", "");
    assert_eq!(value(&duo, "chip"), "Ascend310P3");
    assert_eq!((value(&duo, "decode"), value(&duo, "prefill")), ("incre".into(), "prompt".into()));
    assert_eq!((value(&duo, "weights"), value(&duo, "bias")), ("nz-operator".into(), "folded".into()));
    assert_eq!(value(&duo, "bias refused"), "addmm: the weights are in fractals");
    assert!(value(&duo, "decode refused").contains("fused: "), "{duo:?}");
    assert!(value(&duo, "heads").contains("filled to 64"));
    let book = told(Chip::Duo300i, "strict = doc", "");
    assert_eq!((value(&book, "decode"), value(&book, "add")), ("prompt".into(), "add-rms-norm".into()));
    let a2 = told(Chip::A2800i, "", "");
    assert_eq!((value(&a2, "decode"), value(&a2, "kv")), ("fused".into(), "scatter".into()));
    assert_eq!((value(&a2, "weights"), value(&a2, "bias")), ("plain".into(), "addmm".into()));
    // What is refused, and what is used instead.
    for (chip, fault, name, word, reason) in [
        (Chip::Duo300i, "missing:aclnnMatmulWeightNzGetWorkspaceSize", "weights", "nz-mm", "nz-operator: "),
        (Chip::Duo300i, "refused:Mm", "weights", "nz-operator", ""),
        (Chip::A2800i, "refused:FusedInferAttentionScoreV2:TND", "decode", "incre-bnsd", "fused: "),
        (
            Chip::A2800i,
            "refused:FusedInferAttentionScoreV2:TND",
            "kv",
            "index-copy",
            "scatter: the cache's order",
        ),
        (Chip::A2800i, "refused:InplaceAdd:broadcast", "add", "add-repeated", "add: "),
        (Chip::Duo300i, "refused:PromptFlashAttentionV3:unbanded", "prefill", "prompt-square", "fused: "),
        (Chip::Duo300i, "refused:ApplyRotaryPosEmb:D64", "rotary", "apply", ""),
        (
            Chip::Duo300i,
            "refused:ApplyRotaryPosEmb:D64",
            "heads",
            "8 of 32 channels filled to 128",
            "64 channels: ",
        ),
    ] {
        let details = told(chip, &format!("fault = {fault}"), "");
        assert_eq!(value(&details, name), word, "{fault}: {details:?}");
        let refused = value(&details, &format!("{name} refused"));
        assert!(refused.contains(reason) && refused.is_empty() == reason.is_empty(), "{fault}: {details:?}");
    }
    let forced = told(Chip::A2800i, "", "decode=matmul,kv=memory");
    assert_eq!((value(&forced, "decode"), value(&forced, "kv")), ("matmul".into(), "memory".into()));
}

#[test]
fn a_forced_choice_that_the_chip_refuses_is_an_error() {
    let heads = AttentionShape { heads: 8, kv_heads: 2, channels: 32 };
    let group = AscendGroup::new(settings(Chip::Duo300i, heads, "", "decode=fused")).unwrap();
    let told = group.rank(0).err().unwrap().to_string();
    assert!(told.contains("no way to do decode is accepted: fused: "), "{told}");
}

/// A small random model whose weights can be cut for tensor parallelism.
pub(crate) fn random() -> (ModelConfig, Dummy) {
    let text = r#"{"model_type":"chatglm","num_layers":2,"hidden_size":128,"ffn_hidden_size":200,"kv_channels":32,
        "num_attention_heads":8,"multi_query_attention":true,"multi_query_group_num":2,"padded_vocab_size":320,
        "seq_length":1024,"add_qkv_bias":true}"#;
    let config = ModelConfig::from_json(text, Path::new("config.json")).unwrap();
    (config.clone(), Dummy::new(config, StorageType::F16, 3))
}

pub(crate) fn prompts() -> Vec<Vec<u32>> {
    let lengths = [3usize, 40, 130, 17];
    lengths.iter().map(|n| (0..*n as u32).map(|i| (i * 37 + *n as u32) % 320).collect()).collect()
}

/// Returns the log-probabilities of the whole vocabulary after each prompt, and the tokens. All prompts are submitted at
/// once.
pub(crate) fn answers(engine: &mut Engine, prompts: &[Vec<u32>], vocab: u32) -> Vec<(Vec<f32>, Vec<u32>)> {
    for prompt in prompts {
        engine.submit(Request { choice_ids: (0..vocab).collect(), ..greedy(prompt, 6) }).unwrap();
    }
    let mut finished = Vec::new();
    while !engine.is_idle() {
        finished.extend(engine.step().unwrap().finished);
    }
    finished.sort_by_key(|c| c.id);
    finished.into_iter().map(|c| (c.choice_logprobs, c.tokens)).collect()
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

#[test]
fn telemetry_is_what_the_libraries_tell_or_the_reason() {
    let heads = AttentionShape { heads: 8, kv_heads: 2, channels: 32 };
    for chip in CHIPS {
        let read = |lines: &str| {
            let group = AscendGroup::new(settings(chip, heads, lines, "")).unwrap();
            let address = group.telemetry().pci_address(1);
            (group.telemetry().chip(0), address)
        };
        let (fake, address) = read("telemetry = fake");
        let second = if chip == Chip::Duo300i { "0000:c1:00.1" } else { "0000:c0:00.0" };
        assert_eq!(address.unwrap(), second);
        assert!(fake.power_w.is_ok() && fake.temp_c.is_ok() && fake.utilisation.is_ok(), "{fake:?}");
        let (none, address) = read("telemetry = none");
        assert!(address.unwrap_err().contains("dcmi_init failed"));
        assert!(none.power_w.is_err() && none.temp_c.is_err() && none.utilisation.is_err(), "{none:?}");
        assert!(none.memory.unwrap().total_bytes > 20 << 30);
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
            let limits = limits(&config, 64);
            let ranks =
                Ranks::load(group, &config, RotaryMode::Model, limits, source.clone(), &mut |_, _| {});
            answers(&mut Engine::new(Box::new(ranks.unwrap())), &prompts(), 320)
        };
        for ((a, _), (b, _)) in of_tp(1).iter().zip(&of_tp(2)) {
            let kl: f64 = a.iter().zip(b).map(|(p, q)| f64::from(*p).exp() * f64::from(p - q)).sum();
            assert!(kl.abs() <= 1e-4, "{} {kl}", chip.name());
        }
    }
}

#[test]
fn nothing_is_left_at_the_end() {
    let (config, source) = random();
    for (chip, forced) in [
        (Chip::Duo300i, ""),
        (Chip::A2800i, ""),
        (Chip::Duo300i, "decode=matmul,add=add-rms-norm"),
        (Chip::A2800i, "reuse=anew,rotary=each"),
    ] {
        let group = AscendGroup::new(settings(chip, attention_shape(&config), "", forced)).unwrap();
        let mut engine = engine(&group, &config, &source, 64).unwrap();
        answers(&mut engine, &prompts(), 320);
        assert!(group.live().unwrap().iter().any(|(_, n)| *n > 0));
        drop(engine);
        assert_eq!(left(&group), [], "{} {forced}", chip.name());
    }
}

/// Returns the objects that are alive in the emulator.
pub(crate) fn left(group: &AscendGroup) -> Vec<(&'static str, u64)> {
    group.live().unwrap().into_iter().filter(|(_, n)| *n > 0).collect()
}

/// Streams are lazy: when the group is aborted, queued work has not run, and every later call is refused.
#[test]
fn nothing_is_left_when_queued_work_is_called_off() {
    let (config, source) = random();
    for chip in CHIPS {
        let group = AscendGroup::new(settings(chip, attention_shape(&config), "", "")).unwrap();
        let device = group.rank(0).unwrap();
        let limits = limits(&config, 64);
        let mut model =
            Model::load(device, &config, RotaryMode::Model, limits, &source, &mut |_, _| {}).unwrap();
        let sequences = [SequenceView { rows: 0..3, context: 3, blocks: &[0] }];
        let (tokens, positions) = ([1, 2, 3], [0, 1, 2]);
        let step =
            StepInput { tokens: &tokens, positions: &positions, sequences: &sequences, logit_rows: &[] };
        model.forward(&step, &mut Vec::new()).unwrap();
        group.abort();
        assert!(model.forward(&step, &mut Vec::new()).is_err());
        drop(model);
        assert_eq!(left(&group), [], "{}", chip.name());
    }
}

/// Returns the error that a fault causes in a model.
fn failure(chip: Chip, fault: &str) -> DeviceError {
    let (config, source) = random();
    let lines = format!("fault = {fault}");
    let run = || -> Result<(), EngineError> {
        let group = AscendGroup::new(settings(chip, attention_shape(&config), &lines, ""))?;
        let mut engine = engine(&group, &config, &source, 64)?;
        engine.submit(greedy(&[1, 2, 3], 40))?;
        while !engine.is_idle() {
            engine.step()?;
        }
        let again = engine.submit(greedy(&[1], 1));
        again.map(drop)
    };
    match run() {
        Err(EngineError::Device(error)) => error,
        other => panic!("{fault}: {other:?}"),
    }
}

#[test]
fn every_fault_ends_in_its_words() {
    for chip in CHIPS {
        let error = failure(chip, "oom:3");
        assert!(matches!(error, DeviceError::OutOfMemory { wanted_bytes: 1.., .. }), "{error}");
        assert!(error.to_string().contains("207001") || error.to_string().contains("207018"), "{error}");
        for fault in ["lost:300", "timeout:300"] {
            let error = failure(chip, fault);
            assert!(matches!(error, DeviceError::Lost { .. }), "{fault}: {error}");
            // A run says how it goes on. Other verbs have nothing to resume.
            assert!(!error.to_string().contains("resume"), "{error}");
        }
        let error = failure(chip, "missing:aclnnRmsNormGetWorkspaceSize");
        assert!(error.to_string().contains("aclnnRmsNormGetWorkspaceSize is in none of"), "{error}");
    }
}

#[test]
fn a_lost_device_answers_at_once_for_ever() {
    let (config, source) = random();
    let group =
        AscendGroup::new(settings(Chip::A2800i, attention_shape(&config), "fault = lost:200", "")).unwrap();
    let mut engine = engine(&group, &config, &source, 64).unwrap();
    engine.submit(greedy(&[1, 2, 3], 400)).unwrap();
    let mut errors = Vec::new();
    for _ in 0..500 {
        if let Err(error) = engine.step() {
            errors.push(error.to_string());
        }
    }
    assert!(errors.len() > 2, "{errors:?}");
    assert!(errors.iter().all(|error| *error == errors[0]), "{errors:?}");
}

/// A missing symbol that only one alternative needs is not an error: another alternative is used.
#[test]
fn a_missing_operator_is_gone_around() {
    let (config, source) = random();
    for (chip, symbol) in [
        (Chip::A2800i, "aclnnFusedInferAttentionScoreV2GetWorkspaceSize"),
        (Chip::A2800i, "aclnnScatterPaKvCacheGetWorkspaceSize"),
        (Chip::A2800i, "aclrtCreateEventWithFlag"),
        (Chip::Duo300i, "aclnnIncreFlashAttentionV4GetWorkspaceSize"),
        (Chip::Duo300i, "aclnnApplyRotaryPosEmbGetWorkspaceSize"),
        (Chip::Duo300i, "aclnnMatmulWeightNzGetWorkspaceSize"),
        (Chip::Duo300i, "aclSetAclOpExecutorRepeatable"),
    ] {
        let of_lines = |lines: &str| {
            let group = AscendGroup::new(settings(chip, attention_shape(&config), lines, "")).unwrap();
            let mut engine = engine(&group, &config, &source, 64).unwrap();
            answers(&mut engine, &prompts(), 320)
        };
        let (whole, without) = (of_lines(""), of_lines(&format!("fault = missing:{symbol}")));
        for ((a, _), (b, _)) in whole.iter().zip(&without) {
            let kl: f64 = a.iter().zip(b).map(|(p, q)| f64::from(*p).exp() * f64::from(p - q)).sum();
            assert!(kl.abs() <= 1e-4, "without {symbol}: {kl}");
        }
    }
}

/// How long the emulated HCCL of [`slow_table`] waits for a missing rank.
const HCCL_TIMEOUT: Duration = Duration::from_millis(300);

fn slow_table(chip: Chip) -> AscendGroup {
    let heads = AttentionShape { heads: 8, kv_heads: 2, channels: 64 };
    let lines = format!("hccl_timeout_ms = {}", HCCL_TIMEOUT.as_millis());
    AscendGroup::new(GroupSettings { tp: 2, ..settings(chip, heads, &lines, "") }).unwrap()
}

#[test]
fn the_selftest_passes_on_both_chips_and_sees_a_wrong_result() {
    let widths = Widths {
        hidden: 256,
        ffn: 328,
        heads: AttentionShape { heads: 8, kv_heads: 2, channels: 64 },
        vocab: 128,
    };
    let tested = |chip, tp, lines: &str| {
        let settings = GroupSettings { tp, ..settings(chip, widths.heads, lines, "") };
        selftest(&AscendGroup::new(settings).unwrap(), widths, Scope::Table).unwrap()
    };
    let failed = |tested: Selftest| -> Vec<String> {
        tested.rows.into_iter().filter(|r| r.status == Status::Fail).map(|r| r.operator).collect()
    };
    for chip in CHIPS {
        for tp in [1, 2] {
            let tested = tested(chip, tp, "");
            assert!(tested.rows.len() > 12 && tested.lost.is_none());
            let mut names: Vec<&str> = tested.rows.iter().map(|r| r.operator.as_str()).collect();
            names.sort_unstable();
            assert!(names.windows(2).all(|two| two[0] != two[1]), "{names:?}");
            let untimed = tested.rows.iter().filter(|r| r.time_ns.is_none());
            assert!(untimed.clone().all(|r| !r.note.is_empty()), "{:?}", untimed.collect::<Vec<_>>());
            assert_eq!(failed(tested), Vec::<String>::new());
        }
        // The first rank's table takes longer than HCCL waits for a rank. The others must not enter the collective before
        // it does.
        let begin = Instant::now();
        let tested_late =
            selftest(&slow_table(chip), Widths { hidden: 4096, ffn: 13_696, ..widths }, Scope::Table)
                .unwrap();
        assert!(begin.elapsed() > 3 * HCCL_TIMEOUT, "the table was done before HCCL would have given up");
        assert_eq!(failed(tested_late), Vec::<String>::new());
        // The first result creates an operator's plan, the second reuses it. Both are checked.
        for n in [1, 2] {
            assert_eq!(failed(tested(chip, 1, &format!("fault = wrong:RmsNorm:{n}"))), ["rms_norm"]);
        }
    }
}

/// The whole 6B shape runs in a moment: nothing is computed and no weight is read.
#[test]
fn with_the_clock_alone_the_6b_shape_runs_and_time_passes() {
    let config = ModelConfig::chatglm2_6b();
    let source = glmbench_engine::weights::unread::Unread { config: config.clone(), dtype: StorageType::F16 };
    for chip in CHIPS {
        let group = AscendGroup::new(settings(chip, attention_shape(&config), "mode = timing", "")).unwrap();
        let mut engine = engine(&group, &config, &source, 64).unwrap();
        engine.submit(greedy(&[1; 64], 4)).unwrap();
        let mut last = engine.now_ns();
        while !engine.is_idle() {
            engine.step().unwrap();
            let now = engine.now_ns();
            // 12 GB of weights through 204 GB/s, or 1.6 TB/s.
            assert!(now - last > 5_000_000, "{}: a step of {} ns", chip.name(), now - last);
            last = now;
        }
    }
}

/// What the emulator's allocator counts after a long prompt and a batch is what the estimate says, and never more.
#[test]
fn the_memory_of_a_card_is_what_was_estimated() {
    let config = ModelConfig::chatglm2_6b();
    let source = glmbench_engine::weights::unread::Unread { config: config.clone(), dtype: StorageType::F16 };
    for (chip, batch, tokens) in [
        (Chip::Duo300i, 1, 8192),
        (Chip::Duo300i, 1, 600),
        (Chip::Duo300i, 12, 2048),
        (Chip::A2800i, 1, 8192),
        (Chip::A2800i, 16, 1024),
    ] {
        let group = AscendGroup::new(settings(chip, attention_shape(&config), "mode = timing", "")).unwrap();
        let capacity = Capacity { max_step_tokens: 4096, ..Capacity::for_batch(&config, batch, tokens) };
        let device: Ascend = group.rank(0).unwrap();
        let model =
            Model::load(device, &config, RotaryMode::Model, capacity, &source, &mut |_, _| {}).unwrap();
        let mut engine = Engine::new(Box::new(model));
        for _ in 0..batch {
            engine.submit(greedy(&vec![1; tokens - 4], 4)).unwrap();
        }
        while !engine.is_idle() {
            engine.step().unwrap();
        }
        let memory = group.telemetry().chip(0).memory.unwrap();
        let used = memory.total_bytes - memory.free_bytes;
        let on = MemoryOf::Ascend(AscendMemory::new(chip, DType::Fp16.into()));
        let estimate = MemoryEstimate::new(&config, on, capacity).total_bytes();
        eprintln!("{} {batch} x {tokens}: {used} bytes, estimated {estimate}", chip.name());
        assert!(used <= estimate, "{}: {used} of {estimate}", chip.name());
        assert!(estimate as f64 <= 1.05 * used as f64, "{}: {used} of {estimate}", chip.name());
    }
}

#[test]
fn without_cann_a_real_card_is_refused_with_what_was_searched() {
    if std::env::var_os("ASCEND_HOME_PATH").is_some() {
        crate::support::skipped("CANN is here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    for args in [
        &["run", "suites/quickstart.toml", "--model", "demo", "--device", "800i-a2", "--out", out][..],
        &["npu-selftest", "--device", "300i-duo"],
    ] {
        answer(args).expect(5, &["libascendcl.so", "searched", "set_env.sh", "--emulate"]);
    }
    let here = ["run", "suites/quickstart.toml", "--device", "cpu", "--emulate", "--out", out];
    answer(&here).expect(2, &["--emulate: device cpu has no emulator; expected 300i-duo or 800i-a2"]);
}
