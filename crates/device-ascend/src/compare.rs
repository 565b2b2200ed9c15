//! Comparison of the device with plain loops: inputs, errors and their bounds, and attention on any device.
//!
//! The rehearsal at start and the self-test share this module.

use std::ops::Range;

use glmbench_device::rotary::{RotaryMode, RotaryScaling, RotarySpec, RotaryTable};
use glmbench_device::{
    AttentionShape, DType, Device, DeviceError, KV_BLOCK_TOKENS, KvChannel, KvChannels, KvForm,
    KvLayerChannels, KvShape, SequenceView,
};

/// Returns the largest difference. NaN counts as infinite.
pub(super) fn largest_error(ours: &[f32], theirs: &[f32]) -> f64 {
    let errors = ours.iter().zip(theirs).map(|(a, b)| f64::from((a - b).abs()));
    errors.fold(0.0, |most, e| if e.is_nan() { f64::INFINITY } else { e.max(most) })
}

/// Returns the largest error that rounding explains. `unit` is half a unit in the last place of the type, relative.
///
/// A result may be one sum of products, accumulated in fp32 and rounded once. It is then off by `unit * |result|`, plus
/// fp32's own error, which is far less; the reference's fp32 sum is in another order. Some operators round intermediate
/// values: a product before a bias, or scores before softmax weights. Each such rounding adds as much again. The bound is
/// that of the largest result, times two for undocumented roundings.
pub(super) fn bound(dtype: DType, roundings: f64, largest: f32) -> f64 {
    let unit = if dtype == DType::Bf16 { 2f64.powi(-8) } else { 2f64.powi(-11) };
    2.0 * roundings * unit * f64::from(largest).max(1e-3)
}

/// Returns small pseudo-random values, representable in the type. Each seed gives others.
pub(super) fn numbers(dtype: DType, count: usize, seed: u64, spread: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        dtype.round(((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * spread)
    };
    (0..count).map(|_| next()).collect()
}

/// Returns channels for an int8 cache. Scales are powers of two, so that their reciprocals are exact. They differ by channel, as
/// offsets do. A few numbers of almost 1 are clipped.
pub(super) fn channels(heads: AttentionShape, layers: usize) -> Result<KvChannels, DeviceError> {
    let width = heads.kv_heads * heads.channels;
    let channel = |i: usize| KvChannel { scale: [1.0, 0.5][i % 2] / 64.0, offset: (i % 7) as f32 - 3.0 };
    let keys = (0..width).map(|i| KvChannel { scale: channel(i).scale, ..channel(i + 1) }).collect();
    let layer = KvLayerChannels { keys, values: (0..width).map(|i| channel(3 * i + 1)).collect() };
    KvChannels::new(vec![layer; layers], width)
        .map_err(|problem| DeviceError::Unsupported { device: "self-test", problem: problem.to_string() })
}

/// Allocates a cache of a form.
pub(super) fn cache<D: Device>(
    device: &D,
    kv: KvForm,
    heads: AttentionShape,
    shape: KvShape,
) -> Result<D::KvCache, DeviceError> {
    match kv {
        KvForm::C8 => device.kv_cache_of_channels(shape, &channels(heads, shape.layers)?),
        _ => device.kv_cache(shape),
    }
}

/// Rows of two sequences in one step: ranges, each with the index of its sequence.
pub(super) type Rows<'a> = &'a [(Range<usize>, usize)];

/// Runs a prepared attention step.
pub(super) type Attend<'a, D> = dyn FnMut(&mut D) -> Result<(), DeviceError> + 'a;

/// Runs steps of rotary, KV write and attention on any device, over a cache of the form `kv`. `how` runs each step's attention.
/// Returns the results of all steps.
pub(super) fn run_attention<D: Device>(
    device: &mut D,
    dtype: DType,
    kv: KvForm,
    heads: AttentionShape,
    steps: &[Rows<'_>],
    mut how: impl FnMut(&mut D, &mut Attend<'_, D>) -> Result<(), DeviceError>,
) -> Result<Vec<f32>, DeviceError> {
    let width = (heads.heads + 2 * heads.kv_heads) * heads.channels;
    let spec = RotarySpec {
        channels: heads.channels / 2,
        scaling: RotaryScaling::None,
        mode: RotaryMode::Exact,
        dtype,
    };
    let table = device.upload_rotary(&RotaryTable::new(spec, 256))?;
    // Each sequence's blocks are scattered and out of order.
    let blocks = [[3u32, 0], [1, 2]];
    let shape = KvShape { layers: 2, kv_heads: heads.kv_heads, channels: heads.channels, blocks: 4 };
    let mut cache = cache(device, kv, heads, shape)?;
    let mut contexts = [0usize; 2];
    let (mut results, mut result) = (Vec::new(), Vec::new());
    for (index, step) in steps.iter().enumerate() {
        let rows = step.last().map_or(0, |(rows, _)| rows.end);
        let mut positions = Vec::new();
        let mut sequences = Vec::new();
        for (rows, sequence) in *step {
            let begin = contexts[*sequence];
            positions.extend(begin as u32..(begin + rows.len()) as u32);
            contexts[*sequence] += rows.len();
            let context = contexts[*sequence];
            assert!(context <= 2 * KV_BLOCK_TOKENS, "invariant: two blocks a sequence");
            sequences.push(SequenceView { rows: rows.clone(), context, blocks: &blocks[*sequence] });
        }
        let mut qkv = device.qkv_activation(rows, heads)?;
        let mut out = device.activation(rows, heads.heads * heads.channels)?;
        device.upload(&numbers(dtype, rows * width, 20 + index as u64, 1.0), &mut qkv)?;
        device.rotary(&mut qkv, &table, &positions, heads)?;
        device.write_kv(&qkv, &mut cache, 1, &sequences, heads)?;
        how(device, &mut |device| device.attention(&qkv, &cache, 1, &sequences, heads, &mut out))?;
        device.download(&out, &mut result)?;
        results.append(&mut result);
    }
    Ok(results)
}
