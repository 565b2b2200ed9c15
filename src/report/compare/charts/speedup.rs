//! How many times as fast, by phase and batch.

use super::{Look, between, say};
use crate::language::{Text, text};
use crate::record::{Clock, Phase};
use crate::report::charts::bars::{Bar, BarChart, BarGroup};
use crate::report::compare::answer::{PHASES, name};
use crate::report::compare::speedup::{Multiple, Speedups};
use crate::report::compare::{Comparison, Side};

/// The multiples of every pair with comparable times: the mean of each phase, then its batches.
pub(super) fn bars(comparison: &Comparison, looks: &[Look]) -> Option<BarChart> {
    let mut base = 0;
    let mut of_pairs: Vec<(usize, Speedups)> = comparison
        .pairs
        .iter()
        .filter_map(|pair| Some((pair.other, Speedups::of(comparison, pair)?)))
        .collect();
    let several = comparison.pairs.len() > 1;
    // Of two runs the faster one is shown, as in the sentence above the chart.
    if !several && of_pairs.first().is_some_and(|(_, speedups)| speedups.favours_base()) {
        of_pairs = of_pairs
            .into_iter()
            .map(|(other, speedups)| {
                base = other;
                (0, speedups.turned())
            })
            .collect();
    }
    let base = &comparison.sides[base];
    let group = |phase: Phase| {
        let bars = of_pairs.iter().flat_map(|(other, speedups)| {
            let letter =
                if several { format!("{}, ", comparison.sides[*other].letter) } else { String::new() };
            let bar = move |label: Text, strong: bool, of: Multiple, look: Look| Bar {
                label: format!("{letter}{}", say(comparison, &label)),
                look,
                value: of.times,
                interval: of.interval,
                strong,
            };
            let look = looks[*other];
            let mean = speedups.mean(phase, None).map(|of| bar(text!("all"), true, of, look));
            let batches = speedups.batches(phase).into_iter().filter_map(move |batch| {
                let of = speedups.mean(phase, Some(batch))?;
                Some((batch, of))
            });
            let batches: Vec<(u32, Multiple)> = batches.collect();
            let batches =
                batches.into_iter().map(|(batch, of)| bar(text!("batch {batch}", batch), false, of, look));
            mean.into_iter().chain(batches).collect::<Vec<_>>()
        });
        let bars: Vec<Bar> = bars.collect();
        (!bars.is_empty()).then(|| BarGroup { title: say(comparison, &phase_title(phase)), bars })
    };
    let groups: Vec<BarGroup> = PHASES.into_iter().filter_map(group).collect();
    let (_, first) = of_pairs.first()?;
    (!groups.is_empty()).then(|| BarChart {
        title: say(comparison, &title(comparison, base, &of_pairs)),
        subtitle: say(
            comparison,
            &subtitle(first, groups.iter().flat_map(|group| &group.bars).any(|bar| bar.interval.is_some())),
        ),
        x_name: say(comparison, &text!("times as fast as {base}", base = name(comparison, base))),
        groups,
    })
}

fn phase_title(phase: Phase) -> Text {
    match phase {
        Phase::Decode => text!("Decode (time per token)"),
        Phase::Prefill => text!("Prefill (time to the first token)"),
        Phase::E2e => text!("End to end"),
    }
}

/// `Decode: B is 3.9 to 4.3 × as fast as A; prefill: 4.1 to 4.6 ×`.
fn title(comparison: &Comparison, base: &Side, of_pairs: &[(usize, Speedups)]) -> Text {
    let base = name(comparison, base);
    let [(other, speedups)] = of_pairs else { return text!("Speed as multiples of {base}", base) };
    let ranges: Vec<(Phase, Text)> =
        PHASES.into_iter().filter_map(|phase| Some((phase, between(speedups.range(phase)?)))).collect();
    let card = name(comparison, &comparison.sides[*other]);
    match ranges.as_slice() {
        [(phase, times), (other_phase, other), ..] => text!(
            "{card} is {times} as fast as {base} in {phase}, {other} in {other_phase}",
            card,
            times,
            base,
            phase,
            other,
            other_phase
        ),
        [(phase, times)] => text!("{card} is {times} as fast as {base} in {phase}", card, times, base, phase),
        [] => text!("Speed as multiples of {base}", base),
    }
}

fn subtitle(of: &Speedups, has_whiskers: bool) -> Text {
    let whiskers = match of.clock {
        _ if !has_whiskers => text!("no interval is known"),
        Clock::Modelled => text!("whiskers: error of the model"),
        Clock::Measured => {
            text!("whiskers: 95 % interval, over several lengths from the least to the largest end")
        }
    };
    text!(
        "geometric mean over the lengths; {clock}; {grounds}; {whiskers}; right of 1 × is faster",
        clock = of.clock,
        grounds = of.grounds.words(),
        whiskers
    )
}
