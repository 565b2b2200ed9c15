//! What a run leaves on disk: a directory that only grows, and that a killed run can go on with.
//!
//! ```text
//! reports/<run-id>/   <UTC yyyymmddThhmmssZ>-<suite>-<device>-<6 hex of identity>
//!   run.json          identity, provenance, plan; replaced by rename      RunRecord
//!   samples.jsonl     one line a scored item, appended as it finishes     SampleRecord
//!   prompts.jsonl     one line an item: what the model was asked           PromptRecord
//!   requests.jsonl    one line a timed repetition, appended likewise      RequestRecord
//!   probes.jsonl      one line a probe of a max-batch search              ProbeRecord
//!   load.jsonl        one line a rate of a load, all its requests in it   LoadLevelRecord
//!   telemetry.csv     memory, power… over time, appended likewise         TelemetryRow
//!   accuracy.csv      summaries, written by the report                    AccuracyRow
//!   perf.csv                                                              PerfRow
//!   max_batch.csv  load.csv   where the plan has such cases               ProbeRow, LoadRow
//!   operators.csv     where operators were timed                          OperatorRow
//!   limits.csv        where the suite has targets                         LimitRow
//!   summary.md  report.html  charts/
//! ```
//!
//! Everything is UTF-8 with `\n`; CSV is RFC 4180 with a header that is always the same; times are integer
//! nanoseconds, sizes integer bytes, floats the shortest text that reads back as the same number. Each file carries
//! [`SCHEMA`]. A cell of CSV that a spreadsheet would take for a formula (it begins with `=`, `+`, `-`, `@`, a tab or a
//! carriage return, and is no number) has an apostrophe in front. Definitions of the columns are at [`AccuracyRow`], [`PerfRow`], [`RequestRecord`], [`ProbeRow`], [`LoadRow`],
//! [`OperatorRow`] and [`LimitRow`].
//!
//! The `.jsonl` files are journals. A line counts once its `\n` is on disk; a torn last line (the process was
//! killed in it) is ignored by a reader and cut off by the next writer. See [`RunDir`].
//!
//! From schema 3 on each line, and `run.json`, ends with `"sum"`: the first 16 hexadecimal digits of the SHA-256 of all bytes
//! before the comma in front of it (in `run.json`: before the comma, line break and indent). When a run is complete, `seal` in
//! `run.json` has the lines and the SHA-256 of each of [`JOURNALS`]. [`Contents`] reads a run and says what of it is not what
//! plan, sums and seal say; records of schemas 1 and 2 are read without.
//!
//! `samples.kept.jsonl` and the like hold, while a run is mended, lines that stand behind a gap: they are good, and go to their
//! places when the run comes to them. `*.set-aside` is a journal as it was found.

mod audit;
mod course;
mod dir;
mod error;
mod identity;
mod journal;
mod limits;
mod load;
mod mend;
mod noise;
mod operators;
mod probe;
mod prompt;
mod request;
mod run;
mod sample;
mod sum;
mod summary;
mod target;
mod telemetry;
mod time;
mod wire;

#[cfg(test)]
pub(crate) mod golden;

pub use audit::{Audit, Contents, SealState};
pub use dir::{JOURNALS, RunDir, create_unique, csv_table, run_id, write_accuracy_csv, write_whole};
pub use error::RecordError;
pub use identity::{Difference, Identity, hex};
pub use journal::{Examined, Keyed, Line};
pub use limits::{LimitRate, MachineLimits, Roofline, Spot, Spots, UnitLimit};
pub use load::{
    LoadCase, LoadKey, LoadLevelRecord, LoadRequest, LoadRow, Objectives, SATURATED_SLOPE, next_rate,
};
pub use mend::{Mending, PlannedItem};
pub use noise::{Noise, NoiseFloor};
pub use operators::{OperatorRecord, OperatorRow};
pub use probe::{
    ProbeKey, ProbeOutcome, ProbePurpose, ProbeRecord, ProbeRepetition, ProbeRow, SearchAnswer, SearchCase,
    next_probe, search_answer,
};
pub use prompt::{CallRecord, PromptRecord};
pub use request::{Clock, GroupPrompts, RepetitionKind, RequestKey, RequestRecord};
pub use run::{
    AccuracyCase, ChoiceToken, Cost, FirstPrompt, Group, JournalSeal, PerformanceCase, Plan, PromptsCase,
    Provenance, PublishedScore, RunRecord, Status, items_hash,
};
pub use sample::{SampleKey, SampleRecord, SampleState};
pub use summary::{AccuracyRow, AnswerRow, PerfRow, Phase};
pub use target::{Figure, LimitRow, LoadFacts, Target};
pub use telemetry::TelemetryRow;
pub use time::{compact_utc, rfc3339_utc};
pub use wire::SCHEMA;
