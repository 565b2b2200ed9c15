//! Probes which operators this chip and this CANN version support, by calling their first stages.

mod survey;

use std::cell::RefCell;

use glmbench_device::{AttentionShape, DType, DeviceError, KV_BLOCK_TOKENS, KvForm, Precision};

use super::api::Api;
use super::choice::{
    Addition, Bias, Choices, Decode, Forced, Graph, Int8Form, KvWrite, Prefill, Reuse, Rotation, WeightFormat,
};
use super::core::Core;
use super::graph;
use super::kv::BlockOrder;
use super::launch::{Plan, destroy, given_back, set_repeatable};
use super::layout::HeadLayout;
use super::memory::Buffer;
use super::ops::{self, CAUSAL_MASK_SIDE, FusedStep, Heads, PagedCache, PagedOperator, PromptLayout};
use super::settings::Chip;
use super::tensor::{Element, IntArray, TensorList, View};
use super::widener::FOLDED;

pub use self::survey::Alternative;
pub(super) use self::survey::survey;

/// Blocks of the probed cache.
const BLOCKS: usize = 2;
/// Rows of the probed prefill.
const ROWS: usize = 128;

/// The selected choices, and why preferred ones were refused.
pub(super) struct Probed {
    pub(super) choices: Choices,
    /// Layout of heads on the device, padded further if the rotary operator requires it.
    pub(super) layout: HeadLayout,
    /// Refused alternatives, with the libraries' messages.
    pub(super) refused: Vec<(&'static str, String)>,
}

/// A choice that returns a wrong result.
#[derive(Debug)]
pub(super) struct Wrong {
    /// `kv`, `prefill` or `decode`.
    pub(super) capability: &'static str,
    /// The name of the choice.
    pub(super) word: &'static str,
    /// What was found, for the record.
    pub(super) why: String,
}

/// Selects an alternative for every capability, in the chip's order of preference. Attention and writes are asked about a
/// cache of the form `kv`.
pub(super) fn probe(
    core: &Core,
    chip: Chip,
    layout: HeadLayout,
    kv: KvForm,
    forced: Forced,
    discarded: &[Wrong],
) -> Result<Probed, DeviceError> {
    // First stages check shapes, not values. All probes share one buffer.
    let memory = core.slab.take(CAUSAL_MASK_SIDE * CAUSAL_MASK_SIDE * 2, "a probe of the operators")?;
    let mut probe =
        Probe { core, layout, kv, memory, discarded, refused: Vec::new(), single_use: RefCell::default() };
    probe.fill_heads(forced.rotary)?;
    let duo = chip == Chip::Duo300i;
    let weights: &[WeightFormat] = if duo {
        &[WeightFormat::FractalOperator, WeightFormat::FractalMm, WeightFormat::Fractal, WeightFormat::Plain]
    } else {
        &[WeightFormat::Plain, WeightFormat::FractalOperator, WeightFormat::FractalMm, WeightFormat::Fractal]
    };
    let weights = probe.choose("weights", weights, forced.weights, |p, c| p.weights(c))?;
    let add = probe.choose("add", Addition::ALL, forced.add, |p, c| p.add(c))?;
    let bias = probe.choose("bias", Bias::ALL, forced.bias, |p, c| p.bias(c, weights))?;
    let decode = probe.choose("decode", Decode::ALL, forced.decode, |p, c| p.decode(c))?;
    let order = BlockOrder::of(decode);
    let prefill = probe.choose("prefill", Prefill::ALL, forced.prefill, |p, c| p.prefill(c, order))?;
    let kv = probe.choose("kv", KvWrite::ALL, forced.kv, |p, c| p.kv(c, order))?;
    let rotary = probe.choose("rotary", Rotation::ALL, forced.rotary, |p, c| p.rotary(c))?;
    let reuse = probe.choose("reuse", Reuse::ALL, forced.reuse, |p, c| Ok(p.reuse(c)))?;
    if reuse == Reuse::Kept {
        probe.refused.extend(probe.single_use.take().into_iter().map(|why| ("reuse", why)));
    }
    let graph = probe.choose("graph", Graph::ALL, forced.graph, |p, c| p.graph(c, reuse))?;
    let choices = Choices { weights, bias, kv, rotary, decode, prefill, add, reuse, graph };
    Ok(Probed { choices, layout: probe.layout, refused: probe.refused })
}

struct Probe<'a> {
    core: &'a Core,
    layout: HeadLayout,
    kv: KvForm,
    memory: Buffer,
    /// Choices that returned wrong results.
    discarded: &'a [Wrong],
    refused: Vec<(&'static str, String)>,
    /// Operators whose plans cannot be kept, and why.
    single_use: RefCell<Vec<String>>,
}

/// Accepted, or the reason for the refusal.
type Answer = Result<Result<(), String>, DeviceError>;

impl Probe<'_> {
    /// Returns the first accepted alternative. If one is forced, only that one is probed.
    fn choose<C: Copy + Word>(
        &mut self,
        name: &'static str,
        all: &[C],
        forced: Option<C>,
        ask: impl Fn(&Self, C) -> Answer,
    ) -> Result<C, DeviceError> {
        let asked = forced.as_ref().map_or(all, std::slice::from_ref);
        let mut reasons = Vec::new();
        for choice in asked {
            let is_this = |wrong: &&Wrong| (wrong.capability, wrong.word) == (name, choice.word());
            if let Some(wrong) = self.discarded.iter().find(is_this) {
                reasons.push(format!("{}: {}", choice.word(), wrong.why));
                continue;
            }
            match ask(self, *choice)? {
                Ok(()) => {
                    self.refused.extend(reasons.into_iter().map(|reason| (name, reason)));
                    return Ok(*choice);
                }
                Err(reason) => reasons.push(format!("{}: {reason}", choice.word())),
            }
        }
        let problem = format!("no way to do {name} is accepted: {}", reasons.join("; "));
        Err(DeviceError::Unsupported { device: self.core.api().device, problem })
    }

