//! The operators of ChatGLM2 on tensors that a device owns.
//!
//! The forward pass (`glmbench_engine::model`) is written once over [`Device`]; a device supplies the operators.
//! Activations are matrices `[rows, width]` with one row per token. Every operator accumulates in fp32 and rounds its
//! result to the device's [`DType`], as NPUs and GPUs do. The result of a row never depends on the other rows.
//!
//! This crate holds what all devices share: their words and properties ([`DeviceKind`]), the trait, types and shapes. It has
//! weights as values ([`LinearWeight`]), the [`rotary`] table, and the minimum work of operators ([`cost`]). It has groups of
//! ranks ([`group`]), [`sensors`], and the binding of threads ([`affinity`]). A wrapper ([`hooked`]) times operators
//! ([`timed`]) or shows what they compute ([`observed`]).
//! [`mod@reference`] is the oracle: every operator in plain loops.
//!
//! It uses no other crate of the workspace. It prints nothing, and its only `unsafe` binds threads.
#![deny(unsafe_code)]

pub mod affinity;
pub mod cost;
pub mod group;
pub mod hooked;
mod kind;
mod kv;
pub mod observed;
pub mod operator;
mod precision;
pub mod reference;
pub mod rotary;
pub mod sensors;
pub mod timed;
mod weight;
mod word;
pub mod words;

use std::ops::Range;

use half::slice::HalfFloatSliceExt;

pub use self::kind::{DeviceKind, DeviceName};
pub use self::kv::{KvChannel, KvChannels, KvLayerChannels};
pub use self::precision::{KvForm, Precision, WeightForm};
pub use self::weight::{
    Form, INT4_GROUP, Inputs, Int4Weight, Int8StaticWeight, Int8Weight, InvalidWeight, LinearShape,
    LinearWeight, Role, StaticChannel, StaticChannels, StaticInput, Storage,
};
pub use self::word::Word;

/// The type of weights, activations and KV cache. All of them accumulate in fp32.
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
    /// All types, in the order of messages.
    pub const ALL: [Self; 3] = [Self::Fp16, Self::Bf16, Self::Fp32];

    /// Returns the size of one number in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Self::Fp32 => 4,
            Self::Fp16 | Self::Bf16 => 2,
        }
    }

    /// Returns the name used on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Bf16 => "bf16",
        }
    }

    /// Rounds `x` to this type (to nearest, ties to even).
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
        let found = Self::ALL.into_iter().find(|dtype| dtype.name() == word);
        found.ok_or_else(|| {
            let expected = words::one_of(Self::ALL.map(Self::name));
            format!("dtype \"{word}\" is unknown, expected {expected}")
        })
    }
}

/// An error of a device or of its configuration.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The device is out of memory.
    #[error("device {device}: {wanted_bytes} bytes for {what} cannot be allocated")]
    OutOfMemory {
        /// Name of the device.
        device: &'static str,
        /// What the memory was for.
        what: String,
        /// Size of the request in bytes.
        wanted_bytes: usize,
    },
    /// The device cannot run this configuration.
    #[error("device {device}: {problem}")]
    Unsupported {
        /// Name of the device.
        device: &'static str,
        /// What was requested, and what is supported.
        problem: String,
    },
    /// A setting for the device is invalid. The user made the mistake; the device itself works.
    #[error("device {device}: {problem}")]
    Setting {
        /// Name of the device.
        device: &'static str,
        /// Where the setting is, what was found, what was expected.
        problem: String,
    },
    /// A call to the device failed; the device may still work.
    #[error("device {device}: {api} failed with {code} ({name}): {message}")]
    Failed {
        /// Name of the device.
        device: &'static str,
        /// The function that failed.
        api: String,
        /// The return code.
        code: i32,
        /// The code's documented name.
        name: String,
        /// The message from the device's library.
        message: String,
    },
    /// The device is lost and cannot be used again in this process.
    #[error("device {device} is lost: {message}")]
    Lost {
        /// Name of the device.
        device: &'static str,
        /// What happened.
        message: String,
    },
}

