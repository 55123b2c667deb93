//! Tokens that carry their user: signed, so that no member has to remember them.

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::AuthError;

/// The keys that tokens are signed and checked with.
#[derive(Clone)]
pub struct Jwt {
    algorithm: Algorithm,
    /// None for a member that only checks what others sign.
    sign: Option<EncodingKey>,
    check: DecodingKey,
    ttl: Duration,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    username: String,
    revision: u64,
    /// Seconds since 1970.
    exp: u64,
}

/// Key material as it lies in files.
#[derive(Debug)]
pub struct JwtKeys<'a> {
    /// `HS256`, `RS384`, `ES256`, `PS512`, `EdDSA` and their like.
    pub method: &'a str,
    /// PEM, or for `HS...` the secret itself.
    pub private: Option<&'a [u8]>,
    pub public: Option<&'a [u8]>,
    pub ttl: Duration,
}

impl Jwt {
    /// The error says what is wrong with which key.
    pub fn new(keys: &JwtKeys<'_>) -> Result<Self, String> {
        let algorithm: Algorithm = keys.method.parse().map_err(|_| {
            format!("{} is no method to sign with; use RS256, ES256, HS256 or EdDSA", keys.method)
        })?;
        let bad = |which: &str, error: jsonwebtoken::errors::Error| {
            format!("the {which} does not fit {}: {error}", keys.method)
        };
        let (private, public) = (keys.private, keys.public);
        let sign = private
            .map(|key| match keys.method.as_bytes()[0] {
                b'H' => Ok(EncodingKey::from_secret(key)),
                b'R' | b'P' => EncodingKey::from_rsa_pem(key),
                b'E' if keys.method == "EdDSA" => EncodingKey::from_ed_pem(key),
                _ => EncodingKey::from_ec_pem(key),
            })
            .transpose()
            .map_err(|error| bad("private key", error))?;
        let check = match (keys.method.as_bytes()[0], private, public) {
            (b'H', Some(secret), _) => Ok(DecodingKey::from_secret(secret)),
            (b'H', None, _) => return Err(format!("{} needs priv-key, the file of its secret", keys.method)),
            (_, _, None) => return Err("pub-key, the file to check tokens with, is missing".into()),
            (b'R' | b'P', _, Some(key)) => DecodingKey::from_rsa_pem(key),
            (_, _, Some(key)) if keys.method == "EdDSA" => DecodingKey::from_ed_pem(key),
            (_, _, Some(key)) => DecodingKey::from_ec_pem(key),
        }
        .map_err(|error| bad("public key", error))?;
        Ok(Self { algorithm, sign, check, ttl: keys.ttl })
    }

    /// A token for `user`; `None` where there is no key to sign with.
    pub fn sign(&self, user: &str, revision: u64, now: Duration) -> Option<String> {
        let key = self.sign.as_ref()?;
        let claims = Claims { username: user.to_owned(), revision, exp: (now + self.ttl).as_secs() };
        jsonwebtoken::encode(&Header::new(self.algorithm), &claims, key)
            .inspect_err(|error| tracing::error!(%error, "could not sign a token"))
            .ok()
    }

    /// The user whom a token names, and the state of users and roles that it speaks of.
    pub fn check(&self, token: &str, now: Duration) -> Result<(String, u64), AuthError> {
        let mut validation = Validation::new(self.algorithm);
        // By the caller's clock, below.
        validation.validate_exp = false;
        validation.required_spec_claims.clear();
        let checked = jsonwebtoken::decode::<Claims>(token, &self.check, &validation);
        let claims = checked.map_err(|_| AuthError::InvalidToken)?.claims;
        if claims.exp <= now.as_secs() {
            return Err(AuthError::InvalidToken);
        }
        Ok((claims.username, claims.revision))
    }
}

impl std::fmt::Debug for Jwt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jwt")
            .field("algorithm", &self.algorithm)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(60);
    const NOW: Duration = Duration::from_secs(1_700_000_000);

    fn shared(secret: &[u8]) -> Jwt {
        Jwt::new(&JwtKeys { method: "HS256", private: Some(secret), public: None, ttl: TTL }).unwrap()
    }

    #[test]
    fn a_token_names_its_user_until_its_end() {
        let jwt = shared(b"one secret");
        let token = jwt.sign("joe", 7, NOW).unwrap();
        assert_eq!(jwt.check(&token, NOW + TTL - Duration::from_secs(1)), Ok(("joe".into(), 7)));
        assert_eq!(jwt.check(&token, NOW + TTL), Err(AuthError::InvalidToken));
    }

    #[test]
    fn what_another_key_or_method_signed_is_no_token() {
        let jwt = shared(b"one secret");
        let foreign = shared(b"another").sign("root", 7, NOW).unwrap();
        assert_eq!(jwt.check(&foreign, NOW), Err(AuthError::InvalidToken));
        // {"alg":"none","typ":"JWT"} with claims and no signature.
        let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJ1c2VybmFtZSI6InJvb3QifQ.";
        assert_eq!(jwt.check(none, NOW), Err(AuthError::InvalidToken));
        assert_eq!(jwt.check("", NOW), Err(AuthError::InvalidToken));
    }

    #[test]
    fn keys_that_do_not_fit_are_told_of() {
        let new = |method, private, public| Jwt::new(&JwtKeys { method, private, public, ttl: TTL });
        assert!(new("HS999", Some(&b"x"[..]), None).unwrap_err().contains("HS999"));
        assert!(new("HS256", None, None).unwrap_err().contains("priv-key"));
        assert!(new("RS256", None, None).unwrap_err().contains("pub-key"));
        assert!(new("RS256", None, Some(b"no pem")).unwrap_err().contains("public key"));
        assert!(new("ES256", Some(&b"no pem"[..]), None).unwrap_err().contains("private key"));
    }
}
