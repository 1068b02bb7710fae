//! WebSocket from HTTP/2 clients (RFC 8441), and upgrades to other protocols, with rules, sessions and ends.

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::support::client::{Pairs, Raw, connect};
use crate::support::soon;
use crate::support::stage::{HOST, Stage};

/// An HTTP/2 connection whose client knows that the server offers extended CONNECT.
pub struct Http2 {
    sender: SendRequest<Empty<Bytes>>,
    port: u16,
}

impl Http2 {
    pub async fn connect(stage: &Stage) -> Self {
        let io = TokioIo::new(connect(stage.port, Some(HOST), &[b"h2"]).await.unwrap());
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
        let (sender, connection) = soon("HTTP/2", handshake).await.unwrap();
        tokio::spawn(connection);
        let mut client = Self { sender, port: stage.port };
        // The server's SETTINGS come before its first answer.
        assert_eq!(client.ask(Method::GET, "/public/", None, &[]).await.status(), 200);
        client
    }

    pub async fn ask(
        &mut self,
        method: Method,
        path: &str,
        protocol: Option<&'static str>,
        fields: Pairs<'_>,
    ) -> Response<Incoming> {
        let authority = format!("{HOST}:{}", self.port);
        let is_plain_connect = method == Method::CONNECT && protocol.is_none();
        let uri = if is_plain_connect { authority } else { format!("https://{authority}{path}") };
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        if let Some(protocol) = protocol {
            request = request.extension(Protocol::from_static(protocol));
        }
        let request = request.body(Empty::new()).unwrap();
        soon("an answer", self.sender.send_request(request)).await.unwrap()
    }

    /// A handshake with these fields besides the version.
    async fn handshake(&mut self, path: &str, fields: Pairs<'_>) -> Response<Incoming> {
        let fields = [&[("sec-websocket-version", "13")], fields].concat();
        self.ask(Method::CONNECT, path, Some("websocket"), &fields).await
    }

    /// A stream that is a tunnel.
    pub async fn tunnel(&mut self, path: &str, fields: Pairs<'_>) -> TokioIo<Upgraded> {
        let answer = self.handshake(path, fields).await;
        assert_eq!(answer.status(), 200, "{path}");
        TokioIo::new(soon("the tunnel", hyper::upgrade::on(answer)).await.unwrap())
    }
}

#[tokio::test]
async fn a_websocket_over_http2_is_a_tunnel() {
    let stage = Stage::with(|plan| plan.set("allowedOrigins", json!(["https://ui.test"]))).await;
    let cookie = stage.logged_in().await.cookies(HOST);
    let mut client = Http2::connect(&stage).await;
    let before = stage.app.count();
    assert_eq!(client.handshake("/app/ws", &[]).await.status(), 401);
    let mine = [("cookie", cookie.as_str())];
    assert_eq!(client.handshake("/admin/ws", &mine).await.status(), 403);
    for origin in ["https://evil.test", "null", &format!("http://{HOST}:{}", stage.port)] {
        let fields = [("cookie", cookie.as_str()), ("origin", origin)];
        assert_eq!(client.handshake("/app/ws", &fields).await.status(), 403, "{origin}");
    }
    assert_eq!(stage.app.count(), before);
    for origin in [stage.origin.as_str(), "https://ui.test"] {
        let answer = client
            .handshake(
                "/app/ws?x=1",
                &[
                    ("cookie", "a=1"),
                    ("cookie", &cookie),
                    ("cookie", "b=2"),
                    ("origin", origin),
                    ("sec-websocket-key", "not read on HTTP/2"),
                    ("sec-websocket-protocol", "chat, superchat"),
                    ("sec-websocket-extensions", "permessage-deflate"),
                    ("x-user", "forged"),
                ],
            )
            .await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
        for name in ["upgrade", "connection", "sec-websocket-accept"] {
            assert!(!answer.headers().contains_key(name), "{name}");
        }
        let received = stage.app.last();
        assert!(received.text().starts_with("GET /app/ws?x=1 HTTP/1.1\r\n"), "{}", received.text());
        for (name, value) in [
            ("upgrade", "websocket"),
            ("connection", "upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat, superchat"),
            ("sec-websocket-extensions", "permessage-deflate"),
            ("cookie", "a=1; b=2"),
            ("x-user", "alice"),
            ("host", &format!("{HOST}:{}", stage.port)),
        ] {
            assert_eq!(received.header(name), [value], "{name}");
        }
        assert_eq!(received.header("sec-websocket-key").concat().len(), 24);
        let id = received.header("x-request-id").concat();
        let io = TokioIo::new(soon("the tunnel", hyper::upgrade::on(answer)).await.unwrap());
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
        for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
            let message = Message::binary(vec![b'x'; size]);
            soon("room", socket.send(message.clone())).await.unwrap();
            assert_eq!(soon("the echo", socket.next()).await.unwrap().unwrap(), message, "{size} bytes");
        }
        // Other streams of the connection go on meanwhile.
        assert_eq!(client.ask(Method::GET, "/public/", None, &[]).await.status(), 200);
        socket.close(None).await.unwrap();
        soon("the end", async { while let Some(Ok(_)) = socket.next().await {} }).await;
        drop(socket);
        let record = stage.proxy.record(&id).await;
        assert_eq!((&record["method"], &record["status"]), (&json!("GET"), &json!(101)), "{record}");
        assert!(record["bytesOut"].as_u64() > Some(1 << 20), "{record}");
    }
}

