//! ChatGLM2's operators on the CPU: vector kernels chosen at run time, a thread pool, weights packed in panels.
//!
//! Activations are stored in fp32. Each number is rounded to the device's type by the operator that produced it.
//! Weights and KV cache are stored in that type, or as integers. Threads split the columns of a product and the heads
//! of attention. If there are few heads, they also split a long context into runs, which are added in order. Results
//! therefore do not depend on the number of threads.
//!
//! There are three families of kernels, each with its own order of summation. The vector kernels (portable, NEON, AVX2,
//! AVX-512) all give the same bits. On machines with AMX, bf16 and fp16 products, both with weights and in attention,
//! use AMX tiles, and for few rows vectors with the same bits. Where AVX-512 BF16 is faster than the fp32 unit, bf16
//! products use its pairs ([`InstructionSet::best_for`]). The reference kernels of both in plain Rust (`amx-portable`,
//! `avx512-bf16-portable`) give the same bits on any machine. Products of integers with integers (`int8`) give the same
//! bits everywhere. With an int8 cache, attention
//! uses the tiles in the tile family too. In fp32 everything uses the vector kernels.
//!
//! This crate holds the device ([`Cpu`]), its group of ranks ([`CpuGroup`]), and the arithmetic of its memory ([`CpuMemory`]).
//! It also measures the machine's limits ([`measure_limits`], [`LimitsProbe`]). It may use [`glmbench_device`] and no
//! other crate of the workspace. It prints nothing.
//!
//! Each of its rooms uses only those before it. `buffer` has the memory of the device, `packs` packed weights that outlive the
//! process, `pool` the threads, `simd` instruction sets and vectors. `elementwise` has kernels over rows, `pack` layouts of weights
//! and rows, `product` products. `attention` has attention and the KV cache, `limits` the machine's measured limits, and `kernels` the registry, which selects kernels. A kernel is
//! a safe function: only a machine that has an instruction set can make the value that the kernel needs (`simd`).
//! `unsafe` remains where threads share a buffer, in the inner loops of products, and around single instructions.

mod attention;
mod buffer;
mod elementwise;
#[cfg(test)]
mod families;
mod group;
mod kernels;
mod limits;
mod memory;
mod pack;
mod packs;
mod pool;
mod product;
mod simd;

use std::sync::{Mutex, PoisonError};

use glmbench_device::group::Communicator;
use glmbench_device::rotary::RotaryTable;
use glmbench_device::{
    AttentionShape, Device, DeviceError, DeviceInfo, DeviceKind, HostTensor, KvChannels, KvForm, KvShape,
    LinearWeight, Precision, Role, SequenceView,
};

use self::attention::{Attention, KvCache, Workspace};
use self::buffer::Buffer;
use self::elementwise::{Add, RmsNorm, Rotate, SwiGlu};
use self::kernels::Kernels;
use self::pack::{Matrix, Narrow, PANEL, padded_vector};
use self::packs::{PACK_LAYOUT, Packed};
use self::product::{Epilogue, PackedWeight, Scratch};
use self::simd::Vectors;

pub use self::group::CpuGroup;
pub use self::limits::{
    Bandwidth, LimitsProbe, LimitsSample, MachineLimits, Operands, Peak, Rate, Unit, UnitPeak, measure_limits,
};
pub use self::memory::CpuMemory;
pub use self::packs::{KeepPart, Packs, SharedBytes};
pub use self::pool::Pool;
pub use self::simd::{Family, InstructionSet};

/// The device's name.
const NAME: &str = DeviceKind::Cpu.name();

/// Configuration of a [`Cpu`].
#[derive(Debug, Clone, Copy)]
pub struct CpuOptions {
    /// Types of weights, activations and KV cache.
    pub precision: Precision,
    /// Number of compute threads, including the caller's.
    pub threads: usize,
    /// Kernels to use; `None` selects the best of this machine.
    pub instruction_set: Option<InstructionSet>,
    /// Longest context of a sequence, including the prefix.
    pub max_context: usize,
    /// Attention shape of the model.
    pub attention: AttentionShape,
}

