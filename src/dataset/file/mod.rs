//! Benchmarks from task files: TOML that describes the data, the protocols and their source (docs/TASKFILES.md).
//!
//! This module reads what belongs to the benchmark: its name, its data on disk, its items. The protocols of the same file are
//! left to the module [`task`](crate::task), as tables with their places. A file gives an ordinary [`Benchmark`]. Files are
//! interned by their content, so a benchmark lives as long as the program and is a `&'static`, as the built-in ones are.

mod data;
mod files;
mod functions;
mod layout;
mod needles;
mod read;
mod rows;
mod template;

use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use self::data::Data;
use self::layout::FileLayout;
pub(crate) use self::read::number;
pub(crate) use self::template::Templates;

use super::{Benchmark, Layout, TimingPrompt, sha256_hex};
use crate::document::table::{Table, array, count, share, string, tables};
use crate::document::tree::{self, Node, Value};
use crate::document::{self, DocumentError};

/// Schema version of the task files that this program reads.
const SCHEMA: u64 = 1;
/// Most characters of a name.
const MAX_NAME: usize = 64;

/// The built-in task files, by name.
macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../datasets/tasks/", $name, ".toml")))),*]
    };
}

/// The built-in task files. A new one is its file and its name here.
static BUILT_IN: &[(&str, &str)] = built_in![
    "aime2024",
    "arc-challenge",
    "arc-easy",
    "bbh",
    "cmmlu",
    "gpqa",
    "gsm8k",
    "hellaswag",
    "humaneval",
    "humaneval-x",
    "longbench",
    "mmlu",
    "needlebench",
    "truthfulqa",
    "wikitext-2",
    "wikitext-2-joined",
];

/// A task file that is in use.
#[derive(Debug)]
pub struct TaskFile {
    /// The text of the file.
    pub text: String,
    /// SHA-256 of the text.
    pub sha256: String,
    /// What the task measures, in a sentence.
    pub about: String,
    /// Where task and data come from.
    pub origin: String,
    /// Licence of the data, in words.
    pub licence: String,
    /// Name of the data set, if it is that of another task.
    pub set: Option<String>,
    /// Whether the file is part of the program.
    pub is_built_in: bool,
}

/// A task file that was read, before it is put to use.
pub(crate) struct Draft {
    file: TaskFile,
    name: String,
    title: String,
    chance: Option<f64>,
    data: Data,
    /// The tables of the protocols, not read yet.
    pub(crate) protocols: Vec<Table>,
}

impl Draft {
    /// Reads the part of a task file that describes the benchmark. `path` is its location.
    ///
    /// # Errors
    /// The first fault, with its place.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, DocumentError> {
        let mut root = Table::new(tree::parse(path, text)?)?;
        let schema = root.require("schema", &format!("schema = {SCHEMA}"))?;
        let found = count(&schema, 0)?;
        if found != SCHEMA {
            let expected = format!("{SCHEMA}, the one this program reads");
            return Err(DocumentError::found(&schema.origin, &format!("schema {found}"), &expected));
        }
        let set = root.take("set").map(|node| name(&node)).transpose()?;
        let name_node = root.require("name", "the task's name")?;
        let name = name(&name_node)?;
        let title = root.take("title").map(|node| string(&node)).transpose()?.unwrap_or_else(|| name.clone());
        let text_of = |root: &mut Table, key, expected| string(&root.require(key, expected)?);
        let about = text_of(&mut root, "about", "what the task measures, in a sentence")?;
        let origin = text_of(&mut root, "origin", "where task and data come from")?;
        let licence = text_of(&mut root, "licence", "the licence of the data")?;
        let chance = root.take("chance").map(|node| share(&node)).transpose()?;
        let data = Data::parse(Table::new(root.require("data", "the table [data]")?)?)?;
        let protocols = tables(&mut root, "protocol")?;
        if protocols.is_empty() {
            return Err(DocumentError::at(
                &root.origin,
                "found no protocol; expected at least one [[protocol]]",
            ));
        }
        root.finish()?;
        let sha256 = sha256_hex(text.as_bytes());
        let file =
            TaskFile { text: text.to_owned(), sha256, about, origin, licence, set, is_built_in: false };
        Ok(Self { file, name, title, chance, data, protocols })
    }

    /// Returns the task's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the names that templates of prompts may use, besides those of stages.
    pub(crate) fn names(&self) -> Vec<String> {
        self.data.names()
    }

    /// Returns the splits.
    pub(crate) fn splits(&self) -> &[String] {
        &self.data.splits
    }

    /// Returns the number of options that an answer may name; `None` if items have different numbers of options.
    pub(crate) fn letters(&self) -> Option<usize> {
        self.data.answer.words.as_ref().map(Vec::len)
    }

    /// Returns the kind of the answers.
    pub(crate) fn kind(&self) -> AnswerKind {
        self.data.answer.kind
    }

    /// Puts the file to use: returns the benchmark of the same text, made before or now.
    pub(crate) fn intern(self) -> &'static Benchmark {
        let mut interned = INTERNED.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |one: &&&'static Benchmark| one.file.is_some_and(|file| file.sha256 == self.file.sha256);
        if let Some(known) = interned.iter().find(same) {
            return known;
        }
        let made = self.leak();
        interned.push(made);
        made
    }

    /// Makes a benchmark that lives as long as the program. Files are interned, so a text is leaked once.
    fn leak(self) -> &'static Benchmark {
        let Self { file, name, title, chance, data, .. } = self;
        let name = leak(name);
        let words = |list: &[String]| -> &'static [&'static str] {
            Box::leak(list.iter().map(|word| leak(word.clone())).collect::<Vec<_>>().into_boxed_slice())
        };
        let (splits, categories) = (words(&data.splits), words(&data.category_names()));
        let place = |split: &str| splits.iter().copied().find(|known| *known == split).unwrap_or(splits[0]);
        let (default_split, demonstration_split) = (place(&data.default), place(&data.demonstrations));
        let is_grid = data.is_grid;
        let part = leak(data.part.as_ref().map_or_else(String::new, |(name, _)| name.clone()));
        let timing = TimingPrompt::Field(leak(data.question.clone()));
        let layout_name = leak(data.layout_name(name));
        let layout: &'static FileLayout = Box::leak(Box::new(FileLayout::new(layout_name, data)));
        let layouts: &'static [&'static dyn Layout] = Box::leak(Box::new([layout as &dyn Layout]));
        let benchmark: &'static Benchmark = Box::leak(Box::new(Benchmark {
            name,
            title: leak(title),
            splits,
            default_split,
            demonstration_split,
            layouts,
            chance,
            categories,
            part,
            is_grid,
            timing_prompt: timing,
            modeltest: None,
            file: Some(Box::leak(Box::new(file))),
        }));
        layout.belongs_to(benchmark);
        benchmark
    }
}

