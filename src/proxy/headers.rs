//! Which headers cross, and in which form: strip first, then stamp.
//!
//! Two names are the same here if they are equal after lower-casing and turning every character that is not
//! a letter or digit into `-`: applications behind CGI-like interfaces can't tell `X_User` from `X-User`.

use std::borrow::Cow;

use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, PROXY_AUTHENTICATE, SET_COOKIE, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body::Body as _;
use smallvec::SmallVec;

use super::{Client, CookieHeader, Error, Identity, Terms};
use crate::web::Body;

/// The names that `claimsToHTTPHeaderMappings` can set, normalised.
#[derive(Debug)]
pub(super) struct Mapped(Vec<String>);

impl Mapped {
    pub(super) fn new(names: &[HeaderName]) -> Self {
        Self(names.iter().map(|name| normalised(name.as_str()).into_owned()).collect())
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|mapped| mapped == name)
    }
}

/// What of a request's head asks for more than the usual treatment: found by one walk over the names, which is
/// cheaper than a look for each of what is nearly never there.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// It has connection options.
    pub(super) connection: bool,
    /// It says something about trailers.
    pub(super) trailers: bool,
    /// It expects something before its body is sent.
    pub(super) expect: bool,
    /// It states a length.
    length: bool,
    /// What may not cross. Nearly always there is none of it, or a little.
    unwanted: SmallVec<[HeaderName; 4]>,
}

impl Noted {
    /// Reads a head as the client sent it.
    pub(super) fn of(headers: &HeaderMap, mapped: &Mapped) -> Self {
        let mut noted = Self::default();
        for name in headers.keys() {
            let sent = name.as_str();
            match sent {
                "connection" => noted.connection = true,
                "te" | "trailer" => noted.trailers = true,
                "expect" => noted.expect = true,
                "content-length" => noted.length = true,
                _ => {}
            }
            let plain = normalised(sent);
            if is_always_stripped(&plain)
                || mapped.contains(&plain)
                || (matches!(plain, Cow::Owned(_)) && ODD_SPELLINGS_STRIPPED.contains(&&*plain))
            {
                noted.unwanted.push(name.clone());
            }
        }
        noted
    }
}

/// Turns the client's headers into those that the application gets. What frames the body comes after, by
/// [`frame`].
pub(super) fn prepare(headers: &mut HeaderMap, noted: &Noted, terms: &Terms<'_>) {
    strip(headers, noted);
    // Once, instead of twice while they are set.
    headers.reserve(Client::MOST_FIELDS + terms.identity.map_or(0, |identity| identity.headers.len()));
    set_cookie_header(headers, &terms.cookie);
    set_host(headers, terms.client.host.as_ref());
    terms.client.stamp(headers, terms.request_id);
    if let Some(Identity { headers: values }) = terms.identity {
        for (name, value) in values {
            headers.insert(name, value.clone());
        }
    }
}

/// Removes what the client may not say: first whatever its Connection header names (RFC 9110 section
/// 7.6.1), so that nothing that is set later can be named away, then all that is hop-by-hop or ours to set.
fn strip(headers: &mut HeaderMap, noted: &Noted) {
    if noted.connection {
        strip_connection_options(headers);
    }
    for name in &noted.unwanted {
        headers.remove(name);
    }
}

fn strip_connection_options(headers: &mut HeaderMap) {
    let mut named: Vec<HeaderName> = Vec::new();
    for value in headers.get_all(CONNECTION) {
        for option in value.as_bytes().split(|byte| *byte == b',') {
            let option = option.trim_ascii();
            let usual = [&b"keep-alive"[..], b"close", b"upgrade"];
            if option.is_empty() || usual.iter().any(|usual| option.eq_ignore_ascii_case(usual)) {
                continue;
            }
            named.extend(HeaderName::from_bytes(option));
        }
    }
    for name in named {
        headers.remove(name);
    }
    headers.remove(CONNECTION);
}

