//! `[[configuration]]` tables: the ways to run a suite's cases.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::table::{Table, boolean, count, model_path, path, string, word};
use super::tree;
use super::{Dtype, Kv, Rope, SuiteError};

/// Accepted names of devices.
const DEVICES: [&str; 4] = ["cpu", "reference", "300i-duo", "800i-a2"];

/// One way to run a suite. For fields that are `None`, the suite's `[model]` or the command line applies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Configuration {
    /// Name within the suite. Cases list the names of the configurations that they apply to.
    pub name: String,
    /// Value of `--device`.
    pub device: Option<String>,
    /// Whether to run on the emulator.
    pub emulate: bool,
    /// Chip profile of the emulator. Default: the device's built-in profile.
    pub profile: Option<PathBuf>,
    /// Value of `--model`.
    pub model: Option<OsString>,
    /// Number format.
    pub dtype: Option<Dtype>,
    /// Number format of the KV cache.
    pub kv: Option<Kv>,
    /// Rotary table mode.
    pub rope: Option<Rope>,
    /// Tensor-parallel size of every case.
    pub tp: Option<usize>,
    /// Number of threads.
    pub threads: Option<usize>,
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
    let device = table
        .take("device")
        .map(|n| word(&n, &DEVICES, |w| Some(w.to_owned()).filter(|w| DEVICES.contains(&w.as_str()))));
    let result = Configuration {
        name,
        device: device.transpose()?,
        emulate: table.take("emulate").map(|n| boolean(&n)).transpose()?.unwrap_or(false),
        profile: table.take("profile").map(|n| path(&n, dir)).transpose()?,
        model: table.take("model").map(|n| model_path(&n, dir)).transpose()?,
        dtype: table.take("dtype").map(|n| word(&n, &Dtype::NAMES, Dtype::from_name)).transpose()?,
        kv: table.take("kv").map(|n| word(&n, &Kv::NAMES, Kv::from_name)).transpose()?,
        rope: table.take("rope").map(|n| word(&n, &Rope::NAMES, Rope::from_name)).transpose()?,
        tp: table.take("tp").map(|n| count(&n, 1)).transpose()?.map(|n| n as usize),
        threads: table.take("threads").map(|n| count(&n, 1)).transpose()?.map(|n| n as usize),
    };
    table.finish()?;
    Ok(result)
}
