//! The tables of a history as CSV files, with exact values: `lines.csv`, `points.csv`, `changes.csv` and `runs.csv`.

use super::judged::{Against, Judged};
use super::lines::{LeftOut, Line, Run};
use crate::record::{RecordError, csv_table, write_whole};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::path::Path;

/// Returns a short name of a line, the same on every page: it is of what the values have in common.
pub(super) fn line_id(line: &Line<'_>) -> String {
    let key = &line.key;
    let tp = key.tp.to_string();
    let parts = [
        key.kind.name(),
        key.case,
        key.basis,
        key.model,
        key.form,
        key.device,
        &tp,
        key.source.word(),
        key.by,
    ];
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    crate::record::hex(&hash.finalize())[..10].to_owned()
}

/// A row of `lines.csv`: a line, its last value, and the verdicts.
#[derive(Debug, Serialize)]
struct LineRow<'a> {
    line: String,
    kind: &'static str,
    case: &'a str,
    basis: &'a str,
    model: &'a str,
    form: &'a str,
    device: &'a str,
    tp: u32,
    source: &'static str,
    by: &'a str,
    runs: usize,
    change_points: usize,
    last_run: &'a str,
    last_started: &'a str,
    last_value: f64,
    last_low: Option<f64>,
    last_high: Option<f64>,
    last_n: u64,
    previous_run: Option<&'a str>,
    previous_value: Option<f64>,
    previous_change: Option<f64>,
    previous_verdict: Option<&'static str>,
    previous_p: Option<f64>,
    previous_evidence: Option<String>,
    best_run: Option<&'a str>,
    best_value: Option<f64>,
    best_change: Option<f64>,
    best_verdict: Option<&'static str>,
    best_p: Option<f64>,
    best_evidence: Option<String>,
}

/// A row of `points.csv`: a value.
#[derive(Debug, Serialize)]
struct PointRow<'a> {
    line: &'a str,
    run: &'a str,
    started: &'a str,
    value: f64,
    low: Option<f64>,
    high: Option<f64>,
    n: u64,
}

/// A row of `changes.csv`: a change point.
#[derive(Debug, Serialize)]
struct ChangeRow<'a> {
    line: &'a str,
    run: &'a str,
    started: &'a str,
    run_before: &'a str,
    level_before: f64,
    level_after: f64,
    runs_before: usize,
    runs_after: usize,
    p: f64,
    differs: &'a str,
}

/// A row of `runs.csv`: a run, or a folder that is none.
#[derive(Debug, Serialize)]
struct RunRow<'a> {
    folder: &'a str,
    run_id: Option<&'a str>,
    standing: &'a str,
    why: &'a str,
    suite: Option<&'a str>,
    model: Option<&'a str>,
    form: Option<&'a str>,
    device: Option<&'a str>,
    clock: Option<String>,
    started: Option<&'a str>,
    program: Option<&'a str>,
    figures: usize,
}

const LINES: &str = "line,kind,case,basis,model,form,device,tp,source,by,runs,change_points,last_run,last_started,\
    last_value,last_low,last_high,last_n,previous_run,previous_value,previous_change,previous_verdict,previous_p,\
    previous_evidence,best_run,best_value,best_change,best_verdict,best_p,best_evidence";
const POINTS: &str = "line,run,started,value,low,high,n";
const CHANGES: &str = "line,run,started,run_before,level_before,level_after,runs_before,runs_after,p,differs";
const RUNS: &str = "folder,run_id,standing,why,suite,model,form,device,clock,started,program,figures";

/// A change point with what else changed there.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Change {
    /// Place of its line.
    pub(super) line: usize,
    /// Place of the first point after it, on the line.
    pub(super) at: usize,
    pub(super) p: f64,
    /// Medians before and after.
    pub(super) levels: (f64, f64),
    /// Runs of both levels.
    pub(super) runs: (usize, usize),
    /// What the two runs beside it do not have in common.
    pub(super) differs: String,
}

/// Returns all change points, the newest first.
pub(super) fn changes(lines: &[Line<'_>], runs: &[Run<'_>]) -> Vec<Change> {
    let of_line = |(place, line): (usize, &Line<'_>)| -> Vec<Change> {
        let steps = line.steps.iter().zip(line.levels.windows(2));
        steps
            .map(|(step, levels)| Change {
                line: place,
                at: step.at,
                p: step.p,
                levels: (levels[0].median, levels[1].median),
                runs: (levels[0].end - levels[0].start, levels[1].end - levels[1].start),
                differs: differences(&runs[line.points[step.at - 1].run], &runs[line.points[step.at].run]),
            })
            .collect()
    };
    let mut all: Vec<Change> = lines.iter().enumerate().flat_map(of_line).collect();
    all.sort_by_key(|change| std::cmp::Reverse(lines[change.line].points[change.at].at));
    all
}

/// `kernels avx2 → avx512; rustc 1.94 → 1.95`.
fn differences(before: &Run<'_>, after: &Run<'_>) -> String {
    let (a, b) = (&before.of.facts, &after.of.facts);
    let none = "–".to_owned();
    let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let differing = names.into_iter().filter(|name| a.get(*name) != b.get(*name));
    let words = differing.map(|name| {
        let value = |of: &std::collections::BTreeMap<String, String>| of.get(name).unwrap_or(&none).clone();
        format!("{name} {} → {}", value(a), value(b))
    });
    words.collect::<Vec<_>>().join("; ")
}

