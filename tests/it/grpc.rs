//! HTTP/2 to the application: gRPC of all four kinds, through the proxy with a session and back.

use h2::Reason;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::client::Raw;
use crate::support::expect::problem;
use crate::support::grpc::{Channel, GrpcApp, fields};
use crate::support::proxy::portcullis;
use crate::support::stage::{HOST, Stage};

/// The proxy in front of a gRPC application, and a channel of somebody who is logged in.
async fn stage() -> (Stage, GrpcApp, Channel) {
    let app = GrpcApp::start().await;
    let port = app.port;
    let stage = Stage::with(|plan| {
        plan.set("upstream", json!(format!("h2c://127.0.0.1:{port}")));
        plan.set("port", json!(null));
        plan.limit("bodyIdleTimeout", json!("1s"));
        plan.limit("responseTimeout", json!("1s"));
    })
    .await;
    // The application answers browsers too, if not with anything that they could show.
    let browser = stage.logged_in_at("/app/Unary").await;
    let channel = Channel::connect(stage.port, HOST, browser.cookies(HOST)).await;
    (stage, app, channel)
}

#[tokio::test]
async fn a_unary_call_crosses_with_its_metadata() {
    let (stage, app, channel) = stage().await;
    let extra = [("grpc-timeout", "5S"), ("x-trace", "1"), ("x-user", "forged"), ("x-data-bin", "AAE=")];
    let mut call = channel.call("/app/echo.Echo/Unary", &extra).await;
    call.send("hello").await;
    let trailers = [("x-sum", "1"), ("x-user", "forged"), ("x-forwarded-for", "::1"), ("cookie", "a=b")];
    call.upload.send_trailers(fields(&trailers)).unwrap();
    let (head, mut messages) = call.answer().await;
    assert_eq!((head.status.as_u16(), head.headers["x-head"].as_bytes()), (200, &b"1"[..]));
    assert_eq!(messages.next().await.unwrap(), "hello");
    assert_eq!(messages.next().await, None);
    assert_eq!(messages.trailers().await, fields(&[("grpc-status", "0"), ("x-sum", "7")]));
    assert_eq!(app.trailers(), fields(&[("x-sum", "1")]));

    let got = app.last();
    let authority = format!("{HOST}:{}", stage.port);
    assert_eq!(got.uri.scheme_str(), Some("http"));
    assert_eq!(got.uri.authority().unwrap().as_str(), authority);
    for (name, value) in [
        ("te", "trailers"),
        ("grpc-timeout", "5S"),
        ("x-trace", "1"),
        ("x-data-bin", "AAE="),
        ("x-user", "alice"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", &authority),
    ] {
        let values: Vec<_> = got.headers.get_all(name).iter().collect();
        assert_eq!(values, [value], "{name}");
    }
    for name in ["host", "connection", "cookie", "transfer-encoding"] {
        assert!(!got.headers.contains_key(name), "{name}");
    }
    let id = got.headers["x-request-id"].to_str().unwrap();
    let record = stage.proxy.record(id).await;
    assert_eq!((&record["action"], &record["subject"]), (&json!("Accept"), &json!("alice")));
}

#[tokio::test]
async fn streams_of_every_kind_cross() {
    let (_stage, app, channel) = stage().await;
    let mut collect = channel.call("/app/echo.Echo/Collect", &[]).await;
    for part in ["a", "b", "c"] {
        collect.send(part).await;
    }
    collect.end();
    assert_eq!(collect.answer().await.1.next().await.unwrap(), "abc");

    let mut count = channel.call("/app/echo.Echo/Count", &[]).await;
    count.send("1000").await;
    count.end();
    let (_, mut messages) = count.answer().await;
    for number in 0..1000 {
        assert_eq!(messages.next().await.unwrap(), number.to_string());
    }
    assert_eq!(messages.next().await, None);
    assert_eq!(messages.trailers().await["grpc-status"], "0");

    let mut echo = channel.call("/app/echo.Echo/Echo", &[]).await;
    let (_, mut messages) = echo.answer().await;
    for number in 0..100 {
        let message = format!("{number} {}", "x".repeat(number * 1000));
        echo.send(&message).await;
        assert_eq!(messages.next().await.unwrap(), message);
    }
    echo.end();
    assert_eq!(messages.next().await, None);
    assert_eq!(messages.trailers().await["grpc-status"], "0");
    assert_eq!(app.connections(), 1, "calls share a connection");
}

/// Longer than the limits that bodies and answers otherwise have.
#[tokio::test]
async fn a_call_may_be_silent() {
    let (_stage, _app, channel) = stage().await;
    let mut echo = channel.call("/app/echo.Echo/Echo", &[]).await;
    let (_, mut messages) = echo.answer().await;
    let mut collect = channel.call("/app/echo.Echo/Collect", &[]).await;
    // The time itself is what is tested.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    echo.send("still there").await;
    assert_eq!(messages.next().await.unwrap(), "still there");
    collect.send("so am I").await;
    collect.end();
    assert_eq!(collect.answer().await.1.next().await.unwrap(), "so am I");
}

#[tokio::test]
async fn errors_cross_and_ours_are_http() {
    let (stage, app, channel) = stage().await;
    let mut fail = channel.call("/app/echo.Echo/Fail", &[]).await;
    fail.end();
    let (head, _) = fail.answer().await;
    assert_eq!(head.headers["grpc-status"], "5");
    assert_eq!(head.headers["grpc-message"], "Stra%C3%9Fe nicht gefunden");

    let mut half = channel.call("/app/echo.Echo/Half", &[]).await;
    let (_, mut messages) = half.answer().await;
    assert_eq!(messages.next().await.unwrap(), "half");
    half.send("go on").await;
    assert_eq!(messages.next().await, None);
    assert_eq!(messages.error.and_then(|error| error.reason()), Some(Reason::INTERNAL_ERROR));

    // Statuses that gRPC libraries understand: UNAUTHENTICATED and PERMISSION_DENIED.
    let calls = app.count();
    let stranger = Channel::connect(stage.port, HOST, String::new()).await;
    for (channel, path, status) in [(&stranger, "/app/x/Unary", 401), (&channel, "/admin/x/Unary", 403)] {
        let mut call = channel.call(path, &[]).await;
        assert_eq!(call.answer().await.0.status.as_u16(), status, "{path}");
    }
    assert_eq!(app.count(), calls);
}

#[tokio::test]
async fn a_client_that_cancels_or_vanishes_ends_its_call_at_the_app() {
    let (stage, app, channel) = stage().await;
    let browser = stage.logged_in_at("/app/Unary").await;
    let calls = app.count();
    let mut first = channel.call("/app/echo.Echo/Silent", &[]).await;
    first.send("message").await;
    app.wait_for(calls + 1).await;
    first.upload.send_reset(Reason::CANCEL);
    assert_eq!(app.resets(1).await, [Reason::CANCEL]);

    let vanishing = Channel::connect(stage.port, HOST, browser.cookies(HOST)).await;
    let second = vanishing.call("/app/echo.Echo/Silent", &[]).await;
    app.wait_for(calls + 2).await;
    drop((second, vanishing));
    assert_eq!(app.resets(2).await, [Reason::CANCEL; 2]);
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn http1_clients_reach_the_app_too_but_not_with_a_websocket() {
    let (stage, app, _) = stage().await;
    let get = format!(
        "GET /public/Unary HTTP/1.1\r\nHost: {HOST}\r\nTE: trailers\r\nConnection: te, close\r\n\r\n"
    );
    let answer = Raw::ask(stage.port, HOST, get).await.expect(200);
    assert_eq!((&answer.body[..], answer.header("x-head")), (&[0; 5][..], "1"));
    let calls = app.count();
    let handshake = format!(
        "GET /public/ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let answer = Raw::ask(stage.port, HOST, handshake).await.expect(501);
    let record = stage.proxy.record(answer.header("x-request-id")).await;
    assert_eq!(record["dropReason"], "dial");
    assert!(record["detail"].as_str().unwrap().contains("WebSocket needs HTTP/1.1"), "{record}");
    assert_eq!(app.count(), calls);
}

/// An application that speaks only HTTP/1.1, at an upstream of HTTP/2: `check` says so, and so does the log.
#[tokio::test]
async fn an_app_without_http2_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
    let stage = Stage::with(|plan| {
        plan.set("upstream", json!(format!("h2c://127.0.0.1:{port}")));
        plan.set("port", json!(null));
    })
    .await;
    let get = format!("GET /public/ HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    let answer = Raw::ask(stage.port, HOST, get).await;
    problem(&answer, 502);
    let record = stage.proxy.record(answer.header("x-request-id")).await;
    let said = "does not speak HTTP/2: it answered with something else; turn HTTP/2 on there, or write upstream \
                with http://";
    assert!(record["detail"].as_str().unwrap().contains(said), "{record}");

    let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    std::fs::write(file.path(), serde_yaml::to_string(&stage.config).unwrap()).unwrap();
    let arguments = ["check", "-c", file.path().to_str().unwrap()];
    let checked = portcullis(&arguments, &[]).await;
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert!(checked.stdout.contains(said), "{}", checked.stdout);

    server.abort();
    let app = GrpcApp::start().await;
    let config =
        serde_yaml::to_string(&stage.config).unwrap().replace(&port.to_string(), &app.port.to_string());
    std::fs::write(file.path(), config).unwrap();
    let checked = portcullis(&arguments, &[]).await;
    assert!(checked.stdout.contains("the application speaks HTTP/2"), "{}", checked.stdout);
}
