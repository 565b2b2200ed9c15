//! Exports a run in the formats of other tools. Each format is a function from the records to bytes; the command line
//! writes them.
//!
//! - `jsonl`: [`fields`] of runs, samples and repetitions, one object per line.
//! - `sql`: the same as text for `sqlite3`.
//! - `csv`: the same as two tables, and the rows of max-batch searches and loads.
//! - `modeltest`: the files of the newer MindIE ModelTest. [`MODELTEST_ABOUT`] names the differences.

pub mod fields;
mod lines;
mod modeltest;
mod python;
mod sql;
mod tidy;

use crate::record::{
    Audit, Clock, Contents, LoadLevelRecord, ProbeRecord, PromptRecord, RecordError, RequestRecord, RunDir,
    RunRecord, SampleRecord,
};
use crate::report::workloads::Workloads;
use std::io::{self, Write};

pub use modeltest::{ABOUT as MODELTEST_ABOUT, files as modeltest_files};

/// Destination of a text stream.
type Sink<'a> = &'a mut dyn Write;

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

impl Records {
    /// Reads a run.
    pub fn read(dir: &RunDir) -> Result<Self, RecordError> {
        let contents = Contents::read(dir)?;
        let encode = |e: csv::Error| RecordError::io("encode a table of", dir.path())(e.into());
        let modelled = contents.has_modelled_times();
        let tables = Workloads::of(&contents).csv(&contents.run).map_err(encode)?;
        let tables = tables.into_iter().filter(|table| !table.is_empty);
        let tables = tables.map(|table| File { path: table.name.into(), bytes: table.bytes }).collect();
        let Contents { run, samples, requests, probes, loads: levels, audit, .. } = contents;
        Ok(Self { run, samples, requests, probes, levels, tables, modelled, audit })
    }

    /// File name stem for this run: its id, made safe as one path component, because `run.json` may be untrusted.
    pub fn file_stem(&self) -> String {
        modeltest::plain(&self.run.run_id)
    }

    /// Whether any time of the run is from a virtual clock.
    pub fn has_modelled_times(&self) -> bool {
        self.modelled || self.requests.iter().any(|request| request.clock == Clock::Modelled)
    }

    /// Writes JSON lines, see [`fields`].
    pub fn write_jsonl(&self, to: &mut dyn Write) -> io::Result<()> {
        lines::write(self, to)
    }

    /// Writes SQL for sqlite3, see [`fields`].
    pub fn write_sql(&self, to: &mut dyn Write) -> io::Result<()> {
        sql::write(self, to)
    }

    /// Returns `samples.csv` and `requests.csv`, see [`fields`], and the run's own `max_batch.csv` and `load.csv`.
    /// Omits files without rows.
    pub fn csv_files(&self) -> Result<Vec<File>, csv::Error> {
        let mut files = Vec::new();
        if !self.samples.is_empty() {
            files.push(File { path: "samples.csv".into(), bytes: tidy::samples(self)? });
        }
        if !self.requests.is_empty() {
            files.push(File { path: "requests.csv".into(), bytes: tidy::requests(self)? });
        }
        files.extend(self.tables.iter().cloned());
        Ok(files)
    }
}

/// The prompts by task and item.
type Prompts<'a> = std::collections::HashMap<(&'a str, &'a str), &'a PromptRecord>;

#[cfg(test)]
mod tests;
