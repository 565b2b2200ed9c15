//! Rows of data files: columns with their values.

use std::collections::BTreeMap;

use minijinja::value::Value;
use regex::Regex;

/// A row's columns.
pub(super) type Row = serde_json::Map<String, serde_json::Value>;

/// Returns the rows of a json file: an array, or the one under `key`. An error has its line.
pub(super) fn json_rows(text: &str, key: Option<&str>) -> Result<Vec<Row>, (u64, String)> {
    let wrong = |error: &serde_json::Error, expected: &str| {
        (error.line() as u64, format!("{error}; expected {expected}"))
    };
    let Some(key) = key else {
        return serde_json::from_str(text).map_err(|error| wrong(&error, "an array of objects"));
    };
    let expected = format!("an object with the array `{key}` of objects");
    let mut object: Row = serde_json::from_str(text).map_err(|error| wrong(&error, &expected))?;
    let rows = object.remove(key).ok_or_else(|| (1, format!("found no `{key}`; expected {expected}")))?;
    serde_json::from_value(rows).map_err(|error| (1, format!("`{key}`: {error}; expected {expected}")))
}

/// Cuts a text into documents, each with its first line's number. The first may begin at any line. White space alone is no
/// document.
pub(super) fn documents(text: &str, begins: Option<&Regex>) -> Vec<(u64, Row)> {
    let mut all: Vec<(u64, String)> = Vec::new();
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let is_new = begins.is_some_and(|begins| begins.is_match(line.trim_end_matches(['\n', '\r'])));
        match all.last_mut().filter(|_| !is_new) {
            Some((_, document)) => document.push_str(line),
            None => all.push((number, line.to_owned())),
        }
    }
    all.retain(|(_, document)| !document.trim().is_empty());
    let row = |document: String| {
        Row::from_iter([("text".to_owned(), crate::dataset::unix_lines(&document).into())])
    };
    all.into_iter().map(|(line, document)| (line, row(document))).collect()
}

/// Converts a column's value.
pub(super) fn value_of(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(value) => Value::from(*value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::from(whole),
            (None, number) => Value::from(number.unwrap_or_default()),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(list) => Value::from(list.iter().map(value_of).collect::<Vec<_>>()),
        serde_json::Value::Object(map) => {
            let entries = map.iter().map(|(name, value)| (name.clone(), value_of(value)));
            Value::from(entries.collect::<BTreeMap<String, Value>>())
        }
    }
}
