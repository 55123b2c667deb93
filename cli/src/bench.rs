//! The measure of any etcd v3 endpoint, ours or another, and of a mount.
//!
//! [`plan`] is what can be asked, [`work`] one file for each kind of request,
//! [`round`] runs one of them and measures, [`report`] prints, [`compare`]
//! alternates rounds between two endpoints, [`files`] does so between a mount,
//! a trivial FUSE file system and a directory in memory, [`process`] reads a
//! server's CPU time and memory.
//!
//! The client shares the machine with the server, so it is kept cheap: one
//! thread, one connection for several callers, keys and values made before
//! the clock starts where that is possible.

pub(crate) mod compare;
pub(crate) mod files;
pub(crate) mod load;
pub(crate) mod plan;
pub(crate) mod process;
mod ratio;
pub(crate) mod report;
pub(crate) mod round;
pub(crate) mod tally;
mod work;
