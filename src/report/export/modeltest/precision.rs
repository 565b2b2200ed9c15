//! ModelTest's precision files: accuracy by subject (C-Eval) or file (BoolQ), total first, and a debug file with
//! every item.

use super::super::python::{float, list, ljust};
use super::super::{File, Records};
use super::{Prompts, folder, plain, table};
use crate::dataset::{Benchmark, ModelTestFiles, ModelTestRows};
use crate::record::{AccuracyCase, SampleRecord, SampleState};

/// Columns of the result files.
const RESULT: [&str; 4] = ["file_name", "value", "correct", "sum"];
/// Columns of the debug file.
const DEBUG: [&str; 7] =
    ["key", "queries", "input_token_ids", "output_token_ids", "test_result", "golden_result", "pass"];
/// ModelTest's name for a run over a whole data set.
const MODE: &str = "full";

/// Returns how ModelTest shows the benchmark of a task, or `None` if ModelTest has no files for it.
fn shown(case: &AccuracyCase) -> Option<&'static ModelTestFiles> {
    Benchmark::from_name(&case.benchmark)?.modeltest.as_ref()
}

/// The row of the result file that counts an item.
fn row_of(set: &ModelTestFiles, sample: &SampleRecord) -> String {
    match set.rows {
        ModelTestRows::Subjects => sample.subject.clone(),
        // boolq/dev/12
        ModelTestRows::Files => format!("{}.jsonl", sample.doc_id.split('/').nth(1).unwrap_or("dev")),
    }
}

fn key(set: &ModelTestFiles, sample: &SampleRecord) -> String {
    let number = sample.doc_id.rsplit('/').next().unwrap_or(&sample.doc_id);
    match set.rows {
        ModelTestRows::Subjects => format!("{}_{number}", sample.subject),
        ModelTestRows::Files => number.to_owned(),
    }
}

/// Returns an answer in ModelTest's spelling.
fn spelled(set: &ModelTestFiles, answer: &str) -> String {
    let other = set.answers.iter().find(|(words, _)| *words == answer);
    other.map_or(answer, |(_, spelling)| spelling).to_owned()
}

pub(super) fn files(
    records: &Records,
    prompts: &Prompts<'_>,
    notes: &mut Vec<String>,
) -> Result<Vec<File>, csv::Error> {
    let mut files = Vec::new();
    for case in &records.run.plan.accuracy {
        let samples: Vec<&SampleRecord> = records.samples.iter().filter(|s| s.task == case.task).collect();
        match shown(case) {
            Some(_) if samples.is_empty() => notes.push(format!("{} has no items yet", case.task)),
            Some(set) => files.extend(case_files(records, case, set, &samples, prompts)?),
            None => notes.push(format!(
                "{}: ModelTest has no files for {}, so it is left out",
                case.task, case.benchmark
            )),
        }
        notes.extend(case_notes(case, &samples, prompts));
    }
    Ok(files)
}

/// Notes for readers of the files of one case.
fn case_notes(case: &AccuracyCase, samples: &[&SampleRecord], prompts: &Prompts<'_>) -> Vec<String> {
    let mut notes = vec![format!("{}: protocol {}, {} shots", case.task, case.protocol, case.shots)];
    if (samples.len() as u64) < case.items {
        notes.push(format!("{}: {} of {} items are done", case.task, samples.len(), case.items));
    }
    let failed = samples.iter().filter(|s| s.state == SampleState::Failed).count();
    if failed > 0 {
        let items = if failed == 1 { "item" } else { "items" };
        notes.push(format!(
            "{}: {failed} {items} without an answer, which ModelTest counts as wrong",
            case.task
        ));
    }
    let has_prompt = |s: &&SampleRecord| prompts.contains_key(&(s.task.as_str(), s.doc_id.as_str()));
    if !samples.is_empty() && !samples.iter().any(has_prompt) {
        notes.push(format!(
            "{}: the run kept no prompts (it was made by an older version), so queries and input_token_ids are empty",
            case.task
        ));
    }
    notes
}

