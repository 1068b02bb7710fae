//! Leaving HTTP: the WebSocket handshake (RFC 6455 section 4, and RFC 8441 for clients that speak HTTP/2), and
//! upgrades to whatever else client and application agree on (RFC 9110 section 7.8).
//!
//! Owns which wishes are passed on and which `101` is an answer to them. May not know what the tunnel carries.

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    AsHeaderName, CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;

use super::Error;
use super::error::WEBSOCKET_VERSION;
use crate::web::Body;

/// A client's valid wish to leave HTTP.
pub(super) struct Upgrade {
    client: OnUpgrade,
    to: Protocol,
}

enum Protocol {
    WebSocket {
        /// The proof that whoever answers has read this very request.
        accept: String,
        /// Made by us for a client that speaks HTTP/2, where there is none (RFC 8441 section 5).
        own_key: Option<HeaderValue>,
    },
    /// One name, with or without a version.
    Other(HeaderValue),
}

impl Upgrade {
    /// Reads the wish from a request. `None`: it is a request like any other. What is no single protocol that
    /// can be passed on is ignored, as RFC 9110 section 7.8 allows, and stripped like every hop-by-hop header.
    pub(super) fn read(request: &mut Request<Body>) -> Result<Option<Self>, Error> {
        let is_wish =
            request.version() != Version::HTTP_10 && has_token(request.headers(), CONNECTION, "upgrade");
        if !is_wish {
            return Ok(None);
        }
        if has_token(request.headers(), UPGRADE, WEBSOCKET) {
            return Self::websocket(request).map(Some);
        }
        let name = single(request.headers(), UPGRADE).filter(|name| is_passed_on(name.as_bytes()));
        let Some(name) = name.cloned() else { return Ok(None) };
        let client = request.extensions_mut().remove::<OnUpgrade>();
        Ok(client.map(|client| Self { client, to: Protocol::Other(name) }))
    }

    fn websocket(request: &mut Request<Body>) -> Result<Self, Error> {
        let headers = request.headers();
        let refuse = |what| Err(Error::BadHandshake(what));
        if request.method() != Method::GET {
            return refuse("its method is not GET");
        }
        if !request.body().is_end_stream() {
            return refuse("it has a body");
        }
        if single(headers, SEC_WEBSOCKET_VERSION).is_none_or(|version| version != WEBSOCKET_VERSION) {
            return Err(Error::WebSocketVersion);
        }
        let own_key = if request.version() == Version::HTTP_2 { fresh_key() } else { None };
        let sent_key = || single(headers, SEC_WEBSOCKET_KEY).filter(|key| is_key(key));
        let Some(key) = own_key.as_ref().or_else(sent_key) else {
            return refuse("Sec-WebSocket-Key is not 16 bytes in base64");
        };
        let accept = accept_for(key);
        let Some(client) = request.extensions_mut().remove::<OnUpgrade>() else {
            return refuse("this connection can't become a WebSocket");
        };
        Ok(Self { client, to: Protocol::WebSocket { accept, own_key } })
    }

    /// Whether it is a WebSocket that is asked for.
    pub(super) fn is_websocket(&self) -> bool {
        matches!(self.to, Protocol::WebSocket { .. })
    }

