//! Work that nobody asks for: it goes on as long as the server runs.

mod compactor;
mod corruption;
mod room;
mod strays;
mod versions;

pub use compactor::Compactor;
pub use corruption::{CorruptionCheck, Inconsistent};
pub use room::RoomKeeper;
pub use strays::Strays;
pub use versions::Versions;

/// etcd's number for "somebody, and nobody knows who", where an alarm names a member.
const NOBODY: u64 = 0;
