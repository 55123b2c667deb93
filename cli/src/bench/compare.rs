//! Two endpoints in alternating rounds, and their ratios with the spread.
//!
//! On a shared machine one figure says little: what runs beside it changes
//! from minute to minute. Rounds therefore alternate, the order within a pair
//! too, and a ratio is the median over pairs, printed with the smallest and
//! the largest pair.

use std::io::{self, Write};

use etcfs_client::Client;
use serde::Serialize;

use super::{
    plan::{Op, Plan},
    ratio::Ratio,
    report::Line,
    round::{self, Measured},
};
use crate::error::CliError;

/// One side of a comparison.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) endpoint: String,
    pub(crate) clients: Vec<Client>,
    pub(crate) server_pid: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Verdict<'a> {
    op: &'a str,
    rounds: usize,
    a: &'a str,
    b: &'a str,
    ops_per_s_ratio: Option<Ratio>,
    p50_ratio: Option<Ratio>,
    p99_ratio: Option<Ratio>,
    server_cpu_ratio: Option<Ratio>,
    server_rss_ratio: Option<Ratio>,
    errors: u64,
}

/// Runs the rounds of all operations and prints a line for each.
pub(crate) async fn run(sides: [Side; 2], plan: &Plan, ops: &[Op], rounds: usize) -> Result<(), CliError> {
    if !plan.json {
        titles(&sides, rounds)?;
    }
    for op in ops {
        let mut pairs: Vec<[Measured; 2]> = Vec::new();
        for number in 0..rounds.max(1) {
            let measure = async |side: &Side| {
                let plan = Plan { server_pid: side.server_pid, ..plan.clone() };
                round::run(&side.clients, &plan, *op).await
            };
            let [a, b] = &sides;
            let pair = if number % 2 == 0 {
                let first = measure(a).await?;
                [first, measure(b).await?]
            } else {
                let first = measure(b).await?;
                [measure(a).await?, first]
            };
            if plan.json {
                for (side, measured) in sides.iter().zip(&pair) {
                    print_json(&Line::of(measured, Some(&side.endpoint)))?;
                }
            }
            pairs.push(pair);
        }
        verdict(&sides, plan, op.name(), &pairs)?;
    }
    Ok(())
}

fn verdict(sides: &[Side; 2], plan: &Plan, op: &str, pairs: &[[Measured; 2]]) -> io::Result<()> {
    let ratio = |figure: &dyn Fn(&Measured) -> Option<f64>| {
        let figures: Option<Vec<_>> = pairs.iter().map(|[a, b]| Some((figure(a)?, figure(b)?))).collect();
        Ratio::of(&figures?)
    };
    let verdict = Verdict {
        op,
        rounds: pairs.len(),
        a: &sides[0].endpoint,
        b: &sides[1].endpoint,
        ops_per_s_ratio: ratio(&|m| Some(m.ops_per_second())),
        p50_ratio: ratio(&|m| Some(m.micros(0.5))),
        p99_ratio: ratio(&|m| Some(m.micros(0.99))),
        server_cpu_ratio: ratio(&|m| m.cpu_micros_per_op()),
        server_rss_ratio: ratio(&|m| m.server.map(|cost| cost.peak_bytes as f64)),
        errors: pairs.iter().flatten().map(|m| m.errors).sum(),
    };
    if plan.json {
        return print_json(&verdict);
    }
    let mut out = anstream::stdout().lock();
    writeln!(
        out,
        "{op:16} {:>18} {:>18} {:>18} {:>18} {:>18} {:>6}",
        Ratio::text(verdict.ops_per_s_ratio),
        Ratio::text(verdict.p50_ratio),
        Ratio::text(verdict.p99_ratio),
        Ratio::text(verdict.server_cpu_ratio),
        Ratio::text(verdict.server_rss_ratio),
        verdict.errors
    )?;
    for measured in pairs.iter().flatten() {
        if let Some(error) = &measured.first_error {
            anstream::eprintln!("{op}: the first error: {error}");
            break;
        }
    }
    Ok(())
}

fn titles(sides: &[Side; 2], rounds: usize) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    writeln!(
        out,
        "A = {}, B = {}: A/B, median of {rounds} pairs (smallest-largest)",
        sides[0].endpoint, sides[1].endpoint
    )?;
    writeln!(
        out,
        "{:16} {:>18} {:>18} {:>18} {:>18} {:>18} {:>6}",
        "", "per second", "p50", "p99", "server CPU/op", "server peak RSS", "errors"
    )
}

fn print_json(line: &impl Serialize) -> io::Result<()> {
    let line = serde_json::to_string(line).expect("numbers and names are JSON");
    writeln!(anstream::stdout().lock(), "{line}")
}
