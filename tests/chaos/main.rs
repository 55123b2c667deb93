//! Faults under load: what a server must keep when it is killed, when the power
//! goes, when its disk fails, fills or rots.
//!
//! Clients put and read all the while and note each answer; afterwards the
//! store's own log must explain all of them ([`etcfs_tests::history`]): every
//! acknowledged put is there, once. How long it goes on is set by
//! `ETCFS_TEST_KILLS`, `ETCFS_TEST_POWER_CUTS` and `ETCFS_TEST_FLIPS`. What
//! several members do to each other has a load and a judge of its own
//! ([`cluster`], [`etcfs_tests::judge`]).

#![allow(clippy::unwrap_used, reason = "every function here is part of a test")]

mod cluster;
mod failpoint;
mod follower;
mod full;
mod kill;
mod pairs;
mod power;
mod rot;
mod sync_error;
mod verdict;
