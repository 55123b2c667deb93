//! How much room the disk has left for us.

use std::path::Path;

/// Room that some segments of the log and the image's next batches need: below it nothing more is
/// taken on. On a small disk it is a part of that.
const RESERVE_BYTES_MAX: u64 = 96 << 20;
const RESERVE_OF_DISK: u64 = 4;

/// Of the disk that the data lies on, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    pub free: u64,
    pub total: u64,
}

impl Space {
    /// One that does not say is endless.
    pub fn of(dir: &Path) -> Self {
        rustix::fs::statvfs(dir).map_or(Self { free: u64::MAX, total: u64::MAX }, |disk| Self {
            free: disk.f_bavail.saturating_mul(disk.f_frsize),
            total: disk.f_blocks.saturating_mul(disk.f_frsize),
        })
    }

    fn reserve(self) -> u64 {
        RESERVE_BYTES_MAX.min(self.total / RESERVE_OF_DISK)
    }

    pub fn is_full(self) -> bool {
        self.free < self.reserve()
    }

    /// True from where on a full disk is one no more.
    pub fn is_roomy(self) -> bool {
        self.free >= self.reserve() + self.reserve() / 3
    }
}
