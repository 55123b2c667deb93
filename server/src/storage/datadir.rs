//! The data directory: who may use it, what lies where, and whose it is.
//!
//! ```text
//! DATA/member/lock        held while a server runs, with its pid
//! DATA/member/identity    format, member id, cluster id; written once
//! DATA/member/wal/        the log
//! DATA/member/image/      rows of the state, written behind
//! DATA/member/snap/       the newest snapshot
//! DATA/member/outgoing/   one that is being taken away; gone after
//! ```

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// Newest layout that this build writes and reads.
const FORMAT: u32 = 1;
const MODE: u32 = 0o700;

/// Why a data directory can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("data directory {} is in use by {}", path.display(), holder(*pid))]
    Held { path: PathBuf, pid: Option<u32> },
    #[error("data directory {} has format {found}, this build reads up to {FORMAT}", path.display())]
    Format { path: PathBuf, found: u32 },
    #[error("{} says nothing that this build understands", path.display())]
    Identity { path: PathBuf },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
}

/// Which member of which cluster the data is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub member_id: u64,
    pub cluster_id: u64,
}

/// A data directory, locked for as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    member: PathBuf,
    identity: Option<Identity>,
    _lock: File,
}

impl DataDir {
    /// Makes what is missing of the layout in `data`, and locks it.
    pub fn open(data: &Path) -> Result<Self, DataDirError> {
        let member = data.join("member");
        for dir in
            [data.to_owned(), member.clone(), member.join("wal"), member.join("image"), member.join("snap")]
        {
            DirBuilder::new().recursive(true).mode(MODE).create(&dir).map_err(io_error("create", &dir))?;
        }
        // Keys and values are nobody else's; a directory made by hand may be too open.
        fs::set_permissions(data, Permissions::from_mode(MODE)).map_err(io_error("restrict", data))?;
        let lock = lock(data, &member.join("lock"))?;
        let identity = read_identity(&member.join("identity"))?;
        let outgoing = member.join("outgoing");
        match fs::remove_dir_all(&outgoing) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", outgoing)(error));
            }
            _ => {}
        }
        Ok(Self { member, identity, _lock: lock })
    }

    /// True if a directory has held a member; says nothing of how it is.
    pub fn has_identity(data: &Path) -> bool {
        data.join("member/identity").exists()
    }

    /// `None` in a directory that never held a member.
    pub fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Says for good whose data this is.
    pub fn set_identity(&mut self, identity: Identity) -> Result<(), DataDirError> {
        let (path, temporary) = (self.member.join("identity"), self.member.join("identity.tmp"));
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            let Identity { member_id, cluster_id } = identity;
            let text = format!("format {FORMAT}\nmember {member_id:016x}\ncluster {cluster_id:016x}\n");
            // A digit that flips would make it another member, which waits for the rest of its cluster.
            writeln!(file, "{text}crc32c {:08x}", crc32c::crc32c(text.as_bytes()))?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.member)?.sync_all()
        };
        write().map_err(io_error("write", &path))?;
        self.identity = Some(identity);
        Ok(())
    }

    pub fn wal(&self) -> PathBuf {
        self.member.join("wal")
    }

    pub fn image(&self) -> PathBuf {
        self.member.join("image")
    }

    pub fn snapshots(&self) -> PathBuf {
        self.member.join("snap")
    }

    /// Puts the image out of the way, for it can't be read, and an empty
    /// directory in its place. Gives where it went; only the newest is kept.
    pub fn set_image_aside(&self) -> Result<PathBuf, DataDirError> {
        let (image, aside) = (self.image(), self.member.join("image.broken"));
        if aside.exists() {
            fs::remove_dir_all(&aside).map_err(io_error("remove", &aside))?;
        }
        fs::rename(&image, &aside).map_err(io_error("rename", &image))?;
        DirBuilder::new().mode(MODE).create(&image).map_err(io_error("create", &image))?;
        Ok(aside)
    }

    /// Puts an empty directory in the image's place.
    pub fn remove_image(&self) -> Result<(), DataDirError> {
        // Never half of one under its name.
        let aside = self.set_image_aside()?;
        fs::remove_dir_all(&aside).map_err(io_error("remove", &aside))
    }
}

