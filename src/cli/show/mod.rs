//! `glmbench show`: shows items, cases and loads of a run.

mod case;
mod item;
mod load;
mod select;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args as ClapArgs;
use serde_json::{Value, json};

use crate::dataset::Benchmark;
use crate::record::RunDir;
use crate::report::export::Records;

use super::export::say_faults;
use super::runs::find_run;
use super::settings::{LanguageArgs, dataset_parser};
use super::{Exit, emit, emit_json, tasks};

use select::{Choice, select};

/// Show items of a run (prompt, token ids, answer, log-probabilities), the repetitions of a performance case, a load, or a task
///
/// `glmbench show task NAME` prints the definition of a task verbatim, and its first prompts if its data is there.
///
/// ITEM names an item (ceval/val/law/17), a performance case (b8-i128-o32) or a load (poisson-i128-o32-b16). If several
/// tasks have the item, put the task in front (ceval-two-stage/ceval/val/law/17). A unique end of the name is enough
/// (law/17), and so is the unique beginning of a part (b8-i128). The flag --with shows the item of a second run beside the first.
///
/// The exit code is 4 if a run's records are not what its plan says, and 3 if a run is incomplete.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Older versions stored no prompts. The first prompt of such a run is built again from the data set and the tokenizer. \
    They must be found or given (--set, --dataset, --model). The prompt is shown only if its hash is the recorded one.\n\n\
    Examples:\n  glmbench show 20261123T02 ceval/val/law/17\n  glmbench show 20261123T02 law/17 --with 20261124\n  \
    glmbench show 20261123T02 b8-i128-o32\n  glmbench show task gsm8k --dataset data/gsm8k"
)]
pub struct Args {
    /// The run directory, or the beginning of its name in reports/; or the word `task`
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Items, performance cases or loads; or tasks
    #[arg(value_name = "ITEM", required = true)]
    items: Vec<String>,
    /// A second run to show beside the first
    #[arg(long, value_name = "RUN")]
    with: Option<PathBuf>,
    /// Folder of a data set, such as `ceval=FOLDER`, to build prompts that the run did not store
    #[arg(long, value_name = "TASK=DIR", value_parser = dataset_parser())]
    set: Vec<(&'static Benchmark, PathBuf)>,
    /// Like --set, if only one data set is needed
    #[arg(long, value_name = "DIR")]
    dataset: Option<PathBuf>,
    /// Model folder with the tokenizer, or `demo` [default: the run's model]
    #[arg(long, value_name = "DIR|demo")]
    model: Option<OsString>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The language
    #[command(flatten)]
    language: LanguageArgs,
}

/// A run to show.
struct Shown {
    dir: RunDir,
    records: Records,
}

impl Shown {
    fn open(word: &std::path::Path) -> anyhow::Result<Self> {
        let dir = RunDir::open(&find_run(word)?)?;
        let records = Records::read(&dir)?;
        Ok(Self { dir, records })
    }

    fn id(&self) -> &str {
        &self.records.run.run_id
    }
}

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.run.as_os_str() == "task" {
        for name in &args.items {
            tasks::show(name, args.dataset.as_ref(), args.model.as_deref())?;
        }
        return Ok(Exit::Done.into());
    }
    let first = Shown::open(&args.run)?;
    let second = args.with.as_deref().map(Shown::open).transpose()?;
    let runs: Vec<&Shown> = std::iter::once(&first).chain(&second).collect();
    let exits = runs.iter().map(|run| say_faults(&run.records.run, &run.records.audit)).collect::<Vec<_>>();
    let choices: Vec<Choice<'_>> =
        args.items.iter().map(|word| select(&first, word)).collect::<anyhow::Result<_>>()?;
    let mut texts = Vec::new();
    let (mut items, mut cases, mut loads): (Vec<Value>, Vec<Value>, Vec<Value>) = <_>::default();
    for choice in choices {
        match choice {
            Choice::Items(samples) => {
                for sample in samples {
                    let views = item::views(args, &runs, sample)?;
                    texts.push(item::words(sample, &views, args.language.language));
                    items.push(item::data(sample, &views));
                }
            }
            Choice::Case(case) => {
                texts.push(case::words(&runs, case, args.language.language));
                cases.push(case::data(&runs, case));
            }
            Choice::Load(case) => {
                texts.push(load::words(&runs, case, args.language.language));
                loads.push(load::data(&runs, case));
            }
        }
    }
    if args.json {
        let ids: Vec<&str> = runs.iter().map(|run| run.id()).collect();
        emit_json(&json!({"runs": ids, "items": items, "cases": cases, "loads": loads}))?;
    } else {
        emit(texts.join("\n").trim_end())?;
    }
    Ok(exits.into_iter().find(|exit| *exit != Exit::Done).unwrap_or(Exit::Done).into())
}

/// Converts a record to JSON through its text form, which has the shortest digits of each number.
fn value<T: serde::Serialize>(record: &T) -> Value {
    let text = serde_json::to_string(record).expect("invariant: records can be written as JSON");
    serde_json::from_str(&text).expect("invariant: what was written as JSON can be read")
}
