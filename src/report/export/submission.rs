//! The file that C-Eval's server takes: answers by subject and item.
//!
//! Source: README of hkust-nlp/ceval.

use super::modeltest::plain;
use super::{Export, ExportError, File, Output, Records};
use crate::dataset::CEVAL;
use serde_json::{Map, Value};
use std::io;

/// The format `ceval-submission`.
#[derive(Debug)]
pub(super) struct CevalSubmission;

impl Export for CevalSubmission {
    fn name(&self) -> &'static str {
        "ceval-submission"
    }

    fn about(&self) -> &'static str {
        "The file that C-Eval's server takes, one for each C-Eval task of the run"
    }

    fn details(&self) -> String {
        ABOUT.to_owned()
    }

    fn output(&self) -> Output {
        Output::Files(files)
    }
}

const ABOUT: &str = "\
TASK.json has an object for each subject, with the answer to each item by its id: the form of C-Eval's
submissions. The server wants all 52 subjects of the split `test`. Its answers are not public, and a run
takes only splits with answers. So add a column `answer` with any letter to the csv files, and disregard
the score. An item without an answer has an empty text, which counts as wrong.
";

/// Returns a file for each C-Eval task with items.
fn files(records: &Records) -> Result<Vec<File>, ExportError> {
    let mut files = Vec::new();
    for case in records.run.plan.accuracy.iter().filter(|case| case.benchmark == CEVAL.name) {
        let mut subjects = Map::new();
        for sample in records.samples.iter().filter(|sample| sample.task == case.task) {
            // ceval/test/law/12
            let id = sample.doc_id.rsplit('/').next().unwrap_or(&sample.doc_id);
            let subject = subjects.entry(&sample.subject).or_insert_with(|| Map::new().into());
            if let Value::Object(answers) = subject {
                answers.insert(id.to_owned(), sample.pred.as_deref().unwrap_or_default().into());
            }
        }
        if !subjects.is_empty() {
            let text = serde_json::to_string_pretty(&subjects).map_err(io::Error::from)?;
            files.push(File {
                path: format!("{}.json", plain(&case.task)),
                bytes: (text + "\n").into_bytes(),
            });
        }
    }
    Ok(files)
}
