//! Rejection of quantised checkpoints by kind. Neither their layouts nor a configuration that only claims quantisation
//! can be taken for plain weights.

use glmbench_device::Precision;
use glmbench_device::words::one_of;

use super::{StorageType, StoredTensor, WeightError, WeightSource, layout};
use crate::config::ModelConfig;

/// Says which types this engine reads, and what would do.
fn readable() -> String {
    let quantised = Precision::TYPES.into_iter().filter(|of| of.has_quantised_weights());
    format!(
        "this engine reads weights in F16, BF16 and F32; take the model that was not quantised, or --dtype {} on it",
        one_of(quantised.map(Precision::type_name))
    )
}

/// Rejects weights that are quantised, or that the configuration says are quantised.
pub(super) fn refuse(
    source: &dyn WeightSource,
    stored: &[StoredTensor],
    config: &ModelConfig,
) -> Result<(), WeightError> {
    let refused = |problem: String| Err(WeightError::Quantised { place: source.place(), problem });
    let integers =
        stored.iter().filter(|t| is_integer(t) && layout::expected_shape(config, &t.name).is_some());
    match (integers.min_by(|a, b| a.name.cmp(&b.name)), &config.quantised) {
        (None, None) => Ok(()),
        (None, Some(word)) => refused(format!(
            "config.json says {word}, and the weights are not quantised ({}); one of the two is another model's: take the word \
             out of config.json if the weights are right",
            types(stored)
        )),
        (Some(tensor), word) => {
            let kind = kind(tensor, stored, config);
            let said = match word {
                Some(word) => format!("config.json says {word}"),
                None => "config.json says nothing of it".to_owned(),
            };
            let StoredTensor { name, dtype, shape, origin, .. } = tensor;
            refused(format!(
                "{kind} ({said}; {name} has type {dtype} and shape {shape:?} in {origin}); {}",
                readable()
            ))
        }
    }
}

/// Rejects random weights for a configuration that says that they are quantised.
pub(crate) fn refuse_random(config: &ModelConfig) -> Result<(), WeightError> {
    let Some(word) = &config.quantised else { return Ok(()) };
    let problem =
        format!("config.json says {word}, and random weights are not quantised; take the word out of it");
    Err(WeightError::Quantised { place: "random weights".to_owned(), problem })
}

fn is_integer(tensor: &StoredTensor) -> bool {
    StorageType::from_name(&tensor.dtype).is_none() && tensor.dtype.starts_with(['I', 'U'])
}

/// Describes an integer weight by its shape and the tensors stored beside it.
fn kind(tensor: &StoredTensor, stored: &[StoredTensor], config: &ModelConfig) -> &'static str {
    let beside = |suffix: &str| {
        let name = tensor.name.strip_suffix(".weight").map(|linear| format!("{linear}.{suffix}"));
        name.is_some_and(|name| stored.iter().any(|other| other.name == name))
    };
    let whole = layout::expected_shape(config, &tensor.name).unwrap_or_default();
    let packed = match (tensor.shape.as_slice(), whole.as_slice()) {
        ([n, k], [rows, columns]) => n == rows && 2 * k == *columns,
        _ => false,
    };
    if packed {
        "an int4 checkpoint, two weights a byte"
    } else if beside("deq_scale") {
        "a w8a8 checkpoint"
    } else if beside("weight_offset") {
        "a w8a16 checkpoint"
    } else if tensor.shape == whole {
        "an int8 checkpoint"
    } else {
        "a quantised checkpoint"
    }
}

/// Describes the types: `all 17 tensors are F16`.
fn types(stored: &[StoredTensor]) -> String {
    let mut names: Vec<&str> = stored.iter().map(|tensor| tensor.dtype.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    format!("all {} tensors are {}", stored.len(), names.join(" or "))
}