impl CpuOptions {
    /// Returns the options of a caller that asks for nothing further: all cores, the best kernels.
    pub fn plain(precision: Precision, max_context: usize, attention: AttentionShape) -> Self {
        Self { precision, threads: available_threads(), instruction_set: None, max_context, attention }
    }

    fn instruction_set(&self) -> InstructionSet {
        self.instruction_set.unwrap_or_else(|| InstructionSet::best_for(self.precision.dtype))
    }

    /// Returns the name of the kernels, and all that decides on the bytes of a packed weight besides the weight itself:
    /// version, kernels and types. `None` if the machine does not have the kernels.
    pub fn pack_layout(&self) -> Option<(&'static str, String)> {
        let (set, Precision { dtype, weights, .. }) = (self.instruction_set(), self.precision);
        let int8 = Kernels::detect(set, dtype)?.int8_name();
        Some((set.name(), format!("{PACK_LAYOUT} {} {int8} {dtype} {weights:?}", set.name())))
    }
}

/// The CPU device.
pub struct Cpu {
    options: CpuOptions,
    kernels: Kernels,
    pool: Mutex<Pool>,
    scratch: Mutex<Scratch>,
    workspace: Workspace,
    packs: Mutex<Packs>,
    /// Facts for [`DeviceInfo`] beyond the options.
    details: Vec<(String, String)>,
    /// The handle to the tensor-parallel group, if the device is in one.
    communicator: Option<Communicator>,
}

/// Returns the number of logical cores that this process may use.
pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// A packed weight matrix, with the kernels that multiply it.
#[derive(Debug)]
pub struct Weight(Box<dyn PackedWeight>);

/// The embedding table, in the device's type.
#[derive(Debug)]
pub struct Table {
    data: Packed<u8>,
    width: usize,
}

impl Cpu {
    /// Starts the threads and allocates the workspaces.
    pub fn new(options: CpuOptions) -> Result<Self, DeviceError> {
        Self::on_cores(options, &[])
    }

    /// Like [`Cpu::new`], but binds each thread, including the caller's, to one of `cores` if there is a core per
    /// thread.
    fn on_cores(options: CpuOptions, cores: &[usize]) -> Result<Self, DeviceError> {
        let set = options.instruction_set();
        let kernels =
            Kernels::detect(set, options.precision.dtype).ok_or_else(|| DeviceError::Unsupported {
                device: NAME,
                problem: format!(
                    "this machine has no {} kernels, the best it has is {}",
                    set.name(),
                    InstructionSet::best_for(options.precision.dtype).name()
                ),
            })?;
        let pool = Pool::on_cores(options.threads.max(1), cores);
        let cache = kernels.cache(options.precision.kv);
        let CpuOptions { attention, max_context, .. } = options;
        let workspace = Workspace::new(attention, max_context, pool.threads(), cache, kernels.vectors())?;
        let scratch = Mutex::new(Scratch::new(pool.threads())?);
        let details = if options.precision.is_plain() {
            Vec::new()
        } else {
            vec![("integer kernels".to_owned(), kernels.int8_name().to_owned())]
        };
        Ok(Self {
            options,
            kernels,
            pool: Mutex::new(pool),
            scratch,
            workspace,
            packs: Mutex::default(),
            details,
            communicator: None,
        })
    }

    /// Returns the device with packed weights that outlive the process.
    #[must_use]
    pub fn with_packs(self, packs: Packs) -> Self {
        Self { packs: Mutex::new(packs), ..self }
    }

