//! The sandbox on Linux. The harness asks ([`run`]), a process of its own supervises ([`supervise`]), the first process of
//! the namespaces builds them and reaps ([`init`]), and the program is executed from there.

mod filter;
mod init;
mod process;
mod root;
mod supervisor;

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;

pub(crate) use supervisor::supervise;

use crate::wire::{Answer, Request, Status};
use crate::{Limits, Outcome, Program, RunError, Sandbox, Unavailable, VERB};

/// The user and group of programs: nobody.
const NOBODY: u32 = 65534;

/// The program's working folder and home.
const WORK: &str = "/tmp/work";

/// A step that the kernel refused.
#[derive(Debug)]
struct Refused {
    step: String,
    error: String,
}

impl Refused {
    fn new(step: impl Into<String>, error: impl std::fmt::Display) -> Self {
        Self { step: step.into(), error: error.to_string() }
    }

    fn status(self) -> Status {
        Status::Refused { step: self.step, error: self.error, hint: String::new() }
    }
}

/// Names the step of a failed call.
trait Step<T> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, Refused>;
}

impl<T> Step<T> for Result<T, Errno> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, Refused> {
        self.map_err(|error| Refused::new(step(), error))
    }
}

impl<T> Step<T> for std::io::Result<T> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, Refused> {
        self.map_err(|error| Refused::new(step(), error))
    }
}

pub(crate) fn probe(child: PathBuf) -> Result<Sandbox, Unavailable> {
    let no_child = |found: String| Unavailable::NoChild { program: program_name(&child), found };
    let answer = ask(&child, &Request { program: None, limits: Limits::default() }).map_err(no_child)?;
    match answer.status {
        Status::Made => Ok(Sandbox { child }),
        Status::Refused { step, error, hint } => Err(Unavailable::Refused { step, error, hint }),
        other => Err(no_child(format!("{other:?}"))),
    }
}

fn program_name(child: &Path) -> String {
    std::fs::read_link(child).unwrap_or_else(|_| child.to_owned()).display().to_string()
}

pub(crate) fn run(child: &Path, program: &Program, limits: &Limits) -> Result<Outcome, RunError> {
    let request = Request { program: Some(program.clone()), limits: *limits };
    let answer = ask(child, &request).map_err(RunError::Broken)?;
    match answer.status.clone() {
        Status::Ended(end) => Ok(answer.outcome(end)),
        Status::NotExecuted(error) => Err(RunError::Program(format!(
            "{} cannot be executed in the sandbox: {error}",
            program.arguments[0]
        ))),
        Status::Refused { step, error, hint } => Err(Unavailable::Refused { step, error, hint }.into()),
        Status::Made => Err(RunError::Broken("it made a sandbox without the program".into())),
    }
}

/// Starts the sandbox's process, and waits for its answer. An error is what came instead.
fn ask(child: &Path, request: &Request) -> Result<Answer, String> {
    let mut process = Command::new(child)
        .arg(VERB)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    // A process that broke off shows in what it answers.
    let written = process.stdin.take().map(|mut input| request.write(&mut input));
    let answer = process.stdout.take().map(|output| Answer::read(&mut BufReader::new(output)));
    let ended = process.wait().map_err(|error| error.to_string())?;
    match (written, answer) {
        (Some(Ok(())), Some(Ok(answer))) => Ok(answer),
        (_, Some(Err(error))) | (Some(Err(error)), _) => Err(format!("{error}, {ended}")),
        _ => Err(ended.to_string()),
    }
}
