//! `glmbench verify`: runs a sample of a run's items again and compares the answers with the record.

mod endpoint;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, bail};
use clap::Args as ClapArgs;
use serde_json::json;

use glmbench_cpu::InstructionSet;
use glmbench_device::rotary::RotaryMode;
use glmbench_device::{DeviceInfo, DeviceName, KvForm, Precision};

use glmbench_engine::tokenizer::Tokenizer;

use crate::compute::{Compute, ComputeSpec, Emulation};
use crate::dataset::Benchmark;
use crate::record::{AccuracyCase, Contents, PerformanceCase, PromptRecord, RunDir, RunRecord};
use crate::run::AccuracyRun;
use crate::run::found::FoundModel;
use crate::run::plan::Plan;
use crate::run::verify::{Bound, Difference, Picked, Skipped, Verified, items, task_run, timed_case};

use super::bars::Bars;
use super::data::dataset_folder;
use super::engine::{DeviceFlags, OverModel};
use super::export::say_faults;
use super::progress;
use super::runs::find_run;
use super::settings::dataset_parser;
use super::{Exit, emit, emit_json};

/// Run a random sample of a run's items again, and compare the answers with the record
///
/// Weights, tokenizer and data sets must be those of the run. If a hash differs, nothing is compared and the exit code is 2.
/// Device, type, kernels and ranks are the run's by default.
///
/// Tokens, text and every log-probability must equal the record to the last bit under two conditions. The kernels are of the
/// same CPU family (--kernel lists them), and the number of ranks is the same. Timed cases must give the recorded output hash.
/// Times are not
/// compared.
///
/// In all other cases every log-probability must be within a bound, which is printed with the result. Every recorded token must
/// be within the bound of the likeliest token. On Ascend cards this applies always, because sums depend on how prompts are cut.
///
/// The items of a run that a server answered go to a server (--endpoint). Its tokens and text must be the record's, its
/// log-probabilities within 0.1 nat. A server computes in batches of its own, so a difference need not be a fault.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  glmbench verify 20261123T02\n  \
    glmbench verify reports/20261123T021500Z-ceval-cpu-5e1f22 --model chatglm2-6b --items 50 --seed 7\n\n\
    Exit codes: 0 as recorded, 1 something differs, 2 other weights, tokenizer or data than the run's, or usage,\n            \
    3 the run is not complete, 4 the record is not what its plan says (3 and 4 only if nothing differs),\n            \
    5 device or engine unavailable")]
pub struct Args {
    /// The run directory, or the beginning of its name in reports/
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Number of items to run again, over all tasks
    #[arg(long, value_name = "N", default_value_t = 20)]
    items: u32,
    /// Number of timed cases to run again, once each
    #[arg(long, value_name = "N", default_value_t = 3)]
    cases: u32,
    /// Seed of the sample [default: a new one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Model folder, `demo`, `dummy:chatglm2-6b` or `dummy:PATH/config.json` [default: the model as the run names it]
    #[arg(long, value_name = "DIR|demo|dummy:…")]
    model: Option<OsString>,
    /// What the run had over the model
    #[command(flatten)]
    over: OverModel,
    /// Folder of a data set, as `ceval=FOLDER` [default: datasets/NAME]
    #[arg(long, value_name = "TASK=DIR", value_parser = dataset_parser())]
    set: Vec<(&'static Benchmark, PathBuf)>,
    /// A server instead
    #[command(flatten)]
    server: endpoint::ServerArgs,
    /// Device, ranks, threads and kernels [default: those of the run]
    #[command(flatten)]
    on: DeviceFlags,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let dir = RunDir::open(&find_run(&args.run)?)?;
    let contents = Contents::read(&dir)?;
    if let Some(first) = &contents.run.provenance.scored_from {
        bail!(
            "run {} was scored from {first}, and no model ran for it; verify that one",
            contents.run.run_id
        );
    }
    endpoint::check(args, &contents.run)?;
    let records = say_faults(&contents.run, &contents.audit);
    let faults = contents.audit.words().map(|words| words.to_string());
    let seed = args.seed.unwrap_or_else(clock_seed);
    let cases = if endpoint::is_given(args) { 0 } else { args.cases as usize };
    let picked = Picked::of(&contents, args.items as usize, cases, seed);
    if picked.items.is_empty() && picked.cases.is_empty() {
        if args.items == 0 && args.cases == 0 {
            bail!("--items 0 --cases 0: nothing was asked for");
        }
        bail!(
            "run {} has no item and no timed case that can run again{}",
            contents.run.run_id,
            reasons(&picked.skipped)
        );
    }
    if endpoint::is_given(args) {
        let same = endpoint::run(args, &contents, &picked, seed, faults.as_deref())?;
        return Ok(if same { records } else { Exit::GateFailed }.into());
    }
    let session = Session::new(args, &contents)?;
    let found = session.verify(&dir, &picked)?;
    if picked.item_count() + found.cases == 0 {
        let why = reasons(&found.skipped);
        bail!("nothing of run {} was compared{why}", contents.run.run_id);
    }
    if args.json {
        emit_json(&found.data(&session, &picked, seed, faults.as_deref()))?;
    } else {
        emit(&found.words(&session, &picked, seed))?;
    }
    Ok(if found.differences.is_empty() { records } else { Exit::GateFailed }.into())
}

/// Returns a seed from the clock.
fn clock_seed() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    // Short enough to type.
    since.map_or(0, |since| since.as_nanos() as u64 % 1_000_000_000)
}

