//! Estimates how long a plan's cases take, before they run. The basis is earlier runs of the same shape on this
//! machine, or a chip profile, which gives a lower bound.
//!
//! A phase's estimate scales the time of the recorded phase with the most similar work. The factor is the ratio of the
//! two roofline times on the machine as it was measured then. An accuracy case that was run before takes its time per
//! item. Otherwise its phases are counted with every answer at its length limit, which gives an upper bound.

use std::path::Path;

use glmbench_device::{ClockProfile, DeviceName, Precision};

use glmbench_engine::cache::blocks_for;
use glmbench_engine::config::ModelConfig;

use crate::bench::{CaseCost, PhaseCost, Shape, batch_cost, case_cost};
use crate::record::{Clock, RepetitionKind, Roofline, RunDir, RunRecord, SampleState};

use super::accuracy::AccuracyRun;
use super::resume::{Found, runs};
use super::sharing::PromptTokens;

/// Properties that an earlier run must share with this one.
#[derive(Debug, Clone)]
pub struct SameAs {
    /// Host name.
    pub host: Option<String>,
    /// Processor.
    pub cpu_model: Option<String>,
    /// The device.
    pub device: DeviceName,
    /// CPU kernels; `None` if they do not matter.
    pub kernel: Option<String>,
    /// Thread count; `None` if it does not matter.
    pub threads: Option<usize>,
    /// Types of weights, activations and cache.
    pub precision: Precision,
    /// The model's shape.
    pub shape: String,
    /// The model's name, for records without a shape.
    pub model: String,
}

impl SameAs {
    fn fits(&self, record: &RunRecord) -> bool {
        let of = &record.provenance;
        let shape = match of.model_details.get("shape") {
            Some(shape) => *shape == self.shape,
            None => of.model == self.model,
        };
        // The times of a merged run are on the clocks of several processes.
        let is_one_process = record.shards.as_ref().is_none_or(|shards| shards.single().is_some());
        shape
            && is_one_process
            && of.clock == Clock::Measured
            && self.host.as_ref().is_some_and(|host| *host == of.host)
            && self.cpu_model.as_ref().is_some_and(|cpu| *cpu == of.cpu_model)
            && of.device.known() == Some(self.device)
            && of.dtype.known() == Some(self.precision)
            && self.kernel.as_ref().is_none_or(|kernel| *kernel == of.kernel)
            && self.threads.is_none_or(|threads| threads as u32 == of.threads)
    }
}

/// The estimated duration of a case.
#[derive(Debug, Clone, PartialEq)]
pub enum Expected {
    /// An estimate for this machine.
    Known {
        /// The duration in seconds.
        seconds: f64,
        /// Whether this is an upper bound, because answers may end before their limit.
        at_most: bool,
        /// The record that it is based on.
        by: String,
    },
    /// A lower bound, from a profile's virtual clock or from a schedule.
    AtLeast {
        /// The duration in seconds.
        seconds: f64,
        /// The source of the bound.
        by: String,
    },
    /// There is no basis for an estimate.
    Unknown,
}

/// A phase's work and the time that it took.
#[derive(Debug, Clone)]
struct Achieved {
    cost: PhaseCost,
    seconds: f64,
    tp: usize,
    peaks: Option<Peaks>,
    by: String,
}

/// What a machine can do at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Peaks {
    /// Bytes of memory traffic per second.
    pub(super) bytes_per_s: f64,
    /// Floating-point operations per second.
    pub(super) flops_per_s: f64,
}

impl Peaks {
    pub(super) fn of(roofline: &Roofline) -> Self {
        Self { bytes_per_s: roofline.bandwidth_bytes_per_s, flops_per_s: roofline.peak_flops_per_s }
    }

    /// Returns the least time of a phase in seconds: its roofline time.
    pub(super) fn least_s(self, cost: PhaseCost) -> f64 {
        (cost.bytes as f64 / self.bytes_per_s).max(cost.flops as f64 / self.flops_per_s)
    }
}

/// The result of an earlier accuracy case.
#[derive(Debug, Clone)]
struct Asked {
    protocol: String,
    dataset: String,
    shots: u32,
    max_new_tokens: Option<usize>,
    batch: usize,
    tp: usize,
    seconds_an_item: f64,
    by: String,
}

/// Durations of earlier runs, newest first; or a profile.
#[derive(Debug, Default)]
pub struct Rates {
    prefill: Vec<Achieved>,
    decode: Vec<Achieved>,
    asked: Vec<Asked>,
    profile: Option<ClockProfile>,
}

