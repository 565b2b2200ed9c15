//! HCCL within one process: communicators, and collectives in rank order.

use std::ffi::{c_char, c_void};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::clock::{Entry, Work};
use crate::group::{Buffers, Call, Group, Kind, Reduction};
use crate::half::DType;
use crate::pool::{self, Slot, pooled};
use crate::registry::{Device, device, lock, machine, with_device};
use crate::settings::Soc;
use crate::status::{Outcome, fail};
use crate::stream::{Address, RawStream, Stream};

/// A parameter is invalid.
pub(crate) const E_PARA: i32 = 1;
/// A pointer is null.
pub(crate) const E_PTR: i32 = 2;
/// An internal error.
pub(crate) const E_INTERNAL: i32 = 4;
/// The chip does not support the call.
pub(crate) const E_NOT_SUPPORT: i32 = 5;
/// The other ranks did not arrive in time.
pub(crate) const E_TIMEOUT: i32 = 9;
/// A runtime call failed.
pub(crate) const E_RUNTIME: i32 = 15;

/// Size of HcclRootInfo in bytes.
const ROOT_INFO_BYTES: usize = 4108;

/// Contents of a communicator handle.
#[derive(Default)]
pub(crate) struct Comm {
    group: Option<Arc<Group>>,
    rank: usize,
    device: i32,
    next: AtomicU64,
    failed: AtomicU64,
}

pooled!(Comm, b"comm", "communicator", |comm| {
    comm.group = None;
    comm.next = AtomicU64::new(0);
    comm.failed = AtomicU64::new(0);
});

/// C handle of a communicator.
pub(crate) type RawComm = *mut Slot<Comm>;

fn new_comm(group: &Arc<Group>, rank: usize, device: i32) -> RawComm {
    pool::create::<Comm>(|comm| {
        comm.group = Some(Arc::clone(group));
        comm.rank = rank;
        comm.device = device;
    })
}

/// Runs the body of an exported HCCL function. Runtime failures become HCCL's own code.
fn entry(api: &str, body: impl FnOnce() -> Outcome) -> i32 {
    let code = crate::status::entry(api, body);
    if code >= 100 { E_RUNTIME } else { code }
}

static GROUPS: Mutex<Vec<(u64, Arc<Group>)>> = Mutex::new(Vec::new());
static NEXT_ROOT: AtomicU64 = AtomicU64::new(1);

/// Forgets groups that are still forming.
pub(crate) fn forget() {
    for (_, group) in lock(&GROUPS).drain(..) {
        group.break_down("the library was reset");
    }
}

/// Creates the id of a new communicator, which ranks of this process may join.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn HcclGetRootInfo(info: *mut c_void) -> i32 {
    entry("HcclGetRootInfo", || {
        if info.is_null() {
            return fail(E_PTR, "rootInfo is null");
        }
        with_device(|device| {
            device.check_alive()?;
            let id = NEXT_ROOT.fetch_add(1, Ordering::Relaxed);
            // SAFETY: not null; the caller's structure has this size.
            unsafe {
                info.cast::<u8>().write_bytes(0, ROOT_INFO_BYTES);
                info.cast::<u64>().write_unaligned(id);
            }
            Ok(())
        })
    })
}

/// Joins a communicator. Returns once all ranks have joined.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn HcclCommInitRootInfo(
    ranks: u32,
    info: *const c_void,
    rank: u32,
    comm: *mut RawComm,
) -> i32 {
    entry("HcclCommInitRootInfo", || {
        if info.is_null() || comm.is_null() {
            return fail(E_PTR, "rootInfo or comm is null");
        }
        if ranks == 0 || rank >= ranks {
            return fail(E_PARA, format!("rank is {rank} of {ranks}"));
        }
        // SAFETY: not null; the caller's structure was written by HcclGetRootInfo.
        let id = unsafe { info.cast::<u64>().read_unaligned() };
        if id == 0 || id >= NEXT_ROOT.load(Ordering::Relaxed) {
            return fail(E_PARA, "rootInfo was not made by HcclGetRootInfo in this process");
        }
        with_device(|device| {
            device.check_alive()?;
            if rank == 0
                && let Some(code) = device.config.faults.set_up("HcclCommInitRootInfo")
            {
                return fail(code, "rank 0 cannot join (injected fault)");
            }
            let group = {
                let mut groups = lock(&GROUPS);
                match groups.iter().find(|(other, _)| *other == id) {
                    Some((_, group)) => Arc::clone(group),
                    None => {
                        let group = Group::new(ranks as usize, device);
                        groups.push((id, Arc::clone(&group)));
                        group
                    }
                }
            };
            if group.ranks != ranks as usize {
                return fail(E_PARA, format!("nRanks is {ranks}, another rank said {}", group.ranks));
            }
            if let Err(came) = group.join() {
                return fail(E_TIMEOUT, format!("{came} of {ranks} ranks came in time"));
            }
            lock(&GROUPS).retain(|(other, _)| *other != id);
            // SAFETY: not null; the caller's pointer.
            unsafe { comm.write(new_comm(&group, rank as usize, device.id)) };
            Ok(())
        })
    })
}

