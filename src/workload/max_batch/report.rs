//! Max-batch searches: turns probes into the rows of `max_batch.csv`, tables, sentences and conditions.

use crate::language::{Language, Text, ToText, cells, text, texts};
use crate::record::{
    Clock, Objective, Phase, ProbeOutcome, ProbeRecord, ProbeRow, RunRecord, SCHEMA, SearchAnswer,
    SearchCase, Status, search_answer,
};
use crate::report::charts::lines::LineChart;
use crate::report::check::{Check, Outcome, yes_if};
use crate::report::csv_file::Csv;
use crate::report::followed;
use crate::report::format::{bytes, decimals, fixed, or_none, significant};
use crate::report::modelled::{self, Figure};
use crate::report::table::{Column, Row, Table};
use crate::report::validity::found_in;
use crate::report::workloads::{Part, Reported};

/// Definitions at the foot of a report with searches.
const DEFINITIONS: &[(Text, Text)] = &[
    (
        text!("Largest batch"),
        text!(
            "the largest batch of the range that keeps the limits in every probe of it and of smaller batches. The limits are on the \
         median TPOT, decode time ÷ (output tokens − 1), ModelTest's non-first token time. Where stated, they are also on the \
         median TTFT of the whole batch. Found on one loaded model by doubling and halving; at the end it and its neighbour are \
         measured once more. One warm-up before the repetitions of each probe."
        ),
    ),
    (
        text!("Card memory"),
        text!(
            "peak memory in use on one card during the repetitions of a probe, by the runtime (emulated: by the emulator's \
         allocator) and this program's allocations. The KV blocks are those of the largest batch of the range that fits."
        ),
    ),
    (
        text!("Out of memory, too slow"),
        text!(
            "out of memory: the KV blocks for the batch were not to be had, by the estimate before loading or by the device. Too \
         slow: it ran and passed a limit. Neither is taken for the other; any other error ends a search."
        ),
    ),
];

/// The probes of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct SearchReport {
    probes: Vec<ProbeRecord>,
    rows: Vec<ProbeRow>,
}

impl SearchReport {
    /// The probes of all searches.
    pub(super) fn probes(&self) -> &[ProbeRecord] {
        &self.probes
    }
}

impl Part for SearchReport {
    fn tables(&self, run: &RunRecord) -> Vec<Table> {
        vec![answers(run, &self.probes)]
    }

    fn details(&self, run: &RunRecord) -> Vec<Table> {
        run.plan.searches.iter().map(|case| probes_of(case, run, &self.probes)).collect()
    }

    fn checks(&self, run: &RunRecord) -> Vec<Check> {
        checks(run, &self.probes)
    }

    fn sentences(&self, run: &RunRecord) -> Vec<Text> {
        sentences(run, &self.probes)
    }

    fn csv(&self) -> Result<Option<Csv>, csv::Error> {
        Csv::of("max_batch.csv", ProbeRow::HEADER, &self.rows).map(Some)
    }

    fn figures(&self) -> Vec<Figure> {
        let mut all: Vec<Figure> = Vec::new();
        // The answer and its neighbour are probed twice.
        for figure in self.rows.iter().flat_map(figures) {
            if !all.contains(&figure) {
                all.push(figure);
            }
        }
        all
    }

    fn history(&self, run: &RunRecord) -> Vec<followed::Figure> {
        super::history::figures(run, &self.probes)
    }

    fn charts(&self, run: &RunRecord, language: Language) -> Vec<(String, LineChart)> {
        super::charts::describe(run, &self.rows, language)
    }
}

