//! Common parts of the records on disk: the schema number, and numbers that JSON cannot represent.

use serde::{Deserialize, Serialize};

/// The schema number that this version writes. It reads all numbers from 1 to this one. Fields added later have
/// defaults.
///
/// 2: tensor-parallel size per case and repetition, block of an interleaved repetition, details of the device,
/// a clock column in `perf.csv`.
/// 3: each journal line and `run.json` end with a `sum`, which is mandatory from then on; `run.json` has a `seal`.
/// 4: the benchmark of each task in `run.json`. Before, the task name up to the first `-`.
pub const SCHEMA: u32 = 4;

/// The first schema with lines that end with their sum.
pub(super) const WITH_SUMS: u32 = 3;

/// A record as written to a file: its fields, preceded by `schema`.
#[derive(Serialize)]
pub(super) struct Wire<T> {
    schema: u32,
    #[serde(flatten)]
    record: T,
}

/// Only the schema number. It is read first, because a record of another schema need not have the current fields.
#[derive(Deserialize)]
#[serde(expecting = "an object with a schema number")]
struct SchemaOnly {
    schema: u32,
}

impl<T> Wire<T> {
    /// Wraps a record with this version's schema number.
    pub(super) fn new(record: T) -> Self {
        Self { schema: SCHEMA, record }
    }
}

/// Parses the record in one JSON text, or describes the error. Does not check sums.
pub(super) fn parse<T: for<'de> Deserialize<'de>>(json: &[u8]) -> Result<T, String> {
    parse_numbered(json).map(|(_, record)| record)
}

/// Parses the record in one JSON text, with its schema number, or describes the error. Does not check sums.
pub(super) fn parse_numbered<T: for<'de> Deserialize<'de>>(json: &[u8]) -> Result<(u32, T), String> {
    let text = std::str::from_utf8(json).map_err(|e| format!("not UTF-8: {e}"))?;
    let schema = match leading_schema(text) {
        Some(schema) => schema,
        None => serde_json::from_str::<SchemaOnly>(text).map_err(|e| e.to_string())?.schema,
    };
    if !(1..=SCHEMA).contains(&schema) {
        return Err(format!(
            "schema {schema} was found, 1 to {SCHEMA} was expected: a newer glmbench wrote it"
        ));
    }
    // Not through `Wire`: serde buffers flattened fields, which takes seconds on 100,000 lines.
    let record = serde_json::from_str(text).map_err(|e| e.to_string())?;
    Ok((schema, record))
}

/// Returns the number at the front, where this program writes it. `None` makes the caller search the whole text.
fn leading_schema(text: &str) -> Option<u32> {
    let (number, _) = text.strip_prefix("{\"schema\":")?.split_once(',')?;
    number.parse().ok()
}

/// The default tensor-parallel size, for records without one.
pub(crate) fn one() -> u32 {
    1
}

/// Whether to leave a count out of a record because it is [`one`].
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
pub(super) fn is_one(count: &u32) -> bool {
    *count == 1
}

/// `f32`s that may not be finite. JSON cannot represent those, so they are written as `null` and read back as NaN.
pub(super) mod floats {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::record) fn serialize<S: Serializer>(values: &[f32], to: S) -> Result<S::Ok, S::Error> {
        let finite: Vec<Option<f32>> = values.iter().map(|x| x.is_finite().then_some(*x)).collect();
        finite.serialize(to)
    }

    pub(in crate::record) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f32>, D::Error> {
        let finite = Vec::<Option<f32>>::deserialize(from)?;
        Ok(finite.into_iter().map(|x| x.unwrap_or(f32::NAN)).collect())
    }
}
