//! Graphs: operators captured from a stream, replayed together by one call.
//!
//! Nothing runs between the begin and the end of a capture. Only operators can be captured here. A real runtime also
//! captures copies, events and collectives.

use std::sync::atomic::Ordering;

use crate::executor::Captured;
use crate::pool::{self, Slot, pooled};
use crate::registry::{existing, with_device};
use crate::status::{
    INVALID_PARAM, Outcome, RT_CAPTURED, RT_NO_STREAM, RT_NOT_CAPTURED, RT_PARAM_INVALID, RT_UNSUPPORTED,
    entry, fail,
};
use crate::stream::{RawStream, Stream};

/// Contents of a graph handle.
#[derive(Default)]
pub(crate) struct Graph {
    device: i32,
    operators: Vec<Captured>,
}

pooled!(Graph, b"grph", "graph", |graph| graph.operators.clear());

/// The C handle of a graph.
pub(crate) type RawGraph = *mut Slot<Graph>;

/// # Safety
/// As [`pool::get`].
unsafe fn graph_of<'a>(graph: RawGraph) -> Outcome<&'a Slot<Graph>> {
    // SAFETY: the caller's promise.
    match unsafe { pool::get(graph) } {
        Ok(slot) => Ok(slot),
        Err(dead) => fail(RT_PARAM_INVALID, format!("modelRI {}", dead.words())),
    }
}

/// Begins a capture of the stream. `mode` 0 forbids unsafe functions to all threads, 1 to this thread, 2 to none.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclmdlRICaptureBegin(stream: RawStream, mode: i32) -> i32 {
    entry("aclmdlRICaptureBegin", || {
        if !(0..=2).contains(&mode) {
            return fail(INVALID_PARAM, format!("mode is {mode}, expected 0 to 2"));
        }
        if stream.is_null() {
            return fail(INVALID_PARAM, "stream is null: the default stream cannot be captured");
        }
        with_device(|device| {
            device.check_alive()?;
            if device.config.faults.is_refused("aclmdlRICaptureBegin") {
                return fail(
                    RT_UNSUPPORTED,
                    format!("no capture on {} (injected fault)", device.config.soc.name()),
                );
            }
            let most = device.config.graphs;
            if device.graphs.load(Ordering::Relaxed) >= most {
                return fail(RT_NO_STREAM, format!("all {most} graphs of device {} are taken", device.id));
            }
            // SAFETY: the caller's pointer is a stream handle.
            let stream = unsafe { Stream::of(stream, device)? };
            device.spend_host(device.config.profile.host_call_ns);
            if stream.begin_capture(mode) {
                Ok(())
            } else {
                fail(RT_CAPTURED, "the stream is captured already")
            }
        })
    })
}

/// Ends a capture. The caller owns the graph.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclmdlRICaptureEnd(stream: RawStream, graph: *mut RawGraph) -> i32 {
    entry("aclmdlRICaptureEnd", || {
        if graph.is_null() {
            return fail(INVALID_PARAM, "modelRI is null");
        }
        with_device(|device| {
            // SAFETY: the caller's pointer is a stream handle.
            let Some(operators) = unsafe { Stream::of(stream, device)? }.end_capture() else {
                return fail(RT_NOT_CAPTURED, "the stream is not captured");
            };
            device.spend_host(device.config.profile.host_call_ns);
            device.graphs.fetch_add(1, Ordering::Relaxed);
            let handle =
                pool::create::<Graph>(|graph| (graph.device, graph.operators) = (device.id, operators));
            // SAFETY: not null; the caller's pointer.
            unsafe { graph.write(handle) };
            Ok(())
        })
    })
}

/// Appends a graph to the stream. The host spends one launch.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclmdlRIExecuteAsync(graph: RawGraph, stream: RawStream) -> i32 {
    entry("aclmdlRIExecuteAsync", || {
        with_device(|device| {
            device.check_alive()?;
            // SAFETY: the caller's pointers are handles.
            let (slot, stream) = unsafe { (graph_of(graph)?, Stream::of(stream, device)?) };
            let graph = slot.value();
            if graph.device != device.id {
                return fail(RT_PARAM_INVALID, format!("the graph belongs to device {}", graph.device));
            }
            stream.require_free()?;
            let host_ns = device.spend_host(device.config.profile.host_launch_ns);
            graph.operators.iter().try_for_each(|operator| operator.run(device, &stream, host_ns))
        })
    })
}

/// Destroys a graph. Work that it queued still runs.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclmdlRIDestroy(graph: RawGraph) -> i32 {
    entry("aclmdlRIDestroy", || {
        // SAFETY: the caller's pointer is a graph handle.
        let slot = unsafe { graph_of(graph)? };
        let id = slot.value().device;
        if let Some(device) = existing().and_then(|machine| machine.devices.get(id as usize).cloned()) {
            device.graphs.fetch_sub(1, Ordering::Relaxed);
        }
        slot.destroy();
        Ok(())
    })
}
