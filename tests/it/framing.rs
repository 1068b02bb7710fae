//! HTTP/1.1 framing: what two parsers could read differently is refused, nothing follows a refusal, and the app
//! never sees a request that was not judged. A canary after each case is answered as itself.

use crate::support::client::{FETCH, Raw};
use crate::support::stage::{HOST, Stage};

/// Sends bytes on a connection of their own, and counts what reached the app. Every request that did must be one
/// that the rules allow: `/public/...`.
async fn attack(stage: &Stage, what: &str, bytes: &[u8]) -> (Option<u16>, usize) {
    let (status, _, requests) = attack_and_keep(stage, what, bytes).await;
    (status, requests)
}

/// The same, with the connection as it is after the first answer.
async fn attack_and_keep(stage: &Stage, what: &str, bytes: &[u8]) -> (Option<u16>, Raw, usize) {
    let before = stage.app.count();
    let mut raw = Raw::connect(stage.port, HOST).await;
    raw.send(bytes).await;
    let status = raw.answer().await.map(|answer| answer.status);
    let canary = stage.browser().send("GET", &stage.url("/public/canary"), &FETCH, b"").await;
    assert_eq!(canary.json()["target"], "/public/canary", "{what}");
    let received = stage.app.received().split_off(before);
    for request in &received {
        assert!(request.target().starts_with("/public/"), "{what}: {}", request.text());
        assert!(!request.text().contains("smuggled"), "{what}: {}", request.text());
    }
    (status, raw, received.len() - 1)
}

/// Each is refused with one of these, the connection ends with that, and nothing of it reaches the app.
async fn all_refused(statuses: &[u16], cases: &[(&str, String)]) {
    let stage = Stage::usual().await;
    for (what, request) in cases {
        let (status, mut raw, requests) = attack_and_keep(&stage, what, request.as_bytes()).await;
        assert!(status.is_some_and(|status| statuses.contains(&status)), "{what}: {status:?}: {request:?}");
        assert_eq!(raw.rest().await, b"", "{what}: bytes after the refusal");
        assert_eq!(requests, 0, "{what} reached the app");
    }
}

/// A POST with these header lines and this body, and a second request behind it.
fn post(lines: &str, body: &str) -> String {
    format!(
        "POST /public/x HTTP/1.1\r\nHost: {HOST}\r\n{lines}\r\n\r\n{body}GET /admin/smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
    )
}

/// SMG-01, SMG-04.
#[tokio::test]
async fn one_length_and_one_only() {
    let chunked = "Transfer-Encoding: chunked";
    let lengths = [
        "5, 5",
        "5,6",
        "",
        " ",
        "+5",
        "-1",
        "0x5",
        "5_0",
        "5 5",
        "18446744073709551621",
        "9223372036854775808",
        "5;",
        "5.0",
        "05",
        "5\t",
        "\"5\"",
        "٥",
    ];
    let mut cases = vec![
        ("length, then chunked", post(&format!("Content-Length: 5\r\n{chunked}"), "0\r\n\r\n")),
        ("chunked, then length", post(&format!("{chunked}\r\nContent-Length: 5"), "0\r\n\r\n")),
        ("two equal lengths", post("Content-Length: 5\r\nContent-Length: 5", "hello")),
        ("two lengths", post("Content-Length: 5\r\nContent-Length: 6", "hello")),
        ("length, then chunked, and no body", post(&format!("Content-Length: 0\r\n{chunked}"), "")),
        ("chunked, then length, and no body", post(&format!("{chunked}\r\nContent-Length: 0"), "")),
        ("an imitation of a length", post("Content_Length: 5", "hello")),
        ("a length and its imitation", post("Content-Length: 5\r\nContent_Length: 6", "hello")),
    ];
    cases.extend(lengths.map(|value| ("an odd length", post(&format!("Content-Length: {value}"), "hello"))));
    all_refused(&[400], &cases).await;
}

