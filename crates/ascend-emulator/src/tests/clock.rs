//! The virtual clock, to the nanosecond.

use std::ptr::null_mut;

use super::session::{Array, Memory, Session, WORKSPACE, counts, message, tensor};
use crate::copy::{aclrtMemcpy, aclrtMemcpyAsync};
use crate::emulator::{
    ascend_emulator_host_work, ascend_emulator_now_ns, ascend_emulator_price_work, ascend_emulator_take_work,
};
use crate::event::{
    aclrtCreateEvent, aclrtDestroyEvent, aclrtEventElapsedTime, aclrtRecordEvent, aclrtStreamWaitEvent,
    aclrtSynchronizeEvent,
};
use crate::executor::{aclDestroyAclOpExecutor, aclSetAclOpExecutorRepeatable};
use crate::half::DType::Float16;
use crate::memory::{aclrtFreeHost, aclrtMallocHost};
use crate::ops::attention::{Attention, Mask, Sequence, Steps, Sums};
use crate::ops::linear::{aclnnMatmul, aclnnMatmulGetWorkspaceSize};
use crate::stream::{aclrtCreateStream, aclrtDestroyStream, aclrtSynchronizeStream};
use crate::tensor::aclDestroyTensor;

/// Round effective rates: 1 TFLOP/s and 1 GB/s, and 1 GB/s over PCIe.
pub(super) const ROUND: &str = "soc = Ascend310P3
cube_fp16_flops = 2e12
compute_efficiency = 0.5
vector_fp16_flops = 1e12
vector_efficiency = 1
memory_bytes_per_s = 2e9
memory_efficiency = 0.5
link_bytes_per_s = 2e9
link_efficiency = 0.5
pcie_bytes_per_s = 2e9
matmul_launch_ns = 5000
vector_launch_ns = 2000
single_launch_ns = 0
prompt_layer_ns = 0
activation_bytes_per_s = 1e9
link_peers = 1
collective_latency_ns = 10000
copy_latency_ns = 700
host_plan_ns = 40
host_launch_ns = 30
host_call_ns = 10
";

#[test]
fn a_launch_costs_its_bytes_and_the_host_its_calls() {
    for mode in ["timing", "compute"] {
        let s = Session::new(&format!("{ROUND}mode = {mode}"));
        let (a, w) = (Array::empty(Float16, &[1, 100]), Array::empty(Float16, &[100, 50]));
        let out = Array::empty(Float16, &[1, 50]);
        let (mut start, mut end) = (null_mut(), null_mut());
        let mut ms = 0f32;
        // SAFETY: live handles and places for results, here and in the other tests.
        unsafe {
            assert_eq!(aclrtCreateEvent(&raw mut start) | aclrtCreateEvent(&raw mut end), 0);
            assert_eq!(ascend_emulator_now_ns(), 0);
            assert_eq!(aclrtRecordEvent(start, s.stream), 0);
            let (mut size, mut executor) = (0, null_mut());
            let (size, executor) = (&raw mut size, &raw mut executor);
            assert_eq!(aclnnMatmulGetWorkspaceSize(a.tensor, w.tensor, out.tensor, 0, size, executor), 0);
            assert_eq!(aclSetAclOpExecutorRepeatable(*executor), 0);
            for _ in 0..3 {
                assert_eq!(aclnnMatmul(s.workspace(), WORKSPACE, *executor, s.stream), 0);
            }
            assert_eq!(aclrtRecordEvent(end, s.stream), 0);
            // Record, first stage, three second stages, record.
            assert_eq!(ascend_emulator_now_ns(), 10 + 40 + 3 * 30 + 10);
            assert_eq!(aclrtEventElapsedTime(&raw mut ms, start, end), 107_006);
            assert_eq!(s.sync(), 0);
            // The host issues the first operator at 80 ns. Each operator moves 2 * (100 + 5000 + 50) bytes and has 5 us
            // of launch cost.
            let each = 10_300 + 5_000;
            assert_eq!(ascend_emulator_now_ns(), 80 + 3 * each);
            assert_eq!(aclrtEventElapsedTime(&raw mut ms, start, end), 0);
            assert_eq!(ms, ((80 + 3 * each - 10) as f64 / 1e6) as f32);
            // The host issues the operator long after the stream is done, so the host's time sets its begin.
            ascend_emulator_host_work(1_000_000);
            assert_eq!(aclnnMatmul(s.workspace(), WORKSPACE, *executor, s.stream), 0);
            assert_eq!(s.sync(), 0);
            assert_eq!(ascend_emulator_now_ns(), 80 + 3 * each + 1_000_000 + 30 + each);
            assert_eq!(aclDestroyAclOpExecutor(*executor), 0);
            assert_eq!(aclrtDestroyEvent(start) | aclrtDestroyEvent(end), 0);
        }
        drop((a, w, out));
        s.end();
    }
}

