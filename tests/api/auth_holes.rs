//! The ways round etcd 3.4's rights that its advisories list, closed; and where
//! secrets must not lie.

use std::time::{Duration, Instant};

use etcfs_proto::{
    authpb::permission::Type,
    etcdserverpb::{
        AlarmRequest, AuthUserDeleteRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseLeasesRequest,
        LeaseRevokeRequest, LeaseTimeToLiveRequest, MemberListRequest, PutRequest, StatusRequest,
        WatchCreateRequest, WatchResponse, alarm_request::AlarmAction,
    },
    v3electionpb::{CampaignRequest, LeaderRequest, ProclaimRequest},
};
use etcfs_tests::{
    api::{Api, Op, compact, delete, get, grant as lease, put, put_on_lease, txn, watch_key, watch_prefix},
    command::sh,
    machine,
    server::{Kind, Options, Server},
    wait,
};
use tonic::Code;

use crate::{
    auth::{BAD_TOKEN, DENIED, USER_EMPTY, add_user, enabled, forbid, grant, permit, subject},
    subject::{bytes, delete_span, events, refused},
};

const RIGHTS: [(Type, &str, &str); 2] = [(Type::Read, "a", ""), (Type::Write, "w", "")];

#[test]
fn a_nested_range_reads_no_foreign_key() {
    let s = subject(Kind::Etcfs);
    let (_root, joe) = enabled(&s, &RIGHTS);
    let foreign = || Op::Range(get("secret"));
    for request in [
        txn([Op::Txn(txn([foreign()]))]),
        txn([Op::Txn(txn([Op::Txn(txn([foreign()]))]))]),
        txn([Op::Range(get("a")), foreign()]),
        txn([Op::Put(put("w", "1")), Op::Txn(txn([foreign()]))]),
    ] {
        refused(joe.txn(request), Code::PermissionDenied, DENIED);
    }
    joe.txn(txn([Op::Txn(txn([Op::Range(get("a")), Op::Put(put("w", "1"))]))])).unwrap();
}

#[test]
fn the_previous_pair_is_for_readers() {
    let s = subject(Kind::Etcfs);
    let (root, joe) = enabled(&s, &RIGHTS);
    root.set("w", "secret");
    let asks = || PutRequest { prev_kv: true, ..put("w", "1") };
    let deletes = || DeleteRangeRequest { prev_kv: true, ..delete("w") };
    refused(joe.put(asks()), Code::PermissionDenied, DENIED);
    refused(joe.delete(deletes()), Code::PermissionDenied, DENIED);
    refused(joe.txn(txn([Op::Put(asks())])), Code::PermissionDenied, DENIED);
    refused(joe.txn(txn([Op::Txn(txn([Op::Delete(deletes())]))])), Code::PermissionDenied, DENIED);
    joe.put(put("w", "1")).unwrap();
}

#[test]
fn a_lease_with_foreign_keys_is_not_at_hand() {
    let s = subject(Kind::Etcfs);
    let (root, joe) = enabled(&s, &RIGHTS);
    let id = root.grant(lease(600)).unwrap().id;
    // One without keys is anybody's who knows its number.
    joe.put(put_on_lease("w", "1", id)).unwrap();
    root.put(put_on_lease("secret", "1", id)).unwrap();
    refused(joe.put(put_on_lease("w", "2", id)), Code::PermissionDenied, DENIED);
    refused(joe.txn(txn([Op::Put(put_on_lease("w", "2", id))])), Code::PermissionDenied, DENIED);
    refused(joe.revoke(LeaseRevokeRequest { id }), Code::PermissionDenied, DENIED);
    refused(joe.keep_alive(id), Code::PermissionDenied, DENIED);
    let ask = |keys| LeaseTimeToLiveRequest { id, keys };
    refused(joe.time_to_live(ask(true)), Code::PermissionDenied, DENIED);
    assert!(joe.time_to_live(ask(false)).unwrap().keys.is_empty());
    refused(joe.leases(LeaseLeasesRequest {}), Code::PermissionDenied, DENIED);
    assert_eq!(root.time_to_live(ask(true)).unwrap().keys.len(), 2);
    root.delete(delete("secret")).unwrap();
    joe.keep_alive(id).unwrap();
    joe.revoke(LeaseRevokeRequest { id }).unwrap();
}

