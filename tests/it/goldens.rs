//! Parity with logits of the original Hugging Face model code, on small checkpoints.

use std::path::Path;

use glmbench_cpu::{Family, InstructionSet};
use glmbench_device::DType;
use glmbench_device::rotary::RotaryMode;
use glmbench_engine::Engine;
use glmbench_engine::Request;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::load::{DeviceKind, LoadOptions, load};
use glmbench_engine::model::Capacity;
use glmbench_engine::sampler::{Sampling, log_sum_exp};
use glmbench_engine::weights::open_checkpoint;
use safetensors::SafeTensors;
use serde::Deserialize;

use crate::support::shared;

#[derive(Deserialize)]
struct Index {
    prompts: Vec<Vec<u32>>,
    decode_steps: usize,
}

pub(crate) struct Golden {
    pub prompts: Vec<Vec<u32>>,
    pub decode_steps: usize,
    arrays: Vec<u8>,
}

impl Golden {
    pub(crate) fn read(dir: &Path) -> Self {
        let index: Index =
            serde_json::from_str(&std::fs::read_to_string(dir.join("golden.json")).unwrap()).unwrap();
        let arrays = std::fs::read(dir.join("golden.safetensors")).unwrap();
        Self { prompts: index.prompts, decode_steps: index.decode_steps, arrays }
    }

    pub(crate) fn array(&self, name: &str) -> Vec<f32> {
        self.find(name).unwrap()
    }

    /// Returns the array, or `None` if this golden does not have it.
    fn find(&self, name: &str) -> Option<Vec<f32>> {
        let file = SafeTensors::deserialize(&self.arrays).unwrap();
        let data = file.tensor(name).ok()?.data().to_vec();
        Some(data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
    }

    pub(crate) fn ids(&self, name: &str) -> Vec<u32> {
        self.array(name).into_iter().map(f32::to_bits).collect()
    }
}

struct Setup {
    device: DeviceKind,
    dtype: DType,
    instruction_set: Option<InstructionSet>,
    tp: usize,
}

fn engine(dir: &Path, setup: &Setup) -> Engine {
    let config = ModelConfig::from_file(&dir.join("config.json")).unwrap();
    let mut capacity = Capacity::for_batch(&config, 8, 1024);
    capacity.max_logit_rows = 512;
    let options = LoadOptions {
        rotary: RotaryMode::Model,
        threads: Some(2),
        instruction_set: setup.instruction_set,
        tp: setup.tp,
        ..LoadOptions::plain(setup.device, setup.dtype.into(), capacity)
    };
    load(&config, open_checkpoint(dir).unwrap().into(), &options, &mut |_, _| {}).unwrap()
}

/// Returns `KL(golden || ours)` in nats, from logits.
fn kl(golden: &[f32], ours: &[f32]) -> f64 {
    let (g, o) = (log_sum_exp(golden), log_sum_exp(ours));
    let term = |(a, b): (&f32, &f32)| {
        let log_p = f64::from(*a) - g;
        log_p.exp() * (log_p - (f64::from(*b) - o))
    };
    golden.iter().zip(ours).map(term).sum()
}

fn max_abs(golden: &[f32], ours: &[f32]) -> f32 {
    golden.iter().zip(ours).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Returns the difference between the two largest logits.
pub(crate) fn margin(logits: &[f32]) -> f32 {
    let mut sorted = logits.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    sorted[0] - sorted[1]
}

/// Differences over all positions of all prompts.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    max_abs: f32,
    kl: Vec<f64>,
}

impl Seen {
    pub(crate) fn add(&mut self, golden: &[f32], ours: &[f32]) {
        self.max_abs = self.max_abs.max(max_abs(golden, ours));
        self.kl.push(kl(golden, ours));
    }

    pub(crate) fn max_kl(&self) -> f64 {
        self.kl.iter().copied().fold(0.0, f64::max)
    }

    pub(crate) fn mean_kl(&self) -> f64 {
        self.kl.iter().sum::<f64>() / self.kl.len() as f64
    }

