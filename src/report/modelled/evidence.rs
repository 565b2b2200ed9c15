//! The evidence behind modelled times: published speeds beside the modelled ones, and the figures of the profile.

use glmbench_calibrate::cases::batches_of;
use glmbench_calibrate::modelled::{Residual, residuals};
use glmbench_calibrate::published::{self, Phase as PublishedPhase};
use glmbench_calibrate::residuals::{Spread, summaries};

use super::{basis_of, cell, profile_of};
use crate::record::{PerfRow, Phase, ProfileFigure, RunRecord};
use crate::report::charts::ratios::{Dot, RatioChart, RatioRow};
use crate::report::format::{bytes, counted, fixed, or_none};
use crate::report::tables::{Table, per_token_ns};

/// Name of the suite that times the published shapes. Its report lists every published row.
const SUITE: &str = "calibration";

/// File name of the chart, without extension.
pub(in crate::report) const CHART: &str = "modelled-against-published";

/// Whether a run is of the suite that times the published shapes.
pub(in crate::report) fn is_calibration(run: &RunRecord) -> bool {
    profile_of(run).is_some() && run.provenance.suite == SUITE
}

/// Returns the tables behind modelled times: a summary by chip, in the suite `calibration` every row, and the profile's figures.
pub(in crate::report) fn tables(run: &RunRecord) -> Vec<Table> {
    if profile_of(run).is_none() {
        return Vec::new();
    }
    let rows = residuals();
    let mut tables = vec![summary(rows)];
    if is_calibration(run) {
        tables.push(every(rows));
    }
    tables.extend(figures(run));
    tables
}

/// Names the card of a modelled run, its memory and the marks of its figures: `Atlas 300I DUO, 96 GB (2 x Ascend 310P3), 48.0 GiB a
/// chip (figures: 9 published, 5 derived, 2 calibrated, 11 assumed)`. `None` if the record does not say.
pub(super) fn card_words(run: &RunRecord) -> Option<String> {
    let by = run.provenance.modelled_by.as_ref()?;
    let memory = by.figures.iter().find(|figure| figure.key == "memory_bytes");
    let memory = memory.map_or_else(String::new, |of| format!(", {} a chip", bytes(of.value as u64)));
    let of_mark = |mark: &&str| by.figures.iter().filter(|figure| figure.mark == **mark).count();
    let marks = ["published", "derived", "calibrated", "assumed"];
    let counts = marks.iter().map(|mark| format!("{} {mark}", of_mark(mark)));
    Some(format!("{}{memory} (figures: {})", by.title, counts.collect::<Vec<_>>().join(", ")))
}

/// Returns the figures of a run's profile with their marks.
fn figures(run: &RunRecord) -> Option<Table> {
    let by = run.provenance.modelled_by.as_ref()?;
    let title = format!("The profile behind the modelled times: {}, {}", profile_of(run)?, by.title);
    let mut table = Table::new(title, &["Figure", "Unit", "Mark", "Source"], &["Value", "Rows", "Error"]);
    let row = |figure: &ProfileFigure| {
        let ProfileFigure { key, value, unit, mark, source, rows, error } = figure;
        let value = if *value >= 1e7 { format!("{value:.4e}") } else { value.to_string() };
        let error = or_none(*error, |share| format!("± {:.0} %", 100.0 * share));
        let text = [key, unit, mark, source].map(String::clone).into_iter();
        text.chain([value, or_none(*rows, |rows| rows.to_string()), error]).collect()
    };
    by.figures.iter().for_each(|figure| table.push(false, row(figure)));
    (!table.rows.is_empty()).then_some(table)
}

/// Returns the published rows that a run timed: those of its model's shape, chip and type whose batches and lengths it has. The mean
/// decode step of a sequence is held to be the step in its middle, so a run may time that alone.
pub(in crate::report) fn timed(run: &RunRecord, rows: &[PerfRow]) -> Option<Table> {
    let basis = basis_of(run)?;
    let from = &run.provenance;
    let (shape, chip) = (from.model_details.get("shape")?, from.device_details.get("chip")?);
    let text = ["Model", "Chip", "Launches", "Phase", "Use"];
    let numbers = [
        "Chips",
        "Batch",
        "In",
        "Out",
        "Published ms",
        "Modelled ms",
        "Error",
        "Ratio",
        "Ratio, fit's table",
    ];
    let title = "Published rows that this run times: modelled over published time".to_owned();
    let mut table = Table::new(title, &text, &numbers);
    let published = published::rows().unwrap_or_default();
    for (row, residual) in published.iter().zip(residuals()) {
        let is_own = chip.strip_prefix("Ascend") == Some(row.chip.as_str())
            && from.dtype.to_string() == row.dtype
            && row.config().is_ok_and(|config| config.shape() == *shape);
        let Some((ms, of)) = is_own.then(|| time_of(row, rows)).flatten() else { continue };
        table.push(
            false,
            vec![
                row.model.clone(),
                row.chip.clone(),
                residual.mode.clone(),
                residual.phase.clone(),
                residual.purpose.clone(),
                row.chips.to_string(),
                row.batch.to_string(),
                residual.input_tokens.clone(),
                residual.output_tokens.clone(),
                fixed(Some(row.value), 1),
                fixed(Some(ms), 1),
                cell(basis, of, of.phase),
                fixed(Some(ms / row.value), 2),
                fixed(residual.ratio, 2),
            ],
        );
    }
    (!table.rows.is_empty()).then_some(table)
}

