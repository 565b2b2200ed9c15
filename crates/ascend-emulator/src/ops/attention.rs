//! Attention for all three operators: fp32 scores and softmax, and weights rounded before they multiply the values. The
//! summation of the weighted values depends on the chip ([`Sums`]).

use std::sync::Arc;

#[cfg(target_arch = "x86_64")]
use crate::half::has_avx2;
use crate::half::{DType, narrow, read_f64, round_to, round_to_odd, widen};
use crate::tensor::View;

/// Strides in elements: batch (or block), token and head.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Steps {
    /// Stride of a batch entry, or of a block of a paged cache.
    pub batch: i64,
    /// Stride of a token.
    pub token: i64,
    /// Stride of a head.
    pub head: i64,
}

/// One sequence.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sequence {
    /// Offset of its first query, in elements.
    pub query_at: i64,
    /// Number of queries.
    pub queries: usize,
    /// Number of keys and values that it can see.
    pub context: usize,
    /// Offset of its first key in elements, if not paged. Values have the same layout.
    pub key_at: i64,
    /// Its row in the block table and in the mask.
    pub index: usize,
}

/// Which keys a query may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mask {
    /// All of them.
    None,
    /// Those for which the mask tensor is zero.
    Tensor,
    /// The last query sees all keys, and each earlier one sees one fewer.
    CausalEnd,
    /// The first query sees one key, and each later one sees one more.
    CausalBegin,
}

/// How the weighted values are summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sums {
    /// In fp32, divided by the sum of the weights, rounded once.
    Whole,
    /// In tiles of [`TILE`] keys, as the 310P's prompt operator does even in its precise mode. A tile's weighted values
    /// are rounded to fp16. The previous sum is scaled and added in fp16. The sum of the weights is rounded to fp16
    /// before it divides.
    HalfTiles,
}

/// Keys in a tile of the prompt operator on a 310P.
const TILE: usize = 128;

/// Tensors that turn integers of a cache back into numbers: `(q + offset) * scale`. The offset may be absent.
///
/// The page says that int8 becomes the type of the queries, and no more. So the sum and the product are rounded to that type,
/// as public tests of the operator do. A real kernel may apply the scale to the queries and to the result instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Antiquant {
    /// One scale for the keys, and one for the values: `[2]`.
    Tensor,
    /// A scale for each channel of each KV head, first of the keys, then of the values.
    Channel,
}

/// An attention kernel. Views: query, key, value, mask, block table, out, antiquant scale and offset.
#[derive(Debug, Clone)]
pub(crate) struct Attention {
    /// Number of query heads.
    pub heads: usize,
    /// Number of KV heads.
    pub kv_heads: usize,
    /// Channels per head.
    pub channels: usize,
    /// Scale factor of the scores.
    pub scale: f32,
    /// Which keys are visible.
    pub mask: Mask,
    /// Whether a query sees no key after its own place (nextTokens 0), whatever the mask shows. Costs nothing less.
    pub banded: bool,
    /// How the weighted values are summed.
    pub sums: Sums,
    /// Strides of queries and results.
    pub query: Steps,
    /// Strides of keys and values.
    pub key: Steps,
    /// Tokens per block; 0 if the cache is not paged.
    pub block: usize,
    /// The form of the scales of an int8 cache, if it is one.
    pub antiquant: Option<Antiquant>,
    /// The sequences of the batch.
    pub sequences: Arc<[Sequence]>,
}

impl Attention {
    /// Number of keys that query `i` of a sequence sees, mask tensors not considered.
    pub(crate) fn visible(&self, sequence: &Sequence, i: usize) -> usize {
        match self.mask {
            Mask::None | Mask::Tensor => sequence.context,
            Mask::CausalEnd => {
                (sequence.context + i + 1).saturating_sub(sequence.queries).min(sequence.context)
            }
            Mask::CausalBegin => (i + 1).min(sequence.context),
        }
    }

    fn paged(&self) -> bool {
        self.block > 0
    }

    /// Number of query-key pairs of one head.
    pub(crate) fn pairs(&self) -> f64 {
        let pairs = |s: &Sequence| {
            let (n, context) = (s.queries as f64, s.context as f64);
            let few = n.min(context);
            match self.mask {
                Mask::None | Mask::Tensor => n * context,
                Mask::CausalEnd => few * (2.0 * context - few + 1.0) / 2.0,
                Mask::CausalBegin => few * (few + 1.0) / 2.0 + (n - few) * context,
            }
        };
        self.sequences.iter().map(pairs).sum()
    }

