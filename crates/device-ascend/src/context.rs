//! The context of a rank's thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ascend_sys::call;

use glmbench_device::DeviceError;

use super::api::{Api, acl};
use super::trace;

/// The device set on this thread. Everything that lives on the device holds the context, so the device is reset last.
pub(super) struct Context {
    pub(super) api: Arc<Api>,
    ordinal: i32,
    /// Work that nobody waits for may still use what lives on the device. Then nothing is released before the process
    /// ends.
    abandoned: AtomicBool,
}

impl Context {
    /// Sets device `ordinal` on the calling thread.
    pub(super) fn new(api: Arc<Api>, ordinal: i32) -> Result<Arc<Self>, DeviceError> {
        // SAFETY: an integer goes in.
        unsafe { acl!(&api, api.libraries.rt, aclrtSetDevice(ordinal)) }
            .inspect_err(|_| trace::argue("aclrtSetDevice", &[&ordinal]))?;
        Ok(Arc::new(Self { api, ordinal, abandoned: AtomicBool::new(false) }))
    }

    /// Returns the chip's number among the visible ones.
    pub(super) fn ordinal(&self) -> i32 {
        self.ordinal
    }

    /// Keeps everything on the device until the process ends.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// Returns whether everything on the device is kept until the process ends.
    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.is_abandoned() {
            return;
        }
        // SAFETY: nothing on this device is left, see the type.
        let _ = unsafe { call!(self.api.libraries.rt, aclrtResetDevice(self.ordinal)) };
    }
}
