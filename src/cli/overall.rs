//! How far a whole request is: its runs and cases, and the time left for all of them.
//!
//! The time left is the work left at the rate of the work done. Work is counted from shapes and prompts before a case runs, so a case
//! that ends early makes the estimate fall. A resumed request counts only what it does itself.

use std::time::Duration;

use super::progress::{amount, spent};
use crate::run::Ahead;

/// Minimum share of the work in a request that must be done before a time is told.
const LEAST_SHARE: f64 = 0.005;

/// A case of the request.
#[derive(Debug, Clone)]
struct Case {
    /// Number of its run among the runs of the request.
    run: usize,
    name: String,
    work: f64,
}

/// What is being done of a case.
#[derive(Debug, Clone)]
struct Phase {
    label: String,
    unit: &'static str,
    total: u64,
    done: u64,
}

/// The state of a request.
#[derive(Debug, Clone, Default)]
pub(super) struct Overall {
    cases: Vec<Case>,
    runs: usize,
    /// Number of runs begun.
    begun: usize,
    /// Place of the case that runs.
    now: Option<usize>,
    /// Work done here in the cases before that one.
    before: f64,
    /// Share of the case that was there when it was begun, and now.
    found: Option<f64>,
    share: f64,
    phase: Option<Phase>,
}

impl Overall {
    /// A request of these runs. Runs without cases are finished already.
    pub(super) fn new(runs: &[Vec<Ahead>]) -> Self {
        let runs: Vec<&Vec<Ahead>> = runs.iter().filter(|cases| !cases.is_empty()).collect();
        let of_run = |(run, cases): (usize, &&Vec<Ahead>)| {
            let case = |case: &Ahead| Case { run, name: case.case.clone(), work: case.work };
            cases.iter().map(case).collect::<Vec<_>>()
        };
        Self {
            cases: runs.iter().enumerate().flat_map(of_run).collect(),
            runs: runs.len(),
            ..Self::default()
        }
    }

    /// The next run begins.
    pub(super) fn run(&mut self) {
        self.begun += 1;
    }

    /// A case begins, or goes on after an interruption of its own.
    pub(super) fn case(&mut self, name: &str) {
        let run = self.begun.saturating_sub(1);
        let place = self.cases.iter().position(|case| case.run == run && case.name == name);
        if place.is_none() || place == self.now {
            return;
        }
        if let (Some(now), Some(found)) = (self.now, self.found) {
            // The case before has ended.
            self.before += (1.0 - found) * self.cases[now].work;
        }
        (self.now, self.found, self.share) = (place, None, 0.0);
    }

    /// A phase of the case begins. Its share counts if it is the case's own, not its warm-up.
    pub(super) fn begin(&mut self, label: &str, unit: &'static str, total: u64, done: u64) {
        self.phase = Some(Phase { label: label.to_owned(), unit, total, done });
        let share = self.share_of_phase();
        self.found = self.found.or(Some(share));
        self.share = share;
    }

    /// Another unit is done.
    pub(super) fn advance(&mut self) {
        if let Some(phase) = &mut self.phase {
            phase.done += 1;
        }
        self.share = self.share_of_phase();
    }

    /// The phase ends.
    pub(super) fn end(&mut self) {
        self.phase = None;
    }

    fn share_of_phase(&self) -> f64 {
        let own = self.now.map(|now| self.cases[now].name.as_str());
        let of_case =
            self.phase.as_ref().filter(|phase| Some(phase.label.as_str()) == own && phase.total > 0);
        of_case.map_or(0.0, |phase| (phase.done as f64 / phase.total as f64).min(1.0))
    }

    /// Returns the share of the whole request that is done, by work.
    pub(super) fn share(&self) -> f64 {
        let all: f64 = self.cases.iter().map(|case| case.work).sum();
        let (Some(now), true) = (self.now, all > 0.0) else { return 0.0 };
        let before: f64 = self.cases[..now].iter().map(|case| case.work).sum();
        (before + self.share * self.cases[now].work) / all
    }

    /// Returns the time left, after `elapsed` since the first case began. `None` before there is enough to go by.
    pub(super) fn left(&self, elapsed: Duration) -> Option<Duration> {
        let now = self.now?;
        let here = (self.share - self.found.unwrap_or(0.0)).max(0.0) * self.cases[now].work;
        let done = self.before + here;
        let rest = (1.0 - self.share) * self.cases[now].work
            + self.cases[now + 1..].iter().map(|case| case.work).sum::<f64>();
        if done < LEAST_SHARE * (done + rest) {
            return None;
        }
        Duration::try_from_secs_f64(elapsed.as_secs_f64() * rest / done).ok()
    }

