//! Several members that are one cluster: started, killed, paused, changed.

#![allow(clippy::unwrap_used, reason = "every function here is part of a test")]

mod bootstrap;
mod discovery;
mod failover;
mod snapshot;
mod tls;
