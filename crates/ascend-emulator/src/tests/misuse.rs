//! Mistakes of callers, and the status code of each.

use std::ffi::{CString, c_void};
use std::ptr::{null, null_mut};

use super::session::{Array, Memory, Session, WORKSPACE, counts, message, tensor};
use crate::copy::{aclrtMemcpy, aclrtMemcpyAsync, aclrtMemset};
use crate::emulator::{ascend_emulator_configure, ascend_emulator_info, ascend_emulator_reset};
use crate::event::{aclrtCreateEvent, aclrtDestroyEvent, aclrtEventElapsedTime, aclrtRecordEvent};
use crate::executor::{
    RawExecutor, aclDestroyAclOpExecutor, aclSetAclOpExecutorRepeatable, aclSetInputTensorAddr,
    aclSetOutputTensorAddr, aclSetTensorAddr,
};
use crate::half::DType::{self, Bf16, Float, Float16, Int32, Int64};
use crate::memory::{aclrtFree, aclrtFreeHost, aclrtGetMemInfo, aclrtMalloc, aclrtMallocHost};
use crate::ops::attention_plan::aclnnFusedInferAttentionScoreV2GetWorkspaceSize;
use crate::ops::elementwise::{
    aclnnAddGetWorkspaceSize, aclnnMul, aclnnMulGetWorkspaceSize, aclnnSwiGluGetWorkspaceSize,
};
use crate::ops::indexing::{
    aclnnEmbedding, aclnnEmbeddingGetWorkspaceSize, aclnnInplaceIndexCopy,
    aclnnInplaceIndexCopyGetWorkspaceSize,
};
use crate::ops::linear::{aclnnMatmul, aclnnMatmulGetWorkspaceSize};
use crate::ops::norm::aclnnRmsNormGetWorkspaceSize;
use crate::runtime::{
    UtilizationInfo, aclFinalize, aclInit, aclrtGetDeviceCount, aclrtGetDeviceUtilizationRate,
    aclrtGetSocName, aclrtResetDevice, aclrtSetDevice,
};
use crate::stream::{aclrtCreateStream, aclrtDestroyStream, aclrtSynchronizeStream};
use crate::tensor::{aclCreateScalar, aclCreateTensor, aclDestroyScalar, aclDestroyTensor};

#[test]
fn before_init_and_without_a_device_nothing_works() {
    let s = Session::raw();
    let mut pointer = null_mut();
    // SAFETY: places for results.
    unsafe {
        assert_eq!(aclrtSetDevice(0), 100_001);
        assert_eq!(aclInit(null()), 0);
        assert_eq!(aclInit(null()), 100_002);
        assert_eq!(aclrtMalloc(&raw mut pointer, 1, 0), 107_002);
        assert!(message().contains("no device is set"));
        assert_eq!(message(), "", "a message is read once");
        assert_eq!(aclrtSetDevice(7), 107_001);
        assert!(message().contains("expected 0 to 1"));
        assert_eq!(aclrtResetDevice(1), 107_002);
        let text = CString::new("mode = timing").unwrap();
        assert_eq!(ascend_emulator_configure(text.as_ptr()), 100_002);
        assert_eq!(aclrtSetDevice(0), 0);
        assert_eq!(aclrtMalloc(&raw mut pointer, 1, 0), 0);
        // Another thread has no device.
        let address = pointer as usize;
        std::thread::scope(|scope| {
            scope.spawn(move || assert_eq!(aclrtFree(address as *mut c_void), 107_002));
        });
        assert_eq!(aclrtFree(pointer), 0);
        assert_eq!(aclrtResetDevice(0), 0);
        assert_eq!(aclrtMalloc(&raw mut pointer, 1, 0), 107_002);
        assert_eq!(aclFinalize(), 0);
        assert_eq!(aclFinalize(), 100_001);
    }
    s.end();
}

#[test]
fn operators_without_a_device_fail_at_the_runtime() {
    let s = Session::new("");
    let a = Array::empty(Float16, &[16]);
    let handle = a.tensor as usize;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (mut size, mut executor) = (0, null_mut());
            let t = handle as crate::tensor::RawTensor;
            // SAFETY: a live handle.
            let code = unsafe { aclnnMulGetWorkspaceSize(t, t, t, &raw mut size, &raw mut executor) };
            assert_eq!(code, 361_001);
            assert!(message().contains("(107002)"));
        });
    });
    drop(a);
    s.end();
}