    fn api(&self) -> &Api {
        self.core.api()
    }

    /// Returns whether a first stage accepts, and destroys the plan. A lost device is an error.
    fn accepts(&self, plan: Result<Plan, DeviceError>) -> Answer {
        let plan = match plan {
            Ok(plan) => plan,
            Err(error @ DeviceError::Lost { .. }) => return Err(error),
            Err(error) => return Ok(Err(error.to_string())),
        };
        let name = plan.name;
        if let Err((plan, why)) = given_back(self.api(), plan)? {
            // It runs on zeros, whatever ran before it.
            self.memory.clear()?;
            self.spend(plan)?;
            self.single_use.borrow_mut().push(format!("{name}: {why}"));
        }
        Ok(Ok(()))
    }

    /// Destroys an executor that cannot be kept, which takes a run. Nothing uses the memory after that.
    fn spend(&self, plan: Plan) -> Result<(), DeviceError> {
        self.core.run(Ok(plan))?;
        self.core.stream.synchronize()
    }

    /// Returns whether all plans are accepted. Each plan is destroyed before the next is created. The reason is the first
    /// refusal.
    fn accepts_all(&self, plans: &[&dyn Fn() -> Result<Plan, DeviceError>]) -> Answer {
        let mut answer = Ok(());
        for plan in plans {
            let one = self.accepts(plan())?;
            answer = answer.and(one);
        }
        Ok(answer)
    }

    /// Returns a view of any shape, in the model's type.
    fn view(&self, dims: &[usize]) -> View {
        View::new(self.memory.at(0), self.core.element(), dims)
    }

    /// Returns the same view in the other half of the memory.
    fn apart(&self, view: View) -> View {
        view.moved(self.memory.at(self.memory.len() / 2))
    }

    fn words(&self, dims: &[usize]) -> View {
        View::new(self.memory.at(0), Element::Int32, dims)
    }

