//! `glmbench run`: flags, printing and exit codes. [`RunRequest::run`] does the work.

pub(super) mod describe;
pub(super) mod endpoint;
pub(super) mod setup;
mod turns;

use crate::language::Language;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::{Args as ClapArgs, Command, FromArgMatches};

use glmbench_engine::EngineError;

use crate::record::RunDir;
use crate::report::compare::Options;
use crate::report::{ComparisonSummary, ReportError, Summary, render_comparison};
use crate::run::found::model_path;
use crate::run::setup::{Setup, SetupChoice};
use crate::run::shard::Shard;
use crate::run::shard_choice::ShardChoice;
use crate::run::turns as run_turns;
use crate::run::{Ahead, Observer, Progress, RunError, RunRequest, RunsEnd, Wanted};
use crate::suite::{Override, Suite};

use self::describe::{Description, describe};
use self::endpoint::EndpointArgs;
use self::setup::SetupArgs;
use super::bars::Bars;
use super::runs::find_run_in;
use super::settings::{LanguageArgs, override_parser, parse_shard, shard};
use super::signals::{self, Watch};
use super::{Exit, command_line, compare, complain, emit, exit_of, report, say, shipped};

/// Run a suite: precision, performance, records and a report
///
/// Every item and repetition is on disk as soon as it is done. Ctrl-C, a full disk or a killed process lose none of them:
/// the same command with --resume continues the run.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  glmbench run quickstart\n  \
    glmbench run suites/ceval.toml --model chatglm2-6b --set ceval=~/data/ceval --limit 100\n  \
    glmbench run suites/performance.toml --model dummy:chatglm2-6b --dry-run")]
pub struct Args {
    /// The suite file, or the name of a shipped suite such as quickstart
    #[arg(value_name = "SUITE.toml")]
    suite: PathBuf,
    /// How to run it
    #[command(flatten)]
    flags: Flags,
}

/// How a suite is run: the flags of `run`, `bench` and `eval`.
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
#[derive(Debug, ClapArgs)]
pub(super) struct Flags {
    /// What runs the cases
    #[command(flatten)]
    setup: SetupArgs,
    /// A server instead
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// Time the cases of two configurations in turn (A B B A), in blocks of a process each, and compare them. The same
    /// configuration twice is the null test
    #[arg(long, conflicts_with = "endpoint")]
    interleave: bool,
    /// With --interleave: number of blocks [default: the fewest that can decide every phase]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000), conflicts_with = "endpoint")]
    blocks: Option<u16>,
    /// This process is that of one block of two run directories
    #[arg(long, hide = true, num_args = 3, allow_hyphen_values = true, value_names = ["N", "RUN", "RUN"])]
    block_of: Vec<OsString>,
    /// Run also the cases that take longer on this machine than the suite's budget_s
    #[arg(long, conflicts_with = "endpoint")]
    over_budget: bool,
    /// Most items of each precision case, taken in turn from each subject
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: Option<u32>,
    /// Folder of run directories
    #[arg(long, value_name = "DIR", default_value = "reports")]
    out: PathBuf,
    /// Continue the newest unfinished run of the same suite, data, model and device. Journals that deviate from the plan are
    /// repaired
    #[arg(long)]
    resume: bool,
    /// With --resume: repeat failed items, timed cases, searches and loads, also those of a finished run
    #[arg(long, requires = "resume")]
    retry_failed: bool,
    /// Run shard K of N of the plan, such as 3/16. `auto/N` takes K from a Slurm array or a Kubernetes Indexed Job, which
    /// are also seen without the flag. `none` runs the whole plan. `glmbench merge` merges shards
    #[arg(long, value_name = "K/N", value_parser = parse_shard)]
    shard: Option<ShardChoice>,
    /// Hash the weights anew, even if their hash is kept beside unchanged files
    #[arg(long)]
    verify: bool,
    /// Compare every run at its end with this earlier one: its directory, or the beginning of its name in --out [default: the
    /// suite's]
    #[arg(long, value_name = "RUN")]
    baseline: Option<PathBuf>,
    /// The language
    #[command(flatten)]
    language: LanguageArgs,
    /// Show plan, memory and first prompts; run nothing
    #[arg(long)]
    dry_run: bool,
    /// Override a value of the suite: `accuracy.0.limit=10`, or another data set: `ceval=FOLDER`
    #[arg(long, value_name = "KEY=VALUE", value_parser = override_parser())]
    pub(super) set: Vec<Override>,
}

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    run_suite(shipped::load(&args.suite, &args.flags.set)?, &args.flags)
}

