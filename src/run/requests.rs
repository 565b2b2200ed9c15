//! How many requests and tokens a plan costs on a server.

use crate::record::LoadCase;

use super::AccuracyRun;
use super::plan::{LoadRun, PerformanceRun, Plan};
use crate::workload::load::run::Schedule;

/// Requests and tokens of a plan, or of a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Requests at most.
    pub requests: u64,
    /// Prompt tokens at most.
    pub prompt_tokens: u64,
    /// Generated tokens at most.
    pub output_tokens: u64,
}

impl Wanted {
    fn times(self, count: u64) -> Self {
        Self {
            requests: self.requests.saturating_mul(count),
            prompt_tokens: self.prompt_tokens.saturating_mul(count),
            output_tokens: self.output_tokens.saturating_mul(count),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            prompt_tokens: self.prompt_tokens.saturating_add(other.prompt_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
        }
    }
}

impl Plan<'_> {
    /// Returns what each case costs at most, by its name. Retries and the probe of the server are not counted.
    pub fn wanted(&self) -> Vec<(String, Wanted)> {
        let accuracy = self.accuracy.iter().map(|run| (run.task.clone(), of_items(run)));
        let timed = self.performance.iter().filter(|run| run.unfit.is_none());
        let timed = timed.map(|run| (run.case_id(), of_case(run)));
        let loads = self.loads.iter().map(|run| (run.load_id.clone(), of_load(run)));
        accuracy.chain(timed).chain(loads).collect()
    }
}

/// Returns the sum.
pub fn total(parts: &[(String, Wanted)]) -> Wanted {
    parts.iter().fold(Wanted::default(), |sum, (_, part)| sum.and(*part))
}

fn of_items(run: &AccuracyRun<'_>) -> Wanted {
    let plan = run.evaluation.plan();
    let new = plan.max_new_tokens as u64;
    let scores = !run.evaluation.choices().is_empty();
    let of_item = |(_, ids): (String, Vec<u32>)| {
        let prompt = ids.len() as u64;
        let generated = Wanted { requests: 1, prompt_tokens: prompt, output_tokens: new };
        // A second question repeats the first with its answer.
        let scored = Wanted { requests: 1, prompt_tokens: prompt + new, output_tokens: 1 };
        match (new > 0, scores) {
            (true, true) => generated.and(scored),
            (true, false) => generated,
            (false, _) => scored,
        }
    };
    (0..run.evaluation.len())
        .filter_map(|index| run.evaluation.first_prompt(index))
        .map(of_item)
        .fold(Wanted::default(), Wanted::and)
}

fn of_case(run: &PerformanceRun) -> Wanted {
    let one = Wanted {
        requests: 1,
        prompt_tokens: run.input_tokens() as u64,
        output_tokens: run.shape.output_tokens as u64,
    };
    one.times(run.shape.batch as u64).times((run.timed() + run.warm_up.most) as u64)
}

fn of_load(run: &LoadRun) -> Wanted {
    let record: LoadCase = run.case();
    let levels = (record.rates.len() + record.concurrency.len()) as u64;
    // A search for saturation ends after this many levels.
    let levels = if levels == 0 { crate::record::MOST_LEVELS as u64 } else { levels };
    let level = match &run.schedule {
        Schedule::Trace(_, requests) => requests.iter().fold(Wanted::default(), |sum, request| {
            sum.and(Wanted {
                requests: 1,
                prompt_tokens: request.input_tokens as u64,
                output_tokens: request.output_tokens as u64,
            })
        }),
        Schedule::Process(_) | Schedule::Closed(_) => {
            let requests = match (run.requests, &run.rates) {
                // By duration: what the highest rate offers.
                (usize::MAX, Some(rates)) => {
                    let most = rates.iter().copied().fold(0.0, f64::max);
                    (most * run.duration_ns as f64 / 1e9).ceil() as u64
                }
                (requests, _) => requests as u64,
            };
            let longest = run.lengths.iter().map(|(input, _)| *input).max().unwrap_or(0) as u64;
            let output = run.lengths.iter().map(|(_, output)| *output).max().unwrap_or(0) as u64;
            Wanted { requests: 1, prompt_tokens: longest, output_tokens: output }.times(requests)
        }
    };
    // Each level has a warm-up request.
    level.and(Wanted { requests: 1, ..Wanted::default() }).times(levels)
}
