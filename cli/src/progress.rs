//! Progress displays on stderr, which are shown only if stderr is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that counts `unit`s, followed by a message. Its length is unknown until it is set. It disappears when dropped.
pub(crate) fn bar(unit: &str) -> ProgressBar {
    shown(&format!("{{spinner}} {{pos}} of {{len}} {unit} {{bar:24}} {{elapsed}} {{wide_msg}}"))
}

/// A message with the elapsed time. It disappears when dropped.
pub(crate) fn spinner() -> ProgressBar {
    shown("{spinner} {elapsed} {wide_msg}")
}

fn shown(template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::no_length().with_style(style).with_finish(indicatif::ProgressFinish::AndClear);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
