//! Estimates of the memory that a loaded model takes, and whether it fits.

use glmbench_ascend::{AscendMemory, Chip};
use glmbench_cpu::{CpuMemory, InstructionSet};
use glmbench_device::{
    AttentionShape, DeviceInfo, DeviceKind, DeviceName, KV_BLOCK_TOKENS, LinearShape, Precision, WeightForm,
};

use super::EngineError;
use super::config::ModelConfig;
use super::cut::Cut;
use super::model::{Capacity, attention_shape};
use super::weights::layout::LinearId;

/// Memory that a loaded model may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryBudget {
    /// Bytes shared by all ranks: host memory.
    Together(u64),
    /// Bytes for each rank: chip memory.
    EachRank(u64),
}

impl MemoryBudget {
    /// Whether a model loaded for `capacity` on `tp` ranks fits. Returns false if it cannot be split over `tp`
    /// ranks.
    pub fn holds(self, config: &ModelConfig, on: MemoryOf, capacity: Capacity, tp: usize) -> bool {
        let Ok(rank) = MemoryEstimate::per_rank(config, on, capacity, tp) else { return false };
        match self {
            Self::Together(bytes) => rank.of_ranks(tp).total_bytes() <= bytes,
            Self::EachRank(bytes) => rank.total_bytes() <= bytes,
        }
    }

    /// Describes the memory that a model loaded for `capacity` on `tp` ranks takes.
    pub fn wanted(self, config: &ModelConfig, on: MemoryOf, capacity: Capacity, tp: usize) -> String {
        let Ok(rank) = MemoryEstimate::per_rank(config, on, capacity, tp) else {
            return format!("it cannot be cut for {tp} ranks");
        };
        let gb = |bytes: u64| bytes as f64 / 1e9;
        match self {
            Self::Together(_) => format!("{:.1} GB are wanted", gb(rank.of_ranks(tp).total_bytes())),
            Self::EachRank(_) => format!("{:.1} GB are wanted on each chip", gb(rank.total_bytes())),
        }
    }

    /// Describes the budget in words.
    pub fn words(self) -> String {
        match self {
            Self::Together(bytes) => format!("{:.1} GB are available", bytes as f64 / 1e9),
            Self::EachRank(bytes) => format!("each chip has {:.1} GB", bytes as f64 / 1e9),
        }
    }
}

/// How a device stores numbers, which determines their size.
#[derive(Debug, Clone, Copy)]
pub enum MemoryOf {
    /// A device without padding or repacking: weights and cache in these types, activations in fp32.
    Plain(Precision),
    /// The CPU, which pads and repacks.
    Cpu(CpuMemory),
    /// An Ascend card, which pads heads.
    Ascend(AscendMemory),
}

impl<P: Into<Precision>> From<P> for MemoryOf {
    fn from(precision: P) -> Self {
        Self::Plain(precision.into())
    }
}

impl MemoryOf {
    /// Returns the storage scheme of a loaded device.
    pub fn device(info: &DeviceInfo) -> Self {
        let name: Option<DeviceName> = info.name.parse().ok();
        match (name.map(|name| name.kind), info.kernel.parse().ok()) {
            (None, _) | (Some(DeviceKind::Cpu), None) => Self::Plain(info.precision),
            (Some(kind), set) => Self::of_kind(kind, info.precision, set, info.threads),
        }
    }

    /// Returns the storage scheme of a device in these types. The CPU's depends on its kernels (`None` for the best of
    /// this machine) and threads.
    pub fn of_kind(
        kind: DeviceKind,
        precision: Precision,
        set: Option<InstructionSet>,
        threads: usize,
    ) -> Self {
        match (kind, Chip::of(kind)) {
            (DeviceKind::Cpu, _) => Self::Cpu(CpuMemory::new(precision, set, threads)),
            (_, Some(chip)) => Self::Ascend(AscendMemory::new(chip, precision)),
            (_, None) => Self::Plain(precision),
        }
    }

    /// Returns the scheme of one of `tp` ranks, for the rank with the largest share.
    fn of_rank(self, tp: usize) -> Self {
        match self {
            Self::Plain(_) | Self::Ascend(_) => self,
            Self::Cpu(cpu) => Self::Cpu(cpu.of_rank(tp)),
        }
    }

