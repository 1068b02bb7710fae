//! What the media type of a message says about how it flows, and how it may end.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

use crate::web::body::Farewell;

/// Server-sent events and messages of gRPC come when there is something to say.
pub(super) fn may_be_silent(headers: &HeaderMap) -> bool {
    has_type(headers, EVENT_STREAM) || has_type(headers, GRPC)
}

/// Whether it is a call of gRPC, or what belongs to one.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    has_type(headers, GRPC)
}

/// How an answer ends with its session. A browser reconnects to server-sent events, and is told then that nobody is
/// logged in (HTML Living Standard section 9.2.3). Nothing else may look whole.
pub(super) fn farewell(headers: &HeaderMap, takes_trailers: bool) -> Farewell {
    if has_type(headers, EVENT_STREAM) {
        return Farewell::End;
    }
    let ends_in_trailers = has_type(headers, GRPC) && !has_type(headers, GRPC_WEB);
    if ends_in_trailers && takes_trailers { Farewell::GrpcStatus } else { Farewell::Error }
}

/// Whether the media type begins so.
fn has_type(headers: &HeaderMap, wanted: &[u8]) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        value.as_bytes().get(..wanted.len()).is_some_and(|start| start.eq_ignore_ascii_case(wanted))
    })
}

const EVENT_STREAM: &[u8] = b"text/event-stream";

/// With what follows it in `application/grpc+proto` and the like.
const GRPC: &[u8] = b"application/grpc";

/// Has its status in the body.
const GRPC_WEB: &[u8] = b"application/grpc-web";

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_streams_that_their_readers_resume_end_as_if_they_were_whole() {
        for (kind, trailers, wanted) in [
            ("text/event-stream", true, Farewell::End),
            ("Text/Event-Stream; charset=utf-8", false, Farewell::End),
            ("application/grpc", true, Farewell::GrpcStatus),
            ("application/grpc+proto", true, Farewell::GrpcStatus),
            ("application/grpc", false, Farewell::Error),
            ("application/grpc-web+proto", true, Farewell::Error),
            ("application/octet-stream", true, Farewell::Error),
            ("", true, Farewell::Error),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
            assert_eq!(farewell(&headers, trailers), wanted, "{kind}");
        }
        assert_eq!(farewell(&HeaderMap::new(), true), Farewell::Error);
    }
}
