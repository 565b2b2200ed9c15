//! Overhead of the harness: its time as a share of the engine time, with the demo model at batch 8.
//!
//! `cargo bench --bench harness`. The target is at most 1 % between the steps. The result is a ratio of times from the
//! same process, as a median over repetitions, so other load on the machine affects both sides.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use glmbench::bench::{Offered, OrdinaryTokens, Pace, Shape, prompts, repeat, serve};
use glmbench::stats::median;
use glmbench_cpu::{Cpu, CpuOptions};
use glmbench_device::rotary::RotaryMode;
use glmbench_device::{DType, DeviceInfo};
use glmbench_engine::Engine;
use glmbench_engine::EngineError;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::model::{Capacity, Forward, Model, StepInput, attention_shape};
use glmbench_engine::weights::open_checkpoint;

const SHAPE: Shape = Shape { batch: 8, input_tokens: 128, output_tokens: 64 };
const REPETITIONS: usize = 30;
/// Maximum overhead between the steps, as a share of step time.
const TARGET: f64 = 0.01;

/// A model that records the duration of its forward passes.
struct Timed {
    model: Box<dyn Forward>,
    forward_ns: Arc<AtomicU64>,
}

impl Forward for Timed {
    fn forward(&mut self, step: &StepInput<'_>, logits: &mut Vec<f32>) -> Result<(), EngineError> {
        let start = Instant::now();
        let result = self.model.forward(step, logits);
        self.forward_ns.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        result
    }

    fn write_prefix(&mut self, blocks: &[u32]) -> Result<(), EngineError> {
        self.model.write_prefix(blocks)
    }

    fn copy_block(&mut self, from: u32, to: u32, tokens: usize) -> Result<(), EngineError> {
        self.model.copy_block(from, to, tokens)
    }

    fn device_info(&self) -> DeviceInfo {
        self.model.device_info()
    }

    fn modelled_ns(&self) -> Option<u64> {
        self.model.modelled_ns()
    }

    fn capacity(&self) -> Capacity {
        self.model.capacity()
    }

    fn config(&self) -> &ModelConfig {
        self.model.config()
    }
}

/// The demo model on the CPU, with timed forward passes.
fn engine() -> Result<(Engine, Arc<AtomicU64>), EngineError> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let config = ModelConfig::from_file(&folder.join("config.json"))?;
    let capacity = Capacity::for_batch(&config, SHAPE.batch, SHAPE.sequence_tokens());
    let device =
        Cpu::new(CpuOptions::plain(DType::Fp16.into(), capacity.max_context, attention_shape(&config)))?;
    let weights = open_checkpoint(&folder)?;
    let model = Model::load(device, &config, RotaryMode::Model, capacity, &*weights, &mut |_, _| {})?;
    let forward_ns = Arc::new(AtomicU64::new(0));
    let timed = Timed { model: Box::new(model), forward_ns: Arc::clone(&forward_ns) };
    Ok((Engine::new(Box::new(timed)), forward_ns))
}

fn main() {
    let (mut engine, forward_ns) = engine().expect("the demo model is in the repository");
    let tokens = OrdinaryTokens::of_vocabulary(engine.config().padded_vocab_size);
    let prompts = prompts(SHAPE, &tokens, 1);
    let (mut between, mut bookkeeping, mut served) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..REPETITIONS {
        forward_ns.store(0, Ordering::Relaxed);
        let times = repeat(&mut engine, SHAPE, &prompts).expect("the shape fits");
        let steps_ns = times.prefill_ns + times.step_ns.iter().sum::<u64>();
        between.push((times.total_ns() - steps_ns) as f64 / steps_ns as f64);
        let forward = forward_ns.swap(0, Ordering::Relaxed);
        bookkeeping.push(steps_ns.saturating_sub(forward) as f64 / steps_ns as f64);
        // The same work through the open loop, with all requests at once.
        let offer = |prompt: &Vec<u32>| Offered {
            arrival_ns: 0,
            prompt: prompt.clone(),
            output_tokens: SHAPE.output_tokens,
        };
        let offered: Vec<Offered> = prompts.iter().map(offer).collect();
        let start = Instant::now();
        let done = serve(&mut engine, &offered, Pace::Open(SHAPE.batch), &mut || false, &mut |_| {});
        let wall = start.elapsed().as_nanos() as f64;
        assert!(matches!(done, Ok(Some(_))), "{done:?}");
        served.push(1.0 - forward_ns.load(Ordering::Relaxed) as f64 / wall);
    }
    let middle = |shares: &[f64]| median(shares).unwrap_or(f64::NAN);
    let percent = |shares: &[f64]| 100.0 * middle(shares);
    println!("demo model, batch {}, {} in, {} out", SHAPE.batch, SHAPE.input_tokens, SHAPE.output_tokens);
    println!("between steps (timing loop)              {:.4} % of step time", percent(&between));
    println!("within steps: scheduling, token choice   {:.4} % of step time", percent(&bookkeeping));
    println!("open loop: all but the forward pass      {:.4} % of its time", percent(&served));
    let holds = if middle(&between) <= TARGET { "holds" } else { "MISSED" };
    println!("target: at most {} % between steps: {holds}", 100.0 * TARGET);
}
