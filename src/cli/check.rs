//! `glmbench check`: finds all problems of a suite that can be found without loading a model.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args as ClapArgs;

use crate::dataset::{Benchmark, Source, catalogue};
use crate::run::RunRequest;
use crate::run::plan::Plan;
use crate::run::setup::{Configured, Setup};
use crate::run::shard_choice::ShardChoice;
use crate::run::turns::blocks;
use crate::suite::{AccuracyCase, Override, Suite};
use crate::task::{self, Evaluation, Next, TaskError};
use crate::text::one_line;

use super::bars::Bars;
use super::run::describe::memory;
use super::run::endpoint::{self, EndpointArgs};
use super::run::setup::SetupArgs;
use super::{Exit, complain, emit, message, say, tasks};

/// Check a suite, its data sets, and the model's shape, tokenizer, device and memory against it; loads no weights
///
/// Reads every row of every data set named, and cuts every prompt into tokens. Names the cases that `run` would leave out, by the
/// same estimate of memory. Without a model in the suite or here it checks the demo model, as `run` does. With --endpoint it
/// probes the server and says what the run would cost. The exit code is 2 if anything is wrong, or if `run` would be refused.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  glmbench check suites/quickstart.toml\n  \
    glmbench check suites/ceval.toml --model chatglm2-6b --set ceval=data/ceval\n  glmbench check my-task.toml data/my-task")]
pub struct Args {
    /// The suite file, or the name of a shipped suite such as quickstart; with DATA, a task file or the name of a built-in task
    #[arg(value_name = "SUITE.toml")]
    suite: PathBuf,
    /// Folder of data to check a task against. Reads every row, renders every template, and reports answers, duplicates, prompts
    /// over length and leakage from demonstrations
    #[arg(value_name = "DATA")]
    data: Option<PathBuf>,
    /// What would run the cases
    #[command(flatten)]
    setup: SetupArgs,
    /// A server that would run them
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// Check shard K of N of the plan, as `glmbench run --shard` would run it
    #[arg(long, value_name = "K/N", value_parser = super::settings::parse_shard)]
    shard: Option<ShardChoice>,
    /// Override a value of the suite: `accuracy.0.limit=10`, or another data set: `ceval=FOLDER`
    #[arg(long, value_name = "KEY=VALUE", value_parser = super::settings::override_parser())]
    set: Vec<Override>,
}

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(data) = &args.data {
        let word = args.suite.to_string_lossy();
        let well = tasks::check(&word, data, args.setup.model.as_deref())?;
        return Ok(if well { Exit::Done } else { Exit::Usage }.into());
    }
    let word = args.suite.to_string_lossy();
    if !args.suite.exists() && Benchmark::names().contains(&&*word) && !super::shipped::is_suite(&word) {
        bail!("found the task {word} without its data; expected `glmbench check {word} DATA`");
    }
    let suite = super::shipped::load(&args.suite, &args.set)?;
    let request = RunRequest {
        choice: args.setup.choice()?,
        endpoint: args.endpoint.choice()?,
        shard: super::settings::shard(args.shard)?,
        ..RunRequest::new(suite, "")
    };
    let suite = &request.suite;
    emit(&format!("suite        {} ({})", suite.name, &suite.content_hash()[..6]))?;
    let mut problems = Vec::new();
    let configured = request.choice.configurations(suite);
    let endpoint = request.endpoint.as_ref();
    let modelled: Vec<bool> =
        configured.iter().flatten().map(|one: &Configured| one.compute.is_modelled()).collect();
    for case in &suite.accuracy {
        let name = format!("{} {}", case.task, case.protocol);
        match check_case(case) {
            Ok(words) => emit(&format!("accuracy     {name}: {}", one_line(&words)))?,
            Err(error) => problems.push(format!("accuracy {name}: {error}")),
        }
    }
    emit_timed(suite, &modelled)?;
    let names_model = request.choice.names_model(suite);
    if let Err(error) = configured {
        problems.push(error.to_string());
    } else if !problems.is_empty() {
        // The model checks use the data sets, so they would only report the same problems.
        say("model: not checked before the data sets are right");
    } else if let Some(of) = endpoint {
        return endpoint::dry_run(of, &request);
    } else if suite.model.required && !names_model {
        emit("model        to be named with --model, which checks it too")?;
    } else {
        match Setup::all(&request.choice, suite) {
            Ok(setups) => check_setups(&request, &setups, &mut problems)?,
            Err(error) => problems.push(format!("model: {}", message(&error.into()))),
        }
    }
    for problem in &problems {
        complain(problem);
    }
    Ok(if problems.is_empty() { Exit::Done } else { Exit::Usage }.into())
}

