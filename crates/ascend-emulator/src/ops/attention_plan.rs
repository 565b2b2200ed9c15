//! First stages of the attention operators: layouts, lengths, and each chip's restrictions.

use std::ffi::c_char;
use std::sync::Arc;

use crate::clock::Cost;
use crate::executor::{Plan, Planned};
use crate::half::DType;
use crate::ops::Kernel;
use crate::ops::attention::{Attention, Mask, Sequence, Steps};
use crate::ops::indexing::text;
use crate::ops::two_stage;
use crate::status::{NN_PARAM_INVALID, Outcome, fail};
use crate::tensor::{RawIntArray, RawTensor, RawTensorList, View, int_array};

/// Device memory that the operators want beside the tensors.
const WORKSPACE_BYTES: u64 = 65_536;
/// preTokens or nextTokens without a limit.
const UNLIMITED: i64 = 2_147_483_647;

/// Where batch, token and head stand in a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Bsh,
    Bsnd,
    Bnsd,
    Tnd,
}

/// A tensor seen through its layout.
#[derive(Debug, Clone, Copy)]
struct Seen {
    batch: i64,
    tokens: i64,
    heads: i64,
    channels: i64,
    steps: Steps,
}

impl Layout {
    fn parse(p: &Plan<'_>, pointer: *const c_char, allowed: &[(&str, Self)]) -> Outcome<Self> {
        let word = text(pointer);
        match allowed.iter().find(|(name, _)| *name == word) {
            Some((_, layout)) => Ok(*layout),
            None => {
                let words: Vec<&str> = allowed.iter().map(|(name, _)| *name).collect();
                p.require(false, || format!("inputLayout is \"{word}\", expected {}", words.join(" or ")))?;
                Ok(Self::Bsh)
            }
        }
    }

    /// `heads`: how many share a row where the layout does not say (BSH).
    fn see(self, p: &Plan<'_>, view: &View, name: &str, heads: i64) -> Outcome<Seen> {
        let bad = || format!("{name} has shape {}, which does not fit the layout {self:?}", view.shape());
        let (dims, strides) = (view.dims(), view.strides());
        let rank = if matches!(self, Self::Bsh | Self::Tnd) { 3 } else { 4 };
        p.require(dims.len() == rank && view.last_stride() == 1, bad)?;
        let seen = match self {
            Self::Bsh => {
                p.require(heads > 0 && dims[2] % heads == 0, bad)?;
                let channels = dims[2] / heads;
                Seen {
                    batch: dims[0],
                    tokens: dims[1],
                    heads,
                    channels,
                    steps: Steps { batch: strides[0], token: strides[1], head: channels },
                }
            }
            Self::Bsnd => Seen {
                batch: dims[0],
                tokens: dims[1],
                heads: dims[2],
                channels: dims[3],
                steps: Steps { batch: strides[0], token: strides[1], head: strides[2] },
            },
            Self::Bnsd => Seen {
                batch: dims[0],
                tokens: dims[2],
                heads: dims[1],
                channels: dims[3],
                steps: Steps { batch: strides[0], token: strides[2], head: strides[1] },
            },
            Self::Tnd => Seen {
                batch: 1,
                tokens: dims[0],
                heads: dims[1],
                channels: dims[2],
                steps: Steps { batch: 0, token: strides[0], head: strides[1] },
            },
        };
        Ok(seen)
    }
}

/// What the three operators have in common.
struct Wanted<'a> {
    query: View,
    key: View,
    value: View,
    mask: Option<View>,
    table: Option<View>,
    out: View,
    layout: Layout,
    heads: i64,
    kv_heads: i64,
    scale: f64,
    sparse_mode: i64,
    block_size: i64,
    query_lengths: Option<&'a [i64]>,
    lengths: Option<&'a [i64]>,
}

