//! Quantised checkpoints: which tensors they need, and the weights of their linear layers.
//!
//! `config.json` decides on the scheme ([`Scheme`]), and ModelSlim's description decides which linear layers stay in float
//! ([`description`]). The tensors must confirm both, or the checkpoint is rejected. The loader reads one layer at a time.

pub mod description;
mod kv;
mod linear;
pub mod names;

use std::borrow::Cow;

use glmbench_device::Role;
use glmbench_device::words::one_of;

use super::shapes::{self, ExpectedTensor};
use super::{Part, StorageType, StoredTensor, WeightError, WeightSource};
use crate::config::{ModelConfig, Quantised, Scheme};
use crate::linear::LinearId;

pub(crate) use self::kv::kv_channels;
pub(crate) use self::linear::StoredLinear;
use self::names::Suffix;

/// A tensor as stored, of any type: integers of quantised weights, and what belongs to them.
#[derive(Debug, Clone)]
pub struct RawTensor<'a> {
    /// Type as the file spells it, e.g. `I8`.
    pub dtype: String,
    /// Extent of each dimension, outermost first.
    pub shape: Vec<usize>,
    /// The data, little-endian, row-major.
    pub data: Cow<'a, [u8]>,
    /// The file that holds it, for messages.
    pub origin: String,
}

impl<'a> RawTensor<'a> {
    /// Returns a part of this tensor, of elements of `size` bytes: borrowed if it is one run of a borrowed tensor.
    fn part(self, part: &Part, size: usize) -> Cow<'a, [u8]> {
        let runs = part.runs(&self.shape);
        let bytes = |run: &std::ops::Range<usize>| run.start * size..run.end * size;
        match (self.data, runs.as_slice()) {
            (Cow::Borrowed(data), [run]) => Cow::Borrowed(&data[bytes(run)]),
            (data, runs) => Cow::Owned(runs.iter().flat_map(|run| &data[bytes(run)]).copied().collect()),
        }
    }
}

/// Types of integer weights.
const INT8: &[&str] = &["I8"];
const INT32: &[&str] = &["I32"];
/// `deq_scale` is int64 for fp16 models, with the bits of an fp32 number, and fp32 for bf16 models.
const DEQ_SCALE: &[&str] = &["I64", "F32"];

/// Returns the tensors of a checkpoint of this config, with those that it may have besides. They are made one by one: a config may
/// claim any number of layers.
pub(super) fn expected_tensors(config: &ModelConfig) -> impl Iterator<Item = ExpectedTensor> + '_ {
    let quantised = config.quantised.as_ref();
    let plain = shapes::model_tensors(config).flat_map(move |(name, shape)| match quantised {
        None => vec![ExpectedTensor::dense(name, shape)],
        Some(quantised) => of_tensor(name, shape, quantised, config),
    });
    let cache = quantised.filter(|quantised| quantised.kv_c8).map(|quantised| of_cache(config, quantised));
    plain.chain(cache.into_iter().flatten())
}

/// Returns what a quantised checkpoint has in place of a tensor of the model.
fn of_tensor(
    name: String,
    shape: Vec<usize>,
    quantised: &Quantised,
    config: &ModelConfig,
) -> Vec<ExpectedTensor> {
    match (LinearId::of_weight(&name), quantised.scheme) {
        (Some(id), Some(scheme)) if !quantised.float.contains(&id) => {
            of_linear(id, scheme, quantised, config)
        }
        (Some(_), _) => {
            let because = format!("; the layer stays in float ({})", quantised.said);
            vec![ExpectedTensor { because, ..ExpectedTensor::dense(name, shape) }]
        }
        (None, _) => {
            let is_optional = is_bias_of_static(&name, quantised);
            let is_norm = shape.len() == 1 && name.ends_with("norm.weight");
            let module = ["weight", "bias"].map(|suffix| names::module(&name, suffix)).map(|name| {
                ExpectedTensor { is_optional: true, ..ExpectedTensor::dense(name, shape.clone()) }
            });
            let own = ExpectedTensor { is_optional, ..ExpectedTensor::dense(name, shape.clone()) };
            std::iter::once(own).chain(module.into_iter().filter(|_| is_norm)).collect()
        }
    }
}

/// Whether the tensor is the bias of a layer that has it in its `quant_bias` as well, so that the file may lack it.
fn is_bias_of_static(name: &str, quantised: &Quantised) -> bool {
    let weight = name.strip_suffix(".bias").map(|linear| format!("{linear}.weight"));
    let id = weight.and_then(|weight| LinearId::of_weight(&weight));
    let is_static = quantised.scheme.is_some_and(Scheme::has_static_inputs);
    is_static && id.is_some_and(|id| !quantised.float.contains(&id))
}

