//! Events: recorded points of a stream.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::{Entry, Point};
use crate::pool::{self, Slot, pooled};
use crate::registry::{existing, with_device};
use crate::settings::Soc;
use crate::status::{
    INVALID_PARAM, Outcome, RT_EVENT_REVERSAL, RT_EVENT_TIMESTAMP, RT_NO_EVENT, RT_PARAM_INVALID,
    RT_STREAM_CONTEXT, entry, fail,
};
use crate::stream::{RawStream, Stream};

/// Contents of an event handle.
#[derive(Default)]
pub(crate) struct Event {
    device: i32,
    flags: u32,
    record: Option<Record>,
}

/// `ACL_EVENT_SYNC`: other streams may wait for the event.
const SYNC: u32 = 0x1;
/// `ACL_EVENT_CAPTURE_STREAM_PROGRESS`: the host may query the stream's progress.
const STREAM_PROGRESS: u32 = 0x2;
/// `ACL_EVENT_TIME_LINE`: the event has a time stamp.
const TIME_LINE: u32 = 0x8;

#[derive(Clone)]
struct Record {
    stream: Arc<Stream>,
    point: Arc<Point>,
    job: u64,
}

pooled!(Event, b"evnt", "event", |event| event.record = None);

/// The C handle of an event.
pub(crate) type RawEvent = *mut Slot<Event>;

/// Maximum number of events on a device.
fn most_events(soc: Soc) -> u32 {
    match soc {
        Soc::Ascend310P3 => 1023,
        Soc::Ascend910B3 | Soc::Ascend910B4 => 65_536,
    }
}

/// # Safety
/// As [`pool::get`].
unsafe fn get<'a>(event: RawEvent) -> Outcome<&'a Slot<Event>> {
    // SAFETY: the caller's promise.
    match unsafe { pool::get(event) } {
        Ok(slot) => Ok(slot),
        Err(dead) => fail(RT_PARAM_INVALID, format!("event {}", dead.words())),
    }
}

/// Creates an event that has every capability.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtCreateEvent(event: *mut RawEvent) -> i32 {
    // SAFETY: the caller's pointer.
    unsafe { create("aclrtCreateEvent", event, SYNC | STREAM_PROGRESS | TIME_LINE) }
}

/// Creates an event with the capabilities of `flag`. Only events with `ACL_EVENT_SYNC` count against the device's
/// limit.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtCreateEventWithFlag(event: *mut RawEvent, flag: u32) -> i32 {
    // SAFETY: the caller's pointer.
    unsafe { create("aclrtCreateEventWithFlag", event, flag) }
}

/// # Safety
/// `event` is null or a place for a handle.
unsafe fn create(api: &str, event: *mut RawEvent, flags: u32) -> i32 {
    entry(api, || {
        if event.is_null() {
            return fail(INVALID_PARAM, "event is null");
        }
        if flags == 0 || flags & !(SYNC | STREAM_PROGRESS | TIME_LINE) != 0 {
            return fail(
                INVALID_PARAM,
                format!("flag is {flags:#x}, expected a combination of 0x1, 0x2 and 0x8"),
            );
        }
        with_device(|device| {
            device.check_alive()?;
            let most = most_events(device.config.soc);
            if flags & SYNC != 0 && device.events.fetch_add(1, Ordering::AcqRel) >= most {
                device.events.fetch_sub(1, Ordering::AcqRel);
                return fail(RT_NO_EVENT, format!("all {most} events of device {} are taken", device.id));
            }
            let handle = pool::create::<Event>(|event| (event.device, event.flags) = (device.id, flags));
            // SAFETY: not null; the caller's pointer.
            unsafe { event.write(handle) };
            Ok(())
        })
    })
}

/// Destroys an event.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtDestroyEvent(event: RawEvent) -> i32 {
    entry("aclrtDestroyEvent", || {
        // SAFETY: the caller's pointer is an event handle.
        let slot = unsafe { get(event)? };
        let (id, counted) = (slot.value().device, slot.value().flags & SYNC != 0);
        if counted
            && let Some(device) = existing().and_then(|machine| machine.devices.get(id as usize).cloned())
        {
            device.events.fetch_sub(1, Ordering::AcqRel);
        }
        slot.destroy();
        Ok(())
    })
}

/// Records the current end of the stream.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtRecordEvent(event: RawEvent, stream: RawStream) -> i32 {
    entry("aclrtRecordEvent", || {
        with_device(|device| {
            device.check_alive()?;
            // SAFETY: the caller's pointer is an event handle.
            let slot = unsafe { get(event)? };
            if slot.value().device != device.id {
                return fail(
                    RT_STREAM_CONTEXT,
                    format!("the event belongs to device {}", slot.value().device),
                );
            }
            // SAFETY: the caller's pointer is a stream handle or null.
            let stream = unsafe { Stream::of(stream, device)? };
            stream.require_free()?;
            let point = Arc::new(Point::new());
            let job = if device.computes() { stream.submit(Box::new(|| Ok(()))) } else { 0 };
            let host_ns = device.spend_host(device.config.profile.host_call_ns);
            stream.enter(host_ns, Entry::Record(Arc::clone(&point)));
            // SAFETY: by the ABI's contract, one thread at a time uses an event.
            unsafe { slot.update(|event| event.record = Some(Record { stream, point, job })) };
            Ok(())
        })
    })
}

