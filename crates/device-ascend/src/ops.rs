//! The first stages of the operators: they take views and return a [`Plan`]. Each operator's documentation says what it
//! computes; this file has the constants that we always pass.

use std::ffi::{CStr, c_char};
use std::ptr::null;

use ascend_sys::{ACL_INT8, aclIntArray, aclTensor};

use glmbench_device::DeviceError;

use super::api::Api;
use super::launch::{Plan, plan};
use super::tensor::{Held, IntArray, Scalar, Tensor, TensorList, View};

type Planned = Result<Plan, DeviceError>;

/// Matrix operators: keep the input's type.
const KEEP_TYPE: i8 = 0;
/// Rotary operator: layout `[batch, sequence, heads, channels]`.
const ROTARY_BSND: i64 = 1;
/// Rotary operators: "half" mode, where channels `j` and `j + D/2` are a pair.
const ROTARY_HALF: i64 = 0;
/// Quantisation: the axis of scale and offset, the only one that a 310P has.
const LAST_AXIS: i32 = -1;
/// Weight-only quantisation: no groups.
const PER_CHANNEL: i32 = 0;
/// No limit of a band of tokens.
const NO_LIMIT: i64 = 2_147_483_647;
/// Causal from the last token backwards, with the documented 2048 x 2048 mask.
const RIGHT_DOWN_CAUSAL: i64 = 3;
/// Side of the mask of [`RIGHT_DOWN_CAUSAL`].
pub(super) const CAUSAL_MASK_SIDE: usize = 2048;

fn layout(name: &'static CStr) -> *mut c_char {
    // The argument is not const in the ABI, but nobody writes to it.
    name.as_ptr().cast_mut()
}

macro_rules! held {
    ($($value:expr),* $(,)?) => { vec![$(Held::from($value)),*] };
}

/// `out[i] = table[indices[i]]`.
pub(super) fn embedding(api: &Api, table: View, indices: View, out: View) -> Planned {
    let (t, i, o) = (table.tensor(api)?, indices.tensor(api)?, out.tensor(api)?);
    let handles = (t.handle, i.handle, o.handle);
    // SAFETY: live descriptions of live memory, as in all of this file.
    unsafe {
        plan!(
            api,
            aclnnEmbedding,
            aclnnEmbeddingGetWorkspaceSize,
            (handles.0, handles.1, handles.2),
            held![t, i, o]
        )
    }
}

/// `out[i] = x[indices[i]]` along the first axis.
pub(super) fn gather(api: &Api, x: View, indices: View, out: View) -> Planned {
    let (x, i, o) = (x.tensor(api)?, indices.tensor(api)?, out.tensor(api)?);
    let (a, b, c) = (x.handle, i.handle, o.handle);
    // SAFETY: see `embedding`.
    unsafe { plan!(api, aclnnGatherV2, aclnnGatherV2GetWorkspaceSize, (a, 0, b, c), held![x, i, o]) }
}

/// RMSNorm. The operator requires `rstd`, a by-product.
pub(super) fn rms_norm(api: &Api, x: View, gamma: View, epsilon: f64, out: View, rstd: View) -> Planned {
    let (x, g, o, r) = (x.tensor(api)?, gamma.tensor(api)?, out.tensor(api)?, rstd.tensor(api)?);
    let (a, b, c, d) = (x.handle, g.handle, o.handle, r.handle);
    // SAFETY: see `embedding`.
    unsafe {
        plan!(api, aclnnRmsNorm, aclnnRmsNormGetWorkspaceSize, (a, b, epsilon, c, d), held![x, g, o, r])
    }
}

