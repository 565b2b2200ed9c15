//! A performance case: warm-ups until the times agree, then timed repetitions, with one line each.

use glmbench_engine::profile::OperatorTime;
use glmbench_engine::{EngineError, StepKind};

use super::plan::cost;
use super::schema::PerformanceCase;
use crate::backend::Capabilities;
use crate::bench::{OrdinaryTokens, PhaseCost, Repetition, Shape, WarmUp, WarmUpRule, prompts, repeat};
use crate::record::{
    self, Clock, Cost, GroupPrompts, OperatorRecord, Phase, RepetitionKind, RequestRecord, RooflineSample,
    RooflineSamples, TelemetryRow,
};
use crate::run::case_probe::CaseProbe;
use crate::run::cases::{Case, Planning, Recording, Room, Workload};
use crate::run::duration::{Counted, Expected, Rates};
use crate::run::machine::reset_peak_rss;
use crate::run::questions::{RealPrompts, input_hash, mean_tokens};
use crate::run::requests::Wanted;
use crate::run::{Ending, RunError, Session};
use crate::text::one_line;

/// A performance case that is ready to run.
#[derive(Debug, Clone)]
pub struct PerformanceRun {
    /// The shape. With real prompts, its input is the longest of them.
    pub shape: Shape,
    /// Real prompts; `None` for random tokens.
    pub prompts: Option<RealPrompts>,
    /// Number of tensor-parallel ranks.
    pub tp: usize,
    /// Why the case does not run, e.g. because the device cannot hold it; `None` if it runs.
    pub unfit: Option<String>,
    /// The largest batch of these lengths that fits a card's memory, by estimate; `None` off a card.
    pub largest_batch: Option<usize>,
    /// Memory of a chip for this case alone, in bytes, by estimate; `None` off a card.
    pub alone_bytes: Option<u64>,
    /// Timed repetitions; with real prompts, per batch of prompts.
    pub repetitions: usize,
    /// Rule for the end of the warm-up.
    pub warm_up: WarmUpRule,
    /// Seed of the prompts.
    pub seed: u64,
    /// Time budget in seconds. The case is excluded if its lower bound by the machine's measured limits is longer.
    pub budget_s: Option<u64>,
}

impl Case for PerformanceRun {
    fn id(&self) -> String {
        self.case_id()
    }

    fn tp(&self) -> usize {
        self.tp
    }

    fn room(&self) -> Room {
        let Shape { batch, .. } = self.shape;
        Room { optional: true, ..Room::of(batch, self.shape.sequence_tokens()) }
    }

    fn unfit(&self) -> Option<&str> {
        self.unfit.as_deref()
    }

    fn leave_out(&mut self, reason: String) {
        self.unfit = Some(reason);
    }

    fn needs(&self, can: Capabilities) -> Capabilities {
        Capabilities { ignores_end: true, step_times: !can.schedules, ..Capabilities::NONE }
    }

    fn input_hash(&self) -> Option<String> {
        self.prompts.as_ref().map(|prompts| input_hash(prompts.groups.iter().flatten()))
    }

    fn prompts(&self) -> Option<String> {
        let prompts = self.prompts.as_ref()?;
        Some(format!("{}: {}", self.case_id(), prompts.notes.join(", ")))
    }

    fn words(&self) -> Vec<String> {
        let mut lines = vec![format!("timing    {}: {} repetitions", self.case_id(), self.repetitions)];
        if let Some(prompts) = &self.prompts {
            lines.push(format!("          {}", one_line(&prompts.notes.join(", "))));
        }
        if let Some(budget_s) = self.budget_s {
            lines.push(format!(
                "          left out if this machine needs more than {budget_s} s at least, as measured then"
            ));
        }
        lines
    }

    fn wanted(&self) -> Option<Wanted> {
        let longest = match &self.prompts {
            Some(prompts) => prompts.groups.iter().flatten().map(Vec::len).max().unwrap_or(0),
            None => self.shape.input_tokens,
        };
        let one = Wanted::one(longest as u64, self.shape.output_tokens as u64);
        let (batch, timed) = (self.shape.batch as u64, self.timed() as u64);
        Some(one.times(batch).times(timed + self.warm_up.most as u64).at_least(batch * timed))
    }

