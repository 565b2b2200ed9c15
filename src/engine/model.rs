//! The forward pass of ChatGLM2, written once over [`Device`].

use crate::device::rotary::{RotaryMode, RotarySpec, RotaryTable};
use crate::device::{
    AttentionShape, DType, Device, DeviceError, DeviceInfo, HostTensor, KvShape, SequenceView,
};

use super::EngineError;
use super::cache::blocks_for;
use super::config::ModelConfig;
use super::weights::{StorageType, TensorView, WeightError, WeightSource};

/// How much a loaded model can hold at once; all memory is taken from these at load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sequences that run together.
    pub max_batch: usize,
    /// Tokens of one step: longer prompts are fed in chunks.
    pub max_step_tokens: usize,
    /// Longest sequence, P-tuning prefix included.
    pub max_context: usize,
    /// Blocks of the KV cache, shared by all sequences.
    pub kv_blocks: usize,
    /// Rows of logits that one step can give.
    pub max_logit_rows: usize,
}

impl Limits {
    /// For `max_batch` sequences of at most `max_tokens` tokens each, all of them running together.
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
    /// Position of every row (the prefix does not count).
    pub positions: &'a [u32],
    /// The sequences; their rows are consecutive and cover all rows.
    pub sequences: &'a [SequenceView<'a>],
    /// Rows whose logits are wanted.
    pub logit_rows: &'a [usize],
}

