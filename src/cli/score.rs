//! `glmbench score`: scores stored answers again, without the model.

use crate::language::Language;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context;
use clap::Args as ClapArgs;
use serde_json::{Value, json};

use crate::record::{
    AccuracyRow, Contents, PromptRecord, RunDir, RunRecord, SampleRecord, SampleState, Status,
};
use crate::report::{Summary, Verdict, accuracy_rows, render};
use crate::run::score::{Rescored, rescore};
use crate::text::one_line;

use super::report::exit_code;
use super::runs::find_run;
use super::settings::LanguageArgs;
use super::signals::Watch;
use super::{Exit, command_line, emit, emit_json, say};

/// Score a run's stored answers again, without the model
///
/// Applies this program's extraction and scoring to the recorded answers: text, or log-probabilities of the choices. Prints old
/// and new accuracy and the items that changed. Writes a new run directory beside the old one, which records the old run and has
/// no performance cases. Failed items have no answer and stay failed.
///
/// The exit code is that of `report` on the new run: 3 if the old run is incomplete, 4 if the new run is invalid.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "--protocol reads the answers with another protocol of the same benchmark. The score then has both names, such as \
    two-stage/modeltest-0shot (asked/read), and is not comparable with a score of either protocol. A protocol that reads \
    log-probabilities is refused, because they depend on its own prompt.\n\n\
    Examples:\n  glmbench score reports/20261123T021500Z-quickstart-cpu-5e1f22\n  \
    glmbench score 20261123T02 --protocol modeltest-0shot --out /tmp/rescored"
)]
pub struct Args {
    /// The run directory, or the beginning of its name in reports/
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Protocol to read the answers with [default: the run's own]
    #[arg(long, value_name = "NAME")]
    protocol: Option<String>,
    /// Write only accuracy.csv into this folder, without a run directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The language
    #[command(flatten)]
    language: LanguageArgs,
}

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let path = find_run(&args.run)?;
    let old = RunDir::open(&path)?;
    let Contents { run: old_run, samples: old_samples, audit, .. } = Contents::read(&old)?;
    if let Some(words) = audit.words() {
        say(&format!("glmbench: run {}: not what the plan says: {words}", old_run.run_id));
    }
    // Answers are scored again, so a wrong `correct` does not matter here. Missing lines do.
    if !audit.faults.is_empty() {
        say(
            "glmbench: nothing is scored, because the new run would hide these faults; `glmbench run … --resume` repairs what it can",
        );
        return Ok(Exit::Invalid.into());
    }
    if old_run.status != Status::Complete {
        say(&format!("glmbench: run {} is INCOMPLETE: its answers so far are scored", old_run.run_id));
    }
    let mut new = rescore(&old_run, &old_samples, args.protocol.as_deref(), SystemTime::now())?;
    notes(&new).iter().for_each(|note| say(&format!("glmbench: {note}")));
    let (written, exit) = match &args.out {
        Some(folder) => {
            let summary = Summary::of(new.run.clone(), &new.samples, &[]);
            say_invalid(&summary);
            (write_rows(folder, &new)?, exit_code(summary.verdict()))
        }
        None => write_run(&old, &mut new, args.language.language)?,
    };
    let tasks = compared((&old_run, &old_samples), &new);
    if args.json {
        let data = json!({"run": old_run.run_id, "written": written.display().to_string(), "tasks": tasks});
        emit_json(&data)?;
    } else {
        emit(words(&tasks).trim_end())?;
    }
    say(&format!("written: {}", written.display()));
    Ok(exit.into())
}

/// Returns remarks that readers of the new score need.
fn notes(new: &Rescored) -> Vec<String> {
    let mut notes = Vec::new();
    for (task, reading) in &new.readings {
        let (asked, reader) = (reading.asked.definition(), reading.reader.definition());
        if asked.name != reader.name {
            notes.push(format!(
                "{task}: asked by {}, read by {}: not comparable with a score of either protocol",
                asked.name, reader.name
            ));
            let limit = new.run.identity.get(&format!("{task}.max_new_tokens"));
            let limit = limit.and_then(|tokens| tokens.parse().ok()).unwrap_or(asked.max_new_tokens);
            if limit < reader.max_new_tokens {
                notes.push(format!(
                    "{task}: answers were cut off after {limit} tokens, but {} allows {}",
                    reader.name, reader.max_new_tokens
                ));
            }
        }
    }
    notes
}

/// Writes only `accuracy.csv`.
fn write_rows(folder: &Path, new: &Rescored) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create --out {}", folder.display()))?;
    let file = folder.join("accuracy.csv");
    crate::record::write_accuracy_csv(&file, &accuracy_rows(&new.run, &new.samples))?;
    Ok(file)
}

