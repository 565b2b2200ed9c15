//! Attention in every operator, layout and cache against plain loops in fp64.

use std::ffi::c_char;
use std::ptr::null_mut;

use super::session::{Array, Session, assert_close, epsilon, message, random, rounded, tensor};
use crate::half::DType::{Bf16, Bool, Float16, Int32};
use crate::half::{DType, round_to};
use crate::ops::attention_plan::{
    aclnnFusedInferAttentionScoreV2, aclnnFusedInferAttentionScoreV2GetWorkspaceSize,
    aclnnIncreFlashAttentionV4, aclnnIncreFlashAttentionV4GetWorkspaceSize, aclnnPromptFlashAttentionV3,
    aclnnPromptFlashAttentionV3GetWorkspaceSize,
};
use crate::tensor::{
    RawIntArray, RawTensor, RawTensorList, aclCreateIntArray, aclCreateTensorList, aclDestroyIntArray,
    aclDestroyTensorList,
};

const D: usize = 16;
const LIMITLESS: i64 = 2_147_483_647;

/// One query over keys and values. The softmax weights are rounded to the type before they multiply the values.
fn attend(query: &[f32], keys: &[&[f32]], values: &[&[f32]], scale: f64, dtype: DType) -> Vec<f32> {
    let dot =
        |k: &&[f32]| query.iter().zip(*k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() * scale;
    let scores: Vec<f64> = keys.iter().map(dot).collect();
    let max = scores.iter().copied().fold(f64::MIN, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    (0..query.len())
        .map(|c| {
            let sum: f64 = weights
                .iter()
                .zip(values)
                .map(|(w, v)| f64::from(round_to(dtype, *w as f32)) * f64::from(v[c]))
                .sum();
            (sum / total) as f32
        })
        .collect()
}

/// Sequences of `(queries, context)`, with queries `[tokens, heads, D]` and keys and values `[token][kv head][D]` each.
struct Case {
    dtype: DType,
    heads: usize,
    kv_heads: usize,
    lengths: Vec<(usize, usize)>,
    query: Vec<f32>,
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

impl Case {
    fn new(dtype: DType, heads: usize, kv_heads: usize, lengths: &[(usize, usize)]) -> Self {
        let tokens: usize = lengths.iter().map(|l| l.0).sum();
        let cache = |seed: u64| {
            let of = |(i, l): (usize, &(usize, usize))| {
                rounded(dtype, &random(seed + i as u64, l.1 * kv_heads * D))
            };
            lengths.iter().enumerate().map(of).collect()
        };
        Self {
            dtype,
            heads,
            kv_heads,
            lengths: lengths.to_vec(),
            query: rounded(
                dtype,
                &random(30, tokens * heads * D).iter().map(|x| 4.0 * x).collect::<Vec<_>>(),
            ),
            keys: cache(40),
            values: cache(60),
        }
    }

    /// Returns `[tokens, heads, D]`. If `causal`, the last query of a sequence sees all keys, and each earlier one sees
    /// one fewer.
    fn expected(&self, causal: bool) -> Vec<f32> {
        let mut out = Vec::new();
        let mut token = 0;
        for (sequence, (queries, context)) in self.lengths.iter().enumerate() {
            for i in 0..*queries {
                let seen = if causal { context + i + 1 - queries } else { *context };
                for head in 0..self.heads {
                    let kv = head / (self.heads / self.kv_heads);
                    let rows = |all: &'_ [f32]| -> Vec<Vec<f32>> {
                        (0..seen).map(|t| all[(t * self.kv_heads + kv) * D..][..D].to_vec()).collect()
                    };
                    let (k, v) = (rows(&self.keys[sequence]), rows(&self.values[sequence]));
                    let (k, v): (Vec<&[f32]>, Vec<&[f32]>) =
                        (k.iter().map(Vec::as_slice).collect(), v.iter().map(Vec::as_slice).collect());
                    let query = &self.query[(token * self.heads + head) * D..][..D];
                    out.extend(attend(query, &k, &v, 0.25, self.dtype));
                }
                token += 1;
            }
        }
        out
    }

    /// Arranges keys or values in shuffled blocks `[blocks, size, kv heads * D]` (or heads before tokens). Returns
    /// them, the table, and its entries per row.
    fn paged(&self, all: &[Vec<f32>], size: usize, heads_first: bool) -> (Vec<f32>, Vec<f32>, usize) {
        let per_row = self.lengths.iter().map(|l| l.1.div_ceil(size)).max().unwrap();
        let blocks = self.lengths.len() * per_row + 1;
        let mut cache = vec![f32::NAN; blocks * size * self.kv_heads * D];
        let mut table = Vec::new();
        for (sequence, (_, context)) in self.lengths.iter().enumerate() {
            for block in 0..per_row {
                let place = blocks - 1 - (sequence + block * self.lengths.len());
                table.push(place as f32);
                for t in 0..size.min(context.saturating_sub(block * size)) {
                    for head in 0..self.kv_heads {
                        let from = &all[sequence][((block * size + t) * self.kv_heads + head) * D..][..D];
                        let row = if heads_first {
                            (place * self.kv_heads + head) * size + t
                        } else {
                            (place * size + t) * self.kv_heads + head
                        };
                        cache[row * D..][..D].copy_from_slice(from);
                    }
                }
            }
        }
        (cache, table, per_row)
    }
}

fn ints(values: &[i64]) -> RawIntArray {
    // SAFETY: as many numbers as said.
    unsafe { aclCreateIntArray(values.as_ptr(), values.len() as u64) }
}

/// A list that owns a second handle to the array's memory.
fn list(array: &Array, dtype: DType, dims: &[i64]) -> RawTensorList {
    let members = [tensor(array.memory.0, dtype, dims, None, 0, 2, dims)];
    // SAFETY: one handle.
    unsafe { aclCreateTensorList(members.as_ptr(), 1) }
}

fn prompt(
    s: &Session,
    [q, k, v, out]: [RawTensor; 4],
    mask: RawTensor,
    lengths: [RawIntArray; 2],
    layout: &std::ffi::CStr,
    numbers: [i64; 3],
) {
    prompt_in_band(s, [q, k, v, out], mask, lengths, layout, numbers, LIMITLESS);
}

/// Like [`prompt`], with a value of nextTokens.
fn prompt_in_band(
    s: &Session,
    [q, k, v, out]: [RawTensor; 4],
    mask: RawTensor,
    lengths: [RawIntArray; 2],
    layout: &std::ffi::CStr,
    [heads, kv_heads, sparse]: [i64; 3],
    next: i64,
) {
    let (n, layout) = (null_mut(), layout.as_ptr().cast_mut());
    s.run(
        // SAFETY: live handles, nulls, a C string.
        |w, e| unsafe {
            aclnnPromptFlashAttentionV3GetWorkspaceSize(
                q, k, v, n, mask, lengths[0], lengths[1], n, n, n, n, n, heads, 0.25, LIMITLESS, next,
                layout, kv_heads, sparse, 0, out, w, e,
            )
        },
        aclnnPromptFlashAttentionV3,
    );
}

/// Calls the incremental operator, which has a long argument list.
fn incremental(
    key: RawTensorList,
    value: RawTensorList,
    [q, table, out]: [RawTensor; 3],
    lengths: RawIntArray,
    layout: *mut c_char,
    [heads, kv_heads, block]: [i64; 3],
) -> impl FnOnce(*mut u64, *mut crate::executor::RawExecutor) -> i32 {
    let n = null_mut();
    // SAFETY: live handles, nulls, a C string.
    move |w, e| unsafe {
        aclnnIncreFlashAttentionV4GetWorkspaceSize(
            q, key, value, n, n, lengths, n, n, n, n, n, n, n, table, n, heads, 0.25, layout, kv_heads,
            block, 1, out, w, e,
        )
    }
}

#[test]
fn prompt_attention_on_310p_masks_what_the_tensor_says() {
    let s = Session::new("soc = Ascend310P3");
    let case = Case::new(Float16, 2, 2, &[(16, 16), (16, 16)]);
    let dims = [2, 16, 2, D as i64];
    let (q, out) = (Array::new(Float16, &dims, &case.query), Array::empty(Float16, &dims));
    let (k, v) =
        (Array::new(Float16, &dims, &case.keys.concat()), Array::new(Float16, &dims, &case.values.concat()));
    let upper: Vec<f32> = (0..256).map(|i| f32::from(u8::from(i % 16 > i / 16))).collect();
    let mask = Array::new(Bool, &[1, 16, 16], &upper);
    let tensors = [q.tensor, k.tensor, v.tensor, out.tensor];
    prompt(&s, tensors, mask.tensor, [null_mut(); 2], c"BSND", [2, 0, 0]);
    // Three results are rounded: the weighted values, the sum of the weights, and their quotient.
    assert_close(&out.read(), &case.expected(true), 4.0 * epsilon(Float16), 1e-5);
    prompt(&s, tensors, null_mut(), [null_mut(); 2], c"BSND", [2, 0, 0]);
    assert_close(&out.read(), &case.expected(false), 4.0 * epsilon(Float16), 1e-5);
    // A band that ends at a query's own place hides the keys after it, even if the mask shows them.
    let open = Array::new(Bool, &[1, 16, 16], &[0.0; 256]);
    prompt(&s, tensors, open.tensor, [null_mut(); 2], c"BSND", [2, 0, 0]);
    assert_close(&out.read(), &case.expected(false), 4.0 * epsilon(Float16), 1e-5);
    prompt_in_band(&s, tensors, open.tensor, [null_mut(); 2], c"BSND", [2, 0, 0], 0);
    assert_close(&out.read(), &case.expected(true), 4.0 * epsilon(Float16), 1e-5);
    drop((q, k, v, out, mask, open));
    s.end();
}

/// All scores are zero, so all weights are one. The first of two tiles holds 1000 and 127 times 0.3. fp16 stores its
/// sum of 1038.1 as 1038. The second tile takes the 1000 away again.
#[test]
fn prompt_attention_on_310p_sums_tiles_in_fp16() {
    let tokens = 129;
    let dims = [1, tokens as i64, 1, D as i64];
    let third = round_to(Float16, 0.3);
    let of_token = |t: usize| [1000.0, third, -1000.0][usize::from(t > 0) + usize::from(t == tokens - 1)];
    let values: Vec<f32> = (0..tokens * D).map(|i| of_token(i / D)).collect();
    for (settings, sum) in [("soc = Ascend310P3", 38.0), ("soc = Ascend910B4", 127.0 * third)] {
        let s = Session::new(settings);
        let zeros = vec![0.0; tokens * D];
        let (q, k) = (Array::new(Float16, &dims, &zeros), Array::new(Float16, &dims, &zeros));
        let (v, out) = (Array::new(Float16, &dims, &values), Array::empty(Float16, &dims));
        let tensors = [q.tensor, k.tensor, v.tensor, out.tensor];
        prompt(&s, tensors, null_mut(), [null_mut(); 2], c"BSND", [1, 0, 0]);
        let expected = round_to(Float16, sum / tokens as f32);
        assert!(out.read().iter().all(|x| *x == expected), "{settings}: {} for {expected}", out.read()[0]);
        drop((q, k, v, out));
        s.end();
    }
}

#[test]
fn grouped_decode_is_prompt_attention_of_a_reshaped_query() {
    // [B, 4 heads, D] over 2 KV heads, viewed as [B, 2, 2 queries, D]: the heads of a group become queries.
    let s = Session::new("soc = Ascend310P3");
    let case = Case::new(Float16, 4, 2, &[(1, 7), (1, 12)]);
    let (q, out) =
        (Array::new(Float16, &[2, 2, 2, D as i64], &case.query), Array::empty(Float16, &[2, 2, 2, D as i64]));
    let mut caches = Vec::new();
    for all in [&case.keys, &case.values] {
        let mut cache = vec![f32::NAN; 2 * 2 * 12 * D];
        for (b, numbers) in all.iter().enumerate() {
            for (row, from) in numbers.chunks(D).enumerate() {
                cache[((b * 2 + row % 2) * 12 + row / 2) * D..][..D].copy_from_slice(from);
            }
        }
        caches.push(Array::new(Float16, &[2, 2, 12, D as i64], &cache));
    }
    let lengths = ints(&[7, 12]);
    let tensors = [q.tensor, caches[0].tensor, caches[1].tensor, out.tensor];
    prompt(&s, tensors, null_mut(), [null_mut(), lengths], c"BNSD", [2, 0, 0]);
    assert_close(&out.read(), &case.expected(false), 4.0 * epsilon(Float16), 1e-5);
    // SAFETY: a handle of our own.
    unsafe { aclDestroyIntArray(lengths) };
    drop((q, out, caches));
    s.end();
}

#[test]
fn incremental_attention_reads_paged_caches() {
    let (duo, a2) = ("soc = Ascend310P3", "soc = Ascend910B4");
    for (settings, dtype, heads_first) in [(duo, Float16, false), (a2, Bf16, false), (a2, Bf16, true)] {
        let s = Session::new(settings);
        let case = Case::new(dtype, 8, 2, &[(1, 35), (1, 16), (1, 1)]);
        let (keys, table, row) = case.paged(&case.keys, 16, heads_first);
        let (values, ..) = case.paged(&case.values, 16, heads_first);
        let blocks = (keys.len() / (16 * 2 * D)) as i64;
        let d = D as i64;
        let dims = if heads_first { vec![blocks, 2, 16, d] } else { vec![blocks, 16, 2 * d] };
        let shape = if heads_first { vec![3, 8, 1, d] } else { vec![3, 1, 8 * d] };
        let (k, v) = (Array::new(dtype, &dims, &keys), Array::new(dtype, &dims, &values));
        let (q, out) = (Array::new(dtype, &shape, &case.query), Array::empty(dtype, &shape));
        let t = Array::new(Int32, &[3, row as i64], &table);
        let (kl, vl, lengths) = (list(&k, dtype, &dims), list(&v, dtype, &dims), ints(&[35, 16, 1]));
        let layout = if heads_first { c"BNSD" } else { c"BSH" }.as_ptr().cast_mut();
        s.run(
            incremental(kl, vl, [q.tensor, t.tensor, out.tensor], lengths, layout, [8, 2, 16]),
            aclnnIncreFlashAttentionV4,
        );
        assert_close(&out.read(), &case.expected(false), 2.0 * epsilon(dtype), 1e-5);
        // SAFETY: handles of our own; the lists take their tensors along.
        unsafe {
            assert_eq!(aclDestroyTensorList(kl), 0);
            assert_eq!(aclDestroyTensorList(vl), 0);
            aclDestroyIntArray(lengths);
        }
        drop((k, v, q, out, t));
        s.end();
    }
}

#[test]
fn fused_attention_takes_ragged_batches_over_a_paged_cache() {
    let s = Session::new("soc = Ascend910B4");
    let case = Case::new(Float16, 8, 2, &[(5, 21), (1, 40), (3, 3)]);
    let (keys, table, row) = case.paged(&case.keys, 16, false);
    let (values, ..) = case.paged(&case.values, 16, false);
    let blocks = (keys.len() / (16 * 2 * D)) as i64;
    let d = D as i64;
    let dims = [blocks, 16, 2 * d];
    let (k, v) = (Array::new(Float16, &dims, &keys), Array::new(Float16, &dims, &values));
    let (q, out) = (Array::new(Float16, &[9, 8, d], &case.query), Array::empty(Float16, &[9, 8, d]));
    let t = Array::new(Int32, &[3, row as i64], &table);
    let mask = Array::new(Bool, &[2048, 2048], &vec![0.0; 2048 * 2048]);
    let (kl, vl) = (list(&k, Float16, &dims), list(&v, Float16, &dims));
    let (ends, contexts) = (ints(&[5, 6, 9]), ints(&[21, 40, 3]));
    let (n, layout) = (null_mut(), c"TND".as_ptr().cast_mut());
    s.run(
        // SAFETY: live handles, nulls, a C string.
        |w, e| unsafe {
            aclnnFusedInferAttentionScoreV2GetWorkspaceSize(
                q.tensor,
                kl,
                vl,
                n,
                mask.tensor,
                ends,
                contexts,
                n,
                n,
                n,
                n,
                n,
                n,
                n,
                t.tensor,
                n,
                n,
                n,
                n,
                n,
                n,
                n,
                n,
                null_mut(),
                8,
                0.25,
                LIMITLESS,
                LIMITLESS,
                layout,
                2,
                3,
                0,
                16,
                0,
                false,
                0,
                0,
                out.tensor,
                n,
                w,
                e,
            )
        },
        aclnnFusedInferAttentionScoreV2,
    );
    assert_close(&out.read(), &case.expected(true), 2.0 * epsilon(Float16), 1e-5);
    // SAFETY: handles of our own.
    unsafe {
        aclDestroyTensorList(kl);
        aclDestroyTensorList(vl);
        aclDestroyIntArray(ends);
        aclDestroyIntArray(contexts);
    }
    drop((k, v, q, out, t, mask));
    s.end();
}

#[test]
fn each_reading_of_the_310p_documents_has_its_own_answer() {
    for (strict, kv_heads, code) in [("doc", 2, 161_002), ("source", 2, 0), ("doc", 0, 0)] {
        let _s = Session::new(&format!("soc = Ascend310P3\nstrict = {strict}"));
        let heads = if kv_heads == 0 { 2 } else { 8 };
        let case = Case::new(Float16, heads, 2, &[(1, 20)]);
        let (keys, table, row) = case.paged(&case.keys, 16, false);
        let d = D as i64;
        let dims = [(keys.len() / (32 * D)) as i64, 16, 2 * d];
        let (k, v) = (Array::new(Float16, &dims, &keys), Array::new(Float16, &dims, &keys));
        let shape = [1, 1, heads as i64 * d];
        let (q, out) = (Array::new(Float16, &shape, &case.query), Array::empty(Float16, &shape));
        let t = Array::new(Int32, &[1, row as i64], &table);
        let (kl, vl, lengths) = (list(&k, Float16, &dims), list(&v, Float16, &dims), ints(&[20]));
        let (mut size, mut executor) = (0, null_mut());
        let layout = c"BSH".as_ptr().cast_mut();
        let first = incremental(
            kl,
            vl,
            [q.tensor, t.tensor, out.tensor],
            lengths,
            layout,
            [heads as i64, kv_heads, 16],
        );
        assert_eq!(first(&raw mut size, &raw mut executor), code, "{strict} {kv_heads}: {}", message());
    }
}
