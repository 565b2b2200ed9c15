//! `glmbench report RUN`: renders a run's summaries, charts and page again from its records.

use crate::cli::gates::{deciding, exit, gate_sentence, write_junit};
use crate::cli::runs::find_run;
use crate::cli::settings::LanguageArgs;
use crate::cli::tables::titled;
use crate::cli::{Exit, emit, say};
use crate::gate::{decision, judge_run, relative_limits};
use crate::language::{Language, Text, text};
use crate::record::{Contents, RunDir};
use crate::report::compare::gate_table;
use crate::report::{Summary, Verdict, render};
use crate::suite::gates::Gates;
use crate::text::one_line;
use anyhow::Result;
use comfy_table::{ContentArrangement, LineStyle, presets};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Flags of `report`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run directory, such as `reports/20261123T021500Z-quickstart-cpu-5e1f22`, or the beginning of its name
    pub run: PathBuf,
    /// File of limits that the run must meet. Limits against another run need `compare`
    #[arg(long, value_name = "GATES.toml")]
    gate: Option<PathBuf>,
    /// Write the gates' outcomes as JUnit XML
    #[arg(long, value_name = "FILE", requires = "gate")]
    junit: Option<PathBuf>,
    /// The language
    #[command(flatten)]
    language: LanguageArgs,
}

/// Renders the report of a run and prints its tables. Returns 0 for a valid run, 1 if it exceeds a limit, and 3 if it is
/// incomplete. Returns 4 if the run is invalid or its gates are undecided.
pub fn run(args: &Args) -> Result<ExitCode> {
    let gates = args.gate.as_deref().map(Gates::load).transpose()?;
    let run = find_run(&args.run)?;
    let LanguageArgs { language } = args.language;
    let summary = render(&run, language)?;
    show(&summary, &run, language)?;
    let Some(gates) = gates else { return Ok(exit_code(summary.verdict()).into()) };
    let judgements = judge_run(&gates, &summary, &Contents::read(&RunDir::open(&run)?)?.requests)?;
    let relative = relative_limits(&gates);
    if relative > 0 {
        say(&format!(
            "glmbench: limits of {} against another run: {relative}. `glmbench compare` judges them",
            gates.path.display()
        ));
    }
    if let Some(path) = &args.junit {
        write_junit(path, &gates, &judgements)?;
    }
    let sentence = gate_sentence(&judgements).in_language(language);
    let mut words = format!("\n{}\n{sentence}", titled(&gate_table(&judgements), language));
    deciding(&judgements, language).iter().for_each(|line| words += &format!("\n{line}"));
    match emit(&words) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(e.into()),
        _ => {}
    }
    Ok(exit(decision(&gates, &judgements), summary.verdict()).into())
}

/// Prints a run's summary, its tables and its headline to standard output, and the path of the page to standard error. The
/// summary stands first and, whole, last, where a terminal's reader looks. A closed standard output does not affect the run, so
/// it is no error.
pub fn show(summary: &Summary, run_dir: &Path, language: Language) -> io::Result<()> {
    let say_line = |text: &Text| one_line(&text.in_language(language)).into_owned();
    let title = text!("{run}: {verdict}", run = summary.title(), verdict = summary.short_verdict());
    let title = std::iter::once(format!("{}\n", say_line(&title)));
    let tables = summary.tables.iter().map(|table| format!("{}\n", titled(table, language)));
    let sentences = summary.headline.iter().cloned().chain([summary.verdict_sentence()]);
    let words = title.chain(tables).chain(sentences.map(|sentence| say_line(&sentence)));
    match emit(&words.collect::<Vec<_>>().join("\n")) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(e),
        _ => {}
    }
    if let Some(faults) = summary.record_faults() {
        say(&format!("glmbench: run {} is {faults}", summary.run.run_id));
    }
    say(&format!("report: {}", run_dir.join("report.html").display()));
    Ok(())
}

/// Returns the exit code for a verdict.
pub fn exit_code(verdict: Verdict) -> Exit {
    match verdict {
        Verdict::Valid => Exit::Done,
        Verdict::Incomplete => Exit::Incomplete,
        Verdict::Invalid => Exit::Invalid,
    }
}

/// Formats rows of text in columns below `heads`. Without heads, there is no heading line.
pub(super) fn drawn_columns(heads: &[String], rows: &[Vec<String>]) -> String {
    let mut drawn = comfy_table::Table::new();
    let rule = LineStyle::none().fill('─').junction('─');
    drawn.load_style(presets::NOTHING.header_separator(rule));
    drawn.set_content_arrangement(ContentArrangement::Disabled);
    if !heads.is_empty() {
        drawn.set_header(heads.iter().map(|head| one_line(head)));
    }
    for row in rows {
        drawn.add_row(row.iter().map(|cell| one_line(cell)));
    }
    drawn.to_string()
}
