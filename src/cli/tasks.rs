//! Tasks on the command line: `list tasks`, `show task NAME`, `check TASK.toml DATA`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use glmbench_engine::config::ModelConfig;
use glmbench_engine::load::load_tokenizer;
use glmbench_engine::tokenizer::Tokenizer;

use crate::dataset::{Benchmark, Source};
use crate::run::found::model_path;
use crate::task::{self, Evaluation, Protocol, Settings, TextCodec, audit::Audit};
use crate::text::one_line;

use super::described::protocol_words;
use super::{complain, emit};

/// Entries of a list that are shown. The rest are counted.
const SHOWN: usize = 10;

/// Returns the task of a word: a built-in one, or a task file.
///
/// # Errors
/// There is no such task, or its file is wrong.
pub(super) fn find(word: &str) -> anyhow::Result<&'static Benchmark> {
    if Path::new(word).extension().is_some_and(|extension| extension == "toml") {
        return Ok(task::file::load(Path::new(word))?);
    }
    Benchmark::from_name(word).with_context(|| {
        let names = Benchmark::names().join(", ");
        format!("found the task {word:?}; expected one of {names}, or a task file (*.toml)")
    })
}

/// Returns the protocol names of a task.
fn protocols(benchmark: &'static Benchmark) -> Vec<&'static str> {
    task::protocols_of(benchmark).map(|protocol| protocol.definition().name).collect()
}

/// A title with its lines, each with a label.
type Block = (String, Vec<(&'static str, String)>);

/// Returns the list of tasks, in words and as data.
pub(super) fn list() -> (Vec<Block>, Value) {
    let words = Benchmark::all().iter().map(|benchmark| {
        let mut lines = vec![("", about(benchmark))];
        lines.push(("protocols", protocols(benchmark).join(", ")));
        let splits = benchmark.splits.iter().map(|split| {
            if *split == benchmark.default_split { format!("{split} (default)") } else { (*split).to_owned() }
        });
        lines.push(("splits", splits.collect::<Vec<_>>().join(", ")));
        lines.push((
            "data",
            benchmark.layouts.iter().map(|layout| layout.files()).collect::<Vec<_>>().join(", or "),
        ));
        if let Some(file) = benchmark.file {
            lines.extend([("origin", file.origin.clone()), ("licence", file.licence.clone())]);
        }
        (benchmark.name.to_owned(), lines)
    });
    let data = Benchmark::all().iter().map(|benchmark| {
        json!({
            "name": benchmark.name, "title": benchmark.title, "about": about(benchmark),
            "protocols": protocols(benchmark), "splits": benchmark.splits, "default_split": benchmark.default_split,
            "chance": benchmark.chance, "categories": benchmark.categories,
            "origin": benchmark.file.map(|file| &file.origin), "licence": benchmark.file.map(|file| &file.licence),
            "sha256": benchmark.file.map(|file| &file.sha256),
        })
    });
    (words.collect(), data.collect())
}

fn about(benchmark: &Benchmark) -> String {
    benchmark.file.map_or_else(|| benchmark.title.to_owned(), |file| file.about.clone())
}

/// Prints a task: its file verbatim, or the descriptions of its protocols, and the first prompt if its data is there.
///
/// # Errors
/// There is no such task.
pub(super) fn show(word: &str, folder: Option<&PathBuf>, model: Option<&OsStr>) -> anyhow::Result<()> {
    let benchmark = find(word)?;
    if let Some(file) = benchmark.file {
        let from = if file.is_built_in { format!("built-in task {benchmark}") } else { word.to_owned() };
        emit(&format!("# {from}, sha256 {}\n{}", file.sha256, file.text.trim_end()))?;
    } else {
        let defined = task::protocols_of(benchmark).map(|protocol| protocol_words(protocol.definition()));
        emit(defined.collect::<String>().trim_end())?;
    }
    let usual = Path::new("datasets").join(benchmark.name);
    let folder = folder.unwrap_or(&usual);
    if !folder.is_dir() {
        emit(&format!("\n# no data in {}; --dataset DIR says where they are", folder.display()))?;
        return Ok(());
    }
    let (tokenizer, config) = tokenizer(model)?;
    for protocol in task::protocols_of(benchmark) {
        let evaluation = evaluation(benchmark, protocol, folder, (&tokenizer, config.seq_length))?;
        let name = protocol.definition().name;
        let item = &evaluation.plan().item(0).doc_id;
        match evaluation.first_prompt(0) {
            Some((prompt, ids)) => {
                emit(&format!(
                    "\n# {name}: the first prompt of {item}, {} tokens\n{}",
                    ids.len(),
                    shown(&prompt)
                ))?;
            }
            None => emit(&format!("\n# {name}: {item} cannot be asked"))?,
        }
    }
    Ok(())
}

/// Returns a prompt with its control characters written out, except line ends.
fn shown(prompt: &str) -> String {
    prompt.lines().map(one_line).collect::<Vec<_>>().join("\n")
}

/// Returns tokenizer and configuration of a model, the demo model's by default.
fn tokenizer(model: Option<&OsStr>) -> anyhow::Result<(Tokenizer, ModelConfig)> {
    let path = model_path(model.unwrap_or(OsStr::new("demo")))?;
    let config = path.config(None)?;
    let Some(dir) = path.tokenizer_dir() else {
        bail!("random weights have no tokenizer; expected a model folder or `demo` for --model");
    };
    Ok((load_tokenizer(dir, Some(&config))?, config))
}

fn evaluation<'a>(
    benchmark: &'static Benchmark,
    protocol: &'static dyn Protocol,
    folder: &Path,
    (codec, seq_length): (&'a Tokenizer, usize),
) -> anyhow::Result<Evaluation<'a>> {
    let source = Source::open(benchmark, folder)?;
    let split = benchmark.default_split;
    // A folder without demonstrations can be checked without them.
    let from = protocol.demonstrations().split.unwrap_or_else(|| benchmark.demonstration_split.to_owned());
    let shots = (!source.has_split(&from)).then_some(0);
    let settings = Settings { split: split.to_owned(), shots, ..Settings::default() };
    let plan = task::Plan::new(protocol, &source, &settings)?;
    Ok(Evaluation::new(plan, codec as &dyn TextCodec, seq_length)?)
}

/// Checks a task against a folder of data: reads every row, renders every template, looks for duplicates and leakage.
/// Returns whether all is well.
///
/// # Errors
/// There is no such task, its file is wrong, or output fails.
pub(super) fn check(word: &str, folder: &Path, model: Option<&OsStr>) -> anyhow::Result<bool> {
    let benchmark = find(word)?;
    emit(&format!("task         {benchmark}: {}", one_line(&about(benchmark))))?;
    let source = Source::open(benchmark, folder)?;
    let mut well = true;
    for split in benchmark.splits.iter().filter(|split| source.has_split(split)) {
        let dataset = source.read(split, &[])?;
        let (items, files) = (dataset.items.len(), dataset.files.len());
        let subjects = dataset.subjects.len();
        emit(&format!(
            "split        {split}: {items} items, {subjects} subjects, {files} files, hash {}",
            &dataset.content_hash()[..12]
        ))?;
    }
    let (tokenizer, config) = tokenizer(model)?;
    for protocol in task::protocols_of(benchmark) {
        let name = protocol.definition().name;
        match evaluation(benchmark, protocol, folder, (&tokenizer, config.seq_length)) {
            Ok(evaluation) => well &= report(name, evaluation)?,
            Err(error) => {
                well = false;
                let error = error.to_string();
                let place = format!("protocol {name}: ");
                complain(&format!("{place}{}", error.strip_prefix(&place).unwrap_or(&error)));
            }
        }
    }
    Ok(well)
}

/// Prints what an audit found.
fn report(name: &str, evaluation: Evaluation<'_>) -> anyhow::Result<bool> {
    let shots = evaluation.plan().shots;
    let audit = Audit::of(evaluation);
    emit(&format!(
        "protocol     {name}: {} items, {shots} shots, {} calls of the model, longest prompt {} tokens",
        audit.items, audit.calls, audit.longest_prompt
    ))?;
    let mut answers: Vec<(&String, &usize)> = audit.answers.iter().collect();
    answers.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let share = |count: usize| 100.0 * count as f64 / audit.items.max(1) as f64;
    let words = answers
        .iter()
        .take(SHOWN)
        .map(|(answer, count)| format!("{} {count} ({:.1} %)", one_line(&short(answer)), share(**count)));
    let more = answers.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(", {more} more") } else { String::new() };
    // The items of a task that scores the text itself have no answers.
    if audit.answers.keys().any(|answer| !answer.is_empty()) {
        emit(&format!("  answers    {}{more}", words.collect::<Vec<_>>().join(", ")))?;
    }
    pairs("  duplicates", &audit.duplicates, "has the content of")?;
    for (item, reason) in audit.refused.iter().take(SHOWN) {
        complain(&format!("protocol {name}: {item}: {reason}"));
    }
    if audit.refused.len() > SHOWN {
        complain(&format!("protocol {name}: {} more items cannot be asked", audit.refused.len() - SHOWN));
    }
    for (item, shot) in audit.leaks.iter().take(SHOWN) {
        complain(&format!("protocol {name}: {item} is shown its own question, as the demonstration {shot}"));
    }
    Ok(!audit.has_faults())
}

fn pairs(label: &str, all: &[(String, String)], relation: &str) -> anyhow::Result<()> {
    let shown = all.iter().take(SHOWN).map(|(item, first)| format!("{item} {relation} {first}"));
    let words = match all.len() {
        0 => "none".to_owned(),
        count => format!(
            "{count}: {}{}",
            shown.collect::<Vec<_>>().join(", "),
            if count > SHOWN { ", …" } else { "" }
        ),
    };
    emit(&format!("{label} {words}"))?;
    Ok(())
}

fn short(text: &str) -> String {
    match text.char_indices().nth(30) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