    fn weights(&self, format: WeightFormat) -> Answer {
        self.product(format, [1, 256, 256])
    }

    /// Probes the product of `[m, k]` and a weight `[n, k]`.
    fn product(&self, format: WeightFormat, [m, k, n]: [usize; 3]) -> Answer {
        let (rows, weight, out) = (self.view(&[m, k]), self.view(&[n, k]), self.view(&[m, n]));
        let right = weight.transposed();
        match format {
            WeightFormat::Plain => self.accepts(ops::matmul(self.api(), rows, right, out)),
            WeightFormat::Fractal | WeightFormat::FractalMm | WeightFormat::FractalOperator => {
                if let Err(reason) = self.accepts(ops::to_fractals(self.api(), weight))? {
                    return Ok(Err(reason));
                }
                let right = right.in_fractals();
                self.accepts(match format {
                    WeightFormat::FractalOperator => ops::matmul_nz(self.api(), rows, right, out),
                    WeightFormat::FractalMm => ops::mm(self.api(), rows, right, out),
                    WeightFormat::Fractal | WeightFormat::Plain => ops::matmul(self.api(), rows, right, out),
                })
            }
        }
    }

    /// Probes the operators of a form of int8 weights.
    fn int8(&self, form: Int8Form, weights: WeightFormat) -> Answer {
        let (api, [m, k, n]) = (self.api(), [1, 256, 256]);
        let view = |element, dims: &[usize]| View::new(self.memory.at(0), element, dims);
        let (rows, out, weight) = (self.view(&[m, k]), self.view(&[m, n]), view(Element::Int8, &[n, k]));
        let is_bf16 = self.core.dtype == DType::Bf16;
        match form {
            Int8Form::Static => {
                let one = self.view(&[1]);
                let (q, bias) = (view(Element::Int8, &[m, k]), view(Element::Int32, &[n]));
                let scales = view(if is_bf16 { Element::Fp32 } else { Element::Uint64 }, &[n]);
                let fractal = weights != WeightFormat::Plain;
                if fractal && let Err(reason) = self.accepts(ops::to_fractals(api, weight))? {
                    return Ok(Err(reason));
                }
                let right = if fractal { weight.in_fractals() } else { weight };
                self.accepts_all(&[&|| ops::quantise(api, rows, [one, one], q), &|| {
                    ops::quant_matmul(api, q, right, [scales, bias], out)
                }])
            }
            Int8Form::Float => {
                let bias = view(if is_bf16 { Element::Fp32 } else { self.core.element() }, &[n]);
                let scales = self.view(&[n]);
                self.accepts(ops::weight_quant_matmul(
                    api,
                    rows,
                    weight.transposed(),
                    scales,
                    Some(bias),
                    out,
                ))
            }
        }
    }

    fn bias(&self, bias: Bias, weights: WeightFormat) -> Answer {
        let (api, side) = (self.api(), 256);
        match bias {
            Bias::Addmm if weights != WeightFormat::Plain => Ok(Err("the weights are in fractals".into())),
            Bias::Addmm => {
                let (row, square) = (self.view(&[1, side]), self.view(&[side, side]));
                self.accepts(ops::addmm(api, self.view(&[side]), row, square.transposed(), row))
            }
            Bias::Folded => {
                let (rows, width) = (2, side + FOLDED);
                let wide = View::matrix(self.memory.at(0), self.core.element(), rows, side, width);
                if let Err(reason) = self.accepts(ops::copy(api, wide, self.view(&[rows, side])))? {
                    return Ok(Err(reason));
                }
                self.product(weights, [rows, width, side])
            }
            // Done by the operator of residuals, which was also probed with a bias's shape.
            Bias::Added => Ok(Ok(())),
        }
    }

    fn heads(&self) -> Heads {
        Heads { query: self.layout.shape.heads, kv: self.layout.shape.kv_heads, scale: 0.1 }
    }

