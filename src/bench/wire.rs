//! A repetition over a wire: times come from each request's own events.

use glmbench_engine::EngineError;

use super::{Repetition, Shape, hash_tokens, submit};
use crate::backend::{Backend, Exchange};
use crate::stats::tell_token_times;

/// Time in which all requests of a batch are made ready, so that they are sent together, in nanoseconds.
const LEAD_NS: u64 = 50_000_000;

/// Runs one repetition on a server. All requests are sent at once, and the batch is whatever the server makes of them.
///
/// `prefill_ns` is the time until the last request has its first token, network and queue included. Step `i` ends when the
/// last request has token `i + 1`, so that steps and prefill add up to the whole.
pub(super) fn run(
    engine: &mut dyn Backend,
    shape: Shape,
    prompts: &[Vec<u32>],
) -> Result<Repetition, EngineError> {
    let start_ns = engine.now_ns() + LEAD_NS;
    let ids = submit(engine, shape, prompts, Some(start_ns))?;
    let mut outputs = vec![Vec::new(); prompts.len()];
    let mut tokens: Vec<Vec<u64>> = vec![Vec::new(); prompts.len()];
    while !engine.is_idle() {
        for completion in engine.step()?.finished {
            let Some(index) = ids.iter().position(|id| *id == completion.id) else { continue };
            let exchange = engine.exchange(completion.id);
            let exchange = checked(exchange, index, prompts[index].len(), shape.output_tokens)?;
            outputs[index] = match exchange.text {
                Some(text) => text.bytes().map(u32::from).collect(),
                None => completion.tokens,
            };
            tokens[index] = exchange.token_ns;
        }
    }
    // When the last request has its token of each place.
    let last = |place: usize| tokens.iter().filter_map(|times| times.get(place)).max().copied();
    let ends: Vec<u64> = (0..shape.output_tokens).map(|place| last(place).unwrap_or(start_ns)).collect();
    let first_token_ns = ends.first().copied().unwrap_or(start_ns);
    Ok(Repetition {
        start_ns,
        prefill_ns: first_token_ns.saturating_sub(start_ns),
        first_token_ns,
        step_ns: ends.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect(),
        end_ns: ends.last().copied().unwrap_or(first_token_ns),
        output_hash: hash_tokens(&outputs),
    })
}

/// Returns the exchange if its times belong to the shape.
fn checked(
    exchange: Option<Exchange>,
    index: usize,
    input_tokens: usize,
    output_tokens: usize,
) -> Result<Exchange, EngineError> {
    let of = |problem: String| EngineError::Request(format!("sequence {index} of the batch: {problem}"));
    let exchange = exchange.ok_or_else(|| of("the server's times are missing".into()))?;
    let (found, wanted) = (exchange.output_tokens, output_tokens as u64);
    let places = exchange.token_ns.len() as u64;
    match &exchange.fault {
        Some(reason) => Err(of(reason.clone())),
        None if exchange.prompt_tokens.is_some_and(|counted| counted != input_tokens as u64) => {
            Err(of(format!(
                "the server counts {} prompt tokens of {input_tokens}; a protocol that takes token ids would do",
                exchange.prompt_tokens.unwrap_or_default()
            )))
        }
        None if found != wanted => Err(of(format!("ended after {found} of {wanted} tokens"))),
        None if wanted > 1 && !tell_token_times(exchange.times.events, wanted) => Err(of(format!(
            "its {wanted} tokens arrived at {} different times, so prefill and decode cannot be told apart; [[load]] would do",
            exchange.times.events
        ))),
        None if places != wanted => {
            Err(of(format!("{places} of {wanted} tokens have a time: it did not stream")))
        }
        None => Ok(exchange),
    }
}
