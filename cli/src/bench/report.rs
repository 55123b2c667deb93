//! What a person or a program gets to see of rounds.

use std::{
    io::{self, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::{plan::Plan, round::Measured};
use crate::words;

/// A bar on standard error where that is a terminal; nothing elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn start(name: &str, total: u64, quiet: bool) -> Self {
        let bar = if quiet {
            ProgressBar::hidden()
        } else {
            ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr())
        };
        let style = ProgressStyle::with_template("{msg:16} {bar:30} {pos}/{len} {per_sec} {eta}");
        bar.set_style(style.expect("the template is well formed"));
        bar.set_message(name.to_owned());
        Self { bar }
    }

    pub(crate) fn at(&self, done: u64) {
        self.bar.set_position(done);
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

/// A round as a program reads it.
#[derive(Debug, Serialize)]
pub(crate) struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<&'a str>,
    op: &'a str,
    clients: usize,
    ops: u64,
    ops_per_s: f64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    max_us: f64,
    errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_us_per_op: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_rss_bytes: Option<u64>,
}

impl<'a> Line<'a> {
    pub(crate) fn of(measured: &'a Measured, endpoint: Option<&'a str>) -> Self {
        Self {
            endpoint,
            op: measured.op,
            clients: measured.clients,
            ops: measured.answered(),
            ops_per_s: rounded(measured.ops_per_second()),
            p50_us: rounded(measured.micros(0.5)),
            p90_us: rounded(measured.micros(0.9)),
            p99_us: rounded(measured.micros(0.99)),
            max_us: rounded(measured.max_micros()),
            errors: measured.errors,
            server_cpu_us_per_op: measured.cpu_micros_per_op().map(rounded),
            server_rss_bytes: measured.server.map(|cost| cost.peak_bytes),
        }
    }
}

fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Prints the titles of the columns that [`round`] fills.
pub(crate) fn titles(plan: &Plan) -> io::Result<()> {
    if plan.json {
        return Ok(());
    }
    let cost = if plan.server_pid.is_some() { "  CPU/op  peak RSS" } else { "" };
    let mut out = anstream::stdout().lock();
    writeln!(
        out,
        "{:16} {:>9} {:>11} {:>9} {:>9} {:>9} {:>9} {:>7}{cost}",
        "", "done", "per second", "p50", "p90", "p99", "max", "errors"
    )
}

/// Prints a round.
pub(crate) fn round(plan: &Plan, measured: &Measured) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    if plan.json {
        let line = serde_json::to_string(&Line::of(measured, None)).expect("numbers and names are JSON");
        return writeln!(out, "{line}");
    }
    write!(
        out,
        "{:16} {:>9} {:>11.0} {:>9} {:>9} {:>9} {:>9} {:>7}",
        measured.op,
        measured.answered(),
        measured.ops_per_second(),
        micros(measured.micros(0.5)),
        micros(measured.micros(0.9)),
        micros(measured.micros(0.99)),
        micros(measured.max_micros()),
        measured.errors
    )?;
    if let (Some(cpu), Some(cost)) = (measured.cpu_micros_per_op(), measured.server) {
        write!(out, " {:>7} {:>9}", micros(cpu), words::size(cost.peak_bytes))?;
    }
    writeln!(out)?;
    if let Some(error) = &measured.first_error {
        anstream::eprintln!("{}: the first error: {error}", measured.op);
    }
    Ok(())
}

/// A time in the unit in which it has one to three digits before the point.
pub(crate) fn micros(micros: f64) -> String {
    match micros {
        m if m < 1.0 => format!("{:.0}ns", m * 1e3),
        m if m < 100.0 => format!("{m:.1}us"),
        m if m < 1e3 => format!("{m:.0}us"),
        m if m < 1e5 => format!("{:.2}ms", m / 1e3),
        m if m < 1e6 => format!("{:.0}ms", m / 1e3),
        m => format!("{:.2}s", m / 1e6),
    }
}

/// Prints how fast keys were loaded.
pub(crate) fn loaded(plan: &Plan, keys: u64, time: Duration) {
    let rate = keys as f64 / time.as_secs_f64().max(1e-9);
    if plan.json {
        let line = serde_json::json!({ "op": "load", "keys": keys, "seconds": rounded(time.as_secs_f64()), "keys_per_s": rounded(rate) });
        anstream::println!("{line}");
    } else {
        anstream::println!("{keys} keys in {}, {rate:.0} a second", micros(time.as_secs_f64() * 1e6));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_the_unit_that_suits_them() {
        for (us, text) in [
            (0.5, "500ns"),
            (12.34, "12.3us"),
            (512.0, "512us"),
            (1234.0, "1.23ms"),
            (250_000.0, "250ms"),
            (2e6, "2.00s"),
        ] {
            assert_eq!(micros(us), text);
        }
    }
}
