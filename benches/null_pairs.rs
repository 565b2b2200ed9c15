//! False-positive rate and power of comparisons on this machine. The first is how often they report a change where
//! there is none; the second, how reliably they find a real one.
//!
//! - `cargo bench --bench null_pairs`: 20 comparisons of a configuration with itself by `glmbench run --interleave`. At
//!   most 3 may report a change; otherwise 20 more follow, and the result covers all 40.
//! - `cargo bench --bench null_pairs -- planted`: comparisons in which the second engine waits for 5 % of every forward
//!   pass.
//! - `cargo bench --bench null_pairs -- placed`: null comparisons with one process per block, and with one load per
//!   block within a single process. They show what has to be placed anew.
//!
//! `--count N` sets the number of comparisons. `--json FILE` saves the log-ratios of every block and phase.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use glmbench::bench::{OrdinaryTokens, Repetition, Shape, WarmUp, WarmUpRule, prompts, repeat};
use glmbench::record::{RepetitionKind, RunDir};
use glmbench::stats::{Change, Shift, adjusted, block_log_ratio, blocks_needed, rules_out, within};
use glmbench_cpu::{Cpu, CpuOptions};
use glmbench_device::rotary::RotaryMode;
use glmbench_device::{DType, DeviceInfo};
use glmbench_engine::Engine;
use glmbench_engine::EngineError;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::model::{Capacity, Forward, Model, StepInput, attention_shape};
use glmbench_engine::weights::open_checkpoint;

const SHAPES: [Shape; 3] = [
    Shape { batch: 1, input_tokens: 128, output_tokens: 64 },
    Shape { batch: 4, input_tokens: 128, output_tokens: 64 },
    Shape { batch: 8, input_tokens: 256, output_tokens: 32 },
];
const SUITE: &str = r#"schema = 1
name = "null"
[model]
path = "demo"
[[performance]]
batch = [1, 4]
lengths = [[128, 64]]
repetitions = 4
[[performance]]
batch = [8]
lengths = [[256, 32]]
repetitions = 4
"#;
const PHASES: [&str; 3] = ["prefill", "decode", "e2e"];
/// Pairs of repetitions in a block: A B B A twice.
const PAIRS: usize = 4;
const THRESHOLD: f64 = 0.03;
const PLANTED: f64 = 0.05;
const THREADS: usize = 1;

/// Log-ratios by phase of each shape, then by block.
type LogRatios = Vec<Vec<f64>>;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let after = |flag: &str| words.iter().position(|word| *word == flag).and_then(|at| words.get(at + 1));
    if let ["--child", begin, count, slowdown] = words.as_slice() {
        let (begin, count) = (begin.parse().expect("a block"), count.parse().expect("blocks"));
        child(begin, count, slowdown.parse().expect("a share"));
        return;
    }
    let count = |usual: usize| after("--count").map_or(usual, |n| n.parse().expect("--count N"));
    let blocks = blocks_needed(SHAPES.len() * PHASES.len());
    let mut kept: BTreeMap<&str, Vec<LogRatios>> = BTreeMap::new();
    match words.first().copied() {
        Some("planted") => {
            println!(
                "{blocks} blocks; the second engine waits {:.0} % of every forward pass",
                100.0 * PLANTED
            );
            kept.insert("planted", compared(count(10), |_| in_processes(blocks, PLANTED)));
        }
        Some("placed") => {
            println!("{blocks} blocks, each a process");
            kept.insert("processes", compared(count(20), |_| in_processes(blocks, 0.0)));
            println!("{blocks} blocks, each a load in one process");
            kept.insert("loads", compared(count(20), |_| read_blocks(0, blocks, 0.0)));
        }
        _ => {
            println!("a configuration against itself by `glmbench run --interleave`, {blocks} blocks");
            let mut all = compared(count(20), by_the_program);
            if calls(&all) > 3 {
                println!("more than 3 call a change: as many again");
                all.extend(compared(count(20), by_the_program));
            }
            println!("{} of {} comparisons call a change", calls(&all), all.len());
            kept.insert("program", all);
        }
    }
    if let Some(file) = after("--json") {
        std::fs::write(file, serde_json::to_string(&kept).expect("numbers")).expect("--json FILE");
    }
}

