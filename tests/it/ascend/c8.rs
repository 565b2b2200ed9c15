//! An int8 KV cache by the scales of a checkpoint on the 800I A2, and its refusal on the 300I DUO.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use glmbench_ascend::{AscendGroup, AscendMemory, Chip, GroupSettings};
use glmbench_device::rotary::RotaryMode;
use glmbench_device::{DType, DeviceError, KvForm, Precision, Role, WeightForm};
use glmbench_engine::config::{ModelConfig, Quantised, Scheme};
use glmbench_engine::load::{DeviceKind, Emulate, LoadOptions, ModelPath, load, load_tokenizer};
use glmbench_engine::memory::{MemoryEstimate, MemoryOf};
use glmbench_engine::model::{Capacity, attention_shape};
use glmbench_engine::parallel::{Cut, Ranks};
use glmbench_engine::quantise::{ActMethod, Control, Job, Settings};
use glmbench_engine::weights::layout::LinearId;
use glmbench_engine::weights::unread::Unread;
use glmbench_engine::weights::{StorageType, WeightSource};
use glmbench_engine::{Engine, EngineError};

use super::{capacity, greedy, settings};
use crate::goldens::Seen;
use crate::support::{Changed, answer};

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")
}

const TEXTS: [&str; 3] = [
    "The kitchen has the cook. The tower has the farmer. The station has the painter.\nQuestion: does the station \
     have the cook?\nAnswer:",
    "First came the farmer, then the teacher, and last the cook.\nQuestion: did the cook come before the farmer?\n\
     Answer:",
    "以下是中国关于世界首都考试的单项选择题，请选出其中的正确答案。\n法国的首都是____。\nA. 柏林\nB. 巴黎\nC. 罗马\nD. 东京\n答案：",
];

/// The texts as prompts, and all of them together twice, which is more than a block.
fn prompts() -> Vec<Vec<u32>> {
    let config = ModelConfig::from_file(&demo().join("config.json")).unwrap();
    let tokenizer = load_tokenizer(&demo(), Some(&config)).unwrap();
    let texts = TEXTS.map(str::to_owned).into_iter().chain([TEXTS.concat().repeat(2)]);
    texts.map(|text| tokenizer.encode_prompt(&text)).collect()
}

/// Which layers of the demo model are quantised beside the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weights {
    Float,
    Quantised(Scheme),
}

impl Weights {
    const ALL: [Self; 3] = [Self::Float, Self::Quantised(Scheme::W8a8), Self::Quantised(Scheme::W8a16)];

    fn scheme(self) -> Scheme {
        match self {
            // A checkpoint has a scheme, although all its layers may be in float.
            Self::Float => Scheme::W8a16,
            Self::Quantised(scheme) => scheme,
        }
    }

    fn float(self, layers: usize) -> BTreeSet<LinearId> {
        let roles = match self {
            Self::Float => &[Role::Qkv, Role::Dense, Role::GateUp, Role::Down][..],
            Self::Quantised(_) => &[Role::Down],
        };
        let layers = (0..layers).flat_map(|layer| roles.iter().map(move |role| (layer, *role)));
        layers.map(|(layer, role)| LinearId { layer: Some(layer), role }).chain([LinearId::OUTPUT]).collect()
    }
}

/// Writes the demo model with scales of an int8 cache to a folder of `dir`.
fn checkpoint(dir: &Path, weights: Weights) -> PathBuf {
    let path = ModelPath::Folder(demo());
    let config = path.config(None).unwrap();
    let settings = Settings {
        scheme: weights.scheme(),
        kv_c8: true,
        float: weights.float(config.num_layers),
        method: ActMethod::MinMax,
        group: 0,
        smooth: None,
        search: None,
    };
    let source = path.weights(&config, DType::Fp16).unwrap();
    let job = Job::new(&demo(), config, source.into(), settings, prompts()).unwrap();
    let out = dir.join(format!("{weights:?}"));
    job.run(&out, &mut Control { progress: &mut |_| {}, stopped: &|| false }).unwrap();
    out
}

/// Configuration and tensors of a folder.
fn opened(folder: &Path) -> (ModelConfig, Arc<dyn WeightSource>) {
    let path = ModelPath::Folder(folder.to_owned());
    let config = path.config(None).unwrap();
    let source = path.weights(&config, DType::Fp16).unwrap();
    (config, source.into())
}