two_stage! {
    /// Attention of many queries a sequence.
    aclnnPromptFlashAttentionV3, aclnnPromptFlashAttentionV3GetWorkspaceSize(
        query: RawTensor, key: RawTensor, value: RawTensor, pse_shift: RawTensor, atten_mask: RawTensor,
        query_lengths: RawIntArray, lengths: RawIntArray,
        deq_scale1: RawTensor, quant_scale1: RawTensor, deq_scale2: RawTensor, quant_scale2: RawTensor,
        quant_offset2: RawTensor,
        heads: i64, scale: f64, pre_tokens: i64, next_tokens: i64, layout: *mut c_char, kv_heads: i64,
        sparse_mode: i64, inner_precise: i64, out: RawTensor,
    ) = prompt;
    /// Attention of one query a sequence.
    aclnnIncreFlashAttentionV4, aclnnIncreFlashAttentionV4GetWorkspaceSize(
        query: RawTensor, key: RawTensorList, value: RawTensorList, pse_shift: RawTensor, atten_mask: RawTensor,
        lengths: RawIntArray,
        dequant_scale1: RawTensor, quant_scale1: RawTensor, dequant_scale2: RawTensor, quant_scale2: RawTensor,
        quant_offset2: RawTensor, antiquant_scale: RawTensor, antiquant_offset: RawTensor,
        block_table: RawTensor, kv_padding_size: RawTensor,
        heads: i64, scale: f64, layout: *mut c_char, kv_heads: i64, block_size: i64, inner_precise: i64,
        out: RawTensor,
    ) = incremental;
    /// Attention of any number of queries a sequence (not on 310P).
    aclnnFusedInferAttentionScoreV2, aclnnFusedInferAttentionScoreV2GetWorkspaceSize(
        query: RawTensor, key: RawTensorList, value: RawTensorList, pse_shift: RawTensor, atten_mask: RawTensor,
        query_lengths: RawIntArray, lengths: RawIntArray,
        deq_scale1: RawTensor, quant_scale1: RawTensor, deq_scale2: RawTensor, quant_scale2: RawTensor,
        quant_offset2: RawTensor, antiquant_scale: RawTensor, antiquant_offset: RawTensor,
        block_table: RawTensor, query_padding_size: RawTensor, kv_padding_size: RawTensor,
        key_antiquant_scale: RawTensor, key_antiquant_offset: RawTensor, value_antiquant_scale: RawTensor,
        value_antiquant_offset: RawTensor, key_shared_prefix: RawTensor, value_shared_prefix: RawTensor,
        shared_prefix_lengths: RawIntArray,
        heads: i64, scale: f64, pre_tokens: i64, next_tokens: i64, layout: *mut c_char, kv_heads: i64,
        sparse_mode: i64, inner_precise: i64, block_size: i64, antiquant_mode: i64, softmax_lse_flag: bool,
        key_antiquant_mode: i64, value_antiquant_mode: i64, out: RawTensor, softmax_lse: RawTensor,
    ) = fused;
}

fn lengths_of<'a>(handle: RawIntArray, name: &str) -> Outcome<Option<&'a [i64]>> {
    if handle.is_null() { Ok(None) } else { int_array(handle, name).map(Some) }
}

