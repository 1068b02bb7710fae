//! The matrix of protocols: every version that a client speaks, by every version and transport to the application,
//! with plain exchanges, streams and tunnels, for somebody who is logged in. What can't be is refused as documented.

use std::io;

use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Frame;
use serde_json::json;

use crate::support::client::Pairs;
use crate::support::exchange::{Client, part, read, upload};
use crate::support::grpc::fields;
use crate::support::origin::{Body, DOCUMENT, Origin, whole};
use crate::support::soon;
use crate::support::stage::{HOST, Stage};

/// A column: the application as `upstream` names it.
#[derive(Debug)]
struct Column {
    stage: Stage,
    origin: Origin,
    /// Whether the application is reached over HTTP/1.1, which tunnels need.
    has_tunnels: bool,
}

/// All rows of a column, with both kinds of clients.
async fn column(scheme: &str) {
    let origin = Origin::start(scheme).await;
    let stage = Stage::with(|plan| {
        plan.set("upstream", json!(origin.upstream));
        plan.set("port", json!(null));
        plan.set("trustedCertificateAuthorities", json!(origin.authority));
    })
    .await;
    let cookie = stage.logged_in_at("/app/document").await.cookies(HOST);
    let column = Column { stage, origin, has_tunnels: !scheme.starts_with("h2") };
    for http2 in [false, true] {
        let client = Client::new(column.stage.port, HOST, &cookie, http2);
        let cell = |kind: &str| eprintln!("{} -> {scheme}: {kind}", if http2 { "h2" } else { "h1" });
        cell("plain");
        plain(&client).await;
        cell("streams up, down and both ways");
        streams(&column.origin, &client).await;
        cell("broken off by either side");
        breaks(&column.origin, &client).await;
        cell("tunnels");
        tunnels(&column, &client).await;
        client.gone().await;
    }
}

#[tokio::test]
async fn to_http() {
    column("http").await;
}

#[tokio::test]
async fn to_https() {
    column("https").await;
}

#[tokio::test]
async fn to_unix() {
    column("unix").await;
}

#[tokio::test]
async fn to_h2c() {
    column("h2c").await;
}

#[tokio::test]
async fn to_h2() {
    column("h2").await;
}

#[tokio::test]
async fn to_h2c_unix() {
    column("h2c+unix").await;
}

