//! `glmbench run`: flags, printing and exit codes. [`RunRequest::run`] does the work.

pub(super) mod describe;
mod endpoint;
pub(super) mod setup;
mod turns;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args as ClapArgs;

use crate::report::Summary;
use crate::report::compare::ComparisonSummary;
use crate::run::setup::Setup;
use crate::run::turns as run_turns;
use crate::run::{Observer, Progress, RunError, RunRequest, Wanted};
use crate::suite::{Override, Suite};

use self::describe::{Description, describe};
use self::endpoint::EndpointArgs;
use self::setup::SetupArgs;
use super::progress::Bars;
use super::settings::override_parser;
use super::signals::{self, Watch};
use super::{Exit, command_line, compare, emit, exit_of, report, say};

/// Run a suite: precision, performance, records and a report
///
/// Every item and repetition is on disk as soon as it is done. Ctrl-C, a full disk or a killed process lose none of them:
/// the same command with --resume continues the run.
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
    /// With --interleave: number of blocks [default: the fewest that can decide every phase]
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
    /// Continue the newest unfinished run of the same suite, data, model and device. Journals that deviate from the plan are
    /// repaired
    #[arg(long)]
    resume: bool,
    /// With --resume: repeat failed items, timed cases, searches and loads, also those of a finished run
    #[arg(long, requires = "resume")]
    retry_failed: bool,
    /// Show plan, memory and first prompts; run nothing
    #[arg(long)]
    dry_run: bool,
    /// Override a value of the suite: `accuracy.0.limit=10`, or another data set: `ceval=FOLDER`
    #[arg(long, value_name = "KEY=VALUE", value_parser = override_parser())]
    set: Vec<Override>,
}

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let request = request(args)?;
    if !args.block_of.is_empty() {
        return turns::one_block(&request, &args.block_of);
    }
    if args.endpoint.is_given() {
        return endpoint::run(args, &request);
    }
    if args.dry_run {
        return dry_run(&request);
    }
    let mut blocks = turns::Processes::default();
    match request.run(&mut blocks, &mut Terminal::default(), signals::flag()) {
        Ok(end) => Ok(report::exit_code(end.verdict).into()),
        Err(error @ RunError::Block(_)) => blocks.failed.ok_or(error.into()),
        Err(RunError::Folder { path, cause }) if path == request.out => {
            Err(anyhow::Error::new(cause).context(format!("cannot create --out {}", path.display())))
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns what the flags ask for.
fn request(args: &Args) -> anyhow::Result<RunRequest> {
    let mut suite = Suite::load(&args.suite, &args.set)?;
    if let Some(limit) = args.limit {
        for case in &mut suite.accuracy {
            case.limit = Some(limit as usize);
        }
    }
    let wanted = if args.retry_failed { Wanted::MissingOrFailed } else { Wanted::Missing };
    Ok(RunRequest {
        choice: args.setup.choice()?,
        resume: args.resume.then_some(wanted),
        over_budget: args.over_budget,
        interleave: args.interleave,
        blocks: args.blocks.map(u32::from),
        command_line: command_line(),
        ..RunRequest::new(suite, &args.out)
    })
}

/// Prints what would be run and, if known, how long it takes. Returns the exit code of a run that would be refused.
fn dry_run(request: &RunRequest) -> anyhow::Result<ExitCode> {
    let setups = Setup::all(&request.choice, &request.suite)?;
    let mut plans = setups.iter().map(Setup::plan).collect::<Result<Vec<_>, _>>()?;
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
            say(&format!("glmbench: on this machine the run would be refused: {error}"));
            let code = exit_of(&error.into());
            exit = if exit == Exit::Done { code } else { exit };
        }
    }
    Ok(exit.into())
}

/// Shows runs on the terminal: bars and messages to standard error, results to standard output.
#[derive(Default)]
struct Terminal {
    bars: Bars,
    /// Held while there is a recording to finish. Without it, a signal ends the program at once.
    watch: Option<Watch>,
}

impl Observer for Terminal {
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
        report::show(summary, dir)
    }

    fn compared(&mut self, summary: &ComparisonSummary) -> io::Result<()> {
        compare::show(summary, &compare::words(summary, &[]))
    }
}
