//! Gates: whether a run keeps its limits, decided on confidence intervals, not on point estimates.
//!
//! A gate passes if the whole 95 % interval is within its limit, and fails if the whole interval is past it.
//! Otherwise, or with too little data for an interval, it is undecided. An undecided gate names the command that
//! decides it.
//!
//! A limit on a ratio of times uses the same evidence as verdicts on speed. Two runs that were not timed in turn
//! decide nothing, unless a noise floor is known or the gate asks for the ratio alone.
//!
//! Values without noise (failed items, memory, modelled times, parity) have no interval. They pass or fail, or are
//! undecided if the records cannot tell. A gate that matches nothing fails. A gate about every task or case fails if
//! one of the two runs lacks one. Otherwise a typo in a name could pass for years.

pub mod junit;
mod memory;
mod parity;
mod speed;

use crate::language::{Text, joined, text, texts};
use crate::record::{AccuracyRow, RequestRecord};
use crate::report::Summary;
use crate::report::compare::{Comparison, GateOutcome, Judgement, Pair, TaskComparison, same_command};
use crate::stats::{Interval, score_interval};
use crate::suite::gates::{AccuracyGate, Gates, Undecided};
use std::path::PathBuf;

/// Why gates cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The file of a `[[parity]]` gate is not the output of `glmbench parity --json`.
    #[error("{}: {message}; expected what `glmbench parity --json` prints", path.display())]
    Parity {
        /// The file.
        path: PathBuf,
        /// What was found.
        message: String,
    },
    /// No gate of the file can be judged. A file that decides nothing must not pass.
    #[error("{}: none of its gates can be judged here{}", path.display(), if *relative > 0 {
        format!("; limits against another run: {relative}. `glmbench compare` judges them")
    } else {
        String::new()
    })]
    Nothing {
        /// The file.
        path: PathBuf,
        /// Number of its limits that only a comparison can judge.
        relative: usize,
    },
}

/// A run to judge, with its comparison if there is one.
struct Candidate<'a> {
    letter: char,
    summary: &'a Summary,
    requests: &'a [RequestRecord],
    against: Option<(&'a Comparison, &'a Pair)>,
}

/// Judges every run except the base. Limits that need no base apply to each of them.
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
    some(judgements, gates)
}

/// Returns the judgements, or an error if there are none.
fn some(judgements: Vec<Judgement>, gates: &Gates) -> Result<Vec<Judgement>, GateError> {
    if judgements.is_empty() {
        return Err(GateError::Nothing { path: gates.path.clone(), relative: relative_limits(gates) });
    }
    Ok(judgements)
}

/// Judges one run by the limits that need no other run. Skips the rest.
pub fn judge_run(
    gates: &Gates,
    summary: &Summary,
    requests: &[RequestRecord],
) -> Result<Vec<Judgement>, GateError> {
    let candidate = Candidate { letter: 'A', summary, requests, against: None };
    let mut judgements = judge_candidate(gates, &candidate);
    judgements.extend(parity::judge(gates)?);
    some(judgements, gates)
}

/// Number of limits in the file that only a comparison can judge.
pub fn relative_limits(gates: &Gates) -> usize {
    let accuracy = gates.accuracy.iter().filter(|gate| gate.max_drop.is_some()).count();
    let speed =
        gates.speed.iter().flat_map(|gate| [gate.max_ratio, gate.max_throughput_drop]).flatten().count();
    accuracy + speed + gates.memory.iter().filter(|gate| gate.max_ratio.is_some()).count()
}

/// Combined outcome of the gates: fail, else undecided, else pass.
pub fn decision(gates: &Gates, judgements: &[Judgement]) -> GateOutcome {
    let counts_as = |judgement: &Judgement| match (judgement.outcome, gates.undecided) {
        (GateOutcome::Undecided, Undecided::Passes) => GateOutcome::Pass,
        (GateOutcome::Undecided, Undecided::Fails) => GateOutcome::Fail,
        (outcome, _) => outcome,
    };
    let outcomes: Vec<GateOutcome> = judgements.iter().map(counts_as).collect();
    let worst = [GateOutcome::Fail, GateOutcome::Undecided].into_iter().find(|bad| outcomes.contains(bad));
    worst.unwrap_or(GateOutcome::Pass)
}

fn judge_candidate(gates: &Gates, candidate: &Candidate<'_>) -> Vec<Judgement> {
    let accuracy = gates.accuracy.iter().flat_map(|gate| judge_accuracy(gate, candidate));
    let speed = gates.speed.iter().flat_map(|gate| speed::judge(gate, candidate));
    let memory = gates.memory.iter().flat_map(|gate| memory::judge(gate, candidate));
    accuracy.chain(speed).chain(memory).collect()
}

/// Result of one gate.
struct Answer {
    outcome: GateOutcome,
    found: Text,
    /// For an undecided gate: what decides it.
    decide: Option<Text>,
}