/// A run, with the model to verify it with.
struct Session<'a> {
    args: &'a Args,
    contents: &'a Contents,
    model: FoundModel,
    tokenizer: Option<Tokenizer>,
    compute: Compute,
}

/// The result.
struct Found {
    differences: Vec<Difference>,
    other_tokens: usize,
    largest: f32,
    /// The tolerance for each engine, by the engine's name.
    bounds: BTreeMap<String, Bound>,
    /// Timed cases that were not compared.
    skipped: Vec<Skipped>,
    cases: usize,
}

impl<'a> Session<'a> {
    /// Finds the model and rejects one that is not the run's.
    fn new(args: &'a Args, contents: &'a Contents) -> anyhow::Result<Self> {
        let run = &contents.run;
        let word = args.model.clone().unwrap_or_else(|| run.provenance.model.clone().into());
        let model = args.over.find(&word).with_context(|| {
            format!("the run's model is {}; --model names its folder", run.provenance.model)
        })?;
        let word = word.to_string_lossy();
        let word: &str = &word;
        let tokenizer = model.tokenizer()?;
        let compute = compute(args, run)?;
        let hash = tokenizer.as_ref().map_or("none", |tokenizer| tokenizer.sha256());
        same_hash(run, "tokenizer", hash, word)?;
        for (field, found) in model.facts(tokenizer.as_ref())?.identity() {
            match run.identity.get(field) {
                Some(recorded) if recorded != found => {
                    bail!("--model {word}: {field} is {found}, run {} recorded {recorded}", run.run_id)
                }
                _ => {}
            }
        }
        same_hash(
            run,
            "weights",
            &model.fingerprint(compute.precision.dtype, true, &mut Bars::default())?,
            word,
        )?;
        Ok(Self { args, contents, model, tokenizer, compute })
    }

