//! TLS on the client port: who is let in, as whom, and with what.

use std::{
    fs,
    io::Read as _,
    net::TcpStream,
    time::{Duration, Instant},
};

use etcfs_client::{Client, ClientError, Config, Credentials, Tls};
use etcfs_proto::etcdserverpb::{AuthUserAddRequest, AuthUserGrantRoleRequest, PutRequest, RangeRequest};
use etcfs_tests::{
    api::runtime,
    binary,
    certs::Certs,
    command::{Output, sh},
    machine,
    port::Port,
    server::{Kind, Options, Server},
    wait,
};

use crate::subject::bytes;

fn secure(certs: &Certs, more: &[&str]) -> Server {
    let mut args: Vec<String> =
        ["--cert-file", &certs.text("server.pem"), "--key-file", &certs.text("server.key")]
            .iter()
            .map(|&arg| arg.to_owned())
            .collect();
    args.extend(more.iter().map(|&arg| arg.to_owned()));
    args.extend(["--bcrypt-cost".into(), "4".into()]);
    Server::with(Kind::Etcfs, Options { args, secure: true, ..Default::default() })
}

fn etcdctl(certs: &Certs, server: &Server, args: &str) -> Output {
    machine::program("etcdctl");
    sh(certs.dir(), &format!("ETCDCTL_API=3 etcdctl --endpoints https://{} {args}", server.endpoint()))
}

fn config(certs: &Certs, server: &Server) -> Config {
    Config {
        endpoints: vec![format!("https://{}", server.endpoint())],
        tls: Some(Tls { ca: Some(certs.path("ca.pem")), ..Tls::default() }),
        request_timeout: Duration::from_secs(10),
        ..Config::default()
    }
}

fn value(client: &Client, key: &str) -> Result<Option<String>, ClientError> {
    let request = RangeRequest { key: bytes(key), ..Default::default() };
    let answer = runtime().block_on(client.kv().range(request))?;
    Ok(answer.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned()))
}

fn set(client: &Client, key: &str, value: &str) -> Result<(), ClientError> {
    let request = PutRequest { key: bytes(key), value: bytes(value), ..Default::default() };
    runtime().block_on(client.kv().put(request)).map(drop)
}

#[test]
fn clients_that_trust_the_server_are_served_over_grpc_and_http() {
    let certs = Certs::new();
    let server = secure(&certs, &[]);
    assert_eq!(etcdctl(&certs, &server, "--cacert ca.pem put a 1").ok(), "OK\n");
    let client = Client::connect(config(&certs, &server)).unwrap();
    assert_eq!(value(&client, "a").unwrap().as_deref(), Some("1"));
    set(&client, "a", "2").unwrap();
    assert_eq!(etcdctl(&certs, &server, "--cacert ca.pem get --print-value-only a").ok(), "2\n");
    let etcfs = |flags: &str| {
        let etcfs = binary::etcfs();
        let script =
            format!("{} --endpoints {} {flags} get --print-value-only a", etcfs.display(), server.endpoint());
        sh(certs.dir(), &script)
    };
    assert_eq!(etcfs("--cacert ca.pem").ok(), "2\n");
    assert_eq!(etcfs("--insecure-transport=false --insecure-skip-tls-verify").ok(), "2\n");
    assert_ne!(etcfs("--insecure-transport=false --command-timeout=1s").code, 0);
    machine::program("curl");
    for version in ["--http1.1", "--http2"] {
        let health = sh(
            certs.dir(),
            &format!("curl -s {version} --cacert ca.pem https://{}/health", server.endpoint()),
        );
        assert!(health.ok().contains("\"true\""), "{version}");
    }
    // Whoever does not trust it, or speaks in clear, is not served.
    assert_ne!(etcdctl(&certs, &server, "--command-timeout=2s get a").code, 0);
    let stranger = Config { tls: None, request_timeout: Duration::from_secs(1), ..config(&certs, &server) };
    let refused = Client::connect(stranger).and_then(|client| value(&client, "a"));
    assert!(refused.is_err());
    let plain = Config {
        endpoints: vec![format!("http://{}", server.endpoint())],
        request_timeout: Duration::from_secs(1),
        ..Config::default()
    };
    assert!(value(&Client::connect(plain).unwrap(), "a").is_err());
    let anybody = Some(Tls { skip_verify: true, ..Tls::default() });
    let trusting = Client::connect(Config { tls: anybody, ..config(&certs, &server) }).unwrap();
    assert_eq!(value(&trusting, "a").unwrap().as_deref(), Some("2"));
}

