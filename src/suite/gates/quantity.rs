//! Numbers with units in gate files.

use crate::document::tree::{Node, Value};
use crate::suite::SuiteError;

/// A positive number, without unit.
pub(super) fn number(node: &Node) -> Result<f64, SuiteError> {
    let value = match node.value {
        Value::Integer(n) => n as f64,
        Value::Float(x) => x,
        ref other => return Err(SuiteError::found(&node.origin, other.kind(), "a number")),
    };
    let usable = value.is_finite() && value > 0.0;
    if usable {
        Ok(value)
    } else {
        Err(SuiteError::found(&node.origin, &value.to_string(), "a number above 0"))
    }
}

pub(super) fn share(node: &Node) -> Result<f64, SuiteError> {
    let share = quantity(node, &[("%", 0.01)], "a percentage such as \"1%\"")?;
    if share <= 1.0 {
        Ok(share)
    } else {
        Err(SuiteError::found(&node.origin, &format!("{} %", 100.0 * share), "at most 100 %"))
    }
}

pub(super) fn duration_ns(node: &Node) -> Result<f64, SuiteError> {
    quantity(
        node,
        &[("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9)],
        "a time such as \"250 ms\"",
    )
}

pub(super) fn rate(node: &Node) -> Result<f64, SuiteError> {
    quantity(node, &[("tokens/s", 1.0)], "a rate such as \"100 tokens/s\"")
}

pub(super) fn bytes(node: &Node) -> Result<f64, SuiteError> {
    let binary = |power: i32| 1024f64.powi(power);
    let units = [
        ("KiB", binary(1)),
        ("MiB", binary(2)),
        ("GiB", binary(3)),
        ("kB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("B", 1.0),
    ];
    quantity(node, &units, "a size such as \"14 GiB\"")
}

/// A string with a number and its unit. Without the unit, 1 could be a share or a percentage.
fn quantity(node: &Node, units: &[(&str, f64)], expected: &str) -> Result<f64, SuiteError> {
    let Value::String(text) = &node.value else {
        return Err(SuiteError::found(&node.origin, node.value.kind(), expected));
    };
    // A number may have an exponent, so the unit is the known suffix after which a number remains.
    let read = |(unit, scale): &(&str, f64)| {
        let value: f64 = text.trim().strip_suffix(unit)?.trim_end().parse().ok()?;
        (value.is_finite() && value >= 0.0).then_some(value * scale)
    };
    units.iter().find_map(read).ok_or_else(|| SuiteError::found(&node.origin, &format!("{text:?}"), expected))
}
