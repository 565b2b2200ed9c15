//! Converts `[[performance]]` to its type.

use std::path::Path;

use serde_json::{Value, json};

use crate::suite::cases::Schema;
use crate::suite::prompts::prompts;
use crate::suite::table::{Lengths, Table, count, counts, lengths, optional_count, seed};
use crate::suite::{CaseScope, CaseTable, PromptSource, SuiteError};

/// Default number of timed repetitions.
pub const DEFAULT_REPETITIONS: usize = 5;
/// Default maximum number of warm-up runs.
pub const DEFAULT_WARMUPS: usize = 8;

/// One `[[performance]]` table: all combinations of batch, lengths and tensor-parallel size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerformanceCase {
    /// Sequences at once.
    pub batches: Vec<usize>,
    /// Input and output lengths in tokens.
    pub lengths: Vec<Lengths>,
    /// Source of real prompts; random tokens if `None`. With real prompts, input lengths are maxima.
    pub prompts: Option<PromptSource>,
    /// Number of timed repetitions.
    pub repetitions: usize,
    /// Maximum number of warm-up runs.
    pub max_warmups: usize,
    /// Seed of the input tokens.
    pub seed: u64,
    /// Time budget of a shape in seconds. A shape is skipped if the machine's measured limits imply a longer time.
    pub budget_s: Option<u64>,
    /// Where the cases run.
    pub scope: CaseScope,
}

impl CaseTable for PerformanceCase {
    fn scope(&self) -> &CaseScope {
        &self.scope
    }

    fn scope_mut(&mut self) -> &mut CaseScope {
        &mut self.scope
    }

    fn cases(&self) -> usize {
        let counts = [self.batches.len(), self.lengths.len(), self.scope.tp_ranks.len()];
        counts.into_iter().fold(1, usize::saturating_mul)
    }

    fn words(&self, modelled: &[bool]) -> String {
        let shapes = self.batches.len() * self.lengths.len();
        let counted = match self.repetitions {
            1 => "1 repetition each".to_owned(),
            several => format!("{several} repetitions each"),
        };
        let repetitions = match (modelled.contains(&true), modelled.contains(&false)) {
            (true, false) => "1 repetition each, because modelled times have no noise".to_owned(),
            (true, true) if self.repetitions > 1 => format!("{counted}, 1 where times are modelled"),
            _ => counted,
        };
        format!("performance  {shapes} shapes, {repetitions}")
    }

    fn content(&self) -> Value {
        let numbers = json!([self.batches, self.lengths, self.repetitions, self.max_warmups, self.seed]);
        self.prompts.as_ref().map_or(numbers.clone(), |prompts| json!([numbers, prompts.content()]))
    }
}

impl Schema for PerformanceCase {
    const HAS_PROMPTS: bool = true;

    fn read(table: Table, dir: &Path) -> Result<Self, SuiteError> {
        performance(table, dir)
    }
}

fn performance(mut table: Table, dir: &Path) -> Result<PerformanceCase, SuiteError> {
    let batches = counts(table.require("batch", "an array such as [1, 2, 4]")?, "an array of batch sizes")?;
    let lengths = lengths(&mut table)?;
    let prompts = prompts(&mut table, dir, true)?;
    let repetitions = optional_count(&mut table, "repetitions", 1)?.unwrap_or(DEFAULT_REPETITIONS);
    let max_warmups = optional_count(&mut table, "max_warmups", 0)?.unwrap_or(DEFAULT_WARMUPS);
    let seed = seed(&mut table)?;
    let budget_s = table.take("budget_s").map(|node| count(&node, 1)).transpose()?;
    let scope = CaseScope::read(&mut table)?;
    table.finish()?;
    Ok(PerformanceCase { batches, lengths, prompts, repetitions, max_warmups, seed, budget_s, scope })
}
