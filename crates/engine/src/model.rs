//! The forward pass of ChatGLM2, written once over [`Device`].

use glmbench_device::rotary::RotaryMode;
use glmbench_device::sensors::Sensors;
use glmbench_device::{AttentionShape, Device, DeviceInfo, KvForm, KvShape, SequenceView};

mod loader;

use super::EngineError;
use super::cache::blocks_for;
use super::config::ModelConfig;
use super::cut::Cut;
use super::weights::quantised::kv_channels;
use super::weights::{WeightError, WeightSource};

use self::loader::Loader;

/// How much a loaded model can hold at once. All memory is allocated at load, for this capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Sequences that run at the same time.
    pub max_batch: usize,
    /// Tokens per step; longer prompts are fed in chunks.
    pub max_step_tokens: usize,
    /// Longest sequence, P-tuning prefix included.
    pub max_context: usize,
    /// Blocks of the KV cache, shared by all sequences.
    pub kv_blocks: usize,
    /// Rows of logits that one step can return.
    pub max_logit_rows: usize,
}

impl Capacity {
    /// Returns the capacity for `max_batch` concurrent sequences of at most `max_tokens` tokens each.
    pub fn for_batch(config: &ModelConfig, max_batch: usize, max_tokens: usize) -> Self {
        let max_context = max_tokens + config.pre_seq_len.unwrap_or(0);
        Self {
            max_batch,
            max_step_tokens: 512.max(max_batch),
            max_context,
            kv_blocks: max_batch * blocks_for(max_context),
            max_logit_rows: max_batch,
        }
    }
}

/// One step of a ragged batch.
#[derive(Debug)]
pub struct StepInput<'a> {
    /// Token of every row.
    pub tokens: &'a [u32],
    /// Position of every row, prefix not counted.
    pub positions: &'a [u32],
    /// The sequences. Their rows are consecutive and cover all rows.
    pub sequences: &'a [SequenceView<'a>],
    /// Rows to return logits of.
    pub logit_rows: &'a [usize],
}

impl<'a> StepInput<'a> {
    /// Whether logits of all rows are wanted, in row order.
    fn wants_all_rows(&self) -> bool {
        self.logit_rows.iter().copied().eq(0..self.tokens.len())
    }

    /// Returns the gathered logit rows as sequences of one row each.
    fn logit_views(&self) -> Vec<SequenceView<'a>> {
        let view = |(at, row): (usize, &usize)| {
            let sequence = self.sequences.iter().find(|sequence| sequence.rows.contains(row));
            let sequence = sequence.expect("invariant: sequences cover all rows");
            let context = sequence.visible(row - sequence.rows.start);
            SequenceView { rows: at..at + 1, context, blocks: sequence.blocks }
        };
        self.logit_rows.iter().enumerate().map(view).collect()
    }
}

