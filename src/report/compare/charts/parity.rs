//! What a gain in speed costs in the logits.

use super::{Line, Look, Mark, Panel, PanelChart, clocks, errors, heights, keys, marks, say};
use crate::language::text;
use crate::record::{ParityCase, Phase};
use crate::report::charts::axis::{Axis, Division};
use crate::report::compare::Comparison;
use crate::report::compare::speedup::Speedups;

/// Mean KL against the multiple of the base's decoding speed, a panel for each parity case of the base. A run at no distance has no place
/// on the axis. `None` for fewer than two points.
pub(super) fn panels(comparison: &Comparison, looks: &[Look]) -> Option<PanelChart> {
    let of_case = |case: &ParityCase| {
        let line = |index: usize| {
            let (side, look) = (&comparison.sides[index], looks[index]);
            let y = comparison.parity(side, case)?.mean_kl().filter(|kl| *kl > 0.0)?;
            let mark = Mark { x: speed(comparison, index)?, y, interval: None, letters: side.letter.into() };
            Some(Line { look, points: vec![mark], joined: false, marked: true })
        };
        let lines: Vec<Line> = (0..comparison.sides.len()).filter_map(line).collect();
        (lines.len() > 1).then(|| Panel { title: case.name().to_owned(), lines })
    };
    let panels: Vec<Panel> = comparison.parities().into_iter().filter_map(of_case).collect();
    let across: Vec<f64> = marks(&panels).map(|mark| mark.x).collect();
    (!panels.is_empty()).then(|| PanelChart {
        title: say(comparison, &text!("What a faster decode costs in the logits: down and right is better")),
        subtitle: say(
            comparison,
            &text!(
                "mean KL in nat from the reference against decoding speed; a run with a KL of 0 has no place; {clocks}{errors}",
                clocks = clocks(comparison),
                errors = errors(comparison, Phase::Decode)
            ),
        ),
        x: Axis::of(Division::FromZero, across),
        x_name: say(comparison, &text!("decode, × as fast as A")),
        y: Axis::of(Division::Log, heights(&panels)),
        panels,
        keys: keys(comparison, looks),
        level: None,
    })
}

/// How many times as fast as the base a run decodes.
fn speed(comparison: &Comparison, index: usize) -> Option<f64> {
    if index == 0 {
        return Some(1.0);
    }
    let pair = comparison.pairs.iter().find(|pair| pair.other == index)?;
    Some(Speedups::of(comparison, pair)?.mean(Phase::Decode, None)?.times)
}
