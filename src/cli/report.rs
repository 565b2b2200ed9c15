//! `glmbench report RUN`: makes a run's summaries, charts and page again from its records.

use crate::cli::runs::find_run;
use crate::cli::{Exit, emit, say};
use crate::report::{Summary, Table, Verdict, render};
use anyhow::Result;
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, presets};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What `report` is told.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run directory, as `reports/20261123T021500Z-quickstart-cpu-5e1f22`, or the beginning of its name
    pub run: PathBuf,
}

/// Renders the report of a run, prints its tables, and answers 0 for a valid run, 3 for an unfinished one, 4 for one
/// whose figures must not be used.
pub fn run(args: &Args) -> Result<ExitCode> {
    let run = find_run(&args.run)?;
    let summary = render(&run)?;
    show(&summary, &run)?;
    Ok(exit_code(summary.verdict()).into())
}

/// Prints a run's tables and headline on standard output, and where the rest is on standard error. A reader that goes away
/// changes nothing about the run, so it is no error here.
pub fn show(summary: &Summary, run_dir: &Path) -> io::Result<()> {
    let tables = summary.tables.iter().map(|table| format!("{}\n{}\n", table.title, drawn(table)));
    let words = tables.chain(summary.headline.iter().cloned()).chain([summary.verdict_sentence()]);
    match emit(&words.collect::<Vec<_>>().join("\n")) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(e),
        _ => {}
    }
    say(&format!("report: {}", run_dir.join("report.html").display()));
    Ok(())
}

/// The exit code of a run of this verdict.
pub fn exit_code(verdict: Verdict) -> Exit {
    match verdict {
        Verdict::Valid => Exit::Done,
        Verdict::Incomplete => Exit::Incomplete,
        Verdict::Invalid => Exit::Invalid,
    }
}

/// A table as it is printed.
pub(super) fn drawn(table: &Table) -> String {
    let mut drawn = comfy_table::Table::new();
    let rule = LineStyle::none().fill('─').junction('─');
    drawn.load_style(presets::NOTHING.header_separator(rule));
    drawn.set_content_arrangement(ContentArrangement::Disabled);
    drawn.set_header(table.columns.iter().map(|column| column.name));
    for row in &table.rows {
        drawn.add_row(row.cells.iter().map(String::as_str));
    }
    for (drawn, column) in drawn.column_iter_mut().zip(&table.columns) {
        drawn.set_cell_alignment(if column.numeric { CellAlignment::Right } else { CellAlignment::Left });
    }
    drawn.to_string()
}

/// Rows of text below `heads`, column by column; no line of heads where there are none.
pub(super) fn drawn_columns(heads: &[String], rows: &[Vec<String>]) -> String {
    let mut drawn = comfy_table::Table::new();
    let rule = LineStyle::none().fill('─').junction('─');
    drawn.load_style(presets::NOTHING.header_separator(rule));
    drawn.set_content_arrangement(ContentArrangement::Disabled);
    if !heads.is_empty() {
        drawn.set_header(heads);
    }
    for row in rows {
        drawn.add_row(row);
    }
    drawn.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tables::{Column, Row};

    #[test]
    fn numbers_stand_flush_right_also_beside_wide_letters() {
        let row = |name: &str, number: &str| Row { cells: vec![name.into(), number.into()], strong: false };
        let table = Table {
            title: "t".into(),
            columns: vec![Column { name: "Task", numeric: false }, Column { name: "Items", numeric: true }],
            rows: vec![row("物理", "7"), row("law", "1346")],
        };
        let text = drawn(&table);
        let lines: Vec<&str> = text.lines().filter(|line| line.contains(char::is_alphanumeric)).collect();
        assert_eq!(lines, [" Task   Items ", " 物理       7 ", " law     1346 "]);
    }
}
