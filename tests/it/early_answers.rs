//! Answers to requests whose body is still on its way: clients that read nothing before they have sent everything get
//! them whole.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use crate::support::client::connect;
use crate::support::soon;
use crate::support::stage::{HOST, Stage};

/// More than all buffers between a client and the application.
const UPLOAD: usize = 32 << 20;

/// An answer that the application can get rid of although nobody reads it yet.
const ANSWER: usize = 1 << 20;

/// How long is waited for more of a body that nobody wants.
const SILENCE: Duration = Duration::from_secs(2);

/// A stage whose application answers as soon as it has the head, and takes nothing of the body.
async fn stage() -> Stage {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_early(stream));
        }
    });
    Stage::with(|plan| plan.set("port", json!(port))).await
}

async fn answer_early(mut stream: TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let answer = format!("HTTP/1.1 413 Too Much\r\nContent-Length: {ANSWER}\r\nConnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.ok()?;
    stream.write_all(&vec![b'a'; ANSWER]).await.ok()?;
    stream.shutdown().await.ok()?;
    // To close it over what was not read would be a reset.
    std::future::pending().await
}

async fn client(stage: &Stage) -> TlsStream<TcpStream> {
    soon("TLS", connect(stage.port, Some(HOST), &[b"http/1.1"])).await.unwrap()
}

fn post(path: &str, more: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: {HOST}\r\nAccept: application/json\r\n{more}\r\n")
}

/// All until the end of the connection, which must be a proper one.
async fn read_all(client: &mut TlsStream<TcpStream>) -> (String, usize) {
    let mut answer = Vec::new();
    soon("the answer and its end", client.read_to_end(&mut answer)).await.expect("a proper end");
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    (String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase(), answer.len() - head)
}

#[tokio::test]
async fn who_sends_everything_first_gets_the_whole_answer() {
    let stage = stage().await;
    for (path, status, least) in [("/public/large", "413", ANSWER), ("/app/refused", "401", 1)] {
        for framing in ["content-length", "chunked"] {
            let mut client = client(&stage).await;
            let body = vec![b'u'; UPLOAD];
            let sends = async {
                if framing == "chunked" {
                    client.write_all(post(path, "Transfer-Encoding: chunked\r\n").as_bytes()).await?;
                    for piece in body.chunks(1 << 20) {
                        client.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
                        client.write_all(piece).await?;
                        client.write_all(b"\r\n").await?;
                    }
                    client.write_all(b"0\r\n\r\n").await?;
                } else {
                    client.write_all(post(path, &format!("Content-Length: {UPLOAD}\r\n")).as_bytes()).await?;
                    client.write_all(&body).await?;
                }
                client.flush().await
            };
            soon("room for the upload", sends).await.expect("all of it is taken");
            let (head, length) = read_all(&mut client).await;
            assert!(head.starts_with(&format!("http/1.1 {status} ")), "{path} {framing}: {head}");
            assert!(head.contains("\r\nconnection: close\r\n"), "{path} {framing}: {head}");
            assert!(length >= least, "{path} {framing}: {length} bytes of the answer");
        }
    }
}

/// How long an exchange took, with the status of its answer: the quickest of a few, for a busy machine can be late at any.
async fn quickest(stage: &Stage, request: &str, status: &str) -> Duration {
    let mut quickest = Duration::MAX;
    for _ in 0..3 {
        let (mut client, begun) = (client(stage).await, Instant::now());
        client.write_all(request.as_bytes()).await.unwrap();
        let (head, _) = read_all(&mut client).await;
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
        quickest = quickest.min(begun.elapsed());
        if quickest < SILENCE {
            break;
        }
    }
    quickest
}

#[tokio::test]
async fn who_waits_to_be_asked_is_neither_asked_nor_waited_for() {
    let stage = stage().await;
    for (path, status) in [("/app/refused", "401"), ("/public/large", "413")] {
        let request = post(path, "Content-Length: 9\r\nExpect: 100-continue\r\n");
        let took = quickest(&stage, &request, status).await;
        assert!(took < SILENCE, "{path}: {took:?}");
    }
}

/// One that was waited for already is not waited for again.
#[tokio::test]
async fn who_was_silent_for_long_is_let_go_at_once() {
    const LIMIT: Duration = Duration::from_secs(3);
    let stage = Stage::with(|plan| plan.limit("bodyIdleTimeout", json!("3s"))).await;
    let took = quickest(&stage, &post("/public/x", "Content-Length: 9\r\n"), "408").await;
    assert!((LIMIT..LIMIT + SILENCE).contains(&took), "{took:?}");
}

/// DOS-02: a body that nobody wants is not waited for much longer either.
#[tokio::test]
async fn who_sends_nothing_more_is_let_go() {
    let stage = stage().await;
    let (mut client, begun) = (client(&stage).await, Instant::now());
    client.write_all(post("/app/refused", "Content-Length: 9\r\n").as_bytes()).await.unwrap();
    let (head, _) = read_all(&mut client).await;
    assert!(head.starts_with("http/1.1 401 "), "{head}");
    assert!((SILENCE..4 * SILENCE).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}
