//! Device and host memory.
//!
//! In compute mode, device memory is host memory filled with 0xFF: NaN in every float type, -1 as an index. In timing
//! mode it is inaccessible address space.

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::pool::Counter;
use crate::registry::{Device, lock, require_initialised, with_device};
use crate::settings::Soc;
use crate::status::{
    INVALID_PARAM, Outcome, RT_DEVICE_OOM, RT_MEMORY_ALLOCATION, RT_PARAM_INVALID, entry, fail,
};

/// Alignment of device allocations in bytes; sizes are rounded up to it.
const DEVICE_ALIGNMENT: usize = 512;

/// Number of live device allocations.
pub(crate) static ALLOCATIONS: Counter = Counter::new();
/// Bytes in live device allocations.
pub(crate) static ALLOCATED_BYTES: Counter = Counter::new();
/// Number of live host allocations.
pub(crate) static HOST_ALLOCATIONS: Counter = Counter::new();

static HOST: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

/// A device allocation. The bytes stay valid as long as anyone holds a share.
pub(crate) struct Allocation {
    base: usize,
    /// Size in bytes.
    pub bytes: usize,
    real: bool,
    freed: AtomicBool,
}

impl Allocation {
    fn new(bytes: usize, real: bool) -> Option<Self> {
        let base = if real { poisoned(bytes)? } else { space::reserve(bytes)? };
        Some(Self { base, bytes, real, freed: AtomicBool::new(false) })
    }

    /// Whether aclrtFree was called.
    pub(crate) fn is_freed(&self) -> bool {
        self.freed.load(Ordering::Acquire)
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if self.real {
            if let Ok(layout) = Layout::from_size_align(self.bytes, DEVICE_ALIGNMENT) {
                // SAFETY: allocated with this layout in `poisoned`, given back once, here.
                unsafe { std::alloc::dealloc(self.base as *mut u8, layout) };
            }
        } else {
            space::release(self.base, self.bytes);
        }
    }
}

fn poisoned(bytes: usize) -> Option<usize> {
    let layout = Layout::from_size_align(bytes, DEVICE_ALIGNMENT).ok()?;
    // SAFETY: the size is not zero (checked by the caller).
    let base = unsafe { std::alloc::alloc(layout) };
    if base.is_null() {
        return None;
    }
    // SAFETY: just allocated with this size.
    unsafe { base.write_bytes(0xff, bytes) };
    Some(base as usize)
}

#[cfg(all(unix, target_pointer_width = "64"))]
mod space {
    //! Reserved address space without memory.

    use std::ffi::{c_int, c_void};

    unsafe extern "C" {
        fn mmap(
            at: *mut c_void,
            len: usize,
            prot: c_int,
            flags: c_int,
            fd: c_int,
            offset: i64,
        ) -> *mut c_void;
        fn munmap(at: *mut c_void, len: usize) -> c_int;
    }

    const PROT_NONE: c_int = 0;
    const MAP_PRIVATE: c_int = 2;
    #[cfg(target_os = "linux")]
    const MAP_ANONYMOUS_NORESERVE: c_int = 0x20 | 0x4000;
    #[cfg(not(target_os = "linux"))]
    const MAP_ANONYMOUS_NORESERVE: c_int = 0x1000 | 0x40;

    pub(super) fn reserve(bytes: usize) -> Option<usize> {
        let flags = MAP_PRIVATE | MAP_ANONYMOUS_NORESERVE;
        // SAFETY: a fresh mapping anywhere, without access.
        let at = unsafe { mmap(std::ptr::null_mut(), bytes, PROT_NONE, flags, -1, 0) };
        (at as isize != -1).then_some(at as usize)
    }

    pub(super) fn release(base: usize, bytes: usize) {
        // SAFETY: a mapping made by `reserve` with this size, given back once.
        unsafe { munmap(base as *mut c_void, bytes) };
    }
}

#[cfg(not(all(unix, target_pointer_width = "64")))]
mod space {
    //! Addresses that are unique and never accessed.

    use std::sync::atomic::{AtomicUsize, Ordering};

    static NEXT: AtomicUsize = AtomicUsize::new(1 << 44);

    pub(super) fn reserve(bytes: usize) -> Option<usize> {
        let rounded = bytes.checked_next_multiple_of(1 << 16)?;
        Some(NEXT.fetch_add(rounded, Ordering::Relaxed))
    }

    pub(super) fn release(_base: usize, _bytes: usize) {}
}

/// Allocates device memory. The policy (huge pages or not) has no effect here.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtMalloc(pointer: *mut *mut c_void, size: usize, policy: i32) -> i32 {
    entry("aclrtMalloc", || {
        if pointer.is_null() {
            return fail(INVALID_PARAM, "devPtr is null");
        }
        if size == 0 {
            return fail(INVALID_PARAM, "size is 0, expected at least 1");
        }
        if policy < 0 {
            return fail(INVALID_PARAM, format!("policy is {policy}"));
        }
        with_device(|device| {
            device.check_alive()?;
            let address = allocate(device, size)?;
            // SAFETY: not null; the caller's pointer.
            unsafe { pointer.write(address as *mut c_void) };
            Ok(())
        })
    })
}

