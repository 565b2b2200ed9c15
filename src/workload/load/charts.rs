//! The charts of loads: latency against the rate offered, in a closed loop against its concurrency.

use crate::language::{Language, Text, text};
use crate::record::{Clock, LoadCase, LoadRow, RunRecord};
use crate::report::charts::cases::{label, point, subtitle};
use crate::report::charts::lines::{LineChart, Point, Scale, Series};
use crate::report::charts::plain_name;
use crate::report::format::{milliseconds, significant};
use crate::report::modelled;

/// Describes latency against the rate offered for each load.
pub(super) fn describe(run: &RunRecord, levels: &[LoadRow], language: Language) -> Vec<(String, LineChart)> {
    let of_case = |case: &LoadCase| {
        let own: Vec<&LoadRow> = levels.iter().filter(|l| l.load_id == case.load_id).collect();
        (format!("load-{}", plain_name(&case.load_id)), load_chart((run, language), &own))
    };
    run.plan.loads.iter().map(of_case).collect()
}

/// Median and 90 % quantile of TTFT and E2E. Leaves out the level with all requests at once, which has no rate.
fn load_chart((run, language): (&RunRecord, Language), levels: &[&LoadRow]) -> LineChart {
    type Value = fn(&LoadRow) -> Option<u64>;
    let kinds: [(Text, Value); 4] = [
        (text!("TTFT p50"), |l| l.ttft_p50_ns),
        (text!("TTFT p90"), |l| l.ttft_p90_ns),
        (text!("E2E p50"), |l| l.e2e_p50_ns),
        (text!("E2E p90"), |l| l.e2e_p90_ns),
    ];
    let is_closed = levels.iter().any(|l| l.concurrency.is_some());
    // What is served falls behind what is offered once the engine is saturated; joined by it, a line would turn back.
    let place = |l: &LoadRow| l.concurrency.map(f64::from).or(l.rate_per_s).map(round);
    let modelled = run.provenance.clock == Clock::Modelled;
    let series = kinds.map(|(name, value)| {
        let at = |l: &&LoadRow| Some(point(place(l)?, value(l)? as f64 / 1e6));
        let mut points: Vec<Point> = levels.iter().filter_map(at).collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        Series { label: label(name, modelled).in_language(language), modelled, points }
    });
    let unit =
        levels.first().map_or_else(|| Text::from("ms"), |level| text!("ms, {load}", load = level.load_id));
    let (x_name, x_scale) = if is_closed {
        (text!("requests under way"), Scale::Log2)
    } else {
        (text!("requests offered a second"), Scale::Linear)
    };
    let errors = modelled::span_of(levels.iter().map(|level| modelled::error_of_load(run, level)));
    LineChart {
        title: title(is_closed, series.first().map_or(&[], |series| &series.points)).in_language(language),
        subtitle: subtitle(run, &unit, &errors).in_language(language),
        x_name: x_name.in_language(language),
        x_scale,
        series: series.into(),
    }
}

/// `First token (median): 100 ms at 2 requests/s, 1.29 s at 10 requests/s`.
fn title(is_closed: bool, points: &[Point]) -> Text {
    let words = |point: &Point| {
        let time = milliseconds(point.y);
        if is_closed {
            text!("{time} at {requests} concurrency", time, requests = point.x)
        } else {
            text!("{time} at {rate} requests/s", time, rate = point.x)
        }
    };
    match points {
        [] if is_closed => text!("Latency against concurrency"),
        [] => text!("Latency against requests/s"),
        [only] => text!("First token (median): {point}", point = words(only)),
        [first, .., last] => {
            text!("First token (median): {first}, {last}", first = words(first), last = words(last))
        }
    }
}

/// Rounds a rate so that an axis can label it.
fn round(rate: f64) -> f64 {
    significant(rate, 3).parse().unwrap_or(rate)
}
