//! Conformance of the API: each case runs against `etcfsd` and against Debian's
//! etcd, so that what is expected is checked on the real thing.
//!
//! A case is one function of a [`subject::Subject`]; `on_both!` makes two tests
//! of it. Where Debian's 3.4 is known to differ from the 3.6 that ours follows,
//! the case says so with both expectations.

#![allow(clippy::unwrap_used, reason = "every function here is part of a test")]

#[macro_use]
mod subject;

mod abuse;
mod auth;
mod auth_holes;
mod auth_matrix;
mod client;
mod compact;
mod compare;
mod delete;
mod election;
mod gateway;
mod habits;
mod health;
mod http;
mod lease;
mod lease_time;
mod limits;
mod lock;
mod maintenance;
mod member;
mod metadata;
mod mutation;
mod put;
mod python;
mod range;
mod range_order;
mod rust;
mod tls;
mod tree;
mod txn;
mod txn_rules;
mod watch;
mod watch_delivery;
mod watch_history;
mod watch_progress;
