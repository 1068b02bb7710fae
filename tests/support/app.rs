//! The application behind the proxy. It reads HTTP/1.1 by hand, so that it knows the exact bytes of every request
//! head, answers with what it got, and does other things at the paths that [`App`] names.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::ports::free_port;
use super::soon;

/// An application. It answers every path with a JSON document of the request, but for the last segments
///
/// - `hang`: no answer; `close`: the connection ends without one; `garbage`: what is not HTTP
/// - `stale`: the first request that a connection brings after another is not answered, the connection ends
/// - `cut`, `cut-chunked`: the connection ends in the middle of the answer
/// - `late`: as usual, after [`App::release`]
/// - `held`: the head and the first part, and the rest after [`App::release`]; `sse` is the same as events
/// - `ws`: a WebSocket echo; `not-ws`: 200 to a handshake; `upgrade`: 101 to anything, and an echo
/// - `deaf`: 101 to a handshake, and never a word
/// - `last-word`: 101 to a handshake; when the client is done, what it said comes back, and the end
/// - `cookies`: sets cookies, one of them with the session's name; `caching`: has a Cache-Control
/// - `download`: [`DOWNLOAD_BYTES`], which take more than ten seconds
/// - `hop`: hop-by-hop headers; `trailers`: a chunked answer with a trailer; `early`: 103 before the answer
/// - `big-head`: more headers than anybody may send; `redirect`: 302 to elsewhere; `status-NNN`
#[derive(Debug)]
pub struct App {
    pub port: u16,
    shared: Arc<Shared>,
    server: std::sync::Mutex<Option<AbortHandle>>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// Request line and headers, with the empty line that ends them.
    pub head: Vec<u8>,
    pub body: Vec<u8>,
}

impl Received {
    /// The request line and headers as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.head).into_owned()
    }

    /// The target of the request line.
    pub fn target(&self) -> String {
        self.text().split(' ').nth(1).unwrap_or_default().to_owned()
    }

    /// The values of a header, in order.
    pub fn header(&self, name: &str) -> Vec<String> {
        headers(&self.text())
            .into_iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }
}

#[derive(Debug, Default)]
struct Shared {
    received: watch::Sender<Vec<Received>>,
    connections: watch::Sender<usize>,
    ended: watch::Sender<usize>,
    released: watch::Sender<usize>,
}

impl App {
    /// One that nobody answers for yet.
    pub fn down() -> Self {
        Self { port: free_port(), shared: Arc::default(), server: std::sync::Mutex::new(None) }
    }

    /// Starts to listen.
    pub async fn up(&self) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await.unwrap();
        let shared = self.shared.clone();
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                connections.spawn(shared.clone().serve(stream));
            }
        });
        *self.server.lock().unwrap() = Some(server.abort_handle());
    }

    /// Starts one on a Unix socket.
    pub async fn start_unix(path: &std::path::Path) -> Self {
        let app = Self::down();
        let (listener, shared) = (UnixListener::bind(path).unwrap(), app.shared.clone());
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(shared.clone().serve(stream));
            }
        });
        *app.server.lock().unwrap() = Some(server.abort_handle());
        app
    }

    /// Everything that was received.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.borrow().clone()
    }

    /// How many requests were received.
    pub fn count(&self) -> usize {
        self.shared.received.borrow().len()
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        *self.shared.connections.borrow()
    }

    /// How many of them have ended.
    pub fn ends(&self) -> usize {
        *self.shared.ended.borrow()
    }

    /// The last request.
    pub fn last(&self) -> Received {
        self.shared.received.borrow().last().expect("the app got a request").clone()
    }

    /// Waits until that many requests were received.
    pub async fn wait_for(&self, count: usize) {
        let mut received = self.shared.received.subscribe();
        soon(&format!("request {count} at the app"), received.wait_for(|all| all.len() >= count))
            .await
            .unwrap();
    }

    /// Waits until that many connections were made.
    pub async fn wait_for_connections(&self, count: usize) {
        let mut connections = self.shared.connections.subscribe();
        soon(&format!("connection {count} at the app"), connections.wait_for(|made| *made >= count))
            .await
            .unwrap();
    }

    /// Waits until that many connections have ended.
    pub async fn wait_for_ends(&self, count: usize) {
        let mut ended = self.shared.ended.subscribe();
        soon(&format!("the end of {count} connections at the app"), ended.wait_for(|ended| *ended >= count))
            .await
            .unwrap();
    }

    /// Lets one held answer go on.
    pub fn release(&self) {
        self.shared.released.send_modify(|count| *count += 1);
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if let Some(server) = self.server.lock().unwrap().take() {
            server.abort();
        }
    }
}

