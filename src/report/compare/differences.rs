//! Differences between two runs other than their results.

use crate::language::{Text, joined, text};
use std::collections::{BTreeMap, BTreeSet};

use super::side::{FurtherRun, Side};
use crate::record::{Difference, Provenance};
use crate::report::error::ReportError;
use crate::report::page::{self, provenance_fields};
use serde::Serialize;

/// A named value that differs between two runs. `None` if a run lacks it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Field {
    /// The name.
    pub name: Text,
    /// In the base.
    pub left: Option<Text>,
    /// In the other run.
    pub right: Option<Text>,
}

/// What differs between two runs, and what does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairDifferences {
    /// Differing identity fields: the scores are not of the same thing.
    pub identity: Vec<Field>,
    /// Differing provenance fields: what is compared.
    pub provenance: Vec<Field>,
    /// Equal provenance fields, with their common value.
    pub same: Vec<(Text, Text)>,
}

/// A map in the provenance of a run.
type Map = fn(&Provenance) -> &BTreeMap<String, String>;
/// The maps among [`provenance_fields`]. Only their differing entries are reported.
const MAPS: [(Text, Map); 4] = [
    (page::MODEL_AS_READ, |of| &of.model_details),
    (page::DEVICE_FOUND, |of| &of.device_details),
    (page::VERSIONS, |of| &of.versions),
    (page::ENVIRONMENT, |of| &of.environment),
];

/// Fields that always differ and explain nothing.
const OF_NO_MATTER: [Text; 2] = [page::STARTED, page::FINISHED];

impl Field {
    /// Whether an identity field is of the model, its form or the suite, and not of what a common task asks. The names of task
    /// fields have a point. A field of one run alone is of a task that only this run has.
    fn is_of_model(&self) -> bool {
        let is_common = self.left.is_some() && self.right.is_some();
        !is_common || !(self.name.contains(".") || self.name == "tokenizer")
    }
}

impl PairDifferences {
    pub(super) fn of(a: &Side, b: &Side) -> Self {
        let field = |d: Difference| Field {
            name: d.field.into(),
            left: d.left.map(Text::from),
            right: d.right.map(Text::from),
        };
        let identity = a.run().identity.differences(&b.run().identity).into_iter().map(field).collect();
        let both = (&a.run().provenance, &b.run().provenance);
        let fields = provenance_fields(both.0).into_iter().zip(provenance_fields(both.1));
        let (mut provenance, mut same) = (Vec::new(), Vec::new());
        for ((name, left), (_, right)) in fields {
            if OF_NO_MATTER.contains(&name) {
                continue;
            }
            if left == right {
                same.push((name, left));
            } else if let Some((_, map)) = MAPS.iter().find(|(of, _)| *of == name) {
                provenance.extend(entries(&name, map(both.0), map(both.1)));
            } else {
                provenance.push(Field { name, left: Some(left), right: Some(right) });
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
pub(super) fn untold(a: &Side, b: &Side) -> Vec<Text> {
    let fields = a.run().identity.untold(&b.run().identity);
    let note = || {
        text!(
            "A server does not tell its {fields}: whether {a} and {b} agree in this is not checked.",
            fields = joined(&fields, ", "),
            a = a.letter,
            b = b.letter
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
fn entries(name: &Text, left: &BTreeMap<String, String>, right: &BTreeMap<String, String>) -> Vec<Field> {
    let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let differ = keys.into_iter().filter(|key| left.get(*key) != right.get(*key));
    let field = |key: &String| Field {
        name: text!("{name}: {key}", name, key),
        left: left.get(key).map(Text::from),
        right: right.get(key).map(Text::from),
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
        let told = entries(&page::VERSIONS, &left, &right);
        let field = |name: &str, left: Option<&str>, right: Option<&str>| Field {
            name: name.into(),
            left: left.map(Text::from),
            right: right.map(Text::from),
        };
        let expected = [
            field("Versions: b", Some("2"), Some("4")),
            field("Versions: c", Some("3"), None),
            field("Versions: d", None, Some("5")),
        ];
        assert_eq!(told, expected);
    }
}
