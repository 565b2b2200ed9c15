//! The charts of a comparison.

use super::axis::{Axis, Division};
use super::forest::{Difference, ForestChart};
use super::panels::{Key, Line, Look, Mark, Panel, PanelChart};
use super::strips::{Strip, StripChart, StripRow};
use super::{Chart, Picture, draw};
use crate::record::{Clock, PerfRow, PerformanceCase, Phase, Roofline};
use crate::report::ReportError;
use crate::report::accuracy::ALL;
use crate::report::compare::{Comparison, GroupComparison, Side, TaskComparison};
use crate::report::modelled::{self, evidence};
use crate::report::performance::{Repetitions, phase_cost, phase_ns, roofline_of};
use crate::report::tables::per_token_ns;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use glmbench_device::DeviceKind;

/// Most cases in the strip plot; more would be unreadable.
const STRIPS: usize = 24;

/// Draws every chart for which the comparison has data, into `charts/` of its folder.
pub(in crate::report) fn draw_comparison(
    folder: &Path,
    comparison: &Comparison,
) -> Result<Vec<Picture>, ReportError> {
    let looks = looks(comparison);
    let evidence = comparison.sides.iter().find_map(|side| evidence::chart(side.run()));
    let charts: [(&str, Option<Chart>); 8] = [
        ("accuracy", forest(comparison, &looks).map(Chart::Forest)),
        ("throughput-decode", throughput(comparison, &looks, Phase::Decode).map(Chart::Panels)),
        ("throughput-e2e", throughput(comparison, &looks, Phase::E2e).map(Chart::Panels)),
        ("throughput-latency", pareto(comparison, &looks).map(Chart::Panels)),
        ("tp-scaling", scaling(comparison, &looks).map(Chart::Panels)),
        ("roofline", roofline(comparison, &looks).map(Chart::Panels)),
        ("samples", strips(comparison, &looks).map(Chart::Strips)),
        (evidence::CHART, evidence.map(Chart::Ratios)),
    ];
    let described = charts.into_iter().filter_map(|(name, chart)| Some((name.to_owned(), chart?)));
    draw(folder, &described.collect::<Vec<_>>())
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
    named.map(|(side, look)| Key { label: side.label(), look: *look }).collect()
}

/// The clocks of the chart's series. Every subtitle names them.
fn clocks(comparison: &Comparison) -> String {
    let clocks: BTreeSet<String> = comparison.sides.iter().map(|side| side.clock().to_string()).collect();
    let dotted = match (clocks.contains("modelled"), clocks.len()) {
        (false, _) => "",
        (true, 1) => " (dotted, hollow)",
        (true, _) => " (modelled: dotted, hollow)",
    };
    format!("{}{dotted}", clocks.into_iter().collect::<Vec<_>>().join(" and "))
}

/// Returns what follows the clocks: the errors of modelled times of a phase, by run. Empty without modelled runs.
fn errors(comparison: &Comparison, phase: Phase) -> String {
    let of = |side: &Side| {
        let words = modelled::span(side.run(), side.summary.performance.iter(), phase);
        (!words.is_empty()).then(|| format!(", {}{words}", side.letter))
    };
    comparison.sides.iter().filter_map(of).collect()
}

fn forest(comparison: &Comparison, looks: &[Look]) -> Option<ForestChart> {
    let mut rows = Vec::new();
    for pair in &comparison.pairs {
        let several = comparison.pairs.len() > 1;
        let prefix = if several { format!("{}: ", comparison.other(pair).letter) } else { String::new() };
        let series = looks[pair.other].series;
        for task in &pair.tasks {
            rows.extend(forest_rows(task, &prefix, series));
        }
    }
    let margin = 100.0 * comparison.options.accuracy_margin;
    (!rows.is_empty()).then(|| ForestChart {
        title: format!("Change in accuracy against {}", comparison.base().label()),
        subtitle: format!("percentage points with 95 % interval; band: ± {margin:.1} points"),
        rows,
        margin,
    })
}