fn prompt(
    p: &mut Plan<'_>,
    query: RawTensor,
    key: RawTensor,
    value: RawTensor,
    pse_shift: RawTensor,
    atten_mask: RawTensor,
    query_lengths: RawIntArray,
    lengths: RawIntArray,
    deq_scale1: RawTensor,
    quant_scale1: RawTensor,
    deq_scale2: RawTensor,
    quant_scale2: RawTensor,
    quant_offset2: RawTensor,
    heads: i64,
    scale: f64,
    pre_tokens: i64,
    next_tokens: i64,
    layout: *mut c_char,
    kv_heads: i64,
    sparse_mode: i64,
    inner_precise: i64,
    out: RawTensor,
) -> Outcome<Planned> {
    let (query, key, value) = (p.input(query, "query")?, p.input(key, "key")?, p.input(value, "value")?);
    let mask = p.optional(atten_mask, "attenMask")?;
    let table = p.optional(std::ptr::null_mut(), "blockTable")?;
    let out = p.output(out, "attentionOut")?;
    p.absent(&[
        ("pseShift", pse_shift),
        ("deqScale1", deq_scale1),
        ("quantScale1", quant_scale1),
        ("deqScale2", deq_scale2),
        ("quantScale2", quant_scale2),
        ("quantOffset2", quant_offset2),
    ])?;
    // query, key, value, pseShift, attenMask, deqScale1, quantScale1, deqScale2, quantScale2, quantOffset2, attentionOut.
    p.order(&[0, 1, 2, 4, 99, 10, 3, 5, 6, 7, 8, 9]);
    let allowed = [("BSH", Layout::Bsh), ("BSND", Layout::Bsnd), ("BNSD", Layout::Bnsd)];
    let layout = Layout::parse(p, layout, &allowed)?;
    p.require((0..=3).contains(&inner_precise), || {
        format!("innerPrecise is {inner_precise}, expected 0 to 3")
    })?;
    let wanted = Wanted {
        query,
        key,
        value,
        mask,
        table,
        out,
        layout,
        heads,
        kv_heads,
        scale,
        sparse_mode,
        block_size: 0,
        query_lengths: lengths_of(query_lengths, "actualSeqLengths")?,
        lengths: lengths_of(lengths, "actualSeqLengthsKv")?,
    };
    if p.is_310p() {
        p.require(kv_heads == 0, || format!("numKeyValueHeads is {kv_heads}, expected 0 on Ascend310P3"))?;
        p.require(sparse_mode == 0, || format!("sparseMode is {sparse_mode}, expected 0 on Ascend310P3"))?;
        p.require(pre_tokens == UNLIMITED && (next_tokens == 0 || next_tokens == UNLIMITED), || {
            format!(
                "preTokens is {pre_tokens}, nextTokens {next_tokens}: expected {UNLIMITED}, and 0 or {UNLIMITED}, on \
                 Ascend310P3"
            )
        })?;
        let seen = layout.see(p, &query, "query", heads)?;
        let most = if layout == Layout::Bsh { 300 } else { 128 };
        p.tiling((1..=most).contains(&seen.batch), || {
            format!("the batch is {}, expected 1 to {most}", seen.batch)
        })?;
        if mask.is_some() {
            let keys = layout.see(p, &key, "key", heads)?;
            let unit = if p.by_the_book() { 128 } else { 16 };
            p.tiling(seen.tokens == keys.tokens && seen.tokens % unit == 0, || {
                format!(
                    "with attenMask the sequence lengths are {} and {}, expected equal multiples of {unit}",
                    seen.tokens, keys.tokens
                )
            })?;
        }
    }
    attention(p, &wanted)
}

fn incremental(
    p: &mut Plan<'_>,
    query: RawTensor,
    key: RawTensorList,
    value: RawTensorList,
    pse_shift: RawTensor,
    atten_mask: RawTensor,
    lengths: RawIntArray,
    dequant_scale1: RawTensor,
    quant_scale1: RawTensor,
    dequant_scale2: RawTensor,
    quant_scale2: RawTensor,
    quant_offset2: RawTensor,
    antiquant_scale: RawTensor,
    antiquant_offset: RawTensor,
    block_table: RawTensor,
    kv_padding_size: RawTensor,
    heads: i64,
    scale: f64,
    layout: *mut c_char,
    kv_heads: i64,
    block_size: i64,
    inner_precise: i64,
    out: RawTensor,
) -> Outcome<Planned> {
    let query = p.input(query, "query")?;
    let (key, value) = (one(p, key, "key")?, one(p, value, "value")?);
    let mask = p.optional(std::ptr::null_mut(), "mask")?;
    let table = p.optional(block_table, "blocktable")?;
    let out = p.output(out, "attentionOut")?;
    p.absent(&[
        ("pseShift", pse_shift),
        ("attenMask", atten_mask),
        ("dequantScale1", dequant_scale1),
        ("quantScale1", quant_scale1),
        ("dequantScale2", dequant_scale2),
        ("quantScale2", quant_scale2),
        ("quantOffset2", quant_offset2),
        ("antiquantScale", antiquant_scale),
        ("antiquantOffset", antiquant_offset),
        ("kvPaddingSize", kv_padding_size),
    ])?;
    p.order(&[0, 1, 2, 99, 12, 14, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13]);
    let allowed = [("BSH", Layout::Bsh), ("BSND", Layout::Bsnd), ("BNSD", Layout::Bnsd)];
    let layout = Layout::parse(p, layout, &allowed)?;
    p.require((0..=1).contains(&inner_precise), || {
        format!("innerPrecise is {inner_precise}, expected 0 or 1")
    })?;
    let seen = layout.see(p, &query, "query", heads)?;
    p.require(seen.tokens == 1, || format!("query has {} tokens a sequence, expected 1", seen.tokens))?;
    for (view, name) in [(&query, "query"), (&key, "key"), (&value, "value"), (&out, "attentionOut")] {
        p.contiguous(view, name)?;
    }
    if table.is_some() {
        p.tiling((16..=512).contains(&block_size) && block_size % 16 == 0, || {
            format!("blockSize is {block_size}, expected a multiple of 16 up to 512")
        })?;
    }
    if p.is_310p() {
        incremental_on_310p(p, &seen, layout, heads, kv_heads, table.is_some())?;
    }
    let lengths = lengths_of(lengths, "actualSeqLengths")?;
    let wanted = Wanted {
        query,
        key,
        value,
        mask,
        table,
        out,
        layout,
        heads,
        kv_heads,
        scale,
        sparse_mode: 0,
        block_size,
        query_lengths: None,
        lengths,
    };
    attention(p, &wanted)
}