/// Returns the modelled time of a published row in ms, by the rows of a run, and the last of these. `None` if a batch is missing.
fn time_of<'a>(row: &published::Row, rows: &'a [PerfRow]) -> Option<(f64, &'a PerfRow)> {
    let mut found = None;
    for ((batch, tokens), share) in batches_of(row) {
        let of = rows.iter().filter(|of| of.batch as usize == batch && of.tp as usize == row.chips);
        let (ms, of) = match row.phase {
            PublishedPhase::Prefill => {
                let mut of = of.filter(|of| of.phase == Phase::Prefill && of.input_tokens as usize == tokens);
                of.find_map(|of| Some((of.median_ns? as f64 / 1e6, of)))?
            }
            PublishedPhase::Decode => {
                let middle = |of: &&PerfRow| (of.input_tokens + of.output_tokens / 2) as usize == tokens;
                let mut of = of.filter(|of| of.phase == Phase::Decode).filter(middle);
                of.find_map(|of| Some((per_token_ns(of)? / 1e6, of)))?
            }
        };
        found = Some((found.map_or(0.0, |(sum, _)| sum) + share * ms, of));
    }
    found
}

/// Returns the published speeds against the modelled ones by chip, number of chips and phase.
fn summary(rows: &[Residual]) -> Table {
    let numbers = [
        "Rows",
        "Models",
        "Before: mean",
        "range",
        "Shipped: mean",
        "range",
        "Error on unseen models",
        "worst",
    ];
    let mut table =
        Table::new("Modelled against published time, by ratio".into(), &["Chip and phase"], &numbers);
    let range = |of: Spread| format!("{:.2} to {:.2}", of.least, of.most);
    for group in summaries(rows) {
        table.push(
            false,
            vec![
                group.of,
                group.rows.to_string(),
                group.models.to_string(),
                fixed(Some(group.before.mean), 2),
                range(group.before),
                fixed(Some(group.after.mean), 2),
                range(group.after),
                or_none(group.error, |of| format!("± {:.0} %", 100.0 * of.rms)),
                or_none(group.error, |of| format!("{:.0} %", 100.0 * of.worst)),
            ],
        );
    }
    table
}

/// Returns every published row.
fn every(rows: &[Residual]) -> Table {
    let text = ["Model", "Chip", "Type", "Launches", "Phase", "Use", "Why not timed, or only reported"];
    let numbers = ["Chips", "Batch", "In", "Out", "Published ms", "Before", "Shipped", "Left out"];
    let mut table = Table::new("Every published row: modelled over published time".into(), &text, &numbers);
    for row in rows {
        let ratio = |ratio: Option<f64>| fixed(ratio, 2);
        table.push(
            false,
            vec![
                row.model.clone(),
                row.chip.clone(),
                row.dtype.clone(),
                row.mode.clone(),
                row.phase.clone(),
                row.purpose.clone(),
                row.reason.clone(),
                row.chips.to_string(),
                row.batch.to_string(),
                row.input_tokens.clone(),
                row.output_tokens.clone(),
                fixed(Some(row.published_ms), 1),
                ratio(row.before),
                ratio(row.ratio),
                ratio(row.left_out),
            ],
        );
    }
    table
}

/// Returns the chart *modelled against published*: the ratio of every row that can be timed, by chip, number of chips, phase and
/// model, with geometric mean and range. `None` for runs with measured times.
pub(in crate::report) fn chart(run: &RunRecord) -> Option<RatioChart> {
    profile_of(run).map(|_| chart_of(residuals()))
}