/// The whole and its categories.
fn forest_rows(task: &TaskComparison, prefix: &str, series: usize) -> Vec<Difference> {
    let row = |group: &GroupComparison, label: String, verdict: String| Difference {
        label,
        strong: group.category == ALL,
        value: 100.0 * group.difference.0,
        interval: group.difference.1.map(|(low, high)| (100.0 * low, 100.0 * high)),
        verdict,
        series,
    };
    let whole = task.whole();
    let mut rows =
        vec![row(whole, format!("{prefix}{} (n {})", task.task, whole.counts.n), task.verdict.to_string())];
    let categories = task.groups.iter().skip(1).filter(|group| group.subject == ALL);
    rows.extend(categories.map(|g| row(g, format!("{} (n {})", g.category, g.counts.n), String::new())));
    rows
}

/// Rows that may be drawn.
fn usable(side: &Side, phase: Phase) -> impl Iterator<Item = &PerfRow> {
    side.summary.performance.iter().filter(move |row| row.phase == phase && row.valid == Some(true))
}

/// Input and output length, then ranks.
type PanelKey = (u32, u32, u32);

fn panel_title((input, output, tp): PanelKey) -> String {
    let ranks = if tp > 1 { format!(", tp {tp}") } else { String::new() };
    format!("{input} in, {output} out{ranks}")
}

/// Panels by lengths and ranks, with one line per run of the marks of its rows.
fn panels_by_lengths(
    comparison: &Comparison,
    looks: &[Look],
    phase: Phase,
    mark: impl Fn(&PerfRow) -> Option<Mark>,
) -> Vec<Panel> {
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
    drawn.map(|(key, lines)| Panel { title: panel_title(key), lines }).collect()
}

fn marks(panels: &[Panel]) -> impl Iterator<Item = &Mark> {
    panels.iter().flat_map(|panel| panel.lines.iter().flat_map(|line| &line.points))
}

fn heights(panels: &[Panel]) -> Vec<f64> {
    marks(panels)
        .flat_map(|mark| [Some(mark.y), mark.interval.map(|i| i.1), mark.interval.map(|i| i.0)])
        .flatten()
        .collect()
}

fn throughput(comparison: &Comparison, looks: &[Look], phase: Phase) -> Option<PanelChart> {
    let panels = panels_by_lengths(comparison, looks, phase, |row| {
        let rate = |ns: Option<u64>| ns.filter(|ns| *ns > 0).map(|ns| row.tokens as f64 * 1e9 / ns as f64);
        let interval =
            rate(row.ci95_hi_ns).zip(rate(row.ci95_lo_ns)).filter(|_| row.clock == Clock::Measured);
        Some(Mark { x: f64::from(row.batch), y: row.tokens_per_s_median?, interval, letters: String::new() })
    });
    let batches: Vec<f64> = marks(&panels).map(|mark| mark.x).collect();
    let (name, unit) = match phase {
        Phase::E2e => ("End-to-end throughput", "output tokens/s"),
        Phase::Decode => ("Decode throughput", "tokens/s after the first"),
        Phase::Prefill => ("Prefill throughput", "prompt tokens/s"),
    };
    // Devices of very different speed need a logarithmic scale to be visible together.
    let heights = heights(&panels);
    let (least, most) =
        heights.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), y| (low.min(*y), high.max(*y)));
    let division = if most > 30.0 * least { Division::Log } else { Division::FromZero };
    (!panels.is_empty()).then(|| PanelChart {
        title: format!("{name} against batch, by lengths"),
        subtitle: format!("{unit}, {}{}", clocks(comparison), errors(comparison, phase)),
        x: Axis::of(Division::Log, batches.clone()).naming(batches),
        x_name: "batch",
        y: Axis::of(division, heights),
        panels,
        keys: keys(comparison, looks),
    })
}

fn pareto(comparison: &Comparison, looks: &[Look]) -> Option<PanelChart> {
    let panels = panels_by_lengths(comparison, looks, Phase::Decode, |row| {
        let letters = format!("{}", row.batch);
        Some(Mark { x: per_token_ns(row)? / 1e6, y: row.tokens_per_s_median?, interval: None, letters })
    });
    let across: Vec<f64> = marks(&panels).map(|mark| mark.x).collect();
    (!panels.is_empty()).then(|| PanelChart {
        title: "Throughput for latency, by lengths".to_owned(),
        subtitle: format!(
            "decode tokens/s of the batch; numbers: batch; up and left is better; {}{}",
            clocks(comparison),
            errors(comparison, Phase::Decode)
        ),
        x: Axis::of(Division::Log, across),
        x_name: "TPOT, ms per token",
        y: Axis::of(Division::Log, heights(&panels)),
        panels,
        keys: keys(comparison, looks),
    })
}

