//! Official on-disk formats → [`Item`]: readers, the catalogue, preparation of original archives.
//!
//! A data set is a folder in one of three layouts ([`Layout`]). [`Source::open`] recognises the layout,
//! [`Source::read`] reads one split of it. A row is read or named in the error with file and line;
//! none is dropped in silence.

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
pub use questions::read_questions;
pub use text::sha256_hex;

/// The letters that name the options of a multiple-choice question.
pub const LETTERS: [&str; 4] = ["A", "B", "C", "D"];

/// The benchmarks there are, by the word a suite uses for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Benchmark {
    /// C-Eval: Chinese multiple choice, 52 subjects in four categories.
    CEval,
    /// BoolQ: English yes/no questions about a passage.
    BoolQ,
}

impl Benchmark {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::CEval, Self::BoolQ];

    /// The word in suites, ids and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CEval => "ceval",
            Self::BoolQ => "boolq",
        }
    }

    /// The benchmark of that word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|b| b.as_str() == name)
    }

    /// The split that published scores are computed on where answers are public.
    pub const fn default_split(self) -> &'static str {
        match self {
            Self::CEval => "val",
            Self::BoolQ => "dev",
        }
    }

    /// The splits of the official release.
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

/// How a data set lies on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `{dev,val,test}/<subject>_<split>.csv` and `subject_mapping.json` (C-Eval's own release).
    CEvalCsv,
    /// `{val,test}/<category>/<subject>.jsonl` (the release of THUDM's evaluation script).
    CEvalJsonl,
    /// `<split>.jsonl`, one object a line (BoolQ's own release, and SuperGLUE's with `val` for `dev`).
    BoolQJsonl,
}

impl Layout {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::CEvalCsv, Self::CEvalJsonl, Self::BoolQJsonl];

    /// The word in the catalogue and in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CEvalCsv => "ceval-csv",
            Self::CEvalJsonl => "ceval-jsonl",
            Self::BoolQJsonl => "boolq-jsonl",
        }
    }

    /// What reading changes of the texts, in words; empty where nothing is.
    pub const fn normalisation(self) -> &'static str {
        match self {
            Self::CEvalCsv | Self::CEvalJsonl => {
                "a line end \\r\\n within a question or option is read as \\n; hashes are of the text so read"
            }
            Self::BoolQJsonl => "",
        }
    }

    /// The benchmark that this is a layout of.
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
    /// All of them, in the order that published tables use.
    pub const ALL: [Self; 4] = [Self::Stem, Self::SocialScience, Self::Humanities, Self::Other];

    /// The name in tables and in `subject_mapping.json`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stem => "STEM",
            Self::SocialScience => "Social Science",
            Self::Humanities => "Humanities",
            Self::Other => "Other",
        }
    }

    /// The category of that name; folder names have `_` for the blank.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.as_str() == name.replace('_', " "))
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One subject of a set; BoolQ has a single one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The name in file names and tables, such as `law`.
    pub key: String,
    /// The Chinese name, where the set or the official table has one.
    pub chinese_name: Option<String>,
    /// The category, for C-Eval.
    pub category: Option<Category>,
}

impl Subject {
    /// Whether it is one of the eight subjects of "C-Eval Hard".
    pub fn is_hard(&self) -> bool {
        self.category.is_some() && HARD_SUBJECTS.contains(&self.key.as_str())
    }
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Stable name: `ceval/val/law/17`, `boolq/dev/12` (BoolQ counts lines from 0).
    pub doc_id: String,
    /// SHA-256 of the canonical content: the same question has the same hash in every layout.
    pub doc_hash: String,
    /// Key of its [`Subject`].
    pub subject: String,
    /// The question itself.
    pub content: Content,
}

impl Item {
    fn new(doc_id: String, subject: &str, content: Content) -> Self {
        let doc_hash = sha256_hex(content.canonical().as_bytes());
        Self { doc_id, doc_hash, subject: subject.to_owned(), content }
    }

    /// The right answer as tables show it (`A`…`D`, `yes`, `no`); `None` in a split without answers.
    pub fn gold(&self) -> Option<&'static str> {
        match &self.content {
            Content::Choice(choice) => choice.answer.map(|i| LETTERS[i]),
            Content::YesNo(question) => question.answer.map(|yes| if yes { "yes" } else { "no" }),
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// One of four options.
    Choice(Choice),
    /// Yes or no, about a passage.
    YesNo(YesNo),
}

impl Content {
    /// A JSON array of the content and nothing of its layout; what [`Item::doc_hash`] is taken of.
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
    /// Index of the right option, where the split has answers.
    pub answer: Option<usize>,
}

/// The two forms in which releases give question and options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChoiceText {
    /// Apart (csv).
    Parts {
        /// The question.
        question: String,
        /// Options A to D.
        options: [String; 4],
    },
    /// Already joined (`inputs_pretokenized` of the jsonl layout).
    Joined(String),
}

impl Choice {
    /// `{question}\nA. {A}\nB. {B}\nC. {C}\nD. {D}`, or the joined text as the file has it.
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
    /// Title of the page the passage is from.
    pub title: String,
    /// The passage.
    pub passage: String,
    /// The question, without its question mark.
    pub question: String,
    /// Whether the answer is yes, where the split has answers.
    pub answer: Option<bool>,
}

/// One file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    /// Path below the set's folder, with `/`.
    pub path: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Items read from it.
    pub items: usize,
}

/// One split of a data set, in memory.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Which benchmark.
    pub benchmark: Benchmark,
    /// Which split.
    pub split: String,
    /// Its subjects by key.
    pub subjects: BTreeMap<String, Subject>,
    /// Its items, by subject key and then in file order.
    pub items: Vec<Item>,
    /// The files they come from, in the order read.
    pub files: Vec<DataFile>,
}

impl Dataset {
    /// SHA-256 over ids, contents, categories and Chinese names: what decides a score, not how it lies on
    /// disk. Line ends, quoting and layout do not change it.
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

/// A data set's folder with its layout recognised; nothing of its rows read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The folder.
    pub root: PathBuf,
    /// How it is laid out.
    pub layout: Layout,
}

impl Source {
    /// Recognises the layout of the folder `root` for `benchmark`.
    ///
    /// # Errors
    /// When the folder is missing, or holds none of the benchmark's layouts; the message says what a
    /// layout looks like.
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

    /// Reads one split. `subjects` keeps only those subjects; empty keeps all.
    ///
    /// # Errors
    /// Every wrong row of every file ([`DatasetError::Rows`]), or what is missing in the layout.
    pub fn read(&self, split: &str, subjects: &[String]) -> Result<Dataset, DatasetError> {
        match self.layout {
            Layout::CEvalCsv => ceval::read_csv(&self.root, split, subjects),
            Layout::CEvalJsonl => ceval::read_jsonl(&self.root, split, subjects),
            Layout::BoolQJsonl => boolq::read(&self.root, split, subjects),
        }
    }

    /// Whether the folder has that split.
    pub fn has_split(&self, split: &str) -> bool {
        match self.layout {
            Layout::CEvalCsv | Layout::CEvalJsonl => self.root.join(split).is_dir(),
            Layout::BoolQJsonl => boolq::has_split(&self.root, split),
        }
    }
}

/// Names of the entries of a folder, sorted; hidden ones (`.DS_Store`) left out.
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

/// A text whose lines end in `\n` alone: what a line end is written as says where a file was saved, and must not change a
/// prompt.
fn unix_lines(text: &str) -> String {
    text.replace("\r\n", "\n")
}

/// The start of a text, for messages.
fn shorten(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}
