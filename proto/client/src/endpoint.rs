//! Where one server listens, as people write it.

use std::fmt;

use http::Uri;

use crate::ClientError;

/// One server's client address: `host:port`, `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    given: String,
    authority: String,
    origin: Uri,
}

impl Endpoint {
    /// Parses an endpoint; a port must be named.
    pub fn parse(given: &str) -> Result<Self, ClientError> {
        let bad = |reason| ClientError::Endpoint { endpoint: given.to_owned(), reason };
        let trimmed = given.trim();
        let authority = match trimmed.split_once("://") {
            None => trimmed,
            Some(("http", rest)) => rest.strip_suffix('/').unwrap_or(rest),
            Some(("https", _)) => return Err(bad("this version speaks plain text only, use http://")),
            Some(_) => return Err(bad("only host:port and http://host:port are understood")),
        };
        let origin: Uri = format!("http://{authority}").parse().map_err(|_| bad("it is no host:port"))?;
        if origin.path() != "/" || origin.query().is_some() || authority.ends_with('/') {
            return Err(bad("a path has no meaning here"));
        }
        match (origin.host(), origin.port_u16()) {
            (None | Some(""), _) => return Err(bad("the host is missing")),
            (_, None) => return Err(bad("the port is missing, etcd's is 2379")),
            _ => {}
        }
        Ok(Self { given: trimmed.to_owned(), authority: authority.to_owned(), origin })
    }

    /// As the user wrote it.
    pub fn as_str(&self) -> &str {
        &self.given
    }

    /// `host:port`, as the system's resolver takes it.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    pub(crate) fn origin(&self) -> &Uri {
        &self.origin
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_taken_with_and_without_scheme() {
        for (given, authority) in [
            ("127.0.0.1:2379", "127.0.0.1:2379"),
            ("http://localhost:1", "localhost:1"),
            ("http://[::1]:2379/", "[::1]:2379"),
            (" a:1 ", "a:1"),
        ] {
            assert_eq!(Endpoint::parse(given).unwrap().authority(), authority);
        }
    }

    #[test]
    fn what_cannot_be_connected_to_is_refused_by_name() {
        for given in
            ["", "localhost", "http://", "https://a:1", "unix:///x", "http://a:1/b", ":2379", "a:b:c"]
        {
            assert!(matches!(Endpoint::parse(given), Err(ClientError::Endpoint { .. })), "{given}");
        }
    }
}
