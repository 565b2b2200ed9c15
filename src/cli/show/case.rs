//! Showing a performance case: the times of each repetition.

use crate::language::{Language, Text, cells, text, texts};
use serde_json::{Value, json};

use crate::cli::tables::drawn;
use crate::record::{Clock, PerformanceCase, Phase, RepetitionKind, RequestRecord};
use crate::report::format::{NONE, or_none};
use crate::report::modelled::{self, Known};
use crate::report::performance::{phase_ns, tpot_ns, ttft_ns};
use crate::report::table::{Column, Table};
use crate::stats::quantile;
use crate::text::one_line;

use super::{Shown, value};

const FIRST: Text = text!("Repetition");
const NUMBERS: [Text; 9] = texts![
    "TTFT ms",
    "Prefill ms",
    "TPOT ms",
    "ITL p50 ms",
    "ITL max ms",
    "Decode ms",
    "E2E ms",
    "E2E tokens/s",
    "Peak MiB",
];
/// The phases with errors in the table.
const PHASES: [Phase; 2] = [Phase::Prefill, Phase::Decode];
const LAST: Text = text!("Output, error");

/// Formats a table for each run.
pub(super) fn words(runs: &[&Shown], case: &PerformanceCase, language: Language) -> String {
    let mut words = String::new();
    for run in runs {
        let repetitions = repetitions(run, case);
        let clock = repetitions.first().map_or(run.records.run.provenance.clock, |r| r.clock);
        let from = &run.records.run.provenance;
        let head = text!(
            "{case}: batch {batch}, {input} tokens in, {output} out, {tp} rank{tp:s}; times {clock}{errors}; {dtype} on \
             {device}, run {run}",
            case = case.case_id,
            batch = case.batch,
            input = case.input_tokens,
            output = case.output_tokens,
            tp = case.tp,
            clock,
            errors = errors(run, case),
            dtype = from.dtype,
            device = from.device,
            run = run.id()
        );
        words += &format!("{}\n", one_line(&head.in_language(language)));
        words += &match repetitions.as_slice() {
            [] => text!("this run has no repetition of the case").in_language(language),
            some => drawn(&table(some), language),
        };
        words += "\n\n";
    }
    words
}

/// Returns the errors of modelled times, by phase. Empty for measured ones.
fn errors(run: &Shown, case: &PerformanceCase) -> Text {
    let words = |phase| {
        let error = error_of(run, case, phase)?;
        Some(text!(", {phase}{error}", phase, error = modelled::words(Some(error))))
    };
    PHASES.into_iter().filter_map(words).collect()
}

/// Returns the error of a phase. `None` with a measured clock.
fn error_of(run: &Shown, case: &PerformanceCase, phase: Phase) -> Option<Known> {
    let lengths = [case.batch, case.input_tokens, case.output_tokens];
    modelled::error_at(&run.records.run, phase, case.tp, lengths)
}

/// Returns the same data for JSON.
pub(super) fn data(runs: &[&Shown], case: &PerformanceCase) -> Value {
    let of_run = |run: &&Shown| {
        let repetitions: Vec<Value> = repetitions(run, case).into_iter().map(value).collect();
        let mut data = json!({"run_id": run.id(), "repetitions": repetitions});
        if run.records.run.provenance.clock == Clock::Modelled {
            let [prefill, decode] = PHASES.map(|phase| error_of(run, case, phase)?.ok().map(|of| of.error));
            data["model_error"] = json!({"prefill": prefill, "decode": decode});
        }
        data
    };
    json!({"case_id": case.case_id, "runs": runs.iter().map(of_run).collect::<Vec<_>>()})
}

fn repetitions<'a>(run: &'a Shown, case: &PerformanceCase) -> Vec<&'a RequestRecord> {
    run.records.requests.iter().filter(|r| r.case_id == case.case_id).collect()
}

fn table(repetitions: &[&RequestRecord]) -> Table {
    let mut table = Table::new(Text::EMPTY, &[FIRST], &NUMBERS);
    table.columns.push(Column { name: LAST, numeric: false });
    repetitions.iter().for_each(|r| table.push(false, row(r)));
    table
}

fn row(r: &RequestRecord) -> Vec<Text> {
    let block = r.block.map_or(Text::EMPTY, |block| text!(", block {block}", block));
    let number = r.repetition;
    let first = match r.kind {
        RepetitionKind::Warmup => text!("warm-up {number}{block}", number, block),
        RepetitionKind::Timed => text!("timed {number}{block}", number, block),
    };
    let mut row = vec![first];
    if let Some(error) = &r.error {
        // The times of a failed repetition are meaningless.
        row.extend(NUMBERS.iter().map(|_| NONE.into()));
        row.push(error.into());
        return row;
    }
    let ms = |ns: Option<f64>| or_none(ns, |ns| format!("{:.3}", ns / 1e6));
    let whole = |ns: Option<u64>| ns.map(|ns| ns as f64);
    let steps: Vec<f64> = r.step_ns.iter().map(|&ns| ns as f64).collect();
    let e2e = whole(phase_ns(r, Phase::E2e));
    let tokens = f64::from(r.batch) * f64::from(r.output_tokens);
    let rate = e2e.filter(|&ns| ns > 0.0);
    let memory = r.device_memory_bytes.or(r.peak_rss_bytes);
    row.extend(cells![
        ms(whole(ttft_ns(r))),
        ms(Some(r.prefill_ns as f64)),
        ms(tpot_ns(r)),
        ms(quantile(&steps, 0.5)),
        ms(quantile(&steps, 1.0)),
        ms(whole(phase_ns(r, Phase::Decode))),
        ms(e2e),
        or_none(rate, |ns| format!("{:.1}", tokens / ns * 1e9)),
        or_none(memory, |bytes| format!("{:.0}", bytes as f64 / f64::from(1 << 20))),
        r.output_hash,
    ]);
    row
}
