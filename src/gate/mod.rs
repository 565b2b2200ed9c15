//! Gates: whether a run keeps its limits, decided on intervals and not on points.
//!
//! A limit is kept when the whole 95 % interval is on its right side, broken when the whole interval is past it, and
//! undecided in between, or where there are too few repetitions for an interval. What has no noise (counts of failed
//! items, memory, modelled times, parity) is kept or broken. A gate that nothing matches is broken: a slip in a case's name
//! must not pass for years.

pub mod junit;
mod memory;
mod parity;

use crate::record::{AccuracyRow, Clock, PerfRow, PerformanceCase, Phase, RequestRecord};
use crate::report::Summary;
use crate::report::compare::{
    Comparison, GateOutcome, Judgement, Metric, Pair, SpeedVerdict, TaskComparison, metric_ratio,
};
use crate::report::performance::good_repetitions;
use crate::stats::{LEAST_SAMPLES, RESAMPLES, median, median_interval, score_interval};
use crate::suite::gates::{AccuracyGate, GateMetric, Gates, SpeedGate};
use std::path::PathBuf;

/// Repetitions below which a time decides nothing.
const LEAST_REPETITIONS: usize = LEAST_SAMPLES;
/// The stream of the bootstrap behind the intervals.
const SEED: u64 = 1;

/// Why gates cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// What a `[[parity]]` gate names is not what `glmbench parity --json` prints.
    #[error("{}: {message}; expected what `glmbench parity --json` prints", path.display())]
    Parity {
        /// The file.
        path: PathBuf,
        /// What was found.
        message: String,
    },
}

/// A run to judge, with its comparison where it has one.
struct Candidate<'a> {
    letter: char,
    summary: &'a Summary,
    requests: &'a [RequestRecord],
    against: Option<(&'a Comparison, &'a Pair)>,
}

/// Judges every run but the base; limits that need no base hold for each of them.
pub fn judge(gates: &Gates, comparison: &Comparison) -> Result<Vec<Judgement>, GateError> {
    let mut judgements = Vec::new();
    for pair in &comparison.pairs {
        let side = comparison.other(pair);
        let candidate = Candidate {
            letter: side.letter,
            summary: &side.summary,
            requests: &side.requests,
            against: Some((comparison, pair)),
        };
        judgements.extend(judge_candidate(gates, &candidate));
    }
    judgements.extend(parity::judge(gates)?);
    Ok(judgements)
}

/// Judges one run by the limits that need no other; the rest are left out.
pub fn judge_run(
    gates: &Gates,
    summary: &Summary,
    requests: &[RequestRecord],
) -> Result<Vec<Judgement>, GateError> {
    let candidate = Candidate { letter: 'A', summary, requests, against: None };
    let mut judgements = judge_candidate(gates, &candidate);
    judgements.extend(parity::judge(gates)?);
    Ok(judgements)
}

/// Limits of the file that only a comparison can judge.
pub fn relative_limits(gates: &Gates) -> usize {
    let accuracy = gates.accuracy.iter().filter(|gate| gate.max_drop.is_some()).count();
    let speed =
        gates.speed.iter().flat_map(|gate| [gate.max_ratio, gate.max_throughput_drop]).flatten().count();
    accuracy + speed + gates.memory.iter().filter(|gate| gate.max_ratio.is_some()).count()
}

/// Whether the gates as a whole let the run through.
pub fn passes(gates: &Gates, judgements: &[Judgement]) -> bool {
    judgements.iter().all(|judgement| match judgement.outcome {
        GateOutcome::Pass => true,
        GateOutcome::Fail => false,
        GateOutcome::Undecided => !gates.undecided_fails,
    })
}

fn judge_candidate(gates: &Gates, candidate: &Candidate<'_>) -> Vec<Judgement> {
    let accuracy = gates.accuracy.iter().flat_map(|gate| judge_accuracy(gate, candidate));
    let speed = gates.speed.iter().flat_map(|gate| judge_speed(gate, candidate));
    let memory = gates.memory.iter().flat_map(|gate| memory::judge(gate, candidate));
    accuracy.chain(speed).chain(memory).collect()
}

