//! HTTP/1 over TLS and plain.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::*;

const GET: &str = "GET /a?b HTTP/1.1\r\nHost: localhost\r\n\r\n";
const LAST: &str = "GET /last HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test]
async fn the_handler_is_told_about_the_connection() {
    let server = Server::start(limits()).await;
    let info = "GET /info HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = exchange(&server, info).await;
    for fact in [
        "sni: Some(\"localhost\")",
        "is_tls: true",
        "protocol: Http1",
        "listener: 0",
        "kind: Tls",
        "peer: 127.0.0.1:",
    ] {
        assert!(answer.contains(fact), "{fact} in {answer}");
    }
    assert!(answer.contains(&format!("local_port: {}", server.tls.port())));
    let mut plain = server.connect_plain().await;
    plain.write_all(info.as_bytes()).await.unwrap();
    let answer = read_all(&mut plain).await;
    for fact in ["sni: None", "is_tls: false", "listener: 1", "kind: PublicOnly"] {
        assert!(answer.contains(fact), "{fact} in {answer}");
    }
    assert_eq!(server.shared.handlers.load(std::sync::atomic::Ordering::SeqCst), 2, "one for each worker");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(limits()).await;
    let answers = exchange(&server, GET.repeat(1000) + LAST).await;
    assert_eq!(statuses(&answers), vec![200; 1001]);
    assert_eq!(server.shared.seen().last().unwrap(), "GET /last");
    assert_eq!(answers.matches("connection: close").count(), 1);
}

#[tokio::test]
async fn a_refused_request_gets_one_answer_and_nothing_after_it_counts() {
    let server = Server::start(limits()).await;
    for (bad, status, why) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "HostRepeated"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "LengthAndEncoding",
        ),
        ("GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "Target"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501, "Connect"),
        (&format!("GET /{} HTTP/1.1\r\n", "a".repeat(20_000)), 414, "TargetTooLong"),
        (&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(70_000)), 431, "HeadTooLarge"),
        (&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(100)), 431, "TooManyFields"),
    ] {
        let answers = exchange(&server, format!("{GET}{bad}{GET}")).await;
        assert_eq!(statuses(&answers), [200, status], "{bad:.80}");
        assert!(answers.contains("connection: close"));
        assert_eq!(server.shared.seen(), ["GET /a?b".to_owned(), format!("refused {why}")], "{bad:.80}");
    }
}

#[tokio::test]
async fn an_absolute_target_of_the_same_host_reaches_the_handler_in_origin_form() {
    let server = Server::start(limits()).await;
    let request = "GET https://LOCALHOST:1/x?y HTTP/1.1\r\nHost: localhost:1\r\nConnection: close\r\n\r\n";
    assert_eq!(statuses(&exchange(&server, request).await), [200]);
    assert_eq!(server.shared.seen(), ["GET /x?y"]);
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_never_taken_for_a_request() {
    let server = Server::start(limits()).await;
    // All of it is there at once, or it never ends, or more comes after the answer.
    for (length, sent) in
        [(GET.len(), GET.to_owned()), (10_000_000, GET.repeat(50)), (200_000, "x".repeat(100_000) + GET)]
    {
        let mut stream = server.connect(b"http/1.1").await;
        let head = format!("POST /unread HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all((head + &sent).as_bytes()).await.unwrap();
        let answer = read_until(&mut stream, "ok").await;
        assert_eq!(statuses(&answer), [200], "{length}");
        let unfinished = length > sent.len();
        assert_eq!(answer.contains("connection: close"), unfinished, "{length}: {answer}");
        if unfinished {
            assert_eq!(read_all(&mut stream).await, "", "{length}");
        }
        assert_eq!(server.shared.seen(), ["POST /unread"], "{length}");
    }
}

#[tokio::test]
async fn a_broken_body_fails_to_be_read_and_ends_the_connection() {
    let server = Server::start(limits()).await;
    let chunked = "POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let answers = exchange(&server, format!("{chunked}+1\r\nd\r\n0\r\n\r\n{GET}")).await;
    assert_eq!(statuses(&answers), [400]);
    assert!(answers.ends_with("Some(ChunkSize)"), "{answers}");
    assert_eq!(server.shared.seen(), ["POST /length"]);
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let server = Server::start(limits()).await;
    let mut stream = server.connect(b"http/1.1").await;
    stream.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    for piece in ["one", "two"] {
        stream.write_all(format!("3\r\n{piece}\r\n").as_bytes()).await.unwrap();
        read_until(&mut stream, &format!("3\r\n{piece}\r\n")).await;
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    read_until(&mut stream, "0\r\n\r\n").await;
}

#[tokio::test]
async fn plain_http_on_the_tls_port_is_told_so() {
    let server = Server::start(limits()).await;
    let mut stream = tokio::net::TcpStream::connect(server.tls).await.unwrap();
    stream.write_all(GET.as_bytes()).await.unwrap();
    let answer = read_all(&mut stream).await;
    assert_eq!(statuses(&answer), [400]);
    assert!(answer.contains("this port speaks HTTPS"), "{answer}");
    assert_eq!(server.shared.seen(), ["refused PlainText"]);
}

#[tokio::test]
async fn an_upgrade_carries_bytes_and_early_ones_too() {
    let server = Server::start(limits()).await;
    let head = "GET /up HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    for early in ["", GET, "\0\u{ff}"] {
        let mut stream = server.connect(b"http/1.1").await;
        stream.write_all(format!("{GET}{head}{early}").as_bytes()).await.unwrap();
        let answer = read_until(&mut stream, "\r\n\r\nok").await + &read_until(&mut stream, "\r\n\r\n").await;
        assert_eq!(statuses(&answer), [200, 101]);
        stream.write_all(b"more").await.unwrap();
        assert_eq!(read_until(&mut stream, "more").await, format!("{early}more"));
    }
}

#[tokio::test]
async fn after_a_declined_upgrade_the_next_request_is_judged() {
    let server = Server::start(limits()).await;
    let head = "GET /no HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    let answers = exchange(&server, format!("{head}{GET}GET / HTTP/1.1\r\n\r\n{GET}")).await;
    assert_eq!(statuses(&answers), [200, 200, 400]);
    assert_eq!(server.shared.seen(), ["GET /no", "GET /a?b", "refused HostMissing"]);
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_old_ones_live_on() {
    let server = Server::start(limits()).await;
    let certificate = |stream: &tokio_rustls::client::TlsStream<tokio::net::TcpStream>| {
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let mut old = server.connect(b"http/1.1").await;
    server.config.store(server_config());
    let new = server.connect(b"http/1.1").await;
    assert_ne!(certificate(&old), certificate(&new));
    old.write_all(GET.as_bytes()).await.unwrap();
    assert_eq!(old.read(&mut [0; 16]).await.unwrap(), 16);
}