/// A loaded model on any device.
pub trait Forward: Send {
    /// Runs one step. Afterwards `logits` is `[logit_rows, padded_vocab_size]`.
    fn forward(&mut self, step: &StepInput<'_>, logits: &mut Vec<f32>) -> Result<(), EngineError>;
    /// Writes the P-tuning prefix into a new sequence's first blocks. Does nothing without a prefix.
    fn write_prefix(&mut self, blocks: &[u32]) -> Result<(), EngineError>;
    /// Copies the first tokens of a block of the KV cache to another ([`Device::copy_kv_block`]).
    fn copy_block(&mut self, from: u32, to: u32, tokens: usize) -> Result<(), EngineError>;
    /// Describes the device.
    fn device_info(&self) -> DeviceInfo;
    /// Returns the nanoseconds on the device's virtual clock; `None` if the device runs in real time.
    fn modelled_ns(&self) -> Option<u64>;
    /// Advances the device's virtual clock ([`Device::idle`]).
    fn idle(&mut self, duration_ns: u64) {
        let _ = duration_ns;
    }
    /// Frees what the device keeps from earlier steps ([`Device::release_cached`]).
    fn release_cached(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
    /// Whether an error has ended the model. It must then be reloaded before the next step.
    fn has_failed(&self) -> bool {
        false
    }
    /// Returns the devices' sensors; `None` if there are none that this program reads.
    fn sensors(&self) -> Option<&dyn Sensors> {
        None
    }
    /// Returns the capacity that the model was loaded for.
    fn capacity(&self) -> Capacity;
    /// Returns the model's shape.
    fn config(&self) -> &ModelConfig;
}

struct Layer<D: Device> {
    input_norm: D::Vector,
    qkv: D::Linear,
    dense: D::Linear,
    post_norm: D::Vector,
    h_to_4h: D::Linear,
    down: D::Linear,
}

struct Weights<D: Device> {
    embedding: D::Table,
    rotary: D::Rotary,
    layers: Vec<Layer<D>>,
    final_norm: D::Vector,
    output: D::Linear,
    /// Keys and values of the prefix, `[layers][pre_seq_len, 2 * kv_width]`.
    prefix: Vec<Vec<f32>>,
}

/// Activation buffers, named after their contents.
struct Buffers<D: Device> {
    /// Residual stream.
    x: D::Activation,
    /// Normed stream.
    a: D::Activation,
    /// `[q | k | v]`.
    qkv: D::Activation,
    /// Attention result, all heads.
    heads: D::Activation,
    /// The summand for the residual stream.
    y: D::Activation,
    /// `[gate | up]`.
    h: D::Activation,
    /// `silu(gate) * up`.
    g: D::Activation,
    /// Rows of the stream to compute logits of, and their queries.
    last: D::Activation,
    last_qkv: D::Activation,
    logits: D::Activation,
}

/// ChatGLM2 on one device.
pub struct Model<D: Device> {
    device: D,
    config: ModelConfig,
    capacity: Capacity,
    weights: Weights<D>,
    buffers: Buffers<D>,
    cache: D::KvCache,
}

/// Returns the attention operator's shape for a model.
pub fn attention_shape(config: &ModelConfig) -> AttentionShape {
    AttentionShape {
        heads: config.num_attention_heads,
        kv_heads: config.num_kv_heads,
        channels: config.kv_channels,
    }
}

impl<D: Device> Model<D> {
    /// Loads the weights onto `device` and allocates all memory. `progress` receives the tensors loaded and their
    /// number.
    pub fn load(
        device: D,
        config: &ModelConfig,
        rotary: RotaryMode,
        capacity: Capacity,
        source: &dyn WeightSource,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, EngineError> {
        Self::load_rank(device, config, Cut::WHOLE, rotary, capacity, source, progress)
    }

    /// Like [`Model::load`], for one rank's shard of the model `whole`. The rank steps together with the others. Its
    /// logits cover its part of the vocabulary.
    pub fn load_rank(
        device: D,
        whole: &ModelConfig,
        cut: Cut,
        rotary: RotaryMode,
        capacity: Capacity,
        source: &dyn WeightSource,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, EngineError> {
        let config = cut.config(whole);
        let (device, weights) =
            Loader::new(device, whole, cut, source, progress).load(rotary, capacity.max_context)?;
        let buffers = Buffers::new(&device, &config, capacity)?;
        let shape = KvShape {
            layers: config.num_layers,
            kv_heads: config.num_kv_heads,
            channels: config.kv_channels,
            blocks: capacity.kv_blocks,
        };
        // A device that computes in one type does not name the cache form in the checkpoint.
        let is_c8 = whole.quantised.as_ref().is_some_and(|quantised| quantised.kv_c8)
            && matches!(device.info().precision.kv, KvForm::Auto | KvForm::C8);
        let cache = if is_c8 {
            let channels = kv_channels(source, whole, cut.kv_heads(whole))?;
            device.kv_cache_of_channels(shape, &channels)?
        } else {
            device.kv_cache(shape)?
        };
        Ok(Self { device, config, capacity, weights, buffers, cache })
    }
}

impl<D: Device> Buffers<D> {
    fn new(device: &D, config: &ModelConfig, capacity: Capacity) -> Result<Self, EngineError> {
        let rows = |width| device.activation(capacity.max_step_tokens, width);
        let last = |width| device.activation(capacity.max_logit_rows, width);
        let qkv = |rows| device.qkv_activation(rows, attention_shape(config));
        Ok(Self {
            x: rows(config.hidden_size)?,
            a: rows(config.hidden_size)?,
            qkv: qkv(capacity.max_step_tokens)?,
            heads: rows(config.q_width())?,
            y: rows(config.hidden_size)?,
            h: rows(2 * config.ffn_hidden_size)?,
            g: rows(config.ffn_hidden_size)?,
            last: last(config.hidden_size)?,
            last_qkv: qkv(capacity.max_logit_rows)?,
            logits: last(config.padded_vocab_size)?,
        })
    }
}

impl<D: Device> Forward for Model<D> {
    fn forward(&mut self, step: &StepInput<'_>, logits: &mut Vec<f32>) -> Result<(), EngineError> {
        let Self { device: d, config, weights, buffers: b, cache, .. } = self;
        let shape = attention_shape(config);
        let epsilon = config.layernorm_epsilon;
        // In the last layer, rows without logits are done once their keys and values are in the cache.
        let views = (!step.wants_all_rows()).then(|| step.logit_views());
        let mut wanted = views.as_ref().map(|views| (&mut b.last, &mut b.last_qkv, views));
        let (mut x, mut qkv, mut sequences) = (&mut b.x, &mut b.qkv, step.sequences);
        logits.clear();
        d.embed(&weights.embedding, step.tokens, x)?;
        for (index, layer) in weights.layers.iter().enumerate() {
            d.rms_norm(x, &layer.input_norm, epsilon, &mut b.a)?;
            d.linear(&b.a, &layer.qkv, qkv)?;
            d.rotary(qkv, &weights.rotary, step.positions, shape)?;
            d.write_kv(qkv, cache, index, sequences, shape)?;
            if index + 1 == weights.layers.len()
                && let Some((last, last_qkv, views)) = wanted.take()
            {
                if step.logit_rows.is_empty() {
                    return Ok(());
                }
                d.gather(x, step.logit_rows, last)?;
                d.gather_queries(qkv, step.logit_rows, last_qkv)?;
                (x, qkv, sequences) = (last, last_qkv, views);
            }
            d.attention(qkv, cache, index, sequences, shape, &mut b.heads)?;
            d.linear(&b.heads, &layer.dense, &mut b.y)?;
            d.all_reduce(&mut b.y)?;
            d.add(x, &b.y)?;
            d.rms_norm(x, &layer.post_norm, epsilon, &mut b.a)?;
            d.gate_up(&b.a, &layer.h_to_4h, &mut b.h, &mut b.g)?;
            d.linear(&b.g, &layer.down, &mut b.y)?;
            d.all_reduce(&mut b.y)?;
            d.add(x, &b.y)?;
        }
        d.rms_norm(x, &weights.final_norm, epsilon, &mut b.a)?;
        d.linear(&b.a, &weights.output, &mut b.logits)?;
        d.download(&b.logits, logits)?;
        Ok(())
    }

    fn write_prefix(&mut self, blocks: &[u32]) -> Result<(), EngineError> {
        let Self { device, config, capacity, weights, buffers, cache } = self;
        let shape = attention_shape(config);
        let width = 2 * config.kv_width();
        for (layer, rows) in weights.prefix.iter().enumerate() {
            let mut context = 0;
            for chunk in rows.chunks(capacity.max_step_tokens * width) {
                // The cache is written from [q | k | v] rows. The prefix has no queries.
                let mut qkv = Vec::with_capacity(chunk.len() / width * config.qkv_width());
                for kv in chunk.chunks_exact(width) {
                    qkv.resize(qkv.len() + config.q_width(), 0.0);
                    qkv.extend_from_slice(kv);
                }
                let tokens = chunk.len() / width;
                context += tokens;
                device.upload(&qkv, &mut buffers.qkv)?;
                let view = SequenceView { rows: 0..tokens, context, blocks };
                device.write_kv(&buffers.qkv, cache, layer, &[view], shape)?;
            }
        }
        Ok(())
    }

    fn copy_block(&mut self, from: u32, to: u32, tokens: usize) -> Result<(), EngineError> {
        Ok(self.device.copy_kv_block(&mut self.cache, from, to, tokens)?)
    }

    fn device_info(&self) -> DeviceInfo {
        self.device.info()
    }

    fn idle(&mut self, duration_ns: u64) {
        self.device.idle(duration_ns);
    }

    fn release_cached(&mut self) -> Result<(), EngineError> {
        Ok(self.device.release_cached()?)
    }

    fn modelled_ns(&self) -> Option<u64> {
        self.device.modelled_ns()
    }

    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn config(&self) -> &ModelConfig {
        &self.config
    }
}

impl From<WeightError> for EngineError {
    fn from(error: WeightError) -> Self {
        Self::Weights(error)
    }
}
