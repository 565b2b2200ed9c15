//! The charts of a run. [`comparison`] has those of several runs. [`lines`], [`scores`], [`panels`], [`forest`],
//! [`strips`] and [`ratios`] draw them, with the tools of [`ink`].
//!
//! Every chart is drawn twice from one description: as SVG, which the page embeds, and as PNG at twice the size.
//! Series differ in marker and dash as well as in colour, so that they can be distinguished in greyscale. Modelled
//! series have hollow markers, dotted lines, and "modelled" in their label.

mod axis;
pub(crate) mod cases;
mod comparison;
mod forest;
mod ink;
pub(crate) mod lines;
mod panels;
pub(super) mod ratios;
mod scores;
mod strips;
#[cfg(test)]
mod toy;

pub(super) use comparison::draw_comparison;
#[cfg(test)]
pub(super) use toy::ToyChart;

use super::accuracy::ALL;
use super::error::ReportError;
use super::modelled;
use super::modelled::memory::Lines;
use super::tables::per_token_ns;
use crate::record::{AccuracyRow, Clock, PerfRow, Phase, RunRecord, write_whole};
use axis::{Axis, Division};
use forest::ForestChart;
use ink::Ink;
use lines::{LineChart, Point, Scale, Series};
use panels::{Key, Line, Look, Mark, Panel, PanelChart};
use plotters::prelude::*;
use ratios::RatioChart;
use scores::{Level, Score, ScoreChart};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use strips::StripChart;

/// A drawn chart for the page.
#[derive(Debug, Clone)]
pub(super) struct Picture {
    /// File name in `charts/`, without extension.
    pub name: String,
    /// Text alternative.
    pub alt: String,
    /// The SVG.
    pub svg: String,
    /// Whether it takes the page's whole width.
    pub wide: bool,
}

/// A chart before it is drawn.
pub(super) enum Chart {
    Lines(LineChart),
    Scores(ScoreChart),
    Panels(PanelChart),
    Forest(ForestChart),
    Strips(StripChart),
    Ratios(RatioChart),
    #[cfg(test)]
    Toy(ToyChart),
}

/// Draws the charts into `charts/` of a folder, which is created if there are any.
pub(super) fn draw(folder: &Path, described: &[(String, Chart)]) -> Result<Vec<Picture>, ReportError> {
    let folder = folder.join("charts");
    if !described.is_empty() {
        fs::create_dir_all(&folder).map_err(|e| chart_error(&folder, &e))?;
    }
    described.iter().map(|(name, chart)| draw_one(&folder, name, chart)).collect()
}

fn draw_one(folder: &Path, name: &str, chart: &Chart) -> Result<Picture, ReportError> {
    let path = folder.join(format!("{name}.svg"));
    let svg = chart.svg().map_err(|e| chart_error(&path, &e))?;
    write_whole(&path, svg.as_bytes())?;
    let path = folder.join(format!("{name}.png"));
    chart.write_png(&path).map_err(|e| chart_error(&path, &e))?;
    Ok(Picture { name: name.to_owned(), alt: chart.title(), svg, wide: chart.size().0 > lines::SIZE.0 })
}

fn chart_error(path: &Path, message: &dyn ToString) -> ReportError {
    ReportError::Chart { path: path.to_owned(), message: message.to_string() }
}

/// Scale of a PNG relative to its SVG.
const PNG_SCALE: u32 = 2;

impl Chart {
    fn title(&self) -> String {
        match self {
            Self::Lines(chart) => format!("{}, {}", chart.title, chart.subtitle),
            Self::Scores(chart) => format!("{}, {}", chart.title, chart.subtitle),
            Self::Panels(chart) => format!("{}, {}", chart.title, chart.subtitle),
            Self::Forest(chart) => format!("{}, {}", chart.title, chart.subtitle),
            Self::Strips(chart) => format!("{}, {}", chart.title, chart.subtitle),
            Self::Ratios(chart) => format!("{}, {}", chart.title, chart.subtitle),
            #[cfg(test)]
            Self::Toy(chart) => chart.title(),
        }
    }

