//! HTTP/2: what a client may not send, on raw frames.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::support::*;
use crate::server::Limits;

/// A client that writes frames as it likes.
pub(super) struct Raw(pub(super) TlsStream<TcpStream>);

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Back {
    /// The `:status` of stream 1, if it was one of those that HPACK has in its static table, else 0.
    Headers(u16),
    Reset(u32),
    GoAway(u32),
    End,
}

impl Raw {
    pub(super) async fn connect(server: &Server) -> Self {
        let mut stream = server.connect(b"h2").await;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        stream.write_all(&frame(4, 0, 0, b"")).await.unwrap();
        Self(stream)
    }

    pub(super) async fn send(&mut self, frames: &[u8]) {
        // A server that has had enough may have closed already.
        let _ = self.0.write_all(frames).await;
        let _ = self.0.flush().await;
    }

    /// The first frame that says something about the fate of stream 1 or of the connection.
    pub(super) async fn back(&mut self) -> Back {
        loop {
            let mut header = [0; 9];
            if within(self.0.read_exact(&mut header)).await.is_err() {
                return Back::End;
            }
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let mut payload = vec![0; length];
            if within(self.0.read_exact(&mut payload)).await.is_err() {
                return Back::End;
            }
            let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            match header[3] {
                1 => return Back::Headers(status(&payload)),
                3 => return Back::Reset(code(0)),
                7 => return Back::GoAway(code(4)),
                6 if header[4] == 0 => self.send(&frame(6, 1, 0, &payload)).await,
                _ => {}
            }
        }
    }
}

impl Raw {
    /// The stream of the next frame whose kind and flags are such.
    async fn until(&mut self, is_wanted: impl Fn(u8, u8) -> bool) -> u32 {
        loop {
            let mut header = [0; 9];
            within(self.0.read_exact(&mut header)).await.unwrap();
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            within(self.0.read_exact(&mut vec![0; length])).await.unwrap();
            let stream = u32::from_be_bytes(header[5..].try_into().unwrap());
            if stream > 0 && is_wanted(header[3], header[4]) {
                return stream;
            }
        }
    }
}

