//! Plans parity cases: their prompts, and the model of the reference.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use glmbench_engine::EngineError;
use glmbench_engine::config::{ModelConfig, RopeScaling};
use glmbench_engine::memory::MemoryEstimate;

use super::run::{ParityRun, Reference};
use super::schema::ParityTable;
use crate::bench::logit_capacity;
use crate::compute::Compute;
use crate::run::cases::{Planning, check_padding, fits_model};
use crate::run::found::FoundModel;
use crate::run::questions::Pool;

/// Returns the parity cases of a suite, with their real prompts.
pub(super) fn plan(tables: &[ParityTable], on: Planning<'_>) -> Result<Vec<ParityRun>, String> {
    let mut runs: Vec<ParityRun> = Vec::new();
    let mut ids = HashSet::new();
    for table in tables {
        let (name, prompts, source) = prompts(table, on)?;
        let (device, dtype) = (table.against.device.name(), table.dtype());
        let longest = prompts.iter().flatten().map(Vec::len).max().unwrap_or(table.tokens);
        for &tp in &table.scope.tp_ranks {
            let ranks = if tp == 1 { String::new() } else { format!("-tp{tp}") };
            let run = ParityRun {
                parity_id: format!("parity-{name}-{device}-{dtype}{ranks}"),
                count: prompts.as_ref().map_or(table.count, Vec::len),
                tokens: longest.saturating_add(table.continuation),
                prompts: prompts.clone(),
                source: source.clone(),
                input_tokens: table.tokens,
                continuation: table.continuation,
                seed: table.seed,
                tp,
                device: table.against.device,
                dtype,
                model: table.model(),
                reference: None,
                unfit: None,
            };
            fits_model(&run.parity_id, run.tokens, on.config)?;
            if !ids.insert(run.parity_id.clone()) {
                return Err(format!("found the case {} twice; expected one", run.parity_id));
            }
            runs.push(run);
        }
    }
    Ok(runs)
}

/// Returns the prompts' part of the case name, the real prompts if there are any, and where prompts are from, in words. Of a data set,
/// the prompts are evenly spaced, because its subjects stand one after another.
#[expect(clippy::type_complexity, reason = "three values for one caller")]
fn prompts(table: &ParityTable, on: Planning<'_>) -> Result<(String, Option<Vec<Vec<u32>>>, String), String> {
    let Some(source) = &table.prompts else {
        let words = format!("{} prompts of {} random tokens", table.count, table.tokens);
        return Ok((format!("i{}", table.tokens), None, words));
    };
    check_padding(source, table.tokens, on.config)?;
    let Pool { name, prompts, mut notes } = Pool::new(source, on.tokenizer, table.tokens)?;
    let (all, taken) = (prompts.len(), table.count.min(prompts.len()));
    let chosen: Vec<Vec<u32>> = (0..taken).map(|index| prompts[index * all / taken].clone()).collect();
    notes.push(format!("{taken} of them, evenly spaced"));
    Ok((name, Some(chosen), notes.join(", ")))
}

impl ParityRun {
    /// Finds the reference's model, which computes as `own` does except for device and type.
    ///
    /// # Errors
    /// A message: it is not there, or it cannot be compared with the model `config`.
    pub(crate) fn find(
        &mut self,
        own: &Compute,
        config: &ModelConfig,
        ptuning: Option<&Path>,
        scaling: Option<RopeScaling>,
    ) -> Result<(), String> {
        let reference = Reference::find(self, own, ptuning, scaling);
        let reference = reference.map_err(|error| format!("the reference of {}: {error}", self.parity_id))?;
        let found = &reference.model.config;
        if found.padded_vocab_size != config.padded_vocab_size {
            return Err(format!(
                "the reference of {} has a vocabulary of {} tokens, the model of {}; expected the same tokens",
                self.parity_id, found.padded_vocab_size, config.padded_vocab_size
            ));
        }
        fits_model(&format!("the reference of {}", self.parity_id), self.tokens, found)?;
        self.reference = Some(Arc::new(reference));
        Ok(())
    }
}

impl Reference {
    fn find(
        of: &ParityRun,
        own: &Compute,
        ptuning: Option<&Path>,
        scaling: Option<RopeScaling>,
    ) -> Result<Self, EngineError> {
        let model = FoundModel::find(&of.model, ptuning, scaling)?;
        let compute = own.reference(of.device, of.dtype).of_model(&model.config)?;
        let capacity = logit_capacity(&model.config, of.tokens);
        let estimate = MemoryEstimate::per_rank(&model.config, compute.memory(), capacity, compute.ranks)?;
        Ok(Self { name: model.name(&of.model), bytes: estimate.total_bytes(), model, compute, capacity })
    }
}
