//! JSON Lines: one JSON object per line.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::error::{DatasetError, Problems};
use super::text;

/// Reads a JSON Lines file of `what`. `fault` says what is wrong with a row that parses.
///
/// # Errors
/// When the file cannot be read or is empty. Otherwise lists every wrong line.
pub fn read_jsonl<T: DeserializeOwned>(
    path: &Path,
    what: &str,
    fault: impl Fn(&T) -> Option<String>,
) -> Result<Vec<T>, DatasetError> {
    let mut problems = Problems::default();
    let Some(file) = text::read(path, &mut problems)? else { return Err(DatasetError::Rows(problems)) };
    let rows = rows::<T>(&file.text, path, &mut problems);
    for (line, message) in rows.iter().filter_map(|(line, row)| Some((line, fault(row)?))) {
        problems.push(path, *line, message);
    }
    if rows.is_empty() && problems.0.is_empty() {
        problems.push(path, 1, format!("found an empty file; expected one JSON object a line: {what}"));
    }
    problems.into_result()?;
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// Parses every line of `text` as a `T` and returns it with its line number, counted from 1. Lines that do not parse go
/// to `problems`. Blank lines are allowed only at the end of the file: elsewhere, one may be a lost row.
pub(super) fn rows<T: DeserializeOwned>(text: &str, path: &Path, problems: &mut Problems) -> Vec<(u64, T)> {
    let mut rows = Vec::new();
    for (line, row) in (1..).zip(text.trim_end().lines()) {
        if row.trim().is_empty() {
            problems.push(path, line, "found a blank line; expected a JSON object");
            continue;
        }
        match serde_json::from_str(row) {
            Ok(value) => rows.push((line, value)),
            Err(error) => {
                // serde_json counts lines within the row, so its line number is always 1.
                let message = error.to_string();
                let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(m, _)| m);
                problems.push(path, line, format!("column {}: {message}", error.column()));
            }
        }
    }
    rows
}