    fn pool(&mut self) -> &mut Pool {
        self.pool.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    fn vectors(&self) -> Vectors {
        self.kernels.vectors()
    }

    /// Computes `out = epilogue(x * weight^T + bias)`.
    fn product(&mut self, x: &Matrix, weight: &Weight, epilogue: Epilogue, out: &mut Matrix) {
        out.set_rows(x.rows);
        let pool = self.pool.get_mut().unwrap_or_else(PoisonError::into_inner);
        let scratch = self.scratch.get_mut().unwrap_or_else(PoisonError::into_inner);
        weight.0.multiply(x.view(), epilogue, &mut out.view_mut(), scratch, pool);
    }

    /// Converts the embedding table to the type of the device.
    fn fill_table(&self, table: HostTensor<'_>, data: &mut Buffer<u8>, pool: &mut Pool) {
        let (dtype, vectors) = (self.options.precision.dtype, self.vectors());
        let stride = table.width * dtype.bytes();
        let shared = data.shared();
        pool.split(table.rows, table.rows * table.width, &|rows| {
            let bytes = rows.start * stride..rows.end * stride;
            // SAFETY: every row is written by one thread only.
            let out = unsafe { shared.range(bytes.clone()) };
            if table.dtype == dtype {
                return out.copy_from_slice(&table.data[bytes]);
            }
            let mut row = vec![0.0; table.width];
            for (i, out) in rows.zip(out.chunks_exact_mut(stride)) {
                table.row_f32(i, &mut row);
                vectors.run(Narrow { from: &row, to: out });
            }
        });
    }

    /// Runs `task` on every row of `width` numbers, with the rows split among the threads.
    fn rows(&mut self, rows: usize, width: usize, task: &(dyn Fn(usize) + Sync)) {
        self.pool().split(rows, rows * width, &|range| range.for_each(task));
    }
}

impl Device for Cpu {
    type Activation = Matrix;
    type Linear = Weight;
    type Vector = Buffer<f32>;
    type Table = Table;
    type Rotary = RotaryTable;
    type KvCache = KvCache;

    fn info(&self) -> DeviceInfo {
        let plain =
            DeviceInfo::plain(NAME, self.kernels.name(), self.workspace.threads(), self.options.precision);
        DeviceInfo { details: self.details.clone(), ..plain }
    }

    fn activation(&self, max_rows: usize, width: usize) -> Result<Matrix, DeviceError> {
        Matrix::new(max_rows, width)
    }

    fn upload_linear(
        &self,
        _role: Role,
        weight: LinearWeight<'_>,
        bias: Option<HostTensor<'_>>,
    ) -> Result<Weight, DeviceError> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(kernels) = self.kernels.weights(weight.form()) else {
            return Err(weight.refused(NAME, self.kernels.forms()));
        };
        let group = weight.storage(self.options.precision.dtype).group(weight.width());
        if let Some(row_bytes) = kernels.row_bytes(weight.width(), group) {
            scratch.reserve(row_bytes)?;
        }
        let mut packs = self.packs.lock().unwrap_or_else(PoisonError::into_inner);
        kernels.pack(weight, bias, (&mut packs, &mut pool)).map(Weight)
    }

    fn upload_vector(&self, values: HostTensor<'_>) -> Result<Buffer<f32>, DeviceError> {
        padded_vector(values, self.options.precision.dtype)
    }

    fn upload_table(&self, table: HostTensor<'_>) -> Result<Table, DeviceError> {
        let stride = table.width * self.options.precision.dtype.bytes();
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let mut packs = self.packs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut data = packs.take(table.rows * stride, "the embedding table")?;
        if let Some(data) = data.fresh() {
            self.fill_table(table, data, &mut pool);
        }
        packs.keep(&data);
        Ok(Table { data, width: table.width })
    }

    fn upload_rotary(&self, table: &RotaryTable) -> Result<RotaryTable, DeviceError> {
        Ok(table.clone())
    }

    fn kv_cache(&self, shape: KvShape) -> Result<KvCache, DeviceError> {
        let precision = self.options.precision;
        if precision.kv == KvForm::C8 {
            return Err(DeviceError::Unsupported {
                device: NAME,
                problem: format!(
                    "a KV cache in {} has the scales of a checkpoint, and this one has none; use --kv {}",
                    KvForm::C8.name(),
                    KvForm::Auto.name()
                ),
            });
        }
        KvCache::new(shape, precision, &self.kernels.cache(precision.kv))
    }

    fn kv_cache_of_channels(&self, shape: KvShape, channels: &KvChannels) -> Result<KvCache, DeviceError> {
        channels.check(NAME, shape)?;
        let precision = self.options.precision;
        if precision.kv != KvForm::C8 {
            return Err(channels.refused(NAME));
        }
        KvCache::of_channels(shape, precision, &self.kernels.cache(precision.kv), channels)
    }

