//! The charts of a comparison.

mod accuracy;
mod parity;
mod roofline;
mod samples;
mod scaling;
mod speedup;

use super::answer::name;
use super::{Comparison, Side};
use crate::language::{Text, ToText, text};
use crate::record::{Clock, PerfRow, Phase};
use crate::report::charts::axis::{Axis, Division};
use crate::report::charts::panels::{
    Key, Line, Look, Mark, Panel, PanelChart, between, left_out, without_lone_points,
};
use crate::report::charts::times::BATCH;
use crate::report::charts::{Chart, Picture, draw};
use crate::report::performance::per_token_ns;
use crate::report::{ReportError, evidence, modelled};
use crate::stats::Interval;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use glmbench_device::DeviceKind;

/// Draws every chart for which the comparison has data, into `charts/` of its folder. Those of [`LEADING`] belong to the answer.
pub(in crate::report) fn draw_comparison(
    folder: &Path,
    comparison: &Comparison,
) -> Result<Vec<Picture>, ReportError> {
    draw(folder, &described(comparison))
}

/// The charts that belong to the answer.
pub(in crate::report) const LEADING: [&str; 2] = ["speedup", "accuracy"];

/// Describes every chart for which the comparison has data.
pub(in crate::report) fn described(comparison: &Comparison) -> Vec<(String, Chart)> {
    let looks = looks(comparison);
    let evidence =
        comparison.sides.iter().find_map(|side| evidence::chart(side.run(), comparison.options.language));
    let charts: [(&str, Option<Chart>); 12] = [
        ("speedup", speedup::bars(comparison, &looks).map(Chart::Bars)),
        ("accuracy", accuracy::tasks(comparison, &looks).map(Chart::Forest)),
        ("accuracy-groups", accuracy::groups(comparison, &looks).map(Chart::Forest)),
        ("ttft", ttft(comparison, &looks).map(Chart::Panels)),
        ("throughput-decode", throughput(comparison, &looks, Phase::Decode).map(Chart::Panels)),
        ("throughput-e2e", throughput(comparison, &looks, Phase::E2e).map(Chart::Panels)),
        ("throughput-latency", pareto(comparison, &looks).map(Chart::Panels)),
        ("kl-speed", parity::panels(comparison, &looks).map(Chart::Panels)),
        ("tp-scaling", scaling::panels(comparison, &looks).map(Chart::Panels)),
        ("roofline", roofline::panels(comparison, &looks).map(Chart::Panels)),
        ("samples", samples::strips(comparison, &looks).map(Chart::Strips)),
        (evidence::CHART, evidence.map(Chart::Ratios)),
    ];
    charts.into_iter().filter_map(|(name, chart)| Some((name.to_owned(), chart?))).collect()
}

/// Returns the look of each run. A known device always has the same colour and marker. A second run on it gets
/// another that no device has.
fn looks(comparison: &Comparison) -> Vec<Look> {
    let mut taken = BTreeSet::new();
    let look = |side: &Side| {
        let own = side.run().provenance.device.known().and_then(|device| device.kind.series());
        let first = DeviceKind::ALL.into_iter().filter_map(DeviceKind::series).count();
        let others = first..=first + taken.len();
        let series = own.into_iter().chain(others).find(|s| !taken.contains(s));
        let series = series.expect("invariant: there are more numbers than runs");
        taken.insert(series);
        Look { series, modelled: side.is_modelled() }
    };
    comparison.sides.iter().map(look).collect()
}

fn keys(comparison: &Comparison, looks: &[Look]) -> Vec<Key> {
    let named = comparison.sides.iter().zip(looks);
    named.map(|(side, look)| Key { label: say(comparison, &side.label()), look: *look }).collect()
}

/// The clocks of the series in the chart. Every subtitle names them.
fn clocks(comparison: &Comparison) -> Text {
    let is_modelled = |modelled: bool| comparison.sides.iter().any(|side| side.is_modelled() == modelled);
    match (is_modelled(false), is_modelled(true)) {
        (true, true) => text!("measured and modelled (modelled: dotted, hollow)"),
        (false, true) => text!("modelled (dotted, hollow)"),
        (_, false) => Clock::Measured.to_text(),
    }
}

/// Returns what follows the clocks: the errors of modelled times of a phase, by run. Empty without modelled runs.
fn errors(comparison: &Comparison, phase: Phase) -> Text {
    let of = |side: &Side| {
        let error = modelled::span(side.run(), side.summary.performance.iter(), phase);
        (!error.is_empty()).then(|| text!(", {letter}{error}", letter = side.letter, error))
    };
    comparison.sides.iter().filter_map(of).collect()
}

/// Puts words into the language of the comparison.
fn say(comparison: &Comparison, words: &Text) -> String {
    words.in_language(comparison.options.language)
}