#[test]
fn memory_is_checked_at_every_edge() {
    let s = Session::new("soc = Ascend310P3");
    let (mut pointer, mut free, mut total) = (null_mut(), 0usize, 0usize);
    let host = [7u8; 64];
    // SAFETY: places for results, host memory of 64 bytes.
    unsafe {
        assert_eq!(aclrtMalloc(&raw mut pointer, 0, 0), 100_000);
        assert_eq!(aclrtMalloc(null_mut(), 8, 0), 100_000);
        assert_eq!(aclrtMalloc(&raw mut pointer, 100, 0), 0);
        assert!((pointer as usize).is_multiple_of(64));
        let from = host.as_ptr().cast();
        assert_eq!(aclrtMemcpy(pointer, 32, from, 64, 1), 107_000);
        assert!(message().contains("destMax is 32, count is 64"));
        assert_eq!(aclrtMemcpy(pointer, 64, from, 64, 9), 100_000);
        assert_eq!(aclrtMemcpy(pointer, 64, from, 64, 2), 107_000, "the kind says host");
        assert_eq!(
            aclrtMemcpy(pointer.cast::<u8>().add(500).cast(), 64, from, 64, 1),
            107_000,
            "beyond the end"
        );
        assert_eq!(aclrtMemcpy(pointer, 64, null(), 64, 1), 100_000);
        assert_eq!(aclrtMemset(pointer, 8, 0, 9), 107_000);
        assert_eq!(aclrtMemset(pointer, 100, 3, 100), 0);
        let mut back = [0u8; 100];
        assert_eq!(aclrtMemcpy(back.as_mut_ptr().cast(), 100, pointer, 100, 2), 0);
        assert_eq!(back, [3; 100]);
        assert_eq!(aclrtGetMemInfo(0, &raw mut free, &raw mut total), 0);
        assert_eq!(total - free, 512);
        assert_eq!(aclrtGetMemInfo(1, &raw mut free, &raw mut total), 0);
        assert_eq!(total, 0, "a 310P has no HBM");
        assert_eq!(aclrtFree(pointer), 0);
        assert_eq!(aclrtFree(pointer), 107_000, "freed twice");
        assert_eq!(aclrtMemcpy(pointer, 64, from, 64, 1), 107_000, "freed");
        assert_eq!(aclrtFreeHost(host.as_ptr().cast_mut().cast()), 107_000);
    }
    s.end();
}

#[test]
fn fresh_memory_is_poison() {
    let s = Session::new("");
    for dtype in [Float16, Bf16, Float] {
        assert!(Array::empty(dtype, &[33]).read().iter().all(|x| x.is_nan()));
    }
    assert!(Array::empty(Int32, &[33]).read().iter().all(|x| *x == -1.0));
    s.end();
}

