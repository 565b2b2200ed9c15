//! Speed gates. A limit on a time or a rate uses the interval of the median. A limit on a ratio to the base run uses
//! the same evidence as verdicts on speed.
//!
//! Modelled times have no noise, so they pass or fail. The text of what was found has the model's error, and says if
//! the limit is within it. Then the gate decides between two states of the program, but says nothing of a card.

use super::{Answer, Candidate, asked_for, at_least, at_most, percent};
use crate::language::{Text, ToText, joined, text};
use crate::record::{Clock, PerfRow, PerformanceCase, Phase, RequestRecord, RunRecord};
use crate::report::compare::{
    Basis, Evidence, GateOutcome, Judgement, Metric, SpeedVerdict, command, same_command,
};
use crate::report::modelled::{self, Known, RatioError, Stated};
use crate::report::performance::good_repetitions;
use crate::stats::{Interval, RESAMPLES, median, median_interval};
use crate::suite::gates::{GateMetric, SpeedGate};

/// Fewest repetitions with which a time decides anything.
const LEAST_REPETITIONS: usize = 5;
/// Seed of the bootstrap behind the intervals.
const SEED: u64 = 1;
/// Probability of a wrong failure, shared by all phases of a comparison.
const ALPHA: f64 = 0.05;

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

/// Returns a judgement for each matching case and limit.
pub(super) fn judge(gate: &SpeedGate, candidate: &Candidate<'_>) -> Vec<Judgement> {
    let clock = if gate.modelled { Clock::Modelled } else { Clock::Measured };
    let run = &candidate.summary.run;
    let of_clock = run.provenance.clock == clock;
    let cases: Vec<&PerformanceCase> = run
        .plan
        .performance
        .iter()
        .filter(|c| of_clock && asked_for(gate.case.as_ref(), &c.case_id))
        .collect();
    let other_clock = text!(
        "the run's times are {found}, but this limit is for {wanted} times (clock = \"{word}\")",
        found = run.provenance.clock,
        wanted = clock,
        word = clock.to_string()
    );
    let metric = gate.metric.as_str();
    let modelled = if gate.modelled { text!(", modelled") } else { Text::EMPTY };
    let named =
        |kind: &Text, case: &Text| text!("{metric} {kind} of {case}{modelled}", metric, kind, case, modelled);
    let pattern = gate.case.as_ref().map_or_else(|| text!("every case"), Text::from);
    type Judge<'a> = Box<dyn Fn(&PerformanceCase) -> Answer + 'a>;
    let mut limits: Vec<(Text, Text, Judge<'_>)> = Vec::new();
    let more = || text!("more repetitions: {command}", command = same_command(&candidate.summary.run, &[]));
    if let Some(max) = gate.max_ns {
        let judge = move |case: &PerformanceCase| {
            absolute(candidate, case, gate.metric, |ends| at_most(ends, max)).or_else(more)
        };
        limits.push((text!("time"), text!("at most {ms} ms", ms = max / 1e6), Box::new(judge)));
    }
    if let Some(min) = gate.min_tokens_per_s {
        let judge = move |case: &PerformanceCase| throughput(candidate, case, gate.metric, min).or_else(more);
        limits.push((text!("throughput"), text!("at least {min} tokens/s", min), Box::new(judge)));
    }
    if candidate.against.is_some() {
        if let Some(max) = gate.max_ratio {
            let limit = RatioLimit { max, unit: Unit::Ratio };
            let judge = move |case: &PerformanceCase| ratio(candidate, case, gate, limit);
            limits.push((text!("time ratio"), text!("at most {limit}", limit = max), Box::new(judge)));
        }
        if let Some(drop) = gate.max_throughput_drop {
            // The token count is fixed, so a rate of 1 − d is a time of 1 / (1 − d).
            let limit = RatioLimit { max: 1.0 / (1.0 - drop), unit: Unit::Drop };
            let judge = move |case: &PerformanceCase| ratio(candidate, case, gate, limit);
            limits.push((
                text!("throughput drop"),
                text!("at most {limit}", limit = percent(drop)),
                Box::new(judge),
            ));
        }
    }
    let of_the_base: Vec<String> = candidate.cases_of_the_base();
    let of_the_base = || of_the_base.iter().filter(|id| of_clock && asked_for(gate.case.as_ref(), id));
    let mut judgements = Vec::new();
    for (kind, limit, judge) in limits {
        if cases.is_empty() {
            let why = if of_clock { candidate.no_case(gate.case.as_ref()) } else { other_clock.clone() };
            judgements.push(candidate.missing(named(&kind, &pattern), limit.clone(), &why));
        }
        judgements.extend(cases.iter().map(|case| {
            candidate.judgement(named(&kind, &Text::from(&case.case_id)), limit.clone(), judge(case))
        }));
        let lacking = text!("run {letter} has no such case", letter = candidate.letter);
        judgements.extend(
            of_the_base().map(|id| candidate.missing(named(&kind, &id.into()), limit.clone(), &lacking)),
        );
    }
    judgements
}

/// A median with its interval.
struct Estimate {
    median: f64,
    /// Both ends.
    interval: Interval,
    /// Error of a modelled time.
    error: Option<Known>,
}

/// Said of a limit within the error of a modelled figure.
const WITHIN: Text = text!("; the limit is within this error");

impl Estimate {
    /// Returns the same figure as a rate of a number of tokens per second.
    fn rate(self, tokens: f64) -> Self {
        let rate = |ns: f64| tokens * 1e9 / ns;
        Self { median: rate(self.median), interval: self.interval.map_decreasing(rate), ..self }
    }

    /// Judges the interval. `shown` formats a figure, and `unit` follows it.
    fn answer(
        self,
        shown: impl Fn(f64) -> String,
        unit: &str,
        decide: impl Fn(Interval) -> GateOutcome,
    ) -> Answer {
        let Self { median, interval, error } = self;
        let found = format!("{} {unit}", shown(median));
        let found = match &error {
            None => format!("{found} [{}, {}]", shown(interval.low), shown(interval.high)).into(),
            Some(known) => {
                let within = |of: &Stated| {
                    let (low, high) = of.ends(median).into_inner();
                    decide(Interval { low, high }) == GateOutcome::Undecided
                };
                let is_within = known.as_ref().is_ok_and(within);
                Text::from(found)
                    + modelled::marked(Some(known))
                    + if is_within { WITHIN } else { Text::EMPTY }
            }
        };
        Answer::of(decide(interval), found)
    }
}

/// Returns the median of a metric with its interval, or the answer if there is none.
fn interval_of(
    candidate: &Candidate<'_>,
    case: &PerformanceCase,
    metric: GateMetric,
) -> Result<Estimate, Answer> {
    if let Some(row) = candidate.summary.performance.iter().find(|row| row.case_id == case.case_id)
        && row.valid == Some(false)
    {
        return Err(Answer::of(GateOutcome::Undecided, invalid(row)));
    }
    let samples: Vec<f64> = good_repetitions(case, candidate.requests)
        .into_iter()
        .filter_map(|request| Metric::from(metric).of(request))
        .collect();
    let Some(centre) = median(&samples) else {
        return Err(Answer::of(GateOutcome::Fail, text!("no such time in the run")));
    };
    let error = error_of(&candidate.summary.run, case, metric);
    if candidate.summary.run.provenance.clock == Clock::Modelled {
        return Ok(Estimate { median: centre, interval: Interval::point(centre), error });
    }
    if samples.len() < LEAST_REPETITIONS {
        let found = text!(
            "{median} ms of {repetitions} repetitions; a decision needs {fewest}",
            median = format!("{:.3}", centre / 1e6),
            repetitions = samples.len(),
            fewest = LEAST_REPETITIONS
        );
        return Err(Answer::of(GateOutcome::Undecided, found));
    }
    let interval = median_interval(&samples, 0.95, RESAMPLES, SEED);
    let none = || Answer::of(GateOutcome::Undecided, text!("no interval"));
    interval.map(|interval| Estimate { median: centre, interval, error }).ok_or_else(none)
}

/// Returns the error of a metric of a case. `None` with a measured clock.
fn error_of(run: &RunRecord, case: &PerformanceCase, metric: GateMetric) -> Option<Known> {
    let lengths = [case.batch, case.input_tokens, case.output_tokens];
    let unnamed = || Err("error unknown: the record names no profile");
    modelled::error_at(run, Metric::from(metric).phase(), case.tp, lengths)
        .or_else(|| (run.provenance.clock == Clock::Modelled).then(unnamed))
}

fn invalid(row: &PerfRow) -> Text {
    text!(
        "invalid: {reason}",
        reason = row.invalid_reason.clone().unwrap_or_else(|| text!("no reason recorded"))
    )
}

fn absolute(
    candidate: &Candidate<'_>,
    case: &PerformanceCase,
    metric: GateMetric,
    decide: impl Fn(Interval) -> GateOutcome,
) -> Answer {
    match interval_of(candidate, case, metric) {
        Err(answer) => answer,
        Ok(time) => time.answer(|ns| format!("{:.3}", ns / 1e6), "ms", decide),
    }
}

fn throughput(candidate: &Candidate<'_>, case: &PerformanceCase, metric: GateMetric, min: f64) -> Answer {
    let Metric::Phase(phase) = Metric::from(metric) else {
        return Answer::of(GateOutcome::Fail, text!("a time per token has no throughput"));
    };
    let tokens = crate::report::performance::phase_tokens(case, phase) as f64;
    match interval_of(candidate, case, metric) {
        Err(answer) => answer,
        Ok(time) => {
            let decide = |ends| at_least(ends, min);
            time.rate(tokens).answer(|rate| format!("{rate:.1}"), "tokens/s", decide)
        }
    }
}

/// The largest ratio of times that passes.
#[derive(Clone, Copy)]
struct RatioLimit {
    /// The ratio.
    max: f64,
    /// How the ratio is shown.
    unit: Unit,
}

/// Unit in which a ratio of times is shown.
#[derive(Clone, Copy)]
enum Unit {
    /// The ratio itself.
    Ratio,
    /// Share of the rate that is lost. Negative if the rate rose.
    Drop,
}

impl Unit {
    fn of(self, ratio: f64) -> String {
        match self {
            Self::Ratio => format!("{ratio:.3}"),
            Self::Drop => percent(1.0 - 1.0 / ratio),
        }
    }

    fn with_interval(self, ratio: f64, interval: Interval) -> String {
        format!("{} [{}, {}]", self.of(ratio), self.of(interval.low), self.of(interval.high))
    }
}

fn ratio(candidate: &Candidate<'_>, case: &PerformanceCase, gate: &SpeedGate, limit: RatioLimit) -> Answer {
    let Some((comparison, pair)) = candidate.against else {
        return Answer::of(GateOutcome::Undecided, text!("no base run"));
    };
    let Some(joined) = pair.cases.iter().find(|joined| joined.b.case_id == case.case_id) else {
        return Answer::of(GateOutcome::Fail, text!("the base run has no such case"));
    };
    let spoilt = joined
        .phases
        .iter()
        .find(|p| matches!(p.verdict, SpeedVerdict::NotComparable | SpeedVerdict::Invalid));
    if let Some(phase) = spoilt {
        return Answer::of(GateOutcome::Undecided, phase.verdict.to_text());
    }
    let metric = Metric::from(gate.metric);
    if comparison.base().is_modelled() {
        let centre = |good: &[&RequestRecord]| {
            median(&good.iter().filter_map(|request| metric.of(request)).collect::<Vec<_>>())
        };
        let (base, other) = (comparison.base(), comparison.other(pair));
        let times = (
            centre(&good_repetitions(&joined.a, &base.requests)),
            centre(&good_repetitions(&joined.b, &other.requests)),
        );
        let (Some(a), Some(b)) = times else {
            return Answer::of(GateOutcome::Fail, text!("no such time in a run"));
        };
        let errors = [(base.run(), &joined.a), (other.run(), &joined.b)]
            .map(|(run, case)| error_of(run, case, gate.metric).and_then(Result::ok));
        let profiles = [base, other].map(|side| side.run().provenance.clock_profile.as_deref());
        let is_one_profile = profiles[0] == profiles[1];
        return modelled_ratio(b / a, limit, &errors, is_one_profile);
    }
    let phases = comparison.phases();
    match comparison.joined(pair, joined).evidence(metric, &comparison.options, phases) {
        None => Answer::of(GateOutcome::Fail, text!("no such time in a run")),
        Some(evidence) => {
            measured_ratio(&evidence, gate, limit, phases).or_else(|| command(comparison, pair))
        }
    }
}

/// Judges a ratio of modelled times by the ratio itself. Times by one profile share their error, so the ratio has none that is known.
fn modelled_ratio(
    ratio: f64,
    RatioLimit { max, unit }: RatioLimit,
    errors: &[Option<Stated>; 2],
    is_one_profile: bool,
) -> Answer {
    let outcome = at_most(Interval::point(ratio), max);
    let words = match errors {
        [Some(a), Some(_)] if is_one_profile => text!("; both times {a}, by one profile", a = a.short()),
        [Some(a), Some(b)] => {
            let error = RatioError::of(a, b);
            let is_within = at_most(error.ends(ratio), max) == GateOutcome::Undecided;
            Text::from(format!(" {}", error.short())) + if is_within { WITHIN } else { Text::EMPTY }
        }
        _ => text!(", error unknown"),
    };
    Answer::of(outcome, text!("{ratio}, modelled{words}", ratio = unit.of(ratio), words))
}

/// Passes if the whole 95 % interval is within the limit. Fails if the whole interval is past it, at a level that all
/// phases of the comparison share.
fn measured_ratio(evidence: &Evidence, gate: &SpeedGate, limit: RatioLimit, phases: usize) -> Answer {
    let RatioLimit { max, unit } = limit;
    let ratio = evidence.ratio;
    if evidence.basis == Basis::Unlike {
        let why = evidence.note.clone().unwrap_or_else(|| text!("timed on unlike machines"));
        return Answer::of(GateOutcome::Undecided, text!("{ratio}, {why}", ratio = unit.of(ratio), why));
    }
    if evidence.basis == Basis::Apart {
        let outcome =
            if gate.untimed_by_ratio { at_most(Interval::point(ratio), max) } else { GateOutcome::Undecided };
        let alone = if gate.untimed_by_ratio { text!(", by the ratio alone") } else { Text::EMPTY };
        return Answer::of(
            outcome,
            text!("{ratio}, not timed in turn{alone}", ratio = unit.of(ratio), alone),
        );
    }
    if !evidence.unstable.is_empty() {
        let why = joined(&evidence.unstable, "; ");
        return Answer::of(
            GateOutcome::Undecided,
            text!("{ratio}, unstable: {why}", ratio = unit.of(ratio), why),
        );
    }
    let Some(interval) = evidence.interval() else {
        let few = match evidence.basis {
            Basis::Blocks(n) => text!("{n} blocks are too few", n),
            Basis::Runs(a, b) => text!("{a} and {b} runs are too few", a, b),
            Basis::Floor(_) | Basis::Apart | Basis::Unlike => text!("too few repetitions"),
        };
        return Answer::of(
            GateOutcome::Undecided,
            text!("{ratio}; {few} for an interval", ratio = unit.of(ratio), few),
        );
    };
    let outcome = match at_most(interval, max) {
        GateOutcome::Fail if evidence.p(max).is_some_and(|p| p * phases as f64 >= ALPHA) => {
            GateOutcome::Undecided
        }
        outcome => outcome,
    };
    Answer::of(outcome, unit.with_interval(ratio, interval))
}
