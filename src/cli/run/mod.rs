//! `glmbench run`: a suite from file to report.

mod describe;
mod endpoint;
pub(super) mod setup;
mod turns;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use anyhow::{Context, bail};
use clap::Args as ClapArgs;

use glmbench_cpu::{MachineLimits, available_threads, measure_limits};
use glmbench_device::DeviceInfo;

use glmbench_engine::Engine;
use glmbench_engine::EngineError;
use glmbench_engine::load::{DeviceKind, ModelPath};

use crate::backend::Backend;
use crate::record::{Group, Roofline, RunDir, RunRecord};
use crate::report::render;
use crate::run::plan::Plan;
use crate::run::provenance::{Origin, record};
use crate::run::{
    Ending, Found, Observer as _, Resume, RunError, Wanted, execute, find, find_group, finished, group_id,
    limits, open_dir, telemetry, unreadable,
};
use crate::suite::Suite;

use self::describe::{Description, describe};
use self::endpoint::EndpointArgs;
use self::setup::{Setup, SetupArgs};
use super::compare::{compare_group, compare_turns};
use super::engine::{ComputeArgs, FoundModel, weight_fault_words};
use super::progress::{self, Bars};
use super::settings::override_parser;
use super::signals::{self, Watch};
use super::{Exit, command_line, emit, report, say};

/// Run a suite: precision, performance, records and a report
///
/// Every item and repetition is on disk as soon as it is done. Ctrl-C, a full disk or a killed process lose nothing of
/// that: the same command with --resume goes on where the run stopped.
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  glmbench run suites/quickstart.toml\n  \
    glmbench run suites/ceval.toml --model chatglm2-6b --set ceval=~/data/ceval --limit 100\n  \
    glmbench run suites/performance.toml --model dummy:chatglm2-6b --dry-run")]
