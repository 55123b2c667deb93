//! The server that a case runs on, and the words that cases share.
//!
//! Most cases run on one server of each kind for the whole run: one at a time, so
//! that a case may count revisions, and on an emptied store, so that it may use
//! plain keys. A case that needs an untouched store, or time, gets a server of its
//! own.

use std::{fmt::Debug, ops::Deref};

use bytes::Bytes;
use etcfs_proto::{
    etcdserverpb::{
        DeleteRangeRequest, LeaseLeasesRequest, LeaseRevokeRequest, RangeRequest, ResponseHeader, ResponseOp,
        response_op::Response,
    },
    key::TO_END,
    mvccpb::{Event, KeyValue, event::EventType},
};
use etcfs_tests::{
    api::{Answer, Api, put},
    process::show,
    server::{Kind, Options, Server},
    shared::Shared,
};
use tonic::Code;

/// Makes two tests of each case: on a shared `etcfsd` and on a shared etcd.
macro_rules! on_both {
    ($($case:ident),+ $(,)?) => {
        mod on_etcfsd {
            $(#[test] fn $case() { super::$case(&crate::subject::Subject::shared(etcfs_tests::server::Kind::Etcfs)); })+
        }
        mod on_etcd {
            $(#[test] fn $case() { super::$case(&crate::subject::Subject::shared(etcfs_tests::server::Kind::Etcd)); })+
        }
    };
}

/// Makes two tests of each case, each on a server of its own.
macro_rules! on_both_alone {
    ($($case:ident),+ $(,)?) => {
        mod alone_on_etcfsd {
            $(#[test] fn $case() { super::$case(&crate::subject::Subject::alone(etcfs_tests::server::Kind::Etcfs, &[])); })+
        }
        mod alone_on_etcd {
            $(#[test] fn $case() { super::$case(&crate::subject::Subject::alone(etcfs_tests::server::Kind::Etcd, &[])); })+
        }
    };
}

/// Makes a test of each case on a shared `etcfsd` alone: for what etcd 3.4 does not have.
macro_rules! on_ours {
    ($($case:ident),+ $(,)?) => {
        mod on_etcfsd_alone {
            $(#[test] fn $case() { super::$case(&crate::subject::Subject::shared(etcfs_tests::server::Kind::Etcfs)); })+
        }
    };
}

/// A server under test with an empty store; calls go straight to its API.
#[derive(Debug)]
pub(crate) struct Subject {
    api: Api,
    server: Held,
}

#[derive(Debug)]
enum Held {
    Alone(Box<Server>),
    Shared(Shared),
}

impl Subject {
    /// The run's server of this kind, emptied, with nobody else on it.
    pub(crate) fn shared(kind: Kind) -> Self {
        let server = Shared::take(kind);
        let subject = Self { api: server.api(), server: Held::Shared(server) };
        subject.empty();
        subject
    }

    /// A server for this case alone.
    pub(crate) fn alone(kind: Kind, args: &[&str]) -> Self {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let server = Server::with(kind, Options { args, ..Default::default() });
        Self { api: server.api(), server: Held::Alone(Box::new(server)) }
    }

    /// No keys, no leases: all that an earlier case can have left but history.
    fn empty(&self) {
        for lease in self.leases(LeaseLeasesRequest {}).unwrap().leases {
            self.revoke(LeaseRevokeRequest { id: lease.id }).unwrap();
        }
        self.delete(delete_span(TO_END, TO_END)).unwrap();
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn endpoint(&self) -> String {
        match &self.server {
            Held::Alone(server) => server.endpoint(),
            Held::Shared(server) => server.endpoint().to_owned(),
        }
    }

    /// True for the reference of version 3.4.
    pub(crate) fn is_v3_4(&self) -> bool {
        let kind = match &self.server {
            Held::Alone(server) => server.kind(),
            Held::Shared(server) => server.kind(),
        };
        kind == Kind::Etcd
    }

    /// What to expect where etcd 3.4 differs from the 3.6 that ours follows.
    pub(crate) fn by_version<T>(&self, v3_4: T, v3_6: T) -> T {
        if self.is_v3_4() { v3_4 } else { v3_6 }
    }
}

impl Deref for Subject {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // A server alone shows its log itself, as it is dropped.
        if let (true, Held::Shared(server)) = (std::thread::panicking(), &self.server) {
            let log = server.log();
            let lines: Vec<&str> = log.lines().collect();
            show(&format!("--- log:\n{}", lines[lines.len().saturating_sub(30)..].join("\n")));
        }
    }
}

/// Checks that a call was refused with just this code and message.
#[track_caller]
pub(crate) fn refused<T: Debug>(answer: Answer<T>, code: Code, message: &str) {
    let status = answer.expect_err("this call must be refused");
    assert_eq!((status.code(), status.message()), (code, message));
}

/// The bytes of a key, an end or a value.
pub(crate) fn bytes(text: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(text.as_ref())
}

/// The request for `[key, end)`.
pub(crate) fn span(key: impl AsRef<[u8]>, end: impl AsRef<[u8]>) -> RangeRequest {
    RangeRequest { key: bytes(key), range_end: bytes(end), ..Default::default() }
}

/// The request to delete `[key, end)`.
pub(crate) fn delete_span(key: impl AsRef<[u8]>, end: impl AsRef<[u8]>) -> DeleteRangeRequest {
    DeleteRangeRequest { key: bytes(key), range_end: bytes(end), ..Default::default() }
}

/// `a b c`.
pub(crate) fn keys(kvs: &[KeyValue]) -> String {
    let keys: Vec<_> = kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key)).collect();
    keys.join(" ")
}

/// `a=1 b=2`.
pub(crate) fn pairs(kvs: &[KeyValue]) -> String {
    let pairs: Vec<_> = kvs
        .iter()
        .map(|kv| format!("{}={}", String::from_utf8_lossy(&kv.key), String::from_utf8_lossy(&kv.value)))
        .collect();
    pairs.join(" ")
}

/// A pair's numbers: create_revision, mod_revision, version.
pub(crate) fn numbers(kv: &KeyValue) -> (i64, i64, i64) {
    (kv.create_revision, kv.mod_revision, kv.version)
}

/// `a=1@5 -b@6`: puts and deletes with the revisions that made them.
pub(crate) fn events(events: &[Event]) -> String {
    let shown: Vec<_> = events
        .iter()
        .map(|event| {
            let kv = event.kv.as_ref().expect("every event has a pair");
            let key = String::from_utf8_lossy(&kv.key);
            match event.r#type() {
                EventType::Put => format!("{key}={}@{}", String::from_utf8_lossy(&kv.value), kv.mod_revision),
                EventType::Delete => format!("-{key}@{}", kv.mod_revision),
            }
        })
        .collect();
    shown.join(" ")
}

/// The revision in a response's header.
#[track_caller]
pub(crate) fn revision(header: &Option<ResponseHeader>) -> i64 {
    header.as_ref().expect("every answer has a header").revision
}

/// The answer to an operation of a transaction.
#[track_caller]
pub(crate) fn op(responses: &[ResponseOp], index: usize) -> &Response {
    responses[index].response.as_ref().expect("every operation has an answer")
}

/// What a transaction's range found: `a=1 b=2`.
#[track_caller]
pub(crate) fn ranged(responses: &[ResponseOp], index: usize) -> String {
    match op(responses, index) {
        Response::ResponseRange(range) => pairs(&range.kvs),
        other => panic!("operation {index} is no range: {other:?}"),
    }
}

/// Puts `count` keys, all at once on one connection.
pub(crate) fn put_many(s: &Api, key: &str, count: i64) {
    s.wait(async {
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..count {
            let (mut kv, request) = (s.kv(), put(&format!("{key}{n}"), "v"));
            calls.spawn(async move { kv.put(request).await });
        }
        while let Some(call) = calls.join_next().await {
            call.expect("a call does not panic")?;
        }
        Ok(())
    })
    .unwrap();
}
