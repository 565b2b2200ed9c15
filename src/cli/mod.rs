//! The command line: parsing arguments and printing. Nothing outside this module prints.
//!
//! Data goes to stdout, messages to stderr. Each verb has one file, with its flags and a `run` function.

pub mod bars;
pub mod bench;
pub mod calibrate;
pub mod chat;
pub mod check;
pub mod compare;
mod completions;
pub mod convert;
mod data;
pub mod dataset;
mod described;
pub mod doctor;
pub mod endpoint;
pub mod engine;
pub mod export;
mod files;
mod gates;
pub mod index;
pub mod list;
pub mod logits;
pub mod merge;
pub mod npu_selftest;
mod overall;
pub mod parity;
pub mod probe;
pub mod progress;
pub mod prompts;
pub mod quantize;
pub mod report;
pub mod run;
pub mod runs;
pub mod score;
pub mod serve;
mod settings;
mod shipped;
pub mod show;
mod signals;
pub mod slurm;
pub mod status;
mod tables;
mod tasks;
mod template;
mod texts;
pub mod tokenize;
pub mod verify;

use std::borrow::Cow;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use serde::Serialize;

use glmbench_device::DeviceError;

use glmbench_engine::EngineError;
use glmbench_engine::quantise::QuantiseError;
use glmbench_engine::weights::convert::ConvertError;
use glmbench_remote::{FailureKind, RemoteError};

use crate::bundle::archive::BundleError;
use crate::dataset::DatasetError;
use crate::record::{MergeError, RecordError, no_space};
use crate::report::ReportError;
use crate::run::RunError;
use crate::text;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, and all gates pass.
    Done = 0,
    /// A gate failed.
    GateFailed = 1,
    /// Wrong usage, or an unusable input.
    Usage = 2,
    /// Incomplete, or stopped by a signal. Can be resumed.
    Incomplete = 3,
    /// The measurement is not valid.
    Invalid = 4,
    /// Device or engine unavailable.
    Device = 5,
    /// No space left on a disk. Can be resumed once there is some.
    DiskFull = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Benchmark and accuracy harness with its own ChatGLM2 engine
#[derive(Debug, Parser)]
#[command(
    name = "glmbench",
    version,
    arg_required_else_help = true,
    after_help = "Start here:\n  glmbench run quickstart                    precision and speed of the demo model, with a report\n  \
        glmbench run suites/ceval.toml --model DIR  C-Eval of your ChatGLM2-6B\n  glmbench bench -b 1,8 -p 512 -n 128        speed without a suite file\n  glmbench doctor                            what this machine can do\n\n\
        Exit codes: 0 done, 1 a gate failed, 2 usage or input error, 3 incomplete or stopped by a signal (run again, with\n            --resume), 4 measurement invalid, 5 device or engine unavailable, 6 no space left (make some, then --resume)"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(Box<run::Args>),
    Bench(Box<bench::BenchArgs>),
    Eval(Box<bench::EvalArgs>),
    /// Render a run's tables, charts and page again from its records
    Report(report::Args),
    Merge(merge::Args),
    Status(status::Args),
    Slurm(slurm::Args),
    Compare(compare::Args),
    Index(index::Args),
    Show(show::Args),
    Score(score::Args),
    Verify(verify::Args),
    Export(export::Args),
    Check(check::Args),
    List(list::Args),
    Dataset(dataset::Args),
    Convert(convert::Args),
    Quantize(Box<quantize::Args>),
    Chat(chat::Args),
    Serve(Box<serve::Args>),
    Logits(logits::Args),
    Parity(parity::Args),
    Tokenize(tokenize::Args),
    Doctor(doctor::Args),
    NpuSelftest(npu_selftest::Args),
    Calibrate(calibrate::Args),
    Probe(probe::Args),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Parses the command line, runs the verb, and turns the result into an exit code.
pub fn main() -> ExitCode {
    completions::answer();
    // Signals are handled from the start: batch systems and users also stop programs in their first second.
    if let Err(error) = signals::install() {
        say(&format!("glmbench: signals cannot be handled, so one ends the program at once: {error}"));
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refused(&error),
    };
    match dispatch(cli.verb) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&message(&error));
            exit_of(&error).into()
        }
    }
}

/// Prints help, the version, or a usage error.
fn refused(error: &clap::Error) -> ExitCode {
    let plain = error.render().to_string();
    match text::printable(&plain) {
        // In colour, if the terminal supports it. A broken pipe while printing help is no error.
        Cow::Borrowed(_) => drop(error.print()),
        Cow::Owned(shown) => shown.trim_end().lines().for_each(say),
    }
    if error.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS }
}

