//! The table's rows for operators: each operator runs twice on the device, and once in the reference.

use glmbench_device::reference::Reference;
use glmbench_device::{
    Device, DeviceError, Inputs, Int8StaticWeight, Int8Weight, KvForm, KvShape, LinearWeight, Role,
    SequenceView, StaticInput,
};

use super::super::compare::{Rows, numbers, run_attention};
use super::super::{Activation, Ascend};
use super::table::{Pair, Table};
use super::{Host, Widths, timed};

impl Table {
    /// Runs work twice, because an operator's plan is created the first time and reused from then on. Returns both
    /// results, concatenated, and the time of the second.
    fn twice(
        &mut self,
        out: &mut Activation,
        mut work: impl FnMut(&mut Ascend, &mut Activation) -> Result<(), DeviceError>,
    ) -> Result<(Vec<f32>, u64), DeviceError> {
        let (mut both, mut once, mut time_ns) = (Vec::new(), Vec::new(), 0);
        for _ in 0..2 {
            time_ns = timed(&mut self.device, |device| work(device, out))?;
            self.device.download(out, &mut once)?;
            both.extend_from_slice(&once);
        }
        Ok((both, time_ns))
    }

    pub(super) fn embed(&mut self) -> Result<Pair, DeviceError> {
        let Widths { hidden, vocab, .. } = self.widths;
        let table = Host::new(self.dtype, vocab, hidden, 1, 1.0);
        let ids = [0, vocab as u32 - 1, 7, 7, 99];
        let ours = self.device.upload_table(table.view())?;
        let mut out = self.device.activation(ids.len(), hidden)?;
        let ours = self.twice(&mut out, |device, out| device.embed(&ours, &ids, out))?;
        let mut reference = Reference::default();
        let table = reference.upload_table(table.view())?;
        let mut out = reference.activation(ids.len(), hidden)?;
        reference.embed(&table, &ids, &mut out)?;
        Pair::of(ours, &mut reference, &out)
    }

    pub(super) fn rms_norm(&mut self) -> Result<Pair, DeviceError> {
        let hidden = self.widths.hidden;
        let x = numbers(self.dtype, 3 * hidden, 2, 4.0);
        let weight = Host::new(self.dtype, 1, hidden, 3, 1.0);
        let (gamma, mut from) =
            (self.device.upload_vector(weight.view())?, self.device.activation(3, hidden)?);
        let mut out = self.device.activation(3, hidden)?;
        self.device.upload(&x, &mut from)?;
        let ours = self.twice(&mut out, |device, out| device.rms_norm(&from, &gamma, 1e-5, out))?;
        let mut reference = Reference::default();
        let gamma = reference.upload_vector(weight.view())?;
        let (mut from, mut out) = (reference.activation(3, hidden)?, reference.activation(3, hidden)?);
        reference.upload(&x, &mut from)?;
        reference.rms_norm(&from, &gamma, 1e-5, &mut out)?;
        Pair::of(ours, &mut reference, &out)
    }

    pub(super) fn linear(&mut self) -> Result<Pair, DeviceError> {
        let hidden = self.widths.hidden;
        let weight = Host::new(self.dtype, hidden, hidden, 4, 0.02);
        let x = numbers(self.dtype, 3 * hidden, 5, 1.0);
        let ours = self.device.upload_linear(Role::Dense, weight.view().into(), None)?;
        let (mut from, mut out) = (self.device.activation(3, hidden)?, self.device.activation(3, hidden)?);
        self.device.upload(&x, &mut from)?;
        let ours = self.twice(&mut out, |device, out| device.linear(&from, &ours, out))?;
        let mut reference = Reference::default();
        let theirs = reference.upload_linear(Role::Dense, weight.view().into(), None)?;
        let (mut from, mut out) = (reference.activation(3, hidden)?, reference.activation(3, hidden)?);
        reference.upload(&x, &mut from)?;
        reference.linear(&from, &theirs, &mut out)?;
        Pair::of(ours, &mut reference, &out)
    }

    /// Static W8A8. The scale of the inputs is a power of two, so its reciprocal is exact in every type.
    pub(super) fn linear_static(&mut self) -> Result<Pair, DeviceError> {
        let hidden = self.widths.hidden;
        let weight = Host::new(self.dtype, hidden, hidden, 4, 0.02);
        let input = StaticInput { scale: 1.0 / 64.0, offset: 0.0 };
        self.quantised(LinearWeight::Int8Static(Int8StaticWeight::quantised(weight.view(), input)))
    }

