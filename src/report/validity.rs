//! Whether the figures may be believed: each condition, what was found, and what to do where it does not hold.

use super::format::counted;
use super::performance::{Repetitions, phase_ns};
use crate::record::{Clock, Phase, RequestRecord, RunRecord, SampleRecord, SampleState, Status};
use crate::stats::{Outlier, drift, median, median_interval, outliers};

/// Repetitions below which a median is not to be leaned on.
const FEW_REPETITIONS: usize = 5;
/// Change along the repetitions of a case, as a share of their mean, that is called a drift.
const DRIFT_SHARE: f64 = 0.05;
/// Half-width of the median's interval, as a share of it, that is called wide.
const WIDE_SHARE: f64 = 0.05;

/// How a condition came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Yes,
    /// It does not.
    No,
    /// The records do not tell.
    Unknown,
}

/// A condition for believing the figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The condition, as a statement.
    pub condition: &'static str,
    /// Whether it holds.
    pub outcome: Outcome,
    /// What was found.
    pub found: String,
    /// What to do where it does not hold.
    pub advice: &'static str,
    /// Without it the figures are invalid; the others only call for care.
    pub required: bool,
}

/// What the conditions together say of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every required condition holds.
    Valid,
    /// The plan is not finished; the run can be resumed.
    Incomplete,
    /// A required condition does not hold.
    Invalid,
}

/// The verdict of a run with these checks.
pub fn verdict(run: &RunRecord, checks: &[Check]) -> Verdict {
    if checks.iter().any(|c| c.required && c.outcome == Outcome::No) {
        Verdict::Invalid
    } else if run.status == Status::Complete {
        Verdict::Valid
    } else {
        Verdict::Incomplete
    }
}

/// All conditions that apply to the run.
pub fn checks(run: &RunRecord, samples: &[SampleRecord], requests: &[RequestRecord]) -> Vec<Check> {
    let mut checks = vec![completeness(run, samples)];
    if !run.plan.accuracy.is_empty() {
        checks.extend(of_samples(samples));
    }
    if !run.plan.performance.is_empty() {
        checks.extend(of_repetitions(run, requests));
        checks.push(governor(run));
    }
    checks
}

pub(super) fn yes_if(holds: bool) -> Outcome {
    if holds { Outcome::Yes } else { Outcome::No }
}

fn completeness(run: &RunRecord, samples: &[SampleRecord]) -> Check {
    let planned: u64 = run.plan.accuracy.iter().map(|case| case.items).sum();
    let status = match run.status {
        Status::Complete => "complete",
        Status::Running => "still running, or killed",
        Status::Interrupted => "interrupted",
    };
    Check {
        condition: "The whole plan was run",
        outcome: yes_if(run.status == Status::Complete),
        found: if planned == 0 {
            status.to_owned()
        } else {
            format!("{status}; {} of {}", samples.len(), counted(planned, "item"))
        },
        advice: "Run the same command with --resume: finished items and repetitions stay.",
        required: false,
    }
}

fn of_samples(samples: &[SampleRecord]) -> [Check; 2] {
    let count = |state| samples.iter().filter(|s| s.state == state).count() as u64;
    let (failed, unscorable) = (count(SampleState::Failed), count(SampleState::Unscorable));
    [
        Check {
            condition: "Every item had an answer",
            outcome: yes_if(failed == 0),
            found: format!("{failed} of {} failed", counted(samples.len() as u64, "item")),
            advice: "Failed items are outside the accuracy; their errors are in samples.jsonl.",
            required: false,
        },
        Check {
            condition: "Every answer could be read",
            outcome: yes_if(unscorable == 0),
            found: format!("{unscorable} of {} unscorable", counted(samples.len() as u64, "item")),
            advice: "Unscorable answers count as wrong; read their texts in samples.jsonl.",
            required: false,
        },
    ]
}

