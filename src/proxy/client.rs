//! What the application is told about a client: `X-Forwarded-*`, and `Forwarded` (RFC 7239).
//!
//! Owns the form of these fields. They are the same for all requests of a connection that name the same host, so
//! they are made once for them, and a request only clones references.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::FORWARDED;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::digits::{push_address, push_number};

/// Who sends a request, and where it was sent.
#[derive(Clone, Copy, Debug)]
pub struct ClientInfo<'a> {
    /// The client's address; behind a trusted proxy the one that it reports.
    pub address: IpAddr,
    /// `https`, or `http` on a public plain listener.
    pub scheme: &'static str,
    /// The host that was judged, as sent: with the port, if the client sent one. It goes on as Host.
    pub host: &'a str,
    /// The port that the client connected to.
    pub port: u16,
}

/// The fields that tell the application about a client.
#[derive(Clone, Debug)]
pub struct Client {
    /// The host that was judged. `None` can't be said in a field, and is said by none.
    pub(super) host: Option<HeaderValue>,
    /// The same for HTTP/2, where it can be said there.
    pub(super) authority: Option<Authority>,
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl Client {
    /// Fields that [`Self::stamp`] sets.
    pub(super) const MOST_FIELDS: usize = 6;

    /// Makes the fields. All values are cut from one text.
    pub fn new(client: &ClientInfo<'_>) -> Self {
        let mut text = String::with_capacity(CAPACITY);
        let mut piece = |write: &dyn Fn(&mut String)| {
            let from = text.len();
            write(&mut text);
            from..text.len()
        };
        let values = [
            (X_FORWARDED_FOR, piece(&|text| push_address(text, client.address))),
            (X_FORWARDED_HOST, piece(&|text| text.push_str(client.host))),
            (X_FORWARDED_PORT, piece(&|text| push_number(text, client.port.into()))),
            (FORWARDED, piece(&|text| push_forwarded(text, client))),
        ];
        let text = Bytes::from(text);
        let value = |range| HeaderValue::from_maybe_shared(text.slice(range)).ok();
        let mut fields = vec![(X_FORWARDED_PROTO, HeaderValue::from_static(client.scheme))];
        fields.extend(values.into_iter().filter_map(|(name, range)| Some((name, value(range)?))));
        Self { host: HeaderValue::from_str(client.host).ok(), authority: client.host.parse().ok(), fields }
    }

    /// Tells it. Whatever the client said is replaced.
    pub(super) fn stamp(&self, headers: &mut HeaderMap, request_id: &str) {
        for (name, value) in &self.fields {
            headers.insert(name, value.clone());
        }
        if let Ok(id) = HeaderValue::from_str(request_id) {
            headers.insert(X_REQUEST_ID, id);
        }
    }
}

/// One element of RFC 7239. IPv6 addresses and hosts with a port need quotes (sections 4 and 6).
fn push_forwarded(text: &mut String, client: &ClientInfo<'_>) {
    let is_v4 = client.address.to_canonical().is_ipv4();
    text.push_str(if is_v4 { "for=" } else { "for=\"[" });
    push_address(text, client.address);
    text.push_str(if is_v4 { "" } else { "]\"" });
    let host = client.host;
    if host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')) {
        text.push_str(";host=");
        text.push_str(host);
    } else if host.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\')) {
        text.push_str(";host=\"");
        text.push_str(host);
        text.push('"');
    }
    text.push_str(";proto=");
    text.push_str(client.scheme);
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Room for the values of a usual client; longer hosts make the text grow.
const CAPACITY: usize = 256;