    /// Returns a view of any shape, in the cache's type.
    fn cached(&self, dims: &[usize]) -> View {
        let element = if self.kv == KvForm::C8 { Element::Int8 } else { self.core.element() };
        View::new(self.memory.at(0), element, dims)
    }

    fn list(&self, order: BlockOrder) -> Result<TensorList, DeviceError> {
        let (heads, channels) = (self.layout.shape.kv_heads, self.layout.channels);
        let view = match order {
            BlockOrder::TokenHead => self.cached(&[BLOCKS, KV_BLOCK_TOKENS, heads * channels]),
            BlockOrder::HeadToken => self.cached(&[BLOCKS, heads, KV_BLOCK_TOKENS, channels]),
        };
        TensorList::of(self.api(), view)
    }

    /// Probes an operator over a paged cache, with one sequence of `rows` rows. Several rows have a mask.
    fn paged(&self, rows: usize, dims: &[usize], order: BlockOrder, plan: PagedOperator) -> Answer {
        let api = self.api();
        let side = [CAUSAL_MASK_SIDE, CAUSAL_MASK_SIDE];
        let mask = View::new(self.memory.at(0), Element::Bool, &side);
        let step = FusedStep {
            query: self.view(dims).tensor(api)?,
            out: self.view(dims).tensor(api)?,
            table: self.words(&[1, BLOCKS]).tensor(api)?,
            ends: IntArray::new(api, &[rows as i64])?,
            contexts: IntArray::new(api, &[(rows.max(2)) as i64])?,
            mask: if rows > 1 { Some(mask.tensor(api)?) } else { None },
        };
        let (keys, values) = (self.list(order)?, self.list(order)?);
        let AttentionShape { kv_heads, .. } = self.layout.shape;
        let channels = match order {
            BlockOrder::TokenHead => self.view(&[2, kv_heads * self.layout.channels]),
            BlockOrder::HeadToken => self.view(&[2, kv_heads, 1, self.layout.channels]),
        };
        let antiquant = [channels.tensor(api)?, channels.tensor(api)?];
        let [scale, offset] = &antiquant;
        let cache = PagedCache {
            lists: [&keys, &values],
            block: KV_BLOCK_TOKENS,
            antiquant: (self.kv == KvForm::C8).then_some([scale, offset]),
        };
        self.accepts(plan(api, &step, cache, self.heads()))
    }

    /// Returns the shape of `rows` queries of one sequence for the fused operator.
    fn fused_queries(&self, rows: usize) -> Vec<usize> {
        match self.kv {
            KvForm::C8 => vec![1, rows, self.layout.q_width()],
            _ => vec![rows, self.layout.shape.heads, self.layout.channels],
        }
    }

    /// Probes what turns gathered integers into numbers. The addition between is asked about by itself ([`Self::add`]).
    fn dequantised(&self, order: BlockOrder) -> Answer {
        if self.kv != KvForm::C8 {
            return Ok(Ok(()));
        }
        let (api, width) = (self.api(), self.layout.kv_width());
        let (heads, channels) = (self.layout.shape.kv_heads, self.layout.channels);
        let (dims, by) = match order {
            BlockOrder::TokenHead => (vec![KV_BLOCK_TOKENS, width], vec![width]),
            BlockOrder::HeadToken => (vec![1, heads, KV_BLOCK_TOKENS, channels], vec![heads, 1, channels]),
        };
        let (numbers, integers) = (self.view(&dims), self.cached(&dims));
        let (table, by) = (self.cached(&[BLOCKS, width]), self.apart(self.view(&by)));
        self.accepts_all(&[
            &|| ops::gather(api, table, self.words(&[1]), self.cached(&[1, width])),
            &|| ops::copy(api, numbers, self.apart(integers)),
            &|| ops::multiply(api, numbers, by),
        ])
    }

