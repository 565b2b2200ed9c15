//! The rows of `load.csv`, from the levels of a run.

use crate::language::{Text, ToText, text};
use crate::record::{
    LoadCase, LoadLevelRecord, LoadRequest, LoadRow, Objective, RunRecord, SCHEMA, rate_text,
};
use crate::report::format::NONE;
use crate::report::performance::p99;
use crate::stats::{LEAST_EVENTS_PER_TOKEN, LEAST_FOR_GROWTH, quantile};

/// Returns a row for each level, load by load in plan order.
pub fn load_rows(run: &RunRecord, levels: &[LoadLevelRecord]) -> Vec<LoadRow> {
    let of_case = |case: &LoadCase| {
        let own = levels.iter().filter(|level| level.load_id == case.load_id);
        own.map(|level| row(run, case, level)).collect::<Vec<_>>()
    };
    run.plan.loads.iter().flat_map(of_case).collect()
}

/// Times of one kind, with quantiles in integer nanoseconds.
struct Times(Vec<f64>);

impl Times {
    fn of(requests: &[&LoadRequest], time: impl Fn(&LoadRequest) -> Option<f64>) -> Self {
        Self(requests.iter().filter_map(|r| time(r)).collect())
    }

    fn at(&self, q: f64) -> Option<u64> {
        quantile(&self.0, q).map(|ns| ns.round() as u64)
    }

    fn p99(&self) -> Option<u64> {
        p99(&self.0).map(|ns| ns.round() as u64)
    }
}

fn row(run: &RunRecord, case: &LoadCase, level: &LoadLevelRecord) -> LoadRow {
    let from = &run.provenance;
    let served: Vec<&LoadRequest> = level.served().collect();
    // A server does not tell how long a request waited.
    let queue = Times::of(&served, |r| r.wire.is_none().then(|| r.queue_ns() as f64));
    let ttft = Times::of(&served, |r| Some(r.ttft_ns() as f64));
    let events = events_per_token(&served);
    let tells_tokens = events.is_none_or(|ratio| ratio >= LEAST_EVENTS_PER_TOKEN);
    let tpot = Times::of(&served, |r| r.tpot_ns().filter(|_| tells_tokens));
    let gaps = served.iter().filter(|_| tells_tokens);
    let itl = Times(gaps.flat_map(|r| &r.itl_ns).map(|&ns| ns as f64).collect());
    let ttft_sent = Times::of(&served, |r| Some(r.ttft_sent_ns()? as f64));
    let e2e_sent = Times::of(&served, |r| Some(r.e2e_sent_ns()? as f64));
    let connect = Times::of(&served, |r| Some(r.wire.as_ref()?.connect_ns as f64));
    // A request that failed was sent as well.
    let all: Vec<&LoadRequest> = level.requests.iter().collect();
    let late = Times::of(&all, |r| Some(r.late_ns()? as f64));
    let e2e = Times::of(&served, |r| Some(r.e2e_ns() as f64));
    let duration_ns = level.end_ns.saturating_sub(level.start_ns);
    let per_s = |count: f64| (duration_ns > 0).then(|| count / (duration_ns as f64 / 1e9));
    let output_tokens = served.iter().map(|r| u64::from(r.output_tokens)).sum::<u64>();
    let good = level.requests.iter().filter(|r| case.objectives.keeps(r)).count() as f64;
    let stated = !case.objectives.is_empty() && !level.requests.is_empty();
    let is_told = stated && served.iter().all(|r| case.objectives.are_told(r));
    let growth = level.growth();
    let moved = level.rate_per_s.and_then(|_| Moved::by_late_sending(&served));
    LoadRow {
        schema: SCHEMA,
        run_id: run.run_id.clone(),
        load_id: case.load_id.clone(),
        level: level.level,
        engine: from.engine.clone(),
        device: from.device.clone(),
        clock: level.clock,
        dtype: from.dtype.clone(),
        tp: case.tp,
        threads: from.threads,
        arrival: case.arrival.clone(),
        max_batch: case.max_batch,
        rate_per_s: level.rate_per_s,
        concurrency: level.concurrency,
        offered_per_s: offered_per_s(level),
        achieved_per_s: level.achieved_per_s(),
        requests: level.requests.len() as u64,
        failed: (level.requests.len() - served.len()) as u64,
        duration_ns,
        input_tokens: served.iter().map(|r| u64::from(r.input_tokens)).sum(),
        output_tokens,
        output_tokens_per_s: per_s(output_tokens as f64),
        queue_p50_ns: queue.at(0.5),
        queue_p90_ns: queue.at(0.9),
        queue_max_ns: queue.at(1.0),
        ttft_p50_ns: ttft.at(0.5),
        ttft_p90_ns: ttft.at(0.9),
        ttft_p99_ns: ttft.p99(),
        ttft_max_ns: ttft.at(1.0),
        tpot_p50_ns: tpot.at(0.5),
        tpot_p90_ns: tpot.at(0.9),
        tpot_p99_ns: tpot.p99(),
        tpot_max_ns: tpot.at(1.0),
        itl_p50_ns: itl.at(0.5),
        itl_p90_ns: itl.at(0.9),
        itl_p99_ns: itl.p99(),
        itl_max_ns: itl.at(1.0),
        e2e_p50_ns: e2e.at(0.5),
        e2e_p90_ns: e2e.at(0.9),
        e2e_p99_ns: e2e.p99(),
        e2e_max_ns: e2e.at(1.0),
        slo_ttft_ns: case.objectives.ttft.map(Objective::ns),
        slo_tpot_ns: case.objectives.tpot.map(Objective::ns),
        slo_e2e_ns: case.objectives.e2e.map(Objective::ns),
        goodput_share: is_told.then(|| good / level.requests.len() as f64),
        goodput_per_s: per_s(good).filter(|_| is_told),
        growth_slope: growth.map(|g| g.slope),
        growth_low: growth.map(|g| g.low),
        saturated: level.is_saturated(),
        ttft_sent_p50_ns: ttft_sent.at(0.5),
        ttft_sent_p99_ns: ttft_sent.p99(),
        connect_p50_ns: connect.at(0.5),
        late_p99_ns: late.p99().or_else(|| late.at(1.0)),
        events_per_token: events,
        e2e_sent_p50_ns: e2e_sent.at(0.5),
        e2e_sent_p99_ns: e2e_sent.p99(),
        host: run.host_of(&case.load_id).to_owned(),
        resent: over_wire(level).then(|| resent(level)),
        late_moved_ns: moved.map(|moved| moved.by_ns),
        late_limit_ns: moved.map(|moved| moved.limit_ns),
        scheduling: (!over_wire(level))
            .then(|| level.scheduling.clone().unwrap_or_else(|| LoadRow::PREFILL_FIRST.to_owned())),
    }
}

