//! Code that the attention operators' first stages share: layouts, lengths, masks, cost.

use std::ffi::c_char;
use std::sync::Arc;

use crate::clock::Cost;
use crate::executor::{Plan, Planned};
use crate::half::DType;
use crate::ops::Kernel;
use crate::ops::attention::{Antiquant, Attention, Mask, Sequence, Steps, Sums};
use crate::ops::indexing::text;
use crate::status::{NN_PARAM_INVALID, Outcome, fail};
use crate::tensor::View;

/// Workspace of the operators in bytes.
const WORKSPACE_BYTES: u64 = 65_536;

/// Order of batch, token and head in a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `[batch, tokens, heads * channels]`.
    Bsh,
    /// `[batch, tokens, heads, channels]`.
    Bsnd,
    /// `[batch, heads, tokens, channels]`.
    Bnsd,
    /// `[tokens of all sequences, heads, channels]`.
    Tnd,
}

/// A tensor interpreted by its layout.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub batch: i64,
    pub tokens: i64,
    pub heads: i64,
    pub channels: i64,
    pub steps: Steps,
}

impl Layout {
    /// Parses the name of a layout.
    pub(crate) fn parse(p: &Plan<'_>, pointer: *const c_char, allowed: &[(&str, Self)]) -> Outcome<Self> {
        let word = text(pointer);
        match allowed.iter().find(|(name, _)| *name == word) {
            Some((_, layout)) => p.form(&word).map(|()| *layout),
            None => {
                let words: Vec<&str> = allowed.iter().map(|(name, _)| *name).collect();
                p.require(false, || format!("inputLayout is \"{word}\", expected {}", words.join(" or ")))?;
                Ok(Self::Bsh)
            }
        }
    }

