//! Attention over int8 caches: the same bits as over the dequantised cache, and the refusals of the pages.

use std::ffi::{CStr, c_char};
use std::ptr::null_mut;

use super::session::{Array, Session, message, random, rounded, tensor};
use crate::executor::{RawExecutor, aclDestroyAclOpExecutor};
use crate::half::DType::{Bf16, Bool, Float, Float16, Int8, Int32};
use crate::half::{DType, round_to};
use crate::ops::attention_plan::{
    aclnnFusedInferAttentionScoreV2, aclnnFusedInferAttentionScoreV2GetWorkspaceSize,
    aclnnIncreFlashAttentionV4, aclnnIncreFlashAttentionV4GetWorkspaceSize,
};
use crate::tensor::{
    RawTensor, RawTensorList, aclCreateIntArray, aclCreateTensorList, aclDestroyIntArray,
    aclDestroyTensorList,
};

const A2: &str = "soc = Ascend910B4";
const DUO: &str = "soc = Ascend310P3";
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const LIMITLESS: i64 = 2_147_483_647;
const PARAM: i32 = 161_002;
const TILING: i32 = 561_002;

/// A call over a paged cache of two blocks a sequence.
#[derive(Clone)]
struct Call {
    fused: bool,
    layout: &'static CStr,
    dtype: DType,
    cache: DType,
    sequences: usize,
    rows: usize,
    channels: usize,
    block: usize,
    heads_first: bool,
    /// Shape and type of scale and offset.
    by: Option<(Vec<i64>, DType)>,
    has_offset: bool,
    /// The call that the numbers of a cache that is not int8 are from.
    numbers_of: Option<Box<Self>>,
}

impl Default for Call {
    fn default() -> Self {
        Self {
            fused: true,
            layout: c"BSH",
            dtype: Float16,
            cache: Int8,
            sequences: 3,
            rows: 1,
            channels: 32,
            block: 128,
            heads_first: false,
            by: Some((vec![2, 64], Float16)),
            has_offset: true,
            numbers_of: None,
        }
    }
}

fn listed(array: &Array, dtype: DType, dims: &[i64]) -> RawTensorList {
    let members = [tensor(array.memory.0, dtype, dims, None, 0, 2, dims)];
    // SAFETY: one handle.
    unsafe { aclCreateTensorList(members.as_ptr(), 1) }
}

impl Call {
    fn cache_dims(&self) -> Vec<i64> {
        let [blocks, block, heads, channels] =
            [2 * self.sequences, self.block, KV_HEADS, self.channels].map(|n| n as i64);
        if self.heads_first {
            vec![blocks, heads, block, channels]
        } else {
            vec![blocks, block, heads * channels]
        }
    }

    fn query_dims(&self) -> Vec<i64> {
        let [sequences, rows, channels] = [self.sequences, self.rows, self.channels].map(|n| n as i64);
        match self.layout.to_bytes() {
            b"BNSD" => vec![sequences, HEADS as i64, rows, channels],
            b"BSND" => vec![sequences, rows, HEADS as i64, channels],
            b"TND" => vec![sequences * rows, HEADS as i64, channels],
            _ => vec![sequences, rows, HEADS as i64 * channels],
        }
    }

    /// Integers of keys (0) or values (1).
    fn integers(&self, which: usize) -> Vec<f32> {
        let count: i64 = self.cache_dims().iter().product();
        (0..count as usize).map(|i| ((i * 37 + which * 11) % 256) as f32 - 128.0).collect()
    }

    fn channel_number(&self, offset: bool, at: usize) -> f32 {
        if offset { (at % 7) as f32 - 3.0 } else { round_to(self.dtype, 0.01 + 0.001 * at as f32) }
    }

    /// The numbers of the integers: `(q + offset) * scale`, rounded to the type of the queries.
    fn numbers(&self, which: usize) -> Vec<f32> {
        let dims = self.cache_dims();
        let per_tensor = self.by.as_ref().is_some_and(|(dims, _)| dims == &[2]);
        let number = |(i, q): (usize, f32)| {
            let (channel, head) = if self.heads_first {
                (i % self.channels, i / (self.block * self.channels) % KV_HEADS)
            } else {
                (i % self.channels, i / self.channels % KV_HEADS)
            };
            let at = if per_tensor { which } else { (which * KV_HEADS + head) * self.channels + channel };
            let offset = if self.has_offset { self.channel_number(true, at) } else { 0.0 };
            round_to(self.dtype, (q + offset) * self.channel_number(false, at))
        };
        assert_eq!(dims.iter().product::<i64>() as usize, self.integers(which).len());
        self.integers(which).into_iter().enumerate().map(number).collect()
    }