    /// Puts into a request what stripping took, and what the client could not say.
    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        self.name(headers);
        if let Protocol::WebSocket { own_key: Some(key), .. } = &self.to {
            headers.insert(SEC_WEBSOCKET_KEY, key.clone());
        }
    }

    /// Puts back into the application's `101` what stripping took.
    pub(super) fn name(&self, headers: &mut HeaderMap) {
        let name = match &self.to {
            Protocol::WebSocket { .. } => HeaderValue::from_static(WEBSOCKET),
            Protocol::Other(name) => name.clone(),
        };
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, name);
    }

    /// Checks that an answer other than `101` can be passed on as one that opens no tunnel. To a client that
    /// speaks HTTP/2, every 2xx would say that it did.
    pub(super) fn declined(&self, status: StatusCode) -> Result<(), Error> {
        match &self.to {
            Protocol::WebSocket { own_key: Some(_), .. } if status.is_success() => {
                Err(Error::BadAnswer("it answered a WebSocket handshake with 2xx instead of 101"))
            }
            _ => Ok(()),
        }
    }

    /// Checks that a `101` answers this wish, before any of its headers is removed. An application that can be
    /// talked into some other `101` must not open a tunnel past our rules.
    pub(super) fn accepted(&self, answer: &HeaderMap) -> Result<(), Error> {
        match &self.to {
            Protocol::WebSocket { accept, .. } => {
                if !has_token(answer, UPGRADE, WEBSOCKET) {
                    return Err(Error::BadAnswer("its 101 does not switch to websocket"));
                }
                let proof = single(answer, SEC_WEBSOCKET_ACCEPT);
                if proof.is_none_or(|proof| proof.as_bytes() != accept.as_bytes()) {
                    return Err(Error::BadAnswer("its 101 does not answer this WebSocket handshake"));
                }
            }
            Protocol::Other(name) => {
                let said = single(answer, UPGRADE).filter(|_| has_token(answer, CONNECTION, "upgrade"));
                if !said.is_some_and(|said| said.as_bytes().eq_ignore_ascii_case(name.as_bytes())) {
                    return Err(Error::BadAnswer(
                        "its 101 does not switch to the protocol that was asked for",
                    ));
                }
            }
        }
        Ok(())
    }

    /// The client's side of the tunnel, once it has the `101`.
    pub(super) fn into_client(self) -> OnUpgrade {
        self.client
    }
}

const WEBSOCKET: &str = "websocket";

/// What is never passed on, whatever its version: other ways to speak HTTP, whose requests no rule would see,
/// TLS (RFC 2817), and a WebSocket that is not asked for as RFC 6455 asks.
const NEVER: [&str; 5] = ["h2c", "h2", "http", "tls", WEBSOCKET];

/// Whether a protocol may be offered to the application: `name` or `name/version`, both tokens.
fn is_passed_on(protocol: &[u8]) -> bool {
    let mut parts = protocol.split(|byte| *byte == b'/');
    let (Some(name), version, None) = (parts.next(), parts.next(), parts.next()) else { return false };
    is_token(name)
        && version.is_none_or(is_token)
        && !NEVER.iter().any(|never| name.eq_ignore_ascii_case(never.as_bytes()))
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &[u8]) -> bool {
    let is_mark = |byte: &u8| b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || is_mark(byte))
}

/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Bytes of a key before they are encoded.
const KEY_BYTES: usize = 16;

fn is_key(key: &HeaderValue) -> bool {
    STANDARD.decode(key.as_bytes()).is_ok_and(|nonce| nonce.len() == KEY_BYTES)
}

/// It keeps caches from answering and is no secret: a system without random numbers is none the worse for it.
fn fresh_key() -> Option<HeaderValue> {
    let mut nonce = [0; KEY_BYTES];
    let _ = rand::fill(&mut nonce);
    HeaderValue::try_from(STANDARD.encode(nonce)).ok()
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
        let (one, other) = (fresh_key().unwrap(), fresh_key().unwrap());
        assert!(is_key(&one) && one != other);
    }

    #[test]
    fn only_one_protocol_that_is_not_http_is_passed_on() {
        for (protocol, wanted) in [
            ("tcp", true),
            ("SPDY/3.1", true),
            ("foo", true),
            ("h2c", false),
            ("H2C", false),
            ("h2", false),
            ("HTTP/2.0", false),
            ("http", false),
            ("TLS/1.0", false),
            ("websocket/13", false),
            ("foo, bar", false),
            ("foo bar", false),
            ("foo,", false),
            ("foo/", false),
            ("/1", false),
            ("foo/1/2", false),
            ("", false),
        ] {
            assert_eq!(is_passed_on(protocol.as_bytes()), wanted, "{protocol}");
        }
    }
}
