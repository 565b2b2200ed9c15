//! Performance cases: from a shape to timed repetitions.
//!
//! A repetition submits `batch` prompts of random ordinary tokens at once. Each sequence generates exactly
//! `output_tokens` tokens, ignoring end-of-sequence tokens. Warm-ups run with the same shape until their times agree.
//! All repetitions of a case have the same prompts, so their outputs must be equal. The hash of the outputs is part of
//! the result.
//!
//! [`compare_logits`] times nothing: it feeds two engines the same tokens side by side.

mod cost;
mod load;
mod logits;
mod prompts;
mod warmup;
mod wire;

use sha2::{Digest, Sha256};

use glmbench_engine::sampler::Sampling;
use glmbench_engine::{EngineError, FinishReason, Request, RequestId, StepKind};

use crate::backend::Backend;

pub use cost::{CaseCost, PhaseCost, batch_cost, case_cost};
pub use load::{LEAD_NS, Offered, Pace, Served, ServedLoad, serve};
pub use logits::{EachPosition, LOGIT_ROWS, capacity_for, compare_logits, continuation, logit_capacity};
pub use prompts::{OrdinaryTokens, prompts};
pub use warmup::{WarmUp, WarmUpRule};

/// The shape of a timed batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Number of sequences.
    pub batch: usize,
    /// Prompt tokens of each sequence, including prefix ids.
    pub input_tokens: usize,
    /// Generated tokens of each sequence.
    pub output_tokens: usize,
}

impl Shape {
    /// Returns the name of the case within a run: `b8-i128-o32`.
    pub fn case_id(&self) -> String {
        format!("b{}-i{}-o{}", self.batch, self.input_tokens, self.output_tokens)
    }

    /// Returns the final length of one sequence in tokens.
    pub fn sequence_tokens(&self) -> usize {
        self.input_tokens + self.output_tokens
    }
}

/// Times of one repetition, in nanoseconds on the engine's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repetition {
    /// When the batch was submitted.
    pub start_ns: u64,
    /// Total duration of the prefill steps.
    pub prefill_ns: u64,
    /// When the last sequence got its first token.
    pub first_token_ns: u64,
    /// Duration of each decode step.
    pub step_ns: Vec<u64>,
    /// When the last token was chosen.
    pub end_ns: u64,
    /// First 16 hex digits of the SHA-256 of all generated ids.
    pub output_hash: String,
}

impl Repetition {
    /// Returns the end-to-end time.
    pub fn total_ns(&self) -> u64 {
        self.end_ns - self.start_ns
    }
}

/// Runs one repetition on an idle engine.
///
/// # Errors
/// Errors of the engine, including [`EngineError::NotFinite`] for non-finite logits. Also when a sequence ended early,
/// as the times then belong to another shape. No requests are left running.
pub fn repeat(
    engine: &mut dyn Backend,
    shape: Shape,
    prompts: &[Vec<u32>],
) -> Result<Repetition, EngineError> {
    let repetition = run(engine, shape, prompts);
    if repetition.is_err() {
        engine.clear();
    }
    repetition
}

/// Submits the batch at once, or for `at_ns` on a backend that schedules.
fn submit(
    engine: &mut dyn Backend,
    shape: Shape,
    prompts: &[Vec<u32>],
    at_ns: Option<u64>,
) -> Result<Vec<RequestId>, EngineError> {
    let request = |prompt: &Vec<u32>| Request {
        prompt: prompt.clone(),
        max_new_tokens: shape.output_tokens,
        sampling: Sampling::Greedy,
        ignore_eos: true,
        ..Request::probe()
    };
    let each = |prompt| match at_ns {
        Some(at_ns) => engine.submit_at(request(prompt), at_ns),
        None => engine.submit(request(prompt)),
    };
    prompts.iter().map(each).collect()
}

fn run(engine: &mut dyn Backend, shape: Shape, prompts: &[Vec<u32>]) -> Result<Repetition, EngineError> {
    if engine.capabilities().schedules {
        return wire::run(engine, shape, prompts);
    }
    let start_ns = engine.now_ns();
    let ids = submit(engine, shape, prompts, None)?;
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
            // Both phases in one step belong to neither. A batch is prefilled first, whatever ran before.
            StepKind::Mixed | StepKind::Idle => {}
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

/// Returns the first 16 hex digits of the SHA-256 of all sequences, each with its length.
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
