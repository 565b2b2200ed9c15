//! Collectives between threads of this process.

use std::ptr::null_mut;
use std::sync::Mutex;

use super::clock::ROUND;
use super::session::{Array, Session, message, random, rounded};
use crate::emulator::ascend_emulator_now_ns;
use crate::event::{aclrtCreateEvent, aclrtDestroyEvent, aclrtRecordEvent, aclrtSynchronizeEventWithTimeout};
use crate::half::DType::{self, Bf16, Float16};
use crate::half::round_to;
use crate::hccl::{
    HcclAllGather, HcclAllReduce, HcclBroadcast, HcclCommDestroy, HcclCommInitAll, HcclCommInitRootInfo,
    HcclGetCommAsyncError, HcclGetErrorString, HcclGetRootInfo, HcclReduceScatter, RawComm,
};
use crate::runtime::{aclrtResetDevice, aclrtSetDevice};
use crate::stream::{
    RawStream, aclrtCreateStream, aclrtDestroyStream, aclrtSynchronizeStream,
    aclrtSynchronizeStreamWithTimeout,
};

/// A handle passed to a rank's thread.
#[derive(Clone, Copy)]
struct Handle(RawComm);
// SAFETY: each is used by one thread.
unsafe impl Send for Handle {}
// SAFETY: only copied.
unsafe impl Sync for Handle {}

fn init_all(ranks: u32) -> Vec<Handle> {
    let devices: Vec<i32> = (0..ranks as i32).collect();
    let mut comms = vec![null_mut(); ranks as usize];
    // SAFETY: as many places as said.
    assert_eq!(unsafe { HcclCommInitAll(ranks, devices.as_ptr(), comms.as_mut_ptr()) }, 0, "{}", message());
    comms.into_iter().map(Handle).collect()
}

/// Runs a body on one thread per rank, each with its device and a stream.
fn ranks(comms: &[Handle], body: impl Fn(usize, RawComm, RawStream) + Sync) {
    std::thread::scope(|scope| {
        for (rank, comm) in comms.iter().copied().enumerate() {
            let body = &body;
            scope.spawn(move || {
                let comm = comm;
                let mut stream = null_mut();
                // SAFETY: a device that is there, a place for the stream.
                unsafe {
                    assert_eq!(aclrtSetDevice(rank as i32), 0);
                    assert_eq!(aclrtCreateStream(&raw mut stream), 0);
                    body(rank, comm.0, stream);
                    assert_eq!(aclrtDestroyStream(stream), 0);
                    assert_eq!(aclrtResetDevice(rank as i32), 0);
                }
            });
        }
    });
}

fn destroy(comms: &[Handle]) {
    for comm in comms {
        // SAFETY: a live handle.
        assert_eq!(unsafe { HcclCommDestroy(comm.0) }, 0);
    }
}

#[test]
fn sums_are_taken_in_rank_order_with_one_rounding() {
    for (settings, dtype, code, rank_count) in [
        ("soc = Ascend310P3", Float16, 3, 2),
        ("soc = Ascend910B4", Bf16, 11, 4),
        ("soc = Ascend910B4", DType::Float, 4, 3),
    ] {
        let s = Session::new(settings);
        let inputs: Vec<Vec<f32>> = (0..rank_count).map(|r| rounded(dtype, &random(70 + r, 96))).collect();
        let expected: Vec<f32> = (0..96)
            .map(|i| round_to(dtype, inputs.iter().map(|x| x[i]).reduce(|a, b| a + b).unwrap()))
            .collect();
        let comms = init_all(rank_count as u32);
        ranks(&comms, |rank, comm, stream| {
            let x = Array::new(dtype, &[96], &inputs[rank]);
            let whole = Array::empty(dtype, &[96 * rank_count as i64]);
            let part = Array::empty(dtype, &[96 / rank_count as i64]);
            // SAFETY: live handles and memory.
            unsafe {
                assert_eq!(
                    HcclAllGather(x.memory.0, whole.memory.0, 96, code, comm, stream),
                    0,
                    "{}",
                    message()
                );
                let count = 96 / rank_count;
                assert_eq!(HcclReduceScatter(x.memory.0, part.memory.0, count, code, 0, comm, stream), 0);
                assert_eq!(HcclAllReduce(x.memory.0, x.memory.0, 96, code, 0, comm, stream), 0);
                assert_eq!(aclrtSynchronizeStream(stream), 0, "{}", message());
            }
            assert_eq!(whole.read(), inputs.concat());
            assert_eq!(x.read(), expected);
            assert_eq!(part.read(), expected[rank * count(rank_count)..(rank + 1) * count(rank_count)]);
        });
        destroy(&comms);
        s.end();
    }
}

fn count(ranks: u64) -> usize {
    96 / ranks as usize
}

