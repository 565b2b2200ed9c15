//! Functions that only the emulator has.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use crate::clock::Work;
use crate::pool::{self, Pooled};
use crate::registry::{configure, existing, faults_of_environment, lock, reset, with_device};
use crate::settings::{Config, Mode, Profile};
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

/// Virtual host time of the device that is set on the calling thread, ns; 0 without a device.
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

/// Numbers of a piece of work with its count.
const WORK_NUMBERS: usize = Work::NUMBERS + 1;

/// Takes the work of device 0 since the last call: at most `n` kinds of eight numbers each, the last of them the count.
/// Returns the number of kinds. Those beyond `n` are lost. Needs the setting `record = on`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ascend_emulator_take_work(out: *mut f64, n: u64) -> i32 {
    let Some(device) = existing().and_then(|machine| machine.devices.first().cloned()) else { return 0 };
    let taken = std::mem::take(&mut *lock(&device.work));
    for (i, (work, count)) in taken.iter().enumerate().take(n as usize) {
        let numbers = work.to_numbers().into_iter().chain([*count as f64]);
        for (j, number) in numbers.enumerate() {
            // SAFETY: the caller's array has `n` times eight numbers.
            unsafe { out.add(i * WORK_NUMBERS + j).write(number) };
        }
    }
    taken.len() as i32
}

thread_local! {
    /// The profiles priced by last: a fit prices many works by each.
    static PROFILES: RefCell<Vec<(String, Rc<Profile>)>> = const { RefCell::new(Vec::new()) };
}

/// Most profiles that are kept.
const KEPT: usize = 4;

fn profile_of(text: &str) -> Result<Rc<Profile>, String> {
    let kept = PROFILES.try_with(|kept| {
        kept.borrow().iter().find(|(known, _)| known == text).map(|(_, profile)| Rc::clone(profile))
    });
    if let Ok(Some(profile)) = kept {
        return Ok(profile);
    }
    let profile = Rc::new(Config::parse(text)?.profile);
    let _ = PROFILES.try_with(|kept| {
        let mut kept = kept.borrow_mut();
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push((text.to_owned(), Rc::clone(&profile)));
    });
    Ok(profile)
}

/// Prices `n` kinds of work, as [`ascend_emulator_take_work`] writes them, by the profile in `settings`: writes the sum of
/// their durations in ns. Returns nonzero if the settings or the work are invalid.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ascend_emulator_price_work(
    settings: *const c_char,
    work: *const f64,
    n: u64,
    ns: *mut f64,
) -> i32 {
    entry("ascend_emulator_price_work", || {
        if settings.is_null() || ns.is_null() || (work.is_null() && n > 0) {
            return fail(INVALID_PARAM, "settings, work or ns is null");
        }
        // SAFETY: not null; the caller's string.
        let Ok(text) = unsafe { CStr::from_ptr(settings) }.to_str() else {
            return fail(INVALID_PARAM, "settings are not UTF-8");
        };
        let profile = match profile_of(text) {
            Ok(profile) => profile,
            Err(problem) => return fail(INVALID_PARAM, problem),
        };
        let mut sum = 0.0;
        for i in 0..n as usize {
            // SAFETY: not null; the caller's array has `n` times eight numbers.
            let [numbers @ .., count] = unsafe { work.cast::<[f64; WORK_NUMBERS]>().add(i).read_unaligned() };
            let Some(piece) = Work::from_numbers(numbers) else {
                return fail(INVALID_PARAM, format!("work {i} is {numbers:?}, which is no work"));
            };
            sum += count * profile.work_ns(&piece) as f64;
        }
        // SAFETY: not null; the caller's place.
        unsafe { ns.write(sum) };
        Ok(())
    })
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
