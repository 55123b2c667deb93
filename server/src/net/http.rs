//! The plain HTTP endpoints: /health, /livez, /readyz, /version, /metrics.

use std::{fmt::Write as _, sync::Arc};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::json;

use super::body::Body;
use crate::{
    metrics::Metrics,
    service::{Check, Health},
    version,
};

/// Of a path that names nothing.
pub(super) const NOT_FOUND: &str = "404 page not found\n";

#[derive(Debug)]
pub struct Http {
    health: Health,
    metrics: Arc<Metrics>,
}

impl Http {
    pub fn new(health: Health, metrics: Arc<Metrics>) -> Self {
        Self { health, metrics }
    }

    pub(super) async fn serve<B>(&self, request: Request<B>) -> Response<Body> {
        let path = request.uri().path();
        let query = Query::of(request.uri().query().unwrap_or_default());
        let is_known = matches!(path, "/health" | "/version" | "/metrics")
            || ["/livez", "/readyz"].iter().any(|root| below(path, root).is_some());
        if !is_known {
            return text(StatusCode::NOT_FOUND, NOT_FOUND);
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
            return answer;
        }
        let mut answer = match path {
            "/health" => self.health(&query).await,
            "/version" => json(
                StatusCode::OK,
                &json!({
                    "etcdserver": version::api(),
                    "etcdcluster": self.health.cluster_version(),
                    "storage": version::STORAGE,
                }),
            ),
            "/metrics" => self.metrics(),
            _ => self.probe(path, &query).await,
        };
        if request.method() == Method::HEAD {
            *answer.body_mut() = Body::Empty;
        }
        answer
    }

    async fn health(&self, query: &Query) -> Response<Body> {
        match self.health.check(&query.exclude, query.serializable).await {
            Ok(()) => {
                self.metrics.health_success.inc();
                health_text(StatusCode::OK, "true", "")
            }
            Err(reason) => {
                self.metrics.health_failures.inc();
                tracing::warn!(reason, "a health check failed");
                health_text(StatusCode::SERVICE_UNAVAILABLE, "false", &reason)
            }
        }
    }

    /// /livez and /readyz, or one of their checks: /readyz/linearizable_read.
    async fn probe(&self, path: &str, query: &Query) -> Response<Body> {
        let (root, checks): (_, &[Check]) = match below(path, "/livez") {
            Some(_) => ("/livez", &Check::LIVE),
            None => ("/readyz", &Check::READY),
        };
        let one = below(path, root).unwrap_or_default();
        if !one.is_empty() && !checks.iter().any(|check| check.name() == one) {
            return text(StatusCode::NOT_FOUND, NOT_FOUND);
        }
        let mut lines = String::new();
        let mut failed = false;
        for check in checks.iter().filter(|check| one.is_empty() || check.name() == one) {
            let name = check.name();
            if query.exclude.iter().any(|excluded| excluded == name) {
                lines.push_str(&format!("[+]{name} excluded: ok\n"));
                continue;
            }
            let line = match self.health.run(*check).await {
                Ok(()) => writeln!(lines, "[+]{name} ok"),
                Err(reason) => {
                    failed = true;
                    writeln!(lines, "[-]{name} failed: {reason}")
                }
            };
            line.expect("writing to memory does not fail");
        }
        let kind = root.trim_start_matches('/');
        if failed {
            tracing::warn!(checks = %lines.trim_end(), "{kind} failed");
            return text(StatusCode::SERVICE_UNAVAILABLE, format!("{lines}{kind} check failed\n"));
        }
        if query.verbose {
            return text(StatusCode::OK, format!("{lines}{kind} check passed\n"));
        }
        text(StatusCode::OK, "ok\n")
    }

    fn metrics(&self) -> Response<Body> {
        let mut answer = Response::new(Body::plain(self.metrics.render()));
        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
        answer
    }
}

/// What stands behind `root`, if the path lies at or below it.
fn below<'a>(path: &'a str, root: &str) -> Option<&'a str> {
    match path.strip_prefix(root)? {
        "" => Some(""),
        rest => rest.strip_prefix('/'),
    }
}

/// etcd's body, which some probes compare as text: the order of its fields counts.
fn health_text(status: StatusCode, health: &str, reason: &str) -> Response<Body> {
    let reason = json!(reason);
    text(status, format!("{{\"health\":\"{health}\",\"reason\":{reason}}}"))
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let mut answer = text(status, value.to_string());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

pub(super) fn text(status: StatusCode, body: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut answer = Response::new(Body::plain(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// What the probes ask for; none of its values needs decoding.
#[derive(Debug, Default, PartialEq)]
struct Query {
    exclude: Vec<String>,
    serializable: bool,
    verbose: bool,
}

impl Query {
    fn of(text: &str) -> Self {
        let mut query = Self::default();
        for part in text.split('&') {
            match part.split_once('=').unwrap_or((part, "")) {
                ("exclude", name) => query.exclude.push(name.to_owned()),
                ("serializable", value) => query.serializable = value == "true",
                ("verbose", _) => query.verbose = true,
                _ => {}
            }
        }
        query
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_the_probes_write_it() {
        let query = Query::of("exclude=NOSPACE&serializable=true&exclude=CORRUPT&verbose");
        assert_eq!(query.exclude, ["NOSPACE", "CORRUPT"]);
        assert!(query.serializable && query.verbose);
        assert_eq!(Query::of(""), Query::default());
    }

    #[test]
    fn a_check_is_named_below_its_root() {
        assert_eq!(below("/readyz", "/readyz"), Some(""));
        assert_eq!(below("/readyz/non_learner", "/readyz"), Some("non_learner"));
        assert_eq!(below("/readyzz", "/readyz"), None);
    }
}
