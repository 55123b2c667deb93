//! Rows in sled: the durable image. Only here and below is sled named.
//!
//! sled 0.34's own flush leaves data in the kernel's hands, so [`flush`] syncs
//! its files besides. The rows live in a directory of their own per generation,
//! `image/<generation>`, named by the file `image/CURRENT`: replacing all rows
//! fills a new generation and then renames one small file.
//!
//! sled may refuse, or die of, its own files after an abrupt stop, and it passes
//! over damaged parts of them in silence: [`scan`] finds the rows that are then
//! missing. Each is an error here, and the caller sets the image aside: it can be
//! rebuilt.
//!
//! [`flush`]: DiskEngine::flush
//! [`scan`]: DiskEngine::scan

mod rows;
#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    ffi::OsString,
    fmt,
    fs::{self, File},
    io::{self, Write as _},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::{
    Batch, Engine, Space, StorageError,
    bundle::RowKey,
    engine::{RowIter, Take},
    fingerprint::{self, Fingerprint},
    keyspace::{self, REVISIONS},
};
use rows::Rows;

/// sled's page cache. It reckons with bytes on disk, of which each takes many in
/// memory: after 500,000 rows of 300 bytes a process held 1009 MB with 16 MiB
/// here and 219 MB with 1 MiB, for writes that took 1.7 times as long. Nobody
/// waits for those, and hot rows are cached above.
const CACHE_BYTES: u64 = 1 << 20;
const CURRENT: &str = "CURRENT";
/// Counts openings that nobody lived to see verified.
const OPENING: &str = "OPENING";
const OPENINGS_MAX: u32 = 3;
/// In its place: what a full disk did not take is missing.
const FULL: &str = "full";
/// A batch, while all rows are replaced or copied.
const COPY_ROWS: usize = 1000;
const COPY_BYTES: usize = 1 << 20;
/// Copied rows are brought to the disk each time there are so many: all at the end would hold up writes.
const COPY_SYNC_BYTES: u64 = 32 << 20;

/// An engine on disk.
pub struct DiskEngine {
    dir: PathBuf,
    // Held to clone the handle, and to swap it; never during a call of sled.
    current: RwLock<Generation>,
    /// Held by the one writer, for as long as it writes.
    rewrite: Mutex<Rewrite>,
}

/// Whether a fresh generation is being filled with the rows of the current one.
#[derive(Default)]
enum Rewrite {
    #[default]
    No,
    Going(Rewriting),
    /// A write could not be made there too; the current generation has it.
    Failed(Generation, StorageError),
}

struct Rewriting {
    generation: Generation,
    /// The first row that is not in it yet.
    next: Bytes,
    unsynced_bytes: u64,
}

#[derive(Clone)]
struct Generation {
    number: u64,
    path: PathBuf,
    rows: Rows,
    /// Held by the one writer, for as long as it writes.
    written: Arc<Mutex<Written>>,
    /// Blob files never change once written, so each is synced once.
    synced_blobs: Arc<Mutex<HashSet<OsString>>>,
    /// A write or a flush has met a full disk.
    was_full: Arc<AtomicBool>,
}

/// Of the rows as written.
struct Written {
    fingerprint: Fingerprint,
    /// No bundle of revisions lies behind it.
    newest: ::sled::IVec,
}

impl Drop for Generation {
    fn drop(&mut self) {
        if self.was_full.load(Ordering::Relaxed) {
            // sled would wait at its end, for ever, for what it could not write.
            std::mem::forget(self.rows.clone());
        }
    }
}

