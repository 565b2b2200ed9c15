//! The files of lm-evaluation-harness: one of results, and one of samples for each task.
//!
//! Source: `lm_eval/loggers/evaluation_tracker.py` of lm-evaluation-harness 0.4.

mod samples;

use self::samples::samples;
use super::modeltest::plain;
use super::{Export, ExportError, File, Output, Records};
use crate::record::{AccuracyCase, ChoiceToken, PromptRecord, SampleRecord, SampleState};
use crate::report::measures::perplexities;
use serde_json::{Map, Value, json};
use std::collections::{BTreeSet, HashMap};

/// The format `lm-eval`.
#[derive(Debug)]
pub(super) struct LmEval;

impl Export for LmEval {
    fn name(&self) -> &'static str {
        "lm-eval"
    }

    fn about(&self) -> &'static str {
        "Files of lm-evaluation-harness: results_TIME.json, and samples_TASK_TIME.jsonl for each task"
    }

    fn details(&self) -> String {
        ABOUT.to_owned()
    }

    fn output(&self) -> Output {
        Output::Files(files)
    }

    fn prompt_fields(&self) -> Option<&'static str> {
        Some("arguments")
    }
}

const ABOUT: &str = "\
These files have the names and keys of lm-evaluation-harness 0.4, in a folder named after the model.
Viewers that read its results can read them. They differ as follows.
- `doc` has the item's name, subject and category: a run does not keep the items of a data set.
  `doc_hash` is the hash of this `doc`. `doc_id` counts the task's exported items from 0.
- An answer chosen by probability is a `multiple_choice`, scored by `acc`. Each choice has an argument
  with the last prompt. Its answer has the log-probability, and whether it is the best of the choices.
  Of continuations, each argument is a prompt with its continuation, and `acc_norm` is the accuracy by
  characters if the run has it.
- Texts that are scored themselves are a `loglikelihood_rolling`, with the perplexities. Their samples
  have the log-likelihood beside the number of words, bytes or tokens. `token_perplexity` is ours.
- An answer read from a text is a `generate_until`, scored by `exact_match`. `filtered_resps` has what
  was read, or `[invalid]`.
- An answer that is run is a `generate_until`, scored by `pass@1`, or by the pass@k of several answers. `resps` has
  the code of each, and `filtered_resps` the verdicts.
- A text that is scored against references has the measures of its protocol as metrics.
- Items that the model did not answer are in no sample and no score. `n-samples` counts those that it
  answered as `effective`, and those of the data set as `original`.
- `acc_stderr` is sqrt(p (1 - p) / (n - 1)), and that of another measure the standard error of the mean.
- Keys that only lm-evaluation-harness can fill, such as its version, are null.
- Times of performance cases are in other formats.
";

/// The metric of programs with one answer to each item.
const PASS_1: &str = "pass@1";

/// The prompts by task and item.
type Prompts<'a> = HashMap<(&'a str, &'a str), &'a PromptRecord>;

/// A task with its answered items.
struct Task<'a> {
    case: &'a AccuracyCase,
    samples: Vec<&'a SampleRecord>,
    kind: Kind<'a>,
}

/// How a task's answers come about.
#[derive(Clone, Copy)]
enum Kind<'a> {
    /// One of these tokens is chosen by probability.
    Tokens(&'a [ChoiceToken]),
    /// A continuation is chosen by probability.
    Continuations,
    /// Nothing is answered: the text itself is scored.
    Text,
    /// The answer is read from a generated text.
    Generated,
    /// The answer is a program, or several, that are run.
    Programs,
    /// The answer is a text that is scored. No item is right or wrong.
    Scored,
}

/// The perplexities of scored texts, and the measures that they count. The last is ours. It is exported where only the second half
/// of each window is scored.
const OF_TEXTS: [(&str, &str, &str); 4] = [
    ("word_perplexity", "word perplexity", "words"),
    ("byte_perplexity", "byte perplexity", "bytes"),
    ("bits_per_byte", "bits per byte", "bytes"),
    ("token_perplexity", "token perplexity", "tokens"),
];