/// SMG-03.
#[tokio::test]
async fn transfer_codings_are_chunked_or_refused() {
    let values = [
        ",chunked",
        "chunked,",
        "xchunked",
        "chunked x",
        "chunked;x",
        "chunked, chunked",
        "identity",
        "identity, chunked",
        "chunked, identity",
        "gzip, chunked",
        "gzip",
        "\"chunked\"",
        "chunk",
        "chunked\u{b}",
        "\u{b}chunked",
        "c\thunked",
        "Chunked\0",
        "chunked\u{7f}",
        "x, chunked",
        "chunked , ",
        "",
        "none",
        "trailers",
        "cHuNkEd,cHuNkEd",
        "\tchunked",
        "chunked\t",
        " chunked",
        "chu%6eked",
        "'chunked'",
        "chunked/1",
        "\u{a0}chunked",
    ];
    let mut cases: Vec<(&str, String)> = Vec::new();
    for value in values {
        cases.push(("a coding", post(&format!("Transfer-Encoding: {value}"), "0\r\n\r\n")));
    }
    cases.push(("twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n")));
    cases.push(("twice", post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", "0\r\n\r\n")));
    cases.push(("space before the colon", post("Transfer-Encoding : chunked", "0\r\n\r\n")));
    cases.push(("an imitation", post("Transfer_Encoding: chunked", "0\r\n\r\n")));
    cases.push(("an imitation", post("Transfer.Encoding: chunked", "0\r\n\r\n")));
    cases.push(("in a value", post("X: y\rTransfer-Encoding: chunked", "0\r\n\r\n")));
    cases.push(("in a value", post("X: y\nTransfer-Encoding: chunked", "0\r\n\r\n")));
    cases.push(("folded", post("Transfer-Encoding:\r\n chunked", "0\r\n\r\n")));
    cases.push((
        "with HTTP/1.0",
        post("Transfer-Encoding: chunked", "0\r\n\r\n").replacen("HTTP/1.1", "HTTP/1.0", 1),
    ));
    all_refused(&[400, 501], &cases).await;
}

/// SMG-06, SMG-07.
#[tokio::test]
async fn heads_are_well_formed() {
    let get = |lines: &str| format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\n{lines}\r\n\r\n");
    let line = |line: &str| format!("{line}\r\nHost: {HOST}\r\n\r\n");
    let cases = vec![
        ("obs-fold", get("X-A: 1\r\n 2")),
        ("space before the colon", get("X-A : 1")),
        ("leading space on the first header", format!("GET /public/x HTTP/1.1\r\n Host: {HOST}\r\n\r\n")),
        ("no colon", get("X-A")),
        ("an empty name", get(": 1")),
        ("a name that is no token", get("X(A): 1")),
        ("a name that is not ASCII", get("X-\u{e9}: 1")),
        ("NUL in a value", get("X-A: 1\0")),
        ("a bare CR in a value", get("X-A: 1\r2")),
        ("a bare CR at the end", get("X-A: 1\r\r")),
        ("obs-fold by a tab", get("X-A: 1\r\n\t2")),
        ("a name above ASCII that folds to ours", get("X-U\u{17f}er: mallory")),
        ("a space in a name", get("X-User x: mallory")),
        ("a tab before the colon", get("X-User\t: mallory")),
        ("bare LF", format!("GET /public/x HTTP/1.1\nHost: {HOST}\n\n")),
        ("bare LF in the middle", get("X-A: 1\nX-User: mallory")),
        ("bare LF at the end", format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\n\n")),
        ("bare CR", format!("GET /public/x HTTP/1.1\rHost: {HOST}\r\r")),
        ("DEL in a value", get("X-A: 1\u{7f}")),
        ("HTTP/1.2", line("GET /public/x HTTP/1.2")),
        ("HTTP/2.0", line("GET /public/x HTTP/2.0")),
        ("http/1.1", line("GET /public/x http/1.1")),
        ("HTTP/0.9", "GET /public/x\r\n\r\n".to_owned()),
        ("two spaces", line("GET  /public/x HTTP/1.1")),
        ("a space in the target", line("GET /public/ x HTTP/1.1")),
        ("a tab", line("GET\t/public/x HTTP/1.1")),
        ("LF in the request line", line("GET /public/x\n HTTP/1.1")),
        ("a method that is no token", line("G(T /public/x HTTP/1.1")),
        ("an empty method", line(" /public/x HTTP/1.1")),
    ];
    all_refused(&[400, 505], &cases).await;
}

/// SMG-10, SMG-12: an answer may have come before the fault; then the connection ends, and nothing follows.
#[tokio::test]
async fn chunks_are_well_formed() {
    let stage = Stage::usual().await;
    for body in [
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-0\r\n\r\n",
        "5_\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhello",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "g\r\n",
        "5\r\nhello\r\n0\r\nX Y: 1\r\n\r\n",
    ] {
        let request = post("Transfer-Encoding: chunked", body);
        let (status, _) = attack(&stage, body, request.as_bytes()).await;
        assert!(status.is_none_or(|status| (400..600).contains(&status)), "{body:?}: {status:?}");
    }
    // What is right is read to its end and no further.
    let request = post("Transfer-Encoding: chunked", "5;ext=1\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n");
    let (status, requests) = attack(&stage, "a good body", request.as_bytes()).await;
    assert_eq!((status, requests), (Some(200), 1));
}

/// SMG-11: extensions are bounded, each and over a whole body of however small chunks.
#[tokio::test]
async fn chunk_extensions_are_bounded() {
    let stage = Stage::usual().await;
    let memory = stage.proxy.memory();
    let one = format!("1;{}\r\nx\r\n", "e".repeat(1 << 20));
    let each = format!("1;{}\r\nx\r\n", "e".repeat(4_000)).repeat(250);
    for (what, body) in [("one of a MiB", one), ("many of 4 KiB", each)] {
        let head = format!("POST /public/up HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n");
        let (status, mut raw, _) = attack_and_keep(&stage, what, (head + &body).as_bytes()).await;
        assert!(status.is_none_or(|status| (400..600).contains(&status)), "{what}: {status:?}");
        raw.rest().await;
        assert!(
            stage.app.received().iter().all(|request| request.target() != "/public/up"),
            "{what}: came whole"
        );
    }
    let grown = stage.proxy.memory().saturating_sub(memory);
    assert!(grown < 16 << 20, "grown by {grown} bytes");
}

/// SMG-17: the body of a request that we answer ourselves is not the next request.
#[tokio::test]
async fn a_body_is_no_request() {
    let stage = Stage::usual().await;
    let inner = format!("GET /public/smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    for framing in [
        format!("Content-Length: {}\r\n\r\n{inner}", inner.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len()),
    ] {
        let request = format!("POST /admin/ HTTP/1.1\r\nHost: {HOST}\r\n{framing}");
        let (status, requests) = attack(&stage, "a body", request.as_bytes()).await;
        assert_eq!((status, requests), (Some(401), 0));
    }
}

/// SMG-14, SMG-22, and pipelining as it may be.
#[tokio::test]
async fn other_methods_and_versions() {
    let stage = Stage::usual().await;
    for request in [
        format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        format!(
            "GET /app/ HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n\r\n"
        ),
    ] {
        let (status, requests) = attack(&stage, &request, request.as_bytes()).await;
        assert!(status.is_none_or(|status| (400..600).contains(&status)), "{request}: {status:?}");
        assert_eq!(requests, 0, "{request}");
    }
    let old = |head: &str| format!("{head}\r\nHost: {HOST}\r\n\r\n");
    let behind = old("GET /public/smuggled HTTP/1.1");
    let mut raw = Raw::connect(stage.port, HOST).await;
    raw.send(old("GET /public/old HTTP/1.0") + &behind).await;
    raw.answer().await.unwrap().expect(200);
    assert_eq!(raw.rest().await, b"", "HTTP/1.0 ends with its answer");
    for head in [
        "GET /public/old HTTP/1.0\r\nConnection: keep-alive",
        "GET /public/old HTTP/1.0\r\nConnection: x, Keep-Alive",
        // A body until the end of the connection.
        "POST /public/old HTTP/1.0",
    ] {
        let (status, requests) = attack(&stage, head, (old(head) + &behind).as_bytes()).await;
        assert_eq!((status, requests), (Some(400), 0), "{head}");
    }

    let mut raw = Raw::connect(stage.port, HOST).await;
    let requests: String =
        (0..50).map(|index| format!("GET /public/{index} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).collect();
    raw.send(requests).await;
    for index in 0..50 {
        let answer = raw.answer().await.unwrap().expect(200);
        assert_eq!(answer.json()["target"], format!("/public/{index}"), "in order");
    }
}