    fn work(&self, on: Counted<'_>) -> u64 {
        let of_one = Counted::work_of(self.shape, || cost(self, on.config, on.precision, on.step_tokens));
        of_one.saturating_mul((self.timed() + self.warm_up.most) as u64)
    }

    /// Estimates all repetitions, warm-ups included.
    fn expected(&self, rates: Option<(&Rates, Counted<'_>)>) -> Expected {
        let Some((rates, counted)) = rates else { return Expected::Unknown };
        let cost = cost(self, counted.config, counted.precision, counted.step_tokens);
        // There is no second warm-up if the first took long.
        let warm_ups = |seconds: f64| {
            let most = if seconds * 1e9 >= self.warm_up.most_ns as f64 { 1 } else { self.warm_up.agreeing };
            self.warm_up.most.min(most)
        };
        let of_one = rates.phases(cost, self.tp, false);
        of_one.times(|seconds| (self.timed() + warm_ups(seconds)) as f64)
    }
}

impl Workload for PerformanceRun {
    type Table = PerformanceCase;
    type Recorded = record::PerformanceCase;

    fn plan(tables: &[PerformanceCase], on: Planning<'_>) -> Result<Vec<Self>, String> {
        super::plan::plan(tables, on)
    }

    fn record(&self, with: Recording<'_>) -> record::PerformanceCase {
        let shape = self.shape;
        let capacity = with.plan.capacity(self.tp);
        // The cost of a shape that does not fit into memory is not counted either.
        let costs =
            self.unfit.is_none().then(|| cost(self, with.config, with.precision, capacity.max_step_tokens));
        let cost = |c: PhaseCost| Cost { bytes: c.bytes, flops: c.flops };
        record::PerformanceCase {
            case_id: self.case_id(),
            tp: self.tp as u32,
            batch: shape.batch as u32,
            input_tokens: self.input_tokens() as u32,
            output_tokens: shape.output_tokens as u32,
            prompts: self.prompts.as_ref().map(RealPrompts::record),
            unfit: self.unfit.clone(),
            largest_batch: self.largest_batch.map(|batch| batch as u32),
            alone_bytes: self.alone_bytes,
            repetitions: self.repetitions as u32,
            seed: self.prompts.is_none().then_some(self.seed),
            prefill_cost: costs.map(|costs| cost(costs.prefill)),
            decode_cost: costs.map(|costs| cost(costs.decode)),
        }
    }

    fn is_done(&self, lines: &[RequestRecord]) -> bool {
        Recorded::of(self, lines).is_done(self)
    }

    fn run(&self, tokens: &OrdinaryTokens, session: &mut Session<'_>) -> Result<Ending, RunError> {
        run(self, tokens, session)
    }
}

impl PerformanceRun {
    /// Returns the name within a run: of the shape or of the prompts, plus the number of ranks if there are several.
    /// Examples: `b8-i128-o32-tp2`, `boolq-i128-b8-o32`.
    pub fn case_id(&self) -> String {
        let Shape { batch, output_tokens, .. } = self.shape;
        let shape = match &self.prompts {
            None => self.shape.case_id(),
            Some(prompts) => format!("{}-b{batch}-o{output_tokens}", prompts.name),
        };
        if self.tp == 1 { shape } else { format!("{shape}-tp{}", self.tp) }
    }

    /// Returns the prompt tokens per sequence; with real prompts their mean, rounded.
    pub fn input_tokens(&self) -> usize {
        self.prompts.as_ref().map_or(self.shape.input_tokens, RealPrompts::mean_tokens)
    }

    /// Returns the number of timed repetitions over all batches of prompts.
    pub(crate) fn timed(&self) -> usize {
        self.repetitions * self.prompts.as_ref().map_or(1, |prompts| prompts.groups.len())
    }

