//! ChatGLM2's operators on the CPU: vector kernels chosen at run time, a thread pool, weights packed in panels.
//!
//! Activations are stored in fp32. Each number is rounded to the device's type by the operator that produced it.
//! Weights and KV cache are stored in that type, or as integers. Threads split the columns of a product and the heads
//! of attention. If there are few heads, they also split a long context into runs, which are added in order. Results
//! therefore do not depend on the number of threads.
//!
//! There are two families of kernels. The vector kernels (portable, NEON, AVX2, AVX-512) all give the same bits. On
//! machines with AMX, bf16 and fp16 products, both with weights and in attention, use AMX tiles, which have their own
//! order of summation. A twin in plain Rust (`amx-portable`) gives the same bits on any machine. Products of integers
//! with integers (`int8`) give the same bits everywhere. With an int8 cache, attention uses the tiles in the tile
//! family too. In fp32 everything uses the vector kernels.
//!
//! This crate holds the device ([`Cpu`]), its group of ranks ([`CpuGroup`]), the arithmetic of its memory ([`CpuMemory`]),
//! and the measurement of the machine's limits ([`measure_limits`], [`Gauge`]). It may use [`glmbench_device`] and no other
//! crate of the workspace. It prints nothing.

mod amx;
mod attention;
mod buffer;
mod gemm;
mod group;
mod instruction_set;
mod int8;
mod kernels;
mod kv;
mod limits;
mod linear;
mod matrix;
mod memory;
mod pool;
mod scratch;
mod simd;
#[cfg(target_arch = "aarch64")]
mod simd_neon;
#[cfg(target_arch = "x86_64")]
mod simd_x86;
mod softmax;
mod tiles;

use std::sync::{Mutex, PoisonError};

use glmbench_device::group::Communicator;
use glmbench_device::rotary::RotaryTable;
use glmbench_device::{
    AttentionShape, Device, DeviceError, DeviceInfo, HostTensor, Inputs, KvShape, LinearWeight, Precision,
    Role, SequenceView,
};

use self::attention::{Attention, Workspace};
use self::buffer::Buffer;
use self::int8::{Int8Kernels, Int8Linear};
use self::kernels::{Kernels, PANEL};
use self::kv::KvCache;
use self::linear::{Epilogue, Linear, padded_vector};
use self::matrix::Matrix;
use self::scratch::Scratch;

pub use self::group::CpuGroup;
pub use self::instruction_set::InstructionSet;
pub use self::limits::{
    Bandwidth, Gauge, MachineLimits, Operands, Rate, Spot, Unit, UnitPeak, measure_limits,
};
pub use self::memory::CpuMemory;
pub use self::pool::Pool;

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

/// The CPU device.
pub struct Cpu {
    options: CpuOptions,
    kernels: Kernels,
    int8: Int8Kernels,
    pool: Mutex<Pool>,
    scratch: Mutex<Scratch>,
    workspace: Workspace,
    /// Facts for [`DeviceInfo`] beyond the options.
    details: Vec<(String, String)>,
    /// The handle to the tensor-parallel group, if the device is in one.
    communicator: Option<Communicator>,
}

/// Returns the number of logical cores that this process may use.
pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// A weight matrix, plain or quantised.
#[derive(Debug)]
pub enum Weight {
    /// In the device's type.
    Plain(Linear),
    /// In int8.
    Int8(Int8Linear),
}

impl Weight {
    /// Returns output width and input width.
    fn shape(&self) -> (usize, usize) {
        match self {
            Self::Plain(linear) => (linear.n, linear.k),
            Self::Int8(linear) => (linear.n, linear.k),
        }
    }
}

