//! What is settled about a request before the handler gets it: HTTP/1 targets are brought to origin-form, what h2
//! lets through although the front would refuse it on HTTP/1 is refused here too, and a WebSocket looks the same
//! on both (RFC 8441), on the way in and on the way out.

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::ext::Protocol;

use super::front::{Bounds, MAX_METHOD_BYTES, Violation, content_length, is_host, is_imitation, is_target};

/// Turns an absolute target into its path and query. Its authority equals Host: the front saw to that.
pub(super) fn to_origin_form<B>(request: &mut Request<B>) {
    if request.uri().scheme().is_some() {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
    }
}

/// Judges an HTTP/2 request by the bounds and alphabets of the front. What RFC 9113 section 8 forbids and h2
/// refuses itself (connection fields, upper case, pseudo fields out of place, lengths that lie) is not
/// repeated. A `#` in `:path` cannot be refused: the `http` crate cuts it off, with what follows, before
/// anybody can look, so judgement and forwarding both see the path without it.
pub(super) fn check_http2<B>(request: &Request<B>, bounds: &Bounds) -> Result<(), Violation> {
    if request.method() == Method::CONNECT && !opens_websocket(request) {
        return Err(Violation::Connect);
    }
    if request.method().as_str().len() > MAX_METHOD_BYTES {
        return Err(Violation::MethodTooLong);
    }
    if request.uri().scheme_str().is_some_and(|scheme| !scheme.eq_ignore_ascii_case(bounds.scheme)) {
        return Err(Violation::Target);
    }
    check_target(request.uri(), bounds)?;
    check_authority(request)?;
    check_fields(request.headers(), bounds)
}

/// Whether a CONNECT asks for a WebSocket (RFC 8441 section 4). No other protocol is offered.
fn opens_websocket<B>(request: &Request<B>) -> bool {
    request.extensions().get::<Protocol>().is_some_and(|protocol| protocol.as_str() == WEBSOCKET)
}

/// Turns a CONNECT that [`check_http2`] let through into the handshake that it stands for (RFC 6455 section
/// 4.1): rules and records know it as the GET that it would be on HTTP/1.1. True: it was one.
pub(super) fn to_handshake<B>(request: &mut Request<B>) -> bool {
    let opens = request.method() == Method::CONNECT;
    if opens {
        *request.method_mut() = Method::GET;
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        request.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(WEBSOCKET));
    }
    opens
}

/// Turns the answer to such a handshake into one to a CONNECT: 200 is its 101 (RFC 8441 section 5). Any other
/// 2xx would be taken for that too, so it is not said.
pub(super) fn to_connect_answer<B>(response: &mut Response<B>) {
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        *response.status_mut() = StatusCode::OK;
        for name in [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_ACCEPT] {
            response.headers_mut().remove(name);
        }
    } else if status.is_success() {
        *response.status_mut() = StatusCode::BAD_GATEWAY;
    }
}

fn check_target(uri: &Uri, bounds: &Bounds) -> Result<(), Violation> {
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    if target.len() > bounds.target_bytes {
        return Err(Violation::TargetTooLong);
    }
    let path = uri.path().len();
    let bytes_are_good = target.bytes().enumerate().all(|(at, byte)| is_target(byte, at > path));
    if target.starts_with('/') && bytes_are_good { Ok(()) } else { Err(Violation::Target) }
}

/// That there is exactly one host to go by. Where `:authority` and `Host` are both there, that they agree is
/// for the handler to check, which answers for hosts.
fn check_authority<B>(request: &Request<B>) -> Result<(), Violation> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Violation::HostRepeated);
    }
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    match authority.or(host.map(HeaderValue::as_bytes)) {
        Some(name) if is_host(name) => Ok(()),
        Some(_) => Err(Violation::HostInvalid),
        None => Err(Violation::HostMissing),
    }
}

