//! Our own client's logins, on both servers: the rest of it is driven by the
//! command line and the mount.

use std::time::Duration;

use etcfs_client::{Client, ClientError, Config, Credentials, Unsent};
use etcfs_proto::{
    authpb::permission::Type,
    etcdserverpb::{
        AuthRoleAddRequest, AuthUserChangePasswordRequest, PutRequest, RangeRequest, WatchCreateRequest,
    },
    v3lockpb::LockRequest,
};
use etcfs_tests::{api::runtime, server::Kind};
use futures_util::StreamExt as _;

use crate::{
    auth::{enabled, subject},
    subject::{Subject, bytes},
};

fn client(s: &Subject, user: &str, password: &str) -> Client {
    let credentials = Credentials { user: user.into(), password: password.into() };
    let config = Config {
        endpoints: vec![s.endpoint()],
        credentials: Some(credentials),
        request_timeout: Duration::from_secs(10),
        ..Config::default()
    };
    Client::connect(config).unwrap()
}

fn a_client_logs_in_and_stays_so(kind: Kind) {
    let s = subject(kind);
    let early = client(&s, "joe", "joe's");
    let get = || RangeRequest { key: bytes("a"), ..Default::default() };
    let put = || PutRequest { key: bytes("a"), value: bytes("1"), ..Default::default() };
    runtime().block_on(early.kv().range(get())).expect("with authentication off nobody is asked");
    let (root, _joe) = enabled(&s, &[(Type::Readwrite, "a", "b")]);
    runtime().block_on(async {
        let joe = client(&s, "joe", "joe's");
        joe.kv().put(put()).await.unwrap();
        early.kv().put(put()).await.expect("it logs in once it must");
        let mut watch = joe.watch(WatchCreateRequest { key: bytes("a"), ..Default::default() });
        watch.next().await.unwrap().expect("the watch stands");
        early.kv().put(put()).await.unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap().events.len(), 1);
        let lock = LockRequest { name: bytes("a/lock"), lease: 0 };
        let key = joe.lock().lock(lock).await.unwrap().key;
        joe.lock().unlock(key).await.unwrap();
        let denied = joe.auth().user_list().await.unwrap_err();
        assert_eq!(denied.to_string(), "etcdserver: permission denied");
        let denied = joe.maintenance().snapshot().await;
        let denied = match denied {
            Ok(mut parts) => parts.next().await.map(drop).unwrap_err(),
            Err(error) => error,
        };
        // etcd 3.4 has words of its own for streams.
        assert!(denied.to_string().ends_with(": permission denied"), "{denied}");
    });
    // A change of the password ends all tokens: who knows the new one goes on.
    root.user_change_password(AuthUserChangePasswordRequest {
        name: "joe".into(),
        password: "new".into(),
        ..Default::default()
    })
    .unwrap();
    runtime().block_on(async {
        let wrong = early.kv().put(put()).await.unwrap_err();
        assert!(matches!(wrong, ClientError::Unsent(Unsent::Login { .. })), "{wrong}");
        client(&s, "joe", "new").kv().put(put()).await.unwrap();
        let wrong = client(&s, "joe", "x").kv().range(get()).await.unwrap_err();
        assert!(wrong.to_string().contains("authentication failed"), "{wrong}");
        let root = client(&s, "root", "root's");
        root.auth().role_add(AuthRoleAddRequest { name: "another".into() }).await.unwrap();
        assert_eq!(root.auth().role_list().await.unwrap().roles, ["another", "r"]);
    });
}

#[test]
fn a_client_logs_in_and_stays_so_on_etcfsd() {
    a_client_logs_in_and_stays_so(Kind::Etcfs);
}

#[test]
fn a_client_logs_in_and_stays_so_on_etcd() {
    a_client_logs_in_and_stays_so(Kind::Etcd);
}
