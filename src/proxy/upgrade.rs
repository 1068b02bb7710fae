//! The WebSocket handshake (RFC 6455 section 4): the only upgrade that is passed on.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    AsHeaderName, CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Version};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;

use super::Error;
use crate::web::Body;

/// A client's valid wish for a WebSocket.
pub(super) struct Handshake {
    /// The proof that whoever answers has read this very request.
    accept: String,
    client: OnUpgrade,
}

impl Handshake {
    /// Reads the handshake from a request. `None`: it is a request like any other; an upgrade to anything
    /// but `websocket` is ignored, as RFC 9110 section 7.8 allows, and stripped like every hop-by-hop
    /// header.
    pub(super) fn read(head: &mut Parts, body: &Body) -> Result<Option<Self>, Error> {
        let headers = &head.headers;
        let wanted = head.version == Version::HTTP_11
            && has_token(headers, CONNECTION, "upgrade")
            && has_token(headers, UPGRADE, WEBSOCKET);
        if !wanted {
            return Ok(None);
        }
        let refuse = |what| Err(Error::BadHandshake(what));
        if head.method != Method::GET {
            return refuse("its method is not GET");
        }
        if !body.is_end_stream() {
            return refuse("it has a body");
        }
        if single(headers, SEC_WEBSOCKET_VERSION).is_none_or(|version| version.as_bytes() != b"13") {
            return refuse("Sec-WebSocket-Version is not 13");
        }
        let key = single(headers, SEC_WEBSOCKET_KEY).filter(|key| is_key(key));
        let Some(key) = key else {
            return refuse("Sec-WebSocket-Key is not 16 bytes in base64");
        };
        let accept = accept_for(key);
        let Some(client) = head.extensions.remove::<OnUpgrade>() else {
            return refuse("this connection can't become a WebSocket");
        };
        Ok(Some(Self { accept, client }))
    }

    /// Puts back what stripping took.
    pub(super) fn restore(headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
    }

    /// Checks that a `101` answers this handshake, before any of its headers is removed. An application
    /// that can be talked into some other `101` must not open a tunnel past our rules.
    pub(super) fn verify(self, answer: &HeaderMap) -> Result<OnUpgrade, Error> {
        if !has_token(answer, UPGRADE, WEBSOCKET) {
            return Err(Error::BadAnswer("its 101 does not switch to websocket"));
        }
        let accept = single(answer, SEC_WEBSOCKET_ACCEPT);
        if accept.is_none_or(|accept| accept.as_bytes() != self.accept.as_bytes()) {
            return Err(Error::BadAnswer("its 101 does not answer this WebSocket handshake"));
        }
        Ok(self.client)
    }
}

const WEBSOCKET: &str = "websocket";

/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

fn is_key(key: &HeaderValue) -> bool {
    STANDARD.decode(key.as_bytes()).is_ok_and(|nonce| nonce.len() == 16)
}

fn accept_for(key: &HeaderValue) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(GUID);
    STANDARD.encode(context.finish())
}

fn single(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn has_token(headers: &HeaderMap, name: impl AsHeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|found| found.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_value_is_that_of_the_standards_example() {
        // RFC 6455 section 1.3.
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept_for(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn keys_are_sixteen_bytes() {
        for (key, valid) in [
            ("dGhlIHNhbXBsZSBub25jZQ==", true),
            ("dGhlIHNhbXBsZSBub25jZQ", false),
            ("dGhlIHNhbXBsZSBub25jZWV4dHJh", false),
            ("", false),
            ("!!!!", false),
        ] {
            assert_eq!(is_key(&HeaderValue::from_static(key)), valid, "{key}");
        }
    }
}