#[test]
fn streams_and_events_know_their_owner_and_their_end() {
    let s = Session::new("soc = Ascend310P3");
    let (mut other, mut event, mut late) = (null_mut(), null_mut(), null_mut());
    let mut ms = 0f32;
    // SAFETY: places for handles, live handles and dead ones.
    unsafe {
        assert_eq!(aclrtSetDevice(1), 0);
        assert_eq!(aclrtSynchronizeStream(s.stream), 107_003);
        assert!(message().contains("the stream belongs to device 0"));
        assert_eq!(aclrtResetDevice(1), 0);
        assert_eq!(aclrtSetDevice(0), 0);
        assert_eq!(aclrtCreateStream(&raw mut other), 0);
        assert_eq!(aclrtDestroyStream(other), 0);
        assert_eq!(aclrtDestroyStream(other), 107_000);
        assert_eq!(aclrtSynchronizeStream(other), 107_000);
        assert_eq!(aclrtCreateEvent(&raw mut event) | aclrtCreateEvent(&raw mut late), 0);
        assert_eq!(aclrtSynchronizeStream(event.cast()), 107_000, "an event is no stream");
        assert_eq!(aclrtEventElapsedTime(&raw mut ms, event, late), 107_006);
        assert_eq!(aclrtRecordEvent(late, s.stream), 0);
        assert_eq!(s.sync(), 0);
        assert_eq!(aclrtRecordEvent(event, s.stream), 0);
        assert_eq!(s.sync(), 0);
        assert_eq!(aclrtEventElapsedTime(&raw mut ms, event, late), 107_007);
        assert_eq!(aclrtEventElapsedTime(&raw mut ms, late, event), 0);
        assert_eq!(aclrtDestroyEvent(event) | aclrtDestroyEvent(late), 0);
        assert_eq!(aclrtDestroyEvent(event), 107_000);
        let mut events = Vec::new();
        for _ in 0..1023 {
            assert_eq!(aclrtCreateEvent(&raw mut event), 0);
            events.push(event);
        }
        assert_eq!(aclrtCreateEvent(&raw mut event), 207_007, "a 310P has 1023 events");
        assert!(events.into_iter().all(|event| aclrtDestroyEvent(event) == 0));
        assert_eq!(aclrtResetDevice(0), 0);
    }
    s.end();
}

fn mul_stage(a: &Array, out: &Array) -> RawExecutor {
    let (mut size, mut executor) = (0, null_mut());
    // SAFETY: live handles.
    let code =
        unsafe { aclnnMulGetWorkspaceSize(a.tensor, a.tensor, out.tensor, &raw mut size, &raw mut executor) };
    assert_eq!(code, 0, "{}", message());
    executor
}

#[test]
fn an_executor_serves_once_unless_set_repeatable() {
    let s = Session::new("");
    let (a, out) = (Array::new(Float16, &[16], &[3.0; 16]), Array::empty(Float16, &[16]));
    let b = Array::new(Float16, &[16], &[5.0; 16]);
    // SAFETY: live and dead handles.
    unsafe {
        let executor = mul_stage(&a, &out);
        assert_eq!(aclnnMul(s.workspace(), WORKSPACE, executor, s.stream), 0);
        assert_eq!(aclnnMul(s.workspace(), WORKSPACE, executor, s.stream), 561_103);
        assert!(message().contains("consumed"));
        assert_eq!(aclnnMul(s.workspace(), WORKSPACE, null_mut(), s.stream), 561_103);
        let other = mul_stage(&a, &out);
        assert_eq!(
            aclnnMatmul(s.workspace(), WORKSPACE, other, s.stream),
            161_002,
            "made for another operator"
        );

        let executor = mul_stage(&a, &out);
        assert_eq!(aclSetInputTensorAddr(executor, 0, a.tensor, b.memory.0), 161_002, "not repeatable yet");
        assert_eq!(aclSetAclOpExecutorRepeatable(executor), 0);
        for _ in 0..2 {
            assert_eq!(aclnnMul(s.workspace(), WORKSPACE, executor, s.stream), 0);
        }
        assert_eq!(s.sync(), 0);
        assert_eq!(out.read(), [9.0; 16]);
        assert_eq!(aclSetInputTensorAddr(executor, 1, a.tensor, b.memory.0), 0);
        assert_eq!(aclSetInputTensorAddr(executor, 2, a.tensor, b.memory.0), 161_002);
        assert_eq!(aclSetInputTensorAddr(executor, 0, null_mut(), b.memory.0), 561_103);
        assert_eq!(aclSetTensorAddr(executor, 0, a.tensor, b.memory.0.cast::<u8>().add(2).cast()), 161_002);
        assert_eq!(aclnnMul(s.workspace(), WORKSPACE, executor, s.stream), 0);
        assert_eq!(s.sync(), 0);
        assert_eq!(out.read(), [15.0; 16]);
        let elsewhere = Array::empty(Float16, &[16]);
        assert_eq!(aclSetOutputTensorAddr(executor, 0, out.tensor, elsewhere.memory.0), 0);
        assert_eq!(aclnnMul(s.workspace(), WORKSPACE, executor, s.stream), 0);
        assert_eq!(s.sync(), 0);
        assert_eq!(elsewhere.read(), [15.0; 16]);
        assert_eq!(aclDestroyAclOpExecutor(executor), 0);
        assert_eq!(aclDestroyAclOpExecutor(executor), 561_103);
    }
    drop((a, b, out));
    s.end();
}

