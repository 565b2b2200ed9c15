//! Raw end-to-end samples of the measured runs.

use super::{Look, clocks, keys, say};
use crate::language::text;
use crate::record::{Clock, PerformanceCase, Phase};
use crate::report::charts::strips::{Strip, StripChart, StripRow};
use crate::report::compare::{Comparison, Side};
use crate::report::performance::{Repetitions, phase_ns};

/// Most cases in the strip plot; more would be unreadable.
const STRIPS: usize = 24;

/// A row per case. `None` for a virtual clock, which has no scatter.
pub(super) fn strips(comparison: &Comparison, looks: &[Look]) -> Option<StripChart> {
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
        title: say(comparison, &text!("Every end-to-end time: left of 1 is faster than the base")),
        x_name: say(comparison, &text!("time ÷ the base's median")),
        subtitle: say(
            comparison,
            &text!(
                "dots: repetitions; bars: median with 95 % interval; band: ± {threshold} %; {clocks}",
                threshold = format!("{:.1}", 100.0 * comparison.options.threshold()),
                clocks = clocks(comparison)
            ),
        ),
        keys: keys(comparison, looks),
        rows,
        threshold: comparison.options.threshold(),
    })
}

fn strip_row(comparison: &Comparison, looks: &[Look], case: &PerformanceCase) -> Option<StripRow> {
    let case_of = |index: usize| -> Option<&PerformanceCase> {
        let pair = comparison.pairs.iter().find(|pair| pair.other == index)?;
        pair.cases.iter().find(|common| common.a.case_id == case.case_id).map(|common| &common.b)
    };
    let row_of = |side: &Side, case: &PerformanceCase| {
        side.summary.performance.iter().find(|r| r.case_id == case.case_id && r.phase == Phase::E2e).cloned()
    };
    let base = row_of(comparison.base(), case)?.median_ns.filter(|ns| *ns > 0)? as f64;
    let mut strips = Vec::new();
    for (index, (side, look)) in comparison.sides.iter().zip(looks).enumerate() {
        // A modelled time never appears on a scale of measured ones.
        let Some(case) = (if index == 0 { Some(case) } else { case_of(index) }) else { continue };
        if side.clock() != comparison.base().clock() {
            continue;
        }
        let good = Repetitions::of(case, &side.requests).good;
        let samples: Vec<f64> =
            good.iter().filter_map(|r| phase_ns(r, Phase::E2e)).map(|ns| ns as f64 / base).collect();
        let Some(row) = row_of(side, case).filter(|_| !samples.is_empty()) else { continue };
        let interval = row.interval_ns().filter(|_| row.clock == Clock::Measured);
        strips.push(Strip {
            look: *look,
            samples,
            median: row.median_ns? as f64 / base,
            interval: interval.map(|of| of.map(|ns| ns / base)),
        });
    }
    (strips.len() > 1).then(|| StripRow { label: case.case_id.clone(), strips })
}
