//! Bars for what takes long: on standard error, if that is a terminal.

use std::io::{self, IsTerminal as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A number of bytes that becomes known on the way.
pub(crate) fn of_bytes() -> ProgressBar {
    bar(None, "{bar:30} {bytes}/{total_bytes} {bytes_per_sec}")
}

pub(crate) fn of_keys(total: u64) -> ProgressBar {
    bar(Some(total), "{bar:30} {human_pos}/{human_len} keys {per_sec}")
}

/// A number that nobody knows before it is reached.
pub(crate) fn counting(what: &str) -> ProgressBar {
    bar(None, &format!("{{human_pos}} {what} {{per_sec}}"))
}

fn bar(total: Option<u64>, template: &str) -> ProgressBar {
    let target =
        if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(total, target).with_style(style)
}