/// Loads the way that the command line does.
fn loaded(
    (config, source): &(ModelConfig, Arc<dyn WeightSource>),
    device: DeviceKind,
    tp: usize,
) -> Result<Engine, EngineError> {
    let options = LoadOptions {
        emulate: device.is_card().then_some(Emulate { profile: None, timing_only: false }),
        threads: Some(2),
        tp,
        ..LoadOptions::plain(device, DType::Fp16.into(), capacity(config, 512))
    };
    load(config, Arc::clone(source), &options, &mut |_, _| {})
}

/// Loads on an emulated 800I A2 with forced choices, in steps of `step` tokens.
fn card(
    model: &(ModelConfig, Arc<dyn WeightSource>),
    tp: usize,
    forced: &str,
    step: usize,
) -> Result<Engine, EngineError> {
    card_with(model, tp, "", forced, step)
}

/// Loads like [`card`], with lines of the emulator's profile.
fn card_with(
    (config, source): &(ModelConfig, Arc<dyn WeightSource>),
    tp: usize,
    lines: &str,
    forced: &str,
    step: usize,
) -> Result<Engine, EngineError> {
    let rank = Cut::new(config, 0, tp)?.config(config);
    let precision = config.precision(DType::Fp16.into())?;
    let settings = GroupSettings {
        tp,
        weights: precision.weights,
        kv: precision.kv,
        ..settings(Chip::A2800i, attention_shape(&rank), lines, forced)
    };
    let group = AscendGroup::new(settings)?;
    let capacity = capacity(config, step);
    let ranks = Ranks::load(group, config, RotaryMode::Model, capacity, Arc::clone(source), &mut |_, _| {})?;
    Ok(Engine::new(Box::new(ranks)))
}

fn logits(engine: &mut Engine) -> Vec<Vec<f32>> {
    let mut rows = Vec::new();
    for prompt in prompts() {
        engine.teacher_force(&prompt, &mut |_, row| rows.push(row.to_vec())).unwrap();
    }
    rows
}

fn seen(expected: &[Vec<f32>], found: &[Vec<f32>]) -> Seen {
    let mut seen = Seen::default();
    assert_eq!(expected.len(), found.len());
    expected.iter().zip(found).for_each(|(a, b)| seen.add(a, b));
    seen
}

/// Logits of the checkpoint with numbers instead of integers, on the CPU.
fn float() -> Vec<Vec<f32>> {
    logits(&mut loaded(&opened(&demo()), DeviceKind::Cpu, 1).unwrap())
}

/// Checks that a card differs from the CPU by less than integers differ from numbers: by half of that, or by three quarters if the
/// inputs of linear layers are integers, too.
///
/// Both round a number to fp16 before they quantise it, at other places. A number near a tie becomes the next integer: an error of
/// a whole step, where quantisation itself has a twelfth of its square. So the gate of fp16 is too tight.
#[track_caller]
fn assert_near(float: &[Vec<f32>], cpu: &[Vec<f32>], card: &[Vec<f32>], weights: Weights, what: &str) {
    let share = if weights == Weights::Quantised(Scheme::W8a8) { 0.75 } else { 0.5 };
    let (cost, found) = (seen(float, cpu), seen(cpu, card));
    let of = |seen: &Seen| format!("mean KL {:.2e}, max {:.2e}", seen.mean_kl(), seen.max_kl());
    let said = format!("{what}: {}; the CPU from fp16: {}", of(&found), of(&cost));
    eprintln!("{said}");
    assert!(found.mean_kl() <= share * cost.mean_kl(), "{said}");
}

#[test]
fn logits_over_an_int8_cache_are_those_of_the_cpu() {
    let dir = tempfile::tempdir().unwrap();
    let float = float();
    for weights in Weights::ALL {
        let model = opened(&checkpoint(dir.path(), weights));
        let precision = model.0.precision(DType::Fp16.into()).unwrap();
        assert_eq!(precision.kv, KvForm::C8);
        let cpu = logits(&mut loaded(&model, DeviceKind::Cpu, 1).unwrap());
        for tp in [1, 2] {
            let mut engine = loaded(&model, DeviceKind::A2800i, tp).unwrap();
            assert_eq!(engine.device_info().precision, precision);
            assert_near(
                &float,
                &cpu,
                &logits(&mut engine),
                weights,
                &format!("{precision}, 800i-a2 tp {tp}"),
            );
        }
    }
}

