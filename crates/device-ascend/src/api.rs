//! The libraries as the rest of the room calls them: every status checked, a lost device remembered.

use std::ffi::CStr;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use ascend_sys::{Libraries, call};

use glmbench_device::DeviceError;

use super::error::{Meaning, failed, meaning, name, unavailable};

/// Libraries of one process (or of one emulated machine), shared by its ranks.
pub(super) struct Api {
    /// The functions.
    pub(super) libraries: Libraries,
    /// The word of the command line.
    pub(super) device: &'static str,
    /// Why nothing more can be had; set once, by whichever rank sees it first.
    lost: Mutex<Option<String>>,
    /// Calls `aclFinalize` at the end.
    finalize: bool,
}

/// Calls a function of a family, checks its status, and gives `Result<(), DeviceError>`. Must stand in an `unsafe` block.
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
        let mut api = Self { libraries, device, lost: Mutex::new(None), finalize: false };
        // SAFETY: a null configuration path is documented as "defaults".
        match unsafe { acl!(&api, api.libraries.rt, aclInit(ptr::null())) } {
            Ok(()) => api.finalize = finalize,
            // Somebody in this process did it before: no harm, and not ours to undo.
            Err(DeviceError::Failed { code: 100_002, .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(Arc::new(api))
    }

    /// Fails at once where the device is lost.
    pub(super) fn ready(&self) -> Result<(), DeviceError> {
        match &*self.lost.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(message) => Err(DeviceError::Lost { device: self.device, message: message.clone() }),
            None => Ok(()),
        }
    }

    /// Whether the device is lost.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Gives up: every later call fails.
    pub(super) fn call_off(&self, why: &str) {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| why.to_owned());
    }

    /// A status as a result; a loss is remembered.
    pub(super) fn check(&self, function: &str, code: i32) -> Result<(), DeviceError> {
        if code == 0 { Ok(()) } else { Err(self.error(function, code)) }
    }

    fn error(&self, function: &str, code: i32) -> DeviceError {
        let message = self.recent_message();
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

    /// What the library says about the last failure on this thread.
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

    /// A function that no library has.
    pub(super) fn missing(&self, function: &str) -> DeviceError {
        let files: Vec<String> =
            self.libraries.found.iter().map(|found| found.path.display().to_string()).collect();
        let left_out: String =
            self.libraries.skipped.iter().map(|why| format!("; not opened: {why}")).collect();
        DeviceError::Unsupported {
            device: self.device,
            problem: format!("the function {function} is in none of {}{left_out}", files.join(", ")),
        }
    }

    /// The chip, e.g. `Ascend310P3`.
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

    /// The runtime's version, where it tells.
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
