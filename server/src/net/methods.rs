//! Every RPC that a client may name, in one list.

use crate::metrics::MethodNames;

macro_rules! methods {
    ($($name:ident = $service:literal $method:literal $kind:literal,)*) => {
        /// One RPC.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Method {
            $($name,)*
        }

        /// Names of all, in the order of `Method`.
        pub const METHODS: &[MethodNames] = &[$(($service, $method, $kind),)*];

        impl Method {
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
    Range = "etcdserverpb.KV" "Range" "unary",
    Put = "etcdserverpb.KV" "Put" "unary",
    Txn = "etcdserverpb.KV" "Txn" "unary",
    DeleteRange = "etcdserverpb.KV" "DeleteRange" "unary",
    Compact = "etcdserverpb.KV" "Compact" "unary",
    Watch = "etcdserverpb.Watch" "Watch" "bidi_stream",
    LeaseGrant = "etcdserverpb.Lease" "LeaseGrant" "unary",
    LeaseRevoke = "etcdserverpb.Lease" "LeaseRevoke" "unary",
    LeaseKeepAlive = "etcdserverpb.Lease" "LeaseKeepAlive" "bidi_stream",
    LeaseTimeToLive = "etcdserverpb.Lease" "LeaseTimeToLive" "unary",
    LeaseLeases = "etcdserverpb.Lease" "LeaseLeases" "unary",
    MemberAdd = "etcdserverpb.Cluster" "MemberAdd" "unary",
    MemberRemove = "etcdserverpb.Cluster" "MemberRemove" "unary",
    MemberUpdate = "etcdserverpb.Cluster" "MemberUpdate" "unary",
    MemberList = "etcdserverpb.Cluster" "MemberList" "unary",
    MemberPromote = "etcdserverpb.Cluster" "MemberPromote" "unary",
    Alarm = "etcdserverpb.Maintenance" "Alarm" "unary",
    Status = "etcdserverpb.Maintenance" "Status" "unary",
    Defragment = "etcdserverpb.Maintenance" "Defragment" "unary",
    Hash = "etcdserverpb.Maintenance" "Hash" "unary",
    HashKv = "etcdserverpb.Maintenance" "HashKV" "unary",
    Snapshot = "etcdserverpb.Maintenance" "Snapshot" "server_stream",
    MoveLeader = "etcdserverpb.Maintenance" "MoveLeader" "unary",
    Downgrade = "etcdserverpb.Maintenance" "Downgrade" "unary",
    AuthEnable = "etcdserverpb.Auth" "AuthEnable" "unary",
    AuthDisable = "etcdserverpb.Auth" "AuthDisable" "unary",
    AuthStatus = "etcdserverpb.Auth" "AuthStatus" "unary",
    Authenticate = "etcdserverpb.Auth" "Authenticate" "unary",
    UserAdd = "etcdserverpb.Auth" "UserAdd" "unary",
    UserGet = "etcdserverpb.Auth" "UserGet" "unary",
    UserList = "etcdserverpb.Auth" "UserList" "unary",
    UserDelete = "etcdserverpb.Auth" "UserDelete" "unary",
    UserChangePassword = "etcdserverpb.Auth" "UserChangePassword" "unary",
    UserGrantRole = "etcdserverpb.Auth" "UserGrantRole" "unary",
    UserRevokeRole = "etcdserverpb.Auth" "UserRevokeRole" "unary",
    RoleAdd = "etcdserverpb.Auth" "RoleAdd" "unary",
    RoleGet = "etcdserverpb.Auth" "RoleGet" "unary",
    RoleList = "etcdserverpb.Auth" "RoleList" "unary",
    RoleDelete = "etcdserverpb.Auth" "RoleDelete" "unary",
    RoleGrantPermission = "etcdserverpb.Auth" "RoleGrantPermission" "unary",
    RoleRevokePermission = "etcdserverpb.Auth" "RoleRevokePermission" "unary",
    Lock = "v3lockpb.Lock" "Lock" "unary",
    Unlock = "v3lockpb.Lock" "Unlock" "unary",
    Campaign = "v3electionpb.Election" "Campaign" "unary",
    Proclaim = "v3electionpb.Election" "Proclaim" "unary",
    Leader = "v3electionpb.Election" "Leader" "unary",
    Observe = "v3electionpb.Election" "Observe" "server_stream",
    Resign = "v3electionpb.Election" "Resign" "unary",
    HealthCheck = "grpc.health.v1.Health" "Check" "unary",
    HealthWatch = "grpc.health.v1.Health" "Watch" "server_stream",
    Reflection = "grpc.reflection.v1.ServerReflection" "ServerReflectionInfo" "bidi_stream",
    ReflectionAlpha = "grpc.reflection.v1alpha.ServerReflection" "ServerReflectionInfo" "bidi_stream",
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    #[test]
    fn every_rpc_of_the_api_is_listed() {
        let set = prost_types::FileDescriptorSet::decode(etcfs_proto::DESCRIPTORS).unwrap();
        let mut seen = 0;
        for file in set.file.iter().filter(|file| !file.package().starts_with("etcfs")) {
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