/// Returns the tensors of a quantised linear layer.
fn of_linear(
    id: LinearId,
    scheme: Scheme,
    quantised: &Quantised,
    config: &ModelConfig,
) -> Vec<ExpectedTensor> {
    let [n, k] = id.shape(config);
    let because = match scheme.description_word() {
        Some(word) => {
            format!("; config.json says {}, and the description {word} of this layer", quantised.said)
        }
        None => format!("; config.json says {}", quantised.said),
    };
    let tensor = |suffix: Suffix, shapes: &[&[usize]], types| ExpectedTensor {
        name: suffix.of(id),
        shapes: shapes.iter().map(|shape| shape.to_vec()).collect(),
        types,
        is_optional: false,
        because: because.clone(),
    };
    let weight = tensor(Suffix::Weight, &[&[n, k]], INT8);
    match scheme {
        Scheme::W8a8 | Scheme::W8a8s => vec![
            weight,
            tensor(Suffix::InputScale, &[&[1]], ExpectedTensor::FLOAT),
            tensor(Suffix::InputOffset, &[&[1]], ExpectedTensor::FLOAT),
            tensor(Suffix::QuantBias, &[&[n]], INT32),
            tensor(Suffix::DeqScale, &[&[n]], DEQ_SCALE),
        ],
        Scheme::W8a8Dynamic | Scheme::W8a16 => {
            let shapes: [&[usize]; 2] = [&[n], &[n, 1]];
            vec![
                weight,
                tensor(Suffix::WeightScale, &shapes, ExpectedTensor::FLOAT),
                ExpectedTensor {
                    is_optional: true,
                    ..tensor(Suffix::WeightOffset, &shapes, ExpectedTensor::FLOAT)
                },
            ]
        }
        Scheme::W4a16 => {
            let of_group: Vec<usize> = match quantised.group {
                Some(group) if group > 0 && k.is_multiple_of(group) => vec![n, k / group],
                _ => vec![n],
            };
            let column = [n, 1];
            let shapes: [&[usize]; 2] = [&of_group, &column];
            // One scale per output channel is a vector or a column.
            let shapes = if of_group.len() == 1 { &shapes[..] } else { &shapes[..1] };
            vec![
                weight,
                tensor(Suffix::WeightScale, shapes, ExpectedTensor::FLOAT),
                ExpectedTensor {
                    is_optional: true,
                    ..tensor(Suffix::WeightOffset, shapes, ExpectedTensor::FLOAT)
                },
            ]
        }
        Scheme::Int8 => {
            vec![weight, tensor(Suffix::WeightScale, &[&[n]], ExpectedTensor::FLOAT)]
        }
        Scheme::Int4 => vec![
            tensor(Suffix::Weight, &[&[n, k / 2]], INT8),
            tensor(Suffix::WeightScale, &[&[n]], ExpectedTensor::FLOAT),
        ],
    }
}

/// Returns the scales and offsets of an int8 KV cache.
fn of_cache<'a>(
    config: &'a ModelConfig,
    quantised: &'a Quantised,
) -> impl Iterator<Item = ExpectedTensor> + 'a {
    let of_layer = move |layer: usize| {
        names::KV_PARTS.map(|part| ExpectedTensor {
            because: format!("; config.json says {}", quantised.said),
            ..ExpectedTensor::dense(names::kv(layer, part), vec![config.kv_width()])
        })
    };
    (0..config.num_layers).flat_map(of_layer)
}

/// Rejects weights of another kind than the configuration says, or of a kind that this engine cannot read.
pub(super) fn refuse(
    source: &dyn WeightSource,
    stored: &[StoredTensor],
    config: &ModelConfig,
) -> Result<(), WeightError> {
    let refused = |problem: String| Err(WeightError::Quantised { place: source.place(), problem });
    let integers =
        stored.iter().filter(|t| is_integer(t) && shapes::expected_shape(config, &t.name).is_some());
    match (integers.min_by(|a, b| a.name.cmp(&b.name)), &config.quantised) {
        (None, None) | (Some(_), Some(Quantised { scheme: Some(_), is_described: true, .. })) => Ok(()),
        (Some(_), Some(Quantised { scheme: Some(scheme), said, .. })) => refused(format!(
            "{} is not there, expected it beside the weights: config.json says {said}",
            names::description(*scheme)
        )),
        // A checkpoint may leave every layer in float, although no one would make one.
        (None, Some(quantised)) if quantised.scheme.is_some() && all_float(quantised, config) => Ok(()),
        (None, Some(quantised)) => refused(format!(
            "config.json says {}, and the weights are not quantised ({}); one of the two is another model's: take the word \
             out of config.json if the weights are right",
            quantised.said,
            types(stored)
        )),
        (Some(tensor), said) => {
            let (kind, words) = kind(tensor, stored, config);
            let StoredTensor { name, dtype, shape, origin, .. } = tensor;
            let found = format!("{name} has type {dtype} and shape {shape:?} in {origin}");
            refused(match said {
                Some(quantised) => format!(
                    "{kind} (config.json says {}; {found}); this engine reads {}{}",
                    quantised.said,
                    Scheme::expected(),
                    missing_facts(&quantised.said)
                ),
                None => format!(
                    "{kind} (config.json says nothing of it; {found}); expected {words} in config.json"
                ),
            })
        }
    }
}

