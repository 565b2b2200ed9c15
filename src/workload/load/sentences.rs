//! Sentences about a load: which rates are sustained, and the best concurrency.

use crate::record::{LoadCase, LoadRow, RunRecord, rate_text};
use crate::report::format::{or_none, percent, significant};
use crate::report::modelled;
use crate::stats::LEAST_FOR_GROWTH;

use super::report::FirstFailure;
use super::rows::of_load;

/// The sustained rate of a load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sustained {
    /// The highest unsaturated rate below the lowest saturated one.
    pub good: Option<f64>,
    /// The lowest saturated rate.
    pub bad: Option<f64>,
}

impl Sustained {
    /// `12.5, not 14`.
    pub(crate) fn words(&self) -> String {
        match (self.good, self.bad) {
            (Some(good), Some(bad)) => format!("{}, not {}", rate_text(good), rate_text(bad)),
            (Some(good), None) => format!("{} and more", rate_text(good)),
            (None, Some(bad)) => format!("less than {}", rate_text(bad)),
            (None, None) => "too few to say".to_owned(),
        }
    }
}

/// Finds the sustained rate from the rows of one load.
pub(super) fn sustained<'a>(rows: impl Iterator<Item = &'a LoadRow>) -> Sustained {
    let rows: Vec<&LoadRow> = rows.collect();
    let rated = |saturated: bool| {
        let rows = rows.iter();
        rows.filter(move |row| row.saturated == Some(saturated)).filter_map(|row| row.rate_per_s)
    };
    let bad = rated(true).min_by(f64::total_cmp);
    let good = rated(false).filter(|rate| bad.is_none_or(|bad| *rate < bad)).max_by(f64::total_cmp);
    Sustained { good, bad }
}

/// The level of a closed loop with the most output tokens per second; the lower concurrency of equals.
pub(super) fn best_closed<'a>(rows: impl Iterator<Item = &'a LoadRow>) -> Option<&'a LoadRow> {
    let rate = |row: &LoadRow| row.output_tokens_per_s.unwrap_or(0.0);
    rows.filter(|row| row.concurrency.is_some())
        .min_by(|a, b| rate(b).total_cmp(&rate(a)).then(a.concurrency.cmp(&b.concurrency)))
}

/// The throughput of a closed loop at its best concurrency.
fn closed_sentence(run: &RunRecord, case: &LoadCase, own: &[&LoadRow]) -> Option<String> {
    let best = best_closed(own.iter().copied())?;
    let ms = |ns: Option<u64>| or_none(ns, |ns| significant(ns as f64 / 1e6, 3));
    Some(format!(
        "{}: {} output tokens/s at concurrency {} (there TTFT {} ms and TPOT {} ms in the median), {}{} on {} in {}{}.",
        case.load_id,
        or_none(best.output_tokens_per_s, |rate| significant(rate, 3)),
        best.rate_words(),
        ms(best.ttft_p50_ns),
        ms(best.tpot_p50_ns),
        best.clock,
        modelled::words(modelled::error_of_load(run, best)),
        best.device,
        best.dtype,
        failed_words(own)
    ))
}

/// `; 3 of 200 requests failed`. Empty if none did.
fn failed_words(own: &[&LoadRow]) -> String {
    let count = |of: fn(&LoadRow) -> u64| own.iter().map(|row| of(row)).sum::<u64>();
    match count(|row| row.failed) {
        0 => String::new(),
        failed => format!("; {failed} of {} requests failed", count(|row| row.requests)),
    }
}

/// One sentence per load with rows: which rates are sustained and which are not, or why nothing was served.
pub(crate) fn sentences(run: &RunRecord, rows: &[LoadRow], failures: &[FirstFailure]) -> Vec<String> {
    let from = &run.provenance;
    let sentence = |case: &LoadCase| {
        let own = of_load(case, rows);
        let count = |of: fn(&LoadRow) -> u64| own.iter().map(|row| of(row)).sum::<u64>();
        let (failed, requests) = (count(|row| row.failed), count(|row| row.requests));
        let failure = failures.iter().find(|failure| failed == requests && failure.load_id == case.load_id);
        if let Some(FirstFailure { reason, .. }) = failure {
            return Some(format!("{}: {failed} of {requests} requests failed ({reason}).", case.load_id));
        }
        if !case.concurrency.is_empty() {
            return closed_sentence(run, case, &own);
        }
        let Sustained { good, bad } = sustained(own.iter().copied());
        let words = match (good, bad) {
            (Some(good), Some(bad)) => {
                format!("sustains {} requests/s, and not {}", rate_text(good), rate_text(bad))
            }
            (Some(good), None) => {
                format!("sustains every rate offered, up to {} requests/s", rate_text(good))
            }
            (None, Some(bad)) => {
                format!("sustains no rate offered; {} requests/s is too much already", rate_text(bad))
            }
            (None, None) => {
                format!("too few requests to say what is sustained ({LEAST_FOR_GROWTH} at a rate would do)")
            }
        };
        let row = own.iter().rfind(|row| good.or(bad).is_none_or(|rate| row.rate_per_s == Some(rate)))?;
        let ms = |ns: Option<u64>| or_none(ns, |ns| significant(ns as f64 / 1e6, 3));
        let goodput = match row.goodput_share {
            Some(share) => format!(", {} % of requests served well", percent(share)),
            None if row.slo_tpot_ns.is_some() => {
                ", goodput unknown because tokens arrived together and tell no TPOT".to_owned()
            }
            None => String::new(),
        };
        Some(format!(
            "{}: {words} ({} TTFT {} ms and E2E {} ms in the median{goodput}), {}{} on {} in {}{}.",
            case.load_id,
            if good.or(bad).is_some() { "there".to_owned() } else { format!("at {}", row.rate_words()) },
            ms(row.ttft_p50_ns),
            ms(row.e2e_p50_ns),
            from.clock,
            modelled::words(modelled::error_of_load(run, row)),
            from.device,
            from.dtype,
            failed_words(&own)
        ))
    };
    run.plan.loads.iter().filter_map(sentence).collect()
}
