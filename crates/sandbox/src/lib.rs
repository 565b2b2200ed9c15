//! Runs untrusted programs, as models write them, in a sandbox that the kernel makes.
//!
//! ## What a program gets
//!
//! - Its own user, mount, process, network, IPC, UTS and cgroup namespaces. It has no privileges and can gain none. The
//!   network namespace has no interface but a loopback that is down.
//! - A root of its own, in memory and read-only: `/usr`, the loader's libraries, and the folders that its interpreter needs,
//!   bound read-only. No home folder, no `/sys`, five devices, and a `/proc` with its own processes only.
//! - `/tmp` in memory, of bounded size, with its working folder. It is gone afterwards.
//! - A system call filter (seccomp): no tracing, no mounts, no namespaces, no `io_uring`, no keys, no kernel modules.
//!   Sockets are of the internet and Unix families only; a virtual machine's host is reached by another.
//! - Limits on wall time, CPU time, memory, file sizes, processes, open files and kept output ([`Limits`]).
//!
//! When the program ends, or its time is over, the first process of its namespace ends, and the kernel kills the rest.
//!
//! ## How it starts
//!
//! Namespaces are made by a fork, which is not safe among threads. The harness therefore starts itself (`/proc/self/exe`)
//! with a hidden first argument. That process has one thread: `main` calls [`child_main`] before anything else. It makes the
//! namespaces, keeps the clock, collects the output, and dies with the harness.
//!
//! [`Sandbox::probe`] tries all of it once and names what the kernel refuses. Nothing here runs a program bare.
//!
//! ## Bounds of the protection
//!
//! The kernel is shared: a hole in it is a way out. Memory is bounded for each process by its address space, and for all
//! together by a look every 20 ms. Files of `/usr` can be read.
#![deny(unsafe_code)]

mod language;
#[cfg(target_os = "linux")]
mod linux;
mod python;
mod toolchain;
mod verdict;
#[cfg(target_os = "linux")]
mod wire;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use language::Language;
pub use python::{NoPython, Python, humaneval_program};
pub use toolchain::{NoToolchain, Toolchain};
pub use verdict::Verdict;

/// The first argument of a process that the sandbox starts from the harness's own program.
const VERB: &str = "--glmbench-sandbox-child";

/// A file in a program's working folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFile {
    /// Relative path without `..`.
    pub path: String,
    /// Content.
    pub bytes: Vec<u8>,
}

impl InputFile {
    /// Returns a file with this content.
    pub fn new(path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), bytes: bytes.into() }
    }
}

/// A program and what it is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The program's absolute path within the sandbox, and its arguments.
    pub arguments: Vec<String>,
    /// Its standard input.
    #[serde(skip)]
    pub input: Vec<u8>,
    /// Files in its working folder.
    #[serde(skip)]
    pub files: Vec<InputFile>,
    /// Its environment variables, besides `HOME`, `LANG`, `PATH` and `TMPDIR`.
    pub environment: Vec<(String, String)>,
    /// Folders and files that it needs besides `/usr` and the loader's libraries. They are bound read-only at their own paths.
    pub read_only: Vec<PathBuf>,
}

/// What a program may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Time on the clock, from before the sandbox is made.
    pub wall: Duration,
    /// CPU time of each process, whole seconds.
    pub cpu: Duration,
    /// Bytes of resident memory of all processes together.
    pub memory: u64,
    /// Bytes of address space of each process. Virtual machines of languages reserve far more than they use.
    pub address_space: u64,
    /// Bytes of one file.
    pub file_size: u64,
    /// Bytes of all files in `/tmp`.
    pub disk: u64,
    /// Processes and threads.
    pub processes: u64,
    /// Open files of each process.
    pub open_files: u64,
    /// Bytes kept of each output. The rest is read, counted and dropped.
    pub output: usize,
}

impl Default for Limits {
    /// Limits for one small program: 10 s, 1 GiB of memory, 64 MiB of files, 32 processes.
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(10),
            cpu: Duration::from_secs(10),
            memory: 1 << 30,
            address_space: 1 << 30,
            file_size: 16 << 20,
            disk: 64 << 20,
            processes: 32,
            open_files: 128,
            output: 64 << 10,
        }
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// By itself, with an exit status.
    Exited(i32),
    /// By a signal, with its number.
    Signalled(i32),
    /// Killed when its time on the clock was over.
    TimedOut,
    /// Killed by the kernel when its CPU time was over.
    CpuTime,
    /// Killed when all its processes together had more memory than allowed.
    OutOfMemory,
}

