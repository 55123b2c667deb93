//! What a port for clients serves beside gRPC: the gateway and the plain
//! endpoints, to those whom [`Rules`] let in.

mod rules;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

pub use self::rules::Rules;
use self::rules::Verdict;
use super::{
    Http,
    body::Body,
    gateway::Gateway,
    http::{NOT_FOUND, text},
};

/// One listener's.
#[derive(Debug)]
pub struct Web {
    rules: Rules,
    http: Arc<Http>,
    /// `None` where it is switched off.
    gateway: Option<Arc<Gateway>>,
}

impl Web {
    pub fn new(rules: Rules, http: Arc<Http>, gateway: Option<Arc<Gateway>>) -> Self {
        Self { rules, http, gateway }
    }

    pub(super) async fn serve(&self, request: Request<Incoming>) -> Response<Body> {
        let origin = match self.rules.judge(&request) {
            Verdict::Fine { origin } => origin,
            Verdict::Misdirected => {
                let remedy = "this name is not one of the server's; see --host-whitelist\n";
                return text(StatusCode::MISDIRECTED_REQUEST, remedy);
            }
            Verdict::Foreign => {
                return text(StatusCode::FORBIDDEN, "pages of this origin are not served; see --cors\n");
            }
        };
        let mut answer = if request.method() == Method::OPTIONS {
            Response::new(Body::Empty)
        } else if Gateway::is_for(request.uri().path()) {
            match &self.gateway {
                Some(gateway) => gateway.serve(request).await,
                None => text(StatusCode::NOT_FOUND, NOT_FOUND),
            }
        } else {
            self.http.serve(request).await
        };
        allow(answer.headers_mut(), origin);
        answer
    }
}

/// Tells a browser that a page may read the answer.
fn allow(headers: &mut HeaderMap, origin: Option<HeaderValue>) {
    let Some(origin) = origin else { return };
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    let methods = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    let allowed = HeaderValue::from_static("accept, content-type, authorization");
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
}
