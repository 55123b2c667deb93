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
use super::{Attr, Fh, Kind, Known, NodeId, Table};

/// What stat shows in the place of an inode's own revision.
#[derive(Clone, Copy, Debug)]
struct Shown {
    size: u64,
    rev: i64,
    /// When a writer changed it, if that is not saved.
    unsaved: Option<SystemTime>,
}

fn shown_by(writer: &Writer, state: &KeyState) -> Shown {
    Shown {
        size: writer.len_on(state.bytes().len() as u64),
        rev: state.known.value().map_or(0, |value| value.rev),
        unsaved: writer.changed,
    }
}

impl Table {
    pub(super) fn tell(&mut self, id: NodeId, keep: bool) {
        if let Some(Node::File(node)) = self.nodes.get_mut(&id) {
            node.kept = keep;
        }
    }

    /// Writers of these inodes.
    fn writers_on<'t>(&'t self, nodes: &'t [NodeId]) -> impl Iterator<Item = (NodeId, Fh, &'t Writer)> {
        let handles = nodes.iter().filter_map(|&id| match self.nodes.get(&id) {
            Some(Node::File(node)) => Some(node.handles.iter().map(move |&fh| (id, fh))),
            _ => None,
        });
        handles.flatten().filter_map(|(id, fh)| match self.handles.get(&fh) {
            Some(Handle::Writer(writer)) => Some((id, fh, writer)),
            _ => None,
        })
    }

    /// What a file is to a process that writes it, or through `fh`: also where the name has another inode since
    /// the file was opened.
    fn shown_by_writer(&self, id: NodeId, pid: u32, fh: Option<Fh>) -> Option<Shown> {
        let Some(Node::File(node)) = self.nodes.get(&id) else { return None };
        let state = self.keys.get(&node.key)?;
        let asked = |&(at, writer_fh, writer): &(NodeId, Fh, &Writer)| match fh {
            Some(fh) => fh == writer_fh,
            None => {
                writer.pid == pid && (at == id || (writer.changed.is_some() && writer.anonymous.is_none()))
            }
        };
        let writers = self.writers_on(&state.nodes).filter(asked);
        let (_, _, writer) = writers.max_by_key(|(_, _, writer)| writer.changed)?;
        Some(shown_by(writer, state))
    }

    /// What the writers of an inode make of it.
    fn written(&self, id: NodeId) -> Option<Shown> {
        let state = self.keys.get(&self.key_of(id)?)?;
        let own = [id];
        let (_, _, writer) = self.writers_on(&own).max_by_key(|(_, _, writer)| writer.changed)?;
        Some(shown_by(writer, state))
    }

    /// The processes, beside `pid`, that have written a file and not saved it.
    pub(crate) fn unsaved_by_others(&self, id: NodeId, pid: u32) -> Vec<u32> {
        let state = self.key_of(id).and_then(|key| self.keys.get(&key));
        let writers = state.iter().flat_map(|state| self.writers_on(&state.nodes));
        let unsaved = writers.filter(|(_, _, writer)| writer.changed.is_some() && writer.pid != pid);
        unsaved.map(|(_, _, writer)| writer.pid).collect()
    }

    /// The attributes of an inode's own revision, or of what is shown in its place.
    fn file_attr(&self, id: NodeId, shown: Option<Shown>) -> Option<Attr> {
        let Some(Node::File(node)) = self.nodes.get(&id) else { return None };
        let state = self.keys.get(&node.key)?;
        let home = home_of(&node.key, Kind::File);
        let behind = state.cur != Some(id) || node.base_seq != state.pub_seq;
        let written = self.writers_on(&state.nodes).next().is_some();
        let local_changed = state.local_changed.filter(|_| state.local.is_some());
        let shown =
            shown.unwrap_or(Shown { size: node.base.len() as u64, rev: node.base_rev, unsaved: None });
        Some(Attr {
            ino: home.0,
            kind: Kind::File,
            size: shown.size,
            rev: shown.rev,
            unsaved: shown.unsaved.max(local_changed),
            nlink: u32::from(state.known != Known::Absent),
            keep: id == home
                && !self.limits.strict
                && !behind
                && !written
                && state.pub_seq == state.seq
                && !state.queued
                && state.local.is_none(),
        })
    }

    /// Answers getattr on a file's inode, asked by `pid` or through `fh`.
    pub(crate) fn getattr_file(
        &mut self,
        id: NodeId,
        pid: u32,
        fh: Option<Fh>,
        now: Instant,
    ) -> Option<Attr> {
        let Some(Node::File(node)) = self.nodes.get(&id) else { return None };
        let mut newest: Option<(u64, Fh)> = None;
        for &handle in &node.handles {
            let asked = fh == Some(handle);
            if let Some(Handle::Reader(reader)) = self.handles.get(&handle)
                && (asked || (fh.is_none() && reader.pid == pid))
            {
                let order = if asked { u64::MAX } else { reader.order };
                if newest.is_none_or(|(other, _)| other < order) {
                    newest = Some((order, handle));
                }
            }
        }
        let mut shown = self.shown_by_writer(id, pid, fh);
        if shown.is_none()
            && let Some((_, fh)) = newest
            && let (Some(Node::File(node)), Some(Handle::Reader(reader))) =
                (self.nodes.get(&id), self.handles.get_mut(&fh))
        {
            match reader.grown(&node.log, now) {
                Some(grown) if self.limits.follow => {
                    shown = Some(Shown { size: grown, rev: node.base_rev, unsaved: None });
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
