//! Reference values from SciPy, statsmodels and NumPy, written by `scripts/stats_fixtures.py`.

use serde_json::Value;

/// The whole fixture file.
pub(super) fn fixtures() -> Value {
    serde_json::from_str(include_str!("fixtures.json")).unwrap()
}

/// An array of numbers.
pub(super) fn f64s(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// An array of unsigned integers.
pub(super) fn u64s(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap()).collect()
}

/// Asserts that both are absent, or that `found` is within `relative` of `wanted`.
pub(super) fn assert_close(found: Option<f64>, wanted: &Value, relative: f64) {
    match (found, wanted.as_f64()) {
        (Some(found), Some(wanted)) => {
            assert!((found - wanted).abs() <= relative * wanted.abs(), "found {found}, wanted {wanted}");
        }
        (found, wanted) => assert_eq!(found, wanted),
    }
}