#[test]
fn a_client_goes_on_with_certificates_that_were_replaced() {
    let certs = Certs::new();
    certs.sign("joe");
    let trusted = certs.path("trusted.pem");
    fs::copy(certs.path("ca.pem"), &trusted).expect("a file of our own");
    let mut server = secure(&certs, &["--client-cert-auth", "--trusted-ca-file", &certs.text("ca.pem")]);
    let tls = Tls {
        ca: Some(trusted.clone()),
        identity: Some((certs.path("joe.pem"), certs.path("joe.key"))),
        ..Tls::default()
    };
    let client = Client::connect(Config { tls: Some(tls), ..config(&certs, &server) }).unwrap();
    set(&client, "a", "1").unwrap();
    let is_served = || value(&client, "a").is_ok_and(|found| found.as_deref() == Some("1"));

    // All of another CA: ours knows neither the server nor the client any more.
    server.stop();
    let other = Certs::new();
    other.sign("joe");
    ["ca", "server", "joe"].iter().for_each(|name| certs.take(&other, name));
    fs::copy(certs.path("ca.pem"), &trusted).expect("a file of our own");
    server.run();
    wait::until_true("the client is served with the new ones", is_served);

    // What is no certificate, or not yet, takes nothing away.
    server.stop();
    fs::write(&trusted, "").expect("a file of our own");
    server.run();
    wait::until_true("the client is served with those it had", is_served);
}

#[test]
fn a_clients_certificate_is_asked_for_and_names_the_user() {
    let certs = Certs::new();
    ["root", "joe"].iter().for_each(|name| certs.sign(name));
    let server = secure(&certs, &["--client-cert-auth", "--trusted-ca-file", &certs.text("ca.pem")]);
    let of = |name: &str| Config {
        tls: Some(Tls {
            ca: Some(certs.path("ca.pem")),
            identity: Some((certs.path(&format!("{name}.pem")), certs.path(&format!("{name}.key")))),
            ..Tls::default()
        }),
        ..config(&certs, &server)
    };
    let bare = Client::connect(Config { request_timeout: Duration::from_secs(1), ..config(&certs, &server) });
    assert!(value(&bare.unwrap(), "a").is_err(), "without a certificate nobody comes in");
    let root = Client::connect(of("root")).unwrap();
    runtime().block_on(async {
        for (name, password) in [("root", "root's"), ("joe", "joe's")] {
            let request =
                AuthUserAddRequest { name: name.into(), password: password.into(), ..Default::default() };
            root.auth().user_add(request).await.unwrap();
        }
        let request = AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() };
        root.auth().user_grant_role(request).await.unwrap();
        root.auth().auth_enable().await.unwrap();
    });
    set(&root, "a", "1").unwrap();
    let joe = Client::connect(of("joe")).unwrap();
    assert_eq!(value(&joe, "a").unwrap_err().to_string(), "etcdserver: permission denied");
    // A login wins over the certificate.
    let credentials = Credentials { user: "root".into(), password: "root's".into() };
    let raised = Client::connect(Config { credentials: Some(credentials), ..of("joe") }).unwrap();
    assert_eq!(value(&raised, "a").unwrap().as_deref(), Some("1"));
    let as_joe = "--cacert ca.pem --cert joe.pem --key joe.key";
    assert!(etcdctl(&certs, &server, &format!("{as_joe} get a")).stderr.contains("permission denied"));
    assert_eq!(
        etcdctl(&certs, &server, "--cacert ca.pem --cert root.pem --key root.key get --print-value-only a")
            .ok(),
        "1\n"
    );
}