/// Chunks of 24 tokens, so that every alternative of prefill meets integers of earlier chunks.
#[test]
fn every_alternative_over_an_int8_cache_gives_the_cpus_logits() {
    let dir = tempfile::tempdir().unwrap();
    let model = opened(&checkpoint(dir.path(), Weights::Float));
    let cpu = logits(&mut loaded(&model, DeviceKind::Cpu, 1).unwrap());
    let float = float();
    for forced in [
        "",
        "decode=incre,kv=index-copy",
        "decode=incre,prefill=matmul,kv=copy",
        "decode=incre-bnsd,prefill=prompt,kv=index-copy",
        "decode=prompt,prefill=prompt-square,kv=copy",
        "decode=matmul,prefill=matmul,kv=memory",
        "decode=matmul,prefill=matmul,add=add-repeated",
        "decode=fused,prefill=prompt,kv=memory",
        "graph=segments",
    ] {
        let mut engine = card(&model, 1, forced, 24).unwrap();
        assert_near(&float, &cpu, &logits(&mut engine), Weights::Float, &format!("c8 {forced}"));
    }
    let error = card(&model, 1, "decode=incre-bnsd,prefill=fused", 24).err().unwrap().to_string();
    assert!(error.contains("the cache's order is that of another decode operator"), "{error}");
}

/// A kernel that is wrong is gone around: integers are gathered and dequantised, and the logits are right.
#[test]
fn a_wrong_operator_over_integers_is_gone_around() {
    let dir = tempfile::tempdir().unwrap();
    let model = opened(&checkpoint(dir.path(), Weights::Float));
    let (float, cpu) = (float(), logits(&mut loaded(&model, DeviceKind::Cpu, 1).unwrap()));
    let faults = "fault = broken:FusedInferAttentionScoreV2\nfault = broken:IncreFlashAttentionV4";
    let mut engine = card_with(&model, 1, faults, "", 24).unwrap();
    let details = engine.device_info().details;
    let of = |name: &str| details.iter().find(|(n, _)| n == name).map(|(_, word)| word.as_str());
    assert_eq!([of("decode"), of("prefill")], [Some("prompt"); 2], "{details:?}");
    assert_near(&float, &cpu, &logits(&mut engine), Weights::Float, faults);
}

/// Prompts together, alone, in chunks, and beside decoding sequences give the same bits.
#[test]
fn a_sequence_over_an_int8_cache_does_not_depend_on_batch_and_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let model = opened(&checkpoint(dir.path(), Weights::Quantised(Scheme::W8a8)));
    let vocab = model.0.padded_vocab_size as u32;
    for forced in ["", "decode=incre", "decode=matmul,prefill=matmul"] {
        let answers = |step: usize, prompts: &[Vec<u32>]| {
            super::answers(&mut card(&model, 1, forced, step).unwrap(), prompts, vocab)
        };
        let together = answers(256, &prompts());
        let alone: Vec<_> =
            prompts().iter().flat_map(|prompt| answers(256, std::slice::from_ref(prompt))).collect();
        assert!(together == alone, "alone, {forced}");
        assert!(together == answers(29, &prompts()), "in chunks, {forced}");
    }
}

#[test]
fn a_card_without_int8_caches_refuses_before_anything_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let folder = checkpoint(dir.path(), Weights::Quantised(Scheme::W8a8));
    let model = folder.to_str().unwrap();
    let why = "its attention operators take no int8 KV cache";
    let duo = ["--model", model, "--device", "300i-duo", "--emulate"];
    let said = ["300i-duo: dtype w8a8+kv-c8 was asked for", why];
    answer(&[&["chat", "--prompt", "a"][..], &duo].concat()).expect(5, &said);
    let out = dir.path().join("runs");
    let run = ["run", "suites/quickstart.toml", "--out", out.to_str().unwrap()];
    answer(&[&run[..], &duo].concat()).expect(5, &said);
    assert!(!out.exists());
    // The scale of the A2's operators has a type of its own in bf16, and no operator has one for each token.
    let a2 = ["--model", model, "--device", "800i-a2", "--emulate", "--prompt", "a"];
    for (flags, asked) in [(["--dtype", "bf16"], "w8a8+kv-c8"), (["--kv", "int8"], "w8a8+kv-int8")] {
        let said = [asked, "it has c8 beside fp16, w8a8 and w8a16"];
        answer(&[&["chat"][..], &a2, &flags].concat()).expect(5, &said);
    }
    // A caller that skips the check gets the same reason from the device.
    let model = opened(&folder);
    let settings =
        GroupSettings { kv: KvForm::C8, ..settings(Chip::Duo300i, attention_shape(&model.0), "", "") };
    let error = AscendGroup::new(settings).err().unwrap();
    assert!(matches!(&error, DeviceError::Unsupported { problem, .. } if problem.contains(why)), "{error}");
}

