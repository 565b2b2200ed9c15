//! The Ascend device on the emulator: results against the model's own code, every alternative, every fault.

mod c8;
mod choices;
mod faults;
mod gate;
mod machine;
mod numbers;

use std::path::Path;

use glmbench_ascend::{Ascend, AscendGroup, Chip, Emulation, Forced, GroupSettings};
use glmbench_device::rotary::RotaryMode;
use glmbench_device::{AttentionShape, DType, KvForm, WeightForm};
use glmbench_engine::config::ModelConfig;
use glmbench_engine::model::{Capacity, Model, attention_shape};
use glmbench_engine::sampler::Sampling;
use glmbench_engine::weights::dummy::Dummy;
use glmbench_engine::weights::{StorageType, WeightSource, open_checkpoint};
use glmbench_engine::{Engine, EngineError, Request};

use crate::goldens::{Golden, Seen, margin};

pub(crate) const CHIPS: [Chip; 2] = [Chip::Duo300i, Chip::A2800i];

/// Settings of an emulated machine whose streams run only when somebody waits, so that a forgotten wait shows.
pub(crate) fn settings(chip: Chip, attention: AttentionShape, lines: &str, forced: &str) -> GroupSettings {
    let timing = lines.contains("mode = timing");
    GroupSettings {
        chip,
        tp: 1,
        dtype: DType::Fp16,
        weights: WeightForm::Plain,
        kv: KvForm::Auto,
        attention,
        bind: false,
        forced: Forced::parse(forced).unwrap(),
        emulation: Some(Emulation::new(chip, None, timing).unwrap().with("streams = lazy").with(lines)),
    }
}

fn config(dir: &Path) -> ModelConfig {
    ModelConfig::from_file(&dir.join("config.json")).unwrap()
}

pub(crate) fn capacity(config: &ModelConfig, step: usize) -> Capacity {
    let mut capacity = Capacity::for_batch(config, 8, 1024);
    (capacity.max_step_tokens, capacity.max_logit_rows) = (step, step);
    capacity
}

/// Loads a model on rank 0 of a group, on this thread.
pub(crate) fn engine(
    group: &AscendGroup,
    config: &ModelConfig,
    source: &dyn WeightSource,
    step: usize,
) -> Result<Engine, EngineError> {
    let (device, capacity): (Ascend, _) = (group.rank(0)?, capacity(config, step));
    let model = Model::load(device, config, RotaryMode::Model, capacity, source, &mut |_, _| {})?;
    Ok(Engine::new(Box::new(model)))
}

/// Compares our fp16 logits for the prompts of a golden, fed in chunks of `step` tokens. Then compares a greedy
/// continuation.
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

/// Returns the objects that are alive in the emulator.
pub(crate) fn left(group: &AscendGroup) -> Vec<(&'static str, u64)> {
    group.live().unwrap().into_iter().filter(|(_, n)| *n > 0).collect()
}
