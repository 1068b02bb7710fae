//! What flows when the session ends: how each side is told, and that nothing passes any more.

use http::StatusCode;
use http_body_util::Full;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::*;
use crate::web::lifeline::LISTEN_AFTER;

/// How soon after the cut everything is over. The idle limits are longer.
const PROMISE: Duration = Duration::from_secs(1);

/// An application that writes something and hands over the connection.
async fn scripted(
    begin: impl Fn(String) -> String + 'static,
) -> (SocketAddr, UnboundedReceiver<(String, TcpStream)>) {
    let (sender, receiver) = unbounded_channel();
    let begin = Rc::new(begin);
    let address = application(move |_, mut stream| {
        let (sender, begin) = (sender.clone(), begin.clone());
        async move {
            let Some(head) = read_head(&mut stream).await else { return };
            stream.write_all(begin(head.clone()).as_bytes()).await.unwrap();
            let _ = sender.send((head, stream));
        }
    })
    .await;
    (address, receiver)
}

async fn bound(protocol: Protocol, address: SocketAddr) -> (Front, Rc<Lifeline>) {
    let lifeline = Rc::new(Lifeline::default());
    let front = front_bound(protocol, forwarder(address), None, Some(lifeline.clone())).await;
    (front, lifeline)
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it never happens")
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: ";

#[test]
fn an_answer_ends_when_the_lifeline_is_cut() {
    for (kind, ends_well) in [("text/event-stream", true), ("video/mp4", false), ("application/grpc", false)]
    {
        for (protocol, is_busy) in [
            (Protocol::Http1, false),
            (Protocol::Http1, true),
            (Protocol::Http2, false),
            (Protocol::Http2, true),
        ] {
            worker(async {
                let case = format!("{kind}, busy: {is_busy}, http2: {}", protocol == Protocol::Http2);
                let (address, mut app) =
                    scripted(move |_| format!("{HEAD}{kind}\r\n\r\n5\r\nhello\r\n")).await;
                let (front, lifeline) = bound(protocol, address).await;
                let reading = tokio::task::spawn_local(read_answer(protocol, front.address));
                let (_, mut app) = soon(app.recv()).await.unwrap();
                while front.tally.sent.get() < 5 {
                    tokio::task::yield_now().await;
                }
                if !is_busy {
                    // Into the silence in which it listens. The time itself is what is tested.
                    tokio::time::sleep(2 * LISTEN_AFTER).await;
                }
                let before = Instant::now();
                lifeline.cut();
                if is_busy {
                    let _ = app.write_all(b"6\r\n world\r\n").await;
                }
                assert_eq!(front.tally.end().await, End::SessionEnded, "{case}");
                assert!(before.elapsed() < PROMISE, "{case}: {:?}", before.elapsed());
                let (body, ended_well) = soon(reading).await.unwrap();
                assert_eq!((body.as_str(), ended_well), ("hello", ends_well), "{case}");
                assert_eq!(read_rest(&mut app).await, b"", "{case}");
            });
        }
    }
}

/// The body of an answer, and whether it came to its end.
async fn read_answer(protocol: Protocol, front: SocketAddr) -> (String, bool) {
    let front = Front { address: front, tally: Rc::default() };
    if protocol == Protocol::Http1 {
        let (_, body) = front.raw("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        let body = String::from_utf8(body).unwrap();
        return (body.split("\r\n").nth(1).unwrap().to_owned(), body.ends_with("\r\n0\r\n\r\n"));
    }
    let request = Request::builder().uri("http://a/").body(Full::default()).unwrap();
    let mut body = front.http2().await.send_request(request).await.unwrap().into_body();
    let mut all = Vec::new();
    loop {
        match body.frame().await {
            Some(Ok(frame)) => all.extend_from_slice(&frame.into_data().unwrap_or_default()),
            end => return (String::from_utf8(all).unwrap(), end.is_none()),
        }
    }
}

/// What has just begun to wait does not listen yet. It notices all the same.
#[test]
fn a_cut_is_noticed_however_fresh_the_wait() {
    worker(async {
        let (address, mut app) = scripted(|_| format!("{HEAD}text/event-stream\r\n\r\n5\r\nhello\r\n")).await;
        let (front, lifeline) = bound(Protocol::Http1, address).await;
        let mut client = front.connect().await;
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let _app = soon(app.recv()).await.unwrap();
        while front.tally.sent.get() < 5 {
            tokio::task::yield_now().await;
        }
        lifeline.cut();
        assert!(lifeline.take_movement());
        tokio::time::timeout(PROMISE, front.tally.end()).await.expect("in time");
    });
}

#[test]
fn an_answer_that_comes_too_late_is_nobodys() {
    worker(async {
        let (address, mut app) = scripted(|_| String::new()).await;
        let (front, lifeline) = bound(Protocol::Http1, address).await;
        let mut client = front.connect().await;
        for _ in 0..2 {
            client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            let (_, mut app) = soon(app.recv()).await.unwrap();
            lifeline.cut();
            app.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret").await.unwrap();
            let head = read_head(&mut client).await.unwrap();
            assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
            let mut body = vec![0; Error::SessionEnded.to_string().len()];
            client.read_exact(&mut body).await.unwrap();
            assert_eq!(String::from_utf8(body).unwrap(), Error::SessionEnded.to_string());
        }
    });
}

/// An upload ends, whether the client is quiet or the application takes nothing.
#[test]
fn an_upload_ends_when_the_lifeline_is_cut() {
    for is_busy in [false, true] {
        worker(async {
            let (address, mut app) = scripted(|_| String::new()).await;
            let (front, lifeline) = bound(Protocol::Http1, address).await;
            let (mut read, mut write) = front.connect().await.into_split();
            write.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999\r\n\r\n").await.unwrap();
            write.write_all(b"the beginning").await.unwrap();
            let (_, mut app) = soon(app.recv()).await.unwrap();
            let busy = tokio::task::spawn_local(async move {
                while is_busy && write.write_all(&[b'x'; 1 << 16]).await.is_ok() {}
                write
            });
            // Until nothing moves any more.
            let mut moved = usize::MAX;
            while moved != front.tally.received.get() || moved == 0 {
                moved = front.tally.received.get();
                tokio::time::sleep(2 * LISTEN_AFTER).await;
            }
            let before = Instant::now();
            lifeline.cut();
            let head = read_head(&mut read).await.unwrap();
            assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
            assert!(before.elapsed() < PROMISE, "{:?}", before.elapsed());
            assert!(read_rest(&mut app).await.len() < 99_999_999);
            drop(busy);
        });
    }
}

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn accept(head: String) -> String {
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
    let accept = derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {accept}\r\n\r\n"
    )
}

/// What each side of a WebSocket is told when the session ends, after each has sent this much.
#[test]
fn a_close_is_sent_between_frames_and_once() {
    const CLOSE: &[u8] = b"\x88\x0f\x03\xf0session ended";
    // From the client, from the application; whether each is told.
    for (from_client, from_app, app_told, client_told) in [
        (&b""[..], &b""[..], true, true),
        (b"\x81\x81\0\0\0\0x", b"\x81\x01x", true, true),
        // In the middle of a head, of a mask, of a payload.
        (b"\x81", b"\x81\x01x", false, true),
        (b"\x81\x81\0\0", b"", false, true),
        (b"\x81\x85\0\0\0\0x", b"", false, true),
        (b"", b"\x82\x7e\x01", true, false),
        (b"", b"\x81\x05x", true, false),
        // After a Close, of whichever side.
        (b"\x88\x80\0\0\0\0", b"", false, true),
        (b"", b"\x88\x00", true, false),
        (b"\x88\x80\0\0\0\0", b"\x88\x00", false, false),
    ] {
        worker(async {
            let case = format!("{:?} {:?}", from_client.escape_ascii(), from_app.escape_ascii());
            let (address, mut app) = scripted(accept).await;
            let (front, lifeline) = bound(Protocol::Http1, address).await;
            let mut client = front.connect().await;
            client.write_all(HANDSHAKE.as_bytes()).await.unwrap();
            read_head(&mut client).await.unwrap();
            let (_, mut app) = soon(app.recv()).await.unwrap();
            client.write_all(from_client).await.unwrap();
            app.write_all(from_app).await.unwrap();
            let [mut to_client, mut to_app] = [vec![0; from_app.len()], vec![0; from_client.len()]];
            soon(client.read_exact(&mut to_client)).await.unwrap();
            soon(app.read_exact(&mut to_app)).await.unwrap();
            lifeline.cut();
            if client_told && app_told {
                let mut close = [0; CLOSE.len()];
                soon(client.read_exact(&mut close)).await.unwrap();
                assert_eq!(close, *CLOSE, "{case}");
                // What comes before the answering Close goes nowhere.
                client.write_all(b"\x81\x81\0\0\0\0x\x88\x80\0\0\0\0").await.unwrap();
            }
            let app_heard = read_rest(&mut app).await;
            assert_eq!(unmasked(&app_heard), if app_told { CLOSE } else { b"" }, "{case}");
            drop(app);
            let client_heard = read_rest(&mut client).await;
            let rest = if client_told && !app_told { CLOSE } else { b"" };
            assert_eq!(client_heard, rest, "{case}");
            assert_eq!(front.tally.end().await, End::SessionEnded, "{case}");
        });
    }
}

/// A Close as a server would have sent it.
fn unmasked(frame: &[u8]) -> Vec<u8> {
    let Some((head, rest)) = frame.split_at_checked(2) else { return frame.to_vec() };
    assert_eq!(head[1] & 0x80, 0x80, "a client masks");
    let (mask, payload) = rest.split_at(4);
    let plain = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [head[0], head[1] & 0x7f].into_iter().chain(plain).collect()
}

/// Whoever does not answer a Close is not waited for long.
#[test]
fn a_tunnel_ends_although_nobody_answers() {
    worker(async {
        let (address, mut app) = scripted(accept).await;
        let (front, lifeline) = bound(Protocol::Http1, address).await;
        let mut client = front.connect().await;
        client.write_all(HANDSHAKE.as_bytes()).await.unwrap();
        read_head(&mut client).await.unwrap();
        let (_, mut app) = soon(app.recv()).await.unwrap();
        let before = Instant::now();
        lifeline.cut();
        let (heard, _) = tokio::join!(read_rest(&mut client), read_rest(&mut app));
        assert!(heard.starts_with(b"\x88"), "{heard:?}");
        assert!(before.elapsed() < 3 * PROMISE, "{:?}", before.elapsed());
        assert_eq!(front.tally.end().await, End::SessionEnded);
    });
}

/// A tunnel of another protocol has no frames to speak in.
#[test]
fn another_protocol_just_ends() {
    worker(async {
        let begin = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n";
        let (address, mut app) = scripted(|_| begin.to_owned()).await;
        let (front, lifeline) = bound(Protocol::Http1, address).await;
        let mut client = front.connect().await;
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
            .await
            .unwrap();
        read_head(&mut client).await.unwrap();
        let (_, mut app) = soon(app.recv()).await.unwrap();
        lifeline.cut();
        assert_eq!(read_rest(&mut client).await, b"");
        assert_eq!(read_rest(&mut app).await, b"");
        assert_eq!(front.tally.end().await, End::SessionEnded);
    });
}

/// A session that has ended opens nothing.
#[test]
fn no_tunnel_opens_after_the_cut() {
    worker(async {
        let (address, mut app) = scripted(|_| String::new()).await;
        let (front, lifeline) = bound(Protocol::Http1, address).await;
        let mut client = front.connect().await;
        client.write_all(HANDSHAKE.as_bytes()).await.unwrap();
        let (head, mut app) = soon(app.recv()).await.unwrap();
        lifeline.cut();
        app.write_all(accept(head).as_bytes()).await.unwrap();
        let answer = read_head(&mut client).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {} ", StatusCode::UNAUTHORIZED.as_u16())), "{answer}");
        assert_eq!(read_rest(&mut app).await, b"");
    });
}
