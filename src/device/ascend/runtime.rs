//! What a rank holds on its device: the context of its thread, a stream, events. Each is given back when it is dropped.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use ascend_sys::call;

use super::super::DeviceError;
use super::api::{Api, acl};

/// The device is set on this thread. Everything that lives on it holds this, so it is reset last.
pub(super) struct Context {
    pub(super) api: Arc<Api>,
    ordinal: i32,
}

impl Context {
    /// Sets device `ordinal` on the calling thread.
    pub(super) fn new(api: Arc<Api>, ordinal: i32) -> Result<Arc<Self>, DeviceError> {
        // SAFETY: an integer goes in.
        unsafe { acl!(&api, api.libraries.rt, aclrtSetDevice(ordinal)) }?;
        Ok(Arc::new(Self { api, ordinal }))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: nothing on this device is left, see the type.
        let _ = unsafe { call!(self.api.libraries.rt, aclrtResetDevice(self.ordinal)) };
    }
}

/// A queue of work on the device.
pub(super) struct Stream {
    context: Arc<Context>,
    pub(super) handle: *mut c_void,
}

impl Stream {
    pub(super) fn new(context: &Arc<Context>) -> Result<Self, DeviceError> {
        let mut handle = ptr::null_mut();
        let api = &context.api;
        // SAFETY: a place for the handle.
        unsafe { acl!(api, api.libraries.rt, aclrtCreateStream(&raw mut handle)) }?;
        Ok(Self { context: context.clone(), handle })
    }

    /// Waits until all is done.
    pub(super) fn synchronize(&self) -> Result<(), DeviceError> {
        let api = &self.context.api;
        // SAFETY: the stream lives.
        unsafe { acl!(api, api.libraries.rt, aclrtSynchronizeStream(self.handle)) }
    }

    /// Waits until nothing runs, whatever became of the device: before memory that queued work uses is given back. Unlike
    /// [`Stream::synchronize`] it waits when the device is called off, too.
    pub(super) fn quiesce(&self) {
        // SAFETY: the stream lives. A device that is really lost refuses at once, and then nothing runs any more, either.
        let _ = unsafe { call!(self.context.api.libraries.rt, aclrtSynchronizeStream(self.handle)) };
    }

    /// Queues a copy.
    ///
    /// # Safety
    /// `count` bytes are at both places and stay there until the copy is done.
    pub(super) unsafe fn copy(
        &self,
        dst: *mut c_void,
        src: *const c_void,
        count: usize,
        kind: ascend_sys::aclrtMemcpyKind,
    ) -> Result<(), DeviceError> {
        let api = &self.context.api;
        // SAFETY: the caller's.
        unsafe { acl!(api, api.libraries.rt, aclrtMemcpyAsync(dst, count, src, count, kind, self.handle)) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: created by us, and this is the last use. A lost device cannot be waited for, but handles can be given back.
        let _ = unsafe { call!(self.context.api.libraries.rt, aclrtDestroyStream(self.handle)) };
    }
}

/// A point in a stream.
pub(super) struct Event {
    context: Arc<Context>,
    handle: *mut c_void,
}

impl Event {
    pub(super) fn new(context: &Arc<Context>) -> Result<Self, DeviceError> {
        let mut handle = ptr::null_mut();
        let api = &context.api;
        // SAFETY: a place for the handle.
        unsafe { acl!(api, api.libraries.rt, aclrtCreateEvent(&raw mut handle)) }?;
        Ok(Self { context: context.clone(), handle })
    }

    pub(super) fn record(&self, stream: &Stream) -> Result<(), DeviceError> {
        let api = &self.context.api;
        // SAFETY: both live.
        unsafe { acl!(api, api.libraries.rt, aclrtRecordEvent(self.handle, stream.handle)) }
    }

    /// Waits until the stream has passed it.
    pub(super) fn synchronize(&self) -> Result<(), DeviceError> {
        let api = &self.context.api;
        // SAFETY: the event lives.
        unsafe { acl!(api, api.libraries.rt, aclrtSynchronizeEvent(self.handle)) }
    }

    /// Nanoseconds of the device's clock from this event to a later one; both must have been waited for.
    pub(super) fn elapsed_ns(&self, end: &Self) -> Result<u64, DeviceError> {
        let api = &self.context.api;
        let mut ms = 0f32;
        // SAFETY: both live, and there is a place for the result.
        unsafe { acl!(api, api.libraries.rt, aclrtEventElapsedTime(&raw mut ms, self.handle, end.handle)) }?;
        Ok((f64::from(ms) * 1e6) as u64)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: created by us, and this is the last use.
        let _ = unsafe { call!(self.context.api.libraries.rt, aclrtDestroyEvent(self.handle)) };
    }
}