/// The embedding table, in the device's type.
#[derive(Debug)]
pub struct Table {
    data: Buffer<u8>,
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
        let set = options.instruction_set.unwrap_or_else(InstructionSet::best);
        let kernels = set.kernels(options.precision.dtype).ok_or_else(|| DeviceError::Unsupported {
            device: "cpu",
            problem: format!(
                "this machine has no {} kernels, the best it has is {}",
                set.name(),
                InstructionSet::best().name()
            ),
        })?;
        let int8 = Int8Kernels::of(set);
        let pool = Pool::on_cores(options.threads.max(1), cores);
        let workspace = Workspace::new(&options, pool.threads(), &kernels, int8)?;
        let scratch = Mutex::new(Scratch::new(pool.threads())?);
        let details = if options.precision.is_plain() {
            Vec::new()
        } else {
            vec![("integer kernels".to_owned(), int8.name.to_owned())]
        };
        Ok(Self {
            options,
            kernels,
            int8,
            pool: Mutex::new(pool),
            scratch,
            workspace,
            details,
            communicator: None,
        })
    }

    fn pool(&mut self) -> &mut Pool {
        self.pool.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether products with `weight` support [`Epilogue::SwiGlu`].
    fn ends_with_swiglu(&self, weight: &Weight) -> bool {
        self.kernels.tiles.is_some() || matches!(weight, Weight::Int8(_))
    }

    /// Computes `out = epilogue(x * weight^T + bias)`.
    fn product(&mut self, x: &Matrix, weight: &Weight, epilogue: Epilogue, out: &mut Matrix) {
        out.set_rows(x.rows);
        let (x, out) = (x.view(), &mut out.view_mut());
        let Self { options, kernels, int8, pool, scratch, .. } = self;
        let pool = pool.get_mut().unwrap_or_else(PoisonError::into_inner);
        let scratch = scratch.get_mut().unwrap_or_else(PoisonError::into_inner);
        match (weight, &kernels.tiles) {
            (Weight::Plain(linear), None) => linear.apply(x, out, options.precision.dtype, kernels, pool),
            (Weight::Plain(linear), Some(tiles)) => {
                tiles::apply(linear, x, epilogue, out, (tiles, kernels), (scratch, pool));
            }
            (Weight::Int8(linear), _) => {
                linear.apply(x, epilogue, out, (kernels, int8), (scratch, pool));
            }
        }
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
            DeviceInfo::plain("cpu", self.kernels.name, self.workspace.threads(), self.options.precision);
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
        let dtype = self.options.precision.dtype;
        match weight {
            LinearWeight::Dense(weight) => {
                if let Some(tiles) = &self.kernels.tiles {
                    scratch.reserve(tiles::row_bytes(weight.width, tiles))?;
                }
                Linear::pack(weight, bias, dtype, &self.kernels, &mut pool).map(Weight::Plain)
            }
            LinearWeight::Int8(weight) if weight.inputs == Inputs::Int8PerToken => {
                scratch.reserve(int8::row_bytes(weight.width))?;
                Int8Linear::pack(weight, bias, dtype, &mut pool).map(Weight::Int8)
            }
            LinearWeight::Int8(_) | LinearWeight::Int4(_) => {
                Err(weight.refused("cpu", "fp16, bf16, fp32 or int8 with inputs quantised per token"))
            }
        }
    }

    fn upload_vector(&self, values: HostTensor<'_>) -> Result<Buffer<f32>, DeviceError> {
        padded_vector(values, self.options.precision.dtype)
    }

    fn upload_table(&self, table: HostTensor<'_>) -> Result<Table, DeviceError> {
        let stride = table.width * self.options.precision.dtype.bytes();
        let mut data = Buffer::zeroed(table.rows * stride, "the embedding table")?;
        if table.dtype == self.options.precision.dtype {
            data.copy_from_slice(table.data);
            return Ok(Table { data, width: table.width });
        }
        let mut row = vec![0.0; table.width];
        for (i, out) in data.chunks_exact_mut(stride).enumerate() {
            table.row_f32(i, &mut row);
            // SAFETY: `width` numbers on both sides.
            unsafe { (self.kernels.narrow)(row.as_ptr(), out.as_mut_ptr(), table.width) };
        }
        Ok(Table { data, width: table.width })
    }

    fn upload_rotary(&self, table: &RotaryTable) -> Result<RotaryTable, DeviceError> {
        Ok(table.clone())
    }

    fn kv_cache(&self, shape: KvShape) -> Result<KvCache, DeviceError> {
        KvCache::new(shape, self.options.precision, &self.kernels, self.int8)
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
        let (kernels, stride) = (self.kernels, out.stride);
        let shared = out.data.shared();
        self.rows(x.rows, x.width, &|i| {
            // SAFETY: each row is written by one thread; rows are padded to sixteen numbers.
            unsafe {
                let out = shared.range(i * stride..(i + 1) * stride);
                (kernels.rms_norm)(x.row(i).as_ptr(), weight.as_ptr(), epsilon, x.width, out.as_mut_ptr());
            }
        });
        Ok(())
    }

    fn linear(&mut self, x: &Matrix, weight: &Weight, out: &mut Matrix) -> Result<(), DeviceError> {
        assert!((out.width, x.width) == weight.shape(), "invariant: shapes agree");
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
        let (kernels, stride) = (self.kernels, qkv.stride);
        let shared = qkv.data.shared();
        self.rows(positions.len(), stride, &|i| {
            // SAFETY: each row is written by one thread.
            let row = unsafe { shared.range(i * stride..(i + 1) * stride) };
            let at = positions[i] as usize * table.pairs;
            let (cos, sin) = (&table.cos[at..at + table.pairs], &table.sin[at..at + table.pairs]);
            for head in row.chunks_exact_mut(shape.channels).take(shape.heads + shape.kv_heads) {
                // SAFETY: a head holds twice as many pairs as are rotated.
                unsafe { (kernels.rotate)(head.as_mut_ptr(), cos.as_ptr(), sin.as_ptr(), table.pairs) };
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
        let writer = cache.writer(&self.kernels);
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
            kernels: &self.kernels,
            out: &shared,
            out_stride,
        };
        let pool = self.pool.get_mut().unwrap_or_else(PoisonError::into_inner);
        attention.run(&mut self.workspace, pool);
        Ok(())
    }

    fn add(&mut self, x: &mut Matrix, y: &Matrix) -> Result<(), DeviceError> {
        assert!(x.stride == y.stride && x.rows == y.rows, "invariant: shapes agree");
        let (kernels, stride, rows) = (self.kernels, x.stride, x.rows);
        let shared = x.data.shared();
        self.rows(rows, stride, &|i| {
            // SAFETY: each row is written by one thread; rows are padded to sixteen numbers.
            unsafe {
                let x = shared.range(i * stride..(i + 1) * stride);
                (kernels.add)(x.as_mut_ptr(), y.data[i * stride..].as_ptr(), stride);
            }
        });
        Ok(())
    }

    fn swiglu(&mut self, h: &Matrix, out: &mut Matrix) -> Result<(), DeviceError> {
        out.set_rows(h.rows);
        let (kernels, stride, width) = (self.kernels, out.stride, out.width);
        let shared = out.data.shared();
        self.rows(h.rows, h.width, &|i| {
            let (gate, up) = h.row(i).split_at(width);
            // SAFETY: each row is written by one thread; reading past a row's end stays inside the padded buffer.
            unsafe {
                let out = shared.range(i * stride..(i + 1) * stride);
                (kernels.swiglu)(gate.as_ptr(), up.as_ptr(), width, out.as_mut_ptr());
            }
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
        assert!((2 * out.width, x.width) == weight.shape(), "invariant: shapes agree");
        // If both halves are whole panels, SwiGLU runs while they are still in cache.
        if out.width.is_multiple_of(PANEL) && self.ends_with_swiglu(weight) {
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
        let Some(communicator) = &mut self.communicator else { return Ok(()) };
        let (kernels, stride, rows) = (self.kernels, x.stride, x.rows);
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
            // SAFETY: both sides have the same number of numbers, a multiple of sixteen.
            unsafe { (kernels.add)(out.as_mut_ptr(), last.as_ptr(), out.len()) };
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
