//! URLs as the listen and advertise flags spell them: `http://HOST:PORT` or `https://`.

use std::{fmt, io, net::SocketAddr};

/// Where to listen; a name is resolved when the listener opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenUrl {
    pub host: String,
    pub port: u16,
    /// TLS is spoken there.
    pub secure: bool,
}

impl ListenUrl {
    /// Reads `http://HOST:PORT`; the error is the remedy.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let (rest, secure) = match text.split_once("://") {
            Some(("http", rest)) => (rest, false),
            Some(("https", rest)) => (rest, true),
            Some(("unix" | "unixs", _)) => {
                return Err("unix sockets are not supported; use http://HOST:PORT");
            }
            Some(_) => return Err("unknown scheme; use http://HOST:PORT"),
            None => return Err("a URL needs a scheme; use http://HOST:PORT"),
        };
        let (host, port) = rest.rsplit_once(':').ok_or("a URL needs a port; use http://HOST:PORT")?;
        if port.contains('/') || host.contains('/') {
            return Err("a URL must not have a path; use http://HOST:PORT");
        }
        let port = port.parse().map_err(|_| "the port must be a number up to 65535")?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bare {
            Some(v6) => v6,
            None if host.contains(':') => return Err("write an IPv6 address in brackets: http://[::1]:2379"),
            None => host,
        };
        if host.is_empty() {
            return Err("a URL needs a host; use http://0.0.0.0:PORT for every address");
        }
        Ok(Self { host: host.to_owned(), port, secure })
    }

    /// The addresses behind the name, IPv4 first as etcd has it.
    pub(crate) async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let mut found: Vec<_> = tokio::net::lookup_host((self.host.as_str(), self.port)).await?.collect();
        found.sort_by_key(SocketAddr::is_ipv6);
        Ok(found)
    }

    pub(super) fn is_port_chosen_by_system(&self) -> bool {
        self.port == 0
    }
}

/// A peer's URL in the one spelling that is kept; nothing for what is none.
pub fn peer_url(text: &str) -> Option<String> {
    ListenUrl::parse(text).ok().map(|url| url.to_string())
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_prints_as_it_was_written() {
        for text in ["http://localhost:2379", "https://[::1]:2379", "http://0.0.0.0:0"] {
            assert_eq!(ListenUrl::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_not_a_listen_url_is_refused_with_a_remedy() {
        for (text, remedy) in [
            ("localhost:2379", "scheme"),
            ("unix:///run/etcd.sock", "unix"),
            ("http://localhost", "port"),
            ("http://localhost:70000", "65535"),
            ("http://localhost:2379/v3", "path"),
            ("http://:2379", "host"),
            ("http://::1:2379", "brackets"),
        ] {
            let refused = ListenUrl::parse(text).unwrap_err();
            assert!(refused.contains(remedy), "{text}: {refused}");
        }
    }
}