#[tokio::test]
async fn a_connect_that_is_no_good_handshake_opens_nothing() {
    let stage = Stage::usual().await;
    let mut client = Http2::connect(&stage).await;
    let before = stage.app.count();
    let version = ("sec-websocket-version", "13");
    for (path, protocol, fields, wanted) in [
        ("", None, &[][..], 501),
        ("/public/ws", Some("connect-udp"), &[version], 501),
        ("/public/ws", Some("WebSocket"), &[version], 501),
        ("/public/ws", Some("websocket"), &[], 400),
        ("/public/ws", Some("websocket"), &[("sec-websocket-version", "777")], 400),
        ("/public/ws", Some("websocket"), &[version, version], 400),
        ("/public/../app/ws", Some("websocket"), &[version], 400),
        ("/aporeto/oidc/session", Some("websocket"), &[version], 404),
        ("/aporeto/oidc/login", Some("websocket"), &[version], 404),
        ("/aporeto/oidc/callback", Some("websocket"), &[version], 404),
    ] {
        let answer = client.ask(Method::CONNECT, path, protocol, fields).await;
        assert_eq!(answer.status(), wanted, "{path} {protocol:?} {fields:?}");
        let has_other_version = path == "/public/ws" && wanted == 400;
        assert_eq!(answer.headers().contains_key("sec-websocket-version"), has_other_version, "{fields:?}");
    }
    assert_eq!(stage.app.count(), before);
    // The application says no: its answer is the answer, but a 2xx would be a yes.
    for (path, wanted) in [
        ("/public/status-403", 403),
        ("/public/status-426", 426),
        ("/public/redirect", 302),
        ("/public/not-ws", 502),
        ("/public/status-204", 502),
        ("/public/upgrade", 502),
    ] {
        let answer = client.handshake(path, &[]).await;
        assert_eq!(answer.status(), wanted, "{path}");
        let body = soon("the body", answer.into_body().collect()).await.unwrap().to_bytes();
        assert!(!body.is_empty() || wanted == 204, "{path}");
    }
}

/// Preface and empty SETTINGS.
const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A HEADERS frame of a whole block on stream 1, every field a literal without indexing.
fn headers_frame(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [&[0, length[0], length[1], 1, 4, 0, 0, 0, 1], block.as_slice()].concat()
}

/// Every way in which a tunnel over HTTP/2 can end ends both sides.
#[tokio::test]
async fn a_tunnel_over_http2_ends_with_either_side() {
    let stage = Stage::with(|plan| plan.limit("drain", json!("3s"))).await;
    let mut client = Http2::connect(&stage).await;
    // The client is done and listens; the application has the last word.
    let mut tunnel = client.tunnel("/public/last-word", &[]).await;
    tunnel.write_all(b"said").await.unwrap();
    tunnel.shutdown().await.unwrap();
    let mut heard = Vec::new();
    soon("the end", tunnel.read_to_end(&mut heard)).await.unwrap();
    assert_eq!(heard, b"said");
    // The application closes.
    let mut socket =
        WebSocketStream::from_raw_socket(client.tunnel("/public/ws", &[]).await, Role::Client, None).await;
    socket.close(None).await.unwrap();
    soon("the end", async { while let Some(Ok(_)) = socket.next().await {} }).await;
    // The client goes away.
    let ended = stage.app.ends();
    drop(client.tunnel("/public/ws", &[]).await);
    stage.app.wait_for_ends(ended + 1).await;
    // The process stops.
    let mut tunnel = client.tunnel("/public/ws", &[]).await;
    stage.proxy.terminate();
    let mut rest = Vec::new();
    let _ = soon("the end", tunnel.read_to_end(&mut rest)).await;
    drop((tunnel, client));
    let Stage { proxy, .. } = stage;
    assert_eq!(proxy.finished().await.code, Some(0));
}

/// A reset is no half-close: it ends the tunnel at once, however silent the application is.
#[tokio::test]
async fn a_reset_stream_ends_its_tunnel() {
    let stage = Stage::usual().await;
    let authority = format!("{HOST}:{}", stage.port);
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":path", "/public/deaf"),
        (":authority", authority.as_str()),
        ("sec-websocket-version", "13"),
    ];
    for reason in [8, 0, 2] {
        let before = stage.app.count();
        let mut raw = Raw::over(connect(stage.port, Some(HOST), &[b"h2"]).await.unwrap());
        raw.send([OPENING, &headers_frame(&fields)].concat()).await;
        stage.app.wait_for(before + 1).await;
        // HEADERS with END_HEADERS on stream 1: the 200.
        raw.until_bytes(&[1, 4, 0, 0, 0, 1]).await.expect("the answer");
        raw.send([0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, reason]).await;
        let record = stage.proxy.record(&stage.app.last().header("x-request-id").concat()).await;
        assert!(record["detail"].as_str().unwrap().contains("went away"), "{reason}: {record}");
        assert!(record["durationMs"].as_f64() < Some(10_000.0), "{record}");
    }
}

