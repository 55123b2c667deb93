//! One job: what the kernel holds of it decides by which calls its listeners hear.
//!
//! Listeners of a directory and of the file's current inode hear a call by path. An inode that the name has left,
//! because somebody reads its older value, is reached by its handle alone, and only where somebody watches it: as long
//! as a program has anything to do with such an inode, its directory's listeners hear that call as well. Where those
//! who listen can all be reached by the handle, that is tried first, and may be the one call that is made.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use bytes::Bytes;

use super::watches::Watched;
use super::wire::{IN_DIRECTORY, Order, Path};
use super::{Over, Teller};
use crate::config::Inotify;
use crate::map::{Dir, KeyMap};
use crate::node::{DirStep, FileStep, HeldNode, Job, Kind, NodeId, Place, ROOT, Repeat};
use crate::ops::Fs;

/// With more jobs waiting, none waits for an inode to be free.
const PATIENT_UP_TO: usize = 8;

/// A name as the tree has it and as the kernel walks to it.
struct Spot {
    place: Place,
    path: Path,
}

/// True unless it is known that nobody watches what the job is about.
pub(super) fn is_watched(fs: &Fs, job: &Job, watched: &Watched) -> bool {
    let holds = |dir: &Dir| {
        fs.nodes.with(|table| table.dir_node(dir).or(table.retired(dir))).is_some_and(|id| watched.holds(id))
    };
    match job {
        Job::File { key, .. } => {
            let nodes = fs.nodes.with(|table| table.nodes_of(key, Instant::now()));
            nodes.iter().any(|node| watched.holds(node.id))
                || spot_of_file(fs, key).is_some_and(|spot| holds(&spot.place.dir))
        }
        Job::Dir { prefix, .. } => {
            let own = dir_at(prefix);
            holds(&own) || spot_of_dir(fs, prefix).is_some_and(|spot| holds(&spot.place.dir))
        }
        Job::Link { .. } => watched.holds(ROOT),
        Job::Move { .. } | Job::Hold { .. } | Job::LetGo(_) => true,
    }
}

fn dir_at(prefix: &Bytes) -> Dir {
    KeyMap::dir_of(&prefix.slice(..prefix.len() - 1).into())
}

fn path_of(names: &[OsString]) -> Path {
    let Some((name, parents)) = names.split_last() else { return Path::default() };
    let parents: Vec<&[u8]> = parents.iter().map(|name| name.as_bytes()).collect();
    Path { parent: parents.join(&b'/'), name: name.as_bytes().to_vec() }
}

/// Where a key's file shows: under its name, or inside itself where it is a directory too.
fn spot_of_file(fs: &Fs, key: &Bytes) -> Option<Spot> {
    let mut names = fs.map.names_of(key)?;
    let below = KeyMap::dir_of(&key.clone().into());
    let is_dir = below.prefix().and_then(|prefix| fs.nodes.with(|table| table.dir_exists(prefix)));
    let place = if is_dir == Some(true) {
        let name = OsString::from("%value");
        names.push(name.clone());
        Place { dir: below, name }
    } else {
        let (dir, name) = fs.map.place_of(key)?;
        Place { dir, name }
    };
    Some(Spot { place, path: path_of(&names) })
}

fn spot_of_dir(fs: &Fs, prefix: &Bytes) -> Option<Spot> {
    let key = prefix.slice(..prefix.len().checked_sub(1)?);
    let names = fs.map.names_of(&key)?;
    let (dir, name) = fs.map.place_of(&key)?;
    Some(Spot { place: Place { dir, name }, path: path_of(&names) })
}

/// The watched inodes that the name leads to no more, if all who listen may hear by their handles: the directory's
/// listeners, as long as a program has to do with such an inode, and nobody else who watches the name's own.
fn left_to_all(nodes: &[HeldNode], watched: &Watched) -> Vec<NodeId> {
    if *watched == Watched::All || nodes.iter().any(|node| node.named && watched.holds(node.id)) {
        return Vec::new();
    }
    nodes.iter().filter(|node| !node.named && watched.holds(node.id)).map(|node| node.id).collect()
}