/// `sum = a + b`, and an unused norm of it: the addition that the 310P's documentation lists.
pub(super) fn add_rms_norm(
    api: &Api,
    [a, b]: [View; 2],
    gamma: View,
    norm: View,
    rstd: View,
    sum: View,
) -> Planned {
    let (a, b, g) = (a.tensor(api)?, b.tensor(api)?, gamma.tensor(api)?);
    let (n, r, s) = (norm.tensor(api)?, rstd.tensor(api)?, sum.tensor(api)?);
    let (x1, x2, gamma, y, rstd, x) = (a.handle, b.handle, g.handle, n.handle, r.handle, s.handle);
    // SAFETY: see `embedding`.
    unsafe {
        plan!(
            api,
            aclnnAddRmsNorm,
            aclnnAddRmsNormGetWorkspaceSize,
            (x1, x2, gamma, 1e-5, y, rstd, x),
            held![a, b, g, n, r, s]
        )
    }
}

/// `out = a * b`.
pub(super) fn matmul(api: &Api, a: View, b: View, out: View) -> Planned {
    let (x, y, o) = (a.tensor(api)?, b.tensor(api)?, out.tensor(api)?);
    let (a, b, c) = (x.handle, y.handle, o.handle);
    // SAFETY: see `embedding`.
    unsafe { plan!(api, aclnnMatmul, aclnnMatmulGetWorkspaceSize, (a, b, c, KEEP_TYPE), held![x, y, o]) }
}

/// `out = a * b` for matrices.
pub(super) fn mm(api: &Api, a: View, b: View, out: View) -> Planned {
    let (x, y, o) = (a.tensor(api)?, b.tensor(api)?, out.tensor(api)?);
    let (a, b, c) = (x.handle, y.handle, o.handle);
    // SAFETY: see `embedding`.
    unsafe { plan!(api, aclnnMm, aclnnMmGetWorkspaceSize, (a, b, c, KEEP_TYPE), held![x, y, o]) }
}

/// `out = a * b`, with `b` in fractals.
pub(super) fn matmul_nz(api: &Api, a: View, b: View, out: View) -> Planned {
    let (x, y, o) = (a.tensor(api)?, b.tensor(api)?, out.tensor(api)?);
    let (a, b, c) = (x.handle, y.handle, o.handle);
    // SAFETY: see `embedding`.
    unsafe {
        plan!(
            api,
            aclnnMatmulWeightNz,
            aclnnMatmulWeightNzGetWorkspaceSize,
            (a, b, c, KEEP_TYPE),
            held![x, y, o]
        )
    }
}

/// `out = bias + a * b`.
pub(super) fn addmm(api: &Api, bias: View, a: View, b: View, out: View) -> Planned {
    let (s, x, y, o) = (bias.tensor(api)?, a.tensor(api)?, b.tensor(api)?, out.tensor(api)?);
    let (one, alpha) = (Scalar::new(api, 1.0)?, Scalar::new(api, 1.0)?);
    let (bias, a, b, c) = (s.handle, x.handle, y.handle, o.handle);
    let (f, g) = (one.handle, alpha.handle);
    // SAFETY: see `embedding`.
    unsafe {
        plan!(
            api,
            aclnnAddmm,
            aclnnAddmmGetWorkspaceSize,
            (bias, a, b, f, g, c, KEEP_TYPE),
            held![s, x, y, o, one, alpha]
        )
    }
}

/// `out[i] = a[i] * b[i]` for matrices.
pub(super) fn batch_matmul(api: &Api, a: View, b: View, out: View) -> Planned {
    let (x, y, o) = (a.tensor(api)?, b.tensor(api)?, out.tensor(api)?);
    let (a, b, c) = (x.handle, y.handle, o.handle);
    // SAFETY: see `embedding`.
    unsafe {
        plan!(api, aclnnBatchMatMul, aclnnBatchMatMulGetWorkspaceSize, (a, b, c, KEEP_TYPE), held![x, y, o])
    }
}

/// Rearranges a weight `[n, k]` into fractals, in place.
pub(super) fn to_fractals(api: &Api, weight: View) -> Planned {
    let w = weight.tensor(api)?;
    let a = w.handle;
    // SAFETY: see `embedding`.
    unsafe { plan!(api, aclnnTransMatmulWeight, aclnnTransMatmulWeightGetWorkspaceSize, (a), held![w]) }
}

