//! The server's counters, and their text for Prometheus in vLLM's and TGI's vocabularies.

use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use glmbench_engine::{FinishReason, Occupancy, Step, StepKind};

use crate::job::Measure;

/// Bounds of histograms of times, in seconds.
const SECONDS: [f64; 20] = [
    0.001, 0.0025, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 120.0, 600.0,
];
/// Bounds of histograms of token counts.
const TOKENS: [f64; 14] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0, 20000.0];

/// Counts of values up to each bound.
#[derive(Debug, Clone)]
struct Histogram {
    bounds: &'static [f64],
    counts: Vec<u64>,
    count: u64,
    sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len()], count: 0, sum: 0.0 }
    }

    fn add(&mut self, value: f64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
        }
        self.count += 1;
        self.sum += value;
    }

    fn add_time(&mut self, time: Duration) {
        self.add(time.as_secs_f64());
    }
}

/// Everything that is counted.
#[derive(Debug, Clone)]
struct Counters {
    occupancy: Occupancy,
    /// Requests that reached an inference route.
    requests: u64,
    /// Sequences that ended, by OpenAI's reason: stop, length, abort.
    success: [u64; 3],
    failures: Vec<(&'static str, u64)>,
    prompt_tokens: u64,
    /// Prompt tokens computed.
    fed_tokens: u64,
    /// Prompt tokens taken from the KV cache.
    reused_tokens: u64,
    generation_tokens: u64,
    steps: [u64; 3],
    step_time: [Histogram; 3],
    step_tokens: Histogram,
    batch: usize,
    first_token: Histogram,
    next_token: Histogram,
    per_token: Histogram,
    total: Histogram,
    queue: Histogram,
    inference: Histogram,
    prefill: Histogram,
    decode: Histogram,
    request_prompt: Histogram,
    request_generation: Histogram,
    request_max: Histogram,
    connections: u64,
    dropped_log_lines: u64,
}

/// The counters, shared by the engine's thread and the routes.
#[derive(Debug)]
pub(crate) struct Metrics {
    counters: Mutex<Counters>,
}

impl Metrics {
    pub(crate) fn new(occupancy: Occupancy) -> Self {
        let seconds = || Histogram::new(&SECONDS);
        let tokens = || Histogram::new(&TOKENS);
        Self {
            counters: Mutex::new(Counters {
                occupancy,
                requests: 0,
                success: [0; 3],
                failures: Vec::new(),
                prompt_tokens: 0,
                fed_tokens: 0,
                reused_tokens: 0,
                generation_tokens: 0,
                steps: [0; 3],
                step_time: [seconds(), seconds(), seconds()],
                step_tokens: tokens(),
                batch: 0,
                first_token: seconds(),
                next_token: seconds(),
                per_token: seconds(),
                total: seconds(),
                queue: seconds(),
                inference: seconds(),
                prefill: seconds(),
                decode: seconds(),
                request_prompt: tokens(),
                request_generation: tokens(),
                request_max: tokens(),
                connections: 0,
                dropped_log_lines: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn occupancy(&self, occupancy: Occupancy) {
        let mut counters = self.lock();
        counters.occupancy = occupancy;
        counters.batch = occupancy.running;
    }

    pub(crate) fn request(&self) {
        self.lock().requests += 1;
    }

    pub(crate) fn failure(&self, word: &'static str) {
        let mut counters = self.lock();
        match counters.failures.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += 1,
            None => counters.failures.push((word, 1)),
        }
    }

    pub(crate) fn connections(&self, open: u64) {
        self.lock().connections = open;
    }

    pub(crate) fn dropped_log_line(&self) {
        self.lock().dropped_log_lines += 1;
    }

    pub(crate) fn step(&self, step: &Step, time: Duration) {
        let mut counters = self.lock();
        let kind = match step.kind {
            StepKind::Prefill => 0,
            StepKind::Decode | StepKind::Idle => 1,
            StepKind::Mixed => 2,
        };
        counters.fed_tokens += step.prompt_tokens as u64;
        counters.reused_tokens += step.saved.reused as u64;
        counters.steps[kind] += 1;
        counters.step_time[kind].add_time(time);
        counters.step_tokens.add(step.tokens as f64);
        counters.batch = step.sequences;
    }

    pub(crate) fn first_token(&self, time: Duration) {
        let mut counters = self.lock();
        counters.generation_tokens += 1;
        counters.first_token.add_time(time);
    }

    pub(crate) fn next_token(&self, time: Duration) {
        let mut counters = self.lock();
        counters.generation_tokens += 1;
        counters.next_token.add_time(time);
    }

    pub(crate) fn cancelled(&self, sequences: usize) {
        self.lock().success[2] += sequences as u64;
    }

    pub(crate) fn finished(&self, reason: &FinishReason, of: Measure) {
        let mut counters = self.lock();
        let kind = match reason {
            FinishReason::Eos | FinishReason::StopToken(_) | FinishReason::StopText(_) => 0,
            FinishReason::Length => 1,
            FinishReason::BrokenLogits(_) => 2,
        };
        counters.success[kind] += 1;
        counters.prompt_tokens += of.prompt_tokens as u64;
        counters.total.add_time(of.times.total);
        counters.queue.add_time(of.times.queue);
        counters.inference.add_time(of.times.total.saturating_sub(of.times.queue));
        counters.prefill.add_time(of.prefill);
        counters.decode.add_time(of.decode);
        if of.tokens > 1 {
            counters.per_token.add(of.decode.as_secs_f64() / (of.tokens - 1) as f64);
        }
        counters.request_prompt.add(of.prompt_tokens as f64);
        counters.request_generation.add(of.tokens as f64);
        counters.request_max.add(of.max_new_tokens as f64);
    }

    /// Returns the page of `/metrics`.
    pub(crate) fn text(&self, model: &str) -> String {
        let counters = self.lock().clone();
        let mut page = Page::new(model);
        counters.vllm(&mut page);
        counters.tgi(&mut page);
        page.text
    }
}

impl Counters {
    fn vllm(&self, page: &mut Page) {
        let Occupancy { waiting, running, kv_blocks_used, kv_blocks } = self.occupancy;
        page.gauge("vllm:num_requests_running", "Sequences in the batch", running as f64);
        page.gauge("vllm:num_requests_waiting", "Sequences that wait for a place", waiting as f64);
        let share = kv_blocks_used as f64 / kv_blocks.max(1) as f64;
        page.gauge("vllm:kv_cache_usage_perc", "Share of the KV cache's blocks in use, 0 to 1", share);
        page.gauge("glmbench_kv_blocks_used", "Blocks of the KV cache in use", kv_blocks_used as f64);
        page.gauge("glmbench_kv_blocks", "Blocks of the KV cache", kv_blocks as f64);
        page.gauge("glmbench_connections", "Open connections", self.connections as f64);
        page.counter(
            "vllm:prompt_tokens_total",
            "Prompt tokens of ended sequences",
            &[(None, self.prompt_tokens)],
        );
        page.counter("vllm:generation_tokens_total", "Chosen tokens", &[(None, self.generation_tokens)]);
        let reasons = ["stop", "length", "abort"];
        let reasons: Vec<_> = reasons
            .into_iter()
            .zip(self.success)
            .map(|(reason, n)| (Some(("finished_reason", reason)), n))
            .collect();
        page.counter("vllm:request_success_total", "Ended sequences", &reasons);
        page.counter(
            "vllm:num_preemptions_total",
            "Always 0: a running sequence keeps its blocks",
            &[(None, 0)],
        );
        page.counter(
            "vllm:prefix_cache_queries_total",
            "Prompt tokens computed or found in the KV cache",
            &[(None, self.fed_tokens + self.reused_tokens)],
        );
        page.counter(
            "vllm:prefix_cache_hits_total",
            "Prompt tokens found in the KV cache; 0 without --prefix-cache",
            &[(None, self.reused_tokens)],
        );
        page.counter(
            "glmbench_dropped_log_lines_total",
            "Lines that the log had no room for",
            &[(None, self.dropped_log_lines)],
        );
        for (name, about, histogram) in [
            ("vllm:iteration_tokens_total", "Rows of a step", &self.step_tokens),
            ("vllm:time_to_first_token_seconds", "From arrival to the first token", &self.first_token),
            ("vllm:inter_token_latency_seconds", "Between two tokens of a sequence", &self.next_token),
            ("vllm:time_per_output_token_seconds", "Between two tokens of a sequence", &self.next_token),
            ("vllm:e2e_request_latency_seconds", "From arrival to the end", &self.total),
            ("vllm:request_queue_time_seconds", "From arrival to the first step", &self.queue),
            ("vllm:request_inference_time_seconds", "From the first step to the end", &self.inference),
            ("vllm:request_prefill_time_seconds", "From the first step to the first token", &self.prefill),
            ("vllm:request_decode_time_seconds", "From the first token to the end", &self.decode),
            ("vllm:request_prompt_tokens", "Prompt tokens of a sequence", &self.request_prompt),
            ("vllm:request_generation_tokens", "Chosen tokens of a sequence", &self.request_generation),
            ("vllm:request_params_max_tokens", "Most new tokens asked for", &self.request_max),
        ] {
            page.histogram(name, about, histogram);
        }
    }

    fn tgi(&self, page: &mut Page) {
        page.counter("tgi_request_count", "Requests of inference routes", &[(None, self.requests)]);
        let ended = self.success[0] + self.success[1];
        page.counter("tgi_request_success", "Ended sequences", &[(None, ended)]);
        let failures: Vec<_> = self.failures.iter().map(|(word, n)| (Some(("err", *word)), *n)).collect();
        page.counter("tgi_request_failure", "Failed requests", &failures);
        page.gauge("tgi_queue_size", "Sequences that wait for a place", self.occupancy.waiting as f64);
        page.gauge("tgi_batch_current_size", "Sequences of the last step", self.batch as f64);
        let methods = ["prefill", "decode", "mixed"];
        let methods: Vec<_> =
            methods.into_iter().zip(self.steps).map(|(word, n)| (Some(("method", word)), n)).collect();
        page.counter("tgi_batch_inference_count", "Steps", &methods);
        for (name, about, histogram) in [
            ("tgi_request_duration", "From arrival to the end, seconds", &self.total),
            ("tgi_request_queue_duration", "From arrival to the first step, seconds", &self.queue),
            ("tgi_request_inference_duration", "From the first step to the end, seconds", &self.inference),
            (
                "tgi_request_mean_time_per_token_duration",
                "Mean time of a further token, seconds",
                &self.per_token,
            ),
            ("tgi_request_generated_tokens", "Chosen tokens of a sequence", &self.request_generation),
            ("tgi_request_input_length", "Prompt tokens of a sequence", &self.request_prompt),
            ("tgi_request_max_new_tokens", "Most new tokens asked for", &self.request_max),
            ("tgi_batch_forward_duration", "Prefill steps, seconds", &self.step_time[0]),
            ("tgi_batch_decode_duration", "Decode steps, seconds", &self.step_time[1]),
            ("glmbench_batch_mixed_duration", "Steps that prefill and decode, seconds", &self.step_time[2]),
        ] {
            page.histogram(name, about, histogram);
        }
    }
}

/// A label's name and value.
type Label<'a> = Option<(&'a str, &'a str)>;

/// Prometheus text, version 0.0.4.
struct Page {
    /// `model_name="…"`.
    model: String,
    text: String,
}

impl Page {
    fn new(model: &str) -> Self {
        let model = model.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        Self { model: format!("model_name=\"{model}\""), text: String::new() }
    }

    fn head(&mut self, name: &str, about: &str, kind: &str) {
        let _ = writeln!(self.text, "# HELP {name} {about}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, label: Label<'_>, value: f64) {
        let Self { model, text } = self;
        let _ = match label {
            None => writeln!(text, "{name}{{{model}}} {value}"),
            Some((key, word)) => writeln!(text, "{name}{{{model},{key}=\"{word}\"}} {value}"),
        };
    }

    fn gauge(&mut self, name: &str, about: &str, value: f64) {
        self.head(name, about, "gauge");
        self.line(name, None, value);
    }

    fn counter(&mut self, name: &str, about: &str, values: &[(Label<'_>, u64)]) {
        self.head(name, about, "counter");
        for (label, value) in values {
            self.line(name, *label, *value as f64);
        }
    }

    fn histogram(&mut self, name: &str, about: &str, of: &Histogram) {
        self.head(name, about, "histogram");
        let mut below = 0;
        for (bound, count) in of.bounds.iter().zip(&of.counts) {
            below += count;
            self.line(&format!("{name}_bucket"), Some(("le", &bound.to_string())), below as f64);
        }
        self.line(&format!("{name}_bucket"), Some(("le", "+Inf")), of.count as f64);
        self.line(&format!("{name}_sum"), None, of.sum);
        self.line(&format!("{name}_count"), None, of.count as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_names_are_escaped() {
        let metrics = Metrics::new(Occupancy { waiting: 0, running: 0, kv_blocks_used: 1, kv_blocks: 4 });
        metrics.first_token(Duration::from_millis(3));
        metrics.first_token(Duration::from_hours(1));
        let text = metrics.text("a\"b");
        let has = |line: &str| assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        has("vllm:time_to_first_token_seconds_bucket{model_name=\"a\\\"b\",le=\"0.0025\"} 0");
        has("vllm:time_to_first_token_seconds_bucket{model_name=\"a\\\"b\",le=\"0.005\"} 1");
        has("vllm:time_to_first_token_seconds_bucket{model_name=\"a\\\"b\",le=\"+Inf\"} 2");
        has("vllm:kv_cache_usage_perc{model_name=\"a\\\"b\"} 0.25");
    }
}
