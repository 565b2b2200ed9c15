//! What every record on disk has around it: the schema number; and numbers that JSON cannot write.

use serde::{Deserialize, Serialize};

/// The schema number that this version writes. It reads every number from 1 on: fields that came later have defaults.
///
/// 2: tensor-parallel size per case and repetition, block of an interleaved repetition, details of the device,
/// a clock column in `perf.csv`.
/// 3: each line of a journal and `run.json` ends with its `sum`, which lines of 3 must have; `run.json` has a `seal`.
pub const SCHEMA: u32 = 3;

/// The first schema whose lines end with their sum.
pub(super) const WITH_SUMS: u32 = 3;

/// A record as it stands in a file: its fields with `schema` in front.
#[derive(Serialize)]
pub(super) struct Wire<T> {
    schema: u32,
    #[serde(flatten)]
    record: T,
}

/// Only the number, read first: a record of another schema need not have our fields.
#[derive(Deserialize)]
#[serde(expecting = "an object with a schema number")]
struct SchemaOnly {
    schema: u32,
}

impl<T> Wire<T> {
    /// The record with this version's schema number.
    pub(super) fn new(record: T) -> Self {
        Self { schema: SCHEMA, record }
    }
}

/// The record in one JSON text, or what is wrong with it. Sums are not looked at.
pub(super) fn parse<T: for<'de> Deserialize<'de>>(json: &[u8]) -> Result<T, String> {
    parse_numbered(json).map(|(_, record)| record)
}

/// The record in one JSON text with its schema number, or what is wrong with it. Sums are not looked at.
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
    // Not through `Wire`: a flattened field is buffered first, which on a hundred thousand lines is seconds.
    let record = serde_json::from_str(text).map_err(|e| e.to_string())?;
    Ok((schema, record))
}

/// The number where our own writer puts it, in front; a line that begins otherwise is looked through.
fn leading_schema(text: &str) -> Option<u32> {
    let (number, _) = text.strip_prefix("{\"schema\":")?.split_once(',')?;
    number.parse().ok()
}

/// The tensor-parallel size of records from before there was one.
pub(super) fn one() -> u32 {
    1
}

/// Whether a count is left out of a record since it is [`one`].
#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands over a reference
pub(super) fn is_one(count: &u32) -> bool {
    *count == 1
}

/// `f32`s of which some may not be finite: JSON has no word for those, so they are `null` and read back as NaN.
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
