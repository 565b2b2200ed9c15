//! What makes an answer of a text: reading it, scoring it against references (`[protocol.score]`), or running it
//! (`[protocol.run]`).

use std::collections::BTreeMap;
use std::time::Duration;

use glmbench_sandbox::Language;

use super::parse::Reader;
use super::score::Score;
use crate::dataset::file::Draft;
use crate::document::DocumentError;
use crate::document::table::{Table, counts, found, number, word};
use crate::document::tree::{Entry, Node, Value};

/// Name of the template of a program.
pub(super) const PROGRAM: &str = "program";
/// Longest time that a program may have, in seconds.
const MOST_SECONDS: f64 = 600.0;
/// Largest k of pass@k.
const MOST_K: u64 = 1000;

/// What makes an answer.
#[derive(Debug)]
pub(super) enum Judged {
    /// It is compared with the item's key.
    Key,
    /// It is scored.
    Score(Score),
    /// It is run.
    Run(Run),
}

/// How a program is run.
#[derive(Debug)]
pub(super) struct Run {
    languages: Languages,
    pub(super) timeout: Duration,
    pub(super) pass_at: Vec<u64>,
}

/// What programs are written in.
#[derive(Debug)]
enum Languages {
    /// All in one language.
    One(Language),
    /// Those of a subject in its own.
    BySubject(BTreeMap<String, Language>),
}

impl Languages {
    fn parse(node: Node) -> Result<Self, DocumentError> {
        let Node { origin, value } = node;
        match value {
            Value::Table(entries) => {
                if entries.is_empty() {
                    let expected = "the language of each subject";
                    return Err(DocumentError::found(&origin, "an empty table", expected));
                }
                let one = |(subject, entry): (String, Entry)| Ok((subject, language(&entry.node)?));
                entries.into_iter().map(one).collect::<Result<_, _>>().map(Self::BySubject)
            }
            value => language(&Node { origin, value }).map(Self::One),
        }
    }
}

fn language(node: &Node) -> Result<Language, DocumentError> {
    word(node, &Language::ALL.map(Language::name), Language::named)
}

impl Judged {
    /// Reads the tables `score` and `run`. A protocol may have one of them.
    pub(super) fn parse(
        table: &mut Table,
        draft: &Draft,
        templates: &mut Reader,
    ) -> Result<Self, DocumentError> {
        match (table.take("score"), table.take("run")) {
            (None, None) => Ok(Self::Key),
            (Some(_), Some(run)) => Err(found(&run, "`run` beside `score`", "one of the two")),
            (Some(node), None) => Score::parse(Table::new(node)?, draft).map(Self::Score),
            (None, Some(node)) => Run::parse(Table::new(node)?, templates).map(Self::Run),
        }
    }
}

impl Run {
    fn parse(mut table: Table, templates: &mut Reader) -> Result<Self, DocumentError> {
        let languages = "the language of the programs, or a table with that of each subject";
        let languages = Languages::parse(table.require("language", languages)?)?;
        let node = table
            .require("program", "the template of the program; `completion` is the code that was read")?;
        templates.add(&node, PROGRAM, "program", &["completion"])?;
        let node = table.require("seconds", "the time that a program has")?;
        let seconds = number(&node)?;
        if seconds > MOST_SECONDS {
            return Err(found(&node, &format!("{seconds} s"), &format!("at most {MOST_SECONDS}")));
        }
        let pass_at = match table.take("pass_at") {
            None => vec![1],
            Some(node) => {
                let all = counts(node.clone(), "numbers of answers")?;
                let all: Vec<u64> = all.into_iter().map(|k| k as u64).collect();
                if let Some(wrong) = all.iter().find(|k| **k > MOST_K) {
                    return Err(found(&node, &format!("pass@{wrong}"), &format!("{MOST_K} at most")));
                }
                all
            }
        };
        table.finish()?;
        Ok(Self { languages, timeout: Duration::from_secs_f64(seconds), pass_at })
    }

    /// Returns the program language of a subject; `None` if the task file has none for it.
    pub(super) fn language(&self, subject: &str) -> Option<Language> {
        match &self.languages {
            Languages::One(language) => Some(*language),
            Languages::BySubject(all) => all.get(subject).copied(),
        }
    }

    /// Says what counts as right.
    pub(super) fn words(&self) -> String {
        let seconds = self.timeout.as_secs_f64();
        let all: Vec<String> = self.pass_at.iter().map(|k| format!("pass@{k}")).collect();
        format!(
            "pass@1: programs that pass their tests within {seconds} s / all; with several `samples`, also the means of the \
             unbiased estimates of {}",
            all.join(", ")
        )
    }
}