impl Answer {
    fn of(outcome: GateOutcome, found: impl Into<Text>) -> Self {
        Self { outcome, found: found.into(), decide: None }
    }

    /// Adds what decides the gate, if it is undecided.
    fn or_else(self, decide: impl FnOnce() -> Text) -> Self {
        let decide = (self.outcome == GateOutcome::Undecided).then(decide);
        Self { decide: self.decide.or(decide), ..self }
    }
}

impl Candidate<'_> {
    fn judgement(&self, gate: Text, limit: Text, answer: Answer) -> Judgement {
        let Answer { outcome, found, decide } = answer;
        Judgement { gate, run: self.letter.to_string(), limit, found, outcome, decide }
    }

    /// A failure because nothing matches the gate. `found` says what the run has instead.
    fn missing(&self, gate: Text, limit: Text, found: &Text) -> Judgement {
        self.judgement(gate, limit, Answer::of(GateOutcome::Fail, found.clone()))
    }

    /// Says what decides a limit on an accuracy.
    fn more_items(&self, task: &str) -> Text {
        let case = self.summary.run.plan.accuracy.iter().find(|case| case.task == task);
        let Some(all) = case.and_then(|case| case.part_of()) else {
            return text!("every item was asked; these items cannot decide a limit this close");
        };
        if let Some(first) = &self.summary.run.provenance.scored_from {
            return text!(
                "all {all} items: repeat the command of run {first}, which has the answers, with --limit {all}; then run \
                 `glmbench score`",
                all,
                first
            );
        }
        // The suite itself may set the limit.
        let command = same_command(&self.summary.run, &["--limit"]);
        text!(
            "all {all} items: {command}",
            all,
            command = format!("{} --limit {all}`", command.trim_end_matches('`'))
        )
    }

    /// Tasks that only one of the two runs has, with the letter of the run that lacks it.
    fn tasks_of_one_side(&self) -> Vec<(String, char)> {
        let Some((comparison, _)) = self.against else { return Vec::new() };
        let tasks = |summary: &Summary| -> Vec<String> {
            summary.run.plan.accuracy.iter().map(|case| case.task.clone()).collect()
        };
        let base = comparison.base();
        let (ours, theirs) = (tasks(self.summary), tasks(&base.summary));
        let lacking = |of: &[String], than: &[String], letter: char| -> Vec<(String, char)> {
            of.iter().filter(|task| !than.contains(task)).map(|task| (task.clone(), letter)).collect()
        };
        let mut alone = lacking(&theirs, &ours, self.letter);
        alone.extend(lacking(&ours, &theirs, base.letter));
        alone
    }

    /// Timed cases of the base run that are missing from the other run.
    fn cases_of_the_base(&self) -> Vec<String> {
        let Some((comparison, pair)) = self.against else { return Vec::new() };
        let own = &self.summary.run.plan.performance;
        let has = |id: &String| {
            own.iter().any(|case| case.case_id == *id)
                || pair.cases.iter().any(|joined| joined.a.case_id == *id)
        };
        let base = comparison.base().summary.run.plan.performance.iter().map(|case| case.case_id.clone());
        base.filter(|id| !has(id)).collect()
    }

    /// Says why no task matches.
    fn no_task(&self, wanted: Option<&String>) -> Text {
        let plan = &self.summary.run.plan.accuracy;
        let has: Vec<&str> = plan.iter().map(|case| case.task.as_str()).collect();
        match wanted {
            _ if has.is_empty() => text!("the run has no accuracy task; remove this gate from the file"),
            Some(wanted) if !has.contains(&wanted.as_str()) => {
                text!("the run has no task {wanted}, but {has}", wanted, has = joined(&has, ", "))
            }
            _ => text!("no item has an answer"),
        }
    }

    /// Says why no timed case matches.
    fn no_case(&self, pattern: Option<&String>) -> Text {
        let plan = &self.summary.run.plan.performance;
        match (plan.first(), pattern) {
            (None, _) => text!("the run has no timed case; remove this gate from the file"),
            (Some(first), Some(pattern)) => {
                text!(
                    "no case of the run matches {pattern}; it has {cases}, such as {first}",
                    pattern,
                    cases = plan.len(),
                    first = first.case_id
                )
            }
            (Some(_), None) => text!("no case of the run was timed"),
        }
    }
}

/// Passes if the whole interval is at most the limit.
fn at_most(interval: Interval, limit: f64) -> GateOutcome {
    if interval.high <= limit {
        GateOutcome::Pass
    } else if interval.low > limit {
        GateOutcome::Fail
    } else {
        GateOutcome::Undecided
    }
}

