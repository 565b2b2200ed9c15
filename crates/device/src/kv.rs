//! An int8 KV cache with scales and offsets that a checkpoint stores ("C8").

use super::{DeviceError, InvalidWeight, KvForm, KvShape, weight};

/// Quantisation of one channel: `q = clip(round(x / scale + offset), -128, 127)`, ties to even, and
/// `x = (q - offset) * scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KvChannel {
    /// Distance between two integers.
    pub scale: f32,
    /// The integer of zero. Symmetric quantisation has 0.
    pub offset: f32,
}

impl KvChannel {
    /// Quantises a number. Infinity is clipped. NaN becomes an integer, which depends on the device.
    pub fn quantise(self, x: f32) -> i8 {
        (x / self.scale + self.offset).round_ties_even().clamp(-128.0, 127.0) as i8
    }

    /// Returns the number of an integer.
    pub fn number(self, q: i8) -> f32 {
        (f32::from(q) - self.offset) * self.scale
    }
}

/// Quantisation of the keys and values of one layer: a channel for each of `kv_heads * channels`, head by head.
#[derive(Debug, Clone, PartialEq)]
pub struct KvLayerChannels {
    /// Channels of the keys.
    pub keys: Vec<KvChannel>,
    /// Channels of the values.
    pub values: Vec<KvChannel>,
}

/// Quantisation of a model's KV cache, layer by layer.
#[derive(Debug, Clone, PartialEq)]
pub struct KvChannels(Vec<KvLayerChannels>);

impl KvChannels {
    /// Checks that every layer has a channel for each of `width`, with a positive scale and a finite offset.
    ///
    /// # Errors
    /// One of them does not.
    pub fn new(layers: Vec<KvLayerChannels>, width: usize) -> Result<Self, InvalidWeight> {
        for layer in &layers {
            for (what, channels) in [("key channels", &layer.keys), ("value channels", &layer.values)] {
                weight::check_count(what, channels.len(), width)?;
                for (row, channel) in channels.iter().enumerate() {
                    if !(channel.scale.is_finite() && channel.scale > 0.0) {
                        return Err(InvalidWeight::KvScale { what, row, value: channel.scale });
                    }
                    if !channel.offset.is_finite() {
                        return Err(InvalidWeight::KvOffset { what, row, value: channel.offset });
                    }
                }
            }
        }
        Ok(Self(layers))
    }

    /// Returns the layers.
    pub fn layers(&self) -> &[KvLayerChannels] {
        &self.0
    }

    /// Returns the error of a device that has no such cache.
    pub fn refused(&self, device: &'static str) -> DeviceError {
        let problem = format!(
            "it has no KV cache by the scales of a checkpoint ({}); use --kv {}",
            KvForm::C8.name(),
            KvForm::Auto.name()
        );
        DeviceError::Unsupported { device, problem }
    }

    /// Checks that there are channels for a cache of this shape.
    ///
    /// # Errors
    /// There are not. The message is for the user of `device`.
    pub fn check(&self, device: &'static str, shape: KvShape) -> Result<(), DeviceError> {
        let layer = self.0.first().map_or(0, |layer| layer.keys.len());
        let (layers, width) = (shape.layers, shape.kv_heads * shape.channels);
        if self.0.len() == layers && layer == width {
            return Ok(());
        }
        let problem = format!(
            "the KV cache has scales for {} layers of {layer} channels, expected {layers} of {width}",
            self.0.len()
        );
        Err(DeviceError::Unsupported { device, problem })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_within_half_a_step_and_are_clipped() {
        let channel = KvChannel { scale: 0.5, offset: 3.0 };
        assert_eq!([0.0, 0.25, 0.75, 1e30, -1e30].map(|x| channel.quantise(x)), [3, 4, 4, 127, -128]);
        assert_eq!([3, 4, -128].map(|q| channel.number(q)), [0.0, 0.5, -65.5]);
    }

    #[test]
    fn channels_that_do_not_fit_are_refused_by_name() {
        let of = |scale, offset| {
            KvChannels::new(
                vec![KvLayerChannels {
                    keys: vec![KvChannel { scale: 1.0, offset: 0.0 }; 2],
                    values: vec![KvChannel { scale, offset }; 2],
                }],
                2,
            )
        };
        let ok = of(0.5, -1.0).unwrap();
        let shape = KvShape { layers: 1, kv_heads: 1, channels: 2, blocks: 9 };
        assert!(ok.check("x", shape).is_ok());
        let error = ok.check("x", KvShape { layers: 2, ..shape }).unwrap_err().to_string();
        assert_eq!(error, "device x: the KV cache has scales for 1 layers of 2 channels, expected 2 of 2");
        let said = |scale, offset| of(scale, offset).unwrap_err().to_string();
        assert_eq!(said(0.0, 0.0), "scale 0 of 0 among the value channels, expected a positive number");
        assert_eq!(said(1.0, f32::NAN), "offset NaN of 0 among the value channels, expected a finite number");
        let short = KvChannels::new(vec![KvLayerChannels { keys: Vec::new(), values: Vec::new() }], 2);
        assert_eq!(short.unwrap_err().to_string(), "0 key channels, expected 2");
    }
}
