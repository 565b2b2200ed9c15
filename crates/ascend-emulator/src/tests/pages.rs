//! Rules on the operator pages and in the sources that first stages enforce, tested with one wrong argument at a
//! time.

use std::ffi::{CStr, c_void};
use std::ptr::null_mut;

use super::session::{Array, Session, WORKSPACE, message, tensor};
use crate::event::{
    aclrtCreateEvent, aclrtCreateEventWithFlag, aclrtDestroyEvent, aclrtEventElapsedTime, aclrtRecordEvent,
    aclrtStreamWaitEvent, aclrtSynchronizeEvent,
};
use crate::executor::{RawExecutor, aclDestroyAclOpExecutor, aclSetAclOpExecutorRepeatable};
use crate::half::DType::{Bool, Float16, Int32};
use crate::ops::attention_plan::{
    aclnnFusedInferAttentionScoreV2GetWorkspaceSize, aclnnIncreFlashAttentionV4GetWorkspaceSize,
    aclnnPromptFlashAttentionV3GetWorkspaceSize,
};
use crate::ops::elementwise::aclnnInplaceAddGetWorkspaceSize;
use crate::ops::indexing::{aclnnScatterPaKvCache, aclnnScatterPaKvCacheGetWorkspaceSize};
use crate::ops::linear::{
    aclnnMatmul, aclnnMatmulGetWorkspaceSize, aclnnMatmulWeightNzGetWorkspaceSize, aclnnMmGetWorkspaceSize,
};
use crate::ops::rotary::aclnnApplyRotaryPosEmbGetWorkspaceSize;
use crate::tensor::{
    RawTensor, RawTensorList, aclCreateIntArray, aclCreateScalar, aclCreateTensorList, aclDestroyIntArray,
    aclDestroyScalar, aclDestroyTensor, aclDestroyTensorList,
};

const DUO: &str = "soc = Ascend310P3\nmode = timing";
const A2: &str = "soc = Ascend910B4\nmode = timing";
const LIMITLESS: i64 = 2_147_483_647;
const TILING: i32 = 561_002;
const PARAM: i32 = 161_002;
const NO_KERNEL: i32 = 561_003;

/// Runs a first stage, destroys the executor if there is one, and returns the status.
fn status(first: impl FnOnce(*mut u64, *mut RawExecutor) -> i32) -> i32 {
    let (mut size, mut executor) = (0, null_mut());
    let code = first(&raw mut size, &raw mut executor);
    if code == 0 {
        // SAFETY: an executor just made.
        unsafe {
            assert_eq!(aclSetAclOpExecutorRepeatable(executor), 0);
            assert_eq!(aclDestroyAclOpExecutor(executor), 0);
        }
    }
    code
}

/// An ND tensor for a first stage, which accesses no memory.
fn seen(dims: &[i64]) -> RawTensor {
    tensor(64 as *mut c_void, Float16, dims, None, 0, 2, dims)
}

fn listed(dims: &[i64]) -> RawTensorList {
    let member = seen(dims).cast_const();
    // SAFETY: one live tensor, which the list takes over.
    unsafe { aclCreateTensorList((&raw const member).cast(), 1) }
}

/// `aclnnFusedInferAttentionScoreV2` over a paged cache. By default: TND, 8 heads over 2 KV heads.
struct Fused {
    layout: &'static CStr,
    query: Vec<i64>,
    cache: Vec<i64>,
    kv_heads: i64,
    masked: bool,
    sparse: i64,
    precise: i64,
    block: i64,
    sequences: usize,
}

impl Default for Fused {
    fn default() -> Self {
        Self {
            layout: c"TND",
            query: vec![4, 8, 128],
            cache: vec![9, 128, 2 * 128],
            kv_heads: 2,
            masked: false,
            sparse: 0,
            precise: 0,
            block: 128,
            sequences: 4,
        }
    }
}

