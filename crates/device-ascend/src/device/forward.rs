//! The operators of the forward pass on one chip.

use ascend_sys::{HCCL_DATA_TYPE_BFP16, HCCL_DATA_TYPE_FP16, HCCL_REDUCE_SUM, call};

use glmbench_device::rotary::RotaryTable;
use glmbench_device::{
    AttentionShape, DType, Device, DeviceError, DeviceInfo, DeviceName, HostTensor, KvChannels, KvForm,
    KvShape, LinearWeight, Precision, Role, SequenceView,
};

use super::super::api::acl;
use super::super::attention::{Attention, Step};
use super::super::choice::{Decode, Prefill};
use super::super::core::Words;
use super::super::kv::{BlockOrder, KvCache, KvWriter, NewKv};
use super::super::layout::{bytes_as, decode, encode};
use super::super::linear::{Linear, Matrix, Weights};
use super::super::memory::{Buffer, Outbox};
use super::super::rotate::{Rotary, Rotated, Rotator};
use super::super::sizes::{SWIGLU_ALIGNMENT, swiglu_half};
use super::super::store::{Activation, Table, Vector};
use super::super::tensor::{Element, Operand, View};
use super::super::{adder, ops};
use super::Ascend;

impl Ascend {
    fn element(&self) -> Element {
        self.core.element()
    }

    /// Gathers rows of `width` elements from `x`. The rows of `x` are contiguous.
    fn gather_rows(
        &mut self,
        x: &Activation,
        width: usize,
        rows: &[usize],
        out: &Activation,
    ) -> Result<(), DeviceError> {
        let (core, element) = (&self.core, self.core.element());
        self.rows.words.clear();
        self.rows.words.extend(rows.iter().map(|row| *row as i32));
        core.send_words(&mut self.rows)?;
        let inbox = self.rows.inbox.buffer();
        let shape = x.memory.id << 32 | x.rows as u64;
        core.run_cached(("gather", [out.memory.id, shape, inbox.id, rows.len() as u64]), |api| {
            let indices = View::new(inbox.at(0), Element::Int32, &[rows.len()]);
            let view = |memory: &Buffer, rows| View::new(memory.at(0), element, &[rows, width]);
            ops::gather(api, view(&x.memory, x.rows), indices, view(&out.memory, rows.len()))
        })
    }

    fn new_kv(qkv: &Activation) -> NewKv {
        let [_, key, value, _] = qkv.parts();
        NewKv { key, value, rows: qkv.rows, id: qkv.memory.id }
    }
}

