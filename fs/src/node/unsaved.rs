//! What a process sees of what it has written and not saved.
//!
//! Writers keep their edits to themselves until they are saved, so that nobody reads half a save. The process that
//! makes them must not be caught by that: a file that it opens while it has it open for writing reads as the
//! writing descriptor does, the edits of all its writers of that file included. That is decided once, by open: what
//! was open before is its revision, as for everybody, so that a program which overwrites what it reads gets what
//! was there. A file opened beside writers becomes a reader of what they leave when the last of them is closed.
//! Whoever inherits a descriptor reads what its opener reads.

use bytes::Bytes;

use super::file::KeyState;
use super::handle::{Reader, Unlinked, Writer};
use super::table::{Handle, Node};
use super::{Edits, Fh, NodeId, Process, Table};

/// A file as several writers together make it.
#[derive(Debug)]
pub(super) struct View<'t> {
    base: &'t Bytes,
    /// The newest last.
    edits: Vec<&'t Edits>,
}

impl View<'_> {
    pub(super) fn read(&self, offset: u64, size: usize) -> Bytes {
        match self.edits.split_last() {
            None => Edits::default().read(self.base, offset, size),
            Some((last, [])) => last.read(self.base, offset, size),
            Some((last, earlier)) => {
                let base = earlier.iter().fold(self.base.clone(), |base, edits| edits.apply(&base));
                last.read(&base, offset, size)
            }
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.edits.iter().fold(self.base.len() as u64, |len, edits| edits.len_on(len))
    }
}

impl Table {
    /// Writers of these inodes.
    pub(super) fn writers_on(
        &self,
        nodes: impl IntoIterator<Item = NodeId>,
    ) -> impl Iterator<Item = (NodeId, Fh, &Writer)> {
        let handles = nodes.into_iter().filter_map(|id| match self.nodes.get(&id) {
            Some(Node::File(node)) if node.handles().len() > node.readers() as usize => {
                Some(node.handles().iter().map(move |&fh| (id, fh)))
            }
            _ => None,
        });
        handles.flatten().filter_map(|(id, fh)| match self.handles.get(&fh) {
            Some(Handle::Writer(writer)) => Some((id, fh, writer)),
            _ => None,
        })
    }

    /// True if somebody has the file open for writing: only then does it matter who asks.
    pub(crate) fn has_writers(&self, id: NodeId) -> bool {
        let state = self.state_of(id);
        state.is_some_and(|state| self.writers_on(state.nodes()).next().is_some())
    }

    /// The writers of one file that a process has open, in the order of their changes.
    pub(super) fn writers_of_process<'t>(
        &'t self,
        state: &'t KeyState,
        process: Process,
        unlinked: Option<Unlinked>,
    ) -> Vec<(Fh, &'t Writer)> {
        let own = |writer: &Writer| writer.processes.contains(&process) && writer.unlinked() == unlinked;
        let writers = self.writers_on(state.nodes()).filter(|(_, _, writer)| own(writer));
        let mut writers: Vec<(Fh, &Writer)> = writers.map(|(_, fh, writer)| (fh, writer)).collect();
        writers.sort_by_key(|(fh, writer)| (writer.last_edit, fh.0));
        writers
    }

    /// What these writers make of their file; of those that failed, only `own` counts.
    pub(super) fn view<'t>(
        state: &'t KeyState,
        writers: &[(Fh, &'t Writer)],
        own: Option<Fh>,
    ) -> Option<View<'t>> {
        let (_, first) = writers.first()?;
        let counts = |&&(fh, writer): &&(Fh, &Writer)| writer.is_unsaved() || own == Some(fh);
        let edits = writers.iter().filter(counts).map(|(_, writer)| &writer.edits).collect();
        Some(View { base: first.base(state.bytes()), edits })
    }

    /// What is seen through a writer: its own edits, and those of its processes' other writers.
    pub(super) fn writers_with<'t>(&'t self, fh: Fh, writer: &'t Writer) -> Vec<(Fh, &'t Writer)> {
        let mut writers = vec![(fh, writer)];
        if let Some(state) = self.keys.get(&writer.key[..]) {
            for &process in &writer.processes {
                for other in self.writers_of_process(state, process, writer.unlinked()) {
                    if writers.iter().all(|&(fh, _)| fh != other.0) {
                        writers.push(other);
                    }
                }
            }
        }
        writers.sort_by_key(|(fh, writer)| (writer.last_edit, fh.0));
        writers
    }

    /// What is seen through a reader that was opened beside writers.
    pub(super) fn view_beside(&self, reader: &Reader) -> Option<View<'_>> {
        let process = reader.beside?;
        let Some(Node::File(node)) = self.nodes.get(&reader.node) else { return None };
        let state = self.keys.get(&node.key)?;
        Self::view(state, &self.writers_of_process(state, process, reader.unlinked), None)
    }

    /// True if one of the writers of a file belongs to the process.
    pub(super) fn writes(&self, id: NodeId, process: Process) -> bool {
        let state = self.state_of(id);
        state.is_some_and(|state| !self.writers_of_process(state, process, None).is_empty())
    }

    /// True unless others alone have opened a writer and written through it.
    pub(crate) fn is_used_by(&self, fh: Fh, process: Process) -> bool {
        match self.handles.get(&fh) {
            Some(Handle::Writer(writer)) => {
                writer.processes.is_empty() || writer.processes.contains(&process)
            }
            _ => true,
        }
    }

    /// True if the process has opened this inode beside its own writers.
    pub(super) fn reads_beside(&self, id: NodeId, process: Process) -> bool {
        let Some(Node::File(node)) = self.nodes.get(&id) else { return false };
        let mut readers = node.handles().iter().filter_map(|fh| self.handles.get(fh));
        readers.any(|handle| matches!(handle, Handle::Reader(reader) if reader.beside == Some(process)))
    }

    /// A writer is about to be closed: who was opened beside it, and beside no other, reads what it leaves.
    pub(super) fn settle_beside(&mut self, fh: Fh) {
        let Some(Handle::Writer(writer)) = self.handles.get(&fh) else { return };
        let Some(state) = self.keys.get(&writer.key[..]) else { return };
        let mut settled = Vec::new();
        for id in state.nodes() {
            let Some(Node::File(node)) = self.nodes.get(&id) else { continue };
            for &other in node.handles() {
                let Some(Handle::Reader(reader)) = self.handles.get(&other) else { continue };
                let Some(process) = reader.beside else { continue };
                let writers = self.writers_of_process(state, process, reader.unlinked);
                if let [(last, _)] = writers[..]
                    && last == fh
                    && let Some(view) = Self::view(state, &writers, None)
                {
                    settled.push((other, view.read(0, usize::MAX)));
                }
            }
        }
        let seq = state.seq;
        for (other, bytes) in settled {
            if let Some(Handle::Reader(reader)) = self.handles.get_mut(&other) {
                reader.settle(bytes, seq);
            }
        }
    }
}