fn check_fields(fields: &HeaderMap, bounds: &Bounds) -> Result<(), Violation> {
    // Clients cut the Cookie field into pieces for compression (RFC 9113 section 8.2.3).
    let crumbs = fields.get_all(header::COOKIE).iter().count();
    if fields.len() - crumbs.saturating_sub(1) > bounds.fields {
        return Err(Violation::TooManyFields);
    }
    // As RFC 9113 section 6.5.2 counts.
    let size: usize =
        fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD).sum();
    if size > bounds.head_bytes || (size > MAX_REPEATED_BYTES && repeated_bytes(fields) > MAX_REPEATED_BYTES)
    {
        return Err(Violation::HeadTooLarge);
    }
    let mut lengths = fields.get_all(header::CONTENT_LENGTH).iter();
    let is_good = lengths.next().is_none_or(|length| content_length(length.as_bytes()).is_some());
    if !is_good || lengths.next().is_some() {
        return Err(Violation::ContentLength);
    }
    for (name, value) in fields {
        let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        if is_space(value.as_bytes().first()) || is_space(value.as_bytes().last()) {
            return Err(Violation::Padding);
        }
        if is_imitation(name.as_str().as_bytes()) {
            return Err(Violation::Imitation);
        }
    }
    Ok(())
}

/// What values take that the head has already. HPACK names a field of earlier in a byte or two (RFC 7541 section 6.1),
/// and the decoder gives out the same memory each time: a few bytes could stand for a head as large as we take, again
/// and again (section 7.3). No client has a reason to send one long value twice in a request.
fn repeated_bytes(fields: &HeaderMap) -> usize {
    let mut values: Vec<_> = fields.values().map(|value| (value.as_bytes().as_ptr(), value.len())).collect();
    let all: usize = values.iter().map(|(_, length)| length).sum();
    values.sort_unstable();
    values.dedup();
    all - values.iter().map(|(_, length)| length).sum::<usize>()
}

/// The most of these.
const MAX_REPEATED_BYTES: usize = 4096;

/// What a field counts beside its name and value.
const FIELD_OVERHEAD: usize = 32;

