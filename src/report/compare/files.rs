//! `comparison.csv` and `flips.csv`.

use super::accuracy::MacroMean;
use super::{Basis, Comparison, Pair};
use crate::language::{Text, ToText, joined, text};
use crate::record::{Clock, Phase, RecordError, csv_table, write_whole};
use crate::report::{ReportError, modelled};
use crate::stats::Estimate;
use serde::Serialize;
use std::path::Path;

/// The schema number of both files. 2 adds the runs' models.
pub(super) const SCHEMA: u32 = 2;

/// A row of `comparison.csv`: one figure of one thing in two runs.
///
/// Shares are 0 to 1, times ns, memory bytes, as `unit` says. `difference` is B − A (accuracy), `ratio` is B ÷ A
/// (times and memory: below 1, B takes less). A missing value is an empty cell, and `note` says why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComparisonRow {
    /// Schema of this file.
    pub schema: u32,
    /// The base.
    pub run_a: String,
    /// The run compared with it.
    pub run_b: String,
    /// The base's model, as requested.
    pub model_a: String,
    /// The other run's model.
    pub model_b: String,
    /// `accuracy`, `speed`, `memory`, `max_batch`, `load` or `parity`.
    pub kind: &'static str,
    /// The task, the timed case, the search or the load.
    pub subject: String,
    /// Accuracy: `all`, a category, a subject, or `category/subject`. Speed: `prefill`, `decode` or `e2e`. Memory:
    /// `peak_rss`, or `device_memory` if either run has a card's. Search and parity: `all`. Load: `all`, or the rate in requests
    /// per second.
    pub part: String,
    /// Accuracy: `micro` or `macro`. Speed: `median` or `mean of medians`. Memory: `peak`. Search: `largest`. Load:
    /// `sustained`, `served` or `goodput`. Parity: `kl_mean`, `kl_p99`, `kl_max` or `top1`.
    pub figure: &'static str,
    /// `share`, `ns`, `bytes`, `sequences`, `requests/s`, `nat`.
    pub unit: &'static str,
    /// Clock of A's times.
    pub clock_a: Option<Clock>,
    /// Clock of B's times.
    pub clock_b: Option<Clock>,
    /// Tensor-parallel ranks of A.
    pub tp_a: Option<u32>,
    /// Tensor-parallel ranks of B.
    pub tp_b: Option<u32>,
    /// Items paired, or A's repetitions, probes, requests.
    pub n_a: u64,
    /// Items paired, or B's repetitions, probes, requests.
    pub n_b: u64,
    /// A's figure.
    pub a: Option<f64>,
    /// Lower end of its 95 % interval.
    pub a_lo: Option<f64>,
    /// Upper end.
    pub a_hi: Option<f64>,
    /// B's figure.
    pub b: Option<f64>,
    /// Lower end of its 95 % interval.
    pub b_lo: Option<f64>,
    /// Upper end.
    pub b_hi: Option<f64>,
    /// B − A.
    pub difference: Option<f64>,
    /// Lower end of its 95 % interval.
    pub difference_lo: Option<f64>,
    /// Upper end.
    pub difference_hi: Option<f64>,
    /// B ÷ A.
    pub ratio: Option<f64>,
    /// Lower end of its 95 % interval.
    pub ratio_lo: Option<f64>,
    /// Upper end.
    pub ratio_hi: Option<f64>,
    /// Items that only A got right.
    pub only_a: Option<u64>,
    /// Items that only B got right.
    pub only_b: Option<u64>,
    /// p-value of the exact McNemar test, of the sign-flip test of blocks, or of the permutation test of runs.
    pub p: Option<f64>,
    /// The p-value adjusted by Holm over all tasks, or all phases, of the comparison.
    pub p_holm: Option<f64>,
    /// The margin or threshold of the verdict, as a share.
    pub threshold: Option<f64>,
    /// `better`, `same`, `worse`, `faster`, `slower`, `cannot tell`, `not timed in turn`…; empty if there is none.
    pub verdict: Option<String>,
    /// Whether both runs wrote the same tokens.
    pub same_output: Option<bool>,
    /// Remarks, and why a cell is empty.
    pub note: String,
}