#[test]
fn tensors_and_memory_must_live_until_the_operator_ran() {
    let s = Session::new("streams = lazy");
    let (a, out) = (Array::new(Float16, &[16], &[3.0; 16]), Array::empty(Float16, &[16]));
    // SAFETY: live and dead handles, freed memory.
    unsafe {
        let executor = mul_stage(&a, &out);
        assert_eq!(aclDestroyTensor(a.tensor), 0);
        assert_eq!(aclnnMul(s.workspace(), WORKSPACE, executor, s.stream), 161_002);
        assert!(message().contains("self: the tensor was destroyed before the second stage"));
        assert_eq!(aclDestroyTensor(a.tensor), 161_002);
        assert!(message().contains("was destroyed before"));

        let a = Array::new(Float16, &[16], &[3.0; 16]);
        let executor = mul_stage(&a, &out);
        assert_eq!(aclrtFree(out.memory.0), 0);
        assert_eq!(aclnnMul(s.workspace(), WORKSPACE, executor, s.stream), 361_001);
        assert!(message().contains("out: 32 bytes"));

        // Memory freed between the launch and the run: the operator detects it, and the synchronise reports it.
        let out = Array::empty(Float16, &[16]);
        let executor = mul_stage(&a, &out);
        assert_eq!(aclnnMul(s.workspace(), WORKSPACE, executor, s.stream), 0);
        assert_eq!(aclrtFree(a.memory.0), 0);
        assert_eq!(s.sync(), 507_015);
        assert!(message().contains("freed before the operator ran"));
    }
}

#[test]
fn a_missing_synchronise_shows() {
    let s = Session::new("streams = lazy");
    let (a, out) = (Array::new(Float16, &[16], &[3.0; 16]), Array::empty(Float16, &[16]));
    let executor = mul_stage(&a, &out);
    // SAFETY: live handles.
    assert_eq!(unsafe { aclnnMul(s.workspace(), WORKSPACE, executor, s.stream) }, 0);
    assert!(out.read().iter().all(|x| x.is_nan()), "nothing ran yet");
    let mut pinned = null_mut();
    // SAFETY: 32 bytes on both sides.
    unsafe {
        assert_eq!(aclrtMallocHost(&raw mut pinned, 32), 0);
        assert_eq!(aclrtMemcpyAsync(pinned, 32, out.memory.0, 32, 2, s.stream), 0);
        assert_eq!(pinned.cast::<u16>().read(), 0);
        assert_eq!(s.sync(), 0);
        assert_eq!(pinned.cast::<u16>().read(), crate::half::f32_to_f16(9.0));
        assert_eq!(aclrtFreeHost(pinned), 0);
    }
    drop((a, out));
    s.end();
}

#[test]
fn copies_in_a_stream_want_pinned_and_aligned_memory() {
    let s = Session::new("");
    let device = Memory::new(1 << 10);
    let (mut pageable, mut pinned) = ([0u8; 256], null_mut());
    // SAFETY: live memory of these sizes.
    unsafe {
        assert_eq!(aclrtMallocHost(&raw mut pinned, 256), 0);
        let behind = |start: *mut c_void, bytes: usize| start.cast::<u8>().add(bytes).cast::<c_void>();
        let to_host = |to, from| aclrtMemcpyAsync(to, 128, from, 128, 2, s.stream);
        let to_device = |to, from: *mut c_void| aclrtMemcpyAsync(to, 128, from, 128, 1, s.stream);
        assert_eq!(to_host(pageable.as_mut_ptr().cast(), device.0), 107_000);
        assert!(message().contains("aclrtMallocHost"), "{}", message());
        assert_eq!(to_device(device.0, pageable.as_mut_ptr().cast()), 107_000);
        assert_eq!(to_host(behind(pinned, 32), device.0), 107_000);
        assert_eq!(to_device(behind(device.0, 32), pinned), 107_000);
        assert!(message().contains("multiple of 64"), "{}", message());
        assert_eq!(to_device(behind(device.0, 64), behind(pinned, 64)), 0);
        assert_eq!(s.sync(), 0);
        assert_eq!(aclrtFreeHost(pinned), 0);
    }
    drop(device);
    s.end();
}