/// Parameters for counting the work of the cases in a plan.
#[derive(Debug, Clone, Copy)]
pub struct Counted<'a> {
    /// The model's shape.
    pub config: &'a ModelConfig,
    /// Types of weights, activations and cache.
    pub precision: Precision,
    /// Maximum number of tokens per step.
    pub step_tokens: usize,
}

impl Rates {
    /// Reads the matching runs under `root`. Ignores runs that cannot be read.
    pub fn read(root: &Path, same: &SameAs, counted: Counted<'_>) -> Self {
        let mut rates = Self::default();
        for found in runs(root).filter(|found| same.fits(&found.record)) {
            rates.add(&found, counted);
        }
        rates
    }

    /// Bases estimates on a profile, because the run uses the profile's clock.
    pub fn of_profile(profile: ClockProfile) -> Self {
        Self { profile: Some(profile), ..Self::default() }
    }

    fn add(&mut self, found: &Found, counted: Counted<'_>) {
        let Ok(dir) = RunDir::open(&found.path) else { return };
        let record = &found.record;
        self.add_requests(&dir, record);
        self.add_samples(&dir, record, counted);
    }

    /// Adds the phases of the performance cases: means over the timed repetitions.
    fn add_requests(&mut self, dir: &RunDir, record: &RunRecord) {
        let requests = dir.read_requests().unwrap_or_default();
        let peaks = record.provenance.roofline.as_ref().map(Peaks::of);
        for case in &record.plan.performance {
            let timed = requests.iter().filter(|request| {
                request.case_id == case.case_id
                    && request.kind == RepetitionKind::Timed
                    && request.error.is_none()
            });
            let times: Vec<(u64, u64)> =
                timed.map(|request| (request.prefill_ns, request.step_ns.iter().sum())).collect();
            let mean = |of: fn(&(u64, u64)) -> u64| {
                times.iter().map(|time| of(time) as f64 / 1e9).sum::<f64>() / times.len() as f64
            };
            let phases = [
                (&mut self.prefill, case.prefill_cost, mean(|time| time.0)),
                (&mut self.decode, case.decode_cost, mean(|time| time.1)),
            ];
            for (rates, cost, seconds) in phases {
                let Some(cost) = cost.map(|cost| PhaseCost { bytes: cost.bytes, flops: cost.flops }) else {
                    continue;
                };
                if seconds > 0.0 && cost.flops > 0 {
                    let by = format!("{} of {}", case.case_id, record.run_id);
                    rates.push(Achieved { cost, seconds, tp: case.tp as usize, peaks, by });
                }
            }
        }
    }

    /// Adds the run's accuracy cases: the time per item and, if nothing was generated, the time of their prompts.
    fn add_samples(&mut self, dir: &RunDir, record: &RunRecord, counted: Counted<'_>) {
        let samples = dir.read_samples().unwrap_or_default();
        let of = &record.provenance;
        let (batch, tp) = (of.batch as usize, of.tp as usize);
        for case in &record.plan.accuracy {
            let answered = samples.iter().filter(|s| s.task == case.task && s.state != SampleState::Failed);
            let answered: Vec<_> = answered.collect();
            let (Some(start), Some(end)) =
                (answered.iter().map(|s| s.t_start_ns).min(), answered.iter().map(|s| s.t_end_ns).max())
            else {
                continue;
            };
            let seconds = end.saturating_sub(start) as f64 / 1e9;
            let by = format!("{} of {}", case.task, record.run_id);
            self.asked.push(Asked {
                protocol: case.protocol.clone(),
                dataset: case.dataset.clone(),
                shots: case.shots,
                max_new_tokens: record
                    .identity
                    .get(&format!("{}.max_new_tokens", case.task))
                    .and_then(|n| n.parse().ok()),
                batch,
                tp,
                seconds_an_item: seconds / answered.len() as f64,
                by: by.clone(),
            });
            if answered.iter().all(|s| s.output_tokens.is_empty()) && seconds > 0.0 {
                let inputs: Vec<usize> = answered.iter().map(|s| s.input_tokens_n as usize).collect();
                let batches = inputs.chunks(batch.max(1)).map(|inputs| counted.cost(inputs, 1));
                let (cost, peaks) = (total(batches).prefill, of.roofline.as_ref().map(Peaks::of));
                self.prefill.push(Achieved { cost, seconds, tp, peaks, by });
            }
        }
    }

