//! Showing an item: its prompts, the model's answer, and the answer's score.

use anyhow::{Context, bail};
use serde_json::{Value, json};

use glmbench_engine::load::load_tokenizer;
use glmbench_engine::tokenizer::Tokenizer;

use crate::cli::data::dataset_folder;
use crate::cli::report::drawn_columns;
use crate::record::{CallRecord, Phase, SampleRecord, SampleState};
use crate::report::modelled;
use crate::run::found::model_path;
use crate::run::prompts::first_prompt;
use crate::text::one_line;

use super::{Args, Shown, value};

/// What a run has recorded about an item.
pub(super) struct View<'a> {
    run: &'a Shown,
    sample: Option<&'a SampleRecord>,
    calls: Vec<CallRecord>,
    /// Why prompts are missing, and what to do.
    missing: Option<String>,
}

/// Finds the item in every run. In another run, it is the item of the same task, or of the only task that has it.
pub(super) fn views<'a>(
    args: &Args,
    runs: &[&'a Shown],
    sample: &SampleRecord,
) -> anyhow::Result<Vec<View<'a>>> {
    runs.iter()
        .map(|run| {
            let found = counterpart(run, sample);
            let (calls, missing) = match found {
                Some(found) => prompts(args, run, found)?,
                None => (Vec::new(), None),
            };
            Ok(View { run, sample: found, calls, missing })
        })
        .collect()
}

fn counterpart<'a>(run: &'a Shown, sample: &SampleRecord) -> Option<&'a SampleRecord> {
    let same: Vec<&SampleRecord> =
        run.records.samples.iter().filter(|other| other.doc_id == sample.doc_id).collect();
    same.iter().find(|other| other.task == sample.task).copied().or(match same.as_slice() {
        [one] => Some(one),
        _ => None,
    })
}

/// Returns the recorded prompts, else the rebuilt first prompt, else the reason why there is none.
fn prompts(
    args: &Args,
    run: &Shown,
    sample: &SampleRecord,
) -> anyhow::Result<(Vec<CallRecord>, Option<String>)> {
    if let Some(kept) = run.dir.read_prompts(|record| record.is_of(sample))?.into_iter().next() {
        return Ok((kept.calls, None));
    }
    match rebuilt_prompt(args, run, sample) {
        Ok(call) => {
            let note = "built again from the data set; its hash is the recorded one. Prompts of later calls were not stored";
            Ok((vec![call], (sample.input_tokens_n > 0).then(|| note.to_owned())))
        }
        Err(error) => Ok((
            Vec::new(),
            Some(format!(
                "the run stored no prompt of this item, and it cannot be built again: {error:#}. Give the run's data set \
                 (--dataset DIR or --set TASK=DIR) and tokenizer (--model DIR)"
            )),
        )),
    }
}

fn rebuilt_prompt(args: &Args, run: &Shown, sample: &SampleRecord) -> anyhow::Result<CallRecord> {
    let cases = &run.records.run.plan.accuracy;
    let case = cases.iter().find(|case| case.task == sample.task).context("the plan has no such task")?;
    let folder = dataset_folder(&args.set, args.dataset.as_ref(), case)?;
    let tokenizer = tokenizer(args, run)?;
    Ok(first_prompt(case, sample, &folder, &tokenizer)?)
}

/// Returns the run's tokenizer and rejects any other.
fn tokenizer(args: &Args, run: &Shown) -> anyhow::Result<Tokenizer> {
    let word = args.model.as_deref().unwrap_or(run.records.run.provenance.model.as_ref());
    let path = model_path(word)?;
    let word = word.display();
    let dir = path.tokenizer_dir().with_context(|| format!("{word} has no tokenizer"))?;
    let tokenizer = load_tokenizer(dir, None)?;
    match run.records.run.identity.get("tokenizer") {
        Some(hash) if hash != tokenizer.sha256() => bail!("{word}: its tokenizer is not the run's"),
        _ => Ok(tokenizer),
    }
}

