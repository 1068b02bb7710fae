//! What trusted proxies say about a client. Nobody else is asked, and a forwarded host or path never takes part
//! in anything.
//!
//! They say it with `X-Forwarded-For` and `X-Forwarded-Proto`, or with `Forwarded` (RFC 7239). Where there is one of
//! the former, the latter does not count: a proxy that sets them may pass on a `Forwarded` that its client made up.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::FORWARDED;

/// The client as the proxies before us saw it: from the right, the first address that is none of theirs. An
/// entry that can't be read ends the walk, for what stands left of it was written by somebody unknown.
pub(super) fn client(headers: &HeaderMap, peer: IpAddr, trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    let fields: Vec<&[u8]> =
        headers.get_all("x-forwarded-for").iter().map(|value| value.as_bytes()).collect();
    let entries = fields.iter().rev().flat_map(|field| field.rsplit(|byte| *byte == b',')).map(address_of);
    if !fields.is_empty() {
        return outermost(entries, peer, trusted);
    }
    let elements = elements(headers);
    let entries = elements.iter().rev().map(|element| address_of(parameter(element, "for")?.as_bytes()));
    outermost(entries, peer, trusted)
}

/// The first of these addresses, from the nearest to the farthest, that is no proxy's.
fn outermost(
    entries: impl Iterator<Item = Option<IpAddr>>,
    peer: IpAddr,
    trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let mut client = peer;
    for address in entries {
        let Some(address) = address else { break };
        client = address.to_canonical();
        if !trusted(address) {
            break;
        }
    }
    client
}

/// Whether the proxy says that the client spoke TLS: exactly one value, `https`, or the last element of `Forwarded`.
pub(super) fn over_tls(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all("x-forwarded-proto").iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.as_bytes().eq_ignore_ascii_case(b"https"),
        (Some(_), Some(_)) => false,
        (None, _) => {
            let elements = elements(headers);
            let said = elements.last().and_then(|element| parameter(element, "proto"));
            said.is_some_and(|proto| proto.eq_ignore_ascii_case("https"))
        }
    }
}

/// The elements of `Forwarded`, the last of them the nearest proxy's, if it counts. A field that is no text, or leaves a
/// quote open, counts as one element that says nothing: a client that opens a quote would have what its proxy adds
/// taken for a part of its own element.
fn elements(headers: &HeaderMap) -> Vec<Vec<&str>> {
    if headers.contains_key("x-forwarded-for") || headers.contains_key("x-forwarded-proto") {
        return Vec::new();
    }
    let is_closed = |text: &&str| text.matches('"').count().is_multiple_of(2);
    let texts = headers.get_all(FORWARDED).iter().map(|value| value.to_str().ok().filter(is_closed));
    let texts = texts.map(Option::unwrap_or_default);
    texts.flat_map(|text| split(text, ',')).map(|element| split(element, ';')).collect()
}

/// The value of the parameter of this name, without its quotes; `None` also if it is there twice.
fn parameter<'t>(element: &[&'t str], wanted: &str) -> Option<&'t str> {
    let mut values = element.iter().filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case(wanted).then_some(value.trim())
    });
    let value = values.next().filter(|_| values.next().is_none())?;
    Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

/// Cuts at `separator`, but not within quotes.
fn split(text: &str, separator: char) -> Vec<&str> {
    let mut is_quoted = false;
    text.split(|character| {
        is_quoted ^= character == '"';
        character == separator && !is_quoted
    })
    .collect()
}

