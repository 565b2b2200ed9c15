//! Streams: a timeline, and in compute mode a worker thread that runs the jobs in order.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use crate::clock::{Blocked, Entry, Timeline};
use crate::executor::Captured;
use crate::pool::{self, Slot, pooled};
use crate::registry::{Device, lock, with_device};
use crate::settings::{Soc, Streams};
use crate::status::{
    Failure, INVALID_PARAM, Outcome, RT_AICORE_EXCEPTION, RT_AICORE_TIMEOUT, RT_CAPTURED, RT_NO_STREAM,
    RT_PARAM_INVALID, RT_STREAM_CONTEXT, RT_SYNC_TIMEOUT, entry, fail,
};

/// Work for a stream's thread.
pub(crate) type Job = Box<dyn FnOnce() -> Outcome + Send>;

/// One stream.
pub(crate) struct Stream {
    /// Id of the device that the stream belongs to.
    pub device: i32,
    cores_free_ns: Arc<AtomicU64>,
    timeline: Mutex<Timeline>,
    lazy: bool,
    hccl_timeout: Duration,
    queue: Mutex<Queue>,
    changed: Condvar,
    worker: Mutex<Option<JoinHandle<()>>>,
    /// The capture in progress, if any.
    capture: Mutex<Option<Capture>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    pushed: u64,
    done: u64,
    wanted: u64,
    stop: bool,
    failure: Option<Failure>,
}

/// A capture in progress.
struct Capture {
    operators: Vec<Captured>,
    /// Who may not copy or set memory without a stream. 0: no thread may. 1: the capturing thread may not. 2: all may.
    mode: i32,
    thread: ThreadId,
}

/// Contents of a stream handle.
#[derive(Default)]
pub(crate) struct StreamHandle(Option<Arc<Stream>>);

pooled!(StreamHandle, b"strm", "stream", |handle| handle.0 = None);

/// The C handle of a stream.
pub(crate) type RawStream = *mut Slot<StreamHandle>;

impl Stream {
    /// Creates a stream of the device, with a worker thread if operators compute.
    pub(crate) fn start(device: &Device) -> Arc<Self> {
        let stream = Arc::new(Self {
            device: device.id,
            cores_free_ns: Arc::clone(&device.cores_free_ns),
            timeline: Mutex::default(),
            lazy: device.config.streams == Streams::Lazy,
            hccl_timeout: Duration::from_millis(device.config.hccl_timeout_ms),
            queue: Mutex::default(),
            changed: Condvar::new(),
            worker: Mutex::new(None),
            capture: Mutex::new(None),
        });
        if device.computes() {
            let shared = Arc::clone(&stream);
            let worker = std::thread::Builder::new().name(format!("npu{}", device.id));
            match worker.spawn(move || shared.work()) {
                Ok(handle) => *lock(&stream.worker) = Some(handle),
                Err(error) => stream.break_down(RT_AICORE_EXCEPTION, format!("no thread: {error}")),
            }
        }
        stream
    }

    /// Returns the stream behind a handle (null: the device's default stream). It must belong to `device`.
    ///
    /// # Safety
    /// As [`pool::get`].
    pub(crate) unsafe fn of(handle: RawStream, device: &Device) -> Outcome<Arc<Self>> {
        if handle.is_null() {
            return Ok(Arc::clone(device.default_stream()));
        }
        // SAFETY: the caller's promise.
        let stream = match unsafe { pool::get(handle) } {
            Ok(slot) => slot.value().0.clone(),
            Err(dead) => return fail(RT_PARAM_INVALID, format!("stream {}", dead.words())),
        };
        match stream {
            Some(stream) if stream.device == device.id => Ok(stream),
            Some(stream) => fail(
                RT_STREAM_CONTEXT,
                format!("the stream belongs to device {}, this thread is on {}", stream.device, device.id),
            ),
            None => fail(RT_PARAM_INVALID, "stream was destroyed before"),
        }
    }

    /// Begins a capture. Returns false if one is already in progress.
    pub(crate) fn begin_capture(&self, mode: i32) -> bool {
        let mut capture = lock(&self.capture);
        let free = capture.is_none();
        let thread = std::thread::current().id();
        capture.get_or_insert_with(|| Capture { operators: Vec::new(), mode, thread });
        free
    }

    /// Whether a capture forbids this thread to copy or set memory without a stream.
    pub(crate) fn forbids_copies(&self) -> bool {
        lock(&self.capture).as_ref().is_some_and(|capture| match capture.mode {
            0 => true,
            1 => capture.thread == std::thread::current().id(),
            _ => false,
        })
    }

    /// Ends the capture and returns its operators.
    pub(crate) fn end_capture(&self) -> Option<Vec<Captured>> {
        lock(&self.capture).take().map(|capture| capture.operators)
    }

    /// Adds an operator to the capture.
    pub(crate) fn capture(&self, operator: Captured) {
        if let Some(capture) = lock(&self.capture).as_mut() {
            capture.operators.push(operator);
        }
    }

    /// Whether the stream is being captured.
    pub(crate) fn is_captured(&self) -> bool {
        lock(&self.capture).is_some()
    }

