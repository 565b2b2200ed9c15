//! `glmbench list`: available suites, tasks, protocols and data sets.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};

use crate::dataset::catalogue::{self, Entry};
use crate::shipped;
use crate::suite::Suite;
use crate::task::{self, Definition};

use super::described::{block, protocol_words};
use super::{emit, emit_json, say, tasks};

/// List suites, tasks, protocols and data sets
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List suites and what each measures
    Suites {
        /// A folder of suite files [default: suites, where there is one; else the suites that this program carries]
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
    },
    /// List the built-in tasks: what each measures, its protocols, its data
    Tasks,
    /// List the protocols: prompts verbatim, limits, answer extraction, metric
    Protocols,
    /// List the data sets: items, licence, origin, and whether they are on this machine
    Datasets {
        /// The folder of data sets
        #[arg(value_name = "DIR", default_value = "datasets")]
        folder: PathBuf,
    },
}

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (words, data) = match &args.what {
        What::Suites { folder } => suites(folder.as_deref())?,
        What::Tasks => {
            let (tasks, data) = tasks::list();
            (tasks.iter().map(|(name, lines)| block(name, lines)).collect(), data)
        }
        What::Protocols => protocols(),
        What::Datasets { folder } => datasets(folder),
    };
    if args.json {
        emit_json(&data)?;
    } else {
        emit(words.trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Lists the suites of a folder, or the shipped ones, which `run` takes by name. An invalid file is reported on stderr and does
/// not hide the others.
fn suites(folder: Option<&Path>) -> anyhow::Result<(String, Value)> {
    let usual = Path::new("suites");
    let found = match folder.or_else(|| usual.is_dir().then_some(usual)) {
        Some(folder) => suite_files(folder)?
            .into_iter()
            .map(|path| (path.display().to_string(), Suite::load(&path, &[])))
            .collect(),
        None => shipped::suites()
            .map(|of| (of.name.to_owned(), Suite::parse(Path::new(of.path), of.text, &[])))
            .collect::<Vec<_>>(),
    };
    let (mut words, mut data) = (String::new(), Vec::new());
    for (name, suite) in found {
        let suite = match suite {
            Ok(suite) => suite,
            Err(error) => {
                say(&format!("glmbench: {error}"));
                continue;
            }
        };
        words += &block(&name, &[("", suite.about.clone())]);
        let mut entry = json!({
            "path": name, "name": suite.name, "about": suite.about,
            "accuracy_cases": suite.accuracy.len(),
        });
        for (key, tables) in suite.timed() {
            entry[format!("{key}_cases")] = json!(tables.len());
        }
        data.push(entry);
    }
    Ok((words, Value::Array(data)))
}

/// The suite files of a folder, by name.
fn suite_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("{}: expected a folder of suites", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    paths.sort();
    Ok(paths)
}

fn protocols() -> (String, Value) {
    let definitions = || task::protocols().iter().map(|protocol| protocol.definition());
    (definitions().map(protocol_words).collect(), definitions().map(protocol_json).collect())
}

fn protocol_json(definition: &Definition) -> Value {
    let prompts: Vec<Value> = definition
        .prompts
        .iter()
        .map(|(stage, template)| json!({ "stage": stage, "template": template }))
        .collect();
    json!({
        "task": definition.benchmark.name, "name": definition.name, "about": definition.about, "prompts": prompts,
        "shots": definition.shots, "max_new_tokens": definition.max_new_tokens, "choices": definition.choices,
        "extraction": definition.extraction, "metric": definition.metric, "source": definition.source,
    })
}

fn datasets(folder: &Path) -> (String, Value) {
    let rows = catalogue::entries().iter().map(|entry| (entry, folder.join(&entry.name)));
    let words = rows.clone().map(|(entry, place)| dataset_words(entry, &place)).collect();
    let data = rows.map(|(entry, place)| {
        json!({
            "name": entry.name, "task": entry.benchmark.name, "layout": entry.layout.name(),
            "items": entry.items(), "normalisation": entry.layout.normalisation(), "licence": entry.licence, "original": entry.original, "shipped": entry.shipped,
            "folder": place.is_dir().then(|| place.display().to_string()),
        })
    });
    (words, data.collect())
}

fn dataset_words(entry: &Entry, place: &Path) -> String {
    let items: Vec<String> = entry.items().iter().map(|(split, items)| format!("{split} {items}")).collect();
    let here = match (place.is_dir(), entry.shipped) {
        (true, _) => place.display().to_string(),
        (false, true) => format!("not found at {}; the program carries it for its suites", place.display()),
        (false, false) => {
            format!("not found at {}; run `glmbench dataset prepare {} ARCHIVE`", place.display(), entry.name)
        }
    };
    let mut lines = vec![("items", items.join(", ")), ("layout", entry.layout.name().to_owned())];
    if !entry.layout.normalisation().is_empty() {
        lines.push(("text", entry.layout.normalisation().to_owned()));
    }
    lines.extend([("licence", entry.licence.clone()), ("original", entry.original.clone()), ("here", here)]);
    block(&entry.name, &lines)
}
