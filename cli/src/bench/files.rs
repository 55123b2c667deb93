//! A mount, by what programs do with files, beside a directory in memory.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    report::{Progress, micros},
    tally::latencies,
};
use crate::error::CliError;

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FilesPlan {
    /// Files in the directory that is listed and searched.
    pub(crate) files: usize,
    /// Calls of each kind.
    pub(crate) calls: usize,
    pub(crate) value_size: usize,
    pub(crate) json: bool,
}

/// One kind of call on one directory.
#[derive(Debug)]
struct Timed {
    op: &'static str,
    latencies: Histogram<u64>,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    op: &'a str,
    calls: u64,
    p50_us: f64,
    p99_us: f64,
    beside_p50_us: f64,
    beside_p99_us: f64,
    ratio_p50: f64,
}

/// Whole-directory calls are slow: a few say enough.
const SWEEPS: usize = 5;

/// Measures `dir` and `beside` in turn and prints a line for each kind of call.
pub(crate) fn run(dir: &Path, beside: &Path, plan: FilesPlan) -> Result<(), CliError> {
    let here = Playground::make(dir, plan)?;
    let there = Playground::make(beside, plan)?;
    let mut out = anstream::stdout().lock();
    if !plan.json {
        writeln!(
            out,
            "{} beside {}, {} files of {} bytes",
            here.root.display(),
            there.root.display(),
            plan.files,
            plan.value_size
        )?;
        writeln!(
            out,
            "{:18} {:>7} {:>10} {:>10} {:>14} {:>14} {:>9}",
            "", "calls", "p50", "p99", "beside: p50", "p99", "ratio p50"
        )?;
    }
    for op in OPS {
        let a = here.measure(op, plan)?;
        let b = there.measure(op, plan)?;
        let at = |timed: &Timed, share| timed.latencies.value_at_quantile(share) as f64 / 1e3;
        let line = Line {
            op: a.op,
            calls: a.latencies.len(),
            p50_us: at(&a, 0.5),
            p99_us: at(&a, 0.99),
            beside_p50_us: at(&b, 0.5),
            beside_p99_us: at(&b, 0.99),
            ratio_p50: (at(&a, 0.5) / at(&b, 0.5).max(0.001) * 100.0).round() / 100.0,
        };
        if plan.json {
            writeln!(out, "{}", serde_json::to_string(&line).expect("numbers and names are JSON"))?;
        } else {
            writeln!(
                out,
                "{:18} {:>7} {:>10} {:>10} {:>14} {:>14} {:>9.1}",
                line.op,
                line.calls,
                micros(line.p50_us),
                micros(line.p99_us),
                micros(line.beside_p50_us),
                micros(line.beside_p99_us),
                line.ratio_p50
            )?;
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum FileOp {
    Stat,
    OpenReadClose,
    CreateWriteClose,
    Readdir,
    Find,
    Grep,
}

const OPS: [FileOp; 6] = [
    FileOp::Stat,
    FileOp::OpenReadClose,
    FileOp::CreateWriteClose,
    FileOp::Readdir,
    FileOp::Find,
    FileOp::Grep,
];

/// A directory of ours with files in it, removed at the end.
#[derive(Debug)]
struct Playground {
    root: PathBuf,
}

impl Playground {
    fn make(dir: &Path, plan: FilesPlan) -> Result<Self, CliError> {
        let root = dir.join(format!("etcfs-bench-{}", std::process::id()));
        let failed = |error: io::Error| CliError::failed(format!("{}: {error}", root.display()));
        let many = root.join("many");
        fs::create_dir(&root).and_then(|()| fs::create_dir(&many)).map_err(failed)?;
        fs::create_dir(root.join("new")).map_err(failed)?;
        let this = Self { root: root.clone() };
        let progress = Progress::start(&format!("files in {}", dir.display()), plan.files as u64, plan.json);
        let content = content(plan.value_size);
        for number in 0..plan.files {
            fs::write(this.file(number), &content).map_err(failed)?;
            progress.at(number as u64);
        }
        Ok(this)
    }

    fn file(&self, number: usize) -> PathBuf {
        self.root.join("many").join(format!("file{number:05}"))
    }

    fn measure(&self, op: FileOp, plan: FilesPlan) -> Result<Timed, CliError> {
        let pick = |number: usize| self.file(number.wrapping_mul(7919) % plan.files.max(1));
        let many = self.root.join("many");
        let found = |count: usize| match count == plan.files {
            true => Ok(()),
            false => Err(io::Error::other(format!("{count} files seen instead of {}", plan.files))),
        };
        let timed = match op {
            FileOp::Stat => repeat("stat", plan.calls, |n| fs::metadata(pick(n)).map(drop)),
            FileOp::OpenReadClose => {
                let mut buffer = Vec::with_capacity(plan.value_size + 1);
                repeat("open-read-close", plan.calls, |n| {
                    buffer.clear();
                    File::open(pick(n))?.read_to_end(&mut buffer).map(drop)
                })
            }
            FileOp::CreateWriteClose => {
                let content = content(plan.value_size);
                let new = self.root.join("new");
                repeat("create-write-close", plan.calls, |n| {
                    File::create_new(new.join(format!("new{n:05}")))?.write_all(&content)
                })
            }
            FileOp::Readdir => repeat("readdir", SWEEPS, |_| {
                let mut names = 0;
                for entry in fs::read_dir(&many)? {
                    entry?;
                    names += 1;
                }
                found(names)
            }),
            FileOp::Find => repeat("find", SWEEPS, |_| {
                let lines = lines_of(Command::new("find").arg(&many).args(["-type", "f"]))?;
                found(lines)
            }),
            FileOp::Grep => repeat("grep -r", SWEEPS, |_| {
                let lines = lines_of(Command::new("grep").args(["-r", "-l", "etcfs-bench"]).arg(&many))?;
                found(lines)
            }),
        };
        timed.map_err(|(op, error)| CliError::failed(format!("{op} in {}: {error}", self.root.display())))
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.root) {
            anstream::eprintln!("{} is left behind: {error}", self.root.display());
        }
    }
}

fn content(size: usize) -> Vec<u8> {
    b"etcfs-bench ".iter().copied().cycle().take(size.max(12)).collect()
}

fn repeat(
    op: &'static str,
    calls: usize,
    mut call: impl FnMut(usize) -> io::Result<()>,
) -> Result<Timed, (&'static str, io::Error)> {
    let mut latencies = latencies();
    for number in 0..calls {
        let begin = Instant::now();
        call(number).map_err(|error| (op, error))?;
        latencies.saturating_record(nanos(begin.elapsed()));
    }
    Ok(Timed { op, latencies })
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1)
}

fn lines_of(command: &mut Command) -> io::Result<usize> {
    let output = command.stderr(Stdio::inherit()).output()?;
    Ok(output.stdout.iter().filter(|byte| **byte == b'\n').count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_directories_are_measured_and_left_empty() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        run(a.path(), b.path(), FilesPlan { files: 20, calls: 10, value_size: 64, json: true }).unwrap();
        for dir in [a, b] {
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }
}