    pub(super) fn linear_weight_only(&mut self) -> Result<Pair, DeviceError> {
        let hidden = self.widths.hidden;
        let weight = Host::new(self.dtype, hidden, hidden, 4, 0.02);
        self.quantised(LinearWeight::Int8(Int8Weight::quantised(weight.view(), Inputs::Float)))
    }

    /// Multiplies with a quantised weight and adds a bias.
    fn quantised(&mut self, weight: LinearWeight<'_>) -> Result<Pair, DeviceError> {
        let hidden = self.widths.hidden;
        let bias = Host::new(self.dtype, 1, hidden, 7, 1.0);
        let x = numbers(self.dtype, 3 * hidden, 5, 1.0);
        let ours = self.device.upload_linear(Role::Dense, weight, Some(bias.view()))?;
        let (mut from, mut out) = (self.device.activation(3, hidden)?, self.device.activation(3, hidden)?);
        self.device.upload(&x, &mut from)?;
        let ours = self.twice(&mut out, |device, out| device.linear(&from, &ours, out))?;
        let mut reference = Reference::default();
        let theirs = reference.upload_linear(Role::Dense, weight, Some(bias.view()))?;
        let (mut from, mut out) = (reference.activation(3, hidden)?, reference.activation(3, hidden)?);
        reference.upload(&x, &mut from)?;
        reference.linear(&from, &theirs, &mut out)?;
        Pair::of(ours, &mut reference, &out)
    }

    /// Through KV write and attention of one token, so the result is the token's own value. Tests the split, the bias and
    /// the layout.
    pub(super) fn qkv(&mut self) -> Result<Pair, DeviceError> {
        let (hidden, heads) = (self.widths.hidden, self.widths.heads);
        let width = (heads.heads + 2 * heads.kv_heads) * heads.channels;
        let weight = Host::new(self.dtype, width, hidden, 6, 0.02);
        let bias = Host::new(self.dtype, 1, width, 7, 1.0);
        let x = numbers(self.dtype, 3 * hidden, 8, 1.0);
        let blocks = [[0u32], [1], [2]];
        let sequences: Vec<SequenceView<'_>> = blocks
            .iter()
            .enumerate()
            .map(|(i, blocks)| SequenceView { rows: i..i + 1, context: 1, blocks })
            .collect();
        let shape = KvShape { layers: 1, kv_heads: heads.kv_heads, channels: heads.channels, blocks: 3 };
        let linear = self.device.upload_linear(Role::Qkv, weight.view().into(), Some(bias.view()))?;
        let (mut from, mut qkv) = (self.device.activation(3, hidden)?, self.device.qkv_activation(3, heads)?);
        let mut out = self.device.activation(3, heads.heads * heads.channels)?;
        let mut cache = self.device.kv_cache(shape)?;
        self.device.upload(&x, &mut from)?;
        let mut time_ns = 0;
        let (ours, _) = self.twice(&mut out, |device, out| {
            time_ns = timed(device, |device| device.linear(&from, &linear, &mut qkv))?;
            device.write_kv(&qkv, &mut cache, 0, &sequences, heads)?;
            device.attention(&qkv, &cache, 0, &sequences, heads, out)
        })?;
        let mut reference = Reference::default();
        let linear = reference.upload_linear(Role::Qkv, weight.view().into(), Some(bias.view()))?;
        let (mut from, mut qkv) = (reference.activation(3, hidden)?, reference.qkv_activation(3, heads)?);
        let mut out = reference.activation(3, heads.heads * heads.channels)?;
        let mut cache = reference.kv_cache(shape)?;
        reference.upload(&x, &mut from)?;
        reference.linear(&from, &linear, &mut qkv)?;
        reference.write_kv(&qkv, &mut cache, 0, &sequences, heads)?;
        reference.attention(&qkv, &cache, 0, &sequences, heads, &mut out)?;
        Pair::of((ours, time_ns), &mut reference, &out)
    }

    pub(super) fn swiglu(&mut self) -> Result<Pair, DeviceError> {
        let Widths { hidden, ffn, .. } = self.widths;
        let weight = Host::new(self.dtype, 2 * ffn, hidden, 9, 0.02);
        let x = numbers(self.dtype, 3 * hidden, 10, 1.0);
        let ours = self.device.upload_linear(Role::GateUp, weight.view().into(), None)?;
        let mut from = self.device.activation(3, hidden)?;
        let (mut h, mut out) = (self.device.activation(3, 2 * ffn)?, self.device.activation(3, ffn)?);
        self.device.upload(&x, &mut from)?;
        self.device.linear(&from, &ours, &mut h)?;
        let ours = self.twice(&mut out, |device, out| device.swiglu(&h, out))?;
        let mut reference = Reference::default();
        let theirs = reference.upload_linear(Role::GateUp, weight.view().into(), None)?;
        let mut from = reference.activation(3, hidden)?;
        let (mut h, mut out) = (reference.activation(3, 2 * ffn)?, reference.activation(3, ffn)?);
        reference.upload(&x, &mut from)?;
        reference.linear(&from, &theirs, &mut h)?;
        reference.swiglu(&h, &mut out)?;
        Pair::of(ours, &mut reference, &out)
    }