/// Writes a complete run directory beside the old one, with its report. Returns its path and the exit code for its
/// verdict.
fn write_run(old: &RunDir, new: &mut Rescored, language: Language) -> anyhow::Result<(PathBuf, Exit)> {
    let root = old.path().parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Writing takes a moment and must not be interrupted halfway.
    let _watch = Watch::new();
    let mut dir = RunDir::create(root, &new.run.run_id)?;
    new.run.run_id = dir.name();
    let mut run = RunRecord { status: Status::Running, ..new.run.clone() };
    run.provenance.command_line = command_line();
    // `run.json` comes first, so that the directory is a valid run from the start. The journals follow.
    dir.write_run(&run)?;
    for sample in &new.samples {
        dir.append_sample(sample)?;
    }
    let prompts: Vec<PromptRecord> = old.read_prompts(|_| true)?;
    prompts.iter().try_for_each(|record| dir.append_prompts(record))?;
    if new.run.status == Status::Complete {
        run.seal = Some(dir.seal()?);
    }
    run.status = new.run.status;
    dir.write_run(&run)?;
    let summary = render(dir.path(), language)?;
    let path = dir.path().to_path_buf();
    say_invalid(&summary);
    Ok((path, exit_code(summary.verdict())))
}

/// Prints why the new score must not be used.
fn say_invalid(summary: &Summary) {
    if summary.verdict() == Verdict::Invalid {
        say(&format!("glmbench: {}", summary.verdict_sentence()));
    }
}

/// Returns each task's old and new scores, with the items that changed in outcome.
fn compared((old_run, old_samples): (&RunRecord, &[SampleRecord]), new: &Rescored) -> Vec<Value> {
    let whole = |rows: Vec<AccuracyRow>| -> Vec<AccuracyRow> {
        rows.into_iter()
            .filter(|row| {
                row.subject == crate::report::accuracy::ALL && row.category == crate::report::accuracy::ALL
            })
            .collect()
    };
    let (before, after) =
        (whole(accuracy_rows(old_run, old_samples)), whole(accuracy_rows(&new.run, &new.samples)));
    let task = |(old, new_row): (&AccuracyRow, &AccuracyRow)| {
        let pairs = old_samples.iter().zip(&new.samples).filter(|(sample, _)| sample.task == old.task);
        let changed: Vec<Value> = pairs.filter(|(a, b)| outcome(a) != outcome(b)).map(change).collect();
        json!({"task": old.task, "old": score(old), "new": score(new_row), "changed": changed})
    };
    before.iter().zip(&after).map(task).collect()
}

fn score(row: &AccuracyRow) -> Value {
    json!({
        "protocol": row.protocol, "items": row.n, "correct": row.correct, "accuracy": row.acc,
        "answered": row.n - row.failed, "unscorable": row.unscorable, "failed": row.failed,
    })
}

/// Returns an item's outcome in one word, and its answer.
fn outcome(sample: &SampleRecord) -> (&str, &str) {
    let verdict = match (sample.state, sample.correct) {
        (SampleState::Scored, true) => "right",
        (SampleState::Scored, false) => "wrong",
        (SampleState::Unscorable, _) => "unscorable",
        (SampleState::Failed, _) => "failed",
    };
    (verdict, sample.pred.as_deref().unwrap_or("–"))
}

fn change((old, new): (&SampleRecord, &SampleRecord)) -> Value {
    let side = |sample: &SampleRecord| {
        let (verdict, answer) = outcome(sample);
        json!({"outcome": verdict, "answer": answer, "rule": sample.extract_rule, "error": sample.error})
    };
    json!({"item": old.doc_id, "gold": old.gold, "old": side(old), "new": side(new)})
}

/// Formats the result of [`compared`] as text.
fn words(tasks: &[Value]) -> String {
    let word = |value: &Value| one_line(value.as_str().unwrap_or_default()).into_owned();
    let mut text = String::new();
    for task in tasks {
        let line = |name: &str| {
            let row = &task[name];
            let accuracy = row["accuracy"].as_f64();
            format!(
                "  {name}  {:>8}  {} of {} right, {} unscorable; {} failed  ({})\n",
                accuracy.map_or_else(|| "–".to_owned(), |share| format!("{:.2} %", 100.0 * share)),
                row["correct"],
                row["answered"],
                row["unscorable"],
                row["failed"],
                word(&row["protocol"])
            )
        };
        let changed = task["changed"].as_array().map_or(&[][..], Vec::as_slice);
        text += &format!("{}\n{}{}", word(&task["task"]), line("old"), line("new"));
        text += &match changed.len() {
            0 => "  no item changed\n".to_owned(),
            1 => "  1 item changed:\n".to_owned(),
            n => format!("  {n} items changed:\n"),
        };
        for item in changed {
            let side =
                |name: &str| format!("{} {}", word(&item[name]["outcome"]), word(&item[name]["answer"]));
            text += &format!(
                "    {}  (gold {})  {} → {}\n",
                word(&item["item"]),
                word(&item["gold"]),
                side("old"),
                side("new")
            );
        }
    }
    text
}
