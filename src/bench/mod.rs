//! A performance case: from a shape to timed repetitions.
//!
//! A repetition hands `batch` prompts of random ordinary tokens to the engine at once and runs exactly `output_tokens`
//! steps past any end-of-sequence token. Warm-ups run at the very shape until their times agree. The prompts of a case are
//! the same in every repetition, so its outputs must be, too: the hash of all of them is part of the result.

mod arrivals;
mod cost;
mod load;
mod prompts;
mod warmup;

use sha2::{Digest, Sha256};

use crate::engine::sampler::Sampling;
use crate::engine::scheduler::Scheduler;
use crate::engine::{EngineError, FinishReason, Request, StepKind};

pub use arrivals::{ArrivalProcess, arrivals};
pub use cost::{PhaseCost, batch_cost, case_cost};
pub use load::{Offered, Served, serve};
pub use prompts::{OrdinaryTokens, prompts};
pub use warmup::{WarmUp, WarmUpRule};

/// A shape to be timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Sequences in the batch.
    pub batch: usize,
    /// Prompt tokens of each, prefix ids included.
    pub input_tokens: usize,
    /// Tokens generated for each.
    pub output_tokens: usize,
}

impl Shape {
    /// Name within a run: `b8-i128-o32`.
    pub fn case_id(&self) -> String {
        format!("b{}-i{}-o{}", self.batch, self.input_tokens, self.output_tokens)
    }

    /// Tokens of one sequence at its end.
    pub fn sequence_tokens(&self) -> usize {
        self.input_tokens + self.output_tokens
    }
}

/// Times of one repetition, nanoseconds on the engine's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repetition {
    /// When the batch was handed over.
    pub start_ns: u64,
    /// Sum of the prefill steps.
    pub prefill_ns: u64,
    /// When the last sequence had its first token.
    pub first_token_ns: u64,
    /// Each decode step.
    pub step_ns: Vec<u64>,
    /// When the last token was chosen.
    pub end_ns: u64,
    /// SHA-256 of all generated ids, 16 hex digits.
    pub output_hash: String,
}

impl Repetition {
    /// End to end.
    pub fn total_ns(&self) -> u64 {
        self.end_ns - self.start_ns
    }
}

/// Runs one repetition on an idle engine.
///
/// # Errors
/// The engine's; also when a sequence ended early, because then the times are of another shape: [`EngineError::NotFinite`] where
/// the model's numbers broke down. Nothing is left running.
pub fn repeat(engine: &mut Scheduler, shape: Shape, prompts: &[Vec<u32>]) -> Result<Repetition, EngineError> {
    let repetition = run(engine, shape, prompts);
    if repetition.is_err() {
        engine.clear();
    }
    repetition
}

fn run(engine: &mut Scheduler, shape: Shape, prompts: &[Vec<u32>]) -> Result<Repetition, EngineError> {
    let start_ns = engine.now_ns();
    let mut ids = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let request = Request {
            prompt: prompt.clone(),
            max_new_tokens: shape.output_tokens,
            sampling: Sampling::Greedy,
            ignore_eos: true,
            choice_ids: Vec::new(),
        };
        ids.push(engine.submit(request)?);
    }
    let mut result = Repetition {
        start_ns,
        prefill_ns: 0,
        first_token_ns: start_ns,
        step_ns: Vec::with_capacity(shape.output_tokens),
        end_ns: start_ns,
        output_hash: String::new(),
    };
    let mut outputs = vec![Vec::new(); prompts.len()];
    while !engine.is_idle() {
        let step = engine.step()?;
        let duration_ns = step.end_ns - step.start_ns;
        match step.kind {
            StepKind::Prefill => {
                result.prefill_ns += duration_ns;
                result.first_token_ns = step.end_ns;
            }
            StepKind::Decode => result.step_ns.push(duration_ns),
            StepKind::Idle => {}
        }
        result.end_ns = step.end_ns;
        for completion in step.finished {
            let Some(index) = ids.iter().position(|id| *id == completion.id) else { continue };
            if let FinishReason::BrokenLogits(place) = completion.finish {
                return Err(EngineError::NotFinite { of: format!("sequence {index} of the batch"), place });
            }
            if completion.tokens.len() != shape.output_tokens {
                return Err(EngineError::Request(format!(
                    "sequence {index} of the batch ended after {} of {} tokens ({:?})",
                    completion.tokens.len(),
                    shape.output_tokens,
                    completion.finish
                )));
            }
            outputs[index] = completion.tokens;
        }
    }
    result.output_hash = hash_tokens(&outputs);
    Ok(result)
}

/// First 16 hex digits of the SHA-256 of all sequences, each with its length.
fn hash_tokens(outputs: &[Vec<u32>]) -> String {
    let mut hasher = Sha256::new();
    for tokens in outputs {
        hasher.update((tokens.len() as u64).to_le_bytes());
        for token in tokens {
            hasher.update(token.to_le_bytes());
        }
    }
    hasher.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
