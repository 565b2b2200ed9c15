//! The libraries as the rest of the crate calls them: every status is checked, and a lost device is remembered.

use std::ffi::CStr;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use ascend_sys::{Libraries, call};

use glmbench_device::DeviceError;

use super::error::{Meaning, failed, meaning, name, unavailable};
use super::ledger::Ledger;
use super::trace::{self, Trace};

/// The libraries of one process (or of one emulated machine), shared by its ranks.
pub(super) struct Api {
    /// The functions.
    pub(super) libraries: Libraries,
    /// Name of the device on the command line.
    pub(super) device: &'static str,
    /// Why the device is lost or the group was aborted. Set once, by the first rank that notices.
    lost: Mutex<Option<String>>,
    /// The record of first stages.
    pub(super) trace: Trace,
    /// Device memory that this process holds.
    pub(super) ledger: Ledger,
    /// True if `aclFinalize` is called at the end.
    finalize: bool,
}

/// Calls a function of a family, checks its status, and returns `Result<(), DeviceError>`. Must be in an `unsafe` block.
macro_rules! acl {
    ($api:expr, $family:expr, $function:ident ( $($argument:expr),* $(,)? )) => {{
        let api: &$crate::api::Api = $api;
        match api.ready() {
            Err(error) => Err(error),
            Ok(()) => match ascend_sys::call!($family, $function($($argument),*)) {
                Ok(code) => api.check(stringify!($function), code),
                Err(missing) => Err(api.missing(missing)),
            },
        }
    }};
}
pub(super) use acl;

impl Api {
    /// Initialises the libraries.
    pub(super) fn start(
        libraries: Libraries,
        device: &'static str,
        finalize: bool,
    ) -> Result<Arc<Self>, DeviceError> {
        let mut api = Self {
            libraries,
            device,
            lost: Mutex::new(None),
            trace: Trace::default(),
            ledger: Ledger::default(),
            finalize: false,
        };
        // SAFETY: a null configuration path is documented as "defaults".
        match unsafe { acl!(&api, api.libraries.rt, aclInit(ptr::null())) } {
            Ok(()) => api.finalize = finalize,
            // Other code in this process initialised AscendCL. That is fine, and not ours to undo.
            Err(DeviceError::Failed { code: 100_002, .. }) => {}
            Err(error) => {
                trace::argue("aclInit", &[&"null"]);
                return Err(error);
            }
        }
        Ok(Arc::new(api))
    }

    /// Fails at once if the device is lost.
    pub(super) fn ready(&self) -> Result<(), DeviceError> {
        match &*self.lost.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(message) => Err(DeviceError::Lost { device: self.device, message: message.clone() }),
            None => Ok(()),
        }
    }

    /// Returns whether the device is lost.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Aborts the group: every later call fails.
    pub(super) fn call_off(&self, why: &str) {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| why.to_owned());
    }

    /// Converts a status to a result, and remembers a loss.
    pub(super) fn check(&self, function: &str, code: i32) -> Result<(), DeviceError> {
        if code == 0 { Ok(()) } else { Err(self.error(function, code)) }
    }

    fn error(&self, function: &str, code: i32) -> DeviceError {
        let message = self.recent_message();
        trace::note_failed(function, Some(code), &message);
        match meaning(function, code) {
            Meaning::OutOfMemory => DeviceError::OutOfMemory {
                device: self.device,
                what: format!("{function} ({code}, {}: {message})", name(function, code)),
                wanted_bytes: 0,
            },
            Meaning::Failed => failed(self.device, function, code, message),
            Meaning::Unavailable => unavailable(self.device, function, code, &message),
            Meaning::Lost => {
                let message = format!("{function} failed with {code} ({}): {message}", name(function, code));
                let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
                let message = lost.get_or_insert(message).clone();
                DeviceError::Lost { device: self.device, message }
            }
        }
    }

    /// Returns the library's message about the last failure on this thread.
    fn recent_message(&self) -> String {
        // SAFETY: the function takes nothing.
        let text = unsafe { call!(self.libraries.rt, aclGetRecentErrMsg()) };
        match text {
            Ok(text) if !text.is_null() => {
                // SAFETY: documented to be a string that lives until the next call on this thread.
                unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned()
            }
            _ => "the library gives no message".into(),
        }
    }

    /// Returns the error of a function that no library has.
    pub(super) fn missing(&self, function: &str) -> DeviceError {
        let files: Vec<String> =
            self.libraries.found.iter().map(|found| found.path.display().to_string()).collect();
        let left_out: String =
            self.libraries.skipped.iter().map(|why| format!("; not opened: {why}")).collect();
        let problem = format!("the function {function} is in none of {}{left_out}", files.join(", "));
        trace::note_failed(function, None, &problem);
        DeviceError::Unsupported { device: self.device, problem }
    }

    /// Returns the name of the chip, e.g. `Ascend310P3`.
    pub(super) fn soc(&self) -> Result<String, DeviceError> {
        self.ready()?;
        // SAFETY: the function takes nothing.
        match unsafe { call!(self.libraries.rt, aclrtGetSocName()) } {
            Err(missing) => Err(self.missing(missing)),
            Ok(text) if text.is_null() => Ok("unknown".into()),
            // SAFETY: documented to be a string that lives as long as the library.
            Ok(text) => Ok(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()),
        }
    }

    /// Returns the version of the runtime, if it reports one.
    pub(super) fn version(&self) -> Option<String> {
        let (mut major, mut minor, mut patch) = (0, 0, 0);
        // SAFETY: three integers to write to.
        unsafe {
            acl!(self, self.libraries.rt, aclrtGetVersion(&raw mut major, &raw mut minor, &raw mut patch))
        }
        .ok()?;
        Some(format!("{major}.{minor}.{patch}"))
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        if self.finalize {
            // SAFETY: every context, stream and buffer holds this value, so nothing is left.
            let _ = unsafe { call!(self.libraries.rt, aclFinalize()) };
        }
    }
}