    fn decode(&self, decode: Decode) -> Answer {
        let (shape, channels) = (self.layout.shape, self.layout.channels);
        let order = BlockOrder::of(decode);
        match decode {
            Decode::Fused => self.paged(1, &self.fused_queries(1), order, ops::fused_attention),
            Decode::IncrementalByHeads => {
                let dims = [1, shape.heads, 1, channels];
                self.paged(1, &dims, order, ops::incremental_attention_by_heads)
            }
            Decode::Incremental => {
                let dims = [1, 1, self.layout.q_width()];
                self.paged(1, &dims, order, ops::incremental_attention)
            }
            Decode::Prompt => {
                if let Err(reason) = self.dequantised(order)? {
                    return Ok(Err(reason));
                }
                let group = shape.heads / shape.kv_heads;
                let small = self.view(&[1, shape.kv_heads, group, channels]);
                let large = self.view(&[1, shape.kv_heads, KV_BLOCK_TOKENS, channels]);
                let heads = Heads { query: shape.kv_heads, kv: 0, ..self.heads() };
                let lengths = [&[group as i64][..], &[2][..]];
                let views = [small, large, large, small];
                self.accepts(ops::prompt_attention(
                    self.api(),
                    views,
                    None,
                    lengths,
                    heads,
                    PromptLayout::Bnsd,
                ))
            }
            Decode::Matmul => self.matmul_attention(1, order),
        }
    }

    fn prefill(&self, prefill: Prefill, order: BlockOrder) -> Answer {
        let (shape, channels) = (self.layout.shape, self.layout.channels);
        match prefill {
            Prefill::Fused if order == BlockOrder::HeadToken => {
                Ok(Err("the cache's order is that of another decode operator".into()))
            }
            Prefill::Fused => self.paged(ROWS, &self.fused_queries(ROWS), order, ops::fused_attention),
            Prefill::Prompt | Prefill::PromptSquare => {
                // Few rows at the end of a long context go by matmul.
                if let Err(reason) = self.matmul_attention(ROWS, order)? {
                    return Ok(Err(reason));
                }
                let api = self.api();
                let mask = View::new(self.memory.at(0), Element::Bool, &[ROWS, ROWS]);
                let length = [ROWS as i64];
                let plan = |heads: usize, causal: bool| {
                    let rows = self.view(&[1, ROWS, heads * channels]);
                    let heads = Heads { query: heads, kv: 0, ..self.heads() };
                    let (lengths, lies) = ([&length[..], &length[..]], PromptLayout::Bsh);
                    ops::prompt_attention(api, [rows; 4], Some((mask, causal)), lengths, heads, lies)
                };
                let whole = || plan(shape.heads, true);
                let packed = || plan(shape.kv_heads, false);
                match prefill {
                    Prefill::Prompt => self.accepts_all(&[&whole, &packed]),
                    _ => self.accepts(whole()),
                }
            }
            Prefill::Matmul => self.matmul_attention(ROWS, order),
        }
    }

    fn matmul_attention(&self, rows: usize, order: BlockOrder) -> Answer {
        if let Err(reason) = self.dequantised(order)? {
            return Ok(Err(reason));
        }
        let (shape, channels) = (self.layout.shape, self.layout.channels);
        let numbers = rows * shape.heads / shape.kv_heads;
        let context = KV_BLOCK_TOKENS.max(rows);
        let narrow = self.view(&[shape.kv_heads, numbers, channels]);
        let wide = self.view(&[shape.kv_heads, numbers, context]);
        let cache = self.view(&[shape.kv_heads, context, channels]);
        let api = self.api();
        let (table, row) = (self.view(&[BLOCKS, channels]), self.view(&[1, channels]));
        self.accepts_all(&[
            &|| ops::scale(api, narrow, 0.1, narrow),
            &|| ops::batch_matmul(api, narrow, cache.transposed(), wide),
            &|| ops::softmax(api, wide, wide),
            &|| ops::batch_matmul(api, wide, cache, narrow),
            &|| ops::gather(api, table, self.words(&[1]), row),
            &|| ops::copy(api, narrow, self.apart(narrow)),
        ])
    }

