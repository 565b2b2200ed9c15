//! The four tables of an export, `runs`, `samples`, `requests` and `loads`: their fields, types and meanings.
//!
//! JSON lines, SQL and CSV all write these tables. So a field has the same name, unit and meaning in each format. CSV has `load.csv`
//! for `loads`.

use crate::record::{LoadRow, RequestRecord, RunRecord, SCHEMA, SampleRecord};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// Type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An integer.
    Integer,
    /// A number.
    Real,
    /// Text.
    Text,
    /// A boolean; 1 or 0 in SQL.
    Boolean,
    /// A list of numbers: a JSON array, as text in SQL and CSV.
    List,
}

/// A field of an export.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// The name in every format.
    pub name: &'static str,
    /// The type.
    pub kind: Kind,
    /// The meaning, with the unit.
    pub about: &'static str,
}

const fn field(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field { name, kind, about }
}

use Kind::{Boolean, Integer, List, Real, Text};

/// Fields of the run, repeated on every line. They are the whole table `runs`.
pub const RUN: [Field; 20] = [
    field("schema", Integer, "schema number of the records, docs of glmbench::record"),
    field("run_id", Text, "the run"),
    field("status", Text, "running, interrupted or complete"),
    field("identity", Text, "SHA-256 that two comparable runs share"),
    field("suite", Text, "the suite's name"),
    field("model", Text, "the model as asked for"),
    field("engine", Text, "program and version"),
    field("device", Text, "as --device, with (emulated) for an emulated card"),
    field("kernel", Text, "kernels chosen at run time"),
    field("clock_profile", Text, "chip profile behind a modelled clock"),
    field("dtype", Text, "computing type"),
    field("threads", Integer, "threads of the engine"),
    field("host", Text, "host name"),
    field("os", Text, "system and release"),
    field("cpu_model", Text, "processor"),
    field("governor", Text, "frequency governor"),
    field("git_commit", Text, "commit of the program"),
    field("scored_from", Text, "run whose answers were scored again"),
    field("started", Text, "RFC 3339, UTC"),
    field("finished", Text, "RFC 3339, UTC"),
];

/// The fields of a sample, in the order of [`SampleRecord`], with its protocol and clock.
pub const SAMPLE: [Field; 22] = [
    field("task", Text, "the task's name in the suite"),
    field("protocol", Text, "how it was asked and read"),
    field("doc_id", Text, "the item"),
    field("doc_hash", Text, "SHA-256 of the item's content"),
    field("prompt_hash", Text, "SHA-256 of the first prompt's text"),
    field("subject", Text, "subject; empty where the set has none"),
    field("category", Text, "category; empty where the set has none"),
    field("hard", Boolean, "belongs to C-Eval Hard"),
    field("state", Text, "scored, unscorable or failed"),
    field("gold", Text, "the right answer"),
    field("pred", Text, "the model's answer; null unless scored"),
    field("correct", Boolean, "pred is gold"),
    field("choice_logprobs", List, "natural-log probability of each choice"),
    field("margin", Real, "best less second best of them"),
    field("input_tokens_n", Integer, "tokens fed to the model, all calls"),
    field("output_tokens", List, "ids generated"),
    field("text", Text, "text generated"),
    field("extract_rule", Text, "the rule that found the answer"),
    field("t_start_ns", Integer, "first step's start, ns from run start"),
    field("t_end_ns", Integer, "last step's end, ns from run start"),
    field("clock", Text, "measured or modelled: the clock of the times"),
    field("error", Text, "why no answer stands"),
];

/// The fields of a repetition, in the order of [`RequestRecord`].
pub const REQUEST: [Field; 18] = [
    field("case_id", Text, "the case"),
    field("kind", Text, "warmup or timed"),
    field("repetition", Integer, "index within its kind"),
    field("clock", Text, "measured or modelled: the clock of all times"),
    field("tp", Integer, "tensor-parallel ranks"),
    field("block", Integer, "block of an interleaved run"),
    field("batch", Integer, "sequences in the batch"),
    field("input_tokens", Integer, "prompt tokens of each"),
    field("output_tokens", Integer, "tokens generated for each"),
    field("start_ns", Integer, "handed to the engine, ns from run start"),
    field("prefill_ns", Integer, "sum of prefill steps, ns"),
    field("first_token_ns", Integer, "last sequence's first token, ns from run start"),
    field("step_ns", List, "each decode step, ns"),
    field("end_ns", Integer, "last token, ns from run start"),
    field("output_hash", Text, "hash of all generated ids"),
    field("peak_rss_bytes", Integer, "peak resident memory so far"),
    field("device_memory_bytes", Integer, "peak memory in use on one card"),
    field("error", Text, "why the repetition failed"),
];

