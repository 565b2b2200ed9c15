//! Captures: nothing runs until the graph is executed, and the results equal those of the operators alone.

use std::ptr::null_mut;

use super::session::{Array, Session, WORKSPACE, message};
use crate::copy::{aclrtMemcpy, aclrtMemcpyAsync, aclrtMemset, aclrtMemsetAsync};
use crate::emulator::ascend_emulator_now_ns;
use crate::event::{aclrtCreateEvent, aclrtDestroyEvent, aclrtRecordEvent, aclrtStreamWaitEvent};
use crate::executor::{RawExecutor, aclDestroyAclOpExecutor, aclSetAclOpExecutorRepeatable};
use crate::graph::{
    RawGraph, aclmdlRICaptureBegin, aclmdlRICaptureEnd, aclmdlRIDestroy, aclmdlRIExecuteAsync,
};
use crate::half::DType::Float16;
use crate::memory::aclrtFree;
use crate::ops::elementwise::{aclnnMul, aclnnMulGetWorkspaceSize};
use crate::stream::{aclrtDestroyStream, aclrtSynchronizeDevice, aclrtSynchronizeStream};

fn squared(a: &Array, out: &Array) -> RawExecutor {
    let (mut size, mut executor) = (0, null_mut());
    // SAFETY: live handles.
    unsafe {
        let first =
            aclnnMulGetWorkspaceSize(a.tensor, a.tensor, out.tensor, &raw mut size, &raw mut executor);
        assert_eq!(first, 0, "{}", message());
        assert_eq!(aclSetAclOpExecutorRepeatable(executor), 0);
    }
    executor
}

/// Captures `out = a * a`, then `b = out * out`.
fn captured(s: &Session, [a, out, b]: [&Array; 3]) -> RawGraph {
    let mut graph = null_mut();
    let (first, second) = (squared(a, out), squared(out, b));
    // SAFETY: live handles.
    unsafe {
        assert_eq!(aclmdlRICaptureBegin(s.stream, 1), 0);
        assert_eq!(aclnnMul(s.workspace(), WORKSPACE, first, s.stream), 0);
        assert_eq!(aclnnMul(s.workspace(), WORKSPACE, second, s.stream), 0);
        assert_eq!(aclmdlRICaptureEnd(s.stream, &raw mut graph), 0);
        assert_eq!(aclDestroyAclOpExecutor(first) | aclDestroyAclOpExecutor(second), 0);
    }
    graph
}

#[test]
fn a_graph_runs_when_it_is_executed_and_as_often() {
    for settings in ["", "streams = lazy", "mode = timing"] {
        let s = Session::new(settings);
        let a = Array::new(Float16, &[4], &[2.0; 4]);
        let (out, b) = (Array::new(Float16, &[4], &[0.0; 4]), Array::new(Float16, &[4], &[0.0; 4]));
        let graph = captured(&s, [&a, &out, &b]);
        assert_eq!(s.sync(), 0);
        assert_eq!(out.read(), [0.0; 4]);
        let before = ascend_emulator_now_ns();
        // SAFETY: live handles.
        unsafe {
            assert_eq!(aclmdlRIExecuteAsync(graph, s.stream), 0);
            assert_eq!(ascend_emulator_now_ns() - before, 3000, "the host spends one launch");
            assert_eq!(s.sync(), 0);
            assert!(ascend_emulator_now_ns() - before >= 3000 + 2 * 2000, "two operators take their time");
        }
        if settings != "mode = timing" {
            assert_eq!((out.read(), b.read()), (vec![4.0; 4], vec![16.0; 4]));
            let bytes: Vec<u8> =
                [3.0f32; 4].iter().flat_map(|x| crate::half::f32_to_f16(*x).to_le_bytes()).collect();
            a.write(&bytes);
            // SAFETY: live handles.
            assert_eq!(unsafe { aclmdlRIExecuteAsync(graph, s.stream) }, 0);
            assert_eq!(s.sync(), 0);
            assert_eq!((out.read(), b.read()), (vec![9.0; 4], vec![81.0; 4]));
        }
        // SAFETY: live handles, then a dead one.
        unsafe {
            assert_eq!(aclmdlRIDestroy(graph), 0);
            assert_eq!(aclmdlRIExecuteAsync(graph, s.stream), 107_000);
        }
        drop((a, out, b));
        s.end();
    }
}

