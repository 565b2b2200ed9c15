//! A rank's queues on its device: a stream and events. Each is released on drop.

use std::cell::RefCell;
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ascend_sys::call;

use glmbench_device::DeviceError;

use super::api::acl;
use super::context::Context;
use super::graph::Segments;
use super::second_stage::Launch;

/// Fast launch and fast synchronisation: `ACL_STREAM_FAST_LAUNCH | ACL_STREAM_FAST_SYNC`.
const FAST: u32 = 0x3;
/// Time of one wait before the state of the group is checked again, ms.
const WAIT_MS: i32 = 200;
/// Status of a timed wait that has not ended yet.
const NOT_YET: i32 = 507_046;
/// Extra time to wait for queued work after the group was aborted.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a wait ended.
enum Waited {
    /// The wait ended with this code.
    Done(i32),
    /// The wait timed out.
    NotYet,
}

/// A queue of work on the device.
pub(super) struct Stream {
    context: Arc<Context>,
    handle: *mut c_void,
    /// Launches waiting to become part of a graph, if graphs are in use.
    segments: RefCell<Option<Segments>>,
    /// The failure of a call that has no result. The next call returns it.
    failed: RefCell<Option<DeviceError>>,
}

impl Stream {
    pub(super) fn new(context: &Arc<Context>) -> Result<Self, DeviceError> {
        let mut handle = ptr::null_mut();
        let api = &context.api;
        // A plain stream launches late and waits passively.
        // SAFETY: a place for the handle.
        let fast =
            unsafe { acl!(api, api.libraries.rt, aclrtCreateStreamWithConfig(&raw mut handle, 0, FAST)) };
        if fast.is_err() {
            // SAFETY: as above.
            unsafe { acl!(api, api.libraries.rt, aclrtCreateStream(&raw mut handle)) }?;
        }
        Ok(Self {
            context: context.clone(),
            handle,
            segments: RefCell::default(),
            failed: RefCell::default(),
        })
    }

    /// Queues the waiting launches and returns the stream.
    pub(super) fn ordered(&self) -> Result<*mut c_void, DeviceError> {
        self.flush()?;
        Ok(self.handle)
    }

    /// Queues the launches that wait to become part of a graph.
    pub(super) fn flush(&self) -> Result<(), DeviceError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut segments = self.segments.borrow_mut();
        let Some(segments) = segments.as_mut().filter(|segments| !segments.is_empty()) else { return Ok(()) };
        if segments.wants_room() {
            // Queued graphs may still run.
            self.await_all()?;
            segments.make_room();
        }
        segments.queue(&self.context, self.handle)
    }

    /// Like [`Stream::flush`], for a caller that has no result. The next call returns the failure.
    pub(super) fn flush_quietly(&self) {
        if let Err(error) = self.flush() {
            *self.failed.borrow_mut() = Some(error);
        }
    }

    /// Returns statistics of the graphs, or `None` if there were none.
    pub(super) fn graphs(&self) -> Option<String> {
        self.segments.borrow().as_ref().and_then(Segments::words)
    }

    /// Turns graphs on or off. No launches may be waiting.
    pub(super) fn set_graphs(&self, wanted: bool) {
        *self.segments.borrow_mut() = wanted.then(Segments::default);
    }

    /// Drops all graphs, because the memory that they refer to is about to go. Queued work must have been waited for.
    pub(super) fn forget_graphs(&self) {
        if let Some(segments) = self.segments.borrow_mut().as_mut() {
            segments.forget();
        }
    }

    /// Queues a launch of a kept plan, now or as part of a graph.
    pub(super) fn launch_kept(&self, launch: Launch) -> Result<(), DeviceError> {
        if let Some(segments) = self.segments.borrow_mut().as_mut() {
            segments.push(launch);
            return Ok(());
        }
        launch.queue(&self.context, self.handle)
    }

    /// Queues a launch after the waiting ones.
    pub(super) fn launch_once(&self, launch: Launch) -> Result<(), DeviceError> {
        let handle = self.ordered()?;
        launch.queue(&self.context, handle)
    }

    /// Waits for all queued work, or until the group is aborted. Without the second, a rank would wait in its collective
    /// until `HCCL_EXEC_TIMEOUT` (half an hour) after another rank failed.
    pub(super) fn synchronize(&self) -> Result<(), DeviceError> {
        self.flush()?;
        self.await_all()
    }

    fn await_all(&self) -> Result<(), DeviceError> {
        let api = &self.context.api;
        loop {
            api.ready()?;
            match self.wait() {
                Ok(Waited::NotYet) => {}
                Ok(Waited::Done(code)) => return api.check("aclrtSynchronizeStream", code),
                Err(missing) => return Err(api.missing(missing)),
            }
        }
    }

    /// Drops launches that wait for a graph, and waits until nothing runs, even on a failed device, before memory that queued work
    /// uses is released. If the group is aborted, it waits for about [`PATIENCE`] more. After that, everything on the device is kept
    /// until the process ends. Returns how the queued work ended.
    pub(super) fn quiesce(&self) -> Result<(), DeviceError> {
        if let Some(segments) = self.segments.borrow_mut().as_mut() {
            segments.discard();
        }
        let mut called_off: Option<Instant> = None;
        // A device that is really lost returns an error at once, and then nothing runs any more.
        while !self.context.is_abandoned() {
            match self.wait() {
                Ok(Waited::NotYet) => {}
                Ok(Waited::Done(code)) => return self.context.api.check("aclrtSynchronizeStream", code),
                Err(_) => break,
            }
            if self.context.api.is_lost() && called_off.get_or_insert_with(Instant::now).elapsed() > PATIENCE
            {
                self.context.abandon();
            }
        }
        Ok(())
    }

    /// Waits for up to [`WAIT_MS`], or without limit if the runtime has no timed wait.
    fn wait(&self) -> Result<Waited, &'static str> {
        let rt = &self.context.api.libraries.rt;
        // SAFETY: the stream lives.
        let code = unsafe { call!(rt, aclrtSynchronizeStreamWithTimeout(self.handle, WAIT_MS)) };
        let code = match code {
            Ok(NOT_YET) => return Ok(Waited::NotYet),
            Ok(code) => code,
            // SAFETY: the stream lives.
            Err(_) => unsafe { call!(rt, aclrtSynchronizeStream(self.handle)) }?,
        };
        Ok(Waited::Done(code))
    }

    /// Waits for all queued work, then copies. Host memory need not be pinned or aligned: only queued copies require that.
    ///
    /// # Safety
    /// `count` bytes are at both places.
    pub(super) unsafe fn copy_now(
        &self,
        dst: *mut c_void,
        src: *const c_void,
        count: usize,
        kind: ascend_sys::aclrtMemcpyKind,
    ) -> Result<(), DeviceError> {
        self.synchronize()?;
        let api = &self.context.api;
        // SAFETY: the caller's.
        unsafe { acl!(api, api.libraries.rt, aclrtMemcpy(dst, count, src, count, kind)) }
    }

    /// Queues a copy. Host memory is pinned, and both addresses are multiples of 64: anything else is undefined up to CANN 8.3.
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
        let (api, handle) = (&self.context.api, self.ordered()?);
        // SAFETY: the caller's.
        unsafe { acl!(api, api.libraries.rt, aclrtMemcpyAsync(dst, count, src, count, kind, handle)) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.context.is_abandoned() {
            return;
        }
        self.segments.take();
        // SAFETY: created by us, and this is the last use. A lost device cannot be waited for, but handles can be given back.
        let _ = unsafe { call!(self.context.api.libraries.rt, aclrtDestroyStream(self.handle)) };
    }
}