/// An address, maybe with a port.
fn address_of(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim();
    text.parse()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_proxy_may_say_it_with_forwarded() {
        let trusted = |address: IpAddr| address.to_string().starts_with("10.");
        for (fields, expected, is_tls) in [
            (&[("forwarded", "for=203.0.113.7;proto=https;by=10.0.0.1")][..], "203.0.113.7", true),
            (&[("forwarded", "For=\"[2001:db8::1]:4711\" ; Proto=HTTPS")], "2001:db8::1", true),
            (&[("forwarded", "for=6.6.6.6;proto=https, for=203.0.113.7;proto=http")], "203.0.113.7", false),
            (
                &[("forwarded", "for=6.6.6.6"), ("forwarded", "for=203.0.113.7, for=10.0.0.2")],
                "203.0.113.7",
                false,
            ),
            // Whoever can't be read ends the walk.
            (&[("forwarded", "for=6.6.6.6, for=unknown, for=10.0.0.2;proto=https")], "10.0.0.2", true),
            (&[("forwarded", "for=6.6.6.6, for=_hidden")], "10.0.0.1", false),
            (&[("forwarded", "for=6.6.6.6, proto=https")], "10.0.0.1", true),
            (&[("forwarded", "for=6.6.6.6;for=7.7.7.7;proto=https;proto=https")], "10.0.0.1", false),
            // A quote that a client left open must not swallow what its proxy has added.
            (&[("forwarded", "for=6.6.6.6;proto=https;x=\", for=203.0.113.7;proto=http")], "10.0.0.1", false),
            (
                &[("forwarded", "for=6.6.6.6;proto=https;x=\", for=\"203.0.113.7\";proto=http")],
                "10.0.0.1",
                false,
            ),
            (
                &[("forwarded", "for=6.6.6.6;proto=https;x=\"\\\", for=203.0.113.7;proto=http")],
                "203.0.113.7",
                false,
            ),
            // Quotes hide separators.
            (&[("forwarded", "for=6.6.6.6;host=\"a,for=7.7.7.7\"")], "6.6.6.6", false),
            (&[("forwarded", "host=\"a, for=6.6.6.6;proto=https")], "10.0.0.1", false),
            (&[("forwarded", "")], "10.0.0.1", false),
            // What a client made up for a proxy that says it in the other way.
            (
                &[("forwarded", "for=6.6.6.6;proto=https"), ("x-forwarded-for", "203.0.113.7")],
                "203.0.113.7",
                false,
            ),
            (&[("forwarded", "for=6.6.6.6;proto=https"), ("x-forwarded-proto", "http")], "10.0.0.1", false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            let found = client(&headers, "10.0.0.1".parse().unwrap(), trusted);
            assert_eq!((found.to_string().as_str(), over_tls(&headers)), (expected, is_tls), "{fields:?}");
        }
    }

    /// HDR-04: only what our own proxies wrote counts.
    #[test]
    fn the_client_is_the_last_address_that_is_no_proxy() {
        let trusted = |address: IpAddr| address.to_string().starts_with("10.");
        for (fields, expected) in [
            (&[][..], "10.0.0.1"),
            (&[&b"203.0.113.7"[..]], "203.0.113.7"),
            (&[b"6.6.6.6, 203.0.113.7"], "203.0.113.7"),
            (&[b"6.6.6.6", b"203.0.113.7"], "203.0.113.7"),
            (&[b"203.0.113.7, 10.0.0.9"], "203.0.113.7"),
            (&[b"203.0.113.7:4711, 10.0.0.9"], "203.0.113.7"),
            (&[b"[2001:db8::1]:443"], "2001:db8::1"),
            (&[b"[2001:db8::1]"], "2001:db8::1"),
            // Brackets are for the addresses of version 6 only (RFC 7239 section 6).
            (&[b"6.6.6.6, [203.0.113.7], 10.0.0.9"], "10.0.0.9"),
            (&[b"6.6.6.6", b"\xff, 203.0.113.7"], "203.0.113.7"),
            (&[b"6.6.6.6", b"\xff"], "10.0.0.1"),
            (&[b"6.6.6.6, unknown, 10.0.0.9"], "10.0.0.9"),
            (&[b"10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ] {
            let headers = fields
                .iter()
                .map(|field| {
                    (
                        http::HeaderName::from_static("x-forwarded-for"),
                        HeaderValue::from_bytes(field).unwrap(),
                    )
                })
                .collect();
            assert_eq!(
                client(&headers, "10.0.0.1".parse().unwrap(), trusted).to_string(),
                expected,
                "{fields:?}"
            );
        }
    }

    #[test]
    fn tls_is_said_once_and_plainly() {
        for (values, expected) in [
            (&["https"][..], true),
            (&["HTTPS"], true),
            (&["http"], false),
            (&["https, http"], false),
            (&[], false),
            (&["https", "http"], false),
        ] {
            let headers = values
                .iter()
                .map(|value| {
                    (http::HeaderName::from_static("x-forwarded-proto"), HeaderValue::from_static(value))
                })
                .collect();
            assert_eq!(over_tls(&headers), expected, "{values:?}");
        }
    }
}
