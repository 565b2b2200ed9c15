//! Progress of a request on stderr: one bar for all its runs and cases on a terminal, otherwise a line every half minute.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::run::{Ahead, Observer, Progress};
use crate::text::one_line;

use super::overall::Overall;
use super::progress::{Bar, PERIOD, Ticking, bar, lock, spent};
use super::say;

/// Shows the progress of a request over all its runs and cases, and their messages. Operations outside the cases, such as loading, have
/// displays of their own.
#[derive(Default)]
pub struct Bars {
    /// The display of a phase of a request before its cases are known.
    bar: Option<Bar>,
    /// The request, once its cases are known.
    request: Option<Request>,
}

/// A request on display.
struct Request {
    state: Arc<Mutex<Timed>>,
    shown: Whole,
}

/// The state of a request, and when its first case began.
#[derive(Default)]
struct Timed {
    overall: Overall,
    begun: Option<Instant>,
}

/// How a request is shown: by a bar while a phase goes on, or by log lines until it ends.
enum Whole {
    Drawn(Option<ProgressBar>),
    Told { _lines: Ticking },
}

/// Parts of a whole bar.
const PARTS: u64 = 1000;

impl Request {
    fn new(runs: &[Vec<Ahead>], is_terminal: bool) -> Self {
        let state = Arc::new(Mutex::new(Timed { overall: Overall::new(runs), begun: None }));
        let shown = if is_terminal {
            Whole::Drawn(None)
        } else {
            let shared = Arc::clone(&state);
            let line = move || {
                let state = lock(&shared);
                state.overall.line(state.elapsed())
            };
            Whole::Told { _lines: Ticking::new(PERIOD, line, say) }
        };
        Self { state, shown }
    }

    fn change(&mut self, change: impl FnOnce(&mut Timed)) {
        change(&mut lock(&self.state));
        self.draw();
    }

    /// Shows the bar while there is a phase.
    fn draw(&mut self) {
        let Whole::Drawn(bar) = &mut self.shown else { return };
        let state = lock(&self.state);
        let Some(words) = state.overall.words() else { return };
        let bar = bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(Some(PARTS), ProgressDrawTarget::stderr_with_hz(8));
            if let Ok(style) = ProgressStyle::with_template("{bar:24} {percent:>3} % {wide_msg}") {
                bar.set_style(style.progress_chars("━━╌"));
            }
            bar
        });
        let elapsed = state.elapsed();
        let left = state.overall.left(elapsed).map(|left| format!(", about {} left for all", spent(left)));
        bar.set_position((state.overall.share() * PARTS as f64) as u64);
        bar.set_message(
            one_line(&format!("{words}  {}{}", spent(elapsed), left.unwrap_or_default())).into_owned(),
        );
    }

    /// Takes the bar away until the next phase, so that other lines have the terminal.
    fn clear(&mut self) {
        if let Whole::Drawn(bar) = &mut self.shown
            && let Some(bar) = bar.take()
        {
            bar.finish_and_clear();
        }
    }
}

impl Timed {
    fn elapsed(&self) -> Duration {
        self.begun.map_or(Duration::ZERO, |begun| begun.elapsed())
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Observer for Bars {
    fn ahead(&mut self, runs: &[Vec<Ahead>]) {
        self.bar = None;
        let request = Request::new(runs, std::io::stderr().is_terminal());
        self.request = Some(request).filter(|_| runs.iter().any(|cases| !cases.is_empty()));
    }

    fn cases(&mut self, _: usize) {
        if let Some(request) = &mut self.request {
            request.change(|state| state.overall.run());
        }
    }

    fn case(&mut self, name: &str) {
        if let Some(request) = &mut self.request {
            request.change(|state| {
                state.begun.get_or_insert_with(Instant::now);
                state.overall.case(name);
            });
        }
    }

    fn begin(&mut self, label: &str, unit: &'static str, total: u64, done: u64) {
        if let Some(request) = &mut self.request {
            return request.change(|state| state.overall.begin(label, unit, total, done));
        }
        self.bar = None;
        let bar = bar(label, unit);
        bar.set_length(total);
        bar.begin_at(done);
        self.bar = Some(bar);
    }

    fn advance(&mut self) {
        if let Some(request) = &mut self.request {
            request.change(|state| state.overall.advance());
        }
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    fn end(&mut self) {
        if let Some(request) = &mut self.request {
            request.change(|state| state.overall.end());
            request.clear();
        }
        self.bar = None;
    }

    fn operation(&mut self, label: &str, unit: &'static str) -> Box<dyn Progress> {
        if let Some(request) = &mut self.request {
            request.clear();
        }
        Box::new(bar(label, unit))
    }

    fn say(&mut self, message: &str) {
        let tell = || say(&format!("glmbench: {message}"));
        match self.request.as_ref().map(|request| &request.shown) {
            Some(Whole::Drawn(Some(bar))) => bar.suspend(tell),
            _ => tell(),
        }
    }
}