    /// Fails while the stream is being captured.
    pub(crate) fn require_free(&self) -> Outcome {
        if self.is_captured() { fail(RT_CAPTURED, "the stream is being captured") } else { Ok(()) }
    }

    fn work(&self) {
        let mut queue = lock(&self.queue);
        loop {
            let may_run = !self.lazy || queue.done < queue.wanted;
            if let Some(job) = may_run.then(|| queue.jobs.pop_front()).flatten() {
                let skip = queue.failure.is_some();
                drop(queue);
                let outcome = if skip { Ok(()) } else { run(job) };
                queue = lock(&self.queue);
                queue.done += 1;
                if let Err(failure) = outcome {
                    queue.failure.get_or_insert(failure);
                }
                self.changed.notify_all();
            } else if queue.stop {
                return;
            } else {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Appends a job and returns its number.
    pub(crate) fn submit(&self, job: Job) -> u64 {
        let mut queue = lock(&self.queue);
        queue.pushed += 1;
        queue.jobs.push_back(job);
        self.changed.notify_all();
        queue.pushed
    }

    /// Lets a lazy worker run up to job number `upto`, because someone waits for it.
    pub(crate) fn demand(&self, upto: u64) {
        let mut queue = lock(&self.queue);
        if queue.wanted < upto {
            queue.wanted = upto;
            self.changed.notify_all();
        }
    }

    /// Appends an entry that the host issued at `host_ns` to the timeline.
    pub(crate) fn enter(&self, host_ns: u64, entry: Entry) {
        lock(&self.timeline).push(host_ns, entry, &self.cores_free_ns);
    }

    /// Makes the stream fail from now on, unless it has failed already.
    pub(crate) fn break_down(&self, code: i32, message: impl Into<String>) {
        lock(&self.queue).failure.get_or_insert(Failure { code, message: message.into() });
    }

    /// Waits until all queued jobs are done and dated. Returns the virtual time at which the stream ends.
    pub(crate) fn drain(&self, limit: Option<Duration>) -> Outcome<u64> {
        let upto = lock(&self.queue).pushed;
        self.finish(upto, limit)?;
        // A failed stream has no end to wait for: other ranks may be waiting for it.
        if let Some(failure) = &lock(&self.queue).failure {
            return Err(failure.clone());
        }
        let now = self.settle(limit)?;
        match &lock(&self.queue).failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(now),
        }
    }

    /// Waits until job number `upto` is done.
    pub(crate) fn finish(&self, upto: u64, limit: Option<Duration>) -> Outcome {
        let begin = Instant::now();
        self.demand(upto);
        let mut queue = lock(&self.queue);
        while queue.done < upto && !queue.stop && lock(&self.worker).is_some() {
            queue = match limit {
                None => self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(limit) => {
                    let Some(left) = limit.checked_sub(begin.elapsed()) else {
                        return fail(RT_SYNC_TIMEOUT, format!("the stream is not done after {limit:?}"));
                    };
                    self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        Ok(())
    }

    /// Whether job number `upto` is done.
    pub(crate) fn is_done(&self, upto: u64) -> bool {
        let queue = lock(&self.queue);
        queue.done >= upto || (queue.failure.is_some() && queue.jobs.is_empty())
    }

    /// Waits until all entries are dated. Other ranks and streams may have to come first.
    pub(crate) fn settle(&self, limit: Option<Duration>) -> Outcome<u64> {
        let begin = Instant::now();
        loop {
            let mut timeline = lock(&self.timeline);
            let blocked = timeline.advance(&self.cores_free_ns);
            let (broken, now_ns) = (timeline.broken.take(), timeline.now_ns());
            drop(timeline);
            if let Some(problem) = broken {
                self.break_down(RT_AICORE_TIMEOUT, format!("HCCL: {problem}"));
            }
            let Some(blocked) = blocked else { return Ok(now_ns) };
            let step = Duration::from_millis(20);
            match blocked {
                Blocked::Group(group, index) => {
                    group.wait(index, step);
                    if begin.elapsed() >= self.hccl_timeout {
                        group.break_down("a rank did not join the collective in time");
                        self.break_down(
                            RT_AICORE_TIMEOUT,
                            "HCCL: a rank did not join the collective in time",
                        );
                    }
                }
                Blocked::Stream(other) => {
                    if let Some(Blocked::Group(group, index)) = other.advance() {
                        group.wait(index, step);
                    }
                    if begin.elapsed() >= self.hccl_timeout {
                        return fail(RT_AICORE_TIMEOUT, "the stream waits for an event that never comes");
                    }
                }
            }
            if limit.is_some_and(|limit| begin.elapsed() >= limit) {
                return fail(RT_SYNC_TIMEOUT, "the stream is not done in time");
            }
        }
    }

    fn advance(&self) -> Option<Blocked> {
        lock(&self.timeline).advance(&self.cores_free_ns)
    }

    /// Runs the queued jobs and ends the worker.
    pub(crate) fn stop(&self) {
        {
            let mut queue = lock(&self.queue);
            queue.stop = true;
            queue.wanted = queue.pushed;
            self.changed.notify_all();
        }
        let worker = lock(&self.worker).take();
        if let Some(worker) = worker {
            let _ = worker.join();
        }
    }
}

/// Runs a job. A panic becomes an exception of the compute unit.
fn run(job: Job) -> Outcome {
    match catch_unwind(AssertUnwindSafe(job)) {
        Ok(outcome) => outcome,
        Err(_) => fail(RT_AICORE_EXCEPTION, "an operator failed inside the emulator"),
    }
}

/// Maximum number of streams on a device.
fn most_streams(soc: Soc) -> usize {
    match soc {
        Soc::Ascend310P3 => 1024,
        Soc::Ascend910B3 | Soc::Ascend910B4 => 1984,
    }
}

/// Creates a stream on the thread's current device.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtCreateStream(stream: *mut RawStream) -> i32 {
    // SAFETY: the caller's pointer.
    unsafe { create("aclrtCreateStream", stream, 0) }
}

/// Creates a stream with a priority, which is ignored, and flags: 1 launches fast, 2 waits fast. Neither changes the
/// times here.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtCreateStreamWithConfig(
    stream: *mut RawStream,
    _priority: u32,
    flag: u32,
) -> i32 {
    // SAFETY: the caller's pointer.
    unsafe { create("aclrtCreateStreamWithConfig", stream, flag) }
}

/// # Safety
/// The pointer is null or a place for a handle.
unsafe fn create(api: &str, stream: *mut RawStream, flag: u32) -> i32 {
    entry(api, || {
        if flag > 3 {
            return fail(INVALID_PARAM, format!("flag is {flag}, expected 0 to 3"));
        }
        if stream.is_null() {
            return fail(INVALID_PARAM, "stream is null");
        }
        with_device(|device| {
            device.check_alive()?;
            let mut streams = lock(&device.streams);
            let most = most_streams(device.config.soc);
            if streams.len() >= most {
                return fail(RT_NO_STREAM, format!("all {most} streams of device {} are taken", device.id));
            }
            let new = Stream::start(device);
            streams.push(Arc::clone(&new));
            let handle = pool::create::<StreamHandle>(|handle| handle.0 = Some(new));
            // SAFETY: not null; the caller's pointer.
            unsafe { stream.write(handle) };
            Ok(())
        })
    })
}

/// Destroys a stream after its queued work.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtDestroyStream(stream: RawStream) -> i32 {
    entry("aclrtDestroyStream", || {
        // SAFETY: the caller's pointer is a stream handle.
        let slot = match unsafe { pool::get(stream) } {
            Ok(slot) => slot,
            Err(dead) => return fail(RT_PARAM_INVALID, format!("stream {}", dead.words())),
        };
        let own = slot.value().0.clone();
        own.as_ref().map_or(Ok(()), |stream| stream.require_free())?;
        slot.destroy();
        let Some(own) = own else { return Ok(()) };
        own.stop();
        if let Some(machine) = crate::registry::existing()
            && let Some(device) = machine.devices.get(own.device as usize)
        {
            lock(&device.streams).retain(|other| !Arc::ptr_eq(other, &own));
        }
        Ok(())
    })
}

fn synchronize(api: &str, stream: RawStream, limit: Option<Duration>) -> i32 {
    entry(api, || {
        with_device(|device| {
            device.check_alive()?;
            // SAFETY: the caller's pointer is a stream handle or null.
            let stream = unsafe { Stream::of(stream, device)? };
            stream.require_free()?;
            let end_ns = stream.drain(limit)?;
            device.check_alive()?;
            device.spend_host(device.config.profile.host_call_ns);
            device.host_until(end_ns);
            Ok(())
        })
    })
}

/// Waits for a stream.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtSynchronizeStream(stream: RawStream) -> i32 {
    synchronize("aclrtSynchronizeStream", stream, None)
}

/// Waits for a stream for at most `timeout_ms` of real time (-1: no limit).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtSynchronizeStreamWithTimeout(stream: RawStream, timeout_ms: i32) -> i32 {
    let limit = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
    synchronize("aclrtSynchronizeStreamWithTimeout", stream, limit)
}

/// Waits for all streams of the current device.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn aclrtSynchronizeDevice() -> i32 {
    entry("aclrtSynchronizeDevice", || {
        with_device(|device| {
            device.check_alive()?;
            let streams: Vec<_> = lock(&device.streams).clone();
            streams.iter().try_for_each(|stream| stream.require_free())?;
            for stream in streams.iter().chain([device.default_stream()]) {
                device.host_until(stream.drain(None)?);
            }
            device.spend_host(device.config.profile.host_call_ns);
            device.check_alive()
        })
    })
}

/// A C pointer passed to a worker.
#[derive(Clone, Copy)]
pub(crate) struct Address(pub *mut c_void);

// SAFETY: an address; whoever uses it says why it is valid there.
unsafe impl Send for Address {}

impl Address {
    /// The address as a byte pointer.
    pub(crate) fn bytes(self) -> *mut u8 {
        self.0.cast()
    }
}
