//! What more tensor-parallel ranks bring: throughput as a multiple of that with the fewest ranks, against batch.

use super::{
    Line, Look, Mark, Panel, PanelChart, between, clocks, errors, heights, keys, left_out, marks, say,
    usable, without_lone_points,
};
use crate::language::{Text, joined, text};
use crate::record::Phase;
use crate::report::charts::axis::{Axis, Division};
use crate::report::charts::times::BATCH;
use crate::report::compare::Comparison;
use crate::report::compare::answer::name;
use crate::stats::Interval;
use std::collections::BTreeMap;

/// Input and output length, then the ranks and the fewest ranks.
type PanelKey = (u32, u32, u32, u32);

/// One panel per pair of lengths and number of ranks, one line per run. `None` unless a run has several numbers of ranks.
pub(super) fn panels(comparison: &Comparison, looks: &[Look]) -> Option<PanelChart> {
    let mut panels: BTreeMap<PanelKey, Vec<Line>> = BTreeMap::new();
    for (side, look) in comparison.sides.iter().zip(looks) {
        // By lengths and batch, the rate by ranks.
        let mut rates: BTreeMap<(u32, u32), BTreeMap<u32, BTreeMap<u32, f64>>> = BTreeMap::new();
        for row in usable(side, Phase::E2e) {
            let of_shape = rates.entry((row.input_tokens, row.output_tokens)).or_default();
            of_shape.entry(row.batch).or_default().extend(row.tokens_per_s.map(|rate| (row.tp, rate)));
        }
        for ((input, output), batches) in rates {
            let mut lines: BTreeMap<PanelKey, Vec<Mark>> = BTreeMap::new();
            for (batch, by_ranks) in &batches {
                let Some((&fewest, &first)) = by_ranks.first_key_value() else { continue };
                for (&tp, &rate) in by_ranks.iter().skip(1).filter(|_| first > 0.0) {
                    let mark = Mark { x: f64::from(*batch), y: rate / first, ..Mark::default() };
                    lines.entry((input, output, tp, fewest)).or_default().push(mark);
                }
            }
            for (key, points) in lines {
                panels.entry(key).or_default().push(Line { look: *look, points, joined: true, marked: true });
            }
        }
    }
    let ideal = panels.keys().map(|(.., tp, fewest)| f64::from(*tp) / f64::from(*fewest)).fold(1.0, f64::max);
    let same = panels.keys().all(|(.., tp, fewest)| f64::from(*tp) / f64::from(*fewest) == ideal);
    let titled = panels.into_iter().map(|((input, output, tp, fewest), lines)| Panel {
        title: say(
            comparison,
            &text!("{input} in, {output} out: TP {tp} over TP {fewest}", input, output, tp, fewest),
        ),
        lines,
    });
    let (panels, lone) = without_lone_points(titled.collect());
    let batches: Vec<f64> = marks(&panels).map(|mark| mark.x).collect();
    (!panels.is_empty()).then(|| PanelChart {
        title: say(comparison, &title(comparison, looks, &panels)),
        subtitle: say(comparison, &text!("end-to-end tokens/s as a multiple of that of the fewest ranks, at the same batch; {clocks}{errors}{left_out}", clocks = clocks(comparison), errors = errors(comparison, Phase::E2e), left_out = left_out(lone))),
        x: Axis::of(Division::Log, batches.clone()).naming(batches),
        x_name: say(comparison, &BATCH),
        y: Axis::of(Division::FromZero, heights(&panels).into_iter().chain([1.0, ideal])),
        panels,
        keys: keys(comparison, looks),
        level: same.then(|| (ideal, say(comparison, &text!("in proportion")))),
    })
}

/// `More ranks: A gains 1.6 to 1.9 ×, B 1.2 to 1.7 ×`.
fn title(comparison: &Comparison, looks: &[Look], panels: &[Panel]) -> Text {
    let gain = |look: &Look| {
        let lines = panels.iter().flat_map(|panel| &panel.lines).filter(|line| line.look == *look);
        Interval::spanning(lines.flat_map(|line| &line.points).map(|mark| mark.y))
    };
    let words = comparison.sides.iter().zip(looks).filter_map(|(side, look)| {
        let gain = between(gain(look)?);
        Some(text!("{run} {gain}", run = name(comparison, side), gain))
    });
    text!("Gain of more ranks: {words}", words = joined(words, ", "))
}
