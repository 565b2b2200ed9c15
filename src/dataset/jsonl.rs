//! One JSON object a line.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::error::Problems;

/// Reads every line of `text` as a `T`, with its line number from 1. A line that is not one is noted in
/// `problems`. Blank lines are allowed at the end of the file only: inside, one may be a lost row.
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
                // serde_json counts lines within the row, which is always line 1 there.
                let message = error.to_string();
                let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(m, _)| m);
                problems.push(path, line, format!("column {}: {message}", error.column()));
            }
        }
    }
    rows
}