/// A loaded model, whatever its device.
pub trait Forward: Send {
    /// Runs one step; `logits` is `[logit_rows, padded_vocab_size]` afterwards.
    fn forward(&mut self, step: &StepInput<'_>, logits: &mut Vec<f32>) -> Result<(), EngineError>;
    /// Writes the P-tuning prefix into a new sequence's first blocks; does nothing without one.
    fn write_prefix(&mut self, blocks: &[u32]) -> Result<(), EngineError>;
    /// The device.
    fn device_info(&self) -> DeviceInfo;
    /// Nanoseconds on the device's virtual clock; `None` where real time passes.
    fn modelled_ns(&self) -> Option<u64>;
    /// The limits it was loaded for.
    fn limits(&self) -> Limits;
    /// Its shape.
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

/// Activations, named after what they hold.
struct Buffers<D: Device> {
    /// Residual stream.
    x: D::Activation,
    /// Normed stream.
    a: D::Activation,
    /// `[q | k | v]`.
    qkv: D::Activation,
    /// Attention result, all heads.
    heads: D::Activation,
    /// What is added to the stream.
    y: D::Activation,
    /// `[gate | up]`.
    h: D::Activation,
    /// `silu(gate) * up`.
    g: D::Activation,
    /// Rows whose logits are wanted, and the same normed.
    last: D::Activation,
    last_normed: D::Activation,
    logits: D::Activation,
}

/// ChatGLM2 on one device.
pub struct Model<D: Device> {
    device: D,
    config: ModelConfig,
    limits: Limits,
    weights: Weights<D>,
    buffers: Buffers<D>,
    cache: D::KvCache,
}

/// The attention operator's shape for a model.
pub fn attention_shape(config: &ModelConfig) -> AttentionShape {
    AttentionShape {
        heads: config.num_attention_heads,
        kv_heads: config.num_kv_heads,
        channels: config.kv_channels,
    }
}

impl<D: Device> Model<D> {
    /// Loads the weights onto `device` and takes all memory. `progress` hears the tensors loaded and their number.
    pub fn load(
        device: D,
        config: ModelConfig,
        rotary: RotaryMode,
        limits: Limits,
        source: &dyn WeightSource,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, EngineError> {
        let mut loader = Loader { device, config: &config, source, done: 0, progress };
        let weights = loader.weights(rotary, limits)?;
        let device = loader.device;
        let buffers = Buffers::new(&device, &config, limits)?;
        let shape = KvShape {
            layers: config.num_layers,
            kv_heads: config.num_kv_heads,
            channels: config.kv_channels,
            blocks: limits.kv_blocks,
        };
        let cache = device.kv_cache(shape)?;
        Ok(Self { device, config, limits, weights, buffers, cache })
    }
}

impl<D: Device> Buffers<D> {
    fn new(device: &D, config: &ModelConfig, limits: Limits) -> Result<Self, EngineError> {
        let rows = |width| device.activation(limits.max_step_tokens, width);
        let last = |width| device.activation(limits.max_logit_rows, width);
        Ok(Self {
            x: rows(config.hidden_size)?,
            a: rows(config.hidden_size)?,
            qkv: device.qkv_activation(limits.max_step_tokens, attention_shape(config))?,
            heads: rows(config.q_width())?,
            y: rows(config.hidden_size)?,
            h: rows(2 * config.ffn_hidden_size)?,
            g: rows(config.ffn_hidden_size)?,
            last: last(config.hidden_size)?,
            last_normed: last(config.hidden_size)?,
            logits: last(config.padded_vocab_size)?,
        })
    }
}

impl<D: Device> Forward for Model<D> {
    fn forward(&mut self, step: &StepInput<'_>, logits: &mut Vec<f32>) -> Result<(), EngineError> {
        let Self { device: d, config, weights, buffers: b, cache, .. } = self;
        let shape = attention_shape(config);
        let epsilon = config.layernorm_epsilon;
        d.embed(&weights.embedding, step.tokens, &mut b.x)?;
        for (index, layer) in weights.layers.iter().enumerate() {
            d.rms_norm(&b.x, &layer.input_norm, epsilon, &mut b.a)?;
            d.linear(&b.a, &layer.qkv, &mut b.qkv)?;
            d.rotary(&mut b.qkv, &weights.rotary, step.positions, shape)?;
            d.write_kv(&b.qkv, cache, index, step.sequences, shape)?;
            d.attention(&b.qkv, cache, index, step.sequences, shape, &mut b.heads)?;
            d.linear(&b.heads, &layer.dense, &mut b.y)?;
            d.all_reduce(&mut b.y)?;
            d.add(&mut b.x, &b.y)?;
            d.rms_norm(&b.x, &layer.post_norm, epsilon, &mut b.a)?;
            d.linear(&b.a, &layer.h_to_4h, &mut b.h)?;
            d.swiglu(&b.h, &mut b.g)?;
            d.linear(&b.g, &layer.down, &mut b.y)?;
            d.all_reduce(&mut b.y)?;
            d.add(&mut b.x, &b.y)?;
        }
        logits.clear();
        if step.logit_rows.is_empty() {
            return Ok(());
        }
        d.gather(&b.x, step.logit_rows, &mut b.last)?;
        d.rms_norm(&b.last, &weights.final_norm, epsilon, &mut b.last_normed)?;
        d.linear(&b.last_normed, &weights.output, &mut b.logits)?;
        d.download(&b.logits, logits)?;
        Ok(())
    }

    fn write_prefix(&mut self, blocks: &[u32]) -> Result<(), EngineError> {
        let Self { device, config, limits, weights, buffers, cache } = self;
        let shape = attention_shape(config);
        let width = 2 * config.kv_width();
        for (layer, rows) in weights.prefix.iter().enumerate() {
            let mut context = 0;
            for chunk in rows.chunks(limits.max_step_tokens * width) {
                // The cache is written from [q | k | v] rows; the prefix has no queries.
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

    fn device_info(&self) -> DeviceInfo {
        self.device.info()
    }

    fn modelled_ns(&self) -> Option<u64> {
        self.device.modelled_ns()
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn config(&self) -> &ModelConfig {
        &self.config
    }
}

/// Takes tensors from the source in the order of the forward pass and releases each when the device has it.
struct Loader<'a, D: Device> {
    device: D,
    config: &'a ModelConfig,
    source: &'a dyn WeightSource,
    done: usize,
    progress: &'a mut dyn FnMut(usize, usize),
}

impl<D: Device> Loader<'_, D> {
    fn weights(&mut self, mode: RotaryMode, limits: Limits) -> Result<Weights<D>, EngineError> {
        let c = self.config;
        let embedding = self.with(
            "transformer.embedding.word_embeddings.weight",
            &[c.padded_vocab_size, c.hidden_size],
            |d, t| d.upload_table(t),
        )?;
        let layers = (0..c.num_layers).map(|i| self.layer(i)).collect::<Result<_, _>>()?;
        let final_norm = self.vector("transformer.encoder.final_layernorm.weight", c.hidden_size)?;
        let output = self.linear("transformer.output_layer", [c.padded_vocab_size, c.hidden_size], false)?;
        let spec = RotarySpec {
            channels: c.rotary_channels(),
            scaling: c.rotary_scaling(),
            mode,
            dtype: self.device.info().dtype,
        };
        let rotary = self.device.upload_rotary(&RotaryTable::new(spec, limits.max_context))?;
        let prefix = match c.pre_seq_len {
            Some(length) => self.prefix(length)?,
            None => Vec::new(),
        };
        Ok(Weights { embedding, rotary, layers, final_norm, output, prefix })
    }

    fn layer(&mut self, index: usize) -> Result<Layer<D>, EngineError> {
        let c = self.config;
        let name = |part: &str| format!("transformer.encoder.layers.{index}.{part}");
        Ok(Layer {
            input_norm: self.vector(&name("input_layernorm.weight"), c.hidden_size)?,
            qkv: self.biased(
                &name("self_attention.query_key_value"),
                [c.qkv_width(), c.hidden_size],
                c.qkv_bias,
                |d, weight, bias| d.upload_qkv(weight, bias, attention_shape(c)),
            )?,
            dense: self.linear(&name("self_attention.dense"), [c.hidden_size, c.q_width()], false)?,
            post_norm: self.vector(&name("post_attention_layernorm.weight"), c.hidden_size)?,
            h_to_4h: self.with(
                &name("mlp.dense_h_to_4h.weight"),
                &[2 * c.ffn_hidden_size, c.hidden_size],
                |d, weight| d.upload_gate_up(weight),
            )?,
            down: self.linear(&name("mlp.dense_4h_to_h"), [c.hidden_size, c.ffn_hidden_size], false)?,
        })
    }

    /// Keys and values of the P-tuning prefix: an embedding row a virtual token, `[layers, k|v, kv_heads, channels]`,
    /// with `prefix_projection` through `Linear, tanh, Linear`.
    fn prefix(&mut self, length: usize) -> Result<Vec<Vec<f32>>, EngineError> {
        let c = self.config;
        let (pair, width) = (2 * c.kv_width(), 2 * c.kv_width() * c.num_layers);
        let name = "transformer.prefix_encoder.embedding.weight";
        let mut rows = self.with(name, &[length, width], |_, t| Ok(t.to_f32()))?;
        if c.prefix_projection {
            let first = self.linear("transformer.prefix_encoder.trans.0", [c.hidden_size, width], true)?;
            let second = self.linear("transformer.prefix_encoder.trans.2", [width, c.hidden_size], true)?;
            let mut inner = self.project(&rows, (length, width, c.hidden_size), &first)?;
            inner.iter_mut().for_each(|v| *v = v.tanh());
            rows = self.project(&inner, (length, c.hidden_size, width), &second)?;
        }
        let of_layer = |layer: usize| {
            rows.chunks_exact(width).flat_map(|row| row[layer * pair..(layer + 1) * pair].to_vec()).collect()
        };
        Ok((0..c.num_layers).map(of_layer).collect())
    }

    /// `rows` `[length, from]` through a linear layer to `[length, to]`.
    fn project(
        &mut self,
        rows: &[f32],
        (length, from, to): (usize, usize, usize),
        linear: &D::Linear,
    ) -> Result<Vec<f32>, EngineError> {
        let mut x = self.device.activation(length, from)?;
        let mut y = self.device.activation(length, to)?;
        let mut out = Vec::new();
        self.device.upload(rows, &mut x)?;
        self.device.linear(&x, linear, &mut y)?;
        self.device.download(&y, &mut out)?;
        Ok(out)
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<D::Vector, EngineError> {
        self.with(name, &[len], |d, t| d.upload_vector(t))
    }

    fn linear(&mut self, name: &str, shape: [usize; 2], bias: bool) -> Result<D::Linear, EngineError> {
        self.biased(name, shape, bias, |d, weight, bias| d.upload_linear(weight, bias))
    }

    /// A weight with its bias, if there is to be one, handed over by `upload`.
    fn biased(
        &mut self,
        name: &str,
        shape: [usize; 2],
        bias: bool,
        upload: impl FnOnce(&D, HostTensor<'_>, Option<HostTensor<'_>>) -> Result<D::Linear, DeviceError>,
    ) -> Result<D::Linear, EngineError> {
        let bias = if bias {
            let name = format!("{name}.bias");
            Some(self.with(&name, &shape[..1], |_, t| Ok(OwnedTensor::of(t)))?)
        } else {
            None
        };
        self.with(&format!("{name}.weight"), &shape, |d, t| {
            upload(d, t, bias.as_ref().map(OwnedTensor::view))
        })
    }

    /// Gets one tensor, hands it over, and releases it.
    fn with<T>(
        &mut self,
        name: &str,
        shape: &[usize],
        upload: impl FnOnce(&D, HostTensor<'_>) -> Result<T, DeviceError>,
    ) -> Result<T, EngineError> {
        let view = self.source.tensor(name, shape)?;
        let result = upload(&self.device, host(&view))?;
        drop(view);
        self.source.release(name);
        self.done += 1;
        (self.progress)(self.done, self.config.num_layers * 7 + 3);
        Ok(result)
    }
}

/// A small tensor kept while its companion is fetched.
struct OwnedTensor {
    dtype: DType,
    width: usize,
    data: Vec<u8>,
}

impl OwnedTensor {
    fn of(tensor: HostTensor<'_>) -> Self {
        Self { dtype: tensor.dtype, width: tensor.width, data: tensor.data.to_vec() }
    }

    fn view(&self) -> HostTensor<'_> {
        HostTensor { dtype: self.dtype, rows: 1, width: self.width, data: &self.data }
    }
}

/// A stored tensor as the device takes it: a vector is one row.
fn host<'a>(view: &'a TensorView<'_>) -> HostTensor<'a> {
    let (rows, width) = match view.shape.as_slice() {
        [rows, width] => (*rows, *width),
        shape => (1, shape.iter().product()),
    };
    let dtype = match view.dtype {
        StorageType::F32 => DType::Fp32,
        StorageType::F16 => DType::Fp16,
        StorageType::Bf16 => DType::Bf16,
    };
    HostTensor { dtype, rows, width, data: &view.data }
}

impl From<WeightError> for EngineError {
    fn from(error: WeightError) -> Self {
        Self::Weights(error)
    }
}
