//! Writes a comparison: `comparison.csv`, `flips.csv`, charts, `report.html`, `summary.md`.

use super::check::Verdict;
use super::compare::{
    Comparison, ComparisonRow, Judgement, Options, Side, charts, compare, files, headline, page, tables,
};
use super::error::ReportError;
use super::formats::{self, ComparisonPage, FORMATS};
use super::table::Table;
use super::table_files;
use crate::language::Text;
use std::path::{Path, PathBuf};

/// Summary of a comparison, for the terminal and for callers.
#[derive(Debug, Clone)]
pub struct ComparisonSummary {
    /// Where its files are.
    pub folder: PathBuf,
    /// The findings, one sentence each.
    pub headline: Vec<Text>,
    /// The tables to print.
    pub tables: Vec<Table>,
    /// The rows of `comparison.csv`.
    pub rows: Vec<ComparisonRow>,
    /// Differing identity fields, one line each. Empty if the runs have the same identity.
    pub mismatches: Vec<Text>,
    /// The worst verdict of any run.
    pub verdict: Verdict,
    /// The change of a measured time that counts as one, formatted.
    pub threshold: String,
}

/// Writes the comparison's files into `folder`, creating it if needed.
pub fn write_comparison(
    comparison: &Comparison,
    judgements: &[Judgement],
    folder: &Path,
) -> Result<ComparisonSummary, ReportError> {
    files::make_folder(folder)?;
    let rows = files::comparison_rows(comparison);
    files::write_csv(&folder.join("comparison.csv"), &rows)?;
    files::write_csv(&folder.join("flips.csv"), &files::flip_rows(comparison))?;
    let pictures = charts::draw_comparison(folder, comparison)?;
    table_files::write(folder, &page::tables(comparison, judgements))?;
    let page = ComparisonPage { comparison, judgements, pictures: &pictures };
    formats::write(FORMATS, folder, |format| format.comparison(page))?;
    Ok(ComparisonSummary {
        folder: folder.to_owned(),
        headline: headline::sentences(comparison),
        tables: tables::main_tables(comparison, judgements),
        rows,
        mismatches: comparison.mismatches(),
        verdict: comparison.verdict(),
        threshold: comparison.options.threshold_words(),
    })
}

/// Runs [`compare`], then [`write_comparison`] without gates. Commands that make several runs end with it.
pub fn render_comparison(paths: &[PathBuf], options: &Options) -> Result<ComparisonSummary, ReportError> {
    let comparison = compare(paths, options)?;
    let beside = || {
        let root = comparison.base().path.parent().unwrap_or(Path::new(""));
        root.join(folder_name(std::time::SystemTime::now(), &comparison))
    };
    let folder = options.out.clone().unwrap_or_else(beside);
    write_comparison(&comparison, &[], &folder)
}

/// Folder name of a comparison: the time, and how the names of the first two runs end.
pub fn folder_name(now: std::time::SystemTime, comparison: &Comparison) -> String {
    let end = |side: &Side| {
        // Drop the run's own time at the front, since the folder name starts with a time.
        side.run().run_id.split_once('-').map_or(side.run().run_id.clone(), |(_, rest)| rest.to_owned())
    };
    let names: Vec<String> = comparison.sides.iter().take(2).map(end).collect();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = names.join("-").chars().map(plain).collect();
    format!("{}-compare-{name}", crate::record::compact_utc(now))
}
