//! What the media type of a message says about how it flows, and how it may end.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

use crate::web::body::Farewell;

/// Media types that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    EventStream,
    /// With what follows it in `application/grpc+proto` and the like.
    Grpc,
    /// Has its status in the body.
    GrpcWeb,
    Other,
}

impl Media {
    /// That of a message with this head.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let Some(value) = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes) else { return Self::Other };
        let begins =
            |wanted: &[u8]| value.get(..wanted.len()).is_some_and(|start| start.eq_ignore_ascii_case(wanted));
        match value.first() {
            Some(b't' | b'T') if begins(b"text/event-stream") => Self::EventStream,
            Some(b'a' | b'A') if begins(b"application/grpc-web") => Self::GrpcWeb,
            Some(b'a' | b'A') if begins(b"application/grpc") => Self::Grpc,
            _ => Self::Other,
        }
    }

    /// Server-sent events and messages of gRPC come when there is something to say.
    pub(super) fn may_be_silent(self) -> bool {
        self != Self::Other
    }

    /// Whether it is a call of gRPC, or what belongs to one.
    pub(super) fn is_grpc(self) -> bool {
        matches!(self, Self::Grpc | Self::GrpcWeb)
    }

    /// How an answer ends with its session. A browser reconnects to server-sent events, and is told then that nobody
    /// is logged in (HTML Living Standard section 9.2.3). Nothing else may look whole.
    pub(super) fn farewell(self, takes_trailers: bool) -> Farewell {
        match self {
            Self::EventStream => Farewell::End,
            Self::Grpc if takes_trailers => Farewell::GrpcStatus,
            _ => Farewell::Error,
        }
    }
}

#[cfg(test)]
mod tests {
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
            assert_eq!(Media::of(&headers).farewell(trailers), wanted, "{kind}");
        }
        assert_eq!(Media::of(&HeaderMap::new()).farewell(true), Farewell::Error);
    }
}