#[test]
fn leases_members_alarms_and_compaction_take_a_login() {
    let s = subject(Kind::Etcfs);
    let (root, joe) = enabled(&s, &RIGHTS);
    let revision = root.set("k", "1");
    let id = root.grant(lease(600)).unwrap().id;
    let raise = AlarmRequest { action: AlarmAction::Activate as i32, member_id: 1, alarm: 1 };
    let nobody = [
        s.grant(LeaseGrantRequest { ttl: 60, id: 0 }).map(drop),
        s.revoke(LeaseRevokeRequest { id }).map(drop),
        s.keep_alive(id).map(drop),
        s.time_to_live(LeaseTimeToLiveRequest { id, keys: false }).map(drop),
        s.leases(LeaseLeasesRequest {}).map(drop),
        s.member_list(MemberListRequest { linearizable: false }).map(drop),
        s.status(StatusRequest {}).map(drop),
        s.alarm(AlarmRequest::default()).map(drop),
        s.alarm(raise).map(drop),
        s.compact(compact(revision)).map(drop),
    ];
    for answer in nobody {
        refused(answer, Code::InvalidArgument, USER_EMPTY);
    }
    refused(joe.compact(compact(revision)), Code::PermissionDenied, DENIED);
    refused(joe.alarm(raise), Code::PermissionDenied, DENIED);
    joe.alarm(AlarmRequest::default()).unwrap();
    joe.member_list(MemberListRequest { linearizable: true }).unwrap();
    joe.status(StatusRequest {}).unwrap();
    root.compact(compact(revision)).unwrap();
}

/// Opens a watch that must be refused, and gives the reason.
fn refused_watch(api: &Api, request: WatchCreateRequest) -> String {
    let mut stream = api.watch_stream();
    stream.create(request);
    let WatchResponse { watch_id, created, canceled, cancel_reason, .. } = stream.next();
    assert_eq!((watch_id, created, canceled), (-1, true, true));
    cancel_reason
}

fn span_watch(key: &str, end: &str) -> WatchCreateRequest {
    WatchCreateRequest { key: bytes(key), range_end: bytes(end), ..Default::default() }
}

const DENIED_IN_GO: &str = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";

fn a_watch_needs_the_right_to_read_all_of_its_range(kind: Kind) {
    let s = subject(kind);
    let (root, joe) = enabled(&s, &RIGHTS);
    // 3.4 gives who may read one key a watch of all from there on (GHSA-xg4h-6gfc-h4m8).
    if !s.is_v3_4() {
        assert_eq!(refused_watch(&joe, span_watch("a", "\0")), DENIED_IN_GO);
    }
    for (key, end) in [("a", "b"), ("\0", "\0"), ("w", ""), ("secret", "")] {
        assert_eq!(refused_watch(&joe, span_watch(key, end)), DENIED_IN_GO, "{key:?} {end:?}");
    }
    let nobody = refused_watch(&s, watch_key("a", 0));
    assert_eq!(nobody, format!("rpc error: code = InvalidArgument desc = {USER_EMPTY}"));
    let stranger = refused_watch(&s.with_token("x.1"), watch_key("a", 0));
    assert_eq!(stranger, format!("rpc error: code = Unauthenticated desc = {BAD_TOKEN}"));
    // A refusal ends no stream.
    let mut stream = joe.watch_stream();
    stream.create(watch_key("secret", 0));
    stream.create(watch_key("a", 0));
    assert!(stream.next().canceled);
    assert!(!stream.next().canceled);
    let revision = root.set("a", "1");
    assert_eq!(events(&stream.events(1)), format!("a=1@{revision}"));
}

#[test]
fn a_watch_needs_the_right_to_read_all_of_its_range_on_etcfsd() {
    a_watch_needs_the_right_to_read_all_of_its_range(Kind::Etcfs);
}

#[test]
fn a_watch_needs_the_right_to_read_all_of_its_range_on_etcd() {
    a_watch_needs_the_right_to_read_all_of_its_range(Kind::Etcd);
}

/// etcd asks for the right once; here a watch ends with it, and no later event passes.
#[test]
fn a_watch_ends_with_the_right_to_it() {
    let s = subject(Kind::Etcfs);
    let (root, joe) = enabled(&s, &[(Type::Read, "a", ""), (Type::Read, "b/", "b0")]);
    let mut stream = joe.watch(watch_key("a", 0));
    stream.create(watch_prefix("b/", 0));
    let other = stream.next().watch_id;
    root.set("a", "1");
    assert_eq!(stream.next().events.len(), 1);
    forbid(&root, "r", "a", "").unwrap();
    root.set("a", "secret");
    let ended = stream.next();
    assert_eq!((ended.watch_id, ended.canceled, ended.events.len()), (0, true, 0));
    assert_eq!(ended.cancel_reason, DENIED_IN_GO);
    // What he may still see goes on.
    root.set("b/1", "1");
    let answer = stream.next();
    assert_eq!((answer.watch_id, answer.events.len()), (other, 1));
    root.user_delete(AuthUserDeleteRequest { name: "joe".into() }).unwrap();
    let ended = stream.next();
    assert_eq!((ended.watch_id, ended.canceled), (other, true));
}