/// Makes `count` comparisons and prints each.
fn compared(count: usize, mut one: impl FnMut(usize) -> LogRatios) -> Vec<LogRatios> {
    let mut all = Vec::new();
    let mut called = BTreeMap::new();
    for index in 0..count {
        let start = Instant::now();
        let log_ratios = one(index);
        let verdicts = verdicts(&log_ratios);
        let words: Vec<String> = verdicts
            .iter()
            .zip(&log_ratios)
            .map(|(verdict, blocks)| {
                let mean = blocks.iter().sum::<f64>() / blocks.len() as f64;
                let short = match verdict {
                    Change::Faster => "FASTER",
                    Change::Same => "same",
                    Change::Slower => "SLOWER",
                    Change::CannotTell => "?",
                };
                *called.entry(short).or_insert(0) += 1;
                format!("{:+.1} % {short}", 100.0 * mean.exp_m1())
            })
            .collect();
        println!("{index:3}  {:5.1} s  {}", start.elapsed().as_secs_f64(), words.join("  "));
        all.push(log_ratios);
    }
    println!("phases: {called:?}; comparisons with a call: {} of {count}", calls(&all));
    all
}

/// Returns the number of comparisons with at least one phase reported as changed.
fn calls(all: &[LogRatios]) -> usize {
    let called = |verdict: &Change| matches!(verdict, Change::Faster | Change::Slower);
    all.iter().filter(|one| verdicts(one).iter().any(called)).count()
}

fn verdicts(log_ratios: &LogRatios) -> Vec<Change> {
    let shifts: Vec<Shift> =
        log_ratios.iter().map(|blocks| Shift::of_blocks(blocks).expect("finite times")).collect();
    let p = adjusted(&shifts.iter().collect::<Vec<_>>());
    let of = |(shift, p): (&Shift, f64)| Change::of(shift.estimate, rules_out(p), within(shift), THRESHOLD);
    shifts.iter().zip(p).map(of).collect()
}

