//! Rows in sled: the durable image. The only file that names sled.
//!
//! sled 0.34's own flush leaves data in the kernel's hands, so [`flush`] syncs
//! its files besides. The rows live in a directory of their own per generation,
//! `image/<generation>`, named by the file `image/CURRENT`: replacing all rows
//! fills a new generation and then renames one small file.
//!
//! sled may refuse, or die of, its own files after an abrupt stop, and it passes
//! over damaged parts of them in silence: [`verify`] finds the rows that are then
//! missing. Each is an error here, and the caller sets the image aside: it can be
//! rebuilt.
//!
//! [`flush`]: DiskEngine::flush
//! [`verify`]: DiskEngine::verify

use std::{
    collections::HashSet,
    ffi::OsString,
    fmt,
    fs::{self, File},
    io::{self, Write as _},
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
    engine::RowIter,
    fingerprint::{self, Fingerprint},
    keyspace,
};

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
    db: ::sled::Db,
    /// Of the rows as written; held by the one writer, for as long as it writes.
    fingerprint: Arc<Mutex<Fingerprint>>,
    /// Blob files never change once written, so each is synced once.
    synced_blobs: Arc<Mutex<HashSet<OsString>>>,
    /// A write or a flush has met a full disk.
    was_full: Arc<AtomicBool>,
}

