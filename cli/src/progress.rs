//! Progress on stderr, which shows only where that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over `unit`s, of unknown length until someone sets it. It goes away when dropped.
pub(crate) fn bar(unit: &str) -> ProgressBar {
    let template = format!("{{spinner}} {{pos}} of {{len}} {unit} {{wide_bar}} {{elapsed}}");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::no_length().with_style(style).with_finish(indicatif::ProgressFinish::AndClear);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
