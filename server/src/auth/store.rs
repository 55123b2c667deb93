//! Users and roles as the log has made them, with etcd's rules for changing them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use etcfs_proto::{
    authpb::{Permission, Role, User, UserAddOptions},
    etcdserverpb::{
        AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
        AuthUserChangePasswordRequest, AuthUserGrantRoleRequest, AuthUserRevokeRoleRequest,
    },
    etcfs::{
        command::{IssueToken, request::Body},
        record::Meta,
    },
    key::KeyRange,
};
use parking_lot::{Mutex, RwLock};
use prost::Message as _;

use super::{AuthError, ROOT, Rights, tokens::Digest, tokens::Tokens};
use crate::storage::{
    Batch, Engine, StorageError, codec, engine, failpoint,
    keyspace::{self, ROLES, USERS},
};

/// The first state of users and roles has a number too.
const FIRST_REVISION: u64 = 1;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Nobody who said who he is; with authentication off, everybody.
    Nobody,
    User {
        name: Arc<str>,
        /// The state of users and roles that the caller's token speaks of; `None` for one that speaks of
        /// whatever there is.
        revision: Option<u64>,
    },
}

/// Read handle; clones share it.
#[derive(Clone, Default)]
pub struct Auth {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    // Beside the state, so that a request costs no lock while authentication is off.
    enabled: AtomicBool,
    revision: AtomicU64,
    /// Held while users and roles change and their revision with them; taken before `state`.
    moving: Mutex<()>,
    /// Held for a few lines, with no other lock taken under it.
    state: RwLock<State>,
    listener: Mutex<Option<Box<dyn Fn() + Send>>>,
}

#[derive(Debug, Default)]
struct State {
    users: BTreeMap<String, Entry>,
    roles: BTreeMap<String, Role>,
    tokens: Tokens,
}

#[derive(Debug)]
struct Entry {
    record: User,
    rights: Arc<Rights>,
}

impl Auth {
    pub fn is_enabled(&self) -> bool {
        self.shared.enabled.load(Ordering::Acquire)
    }

    /// Moves with every change of users and roles.
    pub fn revision(&self) -> u64 {
        self.shared.revision.load(Ordering::Acquire)
    }

    /// What the caller may do; `None` for everything, as authentication is off.
    pub fn rights_of(&self, caller: &Caller) -> Result<Option<Arc<Rights>>, AuthError> {
        if !self.is_enabled() {
            return Ok(None);
        }
        let Caller::User { name, revision } = caller else { return Err(AuthError::UserEmpty) };
        if revision.is_some_and(|revision| revision < self.revision()) {
            return Err(AuthError::OldRevision);
        }
        self.rights(name).map(Some)
    }

    /// What a user may do now, whatever state the caller's token speaks of.
    pub fn rights(&self, user: &str) -> Result<Arc<Rights>, AuthError> {
        let state = self.shared.state.read();
        state.users.get(user).map(|entry| Arc::clone(&entry.rights)).ok_or(AuthError::Denied)
    }

    /// The hash of a user's password; `None` for an unknown user.
    pub fn password_hash(&self, user: &str) -> Result<Option<Bytes>, AuthError> {
        let state = self.shared.state.read();
        match state.users.get(user) {
            None => Ok(None),
            Some(entry) if has_no_password(&entry.record) => Err(AuthError::NoPasswordUser),
            Some(entry) => Ok(Some(entry.record.password.clone())),
        }
    }

    pub fn users(&self) -> Vec<String> {
        self.shared.state.read().users.keys().cloned().collect()
    }

    pub fn roles_of(&self, user: &str) -> Result<Vec<String>, AuthError> {
        let state = self.shared.state.read();
        state.users.get(user).map(|entry| entry.record.roles.clone()).ok_or(AuthError::UserNotFound)
    }

    pub fn roles(&self) -> Vec<String> {
        self.shared.state.read().roles.keys().cloned().collect()
    }

    pub fn permissions(&self, role: &str) -> Result<Vec<Permission>, AuthError> {
        let state = self.shared.state.read();
        let found = state.roles.get(role).ok_or(AuthError::RoleNotFound)?;
        if role == ROOT {
            return Ok(vec![everything()]);
        }
        Ok(found.key_permission.clone())
    }

