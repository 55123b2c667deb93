//! A disk whose power fails: what was not synced may be there afterwards, or in
//! part, or not at all.
//!
//! Bytes survive by the sector, in any choice of them, as a disk writes in the
//! order it likes. Names survive in order, as a journal keeps them. A power cut
//! can be set to come in the middle of what the writer does.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use etcfs_server::storage::{Disk, DiskFile};
use parking_lot::Mutex;
use rand::RngExt as _;

const SECTOR: usize = 512;

/// A disk of one member; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// Whether the disk does as it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Honesty {
    #[default]
    Honest,
    /// It says that it has synced, and has not: a flaw that must show.
    ForgetsSyncs,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, Contents>,
    names: BTreeMap<PathBuf, u64>,
    /// The names that are on the disk for sure.
    kept_names: BTreeMap<PathBuf, u64>,
    /// Changes of names that no sync has brought to the disk.
    changes: Vec<(PathBuf, Option<u64>)>,
    next: u64,
    off: bool,
    /// The power fails after so many more writes and syncs.
    left: Option<u64>,
    honesty: Honesty,
}

#[derive(Debug, Default)]
struct Contents {
    now: Vec<u8>,
    synced: Vec<u8>,
    /// What was written since the last sync, in order.
    unsynced: Vec<(usize, Vec<u8>)>,
}

/// What is left of unsynced writes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rest {
    Nothing,
    /// The process died, the machine did not.
    Everything,
    /// Each sector by itself.
    SomeSectors,
}

impl SimDisk {
    pub(crate) fn new(honesty: Honesty) -> Self {
        let disk = Self::default();
        disk.state.lock().honesty = honesty;
        disk
    }

    /// Another disk in its place, with nothing on it.
    pub(crate) fn replace(&self) {
        let mut state = self.state.lock();
        *state = State { honesty: state.honesty, ..State::default() };
    }

    /// The power is to fail after `writes` more writes or syncs.
    pub(crate) fn fail_after(&self, writes: u64) {
        self.state.lock().left = Some(writes);
    }

    /// The power is not to fail by itself any more.
    pub(crate) fn fail_never(&self) {
        self.state.lock().left = None;
    }

    /// No write gets through any more.
    pub(crate) fn cut(&self) {
        self.state.lock().off = true;
    }

    pub(crate) fn is_off(&self) -> bool {
        self.state.lock().off
    }

    /// The power is back, and of what was not synced there is `rest`.
    pub(crate) fn restore(&self, rest: Rest, random: &mut impl rand::Rng) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let kept = match rest {
            Rest::Nothing => 0,
            Rest::Everything => state.changes.len(),
            Rest::SomeSectors => random.random_range(0..=state.changes.len()),
        };
        for (path, file) in state.changes.drain(..).take(kept) {
            set(&mut state.kept_names, path, file);
        }
        state.names.clone_from(&state.kept_names);
        let named: Vec<u64> = state.names.values().copied().collect();
        state.files.retain(|number, _| named.contains(number));
        for file in state.files.values_mut() {
            file.settle(rest, random);
        }
        (state.off, state.left) = (false, None);
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        act(&mut self.state.lock())
    }

    /// As `with`, for what changes something; the power may fail at it.
    fn change<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        self.with(|state| {
            if state.off {
                return Err(no_power());
            }
            match &mut state.left {
                // What was begun may still be done in part.
                Some(0) => {
                    state.off = true;
                    act(state)?;
                    Err(no_power())
                }
                left => {
                    *left = left.map(|left| left - 1);
                    act(state)
                }
            }
        })
    }
}

