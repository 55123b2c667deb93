//! A mount, by what programs do with files, beside the floor and memory.
//!
//! Each kind of call is measured on all three in turn, several rounds of it, so
//! that what else runs on the machine falls on all alike: the mount, a trivial
//! FUSE file system ([`floor`]), and a directory in memory. A ratio is the median
//! over rounds.

mod floor;
mod heard;
mod op;
mod side;

use std::{cell::RefCell, io::Write as _, path::Path};

use etcfs_client::Client;
use serde::Serialize;

pub(crate) use floor::serve as serve_floor;

use self::{
    floor::Floor,
    op::{FileOp, MANY, TREE, content, stat_all},
    side::{Filler, Side},
};
use super::{
    process::Process,
    ratio::{Ratio, median},
    report::{Progress, micros},
};
use crate::error::CliError;

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FilesPlan {
    /// Files in the directory that is listed and searched.
    pub(crate) files: usize,
    /// Files in the tree that is searched.
    pub(crate) tree: usize,
    /// Calls of each kind in a round.
    pub(crate) calls: usize,
    pub(crate) rounds: usize,
    pub(crate) value_size: usize,
    /// The mount's process, for its memory.
    pub(crate) pid: Option<u32>,
    pub(crate) json: bool,
}

/// Files in a directory of the tree.
const FILES_A_DIR: usize = 1000;

/// One round on one side.
#[derive(Debug, Serialize)]
struct Round {
    op: &'static str,
    round: usize,
    side: &'static str,
    calls: u64,
    p50_us: f64,
    p99_us: f64,
}

/// All rounds of one kind of call.
#[derive(Debug, Serialize)]
struct Verdict {
    op: &'static str,
    rounds: usize,
    mount_p50_us: f64,
    mount_p99_us: f64,
    floor_p50_us: Option<f64>,
    memory_p50_us: Option<f64>,
    over_floor: Option<Ratio>,
    over_memory: Option<Ratio>,
}

/// Measures `dir`, the floor and `beside`, and prints a line for each kind of call. `client` gives one
/// of the server behind `dir`.
pub(crate) fn run(
    dir: &Path,
    beside: &Path,
    client: impl FnOnce() -> Result<Client, CliError>,
    plan: FilesPlan,
) -> Result<(), CliError> {
    let plan =
        FilesPlan { files: plan.files.max(1), calls: plan.calls.max(1), rounds: plan.rounds.max(1), ..plan };
    let floor =
        Floor::mount().map_err(|error| CliError::failed(format!("the floor can't be mounted: {error}")))?;
    let point = floor.path();
    let sides = [
        Side::of_mount(dir, client)?,
        Side::make("floor", &point, Filler::Floor(RefCell::new(floor)))?,
        Side::make("memory", beside, Filler::Plain)?,
    ];
    let is_remote = matches!(sides[0].filler, Filler::Remote(_));
    if !is_remote {
        anstream::eprintln!("{} is no mount of etcfs: its files are made through it", dir.display());
    }
    let memory = prepare(&sides, &plan)?;
    if !plan.json {
        titles(&sides, &plan)?;
    }
    for op in FileOp::ALL.into_iter().filter(|op| is_remote || !op.is_remote()) {
        let measured = if op.is_remote() { &sides[..1] } else { &sides[..] };
        let mut rounds = Vec::new();
        for number in 0..plan.rounds {
            for turn in 0..measured.len() {
                // Who comes first changes with the round.
                let side = &measured[(number + turn) % measured.len()];
                let latencies = op.round(side, &plan, number)?;
                let at = |share| latencies.value_at_quantile(share) as f64 / 1e3;
                let (calls, p50_us, p99_us) = (latencies.len(), at(0.5), at(0.99));
                rounds.push(Round { op: op.name(), round: number, side: side.name, calls, p50_us, p99_us });
            }
        }
        report(&rounds, &plan)?;
    }
    report_memory(memory, &plan)
}