/// Rows that may be drawn.
fn usable(side: &Side, phase: Phase) -> impl Iterator<Item = &PerfRow> {
    side.summary.performance.iter().filter(move |row| row.phase == phase && row.valid == Some(true))
}

/// Input and output length, then ranks.
type PanelKey = (u32, u32, u32);

fn panel_title((input, output, tp): PanelKey) -> Text {
    if tp > 1 {
        text!("{input} in, {output} out, TP {tp}", input, output, tp)
    } else {
        text!("{input} in, {output} out", input, output)
    }
}

/// Panels by lengths and ranks, with one line per run of the marks of its rows. Panels of single points are left out, and their
/// number is returned.
fn panels_by_lengths(
    comparison: &Comparison,
    looks: &[Look],
    phase: Phase,
    mark: impl Fn(&PerfRow) -> Option<Mark>,
) -> (Vec<Panel>, usize) {
    let mut panels: BTreeMap<PanelKey, Vec<Line>> = BTreeMap::new();
    for (side, look) in comparison.sides.iter().zip(looks) {
        let mut of_side: BTreeMap<PanelKey, Vec<(u32, Mark)>> = BTreeMap::new();
        for row in usable(side, phase) {
            let key = (row.input_tokens, row.output_tokens, row.tp);
            of_side.entry(key).or_default().extend(mark(row).map(|mark| (row.batch, mark)));
        }
        for (key, mut marks) in of_side {
            marks.sort_by_key(|(batch, _)| *batch);
            let points = marks.into_iter().map(|(_, mark)| mark).collect();
            panels.entry(key).or_default().push(Line { look: *look, points, joined: true, marked: true });
        }
    }
    let drawn = panels.into_iter().filter(|(_, lines)| lines.iter().any(|line| !line.points.is_empty()));
    let drawn =
        drawn.map(|(key, lines)| Panel { title: say(comparison, &panel_title(key)), lines }).collect();
    without_lone_points(drawn)
}

fn marks(panels: &[Panel]) -> impl Iterator<Item = &Mark> {
    panels.iter().flat_map(|panel| panel.lines.iter().flat_map(|line| &line.points))
}

fn heights(panels: &[Panel]) -> Vec<f64> {
    marks(panels)
        .flat_map(|mark| [Some(mark.y), mark.interval.map(|i| i.high), mark.interval.map(|i| i.low)])
        .flatten()
        .collect()
}

/// Values of very different size need a logarithmic scale to be visible together.
fn y_axis(heights: Vec<f64>) -> Axis {
    let (least, most) =
        heights.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), y| (low.min(*y), high.max(*y)));
    Axis::of(if most > 30.0 * least { Division::Log } else { Division::FromZero }, heights)
}

/// Who leads, by how much and where: `B leads, 3.9 to 4.3 × as fast at equal batch`. The general title for more than two runs or
/// unlike clocks. `speed` turns a row into what is higher for the faster run.
fn leader(
    comparison: &Comparison,
    (what, general): (Text, Text),
    phase: Phase,
    speed: impl Fn(&PerfRow) -> Option<f64>,
) -> Text {
    let general = text!("{what}: {general}", what, general);
    let [a, b] = comparison.sides.as_slice() else { return general };
    if a.clock() != b.clock() {
        return general;
    }
    let shape = |row: &PerfRow| (row.batch, row.input_tokens, row.output_tokens, row.tp);
    let mut ratios: Vec<f64> = Vec::new();
    for row in usable(a, phase) {
        let other = usable(b, phase).find(|other| shape(other) == shape(row));
        let both = other.and_then(|other| Some((speed(row)?, speed(other)?)));
        ratios.extend(both.filter(|(x, _)| *x > 0.0).map(|(x, y)| y / x));
    }
    let Some(range) = Interval::spanning(ratios) else { return general };
    let band = comparison.options.threshold();
    let (a_name, b_name) = (name(comparison, a), name(comparison, b));
    let (card, times) = if range.low > 1.0 + band {
        (b_name, between(range))
    } else if range.high < 1.0 / (1.0 + band) {
        (a_name, between(range.map_decreasing(f64::recip)))
    } else {
        let times = between(range);
        return text!(
            "{what}: {card} is {times} as fast as {base}",
            what,
            card = b_name,
            times,
            base = a_name
        );
    };
    // A rank of a card is a chip. The headline compares whole cards.
    if [a, b].iter().all(|side| modelled::card_of(side.run()).is_some()) {
        text!("{what}: {card} leads, {times} as fast at equal batch, chip against chip", what, card, times)
    } else {
        text!("{what}: {card} leads, {times} as fast at equal batch and ranks", what, card, times)
    }
}

