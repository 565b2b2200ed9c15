//! How many requests and tokens a plan costs on a server.

use super::accuracy::AccuracyRun;

/// Requests and tokens of a plan, or of a part of it. Retries and the probe of the server are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Requests, if nothing fails and no question needs a second one.
    pub least_requests: u64,
    /// Requests at most.
    pub requests: u64,
    /// Prompt tokens at most. An answer that is fed again counts with the tokens that it was generated with.
    pub prompt_tokens: u64,
    /// Generated tokens at most.
    pub output_tokens: u64,
}

impl Wanted {
    /// Returns what one request costs.
    pub(crate) fn one(prompt_tokens: u64, output_tokens: u64) -> Self {
        Self { least_requests: 1, requests: 1, prompt_tokens, output_tokens }
    }

    pub(crate) fn times(self, count: u64) -> Self {
        Self {
            least_requests: self.least_requests.saturating_mul(count),
            requests: self.requests.saturating_mul(count),
            prompt_tokens: self.prompt_tokens.saturating_mul(count),
            output_tokens: self.output_tokens.saturating_mul(count),
        }
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            least_requests: self.least_requests.saturating_add(other.least_requests),
            requests: self.requests.saturating_add(other.requests),
            prompt_tokens: self.prompt_tokens.saturating_add(other.prompt_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
        }
    }

    /// Returns the same with fewer requests at least.
    pub(crate) fn at_least(self, least_requests: u64) -> Self {
        Self { least_requests, ..self }
    }
}

/// What one case costs on a server at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseWanted {
    /// The case's name.
    pub case: String,
    /// Its requests and tokens.
    pub wanted: Wanted,
}

/// Returns the sum.
pub fn total(cases: &[CaseWanted]) -> Wanted {
    cases.iter().fold(Wanted::default(), |sum, case| sum.and(case.wanted))
}

/// Returns what items of a task cost, if a question for choices needs up to `for_choices` requests.
pub(super) fn of_items(run: &AccuracyRun<'_>, items: &[usize], for_choices: u64) -> Wanted {
    let plan = run.evaluation.plan();
    let (new, samples) = (plan.max_new_tokens as u64, plan.draws.map_or(1, |draws| draws.samples as u64));
    let scores = !run.evaluation.choices().is_empty();
    let scored = |prompt: u64| Wanted::one(prompt, 1).times(for_choices).at_least(1);
    let of_item = |index: usize| {
        let prompts = run.evaluation.prompt_lengths(index);
        if let [_, _, ..] = prompts[..] {
            let windows = prompts.into_iter().map(|tokens| Wanted::one(tokens as u64, 1));
            return windows.fold(Wanted::default(), Wanted::and);
        }
        let prompt = prompts.first().map_or(0, |&tokens| tokens as u64);
        match run.evaluation.second_prompt_tokens(index) {
            _ if prompt == 0 => Wanted::default(),
            // The second question repeats the first with its answer.
            Some(second) => Wanted::one(prompt, new).and(scored(second as u64 + new)),
            None if scores => scored(prompt),
            None => Wanted::one(prompt, new).times(samples),
        }
    };
    items.iter().map(|&index| of_item(index)).fold(Wanted::default(), Wanted::and)
}
