//! Reads of very many keys at once.

use std::{io::Write as _, net::TcpStream, time::Instant};

use etcfs_proto::etcdserverpb::{
    CompactionRequest, RangeRequest, RangeResponse, TxnResponse,
    range_request::{SortOrder, SortTarget},
    response_op::Response,
};
use etcfs_tests::{
    api::{Op, get, prefix, put, runtime, txn},
    commit,
    curl::Curl,
    machine::setting,
    process::show,
    record,
    server::Server,
    wait::{PATIENCE, until_true},
};
use prost::Message as _;
use serde_json::{Value, json};
use tonic::Code;

use super::{RESIDENT_BYTES_MAX, lives, server};

const VALUE_BYTES: usize = 256;
/// Keys of one transaction.
const AT_ONCE: u64 = 2000;
/// What one such answer may take of the server's memory: a few pieces, what sled and the allocator
/// hold after so many reads, and what two moments of one server differ by anyway. The message alone
/// is as long, and what a whole one would be made of three times.
const ANSWER_BYTES_MAX: u64 = 32 << 20;
/// What sled comes to hold of a key's row once it was read: above 200,000 keys, more than the former.
const ROW_BYTES_MAX: u64 = 160;
/// What the server holds of a key besides.
const KEY_BYTES_MAX: u64 = 640;

fn filled() -> (Server, u64) {
    let keys = setting("ETCFS_TEST_RANGE", 100_000).next_multiple_of(AT_ONCE);
    let server = server(&["--max-txn-ops=2000"]);
    let api = server.api();
    for first in (0..keys).step_by(AT_ONCE as usize) {
        let value = |nth: u64| format!("{nth:0>VALUE_BYTES$}");
        let puts = (first..first + AT_ONCE).map(|nth| Op::Put(put(&format!("k/{nth:08}"), value(nth))));
        api.txn(txn(puts)).expect("it is put");
    }
    (server, keys)
}

/// The most memory that `ask` had the server hold, above what it held before.
fn grown(server: &Server, ask: impl FnOnce()) -> u64 {
    server.reset_peak();
    let before = server.resident_bytes();
    ask();
    server.peak_bytes().saturating_sub(before)
}

fn answer_bytes_max(keys: u64) -> u64 {
    ANSWER_BYTES_MAX.max(keys * ROW_BYTES_MAX)
}

/// What was asked for, one after another, and what each answer took.
struct Asked<'s> {
    server: &'s Server,
    keys: u64,
    steps: Vec<Value>,
}

impl Asked<'_> {
    #[track_caller]
    fn ask(&mut self, what: &str, ask: impl FnOnce()) {
        let begun = Instant::now();
        let grown = grown(self.server, ask);
        let (ms, grown_mib) = (begun.elapsed().as_millis() as u64, grown >> 20);
        show(&format!("{what}: {grown_mib} MiB more, {ms} ms"));
        assert!(grown < answer_bytes_max(self.keys), "{grown_mib} MiB for {what}");
        let then = self.server.resident_bytes() >> 20;
        self.steps.push(json!({ "asked": what, "mib_more": grown_mib, "mib_then": then, "ms": ms }));
    }

    fn keep(&self, test: &str) {
        let (commit, keys) = (commit::head(), self.keys);
        let record = json!({ "test": test, "commit": commit, "keys": keys, "value_bytes": VALUE_BYTES,
            "steps": self.steps, "verdict": "clean" });
        record::keep(env!("CARGO_TARGET_TMPDIR"), &format!("{test}-{keys}.json"), &record);
    }
}