/// One output of a program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// The beginning, at most [`Limits::output`] bytes.
    pub kept: Vec<u8>,
    /// The number of bytes after it.
    pub dropped: u64,
}

/// What a program did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Its standard output.
    pub stdout: Output,
    /// Its standard error.
    pub stderr: Output,
    /// Time on the clock, with that of making the sandbox.
    pub wall: Duration,
}

/// Why no program can be run here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// Another operating system.
    #[error("running generated code needs Linux, and this is {0}: run it on Linux")]
    NotLinux(&'static str),
    /// The harness's program does not begin with [`child_main`].
    #[error(
        "{program} does not answer as a sandbox's process ({found}): its main must call glmbench_sandbox::child_main first"
    )]
    NoChild {
        /// The program that was started.
        program: String,
        /// What came instead of an answer.
        found: String,
    },
    /// The kernel or the container refuses a part.
    #[error("the kernel refuses {step}: {error}{hint}")]
    Refused {
        /// What was tried, as a noun.
        step: String,
        /// The kernel's answer.
        error: String,
        /// What to do, after a semicolon, if it is known.
        hint: String,
    },
}

/// Why a program was not run, though others can be.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No arguments, or a file outside the working folder.
    #[error("{0}")]
    Program(String),
    /// The sandbox could not be made this time.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The sandbox's process could not be started or broke off.
    #[error("the sandbox's process broke off: {0}; try again, and look into the kernel's log")]
    Broken(String),
}

/// A sandbox that was tried and works. It can run programs from several threads at once.
#[derive(Debug, Clone)]
pub struct Sandbox {
    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "no value exists there"))]
    child: PathBuf,
}

impl Sandbox {
    /// Makes a sandbox once, without a program, and names what is refused.
    pub fn probe() -> Result<Self, Unavailable> {
        #[cfg(target_os = "linux")]
        return linux::probe(PathBuf::from("/proc/self/exe"));
        #[cfg(not(target_os = "linux"))]
        return Err(Unavailable::NotLinux(std::env::consts::OS));
    }

    /// Runs a program to its end or to a limit. A program that cannot be found ends with [`RunError::Program`].
    pub fn run(&self, program: &Program, limits: &Limits) -> Result<Outcome, RunError> {
        check(program)?;
        #[cfg(target_os = "linux")]
        return linux::run(&self.child, program, limits);
        #[cfg(not(target_os = "linux"))]
        return Err(Unavailable::NotLinux(std::env::consts::OS).into());
    }
}

/// Does the work of a sandbox process, if this process was started as one. Then it returns the exit code with which `main`
/// must end. Otherwise it returns `None` and has done nothing.
///
/// Call it first in `main`, before any thread is started.
pub fn child_main() -> Option<ExitCode> {
    if std::env::args_os().nth(1).as_deref() != Some(OsStr::new(VERB)) {
        return None;
    }
    #[cfg(target_os = "linux")]
    return Some(linux::supervise());
    #[cfg(not(target_os = "linux"))]
    return Some(ExitCode::FAILURE);
}

/// Checks what the sandbox's process relies on.
fn check(program: &Program) -> Result<(), RunError> {
    let refused = |message: String| Err(RunError::Program(message));
    if !program.arguments.first().is_some_and(|path| path.starts_with('/')) {
        return refused(format!(
            "found the program {:?}, expected an absolute path",
            program.arguments.first()
        ));
    }
    let all =
        program.arguments.iter().chain(program.environment.iter().flat_map(|(name, value)| [name, value]));
    if let Some(text) = all.into_iter().find(|text| text.contains('\0')) {
        return refused(format!("found a NUL byte in {text:?}, expected arguments and variables without"));
    }
    for InputFile { path, .. } in &program.files {
        if path.is_empty()
            || path.contains('\0')
            || path.split('/').any(|part| matches!(part, "" | "." | ".."))
        {
            return refused(format!("found the file {path:?}, expected a relative path without `..`"));
        }
    }
    Ok(())
}
