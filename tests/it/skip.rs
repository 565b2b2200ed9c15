//! Says which tests are skipped and why, and how many were when the test binary ends.
//!
//! libtest has no hook at its end, and statics are not dropped. A child process therefore counts: it reads a line for each
//! skip from a pipe, which closes when the test binary ends.

use std::io::Write;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};

/// Counts lines until the pipe closes.
const COUNT: &str =
    "n=0; while read -r line; do n=$((n + 1)); done; echo \"skipped tests or parts of tests: $n\" >&2";

/// Says that a test, or a part of one, is skipped. It writes to the stream itself, because libtest hides what a passing test
/// prints.
pub(crate) fn skipped(why: &str) {
    static COUNTER: LazyLock<Mutex<Option<ChildStdin>>> = LazyLock::new(|| Mutex::new(counter()));
    // Without standard error there is nobody to tell. Without `sh` there is no count, as on Windows.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
    if let Some(counter) = COUNTER.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        let _ = writeln!(counter);
    }
}

/// Starts the child and returns its end of the pipe. Nobody waits for the child, because it ends after this process.
fn counter() -> Option<ChildStdin> {
    let mut child = Command::new("sh");
    child.args(["-c", COUNT]).stdin(Stdio::piped()).stdout(Stdio::null());
    child.spawn().ok()?.stdin
}
