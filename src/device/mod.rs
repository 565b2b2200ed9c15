//! The operators of ChatGLM2 on tensors that a device owns.
//!
//! The forward pass ([`crate::engine::model`]) is written once over [`Device`]; a device supplies the operators.
//! Activations are matrices `[rows, width]`, a row a token. Every operator rounds its result to the device's
//! [`DType`] and accumulates in fp32, as NPU and GPU do; a row's result never depends on the other rows.

pub mod affinity;
pub mod ascend;
pub mod cpu;
pub mod group;
mod precision;
pub mod reference;
pub mod rotary;
pub mod sensors;
pub mod timed;

use std::ops::Range;

use half::slice::HalfFloatSliceExt;

pub use self::precision::{KvForm, Precision, WeightForm};

/// The type of weights, activations and KV cache. Accumulation is fp32 in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE binary32.
    Fp32,
    /// IEEE binary16.
    Fp16,
    /// bfloat16.
    Bf16,
}

impl DType {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Self::Fp32 => 4,
            Self::Fp16 | Self::Bf16 => 2,
        }
    }

    /// The word of the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Bf16 => "bf16",
        }
    }

    /// `x` as this type can hold it (round to nearest, ties to even).
    pub fn round(self, x: f32) -> f32 {
        match self {
            Self::Fp32 => x,
            Self::Fp16 => half::f16::from_f32(x).to_f32(),
            Self::Bf16 => half::bf16::from_f32(x).to_f32(),
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for DType {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "fp32" => Ok(Self::Fp32),
            "fp16" => Ok(Self::Fp16),
            "bf16" => Ok(Self::Bf16),
            _ => Err(format!("dtype \"{word}\" is unknown, expected fp32, fp16 or bf16")),
        }
    }
}

/// Why a device could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Memory ran out.
    #[error("device {device}: {wanted_bytes} bytes for {what} cannot be had")]
    OutOfMemory {
        /// Which device.
        device: &'static str,
        /// What the memory was for.
        what: String,
        /// How much was asked for.
        wanted_bytes: usize,
    },
    /// The device cannot run this configuration.
    #[error("device {device}: {problem}")]
    Unsupported {
        /// Which device.
        device: &'static str,
        /// What was asked for, and what is possible.
        problem: String,
    },
    /// What was set for the device cannot be: a mistake of whoever set it, nothing is the matter with the device.
    #[error("device {device}: {problem}")]
    Setting {
        /// Which device.
        device: &'static str,
        /// Where the setting stands, what was found, what was expected.
        problem: String,
    },
    /// A call to the device failed; the device may still work.
    #[error("device {device}: {api} failed with {code} ({name}): {message}")]
    Failed {
        /// Which device.
        device: &'static str,
        /// The function.
        api: String,
        /// What it returned.
        code: i32,
        /// The code's documented name.
        name: String,
        /// What the device's library says about it.
        message: String,
    },
    /// The device is gone: nothing more can be had from it in this process.
    #[error("device {device} is lost: {message}; what was recorded stays, and the run can be resumed")]
    Lost {
        /// Which device.
        device: &'static str,
        /// What happened.
        message: String,
    },
}

/// A tensor in host memory on its way to a device: row-major, little-endian.
#[derive(Debug, Clone, Copy)]
pub struct HostTensor<'a> {
    /// Type of the stored numbers.
    pub dtype: DType,
    /// Rows (1 for a vector).
    pub rows: usize,
    /// Numbers in a row.
    pub width: usize,
    /// `rows * width` numbers.
    pub data: &'a [u8],
}

impl HostTensor<'_> {
    /// Row `row` as fp32 (exact from every type).
    pub fn row_f32(&self, row: usize, out: &mut [f32]) {
        let stride = self.width * self.dtype.bytes();
        let bytes = &self.data[row * stride..(row + 1) * stride];
        match self.dtype {
            DType::Fp32 => {
                for (o, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *o = f32::from_le_bytes(*b);
                }
            }
            DType::Fp16 => {
                // Some at a time: a number alone costs more to ask for than to convert.
                const SOME: usize = 64;
                let mut numbers = [half::f16::ZERO; SOME];
                for (out, bytes) in out.chunks_mut(SOME).zip(bytes.as_chunks::<2>().0.chunks(SOME)) {
                    let numbers = &mut numbers[..bytes.len()];
                    numbers.iter_mut().zip(bytes).for_each(|(n, b)| *n = half::f16::from_le_bytes(*b));
                    numbers.convert_to_f32_slice(&mut out[..bytes.len()]);
                }
            }
            DType::Bf16 => {
                for (o, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *o = half::bf16::from_le_bytes(*b).to_f32();
                }
            }
        }
    }

    /// All numbers as fp32.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows * self.width];
        for (row, chunk) in out.chunks_exact_mut(self.width).enumerate() {
            self.row_f32(row, chunk);
        }
        out
    }
}

