//! A record of first stages: which arguments the libraries accept, and with which code they refuse.
//!
//! It is off unless a self-test turns it on. Then every descriptor's text is kept by its address, so that a call can name
//! its arguments. Equal calls of one phase count as one.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{CStr, c_char};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use ascend_sys::{aclIntArray, aclScalar, aclTensor, aclTensorList};

use glmbench_device::DeviceError;

/// Maximum number of recorded calls; later ones are dropped.
const MAX_CALLS: usize = 4096;
/// Maximum number of numbers of an integer array in a text.
const MAX_NUMBERS: usize = 16;

/// Maximum number of failed calls that are kept.
const MAX_FAILED: usize = 64;

/// The phase of calls before a device is there.
pub(super) const START: &str = "start";

/// The calls of any library function that failed, the last one at the end. A start that fails leaves no device behind to ask, so
/// they are kept for the whole process.
static FAILED: Mutex<VecDeque<Call>> = Mutex::new(VecDeque::new());

fn failed() -> std::sync::MutexGuard<'static, VecDeque<Call>> {
    FAILED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the calls of library functions that failed in this process, the last one at the end. Some failures are expected: a
/// function may be tried before its older form. Arguments are known of the calls that set up a device.
pub fn take_failed_calls() -> Vec<Call> {
    std::mem::take(&mut *failed()).into()
}

/// Keeps a failed call; `code` is `None` if no library has the function.
pub(super) fn note_failed(function: &str, code: Option<i32>, message: &str) {
    let mut failed = failed();
    if failed.len() == MAX_FAILED {
        failed.pop_front();
    }
    failed.push_back(Call {
        phase: START.to_owned(),
        operator: function.to_owned(),
        arguments: Vec::new(),
        code,
        message: message.to_owned(),
    });
}

/// Adds the arguments of the last failed call, if it was of this function.
pub(super) fn argue(function: &str, arguments: &[&dyn std::fmt::Display]) {
    if let Some(last) = failed().back_mut().filter(|last| last.operator == function) {
        last.arguments = arguments.iter().map(ToString::to_string).collect();
    }
}

/// A call of the first stage of an operator.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Call {
    /// What the program did: a row of the self-test, or the survey of alternatives.
    pub phase: String,
    /// The operator, with its `aclnn`.
    pub operator: String,
    /// The arguments in order: tensors by type, shape, strides and format, lists and numbers by value.
    pub arguments: Vec<String>,
    /// The status: 0 if the call was accepted. `None` if no library has the function, or the device is lost.
    pub code: Option<i32>,
    /// The message of a refusal.
    pub message: String,
}

/// The recorder.
#[derive(Default)]
pub(super) struct Trace {
    on: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    phase: String,
    handles: HashMap<usize, String>,
    calls: Vec<Call>,
    seen: HashSet<Call>,
}

impl Trace {
    /// Begins a phase, and turns the recorder on.
    pub(super) fn begin(&self, phase: &str) {
        self.on.store(true, Ordering::Relaxed);
        phase.clone_into(&mut self.state().phase);
    }

    /// Turns the recorder off and returns what it has.
    pub(super) fn take(&self) -> Vec<Call> {
        self.on.store(false, Ordering::Relaxed);
        std::mem::take(&mut *self.state()).calls
    }

    /// Stops recording, and returns whether the recorder was on.
    pub(super) fn pause(&self) -> bool {
        self.on.swap(false, Ordering::Relaxed)
    }

    /// Goes on recording, if the recorder was on.
    pub(super) fn resume(&self, was_on: bool) {
        self.on.store(was_on, Ordering::Relaxed);
    }

    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Remembers the text of a descriptor.
    pub(super) fn describe<T>(&self, handle: *const T, text: impl FnOnce() -> String) {
        if self.is_on() {
            let text = text();
            self.state().handles.insert(handle as usize, text);
        }
    }

    /// Records a call.
    pub(super) fn call(&self, operator: &str, arguments: Vec<String>, outcome: Result<(), &DeviceError>) {
        let (code, message) = match outcome {
            Ok(()) => (Some(0), String::new()),
            Err(DeviceError::Failed { code, message, .. }) => (Some(*code), message.clone()),
            Err(other) => (None, other.to_string()),
        };
        let mut state = self.state();
        let phase = state.phase.clone();
        let call = Call { phase, operator: operator.to_owned(), arguments, code, message };
        if state.calls.len() < MAX_CALLS && state.seen.insert(call.clone()) {
            state.calls.push(call);
        }
    }

    fn text(&self, address: usize) -> String {
        if address == 0 {
            return "null".to_owned();
        }
        self.state().handles.get(&address).cloned().unwrap_or_else(|| "made before".to_owned())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the text of an integer array.
pub(super) fn numbers(values: &[i64]) -> String {
    let shown: Vec<String> = values.iter().take(MAX_NUMBERS).map(ToString::to_string).collect();
    let more = values.len().saturating_sub(MAX_NUMBERS);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    format!("integers ({}{more})", shown.join(", "))
}

/// An argument of a first stage.
pub(super) trait Argument {
    /// Returns its text.
    fn text(&self, trace: &Trace) -> String;
}

macro_rules! handles {
    ($($kind:ty),*) => {$(
        impl Argument for *mut $kind {
            fn text(&self, trace: &Trace) -> String {
                trace.text(*self as usize)
            }
        }

        impl Argument for *const $kind {
            fn text(&self, trace: &Trace) -> String {
                trace.text(*self as usize)
            }
        }
    )*};
}
handles!(aclTensor, aclScalar, aclIntArray, aclTensorList);

macro_rules! plain {
    ($($kind:ty),*) => {$(
        impl Argument for $kind {
            fn text(&self, _: &Trace) -> String {
                self.to_string()
            }
        }
    )*};
}
plain!(i8, i32, i64, f64, bool);

impl Argument for *mut c_char {
    fn text(&self, _: &Trace) -> String {
        if self.is_null() {
            return "null".to_owned();
        }
        // SAFETY: a layout's name, a constant of this crate.
        format!("\"{}\"", unsafe { CStr::from_ptr(*self) }.to_string_lossy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_calls_of_a_phase_count_once_and_arguments_have_their_texts() {
        let trace = Trace::default();
        let handle = 64 as *mut aclTensor;
        trace.describe(handle, || unreachable!("the recorder is off"));
        trace.begin("a");
        trace.describe(handle, || "fp16 [2, 3]".to_owned());
        let arguments =
            || vec![handle.text(&trace), std::ptr::null::<aclScalar>().text(&trace), 1.5.text(&trace)];
        let refused = DeviceError::Failed {
            device: "x",
            api: "aclnnA".into(),
            code: 161_002,
            name: "n".into(),
            message: "no".into(),
        };
        for _ in 0..2 {
            trace.call("aclnnA", arguments(), Ok(()));
            trace.call("aclnnA", arguments(), Err(&refused));
        }
        trace.begin("b");
        trace.call("aclnnA", arguments(), Ok(()));
        let calls = trace.take();
        let found: Vec<_> = calls.iter().map(|call| (call.phase.as_str(), call.code)).collect();
        assert_eq!(found, [("a", Some(0)), ("a", Some(161_002)), ("b", Some(0))]);
        assert_eq!(calls[0].arguments, ["fp16 [2, 3]", "null", "1.5"]);
        assert!(!trace.is_on() && trace.take().is_empty());
        assert_eq!(numbers(&[7; 20]).matches('7').count(), MAX_NUMBERS);
    }
}