/// How far late sending moved a quantile of the time to first token, and how far it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moved {
    by_ns: u64,
    limit_ns: u64,
}

impl Moved {
    /// A shift that is of no account however short the times are, in nanoseconds.
    const LEAST_LIMIT_NS: u64 = 1_000_000;

    /// Compares the stated quantiles of TTFT with what they would be if no request had been sent late. Returns the one nearest to its
    /// limit; `None` without requests over a wire.
    ///
    /// A share of late requests would say less: of 60 requests, one is more than 1 %, and it moves neither median nor 90 % quantile.
    fn by_late_sending(served: &[&LoadRequest]) -> Option<Self> {
        let ttft = Times::of(served, |r| r.late_ns().map(|_| r.ttft_ns() as f64));
        let punctual = Times::of(served, |r| Some(r.ttft_ns().saturating_sub(r.late_ns()?) as f64));
        let stated = [
            (ttft.at(0.5), punctual.at(0.5)),
            (ttft.at(0.9), punctual.at(0.9)),
            (ttft.p99(), punctual.p99()),
        ];
        let moved = |(with, without): (Option<u64>, Option<u64>)| {
            let (with, without) = (with?, without?);
            Some(Self { by_ns: with.saturating_sub(without), limit_ns: Self::LEAST_LIMIT_NS.max(with / 100) })
        };
        let share = |moved: &Self| moved.by_ns as f64 / moved.limit_ns as f64;
        stated.into_iter().filter_map(moved).max_by(|a, b| share(a).total_cmp(&share(b)))
    }
}

/// Returns how many requests of a level were sent again.
pub(super) fn resent(level: &LoadLevelRecord) -> u64 {
    let wires = level.requests.iter().filter_map(|request| request.wire.as_ref());
    wires.filter(|wire| wire.attempts > 1).count() as u64
}

fn over_wire(level: &LoadLevelRecord) -> bool {
    level.requests.iter().any(|request| request.wire.is_some())
}

/// Returns the events that carried text or tokens over a wire, for each generated token. `None` for an engine in this
/// process.
fn events_per_token(served: &[&LoadRequest]) -> Option<f64> {
    let events = served.iter().filter_map(|r| Some(r.wire.as_ref()?.events)).fold(0, u64::saturating_add);
    let over_wire = served.iter().filter(|r| r.wire.is_some());
    let tokens: u64 = over_wire.map(|r| u64::from(r.output_tokens)).sum();
    (tokens > 0).then(|| events as f64 / tokens as f64)
}

/// Arrival rate per second as it occurred. `None` for a single request, if all arrive at once, and in a closed loop.
fn offered_per_s(level: &LoadLevelRecord) -> Option<f64> {
    if level.concurrency.is_some() {
        return None;
    }
    let (first, last) = (level.requests.first()?.arrival_ns, level.requests.last()?.arrival_ns);
    let seconds = last.checked_sub(first).filter(|ns| *ns > 0)? as f64 / 1e9;
    Some((level.requests.len() - 1) as f64 / seconds)
}

impl LoadRow {
    /// The rate or concurrency, formatted.
    pub(crate) fn rate_words(&self) -> Text {
        match (self.concurrency, self.rate_per_s) {
            (Some(requests), _) => requests.to_text(),
            (None, Some(rate)) => rate_text(rate).into(),
            (None, None) => text!("all at once"),
        }
    }

    /// What orders the rows of a load.
    pub(super) fn place(&self) -> f64 {
        self.concurrency.map(f64::from).or(self.rate_per_s).unwrap_or(0.0)
    }

    /// Whether the row is of a server.
    pub(super) fn is_over_wire(&self) -> bool {
        self.events_per_token.is_some() || self.late_p99_ns.is_some()
    }

    /// `yes`, `no`, or why it is unknown.
    pub(crate) fn saturated_words(&self) -> Text {
        match self.saturated {
            Some(true) => text!("yes"),
            Some(false) => text!("no"),
            None if (self.requests as usize) < LEAST_FOR_GROWTH && self.rate_per_s.is_some() => {
                text!("too few to say")
            }
            None => NONE.into(),
        }
    }
}

/// The rows of one load by rate. All requests at once come first.
pub(super) fn of_load<'a>(case: &LoadCase, rows: &'a [LoadRow]) -> Vec<&'a LoadRow> {
    let mut own: Vec<&LoadRow> = rows.iter().filter(|row| row.load_id == case.load_id).collect();
    own.sort_by(|a, b| a.place().total_cmp(&b.place()));
    own
}