#[test]
fn a_range_of_very_many_keys_takes_little_memory() {
    let (server, keys) = filled();
    let api = server.api();
    let all = |request: RangeRequest| api.range(request).expect("a range is answered");
    let mut asked = Asked { server: &server, keys, steps: Vec::new() };
    for what in ["all", "all again"] {
        asked.ask(what, || {
            let answer = all(prefix("k/"));
            assert_eq!((answer.count as u64, answer.kvs.len() as u64, answer.more), (keys, keys, false));
            for (kv, nth) in answer.kvs.iter().zip(0..) {
                assert_eq!(kv.key, format!("k/{nth:08}"));
                assert_eq!((kv.value.len(), kv.version), (VALUE_BYTES, 1));
            }
        });
    }
    asked.ask("keys_only, with a limit", || {
        let answer = all(RangeRequest { keys_only: true, limit: (keys - 1) as i64, ..prefix("k/") });
        assert_eq!((answer.kvs.len() as u64, answer.more), (keys - 1, true));
    });
    let newest = RangeRequest {
        sort_order: SortOrder::Descend.into(),
        sort_target: SortTarget::Mod.into(),
        ..prefix("k/")
    };
    asked.ask("the newest first", || {
        let answer = all(newest.clone());
        assert_eq!(answer.kvs.len() as u64, keys);
        for (kv, nth) in answer.kvs.iter().zip((0..keys).rev()) {
            assert_eq!(kv.key, format!("k/{nth:08}"));
        }
    });
    asked.ask("the newest first, keys_only", || {
        let answer = all(RangeRequest { keys_only: true, ..newest.clone() });
        assert_eq!(answer.kvs.len() as u64, keys);
        let first = &answer.kvs[0];
        assert_eq!((&*first.key, first.value.len()), (format!("k/{:08}", keys - 1).as_bytes(), 0));
    });
    asked.ask("the highest values, with a limit", || {
        let answer = all(RangeRequest { sort_target: SortTarget::Value.into(), limit: 10, ..newest });
        assert_eq!((answer.kvs.len(), answer.count as u64, answer.more), (10, keys, true));
        assert_eq!(answer.kvs[0].key, format!("k/{:08}", keys - 1));
    });
    asked.ask("all in JSON", || {
        let request = r#"{"key":"ay8=","range_end":"azA="}"#;
        let answer = Curl::at(&server.endpoint()).post("/v3/kv/range", request);
        let json: Value = serde_json::from_str(&answer.body).expect("it is one object");
        let pairs = json["kvs"].as_array().map(Vec::len);
        assert_eq!((pairs, json["count"].as_str()), (Some(keys as usize), Some(&*keys.to_string())));
    });
    lives(&server, RESIDENT_BYTES_MAX.max(keys * KEY_BYTES_MAX));
    asked.keep("a_range_of_very_many_keys_takes_little_memory");
}

/// What the ranges of a transaction have found; how long its answer is.
fn found(answer: &TxnResponse) -> (Vec<&RangeResponse>, u64) {
    let ranges = answer.responses.iter().filter_map(|response| match &response.response {
        Some(Response::ResponseRange(range)) => Some(range),
        _ => None,
    });
    (ranges.collect(), answer.encoded_len() as u64)
}

#[test]
fn a_transaction_that_only_reads_takes_as_little() {
    let (server, keys) = filled();
    let api = server.api();
    let newest = RangeRequest { sort_target: SortTarget::Mod.into(), limit: 3, ..prefix("k/") };
    let ops = || [Op::Range(get("k/00000007")), Op::Range(prefix("k/")), Op::Range(newest.clone())];
    let grown_by_message = grown(&server, || {
        let answer = api.txn(txn(ops())).expect("it is answered");
        let (ranges, answer_bytes) = found(&answer);
        let numbers = |range: &RangeResponse| (range.kvs.len() as u64, range.count as u64, range.more);
        let numbers: Vec<_> = ranges.into_iter().map(numbers).collect();
        assert_eq!(numbers, [(1, 1, false), (keys, keys, false), (3, keys, true)]);
        assert!(answer_bytes > keys * VALUE_BYTES as u64);
    });
    show(&format!("{} MiB more", grown_by_message >> 20));
    assert!(grown_by_message < answer_bytes_max(keys), "{} MiB", grown_by_message >> 20);
    let grown_by_json = grown(&server, || {
        let text = r#"{"success":[{"request_range":{"key":"ay8=","range_end":"azA="}}]}"#;
        let answer = Curl::at(&server.endpoint()).post("/v3/kv/txn", text);
        let json: Value = serde_json::from_str(&answer.body).expect("it is one object");
        let range = &json["responses"][0]["response_range"];
        assert_eq!(range["kvs"].as_array().map(Vec::len), Some(keys as usize));
    });
    show(&format!("{} MiB more in JSON", grown_by_json >> 20));
    assert!(grown_by_json < answer_bytes_max(keys), "{} MiB in JSON", grown_by_json >> 20);
    lives(&server, RESIDENT_BYTES_MAX.max(keys * KEY_BYTES_MAX));
}

