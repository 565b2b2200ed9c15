//! `[[target]]` tables: the expected shares of the machine's limits.

use super::table::{Table, found, optional_number, string, word};
use super::{Dtype, SuiteError};

/// The quantity to compare with a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Bytes per second of the decode phase, relative to the memory bandwidth.
    DecodeBandwidth,
    /// Decode tokens per second, relative to another case.
    DecodeSpeedup,
    /// KV-cache bytes per second that attention reads in the decode phase, relative to the memory bandwidth.
    AttentionBandwidth,
    /// Operations per second of the prefill phase, relative to an arithmetic unit's peak.
    PrefillPeak,
    /// Operations per second of the prefill phase, relative to another case.
    PrefillRate,
    /// Seconds until the model is ready.
    LoadTime,
    /// Peak memory of the process during loading, beyond weights and KV cache, in GB (10⁹ bytes).
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

    /// Returns the name used in suites.
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

    /// Returns whether the figure is about loading. Such a figure has no case.
    fn is_of_loading(self) -> bool {
        matches!(self, Self::LoadTime | Self::LoadMemory)
    }

    /// Returns whether the figure is a ratio of two cases.
    fn is_of_two(self) -> bool {
        matches!(self, Self::DecodeSpeedup | Self::PrefillRate)
    }
}

/// One target.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The quantity.
    pub figure: Figure,
    /// Name of the performance case as in reports; `None` for loading.
    pub case: Option<String>,
    /// The case to compare with, if the figure is a ratio of two cases.
    pub over: Option<String>,
    /// The arithmetic unit of the peak, as named by `glmbench doctor --limits`. `None` is the fastest for the type.
    pub unit: Option<String>,
    /// Restricts the target to runs in this type.
    pub dtype: Option<Dtype>,
    /// Minimum share or ratio.
    pub at_least: Option<f64>,
    /// Maximum in seconds or GB.
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
            return Err(found(&node, "`unit`", "none: only prefill-peak has an arithmetic unit"));
        }
        unit => unit.map(|node| string(&node)).transpose()?,
    };
    let dtype = table.take("dtype").map(|n| word(&n, &Dtype::NAMES, Dtype::from_name)).transpose()?;
    let (key, other) = if figure.is_of_loading() { ("at_most", "at_least") } else { ("at_least", "at_most") };
    if let Some(node) = table.take(other) {
        return Err(found(&node, &format!("`{other}`"), &format!("`{key}` for {}", figure.as_str())));
    }
    let missing = table.missing(key, "a number above 0");
    let bound = optional_number(&mut table, key)?.ok_or(missing)?;
    table.finish()?;
    let [at_least, at_most] = [key == "at_least", key == "at_most"].map(|is| is.then_some(bound));
    Ok(Target { figure, case, over, unit, dtype, at_least, at_most })
}

/// Reads the case name under `key`, which is required if `wanted` and rejected otherwise.
fn named(
    table: &mut Table,
    key: &'static str,
    wanted: bool,
    figure: Figure,
) -> Result<Option<String>, SuiteError> {
    let missing = table.missing(key, "the name of a performance case, such as b1-i512-o17");
    match table.take(key) {
        Some(node) if !wanted => {
            Err(found(&node, &format!("`{key}`"), &format!("none for {}", figure.as_str())))
        }
        Some(node) => string(&node).map(Some),
        None if wanted => Err(missing),
        None => Ok(None),
    }
}