#[test]
fn a_watch_of_the_time_before_ends_when_authentication_begins() {
    let s = subject(Kind::Etcfs);
    let mut stream = s.watch(watch_key("a", 0));
    let (root, _joe) = enabled(&s, &RIGHTS);
    root.set("a", "secret");
    let ended = stream.next();
    assert_eq!((ended.canceled, ended.events.len()), (true, 0));
    assert_eq!(ended.cancel_reason, format!("rpc error: code = InvalidArgument desc = {USER_EMPTY}"));
}

/// What is said after the right is gone is not told any more.
#[test]
fn an_observation_ends_with_the_right_to_it() {
    let s = subject(Kind::Etcfs);
    let (root, joe) = enabled(&s, &[(Type::Read, "e/", "e0")]);
    let campaign = |value: &str| CampaignRequest { name: bytes("e"), lease: 0, value: bytes(value) };
    let won = s.wait(root.election().campaign(root.signed(campaign("one")))).unwrap().into_inner();
    let request = joe.signed(LeaderRequest { name: bytes("e") });
    let mut told = s.wait(joe.election().observe(request)).unwrap().into_inner();
    let first = s.wait(told.message()).unwrap().unwrap();
    assert_eq!(first.kv.unwrap().value, "one");
    forbid(&root, "r", "e/", "e0").unwrap();
    let request = ProclaimRequest { leader: won.leader, value: bytes("secret") };
    s.wait(root.election().proclaim(root.signed(request))).unwrap();
    refused(s.wait(told.message()), Code::PermissionDenied, DENIED);
}

/// Each round takes a right and writes: nothing of what is written after may be seen.
#[test]
fn no_event_passes_after_its_right_is_gone() {
    let s = subject(Kind::Etcfs);
    let (root, joe) = enabled(&s, &[(Type::Read, "a", "")]);
    for round in 0..20 {
        let mut stream = joe.watch(watch_key("a", 0));
        root.set("a", "open");
        forbid(&root, "r", "a", "").unwrap();
        for _ in 0..5 {
            root.set("a", "secret");
        }
        loop {
            let answer = stream.next();
            let seen = events(&answer.events);
            assert!(!seen.contains("secret"), "round {round}: {seen}");
            if answer.canceled {
                break;
            }
        }
        permit(&root, "r", Type::Read, "a", "").unwrap();
    }
}

#[test]
fn a_token_lasts_as_long_as_it_is_used() {
    const TTL: Duration = Duration::from_secs(2);
    let args = ["--bcrypt-cost", "4", "--auth-token-ttl", "2"].map(str::to_owned).to_vec();
    let server = Server::with(Kind::Etcfs, Options { args, ..Default::default() });
    let api = server.api();
    let (_root, joe) = enabled(&api, &RIGHTS);
    // Looking is using: so each token is looked at once, at an age of its own.
    let mut unused = Vec::new();
    wait::until("an unused token ends", || {
        joe.range(get("a")).expect("one in use does not");
        unused.push((Instant::now(), api.log_in("joe", "joe's")));
        let is_old = unused.first().is_some_and(|(since, _)| since.elapsed() > TTL);
        let refused = is_old.then(|| unused.remove(0).1.range(get("a"))).and_then(Result::err);
        refused.filter(|status| status.message() == BAD_TOKEN)
    });
}

#[test]
fn users_survive_a_restart_and_tokens_do_not() {
    let args = ["--bcrypt-cost", "4"].map(str::to_owned).to_vec();
    let mut server = Server::with(Kind::Etcfs, Options { args, ..Default::default() });
    let (root, _joe) = enabled(&server.api(), &RIGHTS);
    root.set("a", "1");
    for in_order in [true, false] {
        if in_order {
            server.stop();
        } else {
            server.kill();
        }
        server.run();
        let api = server.api();
        refused(api.range(get("a")), Code::InvalidArgument, USER_EMPTY);
        let token = root.token().unwrap();
        refused(api.with_token(token).range(get("a")), Code::Unauthenticated, BAD_TOKEN);
        assert_eq!(api.log_in("joe", "joe's").value("a").as_deref(), Some("1"));
        refused(api.log_in("joe", "joe's").delete(delete_span("a", "")), Code::PermissionDenied, DENIED);
    }
}