/// A long download.
pub const DOWNLOAD_BYTES: usize = 100 << 20;

const DOWNLOAD_PART: usize = 64 << 10;

const DOWNLOAD_PAUSE: Duration = Duration::from_millis(10);

/// A connection with the client, and what was read of it ahead.
struct Stream<S> {
    io: S,
    ahead: Vec<u8>,
}

impl Shared {
    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self: Arc<Self>, io: S) {
        self.connections.send_modify(|count| *count += 1);
        let mut stream = Stream { io, ahead: Vec::new() };
        let mut number = 0;
        while let Some(received) = stream.request().await {
            number += 1;
            self.received.send_modify(|all| all.push(received.clone()));
            match self.answer(stream, &received, number).await {
                Some(again) => stream = again,
                None => break,
            }
        }
        self.ended.send_modify(|count| *count += 1);
    }

    /// Answers one request; the connection comes back when it goes on.
    async fn answer<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        mut stream: Stream<S>,
        received: &Received,
        number: usize,
    ) -> Option<Stream<S>> {
        let target = received.target();
        let path = target.split('?').next().unwrap_or_default();
        match path.rsplit('/').next().unwrap_or_default() {
            "hang" => {
                // Until the client goes away.
                let _ = stream.io.read(&mut [0; 1]).await;
                None
            }
            "close" => None,
            "stale" if number > 1 => None,
            "garbage" => stream.last(b"this is not HTTP\r\n\r\n").await,
            "cut" => stream.last(b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\nonly this").await,
            "cut-chunked" => {
                stream.last(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n").await
            }
            "late" => {
                let mut released = self.released.subscribe();
                let seen = *released.borrow_and_update();
                released.wait_for(|count| *count > seen).await.ok()?;
                stream.send(&usual("late", received)).await?;
                Some(stream)
            }
            "held" => self.held(stream, "text/plain", ["first part, ", "second part"]).await,
            "sse" => self.held(stream, "text/event-stream", ["data: first\n\n", "data: second\n\n"]).await,
            "download" => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {DOWNLOAD_BYTES}\r\n\r\n");
                stream.send(head.as_bytes()).await?;
                for _ in 0..DOWNLOAD_BYTES / DOWNLOAD_PART {
                    stream.send(&[b'x'; DOWNLOAD_PART]).await?;
                    tokio::time::sleep(DOWNLOAD_PAUSE).await;
                }
                Some(stream)
            }
            "ws" => {
                websocket(stream, received).await;
                None
            }
            "last-word" => {
                stream.send(handshake(received).as_bytes()).await?;
                while stream.read().await.is_some() {}
                let heard = std::mem::take(&mut stream.ahead);
                stream.last(&heard).await
            }
            "deaf" => {
                stream.send(handshake(received).as_bytes()).await?;
                std::future::pending().await
            }
            "upgrade" => {
                stream
                    .send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
                    .await?;
                echo(stream).await;
                None
            }
            other => {
                stream.send(&usual(other, received)).await?;
                (!received.header("connection").iter().any(|value| value.contains("close"))).then_some(stream)
            }
        }
    }

    async fn held<S: AsyncWrite + Unpin>(
        &self,
        mut stream: Stream<S>,
        kind: &str,
        parts: [&str; 2],
    ) -> Option<Stream<S>> {
        let mut released = self.released.subscribe();
        let seen = *released.borrow_and_update();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n");
        stream.send(format!("{head}{:x}\r\n{}\r\n", parts[0].len(), parts[0]).as_bytes()).await?;
        released.wait_for(|count| *count > seen).await.ok()?;
        stream.send(format!("{:x}\r\n{}\r\n0\r\n\r\n", parts[1].len(), parts[1]).as_bytes()).await?;
        Some(stream)
    }
}

