//! Plans loads.

use super::run::{LoadRun, Schedule};
use super::table::{Extent, LoadCase, MAX_REQUESTS, Rates};
use super::trace::{read_trace, trace_rate};
use crate::record::Arrival;
use crate::run::cases::{Planning, check_padding, fits_model};
use crate::run::questions::Pool;
use crate::stats::ArrivalProcess;
use crate::suite::Lengths;

/// Returns the loads of a suite, with their real prompts.
pub(super) fn plan(tables: &[LoadCase], on: Planning<'_>) -> Result<Vec<LoadRun>, String> {
    let Planning { config, tokenizer } = on;
    let mut runs: Vec<LoadRun> = Vec::new();
    for case in tables {
        let schedule = schedule(case)?;
        let pools = match &case.prompts {
            Some(source) => {
                let pool = |&Lengths { input, .. }: &Lengths| {
                    check_padding(source, input, config)?;
                    Pool::new(source, tokenizer, input)
                };
                case.lengths.iter().map(pool).collect::<Result<Vec<_>, _>>()?
            }
            None => Vec::new(),
        };
        for &tp in &case.scope.tp_ranks {
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
fn schedule(case: &LoadCase) -> Result<Schedule, String> {
    Ok(match (case.arrival, &case.rates) {
        (Arrival::Process(process), _) => Schedule::Process(process),
        (_, Rates::Trace { file, .. }) => {
            let most = match case.extent {
                Extent::Requests(requests) => requests,
                Extent::DurationS(_) => usize::MAX,
            };
            let mut requests = read_trace(file).map_err(|e| e.to_string())?;
            if let Extent::DurationS(seconds) = case.extent {
                requests.retain(|request| request.arrival_ns as f64 <= seconds * 1e9);
            }
            requests.truncate(most);
            Schedule::Trace(trace_rate(&requests), requests)
        }
        (_, Rates::Concurrency(levels)) => Schedule::Closed(levels.clone()),
        (Arrival::Trace | Arrival::Closed, _) => Schedule::Closed(Vec::new()),
    })
}

/// Returns the level part of a load name, and its rates.
fn rates_of(case: &LoadCase, schedule: &Schedule) -> (&'static str, Option<Vec<f64>>) {
    match (&case.rates, schedule) {
        (Rates::Trace { speeds, .. }, Schedule::Trace(own_rate, _)) => {
            ("", Some(speeds.iter().map(|speed| speed * own_rate).collect()))
        }
        (Rates::Listed(rates), _) => ("", Some(rates.clone())),
        (Rates::Saturation, _) => ("-saturation", None),
        (Rates::Concurrency(_) | Rates::Trace { .. }, _) => ("", None),
    }
}

fn load_run(case: &LoadCase, schedule: Schedule, pools: &[Pool], tp: usize) -> LoadRun {
    let (requests, duration_ns) = match case.extent {
        Extent::Requests(requests) => (requests, u64::MAX),
        Extent::DurationS(seconds) => (MAX_REQUESTS, (seconds * 1e9) as u64),
    };
    let (search, rates) = rates_of(case, &schedule);
    let random = |Lengths { input, output }: &Lengths| format!("i{input}-o{output}");
    let lengths: Vec<String> = match pools {
        [] => case.lengths.iter().map(random).collect(),
        pools => {
            pools.iter().zip(&case.lengths).map(|(p, of)| format!("{}-o{}", p.name, of.output)).collect()
        }
    };
    let ranks = if tp == 1 { String::new() } else { format!("-tp{tp}") };
    let arrival = match (case.arrival, &case.rates) {
        (Arrival::Process(ArrivalProcess::Gamma(burstiness)), _) => format!("gamma{burstiness}"),
        (Arrival::Trace, Rates::Trace { file, .. }) => {
            format!("trace-{}", file.file_stem().unwrap_or(file.as_os_str()).to_string_lossy())
        }
        (named, _) => named.name().to_owned(),
    };
    let of_lengths = if lengths.is_empty() { String::new() } else { format!("-{}", lengths.join("+")) };
    let batch = if case.arrival == Arrival::Closed { String::new() } else { format!("-b{}", case.max_batch) };
    let chunk = case.prefill_chunk.map(|tokens| format!("-c{tokens}")).unwrap_or_default();
    let load_id = format!("{arrival}{of_lengths}{batch}{chunk}{search}{ranks}");
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
        prefill_chunk: case.prefill_chunk,
        objectives: case.objectives,
        tp,
        seed: case.seed,
    }
}