const WEBSOCKET: &str = "websocket";

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { head_bytes: 4096, fields: 4, target_bytes: 20, scheme: "https" };

    fn verdict(method: &str, uri: &str, fields: &[(&str, &str)]) -> Result<(), Violation> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        check_http2(&request.body(()).unwrap(), &BOUNDS)
    }

    #[test]
    fn http2_requests_are_judged_like_those_of_http1() {
        let [longest, long] = [32, 33].map(|length| "m".repeat(length));
        let crumbs = [("cookie", "a=b"); 9];
        // With its name, and what a field counts beside: 4096 bytes, and one more.
        let [full, fuller] = [4096 - 33, 4096 - 32].map(|length| "v".repeat(length));
        for (method, uri, fields, wanted) in [
            ("GET", "https://a/", &[][..], Ok(())),
            ("GET", "https://a:1/b?c?d`", &[("host", "x y")], Ok(())),
            ("GET", "/b", &[("host", "a")], Ok(())),
            ("GET", "https://a/", &crumbs, Ok(())),
            ("GET", "https://a/0123456789abcdefghi", &[], Ok(())),
            ("GET", "https://a/0123456789abcdefghij", &[], Err(Violation::TargetTooLong)),
            ("CONNECT", "a:443", &[], Err(Violation::Connect)),
            (&longest, "https://a/", &[], Ok(())),
            (&long, "https://a/", &[], Err(Violation::MethodTooLong)),
            ("OPTIONS", "*", &[("host", "a")], Err(Violation::Target)),
            ("GET", "https://a?b", &[], Err(Violation::Target)),
            ("GET", "https://a/é", &[], Err(Violation::Target)),
            ("GET", "https://u@a/", &[], Err(Violation::HostInvalid)),
            ("GET", "/", &[], Err(Violation::HostMissing)),
            ("GET", "/", &[("host", "a b")], Err(Violation::HostInvalid)),
            ("GET", "https://a/", &[("host", "a"), ("host", "a")], Err(Violation::HostRepeated)),
            ("GET", "https://a/", &[("x", " y")], Err(Violation::Padding)),
            ("GET", "https://a/", &[("x", "y\t")], Err(Violation::Padding)),
            ("GET", "https://a/", &[("content_length", "1")], Err(Violation::Imitation)),
            ("GET", "https://a/", &[("x", "y"); 4], Ok(())),
            ("GET", "https://a/", &[("x", "y"); 5], Err(Violation::TooManyFields)),
            ("GET", "https://a/", &[("x", &full)], Ok(())),
            ("GET", "https://a/", &[("x", &fuller)], Err(Violation::HeadTooLarge)),
            ("GET", "HTTPS://a/", &[], Ok(())),
            ("GET", "http://a/", &[], Err(Violation::Target)),
            ("GET", "ftp://a/", &[], Err(Violation::Target)),
            ("POST", "https://a/", &[("content-length", "3")], Ok(())),
            ("POST", "https://a/", &[("content-length", "03")], Err(Violation::ContentLength)),
            ("POST", "https://a/", &[("content-length", "+3")], Err(Violation::ContentLength)),
            (
                "POST",
                "https://a/",
                &[("content-length", "3"), ("content-length", "3")],
                Err(Violation::ContentLength),
            ),
        ] {
            assert_eq!(verdict(method, uri, fields), wanted, "{method} {uri} {fields:?}");
        }
    }

    /// H2-03: what HPACK repeats for a byte.
    #[test]
    fn a_long_value_comes_once() {
        let bounds = Bounds { head_bytes: 64 * 1024, fields: 40, ..BOUNDS };
        let verdict = |values: &[HeaderValue], name: &'static str| {
            let mut request = Request::builder().uri("https://a/").body(()).unwrap();
            for value in values {
                request.headers_mut().append(name, value.clone());
            }
            check_http2(&request, &bounds)
        };
        let value = |length: usize| HeaderValue::from_str(&"v".repeat(length)).unwrap();
        let [most, more, long, short] = [4096, 4097, 3700, 50].map(value);
        for name in ["cookie", "x"] {
            // The same memory, as the decoder gives it.
            assert_eq!(verdict(&vec![most.clone(); 2], name), Ok(()), "{name}");
            assert_eq!(verdict(&vec![more.clone(); 2], name), Err(Violation::HeadTooLarge), "{name}");
            assert_eq!(verdict(&vec![long.clone(); 2], name), Ok(()), "{name}");
            assert_eq!(verdict(&vec![long.clone(); 3], name), Err(Violation::HeadTooLarge), "{name}");
            assert_eq!(verdict(&vec![short.clone(); 30], name), Ok(()), "{name}");
            // The same bytes, each sent.
            let sent: Vec<_> = (0..15).map(|_| value(3700)).collect();
            assert_eq!(verdict(&sent, name), Ok(()), "{name}");
        }
    }

    #[test]
    fn only_websockets_may_connect() {
        let connect = |protocol| {
            let request = Request::builder().method("CONNECT").uri("https://a/ws");
            request.extension(Protocol::from_static(protocol)).body(()).unwrap()
        };
        for (protocol, wanted) in [
            ("websocket", Ok(())),
            ("connect-udp", Err(Violation::Connect)),
            ("webtransport", Err(Violation::Connect)),
            ("WebSocket", Err(Violation::Connect)),
        ] {
            assert_eq!(check_http2(&connect(protocol), &BOUNDS), wanted, "{protocol}");
        }
        let mut request = connect("websocket");
        assert!(to_handshake(&mut request));
        assert_eq!(
            (request.method(), &request.headers()["upgrade"]),
            (&Method::GET, &"websocket".parse().unwrap())
        );
        assert!(!to_handshake(&mut request));
    }

    #[test]
    fn no_answer_but_101_opens_a_tunnel_for_a_connect() {
        for (status, wanted) in [(101, 200), (200, 502), (204, 502), (302, 302), (401, 401), (503, 503)] {
            let response = Response::builder().status(status).header("upgrade", "websocket");
            let mut response = response.header("sec-websocket-protocol", "chat").body(()).unwrap();
            to_connect_answer(&mut response);
            assert_eq!(response.status(), wanted);
            assert_eq!(response.headers().contains_key("upgrade"), status != 101);
            assert!(response.headers().contains_key("sec-websocket-protocol"));
        }
    }

    #[test]
    fn absolute_targets_lose_their_authority() {
        for (before, after) in [("https://a/b?c", "/b?c"), ("https://a", "/"), ("/b?c", "/b?c")] {
            let mut request = Request::builder().uri(before).body(()).unwrap();
            to_origin_form(&mut request);
            assert_eq!(request.uri(), after);
        }
    }
}