    fn size(&self) -> (u32, u32) {
        match self {
            Self::Lines(_) => lines::SIZE,
            Self::Scores(chart) => chart.size(),
            Self::Panels(chart) => chart.size(),
            Self::Forest(chart) => chart.size(),
            Self::Strips(chart) => chart.size(),
            Self::Ratios(chart) => chart.size(),
            #[cfg(test)]
            Self::Toy(_) => toy::SIZE,
        }
    }

    fn draw_on<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, plotters::coord::Shift>,
        ink: &Ink,
    ) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
        area.fill(&WHITE)?;
        match self {
            Self::Lines(chart) => lines::draw(area, chart, ink)?,
            Self::Scores(chart) => scores::draw(area, chart, ink)?,
            Self::Panels(chart) => panels::draw(area, chart, ink)?,
            Self::Forest(chart) => forest::draw(area, chart, ink)?,
            Self::Strips(chart) => strips::draw(area, chart, ink)?,
            Self::Ratios(chart) => ratios::draw(area, chart, ink)?,
            #[cfg(test)]
            Self::Toy(chart) => toy::draw(area, chart, ink)?,
        }
        area.present()
    }

    fn svg(&self) -> Result<String, String> {
        let mut svg = String::new();
        let area = SVGBackend::with_string(&mut svg, self.size()).into_drawing_area();
        self.draw_on(&area, &Ink::vector()?).map_err(|e| e.to_string())?;
        drop(area);
        Ok(svg)
    }

    fn write_png(&self, path: &Path) -> Result<(), String> {
        let (width, height) = self.size();
        let size = (PNG_SCALE * width, PNG_SCALE * height);
        let area = BitMapBackend::new(path, size).into_drawing_area();
        self.draw_on(&area, &Ink::bitmap(PNG_SCALE)?).map_err(|e| e.to_string())
    }
}

/// Returns the charts of the scores, by file name without extension.
pub(super) fn of_scores(run: &RunRecord, rows: &[AccuracyRow]) -> Vec<(String, Chart)> {
    score_charts(run, rows).into_iter().map(|(name, chart)| (name, Chart::Scores(chart))).collect()
}

/// Returns the charts of the times for which the rows have data, by file name without extension.
pub(super) fn of_times(run: &RunRecord, rows: &[PerfRow]) -> Vec<(String, Chart)> {
    let usable: Vec<_> = rows.iter().filter(|row| row.valid == Some(true)).collect();
    let lines = line_charts(run, &usable).into_iter().filter(|(_, chart)| !chart.series.is_empty());
    let lines = lines.map(|(name, chart)| (name.to_owned(), Chart::Lines(chart)));
    let prefill =
        prefill_chart(run, &usable).map(|chart| ("latency-prefill".to_owned(), Chart::Panels(chart)));
    lines.chain(prefill).collect()
}

/// A task's name, made safe as part of a file name.
pub(crate) fn plain_name(task: &str) -> String {
    task.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect()
}

/// One chart of all tasks, and one for each task with more than one row.
fn score_charts(run: &RunRecord, rows: &[AccuracyRow]) -> Vec<(String, ScoreChart)> {
    const SUBTITLE: &str = "percent with Wilson 95 % interval; dashed: by chance";
    let rows: Vec<_> = rows.iter().filter(|row| row.acc.is_some()).collect();
    let chance =
        |row: &AccuracyRow| run.plan.accuracy.iter().find(|c| c.task == row.task).and_then(|c| c.chance);
    let wholes = rows.iter().filter(|row| row.subject == ALL && row.category == ALL);
    let all_tasks = ScoreChart {
        title: "Accuracy by task".to_owned(),
        subtitle: SUBTITLE.to_owned(),
        scores: wholes.map(|row| score(row, row.task.clone(), chance(row))).collect(),
    };
    let of_task = |task: &str| {
        let of_task: Vec<_> = rows.iter().filter(|row| row.task == task).collect();
        (of_task.len() > 1).then(|| ScoreChart {
            title: format!("Accuracy, {task}"),
            subtitle: format!("{}; {SUBTITLE}", of_task[0].protocol),
            scores: of_task.iter().map(|row| score(row, group_name(row), chance(row))).collect(),
        })
    };
    let tasks = run.plan.accuracy.iter().filter_map(|case| {
        of_task(&case.task).map(|chart| (format!("accuracy-{}", plain_name(&case.task)), chart))
    });
    let first = (!all_tasks.scores.is_empty()).then(|| ("accuracy".to_owned(), all_tasks));
    first.into_iter().chain(tasks).collect()
}

