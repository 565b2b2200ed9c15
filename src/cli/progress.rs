//! Progress bars: on stderr, silent when it is not a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

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
