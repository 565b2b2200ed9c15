//! `model_error.csv`: the error of every modelled figure in the other CSV files of a run.

use glmbench_calibrate::modelled::Stated;
use serde::Serialize;

use super::{Basis, basis_of, of_phase};
use crate::record::{AccuracyRow, PerfRow, Phase, RunRecord, SCHEMA};
use crate::report::accuracy::ALL;
use crate::report::csv_file::Csv;

/// A modelled figure of a CSV file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    /// The timed case, search, load or task.
    pub(crate) case_id: String,
    pub(crate) phase: Phase,
    pub(crate) tp: u32,
    /// Batch, input tokens, output tokens.
    pub(crate) lengths: [u32; 3],
}

/// Returns the figures of `perf.csv`, which are also those of the cases in `limits.csv`, and of `accuracy.csv`, whose durations are
/// from the run's clock. A task has the shape of its mean item.
pub(crate) fn of(run: &RunRecord, performance: &[PerfRow], accuracy: &[AccuracyRow]) -> Vec<Figure> {
    let timed = |row: &PerfRow| Figure {
        case_id: row.case_id.clone(),
        phase: row.phase,
        tp: row.tp,
        lengths: [row.batch, row.input_tokens, row.output_tokens],
    };
    let whole = accuracy.iter().filter(|row| row.subject == ALL && row.category == ALL && row.n > 0);
    let scored = |row: &AccuracyRow| {
        let mean = |tokens: u64| u32::try_from(tokens.div_ceil(row.n)).unwrap_or(u32::MAX);
        Figure {
            case_id: row.task.clone(),
            phase: Phase::E2e,
            tp: run.provenance.tp,
            lengths: [run.provenance.batch, mean(row.tokens_in), mean(row.tokens_out)],
        }
    };
    performance.iter().map(timed).chain(whole.map(scored)).collect()
}

/// A row of `model_error.csv`: the error of one modelled figure.
#[derive(Serialize)]
struct ErrorRow<'a> {
    schema: u32,
    run_id: &'a str,
    case_id: &'a str,
    phase: String,
    profile: &'a str,
    tp: u32,
    batch: u32,
    input_tokens: u32,
    output_tokens: u32,
    error: Option<f64>,
    worst: Option<f64>,
    rows: Option<usize>,
    models: Option<usize>,
    extrapolated: String,
    problem: &'static str,
}

impl ErrorRow<'_> {
    const HEADER: &'static str = "schema,run_id,case_id,phase,profile,tp,batch,input_tokens,output_tokens,error,worst,rows,\
        models,extrapolated,problem";
}

/// Returns `model_error.csv`, with a row for every figure. `None` for measured times.
///
/// # Errors
/// A row cannot be written as CSV.
pub(crate) fn csv(run: &RunRecord, figures: &[Figure]) -> Result<Option<Csv>, csv::Error> {
    let Some(basis) = basis_of(run).filter(|_| !figures.is_empty()) else { return Ok(None) };
    let rows: Vec<ErrorRow<'_>> = figures.iter().map(|figure| row(run, basis, figure)).collect();
    Csv::of("model_error.csv", ErrorRow::HEADER, &rows).map(Some)
}

fn row<'a>(run: &'a RunRecord, basis: Basis<'a>, figure: &'a Figure) -> ErrorRow<'a> {
    let Figure { phase, tp, lengths, .. } = *figure;
    let [batch, input_tokens, output_tokens] = lengths;
    let error = basis.error(of_phase(phase), tp, lengths);
    let stated = error.as_ref().ok();
    let share = |of: fn(&Stated) -> f64| stated.map(|stated| (of(stated) * 1e4).round() / 1e4);
    ErrorRow {
        schema: SCHEMA,
        run_id: &run.run_id,
        case_id: &figure.case_id,
        phase: phase.to_string(),
        profile: basis.profile,
        tp,
        batch,
        input_tokens,
        output_tokens,
        error: share(|of| of.error),
        worst: share(|of| of.worst),
        rows: stated.map(|of| of.rows),
        models: stated.map(|of| of.models),
        extrapolated: stated.map_or_else(String::new, |of| {
            of.beyond.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        }),
        problem: error.as_ref().err().copied().unwrap_or_default(),
    }
}
