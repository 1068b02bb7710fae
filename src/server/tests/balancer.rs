//! Behind a load balancer that speaks the PROXY protocol.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

use super::support::*;
use crate::server::{Event, Limits};

const INFO: &str = "GET /info HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const TEXT: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 443\r\n";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// Version 2, from 2001:db8::7 port 80, with an extension.
fn binary() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x29".to_vec();
    header.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    header.extend([0; 16]);
    header.extend([0, 80, 1, 187]);
    header.extend([4, 0, 2, 0, 0]);
    header
}

/// A stream whose first write carries something in front, and whose writes are no larger than `piece`.
struct Preceded {
    stream: TcpStream,
    header: Vec<u8>,
    piece: usize,
}

impl Preceded {
    async fn connect(to: SocketAddr, header: &[u8], piece: usize) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, header: header.to_vec(), piece }
    }
}

impl AsyncRead for Preceded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Preceded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        loop {
            let mut now = [&this.header[..], bytes].concat();
            now.truncate(this.piece);
            let written = ready!(Pin::new(&mut this.stream).poll_write(cx, &now))?;
            let of_header = written.min(this.header.len());
            this.header.drain(..of_header);
            if written > of_header {
                return Poll::Ready(Ok(written - of_header));
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The answer to [`INFO`] over TLS, after a header.
async fn over_tls(server: &Server, header: &[u8], piece: usize) -> std::io::Result<String> {
    let stream = Preceded::connect(server.tls, header, piece).await;
    let connector = tokio_rustls::TlsConnector::from(client_config(b"http/1.1"));
    let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await?;
    stream.write_all(INFO.as_bytes()).await?;
    stream.flush().await?;
    Ok(read_all(&mut stream).await)
}

#[tokio::test]
async fn the_balancer_says_who_the_client_is() {
    let server = Server::start_behind(limits(), Some("127.0.0.0/8")).await;
    for (header, peer) in [
        (TEXT.to_vec(), "peer: 192.0.2.7:8080"),
        (binary(), "peer: [2001:db8::7]:80"),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 80 443\r\n".to_vec(), "peer: 192.0.2.7:80"),
        (LOCAL.to_vec(), "peer: 127.0.0.1:"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "peer: 127.0.0.1:"),
    ] {
        // In one segment with the ClientHello, byte by byte, and cut anywhere.
        for piece in [usize::MAX, 1, 20] {
            let answer = within(over_tls(&server, &header, piece)).await.unwrap();
            assert!(answer.contains(peer) && answer.contains("is_tls: true"), "{peer}, {piece}: {answer}");
        }
        let mut plain = Preceded::connect(server.plain, &header, 30).await;
        plain.write_all(INFO.as_bytes()).await.unwrap();
        let answer = read_all(&mut plain).await;
        assert!(answer.contains(peer), "{peer}: {answer}");
    }
}

#[tokio::test]
async fn a_balancer_must_say_it() {
    let server = Server::start_behind(limits(), Some("127.0.0.0/8")).await;
    assert!(within(over_tls(&server, b"", usize::MAX)).await.is_err());
    for bytes in [INFO.as_bytes(), b"PROXY TCP4 1.2.3.4 1.2.3.4 1 x\r\nGET / HTTP/1.1\r\n"] {
        let mut plain = server.connect_plain().await;
        plain.write_all(bytes).await.unwrap();
        assert_eq!(read_all(&mut plain).await, "");
    }
    assert_eq!(server.shared.seen(), Vec::<String>::new());
    let events = server.shared.events.lock().unwrap();
    let told = |event: &Event| matches!(event, Event::HandshakeFailed { reason, .. } if reason.contains("proxyProtocolSubnets"));
    assert!(events.iter().any(told), "{events:?}");
}

/// Whoever is no balancer is a client, and a header of its own is garbage.
#[tokio::test]
async fn a_forged_header_is_believed_by_nobody() {
    let server = Server::start_behind(limits(), Some("192.0.2.0/24")).await;
    let answer = within(over_tls(&server, b"", usize::MAX)).await.unwrap();
    assert!(answer.contains("peer: 127.0.0.1:"), "{answer}");
    server.shared.seen();
    for header in [TEXT, &binary()] {
        assert!(within(over_tls(&server, header, usize::MAX)).await.is_err());
        let mut plain = server.connect_plain().await;
        plain.write_all(&[header, INFO.as_bytes()].concat()).await.unwrap();
        let answer = read_all(&mut plain).await;
        assert_eq!(statuses(&answer), [400], "{answer}");
    }
    let seen = server.shared.seen();
    assert!(seen.iter().all(|request| request.starts_with("refused ")), "{seen:?}");
}

#[tokio::test]
async fn a_header_that_does_not_come_is_not_waited_for() {
    let short = Duration::from_millis(300);
    let server =
        Server::start_behind(Limits { handshake_timeout: short, ..limits() }, Some("127.0.0.1/32")).await;
    for part in [&b""[..], b"PROX", b"PROXY TCP4 192.0.2.7 ", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01"] {
        let since = Instant::now();
        let mut stream = server.connect_plain().await;
        stream.write_all(part).await.unwrap();
        assert_eq!(read_all(&mut stream).await, "");
        assert!(since.elapsed() >= short, "{:?}", since.elapsed());
    }
    // The time is for the header and the TLS handshake together.
    let since = Instant::now();
    let mut stream = TcpStream::connect(server.tls).await.unwrap();
    tokio::time::sleep(short / 2).await;
    stream.write_all(TEXT).await.unwrap();
    assert_eq!(read_all(&mut stream).await, "");
    assert!(since.elapsed() < short * 10, "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_check_that_connects_and_leaves_is_no_event() {
    let server = Server::start_behind(limits(), Some("127.0.0.1/32")).await;
    for bytes in [&b""[..], LOCAL] {
        let mut stream = TcpStream::connect(server.tls).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(read_all(&mut stream).await, "");
    }
    let events = server.shared.events.lock().unwrap();
    assert!(!events.iter().any(|event| matches!(event, Event::HandshakeFailed { .. })), "{events:?}");
}
