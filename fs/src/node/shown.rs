//! What stat shows of a file: to whom, and what the kernel may keep of it.
//!
//! An inode shows its own revision. Who writes it sees what is written, saved or
//! not; who has read to the end sees how far reading goes on. All of them share the
//! one size that the kernel keeps, so an answer to one of them may be wrong for the
//! next: while an inode has writers, nothing of it is kept.

use std::time::{Instant, SystemTime};

use super::file::{KeyState, home_of};
use super::handle::Writer;
use super::table::{Handle, Node};
use super::{Attr, Caller, Fh, Kind, Known, NodeId, Table};

/// What stat shows in the place of an inode's own revision.
#[derive(Clone, Copy, Debug)]
struct Shown {
    size: u64,
    rev: i64,
    /// When a writer changed it, if that is not saved.
    unsaved: Option<SystemTime>,
}

fn shown_by(state: &KeyState, writers: &[(Fh, &Writer)], own: Option<Fh>) -> Option<Shown> {
    Some(Shown {
        size: Table::view(state, writers, own)?.len(),
        rev: state.known.value().map_or(0, |value| value.rev),
        unsaved: writers.iter().filter_map(|(_, writer)| writer.changed).max(),
    })
}

impl Table {
    pub(super) fn tell(&mut self, id: NodeId, keep: bool) {
        if let Some(Node::File(node)) = self.nodes.get_mut(&id) {
            node.kept = keep;
        }
    }

    /// What a file is through `fh`, or to a process that writes it: also where the name has another inode since
    /// the file was opened.
    fn shown_to(&self, id: NodeId, caller: Caller, fh: Option<Fh>) -> Option<Shown> {
        let state = self.state_of(id)?;
        match fh.map(|fh| (fh, self.handles.get(&fh))) {
            Some((fh, Some(Handle::Writer(writer)))) => {
                shown_by(state, &self.writers_with(fh, writer), Some(fh))
            }
            Some((_, Some(Handle::Reader(reader)))) => {
                let writers = self.writers_of_process(state, reader.beside?, reader.unlinked);
                shown_by(state, &writers, None)
            }
            Some(_) => None,
            None => {
                let process = caller.process?;
                let reads_here = self.reads_beside(id, process);
                let own = |(at, _, writer): &(NodeId, Fh, &Writer)| {
                    writer.processes.contains(&process)
                        && (*at == id || (writer.anonymous.is_none() && (reads_here || writer.is_unsaved())))
                };
                // The file that has the name, before one that has lost it.
                let found =
                    self.writers_on(state.nodes()).filter(own).map(|(_, _, writer)| writer.unlinked());
                let unlinked = found.min_by_key(Option::is_some)?;
                shown_by(state, &self.writers_of_process(state, process, unlinked), None)
            }
        }
    }

    /// What the writers of an inode make of it.
    fn written(&self, id: NodeId) -> Option<Shown> {
        let state = self.state_of(id)?;
        let (_, fh, writer) = self.writers_on([id]).max_by_key(|(_, _, writer)| writer.changed)?;
        shown_by(state, &[(fh, writer)], Some(fh))
    }

    /// The attributes of an inode's own revision, or of what is shown in its place.
    fn file_attr(&self, id: NodeId, shown: Option<Shown>) -> Option<Attr> {
        let Some(Node::File(node)) = self.nodes.get(&id) else { return None };
        let state = self.keys.get(&node.key)?;
        let home = home_of(&node.key, Kind::File);
        let behind = state.cur() != Some(id) || node.seq(state) != state.pub_seq();
        let written = self.writers_on(state.nodes()).next().is_some();
        let local = self.locals.get(&node.key[..]);
        let own = || Shown { size: node.bytes(state).len() as u64, rev: node.rev(state), unsaved: None };
        let shown = shown.unwrap_or_else(own);
        Some(Attr {
            ino: home.0,
            kind: Kind::File,
            size: shown.size,
            rev: shown.rev,
            unsaved: shown.unsaved.max(local.map(|file| file.changed)),
            nlink: u32::from(state.known != Known::Absent),
            keep: id == home
                && !self.limits.strict
                && !behind
                && !written
                && state.is_settled()
                && local.is_none(),
        })
    }

    /// Answers getattr on a file's inode, asked by somebody or through `fh`.
    pub(crate) fn getattr_file(
        &mut self,
        id: NodeId,
        caller: Caller,
        fh: Option<Fh>,
        now: Instant,
    ) -> Option<Attr> {
        let Some(Node::File(node)) = self.nodes.get(&id) else { return None };
        let mut newest: Option<(u64, Fh)> = None;
        for &handle in node.handles() {
            let asked = fh == Some(handle);
            if let Some(Handle::Reader(reader)) = self.handles.get(&handle)
                && (asked || (fh.is_none() && reader.pid == caller.thread))
            {
                let order = if asked { u64::MAX } else { reader.order };
                if newest.is_none_or(|(other, _)| other < order) {
                    newest = Some((order, handle));
                }
            }
        }
        let mut shown = self.shown_to(id, caller, fh);
        if shown.is_none()
            && let Some((_, fh)) = newest
            && let (Some(Node::File(node)), Some(Handle::Reader(reader))) =
                (self.nodes.get(&id), self.handles.get_mut(&fh))
        {
            match node.open.as_ref().and_then(|open| reader.grown(&open.log, now)) {
                Some(grown) if self.limits.follow => {
                    let rev = self.keys.get(&node.key).map_or(0, |state| node.rev(state));
                    shown = Some(Shown { size: grown, rev, unsaved: None });
                }
                _ => reader.asked(now),
            }
        }
        let attr = self.file_attr(id, shown)?;
        self.tell(id, attr.keep);
        if let Some(Node::File(node)) = self.nodes.get_mut(&id) {
            node.told_at = Some(now);
        }
        Some(attr)
    }

    /// The attributes of an inode's own revision, and the kernel may keep what they say. While a program writes
    /// it they are those of what is written, since the kernel would cut what that program maps or sends down to
    /// the size that it is told here; nobody else sees them, because the kernel asks again for whoever asks.
    pub(crate) fn own_attr(&mut self, id: NodeId) -> Option<Attr> {
        let attr = self.file_attr(id, self.written(id))?;
        self.tell(id, attr.keep);
        Some(attr)
    }
}
