//! A performance case: warm-ups until times agree, then timed repetitions, a line each.

use crate::bench::{OrdinaryTokens, Repetition, Shape, WarmUp, WarmUpRule, prompts, repeat};
use crate::engine::StepKind;
use crate::engine::profile::OperatorTime;
use crate::record::{
    GroupPrompts, OperatorRecord, Phase, RepetitionKind, RequestRecord, RunDir, Spot, Spots,
};

use super::machine::reset_peak_rss;
use super::plan::Plan;
use super::questions::{RealPrompts, mean_tokens};
use super::spots::CaseGauge;
use super::{Ending, RunError, Session};

/// A performance case ready to run.
#[derive(Debug, Clone)]
pub struct PerformanceRun {
    /// The shape; with real prompts its input is the longest of them.
    pub shape: Shape,
    /// Real prompts; random tokens when `None`.
    pub prompts: Option<RealPrompts>,
    /// Tensor-parallel ranks.
    pub tp: usize,
    /// Why the device cannot hold it, if so; it is then not run.
    pub unfit: Option<String>,
    /// Timed repetitions; with real prompts, of each batch of them.
    pub repetitions: usize,
    /// When warming up is enough.
    pub warm_up: WarmUpRule,
    /// Seed of the prompts.
    pub seed: u64,
    /// Seconds that it may take at least, by the machine's measured limits.
    pub budget_s: Option<u64>,
}

impl PerformanceRun {
    /// Name within a run: the shape's, or that of its prompts, with the ranks where there are several: `b8-i128-o32-tp2`,
    /// `boolq-i128-b8-o32`.
    pub fn case_id(&self) -> String {
        let Shape { batch, output_tokens, .. } = self.shape;
        let shape = match &self.prompts {
            None => self.shape.case_id(),
            Some(prompts) => format!("{}-b{batch}-o{output_tokens}", prompts.name),
        };
        if self.tp == 1 { shape } else { format!("{shape}-tp{}", self.tp) }
    }

    /// Prompt tokens of a sequence; with real prompts their mean, rounded.
    pub fn input_tokens(&self) -> usize {
        self.prompts.as_ref().map_or(self.shape.input_tokens, RealPrompts::mean_tokens)
    }

    /// Timed repetitions of all batches of prompts.
    pub(super) fn timed(&self) -> usize {
        self.repetitions * self.prompts.as_ref().map_or(1, |prompts| prompts.groups.len())
    }

    /// The batches of prompts, which the repetitions take in turn.
    fn batches(&self, tokens: &OrdinaryTokens) -> Vec<Vec<Vec<u32>>> {
        match &self.prompts {
            None => vec![prompts(self.shape, tokens, self.seed)],
            Some(real) => real.groups.clone(),
        }
    }
}

/// Every case of so many ranks has all its timed repetitions.
pub(super) fn is_done(plan: &Plan<'_>, world: usize, dir: &RunDir) -> Result<bool, RunError> {
    let records = dir.read_requests()?;
    let timed = |case: &PerformanceRun| {
        let id = case.case_id();
        records.iter().filter(|r| r.case_id == id && r.kind == RepetitionKind::Timed).count()
    };
    let mut cases = plan.performance.iter().filter(|case| case.tp == world && case.unfit.is_none());
    Ok(cases.all(|case| timed(case) >= case.timed()))
}

/// Runs the repetitions that have no line yet; an interrupted case is warmed up again.
pub(super) fn run(
    case: &PerformanceRun,
    tokens: &OrdinaryTokens,
    session: &mut Session<'_>,
) -> Result<Ending, RunError> {
    let mut timing = Timing::new(case, tokens, session)?;
    session.observer.begin(&case.case_id(), "repetitions", case.timed() as u64, timing.timed as u64);
    let ending = repetitions(&mut timing, session);
    session.observer.end();
    session.engine.clear();
    ending
}

fn repetitions(timing: &mut Timing<'_>, session: &mut Session<'_>) -> Result<Ending, RunError> {
    if timing.is_done() {
        return Ok(Ending::Complete);
    }
    reset_peak_rss();
    if timing.warm_up(session)? == Ending::Interrupted {
        return Ok(Ending::Interrupted);
    }
    while !timing.is_done() {
        if session.stopped() {
            return Ok(Ending::Interrupted);
        }
        timing.repeat(session, None)?;
        session.observer.advance();
    }
    Ok(Ending::Complete)
}

/// A case on one engine: its batches of prompts, and how many lines it has.
pub(super) struct Timing<'a> {
    case: &'a PerformanceRun,
    batches: Vec<Vec<Vec<u32>>>,
    warm_ups: usize,
    /// Timed repetitions that are recorded.
    pub(super) timed: usize,
    /// Measures the machine's limits around each, where a target speaks of the case.
    gauge: Option<CaseGauge>,
    /// What it found right after the last repetition.
    spot: Option<Spot>,
}