fn group_name(row: &AccuracyRow) -> String {
    match (row.subject.as_str(), row.category.as_str()) {
        (ALL, ALL) => "all items",
        (ALL, category) => category,
        (subject, _) => subject,
    }
    .to_owned()
}

fn score(row: &AccuracyRow, label: String, chance: Option<f64>) -> Score {
    Score {
        label,
        level: match (row.subject.as_str(), row.category.as_str()) {
            (ALL, ALL) => Level::Whole,
            (ALL, _) => Level::Group,
            _ => Level::Subject,
        },
        share: row.acc.unwrap_or_default(),
        low: row.ci95_lo.unwrap_or_default(),
        high: row.ci95_hi.unwrap_or_default(),
        items: row.scored + row.unscorable,
        chance,
    }
}

fn line_charts(run: &RunRecord, rows: &[&PerfRow]) -> [(&'static str, LineChart); 3] {
    let clock = run.provenance.clock;
    let subtitle = |unit: &str, phase| {
        let error = modelled::span(run, rows.iter().copied(), phase);
        format!("{unit}, {clock}{error}, {} {}", run.provenance.device, run.provenance.dtype)
    };
    let lengths = |row: &PerfRow| (row.input_tokens, row.output_tokens, row.tp);
    let ranks = rows.iter().any(|row| row.tp != 1);
    let lengths_label = |(input, output, tp)| {
        let tp = if ranks { format!(", tp {tp}") } else { String::new() };
        format!("{input} + {output}{tp}")
    };
    let of = |phase| rows.iter().copied().filter(move |row| row.phase == phase);
    let against_batch = |title: &str, unit: &str, phase, series| LineChart {
        title: title.to_owned(),
        subtitle: subtitle(unit, phase),
        x_name: "batch",
        x_scale: Scale::Log2,
        series,
    };
    [
        (
            "throughput-e2e",
            against_batch(
                "End-to-end throughput against batch",
                "output tokens/s by input + output length",
                Phase::E2e,
                series(of(Phase::E2e), clock, lengths, lengths_label, |row| (row.batch, throughput(row))),
            ),
        ),
        (
            "throughput-decode",
            against_batch(
                "Decode throughput against batch",
                "tokens/s after the first by input + output length",
                Phase::Decode,
                series(of(Phase::Decode), clock, lengths, lengths_label, |row| (row.batch, throughput(row))),
            ),
        ),
        (
            "latency-decode",
            against_batch(
                "Decode latency against batch",
                "ms per token by input + output length",
                Phase::Decode,
                series(of(Phase::Decode), clock, lengths, lengths_label, |row| {
                    let steps = f64::from(row.output_tokens.saturating_sub(1).max(1));
                    (row.batch, latency(row, per_token_ns(row), steps))
                }),
            ),
        ),
    ]
}

/// Returns the charts of a card's memory: that of a case alone in GiB against its batch, by input and output length and number of
/// chips, and the largest batch that fits against the sequence's tokens, by number of chips.
pub(super) fn cards_memory(run: &RunRecord, alone: &Lines, largest: &Lines) -> Vec<(String, Chart)> {
    let from = &run.provenance;
    let on = format!("{} {}, by estimate", from.device, from.dtype);
    let batch = memory_chart(
        ("Memory of a chip against batch", format!("GiB of the case alone by input + output length, {on}")),
        "batch",
        alone,
        |(input, output, tp)| format!("{input} + {output}, tp {tp}"),
    );
    let fits = memory_chart(
        ("Largest batch that fits", format!("sequences by number of chips, {on}")),
        "input and output tokens of each sequence",
        largest,
        |(_, _, tp)| format!("tp {tp}"),
    );
    let named = [("memory-batch", batch), ("memory-largest-batch", fits)];
    named.into_iter().filter_map(|(name, chart)| Some((name.to_owned(), Chart::Panels(chart?)))).collect()
}

fn memory_chart(
    (title, subtitle): (&str, String),
    x_name: &'static str,
    lines: &Lines,
    label: impl Fn((u32, u32, u32)) -> String,
) -> Option<PanelChart> {
    let points = || lines.values().flatten();
    let across: Vec<f64> = points().map(|(x, _)| *x).collect();
    let look = |series| Look { series, modelled: false };
    let mark = |&(x, y): &(f64, f64)| Mark { x, y, ..Mark::default() };
    (!across.is_empty()).then(|| PanelChart {
        title: title.to_owned(),
        subtitle,
        x: Axis::of(Division::Log, across.clone()).naming(across.clone()),
        x_name,
        y: Axis::of(Division::Log, points().map(|(_, y)| *y)),
        keys: lines.keys().enumerate().map(|(i, key)| Key { label: label(*key), look: look(i) }).collect(),
        panels: vec![Panel {
            title: String::new(),
            lines: lines
                .values()
                .enumerate()
                .map(|(i, points)| Line {
                    look: look(i),
                    points: points.iter().map(mark).collect(),
                    joined: true,
                    marked: true,
                })
                .collect(),
        }],
    })
}

/// Prefill time against length on two logarithmic axes. Proportional growth is a straight line, and short prompts are
/// visible.
fn prefill_chart(run: &RunRecord, rows: &[&PerfRow]) -> Option<PanelChart> {
    let from = &run.provenance;
    // A shape's prefill does not depend on the output length, so the first row suffices.
    let prefills = first_of_each(rows.iter().copied().filter(|row| row.phase == Phase::Prefill), |row| {
        (row.batch, row.input_tokens, row.tp)
    });
    let ranks = rows.iter().any(|row| row.tp != 1);
    let by_batch = series(
        prefills,
        from.clock,
        |row| (row.batch, row.tp),
        |(batch, tp)| if ranks { format!("batch {batch}, tp {tp}") } else { format!("batch {batch}") },
        |row| (row.input_tokens, latency(row, row.median_ns.map(|ns| ns as f64), 1.0)),
    );
    let points = || by_batch.iter().flat_map(|series| &series.points);
    let lengths: Vec<f64> = points().map(|point| point.x).collect();
    let times = points().flat_map(|point| [Some(point.y), point.low, point.high]).flatten();
    (!by_batch.is_empty()).then(|| PanelChart {
        title: "Prefill latency against input length".to_owned(),
        subtitle: format!(
            "ms by batch, both axes by factors, {}{}, {} {}",
            from.clock,
            modelled::span(run, rows.iter().copied(), Phase::Prefill),
            from.device,
            from.dtype
        ),
        x: Axis::of(Division::Log, lengths.clone()).naming(lengths),
        x_name: "input tokens of each sequence",
        y: Axis::of(Division::Log, times),
        keys: by_batch
            .iter()
            .enumerate()
            .map(|(i, s)| Key { label: s.label.clone(), look: look(i, s) })
            .collect(),
        panels: vec![Panel {
            title: String::new(),
            lines: by_batch.iter().enumerate().map(|(i, s)| line(look(i, s), &s.points)).collect(),
        }],
    })
}

fn look(number: usize, series: &Series) -> Look {
    Look { series: number, modelled: series.modelled }
}

fn line(look: Look, points: &[Point]) -> Line {
    let mark = |p: &Point| Mark { x: p.x, y: p.y, interval: p.low.zip(p.high), letters: String::new() };
    Line { look, points: points.iter().map(mark).collect(), joined: true, marked: true }
}

/// A value with its interval.
type Estimate = Option<(f64, Option<f64>, Option<f64>)>;

/// Tokens per second. The ends of the time's interval swap.
fn throughput(row: &PerfRow) -> Estimate {
    let rate = |ns: Option<u64>| ns.filter(|&ns| ns > 0).map(|ns| row.tokens as f64 / (ns as f64 / 1e9));
    row.tokens_per_s_median.map(|y| (y, rate(row.ci95_hi_ns), rate(row.ci95_lo_ns)))
}

/// `ns` in milliseconds, with the row's interval divided by `parts`, as `ns` already is.
fn latency(row: &PerfRow, ns: Option<f64>, parts: f64) -> Estimate {
    let part = |ns: u64| ns as f64 / parts / 1e6;
    ns.map(|ns| (ns / 1e6, row.ci95_lo_ns.map(part), row.ci95_hi_ns.map(part)))
}

/// One series per `key`, in key order, with the points that `point` returns for its rows, by x.
fn series<'a, K: Ord + Copy>(
    rows: impl IntoIterator<Item = &'a PerfRow>,
    clock: Clock,
    key: impl Fn(&PerfRow) -> K,
    label: impl Fn(K) -> String,
    point: impl Fn(&PerfRow) -> (u32, Estimate),
) -> Vec<Series> {
    let mut groups: BTreeMap<K, BTreeMap<u32, Point>> = BTreeMap::new();
    for row in rows {
        let (x, estimate) = point(row);
        if let Some((y, low, high)) = estimate {
            groups.entry(key(row)).or_default().insert(x, Point { x: f64::from(x), y, low, high });
        }
    }
    let modelled = clock == Clock::Modelled;
    let suffix = if modelled { ", modelled" } else { "" };
    groups
        .into_iter()
        .map(|(key, points)| Series {
            label: format!("{}{suffix}", label(key)),
            modelled,
            points: points.into_values().collect(),
        })
        .collect()
}