fn case_files(
    records: &Records,
    case: &AccuracyCase,
    set: &ModelTestFiles,
    samples: &[&SampleRecord],
    prompts: &Prompts<'_>,
) -> Result<Vec<File>, csv::Error> {
    let provenance = &records.run.provenance;
    let of_set = |other: &&AccuracyCase| other.benchmark == case.benchmark;
    let several = records.run.plan.accuracy.iter().filter(of_set).count() > 1;
    let below = if several { format!("/{}", plain(&case.task)) } else { String::new() };
    let folder = |top| folder(records, top, "precision", MODE) + &below;
    let name = format!("{}_pa_batch{}_tp{}_{MODE}", set.set, provenance.batch, provenance.tp);
    let rows = padded(&results(set, samples));
    let time: String =
        provenance.started.chars().take(19).map(|c| if c.is_ascii_digit() { c } else { '_' }).collect();
    let file = |path: String, bytes| File { path, bytes };
    Ok(vec![
        file(format!("{}/{name}_result.csv", folder("results")), table(b',', &rows)?),
        file(format!("{}/{name}_formatted_result.csv", folder("results")), table(b'|', &rows)?),
        file(
            format!("{}/{name}_{time}_debug_info.csv", folder("debug")),
            table(b',', &debug(set, case, samples, prompts))?,
        ),
    ])
}

/// Headings, the total, then one row per subject or file in the order of the items.
fn results(set: &ModelTestFiles, samples: &[&SampleRecord]) -> Vec<Vec<String>> {
    let mut counts: Vec<(String, u64, u64)> = vec![("total".to_owned(), 0, 0)];
    for sample in samples {
        let name = row_of(set, sample);
        let row = counts.iter().skip(1).position(|(n, ..)| *n == name).map_or_else(
            || {
                counts.push((name, 0, 0));
                counts.len() - 1
            },
            |at| at + 1,
        );
        for index in [0, row] {
            counts[index].1 += u64::from(is_right(sample));
            counts[index].2 += 1;
        }
    }
    let headings = RESULT.map(str::to_owned).to_vec();
    let row = |(name, correct, sum): (String, u64, u64)| {
        vec![name, float(correct as f64 / sum as f64), correct.to_string(), sum.to_string()]
    };
    std::iter::once(headings).chain(counts.into_iter().map(row)).collect()
}

fn is_right(sample: &SampleRecord) -> bool {
    sample.state == SampleState::Scored && sample.correct
}

/// Pads every cell to the widest of its column, including the heading.
fn padded(rows: &[Vec<String>]) -> Vec<Vec<String>> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..RESULT.len()).map(width).collect();
    rows.iter()
        .map(|row| row.iter().zip(&widths).map(|(cell, &width)| ljust(cell, width)).collect())
        .collect()
}

fn debug(
    set: &ModelTestFiles,
    case: &AccuracyCase,
    samples: &[&SampleRecord],
    prompts: &Prompts<'_>,
) -> Vec<Vec<String>> {
    let row = |sample: &&SampleRecord| {
        let call = prompts
            .get(&(sample.task.as_str(), sample.doc_id.as_str()))
            .and_then(|record| record.calls.first());
        vec![
            key(set, sample),
            call.map(|call| call.prompt.clone()).unwrap_or_default(),
            call.map(|call| list(&call.input_tokens)).unwrap_or_default(),
            list(&sample.output_tokens),
            test_result(set, case, sample),
            spelled(set, &sample.gold),
            if is_right(sample) { set.right } else { set.wrong }.to_owned(),
        ]
    };
    std::iter::once(DEBUG.map(str::to_owned).to_vec()).chain(samples.iter().map(row)).collect()
}

/// The answer. Without one, what ModelTest's extraction leaves: for the few-shot protocol the first character,
/// whatever it is, or -1; otherwise nothing.
fn test_result(set: &ModelTestFiles, case: &AccuracyCase, sample: &SampleRecord) -> String {
    match (&sample.pred, sample.state) {
        (Some(pred), _) => spelled(set, pred),
        (None, SampleState::Unscorable) if case.read_by() == "modeltest-5shot" => {
            sample.text.trim_start().chars().next().map_or_else(|| "-1".to_owned(), String::from)
        }
        (None, _) => String::new(),
    }
}