impl Fused {
    fn status(&self) -> i32 {
        let ones: Vec<i64> = vec![1; self.sequences];
        let ends: Vec<i64> = (1..=self.sequences as i64).collect();
        let (n, heads) = (null_mut(), if self.layout == c"TND" { self.query[1] } else { 8 });
        let (query, out) = (seen(&self.query), seen(&self.query));
        let table =
            tensor(64 as *mut c_void, Int32, &[ones.len() as i64, 1], None, 0, 2, &[ones.len() as i64]);
        let side = [2048, 2048];
        let mask = tensor(64 as *mut c_void, Bool, &side, None, 0, 2, &side);
        let given = if self.masked { mask } else { n };
        let (keys, values) = (listed(&self.cache), listed(&self.cache));
        let layout = self.layout.as_ptr().cast_mut();
        // SAFETY: live handles, nulls, a C string; all are destroyed after the call.
        unsafe {
            let (ends, contexts) = (
                aclCreateIntArray(ends.as_ptr(), ends.len() as u64),
                aclCreateIntArray(ones.as_ptr(), ones.len() as u64),
            );
            let code = status(|w, e| {
                aclnnFusedInferAttentionScoreV2GetWorkspaceSize(
                    query,
                    keys,
                    values,
                    n,
                    given,
                    ends,
                    contexts,
                    n,
                    n,
                    n,
                    n,
                    n,
                    n,
                    n,
                    table,
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
                    self.kv_heads,
                    self.sparse,
                    self.precise,
                    self.block,
                    0,
                    false,
                    0,
                    0,
                    out,
                    n,
                    w,
                    e,
                )
            });
            let _ = [query, out, table, mask].map(|t| aclDestroyTensor(t));
            let _ = [keys, values].map(|l| aclDestroyTensorList(l));
            let _ = [ends, contexts].map(|a| aclDestroyIntArray(a));
            code
        }
    }
}

#[test]
fn fused_attention_of_grouped_heads_in_tnd_keeps_to_its_page() {
    let s = Session::new(A2);
    let good = Fused::default;
    let masked = || Fused { masked: true, sparse: 3, ..good() };
    let many = 4097;
    for (case, code, words) in [
        (good(), 0, ""),
        (masked(), 0, ""),
        (Fused { precise: 2, ..good() }, PARAM, "innerPrecise is 2, expected 0 with TND and grouped heads"),
        (Fused { sparse: 2, ..masked() }, PARAM, "sparseMode is 2, expected one of [3, 4]"),
        (Fused { sparse: 3, ..good() }, PARAM, "sparseMode is 3, expected one of [0]"),
        (
            Fused { block: 256, cache: vec![9, 256, 256], ..good() },
            TILING,
            "blockSize is 256, expected 128 at most",
        ),
        (
            Fused { cache: vec![9, 2, 128, 128], ..good() },
            TILING,
            "expected [blocks, block size, heads * channels]",
        ),
        (
            Fused { sequences: many, query: vec![many as i64, 8, 128], ..good() },
            PARAM,
            "4097 numbers, expected 4096 at most",
        ),
        // The rules apply to grouped heads only: with as many KV heads as heads, larger blocks are allowed.
        (Fused { kv_heads: 8, block: 256, cache: vec![9, 256, 8 * 128], ..good() }, 0, ""),
    ] {
        assert_eq!(case.status(), code, "{words}: {}", message());
        let said = message();
        assert!(said.contains(words), "{words}: {said}");
    }
    s.end();
}

#[test]
fn rows_of_an_a2_have_fewer_than_65535_numbers() {
    let s = Session::new(A2);
    let row = |heads: i64, channels| {
        let dims = [1, 16, heads * channels];
        prompt([&dims, &dims], c"BSH", heads, LIMITLESS)
    };
    assert_eq!(row(127, 512), 0, "{}", message());
    assert_eq!(row(128, 512), TILING);
    assert!(message().contains("128 heads of 512 channels: N * D is 65535 or more"));
    s.end();
}

/// `aclnnPromptFlashAttentionV3` without a mask. The shapes are those of the queries, and of keys and values.
fn prompt([query, key]: [&[i64]; 2], layout: &CStr, heads: i64, next: i64) -> i32 {
    let [q, o, k, v] = [query, query, key, key].map(seen);
    let (n, layout) = (null_mut(), layout.as_ptr().cast_mut());
    // SAFETY: live handles, nulls, a C string.
    unsafe {
        let code = status(|w, e| {
            aclnnPromptFlashAttentionV3GetWorkspaceSize(
                q,
                k,
                v,
                n,
                n,
                null_mut(),
                null_mut(),
                n,
                n,
                n,
                n,
                n,
                heads,
                0.25,
                LIMITLESS,
                next,
                layout,
                0,
                0,
                0,
                o,
                w,
                e,
            )
        });
        let _ = [q, o, k, v].map(|t| aclDestroyTensor(t));
        code
    }
}

