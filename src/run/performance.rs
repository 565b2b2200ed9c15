//! A performance case: warm-ups until times agree, then timed repetitions, a line each.

use crate::bench::{OrdinaryTokens, Repetition, Shape, WarmUp, WarmUpRule, prompts, repeat};
use crate::engine::profile::OperatorTime;
use crate::engine::{EngineError, StepKind};
use crate::record::{
    Clock, GroupPrompts, OperatorRecord, Phase, RepetitionKind, RequestRecord, RunDir, Spot, Spots,
    TelemetryRow,
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

/// Every case of so many ranks is at its end: it has all its timed repetitions, or one that failed.
pub(super) fn is_done(plan: &Plan<'_>, world: usize, dir: &RunDir) -> Result<bool, RunError> {
    let records = dir.read_requests()?;
    let is_done = |case: &PerformanceRun| Recorded::of(case, &records).is_done(case);
    let mut cases = plan.performance.iter().filter(|case| case.tp == world && case.unfit.is_none());
    Ok(cases.all(is_done))
}

/// What the journal has of a case.
#[derive(Debug, Clone, Copy)]
struct Recorded {
    warm_ups: usize,
    timed: usize,
    /// A repetition failed, and every other would.
    failed: bool,
}

impl Recorded {
    fn of(case: &PerformanceRun, records: &[RequestRecord]) -> Self {
        let id = case.case_id();
        let own = || records.iter().filter(|r| r.case_id == id);
        let count = |kind| own().filter(|r| r.kind == kind).count();
        Self {
            warm_ups: count(RepetitionKind::Warmup),
            timed: count(RepetitionKind::Timed),
            failed: own().any(|r| r.error.is_some()),
        }
    }

    fn is_done(self, case: &PerformanceRun) -> bool {
        self.failed || self.timed >= case.timed()
    }
}

/// Whether an error is the case's own, which it would have again however often it is run; the others end the run.
fn is_of_case(error: &EngineError) -> bool {
    matches!(error, EngineError::NotFinite { .. } | EngineError::Request(_))
}

/// Runs the repetitions that have no line yet; an interrupted case is warmed up again. A repetition that fails by the case's
/// own fault leaves a line that says so, and ends the case.
pub(super) fn run(
    case: &PerformanceRun,
    tokens: &OrdinaryTokens,
    session: &mut Session<'_>,
) -> Result<Ending, RunError> {
    session.dir.restore_requests(&case.case_id())?;
    let mut timing = Timing::new(case, tokens, session)?;
    let done = timing.timed() as u64;
    session.observer.begin(&case.case_id(), "repetitions", case.timed() as u64, done);
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
        timing.repeat(session)?;
        session.observer.advance();
    }
    Ok(Ending::Complete)
}

/// A timed repetition of which nothing is written yet.
pub(super) struct Measured {
    request: RequestRecord,
    telemetry: Vec<TelemetryRow>,
}

impl Measured {
    /// Timed without its other half, so that no block may count it.
    pub(super) fn of_no_block(self) -> Self {
        Self { request: RequestRecord { block: None, ..self.request }, ..self }
    }
}