pub struct Args {
    /// The suite file
    #[arg(value_name = "SUITE.toml")]
    suite: PathBuf,
    /// What runs the cases
    #[command(flatten)]
    setup: SetupArgs,
    /// A server instead
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// Time the cases of two configurations in turn (A B B A), in blocks of a process each, and compare them; the same
    /// configuration twice is the null test
    #[arg(long)]
    interleave: bool,
    /// With --interleave: blocks; the fewest that can decide every phase unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    blocks: Option<u16>,
    /// This process is that of one block of two run directories
    #[arg(long, hide = true, num_args = 3, allow_hyphen_values = true, value_names = ["N", "RUN", "RUN"])]
    block_of: Vec<OsString>,
    /// Run also the cases that take longer on this machine than the suite's budget_s
    #[arg(long)]
    over_budget: bool,
    /// Most items of each precision case, taken in turn from each subject
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Folder of run directories
    #[arg(long, value_name = "DIR", default_value = "reports")]
    out: PathBuf,
    /// Go on with the newest unfinished run of the same suite, data, model and device; what of its journals is not as the plan
    /// says is mended
    #[arg(long)]
    resume: bool,
    /// With --resume: do again what failed, items, timed cases, searches and loads, also of a run that is finished
    #[arg(long, requires = "resume")]
    retry_failed: bool,
    /// Show plan, memory and first prompts; run nothing
    #[arg(long)]
    dry_run: bool,
    /// Lay a value over the suite: `accuracy.0.limit=10`, or another data set: `ceval=FOLDER`
    #[arg(long, value_name = "KEY=VALUE", value_parser = override_parser())]
    set: Vec<(String, OsString)>,
}

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if !args.block_of.is_empty() {
        return turns::one_block(args, &args.block_of);
    }
    if args.endpoint.is_given() {
        return endpoint::run(args);
    }
    let suite = load_suite(args)?;
    let setups = Setup::all(&args.setup, &suite)?;
    let mut plans = setups.iter().map(Setup::plan).collect::<Result<Vec<_>, _>>()?;
    if args.dry_run {
        if let Some(blocks) = turns::blocks(args, &suite, &setups, &plans)? {
            turns::lay_out(&setups, &mut plans, blocks);
        }
        return dry_run(args, &setups, &plans);
    }
    let (mut rooflines, mut measured) = (Vec::new(), BTreeMap::new());
    for (setup, plan) in setups.iter().zip(&mut plans) {
        // Before the weights are loaded, because the measurement needs memory of its own.
        let roofline = roofline(plan, &setup.compute, &mut measured)?;
        if let Some(roofline) = roofline.as_ref().filter(|_| !args.over_budget) {
            setup.fit_budget(plan, roofline)?;
        }
        rooflines.push(roofline);
    }
    let blocks = turns::blocks(args, &suite, &setups, &plans)?;
    if let Some(blocks) = blocks {
        turns::lay_out(&setups, &mut plans, blocks);
    }
    for (setup, plan) in setups.iter().zip(&plans) {
        if plan.worlds().is_empty() {
            let of = setup.name.as_ref().map(|name| format!(" for configuration {name}")).unwrap_or_default();
            bail!("{}: the suite has no cases{of}", suite.path.display());
        }
        setup.check(plan)?;
    }
    // Check that the folder is writable before gigabytes are read.
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot create --out {}", args.out.display()))?;
    let groups = groups(args, &suite, &setups, blocks);
    let group = groups.iter().flatten().next().map(|group| group.id.clone());
    let finished_run = |group: &Option<Group>| {
        group
            .as_ref()
            .filter(|_| args.resume)
            .and_then(|g| finished(&args.out, g, &g.configuration, wanted(args)))
    };
    let there: Vec<Option<Found>> = groups.iter().map(finished_run).collect();
    if let Some(blocks) = blocks.filter(|_| there.iter().any(Option::is_none)) {
        let shared = groups.into_iter().zip(rooflines).collect();
        return turns::lead(args, &setups, &plans, shared, blocks);
    }
    let mut exit = Exit::Done;
    let mut done: Vec<PathBuf> = Vec::new();
    let each = setups.iter().zip(&plans).zip(groups).zip(rooflines).zip(there);
    for ((((setup, plan), group), roofline), finished) in each {
        if let Some(found) = finished {
            say(&format!("glmbench: {} is finished already", found.path.display()));
            let code = report::exit_code(render(&found.path)?.verdict());
            exit = if exit == Exit::Done { code } else { exit };
            done.push(found.path);
            continue;
        }
        if signals::asked() {
            return Ok(Exit::Incomplete.into());
        }
        let (path, code) = run_one(args, setup, plan, (group, roofline))?;
        if code == Exit::Incomplete {
            return Ok(code.into());
        }
        exit = if exit == Exit::Done { code } else { exit };
        done.push(path);
    }
    match group {
        Some(_) if blocks.is_some() => compare_turns(&done)?,
        Some(_) => compare_group(&done)?,
        None => {}
    }
    Ok(exit.into())
}

