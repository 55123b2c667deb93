//! All that this member stores, as one file to take away.
//!
//! The file is the member's own snapshot format, filled up with zeroes to a
//! multiple of 512 bytes, and then the SHA-256 of all that: the shape by which
//! etcd's clients tell a whole snapshot.

use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use prometheus::Histogram;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, mpsc};

use crate::storage::{Durability, Image, SnapshotFile, StorageError, backup::BLOCK_BYTES};

/// As etcd cuts it.
const PART_BYTES: usize = 32 << 10;
/// Parts that wait to be sent.
const PARTS_WAITING: usize = 16;

/// Makes files to take away; clones share one workshop.
#[derive(Clone, Debug)]
pub struct Backups {
    image: Image,
    /// A directory of their own, empty between two.
    dir: PathBuf,
    took: Histogram,
    turn: Arc<Semaphore>,
}

/// A piece of the file, and how much is still to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub bytes: Bytes,
    pub remaining: u64,
}

impl Backups {
    /// `took` is told how long each file took to write.
    pub fn new(image: Image, dir: PathBuf, took: Histogram) -> Self {
        Self { image, dir, took, turn: Arc::new(Semaphore::new(1)) }
    }

    /// The state of this moment, in parts.
    pub async fn take(
        &self,
    ) -> Result<impl Stream<Item = Result<Part, StorageError>> + Send + use<>, StorageError> {
        let file = {
            let _turn = self.turn.acquire().await.expect("the semaphore is never closed");
            // What a crash has left there is nobody's.
            self.clear()?;
            fs::create_dir_all(&self.dir).map_err(StorageError::io("create", &self.dir))?;
            let timer = self.took.start_timer();
            let file = self.image.build_snapshot(self.dir.clone(), Durability::Passing).await;
            timer.observe_duration();
            // It lives on without a name, for as long as somebody reads it.
            self.clear()?;
            file?
        };
        let (parts, sent) = mpsc::channel(PARTS_WAITING);
        tokio::task::spawn_blocking(move || {
            let path = file.path().to_owned();
            if let Err(error) = send(&file, &parts) {
                // Nobody listens any more if the caller went away.
                let _unheard = parts.blocking_send(Err(StorageError::io("read", path)(error)));
            }
        });
        Ok(stream::unfold(sent, |mut sent| async move { Some((sent.recv().await?, sent)) }))
    }

    fn clear(&self) -> Result<(), StorageError> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StorageError::io("remove", &self.dir)(error))
            }
            _ => Ok(()),
        }
    }
}

fn send(file: &SnapshotFile, parts: &mpsc::Sender<Result<Part, StorageError>>) -> io::Result<()> {
    let length = file.bytes()?;
    let mut left = length.next_multiple_of(BLOCK_BYTES);
    let mut reader = file.reader().chain(io::repeat(0)).take(left);
    let mut hash = Sha256::new();
    while left > 0 {
        let mut part = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(PART_BYTES)];
        reader.read_exact(&mut part)?;
        hash.update(&part);
        left -= part.len() as u64;
        if parts.blocking_send(Ok(Part { bytes: part.into(), remaining: left })).is_err() {
            return Ok(());
        }
    }
    let trailer = Part { bytes: hash.finalize().to_vec().into(), remaining: 0 };
    let _unheard = parts.blocking_send(Ok(trailer));
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;
    use crate::storage::{Batch, Image, ImageHooks, ImageOptions, MemoryEngine, Written, codec, keyspace};

    #[tokio::test]
    async fn the_parts_are_a_file_with_its_hash_behind_it() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (options, hooks) = (ImageOptions::default(), ImageHooks::default());
        let engine = Arc::new(MemoryEngine::new());
        let image = Image::start(engine, Written::default(), options, hooks).expect("started");
        let mut batch = Batch::default();
        let meta = etcfs_proto::etcfs::record::Meta { revision: 2000, ..Default::default() };
        batch.put(Bytes::from_static(keyspace::META), codec::encode(&meta));
        for n in 0..2000 {
            batch.put(keyspace::revision(n, 0), Bytes::from(vec![7; 100]));
        }
        image.submit(batch);
        let took =
            Histogram::with_opts(prometheus::HistogramOpts::new("took", "Time.")).expect("a valid name");
        let backups = Backups::new(image.clone(), dir.path().join("outgoing"), took.clone());
        let parts: Vec<_> =
            backups.take().await.expect("built").map(|part| part.expect("read")).collect().await;
        let whole: Vec<u8> = parts.iter().flat_map(|part| part.bytes.to_vec()).collect();
        assert_eq!(whole.len() % 512, 32);
        let (file, hash) = whole.split_at(whole.len() - 32);
        assert_eq!(Sha256::digest(file)[..], *hash);
        assert!(file.starts_with(b"etcfsnp1"));
        assert_eq!(parts[0].remaining as usize, file.len() - PART_BYTES);
        assert!(!dir.path().join("outgoing").exists(), "it leaves nothing behind");
        assert_eq!(took.get_sample_count(), 1);
        image.close();
    }
}
