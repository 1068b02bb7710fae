//! What may not come after a body, whoever sends it.

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

/// Trailers may not set what belongs in a head: framing, routing, authentication, cookies, caching, and what
/// says how to read the content (RFC 9110 section 6.5.1).
pub(super) fn without_forbidden(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            for name in FORBIDDEN {
                trailers.remove(name);
            }
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// Whether this is more than [`MAX_TRAILER_BYTES`], as RFC 9113 section 6.5.2 counts.
pub(super) fn is_too_large(trailers: &HeaderMap) -> bool {
    let bytes = trailers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES);
    bytes.sum::<usize>() > MAX_TRAILER_BYTES
}

/// Largest section of trailers. Half of what h2 takes: it leaves out what would be more, and says so for heads only, so
/// that whoever sends much would seem to have ended well.
pub const MAX_TRAILER_BYTES: usize = 64 * 1024;

const FIELD_BYTES: usize = 32;

/// Fields that no trailer section may have, in either direction.
pub const FORBIDDEN: [&str; 38] = [
    "age",
    "alt-svc",
    "authorization",
    "cache-control",
    "clear-site-data",
    "connection",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-security-policy",
    "content-type",
    "cookie",
    "date",
    "expires",
    "host",
    "http2-settings",
    "keep-alive",
    "location",
    "pragma",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "refresh",
    "retry-after",
    "set-cookie",
    "set-cookie2",
    "strict-transport-security",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "warning",
    "www-authenticate",
];
