//! Past a limit: the right status, never a crash, never another client's problem.

use serde_json::json;
use tokio::io::AsyncReadExt as _;

use crate::support::client::Raw;
use crate::support::soon;
use crate::support::stage::{HOST, Stage};

/// DOS-04.
#[tokio::test]
async fn heads_are_bounded() {
    let stage = Stage::usual().await;
    let ask = async |target: &str, lines: &str| {
        Raw::ask(stage.port, HOST, format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n{lines}\r\n")).await
    };
    let long = format!("/public/{}", "x".repeat(17_000));
    assert_eq!(ask(&long, "").await.status, 414);
    let many: String = (0..110).map(|index| format!("X-{index}: 1\r\n")).collect();
    assert_eq!(ask("/public/", &many).await.status, 431);
    let large: String = (0..9).map(|index| format!("X-{index}: {}\r\n", "y".repeat(8_000))).collect();
    assert_eq!(ask("/public/", &large).await.status, 431);
    assert_eq!(stage.app.count(), 0);
    let fits: String = (0..7).map(|index| format!("X-{index}: {}\r\n", "y".repeat(8_000))).collect();
    ask("/public/", &fits).await.expect(200);
    // A session of the largest size and the app's own cookies fit over HTTP/2 too.
    let cookies: Vec<String> = (0..12).map(|index| format!("c{index}={}", "z".repeat(4_000))).collect();
    let headers: Vec<(&str, &str)> = cookies.iter().map(|cookie| ("cookie", cookie.as_str())).collect();
    stage.browser().http2().send("GET", &stage.url("/public/"), &headers, b"").await.expect(200);
}

/// DOS-01, DOS-03: who is slow is sent away; who is not is served meanwhile.
#[tokio::test]
async fn slow_clients_are_sent_away() {
    let stage = Stage::with(|plan| {
        plan.limit("headerTimeout", json!("400ms"));
        plan.limit("handshakeTimeout", json!("400ms"));
    })
    .await;
    let mut silent = tokio::net::TcpStream::connect(("127.0.0.1", stage.port)).await.unwrap();
    let mut slow = Raw::connect(stage.port, HOST).await;
    slow.send(format!("GET /public/ HTTP/1.1\r\nHost: {HOST}\r\nX-")).await;
    stage.browser().fetch(&stage.url("/public/")).await.expect(200);
    let answer = slow.answer().await.expect("an answer to a slow head");
    assert_eq!(answer.status, 408);
    assert_eq!(slow.rest().await, b"");
    let read = soon("the end of a silent connection", silent.read(&mut [0; 1])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    stage.browser().fetch(&stage.url("/public/")).await.expect(200);
}

/// `limits.connections`: who is over it waits, and is served when there is room.
#[tokio::test]
async fn connections_are_bounded() {
    let stage = Stage::with(|plan| plan.limit("connections", json!(2))).await;
    let request = format!("GET /public/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut raw = Raw::connect(stage.port, HOST).await;
        raw.send(&request).await;
        raw.answer().await.unwrap().expect(200);
        held.push(raw);
    }
    let waiting = async {
        let mut raw = Raw::connect(stage.port, HOST).await;
        raw.send(&request).await;
        raw.answer().await
    };
    let freeing = async {
        // Those who are in are served while the other waits.
        for raw in &mut held {
            raw.send(&request).await;
            raw.answer().await.unwrap().expect(200);
        }
        held.clear();
    };
    let (answer, ()) = tokio::join!(waiting, freeing);
    assert!(answer.is_some_and(|answer| answer.status == 200));
}

/// OPS-04: nothing that a client or a claim says forges a line of the log.
#[tokio::test]
async fn log_lines_are_not_forged() {
    let stage = Stage::usual().await;
    stage.idp.change(|behaviour| {
        behaviour.user["sub"] = json!("alice\" ,\"action\":\"Accept");
        behaviour.user["groups"] = json!(["staff", "a\r\n{\"forged\":true}", "\u{1b}[31m"]);
    });
    let mut browser = stage.browser();
    browser.follow(&stage.url("/staff/%22,%22forged%22:%22")).await.expect(200);
    let id = stage.app.last().header("x-request-id").concat();
    let record = stage.proxy.record(&id).await;
    assert_eq!(record["subject"], "alice\" ,\"action\":\"Accept");
    let request = format!("GET /\u{1b}[31m/%0a{{}} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: \"}}\r\n\r\n");
    assert_eq!(Raw::ask(stage.port, HOST, request).await.status, 400);
    let proxy = stage.proxy;
    let finished = proxy.stop().await;
    for line in finished.stdout.lines() {
        let value: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value["forged"].is_null() && value["time"].is_string(), "{line}");
        assert!(!line.contains('\u{1b}'), "{line:?}");
    }
}
