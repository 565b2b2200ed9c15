//! Asking the operators' first stages what this chip and this version of CANN can do.

use std::cell::RefCell;

use super::super::{DType, DeviceError, KV_BLOCK_TOKENS};
use super::api::Api;
use super::choice::{
    Addition, Bias, Choices, Decode, Forced, KvWrite, Prefill, Reuse, Rotation, WeightFormat,
};
use super::core::Core;
use super::group::Chip;
use super::kv::BlockOrder;
use super::launch::{Plan, given_back};
use super::layout::HeadLayout;
use super::memory::Buffer;
use super::ops::{self, CAUSAL_MASK_SIDE, FusedStep, Heads, PromptLayout};
use super::rehearsal::Wrong;
use super::tensor::{Element, IntArray, TensorList, View};
use super::widener::FOLDED;

/// Blocks of the cache that is asked about.
const BLOCKS: usize = 2;
/// Rows of the prefill that is asked about.
const ROWS: usize = 128;

/// What was chosen, and why not what is preferred.
pub(super) struct Probed {
    pub(super) choices: Choices,
    /// Refused alternatives, with the libraries' words.
    pub(super) refused: Vec<(&'static str, String)>,
}

/// Asks for every capability, in the order of preference for the chip.
pub(super) fn probe(
    core: &Core,
    chip: Chip,
    layout: HeadLayout,
    forced: Forced,
    discarded: &[Wrong],
) -> Result<Probed, DeviceError> {
    // First stages look at shapes, not at numbers: one piece of memory stands for everything.
    let memory = core.slab.take(CAUSAL_MASK_SIDE * CAUSAL_MASK_SIDE * 2, "a probe of the operators")?;
    let mut probe =
        Probe { core, layout, memory, discarded, refused: Vec::new(), single_use: RefCell::default() };
    let duo = chip == Chip::Duo300i;
    let weights: &[WeightFormat] = if duo {
        &[WeightFormat::FractalOperator, WeightFormat::Fractal, WeightFormat::Plain]
    } else {
        &[WeightFormat::Plain, WeightFormat::FractalOperator, WeightFormat::Fractal]
    };
    let weights = probe.choose("weights", weights, forced.weights, |p, c| p.weights(c))?;
    let bias = probe.choose("bias", Bias::ALL, forced.bias, |p, c| p.bias(c, weights))?;
    let add = probe.choose("add", Addition::ALL, forced.add, |p, c| p.add(c))?;
    let decode = probe.choose("decode", Decode::ALL, forced.decode, |p, c| p.decode(c))?;
    let order = BlockOrder::of(decode);
    let prefill = probe.choose("prefill", Prefill::ALL, forced.prefill, |p, c| p.prefill(c, order))?;
    let kv = probe.choose("kv", KvWrite::ALL, forced.kv, |p, c| p.kv(c, order))?;
    let rotary = probe.choose("rotary", Rotation::ALL, forced.rotary, |p, c| p.rotary(c))?;
    let reuse = probe.choose("reuse", Reuse::ALL, forced.reuse, |p, c| Ok(p.reuse(c)))?;
    if reuse == Reuse::Kept {
        probe.refused.extend(probe.single_use.take().into_iter().map(|why| ("reuse", why)));
    }
    // What could only be given back by running it has run before its memory goes.
    core.stream.synchronize()?;
    let choices = Choices { weights, bias, kv, rotary, decode, prefill, add, reuse };
    Ok(Probed { choices, refused: probe.refused })
}

struct Probe<'a> {
    core: &'a Core,
    layout: HeadLayout,
    memory: Buffer,
    /// Choices that gave wrong results.
    discarded: &'a [Wrong],
    refused: Vec<(&'static str, String)>,
    /// Operators whose plans cannot be kept, and why.
    single_use: RefCell<Vec<String>>,
}

/// The first stage of an operator over a paged cache.
type PagedPlan = fn(&Api, &FusedStep, [&TensorList; 2], Heads, usize) -> Result<Plan, DeviceError>;

/// Yes, or the reason why not.
type Answer = Result<Result<(), String>, DeviceError>;

impl Probe<'_> {
    /// The first alternative that is accepted; a forced one alone is asked.
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