impl Candidate<'_> {
    fn judgement(&self, gate: String, limit: String, (outcome, found): (GateOutcome, String)) -> Judgement {
        Judgement { gate, run: self.letter.to_string(), limit, found, outcome }
    }

    /// Nothing that the gate is about is there: a failure that says what is.
    fn missing(&self, gate: String, limit: String, found: &str) -> Judgement {
        self.judgement(gate, limit, (GateOutcome::Fail, found.to_owned()))
    }

    /// Why there is no such task.
    fn no_task(&self, wanted: Option<&String>) -> String {
        let plan = &self.summary.run.plan.accuracy;
        let has: Vec<&str> = plan.iter().map(|case| case.task.as_str()).collect();
        match wanted {
            _ if has.is_empty() => "the run has no accuracy task; leave this gate out of its file".to_owned(),
            Some(wanted) if !has.contains(&wanted.as_str()) => {
                format!("the run has no task {wanted}, but {}", has.join(", "))
            }
            _ => "no item has an answer".to_owned(),
        }
    }

    /// Why there is no such timed case.
    fn no_case(&self, pattern: Option<&String>) -> String {
        let plan = &self.summary.run.plan.performance;
        match (plan.first(), pattern) {
            (None, _) => "the run has no timed case; leave this gate out of its file".to_owned(),
            (Some(first), Some(pattern)) => {
                format!(
                    "no case of the run matches {pattern}; there are {}, such as {}",
                    plan.len(),
                    first.case_id
                )
            }
            (Some(_), None) => "no case of the run was timed".to_owned(),
        }
    }
}

/// Within when the whole interval is at most the limit.
fn at_most((low, high): (f64, f64), limit: f64) -> GateOutcome {
    if high <= limit {
        GateOutcome::Pass
    } else if low > limit {
        GateOutcome::Fail
    } else {
        GateOutcome::Undecided
    }
}

