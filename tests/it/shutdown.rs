//! SIGTERM: not ready, then no new connections, what is in flight is finished, and exit code 0. And a start that
//! can't be.

use std::net::Ipv4Addr;

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::client::{Raw, connect};
use crate::support::ports::free_port;
use crate::support::soon;
use crate::support::stage::{HOST, Stage};

#[tokio::test]
async fn what_is_in_flight_is_finished() {
    let stage = Stage::usual().await;
    let mut raw = Raw::connect(stage.port, HOST).await;
    raw.send(format!("GET /public/held HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    raw.until("first part, ").await.expect("the first part");
    let mut idle = Raw::connect(stage.port, HOST).await;
    idle.send(format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    idle.answer().await.unwrap().expect(200);

    stage.proxy.terminate();
    // An idle connection ends, and no new one is taken.
    assert_eq!(idle.rest().await, b"");
    let refused = async {
        while TcpStream::connect((Ipv4Addr::LOCALHOST, stage.port)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    soon("the listener to close", refused).await;
    stage.app.release();
    raw.until("second part").await.expect("the rest of the answer");
    let Stage { proxy, .. } = stage;
    let finished = proxy.finished().await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
}

/// `limits.shutdownDelay`: not ready, and serving all the same.
#[tokio::test]
async fn it_serves_while_the_load_balancer_learns() {
    let stage = Stage::with(|plan| plan.limit("shutdownDelay", json!("2s"))).await;
    let until = async |status: u16| {
        while stage.admin("/readyz").await.status != status {
            tokio::task::yield_now().await;
        }
    };
    soon("ready", until(200)).await;
    stage.proxy.terminate();
    soon("not ready", until(503)).await;
    stage.browser().fetch(&stage.url("/public/")).await.expect(200);
    stage.admin("/healthz").await.expect(200);
    let Stage { proxy, .. } = stage;
    assert_eq!(proxy.finished().await.code, Some(0));
}

/// `limits.drain` bounds it: a stream that does not end is ended.
#[tokio::test]
async fn a_stream_does_not_hold_it_up() {
    let stage = Stage::with(|plan| plan.limit("drain", json!("500ms"))).await;
    let mut raw = Raw::connect(stage.port, HOST).await;
    raw.send(format!("GET /public/sse HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    raw.until("data: first").await.expect("an event");
    stage.proxy.terminate();
    raw.rest().await;
    let is_its_record = |line: &Value| line["path"] == "/public/sse";
    let record = stage.proxy.line("the record of the stream", is_its_record).await;
    assert_eq!(record["detail"], "ended because the process stops", "not the client's doing: {record}");
    let Stage { proxy, .. } = stage;
    assert_eq!(proxy.finished().await.code, Some(0));
}

/// Over HTTP/2 the connection says GOAWAY, and its streams end well.
#[tokio::test]
async fn http2_streams_are_finished() {
    use http_body_util::BodyExt as _;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let stage = Stage::usual().await;
    let io = TokioIo::new(connect(stage.port, Some(HOST), &[b"h2"]).await.unwrap());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get(stage.url("/public/held"))
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    let mut answer = soon("a head", sender.send_request(request)).await.unwrap().into_body();
    soon("the first part", answer.frame()).await.unwrap().unwrap();
    stage.proxy.terminate();
    let refused = async {
        while TcpStream::connect((Ipv4Addr::LOCALHOST, stage.port)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    soon("the listener to close", refused).await;
    stage.app.release();
    assert_eq!(soon("the rest", answer.collect()).await.unwrap().to_bytes(), "second part");
    drop(sender);
    soon("the end of the connection", connection).await.unwrap().unwrap();
    let Stage { proxy, .. } = stage;
    assert_eq!(proxy.finished().await.code, Some(0));
}

/// A WebSocket is told to close, and does not hold the end up.
#[tokio::test]
async fn a_websocket_is_closed() {
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio_tungstenite::tungstenite::Message;
    let stage = Stage::with(|plan| plan.limit("drain", json!("3s"))).await;
    let tls = connect(stage.port, Some(HOST), &[b"http/1.1"]).await.unwrap();
    let url = format!("wss://{HOST}:{}/public/ws", stage.port);
    let (mut socket, _) = soon("a handshake", tokio_tungstenite::client_async(url, tls)).await.unwrap();
    socket.send(Message::text("before")).await.unwrap();
    assert_eq!(soon("the echo", socket.next()).await.unwrap().unwrap(), Message::text("before"));
    stage.proxy.terminate();
    let Some(Ok(Message::Close(Some(frame)))) = soon("a Close", socket.next()).await else { panic!() };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1001, "going away"));
    assert!(soon("the end of the tunnel", socket.next()).await.is_none());
    let Stage { proxy, .. } = stage;
    assert_eq!(proxy.finished().await.code, Some(0));
}

/// A port in use is an error, by another Portcullis too.
#[tokio::test]
async fn a_port_in_use_is_an_error() {
    let stage = Stage::usual().await;
    let taken = stage.port;
    let state = std::sync::Arc::new(tempfile::TempDir::new().unwrap());
    let second = Stage::build(
        |plan| {
            plan.set("exposedPort", json!(taken));
            plan.set("OIDCCallbackURL", json!(format!("https://{HOST}:{taken}")));
            plan.config["admin"]["listen"] = json!(format!("127.0.0.1:{}", free_port()));
        },
        state,
    )
    .await;
    let finished = second.expect_err("two on one port");
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let told = format!("{}{}", finished.stdout, finished.stderr);
    assert!(told.contains(&taken.to_string()) && told.contains("in use"), "{told}");
    stage.browser().fetch(&stage.url("/public/")).await.expect(200);
}
