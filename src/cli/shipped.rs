//! Suites that the command line names: files, or those that the program carries.

use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::shipped;
use crate::suite::{Override, Suite};

/// Returns whether this is the name of a shipped suite.
pub(super) fn is_suite(word: &str) -> bool {
    shipped::suites().any(|suite| suite.name == word)
}

/// Reads the suite that an argument of the command line names: a file, or a shipped suite by its name.
///
/// # Errors
/// There is neither, the suite is invalid, or the shipped files cannot be written.
pub(super) fn load(word: &Path, overrides: &[Override]) -> anyhow::Result<Suite> {
    Ok(Suite::load(&suite_path(word)?, overrides)?)
}

/// Returns the file of the suite that an argument names.
fn suite_path(word: &Path) -> anyhow::Result<PathBuf> {
    let is_plain = word.components().count() == 1 && word.extension().is_none();
    if word.exists() || !is_plain {
        return Ok(word.to_owned());
    }
    let name = word.display().to_string();
    if let Some(suite) = shipped::suites().find(|suite| suite.name == name) {
        return Ok(shipped::unpacked()?.join(suite.path));
    }
    let names: Vec<&str> = shipped::suites().map(|suite| suite.name).collect();
    bail!("{name}: found neither a file nor a shipped suite; expected a suite file, or {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_file_or_the_name_of_a_shipped_suite() {
        assert_eq!(suite_path(Path::new("no/such.toml")).unwrap(), Path::new("no/such.toml"));
        let error = suite_path(Path::new("quickstrat")).unwrap_err().to_string();
        assert!(error.contains("found neither") && error.contains("quickstart"), "{error}");
    }
}
