//! Converts `[[toy]]` to its type.

use std::path::Path;

use serde_json::{Value, json};

use crate::suite::cases::Schema;
use crate::suite::table::{Table, case_configurations, optional_count, tp_ranks};
use crate::suite::{CaseTable, SuiteError};

/// One `[[toy]]` table: single requests of `input_tokens` tokens, on each number of ranks.
#[derive(Debug, Clone, PartialEq)]
pub struct ToyTable {
    pub(crate) input_tokens: usize,
    pub(crate) tosses: usize,
    tp_ranks: Vec<usize>,
    configurations: Vec<String>,
}

impl ToyTable {
    pub(crate) fn tp_ranks(&self) -> &[usize] {
        &self.tp_ranks
    }
}

impl CaseTable for ToyTable {
    fn configurations(&self) -> &[String] {
        &self.configurations
    }

    fn apply_to_all(&mut self) {
        self.configurations.clear();
    }

    fn set_tp(&mut self, tp: usize) {
        self.tp_ranks = vec![tp];
    }

    fn cases(&self) -> usize {
        self.tp_ranks.len()
    }

    fn words(&self, _modelled: &[bool]) -> String {
        format!("toy          {} tosses of {} tokens", self.tosses, self.input_tokens)
    }

    fn content(&self) -> Value {
        json!([self.input_tokens, self.tosses])
    }
}

impl Schema for ToyTable {
    fn read(mut table: Table, _: &Path) -> Result<Self, SuiteError> {
        let toy = Self {
            input_tokens: optional_count(&mut table, "input_tokens", 1)?.unwrap_or(8),
            tosses: optional_count(&mut table, "tosses", 1)?.unwrap_or(3),
            tp_ranks: tp_ranks(&mut table)?,
            configurations: case_configurations(&mut table)?,
        };
        table.finish()?;
        Ok(toy)
    }
}
