//! SMG-18, SMG-19: HTTP/2 requests that are none, or that would be two for an HTTP/1.1 parser behind. Each is refused,
//! nothing of it reaches the application, and what comes after it on the same connection is answered as itself.

use crate::support::client::FETCH;
use crate::support::frames::{DATA, END_HEADERS, END_STREAM, Fate, Field, Frames, HEADERS, block, frame};
use crate::support::stage::{HOST, Stage};

const GET: [Field<'static>; 4] = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", HOST.as_bytes()),
    (b":path", b"/public/x"),
];

/// The request with more fields.
fn get(extra: &[Field<'_>]) -> Vec<u8> {
    block(&[&GET[..], extra].concat())
}

/// The request with one field instead of another.
fn odd(at: usize, field: Field<'static>) -> Vec<u8> {
    let mut fields = GET;
    fields[at] = field;
    block(&fields)
}

/// Sends these frames on stream 1, and a good request on stream 3 behind them.
async fn refused(stage: &Stage, what: &str, frames: &[u8]) {
    let mut client = Frames::connect(stage.port, HOST).await;
    client.send(frames).await;
    let fate = client.fate(1).await;
    assert_ne!(fate, Fate::Ok, "{what}");
    assert_eq!(stage.app.count(), 0, "{what} reached the application: {}", stage.app.last().text());
    // A reset is of the one stream; a refusal that ends the connection ends it for all.
    if !matches!(fate, Fate::Over) {
        let canary = block(&[GET[0], GET[1], GET[2], (b":path", b"/admin/canary")]);
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &canary)).await;
        assert!(matches!(client.fate(3).await, Fate::Refused | Fate::Over), "{what}: the canary");
    }
    assert_eq!(stage.app.count(), 0, "{what} reached the application late");
}

/// The cases of a whole head.
fn heads() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        // SMG-18: what belongs to a connection of HTTP/1.1.
        ("transfer-encoding", get(&[(b"transfer-encoding", b"chunked")])),
        ("an imitation of it", get(&[(b"transfer_encoding", b"chunked")])),
        ("connection", get(&[(b"connection", b"close")])),
        ("connection that names a field", get(&[(b"connection", b"x-user")])),
        ("upgrade", get(&[(b"upgrade", b"h2c")])),
        ("keep-alive", get(&[(b"keep-alive", b"1")])),
        ("proxy-connection", get(&[(b"proxy-connection", b"keep-alive")])),
        ("te", get(&[(b"te", b"x")])),
        ("te with more", get(&[(b"te", b"trailers, deflate")])),
        // SMG-19: names.
        ("CR LF in a name", get(&[(b"a\r\nx-user", b"mallory")])),
        ("LF in a name", get(&[(b"a\nb", b"c")])),
        ("NUL in a name", get(&[(b"a\0b", b"c")])),
        ("a colon in a name", get(&[(b"a:b", b"c")])),
        ("a colon at the end of a name", get(&[(b"a:", b"c")])),
        ("a space in a name", get(&[(b"a b", b"c")])),
        ("a space behind a name", get(&[(b"x-user ", b"mallory")])),
        ("a tab in a name", get(&[(b"a\tb", b"c")])),
        ("DEL in a name", get(&[(b"a\x7fb", b"c")])),
        ("a name above ASCII", get(&[("x-u\u{17f}er".as_bytes(), b"mallory")])),
        ("upper case", get(&[(b"X-User", b"mallory")])),
        ("an empty name", get(&[(b"", b"c")])),
        ("a whole request in a name", get(&[(b"a: b\r\n\r\nGET /admin/ HTTP/1.1\r\nhost", b"c")])),
        // Values.
        ("CR LF in a value", get(&[(b"a", b"b\r\nx-user: mallory")])),
        ("LF in a value", get(&[(b"a", b"b\nc")])),
        ("CR in a value", get(&[(b"a", b"b\rc")])),
        ("NUL in a value", get(&[(b"a", b"b\0c")])),
        ("a space before a value", get(&[(b"a", b" b")])),
        ("a space behind a value", get(&[(b"a", b"b ")])),
        ("a tab before a value", get(&[(b"a", b"\tb")])),
        ("a tab behind a value", get(&[(b"a", b"b\t")])),
        // Pseudo-fields.
        ("a pseudo-field behind others", block(&[(b"a", b"b"), GET[0], GET[1], GET[2], GET[3]])),
        ("a path twice", get(&[GET[3]])),
        ("another path", get(&[(b":path", b"/admin/")])),
        ("a method twice", get(&[GET[0]])),
        ("an authority twice", get(&[GET[2]])),
        ("a scheme twice", get(&[GET[1]])),
        ("an unknown pseudo-field", get(&[(b":user", b"mallory")])),
        ("a status", get(&[(b":status", b"200")])),
        ("no method", block(&GET[1..])),
        ("no path", block(&GET[..3])),
        ("no scheme", block(&[GET[0], GET[2], GET[3]])),
        ("no host at all", block(&[GET[0], GET[1], GET[3]])),
        ("an empty path", odd(3, (b":path", b""))),
        ("a path without slash", odd(3, (b":path", b"public/x"))),
        ("the path of another host", odd(3, (b":path", b"https://other.test/public/"))),
        ("an asterisk", odd(3, (b":path", b"*"))),
        ("a space in the path", odd(3, (b":path", b"/public/ HTTP/1.1"))),
        ("CR LF in the path", odd(3, (b":path", b"/public/x HTTP/1.1\r\nx-user: mallory\r\nx:"))),
        ("NUL in the path", odd(3, (b":path", b"/public/\0"))),
        ("CR LF in the authority", odd(2, (b":authority", b"app.test\r\nx-user: mallory"))),
        ("userinfo in the authority", odd(2, (b":authority", b"user@app.test"))),
        ("two hosts", get(&[(b"host", HOST.as_bytes()), (b"host", HOST.as_bytes())])),
        ("another host beside the authority", get(&[(b"host", b"other.test")])),
        ("a space in the method", odd(0, (b":method", b"GET /admin/ HTTP/1.1\r\n\r\nGET"))),
        ("an empty method", odd(0, (b":method", b""))),
        ("CONNECT", block(&[(b":method", b"CONNECT"), (b":authority", b"app.test:443")])),
        ("CONNECT with a path", odd(0, (b":method", b"CONNECT"))),
        ("a protocol without CONNECT", get(&[(b":protocol", b"websocket")])),
        ("a length without a body", get(&[(b"content-length", b"5")])),
        ("two lengths", get(&[(b"content-length", b"0"), (b"content-length", b"1")])),
        ("a length that is signed", get(&[(b"content-length", b"+0")])),
        ("a length that is a list", get(&[(b"content-length", b"0, 0")])),
    ]
}