/// `out = round(x * scale + offset)` as int8. Scale and offset are `[1]`, or one for each column, in the type of `x`.
pub(super) fn quantise(api: &Api, x: View, [scale, offset]: [View; 2], out: View) -> Planned {
    let (x, s, z, o) = (x.tensor(api)?, scale.tensor(api)?, offset.tensor(api)?, out.tensor(api)?);
    let (a, b, c, d) = (x.handle, s.handle, z.handle, o.handle);
    // SAFETY: see `embedding`.
    unsafe {
        plan!(
            api,
            aclnnAscendQuantV3,
            aclnnAscendQuantV3GetWorkspaceSize,
            (a, b, c, false, layout(c"round"), ACL_INT8, LAST_AXIS, d),
            held![x, s, z, o]
        )
    }
}

/// `out = (a * b^T + bias) * scale`, of int8 rows and weights `[n, k]`.
pub(super) fn quant_matmul(api: &Api, a: View, b: View, [scale, bias]: [View; 2], out: View) -> Planned {
    let (x, y, s, z, o) =
        (a.tensor(api)?, b.tensor(api)?, scale.tensor(api)?, bias.tensor(api)?, out.tensor(api)?);
    let (a, b, scale, bias, c) = (x.handle, y.handle, s.handle, z.handle, o.handle);
    let none = null::<aclTensor>();
    // SAFETY: see `embedding`.
    unsafe {
        plan!(
            api,
            aclnnQuantMatmulV4,
            aclnnQuantMatmulV4GetWorkspaceSize,
            (a, b, scale, none, none, bias, false, true, c),
            held![x, y, s, z, o]
        )
    }
}

/// `out = a * (b * scale) + bias`, with int8 weights `b`, `[k, n]`.
pub(super) fn weight_quant_matmul(
    api: &Api,
    a: View,
    b: View,
    scale: View,
    bias: Option<View>,
    out: View,
) -> Planned {
    let (x, y, s, o) = (a.tensor(api)?, b.tensor(api)?, scale.tensor(api)?, out.tensor(api)?);
    let z = bias.map(|bias| bias.tensor(api)).transpose()?;
    let bias = z.as_ref().map_or(null(), |bias| bias.handle.cast_const());
    let (a, b, scale, c) = (x.handle, y.handle, s.handle, o.handle);
    let none = null::<aclTensor>();
    let mut held = held![x, y, s, o];
    held.extend(z.map(Held::from));
    // SAFETY: see `embedding`.
    unsafe {
        plan!(
            api,
            aclnnWeightQuantBatchMatmulV2,
            aclnnWeightQuantBatchMatmulV2GetWorkspaceSize,
            (a, b, scale, none, none, none, bias, PER_CHANNEL, c),
            held
        )
    }
}

/// `x = x + y`, with `y` broadcast to the shape of `x`.
pub(super) fn add(api: &Api, x: View, y: View) -> Planned {
    let (x, y, one) = (x.tensor(api)?, y.tensor(api)?, Scalar::new(api, 1.0)?);
    let (a, b, c) = (x.handle, y.handle, one.handle);
    // SAFETY: see `embedding`.
    unsafe { plan!(api, aclnnInplaceAdd, aclnnInplaceAddGetWorkspaceSize, (a, b, c), held![x, y, one]) }
}

/// `to = from`, element by element, for any strides.
pub(super) fn copy(api: &Api, to: View, from: View) -> Planned {
    let (x, y) = (to.tensor(api)?, from.tensor(api)?);
    let (a, b) = (x.handle, y.handle);
    // SAFETY: see `embedding`.
    unsafe { plan!(api, aclnnInplaceCopy, aclnnInplaceCopyGetWorkspaceSize, (a, b), held![x, y]) }
}

/// `out = x * factor`.
pub(super) fn scale(api: &Api, x: View, factor: f32, out: View) -> Planned {
    let (x, f, o) = (x.tensor(api)?, Scalar::new(api, factor)?, out.tensor(api)?);
    let (a, b, c) = (x.handle, f.handle, o.handle);
    // SAFETY: see `embedding`.
    unsafe { plan!(api, aclnnMuls, aclnnMulsGetWorkspaceSize, (a, b, c), held![x, f, o]) }
}