    /// Whose token it is, which counts as a use; `now` is never 0.
    pub fn token_user(&self, digest: &[u8; 32], now: u64, ttl: u64) -> Option<Arc<str>> {
        self.shared.state.read().tokens.user(digest, now, ttl)
    }

    /// Forgets tokens that nobody has used for `ttl`.
    pub fn sweep_tokens(&self, now: u64, ttl: u64) {
        self.shared.state.write().tokens.sweep(now, ttl);
    }

    /// Forgets all tokens, as a restart does.
    pub fn forget_tokens(&self) {
        self.shared.state.write().tokens.forget_all();
    }

    /// Has `listener` called after every change; by the thread that applies, so it must be quick.
    pub fn follow(&self, listener: Box<dyn Fn() + Send>) {
        *self.shared.listener.lock() = Some(listener);
    }

    /// A hash of the whole state but the tokens: alike on all members.
    pub fn hash(&self) -> u32 {
        let (revision, records) = self.fingerprint();
        let hash = crc32c::crc32c_append(records, &[u8::from(self.is_enabled())]);
        crc32c::crc32c_append(hash, &revision.to_be_bytes())
    }

    /// The revision and a hash of the users and roles at it. Whether authentication is on is not in it: that
    /// changes without the revision, so members could not be compared.
    pub fn fingerprint(&self) -> (u64, u32) {
        let _moving = self.shared.moving.lock();
        let state = self.shared.state.read();
        let mut hash = 0;
        for entry in state.users.values() {
            hash = crc32c::crc32c_append(hash, &entry.record.encode_to_vec());
        }
        for role in state.roles.values() {
            hash = crc32c::crc32c_append(hash, &role.encode_to_vec());
        }
        (self.revision(), hash)
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.read();
        f.debug_struct("Auth")
            .field("enabled", &self.is_enabled())
            .field("revision", &self.revision())
            .field("users", &state.users.len())
            .field("roles", &state.roles.len())
            .finish_non_exhaustive()
    }
}

/// The one writer of an [`Auth`].
#[derive(Debug, Default)]
pub struct AuthStore {
    handle: Auth,
}

impl AuthStore {
    /// To read by; clone it for others.
    pub fn handle(&self) -> &Auth {
        &self.handle
    }

    /// Replaces everything by what an image holds.
    pub fn load(&self, engine: &dyn Engine, meta: &Meta) -> Result<(), StorageError> {
        let mut state = State::default();
        for row in engine::all(engine, ROLES) {
            let (key, row) = row?;
            let role: Role = codec::decode(&key, row)?;
            state.roles.insert(text(&role.name), role);
        }
        for row in engine::all(engine, USERS) {
            let (key, row) = row?;
            let record: User = codec::decode(&key, row)?;
            state.users.insert(text(&record.name), Entry { record, rights: Arc::default() });
        }
        state.recount(|_| true);
        let shared = &self.handle.shared;
        let moving = shared.moving.lock();
        *shared.state.write() = state;
        shared.revision.store(meta.auth_revision.max(FIRST_REVISION), Ordering::Release);
        shared.enabled.store(meta.auth_enabled, Ordering::Release);
        drop(moving);
        self.tell();
        Ok(())
    }

    /// Carries out a command about users and roles; `None` for another.
    pub fn apply(&self, body: &Body, batch: &mut Batch, meta: &mut Meta) -> Option<Result<(), AuthError>> {
        let moving = self.handle.shared.moving.lock();
        let changed = match body {
            Body::AuthEnable(_) => self.enable(meta).map(|()| false),
            Body::AuthDisable(_) => Ok(self.disable(meta)),
            Body::UserAdd(request) => self.user_add(request, batch),
            Body::UserDelete(request) => self.user_delete(&request.name, batch),
            Body::UserChangePassword(request) => self.user_change_password(request, batch),
            Body::UserGrantRole(request) => self.user_grant_role(request, batch),
            Body::UserRevokeRole(request) => self.user_revoke_role(request, batch),
            Body::RoleAdd(request) => self.role_add(&request.name, batch),
            Body::RoleDelete(request) => self.role_delete(&request.role, batch),
            Body::RoleGrantPermission(request) => self.role_grant_permission(request, batch),
            Body::RoleRevokePermission(request) => self.role_revoke_permission(request, batch),
            Body::IssueToken(request) => return Some(self.issue_token(request)),
            _ => return None,
        };
        Some(changed.map(|changed| {
            if changed {
                let revision = &self.handle.shared.revision;
                let next = revision.load(Ordering::Acquire).max(FIRST_REVISION) + 1;
                revision.store(next, Ordering::Release);
                meta.auth_revision = next;
            }
            drop(moving);
            self.tell();
        }))
    }