/// A case on one engine: its batches of prompts, and how many lines it has.
pub(super) struct Timing<'a> {
    case: &'a PerformanceRun,
    batches: Vec<Vec<Vec<u32>>>,
    recorded: Recorded,
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
        let recorded = Recorded::of(case, &session.dir.read_requests()?);
        let gauge = session.gauge.filter(|gauge| gauge.is_for(&case.case_id())).cloned();
        Ok(Self { case, batches: case.batches(tokens), recorded, gauge, spot: None })
    }

    /// Timed repetitions that are recorded.
    pub(super) fn timed(&self) -> usize {
        self.recorded.timed
    }

    /// All timed repetitions are there, or one failed.
    pub(super) fn is_done(&self) -> bool {
        self.recorded.is_done(self.case)
    }

    /// Repeats until times agree, or a repetition fails.
    pub(super) fn warm_up(&mut self, session: &mut Session<'_>) -> Result<Ending, RunError> {
        let mut warm_up = WarmUp::default();
        if !self.is_done() {
            session.start_afresh()?;
        }
        if session.clock() == Clock::Modelled && !self.is_done() {
            // Not a line unless it fails: it makes the plans and takes the memory that the case wants.
            if let Err(error) = repeat(session.engine, self.case.shape, &self.batches[0]) {
                self.fail_warm_up(session, error)?;
            }
            session.go_on_from_lines()?;
        }
        // What earlier cases left in it is not of this one.
        drop(session.engine.take_profile());
        while !self.is_done() && !warm_up.is_enough(&self.case.warm_up) {
            if session.stopped() {
                return Ok(Ending::Interrupted);
            }
            let number = self.recorded.warm_ups;
            match repeat(session.engine, self.case.shape, &self.batches[0]) {
                Ok(times) => {
                    warm_up.add(times.total_ns());
                    let line = record(session, self.case, RepetitionKind::Warmup, number, times);
                    session.dir.append_request(&line)?;
                }
                Err(error) => {
                    self.fail_warm_up(session, error)?;
                    continue;
                }
            }
            self.recorded.warm_ups += 1;
        }
        Ok(Ending::Complete)
    }

    fn fail_warm_up(&mut self, session: &mut Session<'_>, error: EngineError) -> Result<(), RunError> {
        let line = self.failed(session, RepetitionKind::Warmup, self.recorded.warm_ups, error)?;
        session.dir.append_request(&line)?;
        self.recorded.warm_ups += 1;
        Ok(())
    }

    /// The line of a repetition that failed by the case's own fault, which ends the case; any other error is the run's.
    fn failed(
        &mut self,
        session: &mut Session<'_>,
        kind: RepetitionKind,
        number: usize,
        error: EngineError,
    ) -> Result<RequestRecord, RunError> {
        if !is_of_case(&error) {
            return Err(error.into());
        }
        let now = session.engine.now_ns();
        let nothing = Repetition {
            start_ns: now,
            prefill_ns: 0,
            first_token_ns: now,
            step_ns: Vec::new(),
            end_ns: now,
            output_hash: String::new(),
        };
        self.recorded.failed = true;
        let line = record(session, self.case, kind, number, nothing);
        Ok(RequestRecord { error: Some(error.to_string()), peak_rss_bytes: None, ..line })
    }

    /// One timed repetition, and its line.
    pub(super) fn repeat(&mut self, session: &mut Session<'_>) -> Result<(), RunError> {
        let line = self.measure(session, self.recorded.timed, None)?;
        self.keep(session, &line)
    }

    /// One timed repetition, of which nothing is written yet.
    pub(super) fn measure(
        &mut self,
        session: &mut Session<'_>,
        repetition: usize,
        block: Option<u32>,
    ) -> Result<Measured, RunError> {
        let before = self.spot_before(block);
        let batch = &self.batches[repetition % self.batches.len()];
        let times = match repeat(session.engine, self.case.shape, batch) {
            Ok(times) => times,
            Err(error) => {
                let request = self.failed(session, RepetitionKind::Timed, repetition, error)?;
                return Ok(Measured { request: RequestRecord { block, ..request }, telemetry: Vec::new() });
            }
        };
        let line = record(session, self.case, RepetitionKind::Timed, repetition, times);
        self.spot = self.gauge.as_ref().map(CaseGauge::measure);
        let spots = before.zip(self.spot.clone()).map(|(before, after)| Spots { before, after });
        let telemetry = session.telemetry();
        // In turns, two engines share the process and the cards: a peak is neither's.
        let alone = |peak: Option<u64>| peak.filter(|_| block.is_none());
        let request = RequestRecord {
            block,
            peak_rss_bytes: alone(line.peak_rss_bytes),
            device_memory_bytes: alone(telemetry.iter().filter_map(|row| row.device_memory_bytes).max()),
            spots,
            ..line
        };
        Ok(Measured { request, telemetry })
    }

    /// Writes the line of a timed repetition.
    pub(super) fn keep(&mut self, session: &mut Session<'_>, line: &Measured) -> Result<(), RunError> {
        session.dir.append_request(&line.request)?;
        session.append_telemetry(&line.telemetry)?;
        self.recorded.timed += 1;
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
