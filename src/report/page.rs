//! What the pages of a run say, and the templates that [`super::formats`] fills with it.

use super::Summary;
use super::definitions::DEFINITIONS;
use super::error::ReportError;
use super::format::{command_line, or_none};
use super::headline;
use super::tables::Table;
use super::validity::{Check, Outcome, sentence};
use crate::record::{Clock, Provenance, RunRecord};
use crate::text;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, HtmlEscape, Output, State, Value, context, escape_formatter};

pub(super) fn fill(name: &'static str, context: Value) -> Result<String, ReportError> {
    let mut environment = Environment::new();
    let whitespace =
        SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build()?;
    environment.set_syntax(whitespace);
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    environment.add_filter("code", |code: String| Value::from_safe_string(text::markdown_code(&code)));
    environment.add_filter("prose", |words: String| Value::from_safe_string(prose(&words)));
    // The file extension selects the escaping. Only `safe` strings are not escaped.
    environment.set_auto_escape_callback(|name| match name.rsplit('.').next() {
        Some("md") => AutoEscape::Custom(MARKDOWN.into()),
        _ => AutoEscape::Html,
    });
    environment.set_formatter(escape);
    environment.add_template("report.html", include_str!("templates/report.html"))?;
    environment.add_template("summary.md", include_str!("templates/summary.md"))?;
    environment.add_template("parts.html", include_str!("templates/parts.html"))?;
    environment.add_template("comparison.html", include_str!("templates/comparison.html"))?;
    environment.add_template("history.html", include_str!("templates/history.html"))?;
    environment.add_template("comparison.md", include_str!("templates/comparison.md"))?;
    Ok(environment.get_template(name)?.render(context)?)
}

/// Name of our escaping mode for Markdown templates.
const MARKDOWN: &str = "markdown";

/// Escapes untrusted text in records: no markup, no invisible characters.
fn escape(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), minijinja::Error> {
    let is_markdown = matches!(state.auto_escape(), AutoEscape::Custom(name) if *name == MARKDOWN);
    let foreign = value.as_str().filter(|_| value.kind() == ValueKind::String && !value.is_safe());
    match foreign {
        Some(foreign) if is_markdown => Ok(out.write_str(&text::markdown(foreign))?),
        Some(foreign) => escape_formatter(out, state, &Value::from(text::printable(foreign).as_ref())),
        None if is_markdown => Ok(write!(out, "{value}")?),
        None => escape_formatter(out, state, value),
    }
}

/// Escapes a sentence for HTML; what stands between backticks becomes code. A backtick without another one stays.
fn prose(words: &str) -> String {
    let escaped = |text: &str| HtmlEscape(text::printable(text).as_ref()).to_string();
    let mut parts = words.split('`');
    let mut out = parts.next().map(escaped).unwrap_or_default();
    while let Some(part) = parts.next() {
        match parts.next() {
            Some(after) => out += &format!("<code>{}</code>{}", escaped(part), escaped(after)),
            None => out += &format!("`{}", escaped(part)),
        }
    }
    out
}

/// Context of a run's templates.
pub(super) fn words(summary: &Summary) -> Value {
    let run = &summary.run;
    context! {
        run_id => run.run_id.as_str(),
        model => run.provenance.model.as_str(),
        title => headline::title(run),
        suite => run.provenance.suite.as_str(),
        headline => summary.headline.clone(),
        verdict => sentence(run, &summary.checks),
        checks => summary.checks.iter().map(check).collect::<Vec<_>>(),
        tables => summary.tables.iter().map(table).collect::<Vec<_>>(),
        notes => notes(run),
        identity_hash => run.identity.hash(),
        identity => run.identity.fields().iter().map(|(k, v)| context! { name => k, value => v }).collect::<Vec<_>>(),
        provenance => provenance_fields(&run.provenance).into_iter().map(|(name, value)| context! { name, value }).collect::<Vec<_>>(),
        choices => choices(run),
        first_prompt => run.first_prompt.as_ref().map(|p| context! {
            task => p.task.as_str(), item => p.doc_id.as_str(), text => p.text.as_str(), tokens => p.token_ids.len(),
        }),
        command_line => command_line(&run.provenance.command_line),
        definitions => definitions(run),
    }
}