/// Whether a header of this [`normalised`] name never crosses as the client sent it. Hop-by-hop headers
/// (RFC 9110 section 7.6.1, and `Proxy-*`, RFC 2616's list and practice), all that we set ourselves, and
/// what makes an application judge another address, host, path or method than the one that we judged.
pub(super) fn is_always_stripped(name: &str) -> bool {
    // Most names begin otherwise, and need not be compared with all of these.
    if !name.as_bytes().first().is_some_and(|first| b"-cfhkptux".contains(first)) {
        return false;
    }
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
            // CGI makes it HTTP_PROXY, which programs take for their outbound proxy.
            | "proxy"
            | "forwarded"
            | "x-forwarded"
            | "x-real-ip"
            | "x-request-id"
            | "x-http-method"
            | "x-http-method-override"
            | "x-method-override"
            | "-method"
    ) || (name.starts_with("x-") && STRIPPED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

const STRIPPED_PREFIXES: [&str; 4] = ["x-forwarded-", "x-original-", "x-rewrite-", "x-portcullis-"];

/// Stripped only when spelled otherwise than in HTTP (`Content_Length`).
const ODD_SPELLINGS_STRIPPED: [&str; 1] = ["content-length"];

/// A header name with every character that is not a letter or digit as `-`. Names in a `HeaderMap` are
/// lower-case already; nearly all come through without a copy.
pub(super) fn normalised(name: &str) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.bytes().all(plain) {
        return Cow::Borrowed(name);
    }
    let to_plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    Cow::Owned(name.chars().map(to_plain).collect())
}

/// HTTP/2 clients may split the Cookie header (RFC 9113 section 8.2.3); HTTP/1.1 applications get one.
fn set_cookie_header(headers: &mut HeaderMap, cookie: &CookieHeader) {
    match cookie {
        CookieHeader::Replace(Some(value)) => {
            headers.insert(COOKIE, value.clone());
        }
        CookieHeader::Replace(None) => {
            headers.remove(COOKIE);
        }
        CookieHeader::Unchanged => {
            let mut values = headers.get_all(COOKIE).iter();
            if let (Some(first), Some(second)) = (values.next(), values.next()) {
                let mut joined = first.as_bytes().to_vec();
                for value in std::iter::once(second).chain(values) {
                    joined.extend_from_slice(b"; ");
                    joined.extend_from_slice(value.as_bytes());
                }
                // Made of header values, so it is one.
                if let Ok(joined) = HeaderValue::try_from(joined) {
                    headers.insert(COOKIE, joined);
                }
            }
        }
    }
}

/// The host that was judged is the host that the application sees (RFC 9112 section 3.2.2).
fn set_host(headers: &mut HeaderMap, judged: Option<&HeaderValue>) {
    let Some(judged) = judged else { return };
    let mut values = headers.get_all(HOST).iter();
    let same = values.next() == Some(judged);
    if !(same && values.next().is_none()) {
        headers.insert(HOST, judged.clone());
    }
}