/// What the pages and the operator's host source say of aclnnIncreFlashAttentionV4 on 310P.
fn incremental_on_310p(
    p: &Plan<'_>,
    seen: &Seen,
    layout: Layout,
    heads: i64,
    kv_heads: i64,
    paged: bool,
) -> Outcome {
    p.tiling((1..=256).contains(&seen.batch), || format!("the batch is {}, expected 1 to 256", seen.batch))?;
    p.tiling(seen.channels % 16 == 0, || {
        format!("a head has {} channels, expected a multiple of 16", seen.channels)
    })?;
    if p.by_the_book() {
        return p.require(kv_heads == 0, || {
            format!("numKeyValueHeads is {kv_heads}, expected 0 on Ascend310P3 (as its page says)")
        });
    }
    if kv_heads != 0 && kv_heads != heads {
        p.tiling(heads % kv_heads == 0 && heads / kv_heads <= 32 && seen.channels <= 128, || {
            format!(
                "{heads} heads over {kv_heads} KV heads of {} channels, expected a ratio up to 32 and up to 128 channels",
                seen.channels
            )
        })?;
    }
    let fits = if paged { layout != Layout::Bnsd } else { layout == Layout::Bnsd };
    p.tiling(fits, || {
        let expected = if paged { "BSH or BSND with a block table" } else { "BNSD without a block table" };
        format!("inputLayout is {layout:?}, expected {expected}")
    })
}

/// The single member of a list.
fn one(p: &mut Plan<'_>, list: RawTensorList, name: &'static str) -> Outcome<View> {
    let views = p.list(list, name)?;
    match views.as_slice() {
        [view] => Ok(*view),
        _ => fail(NN_PARAM_INVALID, format!("{name} has {} tensors, expected 1", views.len())),
    }
}