/// The end of the session is the end of its tunnels, on both versions.
#[tokio::test]
async fn tunnels_end_with_the_session() {
    let stage =
        Stage::with(|plan| plan.config["session"] = json!({ "idleTimeout": "3s", "maxLifetime": "3s" }))
            .await;
    let cookie = stage.logged_in().await.cookies(HOST);
    let mut client = Http2::connect(&stage).await;
    let mut tunnel = client.tunnel("/app/ws", &[("cookie", &cookie)]).await;
    let mut public = client.tunnel("/public/last-word", &[("cookie", &cookie)]).await;
    let mut raw = Raw::connect(stage.port, HOST).await;
    raw.send(upgrade("GET", "/app/upgrade", &cookie, "")).await;
    assert_eq!(raw.answer().await.unwrap().status, 101);
    let mut rest = Vec::new();
    soon("the end", tunnel.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"\x88\x0f\x03\xf0session ended");
    assert_eq!(raw.rest().await, b"", "not a WebSocket");
    rest.clear();
    assert_eq!(client.handshake("/app/ws", &[("cookie", &cookie)]).await.status(), 401);
    // What everybody may see does not end with anybody's session.
    public.write_all(b"still here").await.unwrap();
    public.shutdown().await.unwrap();
    soon("the end", public.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"still here");
}

fn upgrade(method: &str, path: &str, cookie: &str, rest: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookie}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n{rest}\r\n"
    )
}

/// SMG-16: another protocol, only for who may and only after the application's own 101.
#[tokio::test]
async fn another_protocol_is_a_tunnel_after_the_apps_101() {
    let stage = Stage::usual().await;
    let cookie = stage.logged_in().await.cookies(HOST);
    let before = stage.app.count();
    for (cookie, path, wanted) in [("a=1", "/app/upgrade", 401), (cookie.as_str(), "/admin/upgrade", 403)] {
        let answer = Raw::ask(stage.port, HOST, upgrade("GET", path, cookie, "")).await;
        assert_eq!(answer.status, wanted);
    }
    assert_eq!(stage.app.count(), before);
    let smuggled = "GET /admin/ HTTP/1.1\r\nHost: app.test\r\n\r\n";
    for (method, rest) in [
        ("GET", "\r\n".to_owned()),
        ("POST", "Content-Length: 4\r\n\r\nbody".to_owned()),
        ("POST", "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n".to_owned()),
    ] {
        let mut raw = Raw::connect(stage.port, HOST).await;
        let head = upgrade(method, "/app/upgrade", &cookie, "");
        // What follows is held until the answer, and is the tunnel's then.
        raw.send(head.trim_end().to_owned() + "\r\n" + &rest + smuggled).await;
        let answer = raw.answer().await.unwrap();
        assert_eq!((answer.status, answer.header("upgrade")), (101, "echo"));
        assert_eq!(raw.until("\r\n\r\n").await.unwrap(), smuggled);
        let received = stage.app.last();
        assert_eq!(
            (received.header("upgrade"), received.header("x-user")),
            (vec!["echo".into()], vec!["alice".into()])
        );
        assert_eq!(received.body, if method == "POST" { &b"body"[..] } else { b"" });
        raw.send("more").await;
        assert_eq!(raw.until("more").await.unwrap(), "more");
    }
    assert!(stage.app.received().iter().all(|received| !received.target().starts_with("/admin")));
    // A wish that is not the application's protocol, and none at all.
    for upgrade in
        ["Connection: Upgrade\r\nUpgrade: other", "Connection: Upgrade\r\nUpgrade: h2c", "X-Nothing: 1"]
    {
        let request = format!("GET /public/upgrade HTTP/1.1\r\nHost: {HOST}\r\n{upgrade}\r\n\r\n");
        assert_eq!(Raw::ask(stage.port, HOST, request).await.status, 502, "{upgrade}");
    }
}

/// A quiet tunnel holds no buffers: 40 KiB are the promise, TLS included.
#[tokio::test]
async fn a_quiet_websocket_costs_little() {
    let stage = Stage::usual().await;
    let request = format!(
        "GET /public/ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let mut live = Vec::new();
    let mut memory = Vec::new();
    // The first ones also pay for what all share.
    for count in [50, 200] {
        for _ in 0..count {
            let mut raw = Raw::connect(stage.port, HOST).await;
            raw.send(&request).await;
            assert_eq!(raw.answer().await.unwrap().status, 101);
            // A masked text frame, and its echo.
            raw.send(b"\x81\x85\0\0\0\0hello").await;
            raw.until_bytes(b"\x81\x05hello").await.expect("the echo");
            live.push(raw);
        }
        memory.push(stage.proxy.memory());
    }
    let each = (memory[1] - memory[0]) / 200;
    assert!(each <= 40 * 1024, "{each} bytes for a live WebSocket");
}
