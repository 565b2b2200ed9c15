//! Interleaved timing of two configurations, in blocks with a fresh placement each.
//!
//! Two runs of one program differ less by noise than by placement: pages, cores, time of day. The unit of evidence is
//! therefore a *block*. In a block, a new process loads both engines and times every case in the order A B B A. A
//! comparison tests one figure per block ([`crate::stats::Shift`]). The side that is loaded and timed first alternates
//! between blocks.

use super::case_probe::CaseProbe;
use super::error::RunError;
use super::execute::run_accuracy;
use super::observer::{Observer, Silent};
use super::plan::Plan;
use super::session::{Ending, Session, Shared};
use crate::backend::Backend;
use crate::record::{RecordError, RepetitionKind, RunDir, RunRecord};
use crate::stats::blocks_needed;
use crate::workload::shapes::run::{PerformanceRun, Timing};
use std::sync::atomic::AtomicBool;

/// Repetitions per side in a block: A B B A twice, so that one disturbed repetition has no influence.
const PAIRS: usize = 4;
/// Repetitions per side in a block if the suite requests fewer in total: A B B A.
const FEW_PAIRS: usize = 2;

/// One of the two sides: a loaded engine and the directory for its lines.
pub struct Side<'a, 'b> {
    /// The side's cases.
    pub plan: &'a Plan<'b>,
    /// The engine, loaded for all cases.
    pub engine: Box<dyn Backend>,
    /// The directory for its lines.
    pub dir: RunDir,
    /// The side's record.
    pub record: RunRecord,
}

/// Returns why two plans cannot be interleaved, or `None` if they can.
pub fn obstacle(a: &Plan<'_>, b: &Plan<'_>) -> Option<String> {
    let shapes = |plan: &Plan<'_>| plan.performance.iter().map(|run| run.shape).collect::<Vec<_>>();
    if shapes(a).is_empty() {
        return Some("there is no [[performance]] case to interleave".into());
    }
    if shapes(a) != shapes(b) {
        return Some("the two configurations have different [[performance]] cases".into());
    }
    if [a, b].into_iter().any(|plan| plan.timed().len() > plan.performance.len()) {
        return Some(
            "max-batch searches, loads and parity cases cannot be interleaved; give them a suite of their own".into(),
        );
    }
    let one_sided =
        a.performance.iter().zip(&b.performance).find(|(a, b)| a.unfit.is_some() != b.unfit.is_some());
    if let Some((case, _)) = one_sided {
        return Some(format!("the memory of one of the two does not hold case {}", case.case_id()));
    }
    let several = [a, b].into_iter().any(|plan| plan.tp_sizes().len() > 1);
    several.then(|| {
        "a configuration has several tensor-parallel sizes; both engines stay loaded, so it must be one"
            .into()
    })
}

/// Returns the smallest number of blocks that can decide the phases of a plan.
pub fn blocks_for(plan: &Plan<'_>) -> usize {
    let phases = |case: &PerformanceRun| if case.shape.output_tokens < 2 { 2 } else { 3 };
    blocks_needed(fitting(plan).map(phases).sum())
}

/// Distributes the repetitions of every case over `blocks` blocks: the same even number per side in each block.
pub fn spread(plan: &mut Plan<'_>, blocks: usize) {
    for case in &mut plan.performance {
        let batches = case.timed() / case.repetitions.max(1);
        case.repetitions = spread_over(case.repetitions, batches, blocks);
    }
}

/// Returns the repetitions per batch of prompts, at least those requested, that give blocks of equal size.
fn spread_over(repetitions: usize, batches: usize, blocks: usize) -> usize {
    let (all, batches, blocks) = (repetitions * batches, batches.max(1), blocks.max(1));
    let least = if all < PAIRS { FEW_PAIRS } else { PAIRS };
    let mut in_block = all.div_ceil(blocks).max(least).next_multiple_of(2);
    while !(in_block * blocks).is_multiple_of(batches) {
        in_block += 2;
    }
    in_block * blocks / batches
}

fn fitting<'a>(plan: &'a Plan<'_>) -> impl Iterator<Item = &'a PerformanceRun> {
    plan.performance.iter().filter(|case| case.unfit.is_none())
}

