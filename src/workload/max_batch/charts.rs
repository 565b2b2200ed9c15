//! The charts of max-batch searches.

use crate::record::{Clock, Phase, ProbeRow, RunRecord, SearchCase};
use crate::report::charts::cases::{label, point, subtitle};
use crate::report::charts::lines::{LineChart, Point, Scale, Series};
use crate::report::charts::plain_name;
use crate::report::modelled;

/// Describes TPOT against batch for each search.
pub(super) fn describe(run: &RunRecord, probes: &[ProbeRow]) -> Vec<(String, LineChart)> {
    let of_case = |case: &SearchCase| {
        let own: Vec<&ProbeRow> = probes.iter().filter(|p| p.search_id == case.search_id).collect();
        (plain_name(&case.search_id), search_chart(run, &own))
    };
    run.plan.searches.iter().map(of_case).collect()
}

/// Every measured probe, and a line at the limit.
fn search_chart(run: &RunRecord, probes: &[&ProbeRow]) -> LineChart {
    let ms = |ns: u64| ns as f64 / 1e6;
    let mut points: Vec<Point> =
        probes.iter().filter_map(|p| p.tpot_ns.map(|ns| point(f64::from(p.batch), ms(ns)))).collect();
    points.sort_by(|a, b| a.x.total_cmp(&b.x));
    let ends = points.first().map(|p| p.x).zip(points.last().map(|p| p.x));
    let limit = probes.first().zip(ends).map_or_else(Vec::new, |(p, (first, last))| {
        vec![point(first, ms(p.limit_tpot_ns)), point(last, ms(p.limit_tpot_ns))]
    });
    let lengths = probes
        .first()
        .map_or_else(String::new, |p| format!(", {} + {} tokens", p.input_tokens, p.output_tokens));
    let modelled = run.provenance.clock == Clock::Modelled;
    let mut series = vec![Series { label: label("TPOT", modelled), modelled, points }];
    if !limit.is_empty() {
        series.push(Series { label: "limit".to_owned(), modelled: false, points: limit });
    }
    let errors = probes
        .iter()
        .map(|p| modelled::error_at(run, Phase::Decode, p.tp, [p.batch, p.input_tokens, p.output_tokens]));
    LineChart {
        title: format!("Probes of a max-batch search{lengths}"),
        subtitle: subtitle(run, "ms per token after the first", &modelled::span_of(errors)),
        x_name: "batch",
        x_scale: Scale::Log2,
        series,
    }
}
