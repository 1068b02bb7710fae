//! What trusted proxies say about a client. Nobody else is asked, and a forwarded host or path never takes part
//! in anything.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

/// The client as the proxies before us saw it: from the right, the first address that is none of theirs. An
/// entry that can't be read ends the walk, for what stands left of it was written by somebody unknown.
pub(super) fn client(headers: &HeaderMap, peer: IpAddr, trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut client = peer;
    let fields: Vec<&[u8]> =
        headers.get_all("x-forwarded-for").iter().map(|value| value.as_bytes()).collect();
    for entry in fields.iter().rev().flat_map(|field| field.rsplit(|byte| *byte == b',')) {
        let Some(address) = address_of(entry) else { break };
        client = address.to_canonical();
        if !trusted(address) {
            break;
        }
    }
    client
}

/// Whether the proxy says that the client spoke TLS: exactly one value, `https`.
pub(super) fn over_tls(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all("x-forwarded-proto").iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    value.as_bytes().eq_ignore_ascii_case(b"https")
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
