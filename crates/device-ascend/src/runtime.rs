//! What a rank holds on its device: the context of its thread, a stream, events. Each is given back when it is dropped.

use std::cell::RefCell;
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ascend_sys::call;

use glmbench_device::DeviceError;

use super::api::{Api, acl};
use super::graph::{Launch, Segments};

/// The device is set on this thread. Everything that lives on it holds this, so it is reset last.
pub(super) struct Context {
    pub(super) api: Arc<Api>,
    ordinal: i32,
    /// Work that nobody waits for any longer may still use what lives here: nothing of it is given back before the process ends.
    abandoned: AtomicBool,
}

impl Context {
    /// Sets device `ordinal` on the calling thread.
    pub(super) fn new(api: Arc<Api>, ordinal: i32) -> Result<Arc<Self>, DeviceError> {
        // SAFETY: an integer goes in.
        unsafe { acl!(&api, api.libraries.rt, aclrtSetDevice(ordinal)) }?;
        Ok(Arc::new(Self { api, ordinal, abandoned: AtomicBool::new(false) }))
    }

    /// Whether what lives here is left to the end of the process.
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

/// Fast launch and fast synchronisation: `ACL_STREAM_FAST_LAUNCH | ACL_STREAM_FAST_SYNC`.
const FAST: u32 = 0x3;
/// How long a wait is before the group is looked at again, ms.
const WAIT_MS: i32 = 200;
/// A wait with a limit has not ended yet.
const NOT_YET: i32 = 507_046;
/// How long work of a group that was called off is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a wait ended.
enum Waited {
    /// With this code.
    Done(i32),
    /// Not within its time.
    NotYet,
}

/// A queue of work on the device.
pub(super) struct Stream {
    context: Arc<Context>,
    handle: *mut c_void,
    /// Launches that wait to become part of a graph, where graphs are used.
    segments: RefCell<Option<Segments>>,
    /// What a call that has no result failed with: the next one's error.
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

    /// Queues what waits to become part of a graph.
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

    /// Like [`Stream::flush`] for a caller that has no result: a failure is the next call's.
    pub(super) fn flush_quietly(&self) {
        if let Err(error) = self.flush() {
            *self.failed.borrow_mut() = Some(error);
        }
    }

    /// What became of graphs; `None` if there were none.
    pub(super) fn graphs(&self) -> Option<String> {
        self.segments.borrow().as_ref().and_then(Segments::words)
    }

    /// Turns graphs on or off. Nothing may be waiting.
    pub(super) fn set_graphs(&self, wanted: bool) {
        *self.segments.borrow_mut() = wanted.then(Segments::default);
    }

    /// Drops all graphs: what they name goes. Queued work must have been waited for.
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

    /// Queues a launch behind what waits.
    pub(super) fn launch_once(&self, launch: Launch) -> Result<(), DeviceError> {
        let handle = self.ordered()?;
        launch.queue(&self.context, handle)
    }

    /// Waits until all is done, or the group is called off: a rank that failed leaves the others in a collective that ends after half
    /// an hour (`HCCL_EXEC_TIMEOUT`).
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

    /// Waits until nothing runs, whatever became of the device: before memory that queued work uses is given back. Where the group is
    /// called off it waits for [`PATIENCE`] more; what lives on the device is then left to the end of the process.
    pub(super) fn quiesce(&self) {
        if let Some(segments) = self.segments.borrow_mut().as_mut() {
            segments.discard();
        }
        let mut called_off: Option<Instant> = None;
        // A device that is really lost refuses at once, and then nothing runs any more, either.
        while !self.context.is_abandoned()
            && let Ok(Waited::NotYet) = self.wait()
        {
            if self.context.api.is_lost() && called_off.get_or_insert_with(Instant::now).elapsed() > PATIENCE
            {
                self.context.abandoned.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Waits for a while; without end where the runtime has no other way.
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

    /// Copies once all that was queued is done. Host memory may be any: only what is queued wants pinned and aligned memory.
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

/// `ACL_EVENT_CAPTURE_STREAM_PROGRESS`: the host can wait for the event. No time stamp, and not counted against the device's limit.
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

    /// Creates an event that the host waits for. Time stamps slow an event down, so it has none where the runtime can leave them out.
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

    /// Waits until the stream has passed it, or the group is called off.
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
        if self.context.is_abandoned() {
            return;
        }
        // SAFETY: created by us, and this is the last use.
        let _ = unsafe { call!(self.context.api.libraries.rt, aclrtDestroyEvent(self.handle)) };
    }
}
