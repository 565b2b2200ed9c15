//! The facts that decide whether two runs are comparable, and whether a run may resume another's directory.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Named facts that must be equal for scores to be comparable, with one hash over all of them. They include suite
/// content, hashes of dataset, tokenizer and weights, protocols, shots, limits, dtype, quantisation, and rotary mode.
///
/// Device, TP, threads, batch and versions are provenance, not identity: these are what users compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// SHA-256 (hex) over the fields.
    hash: String,
    fields: BTreeMap<String, String>,
}

/// Fields that older records lack, with the value to assume there. For `None` the older value is unknown, and a missing
/// field is no difference.
const LATER: [(&str, Option<&str>); 4] = [
    ("rotary_scaling", Some("none")),
    ("config_words", Some("none")),
    // The input hash of a task covers the ids including the prefix.
    ("prefix_ids", None),
    ("end_ids", None),
];

/// Value of a field that a server does not tell. It is no difference to any value: whether the two agree is unknown.
pub const UNTOLD: &str = "not told by the server";

/// A field that differs between two identities. A side without the field is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The field's name.
    pub field: String,
    /// Its value in the first identity.
    pub left: Option<String>,
    /// Its value in the second identity.
    pub right: Option<String>,
}

impl Identity {
    /// Creates the identity of these fields.
    pub fn new(fields: BTreeMap<String, String>) -> Self {
        Self { hash: hash(&fields), fields }
    }

    /// Returns the SHA-256 over all fields, as 64 hex digits.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Returns the value of a field.
    pub fn get(&self, field: &str) -> Option<&str> {
        self.fields.get(field).map(String::as_str)
    }

    /// Returns all fields, by name.
    pub fn fields(&self) -> &BTreeMap<String, String> {
        &self.fields
    }

    /// Whether the hash matches the fields. False for a record edited by hand.
    pub fn is_consistent(&self) -> bool {
        self.hash == hash(&self.fields)
    }

    /// Returns the names of the fields that the server of a side does not tell.
    pub fn untold(&self, other: &Self) -> Vec<&str> {
        let unknown = |name: &&String| {
            let values = [self.fields.get(*name), other.fields.get(*name)];
            values.iter().any(|value| value.is_some_and(|v| v == UNTOLD))
        };
        self.fields.keys().filter(unknown).map(String::as_str).collect()
    }

    /// Returns a copy with these fields untold.
    #[must_use]
    pub fn without(&self, names: &[&str]) -> Self {
        let mut fields = self.fields.clone();
        for name in names {
            if let Some(value) = fields.get_mut(*name) {
                UNTOLD.clone_into(value);
            }
        }
        Self::new(fields)
    }

    /// Returns all differing fields, by name; empty if the runs are comparable. A record older than a field counts as
    /// having the value that every run had then.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let names: std::collections::BTreeSet<_> = self.fields.keys().chain(other.fields.keys()).collect();
        names
            .into_iter()
            .map(|name| (name, self.fields.get(name), other.fields.get(name)))
            .filter(|(name, left, right)| left != right && !is_later(name, *left, *right))
            .filter(|(_, left, right)| ![left, right].iter().any(|side| side.is_some_and(|v| v == UNTOLD)))
            .map(|(name, left, right)| Difference {
                field: name.clone(),
                left: left.cloned(),
                right: right.cloned(),
            })
            .collect()
    }
}

/// Whether a field differs only because one record is older than the field.
fn is_later(name: &str, left: Option<&String>, right: Option<&String>) -> bool {
    let ((None, Some(kept)) | (Some(kept), None)) = (left, right) else { return false };
    let later = LATER.iter().find(|(later, _)| *later == name);
    later.is_some_and(|(_, stands)| stands.is_none_or(|stands| stands == kept))
}

/// Each text is preceded by its length, so that different sets of fields never give the same bytes.
fn hash(fields: &BTreeMap<String, String>) -> String {
    let mut digest = Sha256::new();
    for text in fields.iter().flat_map(|(name, value)| [name, value]) {
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text);
    }
    hex(&digest.finalize())
}

/// Formats bytes as lower-case hexadecimal, as for the hashes in all records.
pub fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(pairs: &[(&str, &str)]) -> Identity {
        Identity::new(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn the_hash_tells_apart_what_joined_text_would_not() {
        assert_ne!(identity(&[("ab", "c")]).hash(), identity(&[("a", "bc")]).hash());
        assert_eq!(identity(&[("b", "2"), ("a", "1")]), identity(&[("a", "1"), ("b", "2")]));
        assert_eq!(identity(&[]).hash().len(), 64);
    }

    #[test]
    fn a_record_from_before_a_field_was_kept_has_what_every_run_had() {
        let old = identity(&[("dtype", "fp16")]);
        let now = |scaling, words, prefix| {
            identity(&[
                ("dtype", "fp16"),
                ("rotary_scaling", scaling),
                ("config_words", words),
                ("prefix_ids", prefix),
                ("end_ids", "2"),
            ])
        };
        let names =
            |a: &Identity, b: &Identity| a.differences(b).into_iter().map(|d| d.field).collect::<Vec<_>>();
        let plain = now("none", "none", "64790 64792");
        assert!(names(&old, &plain).is_empty() && names(&plain, &old).is_empty());
        assert_eq!(names(&old, &now("base*16", "none", "none")), ["rotary_scaling"]);
        assert_eq!(names(&now("none", "a = 1", "none"), &old), ["config_words"]);
        assert_eq!(names(&plain, &now("none", "none", "none")), ["prefix_ids"]);
    }

    #[test]
    fn what_a_server_does_not_tell_is_no_difference_but_is_named() {
        let known = identity(&[("weights", "abc"), ("suite", "x")]);
        let served = known.without(&["weights", "dtype"]);
        assert_ne!(served.hash(), known.hash());
        assert!(served.differences(&known).is_empty() && known.differences(&served).is_empty());
        assert_eq!((known.untold(&served), served.untold(&known)), (vec!["weights"], vec!["weights"]));
        // Of two servers, nothing is known either.
        assert_eq!(served.untold(&served), ["weights"]);
        assert_eq!(served.differences(&identity(&[("weights", "abc"), ("suite", "y")])).len(), 1);
    }

    #[test]
    fn differences_are_listed_by_field() {
        let left = identity(&[("dtype", "fp16"), ("suite", "x"), ("only", "here")]);
        let right = identity(&[("dtype", "fp32"), ("suite", "x")]);
        let found = left.differences(&right);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].field, "dtype");
        assert_eq!((found[1].left.as_deref(), found[1].right.as_deref()), (Some("here"), None));
        assert!(left.differences(&left).is_empty());
    }
}
