//! The formats of a report page and of a comparison page, one file each.
//!
//! The terminal is none of them: only the command line prints, in the width that it finds.

mod html;
mod markdown;

use super::charts::Picture;
use super::compare::{Comparison, Judgement};
use super::table::Table;
use super::{ReportError, Summary};
use crate::language::Language;
use crate::record::write_whole;
use std::path::Path;

/// The formats, in the order of writing.
pub(super) const FORMATS: &[&dyn Format] = &[&markdown::Markdown, &html::Html];

/// What the page of a run shows.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunPage<'a> {
    pub(super) summary: &'a Summary,
    /// The tables that only a page with room for them shows.
    pub(super) details: &'a [Table],
    pub(super) pictures: &'a [Picture],
    pub(super) language: Language,
}

/// What the page of a comparison shows.
#[derive(Debug, Clone, Copy)]
pub(super) struct ComparisonPage<'a> {
    pub(super) comparison: &'a Comparison,
    pub(super) judgements: &'a [Judgement],
    pub(super) pictures: &'a [Picture],
}

/// A format of pages.
pub(super) trait Format: Sync {
    /// Name of the file in the run directory, or in the comparison's folder.
    fn file(&self) -> &'static str;

    /// Returns the page of a run.
    ///
    /// # Errors
    /// A template cannot be filled.
    fn run(&self, page: RunPage<'_>) -> Result<String, ReportError>;

    /// Returns the page of a comparison.
    ///
    /// # Errors
    /// A template cannot be filled.
    fn comparison(&self, page: ComparisonPage<'_>) -> Result<String, ReportError>;
}

/// Writes a page in each format.
///
/// # Errors
/// `make` fails, or a file cannot be written.
pub(super) fn write(
    formats: &[&dyn Format],
    folder: &Path,
    make: impl Fn(&dyn Format) -> Result<String, ReportError>,
) -> Result<(), ReportError> {
    for format in formats {
        write_whole(&folder.join(format.file()), make(*format)?.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{fixture, render};

    /// The smallest example of a format: the title alone. `docs/ADDING.md` points here.
    struct Toy;

    impl Format for Toy {
        fn file(&self) -> &'static str {
            "toy.txt"
        }

        fn run(&self, page: RunPage<'_>) -> Result<String, ReportError> {
            Ok(format!("{}\n{} tables\n", page.summary.title(), page.summary.tables.len()))
        }

        fn comparison(&self, page: ComparisonPage<'_>) -> Result<String, ReportError> {
            Ok(format!("{} runs\n", page.comparison.sides.len()))
        }
    }

    #[test]
    fn a_format_is_written_beside_the_others() {
        let root = tempfile::tempdir().unwrap();
        let dir = fixture::write(root.path(), &fixture::realistic());
        let summary = render(dir.path(), Language::En).unwrap();
        let page = RunPage { summary: &summary, details: &[], pictures: &[], language: Language::En };
        write(&[&Toy], dir.path(), |format| format.run(page)).unwrap();
        let expected = format!("{}\n{} tables\n", summary.title(), summary.tables.len());
        assert_eq!(std::fs::read_to_string(dir.file("toy.txt")).unwrap(), expected);
        let error = write(&[&Toy], Path::new("nowhere"), |format| format.run(page)).unwrap_err().to_string();
        assert!(error.contains("nowhere/toy.txt"), "{error}");
    }

    #[test]
    fn every_format_has_a_file_of_its_own() {
        let mut names: Vec<&str> = FORMATS.iter().map(|format| format.file()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FORMATS.len());
    }
}
