//! From a password to a token, and from a token to who asks.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use etcfs_proto::etcfs::command::{IssueToken, Request, request::Body};
use tokio::{sync::Semaphore, time};
use tokio_util::sync::CancellationToken;

use super::Refusal;
use crate::{
    auth::{Auth, AuthError, Caller, Jwt, digest, hash_password, is_password},
    propose::{ApplyError, Members, ProposeError, Proposer, ReadBarrier},
};

/// Passwords that are hashed at a time: guessing must not take all processors.
const HASHING_MAX: usize = 2;
/// Letters of a simple token; 95 bits of chance.
const TOKEN_LETTERS: usize = 16;
/// A login is tried again when users change meanwhile, but not for ever.
const LOGIN_ATTEMPTS: usize = 5;
/// Below it a password is easily guessed; it is taken, with a warning.
const PASSWORD_ADVISED_BYTES: usize = 8;

/// How tokens are made.
#[derive(Clone, Debug)]
pub enum TokenKind {
    /// Random words that members remember, until one lies unused for so long.
    Simple {
        ttl: Duration,
    },
    Jwt(Arc<Jwt>),
}

/// Logins and passwords; clones share them.
#[derive(Clone, Debug)]
pub struct Logins {
    auth: Auth,
    proposer: Proposer,
    barrier: ReadBarrier,
    members: Members,
    kind: TokenKind,
    bcrypt_cost: u32,
    password_min_bytes: usize,
    hashing: Arc<Semaphore>,
    /// From which the age of tokens counts.
    epoch: Instant,
}

impl Logins {
    pub fn new(
        auth: Auth,
        proposer: Proposer,
        barrier: ReadBarrier,
        members: Members,
        kind: TokenKind,
        bcrypt_cost: u32,
        password_min_bytes: usize,
    ) -> Self {
        // What the log's replay has brought back is of before a restart.
        auth.forget_tokens();
        let (hashing, epoch) = (Arc::new(Semaphore::new(HASHING_MAX)), Instant::now());
        Self { auth, proposer, barrier, members, kind, bcrypt_cost, password_min_bytes, hashing, epoch }
    }

    /// Who a token, or the certificate of a connection, says that the caller is. A token wins.
    pub async fn caller(&self, token: Option<&str>, certificate: Option<&str>) -> Result<Caller, Refusal> {
        if !self.auth.is_enabled() {
            return Ok(Caller::Nobody);
        }
        match (token, certificate) {
            (Some(token), _) => self.of_token(token).await,
            (None, Some(name)) => Ok(Caller::User { name: name.into(), revision: None }),
            (None, None) => Ok(Caller::Nobody),
        }
    }

    async fn of_token(&self, token: &str) -> Result<Caller, Refusal> {
        match &self.kind {
            TokenKind::Jwt(jwt) => {
                let (user, revision) = jwt.check(token, unix_time())?;
                Ok(Caller::User { name: user.into(), revision: Some(revision) })
            }
            TokenKind::Simple { ttl } => {
                let token_digest = digest(token);
                let look = || self.auth.token_user(&token_digest, self.now(), millis(*ttl));
                let mut user = look();
                if user.is_none() && self.is_from_ahead(token) {
                    // Made by another member just now: what it did is not applied here yet.
                    self.barrier.wait().await?;
                    user = look();
                }
                let name = user.ok_or(AuthError::InvalidToken)?;
                Ok(Caller::User { name, revision: None })
            }
        }
    }

    /// A token says up to which entry its maker had applied the log.
    fn is_from_ahead(&self, token: &str) -> bool {
        let index = token.rsplit_once('.').and_then(|(_, index)| index.parse::<u64>().ok());
        index.is_some_and(|index| index > self.members.status().applied_index)
    }

