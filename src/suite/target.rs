//! `[[target]]` tables: what is expected of the machine's limits.

use super::schema_workload::optional_number;
use super::table::{Table, found, string, word};
use super::{Dtype, SuiteError};

/// What is held against a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Bytes of the decode phase a second, over the memory bandwidth.
    DecodeBandwidth,
    /// Decode tokens a second, over those of another case.
    DecodeSpeedup,
    /// Bytes of the KV cache a second that attention reads in the decode phase, over the memory bandwidth.
    AttentionBandwidth,
    /// Operations of the prefill phase a second, over an arithmetic unit's peak.
    PrefillPeak,
    /// Operations of the prefill phase a second, over those of another case.
    PrefillRate,
    /// Seconds until the model is ready.
    LoadTime,
    /// GB (10⁹ bytes) beyond weights and KV cache that the process holds at most while the model is loaded.
    LoadMemory,
}

impl Figure {
    const ALL: [Self; 7] = [
        Self::DecodeBandwidth,
        Self::DecodeSpeedup,
        Self::AttentionBandwidth,
        Self::PrefillPeak,
        Self::PrefillRate,
        Self::LoadTime,
        Self::LoadMemory,
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DecodeBandwidth => "decode-bandwidth",
            Self::DecodeSpeedup => "decode-speedup",
            Self::AttentionBandwidth => "attention-bandwidth",
            Self::PrefillPeak => "prefill-peak",
            Self::PrefillRate => "prefill-rate",
            Self::LoadTime => "load-time",
            Self::LoadMemory => "load-memory",
        }
    }

    /// It is of loading, and of no case.
    fn is_of_loading(self) -> bool {
        matches!(self, Self::LoadTime | Self::LoadMemory)
    }

    /// It is a ratio of two cases.
    fn is_of_two(self) -> bool {
        matches!(self, Self::DecodeSpeedup | Self::PrefillRate)
    }
}

/// One thing expected.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// What.
    pub figure: Figure,
    /// The performance case, by its name in reports; none for loading.
    pub case: Option<String>,
    /// The case that it is compared with, where the figure is a ratio of two.
    pub over: Option<String>,
    /// The arithmetic unit whose peak counts (`glmbench doctor --limits` names them); the fastest for the type if `None`.
    pub unit: Option<String>,
    /// Only of runs in this type.
    pub dtype: Option<Dtype>,
    /// The least share or ratio.
    pub at_least: Option<f64>,
    /// The most seconds or GB.
    pub at_most: Option<f64>,
}

/// Reads a `[[target]]` table.
pub(super) fn target(mut table: Table) -> Result<Target, SuiteError> {
    let names = Figure::ALL.map(Figure::as_str);
    let node = table.require("figure", &format!("one of {}", names.join(", ")))?;
    let of_name = |name: &str| Figure::ALL.into_iter().find(|figure| figure.as_str() == name);
    let figure = word(&node, &names, of_name)?;
    let case = named(&mut table, "case", !figure.is_of_loading(), figure)?;
    let over = named(&mut table, "over", figure.is_of_two(), figure)?;
    let unit = match table.take("unit") {
        Some(node) if figure != Figure::PrefillPeak => {
            return Err(found(&node, "`unit`", "none: only prefill-peak is of an arithmetic unit"));
        }
        unit => unit.map(|node| string(&node)).transpose()?,
    };
    let dtype = table.take("dtype").map(|n| word(&n, &Dtype::NAMES, Dtype::from_name)).transpose()?;
    let (key, other) = if figure.is_of_loading() { ("at_most", "at_least") } else { ("at_least", "at_most") };
    if let Some(node) = table.take(other) {
        return Err(found(&node, &format!("`{other}`"), &format!("`{key}` of {}", figure.as_str())));
    }
    let missing = table.missing(key, "a number above 0");
    let bound = optional_number(&mut table, key)?.ok_or(missing)?;
    table.finish()?;
    let [at_least, at_most] = [key == "at_least", key == "at_most"].map(|is| is.then_some(bound));
    Ok(Target { figure, case, over, unit, dtype, at_least, at_most })
}

/// The case under `key`, which must be there, or must not.
fn named(
    table: &mut Table,
    key: &'static str,
    wanted: bool,
    figure: Figure,
) -> Result<Option<String>, SuiteError> {
    let missing = table.missing(key, "the name of a performance case, such as b1-i512-o17");
    match table.take(key) {
        Some(node) if !wanted => {
            Err(found(&node, &format!("`{key}`"), &format!("none of {}", figure.as_str())))
        }
        Some(node) => string(&node).map(Some),
        None if wanted => Err(missing),
        None => Ok(None),
    }
}
