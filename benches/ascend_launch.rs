//! Host cost of glmbench's own code per decode step on an Ascend card. It runs the 6B shape on the emulator in
//! clock-only mode, which computes nothing. The wall time is then launches, lists and tables. Only the logits of one
//! sequence are fetched, since converting a batch's logits to fp32 is not a launch cost.
//!
//! `cargo bench --bench ascend_launch` prints measured milliseconds per step, for both cards and several batches. They
//! include the emulator's own first and second stages.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::time::Instant;

use glmbench_ascend::{AscendGroup, Chip, Emulation, Forced, GroupSettings};
use glmbench_device::rotary::RotaryMode;
use glmbench_device::{DType, KvForm, SequenceView, WeightForm};
use glmbench_engine::config::ModelConfig;
use glmbench_engine::model::{Capacity, Forward, Model, StepInput, attention_shape};
use glmbench_engine::weights::StorageType;
use glmbench_engine::weights::unread::Unread;

/// Number of timed steps. The output is their median and the fastest tenth.
const STEPS: usize = 200;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = ModelConfig::chatglm2_6b();
    for chip in [Chip::Duo300i, Chip::A2800i] {
        for batch in [1, 16, 64] {
            let mut costs = decode_steps(chip, &config, batch)?;
            costs.sort_by(f64::total_cmp);
            println!(
                "{:9} batch {batch:2}: host {:.3} ms a decode step (median of {STEPS}, measured), fastest tenth {:.3} ms",
                chip.name(),
                costs[STEPS / 2],
                costs[STEPS / 10]
            );
        }
    }
    Ok(())
}

/// Returns the wall time of every step in milliseconds.
fn decode_steps(
    chip: Chip,
    config: &ModelConfig,
    batch: usize,
) -> Result<Vec<f64>, Box<dyn std::error::Error>> {
    let capacity = Capacity::for_batch(config, batch, 1024);
    let settings = GroupSettings {
        chip,
        tp: 1,
        dtype: DType::Fp16,
        weights: WeightForm::Plain,
        kv: KvForm::Auto,
        attention: attention_shape(config),
        bind: false,
        forced: Forced::default(),
        emulation: Some(Emulation::new(chip, None, true)?),
    };
    let group = AscendGroup::new(settings)?;
    let source = Unread { config: config.clone(), dtype: StorageType::F16 };
    let device = group.rank(0)?;
    let mut model = Model::load(device, config, RotaryMode::Model, capacity, &source, &mut |_, _| {})?;
    let blocks: Vec<Vec<u32>> = (0..batch as u32).map(|i| (i * 8..(i + 1) * 8).collect()).collect();
    let mut logits = Vec::new();
    let mut costs = Vec::new();
    for step in 0..STEPS + 20 {
        let context = 512 + step;
        let views: Vec<SequenceView<'_>> = blocks
            .iter()
            .enumerate()
            .map(|(i, blocks)| SequenceView { rows: i..i + 1, context, blocks })
            .collect();
        let positions = vec![context as u32 - 1; batch];
        let rows = [0];
        let tokens = vec![1; batch];
        let input =
            StepInput { tokens: &tokens, positions: &positions, sequences: &views, logit_rows: &rows };
        let begin = Instant::now();
        model.forward(&input, &mut logits)?;
        if step >= 20 {
            costs.push(begin.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(costs)
}
