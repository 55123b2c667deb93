//! The gateway over WebSockets, as etcd's own has them.

use etcfs_proto::etcdserverpb::{AuthEnableRequest, AuthUserAddRequest, AuthUserGrantRoleRequest};
use etcfs_tests::{
    api::{grant, runtime},
    server::{Kind, Options, Server},
    wait::{PATIENCE, until_true},
};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest as _,
        http::{HeaderName, HeaderValue},
        protocol::frame::coding::CloseCode,
    },
};

use super::parsed;
use crate::subject::Subject;

on_both! {
    a_watch_goes_both_ways_over_a_socket,
    a_lease_is_renewed_over_a_socket,
    a_call_is_answered_and_the_socket_ends,
}
on_ours! {
    what_is_no_json_is_refused_over_a_socket,
    a_handshake_that_is_none_is_refused,
    a_page_of_elsewhere_opens_no_socket,
}

/// The other end of one.
struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    fn open(endpoint: &str, path: &str) -> Self {
        Self::with(endpoint, path, &[]).expect("it is opened")
    }

    fn with(endpoint: &str, path: &str, headers: &[(&'static str, &str)]) -> Result<Self, Error> {
        let mut request = format!("ws://{endpoint}{path}").into_client_request()?;
        for (name, value) in headers {
            request
                .headers_mut()
                .insert(HeaderName::from_static(name), HeaderValue::from_str(value).expect("plain text"));
        }
        runtime().block_on(async {
            let stream = TcpStream::connect(endpoint).await.expect("it listens");
            let opened = timeout(PATIENCE, client_async(request, stream)).await;
            Ok(Self(opened.expect("it is answered")?.0))
        })
    }

    fn send(&mut self, text: &str) {
        runtime().block_on(self.0.send(Message::text(text))).expect("it takes messages");
    }

    /// The next text as JSON; `None` at the end, with the code that the server gave.
    fn next(&mut self) -> Result<Value, Option<CloseCode>> {
        loop {
            let next = runtime().block_on(async { timeout(PATIENCE, self.0.next()).await });
            match next.expect("something comes") {
                Some(Ok(Message::Text(text))) => return Ok(parsed(&text)),
                Some(Ok(Message::Close(frame))) => return Err(frame.map(|frame| frame.code)),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }
}

fn a_watch_goes_both_ways_over_a_socket(s: &Subject) {
    let mut socket = Socket::open(&s.endpoint(), "/v3/watch");
    socket.send(r#"{"create_request":{"key":"YQ=="}}"#);
    assert_eq!(socket.next().unwrap()["result"]["created"], json!(true));
    // Cut anywhere, as long as it is whole in the end.
    socket.send(r#"{"create_request":"#);
    socket.send(r#"{"key":"Yg==","prev_kv":true}}"#);
    let second = socket.next().unwrap();
    assert_eq!((&second["result"]["created"], &second["result"]["watch_id"]), (&json!(true), &json!("1")));
    s.set("a", "1");
    s.set("b", "2");
    let events: Vec<Value> = (0..2).map(|_| socket.next().unwrap()["result"]["events"][0].clone()).collect();
    assert_eq!((&events[0]["kv"]["key"], &events[0]["kv"]["value"]), (&json!("YQ=="), &json!("MQ==")));
    assert_eq!(events[1]["kv"]["key"], json!("Yg=="));
    socket.send(r#"{"cancel_request":{"watch_id":"1"}}"#);
    assert_eq!(socket.next().unwrap()["result"]["canceled"], json!(true));
    s.set("b", "3");
    s.set("a", "3");
    assert_eq!(socket.next().unwrap()["result"]["events"][0]["kv"]["value"], json!("Mw=="));
    drop(socket);
    until_true("the watcher goes with its socket", || {
        let metrics = super::curl(s).ask("/metrics", &[], b"").body;
        metrics.lines().any(|line| line == "etcd_debugging_mvcc_watcher_total 0")
    });
}

fn a_lease_is_renewed_over_a_socket(s: &Subject) {
    let lease = s.grant(grant(600)).unwrap().id;
    let mut socket = Socket::open(&s.endpoint(), "/v3/lease/keepalive");
    for _ in 0..2 {
        socket.send(&format!(r#"{{"ID":"{lease}"}}"#));
        assert_eq!(socket.next().unwrap()["result"]["TTL"], json!("600"));
    }
    socket.send(r#"{"ID":"99"}"#);
    assert_eq!(socket.next().unwrap()["result"]["ID"], json!("99"));
}

fn a_call_is_answered_and_the_socket_ends(s: &Subject) {
    let mut socket = Socket::open(&s.endpoint(), "/v3/kv/put");
    socket.send(r#"{"key":"YQ==","value":"MQ=="}"#);
    let answer = socket.next().unwrap();
    let put = s.get("a").unwrap();
    assert_eq!(answer["header"]["revision"], json!(put.mod_revision.to_string()));
    assert!(socket.next().is_err());
    let mut refused = Socket::open(&s.endpoint(), "/v3/kv/put");
    refused.send(r#"{"value":"MQ=="}"#);
    let answer = refused.next().unwrap();
    assert_eq!((&answer["code"], &answer["message"]), (&json!(3), &json!("etcdserver: key is not provided")));
    assert!(refused.next().is_err());
}

/// etcd takes the word Bearer for a part of the token, and refuses it.
#[test]
fn a_page_shows_its_token_as_a_protocol_or_a_cookie() {
    let s = Subject::alone(Kind::Etcfs, &["--bcrypt-cost=4"]);
    let user =
        |name: &str| AuthUserAddRequest { name: name.into(), password: "pw".into(), ..Default::default() };
    s.user_add(user("root")).unwrap();
    s.user_grant_role(AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() }).unwrap();
    s.auth_enable(AuthEnableRequest {}).unwrap();
    let token = s.log_in("root", "pw").token().unwrap().to_owned();
    let put = |headers: &[(&'static str, &str)]| {
        let mut socket = Socket::with(&s.endpoint(), "/v3/kv/put", headers).expect("it is opened");
        socket.send(r#"{"key":"YQ==","value":"MQ=="}"#);
        socket.next().unwrap()
    };
    let none = put(&[]);
    assert_eq!(none["message"], json!("etcdserver: user name is empty"), "{none}");
    let protocol = put(&[("sec-websocket-protocol", &format!("Bearer, {token}"))]);
    assert_eq!(protocol["header"]["revision"], json!("2"), "{protocol}");
    let cookie = put(&[("cookie", &format!("token={token}"))]);
    assert_eq!(cookie["header"]["revision"], json!("3"), "{cookie}");
}

fn what_is_no_json_is_refused_over_a_socket(s: &Subject) {
    for (path, text) in [
        ("/v3/watch", "[]"),
        ("/v3/watch", r#"{"create_request":{"key":"!"}}"#),
        ("/v3/kv/range", r#"{"limit":"x"}"#),
        ("/v3/kv/range", "nonsense"),
    ] {
        let mut socket = Socket::open(&s.endpoint(), path);
        socket.send(text);
        assert_eq!(socket.next().unwrap()["code"], json!(3), "{path} {text}");
        assert_eq!(socket.next(), Err(Some(CloseCode::Normal)), "{path} {text}");
    }
    let mut later = Socket::open(&s.endpoint(), "/v3/watch");
    later.send(r#"{"create_request":{"key":"YQ=="}}"#);
    assert_eq!(later.next().unwrap()["result"]["created"], json!(true));
    later.send("[]");
    // As if the client had no more to say.
    assert_eq!(later.next(), Err(Some(CloseCode::Normal)));
    let mut large = Socket::open(&s.endpoint(), "/v3/kv/range");
    // Refused by the frame's length, so perhaps before all of it is sent.
    let _cut = runtime().block_on(large.0.send(Message::text("x".repeat(8 << 20))));
    assert!(large.next().is_err());
    assert_eq!(s.get("a"), None);
}

fn a_handshake_that_is_none_is_refused(s: &Subject) {
    let ask = |headers: &[&str]| {
        let curl = headers.iter().fold(super::curl(s), |curl, header| curl.header(*header));
        curl.ask("/v3/watch", &["--http1.1"], b"").status
    };
    assert_eq!(ask(&["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 12"]), 400);
    assert_eq!(ask(&["Upgrade: h2c", "Connection: Upgrade"]), 400);
    assert_eq!(ask(&["Connection: Upgrade"]), 405);
}

fn a_page_of_elsewhere_opens_no_socket(s: &Subject) {
    let status = |headers: &[(&'static str, &str)]| match Socket::with(&s.endpoint(), "/v3/watch", headers) {
        Ok(_) => 101,
        Err(Error::Http(answer)) => answer.status().as_u16(),
        Err(error) => panic!("{error}"),
    };
    assert_eq!(status(&[("origin", "http://evil.example")]), 403);
    assert_eq!(status(&[("host", "evil.example:2379")]), 421);
    assert_eq!(status(&[("origin", &format!("http://{}", s.endpoint()))]), 101);
}

/// A socket is a connection like any other: counted, and told of the server's end, which it does not hold up.
#[test]
fn a_socket_counts_as_a_connection_and_ends_with_the_server() {
    let mut server = Server::with(Kind::Etcfs, Options::default());
    // One is that of the question; those of earlier ones may be about to end.
    let others = |server: &Server| server.metric("etcfs_client_connections").map(|open| open - 1.0);
    until_true("nobody is connected", || others(&server) == Some(0.0));
    let mut socket = Socket::open(&server.endpoint(), "/v3/watch");
    socket.send(r#"{"create_request":{"key":"YQ=="}}"#);
    assert_eq!(socket.next().unwrap()["result"]["created"], json!(true));
    until_true("it counts", || others(&server) == Some(1.0));
    let begun = std::time::Instant::now();
    assert!(server.stop().success());
    assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
    // The watch may end first.
    let end = (0..2).find_map(|_| socket.next().err()).expect("it ends");
    assert!(matches!(end, Some(CloseCode::Away | CloseCode::Normal)), "{end:?}");
}
