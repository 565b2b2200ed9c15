//! Runs the selected operators for attention and KV writes once on a small case, before they are trusted.
//!
//! An accepting first stage says nothing about the kernel behind it. For example, on a 310P the incremental operator
//! accepts grouped heads, which its page does not allow. So every choice is compared with the host's own arithmetic. A
//! choice with another result is discarded by name.

use glmbench_device::reference::Reference;
use glmbench_device::{Device, DeviceError, KV_BLOCK_TOKENS, KvShape, SequenceView};

use super::super::compare::{Rows, bound, largest_error, numbers, run_attention};
use super::super::kv::BlockOrder;
use super::super::probe::Wrong;
use super::Ascend;

/// Roundings in attention.
const ROUNDINGS: f64 = 6.0;

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
        let (dtype, heads) = (self.core.dtype, self.layout.shape);
        let ours = run_attention(self, dtype, heads, steps, |device, attend| attend(device))?;
        let theirs =
            run_attention(&mut Reference::default(), dtype, heads, steps, |device, attend| attend(device))?;
        let largest = theirs.iter().fold(0f32, |most, v| most.max(v.abs()));
        let (error, most) = (largest_error(&ours, &theirs), bound(dtype, ROUNDINGS, largest));
        let wrong = ours.len() != theirs.len() || error > most;
        Ok(wrong
            .then(|| format!("a wrong result at start (error {error:.1e}, at most {most:.1e} was expected)")))
    }

    /// Checks that keys and values are in the right places, byte for byte.
    fn written_otherwise(&mut self) -> Result<Option<String>, DeviceError> {
        const TOKENS: usize = 5;
        let (heads, layout, bytes) = (self.layout.shape, self.layout, self.core.dtype.bytes());
        let blocks = [1u32];
        let shape = KvShape { layers: 2, kv_heads: heads.kv_heads, channels: heads.channels, blocks: 2 };
        let mut cache = self.kv_cache(shape)?;
        let mut qkv = self.qkv_activation(TOKENS, heads)?;
        let width = (heads.heads + 2 * heads.kv_heads) * heads.channels;
        self.upload(&numbers(self.core.dtype, TOKENS * width, 30, 1.0), &mut qkv)?;
        let sequences = [SequenceView { rows: 0..TOKENS, context: TOKENS, blocks: &blocks }];
        self.write_kv(&qkv, &mut cache, 1, &sequences, heads)?;
        self.core.stream.synchronize()?;
        let row = layout.kv_width() * bytes;
        let [keys, values, _] = qkv.parts.expect("invariant: such an activation has parts");
        for ((name, buffer), offset) in cache.in_memory().into_iter().zip([keys, values]) {
            let mut given = vec![0; TOKENS * row];
            qkv.memory.read(offset, &mut given)?;
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
}