/// Every file in use that is not built in.
static INTERNED: Mutex<Vec<&'static Benchmark>> = Mutex::new(Vec::new());

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// The kinds of answers that a task file can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerKind {
    /// One option of the item.
    Choice,
    /// Yes or no.
    Boolean,
    /// A number.
    Number,
    /// A text.
    Text,
    /// Items have no answer: their text itself is scored.
    None,
}

impl AnswerKind {
    /// The words of task files.
    pub(crate) const WORDS: [(&'static str, Self); 5] = [
        ("choice", Self::Choice),
        ("boolean", Self::Boolean),
        ("number", Self::Number),
        ("text", Self::Text),
        ("none", Self::None),
    ];
}

/// Returns the benchmarks of the built-in task files.
pub(super) fn built_in() -> &'static [&'static Benchmark] {
    static MADE: OnceLock<Vec<&'static Benchmark>> = OnceLock::new();
    MADE.get_or_init(|| {
        let make = |(name, text): &(&str, &str)| {
            let mut draft = Draft::parse(&built_in_path(name), text)
                .expect("invariant: the built-in task files are tested to parse");
            draft.file.is_built_in = true;
            draft.leak()
        };
        BUILT_IN.iter().map(make).collect()
    })
}

/// Returns the place of a built-in task file, for messages.
pub(crate) fn built_in_path(name: &str) -> std::path::PathBuf {
    Path::new("datasets/tasks").join(format!("{name}.toml"))
}

/// Returns the benchmark that a run recorded: by its name, or by the task file that it kept.
///
/// `None` if this program has no benchmark of the name, and the record has no file, or one that this program cannot read.
pub fn recorded(name: &str, text: Option<&str>) -> Option<&'static Benchmark> {
    let Some(text) = text else { return Benchmark::from_name(name) };
    let sha256 = sha256_hex(text.as_bytes());
    let same = |one: &&&'static Benchmark| one.file.is_some_and(|file| file.sha256 == sha256);
    if let Some(known) = built_in().iter().find(same) {
        return Some(known);
    }
    let draft = Draft::parse(Path::new("run.json"), text).ok()?;
    Some(draft.intern())
}

/// Reads the text of a task file.
///
/// # Errors
/// The file cannot be read, is too large, or is not UTF-8.
pub(crate) fn text_of(path: &Path) -> Result<String, DocumentError> {
    document::text_of(path, "a task file (TOML)")
}

fn name(node: &Node) -> Result<String, DocumentError> {
    let name = string(node)?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    if !name.chars().all(plain) || name.len() > MAX_NAME {
        let expected = format!("up to {MAX_NAME} lower-case letters, digits, `-` and `_`");
        return Err(DocumentError::found(&node.origin, &format!("the name {name:?}"), &expected));
    }
    Ok(name)
}

/// Reads an array of texts with significant white space, such as those that end an answer.
pub(crate) fn literals(node: Node, of: &str) -> Result<Vec<String>, DocumentError> {
    let one = |node: &Node| match &node.value {
        Value::String(text) if !text.is_empty() => Ok(text.clone()),
        Value::String(_) => {
            Err(DocumentError::found(&node.origin, "an empty string", "at least one character"))
        }
        other => Err(DocumentError::found(&node.origin, other.kind(), "a string")),
    };
    array(node, of)?.1.iter().map(one).collect()
}

/// Reads an array of texts.
pub(crate) fn strings(node: Node, of: &str) -> Result<Vec<String>, DocumentError> {
    array(node, of)?.1.iter().map(string).collect()
}