/// Formats the item as text.
pub(super) fn words(sample: &SampleRecord, views: &[View<'_>]) -> String {
    let place = [&sample.subject, &sample.category].map(String::as_str);
    let mut place: Vec<&str> = place.into_iter().filter(|part| !part.is_empty()).collect();
    place.extend(sample.hard.then_some("hard"));
    let head = format!("{} of {}  {}", sample.doc_id, sample.task, place.join(", "));
    let mut text = format!("{}\n", one_line(&head));
    text += &flip(views);
    text += &format!("\n{}\n", facts(sample, views));
    for (index, view) in views.iter().enumerate() {
        let title =
            if views.len() > 1 { format!(", run {}", one_line(view.run.id())) } else { String::new() };
        let same_prompts = index > 0 && !view.calls.is_empty() && view.calls == views[0].calls;
        text += &asked(view, &title, same_prompts);
        text += &answered(view, &title);
    }
    text
}

/// Describes in a line what changed between two runs.
fn flip(views: &[View<'_>]) -> String {
    let [View { sample: Some(a), .. }, View { sample: Some(b), .. }] = views else { return String::new() };
    let mut text = String::new();
    if a.doc_hash != b.doc_hash {
        text += "NOT THE SAME QUESTION: the items have the same name but different content\n";
    } else if a.prompt_hash != b.prompt_hash {
        text += "the first prompts differ\n";
    }
    if outcome(a) == outcome(b) && a.pred == b.pred {
        return text + &format!("both {}\n", outcome(a));
    }
    text + &format!("flip: {} → {}\n", outcome(a), outcome(b))
}

fn outcome(sample: &SampleRecord) -> &'static str {
    match (sample.state, sample.correct) {
        (SampleState::Scored, true) => "right",
        (SampleState::Scored, false) => "wrong",
        (SampleState::Unscorable, _) => "unscorable",
        (SampleState::Failed, _) => "failed",
    }
}

/// Formats the facts: one line per fact, one column per run.
fn facts(sample: &SampleRecord, views: &[View<'_>]) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, of: &dyn Fn(&View<'_>, &SampleRecord) -> String| {
        let absent = || "not in this run".to_owned();
        let cells: Vec<String> = views.iter().map(|v| v.sample.map_or_else(absent, |s| of(v, s))).collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            rows.push(std::iter::once(name.to_owned()).chain(cells).collect());
        }
    };
    row("outcome", &|_, s| outcome(s).to_owned());
    row("gold", &|_, s| s.gold.clone());
    row("answer", &|_, s| s.pred.clone().unwrap_or_default());
    row("program", &|_, s| s.programs.iter().map(|one| one.verdict.as_str()).collect::<Vec<_>>().join("; "));
    row("rule", &|_, s| s.extract_rule.clone());
    row("error", &|_, s| s.error.clone().unwrap_or_default());
    let choices = views.iter().filter_map(|v| v.sample.map(|s| s.choice_logprobs.len())).max().unwrap_or(0);
    for index in 0..choices {
        let name = choice_name(views, sample, index);
        row(&format!("ln p({name})"), &|_, s| {
            s.choice_logprobs
                .get(index)
                .map(|x| if x.is_nan() { "not a number".to_owned() } else { x.to_string() })
                .unwrap_or_default()
        });
    }
    row("margin", &|_, s| s.margin.map(|x| x.to_string()).unwrap_or_default());
    row("tokens", &|_, s| format!("{} in, {} out", s.input_tokens_n, s.output_tokens.len()));
    row("time", &|v, s| {
        let ms = s.t_end_ns.saturating_sub(s.t_start_ns) as f64 / 1e6;
        let run = &v.run.records.run;
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let input = u32::try_from(s.input_tokens_n).unwrap_or(u32::MAX);
        let lengths = [run.provenance.batch, input, count(s.output_tokens.len())];
        let error = modelled::error_at(run, Phase::E2e, run.provenance.tp, lengths);
        format!("{ms:.1} ms {}{}, in a batch", run.provenance.clock, modelled::words(error))
    });
    row("protocol", &|v, s| {
        let case = v.run.records.run.plan.accuracy.iter().find(|case| case.task == s.task);
        case.map(|case| case.protocol.clone()).unwrap_or_default()
    });
    let heads: Vec<String> = match views {
        [_] => Vec::new(),
        several => {
            std::iter::once(String::new()).chain(several.iter().map(|v| v.run.id().to_owned())).collect()
        }
    };
    drawn_columns(&heads, &rows)
}

/// Formats a choice's answer and token: `A, id 316`.
fn choice_name(views: &[View<'_>], sample: &SampleRecord, index: usize) -> String {
    let tokens = views.first().and_then(|v| v.run.records.run.choice_tokens.get(&sample.task));
    match tokens.and_then(|tokens| tokens.get(index)) {
        Some(token) => format!("{}, id {}", token.text, token.id),
        None => format!("choice {}", index + 1),
    }
}

fn asked(view: &View<'_>, title: &str, same: bool) -> String {
    let mut text = String::new();
    if view.sample.is_some_and(|s| s.input_tokens_n == 0) {
        text += &format!("── the model was not asked{title}\n");
    }
    let of = view.calls.len();
    for (index, call) in view.calls.iter().enumerate() {
        let (number, tokens) = (index + 1, call.input_tokens.len());
        if same {
            text += &format!("── prompt {number} of {of}{title}: the same\n");
            continue;
        }
        text += &format!(
            "── prompt {number} of {of}, {tokens} tokens{title}\n{}\n── its ids\n{:?}\n",
            call.prompt, call.input_tokens
        );
    }
    if let Some(missing) = &view.missing {
        text += &format!("── prompt{title}: {}\n", one_line(missing));
    }
    text
}

fn answered(view: &View<'_>, title: &str) -> String {
    match view.sample {
        Some(sample) if sample.output_tokens.is_empty() && sample.text.is_empty() => {
            format!("── nothing was generated{title}\n")
        }
        Some(sample) => format!(
            "── answer, {} tokens{title}\n{}\n── its ids\n{:?}\n",
            sample.output_tokens.len(),
            sample.text,
            sample.output_tokens
        ),
        None => format!("── not in run {}\n", one_line(view.run.id())),
    }
}

/// Returns the item for JSON.
pub(super) fn data(sample: &SampleRecord, views: &[View<'_>]) -> Value {
    let of_run = |view: &View<'_>| {
        json!({
            "run_id": view.run.id(),
            "sample": view.sample.map(value),
            "calls": view.calls.iter().map(value).collect::<Vec<_>>(),
            "calls_note": view.missing,
        })
    };
    json!({
        "task": sample.task,
        "doc_id": sample.doc_id,
        "runs": views.iter().map(of_run).collect::<Vec<_>>(),
    })
}