    /// A token for a user who knows his password.
    pub(super) async fn login(&self, user: &str, password: String) -> Result<String, Refusal> {
        if !self.auth.is_enabled() {
            return Err(Refusal::AuthNotEnabled);
        }
        for _ in 0..LOGIN_ATTEMPTS {
            let revision = self.auth.revision();
            self.check_password(user, password.clone()).await?;
            match &self.kind {
                TokenKind::Jwt(jwt) => {
                    return jwt.sign(user, revision, unix_time()).ok_or(Refusal::NoSigningKey);
                }
                TokenKind::Simple { .. } => {
                    let letters: String = (0..TOKEN_LETTERS).map(|_| letter()).collect();
                    // The suffix lets a member that lags know that it does.
                    let token = format!("{letters}.{}", self.members.status().applied_index + 1);
                    let sha256 = digest(&token).to_vec().into();
                    let body = Body::IssueToken(IssueToken {
                        user: user.to_owned(),
                        auth_revision: revision,
                        sha256,
                    });
                    match self.proposer.write(Request { body: Some(body) }).await {
                        Ok(_) => return Ok(token),
                        Err(ProposeError::Apply(ApplyError::Auth(AuthError::OldRevision))) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
        Err(Refusal::AuthOldRevision)
    }

    async fn check_password(&self, user: &str, password: String) -> Result<(), Refusal> {
        let hash = self.auth.password_hash(user)?;
        let checked = self.hashing(move || is_password(&password, hash.as_deref())).await?;
        checked.map_err(|error| {
            tracing::warn!(user, "a login was refused");
            error.into()
        })
    }

    /// The hash under which a new password is proposed.
    pub(super) async fn hash(&self, user: &str, password: String) -> Result<String, Refusal> {
        if password.len() < self.password_min_bytes {
            return Err(Refusal::PasswordTooShort);
        }
        if password.len() < PASSWORD_ADVISED_BYTES {
            tracing::warn!(user, "the new password has fewer than {PASSWORD_ADVISED_BYTES} characters");
        }
        let cost = self.bcrypt_cost;
        self.hashing(move || hash_password(&password, cost)).await?.ok_or(Refusal::PasswordTooLong)
    }

    async fn hashing<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let _turn = self.hashing.acquire().await.expect("the semaphore is never closed");
        tokio::task::spawn_blocking(work).await.map_err(|_| Refusal::Stopped)
    }

    /// Forgets tokens that lie unused, until `shutdown`.
    pub async fn sweep(self, shutdown: CancellationToken) {
        let TokenKind::Simple { ttl } = self.kind else { return };
        let mut ticks = time::interval((ttl / 4).max(Duration::from_millis(500)));
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            self.auth.sweep_tokens(self.now(), millis(ttl));
        }
    }

    /// Milliseconds since this member began, and never 0.
    fn now(&self) -> u64 {
        millis(self.epoch.elapsed()) + 1
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::UserEmpty => Self::UserEmpty,
            AuthError::RoleEmpty => Self::RoleEmpty,
            AuthError::Failed => Self::AuthFailed,
            AuthError::NoPasswordUser => Self::NoPasswordUser,
            AuthError::PermissionNotGiven => Self::PermissionNotGiven,
            AuthError::InvalidManagement => Self::InvalidAuthManagement,
            AuthError::OldRevision => Self::AuthOldRevision,
            AuthError::RootUserMissing => Self::RootUserMissing,
            AuthError::RootRoleMissing => Self::RootRoleMissing,
            AuthError::UserExists => Self::UserExists,
            AuthError::UserNotFound => Self::UserNotFound,
            AuthError::RoleExists => Self::RoleExists,
            AuthError::RoleNotFound => Self::RoleNotFound,
            AuthError::RoleNotGranted => Self::RoleNotGranted,
            AuthError::PermissionNotGranted => Self::PermissionNotGranted,
            AuthError::NotEnabled => Self::AuthNotEnabled,
            AuthError::Denied => Self::PermissionDenied,
            AuthError::InvalidToken => Self::InvalidToken,
        }
    }
}

fn letter() -> char {
    let nth: u8 = rand::random_range(0..52);
    char::from(if nth < 26 { b'a' + nth } else { b'A' + nth - 26 })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
