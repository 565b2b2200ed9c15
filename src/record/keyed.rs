//! The key of a line.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::hash::Hash;

/// A record with a key that no other line of its journal may have.
pub trait Keyed: Serialize + DeserializeOwned {
    /// The type of the key.
    type Key: Eq + Hash + Display;
    /// Returns the record's key.
    fn key(&self) -> Self::Key;
}