/// The fields of a level of a load, in the order of [`LoadRow`], without those of the run.
pub const LOAD: [Field; 54] = [
    field("load_id", Text, "the load"),
    field("level", Integer, "index of the rate or concurrency"),
    field("clock", Text, "measured or modelled: the clock of all times"),
    field("tp", Integer, "tensor-parallel ranks"),
    field("arrival", Text, "poisson, gamma, fixed, trace or closed"),
    field("max_batch", Integer, "most sequences at once in an engine of this program"),
    field("rate_per_s", Real, "scheduled requests a second; null if all at once or closed"),
    field("concurrency", Integer, "requests under way in a closed loop"),
    field("offered_per_s", Real, "arrivals a second; null in a closed loop"),
    field("achieved_per_s", Real, "requests served a second"),
    field("requests", Integer, "requests"),
    field("failed", Integer, "requests that failed; outside all times"),
    field("duration_ns", Integer, "from the schedule's begin to the last request's end, ns"),
    field("input_tokens", Integer, "prompt tokens of the served requests"),
    field("output_tokens", Integer, "tokens generated for them"),
    field("output_tokens_per_s", Real, "output tokens by duration"),
    field("queue_p50_ns", Integer, "time in the queue, median, ns"),
    field("queue_p90_ns", Integer, "90 % quantile"),
    field("queue_max_ns", Integer, "maximum"),
    field("ttft_p50_ns", Integer, "time to first token from arrival, median, ns"),
    field("ttft_p90_ns", Integer, "90 % quantile"),
    field("ttft_p99_ns", Integer, "99 % quantile, of 100 values at least"),
    field("ttft_max_ns", Integer, "maximum"),
    field("tpot_p50_ns", Integer, "time per token after the first, median, ns"),
    field("tpot_p90_ns", Integer, "90 % quantile"),
    field("tpot_p99_ns", Integer, "99 % quantile, of 100 values at least"),
    field("tpot_max_ns", Integer, "maximum"),
    field("itl_p50_ns", Integer, "gap between tokens, median, ns"),
    field("itl_p90_ns", Integer, "90 % quantile"),
    field("itl_p99_ns", Integer, "99 % quantile, of 100 values at least"),
    field("itl_max_ns", Integer, "maximum"),
    field("e2e_p50_ns", Integer, "arrival to last token, median, ns"),
    field("e2e_p90_ns", Integer, "90 % quantile"),
    field("e2e_p99_ns", Integer, "99 % quantile, of 100 values at least"),
    field("e2e_max_ns", Integer, "maximum"),
    field("slo_ttft_ns", Integer, "objective for the time to first token"),
    field("slo_tpot_ns", Integer, "objective for the time per token"),
    field("slo_e2e_ns", Integer, "objective for arrival to last token"),
    field("goodput_share", Real, "share of requests that keep every objective"),
    field("goodput_per_s", Real, "requests a second that keep them"),
    field("growth_slope", Real, "growth of E2E with arrival time"),
    field("growth_low", Real, "its lower bound"),
    field("saturated", Boolean, "the rate is more than is sustained"),
    field("ttft_sent_p50_ns", Integer, "over a wire: from sent to first token, median"),
    field("ttft_sent_p99_ns", Integer, "99 % quantile"),
    field("connect_p50_ns", Integer, "over a wire: connecting, median"),
    field("late_p99_ns", Integer, "over a wire: from arrival until sent, 99 % quantile"),
    field("events_per_token", Real, "over a wire: arrivals for each token"),
    field("e2e_sent_p50_ns", Integer, "over a wire: from sent to last token, median"),
    field("e2e_sent_p99_ns", Integer, "99 % quantile"),
    field("resent", Integer, "over a wire: requests sent again, which failed"),
    field(
        "late_moved_ns",
        Integer,
        "over a wire: how far late sending moved a quantile of TTFT, the one nearest to its limit",
    ),
    field("late_limit_ns", Integer, "how far that quantile may be moved"),
    field("scheduling", Text, "how the engine shared its steps; empty over a wire"),
];

/// Describes all fields, for the formats that have them.
pub(super) fn help() -> String {
    let mut text = String::new();
    for (title, fields) in [
        ("Of the run (on every line of jsonl and csv; the table runs of sql)", &RUN[..]),
        ("Of a sample (the table samples of sql, with the key run_id, task, doc_id)", &SAMPLE),
        (
            "Of a repetition (the table requests of sql, with the key run_id, case_id, kind, repetition)",
            &REQUEST,
        ),
        ("Of a level of a load (the table loads of sql, with the key run_id, load_id, level)", &LOAD),
    ] {
        text += &format!("{title}\n");
        text.extend(fields.iter().map(described));
        text.push('\n');
    }
    text + NOTES
}