fn lock(data: &Path, path: &Path) -> Result<File, DataDirError> {
    let mut options = OpenOptions::new();
    let open = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let mut file = open.map_err(io_error("open", path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            // Only to name it: a holder that has not written yet is "another process".
            let pid = file.read_to_string(&mut pid).ok().and_then(|_| pid.trim().parse().ok());
            return Err(DataDirError::Held { path: data.to_owned(), pid });
        }
        Err(error) => return Err(io_error("lock", path)(error.into())),
    }
    let mut write = || {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write().map_err(io_error("write", path))?;
    Ok(file)
}

fn read_identity(path: &Path) -> Result<Option<Identity>, DataDirError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", path)(error)),
    };
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let hex = |name| field(name).and_then(|hex| u64::from_str_radix(hex, 16).ok());
    let checked = text.split_once("crc32c ").map(|(before, _)| u64::from(crc32c::crc32c(before.as_bytes())));
    let whole = checked.is_some() && checked == hex("crc32c");
    match (field("format").and_then(|format| format.parse().ok()), hex("member"), hex("cluster")) {
        (Some(found), ..) if found > FORMAT => Err(DataDirError::Format { path: path.to_owned(), found }),
        (Some(_), Some(member_id), Some(cluster_id)) if whole => Ok(Some(Identity { member_id, cluster_id })),
        _ => Err(DataDirError::Identity { path: path.to_owned() }),
    }
}

fn io_error(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.into();
    move |source| DataDirError::Io { doing, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_user_is_told_who_holds_the_directory() {
        let data = tempfile::tempdir().expect("temp dir");
        let held = DataDir::open(data.path()).expect("opened");
        let error = DataDir::open(data.path()).expect_err("held");
        assert!(
            matches!(error, DataDirError::Held { pid: Some(pid), .. } if pid == std::process::id()),
            "{error}"
        );
        assert!(error.to_string().contains(&format!("in use by process {}", std::process::id())));
        drop(held);
        DataDir::open(data.path()).expect("free again");
        let mode = fs::metadata(data.path()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, MODE);
    }

    #[test]
    fn the_identity_is_kept_and_a_newer_format_is_refused() {
        let data = tempfile::tempdir().expect("temp dir");
        let identity = Identity { member_id: 0x8e9e_05c5_2164_694d, cluster_id: 1 };
        let mut dir = DataDir::open(data.path()).expect("opened");
        assert_eq!(dir.identity(), None);
        dir.set_identity(identity).expect("written");
        drop(dir);
        assert_eq!(DataDir::open(data.path()).expect("opened").identity(), Some(identity));
        let path = data.path().join("member/identity");
        let written = fs::read_to_string(&path).expect("read");
        fs::write(&path, written.replace("member 8", "member 9")).expect("written");
        assert!(matches!(DataDir::open(data.path()), Err(DataDirError::Identity { .. })), "a flipped digit");
        fs::write(&path, "format 2\nmember 1\ncluster 1\n").expect("written");
        assert!(matches!(DataDir::open(data.path()), Err(DataDirError::Format { found: 2, .. })));
        fs::write(&path, "nonsense").expect("written");
        assert!(matches!(DataDir::open(data.path()), Err(DataDirError::Identity { .. })));
    }

    #[test]
    fn an_image_set_aside_leaves_an_empty_one() {
        let data = tempfile::tempdir().expect("temp dir");
        let dir = DataDir::open(data.path()).expect("opened");
        for _ in 0..2 {
            fs::write(dir.image().join("row"), "x").expect("written");
            let aside = dir.set_image_aside().expect("moved");
            assert!(aside.join("row").exists());
            assert_eq!(fs::read_dir(dir.image()).expect("there").count(), 0);
        }
    }
}
