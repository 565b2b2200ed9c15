//! Arithmetic intensity against the rate reached, under each run's own limits.

use super::{Line, Look, Mark, Panel, PanelChart, clocks, errors, heights, keys, marks, say, usable};
use crate::language::{Text, joined, text};
use crate::record::{PerfRow, PerformanceCase, Phase, Roofline};
use crate::report::charts::axis::{Axis, Division};
use crate::report::compare::answer::name;
use crate::report::compare::{Comparison, Side};
use crate::report::performance::{phase_cost, roofline_of};
use std::collections::BTreeSet;

/// A panel for prefill and one for decode.
pub(super) fn panels(comparison: &Comparison, looks: &[Look]) -> Option<PanelChart> {
    let points = |phase, side: &Side| usable(side, phase).filter_map(|row| reached(side, row)).collect();
    let all: Vec<Vec<Reached>> = [Phase::Decode, Phase::Prefill]
        .into_iter()
        .flat_map(|phase| comparison.sides.iter().map(move |side| points(phase, side)))
        .collect();
    let most = all.iter().flatten().map(|point| point.rate).fold(0.0, f64::max);
    // Terascale rates read in TFLOP/s.
    let (unit, per) = if most >= 1e12 { ("TFLOP/s", 1e12) } else { ("GFLOP/s", 1e9) };
    let mut panels = Vec::new();
    let by_phase = all.chunks(comparison.sides.len().max(1));
    for (phase, of_phase) in [Phase::Decode, Phase::Prefill].into_iter().zip(by_phase) {
        let lines = looks.iter().zip(of_phase).map(|(look, points)| {
            let mark = |point: &Reached| Mark {
                x: point.intensity,
                y: point.rate / per,
                interval: None,
                letters: letters(point, points, phase == Phase::Decode),
            };
            Line { look: *look, points: points.iter().map(mark).collect(), joined: false, marked: true }
        });
        let title = if phase == Phase::Decode { text!("Decode") } else { text!("Prefill") };
        panels.push(Panel { title: say(comparison, &title), lines: lines.collect() });
    }
    let across: Vec<f64> = marks(&panels).map(|mark| mark.x).collect();
    if across.is_empty() {
        return None;
    }
    let x = Axis::of(Division::Log, across);
    for panel in &mut panels {
        for (side, look) in comparison.sides.iter().zip(looks) {
            let line =
                |roof| Line { look: *look, points: roof_line(&roof, &x, per), joined: true, marked: false };
            panel.lines.extend(roofs(side).into_iter().map(line));
        }
    }
    let y = Axis::of(Division::Log, heights(&panels));
    let modelled = if comparison.sides.iter().any(Side::is_modelled) {
        text!("; a modelled card's roof is its profile's, a line for each number of ranks")
    } else {
        Text::EMPTY
    };
    let measured = comparison.sides.iter().map(|side| !side.is_modelled()).cycle();
    let above = all.iter().zip(measured).filter(|(_, measured)| *measured).flat_map(|(points, _)| points);
    let above = above.into_iter().any(|point| point.share.is_some_and(|share| share > 1.0));
    // The roof is that of memory: what lies in caches does not come from there.
    let above = if above {
        text!("; above its roof: the case reads from the processor's caches what the roof counts from memory")
    } else {
        Text::EMPTY
    };
    Some(PanelChart {
        title: say(comparison, &title(comparison, &all)),
        subtitle: say(
            comparison,
            &text!(
                "{unit} reached, under each run's limits; numbers: decode: batch, prefill: prompt tokens of the batch{modelled}{above}; {clocks}{errors}",
                unit,
                modelled,
                above,
                clocks = clocks(comparison),
                errors = errors(comparison, Phase::E2e)
            ),
        ),
        x,
        x_name: say(comparison, &text!("FLOP per byte that must cross the memory bus")),
        y,
        panels,
        keys: keys(comparison, looks),
        level: None,
    })
}

