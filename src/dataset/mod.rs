//! Reads the official on-disk formats into [`Item`]s: readers, the catalogue, preparation of original archives.
//!
//! A [`Benchmark`] is a value: its splits, chance level, categories, and the [`Layout`]s of its releases with their
//! readers. [`Benchmark::all`] lists them. A data set is a folder in one of the layouts. [`Source::open`] recognises the
//! layout, and [`Source::read`] reads one split. Every row is either read or reported in the error with file and line;
//! no row is dropped silently.

mod answer;
mod benchmark;
mod boolq;
pub mod catalogue;
mod ceval;
mod content;
mod csv;
mod error;
pub(crate) mod file;
mod jsonl;
pub mod parquet;
pub mod prepare;
mod questions;
mod text;
#[cfg(test)]
mod toy;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use answer::{Answer, Number};
pub use benchmark::{Benchmark, Layout, ModelTestFiles, ModelTestRows, SupportFile, TimingPrompt};
pub use boolq::BOOLQ;
pub use ceval::{CEVAL, HARD_SUBJECTS, OFFICIAL_SUBJECTS, OfficialSubject, mapping_json};
pub use content::{Choice, ChoiceText, Content, Fields, YesNo};
pub use error::{DatasetError, Problem, Problems};
pub use file::{TaskFile, recorded};
pub use jsonl::read_jsonl;
pub use questions::read_questions;
pub use text::sha256_hex;
#[cfg(test)]
pub(crate) use toy::TOY_SUMS;

/// The benchmarks that are code. A new one is its module and a line here. Those of the task files follow
/// ([`mod@file`]).
static BENCHMARKS: &[&Benchmark] = &[
    &ceval::CEVAL,
    &boolq::BOOLQ,
    #[cfg(test)]
    &toy::TOY_SUMS,
];

fn registry() -> &'static [&'static Benchmark] {
    static ALL: OnceLock<Vec<&'static Benchmark>> = OnceLock::new();
    ALL.get_or_init(|| BENCHMARKS.iter().chain(file::built_in()).copied().collect())
}

/// One subject of a set. BoolQ has only one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Name used in file names and tables, such as `law`.
    pub key: String,
    /// The Chinese name, if the set or the official table has one.
    pub chinese_name: Option<String>,
    /// The category, one of [`Benchmark::categories`], if the set has categories.
    pub category: Option<String>,
    /// Whether it belongs to the part of the set that cuts across categories ([`Benchmark::part`]), such as "C-Eval Hard".
    pub hard: bool,
}

/// One question.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Stable id: `ceval/val/law/17`, `boolq/dev/12` (BoolQ counts lines from 0).
    pub doc_id: String,
    /// SHA-256 of the canonical content. The same question has the same hash in every layout.
    pub doc_hash: String,
    /// Key of its [`Subject`].
    pub subject: String,
    /// The question itself, with its answer.
    pub content: Content,
}

impl Item {
    fn new(doc_id: String, subject: &str, content: Content) -> Self {
        let doc_hash = sha256_hex(content.canonical().as_bytes());
        Self { doc_id, doc_hash, subject: subject.to_owned(), content }
    }

    /// Returns the right answer, or `None` in a split without answers.
    pub fn gold(&self) -> Option<Answer> {
        self.content.answer()
    }
}

/// One data file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    /// Path relative to the set's folder, with `/`.
    pub path: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Number of items in the file.
    pub items: usize,
}

/// One split of a data set, in memory.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// The benchmark.
    pub benchmark: &'static Benchmark,
    /// The split.
    pub split: String,
    /// The subjects by key.
    pub subjects: BTreeMap<String, Subject>,
    /// The items, by subject key and then in file order.
    pub items: Vec<Item>,
    /// The files read, in reading order.
    pub files: Vec<DataFile>,
}

impl Dataset {
    /// Returns the SHA-256 over ids, contents, categories and Chinese names, which is everything that determines a
    /// score. Line ends, quoting and layout do not change it.
    pub fn content_hash(&self) -> String {
        let mut canonical = format!("{}/{}\n", self.benchmark, self.split);
        for item in &self.items {
            let subject = &self.subjects[&item.subject];
            let category = subject.category.as_deref().unwrap_or("");
            let chinese = subject.chinese_name.as_deref().unwrap_or("");
            let _ = writeln!(canonical, "{}\t{}\t{category}\t{chinese}", item.doc_id, item.doc_hash);
        }
        sha256_hex(canonical.as_bytes())
    }
}

/// A data set's folder with its recognised layout, before any rows are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The folder.
    pub root: PathBuf,
    /// The recognised layout.
    pub layout: &'static dyn Layout,
}

impl Source {
    /// Recognises the layout of the folder `root` for `benchmark`.
    ///
    /// # Errors
    /// When the folder is missing or has no layout of the benchmark. The message describes the expected layouts.
    pub fn open(benchmark: &Benchmark, root: &Path) -> Result<Self, DatasetError> {
        if !root.is_dir() {
            let found = if root.exists() { "a file" } else { "nothing there" };
            return Err(DatasetError::layout(
                root,
                found,
                format!(
                    "the folder of a {benchmark} data set (`glmbench list datasets` tells where one is found)"
                ),
            ));
        }
        Ok(Self { root: root.to_path_buf(), layout: benchmark.recognise(root)? })
    }

    /// Reads one split. Keeps only the given `subjects`, or all of them if `subjects` is empty.
    ///
    /// # Errors
    /// Every malformed row of every file ([`DatasetError::Rows`]), or what is missing from the layout.
    pub fn read(&self, split: &str, subjects: &[String]) -> Result<Dataset, DatasetError> {
        self.layout.read(&self.root, split, subjects)
    }

    /// Returns whether the folder has that split.
    pub fn has_split(&self, split: &str) -> bool {
        self.layout.has_split(&self.root, split)
    }
}

/// Returns the sorted entry names of a folder, without hidden ones (`.DS_Store`).
fn entries(dir: &Path) -> Result<Vec<String>, DatasetError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| DatasetError::io(dir, e))? {
        let name = entry.map_err(|e| DatasetError::io(dir, e))?.file_name();
        let name = name.into_string().map_err(|name| {
            DatasetError::layout(dir, format!("the file name {}", name.display()), "file names in UTF-8")
        })?;
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Converts `\r\n` to `\n`. The line end depends on where the file was saved and must not change a prompt.
fn unix_lines(text: &str) -> String {
    text.replace("\r\n", "\n")
}

/// Returns the start of a text, for messages.
pub(crate) fn shorten(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}
