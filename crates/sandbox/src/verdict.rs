//! Verdicts on programs with tests.

use crate::{End, Output};

/// Longest reason, in characters.
const LONGEST: usize = 400;

/// What became of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its tests passed.
    Passed,
    /// An exception, an error of the compiler, or an end without a verdict. The text says which, at most 500 characters.
    Failed(String),
    /// Its time was over. The original says `timed out`.
    TimedOut,
}

/// Describes an end without a verdict, with the line that says most.
pub(crate) fn unexpected(end: End, said: &Output) -> String {
    let end = match end {
        End::Exited(code) => format!("it ended its process with status {code}"),
        End::Signalled(signal) => format!("signal {signal}"),
        End::OutOfMemory => "out of memory".to_owned(),
        End::TimedOut | End::CpuTime => "timed out".to_owned(),
    };
    match telling(&String::from_utf8_lossy(&said.kept)) {
        Some(line) => format!("{end}: {line}"),
        None => end,
    }
}

/// Returns the last line of an output, shortened.
fn telling(text: &str) -> Option<String> {
    let line = text.lines().rfind(|line| !line.trim().is_empty())?;
    Some(line.chars().take(LONGEST).collect())
}

/// Returns the first line that names an error, or the last line.
pub(crate) fn first_error(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.kept);
    let error = text.lines().find(|line| line.to_lowercase().contains("error") || line.contains("--- FAIL"));
    match error {
        Some(line) => line.trim().chars().take(LONGEST).collect(),
        None => telling(&text).unwrap_or_default(),
    }
}