fn throughput(comparison: &Comparison, looks: &[Look], phase: Phase) -> Option<PanelChart> {
    let (panels, lone) = panels_by_lengths(comparison, looks, phase, |row| {
        let ns = row.interval_ns().filter(|ns| ns.low > 0.0 && row.clock == Clock::Measured);
        let interval = ns.map(|ns| ns.map_decreasing(|ns| row.tokens as f64 * 1e9 / ns));
        Some(Mark { x: f64::from(row.batch), y: row.tokens_per_s_median?, interval, letters: String::new() })
    });
    let batches: Vec<f64> = marks(&panels).map(|mark| mark.x).collect();
    let (what, unit) = match phase {
        Phase::E2e => (text!("End to end"), text!("output tokens/s")),
        Phase::Decode => (text!("Decode"), text!("tokens/s after the first")),
        Phase::Prefill => (text!("Prefill"), text!("prompt tokens/s")),
    };
    let whiskers = whiskers(&panels);
    (!panels.is_empty()).then(|| PanelChart {
        title: say(
            comparison,
            &leader(comparison, (what, text!("throughput against batch")), phase, |row| {
                row.tokens_per_s_median
            }),
        ),
        subtitle: say(
            comparison,
            &text!(
                "{unit}{whiskers}, {clocks}{errors}{left_out}",
                unit,
                whiskers,
                clocks = clocks(comparison),
                errors = errors(comparison, phase),
                left_out = left_out(lone)
            ),
        ),
        x: Axis::of(Division::Log, batches.clone()).naming(batches),
        x_name: say(comparison, &BATCH),
        y: y_axis(heights(&panels)),
        panels,
        keys: keys(comparison, looks),
        level: None,
    })
}

/// What the subtitle says of whiskers, if there are any.
fn whiskers(panels: &[Panel]) -> Text {
    if marks(panels).any(|mark| mark.interval.is_some()) { text!(" with 95 % interval") } else { Text::EMPTY }
}

/// Time to the first token against batch.
fn ttft(comparison: &Comparison, looks: &[Look]) -> Option<PanelChart> {
    let (panels, lone) = panels_by_lengths(comparison, looks, Phase::Prefill, |row| {
        let ms = |ns: u64| ns as f64 / 1e6;
        let interval = row.interval_ns().filter(|_| row.clock == Clock::Measured);
        Some(Mark {
            x: f64::from(row.batch),
            y: ms(row.median_ns?),
            interval: interval.map(|of| of.map(|ns| ns / 1e6)),
            letters: String::new(),
        })
    });
    let batches: Vec<f64> = marks(&panels).map(|mark| mark.x).collect();
    let speed = |row: &PerfRow| row.median_ns.filter(|ns| *ns > 0).map(|ns| 1.0 / ns as f64);
    let whiskers = whiskers(&panels);
    (!panels.is_empty()).then(|| PanelChart {
        title: say(
            comparison,
            &leader(
                comparison,
                (text!("First token (prefill)"), text!("latency against batch")),
                Phase::Prefill,
                speed,
            ),
        ),
        subtitle: say(
            comparison,
            &text!(
                "ms of the whole batch's prefill{whiskers}, lower is better, {clocks}{errors}{left_out}",
                whiskers,
                clocks = clocks(comparison),
                errors = errors(comparison, Phase::Prefill),
                left_out = left_out(lone)
            ),
        ),
        x: Axis::of(Division::Log, batches.clone()).naming(batches),
        x_name: say(comparison, &BATCH),
        y: Axis::of(Division::Log, heights(&panels)),
        panels,
        keys: keys(comparison, looks),
        level: None,
    })
}

fn pareto(comparison: &Comparison, looks: &[Look]) -> Option<PanelChart> {
    let (panels, lone) = panels_by_lengths(comparison, looks, Phase::Decode, |row| {
        let letters = format!("{}", row.batch);
        Some(Mark { x: per_token_ns(row)? / 1e6, y: row.tokens_per_s_median?, interval: None, letters })
    });
    let across: Vec<f64> = marks(&panels).map(|mark| mark.x).collect();
    (!panels.is_empty()).then(|| PanelChart {
        title: say(
            comparison,
            &text!("What a higher throughput costs in time per token: up and left is better"),
        ),
        subtitle: say(
            comparison,
            &text!(
                "decode tokens/s of the batch against TPOT; numbers: batch; {clocks}{errors}{left_out}",
                clocks = clocks(comparison),
                errors = errors(comparison, Phase::Decode),
                left_out = left_out(lone)
            ),
        ),
        x: Axis::of(Division::Log, across),
        x_name: say(comparison, &text!("TPOT, ms per token")),
        y: Axis::of(Division::Log, heights(&panels)),
        panels,
        keys: keys(comparison, looks),
        level: None,
    })
}