impl fmt::Debug for DiskEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskEngine").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl DiskEngine {
    /// Opens the rows in `dir`, which exists; none in an empty directory. Not to
    /// be relied on until a [`scan`](Self::scan) has read them all.
    pub fn open(dir: &Path) -> Result<Self, StorageError> {
        let opening = dir.join(OPENING);
        let found = fs::read_to_string(&opening).unwrap_or_default();
        if found.trim() == FULL {
            return Err(unwritten(dir));
        }
        let openings = found.trim().parse().unwrap_or(0);
        if openings >= OPENINGS_MAX {
            return Err(StorageError::Corrupt {
                what: format!("image in {}", dir.display()),
                reason: format!("{openings} attempts to open it ended the process"),
            });
        }
        fs::write(&opening, format!("{}\n", openings + 1)).map_err(StorageError::io("write", &opening))?;
        let current = match fs::read_to_string(dir.join(CURRENT)) {
            Ok(number) => number.trim().parse().map_err(|_| StorageError::Corrupt {
                what: dir.join(CURRENT).display().to_string(),
                reason: "it names no generation".into(),
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_current(dir, 1)?;
                1
            }
            Err(error) => return Err(StorageError::io("read", dir.join(CURRENT))(error)),
        };
        remove_other_generations(dir, current)?;
        let generation = Generation::open(dir, current)?;
        Ok(Self { dir: dir.to_owned(), current: RwLock::new(generation), rewrite: Mutex::default() })
    }

    /// Has the next opening of `dir` fail after `error`, because its rows can't be trusted.
    pub fn distrust(dir: &Path, error: &StorageError) -> io::Result<()> {
        let opening = match error {
            StorageError::Unwritten { .. } => FULL.to_owned(),
            _ => OPENINGS_MAX.to_string(),
        };
        fs::write(dir.join(OPENING), opening + "\n")
    }

    fn generation(&self) -> Generation {
        self.current.read().clone()
    }

    fn rows(&self) -> Rows {
        self.current.read().rows.clone()
    }

    /// Refuses to go on after a full disk, where sled can't be relied on: it answers ENOSPC for good, may wait for
    /// ever for what it could not write, and can't read all of that. Once there is room, a start makes the rows anew.
    fn check_disk(&self) -> Result<(), StorageError> {
        if !self.current.read().was_full.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !Space::of(&self.dir).is_roomy() {
            return Err(StorageError::io("write in", &self.dir)(io::ErrorKind::StorageFull.into()));
        }
        Err(unwritten(&self.dir))
    }

    /// Has a whole generation, all of it on disk, take the current one's place.
    fn take_over(&self, generation: Generation) -> Result<(), StorageError> {
        write_current(&self.dir, generation.number)?;
        std::mem::replace(&mut *self.current.write(), generation).remove()
    }
}

impl Generation {
    fn open(dir: &Path, number: u64) -> Result<Self, StorageError> {
        let path = dir.join(number.to_string());
        let db = ::sled::Config::new()
            .path(&path)
            .cache_capacity(CACHE_BYTES)
            // The image says when; a timer of sled's would only add work.
            .flush_every_ms(None)
            .open()
            .map_err(failed("open"))?;
        let stored = db.get(keyspace::FINGERPRINT).map_err(failed("read its fingerprint"))?;
        // Without one there must be no rows either, which is what the default says.
        let fingerprint = stored.and_then(|stored| Fingerprint::decode(&stored)).unwrap_or_default();
        let newest = db.range(REVISIONS.start..REVISIONS.end).next_back();
        let newest = newest.transpose().map_err(failed("read its newest row"))?;
        let newest = newest.map_or_else(::sled::IVec::default, |(bound, _)| bound);
        let written = Arc::new(Mutex::new(Written { fingerprint, newest }));
        Ok(Self {
            number,
            path,
            rows: Rows(db),
            written,
            synced_blobs: Arc::default(),
            was_full: Arc::default(),
        })
    }

    /// An empty one, whatever an earlier attempt has left there.
    fn fresh(dir: &Path, number: u64) -> Result<Self, StorageError> {
        remove_dir(&dir.join(number.to_string()))?;
        Self::open(dir, number)
    }

    /// Gives back the room that it takes.
    fn remove(self) -> Result<(), StorageError> {
        let path = self.path.clone();
        if self.was_full.load(Ordering::Relaxed) {
            // It stays open.
            let db = path.join("db");
            let emptied = File::options().write(true).open(&db).and_then(|file| file.set_len(0));
            emptied.map_err(StorageError::io("empty", db))?;
        }
        drop(self);
        remove_dir(&path)
    }

    fn flush(&self) -> Result<(), StorageError> {
        self.noted(self.rows.0.flush().map(drop).map_err(failed("flush")))?;
        self.noted(self.sync_files().map_err(StorageError::io("sync", &self.path)))
    }

