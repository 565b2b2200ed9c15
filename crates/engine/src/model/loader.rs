//! Loading: reads a rank's part of each tensor, brings it into the form of the run, and passes it to the device.

use glmbench_device::rotary::{RotaryMode, RotarySpec, RotaryTable};
use glmbench_device::{DType, Device, DeviceError, HostTensor, Role, WeightForm};

use crate::EngineError;
use crate::config::ModelConfig;
use crate::cut::Cut;
use crate::weights::layout::LinearId;
use crate::weights::quantised::{StoredLinear, norm_of};
use crate::weights::{StorageType, TensorView, WeightSource, layout};

use super::{Layer, Weights};

/// Reads a rank's part of each tensor from the source, in the order of the forward pass. Releases each tensor once the
/// device holds it.
pub(super) struct Loader<'a, D: Device> {
    device: D,
    whole: &'a ModelConfig,
    cut: Cut,
    source: &'a dyn WeightSource,
    /// The form into which dense weights of linear layers are brought.
    form: WeightForm,
    done: usize,
    progress: &'a mut dyn FnMut(usize, usize),
}

impl<'a, D: Device> Loader<'a, D> {
    /// Creates a loader for the shard `cut` of the model `whole`. `progress` receives the tensors loaded and their number.
    ///
    /// The form of linear layers follows from the types that the run asked for, which the device carries.
    pub(super) fn new(
        device: D,
        whole: &'a ModelConfig,
        cut: Cut,
        source: &'a dyn WeightSource,
        progress: &'a mut dyn FnMut(usize, usize),
    ) -> Self {
        // The layers that a quantised checkpoint leaves in float stay so.
        let form = match whole.quantised {
            Some(_) => WeightForm::Plain,
            None => device.info().precision.weights,
        };
        Self { device, whole, cut, source, form, done: 0, progress }
    }

    /// Loads all weights, and a rotary table for `max_context` positions. Returns the device with them.
    pub(super) fn load(
        mut self,
        mode: RotaryMode,
        max_context: usize,
    ) -> Result<(D, Weights<D>), EngineError> {
        let weights = self.weights(mode, max_context)?;
        Ok((self.device, weights))
    }

    fn weights(&mut self, mode: RotaryMode, max_context: usize) -> Result<Weights<D>, EngineError> {
        let c = self.whole;
        let embedding = self.with(layout::EMBEDDING, |d, t| d.upload_table(t))?;
        let layers = (0..c.num_layers).map(|i| self.layer(i)).collect::<Result<_, _>>()?;
        let final_norm = self.norm(layout::FINAL_NORM)?;
        let output = self.linear(Role::Output, layout::OUTPUT, None)?;
        let spec = RotarySpec {
            channels: c.rotary_channels(),
            scaling: c.rotary_scaling(),
            mode,
            dtype: self.device.info().precision.dtype,
        };
        let rotary = self.device.upload_rotary(&RotaryTable::new(spec, max_context))?;
        let prefix = if c.pre_seq_len.is_some() { self.prefix()? } else { Vec::new() };
        Ok(Weights { embedding, rotary, layers, final_norm, output, prefix })
    }

    fn layer(&mut self, index: usize) -> Result<Layer<D>, EngineError> {
        let name = |part: &str| layout::layer_tensor(index, part);
        let bias = self.whole.qkv_bias.then(|| name(layout::QKV_BIAS));
        Ok(Layer {
            input_norm: self.norm(&name(layout::INPUT_NORM))?,
            qkv: self.linear(Role::Qkv, &name(layout::QKV_WEIGHT), bias.as_deref())?,
            dense: self.linear(Role::Dense, &name(layout::ATTENTION_DENSE), None)?,
            post_norm: self.norm(&name(layout::POST_NORM))?,
            h_to_4h: self.linear(Role::GateUp, &name(layout::FFN_UP), None)?,
            down: self.linear(Role::Down, &name(layout::FFN_DOWN), None)?,
        })
    }

