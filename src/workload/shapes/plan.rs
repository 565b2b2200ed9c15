//! Plans performance cases, and counts their work.

use std::collections::HashSet;

use glmbench_device::Precision;

use glmbench_engine::config::ModelConfig;
use glmbench_engine::tokenizer::Tokenizer;

use super::run::PerformanceRun;
use super::schema::PerformanceCase;
use crate::bench::{CaseCost, PhaseCost, Shape, WarmUpRule, batch_cost, case_cost};
use crate::run::cases::{Planning, check_padding};
use crate::run::questions::{Pool, RealPrompts};
use crate::suite::{Lengths, PromptSource};

/// Largest batch of real prompts. A whole batch is held in memory, even if it repeats a few prompts.
const MAX_REAL_BATCH: usize = 1 << 16;

/// Returns the shapes of a suite, with their real prompts.
pub(super) fn plan(tables: &[PerformanceCase], on: Planning<'_>) -> Result<Vec<PerformanceRun>, String> {
    let Planning { config, tokenizer } = on;
    let mut runs: Vec<PerformanceRun> = Vec::new();
    let mut ids = HashSet::new();
    for case in tables {
        for (shape, prompts) in shapes(case, config, tokenizer)? {
            for &tp in &case.scope.tp_ranks {
                let run = PerformanceRun {
                    shape,
                    prompts: prompts.clone(),
                    tp,
                    unfit: None,
                    largest_batch: None,
                    alone_bytes: None,
                    repetitions: case.repetitions,
                    warm_up: WarmUpRule { most: case.max_warmups, ..WarmUpRule::default() },
                    seed: case.seed,
                    budget_s: case.budget_s,
                };
                if shape.sequence_tokens() > config.seq_length {
                    return Err(format!(
                        "case {} has sequences of {} tokens, the model's seq_length is {}",
                        run.case_id(),
                        shape.sequence_tokens(),
                        config.seq_length
                    ));
                }
                if !ids.insert(run.case_id()) {
                    return Err(format!("found the case {} twice; expected one", run.case_id()));
                }
                runs.push(run);
            }
        }
    }
    Ok(runs)
}

/// Returns the shapes of a case, by lengths and then batch, with their real prompts if any.
fn shapes(
    case: &PerformanceCase,
    config: &ModelConfig,
    tokenizer: Option<&Tokenizer>,
) -> Result<Vec<(Shape, Option<RealPrompts>)>, String> {
    let mut shapes = Vec::new();
    for &lengths in &case.lengths {
        let Lengths { input: input_tokens, output: output_tokens } = lengths;
        match &case.prompts {
            None => {
                let shape = |&batch| (Shape { batch, input_tokens, output_tokens }, None);
                shapes.extend(case.batches.iter().map(shape));
            }
            Some(source) => {
                let real = real_shapes(case, source, config, tokenizer, lengths)?;
                shapes.extend(real.into_iter().map(|(shape, prompts)| (shape, Some(prompts))));
            }
        }
    }
    Ok(shapes)
}

/// Returns the shapes and prompts of a case with real prompts, at one pair of lengths. The input is the longest
/// prompt's.
fn real_shapes(
    case: &PerformanceCase,
    source: &PromptSource,
    config: &ModelConfig,
    tokenizer: Option<&Tokenizer>,
    Lengths { input: input_tokens, output: output_tokens }: Lengths,
) -> Result<Vec<(Shape, RealPrompts)>, String> {
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

/// Returns the phase costs of a run; with real prompts the mean over its batches.
pub(crate) fn cost(
    run: &PerformanceRun,
    config: &ModelConfig,
    precision: Precision,
    step_tokens: usize,
) -> CaseCost {
    let Some(prompts) = &run.prompts else { return case_cost(config, precision, step_tokens, run.shape) };
    let of_group = |group: &Vec<Vec<u32>>| {
        let inputs: Vec<usize> = group.iter().map(Vec::len).collect();
        batch_cost(config, precision, step_tokens, &inputs, run.shape.output_tokens)
    };
    let costs: Vec<CaseCost> = prompts.groups.iter().map(of_group).collect();
    let count = costs.len().max(1) as u64;
    let mean = |of: fn(&CaseCost) -> PhaseCost| PhaseCost {
        bytes: costs.iter().map(|c| of(c).bytes).sum::<u64>() / count,
        flops: costs.iter().map(|c| of(c).flops).sum::<u64>() / count,
    };
    CaseCost { prefill: mean(|cost| cost.prefill), decode: mean(|cost| cost.decode) }
}
