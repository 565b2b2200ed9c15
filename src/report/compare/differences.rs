//! Differences between two runs other than their results.

use std::collections::{BTreeMap, BTreeSet};

use super::side::{FurtherRun, Side};
use crate::record::{Difference, Provenance};
use crate::report::error::ReportError;
use crate::report::page::provenance_fields;
use serde::Serialize;

/// A named value that differs between two runs. `None` if a run lacks it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Field {
    /// The name.
    pub name: String,
    /// In the base.
    pub left: Option<String>,
    /// In the other run.
    pub right: Option<String>,
}

/// What differs between two runs, and what does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairDifferences {
    /// Differing identity fields: the scores are not of the same thing.
    pub identity: Vec<Field>,
    /// Differing provenance fields: what is compared.
    pub provenance: Vec<Field>,
    /// Equal provenance fields, with their common value.
    pub same: Vec<(String, String)>,
}

/// A part of a run's provenance that is a map.
type Map = fn(&Provenance) -> &BTreeMap<String, String>;
/// The maps among [`provenance_fields`]. Only their differing entries are reported.
const MAPS: [(&str, Map); 4] = [
    ("Model as read", |of| &of.model_details),
    ("Device found", |of| &of.device_details),
    ("Versions", |of| &of.versions),
    ("Environment", |of| &of.environment),
];

/// Fields that always differ and explain nothing.
const OF_NO_MATTER: [&str; 2] = ["Started", "Finished"];

impl Field {
    /// Whether an identity field is of the model, its form or the suite, and not of what a common task asks: the names of tasks'
    /// fields have a point. A field of one run alone is of a task that only this run has.
    fn is_of_model(&self) -> bool {
        let is_common = self.left.is_some() && self.right.is_some();
        !is_common || !(self.name.contains('.') || self.name == "tokenizer")
    }
}

impl PairDifferences {
    pub(super) fn of(a: &Side, b: &Side) -> Self {
        let field = |d: Difference| Field { name: d.field, left: d.left, right: d.right };
        let identity = a.run().identity.differences(&b.run().identity).into_iter().map(field).collect();
        let both = (&a.run().provenance, &b.run().provenance);
        let fields = provenance_fields(both.0).into_iter().zip(provenance_fields(both.1));
        let (mut provenance, mut same) = (Vec::new(), Vec::new());
        for ((name, left), (_, right)) in fields {
            if OF_NO_MATTER.contains(&name) {
                continue;
            }
            if left == right {
                same.push((name.to_owned(), left));
            } else if let Some((_, map)) = MAPS.iter().find(|(of, _)| *of == name) {
                provenance.extend(entries(name, map(both.0), map(both.1)));
            } else {
                provenance.push(Field { name: name.to_owned(), left: Some(left), right: Some(right) });
            }
        }
        Self { identity, provenance, same }
    }

    /// Returns an error that lists the differing identity fields, if there are any.
    /// With `allow_model`, only those count that make scores of one task incomparable.
    pub(super) fn refuse_mismatch(&self, a: &Side, b: &Side, allow_model: bool) -> Result<(), ReportError> {
        if self.identity.iter().all(|field| allow_model && field.is_of_model()) {
            return Ok(());
        }
        let line = |field: &Field| {
            let (left, right) = (super::shown(field.left.as_ref()), super::shown(field.right.as_ref()));
            format!("\n  {}: {} {left}, {} {right}", field.name, a.letter, b.letter)
        };
        let lines: String = self.identity.iter().map(line).collect();
        Err(ReportError::Compare(format!(
            "{} and {} have different identities; --allow-mismatch compares them nevertheless. They differ in{lines}",
            a.path.display(),
            b.path.display()
        )))
    }
}

/// Returns a note on what a server does not tell, so that it is unknown whether the runs agree in it.
pub(super) fn untold(a: &Side, b: &Side) -> Vec<String> {
    let fields = a.run().identity.untold(&b.run().identity);
    let note = || {
        format!(
            "A server does not tell its {}: whether {} and {} agree in this is not checked.",
            fields.join(", "),
            a.letter,
            b.letter
        )
    };
    if fields.is_empty() { Vec::new() } else { vec![note()] }
}

/// Rejects a further run of a side with another identity than the first.
pub(super) fn refuse_another(side: &Side, run: &FurtherRun) -> Result<(), ReportError> {
    let differ = side.run().identity.differences(&run.summary.run.identity);
    if differ.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = differ.iter().map(|difference| difference.field.as_str()).collect();
    Err(ReportError::Compare(format!(
        "{} is given as a further run of {}, and is of another thing: they differ in {}; --allow-mismatch takes them all the same",
        run.path.display(),
        side.path.display(),
        names.join(", ")
    )))
}

/// The differing entries of two maps with this name.
fn entries(name: &str, left: &BTreeMap<String, String>, right: &BTreeMap<String, String>) -> Vec<Field> {
    let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let differ = keys.into_iter().filter(|key| left.get(*key) != right.get(*key));
    let field = |key: &String| Field {
        name: format!("{name}: {key}"),
        left: left.get(key).cloned(),
        right: right.get(key).cloned(),
    };
    differ.map(field).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_maps_only_the_entries_that_differ_are_told() {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let (left, right) =
            (map(&[("a", "1"), ("b", "2"), ("c", "3")]), map(&[("a", "1"), ("b", "4"), ("d", "5")]));
        let told = entries("Versions", &left, &right);
        let told: Vec<_> =
            told.iter().map(|f| (f.name.as_str(), f.left.as_deref(), f.right.as_deref())).collect();
        let expected = [
            ("Versions: b", Some("2"), Some("4")),
            ("Versions: c", Some("3"), None),
            ("Versions: d", None, Some("5")),
        ];
        assert_eq!(told, expected);
    }
}
