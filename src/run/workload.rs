//! The parts of a plan for real prompts, max-batch searches and loads.

use std::collections::HashSet;

use glmbench_device::Precision;

use glmbench_engine::config::ModelConfig;
use glmbench_engine::tokenizer::Tokenizer;

use crate::bench::{ArrivalProcess, PhaseCost, Shape, batch_cost, case_cost};
use crate::record;
use crate::suite::{self, Arrival, Extent, Rates, Suite};

use super::load::{LoadRun, Schedule};
use super::performance::PerformanceRun;
use super::questions::Pool;
use super::search::SearchRun;
use super::trace::{read_trace, trace_rate};

/// Largest batch of real prompts. A whole batch is held in memory, even if it repeats a few prompts.
const MAX_REAL_BATCH: usize = 1 << 16;

/// Converts milliseconds of a suite to nanoseconds.
fn ns(ms: f64) -> u64 {
    (ms * 1e6).round() as u64
}

/// Returns the searches of a suite.
pub(super) fn searches(suite: &Suite, config: &ModelConfig) -> Result<Vec<SearchRun>, String> {
    let mut runs: Vec<SearchRun> = Vec::new();
    let mut ids = HashSet::new();
    for case in &suite.max_batch {
        for &(input_tokens, output_tokens) in &case.lengths {
            for &tp in &case.tp_ranks {
                let run = SearchRun {
                    input_tokens,
                    output_tokens,
                    low: case.batch_range.0,
                    high: case.batch_range.1,
                    limit_tpot_ns: ns(case.limit_tpot_ms),
                    limit_ttft_ns: case.limit_ttft_ms.map(ns),
                    repetitions: case.repetitions,
                    tp,
                    seed: case.seed,
                };
                fits_model(&run.search_id(), input_tokens + output_tokens, config)?;
                if !ids.insert(run.search_id()) {
                    return Err(format!("search {} comes twice", run.search_id()));
                }
                runs.push(run);
            }
        }
    }
    Ok(runs)
}

/// Returns the loads of a suite, with their real prompts.
pub(super) fn loads(
    suite: &Suite,
    config: &ModelConfig,
    tokenizer: Option<&Tokenizer>,
) -> Result<Vec<LoadRun>, String> {
    let mut runs: Vec<LoadRun> = Vec::new();
    for case in &suite.load {
        let schedule = schedule(case)?;
        let pools = match &case.prompts {
            Some(source) => {
                let pool = |&(input, _): &(usize, usize)| {
                    check_padding(source, input, config)?;
                    Pool::new(source, tokenizer, input)
                };
                case.lengths.iter().map(pool).collect::<Result<Vec<_>, _>>()?
            }
            None => Vec::new(),
        };
        for &tp in &case.tp_ranks {
            let run = load_run(case, schedule.clone(), &pools, tp);
            fits_model(&run.load_id, run.longest(), config)?;
            if runs.iter().any(|other| other.load_id == run.load_id) {
                return Err(format!("load {} comes twice", run.load_id));
            }
            runs.push(run);
        }
    }
    Ok(runs)
}

/// Returns when the requests of a case arrive.
fn schedule(case: &suite::LoadCase) -> Result<Schedule, String> {
    Ok(match &case.arrival {
        Arrival::Poisson => Schedule::Process(ArrivalProcess::Poisson),
        Arrival::Gamma(burstiness) => Schedule::Process(ArrivalProcess::Gamma(*burstiness)),
        Arrival::Fixed => Schedule::Process(ArrivalProcess::Fixed),
        Arrival::Closed => match &case.rates {
            Rates::Concurrency(levels) => Schedule::Closed(levels.clone()),
            _ => Schedule::Closed(Vec::new()),
        },
        Arrival::Trace(path) => {
            let most = match case.extent {
                Extent::Requests(requests) => requests,
                Extent::DurationS(_) => usize::MAX,
            };
            let mut requests = read_trace(path).map_err(|e| e.to_string())?;
            if let Extent::DurationS(seconds) = case.extent {
                requests.retain(|request| request.arrival_ns as f64 <= seconds * 1e9);
            }
            requests.truncate(most);
            Schedule::Trace(trace_rate(&requests), requests)
        }
    })
}

/// Returns the levels' part of a load's name, and its rates.
fn rates_of(case: &suite::LoadCase, schedule: &Schedule) -> (&'static str, Option<Vec<f64>>) {
    match (&case.rates, schedule) {
        (Rates::Speeds(speeds), Schedule::Trace(own_rate, _)) => {
            ("", Some(speeds.iter().map(|speed| speed * own_rate).collect()))
        }
        (Rates::Listed(rates), _) => ("", Some(rates.clone())),
        (Rates::Saturation, _) => ("-saturation", None),
        (Rates::Concurrency(_) | Rates::Speeds(_), _) => ("", None),
    }
}

