//! Serves the levels of a load, one after another, and records their requests.

use super::run::{LoadRun, Schedule, next_level};
use super::trace::TraceRequest;
use crate::backend::{AttemptTimes, WireTimes};
use crate::bench::{Offered, OrdinaryTokens, Pace, Served, ServedLoad, Shape, prompts, serve};
use crate::record::{Attempted, Clock, Level, LoadCase, LoadLevelRecord, LoadRequest, Wire};
use crate::run::{Ending, RunError, Session};
use crate::stats::tell_token_times;
use crate::suite::Lengths;
use glmbench_engine::Scheduling;

/// Runs the levels that have no line yet.
pub(super) fn run(
    load: &LoadRun,
    tokens: &OrdinaryTokens,
    session: &mut Session<'_>,
) -> Result<Ending, RunError> {
    session.dir.restore::<LoadCase>(&load.load_id)?;
    let mut levels = session.dir.read_loads()?;
    levels.retain(|level| level.load_id == load.load_id);
    while let Some(level) = next_level(load, &levels) {
        let index = levels.len();
        let offered = offered(load, tokens, level, index);
        if let Some(allowance) = session.engine.allowance() {
            // A level is whole or nothing. It has a warm-up request.
            allowance.check(offered.len() as u64 + 1, &format!("{} {level}", load.load_id))?;
        }
        let label = format!("{} {level}", load.load_id);
        session.observer.begin(&label, "requests", offered.len() as u64, 0);
        let wanted = load.prefill_chunk.map_or(Scheduling::PrefillFirst, Scheduling::Mixed);
        let applied = session.engine.set_scheduling(wanted);
        let level = run_level(load, &offered, level, index, session);
        // Other cases are defined with their prompts first.
        session.engine.set_scheduling(Scheduling::PrefillFirst);
        session.observer.end();
        let Some(mut level) = level? else { return Ok(Ending::Interrupted) };
        level.scheduling = applied.filter(|of| *of != Scheduling::PrefillFirst).map(|of| of.to_string());
        session.dir.append_load(&level)?;
        session.sample()?;
        levels.push(level);
    }
    Ok(Ending::Complete)
}

/// Returns a level's requests, which depend on seed, index and level only.
fn offered(load: &LoadRun, tokens: &OrdinaryTokens, level: Level, index: usize) -> Vec<Offered> {
    // Prompts are the same in all levels.
    let times = match (&load.schedule, level) {
        (Schedule::Trace(own_rate, requests), Level::Rate(rate)) => {
            return traced(requests, rate / own_rate, tokens, load.seed);
        }
        (Schedule::Process(process), Level::Rate(rate)) => load.times(*process, rate, index),
        _ => vec![0; load.requests],
    };
    let pairs = load.lengths.len();
    // As many prompts per pair of lengths as there are requests with it.
    let each = times.len().div_ceil(pairs);
    let random: Vec<Vec<Vec<u32>>> = if load.pools.is_empty() {
        let shape = |of: &Lengths| Shape { batch: each, input_tokens: of.input, output_tokens: of.output };
        load.lengths.iter().map(|pair| prompts(shape(pair), tokens, load.seed)).collect()
    } else {
        Vec::new()
    };
    let pools = if load.pools.is_empty() { &random } else { &load.pools };
    let request = |(i, arrival_ns): (usize, u64)| {
        let (pool, turn) = (&pools[i % pairs], i / pairs);
        Offered {
            arrival_ns,
            prompt: pool[turn % pool.len()].clone(),
            output_tokens: load.lengths[i % pairs].output,
        }
    };
    times.into_iter().enumerate().map(request).collect()
}

/// Returns the requests of a trace at `speed` times its own pace, with random prompts of its lengths.
fn traced(requests: &[TraceRequest], speed: f64, tokens: &OrdinaryTokens, seed: u64) -> Vec<Offered> {
    let offered = |(index, request): (usize, &TraceRequest)| {
        let shape =
            Shape { batch: 1, input_tokens: request.input_tokens, output_tokens: request.output_tokens };
        Offered {
            arrival_ns: (request.arrival_ns as f64 / speed).round() as u64,
            prompt: prompts(shape, tokens, seed.wrapping_add(index as u64)).pop().unwrap_or_default(),
            output_tokens: request.output_tokens,
        }
    };
    requests.iter().enumerate().map(offered).collect()
}