/// Returns the blocks in which a side's lines are incomplete. A failed case gets no more lines.
pub fn open_blocks(sides: [(&Plan<'_>, &RunDir); 2], blocks: u32) -> Result<Vec<u32>, RecordError> {
    let mut whole = blocks;
    for (plan, dir) in sides {
        let requests = dir.read_requests()?;
        for case in fitting(plan) {
            let id = case.case_id();
            let own = || requests.iter().filter(|r| r.case_id == id);
            if own().any(|r| r.error.is_some()) {
                continue;
            }
            let timed = own().filter(|r| r.kind == RepetitionKind::Timed).count();
            let in_block = (case.timed() / blocks.max(1) as usize).max(1);
            whole = whole.min((timed / in_block) as u32);
        }
    }
    Ok((whole..blocks).collect())
}

/// Runs a side's accuracy cases.
pub fn accuracy(
    side: &mut Side<'_, '_>,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Ending, RunError> {
    let work = &mut side.record.provenance.work;
    let mut shared = Shared { dir: &mut side.dir, observer, stop, probe: None, work };
    let mut session = Session::new(&mut *side.engine, &mut shared)?;
    run_accuracy(side.plan, side.plan.tp_sizes()[0], &mut session)
}

/// Times every case of block `number` of `blocks` in turns, except lines that exist already. `observer` advances per
/// case.
///
/// The engines were loaded for this block alone, the first side's engine first. A case's lines are written at its end.
/// If a block is stopped within a case, the whole case is repeated, in one process.
pub fn block(
    sides: &mut [Side<'_, '_>; 2],
    number: u32,
    blocks: u32,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Ending, RunError> {
    let [a, b] = sides;
    // Progress is reported per block.
    let (mut silent_a, mut silent_b) = (Silent, Silent);
    let [probe_a, probe_b] = [&a.record, &b.record].map(CaseProbe::of);
    let work = &mut a.record.provenance.work;
    let mut shared_a = Shared { dir: &mut a.dir, observer: &mut silent_a, stop, probe: probe_a, work };
    let work = &mut b.record.provenance.work;
    let mut shared_b = Shared { dir: &mut b.dir, observer: &mut silent_b, stop, probe: probe_b, work };
    let mut session_a = Session::new(&mut *a.engine, &mut shared_a)?;
    let mut session_b = Session::new(&mut *b.engine, &mut shared_b)?;
    for (case_a, case_b) in fitting(a.plan).zip(fitting(b.plan)) {
        let mut timings = [
            Timing::new(case_a, &a.plan.tokens, &session_a)?,
            Timing::new(case_b, &b.plan.tokens, &session_b)?,
        ];
        let in_block = case_a.timed() / blocks.max(1) as usize;
        let turns =
            Turns { number, begin: number as usize * in_block, end: (number as usize + 1) * in_block };
        let ending = turns.run(&mut timings, [&mut session_a, &mut session_b]);
        session_a.engine.clear();
        session_b.engine.clear();
        if ending? == Ending::Interrupted {
            return Ok(Ending::Interrupted);
        }
        observer.advance();
    }
    Ok(Ending::Complete)
}

/// Returns the side that is loaded and timed first in a block: each in turn.
pub fn first_in(block: u32) -> usize {
    block as usize % 2
}

/// A case's repetitions in one block.
struct Turns {
    number: u32,
    /// The block's first repetition.
    begin: usize,
    /// The first repetition after the block.
    end: usize,
}

impl Turns {
    fn run(
        &self,
        timings: &mut [Timing<'_>; 2],
        mut sessions: [&mut Session<'_>; 2],
    ) -> Result<Ending, RunError> {
        let first = first_in(self.number);
        if timings.iter().all(|timing| timing.is_done() || timing.timed() >= self.end) {
            return Ok(Ending::Complete);
        }
        for side in [first, 1 - first] {
            if timings[side].warm_up(sessions[side])? == Ending::Interrupted {
                return Ok(Ending::Interrupted);
            }
        }
        let mut lines = [Vec::new(), Vec::new()];
        for repetition in self.begin..self.end {
            let leads = (first + repetition - self.begin) % 2;
            for side in [leads, 1 - leads] {
                // After a kill between the two sides' lines, only one side has them. A case that fails on one side ends
                // there, and the other side continues alone.
                if timings[side].is_done() || repetition < timings[side].timed() {
                    continue;
                }
                if sessions[side].stopped() {
                    return Ok(Ending::Interrupted);
                }
                let line = timings[side].measure(sessions[side], repetition, Some(self.number))?;
                // Only pairs timed by one process are evidence. If the other side already has this repetition, its
                // process was stopped, or this side's lines were truncated or retried. Then this is not a pair.
                let is_pair = timings[1 - side].timed() <= repetition;
                lines[side].push(if is_pair { line } else { line.of_no_block() });
            }
        }
        for (side, lines) in lines.into_iter().enumerate() {
            lines.iter().try_for_each(|line| timings[side].keep(sessions[side], line))?;
        }
        Ok(Ending::Complete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_laid_out_in_equal_blocks_of_an_even_number() {
        // As many as requested, or A B B A twice in each block.
        assert_eq!(spread_over(10, 1, 10), 40);
        assert_eq!(spread_over(100, 1, 10), 100);
        assert_eq!(spread_over(101, 1, 10), 120);
        // If few were requested: A B B A once.
        assert_eq!(spread_over(3, 1, 10), 20);
        assert_eq!(spread_over(1, 1, 1), 2);
        // Three batches of prompts, equally often each: ten blocks of six.
        assert_eq!(spread_over(2, 3, 10), 20);
        for (repetitions, batches, blocks) in
            (1..6).flat_map(|r| (1..8).flat_map(move |b| (1..14).map(move |n| (r, b, n))))
        {
            let all = spread_over(repetitions, batches, blocks) * batches;
            assert!(
                all >= repetitions * batches && all.is_multiple_of(2 * blocks),
                "{repetitions} {batches} {blocks}"
            );
        }
    }

    #[test]
    fn either_side_goes_first_in_every_other_block() {
        assert_eq!((0..4).map(first_in).collect::<Vec<_>>(), [0, 1, 0, 1]);
    }
}