#[tokio::test]
async fn heads_that_are_none_reach_nobody() {
    let stage = Stage::usual().await;
    for (what, block) in heads() {
        refused(&stage, what, &frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await;
    }
    // The same client is served when it sends what is one.
    let mut client = Frames::connect(stage.port, HOST).await;
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &get(&[(b"te", b"trailers")]))).await;
    assert_eq!(client.fate(1).await, Fate::Ok);
    assert_eq!(stage.app.count(), 1);
}

/// A body that is longer or shorter than its length never reaches an application whole, so that nothing of it can be
/// taken for the next request.
#[tokio::test]
async fn lengths_that_lie_smuggle_nothing() {
    let stage = Stage::usual().await;
    let inner = b"GET /admin/smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n";
    for (length, body) in [(&b"0"[..], &inner[..]), (b"3", inner), (b"999", inner), (b"1", b"")] {
        let before = stage.app.count();
        let mut client = Frames::connect(stage.port, HOST).await;
        let head = block(&[
            (b":method", b"POST"),
            GET[1],
            GET[2],
            (b":path", b"/public/up"),
            (b"content-length", length),
        ]);
        let frames = [frame(HEADERS, END_HEADERS, 1, &head), frame(DATA, END_STREAM, 1, body)].concat();
        client.send(&frames).await;
        let fate = client.fate(1).await;
        assert_ne!(fate, Fate::Ok, "{length:?}");
        let canary = stage.browser().send("GET", &stage.url("/public/canary"), &FETCH, b"").await.expect(200);
        assert_eq!(canary.json()["target"], "/public/canary");
        let received = stage.app.received().split_off(before);
        let whole: Vec<String> = received.iter().map(|request| request.target()).collect();
        assert_eq!(whole, ["/public/canary"], "{length:?}: {fate:?}");
    }
}
