//! `KEY=VALUE` arguments. The value may be a path and therefore need not be UTF-8.

use crate::language::Language;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};

use crate::dataset::Benchmark;
use crate::run::RunError;
use crate::run::shard::Shard;
use crate::run::shard_choice::{ShardChoice, ShardSource};
use crate::suite::Override;

use super::say;

/// The flag of verbs that print tables or write reports.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct LanguageArgs {
    /// Language of tables, pages and charts. Messages, CSV and JSON stay English
    #[arg(long, value_name = "LANGUAGE", default_value = "en", value_parser = language_parser())]
    pub(super) language: Language,
}

/// Reads a language.
fn language_parser() -> impl TypedValueParser<Value = Language> {
    PossibleValuesParser::new(Language::ALL.map(Language::name))
        .map(|name| Language::from_name(&name).unwrap_or_default())
}

/// Reads `accuracy.0.limit=10`.
pub(super) fn override_parser() -> impl TypedValueParser<Value = Override> {
    OsStringValueParser::new().try_map(|word| match halves(&word) {
        Some((key, value)) if !key.is_empty() => Ok(Override { key, value }),
        _ => {
            Err(format!("\"{}\" was found; expected KEY=VALUE, such as accuracy.0.limit=10", word.display()))
        }
    })
}

/// Reads a value of `--shard`.
pub(super) fn parse_shard(text: &str) -> Result<ShardChoice, String> {
    text.parse()
}

/// Returns the shard that the flag and the environment ask for. Says so if it is the environment.
///
/// # Errors
/// The two contradict each other, or the number of shards is unknown.
pub(super) fn shard(choice: Option<ShardChoice>) -> Result<Option<Shard>, RunError> {
    let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let found = choice.unwrap_or_default().resolve(&variable).map_err(RunError::Request)?;
    if let Some((shard, source)) = found.filter(|(_, source)| *source != ShardSource::Flag) {
        say(&format!("shard {shard} by {}; --shard none runs the whole plan", source.name()));
    }
    Ok(found.map(|(shard, _)| shard))
}

/// Reads `ceval=FOLDER`.
pub(super) fn dataset_parser() -> impl TypedValueParser<Value = (&'static Benchmark, PathBuf)> {
    OsStringValueParser::new().try_map(|word| {
        let found =
            halves(&word).and_then(|(name, folder)| Some((Benchmark::from_name(&name)?, folder.into())));
        found.ok_or_else(|| {
            let names = Benchmark::names().join(" or ");
            format!(
                "\"{}\" was found; expected TASK=DIR with {names} for TASK, such as ceval=data/ceval",
                word.display()
            )
        })
    })
}

/// Splits a word at the first `=` into a UTF-8 key and a value.
#[cfg(unix)]
fn halves(word: &OsStr) -> Option<(String, OsString)> {
    use std::os::unix::ffi::OsStrExt;
    let bytes = word.as_bytes();
    let at = bytes.iter().position(|&byte| byte == b'=')?;
    let key = String::from_utf8(bytes[..at].to_vec()).ok()?;
    Some((key, OsStr::from_bytes(&bytes[at + 1..]).to_owned()))
}

#[cfg(not(unix))]
fn halves(word: &OsStr) -> Option<(String, OsString)> {
    word.to_str()?.split_once('=').map(|(key, value)| (key.to_owned(), value.into()))
}
