//! Launches that recur in the same order step after step, captured once and launched as one graph.
//!
//! A launch of a kept plan waits in its stream until other work is queued. Other work is a copy, a collective, a newly
//! planned operator, or a wait. The launches that waited until then are a *segment*. The first time, a segment's operators
//! are launched one
//! by one. The second time, they are captured (`aclmdlRICaptureBegin`, `aclmdlRICaptureEnd`). From then on, the graph is
//! launched (`aclmdlRIExecuteAsync`). Attention stays outside, because its lengths are arguments on the host. So on an
//! 800I A2, a decode step is one graph and one attention operator per layer. `docs/ASCEND.md` says what that can gain.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use ascend_sys::{ACL_MODEL_RI_CAPTURE_MODE_THREAD_LOCAL, call};

use glmbench_device::DeviceError;

use super::api::acl;
use super::context::Context;
use super::second_stage::{Key, Launch};

/// Maximum number of held graphs. A runtime supports at most 256 per stream.
const MAX_GRAPHS: usize = 240;

/// A captured segment.
pub(super) struct Graph {
    context: Arc<Context>,
    handle: *mut c_void,
}

impl Graph {
    /// Captures launches on a stream with no other work on this thread. None of the launches runs.
    pub(super) fn capture(
        context: &Arc<Context>,
        stream: *mut c_void,
        launches: &[Launch],
    ) -> Result<Self, DeviceError> {
        let api = &context.api;
        let mode = ACL_MODEL_RI_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: a live stream.
        unsafe { acl!(api, api.libraries.rt, aclmdlRICaptureBegin(stream, mode)) }?;
        let queued = launches.iter().try_for_each(|launch| launch.queue(context, stream));
        let mut handle = ptr::null_mut();
        // The capture ends even after a failure: until then the stream is unusable.
        // SAFETY: a live stream and a place for the handle.
        let ended = unsafe { acl!(api, api.libraries.rt, aclmdlRICaptureEnd(stream, &raw mut handle)) };
        let graph = ended.map(|()| Self { context: context.clone(), handle });
        queued.and(graph)
    }

    /// Queues the whole graph.
    pub(super) fn launch(&self, stream: *mut c_void) -> Result<(), DeviceError> {
        let api = &self.context.api;
        // SAFETY: both live; what the graph names is kept as long as its plans are.
        unsafe { acl!(api, api.libraries.rt, aclmdlRIExecuteAsync(self.handle, stream)) }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.context.is_abandoned() {
            return;
        }
        // SAFETY: captured by us, and this is the last use.
        let _ = unsafe { call!(self.context.api.libraries.rt, aclmdlRIDestroy(self.handle)) };
    }
}

/// The waiting launches, and the known segments.
#[derive(Default)]
pub(super) struct Segments {
    waiting: Vec<Launch>,
    known: HashMap<Vec<Key>, Known>,
    /// Graphs held.
    held: usize,
    /// Graphs dropped to make room.
    dropped: usize,
    /// Counter of segments, to order graphs by their last launch.
    time: u64,
    /// Why a segment could not be captured, the first time.
    refused: Option<String>,
}

/// State of a known segment.
enum Known {
    /// Came once.
    Seen,
    /// Captured, with the time of its last launch.
    Captured(Graph, u64),
    /// Cannot be captured.
    Single,
}

impl Segments {
    /// Appends a launch to the waiting ones.
    pub(super) fn push(&mut self, launch: Launch) {
        self.waiting.push(launch);
    }

    /// Discards the waiting launches, because nobody needs their results any longer.
    pub(super) fn discard(&mut self) {
        self.waiting.clear();
    }

    /// Returns whether no launch is waiting.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns whether the waiting segment is to be captured now and the limit of graphs is reached.
    pub(super) fn wants_room(&self) -> bool {
        let is_second = || matches!(self.known.get(&self.keys()), Some(Known::Seen));
        self.held >= MAX_GRAPHS && self.waiting.len() > 1 && is_second()
    }

    /// Drops the least recently launched half of the graphs. Queued graphs must have been waited for.
    pub(super) fn make_room(&mut self) {
        let mut times: Vec<u64> = self.known.values().filter_map(Known::last).collect();
        times.sort_unstable();
        let oldest = times.get(times.len() / 2).copied().unwrap_or(0);
        let before = self.known.len();
        self.known.retain(|_, known| known.last().is_none_or(|time| time >= oldest));
        let gone = before - self.known.len();
        (self.held, self.dropped) = (self.held - gone, self.dropped + gone);
    }

    /// Drops all graphs and known segments. Queued work must have been waited for.
    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.held = 0;
    }

    /// Returns the graphs held and dropped, and why a segment could not be captured. `None` before the first.
    pub(super) fn words(&self) -> Option<String> {
        let refused = self.refused.iter().map(|why| format!("; a segment could not be captured: {why}"));
        let words = format!("{} held, {} dropped{}", self.held, self.dropped, refused.collect::<String>());
        (self.held + self.dropped > 0 || self.refused.is_some()).then_some(words)
    }

    fn keys(&self) -> Vec<Key> {
        self.waiting.iter().map(|launch| launch.key).collect()
    }

    /// Queues the waiting segment: as a graph, or one by one if it is new, a single launch, or cannot be captured.
    pub(super) fn queue(&mut self, context: &Arc<Context>, stream: *mut c_void) -> Result<(), DeviceError> {
        let keys = self.keys();
        let waiting = std::mem::take(&mut self.waiting);
        self.time += 1;
        let single = || waiting.iter().try_for_each(|launch| launch.queue(context, stream));
        if waiting.len() < 2 {
            return single();
        }
        match self.known.get_mut(&keys) {
            None => {
                self.known.insert(keys, Known::Seen);
                single()
            }
            Some(Known::Single) => single(),
            Some(Known::Captured(graph, last)) => {
                *last = self.time;
                graph.launch(stream)
            }
            Some(known @ Known::Seen) => match Graph::capture(context, stream, &waiting) {
                Ok(graph) => {
                    let launched = graph.launch(stream);
                    *known = Known::Captured(graph, self.time);
                    self.held += 1;
                    launched
                }
                Err(error @ DeviceError::Lost { .. }) => Err(error),
                // No operator of a capture has run.
                Err(error) => {
                    *known = Known::Single;
                    self.refused.get_or_insert_with(|| error.to_string());
                    single()
                }
            },
        }
    }
}

impl Known {
    /// Returns when the graph was last launched.
    fn last(&self) -> Option<u64> {
        match self {
            Self::Captured(_, last) => Some(*last),
            Self::Seen | Self::Single => None,
        }
    }
}
