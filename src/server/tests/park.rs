//! HTTP/1 connections that are parked between two requests: nobody can tell, except by the memory.

use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::support::*;
use crate::server::drive::PARK_AFTER;
use crate::server::park::Http1;
use crate::server::serve::serve;
use crate::server::{Limits, Stopped};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const INFO: &str = "GET /info HTTP/1.1\r\nHost: a\r\n\r\n";
const LAST: &str = "GET /last HTTP/1.1\r\nHost: a\r\n\r\n";

/// One answer that has a `Content-Length`.
async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let head = read_until(stream, "\r\n\r\n").await;
    let (_, length) = head.split_once("content-length: ").unwrap();
    let mut body = vec![0; length.split_once('\r').unwrap().0.parse().unwrap()];
    within(stream.read_exact(&mut body)).await.unwrap();
    head + &String::from_utf8(body).unwrap()
}

/// How often the connection was parked that `/info` was asked on.
fn parks(info: &str) -> usize {
    let (_, parks) = info.split_once("parks: Cell { value: ").unwrap();
    parks.split_once(' ').unwrap().0.parse().unwrap()
}

/// A connection that has had an answer and is parked by now.
async fn parked(server: &Server) -> TlsStream<TcpStream> {
    let mut stream = server.connect(b"http/1.1").await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    answer(&mut stream).await;
    tokio::time::sleep(PARK_AFTER * 2).await;
    server.shared.seen();
    stream
}

async fn is_parked_when_idle(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut before = 0;
    for round in 0..3 {
        let since = Instant::now();
        for _ in 0..10 {
            stream.write_all(INFO.repeat(2).as_bytes()).await.unwrap();
            let counts = [parks(&answer(&mut stream).await), parks(&answer(&mut stream).await)];
            // On a machine that stands still, it is idle for long enough.
            assert!(counts == [before; 2] || since.elapsed() > PARK_AFTER, "{round}: {counts:?}");
        }
        within(async {
            while before <= round {
                tokio::time::sleep(PARK_AFTER * 2).await;
                stream.write_all(INFO.as_bytes()).await.unwrap();
                before = parks(&answer(&mut stream).await);
            }
        })
        .await;
    }
}

#[tokio::test]
async fn it_is_parked_once_it_is_idle_and_not_before() {
    let server = Server::start(limits()).await;
    let tls = server.connect(b"http/1.1").await;
    tokio::join!(is_parked_when_idle(tls), is_parked_when_idle(server.connect_plain().await));
}

#[tokio::test]
async fn it_is_not_parked_while_anything_is_under_way() {
    let server = Server::start(limits()).await;
    let upload = "POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n123";
    let expect = "POST /length HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    let chunked = "POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n";
    for (begin, end) in [
        ("GET /info HTTP/1.1\r\nHo", "st: a\r\n\r\n"),
        (upload, "45"),
        (chunked, "0\r\n\r\n"),
        (expect, "ab"),
        // What follows a request for an upgrade is held until that is answered.
        ("GET /hold HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: e\r\n\r\nGET /in", "release"),
        ("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n", "release"),
    ] {
        let mut stream = server.connect(b"http/1.1").await;
        stream.write_all(begin.as_bytes()).await.unwrap();
        tokio::time::sleep(PARK_AFTER * 2).await;
        match end {
            "release" => server.shared.release.notify_one(),
            _ => stream.write_all(end.as_bytes()).await.unwrap(),
        }
        if begin == expect {
            read_until(&mut stream, "100 Continue\r\n\r\n").await;
        }
        let first = answer(&mut stream).await;
        let since = Instant::now();
        assert_eq!(statuses(&first), [200], "{begin}");
        let rest = if begin.ends_with("GET /in") { INFO.strip_prefix("GET /in").unwrap() } else { INFO };
        stream.write_all(rest.as_bytes()).await.unwrap();
        let info = answer(&mut stream).await;
        assert!(parks(&info) == 0 || since.elapsed() > PARK_AFTER, "{begin}: {info}");
    }
}