    fn enable(&self, meta: &mut Meta) -> Result<(), AuthError> {
        let state = self.handle.shared.state.read();
        let root = state.users.get(ROOT).ok_or(AuthError::RootUserMissing)?;
        if !root.record.roles.iter().any(|role| role == ROOT) {
            return Err(AuthError::RootRoleMissing);
        }
        drop(state);
        self.handle.shared.enabled.store(true, Ordering::Release);
        meta.auth_enabled = true;
        meta.auth_revision = self.handle.revision().max(FIRST_REVISION);
        Ok(())
    }

    fn disable(&self, meta: &mut Meta) -> bool {
        meta.auth_enabled = false;
        self.handle.shared.state.write().tokens.forget_all();
        self.handle.shared.enabled.swap(false, Ordering::AcqRel)
    }

    fn user_add(&self, request: &AuthUserAddRequest, batch: &mut Batch) -> Result<bool, AuthError> {
        if request.name.is_empty() {
            return Err(AuthError::UserEmpty);
        }
        let mut state = self.handle.shared.state.write();
        if state.users.contains_key(&request.name) {
            return Err(AuthError::UserExists);
        }
        let no_password = request.options.is_some_and(|options| options.no_password);
        let password =
            if no_password { Bytes::new() } else { request.hashed_password.clone().into_bytes().into() };
        let password = failpoint::spoil("auth-spoil-password", password);
        let record = User {
            name: request.name.clone().into_bytes().into(),
            password,
            roles: Vec::new(),
            options: Some(UserAddOptions { no_password }),
        };
        batch.put(keyspace::user(&request.name), codec::encode(&record));
        state.users.insert(request.name.clone(), Entry { record, rights: Arc::default() });
        Ok(true)
    }

    fn user_delete(&self, name: &str, batch: &mut Batch) -> Result<bool, AuthError> {
        if self.handle.is_enabled() && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        let mut state = self.handle.shared.state.write();
        state.users.remove(name).ok_or(AuthError::UserNotFound)?;
        state.tokens.forget(name);
        batch.delete(keyspace::user(name));
        Ok(true)
    }

    fn user_change_password(
        &self,
        request: &AuthUserChangePasswordRequest,
        batch: &mut Batch,
    ) -> Result<bool, AuthError> {
        let mut state = self.handle.shared.state.write();
        let entry = state.users.get_mut(&request.name).ok_or(AuthError::UserNotFound)?;
        if !has_no_password(&entry.record) {
            entry.record.password = request.hashed_password.clone().into_bytes().into();
        }
        batch.put(keyspace::user(&request.name), codec::encode(&entry.record));
        state.tokens.forget(&request.name);
        Ok(true)
    }

    fn user_grant_role(
        &self,
        request: &AuthUserGrantRoleRequest,
        batch: &mut Batch,
    ) -> Result<bool, AuthError> {
        let AuthUserGrantRoleRequest { user, role } = request;
        let mut state = self.handle.shared.state.write();
        let known = role == ROOT || state.roles.contains_key(role);
        let entry = state.users.get_mut(user).ok_or(AuthError::UserNotFound)?;
        if !known {
            return Err(AuthError::RoleNotFound);
        }
        let Err(place) = entry.record.roles.binary_search(role) else { return Ok(false) };
        entry.record.roles.insert(place, role.clone());
        batch.put(keyspace::user(user), codec::encode(&entry.record));
        state.recount(|record| record.name == user.as_bytes());
        Ok(true)
    }

    fn user_revoke_role(
        &self,
        request: &AuthUserRevokeRoleRequest,
        batch: &mut Batch,
    ) -> Result<bool, AuthError> {
        let AuthUserRevokeRoleRequest { name, role } = request;
        if self.handle.is_enabled() && name == ROOT && role == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        let mut state = self.handle.shared.state.write();
        let entry = state.users.get_mut(name).ok_or(AuthError::UserNotFound)?;
        let place = entry.record.roles.binary_search(role).map_err(|_| AuthError::RoleNotGranted)?;
        entry.record.roles.remove(place);
        batch.put(keyspace::user(name), codec::encode(&entry.record));
        state.recount(|record| record.name == name.as_bytes());
        Ok(true)
    }