/// Efficiency of tensor parallelism: throughput per rank relative to that of the fewest ranks. One panel per pair of
/// lengths, one line per run at its largest batch with several rank counts.
fn scaling(comparison: &Comparison, looks: &[Look]) -> Option<PanelChart> {
    let mut panels: BTreeMap<(u32, u32), Vec<Line>> = BTreeMap::new();
    for (side, look) in comparison.sides.iter().zip(looks) {
        let mut shapes: BTreeMap<(u32, u32), BTreeMap<u32, BTreeMap<u32, f64>>> = BTreeMap::new();
        for row in usable(side, Phase::E2e) {
            let of_shape = shapes.entry((row.input_tokens, row.output_tokens)).or_default();
            if let Some(rate) = row.tokens_per_s {
                of_shape.entry(row.batch).or_default().insert(row.tp, rate);
            }
        }
        for (lengths, batches) in shapes {
            let Some((batch, rates)) = batches.iter().rev().find(|(_, rates)| rates.len() > 1) else {
                continue;
            };
            let (first_tp, first) = rates.first_key_value().expect("invariant: there are several");
            let mark = |(tp, rate): (&u32, &f64)| Mark {
                x: f64::from(*tp),
                y: 100.0 * rate / first * f64::from(*first_tp) / f64::from(*tp),
                interval: None,
                letters: if tp == rates.keys().last().unwrap_or(tp) {
                    format!("batch {batch}")
                } else {
                    String::new()
                },
            };
            let points = rates.iter().map(mark).collect();
            panels.entry(lengths).or_default().push(Line { look: *look, points, joined: true, marked: true });
        }
    }
    let panels: Vec<Panel> = panels
        .into_iter()
        .map(|((input, output), lines)| Panel { title: format!("{input} in, {output} out"), lines })
        .collect();
    let ranks: Vec<f64> = marks(&panels).map(|mark| mark.x).collect();
    (!panels.is_empty()).then(|| PanelChart {
        title: "Tensor-parallel scaling efficiency".to_owned(),
        subtitle: format!(
            "end-to-end tokens/s a rank, percent of the fewest ranks'; {}{}",
            clocks(comparison),
            errors(comparison, Phase::E2e)
        ),
        x: Axis::of(Division::Log, ranks.clone()).naming(ranks),
        x_name: "tensor-parallel ranks",
        y: Axis::of(Division::FromZero, heights(&panels).into_iter().chain([100.0])),
        panels,
        keys: keys(comparison, looks),
    })
}

/// Arithmetic intensity against achieved rate, under each run's own limits.
fn roofline(comparison: &Comparison, looks: &[Look]) -> Option<PanelChart> {
    let mut panels = Vec::new();
    for phase in [Phase::Prefill, Phase::Decode] {
        let mut lines = Vec::new();
        for (side, look) in comparison.sides.iter().zip(looks) {
            let points: Vec<Mark> = usable(side, phase).filter_map(|row| reached(side, row)).collect();
            lines.push(Line { look: *look, points, joined: false, marked: true });
        }
        let title = if phase == Phase::Prefill { "Prefill" } else { "Decode" };
        panels.push(Panel { title: title.to_owned(), lines });
    }
    let across: Vec<f64> = marks(&panels).map(|mark| mark.x).collect();
    if across.is_empty() {
        return None;
    }
    let x = Axis::of(Division::Log, across);
    for panel in &mut panels {
        for (side, look) in comparison.sides.iter().zip(looks) {
            let roofs = roofs(side).into_iter();
            let line = |roof| Line { look: *look, points: roof_line(&roof, &x), joined: true, marked: false };
            panel.lines.extend(roofs.map(line));
        }
    }
    let y = Axis::of(Division::Log, heights(&panels));
    Some(PanelChart {
        title: "Roofline".to_owned(),
        subtitle: format!(
            "GFLOP/s reached, under each run's limits{}; {}{}",
            if comparison.sides.iter().any(Side::is_modelled) {
                "; a modelled card's are its profile's, a line for each number of ranks"
            } else {
                ""
            },
            clocks(comparison),
            errors(comparison, Phase::E2e)
        ),
        x,
        x_name: "FLOP a byte that must cross the memory bus",
        y,
        panels,
        keys: keys(comparison, looks),
    })
}

