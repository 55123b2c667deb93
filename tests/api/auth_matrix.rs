//! Every RPC with every kind of caller: default deny.
//!
//! The list of RPCs is the server's own, so one that is added has no row here
//! until somebody has said who may call it, and the test fails.

use bytes::Bytes;
use etcfs_proto::{
    authpb::permission::Type,
    etcdserverpb::{
        AuthRoleGetRequest, AuthUserAddRequest, AuthUserGetRequest, AuthenticateRequest, CompactionRequest,
        DeleteRangeRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, MemberRemoveRequest, PutRequest,
        RangeRequest, RequestOp, TxnRequest, request_op,
    },
    etcfs::v1::{ChildrenRequest, Move, RenameRequest},
    v3electionpb::{CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest},
    v3lockpb::{LockRequest, UnlockRequest},
};
use etcfs_server::net::METHODS;
use etcfs_tests::{
    api::{Api, grant as lease, put_on_lease},
    raw::Raw,
    server::Kind,
};
use prost::Message as _;
use tonic::{Code, Status};

use crate::{
    auth::{BAD_TOKEN, DENIED, USER_EMPTY, add_user, enabled, subject},
    subject::bytes,
};

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Nobody,
    /// With a token that nobody was given.
    Stranger,
    /// Logged in, without a role.
    Bare,
    /// May read `mine`, not `secret`.
    Reader,
    Root,
}

/// What a method takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Nothing,
    Login,
    /// The right to `secret`, or something else that only root has here.
    Root,
}

/// Which right each RPC takes when it is about `secret`; `None` for one that no row knows.
fn takes(method: &str) -> Option<Takes> {
    Some(match method {
        "Authenticate" | "Check" | "ServerReflectionInfo" => Takes::Nothing,
        "LeaseGrant" | "MemberList" | "Status" | "Alarm" | "Times" => Takes::Login,
        "Range"
        | "Put"
        | "Txn"
        | "DeleteRange"
        | "Compact"
        | "LeaseRevoke"
        | "LeaseKeepAlive"
        | "LeaseTimeToLive"
        | "LeaseLeases"
        | "MemberAdd"
        | "MemberRemove"
        | "MemberUpdate"
        | "MemberPromote"
        | "Defragment"
        | "Hash"
        | "HashKV"
        | "Snapshot"
        | "MoveLeader"
        | "Downgrade"
        | "AuthEnable"
        | "AuthDisable"
        | "AuthStatus"
        | "UserAdd"
        | "UserGet"
        | "UserList"
        | "UserDelete"
        | "UserChangePassword"
        | "UserGrantRole"
        | "UserRevokeRole"
        | "RoleAdd"
        | "RoleGet"
        | "RoleList"
        | "RoleDelete"
        | "RoleGrantPermission"
        | "RoleRevokePermission"
        | "Children"
        | "Rename"
        | "Lock"
        | "Unlock"
        | "Campaign"
        | "Proclaim"
        | "Leader"
        | "Observe"
        | "Resign" => Takes::Root,
        _ => return None,
    })
}