    fn role_add(&self, name: &str, batch: &mut Batch) -> Result<bool, AuthError> {
        if name.is_empty() {
            return Err(AuthError::RoleEmpty);
        }
        let mut state = self.handle.shared.state.write();
        if state.roles.contains_key(name) {
            return Err(AuthError::RoleExists);
        }
        let role = Role { name: name.to_owned().into_bytes().into(), key_permission: Vec::new() };
        batch.put(keyspace::role(name), codec::encode(&role));
        state.roles.insert(name.to_owned(), role);
        Ok(true)
    }

    fn role_delete(&self, name: &str, batch: &mut Batch) -> Result<bool, AuthError> {
        if self.handle.is_enabled() && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        let mut state = self.handle.shared.state.write();
        state.roles.remove(name).ok_or(AuthError::RoleNotFound)?;
        batch.delete(keyspace::role(name));
        let mut lost: Vec<Bytes> = Vec::new();
        for (user, entry) in &mut state.users {
            if let Ok(place) = entry.record.roles.binary_search_by(|role| role.as_str().cmp(name)) {
                entry.record.roles.remove(place);
                batch.put(keyspace::user(user), codec::encode(&entry.record));
                lost.push(entry.record.name.clone());
            }
        }
        state.recount(|record| lost.contains(&record.name));
        Ok(true)
    }

    fn role_grant_permission(
        &self,
        request: &AuthRoleGrantPermissionRequest,
        batch: &mut Batch,
    ) -> Result<bool, AuthError> {
        let granted = request.perm.as_ref().ok_or(AuthError::PermissionNotGiven)?;
        if granted.key.is_empty() || KeyRange::from_request(&granted.key, &granted.range_end).is_empty() {
            return Err(AuthError::InvalidManagement);
        }
        let mut state = self.handle.shared.state.write();
        let role = state.roles.get_mut(&request.name).ok_or(AuthError::RoleNotFound)?;
        let same = |held: &&mut Permission| held.key == granted.key && held.range_end == granted.range_end;
        match role.key_permission.iter_mut().find(same) {
            Some(held) if held.perm_type == granted.perm_type => return Ok(false),
            Some(held) => held.perm_type = granted.perm_type,
            None => {
                role.key_permission.push(granted.clone());
                role.key_permission.sort_by(|one, other| one.key.cmp(&other.key));
            }
        }
        batch.put(keyspace::role(&request.name), codec::encode(role));
        state.recount(|record| record.roles.contains(&request.name));
        Ok(true)
    }

    fn role_revoke_permission(
        &self,
        request: &AuthRoleRevokePermissionRequest,
        batch: &mut Batch,
    ) -> Result<bool, AuthError> {
        let mut state = self.handle.shared.state.write();
        let role = state.roles.get_mut(&request.role).ok_or(AuthError::RoleNotFound)?;
        let held = role.key_permission.len();
        role.key_permission.retain(|held| held.key != request.key || held.range_end != request.range_end);
        if role.key_permission.len() == held {
            return Err(AuthError::PermissionNotGranted);
        }
        batch.put(keyspace::role(&request.role), codec::encode(role));
        state.recount(|record| record.roles.contains(&request.role));
        Ok(true)
    }

    /// Not a change of users or roles: the revision stays.
    fn issue_token(&self, request: &IssueToken) -> Result<(), AuthError> {
        if !self.handle.is_enabled() {
            return Err(AuthError::NotEnabled);
        }
        if request.auth_revision != self.handle.revision() {
            return Err(AuthError::OldRevision);
        }
        let digest: Digest = request.sha256.as_ref().try_into().map_err(|_| AuthError::InvalidToken)?;
        let mut state = self.handle.shared.state.write();
        if !state.users.contains_key(&request.user) {
            return Err(AuthError::Failed);
        }
        state.tokens.issue(digest, &request.user);
        Ok(())
    }

    fn tell(&self) {
        if let Some(listener) = &*self.handle.shared.listener.lock() {
            listener();
        }
    }
}