    /// In place, so the second sum adds to the first.
    pub(super) fn add(&mut self) -> Result<Pair, DeviceError> {
        let hidden = self.widths.hidden;
        let (a, b) = (numbers(self.dtype, 3 * hidden, 11, 1.0), numbers(self.dtype, 3 * hidden, 12, 1.0));
        let (mut x, mut y) = (self.device.activation(3, hidden)?, self.device.activation(3, hidden)?);
        self.device.upload(&a, &mut x)?;
        self.device.upload(&b, &mut y)?;
        let (ours, time_ns) = self.twice(&mut x, |device, x| device.add(x, &y))?;
        let once: Vec<f32> = a.iter().zip(&b).map(|(a, b)| self.dtype.round(a + b)).collect();
        let again = once.iter().zip(&b).map(|(sum, b)| sum + b);
        Ok(Pair { theirs: once.iter().copied().chain(again).collect(), ours, time_ns })
    }

    pub(super) fn gather(&mut self) -> Result<Pair, DeviceError> {
        let hidden = self.widths.hidden;
        let x = numbers(self.dtype, 5 * hidden, 13, 1.0);
        let (mut from, mut out) = (self.device.activation(5, hidden)?, self.device.activation(3, hidden)?);
        self.device.upload(&x, &mut from)?;
        let rows = [4, 0, 2];
        let (ours, time_ns) = self.twice(&mut out, |device, out| device.gather(&from, &rows, out))?;
        let theirs: Vec<f32> =
            rows.iter().flat_map(|row| x[row * hidden..(row + 1) * hidden].to_vec()).collect();
        Ok(Pair { ours, theirs: theirs.repeat(2), time_ns })
    }

    /// Two prompts. One of them exceeds a block and continues after a chunk.
    pub(super) fn prefill(&mut self) -> Result<Pair, DeviceError> {
        self.attention(&[&[(0..100, 0), (100..103, 1)], &[(0..30, 0)]])
    }

    /// The same, and one more token for each sequence.
    pub(super) fn decode(&mut self) -> Result<Pair, DeviceError> {
        self.attention(&[&[(0..130, 0), (130..133, 1)], &[(0..1, 0), (1..2, 1)]])
    }

    /// The same decode over an int8 cache by channels. The chunk before is computed over that cache, too.
    pub(super) fn decode_c8(&mut self) -> Result<Pair, DeviceError> {
        self.attention_over(KvForm::C8, &[&[(0..130, 0), (130..133, 1)], &[(0..1, 0), (1..2, 1)]])
    }

    /// The prefill of [`Self::prefill`] over such a cache.
    pub(super) fn prefill_c8(&mut self) -> Result<Pair, DeviceError> {
        self.attention_over(KvForm::C8, &[&[(0..100, 0), (100..103, 1)], &[(0..30, 0)]])
    }

    fn attention(&mut self, steps: &[Rows<'_>]) -> Result<Pair, DeviceError> {
        self.attention_over(KvForm::Auto, steps)
    }

    /// Runs rotary, KV write and attention in several steps, over a cache of a form. The last step's attention is compared
    /// and timed.
    fn attention_over(&mut self, kv: KvForm, steps: &[Rows<'_>]) -> Result<Pair, DeviceError> {
        let (dtype, heads) = (self.dtype, self.widths.heads);
        let mut time_ns = 0;
        let mut work = |device: &mut Ascend| {
            run_attention(device, dtype, kv, heads, steps, |device, attend| {
                attend(device)?;
                time_ns = timed(device, attend)?;
                Ok(())
            })
        };
        let ours = match kv {
            KvForm::Auto => work(&mut self.device)?,
            other => self.device.with_cache(other, work)?,
        };
        let reference = &mut Reference::default();
        let theirs = run_attention(reference, dtype, kv, heads, steps, |device, attend| attend(device))?;
        Ok(Pair { ours, theirs, time_ns })
    }
}
