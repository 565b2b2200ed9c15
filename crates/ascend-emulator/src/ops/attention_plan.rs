//! First stages of the attention operators, with each chip's restrictions.

use std::ffi::c_char;

use crate::executor::{Plan, Planned};
use crate::half::DType;
use crate::ops::attention::Sums;
use crate::ops::attention_layout::{Layout, Seen, Wanted, attention};
use crate::ops::two_stage;
use crate::status::{NN_PARAM_INVALID, Outcome, fail};
use crate::tensor::{RawIntArray, RawTensor, RawTensorList, View, int_array};

/// Value of preTokens or nextTokens that means "no limit".
const UNLIMITED: i64 = 2_147_483_647;

two_stage! {
    /// Attention with many queries per sequence.
    aclnnPromptFlashAttentionV3, aclnnPromptFlashAttentionV3GetWorkspaceSize(
        query: RawTensor, key: RawTensor, value: RawTensor, pse_shift: RawTensor, atten_mask: RawTensor,
        query_lengths: RawIntArray, lengths: RawIntArray,
        deq_scale1: RawTensor, quant_scale1: RawTensor, deq_scale2: RawTensor, quant_scale2: RawTensor,
        quant_offset2: RawTensor,
        heads: i64, scale: f64, pre_tokens: i64, next_tokens: i64, layout: *mut c_char, kv_heads: i64,
        sparse_mode: i64, inner_precise: i64, out: RawTensor,
    ) = prompt;
    /// Attention with one query per sequence.
    aclnnIncreFlashAttentionV4, aclnnIncreFlashAttentionV4GetWorkspaceSize(
        query: RawTensor, key: RawTensorList, value: RawTensorList, pse_shift: RawTensor, atten_mask: RawTensor,
        lengths: RawIntArray,
        dequant_scale1: RawTensor, quant_scale1: RawTensor, dequant_scale2: RawTensor, quant_scale2: RawTensor,
        quant_offset2: RawTensor, antiquant_scale: RawTensor, antiquant_offset: RawTensor,
        block_table: RawTensor, kv_padding_size: RawTensor,
        heads: i64, scale: f64, layout: *mut c_char, kv_heads: i64, block_size: i64, inner_precise: i64,
        out: RawTensor,
    ) = incremental;
    /// Attention with any number of queries per sequence (not on 310P).
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

/// Accepts mode 0, and mode 2, which also handles rows that see nothing. Modes 1 and 3 compute scores and softmax in
/// fp16 and are not supported.
fn precise(p: &Plan<'_>, inner_precise: i64) -> Outcome {
    p.require((0..=3).contains(&inner_precise), || {
        format!("innerPrecise is {inner_precise}, expected 0 to 3")
    })?;
    p.require(inner_precise % 2 == 0, || {
        format!("innerPrecise is {inner_precise}: the modes of high performance are not played")
    })
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
    precise(p, inner_precise)?;
    if mask.is_some() && next_tokens != 0 {
        p.form("unbanded")?;
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
        sums: if p.is_310p() { Sums::HalfTiles } else { Sums::Whole },
        banded: next_tokens == 0,
        sparse_mode,
        block_size: 0,
        antiquant: [None; 2],
        query_lengths: lengths_of(query_lengths, "actualSeqLengths")?,
        lengths: lengths_of(lengths, "actualSeqLengthsKv")?,
        longest_310p: 65_535,
    };
    if !p.is_310p() && matches!(layout, Layout::Bsh | Layout::Bsnd) {
        let channels = layout.see(p, &wanted.query, "query", heads)?.channels;
        p.tiling(heads * channels < 65_535, || {
            format!("{heads} heads of {channels} channels: N * D is 65535 or more")
        })?;
    }
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
    let antiquant =
        [p.optional(antiquant_scale, "antiquantScale")?, p.optional(antiquant_offset, "antiquantOffset")?];
    p.absent(&[
        ("pseShift", pse_shift),
        ("attenMask", atten_mask),
        ("dequantScale1", dequant_scale1),
        ("quantScale1", quant_scale1),
        ("dequantScale2", dequant_scale2),
        ("quantScale2", quant_scale2),
        ("quantOffset2", quant_offset2),
        ("kvPaddingSize", kv_padding_size),
    ])?;
    p.order(&[0, 1, 2, 99, 12, 14, 10, 11, 3, 4, 5, 6, 7, 8, 9, 13]);
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
        p.dtype(&key, "key", &[DType::Float16])?;
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
        sums: Sums::Whole,
        banded: false,
        sparse_mode: 0,
        block_size,
        antiquant,
        query_lengths: None,
        lengths,
        longest_310p: 65_536,
    };
    attention(p, &wanted)
}