#[test]
fn a_range_in_a_transaction_that_writes_takes_three_times_its_answer_at_most() {
    let (server, keys) = filled();
    let api = server.api();
    let mut answer_bytes = 0;
    let grown = grown(&server, || {
        let ops = [Op::Put(put("other", "v")), Op::Range(prefix("k/"))];
        let answer = api.txn(txn(ops)).expect("it is answered");
        let (ranges, bytes) = found(&answer);
        assert_eq!(ranges[0].kvs.len() as u64, keys);
        answer_bytes = bytes;
    });
    show(&format!("{} MiB more for {} MiB", grown >> 20, answer_bytes >> 20));
    assert!(grown < 3 * answer_bytes + ANSWER_BYTES_MAX, "{} MiB", grown >> 20);
    lives(&server, RESIDENT_BYTES_MAX);
}

/// One key as often as a transaction may name it: a small request for more than any client takes.
#[test]
fn an_answer_above_2_gib_is_refused_before_it_is_made() {
    const VALUE: usize = 1_400_000;
    const GETS: usize = 1600;
    let server = server(&["--max-txn-ops=2000"]);
    let api = server.api();
    api.set("large", vec![7; VALUE]);
    let words = "grpc: trying to send message larger than max (";
    let gets = || (0..GETS).map(|_| Op::Range(get("large")));
    let grown = grown(&server, || {
        for ops in
            [gets().collect(), [Op::Put(put("done", "v"))].into_iter().chain(gets()).collect::<Vec<_>>()]
        {
            let refused = api.txn(txn(ops)).expect_err("it is too long");
            assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
            assert!(refused.message().starts_with(words), "{refused}");
        }
    });
    show(&format!("{} MiB more", grown >> 20));
    assert!(grown < ANSWER_BYTES_MAX, "{} MiB", grown >> 20);
    // With etcd, too, it is the answer that fails.
    assert_eq!(api.value("done").as_deref(), Some("v"));
    lives(&server, RESIDENT_BYTES_MAX);
}

/// Who asks for much and does not read it holds little memory, and history not for ever.
#[test]
fn clients_that_do_not_read_a_long_answer_are_given_up() {
    const CLIENTS: u64 = 16;
    let (server, _) = filled();
    let mut idle = Vec::new();
    let grown = grown(&server, || {
        for _ in 0..CLIENTS {
            let mut stream = TcpStream::connect(server.endpoint()).expect("it listens");
            let body = r#"{"key":"ay8=","range_end":"azA="}"#;
            let length = body.len();
            let request = format!(
                "POST /v3/kv/range HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
            );
            stream.write_all(request.as_bytes()).expect("it reads");
            idle.push(stream);
        }
        // As far as it can get.
        until_true("all are being answered", || {
            server.metric("grpc_server_handled_total").unwrap_or_default() >= CLIENTS as f64
        });
        let revision = server.api().set("k/00000000", "changed");
        let begun = Instant::now();
        let mut kv = server.api().kv();
        let request = CompactionRequest { revision, physical: true };
        let compacted =
            runtime().block_on(async { tokio::time::timeout(2 * PATIENCE, kv.compact(request)).await });
        compacted.expect("it ends in time").expect("what they hold is let go of");
        show(&format!("compacted after {:.1?}", begun.elapsed()));
    });
    assert!(grown < 2 * ANSWER_BYTES_MAX, "{} MiB for {CLIENTS} answers that nobody reads", grown >> 20);
    lives(&server, RESIDENT_BYTES_MAX);
    drop(idle);
}