impl Teller {
    pub(super) fn tell(&mut self, job: Job) -> Result<(), Over> {
        match job {
            Job::File { key, steps } => {
                self.settled(&key)?;
                for step in steps {
                    self.tell_file(&key, step)?;
                }
                Ok(())
            }
            Job::Dir { prefix, steps } => self.tell_dir(&prefix, &steps),
            Job::Link { component, rev } => self.tell_link(&component, rev),
            Job::Move { from, to, rev, same } => self.tell_move(&from, &to, rev, same),
            Job::Hold { key, id } => self.hold(&key, id),
            Job::LetGo(id) => self.carry_out(&Repeat::Inode, &Order::LetGo { node: id.0 }).map(drop),
        }
    }

    /// Waits until the kernel has dropped what it kept of the key's older value.
    fn settled(&self, key: &Bytes) -> Result<(), Over> {
        match self.fs.nodes.with(|table| table.wait_known(key)) {
            // An answer that never comes: the key is not in the table any more, so nothing is kept of it.
            Some(waiting) => self.wait(waiting).map(|_gone_too| ()),
            None => Ok(()),
        }
    }

    fn tell_file(&mut self, key: &Bytes, step: FileStep) -> Result<(), Over> {
        let Some(spot) = spot_of_file(&self.fs, key) else { return Ok(()) };
        match step {
            FileStep::Created => self.created(key, spot),
            FileStep::Modified => self.modified(key, spot),
            FileStep::Deleted => self.deleted(key, spot),
            FileStep::Own(through) => {
                let nodes = self.nodes_of(key);
                let others = nodes.iter().map(|node| node.id).filter(|&id| Some(id) != through);
                self.touch(key, others.collect()).map(drop)
            }
        }
    }

    fn may_listen(&self, dir: &Dir) -> bool {
        self.fs.view.inotify == Inotify::Always
            || self.fs.nodes.with(|table| table.dir_node(dir).is_some() || table.retired(dir).is_some())
    }

    fn created(&mut self, key: &Bytes, spot: Spot) -> Result<(), Over> {
        if !self.may_listen(&spot.place.dir) {
            return Ok(());
        }
        let held = !self.nodes_of(key).is_empty();
        let order = Order::Create { at: spot.path, len: self.len_of(key) };
        let repeat = Repeat::Create { at: spot.place.clone(), key: key.clone() };
        self.carry_out(&repeat, &order)?;
        if !held {
            self.forget(&spot.place);
        }
        Ok(())
    }

    fn modified(&mut self, key: &Bytes, spot: Spot) -> Result<(), Over> {
        let (waiting, after) =
            self.fs.nodes.with(|table| (table.echo_waiting(), table.moves_after(key, Instant::now())));
        if let Some(after) = after.filter(|_| waiting < PATIENT_UP_TO) {
            std::thread::sleep(after);
        }
        let nodes = self.nodes_of(key);
        let left = nodes.iter().any(|node| !node.named);
        let mut reached = if left { left_to_all(&nodes, &self.seen()) } else { Vec::new() };
        let told = self.touch(key, reached.clone())?;
        if self.may_listen(&spot.place.dir) && !told {
            let order = Order::Modify { at: spot.path, len: self.len_of(key) };
            reached.extend(self.carry_out(&Repeat::Modify { at: spot.place.clone() }, &order)?.opened);
            if nodes.is_empty() {
                self.forget(&spot.place);
            }
        }
        let others = nodes.iter().map(|node| node.id).filter(|id| !reached.contains(id));
        self.touch(key, others.collect()).map(drop)
    }

