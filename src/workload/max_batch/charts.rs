//! The charts of max-batch searches.

use crate::language::{Language, Text, text};
use crate::record::{Clock, Phase, ProbeRow, RunRecord, SearchCase};
use crate::report::charts::cases::{label, point, subtitle};
use crate::report::charts::lines::{LineChart, Point, Scale, Series};
use crate::report::charts::plain_name;
use crate::report::format::milliseconds;
use crate::report::modelled;
use crate::stats::{Interval, median};
use std::collections::BTreeMap;

/// Describes TPOT against batch for each search.
pub(super) fn describe(run: &RunRecord, probes: &[ProbeRow], language: Language) -> Vec<(String, LineChart)> {
    let of_case = |case: &SearchCase| {
        let own: Vec<&ProbeRow> = probes.iter().filter(|p| p.search_id == case.search_id).collect();
        (plain_name(&case.search_id), search_chart((run, language), &own))
    };
    run.plan.searches.iter().map(of_case).collect()
}

/// Every measured batch, and a line at the limit. A batch that was probed several times has its median, and whiskers to the least
/// and the most.
fn search_chart((run, language): (&RunRecord, Language), probes: &[&ProbeRow]) -> LineChart {
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
    let mut series =
        vec![Series { label: label("TPOT".into(), modelled).in_language(language), modelled, points }];
    if !limit.is_empty() {
        series.push(Series { label: text!("limit").in_language(language), modelled: false, points: limit });
    }
    let errors = probes
        .iter()
        .map(|p| modelled::error_at(run, Phase::Decode, p.tp, [p.batch, p.input_tokens, p.output_tokens]));
    let unit = if is_repeated {
        text!("ms per token after the first; whiskers: least and most of the probes of a batch")
    } else {
        text!("ms per token after the first")
    };
    LineChart {
        title: title(probes).in_language(language),
        subtitle: subtitle(run, &unit, &modelled::span_of(errors)).in_language(language),
        x_name: text!("batch").in_language(language),
        x_scale: Scale::Log2,
        series,
    }
}

/// `Batch 25 is the largest within 50 ms a token, 256 in, 33 out`.
fn title(probes: &[&ProbeRow]) -> Text {
    let Some(first) = probes.first() else { return text!("Probes of a max-batch search") };
    let lengths = text!("{input} in, {output} out", input = first.input_tokens, output = first.output_tokens);
    let limit = text!("{time} a token", time = milliseconds(first.limit_tpot_ns as f64 / 1e6));
    if let Some(batch) = probes.iter().filter(|probe| probe.answer).map(|probe| probe.batch).max() {
        text!("Batch {batch} is the largest within {limit}, {lengths}", batch, limit, lengths)
    } else {
        text!("No batch was found within {limit}, {lengths}", limit, lengths)
    }
}
