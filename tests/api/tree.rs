//! etcfs's extension of the API, which etcd does not have.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use etcfs_client::{Client, ClientError, Code, Config, Credentials};
use etcfs_proto::{
    authpb::permission::Type,
    etcdserverpb::{CompactionRequest, Compare, RequestOp, TxnRequest, compare, request_op},
    etcfs::v1::{Child, ChildrenRequest, Move, RenameRequest, RenameResponse, TimesRequest, TimesResponse},
};
use etcfs_tests::{
    api::{Api, compact, delete, grant, put, put_on_lease, runtime},
    server::{Kind, Options, Server},
    wait,
};

use crate::auth::{DENIED, enabled};

fn client(server: &Server) -> Client {
    client_of(server, None)
}

fn client_of(server: &Server, credentials: Option<Credentials>) -> Client {
    let endpoints = vec![server.endpoint()];
    Client::connect(Config { endpoints, credentials, ..Config::default() }).unwrap()
}

fn children(client: &Client, request: ChildrenRequest) -> Result<(Vec<Child>, Bytes), ClientError> {
    let answer = runtime().block_on(client.tree().children(request))?;
    Ok((answer.children, answer.next))
}

fn below(prefix: &str) -> ChildrenRequest {
    ChildrenRequest { prefix: prefix.to_owned().into(), ..ChildrenRequest::default() }
}

fn rename(
    client: &Client,
    txn: TxnRequest,
    moves: &[(&str, &str, bool)],
) -> Result<RenameResponse, ClientError> {
    let moves = moves.iter().map(|&(from, to, replace)| Move {
        from: from.to_owned().into(),
        to: to.to_owned().into(),
        replace,
    });
    let request = RenameRequest { txn: Some(txn), moves: moves.collect() };
    runtime().block_on(client.tree().rename(request))
}