/// CVE-2018-16886: whose certificate a connection has shown is nobody's user at the gateway.
#[test]
fn a_certificate_names_no_user_at_the_gateway() {
    let certs = Certs::new();
    certs.sign("root");
    let server = secure(&certs, &["--client-cert-auth", "--trusted-ca-file", &certs.text("ca.pem")]);
    let own = "--cacert ca.pem --cert root.pem --key root.key";
    for command in
        ["user add root:rt", "role add root", "user grant-role root root", "put a 1", "auth enable"]
    {
        etcdctl(&certs, &server, &format!("{own} {command}")).ok();
    }
    assert_eq!(etcdctl(&certs, &server, &format!("{own} get --print-value-only a")).ok(), "1\n", "over gRPC");
    let post = |path: &str, flags: &str, body: &str| {
        let url = format!("https://{}{path}", server.endpoint());
        sh(certs.dir(), &format!("curl -sS {own} {flags} -d '{body}' -w '%{{http_code}}' {url}")).ok()
    };
    for (path, body) in [
        ("/v3/kv/range", r#"{"key":"YQ=="}"#),
        ("/v3beta/kv/range", r#"{"key":"YQ=="}"#),
        ("/v3/kv/put", r#"{"key":"YQ==","value":"Mg=="}"#),
        ("/v3/auth/user/list", "{}"),
        ("/v3/auth/disable", "{}"),
    ] {
        for version in ["--http1.1", "--http2"] {
            let answer = post(path, version, body);
            assert!(answer.contains("user name is empty") && answer.ends_with("400"), "{path}: {answer}");
        }
    }
    let login = post("/v3/auth/authenticate", "", r#"{"name":"root","password":"rt"}"#);
    let token = login.split("\"token\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let answer = post("/v3/kv/range", &format!("-H 'Authorization: {token}'"), r#"{"key":"YQ=="}"#);
    assert!(answer.contains(r#""value":"MQ==""#) && answer.ends_with("200"), "{answer}");
}

/// Whether curl is answered with the certificate of `name`.
fn comes_in(certs: &Certs, server: &Server, name: &str) -> bool {
    is_let_in(certs, &server.endpoint(), name)
}

fn is_let_in(certs: &Certs, endpoint: &str, name: &str) -> bool {
    let own = format!("--cacert ca.pem --cert {name}.pem --key {name}.key");
    sh(certs.dir(), &format!("curl -sS {own} https://{endpoint}/version 2>&1")).code == 0
}

/// GHSA-3wh4-j44w-pg92: no second door has other rules than the first.
#[test]
fn a_certificate_that_is_revoked_is_taken_by_no_listener() {
    let certs = Certs::new();
    ["joe", "eve"].iter().for_each(|name| certs.sign(name));
    certs.revoke(&["eve"]);
    let (ca, revoked) = (certs.text("ca.pem"), certs.text("revoked.pem"));
    let doors = [Port::take(), Port::take()];
    let urls = doors.each_ref().map(|door| format!("https://{}", door.address())).join(",");
    let args = [
        "--client-cert-auth",
        "--trusted-ca-file",
        &ca,
        "--client-crl-file",
        &revoked,
        "--listen-metrics-urls",
        &urls,
    ];
    let server = secure(&certs, &args);
    let everywhere = [server.endpoint(), doors[0].address(), doors[1].address()];
    for endpoint in &everywhere {
        assert!(is_let_in(&certs, endpoint, "joe") && !is_let_in(&certs, endpoint, "eve"), "{endpoint}");
    }
    certs.revoke(&["eve", "joe"]);
    for endpoint in &everywhere {
        wait::until_true("the list is read again", || !is_let_in(&certs, endpoint, "joe"));
    }
}

#[test]
fn a_certificate_that_is_revoked_is_not_taken_any_more() {
    let certs = Certs::new();
    ["joe", "eve"].iter().for_each(|name| certs.sign(name));
    certs.revoke(&["eve"]);
    let (ca, revoked) = (certs.text("ca.pem"), certs.text("revoked.pem"));
    let args = ["--client-cert-auth", "--trusted-ca-file", &ca, "--client-crl-file", &revoked];
    let server = secure(&certs, &args);
    assert!(comes_in(&certs, &server, "joe") && !comes_in(&certs, &server, "eve"));
    // A list that is replaced counts at once.
    certs.revoke(&["eve", "joe"]);
    wait::until_true("the list is read again", || !comes_in(&certs, &server, "joe"));
    assert!(!comes_in(&certs, &server, "eve"));
}

#[test]
fn a_clients_certificate_must_be_for_the_host_that_is_allowed() {
    let certs = Certs::new();
    certs.sign_for("good", "db.example");
    certs.sign_for("bad", "db.example.evil");
    let ca = certs.text("ca.pem");
    let args = ["--client-cert-auth", "--trusted-ca-file", &ca, "--client-cert-allowed-hostname=db.example"];
    let server = secure(&certs, &args);
    assert!(comes_in(&certs, &server, "good") && !comes_in(&certs, &server, "bad"));
}

#[test]
fn a_new_certificate_is_shown_without_a_restart() {
    let certs = Certs::new();
    let server = secure(&certs, &[]);
    let serial = || {
        let show = format!(
            "openssl s_client -connect {} </dev/null 2>/dev/null | openssl x509 -noout -serial",
            server.endpoint()
        );
        sh(certs.dir(), &show).ok()
    };
    let client = Client::connect(config(&certs, &server)).unwrap();
    set(&client, "a", "1").unwrap();
    let first = serial();
    certs.sign("server");
    wait::until_true("the new certificate is shown", || serial() != first);
    assert_eq!(value(&client, "a").unwrap().as_deref(), Some("1"), "connections go on");
    // What can't be used leaves the good one in place.
    let second = serial();
    fs::write(certs.path("server.pem"), "nonsense").unwrap();
    wait::until_true("it is told", || {
        assert_eq!(serial(), second);
        server.log().contains("can't be used")
    });
}

#[test]
fn the_ciphers_that_are_named_are_the_only_ones_of_tls_1_2() {
    let certs = Certs::new();
    let server = secure(&certs, &["--cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"]);
    let shakes = |options: &str| {
        let script = format!("openssl s_client -connect {} {options} </dev/null 2>&1", server.endpoint());
        sh(certs.dir(), &script).stdout.contains("BEGIN CERTIFICATE")
    };
    assert!(shakes("-tls1_3") && shakes("-tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384"));
    assert!(!shakes("-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256"));
    assert_eq!(etcdctl(&certs, &server, "--cacert ca.pem put a 1").ok(), "OK\n");
}

#[test]
fn old_versions_and_weak_ciphers_are_refused() {
    let certs = Certs::new();
    let server = secure(&certs, &["--tls-min-version", "TLS1.2"]);
    let shakes = |options: &str| {
        let script = format!("openssl s_client -connect {} {options} </dev/null 2>&1", server.endpoint());
        let shown = sh(certs.dir(), &script).stdout;
        shown.contains("BEGIN CERTIFICATE")
    };
    assert!(shakes("-tls1_3") && shakes("-tls1_2"));
    for options in [
        "-tls1_1 -cipher ALL:@SECLEVEL=0",
        "-tls1_2 -cipher AES128-SHA",
        "-tls1_2 -cipher DES-CBC3-SHA:@SECLEVEL=0",
        "-tls1_2 -cipher ECDHE-ECDSA-AES128-SHA",
    ] {
        assert!(!shakes(options), "{options}");
    }
}

/// Sockets that never say hello are hung up on (GHSA-6vch-q96h-7gc3).
#[test]
fn who_connects_and_says_nothing_is_hung_up_on() {
    let certs = Certs::new();
    let server = secure(&certs, &[]);
    let began = Instant::now();
    let silent: Vec<_> = (0..200).map(|_| TcpStream::connect(server.endpoint()).unwrap()).collect();
    for mut socket in silent {
        socket.set_read_timeout(Some(wait::PATIENCE)).unwrap();
        assert_eq!(socket.read(&mut [0; 1]).unwrap_or(0), 0, "it is closed without a word");
    }
    assert!(began.elapsed() >= Duration::from_secs(9), "nobody was hung up on at once");
    assert_eq!(etcdctl(&certs, &server, "--cacert ca.pem put a 1").ok(), "OK\n");
}

#[test]
fn a_certificate_can_be_made_at_the_start() {
    let certs = Certs::new();
    let args = vec!["--auto-tls".to_owned()];
    let server = Server::with(Kind::Etcfs, Options { args, secure: true, ..Default::default() });
    assert_eq!(
        etcdctl(&certs, &server, "--insecure-skip-tls-verify --insecure-transport=false put a 1").ok(),
        "OK\n"
    );
}
