//! Progress on stderr.

use indicatif::ProgressBar;

use crate::cli::progress;
use crate::run::Observer;

/// Bars drawn from what the run tells.
#[derive(Default)]
pub(super) struct Bars {
    bar: Option<ProgressBar>,
}

impl Observer for Bars {
    fn begin(&mut self, label: &str, unit: &str, total: u64, done: u64) {
        let bar = progress::bar(label, unit);
        bar.set_length(total);
        bar.set_position(done);
        bar.reset_eta();
        self.bar = Some(bar);
    }

    fn advance(&mut self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