    fn deleted(&mut self, key: &Bytes, spot: Spot) -> Result<(), Over> {
        let nodes = self.nodes_of(key);
        let mut named = None;
        if self.may_listen(&spot.place.dir) {
            named = nodes.iter().find(|node| node.current).or(nodes.first()).map(|node| node.id);
            let repeat = Repeat::Delete { at: spot.place, key: key.clone() };
            self.carry_out(&repeat, &Order::Remove { at: spot.path })?;
        }
        let others = nodes.iter().map(|node| node.id).filter(|&id| Some(id) != named);
        for id in self.watched_of(key, others.collect()) {
            self.carry_out(&Repeat::Inode, &Order::Look { node: id.0 })?;
        }
        Ok(())
    }

    /// Reaches inodes by their handles, for those who watch them. True if the listeners of their directory have heard
    /// it too.
    fn touch(&mut self, key: &Bytes, ids: Vec<NodeId>) -> Result<bool, Over> {
        let mut dir_heard = false;
        for id in self.watched_of(key, ids) {
            let order = Order::Touch { node: id.0, len: self.len_of(key) };
            dir_heard |= self.carry_out(&Repeat::Inode, &order)?.reply.node == IN_DIRECTORY;
        }
        Ok(dir_heard)
    }

    /// Those of a key's inodes that the kernel still holds and that somebody watches. The others are left alone:
    /// while a program is about to open such an inode, has it open or has just closed it, which is not to be seen
    /// from here, a call by its handle is heard in its directory, whose listeners have heard the call by path.
    fn watched_of(&mut self, key: &Bytes, mut ids: Vec<NodeId>) -> Vec<NodeId> {
        let held = self.nodes_of(key);
        ids.retain(|id| held.iter().any(|node| node.id == *id));
        if !ids.is_empty() {
            let watched = self.seen();
            ids.retain(|&id| watched.holds(id));
        }
        ids
    }

    fn nodes_of(&self, key: &[u8]) -> Vec<HeldNode> {
        self.fs.nodes.with(|table| table.nodes_of(key, Instant::now()))
    }

    fn len_of(&self, key: &Bytes) -> u64 {
        self.fs.nodes.with(|table| table.known(key).value().map_or(0, |value| value.bytes.len() as u64))
    }

    /// Holds an inode that somebody has just opened, if the name still leads to it.
    fn hold(&mut self, key: &Bytes, id: NodeId) -> Result<(), Over> {
        let Some(spot) = spot_of_file(&self.fs, key) else { return Ok(()) };
        let told = self.carry_out(&Repeat::Modify { at: spot.place }, &Order::Hold { at: spot.path })?;
        if told.reply.errno == 0 && told.reply.node != id.0 {
            self.carry_out(&Repeat::Inode, &Order::LetGo { node: told.reply.node })?;
        }
        Ok(())
    }

    /// A name that the kernel heard of for a listener's sake alone shall cost no memory there. A listener to the whole
    /// mount is told files, not names: it reads the name from the kernel, which then still needs it.
    fn forget(&self, place: &Place) {
        if self.fs.view.inotify == Inotify::Always {
            return;
        }
        self.fs.nodes.with(|table| {
            if let Some(parent) = table.dir_node(&place.dir) {
                table.drop_name(parent, place.name.clone());
            }
        });
    }