/// Runs one null comparison by the program itself and reads the result from its records.
fn by_the_program(index: usize) -> LogRatios {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let suite = folder.path().join("null.toml");
    std::fs::write(&suite, SUITE).expect("a file");
    let configuration = format!("device=cpu,threads={THREADS}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_glmbench"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("run").arg(&suite).arg("--out").arg(folder.path());
    command.args(["--interleave", "--configuration", &configuration, "--configuration", &configuration]);
    let output = command.stdin(Stdio::null()).output().expect("glmbench starts");
    assert!(output.status.success(), "comparison {index}: {}", String::from_utf8_lossy(&output.stderr));
    let runs = runs(folder.path());
    let [a, b] = runs.as_slice() else { panic!("two runs, not {runs:?}") };
    log_ratios(a, b)
}

fn runs(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
    let mut runs: Vec<PathBuf> = entries.filter(|path| path.join("run.json").exists()).collect();
    // The configuration's name tells which one was given first.
    runs.sort_by_key(|path| {
        let record = RunDir::open(path).and_then(|dir| dir.read_run()).expect("a record");
        record.provenance.group.map(|group| group.configuration)
    });
    runs
}

fn log_ratios(a: &Path, b: &Path) -> LogRatios {
    /// Repetition numbers with the time of each phase.
    type Repetitions = Vec<(u32, [f64; 3])>;
    type Times = BTreeMap<(String, u32), Repetitions>;
    let read = |path: &Path| -> Times {
        let requests = RunDir::open(path).and_then(|dir| dir.read_requests()).expect("records");
        let mut times = Times::new();
        for r in requests.iter().filter(|r| r.kind == RepetitionKind::Timed) {
            let ns = [r.prefill_ns, r.end_ns - r.first_token_ns, r.end_ns - r.start_ns].map(|ns| ns as f64);
            let block = r.block.expect("a block");
            times.entry((r.case_id.clone(), block)).or_default().push((r.repetition, ns));
        }
        times
    };
    let (a, b) = (read(a), read(b));
    let mut all = Vec::new();
    for shape in SHAPES {
        for phase in 0..PHASES.len() {
            let of_block = |((case, block), of_a): (&(String, u32), &Repetitions)| {
                let of_b = b.get(&(case.clone(), *block)).expect("both have the block");
                let pairs: Vec<(f64, f64)> =
                    of_a.iter().zip(of_b).map(|((_, a), (_, b))| (a[phase], b[phase])).collect();
                block_log_ratio(&pairs).expect("finite times")
            };
            all.push(a.iter().filter(|((case, _), _)| *case == shape.case_id()).map(of_block).collect());
        }
    }
    all
}

/// Runs a comparison in which each block is a process of this program.
fn in_processes(blocks: usize, slowdown: f64) -> LogRatios {
    let mut all = vec![Vec::new(); SHAPES.len() * PHASES.len()];
    for block in 0..blocks {
        for (phase, one) in all.iter_mut().zip(read_blocks(block, 1, slowdown)) {
            phase.extend(one);
        }
    }
    all
}

/// Runs `count` blocks in one process, each with new engines.
fn read_blocks(begin: usize, count: usize, slowdown: f64) -> LogRatios {
    let program = std::env::current_exe().expect("this program");
    let words = [begin.to_string(), count.to_string(), slowdown.to_string()];
    let output = Command::new(program).arg("--child").args(words).output().expect("this program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("log-ratios")
}

/// Runs the blocks of such a process.
fn child(begin: usize, count: usize, slowdown: f64) {
    let mut all: LogRatios = vec![Vec::new(); SHAPES.len() * PHASES.len()];
    for block in begin..begin + count {
        let first = block % 2;
        let mut engines = [None, None];
        for side in [first, 1 - first] {
            engines[side] = Some(engine(if side == 1 { slowdown } else { 0.0 }).expect("the demo model"));
        }
        let mut engines = engines.map(|engine| engine.expect("both are loaded"));
        for (index, shape) in SHAPES.into_iter().enumerate() {
            let pairs = turns(&mut engines, shape, first);
            for phase in 0..PHASES.len() {
                let of_phase: Vec<(f64, f64)> =
                    pairs.iter().map(|[a, b]| (phase_ns(a, phase), phase_ns(b, phase))).collect();
                let log_ratio = block_log_ratio(&of_phase).expect("finite times");
                all[PHASES.len() * index + phase].push(log_ratio);
            }
        }
    }
    println!("{}", serde_json::to_string(&all).expect("numbers"));
}

fn turns(engines: &mut [Engine; 2], shape: Shape, first: usize) -> Vec<[Repetition; 2]> {
    let tokens = OrdinaryTokens::of_vocabulary(engines[0].config().padded_vocab_size);
    let prompts = prompts(shape, &tokens, 1);
    let mut once = |side: usize| repeat(&mut engines[side], shape, &prompts).expect("the shape fits");
    for side in [first, 1 - first] {
        let mut warm_up = WarmUp::default();
        while !warm_up.is_enough(&WarmUpRule::default()) {
            warm_up.add(once(side).total_ns());
        }
    }
    let pair = |turn: usize| {
        let leads = (first + turn) % 2;
        let (before, after) = (once(leads), once(1 - leads));
        if leads == 0 { [before, after] } else { [after, before] }
    };
    (0..PAIRS).map(pair).collect()
}

fn phase_ns(repetition: &Repetition, phase: usize) -> f64 {
    [
        repetition.prefill_ns,
        repetition.end_ns - repetition.first_token_ns,
        repetition.end_ns - repetition.start_ns,
    ][phase] as f64
}

/// A model that waits after every forward pass, for a share of its duration.
struct Slowed {
    model: Box<dyn Forward>,
    share: f64,
}

impl Forward for Slowed {
    fn forward(&mut self, step: &StepInput<'_>, logits: &mut Vec<f32>) -> Result<(), EngineError> {
        let start = Instant::now();
        let result = self.model.forward(step, logits);
        let until = start.elapsed().mul_f64(1.0 + self.share);
        while start.elapsed() < until {
            std::hint::spin_loop();
        }
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

/// The demo model on the CPU.
fn engine(slowdown: f64) -> Result<Engine, EngineError> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let config = ModelConfig::from_file(&folder.join("config.json"))?;
    let (batch, tokens) = SHAPES
        .iter()
        .fold((1, 1), |(batch, tokens), shape| (batch.max(shape.batch), tokens.max(shape.sequence_tokens())));
    let capacity = Capacity::for_batch(&config, batch, tokens);
    let device = Cpu::new(CpuOptions {
        threads: THREADS,
        ..CpuOptions::plain(DType::Fp16.into(), capacity.max_context, attention_shape(&config))
    })?;
    let weights = open_checkpoint(&folder)?;
    let model = Model::load(device, &config, RotaryMode::Model, capacity, &*weights, &mut |_, _| {})?;
    Ok(Engine::new(Box::new(Slowed { model: Box::new(model), share: slowdown })))
}
