//! The tensors of the new checkpoint, in the layout of ModelSlim's page on its weight format.

use super::Settings;
use crate::config::{ModelConfig, Scheme};
use crate::weights::layout::{self, LinearId};
use crate::weights::quantised::description::FLOAT;
use crate::weights::quantised::names::{self, Suffix};
use crate::weights::{StorageType, WeightSource};

/// Where a new tensor comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Copied from the float model.
    Copied,
    /// Made of a linear layer.
    Linear(LinearId, Suffix),
    /// A smoothed norm's weight, which goes with a linear layer, by its number.
    SmoothedNorm(usize),
    /// A smoothed norm's bias: zeros.
    Zeros,
    /// Key or value scales of a layer: the first half of its channels, or the second.
    CacheScale { layer: usize, is_value: bool },
}

/// A tensor of the new checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) name: String,
    /// Type as the file spells it.
    pub(super) dtype: &'static str,
    pub(super) shape: Vec<usize>,
    /// Word in the description.
    pub(super) word: &'static str,
    pub(super) origin: Origin,
}

impl Planned {
    pub(super) fn bytes(&self) -> u64 {
        self.shape.iter().fold(size_of_type(self.dtype), |bytes, &n| bytes * n as u64)
    }
}

/// Returns the size in bytes of a number of a type.
pub(super) fn size_of_type(dtype: &str) -> u64 {
    match dtype {
        "I64" => 8,
        "I32" | "F32" => 4,
        "I8" => 1,
        _ => 2,
    }
}

/// All tensors of the new checkpoint, in the order of the model.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) tensors: Vec<Planned>,
}

impl Plan {
    /// Plans the checkpoint of a model. The types of float tensors stay as they are stored in `source`.
    pub(super) fn new(config: &ModelConfig, settings: &Settings, source: &dyn WeightSource) -> Self {
        let types: std::collections::HashMap<String, String> =
            source.stored().into_iter().map(|tensor| (tensor.name, tensor.dtype)).collect();
        let model_type = source.dtype();
        let float_type = |name: &str| {
            let found = types.get(name).and_then(|dtype| StorageType::from_name(dtype));
            found.unwrap_or(model_type).name()
        };
        let mut tensors = Vec::new();
        for (name, shape) in layout::model_tensors(config) {
            let id = LinearId::of_weight(&name).filter(|id| !settings.float.contains(id));
            if let Some(id) = id {
                tensors.extend(of_linear(id, config, settings, model_type));
                continue;
            }
            let of_bias = name.strip_suffix(".bias").map(|linear| format!("{linear}.weight"));
            let of_quantised = of_bias
                .and_then(|weight| LinearId::of_weight(&weight))
                .is_some_and(|id| !settings.float.contains(&id));
            let word = match settings.scheme.description_word() {
                Some(word) if of_quantised => word,
                _ => FLOAT,
            };
            let dtype = float_type(&name);
            let is_norm = shape.len() == 1 && name.ends_with("norm.weight");
            let of_norm = LinearId::all(config)
                .position(|id| id.norm_before().as_deref() == Some(&name) && !settings.float.contains(&id));
            if let (true, Some(number), Some(_)) = (is_norm, of_norm, settings.smooth) {
                let module = |part, origin| Planned {
                    name: names::module(&name, part),
                    dtype,
                    shape: shape.clone(),
                    word: FLOAT,
                    origin,
                };
                tensors
                    .extend([module("weight", Origin::SmoothedNorm(number)), module("bias", Origin::Zeros)]);
            }
            tensors.push(Planned { name, dtype, shape, word, origin: Origin::Copied });
        }
        if settings.kv_c8 {
            tensors.extend(
                (0..config.num_layers).flat_map(|layer| of_cache(layer, config, settings, model_type)),
            );
        }
        Self { tensors }
    }

    /// Returns the size of all tensors in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.tensors.iter().map(Planned::bytes).sum()
    }

    /// Returns the tensors as they lie in the file: wide types first, which keeps every tensor aligned, each with its offset
    /// behind the header.
    pub(super) fn in_file(&self) -> Vec<(&Planned, u64)> {
        let mut order: Vec<&Planned> = self.tensors.iter().collect();
        order.sort_by_key(|tensor| std::cmp::Reverse(size_of_type(tensor.dtype)));
        let mut start = 0;
        order
            .into_iter()
            .map(|tensor| {
                let at = start;
                start += tensor.bytes();
                (tensor, at)
            })
            .collect()
    }
}

/// Returns the tensors of a quantised linear layer.
fn of_linear(
    id: LinearId,
    config: &ModelConfig,
    settings: &Settings,
    model_type: StorageType,
) -> Vec<Planned> {
    let [rows, width] = id.shape(config);
    let word = settings.scheme.description_word().unwrap_or(FLOAT);
    let tensor = |suffix: Suffix, dtype, shape: &[usize]| Planned {
        name: suffix.of(id),
        dtype,
        shape: shape.to_vec(),
        word,
        origin: Origin::Linear(id, suffix),
    };
    let weight = tensor(Suffix::Weight, "I8", &[rows, width]);
    if settings.scheme.has_static_inputs() {
        let deq_scale = if model_type == StorageType::F16 { "I64" } else { "F32" };
        return vec![
            weight,
            tensor(Suffix::InputScale, model_type.name(), &[1]),
            tensor(Suffix::InputOffset, model_type.name(), &[1]),
            tensor(Suffix::QuantBias, "I32", &[rows]),
            tensor(Suffix::DeqScale, deq_scale, &[rows]),
        ];
    }
    let scales: &[usize] = match (settings.scheme, settings.group) {
        (Scheme::W4a16, group) if group > 0 => &[rows, width / group],
        _ => &[rows],
    };
    vec![weight, tensor(Suffix::WeightScale, "F32", scales), tensor(Suffix::WeightOffset, "F32", scales)]
}

/// Returns the scales and offsets of the keys and values in a layer.
fn of_cache(
    layer: usize,
    config: &ModelConfig,
    settings: &Settings,
    model_type: StorageType,
) -> [Planned; 4] {
    let word = settings.scheme.description_word().unwrap_or(FLOAT);
    names::KV_PARTS.map(|part| Planned {
        name: names::kv(layer, part),
        dtype: model_type.name(),
        shape: vec![config.kv_width()],
        word,
        origin: if part.ends_with("scale") {
            Origin::CacheScale { layer, is_value: part.starts_with('v') }
        } else {
            Origin::Zeros
        },
    })
}
