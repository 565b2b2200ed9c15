//! Rebuilds an item's first prompt from its data set, for runs that kept no prompts.

use std::path::Path;

use super::score::benchmark_of;
use crate::dataset::{Source, sha256_hex};
use crate::record::{AccuracyCase, CallRecord, SampleRecord};
use crate::task::{self, Evaluation, Settings, TaskError, TextCodec};

/// Errors of rebuilding a prompt.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// The data set is unusable, or a protocol does not fit it.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The result is not what the run used.
    #[error("{0}")]
    Other(String),
}

/// Rebuilds the item's first prompt from the data set in `folder`. Returns only what the model really saw: the item's
/// content and the prompt's text must have the recorded hashes.
///
/// # Errors
/// The data set cannot be read, lacks the item, or has a different one under that name. Or the prompt differs from the
/// run's.
pub fn first_prompt(
    case: &AccuracyCase,
    sample: &SampleRecord,
    folder: &Path,
    codec: &dyn TextCodec,
) -> Result<CallRecord, PromptError> {
    let other = |message: String| Err(PromptError::Other(message));
    let shown = folder.display();
    let split = sample.doc_id.split('/').nth(1);
    let (Some(benchmark), Some(split)) = (benchmark_of(case), split) else {
        return other(format!("{} belongs to no benchmark that this program knows", sample.doc_id));
    };
    let asked = case.asked_under();
    let Some(protocol) = task::find(benchmark, asked) else {
        return other(format!("this program has no protocol {asked} for {benchmark}"));
    };
    let settings = Settings {
        split: split.to_owned(),
        // The item's subject is enough, and faster to read than the whole split.
        subjects: Some(sample.subject.clone()).filter(|subject| !subject.is_empty()).into_iter().collect(),
        shots: Some(case.shots as usize),
        ..Settings::default()
    };
    let source = Source::open(benchmark, folder).map_err(TaskError::from)?;
    let plan = task::Plan::new(protocol, &source, &settings)?;
    let Some(index) = (0..plan.chosen.len()).find(|&i| plan.item(i).doc_id == sample.doc_id) else {
        return other(format!("{shown} has no item {}", sample.doc_id));
    };
    if plan.item(index).doc_hash != sample.doc_hash {
        return other(format!(
            "{} in {shown} is not the question of the run: its hash differs",
            sample.doc_id
        ));
    }
    // A prompt that is too long for the model is accepted here.
    let evaluation = Evaluation::new(plan, codec, usize::MAX)?;
    match evaluation.first_prompt(index) {
        Some((prompt, input_tokens))
            if sample.prompt_hash.is_empty() || sha256_hex(prompt.as_bytes()) == sample.prompt_hash =>
        {
            Ok(CallRecord { prompt, input_tokens })
        }
        Some(_) => {
            other(format!("the prompt made from {shown} is not the prompt of the run: its hash differs"))
        }
        None => other(format!("the protocol {asked} cannot ask {}", sample.doc_id)),
    }
}
