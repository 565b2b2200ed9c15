//! Showing a performance case: the times of each repetition.

use serde_json::{Value, json};

use crate::cli::tables::drawn;
use crate::record::{Clock, PerformanceCase, Phase, RepetitionKind, RequestRecord};
use crate::report::modelled::{self, Known};
use crate::report::performance::{phase_ns, tpot_ns, ttft_ns};
use crate::report::tables::{Column, Row, Table};
use crate::stats::quantile;
use crate::text::one_line;

use super::{Shown, value};

const TEXT: [&str; 1] = ["Repetition"];
const NUMBERS: [&str; 9] = [
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
/// The phases whose errors are shown.
const PHASES: [Phase; 2] = [Phase::Prefill, Phase::Decode];
const LAST: [&str; 1] = ["Output, error"];

/// Formats a table for each run.
pub(super) fn words(runs: &[&Shown], case: &PerformanceCase) -> String {
    let mut text = String::new();
    for run in runs {
        let repetitions = repetitions(run, case);
        let clock = repetitions.first().map_or(run.records.run.provenance.clock, |r| r.clock);
        text += &format!(
            "{}: batch {}, {} tokens in, {} out, {} rank{}; times {clock}{}; {} on {}, run {}\n",
            one_line(&case.case_id),
            case.batch,
            case.input_tokens,
            case.output_tokens,
            case.tp,
            if case.tp == 1 { "" } else { "s" },
            errors(run, case),
            one_line(&run.records.run.provenance.dtype),
            one_line(&run.records.run.provenance.device),
            one_line(run.id())
        );
        text += &match repetitions.as_slice() {
            [] => "this run has no repetition of the case\n".to_owned(),
            some => format!("{}\n", drawn(&table(some))),
        };
        text.push('\n');
    }
    text
}

/// Returns the errors of modelled times, by phase. Empty for measured ones.
fn errors(run: &Shown, case: &PerformanceCase) -> String {
    let words =
        |phase| error_of(run, case, phase).map(|error| format!(", {phase}{}", modelled::words(Some(error))));
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
    let column = |numeric| move |name: &&str| Column { name: (*name).to_owned(), numeric };
    let columns = TEXT.iter().map(column(false)).chain(NUMBERS.iter().map(column(true)));
    Table {
        title: String::new(),
        columns: columns.chain(LAST.iter().map(column(false))).collect(),
        rows: repetitions.iter().map(|r| Row { cells: cells(r), strong: false }).collect(),
    }
}

fn cells(r: &RequestRecord) -> Vec<String> {
    let kind = match r.kind {
        RepetitionKind::Warmup => "warm-up",
        RepetitionKind::Timed => "timed",
    };
    let block = r.block.map(|block| format!(", block {block}")).unwrap_or_default();
    let mut cells = vec![format!("{kind} {}{block}", r.repetition)];
    if let Some(error) = &r.error {
        // The times of a failed repetition are meaningless.
        cells.extend(NUMBERS.iter().map(|_| "–".to_owned()));
        cells.push(error.clone());
        return cells;
    }
    let ms = |ns: Option<f64>| ns.map_or_else(|| "–".to_owned(), |ns| format!("{:.3}", ns / 1e6));
    let whole = |ns: Option<u64>| ns.map(|ns| ns as f64);
    let steps: Vec<f64> = r.step_ns.iter().map(|&ns| ns as f64).collect();
    let e2e = whole(phase_ns(r, Phase::E2e));
    let tokens = f64::from(r.batch) * f64::from(r.output_tokens);
    let rate = e2e.filter(|&ns| ns > 0.0).map(|ns| format!("{:.1}", tokens / ns * 1e9));
    cells.extend([
        ms(whole(ttft_ns(r))),
        ms(Some(r.prefill_ns as f64)),
        ms(tpot_ns(r)),
        ms(quantile(&steps, 0.5)),
        ms(quantile(&steps, 1.0)),
        ms(whole(phase_ns(r, Phase::Decode))),
        ms(e2e),
        rate.unwrap_or_else(|| "–".to_owned()),
        r.device_memory_bytes
            .or(r.peak_rss_bytes)
            .map_or_else(|| "–".to_owned(), |bytes| format!("{:.0}", bytes as f64 / f64::from(1 << 20))),
        r.output_hash.clone(),
    ]);
    cells
}