/// Passwords and tokens lie in no file and no log, and the process does not show them.
#[test]
fn secrets_lie_nowhere_in_clear() {
    let args = ["--bcrypt-cost", "4", "--log-level", "debug"].map(str::to_owned).to_vec();
    let mut server = Server::with(Kind::Etcfs, Options { args, ..Default::default() });
    let api = server.api();
    add_user(&api, "root", "dRoWsSaP-1").unwrap();
    grant(&api, "root", "root").unwrap();
    api.auth_enable(Default::default()).unwrap();
    let root = api.log_in("root", "dRoWsSaP-1");
    add_user(&root, "jane", "dRoWsSaP-2").unwrap();
    root.set("found-in-the-log", "1");
    let wrong = api.authenticate(etcfs_proto::etcdserverpb::AuthenticateRequest {
        name: "root".into(),
        password: "dRoWsSaP-3".into(),
    });
    wrong.unwrap_err();
    let token = root.token().unwrap().split('.').next().unwrap().to_owned();
    let cmdline = std::fs::read(format!("/proc/{}/cmdline", server.pid())).unwrap();
    let log = server.log();
    server.stop();
    let mut seen = vec![(String::from("cmdline"), cmdline), (String::from("log"), log.into_bytes())];
    let mut dirs = vec![server.data_dir()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                seen.push((path.display().to_string(), std::fs::read(path).unwrap()));
            }
        }
    }
    let holds = |bytes: &[u8], word: &str| bytes.windows(word.len()).any(|part| part == word.as_bytes());
    assert!(seen.iter().any(|(_, bytes)| holds(bytes, "found-in-the-log")), "the files are looked at");
    for (name, bytes) in &seen {
        for secret in ["dRoWsSaP", token.as_str()] {
            assert!(!holds(bytes, secret), "{secret} is in {name}");
        }
    }
}

/// CVE-2026-33186: what is asked is judged by where it goes, not by how its path is spelled.
#[test]
fn a_path_spelled_otherwise_leads_nowhere() {
    machine::program("curl");
    let s = subject(Kind::Etcfs);
    let (root, _joe) = enabled(&s, &RIGHTS);
    root.set("secret", "found");
    let dir = tempfile::tempdir().unwrap();
    // A message of gRPC: no compression, 8 bytes, a Range of `secret`.
    std::fs::write(dir.path().join("range"), b"\0\0\0\0\x08\x0a\x06secret").unwrap();
    let ask = |path: &str, token: &str| {
        let script = format!(
            "curl -s -i --max-time 20 --http2-prior-knowledge --request-target '{path}' \
             -H 'content-type: application/grpc' -H 'te: trailers' -H 'token: {token}' \
             --data-binary @range --output - http://{}/ | tr -d '\\0'",
            s.endpoint()
        );
        sh(dir.path(), &script).stdout
    };
    let token = root.token().unwrap();
    assert!(ask("/etcdserverpb.KV/Range", token).contains("found"), "with a token, spelled right");
    for path in [
        "/etcdserverpb.KV/Range",
        "/etcdserverpb.KV/Range?x",
        "etcdserverpb.KV/Range",
        "//etcdserverpb.KV/Range",
        "/etcdserverpb.KV//Range",
        "/etcdserverpb.KV/Range/",
        "/./etcdserverpb.KV/Range",
        "/v3/../etcdserverpb.KV/Range",
        "/etcdserverpb.KV%2fRange",
        "/%65tcdserverpb.KV/Range",
        "/etcdserverpb.kv/range",
        "/ETCDSERVERPB.KV/RANGE",
    ] {
        for token in ["", "stranger.1"] {
            let answer = ask(path, token);
            assert!(!answer.contains("found") && !answer.contains("grpc-status: 0"), "{path}: {answer}");
        }
    }
    assert_eq!(root.value("secret").as_deref(), Some("found"), "and the server lives");
}

/// CVE-2020-15115: a short one is taken, as clients of etcd use such, and told of.
#[test]
fn a_short_password_is_warned_of() {
    let args = ["--bcrypt-cost", "4"].map(str::to_owned).to_vec();
    let server = Server::with(Kind::Etcfs, Options { args, ..Default::default() });
    let warning = "the new password has fewer than 8 characters";
    add_user(&server.api(), "jane", "12345678").unwrap();
    assert!(!server.log().contains(warning));
    add_user(&server.api(), "joe", "1234567").unwrap();
    wait::until_true("it is warned of", || server.log().contains(warning));
}

#[test]
fn a_short_password_is_refused_where_that_is_set() {
    let args = ["--bcrypt-cost", "4", "--auth-min-password-length", "8"].map(str::to_owned).to_vec();
    let server = Server::with(Kind::Etcfs, Options { args, ..Default::default() });
    let api = server.api();
    let too_short = "etcdserver: password is shorter than --auth-min-password-length";
    refused(add_user(&api, "joe", "1234567"), Code::InvalidArgument, too_short);
    add_user(&api, "joe", "12345678").unwrap();
    let too_long = "bcrypt: password length exceeds 72 bytes";
    refused(add_user(&api, "jane", &"x".repeat(73)), Code::InvalidArgument, too_long);
}
