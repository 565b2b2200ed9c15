//! The tensors of a ChatGLM2 model, and the check that a checkpoint has them.

use std::collections::BTreeMap;
use std::fmt;

use glmbench_device::words::one_of;

pub use super::shapes::{
    ATTENTION_DENSE, EMBEDDING, FFN_DOWN, FFN_UP, FINAL_NORM, INPUT_NORM, INV_FREQ, OUTPUT, POST_NORM,
    PREFIX, PREFIX_DOWN_BIAS, PREFIX_DOWN_WEIGHT, PREFIX_EMBEDDING, PREFIX_UP_BIAS, PREFIX_UP_WEIGHT,
    QKV_BIAS, QKV_WEIGHT, expected_shape, layer_tensor, model_tensors, part_of_layer, prefix_width,
};
use super::shapes::{ExpectedTensor, LAYERS, ROOT};
use super::{StoredTensor, WeightError, WeightSource, quantised};
use crate::config::ModelConfig;
pub use crate::linear::LinearId;

/// Number of problems that [`Problems`] lists; the others are counted.
const NAMED: usize = 10;
/// Number of problems after which [`check`] stops: the checkpoint is of another model altogether.
const COUNTED: usize = 1000;

/// Problems of a checkpoint, one line per tensor.
#[derive(Debug, Default)]
pub struct Problems {
    missing: Vec<String>,
    others: Vec<String>,
    count: usize,
}

impl Problems {
    fn missing(&mut self, line: impl FnOnce() -> String) {
        if self.missing.len() < NAMED {
            self.missing.push(line());
        }
        self.count += 1;
    }

    fn add(&mut self, line: impl FnOnce() -> String) {
        if self.others.len() < NAMED {
            self.others.push(line());
        }
        self.count += 1;
    }

    fn is_full(&self) -> bool {
        self.count >= COUNTED
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Shows some of the other tensors too, which may be there instead of the missing ones.
        let missing = self.missing.len().min(NAMED - self.others.len().min(NAMED / 2));
        let others = self.others.len().min(NAMED - missing);
        let lines = self.missing[..missing].iter().chain(&self.others[..others]).map(String::as_str);
        f.write_str(&lines.collect::<Vec<_>>().join("\n  "))?;
        let rest = self.count - missing - others;
        match (rest, self.is_full()) {
            (0, _) => Ok(()),
            (_, true) => write!(f, "\n  and {rest} more or above"),
            (_, false) => write!(f, "\n  and {rest} more"),
        }
    }
}

/// Compares everything that `source` stores with what a model of this config needs, before reading any tensor.
///
/// # Errors
/// - [`WeightError::Quantised`] if the weights are not plain numbers, or the config says so.
/// - [`WeightError::Mismatch`] with the missing, extra, misshapen or mistyped tensors (ten of them, then a count).
/// - [`WeightError::Misnamed`] if most names differ for one common reason.
pub fn check(source: &dyn WeightSource, config: &ModelConfig) -> Result<(), WeightError> {
    let stored = source.stored();
    quantised::refuse(source, &stored, config)?;
    let mut stored: BTreeMap<String, StoredTensor> =
        stored.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
    let mut problems = Problems::default();
    for expected in quantised::expected_tensors(config) {
        if problems.is_full() {
            break;
        }
        match stored.remove(&expected.name) {
            Some(found) => check_one(&found, &expected, &mut problems),
            None if expected.is_optional => {}
            None => problems.missing(|| missing(&expected)),
        }
    }
    let place = || source.place();
    if !problems.missing.is_empty()
        && let Some(problem) = misnamed(stored.keys(), config)
    {
        return Err(WeightError::Misnamed { place: place(), problem });
    }
    if !problems.is_full() {
        let extra = stored.values().filter(|tensor| tensor.name != INV_FREQ);
        extra.for_each(|tensor| problems.add(|| superfluous(tensor, config)));
    }
    match problems.count {
        0 => Ok(()),
        _ => Err(WeightError::Mismatch { place: place(), problems }),
    }
}

/// Finds a common reason why most names do not match: a prefix written by a wrapper of the model, or a missing prefix.
/// `extra` are the names that the model does not have.
fn misnamed<'a>(extra: impl ExactSizeIterator<Item = &'a String>, config: &ModelConfig) -> Option<String> {
    const SHOWN: usize = 3;
    let all = extra.len();
    let mut by_prefix: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut bare: Vec<&str> = Vec::new();
    for name in extra {
        let wrapped =
            name.match_indices(ROOT).map(|(at, _)| at).find(|&at| at > 0 && is_of(config, &name[at..]));
        if let Some(at) = wrapped {
            by_prefix.entry(&name[..at]).or_default().push(name);
        } else if is_of(config, &format!("{ROOT}{name}")) {
            bare.push(name);
        }
    }
    let shown = |names: &[&str]| names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    if let Some((prefix, names)) = by_prefix.iter().find(|(_, names)| 2 * names.len() > all) {
        return Some(format!(
            "the names of {} tensors begin with `{prefix}`, expected them without it: {}, …; a wrapper of the model wrote it: save \
             the state of the model inside it",
            names.len(),
            shown(names)
        ));
    }
    (2 * bare.len() > all).then(|| {
        format!(
            "the names of {} tensors lack `{ROOT}`, expected it before each: {}, …; the inner model was saved alone",
            bare.len(),
            shown(&bare)
        )
    })
}

/// Whether a model of this config has a tensor with this name.
fn is_of(config: &ModelConfig, name: &str) -> bool {
    name == INV_FREQ || expected_shape(config, name).is_some()
}

fn check_one(found: &StoredTensor, expected: &ExpectedTensor, problems: &mut Problems) {
    let ExpectedTensor { types, because, .. } = expected;
    if !expected.shapes.contains(&found.shape) {
        problems.add(|| {
            let StoredTensor { name, shape, origin, .. } = found;
            format!(
                "{name} has shape {shape:?} in {origin}, expected {}{because}",
                expected.shapes_in_words()
            )
        });
    } else if !types.contains(&found.dtype.as_str()) {
        problems.add(|| {
            let StoredTensor { name, dtype, origin, .. } = found;
            format!(
                "{name} has type {dtype} in {origin}, expected {}{because}",
                one_of(types.iter().copied())
            )
        });
    }
}

fn missing(expected: &ExpectedTensor) -> String {
    let ExpectedTensor { name, because, .. } = expected;
    let advice =
        if name.starts_with(PREFIX) { " (config.json has pre_seq_len: a P-tuning prefix)" } else { because };
    format!("{name} is missing, expected shape {}{advice}", expected.shapes_in_words())
}

fn superfluous(tensor: &StoredTensor, config: &ModelConfig) -> String {
    let StoredTensor { name, shape, origin, .. } = tensor;
    let reason = if name.starts_with(PREFIX) && config.pre_seq_len.is_none() {
        "config.json has no pre_seq_len".to_owned()
    } else if name.starts_with(PREFIX) {
        "config.json has prefix_projection false".to_owned()
    } else if name.starts_with(LAYERS) && name.ends_with(QKV_BIAS) && !config.qkv_bias {
        "config.json has add_qkv_bias false".to_owned()
    } else if name.starts_with(LAYERS) {
        format!("the model has {} layers and no such tensor in them", config.num_layers)
    } else {
        "no tensor of ChatGLM2".to_owned()
    };
    format!("{name} {shape:?} in {origin} is not expected: {reason}")
}