fn fused(
    p: &mut Plan<'_>,
    query: RawTensor,
    key: RawTensorList,
    value: RawTensorList,
    pse_shift: RawTensor,
    atten_mask: RawTensor,
    query_lengths: RawIntArray,
    lengths: RawIntArray,
    deq_scale1: RawTensor,
    quant_scale1: RawTensor,
    deq_scale2: RawTensor,
    quant_scale2: RawTensor,
    quant_offset2: RawTensor,
    antiquant_scale: RawTensor,
    antiquant_offset: RawTensor,
    block_table: RawTensor,
    query_padding_size: RawTensor,
    kv_padding_size: RawTensor,
    key_antiquant_scale: RawTensor,
    key_antiquant_offset: RawTensor,
    value_antiquant_scale: RawTensor,
    value_antiquant_offset: RawTensor,
    key_shared_prefix: RawTensor,
    value_shared_prefix: RawTensor,
    shared_prefix_lengths: RawIntArray,
    heads: i64,
    scale: f64,
    _pre_tokens: i64,
    _next_tokens: i64,
    layout: *mut c_char,
    kv_heads: i64,
    sparse_mode: i64,
    inner_precise: i64,
    block_size: i64,
    antiquant_mode: i64,
    softmax_lse_flag: bool,
    key_antiquant_mode: i64,
    value_antiquant_mode: i64,
    out: RawTensor,
    softmax_lse: RawTensor,
) -> Outcome<Planned> {
    if p.is_310p() {
        return p.no_kernel();
    }
    let query = p.input(query, "query")?;
    let (key, value) = (one(p, key, "key")?, one(p, value, "value")?);
    let mask = p.optional(atten_mask, "attenMask")?;
    let table = p.optional(block_table, "blockTable")?;
    let out = p.output(out, "attentionOut")?;
    p.absent(&[
        ("pseShift", pse_shift),
        ("deqScale1", deq_scale1),
        ("quantScale1", quant_scale1),
        ("deqScale2", deq_scale2),
        ("quantScale2", quant_scale2),
        ("quantOffset2", quant_offset2),
        ("antiquantScale", antiquant_scale),
        ("antiquantOffset", antiquant_offset),
        ("queryPaddingSize", query_padding_size),
        ("kvPaddingSize", kv_padding_size),
        ("keyAntiquantScale", key_antiquant_scale),
        ("keyAntiquantOffset", key_antiquant_offset),
        ("valueAntiquantScale", value_antiquant_scale),
        ("valueAntiquantOffset", value_antiquant_offset),
        ("keySharedPrefix", key_shared_prefix),
        ("valueSharedPrefix", value_shared_prefix),
    ])?;
    p.order(&[0, 1, 2, 4, 12, 21, 3, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 19, 20]);
    let plain = shared_prefix_lengths.is_null()
        && [antiquant_mode, key_antiquant_mode, value_antiquant_mode] == [0; 3]
        && !softmax_lse_flag;
    p.require(plain, || "shared prefixes, antiquant modes and softmaxLse are not played".to_owned())?;
    if !softmax_lse.is_null() {
        // SAFETY: the caller of the exported function passed a tensor handle.
        unsafe { crate::tensor::live(softmax_lse, "softmaxLse")? };
    }
    p.require((0..=3).contains(&inner_precise), || {
        format!("innerPrecise is {inner_precise}, expected 0 to 3")
    })?;
    let allowed =
        [("BSH", Layout::Bsh), ("BSND", Layout::Bsnd), ("BNSD", Layout::Bnsd), ("TND", Layout::Tnd)];
    let layout = Layout::parse(p, layout, &allowed)?;
    if table.is_some() {
        p.tiling((16..=1024).contains(&block_size) && block_size % 16 == 0, || {
            format!("blockSize is {block_size}, expected a multiple of 16 up to 1024")
        })?;
    }
    let wanted = Wanted {
        query,
        key,
        value,
        mask,
        table,
        out,
        layout,
        heads,
        kv_heads,
        scale,
        sparse_mode,
        block_size,
        query_lengths: lengths_of(query_lengths, "actualSeqLengths")?,
        lengths: lengths_of(lengths, "actualSeqLengthsKv")?,
    };
    attention(p, &wanted)
}

fn attention(p: &Plan<'_>, w: &Wanted<'_>) -> Outcome<Planned> {
    p.dtype(&w.query, "query", &[DType::Float16, DType::Bf16])?;
    for (view, name) in [(&w.key, "key"), (&w.value, "value"), (&w.out, "attentionOut")] {
        p.same_dtype((&w.query, "query"), (view, name))?;
    }
    p.shape(&w.out, "attentionOut", w.query.dims())?;
    p.require(w.out.strides() == w.query.strides(), || {
        "attentionOut has other strides than query (not played)".to_owned()
    })?;
    let kv_heads = if w.kv_heads == 0 { w.heads } else { w.kv_heads };
    p.require(w.heads > 0 && kv_heads > 0 && w.heads % kv_heads == 0 && w.heads / kv_heads <= 64, || {
        format!("numHeads is {}, numKeyValueHeads {}", w.heads, w.kv_heads)
    })?;
    let query = w.layout.see(p, &w.query, "query", w.heads)?;
    p.require(query.heads == w.heads, || {
        format!("query has {} heads, numHeads is {}", query.heads, w.heads)
    })?;
    p.tiling((1..=512).contains(&query.channels), || format!("a head has {} channels", query.channels))?;
    p.tiling(query.tokens <= 65_535 || w.layout == Layout::Tnd, || {
        format!("query has {} tokens, expected 65535 at most", query.tokens)
    })?;
    let key = keys(p, w, kv_heads)?;
    p.require(key.heads == kv_heads && key.channels == query.channels, || {
        format!(
            "key has {} heads of {} channels, expected {kv_heads} of {}",
            key.heads, key.channels, query.channels
        )
    })?;
    p.shape(&w.value, "value", w.key.dims())?;
    p.require(w.value.strides() == w.key.strides(), || {
        "value has other strides than key (not played)".to_owned()
    })?;
    let sequences = sequences(p, w, &query, &key)?;
    let mask = mask(p, w)?;
    let kernel = Attention {
        heads: w.heads as usize,
        kv_heads: kv_heads as usize,
        channels: query.channels as usize,
        scale: w.scale as f32,
        mask,
        query: query.steps,
        key: key.steps,
        block: if w.table.is_some() { w.block_size as usize } else { 0 },
        sequences: Arc::from(sequences),
    };
    let pairs = kernel.pairs() * w.heads as f64;
    let kv_numbers = 2.0 * kernel.contexts() * (kv_heads * query.channels) as f64;
    let cost = Cost {
        cube: Some(w.query.dtype),
        cube_flops: 4.0 * query.channels as f64 * pairs,
        vector_flops: 5.0 * pairs,
        bytes: w.query.bytes() + w.out.bytes() + kv_numbers * w.key.dtype.bytes() as f64,
    };
    let kernel = if w.query.is_empty() { Kernel::Nothing } else { Kernel::Attention(kernel) };
    Ok(Planned { kernel, cost, workspace: WORKSPACE_BYTES })
}