    fn verify(&self, dir: &RunDir, picked: &Picked) -> anyhow::Result<Found> {
        let run = &self.contents.run;
        let prompts = kept_prompts(dir, picked)?;
        let mut tasks = Vec::new();
        for case in &run.plan.accuracy {
            if let Some(samples) = picked.items.get(&case.task) {
                tasks.push((case, samples, self.task(case, samples)?));
            }
        }
        let recorded_tp = |tp: u32| self.args.on.tp.map_or(tp as usize, usize::from);
        let tp_sizes: BTreeSet<usize> = tasks
            .iter()
            .map(|(_, _, task)| task.tp)
            .chain(picked.cases.iter().map(|case| recorded_tp(case.tp)))
            .collect();
        let mut found = Found {
            differences: Vec::new(),
            other_tokens: 0,
            largest: 0.0,
            bounds: BTreeMap::new(),
            skipped: picked.skipped.clone(),
            cases: 0,
        };
        let bar = progress::bar("verifying", "items");
        bar.set_length((picked.item_count() + picked.cases.len()) as u64);
        for tp in tp_sizes {
            let (own, rest): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|(_, _, task)| task.tp == tp);
            tasks = rest;
            let cases: Vec<&PerformanceCase> =
                picked.cases.iter().filter(|case| recorded_tp(case.tp) == tp).collect();
            let (facts, runs): (Vec<_>, Vec<_>) = own.into_iter().map(|(c, s, task)| ((c, s), task)).unzip();
            let step_tokens = self.compute.device.step_tokens();
            let (config, tokenizer) = (&self.model.config, self.tokenizer.as_ref());
            let plan = Plan::for_verification(runs, &cases, tp, config, tokenizer, step_tokens);
            let mut engine =
                self.model.load(&self.compute.on(tp), plan.capacity(tp), &mut Bars::default())?;
            let info = engine.device_info();
            for ((case, samples), task) in facts.iter().zip(&plan.accuracy) {
                let bound = self.bound(&info, case.tp as usize, tp);
                found.bounds.insert(named(&info), bound);
                let kept = prompts.get(&case.task).cloned().unwrap_or_default();
                let verified = items(task, samples, &kept, &mut engine, bound, &mut || bar.inc(1))?;
                found.add(verified);
            }
            for case in cases {
                bar.inc(1);
                let bound = self.bound(&info, case.tp as usize, tp);
                if bound != Bound::Exact {
                    let reason =
                        "output hashes are compared only for the same family, device and number of ranks";
                    found.skipped.push(Skipped { case_id: case.case_id.clone(), reason });
                    continue;
                }
                found.bounds.insert(named(&info), bound);
                found.cases += 1;
                let difference = timed_case(case, &self.contents.requests, &plan, &mut engine)?;
                found.differences.extend(difference);
            }
        }
        bar.finish_and_clear();
        Ok(found)
    }

    /// Returns a task's items, read from its data set.
    fn task(
        &self,
        case: &AccuracyCase,
        samples: &[crate::record::SampleRecord],
    ) -> anyhow::Result<AccuracyRun<'_>> {
        let folder = dataset_folder(&self.args.set, None, case)
            .with_context(|| format!("task {} was of {}; --set names its folder", case.task, case.dataset))?;
        let tokenizer = self.tokenizer.as_ref().context("random weights have no tokenizer")?;
        let seq_length = self.model.config.seq_length;
        let mut task = task_run(self.contents, case, samples, &folder, tokenizer, seq_length)?;
        if let Some(tp) = self.args.on.tp {
            task.tp = usize::from(tp);
        }
        Ok(task)
    }

    /// Returns the tolerance between this engine and the record.
    fn bound(&self, ours: &DeviceInfo, recorded_tp: usize, tp: usize) -> Bound {
        let theirs = &self.contents.run.provenance;
        let family = |kernel: &str| kernel.parse().ok().map(InstructionSet::family);
        let alike = *ours.name == *theirs.device
            && family(&ours.kernel) == family(&theirs.kernel)
            && !self.compute.device.is_card()
            && recorded_tp == tp;
        if alike { Bound::Exact } else { Bound::across(ours.precision.dtype) }
    }
}

/// Returns the recorded prompts of the items, by task and item.
fn kept_prompts(
    dir: &RunDir,
    picked: &Picked,
) -> anyhow::Result<BTreeMap<String, BTreeMap<String, PromptRecord>>> {
    let wanted: BTreeSet<(&str, &str)> = picked
        .items
        .values()
        .flatten()
        .map(|sample| (sample.task.as_str(), sample.doc_id.as_str()))
        .collect();
    let records =
        dir.read_prompts(|record| wanted.contains(&(record.task.as_str(), record.doc_id.as_str())))?;
    let mut kept: BTreeMap<String, BTreeMap<String, PromptRecord>> = BTreeMap::new();
    for record in records {
        kept.entry(record.task.clone()).or_default().insert(record.doc_id.clone(), record);
    }
    Ok(kept)
}

/// Fails if a hash differs from the run's: answers with other weights or tokens say nothing about the record.
fn same_hash(run: &RunRecord, field: &str, found: &str, word: &str) -> anyhow::Result<()> {
    match run.identity.get(field) {
        Some(recorded) if recorded != found => {
            bail!("--model {word}: {field}: found the hash {found}, run {} recorded {recorded}", run.run_id)
        }
        _ => Ok(()),
    }
}

/// Returns how the run computed, changed by the flags.
fn compute(args: &Args, run: &RunRecord) -> anyhow::Result<Compute> {
    let (from, flags) = (&run.provenance, args.on.spec());
    let recorded: Option<DeviceName> = from.device.known();
    let Some(device) = flags.device.or(recorded.map(|name| name.kind)) else {
        bail!("the run's device \"{}\" is none of this program; --device names one", from.device);
    };
    let emulated = flags.device.is_none() && recorded.is_some_and(|name| name.emulated);
    let precision: Precision = from.dtype.parse().map_err(anyhow::Error::msg)?;
    let rope = run.identity.get("rope").unwrap_or("model");
    let rope: RotaryMode = rope.parse().map_err(|problem| anyhow::anyhow!("the run's rope: {problem}"))?;
    let written = ComputeSpec {
        device: Some(device),
        emulation: Some(if emulated { Emulation::Auto } else { Emulation::Off }),
        dtype: Some(Precision { kv: KvForm::Auto, ..precision }),
        kv: Some(precision.kv),
        rope: Some(rope),
        kernel: of_family(&from.kernel),
        ..ComputeSpec::default()
    };
    Ok(Compute::merged(&flags, &written)?)
}