impl Reported for SearchReport {
    type Case = SearchCase;
    const DEFINITIONS: &'static [(Text, Text)] = DEFINITIONS;
    const NAMES: [&'static str; 2] = ["max-batch search", "max-batch searches"];

    fn of(run: &RunRecord, probes: &[ProbeRecord]) -> Self {
        Self { probes: probes.to_vec(), rows: probe_rows(run, probes) }
    }
}

/// Returns a row for each probe, search by search in plan order.
pub fn probe_rows(run: &RunRecord, probes: &[ProbeRecord]) -> Vec<ProbeRow> {
    let from = &run.provenance;
    let of_case = |case: &SearchCase| {
        let own = own(case, probes);
        let answer = search_answer(&own);
        let row = |probe: ProbeRecord| ProbeRow {
            schema: SCHEMA,
            run_id: run.run_id.clone(),
            search_id: case.search_id.clone(),
            engine: from.engine.clone(),
            device: from.device.clone(),
            clock: probe.clock,
            dtype: from.dtype.clone(),
            tp: case.tp,
            threads: from.threads,
            input_tokens: case.input_tokens,
            output_tokens: case.output_tokens,
            limit_tpot_ns: case.limit_tpot.ns(),
            limit_ttft_ns: case.limit_ttft.map(Objective::ns),
            probe: probe.probe,
            purpose: probe.purpose,
            batch: probe.batch,
            outcome: probe.outcome,
            reps: probe.repetitions.len() as u64,
            ttft_ns: probe.ttft_ns,
            tpot_ns: probe.tpot_ns,
            decode_tokens_per_s: decode_rate(&probe),
            wanted_bytes: probe.wanted_bytes,
            reason: probe.reason,
            answer: probe.outcome == ProbeOutcome::Fits && probe.batch == answer.batch,
            host: run.host_of(&case.search_id).to_owned(),
        };
        own.into_iter().map(row).collect::<Vec<_>>()
    };
    run.plan.searches.iter().flat_map(of_case).collect()
}

/// The times of a probe.
fn figures(row: &ProbeRow) -> impl Iterator<Item = Figure> {
    let times = [(Phase::Prefill, row.ttft_ns), (Phase::Decode, row.tpot_ns)];
    times.into_iter().filter(|(_, ns)| ns.is_some()).map(|(phase, _)| Figure {
        case_id: row.search_id.clone(),
        phase,
        tp: row.tp,
        lengths: [row.batch, row.input_tokens, row.output_tokens],
    })
}

/// The probes of one search, in order.
fn own(case: &SearchCase, probes: &[ProbeRecord]) -> Vec<ProbeRecord> {
    probes.iter().filter(|p| p.search_id == case.search_id).cloned().collect()
}

fn decode_rate(probe: &ProbeRecord) -> Option<f64> {
    probe.tpot_ns.filter(|ns| *ns > 0).map(|ns| f64::from(probe.batch) / (ns as f64 / 1e9))
}

/// Result of a search, for comparison with another run's.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchOutcome {
    /// Largest batch within the limits; 0 if no batch is. `None` without probes.
    pub batch: Option<u32>,
    /// Time per token after the first at that batch.
    pub tpot_ns: Option<u64>,
    /// Number of probes.
    pub probes: u64,
    /// What stopped the search: `17: too slow`, the end of the range, or a failure. Also names contradictory probes.
    pub stopped: Text,
}

/// Returns the result of one search of a run.
pub(super) fn outcome(case: &SearchCase, probes: &[ProbeRecord]) -> SearchOutcome {
    let probes = own(case, probes);
    let found = Found { case, answer: search_answer(&probes), probes };
    let next = || found.next().map_or_else(|| text!("the range's end"), outcome_words);
    let stopped = match (&found.answer.failure, &found.answer.contradiction) {
        (Some(failure), _) => text!("a failure, {failure}", failure),
        (None, Some(these)) => text!("{next}, but {these}", next = next(), these),
        (None, None) => next(),
    };
    SearchOutcome {
        batch: (!found.probes.is_empty()).then_some(found.answer.batch),
        tpot_ns: found.best().and_then(|best| best.tpot_ns),
        probes: found.probes.len() as u64,
        stopped,
    }
}