    /// Returns the scheme with weights in the type of the activations.
    fn with_float_weights(self) -> Self {
        match self {
            Self::Plain(precision) => Self::Plain(Precision { weights: WeightForm::Plain, ..precision }),
            Self::Cpu(cpu) => Self::Cpu(cpu.with_float_weights()),
            Self::Ascend(card) => Self::Ascend(card.with_float_weights()),
        }
    }

    fn precision(&self) -> Precision {
        match self {
            Self::Plain(precision) => *precision,
            Self::Cpu(cpu) => cpu.precision(),
            Self::Ascend(card) => card.precision(),
        }
    }

    /// Returns the bytes of a linear layer weight, in a model with these heads. `group` is the number of inputs that share a
    /// scale in a quantised checkpoint.
    fn linear_bytes(&self, linear: LinearShape, heads: AttentionShape, group: Option<usize>) -> u64 {
        let LinearShape { out, width, .. } = linear;
        match (self, group) {
            (Self::Plain(precision), _) => precision.storage().bytes(out, width),
            (Self::Cpu(cpu), Some(group)) => cpu.grouped_linear_bytes(out as usize, width as usize, group),
            (Self::Cpu(cpu), None) => cpu.linear_bytes(out as usize, width as usize),
            (Self::Ascend(card), _) => card.linear_bytes(linear, heads),
        }
    }

    /// Returns the bytes of one KV-cache block of one layer and head.
    fn kv_block_bytes(&self, channels: usize) -> u64 {
        match self {
            Self::Plain(precision) => KV_BLOCK_TOKENS as u64 * precision.kv_bytes(channels as u64),
            Self::Cpu(cpu) => cpu.kv_block_bytes(channels),
            Self::Ascend(card) => card.kv_block_bytes(channels),
        }
    }

    /// Returns the bytes of one row of activations.
    fn row_bytes(&self, width: usize) -> u64 {
        match self {
            Self::Plain(_) => product(&[width, size_of::<f32>()]),
            Self::Cpu(cpu) => cpu.row_bytes(width),
            Self::Ascend(card) => card.row_bytes(width),
        }
    }

    /// Returns the most bytes that operators take for themselves.
    fn working_bytes(&self, config: &ModelConfig, capacity: Capacity) -> u64 {
        let (rows, context) = (capacity.max_step_tokens, capacity.max_context);
        match self {
            Self::Plain(_) | Self::Cpu(_) => 0,
            Self::Ascend(card) => {
                card.working_bytes(attention_shape(config), config.hidden_size, rows, context)
            }
        }
    }

    /// Returns the scratch bytes of matrix products whose widest input has `k` elements.
    fn product_bytes(&self, k: usize) -> u64 {
        match self {
            Self::Plain(_) | Self::Ascend(_) => 0,
            Self::Cpu(cpu) => cpu.product_bytes(k),
        }
    }
}

/// Returns the product of sizes, or [`u64::MAX`] on overflow.
fn product(factors: &[usize]) -> u64 {
    factors.iter().fold(1, |bytes, &n| bytes.saturating_mul(n as u64))
}

/// Memory of a loaded model, by purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Weights, in the device's layout.
    pub weight_bytes: u64,
    /// The KV cache.
    pub kv_bytes: u64,
    /// Activations, logits and working memory.
    pub activation_bytes: u64,
}

impl MemoryEstimate {
    /// Estimates the memory of a model with this capacity. Absurdly large shapes saturate at [`u64::MAX`].
    pub fn new(config: &ModelConfig, on: impl Into<MemoryOf>, capacity: Capacity) -> Self {
        Self::of_rank(config, config, on.into(), capacity)
    }

    /// Estimates the memory of each of `tp` ranks.
    ///
    /// # Errors
    /// The model cannot be split over this number of ranks.
    pub fn per_rank(
        config: &ModelConfig,
        on: impl Into<MemoryOf>,
        capacity: Capacity,
        tp: usize,
    ) -> Result<Self, EngineError> {
        // All ranks hold the same amount, so the first stands for any.
        let rank = Cut::new(config, 0, tp)?.config(config);
        Ok(Self::of_rank(config, &rank, on.into().of_rank(tp), capacity))
    }

    /// Returns the total of `tp` such ranks, where they share memory.
    #[must_use]
    pub fn of_ranks(self, tp: usize) -> Self {
        let all = |bytes: u64| bytes.saturating_mul(tp as u64);
        Self {
            weight_bytes: all(self.weight_bytes),
            kv_bytes: all(self.kv_bytes),
            activation_bytes: all(self.activation_bytes),
        }
    }

