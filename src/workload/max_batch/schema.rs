//! Converts `[[max_batch]]` to its type.

use std::path::Path;

use serde_json::{Value, json};

use crate::record::Objective;
use crate::suite::cases::Schema;
use crate::suite::table::{
    Lengths, Table, counts, found, lengths, number, optional_count, optional_number, seed,
};
use crate::suite::{CaseScope, CaseTable, SuiteError};

/// Default number of repetitions of each probe of a max-batch search.
pub const DEFAULT_PROBE_REPETITIONS: usize = 3;

/// One `[[max_batch]]` table: finds the largest batch within a range that meets the limits, for every pair of lengths.
#[derive(Debug, Clone, PartialEq)]
pub struct MaxBatchCase {
    /// Input and output lengths in tokens.
    pub lengths: Vec<Lengths>,
    /// Smallest batch to consider.
    pub low: usize,
    /// Largest batch to consider.
    pub high: usize,
    /// Maximum time per token after the first (ModelTest: non-first token time).
    pub limit_tpot: Objective,
    /// Maximum time until every sequence of the batch has its first token.
    pub limit_ttft: Option<Objective>,
    /// Timed repetitions of each probe. Their median decides.
    pub repetitions: usize,
    /// Seed of the input tokens.
    pub seed: u64,
    /// Where the cases run.
    pub scope: CaseScope,
}

impl CaseTable for MaxBatchCase {
    fn scope(&self) -> &CaseScope {
        &self.scope
    }

    fn scope_mut(&mut self) -> &mut CaseScope {
        &mut self.scope
    }

    fn cases(&self) -> usize {
        self.lengths.len().saturating_mul(self.scope.tp_ranks.len())
    }

    fn words(&self, _modelled: &[bool]) -> String {
        let Self { lengths, low, high, limit_tpot, .. } = self;
        format!(
            "max batch    {} searches in {low} to {high}, TPOT up to {} ms",
            lengths.len(),
            limit_tpot.ms()
        )
    }

    fn content(&self) -> Value {
        json!([
            self.lengths,
            [self.low, self.high],
            self.limit_tpot.ms(),
            self.limit_ttft.map(Objective::ms),
            self.repetitions,
            self.seed
        ])
    }
}

impl Schema for MaxBatchCase {
    fn read(table: Table, _: &Path) -> Result<Self, SuiteError> {
        max_batch(table)
    }
}

fn max_batch(mut table: Table) -> Result<MaxBatchCase, SuiteError> {
    let lengths = lengths(&mut table)?;
    let range_node = table.require("batch_range", "the smallest and largest batch, such as [1, 64]")?;
    let (low, high) = match counts(range_node.clone(), "[smallest, largest] batch")?.as_slice() {
        &[low, high] if low <= high => (low, high),
        &[low, high] => {
            return Err(found(&range_node, &format!("[{low}, {high}]"), "the smaller batch first"));
        }
        other => {
            return Err(found(&range_node, &format!("{} numbers", other.len()), "[smallest, largest] batch"));
        }
    };
    let limit_node = table.require("limit_tpot_ms", "most milliseconds per token after the first")?;
    let limit_tpot = Objective::of_ms(number(&limit_node)?);
    if let Some(Lengths { input, output }) = lengths.iter().find(|lengths| lengths.output < 2) {
        let pair = format!("a limit for the lengths [{input}, {output}]");
        return Err(found(&limit_node, &pair, "at least 2 output tokens: the first is not counted"));
    }
    let case = MaxBatchCase {
        lengths,
        low,
        high,
        limit_tpot,
        limit_ttft: optional_number(&mut table, "limit_ttft_ms")?.map(Objective::of_ms),
        repetitions: optional_count(&mut table, "repetitions", 1)?.unwrap_or(DEFAULT_PROBE_REPETITIONS),
        seed: seed(&mut table)?,
        scope: CaseScope::read(&mut table)?,
    };
    table.finish()?;
    Ok(case)
}
