//! Streams belong to a session: they end with it, on every worker and as their protocol ends, and keep it in use.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{SinkExt as _, StreamExt as _};
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::tunnels::Http2;
use crate::support::app::DOWNLOAD_BYTES;
use crate::support::client::{Browser, Raw, connect};
use crate::support::expect::problem;
use crate::support::grpc::{Channel, GrpcApp};
use crate::support::soon;
use crate::support::stage::{HOST, Stage};

/// What must happen within it after a session has ended.
const PROMISE: Duration = Duration::from_secs(1);

/// Waits for what must happen within a second after the session ended.
async fn in_time<F: Future>(what: &str, ended: Instant, happening: F) -> F::Output {
    match tokio::time::timeout_at(ended + PROMISE, happening).await {
        Ok(output) => output,
        Err(_) => panic!("{PROMISE:?} after the end of the session: {what}"),
    }
}

async fn log_out(stage: &Stage, browser: &mut Browser) -> Instant {
    let logout = stage.url("/aporeto/oidc/logout");
    browser.send("POST", &logout, &[("sec-fetch-site", "same-origin")], b"").await.expect(200);
    Instant::now()
}

async fn websocket(stage: &Stage, path: &str, cookie: &str) -> WebSocketStream<TlsStream<TcpStream>> {
    let tls = soon("TLS", connect(stage.port, Some(HOST), &[b"http/1.1"])).await.unwrap();
    let mut request = format!("wss://{HOST}:{}{path}", stage.port).into_client_request().unwrap();
    request.headers_mut().insert("cookie", cookie.parse().unwrap());
    soon("a handshake", client_async(request, tls)).await.unwrap().0
}

async fn echoes<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) {
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(soon("the echo", socket.next()).await.unwrap().unwrap(), Message::text("hello"));
}

/// The Close comes as the client's library understands it, and then the end.
async fn is_told<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>, ended: Instant) {
    let last = in_time("a WebSocket goes on", ended, socket.next()).await;
    let Some(Ok(Message::Close(Some(frame)))) = last else { panic!("no Close: {last:?}") };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1008, "session ended"));
    assert!(soon("the end", socket.next()).await.is_none());
}

async fn get(stage: &Stage, path: &str, cookie: &str) -> Raw {
    let mut raw = Raw::connect(stage.port, HOST).await;
    raw.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookie}\r\n\r\n")).await;
    raw
}

/// Every kind of stream of one session.
struct Open {
    sockets: Vec<WebSocketStream<TlsStream<TcpStream>>>,
    over_http2: WebSocketStream<hyper_util::rt::TokioIo<hyper::upgrade::Upgraded>>,
    http2: Http2,
    events: Raw,
    download: Raw,
    stream: hyper::body::Incoming,
    upload: Raw,
}

impl Open {
    /// Each at `/app/...?<name>`, and a hundred MiB in each direction that take long.
    async fn begin(stage: &Stage, name: &str, cookie: &str, sockets: usize) -> Self {
        let path = |kind: &str| format!("/app/{kind}?{name}");
        let mut opened = Vec::new();
        for _ in 0..sockets {
            let mut socket = websocket(stage, &path("ws"), cookie).await;
            echoes(&mut socket).await;
            opened.push(socket);
        }
        let mut http2 = Http2::connect(stage).await;
        let tunnel = http2.tunnel(&path("ws"), &[("cookie", cookie)]).await;
        let over_http2 = WebSocketStream::from_raw_socket(tunnel, Role::Client, None).await;
        let mut events = get(stage, &path("sse"), cookie).await;
        events.until("data: first").await.expect("an event");
        let mut download = get(stage, &path("download"), cookie).await;
        download.until("\r\n\r\n").await.expect("a head");
        let answer = http2.ask(Method::GET, &path("download"), None, &[("cookie", cookie)]).await;
        let mut stream = answer.into_body();
        soon("the first bytes", stream.frame()).await.unwrap().unwrap();
        let connections = stage.app.connections();
        let mut upload = Raw::connect(stage.port, HOST).await;
        let head = format!("POST {} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookie}\r\n", path("upload"));
        upload.send(format!("{head}Content-Length: {DOWNLOAD_BYTES}\r\n\r\nonly the beginning")).await;
        stage.app.wait_for_connections(connections + 1).await;
        Self { sockets: opened, over_http2, http2, events, download, stream, upload }
    }