fn dispatch(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Run(args) => run::run(&args),
        Verb::Bench(args) => bench::run_bench(&args),
        Verb::Eval(args) => bench::run_eval(&args),
        Verb::Report(args) => report::run(&args),
        Verb::Merge(args) => merge::run(&args),
        Verb::Status(args) => status::run(&args),
        Verb::Slurm(args) => slurm::run(&args),
        Verb::Compare(args) => compare::run(&args),
        Verb::Index(args) => index::run(&args),
        Verb::Show(args) => show::run(&args),
        Verb::Score(args) => score::run(&args),
        Verb::Verify(args) => verify::run(&args),
        Verb::Export(args) => export::run(&args),
        Verb::Check(args) => check::run(&args),
        Verb::List(args) => list::run(&args),
        Verb::Dataset(args) => dataset::run(&args),
        Verb::Convert(args) => convert::run(&args),
        Verb::Quantize(args) => quantize::run(&args),
        Verb::Chat(args) => chat::run(&args),
        Verb::Serve(args) => serve::run(&args),
        Verb::Logits(args) => logits::run(&args),
        Verb::Parity(args) => parity::run(&args),
        Verb::Tokenize(args) => tokenize::run(&args),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::NpuSelftest(args) => npu_selftest::run(&args),
        Verb::Calibrate(args) => calibrate::run(&args),
        Verb::Probe(args) => probe::run(&args),
        Verb::Completions { shell } => {
            let name = shell.to_string();
            let script = completions::script(&name);
            emit(
                script
                    .with_context(|| format!("{name}: there is no completion script for this shell"))?
                    .trim_end(),
            )?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Writes text to stdout, escaped so that it cannot affect a terminal.
pub(crate) fn emit(words: &str) -> io::Result<()> {
    let told = |e: io::Error| io::Error::new(e.kind(), format!("standard output: {e}"));
    writeln!(io::stdout().lock(), "{}", text::printable(words)).map_err(told)
}

/// Writes data to stdout as JSON.
pub(crate) fn emit_json(data: &impl Serialize) -> io::Result<()> {
    emit(&json_text(data)?)
}

/// Formats data as JSON that [`emit`] prints unchanged.
pub(crate) fn json_text(data: &impl Serialize) -> serde_json::Result<String> {
    Ok(text::json(&serde_json::to_string_pretty(data)?).into_owned())
}

/// Prints a line to stderr. A closed pipe (`2>&1 | head`) is ignored, whereas `eprintln!` would panic.
pub(crate) fn say(words: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", text::one_line(words));
}

/// Prints a problem, which may take several lines. Lines after the first are indented, so that untrusted text cannot
/// imitate a separate message.
pub(crate) fn complain(problem: &str) {
    let mut lines = problem.lines();
    say(&format!("glmbench: {}", lines.next().unwrap_or_default()));
    lines.for_each(|line| say(&format!("  {line}")));
}

/// Returns the command line for records. Bytes that are not UTF-8 become U+FFFD, so such a word is readable but cannot
/// be reused.
pub(crate) fn command_line() -> Vec<String> {
    std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// Returns 0 if a gate passes, 1 if it fails.
pub(crate) fn gate_exit(pass: bool) -> ExitCode {
    if pass { Exit::Done.into() } else { Exit::GateFailed.into() }
}

/// Formats an error with its causes. A cause is skipped if the text already contains it, as many messages do.
fn message(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        match text {
            text if text.is_empty() => cause,
            text if text.contains(&cause) => text,
            text => format!("{text}: {cause}"),
        }
    })
}

/// Returns the exit code for an error.
pub(crate) fn exit_of(error: &anyhow::Error) -> Exit {
    let is_stop = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(DatasetError::Stopped))
            || matches!(cause.downcast_ref(), Some(ConvertError::Stopped))
            || matches!(cause.downcast_ref(), Some(QuantiseError::Stopped))
    };
    if error.chain().any(is_stop) {
        return Exit::Incomplete;
    }
    // Apart from a stop: whoever starts a stopped run again would meet the same full disk.
    if error.chain().any(is_full) {
        return Exit::DiskFull;
    }
    let broken = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(EngineError::NotFinite { .. }))
    };
    if error.chain().any(broken) {
        return Exit::Invalid;
    }
    let device = |cause: &(dyn std::error::Error + 'static)| {
        let of_device = cause.downcast_ref::<DeviceError>();
        let of_engine = cause.downcast_ref::<EngineError>().or(match cause.downcast_ref() {
            Some(RunError::Engine(error)) => Some(error),
            _ => match cause.downcast_ref() {
                Some(QuantiseError::Engine(error)) => Some(error),
                _ => None,
            },
        });
        let found = of_device.or(match of_engine {
            Some(EngineError::Device(error)) => Some(error),
            _ => None,
        });
        found.is_some_and(|error| !matches!(error, DeviceError::Setting { .. }))
    };
    // A server that cannot be asked is a device that is not there.
    let server = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref() {
        Some(RunError::Remote(RemoteError::Request { failure, .. })) => {
            failure.kind != FailureKind::WrongModel
        }
        _ => false,
    };
    if error.chain().any(|cause| device(cause) || server(cause)) { Exit::Device } else { Exit::Usage }
}

/// Whether a file could not be written because its disk or the user's share of it is full.
fn is_full(cause: &(dyn std::error::Error + 'static)) -> bool {
    // A transparent error hides the one that it stands for.
    let of_run = match cause.downcast_ref::<RunError>() {
        Some(RunError::Record(error) | RunError::Report(ReportError::Record(error))) => error.is_full(),
        Some(RunError::Output(error) | RunError::Folder { cause: error, .. }) => no_space(error),
        _ => false,
    };
    let of_record = match (cause.downcast_ref(), cause.downcast_ref(), cause.downcast_ref()) {
        (Some(ReportError::Record(error)), ..)
        | (_, Some(MergeError::Record(error)), _)
        | (.., Some(BundleError::Write(error))) => Some(error),
        _ => cause.downcast_ref::<RecordError>(),
    };
    of_run || of_record.is_some_and(RecordError::is_full) || cause.downcast_ref().is_some_and(no_space)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    };
    error.chain().any(broken)
}
