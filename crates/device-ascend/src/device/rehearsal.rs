//! Runs the selected operators for attention and KV writes once on a small case, before they are trusted.
//!
//! An accepting first stage says nothing about the kernel behind it. For example, on a 310P the incremental operator
//! accepts grouped heads, which its page does not allow. So every choice is compared with the host's own arithmetic. A
//! choice with another result is discarded by name.

use glmbench_device::reference::Reference;
use glmbench_device::{Device, DeviceError, KV_BLOCK_TOKENS, KvForm, KvShape, SequenceView};

use super::super::compare::{Rows, bound, cache, channels, largest_error, numbers, run_attention};
use super::super::kv::BlockOrder;
use super::super::layout::decode;
use super::super::probe::Wrong;
use super::Ascend;

/// Roundings in attention.
const ROUNDINGS: f64 = 6.0;
/// The same over an int8 cache: keys that a rotation leaves near a tie may become the next integer.
pub(in super::super) const INT8_ROUNDINGS: f64 = 12.0;

impl Ascend {
    /// Returns the first choice that gives a wrong result.
    ///
    /// # Errors
    /// Fails with the device's errors.
    pub(super) fn rehearse(&mut self) -> Result<Option<Wrong>, DeviceError> {
        let choices = self.choices;
        if let Some(why) = self.written_otherwise()? {
            return Ok(Some(Wrong { capability: "kv", word: choices.kv.word(), why }));
        }
        // A prompt that continues after a chunk, beside another; then one token of each.
        let prefill: [Rows<'_>; 2] = [&[(0..20, 0), (20..23, 1)], &[(0..5, 0)]];
        let decode: [Rows<'_>; 2] = [&[(0..20, 0), (20..23, 1)], &[(0..1, 0), (1..2, 1)]];
        for (capability, word, steps) in
            [("prefill", choices.prefill.word(), prefill), ("decode", choices.decode.word(), decode)]
        {
            if let Some(why) = self.attends_otherwise(&steps)? {
                return Ok(Some(Wrong { capability, word, why }));
            }
        }
        Ok(None)
    }

    fn attends_otherwise(&mut self, steps: &[Rows<'_>]) -> Result<Option<String>, DeviceError> {
        let (dtype, kv, heads) = (self.core.dtype, self.kv, self.layout.shape);
        let ours = run_attention(self, dtype, kv, heads, steps, |device, attend| attend(device))?;
        let reference = &mut Reference::default();
        let theirs = run_attention(reference, dtype, kv, heads, steps, |device, attend| attend(device))?;
        let largest = theirs.iter().fold(0f32, |most, v| most.max(v.abs()));
        let roundings = if kv == KvForm::C8 { INT8_ROUNDINGS } else { ROUNDINGS };
        let (error, most) = (largest_error(&ours, &theirs), bound(dtype, roundings, largest));
        let wrong = ours.len() != theirs.len() || error > most;
        Ok(wrong
            .then(|| format!("a wrong result at start (error {error:.1e}, at most {most:.1e} was expected)")))
    }

    /// Checks that keys and values are in the right places, byte for byte. Integers must be those of the host.
    fn written_otherwise(&mut self) -> Result<Option<String>, DeviceError> {
        const TOKENS: usize = 5;
        let (heads, layout, bytes) = (self.layout.shape, self.layout, self.core.dtype.bytes());
        let blocks = [1u32];
        let shape = KvShape { layers: 2, kv_heads: heads.kv_heads, channels: heads.channels, blocks: 2 };
        let mut cache = cache(self, self.kv, heads, shape)?;
        let mut qkv = self.qkv_activation(TOKENS, heads)?;
        let width = (heads.heads + 2 * heads.kv_heads) * heads.channels;
        self.upload(&numbers(self.core.dtype, TOKENS * width, 30, 1.0), &mut qkv)?;
        let sequences = [SequenceView { rows: 0..TOKENS, context: TOKENS, blocks: &blocks }];
        self.write_kv(&qkv, &mut cache, 1, &sequences, heads)?;
        self.core.stream.synchronize()?;
        let [keys, values, _] = qkv.parts.expect("invariant: such an activation has parts");
        for (which, (name, buffer)) in cache.in_memory().into_iter().enumerate() {
            let mut given = vec![0; TOKENS * layout.kv_width() * bytes];
            qkv.memory.read([keys, values][which], &mut given)?;
            let (given, bytes) = match self.kv {
                KvForm::C8 => (self.integers(&given, which)?, 1),
                _ => (given, bytes),
            };
            let row = layout.kv_width() * bytes;
            let block = cache.block_numbers() * bytes;
            let mut found = vec![0; block];
            // The second layer's second block.
            buffer.read(3 * block, &mut found)?;
            let head = layout.channels * bytes;
            for (token, head_of) in (0..TOKENS).flat_map(|token| (0..heads.kv_heads).map(move |h| (token, h)))
            {
                let place = match cache.order {
                    BlockOrder::TokenHead => token * heads.kv_heads + head_of,
                    BlockOrder::HeadToken => head_of * KV_BLOCK_TOKENS + token,
                };
                let from = token * row + head_of * head;
                if found[place * head..][..head] != given[from..][..head] {
                    return Ok(Some(format!(
                        "other {name} in the cache at start than were written (token {token})"
                    )));
                }
            }
        }
        Ok(None)
    }

    /// Returns the integers of rows of keys (0) or values (1), as bytes. Their reciprocal scales are exact.
    fn integers(&self, rows: &[u8], which: usize) -> Result<Vec<u8>, DeviceError> {
        let channels = channels(self.layout.shape, 1)?;
        let layer = channels.layers().first().map(|layer| [&layer.keys, &layer.values][which]);
        let places = &self.layout.kv_places()[which];
        let mut numbers = Vec::new();
        decode(rows, self.core.dtype, &mut numbers);
        let places = places.iter().cycle();
        let integer = |(x, from): (&f32, &Option<usize>)| {
            let channel = layer.zip(*from).map(|(layer, from)| layer[from]);
            // Padding is zero.
            channel.map_or(0, |channel| channel.quantise(*x).cast_unsigned())
        };
        Ok(numbers.iter().zip(places).map(integer).collect())
    }
}

#[cfg(test)]
mod tests {
    use glmbench_device::{AttentionShape, DType, WeightForm};

    use super::super::super::ops;
    use super::super::super::probe::{probe, survey};
    use super::super::super::settings::{Chip, Emulation, GroupSettings};
    use super::super::super::tensor::View;
    use super::super::super::{AscendGroup, Forced};
    use super::*;

    fn rank(chip: Chip, kv: KvForm, lines: &str, forced: &str) -> Result<Ascend, DeviceError> {
        let settings = GroupSettings {
            chip,
            tp: 1,
            dtype: DType::Fp16,
            weights: WeightForm::Plain,
            kv,
            attention: AttentionShape { heads: 8, kv_heads: 2, channels: 32 },
            bind: false,
            forced: Forced::parse(forced).unwrap(),
            emulation: Some(Emulation::new(chip, None, false).unwrap().with("streams = lazy").with(lines)),
        };
        AscendGroup::new(settings)?.rank(0)
    }

    /// The rehearsal compares integers byte for byte, and attention with the reference.
    #[test]
    fn every_alternative_over_an_int8_cache_is_rehearsed() {
        for (forced, [decode, prefill, kv]) in [
            ("", ["fused", "fused", "scatter"]),
            ("decode=incre,kv=index-copy", ["incre", "fused", "index-copy"]),
            ("decode=incre-bnsd,kv=copy", ["incre-bnsd", "prompt", "copy"]),
            ("decode=prompt,prefill=prompt-square,kv=memory", ["prompt", "prompt-square", "memory"]),
            ("decode=matmul,prefill=matmul", ["matmul", "matmul", "index-copy"]),
            ("decode=matmul,add=add-repeated", ["matmul", "prompt", "index-copy"]),
        ] {
            let device = rank(Chip::A2800i, KvForm::C8, "", forced).unwrap();
            let found =
                [device.choices.decode.word(), device.choices.prefill.word(), device.choices.kv.word()];
            assert_eq!(found, [decode, prefill, kv], "{forced}: {:?}", device.details);
        }
    }

    #[test]
    fn what_does_not_read_or_write_integers_is_gone_around() {
        for (fault, expected) in [
            ("refused:FusedInferAttentionScoreV2:int8", ["incre-bnsd", "prompt"]),
            ("broken:FusedInferAttentionScoreV2", ["incre-bnsd", "prompt"]),
            ("refused:IncreFlashAttentionV4:int8", ["fused", "fused"]),
        ] {
            let device = rank(Chip::A2800i, KvForm::C8, &format!("fault = {fault}"), "").unwrap();
            let found = [device.choices.decode.word(), device.choices.prefill.word()];
            assert_eq!(found, expected, "{fault}: {:?}", device.details);
        }
        for fault in ["refused:AscendQuantV3", "broken:AscendQuantV3"] {
            let error = rank(Chip::A2800i, KvForm::C8, &format!("fault = {fault}"), "").err().unwrap();
            assert!(error.to_string().contains("no way to do kv is accepted"), "{fault}: {error}");
        }
        let error = rank(Chip::Duo300i, KvForm::C8, "", "").err().unwrap().to_string();
        assert!(error.contains("its attention operators take no int8 KV cache"), "{error}");
    }

    /// A caller gives up after a refused call, and frees memory that earlier calls still use. Streams run only when somebody
    /// waits. Without a wait, those calls would find their memory freed, and the device would be lost.
    #[test]
    fn probing_goes_on_after_a_refused_call() {
        let chip = Chip::A2800i;
        // The model's operator is not probed, so it is refused when it is first called.
        let device = rank(chip, KvForm::Auto, "fault = refused:SwiGlu", "").unwrap();
        let core = &device.core;
        let before = survey(core, chip, device.layout).unwrap();
        let gives_up = || {
            // Large enough for an allocation of its own, which ends with this function.
            let memory = core.slab.take(1 << 20, "a test")?;
            memory.clear()?;
            let [x, half] = [256, 128].map(|width| View::new(memory.at(0), core.element(), &[1, width]));
            core.run(ops::scale(core.api(), x, 1.0, x))?;
            core.run(ops::swiglu(core.api(), x, half))
        };
        for _ in 0..2 {
            let refused = gives_up().unwrap_err();
            assert!(refused.to_string().contains("aclnnSwiGlu"), "{refused}");
            assert_eq!(survey(core, chip, device.layout).unwrap(), before);
            let kv = device.kv;
            let probed = probe(core, chip, device.layout, kv, device.settings.forced, &[]).unwrap();
            assert_eq!(probed.choices.words(), device.choices.words());
            core.stream.synchronize().unwrap();
        }
    }

    /// The cache of one form is refused by a device whose operators were chosen for another.
    #[test]
    fn channels_that_are_too_wide_or_unexpected_are_refused() {
        let heads = AttentionShape { heads: 8, kv_heads: 2, channels: 32 };
        let shape = KvShape { layers: 1, kv_heads: 2, channels: 32, blocks: 2 };
        let good = channels(heads, 1).unwrap();
        let float = rank(Chip::A2800i, KvForm::Auto, "", "").unwrap();
        let said = float.kv_cache_of_channels(shape, &good).err().unwrap().to_string();
        assert!(said.contains("it has no KV cache by the scales of a checkpoint"), "{said}");
        let device = rank(Chip::A2800i, KvForm::C8, "", "").unwrap();
        assert!(device.kv_cache_of_channels(shape, &good).is_ok());
        let other = KvShape { layers: 2, ..shape };
        let said = device.kv_cache_of_channels(other, &good).err().unwrap().to_string();
        assert!(said.contains("scales for 1 layers of 64 channels, expected 2 of 64"), "{said}");
    }
}