    fn kv(&self, kv: KvWrite, order: BlockOrder) -> Answer {
        let (heads, channels) = (self.layout.shape.kv_heads, self.layout.channels);
        let rows = self.cached(&[1, heads, channels]);
        if self.kv == KvForm::C8 {
            let (row, by) = ([1, heads * channels], self.apart(self.view(&[heads * channels])));
            let (from, to) = (self.apart(self.view(&row)), self.cached(&row));
            if let Err(reason) = self.accepts(ops::quantise(self.api(), from, [by, by], to))? {
                return Ok(Err(reason));
            }
        }
        match kv {
            KvWrite::Scatter if order == BlockOrder::HeadToken => {
                Ok(Err("the cache's order is that of another decode operator".into()))
            }
            KvWrite::Scatter => {
                let cache = self.cached(&[BLOCKS, KV_BLOCK_TOKENS, heads, channels]);
                let pair = [rows, cache];
                self.accepts(ops::scatter_kv(self.api(), pair, pair, self.words(&[1])))
            }
            KvWrite::IndexCopy => {
                let cache = self.cached(&[BLOCKS * KV_BLOCK_TOKENS, heads * channels]);
                let row = self.cached(&[1, heads * channels]);
                self.accepts(ops::index_copy(self.api(), cache, self.words(&[1]), row))
            }
            KvWrite::Copy => self.accepts(ops::copy(self.api(), rows, rows)),
            KvWrite::Memory => Ok(Ok(())),
        }
    }

    /// Pads heads to 128 channels if `aclnnApplyRotaryPosEmb` accepts only those. Its pages differ on whether it takes 64.
    fn fill_heads(&mut self, forced: Option<Rotation>) -> Result<(), DeviceError> {
        let short = self.layout;
        if short.is_full() || forced.is_some_and(|rotary| rotary != Rotation::Apply) {
            return Ok(());
        }
        let Err(reason) = self.rotary(Rotation::Apply)? else { return Ok(()) };
        self.layout = short.filled();
        match self.rotary(Rotation::Apply)? {
            Ok(()) => self.refused.push(("heads", format!("{} channels: {reason}", short.channels))),
            Err(_) => self.layout = short,
        }
        Ok(())
    }

    fn rotary(&self, rotary: Rotation) -> Answer {
        let HeadLayout { shape, channels } = self.layout;
        let heads = |heads| self.view(&[1, 1, heads, channels]);
        let (query, key, angle) = (heads(shape.heads), heads(shape.kv_heads), heads(1));
        match rotary {
            Rotation::Apply => self.accepts(ops::rotary(self.api(), [query, key], [angle, angle])),
            Rotation::Each => self.accepts(ops::rotate_one(self.api(), query, [angle, angle], query)),
            Rotation::Host => Ok(Ok(())),
        }
    }

    fn add(&self, add: Addition) -> Answer {
        let (api, x) = (self.api(), self.view(&[1, 256]));
        // Residuals, biases, and masks over scores `[KV heads, rows, group, context]`.
        let AttentionShape { heads, kv_heads, .. } = self.layout.shape;
        let (rows, context) = (2, KV_BLOCK_TOKENS);
        let (wide, bias) = (self.view(&[rows, 256]), self.apart(self.view(&[256])));
        let scores = self.view(&[kv_heads, rows, heads / kv_heads, context]);
        let strides = [2 * context, context, 1];
        let mask = View::strided(self.memory.at(0), self.core.element(), &[rows, 1, context], &strides);
        let mask = self.apart(mask);
        match add {
            Addition::Add => self.accepts_all(&[
                &|| ops::add(api, x, self.apart(x)),
                &|| ops::add(api, wide, bias),
                &|| ops::add(api, scores, mask),
            ]),
            Addition::AddRepeated => self.accepts_all(&[
                &|| ops::add(api, x, self.apart(x)),
                &|| ops::copy(api, wide, bias),
                &|| ops::copy(api, scores, mask),
            ]),
            Addition::AddRmsNorm => {
                let rstd = View::new(self.memory.at(0), Element::Fp32, &[1, 1]);
                self.accepts_all(&[
                    &|| ops::add_rms_norm(api, [x, x], self.view(&[256]), x, rstd, x),
                    &|| ops::copy(api, wide, bias),
                    &|| ops::copy(api, scores, mask),
                ])
            }
        }
    }

