//! Progress of one operation on stderr: a bar on a terminal, otherwise a line every half minute.

use std::io::IsTerminal;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::run::Progress;
use crate::run::observer::BYTES;
use crate::text::one_line;

use super::say;

/// Interval between log lines.
pub(super) const PERIOD: Duration = Duration::from_secs(30);

/// Progress of one long operation. Dropping it ends the display.
pub struct Bar(Shown);

enum Shown {
    Drawn(ProgressBar),
    Told(Lines),
}

/// Starts a bar `label ━━━━ 12/200 unit`, or log lines. Its length may be set later.
pub fn bar(label: &str, unit: &'static str) -> Bar {
    let label = one_line(label);
    if !std::io::stderr().is_terminal() {
        return Bar(Shown::Told(Lines::new(&label, unit, PERIOD, say)));
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
    let counts = if unit == BYTES { "{decimal_bytes}/{decimal_total_bytes}" } else { "{pos}/{len}" };
    let unit = if unit == BYTES { "" } else { unit };
    let template = format!("{{msg:<12}} {{bar:32}} {counts} {unit}  {{elapsed}} (left {{eta}})");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style.progress_chars("━━╌"));
    }
    bar.set_message(label.into_owned());
    Bar(Shown::Drawn(bar))
}

impl Bar {
    /// Sets the total.
    pub fn set_length(&self, length: u64) {
        match &self.0 {
            Shown::Drawn(bar) => bar.set_length(length),
            Shown::Told(lines) => lines.state().length = Some(length),
        }
    }

    /// Sets the number of finished units.
    pub fn set_position(&self, position: u64) {
        match &self.0 {
            Shown::Drawn(bar) => bar.set_position(position),
            Shown::Told(lines) => lines.state().position = position,
        }
    }

    /// Sets the units that were finished earlier. They do not count in the estimate of the remaining time.
    pub fn begin_at(&self, position: u64) {
        self.set_position(position);
        match &self.0 {
            Shown::Drawn(bar) => bar.reset_eta(),
            Shown::Told(lines) => lines.state().before = position,
        }
    }

    /// Adds `more` finished units.
    pub fn inc(&self, more: u64) {
        match &self.0 {
            Shown::Drawn(bar) => bar.inc(more),
            Shown::Told(lines) => lines.state().position += more,
        }
    }

    /// Ends the display.
    pub fn finish_and_clear(self) {}
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Shown::Drawn(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Log lines of one operation.
struct Lines {
    state: Arc<Mutex<State>>,
    _ticking: Ticking,
}

struct State {
    label: String,
    unit: &'static str,
    before: u64,
    position: u64,
    length: Option<u64>,
}

impl Lines {
    fn new(label: &str, unit: &'static str, period: Duration, tell: fn(&str)) -> Self {
        let state = State { label: label.to_owned(), unit, before: 0, position: 0, length: None };
        let state = Arc::new(Mutex::new(state));
        let (shared, begin) = (Arc::clone(&state), Instant::now());
        let line = move || Some(lock(&shared).line(begin.elapsed()));
        Self { state, _ticking: Ticking::new(period, line, tell) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Lines by the clock, printed by a separate thread, because one step may take longer than a period.
pub(super) struct Ticking {
    /// Dropping it ends the thread.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticking {
    /// Prints what `line` returns, every `period`.
    pub(super) fn new(
        period: Duration,
        line: impl Fn() -> Option<String> + Send + 'static,
        tell: fn(&str),
    ) -> Self {
        let (end, ended) = channel();
        let tick = move || {
            while ended.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                if let Some(line) = line() {
                    tell(&line);
                }
            }
        };
        // Without the thread there are no lines, but the work continues.
        let thread = std::thread::Builder::new().name("progress".into()).spawn(tick).ok();
        Self { end: Some(end), thread }
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // The thread prints at most one more line.
            let _ = thread.join();
        }
    }
}

/// A panic elsewhere leaves the numbers valid.
pub(super) fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Formats a line: `glmbench: ceval: 120 of 1346 items, 3 min 20 s; about 34 min left`.
    fn line(&self, elapsed: Duration) -> String {
        let show = |count: u64| amount(count, self.unit);
        let unit = if self.unit == BYTES { "GB" } else { self.unit };
        let of = self.length.map(|length| format!(" of {}", show(length))).unwrap_or_default();
        let left = match self.length {
            Some(length) if self.position > self.before && length > self.position => {
                let (done, rest) = (self.position - self.before, length - self.position);
                let left = elapsed.as_secs_f64() * (rest as f64 / done as f64);
                let left = Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX);
                format!("; about {} left", spent(left))
            }
            _ => String::new(),
        };
        format!("glmbench: {}: {}{of} {unit}, {}{left}", self.label, show(self.position), spent(elapsed))
    }
}

/// Formats a number of units; bytes in GB.
pub(super) fn amount(count: u64, unit: &'static str) -> String {
    if unit == BYTES { format!("{:.1}", count as f64 / 1e9) } else { count.to_string() }
}

/// Formats a duration with at most two units.
pub(super) fn spent(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

impl Progress for Bar {
    fn set_length(&self, length: u64) {
        self.set_length(length);
    }

    fn set_position(&self, position: u64) {
        self.set_position(position);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is_and_how_long_it_takes() {
        let mut state = State { label: "ceval".into(), unit: "items", before: 0, position: 0, length: None };
        let line = |state: &State, seconds| state.line(Duration::from_secs(seconds));
        assert_eq!(line(&state, 30), "glmbench: ceval: 0 items, 30 s");
        state.length = Some(1346);
        assert_eq!(line(&state, 30), "glmbench: ceval: 0 of 1346 items, 30 s");
        (state.before, state.position) = (1000, 1100);
        // 246 items are left, at the rate of the 100 that were finished.
        assert_eq!(
            line(&state, 100),
            "glmbench: ceval: 1100 of 1346 items, 1 min 40 s; about 4 min 6 s left"
        );
        state.position = 1346;
        assert_eq!(line(&state, 7325), "glmbench: ceval: 1346 of 1346 items, 2 h 2 min");
        (state.unit, state.before, state.position, state.length) =
            (BYTES, 0, 3_100_000_000, Some(12_400_000_000));
        assert_eq!(line(&state, 10), "glmbench: ceval: 3.1 of 12.4 GB, 10 s; about 30 s left");
    }

    #[test]
    fn lines_come_by_the_clock_and_end_with_the_work() {
        static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let lines = Lines::new("work", "steps", Duration::from_millis(5), |line| {
            TOLD.lock().unwrap().push(line.to_owned());
        });
        lines.state().length = Some(2);
        lines.state().position = 1;
        let begin = Instant::now();
        while TOLD.lock().unwrap().len() < 2 && begin.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(lines);
        let told = TOLD.lock().unwrap().clone();
        assert!(told.len() >= 2, "{told:?}");
        assert!(told.last().unwrap().starts_with("glmbench: work: 1 of 2 steps, 0 s"), "{told:?}");
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(TOLD.lock().unwrap().len(), told.len());
    }
}
