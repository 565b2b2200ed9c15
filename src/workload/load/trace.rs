//! Traces: recorded arrivals and lengths of requests, to be replayed as a load.
//!
//! A trace is a JSON Lines file in the format of the Mooncake traces (Qin et al., "Mooncake", 2024), which other load
//! generators read, too. A line has `timestamp` in milliseconds, and `input_length` and `output_length` in tokens.
//! Other fields are
//! ignored.

use std::path::Path;

use serde::Deserialize;

use crate::dataset::{DatasetError, read_jsonl};

/// A request of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceRequest {
    /// Arrival in nanoseconds from the first request.
    pub arrival_ns: u64,
    /// Prompt tokens.
    pub input_tokens: usize,
    /// Tokens to generate.
    pub output_tokens: usize,
}

/// A line (wire type).
#[derive(Deserialize)]
struct Row {
    timestamp: f64,
    input_length: u32,
    output_length: u32,
}

/// Reads a trace. Requests are sorted by arrival, and the first arrives at 0.
///
/// # Errors
/// When the file cannot be read. Otherwise lists every line that is no request.
pub(crate) fn read_trace(path: &Path) -> Result<Vec<TraceRequest>, DatasetError> {
    let rows = read_jsonl::<Row>(path, "a request with timestamp, input_length, output_length", |row| {
        if !row.timestamp.is_finite() || row.timestamp < 0.0 {
            return Some(format!("found timestamp {}; expected milliseconds from 0 on", row.timestamp));
        }
        (row.input_length == 0 || row.output_length == 0).then(|| {
            format!(
                "found {} input and {} output tokens; expected at least 1 of each",
                row.input_length, row.output_length
            )
        })
    })?;
    let begin_ms = rows.iter().map(|row| row.timestamp).fold(f64::INFINITY, f64::min);
    let request = |row: &Row| TraceRequest {
        arrival_ns: ((row.timestamp - begin_ms) * 1e6).round() as u64,
        input_tokens: row.input_length as usize,
        output_tokens: row.output_length as usize,
    };
    let mut requests: Vec<TraceRequest> = rows.iter().map(request).collect();
    requests.sort_by_key(|request| request.arrival_ns);
    Ok(requests)
}

/// Returns a trace's own rate in requests per second: the number of gaps by the time from first to last request. The rate
/// is 1 for a single request, or if all arrive at once.
pub(crate) fn trace_rate(requests: &[TraceRequest]) -> f64 {
    let gaps = requests.len().saturating_sub(1) as f64;
    match requests.last() {
        Some(last) if last.arrival_ns > 0 => gaps / (last.arrival_ns as f64 / 1e9),
        _ => 1.0,
    }
}

/// Returns the SHA-256 of the requests in a trace, for the identity.
pub(crate) fn trace_hash(requests: &[TraceRequest]) -> String {
    let bytes = requests.iter().flat_map(|request| {
        [request.arrival_ns, request.input_tokens as u64, request.output_tokens as u64].map(u64::to_le_bytes)
    });
    crate::dataset::sha256_hex(&bytes.flatten().collect::<Vec<u8>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_read_and_every_fault_has_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.jsonl");
        let good = "{\"timestamp\": 1500, \"input_length\": 8, \"output_length\": 2, \"hash_ids\": [1]}\n\
                    {\"timestamp\": 1000, \"input_length\": 4, \"output_length\": 1}\n";
        std::fs::write(&path, good).unwrap();
        let trace = read_trace(&path).unwrap();
        assert_eq!(
            trace.iter().map(|r| (r.arrival_ns, r.input_tokens)).collect::<Vec<_>>(),
            [(0, 4), (500_000_000, 8)]
        );
        assert_eq!(trace_rate(&trace), 2.0);
        assert_ne!(trace_hash(&trace), trace_hash(&trace[..1]));
        for (text, says) in [
            ("", "t.jsonl:1: found an empty file"),
            (
                "{\"timestamp\": -1, \"input_length\": 1, \"output_length\": 1}",
                "t.jsonl:1: found timestamp -1",
            ),
            ("{\"timestamp\": 1, \"input_length\": 0, \"output_length\": 1}", "t.jsonl:1: found 0 input"),
            ("{\"timestamp\": 1}", "missing field `input_length`"),
        ] {
            std::fs::write(&path, text).unwrap();
            let message = read_trace(&path).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
    }
}