#[test]
fn recorded_work_costs_what_the_clock_says() {
    let settings = format!("{ROUND}mode = timing\nrecord = on\nsingle_launch_ns = 700");
    let s = Session::new(&settings);
    let (a, w) = (Array::empty(Float16, &[1, 100]), Array::empty(Float16, &[100, 50]));
    let out = Array::empty(Float16, &[1, 50]);
    let mut work = [[0.0f64; 8]; 4];
    let mut ns = 0.0;
    // SAFETY: live handles, places for results, and as much room as said.
    unsafe {
        let (mut size, mut executor) = (0, null_mut());
        let (size, executor) = (&raw mut size, &raw mut executor);
        assert_eq!(aclnnMatmulGetWorkspaceSize(a.tensor, w.tensor, out.tensor, 0, size, executor), 0);
        assert_eq!(aclSetAclOpExecutorRepeatable(*executor), 0);
        for _ in 0..3 {
            assert_eq!(aclnnMatmul(s.workspace(), WORKSPACE, *executor, s.stream), 0);
        }
        assert_eq!(s.sync(), 0);
        assert_eq!(aclDestroyAclOpExecutor(*executor), 0);
        assert_eq!(ascend_emulator_take_work(work.as_mut_ptr().cast(), 4), 1);
        assert_eq!(work[0][7], 3.0, "three launches of one kind");
        assert_eq!(ascend_emulator_take_work(null_mut(), 0), 0, "taken is taken");
        let settings = std::ffi::CString::new(settings).unwrap();
        let price = |work: *const [f64; 8], ns: &mut f64| {
            ascend_emulator_price_work(settings.as_ptr(), work.cast(), 1, std::ptr::from_mut(ns))
        };
        assert_eq!(price(work.as_ptr(), &mut ns), 0);
        // The host issues the first operator at 70 ns.
        assert_eq!(ns as u64, ascend_emulator_now_ns() - 70);
        assert_eq!(ns, 3.0 * (10_300.0 + 5_000.0 + 700.0));
        work[0][0] = 9.0;
        assert_ne!(price(work.as_ptr(), &mut ns), 0, "no such kind");
    }
    drop((a, w, out));
    s.end();
}

#[test]
fn a_launch_bound_host_is_what_the_clock_shows() {
    let s = Session::new(&format!("{ROUND}mode = timing\nhost_launch_ns = 90000"));
    let (a, w, out) =
        (Array::empty(Float16, &[1, 8]), Array::empty(Float16, &[8, 8]), Array::empty(Float16, &[1, 8]));
    for _ in 0..10 {
        let (mut size, mut executor) = (0, null_mut());
        // SAFETY: live handles.
        unsafe {
            let (size, executor) = (&raw mut size, &raw mut executor);
            assert_eq!(aclnnMatmulGetWorkspaceSize(a.tensor, w.tensor, out.tensor, 0, size, executor), 0);
            assert_eq!(aclnnMatmul(s.workspace(), WORKSPACE, *executor, s.stream), 0);
        }
    }
    assert_eq!(s.sync(), 0);
    // Ten issues, then the last operator (160 bytes and the launch cost).
    assert_eq!(ascend_emulator_now_ns(), 10 * 90_040 + 160 + 5_000);
    drop((a, w, out));
    s.end();
}

#[test]
fn copies_cost_latency_and_link() {
    let s = Session::new(&format!("{ROUND}mode = timing"));
    let device = Memory::new(1 << 20);
    let mut host = vec![1u8; 1000];
    let mut pinned = null_mut();
    // SAFETY: live memory of these sizes.
    unsafe {
        assert_eq!(aclrtMallocHost(&raw mut pinned, 1000), 0);
        assert_eq!(aclrtMemcpy(device.0, 1000, host.as_ptr().cast(), 1000, 1), 0);
        let mut expected = 10 + 1_700;
        assert_eq!(ascend_emulator_now_ns(), expected);
        assert_eq!(aclrtMemcpyAsync(device.0, 1000, pinned, 1000, 1, s.stream), 0);
        assert_eq!(ascend_emulator_now_ns(), expected + 10);
        assert_eq!(s.sync(), 0);
        expected += 10 + 1_700;
        assert_eq!(ascend_emulator_now_ns(), expected);
        assert_eq!(aclrtMemcpy(host.as_mut_ptr().cast(), 1000, device.0, 1000, 2), 0);
        expected += 10 + 1_700;
        assert_eq!(ascend_emulator_now_ns(), expected);
        assert!(host.iter().all(|b| *b == 0), "a copy to the host gives zeros in timing mode");
        // Within the device every byte is read and written.
        assert_eq!(aclrtMemcpy(device.0, 1000, device.0.cast::<u8>().add(5000).cast(), 1000, 3), 0);
        assert_eq!(ascend_emulator_now_ns(), expected + 10 + 2_000 + 2_000);
        assert_eq!(aclrtFreeHost(pinned), 0);
    }
    drop(device);
    s.end();
}

