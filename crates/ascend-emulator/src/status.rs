//! Status codes, and the message for the last failure of a thread.

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A parameter is invalid (acl layer).
pub(crate) const INVALID_PARAM: i32 = 100_000;
/// aclInit was not called.
pub(crate) const UNINITIALIZED: i32 = 100_001;
/// aclInit was already called.
pub(crate) const REPEAT_INITIALIZE: i32 = 100_002;
/// A parameter is invalid (runtime layer).
pub(crate) const RT_PARAM_INVALID: i32 = 107_000;
/// The device id does not exist.
pub(crate) const RT_INVALID_DEVICE: i32 = 107_001;
/// No device was set on this thread.
pub(crate) const RT_CONTEXT_NULL: i32 = 107_002;
/// The stream belongs to another device than the thread's.
pub(crate) const RT_STREAM_CONTEXT: i32 = 107_003;
/// The event has no time stamp.
pub(crate) const RT_EVENT_TIMESTAMP: i32 = 107_006;
/// The end event is before the start event.
pub(crate) const RT_EVENT_REVERSAL: i32 = 107_007;
/// The stream is being captured: `ACL_ERROR_RT_STREAM_CAPTURED`.
pub(crate) const RT_CAPTURED: i32 = 107_027;
/// The stream is not being captured.
pub(crate) const RT_NOT_CAPTURED: i32 = 107_029;
/// The mode of a capture forbids the call.
pub(crate) const RT_CAPTURE_MODE: i32 = 107_030;
/// A synchronise reached its time limit.
pub(crate) const RT_SYNC_TIMEOUT: i32 = 507_046;
/// The feature is not supported.
pub(crate) const RT_UNSUPPORTED: i32 = 207_000;
/// Memory allocation failed.
pub(crate) const RT_MEMORY_ALLOCATION: i32 = 207_001;
/// No event is left on the device.
pub(crate) const RT_NO_EVENT: i32 = 207_007;
/// No stream is left on the device.
pub(crate) const RT_NO_STREAM: i32 = 207_008;
/// The device's memory is exhausted.
pub(crate) const RT_DEVICE_OOM: i32 = 207_018;
/// Internal error: a bug in the emulator.
pub(crate) const RT_INTERNAL: i32 = 507_000;
/// The device is lost.
pub(crate) const RT_LOST_HEARTBEAT: i32 = 507_010;
/// An operator ran too long.
pub(crate) const RT_AICORE_TIMEOUT: i32 = 507_014;
/// An operator accessed invalid memory, or failed while running.
pub(crate) const RT_AICORE_EXCEPTION: i32 = 507_015;
/// A pointer argument of an operator is null.
pub(crate) const NN_PARAM_NULLPTR: i32 = 161_001;
/// An argument of an operator is invalid.
pub(crate) const NN_PARAM_INVALID: i32 = 161_002;
/// A runtime call inside an operator failed.
pub(crate) const NN_RUNTIME: i32 = 361_001;
/// No device is available.
pub(crate) const RT_NO_DEVICE: i32 = 207_004;
/// The operator library failed inside: `ACLNN_ERR_INNER`.
pub(crate) const NN_INNER: i32 = 561_000;
/// The operator's tiling rejects the shapes.
pub(crate) const NN_TILING: i32 = 561_002;
/// The chip has no kernel for the operator.
pub(crate) const NN_FIND_KERNEL: i32 = 561_003;
/// The executor is null or was consumed.
pub(crate) const NN_EXECUTOR: i32 = 561_103;

/// Why a call failed: the code it returns, and the message for [`aclGetRecentErrMsg`].
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// The documented code.
    pub code: i32,
    /// The argument, the value found, and the value expected.
    pub message: String,
}

/// The result of a call.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Returns a failed outcome.
pub(crate) fn fail<T>(code: i32, message: impl Into<String>) -> Outcome<T> {
    Err(Failure { code, message: message.into() })
}

#[derive(Default)]
struct Recent {
    unread: Option<CString>,
    handed_out: Option<CString>,
}

thread_local! {
    static RECENT: RefCell<Recent> = RefCell::default();
}

/// Stores a message for [`aclGetRecentErrMsg`].
pub(crate) fn remember(message: &str) {
    let text = CString::new(message.replace('\0', " ")).unwrap_or_default();
    let _ = RECENT.try_with(|recent| recent.borrow_mut().unread = Some(text));
}

/// Runs the body of an exported function. A failure becomes its code and the recent message. A panic never crosses the
/// ABI.
pub(crate) fn entry(api: &str, body: impl FnOnce() -> Outcome) -> i32 {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(failure)) => {
            remember(&format!("{api}: {}", failure.message));
            failure.code
        }
        Err(_) => {
            remember(&format!("{api}: the emulator failed internally"));
            RT_INTERNAL
        }
    }
}

/// Returns the message of the last failure on this thread once, or null. Valid until the next call.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn aclGetRecentErrMsg() -> *const c_char {
    RECENT
        .try_with(|recent| {
            let mut recent = recent.borrow_mut();
            recent.handed_out = recent.unread.take();
            recent.handed_out.as_ref().map_or(std::ptr::null(), |text| text.as_ptr())
        })
        .unwrap_or(std::ptr::null())
}
