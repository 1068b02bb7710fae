//! Memory that does not grow with what is carried: bodies of any size, and connections that only wait.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpSocket;

use crate::support::client::{Raw, connect, connect_over};
use crate::support::soon;
use crate::support::stage::{HOST, Stage};

/// Bytes of one large body.
const LARGE: u64 = 64 << 20;
const PIECE: usize = 64 << 10;

/// What the process may grow by while it carries one.
const FLAT: u64 = 16 << 20;

/// What a connection may take that has been answered and waits.
const IDLE_CONNECTION: u64 = 20 << 10;

/// Answers that nobody reads, and what the process may grow by for all of them: less than they would take if each
/// took as much as one that is alone.
const UNREAD: usize = 400;
const FOR_UNREAD: u64 = 128 << 20;

type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// A body of `LARGE` bytes that counts what has been asked of it.
fn large(sent: Arc<AtomicU64>) -> Body {
    let piece = Bytes::from(vec![b'x'; PIECE]);
    let pieces = futures_util::stream::unfold((), move |()| {
        let more = sent.fetch_add(PIECE as u64, Ordering::Relaxed) < LARGE;
        let piece = more.then(|| (Ok(Frame::data(piece.clone())), ()));
        async move { piece }
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// Waits until a sender is held up: nothing more has been asked of its body for a while. How much was.
async fn held_up(sent: &AtomicU64) -> u64 {
    let mut before = 0;
    loop {
        let now = sent.load(Ordering::Relaxed);
        if now > 0 && now == before {
            return now;
        }
        before = now;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn read(mut body: Incoming) -> u64 {
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        total += frame.unwrap().into_data().map_or(0, |data| data.len() as u64);
    }
    total
}

/// The application: takes nothing of an upload until its client is held up, and says then how much it got; sends a
/// large body otherwise.
async fn application(port: u16, sent: Arc<AtomicU64>) {
    let socket = TcpSocket::new_v4().unwrap();
    // What the system holds for many connections slows all of them down, and is not what is measured.
    socket.set_send_buffer_size(64 << 10).unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, port).into()).unwrap();
    let listener = socket.listen(1024).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let sent = sent.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let sent = sent.clone();
            async move {
                if request.method() == "GET" {
                    let sent = if request.uri().path().ends_with("/each") { Arc::default() } else { sent };
                    return Ok::<_, std::convert::Infallible>(Response::new(large(sent)));
                }
                let ahead = held_up(&sent).await;
                let total = read(request.into_body()).await;
                Ok(Response::new(Full::from(format!("{total} {ahead}")).boxed_unsync()))
            }
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
        );
    }
}

/// What a sender may be ahead of a reader who takes nothing: what the system holds for one connection, which on a busy
/// machine may be all that it is allowed to, and some more for the others on the way.
fn most_ahead() -> u64 {
    let limits = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_rmem").unwrap();
    let system: u64 = limits.split_ascii_whitespace().last().unwrap().parse().unwrap();
    (system + (16 << 20)).min(LARGE)
}

/// Sends one request over a connection of its own.
async fn ask(stage: &Stage, http2: bool, request: http::request::Builder, body: Body) -> Response<Incoming> {
    let alpn: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
    let io = TokioIo::new(connect(stage.port, Some(HOST), &[alpn]).await.unwrap());
    if http2 {
        let request = request.uri(stage.url("/public/large")).body(body).unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        return sender.send_request(request).await.unwrap();
    }
    let request = request.uri("/public/large").header("host", format!("{HOST}:{}", stage.port));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    sender.send_request(request.body(body).unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_body_of_any_size_is_carried_in_flat_memory_however_slow_its_reader_is() {
    let stage = Stage::with(|plan| plan.app_is_up = false).await;
    let sent = Arc::new(AtomicU64::new(0));
    tokio::spawn(application(stage.app.port, sent.clone()));
    let before = stage.proxy.memory();
    stage.proxy.forget_peak();
    for http2 in [false, true] {
        for upload in [false, true] {
            sent.store(0, Ordering::Relaxed);
            let request = Request::builder().method(if upload { "POST" } else { "GET" });
            let body = if upload { large(sent.clone()) } else { Body::default() };
            let what = format!("a large body, HTTP/2: {http2}, upload: {upload}");
            let exchange = async {
                let response = ask(&stage, http2, request, body).await;
                assert_eq!(response.status(), StatusCode::OK);
                if upload {
                    let got = response.into_body().collect().await.unwrap().to_bytes();
                    let (total, ahead) = std::str::from_utf8(&got).unwrap().split_once(' ').unwrap();
                    assert_eq!(total.parse(), Ok(LARGE));
                    let ahead: u64 = ahead.parse().unwrap();
                    assert!(ahead < most_ahead(), "{ahead} bytes were taken before anybody read them");
                    return;
                }
                let ahead = held_up(&sent).await;
                assert!(ahead < most_ahead(), "{ahead} bytes were taken for a client that takes none");
                assert_eq!(read(response.into_body()).await, LARGE);
            };
            soon(&what, exchange).await;
            let grown = stage.proxy.peak_memory().saturating_sub(before);
            assert!(grown < FLAT, "{what}: {grown} bytes");
        }
    }
}

/// DOS-02: what is ahead of readers that take nothing is bounded for all of them together.
#[tokio::test]
async fn many_answers_that_nobody_reads_take_bounded_memory() {
    let stage = Stage::with(|plan| plan.app_is_up = false).await;
    tokio::spawn(application(stage.app.port, Arc::default()));
    let before = stage.proxy.memory();
    stage.proxy.forget_peak();
    let mut unread = Vec::new();
    for _ in 0..UNREAD {
        // The less the system takes in, the more is left to the proxy.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        let stream = socket.connect((Ipv4Addr::LOCALHOST, stage.port).into()).await.unwrap();
        let mut raw = Raw::over(connect_over(stream, Some(HOST), &[b"http/1.1"]).await.unwrap());
        raw.send(format!("GET /public/each HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        unread.push(raw);
    }
    let mut peak = 0;
    while peak < stage.proxy.peak_memory() {
        peak = stage.proxy.peak_memory();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let grown = peak.saturating_sub(before);
    assert!(grown < FOR_UNREAD, "{grown} bytes for {UNREAD} answers that nobody reads");
    // Somebody who reads gets all of it meanwhile.
    let answer = ask(&stage, false, Request::builder(), Body::default()).await;
    assert_eq!(soon("a large answer", read(answer.into_body())).await, LARGE);
    drop(unread);
}

/// Connections that have each been answered once, so many at a time.
async fn answered(stage: &Stage, count: usize) -> Vec<Raw> {
    let mut connections = Vec::new();
    for _ in 0..count {
        let mut raw = Raw::connect(stage.port, HOST).await;
        raw.send(format!("GET /public/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        raw.answer().await.unwrap().expect(200);
        connections.push(raw);
    }
    connections
}

#[tokio::test]
async fn a_connection_that_waits_takes_little_memory_and_no_time() {
    let stage = Stage::with(|plan| plan.limit("idleTimeout", json!("60s"))).await;
    let _first = answered(&stage, 100).await;
    // Until they are parked.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = stage.proxy.memory();
    let count = 500;
    let _held = answered(&stage, count).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let each = stage.proxy.memory().saturating_sub(before) / count as u64;
    assert!(each <= IDLE_CONNECTION, "{each} bytes for each connection");
    let before = stage.proxy.processor_time();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = stage.proxy.processor_time() - before;
    assert!(used < Duration::from_millis(200), "{used:?} in a second in which nothing happens");
}