/// Keys as they lie: like the queries, or in blocks `[blocks, block size, heads * channels]` or `[blocks, heads, block size,
/// channels]`.
fn keys(p: &Plan<'_>, w: &Wanted<'_>, kv_heads: i64) -> Outcome<Seen> {
    let Some(table) = w.table else { return w.layout.see(p, &w.key, "key", kv_heads) };
    p.dtype(&table, "blockTable", &[DType::Int32])?;
    p.contiguous(&table, "blockTable")?;
    p.require(table.rank() == 2, || format!("blockTable has shape {}, expected [B, blocks]", table.shape()))?;
    p.contiguous(&w.key, "key")?;
    let layout = if w.key.rank() == 4 { Layout::Bnsd } else { Layout::Bsh };
    p.tiling(!p.is_310p() || layout == Layout::Bsh, || {
        format!("key has shape {}, expected [blocks, block size, heads * channels]", w.key.shape())
    })?;
    let seen = layout.see(p, &w.key, "key", kv_heads)?;
    p.require(seen.tokens == w.block_size, || {
        format!("key has shape {}, blockSize is {}", w.key.shape(), w.block_size)
    })?;
    Ok(seen)
}

fn sequences(p: &Plan<'_>, w: &Wanted<'_>, query: &Seen, key: &Seen) -> Outcome<Vec<Sequence>> {
    let paged = w.table.is_some();
    if w.layout == Layout::Tnd {
        return ragged(p, w, query, key);
    }
    let batch = query.batch as usize;
    p.require(paged || key.batch == query.batch, || {
        format!("key has a batch of {}, query of {}", key.batch, query.batch)
    })?;
    p.require(!paged || w.lengths.is_some(), || {
        "actualSeqLengthsKv is null, but wanted with a block table".to_owned()
    })?;
    let length = |lengths: Option<&[i64]>, name: &str, i: usize, most: i64| -> Outcome<usize> {
        let found = match lengths {
            None => most,
            Some([one]) => *one,
            Some(many) => match many.get(i) {
                Some(length) => *length,
                None => {
                    return fail(
                        NN_PARAM_INVALID,
                        format!("{name} has {} numbers, expected {batch}", many.len()),
                    );
                }
            },
        };
        p.require((0..=most).contains(&found), || format!("{name}[{i}] is {found}, expected 0 to {most}"))?;
        Ok(found as usize)
    };
    let most = match w.table {
        Some(table) => table.dims()[1] * w.block_size,
        None => key.tokens,
    };
    if let Some(table) = w.table {
        p.require(table.dims()[0] == query.batch, || {
            format!("blockTable has shape {}, the batch is {batch}", table.shape())
        })?;
    }
    (0..batch)
        .map(|i| {
            Ok(Sequence {
                query_at: i as i64 * query.steps.batch,
                queries: length(w.query_lengths, "actualSeqLengths", i, query.tokens)?,
                context: length(w.lengths, "actualSeqLengthsKv", i, most)?,
                key_at: i as i64 * key.steps.batch,
                index: i,
            })
        })
        .collect()
}