    /// Runs both stages, and returns the status of the first with the result.
    #[expect(clippy::too_many_lines, reason = "each argument of the operator has a line")]
    fn run(&self, s: &Session) -> (i32, Vec<f32>) {
        let (cache, query) = (self.cache_dims(), self.query_dims());
        let of_cache = |which| {
            let of = self.numbers_of.as_deref().unwrap_or(self);
            let numbers = if self.cache == Int8 { self.integers(which) } else { of.numbers(which) };
            Array::new(self.cache, &cache, &numbers)
        };
        let (keys, values) = (of_cache(0), of_cache(1));
        let count = query.iter().product::<i64>() as usize;
        let q = Array::new(self.dtype, &query, &rounded(self.dtype, &random(5, count)));
        let out = Array::empty(self.dtype, &query);
        let table: Vec<f32> = (0..2 * self.sequences).map(|i| (2 * self.sequences - 1 - i) as f32).collect();
        let table = Array::new(Int32, &[self.sequences as i64, 2], &table);
        let by = self.by.as_ref().map(|(dims, dtype)| {
            let count = dims.iter().product::<i64>() as usize;
            [false, true].map(|offset| {
                let numbers: Vec<f32> = (0..count).map(|at| self.channel_number(offset, at)).collect();
                Array::new(*dtype, dims, &numbers)
            })
        });
        let scale = by.as_ref().map_or(null_mut(), |[scale, _]| scale.tensor);
        let offset = by.as_ref().filter(|_| self.has_offset).map_or(null_mut(), |[_, offset]| offset.tensor);
        let mask: Vec<f32> = (0..2048 * 2048).map(|i| f32::from(u8::from(i % 2048 > i / 2048))).collect();
        let mask = (self.rows > 1).then(|| Array::new(Bool, &[2048, 2048], &mask));
        let ragged = self.layout == c"TND";
        let rows: Vec<i64> =
            (1..=self.sequences).map(|i| (if ragged { i * self.rows } else { self.rows }) as i64).collect();
        let contexts: Vec<i64> = (0..self.sequences).map(|i| (self.block + 3 + i) as i64).collect();
        let (kl, vl) = (listed(&keys, self.cache, &cache), listed(&values, self.cache, &cache));
        let (n, layout) = (null_mut(), self.layout.as_ptr().cast_mut());
        let (heads, kv_heads, block) = (HEADS as i64, KV_HEADS as i64, self.block as i64);
        let masked = mask.as_ref().map_or(n, |mask: &Array| mask.tensor);
        let (mut size, mut executor) = (0u64, null_mut());
        // SAFETY: live handles, nulls, a C string; all are destroyed below.
        let (code, result) = unsafe {
            let (r, c) = (
                aclCreateIntArray(rows.as_ptr(), rows.len() as u64),
                aclCreateIntArray(contexts.as_ptr(), contexts.len() as u64),
            );
            let first = |w: *mut u64, e: *mut RawExecutor| {
                if self.fused {
                    aclnnFusedInferAttentionScoreV2GetWorkspaceSize(
                        q.tensor,
                        kl,
                        vl,
                        n,
                        masked,
                        r,
                        c,
                        n,
                        n,
                        n,
                        n,
                        n,
                        scale,
                        offset,
                        table.tensor,
                        n,
                        n,
                        n,
                        n,
                        n,
                        n,
                        n,
                        n,
                        null_mut(),
                        heads,
                        0.25,
                        LIMITLESS,
                        LIMITLESS,
                        layout,
                        kv_heads,
                        if self.rows > 1 { 3 } else { 0 },
                        0,
                        block,
                        0,
                        false,
                        0,
                        0,
                        out.tensor,
                        n,
                        w,
                        e,
                    )
                } else {
                    incremental(
                        [q.tensor, table.tensor, out.tensor, scale, offset],
                        [kl, vl],
                        c,
                        layout,
                        block,
                        w,
                        e,
                    )
                }
            };
            let code = first(&raw mut size, &raw mut executor);
            let result = if code == 0 {
                assert_eq!(aclDestroyAclOpExecutor(executor), 0);
                let second =
                    if self.fused { aclnnFusedInferAttentionScoreV2 } else { aclnnIncreFlashAttentionV4 };
                s.run(first, second);
                out.read()
            } else {
                Vec::new()
            };
            assert_eq!((aclDestroyTensorList(kl), aclDestroyTensorList(vl)), (0, 0));
            aclDestroyIntArray(r);
            aclDestroyIntArray(c);
            (code, result)
        };
        (code, result)
    }
}

