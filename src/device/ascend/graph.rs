//! Launches that come again step after step in the same order, captured once and launched as one graph.
//!
//! A launch of a kept plan waits in its stream until something else is to be queued there: a copy, a collective, an operator that is
//! planned anew, a wait. What waited until then is a *segment*. The first time a segment comes its operators are launched one by one.
//! The second time they are captured (`aclmdlRICaptureBegin`, `aclmdlRICaptureEnd`), and from then on the graph is launched
//! (`aclmdlRIExecuteAsync`). Attention stays outside: its lengths are arguments on the host. So a step of decoding is a graph and an
//! attention operator for each layer, and `docs/ASCEND.md` says what that can gain.

use std::collections::{HashMap, HashSet};
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use ascend_sys::{ACL_MODEL_RI_CAPTURE_MODE_THREAD_LOCAL, aclOpExecutor, call};

use super::super::DeviceError;
use super::api::acl;
use super::launch::{Key, SecondStage};
use super::runtime::Context;

/// Most graphs that are held: a runtime takes at most 256 of one stream.
const MAX_GRAPHS: usize = 240;

/// A second stage, ready to be called.
#[derive(Clone, Copy)]
pub(super) struct Launch {
    /// Which operator on which operands.
    pub(super) key: Key,
    /// The operator.
    pub(super) name: &'static str,
    /// Its second stage.
    pub(super) run: SecondStage,
    /// A repeatable executor; it outlives the launch.
    pub(super) executor: *mut aclOpExecutor,
    /// Device memory that the first stage asked for.
    pub(super) workspace: *mut c_void,
    /// Its length.
    pub(super) bytes: u64,
}

impl Launch {
    /// Calls the second stage on a stream.
    pub(super) fn queue(&self, context: &Context, stream: *mut c_void) -> Result<(), DeviceError> {
        let api = &context.api;
        api.ready()?;
        // SAFETY: the executor is unused or repeatable, and the workspace is as long as the first stage asked for.
        api.check(self.name, unsafe { (self.run)(self.workspace, self.bytes, self.executor, stream) })
    }
}

/// A captured segment.
pub(super) struct Graph {
    context: Arc<Context>,
    handle: *mut c_void,
}

impl Graph {
    /// Captures launches on a stream that has nothing else to do on this thread. None of them runs.
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
        // The capture ends whatever came of it: the stream is of no use before.
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

/// Launches that wait, and the graphs of segments that came before.
#[derive(Default)]
pub(super) struct Segments {
    waiting: Vec<Launch>,
    seen: HashSet<Vec<Key>>,
    graphs: HashMap<Vec<Key>, Graph>,
}

impl Segments {
    /// Puts a launch behind those that wait.
    pub(super) fn push(&mut self, launch: Launch) {
        self.waiting.push(launch);
    }

    /// Forgets the launches that wait: nobody wants their results any longer.
    pub(super) fn discard(&mut self) {
        self.waiting.clear();
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether another graph cannot be held.
    pub(super) fn is_full(&self) -> bool {
        self.graphs.len() >= MAX_GRAPHS
    }

    /// Drops all graphs; queued work must have been waited for, and nothing waits.
    pub(super) fn forget(&mut self) {
        self.graphs.clear();
        self.seen.clear();
    }

    /// Queues what waits: by its graph, or one by one where the segment is new or a single launch.
    pub(super) fn queue(&mut self, context: &Arc<Context>, stream: *mut c_void) -> Result<(), DeviceError> {
        let waiting = std::mem::take(&mut self.waiting);
        let keys: Vec<Key> = waiting.iter().map(|launch| launch.key).collect();
        if let Some(graph) = self.graphs.get(&keys) {
            return graph.launch(stream);
        }
        if waiting.len() < 2 || self.seen.insert(keys.clone()) {
            return waiting.iter().try_for_each(|launch| launch.queue(context, stream));
        }
        let graph = Graph::capture(context, stream, &waiting)?;
        graph.launch(stream)?;
        self.graphs.insert(keys, graph);
        Ok(())
    }
}
