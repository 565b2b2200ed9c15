//! `glmbench run`: a suite from file to report.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, bail};
use clap::Args as ClapArgs;
use indicatif::ProgressBar;

use crate::device::DType;
use crate::device::cpu::{InstructionSet, available_threads, measure_limits};
use crate::device::rotary::RotaryMode;
use crate::engine::load::{DeviceKind, MemoryEstimate, ModelPath};
use crate::record::{Roofline, RunRecord};
use crate::report::render;
use crate::run::plan::{Plan, first_prompt_of};
use crate::run::provenance::{Origin, record};
use crate::run::{Ending, Observer, RunError, execute, find, open_dir};
use crate::suite::Suite;

use super::engine::{ComputeArgs, FoundModel};
use super::{Exit, emit, progress, report, say};

/// Run a suite: precision, performance, records and a report
///
/// Every item and repetition is on disk as soon as it is done. Ctrl-C, a full disk or a killed process lose nothing of
/// that: the same command with --resume goes on where the run stopped.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  glmbench run suites/quickstart.toml\n  \
    glmbench run suites/ceval.toml --model chatglm2-6b --set ceval=~/data/ceval --limit 100\n  \
    glmbench run suites/performance.toml --model dummy:chatglm2-6b --dry-run")]
pub struct Args {
    /// The suite file
    #[arg(value_name = "SUITE.toml")]
    suite: PathBuf,
    /// Model folder, `demo`, `dummy:chatglm2-6b` or `dummy:PATH/config.json`; the suite's own unless given
    #[arg(long, value_name = "DIR|demo|dummy:…")]
    model: Option<String>,
    /// Folder of a P-tuning v2 prefix to put over the model: its config.json and the prefix tensors
    #[arg(long, value_name = "DIR")]
    ptuning: Option<PathBuf>,
    /// Device: cpu, or reference (plain fp32 loops, slow)
    #[arg(long, default_value = "cpu")]
    device: DeviceKind,
    /// Type of weights, activations and KV cache: fp16, bf16 or fp32; the suite's own unless given
    #[arg(long, value_name = "TYPE")]
    dtype: Option<DType>,
    /// Rotary table: `model` rounds as the model's own code does, `exact` does not; the suite's own unless given
    #[arg(long, value_name = "MODE")]
    rope: Option<RotaryMode>,
    /// Threads; all cores unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// CPU kernels: avx512, avx2 or portable; the best of the machine unless given
    #[arg(long, value_name = "SET")]
    kernel: Option<InstructionSet>,
    /// Most items of each precision case, taken in turn from each subject
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Folder of run directories
    #[arg(long, value_name = "DIR", default_value = "reports")]
    out: PathBuf,
    /// Go on with the newest unfinished run of the same suite, data, model and device
    #[arg(long)]
    resume: bool,
    /// Show plan, memory and first prompts; run nothing
    #[arg(long)]
    dry_run: bool,
    /// Lay a value over the suite: `accuracy.0.limit=10`, or another data set: `ceval=FOLDER`
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
}

/// The two halves of a `--set`.
pub(super) fn key_value(word: &str) -> Result<(String, String), String> {
    match word.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("\"{word}\" is no KEY=VALUE, such as accuracy.0.limit=10")),
    }
}