/// Prints the timed cases. `modelled` says of each configuration whether its times are.
fn emit_timed(suite: &Suite, modelled: &[bool]) -> std::io::Result<()> {
    for table in suite.timed().into_iter().flat_map(|(_, tables)| tables) {
        emit(&table.words(modelled))?;
    }
    Ok(())
}

/// Checks each configuration with its model, and then whether they can be timed in turns.
fn check_setups(request: &RunRequest, setups: &[Setup], problems: &mut Vec<String>) -> anyhow::Result<()> {
    let mut plans = Vec::new();
    for setup in setups {
        match setup.plan().and_then(|mut plan| {
            request.keep_shard(setups, std::slice::from_mut(&mut plan))?;
            Ok(plan)
        }) {
            Ok(plan) => {
                if let Some(words) = plan.share_words() {
                    emit(&format!("share        {words}"))?;
                }
                if let Err(error) = check_setup(setup, &plan) {
                    problems.push(format!("{}: {}", named(setup), message(&error)));
                }
                plans.push(plan);
            }
            Err(error) => problems.push(format!("{}: {}", named(setup), message(&error.into()))),
        }
    }
    if plans.len() == setups.len() {
        match blocks(request, setups, &plans, &mut Bars::default()) {
            Ok(Some(blocks)) => emit(&format!("in turns     {blocks} blocks"))?,
            Ok(None) => {}
            Err(error) => problems.push(error.to_string()),
        }
    }
    Ok(())
}

/// Reads the case's data set and selects its items.
fn check_case(case: &AccuracyCase) -> Result<String, TaskError> {
    let protocol = task::find(case.task, case.protocol).expect("invariant: the suite was checked");
    let plan = task::Plan::new(protocol, &Source::open(case.task, &case.dataset)?, &case.settings())?;
    let known = match catalogue::identify(&plan.dataset) {
        Some(entry) => format!("as catalogued under `{}`", entry.name),
        None => "not a catalogued set".to_owned(),
    };
    let shots = if plan.shots > 0 { format!(", {} shots", plan.shots) } else { String::new() };
    let (chosen, all, split) = (plan.chosen.len(), plan.dataset.items.len(), &case.split);
    Ok(format!("{chosen} of {all} items of {} ({split}){shots}; {known}", case.dataset.display()))
}

/// Returns the message prefix of a setup.
fn named(setup: &Setup) -> String {
    let of = setup.name.as_ref().map(|name| format!(", configuration {name}")).unwrap_or_default();
    format!("model {}{of}", setup.model_name())
}

/// Checks a model's configuration, tokenizer, device and memory against the suite. Reports the cases that `run` would skip.
fn check_setup(setup: &Setup, plan: &Plan<'_>) -> anyhow::Result<()> {
    for prompts in plan.timed().iter().filter_map(|case| case.prompts()) {
        emit(&format!("prompts      {}", one_line(&prompts)))?;
    }
    for run in &plan.accuracy {
        let refused: Vec<String> =
            (0..run.evaluation.len()).filter_map(|i| refusal(&run.evaluation, i)).collect();
        if let [first, ..] = refused.as_slice() {
            anyhow::bail!(
                "{}: {} of {} items do not fit; the first: {first}",
                run.task,
                refused.len(),
                run.evaluation.len()
            );
        }
    }
    setup.check(plan)?;
    emit(&format!("memory       {}", memory(setup, plan)?))?;
    let (config, left_out) = (&setup.model.config, setup.left_out(plan));
    for case in &left_out {
        emit(&format!("left out     {case}"))?;
    }
    let fit = match left_out.len() {
        0 => "every prompt and shape fits".to_owned(),
        out => format!(
            "every prompt fits, {out} of {} cases do not",
            plan.timed().iter().filter(|case| case.room().optional || case.is_elastic()).count()
        ),
    };
    emit(&format!(
        "model        {}: {:.1} M parameters, seq_length {}; {fit}",
        named(setup).trim_start_matches("model "),
        config.parameters() as f64 / 1e6,
        config.seq_length
    ))?;
    for (name, value) in setup.model.facts(setup.tokenizer.as_ref())?.details() {
        emit(&format!("             {name}: {}", one_line(&value)))?;
    }
    Ok(())
}

/// Returns why an item cannot be put to the model.
fn refusal(evaluation: &Evaluation<'_>, index: usize) -> Option<String> {
    match evaluation.start(index).1 {
        Next::Ask(_) => None,
        Next::Done(outcome) => outcome.reason().map(|reason| format!("{}: {reason}", outcome.doc_id)),
    }
}
