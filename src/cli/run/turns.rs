//! A process for each block of two configurations that are timed alternately.
//!
//! The leading process starts the program again with the same arguments, the block's number and the run directories. The
//! child loads both engines, appends the block's lines and exits. It prints one line to standard output per finished case.
//! It stops when its standard input is closed, so it does not outlive the leading process.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::cli::bars::Bars;
use crate::cli::signals::Watch;
use crate::cli::{Exit, emit, say};
use crate::run::turns::{Blocks, time_block};
use crate::run::{Ending, Observer, Progress, RunError, RunRequest};

/// How often the leading process checks whether to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Times each block in a process of its own.
#[derive(Default)]
pub(super) struct Processes {
    /// The exit code of a block process that ended with an error, which it has told.
    pub(super) failed: Option<ExitCode>,
}

impl Blocks for Processes {
    fn time(
        &mut self,
        number: u32,
        dirs: [&Path; 2],
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<Ending, RunError> {
        let status = in_a_process(number, dirs, observer, stop)
            .map_err(|error| RunError::Request(format!("{error:#}")))?;
        match status.code() {
            Some(0) => Ok(Ending::Complete),
            Some(code) if code == Exit::Incomplete as i32 => Ok(Ending::Interrupted),
            Some(code) => {
                self.failed = Some(ExitCode::from(code as u8));
                Err(RunError::Block(number))
            }
            // Killed, for example when the system runs out of memory. Its lines are on disk, and --resume continues.
            None => {
                say(&format!("glmbench: the process of block {number} ended: {status}"));
                Ok(Ending::Interrupted)
            }
        }
    }
}

/// Starts this program for one block and waits for it.
fn in_a_process(
    number: u32,
    dirs: [&Path; 2],
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> anyhow::Result<ExitStatus> {
    let program = std::env::current_exe().context("the program's own file cannot be found")?;
    let mut command = Command::new(program);
    // The verb, then the child's own arguments, then all arguments of this process.
    let mut words = std::env::args_os().skip(1);
    command.args(words.next()).arg("--block-of").arg(number.to_string()).args(dirs).args(words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let child = command.spawn().context("the process of a block cannot be started")?;
    follow(child, observer, stop).context("the process of a block cannot be followed")
}

/// Reports every finished case. Closes the child's standard input if this process is told to stop.
fn follow(mut child: Child, observer: &mut dyn Observer, stop: &AtomicBool) -> std::io::Result<ExitStatus> {
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) && !over.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK);
            }
            drop(input);
        });
        let lines = output.into_iter().flat_map(|output| BufReader::new(output).lines());
        // A broken pipe says nothing about the child. Its exit status does.
        lines.map_while(Result::ok).for_each(|_| observer.advance());
        let status = child.wait();
        over.store(true, Ordering::Relaxed);
        status
    })
}

/// Runs one block in a child process. `words` are the arguments of `--block-of`: the block's number and two run
/// directories.
pub(super) fn one_block(request: &RunRequest, words: &[OsString]) -> anyhow::Result<ExitCode> {
    let [number, a, b] = words else { bail!("--block-of needs a block and two run directories") };
    let number: u32 = number.to_str().and_then(|n| n.parse().ok()).context("--block-of: no block number")?;
    let watch = Watch::new();
    stop_with_input(watch.flag());
    let dirs = [Path::new(a), Path::new(b)];
    match time_block(request, number, dirs, &mut Told::default(), watch.flag()) {
        Ok(Ending::Complete) => Ok(Exit::Done.into()),
        Ok(Ending::Interrupted) => Ok(Exit::Incomplete.into()),
        // With the error's own exit code, which the parent passes on: a full disk is one.
        Err(error) => Err(error.into()),
    }
}

/// Sets `stop` when standard input ends.
fn stop_with_input(stop: &'static AtomicBool) {
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        while input.read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
        stop.store(true, Ordering::Relaxed);
    });
}

/// Prints a line for each finished case, and shows what comes before the cases.
#[derive(Default)]
struct Told(Bars);

impl Observer for Told {
    fn begin(&mut self, _: &str, _: &'static str, _: u64, _: u64) {}
    fn advance(&mut self) {
        // If nobody reads the line, the process is about to be stopped.
        let _ = emit("through");
    }
    fn end(&mut self) {}

    fn operation(&mut self, label: &str, unit: &'static str) -> Box<dyn Progress> {
        self.0.operation(label, unit)
    }

    fn say(&mut self, message: &str) {
        self.0.say(message);
    }
}
