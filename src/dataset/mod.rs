//! Reads the official on-disk formats into [`Item`]s: readers, the catalogue, preparation of original archives.
//!
//! A data set is a folder in one of three layouts ([`Layout`]). [`Source::open`] recognises the layout, and
//! [`Source::read`] reads one split. Every row is either read or reported in the error with file and line; no row is
//! dropped silently.

mod boolq;
pub mod catalogue;
mod ceval;
mod csv;
mod error;
mod jsonl;
pub mod prepare;
mod questions;
mod text;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

pub use ceval::{HARD_SUBJECTS, OFFICIAL_SUBJECTS, OfficialSubject, mapping_json};
pub use error::{DatasetError, Problem, Problems};
pub use jsonl::read_jsonl;
pub use questions::read_questions;
pub use text::sha256_hex;

/// The letters that name the options of a multiple-choice question.
pub const LETTERS: [&str; 4] = ["A", "B", "C", "D"];

/// The supported benchmarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Benchmark {
    /// C-Eval: Chinese multiple choice, 52 subjects in four categories.
    CEval,
    /// BoolQ: English yes/no questions about a passage.
    BoolQ,
}

impl Benchmark {
    /// All benchmarks.
    pub const ALL: [Self; 2] = [Self::CEval, Self::BoolQ];

    /// Returns the name used in suites, ids and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CEval => "ceval",
            Self::BoolQ => "boolq",
        }
    }

    /// Returns the benchmark called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|b| b.as_str() == name)
    }

    /// Returns the split with public answers on which published scores are computed.
    pub const fn default_split(self) -> &'static str {
        match self {
            Self::CEval => "val",
            Self::BoolQ => "dev",
        }
    }

    /// Returns the splits of the official release.
    pub const fn splits(self) -> &'static [&'static str] {
        match self {
            Self::CEval => &["dev", "val", "test"],
            Self::BoolQ => &["train", "dev", "test"],
        }
    }
}

impl fmt::Display for Benchmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Layout of a data set on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `{dev,val,test}/<subject>_<split>.csv` and `subject_mapping.json` (C-Eval's original release).
    CEvalCsv,
    /// `{val,test}/<category>/<subject>.jsonl` (the release of THUDM's evaluation script).
    CEvalJsonl,
    /// `<split>.jsonl`, one object a line (BoolQ's original release, and SuperGLUE's with `val` for `dev`).
    BoolQJsonl,
}

impl Layout {
    /// All layouts.
    pub const ALL: [Self; 3] = [Self::CEvalCsv, Self::CEvalJsonl, Self::BoolQJsonl];

    /// Returns the name used in the catalogue and in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CEvalCsv => "ceval-csv",
            Self::CEvalJsonl => "ceval-jsonl",
            Self::BoolQJsonl => "boolq-jsonl",
        }
    }

    /// Describes how reading changes the text. Empty if reading changes nothing.
    pub const fn normalisation(self) -> &'static str {
        match self {
            Self::CEvalCsv | Self::CEvalJsonl => {
                "a line end \\r\\n within a question or option is read as \\n; hashes are of the text so read"
            }
            Self::BoolQJsonl => "",
        }
    }

    /// Returns the benchmark that uses this layout.
    pub const fn benchmark(self) -> Benchmark {
        match self {
            Self::CEvalCsv | Self::CEvalJsonl => Benchmark::CEval,
            Self::BoolQJsonl => Benchmark::BoolQ,
        }
    }
}

/// C-Eval's four groups of subjects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    /// Science, technology, engineering, mathematics.
    Stem,
    /// Social science.
    SocialScience,
    /// Humanities.
    Humanities,
    /// Everything else: medicine, civil service, engineering licences.
    Other,
}

impl Category {
    /// All categories, in the order of published tables.
    pub const ALL: [Self; 4] = [Self::Stem, Self::SocialScience, Self::Humanities, Self::Other];

    /// Returns the name used in tables and in `subject_mapping.json`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stem => "STEM",
            Self::SocialScience => "Social Science",
            Self::Humanities => "Humanities",
            Self::Other => "Other",
        }
    }

    /// Returns the category of that name. Folder names have `_` for the space.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.as_str() == name.replace('_', " "))
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One subject of a set. BoolQ has only one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Name used in file names and tables, such as `law`.
    pub key: String,
    /// The Chinese name, if the set or the official table has one.
    pub chinese_name: Option<String>,
    /// The category (C-Eval only).
    pub category: Option<Category>,
}

