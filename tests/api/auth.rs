//! Users, roles, rights and logins, as etcd has them.

use etcfs_proto::{
    authpb::{Permission, UserAddOptions, permission::Type},
    etcdserverpb::{
        AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest,
        AuthRoleGrantPermissionRequest, AuthRoleListRequest, AuthRoleRevokePermissionRequest,
        AuthStatusRequest, AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest,
        AuthUserGetRequest, AuthUserGrantRoleRequest, AuthUserListRequest, AuthUserRevokeRoleRequest,
        AuthenticateRequest, Compare, TxnRequest,
    },
};
use etcfs_tests::{
    api::{Answer, Api, Op, delete, get, prefix, put, txn},
    command::sh,
    machine,
    server::{Kind, Options, Server},
};
use tonic::Code;

use crate::subject::{Subject, bytes, delete_span, refused, span};

/// Hashing takes as little time as it can.
const CHEAP: [&str; 2] = ["--bcrypt-cost", "4"];

pub(crate) const USER_EMPTY: &str = "etcdserver: user name is empty";
pub(crate) const DENIED: &str = "etcdserver: permission denied";
pub(crate) const FAILED: &str = "etcdserver: authentication failed, invalid user ID or password";
pub(crate) const BAD_TOKEN: &str = "etcdserver: invalid auth token";
const INVALID: &str = "etcdserver: invalid auth management";