/// `x = x * y`, with `y` broadcast to the shape of `x`.
pub(super) fn multiply(api: &Api, x: View, y: View) -> Planned {
    let (x, o, y) = (x.tensor(api)?, x.tensor(api)?, y.tensor(api)?);
    let (a, b, c) = (x.handle, y.handle, o.handle);
    // SAFETY: see `embedding`. The operator computes element by element, so its result may replace an input.
    unsafe { plan!(api, aclnnMul, aclnnMulGetWorkspaceSize, (a, b, c), held![x, y, o]) }
}

/// Softmax along the last axis.
pub(super) fn softmax(api: &Api, x: View, out: View) -> Planned {
    let (x, o) = (x.tensor(api)?, out.tensor(api)?);
    let (a, b) = (x.handle, o.handle);
    // SAFETY: see `embedding`.
    unsafe { plan!(api, aclnnSoftmax, aclnnSoftmaxGetWorkspaceSize, (a, -1, b), held![x, o]) }
}

/// `out = silu(first half of the last axis) * second half`.
pub(super) fn swiglu(api: &Api, x: View, out: View) -> Planned {
    let (x, o) = (x.tensor(api)?, out.tensor(api)?);
    let (a, b) = (x.handle, o.handle);
    // SAFETY: see `embedding`.
    unsafe { plan!(api, aclnnSwiGlu, aclnnSwiGluGetWorkspaceSize, (a, -1, b), held![x, o]) }
}

/// Rotates queries and keys in place, in "half" pairs.
pub(super) fn rotary(api: &Api, [query, key]: [View; 2], [cos, sin]: [View; 2]) -> Planned {
    let (q, k, c, s) = (query.tensor(api)?, key.tensor(api)?, cos.tensor(api)?, sin.tensor(api)?);
    let handles = (q.handle, k.handle, c.handle, s.handle);
    // SAFETY: see `embedding`.
    unsafe {
        plan!(
            api,
            aclnnApplyRotaryPosEmb,
            aclnnApplyRotaryPosEmbGetWorkspaceSize,
            (handles.0, handles.1, handles.2, handles.3, ROTARY_BSND),
            held![q, k, c, s]
        )
    }
}

/// Rotates one tensor, in "half" pairs.
pub(super) fn rotate_one(api: &Api, x: View, [cos, sin]: [View; 2], out: View) -> Planned {
    let (x, c, s, o) = (x.tensor(api)?, cos.tensor(api)?, sin.tensor(api)?, out.tensor(api)?);
    let handles = (x.handle, c.handle, s.handle, o.handle);
    // SAFETY: see `embedding`.
    unsafe {
        plan!(
            api,
            aclnnRotaryPositionEmbedding,
            aclnnRotaryPositionEmbeddingGetWorkspaceSize,
            (handles.0, handles.1, handles.2, ROTARY_HALF, handles.3),
            held![x, c, s, o]
        )
    }
}

/// Writes keys and values `[tokens, heads, channels]` to their slots of caches `[blocks, 128, heads, channels]`.
pub(super) fn scatter_kv(
    api: &Api,
    [key, keys]: [View; 2],
    [value, values]: [View; 2],
    slots: View,
) -> Planned {
    let (k, kc) = (key.tensor(api)?, keys.tensor(api)?);
    let (v, vc, s) = (value.tensor(api)?, values.tensor(api)?, slots.tensor(api)?);
    let (mode, scatter) = (layout(c"Norm"), layout(c"None"));
    let handles = (k.handle, kc.handle, s.handle, v.handle, vc.handle);
    // SAFETY: see `embedding`.
    unsafe {
        plan!(
            api,
            aclnnScatterPaKvCache,
            aclnnScatterPaKvCacheGetWorkspaceSize,
            (
                handles.0,
                handles.1,
                handles.2,
                handles.3,
                handles.4,
                null::<aclTensor>(),
                null::<aclTensor>(),
                null::<aclTensor>(),
                mode,
                scatter,
                null::<aclIntArray>(),
                null::<aclIntArray>()
            ),
            held![k, kc, v, vc, s]
        )
    }
}