fn names(api: &Api, prefix: &str) -> Vec<String> {
    api.all(prefix).into_iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, ClientError>, code: Code, words: &str) {
    let error = answer.unwrap_err();
    assert_eq!(error.code(), Some(code), "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

#[test]
fn children_say_kinds_and_facts_page_by_page_and_in_the_past() {
    let server = Server::etcfs();
    let api = server.api();
    let client = client(&server);
    let lease = api.grant(grant(600)).unwrap().id;
    let first = api.set("/d/a", "123");
    api.put(put_on_lease("/d/a-b", "leased", lease)).unwrap();
    for key in ["/d/a/x/y", "/d/a/x/z", "/d/b/c", "/e"] {
        api.set(key, "");
    }
    let newest = api.set("/d/ab", vec![7; 300]);
    let (all, next) = children(&client, below("/d/")).unwrap();
    let told: Vec<_> = all
        .iter()
        .map(|child| {
            let key = child.key.as_ref().map(|key| (key.size, key.mod_revision, key.lease));
            (std::str::from_utf8(&child.name).unwrap(), key, child.below)
        })
        .collect();
    assert_eq!(
        told,
        [
            ("a", Some((3, first, 0)), true),
            ("a-b", Some((6, first + 1, lease)), false),
            ("ab", Some((300, newest, 0)), false),
            ("b", None, true),
        ]
    );
    assert!(next.is_empty());
    // What changes between pages is not in them: they are of one revision.
    let mut request = ChildrenRequest { limit: 2, revision: newest, ..below("/d/") };
    let mut paged: Vec<Vec<(Bytes, bool, bool)>> = Vec::new();
    loop {
        let (page, next) = children(&client, request.clone()).unwrap();
        paged.push(page.iter().map(|child| (child.name.clone(), child.key.is_some(), child.below)).collect());
        if next.is_empty() {
            break;
        }
        request.from = next;
        api.delete(delete("/d/b/c")).unwrap();
        api.set(&format!("/d/ac{}", paged.len()), "");
    }
    let told = |name: &str, is_key, below| (Bytes::copy_from_slice(name.as_bytes()), is_key, below);
    let expected = [
        vec![told("a", true, false), told("a-b", true, false)],
        vec![told("a", false, true), told("ab", true, false)],
        vec![told("b", false, true)],
    ];
    assert_eq!(paged, expected, "the first page ends between a key and those below it");
    let newest = api.revision();
    let past = ChildrenRequest { revision: first, serializable: true, ..below("/d/") };
    assert_eq!(children(&client, past).unwrap().0.len(), 1);
    let future = ChildrenRequest { revision: newest + 1, ..below("/d/") };
    refused(children(&client, future), Code::OutOfRange, "future revision");
    assert_eq!(children(&client, below("")).unwrap().0.len(), 1, "all keys begin with a slash");
}

#[test]
fn a_rename_moves_values_and_leases_in_one_revision_however_many_they_are() {
    let server = Server::etcfs();
    let api = server.api();
    let client = client(&server);
    let lease = api.grant(grant(600)).unwrap().id;
    for number in 0..1000 {
        api.set(&format!("/old/{number:04}"), format!("value {number}"));
    }
    api.put(put_on_lease("/old/leased", "v", lease)).unwrap();
    api.set("/older", "stays");
    let before = api.revision();
    let txn = TxnRequest {
        success: vec![RequestOp { request: Some(request_op::Request::RequestPut(put("/told", "yes"))) }],
        ..TxnRequest::default()
    };
    let done = rename(&client, txn, &[("/old/", "/new/place/", false)]).unwrap();
    assert_eq!((done.succeeded, done.moved, done.responses.len()), (true, 1001, 1));
    assert_eq!(api.revision(), before + 1);
    let kvs = api.all("/new/place/");
    assert!(kvs.iter().all(|kv| (kv.version, kv.mod_revision) == (1, before + 1)));
    assert_eq!((kvs.len(), kvs[7].value.as_ref()), (1001, &b"value 7"[..]));
    assert_eq!(kvs.last().unwrap().lease, lease);
    assert_eq!(names(&api, "/old"), ["/older"]);
    assert_eq!(api.value("/told").as_deref(), Some("yes"));
    assert_eq!(api.events_since("/", before + 1).len(), 2003, "all of it is watched, as one");
}

#[test]
fn a_rename_whose_compare_fails_or_that_has_no_room_changes_nothing() {
    let server = Server::with(
        Kind::Etcfs,
        Options { args: ["--max-request-bytes", "20000"].map(str::to_owned).to_vec(), ..Options::default() },
    );
    let api = server.api();
    let client = client(&server);
    for key in ["/a/1", "/a/2", "/b/2", "/b/3"] {
        api.set(key, key);
    }
    let before = api.revision();
    let absent = Compare {
        key: "/b/3".into(),
        result: compare::CompareResult::Equal.into(),
        target: compare::CompareTarget::Create.into(),
        target_union: Some(compare::TargetUnion::CreateRevision(0)),
        range_end: Bytes::new(),
    };
    let unless = TxnRequest { compare: vec![absent], ..TxnRequest::default() };
    let done = rename(&client, unless, &[("/a/", "/c/", false)]).unwrap();
    assert_eq!((done.succeeded, done.moved), (false, 0));
    let plain = TxnRequest::default;
    let full = rename(&client, plain(), &[("/a/", "/b/", false)]);
    refused(full, Code::FailedPrecondition, "keys lie below the new prefix");
    for moves in [[("/a/", "/a/b/", false)], [("/a/", "/a/", true)], [("/a/b/", "/a/", true)]] {
        refused(rename(&client, plain(), &moves), Code::InvalidArgument, "duplicate key");
    }
    refused(rename(&client, plain(), &[("", "/c/", false)]), Code::InvalidArgument, "key is not provided");
    refused(rename(&client, plain(), &[]), Code::InvalidArgument, "too many operations");
    let into = TxnRequest {
        success: vec![RequestOp { request: Some(request_op::Request::RequestPut(put("/a/new", ""))) }],
        ..plain()
    };
    refused(rename(&client, into, &[("/a/", "/c/", false)]), Code::InvalidArgument, "duplicate key");
    assert_eq!(api.revision(), before);
    let done = rename(&client, plain(), &[("/a/", "/b/", true)]).unwrap();
    assert_eq!((done.moved, api.revision()), (2, before + 1));
    assert_eq!(names(&api, "/"), ["/b/1", "/b/2"]);
    assert_eq!(api.value("/b/2").as_deref(), Some("/a/2"));
    for number in 0..4 {
        api.set(&format!("/b/large{number}"), vec![7; 6000]);
    }
    let before = api.revision();
    refused(
        rename(&client, plain(), &[("/b/", "/c/", false)]),
        Code::InvalidArgument,
        "request is too large",
    );
    assert_eq!(api.revision(), before);
}

#[test]
fn a_tree_shows_and_moves_only_what_the_user_may_read_and_write() {
    let server = Server::with(
        Kind::Etcfs,
        Options { args: ["--bcrypt-cost", "4"].map(str::to_owned).to_vec(), ..Options::default() },
    );
    let api = server.api();
    for key in ["/mine/a", "/theirs/a"] {
        api.set(key, "");
    }
    enabled(&api, &[(Type::Readwrite, "/mine/", "/mine0"), (Type::Read, "/seen/", "/seen0")]);
    let joe = Credentials { user: "joe".to_owned(), password: "joe's".to_owned() };
    let joe = client_of(&server, Some(joe));
    assert_eq!(children(&joe, below("/mine/")).unwrap().0.len(), 1);
    for prefix in ["/", "/theirs/", "", "/min"] {
        refused(children(&joe, below(prefix)), Code::PermissionDenied, DENIED);
    }
    let plain = TxnRequest::default;
    for moves in [
        [("/theirs/", "/mine/b/", false)],
        [("/mine/", "/theirs/b/", false)],
        [("/seen/", "/mine/b/", false)],
    ] {
        refused(rename(&joe, plain(), &moves), Code::PermissionDenied, DENIED);
    }
    assert!(rename(&joe, plain(), &[("/mine/a", "/mine/b", false)]).unwrap().succeeded);
}

fn times(client: &Client, revisions: Vec<i64>) -> Result<TimesResponse, ClientError> {
    runtime().block_on(client.tree().times(TimesRequest { revisions }))
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_nanos() as i64
}

#[test]
fn times_of_revisions_are_those_of_their_puts_and_stay_over_compaction_and_restart() {
    const EARLY_NS: i64 = 100_000_000;
    let mut server = Server::etcfs();
    let api = server.api();
    let began = now_ns();
    let kept = api.set("/d/kept", "1");
    let written = now_ns();
    // Its own row of times, however quick the machine is.
    wait::until_true("a tenth of a second later", || now_ns() > written + EARLY_NS);
    let again = now_ns();
    for value in ["1", "2", "3"] {
        api.set("/d/changed", value);
    }
    let newest = api.revision();
    let ended = now_ns();
    let client = client(&server);
    let asked = vec![kept, kept + 1, newest, newest + 1, 0, -5, kept];
    let told = times(&client, asked.clone()).unwrap();
    assert_eq!(told.header.unwrap().revision, newest);
    let before = told.unix_ns;
    assert!((began - EARLY_NS..=written).contains(&before[0]), "{before:?}");
    assert!(before[1] < before[2] && (again - EARLY_NS..=ended).contains(&before[2]), "{before:?}");
    assert_eq!((&before[3..6], before[6]), (&[0; 3][..], before[0]));
    assert_eq!(told.before_unix_ns, [0; 7]);
    let (listed, _) = children(&client, below("/d/")).unwrap();
    let mod_times: Vec<i64> = listed.iter().map(|child| child.key.as_ref().unwrap().mod_unix_ns).collect();
    assert_eq!(mod_times, [before[2], before[0]]);

    api.compact(CompactionRequest { physical: true, ..compact(newest) }).unwrap();
    server.kill();
    server.run();
    let told = times(&client, asked).unwrap().unix_ns;
    assert_eq!((told[0], told[2]), (before[0], before[2]), "what keys have is kept");
    refused(times(&client, vec![1; 10_001]), Code::InvalidArgument, "too many revisions");
    assert_eq!(times(&client, vec![1; 10_000]).unwrap().unix_ns.len(), 10_000);
}

#[test]
fn etcd_has_no_such_service_and_says_so() {
    let server = Server::etcd();
    let client = client(&server);
    refused(children(&client, below("/")), Code::Unimplemented, "etcfs.v1.Tree");
}
