//! `KEY=VALUE` arguments. The value may be a path and therefore need not be UTF-8.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::dataset::Benchmark;
use crate::suite::Override;

/// Reads `accuracy.0.limit=10`.
pub(super) fn override_parser() -> impl TypedValueParser<Value = Override> {
    OsStringValueParser::new().try_map(|word| match halves(&word) {
        Some((key, value)) if !key.is_empty() => Ok(Override { key, value }),
        _ => {
            Err(format!("\"{}\" was found; expected KEY=VALUE, such as accuracy.0.limit=10", word.display()))
        }
    })
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