/// `to[indices[i]] = from[i]` along the first axis.
pub(super) fn index_copy(api: &Api, to: View, indices: View, from: View) -> Planned {
    let (t, i, f) = (to.tensor(api)?, indices.tensor(api)?, from.tensor(api)?);
    let (a, b, c) = (t.handle, i.handle, f.handle);
    // SAFETY: see `embedding`.
    unsafe {
        plan!(api, aclnnInplaceIndexCopy, aclnnInplaceIndexCopyGetWorkspaceSize, (a, 0, b, c), held![t, i, f])
    }
}

/// Head counts and scale of an attention operator.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    /// Query heads.
    pub(super) query: usize,
    /// KV heads.
    pub(super) kv: usize,
    /// Factor of the scores.
    pub(super) scale: f64,
}

/// Operands of the attention in a step over the paged cache, shared by all layers.
pub(super) struct FusedStep {
    /// Queries, in the shape that the operator takes.
    pub(super) query: Tensor,
    /// Block table of the sequences.
    pub(super) table: Tensor,
    /// End of the rows of each sequence, or the number of rows of each if queries are `[sequences, rows, width]`.
    pub(super) ends: IntArray,
    /// Number of tokens of each sequence in the cache.
    pub(super) contexts: IntArray,
    /// The causal mask, or `None` if every sequence has one row.
    pub(super) mask: Option<Tensor>,
    /// The result.
    pub(super) out: Tensor,
}

/// A layer of a paged cache.
#[derive(Clone, Copy)]
pub(super) struct PagedCache<'a> {
    /// Keys, and values.
    pub(super) lists: [&'a TensorList; 2],
    /// Tokens per block.
    pub(super) block: usize,
    /// Scales, and offsets that are added, of the channels of an int8 cache.
    pub(super) antiquant: Option<[&'a Tensor; 2]>,
}

impl PagedCache<'_> {
    /// Returns scales and offsets, or nulls.
    fn antiquant(&self) -> [*const aclTensor; 2] {
        self.antiquant.map_or([null(); 2], |both| both.map(|tensor| tensor.handle.cast_const()))
    }
}