impl Task<'_> {
    fn metrics(&self) -> Vec<String> {
        let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect();
        match self.kind {
            Kind::Continuations if self.has("acc-characters") => names(&["acc", "acc_norm"]),
            Kind::Tokens(_) | Kind::Continuations => names(&["acc"]),
            Kind::Text if self.has("words") => names(&OF_TEXTS.map(|(metric, ..)| metric)[..3]),
            Kind::Text => names(&["token_perplexity"]),
            Kind::Generated => names(&["exact_match"]),
            Kind::Programs => match self.measures() {
                none if none.is_empty() => names(&[PASS_1]),
                several => several,
            },
            Kind::Scored => self.measures(),
        }
    }

    /// Names of the measures that some item has.
    fn measures(&self) -> Vec<String> {
        let all: BTreeSet<&String> = self.samples.iter().flat_map(|sample| sample.measures.keys()).collect();
        all.into_iter().cloned().collect()
    }

    fn output_type(&self) -> &'static str {
        match self.kind {
            Kind::Tokens(_) | Kind::Continuations => "multiple_choice",
            Kind::Text => "loglikelihood_rolling",
            Kind::Generated | Kind::Programs | Kind::Scored => "generate_until",
        }
    }

    /// Perplexities are better if lower.
    fn is_higher_better(&self) -> bool {
        !matches!(self.kind, Kind::Text)
    }

    fn has(&self, measure: &str) -> bool {
        self.samples.iter().any(|sample| sample.measures.contains_key(measure))
    }

    /// The value of a metric for one item.
    fn value(&self, metric: &str, sample: &SampleRecord) -> Value {
        let measure = |name: &str| sample.measures.get(name).copied();
        match (self.kind, metric) {
            (Kind::Text, metric) => {
                let unit =
                    OF_TEXTS.iter().find(|(known, ..)| *known == metric).map_or("", |(.., unit)| *unit);
                json!([measure("loglikelihood"), measure(unit)])
            }
            _ => json!(self.right(metric, sample)),
        }
    }

    /// 1 for an item that is right by a metric, else 0. Of a measure: its value.
    fn right(&self, metric: &str, sample: &SampleRecord) -> f64 {
        let correct = f64::from(u8::from(sample.correct));
        // The protocol's own accuracy may be a normalised one.
        let measure = match (self.kind, metric) {
            (Kind::Continuations, "acc_norm") => Some("acc-characters"),
            (Kind::Continuations, _) => Some("acc-none"),
            (Kind::Programs | Kind::Scored, metric) => Some(metric),
            _ => None,
        };
        measure.and_then(|name| sample.measures.get(name)).copied().unwrap_or(correct)
    }

    /// A metric over the items, and its standard error.
    fn score(&self, metric: &str) -> (Option<f64>, Option<f64>) {
        if matches!(self.kind, Kind::Text) {
            let name = OF_TEXTS.iter().find(|(known, ..)| *known == metric).map(|(_, name, _)| *name);
            let all = perplexities(self.samples.iter().copied());
            return (
                all.iter()
                    .find(|(known, ..)| name.is_some_and(|name| *known == name))
                    .map(|(_, figure, _)| *figure),
                None,
            );
        }
        // A measure is of the items that have it.
        let has = |sample: &&&SampleRecord| {
            !matches!(self.kind, Kind::Scored) || sample.measures.contains_key(metric)
        };
        let values: Vec<f64> =
            self.samples.iter().filter(has).map(|sample| self.right(metric, sample)).collect();
        let n = values.len() as f64;
        let share = values.iter().sum::<f64>() / n;
        // Of shares, the sum of squares around the mean is n p (1 - p).
        let squares: f64 = values.iter().map(|value| (value - share).powi(2)).sum();
        (Some(share), (n > 1.0).then(|| (squares / (n * (n - 1.0))).sqrt()))
    }
}

/// Returns the files of a run, none if no item is answered.
fn files(records: &Records) -> Result<Vec<File>, ExportError> {
    let run = &records.run;
    let tasks: Vec<Task<'_>> = run
        .plan
        .accuracy
        .iter()
        .map(|case| task(records, case))
        .filter(|task| !task.samples.is_empty())
        .collect();
    if tasks.is_empty() {
        return Ok(Vec::new());
    }
    let prompts = records.prompts.iter().map(|p| ((p.task.as_str(), p.doc_id.as_str()), p)).collect();
    let (folder, time) = (plain(&run.provenance.model), time_id(&run.provenance.started));
    let mut files = Vec::new();
    let mut hashes = Map::new();
    for task in &tasks {
        let (lines, hash) = samples(task, &prompts);
        hashes.insert(task.case.task.clone(), hash.into());
        let path = format!("{folder}/samples_{}_{time}.jsonl", plain(&task.case.task));
        files.push(File { path, bytes: lines.into_bytes() });
    }
    let results =
        serde_json::to_string_pretty(&results(records, &tasks, &hashes)).map_err(std::io::Error::from)?;
    files.insert(
        0,
        File { path: format!("{folder}/results_{time}.json"), bytes: (results + "\n").into_bytes() },
    );
    Ok(files)
}

fn task<'a>(records: &'a Records, case: &'a AccuracyCase) -> Task<'a> {
    let answered = |sample: &&SampleRecord| sample.task == case.task && sample.state != SampleState::Failed;
    let samples: Vec<_> = records.samples.iter().filter(answered).collect();
    let choices = records.run.choice_tokens.get(&case.task).map(Vec::as_slice);
    let fits = |choices: &&[ChoiceToken]| {
        let all = |sample: &&SampleRecord| sample.choice_logprobs.len() == choices.len();
        !choices.is_empty() && samples.iter().all(all)
    };
    let kind = match choices.filter(fits) {
        Some(choices) => Kind::Tokens(choices),
        None if case.keyless
            && samples.iter().any(|sample| sample.measures.contains_key("loglikelihood")) =>
        {
            Kind::Text
        }
        None if case.keyless => Kind::Scored,
        None if samples.iter().any(|sample| !sample.programs.is_empty()) => Kind::Programs,
        None if samples.iter().any(|sample| !sample.choice_logprobs.is_empty()) => Kind::Continuations,
        None => Kind::Generated,
    };
    Task { case, samples, kind }
}