/// # Safety
/// Live handles or nulls, and places for the results.
unsafe fn incremental(
    [q, table, out, scale, offset]: [RawTensor; 5],
    [keys, values]: [RawTensorList; 2],
    contexts: crate::tensor::RawIntArray,
    layout: *mut c_char,
    block: i64,
    w: *mut u64,
    e: *mut RawExecutor,
) -> i32 {
    let n = null_mut();
    // SAFETY: the caller's promise.
    unsafe {
        aclnnIncreFlashAttentionV4GetWorkspaceSize(
            q,
            keys,
            values,
            n,
            n,
            contexts,
            n,
            n,
            n,
            n,
            n,
            scale,
            offset,
            table,
            n,
            HEADS as i64,
            0.25,
            layout,
            KV_HEADS as i64,
            block,
            0,
            out,
            w,
            e,
        )
    }
}

/// The operators over fp16 or bf16 caches have tests of their own, so the dequantised cache is the oracle.
#[test]
fn an_int8_cache_gives_the_bits_of_the_dequantised_one() {
    let d = Call::default;
    let channel = |dims: &[i64], dtype| Some((dims.to_vec(), dtype));
    let cases = [
        d(),
        Call { has_offset: false, ..d() },
        Call { by: channel(&[2], Float16), ..d() },
        Call { rows: 7, ..d() },
        Call { layout: c"BSND", by: channel(&[2, 2, 32], Float16), rows: 7, ..d() },
        Call { fused: false, block: 32, ..d() },
        Call { fused: false, dtype: Bf16, by: channel(&[2, 64], Bf16), ..d() },
        Call {
            fused: false,
            layout: c"BNSD",
            heads_first: true,
            by: channel(&[2, 2, 1, 32], Float16),
            ..d()
        },
    ];
    for case in cases {
        let s = Session::new(A2);
        let (code, found) = case.run(&s);
        assert_eq!(code, 0, "{}", message());
        let (code, expected) = Call {
            numbers_of: Some(Box::new(case.clone())),
            ..Call { cache: case.dtype, by: None, ..case.clone() }
        }
        .run(&s);
        assert_eq!(code, 0, "{}", message());
        assert!(found == expected && found.iter().any(|x| *x != 0.0), "{:?} {}", case.layout, case.rows);
        s.end();
    }
}

#[test]
fn what_no_page_has_over_an_int8_cache_is_refused() {
    let d = Call::default;
    let by = |dims: &[i64], dtype| Some((dims.to_vec(), dtype));
    for (settings, case, code, words) in [
        (A2, Call { layout: c"TND", ..d() }, PARAM, "TND with antiquantScale: no page has this combination"),
        (A2, Call { by: None, ..d() }, PARAM, "key has data type INT8, expected FLOAT16 as query"),
        (A2, Call { cache: Float16, ..d() }, PARAM, "key has data type FLOAT16, expected INT8 with"),
        (A2, Call { by: by(&[2, 64], Float), ..d() }, PARAM, "antiquantScale has data type FLOAT"),
        (
            A2,
            Call { by: by(&[64, 2], Float16), ..d() },
            PARAM,
            "antiquantScale has shape [64, 2], expected [2] or [2, 64]",
        ),
        (A2, Call { layout: c"BSND", ..d() }, PARAM, "expected [2] or [2, 2, 32] with the layout Bsnd"),
        (A2, Call { fused: false, block: 16, ..d() }, TILING, "blockSize is 16, expected a multiple of 32"),
        (A2, Call { block: 48, ..d() }, TILING, "blockSize is 48, expected a multiple of 32, up to 512"),
        (
            A2,
            Call { rows: 2, block: 64, ..d() },
            TILING,
            "blockSize is 64, expected a multiple of 128 with several",
        ),
        (
            A2,
            Call { rows: 2, dtype: Bf16, by: by(&[2, 64], Bf16), ..d() },
            PARAM,
            "query has data type BFLOAT16, expected FLOAT16 with antiquantScale and several queries",
        ),
        (
            A2,
            Call { rows: 2, channels: 16, by: by(&[2, 32], Float16), ..d() },
            TILING,
            "a head has 16 channels, expected a multiple of 32",
        ),
        (DUO, Call { fused: false, ..d() }, PARAM, "key: data type INT8 is not supported on Ascend310P3"),
        (DUO, d(), 561_003, "has no kernel of this operator"),
    ] {
        let s = Session::new(settings);
        assert_eq!(case.run(&s).0, code, "{words}: {}", message());
        assert!(message().contains(words), "{words}: {}", message());
        s.end();
    }
}