/// Does it.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let suite = load_suite(args)?;
    let compute = compute_args(args, &suite);
    let word = args.model.clone().or_else(|| suite.model.path.clone()).unwrap_or_else(|| "demo".into());
    let model = FoundModel::find(&word, args.ptuning.as_deref())?;
    let tokenizer = model.tokenizer()?;
    let plan = Plan::new(&suite, &model.config, tokenizer.as_ref())?;
    let estimate = MemoryEstimate::new(&model.config, compute.dtype(), plan.limits);
    if args.dry_run {
        emit(describe(&suite, &plan, &model, &compute, &estimate).trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    if plan.accuracy.is_empty() && plan.performance.is_empty() {
        bail!("{}: the suite has no cases", suite.path.display());
    }
    model.check(&compute, plan.limits)?;
    // What cannot be written is better known before gigabytes are read.
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot create --out {}", args.out.display()))?;
    let stop = stop_flag()?;
    // Before the weights are there: the measurement takes memory of its own.
    let roofline = roofline(&plan, &compute)?;
    let weights = fingerprint(&model, &compute)?;
    let mut engine = model.load(&compute, plan.limits)?;
    let origin = Origin {
        suite: &suite,
        model: model_name(&word, &model.path),
        weights,
        tokenizer: tokenizer.as_ref().map(|t| t.sha256().to_owned()),
        rotary: compute.rope,
        device: engine.device_info(),
        roofline,
        command_line: std::env::args().collect(),
    };
    let first = record(&origin, &plan, &model.config);
    let found = find(&args.out, &first);
    if let (Some(found), false) = (&found, args.resume) {
        say(&format!(
            "glmbench: an unfinished run of this is at {}; --resume goes on with it",
            found.path.display()
        ));
    }
    if args.resume && found.is_none() {
        say(&format!(
            "glmbench: {} has no unfinished run of the same suite, data, model and device; a new one begins",
            args.out.display()
        ));
    }
    let (mut dir, mut run_record) = open_dir(&args.out, found.as_ref().filter(|_| args.resume), first)?;
    let mut bars = Bars::default();
    let ending = execute(&plan, &mut engine, &mut dir, &mut run_record, &mut bars, &stop);
    bars.end();
    conclude(ending, &dir, &run_record)
}

fn load_suite(args: &Args) -> anyhow::Result<Suite> {
    let mut suite = Suite::load(&args.suite, &args.set)?;
    if let Some(limit) = args.limit {
        for case in &mut suite.accuracy {
            case.limit = Some(limit as usize);
        }
    }
    Ok(suite)
}

/// Flags go before the suite.
fn compute_args(args: &Args, suite: &Suite) -> ComputeArgs {
    let by_suite = match suite.model.dtype {
        crate::suite::Dtype::Fp16 => DType::Fp16,
        crate::suite::Dtype::Fp32 => DType::Fp32,
        crate::suite::Dtype::Bf16 => DType::Bf16,
    };
    let rope = match suite.model.rope {
        crate::suite::Rope::Model => RotaryMode::Model,
        crate::suite::Rope::Exact => RotaryMode::Exact,
    };
    let dtype = match args.device {
        DeviceKind::Reference => args.dtype,
        _ => Some(args.dtype.unwrap_or(by_suite)),
    };
    ComputeArgs {
        device: args.device,
        dtype,
        rope: args.rope.unwrap_or(rope),
        threads: args.threads,
        kernel: args.kernel,
    }
}

/// Says how it ended, makes the report of what is there, and gives the exit code.
fn conclude(
    ending: Result<Ending, RunError>,
    dir: &crate::record::RunDir,
    record: &RunRecord,
) -> anyhow::Result<ExitCode> {
    let path = dir.path().display();
    match ending {
        Ok(Ending::Complete) => {
            let summary = match render(dir.path()) {
                Ok(summary) => summary,
                Err(error) => {
                    say(&format!("glmbench: {error}"));
                    say(&format!(
                        "glmbench: {path} is measured; its report is not made; `glmbench report` makes it"
                    ));
                    return Ok(Exit::Incomplete.into());
                }
            };
            report::show(&summary, dir.path())?;
            Ok(report::exit_code(summary.verdict()))
        }
        Ok(Ending::Interrupted) => {
            say(&format!(
                "glmbench: stopped; what is done is in {path}; the same command with --resume goes on"
            ));
            Ok(Exit::Incomplete.into())
        }
        Err(error @ RunError::Record(_)) => {
            say(&format!("glmbench: {error}"));
            say(&format!(
                "glmbench: run {} is incomplete; when that is mended, --resume goes on",
                record.run_id
            ));
            Ok(Exit::Incomplete.into())
        }
        Err(error) => {
            say(&format!("glmbench: run {} is incomplete; --resume goes on", record.run_id));
            Err(error.into())
        }
    }
}

/// Set by Ctrl-C, SIGTERM and SIGHUP; a second one ends the program at once.
fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            // The journals are whole at any moment; nothing waits to be written.
            #[expect(clippy::exit, reason = "asked twice: end now")]
            std::process::exit(i32::from(Exit::Incomplete as u8));
        }
        say("glmbench: stopping after this step (again to stop at once)");
    })
    .context("Ctrl-C cannot be handled")?;
    Ok(stop)
}