/// All that the tables show.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tables<'a> {
    pub(super) runs: &'a [Run<'a>],
    pub(super) left_out: &'a [LeftOut<'a>],
    pub(super) lines: &'a [Line<'a>],
    pub(super) judged: &'a [Judged],
    pub(super) changes: &'a [Change],
    pub(super) ids: &'a [String],
}

impl<'a> Tables<'a> {
    /// Writes the files.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(super) fn write(self, folder: &Path) -> Result<(), RecordError> {
        let lines: Vec<LineRow<'a>> = (0..self.lines.len()).map(|place| self.line(place)).collect();
        put(folder, "lines.csv", LINES, &lines)?;
        put(folder, "points.csv", POINTS, &self.points())?;
        put(folder, "changes.csv", CHANGES, &self.change_rows())?;
        put(folder, "runs.csv", RUNS, &self.run_rows())
    }

    fn line(&self, place: usize) -> LineRow<'a> {
        let (line, judged) = (&self.lines[place], &self.judged[place]);
        let (key, last) = (&line.key, line.last());
        let run = |against: &'a Against| self.runs[line.points[against.other].run].folder;
        let value = |against: &'a Against| line.points[against.other].figure.value;
        let (previous, best) = (judged.previous.as_ref(), judged.best.as_ref());
        let verdict = |against: &'a Against| against.verdict.word(key.kind);
        LineRow {
            line: self.ids[place].clone(),
            kind: key.kind.name(),
            case: key.case,
            basis: key.basis,
            model: key.model,
            form: key.form,
            device: key.device,
            tp: key.tp,
            source: key.source.word(),
            by: key.by,
            runs: line.points.len(),
            change_points: line.steps.len(),
            last_run: self.runs[last.run].folder,
            last_started: &self.runs[last.run].of.started,
            last_value: last.figure.value,
            last_low: last.figure.low,
            last_high: last.figure.high,
            last_n: last.figure.n,
            previous_run: previous.map(run),
            previous_value: previous.map(value),
            previous_change: previous.map(|against| against.change),
            previous_verdict: previous.map(verdict),
            previous_p: previous.and_then(|against| against.p),
            previous_evidence: previous.map(|against| against.why.to_string()),
            best_run: best.map(run),
            best_value: best.map(value),
            best_change: best.map(|against| against.change),
            best_verdict: best.map(verdict),
            best_p: best.and_then(|against| against.p),
            best_evidence: best.map(|against| against.why.to_string()),
        }
    }

    fn points(&self) -> Vec<PointRow<'a>> {
        let of_line = |(line, id): (&'a Line<'a>, &'a String)| {
            let row = move |point: &super::lines::Point<'a>| PointRow {
                line: id,
                run: self.runs[point.run].folder,
                started: &self.runs[point.run].of.started,
                value: point.figure.value,
                low: point.figure.low,
                high: point.figure.high,
                n: point.figure.n,
            };
            line.points.iter().map(row).collect::<Vec<_>>()
        };
        self.lines.iter().zip(self.ids).flat_map(of_line).collect()
    }

    fn change_rows(&self) -> Vec<ChangeRow<'a>> {
        let row = |change: &'a Change| {
            let points = &self.lines[change.line].points;
            let run = |at: usize| &self.runs[points[at].run];
            ChangeRow {
                line: &self.ids[change.line],
                run: run(change.at).folder,
                started: &run(change.at).of.started,
                run_before: run(change.at - 1).folder,
                level_before: change.levels.0,
                level_after: change.levels.1,
                runs_before: change.runs.0,
                runs_after: change.runs.1,
                p: change.p,
                differs: &change.differs,
            }
        };
        self.changes.iter().map(row).collect()
    }

    fn run_rows(&self) -> Vec<RunRow<'a>> {
        let row = |folder, standing, why, of: Option<&'a super::figures::RunFigures>| RunRow {
            folder,
            run_id: of.map(|of| of.run_id.as_str()),
            standing,
            why,
            suite: of.map(|of| of.suite.as_str()),
            model: of.map(|of| of.model.as_str()),
            form: of.map(|of| &*of.form),
            device: of.map(|of| &*of.device),
            clock: of.map(|of| of.clock.to_string()),
            started: of.map(|of| of.started.as_str()),
            program: of.and_then(|of| of.facts.get("program")).map(String::as_str),
            figures: of.map_or(0, |of| of.figures.len()),
        };
        let valid = self.runs.iter().map(|run| row(run.folder, "valid", &run.of.verdict, Some(run.of)));
        let others = self.left_out.iter().map(|left| row(left.folder, left.standing, &left.why, left.of));
        let mut rows: Vec<RunRow<'a>> = valid.chain(others).collect();
        rows.sort_by_key(|row| row.folder);
        rows
    }
}

fn put<R: Serialize>(folder: &Path, name: &str, header: &str, rows: &[R]) -> Result<(), RecordError> {
    let path = folder.join(name);
    let bytes = csv_table(header, rows).map_err(|e| RecordError::io("encode", &path)(e.into()))?;
    write_whole(&path, &bytes)
}
