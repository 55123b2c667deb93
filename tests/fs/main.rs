//! The mount, as programs see it: a real one, on a real server.
//!
//! Every test here mounts, so each has `mounted` in its name: `tests/run` leaves
//! them out, loudly, where nothing can be mounted.

mod mounted;