/// Prints what would be run and, if known, how long it takes.
fn dry_run(args: &Args, setups: &[Setup], plans: &[Plan<'_>]) -> anyhow::Result<ExitCode> {
    let texts = setups.iter().zip(plans).map(|(setup, plan)| describe(setup, plan, &args.out));
    let texts = texts.collect::<anyhow::Result<Vec<Description>>>()?;
    let text = texts.iter().map(|of| of.text.as_str()).collect::<Vec<_>>().join("\n");
    emit(text.trim_end())?;
    texts.iter().filter_map(|of| of.warning.as_ref()).for_each(|warning| say(warning));
    for (setup, plan) in setups.iter().zip(plans) {
        // A dry run may be meant for another machine.
        if let Err(error) = setup.check(plan) {
            say(&format!("glmbench: on this machine the run would be refused: {error}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns what counts as unfinished in a run to resume: missing lines, or also failures.
fn wanted(args: &Args) -> Wanted {
    if args.retry_failed { Wanted::MissingOrFailed } else { Wanted::Missing }
}

/// Returns the group of the command's runs, one per configuration; `None` for a single run.
fn groups(args: &Args, suite: &Suite, setups: &[Setup], blocks: Option<u32>) -> Vec<Option<Group>> {
    let names: Vec<String> = setups.iter().filter_map(|s| s.name.clone()).collect();
    if names.len() < 2 {
        return vec![None; setups.len()];
    }
    let hash = suite.content_hash();
    let find = || find_group(&args.out, &hash, &names, (blocks, wanted(args)));
    let found = args.resume.then(find).flatten();
    let id = found.map_or_else(|| group_id(SystemTime::now(), &suite.name), |g| g.id);
    let of = |name: &String| {
        Some(Group {
            id: id.clone(),
            suite: hash.clone(),
            configuration: name.clone(),
            configurations: names.clone(),
            blocks,
        })
    };
    names.iter().map(of).collect()
}

/// A loaded engine and the directory to record in.
struct Ready {
    engine: Engine,
    dir: RunDir,
    record: RunRecord,
}

/// Loads the engine for a configuration's first cases, and creates or finds the run's directory.
///
/// `finished` is a finished run to reopen. Of two configurations that are timed alternately, one may already have its
/// report.
fn prepare(
    args: &Args,
    setup: &Setup,
    plan: &Plan<'_>,
    (group, roofline): (Option<Group>, Option<Roofline>),
    finished: Option<Found>,
) -> anyhow::Result<Ready> {
    let Setup { suite, model, tokenizer, compute, .. } = setup;
    let weights = fingerprint(model, compute)?;
    let world = plan.worlds()[0];
    let made = !matches!(model.path, ModelPath::Folder(_));
    let estimate = setup.estimate(plan, world)?;
    let (engine, facts) = limits::timed_load(|| load(setup, plan, world), estimate, made)?;
    let device = engine.device_info();
    let roofline = roofline.or_else(|| profile_roofline(plan, &device));
    let origin = Origin {
        suite,
        model: setup.model_name(),
        facts: model.facts(tokenizer.as_ref())?,
        weights,
        tokenizer: tokenizer.as_ref().map(|t| t.sha256().to_owned()),
        rotary: compute.rope,
        device,
        telemetry: telemetry::methods(&engine),
        roofline,
        // A card's memory is not the host's, and an emulated card loads nothing.
        load: compute.device.chip().is_none().then_some(facts),
        weight_faults: weight_fault_words(&engine, 20),
        command_line: command_line(),
        group,
    };
    let mut first = record(&origin, plan, &model.config);
    first.plan.operators = compute.profile_operators && !first.plan.performance.is_empty();
    let found = find(&args.out, &first, args.resume.then(|| wanted(args))).or(finished);
    if let (Some(found), false) = (&found, args.resume) {
        say(&format!(
            "glmbench: an unfinished run of this is at {}; --resume goes on with it",
            found.path.display()
        ));
    }
    if args.resume && found.is_none() && first.provenance.group.is_none() {
        say(&format!(
            "glmbench: {} has no unfinished run of the same suite, data, model and device; a new one begins",
            args.out.display()
        ));
        for (path, why) in unreadable(&args.out) {
            say(&format!("glmbench: {} is passed over: {why}", path.display()));
        }
    }
    let mut told = Vec::new();
    let resume = found.as_ref().filter(|_| args.resume).map(|found| Resume {
        found,
        plan,
        retry_failed: args.retry_failed,
        told: &mut told,
    });
    // A directory is a valid run from the start: the watch defers a signal to the code that records in it.
    let watch = Watch::new();
    let (dir, record) = open_dir(&args.out, resume, first)?;
    drop(watch);
    say(&format!("glmbench: recording in {}", dir.path().display()));
    let what = if args.retry_failed { "taken up again" } else { "mended" };
    told.iter().for_each(|words| say(&format!("glmbench: {what}: {words}")));
    Ok(Ready { engine, dir, record })
}

/// Loads the model for `world` ranks.
fn load(setup: &Setup, plan: &Plan<'_>, world: usize) -> Result<Engine, RunError> {
    Ok(setup.model.load(&setup.compute.on(world), plan.limits(world))?)
}

/// Runs one configuration, from loading the engine to the report.
fn run_one(
    args: &Args,
    setup: &Setup,
    plan: &Plan<'_>,
    shared: (Option<Group>, Option<Roofline>),
) -> anyhow::Result<(PathBuf, Exit)> {
    let Ready { engine, mut dir, mut record } = prepare(args, setup, plan, shared, None)?;
    let mut bars = Bars::of(plan.cases());
    let mut reload = |world| Ok(Box::new(load(setup, plan, world)?) as Box<dyn Backend>);
    // Until here a signal ends the program at once, because no recording has to be finished.
    let watch = Watch::new();
    let ending = execute(plan, Box::new(engine), &mut reload, &mut dir, &mut record, &mut bars, watch.flag());
    bars.end();
    Ok((dir.path().to_path_buf(), conclude(ending, &dir, &record)?))
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

/// Reports how the run ended, renders its report, and returns the exit code.
fn conclude(ending: Result<Ending, RunError>, dir: &RunDir, record: &RunRecord) -> anyhow::Result<Exit> {
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
                    return Ok(Exit::Incomplete);
                }
            };
            report::show(&summary, dir.path())?;
            Ok(report::exit_code(summary.verdict()))
        }
        Ok(Ending::Interrupted) => {
            say(&format!(
                "glmbench: stopped; what is done is in {path}; the same command with --resume goes on"
            ));
            Ok(Exit::Incomplete)
        }
        Err(error @ RunError::Record(_)) => {
            say(&format!("glmbench: {error}"));
            say(&format!(
                "glmbench: run {} is incomplete; when that is mended, --resume goes on",
                record.run_id
            ));
            Ok(Exit::Incomplete)
        }
        Err(error @ RunError::Engine(EngineError::Device(_) | EngineError::Weights(_))) => {
            say(&format!("glmbench: run {} is incomplete; --resume goes on", record.run_id));
            Err(error.into())
        }
        // Other errors would occur again at the same place.
        Err(error) => {
            say(&format!("glmbench: run {} is incomplete; what is done is reported", record.run_id));
            report::show(&render(dir.path())?, dir.path())?;
            Err(error.into())
        }
    }
}

/// Hashes the weights, with a progress bar.
pub(super) fn fingerprint(model: &FoundModel, compute: &ComputeArgs) -> anyhow::Result<String> {
    let source = model.weights(compute.precision().dtype)?;
    let bar = progress::bar("hashing", progress::BYTES);
    bar.set_length(source.stored().iter().map(|t| t.bytes).sum());
    let done = AtomicU64::new(0);
    let hash = source.fingerprint(&|bytes| {
        bar.set_position(done.fetch_add(bytes, Ordering::Relaxed) + bytes);
    });
    bar.finish_and_clear();
    hash.map_err(|e| glmbench_engine::EngineError::from(e).into())
}

/// Returns the limits of an emulated card, from its profile.
fn profile_roofline(plan: &Plan<'_>, device: &DeviceInfo) -> Option<Roofline> {
    let profile = device.modelled_by.as_ref().filter(|_| !plan.performance.is_empty())?;
    Some(Roofline {
        bandwidth_bytes_per_s: profile.memory_bytes_per_s as f64,
        peak_flops_per_s: profile.matmul_flops_per_s as f64,
        limits: None,
    })
}

/// Returns the machine's limits, measured once per number of threads. `None` without performance cases or on other
/// devices than the CPU.
fn roofline(
    plan: &Plan<'_>,
    compute: &ComputeArgs,
    measured: &mut BTreeMap<usize, MachineLimits>,
) -> anyhow::Result<Option<Roofline>> {
    if plan.performance.is_empty() || compute.device != DeviceKind::Cpu {
        return Ok(None);
    }
    let threads = compute.threads.map_or_else(available_threads, usize::from);
    if let Entry::Vacant(place) = measured.entry(threads) {
        place.insert(measure_limits(threads)?);
    }
    Ok(Some(limits::roofline(&measured[&threads], compute.precision())))
}