    /// Computes keys and values of the P-tuning prefix, `[layers, k|v, kv_heads, channels]` per virtual token.
    /// Each virtual token has an embedding row; with `prefix_projection` it passes through `Linear, tanh, Linear`. The
    /// prefix is computed whole; then the rank keeps its KV heads.
    fn prefix(&mut self) -> Result<Vec<Vec<f32>>, EngineError> {
        let c = self.whole;
        let width = layout::prefix_width(c);
        let mut rows = self.with(layout::PREFIX_EMBEDDING, |_, t| Ok(t.to_f32()))?;
        if c.prefix_projection {
            let first =
                self.linear(Role::Prefix, layout::PREFIX_DOWN_WEIGHT, Some(layout::PREFIX_DOWN_BIAS))?;
            let second = self.linear(Role::Prefix, layout::PREFIX_UP_WEIGHT, Some(layout::PREFIX_UP_BIAS))?;
            let mut inner =
                self.project(&rows, Projection { linear: &first, from: width, to: c.hidden_size })?;
            inner.iter_mut().for_each(|v| *v = v.tanh());
            rows = self.project(&inner, Projection { linear: &second, from: c.hidden_size, to: width })?;
        }
        let heads = self.cut.kv_heads(c);
        let of_rank = |kv: &[f32]| kv[heads.start * c.kv_channels..heads.end * c.kv_channels].to_vec();
        let of_layer = |layer: usize| {
            let pair = layer * 2 * c.kv_width()..(layer + 1) * 2 * c.kv_width();
            let of_row =
                |row: &[f32]| row[pair.clone()].chunks_exact(c.kv_width()).flat_map(of_rank).collect();
            rows.chunks_exact(width).flat_map(|row| -> Vec<f32> { of_row(row) }).collect()
        };
        Ok((0..c.num_layers).map(of_layer).collect())
    }

    /// Applies a linear layer to `rows`, `[length, from]`, giving `[length, to]`.
    fn project(
        &mut self,
        rows: &[f32],
        Projection { linear, from, to }: Projection<'_, D>,
    ) -> Result<Vec<f32>, EngineError> {
        let length = rows.len() / from;
        let mut x = self.device.activation(length, from)?;
        let mut y = self.device.activation(length, to)?;
        let mut out = Vec::new();
        self.device.upload(rows, &mut x)?;
        self.device.linear(&x, linear, &mut y)?;
        self.device.download(&y, &mut out)?;
        Ok(out)
    }

    /// Uploads the weight of a norm: the one that goes with the layer that reads the norm's result.
    fn norm(&mut self, name: &str) -> Result<D::Vector, EngineError> {
        let name = norm_of(self.source, self.whole, name)?;
        let view = self.source.tensor(&name, &[self.whole.hidden_size])?;
        let vector = self.device.upload_vector(host(&view))?;
        drop(view);
        self.loaded(&name);
        Ok(vector)
    }

    /// Reads the weight of a linear layer and its bias, if any, and uploads them. A quantised checkpoint gives the form;
    /// otherwise the run does.
    fn linear(&mut self, role: Role, weight: &str, bias: Option<&str>) -> Result<D::Linear, EngineError> {
        if let Some(id) = LinearId::of_weight(weight) {
            let (part, is_first) = (self.cut.part(self.whole, weight), self.cut.rank() == 0);
            if let Some(stored) = StoredLinear::read(self.source, self.whole, id, &part, is_first)? {
                return self.stored_linear(role, &stored, bias);
            }
        }
        let bias = bias.map(|name| self.with(name, |_, t| Ok(OwnedTensor::of(t)))).transpose()?;
        let form = self.form;
        self.with(weight, |d, dense| {
            d.upload_linear(role, form.of_dense(dense), bias.as_ref().map(OwnedTensor::view))
        })
    }

    /// Uploads a quantised weight, with the layer's bias unless the weight has it.
    fn stored_linear(
        &mut self,
        role: Role,
        stored: &StoredLinear<'_>,
        bias: Option<&str>,
    ) -> Result<D::Linear, EngineError> {
        if stored.has_bias() && bias.is_some() {
            self.count();
        }
        let bias = bias.filter(|_| !stored.has_bias());
        let bias = bias.map(|name| self.with(name, |_, t| Ok(OwnedTensor::of(t)))).transpose()?;
        let linear =
            self.device.upload_linear(role, stored.weight()?, bias.as_ref().map(OwnedTensor::view))?;
        stored.release(self.source);
        self.count();
        Ok(linear)
    }

    /// Reads this rank's part of one tensor, passes it to `upload`, and releases it.
    fn with<T>(
        &mut self,
        name: &str,
        upload: impl FnOnce(&D, HostTensor<'_>) -> Result<T, DeviceError>,
    ) -> Result<T, EngineError> {
        let shape = layout::expected_shape(self.whole, name).expect("invariant: a tensor of the model");
        let view = self.source.part(name, &shape, &self.cut.part(self.whole, name))?;
        let result = upload(&self.device, host(&view))?;
        drop(view);
        self.loaded(name);
        Ok(result)
    }

    /// Releases a tensor that the device holds.
    fn loaded(&mut self, name: &str) {
        self.source.release(name);
        self.count();
    }

    fn count(&mut self) {
        self.done += 1;
        (self.progress)(self.done, self.whole.num_layers * 7 + 3);
    }
}

/// A linear layer that is applied while loading, and its widths.
struct Projection<'a, D: Device> {
    linear: &'a D::Linear,
    from: usize,
    to: usize,
}

/// A copy of a small tensor, kept while the weight it belongs to is read.
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

/// Converts a stored tensor to the device's form: a vector becomes one row.
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
