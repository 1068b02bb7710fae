//! Answers and tunnels that break off where nothing in their bytes says so: who listens must not take that for the end.
//! Without TLS there is only the reset.

use std::io::ErrorKind;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::support::soon;
use crate::support::stage::{HOST, Stage};

/// A stage without TLS, and how the application's connections ended that it did not end itself.
async fn stage() -> (Stage, UnboundedReceiver<Result<(), ErrorKind>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (ended, ends) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, ended.clone()));
        }
    });
    let stage = Stage::with(|plan| {
        plan.set("port", json!(port));
        plan.set("TLSType", json!("None"));
        plan.set("trustedProxies", json!(["127.0.0.0/8"]));
    });
    (stage.await, ends)
}

async fn serve(mut stream: TcpStream, ended: UnboundedSender<Result<(), ErrorKind>>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let name = head.split(' ').nth(1).unwrap().rsplit('/').next().unwrap();
    let answer = match name {
        "whole" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n0\r\n\r\n",
        "cut" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
        _ => "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\npart",
    };
    stream.write_all(answer.as_bytes()).await.ok()?;
    match name {
        // Not before the client has got the bytes: a reset may overtake them.
        "reset" => {
            stream.read_u8().await.ok()?;
            reset(stream);
        }
        "stay" => {
            let end = stream.read_to_end(&mut Vec::new()).await;
            let _ = ended.send(end.map(drop).map_err(|error| error.kind()));
        }
        _ => {}
    }
    Some(())
}

fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

async fn ask(stage: &Stage, request: String) -> TcpStream {
    let mut stream = soon("a connection", TcpStream::connect(("127.0.0.1", stage.port))).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn tunnel(stage: &Stage, path: &str) -> TcpStream {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-Proto: https\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    );
    let mut stream = ask(stage, request).await;
    let mut seen = Vec::new();
    while !seen.ends_with(b"part") {
        seen.push(soon("the first bytes", stream.read_u8()).await.unwrap());
    }
    assert!(seen.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&seen));
    stream
}

/// How a connection ends from here on.
async fn end_of(stream: &mut TcpStream) -> Result<(), ErrorKind> {
    let end = soon("an end", stream.read_to_end(&mut Vec::new())).await;
    end.map(drop).map_err(|error| error.kind())
}

#[tokio::test]
async fn http10_sees_the_end_of_what_was_cut_as_a_reset() {
    let (stage, _ends) = stage().await;
    for (path, wanted) in [("/public/whole", Ok(())), ("/public/cut", Err(ErrorKind::ConnectionReset))] {
        let head = format!("GET {path} HTTP/1.0\r\nHost: {HOST}\r\nX-Forwarded-Proto: https\r\n\r\n");
        let mut stream = ask(&stage, head).await;
        let mut seen = Vec::new();
        while !seen.ends_with(b"part") {
            seen.push(soon("the answer", stream.read_u8()).await.unwrap());
        }
        let head = String::from_utf8_lossy(&seen).to_ascii_lowercase();
        assert!(head.starts_with("http/1.") && head.contains(" 200 ok\r\n"), "{head}");
        assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
        assert_eq!(end_of(&mut stream).await, wanted, "{path}");
    }
}

#[tokio::test]
async fn a_tunnel_that_breaks_off_is_reset_and_one_that_ends_is_not() {
    let (stage, mut ends) = stage().await;
    let reset_by_peer = Err(ErrorKind::ConnectionReset);
    let mut client = tunnel(&stage, "/public/reset").await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(end_of(&mut client).await, reset_by_peer, "the application broke off");
    let mut client = tunnel(&stage, "/public/leave").await;
    assert_eq!(end_of(&mut client).await, Ok(()), "the application ended");
    for (resets, wanted) in [(true, reset_by_peer), (false, Ok(()))] {
        let mut client = tunnel(&stage, "/public/stay").await;
        if resets {
            reset(client);
        } else {
            client.shutdown().await.unwrap();
        }
        assert_eq!(
            soon("the application's end", ends.recv()).await,
            Some(wanted),
            "the client, resets: {resets}"
        );
    }
}
