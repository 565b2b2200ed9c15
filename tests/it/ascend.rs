//! The Ascend device on the emulator: numbers against the model's own code, every alternative, every fault.

#![allow(clippy::unwrap_used)] // helpers of tests, outside the test functions

use std::path::{Path, PathBuf};

use glmbench::device::ascend::{Ascend, AscendGroup, Chip, Emulation, Forced, GroupSettings};
use glmbench::device::rotary::RotaryMode;
use glmbench::device::{ClockProfile, DType};
use glmbench::engine::config::ModelConfig;
use glmbench::engine::model::{Limits, Model, attention_shape};
use glmbench::engine::scheduler::Scheduler;
use glmbench::engine::weights::open_checkpoint;

use crate::goldens::{Golden, Seen};
use crate::support::shared;

const CHIPS: [Chip; 2] = [Chip::Duo300i, Chip::A2800i];

fn library() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_glmbench")).with_file_name("libascend_emulator.so")
}

/// Settings of an emulated machine.
fn settings(chip: Chip, config: &ModelConfig, lines: &str, forced: &str) -> GroupSettings {
    let soc = if chip == Chip::Duo300i { "Ascend310P3" } else { "Ascend910B4" };
    GroupSettings {
        chip,
        world: 1,
        dtype: DType::Fp16,
        attention: attention_shape(config),
        bind: false,
        forced: Forced::parse(forced).unwrap(),
        emulation: Some(Emulation {
            library: library(),
            settings: format!("soc = {soc}\nstreams = lazy\n{lines}"),
            clock: ClockProfile { name: "test".into(), sha256: String::new() },
            timing_only: lines.contains("mode = timing"),
        }),
    }
}

fn config(dir: &Path) -> ModelConfig {
    ModelConfig::from_file(&dir.join("config.json")).unwrap()
}

fn limits(config: &ModelConfig, step: usize) -> Limits {
    let mut limits = Limits::for_batch(config, 8, 1024);
    (limits.max_step_tokens, limits.max_logit_rows) = (step, step);
    limits
}

fn engine(device: Ascend, dir: &Path, step: usize) -> Scheduler {
    let config = config(dir);
    let limits = limits(&config, step);
    let source = open_checkpoint(dir).unwrap();
    let model = Model::load(device, &config, RotaryMode::Model, limits, &*source, &mut |_, _| {}).unwrap();
    Scheduler::new(Box::new(model))
}

/// A golden's logits of all prompts against ours, fed in chunks of `step` tokens.
fn compare(dir: &Path, chip: Chip, lines: &str, forced: &str, step: usize) -> Seen {
    let golden = Golden::read(dir);
    let group = AscendGroup::new(settings(chip, &config(dir), lines, forced)).unwrap();
    let mut engine = engine(group.rank(0).unwrap(), dir, step);
    let vocab = engine.config().padded_vocab_size;
    let mut seen = Seen::default();
    for (i, prompt) in golden.prompts.iter().enumerate() {
        let expected = golden.array(&format!("fp16.prompt{i}"));
        engine
            .teacher_force(prompt, &mut |position, logits| {
                seen.add(&expected[position * vocab..(position + 1) * vocab], logits);
            })
            .unwrap();
    }
    seen
}

#[test]
fn the_goldens_fp16_gate_is_met_on_both_chips() {
    for name in ["tiny-g2", "prefix-g2"] {
        let Some(dir) = shared(&format!("goldens/{name}")) else { return };
        for chip in CHIPS {
            let seen = compare(&dir, chip, "", "", 512);
            eprintln!(
                "{name} {}: max KL {:.2e}, share above 1e-4 {}",
                chip.name(),
                seen.max_kl(),
                seen.share_above(1e-4)
            );
            assert!(seen.max_kl() <= 1e-3, "{name} {}: {}", chip.name(), seen.max_kl());
            assert!(seen.share_above(1e-4) <= 0.005, "{name} {}", chip.name());
        }
    }
}
