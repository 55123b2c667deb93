//! Passwords as they are kept: bcrypt, so that guessing one takes time.

use super::AuthError;

/// bcrypt looks at no more; a longer one is refused rather than cut.
pub const PASSWORD_BYTES_MAX: usize = 72;

/// A hash of no password, for the time it takes to compare with one.
const NOBODYS: &[u8] = b"$2b$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";

/// The hash to propose and to store. Takes tens of milliseconds, and more with
/// each step of `cost`. `None` for a password that is too long.
pub fn hash_password(password: &str, cost: u32) -> Option<String> {
    bcrypt::non_truncating_hash(password, cost).ok()
}

/// Whether a password is the one that was hashed. `None` stands for a user who
/// does not exist; finding out takes as long as with any other.
pub fn is_password(password: &str, hash: Option<&[u8]>) -> Result<(), AuthError> {
    let kept = std::str::from_utf8(hash.unwrap_or(NOBODYS)).unwrap_or_default();
    let same = bcrypt::non_truncating_verify(password, kept).unwrap_or(false);
    if same && hash.is_some() { Ok(()) } else { Err(AuthError::Failed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least that bcrypt takes.
    const CHEAP: u32 = 4;

    #[test]
    fn a_password_is_known_by_its_hash_alone() {
        let hash = hash_password("secret", CHEAP).unwrap();
        assert!(!hash.contains("secret"));
        assert_eq!(is_password("secret", Some(hash.as_bytes())), Ok(()));
        assert_eq!(is_password("Secret", Some(hash.as_bytes())), Err(AuthError::Failed));
        assert_eq!(is_password("secret", Some(b"nonsense")), Err(AuthError::Failed));
        assert_eq!(is_password("secret", None), Err(AuthError::Failed));
    }

    #[test]
    fn a_password_is_never_cut() {
        assert!(hash_password(&"x".repeat(PASSWORD_BYTES_MAX + 1), CHEAP).is_none());
        assert!(bcrypt::non_truncating_verify("x", std::str::from_utf8(NOBODYS).unwrap()).is_ok());
    }
}
