//! `[[configuration]]` tables: the ways to run a suite's cases.

use std::ffi::OsString;
use std::path::Path;

use crate::compute::{ComputeSpec, Emulation};

use super::table::{Table, boolean, count, model_path, profile_path, string};
use super::{SuiteError, tree, types};

/// One way to run a suite. For fields that are `None`, the suite's `[model]` or the command line applies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Configuration {
    /// Name within the suite. Cases list the names of the configurations that they apply to.
    pub name: String,
    /// Value of `--model`.
    pub model: Option<OsString>,
    /// How to compute. Emulation is always said: without `emulate = true` there is none. A number of ranks is that of
    /// every case.
    pub compute: ComputeSpec,
}

impl Configuration {
    /// Parses `device=cpu,dtype=bf16,threads=1` from the command line. The name is the value of `name` if given,
    /// otherwise the whole text.
    pub fn from_words(words: &str) -> Result<Self, SuiteError> {
        const FLAG: &str = "--configuration";
        let mut root = tree::parse(Path::new(FLAG), "")?;
        for pair in words.split(',') {
            let Some((key, value)) = pair.split_once('=') else {
                let place = tree::Origin::Typed(format!("{FLAG} {words}").into());
                return Err(SuiteError::found(
                    &place,
                    &format!("\"{pair}\""),
                    "KEY=VALUE pairs separated by commas, such as device=cpu,dtype=bf16",
                ));
            };
            tree::set(&mut root, key.trim(), tree::parse_override(FLAG, key.trim(), value.trim().as_ref())?)?;
        }
        if !words.split(',').any(|pair| pair.trim_start().starts_with("name")) {
            tree::set(&mut root, "name", tree::parse_override(FLAG, "name", format!("{words:?}").as_ref())?)?;
        }
        configuration(Table::new(root)?, Path::new(""))
    }
}

/// Reads one table. `dir` is the suite's folder.
pub(super) fn configuration(mut table: Table, dir: &Path) -> Result<Configuration, SuiteError> {
    let name = string(&table.require("name", "the configuration's name")?)?;
    let device = types::device(&mut table)?;
    let emulate = table.take("emulate").map(|n| boolean(&n)).transpose()?.unwrap_or(false);
    let profile = table.take("profile").map(|n| profile_path(&n, dir)).transpose()?;
    let model = table.take("model").map(|n| model_path(&n, dir)).transpose()?;
    let compute = ComputeSpec {
        device,
        emulation: Some(if emulate { Emulation::Auto } else { Emulation::Off }),
        profile,
        dtype: types::dtype(&mut table, "dtype")?,
        kv: types::kv(&mut table)?,
        rope: types::rope(&mut table)?,
        ranks: table.take("tp").map(|n| count(&n, 1)).transpose()?.map(|n| n as usize),
        threads: table.take("threads").map(|n| count(&n, 1)).transpose()?.map(|n| n as usize),
        ..ComputeSpec::default()
    };
    table.finish()?;
    Ok(Configuration { name, model, compute })
}
