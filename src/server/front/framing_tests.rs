//! Tables of what a client may and may not send, each fed whole and byte by byte.

use super::super::head::Bounds;
use super::*;
use crate::server::front::Violation as V;

pub(in crate::server::front) const BOUNDS: Bounds =
    Bounds { head_bytes: 4096, fields: 20, target_bytes: 1024, scheme: "https" };

/// What came of a stream of bytes.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::server::front) struct Outcome {
    pub(in crate::server::front) passed: Vec<u8>,
    pub(in crate::server::front) heads: u64,
    pub(in crate::server::front) refused: Option<Violation>,
    /// Whether all of it was passed on and the next byte would begin a head.
    pub(in crate::server::front) at_boundary: bool,
    /// Whether the last head that passed has a body that did not end.
    pub(in crate::server::front) in_body: bool,
}

/// Feeds `pieces`, holding back as the wrapper around the machine does.
pub(in crate::server::front) fn feed<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let mut framing = Framing::new(BOUNDS);
    let (mut held, mut passed, mut refused, mut in_body) = (Vec::new(), Vec::new(), None, false);
    for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            let progress = framing.advance(&held);
            passed.extend(held.drain(..progress.pass));
            match progress.then {
                Then::AwaitUpgrade => {
                    framing.decline_upgrade();
                    continue;
                }
                Then::RefuseHead(violation) => (refused, in_body) = (Some(violation), false),
                Then::RefuseBody(violation) => (refused, in_body) = (Some(violation), true),
                Then::Continue | Then::Hold => {}
            }
            break;
        }
        if refused.is_some() {
            break;
        }
        in_body = framing.in_body();
    }
    let at_boundary = refused.is_none() && held.is_empty() && matches!(framing.state, State::Head(_));
    Outcome { passed, heads: framing.heads(), refused, at_boundary, in_body }
}

/// The outcome, which must not depend on the pieces.
pub(in crate::server::front) fn outcome(bytes: &[u8]) -> Outcome {
    let whole = feed(std::iter::once(bytes));
    assert_eq!(whole, feed(bytes.chunks(1)), "byte by byte: {:?}", String::from_utf8_lossy(bytes));
    assert_eq!(whole, feed(bytes.chunks(7)), "by sevens: {:?}", String::from_utf8_lossy(bytes));
    whole
}

fn refusal(bytes: &[u8]) -> Option<Violation> {
    outcome(bytes).refused
}

/// A request whose head has `extra` lines, each ended by CR LF, before the empty line.
fn with(extra: &str) -> String {
    format!("POST /p HTTP/1.1\r\nHost: a\r\n{extra}\r\n")
}