fn at_least((low, high): (f64, f64), limit: f64) -> GateOutcome {
    at_most((-high, -low), -limit)
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

fn judge_accuracy(gate: &AccuracyGate, candidate: &Candidate<'_>) -> Vec<Judgement> {
    let asked = |task: &str| gate.task.as_deref().is_none_or(|wanted| wanted == task);
    let wholes: Vec<&AccuracyRow> = candidate
        .summary
        .accuracy
        .iter()
        .filter(|row| row.subject == "all" && row.category == "all" && asked(&row.task))
        .collect();
    let named = |kind: &str, task: &str| format!("{kind} of {task}");
    let task = gate.task.as_deref().unwrap_or("every task");
    let no_task = candidate.no_task(gate.task.as_ref());
    let mut judgements = Vec::new();
    if let Some(min) = gate.min {
        let limit = format!("at least {}", percent(min));
        judgements.extend(wholes.iter().map(|row| {
            candidate.judgement(named("accuracy", &row.task), limit.clone(), least_accuracy(row, min))
        }));
        if wholes.is_empty() {
            judgements.push(candidate.missing(named("accuracy", task), limit, &no_task));
        }
    }
    if let Some(most) = gate.max_failed {
        let limit = format!("at most {}", percent(most));
        judgements.extend(wholes.iter().map(|row| {
            let share = row.failed as f64 / row.n.max(1) as f64;
            let found = format!("{} of {} ({})", row.failed, row.n, percent(share));
            let outcome = if share <= most { GateOutcome::Pass } else { GateOutcome::Fail };
            candidate.judgement(named("failed items", &row.task), limit.clone(), (outcome, found))
        }));
        if wholes.is_empty() {
            judgements.push(candidate.missing(named("failed items", task), limit, &no_task));
        }
    }
    if let (Some(drop), Some((_, pair))) = (gate.max_drop, candidate.against) {
        let limit = format!("at most {} points", 100.0 * drop);
        let tasks: Vec<&TaskComparison> = pair.tasks.iter().filter(|t| asked(&t.task)).collect();
        judgements.extend(tasks.iter().map(|task| {
            candidate.judgement(named("accuracy drop", &task.task), limit.clone(), largest_drop(task, drop))
        }));
        if tasks.is_empty() {
            judgements.push(candidate.missing(named("accuracy drop", task), limit, &no_task));
        }
    }
    judgements
}

fn least_accuracy(row: &AccuracyRow, min: f64) -> (GateOutcome, String) {
    match (row.acc, row.ci95_lo.zip(row.ci95_hi)) {
        (Some(share), Some((low, high))) => {
            let found = format!("{} [{}, {}]", percent(share), percent(low), percent(high));
            (at_least((low, high), min), found)
        }
        _ => (GateOutcome::Fail, "no item has an answer".into()),
    }
}

fn largest_drop(task: &TaskComparison, drop: f64) -> (GateOutcome, String) {
    let (difference, _) = task.whole().difference;
    // Not the bootstrap's, which has no width where no item is discordant: five equal items prove nothing.
    let interval = score_interval(task.whole().counts, 0.95);
    let points = |share: f64| format!("{:+.2}", 100.0 * share);
    match interval {
        Some((low, high)) => {
            let alike = if task.is_identical() { ", every answer identical" } else { "" };
            let found = format!("{} points [{}, {}]{alike}", points(difference), points(low), points(high));
            (at_least((low, high), -drop), found)
        }
        None => {
            (GateOutcome::Undecided, format!("{} points, too few items for an interval", points(difference)))
        }
    }
}

/// `*` stands for anything, or nothing.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    let mut rest = rest;
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn asked_for(pattern: Option<&String>, case: &str) -> bool {
    pattern.is_none_or(|pattern| matches(pattern, case))
}

impl From<GateMetric> for Metric {
    fn from(metric: GateMetric) -> Self {
        match metric {
            GateMetric::Ttft => Self::Ttft,
            GateMetric::Tpot => Self::Tpot,
            GateMetric::Prefill => Self::Phase(Phase::Prefill),
            GateMetric::Decode => Self::Phase(Phase::Decode),
            GateMetric::E2e => Self::Phase(Phase::E2e),
        }
    }
}

fn judge_speed(gate: &SpeedGate, candidate: &Candidate<'_>) -> Vec<Judgement> {
    let clock = if gate.modelled { Clock::Modelled } else { Clock::Measured };
    let run = &candidate.summary.run;
    let of_clock = run.provenance.clock == clock;
    let cases: Vec<&PerformanceCase> = run
        .plan
        .performance
        .iter()
        .filter(|c| of_clock && asked_for(gate.case.as_ref(), &c.case_id))
        .collect();
    let other_clock = format!(
        "the run's times are {}, this limit is for {clock} ones (clock = \"{clock}\")",
        run.provenance.clock
    );
    let metric = gate.metric.as_str();
    let modelled = if gate.modelled { ", modelled" } else { "" };
    let named = |kind: &str, case: &str| format!("{metric} {kind} of {case}{modelled}");
    let pattern = gate.case.as_deref().unwrap_or("every case");
    type Judge<'a> = Box<dyn Fn(&PerformanceCase) -> (GateOutcome, String) + 'a>;
    let mut limits: Vec<(&str, String, Judge<'_>)> = Vec::new();
    if let Some(max) = gate.max_ns {
        let judge =
            move |case: &PerformanceCase| absolute(candidate, case, gate.metric, |ends| at_most(ends, max));
        limits.push(("time", format!("at most {} ms", max / 1e6), Box::new(judge)));
    }
    if let Some(min) = gate.min_tokens_per_s {
        let judge = move |case: &PerformanceCase| throughput(candidate, case, gate.metric, min);
        limits.push(("throughput", format!("at least {min} tokens/s"), Box::new(judge)));
    }
    if candidate.against.is_some() {
        if let Some(max) = gate.max_ratio {
            let judge = move |case: &PerformanceCase| ratio(candidate, case, gate.metric, max);
            limits.push(("time ratio", format!("at most {max}"), Box::new(judge)));
        }
        if let Some(drop) = gate.max_throughput_drop {
            // The tokens are the same, so a rate of 1 − d is a time of 1 / (1 − d).
            let judge = move |case: &PerformanceCase| ratio(candidate, case, gate.metric, 1.0 / (1.0 - drop));
            limits.push(("throughput drop", format!("at most {}", percent(drop)), Box::new(judge)));
        }
    }
    let mut judgements = Vec::new();
    for (kind, limit, judge) in limits {
        if cases.is_empty() {
            let why = if of_clock { candidate.no_case(gate.case.as_ref()) } else { other_clock.clone() };
            judgements.push(candidate.missing(named(kind, pattern), limit.clone(), &why));
        }
        judgements.extend(
            cases
                .iter()
                .map(|case| candidate.judgement(named(kind, &case.case_id), limit.clone(), judge(case))),
        );
    }
    judgements
}

/// The median's interval of a metric, or why it decides nothing.
fn interval_of(
    candidate: &Candidate<'_>,
    case: &PerformanceCase,
    metric: GateMetric,
) -> Result<(f64, (f64, f64)), (GateOutcome, String)> {
    if let Some(row) = candidate.summary.performance.iter().find(|row| row.case_id == case.case_id)
        && row.valid == Some(false)
    {
        return Err((GateOutcome::Undecided, invalid(row)));
    }
    let samples: Vec<f64> = good_repetitions(case, candidate.requests)
        .into_iter()
        .filter_map(|request| Metric::from(metric).of(request))
        .collect();
    let Some(centre) = median(&samples) else {
        return Err((GateOutcome::Fail, "no such time in the run".into()));
    };
    if candidate.summary.run.provenance.clock == Clock::Modelled {
        return Ok((centre, (centre, centre)));
    }
    if samples.len() < LEAST_REPETITIONS {
        let found = format!(
            "{:.3} ms of {} repetitions; {LEAST_REPETITIONS} or more decide",
            centre / 1e6,
            samples.len()
        );
        return Err((GateOutcome::Undecided, found));
    }
    let interval = median_interval(&samples, 0.95, RESAMPLES, SEED);
    interval.map(|ends| (centre, ends)).ok_or((GateOutcome::Undecided, "no interval".into()))
}

fn invalid(row: &PerfRow) -> String {
    format!("invalid: {}", row.invalid_reason.as_deref().unwrap_or("no reason recorded"))
}

fn absolute(
    candidate: &Candidate<'_>,
    case: &PerformanceCase,
    metric: GateMetric,
    decide: impl Fn((f64, f64)) -> GateOutcome,
) -> (GateOutcome, String) {
    match interval_of(candidate, case, metric) {
        Err(undecided) => undecided,
        Ok((centre, ends)) => {
            let ms = |ns: f64| format!("{:.3}", ns / 1e6);
            (decide(ends), format!("{} ms [{}, {}]", ms(centre), ms(ends.0), ms(ends.1)))
        }
    }
}

fn throughput(
    candidate: &Candidate<'_>,
    case: &PerformanceCase,
    metric: GateMetric,
    min: f64,
) -> (GateOutcome, String) {
    let Metric::Phase(phase) = Metric::from(metric) else {
        return (GateOutcome::Fail, "a time per token has no throughput".into());
    };
    let tokens = crate::report::performance::phase_tokens(case, phase) as f64;
    match interval_of(candidate, case, metric) {
        Err(undecided) => undecided,
        Ok((centre, (low, high))) => {
            let rate = |ns: f64| tokens * 1e9 / ns;
            let found = format!("{:.1} tokens/s [{:.1}, {:.1}]", rate(centre), rate(high), rate(low));
            (at_least((rate(high), rate(low)), min), found)
        }
    }
}

fn ratio(
    candidate: &Candidate<'_>,
    case: &PerformanceCase,
    metric: GateMetric,
    max: f64,
) -> (GateOutcome, String) {
    let Some((comparison, pair)) = candidate.against else {
        return (GateOutcome::Undecided, "no base run".into());
    };
    let Some(joined) = pair.cases.iter().find(|joined| joined.b.case_id == case.case_id) else {
        return (GateOutcome::Fail, "the base run has no such case".into());
    };
    let spoilt = joined
        .phases
        .iter()
        .find(|p| matches!(p.verdict, SpeedVerdict::NotComparable | SpeedVerdict::Invalid));
    if let Some(phase) = spoilt {
        return (GateOutcome::Undecided, phase.verdict.to_string());
    }
    let (base, other) = (comparison.base(), comparison.other(pair));
    let (good_a, good_b) =
        (good_repetitions(&joined.a, &base.requests), good_repetitions(&joined.b, &other.requests));
    let metric = Metric::from(metric);
    let (found, _) = metric_ratio(metric, &good_a, &good_b, comparison.interleaved(pair));
    let few = good_a.len().min(good_b.len()) < LEAST_REPETITIONS;
    if base.is_modelled() {
        let centre = |good: &[&RequestRecord]| {
            median(&good.iter().filter_map(|request| metric.of(request)).collect::<Vec<_>>())
        };
        return match (centre(&good_a), centre(&good_b)) {
            (Some(a), Some(b)) if a > 0.0 => {
                (at_most((b / a, b / a), max), format!("{:.3}, modelled", b / a))
            }
            _ => (GateOutcome::Fail, "no such time in a run".into()),
        };
    }
    match found {
        None => (GateOutcome::Undecided, "too few repetitions for an interval".into()),
        Some(_) if few => {
            (GateOutcome::Undecided, format!("fewer than the {LEAST_REPETITIONS} repetitions that decide"))
        }
        Some(found) => {
            let (low, high) = found.interval;
            (at_most(found.interval, max), format!("{:.3} [{low:.3}, {high:.3}]", found.ratio))
        }
    }
}

#[cfg(test)]
mod tests;
