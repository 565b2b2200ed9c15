//! Converts `[[toy]]` to its type.

use std::path::Path;

use serde_json::{Value, json};

use crate::suite::cases::Schema;
use crate::suite::table::{Table, optional_count};
use crate::suite::{CaseScope, CaseTable, SuiteError};

/// One `[[toy]]` table: single requests of `input_tokens` tokens, on each number of ranks.
#[derive(Debug, Clone, PartialEq)]
pub struct ToyTable {
    pub(crate) input_tokens: usize,
    pub(crate) tosses: usize,
    pub(crate) scope: CaseScope,
}

impl CaseTable for ToyTable {
    fn scope(&self) -> &CaseScope {
        &self.scope
    }

    fn scope_mut(&mut self) -> &mut CaseScope {
        &mut self.scope
    }

    fn cases(&self) -> usize {
        self.scope.tp_ranks.len()
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
            scope: CaseScope::read(&mut table)?,
        };
        table.finish()?;
        Ok(toy)
    }
}