#[test]
#[expect(clippy::too_many_lines, reason = "a list of cases")]
fn first_stages_name_the_argument_and_what_is_wrong() {
    let s = Session::new("soc = Ascend310P3");
    let (a, w) = (Array::empty(Float16, &[2, 32]), Array::empty(Float16, &[32, 8]));
    let (out, wide) = (Array::empty(Float16, &[2, 8]), Array::empty(Float, &[2, 8]));
    let bf16 = Array::empty(Bf16, &[2, 32]);
    let (mut size, mut executor) = (0, null_mut());
    let (size, executor) = (&raw mut size, &raw mut executor);
    let beyond = tensor(a.memory.0, Float16, &[4, 32], None, 0, 2, &[2, 32]);
    // SAFETY: live handles and nulls.
    unsafe {
        let matmul = |a, b, out, kind| aclnnMatmulGetWorkspaceSize(a, b, out, kind, size, executor);
        for (code, expected, words) in [
            (matmul(null_mut(), w.tensor, out.tensor, 0), 161_001, "self is null"),
            (
                matmul(a.tensor, w.tensor, wide.tensor, 0),
                161_002,
                "out has data type FLOAT, self has FLOAT16",
            ),
        ] {
            assert_eq!(code, expected, "{words}");
        }
        assert_eq!(matmul(bf16.tensor, w.tensor, out.tensor, 0), 161_002);
        assert_eq!(
            message(),
            "aclnnMatmulGetWorkspaceSize: self: data type BFLOAT16 is not supported on Ascend310P3, expected FLOAT16 or FLOAT"
        );
        assert_eq!(matmul(a.tensor, a.tensor, out.tensor, 0), 161_002);
        assert!(message().contains("self has shape [2, 32], mat2 has [2, 32]: the inner sizes differ"));
        assert_eq!(matmul(a.tensor, w.tensor, a.tensor, 0), 161_002);
        assert!(message().contains("out has shape [2, 32], expected [2, 8]"));
        assert_eq!(matmul(a.tensor, w.tensor, out.tensor, 3), 161_002);
        assert!(message().contains("cubeMathType is 3, expected 0 to 2"));
        assert_eq!(matmul(beyond, w.tensor, out.tensor, 0), 161_002);
        assert!(
            message().contains(
                "self: the view [4, 32] with strides [32, 1] reaches element 128, the storage has 64"
            )
        );
        assert_eq!(matmul(size.cast(), w.tensor, out.tensor, 0), 161_002, "no handle");
        assert_eq!(
            aclnnMatmulGetWorkspaceSize(a.tensor, w.tensor, out.tensor, 0, null_mut(), executor),
            161_001
        );

        // 310P: no fused attention, a norm over at least 32 bytes, SwiGLU halves of 64 bytes.
        let n = null_mut();
        let fused = aclnnFusedInferAttentionScoreV2GetWorkspaceSize(
            n,
            null_mut(),
            null_mut(),
            n,
            n,
            null_mut(),
            null_mut(),
            n,
            n,
            n,
            n,
            n,
            n,
            n,
            n,
            n,
            n,
            n,
            n,
            n,
            n,
            n,
            n,
            null_mut(),
            1,
            1.0,
            0,
            0,
            null_mut(),
            1,
            0,
            0,
            0,
            0,
            false,
            0,
            0,
            n,
            n,
            size,
            executor,
        );
        assert_eq!(fused, 561_003);
        let (narrow, gamma) = (Array::empty(Float16, &[2, 8]), Array::empty(Float16, &[8]));
        let rstd = Array::empty(Float, &[2, 1]);
        let norm = aclnnRmsNormGetWorkspaceSize(
            narrow.tensor,
            gamma.tensor,
            1e-5,
            narrow.tensor,
            rstd.tensor,
            size,
            executor,
        );
        assert_eq!(norm, 561_002);
        assert!(message().contains("16 bytes, expected 32 at least"));
        let half = Array::empty(Float16, &[2, 16]);
        assert_eq!(aclnnSwiGluGetWorkspaceSize(a.tensor, -1, half.tensor, size, executor), 561_002);
        assert!(message().contains("32 bytes, expected a multiple of 64"));
        assert_eq!(aclDestroyTensor(beyond), 0);
    }
    assert_eq!(counts()[9], 0, "a failed first stage leaves no executor");
    drop((a, w, out, wide, bf16));
    s.end();
}