fn chart_of(rows: &[Residual]) -> RatioChart {
    let summaries = summaries(rows);
    let mut groups: Vec<String> = summaries.iter().map(|group| group.of.clone()).collect();
    // Some groups have only rows that do not count.
    for of in rows.iter().filter(|row| row.ratio.is_some()).map(Residual::group) {
        if !groups.contains(&of) {
            groups.push(of);
        }
    }
    let mut all = Vec::new();
    for of in groups {
        let summary = summaries.iter().find(|group| group.of == of);
        let words = summary.map_or_else(String::new, |group| {
            let Spread { mean, least, most } = group.after;
            let error = group.error.map_or_else(String::new, |of| {
                format!("; ± {:.0} %, worst {:.0} %", 100.0 * of.rms, 100.0 * of.worst)
            });
            format!("{mean:.2} [{least:.2} to {most:.2}], {}{error}", counted(group.rows as u64, "row"))
        });
        let own: Vec<&Residual> =
            rows.iter().filter(|row| row.ratio.is_some() && row.group() == of).collect();
        let mean = summary.map(|group| group.after);
        all.push(RatioRow { label: of, strong: true, dots: Vec::new(), mean, words });
        let mut models: Vec<&str> = Vec::new();
        for row in &own {
            if !models.contains(&row.model.as_str()) {
                models.push(&row.model);
            }
        }
        all.extend(models.into_iter().map(|model| model_row(model, &own)));
    }
    RatioChart {
        title: "Modelled against published".to_owned(),
        subtitle: "modelled over published time, by factors; above 1: modelled slower; bar: range, tick: geometric mean of the rows \
                   that count; ±: error on unseen models"
            .to_owned(),
        rows: all,
    }
}

/// Returns the line of one model: the ratios of its rows.
fn model_row(model: &str, rows: &[&Residual]) -> RatioRow {
    let rows: Vec<&&Residual> = rows.iter().filter(|row| row.model == model).collect();
    let of = |ratio: &dyn Fn(&Residual) -> Option<f64>, dot: fn(f64) -> Dot| -> Vec<Dot> {
        rows.iter().filter_map(|row| ratio(row)).map(dot).collect()
    };
    let counts = rows.iter().filter(|row| row.counts()).count();
    RatioRow {
        label: model.to_owned(),
        strong: false,
        dots: [
            of(&|row| row.before, Dot::Before),
            of(&|row| row.ratio.filter(|_| !row.counts()), Dot::Aside),
            of(&|row| row.left_out, Dot::LeftOut),
            of(&|row| row.ratio.filter(|_| row.counts()), Dot::Now),
        ]
        .concat(),
        mean: None,
        words: match rows.len() - counts {
            0 => counted(counts as u64, "row"),
            aside if counts == 0 => format!("{} reported only", counted(aside as u64, "row")),
            aside => format!("{}, {aside} reported only", counted(counts as u64, "row")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Clock;
    use crate::report::{fixture, perf_rows};

    #[test]
    fn the_evidence_is_of_runs_with_modelled_times() {
        let (mut run, _, requests) = fixture::realistic();
        assert!(tables(&run).is_empty() && chart(&run).is_none());
        run.provenance.clock = Clock::Modelled;
        run.provenance.clock_profile = Some("300i-duo sha256:00".into());
        assert_eq!(tables(&run).len(), 1);
        run.provenance.suite = SUITE.into();
        assert!(tables(&run)[1].rows.len() > 200);
        assert!(timed(&run, &perf_rows(&run, &requests)).is_none());
    }

    #[test]
    fn a_published_row_is_held_against_the_shapes_that_make_it_up() {
        let (mut run, _, requests) = fixture::realistic();
        run.provenance.clock = Clock::Modelled;
        run.provenance.clock_profile = Some("800i-a2-64g sha256:00".into());
        run.provenance.device_details.insert("chip".into(), "Ascend910B3".into());
        let rows = published::rows().unwrap();
        let model = rows.iter().find(|row| row.model == "Alpaca2-7B").unwrap();
        run.provenance.model_details.insert("shape".into(), model.config().unwrap().shape());
        let base = perf_rows(&run, &requests)[0].clone();
        let row = |phase, input_tokens, output_tokens, ms: u64| PerfRow {
            phase,
            batch: 1,
            tp: 1,
            input_tokens,
            output_tokens,
            median_ns: Some(ms * 1_000_000),
            ..base.clone()
        };
        // The published prefill is a mean over six lengths.
        let mut timed_rows: Vec<PerfRow> =
            [32, 64, 128, 256, 512, 1024].map(|tokens| row(Phase::Prefill, tokens, 2, 60)).into();
        assert!(timed(&run, &timed_rows[1..]).is_none());
        timed_rows.push(row(Phase::Decode, 502, 5, 40));
        let found = timed(&run, &timed_rows).unwrap();
        let cells: Vec<[&str; 2]> =
            found.rows.iter().map(|row| [row.cells[3].as_str(), row.cells[10].as_str()]).collect();
        assert_eq!(cells, [["prefill", "60.0"], ["decode", "10.0"]]);
    }

    #[test]
    fn every_row_that_can_be_timed_is_in_the_chart_once() {
        let rows = residuals();
        let chart = chart_of(rows);
        let now = chart
            .rows
            .iter()
            .flat_map(|row| &row.dots)
            .filter(|dot| matches!(dot, Dot::Now(_) | Dot::Aside(_)));
        assert_eq!(now.count(), rows.iter().filter(|row| row.ratio.is_some()).count());
    }
}