/// Returns the recorded kernels if this machine has them, else the best available of their family.
fn of_family(kernel: &str) -> Option<InstructionSet> {
    let recorded: InstructionSet = kernel.parse().ok()?;
    Some(if recorded.available() { recorded } else { recorded.family().best() })
}

/// Names an engine, for results.
fn named(info: &DeviceInfo) -> String {
    let ranks = if info.tp > 1 { format!(" on {} ranks", info.tp) } else { String::new() };
    format!("{} {} {}{ranks}", info.name, info.kernel, info.precision)
}

/// Says why timed cases cannot be put to the engine.
fn reasons(skipped: &[Skipped]) -> String {
    skipped.iter().map(|case| format!("; {}: {}", case.case_id, case.reason)).collect()
}

impl Found {
    fn add(&mut self, verified: Verified) {
        self.differences.extend(verified.differences);
        self.other_tokens += verified.other_tokens;
        self.largest = self.largest.max(verified.largest);
    }

    fn bound_words(bound: Bound) -> String {
        match bound {
            Bound::Exact => "to the last bit".to_owned(),
            Bound::Within(most) => format!("within {most} nat"),
        }
    }

    fn words(&self, session: &Session<'_>, picked: &Picked, seed: u64) -> String {
        let (run, from) = (&session.contents.run, &session.contents.run.provenance);
        let mut lines = vec![format!(
            "Run {}: {} {} {}, weights, tokenizer and data as recorded",
            run.run_id, from.device, from.kernel, from.dtype
        )];
        let (items, cases) = (picked.item_count(), self.cases);
        let of = |count: usize, all: usize, word: &str| format!("{count} of {all} {word}");
        let timed = run.plan.performance.iter().filter(|case| case.unfit.is_none()).count();
        lines.push(format!(
            "run again: {}, {} (--seed {seed})",
            of(items, session.contents.samples.len(), "items"),
            of(cases, timed, "timed cases")
        ));
        for (engine, bound) in &self.bounds {
            lines.push(format!("compared by {engine}: {}", Self::bound_words(*bound)));
        }
        if self.bounds.values().any(|bound| *bound != Bound::Exact) {
            lines.push(format!(
                "largest difference of a log-probability {:.2e} nat; {} with other tokens within the bound",
                self.largest, self.other_tokens
            ));
        }
        if cases > 0 {
            lines.push(
                "of timed cases only the output is compared: times depend on the state of the machine"
                    .to_owned(),
            );
        }
        for Skipped { case_id, reason } in &self.skipped {
            lines.push(format!("not compared: {case_id}: {reason}"));
        }
        for difference in &self.differences {
            lines.push(format!("DIFFERS: {}: {}", difference.of, difference.what));
        }
        lines.push(match self.differences.len() {
            0 => "everything that was compared is as recorded".to_owned(),
            n => format!("{n} of {} differ from the record", items + cases),
        });
        lines.join("\n")
    }

    fn data(
        &self,
        session: &Session<'_>,
        picked: &Picked,
        seed: u64,
        faults: Option<&str>,
    ) -> serde_json::Value {
        let bounds: BTreeMap<&String, Option<f32>> = self
            .bounds
            .iter()
            .map(|(engine, bound)| match bound {
                Bound::Exact => (engine, None),
                Bound::Within(most) => (engine, Some(*most)),
            })
            .collect();
        json!({
            "schema": 1,
            "run": session.contents.run.run_id,
            "seed": seed,
            "items": picked.item_count(),
            "timed_cases": self.cases,
            "bound_nat": bounds,
            "largest_difference_nat": self.largest,
            "other_tokens_within_bound": self.other_tokens,
            "not_put_again": self.skipped.iter().map(|of| (&of.case_id, of.reason)).collect::<Vec<_>>(),
            "differences": self.differences,
            "record_faults": faults,
        })
    }
}
