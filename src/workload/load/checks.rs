//! Validity conditions of loads.

use super::report::FirstFailure;
use crate::language::text;
use crate::record::{LoadRow, RunRecord};
use crate::report::format::significant;
use crate::report::validity::{Check, Outcome, found_in, yes_if};

/// The validity conditions of the loads. `failures` holds the first failure of each load that has any.
pub(super) fn checks(run: &RunRecord, rows: &[LoadRow], failures: &[FirstFailure]) -> Vec<Check> {
    if run.plan.loads.is_empty() {
        return Vec::new();
    }
    let spoilt: Vec<&str> = failures.iter().map(|failure| failure.load_id.as_str()).collect();
    let found = match failures {
        [] if rows.is_empty() => text!("no load has a level yet"),
        [] => {
            let requests: u64 = rows.iter().map(|row| row.requests).sum();
            text!("all {requests} request{requests:s}", requests)
        }
        [FirstFailure { reason, .. }, ..] => {
            let failed: u64 = rows.iter().map(|row| row.failed).sum();
            let all: u64 = rows.iter().map(|row| row.requests).sum();
            text!(
                "{reason}; {failed} of {all} request{all:s} failed; {loads}",
                reason,
                failed,
                all,
                loads = found_in(&spoilt, run.plan.loads.len())
            )
        }
    };
    let served = Check {
        name: text!("every request served"),
        condition: text!("Every request under load was served to its end"),
        outcome: if rows.is_empty() { Outcome::Unknown } else { yes_if(spoilt.is_empty()) },
        found,
        advice: text!("The requests concerned say why in load.jsonl; they stand outside all times."),
        required: true,
    };
    std::iter::once(served).chain(on_time(rows)).collect()
}

/// Largest delay of sending, in nanoseconds, that is of no account however short the times are.
const PUNCTUAL_NS: u64 = 1_000_000;

/// Whether this program sent requests over a wire when they were due. `None` for an engine in this process.
fn on_time(rows: &[LoadRow]) -> Option<Check> {
    let open = rows.iter().filter(|row| row.rate_per_s.is_some());
    let late: Vec<(&LoadRow, u64)> = open.filter_map(|row| Some((row, row.late_p99_ns?))).collect();
    let worst = late.iter().max_by_key(|(_, ns)| *ns)?;
    let tardy = |(row, ns): &(&LoadRow, u64)| *ns > PUNCTUAL_NS.max(row.ttft_p50_ns.unwrap_or(0) / 100);
    let ms = significant(worst.1 as f64 / 1e6, 3);
    Some(Check {
        name: text!("requests sent on time"),
        condition: text!(
            "99 % of the requests of each rate were sent within 1 ms of their arrival, or 1 % of the median TTFT"
        ),
        outcome: yes_if(!late.iter().any(tardy)),
        found: text!(
            "up to {ms} ms late, at {rate}/s of {load}",
            ms,
            rate = worst.0.rate_words(),
            load = worst.0.load_id
        ),
        advice: text!(
            "This program did not keep its own schedule. Offer a lower rate, or give it a machine of its own."
        ),
        required: true,
    })
}