/// A tensor in host memory, to be uploaded to a device: row-major, little-endian.
#[derive(Debug, Clone, Copy)]
pub struct HostTensor<'a> {
    /// Type of the numbers in `data`.
    pub dtype: DType,
    /// Number of rows (1 for a vector).
    pub rows: usize,
    /// Numbers per row.
    pub width: usize,
    /// `rows * width` numbers of type `dtype`.
    pub data: &'a [u8],
}

impl HostTensor<'_> {
    /// Writes row `row` to `out` as fp32 (exact from every type).
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
                // Converts in chunks: the call costs more than the conversion of a single number.
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

    /// Returns all numbers as fp32.
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
    /// KV heads per layer.
    pub kv_heads: usize,
    /// Channels per head.
    pub channels: usize,
    /// Blocks of [`KV_BLOCK_TOKENS`] tokens, shared by all sequences.
    pub blocks: usize,
}

/// Shape of the attention operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Query heads. The first `heads / kv_heads` of them share KV head 0, and so on.
    pub heads: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Channels per head.
    pub channels: usize,
}

/// One sequence of a ragged batch, for one step.
#[derive(Debug, Clone)]
pub struct SequenceView<'a> {
    /// The rows of the activations that belong to this sequence.
    pub rows: Range<usize>,
    /// Tokens in the cache after this step's write, including the prefix. The last row sees all of them, the row before
    /// it one fewer, and so on.
    pub context: usize,
    /// The cache blocks of the sequence: token `t` is in block `blocks[t / 128]` at offset `t % 128`.
    pub blocks: &'a [u32],
}

impl SequenceView<'_> {
    /// Returns how many tokens the sequence's `i`-th row of this step sees, including itself.
    pub fn visible(&self, i: usize) -> usize {
        self.context - self.rows.len() + i + 1
    }

    /// Returns the block of token `t` and the offset within that block.
    pub fn slot(&self, t: usize) -> (usize, usize) {
        (self.blocks[t / KV_BLOCK_TOKENS] as usize, t % KV_BLOCK_TOKENS)
    }
}

/// Description of a device, for the record.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceInfo {
    /// The name used on the command line.
    pub name: String,
    /// The kernels in use, e.g. `avx2`.
    pub kernel: String,
    /// Number of compute threads.
    pub threads: usize,
    /// Types of weights, activations and KV cache.
    pub precision: Precision,
    /// Number of tensor-parallel ranks.
    pub tp: usize,
    /// The chip profile behind the times, if the device has a virtual clock.
    pub modelled_by: Option<ClockProfile>,
    /// Whether a row's numbers are the same to the last bit if it is fed alone and with other rows of its sequence. Then
    /// several candidates for the next tokens can be verified in one step.
    pub rows_are_independent: bool,
    /// Whether a prompt's numbers are known to be the same to the last bit however it is cut into chunks. Then prompts that
    /// begin alike can share what they begin with.
    pub chunks_are_independent: bool,
    /// Named facts about the device: chip, library versions, the operators used for attention, KV write….
    pub details: Vec<(String, String)>,
}

impl DeviceInfo {
    /// Describes a device with one rank, real time and no details.
    pub fn plain(name: &str, kernel: &str, threads: usize, precision: impl Into<Precision>) -> Self {
        Self {
            name: name.to_owned(),
            kernel: kernel.to_owned(),
            threads,
            precision: precision.into(),
            tp: 1,
            modelled_by: None,
            rows_are_independent: true,
            chunks_are_independent: true,
            details: Vec::new(),
        }
    }
}

