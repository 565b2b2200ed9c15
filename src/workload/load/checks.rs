//! Validity conditions of loads.

use super::report::FirstFailure;
use crate::language::{Text, text};
use crate::record::{LoadRow, RunRecord};
use crate::report::check::{Check, Outcome, yes_if};
use crate::report::format::significant;
use crate::report::validity::found_in;

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

/// Whether this program sent requests over a wire when they were due, as far as the stated times can tell. `None` for an engine in
/// this process.
fn on_time<'a>(rows: &'a [LoadRow]) -> Option<Check> {
    let moved = |row: &'a LoadRow| Some((row, f64_of(row.late_moved_ns)?, f64_of(row.late_limit_ns)?));
    let of_rates: Vec<(&LoadRow, f64, f64)> = rows.iter().filter_map(moved).collect();
    let (worst, by_ns, _) = of_rates.iter().max_by(|a, b| (a.1 / a.2).total_cmp(&(b.1 / b.2)))?;
    let ms = |ns: f64| significant(ns / 1e6, 3);
    let late = f64_of(worst.late_p99_ns)
        .map_or_else(Text::default, |ns| text!(", and up to {ms} ms late", ms = ms(ns)));
    Some(Check {
        name: text!("requests sent on time"),
        condition: text!(
            "Late sending moved no stated quantile of TTFT (50, 90, 99 %) by more than 1 ms or 1 % of it"
        ),
        outcome: yes_if(of_rates.iter().all(|(_, by, limit)| by <= limit)),
        found: text!(
            "moved by up to {ms} ms{late}, at {rate}/s of {load}",
            ms = ms(*by_ns),
            late,
            rate = worst.rate_words(),
            load = worst.load_id
        ),
        advice: text!(
            "This program did not keep its own schedule. Offer a lower rate, or give it a machine or a core of its own."
        ),
        required: true,
    })
}

fn f64_of(ns: Option<u64>) -> Option<f64> {
    ns.map(|ns| ns as f64)
}

#[cfg(test)]
mod tests {
    use super::super::rows::load_rows;
    use super::*;
    use crate::record::{Clock, LoadCase, LoadLevelRecord, LoadRequest, Objectives, Wire};
    use crate::report::fixture;

    const MS: u64 = 1_000_000;

    /// A request to a server, sent `late_ns` after its arrival and answered with its first token `ttft_ns` after that.
    fn sent(number: u64, late_ns: u64, ttft_ns: u64) -> LoadRequest {
        let arrival_ns = number * 50 * MS;
        let (sent_ns, first_token_ns) = (arrival_ns + late_ns, arrival_ns + late_ns + ttft_ns);
        let wire = Wire {
            sent_ns,
            connect_ns: 0,
            first_byte_ns: None,
            closed_ns: first_token_ns + MS,
            events: 2,
            attempts: 1,
            before: Vec::new(),
            prompt_tokens: None,
        };
        LoadRequest {
            arrival_ns,
            start_ns: sent_ns,
            first_token_ns,
            itl_ns: vec![MS],
            end_ns: first_token_ns + MS,
            input_tokens: 8,
            output_tokens: 2,
            wire: Some(wire),
            error: None,
        }
    }

    /// The check of a rate with `requests` requests. The `late` ones were sent late by `late_ns`. TTFT from the
    /// sending of a request is `ttft_ns`, a tenth more or less.
    fn check(requests: u64, late: &[u64], late_ns: u64, ttft_ns: u64) -> Check {
        let request = |number: u64| {
            let late_ns = if late.contains(&number) { late_ns } else { 50_000 };
            sent(number, late_ns, ttft_ns / 100 * (90 + number * 7 % 20))
        };
        let requests: Vec<LoadRequest> = (0..requests).map(request).collect();
        let level = LoadLevelRecord {
            load_id: "l".into(),
            level: 0,
            clock: Clock::Measured,
            rate_per_s: Some(20.0),
            concurrency: None,
            scheduling: None,
            start_ns: 0,
            end_ns: requests.iter().map(|request| request.end_ns).max().unwrap_or(0),
            requests,
        };
        let mut run = fixture::run();
        run.plan.loads = vec![LoadCase {
            load_id: "l".into(),
            tp: 1,
            arrival: "fixed".into(),
            rates: vec![20.0],
            concurrency: Vec::new(),
            max_batch: 8,
            prefill_chunk: None,
            prompts: "random tokens".into(),
            objectives: Objectives::default(),
        }];
        let rows = load_rows(&run, &[level]);
        checks(&run, &rows, &[]).into_iter().find(|check| check.name == "requests sent on time").unwrap()
    }

    #[test]
    fn one_late_request_of_sixty_changes_no_stated_time() {
        let found = check(60, &[17], 4 * MS, 3 * MS);
        assert_eq!(found.outcome, Outcome::Yes, "{}", found.found);
        assert!(found.found.contains("up to 4.00 ms late, at 20/s of l"), "{}", found.found);
        // However late it is: the median and the 90 % quantile of sixty do not hold it.
        assert_eq!(check(60, &[17], 500 * MS, 3 * MS).outcome, Outcome::Yes);
    }

    #[test]
    fn late_requests_that_a_stated_time_holds_invalidate() {
        // Of six, one is in the 90 % quantile.
        assert_eq!(check(6, &[3], 500 * MS, 3 * MS).outcome, Outcome::No);
        // Of sixty, seven are.
        let seven = [3, 11, 19, 27, 35, 43, 51];
        assert_eq!(check(60, &seven, 4 * MS, 3 * MS).outcome, Outcome::No);
        // From a hundred on, the 99 % quantile is stated, and holds two.
        assert_eq!(check(100, &[17], 4 * MS, 3 * MS).outcome, Outcome::Yes);
        assert_eq!(check(100, &[17, 58], 40 * MS, 3 * MS).outcome, Outcome::No);
        // All of them, by more than a millisecond.
        let all: Vec<u64> = (0..60).collect();
        assert_eq!(check(60, &all, 2 * MS, 3 * MS).outcome, Outcome::No);
    }

    #[test]
    fn a_delay_counts_against_the_time_that_it_changes() {
        let all: Vec<u64> = (0..60).collect();
        assert_eq!(check(60, &all, MS, 3 * MS).outcome, Outcome::Yes, "a millisecond is of no account");
        assert_eq!(check(60, &all, 4 * MS, 500 * MS).outcome, Outcome::Yes, "less than 1 % of half a second");
        assert_eq!(check(60, &all, 7 * MS, 500 * MS).outcome, Outcome::No);
    }
}
