//! `glmbench export`: writes a run in the formats of other tools.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args as ClapArgs, ValueEnum};

use crate::record::{Audit, RunDir, RunRecord, Status, write_whole};
use crate::report::export::fields::{Field, Kind, REQUEST, RUN, SAMPLE};
use crate::report::export::{File, MODELTEST_ABOUT, Records, modeltest_files};

use super::runs::find_run;
use super::{Exit, say};

/// Write a run in another tool's format
///
/// jsonl and sql go to standard output, modeltest and csv into RUN/export/FORMAT, unless --out says otherwise. Files that are
/// there are replaced. Only what the run recorded is exported: of an unfinished run what it has so far, with exit code 3; of a run
/// whose records are not what its plan says what can be read, with exit code 4.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  glmbench export 20261123T02 --format sql | sqlite3 runs.db\n  \
        glmbench export reports/20261123T021500Z-quickstart-cpu-5e1f22 --format modeltest --out /tmp/modeltest\n\n\
        `glmbench export --help` has every field of every format.",
    after_long_help = long_help()
)]
pub struct Args {
    /// The run directory, or the beginning of its name in reports/
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// The format
    #[arg(long, value_name = "FORMAT")]
    format: Format,
    /// Folder to write into, made where it is missing; `-` is standard output
    #[arg(long, value_name = "DIR|-")]
    out: Option<PathBuf>,
}

/// The formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Files of the newer MindIE ModelTest: result CSV, its formatted copy, debug CSV
    Modeltest,
    /// One flat, self-contained JSON object a sample and a repetition
    Jsonl,
    /// SQL text for sqlite3: tables runs, samples, requests
    Sql,
    /// samples.csv and requests.csv, max_batch.csv of searches and load.csv of loads (accuracy.csv and perf.csv are in the run already)
    Csv,
}

/// Returns the description of the formats for `--help`.
fn long_help() -> String {
    let mut text = String::from("jsonl, sql and csv have the same fields:\n");
    for (title, fields) in [
        ("Of the run (in jsonl and csv on every line; in sql the table runs)", &RUN[..]),
        ("Of a sample (sql: table samples, key run_id, task, doc_id)", &SAMPLE),
        ("Of a repetition (sql: table requests, key run_id, case_id, kind, repetition)", &REQUEST),
    ] {
        text += &format!("\n{title}\n");
        text.extend(fields.iter().map(described));
    }
    text += "\nA jsonl line begins with \"line\": \"sample\" or \"request\". Lists are JSON arrays, in sql and csv as text. A value that \
             cannot be had is null, in csv an empty cell. A text that a spreadsheet would take for a formula (it begins with =, +, \
             -, @, a tab or a carriage return) has an apostrophe in front in csv; in the other formats it is as it was.\n\nmodeltest:\n";
    text + MODELTEST_ABOUT.trim_end()
}

fn described(field: &Field) -> String {
    let kind = match field.kind {
        Kind::Integer => "integer",
        Kind::Real => "real",
        Kind::Text => "text",
        Kind::Boolean => "boolean",
        Kind::List => "list",
    };
    format!("  {:<16} {kind:<8} {}\n", field.name, field.about)
}

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let path = find_run(&args.run)?;
    let dir = RunDir::open(&path)?;
    let records = Records::read(&dir)?;
    let exit = say_faults(&records.run, &records.audit);
    let to_stdout = match &args.out {
        Some(out) => out == Path::new("-"),
        None => matches!(args.format, Format::Jsonl | Format::Sql),
    };
    if records.has_modelled_times() {
        say(
            "glmbench: the times of this run are MODELLED by a virtual clock, not measured; what is exported says so",
        );
    }
    if to_stdout {
        stream(&records, args.format)?;
        return Ok(exit.into());
    }
    let files = files(&records, &dir, args.format)?;
    if files.is_empty() {
        bail!(
            "run {} has no samples, repetitions, probes or levels yet; there is nothing to export",
            records.run.run_id
        );
    }
    let folder = match &args.out {
        Some(folder) => folder.clone(),
        None => path.join("export").join(if args.format == Format::Csv { "csv" } else { "modeltest" }),
    };
    for file in &files {
        write(&folder.join(&file.path), &file.bytes)?;
    }
    Ok(exit.into())
}

/// Reports faulty or incomplete records. Returns 4 or 3 for them, which is the exit code of whatever uses them.
pub(super) fn say_faults(run: &RunRecord, audit: &Audit) -> Exit {
    if let Some(faults) = audit.words() {
        say(&format!("glmbench: run {} is INVALID: not what the plan says: {faults}", run.run_id));
        return Exit::Invalid;
    }
    if run.status != Status::Complete {
        say(&format!("glmbench: run {} is INCOMPLETE: this is what it has so far", run.run_id));
        return Exit::Incomplete;
    }
    Exit::Done
}

/// Writes a format as one stream to standard output.
fn stream(records: &Records, format: Format) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    match format {
        Format::Jsonl => records.write_jsonl(&mut out),
        Format::Sql => records.write_sql(&mut out),
        Format::Modeltest | Format::Csv => {
            bail!("--out -: this format is several files; give a folder (jsonl and sql are one stream)")
        }
    }
    .and_then(|()| out.flush())
    .context("standard output")
}

/// Returns the files of a format.
fn files(records: &Records, dir: &RunDir, format: Format) -> anyhow::Result<Vec<File>> {
    let whole = |end: &str, write: &dyn Fn(&mut Vec<u8>) -> io::Result<()>| -> anyhow::Result<Vec<File>> {
        let mut bytes = Vec::new();
        write(&mut bytes)?;
        Ok(vec![File { path: format!("{}.{end}", records.file_stem()), bytes }])
    };
    match format {
        Format::Jsonl => whole("jsonl", &|bytes| records.write_jsonl(bytes)),
        Format::Sql => whole("sql", &|bytes| records.write_sql(bytes)),
        Format::Csv => Ok(records.csv_files()?),
        Format::Modeltest => {
            let prompts = dir.read_prompts(|_| true)?;
            if !records.samples.is_empty() && prompts.is_empty() {
                say(
                    "glmbench: the run kept no prompts (an older version made it): queries and input_token_ids stay empty",
                );
            }
            Ok(modeltest_files(records, &prompts)?)
        }
    }
}

/// Writes one file, creating its parent folders, and prints its path.
fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    write_whole(path, bytes)?;
    say(&format!("written: {}", path.display()));
    Ok(())
}
