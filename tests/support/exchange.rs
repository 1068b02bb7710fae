//! One client for both versions of HTTP, by TLS: exchanges whose parts a test sends and reads one by one, and tunnels.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use super::client::{Pairs, connect};
use super::origin::Body;
use super::soon;

/// Somebody who is logged in, and the version of HTTP that they speak.
#[derive(Clone, Debug)]
pub struct Client {
    port: u16,
    host: &'static str,
    cookie: String,
    http2: bool,
    connections: Arc<Mutex<JoinSet<()>>>,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Client {
    /// One for a port of loopback.
    pub fn new(port: u16, host: &'static str, cookie: &str, http2: bool) -> Self {
        Self { port, host, cookie: cookie.to_owned(), http2, connections: Arc::default() }
    }

    /// Whether it speaks HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.http2
    }

    /// Waits until none of its connections is left that could keep the proxy from ending.
    pub async fn gone(self) {
        let connections = std::mem::take(&mut *self.connections.lock().unwrap());
        soon("the end of all connections", connections.join_all()).await;
    }

    fn drive(&self, connection: impl Future + Send + 'static) {
        self.connections.lock().unwrap().spawn(async move { drop(connection.await) });
    }

    /// One exchange on a connection of its own, up to the head of the answer. When this or the answer is dropped, the
    /// client is gone.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        fields: Pairs<'_>,
        body: Body,
    ) -> Response<Incoming> {
        let mut request = self.request(method, path, fields).body(body).unwrap();
        if self.http2 {
            *request.uri_mut() = format!("https://{}:{}{path}", self.host, self.port).parse().unwrap();
            request.headers_mut().remove("host");
        }
        let answer = match self.sender().await {
            Sender::Http1(mut sender) => soon("an answer", sender.send_request(request)).await,
            Sender::Http2(mut sender) => soon("an answer", sender.send_request(request)).await,
        };
        answer.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    async fn sender(&self) -> Sender {
        let io = TokioIo::new(self.connect().await);
        if self.http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            self.drive(connection);
            return Sender::Http2(sender);
        }
        let (sender, connection) = http1::handshake(io).await.unwrap();
        self.drive(connection);
        Sender::Http1(sender)
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let protocol: &[u8] = if self.http2 { b"h2" } else { b"http/1.1" };
        soon("TLS", connect(self.port, Some(self.host), &[protocol])).await.unwrap()
    }

    fn request(&self, method: Method, path: &str, fields: Pairs<'_>) -> http::request::Builder {
        let request = Request::builder().method(method).uri(path);
        let request =
            request.header("host", format!("{}:{}", self.host, self.port)).header("cookie", &self.cookie);
        fields.iter().fold(request, |request, (name, value)| request.header(*name, *value))
    }

    /// Asks for a tunnel in which this protocol is spoken, and says `early` before there can be an answer. The status,
    /// and the answer's head.
    pub async fn tunnel(&self, path: &str, protocol: &str, early: &str) -> (u16, HeaderMap, Tunnel) {
        if self.http2 {
            return self.connect_tunnel(path, protocol, early).await;
        }
        let mut stream = self.connect().await;
        let (host, port, cookie) = (self.host, self.port, &self.cookie);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nCookie: {cookie}\r\nConnection: Upgrade\r\n\
             Upgrade: {protocol}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\
             {early}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon("an answer", stream.read_u8()).await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let pair = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            Some((name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap()))
        };
        (status, head.split("\r\n").filter_map(pair).collect(), Tunnel::Http1(Box::new(stream)))
    }

    /// RFC 8441, which wants the server's SETTINGS first: they come before the answer to another request.
    async fn connect_tunnel(&self, path: &str, protocol: &str, early: &str) -> (u16, HeaderMap, Tunnel) {
        let (mut sender, connection) = h2::client::handshake(self.connect().await).await.unwrap();
        self.drive(connection);
        let uri = |path| format!("https://{}:{}{path}", self.host, self.port);
        let (first, _) = sender.send_request(Request::get(uri("/")).body(()).unwrap(), true).unwrap();
        soon("the SETTINGS", first).await.unwrap();
        assert!(sender.is_extended_connect_protocol_enabled());
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(uri(path))
            .extension(h2::ext::Protocol::from(protocol))
            .header("cookie", &self.cookie)
            .header("sec-websocket-version", "13");
        let (answer, mut up) = sender.send_request(request.body(()).unwrap(), false).unwrap();
        up.send_data(Bytes::copy_from_slice(early.as_bytes()), false).unwrap();
        let (head, down) = soon("an answer", answer).await.unwrap().into_parts();
        (head.status.as_u16(), head.headers, Tunnel::Http2(up, down))
    }
}

/// A body that a test sends frame by frame.
pub fn upload() -> (UnboundedSender<Frame<Bytes>>, Body) {
    let (parts, frames) = unbounded_channel();
    let frames = stream::unfold(frames, |mut frames| async move {
        frames.recv().await.map(|frame| (Ok::<_, io::Error>(frame), frames))
    });
    (parts, StreamBody::new(frames).boxed_unsync())
}

/// A frame of this text.
pub fn part(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

/// Reads exactly this text from a body, and nothing that may come after it.
pub async fn read(body: &mut Incoming, text: &str) {
    let mut read = Vec::new();
    while read.len() < text.len() {
        let frame = soon("a part of the answer", body.frame()).await.expect("more of the answer").unwrap();
        read.extend_from_slice(&frame.into_data().expect("data"));
    }
    assert_eq!(String::from_utf8_lossy(&read), text);
}

/// What was asked for with [`Client::tunnel`].
pub enum Tunnel {
    Http1(Box<TlsStream<TcpStream>>),
    Http2(SendStream<Bytes>, RecvStream),
}

impl Tunnel {
    /// Sends something.
    pub async fn say(&mut self, text: &str) {
        match self {
            Self::Http1(stream) => stream.write_all(text.as_bytes()).await.unwrap(),
            Self::Http2(up, _) => up.send_data(Bytes::copy_from_slice(text.as_bytes()), false).unwrap(),
        }
    }

    /// Says that it will say no more, and listens.
    pub async fn half_close(&mut self) {
        match self {
            Self::Http1(stream) => stream.shutdown().await.unwrap(),
            Self::Http2(up, _) => up.send_data(Bytes::new(), true).unwrap(),
        }
    }

    /// Reads until exactly this was heard.
    pub async fn hear(&mut self, text: &str) {
        let mut heard = Vec::new();
        while heard.len() < text.len() {
            heard.extend(self.more().await.unwrap_or_else(|| panic!("the end after {heard:?}")));
        }
        assert_eq!(String::from_utf8_lossy(&heard), text);
    }

    /// Reads the clean end.
    pub async fn end(&mut self) {
        assert_eq!(self.more().await, None);
    }

    async fn more(&mut self) -> Option<Vec<u8>> {
        match self {
            Self::Http1(stream) => {
                let mut buffer = vec![0; 1024];
                let count = soon("bytes", stream.read(&mut buffer)).await.unwrap();
                buffer.truncate(count);
                Some(buffer).filter(|buffer| !buffer.is_empty())
            }
            Self::Http2(_, down) => loop {
                let data = soon("bytes", down.data()).await?.unwrap();
                down.flow_control().release_capacity(data.len()).unwrap();
                if !data.is_empty() {
                    return Some(data.to_vec());
                }
            },
        }
    }
}
