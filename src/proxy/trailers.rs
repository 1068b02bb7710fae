//! Fields that come after a body: which of a request's may cross, and how each side says that it takes them.
//!
//! Most applications never look at trailers, some treat them like headers. So nothing may come in a trailer
//! that could not have come in a header, nor what only a head may say (RFC 9110 section 6.5.1).

use http::header::{CONNECTION, TE, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::HttpVersion;
use super::headers::{Mapped, is_always_stripped, normalised};
use crate::web::trailers::FORBIDDEN;

/// What a request's head says about trailers. It is hop-by-hop, so it is read before the head is stripped.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// The client takes trailers (`TE: trailers`, RFC 9110 section 10.1.4).
    accepted: bool,
    /// The trailers that the client announces, less those that may not cross.
    announced: Option<HeaderValue>,
}

impl Said {
    /// Reads the client's head.
    pub(super) fn read(headers: &HeaderMap, mapped: &Mapped) -> Self {
        Self { accepted: accepts(headers), announced: announced(headers, mapped) }
    }

    /// Says the same in a head that goes to the application. TE is a connection option of HTTP/1.1 (RFC 9110
    /// section 10.1.4), and the one that HTTP/2 has (RFC 9113 section 8.2.2).
    pub(super) fn restate(self, headers: &mut HeaderMap, version: HttpVersion) {
        if self.accepted {
            headers.insert(TE, TRAILERS);
            if version == HttpVersion::Http1 {
                headers.insert(CONNECTION, HeaderValue::from_static("te"));
            }
        }
        if let Some(announced) = self.announced {
            headers.insert(TRAILER, announced);
        }
    }
}

const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

fn accepts(headers: &HeaderMap) -> bool {
    items(headers, &TE).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

fn announced(headers: &HeaderMap, mapped: &Mapped) -> Option<HeaderValue> {
    let mut list = Vec::new();
    for item in items(headers, &TRAILER) {
        let Ok(name) = HeaderName::from_bytes(item) else { continue };
        if may_cross(&name, mapped) {
            if !list.is_empty() {
                list.extend_from_slice(b", ");
            }
            list.extend_from_slice(name.as_str().as_bytes());
        }
    }
    if list.is_empty() { None } else { HeaderValue::try_from(list).ok() }
}

fn items<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    let values = headers.get_all(name).into_iter();
    values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// Removes the trailers of a request that may not cross.
pub(super) fn strip(trailers: &mut HeaderMap, mapped: &Mapped) {
    let unwanted: Vec<HeaderName> =
        trailers.keys().filter(|name| !may_cross(name, mapped)).cloned().collect();
    for name in unwanted {
        trailers.remove(name);
    }
}

fn may_cross(name: &HeaderName, mapped: &Mapped) -> bool {
    let name = normalised(name.as_str());
    !is_always_stripped(&name)
        && !mapped.contains(&name)
        && !FORBIDDEN.contains(&&*name)
        && !ONLY_IN_HEADS.contains(&&*name)
        && !ONLY_IN_HEADS_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Controls, conditions, authentication and preferences of requests (RFC 9110 sections 10 to 13). An
/// application acts on them before the body, or not at all.
const ONLY_IN_HEADS: [&str; 8] =
    ["accept", "expect", "from", "max-forwards", "origin", "range", "referer", "user-agent"];

const ONLY_IN_HEADS_PREFIXES: [&str; 5] = ["accept-", "access-control-", "content-", "if-", "sec-"];

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair =
            |(name, value): &(&'static str, &'static str)| (name.parse().unwrap(), value.parse().unwrap());
        fields.iter().map(pair).collect::<HeaderMap>()
    }

    fn mapped() -> Mapped {
        Mapped::new(&[HeaderName::from_static("x-user")])
    }

    #[test]
    fn what_a_head_may_not_say_a_trailer_may_not_either() {
        for name in [
            "x-user",
            "x_user",
            "x.user",
            "x-forwarded-for",
            "x_forwarded_proto",
            "x-real-ip",
            "x-request-id",
            "x-portcullis-assertion",
            "forwarded",
            "host",
            "cookie",
            "authorization",
            "proxy-authorization",
            "content-length",
            "content_length",
            "content-type",
            "transfer-encoding",
            "trailer",
            "te",
            "connection",
            "upgrade",
            "if-match",
            "range",
            "expect",
            "origin",
            "sec-fetch-site",
            "x-http-method-override",
        ] {
            let mut trailers = map(&[(name, "1"), ("x-checksum", "2"), ("grpc-status", "0")]);
            strip(&mut trailers, &mapped());
            assert_eq!(trailers, map(&[("x-checksum", "2"), ("grpc-status", "0")]), "{name}");
        }
    }

    #[test]
    fn what_is_said_about_trailers_is_restated() {
        for (fields, version, expected) in [
            (&[][..], HttpVersion::Http1, &[][..]),
            (&[("te", "gzip, Trailers")], HttpVersion::Http1, &[("te", "trailers"), ("connection", "te")]),
            (&[("te", "trailers")], HttpVersion::Http2, &[("te", "trailers")]),
            (&[("te", "gzip;q=1")], HttpVersion::Http2, &[]),
            (
                &[("trailer", "X-Sum, Host"), ("trailer", "x_user,, b c")],
                HttpVersion::Http2,
                &[("trailer", "x-sum")],
            ),
            (&[("trailer", "host")], HttpVersion::Http1, &[]),
        ] {
            let mut headers = HeaderMap::new();
            Said::read(&map(fields), &mapped()).restate(&mut headers, version);
            assert_eq!(headers, map(expected), "{fields:?}");
        }
    }
}
