//! The end of the process: nobody who was let in is let down.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::*;
use crate::server::{Limits, Phase, Stopped};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const HOLD: &str = "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn it_goes_through_its_phases() {
    let mut server = Server::start(Limits { shutdown_delay: Duration::from_secs(1), ..limits() }).await;
    assert!(server.lifecycle.is_ready());
    server.stop();
    server.lifecycle.reached(Phase::Leaving).await;
    assert!(!server.lifecycle.is_ready());
    // Not ready, and still there.
    let mut late = server.connect(b"http/1.1").await;
    late.write_all(GET.as_bytes()).await.unwrap();
    let answer = read_until(&mut late, "ok").await;
    assert!(!answer.contains("connection: close"), "it is not draining yet");
    let mut held = server.connect(b"http/1.1").await;
    held.write_all(HOLD.as_bytes()).await.unwrap();
    within(server.lifecycle.reached(Phase::Draining)).await;
    // One more request on a connection that was idle is answered, and is the last one. It has a second.
    late.write_all(GET.as_bytes()).await.unwrap();
    let answer = read_all(&mut late).await;
    assert!(answer.contains("connection: close") && answer.ends_with("ok"), "{answer}");
    // Listeners close as soon as the workers have seen it.
    within(async {
        while TcpStream::connect(server.tls).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    server.shared.release.notify_one();
    let answer = read_all(&mut held).await;
    assert!(answer.contains("connection: close") && answer.ends_with("released"), "{answer}");
    assert_eq!(server.ended().await, Stopped { cut: 0 });
}

#[tokio::test]
async fn idle_connections_do_not_hold_it_up() {
    let mut server = Server::start(limits()).await;
    let mut used = server.connect(b"http/1.1").await;
    used.write_all(GET.as_bytes()).await.unwrap();
    read_until(&mut used, "ok").await;
    let mut unused = server.connect(b"http/1.1").await;
    let mut http2 = server.http2().await;
    http2.ready().await.unwrap();
    let since = Instant::now();
    server.stop();
    assert_eq!(server.ended().await, Stopped { cut: 0 });
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    assert_eq!(read_all(&mut used).await, "");
    assert_eq!(read_all(&mut unused).await, "");
    assert!(http2.ready().await.is_err());
}

#[tokio::test]
async fn a_head_that_is_arriving_is_still_answered() {
    let mut server = Server::start(limits()).await;
    let mut stream = server.connect(b"http/1.1").await;
    stream.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
    let mut other = server.connect(b"http/1.1").await;
    other.write_all(GET.as_bytes()).await.unwrap();
    read_until(&mut other, "ok").await;
    server.stop();
    // Longer than an idle connection is waited for.
    assert_eq!(read_all(&mut other).await, "");
    stream.write_all(b"st: a\r\n\r\n").await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.contains("connection: close") && answer.ends_with("ok"), "{answer}");
    assert_eq!(server.ended().await, Stopped { cut: 0 });
}

#[tokio::test]
async fn http2_streams_under_way_are_finished() {
    let mut server = Server::start(limits()).await;
    let mut http2 = server.http2().await;
    let request = |path: &str| {
        Request::builder().uri(format!("https://localhost{path}")).body(Full::new(Bytes::new())).unwrap()
    };
    let held = tokio::spawn(http2.send_request(request("/hold")));
    let mut body = http2.send_request(request("/hold-body")).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "part");
    while server.shared.seen.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    server.stop();
    server.lifecycle.reached(Phase::Draining).await;
    server.shared.release.notify_waiters();
    assert_eq!(
        within(held).await.unwrap().unwrap().into_body().collect().await.unwrap().to_bytes(),
        "released"
    );
    assert_eq!(within(body.collect()).await.unwrap().to_bytes(), "part");
    assert_eq!(server.ended().await, Stopped { cut: 0 });
}

#[tokio::test]
async fn what_does_not_end_is_cut_and_counted() {
    let mut server = Server::start(Limits { drain: Duration::from_millis(300), ..limits() }).await;
    let mut stuck = server.connect(b"http/1.1").await;
    stuck.write_all(HOLD.as_bytes()).await.unwrap();
    while server.shared.seen.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    server.stop();
    assert_eq!(server.ended().await, Stopped { cut: 1 });
    assert_eq!(read_all(&mut stuck).await, "");
}

#[tokio::test]
async fn who_is_queued_when_it_stops_is_served() {
    // One place only: the second connection waits in the backlog until the first is done.
    let mut server = Server::start(Limits { connections: 1, workers: 1, ..limits() }).await;
    let mut queued = Vec::new();
    for _ in 0..20 {
        queued.push(TcpStream::connect(server.plain).await.unwrap());
    }
    drop(queued);
    let mut first = server.connect_plain().await;
    server.stop();
    first.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let answer = read_all(&mut first).await;
    assert!(answer.ends_with("ok"), "{answer}");
    assert_eq!(server.ended().await, Stopped { cut: 0 });
}

#[tokio::test]
async fn tunnels_are_told_and_waited_for() {
    let mut server = Server::start(limits()).await;
    let mut stream = server.connect(b"http/1.1").await;
    stream
        .write_all(b"GET /up HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: e\r\n\r\nhello")
        .await
        .unwrap();
    read_until(&mut stream, "\r\n\r\nhello").await;
    server.stop();
    let mut rest = Vec::new();
    within(stream.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"bye");
    assert_eq!(server.ended().await, Stopped { cut: 0 });
}

/// One client: as many requests as it gets answered, each on the connection of the last one where that may
/// be. Ends when nobody listens any more; panics when it was let in and let down.
async fn keep_asking(tls: std::net::SocketAddr, client: Arc<rustls::ClientConfig>) -> usize {
    let mut answered = 0;
    loop {
        let Ok(stream) = TcpStream::connect(tls).await else { return answered };
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let connector = tokio_rustls::TlsConnector::from(client.clone());
        let mut stream = connector.connect(name, stream).await.unwrap();
        loop {
            stream.write_all(GET.as_bytes()).await.unwrap();
            let answer = read_until(&mut stream, "\r\n\r\nok").await;
            answered += 1;
            if answer.contains("connection: close") {
                break;
            }
        }
    }
}

#[tokio::test]
async fn under_load_nobody_is_let_down() {
    for _ in 0..5 {
        let mut server = Server::start(limits()).await;
        let config = client_config(b"http/1.1");
        let clients: Vec<_> = (0..8).map(|_| tokio::spawn(keep_asking(server.tls, config.clone()))).collect();
        let mut http2 = server.http2().await;
        while server.shared.seen.lock().unwrap().len() < 200 {
            let request =
                Request::builder().uri("https://localhost/p").body(Full::new(Bytes::new())).unwrap();
            assert_eq!(http2.send_request(request).await.unwrap().status(), 200);
        }
        let tls = server.tls;
        server.stop();
        assert_eq!(server.ended().await, Stopped { cut: 0 });
        for client in clients {
            assert!(within(client).await.unwrap() > 0, "on {tls}");
        }
    }
}
