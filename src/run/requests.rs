//! How many requests and tokens a plan costs on a server.

use super::AccuracyRun;

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
    pub(crate) fn times(self, count: u64) -> Self {
        Self {
            requests: self.requests.saturating_mul(count),
            prompt_tokens: self.prompt_tokens.saturating_mul(count),
            output_tokens: self.output_tokens.saturating_mul(count),
        }
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            prompt_tokens: self.prompt_tokens.saturating_add(other.prompt_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
        }
    }
}

/// Returns the sum.
pub fn total(parts: &[(String, Wanted)]) -> Wanted {
    parts.iter().fold(Wanted::default(), |sum, (_, part)| sum.and(*part))
}

/// Returns what the items of a task cost.
pub(super) fn of_items(run: &AccuracyRun<'_>) -> Wanted {
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
    run.own
        .iter()
        .filter_map(|&index| run.evaluation.first_prompt(index))
        .map(of_item)
        .fold(Wanted::default(), Wanted::and)
}