/// Tokens in one block of the paged KV cache.
pub const KV_BLOCK_TOKENS: usize = 128;

/// Shape of a KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Transformer layers.
    pub layers: usize,
    /// KV heads a layer.
    pub kv_heads: usize,
    /// Channels a head.
    pub channels: usize,
    /// Blocks of [`KV_BLOCK_TOKENS`] tokens, shared by all sequences.
    pub blocks: usize,
}

/// Shape of the attention operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Query heads; the first `heads / kv_heads` of them read KV head 0, and so on.
    pub heads: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Channels a head.
    pub channels: usize,
}

/// One sequence of a ragged batch, for one step.
#[derive(Debug, Clone)]
pub struct SequenceView<'a> {
    /// Its rows in the activations.
    pub rows: Range<usize>,
    /// Tokens in the cache once this step's are written (prefix included); the last row sees them all,
    /// the one before it one fewer, and so on.
    pub context: usize,
    /// Its blocks: token `t` of the sequence lies in block `blocks[t / 128]`, place `t % 128`.
    pub blocks: &'a [u32],
}

impl SequenceView<'_> {
    /// Tokens that the sequence's `i`-th row of this step sees, itself included.
    pub fn visible(&self, i: usize) -> usize {
        self.context - self.rows.len() + i + 1
    }

    /// Block and place in it of the sequence's token `t`.
    pub fn slot(&self, t: usize) -> (usize, usize) {
        (self.blocks[t / KV_BLOCK_TOKENS] as usize, t % KV_BLOCK_TOKENS)
    }
}

/// What a device tells of itself, for the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The word of the command line.
    pub name: String,
    /// Which kernels run, e.g. `avx2`.
    pub kernel: String,
    /// Threads that compute.
    pub threads: usize,
    /// Types of weights, activations and cache.
    pub precision: Precision,
    /// Tensor-parallel ranks.
    pub world: usize,
    /// The chip profile behind the times, where the device keeps a virtual clock.
    pub modelled_by: Option<ClockProfile>,
    /// What the device chose and found, by name: chip, library versions, the operators behind attention, KV write….
    pub details: Vec<(String, String)>,
}

impl DeviceInfo {
    /// A device of one rank that measures real time and has nothing more to tell.
    pub fn plain(name: &str, kernel: &str, threads: usize, precision: impl Into<Precision>) -> Self {
        Self {
            name: name.to_owned(),
            kernel: kernel.to_owned(),
            threads,
            precision: precision.into(),
            world: 1,
            modelled_by: None,
            details: Vec::new(),
        }
    }
}

/// The numbers that a virtual clock is kept from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockProfile {
    /// The profile's name.
    pub name: String,
    /// SHA-256 of its file, hexadecimal.
    pub sha256: String,
    /// Bytes a second between one chip and its memory, at most.
    pub memory_bytes_per_s: u64,
    /// Floating-point operations a second of one chip's fp16 matrix unit, at most.
    pub matmul_flops_per_s: u64,
}

/// The operators of ChatGLM2 in the order of the forward pass.
///
/// `Activation` is a matrix `[rows, width]` whose memory is taken once ([`Device::activation`]); operators set its
/// number of rows. Weights are laid out for the device once, when they are uploaded.
pub trait Device: Send {
    /// Rows of numbers in device memory.
    type Activation: Send;
    /// A weight matrix `[out, in]` with its optional bias, laid out for [`Device::linear`].
    type Linear: Send;
    /// A vector of numbers (norm weights).
    type Vector: Send;
    /// The embedding table.
    type Table: Send;
    /// The rotary table: cosine and sine of every position.
    type Rotary: Send;
    /// The paged KV cache of all layers.
    type KvCache: Send;

    /// What this device is.
    fn info(&self) -> DeviceInfo;

