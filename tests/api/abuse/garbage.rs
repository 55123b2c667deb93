//! Messages that are none, at every method.

use std::time::Duration;

use bytes::Bytes;
use etcfs_proto::etcdserverpb::TxnRequest;
use etcfs_server::net::METHODS;
use etcfs_tests::{
    api::{Api, Op, get, put, runtime, txn},
    machine::setting,
    process::show,
    raw::Raw,
    wait,
};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tonic::{Code, Request, Status, client::Grpc, codegen::http::uri::PathAndQuery};

use super::{RESIDENT_BYTES_MAX, lives, server};

/// Messages for each method.
const MESSAGES: usize = 60;
/// Answers that a message may get which is nonsense.
const CODES: [Code; 8] = [
    Code::Ok,
    Code::Internal,
    Code::InvalidArgument,
    Code::FailedPrecondition,
    Code::NotFound,
    Code::OutOfRange,
    Code::Unimplemented,
    Code::ResourceExhausted,
];

/// The code of the answer to `message`; `None` for a call that rightly waits.
async fn call(api: Api, path: String, message: Bytes) -> Option<(Code, String)> {
    let mut grpc = Grpc::new(api.channel()).max_decoding_message_size(usize::MAX);
    let path = PathAndQuery::try_from(path).expect("a method's path");
    let asked = async {
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        grpc.unary(Request::new(message), path, Raw).await
    };
    let answer = tokio::time::timeout(Duration::from_secs(2), asked).await.ok()?;
    let status = answer.err().unwrap_or_else(|| Status::ok(""));
    Some((status.code(), status.message().to_owned()))
}

/// The code of the first answer on a stream that `message` opens; `None` for one that rightly says nothing.
async fn open(api: Api, path: String, message: Bytes, patience: Duration) -> Option<(Code, String)> {
    let mut grpc = Grpc::new(api.channel()).max_decoding_message_size(usize::MAX);
    let path = PathAndQuery::try_from(path).expect("a method's path");
    let asked = async {
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        grpc.server_streaming(Request::new(message), path, Raw).await?.into_inner().message().await
    };
    let answer = tokio::time::timeout(patience, asked).await.ok()?;
    let status = answer.err().unwrap_or_else(|| Status::ok(""));
    Some((status.code(), status.message().to_owned()))
}

/// Random bytes, what looks like fields, or a transaction with a few bytes changed.
fn message(random: &mut StdRng) -> Bytes {
    let mut bytes = Vec::new();
    match random.random_range(0..3) {
        0 => bytes.extend((0..random.random_range(0..64)).map(|_| random.random::<u8>())),
        1 => {
            for _ in 0..random.random_range(1..6) {
                let kinds = [
                    WireType::Varint,
                    WireType::SixtyFourBit,
                    WireType::LengthDelimited,
                    WireType::ThirtyTwoBit,
                ];
                encode_key(random.random_range(1..15), kinds[random.random_range(0..4)], &mut bytes);
                // A length, a number, or neither.
                encode_varint(random.random::<u64>() >> random.random_range(0..64), &mut bytes);
            }
        }
        _ => {
            let inner: TxnRequest = txn([Op::Put(put("a", "1")), Op::Range(get("a"))]);
            bytes = txn([Op::Txn(inner), Op::Put(put("b", "2"))]).encode_to_vec();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
        }
    }
    bytes.into()
}

#[test]
fn nonsense_is_answered_at_every_method() {
    let server = server(&[]);
    let api = server.api();
    let seed = setting("ETCFS_TEST_SEED", rand::random());
    show(&format!("ETCFS_TEST_SEED={seed}"));
    let mut random = StdRng::seed_from_u64(seed);
    let mut streams = 0;
    for (service, method, kind) in METHODS.iter().filter(|(service, ..)| !service.starts_with("grpc.")) {
        let is_stream = *kind != "unary";
        streams += usize::from(is_stream);
        let waits = ["Lock", "Campaign", "Watch", "Observe"].contains(method);
        // So many snapshots are made one after the other.
        let patience = if waits { Duration::from_secs(2) } else { wait::PATIENCE };
        let path = format!("/{service}/{method}");
        let calls: Vec<_> = (0..MESSAGES)
            .map(|_| {
                let message = message(&mut random);
                let (api, path) = (api.clone(), path.clone());
                let answer = if is_stream {
                    runtime().spawn(open(api, path, message.clone(), patience))
                } else {
                    runtime().spawn(call(api, path, message.clone()))
                };
                (message, answer)
            })
            .collect();
        for (message, call) in calls {
            let answer = runtime().block_on(call).expect("a call does not panic");
            let Some((code, text)) = answer else {
                assert!(waits, "{path}: no answer to {message:?}");
                continue;
            };
            // A lock whose lease has ended, or a leader that is none, has etcd's odd code.
            let is_odd = code == Code::Unknown && service.starts_with("v3");
            assert!(CODES.contains(&code) || is_odd, "{path}: {code:?} {text:?} to {message:?}");
        }
    }
    assert_eq!(streams, 4, "Watch, LeaseKeepAlive, Snapshot, Observe");
    lives(&server, RESIDENT_BYTES_MAX);
}

/// A transaction in a transaction in a transaction: decoding it must not use up the stack.
#[test]
fn a_message_nested_thousands_deep_is_refused() {
    let server = server(&[]);
    let wrap = |tag: u32, inner: Vec<u8>| {
        let mut outer = Vec::with_capacity(inner.len() + 8);
        encode_key(tag, WireType::LengthDelimited, &mut outer);
        encode_varint(inner.len() as u64, &mut outer);
        outer.extend(inner);
        outer
    };
    // TxnRequest.success = 2, RequestOp.request_txn = 4.
    let deep = (0..5000).fold(Vec::new(), |inner, _| wrap(2, wrap(4, inner)));
    let answer = runtime().block_on(call(server.api(), "/etcdserverpb.KV/Txn".to_owned(), deep.into()));
    let (code, text) = answer.expect("it is answered");
    assert!(matches!(code, Code::Internal | Code::InvalidArgument), "{code:?} {text}");
    lives(&server, RESIDENT_BYTES_MAX);
}

#[test]
fn a_message_of_200_mib_is_refused_unread() {
    let server = server(&[]);
    server.api().set("a", "1");
    let before = server.peak_bytes();
    let message = Bytes::from(vec![0; 200 << 20]);
    let (code, text) = runtime()
        .block_on(call(server.api(), "/etcdserverpb.KV/Put".to_owned(), message))
        .expect("it is answered");
    assert_eq!(code, Code::ResourceExhausted, "{text}");
    assert!(text.contains("received message larger than max"), "{text}");
    lives(&server, before + (16 << 20));
}
