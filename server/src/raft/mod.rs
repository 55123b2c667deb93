//! STUB
#![allow(unused_variables, missing_docs, missing_debug_implementations)]
use crate::{apply::State, storage::Engine, watch::Hub};
use std::{path::PathBuf, sync::Arc, time::Duration};
pub struct RaftOptions {
    pub data_dir: PathBuf,
    pub name: String,
    pub peer_urls: Vec<String>,
    pub cluster_token: String,
    pub heartbeat_interval: Duration,
    pub election_timeout: Duration,
    pub snapshot_count: u64,
    pub quota_bytes: Option<u64>,
    pub value_cache_bytes: u64,
    pub fragment_bytes: usize,
    pub on_fsync: Box<dyn Fn(Duration) + Send + Sync>,
}
#[derive(Debug)]
pub struct Node;
pub struct Image;
impl Image {
    pub fn lag_bytes(&self) -> u64 {
        0
    }
}
impl Node {
    pub fn state(&self) -> State {
        unimplemented!()
    }
    pub fn hub(&self) -> Hub {
        unimplemented!()
    }
    pub fn engine(&self) -> Arc<dyn Engine> {
        unimplemented!()
    }
    pub fn image(&self) -> Arc<Image> {
        unimplemented!()
    }
    pub async fn shutdown(&self) {}
}
pub async fn start(options: RaftOptions) -> anyhow::Result<Node> {
    unimplemented!()
}