    /// Estimates an accuracy case. Records call its data set `dataset`.
    pub fn task(&self, run: &AccuracyRun<'_>, dataset: &str, counted: Counted<'_>) -> Expected {
        let plan = run.evaluation.plan();
        let items = run.own.len();
        let protocol = plan.protocol.definition().name;
        let same = self.asked.iter().find(|asked| {
            asked.protocol == protocol
                && asked.dataset == dataset
                && asked.shots as usize == plan.shots
                && asked.max_new_tokens == Some(plan.max_new_tokens)
                && asked.batch == run.batch
                && asked.tp == run.tp
        });
        if let Some(asked) = same {
            let seconds = asked.seconds_an_item * items as f64;
            return Expected::Known { seconds, at_most: false, by: asked.by.clone() };
        }
        self.phases(task_cost(run, &run.own, counted), run.tp, plan.max_new_tokens > 1)
    }

    /// Estimates two phases of this work on `tp` ranks. `at_most` says that the work is an upper bound.
    pub(crate) fn phases(&self, cost: CaseCost, tp: usize, at_most: bool) -> Expected {
        let CaseCost { prefill, decode } = cost;
        if let Some(profile) = &self.profile {
            let peaks = Peaks {
                bytes_per_s: profile.memory_bytes_per_s as f64 * tp as f64,
                flops_per_s: profile.matmul_flops_per_s as f64 * tp as f64,
            };
            let seconds = peaks.least_s(prefill) + peaks.least_s(decode);
            return Expected::AtLeast { seconds, by: format!("profile {}", profile.name) };
        }
        let (Some(first), then) = (nearest(&self.prefill, prefill, tp), nearest(&self.decode, decode, tp))
        else {
            return Expected::Unknown;
        };
        let of = |achieved: &Achieved, cost| achieved.seconds * achieved.ratio(cost);
        let mut seconds = of(first, prefill);
        if decode.flops > 0 {
            let Some(then) = then else { return Expected::Unknown };
            seconds += of(then, decode);
        }
        Expected::Known { seconds, at_most, by: first.by.clone() }
    }
}

/// Counts the work of items of an accuracy case, with every answer at its length limit.
fn task_cost(run: &AccuracyRun<'_>, items: &[usize], counted: Counted<'_>) -> CaseCost {
    let plan = run.evaluation.plan();
    let new = plan.max_new_tokens;
    let samples = plan.draws.map_or(1, |draws| draws.samples);
    let prompts = items.iter().flat_map(|&i| run.evaluation.prompt_lengths(i));
    let mut inputs: Vec<usize> = prompts.flat_map(|tokens| std::iter::repeat_n(tokens, samples)).collect();
    let batches = |inputs: &[usize], output: usize| {
        total(inputs.chunks(run.batch.max(1)).map(|inputs| counted.cost(inputs, output)))
    };
    let CaseCost { mut prefill, decode } = batches(&inputs, new.max(1));
    let shares = run.savings.shared_prefixes;
    if shares {
        let prefix = counted.prefix();
        prefill = part_of(prefill, run.prompt_tokens(items, enough_blocks(&inputs, prefix), prefix));
    }
    if new > 0 && !run.evaluation.choices().is_empty() {
        // A second question repeats the first with its answer.
        inputs.iter_mut().for_each(|tokens| *tokens += new);
        let all = inputs.iter().sum::<usize>() as u64;
        let computed = if shares { (new * items.len()) as u64 } else { all };
        prefill = sum(prefill, part_of(batches(&inputs, 1).prefill, PromptTokens { all, computed }));
    }
    CaseCost { prefill, decode }
}

/// Returns the least work of an accuracy case in bytes of memory traffic, with every answer at its length limit.
/// Estimated.
pub(super) fn task_work(run: &AccuracyRun<'_>, counted: Counted<'_>) -> u64 {
    run.estimated(|items| traffic(task_cost(run, items, counted)))
}

/// Returns the part of the prefill cost that is left where prompts begin alike.
fn part_of(cost: PhaseCost, tokens: PromptTokens) -> PhaseCost {
    let part = |whole: u64| (whole as f64 * tokens.computed as f64 / tokens.all.max(1) as f64) as u64;
    PhaseCost { bytes: part(cost.bytes), flops: part(cost.flops) }
}

/// Returns the number of blocks that hold all prompts at once.
fn enough_blocks(inputs: &[usize], prefix: usize) -> usize {
    inputs.iter().map(|&tokens| blocks_for(prefix + tokens)).sum()
}