    /// Notes whether the disk was full.
    fn noted(&self, result: Result<(), StorageError>) -> Result<(), StorageError> {
        if result.as_ref().is_err_and(StorageError::is_no_space) {
            self.was_full.store(true, Ordering::Relaxed);
        }
        result
    }

    fn sync_files(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == "db" || name.as_encoded_bytes().starts_with(b"snap.") {
                sync_if_there(&entry.path())?;
            }
        }
        let blobs = self.path.join("blobs");
        let mut new = Vec::new();
        match fs::read_dir(&blobs) {
            Ok(entries) => {
                for entry in entries {
                    let name = entry?.file_name();
                    if !self.synced_blobs.lock().contains(&name) {
                        sync_if_there(&blobs.join(&name))?;
                        new.push(name);
                    }
                }
                if !new.is_empty() {
                    File::open(&blobs)?.sync_all()?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.synced_blobs.lock().extend(new);
        File::open(&self.path)?.sync_all()
    }

    fn write(&self, batch: &Batch) -> Result<(), StorageError> {
        self.noted(self.try_to_write(batch))
    }

    fn try_to_write(&self, batch: &Batch) -> Result<(), StorageError> {
        let mut written = self.written.lock();
        let stored = |key: &[u8]| Ok(self.rows.get(key)?.map(|value| fingerprint::hash(key, &value)));
        let after = written.fingerprint.after(batch, stored)?;
        let mut changes = ::sled::Batch::default();
        let mut revisions = Vec::with_capacity(batch.len());
        for (key, change) in batch.ops() {
            match (RowKey::try_from(key.as_ref()), change) {
                (Ok(row), change) if keyspace::is_revision(key) => revisions.push((row, change.as_deref())),
                (_, Some(value)) => changes.insert(key.as_ref(), value.as_ref()),
                (_, None) => changes.remove(key.as_ref()),
            }
        }
        let newest = self.rows.bundle(revisions, &written.newest, &mut changes)?;
        changes.insert(keyspace::FINGERPRINT, after.encode().as_slice());
        self.rows.0.apply_batch(changes).map_err(failed("write a batch"))?;
        written.fingerprint = after;
        if let Some(newest) = newest {
            written.newest = newest;
        }
        Ok(())
    }
}

impl Engine for DiskEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.rows().get(key)
    }

    fn walk(&self, start: &[u8], end: &[u8], take: Take<'_>) -> Result<(), StorageError> {
        if start >= end {
            return Ok(());
        }
        self.rows().walk(start, end, take)
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        Some(self.generation().written.lock().fingerprint)
    }

    fn write(&self, batch: &Batch) -> Result<(), StorageError> {
        self.check_disk()?;
        let generation = self.generation();
        generation.write(batch)?;
        let mut slot = self.rewrite.lock();
        if let Rewrite::Going(rewriting) = &mut *slot
            && let Err(error) = rewriting.follow(batch)
        {
            *slot = Rewrite::Failed(rewriting.generation.clone(), error);
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StorageError> {
        self.check_disk()?;
        let generation = self.generation();
        generation.flush()
    }

    fn size_on_disk(&self) -> Result<u64, StorageError> {
        self.rows().0.size_on_disk().map_err(failed("tell its size"))
    }

    fn replace(&self, rows: RowIter<'_>) -> Result<(), StorageError> {
        // Of rows that are to go, no copy is needed.
        *self.rewrite.lock() = Rewrite::No;
        let generation = Generation::fresh(&self.dir, self.current.read().number + 1)?;
        let mut batch = Batch::default();
        for row in rows {
            let (key, value) = row?;
            batch.put(key, value);
            if batch.len() >= COPY_ROWS || batch.bytes() >= COPY_BYTES {
                generation.write(&std::mem::take(&mut batch))?;
            }
        }
        generation.write(&batch)?;
        generation.flush()?;
        self.take_over(generation)
    }

    fn rewrite(&self) -> Result<bool, StorageError> {
        let mut slot = self.rewrite.lock();
        let current = self.generation();
        let mut rewriting = match std::mem::take(&mut *slot) {
            Rewrite::No => Rewriting::begin(&self.dir, current.number + 1)?,
            Rewrite::Going(rewriting) => rewriting,
            Rewrite::Failed(generation, error) => {
                // What was copied takes room that somebody may wait for.
                generation.remove()?;
                return Err(error);
            }
        };
        let copied = rewriting.go_on(&current);
        // Its files are removed in the end, which nobody may hold then.
        drop(current);
        match copied {
            Ok(true) => self.take_over(rewriting.generation).map(|()| true),
            Ok(false) => {
                *slot = Rewrite::Going(rewriting);
                Ok(false)
            }
            Err(error) => {
                rewriting.generation.remove()?;
                Err(error)
            }
        }
    }

    fn scan(&self, take: Take<'_>) -> Result<(), StorageError> {
        let generation = self.generation();
        let written = generation.written.lock().fingerprint;
        let mut found = Fingerprint::default();
        let mut flow = ControlFlow::Continue(());
        generation.rows.walk(keyspace::ALL.start, keyspace::ALL.end, |key, value| {
            found.add(key, value);
            flow = take(key, value);
            flow
        })?;
        if flow.is_break() {
            return Ok(());
        }
        written.check(found, || format!("image in {}", generation.path.display()))?;
        match fs::remove_file(self.dir.join(OPENING)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StorageError::io("remove", self.dir.join(OPENING))(error))
            }
            _ => Ok(()),
        }
    }
}

