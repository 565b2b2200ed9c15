//! What memory a loaded model takes, and whether it is there.

use crate::device::cpu::CpuMemory;
use crate::device::{DeviceInfo, KV_BLOCK_TOKENS, Precision};

use super::EngineError;
use super::config::ModelConfig;
use super::model::Limits;
use super::parallel::Cut;

/// Memory that a loaded model may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capacity {
    /// Bytes that all ranks share: a host's.
    Together(u64),
    /// Bytes that each rank has to itself: a chip's.
    EachRank(u64),
}

impl Capacity {
    /// Whether a model loaded for `limits` on so many ranks fits; one that cannot be cut so does not.
    pub fn holds(self, config: &ModelConfig, on: MemoryOf, limits: Limits, world: usize) -> bool {
        let Ok(rank) = MemoryEstimate::per_rank(config, on, limits, world) else { return false };
        match self {
            Self::Together(bytes) => rank.of_ranks(world).total_bytes() <= bytes,
            Self::EachRank(bytes) => rank.total_bytes() <= bytes,
        }
    }

    /// What a model loaded for `limits` on so many ranks takes of it, in words.
    pub fn wanted(self, config: &ModelConfig, on: MemoryOf, limits: Limits, world: usize) -> String {
        let Ok(rank) = MemoryEstimate::per_rank(config, on, limits, world) else {
            return format!("it cannot be cut for {world} ranks");
        };
        let gb = |bytes: u64| bytes as f64 / 1e9;
        match self {
            Self::Together(_) => format!("{:.1} GB are wanted", gb(rank.of_ranks(world).total_bytes())),
            Self::EachRank(_) => format!("{:.1} GB are wanted on each chip", gb(rank.total_bytes())),
        }
    }

    /// The bytes, and whose they are.
    pub fn words(self) -> String {
        match self {
            Self::Together(bytes) => format!("{:.1} GB are available", bytes as f64 / 1e9),
            Self::EachRank(bytes) => format!("each chip has {:.1} GB", bytes as f64 / 1e9),
        }
    }
}

/// Whose memory: what a device makes of the numbers that it is given.
#[derive(Debug, Clone, Copy)]
pub enum MemoryOf {
    /// A device that takes what the numbers take in these types, and fp32 for activations.
    Plain(Precision),
    /// The CPU, which fills up and lays out.
    Cpu(CpuMemory),
}

impl<P: Into<Precision>> From<P> for MemoryOf {
    fn from(precision: P) -> Self {
        Self::Plain(precision.into())
    }
}

impl MemoryOf {
    /// That of a loaded device.
    pub fn device(info: &DeviceInfo) -> Self {
        match (info.name.as_str(), info.kernel.parse()) {
            ("cpu", Ok(set)) => Self::Cpu(CpuMemory::new(info.precision, Some(set), info.threads)),
            _ => Self::Plain(info.precision),
        }
    }

    /// The largest share of one of so many ranks.
    fn of_rank(self, world: usize) -> Self {
        match self {
            Self::Plain(_) => self,
            Self::Cpu(cpu) => Self::Cpu(cpu.of_rank(world)),
        }
    }

    fn precision(&self) -> Precision {
        match self {
            Self::Plain(precision) => *precision,
            Self::Cpu(cpu) => cpu.precision(),
        }
    }

    /// Bytes of the weight `[n, k]` of a linear layer.
    fn linear_bytes(&self, n: u64, k: u64) -> u64 {
        match self {
            Self::Plain(precision) => precision.linear_bytes(n, k),
            Self::Cpu(cpu) => cpu.linear_bytes(n as usize, k as usize),
        }
    }

    /// Bytes of a block of the KV cache, of one layer and head.
    fn kv_block_bytes(&self, channels: usize) -> u64 {
        match self {
            Self::Plain(precision) => 2 * KV_BLOCK_TOKENS as u64 * precision.kv_bytes(channels as u64),
            Self::Cpu(cpu) => cpu.kv_block_bytes(channels),
        }
    }

    /// Bytes of a row of activations.
    fn row_bytes(&self, width: usize) -> u64 {
        match self {
            Self::Plain(_) => product(&[width, size_of::<f32>()]),
            Self::Cpu(cpu) => cpu.row_bytes(width),
        }
    }

