//! The rows of `accuracy.csv`, `answers.csv` and `perf.csv`. Unavailable values are empty cells.

use super::clock::Clock;
use super::word::Word;
use crate::language::{Text, ToText, text};
use crate::stats::Interval;
use glmbench_device::{DeviceName, Precision};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A row of `accuracy.csv`: a whole task, one of its categories, its hard part, or one subject.
///
/// `subject` and `category` are `all` in rows that are not of a single one. The hard part has category `Hard`. accuracy
/// = `correct / (scored + unscorable)`: an unscorable answer counts as wrong, and a failed item is excluded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccuracyRow {
    /// [`crate::record::SCHEMA`].
    pub schema: u32,
    /// The run.
    pub run_id: String,
    /// The task.
    pub task: String,
    /// The subject, or `all`.
    pub subject: String,
    /// The category, `Hard`, or `all`.
    pub category: String,
    /// The protocol's name.
    pub protocol: String,
    /// Worked examples before each question.
    pub shots: u32,
    /// Items that finished: scored + unscorable + failed.
    pub n: u64,
    /// Items with an answer.
    pub scored: u64,
    /// Items whose answer could not be read.
    pub unscorable: u64,
    /// Items without an answer.
    pub failed: u64,
    /// Items answered right.
    pub correct: u64,
    /// Micro-averaged accuracy, 0 to 1.
    pub acc: Option<f64>,
    /// Lower bound of the Wilson 95 % confidence interval.
    pub ci95_lo: Option<f64>,
    /// Upper bound of the Wilson 95 % confidence interval.
    pub ci95_hi: Option<f64>,
    /// Standard error, √(p(1−p)/n).
    pub stderr: Option<f64>,
    /// Mean of the subject accuracies. Empty in the row of a subject and for sets without subjects.
    pub macro_acc: Option<f64>,
    /// Seconds during which at least one of the items was running.
    pub duration_s: f64,
    /// Tokens fed to the model.
    pub tokens_in: u64,
    /// Tokens generated.
    pub tokens_out: u64,
    /// Content hash of dataset, prompt and scoring.
    pub version_hash: String,
}

/// A row of `answers.csv`: one answer of one task. `answer` is empty in the row of unreadable answers.
///
/// Only items that were put to the model count: scored and unscorable ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnswerRow {
    /// [`crate::record::SCHEMA`].
    pub schema: u32,
    /// The run.
    pub run_id: String,
    /// The model as requested.
    pub model: String,
    /// The task.
    pub task: String,
    /// The protocol's name.
    pub protocol: String,
    /// The answer.
    pub answer: String,
    /// Items of the task that were put to the model.
    pub items: u64,
    /// Items with this answer.
    pub given: u64,
    /// `given` as a share of `items`.
    pub given_share: f64,
    /// Items with this answer as their key; empty for unreadable answers.
    pub keys: Option<u64>,
    /// `keys` as a share of `items`.
    pub key_share: Option<f64>,
    /// Whether the answer is given far more often than it is correct.
    pub dominates: bool,
    /// Items of the task whose two most probable choices have equal log-probabilities. Empty if no answer was chosen by
    /// log-probability.
    pub task_ties: Option<u64>,
    /// Items of the task whose answer was extracted by the last rule; empty if the protocol has no such rule.
    pub task_last_rule: Option<u64>,
    /// Items of the task with empty generated text. Empty if the protocol generates none, or if this is unknown.
    pub task_empty: Option<u64>,
}

/// A phase of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The prompt, up to and including the first token.
    Prefill,
    /// From the first token to the last.
    Decode,
    /// The whole request.
    E2e,
}

impl ToText for Phase {
    fn to_text(&self) -> Text {
        match self {
            Self::Prefill => text!("prefill"),
            Self::Decode => text!("decode"),
            Self::E2e => text!("e2e"),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::E2e => "e2e",
        })
    }
}