/// The limits of a run's cases: one roof, or for modelled cards one per rank count.
fn roofs(side: &Side) -> Vec<Roofline> {
    let ranks: BTreeSet<u32> = if side.is_modelled() {
        side.run().plan.performance.iter().map(|case| case.tp).collect()
    } else {
        BTreeSet::from([1])
    };
    ranks.into_iter().filter_map(|tp| roofline_of(&side.run().provenance, tp)).collect()
}

fn reached(side: &Side, row: &PerfRow) -> Option<Mark> {
    let is_of_row = |case: &&PerformanceCase| case.case_id == row.case_id;
    let cost = phase_cost(side.run().plan.performance.iter().find(is_of_row)?, row.phase)?;
    let (flops, bytes) = (cost.flops as f64, cost.bytes as f64);
    let y = flops / row.median_ns.filter(|ns| *ns > 0)? as f64;
    (flops > 0.0 && bytes > 0.0).then(|| Mark { x: flops / bytes, y, ..Mark::default() })
}

/// The bandwidth slope and the peak level, in GFLOP/s.
fn roof_line(roof: &Roofline, x: &Axis) -> Vec<Mark> {
    let height = |intensity: f64| (intensity * roof.bandwidth_bytes_per_s).min(roof.peak_flops_per_s) / 1e9;
    let ridge = (roof.peak_flops_per_s / roof.bandwidth_bytes_per_s).clamp(x.low(), x.high());
    [x.low(), ridge, x.high()].map(|at| Mark { x: at, y: height(at), ..Mark::default() }).into()
}

/// Raw end-to-end samples of the measured runs. A virtual clock has no scatter.
fn strips(comparison: &Comparison, looks: &[Look]) -> Option<StripChart> {
    if comparison.base().is_modelled() {
        return None;
    }
    let mut rows: Vec<StripRow> = Vec::new();
    for case in &comparison.base().run().plan.performance {
        if rows.len() == STRIPS {
            break;
        }
        rows.extend(strip_row(comparison, looks, case));
    }
    (!rows.is_empty()).then(|| StripChart {
        title: "End-to-end times, every repetition".to_owned(),
        subtitle: format!(
            "dots: repetitions; bars: median with 95 % interval; band: ± {:.1} %; {}",
            100.0 * comparison.options.threshold(),
            clocks(comparison)
        ),
        keys: keys(comparison, looks),
        rows,
        threshold: comparison.options.threshold(),
    })
}

fn strip_row(comparison: &Comparison, looks: &[Look], case: &PerformanceCase) -> Option<StripRow> {
    let joined = |index: usize| -> Option<&PerformanceCase> {
        let pair = comparison.pairs.iter().find(|pair| pair.other == index)?;
        pair.cases.iter().find(|joined| joined.a.case_id == case.case_id).map(|joined| &joined.b)
    };
    let row_of = |side: &Side, case: &PerformanceCase| {
        side.summary.performance.iter().find(|r| r.case_id == case.case_id && r.phase == Phase::E2e).cloned()
    };
    let base = row_of(comparison.base(), case)?.median_ns.filter(|ns| *ns > 0)? as f64;
    let mut strips = Vec::new();
    for (index, (side, look)) in comparison.sides.iter().zip(looks).enumerate() {
        // A modelled time never appears on a scale of measured ones.
        let Some(case) = (if index == 0 { Some(case) } else { joined(index) }) else { continue };
        if side.clock() != comparison.base().clock() {
            continue;
        }
        let good = Repetitions::of(case, &side.requests).good;
        let samples: Vec<f64> =
            good.iter().filter_map(|r| phase_ns(r, Phase::E2e)).map(|ns| ns as f64 / base).collect();
        let Some(row) = row_of(side, case).filter(|_| !samples.is_empty()) else { continue };
        let ends = row.ci95_lo_ns.zip(row.ci95_hi_ns).filter(|_| row.clock == Clock::Measured);
        strips.push(Strip {
            look: *look,
            samples,
            median: row.median_ns? as f64 / base,
            interval: ends.map(|(low, high)| (low as f64 / base, high as f64 / base)),
        });
    }
    (strips.len() > 1).then(|| StripRow { label: case.case_id.clone(), strips })
}
