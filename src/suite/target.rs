//! `[[target]]` tables: the expected shares of the machine limits.

use glmbench_device::Precision;

use super::table::{Table, found, optional_number, string, word};
use super::{SuiteError, types};
use crate::record::{self, Figure};

/// One target of a suite.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// What is expected, as records keep it.
    pub expected: record::Target,
    /// Restricts the target to runs in this type.
    pub dtype: Option<Precision>,
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
    let dtype = types::dtype(&mut table, "dtype")?;
    let (key, other) = if figure.is_of_loading() { ("at_most", "at_least") } else { ("at_least", "at_most") };
    if let Some(node) = table.take(other) {
        return Err(found(&node, &format!("`{other}`"), &format!("`{key}` for {}", figure.as_str())));
    }
    let missing = table.missing(key, "a number above 0");
    let bound = optional_number(&mut table, key)?.ok_or(missing)?;
    table.finish()?;
    let [at_least, at_most] = [key == "at_least", key == "at_most"].map(|is| is.then_some(bound));
    Ok(Target { expected: record::Target { figure, case_id: case, over, unit, at_least, at_most }, dtype })
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