    /// Nothing has happened to any of them.
    async fn goes_on(mut self, stage: &Stage) {
        for socket in &mut self.sockets {
            echoes(socket).await;
        }
        echoes(&mut self.over_http2).await;
        stage.app.release();
        self.events.until("data: second").await.expect("another event");
        for _ in 0..100 {
            self.download.take(64 * 1024).await.expect("more bytes");
            soon("more bytes", self.stream.frame()).await.unwrap().unwrap();
        }
        self.upload.send("and more").await;
        assert!(tokio::time::timeout(PROMISE / 10, self.upload.answer()).await.is_err(), "an upload ended");
    }

    async fn has_ended(mut self, ended: Instant, cookie: &str) {
        let sockets = join_all(self.sockets.iter_mut().map(|socket| is_told(socket, ended)));
        let events = async {
            // An end that lets the browser come again, to be told what happened.
            in_time("events go on", ended, self.events.until("0\r\n\r\n")).await.expect("a clean end");
            let again = format!("GET /app/sse HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookie}\r\n\r\n");
            self.events.send(again).await;
            assert_eq!(self.events.answer().await.unwrap().status, 401);
        };
        let download = async {
            let got = in_time("a download goes on", ended, self.download.rest()).await;
            assert!(got.len() < DOWNLOAD_BYTES / 2, "{} bytes", got.len());
        };
        let stream = async {
            let error = loop {
                match in_time("a stream goes on", ended, self.stream.frame()).await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break error,
                    None => panic!("half a download ended as if it were whole"),
                }
            };
            assert!(!error.to_string().is_empty());
        };
        let upload = async {
            let answer = in_time("an upload goes on", ended, self.upload.answer()).await.expect("an answer");
            problem(&answer, 401);
        };
        tokio::join!(sockets, is_told(&mut self.over_http2, ended), events, download, stream, upload);
        // The connection itself is for other streams.
        assert_eq!(self.http2.ask(Method::GET, "/public/", None, &[]).await.status(), 200);
    }
}

/// Of several sessions of one person, on both workers, one ends.
#[tokio::test]
async fn a_logout_ends_every_stream_of_the_session() {
    let stage = Stage::with(|plan| {
        plan.limit("workers", json!(2));
        plan.limit("drain", json!("1s"));
    })
    .await;
    let (mut leaving, staying) = (stage.logged_in().await, stage.logged_in().await);
    let cookie = leaving.cookies(HOST);
    // Enough for both workers to have some.
    let ending = Open::begin(&stage, "leaving", &cookie, 24).await;
    let others = Open::begin(&stage, "staying", &staying.cookies(HOST), 2).await;
    let mut public = websocket(&stage, "/public/ws", &cookie).await;
    let ends = stage.app.ends();
    let ended = log_out(&stage, &mut leaving).await;
    ending.has_ended(ended, &cookie).await;
    // The application is rid of them too: 25 WebSockets, 2 downloads and an upload. Who sends events finds out later.
    stage.app.wait_for_ends(ends + 28).await;
    others.goes_on(&stage).await;
    echoes(&mut public).await;
    let mut workers = BTreeSet::new();
    for received in stage.app.received() {
        if received.target().ends_with("?leaving") {
            let id = received.header("x-request-id").concat();
            let record = stage.proxy.record(&id).await;
            // Each worker numbers its requests from a place of its own.
            workers.insert(id[..16].to_owned());
            assert_eq!(record["detail"], "the session ended", "{record}");
            assert_eq!(record["action"], "Accept", "{record}");
        }
    }
    assert_eq!(workers.len(), 2, "{workers:?}");
}

