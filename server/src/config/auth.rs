//! `--auth-token` and what goes with it.

use std::time::Duration;

use super::{Auth, AuthToken, ConfigError, args::Args, check::refuse};

/// What bcrypt takes.
const BCRYPT_COSTS: std::ops::RangeInclusive<u32> = 4..=31;
/// etcd's.
const JWT_TTL_DEFAULT: Duration = Duration::from_secs(5 * 60);

pub(super) fn auth(args: &Args) -> Result<Auth, ConfigError> {
    if !BCRYPT_COSTS.contains(&args.bcrypt_cost) {
        return Err(refuse("--bcrypt-cost", args.bcrypt_cost, "must be between 4 and 31"));
    }
    if args.auth_token_ttl == 0 {
        return Err(refuse("--auth-token-ttl", 0, "must be at least 1 (seconds)"));
    }
    Ok(Auth {
        token: token(&args.auth_token, Duration::from_secs(args.auth_token_ttl.into()))?,
        bcrypt_cost: args.bcrypt_cost,
        password_min_bytes: args.auth_min_password_length as usize,
    })
}

fn token(text: &str, ttl: Duration) -> Result<AuthToken, ConfigError> {
    let refuse = |remedy: &str| Err(refuse("--auth-token", text, remedy));
    let mut parts = text.split(',');
    match parts.next() {
        Some("simple") if parts.next().is_none() => return Ok(AuthToken::Simple { ttl }),
        Some("simple") => return refuse("simple tokens have no options here; see --auth-token-ttl"),
        Some("jwt") => {}
        _ => return refuse("must be simple or jwt,sign-method=..,pub-key=..,priv-key=.."),
    }
    let (mut method, mut public, mut private, mut ttl) = (None, None, None, JWT_TTL_DEFAULT);
    for part in parts {
        match part.split_once('=') {
            Some(("sign-method", value)) => method = Some(value.to_owned()),
            Some(("pub-key", value)) => public = Some(value.into()),
            Some(("priv-key", value)) => private = Some(value.into()),
            Some(("ttl", value)) => match humantime::parse_duration(value) {
                Ok(value) if !value.is_zero() => ttl = value,
                _ => return refuse("ttl must be a duration like 10m"),
            },
            _ => return refuse("jwt takes sign-method, pub-key, priv-key and ttl"),
        }
    }
    let Some(method) = method else { return refuse("jwt needs sign-method=, such as RS256") };
    Ok(AuthToken::Jwt { method, public, private, ttl })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<AuthToken, ConfigError> {
        token(text, Duration::from_secs(9))
    }

    #[test]
    fn tokens_are_told_as_etcd_tells_them() {
        assert_eq!(of("simple"), Ok(AuthToken::Simple { ttl: Duration::from_secs(9) }));
        let jwt = of("jwt,pub-key=a.pem,priv-key=b.pem,sign-method=ES256,ttl=10m");
        let expected = AuthToken::Jwt {
            method: "ES256".into(),
            public: Some("a.pem".into()),
            private: Some("b.pem".into()),
            ttl: Duration::from_secs(600),
        };
        assert_eq!(jwt, Ok(expected));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in ["", "plain", "simple,ttl=3", "jwt", "jwt,sign-method=RS256,ttl=0", "jwt,color=red"] {
            assert!(of(text).is_err(), "{text}");
        }
    }
}