/// TND: the query lengths are cumulative; the key lengths are, too, unless there is a block table.
fn ragged(p: &Plan<'_>, w: &Wanted<'_>, query: &Seen, key: &Seen) -> Outcome<Vec<Sequence>> {
    let (Some(ends), Some(lengths)) = (w.query_lengths, w.lengths) else {
        return fail(NN_PARAM_INVALID, "actualSeqLengths and actualSeqLengthsKv are wanted with TND");
    };
    p.require(ends.len() == lengths.len() && ends.last() == Some(&query.tokens), || {
        format!(
            "actualSeqLengths is {ends:?}, actualSeqLengthsKv {lengths:?}, query has {} tokens",
            query.tokens
        )
    })?;
    if let Some(table) = w.table {
        p.require(table.dims()[0] == ends.len() as i64, || {
            format!("blockTable has shape {}, there are {} sequences", table.shape(), ends.len())
        })?;
    }
    let (mut begin, mut key_begin) = (0, 0);
    let mut out = Vec::with_capacity(ends.len());
    for (index, (end, length)) in ends.iter().zip(lengths).enumerate() {
        let (context, most) = match w.table {
            Some(table) => (*length, table.dims()[1] * w.block_size),
            None => (length - key_begin, key.tokens - key_begin),
        };
        p.require(*end >= begin && (0..=most).contains(&context), || {
            format!("sequence {index} ends at {end} of {ends:?}, with key length {length}")
        })?;
        out.push(Sequence {
            query_at: begin * query.steps.token,
            queries: (end - begin) as usize,
            context: context as usize,
            key_at: key_begin * key.steps.token,
            index,
        });
        begin = *end;
        key_begin += context;
    }
    Ok(out)
}

fn mask(p: &Plan<'_>, w: &Wanted<'_>) -> Outcome<Mask> {
    if let Some(mask) = &w.mask {
        let types: &[DType] =
            if p.is_310p() { &[DType::Bool] } else { &[DType::Bool, DType::Int8, DType::Uint8] };
        p.dtype(mask, "attenMask", types)?;
        p.contiguous(mask, "attenMask")?;
    }
    match (w.sparse_mode, &w.mask) {
        (0, None) => Ok(Mask::None),
        (0, Some(mask)) => {
            p.require(w.layout != Layout::Tnd && w.table.is_none(), || {
                "attenMask with sparseMode 0 is not played for TND or paged caches".to_owned()
            })?;
            let query = w.layout.see(p, &w.query, "query", w.heads)?;
            let kv_heads = if w.kv_heads == 0 { w.heads } else { w.kv_heads };
            let key = w.layout.see(p, &w.key, "key", kv_heads)?;
            let dims = mask.dims();
            let front = &dims[..dims.len().saturating_sub(2)];
            let fits = (2..=4).contains(&dims.len())
                && dims.ends_with(&[query.tokens, key.tokens])
                && front.first().is_none_or(|b| *b == 1 || *b == query.batch)
                && front.iter().skip(1).all(|n| *n == 1);
            p.require(fits, || {
                format!(
                    "attenMask has shape {}, expected [.., {}, {}]",
                    mask.shape(),
                    query.tokens,
                    key.tokens
                )
            })?;
            Ok(Mask::Tensor)
        }
        (2 | 3, Some(mask)) => {
            p.require(mask.dims().ends_with(&[2048, 2048]) && mask.len() == 2048 * 2048, || {
                format!(
                    "attenMask has shape {}, expected [2048, 2048] with sparseMode {}",
                    mask.shape(),
                    w.sparse_mode
                )
            })?;
            Ok(if w.sparse_mode == 2 { Mask::CausalBegin } else { Mask::CausalEnd })
        }
        (2 | 3, None) => {
            fail(NN_PARAM_INVALID, format!("attenMask is null, sparseMode {} wants one", w.sparse_mode))
        }
        (mode, _) => fail(
            NN_PARAM_INVALID,
            format!("sparseMode is {mode}, expected 0, 2 or 3 (others are not played)"),
        ),
    }
}
