//! What a server says of itself: name, version, models, limits.

use crate::json::Json;

/// Limits that a server states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Longest prompt in tokens.
    pub max_input: Option<u64>,
    /// Longest prompt and output together in tokens.
    pub max_total: Option<u64>,
    /// Requests at a time.
    pub max_concurrent: Option<u64>,
    /// Tokens of a batch.
    pub max_batch_tokens: Option<u64>,
}

/// What the routes of information said.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    pub(crate) server: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) models: Vec<String>,
    pub(crate) limits: Limits,
    pub(crate) notes: Vec<String>,
}

/// Returns a text of an answer, unless it is empty.
pub(crate) fn text(json: &Json, name: &str) -> Option<String> {
    json.get(name).text().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Returns the first count of an answer that has one of the names.
pub(crate) fn count(json: &Json, names: &[&str]) -> Option<u64> {
    names.iter().find_map(|name| json.get(name).count()).map(u64::from)
}
