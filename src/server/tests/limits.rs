//! Timeouts and bounds: what stands still is ended, and the answer says why where there can be one.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::*;
use crate::server::Limits;

const SHORT: Duration = Duration::from_millis(300);
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Asserts that at least `SHORT` and not much more has passed.
fn assert_short(since: Instant) {
    let passed = since.elapsed();
    assert!(passed >= SHORT - Duration::from_millis(20), "after {passed:?}");
    assert!(passed < SHORT + Duration::from_secs(4), "after {passed:?}");
}

#[tokio::test]
async fn a_head_that_stands_still_gets_408_however_it_trickles() {
    let server = Server::start(Limits { header_timeout: SHORT, ..limits() }).await;
    for before in ["", GET] {
        let mut stream = server.connect(b"http/1.1").await;
        stream.write_all(format!("{before}GET / HTTP/1.1\r\nX: ").as_bytes()).await.unwrap();
        let since = Instant::now();
        let (mut reader, mut writer) = tokio::io::split(stream);
        let trickle = tokio::spawn(async move {
            while writer.write_all(b"x").await.is_ok() && writer.flush().await.is_ok() {
                tokio::time::sleep(SHORT / 10).await;
            }
        });
        let answers = read_all(&mut reader).await;
        assert_short(since);
        assert_eq!(statuses(&answers).last(), Some(&408), "{answers}");
        trickle.abort();
    }
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed_in_silence() {
    let server = Server::start(Limits { header_timeout: SHORT, ..limits() }).await;
    let since = Instant::now();
    let mut stream = server.connect(b"http/1.1").await;
    assert_eq!(read_all(&mut stream).await, "");
    assert_short(since);
    let mut plain = server.connect_plain().await;
    assert_eq!(read_all(&mut plain).await, "");
    assert!(server.shared.seen().is_empty());
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_own_time() {
    let server = Server::start(Limits { idle_timeout: SHORT, ..limits() }).await;
    let mut stream = server.connect(b"http/1.1").await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    read_until(&mut stream, "ok").await;
    let since = Instant::now();
    assert_eq!(read_all(&mut stream).await, "");
    assert_short(since);
    // A request that takes longer than that is not idleness.
    stream = server.connect(b"http/1.1").await;
    stream.write_all(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    tokio::time::sleep(SHORT * 3).await;
    server.shared.release.notify_one();
    read_until(&mut stream, "released").await;
}

#[tokio::test]
async fn a_handshake_that_stands_still_is_ended() {
    let server = Server::start(Limits { handshake_timeout: SHORT, ..limits() }).await;
    for hello in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"] {
        let since = Instant::now();
        let mut stream = TcpStream::connect(server.tls).await.unwrap();
        stream.write_all(hello).await.unwrap();
        assert_eq!(within(stream.read(&mut [0; 1])).await.unwrap_or(0), 0);
        assert_short(since);
    }
    let reasons = format!("{:?}", server.shared.events.lock().unwrap());
    assert!(reasons.contains("took too long"), "{reasons}");
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_off() {
    let server = Server::start(Limits { body_idle_timeout: SHORT, ..limits() }).await;
    let mut stream = server.connect(b"http/1.1").await;
    stream.write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    tokio::time::sleep(SHORT * 4).await;
    let mut bytes = Vec::new();
    // What was on its way arrives, and then there is no proper end.
    let end = within(stream.read_to_end(&mut bytes)).await;
    assert!(!bytes.ends_with(b"0\r\n\r\n"), "{end:?}");
    let mut stream = server.connect(b"http/1.1").await;
    stream.write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let since = Instant::now();
    let mut buffer = vec![0; 64 * 1024];
    while since.elapsed() < SHORT * 4 {
        assert!(stream.read(&mut buffer).await.unwrap() > 0, "who reads is served");
    }
}

#[tokio::test]
async fn over_the_limit_connections_wait_and_idle_ones_make_room() {
    let server = Server::start(Limits { connections: 2, ..limits() }).await;
    let mut busy = server.connect(b"http/1.1").await;
    busy.write_all(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut idle = server.connect(b"http/1.1").await;
    idle.write_all(GET.as_bytes()).await.unwrap();
    read_until(&mut idle, "ok").await;
    // The third waits in the backlog until the idle one has been idle long enough to be asked to go.
    let mut third = within(server.connect(b"http/1.1")).await;
    assert_eq!(read_all(&mut idle).await, "");
    third.write_all(GET.as_bytes()).await.unwrap();
    read_until(&mut third, "ok").await;
    server.shared.release.notify_one();
    read_until(&mut busy, "released").await;
}

/// DOS-03: whoever is let in and does not go on makes room, long before the time for a handshake is over.
#[tokio::test]
async fn over_the_limit_stalled_handshakes_make_room() {
    let patience = Duration::from_secs(600);
    let server = Server::start(Limits { connections: 2, handshake_timeout: patience, ..limits() }).await;
    let mut silent = TcpStream::connect(server.tls).await.unwrap();
    let mut stalled = TcpStream::connect(server.tls).await.unwrap();
    stalled.write_all(b"\x16\x03\x01").await.unwrap();
    let mut third = within(server.connect(b"http/1.1")).await;
    third.write_all(GET.as_bytes()).await.unwrap();
    read_until(&mut third, "ok").await;
    for stream in [&mut silent, &mut stalled] {
        assert_eq!(within(stream.read(&mut [0; 1])).await.unwrap_or(0), 0);
    }
}

#[tokio::test]
async fn a_client_hello_byte_by_byte_is_read() {
    let server = Server::start(limits()).await;
    let (mut near, far) = tokio::io::duplex(16 * 1024);
    let trickle = tokio::spawn(async move {
        let stream = TcpStream::connect(server.tls).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let (mut from_client, mut to_client) = tokio::io::split(far);
        tokio::spawn(async move { tokio::io::copy(&mut reader, &mut to_client).await });
        let mut byte = [0];
        while let Ok(1) = from_client.read(&mut byte).await {
            if writer.write_all(&byte).await.is_err() {
                break;
            }
        }
        drop(server);
    });
    let connector = tokio_rustls::TlsConnector::from(client_config(b"http/1.1"));
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    {
        let mut stream = within(connector.connect(name, &mut near)).await.unwrap();
        stream.write_all(GET.as_bytes()).await.unwrap();
        read_until(&mut stream, "ok").await;
    }
    drop(near);
    within(trickle).await.unwrap();
}

/// DOS-02: the application takes nothing of an upload, so nothing more is read, and the client's end lies behind that.
#[tokio::test]
async fn a_client_that_leaves_is_missed_also_while_nobody_reads_what_it_sent() {
    let upload = format!("POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n{}", "x".repeat(99));
    for (is_tls, resets) in [(true, true), (true, false), (false, true), (false, false)] {
        // Longer than anybody waits here: only the client's leaving ends its request.
        let mut server = Server::start(Limits { drain: Duration::from_secs(60), ..limits() }).await;
        let leave = |tcp: &TcpStream| {
            let linger = resets.then_some(Duration::ZERO);
            socket2::SockRef::from(tcp).set_linger(linger).unwrap();
        };
        let called = async || {
            while server.shared.seen().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        if is_tls {
            let mut stream = server.connect(b"http/1.1").await;
            stream.write_all(upload.as_bytes()).await.unwrap();
            within(called()).await;
            leave(stream.get_ref().0);
        } else {
            let mut stream = server.connect_plain().await;
            stream.write_all(upload.as_bytes()).await.unwrap();
            within(called()).await;
            leave(&stream);
        }
        server.stop();
        assert_eq!(server.ended().await.cut, 0, "TLS: {is_tls}, a reset: {resets}");
    }
}

/// Who only waits is left alone: for the application to take more, or for an answer, with nothing more to say.
#[tokio::test]
async fn a_client_that_waits_while_nobody_reads_what_it_sent_stays() {
    let server = Server::start(limits()).await;
    let upload = "POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\nx";
    let held = "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2);
    for (sent, ends) in [(upload, false), (held.as_str(), true)] {
        let mut stream = server.connect_plain().await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        if ends {
            stream.shutdown().await.unwrap();
        }
        let early = tokio::time::timeout(Duration::from_secs(3), stream.read_u8()).await;
        assert!(early.is_err(), "ended after it was looked at: {early:?}");
        server.shared.release.notify_one();
        read_until(&mut stream, "released").await;
    }
}