    /// Estimates the memory of the shard `config` of the model `whole`.
    fn of_rank(whole: &ModelConfig, config: &ModelConfig, on: MemoryOf, capacity: Capacity) -> Self {
        let of_linears = |count: &dyn Fn(LinearId, LinearShape) -> u64| {
            let [qkv, dense, up, down] = config.layer_linears();
            let shapes = [qkv, dense, up, down].into_iter().cycle().take(4 * config.num_layers);
            let all = LinearId::all(config).zip(shapes.chain(std::iter::once(config.output_linear())));
            all.map(|(id, shape)| count(id, shape)).fold(0, u64::saturating_add)
        };
        let heads = attention_shape(config);
        let float = on.with_float_weights();
        // The layers that a quantised checkpoint leaves in float stay so.
        let of_linear = |id: LinearId, shape: LinearShape| match &config.quantised {
            Some(quantised) if quantised.float.contains(&id) => float.linear_bytes(shape, heads, None),
            Some(quantised) => {
                let group = quantised.storage(id, shape.width).map(|it| it.group(shape.width as usize));
                on.linear_bytes(shape, heads, group)
            }
            None => on.linear_bytes(shape, heads, None),
        };
        // The embedding is not split, although the output layer is.
        let uncut = product(&[whole.padded_vocab_size - config.padded_vocab_size, config.hidden_size]);
        let others = config
            .parameters()
            .saturating_add(uncut)
            .saturating_sub(of_linears(&|_, linear| linear.out.saturating_mul(linear.width)))
            .saturating_mul(on.precision().dtype.bytes() as u64);
        let kv_blocks = product(&[capacity.kv_blocks, config.num_layers, config.num_kv_heads]);
        let rows = |rows: usize, widths: &[usize]| {
            let bytes = widths.iter().map(|&width| on.row_bytes(width)).fold(0, u64::saturating_add);
            bytes.saturating_mul(rows as u64)
        };
        let (hidden, ffn) = (config.hidden_size, config.ffn_hidden_size);
        let step = [hidden, hidden, hidden, config.qkv_width(), config.q_width(), 2 * ffn, ffn];
        // The logits count twice: once more for the host's copy.
        let last = [hidden, config.qkv_width(), config.padded_vocab_size, config.padded_vocab_size];
        let widest = hidden.max(config.q_width()).max(ffn);
        Self {
            weight_bytes: of_linears(&of_linear).saturating_add(others),
            kv_bytes: on.kv_block_bytes(config.kv_channels).saturating_mul(kv_blocks),
            activation_bytes: rows(capacity.max_step_tokens, &step)
                .saturating_add(rows(capacity.max_logit_rows, &last))
                .saturating_add(on.product_bytes(widest))
                .saturating_add(on.working_bytes(config, capacity)),
        }
    }

    /// Returns the sum of all parts.
    pub fn total_bytes(&self) -> u64 {
        self.weight_bytes.saturating_add(self.kv_bytes).saturating_add(self.activation_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use glmbench_device::DType;

    /// A card stores heads of 16 channels as 64, whether it is real or emulated.
    #[test]
    fn a_cards_cache_counts_the_channels_that_it_stores() {
        let config = ModelConfig { kv_channels: 16, ..ModelConfig::chatglm2_6b() };
        let capacity = Capacity::for_batch(&config, 2, 300);
        let plain = MemoryEstimate::new(&config, DType::Fp16, capacity);
        for name in ["300i-duo", "800i-a2 (emulated)"] {
            let info = DeviceInfo::plain(name, "aclnn", 1, DType::Fp16);
            let card = MemoryEstimate::new(&config, MemoryOf::device(&info), capacity);
            assert_eq!(card.kv_bytes, 4 * plain.kv_bytes);
            let qkv = config.layer_linears()[0];
            let padding = 3 * qkv.out * qkv.width * 2 * config.num_layers as u64;
            assert_eq!(card.weight_bytes, plain.weight_bytes + padding);
        }
        let full = ModelConfig::chatglm2_6b();
        let card = MemoryOf::Ascend(AscendMemory::new(Chip::Duo300i, DType::Fp16.into()));
        let capacity = Capacity::for_batch(&full, 2, 300);
        let (card, plain) =
            (MemoryEstimate::new(&full, card, capacity), MemoryEstimate::new(&full, DType::Fp16, capacity));
        assert_eq!((card.weight_bytes, card.kv_bytes), (plain.weight_bytes, plain.kv_bytes));
    }
}