    /// Number of keys that are read over all sequences. The number of values is the same.
    pub(crate) fn contexts(&self) -> f64 {
        self.sequences.iter().map(|s| s.context as f64).sum()
    }

    /// # Safety
    /// Every view lies inside live memory.
    pub(crate) unsafe fn run(&self, views: &[View]) -> Result<(), String> {
        let [query, key, value, mask, table, out, rest @ ..] = views else { return Ok(()) };
        let mut work = Work::default();
        for sequence in self.sequences.iter().filter(|s| s.queries > 0) {
            for kv_head in 0..self.kv_heads {
                // SAFETY: the caller's promise.
                unsafe {
                    self.collect(key, table, sequence, kv_head, &mut work.keys)?;
                    self.collect(value, table, sequence, kv_head, &mut work.values)?;
                    if let (Some(form), [scale, offset, ..]) = (self.antiquant, rest) {
                        let by = [scale, offset];
                        self.dequantise(form, by, (0, kv_head), query.dtype, &mut work.keys);
                        self.dequantise(form, by, (1, kv_head), query.dtype, &mut work.values);
                    }
                    let group = self.heads / self.kv_heads;
                    for i in 0..sequence.queries {
                        for head in kv_head * group..(kv_head + 1) * group {
                            let at = sequence.query_at
                                + i as i64 * self.query.token
                                + head as i64 * self.query.head;
                            work.query.resize(self.channels, 0.0);
                            widen(query.dtype, query.at(at), &mut work.query);
                            work.scores.clear();
                            work.scores.resize(self.visible(sequence, i), 0.0);
                            work.result.resize(self.channels, 0.0);
                            let hidden = |j: usize| {
                                (self.banded && j > i)
                                    || (self.mask == Mask::Tensor && masked(mask, sequence.index, i, j))
                            };
                            attend(&mut work, self.scale, self.sums, query.dtype, hidden);
                            narrow(out.dtype, &work.result, out.at(at));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Dequantises the keys (0) or the values (1) of a head.
    ///
    /// # Safety
    /// The scale, and the offset unless it is absent, lie inside live memory and have the form's shape.
    unsafe fn dequantise(
        &self,
        form: Antiquant,
        [scale, offset]: [&View; 2],
        (which, kv_head): (usize, usize),
        dtype: DType,
        numbers: &mut [f32],
    ) {
        let first = (which * self.kv_heads + kv_head) * self.channels;
        let of = |view: &View, channel: usize| {
            let at = match form {
                Antiquant::Tensor => which,
                Antiquant::Channel => first + channel,
            };
            // SAFETY: the caller's promise; the first stage checked that the tensor is contiguous.
            unsafe { read_f64(view.dtype, view.at(at as i64)) as f32 }
        };
        let scales: Vec<f32> = (0..self.channels).map(|channel| of(scale, channel)).collect();
        let offset_of = |channel| if offset.rank() == 0 { 0.0 } else { of(offset, channel) };
        let offsets: Vec<f32> = (0..self.channels).map(offset_of).collect();
        for row in numbers.chunks_exact_mut(self.channels) {
            for ((x, scale), offset) in row.iter_mut().zip(&scales).zip(&offsets) {
                *x = round_to(dtype, round_to(dtype, *x + offset) * scale);
            }
        }
    }

    /// Reads the keys or values of one head as fp32.
    unsafe fn collect(
        &self,
        cache: &View,
        table: &View,
        sequence: &Sequence,
        kv_head: usize,
        out: &mut Vec<f32>,
    ) -> Result<(), String> {
        out.clear();
        out.resize(sequence.context * self.channels, 0.0);
        let head = kv_head as i64 * self.key.head;
        for (t, row) in out.chunks_exact_mut(self.channels).enumerate() {
            let at = if self.paged() {
                let entry = sequence.index as i64 * table.strides()[0] + (t / self.block) as i64;
                // SAFETY: the table has an entry for every block of the context (checked in the first stage).
                let block = unsafe { read_f64(table.dtype, table.at(entry)) } as i64;
                if !(0..cache.dims()[0]).contains(&block) {
                    return Err(format!(
                        "block {block} of the table is out of range, there are {}",
                        cache.dims()[0]
                    ));
                }
                block * self.key.batch + (t % self.block) as i64 * self.key.token
            } else {
                sequence.key_at + t as i64 * self.key.token
            };
            // SAFETY: a token of the cache, whose channels are contiguous.
            unsafe { widen(cache.dtype, cache.at(at + head), row) };
        }
        Ok(())
    }
}

/// # Safety
/// The mask is the tensor that the first stage checked.
unsafe fn masked(mask: &View, batch: usize, i: usize, j: usize) -> bool {
    let (dims, strides) = (mask.dims(), mask.strides());
    let n = dims.len();
    let mut at = i as i64 * strides[n - 2] + j as i64 * strides[n - 1];
    if n > 2 && dims[0] > 1 {
        at += batch as i64 * strides[0];
    }
    // SAFETY: an element of the mask.
    unsafe { mask.at(at).read() != 0 }
}

/// Scratch buffers of one operator.
#[derive(Default)]
struct Work {
    keys: Vec<f32>,
    values: Vec<f32>,
    query: Vec<f32>,
    scores: Vec<f32>,
    result: Vec<f32>,
}

fn attend(work: &mut Work, scale: f32, sums: Sums, dtype: DType, hidden: impl Fn(usize) -> bool) {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        // SAFETY: the instruction set is there.
        unsafe { scores_avx2(&work.query, &work.keys, &mut work.scores) };
    } else {
        scores(&work.query, &work.keys, &mut work.scores);
    }
    #[cfg(not(target_arch = "x86_64"))]
    scores(&work.query, &work.keys, &mut work.scores);
    let mut max = f32::NEG_INFINITY;
    for (j, score) in work.scores.iter_mut().enumerate() {
        *score = if hidden(j) { f32::NEG_INFINITY } else { *score * scale };
        max = max.max(*score);
    }
    work.result.fill(0.0);
    if max == f32::NEG_INFINITY {
        return;
    }
    match sums {
        Sums::Whole => {
            let total = weigh(&mut work.scores, &work.values, max, dtype, &mut work.result);
            work.result.iter_mut().for_each(|r| *r /= total);
        }
        Sums::HalfTiles => in_half_tiles(work, dtype),
    }
}

/// Turns scores into weights relative to `max`, and adds the values times the rounded weights to `result`. Returns the
/// sum of the weights before rounding.
fn weigh(scores: &mut [f32], values: &[f32], max: f32, dtype: DType, result: &mut [f32]) -> f32 {
    let mut total = 0.0;
    for score in scores.iter_mut() {
        let weight = (*score - max).exp();
        total += weight;
        *score = round_to(dtype, weight);
    }
    for (weight, value) in scores.iter().zip(values.chunks_exact(result.len())) {
        for (r, v) in result.iter_mut().zip(value) {
            *r += weight * v;
        }
    }
    total
}

/// Implements [`Sums::HalfTiles`].
fn in_half_tiles(work: &mut Work, dtype: DType) {
    let d = work.result.len();
    let (mut max, mut total) = (f32::NEG_INFINITY, 0.0);
    let mut tile = vec![0f32; d];
    for (scores, values) in work.scores.chunks_mut(TILE).zip(work.values.chunks(TILE * d)) {
        let largest = scores.iter().copied().fold(max, f32::max);
        if largest == f32::NEG_INFINITY {
            continue;
        }
        let kept = (max - largest).exp();
        max = largest;
        tile.fill(0.0);
        total = total * kept + weigh(scores, values, max, dtype, &mut tile);
        let kept = round_to_odd(kept);
        for (sum, part) in work.result.iter_mut().zip(&tile) {
            *sum = round_to(dtype, round_to(dtype, *part) + round_to(dtype, kept * *sum));
        }
    }
    let total = round_to(dtype, total);
    work.result.iter_mut().for_each(|r| *r /= total);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn scores_avx2(query: &[f32], keys: &[f32], out: &mut [f32]) {
    scores(query, keys, out);
}

/// `out[j] = query . keys[j]`, as eight partial sums by index modulo 8.
#[inline(always)]
fn scores(query: &[f32], keys: &[f32], out: &mut [f32]) {
    let d = query.len();
    for (o, key) in out.iter_mut().zip(keys.chunks_exact(d)) {
        let mut lanes = [0f32; 8];
        let (q8, k8) = (query.as_chunks::<8>(), key.as_chunks::<8>());
        for (q, k) in q8.0.iter().zip(k8.0) {
            for ((lane, q), k) in lanes.iter_mut().zip(q).zip(k) {
                *lane += q * k;
            }
        }
        let rest: f32 = q8.1.iter().zip(k8.1).map(|(q, k)| q * k).sum();
        *o = lanes.iter().sum::<f32>() + rest;
    }
}