#[test]
fn good_requests_pass_whole() {
    for (good, heads) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 1),
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), 1),
        ("GET / HTTP/1.0\r\nHost: a\r\nConnection: close\r\n\r\n".to_owned(), 1),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 1),
        ("GET /?a=1&b=%2F%26?x HTTP/1.1\r\nhost:a:8443\r\n\r\n".to_owned(), 1),
        ("GET https://A:443/x HTTP/1.1\r\nHost: a:443\r\n\r\n".to_owned(), 1),
        ("GET HTTPS://a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 1),
        ("get / HTTP/1.1\r\nHost: [::1]:8443\r\n\r\n".to_owned(), 1),
        (
            "GETX / HTTP/1.1\r\nHost: a\r\nCookie: a=\u{e9}; b=\"c\"\tx\r\nX:\r\nY: \t z \t\r\n\r\n"
                .to_owned(),
            1,
        ),
        (with("Content-Length: 0\r\n"), 1),
        (with("Content-Length: 5\r\n") + "hello", 1),
        (with("content-length:5\r\n") + "a\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n", 2),
        (with("Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", 1),
        (
            with("transfer-encoding:CHUNKED\r\n")
                + "5;a=b; c=\"d\"\r\nhello\r\n0A\r\n0123456789\r\n000\r\nX: y\r\n\r\n",
            1,
        ),
        (with("Transfer-Encoding: chunked\r\n") + "1\r\nG\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 2),
        (with("Connection: Upgrade\r\nUpgrade: websocket\r\n") + "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 2),
        (with("Connection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: 1\r\n") + "x", 1),
    ] {
        let outcome = outcome(good.as_bytes());
        let wanted = Outcome {
            passed: good.clone().into_bytes(),
            heads,
            refused: None,
            at_boundary: true,
            in_body: false,
        };
        assert_eq!(outcome, wanted, "{good:?}");
    }
}

#[test]
fn bad_request_lines() {
    let long = "m".repeat(33);
    for (line, violation) in [
        ("GET /", V::RequestLine),
        ("GET", V::RequestLine),
        ("GET  / HTTP/1.1", V::RequestLine),
        ("GET / HTTP/1.1 ", V::RequestLine),
        (" GET / HTTP/1.1", V::RequestLine),
        ("GET / x HTTP/1.1", V::RequestLine),
        ("GET /a b HTTP/1.1", V::RequestLine),
        ("GET / http/1.1", V::RequestLine),
        ("G@T / HTTP/1.1", V::RequestLine),
        ("{} / HTTP/1.1", V::RequestLine),
        ("GET\t/ HTTP/1.1", V::Control),
        ("GET /\t HTTP/1.1", V::Control),
        ("GET /\u{0} HTTP/1.1", V::Control),
        ("GET /\u{7f} HTTP/1.1", V::Control),
        ("GET / HTTP/1.1\u{b}", V::Control),
        ("GET / HTTP/1.2", V::Version),
        ("GET / HTTP/2.0", V::Version),
        ("GET / HTTP/1.", V::Version),
        ("GET / HTTP/1.11", V::Version),
        ("GET / HTTP/0.9", V::Version),
        ("PRI * HTTP/2.0", V::Version),
        ("CONNECT a:443 HTTP/1.1", V::Connect),
        ("CONNECT / HTTP/1.1", V::Connect),
        ("OPTIONS * HTTP/1.1", V::Target),
        ("GET * HTTP/1.1", V::Target),
        ("GET a:443 HTTP/1.1", V::Target),
        ("GET ?a HTTP/1.1", V::Target),
        ("GET a HTTP/1.1", V::Target),
        ("GET \\a HTTP/1.1", V::Target),
        ("GET /a#b HTTP/1.1", V::Target),
        ("GET /?a#b HTTP/1.1", V::Target),
        ("GET /é HTTP/1.1", V::Target),
        ("GET /<a> HTTP/1.1", V::Target),
        ("GET http://a/ HTTP/1.1", V::Target),
        ("GET ftp://a/ HTTP/1.1", V::Target),
        ("GET https:///a HTTP/1.1", V::Target),
        ("GET https://a?b HTTP/1.1", V::Target),
        ("GET https://u@a/ HTTP/1.1", V::Target),
        ("GET https://a/#b HTTP/1.1", V::Target),
        ("GET https://evil/ HTTP/1.1", V::HostDiffers),
        ("GET https://a:443/ HTTP/1.1", V::HostDiffers),
        ("GET https://a./ HTTP/1.1", V::HostDiffers),
    ] {
        let request = format!("{line}\r\nHost: a\r\n\r\n");
        let outcome = outcome(request.as_bytes());
        assert_eq!(outcome.refused, Some(violation), "{line:?}");
        assert!(outcome.passed.is_empty(), "{line:?}");
    }
    assert_eq!(refusal(format!("{long} / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()), Some(V::MethodTooLong));
    assert_eq!(refusal(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), Some(V::RequestLine));
    assert_eq!(refusal(b"\x16\x03\x01\x02\x00"), Some(V::RequestLine), "a TLS hello, at its first byte");
}

#[test]
fn bad_fields() {
    for (lines, violation) in [
        (" X: a\r\n", V::Folding),
        ("X: a\r\n b\r\n", V::Folding),
        ("X: a\r\n\tb\r\n", V::Folding),
        ("X : a\r\n", V::Field),
        ("X\t: a\r\n", V::Field),
        ("X\r\n", V::Field),
        (": a\r\n", V::Field),
        ("X Y: a\r\n", V::Field),
        ("X@: a\r\n", V::Field),
        ("x-u\u{17f}er: a\r\n", V::Field),
        ("(X): a\r\n", V::Field),
        ("X: a\u{0}b\r\n", V::Control),
        ("X: a\u{b}b\r\n", V::Control),
        ("X: a\u{7f}b\r\n", V::Control),
        ("X: a\rb\r\n", V::LineEnding),
        ("X: a\nY: b\r\n", V::LineEnding),
        ("X: a\r\r\n", V::LineEnding),
        ("\n", V::LineEnding),
        ("Host: b\r\n", V::HostRepeated),
        ("Host: a\r\n", V::HostRepeated),
    ] {
        assert_eq!(refusal(with(lines).as_bytes()), Some(violation), "{lines:?}");
    }
    for (host, violation) in [
        ("", V::HostMissing),
        ("Host:\r\n", V::HostInvalid),
        ("Host: a b\r\n", V::HostInvalid),
        ("Host: a, b\r\n", V::HostInvalid),
        ("Host: u@a\r\n", V::HostInvalid),
        ("Host: a/b\r\n", V::HostInvalid),
        ("Host: a:99999\r\n", V::HostInvalid),
        ("Ho_st: a\r\n", V::HostMissing),
    ] {
        assert_eq!(refusal(format!("GET / HTTP/1.1\r\n{host}\r\n").as_bytes()), Some(violation), "{host:?}");
    }
    for ending in
        ["GET / HTTP/1.1\nHost: a\n\n", "GET / HTTP/1.1\r\nHost: a\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\n"]
    {
        assert_eq!(refusal(ending.as_bytes()), Some(V::LineEnding), "{ending:?}");
    }
}

#[test]
fn lengths() {
    for value in [
        "",
        " ",
        " +5",
        " -1",
        " 0x5",
        " 5_0",
        " 5,5",
        " 5, 5",
        " 5 ",
        "  5",
        "\t5",
        " 5\t",
        " 05",
        " 00",
        " 5.0",
        " 5;a",
        " 18446744073709551621",
        " 9223372036854775808",
        " 99999999999999999999999",
        " \"5\"",
        " ５",
    ] {
        let request = with(&format!("Content-Length:{value}\r\n")) + "hello";
        assert_eq!(refusal(request.as_bytes()), Some(V::ContentLength), "{value:?}");
    }
    for lines in ["Content-Length: 5\r\nContent-Length: 5\r\n", "Content-Length: 5\r\ncontent-length: 6\r\n"]
    {
        assert_eq!(refusal((with(lines) + "hello").as_bytes()), Some(V::ContentLength), "{lines:?}");
    }
    assert_eq!(refusal((with("Content_Length: 5\r\n") + "hello").as_bytes()), Some(V::Imitation));
}

#[test]
fn transfer_encodings() {
    for value in [
        "",
        " ",
        " ,chunked",
        " chunked,",
        " chunked, chunked",
        " chunked,chunked",
        " xchunked",
        " chunkedx",
        "\tchunked",
        " \tchunked",
        "  chunked",
        " chunked ",
        " chunked\t",
        " chunked;x",
        " chunked;q=1",
        " \"chunked\"",
        " 'chunked'",
        " identity",
        " identity, chunked",
        " chunked, identity",
        " gzip",
        " gzip, chunked",
        " gzip,chunked",
        " chunked, gzip",
        " deflate",
        " cow",
        " chun ked",
        " chunke",
        " c hunked",
        " \u{a0}chunked",
        " chunked\u{85}",
        " CHUNKED, x",
        " [chunked]",
        " chunked/1",
        " chu%6eked",
        " true",
    ] {
        let request = with(&format!("Transfer-Encoding:{value}\r\n")) + "0\r\n\r\n";
        assert_eq!(refusal(request.as_bytes()), Some(V::TransferEncoding), "{value:?}");
    }
    for (lines, violation) in [
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", V::TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", V::TransferEncoding),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", V::TransferEncoding),
        ("Transfer-Encoding: \u{b}chunked\r\n", V::Control),
        ("Transfer-Encoding: chunked\u{b}\r\n", V::Control),
        ("Transfer-Encoding:\r\n chunked\r\n", V::TransferEncoding),
        ("Transfer-Encoding : chunked\r\n", V::Field),
        ("Transfer Encoding: chunked\r\n", V::Field),
        ("X: y\rTransfer-Encoding: chunked\r\n", V::LineEnding),
        ("X: y\nTransfer-Encoding: chunked\r\n", V::LineEnding),
        ("Transfer_Encoding: chunked\r\n", V::Imitation),
        ("transfer.encoding: chunked\r\n", V::Imitation),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", V::LengthAndEncoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", V::LengthAndEncoding),
        ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", V::LengthAndEncoding),
    ] {
        let request = with(lines) + "0\r\n\r\n";
        assert_eq!(refusal(request.as_bytes()), Some(violation), "{lines:?}");
    }
}

#[test]
fn http_1_0() {
    for (lines, violation) in [
        ("Transfer-Encoding: chunked\r\n", V::TransferEncoding),
        ("Connection: keep-alive\r\n", V::KeepAliveHttp10),
        ("Connection: x,\tKeep-Alive\r\n", V::KeepAliveHttp10),
    ] {
        let request = format!("POST / HTTP/1.0\r\nHost: a\r\n{lines}\r\n0\r\n\r\n");
        assert_eq!(refusal(request.as_bytes()), Some(violation), "{lines:?}");
    }
    let until_close = outcome(b"POST / HTTP/1.0\r\nHost: a\r\n\r\n{\"a\":1}");
    assert_eq!(until_close.refused, Some(V::ContentLength), "no body runs until the end of the connection");
}

#[test]
fn bad_chunks() {
    for (body, violation) in [
        ("0x0\r\n\r\n", V::ChunkSize),
        ("+0\r\n\r\n", V::ChunkSize),
        ("-0\r\n\r\n", V::ChunkSize),
        ("_\r\n", V::ChunkSize),
        ("1_0\r\n", V::ChunkSize),
        (" 0\r\n\r\n", V::ChunkSize),
        ("\r\n0\r\n\r\n", V::ChunkSize),
        ("0 \r\n\r\n", V::ChunkSize),
        ("0\t\r\n\r\n", V::ChunkSize),
        ("0g\r\n\r\n", V::ChunkSize),
        (";a\r\n", V::ChunkSize),
        ("0\n\r\n", V::ChunkSize),
        ("0\rX\n", V::ChunkSize),
        ("00000000000000000\r\n\r\n", V::ChunkSize),
        ("fffffffffffffffff\r\n", V::ChunkSize),
        ("ffffffffffffffff\r\n", V::ChunkSize),
        ("8000000000000000\r\n", V::ChunkSize),
        ("1;a\nb\r\nG\r\n", V::ChunkExtension),
        ("1;a\u{0}\r\nG\r\n", V::ChunkExtension),
        ("1;\u{e9}\r\nG\r\n", V::ChunkExtension),
        ("1;a\rb\r\nG\r\n", V::ChunkSize),
        ("1\r\nGG\r\n", V::ChunkEnd),
        ("1\r\nG\n0\r\n\r\n", V::ChunkEnd),
        ("1\r\nG0\r\n\r\n", V::ChunkEnd),
        ("1\r\nG\r0\r\n\r\n", V::ChunkEnd),
        ("1\r\nG\r\n\r\n0\r\n\r\n", V::ChunkSize),
        ("0\r\nGET / HTTP/1.1\r\n\r\n", V::Trailer),
        ("0\r\n X: y\r\n\r\n", V::Trailer),
        ("0\r\nX : y\r\n\r\n", V::Trailer),
        ("0\r\nX: y\n\r\n", V::Trailer),
        ("0\r\nX: y\rz\r\n\r\n", V::Trailer),
        ("0\r\n\n", V::Trailer),
        ("0\r\n\rX", V::Trailer),
        ("0\r\nContent-Length: 5\r\n\r\n", V::Trailer),
        ("0\r\ntransfer_encoding: chunked\r\n\r\n", V::Trailer),
        ("0\r\n\r\nX", V::RequestLine),
    ] {
        let request = with("Transfer-Encoding: chunked\r\n") + body + "\r\n";
        let outcome = outcome(request.as_bytes());
        assert_eq!(outcome.refused, Some(violation), "{body:?}");
        assert_eq!(outcome.heads, 1, "{body:?}");
    }
    let chunked = |body: String| refusal((with("Transfer-Encoding: chunked\r\n") + &body).as_bytes());
    assert_eq!(chunked(format!("1;{}\r\n", "x".repeat(5000))), Some(V::ChunkExtension));
    assert_eq!(chunked("1;xxxxxxxx\r\nG\r\n".repeat(500)), Some(V::ChunkExtension), "over all chunks");
    assert_eq!(chunked(format!("0\r\nX: {}\r\n", "x".repeat(8192))), Some(V::TrailersTooLarge));
    assert_eq!(chunked(format!("0\r\n{}", "X: y\r\n".repeat(33))), Some(V::TrailersTooLarge));
}

#[test]
fn bounds_are_exact() {
    let of_size = |bytes: usize| {
        let without = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(bytes - without))
    };
    assert_eq!(refusal(of_size(4096).as_bytes()), None);
    for bytes in [4097, 4098, 4099, 4100, 4101, 9000] {
        assert_eq!(refusal(of_size(bytes).as_bytes()), Some(V::HeadTooLarge), "{bytes}");
    }
    let with_target = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(bytes - 1));
    assert_eq!(refusal(with_target(1024).as_bytes()), None);
    for bytes in [1025, 1100, 4096, 9000] {
        assert_eq!(refusal(with_target(bytes).as_bytes()), Some(V::TargetTooLong), "{bytes}");
    }
    let with_fields = |count: usize| with(&"X: y\r\n".repeat(count - 1));
    assert_eq!(refusal(with_fields(20).as_bytes()), None);
    assert_eq!(refusal(with_fields(21).as_bytes()), Some(V::TooManyFields));
    assert_eq!(refusal("x".repeat(9000).as_bytes()), Some(V::TargetTooLong), "no line end in sight");
}

#[test]
fn nothing_of_a_bad_head_passes_and_what_came_before_does() {
    let good = with("Content-Length: 2\r\n") + "ok";
    let outcome = outcome((good.clone() + "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n").as_bytes());
    let passed = good.into_bytes();
    let wanted = Outcome { passed, heads: 1, refused: Some(V::Field), at_boundary: false, in_body: false };
    assert_eq!(outcome, wanted);
}

/// What comes after one request, and whether it is refused.
fn then(request: &str) -> Then {
    Framing::new(BOUNDS).advance(request.as_bytes()).then
}

/// A field counts by its name. Each of these is as long as one that matters, and says what would matter there.
#[test]
fn fields_of_the_same_length_mean_nothing() {
    let lines = "Date: a b\r\nReferer: websocket\r\nUser-Agent: keep-alive\r\nAccept-Charset: 5\r\n\
                 If-Modified-Since: chunked\r\n";
    assert_eq!(then(&with(lines)), Then::Continue);
    assert_eq!(then(&format!("GET / HTTP/1.0\r\n{lines}\r\n")), Then::Continue);
    let twice = format!("{lines}{lines}");
    assert_eq!(then(&with(&twice)), Then::Continue, "nor does it matter how often they come");
}

#[test]
fn an_upgrade_is_asked_for_by_its_field_and_by_http_1_1_only() {
    assert_eq!(then(&with("Upgrade: websocket\r\n")), Then::AwaitUpgrade);
    assert_eq!(then(&with("uPGRADE: x\r\n")), Then::AwaitUpgrade);
    assert_eq!(then("GET / HTTP/1.0\r\nUpgrade: websocket\r\n\r\n"), Then::Continue);
    for body in ["Content-Length: 1\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"] {
        assert_eq!(then(&format!("POST / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\n{body}")), Then::AwaitUpgrade);
    }
}

/// HTTP/1.0 knows bodies that run until the end of the connection: where one is usual, its length is wanted.
#[test]
fn http_1_0_wants_a_length_where_a_body_is_usual() {
    for (method, wanted) in
        [("GET", false), ("HEAD", false), ("DELETE", false), ("POST", true), ("PUT", true), ("PATCH", true)]
    {
        let without = refusal(format!("{method} / HTTP/1.0\r\n\r\n").as_bytes());
        assert_eq!(without, wanted.then_some(V::ContentLength), "{method}");
        assert_eq!(refusal(format!("{method} / HTTP/1.0\r\nContent-Length: 0\r\n\r\n").as_bytes()), None);
        assert_eq!(refusal(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()), None, "{method}");
    }
    let kept = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
    assert_eq!(refusal(kept.as_bytes()), None, "HTTP/1.1 keeps connections anyway");
}

/// The names of methods and fields, and the trailers, have bounds of their own, which are exact.
#[test]
fn smaller_bounds_are_exact() {
    let method =
        |length: usize| refusal(format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(length)).as_bytes());
    assert_eq!((method(32), method(33)), (None, Some(V::MethodTooLong)));
    let name = |length: usize| refusal(with(&format!("{}: y\r\n", "x".repeat(length))).as_bytes());
    assert_eq!((name(1024), name(1025)), (None, Some(V::Field)));
    let chunked = |body: String| refusal((with("Transfer-Encoding: chunked\r\n") + &body).as_bytes());
    let trailers = |count: usize| chunked(format!("0\r\n{}\r\n", "X: y\r\n".repeat(count)));
    assert_eq!((trailers(32), trailers(33)), (None, Some(V::TrailersTooLarge)));
    // The lines and their ends, that of the last and empty one included.
    let trailer = |bytes: usize| {
        let without = "X: \r\n\r\n".len();
        chunked(format!("0\r\nX: {}\r\n\r\n", "y".repeat(bytes - without)))
    };
    assert_eq!((trailer(8192), trailer(8193)), (None, Some(V::TrailersTooLarge)));
    // From the semicolon on, in one chunk or in several.
    let extensions = |bytes: usize| {
        let first = format!("1;{}\r\nG\r\n", "x".repeat(bytes - ";".len() - ";a".len()));
        chunked(first + "1;a\r\nG\r\n0\r\n\r\n")
    };
    assert_eq!((extensions(4096), extensions(4097)), (None, Some(V::ChunkExtension)));
}

