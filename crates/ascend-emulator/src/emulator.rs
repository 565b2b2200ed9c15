//! Functions that only the emulator has.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::sync::atomic::Ordering;

use crate::pool::{self, Pooled};
use crate::registry::{configure, existing, faults_of_environment, reset, with_device};
use crate::settings::{Config, Mode};
use crate::status::{INVALID_PARAM, entry, fail};
use crate::{event, executor, graph, hccl, memory, stream, tensor};

/// Applies settings, given as `key = value` lines. Allowed only before aclInit.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ascend_emulator_configure(settings: *const c_char) -> i32 {
    entry("ascend_emulator_configure", || {
        if settings.is_null() {
            return fail(INVALID_PARAM, "settings is null");
        }
        // SAFETY: not null; the caller's string.
        let Ok(text) = unsafe { CStr::from_ptr(settings) }.to_str() else {
            return fail(INVALID_PARAM, "settings are not UTF-8");
        };
        match Config::parse(text) {
            Ok(mut config) => {
                faults_of_environment(&mut config)?;
                configure(config)
            }
            Err(problem) => fail(INVALID_PARAM, problem),
        }
    })
}

thread_local! {
    static INFO: RefCell<CString> = RefCell::default();
}

/// Returns `ascend-emulator VERSION CHIP MODE`. Valid until the thread's next call.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ascend_emulator_info() -> *const c_char {
    let words = match existing() {
        None => "unconfigured".to_owned(),
        Some(machine) => {
            let mode = if machine.config.mode == Mode::Compute { "compute" } else { "timing" };
            format!("{} {mode}", machine.config.soc.name())
        }
    };
    let text = CString::new(format!("ascend-emulator {VERSION} {words}")).unwrap_or_default();
    INFO.try_with(|info| {
        *info.borrow_mut() = text;
        info.borrow().as_ptr()
    })
    .unwrap_or(std::ptr::null())
}

/// The crate's version, written out because the build script of `crates/device-ascend` calls rustc without Cargo's
/// variables.
pub(crate) const VERSION: &str = "0.1.0";

/// Virtual host time of the calling thread's device, ns; 0 without a device.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ascend_emulator_now_ns() -> u64 {
    with_device(|device| Ok(device.host_ns.load(Ordering::Relaxed))).unwrap_or(0)
}

/// Adds host work to the host's virtual time.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ascend_emulator_host_work(ns: u64) {
    let _ = with_device(|device| {
        device.host_ns.fetch_add(ns, Ordering::Relaxed);
        Ok(())
    });
}

/// Counts live objects, in this order: device allocations, their bytes, host allocations, streams, events, tensors,
/// scalars, integer arrays, tensor lists, executors, communicators, graphs. Writes at most `n` counts and returns how
/// many there are.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ascend_emulator_counts(out: *mut u64, n: u64) -> i32 {
    let counts = counts();
    if !out.is_null() {
        for (i, count) in counts.iter().enumerate().take(n as usize) {
            // SAFETY: the caller's array has `n` numbers.
            unsafe { out.add(i).write(*count) };
        }
    }
    counts.len() as i32
}

/// Like [`ascend_emulator_counts`].
pub(crate) fn counts() -> [u64; 12] {
    [
        memory::ALLOCATIONS.get(),
        memory::ALLOCATED_BYTES.get(),
        memory::HOST_ALLOCATIONS.get(),
        stream::StreamHandle::live().get(),
        event::Event::live().get(),
        tensor::Tensor::live().get(),
        tensor::Scalar::live().get(),
        tensor::IntArray::live().get(),
        tensor::TensorList::live().get(),
        executor::Executor::live().get(),
        hccl::Comm::live().get(),
        graph::Graph::live().get(),
    ]
}

/// Restores the state of a freshly loaded library: settings, devices, memory and handles are gone.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ascend_emulator_reset() -> i32 {
    entry("ascend_emulator_reset", || {
        reset();
        memory::forget_host();
        hccl::forget();
        pool::reclaim::<stream::StreamHandle>();
        pool::reclaim::<event::Event>();
        pool::reclaim::<tensor::Tensor>();
        pool::reclaim::<tensor::Scalar>();
        pool::reclaim::<tensor::IntArray>();
        pool::reclaim::<tensor::TensorList>();
        pool::reclaim::<executor::Executor>();
        pool::reclaim::<hccl::Comm>();
        pool::reclaim::<graph::Graph>();
        Ok(())
    })
}