#[tokio::test]
async fn a_logout_ends_calls_of_grpc() {
    let app = GrpcApp::start().await;
    let port = app.port;
    let stage = Stage::with(|plan| {
        plan.set("upstream", json!(format!("h2c://127.0.0.1:{port}")));
        plan.set("port", json!(null));
        plan.limit("workers", json!(2));
    })
    .await;
    let mut leaving = stage.logged_in_at("/app/Unary").await;
    let staying = stage.logged_in_at("/app/Unary").await;
    let mut calls = Vec::new();
    for _ in 0..12 {
        let channel = Channel::connect(stage.port, HOST, leaving.cookies(HOST)).await;
        let mut echo = channel.call("/app/echo.Echo/Echo", &[]).await;
        let (_, mut messages) = echo.answer().await;
        echo.send("hello").await;
        assert_eq!(messages.next().await.unwrap(), "hello");
        let silent = channel.call("/app/echo.Echo/Silent", &[]).await;
        calls.push((channel, echo, messages, silent));
    }
    let channel = Channel::connect(stage.port, HOST, staying.cookies(HOST)).await;
    let mut other = channel.call("/app/echo.Echo/Echo", &[]).await;
    let (_, mut others) = other.answer().await;
    // Two logins, 24 calls and the other one.
    app.wait_for(27).await;
    let ended = log_out(&stage, &mut leaving).await;
    for (_channel, _echo, messages, silent) in &mut calls {
        assert_eq!(in_time("a call goes on", ended, messages.next()).await, None);
        assert!(messages.error.is_none(), "{:?}", messages.error);
        let trailers = messages.trailers().await;
        for (name, value) in [("grpc-status", "16"), ("grpc-message", "the session ended")] {
            assert_eq!(trailers[name], value);
        }
        // No head yet: an answer of ours, which libraries of gRPC take for UNAUTHENTICATED.
        assert_eq!(in_time("a call waits", ended, silent.answer()).await.0.status.as_u16(), 401);
    }
    app.resets(12).await;
    other.send("still there").await;
    assert_eq!(others.next().await.unwrap(), "still there");
}

/// The absolute bound, which no use prolongs.
#[tokio::test]
async fn the_longest_life_of_a_session_ends_its_streams() {
    let stage = Stage::with(|plan| {
        plan.limit("drain", json!("1s"));
        plan.config["session"] = json!({ "idleTimeout": "6s", "maxLifetime": "6s" });
    })
    .await;
    let cookie = stage.logged_in().await.cookies(HOST);
    let begun = Instant::now();
    let open = Open::begin(&stage, "expiring", &cookie, 1).await;
    // Whole seconds, so that it may be one less.
    tokio::time::sleep_until(begun + Duration::from_secs(6)).await;
    open.has_ended(begun + Duration::from_secs(6), &cookie).await;
}

/// Bytes of a stream are use of its session; a stream without any is not.
#[tokio::test]
async fn a_stream_in_use_keeps_its_session() {
    let stage = Stage::with(|plan| {
        plan.limit("workers", json!(2));
        plan.config["session"] = json!({ "idleTimeout": "3s", "maxLifetime": "1h" });
    })
    .await;
    let (mut busy, mut quiet) = (stage.logged_in().await, stage.logged_in().await);
    let mut talk = websocket(&stage, "/app/ws", &busy.cookies(HOST)).await;
    let mut silence = websocket(&stage, "/app/ws", &quiet.cookies(HOST)).await;
    let idle = Instant::now() + Duration::from_secs(5);
    while Instant::now() < idle {
        echoes(&mut talk).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let session = busy.fetch(&stage.url("/aporeto/oidc/session")).await.expect(200);
    assert!(!session.sets_session(), "asking extends the session");
    let answer = busy.fetch(&stage.url("/app/")).await.expect(200);
    assert!(answer.sets_session(), "no new seal");
    problem(&quiet.fetch(&stage.url("/app/")).await, 401);
    // Nobody has ended it.
    echoes(&mut silence).await;
    // What was in use can be ended all the same.
    let ended = log_out(&stage, &mut busy).await;
    is_told(&mut talk, ended).await;
    problem(&busy.fetch(&stage.url("/app/")).await, 401);
}