/// A row of `flips.csv`: an item that only one of two runs got right. Farthest moved first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FlipRow {
    /// Schema of this file.
    pub schema: u32,
    /// The base.
    pub run_a: String,
    /// The run compared with it.
    pub run_b: String,
    /// The base's model, as requested.
    pub model_a: String,
    /// The other run's model.
    pub model_b: String,
    /// The task.
    pub task: String,
    /// The item.
    pub doc_id: String,
    /// SHA-256 of the item.
    pub doc_hash: String,
    /// Subject.
    pub subject: String,
    /// Category.
    pub category: String,
    /// `lost` (A right, B wrong) or `gained`.
    pub flip: &'static str,
    /// The right answer.
    pub gold: String,
    /// A's answer.
    pub pred_a: Option<String>,
    /// B's answer.
    pub pred_b: Option<String>,
    /// Margin by which A preferred its answer, in log-probability.
    pub margin_a: Option<f32>,
    /// The same for B.
    pub margin_b: Option<f32>,
    /// Sum of both margins.
    pub moved: Option<f32>,
    /// Whether both had the same prompt.
    pub same_prompt: bool,
}

impl ComparisonRow {
    pub(crate) fn blank(comparison: &Comparison, pair: &Pair, kind: &'static str) -> Self {
        Self {
            schema: SCHEMA,
            run_a: comparison.base().run().run_id.clone(),
            run_b: comparison.other(pair).run().run_id.clone(),
            model_a: comparison.base().run().provenance.model.clone(),
            model_b: comparison.other(pair).run().provenance.model.clone(),
            kind,
            subject: String::new(),
            part: String::new(),
            figure: "",
            unit: "",
            clock_a: None,
            clock_b: None,
            tp_a: None,
            tp_b: None,
            n_a: 0,
            n_b: 0,
            a: None,
            a_lo: None,
            a_hi: None,
            b: None,
            b_lo: None,
            b_hi: None,
            difference: None,
            difference_lo: None,
            difference_hi: None,
            ratio: None,
            ratio_lo: None,
            ratio_hi: None,
            only_a: None,
            only_b: None,
            p: None,
            p_holm: None,
            threshold: None,
            verdict: None,
            same_output: None,
            note: String::new(),
        }
    }

    fn set_estimates(&mut self, a: Estimate, b: Estimate, difference: Estimate) {
        let ends = |of: Estimate| (of.interval.map(|i| i.low), of.interval.map(|i| i.high));
        (self.a, (self.a_lo, self.a_hi)) = (Some(a.value), ends(a));
        (self.b, (self.b_lo, self.b_hi)) = (Some(b.value), ends(b));
        self.difference = Some(difference.value);
        (self.difference_lo, self.difference_hi) = ends(difference);
    }
}

/// Returns every row of every pair.
pub(in crate::report) fn comparison_rows(comparison: &Comparison) -> Vec<ComparisonRow> {
    let of_pair = |pair: &Pair| {
        let accuracy = accuracy_rows(comparison, pair).into_iter();
        let timed = speed_rows(comparison, pair).into_iter().chain(memory_rows(comparison, pair));
        let others = pair.workloads.iter().flat_map(|common| common.rows(comparison, pair));
        accuracy.chain(timed).chain(others).collect::<Vec<_>>()
    };
    comparison.pairs.iter().flat_map(of_pair).collect()
}

fn accuracy_rows(comparison: &Comparison, pair: &Pair) -> Vec<ComparisonRow> {
    let mut rows = Vec::new();
    for task in &pair.tasks {
        let blank = || ComparisonRow {
            subject: task.task.clone(),
            unit: "share",
            figure: "micro",
            ..ComparisonRow::blank(comparison, pair, "accuracy")
        };
        for (index, group) in task.groups.iter().enumerate() {
            let part = match (group.category.as_str(), group.subject.as_str()) {
                (category, "all") => category.to_owned(),
                ("all", subject) => subject.to_owned(),
                (category, subject) => format!("{category}/{subject}"),
            };
            let mut row = ComparisonRow {
                part,
                n_a: group.counts.n,
                n_b: group.counts.n,
                only_a: Some(group.counts.only_a),
                only_b: Some(group.counts.only_b),
                ..blank()
            };
            row.set_estimates(group.a, group.b, group.difference);
            if index == 0 {
                row.p = Some(task.p);
                row.p_holm = Some(task.p_holm);
                row.threshold = Some(comparison.options.accuracy_margin);
                row.verdict = Some(task.verdict.to_text().to_string());
                row.note = joined(super::tables::task_notes(task), "; ").to_string();
            }
            rows.push(row);
        }
        if let Some(MacroMean { a, b, difference }) = task.macro_mean {
            let n = task.whole().counts.n;
            let note = "interval of a mean over subjects: of the difference only".to_owned();
            let mut row =
                ComparisonRow { part: "all".into(), figure: "macro", n_a: n, n_b: n, note, ..blank() };
            let share = |value| Estimate { value, interval: None };
            row.set_estimates(share(a), share(b), difference);
            rows.push(row);
        }
    }
    rows
}

