//! Initialisation, devices and versions.

use std::ffi::{c_char, c_void};

use crate::registry::{
    device, existing, finalise, initialise, machine, release, require_initialised, set_current,
    visible_devices,
};
use crate::settings::Soc;
use crate::status::{INVALID_PARAM, Outcome, RT_NO_DEVICE, RT_UNSUPPORTED, entry, fail};

/// Initialises the library. A configuration file is accepted but not read.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclInit(_config_path: *const c_char) -> i32 {
    entry("aclInit", || {
        injected("aclInit")?;
        initialise()
    })
}

/// Fails if a fault is configured for this setup function.
fn injected(function: &str) -> Outcome {
    match machine()?.config.faults.set_up(function) {
        Some(code) => fail(code, "injected fault"),
        None => Ok(()),
    }
}

/// Finalises the library.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn aclFinalize() -> i32 {
    entry("aclFinalize", finalise)
}

/// Initialises the operator library. After aclInit there is nothing left to do.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclnnInit(_config_path: *const c_char) -> i32 {
    entry("aclnnInit", require_initialised)
}

/// Finalises the operator library.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn aclnnFinalize() -> i32 {
    0
}

/// Returns the runtime version: 0.0.0, which no real runtime has.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtGetVersion(major: *mut i32, minor: *mut i32, patch: *mut i32) -> i32 {
    entry("aclrtGetVersion", || {
        for pointer in [major, minor, patch] {
            if pointer.is_null() {
                return fail(INVALID_PARAM, "a pointer is null");
            }
            // SAFETY: not null; the caller's pointer.
            unsafe { pointer.write(0) };
        }
        Ok(())
    })
}

/// Name of the chip.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn aclrtGetSocName() -> *const c_char {
    match existing().map(|machine| machine.config.soc) {
        None => std::ptr::null(),
        Some(Soc::Ascend310P3) => c"Ascend310P3".as_ptr(),
        Some(Soc::Ascend910B3) => c"Ascend910B3".as_ptr(),
        Some(Soc::Ascend910B4) => c"Ascend910B4".as_ptr(),
    }
}

/// Number of visible devices.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtGetDeviceCount(count: *mut u32) -> i32 {
    entry("aclrtGetDeviceCount", || {
        if count.is_null() {
            return fail(INVALID_PARAM, "count is null");
        }
        let visible = visible_devices(&*machine()?);
        if visible == 0 {
            return fail(RT_NO_DEVICE, "ASCEND_RT_VISIBLE_DEVICES leaves no device");
        }
        // SAFETY: not null; the caller's pointer.
        unsafe { count.write(visible as u32) };
        Ok(())
    })
}

/// Makes a device the calling thread's current one.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn aclrtSetDevice(id: i32) -> i32 {
    entry("aclrtSetDevice", || {
        injected("aclrtSetDevice")?;
        set_current(id)
    })
}

/// Releases a device; one call per aclrtSetDevice.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn aclrtResetDevice(id: i32) -> i32 {
    entry("aclrtResetDevice", || release(id))
}

/// Utilisation of the units in percent; -1 if unknown.
#[repr(C)]
pub(crate) struct UtilizationInfo {
    cube: i32,
    vector: i32,
    aicpu: i32,
    memory: i32,
    extension: *mut c_void,
}

/// Reports the utilisation of a device: made-up numbers with `telemetry = fake`, otherwise unsupported.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtGetDeviceUtilizationRate(id: i32, info: *mut UtilizationInfo) -> i32 {
    entry("aclrtGetDeviceUtilizationRate", || {
        if info.is_null() {
            return fail(INVALID_PARAM, "utilizationInfo is null");
        }
        let device = device(id)?;
        device.check_alive()?;
        if !device.config.fake_telemetry {
            return fail(RT_UNSUPPORTED, "the emulator has no utilisation (telemetry = fake makes some up)");
        }
        let fake = crate::dcmi::FAKE_PERCENT as i32;
        // SAFETY: not null; the caller's pointer to a structure of this layout.
        unsafe {
            (*info).cube = fake;
            (*info).vector = fake;
            (*info).aicpu = fake;
            (*info).memory = -1;
        }
        Ok(())
    })
}