    fn embed(&mut self, table: &Table, ids: &[u32], out: &mut Matrix) -> Result<(), DeviceError> {
        out.set_rows(ids.len());
        let dtype = self.options.precision.dtype;
        let stride = table.width * dtype.bytes();
        for (i, &id) in ids.iter().enumerate() {
            let stored = &table.data[id as usize * stride..(id as usize + 1) * stride];
            HostTensor { dtype, rows: 1, width: table.width, data: stored }.row_f32(0, out.row_mut(i));
        }
        Ok(())
    }

    fn rms_norm(
        &mut self,
        x: &Matrix,
        weight: &Buffer<f32>,
        epsilon: f32,
        out: &mut Matrix,
    ) -> Result<(), DeviceError> {
        out.set_rows(x.rows);
        let (vectors, stride) = (self.vectors(), out.stride);
        let shared = out.data.shared();
        self.rows(x.rows, x.width, &|i| {
            // SAFETY: each row is written by one thread.
            let out = unsafe { shared.range(i * stride..(i + 1) * stride) };
            vectors.run(RmsNorm { x: x.padded_row(i), n: x.width, weight, epsilon, out });
        });
        Ok(())
    }

    fn linear(&mut self, x: &Matrix, weight: &Weight, out: &mut Matrix) -> Result<(), DeviceError> {
        assert!((out.width, x.width) == weight.0.shape(), "invariant: shapes agree");
        self.product(x, weight, Epilogue::Bias, out);
        Ok(())
    }

    fn rotary(
        &mut self,
        qkv: &mut Matrix,
        table: &RotaryTable,
        positions: &[u32],
        shape: AttentionShape,
    ) -> Result<(), DeviceError> {
        assert!(positions.len() == qkv.rows, "invariant: a position a row");
        let (vectors, stride) = (self.vectors(), qkv.stride);
        let shared = qkv.data.shared();
        self.rows(positions.len(), stride, &|i| {
            // SAFETY: each row is written by one thread.
            let row = unsafe { shared.range(i * stride..(i + 1) * stride) };
            let at = positions[i] as usize * table.pairs;
            let (cos, sin) = (&table.cos[at..at + table.pairs], &table.sin[at..at + table.pairs]);
            for head in row.chunks_exact_mut(shape.channels).take(shape.heads + shape.kv_heads) {
                vectors.run(Rotate { head, cos, sin });
            }
        });
        Ok(())
    }

