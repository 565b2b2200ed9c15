//! Progress bars: on stderr, silent when it is not a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::run::Observer;

/// A bar `label ━━━━ 12/200 unit`; its length may be set later.
pub fn bar(label: &str, unit: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
    let template = format!("{{msg:<12}} {{bar:32}} {{pos}}/{{len}} {unit}  {{elapsed}} (left {{eta}})");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style.progress_chars("━━╌"));
    }
    bar.set_message(label.to_owned());
    bar
}

/// Bars drawn from what the run tells.
#[derive(Default)]
pub struct Bars {
    bar: Option<ProgressBar>,
}

impl Observer for Bars {
    fn begin(&mut self, label: &str, unit: &str, total: u64, done: u64) {
        let bar = bar(label, unit);
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