fn no_power() -> io::Error {
    io::Error::other("the power is off")
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn set(names: &mut BTreeMap<PathBuf, u64>, path: PathBuf, file: Option<u64>) {
    match file {
        Some(file) => names.insert(path, file),
        None => names.remove(&path),
    };
}

impl State {
    fn name(&mut self, path: &Path, file: Option<u64>) {
        set(&mut self.names, path.to_owned(), file);
        self.changes.push((path.to_owned(), file));
    }

    fn number(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(not_found)
    }

    fn contents(&mut self, number: u64) -> io::Result<&mut Contents> {
        self.files.get_mut(&number).ok_or_else(not_found)
    }
}

impl Contents {
    fn write(&mut self, bytes: &[u8], at: usize) {
        put(&mut self.now, bytes, at);
        self.unsynced.push((at, bytes.to_vec()));
    }

    fn sync(&mut self) {
        for (at, bytes) in self.unsynced.drain(..) {
            put(&mut self.synced, &bytes, at);
        }
    }

    fn settle(&mut self, rest: Rest, random: &mut impl rand::Rng) {
        match rest {
            Rest::Nothing => self.unsynced.clear(),
            Rest::Everything => self.sync(),
            Rest::SomeSectors => {
                for (at, bytes) in std::mem::take(&mut self.unsynced) {
                    let mut from = 0;
                    while from < bytes.len() {
                        let to = bytes.len().min(((at + from) / SECTOR + 1) * SECTOR - at);
                        if random.random() {
                            put(&mut self.synced, &bytes[from..to], at + from);
                        }
                        from = to;
                    }
                }
            }
        }
        self.now.clone_from(&self.synced);
    }
}

fn put(file: &mut Vec<u8>, bytes: &[u8], at: usize) {
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Disk for SimDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let number = self.with(|state| state.number(path))?;
        Ok(Box::new(SimFile { disk: self.clone(), number }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let number = self.change(|state| {
            state.next += 1;
            let number = state.next;
            state.files.insert(number, Contents::default());
            state.name(path, Some(number));
            Ok(number)
        })?;
        Ok(Box::new(SimFile { disk: self.clone(), number }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state| {
            let number = state.number(from)?;
            state.name(from, None);
            state.name(to, Some(number));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|state| {
            state.number(path)?;
            state.name(path, None);
            Ok(())
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.with(|state| {
            let paths = state.names.keys().filter(|path| path.parent() == Some(dir));
            Ok(paths.filter_map(|path| Some(path.file_name()?.to_owned())).collect())
        })
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        self.change(|state| {
            for (path, file) in std::mem::take(&mut state.changes) {
                set(&mut state.kept_names, path, file);
            }
            Ok(())
        })
    }
}

struct SimFile {
    disk: SimDisk,
    number: u64,
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFile({})", self.number)
    }
}

impl DiskFile for SimFile {
    fn bytes(&self) -> io::Result<u64> {
        self.disk.with(|state| Ok(state.contents(self.number)?.now.len() as u64))
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.with(|state| {
            let at = offset as usize;
            let found = state.contents(self.number)?.now.get(at..at + buffer.len());
            buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.change(|state| {
            state.contents(self.number)?.write(bytes, offset as usize);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.change(|state| {
            // The power fails before the sync is done: what it brings is up to chance.
            if !state.off && state.honesty == Honesty::Honest {
                state.contents(self.number)?.sync();
            }
            Ok(())
        })
    }

    fn sync_all(&self) -> io::Result<()> {
        self.disk.change(|state| {
            if !state.off {
                state.contents(self.number)?.sync();
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    fn read(disk: &SimDisk, name: &str, bytes: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; bytes];
        disk.open(Path::new(name))?.read_exact_at(&mut buffer, 0)?;
        Ok(buffer)
    }

    #[test]
    fn what_was_synced_is_there_after_a_power_cut_and_nothing_else_for_sure() {
        let mut random = StdRng::seed_from_u64(1);
        let disk = SimDisk::new(Honesty::Honest);
        let file = disk.create(Path::new("d/a")).expect("made");
        file.write_all_at(&[1; 2 * SECTOR], 0).expect("written");
        file.sync_data().expect("synced");
        disk.sync_dir(Path::new("d")).expect("synced");
        file.write_all_at(&[2; SECTOR], SECTOR as u64).expect("written");
        disk.create(Path::new("d/b")).expect("made");
        assert_eq!(read(&disk, "d/a", 2 * SECTOR).expect("read")[SECTOR], 2);
        disk.restore(Rest::Nothing, &mut random);
        assert_eq!(read(&disk, "d/a", 2 * SECTOR).expect("read"), [1; 2 * SECTOR]);
        assert_eq!(disk.list(Path::new("d")).expect("listed"), ["a"]);
    }

    #[test]
    fn power_fails_in_the_middle_and_sectors_survive_one_by_one() {
        let mut random = StdRng::seed_from_u64(2);
        let disk = SimDisk::new(Honesty::Honest);
        let file = disk.create(Path::new("d/a")).expect("made");
        file.write_all_at(&[1; 8 * SECTOR], 0).expect("written");
        file.sync_all().expect("synced");
        disk.sync_dir(Path::new("d")).expect("synced");
        disk.fail_after(1);
        file.write_all_at(&[2; 8 * SECTOR], 0).expect("the last that gets through");
        file.sync_data().expect_err("no power");
        file.write_all_at(&[3; SECTOR], 0).expect_err("no power");
        assert!(disk.is_off());
        disk.restore(Rest::SomeSectors, &mut random);
        let left = read(&disk, "d/a", 8 * SECTOR).expect("read");
        assert!(left.chunks(SECTOR).all(|sector| sector == [1; SECTOR] || sector == [2; SECTOR]));
        assert!(left.contains(&1) && left.contains(&2), "sectors of both kinds");
    }
}
