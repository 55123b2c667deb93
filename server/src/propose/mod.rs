//! STUB for compiling; `low` replaces it.
#![allow(unused_variables, missing_docs)]
pub use crate::apply::{Alarms, ApplyError, Response};
use crate::raft::Node;
use etcfs_proto::etcfs::{command, record};
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("too many")]
    TooManyRequests,
    #[error("no leader")]
    NoLeader,
    #[error("timeout")]
    Timeout,
    #[error("stopped")]
    Stopped,
    #[error("too large")]
    TooLarge,
}
#[derive(Clone, Debug)]
pub struct Proposer;
impl Proposer {
    pub fn new(node: &Node, timeout: Duration, max: usize) -> Self {
        Self
    }
    pub async fn write(&self, r: command::Request) -> Result<(Response, u64), ProposeError> {
        unimplemented!()
    }
}
#[derive(Clone, Debug)]
pub struct ReadBarrier;
impl ReadBarrier {
    pub fn new(node: &Node, timeout: Duration) -> Self {
        Self
    }
    pub async fn wait(&self) -> Result<(), ProposeError> {
        unimplemented!()
    }
}
#[derive(Clone, Debug)]
pub struct MemberStatus {
    pub member_id: u64,
    pub leader: Option<u64>,
    pub term: u64,
    pub committed_index: u64,
    pub applied_index: u64,
    pub is_learner: bool,
}
#[derive(Clone, Debug)]
pub struct Members;
impl Members {
    pub fn new(node: &Node) -> Self {
        Self
    }
    pub fn cluster_id(&self) -> u64 {
        0
    }
    pub fn member_id(&self) -> u64 {
        0
    }
    pub fn term(&self) -> u64 {
        0
    }
    pub fn status(&self) -> MemberStatus {
        unimplemented!()
    }
    pub fn list(&self) -> Vec<record::Member> {
        unimplemented!()
    }
    pub fn cluster_version(&self) -> String {
        unimplemented!()
    }
    pub fn leader_changes(&self) -> u64 {
        unimplemented!()
    }
    pub fn watch(&self) -> tokio::sync::watch::Receiver<MemberStatus> {
        unimplemented!()
    }
}
pub mod id {
    pub fn lease() -> i64 {
        1
    }
}