fn allocate(device: &Device, size: usize) -> Outcome<usize> {
    if device.faults.allocation(&device.config.faults) {
        return fail(RT_MEMORY_ALLOCATION, format!("{size} bytes cannot be allocated (injected fault)"));
    }
    let total = device.config.profile.memory_bytes as u64;
    let used = device.used_bytes.load(Ordering::Acquire);
    let Some(bytes) = size.checked_next_multiple_of(DEVICE_ALIGNMENT) else {
        return fail(RT_DEVICE_OOM, format!("{size} bytes wanted"));
    };
    if used.saturating_add(bytes as u64) > total {
        return fail(
            RT_DEVICE_OOM,
            format!("{size} bytes wanted, {} of {total} bytes free on device {}", total - used, device.id),
        );
    }
    let Some(allocation) = Allocation::new(bytes, device.computes()) else {
        return fail(RT_MEMORY_ALLOCATION, format!("{size} bytes cannot be had from the host"));
    };
    let base = allocation.base;
    device.used_bytes.fetch_add(bytes as u64, Ordering::AcqRel);
    let mut memory = device.memory.write().unwrap_or_else(PoisonError::into_inner);
    memory.insert(base, Arc::new(allocation));
    ALLOCATIONS.add(1);
    ALLOCATED_BYTES.add(bytes as i64);
    Ok(base)
}

/// Frees device memory.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtFree(pointer: *mut c_void) -> i32 {
    entry("aclrtFree", || {
        if pointer.is_null() {
            return fail(INVALID_PARAM, "devPtr is null");
        }
        with_device(|device| {
            let mut memory = device.memory.write().unwrap_or_else(PoisonError::into_inner);
            let Some(allocation) = memory.remove(&(pointer as usize)) else {
                return fail(
                    RT_PARAM_INVALID,
                    format!("{pointer:p} is no memory of device {} (or was freed before)", device.id),
                );
            };
            allocation.freed.store(true, Ordering::Release);
            device.used_bytes.fetch_sub(allocation.bytes as u64, Ordering::AcqRel);
            ALLOCATIONS.add(-1);
            ALLOCATED_BYTES.add(-(allocation.bytes as i64));
            Ok(())
        })
    })
}

/// Allocates pinned host memory.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtMallocHost(pointer: *mut *mut c_void, size: usize) -> i32 {
    entry("aclrtMallocHost", || {
        require_initialised()?;
        if pointer.is_null() || size == 0 {
            return fail(INVALID_PARAM, format!("hostPtr is {pointer:p}, size is {size}"));
        }
        let Ok(layout) = Layout::from_size_align(size, 64) else {
            return fail(RT_MEMORY_ALLOCATION, format!("{size} bytes wanted"));
        };
        // SAFETY: the size is not zero.
        let base = unsafe { std::alloc::alloc_zeroed(layout) };
        if base.is_null() {
            return fail(RT_MEMORY_ALLOCATION, format!("{size} bytes cannot be had from the host"));
        }
        lock(&HOST).insert(base as usize, size);
        HOST_ALLOCATIONS.add(1);
        // SAFETY: not null; the caller's pointer.
        unsafe { pointer.write(base.cast()) };
        Ok(())
    })
}

/// Frees pinned host memory.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtFreeHost(pointer: *mut c_void) -> i32 {
    entry("aclrtFreeHost", || {
        let Some(size) = lock(&HOST).remove(&(pointer as usize)) else {
            return fail(
                RT_PARAM_INVALID,
                format!("{pointer:p} is no pinned host memory (or was freed before)"),
            );
        };
        HOST_ALLOCATIONS.add(-1);
        if let Ok(layout) = Layout::from_size_align(size, 64) {
            // SAFETY: allocated with this layout in aclrtMallocHost; out of the list, so never freed twice.
            unsafe { std::alloc::dealloc(pointer.cast(), layout) };
        }
        Ok(())
    })
}

/// Whether the bytes are inside pinned host memory.
pub(crate) fn is_pinned(address: usize, bytes: usize) -> bool {
    let host = lock(&HOST);
    host.range(..=address).next_back().is_some_and(|(base, size)| address + bytes <= base + size)
}

/// Reports free and total bytes. The chip has one kind of memory (310P: DDR, 910B: HBM). The other kind reports 0.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtGetMemInfo(attribute: i32, free: *mut usize, total: *mut usize) -> i32 {
    entry("aclrtGetMemInfo", || {
        if free.is_null() || total.is_null() {
            return fail(INVALID_PARAM, "free or total is null");
        }
        with_device(|device| {
            device.check_alive()?;
            let own = match device.config.soc {
                Soc::Ascend310P3 => 0,
                Soc::Ascend910B3 | Soc::Ascend910B4 => 1,
            };
            if !(0..=1).contains(&attribute) {
                return fail(RT_PARAM_INVALID, format!("attr is {attribute}, expected 0 (DDR) or 1 (HBM)"));
            }
            let all = if attribute == own { device.config.profile.memory_bytes as usize } else { 0 };
            let used = device.used_bytes.load(Ordering::Acquire) as usize;
            // SAFETY: not null; the caller's pointers.
            unsafe {
                free.write(all.saturating_sub(used));
                total.write(all);
            }
            Ok(())
        })
    })
}

/// Frees all pinned host memory and resets the counters, after a reset.
pub(crate) fn forget_host() {
    for (base, size) in std::mem::take(&mut *lock(&HOST)) {
        if let Ok(layout) = Layout::from_size_align(size, 64) {
            // SAFETY: allocated with this layout in aclrtMallocHost; out of the list, so never freed twice.
            unsafe { std::alloc::dealloc(base as *mut u8, layout) };
        }
    }
    for counter in [&ALLOCATIONS, &ALLOCATED_BYTES, &HOST_ALLOCATIONS] {
        counter.reset();
    }
}
