//! Which pages may ask from within a browser, and by which name.
//!
//! A page of anybody's can have a browser send requests here, and a name of its
//! author's can be made to point here. So a page of another origin is refused
//! unless it is allowed by name, and on a loopback address, which pages of
//! elsewhere have no business with, so is a name that is not this machine's.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Request, header};

use crate::config::Names;

/// What a listener takes.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Origins of pages, beside its own.
    pub origins: Option<Names>,
    /// Names by which it may be asked for. Where none are given, a loopback
    /// address has those of this machine, and any other address has every name.
    pub hosts: Option<Names>,
    pub is_loopback: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// `origin` is the page's, where one asks.
    Fine { origin: Option<HeaderValue> },
    /// Not one of our names.
    Misdirected,
    /// A page of somebody else's.
    Foreign,
}

impl Rules {
    pub(super) fn judge<B>(&self, request: &Request<B>) -> Verdict {
        let authority = request.uri().authority().map(|authority| authority.as_str());
        let host = authority.or_else(|| text(request.headers(), header::HOST));
        // Browsers always send one.
        if !host.is_none_or(|host| self.is_ours(without_port(host))) {
            return Verdict::Misdirected;
        }
        let Some(value) = request.headers().get(header::ORIGIN) else {
            return Verdict::Fine { origin: None };
        };
        let origin = value.to_str().unwrap_or_default();
        let is_own = origin.split_once("://").is_some_and(|(_, of)| Some(of) == host);
        if is_own || self.origins.as_ref().is_some_and(|origins| origins.contain(origin)) {
            Verdict::Fine { origin: Some(value.clone()) }
        } else {
            Verdict::Foreign
        }
    }

    fn is_ours(&self, name: &str) -> bool {
        match &self.hosts {
            Some(names) => names.contain(name),
            // A number can't be made to point elsewhere.
            None => {
                !self.is_loopback || name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
            }
        }
    }
}

/// What is no text is no name of ours either.
fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}

fn without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(v6) => v6.split_once(']').map_or(v6, |(name, _)| name),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(rules: &Rules, host: &str, origin: Option<&str>) -> Verdict {
        let mut request = Request::builder().header(header::HOST, host);
        if let Some(origin) = origin {
            request = request.header(header::ORIGIN, origin);
        }
        rules.judge(&request.body(()).unwrap())
    }

    fn is_fine(rules: &Rules, host: &str, origin: Option<&str>) -> bool {
        matches!(judge(rules, host, origin), Verdict::Fine { .. })
    }

    const LOCAL: Rules = Rules { origins: None, hosts: None, is_loopback: true };

    #[test]
    fn a_name_that_was_made_to_point_here_is_no_name_of_ours() {
        for host in ["localhost:2379", "LOCALHOST", "127.0.0.1", "[::1]:2379", "127.0.0.2:1"] {
            assert!(is_fine(&LOCAL, host, None), "{host}");
        }
        for host in ["evil.example:2379", "localhost.evil.example", "", "[evil]:1", "\u{ff}"] {
            assert_eq!(judge(&LOCAL, host, None), Verdict::Misdirected, "{host}");
        }
        let public = Rules { is_loopback: false, ..LOCAL };
        assert!(is_fine(&public, "db.example:2379", None));
        let listed = Rules { hosts: Names::of("db.example"), ..public };
        assert!(is_fine(&listed, "db.example:2379", None));
        assert_eq!(judge(&listed, "other.example:2379", None), Verdict::Misdirected);
        let any = Rules { hosts: Names::of("*"), ..LOCAL };
        assert!(is_fine(&any, "evil.example", None));
    }

    #[test]
    fn a_request_without_a_host_is_no_browsers() {
        assert_eq!(LOCAL.judge(&Request::new(())), Verdict::Fine { origin: None });
    }

    #[test]
    fn the_name_of_http_2_counts_as_that_of_http_1() {
        let ask = |uri: &str| LOCAL.judge(&Request::builder().uri(uri).body(()).unwrap());
        assert_eq!(ask("http://localhost:2379/health"), Verdict::Fine { origin: None });
        assert_eq!(ask("http://evil.example/health"), Verdict::Misdirected);
    }

    #[test]
    fn pages_of_other_origins_are_refused_unless_they_are_named() {
        assert!(is_fine(&LOCAL, "localhost:2379", Some("http://localhost:2379")));
        for origin in ["http://evil.example", "http://localhost:8080", "null", ""] {
            assert_eq!(judge(&LOCAL, "localhost:2379", Some(origin)), Verdict::Foreign, "{origin}");
        }
        let named = Rules { origins: Names::of("http://ui.example,http://b"), ..LOCAL };
        assert!(is_fine(&named, "localhost:2379", Some("http://ui.example")));
        assert_eq!(judge(&named, "localhost:2379", Some("http://evil.example")), Verdict::Foreign);
        let any = Rules { origins: Names::of("*"), ..LOCAL };
        assert!(is_fine(&any, "localhost:2379", Some("http://evil.example")));
    }
}
