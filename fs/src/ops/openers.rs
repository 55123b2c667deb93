//! Who has a file open: asked of `/proc/PID/fdinfo`, since the kernel says only which process closes a descriptor,
//! and not whether it was the last one.

use std::collections::HashSet;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::Fs;
use crate::node::{Caller, Fh, NodeId, Process, file_ino};

/// Generations of a process that are looked at for a file that it inherited.
pub(super) const ANCESTORS_MAX: usize = 64;

/// A process and its parent: at a child's end, what it has inherited is closed without being done with.
const CLOSERS: usize = 2;

impl Fs {
    /// True if the file is still open, as far as can be seen, after `pid` has closed a descriptor of it.
    pub(super) fn stays_open(&self, id: NodeId, pid: u32) -> bool {
        let Some(key) = self.nodes.with(|table| table.key_of(id)) else { return false };
        // The kernel knows an inode by the number that it was told last: the node's or the key's.
        pid == 0 || !can_see(pid) || has_open(pid, CLOSERS, &HashSet::from([id.0, file_ino(&key)]))
    }

    /// Who asks about a file. The process is looked up only where somebody writes the file.
    pub(super) fn asker(&self, id: NodeId, thread: u32) -> Caller {
        let written = self.nodes.with(|table| table.has_writers(id));
        Caller { thread, process: if written { process_of(thread) } else { None } }
    }

    /// Who opens a file for writing.
    pub(super) fn writer(thread: u32) -> Caller {
        Caller { thread, process: process_of(thread) }
    }

    /// True if the process of a thread has opened a file or written through it, as far as is known.
    pub(super) fn has_used(&self, fh: Fh, thread: u32) -> bool {
        process_of(thread).is_none_or(|process| self.nodes.with(|table| table.is_used_by(fh, process)))
    }

    /// Who writes through a handle; looked up only where another thread did before.
    pub(super) fn asker_writing(&self, fh: Fh, thread: u32) -> Caller {
        let same = self.nodes.with(|table| table.writer_thread(fh)) == Some(thread);
        Caller { thread, process: if same { None } else { process_of(thread) } }
    }
}

/// True if a process, or one of its ancestors in so many generations, has one of these inodes open.
pub(super) fn has_open(pid: u32, generations: usize, inodes: &HashSet<u64>) -> bool {
    let mut pid = pid;
    for _ in 0..generations {
        if pid <= 1 {
            return false;
        }
        if open_inodes(pid).any(|inode| inodes.contains(&inode)) {
            return true;
        }
        let Some(parent) = parent_of(pid) else { return false };
        pid = parent;
    }
    false
}

fn can_see(pid: u32) -> bool {
    std::fs::read_dir(format!("/proc/{pid}/fdinfo")).is_ok()
}

/// The inode numbers of a process's open files, of whatever file system: ours are hashes that no other has.
fn open_inodes(pid: u32) -> impl Iterator<Item = u64> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    files.filter_map(|file| {
        let text = std::fs::read_to_string(file.path()).ok()?;
        text.lines().find_map(|line| line.strip_prefix("ino:"))?.trim().parse().ok()
    })
}

fn parent_of(pid: u32) -> Option<u32> {
    status_of(pid, "PPid:")
}

/// The process that a thread belongs to. What is gone, or can't be seen, is taken for a process of its own.
fn process_of(thread: u32) -> Option<Process> {
    let pid = Pid::from_raw(i32::try_from(thread).ok()?)?;
    // Only a process's first thread has its number, and a descriptor: cheaper than to read what its status says.
    if pidfd_open(pid, PidfdFlags::empty()).is_ok() {
        return Some(Process(thread));
    }
    Some(Process(status_of(thread, "Tgid:").unwrap_or(thread)))
}

fn status_of(pid: u32, name: &str) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}