/// Operations that take as long as a byte of memory traffic, to add up the work of phases. A fixed figure, because
/// measured ones would differ from machine to machine.
const FLOPS_A_BYTE: u64 = 64;

/// Maximum tokens of a batch for which work is counted. Larger batches fit no machine, and their work would overflow.
const MOST_TOKENS: usize = 1 << 26;

/// Returns the least work of phases in bytes of memory traffic.
fn traffic(cost: CaseCost) -> u64 {
    let of = |phase: PhaseCost| phase.bytes.max(phase.flops / FLOPS_A_BYTE);
    of(cost.prefill).saturating_add(of(cost.decode))
}

impl Counted<'_> {
    /// Returns the length of the P-tuning prefix.
    fn prefix(self) -> usize {
        self.config.pre_seq_len.unwrap_or(0)
    }

    /// Returns the least work of a batch in bytes of memory traffic.
    pub(crate) fn work(self, shape: Shape) -> u64 {
        Self::work_of(shape, || case_cost(self.config, self.precision, self.step_tokens, shape))
    }

    /// Returns the least work of a batch with this shape, given how to count it.
    pub(crate) fn work_of(shape: Shape, cost: impl Fn() -> CaseCost) -> u64 {
        let tokens = shape.batch.saturating_mul(shape.sequence_tokens());
        if tokens > MOST_TOKENS { u64::MAX >> 16 } else { traffic(cost()) }
    }

    fn cost(self, inputs: &[usize], output_tokens: usize) -> CaseCost {
        batch_cost(self.config, self.precision, self.step_tokens, inputs, output_tokens)
    }
}

impl Expected {
    /// Multiplies the duration by `count`, which receives the seconds.
    pub(crate) fn times(self, count: impl Fn(f64) -> f64) -> Self {
        match self {
            Self::Known { seconds, at_most, by } => {
                Self::Known { seconds: seconds * count(seconds), at_most, by }
            }
            Self::AtLeast { seconds, by } => Self::AtLeast { seconds: seconds * count(seconds), by },
            Self::Unknown => Self::Unknown,
        }
    }
}

impl Achieved {
    /// Returns the factor from this phase's time to that of `cost`.
    fn ratio(&self, cost: PhaseCost) -> f64 {
        match self.peaks {
            Some(peaks) => peaks.least_s(cost) / peaks.least_s(self.cost),
            // Without the machine's limits, the larger of the two ratios, so that the estimate errs on the long side.
            None => share(cost.bytes, self.cost.bytes).max(share(cost.flops, self.cost.flops)),
        }
    }
}

/// Returns the recorded phase with the most similar work and the same number of ranks; the newest among equal ones.
fn nearest(rates: &[Achieved], cost: PhaseCost, tp: usize) -> Option<&Achieved> {
    let distance = |rate: &&Achieved| {
        share(cost.bytes, rate.cost.bytes).ln().abs() + share(cost.flops, rate.cost.flops).ln().abs()
    };
    rates.iter().filter(|rate| rate.tp == tp).min_by(|a, b| distance(a).total_cmp(&distance(b)))
}

fn share(a: u64, b: u64) -> f64 {
    a.max(1) as f64 / b.max(1) as f64
}

fn sum(a: PhaseCost, b: PhaseCost) -> PhaseCost {
    PhaseCost { bytes: a.bytes.saturating_add(b.bytes), flops: a.flops.saturating_add(b.flops) }
}

fn total(costs: impl Iterator<Item = CaseCost>) -> CaseCost {
    costs.fold(CaseCost::NONE, |all, one| CaseCost {
        prefill: sum(all.prefill, one.prefill),
        decode: sum(all.decode, one.decode),
    })
}

/// Formats a duration: `12 s`, `35 min`, `40 h`, `9 days`.
pub fn in_words(seconds: f64) -> String {
    match seconds {
        s if s < 0.1 => "less than 0.1 s".to_owned(),
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 100.0 => format!("{s:.0} s"),
        s if s < 3600.0 => format!("{:.0} min", s / 60.0),
        s if s < 10.0 * 3600.0 => format!("{:.1} h", s / 3600.0),
        s if s < 100.0 * 3600.0 => format!("{:.0} h", s / 3600.0),
        s if s < 1e6 * 86400.0 => format!("{:.0} days", s / 86400.0),
        _ => "more than a million days".to_owned(),
    }
}

#[cfg(test)]
mod tests;
