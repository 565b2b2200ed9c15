//! Logits of two engines over the same tokens, position by position.

use glmbench_engine::config::ModelConfig;
use glmbench_engine::model::Capacity;
use glmbench_engine::{Engine, EngineError, FinishReason, NotFinite, Request};

use crate::backend::Backend;

/// Most rows of logits that an engine holds at once.
pub const LOGIT_ROWS: usize = 128;

/// Returns the capacity for feeding prompts and `decode` further tokens.
pub fn capacity_for(config: &ModelConfig, prompts: &[Vec<u32>], decode: usize) -> Capacity {
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(1);
    logit_capacity(config, longest.saturating_add(decode))
}

/// Returns the capacity for feeding up to `tokens` tokens: one sequence, with logits for a chunk of rows.
pub fn logit_capacity(config: &ModelConfig, tokens: usize) -> Capacity {
    // A longer sequence is rejected when it is submitted.
    let longest = tokens.min(config.seq_length);
    let mut capacity = Capacity::for_batch(config, 1, longest);
    capacity.max_step_tokens = capacity.max_step_tokens.min(longest.max(1));
    capacity.max_logit_rows = capacity.max_step_tokens.min(LOGIT_ROWS);
    capacity
}

/// Generates a greedy continuation of `count` tokens, ignoring end-of-sequence tokens.
///
/// # Errors
/// Those of the engine. [`EngineError::NotFinite`] if a logit is NaN or infinite before `count` tokens.
pub fn continuation(engine: &mut Engine, prompt: &[u32], count: usize) -> Result<Vec<u32>, EngineError> {
    engine.submit(Request {
        prompt: prompt.to_vec(),
        max_new_tokens: count,
        ignore_eos: true,
        ..Request::probe()
    })?;
    let mut tokens = Vec::new();
    while !engine.is_idle() {
        let step = engine.step()?;
        tokens.extend(step.emitted.into_iter().map(|(_, token)| token));
        for completion in step.finished {
            if let FinishReason::BrokenLogits(place) = completion.finish {
                let of = format!("the continuation broke off after {} of {count} tokens", tokens.len());
                return Err(EngineError::NotFinite { of, place });
            }
        }
    }
    Ok(tokens)
}

/// What is done with a position: its index, the logits of the reference, and those of the other engine.
pub type EachPosition<'a> = dyn FnMut(usize, &[f32], &[f32]) + 'a;

/// Feeds both engines `tokens`, and passes each position to `each` with the logits of the reference and of the other. Both must be idle
/// and have the same vocabulary. The reference is fed a chunk ahead, so no one holds the logits of all positions.
///
/// # Errors
/// Those of the engines. [`EngineError::NotFinite`] if a logit is NaN or infinite: the first of the reference, or else of the other.
/// `of` names the tokens there. Such logits cannot be compared, and are no difference.
pub fn compare_logits(
    reference: &mut Engine,
    engine: &mut dyn Backend,
    tokens: &[u32],
    of: &str,
    each: &mut EachPosition<'_>,
) -> Result<(), EngineError> {
    let vocab = reference.config().padded_vocab_size;
    let mut forced = reference.force(tokens)?;
    // The reference's last chunk, and the position of its first row.
    let (mut chunk, mut begin) = (Vec::new(), 0);
    let (mut broken, mut own_broken, mut failed) = (None, None, None);
    engine.teacher_force(tokens, &mut |position, ours| {
        if failed.is_some() {
            return;
        }
        if position >= begin + chunk.len() / vocab {
            chunk.clear();
            begin = position;
            let fed = forced.next_chunk(&mut |at, logits| {
                broken = broken.or_else(|| NotFinite::find(at, logits));
                chunk.extend_from_slice(logits);
            });
            failed = fed.err();
        }
        let row = (position - begin) * vocab;
        let Some(theirs) = chunk.get(row..row + vocab) else { return };
        own_broken = own_broken.or_else(|| NotFinite::find(position, ours));
        each(position, theirs, ours);
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    match broken.or(own_broken) {
        Some(place) => Err(EngineError::NotFinite { of: of.to_owned(), place }),
        None => Ok(()),
    }
}
