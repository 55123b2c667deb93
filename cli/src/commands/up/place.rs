//! Where things lie: the mount point, the data beside it, and who holds them.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use etcfs_fs::mounts::{self, Mounted};

use crate::error::CliError;

/// Held for as long as an `up` runs; names its process and endpoint.
const LOCK: &str = "up.lock";

/// The directories of one `up`, as absolute paths.
#[derive(Debug)]
pub(super) struct Place {
    mount_point: PathBuf,
    data_dir: PathBuf,
}

/// The right to the data directory; given back when dropped.
#[derive(Debug)]
pub(super) struct Claim {
    lock: File,
}

impl Place {
    pub(super) fn find(dir: &Path, data_dir: Option<&Path>) -> Result<Self, CliError> {
        let mount_point = absolute(dir).map_err(|error| failed(dir, &error))?;
        let data_dir = match data_dir {
            Some(dir) => absolute(dir).map_err(|error| failed(dir, &error))?,
            None => beside(&mount_point)?,
        };
        if data_dir.starts_with(&mount_point) {
            return Err(CliError::arguments(format!(
                "the data can't lie in {}: the mount would hide it",
                mount_point.display()
            ))
            .hint("name a directory outside with --data-dir"));
        }
        Ok(Self { mount_point, data_dir })
    }

    pub(super) fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    pub(super) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Refuses, by name, if another `up` runs here. Makes nothing.
    pub(super) fn refuse_if_held(&self) -> Result<(), CliError> {
        match OpenOptions::new().read(true).open(self.data_dir.join(LOCK)) {
            Ok(lock) => self.lock(lock).map(drop),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(&self.data_dir, &error)),
        }
    }

    /// Makes the data directory and takes it.
    pub(super) fn claim(&self) -> Result<Claim, CliError> {
        let make = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.data_dir);
        make.map_err(|error| failed(&self.data_dir, &error))?;
        let path = self.data_dir.join(LOCK);
        let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        self.lock(lock.map_err(|error| failed(&path, &error))?)
    }

    fn lock(&self, mut lock: File) -> Result<Claim, CliError> {
        match lock.try_lock() {
            Ok(()) => Ok(Claim { lock }),
            Err(TryLockError::Error(error)) => Err(failed(&self.data_dir, &error)),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // A holder that has just begun has not written its name yet.
                drop(lock.read_to_string(&mut holder));
                let holder = if holder.is_empty() { "another process" } else { holder.trim_end() };
                Err(CliError::failed(format!(
                    "{} is up already, held by {holder}",
                    self.mount_point.display()
                ))
                .hint("use that one, or end it with Ctrl-C"))
            }
        }
    }

    /// Makes the mount point fit for a mount: there, empty, and without a dead mount on it.
    pub(super) fn make_mount_point(&self) -> Result<(), CliError> {
        let point = &self.mount_point;
        clear_if_dead(point)?;
        if let Some(Mounted { kind, source, .. }) = mounts::at(point) {
            return Err(CliError::failed(format!(
                "{} is mounted already: {kind} of {source}",
                point.display()
            ))
            .hint(format!("`etcfs umount {}` first, or name another directory", point.display())));
        }
        fs::create_dir_all(point).map_err(|error| failed(point, &error))?;
        let mut entries = fs::read_dir(point).map_err(|error| failed(point, &error))?;
        if entries.next().is_some() {
            return Err(CliError::failed(format!(
                "{} is not empty: a mount would hide what is in it",
                point.display()
            ))
            .hint("name a new or empty directory"));
        }
        Ok(())
    }
}

impl Claim {
    /// Writes down who holds the place, for the next one who asks.
    pub(super) fn tell(&mut self, endpoint: &str) -> Result<(), CliError> {
        self.lock.rewind()?;
        self.lock.set_len(0)?;
        writeln!(self.lock, "process {}, which serves at {endpoint}", std::process::id())?;
        Ok(())
    }
}

fn failed(path: &Path, error: &io::Error) -> CliError {
    CliError::failed(format!("{}: {error}", path.display()))
}

/// The absolute path, without a look at what lies there: a dead mount answers nothing.
fn absolute(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if !path.is_symlink() => {
            // The parents of a directory that is to be made need not be there.
            let parent = parent.canonicalize().unwrap_or_else(|_| parent.to_path_buf());
            Ok(parent.join(name))
        }
        _ => path.canonicalize(),
    }
}

fn beside(point: &Path) -> Result<PathBuf, CliError> {
    let mut name = OsString::from(point.file_name().ok_or_else(|| {
        CliError::arguments("the root directory can't be mounted over").hint("name another directory")
    })?);
    name.push(".etcd");
    Ok(point.with_file_name(name))
}

pub(super) fn is_mounted(point: &Path) -> bool {
    mounts::at(point).is_some_and(|mounted| mounted.kind.starts_with("fuse"))
}

/// Takes a mount away whose file system has died; leaves others alone.
pub(super) fn clear_if_dead(point: &Path) -> Result<(), CliError> {
    let dead = fs::metadata(point).is_err_and(|error| {
        matches!(error.kind(), io::ErrorKind::NotConnected | io::ErrorKind::ConnectionAborted)
    });
    if dead && is_mounted(point) {
        mounts::unmount(point, true).map_err(|error| failed(point, &error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_lies_beside_the_mount_point_and_never_below_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let place = Place::find(&root.join("keys"), None).unwrap();
        assert_eq!(place.data_dir(), root.join("keys.etcd"));
        assert!(Place::find(&root.join("keys"), Some(&root.join("keys/data"))).is_err());
        assert!(Place::find(Path::new("/"), None).is_err());
    }

    #[test]
    fn the_second_claim_is_told_who_has_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::find(&dir.path().join("keys"), None).unwrap();
        place.refuse_if_held().unwrap();
        let mut claim = place.claim().unwrap();
        claim.tell("127.0.0.1:7").unwrap();
        let holder = format!("process {}", std::process::id());
        for refused in [place.refuse_if_held(), place.claim().map(drop)] {
            let message = refused.unwrap_err().message().to_owned();
            assert!(message.contains(&holder) && message.contains("127.0.0.1:7"), "{message}");
        }
        drop(claim);
        place.claim().unwrap();
    }

    #[test]
    fn a_directory_with_something_in_it_is_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mine"), "v").unwrap();
        let place = Place::find(dir.path(), None).unwrap();
        assert!(place.make_mount_point().unwrap_err().message().contains("not empty"));
        assert!(!place.data_dir().exists());
    }
}