/// Makes two tests of each case, each on a server of its own whose hashes are cheap.
macro_rules! on_both_cheaply {
    ($($case:ident),+ $(,)?) => {
        mod alone_on_etcfsd {
            $(#[test] fn $case() { super::$case(&super::subject(etcfs_tests::server::Kind::Etcfs)); })+
        }
        mod alone_on_etcd {
            $(#[test] fn $case() { super::$case(&super::subject(etcfs_tests::server::Kind::Etcd)); })+
        }
    };
}

on_both_cheaply! {
    users_and_roles_are_kept_with_authentication_off,
    it_takes_a_root_to_enable_it,
    who_is_not_logged_in_may_nothing,
    a_user_may_what_his_roles_say,
    rights_on_ranges_hold_in_every_form,
    a_login_needs_the_right_password,
    a_user_without_a_password_cannot_log_in,
    another_password_ends_the_old_tokens,
    users_and_roles_are_for_root,
    root_can_not_be_taken_away,
    everything_is_as_before_once_it_is_disabled,
}

pub(crate) fn subject(kind: Kind) -> Subject {
    Subject::alone(kind, &CHEAP)
}

pub(crate) fn add_user(api: &Api, name: &str, password: &str) -> Answer<()> {
    let (name, password) = (name.into(), password.into());
    api.user_add(AuthUserAddRequest { name, password, ..Default::default() }).map(drop)
}

pub(crate) fn add_role(api: &Api, name: &str) -> Answer<()> {
    api.role_add(AuthRoleAddRequest { name: name.into() }).map(drop)
}

pub(crate) fn grant(api: &Api, user: &str, role: &str) -> Answer<()> {
    api.user_grant_role(AuthUserGrantRoleRequest { user: user.into(), role: role.into() }).map(drop)
}

pub(crate) fn permit(api: &Api, role: &str, kind: Type, key: &str, end: &str) -> Answer<()> {
    let perm = Permission { perm_type: kind as i32, key: bytes(key), range_end: bytes(end) };
    let request = AuthRoleGrantPermissionRequest { name: role.into(), perm: Some(perm) };
    api.role_grant_permission(request).map(drop)
}

pub(crate) fn forbid(api: &Api, role: &str, key: &str, end: &str) -> Answer<()> {
    let (key, range_end) = (bytes(key), bytes(end));
    api.role_revoke_permission(AuthRoleRevokePermissionRequest { role: role.into(), key, range_end })
        .map(drop)
}

/// Authentication with root, whose password is `root's`, and with joe, whose is `joe's` and who
/// may what `rights` says. Gives both, logged in.
pub(crate) fn enabled(api: &Api, rights: &[(Type, &str, &str)]) -> (Api, Api) {
    add_user(api, "root", "root's").unwrap();
    grant(api, "root", "root").unwrap();
    add_user(api, "joe", "joe's").unwrap();
    add_role(api, "r").unwrap();
    grant(api, "joe", "r").unwrap();
    for &(kind, key, end) in rights {
        permit(api, "r", kind, key, end).unwrap();
    }
    api.auth_enable(AuthEnableRequest {}).unwrap();
    (api.log_in("root", "root's"), api.log_in("joe", "joe's"))
}

fn users_and_roles_are_kept_with_authentication_off(s: &Subject) {
    for name in ["b", "a"] {
        add_user(s, name, "secret").unwrap();
        add_role(s, name).unwrap();
    }
    assert_eq!(s.user_list(AuthUserListRequest {}).unwrap().users, ["a", "b"]);
    assert_eq!(s.role_list(AuthRoleListRequest {}).unwrap().roles, ["a", "b"]);
    refused(add_user(s, "a", "x"), Code::FailedPrecondition, "etcdserver: user name already exists");
    refused(add_role(s, "a"), Code::FailedPrecondition, "etcdserver: role name already exists");
    refused(add_user(s, "", "x"), Code::InvalidArgument, USER_EMPTY);
    if !s.is_v3_4() {
        refused(add_role(s, ""), Code::InvalidArgument, "etcdserver: role name is empty");
    }
    let no_user = "etcdserver: user name not found";
    let no_role = "etcdserver: role name not found";
    refused(grant(s, "nobody", "a"), Code::FailedPrecondition, no_user);
    refused(grant(s, "a", "none"), Code::FailedPrecondition, no_role);
    refused(s.user_get(AuthUserGetRequest { name: "nobody".into() }), Code::FailedPrecondition, no_user);
    refused(s.role_get(AuthRoleGetRequest { role: "none".into() }), Code::FailedPrecondition, no_role);
    let delete_nobody = AuthUserDeleteRequest { name: "nobody".into() };
    refused(s.user_delete(delete_nobody), Code::FailedPrecondition, no_user);
    refused(s.role_delete(AuthRoleDeleteRequest { role: "none".into() }), Code::FailedPrecondition, no_role);
    for role in ["b", "a", "b"] {
        grant(s, "a", role).unwrap();
    }
    let roles = || s.user_get(AuthUserGetRequest { name: "a".into() }).unwrap().roles;
    assert_eq!(roles(), ["a", "b"]);
    let revoke = AuthUserRevokeRoleRequest { name: "a".into(), role: "b".into() };
    s.user_revoke_role(revoke.clone()).unwrap();
    let not_granted = "etcdserver: role is not granted to the user";
    refused(s.user_revoke_role(revoke), Code::FailedPrecondition, not_granted);
    s.role_delete(AuthRoleDeleteRequest { role: "a".into() }).unwrap();
    assert_eq!(roles(), [""; 0], "a role that is gone is nobody's");
    s.user_delete(AuthUserDeleteRequest { name: "a".into() }).unwrap();
    assert_eq!(s.user_list(AuthUserListRequest {}).unwrap().users, ["b"]);
}

fn it_takes_a_root_to_enable_it(s: &Subject) {
    let enable = || s.auth_enable(AuthEnableRequest {});
    refused(enable(), Code::FailedPrecondition, "etcdserver: root user does not exist");
    add_user(s, "root", "root's").unwrap();
    refused(enable(), Code::FailedPrecondition, "etcdserver: root user does not have root role");
    let login = AuthenticateRequest { name: "root".into(), password: "root's".into() };
    let not_enabled = "etcdserver: authentication is not enabled";
    refused(s.authenticate(login), Code::FailedPrecondition, not_enabled);
    grant(s, "root", "root").unwrap();
    if !s.is_v3_4() {
        assert!(!s.auth_status(AuthStatusRequest {}).unwrap().enabled);
    }
    enable().unwrap();
    let root = s.log_in("root", "root's");
    root.auth_enable(AuthEnableRequest {}).unwrap();
    root.set("a", "1");
    if !s.is_v3_4() {
        let status = root.auth_status(AuthStatusRequest {}).unwrap();
        assert!(status.enabled && status.auth_revision > 1);
    }
}

fn who_is_not_logged_in_may_nothing(s: &Subject) {
    let (root, joe) = enabled(s, &[]);
    refused(s.range(get("a")), Code::InvalidArgument, USER_EMPTY);
    refused(s.put(put("a", "1")), Code::InvalidArgument, USER_EMPTY);
    refused(s.delete(delete("a")), Code::InvalidArgument, USER_EMPTY);
    refused(s.txn(txn([Op::Put(put("a", "1"))])), Code::InvalidArgument, USER_EMPTY);
    refused(s.txn(txn([Op::Range(get("a"))])), Code::InvalidArgument, USER_EMPTY);
    refused(s.user_list(AuthUserListRequest {}), Code::InvalidArgument, USER_EMPTY);
    refused(s.auth_disable(AuthDisableRequest {}), Code::InvalidArgument, USER_EMPTY);
    refused(s.with_token("nobody's.7").range(get("a")), Code::Unauthenticated, BAD_TOKEN);
    refused(joe.range(get("a")), Code::PermissionDenied, DENIED);
    root.set("a", "1");
    assert_eq!(root.value("a").as_deref(), Some("1"));
}

fn a_user_may_what_his_roles_say(s: &Subject) {
    let rights = [(Type::Read, "a", ""), (Type::Write, "w", ""), (Type::Readwrite, "b/", "b0")];
    let (root, joe) = enabled(s, &rights);
    for key in ["a", "b/1", "c", "w"] {
        root.set(key, "1");
    }
    assert_eq!(joe.value("a").as_deref(), Some("1"));
    refused(joe.put(put("a", "2")), Code::PermissionDenied, DENIED);
    joe.put(put("w", "2")).unwrap();
    refused(joe.range(get("w")), Code::PermissionDenied, DENIED);
    joe.put(put("b/2", "2")).unwrap();
    assert_eq!(joe.all("b/").len(), 2);
    refused(joe.range(get("c")), Code::PermissionDenied, DENIED);
    refused(joe.range(prefix("b")), Code::PermissionDenied, DENIED);
    refused(joe.delete(delete("a")), Code::PermissionDenied, DENIED);
    joe.delete(delete_span("b/", "b0")).unwrap();
    // A comparison reads too, and both branches are judged.
    let compare = Compare { key: bytes("c"), ..Default::default() };
    let asks = TxnRequest { compare: vec![compare], ..Default::default() };
    refused(joe.txn(asks), Code::PermissionDenied, DENIED);
    let mut branches = txn([Op::Put(put("b/1", "1"))]);
    branches.failure = txn([Op::Put(put("c", "1"))]).success;
    refused(joe.txn(branches), Code::PermissionDenied, DENIED);
    joe.txn(txn([Op::Put(put("b/1", "1")), Op::Range(get("a"))])).unwrap();
    // What is granted and taken back shows at once.
    permit(&root, "r", Type::Read, "c", "").unwrap();
    assert_eq!(joe.value("c").as_deref(), Some("1"));
    forbid(&root, "r", "c", "").unwrap();
    refused(joe.range(get("c")), Code::PermissionDenied, DENIED);
    let missing = "etcdserver: permission is not granted to the role";
    refused(forbid(&root, "r", "c", ""), Code::FailedPrecondition, missing);
}

fn rights_on_ranges_hold_in_every_form(s: &Subject) {
    let (root, joe) = enabled(s, &[(Type::Read, "a", ""), (Type::Read, "m", "p"), (Type::Read, "p", "r")]);
    let may = |key: &str, end: &str| joe.range(span(key, end)).is_ok();
    for (key, end, expected) in [
        ("a", "", true),
        ("a", "\0", false),
        ("a", "b", false),
        ("m", "p", true),
        ("m", "r", true),
        ("n", "q", true),
        ("m", "r\0", false),
        ("m", "\0", false),
        ("\0", "\0", false),
    ] {
        assert_eq!(may(key, end), expected, "{key:?} {end:?}");
    }
    permit(&root, "r", Type::Read, "x", "\0").unwrap();
    assert!(may("x", "\0") && may("y", "\0") && may("y", "z") && !may("w", "\0"));
    permit(&root, "r", Type::Read, "\0", "\0").unwrap();
    assert!(may("\0", "\0") && may("a", "\0"));
    // What has the same bounds is one right.
    permit(&root, "r", Type::Write, "\0", "\0").unwrap();
    assert!(!may("\0", "\0"));
    // 3.4 keeps rights on nothing.
    if !s.is_v3_4() {
        for (key, end) in [("", ""), ("", "\0"), ("b", "a"), ("b", "b")] {
            refused(permit(&root, "r", Type::Read, key, end), Code::InvalidArgument, INVALID);
        }
    }
}

fn a_login_needs_the_right_password(s: &Subject) {
    let _both = enabled(s, &[]);
    for (name, password) in [("joe", "wrong"), ("joe", ""), ("nobody", "joe's"), ("", "")] {
        let request = AuthenticateRequest { name: name.into(), password: password.into() };
        refused(s.authenticate(request), Code::InvalidArgument, FAILED);
    }
    let first = s.log_in("joe", "joe's");
    let second = s.log_in("joe", "joe's");
    assert_ne!(first.token(), second.token());
    for joe in [first, second] {
        refused(joe.range(get("a")), Code::PermissionDenied, DENIED);
    }
}

fn a_user_without_a_password_cannot_log_in(s: &Subject) {
    let options = Some(UserAddOptions { no_password: true });
    let request = AuthUserAddRequest { name: "cn".into(), options, ..Default::default() };
    s.user_add(request).unwrap();
    let _both = enabled(s, &[]);
    let request = AuthenticateRequest { name: "cn".into(), password: String::new() };
    let no_password = "auth: authentication failed, password was given for no password user";
    refused(s.authenticate(request), Code::Unknown, no_password);
}

fn another_password_ends_the_old_tokens(s: &Subject) {
    let (root, joe) = enabled(s, &[(Type::Read, "a", "")]);
    joe.range(get("a")).unwrap();
    let change =
        AuthUserChangePasswordRequest { name: "joe".into(), password: "new".into(), ..Default::default() };
    refused(joe.user_change_password(change.clone()), Code::PermissionDenied, DENIED);
    root.user_change_password(change).unwrap();
    refused(joe.range(get("a")), Code::Unauthenticated, BAD_TOKEN);
    let old = AuthenticateRequest { name: "joe".into(), password: "joe's".into() };
    refused(s.authenticate(old), Code::InvalidArgument, FAILED);
    let joe = s.log_in("joe", "new");
    joe.range(get("a")).unwrap();
    root.user_delete(AuthUserDeleteRequest { name: "joe".into() }).unwrap();
    refused(joe.range(get("a")), Code::Unauthenticated, BAD_TOKEN);
}

fn users_and_roles_are_for_root(s: &Subject) {
    let (root, joe) = enabled(s, &[(Type::Read, "a", "")]);
    refused(add_user(&joe, "x", "x"), Code::PermissionDenied, DENIED);
    refused(grant(&joe, "joe", "root"), Code::PermissionDenied, DENIED);
    refused(permit(&joe, "r", Type::Read, "x", ""), Code::PermissionDenied, DENIED);
    refused(joe.user_list(AuthUserListRequest {}), Code::PermissionDenied, DENIED);
    refused(joe.role_list(AuthRoleListRequest {}), Code::PermissionDenied, DENIED);
    refused(joe.auth_disable(AuthDisableRequest {}), Code::PermissionDenied, DENIED);
    refused(joe.user_get(AuthUserGetRequest { name: "root".into() }), Code::PermissionDenied, DENIED);
    // Everybody may know what he himself is.
    assert_eq!(joe.user_get(AuthUserGetRequest { name: "joe".into() }).unwrap().roles, ["r"]);
    let held = joe.role_get(AuthRoleGetRequest { role: "r".into() }).unwrap().perm;
    assert_eq!((held.len(), held[0].key.as_ref()), (1, &b"a"[..]));
    add_role(&root, "other").unwrap();
    refused(joe.role_get(AuthRoleGetRequest { role: "other".into() }), Code::PermissionDenied, DENIED);
}

fn root_can_not_be_taken_away(s: &Subject) {
    add_role(s, "root").unwrap();
    let (root, _joe) = enabled(s, &[]);
    refused(root.user_delete(AuthUserDeleteRequest { name: "root".into() }), Code::InvalidArgument, INVALID);
    refused(root.role_delete(AuthRoleDeleteRequest { role: "root".into() }), Code::InvalidArgument, INVALID);
    let revoke = AuthUserRevokeRoleRequest { name: "root".into(), role: "root".into() };
    refused(root.user_revoke_role(revoke), Code::InvalidArgument, INVALID);
    let held = root.role_get(AuthRoleGetRequest { role: "root".into() }).unwrap().perm;
    let everything = Permission { perm_type: Type::Readwrite as i32, key: bytes(""), range_end: bytes("\0") };
    assert_eq!(held, s.by_version(vec![], vec![everything]));
}

fn everything_is_as_before_once_it_is_disabled(s: &Subject) {
    let (root, joe) = enabled(s, &[]);
    root.set("a", "1");
    root.auth_disable(AuthDisableRequest {}).unwrap();
    assert_eq!(s.value("a").as_deref(), Some("1"));
    // Since 3.5 a token is not even looked at.
    if !s.is_v3_4() {
        assert_eq!(joe.value("a").as_deref(), Some("1"));
    }
    s.auth_disable(AuthDisableRequest {}).unwrap();
    s.user_delete(AuthUserDeleteRequest { name: "root".into() }).unwrap();
}

/// New in etcd 3.5; 3.4 dies of it.
#[test]
fn a_permission_must_be_given() {
    let s = subject(Kind::Etcfs);
    add_role(&s, "r").unwrap();
    let request = AuthRoleGrantPermissionRequest { name: "r".into(), perm: None };
    let refusal = "etcdserver: permission not given";
    refused(s.role_grant_permission(request), Code::InvalidArgument, refusal);
    assert!(s.role_get(AuthRoleGetRequest { role: "r".into() }).unwrap().perm.is_empty());
}

const RSA: &str = "openssl genrsa -out key.pem 2048";

/// A server whose tokens are signed by `method`, with a key that `make` makes.
fn with_jwt(kind: Kind, method: &str, make: &str) -> (Server, Api) {
    let dir = tempfile::tempdir().unwrap();
    machine::program("openssl");
    sh(dir.path(), &format!("({make} && openssl pkey -in key.pem -pubout -out pub.pem) 2>&1")).ok();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let token =
        format!("jwt,pub-key={},priv-key={},sign-method={method},ttl=5m", path("pub.pem"), path("key.pem"));
    let args = ["--bcrypt-cost", "4", "--auth-token", &token].map(str::to_owned).to_vec();
    let server = Server::with(kind, Options { args, ..Default::default() });
    let api = server.api();
    (server, api)
}

/// A signed token outlives the server, and not the state of users and roles that it speaks of.
fn a_signed_token_is_for_one_state_of_users(kind: Kind) {
    let (_server, api) = with_jwt(kind, "RS256", RSA);
    let (root, joe) = enabled(&api, &[(Type::Readwrite, "a", "")]);
    assert_eq!(joe.token().unwrap().split('.').count(), 3, "it is a JWT");
    joe.set("a", "1");
    assert_eq!(joe.value("a").as_deref(), Some("1"));
    let forged = format!("{}x", joe.token().unwrap());
    refused(api.with_token(&forged).range(get("a")), Code::Unauthenticated, BAD_TOKEN);
    add_role(&root, "another").unwrap();
    let old = "etcdserver: revision of auth store is old";
    refused(joe.range(get("a")), Code::InvalidArgument, old);
    refused(joe.put(put("a", "2")), Code::InvalidArgument, old);
    api.log_in("joe", "joe's").set("a", "3");
}

#[test]
fn a_signed_token_is_for_one_state_of_users_on_etcfsd() {
    a_signed_token_is_for_one_state_of_users(Kind::Etcfs);
}

#[test]
fn a_signed_token_is_for_one_state_of_users_on_etcd() {
    a_signed_token_is_for_one_state_of_users(Kind::Etcd);
}

/// Who has the public key alone takes tokens and makes none.
#[test]
fn without_the_private_key_no_token_is_signed() {
    let dir = tempfile::tempdir().unwrap();
    machine::program("openssl");
    sh(dir.path(), &format!("({RSA} && openssl pkey -in key.pem -pubout -out pub.pem) 2>&1")).ok();
    let token = format!("jwt,pub-key={},sign-method=RS256", dir.path().join("pub.pem").display());
    let args = ["--bcrypt-cost", "4", "--auth-token", &token].map(str::to_owned).to_vec();
    let server = Server::with(Kind::Etcfs, Options { args, ..Default::default() });
    let api = server.api();
    add_user(&api, "root", "root's").unwrap();
    add_role(&api, "root").unwrap();
    grant(&api, "root", "root").unwrap();
    api.auth_enable(AuthEnableRequest {}).unwrap();
    let request = AuthenticateRequest { name: "root".into(), password: "root's".into() };
    let refusal = "auth: token signing attempted with verify-only configuration";
    refused(api.authenticate(request), Code::Unknown, refusal);
}

#[test]
fn a_token_is_signed_by_each_kind_of_key() {
    let curve =
        |name: &str| format!("openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:{name} -out key.pem");
    for (method, make) in [
        ("PS256", RSA.to_owned()),
        ("RS512", RSA.to_owned()),
        ("ES256", curve("P-256")),
        ("ES384", curve("P-384")),
        ("EdDSA", "openssl genpkey -algorithm ed25519 -out key.pem".to_owned()),
    ] {
        let (_server, api) = with_jwt(Kind::Etcfs, method, &make);
        let (_root, joe) = enabled(&api, &[(Type::Readwrite, "a", "")]);
        let head = joe.token().unwrap().split('.').next().unwrap().to_owned();
        let head = sh(std::path::Path::new("/"), &format!("echo {head}= | base64 -di 2>/dev/null")).stdout;
        assert!(head.contains(&format!("\"alg\":\"{method}\"")), "{method}: {head}");
        joe.set("a", "1");
        assert_eq!(joe.value("a").as_deref(), Some("1"), "{method}");
        // The signature's first letter: its last may have bits that say nothing.
        let (signed, signature) = joe.token().unwrap().rsplit_once('.').unwrap();
        let other = if signature.starts_with('A') { 'B' } else { 'A' };
        let forged = format!("{signed}.{other}{}", &signature[1..]);
        refused(api.with_token(&forged).range(get("a")), Code::Unauthenticated, BAD_TOKEN);
    }
}
