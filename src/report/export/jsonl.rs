//! JSON lines: one flat, self-contained object per sample, per repetition and per level of a load.

use super::fields::{
    self, Field, LOAD, REQUEST, RUN, Row, SAMPLE, load_row, request_row, run_row, sample_row,
};
use super::{Export, Output, Records, Sink};
use crate::workload::load::rows::load_rows;
use std::io;

/// The format `jsonl`.
#[derive(Debug)]
pub(super) struct Jsonl;

impl Export for Jsonl {
    fn name(&self) -> &'static str {
        "jsonl"
    }

    fn about(&self) -> &'static str {
        "One flat, self-contained JSON object for each sample, repetition and level of a load"
    }

    fn details(&self) -> String {
        fields::help()
    }

    fn output(&self) -> Output {
        Output::Stream(write)
    }
}

/// Writes the samples, then the repetitions, then the levels of loads. Every line begins with `line` (`sample`, `request` or
/// `load`) and the fields of its run. Only lists of numbers are nested.
fn write(records: &Records, to: Sink<'_>) -> io::Result<()> {
    let run = run_row(&records.run);
    for sample in &records.samples {
        line(to, "sample", &run, (&SAMPLE, sample_row(&records.run, sample)))?;
    }
    for request in &records.requests {
        line(to, "request", &run, (&REQUEST, request_row(request)))?;
    }
    for level in &load_rows(&records.run, &records.levels) {
        line(to, "load", &run, (&LOAD, load_row(level)))?;
    }
    Ok(())
}

/// Writes the members in table order, which a map would not keep.
fn line(to: Sink<'_>, name: &str, run: &Row, (fields, row): (&[Field], Row)) -> io::Result<()> {
    write!(to, "{{\"line\":\"{name}\"")?;
    let of_run = RUN.iter().zip(run);
    let members = of_run.chain(fields.iter().zip(&row));
    for (field, value) in members {
        write!(to, ",\"{}\":{value}", field.name)?;
    }
    writeln!(to, "}}")
}