/// `17: too slow`.
fn outcome_words(probe: &ProbeRecord) -> Text {
    text!("{batch}: {outcome}", batch = probe.batch, outcome = probe.outcome.words())
}

/// A search of the plan with its probes and answer.
struct Found<'a> {
    case: &'a SearchCase,
    answer: SearchAnswer,
    probes: Vec<ProbeRecord>,
}

impl Found<'_> {
    /// The last measurement of the answer.
    fn best(&self) -> Option<&ProbeRecord> {
        let fits = |p: &&ProbeRecord| p.outcome == ProbeOutcome::Fits && p.batch == self.answer.batch;
        self.probes.iter().rfind(fits)
    }

    /// If probes contradict one another, the largest batch that fitted once. The true answer lies between the largest
    /// batch without contradiction and this one.
    fn perhaps(&self) -> Option<u32> {
        self.answer.contradiction.as_ref()?;
        self.probes.iter().filter(|p| p.outcome == ProbeOutcome::Fits).map(|p| p.batch).max()
    }

    /// The largest batch, formatted.
    fn batch_words(&self) -> Text {
        match self.perhaps() {
            _ if self.probes.is_empty() => crate::report::format::NONE.into(),
            Some(perhaps) => text!("{batch} to {perhaps}", batch = self.answer.batch, perhaps),
            None => self.answer.batch.to_text(),
        }
    }

    /// The smallest batch that does not fit.
    fn next(&self) -> Option<&ProbeRecord> {
        self.probes.iter().filter(|p| p.outcome != ProbeOutcome::Fits).min_by_key(|p| p.batch)
    }
}

fn found<'a>(run: &'a RunRecord, probes: &[ProbeRecord]) -> Vec<Found<'a>> {
    let of_case = |case: &'a SearchCase| {
        let probes = own(case, probes);
        Found { case, answer: search_answer(&probes), probes }
    };
    run.plan.searches.iter().map(of_case).collect()
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// One row per search: its answer.
fn answers(run: &RunRecord, probes: &[ProbeRecord]) -> Table {
    let all = found(run, probes);
    let best = |of: fn(&ProbeRecord) -> Option<f64>| -> Vec<Option<f64>> {
        all.iter().map(|f| f.best().and_then(of)).collect()
    };
    let cells = |values: Vec<Option<f64>>| -> Vec<Text> {
        let places = decimals(values.iter().flatten().copied());
        values.into_iter().map(|value| fixed(value, places).into()).collect()
    };
    let (tpot, ttft) = (cells(best(|p| p.tpot_ns.map(ms))), cells(best(|p| p.ttft_ns.map(ms))));
    let rate = cells(best(decode_rate));
    let memory: Vec<Option<u64>> = all.iter().map(|f| f.best()?.device_memory_bytes).collect();
    let on_card = memory.iter().any(Option::is_some);
    let row = |(i, f): (usize, &Found<'_>)| {
        let case = f.case;
        let next = or_none(f.next(), outcome_words);
        let agreement = match (&f.answer.failure, &f.answer.contradiction) {
            (Some(_), _) => text!("FAILED"),
            (None, Some(_)) => text!("NO"),
            (None, None) => text!("yes"),
        };
        let mut cells = cells![
            case.tp,
            case.input_tokens,
            case.output_tokens,
            text!("{low} to {high}", low = case.low, high = case.high),
            limit(case.limit_tpot),
            or_none(case.limit_ttft, limit),
            f.batch_words(),
            tpot[i],
            ttft[i],
            rate[i],
        ];
        for phase in [Phase::Decode, Phase::Prefill] {
            // Without an answer there is no time.
            let error = error_of(run, case, f.answer.batch, phase);
            cells.extend(
                error.map(|error| modelled::short(Some(error).filter(|_| f.best().is_some())).into()),
            );
        }
        cells.extend(on_card.then(|| or_none(memory[i], bytes).into()));
        cells.extend(cells![f.probes.len(), next, agreement]);
        Row { cells, strong: false }
    };
    let numeric = texts![
        "TP",
        "In",
        "Out",
        "Range",
        "TPOT limit ms",
        "TTFT limit ms",
        "Largest batch",
        "TPOT ms",
        "TTFT ms",
        "Decode tokens/s",
    ];
    let modelled = run.provenance.clock == Clock::Modelled;
    let errors = modelled.then_some(texts!["TPOT error", "TTFT error"]).into_iter().flatten();
    let names = numeric
        .into_iter()
        .chain(errors)
        .chain(on_card.then_some(text!("Card memory")))
        .chain([text!("Probes")]);
    let columns = names.map(|name| Column { name, numeric: true });
    let text =
        texts!["Smallest that does not fit", "Probes agree"].map(|name| Column { name, numeric: false });
    Table {
        title: text!("Largest batch within limits, {clock} (medians)", clock = run.provenance.clock),
        columns: columns.chain(text).collect(),
        rows: all.iter().enumerate().map(row).collect(),
    }
}

