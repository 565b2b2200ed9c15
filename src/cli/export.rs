//! `glmbench export`: writes a run in the formats of other tools.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args as ClapArgs;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::record::{Audit, RunDir, RunRecord, Status, write_whole};
use crate::report::export::{self, EXPORTS, Export, Output, Records};

use super::runs::find_run;
use super::{Exit, say};

/// Write a run in another tool's format
///
/// A format that is one text goes to standard output. A format of several files goes into RUN/export/FORMAT, where existing files
/// are replaced. --out changes either. The export has what the run recorded. An unfinished run gives exit code 3, and a run whose
/// records are not what its plan says gives exit code 4.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  glmbench export 20261123T02 --format sql | sqlite3 runs.db\n  \
        glmbench export reports/20261123T021500Z-quickstart-cpu-5e1f22 --format modeltest --out /tmp/modeltest\n\n\
        `glmbench export --help` lists every field of every format.",
    after_long_help = long_help()
)]
pub struct Args {
    /// The run directory, or the beginning of its name in reports/
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// The format
    #[arg(long, value_name = "FORMAT", value_parser = formats())]
    format: &'static dyn Export,
    /// Folder for the files, created if missing; `-` is standard output
    #[arg(long, value_name = "DIR|-")]
    out: Option<PathBuf>,
}

/// Parses the name of a format.
fn formats() -> impl TypedValueParser<Value = &'static dyn Export> {
    let values = EXPORTS.map(|export| PossibleValue::new(export.name()).help(export.about()));
    PossibleValuesParser::new(values).try_map(|name| export::find(&name).ok_or("no such format"))
}

/// Returns the descriptions of the formats for `--help`. Formats with the same description share a section.
fn long_help() -> String {
    let mut sections: Vec<(Vec<&str>, String)> = Vec::new();
    for export in EXPORTS {
        let details = export.details();
        match sections.iter_mut().find(|(_, known)| *known == details) {
            Some((names, _)) => names.push(export.name()),
            None => sections.push((vec![export.name()], details)),
        }
    }
    let described = sections.iter().filter(|(_, details)| !details.is_empty());
    let texts = described.map(|(names, details)| format!("{}:\n\n{}", names.join(", "), details.trim_end()));
    texts.collect::<Vec<_>>().join("\n\n")
}

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let path = find_run(&args.run)?;
    let dir = RunDir::open(&path)?;
    let records = Records::read_for(args.format, &dir)?;
    let exit = say_faults(&records.run, &records.audit);
    if records.has_modelled_times() {
        say(
            "glmbench: the times of this run are MODELLED by a virtual clock, not measured; what is exported says so",
        );
    }
    match (args.format.output(), args.out.as_deref()) {
        (Output::Stream(write), None) => stream(&records, write)?,
        (Output::Stream(write), Some(out)) if out == Path::new("-") => stream(&records, write)?,
        (Output::Files(_), Some(out)) if out == Path::new("-") => {
            bail!(
                "--out -: {} is several files; expected a folder, or a format that is one text: {}",
                args.format.name(),
                streams().join(", ")
            )
        }
        (_, Some(folder)) => files(&records, args.format, folder)?,
        (Output::Files(_), None) => {
            files(&records, args.format, &path.join("export").join(args.format.name()))?;
        }
    }
    Ok(exit.into())
}

/// The names of the formats that are one text.
fn streams() -> Vec<&'static str> {
    let is_stream = |export: &&dyn Export| matches!(export.output(), Output::Stream(_));
    EXPORTS.into_iter().filter(is_stream).map(Export::name).collect()
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

/// Writes a text to standard output.
fn stream(records: &Records, write: fn(&Records, &mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    write(records, &mut out).and_then(|()| out.flush()).context("standard output")
}

/// Writes the files of a format below `folder`.
fn files(records: &Records, format: &dyn Export, folder: &Path) -> anyhow::Result<()> {
    if let Some(fields) = format.prompt_fields()
        && !records.samples.is_empty()
        && records.prompts.is_empty()
    {
        say(&format!("glmbench: the run kept no prompts (an older version made it): {fields} stay empty"));
    }
    let files = export::files(format, records)?;
    if files.is_empty() {
        bail!(
            "run {} has no records of the kind that {} holds, so there is nothing to export",
            records.run.run_id,
            format.name()
        );
    }
    files.iter().try_for_each(|file| write(&folder.join(&file.path), &file.bytes))
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
