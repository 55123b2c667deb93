//! Where one server listens, as people write it.

use std::fmt;

use http::Uri;

use crate::ClientError;

/// Whether an endpoint is spoken to in TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Plain,
    Tls,
    /// TLS if the client is set up for it.
    Either,
}

/// One server's client address: `host:port`, `http://host:port`, `https://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    given: String,
    scheme: Scheme,
    authority: String,
    origin: Uri,
}

impl Endpoint {
    /// Parses an endpoint; a port must be named.
    pub fn parse(given: &str) -> Result<Self, ClientError> {
        let bad = |reason| ClientError::Endpoint { endpoint: given.to_owned(), reason };
        let trimmed = given.trim();
        let bare = |rest: &'_ str| rest.strip_suffix('/').unwrap_or(rest).to_owned();
        let (scheme, authority) = match trimmed.split_once("://") {
            None => (Scheme::Either, trimmed.to_owned()),
            Some(("http", rest)) => (Scheme::Plain, bare(rest)),
            Some(("https", rest)) => (Scheme::Tls, bare(rest)),
            Some(_) => return Err(bad("only host:port, http:// and https:// are understood")),
        };
        let written = if scheme == Scheme::Tls { "https" } else { "http" };
        let origin: Uri =
            format!("{written}://{authority}").parse().map_err(|_| bad("it is no host:port"))?;
        if origin.path() != "/" || origin.query().is_some() || authority.ends_with('/') {
            return Err(bad("a path has no meaning here"));
        }
        match (origin.host(), origin.port_u16()) {
            (None | Some(""), _) => return Err(bad("the host is missing")),
            (_, None) => return Err(bad("the port is missing, etcd's is 2379")),
            _ => {}
        }
        Ok(Self { given: trimmed.to_owned(), scheme, authority, origin })
    }

    /// As the user wrote it.
    pub fn as_str(&self) -> &str {
        &self.given
    }

    /// `host:port`, as the system's resolver takes it.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The name that a certificate must be for.
    pub(crate) fn host(&self) -> &str {
        self.origin.host().unwrap_or_default()
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
            ("https://a:1", "a:1"),
            (" a:1 ", "a:1"),
        ] {
            assert_eq!(Endpoint::parse(given).unwrap().authority(), authority);
        }
    }

    #[test]
    fn what_cannot_be_connected_to_is_refused_by_name() {
        for given in ["", "localhost", "http://", "https://a", "unix:///x", "http://a:1/b", ":2379", "a:b:c"]
        {
            assert!(matches!(Endpoint::parse(given), Err(ClientError::Endpoint { .. })), "{given}");
        }
    }
}
