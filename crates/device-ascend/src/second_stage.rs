//! The second stage of an operator, with its arguments.

use std::ffi::c_void;

use ascend_sys::{aclOpExecutor, aclrtStream};

use glmbench_device::DeviceError;

use super::context::Context;

/// The second stage of every operator.
pub(super) type SecondStage = unsafe extern "C" fn(*mut c_void, u64, *mut aclOpExecutor, aclrtStream) -> i32;

/// An operator on given operands: the call site, and up to four numbers that determine the rest (buffer ids, rows).
pub(super) type Key = (&'static str, [u64; 4]);

/// A second stage with its arguments.
#[derive(Clone, Copy)]
pub(super) struct Launch {
    /// The operator and its operands.
    pub(super) key: Key,
    /// The name of the operator.
    pub(super) name: &'static str,
    /// The second stage.
    pub(super) run: SecondStage,
    /// The executor. If the launch waits, the executor is repeatable and outlives the launch.
    pub(super) executor: *mut aclOpExecutor,
    /// Device memory requested by the first stage.
    pub(super) workspace: *mut c_void,
    /// Length of the workspace in bytes.
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
