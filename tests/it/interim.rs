//! Answers before the answer: what the application hints at, and who is asked to send a body.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::support::client::{FETCH, Raw, connect};
use crate::support::soon;
use crate::support::stage::{HOST, Stage};

const EARLY: &str =
    "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nLink: </b.js>; rel=preload\r\n\r\n";
const FINAL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-App: yes\r\n\r\nok";

/// A 103 with everything in it that is not for the client.
const DIRTY: &str = "HTTP/1.1 103 Early Hints\r\nConnection: X-Hop\r\nX-Hop: no\r\nKeep-Alive: no\r\n\
    Content-Length: 7\r\nSet-Cookie: __Host-portcullis=no\r\nSet-Cookie: app=1\r\nLink: </a.css>\r\nUpgrade: no\r\n\r\n";

/// A stage whose application is [`serve`], and what lets held answers go on.
async fn stage() -> (Stage, Arc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let go = Arc::new(Notify::new());
    let theirs = go.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(serve(stream, theirs.clone()));
        }
    });
    (Stage::with(|plan| plan.set("port", json!(port))).await, go)
}

/// Answers by path, and reads no body unless the path says so.
async fn serve(mut stream: TcpStream, go: Arc<Notify>) -> Option<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).unwrap();
        let name = head.split(' ').nth(1).unwrap().rsplit('/').next().unwrap();
        let parts: Vec<String> = match name {
            "early" => vec![format!("{EARLY}HTTP/1.1 102 Processing\r\n\r\n{EARLY}{FINAL}")],
            "pieces" => {
                EARLY.as_bytes().chunks(11).map(|part| String::from_utf8(part.into()).unwrap()).collect()
            }
            "dirty" => vec![format!("{DIRTY}{FINAL}")],
            "continue" => vec!["HTTP/1.1 100 Continue\r\n\r\n".to_owned() + EARLY],
            "held" => vec![EARLY.to_owned()],
            status => vec![format!("HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\nno")],
        };
        for part in parts {
            stream.write_all(part.as_bytes()).await.ok()?;
            tokio::task::yield_now().await;
        }
        match name {
            "pieces" => stream.write_all(FINAL.as_bytes()).await.ok()?,
            "held" => {
                go.notified().await;
                stream.write_all(FINAL.as_bytes()).await.ok()?;
            }
            "continue" => {
                stream.read_exact(&mut [0; 5]).await.ok()?;
                stream.write_all(FINAL.as_bytes()).await.ok()?;
            }
            _ => {}
        }
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

#[tokio::test]
async fn early_hints_reach_the_client_before_the_answer() {
    let (stage, go) = stage().await;
    let mut raw = Raw::connect(stage.port, HOST).await;
    // On one connection, with each answer's end where it should be.
    raw.send(get("/public/early") + &get("/public/pieces") + &get("/public/200") + &get("/public/held"))
        .await;
    for wanted in [103, 102, 103, 200, 103, 200, 200, 103] {
        let answer = raw.any_answer().await.unwrap().expect(wanted);
        if wanted == 103 {
            let links: Vec<_> = answer.headers.get_all("link").iter().collect();
            assert_eq!(links, ["</a.css>; rel=preload", "</b.js>; rel=preload"]);
        }
    }
    go.notify_one();
    let last = raw.any_answer().await.unwrap().expect(200);
    assert_eq!((last.header("x-app"), last.text().as_str()), ("yes", "ok"));
}

/// The same rules as for the answer itself.
/// Each stream gets its own.
#[tokio::test]
async fn early_hints_reach_clients_of_http2_too() {
    let (stage, go) = stage().await;
    let tls = connect(stage.port, Some(HOST), &[b"h2"]).await.unwrap();
    let (mut client, connection) = h2::client::handshake(tls).await.unwrap();
    tokio::spawn(connection);
    let mut ask = |name: &str| {
        let request = http::Request::get(stage.url(&format!("/public/{name}"))).body(()).unwrap();
        client.send_request(request, true).unwrap().0
    };
    let mut held = ask("held");
    let mut others = ["200", "early", "dirty"].map(&mut ask);
    let hint = soon("a hint", poll_fn(|cx| held.poll_informational(cx))).await.unwrap().unwrap();
    assert_eq!(hint.status(), 103);
    let links: Vec<_> = hint.headers().get_all("link").iter().collect();
    assert_eq!(links, ["</a.css>; rel=preload", "</b.js>; rel=preload"]);
    for (answer, wanted) in others.iter_mut().zip([&[][..], &[103, 102, 103], &[103]]) {
        let mut seen = Vec::new();
        loop {
            let next = poll_fn(|cx| match answer.poll_informational(cx) {
                Poll::Ready(Some(hint)) => Poll::Ready(Ok(hint.unwrap())),
                _ => Pin::new(&mut *answer).poll(cx).map(Err),
            });
            match soon("an answer", next).await {
                Ok(hint) => {
                    for name in ["x-hop", "connection", "keep-alive", "content-length", "upgrade"] {
                        assert!(!hint.headers().contains_key(name), "{name}");
                    }
                    assert!(hint.headers().get_all("set-cookie").iter().all(|cookie| cookie == "app=1"));
                    seen.push(hint.status().as_u16());
                }
                Err(answer) => {
                    assert_eq!(answer.unwrap().status(), 200);
                    break;
                }
            }
        }
        assert_eq!(seen, wanted);
    }
    go.notify_one();
    assert_eq!(soon("the answer", held).await.unwrap().status(), 200);
}

