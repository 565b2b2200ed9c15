//! What differs about two runs beside their results.

use super::side::Side;
use crate::record::Difference;
use crate::report::error::ReportError;
use crate::report::page::provenance_fields;
use serde::Serialize;

/// A named value in which two runs differ; `None` where one has no such thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// In the base.
    pub left: Option<String>,
    /// In the other run.
    pub right: Option<String>,
}

/// What differs about two runs, and what does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairDifferences {
    /// Fields of identity: the scores are not of the same thing.
    pub identity: Vec<Field>,
    /// Fields of provenance: what is compared.
    pub provenance: Vec<Field>,
    /// Fields of provenance that are equal, with their common value.
    pub same: Vec<(String, String)>,
}

/// Differ from run to run and explain nothing.
const OF_NO_MATTER: [&str; 2] = ["Started", "Finished"];

impl PairDifferences {
    pub(super) fn of(a: &Side, b: &Side) -> Self {
        let field = |d: Difference| Field { name: d.field, left: d.left, right: d.right };
        let identity = a.run().identity.differences(&b.run().identity).into_iter().map(field).collect();
        let (left, right) = (provenance_fields(&a.run().provenance), provenance_fields(&b.run().provenance));
        let (mut provenance, mut same) = (Vec::new(), Vec::new());
        for ((name, left), (_, right)) in left.into_iter().zip(right) {
            if OF_NO_MATTER.contains(&name) {
                continue;
            }
            if left == right {
                same.push((name.to_owned(), left));
            } else {
                provenance.push(Field { name: name.to_owned(), left: Some(left), right: Some(right) });
            }
        }
        Self { identity, provenance, same }
    }

    /// An error that lists the differing fields of identity, where there are any.
    pub(super) fn refuse_mismatch(&self, a: &Side, b: &Side) -> Result<(), ReportError> {
        if self.identity.is_empty() {
            return Ok(());
        }
        let line = |field: &Field| {
            let (left, right) = (super::shown(field.left.as_ref()), super::shown(field.right.as_ref()));
            format!("\n  {}: {} {left}, {} {right}", field.name, a.letter, b.letter)
        };
        let lines: String = self.identity.iter().map(line).collect();
        Err(ReportError::Compare(format!(
            "{} and {} are not runs of the same thing; --allow-mismatch compares them all the same. They differ in{lines}",
            a.path.display(),
            b.path.display()
        )))
    }
}