fn definitions(run: &RunRecord) -> Vec<Value> {
    let all = DEFINITIONS.into_iter().chain(super::sections::definitions(run));
    let all = all.chain(super::workloads::definitions(run));
    all.map(|(name, text)| context! { name, text }).collect()
}

/// Adapts an SVG for embedding: no namespace, and no size beside its view box.
pub(super) fn inline(svg: &str) -> String {
    let Some(end) = svg.find('>') else { return String::new() };
    let (head, rest) = svg.split_at(end);
    let view_box =
        head.split("viewBox=\"").nth(1).and_then(|tail| tail.split('"').next()).unwrap_or_default();
    format!("<svg viewBox=\"{view_box}\" aria-hidden=\"true\"{rest}")
}

pub(super) fn table(table: &Table) -> Value {
    let columns = table.columns.iter().map(|c| context! { name => c.name.as_str(), numeric => c.numeric });
    let rows = table.rows.iter().map(|row| {
        let cells = row.cells.iter().zip(&table.columns);
        let cells =
            cells.map(|(text, column)| context! { text, short => short(text), numeric => column.numeric });
        context! { strong => row.strong, cells => cells.collect::<Vec<_>>() }
    });
    context! {
        title => table.title.as_str(),
        columns => columns.collect::<Vec<_>>(),
        rows => rows.collect::<Vec<_>>(),
    }
}