/// HPACK: indexed fields 8 to 14 are statuses; a literal status begins with an index into the static table
/// too, and its value is Huffman-coded digits.
fn status(block: &[u8]) -> u16 {
    match block.iter().find(|byte| **byte & 0xe0 != 0x20) {
        Some(0x88) => 200,
        Some(0x8c) => 400,
        _ => 0,
    }
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block of literals without indexing.
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    let text = |block: &mut Vec<u8>, text: &str| {
        match text.len() {
            length @ ..127 => block.push(u8::try_from(length).unwrap()),
            length => {
                block.push(127);
                let mut rest = length - 127;
                while rest >= 128 {
                    block.push(u8::try_from(rest % 128).unwrap() | 128);
                    rest /= 128;
                }
                block.push(u8::try_from(rest).unwrap());
            }
        }
        block.extend_from_slice(text.as_bytes());
    };
    for (name, value) in fields {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

pub(super) const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/p")];

pub(super) fn get(extra: &[(&str, &str)]) -> Vec<u8> {
    block(&[&GET, extra].concat())
}

/// RFC 8441 section 4.
const CONNECT: [(&str, &str); 2] = [(":method", "CONNECT"), (":protocol", "websocket")];

fn connect(extra: &[(&str, &str)]) -> Vec<u8> {
    block(&[&CONNECT, &GET[1..], extra].concat())
}

const PROTOCOL_ERROR: u32 = 1;

#[tokio::test]
async fn malformed_requests_are_reset_and_reach_nobody() {
    let server = Server::start(limits()).await;
    let odd = |from: usize, to: (&'static str, &'static str)| {
        let mut fields = GET.to_vec();
        fields[from] = to;
        block(&fields)
    };
    for (what, block) in [
        ("transfer-encoding", get(&[("transfer-encoding", "chunked")])),
        ("connection", get(&[("connection", "close")])),
        ("upgrade", get(&[("upgrade", "h2c")])),
        ("keep-alive", get(&[("keep-alive", "1")])),
        ("proxy-connection", get(&[("proxy-connection", "x")])),
        ("te", get(&[("te", "x")])),
        ("upper case", get(&[("X-A", "b")])),
        ("empty name", get(&[("", "b")])),
        ("colon in name", get(&[("a:b", "c")])),
        ("space in name", get(&[("a b", "c")])),
        ("CR LF in name", get(&[("a\r\nb", "c")])),
        ("CR LF in value", get(&[("a", "b\r\nc: d")])),
        ("LF in value", get(&[("a", "b\nc")])),
        ("NUL in value", get(&[("a", "b\0c")])),
        ("pseudo after regular", block(&[("a", "b"), GET[0], GET[1], GET[2], GET[3]])),
        ("pseudo twice", get(&[(":path", "/q")])),
        ("unknown pseudo", odd(0, (":foo", "GET"))),
        ("status", get(&[(":status", "200")])),
        ("no method", block(&GET[1..])),
        ("no path", block(&GET[..3])),
        ("no scheme", block(&[GET[0], GET[2], GET[3]])),
        ("empty path", odd(3, (":path", ""))),
        ("relative path", odd(3, (":path", "p"))),
        ("space in path", odd(3, (":path", "/a b"))),
        ("CR LF in path", odd(3, (":path", "/a\r\nb"))),
        ("NUL in path", odd(3, (":path", "/a\0b"))),
        ("CR LF in authority", odd(2, (":authority", "a\r\nb"))),
        ("bad method", odd(0, (":method", "G T"))),
        ("extended CONNECT without path", block(&[CONNECT[0], CONNECT[1], GET[1], GET[2]])),
        ("extended CONNECT without scheme", block(&[CONNECT[0], CONNECT[1], GET[2], GET[3]])),
        ("extended CONNECT with upgrade", connect(&[("upgrade", "websocket")])),
        ("extended CONNECT with connection", connect(&[("connection", "upgrade")])),
        ("protocol twice", connect(&[CONNECT[1]])),
        ("protocol without CONNECT", get(&[CONNECT[1]])),
        ("CONNECT with path", block(&[CONNECT[0], GET[2], GET[3]])),
        ("content-length with END_STREAM", get(&[("content-length", "5")])),
        ("content-length twice", get(&[("content-length", "0"), ("content-length", "1")])),
        ("content-length signed", get(&[("content-length", "+0")])),
    ] {
        let mut raw = Raw::connect(&server).await;
        raw.send(&frame(1, 5, 1, &block)).await;
        let back = raw.back().await;
        assert!(matches!(back, Back::Reset(PROTOCOL_ERROR) | Back::GoAway(_)), "{what}: {back:?}");
        assert!(server.shared.seen().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn lengths_that_lie_are_reset() {
    let server = Server::start(limits()).await;
    for (length, data) in [("3", &b"12345"[..]), ("9", b"12345"), ("0", b"12345")] {
        let mut raw = Raw::connect(&server).await;
        let head =
            block(&[(":method", "POST"), GET[1], GET[2], (":path", "/length"), ("content-length", length)]);
        raw.send(&[frame(1, 4, 1, &head), frame(0, 1, 1, data)].concat()).await;
        assert_eq!(raw.back().await, Back::Reset(PROTOCOL_ERROR), "{length}");
    }
}

/// hyper ends the whole connection over it.
#[tokio::test]
async fn a_connect_with_a_length_reaches_nobody() {
    let server = Server::start(limits()).await;
    let mut raw = Raw::connect(&server).await;
    raw.send(&[frame(1, 4, 1, &connect(&[("content-length", "5")])), frame(0, 1, 1, b"12345")].concat())
        .await;
    let back = raw.back().await;
    assert!(!matches!(back, Back::Headers(_)), "{back:?}");
    assert!(server.shared.seen().is_empty());
}

#[tokio::test]
async fn what_h2_lets_through_is_refused_before_the_handler() {
    let server = Server::start(limits()).await;
    let odd = |from: usize, to: (&'static str, &'static str)| {
        let mut fields = GET.to_vec();
        fields[from] = to;
        block(&fields)
    };
    for (what, block, why) in [
        ("CONNECT", block(&[(":method", "CONNECT"), (":authority", "a:1")]), "Connect"),
        (
            "CONNECT for another protocol",
            block(&[CONNECT[0], (":protocol", "connect-udp"), GET[1], GET[2], GET[3]]),
            "Connect",
        ),
        ("asterisk", odd(3, (":path", "*")), "Target"),
        ("path above ASCII", odd(3, (":path", "/é")), "Target"),
        ("userinfo", odd(2, (":authority", "u@localhost")), "HostInvalid"),
        ("no host", block(&[GET[0], GET[1], GET[3]]), "HostMissing"),
        ("padded value", get(&[("a", " b")]), "Padding"),
        ("imitation", get(&[("transfer_encoding", "chunked")]), "Imitation"),
        ("two hosts", get(&[("host", "a"), ("host", "b")]), "HostRepeated"),
    ] {
        let mut raw = Raw::connect(&server).await;
        raw.send(&frame(1, 5, 1, &block)).await;
        assert!(matches!(raw.back().await, Back::Headers(0 | 400)), "{what}");
        assert_eq!(server.shared.seen(), [format!("refused {why}")], "{what}");
    }
    // The parser of targets cuts a fragment off before anybody can look; nothing but the rest is judged.
    let mut raw = Raw::connect(&server).await;
    raw.send(&frame(1, 5, 1, &odd(3, (":path", "/p#/../q")))).await;
    assert_eq!(raw.back().await, Back::Headers(200));
    assert_eq!(server.shared.seen(), ["GET /p"]);
}

#[tokio::test]
async fn a_large_cookie_in_crumbs_passes_and_too_large_a_list_does_not() {
    let server = Server::start(limits()).await;
    let mut http2 = server.http2().await;
    let send = |crumbs: usize| {
        let mut request = Request::builder().uri("https://localhost/p");
        for at in 0..crumbs {
            request = request.header("cookie", format!("c{at}={}", "x".repeat(400)));
        }
        request.body(Full::new(Bytes::new())).unwrap()
    };
    assert_eq!(http2.send_request(send(125)).await.unwrap().status(), 200);
    assert_eq!(http2.send_request(send(160)).await.unwrap().status(), 431);
    assert_eq!(http2.send_request(send(1)).await.unwrap().status(), 200, "the connection lives on");
}

#[tokio::test]
async fn floods_end_the_connection_and_nobody_elses() {
    // Nothing else ends it.
    let long = Duration::from_secs(3600);
    let server = Server::start(Limits {
        header_timeout: long,
        idle_timeout: long,
        body_idle_timeout: long,
        ..limits()
    })
    .await;
    let mut other = server.http2().await;
    let reset =
        |at: u32| [frame(1, 5, at * 2 + 1, &get(&[])), frame(3, 0, at * 2 + 1, &8u32.to_be_bytes())].concat();
    for (what, flood) in [
        ("rapid reset", (0..20_000).flat_map(reset).collect::<Vec<u8>>()),
        ("ping", frame(6, 0, 0, b"12345678").repeat(20_000)),
        ("settings", frame(4, 0, 0, b"").repeat(20_000)),
        ("priority", frame(2, 0, 1, b"\0\0\0\0\0").repeat(20_000)),
        ("continuation", [frame(1, 0, 1, b""), frame(9, 0, 1, b"").repeat(20_000)].concat()),
        ("empty data", [frame(1, 4, 1, &get(&[])), frame(0, 0, 1, b"").repeat(20_000)].concat()),
        (
            "header list",
            [frame(1, 0, 1, &get(&[])), frame(9, 0, 1, &block(&[("a", &"x".repeat(16_000))])).repeat(100)]
                .concat(),
        ),
    ] {
        let Raw(stream) = Raw::connect(&server).await;
        let (reader, mut writer) = tokio::io::split(stream);
        let flooding = tokio::spawn(async move {
            let _ = writer.write_all(&flood).await;
            let _ = writer.flush().await;
            std::future::pending::<()>().await;
        });
        let mut reader = reader;
        let mut bytes = Vec::new();
        let _ = within(reader.read_to_end(&mut bytes)).await;
        flooding.abort();
        // Each of them was let through at most as often as the allowance says.
        let calls = server.shared.seen().len();
        assert!(calls <= 1100, "{what}: {calls} requests");
        let request = Request::builder().uri("https://localhost/p").body(Full::new(Bytes::new())).unwrap();
        assert_eq!(other.send_request(request).await.unwrap().status(), 200, "{what}");
    }
}

#[tokio::test]
async fn half_a_header_block_is_not_waited_for() {
    let short = Duration::from_millis(300);
    let server = Server::start(Limits { header_timeout: short, ..limits() }).await;
    let mut stalled = Raw::connect(&server).await;
    stalled.send(&frame(1, 1, 1, &get(&[]))).await;
    let mut silent = server.connect(b"h2").await;
    silent.write_all(b"PRI * HTTP").await.unwrap();
    let since = std::time::Instant::now();
    assert!(matches!(stalled.back().await, Back::GoAway(_) | Back::End));
    read_all(&mut silent).await;
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    assert!(server.shared.seen().is_empty());
}

#[tokio::test]
async fn a_stream_whose_client_takes_nothing_is_reset_and_others_go_on() {
    let short = Duration::from_millis(300);
    let server = Server::start(Limits { body_idle_timeout: short, ..limits() }).await;
    let mut http2 = server.http2().await;
    let request = |path: &str| {
        Request::builder().uri(format!("https://localhost{path}")).body(Full::new(Bytes::new())).unwrap()
    };
    let stalled = http2.send_request(request("/endless")).await.unwrap();
    tokio::time::sleep(short * 4).await;
    assert_eq!(http2.send_request(request("/p")).await.unwrap().status(), 200);
    assert!(within(stalled.into_body().collect()).await.is_err(), "cut, and not ended");
}

/// However late the rest of its answer is: that of another stream is waited for.
#[tokio::test]
async fn a_stream_of_which_a_part_is_not_taken_is_reset_while_its_body_is_late() {
    let short = Duration::from_millis(300);
    let server = Server::start(Limits { body_idle_timeout: short, ..limits() }).await;
    let mut raw = Raw::connect(&server).await;
    let late = block(&[GET[0], GET[1], GET[2], (":path", "/hold-body")]);
    // Half of the first piece.
    raw.send(&frame(4, 0, 0, &[0, 4, 0, 0, 0, 2])).await;
    let more = frame(8, 0, 3, &100_u32.to_be_bytes());
    raw.send(&[frame(1, 5, 1, &late), frame(1, 5, 3, &late), more].concat()).await;
    assert_eq!(raw.back().await, Back::Headers(200));
    assert_eq!(raw.back().await, Back::Headers(200));
    let since = std::time::Instant::now();
    assert_eq!(raw.until(|kind, _| kind == 3).await, 1);
    assert!(since.elapsed() < short * 2, "{:?}", since.elapsed());
    server.shared.release.notify_waiters();
    assert_eq!(raw.until(|kind, flags| kind == 3 || flags & 1 == 1).await, 3, "whole");
}

#[tokio::test]
async fn an_idle_connection_is_told_goodbye() {
    let short = Duration::from_millis(300);
    let server = Server::start(Limits { idle_timeout: short, ..limits() }).await;
    let mut raw = Raw::connect(&server).await;
    raw.send(&frame(1, 5, 1, &get(&[]))).await;
    assert_eq!(raw.back().await, Back::Headers(200));
    assert_eq!(raw.back().await, Back::GoAway(0));
    assert!(matches!(raw.back().await, Back::GoAway(0) | Back::End));
}

#[tokio::test]
async fn the_last_answer_ends_the_connection_after_the_others() {
    let server = Server::start(limits()).await;
    let mut raw = Raw::connect(&server).await;
    let to = |path: &'static str| block(&[GET[0], GET[1], GET[2], (":path", path)]);
    raw.send(&[frame(1, 5, 1, &to("/hold")), frame(1, 5, 3, &to("/last"))].concat()).await;
    assert_eq!(raw.back().await, Back::Headers(200), "of the second");
    assert_eq!(raw.back().await, Back::GoAway(0));
    server.shared.release.notify_one();
    while let back = raw.back().await
        && back != Back::Headers(200)
    {
        assert_eq!(back, Back::GoAway(0));
    }
    while let back = raw.back().await
        && back != Back::End
    {
        assert_eq!(back, Back::GoAway(0));
    }
}