/// Runs a suite as the flags say.
pub(super) fn run_suite(suite: Suite, flags: &Flags) -> anyhow::Result<ExitCode> {
    let request = request(suite, flags)?;
    if !flags.block_of.is_empty() {
        return turns::one_block(&request, &flags.block_of);
    }
    if flags.dry_run {
        return match &request.endpoint {
            Some(of) => endpoint::dry_run(of, &request),
            None => dry_run(&request),
        };
    }
    // A wrong name, or a run that cannot be read, should not be found after hours.
    let baseline = flags.baseline.as_ref().or(request.suite.baseline.as_ref());
    let baseline = baseline.map(|word| find_run_in(&request.out, word)).transpose()?;
    baseline.as_deref().map(|path| RunDir::open(path)?.read_run()).transpose()?;
    let mut blocks = turns::Processes::default();
    match request.run(&mut blocks, &mut Terminal::of(flags.language.language), signals::flag()) {
        Ok(end) => {
            baseline.map(|baseline| compare_with(&baseline, &end, flags.language.language)).transpose()?;
            Ok(report::exit_code(end.verdict).into())
        }
        Err(error @ RunError::Block(_)) => blocks.failed.ok_or(error.into()),
        Err(RunError::Folder { path, cause }) if path == request.out => {
            Err(anyhow::Error::new(cause).context(format!("cannot create --out {}", path.display())))
        }
        Err(error) => Err(error.into()),
    }
}

