//! statfs: the server's space, and how many keys there are.

use std::time::Duration;

use tokio::time;

use super::Fs;
use crate::errno::OpError;

/// What df shows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Space {
    pub(crate) blocks: u64,
    pub(crate) free: u64,
    pub(crate) keys: u64,
}

/// Space is counted in blocks of this many bytes.
pub(crate) const BLOCK: u64 = 4096;

/// The quota of a server that does not say: etcd's default.
const QUOTA_DEFAULT: u64 = 2 << 30;

/// For a server that answers nothing: umount(8) asks, too, and a mount must go away without its server.
const WAIT_MAX: Duration = Duration::from_secs(2);

impl Fs {
    /// As of now; where the server does not say so in time, as it was last.
    pub(crate) async fn space(&self) -> Result<Space, OpError> {
        let usage = self.remote.usage(vec![self.map.key_range(&self.map.root())]);
        let Ok(usage) = time::timeout(WAIT_MAX, usage).await else { return Ok(*self.space.lock()) };
        let usage = usage?;
        let quota = usage.quota_bytes.unwrap_or(QUOTA_DEFAULT).max(usage.in_use_bytes);
        let space =
            Space { blocks: quota / BLOCK, free: (quota - usage.in_use_bytes) / BLOCK, keys: usage.keys };
        *self.space.lock() = space;
        Ok(space)
    }
}