    pub(crate) fn share_above(&self, bound: f64) -> f64 {
        self.kl.iter().filter(|k| **k > bound).count() as f64 / self.kl.len() as f64
    }
}

fn compare(name: &str, setup: &Setup) -> Option<Seen> {
    let dir = shared(&format!("goldens/{name}"))?;
    let golden = Golden::read(&dir);
    let mut engine = engine(&dir, setup);
    let vocab = engine.config().padded_vocab_size;
    let mut seen = Seen::default();
    for (i, prompt) in golden.prompts.iter().enumerate() {
        let expected = golden.array(&format!("{}.prompt{i}", setup.dtype));
        engine
            .teacher_force(prompt, &mut |position, logits| {
                seen.add(&expected[position * vocab..(position + 1) * vocab], logits);
            })
            .unwrap();
        compare_continuation(&golden, setup, i, prompt, &mut engine, &mut seen);
    }
    compare_batch(&golden, setup, &mut engine, &mut seen);
    println!(
        "{name} {} {:?} tp {}: max |d| {:.2e}, max KL {:.2e}, above 1e-4 {:.2} %",
        setup.dtype,
        setup.instruction_set,
        setup.tp,
        seen.max_abs,
        seen.max_kl(),
        100.0 * seen.share_above(1e-4)
    );
    Some(seen)
}

/// Feeds back the golden's greedy tokens. Our choice must be the same wherever the golden's choice was clear.
fn compare_continuation(
    golden: &Golden,
    setup: &Setup,
    i: usize,
    prompt: &[u32],
    engine: &mut Engine,
    seen: &mut Seen,
) {
    let vocab = engine.config().padded_vocab_size;
    let greedy = golden.ids(&format!("{}.greedy{i}", setup.dtype));
    let logits = golden.array(&format!("{}.decode{i}", setup.dtype));
    let margins: Vec<f32> = logits.chunks_exact(vocab).map(margin).collect();
    let request = Request {
        prompt: prompt.to_vec(),
        max_new_tokens: golden.decode_steps,
        ignore_eos: true,
        sampling: Sampling::Greedy,
        ..Request::probe()
    };
    engine.submit(request).unwrap();
    let mut ours = Vec::new();
    while !engine.is_idle() {
        ours.extend(engine.step().unwrap().emitted.into_iter().map(|(_, token)| token));
    }
    for step in 0..golden.decode_steps {
        if ours[step] != greedy[step] {
            assert!(margins[step] <= 0.05, "prompt {i} step {step}: {} for {}", ours[step], greedy[step]);
            break;
        }
    }
    let forced: Vec<u32> = prompt.iter().chain(&greedy[..golden.decode_steps - 1]).copied().collect();
    engine
        .teacher_force(&forced, &mut |position, ours| {
            if let Some(step) = (position + 1).checked_sub(prompt.len()) {
                seen.add(&logits[step * vocab..(step + 1) * vocab], ours);
            }
        })
        .unwrap();
}

/// Compares the golden's left-padded batch with our ragged one, by choice log-probabilities over the whole vocabulary.
fn compare_batch(golden: &Golden, setup: &Setup, engine: &mut Engine, seen: &mut Seen) {
    let vocab = engine.config().padded_vocab_size;
    let Some(expected) = golden.find(&format!("{}.batch", setup.dtype)) else { return };
    for prompt in &golden.prompts {
        let choice_ids = (0..vocab as u32).collect();
        engine.submit(Request { prompt: prompt.clone(), choice_ids, ..Request::probe() }).unwrap();
    }
    let mut finished = Vec::new();
    while !engine.is_idle() {
        finished.extend(engine.step().unwrap().finished);
    }
    finished.sort_by_key(|c| c.id);
    for (row, completion) in expected.chunks_exact(vocab).zip(&finished) {
        let total = log_sum_exp(row);
        let logprobs: Vec<f32> = row.iter().map(|l| (f64::from(*l) - total) as f32).collect();
        seen.add(&logprobs, &completion.choice_logprobs);
    }
}

const GOLDENS: [&str; 2] = ["tiny-g2", "prefix-g2"];

/// Returns the instruction sets of this machine. Those in plain Rust are slow, so only the small golden uses them.
fn instruction_sets(golden: &str) -> impl Iterator<Item = InstructionSet> {
    let small = golden == "prefix-g2";
    let slow = Family::ALL.map(Family::reference);
    InstructionSet::ALL.into_iter().filter(move |set| set.available() && (small || !slow.contains(set)))
}

#[test]
fn the_reference_device_is_the_model() {
    for name in GOLDENS {
        let setup = Setup { device: DeviceKind::Reference, dtype: DType::Fp32, instruction_set: None, tp: 1 };
        let Some(seen) = compare(name, &setup) else { return };
        assert!(seen.max_abs <= 1e-3, "{name}: {}", seen.max_abs);
    }
}

#[test]
fn fp32_is_within_a_thousandth_on_every_kernel() {
    for name in GOLDENS {
        for set in instruction_sets(name) {
            let setup =
                Setup { device: DeviceKind::Cpu, dtype: DType::Fp32, instruction_set: Some(set), tp: 1 };
            let Some(seen) = compare(name, &setup) else { return };
            assert!(seen.max_abs <= 1e-3, "{name} {}: {}", set.name(), seen.max_abs);
        }
    }
}

#[test]
fn fp16_meets_the_parity_gate_on_every_kernel() {
    for name in GOLDENS {
        for set in instruction_sets(name) {
            let setup =
                Setup { device: DeviceKind::Cpu, dtype: DType::Fp16, instruction_set: Some(set), tp: 1 };
            let Some(seen) = compare(name, &setup) else { return };
            assert!(seen.max_kl() <= 1e-3, "{name} {}: {}", set.name(), seen.max_kl());
            assert!(seen.share_above(1e-4) <= 0.005, "{name} {}", set.name());
        }
    }
}

#[test]
fn bf16_meets_the_kl_bound_on_every_kernel() {
    for name in GOLDENS {
        for set in instruction_sets(name) {
            let setup =
                Setup { device: DeviceKind::Cpu, dtype: DType::Bf16, instruction_set: Some(set), tp: 1 };
            let Some(seen) = compare(name, &setup) else { return };
            assert!(seen.max_kl() <= 1e-3, "{name} {}: {}", set.name(), seen.max_kl());
        }
    }
}

#[test]
fn ranks_meet_the_gates_of_one() {
    for (name, tp) in [("tiny-g2", 2), ("prefix-g2", 4)] {
        let setup = Setup { device: DeviceKind::Cpu, dtype: DType::Fp16, instruction_set: None, tp };
        let Some(seen) = compare(name, &setup) else { return };
        assert!(seen.max_kl() <= 1e-3, "{name} tp {tp}: {}", seen.max_kl());
        assert!(seen.share_above(1e-4) <= 0.005, "{name} tp {tp}");
    }
    let setup = Setup { device: DeviceKind::Cpu, dtype: DType::Fp32, instruction_set: None, tp: 8 };
    let Some(seen) = compare("prefix-g2", &setup) else { return };
    assert!(seen.max_abs <= 1e-3, "{}", seen.max_abs);
}
