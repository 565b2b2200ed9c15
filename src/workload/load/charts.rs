//! The charts of loads.

use crate::record::{Clock, LoadCase, LoadRow, RunRecord};
use crate::report::charts::cases::{label, point, subtitle};
use crate::report::charts::lines::{LineChart, Point, Scale, Series};
use crate::report::charts::plain_name;
use crate::report::format::significant;

/// Describes latency against requests served for each load.
pub(super) fn describe(run: &RunRecord, levels: &[LoadRow]) -> Vec<(String, LineChart)> {
    let of_case = |case: &LoadCase| {
        let own: Vec<&LoadRow> = levels.iter().filter(|l| l.load_id == case.load_id).collect();
        (format!("load-{}", plain_name(&case.load_id)), load_chart(run, &own))
    };
    run.plan.loads.iter().map(of_case).collect()
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

/// Rounds a rate so that an axis can label it.
fn round(rate: f64) -> f64 {
    significant(rate, 3).parse().unwrap_or(rate)
}