/// Shortens hashes to their first twelve digits; `None` if there are none. The page keeps the whole text in a title.
fn short(text: &str) -> Option<String> {
    const KEPT: usize = 12;
    let is_hex = |c: char| matches!(c, '0'..='9' | 'a'..='f');
    let (mut cut, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(is_hex) {
        let (before, from) = rest.split_at(at);
        let length = from.find(|c: char| !is_hex(c)).unwrap_or(from.len());
        let (hex, after) = from.split_at(length);
        cut += before;
        // 32 hex digits or more are a hash; a number is never that long.
        cut += if length < 32 { hex } else { &hex[..KEPT] };
        cut += if length < 32 { "" } else { "…" };
        rest = after;
    }
    cut += rest;
    (cut != text).then_some(cut)
}

pub(super) fn check(check: &Check) -> Value {
    let advised = matches!(check.outcome, Outcome::No | Outcome::Unknown);
    context! {
        condition => check.condition,
        word => check.outcome.word(check.required),
        class => match check.outcome {
            Outcome::Yes => "yes",
            Outcome::No => "no",
            Outcome::Unknown | Outcome::DoesNotApply => "unknown",
        },
        found => check.found.as_str(),
        advice => if advised { check.advice } else { "" },
        required => check.required,
    }
}

/// Notes under the accuracy table, such as chance level and expected score, and what was computed. Then notes on timed prompts.
fn notes(run: &RunRecord) -> Vec<String> {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let note = |case: &crate::record::AccuracyCase| {
        let part = case.part_of();
        let expected = match &part {
            Some(_) => "expected over all items, so not of these",
            None => "expected",
        };
        let parts = [
            Some(format!("{}: {}, {} shots", case.task, case.dataset, case.shots)),
            part.map(|all| format!("{} of {all} items (limited)", case.items)),
            case.chance.map(|share| format!("{} by chance", percent(share))),
            case.expected.map(|share| format!("{} {expected}", percent(share))),
            case.max_failed.map(|share| format!("up to {} may fail", percent(share))),
        ];
        format!("{}.", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    };
    let prompts = |case: &crate::record::PerformanceCase| {
        let prompts = case.prompts.as_ref()?;
        let (least, most) = (prompts.shortest, prompts.longest);
        Some(format!("{}: {}; {least} to {most} tokens each.", case.case_id, prompts.notes.join(", ")))
    };
    let work = run.provenance.work.iter().map(|(task, work)| format!("{task}: {}.", work.words()));
    let timed = run.plan.performance.iter().filter_map(prompts);
    run.plan.accuracy.iter().map(note).chain(work).chain(timed).collect()
}

fn choices(run: &RunRecord) -> Vec<Value> {
    let of_task = |tokens: &[crate::record::ChoiceToken]| {
        tokens.iter().map(|t| format!("{} = {}", t.text, t.id)).collect::<Vec<_>>().join(", ")
    };
    run.choice_tokens.iter().map(|(task, tokens)| context! { task, tokens => of_task(tokens) }).collect()
}

/// All provenance fields of a run, formatted, always in the same order.
pub(super) fn provenance_fields(of: &Provenance) -> Vec<(&'static str, String)> {
    let joined = |pairs: &std::collections::BTreeMap<String, String>| {
        let text = pairs.iter().map(|(k, v)| format!("{k} = {v}")).collect::<Vec<_>>().join(", ");
        if text.is_empty() { "none".to_owned() } else { text }
    };
    let optional = |text: &Option<String>| or_none(text.as_ref(), Clone::clone);
    let commit =
        of.git_commit.clone().unwrap_or_else(|| "not known: GLMBENCH_GIT_COMMIT was not set at build".into());
    let clock = match &of.clock_profile {
        Some(profile) => format!("{}, profile {profile}", of.clock),
        None => of.clock.to_string(),
    };
    let roofline = or_none(of.roofline.as_ref(), |limit| {
        let (memory, arithmetic) = (limit.bandwidth_bytes_per_s / 1e9, limit.peak_flops_per_s / 1e9);
        let from = match of.clock {
            Clock::Measured => "as measured",
            Clock::Modelled => "of one chip by the profile, modelled",
        };
        let how = limit.measured.as_ref().map(|of| match of.peak_words() {
            Some(unit) => format!(" (peak of {unit}; {})", of.method),
            None => format!(" ({})", of.method),
        });
        let how = how.unwrap_or_default();
        format!("{memory:.1} GB/s streamed, {arithmetic:.0} GFLOP/s, {from}{how}")
    });
    vec![
        ("Program", of.engine.clone()),
        ("Commit", commit),
        ("Model", of.model.clone()),
        (
            "Model as read",
            if of.model_details.is_empty() { "not kept".into() } else { joined(&of.model_details) },
        ),
        ("Device", of.device.to_string()),
        ("Kernels", of.kernel.clone()),
        ("Clock", clock),
        ("Type", of.dtype.to_string()),
        ("Tensor parallel", of.tp.to_string()),
        ("Device found", joined(&of.device_details)),
        ("Threads", of.threads.to_string()),
        ("Batch of accuracy tasks", of.batch.to_string()),
        ("Machine's limits", roofline),
        ("Versions", joined(&of.versions)),
        ("Environment", joined(&of.environment)),
        ("Host", of.host.clone()),
        ("System", of.os.clone()),
        ("Processor", of.cpu_model.clone()),
        ("Governor", optional(&of.governor)),
        ("Started", of.started.clone()),
        ("Finished", optional(&of.finished)),
        ("Resumed", of.resumed.to_string()),
        ("Answers scored again from", optional(&of.scored_from)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_backticks_is_code_and_nothing_is_markup() {
        for (words, html) in [
            ("plain", "plain"),
            ("run `a <b>` & then `c`.", "run <code>a &lt;b&gt;</code> &amp; then <code>c</code>."),
            ("a ` alone", "a ` alone"),
            ("`a` and `b", "<code>a</code> and `b"),
            ("``", "<code></code>"),
            ("`<script>\u{1b}`", "<code>&lt;script&gt;\\u{1b}</code>"),
        ] {
            assert_eq!(prose(words), html);
        }
    }
}