fn load_run(case: &suite::LoadCase, schedule: Schedule, pools: &[Pool], tp: usize) -> LoadRun {
    let (requests, duration_ns) = match case.extent {
        Extent::Requests(requests) => (requests, u64::MAX),
        Extent::DurationS(seconds) => (usize::MAX, (seconds * 1e9) as u64),
    };
    let (search, rates) = rates_of(case, &schedule);
    let random = |&(input, output): &(usize, usize)| format!("i{input}-o{output}");
    let lengths: Vec<String> = match pools {
        [] => case.lengths.iter().map(random).collect(),
        pools => {
            pools.iter().zip(&case.lengths).map(|(p, (_, output))| format!("{}-o{output}", p.name)).collect()
        }
    };
    let ranks = if tp == 1 { String::new() } else { format!("-tp{tp}") };
    let arrival = match &case.arrival {
        Arrival::Gamma(burstiness) => format!("gamma{burstiness}"),
        Arrival::Trace(file) => {
            format!("trace-{}", file.file_stem().unwrap_or(file.as_os_str()).to_string_lossy())
        }
        named => named.as_str().to_owned(),
    };
    let of_lengths = if lengths.is_empty() { String::new() } else { format!("-{}", lengths.join("+")) };
    let batch = if case.arrival == Arrival::Closed { String::new() } else { format!("-b{}", case.max_batch) };
    let load_id = format!("{arrival}{of_lengths}{batch}{search}{ranks}");
    let told = |pool: &Pool| format!("{}: {}", pool.name, pool.notes.join(", "));
    let prompts = match pools {
        [] if lengths.is_empty() => "random tokens, with the trace's lengths".to_owned(),
        [] => format!("random tokens, {} (input-output, in turn)", lengths.join(", ")),
        pools => pools.iter().map(told).collect::<Vec<_>>().join("; "),
    };
    LoadRun {
        load_id,
        schedule,
        rates,
        requests,
        duration_ns,
        lengths: case.lengths.clone(),
        pools: pools.iter().map(|pool| pool.prompts.clone()).collect(),
        prompts,
        max_batch: case.max_batch,
        objectives: record::Objectives {
            ttft_ns: case.objectives.ttft_ms.map(ns),
            tpot_ns: case.objectives.tpot_ms.map(ns),
            e2e_ns: case.objectives.e2e_ms.map(ns),
        },
        tp,
        seed: case.seed,
    }
}

fn fits_model(name: &str, tokens: usize, config: &ModelConfig) -> Result<(), String> {
    if tokens > config.seq_length {
        let longest = config.seq_length;
        return Err(format!("{name} has sequences of {tokens} tokens, the model's seq_length is {longest}"));
    }
    Ok(())
}

/// Checks the length of padded prompts before any prompt is padded to it.
fn check_padding(source: &suite::PromptSource, tokens: usize, config: &ModelConfig) -> Result<(), String> {
    if source.padding { fits_model("a case with padded prompts", tokens, config) } else { Ok(()) }
}

/// Returns the shapes and prompts of a case with real prompts, at one pair of lengths. The input is the longest
/// prompt's.
pub(super) fn real_shapes(
    case: &suite::PerformanceCase,
    source: &suite::PromptSource,
    config: &ModelConfig,
    tokenizer: Option<&Tokenizer>,
    (input_tokens, output_tokens): (usize, usize),
) -> Result<Vec<(Shape, super::questions::RealPrompts)>, String> {
    check_padding(source, input_tokens, config)?;
    if let Some(batch) = case.batches.iter().find(|batch| **batch > MAX_REAL_BATCH) {
        return Err(format!("a batch of {batch} real prompts was found, expected {MAX_REAL_BATCH} at most"));
    }
    let pool = Pool::new(source, tokenizer, input_tokens)?;
    let shape = |&batch: &usize| {
        let shape = Shape { batch, input_tokens: pool.longest(), output_tokens };
        (shape, pool.groups(batch, source.groups))
    };
    Ok(case.batches.iter().map(shape).collect())
}

/// Returns the cost of a run's phases; with real prompts the mean over its batches.
pub(super) fn cost(
    run: &PerformanceRun,
    config: &ModelConfig,
    precision: Precision,
    step_tokens: usize,
) -> (PhaseCost, PhaseCost) {
    let Some(prompts) = &run.prompts else { return case_cost(config, precision, step_tokens, run.shape) };
    let of_group = |group: &Vec<Vec<u32>>| {
        let inputs: Vec<usize> = group.iter().map(Vec::len).collect();
        batch_cost(config, precision, step_tokens, &inputs, run.shape.output_tokens)
    };
    let costs: Vec<_> = prompts.groups.iter().map(of_group).collect();
    let count = costs.len().max(1) as u64;
    let mean = |of: fn(&(PhaseCost, PhaseCost)) -> PhaseCost| PhaseCost {
        bytes: costs.iter().map(|c| of(c).bytes).sum::<u64>() / count,
        flops: costs.iter().map(|c| of(c).flops).sum::<u64>() / count,
    };
    (mean(|c| c.0), mean(|c| c.1))
}