/// The point in time in the file names: `2026-01-02T03-04-05.000000`.
fn time_id(started: &str) -> String {
    let time = plain(&started.trim_end_matches('Z').replace(':', "-"));
    if time.contains('.') { time } else { time + ".000000" }
}

/// Seconds since 1970 of a point in time as records have it. `None` if it is none.
fn seconds(rfc3339: &str) -> Option<i64> {
    let number = |at: std::ops::Range<usize>| rfc3339.get(at)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    // Days from civil (H. Hinnant): years begin in March, so that leap days end them.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

fn results(records: &Records, tasks: &[Task<'_>], task_hashes: &Map<String, Value>) -> Value {
    let (run, from) = (&records.run, &records.run.provenance);
    let of_each = |value: &dyn Fn(&Task<'_>) -> Value| -> Value {
        tasks.iter().map(|task| (task.case.task.clone(), value(task))).collect::<Map<_, _>>().into()
    };
    let (start, end) = (seconds(&from.started), from.finished.as_deref().and_then(seconds));
    // The format has one limit for all tasks.
    let limited = tasks.iter().filter(|task| task.case.available.is_some_and(|all| task.case.items < all));
    let limit = limited.map(|task| task.case.items).max();
    let mut all = json!({
        "results": of_each(&|task| {
            let mut all = json!({ "alias": task.case.task });
            for metric in task.metrics() {
                let (score, error) = task.score(&metric);
                all[format!("{metric},none")] = json!(score);
                all[format!("{metric}_stderr,none")] = error.map_or_else(|| "N/A".into(), Value::from);
            }
            all
        }),
        "group_subtasks": of_each(&|_| json!([])),
        "configs": of_each(&|task| configuration(task)),
        "versions": of_each(&|task| json!(task.case.version_hash)),
        "n-shot": of_each(&|task| json!(task.case.shots)),
        "higher_is_better": of_each(&|task| {
            task.metrics().into_iter().map(|metric| (metric, task.is_higher_better().into())).collect::<Map<_, _>>().into()
        }),
        "n-samples": of_each(&|task| {
            json!({ "original": task.case.available.unwrap_or(task.case.items), "effective": task.samples.len() })
        }),
        "config": {
            "model": from.engine,
            "model_args": format!("pretrained={}", from.model),
            "model_dtype": from.dtype.to_string(),
            "batch_size": from.batch,
            "device": from.device.to_string(),
            "limit": limit,
            "gen_kwargs": null,
        },
        "git_hash": from.git_commit,
        "date": start,
        "pretty_env_info": format!("{}, {}, {} threads, kernels {}", from.os, from.cpu_model, from.threads, from.kernel),
        "task_hashes": task_hashes,
        "model_source": "glmbench",
        "model_name": from.model,
        "model_name_sanitized": plain(&from.model),
        "fewshot_as_multiturn": false,
        "start_time": start,
        "end_time": end,
        "total_evaluation_time_seconds": start.zip(end).map(|(start, end)| (end - start).to_string()),
        "glmbench_run": run.run_id,
    });
    if let Value::Object(all) = &mut all {
        all.extend(UNKNOWN.map(|key| (key.to_owned(), Value::Null)));
    }
    all
}

/// Keys of results that a run does not know.
const UNKNOWN: [&str; 12] = [
    "transformers_version",
    "lm_eval_version",
    "upper_git_hash",
    "tokenizer_pad_token",
    "tokenizer_eos_token",
    "tokenizer_bos_token",
    "eot_token_id",
    "max_length",
    "system_instruction",
    "system_instruction_sha",
    "chat_template",
    "chat_template_sha",
];

fn configuration(task: &Task<'_>) -> Value {
    let of = |metric: &str| {
        // lm-evaluation-harness's names of how perplexities are aggregated.
        let aggregation = match metric {
            "word_perplexity" | "byte_perplexity" | "token_perplexity" => "weighted_perplexity",
            "bits_per_byte" => "bits_per_byte",
            _ => "mean",
        };
        json!({ "metric": metric, "aggregation": aggregation, "higher_is_better": task.is_higher_better() })
    };
    let metrics: Vec<Value> = task.metrics().iter().map(|metric| of(metric)).collect();
    json!({
        "task": task.case.task,
        "dataset_path": task.case.benchmark,
        "dataset_name": task.case.dataset,
        "output_type": task.output_type(),
        "num_fewshot": task.case.shots,
        "metric_list": metrics,
        "metadata": { "version": task.case.version_hash, "protocol": task.case.protocol },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time_are_seconds() {
        let known = [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-11-29T03:33:20Z", 1_795_923_200),
        ];
        for (text, expected) in known {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in ["", "2026", "2026-11-29", "…………………", "2026-1a-29T03:33:20Z"] {
            assert_eq!(seconds(text), None, "{text}");
        }
        assert_eq!(time_id("2026-11-29T03:33:20Z"), "2026-11-29T03-33-20.000000");
    }
}
