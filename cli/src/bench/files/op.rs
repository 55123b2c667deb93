//! What programs do with files, each kind timed on one side.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::{
    FilesPlan,
    heard::Listener,
    side::{Filler, Side, file},
};
use crate::{bench::tally::latencies, error::CliError};

/// Directory of `files` files, listed and searched again and again.
pub(super) const MANY: &str = "many";
/// Directory of directories with all files of the tree.
pub(super) const TREE: &str = "tree";

/// One kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileOp {
    StatCached,
    StatListed,
    OpenReadClose,
    Create,
    CreateExclusive,
    Overwrite,
    Readdir,
    Find,
    GrepWarm,
    GrepCold,
    /// Of another client, to the server behind the mount.
    Put,
    /// From the answer to such a put until a file shows it.
    Visible,
    /// The same until a listener hears of it.
    Heard,
}

impl FileOp {
    pub(super) const ALL: [Self; 13] = [
        Self::StatCached,
        Self::StatListed,
        Self::OpenReadClose,
        Self::Create,
        Self::CreateExclusive,
        Self::Overwrite,
        Self::Readdir,
        Self::Find,
        Self::GrepWarm,
        Self::GrepCold,
        Self::Put,
        Self::Visible,
        Self::Heard,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::StatCached => "stat",
            Self::StatListed => "stat-first",
            Self::OpenReadClose => "open-read-close",
            Self::Create => "create",
            Self::CreateExclusive => "create-excl",
            Self::Overwrite => "overwrite",
            Self::Readdir => "readdir",
            Self::Find => "find",
            Self::GrepWarm => "grep-warm",
            Self::GrepCold => "grep-cold",
            Self::Put => "put",
            Self::Visible => "remote-visible",
            Self::Heard => "remote-inotify",
        }
    }

    /// True for what only a mount has.
    pub(super) fn is_remote(self) -> bool {
        matches!(self, Self::Put | Self::Visible | Self::Heard)
    }

    /// One round; `number` tells it from all others.
    pub(super) fn round(
        self,
        side: &Side,
        plan: &FilesPlan,
        number: usize,
    ) -> Result<Histogram<u64>, CliError> {
        let content = content(plan.value_size);
        let (many, tree) = (side.root.join(MANY), side.root.join(TREE));
        let pick = |n: usize| many.join(file(n.wrapping_mul(7919) % plan.files));
        let timed = match self {
            Self::StatCached => {
                (0..plan.calls).try_for_each(|n| fs::metadata(pick(n)).map(drop))?;
                repeat(plan.calls, |n| fs::metadata(pick(n)).map(drop))
            }
            Self::StatListed => {
                let dir = side.fill(&format!("stat{number}"), plan.calls, &content)?;
                seen(names(&dir)?, plan.calls)?;
                repeat(plan.calls, |n| fs::metadata(dir.join(file(n))).map(drop))
            }
            Self::OpenReadClose => {
                (0..plan.calls).try_for_each(|n| fs::metadata(pick(n)).map(drop))?;
                let mut buffer = Vec::with_capacity(plan.value_size + 1);
                repeat(plan.calls, |n| {
                    buffer.clear();
                    File::open(pick(n))?.read_to_end(&mut buffer).map(drop)
                })
            }
            Self::Create => {
                let new = side.root.join("new");
                repeat(plan.calls, |n| fs::write(new.join(format!("new{number}-{n}")), &content))
            }
            Self::CreateExclusive => {
                let new = side.root.join("new");
                repeat(plan.calls, |n| {
                    File::create_new(new.join(format!("excl{number}-{n}")))?.write_all(&content)
                })
            }
            Self::Overwrite => repeat(plan.calls, |n| fs::write(pick(n), &content)),
            Self::Readdir => repeat(SWEEPS, |_| seen(names(&many)?, plan.files)),
            Self::Find => {
                let find =
                    || seen(lines_of(Command::new("find").arg(&tree).args(["-type", "f"]))?, plan.tree);
                find()?;
                repeat(1, |_| find())
            }
            Self::GrepWarm => {
                grep(&many, plan.files)?;
                repeat(1, |_| grep(&many, plan.files))
            }
            Self::GrepCold => {
                let dir = side.fill(&format!("grep{number}"), plan.files, &content)?;
                repeat(1, |_| grep(&dir, plan.files))
            }
            Self::Put | Self::Visible | Self::Heard => return self.remote_round(side, plan, number),
        };
        timed
            .map_err(|error| CliError::failed(format!("{} in {}: {error}", self.name(), side.root.display())))
    }

    fn remote_round(self, side: &Side, plan: &FilesPlan, number: usize) -> Result<Histogram<u64>, CliError> {
        let mut latencies = latencies();
        let Filler::Remote(remote) = &side.filler else { return Ok(latencies) };
        let name = if self == Self::Heard { "heard" } else { "visible" };
        let listener = (self == Self::Heard).then(|| Listener::to(&side.root, name)).transpose()?;
        for n in 0..plan.calls {
            let mut content = format!("{number} {n} ").into_bytes();
            content.resize(plan.value_size.max(content.len()), b'.');
            let asked = Instant::now();
            remote.put_one(name, &content)?;
            let answered = Instant::now();
            let told = match &listener {
                Some(listener) => listener.next()?,
                None => {
                    side.wait_for(name, &content)?;
                    Instant::now()
                }
            };
            // It may be told before it is answered.
            let time = if self == Self::Put { answered - asked } else { told.duration_since(answered) };
            latencies.saturating_record(nanos(time));
        }
        Ok(latencies)
    }
}

/// A round lists the directory as often.
const SWEEPS: usize = 5;

pub(super) fn content(size: usize) -> Vec<u8> {
    b"etcfs-bench ".iter().copied().cycle().take(size.max(12)).collect()
}

fn repeat(calls: usize, mut call: impl FnMut(usize) -> io::Result<()>) -> io::Result<Histogram<u64>> {
    let mut latencies = latencies();
    for number in 0..calls {
        let begin = Instant::now();
        call(number)?;
        latencies.saturating_record(nanos(begin.elapsed()));
    }
    Ok(latencies)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1)
}

fn names(dir: &Path) -> io::Result<usize> {
    let mut names = 0;
    for entry in fs::read_dir(dir)? {
        entry?;
        names += 1;
    }
    Ok(names)
}

fn seen(count: usize, files: usize) -> io::Result<()> {
    match count == files {
        true => Ok(()),
        false => Err(io::Error::other(format!("{count} files seen instead of {files}"))),
    }
}

fn grep(dir: &PathBuf, files: usize) -> io::Result<()> {
    seen(lines_of(Command::new("grep").args(["-r", "-l", "etcfs-bench"]).arg(dir))?, files)
}

/// Stats every file of the tree, by `find`.
pub(super) fn stat_all(tree: &Path, files: usize) -> io::Result<()> {
    seen(lines_of(Command::new("find").arg(tree).args(["-type", "f", "-size", "+0"]))?, files)
}

fn lines_of(command: &mut Command) -> io::Result<usize> {
    let output = command.stderr(Stdio::inherit()).output()?;
    Ok(output.stdout.iter().filter(|byte| **byte == b'\n').count())
}