/// How the formats differ in the same values.
const NOTES: &str = "\
A jsonl line begins with \"line\": \"sample\", \"request\" or \"load\". A list is a JSON array, in sql and csv as text. A value that cannot be
determined is null, in csv an empty cell. In csv, an apostrophe precedes a text that a spreadsheet would read as a formula: one
that begins with =, +, -, @, a tab or a carriage return.
";

fn described(field: &Field) -> String {
    let kind = match field.kind {
        Integer => "integer",
        Real => "real",
        Text => "text",
        Boolean => "boolean",
        List => "list",
    };
    format!("  {:<16} {kind:<8} {}\n", field.name, field.about)
}

/// A row: one value per field of its table, null if missing.
pub type Row = Vec<Value>;

/// The run's row.
pub fn run_row(run: &RunRecord) -> Row {
    let (p, status) = (&run.provenance, members(&run.status));
    let own = json!({
        "schema": SCHEMA, "run_id": run.run_id, "status": status, "identity": run.identity.hash(),
        "suite": p.suite, "model": p.model, "engine": p.engine, "device": p.device, "kernel": p.kernel,
        "clock_profile": p.clock_profile, "dtype": p.dtype, "threads": p.threads, "host": p.host, "os": p.os,
        "cpu_model": p.cpu_model, "governor": p.governor, "git_commit": p.git_commit,
        "scored_from": p.scored_from, "started": p.started, "finished": p.finished,
    });
    pick(&RUN, own)
}

/// A sample's row.
pub fn sample_row(run: &RunRecord, sample: &SampleRecord) -> Row {
    let mut own = members(sample);
    let case = run.plan.accuracy.iter().find(|case| case.task == sample.task);
    own["protocol"] = json!(case.map(|case| &case.protocol));
    own["clock"] = members(&run.provenance.clock);
    pick(&SAMPLE, own)
}

/// A repetition's row.
pub fn request_row(request: &RequestRecord) -> Row {
    pick(&REQUEST, members(request))
}

/// The row of a load level.
pub fn load_row(level: &LoadRow) -> Row {
    pick(&LOAD, members(level))
}

/// Converts a record to JSON through text, which keeps the shortest digits of an f32. Widening to f64 would add
/// noise.
fn members<T: Serialize>(record: &T) -> Value {
    let text = serde_json::to_string(record).expect("invariant: records are written as JSON all the time");
    serde_json::from_str(&text).expect("invariant: what was written as JSON can be read")
}

/// Picks the values of `fields`, in order.
fn pick(fields: &[Field], mut from: Value) -> Row {
    let mut empty = Map::new();
    let members = from.as_object_mut().unwrap_or(&mut empty);
    fields.iter().map(|field| members.remove(field.name).unwrap_or(Value::Null)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;
    use std::collections::BTreeSet;

    /// A field added to a record later must be added here as well.
    #[test]
    fn every_field_of_a_record_is_exported() {
        let names = |fields: &[Field]| fields.iter().map(|f| f.name.to_owned()).collect::<BTreeSet<_>>();
        let keys = |record: Value| record.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        let mut sample = keys(members(&fixture::sample()));
        sample.extend(["protocol".to_owned(), "clock".to_owned()]);
        assert_eq!(names(&SAMPLE), sample);
        assert_eq!(names(&REQUEST), keys(members(&fixture::request())));
        let of_run = names(&RUN);
        let load = LoadRow::HEADER.split(',').map(str::to_owned).filter(|name| !of_run.contains(name));
        assert_eq!(names(&LOAD), load.collect());
    }

    #[test]
    fn no_name_comes_twice_in_a_table() {
        for fields in [&RUN[..], &SAMPLE, &REQUEST, &LOAD] {
            let names: BTreeSet<_> = fields.iter().map(|f| f.name).collect();
            assert_eq!(names.len(), fields.len());
        }
    }

    #[test]
    fn single_precision_numbers_keep_their_own_digits() {
        let sample = crate::record::SampleRecord {
            choice_logprobs: vec![-0.1, f32::NAN],
            margin: Some(0.3),
            ..fixture::sample()
        };
        let row = sample_row(&fixture::run(), &sample);
        let at = |name: &str| SAMPLE.iter().position(|f| f.name == name).unwrap();
        assert_eq!(row[at("choice_logprobs")].to_string(), "[-0.1,null]");
        assert_eq!(row[at("margin")].to_string(), "0.3");
    }
}