    /// Returns the batches of prompts, which the repetitions take in turn.
    fn batches(&self, tokens: &OrdinaryTokens) -> Vec<Vec<Vec<u32>>> {
        match &self.prompts {
            None => vec![prompts(self.shape, tokens, self.seed)],
            Some(real) => real.groups.clone(),
        }
    }
}

/// The number of lines of a case in the journal.
#[derive(Debug, Clone, Copy)]
struct Recorded {
    warm_ups: usize,
    timed: usize,
    /// A repetition failed, and every other would fail too.
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

/// Whether an error is caused by the case itself and would recur in every repetition. Other errors end the run.
fn is_of_case(error: &EngineError) -> bool {
    matches!(error, EngineError::NotFinite { .. } | EngineError::Request(_))
}

/// Runs the repetitions that have no line yet. An interrupted case is warmed up again.
/// A repetition that fails because of the case itself leaves a line with the error, and ends the case.
fn run(
    case: &PerformanceRun,
    tokens: &OrdinaryTokens,
    session: &mut Session<'_>,
) -> Result<Ending, RunError> {
    session.dir.restore::<record::PerformanceCase>(&case.case_id())?;
    let mut timing = Timing::new(case, tokens, session)?;
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
    let (id, done) = (timing.case.case_id(), timing.timed() as u64);
    // A rule ends the warm-up, so its length is not known.
    session.observer.begin(
        &format!("warm-up of {id}"),
        "repetitions",
        timing.case.warm_up.most.max(1) as u64,
        0,
    );
    if timing.warm_up(session)? == Ending::Interrupted {
        return Ok(Ending::Interrupted);
    }
    session.observer.begin(&id, "repetitions", timing.case.timed() as u64, done);
    while !timing.is_done() {
        if session.stopped() {
            return Ok(Ending::Interrupted);
        }
        timing.repeat(session)?;
        session.observer.advance();
    }
    Ok(Ending::Complete)
}

/// A timed repetition that is not written yet.
pub(crate) struct Measured {
    request: RequestRecord,
    telemetry: Vec<TelemetryRow>,
}

impl Measured {
    /// Removes the block number of a repetition without its counterpart, so that no block counts it.
    pub(crate) fn of_no_block(self) -> Self {
        Self { request: RequestRecord { block: None, ..self.request }, ..self }
    }
}

/// A case on one engine: its batches of prompts and the number of its lines.
pub(crate) struct Timing<'a> {
    case: &'a PerformanceRun,
    batches: Vec<Vec<Vec<u32>>>,
    recorded: Recorded,
    /// Measures the machine's limits around each repetition, if a target refers to the case.
    probe: Option<CaseProbe>,
    /// The limits measured after the last repetition.
    sample: Option<RooflineSample>,
}

impl<'a> Timing<'a> {
    /// Creates the timing of a case. Existing lines count.
    pub(crate) fn new(
        case: &'a PerformanceRun,
        tokens: &OrdinaryTokens,
        session: &Session<'_>,
    ) -> Result<Self, RunError> {
        let recorded = Recorded::of(case, &session.dir.read_requests()?);
        let probe = session.probe.filter(|probe| probe.is_for(&case.case_id())).cloned();
        Ok(Self { case, batches: case.batches(tokens), recorded, probe, sample: None })
    }

    /// Returns the number of recorded timed repetitions.
    pub(crate) fn timed(&self) -> usize {
        self.recorded.timed
    }

    /// Whether all timed repetitions are recorded, or one failed.
    pub(crate) fn is_done(&self) -> bool {
        self.recorded.is_done(self.case)
    }

