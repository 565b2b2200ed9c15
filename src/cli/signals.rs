//! SIGINT, SIGTERM and SIGHUP: how a command stops on request.
//!
//! The handler is installed before anything else. By default it ends the program: work before the first record, or
//! without records, is not worth finishing. A command with something to finish holds a [`Watch`] for a while. It then
//! only sees a flag, and stops between two steps or after a complete file. A second signal ends the program at once. A
//! stopped command ends with exit code 3.
//!
//! `signal-hook` receives the signals. `ctrlc` does not say which signal came, which the message names, and it replaces
//! handlers that the parent process set to ignored, as under `nohup`.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Exit, say};

/// Whether a signal has arrived.
static ASKED: AtomicBool = AtomicBool::new(false);
/// Number of live watches. While there is one, the first signal only sets the flag.
static WATCHES: AtomicUsize = AtomicUsize::new(0);

/// Maximum wait for the last message if its reader is stuck (a stopped pager).
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Installs the handlers. Signals that the parent process set to ignored stay ignored, as `nohup` does with SIGHUP.
///
/// # Errors
/// Fails if the system rejects the handlers or their thread.
#[cfg(unix)]
pub(super) fn install() -> std::io::Result<()> {
    use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTERM};
    let ignored = ignored();
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| (ignored >> (signal - 1)) & 1 == 0);
    let mut signals = signal_hook::iterator::Signals::new(wanted)?;
    let handle = move || signals.forever().for_each(handle);
    std::thread::Builder::new().name("signals".into()).spawn(handle).map(drop)
}

/// On other systems, the default behaviour stays.
#[cfg(not(unix))]
pub(super) fn install() -> std::io::Result<()> {
    Ok(())
}

/// Returns the mask of ignored signals, with signal 1 as the lowest bit. Empty if the system does not report it.
#[cfg(unix)]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(unix)]
fn handle(signal: i32) {
    let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
    let is_second = ASKED.swap(true, Ordering::SeqCst);
    if !is_second && WATCHES.load(Ordering::SeqCst) > 0 {
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

/// Prints a message on a separate thread, because standard error may be a full pipe.
#[cfg(unix)]
fn tell(words: String) -> Option<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().spawn(move || say(&words)).ok()
}

/// Ends the program without waiting for its threads. Journals are valid at any moment, and no writes are pending.
#[cfg(unix)]
fn end() -> ! {
    signal_hook::low_level::exit(i32::from(Exit::Incomplete as u8))
}

/// Whether a signal has arrived.
pub(super) fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// Returns the flag of an arrived signal. Without a [`Watch`], a signal ends the program before anyone sees it.
pub(super) fn flag() -> &'static AtomicBool {
    &ASKED
}

/// While a watch lives, the first signal only sets a flag, and its holder stops at a suitable point.
pub(super) struct Watch(());

impl Watch {
    /// Starts watching.
    pub(super) fn new() -> Self {
        WATCHES.fetch_add(1, Ordering::SeqCst);
        Self(())
    }

    /// Returns the flag.
    #[expect(clippy::unused_self, reason = "only the holder of a watch may use the flag")]
    pub(super) fn flag(&self) -> &'static AtomicBool {
        &ASKED
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHES.fetch_sub(1, Ordering::SeqCst);
    }
}
