//! Pages in a browser, and names that were made to point here.

use etcfs_tests::{
    curl::Curl,
    server::{Kind, Options, Server},
};

const GET_A: &str = r#"{"key":"YQ=="}"#;

fn server(args: &[&str]) -> (Server, Curl) {
    let args = args.iter().map(|&arg| arg.to_owned()).collect();
    let server = Server::with(Kind::Etcfs, Options { args, ..Default::default() });
    let curl = Curl::at(&server.endpoint());
    (server, curl)
}

#[test]
fn a_foreign_page_and_a_foreign_name_are_refused() {
    let (server, curl) = server(&[]);
    server.api().set("a", "1");
    let own = format!("Origin: http://{}", server.endpoint());
    assert_eq!(curl.header(own).post("/v3/kv/range", GET_A).status, 200);
    for path in ["/v3/kv/range", "/v3/watch", "/health", "/metrics"] {
        for (header, status) in
            [("Origin: http://evil.example", 403), ("Origin: null", 403), ("Host: evil.example", 421)]
        {
            let answer = curl.header(header).post(path, GET_A);
            assert_eq!(answer.status, status, "{path} with {header}: {}", answer.body);
        }
    }
    // What a browser asks before it sends a page's request.
    let preflight = curl.header("Origin: http://evil.example").header("Access-Control-Request-Method: POST");
    assert_eq!(preflight.ask("/v3/kv/put", &["--request", "OPTIONS"], b"").status, 403);
    assert_eq!(curl.header("Host: localhost").post("/v3/kv/range", GET_A).status, 200);
}

#[test]
fn pages_and_names_that_are_listed_are_served() {
    let (_server, curl) = server(&["--cors=http://ui.example", "--host-whitelist=db.example,127.0.0.1"]);
    let ui = curl.header("Origin: http://ui.example");
    let answer = ui.ask("/v3/kv/range", &["--include", "--data", GET_A], b"");
    assert_eq!(answer.status, 200);
    let head = answer.body.to_ascii_lowercase();
    assert!(head.contains("access-control-allow-origin: http://ui.example"), "{head}");
    let preflight = ui.ask("/v3/kv/range", &["--include", "--request", "OPTIONS"], b"");
    assert_eq!(preflight.status, 200);
    let head = preflight.body.to_ascii_lowercase();
    assert!(head.contains("access-control-allow-headers: accept, content-type, authorization"), "{head}");
    assert_eq!(curl.header("Origin: http://other.example").post("/v3/kv/range", GET_A).status, 403);
    assert_eq!(curl.header("Host: db.example:2379").post("/v3/kv/range", GET_A).status, 200);
    assert_eq!(
        curl.header("Host: localhost").post("/v3/kv/range", GET_A).status,
        421,
        "it is not on the list"
    );
}

#[test]
fn a_gateway_that_is_switched_off_is_not_there() {
    let (_server, curl) = server(&["--enable-grpc-gateway=false"]);
    assert_eq!(curl.post("/v3/kv/range", GET_A).status, 404);
    assert_eq!(curl.ask("/health", &[], b"").status, 200);
}
