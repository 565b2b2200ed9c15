//! Sentences about a load: which rates are sustained, and the best concurrency.

use crate::language::{Text, text};
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
    pub(crate) fn words(&self) -> Text {
        match (self.good, self.bad) {
            (Some(good), Some(bad)) => {
                text!("{good}, not {bad}", good = rate_text(good), bad = rate_text(bad))
            }
            (Some(good), None) => text!("{good} and more", good = rate_text(good)),
            (None, Some(bad)) => text!("less than {bad}", bad = rate_text(bad)),
            (None, None) => text!("too few to say"),
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
fn closed_sentence(run: &RunRecord, case: &LoadCase, own: &[&LoadRow]) -> Option<Text> {
    let best = best_closed(own.iter().copied())?;
    let ms = |ns: Option<u64>| or_none(ns, |ns| significant(ns as f64 / 1e6, 3));
    Some(text!(
        "{load}: {rate} output tokens/s at concurrency {concurrency} (there TTFT {ttft} ms and TPOT {tpot} ms in the median), {clock}{error} on {device} in {dtype}{failed}.",
        load = case.load_id,
        rate = or_none(best.output_tokens_per_s, |rate| significant(rate, 3)),
        concurrency = best.rate_words(),
        ttft = ms(best.ttft_p50_ns),
        tpot = ms(best.tpot_p50_ns),
        clock = best.clock,
        error = modelled::words(modelled::error_of_load(run, best)),
        device = best.device,
        dtype = best.dtype,
        failed = failed_words(own)
    ))
}

/// `; 3 of 200 requests failed`. Empty if none did.
fn failed_words(own: &[&LoadRow]) -> Text {
    let count = |of: fn(&LoadRow) -> u64| own.iter().map(|row| of(row)).sum::<u64>();
    match count(|row| row.failed) {
        0 => Text::EMPTY,
        failed => {
            text!("; {failed} of {requests} requests failed", failed, requests = count(|row| row.requests))
        }
    }
}

/// One sentence per load with rows: which rates are sustained and which are not, or why nothing was served.
pub(crate) fn sentences(run: &RunRecord, rows: &[LoadRow], failures: &[FirstFailure]) -> Vec<Text> {
    let from = &run.provenance;
    let sentence = |case: &LoadCase| {
        let own = of_load(case, rows);
        let count = |of: fn(&LoadRow) -> u64| own.iter().map(|row| of(row)).sum::<u64>();
        let (failed, requests) = (count(|row| row.failed), count(|row| row.requests));
        let failure = failures.iter().find(|failure| failed == requests && failure.load_id == case.load_id);
        if let Some(FirstFailure { reason, .. }) = failure {
            return Some(text!(
                "{load_id}: {failed} of {requests} requests failed ({reason}).",
                load_id = case.load_id,
                failed,
                requests,
                reason
            ));
        }
        if !case.concurrency.is_empty() {
            return closed_sentence(run, case, &own);
        }
        let Sustained { good, bad } = sustained(own.iter().copied());
        let words = match (good, bad) {
            (Some(good), Some(bad)) => {
                text!(
                    "sustains {good} requests/s, and not {bad}",
                    good = rate_text(good),
                    bad = rate_text(bad)
                )
            }
            (Some(good), None) => {
                text!("sustains every rate offered, up to {good} requests/s", good = rate_text(good))
            }
            (None, Some(bad)) => {
                text!("sustains no rate offered; {bad} requests/s is too much already", bad = rate_text(bad))
            }
            (None, None) => {
                text!(
                    "too few requests to say what is sustained ({fewest} at a rate would do)",
                    fewest = LEAST_FOR_GROWTH
                )
            }
        };
        let row = own.iter().rfind(|row| good.or(bad).is_none_or(|rate| row.rate_per_s == Some(rate)))?;
        let ms = |ns: Option<u64>| or_none(ns, |ns| significant(ns as f64 / 1e6, 3));
        let goodput = match row.goodput_share {
            Some(share) => text!(", {share} % of requests served well", share = percent(share)),
            None if row.slo_tpot_ns.is_some() => {
                text!(", goodput unknown because tokens arrived together and tell no TPOT")
            }
            None => Text::EMPTY,
        };
        Some(text!(
            "{load}: {words} ({place} TTFT {ttft} ms and E2E {e2e} ms in the median{goodput}), {clock}{error} on {device} in {dtype}{failed}.",
            load = case.load_id,
            words,
            place = if good.or(bad).is_some() {
                text!("there")
            } else {
                text!("at {rate}", rate = row.rate_words())
            },
            ttft = ms(row.ttft_p50_ns),
            e2e = ms(row.e2e_p50_ns),
            goodput,
            clock = from.clock,
            error = modelled::words(modelled::error_of_load(run, row)),
            device = from.device,
            dtype = from.dtype,
            failed = failed_words(&own)
        ))
    };
    run.plan.loads.iter().filter_map(sentence).collect()
}
