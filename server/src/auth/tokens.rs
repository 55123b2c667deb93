//! Simple tokens: random words that stand for a user until they lie unused.
//!
//! Kept by their digest, in memory alone: a restart forgets them all, and
//! clients log in again. Issuing comes from the log; when a token was used is
//! each member's own affair, told in milliseconds of whatever clock the caller
//! has.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use sha2::{Digest as _, Sha256};

/// Tokens kept; the oldest goes when there is one more.
const TOKENS_MAX: usize = 100_000;

pub(super) type Digest = [u8; 32];

/// By which a token is known.
pub fn digest(token: &str) -> Digest {
    Sha256::digest(token.as_bytes()).into()
}

#[derive(Debug, Default)]
pub(super) struct Tokens {
    by_digest: HashMap<Digest, Token>,
    /// Those issued, oldest first; some may be gone.
    order: VecDeque<Digest>,
}

#[derive(Debug)]
struct Token {
    user: Arc<str>,
    /// When it was used last; 0 for a new one.
    used: AtomicU64,
}

impl Tokens {
    pub(super) fn issue(&mut self, digest: Digest, user: &str) {
        self.by_digest.insert(digest, Token { user: user.into(), used: AtomicU64::new(0) });
        self.order.push_back(digest);
        while self.order.len() > TOKENS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.by_digest.remove(&oldest);
            }
        }
    }

    /// Whose token it is, which counts as a use.
    pub(super) fn user(&self, digest: &Digest, now: u64, ttl: u64) -> Option<Arc<str>> {
        let token = self.by_digest.get(digest)?;
        if token.is_over(now, ttl) {
            return None;
        }
        token.used.store(now, Ordering::Relaxed);
        Some(Arc::clone(&token.user))
    }

    /// Ends what lies unused, and begins the time of what is new.
    pub(super) fn sweep(&mut self, now: u64, ttl: u64) {
        self.by_digest.retain(|_, token| !token.is_over(now, ttl));
        for token in self.by_digest.values() {
            // A user may be faster, with about the same time.
            let _was_used = token.used.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        }
        self.order.retain(|digest| self.by_digest.contains_key(digest));
    }

    pub(super) fn forget(&mut self, user: &str) {
        self.by_digest.retain(|_, token| token.user.as_ref() != user);
    }

    pub(super) fn forget_all(&mut self) {
        *self = Self::default();
    }
}

impl Token {
    fn is_over(&self, now: u64, ttl: u64) -> bool {
        match self.used.load(Ordering::Relaxed) {
            0 => false,
            used => now.saturating_sub(used) > ttl,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lasts_while_it_is_used_and_no_longer() {
        let mut tokens = Tokens::default();
        let token = digest("word");
        tokens.issue(token, "joe");
        let user = |tokens: &Tokens, now| tokens.user(&token, now, 100).map(|user| user.to_string());
        assert_eq!(user(&tokens, 1), Some("joe".into()));
        assert_eq!(user(&tokens, 101), Some("joe".into()), "each use begins its time anew");
        assert_eq!(user(&tokens, 202), None);
        assert_eq!(tokens.user(&digest("another"), 1, 100), None);
    }

    #[test]
    fn one_that_nobody_uses_is_swept_away() {
        let mut tokens = Tokens::default();
        tokens.issue(digest("word"), "joe");
        tokens.sweep(1000, 100);
        assert_eq!(tokens.by_digest.len(), 1, "its time begins now");
        tokens.sweep(1101, 100);
        assert_eq!((tokens.by_digest.len(), tokens.order.len()), (0, 0));
    }

    #[test]
    fn a_user_who_is_gone_has_none_and_the_oldest_give_way() {
        let mut tokens = Tokens::default();
        for n in 0..=TOKENS_MAX {
            tokens.issue(digest(&n.to_string()), if n == 7 { "jane" } else { "joe" });
        }
        assert!(tokens.user(&digest("0"), 1, 100).is_none());
        assert!(tokens.user(&digest("1"), 1, 100).is_some());
        tokens.forget("joe");
        assert_eq!(tokens.by_digest.len(), 1);
        tokens.forget_all();
        assert!(tokens.user(&digest("7"), 1, 100).is_none());
    }
}