    /// Bytes that products need beside their inputs, the widest of which has `k` numbers.
    fn product_bytes(&self, k: usize) -> u64 {
        match self {
            Self::Plain(_) => 0,
            Self::Cpu(cpu) => cpu.product_bytes(k),
        }
    }
}

/// The product of sizes, [`u64::MAX`] where it has no room.
fn product(factors: &[usize]) -> u64 {
    factors.iter().fold(1, |bytes, &n| bytes.saturating_mul(n as u64))
}

/// Memory that loading takes, by purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Weights as the device lays them out.
    pub weight_bytes: u64,
    /// KV cache.
    pub kv_bytes: u64,
    /// Activations, logits and working memory.
    pub activation_bytes: u64,
}

impl MemoryEstimate {
    /// For this model and limits. Shapes of absurd size give [`u64::MAX`] rather than a small number.
    pub fn new(config: &ModelConfig, on: impl Into<MemoryOf>, limits: Limits) -> Self {
        Self::of_rank(config, config, on.into(), limits)
    }

    /// For each of `world` ranks of this model.
    ///
    /// # Errors
    /// The model cannot be cut for so many ranks.
    pub fn per_rank(
        config: &ModelConfig,
        on: impl Into<MemoryOf>,
        limits: Limits,
        world: usize,
    ) -> Result<Self, EngineError> {
        // The first holds as much as any other.
        let rank = Cut::new(config, 0, world)?.config(config);
        Ok(Self::of_rank(config, &rank, on.into().of_rank(world), limits))
    }

    /// Of `world` such ranks together, where they share a memory.
    pub fn of_ranks(self, world: usize) -> Self {
        let all = |bytes: u64| bytes.saturating_mul(world as u64);
        Self {
            weight_bytes: all(self.weight_bytes),
            kv_bytes: all(self.kv_bytes),
            activation_bytes: all(self.activation_bytes),
        }
    }

    /// For the share `config` of the model `whole`.
    fn of_rank(whole: &ModelConfig, config: &ModelConfig, on: MemoryOf, limits: Limits) -> Self {
        let layers = config.num_layers as u64;
        let of_matrices = |count: &dyn Fn([u64; 2]) -> u64| {
            let layer = config.layer_matrices().map(count).into_iter().fold(0, u64::saturating_add);
            layer.saturating_mul(layers).saturating_add(count(config.output_matrix()))
        };
        // The embedding is not cut, though the output layer is.
        let uncut = product(&[whole.padded_vocab_size - config.padded_vocab_size, config.hidden_size]);
        let others = config
            .parameters()
            .saturating_add(uncut)
            .saturating_sub(of_matrices(&|[n, k]| n.saturating_mul(k)))
            .saturating_mul(on.precision().dtype.bytes() as u64);
        let kv_blocks = product(&[limits.kv_blocks, config.num_layers, config.num_kv_heads]);
        let rows = |rows: usize, widths: &[usize]| {
            let bytes = widths.iter().map(|&width| on.row_bytes(width)).fold(0, u64::saturating_add);
            bytes.saturating_mul(rows as u64)
        };
        let (hidden, ffn) = (config.hidden_size, config.ffn_hidden_size);
        let step = [hidden, hidden, hidden, config.qkv_width(), config.q_width(), 2 * ffn, ffn];
        // The logits once more, for the host.
        let last = [hidden, config.qkv_width(), config.padded_vocab_size, config.padded_vocab_size];
        let widest = hidden.max(config.q_width()).max(ffn);
        Self {
            weight_bytes: of_matrices(&|[n, k]| on.linear_bytes(n, k)).saturating_add(others),
            kv_bytes: on.kv_block_bytes(config.kv_channels).saturating_mul(kv_blocks),
            activation_bytes: rows(limits.max_step_tokens, &step)
                .saturating_add(rows(limits.max_logit_rows, &last))
                .saturating_add(on.product_bytes(widest)),
        }
    }

    /// All of it.
    pub fn total_bytes(&self) -> u64 {
        self.weight_bytes.saturating_add(self.kv_bytes).saturating_add(self.activation_bytes)
    }
}
