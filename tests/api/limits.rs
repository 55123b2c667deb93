//! What is too much: large requests, deep transactions, many at once.

use etcfs_proto::etcdserverpb::TxnRequest;
use etcfs_tests::api::{Op, get, put, txn};
use tonic::Code;

use crate::subject::{Subject, refused};

/// `--max-request-bytes` by default.
const REQUEST_BYTES_MAX: usize = 1_572_864;
const TOO_LARGE: &str = "etcdserver: request is too large";

on_both! {
    a_value_of_1_4_mib_is_kept,
    a_request_over_the_limit_is_refused,
    a_message_over_the_limit_of_the_transport_is_refused,
    a_large_transaction_is_refused_whole,
    many_large_values_are_read_at_once,
    a_transaction_nested_deep_is_answered,
    a_transaction_nested_too_deep_is_refused,
    calls_at_once_share_one_connection,
}

fn filled(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n % 251) as u8).collect()
}

fn a_value_of_1_4_mib_is_kept(s: &Subject) {
    let value = filled((1 << 20) + (400 << 10));
    s.set("a", value.clone());
    assert_eq!(s.get("a").unwrap().value, value);
}

fn a_request_over_the_limit_is_refused(s: &Subject) {
    let before = s.set("a", "1");
    for bytes in [REQUEST_BYTES_MAX, REQUEST_BYTES_MAX + (400 << 10)] {
        refused(s.put(put("a", filled(bytes))), Code::InvalidArgument, TOO_LARGE);
    }
    assert_eq!((s.revision(), s.value("a").as_deref()), (before, Some("1")));
}

fn a_message_over_the_limit_of_the_transport_is_refused(s: &Subject) {
    let before = s.set("a", "1");
    for bytes in [REQUEST_BYTES_MAX + (512 << 10), 4 << 20, 16 << 20] {
        let status = s.put(put("a", filled(bytes))).unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        assert!(status.message().contains("received message larger than max"), "{status:?}");
    }
    assert_eq!((s.revision(), s.value("a").as_deref()), (before, Some("1")), "the server lives");
}

fn a_large_transaction_is_refused_whole(s: &Subject) {
    let before = s.set("a", "1");
    let halves = ["a", "b"].map(|key| Op::Put(put(key, filled(900 << 10))));
    refused(s.txn(txn(halves)), Code::InvalidArgument, TOO_LARGE);
    assert_eq!((s.revision(), s.get("b")), (before, None));
}

fn many_large_values_are_read_at_once(s: &Subject) {
    for n in 0..10 {
        s.set(&format!("k{n}"), filled(1 << 20));
    }
    let found = s.all("k");
    assert_eq!((found.len(), found.iter().map(|kv| kv.value.len()).sum::<usize>()), (10, 10 << 20));
}

/// A put inside `depth` transactions.
fn nested(depth: usize) -> TxnRequest {
    (0..depth).fold(txn([Op::Put(put("a", "deep"))]), |inner, _| txn([Op::Txn(inner)]))
}

fn a_transaction_nested_deep_is_answered(s: &Subject) {
    assert!(s.txn(nested(10)).unwrap().succeeded);
    assert_eq!(s.value("a").as_deref(), Some("deep"));
}

/// By the count of operations or by the decoder: it must be answered, and the server must live.
fn a_transaction_nested_too_deep_is_refused(s: &Subject) {
    let before = s.revision();
    for depth in [128, 200] {
        let status = s.txn(nested(depth)).unwrap_err();
        assert!(matches!(status.code(), Code::InvalidArgument | Code::Internal), "{depth}: {status:?}");
    }
    assert_eq!(s.revision(), before);
}

fn calls_at_once_share_one_connection(s: &Subject) {
    const CALLS: usize = 500;
    let before = s.revision();
    let answers = s.wait(async {
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..CALLS {
            let mut kv = s.kv();
            calls.spawn(async move {
                if n % 2 == 0 {
                    kv.put(put(&format!("k{n}"), "v")).await.map(drop)
                } else {
                    kv.range(get("a")).await.map(drop)
                }
            });
        }
        let mut answers = 0;
        while let Some(call) = calls.join_next().await {
            call.expect("a call does not panic")?;
            answers += 1;
        }
        Ok(answers)
    });
    assert_eq!(answers.unwrap(), CALLS);
    assert_eq!(s.revision(), before + CALLS as i64 / 2);
}
