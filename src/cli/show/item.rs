//! Showing an item: its prompts, the model's answer, and the answer's score.

use anyhow::{Context, bail};
use serde_json::{Value, json};

use glmbench_engine::load::load_tokenizer;
use glmbench_engine::tokenizer::Tokenizer;

use crate::cli::data::dataset_folder;
use crate::cli::report::drawn_columns;
use crate::language::{Language, Text, ToText, joined, text};
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
    missing: Option<Text>,
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
) -> anyhow::Result<(Vec<CallRecord>, Option<Text>)> {
    if let Some(kept) = run.dir.read_prompts(|record| record.is_of(sample))?.into_iter().next() {
        return Ok((kept.calls, None));
    }
    match rebuilt_prompt(args, run, sample) {
        Ok(call) => {
            let note = text!(
                "built again from the data set; its hash is the recorded one. Prompts of later calls were not stored"
            );
            Ok((vec![call], (sample.input_tokens_n > 0).then_some(note)))
        }
        Err(error) => Ok((
            Vec::new(),
            Some(text!(
                "the run stored no prompt of this item, and it cannot be built again: {error}. Give the run's data set \
                 (--dataset DIR or --set TASK=DIR) and tokenizer (--model DIR)",
                error = format!("{error:#}")
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
pub(super) fn words(sample: &SampleRecord, views: &[View<'_>], language: Language) -> String {
    let say = |text: Text| one_line(&text.in_language(language)).into_owned();
    let place = [&sample.subject, &sample.category].into_iter().filter(|part| !part.is_empty());
    let mut place: Vec<Text> = place.map(|part| Text::term(part.as_str())).collect();
    place.extend(sample.hard.then(|| text!("hard")));
    let place = joined(place, ", ");
    let head = text!("{item} of {task}  {place}", item = sample.doc_id, task = sample.task, place);
    let mut text = format!("{}\n", say(head));
    for line in flip(views) {
        text += &format!("{}\n", say(line));
    }
    text += &format!("\n{}\n", facts(sample, views, language));
    for (index, view) in views.iter().enumerate() {
        let title =
            if views.len() > 1 { text!(", run {run}", run = one_line(view.run.id())) } else { Text::EMPTY };
        let same_prompts = index > 0 && !view.calls.is_empty() && view.calls == views[0].calls;
        for (head, body) in asked(view, &title, same_prompts).into_iter().chain(answered(view, &title)) {
            text += &format!("── {}\n{body}", say(head));
        }
    }
    text
}

/// Describes in lines what changed between two runs.
fn flip(views: &[View<'_>]) -> Vec<Text> {
    let [View { sample: Some(a), .. }, View { sample: Some(b), .. }] = views else { return Vec::new() };
    let mut lines = Vec::new();
    if a.doc_hash != b.doc_hash {
        lines.push(text!("NOT THE SAME QUESTION: the items have the same name but different content"));
    } else if a.prompt_hash != b.prompt_hash {
        lines.push(text!("the first prompts differ"));
    }
    lines.push(if outcome(a) == outcome(b) && a.pred == b.pred {
        text!("both {outcome}", outcome = outcome(a))
    } else {
        text!("flip: {before} → {after}", before = outcome(a), after = outcome(b))
    });
    lines
}

fn outcome(sample: &SampleRecord) -> Text {
    match (sample.state, sample.correct) {
        (SampleState::Scored, true) => text!("right"),
        (SampleState::Scored, false) => text!("wrong"),
        (SampleState::Unscorable, _) => text!("unscorable"),
        (SampleState::Failed, _) => text!("failed"),
    }
}

/// Formats the facts: one line per fact, one column per run.
fn facts(sample: &SampleRecord, views: &[View<'_>], language: Language) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: Text, of: &dyn Fn(&View<'_>, &SampleRecord) -> Text| {
        let absent = || text!("not in this run");
        let cells: Vec<Text> = views.iter().map(|v| v.sample.map_or_else(absent, |s| of(v, s))).collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            let texts = std::iter::once(name).chain(cells);
            rows.push(texts.map(|text| text.in_language(language)).collect());
        }
    };
    let none = Text::default;
    row(text!("outcome"), &|_, s| outcome(s));
    row(text!("gold"), &|_, s| s.gold.to_text());
    row(text!("answer"), &|_, s| s.pred.as_ref().map_or_else(none, ToText::to_text));
    row(text!("program"), &|_, s| joined(s.programs.iter().map(|one| one.verdict.as_str()), "; "));
    row(text!("rule"), &|_, s| s.extract_rule.to_text());
    row(text!("error"), &|_, s| s.error.as_ref().map_or_else(none, ToText::to_text));
    let choices = views.iter().filter_map(|v| v.sample.map(|s| s.choice_logprobs.len())).max().unwrap_or(0);
    for index in 0..choices {
        let name = choice_name(views, sample, index);
        row(text!("ln p({name})", name), &|_, s| match s.choice_logprobs.get(index) {
            Some(x) if x.is_nan() => text!("not a number"),
            Some(x) => x.to_text(),
            None => none(),
        });
    }
    row(text!("margin"), &|_, s| s.margin.map_or_else(none, |x| x.to_text()));
    row(text!("tokens"), &|_, s| {
        text!("{input} in, {output} out", input = s.input_tokens_n, output = s.output_tokens.len())
    });
    row(text!("time"), &|v, s| {
        let ms = s.t_end_ns.saturating_sub(s.t_start_ns) as f64 / 1e6;
        let run = &v.run.records.run;
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let input = u32::try_from(s.input_tokens_n).unwrap_or(u32::MAX);
        let lengths = [run.provenance.batch, input, count(s.output_tokens.len())];
        let error = modelled::error_at(run, Phase::E2e, run.provenance.tp, lengths);
        let ms = format!("{ms:.1}");
        text!(
            "{ms} ms {clock}{error}, in a batch",
            ms,
            clock = run.provenance.clock,
            error = modelled::words(error)
        )
    });
    row(text!("protocol"), &|v, s| {
        let case = v.run.records.run.plan.accuracy.iter().find(|case| case.task == s.task);
        case.map_or_else(none, |case| case.protocol.to_text())
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
fn choice_name(views: &[View<'_>], sample: &SampleRecord, index: usize) -> Text {
    let tokens = views.first().and_then(|v| v.run.records.run.choice_tokens.get(&sample.task));
    tokens.and_then(|tokens| tokens.get(index)).map_or_else(
        || text!("choice {number}", number = index + 1),
        |token| text!("{text}, id {id}", text = token.text, id = token.id),
    )
}

/// A part of the listing: its head, and the lines below it.
type Part = (Text, String);

fn asked(view: &View<'_>, title: &Text, same: bool) -> Vec<Part> {
    let mut parts = Vec::new();
    if view.sample.is_some_and(|s| s.input_tokens_n == 0) {
        parts.push((text!("the model was not asked{title}", title), String::new()));
    }
    let of = view.calls.len();
    for (index, call) in view.calls.iter().enumerate() {
        let (number, tokens) = (index + 1, call.input_tokens.len());
        if same {
            parts.push((text!("prompt {number} of {of}{title}: the same", number, of, title), String::new()));
            continue;
        }
        let head = text!("prompt {number} of {of}, {tokens} tokens{title}", number, of, tokens, title);
        parts.push((head, format!("{}\n", call.prompt)));
        parts.push((text!("its ids"), format!("{:?}\n", call.input_tokens)));
    }
    if let Some(missing) = &view.missing {
        parts.push((text!("prompt{title}: {missing}", title, missing), String::new()));
    }
    parts
}

fn answered(view: &View<'_>, title: &Text) -> Vec<Part> {
    match view.sample {
        Some(sample) if sample.output_tokens.is_empty() && sample.text.is_empty() => {
            vec![(text!("nothing was generated{title}", title), String::new())]
        }
        Some(sample) => vec![
            (
                text!("answer, {tokens} tokens{title}", tokens = sample.output_tokens.len(), title),
                format!("{}\n", sample.text),
            ),
            (text!("its ids"), format!("{:?}\n", sample.output_tokens)),
        ],
        None => vec![(text!("not in run {run}", run = one_line(view.run.id())), String::new())],
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
