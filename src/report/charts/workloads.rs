//! The charts of searches and loads.

use super::super::format::significant;
use super::lines::{LineChart, Point, Scale, Series};
use super::{Chart, plain_name};
use crate::record::{Clock, LoadRow, ProbeRow, RunRecord};

/// Describes TPOT against batch for each search, and latency against requests served for each load.
pub(super) fn describe(run: &RunRecord, probes: &[ProbeRow], levels: &[LoadRow]) -> Vec<(String, Chart)> {
    let searches = run.plan.searches.iter().map(|case| {
        let own: Vec<&ProbeRow> = probes.iter().filter(|p| p.search_id == case.search_id).collect();
        (plain_name(&case.search_id), search_chart(run, &own))
    });
    let loads = run.plan.loads.iter().map(|case| {
        let own: Vec<&LoadRow> = levels.iter().filter(|l| l.load_id == case.load_id).collect();
        (format!("load-{}", plain_name(&case.load_id)), load_chart(run, &own))
    });
    let drawn = |chart: &LineChart| chart.series.iter().any(|series| !series.points.is_empty());
    let all = searches.chain(loads).filter(|(_, chart)| drawn(chart));
    all.map(|(name, chart)| (name, Chart::Lines(chart))).collect()
}

fn point(x: f64, y: f64) -> Point {
    Point { x, y, low: None, high: None }
}

fn subtitle(run: &RunRecord, unit: &str) -> String {
    let from = &run.provenance;
    format!("{unit}, {}, {} {}", from.clock, from.device, from.dtype)
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
    LineChart {
        title: format!("Probes of a max-batch search{lengths}"),
        subtitle: subtitle(run, "ms per token after the first"),
        x_name: "batch",
        x_scale: Scale::Log2,
        series,
    }
}

/// Median and 90 % quantile of TTFT and E2E against the requests served. Leaves out the level with all requests at
/// once, which has no rate.
fn load_chart(run: &RunRecord, levels: &[&LoadRow]) -> LineChart {
    type Value = fn(&LoadRow) -> Option<u64>;
    let kinds: [(&str, Value); 4] = [
        ("TTFT p50", |l| l.ttft_p50_ns),
        ("TTFT p90", |l| l.ttft_p90_ns),
        ("E2E p50", |l| l.e2e_p50_ns),
        ("E2E p90", |l| l.e2e_p90_ns),
    ];
    let modelled = run.provenance.clock == Clock::Modelled;
    let rated = || levels.iter().filter(|l| l.rate_per_s.is_some() || l.concurrency.is_some());
    let series = kinds.map(|(name, value)| {
        let at = |l: &&LoadRow| Some(point(round(l.achieved_per_s?), value(l)? as f64 / 1e6));
        let mut points: Vec<Point> = rated().filter_map(at).collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        Series { label: label(name, modelled), modelled, points }
    });
    let name = levels.first().map_or_else(String::new, |l| format!(", {}", l.load_id));
    LineChart {
        title: "Latency against requests served".to_owned(),
        subtitle: subtitle(run, &format!("ms{name}")),
        x_name: "requests served a second",
        x_scale: Scale::Linear,
        series: series.into(),
    }
}

fn label(name: &str, modelled: bool) -> String {
    format!("{name}{}", if modelled { ", modelled" } else { "" })
}

/// Rounds a rate so that an axis can label it.
fn round(rate: f64) -> f64 {
    significant(rate, 3).parse().unwrap_or(rate)
}
