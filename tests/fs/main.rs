//! The mount, as programs see it: a real one, on a real server; and its way to
//! the server alone, without a mount.
//!
//! Every test that mounts has `mounted` in its name: `tests/run` leaves them out,
//! loudly, where nothing can be mounted.

mod mounted;
mod remote;