#[test]
fn attention_on_a_310p_has_its_limits() {
    let s = Session::new(DUO);
    let bnsd = |heads: i64, queries: i64, keys: i64, channels: i64| {
        let shapes = [[1, heads, queries, channels], [1, heads, keys, channels]];
        prompt([&shapes[0], &shapes[1]], c"BNSD", heads, LIMITLESS)
    };
    for (shape, code, words) in [
        ([2, 16, 65_535, 128], 0, ""),
        ([2, 16, 65_536, 128], TILING, "key has 65536 tokens, expected 65535 at most"),
        ([2, 65_536, 16, 128], TILING, "query has 65536 tokens, expected 65535 at most"),
        ([256, 16, 16, 128], 0, ""),
        ([257, 16, 16, 128], TILING, "numHeads is 257, expected 256 at most"),
        ([2, 16, 16, 512], 0, ""),
        ([2, 16, 16, 528], TILING, "a head has 528 channels, expected 1 to 512"),
    ] {
        let [heads, queries, keys, channels] = shape;
        assert_eq!(bnsd(heads, queries, keys, channels), code, "{words}: {}", message());
        assert!(message().contains(words), "{words}");
    }
    let incremental = |columns: i64| {
        let (query, out) = (seen(&[1, 1, 8 * 128]), seen(&[1, 1, 8 * 128]));
        let table = tensor(64 as *mut c_void, Int32, &[1, columns], None, 0, 2, &[columns]);
        let cache = [columns, 128, 2 * 128];
        let (keys, values) = (listed(&cache), listed(&cache));
        let (n, layout, length) = (null_mut(), c"BSH".as_ptr().cast_mut(), [1i64]);
        // SAFETY: live handles, nulls, a C string.
        unsafe {
            let lengths = aclCreateIntArray(length.as_ptr(), 1);
            let code = status(|w, e| {
                aclnnIncreFlashAttentionV4GetWorkspaceSize(
                    query, keys, values, n, n, lengths, n, n, n, n, n, n, n, table, n, 8, 0.25, layout, 2,
                    128, 0, out, w, e,
                )
            });
            let _ = [query, out, table].map(|t| aclDestroyTensor(t));
            let _ = [keys, values].map(|l| aclDestroyTensorList(l));
            aclDestroyIntArray(lengths);
            code
        }
    };
    assert_eq!(incremental(512), 0, "{}", message());
    assert_eq!(incremental(513), TILING);
    assert!(message().contains("key has 65664 tokens, expected 65536 at most"));
    s.end();
}

#[test]
fn weights_in_fractals_are_padded_matrices() {
    for strict in ["doc", "source"] {
        let s = Session::new(&format!("{DUO}\nstrict = {strict}"));
        let blocks = |k: i64, n: i64, storage: &[i64]| {
            tensor(64 as *mut c_void, Float16, &[k, n], Some(&[1, k]), 0, 29, storage)
        };
        // SAFETY: live handles; all are destroyed after the call.
        let nz = |[m, k, n]: [i64; 3], storage: &[i64]| unsafe {
            let [x, w, o] = [seen(&[m, k]), blocks(k, n, storage), seen(&[m, n])];
            let code = status(|size, e| aclnnMatmulWeightNzGetWorkspaceSize(x, w, o, 0, size, e));
            let _ = [x, w, o].map(|t| aclDestroyTensor(t));
            code
        };
        for (shape, storage, code, words) in [
            ([5, 40, 24], [3, 2, 16, 16].as_slice(), 0, ""),
            ([5, 40, 24], &[24, 40], PARAM, "2 dimensions and 960 elements, expected 4 and 1536"),
            ([5, 40, 24], &[2, 2, 16, 16], PARAM, "4 dimensions and 1024 elements, expected 4 and 1536"),
            ([5, 40, 1], &[3, 1, 16, 16], PARAM, "expected no size of 1"),
            ([5, 1, 24], &[1, 2, 16, 16], PARAM, "expected no size of 1"),
        ] {
            assert_eq!(nz(shape, storage), code, "{words}: {}", message());
            assert!(message().contains(words), "{words}");
        }
        // SAFETY: live handles; all are destroyed after the calls.
        unsafe {
            let [x, w, o] = [seen(&[5, 40]), blocks(40, 24, &[3, 2, 16, 16]), seen(&[5, 24])];
            let by_mm = status(|size, e| aclnnMmGetWorkspaceSize(x, w, o, 0, size, e));
            let by_matmul = status(|size, e| aclnnMatmulGetWorkspaceSize(x, w, o, 0, size, e));
            assert_eq!((by_mm, by_matmul), (0, if strict == "doc" { PARAM } else { 0 }), "{strict}");
            assert!(
                strict == "source"
                    || message().contains("mat2 is FRACTAL_NZ, expected ND (as its page says)")
            );
            let _ = [x, w, o].map(|t| aclDestroyTensor(t));
        }
        s.end();
    }
}