/// States the length of the body by what the body itself is, whatever the client said: the two can then
/// never differ. hyper leaves out the body of a GET of unknown length unless told to chunk it.
pub(super) fn frame(headers: &mut HeaderMap, method: &Method, body: &Body, noted: &Noted) {
    if body.is_end_stream() {
        let expects_length = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
        if expects_length || noted.length {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        return;
    }
    match body.size_hint().exact() {
        Some(length) => set_content_length(headers, length),
        None => {
            headers.remove(CONTENT_LENGTH);
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
}

fn set_content_length(headers: &mut HeaderMap, length: u64) {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let said = values.next().and_then(|value| value.to_str().ok()?.parse().ok());
    if said != Some(length) || values.next().is_some() {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// What of an answer's head needs a look. As with [`Noted`], one walk finds it.
#[derive(Debug, Default)]
pub(super) struct Answered {
    transfer_encoding: bool,
    connection: bool,
    hop_by_hop: bool,
    length: bool,
    odd_length: bool,
    cookies: bool,
    caching: bool,
}

impl Answered {
    fn of(headers: &HeaderMap) -> Self {
        let mut answered = Self::default();
        for (name, value) in headers {
            match name.as_str() {
                "transfer-encoding" => answered.transfer_encoding = true,
                "connection" => answered.connection = true,
                "content-length" => {
                    answered.odd_length |=
                        answered.length || !value.as_bytes().iter().all(u8::is_ascii_digit);
                    answered.length = true;
                }
                "set-cookie" => answered.cookies = true,
                // Without a directive it says nothing.
                "cache-control" => {
                    answered.caching |= !value.as_bytes().iter().all(|byte| b" \t,".contains(byte));
                }
                "keep-alive" | "proxy-connection" | "proxy-authenticate" | "te" | "upgrade" => {
                    answered.hop_by_hop = true;
                }
                _ => {}
            }
        }
        answered
    }

    /// Whether the length is there more than once, or is no plain number.
    pub(super) fn has_odd_length(&self) -> bool {
        self.odd_length
    }
}

/// Turns the application's answer head into the one that the client gets, in place.
pub(super) fn clean(
    status: StatusCode,
    headers: &mut HeaderMap,
    own_cookies: &[String],
    private: bool,
) -> Result<Answered, Error> {
    let answered = Answered::of(headers);
    if answered.transfer_encoding {
        let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
        let chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        let is_chunked = codings.next().is_some_and(chunked) && codings.next().is_none();
        headers.remove(TRANSFER_ENCODING);
        if !is_chunked {
            return Err(Error::BadAnswer("it has a transfer coding that we did not ask for"));
        }
        // Chunked decides (RFC 9112 section 6.3); the other length must not reach the client.
        headers.remove(CONTENT_LENGTH);
    }
    if answered.connection {
        strip_connection_options(headers);
    }
    if answered.hop_by_hop {
        for name in HOP_BY_HOP_IN_ANSWERS {
            headers.remove(name);
        }
    }
    // RFC 9110 section 8.6: neither has a length. hyper would refuse the first.
    if answered.length && (status == StatusCode::NO_CONTENT || status.is_informational()) {
        headers.remove(CONTENT_LENGTH);
    }
    if answered.cookies {
        drop_own_cookies(headers, own_cookies);
    }
    // Whatever the application says about caching stays, unless it named that a connection option.
    if private && !(answered.caching && headers.contains_key(CACHE_CONTROL)) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private"));
    }
    Ok(answered)
}

/// Makes a repeated or listed Content-Length (`5, 5`) one number: hyper read it as that number.
pub(super) fn unify_content_length(headers: &mut HeaderMap, body: &Body) {
    if !body.is_end_stream()
        && let Some(length) = body.size_hint().exact()
        && headers.contains_key(CONTENT_LENGTH)
    {
        set_content_length(headers, length);
    }
}

const HOP_BY_HOP_IN_ANSWERS: [HeaderName; 5] =
    [KEEP_ALIVE, HeaderName::from_static("proxy-connection"), PROXY_AUTHENTICATE, TE, UPGRADE];

/// Removes the Set-Cookie headers that would set one of our cookies: only we may. The others stay, in order.
fn drop_own_cookies(headers: &mut HeaderMap, own: &[String]) {
    if !headers.get_all(SET_COOKIE).iter().any(|value| sets_own_cookie(value, own)) {
        return;
    }
    let kept: Vec<HeaderValue> =
        headers.get_all(SET_COOKIE).iter().filter(|value| !sets_own_cookie(value, own)).cloned().collect();
    headers.remove(SET_COOKIE);
    for value in kept {
        headers.append(SET_COOKIE, value);
    }
}

/// Reads a name as browsers do: up to `=`, without spaces around it; without a name, the value is what
/// they send back, so `=name=x` counts as well.
fn sets_own_cookie(value: &HeaderValue, own: &[String]) -> bool {
    let pair = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    let mut pair = pair.trim_ascii();
    while let Some(rest) = pair.strip_prefix(b"=") {
        pair = rest.trim_ascii_start();
    }
    let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii_end();
    let begins = |prefix: &str| {
        name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    // Other services of this host, in this process or another, have a suffix.
    begins(OTHER_SERVICES)
        || own.iter().any(|own| begins(own) && matches!(name.get(own.len()), None | Some(b'.')))
}

const OTHER_SERVICES: &str = "__Host-portcullis-";

/// Also what an application says about how long it keeps a connection.
pub(super) const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