fn of_repetitions(run: &RunRecord, requests: &[RequestRecord]) -> Vec<Check> {
    let cases: Vec<(&str, Repetitions<'_>)> = run
        .plan
        .performance
        .iter()
        // What the device cannot hold was left out, and the headline says so.
        .filter(|case| case.unfit.is_none())
        .map(|case| (case.case_id.as_str(), Repetitions::of(case, requests)))
        .collect();
    let modelled = run.provenance.clock == Clock::Modelled;
    let where_true = |spoils: &dyn Fn(&Repetitions<'_>) -> bool| -> Vec<&str> {
        cases.iter().filter(|(_, r)| spoils(r)).map(|(id, _)| *id).collect()
    };
    let check = |condition, required, spoilt: Vec<&str>, advice| Check {
        condition,
        outcome: yes_if(spoilt.is_empty()),
        found: found_in(&spoilt, cases.len()),
        advice,
        required,
    };
    vec![
        check(
            "Every case ran without error and always gave the same output",
            true,
            // What an unfinished run has not come to yet is missing, not wrong.
            where_true(&|r| r.invalid.is_some() && (!r.unrun || run.status == Status::Complete)),
            "The rows concerned say what happened; their times must not be used.",
        ),
        check(
            "Every case has at least 5 timed repetitions",
            false,
            // A virtual clock has no noise.
            where_true(&|r| !modelled && r.good.len() < FEW_REPETITIONS),
            "Raise the suite's repetitions: a median of fewer says little.",
        ),
        check(
            "Every end-to-end median is known to ± 5 %",
            false,
            where_true(&|r| is_wide(&e2e(r))),
            "Raise the repetitions, or find what else the machine is doing.",
        ),
        check(
            "No case grew slower or faster by 5 % as it was repeated",
            false,
            where_true(&|r| drift(&e2e(r)).is_some_and(|d| d.exceeds(DRIFT_SHARE))),
            "Warm up longer; watch temperature and frequency.",
        ),
        check(
            "No repetition stands apart from the others of its case",
            false,
            where_true(&|r| outliers(&e2e(r)).is_some_and(|all| all.iter().any(Outlier::stands_apart))),
            "Outliers are kept in every figure; other load on the machine is the usual cause.",
        ),
    ]
}

/// End-to-end times of the repetitions, in the order they were run.
fn e2e(repetitions: &Repetitions<'_>) -> Vec<f64> {
    repetitions.good.iter().filter_map(|r| phase_ns(r, Phase::E2e)).map(|ns| ns as f64).collect()
}

/// Fewer resamples than for a printed interval: this one is only compared with a bound.
fn is_wide(ns: &[f64]) -> bool {
    let half = median_interval(ns, 0.95, 1000, 1).map(|(low, high)| (high - low) / 2.0);
    half.zip(median(ns)).is_some_and(|(half, centre)| half > WIDE_SHARE * centre)
}

/// `all 12 cases`, or which do not hold it; the first few by name.
pub(super) fn found_in(spoilt: &[&str], cases: usize) -> String {
    const NAMED: usize = 3;
    match spoilt.len() {
        0 => format!("all {}", counted(cases as u64, "case")),
        n => {
            let more = if n > NAMED { format!(" and {} more", n - NAMED) } else { String::new() };
            format!("not {n} of {cases}: {}{more}", spoilt[..n.min(NAMED)].join(", "))
        }
    }
}

fn governor(run: &RunRecord) -> Check {
    let found = run.provenance.governor.as_deref();
    Check {
        condition: "The processor keeps its frequency",
        outcome: match found {
            None | Some("" | "unknown") => Outcome::Unknown,
            Some(name) => yes_if(name == "performance"),
        },
        found: found.map_or("the system does not tell its governor".to_owned(), |g| format!("governor {g}")),
        advice: "cpupower frequency-set -g performance",
        required: false,
    }
}

/// One line for a terminal: the verdict and how many conditions hold.
pub fn sentence(run: &RunRecord, checks: &[Check]) -> String {
    let holding = checks.iter().filter(|c| c.outcome == Outcome::Yes).count();
    let word = match verdict(run, checks) {
        Verdict::Valid => "valid, every required condition holds",
        Verdict::Incomplete => "incomplete",
        Verdict::Invalid => "INVALID, a required condition fails",
    };
    let unknown = checks.iter().filter(|c| c.outcome == Outcome::Unknown).count();
    let unknown = if unknown > 0 { format!(", {unknown} unknown") } else { String::new() };
    format!("{word}; {holding} of {} in all{unknown}", checks.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    fn outcome_of(checks: &[Check], starts: &str) -> Outcome {
        checks.iter().find(|c| c.condition.starts_with(starts)).unwrap().outcome
    }

    #[test]
    fn a_quiet_finished_run_is_valid() {
        let (run, samples, requests) = fixture::quiet();
        let checks = checks(&run, &samples, &requests);
        let spoilt: Vec<_> = checks.iter().filter(|c| c.outcome == Outcome::No).collect();
        assert!(spoilt.is_empty(), "{spoilt:?}");
        assert_eq!(verdict(&run, &checks), Verdict::Valid);
    }

    #[test]
    fn each_spoiling_is_found_and_only_a_wrong_output_invalidates() {
        let (mut run, mut samples, mut requests) = fixture::quiet();
        samples[0].state = SampleState::Failed;
        samples[1].state = SampleState::Unscorable;
        run.provenance.governor = Some("powersave".into());
        for (index, request) in requests.iter_mut().enumerate() {
            request.end_ns += 10_000_000 * index as u64;
        }
        let found = checks(&run, &samples, &requests);
        for starts in ["Every item", "Every answer", "No case grew", "The processor"] {
            assert_eq!(outcome_of(&found, starts), Outcome::No, "{starts}");
        }
        assert_eq!(verdict(&run, &found), Verdict::Valid);
        run.status = Status::Interrupted;
        let found = checks(&run, &samples, &requests);
        assert_eq!(verdict(&run, &found), Verdict::Incomplete);
        requests.last_mut().unwrap().output_hash = "other".into();
        let found = checks(&run, &samples, &requests);
        assert_eq!(verdict(&run, &found), Verdict::Invalid);
        assert!(sentence(&run, &found).starts_with("INVALID, "));
    }

    #[test]
    fn few_cases_are_named_and_many_are_counted() {
        assert_eq!(found_in(&[], 1), "all 1 case");
        assert_eq!(found_in(&["a"], 4), "not 1 of 4: a");
        assert_eq!(found_in(&["a", "b", "c", "d", "e"], 9), "not 5 of 9: a, b, c and 2 more");
    }
}