/// The first stage of an operator over paged caches.
pub(super) type PagedOperator = fn(&Api, &FusedStep, PagedCache<'_>, Heads) -> Result<Plan, DeviceError>;

/// Attention over paged caches, prefill and decode (A2). Queries of a ragged batch are `[tokens, heads, channels]`. Over an
/// int8 cache they are `[sequences, rows, heads * channels]`, because no page has a ragged batch over one.
pub(super) fn fused_attention(api: &Api, step: &FusedStep, cache: PagedCache<'_>, heads: Heads) -> Planned {
    let ([keys, values], block) = (cache.lists, cache.block);
    let [scale, offset] = cache.antiquant();
    let lies = if cache.antiquant.is_some() { c"BSH" } else { c"TND" };
    let mask = step.mask.as_ref().map_or(null(), |mask| mask.handle.cast_const());
    let sparse = if mask.is_null() { 0 } else { RIGHT_DOWN_CAUSAL };
    let none = null();
    let (query, table, out) = (step.query.handle, step.table.handle, step.out.handle);
    // SAFETY: see `embedding`; the caller keeps `step` and the lists until the plan has run.
    unsafe {
        plan!(
            api,
            aclnnFusedInferAttentionScoreV2,
            aclnnFusedInferAttentionScoreV2GetWorkspaceSize,
            (
                query,
                keys.handle,
                values.handle,
                none,
                mask,
                step.ends.handle,
                step.contexts.handle,
                none,
                none,
                none,
                none,
                none,
                scale,
                offset,
                table,
                none,
                none,
                none,
                none,
                none,
                none,
                none,
                none,
                null::<aclIntArray>(),
                heads.query as i64,
                heads.scale,
                NO_LIMIT,
                NO_LIMIT,
                layout(lies),
                heads.kv as i64,
                sparse,
                0,
                block as i64,
                0,
                false,
                0,
                0,
                out,
                null::<aclTensor>()
            ),
            Vec::new()
        )
    }
}

/// Attention of one token per sequence over caches `[blocks, block, heads * channels]`. The mask of `step` is unused,
/// because the one token sees all others.
pub(super) fn incremental_attention(
    api: &Api,
    step: &FusedStep,
    cache: PagedCache<'_>,
    heads: Heads,
) -> Planned {
    incremental(api, step, cache, heads, c"BSH")
}

/// Like [`incremental_attention`], over caches `[blocks, heads, block, channels]`.
pub(super) fn incremental_attention_by_heads(
    api: &Api,
    step: &FusedStep,
    cache: PagedCache<'_>,
    heads: Heads,
) -> Planned {
    incremental(api, step, cache, heads, c"BNSD")
}

fn incremental(
    api: &Api,
    step: &FusedStep,
    cache: PagedCache<'_>,
    heads: Heads,
    lies: &'static CStr,
) -> Planned {
    let ([keys, values], block) = (cache.lists, cache.block);
    let [scale, offset] = cache.antiquant();
    let none = null();
    let (query, table, out) = (step.query.handle, step.table.handle, step.out.handle);
    // SAFETY: see `fused_attention`.
    unsafe {
        plan!(
            api,
            aclnnIncreFlashAttentionV4,
            aclnnIncreFlashAttentionV4GetWorkspaceSize,
            (
                query,
                keys.handle,
                values.handle,
                none,
                none,
                step.contexts.handle,
                none,
                none,
                none,
                none,
                none,
                scale,
                offset,
                table,
                none,
                heads.query as i64,
                heads.scale,
                layout(lies),
                heads.kv as i64,
                block as i64,
                0,
                out
            ),
            Vec::new()
        )
    }
}

/// Layout of the operands of [`prompt_attention`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PromptLayout {
    /// `[batch, tokens, heads * channels]`.
    Bsh,
    /// `[batch, heads, tokens, channels]`.
    Bnsd,
}

/// Attention over contiguous keys and values with as many heads as the queries. A mask is causal if no query sees keys after
/// its own place; the operator may then leave them out.
pub(super) fn prompt_attention(
    api: &Api,
    [query, key, value, out]: [View; 4],
    mask: Option<(View, bool)>,
    [rows, contexts]: [&[i64]; 2],
    heads: Heads,
    lies: PromptLayout,
) -> Planned {
    let (q, k, v, o) = (query.tensor(api)?, key.tensor(api)?, value.tensor(api)?, out.tensor(api)?);
    let (r, c) = (IntArray::new(api, rows)?, IntArray::new(api, contexts)?);
    let m = mask.map(|(mask, _)| mask.tensor(api)).transpose()?;
    let next = if mask.is_some_and(|(_, causal)| causal) { 0 } else { NO_LIMIT };
    let mask = m.as_ref().map_or(null(), |mask| mask.handle.cast_const());
    let name = match lies {
        PromptLayout::Bsh => c"BSH",
        PromptLayout::Bnsd => c"BNSD",
    };
    let none = null();
    let (a, b, d, e, f, g) = (q.handle, k.handle, v.handle, o.handle, r.handle, c.handle);
    let mut held = held![q, k, v, o, r, c];
    held.extend(m.map(Held::from));
    // SAFETY: see `embedding`.
    unsafe {
        plan!(
            api,
            aclnnPromptFlashAttentionV3,
            aclnnPromptFlashAttentionV3GetWorkspaceSize,
            (
                a,
                b,
                d,
                none,
                mask,
                f,
                g,
                none,
                none,
                none,
                none,
                none,
                heads.query as i64,
                heads.scale,
                NO_LIMIT,
                next,
                layout(name),
                heads.kv as i64,
                0,
                0,
                e
            ),
            held
        )
    }
}
