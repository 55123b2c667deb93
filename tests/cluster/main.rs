//! Several members that are one cluster: started, killed, paused, changed.

#![allow(clippy::unwrap_used, reason = "every function here is part of a test")]

mod bootstrap;
mod corruption;
mod discovery;
mod failover;
mod leader;
mod lease;
mod membership;
mod mutation;
mod observation;
mod one_way;
mod pressure;
mod restore;
mod rolling;
mod snapshot;
mod supervisor;
mod times;
mod tls;
mod upgrade;