/// Name of the two figures: for blocks and runs, the geometric mean of their medians.
fn figure(basis: Option<Basis>) -> &'static str {
    match basis {
        Some(Basis::Blocks(_) | Basis::Runs(..)) => "mean of medians",
        Some(Basis::Floor(_) | Basis::Apart | Basis::Unlike) | None => "median",
    }
}

fn speed_rows(comparison: &Comparison, pair: &Pair) -> Vec<ComparisonRow> {
    let mut rows = Vec::new();
    for case in &pair.cases {
        for phase in &case.phases {
            let ns = |value: Option<u64>| value.map(|ns| ns as f64);
            let mut notes = phase.notes.clone();
            notes.extend(
                phase.leaning().map(|word| text!("{word}, but within the threshold as measured", word)),
            );
            if case.same_output == Some(false) {
                notes.push(text!("outputs differ"));
            }
            notes.extend(phase.basis.map(basis_words));
            for (side, row) in [(comparison.base(), &phase.a), (comparison.other(pair), &phase.b)] {
                let lengths = [row.batch, row.input_tokens, row.output_tokens];
                let error = modelled::error_at(side.run(), row.phase, row.tp, lengths);
                notes.extend(error.map(|error| {
                    text!(
                        "{letter} modelled{error}",
                        letter = side.letter,
                        error = modelled::words(Some(error))
                    )
                }));
            }
            rows.push(ComparisonRow {
                subject: case.name(),
                part: phase.phase.to_string(),
                figure: figure(phase.basis),
                unit: "ns",
                clock_a: Some(phase.a.clock),
                clock_b: Some(phase.b.clock),
                tp_a: Some(case.a.tp),
                tp_b: Some(case.b.tp),
                n_a: phase.a.reps,
                n_b: phase.b.reps,
                a: ns(phase.a.median_ns),
                a_lo: ns(phase.a.ci95_lo_ns),
                a_hi: ns(phase.a.ci95_hi_ns),
                b: ns(phase.b.median_ns),
                b_lo: ns(phase.b.ci95_lo_ns),
                b_hi: ns(phase.b.ci95_hi_ns),
                ratio: phase.ratio,
                ratio_lo: phase.interval.map(|i| i.low),
                ratio_hi: phase.interval.map(|i| i.high),
                p: phase.p,
                p_holm: phase.p_holm,
                threshold: phase.interval.map(|_| comparison.options.threshold()),
                verdict: Some(phase.verdict.to_text().to_string()),
                same_output: case.same_output,
                note: joined(notes, "; ").to_string(),
                ..ComparisonRow::blank(comparison, pair, "speed")
            });
        }
    }
    rows
}

/// The kind of evidence, formatted.
pub(super) fn basis_words(basis: Basis) -> Text {
    match basis {
        Basis::Blocks(n) => text!("by {n} blocks", n),
        Basis::Runs(a, b) => text!("by {a} and {b} runs", a, b),
        Basis::Floor(floor) => {
            text!("against a floor of {floor} % between equal runs", floor = format!("{:.1}", 100.0 * floor))
        }
        Basis::Apart => text!("by runs that were not timed in turn"),
        Basis::Unlike => text!("on unlike machines"),
    }
}