/// Returns the error of the modelled time of a batch. `None` with a measured clock.
fn error_of(
    run: &RunRecord,
    case: &SearchCase,
    batch: u32,
    phase: Phase,
) -> Option<Result<modelled::Stated, &'static str>> {
    modelled::error_at(run, phase, case.tp, [batch, case.input_tokens, case.output_tokens])
}

/// A limit in ms, without trailing zeros.
fn limit(most: Objective) -> String {
    most.ms().to_string()
}

/// One row per probe of one search, in order.
fn probes_of(case: &SearchCase, run: &RunRecord, probes: &[ProbeRecord]) -> Table {
    let own = own(case, probes);
    let cells = |of: fn(&ProbeRecord) -> Option<f64>| -> Vec<Text> {
        let values: Vec<Option<f64>> = own.iter().map(of).collect();
        let places = decimals(values.iter().flatten().copied());
        values.into_iter().map(|value| fixed(value, places).into()).collect()
    };
    let (tpot, ttft) = (cells(|p| p.tpot_ns.map(ms)), cells(|p| p.ttft_ns.map(ms)));
    let rate = cells(decode_rate);
    let on_card = own.iter().any(|p| p.device_memory_bytes.is_some());
    let row = |(i, p): (usize, &ProbeRecord)| {
        let wanted = or_none(p.wanted_bytes, bytes);
        let mut cells = cells![p.probe, p.batch, p.repetitions.len(), tpot[i], ttft[i], rate[i],];
        cells.extend(
            error_of(run, case, p.batch, Phase::Decode).map(|error| modelled::short(Some(error)).into()),
        );
        cells.extend(on_card.then(|| or_none(p.device_memory_bytes, bytes).into()));
        cells.extend(cells![wanted, p.purpose, p.outcome.words(), p.reason.clone().unwrap_or_default()]);
        Row { cells, strong: false }
    };
    let numeric = texts!["Probe", "Batch", "Repetitions", "TPOT ms", "TTFT ms", "Decode tokens/s"];
    let modelled = (run.provenance.clock == Clock::Modelled).then_some(text!("TPOT error"));
    let names = numeric
        .into_iter()
        .chain(modelled)
        .chain(on_card.then_some(text!("Card memory")))
        .chain([text!("Memory wanted")]);
    let columns = names.map(|name| Column { name, numeric: true });
    let text = texts!["To", "Outcome", "Why"].map(|name| Column { name, numeric: false });
    Table {
        title: text!(
            "Probes of {search_id}, {clock}",
            search_id = case.search_id,
            clock = run.provenance.clock
        ),
        columns: columns.chain(text).collect(),
        rows: own.iter().enumerate().map(row).collect(),
    }
}

