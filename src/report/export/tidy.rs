//! CSV after RFC 4180: one row per sample, one row per repetition. Cells that a spreadsheet would read as formulas
//! are defused.

use super::fields::{self, Field, REQUEST, RUN, Row, SAMPLE, request_row, run_row, sample_row};
use super::{Export, ExportError, File, Output, Records};
use crate::text;
use serde_json::Value;

/// The format `csv`.
#[derive(Debug)]
pub(super) struct Csv;

impl Export for Csv {
    fn name(&self) -> &'static str {
        "csv"
    }

    fn about(&self) -> &'static str {
        "samples.csv, requests.csv, max_batch.csv, load.csv and parity.csv, and model_error.csv if times are modelled. The run directory \
         already has accuracy.csv and perf.csv"
    }

    fn details(&self) -> String {
        fields::help()
    }

    fn output(&self) -> Output {
        Output::Files(files)
    }
}

/// Returns `samples.csv` and `requests.csv`, with the run's fields before the row's, and the tables of the
/// workloads, such as `max_batch.csv`. Omits files without rows.
fn files(records: &Records) -> Result<Vec<File>, ExportError> {
    let Records { run, samples, requests, .. } = records;
    let mut files = Vec::new();
    let mut add = |path: &str, bytes| files.push(File { path: path.into(), bytes });
    if !samples.is_empty() {
        add("samples.csv", table(records, &SAMPLE, samples.iter().map(|sample| sample_row(run, sample)))?);
    }
    if !requests.is_empty() {
        add("requests.csv", table(records, &REQUEST, requests.iter().map(request_row))?);
    }
    files.extend(records.tables.iter().cloned());
    Ok(files)
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
