//! The stored scales and offsets of an int8 KV cache ("C8").

use std::ops::Range;
use std::path::PathBuf;

use glmbench_device::{KvChannel, KvChannels, KvLayerChannels};

use super::names;
use crate::config::ModelConfig;
use crate::weights::{Part, WeightError, WeightSource};

/// Reads the quantisation of the KV cache for the KV heads `heads`: one scale and offset per channel, in every layer.
///
/// # Errors
/// A tensor is missing, a scale is not a positive number, or an offset is no int8. The message has file and tensor.
pub(crate) fn kv_channels(
    source: &dyn WeightSource,
    config: &ModelConfig,
    heads: Range<usize>,
) -> Result<KvChannels, WeightError> {
    let channels = heads.start * config.kv_channels..heads.end * config.kv_channels;
    let part = Part::Rows(std::iter::once(channels.clone()).collect());
    let layers = (0..config.num_layers).map(|layer| of_layer(source, config, layer, &part));
    let layers = layers.collect::<Result<_, _>>()?;
    KvChannels::new(layers, channels.len())
        .map_err(|problem| WeightError::Quantised { place: source.place(), problem: problem.to_string() })
}

fn of_layer(
    source: &dyn WeightSource,
    config: &ModelConfig,
    layer: usize,
    part: &Part,
) -> Result<KvLayerChannels, WeightError> {
    let numbers = |name: &str| -> Result<Vec<f32>, WeightError> {
        let name = names::kv(layer, name);
        let numbers = source.part(&name, &[config.kv_width()], part)?.to_f32();
        source.release(&name);
        let is_scale = name.ends_with("scale");
        let is_proper = |number: &f32| {
            if is_scale {
                number.is_finite() && *number > 0.0
            } else {
                (-128.0..=127.0).contains(number) && number.fract() == 0.0
            }
        };
        let Some(at) = numbers.iter().position(|number| !is_proper(number)) else { return Ok(numbers) };
        let expected = if is_scale { "a positive number" } else { "an integer from -128 to 127" };
        let origin = source.raw(&name).map_or_else(|| source.place(), |raw| raw.origin);
        let problem = format!("tensor {name}: {} at channel {at}, expected {expected}", numbers[at]);
        Err(WeightError::Format { path: PathBuf::from(origin), problem })
    };
    let [key_scale, key_offset, value_scale, value_offset] = names::KV_PARTS.map(numbers);
    let channels = |scales: Vec<f32>, offsets: Vec<f32>| {
        scales.into_iter().zip(offsets).map(|(scale, offset)| KvChannel { scale, offset }).collect()
    };
    Ok(KvLayerChannels {
        keys: channels(key_scale?, key_offset?),
        values: channels(value_scale?, value_offset?),
    })
}