/// Waits until the recorded point is reached.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtSynchronizeEvent(event: RawEvent) -> i32 {
    // SAFETY: the caller's pointer is an event handle.
    unsafe { synchronize("aclrtSynchronizeEvent", event, None) }
}

/// Waits until the recorded point is reached, for at most `timeout_ms` of real time (-1: no limit).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtSynchronizeEventWithTimeout(event: RawEvent, timeout_ms: i32) -> i32 {
    let limit = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
    // SAFETY: the caller's pointer is an event handle.
    unsafe { synchronize("aclrtSynchronizeEventWithTimeout", event, limit) }
}

/// # Safety
/// The pointer is an event handle.
unsafe fn synchronize(api: &str, event: RawEvent, limit: Option<Duration>) -> i32 {
    entry(api, || {
        with_device(|device| {
            device.check_alive()?;
            // SAFETY: the caller's pointer is an event handle.
            let Some(record) = unsafe { get(event)? }.value().record.clone() else {
                return fail(RT_EVENT_TIMESTAMP, "the event was not recorded");
            };
            record.stream.finish(record.job, limit)?;
            if record.point.time_ns().is_none() {
                record.stream.settle(limit)?;
            }
            device.spend_host(device.config.profile.host_call_ns);
            if let Some(time_ns) = record.point.time_ns() {
                device.host_until(time_ns);
            }
            device.check_alive()
        })
    })
}

/// Makes a stream wait for the recorded point of another.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtStreamWaitEvent(stream: RawStream, event: RawEvent) -> i32 {
    entry("aclrtStreamWaitEvent", || {
        with_device(|device| {
            device.check_alive()?;
            // SAFETY: the caller's pointers are handles (the stream may be null).
            let (stream, slot) = unsafe { (Stream::of(stream, device)?, get(event)?) };
            stream.require_free()?;
            if slot.value().flags & SYNC == 0 {
                return fail(RT_PARAM_INVALID, "the event was created without ACL_EVENT_SYNC");
            }
            let Some(record) = slot.value().record.clone() else {
                return fail(RT_EVENT_TIMESTAMP, "the event was not recorded");
            };
            if device.computes() && !Arc::ptr_eq(&stream, &record.stream) {
                let (other, job) = (Arc::clone(&record.stream), record.job);
                stream.submit(Box::new(move || other.finish(job, None)));
            }
            let host_ns = device.spend_host(device.config.profile.host_call_ns);
            stream.enter(host_ns, Entry::Wait { point: record.point, stream: record.stream });
            Ok(())
        })
    })
}

/// Virtual milliseconds between two events of one stream. Both must have been reached and waited for.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtEventElapsedTime(ms: *mut f32, start: RawEvent, end: RawEvent) -> i32 {
    entry("aclrtEventElapsedTime", || {
        if ms.is_null() {
            return fail(INVALID_PARAM, "ms is null");
        }
        with_device(|device| {
            let mut moments = [0u64; 2];
            let mut streams = Vec::with_capacity(2);
            for (moment, (name, event)) in moments.iter_mut().zip([("start", start), ("end", end)]) {
                // SAFETY: the caller's pointer is an event handle.
                let event = unsafe { get(event)? }.value();
                if event.flags & TIME_LINE == 0 {
                    return fail(RT_PARAM_INVALID, format!("{name} was created without ACL_EVENT_TIME_LINE"));
                }
                let Some(record) = event.record.clone() else {
                    return fail(RT_EVENT_TIMESTAMP, format!("{name} was not recorded"));
                };
                let waited_for = |time: &u64| *time <= device.host_ns.load(Ordering::Relaxed);
                match record.point.time_ns().filter(waited_for) {
                    Some(time) if record.stream.is_done(record.job) => *moment = time,
                    _ => {
                        return fail(
                            RT_EVENT_TIMESTAMP,
                            format!("{name} was not reached: synchronise before asking"),
                        );
                    }
                }
                streams.push(record.stream);
            }
            if !Arc::ptr_eq(&streams[0], &streams[1]) {
                return fail(RT_PARAM_INVALID, "the events were recorded on different streams");
            }
            let Some(ns) = moments[1].checked_sub(moments[0]) else {
                return fail(RT_EVENT_REVERSAL, "end was recorded before start");
            };
            // SAFETY: not null; the caller's pointer.
            unsafe { ms.write((ns as f64 / 1e6) as f32) };
            Ok(())
        })
    })
}
