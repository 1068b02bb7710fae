//! Why a request was refused before any rule was asked: the closed set, each with its status and its words.

use http::StatusCode;

/// What the client's bytes broke. The words name the fault and never repeat what the client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Violation {
    /// Not `method SP target SP HTTP/1.x` (RFC 9112 section 3).
    #[error("the request line is not of the form: method, one space, target, one space, HTTP version")]
    RequestLine,
    /// A method longer than any that could be in a rule (RFC 9112 section 3: 501).
    #[error("the method is too long")]
    MethodTooLong,
    /// CONNECT, which asks for a tunnel to anywhere; this is not that kind of proxy.
    #[error("CONNECT is not offered")]
    Connect,
    /// Neither a path nor an absolute URL of this scheme, or with a byte that no target may have
    /// (RFC 9112 section 3.2, RFC 3986).
    #[error("the request target is not a plain path and query")]
    Target,
    /// Longer than `limits.targetBytes`.
    #[error("the request target is too long")]
    TargetTooLong,
    /// Another version than HTTP/1.0 and HTTP/1.1.
    #[error("the HTTP version is not supported on this connection")]
    Version,
    /// A CR without LF, or a LF without CR (RFC 9112 section 2.2).
    #[error("a line does not end in CR LF")]
    LineEnding,
    /// NUL or another control character (RFC 9110 section 5.5).
    #[error("the request head contains a control character")]
    Control,
    /// Longer than `limits.headerBytes`.
    #[error("the request head is too large")]
    HeadTooLarge,
    /// More than `limits.headerFields`.
    #[error("the request has too many header fields")]
    TooManyFields,
    /// No colon, an empty name, space before the colon, or a name that is no token (RFC 9112 section 5).
    #[error("a header field line is malformed")]
    Field,
    /// A line that begins with white space (RFC 9112 section 5.2).
    #[error("header fields may not be folded over several lines")]
    Folding,
    /// A name such as `Transfer_Encoding`, which some applications read as the framing field it imitates.
    #[error("a header field imitates one that delimits messages")]
    Imitation,
    /// A value with white space around it on HTTP/2 (RFC 9113 section 8.2.1).
    #[error("a header field value begins or ends with white space")]
    Padding,
    /// No `Host` on HTTP/1.1, or no authority on HTTP/2.
    #[error("the request names no host")]
    HostMissing,
    /// More than one `Host` (RFC 9112 section 3.2).
    #[error("the request names several hosts")]
    HostRepeated,
    /// A `Host` that is no host with an optional port.
    #[error("the host is malformed")]
    HostInvalid,
    /// An absolute target of another authority than `Host`.
    #[error("the request target and the Host field differ")]
    HostDiffers,
    /// A `Content-Length` that is no plain decimal number, or several.
    #[error("the Content-Length is malformed or repeated")]
    ContentLength,
    /// A `Transfer-Encoding` that is not `chunked` exactly once, or on HTTP/1.0 (RFC 9112 section 6.1).
    #[error("the Transfer-Encoding is not exactly \"chunked\"")]
    TransferEncoding,
    /// Both of them (RFC 9112 section 6.1).
    #[error("the request has both Content-Length and Transfer-Encoding")]
    LengthAndEncoding,
    /// `Connection: keep-alive` on HTTP/1.0, whose persistence is not interoperable (RFC 9112 appendix C.2.2).
    #[error("HTTP/1.0 connections are not kept alive; use HTTP/1.1")]
    KeepAliveHttp10,
    /// A chunk-size line that is not 1 to 16 hexadecimal digits (RFC 9112 section 7.1).
    #[error("a chunk size is malformed")]
    ChunkSize,
    /// Chunk extensions with a control character, or too many of them.
    #[error("the chunk extensions are malformed or too long")]
    ChunkExtension,
    /// Chunk data that is not followed by CR LF.
    #[error("a chunk is not as long as it said")]
    ChunkEnd,
    /// A malformed trailer field.
    #[error("a trailer field is malformed")]
    Trailer,
    /// Too many bytes or fields after the last chunk.
    #[error("the trailers are too large")]
    TrailersTooLarge,
    /// The head did not arrive within `limits.headerTimeout`.
    #[error("the request head took too long to arrive")]
    HeadTimeout,
    /// Plain HTTP on a TLS port.
    #[error("this port speaks HTTPS; the request came in plain HTTP")]
    PlainText,
    /// The parser behind the front found a request that the front had not let through.
    #[error("the message boundaries could not be agreed on")]
    Desynchronised,
}

impl Violation {
    /// The status of the answer: 400, 408, 414, 431 or 501.
    pub fn status(self) -> StatusCode {
        match self {
            Self::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge | Self::TooManyFields | Self::TrailersTooLarge => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::MethodTooLong | Self::Connect => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The violation that was attached to `request`, if it was refused before the handler saw it. The
    /// rest of such a request means nothing: on HTTP/1 it stands in for bytes that were thrown away.
    pub fn of<B>(request: &http::Request<B>) -> Option<Self> {
        request.extensions().get::<Self>().copied()
    }
}