impl Device for Ascend {
    type Activation = Activation;
    type Linear = Linear;
    type Vector = Vector;
    type Table = Table;
    type Rotary = Rotary;
    type KvCache = KvCache;

    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            name: DeviceName {
                kind: self.settings.chip.device(),
                emulated: self.settings.emulation.is_some(),
            }
            .to_string(),
            kernel: "aclnn".to_owned(),
            threads: 1,
            precision: Precision {
                dtype: self.core.dtype,
                weights: self.settings.weights,
                kv: self.settings.kv,
            },
            tp: self.settings.tp,
            modelled_by: self.settings.emulation.as_ref().map(|e| e.clock.clone()),
            // A card's products may sum in another order for another number of rows. The emulator's do not, but decoding
            // and prefill may have different operators.
            rows_are_independent: self.settings.emulation.is_some()
                && (self.choices.decode, self.choices.prefill) == (Decode::Matmul, Prefill::Matmul),
            // No card has been measured, and its operators may sum in another order for another number of rows.
            chunks_are_independent: self.settings.emulation.is_some(),
            details: self.details(),
        }
    }

    fn activation(&self, max_rows: usize, width: usize) -> Result<Activation, DeviceError> {
        // Room for two padded halves.
        let numbers = max_rows * width.next_multiple_of(2 * SWIGLU_ALIGNMENT);
        let rstd = numbers * self.core.dtype.bytes();
        let rstd = rstd.next_multiple_of(64);
        let memory = self.core.slab.take(rstd + max_rows * 4, "activations")?;
        Ok(Activation { memory, max_rows, width, rows: 0, stride: width, rstd, parts: None })
    }

    fn qkv_activation(&self, max_rows: usize, shape: AttentionShape) -> Result<Activation, DeviceError> {
        let (q, kv, bytes) = (self.layout.q_width(), self.layout.kv_width(), self.core.dtype.bytes());
        let mut end = 0;
        let mut part = |width: usize| {
            let begin = end;
            end = (begin + max_rows * width * bytes).next_multiple_of(64);
            begin
        };
        part(q);
        let parts = [part(kv), part(kv), part(if self.layout.padded() { q } else { 0 })];
        let memory = self.core.slab.take(end, "queries, keys and values")?;
        let width = (shape.heads + 2 * shape.kv_heads) * shape.channels;
        Ok(Activation { memory, max_rows, width, rows: 0, stride: width, rstd: end, parts: Some(parts) })
    }

    fn upload_linear(
        &self,
        role: Role,
        weight: LinearWeight<'_>,
        bias: Option<HostTensor<'_>>,
    ) -> Result<Linear, DeviceError> {
        match role {
            Role::Qkv => Linear::qkv(&self.core, self.choices, weight, bias, &self.layout),
            Role::GateUp => {
                let half = swiglu_half(self.settings.chip, weight.rows() / 2);
                Linear::gate_up(&self.core, self.choices, weight, half)
            }
            Role::Dense | Role::Down | Role::Output | Role::Prefix => {
                Ok(Linear(Weights::Plain(Matrix::upload(&self.core, self.choices, weight, bias, None)?)))
            }
        }
    }

    fn upload_vector(&self, values: HostTensor<'_>) -> Result<Vector, DeviceError> {
        let buffer = self.core.slab.put(&bytes_as(values, self.core.dtype), "a vector")?;
        Ok(Vector { buffer, len: values.rows * values.width })
    }

    fn upload_table(&self, table: HostTensor<'_>) -> Result<Table, DeviceError> {
        let bytes = table.rows * table.width * self.core.dtype.bytes();
        let buffer = self.core.slab.take(bytes, "the embedding table")?;
        if !self.core.timing_only {
            buffer.write(0, &bytes_as(table, self.core.dtype))?;
        }
        Ok(Table { buffer, rows: table.rows, width: table.width })
    }

    fn upload_rotary(&self, table: &RotaryTable) -> Result<Rotary, DeviceError> {
        Ok(Rotary::new(table, &self.layout, self.core.dtype))
    }

    fn kv_cache(&self, shape: KvShape) -> Result<KvCache, DeviceError> {
        let shape = KvShape { channels: self.layout.channels, ..shape };
        KvCache::new(&self.core, shape, BlockOrder::of(self.choices.decode))
    }

    fn kv_cache_of_channels(&self, shape: KvShape, channels: &KvChannels) -> Result<KvCache, DeviceError> {
        // The operators were chosen for one form of cache.
        if self.kv != KvForm::C8 {
            return Err(channels.refused(self.settings.chip.name()));
        }
        let shape = KvShape { channels: self.layout.channels, ..shape };
        let order = BlockOrder::of(self.choices.decode);
        KvCache::of_channels(&self.core, &self.layout, shape, order, channels)
    }

    fn embed(&mut self, table: &Table, ids: &[u32], out: &mut Activation) -> Result<(), DeviceError> {
        out.set_rows(ids.len(), out.width);
        let core = &self.core;
        self.ids.words.clear();
        self.ids.words.extend(ids.iter().map(|id| *id as i32));
        core.send_words(&mut self.ids)?;
        let inbox = self.ids.inbox.buffer();
        let element = core.element();
        core.run_cached(("embed", out.key(table.buffer.id, inbox.id)), |api| {
            let weight = View::new(table.buffer.at(0), element, &[table.rows, table.width]);
            let indices = View::new(inbox.at(0), Element::Int32, &[ids.len()]);
            ops::embedding(api, weight, indices, out.view(element))
        })
    }

    fn rms_norm(
        &mut self,
        x: &Activation,
        weight: &Vector,
        epsilon: f32,
        out: &mut Activation,
    ) -> Result<(), DeviceError> {
        out.set_rows(x.rows, out.width);
        let element = self.element();
        self.core.run_cached(("norm", out.key(x.memory.id, weight.buffer.id)), |api| {
            let gamma = View::new(weight.buffer.at(0), element, &[weight.len]);
            let rstd = View::new(out.memory.at(out.rstd), Element::Fp32, &[out.rows, 1]);
            // Through the shortest decimal, so that the operator gets the model's 1e-5, not its fp32 neighbour.
            let epsilon = epsilon.to_string().parse().unwrap_or(f64::from(epsilon));
            ops::rms_norm(api, x.view(element), gamma, epsilon, out.view(element), rstd)
        })
    }

    fn linear(&mut self, x: &Activation, weight: &Linear, out: &mut Activation) -> Result<(), DeviceError> {
        let (core, element) = (&self.core, self.element());
        match &weight.0 {
            Weights::Plain(matrix) => {
                assert!(x.width == matrix.k() && out.width == matrix.n(), "invariant: shapes agree");
                out.set_rows(x.rows, out.width);
                matrix.apply(core, x.operand(element), out.operand(element), x.rows)
            }
            Weights::GateUp(matrix) => {
                out.set_rows(x.rows, matrix.n());
                let view = View::new(out.memory.at(0), element, &[x.rows, matrix.n()]);
                matrix.apply(core, x.operand(element), Operand { view, id: out.memory.id }, x.rows)
            }
            Weights::Qkv(parts) => {
                out.set_rows(x.rows, out.width);
                let input = parts[0].input(core, x.operand(element), x.rows)?;
                for (matrix, place) in parts.iter().zip(out.parts()) {
                    let view = View::new(place, element, &[x.rows, matrix.n()]);
                    matrix.product(core, input, Operand { view, id: out.memory.id }, x.rows)?;
                }
                Ok(())
            }
        }
    }

    fn rotary(
        &mut self,
        qkv: &mut Activation,
        table: &Rotary,
        positions: &[u32],
        _shape: AttentionShape,
    ) -> Result<(), DeviceError> {
        assert!(positions.len() == qkv.rows, "invariant: a position a row");
        let [query, key, ..] = qkv.parts();
        let rotated = Rotated { query, key, id: qkv.memory.id };
        self.rotator.run(&self.core, table, rotated, positions)
    }

    fn write_kv(
        &mut self,
        qkv: &Activation,
        cache: &mut KvCache,
        layer: usize,
        sequences: &[SequenceView<'_>],
        _shape: AttentionShape,
    ) -> Result<(), DeviceError> {
        self.writer.write(&self.core, cache, layer, Self::new_kv(qkv), sequences)
    }

    fn copy_kv_block(
        &mut self,
        cache: &mut KvCache,
        from: u32,
        to: u32,
        _tokens: usize,
    ) -> Result<(), DeviceError> {
        // One copy of a whole block costs less than one for each head.
        cache.copy_block(&self.core, from as usize, to as usize)
    }

    fn attention(
        &mut self,
        qkv: &Activation,
        cache: &KvCache,
        layer: usize,
        sequences: &[SequenceView<'_>],
        shape: AttentionShape,
        out: &mut Activation,
    ) -> Result<(), DeviceError> {
        out.set_rows(qkv.rows, out.width);
        let [query, key, value, unfinished] = qkv.parts();
        let padded = self.layout.padded();
        let place = if padded { unfinished } else { out.memory.at(0) };
        let step = Step { query, key, value, out: place, rows: qkv.rows };
        self.attention.run(&self.core, cache, layer, step, sequences)?;
        if !padded {
            return Ok(());
        }
        // Drops the padding of the heads.
        let (element, channels) = (self.core.element(), self.layout.channels);
        self.core.run_cached(("heads", out.key(qkv.memory.id, 0)), |api| {
            let dims = [qkv.rows, shape.heads, shape.channels];
            let strides = [self.layout.q_width(), channels, 1];
            let from = View::strided(place, element, &dims, &strides);
            ops::copy(api, View::new(out.memory.at(0), element, &dims), from)
        })
    }

    fn add(&mut self, x: &mut Activation, y: &Activation) -> Result<(), DeviceError> {
        let element = self.element();
        adder::add(&self.core, Some(("add", x.key(y.memory.id, 0))), x.view(element), y.view(element))
    }

    fn swiglu(&mut self, h: &Activation, out: &mut Activation) -> Result<(), DeviceError> {
        out.set_rows(h.rows, h.stride / 2);
        let element = self.element();
        self.core.run_cached(("swiglu", out.key(h.memory.id, 0)), |api| {
            let rows = |memory: &Buffer, width| View::new(memory.at(0), element, &[h.rows, width]);
            ops::swiglu(api, rows(&h.memory, h.stride), rows(&out.memory, h.stride / 2))
        })
    }

    fn gather(&mut self, x: &Activation, rows: &[usize], out: &mut Activation) -> Result<(), DeviceError> {
        out.set_rows(rows.len(), out.width);
        self.gather_rows(x, x.width, rows, out)
    }

    fn gather_queries(
        &mut self,
        qkv: &Activation,
        rows: &[usize],
        out: &mut Activation,
    ) -> Result<(), DeviceError> {
        out.set_rows(rows.len(), out.width);
        // Queries are the first part, and their rows are contiguous.
        self.gather_rows(qkv, self.layout.q_width(), rows, out)
    }

    fn all_reduce(&mut self, x: &mut Activation) -> Result<(), DeviceError> {
        let Some(comm) = &self.comm else { return Ok(()) };
        let api = self.core.api();
        let kind = if self.core.dtype == DType::Bf16 { HCCL_DATA_TYPE_BFP16 } else { HCCL_DATA_TYPE_FP16 };
        let (place, count) = (x.memory.at(0), (x.rows * x.width) as u64);
        let Ok(ccl) = &api.libraries.ccl else { return Err(api.missing("HcclAllReduce")) };
        let stream = self.core.stream.ordered()?;
        // SAFETY: the rows lie one after another; communicator and stream live.
        unsafe {
            acl!(api, ccl, HcclAllReduce(place, place, count, kind, HCCL_REDUCE_SUM, comm.handle, stream))
        }
    }

    fn modelled_ns(&self) -> Option<u64> {
        // Waiting launches count towards the time so far.
        self.core.stream.flush_quietly();
        let emulator = self.core.api().libraries.emu.as_ref()?;
        // SAFETY: the function takes nothing.
        unsafe { call!(emulator, ascend_emulator_now_ns()) }.ok()
    }

    fn idle(&mut self, duration_ns: u64) {
        self.core.stream.flush_quietly();
        let Some(emulator) = &self.core.api().libraries.emu else { return };
        // SAFETY: the function takes a number and keeps nothing. If it fails, the clock stands still, which is noticed.
        let _ = unsafe { call!(emulator, ascend_emulator_host_work(duration_ns)) };
    }

    fn release_cached(&mut self) -> Result<(), DeviceError> {
        // Plans go first: they refer to the memory of the rest.
        self.core.release_cached()?;
        self.core.choose(self.choices);
        self.rotator = Rotator::new(self.choices.rotary, self.layout);
        self.attention = Attention::new(self.choices, self.layout);
        self.writer = KvWriter::new(self.choices.kv, self.layout);
        self.ids = Words::new("token ids");
        self.rows = Words::new("row numbers");
        self.outbox = Outbox::default();
        Ok(())
    }

    fn download(&mut self, x: &Activation, out: &mut Vec<f32>) -> Result<(), DeviceError> {
        out.clear();
        let (core, dtype) = (&self.core, self.core.dtype);
        let [row, stride] = [x.width, x.stride].map(|numbers| numbers * dtype.bytes());
        // Rows may have gaps, and begin at addresses where no queued copy may begin. So they are copied with the gaps.
        let len = x.rows * stride;
        let bytes = self.outbox.receive(&core.context, &core.stream, x.memory.at(0), len)?;
        if core.timing_only {
            out.resize(x.rows * x.width, 0.0);
        } else {
            bytes.chunks_exact(stride.max(1)).for_each(|bytes| decode(&bytes[..row], dtype, out));
        }
        Ok(())
    }

    fn upload(&mut self, rows: &[f32], out: &mut Activation) -> Result<(), DeviceError> {
        let dtype = self.core.dtype;
        out.set_rows(rows.len() / out.width, out.width);
        // Queued work may still read this memory.
        self.core.stream.synchronize()?;
        let Some([keys, values, _]) = out.parts else { return out.memory.write(0, &encode(rows, dtype)) };
        let [q, k, v] = self.layout.split();
        for (part, offset) in [(q, 0), (k, keys), (v, values)] {
            let picked: Vec<f32> = rows
                .chunks_exact(out.width)
                .flat_map(|row| part.iter().map(|from| from.map_or(0.0, |from| row[from])))
                .collect();
            out.memory.write(offset, &encode(&picked, dtype))?;
        }
        Ok(())
    }
}
