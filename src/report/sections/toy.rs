//! The smallest example of a section, for tests only: how long prompts are. It has a table, a file of rows, a chart and a
//! definition. `docs/ADDING.md` points here.

use super::{Chart, Csv, Definition, Material, Section, Table};
use crate::record::RunRecord;
use crate::report::charts::ToyChart;
use serde::Serialize;

/// Runs of a suite with this name have the section.
const SUITE: &str = "toy-section";

pub(super) struct Toy;

/// A row of `toy-prompts.csv`.
#[derive(Serialize)]
struct Row<'a> {
    case_id: &'a str,
    input_tokens: u32,
}

impl Toy {
    fn rows<'a>(of: &Material<'a>) -> Vec<Row<'a>> {
        let cases = of.run().plan.performance.iter().filter(|_| of.run().provenance.suite == SUITE);
        cases.map(|case| Row { case_id: &case.case_id, input_tokens: case.input_tokens }).collect()
    }
}

impl Section for Toy {
    fn tables(&self, of: Material<'_>) -> Vec<Table> {
        let mut table = Table::new("Prompts".into(), &["Case".into()], &["Tokens".into()]);
        for row in Self::rows(&of) {
            table.push(false, vec![row.case_id.to_owned(), row.input_tokens.to_string()]);
        }
        vec![table]
    }

    fn csv(&self, of: Material<'_>) -> Result<Option<Csv>, csv::Error> {
        let rows = Self::rows(&of);
        if rows.is_empty() {
            return Ok(None);
        }
        Csv::of("toy-prompts.csv", "case_id,input_tokens", &rows).map(Some)
    }

    fn charts(&self, of: Material<'_>) -> Vec<(String, Chart)> {
        let rows = Self::rows(&of);
        let longest = rows.iter().map(|row| row.input_tokens).max();
        longest
            .map(|longest| ("toy-prompts".to_owned(), Chart::Toy(ToyChart { longest })))
            .into_iter()
            .collect()
    }

    fn definitions(&self, run: &RunRecord) -> Vec<Definition> {
        let shown = run.provenance.suite == SUITE;
        shown
            .then(|| ("Prompts".into(), "input tokens of one sequence of a case".into()))
            .into_iter()
            .collect()
    }
}

/// The walk of a section: to the terminal's tables, the page, the Markdown summary, the CSV file, and the chart.
mod tests {
    use super::SUITE;
    use crate::language::Language;
    use crate::report::{fixture, render};
    use std::fs;

    #[test]
    fn the_section_is_shown_wherever_sections_are() {
        let root = tempfile::tempdir().unwrap();
        let mut records = fixture::realistic();
        records.run.provenance.suite = SUITE.to_owned();
        let case = records.run.plan.performance[0].clone();
        let dir = fixture::write(root.path(), &records);
        let summary = render(dir.path(), Language::En).unwrap();
        let table = summary.tables.last().unwrap();
        assert_eq!(
            (table.title.to_string().as_str(), table.rows.len()),
            ("Prompts", records.run.plan.performance.len())
        );
        let text = |name: &str| fs::read_to_string(dir.file(name)).unwrap();
        let first = format!("case_id,input_tokens\n{},{}\n", case.case_id, case.input_tokens);
        assert!(text("toy-prompts.csv").starts_with(&first), "{}", text("toy-prompts.csv"));
        for page in ["report.html", "summary.md"] {
            assert!(text(page).contains("input tokens of one sequence of a case"), "{page}");
        }
        assert!(text("report.html").contains("The longest prompt"));
        assert!(text("charts/toy-prompts.svg").contains("<rect"));
        assert!(fs::read(dir.file("charts/toy-prompts.png")).unwrap().starts_with(b"\x89PNG"));
    }

    #[test]
    fn a_report_without_it_shows_nothing_of_it() {
        let root = tempfile::tempdir().unwrap();
        let dir = fixture::write(root.path(), &fixture::realistic());
        render(dir.path(), Language::En).unwrap();
        assert!(!dir.file("toy-prompts.csv").exists());
        assert!(!fs::read_to_string(dir.file("summary.md")).unwrap().contains("Prompts"));
    }
}
