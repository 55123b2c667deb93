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
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::{
    Batch, Engine, StorageError,
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
/// Rows per batch while all are replaced.
const REPLACE_ROWS: usize = 10_000;

/// An engine on disk.
pub struct DiskEngine {
    dir: PathBuf,
    // Held to clone the handle, and to swap it; never during a call of sled.
    current: RwLock<Generation>,
    /// Blob files never change once written, so each is synced once.
    synced_blobs: Mutex<HashSet<OsString>>,
}

#[derive(Clone)]
struct Generation {
    number: u64,
    path: PathBuf,
    db: ::sled::Db,
    /// Of the rows as written; held by the one writer, for as long as it writes.
    fingerprint: Arc<Mutex<Fingerprint>>,
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
        let openings =
            fs::read_to_string(&opening).ok().and_then(|count| count.trim().parse().ok()).unwrap_or(0);
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
        Ok(Self { dir: dir.to_owned(), current: RwLock::new(generation), synced_blobs: Mutex::default() })
    }

    /// Has the next opening of `dir` fail, because its rows can't be trusted.
    pub fn distrust(dir: &Path) -> io::Result<()> {
        fs::write(dir.join(OPENING), format!("{OPENINGS_MAX}\n"))
    }

    fn db(&self) -> ::sled::Db {
        self.current.read().db.clone()
    }

    fn sync_files(&self, generation: &Generation) -> io::Result<()> {
        for entry in fs::read_dir(&generation.path)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == "db" || name.as_encoded_bytes().starts_with(b"snap.") {
                sync_if_there(&entry.path())?;
            }
        }
        let blobs = generation.path.join("blobs");
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
        File::open(&generation.path)?.sync_all()
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
        Ok(Self { number, path, db, fingerprint: Arc::new(Mutex::new(fingerprint)) })
    }

    fn write(&self, batch: &Batch) -> Result<(), StorageError> {
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
        let generation = self.current.read().clone();
        generation.write(batch)
    }

    fn flush(&self) -> Result<(), StorageError> {
        let generation = self.current.read().clone();
        generation.db.flush().map_err(failed("flush"))?;
        self.sync_files(&generation).map_err(StorageError::io("sync", &generation.path))
    }

    fn size_on_disk(&self) -> Result<u64, StorageError> {
        self.db().size_on_disk().map_err(failed("tell its size"))
    }

    fn replace(&self, rows: RowIter<'_>) -> Result<(), StorageError> {
        let number = self.current.read().number + 1;
        let path = self.dir.join(number.to_string());
        remove_dir(&path)?;
        let generation = Generation::open(&self.dir, number)?;
        let mut batch = Batch::default();
        for row in rows {
            let (key, value) = row?;
            batch.put(key, value);
            if batch.len() >= REPLACE_ROWS {
                generation.write(&std::mem::take(&mut batch))?;
            }
        }
        generation.write(&batch)?;
        generation.db.flush().map_err(failed("flush"))?;
        self.synced_blobs.lock().clear();
        self.sync_files(&generation).map_err(StorageError::io("sync", &path))?;
        write_current(&self.dir, number)?;
        let old = std::mem::replace(&mut *self.current.write(), generation);
        drop(old.db);
        remove_dir(&old.path)
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
        engine.replace(&mut (100..REPLACE_ROWS as u32 + 200).map(|nth| Ok(row(nth)))).expect("replaced");
        assert_eq!(engine.get(&row(3).0).expect("read"), None);
        drop(engine);
        let engine = DiskEngine::open(dir.path()).expect("opened");
        let rows = engine.range(b"", b"\xff", usize::MAX).expect("read");
        assert_eq!((rows.len(), &rows[0]), (REPLACE_ROWS + 100, &row(100)));
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
        DiskEngine::distrust(dir.path()).expect("written");
        assert!(matches!(DiskEngine::open(dir.path()), Err(StorageError::Corrupt { .. })));
    }
}