fn all_float(quantised: &Quantised, config: &ModelConfig) -> bool {
    LinearId::all(config).all(|id| quantised.float.contains(&id))
}

/// Says what is missing to read the compressed form of sparse weights.
fn missing_facts(said: &str) -> &'static str {
    if said.contains("w8a8sc") {
        "; the compressed stream of w8a8sc cannot be read, because its tiling depends on the chip and is not documented. Take \
         the w8a8s files that it was made from"
    } else {
        ""
    }
}

/// Describes the form of quantised weights, behind the names of their files; empty for plain weights.
pub(crate) fn in_words(config: &ModelConfig) -> String {
    let Some(quantised) = &config.quantised else { return String::new() };
    let count = LinearId::all(config).count();
    let float = LinearId::all(config).filter(|id| quantised.float.contains(id)).count();
    format!(" ({}: {} of {count} linear layers, the others in float)", quantised.word(), count - float)
}

/// Rejects random weights for a configuration that says that they are quantised.
pub(crate) fn refuse_random(config: &ModelConfig) -> Result<(), WeightError> {
    let Some(quantised) = &config.quantised else { return Ok(()) };
    let problem = format!(
        "config.json says {}, and random weights are not quantised; take the word out of it",
        quantised.said
    );
    Err(WeightError::Quantised { place: "random weights".to_owned(), problem })
}

fn is_integer(tensor: &StoredTensor) -> bool {
    StorageType::from_name(&tensor.dtype).is_none() && tensor.dtype.starts_with(['I', 'U'])
}

/// Describes an integer weight by its shape and the tensors stored beside it, and says what `config.json` would have.
fn kind(tensor: &StoredTensor, stored: &[StoredTensor], config: &ModelConfig) -> (&'static str, String) {
    let beside = |suffix: &str| {
        let name = tensor.name.strip_suffix(".weight").map(|linear| format!("{linear}.{suffix}"));
        name.is_some_and(|name| stored.iter().any(|other| other.name == name))
    };
    let whole = shapes::expected_shape(config, &tensor.name).unwrap_or_default();
    let packed = match (tensor.shape.as_slice(), whole.as_slice()) {
        ([n, k], [rows, columns]) => n == rows && 2 * k == *columns,
        _ => false,
    };
    if packed {
        ("an int4 checkpoint, two weights a byte", Scheme::Int4.said())
    } else if beside("deq_scale") {
        ("a w8a8 checkpoint", Scheme::W8a8.said())
    } else if beside("weight_offset") {
        (
            "a w8a16, w4a16 or w8a8_dynamic checkpoint",
            one_of([Scheme::W8a16, Scheme::W4a16, Scheme::W8a8Dynamic].map(Scheme::said)),
        )
    } else if tensor.shape == whole {
        ("an int8 checkpoint", Scheme::Int8.said())
    } else {
        ("a quantised checkpoint", Scheme::expected())
    }
}

/// Describes the types: `all 17 tensors are F16`.
fn types(stored: &[StoredTensor]) -> String {
    let mut names: Vec<&str> = stored.iter().map(|tensor| tensor.dtype.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    format!("all {} tensors are {}", stored.len(), names.join(" or "))
}

/// Returns the name of the norm weight that goes with a linear layer. Under SmoothQuant a quantised layer has one of its own,
/// `{norm}.module.weight`, whose channels are divided by the factors that its weight was multiplied with.
///
/// # Errors
/// The smoothed norm has a bias, which ChatGLM2's RMSNorm has not.
pub(crate) fn norm_of(
    source: &dyn WeightSource,
    config: &ModelConfig,
    norm: &str,
) -> Result<String, WeightError> {
    let Some(quantised) = &config.quantised else { return Ok(norm.to_owned()) };
    let id = LinearId::all(config).find(|id| id.norm_before().as_deref() == Some(norm));
    let module = names::module(norm, "weight");
    if id.is_none_or(|id| quantised.float.contains(&id)) || source.raw(&module).is_none() {
        return Ok(norm.to_owned());
    }
    let bias = names::module(norm, "bias");
    if source.raw(&bias).is_some() {
        let view = source.tensor(&bias, &[config.hidden_size])?;
        if let Some(channel) = view.to_f32().iter().position(|value| *value != 0.0) {
            return Err(WeightError::Quantised {
                place: source.place(),
                problem: format!(
                    "tensor {bias} is not zero at channel {channel}: an RMSNorm with a bias, expected one without"
                ),
            });
        }
        source.release(&bias);
    }
    Ok(module)
}

/// Returns the role of the layer with the KV scales that [`names::kv`] names. The tensors stand beside its weight.
const KV_ROLE: Role = Role::Qkv;
