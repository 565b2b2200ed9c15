//! Scales and offsets of an int8 cache by the channels of a checkpoint ("C8"), as a card's operators take them.
//!
//! **Writes.** `aclnnAscendQuantV3` multiplies by the reciprocal of the scale, in the type of the rows, and adds the offset.
//!
//! **Reads.** The attention operators compute `(q + offset) * scale`, so they get the negative offset. Keys and values are
//! together: `[2, heads * channels]`, or `[2, heads, 1, channels]`.
//!
//! The channels of a head lie as on the device: those of keys are permuted for the rotary operator. Padding has scale 1 and
//! offset 0, so its zeros stay zero.

use glmbench_device::{DeviceError, KvChannel, KvChannels, KvShape};

use super::super::core::Core;
use super::super::layout::{HeadLayout, encode};
use super::super::memory::Buffer;
use super::super::tensor::{Element, Tensor, View};
use super::BlockOrder;

/// The least scale that a card takes: the least normal fp16. The reciprocal of a smaller one may exceed fp16. Such a channel
/// is coarser on a card. The added error is at most `2^-15`.
const LEAST_SCALE: f32 = 1.0 / LARGEST_SCALE;
/// The largest scale whose reciprocal is a normal fp16.
const LARGEST_SCALE: f32 = 16_384.0;

/// What is stored of a layer, in this order. Each is `[2, heads * channels]`.
const PARTS: usize = 4;
const FACTORS: usize = 0;
const OFFSETS: usize = 1;
const SCALES: usize = 2;
const ADDED: usize = 3;

/// The channels of all layers.
pub(in super::super) struct Channels {
    buffer: Buffer,
    element: Element,
    /// Numbers in a row of keys, and of values.
    width: usize,
    /// Bytes of one part of a layer.
    part_bytes: usize,
    /// For each layer, the scales and the offsets that attention adds.
    antiquant: Vec<[Tensor; 2]>,
}

impl Channels {
    /// Uploads the channels of a checkpoint.
    ///
    /// # Errors
    /// There are channels for another shape, a scale is too large for the card, or memory ran out.
    pub(super) fn new(
        core: &Core,
        layout: &HeadLayout,
        order: BlockOrder,
        shape: KvShape,
        channels: &KvChannels,
    ) -> Result<Self, DeviceError> {
        let device = core.api().device;
        channels.check(device, KvShape { channels: layout.shape.channels, ..shape })?;
        let width = layout.kv_width();
        let mut bytes = Vec::new();
        for (layer, of) in channels.layers().iter().enumerate() {
            let both = [&of.keys, &of.values].into_iter().zip(layout.kv_places());
            let placed: Vec<KvChannel> =
                both.flat_map(|(channels, places)| placed(channels, &places)).collect();
            if let Some(channel) = placed.iter().find(|channel| channel.scale > LARGEST_SCALE) {
                let problem = format!(
                    "the KV cache has the scale {} in layer {layer}, expected {LARGEST_SCALE} at most",
                    channel.scale
                );
                return Err(DeviceError::Unsupported { device, problem });
            }
            let mut part = |number: fn(&KvChannel) -> f32| {
                let numbers: Vec<f32> = placed.iter().map(number).collect();
                bytes.extend(encode(&numbers, core.dtype));
            };
            part(|channel| 1.0 / channel.scale.max(LEAST_SCALE));
            part(|channel| channel.offset);
            part(|channel| channel.scale.max(LEAST_SCALE));
            part(|channel| -channel.offset);
        }
        let buffer = core.slab.put(&bytes, "the channels of the KV cache")?;
        let part_bytes = 2 * width * core.dtype.bytes();
        let element = core.element();
        let mut found = Self { buffer, element, width, part_bytes, antiquant: Vec::new() };
        let dims = match order {
            BlockOrder::TokenHead => vec![2, width],
            BlockOrder::HeadToken => vec![2, layout.shape.kv_heads, 1, layout.channels],
        };
        for layer in 0..channels.layers().len() {
            let tensor = |part| View::new(found.start(layer, part, 0), element, &dims).tensor(core.api());
            let pair = [tensor(SCALES)?, tensor(ADDED)?];
            found.antiquant.push(pair);
        }
        Ok(found)
    }

    /// Returns the address of a part for the keys (0) or the values (1) of a layer.
    fn start(&self, layer: usize, part: usize, which: usize) -> *mut std::ffi::c_void {
        self.buffer.at((layer * PARTS + part) * self.part_bytes + which * self.part_bytes / 2)
    }

    /// Returns factors and offsets that quantise the keys (0) or the values (1) of a layer.
    pub(super) fn quantising(&self, layer: usize, which: usize) -> [View; 2] {
        [FACTORS, OFFSETS].map(|part| View::new(self.start(layer, part, which), self.element, &[self.width]))
    }

    /// Returns the scales of the keys (0) or the values (1) of a layer, and the offsets to add before.
    pub(in super::super) fn dequantising(&self, layer: usize, which: usize) -> [View; 2] {
        [SCALES, ADDED].map(|part| View::new(self.start(layer, part, which), self.element, &[self.width]))
    }

    /// Returns the tensors of the attention operators.
    pub(super) fn antiquant(&self, layer: usize) -> [&Tensor; 2] {
        let [scale, offset] = &self.antiquant[layer];
        [scale, offset]
    }
}

/// Arranges the channels of all heads as on the device.
fn placed(channels: &[KvChannel], places: &[Option<usize>]) -> Vec<KvChannel> {
    let padding = KvChannel { scale: 1.0, offset: 0.0 };
    places.iter().map(|from| from.map_or(padding, |from| channels[from])).collect()
}