/// Creates the communicators of several devices at once, for one process with one thread per device.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn HcclCommInitAll(count: u32, devices: *const i32, comms: *mut RawComm) -> i32 {
    entry("HcclCommInitAll", || {
        if devices.is_null() || comms.is_null() {
            return fail(E_PTR, "devices or comms is null");
        }
        let most = machine()?.devices.len();
        if count == 0 || count as usize > most {
            return fail(E_PARA, format!("ndev is {count}, expected 1 to {most}"));
        }
        // SAFETY: not null; the caller's array has `count` numbers.
        let ids = unsafe { std::slice::from_raw_parts(devices, count as usize) };
        let unique = ids.iter().enumerate().all(|(i, id)| !ids[..i].contains(id));
        if !unique {
            return fail(E_PARA, format!("devices {ids:?} are not different"));
        }
        // The first statement of HCCL's function asks for the thread's device (hcomm, `op_base.cc`).
        with_device(|_| Ok(()))?;
        let found = ids.iter().map(|id| device(*id)).collect::<Outcome<Vec<_>>>()?;
        let group = Group::new(found.len(), &found[0]);
        for (rank, id) in ids.iter().enumerate() {
            // SAFETY: the caller's array has `count` places.
            unsafe { comms.add(rank).write(new_comm(&group, rank, *id)) };
        }
        Ok(())
    })
}

/// # Safety
/// As [`pool::get`].
unsafe fn comm_of<'a>(comm: RawComm) -> Outcome<&'a Comm> {
    // SAFETY: the caller's promise.
    match unsafe { pool::get(comm) } {
        Ok(slot) => Ok(slot.value()),
        Err(pool::Dead::Null) => fail(E_PTR, "comm is null"),
        Err(dead) => fail(E_PARA, format!("comm {}", dead.words())),
    }
}

/// Destroys a communicator. Ranks that wait for this one now or later fail at once. On hardware they wait for their own
/// time limit.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn HcclCommDestroy(comm: RawComm) -> i32 {
    entry("HcclCommDestroy", || {
        with_device(|_| Ok(()))?;
        // SAFETY: the caller's pointer is a communicator handle.
        match unsafe { pool::get(comm) } {
            Ok(slot) => {
                // Collectives that this rank has joined complete. The others would wait for it in vain.
                if let Some(group) = &slot.value().group {
                    group.break_down(&format!("rank {} has left the communicator", slot.value().rank));
                }
                slot.destroy();
                Ok(())
            }
            Err(pool::Dead::Null) => fail(E_PTR, "comm is null"),
            Err(dead) => fail(E_PARA, format!("comm {}", dead.words())),
        }
    })
}

/// Number of ranks.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn HcclGetRankSize(comm: RawComm, size: *mut u32) -> i32 {
    entry("HcclGetRankSize", || {
        // SAFETY: the caller's pointer is a communicator handle.
        let ranks = unsafe { comm_of(comm)? }.group.as_ref().map_or(0, |group| group.ranks);
        if size.is_null() {
            return fail(E_PTR, "rankSize is null");
        }
        // SAFETY: not null; the caller's pointer.
        unsafe { size.write(ranks as u32) };
        Ok(())
    })
}

