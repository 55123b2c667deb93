//! The gateway's answers: what it says of a status, and in which code.

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::json;
use tonic::{Code, Status};

use super::{super::unary::FRAME_HEADER_BYTES, Body};

pub(super) fn answer(status: StatusCode, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("grpc-metadata-content-type", HeaderValue::from_static("application/grpc"));
    answer
}

/// The text twice, under the names that clients of old and of new etcd look for.
pub(super) fn refused(status: &Status) -> Response<Body> {
    let (code, message) = (status.code() as i32, status.message());
    let text = json!({ "error": message, "message": message, "code": code }).to_string();
    answer(http_status(status.code()), Body::plain(text))
}

/// How a stream broke: the words of old and of new etcd.
pub(super) fn error_line(status: &Status) -> Bytes {
    let (code, message, http) = (status.code() as i32, status.message(), http_status(status.code()));
    let error = json!({
        "grpc_code": code,
        "http_code": http.as_u16(),
        "message": message,
        "http_status": http.canonical_reason().unwrap_or_default(),
        "code": code,
    });
    format!("{}\n", json!({ "error": error })).into()
}

/// What headers or trailers say, if it is no good.
pub(super) fn failure(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers).filter(|status| status.code() != Code::Ok)
}

/// Cuts the next whole message, without its frame, out of what has come.
pub(super) fn message(buffer: &mut BytesMut) -> Option<Bytes> {
    let [_, length @ ..] = *buffer.first_chunk::<FRAME_HEADER_BYTES>()?;
    let length = u32::from_be_bytes(length) as usize;
    if buffer.len() < FRAME_HEADER_BYTES + length {
        return None;
    }
    buffer.advance(FRAME_HEADER_BYTES);
    Some(buffer.split_to(length).freeze())
}

/// grpc-gateway's table.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_once_it_is_whole() {
        let mut buffer = BytesMut::from(&b"\0\0\0\0\x02a"[..]);
        assert_eq!(message(&mut buffer), None);
        buffer.extend_from_slice(b"b\0\0\0\0\0\0");
        assert_eq!(message(&mut buffer), Some(Bytes::from("ab")));
        assert_eq!(message(&mut buffer), Some(Bytes::new()));
        assert_eq!((message(&mut buffer), buffer.len()), (None, 1));
    }

    #[test]
    fn a_broken_stream_is_told_in_the_words_of_both() {
        let line = error_line(&Status::unavailable("etcdserver: no leader"));
        let expected = "{\"error\":{\"grpc_code\":14,\"http_code\":503,\"message\":\"etcdserver: no leader\",\
                        \"http_status\":\"Service Unavailable\",\"code\":14}}\n";
        assert_eq!(line, expected);
    }
}
