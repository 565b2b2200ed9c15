//! What the pages of a run say, and the templates that [`super::formats`] fills with it.

use super::Summary;
use super::check::{Check, Outcome};
use super::definitions::DEFINITIONS;
use super::error::ReportError;
use super::format::{command_line, or_none};
use super::headline;
use super::table::Table;
use super::validity::sentence;
use crate::language::{Language, Text, ToText, joined, text};
use crate::record::{AccuracyCase, Clock, FirstPrompt, Provenance, Roofline, RunRecord};
use crate::text;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, HtmlEscape, Output, State, Value, context, escape_formatter};

/// Fills a template. In it, `t("…")` puts the template's own words into the language.
pub(super) fn fill(name: &'static str, language: Language, context: Value) -> Result<String, ReportError> {
    let mut environment = Environment::new();
    let whitespace =
        SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build()?;
    environment.set_syntax(whitespace);
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    environment.add_global("language", language.tag());
    environment.add_function("t", move |words: String| language.entry(&words).map_or(words, str::to_owned));
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

/// Template context of a run.
pub(super) fn words(summary: &Summary, language: Language) -> Value {
    let run = &summary.run;
    let say = |text: &Text| text.in_language(language);
    context! {
        run_id => run.run_id.as_str(),
        model => run.provenance.model.as_str(),
        title => say(&headline::title(run)),
        suite => run.provenance.suite.as_str(),
        headline => summary.headline.iter().map(say).collect::<Vec<_>>(),
        verdict => say(&sentence(run, &summary.checks)),
        checks => summary.checks.iter().map(|of| check(of, language)).collect::<Vec<_>>(),
        tables => summary.tables.iter().map(|of| table(of, language)).collect::<Vec<_>>(),
        notes => notes(run).iter().map(say).collect::<Vec<_>>(),
        identity_hash => run.identity.hash(),
        identity => run.identity.fields().iter().map(|(k, v)| context! { name => k, value => v }).collect::<Vec<_>>(),
        provenance => provenance_fields(&run.provenance).iter().map(|(name, value)| context! { name => say(name), value => say(value) }).collect::<Vec<_>>(),
        choices => choices(run),
        first_prompt => run.first_prompt.as_ref().map(|p| context! {
            head => say(&first_prompt(p)), text => p.text.as_str(),
        }),
        command_line => command_line(&run.provenance.command_line),
        definitions => definitions(run).iter().map(|of| definition(of, language)).collect::<Vec<_>>(),
    }
}

fn definitions(run: &RunRecord) -> Vec<(Text, Text)> {
    let all = DEFINITIONS.into_iter().chain(super::sections::definitions(run));
    all.chain(super::workloads::definitions(run)).collect()
}

/// A definition: its name and its text.
pub(super) fn definition((name, text): &(Text, Text), language: Language) -> Value {
    context! { name => name.in_language(language), text => text.in_language(language) }
}

/// Adapts an SVG for embedding: no namespace, and no size beside its view box.
pub(super) fn inline(svg: &str) -> String {
    let Some(end) = svg.find('>') else { return String::new() };
    let (head, rest) = svg.split_at(end);
    let view_box =
        head.split("viewBox=\"").nth(1).and_then(|tail| tail.split('"').next()).unwrap_or_default();
    format!("<svg viewBox=\"{view_box}\" aria-hidden=\"true\"{rest}")
}

pub(super) fn table(table: &Table, language: Language) -> Value {
    let columns =
        table.columns.iter().map(|c| context! { name => c.name.in_language(language), numeric => c.numeric });
    let rows = table.rows.iter().map(|row| {
        let cells = row.cells.iter().zip(&table.columns);
        let cells = cells.map(|(cell, column)| {
            let text = cell.in_language(language);
            context! { short => short(&text), text, numeric => column.numeric }
        });
        context! { strong => row.strong, cells => cells.collect::<Vec<_>>() }
    });
    context! {
        title => table.title.in_language(language),
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

pub(super) fn check(check: &Check, language: Language) -> Value {
    let say = |text: &Text| text.in_language(language);
    let advised = matches!(check.outcome, Outcome::No | Outcome::Unknown);
    context! {
        condition => say(&check.condition),
        word => say(&check.outcome.word(check.required)),
        class => match check.outcome {
            Outcome::Yes => "yes",
            Outcome::No => "no",
            Outcome::Unknown | Outcome::DoesNotApply => "unknown",
        },
        found => say(&check.found),
        advice => if advised { say(&check.advice) } else { String::new() },
        required => check.required,
    }
}

/// Notes under the accuracy table, such as chance level and expected score, and what was computed. Then notes on timed prompts.
fn notes(run: &RunRecord) -> Vec<Text> {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let note = |case: &AccuracyCase| {
        let part = case.part_of();
        let expected = |share: f64| {
            if part.is_some() {
                text!("{share} expected over all items, so not of these", share = percent(share))
            } else {
                text!("{share} expected", share = percent(share))
            }
        };
        let AccuracyCase { task, dataset, shots, items, .. } = case;
        let parts = [
            Some(text!("{task}: {dataset}, {shots} shots", task, dataset, shots)),
            part.map(|all| text!("{items} of {all} items (limited)", items, all)),
            case.chance.map(|share| text!("{share} by chance", share = percent(share))),
            case.expected.map(expected),
            case.max_failed.map(|share| text!("up to {share} may fail", share = percent(share))),
        ];
        text!("{parts}.", parts = joined(parts.into_iter().flatten(), ", "))
    };
    let prompts = |case: &crate::record::PerformanceCase| {
        let prompts = case.prompts.as_ref()?;
        Some(text!(
            "{case}: {notes}; {least} to {most} tokens each.",
            case = case.case_id,
            notes = joined(&prompts.notes, ", "),
            least = prompts.shortest,
            most = prompts.longest
        ))
    };
    let work =
        run.provenance.work.iter().map(|(task, work)| text!("{task}: {work}.", task, work = work.words()));
    let timed = run.plan.performance.iter().filter_map(prompts);
    run.plan.accuracy.iter().map(note).chain(work).chain(timed).collect()
}

/// Where the first prompt is from, and how long it is.
fn first_prompt(prompt: &FirstPrompt) -> Text {
    text!(
        "{task}, item {item}, {tokens} tokens",
        task = prompt.task,
        item = prompt.doc_id,
        tokens = prompt.token_ids.len()
    )
}

fn choices(run: &RunRecord) -> Vec<Value> {
    let of_task = |tokens: &[crate::record::ChoiceToken]| {
        tokens.iter().map(|t| format!("{} = {}", t.text, t.id)).collect::<Vec<_>>().join(", ")
    };
    run.choice_tokens.iter().map(|(task, tokens)| context! { task, tokens => of_task(tokens) }).collect()
}

/// All provenance fields of a run, always in the same order.
pub(super) fn provenance_fields(of: &Provenance) -> Vec<(Text, Text)> {
    let pairs_of = |pairs: &std::collections::BTreeMap<String, String>| {
        let words = pairs.iter().map(|(k, v)| format!("{k} = {v}")).collect::<Vec<_>>().join(", ");
        if words.is_empty() { text!("none") } else { words.into() }
    };
    let optional = |text: &Option<String>| or_none(text.as_ref(), Text::from);
    let commit = of.git_commit.as_ref().map(Text::from);
    let clock = match &of.clock_profile {
        Some(profile) => text!("{clock}, profile {profile}", clock = of.clock, profile),
        None => of.clock.to_text(),
    };
    vec![
        (text!("Program"), of.engine.to_text()),
        (
            text!("Commit"),
            commit.unwrap_or_else(|| text!("not known: GLMBENCH_GIT_COMMIT was not set at build")),
        ),
        (text!("Model"), of.model.to_text()),
        (
            MODEL_AS_READ,
            if of.model_details.is_empty() { text!("not kept") } else { pairs_of(&of.model_details) },
        ),
        (text!("Device"), of.device.to_text()),
        (text!("Kernels"), of.kernel.to_text()),
        (text!("Clock"), clock),
        (text!("Type"), of.dtype.to_text()),
        (text!("Tensor parallel"), of.tp.to_text()),
        (DEVICE_FOUND, pairs_of(&of.device_details)),
        (text!("Threads"), of.threads.to_text()),
        (text!("Batch of accuracy tasks"), of.batch.to_text()),
        (text!("Machine's limits"), or_none(of.roofline.as_ref(), |limit| limits(of.clock, limit))),
        (VERSIONS, pairs_of(&of.versions)),
        (ENVIRONMENT, pairs_of(&of.environment)),
        (text!("Host"), of.host.to_text()),
        (text!("System"), of.os.to_text()),
        (text!("Processor"), of.cpu_model.to_text()),
        (text!("Governor"), optional(&of.governor)),
        (STARTED, of.started.to_text()),
        (FINISHED, optional(&of.finished)),
        (text!("Resumed"), of.resumed.to_text()),
        (text!("Answers scored again from"), optional(&of.scored_from)),
    ]
}

/// Names of fields that a comparison treats apart.
pub(super) const MODEL_AS_READ: Text = text!("Model as read");
pub(super) const DEVICE_FOUND: Text = text!("Device found");
pub(super) const VERSIONS: Text = text!("Versions");
pub(super) const ENVIRONMENT: Text = text!("Environment");
pub(super) const STARTED: Text = text!("Started");
pub(super) const FINISHED: Text = text!("Finished");

/// The limits of a machine or a chip, and how they are known.
fn limits(clock: Clock, limit: &Roofline) -> Text {
    let from = match clock {
        Clock::Measured => text!("as measured"),
        Clock::Modelled => text!("of one chip by the profile, modelled"),
    };
    let how = limit.measured.as_ref().map(|of| {
        of.peak_words().map_or_else(
            || text!(" ({method})", method = of.method),
            |unit| text!(" (peak of {unit}; {method})", unit, method = of.method),
        )
    });
    text!(
        "{memory} GB/s streamed, {arithmetic} GFLOP/s, {from}{how}",
        memory = format!("{:.1}", limit.bandwidth_bytes_per_s / 1e9),
        arithmetic = format!("{:.0}", limit.peak_flops_per_s / 1e9),
        from,
        how = how.unwrap_or_default()
    )
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