/// One sentence per search with probes.
fn sentences(run: &RunRecord, probes: &[ProbeRecord]) -> Vec<Text> {
    let from = &run.provenance;
    let sentence = |f: &Found<'_>| {
        let SearchCase { input_tokens, output_tokens, low, high, .. } = f.case;
        let next = f.next().map_or_else(
            || text!("the range ends there"),
            |p| text!("{batch} is {outcome}", batch = p.batch, outcome = p.outcome.words()),
        );
        let how = match f.best() {
            _ if f.perhaps().is_some() => text!(
                "the largest batch of {low} to {high} within the limits is not known, {from} to {to}",
                low,
                high,
                from = f.answer.batch,
                to = or_none(f.perhaps(), |batch| batch.to_string())
            ),
            Some(best) => {
                let error = modelled::words(error_of(run, f.case, best.batch, Phase::Decode));
                let tpot = best.tpot_ns.map_or(Text::EMPTY, |ns| {
                    text!("TPOT {ms} ms{error}, ", ms = significant(ms(ns), 3), error)
                });
                text!(
                    "{batch} is the largest batch of {low} to {high} within the limits ({tpot}{next})",
                    batch = best.batch,
                    low,
                    high,
                    tpot,
                    next
                )
            }
            None => {
                text!("no batch of {low} to {high} was found within the limits ({next})", low, high, next)
            }
        };
        let doubt = match (&f.answer.failure, &f.answer.contradiction) {
            (Some(failure), _) => text!("; the search failed, {failure}", failure),
            (None, Some(these)) => text!(": its probes contradict one another, {these}", these),
            (None, None) => Text::EMPTY,
        };
        text!(
            "{input_tokens} in, {output_tokens} out: {how}{doubt}, {clock} on {device} in {dtype}.",
            input_tokens,
            output_tokens,
            how,
            doubt,
            clock = from.clock,
            device = from.device,
            dtype = from.dtype
        )
    };
    found(run, probes).iter().filter(|f| !f.probes.is_empty()).map(sentence).collect()
}

/// The validity conditions of the searches.
fn checks(run: &RunRecord, probes: &[ProbeRecord]) -> Vec<Check> {
    if run.plan.searches.is_empty() {
        return Vec::new();
    }
    let all = found(run, probes);
    let complete = run.status == Status::Complete;
    let ids = |spoils: &dyn Fn(&Found<'_>) -> bool| -> Vec<&str> {
        all.iter().filter(|f| spoils(f)).map(|f| f.case.search_id.as_str()).collect()
    };
    let broken = ids(&|f| f.answer.failure.is_some() || (complete && f.probes.is_empty()));
    let contradicted = ids(&|f| f.answer.contradiction.is_some());
    // A search that an unfinished run has not reached says nothing.
    let begun = complete || all.iter().any(|f| !f.probes.is_empty());
    let outcome = |spoilt: &[&str]| if begun { yes_if(spoilt.is_empty()) } else { Outcome::Unknown };
    let told = |spoilt: &[&str], first: Option<&Text>| match (spoilt, first) {
        ([], _) if !begun => text!("no search has begun"),
        ([], _) if all.len() == 1 => text!("all 1 search"),
        ([], _) => text!("all {searches} searches", searches = all.len()),
        (spoilt, Some(first)) => {
            text!("{first}; {searches}", first, searches = found_in(spoilt, all.len()))
        }
        (spoilt, None) => found_in(spoilt, all.len()),
    };
    vec![
        Check {
            name: text!("searches answered"),
            condition: text!("Every max-batch search came to an answer"),
            outcome: outcome(&broken),
            found: told(&broken, all.iter().find_map(|f| f.answer.failure.as_ref())),
            advice: text!("The probe concerned says what went wrong; it was neither memory nor speed."),
            required: true,
        },
        Check {
            name: text!("searches agree with themselves"),
            condition: text!("No max-batch search contradicts itself"),
            outcome: outcome(&contradicted),
            found: told(&contradicted, all.iter().find_map(|f| f.answer.contradiction.as_ref())),
            advice: text!(
                "A larger batch fitted where a smaller one did not: raise the repetitions, or find what else the machine does."
            ),
            required: false,
        },
    ]
}