/// `Roofline: in decode A reaches up to 71 % of its roof, B up to 64 %`.
fn title(comparison: &Comparison, all: &[Vec<Reached>]) -> Text {
    let by_phase = all.chunks(comparison.sides.len().max(1));
    let of_phase = |(phase, of_sides): (Phase, &[Vec<Reached>])| {
        let most = comparison.sides.iter().zip(of_sides).filter_map(|(side, points)| {
            let share = points.iter().filter_map(|point| point.share).reduce(f64::max)?;
            let share = format!("{:.0} %", 100.0 * share);
            Some(text!("{run} {share}", run = name(comparison, side), share))
        });
        let most: Vec<Text> = most.collect();
        (!most.is_empty()).then(|| text!("in {phase} {shares}", phase, shares = joined(most, ", ")))
    };
    let parts: Vec<Text> =
        [Phase::Decode, Phase::Prefill].into_iter().zip(by_phase).filter_map(of_phase).collect();
    if parts.is_empty() {
        text!("Roofline")
    } else {
        text!("Most of the roof reached: {parts}", parts = joined(parts, "; "))
    }
}

/// What a point's intensity depends on: in decode the batch, in prefill the tokens of the batch. Of the points with equal letters the
/// highest has them.
fn letters(point: &Reached, all: &[Reached], is_decode: bool) -> String {
    let number = |of: &Reached| u64::from(of.batch) * if is_decode { 1 } else { u64::from(of.input_tokens) };
    let own = all.iter().filter(|other| number(other) == number(point));
    let highest = own.map(|other| other.rate).fold(0.0, f64::max);
    if point.rate >= highest { number(point).to_string() } else { String::new() }
}

/// What a case reached.
struct Reached {
    batch: u32,
    input_tokens: u32,
    /// FLOP per byte.
    intensity: f64,
    /// FLOP/s.
    rate: f64,
    /// Share of the limit at this intensity.
    share: Option<f64>,
}

fn reached(side: &Side, row: &PerfRow) -> Option<Reached> {
    let is_of_row = |case: &&PerformanceCase| case.case_id == row.case_id;
    let cost = phase_cost(side.run().plan.performance.iter().find(is_of_row)?, row.phase)?;
    let (flops, bytes) = (cost.flops as f64, cost.bytes as f64);
    let rate = 1e9 * flops / row.median_ns.filter(|ns| *ns > 0)? as f64;
    let intensity = flops / bytes;
    let share = roofline_of(&side.run().provenance, row.tp).map(|roof| rate / limit(&roof, intensity));
    (flops > 0.0 && bytes > 0.0).then_some(Reached {
        batch: row.batch,
        input_tokens: row.input_tokens,
        intensity,
        rate,
        share,
    })
}

/// The limits of the cases in a run: one roof, or for modelled cards one per rank count.
fn roofs(side: &Side) -> Vec<Roofline> {
    let ranks: BTreeSet<u32> = if side.is_modelled() {
        side.run().plan.performance.iter().map(|case| case.tp).collect()
    } else {
        BTreeSet::from([1])
    };
    ranks.into_iter().filter_map(|tp| roofline_of(&side.run().provenance, tp)).collect()
}

/// FLOP/s at an intensity.
fn limit(roof: &Roofline, intensity: f64) -> f64 {
    (intensity * roof.bandwidth_bytes_per_s).min(roof.peak_flops_per_s)
}

/// The bandwidth slope and the peak level, in units of `per` FLOP/s.
fn roof_line(roof: &Roofline, x: &Axis, per: f64) -> Vec<Mark> {
    let ridge = (roof.peak_flops_per_s / roof.bandwidth_bytes_per_s).clamp(x.low(), x.high());
    [x.low(), ridge, x.high()].map(|at| Mark { x: at, y: limit(roof, at) / per, ..Mark::default() }).into()
}
