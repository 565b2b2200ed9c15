//! The evidence behind modelled times: published speeds beside the modelled ones, and the figures of the profile.

use crate::language::{Language, Text, cells, text, texts};
use glmbench_calibrate::cases::batches_of;
use glmbench_calibrate::counted::Batch;
use glmbench_calibrate::modelled::{Group, Residual, residuals};
use glmbench_calibrate::published::{self, Phase as PublishedPhase};
use glmbench_calibrate::residuals::{Spread, summaries};

use crate::record::{PerfRow, Phase, ProfileFigure, RunRecord};
use crate::report::charts::ratios::{Dot, RatioChart, RatioRow};
use crate::report::format::{fixed, or_none};
use crate::report::modelled::{basis_of, cell, profile_of};
use crate::report::performance::per_token_ns;
use crate::report::table::Table;

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

/// Returns the profile figures of a run with their marks.
fn figures(run: &RunRecord) -> Option<Table> {
    let by = run.provenance.modelled_by.as_ref()?;
    let title = text!(
        "The profile behind the modelled times: {profile}, {title}",
        profile = profile_of(run)?,
        title = by.title
    );
    let mut table =
        Table::new(title, &texts!["Figure", "Unit", "Mark", "Source"], &texts!["Value", "Rows", "Error"]);
    let row = |figure: &ProfileFigure| {
        let ProfileFigure { key, value, unit, mark, source, rows, error } = figure;
        let value = if *value >= 1e7 { format!("{value:.4e}") } else { value.to_string() };
        let error = or_none(*error, |share| format!("± {:.0} %", 100.0 * share));
        cells![key, unit, Text::term(mark), source, value, or_none(*rows, |rows| rows.to_string()), error]
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
    let text = texts!["Model", "Chip", "Launches", "Phase", "Use"];
    let numbers = texts![
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
    let title = text!("Published rows that this run times: modelled over published time");
    let mut table = Table::new(title, &text, &numbers);
    let published = published::rows().unwrap_or_default();
    for (row, residual) in published.iter().zip(residuals()) {
        let is_own = chip.strip_prefix("Ascend") == Some(row.chip.as_str())
            && from.dtype == row.dtype
            && row.config().is_ok_and(|config| config.shape() == *shape);
        let Some((ms, of)) = is_own.then(|| time_of(row, rows)).flatten() else { continue };
        table.push(
            false,
            cells![
                row.model,
                row.chip,
                Text::term(&residual.mode),
                Text::term(&residual.phase),
                Text::term(&residual.purpose),
                row.chips,
                row.batch,
                residual.input_tokens,
                residual.output_tokens,
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
    for (Batch { sequences, tokens }, share) in batches_of(row) {
        let of = rows.iter().filter(|of| of.batch as usize == sequences && of.tp as usize == row.chips);
        let (ms, of) = match row.phase {
            PublishedPhase::Prefill => {
                let mut of = of.filter(|of| of.phase == Phase::Prefill && of.input_tokens as usize == tokens);
                of.find_map(|of| Some((of.median_ns? as f64 / 1e6, of)))?
            }
            PublishedPhase::Decode => {
                let middle =
                    |of: &&PerfRow| of.input_tokens as usize + of.output_tokens as usize / 2 == tokens;
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
    let numbers = texts![
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
        Table::new(text!("Modelled against published time, by ratio"), &texts!["Chip and phase"], &numbers);
    let range = |of: Spread| {
        text!("{least} to {most}", least = format!("{:.2}", of.least), most = format!("{:.2}", of.most))
    };
    for group in summaries(rows) {
        table.push(
            false,
            cells![
                group_words(&group.of),
                group.rows,
                group.models,
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
    let text =
        texts!["Model", "Chip", "Type", "Launches", "Phase", "Use", "Why not timed, or only reported",];
    let numbers = texts!["Chips", "Batch", "In", "Out", "Published ms", "Before", "Shipped", "Left out"];
    let mut table = Table::new(text!("Every published row: modelled over published time"), &text, &numbers);
    for row in rows {
        let ratio = |ratio: Option<f64>| fixed(ratio, 2);
        table.push(
            false,
            cells![
                row.model,
                row.chip,
                row.dtype,
                Text::term(&row.mode),
                Text::term(&row.phase),
                Text::term(&row.purpose),
                Text::term(&row.reason),
                row.chips,
                row.batch,
                row.input_tokens,
                row.output_tokens,
                fixed(Some(row.published_ms), 1),
                ratio(row.before),
                ratio(row.ratio),
                ratio(row.left_out),
            ],
        );
    }
    table
}

/// Returns the chart *modelled against published*. It has the ratio of every row that can be timed, by chip, number of chips,
/// phase and model, with geometric mean and range. `None` for runs with measured times.
pub(in crate::report) fn chart(run: &RunRecord, language: Language) -> Option<RatioChart> {
    profile_of(run).map(|_| chart_of(residuals(), language))
}

fn chart_of(rows: &[Residual], language: Language) -> RatioChart {
    let summaries = summaries(rows);
    let mut groups: Vec<Group> = summaries.iter().map(|group| group.of.clone()).collect();
    // Some groups have only rows that do not count.
    for of in rows.iter().filter(|row| row.ratio.is_some()).map(Residual::group) {
        if !groups.contains(&of) {
            groups.push(of);
        }
    }
    let mut all = Vec::new();
    for of in groups {
        let summary = summaries.iter().find(|group| group.of == of);
        let words = summary.map_or(Text::EMPTY, |group| {
            let Spread { mean, least, most } = group.after;
            let error = group.error.map_or(Text::EMPTY, |of| {
                text!(
                    "; ± {error} %, worst {worst} %",
                    error = format!("{:.0}", 100.0 * of.rms),
                    worst = format!("{:.0}", 100.0 * of.worst)
                )
            });
            text!(
                "{mean} [{least} to {most}], {rows} row{rows:s}{error}",
                mean = format!("{mean:.2}"),
                least = format!("{least:.2}"),
                most = format!("{most:.2}"),
                rows = group.rows,
                error
            )
        });
        let own: Vec<&Residual> =
            rows.iter().filter(|row| row.ratio.is_some() && row.group() == of).collect();
        let mean = summary.map(|group| group.after);
        let label = group_words(&of).in_language(language);
        let words = words.in_language(language);
        all.push(RatioRow { label, strong: true, dots: Vec::new(), mean, words });
        let mut models: Vec<&str> = Vec::new();
        for row in &own {
            if !models.contains(&row.model.as_str()) {
                models.push(&row.model);
            }
        }
        all.extend(models.into_iter().map(|model| model_row(model, &own, language)));
    }
    RatioChart {
        title: text!("Modelled against published").in_language(language),
        subtitle: text!(
            "modelled over published time, by factors; above 1: modelled slower; bar: range, tick: geometric mean of the rows \
             that count; ±: error on unseen models"
        )
        .in_language(language),
        x_name: text!("modelled ÷ published time").in_language(language),
        keys: Dot::NAMES.map(|(dot, name)| (dot, name.in_language(language))),
        rows: all,
    }
}

/// The rows of a line that sums up: `310P3, 2 chips, decode`.
fn group_words(Group { chip, chips, phase }: &Group) -> Text {
    let phase = Text::term(phase);
    if let Some(chips) = chips {
        text!("{chip}, {chips} chip{chips:s}, {phase}", chip, chips, phase)
    } else {
        text!("{chip}, {phase}, all models", chip, phase)
    }
}

/// Returns the line of one model: the ratios of its rows.
fn model_row(model: &str, rows: &[&Residual], language: Language) -> RatioRow {
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
            0 => text!("{rows} row{rows:s}", rows = counts),
            aside if counts == 0 => text!("{aside} row{aside:s} reported only", aside),
            aside => text!("{counts} row{counts:s}, {aside} reported only", counts, aside),
        }
        .in_language(language),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Clock;
    use crate::report::{fixture, perf_rows};

    #[test]
    fn the_evidence_is_of_runs_with_modelled_times() {
        let fixture::Records { mut run, requests, .. } = fixture::realistic();
        assert!(tables(&run).is_empty() && chart(&run, Language::En).is_none());
        run.provenance.clock = Clock::Modelled;
        run.provenance.clock_profile = Some("300i-duo sha256:00".into());
        assert_eq!(tables(&run).len(), 1);
        run.provenance.suite = SUITE.into();
        assert!(tables(&run)[1].rows.len() > 200);
        assert!(timed(&run, &perf_rows(&run, &requests)).is_none());
    }

    #[test]
    fn a_published_row_is_held_against_the_shapes_that_make_it_up() {
        let fixture::Records { mut run, requests, .. } = fixture::realistic();
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
        let cells: Vec<[&Text; 2]> = found.rows.iter().map(|row| [&row.cells[3], &row.cells[10]]).collect();
        assert_eq!(cells, [["prefill", "60.0"], ["decode", "10.0"]]);
    }

    #[test]
    fn every_row_that_can_be_timed_is_in_the_chart_once() {
        let rows = residuals();
        let chart = chart_of(rows, Language::En);
        let now = chart
            .rows
            .iter()
            .flat_map(|row| &row.dots)
            .filter(|dot| matches!(dot, Dot::Now(_) | Dot::Aside(_)));
        assert_eq!(now.count(), rows.iter().filter(|row| row.ratio.is_some()).count());
    }
}