impl Subject {
    /// Returns whether this is one of the eight subjects of "C-Eval Hard".
    pub fn is_hard(&self) -> bool {
        self.category.is_some() && HARD_SUBJECTS.contains(&self.key.as_str())
    }
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
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

    /// Returns the right answer as shown in tables (`A`…`D`, `yes`, `no`), or `None` in a split without answers.
    pub fn gold(&self) -> Option<&'static str> {
        match &self.content {
            Content::Choice(choice) => choice.answer.map(|i| LETTERS[i]),
            Content::YesNo(question) => question.answer.map(|yes| if yes { "yes" } else { "no" }),
        }
    }
}

/// The content of a question, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A choice of one of four options.
    Choice(Choice),
    /// A yes/no question about a passage.
    YesNo(YesNo),
}

impl Content {
    /// Returns the content as a JSON array, independent of the layout. [`Item::doc_hash`] is its hash.
    fn canonical(&self) -> String {
        match self {
            Self::Choice(c) => {
                serde_json::json!(["choice", c.question_and_options(), c.answer.map(|i| LETTERS[i])])
            }
            Self::YesNo(q) => serde_json::json!(["yes-no", q.title, q.passage, q.question, q.answer]),
        }
        .to_string()
    }
}

/// A multiple-choice question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The question and its four options.
    pub text: ChoiceText,
    /// Index of the right option, if the split has answers.
    pub answer: Option<usize>,
}

/// The two forms of question and options in the releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChoiceText {
    /// Separate (csv).
    Parts {
        /// The question.
        question: String,
        /// Options A to D.
        options: [String; 4],
    },
    /// Joined (`inputs_pretokenized` of the jsonl layout).
    Joined(String),
}

impl Choice {
    /// Returns `{question}\nA. {A}\nB. {B}\nC. {C}\nD. {D}`, or the joined text as the file has it.
    pub fn question_and_options(&self) -> Cow<'_, str> {
        match &self.text {
            ChoiceText::Parts { question, options: [a, b, c, d] } => {
                format!("{question}\nA. {a}\nB. {b}\nC. {c}\nD. {d}").into()
            }
            ChoiceText::Joined(text) => text.into(),
        }
    }
}

/// A yes/no question about a passage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YesNo {
    /// Title of the page that the passage comes from.
    pub title: String,
    /// The passage.
    pub passage: String,
    /// The question, without its question mark.
    pub question: String,
    /// Whether the answer is yes, if the split has answers.
    pub answer: Option<bool>,
}

/// One data file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    /// Path relative to the set's folder, with `/`.
    pub path: String,
    /// SHA-256 of the file's bytes.
    pub sha256: String,
    /// Number of items in the file.
    pub items: usize,
}

/// One split of a data set, in memory.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// The benchmark.
    pub benchmark: Benchmark,
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
            let category = subject.category.map_or("", Category::as_str);
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
    pub layout: Layout,
}

impl Source {
    /// Recognises the layout of the folder `root` for `benchmark`.
    ///
    /// # Errors
    /// When the folder is missing or has none of the benchmark's layouts. The message describes the expected layout.
    pub fn open(benchmark: Benchmark, root: &Path) -> Result<Self, DatasetError> {
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
        let layout = match benchmark {
            Benchmark::CEval => ceval::recognise(root)?,
            Benchmark::BoolQ => boolq::recognise(root)?,
        };
        Ok(Self { root: root.to_path_buf(), layout })
    }

    /// Reads one split. Keeps only the given `subjects`, or all of them if `subjects` is empty.
    ///
    /// # Errors
    /// Every malformed row of every file ([`DatasetError::Rows`]), or what is missing from the layout.
    pub fn read(&self, split: &str, subjects: &[String]) -> Result<Dataset, DatasetError> {
        match self.layout {
            Layout::CEvalCsv => ceval::read_csv(&self.root, split, subjects),
            Layout::CEvalJsonl => ceval::read_jsonl(&self.root, split, subjects),
            Layout::BoolQJsonl => boolq::read(&self.root, split, subjects),
        }
    }

    /// Returns whether the folder has that split.
    pub fn has_split(&self, split: &str) -> bool {
        match self.layout {
            Layout::CEvalCsv | Layout::CEvalJsonl => self.root.join(split).is_dir(),
            Layout::BoolQJsonl => boolq::has_split(&self.root, split),
        }
    }
}

/// Returns the sorted names of a folder's entries, without hidden ones (`.DS_Store`).
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
fn shorten(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}