/// The chip profile that drives a virtual clock.
#[derive(Debug, Clone, PartialEq)]
pub struct ClockProfile {
    /// The profile's name.
    pub name: String,
    /// SHA-256 of the profile file, hexadecimal.
    pub sha256: String,
    /// Peak memory bandwidth of one chip, in bytes per second.
    pub memory_bytes_per_s: u64,
    /// Peak fp16 matrix throughput of one chip, in floating-point operations per second.
    pub matmul_flops_per_s: u64,
    /// The card's name in full.
    pub title: String,
    /// The figures, in the file's order.
    pub figures: Vec<ClockFigure>,
    /// How the profile compares with the times of a card that it was fitted to. Empty if it was fitted to none.
    pub fits: Vec<ClockFit>,
}

/// A figure of a chip profile.
#[derive(Debug, Clone, PartialEq)]
pub struct ClockFigure {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// `published`, `derived`, `calibrated` or `assumed`.
    pub mark: String,
    /// Its source, as text.
    pub source: String,
    /// Rows that a calibrated figure was fitted to, and the error on what was left out of the fit.
    pub fit: Option<(u32, f64)>,
}

/// How a chip profile compares with the times of a card that it was fitted to: one phase on one number of chips.
#[derive(Debug, Clone, PartialEq)]
pub struct ClockFit {
    /// `prefill` or `decode`.
    pub phase: String,
    /// Number of chips that share the model.
    pub chips: u32,
    /// Number of measured times.
    pub rows: u32,
    /// Number of shapes that the times are of.
    pub shapes: u32,
    /// Root mean square of the logarithm of modelled over measured time, each shape left out of the fit in turn.
    pub error: f64,
    /// Its largest absolute value.
    pub worst: f64,
    /// Largest batch.
    pub batch: u32,
    /// Longest sequence, in tokens: of prompts for prefill, with the generated tokens for decode.
    pub tokens: u32,
    /// Parameters of the model.
    pub parameters: f64,
    /// Whether launches were captured as graphs.
    pub graphs: bool,
}

/// The operators of ChatGLM2 in the order of the forward pass.
///
/// `Activation` is a matrix `[rows, width]`. Its memory is allocated once ([`Device::activation`]); operators set its
/// number of rows. Weights are laid out for the device once, at upload.
pub trait Device: Send {
    /// A matrix of numbers in device memory.
    type Activation: Send;
    /// A weight matrix `[out, in]` with an optional bias, laid out for [`Device::linear`].
    type Linear: Send;
    /// A vector of numbers (norm weights).
    type Vector: Send;
    /// The embedding table.
    type Table: Send;
    /// The rotary table: cosine and sine of every position.
    type Rotary: Send;
    /// The paged KV cache of all layers.
    type KvCache: Send;

    /// Describes this device.
    fn info(&self) -> DeviceInfo;