impl<S: AsyncRead + Unpin> Stream<S> {
    /// The next request; `None` at the end of the connection.
    async fn request(&mut self) -> Option<Received> {
        let end = loop {
            if let Some(at) = self.ahead.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.read().await?;
        };
        let head: Vec<u8> = self.ahead.drain(..end).collect();
        let mut received = Received { head, body: Vec::new() };
        if received.header("transfer-encoding").iter().any(|value| value == "chunked") {
            loop {
                let size = self.line().await?;
                let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16).ok()?;
                if size == 0 {
                    while !self.line().await?.is_empty() {}
                    break;
                }
                received.body.extend(self.take(size).await?);
                self.line().await?;
            }
        } else if let Some(length) = received.header("content-length").first() {
            received.body = self.take(length.parse().ok()?).await?;
        }
        Some(received)
    }

    async fn read(&mut self) -> Option<()> {
        let mut buffer = [0; 16_384];
        let count = self.io.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        self.ahead.extend_from_slice(&buffer[..count]);
        Some(())
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.ahead.windows(2).position(|window| window == b"\r\n") {
                let line = self.ahead.drain(..at + 2).take(at).collect();
                return String::from_utf8(line).ok();
            }
            self.read().await?;
        }
    }

    async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.ahead.len() < count {
            self.read().await?;
        }
        Some(self.ahead.drain(..count).collect())
    }
}

impl<S: AsyncWrite + Unpin> Stream<S> {
    async fn send(&mut self, bytes: &[u8]) -> Option<()> {
        self.io.write_all(bytes).await.ok()?;
        self.io.flush().await.ok()
    }

    /// Sends, and ends the connection.
    async fn last(mut self, bytes: &[u8]) -> Option<Self> {
        self.send(bytes).await?;
        let _ = self.io.shutdown().await;
        None
    }
}

/// The answer to a request, whole.
fn usual(name: &str, received: &Received) -> Vec<u8> {
    let (status, extra) = match name {
        "cookies" => (
            "200 OK",
            "Set-Cookie: app=1; Path=/\r\nSet-Cookie: __Host-portcullis=from-the-app; Secure; Path=/\r\n",
        ),
        "caching" => ("200 OK", "Cache-Control: public, max-age=60\r\n"),
        "hop" => {
            ("200 OK", "Connection: X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\nX-Public: 2\r\n")
        }
        "redirect" => ("302 Found", "Location: https://elsewhere.example/\r\n"),
        "early" => ("200 OK", "X-Late: 1\r\n"),
        _ => ("200 OK", ""),
    };
    let status = name.strip_prefix("status-").map_or(status.to_owned(), |code| format!("{code} As Asked"));
    let mut extra = extra.to_owned();
    if name == "big-head" {
        (0..2_000).for_each(|index| extra.push_str(&format!("X-Filling-{index}: {}\r\n", "x".repeat(256))));
    }
    let interim = if name == "early" { "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n" } else { "" };
    let body = description(received).to_string();
    let head =
        format!("{interim}HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-App: yes\r\n{extra}");
    if name == "trailers" {
        let trailers = "Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n";
        return format!("{head}{trailers}{:x}\r\n{body}\r\n0\r\nX-Sum: 7\r\n\r\n", body.len()).into_bytes();
    }
    let shown = if received.head.starts_with(b"HEAD ") { "" } else { body.as_str() };
    format!("{head}Content-Length: {}\r\n\r\n{shown}", body.len()).into_bytes()
}

/// What the app says about a request.
fn description(received: &Received) -> Value {
    let text = received.text();
    json!({
        "method": text.split(' ').next(),
        "target": received.target(),
        "headers": headers(&text),
        "bodyBytes": received.body.len(),
    })
}

fn headers(head: &str) -> Vec<(String, String)> {
    let pair =
        |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    head.split("\r\n").skip(1).filter_map(pair).collect()
}

/// The 101 to a WebSocket handshake, with the first of the subprotocols that were offered.
fn handshake(received: &Received) -> String {
    let key = received.header("sec-websocket-key").concat();
    let accept = derive_accept_key(key.as_bytes());
    let offered = received.header("sec-websocket-protocol").concat();
    let chosen = offered.split(',').next().filter(|name| !name.is_empty());
    let chosen = chosen.map_or(String::new(), |name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{chosen}\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

async fn websocket<S: AsyncRead + AsyncWrite + Unpin>(mut stream: Stream<S>, received: &Received) {
    if stream.send(handshake(received).as_bytes()).await.is_none() {
        return;
    }
    let mut socket = WebSocketStream::from_partially_read(stream.io, stream.ahead, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if message.is_close() {
            break;
        }
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            break;
        }
    }
    let _ = socket.close(None).await;
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(mut stream: Stream<S>) {
    let mut buffer = stream.ahead;
    loop {
        if stream.io.write_all(&buffer).await.is_err() {
            return;
        }
        buffer.resize(1024, 0);
        match stream.io.read(&mut buffer).await {
            Ok(count) if count > 0 => buffer.truncate(count),
            _ => return,
        }
    }
}

/// The value of a Basic Authorization header.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}