/// What is said of a head of which so much has come, and no end of it.
fn so_far(bytes: &str, bounds: Bounds) -> Then {
    Framing::new(bounds).advance(bytes.as_bytes()).then
}

/// A request line without an end is refused as soon as it is longer than any that could be taken.
#[test]
fn a_request_line_is_bounded_before_it_has_ended() {
    let longest = "M".repeat(32).len() + BOUNDS.target_bytes + " HTTP/1.1 ".len();
    let line = |bytes: usize| format!("GET /{}", "x".repeat(bytes - "GET /".len()));
    assert_eq!(so_far(&line(longest), BOUNDS), Then::Hold);
    assert_eq!(so_far(&line(longest + 1), BOUNDS), Then::RefuseHead(V::TargetTooLong));
    let after_an_empty_line = |bytes: usize| format!("\r\n{}", line(bytes));
    assert_eq!(so_far(&after_an_empty_line(longest), BOUNDS), Then::Hold);
    assert_eq!(so_far(&after_an_empty_line(longest + 1), BOUNDS), Then::RefuseHead(V::TargetTooLong));
    // Where the head has no more room than its first line, it is the head that is too large.
    let small = Bounds { head_bytes: longest, ..BOUNDS };
    assert_eq!(so_far(&line(longest), small), Then::Hold);
    assert_eq!(so_far(&line(longest + 1), small), Then::RefuseHead(V::HeadTooLarge));
    let smaller = Bounds { head_bytes: longest + 1, ..BOUNDS };
    assert_eq!(so_far(&line(longest + 1), smaller), Then::RefuseHead(V::TargetTooLong));
}

#[test]
fn a_head_is_bounded_before_it_has_ended() {
    let head = |bytes: usize| {
        let without = with("X: ").len() - "\r\n".len();
        with(&format!("X: {}", "x".repeat(bytes - without))).trim_end().to_owned()
    };
    assert_eq!(head(4096).len(), 4096);
    assert_eq!(so_far(&head(4096), BOUNDS), Then::Hold);
    assert_eq!(so_far(&head(4097), BOUNDS), Then::RefuseHead(V::HeadTooLarge));
}

/// Path and query have alphabets of their own, and the first `?` is where the query begins.
#[test]
fn a_target_is_judged_by_the_part_that_a_byte_is_in() {
    for (target, violation) in [
        ("/a\"b", None),
        ("/a`b", Some(V::Target)),
        ("/a?`b", None),
        ("/a?b?`c", None),
        ("/a?\"b", Some(V::Target)),
        ("/a\"b?`c", None),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(refusal(request.as_bytes()), violation, "{target}");
    }
}