#[test]
fn a_collective_ends_when_the_last_rank_came_plus_latency_and_ring() {
    for mode in ["timing", "compute"] {
        let s = Session::new(&format!("{ROUND}mode = {mode}"));
        let comms = init_all(2);
        let ends = Mutex::new(Vec::new());
        ranks(&comms, |rank, comm, stream| {
            let x = Array::new(Float16, &[500], &[1.0; 500]);
            let before = ascend_emulator_now_ns();
            crate::emulator::ascend_emulator_host_work(rank as u64 * 50_000);
            // SAFETY: live handles and memory.
            unsafe {
                assert_eq!(HcclAllReduce(x.memory.0, x.memory.0, 500, 3, 0, comm, stream), 0);
                assert_eq!(aclrtSynchronizeStream(stream), 0, "{}", message());
            }
            ends.lock().unwrap().push((ascend_emulator_now_ns(), before));
        });
        // Each rank sends half of 1000 bytes twice: 1000 ns at 1 GB/s.
        let ends = ends.into_inner().unwrap();
        let before = ends[0].1;
        assert!(ends.iter().all(|(end, _)| *end == before + 50_000 + 30 + 10_000 + 1_000), "{ends:?}");
        destroy(&comms);
        s.end();
    }
}

#[test]
fn a_rank_that_does_not_wait_does_its_part_all_the_same() {
    let s = Session::new("soc = Ascend310P3\nstreams = lazy\nhccl_timeout_ms = 5000");
    let comms = init_all(2);
    let done = std::sync::Barrier::new(2);
    ranks(&comms, |rank, comm, stream| {
        let x = Array::new(Float16, &[8], &[rank as f32 + 1.0; 8]);
        // SAFETY: live handles and memory.
        unsafe {
            assert_eq!(HcclAllReduce(x.memory.0, x.memory.0, 8, 3, 0, comm, stream), 0);
            if rank == 0 {
                assert_eq!(aclrtSynchronizeStream(stream), 0, "{}", message());
                assert_eq!(x.read(), [3.0; 8]);
            }
            done.wait();
            assert_eq!(aclrtSynchronizeStream(stream), 0, "{}", message());
        }
    });
    destroy(&comms);
    s.end();
}

#[test]
fn ranks_may_meet_by_a_root_info() {
    let s = Session::new("soc = Ascend310P3");
    let mut info = vec![0u8; 4108];
    // SAFETY: the structure's size.
    assert_eq!(unsafe { HcclGetRootInfo(info.as_mut_ptr().cast()) }, 0);
    let dummy = [Handle(null_mut()); 2];
    ranks(&dummy, |rank, _, stream| {
        let mut comm = null_mut();
        let x = Array::new(Float16, &[8], &[rank as f32 + 1.0; 8]);
        // SAFETY: live handles and memory.
        unsafe {
            assert_eq!(
                HcclCommInitRootInfo(2, info.as_ptr().cast(), rank as u32, &raw mut comm),
                0,
                "{}",
                message()
            );
            assert_eq!(HcclAllReduce(x.memory.0, x.memory.0, 8, 3, 2, comm, stream), 0);
            assert_eq!(aclrtSynchronizeStream(stream), 0);
            assert_eq!(HcclCommDestroy(comm), 0);
            assert_eq!(HcclCommDestroy(comm), 1);
        }
        assert_eq!(x.read(), [2.0; 8]);
    });
    let mut comm = null_mut();
    // SAFETY: bytes that HcclGetRootInfo did not write.
    assert_eq!(unsafe { HcclCommInitRootInfo(2, [0u8; 4108].as_ptr().cast(), 0, &raw mut comm) }, 1);
    s.end();
}

#[test]
fn ranks_that_differ_time_out_and_say_why() {
    for mode in ["timing", "compute"] {
        let s = Session::new(&format!("{ROUND}mode = {mode}\nhccl_timeout_ms = 2000"));
        let comms = init_all(2);
        let codes = Mutex::new(Vec::new());
        ranks(&comms, |rank, comm, stream| {
            let x = Array::new(Float16, &[64], &[1.0; 64]);
            let mut asynchronous = 0;
            // SAFETY: live handles and memory.
            unsafe {
                let called = HcclAllReduce(x.memory.0, x.memory.0, 32 + 32 * rank as u64, 3, 0, comm, stream);
                if called != 0 {
                    assert!(message().contains("differs between the ranks"));
                }
                let synchronised = aclrtSynchronizeStream(stream);
                assert_eq!(HcclGetCommAsyncError(comm, &raw mut asynchronous), 0);
                codes.lock().unwrap().push((called, synchronised, asynchronous));
            }
        });
        let codes = codes.into_inner().unwrap();
        assert_eq!(codes.iter().filter(|c| c.0 == 9).count(), 1, "{codes:?}");
        assert!(codes.iter().all(|c| c.2 == 9), "{codes:?}");
        assert!(codes.iter().all(|c| c.0 == 9 || c.1 == 507_014), "{codes:?}");
        destroy(&comms);
        s.end();
    }
}