    /// Takes memory for up to `max_rows` rows of `width` numbers.
    fn activation(&self, max_rows: usize, width: usize) -> Result<Self::Activation, DeviceError>;
    /// Takes memory for up to `max_rows` rows of queries, keys and values, `[q | k | v]`. A device may keep the three apart.
    fn qkv_activation(
        &self,
        max_rows: usize,
        shape: AttentionShape,
    ) -> Result<Self::Activation, DeviceError> {
        self.activation(max_rows, (shape.heads + 2 * shape.kv_heads) * shape.channels)
    }
    /// Lays out a weight matrix `[out, in]` and its bias `[out]`.
    fn upload_linear(
        &self,
        weight: HostTensor<'_>,
        bias: Option<HostTensor<'_>>,
    ) -> Result<Self::Linear, DeviceError>;
    /// Lays out the weight of queries, keys and values, `[q | k | v]` of a model with these heads.
    fn upload_qkv(
        &self,
        weight: HostTensor<'_>,
        bias: Option<HostTensor<'_>>,
        shape: AttentionShape,
    ) -> Result<Self::Linear, DeviceError> {
        let _ = shape;
        self.upload_linear(weight, bias)
    }
    /// Lays out the weight of the feed-forward layer's two halves, `[gate | up]`, for [`Device::gate_up`].
    fn upload_gate_up(&self, weight: HostTensor<'_>) -> Result<Self::Linear, DeviceError> {
        self.upload_linear(weight, None)
    }
    /// Uploads a vector.
    fn upload_vector(&self, values: HostTensor<'_>) -> Result<Self::Vector, DeviceError>;
    /// Uploads the embedding table `[vocab, hidden]`.
    fn upload_table(&self, table: HostTensor<'_>) -> Result<Self::Table, DeviceError>;
    /// Uploads the rotary table.
    fn upload_rotary(&self, table: &rotary::RotaryTable) -> Result<Self::Rotary, DeviceError>;
    /// Takes memory for a KV cache.
    fn kv_cache(&self, shape: KvShape) -> Result<Self::KvCache, DeviceError>;

    /// `out[i] = table[ids[i]]`.
    fn embed(
        &mut self,
        table: &Self::Table,
        ids: &[u32],
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError>;
    /// `out = x / sqrt(mean(x^2) + epsilon) * weight`, all in fp32 with one rounding at the end.
    fn rms_norm(
        &mut self,
        x: &Self::Activation,
        weight: &Self::Vector,
        epsilon: f32,
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError>;
    /// `out = x * weight^T + bias`.
    fn linear(
        &mut self,
        x: &Self::Activation,
        weight: &Self::Linear,
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError>;
    /// Rotates the first half of the channels of every query and key head of `qkv = [q | k | v]`, adjacent channels
    /// being a pair, by the angle of the row's position.
    fn rotary(
        &mut self,
        qkv: &mut Self::Activation,
        table: &Self::Rotary,
        positions: &[u32],
        shape: AttentionShape,
    ) -> Result<(), DeviceError>;
    /// Writes keys and values of `qkv` into the cache at the last places of each sequence.
    fn write_kv(
        &mut self,
        qkv: &Self::Activation,
        cache: &mut Self::KvCache,
        layer: usize,
        sequences: &[SequenceView<'_>],
        shape: AttentionShape,
    ) -> Result<(), DeviceError>;
    /// Causal attention of the queries in `qkv` over the cache; softmax in fp32, scale `1 / sqrt(channels)`.
    fn attention(
        &mut self,
        qkv: &Self::Activation,
        cache: &Self::KvCache,
        layer: usize,
        sequences: &[SequenceView<'_>],
        shape: AttentionShape,
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError>;
    /// `x = x + y`.
    fn add(&mut self, x: &mut Self::Activation, y: &Self::Activation) -> Result<(), DeviceError>;
    /// `out = silu(h[first half]) * h[second half]`.
    fn swiglu(&mut self, h: &Self::Activation, out: &mut Self::Activation) -> Result<(), DeviceError>;
    /// [`Device::swiglu`] of a [`Device::linear`]: the same numbers, perhaps without writing the halves down. `h` is room for
    /// them; what is in it afterwards is the device's affair.
    fn gate_up(
        &mut self,
        x: &Self::Activation,
        weight: &Self::Linear,
        h: &mut Self::Activation,
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError> {
        self.linear(x, weight, h)?;
        self.swiglu(h, out)
    }
    /// `out[i] = x[rows[i]]`.
    fn gather(
        &mut self,
        x: &Self::Activation,
        rows: &[usize],
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError>;
    /// [`Device::gather`] of the queries in `qkv`; what becomes of keys and values in `out` is the device's affair.
    fn gather_queries(
        &mut self,
        qkv: &Self::Activation,
        rows: &[usize],
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError> {
        self.gather(qkv, rows, out)
    }

    /// Sums `x` over the ranks of a tensor-parallel group, in the order of the ranks, with one rounding at the end; every
    /// rank has the same sum afterwards. A device that is alone has nothing to do.
    fn all_reduce(&mut self, x: &mut Self::Activation) -> Result<(), DeviceError> {
        let _ = x;
        Ok(())
    }

    /// Nanoseconds on the device's virtual clock; `None` where real time passes.
    fn modelled_ns(&self) -> Option<u64> {
        None
    }

    /// Lets `duration_ns` pass on the device's virtual clock with nothing to do; where real time passes there is nothing to
    /// move, and the caller sleeps.
    fn idle(&mut self, duration_ns: u64) {
        let _ = duration_ns;
    }

    /// Gives back what is kept from earlier work to save time: plans, working memory, small things that were sent. What comes
    /// next takes the time and the memory that it takes in a new process.
    fn release_cached(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    /// Copies all rows to the host, waiting for the device.
    fn download(&mut self, x: &Self::Activation, out: &mut Vec<f32>) -> Result<(), DeviceError>;
    /// Copies rows of `width` numbers to the device; the activation then has that many rows.
    fn upload(&mut self, rows: &[f32], out: &mut Self::Activation) -> Result<(), DeviceError>;
}