    /// Repeats until the times agree, or a repetition fails.
    pub(crate) fn warm_up(&mut self, session: &mut Session<'_>) -> Result<Ending, RunError> {
        let mut warm_up = WarmUp::default();
        if !self.is_done() {
            session.start_afresh()?;
        }
        if session.clock() == Clock::Modelled && !self.is_done() {
            // Writes a line only if it fails. It builds the plans and allocates the memory that the case needs.
            if let Err(error) = repeat(session.engine, self.case.shape, &self.batches[0]) {
                self.fail_warm_up(session, error)?;
            }
            session.go_on_from_lines()?;
        }
        // Discards the profile of earlier cases.
        drop(session.engine.take_profile());
        while !self.is_done() && !warm_up.is_enough(&self.case.warm_up) {
            if session.stopped() {
                return Ok(Ending::Interrupted);
            }
            let number = self.recorded.warm_ups;
            match repeat(session.engine, self.case.shape, &self.batches[0]) {
                Ok(times) => {
                    warm_up.add(times.total_ns());
                    let line = line(session, self.case, RepetitionKind::Warmup, number, times);
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

    /// Returns the line of a repetition that failed because of the case itself, which ends the case. Passes on any
    /// other error.
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
        let line = line(session, self.case, kind, number, nothing);
        Ok(RequestRecord { error: Some(error.to_string()), peak_rss_bytes: None, ..line })
    }

    /// Runs one timed repetition and writes its line.
    pub(crate) fn repeat(&mut self, session: &mut Session<'_>) -> Result<(), RunError> {
        let line = self.measure(session, self.recorded.timed, None)?;
        self.keep(session, &line)
    }

    /// Runs one timed repetition without writing its line.
    pub(crate) fn measure(
        &mut self,
        session: &mut Session<'_>,
        repetition: usize,
        block: Option<u32>,
    ) -> Result<Measured, RunError> {
        let before = self.sample_before(block);
        let batch = &self.batches[repetition % self.batches.len()];
        session.forget_peak();
        let times = match repeat(session.engine, self.case.shape, batch) {
            Ok(times) => times,
            Err(error) => {
                let request = self.failed(session, RepetitionKind::Timed, repetition, error)?;
                return Ok(Measured { request: RequestRecord { block, ..request }, telemetry: Vec::new() });
            }
        };
        let line = line(session, self.case, RepetitionKind::Timed, repetition, times);
        self.sample = self.probe.as_ref().map(CaseProbe::measure);
        let roofline_samples =
            before.zip(self.sample.clone()).map(|(before, after)| RooflineSamples { before, after });
        let telemetry = session.telemetry();
        // When taking turns, two engines share the process and the cards, so a peak belongs to neither.
        let alone = |peak: Option<u64>| peak.filter(|_| block.is_none());
        let request = RequestRecord {
            block,
            peak_rss_bytes: alone(line.peak_rss_bytes),
            device_memory_bytes: alone(session.peak_device_memory()),
            roofline_samples,
            ..line
        };
        Ok(Measured { request, telemetry })
    }

    /// Writes the line of a timed repetition.
    pub(crate) fn keep(&mut self, session: &mut Session<'_>, line: &Measured) -> Result<(), RunError> {
        session.dir.append_request(&line.request)?;
        session.append_telemetry(&line.telemetry)?;
        session.sample_server()?;
        self.recorded.timed += 1;
        Ok(())
    }

    /// Returns the limits measured after the last repetition if nothing ran since, else measures them.
    fn sample_before(&mut self, block: Option<u32>) -> Option<RooflineSample> {
        let probe = self.probe.as_ref()?;
        // When taking turns, the other side ran its repetition in the meantime.
        let last = self.sample.take().filter(|_| block.is_none());
        Some(last.unwrap_or_else(|| probe.measure()))
    }
}

fn line(
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
        operators: session.engine.take_profile().iter().filter_map(operator).collect(),
        roofline_samples: None,
        error: None,
    }
}

/// Returns an operator's record. `None` for steps of both phases or of none, which a repetition does not have.
fn operator(time: &OperatorTime) -> Option<OperatorRecord> {
    let phase = match time.kind {
        StepKind::Prefill => Phase::Prefill,
        StepKind::Decode => Phase::Decode,
        StepKind::Mixed | StepKind::Idle => return None,
    };
    Some(OperatorRecord {
        phase,
        operator: time.operator.to_owned(),
        calls: time.totals.calls,
        time_ns: time.totals.time_ns,
        bytes: time.totals.bytes,
        flops: time.totals.flops,
    })
}