/// Hash of the weights, with a bar while gigabytes are read.
fn fingerprint(model: &FoundModel, compute: &ComputeArgs) -> anyhow::Result<String> {
    let source = model.weights(compute.dtype())?;
    let bar = progress::bar("hashing", "bytes");
    bar.set_length(source.stored().iter().map(|t| t.bytes).sum());
    let done = AtomicU64::new(0);
    let hash = source.fingerprint(&|bytes| {
        bar.set_position(done.fetch_add(bytes, Ordering::Relaxed) + bytes);
    });
    bar.finish_and_clear();
    hash.map_err(|e| crate::engine::EngineError::from(e).into())
}

/// The folder's name is enough; paths are nobody's business.
fn model_name(word: &str, path: &ModelPath) -> String {
    match path {
        ModelPath::Folder(dir) if word != "demo" => {
            dir.file_name().map_or_else(|| word.to_owned(), |n| n.to_string_lossy().into_owned())
        }
        _ => word.to_owned(),
    }
}

/// Measured only where speed is.
fn roofline(plan: &Plan<'_>, compute: &ComputeArgs) -> anyhow::Result<Option<Roofline>> {
    if plan.performance.is_empty() || compute.device != DeviceKind::Cpu {
        return Ok(None);
    }
    let limits = measure_limits(compute.threads.map_or_else(available_threads, usize::from))?;
    Ok(Some(Roofline {
        bandwidth_bytes_per_s: limits.bandwidth_bytes_per_s,
        peak_flops_per_s: limits.peak_flops_per_s,
    }))
}

/// Bars drawn from what the run tells.
#[derive(Default)]
struct Bars {
    bar: Option<ProgressBar>,
}

impl Observer for Bars {
    fn begin(&mut self, label: &str, unit: &str, total: u64, done: u64) {
        let bar = progress::bar(label, unit);
        bar.set_length(total);
        bar.set_position(done);
        bar.reset_eta();
        self.bar = Some(bar);
    }

    fn advance(&mut self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// What `--dry-run` prints.
fn describe(
    suite: &Suite,
    plan: &Plan<'_>,
    model: &FoundModel,
    compute: &ComputeArgs,
    estimate: &MemoryEstimate,
) -> String {
    let gb = |bytes: u64| format!("{:.3} GB", bytes as f64 / 1e9);
    let mut text = format!(
        "suite     {}: {}\nmodel     {} parameters, {}, rotary table {}\nmemory    {} = weights {} + KV cache {} + working memory {}\n",
        suite.name,
        suite.about,
        model.config.parameters(),
        compute.dtype(),
        compute.rope.name(),
        gb(estimate.total_bytes()),
        gb(estimate.weight_bytes),
        gb(estimate.kv_bytes),
        gb(estimate.activation_bytes),
    );
    for run in &plan.accuracy {
        let task = run.evaluation.plan();
        text += &format!(
            "precision {}: {} items, protocol {}, {} shots, batch {}\n",
            run.task,
            run.evaluation.len(),
            task.protocol.definition().name,
            task.shots,
            run.batch
        );
    }
    for run in &plan.performance {
        text += &format!("timing    {}: {} repetitions\n", run.case_id(), run.repetitions);
    }
    for run in &plan.accuracy {
        let choices: Vec<String> =
            run.evaluation.choices().iter().map(|c| format!("{} = {}", c.answer, c.id)).collect();
        let choices = if choices.is_empty() {
            "none (the answer is read from text)".into()
        } else {
            choices.join(", ")
        };
        text += &format!("\nchoice tokens of {}: {choices}\n", run.task);
        if let Some(first) = first_prompt_of(run) {
            text += &format!(
                "first prompt of {} ({}):\n{}\nids: {:?}\n",
                run.task, first.doc_id, first.text, first.token_ids
            );
        }
    }
    text
}