#[test]
fn hostile_scales_are_refused_by_name_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let (config, source) = opened(&checkpoint(dir.path(), Weights::Float));
    let with = |scale| -> (ModelConfig, Arc<dyn WeightSource>) {
        let change = move |name: &str, numbers: &mut [f32]| {
            let is_it = name.ends_with("layers.1.self_attention.query_key_value.v_proj.kv_cache_scale");
            if is_it {
                numbers[3] = scale;
            }
            is_it
        };
        (config.clone(), Arc::new(Changed { source: Arc::clone(&source), change }))
    };
    for scale in [0.0, f32::NAN, f32::INFINITY, -1.0] {
        let [cpu, a2] = [DeviceKind::Cpu, DeviceKind::A2800i]
            .map(|device| loaded(&with(scale), device, 1).err().unwrap().to_string());
        assert_eq!(cpu, a2, "{scale}");
        assert!(a2.contains("kv_cache_scale") && a2.contains("expected a positive number"), "{a2}");
    }
    let large = loaded(&with(1e6), DeviceKind::A2800i, 1).err().unwrap().to_string();
    assert!(large.contains("the scale 1000000 in layer 1, expected 16384 at most"), "{large}");
    // The reciprocal of the least fp32 is infinite. Such a channel counts with the least scale of the card.
    let tiny = logits(&mut loaded(&with(f32::from_bits(1)), DeviceKind::A2800i, 1).unwrap());
    assert!(tiny.iter().flatten().all(|x| x.is_finite()));
}

/// ChatGLM2-6B with an int8 cache, whose tensors hold nothing.
fn large() -> (ModelConfig, Arc<dyn WeightSource>) {
    let quantised = Quantised {
        said: "quantize = \"w8a16\"".into(),
        scheme: Some(Scheme::W8a16),
        kv_c8: true,
        group: None,
        is_described: true,
        float: BTreeSet::new(),
    };
    let config = ModelConfig { quantised: Some(quantised), ..ModelConfig::chatglm2_6b() };
    (config.clone(), Arc::new(Unread { config, dtype: StorageType::F16 }))
}

/// Memory and time count a byte for each number of the cache.
#[test]
fn an_int8_cache_takes_half_the_memory_and_less_time() {
    let (config, source) = large();
    let shape = attention_shape(&config);
    let (batch, tokens) = (16, 4096);
    let capacity = Capacity { max_step_tokens: 4096, ..Capacity::for_batch(&config, batch, tokens) };
    let of_form = |kv| {
        let mut config = config.clone();
        config.quantised.as_mut().unwrap().kv_c8 = kv == KvForm::C8;
        let weights = WeightForm::W8a16;
        let all = GroupSettings { weights, kv, ..settings(Chip::A2800i, shape, "mode = timing", "") };
        let group = AscendGroup::new(all).unwrap();
        let telemetry = group.telemetry();
        let source = Arc::clone(&source);
        let ranks = Ranks::load(group, &config, RotaryMode::Model, capacity, source, &mut |_, _| {});
        let mut engine = Engine::new(Box::new(ranks.unwrap()));
        for _ in 0..batch {
            engine.submit(greedy(&vec![1; tokens - 64], 64)).unwrap();
        }
        // The last step in which all sequences decode.
        let mut together = 0;
        while !engine.is_idle() {
            let before = engine.now_ns();
            if engine.step().unwrap().emitted.len() == batch {
                together = engine.now_ns() - before;
            }
        }
        let memory = telemetry.chip(0).memory.unwrap();
        let used = memory.total_bytes - memory.free_bytes;
        let precision = Precision { weights, kv, ..DType::Fp16.into() };
        let on = MemoryOf::Ascend(AscendMemory::new(Chip::A2800i, precision));
        let estimate = MemoryEstimate::new(&config, on, capacity);
        assert!(used <= estimate.total_bytes(), "{kv:?}: {used} of {}", estimate.total_bytes());
        assert!(estimate.total_bytes() as f64 <= 1.05 * used as f64, "{kv:?}: {used}");
        (estimate.kv_bytes, used, together)
    };
    let (fp16, c8) = (of_form(KvForm::Auto), of_form(KvForm::C8));
    let saved = (batch * tokens * 28 * 2 * 2 * 128) as u64;
    assert_eq!((fp16.0 - c8.0, c8.0), (saved, saved));
    // The integers of a step's rows and the channels are all that is added.
    assert!(fp16.1 - c8.1 > saved - (8 << 20), "{} of {saved}", fp16.1 - c8.1);
    // A decode step reads the cache once: 0.9 GB less, with at most 1.6 TB/s.
    assert!(fp16.2 > c8.2 + 300_000, "{} ns, {} ns", fp16.2, c8.2);
}
