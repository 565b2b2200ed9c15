//! What a history follows of a load: throughput and goodput at its top rate.

use crate::record::{LoadCase, LoadRow, RunRecord};
use crate::report::followed::{Figure, Kind};
use crate::stats::wilson;

use super::rows::of_load;

/// Returns the figures of each load.
pub(super) fn figures(run: &RunRecord, rows: &[LoadRow]) -> Vec<Figure> {
    run.plan.loads.iter().flat_map(|case| of_case(case, rows)).collect()
}

fn of_case(case: &LoadCase, rows: &[LoadRow]) -> Vec<Figure> {
    let rows = of_load(case, rows);
    // A search tries other rates in every run: its answer is the highest that the engine sustains.
    let is_searched = case.rates.is_empty() && case.concurrency.is_empty();
    let top =
        if is_searched { rows.iter().rev().find(|row| row.saturated == Some(false)) } else { rows.last() };
    let Some(row) = top else { return Vec::new() };
    let at = match (is_searched, row.concurrency) {
        (true, _) => "at the highest rate sustained".to_owned(),
        (false, Some(requests)) => format!("at {requests} requests under way"),
        (false, None) if row.rate_per_s.is_none() => "all at once".to_owned(),
        (false, None) => format!("at {} requests/s", row.rate_words()),
    };
    let figure = |kind, value, ends: Option<(f64, f64)>| Figure {
        kind,
        case: format!("{} {at}", case.load_id),
        basis: format!(
            "{} {} {} {:?}",
            &*case.arrival,
            case.max_batch,
            case.prompts,
            [row.slo_ttft_ns, row.slo_tpot_ns, row.slo_e2e_ns]
        ),
        tp: case.tp,
        value,
        low: ends.map(|ends| ends.0),
        high: ends.map(|ends| ends.1),
        n: row.requests,
        marks: None,
    };
    let throughput = row.output_tokens_per_s.map(|value| figure(Kind::Throughput, value, None));
    let goodput = row.goodput_per_s.zip(row.goodput_share).map(|(value, share)| {
        let good = (share * row.requests as f64).round() as u64;
        let a_second = row.requests as f64 / (row.duration_ns as f64 / 1e9);
        let ends = wilson(good, row.requests, 0.95).map(|ends| (ends.low * a_second, ends.high * a_second));
        figure(Kind::Goodput, value, ends)
    });
    [throughput, goodput].into_iter().flatten().collect()
}
