//! The mount point: is it fit, is /dev/fuse, what lies dead on it; and the daemon's two halves, of which one waits
//! to hear from the other that the mount answers.

pub(crate) mod fork;
pub mod mounts;
pub(crate) mod point;

use std::io;
use std::path::PathBuf;

/// Why nothing was mounted, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    #[error("{}: {reason}", .point.display())]
    Point { point: PathBuf, reason: &'static str },
    #[error("{}: {error}", .point.display())]
    PointIo { point: PathBuf, error: io::Error },
    #[error("{} is mounted on already, by {source_text}", .point.display())]
    Mounted { point: PathBuf, source_text: String },
    #[error("a dead mount on {} can't be cleared: {error}; try `umount -l {}`", .point.display(), .point.display())]
    Dead { point: PathBuf, error: io::Error },
    #[error(
        "/dev/fuse is missing: as root, `modprobe fuse`; in a container, start it with \
         `--device /dev/fuse --cap-add SYS_ADMIN`"
    )]
    NoDevice,
    #[error(
        "/dev/fuse can't be opened ({error}): run as root, or let users mount with `chmod 0666 /dev/fuse`; in a \
         container, start it with `--device /dev/fuse --cap-add SYS_ADMIN`"
    )]
    Device { error: io::Error },
    #[error("mounting as a user needs fusermount3: install the package fuse3, or run as root")]
    NoHelper,
    #[error(
        "mounting is not permitted ({error}): root needs CAP_SYS_ADMIN here; in a container, start it with \
         `--device /dev/fuse --cap-add SYS_ADMIN`"
    )]
    NotPermitted { error: io::Error },
    #[error("allow_other as a user needs the line `user_allow_other` in /etc/fuse.conf")]
    AllowOther,
    #[error("mounting failed: {error}")]
    Failed { error: io::Error },
}
