//! Exports a run in the formats of other tools.
//!
//! A format implements [`Export`] in a file of its own, and [`EXPORTS`] lists it. The command line offers what the list
//! has, and writes the bytes.

pub mod fields;
mod jsonl;
mod lm_eval;
mod modeltest;
mod python;
mod sql;
mod submission;
mod tidy;

use crate::record::{
    Audit, Clock, Contents, LoadLevelRecord, ProbeRecord, PromptRecord, RecordError, RequestRecord, RunDir,
    RunRecord, SampleRecord,
};
use crate::report::csv_file::Csv;
use crate::report::workloads::Workloads;
use crate::report::{accuracy_rows, modelled, perf_rows};
use std::fmt::Debug;
use std::io::{self, Write};

/// The formats, in the order of the help.
pub const EXPORTS: [&dyn Export; 6] = [
    &modeltest::ModelTest,
    &lm_eval::LmEval,
    &submission::CevalSubmission,
    &jsonl::Jsonl,
    &sql::Sql,
    &tidy::Csv,
];

/// A format of `glmbench export`.
pub trait Export: Debug + Sync {
    /// The word of `--format`. Files go into `RUN/export/<name>` by default, and a stream ends in `.<name>`.
    fn name(&self) -> &'static str;

    /// The content in one line, for `--help`.
    fn about(&self) -> &'static str;

    /// What `--help` says at its end. Formats with the same text share a section.
    fn details(&self) -> String {
        String::new()
    }

    /// What the format writes, with the function that makes it.
    fn output(&self) -> Output;

    /// The fields that come from [`Records::prompts`]. A format without such fields is given no prompts.
    fn prompt_fields(&self) -> Option<&'static str> {
        None
    }
}

/// What a format writes.
#[derive(Debug, Clone, Copy)]
pub enum Output {
    /// One text, for standard output or one file.
    Stream(fn(&Records, &mut dyn Write) -> io::Result<()>),
    /// Several files. None if the run has no rows yet.
    Files(fn(&Records) -> Result<Vec<File>, ExportError>),
}

/// A failed export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A table cannot be written.
    #[error(transparent)]
    Csv(#[from] csv::Error),
    /// A text cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Destination of a text stream.
type Sink<'a> = &'a mut dyn Write;

/// Returns the format of that name.
pub fn find(name: &str) -> Option<&'static dyn Export> {
    EXPORTS.into_iter().find(|export| export.name() == name)
}

/// Returns the files of a run in a format. A stream is one file, named after the run.
pub fn files(export: &dyn Export, records: &Records) -> Result<Vec<File>, ExportError> {
    match export.output() {
        Output::Files(make) => make(records),
        Output::Stream(write) => {
            let mut bytes = Vec::new();
            write(records, &mut bytes)?;
            Ok(vec![File { path: format!("{}.{}", records.file_stem(), export.name()), bytes }])
        }
    }
}

/// All exported records of a run.
#[derive(Debug, Clone)]
pub struct Records {
    /// `run.json`.
    pub run: RunRecord,
    /// `samples.jsonl`.
    pub samples: Vec<SampleRecord>,
    /// `requests.jsonl`.
    pub requests: Vec<RequestRecord>,
    /// `probes.jsonl`.
    pub probes: Vec<ProbeRecord>,
    /// `load.jsonl`.
    pub levels: Vec<LoadLevelRecord>,
    /// The tables of workloads with rows, such as `max_batch.csv`.
    pub tables: Vec<File>,
    /// Whether a line of a workload has times of a virtual clock.
    pub modelled: bool,
    /// `prompts.jsonl`, which is read only for formats that use it.
    pub prompts: Vec<PromptRecord>,
    /// Faults found in the records.
    pub audit: Audit,
}

/// A file of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Path below the export folder, with `/`.
    pub path: String,
    /// The content.
    pub bytes: Vec<u8>,
}

/// Returns `model_error.csv`. `None` for measured times.
fn errors(contents: &Contents, workloads: &Workloads) -> Result<Option<Csv>, csv::Error> {
    let Contents { run, samples, requests, .. } = contents;
    let mut figures = modelled::figures::of(run, &perf_rows(run, requests), &accuracy_rows(run, samples));
    figures.extend(workloads.figures(run));
    modelled::figures::csv(run, &figures)
}

impl Records {
    /// Reads a run, without its prompts.
    pub fn read(dir: &RunDir) -> Result<Self, RecordError> {
        let contents = Contents::read(dir)?;
        let encode = |e: csv::Error| RecordError::io("encode a table of", dir.path())(e.into());
        let modelled = contents.has_modelled_times();
        let workloads = Workloads::of(&contents);
        let mut tables = workloads.csv(&contents.run).map_err(encode)?;
        tables.retain(|table| !table.is_empty);
        tables.extend(errors(&contents, &workloads).map_err(encode)?);
        let tables = tables.into_iter();
        let tables = tables.map(|table| File { path: table.name.into(), bytes: table.bytes }).collect();
        let Contents { run, samples, requests, probes, loads: levels, audit, .. } = contents;
        let prompts = Vec::new();
        Ok(Self { run, samples, requests, probes, levels, tables, modelled, prompts, audit })
    }

    /// Reads what a format uses.
    pub fn read_for(export: &dyn Export, dir: &RunDir) -> Result<Self, RecordError> {
        let mut records = Self::read(dir)?;
        if export.prompt_fields().is_some() {
            records.prompts = dir.read_prompts(|_| true)?;
        }
        Ok(records)
    }

    /// File name stem for this run: its id, made safe as one path component, because `run.json` may be untrusted.
    pub fn file_stem(&self) -> String {
        modeltest::plain(&self.run.run_id)
    }

    /// Whether any time of the run is from a virtual clock.
    pub fn has_modelled_times(&self) -> bool {
        self.modelled || self.requests.iter().any(|request| request.clock == Clock::Modelled)
    }
}

#[cfg(test)]
mod tests;
