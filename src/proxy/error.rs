//! Why a request got no answer from the application, by whose fault, and with which status we say so.

use std::io;

use http::StatusCode;

/// A request that could not be forwarded, or that the application did not answer.
///
/// The texts are for the operator's log. They name addresses and causes, never headers or bodies.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client asked for a WebSocket with a handshake that RFC 6455 section 4.2.1 forbids.
    #[error("not a WebSocket handshake: {0}")]
    BadHandshake(&'static str),
    /// The client asked for a version of WebSockets that is not the one there is.
    #[error("not a WebSocket handshake: Sec-WebSocket-Version is not {WEBSOCKET_VERSION}")]
    WebSocketVersion,
    /// The target has a form that HTTP can't carry. The path parser lets none through.
    #[error("the request target can't be forwarded")]
    BadTarget,
    /// The client sent nothing of its body for as long as the idle limit.
    #[error("the client stalled while sending its body")]
    ClientStalled,
    /// The client broke its body off.
    #[error("the client broke off while sending its body")]
    ClientGone,
    /// The client's trailers are too large.
    #[error("the trailers after the request's body are larger than 64 KiB")]
    TrailersTooLarge,
    /// No connection could be made.
    #[error("cannot connect to the application at {upstream}: {cause}")]
    Unreachable {
        /// Where to.
        upstream: String,
        /// What the system said.
        cause: io::Error,
    },
    /// A connection was not made in time.
    #[error("connecting to the application at {upstream} took longer than limits.connectTimeout")]
    ConnectTimeout {
        /// Where to.
        upstream: String,
    },
    /// The application's certificate was refused, or its TLS is broken.
    #[error("TLS with the application at {upstream} failed: {cause}")]
    Tls {
        /// Where to.
        upstream: String,
        /// What rustls said.
        cause: io::Error,
    },
    /// The application is configured to speak HTTP/2, and does not.
    #[error(
        "the application at {upstream} does not speak HTTP/2: {how}; turn HTTP/2 on there, or write upstream with {instead} if it speaks HTTP/1.1"
    )]
    NotHttp2 {
        /// Where.
        upstream: String,
        /// What it did.
        how: &'static str,
        /// How an `upstream` of HTTP/1.1 begins.
        instead: &'static str,
    },
    /// A WebSocket was asked for, and the application is reached over HTTP/2.
    #[error("a WebSocket needs HTTP/1.1 to the application: write upstream with http://, https:// or unix:")]
    NoWebSocket,
    /// All connections are full.
    #[error("the application accepts no more requests at once over HTTP/2: all of its streams are in use")]
    Saturated,
    /// The application reset the stream of this request.
    #[error("the application reset the HTTP/2 stream without an answer: {0}")]
    Reset(#[source] h2::Error),
    /// The HTTP/2 connection ended before an answer.
    #[error("the HTTP/2 connection to the application ended without an answer: {0}")]
    Lost(#[source] h2::Error),
    /// Nobody answers on an HTTP/2 connection that is still open.
    #[error("the application answered nothing on its HTTP/2 connection, not even a PING")]
    Unresponsive,
    /// The caller's session ended before the application said anything.
    #[error("the session ended before the application answered")]
    SessionEnded,
    /// The application closed the connection before it answered.
    #[error("the application closed the connection without an answer: {0}")]
    Died(#[source] hyper::Error),
    /// What came back is not an HTTP answer that can be passed on.
    #[error(
        "the application's answer is not valid HTTP/1.1: {0}; if it speaks only HTTP/2, write upstream with h2c:// or h2://"
    )]
    NotHttp(#[source] hyper::Error),
    /// The answer is HTTP, but breaks a rule that passing it on safely depends on.
    #[error("the application's answer is refused: {0}")]
    BadAnswer(&'static str),
    /// The head of the answer did not come in time.
    #[error("the application did not answer within limits.responseTimeout")]
    ResponseTimeout,
}

/// Who is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The browser or program that sent the request.
    Client,
    /// The application, or the way to it.
    Upstream,
}

impl Error {
    /// The status of our answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Error::BadHandshake(_) | Error::WebSocketVersion | Error::BadTarget | Error::ClientGone => {
                StatusCode::BAD_REQUEST
            }
            Error::ClientStalled => StatusCode::REQUEST_TIMEOUT,
            Error::TrailersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Error::Unreachable { .. }
            | Error::Tls { .. }
            | Error::NotHttp2 { .. }
            | Error::Reset(_)
            | Error::Lost(_)
            | Error::Died(_)
            | Error::NotHttp(_)
            | Error::BadAnswer(_) => StatusCode::BAD_GATEWAY,
            Error::SessionEnded => StatusCode::UNAUTHORIZED,
            Error::NoWebSocket => StatusCode::NOT_IMPLEMENTED,
            Error::Saturated => StatusCode::SERVICE_UNAVAILABLE,
            Error::ConnectTimeout { .. } | Error::ResponseTimeout | Error::Unresponsive => {
                StatusCode::GATEWAY_TIMEOUT
            }
        }
    }

    /// Who is at fault.
    pub fn blame(&self) -> Blame {
        if self.status().is_client_error() { Blame::Client } else { Blame::Upstream }
    }
}

/// The only version of WebSockets (RFC 6455 section 4.1).
pub const WEBSOCKET_VERSION: &str = "13";
