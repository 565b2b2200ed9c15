//! What a benchmark is, and what a layout of its data on disk can do.

use std::fmt;
use std::path::Path;

use super::error::DatasetError;
use super::file::TaskFile;
use super::{Content, Dataset, Item, registry};

/// A benchmark. Benchmarks are equal if their names are.
pub struct Benchmark {
    /// Name in suites, ids, records and tables: lower-case letters, digits, `-` and `_`.
    pub name: &'static str,
    /// Name in messages, such as `C-Eval`.
    pub title: &'static str,
    /// The splits of the official release.
    pub splits: &'static [&'static str],
    /// The split with public answers on which published scores are computed.
    pub default_split: &'static str,
    /// The split that demonstrations come from.
    pub demonstration_split: &'static str,
    /// The layouts of its releases. A folder is read by the first that recognises it.
    pub layouts: &'static [&'static dyn Layout],
    /// Accuracy of guessing, 0 to 1, where guessing is possible.
    pub chance: Option<f64>,
    /// Categories of its subjects, in the order of published tables. Empty if there are none.
    pub categories: &'static [&'static str],
    /// Name of the part of its subjects that cuts across the categories ([`super::Subject::hard`]), such as C-Eval's hard one. Empty
    /// if there is none.
    pub part: &'static str,
    /// Whether its subjects are `<text>_<length>_<depth>`, so that scores make a map of lengths and depths.
    pub is_grid: bool,
    /// Returns a question as a prompt for timing, as ModelTest has it: without protocol or answer.
    pub timing_prompt: TimingPrompt,
    /// The result files that ModelTest writes for it, if any.
    pub modeltest: Option<ModelTestFiles>,
    /// The task file that the benchmark comes from, if it is not code.
    pub file: Option<&'static TaskFile>,
}

/// How a question becomes a prompt for timing.
#[derive(Clone, Copy)]
pub enum TimingPrompt {
    /// By a function.
    Function(fn(&Item) -> String),
    /// It is the text of this name, of a question of named texts.
    Field(&'static str),
}

impl Benchmark {
    /// Returns the name of the data set: the folder in `datasets/`, and the entry of the catalogue.
    pub fn set(&self) -> &str {
        self.file.and_then(|file| file.set.as_deref()).unwrap_or(self.name)
    }

    /// Returns a question as a prompt for timing.
    pub fn question_of(&self, item: &Item) -> String {
        match (self.timing_prompt, &item.content) {
            (TimingPrompt::Function(prompt), _) => prompt(item),
            (TimingPrompt::Field(name), Content::Fields(fields)) => {
                fields.texts.get(name).cloned().unwrap_or_default()
            }
            (TimingPrompt::Field(_), _) => String::new(),
        }
    }

    /// Returns all benchmarks.
    pub fn all() -> &'static [&'static Self] {
        registry()
    }

    /// Returns the names of all benchmarks.
    pub fn names() -> Vec<&'static str> {
        Self::all().iter().map(|benchmark| benchmark.name).collect()
    }

    /// Returns the benchmark called `name`.
    pub fn from_name(name: &str) -> Option<&'static Self> {
        Self::all().iter().copied().find(|benchmark| benchmark.name == name)
    }

    /// Returns the category of that name. Folder names have `_` for the space.
    pub fn category(&self, name: &str) -> Option<&'static str> {
        self.categories.iter().copied().find(|category| *category == name.replace('_', " "))
    }

    /// Recognises the layout of the folder `root`.
    pub(super) fn recognise(&self, root: &Path) -> Result<&'static dyn Layout, DatasetError> {
        for layout in self.layouts {
            if layout.is_at(root)? {
                return Ok(*layout);
            }
        }
        let expected: Vec<String> = self.layouts.iter().map(|layout| layout.files()).collect();
        Err(DatasetError::layout(root, format!("no files of {}", self.title), expected.join(", or ")))
    }
}

impl PartialEq for Benchmark {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Benchmark {}

impl fmt::Debug for Benchmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Benchmark({})", self.name)
    }
}

impl fmt::Display for Benchmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A layout of a data set on disk, with its reader. Layouts are equal if their names are.
pub trait Layout: Sync {
    /// Returns the name used in the catalogue and in tables. No two layouts share one.
    fn name(&self) -> &'static str;

    /// Returns the files of the layout, for messages.
    fn files(&self) -> String;

    /// Describes how reading changes the text. Empty if reading changes nothing.
    fn normalisation(&self) -> &'static str {
        ""
    }

    /// Returns whether the folder `root` has this layout.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    fn is_at(&self, root: &Path) -> Result<bool, DatasetError>;

    /// Returns whether the folder `root` has that split.
    fn has_split(&self, root: &Path, split: &str) -> bool;

    /// Reads one split of the folder `root`. Keeps only the given `subjects`, or all of them if `subjects` is empty.
    /// Every row is read or reported with file and line.
    ///
    /// # Errors
    /// Every malformed row of every file ([`DatasetError::Rows`]), or what is missing from the layout.
    fn read(&self, root: &Path, split: &str, subjects: &[String]) -> Result<Dataset, DatasetError>;

    /// Returns the split of a catalogued file: its folder, or its stem in layouts with one file per split.
    fn split_of<'p>(&'p self, path: &'p str) -> &'p str {
        match path.split_once('/') {
            Some((folder, _)) => folder,
            None => path.split('.').next().unwrap_or(path),
        }
    }

    /// Returns the files outside the splits that [`Layout::read`] needs.
    fn support_files(&self) -> &'static [SupportFile] {
        &[]
    }
}

impl PartialEq for dyn Layout {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for dyn Layout {}

impl fmt::Debug for dyn Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Layout({})", self.name())
    }
}

/// A file outside the splits. `dataset prepare` writes it if the original archive lacks it.
pub struct SupportFile {
    /// Path relative to the set's folder, with `/`.
    pub path: &'static str,
    /// Returns the content of the official release.
    pub content: fn() -> String,
}

/// How ModelTest's precision files show a benchmark.
pub struct ModelTestFiles {
    /// ModelTest's name of the set, in file names: `CEval`.
    pub set: &'static str,
    /// What a row of the result file counts.
    pub rows: ModelTestRows,
    /// Answers that ModelTest spells otherwise: the words here, and its words.
    pub answers: &'static [(&'static str, &'static str)],
    /// The word for a right answer.
    pub right: &'static str,
    /// The word for any other answer.
    pub wrong: &'static str,
}

/// What a row of ModelTest's result file counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelTestRows {
    /// The items of a subject. Items have the keys `<subject>_<number>`.
    Subjects,
    /// The items of a file, `<split>.jsonl`. Items have their numbers as keys.
    Files,
}
