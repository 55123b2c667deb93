//! What crosses a wire or a disk in etcfs; no behaviour.
//!
//! The etcd v3 API in its own packages, an extension of it, the log's commands, the disk's
//! records, the peers' transport, and [`key`]: the arithmetic of key ranges.

// Generated code has its own habits.
#![allow(
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::use_self,
    clippy::semicolon_if_nothing_returned
)]

pub mod key;

/// The encoded descriptor set of every .proto here, with its http annotations.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Keys with their history facts, and events.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}
/// Users, roles and rights.
pub mod authpb {
    tonic::include_proto!("authpb");
}
/// The etcd v3 services, requests and responses.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}
/// The Lock service.
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}
/// The Election service.
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}
/// etcfs's own: what the log, the disk and the peers hold, and what the API has beyond etcd's.
pub mod etcfs {
    /// What the Raft log holds.
    pub mod command {
        tonic::include_proto!("etcfs.command");
    }
    /// What the disk holds.
    pub mod record {
        tonic::include_proto!("etcfs.record");
    }
    /// What a file system asks for beyond etcd's API.
    pub mod v1 {
        tonic::include_proto!("etcfs.v1");
    }
    /// The Raft transport.
    pub mod peer {
        tonic::include_proto!("etcfs.peer");
    }
}
