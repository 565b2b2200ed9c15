//! What decides whether two runs may be compared, and whether one may go on with the other's directory.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The facts that must be equal for scores to be comparable: suite content, dataset and tokenizer and weights
/// hashes, protocols, shots, limits, dtype, quantisation, rotary mode…, each under a name; and one hash of them all.
///
/// Device, TP, threads, batch and versions are provenance, not identity: those are what one compares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// SHA-256 (hex) over the fields.
    hash: String,
    fields: BTreeMap<String, String>,
}

/// A field that two identities do not share; `None` where one has no such field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The field's name.
    pub field: String,
    /// Its value in the first.
    pub left: Option<String>,
    /// Its value in the second.
    pub right: Option<String>,
}

impl Identity {
    /// The identity of these fields.
    pub fn new(fields: BTreeMap<String, String>) -> Self {
        Self { hash: hash(&fields), fields }
    }

    /// SHA-256 over all fields, 64 hex digits.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// One field's value.
    pub fn get(&self, field: &str) -> Option<&str> {
        self.fields.get(field).map(String::as_str)
    }

    /// All fields, by name.
    pub fn fields(&self) -> &BTreeMap<String, String> {
        &self.fields
    }

    /// The hash belongs to the fields: false for a record edited by hand.
    pub fn is_consistent(&self) -> bool {
        self.hash == hash(&self.fields)
    }

    /// Every field in which the two differ, by name; empty when they may be compared.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let names: std::collections::BTreeSet<_> = self.fields.keys().chain(other.fields.keys()).collect();
        names
            .into_iter()
            .map(|name| (name, self.fields.get(name), other.fields.get(name)))
            .filter(|(_, left, right)| left != right)
            .map(|(name, left, right)| Difference {
                field: name.clone(),
                left: left.cloned(),
                right: right.cloned(),
            })
            .collect()
    }
}

/// Lengths stand before the texts, so that no two sets of fields give the same bytes.
fn hash(fields: &BTreeMap<String, String>) -> String {
    let mut digest = Sha256::new();
    for text in fields.iter().flat_map(|(name, value)| [name, value]) {
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text);
    }
    hex(&digest.finalize())
}

/// Bytes as lower-case hexadecimal text, as hashes stand in every record.
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