/// Rank of this communicator.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn HcclGetRankId(comm: RawComm, rank: *mut u32) -> i32 {
    entry("HcclGetRankId", || {
        // SAFETY: the caller's pointer is a communicator handle.
        let own = unsafe { comm_of(comm)? }.rank;
        if rank.is_null() {
            return fail(E_PTR, "rank is null");
        }
        // SAFETY: not null; the caller's pointer.
        unsafe { rank.write(own as u32) };
        Ok(())
    })
}

/// Reports an error that occurred after a call had returned.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn HcclGetCommAsyncError(comm: RawComm, error: *mut i32) -> i32 {
    entry("HcclGetCommAsyncError", || {
        // SAFETY: the caller's pointer is a communicator handle.
        let comm = unsafe { comm_of(comm)? };
        if error.is_null() {
            return fail(E_PTR, "asyncError is null");
        }
        let broken = comm.group.as_ref().and_then(|group| group.problem());
        let failed = broken.is_some() || comm.failed.load(Ordering::Relaxed) > 0;
        // SAFETY: not null; the caller's pointer.
        unsafe { error.write(if failed { E_TIMEOUT } else { 0 }) };
        Ok(())
    })
}

/// Text for a result code.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn HcclGetErrorString(code: i32) -> *const c_char {
    match code {
        0 => c"no error",
        E_PARA => c"parameter error",
        E_PTR => c"empty pointer",
        E_INTERNAL => c"internal error",
        E_NOT_SUPPORT => c"not support feature",
        E_TIMEOUT => c"timeout",
        E_RUNTIME => c"call runtime api fail",
        _ => c"unknown error",
    }
    .as_ptr()
}

fn dtype_of(code: i32, soc: Soc) -> Outcome<DType> {
    let dtype = match code {
        0 => DType::Int8,
        1 => DType::Int16,
        2 => DType::Int32,
        3 => DType::Float16,
        4 => DType::Float,
        5 => DType::Int64,
        11 => DType::Bf16,
        _ => return fail(E_PARA, format!("dataType {code} is unknown")),
    };
    if soc == Soc::Ascend310P3 && matches!(dtype, DType::Int64 | DType::Bf16) {
        return fail(E_NOT_SUPPORT, format!("dataType {} is not supported on {}", dtype.name(), soc.name()));
    }
    Ok(dtype)
}

fn reduction_of(code: i32) -> Outcome<Reduction> {
    Ok(match code {
        0 => Reduction::Sum,
        1 => Reduction::Prod,
        2 => Reduction::Max,
        3 => Reduction::Min,
        _ => return fail(E_PARA, format!("op {code} is unknown")),
    })
}

struct Asked {
    send: *mut c_void,
    receive: *mut c_void,
    count: u64,
    dtype: i32,
    comm: RawComm,
    stream: RawStream,
}

fn collective(api: &str, asked: &Asked, kind: impl FnOnce(Soc) -> Outcome<Kind>) -> i32 {
    entry(api, || {
        with_device(|device| {
            device.check_alive()?;
            // SAFETY: the caller's pointer is a communicator handle.
            let comm = unsafe { comm_of(asked.comm)? };
            let soc = device.config.soc;
            let call = Call { kind: kind(soc)?, count: asked.count, dtype: dtype_of(asked.dtype, soc)? };
            if comm.device != device.id {
                return fail(
                    E_PARA,
                    format!("comm is of device {}, this thread is on {}", comm.device, device.id),
                );
            }
            let Some(group) = &comm.group else { return fail(E_PARA, "comm was destroyed before") };
            // SAFETY: the caller's pointer is a stream handle or null.
            let stream = unsafe { Stream::of(asked.stream, device)? };
            if stream.is_captured() {
                return fail(E_NOT_SUPPORT, "collectives in a capture are not played");
            }
            let buffers = buffers(device, asked, call, group.ranks)?;
            if device.faults.collective(&device.config.faults) {
                comm.failed.store(1, Ordering::Relaxed);
                group.break_down("the link is silent (injected fault)");
                return fail(E_TIMEOUT, "the other ranks did not answer (injected fault)");
            }
            let index = comm.next.fetch_add(1, Ordering::Relaxed);
            if let Err(problem) = group.announce(index, call) {
                comm.failed.store(1, Ordering::Relaxed);
                return fail(E_TIMEOUT, problem);
            }
            let rank = comm.rank;
            if device.computes() {
                let group_of_job = Arc::clone(group);
                let job = stream.submit(Box::new(move || group_of_job.exchange(rank, index, buffers)));
                group.enrol(index, &stream, job);
            }
            device.charge(Work::Collective { bytes: group.link_bytes(call), ranks: group.ranks });
            let host_ns = device.spend_host(device.config.profile.host_launch_ns);
            stream.enter(host_ns, Entry::Meet { group: Arc::clone(group), rank, index });
            Ok(())
        })
    })
}