    /// Allocates an activation of up to `max_rows` rows of `width` numbers.
    fn activation(&self, max_rows: usize, width: usize) -> Result<Self::Activation, DeviceError>;
    /// Allocates an activation of up to `max_rows` rows of queries, keys and values, `[q | k | v]`. A device may store
    /// the three separately.
    fn qkv_activation(
        &self,
        max_rows: usize,
        shape: AttentionShape,
    ) -> Result<Self::Activation, DeviceError> {
        self.activation(max_rows, (shape.heads + 2 * shape.kv_heads) * shape.channels)
    }
    /// Uploads the weight `[out, in]` of a linear layer and its bias `[out]`, laid out for [`Device::linear`], or for
    /// [`Device::gate_up`] if that is its role.
    ///
    /// # Errors
    /// The device has no kernel for the weight's form, or memory ran out.
    fn upload_linear(
        &self,
        role: Role,
        weight: LinearWeight<'_>,
        bias: Option<HostTensor<'_>>,
    ) -> Result<Self::Linear, DeviceError>;
    /// Uploads a vector.
    fn upload_vector(&self, values: HostTensor<'_>) -> Result<Self::Vector, DeviceError>;
    /// Uploads the embedding table `[vocab, hidden]`.
    fn upload_table(&self, table: HostTensor<'_>) -> Result<Self::Table, DeviceError>;
    /// Uploads the rotary table.
    fn upload_rotary(&self, table: &rotary::RotaryTable) -> Result<Self::Rotary, DeviceError>;
    /// Allocates a KV cache.
    ///
    /// # Errors
    /// Memory ran out, or the form of the cache needs the channels of a checkpoint.
    fn kv_cache(&self, shape: KvShape) -> Result<Self::KvCache, DeviceError>;
    /// Allocates a KV cache that is quantised by the channels of a checkpoint ([`KvForm::C8`]).
    ///
    /// # Errors
    /// The device has no such cache, the channels are not those of the shape, or memory ran out.
    fn kv_cache_of_channels(
        &self,
        shape: KvShape,
        channels: &KvChannels,
    ) -> Result<Self::KvCache, DeviceError>;

    /// `out[i] = table[ids[i]]`.
    fn embed(
        &mut self,
        table: &Self::Table,
        ids: &[u32],
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError>;
    /// `out = x / sqrt(mean(x^2) + epsilon) * weight`, in fp32 with one rounding at the end.
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
    /// Rotates the first half of the channels of every query and key head by the angle for the position of the row. `qkv` is
    /// `[q | k | v]`, and adjacent channels form a pair.
    fn rotary(
        &mut self,
        qkv: &mut Self::Activation,
        table: &Self::Rotary,
        positions: &[u32],
        shape: AttentionShape,
    ) -> Result<(), DeviceError>;
    /// Writes keys and values of `qkv` to the last positions of each sequence in the cache.
    fn write_kv(
        &mut self,
        qkv: &Self::Activation,
        cache: &mut Self::KvCache,
        layer: usize,
        sequences: &[SequenceView<'_>],
        shape: AttentionShape,
    ) -> Result<(), DeviceError>;
    /// Copies the first `tokens` tokens of block `from` to block `to`, in every layer. Sequences that begin alike share a
    /// block's first tokens in this way, and differ after them. What `to` holds after these tokens is unspecified, as in a
    /// block that another sequence has left.
    fn copy_kv_block(
        &mut self,
        cache: &mut Self::KvCache,
        from: u32,
        to: u32,
        tokens: usize,
    ) -> Result<(), DeviceError>;
    /// Computes causal attention of the queries in `qkv` over the cache: softmax in fp32, scale `1 / sqrt(channels)`.
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
    /// [`Device::swiglu`] of a [`Device::linear`]: the same numbers, possibly without storing the two halves. `h` is
    /// scratch space for them; its contents afterwards are unspecified.
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
    /// [`Device::gather`] of the queries in `qkv`. The keys and values in `out` are unspecified afterwards.
    fn gather_queries(
        &mut self,
        qkv: &Self::Activation,
        rows: &[usize],
        out: &mut Self::Activation,
    ) -> Result<(), DeviceError> {
        self.gather(qkv, rows, out)
    }

    /// Sums `x` over the ranks of a tensor-parallel group, in rank order, with one rounding at the end. Every rank
    /// receives the same sum. A single device does nothing.
    fn all_reduce(&mut self, x: &mut Self::Activation) -> Result<(), DeviceError> {
        let _ = x;
        Ok(())
    }

    /// Returns the virtual clock of the device in nanoseconds, or `None` on a device that runs in real time.
    fn modelled_ns(&self) -> Option<u64> {
        None
    }

    /// Advances the device's virtual clock by `duration_ns` of idle time. On a device that runs in real time this does
    /// nothing, and the caller sleeps.
    fn idle(&mut self, duration_ns: u64) {
        let _ = duration_ns;
    }

    /// Releases everything cached from earlier work: plans, workspaces, small uploads. The next work takes the time and
    /// memory that it would take in a new process.
    fn release_cached(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    /// Copies all rows to the host. Waits for the device.
    fn download(&mut self, x: &Self::Activation, out: &mut Vec<f32>) -> Result<(), DeviceError>;
    /// Copies rows of `width` numbers to the device and sets the activation's row count to match.
    fn upload(&mut self, rows: &[f32], out: &mut Self::Activation) -> Result<(), DeviceError>;
}