#[test]
fn operators_by_their_pages_or_by_their_kernels() {
    for (strict, code) in [("doc", 561_003), ("source", 0)] {
        let s = Session::new(&format!("soc = Ascend310P3\nstrict = {strict}"));
        let a = Array::empty(Float16, &[16]);
        let (mut one, mut size, mut executor) = (1f32, 0, null_mut());
        // SAFETY: a number, live handles.
        unsafe {
            let alpha = aclCreateScalar((&raw mut one).cast(), 0);
            let add = aclnnAddGetWorkspaceSize(
                a.tensor,
                a.tensor,
                alpha,
                a.tensor,
                &raw mut size,
                &raw mut executor,
            );
            assert_eq!(add, code, "{strict}");
            if code == 0 {
                assert_eq!(aclDestroyAclOpExecutor(executor), 0);
            }
            assert_eq!(aclDestroyScalar(alpha), 0);
            assert_eq!(aclDestroyScalar(alpha), 161_002);
        }
        drop(a);
        s.end();
    }
}

#[test]
fn an_index_out_of_range_is_an_exception_of_the_unit() {
    let s = Session::new("");
    let (table, out) = (Array::new(Float16, &[4, 2], &[0.0; 8]), Array::empty(Float16, &[1, 2]));
    let ids = Array::new(Int32, &[1], &[4.0]);
    let (mut size, mut executor) = (0, null_mut());
    // SAFETY: live handles.
    unsafe {
        let (size, executor) = (&raw mut size, &raw mut executor);
        assert_eq!(aclnnEmbeddingGetWorkspaceSize(table.tensor, ids.tensor, out.tensor, size, executor), 0);
        assert_eq!(aclnnEmbedding(s.workspace(), WORKSPACE, *executor, s.stream), 0);
    }
    assert_eq!(s.sync(), 507_015);
    assert!(message().contains("aclnnEmbedding: index 4 is out of range, there are 4"));
}

#[test]
fn hostile_tensors_are_refused() {
    let s = Session::new("");
    let big = [i64::MAX, 2];
    let (negative, nine) = ([-1i64, 2], [1i64; 9]);
    // SAFETY: arrays as long as said.
    unsafe {
        let refuse = |dims: &[i64], strides, dtype, offset, format| {
            let n = dims.len() as u64;
            let made = aclCreateTensor(
                dims.as_ptr(),
                n,
                dtype,
                strides,
                offset,
                format,
                dims.as_ptr(),
                n,
                null_mut(),
            );
            assert!(made.is_null());
            assert!(message().starts_with("aclCreateTensor: "));
        };
        refuse(&big, null(), 1, 0, 2);
        refuse(&negative, null(), 1, 0, 2);
        refuse(&nine, null(), 1, 0, 2);
        refuse(&[2, 2], negative.as_ptr(), 1, 0, 2);
        refuse(&[2, 2], null(), 99, 0, 2);
        refuse(&[2, 2], null(), 1, -1, 2);
        refuse(&[2, 2], null(), 1, 0, 77);
        refuse(&[1 << 39, 1 << 39], null(), 1, 0, 2);
    }
    s.end();
}

#[test]
fn telemetry_is_absent_or_made_up() {
    for (settings, code, dcmi) in [("", 207_000, -8255), ("telemetry = fake", 0, 0)] {
        let s = Session::new(settings);
        // SAFETY: a place with the size of the structure.
        unsafe {
            let mut info = std::mem::zeroed::<UtilizationInfo>();
            assert_eq!(aclrtGetDeviceUtilizationRate(0, &raw mut info), code);
            let mut celsius = 0;
            assert_eq!(crate::dcmi::dcmi_init(), dcmi);
            assert_eq!(crate::dcmi::dcmi_get_device_temperature(0, 1, &raw mut celsius), dcmi);
            assert_eq!(celsius, if dcmi == 0 { 11 } else { 0 });
        }
        s.end();
    }
}