impl<'a> Timing<'a> {
    /// What is recorded of the case counts.
    pub(super) fn new(
        case: &'a PerformanceRun,
        tokens: &OrdinaryTokens,
        session: &Session<'_>,
    ) -> Result<Self, RunError> {
        let (records, id) = (session.dir.read_requests()?, case.case_id());
        let of = |kind| records.iter().filter(|r| r.case_id == id && r.kind == kind).count();
        let (warm_ups, timed) = (of(RepetitionKind::Warmup), of(RepetitionKind::Timed));
        let gauge = session.gauge.filter(|gauge| gauge.is_for(&id)).cloned();
        Ok(Self { case, batches: case.batches(tokens), warm_ups, timed, gauge, spot: None })
    }

    /// All timed repetitions are there.
    pub(super) fn is_done(&self) -> bool {
        self.timed >= self.case.timed()
    }

    /// Repeats until times agree.
    pub(super) fn warm_up(&mut self, session: &mut Session<'_>) -> Result<Ending, RunError> {
        let mut warm_up = WarmUp::default();
        // What earlier cases left in it is not of this one.
        drop(session.engine.take_profile());
        while !warm_up.is_enough(&self.case.warm_up) {
            if session.stopped() {
                return Ok(Ending::Interrupted);
            }
            let times = repeat(session.engine, self.case.shape, &self.batches[0])?;
            warm_up.add(times.total_ns());
            let number = self.warm_ups;
            let line = record(session, self.case, RepetitionKind::Warmup, number, times);
            session.dir.append_request(&line)?;
            self.warm_ups += 1;
        }
        Ok(Ending::Complete)
    }

    /// One timed repetition, and its line.
    pub(super) fn repeat(&mut self, session: &mut Session<'_>, block: Option<u32>) -> Result<(), RunError> {
        let before = self.spot_before(block);
        let batch = &self.batches[self.timed % self.batches.len()];
        let times = repeat(session.engine, self.case.shape, batch)?;
        let line = record(session, self.case, RepetitionKind::Timed, self.timed, times);
        self.spot = self.gauge.as_ref().map(CaseGauge::measure);
        let spots = before.zip(self.spot.clone()).map(|(before, after)| Spots { before, after });
        let telemetry = session.telemetry();
        // In turns, two engines share the process and the cards: a peak is neither's.
        let alone = |peak: Option<u64>| peak.filter(|_| block.is_none());
        session.dir.append_request(&RequestRecord {
            block,
            peak_rss_bytes: alone(line.peak_rss_bytes),
            device_memory_bytes: alone(telemetry.iter().filter_map(|row| row.device_memory_bytes).max()),
            spots,
            ..line
        })?;
        session.append_telemetry(&telemetry)?;
        self.timed += 1;
        Ok(())
    }

    /// The spot after the last repetition, if nothing was run since.
    fn spot_before(&mut self, block: Option<u32>) -> Option<Spot> {
        let gauge = self.gauge.as_ref()?;
        // In turns the other side had its repetition meanwhile.
        let last = self.spot.take().filter(|_| block.is_none());
        Some(last.unwrap_or_else(|| gauge.measure()))
    }
}

fn record(
    session: &mut Session<'_>,
    case: &PerformanceRun,
    kind: RepetitionKind,
    number: usize,
    times: Repetition,
) -> RequestRecord {
    let shape = case.shape;
    let group = case.prompts.as_ref().map(|real| {
        let index = if kind == RepetitionKind::Timed { number % real.groups.len() } else { 0 };
        (index, &real.groups[index])
    });
    RequestRecord {
        case_id: case.case_id(),
        kind,
        repetition: number as u32,
        clock: session.clock(),
        tp: case.tp as u32,
        block: None,
        prompts: group.map(|(index, prompts)| GroupPrompts {
            group: index as u32,
            input_tokens: prompts.iter().map(|ids| ids.len() as u32).collect(),
        }),
        batch: shape.batch as u32,
        input_tokens: group.map_or(shape.input_tokens, |(_, prompts)| mean_tokens(prompts.iter())) as u32,
        output_tokens: shape.output_tokens as u32,
        start_ns: session.run_ns(times.start_ns),
        prefill_ns: times.prefill_ns,
        first_token_ns: session.run_ns(times.first_token_ns),
        step_ns: times.step_ns,
        end_ns: session.run_ns(times.end_ns),
        output_hash: times.output_hash,
        peak_rss_bytes: session.peak_memory(),
        device_memory_bytes: None,
        operators: session.engine.take_profile().iter().map(operator).collect(),
        spots: None,
        error: None,
    }
}

fn operator(time: &OperatorTime) -> OperatorRecord {
    OperatorRecord {
        phase: if time.kind == StepKind::Decode { Phase::Decode } else { Phase::Prefill },
        operator: time.operator.to_owned(),
        calls: time.totals.calls,
        time_ns: time.totals.time_ns,
        bytes: time.totals.bytes,
        flops: time.totals.flops,
    }
}
