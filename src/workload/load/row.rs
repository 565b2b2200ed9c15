//! A row of `load.csv`.

use crate::record::{Arrival, Clock, Word};
use glmbench_device::{DeviceName, Precision};
use serde::{Deserialize, Serialize};

/// A row of `load.csv`: one rate. Quantiles are of type 7. The 99 % quantile needs at least 100 values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadRow {
    /// [`crate::record::SCHEMA`].
    pub schema: u32,
    /// The run.
    pub run_id: String,
    /// The load.
    pub load_id: String,
    /// Index of the rate.
    pub level: u32,
    /// Program and version.
    pub engine: String,
    /// The device.
    pub device: Word<DeviceName>,
    /// The clock of all times in the row.
    pub clock: Clock,
    /// The compute type.
    pub dtype: Word<Precision>,
    /// Tensor-parallel ranks.
    pub tp: u32,
    /// Threads of the engine.
    pub threads: u32,
    /// As in [`LoadCase::arrival`](super::record::LoadCase::arrival).
    pub arrival: Word<Arrival>,
    /// Maximum number of concurrent sequences.
    pub max_batch: u32,
    /// Scheduled requests per second; empty if all arrive at once, and in a closed loop.
    pub rate_per_s: Option<f64>,
    /// Requests under way in a closed loop; empty in an open one.
    pub concurrency: Option<u32>,
    /// Actual arrivals per second: (requests − 1) ÷ (last arrival − first). Empty in a closed loop, which follows the server.
    pub offered_per_s: Option<f64>,
    /// Requests served per second, from the start of the schedule to the end of the last request.
    pub achieved_per_s: Option<f64>,
    /// Number of requests.
    pub requests: u64,
    /// Requests that were not completed. They are excluded from all times.
    pub failed: u64,
    /// From the start of the schedule to the end of the last request.
    pub duration_ns: u64,
    /// Prompt tokens of the completed requests.
    pub input_tokens: u64,
    /// Tokens generated for the completed requests.
    pub output_tokens: u64,
    /// Generated tokens ÷ duration.
    pub output_tokens_per_s: Option<f64>,
    /// Queueing time, median.
    pub queue_p50_ns: Option<u64>,
    /// 90 % quantile.
    pub queue_p90_ns: Option<u64>,
    /// Maximum.
    pub queue_max_ns: Option<u64>,
    /// Time to first token from arrival, median.
    pub ttft_p50_ns: Option<u64>,
    /// 90 % quantile.
    pub ttft_p90_ns: Option<u64>,
    /// 99 % quantile.
    pub ttft_p99_ns: Option<u64>,
    /// Maximum.
    pub ttft_max_ns: Option<u64>,
    /// Time per token after the first, median over the requests.
    pub tpot_p50_ns: Option<u64>,
    /// 90 % quantile.
    pub tpot_p90_ns: Option<u64>,
    /// 99 % quantile.
    pub tpot_p99_ns: Option<u64>,
    /// Maximum.
    pub tpot_max_ns: Option<u64>,
    /// Gap between two tokens, median over all gaps.
    pub itl_p50_ns: Option<u64>,
    /// 90 % quantile.
    pub itl_p90_ns: Option<u64>,
    /// 99 % quantile.
    pub itl_p99_ns: Option<u64>,
    /// Maximum.
    pub itl_max_ns: Option<u64>,
    /// From arrival to the last token, median.
    pub e2e_p50_ns: Option<u64>,
    /// 90 % quantile.
    pub e2e_p90_ns: Option<u64>,
    /// 99 % quantile.
    pub e2e_p99_ns: Option<u64>,
    /// Maximum.
    pub e2e_max_ns: Option<u64>,
    /// Objective: maximum time to first token.
    pub slo_ttft_ns: Option<u64>,
    /// Objective: maximum time per token after the first.
    pub slo_tpot_ns: Option<u64>,
    /// Objective: maximum time from arrival to the last token.
    pub slo_e2e_ns: Option<u64>,
    /// Share of all requests that meet every stated objective; empty if no objective is stated.
    pub goodput_share: Option<f64>,
    /// Requests per second that meet them.
    pub goodput_per_s: Option<f64>,
    /// Growth of E2E with arrival time, as a slope.
    pub growth_slope: Option<f64>,
    /// Lower bound of its one-sided 95 % confidence interval.
    pub growth_low: Option<f64>,
    /// Whether the rate exceeds what the engine sustains; empty if undetermined.
    pub saturated: Option<bool>,
    /// Over a wire: time to first token from when the request was sent, median.
    pub ttft_sent_p50_ns: Option<u64>,
    /// 99 % quantile.
    pub ttft_sent_p99_ns: Option<u64>,
    /// Over a wire: duration of connecting, median.
    pub connect_p50_ns: Option<u64>,
    /// How late requests were sent after their arrival, 99 % quantile, or the maximum of fewer than 100.
    pub late_p99_ns: Option<u64>,
    /// Over a wire: events that carried text or tokens, for each generated token.
    pub events_per_token: Option<f64>,
    /// Over a wire: from when the request was sent to the last token, median.
    pub e2e_sent_p50_ns: Option<u64>,
    /// 99 % quantile.
    pub e2e_sent_p99_ns: Option<u64>,
    /// The host that made the load.
    pub host: String,
    /// Over a wire: requests that were sent again, which count as failed.
    pub resent: Option<u64>,
    /// Over a wire, by a schedule: how far late sending moved a quantile of the time to first token. The quantile is the median,
    /// the 90 % or the 99 % quantile: the one nearest to its limit.
    pub late_moved_ns: Option<u64>,
    /// How far that quantile may be moved.
    pub late_limit_ns: Option<u64>,
    /// How the engine shared its steps: `prefill-first`, `mixed 128` or `alternating 2`. Empty over a wire.
    pub scheduling: Option<String>,
}

impl LoadRow {
    /// The engine's steps where a level's line says nothing of them.
    pub const PREFILL_FIRST: &'static str = "prefill-first";

    /// Whether the load asked for other steps than prefill first.
    pub(crate) fn is_scheduled(&self) -> bool {
        self.scheduling.as_ref().is_some_and(|words| words != Self::PREFILL_FIRST)
    }

    /// The header of `load.csv`.
    pub const HEADER: &'static str = "schema,run_id,load_id,level,engine,device,clock,dtype,tp,threads,arrival,max_batch,\
        rate_per_s,concurrency,offered_per_s,achieved_per_s,requests,failed,duration_ns,input_tokens,output_tokens,\
        output_tokens_per_s,queue_p50_ns,queue_p90_ns,queue_max_ns,ttft_p50_ns,ttft_p90_ns,ttft_p99_ns,ttft_max_ns,\
        tpot_p50_ns,tpot_p90_ns,tpot_p99_ns,tpot_max_ns,itl_p50_ns,itl_p90_ns,itl_p99_ns,itl_max_ns,e2e_p50_ns,\
        e2e_p90_ns,e2e_p99_ns,e2e_max_ns,slo_ttft_ns,slo_tpot_ns,slo_e2e_ns,goodput_share,goodput_per_s,growth_slope,\
        growth_low,saturated,ttft_sent_p50_ns,ttft_sent_p99_ns,connect_p50_ns,late_p99_ns,events_per_token,\
        e2e_sent_p50_ns,e2e_sent_p99_ns,host,resent,late_moved_ns,late_limit_ns,scheduling";
}