impl State {
    /// Works out anew what the users whom `which` names may do.
    fn recount(&mut self, which: impl Fn(&User) -> bool) {
        for entry in self.users.values_mut().filter(|entry| which(&entry.record)) {
            let mut rights = Rights::default();
            rights.root = entry.record.roles.iter().any(|role| role == ROOT);
            for role in entry.record.roles.iter().filter_map(|role| self.roles.get(role)) {
                role.key_permission.iter().for_each(|permission| rights.add(permission));
            }
            entry.rights = Arc::new(rights);
        }
    }
}

fn has_no_password(user: &User) -> bool {
    user.options.is_some_and(|options| options.no_password)
}

/// What the role root holds, as etcd shows it.
fn everything() -> Permission {
    Permission {
        perm_type: etcfs_proto::authpb::permission::Type::Readwrite as i32,
        key: Bytes::new(),
        range_end: Bytes::from_static(etcfs_proto::key::TO_END),
    }
}

fn text(name: &Bytes) -> String {
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests {
    use etcfs_proto::{
        authpb::permission,
        etcdserverpb::{
            AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleDeleteRequest,
            AuthUserDeleteRequest,
        },
    };

    use super::*;
    use crate::{auth::Access, storage::MemoryEngine};

    #[derive(Default)]
    struct Fixture {
        store: AuthStore,
        meta: Meta,
        engine: MemoryEngine,
    }

    impl Fixture {
        fn apply(&mut self, body: Body) -> Result<(), AuthError> {
            let mut batch = Batch::default();
            let done = self.store.apply(&body, &mut batch, &mut self.meta).expect("a command of ours");
            self.engine.write(&batch).expect("memory does not fail");
            done
        }

        fn user(&mut self, name: &str) -> Result<(), AuthError> {
            let request = AuthUserAddRequest {
                name: name.into(),
                hashed_password: "hash".into(),
                ..Default::default()
            };
            self.apply(Body::UserAdd(request))
        }

        fn grant(&mut self, user: &str, role: &str) -> Result<(), AuthError> {
            self.apply(Body::UserGrantRole(AuthUserGrantRoleRequest { user: user.into(), role: role.into() }))
        }

        fn role(&mut self, name: &str) -> Result<(), AuthError> {
            self.apply(Body::RoleAdd(AuthRoleAddRequest { name: name.into() }))
        }

        fn permit(&mut self, role: &str, key: &str, end: &str) -> Result<(), AuthError> {
            let perm_type = permission::Type::Read as i32;
            let perm = Permission { perm_type, key: key.to_owned().into(), range_end: end.to_owned().into() };
            let name = role.into();
            self.apply(Body::RoleGrantPermission(AuthRoleGrantPermissionRequest { name, perm: Some(perm) }))
        }

        fn may_read(&self, user: &str, key: &str) -> bool {
            let rights = self.store.handle().rights(user);
            rights.is_ok_and(|rights| rights.permit(Access::Read, &key.to_owned().into(), &Bytes::new()))
        }

        fn enabled() -> Self {
            let mut fixture = Self::default();
            fixture.store.load(&MemoryEngine::new(), &Meta::default()).expect("empty");
            fixture.user("root").unwrap();
            fixture.grant("root", "root").unwrap();
            fixture.apply(Body::AuthEnable(AuthEnableRequest {})).unwrap();
            fixture
        }
    }

    #[test]
    fn it_is_enabled_only_with_a_root_that_nobody_can_take_away() {
        let mut fixture = Fixture::default();
        let enable = || Body::AuthEnable(AuthEnableRequest {});
        assert_eq!(fixture.apply(enable()), Err(AuthError::RootUserMissing));
        fixture.user("root").unwrap();
        assert_eq!(fixture.apply(enable()), Err(AuthError::RootRoleMissing));
        fixture.grant("root", "root").unwrap();
        assert_eq!((fixture.apply(enable()), fixture.apply(enable())), (Ok(()), Ok(())));
        let delete = || Body::UserDelete(AuthUserDeleteRequest { name: "root".into() });
        assert_eq!(fixture.apply(delete()), Err(AuthError::InvalidManagement));
        let revoke = AuthUserRevokeRoleRequest { name: "root".into(), role: "root".into() };
        assert_eq!(fixture.apply(Body::UserRevokeRole(revoke)), Err(AuthError::InvalidManagement));
        fixture.role("root").unwrap();
        let role = AuthRoleDeleteRequest { role: "root".into() };
        assert_eq!(fixture.apply(Body::RoleDelete(role)), Err(AuthError::InvalidManagement));
        fixture.apply(Body::AuthDisable(AuthDisableRequest {})).unwrap();
        assert_eq!(fixture.apply(delete()), Ok(()));
    }

    #[test]
    fn each_change_moves_the_revision_and_none_does_not() {
        let mut fixture = Fixture::enabled();
        let auth = fixture.store.handle().clone();
        let mut last = auth.revision();
        let mut moved = |auth: &Auth| std::mem::replace(&mut last, auth.revision()) != auth.revision();
        fixture.role("r").unwrap();
        assert!(moved(&auth));
        fixture.user("u").unwrap();
        assert!(moved(&auth));
        fixture.grant("u", "r").unwrap();
        assert!(moved(&auth));
        fixture.grant("u", "r").unwrap();
        assert!(!moved(&auth), "it was granted before");
        fixture.permit("r", "a", "").unwrap();
        assert!(moved(&auth));
        assert_eq!(fixture.grant("u", "nobody's"), Err(AuthError::RoleNotFound));
        assert!(!moved(&auth));
        let caller = |revision| Caller::User { name: "u".into(), revision };
        assert!(auth.rights_of(&caller(Some(auth.revision()))).is_ok());
        let old = auth.rights_of(&caller(Some(auth.revision() - 1)));
        assert_eq!(old.expect_err("of an older state"), AuthError::OldRevision);
    }

    #[test]
    fn rights_come_and_go_with_roles_and_survive_a_restart() {
        let mut fixture = Fixture::enabled();
        fixture.user("u").unwrap();
        fixture.role("r").unwrap();
        fixture.permit("r", "a", "c").unwrap();
        assert!(!fixture.may_read("u", "b"));
        fixture.grant("u", "r").unwrap();
        assert!(fixture.may_read("u", "b"));
        let again = AuthStore::default();
        again.load(&fixture.engine, &fixture.meta).expect("rows are whole");
        assert_eq!(again.handle().hash(), fixture.store.handle().hash());
        assert!(again.handle().is_enabled() && again.handle().rights("root").unwrap().is_root());
        let (key, range_end) = (Bytes::from("a"), Bytes::from("c"));
        let revoke = AuthRoleRevokePermissionRequest { role: "r".into(), key, range_end };
        fixture.apply(Body::RoleRevokePermission(revoke.clone())).unwrap();
        assert!(!fixture.may_read("u", "b"));
        assert_eq!(fixture.apply(Body::RoleRevokePermission(revoke)), Err(AuthError::PermissionNotGranted));
        fixture.permit("r", "b", "").unwrap();
        assert!(fixture.may_read("u", "b"));
        fixture.apply(Body::RoleDelete(AuthRoleDeleteRequest { role: "r".into() })).unwrap();
        assert!(!fixture.may_read("u", "b"));
        assert_eq!(fixture.store.handle().roles_of("u").unwrap(), [""; 0]);
    }

    #[test]
    fn a_token_is_for_the_state_that_its_password_was_checked_in() {
        let mut fixture = Fixture::enabled();
        let auth = fixture.store.handle().clone();
        let issue = |auth_revision| {
            let sha256 = crate::auth::digest("word").to_vec().into();
            Body::IssueToken(IssueToken { user: "root".into(), auth_revision, sha256 })
        };
        assert_eq!(fixture.apply(issue(auth.revision() - 1)), Err(AuthError::OldRevision));
        fixture.apply(issue(auth.revision())).unwrap();
        let user = |auth: &Auth| auth.token_user(&crate::auth::digest("word"), 1, 100);
        assert_eq!(user(&auth).as_deref(), Some("root"));
        let request = AuthUserChangePasswordRequest { name: "root".into(), ..Default::default() };
        fixture.apply(Body::UserChangePassword(request)).unwrap();
        assert_eq!(user(&auth), None, "another password, other tokens");
    }

    #[test]
    fn a_right_must_be_on_something() {
        let mut fixture = Fixture::enabled();
        fixture.role("r").unwrap();
        for (key, end) in [("", ""), ("", "\0"), ("b", "a"), ("b", "b")] {
            assert_eq!(fixture.permit("r", key, end), Err(AuthError::InvalidManagement), "{key:?} {end:?}");
        }
        for end in ["", "c", "\0"] {
            fixture.permit("r", "b", end).unwrap();
        }
        assert_eq!(fixture.store.handle().permissions("r").unwrap().len(), 3);
    }
}