#[test]
fn every_operator_wants_its_workspace() {
    let s = Session::new("");
    let (a, w, out) = (
        Array::new(Float16, &[1, 1], &[2.0]),
        Array::new(Float16, &[1, 1], &[3.0]),
        Array::empty(Float16, &[1, 1]),
    );
    for given in [false, true] {
        let (mut size, mut executor) = (0, null_mut());
        // SAFETY: live handles.
        unsafe {
            let (size, executor) = (&raw mut size, &raw mut executor);
            assert_eq!(aclnnMatmulGetWorkspaceSize(a.tensor, w.tensor, out.tensor, 0, size, executor), 0);
            assert!((1..=WORKSPACE).contains(&*size));
            let (place, code) = if given { (s.workspace(), 0) } else { (null_mut(), PARAM) };
            assert_eq!(aclnnMatmul(place, if given { *size } else { 0 }, *executor, s.stream), code);
        }
    }
    assert_eq!(s.sync(), 0);
    assert_eq!(out.read(), [6.0]);
    drop((a, w, out));
    s.end();
}

#[test]
fn slots_of_a_cache_are_there_and_differ() {
    for (slots, words) in
        [([5.0, 3.0], ""), ([5.0, -1.0], "slot -1 is out of range"), ([3.0, 3.0], "slot 3 of token 1")]
    {
        let s = Session::new("soc = Ascend910B4");
        let rows = Array::new(Float16, &[2, 1, 4], &[1.0; 8]);
        let cache = Array::new(Float16, &[3, 2, 1, 4], &[0.0; 24]);
        let slots = Array::new(Int32, &[2], &slots);
        let (n, mut size, mut executor) = (null_mut(), 0, null_mut());
        // SAFETY: live handles and nulls.
        unsafe {
            let first = aclnnScatterPaKvCacheGetWorkspaceSize(
                rows.tensor,
                cache.tensor,
                slots.tensor,
                rows.tensor,
                cache.tensor,
                n,
                n,
                n,
                null_mut(),
                null_mut(),
                null_mut(),
                null_mut(),
                &raw mut size,
                &raw mut executor,
            );
            assert_eq!(first, 0, "{}", message());
            assert_eq!(aclnnScatterPaKvCache(s.workspace(), size, executor, s.stream), 0);
        }
        assert_eq!(s.sync(), if words.is_empty() { 0 } else { 507_015 });
        assert!(message().contains(words), "{words}");
    }
}