/// Compares each run with the baseline. A run that cannot be compared with it is told and does not fail.
fn compare_with(baseline: &Path, end: &RunsEnd, language: Language) -> anyhow::Result<()> {
    // A baseline is often another form of the model, such as the float parent of a quantised checkpoint.
    let options = Options { allow_model: true, language, ..Options::default() };
    let same = |run: &PathBuf| run.canonicalize().ok() == baseline.canonicalize().ok();
    for run in end.runs.iter().filter(|run| !same(run)) {
        match render_comparison(&[baseline.to_owned(), run.clone()], &options) {
            Ok(summary) => compare::show(&summary, &compare::words(&summary, &[], language))?,
            Err(ReportError::Compare(why)) => {
                complain(&format!("not compared with the baseline: {why}"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Checks that `glmbench run` takes these flags for a shard of a suite, in another process. Reads the suite alone.
///
/// # Errors
/// Flags that `run` does not know, or a suite that cannot be cut into shards.
pub(super) fn check_shard(suite: &Path, flags: &[String], shard: Shard) -> anyhow::Result<()> {
    let command = Args::augment_args(Command::new("glmbench run").no_binary_name(true));
    let own = ["--shard=none", "--resume"].map(OsString::from);
    let words = own.into_iter().chain(flags.iter().map(OsString::from)).chain(["--".into(), suite.into()]);
    let args = command.try_get_matches_from(words).and_then(|found| Args::from_arg_matches(&found));
    let args = args.map_err(|error| {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        anyhow!("after `--`, for glmbench run: {}", first.trim_start_matches("error: "))
    })?;
    let suite = shipped::load(&args.suite, &args.flags.set)?;
    let choice = args.flags.setup.choice()?;
    // A server gets one configuration.
    if !args.flags.endpoint.is_given() {
        RunRequest::check_shard(&suite, &choice, args.flags.interleave, shard)?;
    }
    Ok(())
}

/// Returns what the flags ask for.
fn request(mut suite: Suite, args: &Flags) -> anyhow::Result<RunRequest> {
    if let Some(limit) = args.limit {
        for case in &mut suite.accuracy {
            case.limit = Some(limit as usize);
        }
    }
    let mut choice = args.setup.choice()?;
    // Away from the repository the demo model is the shipped one.
    let named = choice.model.clone().or_else(|| suite.model.path.clone()).unwrap_or_else(|| "demo".into());
    if named == "demo" && !suite.model.required && model_path(&named).is_err() {
        choice.model = Some(crate::shipped::demo_model()?.into());
    }
    let wanted = if args.retry_failed { Wanted::MissingOrFailed } else { Wanted::Missing };
    Ok(RunRequest {
        choice: SetupChoice { verify_weights: args.verify, ..choice },
        resume: args.resume.then_some(wanted),
        over_budget: args.over_budget,
        interleave: args.interleave,
        blocks: args.blocks.map(u32::from),
        endpoint: args.endpoint.choice()?,
        shard: shard(args.shard)?,
        command_line: command_line(),
        language: args.language.language,
        ..RunRequest::new(suite, &args.out)
    })
}

/// Prints what would be run and, if known, how long it takes. Returns the exit code of a run that would be refused.
fn dry_run(request: &RunRequest) -> anyhow::Result<ExitCode> {
    let setups = Setup::all(&request.choice, &request.suite)?;
    let mut plans = setups.iter().map(Setup::plan).collect::<Result<Vec<_>, _>>()?;
    request.keep_shard(&setups, &mut plans)?;
    if let Some(blocks) = run_turns::blocks(request, &setups, &plans, &mut Bars::default())? {
        run_turns::lay_out(&setups, &mut plans, blocks);
    }
    let texts = setups.iter().zip(&plans).map(|(setup, plan)| describe(setup, plan, &request.out));
    let texts = texts.collect::<anyhow::Result<Vec<Description>>>()?;
    let text = texts.iter().map(|of| of.text.as_str()).collect::<Vec<_>>().join("\n");
    emit(text.trim_end())?;
    texts.iter().filter_map(|of| of.warning.as_ref()).for_each(|warning| say(warning));
    let mut exit = Exit::Done;
    for (setup, plan) in setups.iter().zip(&plans) {
        if let Err(error) = setup.check(plan) {
            say(&format!("glmbench: {}the run would be refused: {error}", where_refused(&error)));
            let code = exit_of(&error.into());
            exit = if exit == Exit::Done { code } else { exit };
        }
    }
    Ok(exit.into())
}

/// Names the machine if it is the cause of a refusal: its memory, its device or its processor.
fn where_refused(error: &RunError) -> &'static str {
    match error {
        RunError::Engine(EngineError::Device(_)) => "on this machine ",
        _ => "",
    }
}

/// Shows runs on the terminal: bars and messages to standard error, results to standard output.
#[derive(Default)]
struct Terminal {
    bars: Bars,
    /// Held while there is a recording to finish. Without it, a signal ends the program at once.
    watch: Option<Watch>,
    language: Language,
}

impl Terminal {
    /// A terminal for a reader of this language.
    fn of(language: Language) -> Self {
        Self { language, ..Self::default() }
    }
}

impl Observer for Terminal {
    fn ahead(&mut self, runs: &[Vec<Ahead>]) {
        self.bars.ahead(runs);
    }

    fn cases(&mut self, total: usize) {
        self.bars.cases(total);
    }

    fn case(&mut self, name: &str) {
        self.bars.case(name);
    }

    fn begin(&mut self, label: &str, unit: &'static str, total: u64, done: u64) {
        self.bars.begin(label, unit, total, done);
    }

    fn advance(&mut self) {
        self.bars.advance();
    }

    fn end(&mut self) {
        self.bars.end();
    }

    fn operation(&mut self, label: &str, unit: &'static str) -> Box<dyn Progress> {
        self.bars.operation(label, unit)
    }

    fn say(&mut self, message: &str) {
        self.bars.say(message);
    }

    fn recording(&mut self, is_open: bool) {
        match (is_open, &self.watch) {
            (true, None) => self.watch = Some(Watch::new()),
            (true, Some(_)) => {}
            (false, _) => self.watch = None,
        }
    }

    fn reported(&mut self, summary: &Summary, dir: &Path) -> io::Result<()> {
        report::show(summary, dir, self.language)
    }

    fn compared(&mut self, summary: &ComparisonSummary) -> io::Result<()> {
        compare::show(summary, &compare::words(summary, &[], self.language))
    }
}
