//! Runs the command line and returns its exit code.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    // The sandbox for generated code starts this program again, and forks there, which only a process of one thread may.
    match glmbench_sandbox::child_main() {
        Some(code) => code,
        None => glmbench::cli::main(),
    }
}