/// Makes the files that all rounds use; how much memory the mount's process took for each of the tree's.
fn prepare(sides: &[Side], plan: &FilesPlan) -> Result<Option<f64>, CliError> {
    let content = content(plan.value_size);
    let mut grown = None;
    for side in sides {
        let progress = Progress::start(&format!("files in {}", side.name), plan.tree as u64, plan.json);
        side.fill(MANY, plan.files, &content)?;
        let process = match (plan.pid, side.name) {
            (Some(pid), "mount") => Some(Process::find(pid)?),
            _ => None,
        };
        let before = process.map(Process::resident_bytes).transpose()?;
        for first in (0..plan.tree).step_by(FILES_A_DIR) {
            let dir = format!("{TREE}/{:04}", first / FILES_A_DIR);
            side.fill(&dir, FILES_A_DIR.min(plan.tree - first), &content)?;
            progress.at(first as u64);
        }
        if let (Some(process), Some(before)) = (process, before) {
            stat_all(&side.root.join(TREE), plan.tree)?;
            let bytes = process.resident_bytes()?.saturating_sub(before);
            grown = Some(bytes as f64 / plan.tree.max(1) as f64);
        }
    }
    Ok(grown)
}

fn titles(sides: &[Side; 3], plan: &FilesPlan) -> Result<(), CliError> {
    let mut out = anstream::stdout().lock();
    writeln!(
        out,
        "{}, the floor and {}: {} files of {} bytes, {} in the tree, {} rounds",
        sides[0].root.display(),
        sides[2].root.display(),
        plan.files,
        plan.value_size,
        plan.tree,
        plan.rounds
    )?;
    writeln!(
        out,
        "{:16} {:>9} {:>9} {:>9} {:>9} {:>20} {:>24}",
        "", "mount p50", "p99", "floor p50", "mem. p50", "mount / floor", "mount / memory"
    )?;
    Ok(())
}

fn report(rounds: &[Round], plan: &FilesPlan) -> Result<(), CliError> {
    let of = |side: &'static str| rounds.iter().filter(move |round| round.side == side);
    let ratio = |side| {
        let pairs: Vec<_> = of("mount").zip(of(side)).map(|(a, b)| (a.p50_us, b.p50_us)).collect();
        Ratio::of(&pairs)
    };
    let p50 = |side| of(side).next().map(|_| median(of(side).map(|round| round.p50_us)));
    let verdict = Verdict {
        op: rounds[0].op,
        rounds: plan.rounds,
        mount_p50_us: p50("mount").unwrap_or_default(),
        mount_p99_us: median(of("mount").map(|round| round.p99_us)),
        floor_p50_us: p50("floor"),
        memory_p50_us: p50("memory"),
        over_floor: ratio("floor"),
        over_memory: ratio("memory"),
    };
    if plan.json {
        rounds.iter().try_for_each(print_json)?;
        return print_json(&verdict);
    }
    let cell = |time: Option<f64>| time.map_or_else(|| "-".to_owned(), micros);
    writeln!(
        anstream::stdout().lock(),
        "{:16} {:>9} {:>9} {:>9} {:>9} {:>20} {:>24}",
        verdict.op,
        micros(verdict.mount_p50_us),
        micros(verdict.mount_p99_us),
        cell(verdict.floor_p50_us),
        cell(verdict.memory_p50_us),
        Ratio::text(verdict.over_floor),
        Ratio::text(verdict.over_memory)
    )?;
    Ok(())
}

fn report_memory(bytes: Option<f64>, plan: &FilesPlan) -> Result<(), CliError> {
    let Some(bytes) = bytes else { return Ok(()) };
    if plan.json {
        return print_json(
            &serde_json::json!({ "op": "memory", "value_bytes": plan.value_size, "bytes_per_key": bytes.round() }),
        );
    }
    let size = plan.value_size;
    writeln!(anstream::stdout().lock(), "{:16} {bytes:.0} bytes a key with its value of {size}", "memory")?;
    Ok(())
}

fn print_json(line: &impl Serialize) -> Result<(), CliError> {
    let line = serde_json::to_string(line).expect("numbers and names are JSON");
    Ok(writeln!(anstream::stdout().lock(), "{line}")?)
}
