//! Which inodes of the mount somebody watches, read from the descriptors of all processes.
//!
//! It is a look at one moment, and only where this process may see everybody: so it decides nothing but what can't
//! harm a listener who was there before the change. It costs some milliseconds for a few hundred descriptors.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use crate::node::NodeId;

/// The first process namespace, in which every process shows: `PROC_PID_INIT_INO` of the kernel.
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// What is watched.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Watched {
    /// By an inode watch each.
    Inodes(HashSet<NodeId>),
    /// Perhaps all: a mark of the whole mount, or not everybody can be seen.
    All,
}

impl Watched {
    pub(super) fn holds(&self, id: NodeId) -> bool {
        match self {
            Self::Inodes(ids) => ids.contains(&id),
            Self::All => true,
        }
    }

    /// Looks at every process.
    pub(super) fn look(device: (u32, u32)) -> Self {
        let here = fs::read_link("/proc/self/ns/pid").is_ok_and(|name| name.as_os_str() == FIRST_NAMESPACE);
        if !here || !rustix::process::geteuid().is_root() {
            return Self::All;
        }
        let mut ids = HashSet::new();
        let Ok(processes) = fs::read_dir("/proc") else { return Self::All };
        for process in processes.flatten() {
            let is_process = process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
            if is_process && !look_at(&process.path(), device, &mut ids) {
                return Self::All;
            }
        }
        Self::Inodes(ids)
    }
}

/// Takes in the watches of one process; false for a mark of more than inodes.
fn look_at(process: &Path, device: (u32, u32), ids: &mut HashSet<NodeId>) -> bool {
    // A process may end while it is looked at.
    let Ok(open) = fs::read_dir(process.join("fd")) else { return true };
    for fd in open.flatten() {
        let Ok(target) = fs::read_link(fd.path()) else { continue };
        let target = target.as_os_str().as_encoded_bytes();
        if !target.starts_with(b"anon_inode:inotify") && !target.starts_with(b"anon_inode:[fanotify]") {
            continue;
        }
        let Ok(facts) = fs::read_to_string(process.join("fdinfo").join(fd.file_name())) else { continue };
        for line in facts.lines() {
            match watch(line, device) {
                Some(Some(id)) => drop(ids.insert(id)),
                Some(None) => return false,
                None => {}
            }
        }
    }
    true
}

/// One line of a descriptor's facts: `Some(None)` for a mark of a mount or a whole file system.
fn watch(line: &str, device: (u32, u32)) -> Option<Option<NodeId>> {
    let mut words = line.split(' ');
    let kind = words.next()?;
    if kind != "inotify" && kind != "fanotify" {
        return None;
    }
    let value = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix(':'));
    let inode = value("ino").is_some();
    if kind == "fanotify" && !inode {
        // `fanotify flags:...` is about the descriptor itself.
        return (value("mnt_id").is_some() || value("sdev").is_some()).then_some(None);
    }
    // The kernel's own form of a device number.
    let (major, minor) = device;
    if u64::from_str_radix(value("sdev")?, 16).ok()? != u64::from(major << 20 | minor) {
        return None;
    }
    Some(handle(value("f_handle").unwrap_or_default()))
}

/// The node's number from a FUSE handle as hex; without one it may be any.
fn handle(hex: &str) -> Option<NodeId> {
    let half = |at: usize| {
        let bytes = hex.get(at..at + 8)?;
        u32::from_str_radix(bytes, 16).ok().map(u32::swap_bytes)
    };
    Some(NodeId(u64::from(half(0)?) << 32 | u64::from(half(8)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_names_the_inode_by_its_handle() {
        let line = "inotify wd:1 ino:2 sdev:29 mask:fff ignored_mask:0 fhandle-bytes:c fhandle-type:81 \
                    f_handle:010000400200000000000000";
        assert_eq!(watch(line, (0, 0x29)), Some(Some(NodeId(0x4000_0001_0000_0002))));
        assert_eq!(watch(line, (0, 0x30)), None, "another file system");
        assert_eq!(watch("fanotify flags:10 event-flags:0", (0, 0x29)), None);
        assert_eq!(watch("fanotify mnt_id:1e mflags:0 mask:2 ignored_mask:0", (0, 0x29)), Some(None));
        assert_eq!(watch("pos:\t0", (0, 0x29)), None);
    }
}