/// A row of `perf.csv`: one phase of one case. Every `*_ns` is the duration of the whole phase in a repetition, rounded
/// to nanoseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PerfRow {
    /// [`crate::record::SCHEMA`].
    pub schema: u32,
    /// The run.
    pub run_id: String,
    /// The case.
    pub case_id: String,
    /// Program and version.
    pub engine: String,
    /// The device.
    pub device: Word<DeviceName>,
    /// The clock of the times.
    pub clock: Clock,
    /// The compute type.
    pub dtype: Word<Precision>,
    /// Tensor-parallel ranks.
    pub tp: u32,
    /// Threads of the engine.
    pub threads: u32,
    /// Sequences in the batch.
    pub batch: u32,
    /// Prompt tokens of each sequence.
    pub input_tokens: u32,
    /// Tokens generated for each sequence.
    pub output_tokens: u32,
    /// The phase.
    pub phase: Phase,
    /// Number of timed repetitions counted.
    pub reps: u64,
    /// Number of warm-up repetitions.
    pub warmups: u64,
    /// Median.
    pub median_ns: Option<u64>,
    /// Median absolute deviation, unscaled.
    pub mad_ns: Option<u64>,
    /// Mean.
    pub mean_ns: Option<u64>,
    /// Sample standard deviation (n − 1).
    pub stddev_ns: Option<u64>,
    /// Lower bound of the 95 % bootstrap confidence interval of the median.
    pub ci95_lo_ns: Option<u64>,
    /// Upper bound of the 95 % bootstrap confidence interval of the median.
    pub ci95_hi_ns: Option<u64>,
    /// Minimum.
    pub min_ns: Option<u64>,
    /// Maximum.
    pub max_ns: Option<u64>,
    /// 50 % quantile of type 7.
    pub p50_ns: Option<u64>,
    /// 90 % quantile of type 7.
    pub p90_ns: Option<u64>,
    /// 99 % quantile of type 7; needs at least 100 repetitions.
    pub p99_ns: Option<u64>,
    /// Tokens of the phase in one repetition: prompt tokens for prefill, tokens after the first for decode, all output
    /// tokens for E2E.
    pub tokens: u64,
    /// Tokens of all repetitions divided by their total time.
    pub tokens_per_s: Option<f64>,
    /// `tokens` divided by the median time. For real prompts, which differ, the median rate of the repetitions.
    pub tokens_per_s_median: Option<f64>,
    /// Bytes that must cross the memory bus.
    pub bytes_touched: Option<u64>,
    /// `bytes_touched` divided by the median time, in 10⁹ bytes per second.
    pub achieved_gb_s: Option<f64>,
    /// The minimum time that the machine's measured limits allow, as a percentage of the median time.
    pub roofline_pct: Option<f64>,
    /// Peak resident memory.
    pub peak_rss_bytes: Option<u64>,
    /// Largest memory use of one card at the end of a repetition.
    #[serde(default)]
    pub device_memory_bytes: Option<u64>,
    /// Energy of one repetition, in joules.
    pub energy_j: Option<f64>,
    /// Energy per token, in joules.
    pub j_per_token: Option<f64>,
    /// The output hash that all repetitions share.
    pub output_hash: Option<String>,
    /// Whether the times are usable; empty if the case has no such phase.
    pub valid: Option<bool>,
    /// Why the times are not usable, or why the row is empty.
    pub invalid_reason: Option<Text>,
    /// The host that timed the case.
    pub host: String,
}

impl AccuracyRow {
    /// The header of `accuracy.csv`.
    pub const HEADER: &'static str = "schema,run_id,task,subject,category,protocol,shots,n,scored,unscorable,\
        failed,correct,acc,ci95_lo,ci95_hi,stderr,macro_acc,duration_s,tokens_in,tokens_out,version_hash";

    /// Returns the 95 % interval of the accuracy. `None` if an end is missing.
    pub fn interval(&self) -> Option<Interval> {
        Some(Interval { low: self.ci95_lo?, high: self.ci95_hi? })
    }
}

impl AnswerRow {
    /// The header of `answers.csv`.
    pub const HEADER: &'static str = "schema,run_id,model,task,protocol,answer,items,given,given_share,keys,key_share,\
        dominates,task_ties,task_last_rule,task_empty";
}

impl PerfRow {
    /// The header of `perf.csv`.
    pub const HEADER: &'static str = "schema,run_id,case_id,engine,device,clock,dtype,tp,threads,batch,input_tokens,\
        output_tokens,phase,reps,warmups,median_ns,mad_ns,mean_ns,stddev_ns,ci95_lo_ns,ci95_hi_ns,min_ns,max_ns,\
        p50_ns,p90_ns,p99_ns,tokens,tokens_per_s,tokens_per_s_median,bytes_touched,achieved_gb_s,roofline_pct,\
        peak_rss_bytes,device_memory_bytes,energy_j,j_per_token,output_hash,valid,invalid_reason,host";

    /// Returns the 95 % interval of the median in ns. `None` if an end is missing.
    pub fn interval_ns(&self) -> Option<Interval> {
        let (low, high) = (self.ci95_lo_ns? as f64, self.ci95_hi_ns? as f64);
        Some(Interval { low, high })
    }

    /// Returns the peak memory of the device that computed: a card's, or else the process's.
    pub fn peak_memory_bytes(&self) -> Option<u64> {
        self.device_memory_bytes.or(self.peak_rss_bytes)
    }

    /// Returns the peak memory of two rows if both are of the same kind: of cards, or of processes.
    pub fn peak_memories(&self, other: &Self) -> Option<(u64, u64)> {
        let of_cards = self.device_memory_bytes.zip(other.device_memory_bytes);
        let of_processes = || self.peak_rss_bytes.zip(other.peak_rss_bytes);
        of_cards.or_else(of_processes)
    }
}