    /// `run 1 of 2, case 3 of 9, ceval: 120 of 1346 items`. `None` between phases.
    pub(super) fn words(&self) -> Option<String> {
        let phase = self.phase.as_ref()?;
        let run = if self.runs > 1 {
            format!("run {} of {}, ", self.begun.max(1), self.runs)
        } else {
            String::new()
        };
        let case = self.now.map(|now| format!("case {} of {}, ", now + 1, self.cases.len()));
        let of =
            if phase.total > 0 { format!(" of {}", amount(phase.total, phase.unit)) } else { String::new() };
        let done = amount(phase.done, phase.unit);
        Some(format!("{run}{}{}: {done}{of} {}", case.unwrap_or_default(), phase.label, phase.unit))
    }

    /// A line of a log. `None` between phases.
    pub(super) fn line(&self, elapsed: Duration) -> Option<String> {
        let words = self.words()?;
        let left = self.left(elapsed).map(|left| format!("; about {} left for all", spent(left)));
        let share = (100.0 * self.share()).floor();
        Some(format!("glmbench: {words}; {share} % of all, {}{}", spent(elapsed), left.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ahead(cases: &[(&str, f64)]) -> Vec<Ahead> {
        cases.iter().map(|(case, work)| Ahead { case: (*case).to_owned(), work: *work }).collect()
    }

    fn line(of: &Overall, seconds: u64) -> String {
        of.line(Duration::from_secs(seconds)).unwrap()
    }

    #[test]
    fn a_line_says_how_far_all_of_it_is() {
        let mut of = Overall::new(&[ahead(&[("ceval", 30.0), ("b1", 10.0), ("b8", 60.0)])]);
        of.run();
        assert_eq!(of.line(Duration::ZERO), None);
        of.case("ceval");
        of.begin("ceval", "items", 100, 0);
        assert_eq!(line(&of, 0), "glmbench: case 1 of 3, ceval: 0 of 100 items; 0 % of all, 0 s");
        (0..50).for_each(|_| of.advance());
        // 15 of 100 parts of the work in 30 s leave 85 parts.
        assert_eq!(
            line(&of, 30),
            "glmbench: case 1 of 3, ceval: 50 of 100 items; 15 % of all, 30 s; about 2 min 50 s left for all"
        );
        of.end();
        assert_eq!(of.line(Duration::from_mins(1)), None);
        of.case("b1");
        of.begin("warm-up of b1", "repetitions", 6, 0);
        assert_eq!(
            line(&of, 60),
            "glmbench: case 2 of 3, warm-up of b1: 0 of 6 repetitions; 30 % of all, 1 min 0 s; about 2 min 20 s left for all"
        );
        of.begin("b1", "repetitions", 5, 0);
        (0..5).for_each(|_| of.advance());
        assert!(line(&of, 80).contains("; 40 % of all, 1 min 20 s; about 2 min 0 s left for all"));
    }

    #[test]
    fn what_was_there_before_counts_as_done_but_not_as_work_of_this_time() {
        let mut of = Overall::new(&[ahead(&[("a", 50.0), ("b", 50.0)])]);
        of.run();
        of.case("a");
        of.begin("a", "items", 100, 80);
        assert_eq!(of.left(Duration::from_secs(1)), None);
        (0..10).for_each(|_| of.advance());
        // Ten items, 5 parts, in 10 s: 5 parts and 50 are left.
        assert_eq!(of.left(Duration::from_secs(10)), Some(Duration::from_secs(110)));
        assert_eq!(of.share(), 0.45);
        // A case that is whole when it is begun adds no work.
        of.case("b");
        of.begin("b", "items", 10, 10);
        assert_eq!(of.left(Duration::from_secs(20)), Some(Duration::ZERO));
    }

    #[test]
    fn runs_are_counted_and_a_case_of_another_run_with_the_same_name_is_another_case() {
        let both = ahead(&[("b1", 10.0), ("b8", 30.0)]);
        let mut of = Overall::new(&[Vec::new(), both.clone(), both]);
        of.run();
        of.case("b1");
        of.run();
        of.case("b1");
        of.begin("b1", "repetitions", 5, 0);
        assert_eq!(of.words().unwrap(), "run 2 of 2, case 3 of 4, b1: 0 of 5 repetitions");
        // A case that nobody planned leaves the state as it is.
        of.case("unknown");
        assert_eq!(of.share(), 0.5);
    }
}