    /// Interprets a tensor by the layout. `heads` is the number of heads in a row if the shape does not say (BSH).
    pub(crate) fn see(self, p: &Plan<'_>, view: &View, name: &str, heads: i64) -> Outcome<Seen> {
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

/// Arguments common to the three operators.
pub(crate) struct Wanted<'a> {
    pub query: View,
    pub key: View,
    pub value: View,
    pub mask: Option<View>,
    pub table: Option<View>,
    pub out: View,
    pub layout: Layout,
    pub heads: i64,
    pub kv_heads: i64,
    pub scale: f64,
    pub sums: Sums,
    /// Whether nextTokens limits a mask tensor to the keys up to a query's own place.
    pub banded: bool,
    pub sparse_mode: i64,
    pub block_size: i64,
    /// Scale and offset of an int8 cache.
    pub antiquant: [Option<View>; 2],
    pub query_lengths: Option<&'a [i64]>,
    pub lengths: Option<&'a [i64]>,
    /// Maximum key length on a 310P.
    pub longest_310p: i64,
}

/// Runs the checks and estimates the cost that the three operators share.
pub(crate) fn attention(p: &Plan<'_>, w: &Wanted<'_>) -> Outcome<Planned> {
    p.dtype(&w.query, "query", &[DType::Float16, DType::Bf16])?;
    p.same_dtype((&w.query, "query"), (&w.out, "attentionOut"))?;
    let expected = if w.antiquant[0].is_some() { &[DType::Int8][..] } else { &[w.query.dtype] };
    for (view, name) in [(&w.key, "key"), (&w.value, "value")] {
        p.require(expected.contains(&view.dtype), || {
            let with = if w.antiquant[0].is_some() {
                "with antiquantScale"
            } else {
                "as query, without antiquantScale"
            };
            format!("{name} has data type {}, expected {} {with}", view.dtype.name(), expected[0].name())
        })?;
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
    p.tiling((1..=512).contains(&query.channels), || {
        format!("a head has {} channels, expected 1 to 512", query.channels)
    })?;
    p.tiling(query.tokens <= 65_535 || w.layout == Layout::Tnd, || {
        format!("query has {} tokens, expected 65535 at most", query.tokens)
    })?;
    p.tiling(!p.is_310p() || w.heads <= 256, || format!("numHeads is {}, expected 256 at most", w.heads))?;
    let key = keys(p, w, kv_heads)?;
    if p.is_310p() {
        let context = w.table.map_or(key.tokens, |table| table.dims()[1] * w.block_size);
        p.tiling(context <= w.longest_310p, || {
            format!("key has {context} tokens, expected {} at most", w.longest_310p)
        })?;
    }
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
    let antiquant = antiquant(p, w, kv_heads, query.channels)?;
    let sequences = sequences(p, w, &query, &key)?;
    let mask = mask(p, w)?;
    let kernel = Attention {
        heads: w.heads as usize,
        kv_heads: kv_heads as usize,
        channels: query.channels as usize,
        scale: w.scale as f32,
        mask,
        banded: w.banded && mask == Mask::Tensor,
        sums: w.sums,
        query: query.steps,
        key: key.steps,
        block: if w.table.is_some() { w.block_size as usize } else { 0 },
        antiquant,
        sequences: Arc::from(sequences),
    };
    let pairs = kernel.pairs() * w.heads as f64;
    let prompt = kernel.sequences.iter().any(|sequence| sequence.queries > 1);
    let kv_numbers = 2.0 * kernel.contexts() * (kv_heads * query.channels) as f64;
    let cost = Cost {
        cube: Some(w.query.dtype),
        cube_flops: 4.0 * query.channels as f64 * pairs,
        // Each number of an int8 cache is moved and scaled.
        vector_flops: 5.0 * pairs + if antiquant.is_some() { 2.0 * kv_numbers } else { 0.0 },
        bytes: w.query.bytes()
            + w.out.bytes()
            + kv_numbers * w.key.dtype.bytes() as f64
            + w.antiquant.iter().flatten().map(View::bytes).sum::<f64>(),
        prompt,
    };
    let kernel = if w.query.is_empty() { Kernel::Nothing } else { Kernel::Attention(kernel) };
    Ok(Planned { kernel, cost, workspace: WORKSPACE_BYTES })
}

/// Checks scale and offset of an int8 cache by the operators' pages: the type of the queries, and a shape by the layout.
fn antiquant(p: &Plan<'_>, w: &Wanted<'_>, kv_heads: i64, channels: i64) -> Outcome<Option<Antiquant>> {
    let [scale, offset] = &w.antiquant;
    let Some(scale) = scale else {
        p.require(offset.is_none(), || "antiquantOffset is given without antiquantScale".to_owned())?;
        return Ok(None);
    };
    p.form("int8")?;
    p.require(w.layout != Layout::Tnd, || {
        "inputLayout is TND with antiquantScale: no page has this combination".to_owned()
    })?;
    let shape = match w.layout {
        Layout::Bsnd => vec![2, kv_heads, channels],
        Layout::Bnsd => vec![2, kv_heads, 1, channels],
        Layout::Bsh | Layout::Tnd => vec![2, kv_heads * channels],
    };
    for (view, name) in [(Some(scale), "antiquantScale"), (offset.as_ref(), "antiquantOffset")] {
        let Some(view) = view else { continue };
        p.same_dtype((&w.query, "query"), (view, name))?;
        p.contiguous(view, name)?;
        p.require(view.dims() == [2] || view.dims() == shape, || {
            format!(
                "{name} has shape {}, expected [2] or {shape:?} with the layout {:?}",
                view.shape(),
                w.layout
            )
        })?;
        p.shape(view, name, scale.dims())?;
    }
    if w.table.is_some() {
        p.tiling(w.block_size % 32 == 0, || {
            format!("blockSize is {}, expected a multiple of 32 with an INT8 cache", w.block_size)
        })?;
    }
    Ok(Some(if scale.dims() == [2] { Antiquant::Tensor } else { Antiquant::Channel }))
}

/// Interprets the keys: laid out like the queries, or in blocks `[blocks, block size, heads * channels]` or `[blocks,
/// heads, block size, channels]`.
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

/// Sequences in TND. Query lengths are cumulative. Key lengths are cumulative too, unless there is a block table.
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
