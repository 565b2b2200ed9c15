//! The conditions on repeated measurements: enough of them, without drift, outliers or wide intervals.

use super::{Check, Outcome, found_in, yes_if};
use crate::language::{Text, text};
use crate::record::{Clock, Phase, RequestRecord, RunRecord, Status};
use crate::report::performance::{Repetitions, phase_ns};
use crate::stats::{Outlier, drift, median, median_interval, outliers};

/// Fewest repetitions for a reliable median.
pub(in crate::report) const FEW_REPETITIONS: usize = 5;
/// Change along the repetitions of a case, as a share of their mean, that counts as drift.
pub(in crate::report) const DRIFT_SHARE: f64 = 0.05;
/// Half-width that counts as wide for the interval of the median, as a share of the median.
pub(in crate::report) const WIDE_SHARE: f64 = 0.05;

/// A case's id with its repetitions.
type Case<'a> = (&'a str, Repetitions<'a>);

/// Returns the conditions on repeated measurements.
pub(super) fn of_repetitions(run: &RunRecord, requests: &[RequestRecord]) -> Vec<Check> {
    let cases: Vec<Case<'_>> = run
        .plan
        .performance
        .iter()
        // Skipped cases have their own condition.
        .filter(|case| case.unfit.is_none())
        .map(|case| (case.case_id.as_str(), Repetitions::of(case, requests)))
        .collect();
    let mut checks = vec![whole_cases(run, &cases), none_left_out(run)];
    let modelled = run.provenance.clock == Clock::Modelled;
    let timed = |name, condition, is_spoilt: &dyn Fn(&Repetitions<'_>) -> Option<bool>, advice| {
        let (outcome, found) = stability(&cases, modelled, is_spoilt);
        Check { name, condition, outcome, found, advice, required: false }
    };
    checks.extend([
        timed(
            text!("5 repetitions"),
            text!("Every case has at least 5 timed repetitions"),
            &|r| Some(r.good.len() < FEW_REPETITIONS),
            text!("Raise the suite's repetitions: a median of fewer says little."),
        ),
        timed(
            text!("medians within ± 5 %"),
            text!("Every end-to-end median is known to ± 5 %"),
            &|r| is_wide(&e2e(r)),
            text!("Raise the repetitions, or find what else the machine is doing."),
        ),
        timed(
            text!("no drift"),
            text!("No case grew slower or faster by 5 % as it was repeated"),
            &|r| drift(&e2e(r)).map(|drift| drift.exceeds(DRIFT_SHARE)),
            text!("Warm up longer; watch temperature and frequency."),
        ),
        timed(
            text!("no outliers"),
            text!("No repetition stands apart from the others of its case"),
            &|r| has_outlier(&e2e(r)),
            text!("Outliers are kept in every figure; other load on the machine is the usual cause."),
        ),
    ]);
    checks
}

/// Whether every case ran without error and did the same work.
fn whole_cases(run: &RunRecord, cases: &[Case<'_>]) -> Check {
    // Cases that an unfinished run has not reached are missing, not wrong.
    let is_spoilt = |r: &Repetitions<'_>| r.invalid.is_some() && (!r.unrun || run.status == Status::Complete);
    let spoilt: Vec<&str> = cases.iter().filter(|(_, r)| is_spoilt(r)).map(|(id, _)| *id).collect();
    let first = cases.iter().find(|(_, r)| is_spoilt(r)).and_then(|(_, r)| r.invalid.clone());
    Check {
        name: text!("cases whole, outputs equal"),
        condition: text!("Every case ran without error and always gave the same output"),
        outcome: match cases {
            [] => Outcome::DoesNotApply,
            cases if cases.iter().all(|(_, r)| r.unrun) && spoilt.is_empty() => Outcome::Unknown,
            _ => yes_if(spoilt.is_empty()),
        },
        found: match first {
            Some(reason) => text!("{reason}; {cases}", reason, cases = found_in(&spoilt, cases.len())),
            None => found_in(&spoilt, cases.len()),
        },
        advice: text!("The rows concerned say what happened; their times must not be used."),
        required: true,
    }
}

/// Whether no case was skipped because the device cannot hold it or it exceeds the suite's time budget.
fn none_left_out(run: &RunRecord) -> Check {
    let cases = &run.plan.performance;
    let unfit: Vec<&str> = cases.iter().filter(|c| c.unfit.is_some()).map(|c| c.case_id.as_str()).collect();
    Check {
        name: text!("no case left out"),
        condition: text!("No case was left out"),
        outcome: yes_if(unfit.is_empty()),
        found: found_in(&unfit, cases.len()),
        advice: text!("The headline says why; `--over-budget` runs those that take too long."),
        required: false,
    }
}

/// Returns the outcome of a condition on the times of all cases, and what was found. `is_spoilt` is `None` for a case
/// with too few repetitions.
///
/// A virtual clock has no noise, so such a condition does not apply to it.
fn stability(
    cases: &[Case<'_>],
    modelled: bool,
    is_spoilt: &dyn Fn(&Repetitions<'_>) -> Option<bool>,
) -> (Outcome, Text) {
    // Cases without a good repetition belong to another condition.
    let timed: Vec<(&str, Option<bool>)> =
        cases.iter().filter(|(_, r)| !r.good.is_empty()).map(|(id, r)| (*id, is_spoilt(r))).collect();
    let are = |wanted: Option<bool>| -> Vec<&str> {
        timed.iter().filter(|(_, spoilt)| *spoilt == wanted).map(|(id, _)| *id).collect()
    };
    let (spoilt, untold) = (are(Some(true)), are(None));
    match timed.len() {
        _ if modelled => (Outcome::DoesNotApply, text!("a virtual clock has no noise")),
        0 => (Outcome::DoesNotApply, text!("no case has times")),
        all if !spoilt.is_empty() => (Outcome::No, found_in(&spoilt, all)),
        all if !untold.is_empty() => {
            (Outcome::Unknown, text!("too few repetitions to tell: {found}", found = found_in(&untold, all)))
        }
        all => (Outcome::Yes, found_in(&[], all)),
    }
}

/// Whether a repetition is an outlier. `None` with too few repetitions.
fn has_outlier(ns: &[f64]) -> Option<bool> {
    outliers(ns).filter(|all| all.len() > 2).map(|all| all.iter().any(Outlier::stands_apart))
}

/// End-to-end times of the repetitions, in order.
fn e2e(repetitions: &Repetitions<'_>) -> Vec<f64> {
    repetitions.good.iter().filter_map(|r| phase_ns(r, Phase::E2e)).map(|ns| ns as f64).collect()
}

/// Uses fewer resamples than a printed interval, because this one is only compared with a bound.
fn is_wide(ns: &[f64]) -> Option<bool> {
    let half = median_interval(ns, 0.95, 1000, 1).map(|of| (of.high - of.low) / 2.0)?;
    Some(half > WIDE_SHARE * median(ns)?)
}