    /// Whether a first stage says yes; the plan is given back. A lost device is no answer.
    fn accepts(&self, plan: Result<Plan, DeviceError>) -> Answer {
        let plan = match plan {
            Ok(plan) => plan,
            Err(error @ DeviceError::Lost { .. }) => return Err(error),
            Err(error) => return Ok(Err(error.to_string())),
        };
        let name = plan.name;
        if let Err((plan, why)) = given_back(self.api(), plan)? {
            // An executor that cannot be kept ends by being run, and only so; on zeros, whatever ran before it.
            self.core.stream.synchronize()?;
            self.memory.clear()?;
            self.core.once(Ok(plan))?;
            self.single_use.borrow_mut().push(format!("{name}: {why}"));
        }
        Ok(Ok(()))
    }

    /// Numbers of the model's type in any shape.
    fn view(&self, dims: &[usize]) -> View {
        View::new(self.memory.at(0), self.core.element(), dims)
    }

    fn words(&self, dims: &[usize]) -> View {
        View::new(self.memory.at(0), Element::Int32, dims)
    }

    fn weights(&self, format: WeightFormat) -> Answer {
        self.product(format, [1, 256, 256])
    }

    /// Asks about `[m, k]` times a weight `[n, k]`.
    fn product(&self, format: WeightFormat, [m, k, n]: [usize; 3]) -> Answer {
        let (rows, weight, out) = (self.view(&[m, k]), self.view(&[n, k]), self.view(&[m, n]));
        let right = weight.transposed();
        match format {
            WeightFormat::Plain => self.accepts(ops::matmul(self.api(), rows, right, out)),
            WeightFormat::Fractal | WeightFormat::FractalOperator => {
                if let Err(reason) = self.accepts(ops::to_fractals(self.api(), weight))? {
                    return Ok(Err(reason));
                }
                let right = right.in_fractals();
                self.accepts(match format {
                    WeightFormat::Fractal => ops::matmul(self.api(), rows, right, out),
                    _ => ops::matmul_nz(self.api(), rows, right, out),
                })
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
            // By the operator that is asked for residuals.
            Bias::Added => Ok(Ok(())),
        }
    }

    fn heads(&self) -> Heads {
        Heads { query: self.layout.shape.heads, kv: self.layout.shape.kv_heads, scale: 0.1 }
    }

    fn list(&self) -> Result<TensorList, DeviceError> {
        let dims = [BLOCKS, KV_BLOCK_TOKENS, self.layout.kv_width()];
        TensorList::of(self.api(), self.view(&dims).tensor(self.api())?)
    }

    /// Asks an operator over a paged cache about one sequence of `rows` rows.
    fn paged(&self, dims: &[usize], causal: bool, plan: PagedPlan) -> Answer {
        let (api, rows) = (self.api(), dims[0]);
        let side = [CAUSAL_MASK_SIDE, CAUSAL_MASK_SIDE];
        let mask = View::new(self.memory.at(0), Element::Bool, &side);
        let step = FusedStep {
            query: self.view(dims).tensor(api)?,
            out: self.view(dims).tensor(api)?,
            table: self.words(&[1, BLOCKS]).tensor(api)?,
            ends: IntArray::new(api, &[rows as i64])?,
            contexts: IntArray::new(api, &[(rows.max(2)) as i64])?,
            mask: if causal { Some(mask.tensor(api)?) } else { None },
        };
        let (keys, values) = (self.list()?, self.list()?);
        self.accepts(plan(api, &step, [&keys, &values], self.heads(), KV_BLOCK_TOKENS))
    }

    fn decode(&self, decode: Decode) -> Answer {
        let (shape, channels) = (self.layout.shape, self.layout.channels);
        match decode {
            Decode::Fused => self.paged(&[1, shape.heads, channels], false, ops::fused_attention),
            Decode::Incremental => {
                self.paged(&[1, 1, self.layout.q_width()], false, ops::incremental_attention)
            }
            Decode::Prompt => {
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
            Decode::Matmul => self.matmul_attention(1),
        }
    }

    fn prefill(&self, prefill: Prefill, order: BlockOrder) -> Answer {
        let (shape, channels) = (self.layout.shape, self.layout.channels);
        match prefill {
            Prefill::Fused if order == BlockOrder::HeadToken => {
                Ok(Err("the cache's order is that of another decode operator".into()))
            }
            Prefill::Fused => self.paged(&[ROWS, shape.heads, channels], true, ops::fused_attention),
            Prefill::Prompt => {
                // Later chunks go by matmul.
                if let Err(reason) = self.matmul_attention(ROWS)? {
                    return Ok(Err(reason));
                }
                let rows = self.view(&[1, ROWS, self.layout.q_width()]);
                let mask = View::new(self.memory.at(0), Element::Bool, &[ROWS, ROWS]);
                let heads = Heads { kv: 0, ..self.heads() };
                let (length, lies) = ([ROWS as i64], PromptLayout::Bsh);
                let lengths = [&length[..], &length[..]];
                let views = [rows, rows, rows, rows];
                self.accepts(ops::prompt_attention(self.api(), views, Some(mask), lengths, heads, lies))
            }
            Prefill::Matmul => self.matmul_attention(ROWS),
        }
    }

    fn matmul_attention(&self, rows: usize) -> Answer {
        let (shape, channels) = (self.layout.shape, self.layout.channels);
        let numbers = rows * shape.heads / shape.kv_heads;
        let context = KV_BLOCK_TOKENS.max(rows);
        let narrow = self.view(&[shape.kv_heads, numbers, channels]);
        let wide = self.view(&[shape.kv_heads, numbers, context]);
        let cache = self.view(&[shape.kv_heads, context, channels]);
        let api = self.api();
        let all = [
            ops::scale(api, narrow, 0.1, narrow),
            ops::batch_matmul(api, narrow, cache.transposed(), wide),
            ops::softmax(api, wide, wide),
            ops::batch_matmul(api, wide, cache, narrow),
            ops::gather(api, self.view(&[BLOCKS, channels]), self.words(&[1]), self.view(&[1, channels])),
            ops::copy(api, narrow, narrow),
        ];
        let mut answer = Ok(());
        for plan in all {
            let one = self.accepts(plan)?;
            answer = answer.and(one);
        }
        Ok(answer)
    }

    fn kv(&self, kv: KvWrite, order: BlockOrder) -> Answer {
        let (heads, channels) = (self.layout.shape.kv_heads, self.layout.channels);
        let rows = self.view(&[1, heads, channels]);
        match kv {
            KvWrite::Scatter if order == BlockOrder::HeadToken => {
                Ok(Err("the cache's order is that of another decode operator".into()))
            }
            KvWrite::Scatter => {
                let cache = self.view(&[BLOCKS, KV_BLOCK_TOKENS, heads, channels]);
                let pair = [rows, cache];
                self.accepts(ops::scatter_kv(self.api(), pair, pair, self.words(&[1])))
            }
            KvWrite::IndexCopy => {
                let cache = self.view(&[BLOCKS * KV_BLOCK_TOKENS, heads * channels]);
                let row = self.view(&[1, heads * channels]);
                self.accepts(ops::index_copy(self.api(), cache, self.words(&[1]), row))
            }
            KvWrite::Copy => self.accepts(ops::copy(self.api(), rows, rows)),
            KvWrite::Memory => Ok(Ok(())),
        }
    }

    fn rotary(&self, rotary: Rotation) -> Answer {
        let (shape, channels) = (self.layout.shape, self.layout.channels);
        let heads = |heads| self.view(&[1, 1, heads, channels]);
        let (query, key, angle) = (heads(shape.heads), heads(shape.kv_heads), heads(1));
        match rotary {
            Rotation::Apply => self.accepts(ops::rotary(self.api(), [query, key], [angle, angle])),
            Rotation::Each => self.accepts(ops::rotate_one(self.api(), query, [angle, angle], query)),
            Rotation::Host => Ok(Ok(())),
        }
    }

    fn add(&self, add: Addition) -> Answer {
        let x = self.view(&[1, 256]);
        match add {
            Addition::Add => self.accepts(ops::add(self.api(), x, x)),
            Addition::AddRmsNorm => {
                let rstd = View::new(self.memory.at(0), Element::Fp32, &[1, 1]);
                self.accepts(ops::add_rms_norm(self.api(), [x, x], self.view(&[256]), x, rstd, x))
            }
        }
    }

    fn reuse(&self, reuse: Reuse) -> Result<(), String> {
        let there = self.api().libraries.nn.aclSetAclOpExecutorRepeatable.is_ok();
        match reuse {
            Reuse::Kept if !there => Err("aclSetAclOpExecutorRepeatable is missing".into()),
            _ => Ok(()),
        }
    }
}

/// The word of a choice.
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
words!(WeightFormat, Bias, Decode, Prefill, KvWrite, Rotation, Addition, Reuse);

/// Types that the chip computes in.
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