/// Serves one level, after a warm-up request. Returns `None` if the run was stopped.
fn run_level(
    load: &LoadRun,
    offered: &[Offered],
    level: Level,
    index: usize,
    session: &mut Session<'_>,
) -> Result<Option<LoadLevelRecord>, RunError> {
    session.start_afresh()?;
    // On a virtual clock, the warm-up is a full batch, which allocates the memory that the level needs.
    let modelled = session.clock() == Clock::Modelled;
    let (stop, observer) = (session.stop, &mut *session.observer);
    let mut stopped = || stop.load(std::sync::atomic::Ordering::Relaxed);
    let pace = match level {
        Level::Concurrency(requests) => Pace::Closed(requests as usize),
        Level::AtOnce | Level::Rate(_) => Pace::Open(load.max_batch),
    };
    let alone = if modelled { load.max_batch } else { 1 };
    let at_once = |request: &Offered| Offered { arrival_ns: 0, ..request.clone() };
    let warm_up: Vec<Offered> = offered.iter().take(alone).map(at_once).collect();
    if serve(session.engine, &warm_up, pace, &mut stopped, &mut |_| {})?.is_none() {
        return Ok(None);
    }
    let mut told = 0;
    let mut progress = |done: usize| {
        (told..done).for_each(|_| observer.advance());
        told = done;
    };
    if modelled {
        session.offset_ns = session.dir.recorded_until_ns()?.wrapping_sub(session.engine.now_ns());
    }
    let served = serve(session.engine, offered, pace, &mut stopped, &mut progress)?;
    let Some(ServedLoad { begin_ns, requests }) = served else { return Ok(None) };
    let requests: Vec<LoadRequest> =
        requests.iter().zip(offered).map(|(served, offered)| record(served, offered, session)).collect();
    let start_ns = session.run_ns(begin_ns);
    Ok(Some(LoadLevelRecord {
        load_id: load.load_id.clone(),
        level: index as u32,
        clock: session.clock(),
        rate_per_s: level.rate_per_s(),
        concurrency: level.concurrency(),
        scheduling: None,
        start_ns,
        end_ns: requests.iter().map(|r| r.end_ns).max().unwrap_or(start_ns).max(start_ns),
        requests,
    }))
}

fn record(served: &Served, offered: &Offered, session: &Session<'_>) -> LoadRequest {
    let first = served.token_ns.first().copied().unwrap_or(served.start_ns);
    let last = served.token_ns.last().copied().unwrap_or(served.start_ns);
    // Where the times of tokens are unknown, the last one may have come after the last event.
    let joined = |times: &WireTimes| !tell_token_times(times.events, served.output_tokens);
    let last = served.wire.as_ref().filter(|times| joined(times)).map_or(last, |times| times.closed_ns);
    let wire = served.wire.as_ref().map(|times| Wire {
        sent_ns: session.run_ns(times.sent_ns),
        connect_ns: times.connect_ns,
        first_byte_ns: times.first_byte_ns.map(|ns| session.run_ns(ns)),
        closed_ns: session.run_ns(times.closed_ns),
        events: times.events,
        attempts: times.attempts,
        before: times.before.iter().map(|of| attempted(*of, session)).collect(),
        prompt_tokens: served.prompt_tokens,
    });
    LoadRequest {
        arrival_ns: session.run_ns(served.arrival_ns),
        start_ns: session.run_ns(served.start_ns),
        first_token_ns: session.run_ns(first),
        itl_ns: served.token_ns.windows(2).map(|pair| pair[1] - pair[0]).collect(),
        end_ns: session.run_ns(last),
        input_tokens: served.prompt_tokens.unwrap_or(offered.prompt.len() as u64) as u32,
        output_tokens: served.output_tokens as u32,
        wire,
        error: served.error.clone(),
    }
}

fn attempted(of: AttemptTimes, session: &Session<'_>) -> Attempted {
    Attempted {
        start_ns: session.run_ns(of.start_ns),
        sent_ns: of.sent_ns.map(|ns| session.run_ns(ns)),
        end_ns: session.run_ns(of.end_ns),
    }
}

#[cfg(test)]
mod tests {
    use super::super::run::tests::load_of;
    use super::*;

    #[test]
    fn the_word_for_prefill_first_is_the_engines() {
        assert_eq!(Scheduling::PrefillFirst.to_string(), crate::record::LoadRow::PREFILL_FIRST);
    }

    #[test]
    fn a_trace_is_replayed_at_its_pace_and_faster() {
        let request = |ms: u64, input_tokens, output_tokens| TraceRequest {
            arrival_ns: ms * 1_000_000,
            input_tokens,
            output_tokens,
        };
        let trace = vec![request(0, 4, 1), request(100, 6, 2)];
        let load = LoadRun { schedule: Schedule::Trace(10.0, trace), ..load_of(Some(vec![20.0])) };
        let tokens = OrdinaryTokens { prefix: vec![1], range: 10..90 };
        let all = offered(&load, &tokens, Level::Rate(20.0), 0);
        let of = |o: &Offered| (o.arrival_ns, o.prompt.len(), o.output_tokens);
        assert_eq!(all.iter().map(of).collect::<Vec<_>>(), [(0, 4, 1), (50_000_000, 6, 2)]);
        assert_eq!(load.longest(), 8);
    }

    #[test]
    fn requests_take_the_lengths_in_turn() {
        let tokens = OrdinaryTokens { prefix: vec![1], range: 10..90 };
        let all = offered(&load_of(None), &tokens, Level::Rate(10.0), 0);
        let lengths: Vec<_> = all.iter().map(|o| (o.prompt.len(), o.output_tokens)).take(4).collect();
        assert_eq!(lengths, [(4, 2), (8, 3), (4, 2), (8, 3)]);
        assert_ne!(all[0].prompt, all[2].prompt);
        assert_eq!(all, offered(&load_of(None), &tokens, Level::Rate(10.0), 0));
        let real = LoadRun { pools: vec![vec![vec![1], vec![2, 3]], vec![vec![4]]], ..load_of(None) };
        let all = offered(&real, &tokens, Level::AtOnce, 0);
        let prompts: Vec<_> = all.iter().map(|o| o.prompt.as_slice()).take(6).collect();
        assert_eq!(prompts, [&[1][..], &[4], &[2, 3], &[4], &[1], &[4]]);
        assert_eq!((real.longest(), load_of(None).longest()), (4, 11));
    }
}
