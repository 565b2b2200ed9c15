//! The files of a run: a directory that only grows, so that a killed run can be resumed.
//!
//! ```text
//! reports/<run-id>/   <UTC yyyymmddThhmmssZ>-<suite>-<device>-<6 hex of identity>
//!   run.json          identity, provenance, plan; replaced by rename      RunRecord
//!   samples.jsonl     one line per scored item, appended as it finishes   SampleRecord
//!   prompts.jsonl     one line per item: what the model was asked         PromptRecord
//!   requests.jsonl    one line per timed repetition, appended likewise    RequestRecord
//!   probes.jsonl      one line per probe of a max-batch search            ProbeRecord
//!   load.jsonl        one line per rate of a load, with its requests      LoadLevelRecord
//!   parity.jsonl      one line per prompt compared with a reference       ParityRecord
//!   writer.json       of a shard: the process that writes it               Writer
//!   telemetry.csv     memory, power… over time, appended likewise         TelemetryRow
//!   server_metrics.csv   what a server said of itself, appended likewise  ServerMetricRow
//!   accuracy.csv      summaries, written by the report                    AccuracyRow
//!   answers.csv                                                           AnswerRow
//!   perf.csv                                                              PerfRow
//!   max_batch.csv  load.csv   if the plan has such cases                  ProbeRow, LoadRow
//!   parity.csv                                                            ParityRow
//!   operators.csv     if operators were timed                             OperatorRow
//!   limits.csv        if the suite has targets                            LimitRow
//!   summary.md  report.html  charts/
//!   history.json      what `glmbench index` needs of the run, written by the report
//! ```
//!
//! All files are UTF-8 with `\n`. CSV is RFC 4180 with a fixed header. Times are integer nanoseconds and sizes integer
//! bytes. Floats are the shortest text that reads back as the same number. Each file but `telemetry.csv` and
//! `server_metrics.csv` carries [`SCHEMA`]. A CSV cell that a spreadsheet would take for a formula gets an apostrophe in
//! front. Such a cell is no number and begins with `=`, `+`, `-`, `@`, a tab or a carriage return. [`AccuracyRow`], [`PerfRow`],
//! [`RequestRecord`], [`ProbeRow`], [`LoadRow`], [`ParityRow`], [`OperatorRow`] and [`LimitRow`] define the columns.
//!
//! The `.jsonl` files are journals. A line counts once its `\n` is on disk. If the process was killed while writing a
//! line, readers ignore the torn line and the next writer cuts it off. See [`RunDir`].
//!
//! From schema 3 on, each journal line and `run.json` end with a checksum, `"sum"`. It is the first 16 hexadecimal
//! digits of the SHA-256 of all bytes before the comma in front of it. In `run.json`, the line break and indent before
//! the field are left out as well. A complete run has a `seal` in `run.json`: the line count and the SHA-256 of each of
//! [`JOURNALS`]. [`Contents`] reads a run and lists what deviates from plan, sums and seal. Records of schemas 1 and
//! 2 are read without sums and seal.
//!
//! While a run is repaired, `samples.kept.jsonl` and similar files hold the good lines found after a gap. The resumed
//! run puts them in their places. `*.set-aside` is a copy of a journal as it was found.

mod accuracy;
mod arrival;
mod audit;
mod clock;
mod contents;
pub(crate) mod course;
mod dir;
mod error;
mod files;
mod identity;
mod journal;
mod keyed;
mod mend;
mod merge;
mod modelled;
mod noise;
mod objective;
mod operators;
mod plan;
mod progress;
mod prompt;
mod roofline;
mod run;
mod sample;
mod shard;
mod sum;
mod summary;
mod target;
mod telemetry;
mod time;
pub(crate) mod wire;
mod word;
pub(crate) mod work;
mod writer;

#[cfg(test)]
pub(crate) mod golden;

pub use accuracy::{AccuracyCase, PublishedScore, TaskFileRecord, items_hash};
pub use arrival::Arrival;
pub use audit::{Audit, SealState};
pub use clock::Clock;
pub use contents::Contents;
pub use dir::{RunDir, run_id};
pub use error::RecordError;
pub(crate) use error::no_space;
pub use files::{create_unique, csv_table, read_whole, write_accuracy_csv, write_whole};
pub use identity::{Difference, Identity, UNTOLD, hex};
pub use journal::{Examined, JournalState, Line};
pub use keyed::Keyed;
pub use mend::{ItemLines, Mending, PlannedItem};
pub use merge::{MergeError, Merged, merge, runs_in};
pub use modelled::{ModelledBy, ProfileFigure, ProfileFit};
pub use noise::{Noise, NoiseFloor};
pub use objective::{Objective, Objectives};
pub use operators::{OperatorRecord, OperatorRow};
pub use plan::{JOURNALS, Plan};
pub use progress::Progress;
pub use prompt::{CallRecord, PromptRecord};
pub use roofline::{MeasuredLimits, MeasuredRate, MeasuredUnit, Roofline, RooflineSample, RooflineSamples};
pub use run::{ChoiceToken, FirstPrompt, Group, JournalSeal, Provenance, RunRecord, Status};
pub use sample::{ProgramRecord, SampleKey, SampleRecord, SampleState};
pub use shard::{ALIKE_SHARE, MOST_SHARDS, Places, ShardCase, ShardOrigin, ShardPart, Shards, numbers};
pub use summary::{AccuracyRow, AnswerRow, PerfRow, Phase};
pub use target::{Figure, HugePages, LimitRow, LoadFacts, Target};
pub use telemetry::{ServerMetricRow, TelemetryRow};
pub use time::{compact_utc, rfc3339_utc, unix_seconds};
pub use wire::SCHEMA;
pub use word::Word;
pub use work::TaskWork;
pub(crate) use work::grouped;
pub(crate) use writer::own_ending;
pub use writer::{BEAT, Claim, FoundWriter, Holder, STALE, WRITER, Writer};

pub use crate::workload::load::level::{Level, MOST_LEVELS, next_level, rate_text};
pub use crate::workload::load::record::{LoadCase, LoadKey, LoadLevelRecord, SATURATED_SLOPE};
pub use crate::workload::load::request::{Attempted, LoadRequest, Wire};
pub use crate::workload::load::row::LoadRow;
pub use crate::workload::max_batch::record::{
    ProbeKey, ProbeOutcome, ProbePurpose, ProbeRecord, ProbeRepetition, ProbeRow, SearchAnswer, SearchCase,
    next_probe, search_answer,
};
pub use crate::workload::parity::record::{ParityCase, ParityRecord, ParityRow, ReferenceCase};
pub use crate::workload::shapes::record::{
    Cost, GroupPrompts, PerformanceCase, PromptsCase, RepetitionKind, RequestKey, RequestRecord,
};
