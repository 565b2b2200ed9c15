//! The history of a folder of runs: one page over all of them, its tables as CSV, and a cache.
//!
//! ```text
//! reports/
//!   index.html            the page
//!   index/lines.csv       a line and its verdicts                  points.csv   every value
//!   index/changes.csv     where levels changed                     runs.csv     every folder, with its standing
//!   index/cache.jsonl     what was read of each run
//! ```
//!
//! `figures` is what is needed of a run. `found` reads it, with the help of `cache`. `lines` joins the values of one thing over
//! runs, and `judged` compares the last run with others. `files` writes the tables, and `page` and `picture` make the page.

mod cache;
mod figures;
mod files;
mod filters;
mod found;
mod judged;
mod lines;
mod page;
mod picture;
#[cfg(test)]
mod tests;
mod words;

pub use found::Reads;

use super::followed::Figure;
use super::{ReportError, Summary, Table};
use crate::language::Language;
use crate::record::{RecordError, RunDir, SampleRecord, read_whole, write_whole};
use figures::RunFigures;
use files::{Tables, changes, line_id};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of the page, and of the folder with its tables.
const PAGE: &str = "index.html";
const BESIDE: &str = "index";
/// How a page of this program begins. Another file of its name is not replaced.
const MARK: &str = "<!DOCTYPE html>\n<!-- glmbench index -->";

/// A history for the terminal.
#[derive(Debug, Clone)]
pub struct History {
    /// The page.
    pub page: PathBuf,
    /// The findings, one sentence each.
    pub headline: Vec<String>,
    /// The lines with their verdicts. Emphasised rows are better or worse than before.
    pub lines: Table,
    /// Where the runs were read from.
    pub reads: Reads,
    /// Folders that cannot be read, with the reason.
    pub broken: Vec<(String, String)>,
}

/// Writes what a history needs of a run into its directory.
pub(super) fn keep(
    dir: &RunDir,
    summary: &Summary,
    samples: &[SampleRecord],
    timed: Vec<Figure>,
) -> Result<(), ReportError> {
    let run_json = read_whole(&dir.file("run.json"), found::MAX_RUN_BYTES)?;
    let figures = RunFigures::of(dir, &run_json, summary, samples, timed);
    let path = dir.file(figures::FILE);
    let bytes = serde_json::to_vec(&figures).map_err(|e| RecordError::io("encode", &path)(e.into()))?;
    Ok(write_whole(&path, &bytes)?)
}

/// Reads all runs of a folder and writes their history into it. The page is in `language`; the CSV files are English.
///
/// # Errors
/// The folder cannot be read or written, or has another `index.html`. A run that cannot be read is no error.
pub fn index(root: &Path, language: Language) -> Result<History, ReportError> {
    let page_path = root.join(PAGE);
    refuse_another(&page_path)?;
    let beside = root.join(BESIDE);
    let cache_path = cache::path(&beside);
    let cached = cache::read(&cache_path);
    let kept = cached.len();
    let (known, reads) = found::read(root, cached)?;
    std::fs::create_dir_all(&beside).map_err(RecordError::io("create", &beside))?;
    if reads.cached < known.len() || kept != known.len() {
        let all: BTreeMap<String, &cache::Known> =
            known.iter().map(|known| (known.folder.clone(), known)).collect();
        cache::write(&cache_path, &all)?;
    }
    let (runs, left_out) = lines::sorted(&known);
    let lines = lines::lines(&runs);
    let judged = judged::judged(&lines);
    let changes = changes(&lines, &runs);
    let ids: Vec<String> = lines.iter().map(line_id).collect();
    let tables = Tables {
        runs: &runs,
        left_out: &left_out,
        lines: &lines,
        judged: &judged,
        changes: &changes,
        ids: &ids,
    };
    tables.write(&beside)?;
    let filled = page::Page::of(tables, language).fill(&name_of(root), BESIDE)?;
    write_whole(&page_path, filled.html.as_bytes())?;
    let broken = left_out.iter().filter(|left| left.standing == "broken");
    Ok(History {
        page: page_path,
        headline: filled.headline,
        lines: words::terminal(tables),
        reads,
        broken: broken.map(|left| (left.folder.to_owned(), left.why.clone())).collect(),
    })
}

/// Refuses to replace a page that this program did not make.
fn refuse_another(path: &Path) -> Result<(), ReportError> {
    use std::io::Read;
    let Ok(file) = std::fs::File::open(path) else { return Ok(()) };
    let mut begin = Vec::new();
    let is_ours = file.take(MARK.len() as u64).read_to_end(&mut begin).is_ok() && begin == MARK.as_bytes();
    if is_ours {
        return Ok(());
    }
    let message = "found a page that is not of `glmbench index`; move it away, or index another folder";
    let other = std::io::Error::new(std::io::ErrorKind::AlreadyExists, message);
    Err(RecordError::io("replace", path)(other).into())
}

/// The folder's name, also of `.`.
fn name_of(root: &Path) -> String {
    let whole = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    whole.file_name().map_or_else(|| root.display().to_string(), |name| name.to_string_lossy().into_owned())
}
