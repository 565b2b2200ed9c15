//! A null A/B: one engine timed against itself, turn by turn, to know what its noise alone looks like.

use crate::bench::{OrdinaryTokens, Repetition, Shape, WarmUp, WarmUpRule, prompts, repeat};
use crate::engine::EngineError;
use crate::engine::scheduler::Scheduler;
use crate::record::{NoiseFloor, Phase};
use crate::stats::{median, null_floor};

use super::Observer;

/// The floor is the difference that one in twenty null comparisons exceeds.
const CONFIDENCE: f64 = 0.95;
/// Draws behind a floor.
const RESAMPLES: usize = 2000;
/// Their stream; the seed of the prompts as well.
const SEED: u64 = 1;

/// Times each shape `blocks` times as A and as B, in the order A B B A, and gives the floor of every phase.
pub fn noise(
    engine: &mut Scheduler,
    tokens: &OrdinaryTokens,
    shapes: &[Shape],
    blocks: usize,
    observer: &mut dyn Observer,
) -> Result<Vec<NoiseFloor>, EngineError> {
    let mut floors = Vec::new();
    for &shape in shapes {
        observer.begin(&shape.case_id(), "pairs", blocks as u64, 0);
        let pairs = pairs(engine, tokens, shape, blocks, observer);
        observer.end();
        let pairs = pairs?;
        floors.extend(
            [Phase::Prefill, Phase::Decode, Phase::E2e].into_iter().filter_map(|p| floor(shape, p, &pairs)),
        );
    }
    Ok(floors)
}

fn pairs(
    engine: &mut Scheduler,
    tokens: &OrdinaryTokens,
    shape: Shape,
    blocks: usize,
    observer: &mut dyn Observer,
) -> Result<Vec<[Repetition; 2]>, EngineError> {
    let prompts = prompts(shape, tokens, SEED);
    let mut warm_up = WarmUp::default();
    while !warm_up.is_enough(&WarmUpRule::default()) {
        warm_up.add(repeat(engine, shape, &prompts)?.total_ns());
    }
    let mut pairs = Vec::with_capacity(blocks);
    for block in 0..blocks {
        let (first, second) = (repeat(engine, shape, &prompts)?, repeat(engine, shape, &prompts)?);
        pairs.push(if block % 2 == 0 { [first, second] } else { [second, first] });
        observer.advance();
    }
    Ok(pairs)
}

fn floor(shape: Shape, phase: Phase, pairs: &[[Repetition; 2]]) -> Option<NoiseFloor> {
    let ns = |r: &Repetition| match phase {
        Phase::Prefill => r.prefill_ns as f64,
        Phase::Decode => (r.end_ns - r.first_token_ns) as f64,
        Phase::E2e => r.total_ns() as f64,
    };
    let times: Vec<(f64, f64)> = pairs.iter().map(|[a, b]| (ns(a), ns(b))).collect();
    let (a, b): (Vec<f64>, Vec<f64>) = times.iter().copied().unzip();
    Some(NoiseFloor {
        case_id: shape.case_id(),
        phase,
        blocks: pairs.len() as u32,
        ratio: median(&a)? / median(&b)?,
        floor: null_floor(&times, CONFIDENCE, RESAMPLES, SEED)?,
    })
}