impl Drop for Generation {
    fn drop(&mut self) {
        if self.was_full.load(Ordering::Relaxed) {
            // sled would wait at its end, for ever, for what it could not write.
            std::mem::forget(self.db.clone());
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
    /// be relied on until [`verify`](Self::verify) has read them all.
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

    fn db(&self) -> ::sled::Db {
        self.current.read().db.clone()
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
        let fingerprint = Arc::new(Mutex::new(fingerprint));
        Ok(Self { number, path, db, fingerprint, synced_blobs: Arc::default(), was_full: Arc::default() })
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
        self.noted(self.db.flush().map(drop).map_err(failed("flush")))?;
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
        let mut fingerprint = self.fingerprint.lock();
        let stored = |key: &[u8]| {
            let value = self.db.get(key).map_err(failed("read a row"))?;
            Ok(value.map(|value| fingerprint::hash(key, &value)))
        };
        let after = fingerprint.after(batch, stored)?;
        let mut changes = ::sled::Batch::default();
        for (key, change) in batch.ops() {
            match change {
                Some(value) => changes.insert(key.as_ref(), value.as_ref()),
                None => changes.remove(key.as_ref()),
            }
        }
        changes.insert(keyspace::FINGERPRINT, after.encode().as_slice());
        self.db.apply_batch(changes).map_err(failed("write a batch"))?;
        *fingerprint = after;
        Ok(())
    }
}

impl Engine for DiskEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let value = self.db().get(key).map_err(failed("read a row"))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn range(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        if start >= end {
            return Ok(Vec::new());
        }
        let rows = self.db().range(start..end).take(limit).map(|row| {
            let (key, value) = row.map_err(failed("read a range"))?;
            Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)))
        });
        rows.collect()
    }

    fn write(&self, batch: &Batch) -> Result<(), StorageError> {
        self.check_disk()?;
        let generation = self.current.read().clone();
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
        let generation = self.current.read().clone();
        generation.flush()
    }

    fn size_on_disk(&self) -> Result<u64, StorageError> {
        self.db().size_on_disk().map_err(failed("tell its size"))
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
        let current = self.current.read().clone();
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

    fn verify(&self) -> Result<(), StorageError> {
        let generation = self.current.read().clone();
        let written = *generation.fingerprint.lock();
        let mut found = Fingerprint::default();
        for row in generation.db.range(keyspace::ALL.start..keyspace::ALL.end) {
            let (key, value) = row.map_err(failed("read all rows"))?;
            found.add(&key, &value);
        }
        if found == written {
            return match fs::remove_file(self.dir.join(OPENING)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(StorageError::io("remove", self.dir.join(OPENING))(error))
                }
                _ => Ok(()),
            };
        }
        Err(StorageError::Corrupt {
            what: format!("image in {}", generation.path.display()),
            reason: format!("of {} rows written, {} are found", written.rows(), found.rows()),
        })
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
        for row in from.db.range(&self.next[..]..keyspace::ALL.end) {
            let (key, value) = row.map_err(failed("read rows to copy them"))?;
            batch.put(Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value));
            self.next = keyspace::successor(&key);
            if batch.len() >= COPY_ROWS || batch.bytes() >= COPY_BYTES {
                is_end = false;
                break;
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::keyspace;

    fn row(nth: u32) -> (Bytes, Bytes) {
        (nth.to_be_bytes().to_vec().into(), format!("value {nth}").into())
    }

    fn put_all(engine: &DiskEngine, rows: impl Iterator<Item = (Bytes, Bytes)>) {
        let mut batch = Batch::default();
        rows.for_each(|(key, value)| batch.put(key, value));
        engine.write(&batch).expect("written");
    }

    #[test]
    fn rows_survive_reopening_and_come_in_order() {
        let dir = tempfile::tempdir().expect("temp dir");
        let engine = DiskEngine::open(dir.path()).expect("opened");
        put_all(&engine, (0..100).map(row));
        let mut batch = Batch::default();
        batch.delete(row(7).0);
        // Beyond sled's inline size, so that it makes a blob file.
        batch.put("big".into(), vec![7; 1 << 20].into());
        engine.write(&batch).expect("written");
        engine.flush().expect("flushed");
        drop(engine);
        let engine = DiskEngine::open(dir.path()).expect("opened");
        assert_eq!(engine.get(&row(3).0).expect("read"), Some(row(3).1));
        assert_eq!(engine.get(&row(7).0).expect("read"), None);
        assert_eq!(engine.get(b"big").expect("read").map(|value| value.len()), Some(1 << 20));
        let page = engine.range(&row(5).0, &row(50).0, 3).expect("read");
        assert_eq!(page, [row(5), row(6), row(8)]);
        let rest = engine.range(&keyspace::successor(&page[2].0), &row(50).0, 1000).expect("read");
        assert_eq!((rest.len(), &rest[0]), (41, &row(9)));
    }

    #[test]
    fn replacing_all_rows_leaves_no_old_one_and_survives_reopening() {
        let dir = tempfile::tempdir().expect("temp dir");
        let engine = DiskEngine::open(dir.path()).expect("opened");
        put_all(&engine, (0..10).map(row));
        engine.replace(&mut (100..COPY_ROWS as u32 + 200).map(|nth| Ok(row(nth)))).expect("replaced");
        assert_eq!(engine.get(&row(3).0).expect("read"), None);
        drop(engine);
        let engine = DiskEngine::open(dir.path()).expect("opened");
        let rows = engine.range(b"", b"\xff", usize::MAX).expect("read");
        assert_eq!((rows.len(), &rows[0]), (COPY_ROWS + 100, &row(100)));
    }

    /// What sled does with a damaged part of its file: rows go missing in silence.
    #[test]
    fn a_row_that_went_missing_or_came_back_is_found() {
        let dir = tempfile::tempdir().expect("temp dir");
        let engine = DiskEngine::open(dir.path()).expect("opened");
        engine.verify().expect("nothing is whole");
        let revisions =
            |from: i64| (from..from + 100).map(|n| (keyspace::revision(n, 0), format!("{n}").into()));
        put_all(&engine, revisions(0));
        put_all(&engine, revisions(100).chain((0..10).map(row)));
        let mut batch = Batch::default();
        batch.delete(keyspace::revision(50, 0));
        batch.delete(keyspace::revision(5000, 0));
        batch.put(row(3).0, "another value".into());
        engine.write(&batch).expect("written");
        engine.verify().expect("whole");
        drop(engine);
        let engine = DiskEngine::open(dir.path()).expect("opened");
        engine.verify().expect("whole");
        let key = keyspace::revision(60, 0);
        let value = engine.db().remove(&key).expect("removed").expect("was there");
        let error = engine.verify().expect_err("a row is missing");
        assert!(error.to_string().contains("of 209 rows written, 208 are found"), "{error}");
        engine.db().insert(&key, value).expect("inserted");
        engine.verify().expect("whole again");
        engine.db().insert(keyspace::revision(50, 0), "50").expect("inserted");
        engine.verify().expect_err("a deleted row is back");
        engine.replace(&mut revisions(0).map(Ok)).expect("replaced");
        engine.verify().expect("whole again");
    }

    #[test]
    fn a_replacement_that_fails_leaves_the_old_rows() {
        let dir = tempfile::tempdir().expect("temp dir");
        let engine = DiskEngine::open(dir.path()).expect("opened");
        put_all(&engine, (0..10).map(row));
        let broken = [Ok(row(50)), Err(StorageError::Closed)];
        engine.replace(&mut broken.into_iter()).expect_err("broken");
        assert_eq!(engine.range(b"", b"\xff", 100).expect("read").len(), 10);
    }

    fn all(engine: &DiskEngine) -> Vec<(Bytes, Bytes)> {
        engine.range(keyspace::ALL.start, keyspace::ALL.end, usize::MAX).expect("read")
    }

    /// What is written between two parts of the copy lies before, at or behind the place it has come to.
    #[test]
    fn a_rewrite_keeps_every_row_also_those_that_change_meanwhile() {
        let dir = tempfile::tempdir().expect("temp dir");
        let engine = DiskEngine::open(dir.path()).expect("opened");
        let last = 3 * COPY_ROWS as u32;
        put_all(&engine, (0..last).map(row));
        let mut parts = 0;
        while !engine.rewrite().expect("copied") {
            parts += 1;
            let mut batch = Batch::default();
            for nth in [0, 7, 1500, last - 1] {
                batch.put(row(nth).0, format!("changed {parts}").into());
            }
            batch.delete(row(parts).0);
            batch.delete(row(last - 10 - parts).0);
            batch.put(row(last + parts).0, "new".into());
            engine.write(&batch).expect("written");
        }
        assert_eq!(parts, 3);
        let rows = all(&engine);
        let value =
            |nth: u32| rows.iter().find(|(key, _)| *key == row(nth).0).map(|(_, value)| value.clone());
        assert_eq!(rows.len() as u32, last - 3);
        for nth in [0, 7, 1500, last - 1] {
            assert_eq!(value(nth), Some(format!("changed {parts}").into()), "{nth}");
        }
        assert_eq!((value(1), value(last - 11), value(last + 3)), (None, None, Some("new".into())));
        engine.verify().expect("whole");
        put_all(&engine, (0..3).map(row));
        engine.flush().expect("flushed");
        let expected = all(&engine);
        drop(engine);
        let engine = DiskEngine::open(dir.path()).expect("opened");
        engine.verify().expect("whole");
        assert_eq!(all(&engine), expected);
    }

    #[test]
    fn a_rewrite_gives_back_what_deleted_rows_took() {
        let dir = tempfile::tempdir().expect("temp dir");
        let engine = DiskEngine::open(dir.path()).expect("opened");
        let large = |nth: u32| (row(nth).0, Bytes::from(vec![nth as u8; 500_000]));
        (0..40).for_each(|nth| put_all(&engine, std::iter::once(large(nth))));
        let mut batch = Batch::default();
        (0..30).for_each(|nth| batch.delete(row(nth).0));
        engine.write(&batch).expect("written");
        engine.flush().expect("flushed");
        let before = engine.size_on_disk().expect("told");
        while !engine.rewrite().expect("copied") {}
        let after = engine.size_on_disk().expect("told");
        // Of large values sled keeps some copies, also of those that were never deleted.
        assert!(before > 20_000_000 && (5_000_000..before / 2).contains(&after), "{before} {after}");
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 3, "CURRENT, OPENING, one generation");
    }

    #[test]
    fn an_image_that_kills_its_openers_is_refused_after_some() {
        let dir = tempfile::tempdir().expect("temp dir");
        for _ in 0..OPENINGS_MAX {
            drop(DiskEngine::open(dir.path()).expect("one more try"));
        }
        assert!(matches!(DiskEngine::open(dir.path()), Err(StorageError::Corrupt { .. })));
        fs::remove_file(dir.path().join(OPENING)).expect("removed");
        for _ in 0..2 * OPENINGS_MAX {
            DiskEngine::open(dir.path()).expect("opened").verify().expect("whole");
        }
        let error = StorageError::Closed;
        DiskEngine::distrust(dir.path(), &error).expect("written");
        assert!(matches!(DiskEngine::open(dir.path()), Err(StorageError::Corrupt { .. })));
    }
}