#[tokio::test]
async fn early_hints_are_cleaned() {
    let (stage, _go) = stage().await;
    let mut raw = Raw::connect(stage.port, HOST).await;
    raw.send(get("/public/dirty")).await;
    let hint = raw.any_answer().await.unwrap().expect(103);
    let mut names: Vec<&str> = hint.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["link", "set-cookie"]);
    assert_eq!(hint.set_cookies(), ["app=1"]);
    raw.any_answer().await.unwrap().expect(200);
}

/// HTTP/1.0 has none, and over HTTP/2 only the answer arrives.
#[tokio::test]
async fn clients_without_early_hints_get_the_answer() {
    let (stage, _go) = stage().await;
    let old = format!("GET /public/early HTTP/1.0\r\nHost: {HOST}\r\n\r\n");
    let mut raw = Raw::connect(stage.port, HOST).await;
    raw.send(old).await;
    raw.any_answer().await.unwrap().expect(200);
    let mut browser = stage.browser().http2();
    let answer = browser.send("GET", &stage.url("/public/early"), &FETCH, b"").await.expect(200);
    assert_eq!(answer.text(), "ok");
}

/// Nobody is asked for a body that is not wanted: RFC 9110 section 10.1.1.
#[tokio::test]
async fn leave_to_send_comes_from_whoever_wants_the_body() {
    let (stage, _go) = stage().await;
    let ask = async |path: &str| {
        let mut raw = Raw::connect(stage.port, HOST).await;
        raw.send(format!(
            "POST {path} HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        ))
        .await;
        raw
    };
    // The application's answers, ours to somebody unknown, and ours to nobody.
    for (path, status) in [
        ("/public/417", 417),
        ("/public/413", 413),
        ("/public/401", 401),
        ("/app/x", 401),
        ("/public/%2e%2e/", 400),
    ] {
        let mut raw = ask(path).await;
        let answer = raw.any_answer().await.unwrap().expect(status);
        assert_eq!(answer.header("connection"), "close", "{path}: what follows may be the body or a request");
        assert_eq!(raw.rest().await, b"", "{path}");
    }
    let mut raw = ask("/public/continue").await;
    let mut statuses = vec![raw.any_answer().await.unwrap().status, raw.any_answer().await.unwrap().status];
    raw.send("hello").await;
    statuses.sort_unstable();
    assert_eq!(statuses, [100, 103]);
    raw.any_answer().await.unwrap().expect(200);
}

/// RFC 9110 section 10.1.1 knows no version: a client of HTTP/2 may wait for it, too.
#[tokio::test]
async fn leave_to_send_reaches_clients_of_http2() {
    let (http1_app, _go) = stage().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            tokio::spawn(async move {
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        let mut body = request.into_body();
                        while let Some(data) = body.data().await {
                            data.unwrap();
                        }
                        respond.send_response(http::Response::new(()), true).unwrap();
                    });
                }
            });
        }
    });
    let upstream = json!(format!("h2c://127.0.0.1:{port}"));
    let http2_app = Stage::with(|plan| plan.set("upstream", upstream)).await;
    for (stage, wanted) in [(&http1_app, &[100, 103][..]), (&http2_app, &[100])] {
        let tls = connect(stage.port, Some(HOST), &[b"h2"]).await.unwrap();
        let (mut client, connection) = h2::client::handshake(tls).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::post(stage.url("/public/continue")).header("expect", "100-continue");
        let request = request.header("content-length", "5").body(()).unwrap();
        let (mut answer, mut body) = client.send_request(request, false).unwrap();
        let mut seen = Vec::new();
        while seen.len() < wanted.len() {
            let early = soon("an early answer", poll_fn(|cx| answer.poll_informational(cx))).await;
            seen.push(early.unwrap().unwrap().status().as_u16());
        }
        seen.sort_unstable();
        assert_eq!(seen, wanted);
        body.send_data("hello".into(), true).unwrap();
        assert_eq!(soon("the answer", answer).await.unwrap().status(), 200);
    }
}

/// The same of an application that speaks HTTP/2; and of such a one a 204 with a body, which no client takes.
#[tokio::test]
async fn an_application_of_http2_hints_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let early = http::Response::builder().status(103).header("link", "</a.css>");
                    let early = early.header("set-cookie", "__Host-portcullis=no").body(()).unwrap();
                    let status = if request.uri().path().ends_with("none") { 204 } else { 200 };
                    respond.send_informational(early).unwrap();
                    let answer = http::Response::builder().status(status).body(()).unwrap();
                    let mut body = respond.send_response(answer, false).unwrap();
                    body.send_data("body".into(), true).unwrap();
                }
            });
        }
    });
    let stage = Stage::with(|plan| plan.set("upstream", json!(format!("h2c://127.0.0.1:{port}")))).await;
    for (path, status, body) in [("/public/some", 200, "body"), ("/public/none", 204, "")] {
        let mut raw = Raw::connect(stage.port, HOST).await;
        for _ in 0..2 {
            raw.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
            let early = raw.any_answer().await.unwrap();
            assert_eq!(
                (early.status, early.header("link"), early.header("set-cookie")),
                (103, "</a.css>", "")
            );
            let answer = raw.any_answer().await.unwrap();
            assert_eq!((answer.status, &*answer.text()), (status, body), "{path}");
        }
        let answer = stage.browser().http2().send("GET", &stage.url(path), &FETCH, b"").await;
        assert_eq!((answer.status, &*answer.text()), (status, body), "{path}");
    }
}