/// Peak memory of every case that has it in either run. A fact, not a sample, so without interval and verdict.
fn memory_rows(comparison: &Comparison, pair: &Pair) -> Vec<ComparisonRow> {
    let mut rows = Vec::new();
    for case in &pair.cases {
        let Some(phase) = case.phases.iter().find(|phase| phase.phase == Phase::E2e) else { continue };
        let bytes = |value: Option<u64>| value.map(|bytes| bytes as f64);
        let (a, b) = (bytes(phase.a.peak_memory_bytes()), bytes(phase.b.peak_memory_bytes()));
        if a.is_none() && b.is_none() {
            continue;
        }
        let alike = phase.a.peak_memories(&phase.b);
        let of_cards = phase.a.device_memory_bytes.or(phase.b.device_memory_bytes).is_some();
        let note = match alike {
            Some(_) => "",
            None if a.is_some() && b.is_some() => "one is a card's, the other a process's",
            None => "not recorded in one run",
        };
        rows.push(ComparisonRow {
            subject: case.name(),
            part: if of_cards { "device_memory" } else { "peak_rss" }.into(),
            figure: "peak",
            unit: "bytes",
            tp_a: Some(case.a.tp),
            tp_b: Some(case.b.tp),
            n_a: phase.a.reps,
            n_b: phase.b.reps,
            a,
            b,
            ratio: alike.filter(|(a, _)| *a > 0).map(|(a, b)| b as f64 / a as f64),
            note: note.into(),
            ..ComparisonRow::blank(comparison, pair, "memory")
        });
    }
    rows
}

/// Returns every flip of every task and pair.
pub(in crate::report) fn flip_rows(comparison: &Comparison) -> Vec<FlipRow> {
    let mut rows = Vec::new();
    for pair in &comparison.pairs {
        for task in &pair.tasks {
            rows.extend(task.flips.iter().map(|flip| FlipRow {
                schema: SCHEMA,
                run_a: comparison.base().run().run_id.clone(),
                run_b: comparison.other(pair).run().run_id.clone(),
                model_a: comparison.base().run().provenance.model.clone(),
                model_b: comparison.other(pair).run().provenance.model.clone(),
                task: task.task.clone(),
                doc_id: flip.doc_id.clone(),
                doc_hash: flip.doc_hash.clone(),
                subject: flip.subject.clone(),
                category: flip.category.clone(),
                flip: if flip.lost { "lost" } else { "gained" },
                gold: flip.gold.clone(),
                pred_a: flip.pred_a.clone(),
                pred_b: flip.pred_b.clone(),
                margin_a: flip.margin_a,
                margin_b: flip.margin_b,
                moved: flip.moved(),
                same_prompt: flip.prompt_equal,
            }));
        }
    }
    rows
}

/// A CSV file with a header even if it has no rows.
pub(in crate::report) trait Headed: Serialize {
    /// The header.
    const HEADER: &'static str;
}

impl Headed for ComparisonRow {
    const HEADER: &'static str = "schema,run_a,run_b,model_a,model_b,kind,subject,part,figure,unit,clock_a,clock_b,tp_a,tp_b,n_a,n_b,a,a_lo,\
        a_hi,b,b_lo,b_hi,difference,difference_lo,difference_hi,ratio,ratio_lo,ratio_hi,only_a,only_b,p,p_holm,threshold,\
        verdict,same_output,note";
}

impl Headed for FlipRow {
    const HEADER: &'static str = "schema,run_a,run_b,model_a,model_b,task,doc_id,doc_hash,subject,category,flip,gold,pred_a,pred_b,margin_a,\
        margin_b,moved,same_prompt";
}

/// Writes rows with [`csv_table`].
pub(in crate::report) fn write_csv<R: Headed>(path: &Path, rows: &[R]) -> Result<(), ReportError> {
    let bytes = csv_table(R::HEADER, rows).map_err(|e| cannot(path, &e))?;
    Ok(write_whole(path, &bytes)?)
}

/// Creates the comparison's folder and its parents.
pub(in crate::report) fn make_folder(folder: &Path) -> Result<(), ReportError> {
    std::fs::create_dir_all(folder).map_err(RecordError::io("write", folder))?;
    Ok(())
}

fn cannot(path: &Path, cause: &dyn std::fmt::Display) -> ReportError {
    ReportError::Compare(format!("cannot write {}: {cause}", path.display()))
}