#[test]
fn a_capture_permits_operators_alone() {
    let s = Session::new("");
    let (a, out) = (Array::new(Float16, &[4], &[2.0; 4]), Array::new(Float16, &[4], &[0.0; 4]));
    let (mut graph, mut event) = (null_mut(), null_mut());
    let mut host = [0u8; 8];
    // SAFETY: live handles and memory.
    unsafe {
        assert_eq!(aclrtCreateEvent(&raw mut event), 0);
        assert_eq!(aclmdlRICaptureEnd(s.stream, &raw mut graph), 107_029);
        assert_eq!(aclmdlRICaptureBegin(null_mut(), 1), 100_000);
        assert_eq!(aclmdlRICaptureBegin(s.stream, 3), 100_000);
        assert_eq!(aclmdlRICaptureBegin(s.stream, 1), 0);
        assert_eq!(aclmdlRICaptureBegin(s.stream, 1), 107_027);
        assert_eq!(aclrtSynchronizeStream(s.stream), 107_027);
        assert_eq!(aclrtRecordEvent(event, s.stream), 107_027);
        assert_eq!(aclrtMemcpyAsync(out.memory.0, 8, a.memory.0, 8, 3, s.stream), 107_027);
        assert_eq!(aclrtMemcpy(host.as_mut_ptr().cast(), 8, a.memory.0, 8, 2), 107_030);
        assert_eq!(aclrtMemset(a.memory.0, 8, 0, 8), 107_030);
        assert_eq!(aclrtMemsetAsync(a.memory.0, 8, 0, 8, s.stream), 107_027);
        assert_eq!(aclrtStreamWaitEvent(s.stream, event), 107_027);
        assert_eq!(aclrtSynchronizeDevice(), 107_027);
        assert_eq!(aclrtDestroyStream(s.stream), 107_027);
        assert_eq!(aclmdlRICaptureEnd(s.stream, &raw mut graph), 0);
        assert_eq!(aclmdlRIDestroy(graph), 0);
        // The relaxed mode forbids no copy.
        assert_eq!(aclmdlRICaptureBegin(s.stream, 2), 0);
        assert_eq!(aclrtMemcpy(host.as_mut_ptr().cast(), 8, a.memory.0, 8, 2), 0);
        assert_eq!(aclmdlRICaptureEnd(s.stream, &raw mut graph), 0);
        assert_eq!(aclmdlRIDestroy(graph), 0);
        assert_eq!(aclrtDestroyEvent(event), 0);
    }
    drop((a, out));
    s.end();
}

#[test]
fn a_graph_wants_its_memory_and_sees_faults() {
    let s = Session::new("fault = wrong:Mul:2\n");
    let [a, out, b] = [[2.0; 4], [0.0; 4], [0.0; 4]].map(|numbers| Array::new(Float16, &[4], &numbers));
    let graph = captured(&s, [&a, &out, &b]);
    // SAFETY: live handles; then memory that was freed.
    unsafe {
        assert_eq!(aclmdlRIExecuteAsync(graph, s.stream), 0);
        assert_eq!(s.sync(), 0);
        assert_eq!(out.read(), [4.0; 4]);
        assert_ne!(b.read(), [16.0; 4], "the second launch of all is wrong");
        assert_eq!(aclrtFree(out.memory.0), 0);
        assert_eq!(aclmdlRIExecuteAsync(graph, s.stream), 361_001);
        assert!(message().contains("not inside live memory"));
        assert_eq!(aclmdlRIDestroy(graph), 0);
    }
    drop((a, out, b));
    drop(s);
    let s = Session::new("");
    // A device has room for 256 graphs.
    let mut graphs = Vec::new();
    // SAFETY: a live stream, places for handles.
    unsafe {
        for _ in 0..256 {
            let mut graph = null_mut();
            assert_eq!(aclmdlRICaptureBegin(s.stream, 1) | aclmdlRICaptureEnd(s.stream, &raw mut graph), 0);
            graphs.push(graph);
        }
        assert_eq!(aclmdlRICaptureBegin(s.stream, 1), 207_008);
        assert!(graphs.into_iter().all(|graph| aclmdlRIDestroy(graph) == 0));
    }
    s.end();
    let s = Session::new("fault = refused:aclmdlRICaptureBegin");
    // SAFETY: a live handle.
    assert_eq!(unsafe { aclmdlRICaptureBegin(s.stream, 1) }, 207_000);
    s.end();
}
