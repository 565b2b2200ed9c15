//! What the tables of a suite share: models, lengths, ranks, seeds and configurations.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{DEFAULT_SEED, SuiteError};

pub(crate) use crate::document::table::{
    Table, array, boolean, count, counts, found, number, optional_count, optional_number, path, share,
    string, tables, word,
};
use crate::document::tree::{Node, Origin, Value};

/// Resolves a chip profile: a file relative to the suite's folder, or else a name.
pub(crate) fn profile_path(node: &Node, dir: &Path) -> Result<PathBuf, SuiteError> {
    let file = path(node, dir)?;
    Ok(match &node.value {
        Value::String(word) if !file.exists() => PathBuf::from(word),
        _ => file,
    })
}

/// Keeps `demo` and `dummy:…` as names and resolves anything else as a folder. The shape of a `dummy:…` may be a file in the
/// suite folder.
pub(crate) fn model_path(node: &Node, dir: &Path) -> Result<OsString, SuiteError> {
    match &node.value {
        Value::String(word) if word == "demo" => Ok(word.into()),
        Value::String(word) if word.starts_with("dummy:") => {
            let own = word.strip_prefix("dummy:").map(|shape| dir.join(shape));
            let own = own.filter(|file| matches!(node.origin, Origin::File { .. }) && file.exists());
            Ok(own.map_or_else(
                || word.into(),
                |file| {
                    let mut word = OsString::from("dummy:");
                    word.push(file);
                    word
                },
            ))
        }
        _ => Ok(path(node, dir)?.into_os_string()),
    }
}

/// Takes the tensor-parallel sizes.
pub(crate) fn tp_ranks(table: &mut Table) -> Result<Vec<usize>, SuiteError> {
    table.take("tp").map_or(Ok(vec![1]), |node| counts(node, "an array of tensor-parallel sizes"))
}

/// Takes the seed of the input tokens.
pub(crate) fn seed(table: &mut Table) -> Result<u64, SuiteError> {
    Ok(table.take("seed").map(|node| count(&node, 0)).transpose()?.unwrap_or(DEFAULT_SEED))
}

/// Input and output length of a sequence, in tokens. Suites write `[input, output]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(into = "[usize; 2]")]
pub struct Lengths {
    /// Prompt tokens.
    pub input: usize,
    /// Generated tokens.
    pub output: usize,
}

impl From<Lengths> for [usize; 2] {
    fn from(Lengths { input, output }: Lengths) -> Self {
        [input, output]
    }
}

/// Reads the pairs of input and output lengths under `lengths`.
pub(crate) fn lengths(table: &mut Table) -> Result<Vec<Lengths>, SuiteError> {
    let expected = "an array of [input, output] token counts, such as [[128, 32]]";
    let pair = |pair: Node| {
        let origin = pair.origin.clone();
        match counts(pair, "[input, output]")?.as_slice() {
            &[input, output] => Ok(Lengths { input, output }),
            other => Err(SuiteError::found(&origin, &format!("{} numbers", other.len()), "[input, output]")),
        }
    };
    array(table.require("lengths", expected)?, expected)?.1.into_iter().map(pair).collect()
}

/// Reads the configurations that a case applies to. Empty if none are named, which means all.
pub(crate) fn case_configurations(table: &mut Table) -> Result<Vec<String>, SuiteError> {
    match table.take("configurations") {
        None => Ok(Vec::new()),
        Some(node) => array(node, "names of configurations")?.1.iter().map(string).collect(),
    }
}