    fn tell_dir(&mut self, prefix: &Bytes, steps: &[DirStep]) -> Result<(), Over> {
        let (dir, Some(spot)) = (dir_at(prefix), spot_of_dir(&self.fs, prefix)) else { return Ok(()) };
        if !self.may_listen(&spot.place.dir) {
            return Ok(());
        }
        let Ok(exists) = self.wait(self.fs.dir_is_there(&dir))? else { return Ok(()) };
        let mut made = None;
        for step in steps {
            if let DirStep::Made { rev, sure } = *step
                && (sure || matches!(self.wait(self.fs.dir_was_there(&dir, rev - 1))?, Ok(false)))
            {
                made = Some(rev);
            }
        }
        let file = prefix.slice(..prefix.len() - 1);
        let Ok(value) = self.wait(self.fs.value_of(&file))? else { return Ok(()) };
        let began_lost = matches!(steps.first(), Some(DirStep::Lost { .. }));
        if began_lost && (!exists || made.is_some()) {
            let node = self.fs.nodes.with(|table| {
                table.dir_gone(&dir);
                table.retired(&dir)
            });
            let repeat = Repeat::RemoveDir { at: spot.place.clone(), dir: dir.clone(), node };
            self.carry_out(&repeat, &Order::RemoveDir { at: spot.path.clone() })?;
        }
        let lost = steps.iter().rev().find_map(|step| match *step {
            DirStep::Lost { rev } => Some(rev),
            DirStep::Made { .. } => None,
        });
        match (made, &value) {
            // The name was a file's until then.
            (Some(rev), Some(value)) if exists && value.create < rev => {
                let repeat = Repeat::Delete { at: spot.place.clone(), key: file };
                self.carry_out(&repeat, &Order::Remove { at: spot.path.clone() })?;
            }
            // And is one again.
            (None, Some(value)) if began_lost && !exists && lost.is_some_and(|rev| value.create < rev) => {
                return self.created(&file, spot);
            }
            _ => {}
        }
        if made.is_some() && exists {
            let held = self.fs.nodes.with(|table| table.dir_node(&dir)).is_some();
            let repeat = Repeat::MakeDir { at: spot.place.clone(), dir };
            self.carry_out(&repeat, &Order::MakeDir { at: spot.path })?;
            if !held {
                self.forget(&spot.place);
            }
        }
        Ok(())
    }

    fn tell_link(&mut self, component: &Bytes, rev: i64) -> Result<(), Over> {
        let root = self.fs.map.root();
        let Some((_, name)) = self.fs.map.place_of(component) else { return Ok(()) };
        let Some(link) = self.fs.map.rel_link(&root, &name) else { return Ok(()) };
        let Ok(before) = self.wait(self.fs.name_was_there(&link.entry, rev - 1))? else { return Ok(()) };
        let Ok(now) = self.wait(self.fs.kind_of_name(&root, &name))? else { return Ok(()) };
        let at = Place { dir: root, name: name.clone() };
        let path = Path { parent: Vec::new(), name: name.as_bytes().to_vec() };
        match (before, now) {
            (false, Some(Kind::Link)) => {
                let target = link.target.as_bytes().to_vec();
                let repeat = Repeat::MakeLink { at: at.clone(), target: link.target };
                self.carry_out(&repeat, &Order::MakeLink { at: path, target })?;
                self.forget(&at);
            }
            (true, None) => {
                self.carry_out(&Repeat::RemoveLink { at, target: link.target }, &Order::Remove { at: path })?;
            }
            _ => {}
        }
        Ok(())
    }

    fn tell_move(&mut self, from: &Bytes, to: &Bytes, rev: i64, same: Option<bool>) -> Result<(), Over> {
        self.settled(from)?;
        self.settled(to)?;
        let same = match same {
            Some(same) => same,
            None => matches!(self.wait(self.fs.is_same_value((from, rev - 1), (to, rev)))?, Ok(true)),
        };
        let spots = (spot_of_file(&self.fs, from), spot_of_file(&self.fs, to));
        let (Some(old), Some(new)) = spots else { return self.apart(from, to) };
        if !same || !self.may_listen(&old.place.dir) || !self.may_listen(&new.place.dir) {
            return self.apart(from, to);
        }
        let others = self.nodes_of(to);
        let repeat =
            Repeat::Move { from: old.place, from_key: from.clone(), to: new.place, to_key: to.clone() };
        self.carry_out(&repeat, &Order::Move { from: old.path, to: new.path })?;
        // The name's own has heard that it was replaced.
        let others = others.iter().filter(|node| !node.current).map(|node| node.id);
        self.touch(to, others.collect()).map(drop)
    }

    /// No rename after all.
    fn apart(&mut self, from: &Bytes, to: &Bytes) -> Result<(), Over> {
        self.tell_file(from, FileStep::Deleted)?;
        let first =
            self.fs.nodes.with(|table| table.known(to).value().is_none_or(|value| value.version == 1));
        self.tell_file(to, if first { FileStep::Created } else { FileStep::Modified })
    }
}