#[test]
fn streams_wait_for_each_other_through_events_and_share_the_cores() {
    for mode in ["timing", "compute"] {
        let s = Session::new(&format!("{ROUND}mode = {mode}"));
        let device = Memory::new(4096);
        let mut pinned = null_mut();
        let (mut other, mut event) = (null_mut(), null_mut());
        // SAFETY: live handles and memory.
        unsafe {
            assert_eq!(aclrtMallocHost(&raw mut pinned, 4096), 0);
            assert_eq!(aclrtCreateStream(&raw mut other), 0);
            assert_eq!(aclrtCreateEvent(&raw mut event), 0);
            assert_eq!(aclrtStreamWaitEvent(other, event), 107_006);
            assert_eq!(aclrtMemcpyAsync(device.0, 4096, pinned, 4096, 1, s.stream), 0);
            assert_eq!(aclrtRecordEvent(event, s.stream), 0);
            assert_eq!(aclrtStreamWaitEvent(other, event), 0);
            assert_eq!(aclrtMemcpyAsync(pinned, 4096, device.0, 4096, 2, other), 0);
            assert_eq!(aclrtSynchronizeStream(other), 0);
            assert_eq!(ascend_emulator_now_ns(), 10 + 2 * (4_096 + 700));
            assert_eq!(aclrtSynchronizeEvent(event), 0);
            assert_eq!(aclrtDestroyEvent(event), 0);
            assert_eq!(aclrtDestroyStream(other), 0);
            assert_eq!(aclrtFreeHost(pinned), 0);
        }
        drop(device);
        s.end();
    }
}

#[test]
fn attention_counts_the_pairs_that_are_seen() {
    let sequence = |queries, context| Sequence { query_at: 0, queries, context, key_at: 0, index: 0 };
    for (mask, queries, context) in [
        (Mask::None, 3, 7),
        (Mask::CausalEnd, 3, 7),
        (Mask::CausalEnd, 7, 7),
        (Mask::CausalEnd, 9, 7),
        (Mask::CausalBegin, 4, 7),
        (Mask::CausalBegin, 9, 7),
        (Mask::CausalEnd, 1, 0),
        (Mask::CausalEnd, 0, 5),
    ] {
        let kernel = Attention {
            heads: 1,
            kv_heads: 1,
            channels: 8,
            scale: 1.0,
            mask,
            banded: false,
            sums: Sums::Whole,
            query: Steps::default(),
            key: Steps::default(),
            block: 0,
            antiquant: None,
            sequences: [sequence(queries, context)].into(),
        };
        let s = sequence(queries, context);
        let counted: usize = (0..queries).map(|i| kernel.visible(&s, i)).sum();
        assert_eq!(kernel.pairs(), counted as f64, "{mask:?} {queries} {context}");
    }
}

/// A decode step of the 6B model on a 300I DUO. The documented figure is 162 ms per token at 8192 in and 1024 out, on
/// one chip or two. The sum of the operator times must match the arithmetic.
#[test]
fn the_big_products_of_a_decode_step_take_what_their_bytes_say() {
    let s = Session::new("soc = Ascend310P3\nmode = timing\nmemory_efficiency = 0.6\nsingle_launch_ns = 0");
    let room = Memory::new(1 << 30);
    // qkv, dense, gate and up, and down for 28 layers, and the output layer: 11.95 GB of weights.
    let shapes = [(4096, 4608, 28), (4096, 4096, 28), (4096, 27392, 28), (13696, 4096, 28), (4096, 65024, 1)];
    let (mut bytes, mut products) = (0u64, 0u64);
    for (k, n, times) in shapes {
        let t = [([1, k], [k, 1]), ([k, n], [1, k]), ([1, n], [n, 1])].map(|(dims, strides)| {
            tensor(room.0, Float16, &dims, Some(&strides), 0, 2, &[dims[0] * dims[1]])
        });
        for _ in 0..times {
            let (mut size, mut executor) = (0, null_mut());
            // SAFETY: live handles.
            unsafe {
                let (size, executor) = (&raw mut size, &raw mut executor);
                assert_eq!(aclnnMatmulGetWorkspaceSize(t[0], t[1], t[2], 0, size, executor), 0);
                assert_eq!(aclnnMatmul(s.workspace(), WORKSPACE, *executor, s.stream), 0, "{}", message());
            }
            bytes += 2 * (k * n + k + n) as u64;
            products += 1;
        }
        for t in t {
            // SAFETY: a handle of our own.
            unsafe { aclDestroyTensor(t) };
        }
    }
    assert_eq!(s.sync(), 0);
    let expected_ms = bytes as f64 / (204e9 * 0.6) * 1e3 + products as f64 * 0.005;
    let found_ms = ascend_emulator_now_ns() as f64 / 1e6;
    assert!((found_ms - expected_ms).abs() < 0.02, "{found_ms} ms, expected {expected_ms} ms");
    assert!((98.0..98.6).contains(&found_ms), "{found_ms}");
    assert_eq!(counts()[9], 0);
    drop(room);
    s.end();
}
