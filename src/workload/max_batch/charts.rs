//! The charts of max-batch searches.

use crate::record::{Clock, Phase, ProbeRow, RunRecord, SearchCase};
use crate::report::charts::cases::{label, point, subtitle};
use crate::report::charts::lines::{LineChart, Point, Scale, Series};
use crate::report::charts::plain_name;
use crate::report::format::milliseconds;
use crate::report::modelled;
use crate::stats::{Interval, median};
use std::collections::BTreeMap;

/// Describes TPOT against batch for each search.
pub(super) fn describe(run: &RunRecord, probes: &[ProbeRow]) -> Vec<(String, LineChart)> {
    let of_case = |case: &SearchCase| {
        let own: Vec<&ProbeRow> = probes.iter().filter(|p| p.search_id == case.search_id).collect();
        (plain_name(&case.search_id), search_chart(run, &own))
    };
    run.plan.searches.iter().map(of_case).collect()
}

/// Every measured batch, and a line at the limit. A batch that was probed several times has its median, and whiskers to the least
/// and the most.
fn search_chart(run: &RunRecord, probes: &[&ProbeRow]) -> LineChart {
    let ms = |ns: u64| ns as f64 / 1e6;
    let mut by_batch: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for probe in probes {
        by_batch.entry(probe.batch).or_default().extend(probe.tpot_ns.map(ms));
    }
    let is_repeated = by_batch.values().any(|times| times.iter().any(|ms| *ms != times[0]));
    let at = |(batch, times): (u32, Vec<f64>)| {
        let interval = Interval::spanning(times.iter().copied()).filter(|_| times.len() > 1);
        Some(Point { x: f64::from(batch), y: median(&times)?, interval })
    };
    let points: Vec<Point> = by_batch.into_iter().filter_map(at).collect();
    let ends = points.first().map(|p| p.x).zip(points.last().map(|p| p.x));
    let limit = probes.first().zip(ends).map_or_else(Vec::new, |(p, (first, last))| {
        vec![point(first, ms(p.limit_tpot_ns)), point(last, ms(p.limit_tpot_ns))]
    });
    let modelled = run.provenance.clock == Clock::Modelled;
    let mut series = vec![Series { label: label("TPOT", modelled), modelled, points }];
    if !limit.is_empty() {
        series.push(Series { label: "limit".to_owned(), modelled: false, points: limit });
    }
    let errors = probes
        .iter()
        .map(|p| modelled::error_at(run, Phase::Decode, p.tp, [p.batch, p.input_tokens, p.output_tokens]));
    let whiskers = if is_repeated { "; whiskers: least and most of the probes of a batch" } else { "" };
    LineChart {
        title: title(probes),
        subtitle: subtitle(
            run,
            &format!("ms per token after the first{whiskers}"),
            &modelled::span_of(errors),
        ),
        x_name: "batch",
        x_scale: Scale::Log2,
        series,
    }
}

/// `Batch 25 is the largest within 50 ms a token, 256 in, 33 out`.
fn title(probes: &[&ProbeRow]) -> String {
    let Some(first) = probes.first() else { return "Probes of a max-batch search".to_owned() };
    let lengths = format!("{} in, {} out", first.input_tokens, first.output_tokens);
    let limit = format!("{} a token", milliseconds(first.limit_tpot_ns as f64 / 1e6));
    match probes.iter().filter(|probe| probe.answer).map(|probe| probe.batch).max() {
        Some(batch) => format!("Batch {batch} is the largest within {limit}, {lengths}"),
        None => format!("No batch was found within {limit}, {lengths}"),
    }
}
