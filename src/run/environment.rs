//! Environment variables of Ascend software, and whether glmbench, the runtime or nobody reads each of them.
//!
//! Users bring the scripts of MindIE's ChatGLM2 example. Each variable of those scripts is listed, so that nobody has
//! to guess whether it still has an effect. Sources: CANN's and HCCL's documentation, `run_300i_duo_pa.sh`,
//! `run_800i_a2_pa.sh`.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// The reader of a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reader {
    /// glmbench itself.
    Glmbench,
    /// The CANN or HCCL library, on a machine that has one.
    Runtime,
    /// Nobody: what it controlled is not part of this program. The variable is only recorded.
    Recorded,
}

impl Reader {
    /// Returns the name shown in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Glmbench => "glmbench",
            Self::Runtime => "runtime",
            Self::Recorded => "recorded only",
        }
    }
}

/// A variable, or all variables with a common prefix if the name ends in `*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// The reader.
    pub reader: Reader,
    /// Its effect, or why it has none.
    pub effect: &'static str,
}

use Reader::{Glmbench, Recorded, Runtime};

/// All known variables, more specific names first.
pub const VARIABLES: &[Variable] = &[
    of("TP_WORLD_SIZE", Glmbench, "ranks of chat, logits and parity, as --tp; suites name their own"),
    of("BIND_CPU", Glmbench, "1 pins every rank to its cores, as --bind"),
    of("IS_BF16", Glmbench, "in scripts/run_800i_a2_pa.sh: true runs in bf16"),
    of("IS_QUANT", Glmbench, "in the dialogue scripts: 1 expects a quantised folder; config.json says how"),
    of("GLMBENCH_*", Glmbench, "settings of this program"),
    of("MASTER_PORT", Recorded, "ranks are threads of one process, so there is no rendezvous"),
    of("CPU_BINDING_NUM", Recorded, "a rank is bound to all cores of its node"),
    of("RESERVED_MEMORY_GB", Recorded, "memory is estimated from the model's shape"),
    of("NPU_MEMORY_FRACTION", Recorded, "memory is estimated from the model's shape"),
    of(
        "ASCEND_RT_VISIBLE_DEVICES",
        Runtime,
        "which devices there are, renumbered; the emulator follows it, too",
    ),
    of("ASCEND_HOME_PATH", Runtime, "where the libraries are looked for"),
    of("ASCEND_TOOLKIT_HOME", Runtime, "where the libraries are looked for"),
    of("ASCEND_*", Runtime, "CANN's own"),
    of("ACLNN_CACHE_LIMIT", Runtime, "entries of the operator library's executor cache"),
    of("ACL_*", Runtime, "CANN's own"),
    of("HCCL_OP_BASE_FFTS_MODE_ENABLE", Recorded, "of older HCCL; newer ones have no trace of it"),
    of("HCCL_BUFFSIZE", Runtime, "megabytes of each communicator's buffer; guides for the 300I DUO use 110"),
    of("HCCL_*", Runtime, "HCCL's own"),
    of("LCCL_*", Recorded, "of MindIE's own collectives; ranks meet through HCCL here"),
    of("ATB_*", Recorded, "of the ATB library; the operators here are aclnn's"),
    of("TASK_QUEUE_ENABLE", Recorded, "of torch_npu; each rank has a launch thread of its own here"),
    of("INF_NAN_MODE_ENABLE", Recorded, "of torch_npu"),
    of("PYTORCH_NPU_ALLOC_CONF", Recorded, "of torch_npu; memory is taken once, at load"),
    of("CPU_AFFINITY_CONF", Recorded, "of torch_npu; see --bind"),
    of("ENABLE_GREEDY_SEARCH_OPT", Recorded, "of MindIE"),
];

const fn of(name: &'static str, reader: Reader, effect: &'static str) -> Variable {
    Variable { name, reader, effect }
}

/// Looks up a variable.
pub fn variable(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|v| match v.name.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == v.name,
    })
}

/// Words within the names of variables that hold secrets. Such variables enter no record.
const SECRET: [&str; 7] = ["KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "AUTH"];

/// Whether a variable's name says that it holds a secret. A word too many costs a line of the record; one too few, a secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    SECRET.iter().any(|word| name.contains(word))
}

/// Returns the known variables that are set, for the record. Secrets are left out.
pub fn environment() -> BTreeMap<String, String> {
    known(std::env::vars_os())
}

fn known(variables: impl Iterator<Item = (OsString, OsString)>) -> BTreeMap<String, String> {
    variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .filter(|(name, _)| variable(name).is_some() && !is_secret(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_enter_no_record() {
        let set = [
            "GLMBENCH_ENDPOINT_KEY",
            "GLMBENCH_SERVE_KEY",
            "GLMBENCH_KEY_FILE",
            "GLMBENCH_ASCEND",
            "ASCEND_REGISTRY_TOKEN",
            "ASCEND_DB_PASSWORD",
            "ASCEND_db_passwd",
            "HCCL_CLIENT_SECRET",
            "HCCL_TLS_KEYSTORE",
            "HCCL_WHITELIST_AUTH",
            "ATB_CREDENTIALS",
            "HCCL_BUFFSIZE",
            "HOME",
        ];
        let set = set.into_iter().map(|name| (name.into(), "x".into()));
        assert_eq!(known(set).into_keys().collect::<Vec<_>>(), ["GLMBENCH_ASCEND", "HCCL_BUFFSIZE"]);
        // None of the variables that this program explains is a secret.
        assert!(VARIABLES.iter().all(|variable| !is_secret(variable.name)));
    }

    #[test]
    fn the_special_name_goes_before_its_family() {
        assert_eq!(variable("HCCL_BUFFSIZE").unwrap().reader, Runtime);
        assert_eq!(variable("HCCL_OP_BASE_FFTS_MODE_ENABLE").unwrap().reader, Recorded);
        assert_eq!(variable("HCCL_ALGO").unwrap().name, "HCCL_*");
        assert_eq!(variable("HOME"), None);
        for (i, v) in VARIABLES.iter().enumerate() {
            let found = variable(v.name.trim_end_matches('*')).unwrap_or(v);
            let first = VARIABLES.iter().position(|w| w == found).unwrap();
            assert!(first >= i || v.name.ends_with('*'), "{} hides {}", found.name, v.name);
        }
    }
}