fn buffers(device: &Device, asked: &Asked, call: Call, ranks: usize) -> Outcome<Buffers> {
    let numbers = call.count as usize;
    if numbers == 0 || numbers > 1 << 40 {
        return fail(E_PARA, format!("count is {}", call.count));
    }
    let (sent, received) = match call.kind {
        Kind::AllReduce(_) | Kind::Broadcast(_) => (numbers, numbers),
        Kind::AllGather => (numbers, numbers * ranks),
        Kind::ReduceScatter(_) => (numbers * ranks, numbers),
    };
    let mut shares = Vec::new();
    for (name, pointer, numbers) in [("sendBuf", asked.send, sent), ("recvBuf", asked.receive, received)] {
        if pointer.is_null() {
            return fail(E_PTR, format!("{name} is null"));
        }
        let bytes = numbers * call.dtype.bytes();
        match device.find(pointer as usize, bytes) {
            Some(share) => shares.push(share),
            None => {
                return fail(
                    E_PARA,
                    format!(
                        "{name}: {bytes} bytes at {pointer:p} are not inside memory of device {}",
                        device.id
                    ),
                );
            }
        }
    }
    Ok(Buffers { send: Address(asked.send), receive: Address(asked.receive), shares })
}

/// Gives every rank the reduction of all.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn HcclAllReduce(
    send: *mut c_void,
    receive: *mut c_void,
    count: u64,
    dtype: i32,
    op: i32,
    comm: RawComm,
    stream: RawStream,
) -> i32 {
    let asked = Asked { send, receive, count, dtype, comm, stream };
    collective("HcclAllReduce", &asked, |_| Ok(Kind::AllReduce(reduction_of(op)?)))
}

/// Gives every rank its part of the reduction.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn HcclReduceScatter(
    send: *mut c_void,
    receive: *mut c_void,
    count: u64,
    dtype: i32,
    op: i32,
    comm: RawComm,
    stream: RawStream,
) -> i32 {
    let asked = Asked { send, receive, count, dtype, comm, stream };
    collective("HcclReduceScatter", &asked, |_| Ok(Kind::ReduceScatter(reduction_of(op)?)))
}

/// Gives every rank all parts, in rank order.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn HcclAllGather(
    send: *mut c_void,
    receive: *mut c_void,
    count: u64,
    dtype: i32,
    comm: RawComm,
    stream: RawStream,
) -> i32 {
    let asked = Asked { send, receive, count, dtype, comm, stream };
    collective("HcclAllGather", &asked, |_| Ok(Kind::AllGather))
}

/// Gives every rank the root's data (not on 310P).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn HcclBroadcast(
    buffer: *mut c_void,
    count: u64,
    dtype: i32,
    root: u32,
    comm: RawComm,
    stream: RawStream,
) -> i32 {
    let asked = Asked { send: buffer, receive: buffer, count, dtype, comm, stream };
    collective("HcclBroadcast", &asked, |soc| {
        // SAFETY: the caller's pointer is a communicator handle.
        let ranks = unsafe { comm_of(comm)? }.group.as_ref().map_or(0, |group| group.ranks);
        match soc {
            Soc::Ascend310P3 => fail(E_NOT_SUPPORT, format!("not supported on {}", soc.name())),
            Soc::Ascend910B3 | Soc::Ascend910B4 if root as usize >= ranks => {
                fail(E_PARA, format!("root is {root} of {ranks}"))
            }
            Soc::Ascend910B3 | Soc::Ascend910B4 => Ok(Kind::Broadcast(root)),
        }
    })
}