fn first_of_each<'a, K: Ord>(
    rows: impl Iterator<Item = &'a PerfRow>,
    key: impl Fn(&PerfRow) -> K,
) -> impl Iterator<Item = &'a PerfRow> {
    let mut seen = std::collections::BTreeSet::new();
    rows.filter(move |row| seen.insert(key(row)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{accuracy::accuracy_rows, fixture, performance::perf_rows};

    fn draw_all(
        folder: &Path,
        run: &RunRecord,
        scores: &[AccuracyRow],
        times: &[PerfRow],
    ) -> Result<Vec<Picture>, ReportError> {
        let charts: Vec<_> = of_scores(run, scores).into_iter().chain(of_times(run, times)).collect();
        draw(folder, &charts)
    }

    #[test]
    fn charts_are_drawn_as_svg_and_png() {
        let folder = tempfile::tempdir().unwrap();
        let (run, samples, requests) = fixture::realistic();
        let (scores, times) = (accuracy_rows(&run, &samples), perf_rows(&run, &requests));
        let pictures = draw_all(folder.path(), &run, &scores, &times).unwrap();
        let names: Vec<_> = pictures.iter().map(|p| p.name.as_str()).collect();
        let wanted = [
            "accuracy",
            "accuracy-ceval",
            "throughput-e2e",
            "throughput-decode",
            "latency-decode",
            "latency-prefill",
        ];
        assert_eq!(names, wanted);
        for picture in &pictures {
            let png = fs::read(folder.path().join("charts").join(format!("{}.png", picture.name))).unwrap();
            assert!(png.starts_with(b"\x89PNG"));
            assert!(picture.svg.contains("<text"));
        }
    }

    #[test]
    fn a_modelled_clock_is_named_in_every_series() {
        let (mut run, _, requests) = fixture::realistic();
        run.provenance.clock = Clock::Modelled;
        let times = perf_rows(&run, &requests);
        for (_, chart) in line_charts(&run, &times.iter().collect::<Vec<_>>()) {
            assert!(chart.subtitle.contains("modelled"));
            assert!(chart.series.iter().all(|s| s.modelled && s.label.ends_with(", modelled")));
        }
        let prefill = prefill_chart(&run, &times.iter().collect::<Vec<_>>()).unwrap();
        assert!(prefill.subtitle.contains("modelled"));
        assert!(prefill.keys.iter().all(|key| key.look.modelled && key.label.ends_with(", modelled")));
    }

    #[test]
    fn one_case_and_many_cases_are_drawn() {
        let folder = tempfile::tempdir().unwrap();
        let (mut run, _, requests) = fixture::realistic();
        run.plan.performance.truncate(1);
        assert_eq!(draw_all(folder.path(), &run, &[], &perf_rows(&run, &requests)).unwrap().len(), 4);
        let shape = &perf_rows(&run, &requests)[..3];
        let many: Vec<PerfRow> = (1..40)
            .flat_map(|n| {
                shape.iter().map(move |row| PerfRow { input_tokens: n, batch: n * n, ..row.clone() })
            })
            .collect();
        assert_eq!(draw_all(folder.path(), &run, &[], &many).unwrap().len(), 4);
    }

    #[test]
    fn nothing_to_show_draws_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let pictures = draw_all(folder.path(), &fixture::run(), &[], &[]).unwrap();
        assert!(pictures.is_empty() && !folder.path().join("charts").exists());
    }
}