#[test]
fn a_reset_kills_what_lived_and_starts_anew() {
    let s = Session::raw();
    for (soc, cards) in [("Ascend310P3", 2), ("Ascend910B4", 8), ("Ascend310P3", 2)] {
        for mode in ["compute", "timing"] {
            let text = CString::new(format!("soc = {soc}\nmode = {mode}")).unwrap();
            // SAFETY: live handles, then dead ones.
            unsafe {
                assert_eq!(ascend_emulator_configure(text.as_ptr()), 0);
                assert_eq!(aclInit(null()), 0);
                let mut count = 0;
                assert_eq!(aclrtGetDeviceCount(&raw mut count), 0);
                assert_eq!(count, cards);
                assert_eq!(std::ffi::CStr::from_ptr(aclrtGetSocName()).to_str(), Ok(soc));
                let info = std::ffi::CStr::from_ptr(ascend_emulator_info()).to_str().unwrap();
                assert_eq!(info, format!("ascend-emulator 0.1.0 {soc} {mode}"));
                assert_eq!(aclrtSetDevice(0), 0);
                let mut stream = null_mut();
                assert_eq!(aclrtCreateStream(&raw mut stream), 0);
                let memory = Memory::new(100);
                let t = tensor(memory.0, DType::Float16, &[4], None, 0, 2, &[4]);
                assert_ne!(counts(), [0; 12]);
                assert_eq!(ascend_emulator_reset(), 0);
                assert_eq!(counts(), [0; 12]);
                assert_eq!(aclDestroyTensor(t), 161_002);
                assert_eq!(aclrtSynchronizeStream(stream), 100_001);
            }
        }
    }
    s.end();
}

#[test]
fn some_executors_cannot_be_kept() {
    for (settings, along, refused) in
        [("", 0, true), ("", 1, false), ("fault = single-use:aclnnInplaceIndexCopy", 1, true)]
    {
        let s = Session::new(settings);
        let (table, places) =
            (Array::new(Float16, &[4, 4], &[0.0; 16]), Array::new(Int64, &[2], &[3.0, 0.0]));
        let rows = Array::new(Float16, if along == 0 { &[2, 4] } else { &[4, 2] }, &[1.0; 8]);
        let (mut bytes, mut executor) = (0, null_mut());
        // SAFETY: live handles.
        unsafe {
            let first = aclnnInplaceIndexCopyGetWorkspaceSize(
                table.tensor,
                along,
                places.tensor,
                rows.tensor,
                &raw mut bytes,
                &raw mut executor,
            );
            assert_eq!(first, 0, "{}", message());
            let set = aclSetAclOpExecutorRepeatable(executor);
            assert_eq!(set, if refused { 561_000 } else { 0 }, "{settings} {along}");
            // The executor runs, whether or not it was made repeatable.
            assert_eq!(aclnnInplaceIndexCopy(s.workspace(), WORKSPACE, executor, s.stream), 0);
            assert_eq!(s.sync(), 0);
            if !refused {
                assert_eq!(aclDestroyAclOpExecutor(executor), 0);
            }
        }
        drop((table, places, rows));
        s.end();
    }
    let s = Session::new("executor_cache = on");
    let (a, out) = (Array::new(Float16, &[16], &[3.0; 16]), Array::empty(Float16, &[16]));
    // SAFETY: live handles.
    unsafe {
        let (first, second) = (mul_stage(&a, &out), mul_stage(&a, &out));
        assert_eq!(aclSetAclOpExecutorRepeatable(first), 0);
        assert_eq!(aclSetAclOpExecutorRepeatable(second), 561_000);
        assert!(message().contains("served from the cache"), "{}", message());
        assert_eq!(aclnnMul(s.workspace(), WORKSPACE, second, s.stream), 0);
        assert_eq!(aclDestroyAclOpExecutor(first), 0);
    }
    drop((a, out));
    s.end();
}
