//! A benchmark for tests: sums in words, with a layout of its own. It shows what a new benchmark has to write.

use std::collections::BTreeMap;
use std::path::Path;

use super::error::{DatasetError, Problems};
use super::{
    Answer, Benchmark, Content, DataFile, Dataset, Fields, Item, Layout, ModelTestFiles, ModelTestRows,
    Number, Subject, TimingPrompt, text,
};

/// Sums with a number as the answer.
pub(crate) static TOY_SUMS: Benchmark = Benchmark {
    name: "toy-sums",
    title: "Toy Sums",
    splits: &["examples", "final"],
    default_split: "final",
    demonstration_split: "examples",
    layouts: &[&Tsv],
    chance: None,
    categories: &[],
    part: "",
    is_grid: false,
    timing_prompt: TimingPrompt::Function(timing_prompt),
    modeltest: Some(ModelTestFiles {
        set: "ToySums",
        rows: ModelTestRows::Files,
        answers: &[],
        right: "True",
        wrong: "False",
    }),
    file: None,
};

/// Key of the only subject.
const SUBJECT: &str = "sums";

/// `<split>.tsv`: a question and a number a line, with a tab between them.
struct Tsv;

impl Layout for Tsv {
    fn name(&self) -> &'static str {
        "toy-tsv"
    }

    fn files(&self) -> String {
        "`{examples,final}.tsv`".to_owned()
    }

    fn is_at(&self, root: &Path) -> Result<bool, DatasetError> {
        Ok(self.has_split(root, TOY_SUMS.default_split))
    }

    fn has_split(&self, root: &Path, split: &str) -> bool {
        root.join(format!("{split}.tsv")).is_file()
    }

    fn read(&self, root: &Path, split: &str, _subjects: &[String]) -> Result<Dataset, DatasetError> {
        let name = format!("{split}.tsv");
        let path = root.join(&name);
        let mut problems = Problems::default();
        let Some(file) = text::read(&path, &mut problems)? else { return Err(DatasetError::Rows(problems)) };
        let mut items = Vec::new();
        for (line, row) in (1..).zip(file.text.lines()) {
            match content(row) {
                Ok(content) => {
                    let doc_id = format!("{}/{split}/{}", TOY_SUMS.name, line - 1);
                    items.push(Item::new(doc_id, SUBJECT, content));
                }
                Err(fault) => problems.push(&path, line, fault),
            }
        }
        problems.into_result()?;
        let subject = Subject { key: SUBJECT.into(), chinese_name: None, category: None, hard: false };
        Ok(Dataset {
            benchmark: &TOY_SUMS,
            split: split.into(),
            subjects: BTreeMap::from([(SUBJECT.into(), subject)]),
            files: vec![DataFile { path: name, sha256: file.sha256, items: items.len() }],
            items,
        })
    }
}

fn content(row: &str) -> Result<Content, String> {
    let (question, answer) =
        row.split_once('\t').ok_or("found no tab; expected a question, a tab, a number")?;
    let number = answer.parse().ok().and_then(Number::new);
    let number = number.ok_or_else(|| format!("found the answer {answer:?}; expected a number"))?;
    let texts = BTreeMap::from([("question".to_owned(), question.to_owned())]);
    Ok(Content::Fields(Fields { texts, lists: BTreeMap::new(), answer: Some(Answer::Number(number)) }))
}

fn timing_prompt(item: &Item) -> String {
    match &item.content {
        Content::Fields(fields) => fields.texts["question"].clone(),
        _ => String::new(),
    }
}
