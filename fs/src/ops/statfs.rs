//! statfs: the server's space, and how many keys there are.

use super::Fs;
use crate::errno::OpError;

/// What df shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    pub(crate) blocks: u64,
    pub(crate) free: u64,
    pub(crate) keys: u64,
}

/// Space is counted in blocks of this many bytes.
pub(crate) const BLOCK: u64 = 4096;

/// The quota of a server that does not say: etcd's default.
const QUOTA_DEFAULT: u64 = 2 << 30;

impl Fs {
    pub(crate) async fn space(&self) -> Result<Space, OpError> {
        let usage = self.remote.usage(vec![self.map.key_range(&self.map.root())]).await?;
        let quota = usage.quota_bytes.unwrap_or(QUOTA_DEFAULT).max(usage.in_use_bytes);
        Ok(Space { blocks: quota / BLOCK, free: (quota - usage.in_use_bytes) / BLOCK, keys: usage.keys })
    }
}