/// Method, path, fields and body; status, fields and body of the answer.
type Plain = (Method, &'static str, Pairs<'static>, &'static str, u16, Pairs<'static>, &'static str);

const PLAIN: [Plain; 7] = [
    (Method::GET, "document", &[], "", 200, &[("content-length", "10"), ("etag", "\"1\"")], DOCUMENT),
    (Method::HEAD, "document", &[], "", 200, &[("content-length", "10"), ("etag", "\"1\"")], ""),
    (Method::GET, "empty", &[], "", 204, &[], ""),
    (Method::GET, "document", &[("if-none-match", "\"1\"")], "", 304, &[("etag", "\"1\"")], ""),
    (
        Method::GET,
        "document",
        &[("range", "bytes=2-4")],
        "",
        206,
        &[("content-range", "bytes 2-4/10"), ("content-length", "3")],
        "234",
    ),
    (Method::POST, "echo", &[("content-length", "5")], "hello", 200, &[], "hello"),
    (Method::GET, "nowhere", &[], "", 404, &[("x-app", "yes")], "no such thing"),
];

async fn plain(client: &Client) {
    for (method, path, asked, sent, status, fields, body) in PLAIN {
        let what = format!("{method} {path} {asked:?}");
        let answer = client.send(method, &format!("/app/{path}"), asked, whole(sent)).await;
        assert_eq!(answer.status(), status, "{what}: {answer:?}");
        for (name, value) in fields {
            assert_eq!(answer.headers().get(*name).unwrap(), value, "{what}: {name}");
        }
        let whole = soon("the body", answer.into_body().collect()).await.unwrap().to_bytes();
        assert_eq!(whole, body, "{what}");
    }
}

async fn streams(origin: &Origin, client: &Client) {
    for (path, kind, first, rest) in [
        ("/app/held", "", "first part, ", "second part"),
        ("/app/sse", "text/event-stream", "data: first\n\n", "data: second\n\n"),
    ] {
        let answer = client.send(Method::GET, path, &[], none()).await;
        assert_eq!(answer.headers().get("content-type").map_or("", |kind| kind.to_str().unwrap()), kind);
        let mut body = answer.into_body();
        read(&mut body, first).await;
        origin.go();
        read(&mut body, rest).await;
        assert_eq!(soon("the end", body.collect()).await.unwrap().to_bytes(), "", "{path}");
    }

    let (parts, body) = upload();
    parts.send(part("first ")).unwrap();
    let (answer, ()) = tokio::join!(client.send(Method::POST, "/app/count", &[], body), async move {
        origin.uploaded(6).await;
        parts.send(part("second")).unwrap();
        origin.uploaded(12).await;
    });
    assert_eq!(soon("the count", answer.into_body().collect()).await.unwrap().to_bytes(), "12");

    // Each part goes up once the one before has come back, and the trailers last.
    let (parts, body) = upload();
    let announced = [("te", "trailers"), ("trailer", "x-sum, x-user")];
    parts.send(part("one")).unwrap();
    let mut answer = client.send(Method::POST, "/app/echo", &announced, body).await.into_body();
    read(&mut answer, "one").await;
    parts.send(part("two")).unwrap();
    read(&mut answer, "two").await;
    parts.send(Frame::trailers(fields(&[("x-sum", "7"), ("x-user", "forged")]))).unwrap();
    drop(parts);
    let end = soon("the end", answer.collect()).await.unwrap();
    assert_eq!(end.trailers().cloned().unwrap_or_default(), fields(&[("x-sum", "7")]));
}

async fn breaks(origin: &Origin, client: &Client) {
    for path in ["/app/cut", "/app/cut-chunked"] {
        let mut body = client.send(Method::GET, path, &[], none()).await.into_body();
        read(&mut body, "only this").await;
        origin.go();
        let end = soon("the end", body.collect()).await;
        assert!(end.is_err(), "{path}: a clean end");
    }

    let (begun, gone) = origin.waiting();
    let leaver = client.clone();
    let silent = tokio::spawn(async move { leaver.send(Method::GET, "/app/silent", &[], none()).await });
    origin.begun(begun + 1).await;
    silent.abort();
    origin.gone(gone + 1).await;

    let mut body = client.send(Method::GET, "/app/stalled", &[], none()).await.into_body();
    read(&mut body, "only this").await;
    drop(body);
    origin.gone(gone + 2).await;
    assert_eq!(origin.waiting(), (begun + 2, gone + 2));
}

async fn tunnels(column: &Column, client: &Client) {
    // RFC 8441 answers with 200; other protocols than WebSocket have only the Upgrade of HTTP/1.1.
    let opened = if client.is_http2() { 200 } else { 101 };
    for protocol in ["websocket", "echo/1"] {
        let (status, head, mut tunnel) = client.tunnel("/app/tunnel", protocol, "early ").await;
        let wanted = match (protocol, client.is_http2(), column.has_tunnels) {
            ("websocket", _, true) | (_, false, true) => opened,
            ("websocket", ..) | (_, true, _) => 501,
            // To an application that speaks HTTP/2 there is nothing to upgrade: the request is like any other.
            (_, false, false) => 200,
        };
        assert_eq!(status, wanted, "{protocol}: {head:?}");
        if status == opened && column.has_tunnels {
            tunnel.hear("hi early ").await;
            tunnel.say("late").await;
            tunnel.hear("late").await;
            tunnel.half_close().await;
            tunnel.hear(" bye").await;
            tunnel.end().await;
        } else if status == 501 {
            refused(column, &head, protocol).await;
        }
    }
}

/// The answer is ours. Of a WebSocket, the record says what the operator can do about it.
async fn refused(column: &Column, head: &HeaderMap, protocol: &str) {
    assert!(!head.contains_key("x-app"), "{head:?}");
    let record = column.stage.proxy.record(head["x-request-id"].to_str().unwrap()).await;
    assert_eq!(record["status"], 501, "{record}");
    if protocol == "websocket" {
        assert!(record["detail"].as_str().unwrap().contains("WebSocket needs HTTP/1.1"), "{record}");
    }
}

fn none() -> Body {
    Empty::<Bytes>::new().map_err(|never| -> io::Error { match never {} }).boxed_unsync()
}