#[test]
fn events_do_what_they_were_created_for() {
    let s = Session::new("soc = Ascend310P3");
    let [mut progress, mut timed, mut other, mut none] = [null_mut(); 4];
    let mut ms = 0f32;
    // SAFETY: places for handles, live handles.
    unsafe {
        assert_eq!(aclrtCreateEventWithFlag(&raw mut none, 0), 100_000);
        assert_eq!(aclrtCreateEventWithFlag(&raw mut none, 0x40), 100_000);
        assert_eq!(aclrtCreateEventWithFlag(&raw mut progress, 0x2), 0);
        assert_eq!(aclrtCreateEventWithFlag(&raw mut timed, 0x8), 0);
        assert_eq!(aclrtCreateEvent(&raw mut other), 0);
        for event in [progress, timed, other] {
            assert_eq!(aclrtRecordEvent(event, s.stream), 0);
            assert_eq!(aclrtSynchronizeEvent(event), 0);
        }
        assert_eq!(aclrtEventElapsedTime(&raw mut ms, timed, other), 0);
        assert_eq!(aclrtEventElapsedTime(&raw mut ms, progress, other), 107_000);
        assert!(message().contains("start was created without ACL_EVENT_TIME_LINE"));
        assert_eq!(aclrtStreamWaitEvent(s.stream, progress), 107_000);
        assert_eq!(aclrtStreamWaitEvent(s.stream, other), 0);
        let _ = [progress, timed, other].map(|event| aclrtDestroyEvent(event));
        // Only events that streams can wait for count against the limit.
        let many: Vec<_> = (0..1100)
            .map(|_| {
                assert_eq!(aclrtCreateEventWithFlag(&raw mut progress, 0x2), 0);
                progress
            })
            .collect();
        assert_eq!(aclrtCreateEvent(&raw mut other), 0);
        assert!(many.into_iter().chain([other]).all(|event| aclrtDestroyEvent(event) == 0));
    }
    s.end();
}

#[test]
fn forms_of_arguments_are_refused_on_order() {
    let faults =
        ["ApplyRotaryPosEmb:D64", "InplaceAdd:broadcast", "FusedInferAttentionScoreV2:TND", "aclnnMm"];
    let faults = faults.map(|fault| format!("\nfault = refused:{fault}")).concat();
    for (settings, refused) in [(String::new(), 0), (faults, NO_KERNEL)] {
        let s = Session::new(&format!("{A2}{settings}"));
        let rotary = |channels: i64| {
            let [q, k, c, t] =
                [[1, 1, 4, channels], [1, 1, 2, channels], [1, 1, 1, channels], [1, 1, 1, channels]]
                    .map(|dims| seen(&dims));
            // SAFETY: live handles.
            unsafe {
                let code = status(|w, e| aclnnApplyRotaryPosEmbGetWorkspaceSize(q, k, c, t, 1, w, e));
                let _ = [q, k, c, t].map(|t| aclDestroyTensor(t));
                code
            }
        };
        assert_eq!((rotary(128), rotary(64)), (0, refused));
        let mut one = 1f32;
        // SAFETY: a number, live handles.
        let mut add = |x: &[i64], y: &[i64]| unsafe {
            let (x, y, alpha) = (seen(x), seen(y), aclCreateScalar((&raw mut one).cast(), 0));
            let code = status(|w, e| aclnnInplaceAddGetWorkspaceSize(x, y, alpha, w, e));
            let _ = [x, y].map(|t| aclDestroyTensor(t));
            aclDestroyScalar(alpha);
            code
        };
        assert_eq!((add(&[2, 8], &[2, 8]), add(&[2, 8], &[8])), (0, refused));
        assert_eq!(Fused::default().status(), refused);
        let [x, w, o] = [seen(&[5, 40]), seen(&[40, 24]), seen(&[5, 24])];
        // SAFETY: live handles.
        unsafe {
            assert_eq!(status(|size, e| aclnnMmGetWorkspaceSize(x, w, o, 0, size, e)), refused);
            assert_eq!(status(|size, e| aclnnMatmulGetWorkspaceSize(x, w, o, 0, size, e)), 0);
            let _ = [x, w, o].map(|t| aclDestroyTensor(t));
        }
        s.end();
    }
    // By the pages, the rotary operator accepts heads of 128 channels only.
    let s = Session::new(&format!("{DUO}\nstrict = doc"));
    let dims = [1, 1, 1, 64];
    let [q, k, c, t] = [seen(&dims), seen(&dims), seen(&dims), seen(&dims)];
    // SAFETY: live handles.
    unsafe {
        assert_eq!(status(|w, e| aclnnApplyRotaryPosEmbGetWorkspaceSize(q, k, c, t, 1, w, e)), PARAM);
        let _ = [q, k, c, t].map(|t| aclDestroyTensor(t));
    }
    assert!(message().contains("expected 128 (as its page says)"));
    s.end();
}