impl Rewriting {
    fn begin(dir: &Path, number: u64) -> Result<Self, StorageError> {
        let next = Bytes::from_static(keyspace::ALL.start);
        Ok(Self { generation: Generation::fresh(dir, number)?, next, unsynced_bytes: 0 })
    }

    /// Copies the next rows; true once there are no more and all is on disk.
    fn go_on(&mut self, from: &Generation) -> Result<bool, StorageError> {
        let mut batch = Batch::default();
        let mut is_end = true;
        let mut next = self.next.clone();
        from.rows.walk(&self.next, keyspace::ALL.end, |key, value| {
            batch.put(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            next = keyspace::successor(key);
            is_end = batch.len() < COPY_ROWS && batch.bytes() < COPY_BYTES;
            if is_end { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        self.next = next;
        self.generation.write(&batch)?;
        self.unsynced_bytes += batch.bytes() as u64;
        if is_end || self.unsynced_bytes >= COPY_SYNC_BYTES {
            self.generation.flush()?;
            self.unsynced_bytes = 0;
        }
        Ok(is_end)
    }

    /// Makes the changes of a batch to rows that are in it already; the others are yet to be copied.
    fn follow(&mut self, batch: &Batch) -> Result<(), StorageError> {
        let mut changes = Batch::default();
        for (key, change) in batch.ops().iter().filter(|(key, _)| *key < self.next) {
            match change {
                Some(value) => changes.put(key.clone(), value.clone()),
                None => changes.delete(key.clone()),
            }
        }
        if changes.is_empty() { Ok(()) } else { self.generation.write(&changes) }
    }
}

fn write_current(dir: &Path, number: u64) -> Result<(), StorageError> {
    let (temporary, path) = (dir.join("CURRENT.tmp"), dir.join(CURRENT));
    let write = || {
        let mut file = File::create(&temporary)?;
        writeln!(file, "{number}")?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(StorageError::io("write", &path))
}

fn remove_other_generations(dir: &Path, current: u64) -> Result<(), StorageError> {
    for entry in fs::read_dir(dir).map_err(StorageError::io("list", dir))? {
        let entry = entry.map_err(StorageError::io("list", dir))?;
        let number: Option<u64> = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if number.is_some_and(|number| number != current) {
            remove_dir(&entry.path())?;
        }
    }
    Ok(())
}

fn unwritten(dir: &Path) -> StorageError {
    StorageError::Unwritten { what: format!("the image in {}", dir.display()) }
}

fn remove_dir(path: &Path) -> Result<(), StorageError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StorageError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// sled drops files on its own; one that is gone needs no sync.
fn sync_if_there(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Ok(file) => file.sync_data(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn failed(doing: &'static str) -> impl Fn(::sled::Error) -> StorageError {
    move |error| StorageError::Engine { doing, source: error.into() }
}
