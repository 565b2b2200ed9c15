//! What a request is about to run: its cases in order, with their work, so that progress can be told for all of it.

use super::accuracy::AccuracyRun;
use super::cases::{Case, Plan};
use super::duration::{Counted, task_work};
use super::observer::Ahead;
use super::requests::{Wanted, of_items};

/// Prompt tokens that a server computes in the time of one generated token, to add up the work of cases there. A rough figure: a
/// prompt's tokens share the reading of the weights.
const PROMPT_TOKENS_A_STEP: u64 = 64;

impl Plan<'_> {
    /// Returns the cases in the order in which they run. `counted` gives what a number of ranks counts work with.
    pub(super) fn ahead<'c>(&self, counted: impl Fn(usize) -> Counted<'c>) -> Vec<Ahead> {
        self.in_order(|run| task_work(run, counted(run.tp)), |case| case.work(counted(case.tp())))
    }

    /// As [`Plan::ahead`], on a server.
    pub(super) fn ahead_on_server(&self) -> Vec<Ahead> {
        let work = |of: Wanted| of.output_tokens.saturating_add(of.prompt_tokens / PROMPT_TOKENS_A_STEP);
        let of_task = |run: &AccuracyRun<'_>| run.estimated(|items| work(of_items(run, items, 1)));
        self.in_order(of_task, |case| case.wanted().map_or(0, work))
    }

    fn in_order(
        &self,
        of_task: impl Fn(&AccuracyRun<'_>) -> u64,
        of_timed: impl Fn(&dyn Case) -> u64,
    ) -> Vec<Ahead> {
        let ahead = |case: String, work: u64| Ahead { case, work: work.max(1) as f64 };
        let mut all = Vec::new();
        for tp in self.tp_sizes() {
            let tasks = self.accuracy.iter().filter(|run| run.tp == tp && !run.own.is_empty());
            all.extend(tasks.map(|run| ahead(run.task.clone(), of_task(run))));
            let timed = self.timed().into_iter().filter(|case| case.tp() == tp && case.unfit().is_none());
            all.extend(timed.map(|case| ahead(case.id(), of_timed(case))));
        }
        all
    }
}
