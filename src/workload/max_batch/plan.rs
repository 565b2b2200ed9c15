//! Plans max-batch searches.

use std::collections::HashSet;

use super::run::SearchRun;
use super::schema::MaxBatchCase;
use crate::run::cases::{Planning, fits_model};
use crate::suite::Lengths;

/// Returns the searches of a suite.
pub(super) fn plan(tables: &[MaxBatchCase], on: Planning<'_>) -> Result<Vec<SearchRun>, String> {
    let mut runs: Vec<SearchRun> = Vec::new();
    let mut ids = HashSet::new();
    for case in tables {
        for &Lengths { input: input_tokens, output: output_tokens } in &case.lengths {
            for &tp in &case.scope.tp_ranks {
                let run = SearchRun {
                    input_tokens,
                    output_tokens,
                    low: case.low,
                    high: case.high,
                    limit_tpot: case.limit_tpot,
                    limit_ttft: case.limit_ttft,
                    repetitions: case.repetitions,
                    tp,
                    seed: case.seed,
                };
                fits_model(&run.search_id(), input_tokens + output_tokens, on.config)?;
                if !ids.insert(run.search_id()) {
                    return Err(format!("search {} comes twice", run.search_id()));
                }
                runs.push(run);
            }
        }
    }
    Ok(runs)
}