/// A request about `secret`, which changes nothing if root sends it.
fn body(method: &str, lease: i64) -> Vec<u8> {
    let key = || bytes("secret");
    // One for locks and elections: who locks it leads in it.
    let queue = || bytes("secret.queue");
    match method {
        "Range" => RangeRequest { key: key(), ..Default::default() }.encode_to_vec(),
        "Put" => PutRequest { key: key(), lease, ..Default::default() }.encode_to_vec(),
        "DeleteRange" => {
            DeleteRangeRequest { key: key(), range_end: bytes("a"), ..Default::default() }.encode_to_vec()
        }
        "Txn" => {
            let range = RangeRequest { key: key(), ..Default::default() };
            let op = RequestOp { request: Some(request_op::Request::RequestRange(range)) };
            TxnRequest { success: vec![op], ..Default::default() }.encode_to_vec()
        }
        "Children" => ChildrenRequest { prefix: key(), ..Default::default() }.encode_to_vec(),
        "Rename" => {
            let one = Move { from: bytes("secret/"), to: bytes("open/"), replace: false };
            RenameRequest { txn: None, moves: vec![one] }.encode_to_vec()
        }
        "Compact" => CompactionRequest { revision: 1 << 40, physical: false }.encode_to_vec(),
        "LeaseRevoke" => LeaseRevokeRequest { id: lease }.encode_to_vec(),
        // The message of a keep-alive is the same.
        "LeaseKeepAlive" => LeaseRevokeRequest { id: lease }.encode_to_vec(),
        "LeaseTimeToLive" => LeaseTimeToLiveRequest { id: lease, keys: true }.encode_to_vec(),
        "MemberRemove" | "MemberPromote" | "MoveLeader" => MemberRemoveRequest { id: 7 }.encode_to_vec(),
        "UserGet" | "UserDelete" | "UserChangePassword" | "RoleAdd" => {
            AuthUserGetRequest { name: "root".into() }.encode_to_vec()
        }
        "UserAdd" => AuthUserAddRequest { name: "root".into(), ..Default::default() }.encode_to_vec(),
        "RoleGet" | "RoleDelete" => AuthRoleGetRequest { role: "root".into() }.encode_to_vec(),
        "Lock" => LockRequest { name: queue(), lease }.encode_to_vec(),
        "Unlock" => UnlockRequest { key: bytes("secret.queue/none") }.encode_to_vec(),
        "Campaign" => CampaignRequest { name: queue(), lease, value: Bytes::new() }.encode_to_vec(),
        "Leader" | "Observe" => LeaderRequest { name: queue() }.encode_to_vec(),
        // Of nobody who leads.
        "Proclaim" | "Resign" => {
            let leader = LeaderKey { name: queue(), key: bytes("secret.queue/none"), rev: 1, lease };
            ProclaimRequest { leader: Some(leader), value: Bytes::new() }.encode_to_vec()
        }
        "Authenticate" => AuthenticateRequest { name: "x".into(), password: "x".into() }.encode_to_vec(),
        _ => Vec::new(),
    }
}

/// Calls any RPC with the bytes of its request; gives how the first answer came out.
fn call(api: &Api, path: String, body: Vec<u8>) -> Result<(), Status> {
    api.wait(async {
        let mut grpc = tonic::client::Grpc::new(api.channel()).max_decoding_message_size(usize::MAX);
        grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
        let path = path.parse().expect("a method is a path");
        let request = api.signed(tokio_stream::once(Bytes::from(body)));
        let mut answers = grpc.streaming(request, path, Raw).await?.into_inner();
        answers.message().await.map(drop)
    })
}

#[test]
fn every_rpc_asks_who_calls() {
    let s = subject(Kind::Etcfs);
    add_user(&s, "bare", "bare's").unwrap();
    let (root, reader) = enabled(&s, &[(Type::Read, "mine", "")]);
    root.set("secret", "1");
    let id = root.grant(lease(600)).unwrap().id;
    root.put(put_on_lease("secret", "1", id)).unwrap();
    let callers = [
        (Who::Nobody, (*s).clone()),
        (Who::Stranger, s.with_token("stranger.1")),
        (Who::Bare, s.log_in("bare", "bare's")),
        (Who::Reader, reader),
        (Who::Root, root.clone()),
    ];
    let mut wrong = Vec::new();
    let mut judged = 0;
    for (service, method, _) in METHODS {
        // A stream answered request by request: tests of its own.
        if *method == "Watch" {
            continue;
        }
        let Some(takes) = takes(method) else {
            wrong.push(format!("{service}/{method}: nobody has said who may call it"));
            continue;
        };
        for (who, api) in &callers {
            // What would shut the others out, or is slow, is tested elsewhere.
            if *who == Who::Root && matches!(*method, "AuthDisable" | "UserChangePassword" | "LeaseRevoke") {
                continue;
            }
            let answer = call(api, format!("/{service}/{method}"), body(method, id));
            let text = answer.as_ref().err().map(Status::message);
            let expected = match (takes, who) {
                (Takes::Nothing, _)
                | (Takes::Login, Who::Bare | Who::Reader | Who::Root)
                | (_, Who::Root) => None,
                (_, Who::Nobody) => Some(USER_EMPTY),
                (_, Who::Stranger) => Some(BAD_TOKEN),
                (Takes::Root, Who::Bare | Who::Reader) => Some(DENIED),
            };
            let right = match expected {
                Some(expected) => text == Some(expected),
                // Whatever comes of it, nobody asked who it was.
                None => ![USER_EMPTY, BAD_TOKEN, DENIED].contains(&text.unwrap_or_default()),
            };
            judged += 1;
            if !right {
                wrong.push(format!("{service}/{method} by {who:?}: {answer:?}, expected {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(judged > 225, "{judged}");
    // Nothing of it has done any harm.
    assert_eq!(root.value("secret").as_deref(), Some(""));
    assert_eq!(callers[0].1.range(etcfs_tests::api::get("mine")).unwrap_err().code(), Code::InvalidArgument);
}