    /// Captures one operator and runs the graph.
    fn graph(&self, graph: Graph, reuse: Reuse) -> Answer {
        match (graph, reuse) {
            (Graph::Off, _) => return Ok(Ok(())),
            (Graph::Segments, Reuse::Anew) => return Ok(Err("plans are not kept".into())),
            (Graph::Segments, Reuse::Kept) => {}
        }
        let x = self.view(&[1, 256]);
        let plan = match ops::scale(self.api(), x, 1.0, x) {
            Ok(plan) => plan,
            Err(error @ DeviceError::Lost { .. }) => return Err(error),
            Err(error) => return Ok(Err(error.to_string())),
        };
        if let Err(why) = set_repeatable(self.api(), &plan)? {
            self.spend(plan)?;
            return Ok(Err(why));
        }
        let captured = self.captured(&plan);
        destroy(self.api(), plan);
        match captured {
            Err(error @ DeviceError::Lost { .. }) => Err(error),
            other => Ok(other.map_err(|error| error.to_string())),
        }
    }

    fn captured(&self, plan: &Plan) -> Result<(), DeviceError> {
        self.memory.clear()?;
        let (core, room) = (self.core, self.core.slab.take(plan.workspace as usize, "a probe's workspace")?);
        let launch = plan.launch((plan.name, [0; 4]), room.at(0));
        let stream = core.stream.ordered()?;
        let graph = graph::Graph::capture(&core.context, stream, &[launch])?;
        graph.launch(stream)?;
        core.stream.synchronize()
    }

    fn reuse(&self, reuse: Reuse) -> Result<(), String> {
        let there = self.api().libraries.nn.aclSetAclOpExecutorRepeatable.is_ok();
        match reuse {
            Reuse::Kept if !there => Err("aclSetAclOpExecutorRepeatable is missing".into()),
            _ => Ok(()),
        }
    }
}

/// The name of a choice.
trait Word {
    fn word(&self) -> &'static str;
}

macro_rules! words {
    ($($choice:ty),*) => {$(
        impl Word for $choice {
            fn word(&self) -> &'static str {
                Self::word(*self)
            }
        }
    )*};
}
words!(WeightFormat, Bias, Decode, Prefill, KvWrite, Rotation, Addition, Reuse, Graph);

/// Checks that the chip has attention over a cache of the form `kv`.
pub(super) fn check_kv(chip: Chip, dtype: DType, kv: KvForm) -> Result<(), DeviceError> {
    let precision = Precision { kv, ..dtype.into() };
    let Some(problem) = chip.device().instead_of(precision).filter(|_| kv != KvForm::Auto) else {
        return Ok(());
    };
    Err(DeviceError::Unsupported {
        device: chip.name(),
        problem: format!("dtype {precision} was asked for, {problem}"),
    })
}

/// Checks that the chip computes in `dtype`.
pub(super) fn check_dtype(chip: Chip, dtype: DType) -> Result<(), DeviceError> {
    let (can, expected) = match chip {
        Chip::Duo300i => (dtype == DType::Fp16, "fp16, the one type that an Ascend 310P runs the model in"),
        Chip::A2800i => (dtype != DType::Fp32, "fp16 or bf16"),
    };
    if can {
        return Ok(());
    }
    let problem = format!("dtype {dtype} was asked for, expected {expected}");
    Err(DeviceError::Unsupported { device: chip.name(), problem })
}
