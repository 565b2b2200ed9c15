//! The lines of the samples of lm-evaluation-harness.

use super::{Kind, Prompts, Task};
use crate::record::{CallRecord, SampleRecord, hex};
use crate::report::export::python::float;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// What lm-evaluation-harness takes for an answer that was not found.
const INVALID: &str = "[invalid]";

fn hash(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// What the model was asked for an item, and what it answered.
struct Answers {
    /// Arguments of the requests.
    arguments: Value,
    /// Answers to the requests.
    resps: Value,
    /// What the filter keeps of the answers.
    filtered: Value,
}

/// Returns the sample lines of a task, and the hash over all of them.
pub(super) fn samples(task: &Task<'_>, prompts: &Prompts<'_>) -> (String, String) {
    let (mut lines, mut hashes) = (String::new(), String::new());
    for (number, sample) in task.samples.iter().enumerate() {
        let calls =
            prompts.get(&(sample.task.as_str(), sample.doc_id.as_str())).map_or(&[][..], |p| &p.calls);
        let prompt = calls.last().map_or("", |call| call.prompt.as_str());
        // Of the prompt that is shown, which is the last; the sample has that of the first.
        let prompt_hash = match task.kind {
            // Each prompt has another continuation, or another part of the text.
            Kind::Continuations | Kind::Text => sample.prompt_hash.clone(),
            _ => calls.last().map_or_else(|| sample.prompt_hash.clone(), |call| hash(&call.prompt)),
        };
        let doc = json!({ "id": sample.doc_id, "subject": sample.subject, "category": sample.category });
        let doc_hash = hash(&serde_json::to_string_pretty(&doc).unwrap_or_default());
        let target_hash = hash(&sample.gold);
        hashes.extend([doc_hash.as_str(), &prompt_hash, &target_hash]);
        let Answers { arguments, resps, filtered } = match task.kind {
            Kind::Tokens(choices) => {
                let arguments = choices.iter().map(|choice| (prompt, choice.text.as_str()));
                chosen(arguments, sample)
            }
            Kind::Continuations => chosen(calls.iter().map(|call| (call.prompt.as_str(), "")), sample),
            Kind::Text => scored(calls, sample),
            Kind::Generated => generated(prompt, sample),
            Kind::Scored => Answers { filtered: json!([sample.text]), ..generated(prompt, sample) },
            Kind::Programs => programs(prompt, sample),
        };
        let mut line = json!({
            "doc_id": number,
            "doc": doc,
            "target": sample.gold,
            "arguments": arguments,
            "resps": resps,
            "filtered_resps": filtered,
            "filter": "none",
            "metrics": task.metrics(),
            "doc_hash": doc_hash,
            "prompt_hash": prompt_hash,
            "target_hash": target_hash,
        });
        for metric in task.metrics() {
            line[&metric] = task.value(&metric, sample);
        }
        lines += &format!("{line}\n");
    }
    (lines, hash(&hashes))
}

/// Returns the answers of an item whose answer was chosen by probability.
fn chosen<'a>(requests: impl Iterator<Item = (&'a str, &'a str)>, sample: &SampleRecord) -> Answers {
    let best = sample.choice_logprobs.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let answer = |logprob: &f32| {
        let is_best = if *logprob == best { "True" } else { "False" };
        json!([float(f64::from(*logprob)), is_best])
    };
    let arguments: Map<String, Value> = requests
        .enumerate()
        .map(|(at, (prompt, more))| (format!("gen_args_{at}"), json!({ "arg_0": prompt, "arg_1": more })))
        .collect();
    let filtered: Vec<Value> = sample.choice_logprobs.iter().map(answer).collect();
    let resps: Vec<Value> = filtered.iter().map(|answer| json!([answer])).collect();
    Answers { arguments: arguments.into(), resps: resps.into(), filtered: filtered.into() }
}

/// Returns the answers of a text that is scored itself.
fn scored(calls: &[CallRecord], sample: &SampleRecord) -> Answers {
    let arguments: Map<String, Value> = calls
        .iter()
        .enumerate()
        .map(|(at, call)| (format!("gen_args_{at}"), json!({ "arg_0": call.prompt })))
        .collect();
    let sum = sample.measures.get("loglikelihood");
    Answers { arguments: arguments.into(), resps: json!([[sum]]), filtered: json!([sum]) }
}

/// Returns the answers of an item whose answer was read from a text.
fn generated(prompt: &str, sample: &SampleRecord) -> Answers {
    let arguments =
        json!({ "gen_args_0": { "arg_0": prompt, "arg_1": { "until": [], "do_sample": false } } });
    let filtered = json!([sample.pred.as_deref().unwrap_or(INVALID)]);
    Answers { arguments, resps: json!([[sample.text]]), filtered }
}

/// Returns the answers of an item whose answers were made programs: each answer's code, and each program's verdict.
fn programs(prompt: &str, sample: &SampleRecord) -> Answers {
    let codes: Vec<&str> = sample.programs.iter().map(|one| one.code.as_str()).collect();
    let verdicts: Vec<&str> = sample.programs.iter().map(|one| one.verdict.as_str()).collect();
    Answers { resps: json!([codes]), filtered: json!(verdicts), ..generated(prompt, sample) }
}
