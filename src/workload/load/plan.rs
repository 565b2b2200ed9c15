//! Plans loads.

use super::run::LoadRun;
use super::table::{Arrival, Extent, LoadCase, Rates};
use crate::bench::ArrivalProcess;
use crate::record;
use crate::run::cases::{Planning, check_padding, fits_model, ns};
use crate::run::questions::Pool;

/// Returns the loads of a suite, with their real prompts.
pub(super) fn plan(tables: &[LoadCase], on: Planning<'_>) -> Result<Vec<LoadRun>, String> {
    let Planning { config, tokenizer } = on;
    let mut runs: Vec<LoadRun> = Vec::new();
    for case in tables {
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
            let run = load_run(case, &pools, tp);
            fits_model(&run.load_id, run.longest(), config)?;
            if runs.iter().any(|other| other.load_id == run.load_id) {
                return Err(format!("load {} comes twice", run.load_id));
            }
            runs.push(run);
        }
    }
    Ok(runs)
}

fn load_run(case: &LoadCase, pools: &[Pool], tp: usize) -> LoadRun {
    let (requests, duration_ns) = match case.extent {
        Extent::Requests(requests) => (requests, u64::MAX),
        Extent::DurationS(seconds) => (usize::MAX, (seconds * 1e9) as u64),
    };
    let rates = match &case.rates {
        Rates::Listed(rates) => Some(rates.clone()),
        Rates::Saturation => None,
    };
    let random = |&(input, output): &(usize, usize)| format!("i{input}-o{output}");
    let lengths: Vec<String> = match pools {
        [] => case.lengths.iter().map(random).collect(),
        pools => {
            pools.iter().zip(&case.lengths).map(|(p, (_, output))| format!("{}-o{output}", p.name)).collect()
        }
    };
    let saturation = if rates.is_none() { "-saturation" } else { "" };
    let ranks = if tp == 1 { String::new() } else { format!("-tp{tp}") };
    let load_id =
        format!("{}-{}-b{}{saturation}{ranks}", case.arrival.as_str(), lengths.join("+"), case.max_batch);
    let told = |pool: &Pool| format!("{}: {}", pool.name, pool.notes.join(", "));
    let prompts = match pools {
        [] => format!("random tokens, {} (input-output, in turn)", lengths.join(", ")),
        pools => pools.iter().map(told).collect::<Vec<_>>().join("; "),
    };
    LoadRun {
        load_id,
        arrival: match case.arrival {
            Arrival::Poisson => ArrivalProcess::Poisson,
            Arrival::Fixed => ArrivalProcess::Fixed,
        },
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