fn at_least(interval: Interval, limit: f64) -> GateOutcome {
    at_most(interval.map_decreasing(|x| -x), -limit)
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
    let named = |kind: &Text, task: &Text| text!("{kind} of {task}", kind, task);
    let task = gate.task.as_ref().map_or_else(|| text!("every task"), Text::from);
    let [accuracy, failed_items, accuracy_drop] = texts!["accuracy", "failed items", "accuracy drop"];
    let no_task = candidate.no_task(gate.task.as_ref());
    let mut alone = candidate.tasks_of_one_side();
    alone.retain(|(task, _)| asked(task));
    let lacking = |kind: &Text, limit: &Text, of: &dyn Fn(char) -> bool| -> Vec<Judgement> {
        let of = alone.iter().filter(|(_, letter)| of(*letter));
        let missing = |(task, letter): &(String, char)| {
            let found = text!("run {letter} has no such task", letter);
            candidate.missing(named(kind, &task.into()), limit.clone(), &found)
        };
        of.map(missing).collect()
    };
    let mut judgements = Vec::new();
    if let Some(min) = gate.min {
        let limit = text!("at least {limit}", limit = percent(min));
        judgements.extend(wholes.iter().map(|row| {
            let answer = least_accuracy(row, min).or_else(|| candidate.more_items(&row.task));
            candidate.judgement(named(&accuracy, &Text::from(&row.task)), limit.clone(), answer)
        }));
        judgements.extend(lacking(&accuracy, &limit, &|letter| letter == candidate.letter));
        if wholes.is_empty() {
            judgements.push(candidate.missing(named(&accuracy, &task), limit, &no_task));
        }
    }
    if let Some(most) = gate.max_failed {
        let limit = text!("at most {limit}", limit = percent(most));
        judgements.extend(wholes.iter().map(|row| {
            let share = row.failed as f64 / row.n.max(1) as f64;
            let found = text!(
                "{failed} of {all} ({share})",
                failed = row.failed,
                all = row.n,
                share = percent(share)
            );
            let outcome = if share <= most { GateOutcome::Pass } else { GateOutcome::Fail };
            candidate.judgement(
                named(&failed_items, &Text::from(&row.task)),
                limit.clone(),
                Answer::of(outcome, found),
            )
        }));
        judgements.extend(lacking(&failed_items, &limit, &|letter| letter == candidate.letter));
        if wholes.is_empty() {
            judgements.push(candidate.missing(named(&failed_items, &task), limit, &no_task));
        }
    }
    if let (Some(drop), Some((_, pair))) = (gate.max_drop, candidate.against) {
        let limit = text!("at most {points} points", points = 100.0 * drop);
        let tasks: Vec<&TaskComparison> = pair.tasks.iter().filter(|t| asked(&t.task)).collect();
        judgements.extend(tasks.iter().map(|task| {
            let answer = largest_drop(task, drop).or_else(|| candidate.more_items(&task.task));
            candidate.judgement(named(&accuracy_drop, &Text::from(&task.task)), limit.clone(), answer)
        }));
        let lacking = lacking(&accuracy_drop, &limit, &|_| true);
        // Tasks in both plans without any paired item.
        let planned = candidate.summary.run.plan.accuracy.iter().map(|case| &case.task);
        let unpaired = planned.filter(|task| {
            asked(task)
                && tasks.iter().all(|compared| compared.task != **task)
                && alone.iter().all(|(one, _)| one != *task)
        });
        judgements.extend(unpaired.map(|task| {
            candidate.missing(
                named(&accuracy_drop, &Text::from(task)),
                limit.clone(),
                &text!("no item has an answer in both runs"),
            )
        }));
        if tasks.is_empty() && lacking.is_empty() && judgements.is_empty() {
            judgements.push(candidate.missing(named(&accuracy_drop, &task), limit, &no_task));
        }
        judgements.extend(lacking);
    }
    judgements
}

fn least_accuracy(row: &AccuracyRow, min: f64) -> Answer {
    match (row.acc, row.interval()) {
        (Some(share), Some(interval)) => {
            let found = format!("{} [{}, {}]", percent(share), percent(interval.low), percent(interval.high));
            Answer::of(at_least(interval, min), found)
        }
        _ => Answer::of(GateOutcome::Fail, text!("no item has an answer")),
    }
}

/// Judges a drop in accuracy, shown in points lost.
fn largest_drop(task: &TaskComparison, drop: f64) -> Answer {
    let difference = task.whole().difference.value;
    // The bootstrap interval has no width without discordant items, but five equal items prove nothing.
    let interval = score_interval(task.whole().counts, 0.95);
    let lost = |gained: f64| format!("{:+.2}", 0.0 - 100.0 * gained);
    match interval {
        Some(interval) => {
            let alike = if task.is_identical() { text!(", every answer identical") } else { Text::EMPTY };
            let found = text!(
                "{lost} points lost [{low}, {high}]{alike}",
                lost = lost(difference),
                low = lost(interval.high),
                high = lost(interval.low),
                alike
            );
            Answer::of(at_least(interval, -drop), found)
        }
        None => Answer::of(
            GateOutcome::Undecided,
            text!("{lost} points lost, too few items for an interval", lost = lost(difference)),
        ),
    }
}

/// Matches a pattern in which `*` stands for any text, also none.
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

#[cfg(test)]
mod tests;
