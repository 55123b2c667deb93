//! Each path of the gateway, driven on etcd and on ours with the same texts:
//! what comes back is the same text, byte for byte, but for what no two servers
//! have in common (ids, terms, sizes) and for what 3.6 has changed since 3.4.

use std::{collections::BTreeSet, fs, path::Path};

use etcfs_tests::{command::sh, curl::Curl, server::Server};

/// Fields whose values are a server's own.
const MASKED: [&str; 6] = ["cluster_id", "member_id", "raft_term", "peerURLs", "clientURLs", "token"];

/// One step of the story that both servers are told.
struct Step {
    path: &'static str,
    body: &'static str,
}

const fn step(path: &'static str, body: &'static str) -> Step {
    Step { path, body }
}

/// Keys: `YQ==` is a, `Yg==` b, `Yw==` c, `cm9vdA==` root.
const STORY: &[Step] = &[
    step("/v3/kv/put", r#"{"key":"YQ==","value":"MQ=="}"#),
    step("/v3/kv/put", r#"{"key":"YQ==","value":"Mg==","prev_kv":true}"#),
    step("/v3/kv/put", r#"{"key":"","value":"Mg=="}"#),
    step("/v3/kv/put", r#"{"key":"Yg==","value":"","lease":"9"}"#),
    step("/v3/kv/put", r#"{"key":"Yw==","ignore_value":true}"#),
    step("/v3/kv/range", r#"{"key":"YQ=="}"#),
    step("/v3/kv/range", r#"{"key":"YQ==","revision":2}"#),
    step("/v3/kv/range", r#"{"key":"YQ==","revision":"99"}"#),
    step("/v3/kv/range", r#"{"key":"Yg=="}"#),
    step("/v3/kv/range", r#"{"key":"AA==","range_end":"AA==","count_only":true}"#),
    step("/v3/kv/range", r#"{"key":"AA==","rangeEnd":"AA==","keysOnly":true,"serializable":true}"#),
    step("/v3/kv/range", ""),
    step("/v3/kv/range", r#"{"key":"YQ=="} and more"#),
    step("/v3/kv/range", r#"{"key":"YQ==","nonsense":{"a":[1]}}"#),
    step(
        "/v3/kv/txn",
        r#"{"compare":[{"key":"YQ==","target":"VERSION","result":"EQUAL","version":"2"}],
            "success":[{"requestPut":{"key":"Yg==","value":"MQ=="}},{"request_range":{"key":"AA==","range_end":"AA=="}},
                       {"request_delete_range":{"key":"YQ==","prev_kv":true}}]}"#,
    ),
    step(
        "/v3/kv/txn",
        r#"{"compare":[{"key":"YQ==","target":"CREATE","result":"GREATER","create_revision":"0"}],
            "failure":[{"request_txn":{"success":[{"request_put":{"key":"YQ=="}}]}}]}"#,
    ),
    step("/v3/kv/txn", r#"{"compare":[{"key":"YQ==","target":"VALUE","result":3,"value":"MQ=="}]}"#),
    step("/v3/kv/txn", r#"{"success":[{"request_put":{"key":"YQ=="}},{"request_put":{"key":"YQ=="}}]}"#),
    step("/v3/kv/txn", r#"{"success":[{}]}"#),
    step("/v3/kv/deleterange", r#"{"key":"Yg==","prev_kv":true}"#),
    step("/v3/kv/deleterange", r#"{"key":"Yg=="}"#),
    step("/v3/kv/compaction", r#"{"revision":"3","physical":true}"#),
    step("/v3/kv/compaction", r#"{"revision":"3"}"#),
    step("/v3/kv/range", r#"{"key":"YQ==","revision":"1"}"#),
    step("/v3/lease/grant", r#"{"TTL":"600","ID":"7"}"#),
    step("/v3/lease/grant", r#"{"TTL":600,"ID":7}"#),
    step("/v3/lease/grant", r#"{"TTL":"9000000001"}"#),
    step("/v3/lease/grant", r#"{"TTL":"600","ID":"8"}"#),
    step("/v3/kv/put", r#"{"key":"Yg==","value":"MQ==","lease":"7"}"#),
    step("/v3/lease/timetolive", r#"{"ID":"99"}"#),
    step("/v3/kv/lease/timetolive", r#"{"ID":"99","keys":true}"#),
    step("/v3/lease/keepalive", r#"{"ID":"7"}"#),
    step("/v3/lease/keepalive", r#"{"ID":"7"} {"ID":99}{"ID":"8"}"#),
    step("/v3/lease/leases", "{}"),
    step("/v3/lease/revoke", r#"{"ID":"99"}"#),
    step("/v3/kv/lease/revoke", r#"{"ID":"8"}"#),
    step("/v3/kv/lease/leases", "{}"),
    step("/v3/lease/revoke", r#"{"ID":"7"}"#),
    step("/v3/kv/range", r#"{"key":"Yg=="}"#),
    step("/v3/lease/grant", r#"{"TTL":"600","ID":"5"}"#),
    step("/v3/lock/lock", r#"{"name":"bG9jaw==","lease":"5"}"#),
    step("/v3/lock/unlock", r#"{"key":"bG9jay81"}"#),
    step("/v3/election/leader", r#"{"name":"ZWxlY3Q="}"#),
    step("/v3/election/campaign", r#"{"name":"ZWxlY3Q=","lease":"5","value":"MQ=="}"#),
    step("/v3/election/leader", r#"{"name":"ZWxlY3Q="}"#),
    step(
        "/v3/election/proclaim",
        r#"{"leader":{"name":"ZWxlY3Q=","key":"ZWxlY3QvNQ==","rev":"12"},"value":"Mg=="}"#,
    ),
    step("/v3/election/proclaim", "{}"),
    step(
        "/v3/election/resign",
        r#"{"leader":{"name":"ZWxlY3Q=","key":"ZWxlY3QvNQ==","rev":"12","lease":"5"}}"#,
    ),
    step("/v3/election/resign", "{}"),
    step("/v3/cluster/member/add", r#"{"peerURLs":["no url"]}"#),
    step("/v3/cluster/member/add", "{}"),
    step("/v3/cluster/member/update", r#"{"ID":"1","peerURLs":["http://127.0.0.1:1"]}"#),
    step("/v3/cluster/member/promote", r#"{"ID":"1"}"#),
    step("/v3/cluster/member/remove", r#"{"ID":1}"#),
    step("/v3/maintenance/transfer-leadership", r#"{"targetID":"1"}"#),
    step("/v3beta/kv/range", r#"{"key":"YQ=="}"#),
    step("/v3/auth/enable", "{}"),
    step("/v3/auth/authenticate", r#"{"name":"root","password":"x"}"#),
    step("/v3/auth/user/add", r#"{"name":"root","password":"secret"}"#),
    step("/v3/auth/user/add", r#"{"name":"root","password":"secret"}"#),
    step("/v3/auth/user/add", r#"{"name":"bob","options":{"no_password":true}}"#),
    step("/v3/auth/user/changepw", r#"{"name":"bob","password":"other"}"#),
    step("/v3/auth/user/list", "{}"),
    step("/v3/auth/role/add", r#"{"name":"root"}"#),
    step("/v3/auth/role/add", r#"{"name":"reader"}"#),
    step("/v3/auth/role/add", r#"{"name":""}"#),
    step(
        "/v3/auth/role/grant",
        r#"{"name":"reader","perm":{"permType":"READ","key":"YQ==","range_end":"Yg=="}}"#,
    ),
    step("/v3/auth/role/grant", r#"{"name":"reader","perm":{"permType":2,"key":"Yw=="}}"#),
    step("/v3/auth/role/get", r#"{"role":"reader"}"#),
    step("/v3/auth/role/revoke", r#"{"role":"reader","key":"Yw=="}"#),
    step("/v3/auth/role/get", r#"{"role":"reader"}"#),
    step("/v3/auth/role/list", "{}"),
    step("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#),
    step("/v3/auth/user/grant", r#"{"user":"bob","role":"reader"}"#),
    step("/v3/auth/user/grant", r#"{"user":"bob","role":"nobody"}"#),
    step("/v3/auth/user/get", r#"{"name":"bob"}"#),
    step("/v3/auth/user/revoke", r#"{"name":"bob","role":"reader"}"#),
    step("/v3/auth/role/delete", r#"{"role":"reader"}"#),
    step("/v3/auth/user/delete", r#"{"name":"bob"}"#),
    step("/v3/auth/enable", "{}"),
    step("/v3/kv/range", r#"{"key":"YQ=="}"#),
    step("/v3/auth/user/list", "{}"),
    step("/v3/auth/authenticate", r#"{"name":"root","password":"wrong"}"#),
];

/// With root's token.
const STORY_OF_ROOT: &[Step] = &[
    step("/v3/kv/range", r#"{"key":"YQ=="}"#),
    step("/v3/auth/user/list", "{}"),
    step("/v3/auth/disable", "{}"),
];

/// Paths that are driven below.
const APART: [&str; 11] = [
    "/v3/cluster/member/list",
    "/v3/election/observe",
    "/v3/maintenance/status",
    "/v3/maintenance/alarm",
    "/v3/maintenance/hash",
    "/v3/maintenance/hashkv",
    "/v3/maintenance/defragment",
    "/v3/maintenance/downgrade",
    "/v3/maintenance/snapshot",
    "/v3/auth/status",
    "/v3/watch",
];

struct Both {
    _servers: [Server; 2],
    ours: Curl,
    theirs: Curl,
}

impl Both {
    fn start() -> Self {
        let servers = [Server::etcfs(), Server::etcd()];
        let [ours, theirs] = [0, 1].map(|nth: usize| Curl::at(&servers[nth].endpoint()));
        Self { _servers: servers, ours, theirs }
    }

    /// Has both do something, for what comes after it.
    #[track_caller]
    fn post(&self, path: &str, body: &str) {
        for curl in [&self.ours, &self.theirs] {
            assert_eq!(curl.post(path, body).status, 200, "{path} {body}");
        }
    }

    /// Tells both the story and compares their answers.
    #[track_caller]
    fn tell(&self, story: &[Step], headers: Option<[String; 2]>) {
        let with = |curl: &Curl, nth: usize| match &headers {
            Some(headers) => curl.header(headers[nth].clone()),
            None => curl.clone(),
        };
        let (ours, theirs) = (with(&self.ours, 0), with(&self.theirs, 1));
        for Step { path, body } in story {
            let (our, their) = (ours.post(path, body), theirs.post(path, body));
            assert_eq!(masked(&our.body), masked(&their.body), "{path} {body}");
            // The gateway of 3.4 had another code for a failed precondition.
            let expected = if their.status == 412 { 400 } else { their.status };
            assert_eq!(our.status, expected, "{path} {body}: {}", our.body);
        }
    }
}

/// The text with `*` for the values of masked fields.
fn masked(text: &str) -> String {
    let mut out = text.to_owned();
    for name in MASKED {
        let field = format!("\"{name}\":");
        let mut from = 0;
        while let Some(at) = out[from..].find(&field) {
            let value = from + at + field.len();
            let length = value_length(&out[value..]);
            out.replace_range(value..value + length, "*");
            from = value;
        }
    }
    out
}

/// Of the JSON value in front.
fn value_length(text: &str) -> usize {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>();
    values.next();
    values.byte_offset()
}

#[test]
fn masks_hide_values_alone() {
    let text = r#"{"a":"1","member_id":"3","raft_term":7,"peerURLs":["x",1]}"#;
    assert_eq!(masked(text), r#"{"a":"1","member_id":*,"raft_term":*,"peerURLs":*}"#);
}

#[test]
fn the_gateways_answer_alike() {
    let both = Both::start();
    both.tell(STORY, None);
    let token = |curl: &Curl| {
        let answer = curl.post("/v3/auth/authenticate", r#"{"name":"root","password":"secret"}"#);
        let answer: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        format!("Authorization: {}", answer["token"].as_str().unwrap())
    };
    // The last is no header of the gateway's.
    for header in ["Authorization: no.1", "Grpc-Metadata-Token: no.1", "Token: no.1"] {
        both.tell(&[step("/v3/kv/range", r#"{"key":"YQ=="}"#)], Some([header, header].map(str::to_owned)));
    }
    both.tell(STORY_OF_ROOT, Some([token(&both.ours), token(&both.theirs)]));
}

#[test]
fn streams_answer_alike() {
    let both = Both::start();
    let compare = |path: &str, body: &str, lines: usize, meanwhile: &[(&str, &str)]| {
        let mut streams = [&both.ours, &both.theirs].map(|curl| curl.follow(path, body));
        let mut first = streams.each_mut().map(|stream| masked(&stream.line()));
        for nth in 1..=lines {
            let [ours, theirs] = &first;
            assert_eq!(ours, theirs, "{path} {body}: line {nth}");
            if nth == lines {
                break;
            }
            if nth == 1 {
                for (path, body) in meanwhile {
                    both.post(path, body);
                }
            }
            first = streams.each_mut().map(|stream| masked(&stream.line()));
        }
    };
    let put = ("/v3/kv/put", r#"{"key":"YQ==","value":"MQ=="}"#);
    let delete = ("/v3/kv/deleterange", r#"{"key":"YQ=="}"#);
    compare("/v3/watch", r#"{"create_request":{"key":"YQ==","prev_kv":true}}"#, 3, &[put, delete]);
    let history = r#"{"create_request":{"key":"YQ==","start_revision":"1","watch_id":"7"}}"#;
    compare("/v3/watch", history, 2, &[]);
    // Two messages in one body; the answer to the second comes before or after the first's events.
    let two = r#"{"create_request":{"key":"eA==","watch_id":3}}{"cancel_request":{"watch_id":"3"}}"#;
    compare("/v3/watch", two, 2, &[]);
    compare("/v3/watch", r#"{"createRequest":{"key":"Yg==","rangeEnd":"YQ=="}}"#, 1, &[]);
    both.post("/v3/lease/grant", r#"{"ID":"5","TTL":"600"}"#);
    both.post("/v3/election/campaign", r#"{"name":"ZQ==","lease":"5","value":"MQ=="}"#);
    let proclaim = (
        "/v3/election/proclaim",
        r#"{"leader":{"name":"ZQ==","key":"ZS81","rev":"4","lease":"5"},"value":"Mg=="}"#,
    );
    compare("/v3/election/observe", r#"{"name":"ZQ=="}"#, 2, &[proclaim]);
    both.post("/v3/kv/compaction", r#"{"revision":"3"}"#);
    compare("/v3/watch", r#"{"create_request":{"key":"YQ==","start_revision":"1"}}"#, 2, &[]);
}

#[test]
fn what_a_server_says_of_itself_has_the_same_fields() {
    let both = Both::start();
    both.post("/v3/kv/put", r#"{"key":"YQ==","value":"MQ=="}"#);
    // 3.6 has these beside the others, and a header where 3.4 forgot it.
    let newer = ["storageVersion", "dbSizeQuota", "downgradeInfo", "hash_revision", "header"];
    // The alarm is nobody's: that of a member who is not there is cleared by ours, perhaps before we do.
    for (path, body) in [
        ("/v3/maintenance/status", "{}"),
        ("/v3/maintenance/alarm", "{}"),
        ("/v3/maintenance/alarm", r#"{"action":"ACTIVATE","memberID":"0","alarm":"NOSPACE"}"#),
        ("/v3/maintenance/alarm", r#"{"action":"DEACTIVATE","memberID":"0","alarm":1}"#),
        ("/v3/maintenance/hash", "{}"),
        ("/v3/cluster/member/list", "{}"),
    ] {
        let fields = |curl: &Curl| -> Vec<String> {
            let answer = curl.post(path, body);
            assert_eq!(answer.status, 200, "{path} {body}: {answer:?}");
            let answer: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
            let fields =
                answer.as_object().unwrap().iter().filter(|(name, _)| !newer.contains(&name.as_str()));
            fields.map(|(name, value)| format!("{name}: {}", kind(value))).collect()
        };
        assert_eq!(fields(&both.ours), fields(&both.theirs), "{path} {body}");
    }
    let status = both.ours.post("/v3/auth/status", "{}");
    assert!(status.body.ends_with(r#""authRevision":"1"}"#), "{status:?}");
    let hash = both.ours.post("/v3/maintenance/hashkv", "{}");
    assert!(hash.status == 200 && hash.body.contains("\"hash\":"), "{hash:?}");
}

/// The blobs, put together, are a file with its SHA-256 behind it.
#[test]
fn a_snapshot_comes_whole_through_the_gateway() {
    let both = Both::start();
    both.post("/v3/kv/put", r#"{"key":"YQ==","value":"MQ=="}"#);
    for curl in [&both.ours, &both.theirs] {
        let answer = curl.post("/v3/maintenance/snapshot", "{}");
        assert_eq!(answer.status, 200);
        let dir = tempfile::tempdir().unwrap();
        let blobs: Vec<String> = answer
            .body
            .lines()
            .map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                line["result"]["blob"].as_str().unwrap_or_default().to_owned()
            })
            .collect();
        fs::write(dir.path().join("blobs"), blobs.join("\n")).unwrap();
        let script = "while read -r blob || [ \"$blob\" ]; do echo \"$blob\" | base64 -d; done <blobs >whole && \
                      head -c -32 whole | sha256sum | cut -c1-64 && \
                      tail -c 32 whole | od -An -v -tx1 | tr -d ' \\n'";
        let sums = sh(dir.path(), script).ok();
        let (of_file, told) = sums.split_once('\n').unwrap();
        assert_eq!(of_file, told);
        let size = fs::metadata(dir.path().join("whole")).unwrap().len();
        assert!(size > 512 && size % 512 == 32, "{size}");
    }
}

#[test]
fn maintenance_is_done_through_the_gateway() {
    let both = Both::start();
    both.tell(&[step("/v3/maintenance/defragment", "{}")], None);
    let downgrade = |action: &str| {
        let body = format!(r#"{{"action":"{action}","version":"3.5.0"}}"#);
        let answer = both.ours.post("/v3/maintenance/downgrade", &body);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    };
    assert!(downgrade("VALIDATE").contains(r#""version":"3.6.0""#));
    downgrade("ENABLE");
    let status = both.ours.post("/v3/maintenance/status", "{}").body;
    assert!(status.contains(r#""downgradeInfo":{"enabled":true,"targetVersion":"3.5.0"}"#), "{status}");
    downgrade("CANCEL");
}

fn kind(value: &serde_json::Value) -> &'static str {
    match value {
        serde_json::Value::String(_) => "text",
        serde_json::Value::Number(_) => "number",
        serde_json::Value::Array(_) => "list",
        _ => "other",
    }
}

/// The stories above leave none out.
#[test]
fn every_path_is_driven() {
    let mut paths = BTreeSet::new();
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/etcd")).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let posts = text.split("post: \"").skip(1).filter_map(|rest| rest.split('"').next());
        paths.extend(posts.map(str::to_owned));
    }
    let driven: BTreeSet<String> =
        STORY.iter().chain(STORY_OF_ROOT).map(|step| step.path).chain(APART).map(str::to_owned).collect();
    let missing: Vec<_> = paths.difference(&driven).collect();
    assert!(paths.len() > 40 && missing.is_empty(), "{missing:?}");
}