/// A point in a stream.
pub(super) struct Event {
    context: Arc<Context>,
    handle: *mut c_void,
}

/// `ACL_EVENT_CAPTURE_STREAM_PROGRESS`: the host can wait for the event. It has no time stamp and does not count against
/// the device's limit.
const STREAM_PROGRESS: u32 = 0x2;

impl Event {
    /// Creates an event with a time stamp, for [`Event::elapsed_ns`].
    pub(super) fn timed(context: &Arc<Context>) -> Result<Self, DeviceError> {
        let mut handle = ptr::null_mut();
        let api = &context.api;
        // SAFETY: a place for the handle.
        unsafe { acl!(api, api.libraries.rt, aclrtCreateEvent(&raw mut handle)) }?;
        Ok(Self { context: context.clone(), handle })
    }

    /// Creates an event for the host to wait for. It has no time stamp if the runtime supports that: time stamps slow an
    /// event.
    pub(super) fn new(context: &Arc<Context>) -> Result<Self, DeviceError> {
        let mut handle = ptr::null_mut();
        let api = &context.api;
        // SAFETY: a place for the handle.
        let plain = unsafe {
            acl!(api, api.libraries.rt, aclrtCreateEventWithFlag(&raw mut handle, STREAM_PROGRESS))
        };
        match plain {
            Ok(()) => Ok(Self { context: context.clone(), handle }),
            Err(error @ DeviceError::Lost { .. }) => Err(error),
            Err(_) => Self::timed(context),
        }
    }

    pub(super) fn record(&self, stream: &Stream) -> Result<(), DeviceError> {
        let (api, handle) = (&self.context.api, stream.ordered()?);
        // SAFETY: both live.
        unsafe { acl!(api, api.libraries.rt, aclrtRecordEvent(self.handle, handle)) }
    }

    /// Waits until the stream has passed the event, or the group is aborted.
    pub(super) fn synchronize(&self) -> Result<(), DeviceError> {
        let api = &self.context.api;
        let rt = &api.libraries.rt;
        loop {
            api.ready()?;
            // SAFETY: the event lives.
            let code = match unsafe { call!(rt, aclrtSynchronizeEventWithTimeout(self.handle, WAIT_MS)) } {
                Ok(NOT_YET) => continue,
                Ok(code) => code,
                // SAFETY: as above.
                Err(_) => unsafe { call!(rt, aclrtSynchronizeEvent(self.handle)) }
                    .map_err(|missing| api.missing(missing))?,
            };
            return api.check("aclrtSynchronizeEvent", code);
        }
    }

    /// Returns the device time from this event to a later one, in nanoseconds. Both must have been waited for.
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
        if self.context.is_abandoned() {
            return;
        }
        // SAFETY: created by us, and this is the last use.
        let _ = unsafe { call!(self.context.api.libraries.rt, aclrtDestroyEvent(self.handle)) };
    }
}
