//! Completions of a shell: verbs, flags, and the values that only this machine knows, such as its runs.
//!
//! The script that `glmbench completions SHELL` prints calls the program for every word, with [`VARIABLE`] set. Values are
//! therefore those of the installed version and of the current folder.

use std::ffi::OsStr;
use std::path::Path;

use clap::{Arg, Command, CommandFactory};
use clap_complete::CompleteEnv;
use clap_complete::engine::{
    ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter,
};
use clap_complete::env::Shells;

use glmbench_device::{DeviceKind, Precision};

use crate::shipped;

use super::Cli;
use super::runs::{ROOT, runs_in};

/// Environment variable in which the shell's script names the shell.
const VARIABLE: &str = "COMPLETE";

/// Answers a shell that asks for completions, and ends the program. Returns if none asks.
pub(super) fn answer() {
    CompleteEnv::with_factory(command).var(VARIABLE).complete();
}

/// Returns the script for a shell. `None` for an unknown one.
pub(super) fn script(shell: &str) -> Option<String> {
    let mut text = Vec::new();
    let shells = Shells::builtins();
    let writer = shells.completer(shell)?;
    writer.write_registration(VARIABLE, "glmbench", "glmbench", "glmbench", &mut text).ok()?;
    String::from_utf8(text).ok()
}

/// The command line with completers at its values.
fn command() -> Command {
    Cli::command().mut_subcommands(|verb| verb.mut_args(completed))
}

fn completed(arg: Arg) -> Arg {
    let id = arg.get_id().as_str().to_owned();
    let name = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    match (id.as_str(), name.as_deref()) {
        (_, Some("RUN")) | ("run", None) => arg.add(ArgValueCompleter::new(runs)),
        (_, Some("SUITE.toml")) => arg.add(ArgValueCompleter::new(suites)),
        ("device", _) => arg.add(ArgValueCandidates::new(devices)),
        ("dtype", _) => arg.add(ArgValueCandidates::new(types)),
        _ => arg,
    }
}

fn devices() -> Vec<CompletionCandidate> {
    DeviceKind::ALL.into_iter().map(|kind| CompletionCandidate::new(kind.name())).collect()
}

fn types() -> Vec<CompletionCandidate> {
    Precision::TYPES.into_iter().map(|types| CompletionCandidate::new(types.type_name())).collect()
}

/// Suite files, and the names of the shipped suites.
fn suites(current: &OsStr) -> Vec<CompletionCandidate> {
    let begins = |name: &str| current.to_str().is_some_and(|word| name.starts_with(word));
    let shipped = shipped::suites().map(|suite| suite.name).filter(|name| begins(name));
    let files = PathCompleter::file().complete(current);
    shipped.map(CompletionCandidate::new).chain(files).collect()
}

/// Runs of the usual folder, newest first, and folders.
fn runs(current: &OsStr) -> Vec<CompletionCandidate> {
    let bytes = current.as_encoded_bytes();
    let known = runs_in(Path::new(ROOT)).unwrap_or_default();
    let known = known.into_iter().rev().filter(|name| name.as_encoded_bytes().starts_with(bytes));
    known.map(CompletionCandidate::new).chain(PathCompleter::dir().complete(current)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap_complete::engine::complete;

    fn after(words: &[&str]) -> Vec<String> {
        let words: Vec<_> =
            std::iter::once("glmbench").chain(words.iter().copied()).map(Into::into).collect();
        let last = words.len() - 1;
        let found = complete(&mut command(), words, last, None).unwrap();
        found.iter().map(|candidate| candidate.get_value().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn values_of_this_program_are_completed() {
        assert!(after(&["be"]).contains(&"bench".to_owned()));
        assert!(after(&["run", "quick"]).contains(&"quickstart".to_owned()));
        assert!(after(&["run", "quickstart", "--device", "300"]).contains(&"300i-duo".to_owned()));
        assert!(after(&["bench", "--dtype", ""]).contains(&"bf16".to_owned()));
    }

    #[test]
    fn every_shell_has_a_script() {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let script = script(shell).unwrap();
            assert!(script.contains(VARIABLE) && script.contains("glmbench"), "{shell}: {script}");
        }
        assert_eq!(script("csh"), None);
    }
}
