//! SIGINT, SIGTERM and SIGHUP: how a command ends when it is asked to.
//!
//! The handler stands before anything else is done. At first it ends the program by itself, since nothing that a command does
//! before its first record, and nothing that it does beside records, is worth waiting for. A command that has something to
//! finish takes the matter over for a while by a [`Watch`]: it is told by a flag, and stops between two steps or when a file is
//! whole. A second signal ends the program at once. A command that was stopped ends with exit code 3.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Exit, say};

/// A signal came.
static ASKED: AtomicBool = AtomicBool::new(false);
/// Watches there are: while there is one, the first signal only sets the flag.
static WATCHES: AtomicUsize = AtomicUsize::new(0);

/// Longest wait for the last words where nobody takes them (a pager that stands still).
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Handles the signals from here on, but those that whoever started the program wants ignored, as `nohup` does with SIGHUP.
///
/// # Errors
/// The system refuses the handlers or the thread behind them.
#[cfg(unix)]
pub(super) fn install() -> std::io::Result<()> {
    use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTERM};
    let ignored = ignored();
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| (ignored >> (signal - 1)) & 1 == 0);
    let mut signals = signal_hook::iterator::Signals::new(wanted)?;
    let handle = move || signals.forever().for_each(handle);
    std::thread::Builder::new().name("signals".into()).spawn(handle).map(drop)
}

/// Elsewhere the system's own way of ending a program stands.
#[cfg(not(unix))]
pub(super) fn install() -> std::io::Result<()> {
    Ok(())
}

/// The signals that are ignored, as a mask whose lowest bit is signal 1; none where the system does not tell.
#[cfg(unix)]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(unix)]
fn handle(signal: i32) {
    let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
    let again = ASKED.swap(true, Ordering::SeqCst);
    if !again && WATCHES.load(Ordering::SeqCst) > 0 {
        tell(format!("glmbench: {name}: stopping after this step (again to stop at once)"));
        return;
    }
    let told = tell(format!("glmbench: {name}: stopped"));
    let begin = Instant::now();
    while told.as_ref().is_some_and(|told| !told.is_finished()) && begin.elapsed() < LAST_WORDS {
        std::thread::sleep(Duration::from_millis(1));
    }
    end();
}

/// Says something on a thread of its own: standard error may be a pipe that is full.
#[cfg(unix)]
fn tell(words: String) -> Option<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().spawn(move || say(&words)).ok()
}

/// Ends the program without waiting for its threads: journals are whole at any moment, and nothing waits to be written.
#[cfg(unix)]
fn end() -> ! {
    signal_hook::low_level::exit(i32::from(Exit::Incomplete as u8))
}

/// Whether a signal came.
pub(super) fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// While it is there, the first signal sets a flag, and whoever has it stops at a good place.
pub(super) struct Watch(());

impl Watch {
    /// From here on.
    pub(super) fn new() -> Self {
        WATCHES.fetch_add(1, Ordering::SeqCst);
        Self(())
    }

    /// The flag.
    #[allow(clippy::unused_self)] // whoever looks at it must have taken the matter over
    pub(super) fn flag(&self) -> &'static AtomicBool {
        &ASKED
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHES.fetch_sub(1, Ordering::SeqCst);
    }
}