#[test]
fn a_rank_alone_times_out() {
    for mode in ["timing", "compute"] {
        let s = Session::new(&format!("{ROUND}mode = {mode}\nhccl_timeout_ms = 60"));
        let comms = init_all(2);
        let x = Array::new(Float16, &[8], &[1.0; 8]);
        let mut asynchronous = 0;
        // SAFETY: live handles and memory.
        unsafe {
            assert_eq!(HcclAllReduce(x.memory.0, x.memory.0, 8, 3, 0, comms[0].0, s.stream), 0);
            assert_eq!(s.sync(), 507_014);
            assert!(message().contains("did not join"));
            assert_eq!(HcclGetCommAsyncError(comms[0].0, &raw mut asynchronous), 0);
        }
        assert_eq!(asynchronous, 9);
        destroy(&comms);
        drop(x);
        s.end();
    }
}

#[test]
fn a_rank_that_left_is_waited_for_no_longer() {
    for mode in ["timing", "compute"] {
        let s = Session::new(&format!("{ROUND}mode = {mode}"));
        let comms = init_all(2);
        let x = Array::new(Float16, &[8], &[1.0; 8]);
        // SAFETY: live handles and memory.
        unsafe {
            assert_eq!(HcclAllReduce(x.memory.0, x.memory.0, 8, 3, 0, comms[0].0, s.stream), 0);
            assert_eq!(HcclCommDestroy(comms[1].0), 0);
            assert_eq!(s.sync(), 507_014);
            assert!(message().contains("rank 1 has left"), "{}", message());
        }
        destroy(&comms[..1]);
        drop(x);
        s.end();
    }
}

#[test]
fn what_the_chip_cannot_is_refused() {
    let s = Session::new("soc = Ascend310P3\nfault = hccl-timeout:1");
    let comms = init_all(1);
    let x = Array::new(Float16, &[8], &[1.0; 8]);
    let (p, comm) = (x.memory.0, comms[0].0);
    // SAFETY: live handles and memory.
    unsafe {
        assert_eq!(HcclAllReduce(p, p, 8, 11, 0, comm, s.stream), 5, "bf16 on 310P");
        assert_eq!(HcclAllReduce(p, p, 2, 5, 0, comm, s.stream), 5, "int64 on 310P");
        assert_eq!(HcclBroadcast(p, 8, 3, 0, comm, s.stream), 5, "broadcast on 310P");
        assert_eq!(HcclAllReduce(p, p, 8, 3, 9, comm, s.stream), 1);
        assert_eq!(HcclAllReduce(null_mut(), p, 8, 3, 0, comm, s.stream), 2);
        assert_eq!(HcclAllReduce(p, p, 1 << 20, 3, 0, comm, s.stream), 1, "beyond the memory");
        assert_eq!(HcclAllReduce(p, p, 8, 3, 0, comm, s.stream), 9, "injected");
        let words = std::ffi::CStr::from_ptr(HcclGetErrorString(9));
        assert_eq!(words.to_str(), Ok("timeout"));
        let same = [0, 0];
        let mut two = [null_mut(); 2];
        assert_eq!(HcclCommInitAll(2, same.as_ptr(), two.as_mut_ptr()), 1);
    }
    destroy(&comms);
    drop(x);
    s.end();
}

#[test]
fn a_communicator_wants_a_device_on_its_thread() {
    let s = Session::new("devices = 2");
    let comms = init_all(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (devices, mut more) = ([0, 1], [null_mut(); 2]);
            // SAFETY: as many places as said; live handles.
            unsafe {
                assert_eq!(HcclCommInitAll(2, devices.as_ptr(), more.as_mut_ptr()), 15);
                assert_eq!(HcclCommDestroy({ comms[0] }.0), 15);
                assert_eq!(aclrtSetDevice(1), 0);
                assert_eq!(HcclCommDestroy({ comms[0] }.0), 0);
                assert_eq!(aclrtResetDevice(1), 0);
            }
        });
    });
    destroy(&comms[1..]);
    s.end();
}

#[test]
fn a_wait_with_a_limit_ends_with_it() {
    let s = Session::new("soc = Ascend310P3\nhccl_timeout_ms = 60000");
    let comms = init_all(2);
    let x = Array::new(Float16, &[8], &[1.0; 8]);
    let mut event = null_mut();
    // The other rank never joins.
    // SAFETY: live handles and memory.
    unsafe {
        assert_eq!(aclrtCreateEvent(&raw mut event), 0);
        assert_eq!(HcclAllReduce(x.memory.0, x.memory.0, 8, 3, 0, comms[0].0, s.stream), 0);
        assert_eq!(aclrtRecordEvent(event, s.stream), 0);
        let before = ascend_emulator_now_ns();
        for _ in 0..3 {
            assert_eq!(aclrtSynchronizeStreamWithTimeout(s.stream, 5), 507_046);
            assert_eq!(aclrtSynchronizeEventWithTimeout(event, 5), 507_046);
        }
        assert_eq!(ascend_emulator_now_ns(), before, "waiting in vain takes real time alone");
        assert_eq!(HcclCommDestroy(comms[1].0), 0);
        assert_eq!(aclrtSynchronizeStreamWithTimeout(s.stream, 60_000), 507_014);
        assert_eq!(aclrtDestroyEvent(event), 0);
    }
    destroy(&comms[..1]);
    drop(x);
    s.end();
}
