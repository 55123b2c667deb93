//! Where files are measured: a directory of ours, and how files come to be in it
//! that the kernel has not seen.

use std::{
    cell::RefCell,
    fmt, fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use etcfs_client::Client;
use etcfs_proto::{
    etcdserverpb::{DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, request_op::Request},
    key::prefix_end,
};
use tokio::runtime::Runtime;

use super::floor::Floor;
use crate::error::CliError;

/// The key of a file in a mount of ours.
const KEY: &str = "user.etcfs.key";
/// The longest key that etcfs mounts.
const KEY_BYTES_MAX: usize = 65_536;
/// Puts in a transaction: etcd's default limit.
const PUTS_A_TXN: usize = 128;
/// A change by others is given up if a mount does not show it by then.
pub(super) const SHOWN_WITHIN: Duration = Duration::from_secs(30);

/// One of the things that are compared.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) name: &'static str,
    pub(super) root: PathBuf,
    pub(super) filler: Filler,
}

/// Who makes files of which the kernel is to hear only when it asks.
#[derive(Debug)]
pub(super) enum Filler {
    /// Nobody can: they are made as any files are.
    Plain,
    Floor(RefCell<Floor>),
    Remote(Remote),
}

/// Another client of the server behind a mount.
pub(super) struct Remote {
    client: Client,
    /// Key of the directory, with its slash.
    prefix: Vec<u8>,
    /// Serves the connection while this thread waits for files.
    runtime: Runtime,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("prefix", &String::from_utf8_lossy(&self.prefix))
            .finish_non_exhaustive()
    }
}

impl Side {
    /// A directory of ours below `dir`, removed when dropped.
    pub(super) fn make(name: &'static str, dir: &Path, filler: Filler) -> Result<Self, CliError> {
        let root = dir.join(format!("etcfs-bench-{}", std::process::id()));
        let made = fs::create_dir(&root).and_then(|()| fs::create_dir(root.join("new")));
        made.map_err(|error| CliError::failed(format!("{}: {error}", root.display())))?;
        Ok(Self { name, root, filler })
    }

    /// The mount's: files come from elsewhere if it is one of ours.
    pub(super) fn of_mount(
        dir: &Path,
        client: impl FnOnce() -> Result<Client, CliError>,
    ) -> Result<Self, CliError> {
        let mut side = Self::make("mount", dir, Filler::Plain)?;
        if let Some(prefix) = side.prefix()? {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            let entered = runtime.enter();
            let client = client()?;
            drop(entered);
            side.filler = Filler::Remote(Remote { client, prefix, runtime });
        }
        Ok(side)
    }

    /// The key of the directory, with its slash; none in a file system that is not ours.
    fn prefix(&self) -> Result<Option<Vec<u8>>, CliError> {
        let probe = self.root.join("probe");
        fs::write(&probe, "")?;
        let mut key = vec![0; KEY_BYTES_MAX];
        let found = rustix::fs::getxattr(&probe, KEY, &mut key);
        fs::remove_file(&probe)?;
        let Ok(length) = found else { return Ok(None) };
        Ok(key[..length].strip_suffix(b"probe").map(<[u8]>::to_vec))
    }

    /// Makes `files` files in a new directory; returns once they are to be seen.
    pub(super) fn fill(&self, dir: &str, files: usize, content: &[u8]) -> Result<PathBuf, CliError> {
        let path = self.root.join(dir);
        match &self.filler {
            Filler::Plain => {
                fs::create_dir_all(&path)?;
                for number in 0..files {
                    fs::write(path.join(file(number)), content)?;
                }
            }
            Filler::Floor(floor) => {
                floor.borrow_mut().fill(&path, (0..files).map(file).collect(), content)?;
            }
            Filler::Remote(remote) => {
                for first in (0..files).step_by(PUTS_A_TXN) {
                    let numbers = first..files.min(first + PUTS_A_TXN);
                    remote.put(numbers.map(|number| (format!("{dir}/{}", file(number)), content)))?;
                }
                // Once this is seen, so is all that came before it.
                let marker = format!("{dir} {}", content.len());
                remote.put([("marker".to_owned(), marker.as_bytes())])?;
                self.wait_for("marker", marker.as_bytes())?;
            }
        }
        Ok(path)
    }

    /// Returns once a file holds `content`.
    pub(super) fn wait_for(&self, name: &str, content: &[u8]) -> Result<(), CliError> {
        let (path, deadline) = (self.root.join(name), Instant::now() + SHOWN_WITHIN);
        loop {
            match fs::read(&path) {
                Ok(found) if found == content => return Ok(()),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                Ok(_) | Err(_) if Instant::now() >= deadline => {
                    let what = format!("{} does not show what was put to its key", path.display());
                    return Err(CliError::failed(what));
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
}

/// Name of a file, so that the order of names is that of numbers.
pub(super) fn file(number: usize) -> String {
    format!("file{number:06}")
}

impl Remote {
    /// Puts files of the directory in one transaction.
    pub(super) fn put<'a>(
        &self,
        files: impl IntoIterator<Item = (String, &'a [u8])>,
    ) -> Result<(), CliError> {
        let put = |(name, content): (String, &'a [u8])| {
            let key = Bytes::from([&self.prefix, name.as_bytes()].concat());
            let put = PutRequest { key, value: Bytes::copy_from_slice(content), ..PutRequest::default() };
            RequestOp { request: Some(Request::RequestPut(put)) }
        };
        let request = TxnRequest { success: files.into_iter().map(put).collect(), ..TxnRequest::default() };
        self.runtime.block_on(self.client.kv().txn(request))?;
        Ok(())
    }

    /// One put by itself.
    pub(super) fn put_one(&self, name: &str, content: &[u8]) -> Result<(), CliError> {
        let key = Bytes::from([&self.prefix, name.as_bytes()].concat());
        let put = PutRequest { key, value: Bytes::copy_from_slice(content), ..PutRequest::default() };
        self.runtime.block_on(self.client.kv().put(put))?;
        Ok(())
    }

    /// Deletes all files of the directory, whose removal one by one would take long.
    fn clear(&self) -> Result<(), CliError> {
        let key = Bytes::from(self.prefix.clone());
        let request =
            DeleteRangeRequest { range_end: prefix_end(&key), key, ..DeleteRangeRequest::default() };
        self.runtime.block_on(self.client.kv().delete_range(request))?;
        Ok(())
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let cleared = match &self.filler {
            Filler::Remote(remote) => remote.clear(),
            Filler::Plain => Ok(()),
            // Gone with its file system.
            Filler::Floor(_) => return,
        };
        let removed = cleared.and_then(|()| {
            let deadline = Instant::now() + SHOWN_WITHIN;
            loop {
                match fs::remove_dir_all(&self.root) {
                    // Names that were listed before the watch told of their end.
                    Err(error) if error.kind() == io::ErrorKind::NotFound && Instant::now() < deadline => {
                        if !self.root.exists() {
                            return Ok(());
                        }
                    }
                    removed => return Ok(removed?),
                }
            }
        });
        if let Err(error) = removed {
            anstream::eprintln!("{} is left behind: {}", self.root.display(), error.message());
        }
    }
}