/// Checks the rules of aclnnIncreFlashAttentionV4 on 310P from the pages and the operator's host source.
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

/// Returns the single member of a list.
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
    let antiquant =
        [p.optional(antiquant_scale, "antiquantScale")?, p.optional(antiquant_offset, "antiquantOffset")?];
    p.absent(&[
        ("pseShift", pse_shift),
        ("deqScale1", deq_scale1),
        ("quantScale1", quant_scale1),
        ("deqScale2", deq_scale2),
        ("quantScale2", quant_scale2),
        ("quantOffset2", quant_offset2),
        ("queryPaddingSize", query_padding_size),
        ("kvPaddingSize", kv_padding_size),
        ("keyAntiquantScale", key_antiquant_scale),
        ("keyAntiquantOffset", key_antiquant_offset),
        ("valueAntiquantScale", value_antiquant_scale),
        ("valueAntiquantOffset", value_antiquant_offset),
        ("keySharedPrefix", key_shared_prefix),
        ("valueSharedPrefix", value_shared_prefix),
    ])?;
    p.order(&[0, 1, 2, 4, 12, 21, 10, 11, 3, 5, 6, 7, 8, 9, 13, 14, 15, 16, 17, 18, 19, 20]);
    let plain = shared_prefix_lengths.is_null()
        && [antiquant_mode, key_antiquant_mode, value_antiquant_mode] == [0; 3]
        && !softmax_lse_flag;
    p.require(plain, || "shared prefixes, antiquant modes and softmaxLse are not played".to_owned())?;
    if !softmax_lse.is_null() {
        // SAFETY: the caller of the exported function passed a tensor handle.
        unsafe { crate::tensor::live(softmax_lse, "softmaxLse")? };
    }
    precise(p, inner_precise)?;
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
        sums: Sums::Whole,
        banded: false,
        sparse_mode,
        block_size,
        antiquant,
        query_lengths: lengths_of(query_lengths, "actualSeqLengths")?,
        lengths: lengths_of(lengths, "actualSeqLengthsKv")?,
        longest_310p: 0,
    };
    if layout == Layout::Tnd && kv_heads != 0 && kv_heads != heads {
        grouped_and_ragged(p, &wanted, inner_precise)?;
    }
    if antiquant[0].is_some() {
        fused_over_int8(p, &wanted)?;
    }
    attention(p, &wanted)
}

/// Checks the page's rules of aclnnFusedInferAttentionScoreV2 for an int8 cache with antiquantScale. They depend on whether a
/// sequence has several queries.
fn fused_over_int8(p: &Plan<'_>, w: &Wanted<'_>) -> Outcome {
    let query = w.layout.see(p, &w.query, "query", w.heads)?;
    let (many, size) = (query.tokens > 1, w.block_size);
    p.tiling(!many || query.channels % 32 == 0, || {
        format!("a head has {} channels, expected a multiple of 32 with an INT8 cache", query.channels)
    })?;
    p.require(!many || w.query.dtype == DType::Float16, || {
        format!(
            "query has data type {}, expected FLOAT16 with antiquantScale and several queries a sequence",
            w.query.dtype.name()
        )
    })?;
    if w.table.is_some() {
        let fits = if many { size % 128 == 0 } else { size % 32 == 0 };
        p.tiling(fits && (1..=512).contains(&size), || {
            let unit = if many { "128 with several queries a sequence" } else { "32" };
            format!("blockSize is {size}, expected a multiple of {unit}, up to 512, with an INT8 cache")
        })?;
    }
    Ok(())
}

/// Checks the page's rules of aclnnFusedInferAttentionScoreV2 for TND with fewer KV heads than heads.
fn grouped_and_ragged(p: &Plan<'_>, w: &Wanted<'_>, inner_precise: i64) -> Outcome {
    p.require(inner_precise == 0, || {
        format!("innerPrecise is {inner_precise}, expected 0 with TND and grouped heads")
    })?;
    if w.table.is_some() {
        p.tiling(w.block_size <= 128, || {
            format!("blockSize is {}, expected 128 at most with TND and grouped heads", w.block_size)
        })?;
        p.tiling(w.key.rank() == 3, || {
            format!(
                "key has shape {}, expected [blocks, block size, heads * channels] with TND",
                w.key.shape()
            )
        })?;
    }
    let expected = if w.mask.is_some() { [3, 4].as_slice() } else { &[0] };
    p.require(expected.contains(&w.sparse_mode), || {
        format!("sparseMode is {}, expected one of {expected:?} with TND and grouped heads", w.sparse_mode)
    })?;
    let sequences = w.query_lengths.map_or(0, <[i64]>::len);
    p.require(sequences <= 4096, || {
        format!("actualSeqLengths has {sequences} numbers, expected 4096 at most")
    })
}
