//! Every RPC that a client may name, in one list, with the right that it takes.
//!
//! What is not in it can't be called, and no row can be without a right: a new
//! RPC is denied until somebody has decided who may use it.

use crate::{metrics::MethodNames, service::Right};

macro_rules! methods {
    ($($name:ident = $service:literal $method:literal $kind:literal $right:ident,)*) => {
        /// One RPC.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Method {
            $($name,)*
        }

        /// Names of all, in the order of `Method`.
        pub const METHODS: &[MethodNames] = &[$(($service, $method, $kind),)*];

        impl Method {
            /// Who may call it.
            pub(super) fn right(self) -> Right {
                match self {
                    $(Self::$name => Right::$right,)*
                }
            }

            /// Its path in gRPC.
            pub(super) fn path(self) -> &'static str {
                match self {
                    $(Self::$name => concat!("/", $service, "/", $method),)*
                }
            }

            /// True for what a learner answers too, as etcd's does; a range only if it is serializable.
            pub(super) fn is_for_learners(self) -> bool {
                matches!(
                    self,
                    Self::Range
                        | Self::Status
                        | Self::Snapshot
                        | Self::HealthCheck
                        | Self::HealthWatch
                        | Self::Reflection
                        | Self::ReflectionAlpha
                )
            }

            /// True for one message in and one out.
            pub(super) fn is_unary(self) -> bool {
                let kind = match self {
                    $(Self::$name => $kind,)*
                };
                kind == "unary"
            }

            /// True for what waits for other clients, or goes on as a stream.
            pub(super) fn waits(self) -> bool {
                !self.is_unary() || matches!(self, Self::Lock | Self::Campaign)
            }

            /// The one that a gRPC path names.
            pub(super) fn of(path: &str) -> Option<Self> {
                match path {
                    $(concat!("/", $service, "/", $method) => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

methods! {
    Range = "etcdserverpb.KV" "Range" "unary" Own,
    Put = "etcdserverpb.KV" "Put" "unary" Own,
    Txn = "etcdserverpb.KV" "Txn" "unary" Own,
    DeleteRange = "etcdserverpb.KV" "DeleteRange" "unary" Own,
    Compact = "etcdserverpb.KV" "Compact" "unary" Root,
    Watch = "etcdserverpb.Watch" "Watch" "bidi_stream" Each,
    LeaseGrant = "etcdserverpb.Lease" "LeaseGrant" "unary" User,
    LeaseRevoke = "etcdserverpb.Lease" "LeaseRevoke" "unary" Own,
    LeaseKeepAlive = "etcdserverpb.Lease" "LeaseKeepAlive" "bidi_stream" Own,
    LeaseTimeToLive = "etcdserverpb.Lease" "LeaseTimeToLive" "unary" Own,
    LeaseLeases = "etcdserverpb.Lease" "LeaseLeases" "unary" Own,
    MemberAdd = "etcdserverpb.Cluster" "MemberAdd" "unary" Root,
    MemberRemove = "etcdserverpb.Cluster" "MemberRemove" "unary" Root,
    MemberUpdate = "etcdserverpb.Cluster" "MemberUpdate" "unary" Root,
    MemberList = "etcdserverpb.Cluster" "MemberList" "unary" User,
    MemberPromote = "etcdserverpb.Cluster" "MemberPromote" "unary" Root,
    Alarm = "etcdserverpb.Maintenance" "Alarm" "unary" Own,
    Status = "etcdserverpb.Maintenance" "Status" "unary" User,
    Defragment = "etcdserverpb.Maintenance" "Defragment" "unary" Root,
    Hash = "etcdserverpb.Maintenance" "Hash" "unary" Root,
    HashKv = "etcdserverpb.Maintenance" "HashKV" "unary" Root,
    Snapshot = "etcdserverpb.Maintenance" "Snapshot" "server_stream" Root,
    MoveLeader = "etcdserverpb.Maintenance" "MoveLeader" "unary" Root,
    Downgrade = "etcdserverpb.Maintenance" "Downgrade" "unary" Root,
    AuthEnable = "etcdserverpb.Auth" "AuthEnable" "unary" Root,
    AuthDisable = "etcdserverpb.Auth" "AuthDisable" "unary" Root,
    AuthStatus = "etcdserverpb.Auth" "AuthStatus" "unary" Root,
    Authenticate = "etcdserverpb.Auth" "Authenticate" "unary" Open,
    UserAdd = "etcdserverpb.Auth" "UserAdd" "unary" Root,
    UserGet = "etcdserverpb.Auth" "UserGet" "unary" Own,
    UserList = "etcdserverpb.Auth" "UserList" "unary" Root,
    UserDelete = "etcdserverpb.Auth" "UserDelete" "unary" Root,
    UserChangePassword = "etcdserverpb.Auth" "UserChangePassword" "unary" Root,
    UserGrantRole = "etcdserverpb.Auth" "UserGrantRole" "unary" Root,
    UserRevokeRole = "etcdserverpb.Auth" "UserRevokeRole" "unary" Root,
    RoleAdd = "etcdserverpb.Auth" "RoleAdd" "unary" Root,
    RoleGet = "etcdserverpb.Auth" "RoleGet" "unary" Own,
    RoleList = "etcdserverpb.Auth" "RoleList" "unary" Root,
    RoleDelete = "etcdserverpb.Auth" "RoleDelete" "unary" Root,
    RoleGrantPermission = "etcdserverpb.Auth" "RoleGrantPermission" "unary" Root,
    RoleRevokePermission = "etcdserverpb.Auth" "RoleRevokePermission" "unary" Root,
    Lock = "v3lockpb.Lock" "Lock" "unary" Own,
    Unlock = "v3lockpb.Lock" "Unlock" "unary" Own,
    Campaign = "v3electionpb.Election" "Campaign" "unary" Own,
    Proclaim = "v3electionpb.Election" "Proclaim" "unary" Own,
    Leader = "v3electionpb.Election" "Leader" "unary" Own,
    Observe = "v3electionpb.Election" "Observe" "server_stream" Own,
    Resign = "v3electionpb.Election" "Resign" "unary" Own,
    TreeChildren = "etcfs.v1.Tree" "Children" "unary" Own,
    TreeRename = "etcfs.v1.Tree" "Rename" "unary" Own,
    TreeTimes = "etcfs.v1.Tree" "Times" "unary" User,
    HealthCheck = "grpc.health.v1.Health" "Check" "unary" Open,
    HealthWatch = "grpc.health.v1.Health" "Watch" "server_stream" Open,
    Reflection = "grpc.reflection.v1.ServerReflection" "ServerReflectionInfo" "bidi_stream" Open,
    ReflectionAlpha = "grpc.reflection.v1alpha.ServerReflection" "ServerReflectionInfo" "bidi_stream" Open,
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    /// What members say to each other is not.
    fn is_for_clients(package: &str) -> bool {
        !package.starts_with("etcfs.") || package == "etcfs.v1"
    }

    #[test]
    fn every_rpc_of_the_api_is_listed() {
        let set = prost_types::FileDescriptorSet::decode(etcfs_proto::DESCRIPTORS).unwrap();
        let mut seen = 0;
        for file in set.file.iter().filter(|file| is_for_clients(file.package())) {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    let found = Method::of(&path).unwrap_or_else(|| panic!("{path}"));
                    let (_, _, kind) = METHODS[found as usize];
                    let streams = (method.client_streaming(), method.server_streaming());
                    let expected = match streams {
                        (false, false) => "unary",
                        (false, true) => "server_stream",
                        (true, true) => "bidi_stream",
                        (true, false) => "client_stream",
                    };
                    assert_eq!(kind, expected, "{path}");
                    seen += 1;
                }
            }
        }
        assert!(seen > 40);
    }
}