/// The answer is out, and yet hyper has a body to hand on, or still reads what nobody wants.
#[tokio::test]
async fn it_is_not_parked_while_there_is_something_to_read() {
    let server = Server::start(limits()).await;
    let mut stream = server.connect(b"http/1.1").await;
    // hyper hands on one piece at a time.
    let upload = "POST /later HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let pieces = "3\r\nhel\r\n1\r\nl\r\n1\r\no\r\n0\r\n\r\n";
    stream.write_all(format!("{upload}{pieces}").as_bytes()).await.unwrap();
    answer(&mut stream).await;
    tokio::time::sleep(PARK_AFTER * 2).await;
    server.shared.release.notify_one();
    stream.write_all(INFO.as_bytes()).await.unwrap();
    assert!(answer(&mut stream).await.contains("Http1"));
    let whole = "later Some(b\"hello\")".to_owned();
    within(async {
        while !server.shared.seen.lock().unwrap().contains(&whole) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    server.shared.seen();

    let mut stream = server.connect(b"http/1.1").await;
    stream.write_all(b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n").await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    // The goodbye does not wait for the client to end, and its bytes are no request.
    for _ in 0..4 {
        tokio::time::sleep(PARK_AFTER / 2).await;
        writer.write_all(GET.repeat(100).as_bytes()).await.unwrap();
    }
    let answers = read_all(&mut reader).await;
    assert_eq!(statuses(&answers), [200], "{answers}");
    assert_eq!(server.shared.seen(), ["POST /unread"]);
}

#[tokio::test]
async fn what_comes_after_is_dealt_with_as_on_a_new_connection() {
    let server = Server::start(limits()).await;
    let bad = "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
    let post = "POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
    let up = "GET /no HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: e\r\n\r\n";
    for (sent, expected, seen) in [
        (LAST.to_owned(), vec![200], vec!["GET /last"]),
        (format!("{GET}{GET}{LAST}"), vec![200; 3], vec!["GET /", "GET /", "GET /last"]),
        // The number of a refused request goes on from those before.
        (bad.to_owned(), vec![400], vec!["refused HostRepeated"]),
        (format!("{GET}{bad}{GET}"), vec![200, 400], vec!["GET /", "refused HostRepeated"]),
        (format!("\r\n{GET}{bad}"), vec![200, 400], vec!["GET /", "refused HostRepeated"]),
        (format!("{post}hello{LAST}"), vec![200, 200], vec!["POST /length", "GET /last"]),
        (format!("{up}{GET}{bad}"), vec![200, 200, 400], vec!["GET /no", "GET /", "refused HostRepeated"]),
    ] {
        for at_once in [true, false] {
            let mut stream = parked(&server).await;
            for piece in sent.as_bytes().chunks(if at_once { sent.len() } else { 1 }) {
                // What is refused ends the connection while more is written.
                let _ = stream.write_all(piece).await;
            }
            let answers = read_all(&mut stream).await;
            assert_eq!(statuses(&answers), expected, "{sent}: {answers}");
            assert_eq!(server.shared.seen(), seen, "{sent}");
        }
    }
    let mut stream = parked(&server).await;
    let up = "GET /up HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: e\r\n\r\n";
    stream.write_all(format!("{up}early").as_bytes()).await.unwrap();
    read_until(&mut stream, "\r\n\r\nearly").await;
    tokio::time::sleep(PARK_AFTER * 2).await;
    stream.write_all(b"late").await.unwrap();
    read_until(&mut stream, "late").await;
}

/// Reads the end of the connection: a proper one, with the goodbye of TLS.
async fn ends(stream: &mut TlsStream<TcpStream>) {
    let mut rest = Vec::new();
    within(stream.read_to_end(&mut rest)).await.expect("a proper end");
    assert!(rest.is_empty(), "{rest:?}");
}

#[tokio::test]
async fn it_ends_when_it_should() {
    let idle = PARK_AFTER * 3;
    let mut server = Server::start(Limits { idle_timeout: idle, header_timeout: idle, ..limits() }).await;
    // After idleTimeout, of which some has passed.
    let since = Instant::now();
    ends(&mut parked(&server).await).await;
    assert!((idle..idle + Duration::from_secs(4)).contains(&since.elapsed()), "{:?}", since.elapsed());
    // A connection on which nothing was ever said is parked from the begin.
    let since = Instant::now();
    ends(&mut server.connect(b"http/1.1").await).await;
    assert!((idle..idle + Duration::from_secs(4)).contains(&since.elapsed()), "{:?}", since.elapsed());
    // A head has its own time.
    let mut stream = parked(&server).await;
    let since = Instant::now();
    stream.write_all(b"GET / HT").await.unwrap();
    let answers = read_all(&mut stream).await;
    assert_eq!(statuses(&answers), [408]);
    assert!((idle..idle + Duration::from_secs(4)).contains(&since.elapsed()), "{:?}", since.elapsed());
    // The client ends it, with TLS and without.
    let mut stream = parked(&server).await;
    stream.shutdown().await.unwrap();
    ends(&mut stream).await;
    let mut stream = parked(&server).await;
    stream.get_mut().0.shutdown().await.unwrap();
    ends(&mut stream).await;
    drop(parked(&server).await);
    // The process ends: a request that is on its way is still answered.
    let (mut asks, mut stays) = tokio::join!(parked(&server), parked(&server));
    server.stop();
    server.lifecycle.reached(crate::server::Phase::Draining).await;
    asks.write_all(GET.as_bytes()).await.unwrap();
    let answer = read_all(&mut asks).await;
    assert!(answer.contains("connection: close") && answer.ends_with("ok"), "{answer}");
    ends(&mut stays).await;
    assert_eq!(server.ended().await, Stopped { cut: 0 });
}

#[test]
fn a_parked_connection_is_small() {
    fn size_of_future<A, B, C, D, F>(_: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }
    let http1 = size_of::<Http1<Told>>();
    let task = size_of_future(serve::<Told>);
    assert!(http1 <= 320 && task <= 1152, "{http1} and {task} bytes");
}
