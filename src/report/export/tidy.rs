//! CSV after RFC 4180: one row per sample, one row per repetition. Cells that a spreadsheet would read as formulas
//! are defused.

use super::Records;
use super::fields::{Field, REQUEST, RUN, Row, SAMPLE, request_row, run_row, sample_row};
use crate::text;
use serde_json::Value;

/// `samples.csv`: the run's fields, then the sample's.
pub(super) fn samples(records: &Records) -> Result<Vec<u8>, csv::Error> {
    table(records, &SAMPLE, records.samples.iter().map(|sample| sample_row(&records.run, sample)))
}

/// `requests.csv`: the run's fields, then the repetition's.
pub(super) fn requests(records: &Records) -> Result<Vec<u8>, csv::Error> {
    table(records, &REQUEST, records.requests.iter().map(request_row))
}

fn table(
    records: &Records,
    fields: &[Field],
    rows: impl Iterator<Item = Row>,
) -> Result<Vec<u8>, csv::Error> {
    let run = run_row(&records.run);
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(RUN.iter().chain(fields).map(|field| field.name))?;
    for row in rows {
        writer.write_record(run.iter().chain(&row).map(cell))?;
    }
    writer.into_inner().map_err(|e| e.into_error().into())
}

/// Null is an empty cell. A list begins with a bracket, so it is never a formula.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text::cell(text).into_owned(),
        other => other.to_string(),
    }
}
