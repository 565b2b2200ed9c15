//! A run in the formats of other tools. Each is a function from the records alone to bytes; the command line writes them.
//!
//! - `jsonl`: [`fields`] of runs, samples and repetitions, one object a line.
//! - `sql`: the same as text for `sqlite3`.
//! - `csv`: the same as two tables, and the rows of max-batch searches and loads.
//! - `modeltest`: the files of the newer MindIE ModelTest; what differs is said in [`MODELTEST_ABOUT`].

pub mod fields;
mod lines;
mod modeltest;
mod python;
mod sql;
mod tidy;

use crate::record::{
    Audit, Clock, Contents, LoadLevelRecord, LoadRow, ProbeRecord, ProbeRow, PromptRecord, RecordError,
    RequestRecord, RunDir, RunRecord, SampleRecord, csv_table,
};
use crate::report::{load_rows, probe_rows};
use std::io::{self, Write};

pub use modeltest::{ABOUT as MODELTEST_ABOUT, files as modeltest_files};

/// Where a stream of text goes.
type Sink<'a> = &'a mut dyn Write;

/// All of a run that is exported.
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
    /// What is wrong about them.
    pub audit: Audit,
}

/// A file of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path below the folder that is exported to, with `/`.
    pub path: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

impl Records {
    /// Reads a run.
    pub fn read(dir: &RunDir) -> Result<Self, RecordError> {
        let Contents { run, samples, requests, probes, loads: levels, audit } = Contents::read(dir)?;
        Ok(Self { run, samples, requests, probes, levels, audit })
    }

    /// What a file of this run is named by: its id, as one plain part of a path whatever a stranger's `run.json` has there.
    pub fn file_stem(&self) -> String {
        modeltest::plain(&self.run.run_id)
    }

    /// Whether a time of the run is from a virtual clock.
    pub fn has_modelled_times(&self) -> bool {
        let timed = self.requests.iter().map(|request| request.clock);
        let searched = self.probes.iter().map(|probe| probe.clock);
        let loaded = self.levels.iter().map(|level| level.clock);
        timed.chain(searched).chain(loaded).any(|clock| clock == Clock::Modelled)
    }

    /// JSON lines, see [`fields`].
    pub fn write_jsonl(&self, to: &mut dyn Write) -> io::Result<()> {
        lines::write(self, to)
    }

    /// SQL for sqlite3, see [`fields`].
    pub fn write_sql(&self, to: &mut dyn Write) -> io::Result<()> {
        sql::write(self, to)
    }

    /// `samples.csv` and `requests.csv`, see [`fields`], and the run's own `max_batch.csv` and `load.csv`; each where the run has
    /// such rows.
    pub fn csv_files(&self) -> Result<Vec<File>, csv::Error> {
        let mut files = Vec::new();
        if !self.samples.is_empty() {
            files.push(File { path: "samples.csv".into(), bytes: tidy::samples(self)? });
        }
        if !self.requests.is_empty() {
            files.push(File { path: "requests.csv".into(), bytes: tidy::requests(self)? });
        }
        if !self.probes.is_empty() {
            let rows = probe_rows(&self.run, &self.probes);
            files.push(File { path: "max_batch.csv".into(), bytes: csv_table(ProbeRow::HEADER, &rows)? });
        }
        if !self.levels.is_empty() {
            let rows = load_rows(&self.run, &self.levels);
            files.push(File { path: "load.csv".into(), bytes: csv_table(LoadRow::HEADER, &rows)? });
        }
        Ok(files)
    }
}

/// The prompts by item, for a sample in turn.
type Prompts<'a> = std::collections::HashMap<(&'a str, &'a str), &'a PromptRecord>;

#[cfg(test)]
mod tests;
