//! Whether the events of a stream tell when each token came.

/// Fewest events for each token at which the time of a token can be told. Events that arrive together count once.
pub const LEAST_EVENTS_PER_TOKEN: f64 = 0.95;

/// Whether this many events tell the times of this many tokens.
pub fn tell_token_times(events: u64, tokens: u64) -> bool {
    events as f64 >= LEAST_EVENTS_PER_TOKEN * tokens as f64
}