    fn write_kv(
        &mut self,
        qkv: &Matrix,
        cache: &mut KvCache,
        layer: usize,
        sequences: &[SequenceView<'_>],
        shape: AttentionShape,
    ) -> Result<(), DeviceError> {
        let channels = shape.channels;
        let writer = cache.writer(self.vectors());
        let write_head = |head: usize| {
            let key_at = (shape.heads + head) * channels;
            let value_at = key_at + shape.kv_heads * channels;
            for sequence in sequences {
                for (i, row) in sequence.rows.clone().map(|row| qkv.row(row)).enumerate() {
                    let (key, value) = (&row[key_at..key_at + channels], &row[value_at..value_at + channels]);
                    let slot = sequence.slot(sequence.visible(i) - 1);
                    // SAFETY: a head is written by one thread.
                    unsafe { writer.write(layer, slot, head, key, value) };
                }
            }
        };
        let numbers = qkv.rows * 2 * shape.kv_heads * channels;
        let pool = self.pool.get_mut().unwrap_or_else(PoisonError::into_inner);
        pool.split(shape.kv_heads, numbers, &|heads| heads.for_each(write_head));
        Ok(())
    }

    fn copy_kv_block(
        &mut self,
        cache: &mut KvCache,
        from: u32,
        to: u32,
        tokens: usize,
    ) -> Result<(), DeviceError> {
        cache.copy_block(from as usize, to as usize, tokens);
        Ok(())
    }

    fn attention(
        &mut self,
        qkv: &Matrix,
        cache: &KvCache,
        layer: usize,
        sequences: &[SequenceView<'_>],
        shape: AttentionShape,
        out: &mut Matrix,
    ) -> Result<(), DeviceError> {
        out.set_rows(qkv.rows);
        let (out_stride, shared) = (out.stride, out.data.shared());
        let attention = Attention {
            qkv: qkv.view(),
            cache,
            layer,
            sequences,
            shape,
            vectors: self.vectors(),
            out: &shared,
            out_stride,
        };
        let pool = self.pool.get_mut().unwrap_or_else(PoisonError::into_inner);
        attention.run(&mut self.workspace, pool);
        Ok(())
    }

    fn add(&mut self, x: &mut Matrix, y: &Matrix) -> Result<(), DeviceError> {
        assert!(x.stride == y.stride && x.rows == y.rows, "invariant: shapes agree");
        let (vectors, stride, rows) = (self.vectors(), x.stride, x.rows);
        let shared = x.data.shared();
        self.rows(rows, stride, &|i| {
            // SAFETY: each row is written by one thread.
            let x = unsafe { shared.range(i * stride..(i + 1) * stride) };
            vectors.run(Add { x, y: &y.data[i * stride..(i + 1) * stride] });
        });
        Ok(())
    }

    fn swiglu(&mut self, h: &Matrix, out: &mut Matrix) -> Result<(), DeviceError> {
        out.set_rows(h.rows);
        let (vectors, stride, width) = (self.vectors(), out.stride, out.width);
        let shared = out.data.shared();
        self.rows(h.rows, h.width, &|i| {
            let (gate, up) = h.row(i).split_at(width);
            // SAFETY: each row is written by one thread.
            let out = unsafe { shared.range(i * stride..(i + 1) * stride) };
            vectors.run(SwiGlu { gate, up, out, streamed: false });
        });
        Ok(())
    }

    fn gate_up(
        &mut self,
        x: &Matrix,
        weight: &Weight,
        h: &mut Matrix,
        out: &mut Matrix,
    ) -> Result<(), DeviceError> {
        assert!((2 * out.width, x.width) == weight.0.shape(), "invariant: shapes agree");
        // If both halves are whole panels, SwiGLU runs while they are still in cache.
        if out.width.is_multiple_of(PANEL) && weight.0.ends_with_swiglu() {
            self.product(x, weight, Epilogue::SwiGlu, out);
            return Ok(());
        }
        self.linear(x, weight, h)?;
        self.swiglu(h, out)
    }

    fn gather(&mut self, x: &Matrix, rows: &[usize], out: &mut Matrix) -> Result<(), DeviceError> {
        out.set_rows(rows.len());
        for (i, &row) in rows.iter().enumerate() {
            out.row_mut(i).copy_from_slice(x.row(row));
        }
        Ok(())
    }

    fn all_reduce(&mut self, x: &mut Matrix) -> Result<(), DeviceError> {
        let vectors = self.vectors();
        let Some(communicator) = &mut self.communicator else { return Ok(()) };
        let (stride, rows) = (x.stride, x.rows);
        let parts = communicator.exchange(&x.data[..rows * stride])?;
        let pool = self.pool.get_mut().unwrap_or_else(PoisonError::into_inner);
        let (shared, tp) = (x.data.shared(), parts.tp());
        pool.split(rows, rows * stride * tp, &|range| {
            let numbers = range.start * stride..range.end * stride;
            // SAFETY: each row is written by one thread.
            let out = unsafe { shared.range(numbers.clone()) };
            out.copy_from_slice(&parts.of(0)[numbers.clone()]);
            for rank in 1..tp - 1 {
                out.iter_mut().zip(&parts.of(rank)[numbers.clone()]).for_each(|(sum, part)| *sum += part);
            }
            // The last part is added by the kernel that also rounds.
            let last = &parts.of(tp - 1)[numbers];
            vectors.run(Add { x: out, y: last });
        });
        Ok(())
    }

    fn download(&mut self, x: &Matrix, out: &mut Vec<f32>) -> Result<(), DeviceError> {
        out.clear();
        for i in 0..x.rows {
            out.extend_from_slice(x.row(i));
        }
        Ok(())
    }

    fn upload(&mut self, rows: &[f32], out: &mut Matrix) -> Result<(), DeviceError> {
        out.set_rows(rows.len() / out.width);
        for (i, row) in rows.chunks_exact(out.width).enumerate() {
            let dtype = self.options.precision.dtype;
            for (o, v) in out.row_mut(i).iter_mut().zip(row) {
                *o = dtype.round(*v);
            }
        }
        Ok(())
    }
}
