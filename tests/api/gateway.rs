//! The JSON gateway, by curl as scripts use it: beside etcd's own, text by text,
//! and what ours does that etcd's does not.

mod alike;
mod pages;
mod socket;

use etcfs_tests::curl::Curl;
use serde_json::{Value, json};

use crate::subject::Subject;

on_both! {
    what_is_not_json_or_does_not_fit_is_refused,
    large_and_odd_bytes_come_back_as_they_went,
    a_watch_ends_with_its_client,
    every_content_type_is_json,
    a_call_ends_when_its_time_is_over,
}
on_ours! {
    an_error_has_the_names_of_old_and_new_etcd,
    a_message_above_the_limit_is_refused,
    a_deep_one_is_refused,
    a_method_that_is_not_post_is_refused,
}

fn curl(s: &Subject) -> Curl {
    Curl::at(&s.endpoint())
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn what_is_not_json_or_does_not_fit_is_refused(s: &Subject) {
    for body in ["{", "[]", "7", "{\"key\":\"!\"}", "{\"key\":1}", "{\"key\":\"Zm9v\",\"limit\":\"x\"}"] {
        let answer = curl(s).post("/v3/kv/range", body);
        assert_eq!((answer.status, &parsed(&answer.body)["code"]), (400, &json!(3)), "{body}: {answer:?}");
    }
}

fn large_and_odd_bytes_come_back_as_they_went(s: &Subject) {
    let value: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
    s.set("large", value.clone());
    let range = curl(s).post("/v3/kv/range", r#"{"key":"bGFyZ2U="}"#);
    let text = parsed(&range.body)["kvs"][0]["value"].as_str().unwrap().to_owned();
    let put = format!(r#"{{"key":"YmFjaw==","value":"{text}"}}"#);
    assert_eq!(curl(s).post("/v3/kv/put", &put).status, 200);
    assert_eq!(s.get("back").unwrap().value, value);
}

fn a_watch_ends_with_its_client(s: &Subject) {
    let watching = || {
        let metrics = curl(s).ask("/metrics", &[], b"").body;
        let mut values =
            metrics.lines().filter_map(|line| line.strip_prefix("etcd_debugging_mvcc_watcher_total "));
        values.next().unwrap().to_owned()
    };
    let mut watch = curl(s).follow("/v3/watch", r#"{"create_request":{"key":"YQ=="}}"#);
    assert!(watch.line().contains("\"created\":true"));
    s.set("a", "1");
    assert!(watch.line().contains(r#""value":"MQ==""#));
    assert_eq!(watching(), "1");
    drop(watch);
    etcfs_tests::wait::until_true("the watcher goes with its client", || watching() == "0");
}

/// And who waits no longer has no place in the queue.
fn a_call_ends_when_its_time_is_over(s: &Subject) {
    let lock = r#"{"name":"bQ=="}"#;
    assert_eq!(curl(s).post("/v3/lock/lock", lock).status, 200);
    let late = curl(s).header("Grpc-Timeout: 300m").post("/v3/lock/lock", lock);
    let said = parsed(&late.body);
    assert_eq!((late.status, &said["code"]), (504, &json!(4)), "{late:?}");
    assert_eq!(said["message"], json!("context deadline exceeded"));
    etcfs_tests::wait::until_true("only the holder is left", || s.all("m/").len() == 1);
}

fn every_content_type_is_json(s: &Subject) {
    s.set("a", "1");
    for content in ["application/json", "text/plain", "application/x-www-form-urlencoded", ""] {
        let answer =
            curl(s).header(format!("Content-Type: {content}")).post("/v3/kv/range", r#"{"key":"YQ=="}"#);
        assert_eq!((answer.status, &parsed(&answer.body)["count"]), (200, &json!("1")), "{content}");
    }
}

fn an_error_has_the_names_of_old_and_new_etcd(s: &Subject) {
    let answer = curl(s).post("/v3/lease/revoke", r#"{"ID":"77"}"#);
    let text = "etcdserver: requested lease not found";
    assert_eq!(answer.body, format!(r#"{{"error":"{text}","message":"{text}","code":5}}"#));
    assert_eq!(answer.status, 404);
    let unknown = curl(s).post("/v3/kv/nothing", "{}");
    assert_eq!((unknown.status, &parsed(&unknown.body)["message"]), (404, &json!("Not Found")));
}

fn a_message_above_the_limit_is_refused(s: &Subject) {
    let value = "A".repeat(4 << 20);
    for (path, body) in [
        ("/v3/kv/put", format!(r#"{{"key":"YQ==","value":"{value}"}}"#)),
        ("/v3/watch", format!(r#"{{"create_request":{{"key":"{value}"}}}}"#)),
    ] {
        let answer = curl(s).post(path, &body);
        assert_eq!((answer.status, &parsed(&answer.body)["code"]), (429, &json!(8)), "{answer:?}");
    }
    assert_eq!(s.get("a"), None, "nothing was written");
}

fn a_deep_one_is_refused(s: &Subject) {
    let nested = |open: &str, close: &str, depth| format!("{}{}", open.repeat(depth), close.repeat(depth));
    for body in [
        nested("[", "]", 100_000),
        nested("{\"x\":", "}", 100_000),
        nested(r#"{"success":[{"request_txn":"#, "}]}", 1000),
    ] {
        let answer = curl(s).post("/v3/kv/txn", &body);
        assert_eq!(answer.status, 400, "{answer:?}");
        let watch = curl(s).post("/v3/watch", &body);
        assert_eq!(watch.status, 400, "{watch:?}");
    }
}

fn a_method_that_is_not_post_is_refused(s: &Subject) {
    for method in ["GET", "PUT", "DELETE"] {
        let answer = curl(s).ask("/v3/kv/range", &["--request", method], b"");
        assert_eq!(answer.status, 405, "{method}: {answer:?}");
    }
}
