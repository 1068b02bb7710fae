//! WS-02, WS-04, SMG-16: tunnels, and what must not become one.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{WebSocketStream, accept_async_with_config, client_async_with_config};

use super::*;

/// An application that sends back what it gets, pings included.
async fn echo() -> SocketAddr {
    application(|_, stream| async move {
        let mut socket = accept_async_with_config(stream, Some(large())).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if matches!(message, Message::Text(_) | Message::Binary(_)) {
                socket.send(message).await.unwrap();
            }
        }
    })
    .await
}

fn large() -> WebSocketConfig {
    WebSocketConfig::default().max_frame_size(Some(2 << 20)).max_message_size(Some(4 << 20))
}

async fn websocket(front: &Front) -> Result<WebSocketStream<TcpStream>, WsError> {
    let stream = front.connect().await;
    client_async_with_config("ws://app.example:8443/ws", stream, Some(large()))
        .await
        .map(|(socket, _)| socket)
}

#[test]
fn ws_02_frames_pass_byte_exact() {
    worker(async {
        let front = front(Protocol::Http1, forwarder(echo().await)).await;
        let mut socket = websocket(&front).await.unwrap();
        let mut bytes = 0;
        for number in 0..1000_usize {
            // Sizes from nothing to 1 MiB, most of them small.
            let size = if number % 100 == 99 { (number + 1) * 1024 } else { number * 7 % 1500 };
            let payload: Vec<u8> = (0..size).map(|index| (index * 31 + number) as u8).collect();
            bytes += size;
            socket.send(Message::Binary(payload.clone().into())).await.unwrap();
            let Message::Binary(echoed) = socket.next().await.unwrap().unwrap() else { panic!("{number}") };
            assert!(echoed == payload, "{number}");
        }
        socket.send(Message::Ping("ping".into())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("ping".into()));
        let close = CloseFrame { code: CloseCode::Library(4321), reason: "done".into() };
        socket.close(Some(close.clone())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::Close(Some(close)));
        assert!(socket.next().await.is_none());
        drop(socket);
        assert_eq!(front.tally.end().await, End::Complete);
        assert!(front.tally.received.get() > bytes && front.tally.sent.get() > bytes);
    });
}

#[test]
fn a_quiet_tunnel_stays_open() {
    worker(async {
        let front = front(Protocol::Http1, forwarder_with(&hasty(tcp(echo().await)))).await;
        let mut socket = websocket(&front).await.unwrap();
        assert!(tokio::time::timeout(3 * SHORT, socket.next()).await.is_err(), "silence ended the tunnel");
        socket.send(Message::Text("still there".into())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::Text("still there".into()));
    });
}

#[test]
fn tunnels_end_when_they_are_told_to() {
    worker(async {
        let forwarder = forwarder(echo().await);
        let served = front(Protocol::Http1, forwarder.clone()).await;
        let mut socket = websocket(&served).await.unwrap();
        socket.send(Message::Text("up".into())).await.unwrap();
        socket.next().await.unwrap().unwrap();
        assert_eq!(forwarder.open_tunnels(), 1);
        forwarder.close_tunnels();
        assert_eq!(farewell(&mut socket).await, Some((1001, "going away".to_owned())));
        assert_eq!(served.tally.end().await, End::Closed);
        assert_eq!(forwarder.open_tunnels(), 0);
        // So do those that come too late.
        if let Ok(mut late) = websocket(&served).await {
            assert_eq!(farewell(&mut late).await, Some((1001, "going away".to_owned())));
        }

        let end = Instant::now() + SHORT;
        let ending = front_until(Protocol::Http1, self::forwarder(echo().await), Some(end)).await;
        let mut socket = websocket(&ending).await.unwrap();
        assert_eq!(farewell(&mut socket).await, Some((1008, "session ended".to_owned())));
        assert_eq!(ending.tally.end().await, End::SessionEnded);
    });
}

/// The Close that comes next, and then the end; `None` if it is the end that comes.
async fn farewell(socket: &mut WebSocketStream<TcpStream>) -> Option<(u16, String)> {
    let Some(Ok(Message::Close(frame))) = socket.next().await else { return None };
    let frame = frame.expect("a code");
    assert!(socket.next().await.is_none(), "more after a Close");
    Some((frame.code.into(), frame.reason.to_string()))
}

#[test]
fn either_side_that_leaves_ends_the_tunnel() {
    worker(async {
        let ended = Rc::new(tokio::sync::Notify::new());
        let notify = ended.clone();
        let address = application(move |number, stream| {
            let notify = notify.clone();
            async move {
                let mut socket = accept_async_with_config(stream, None).await.unwrap();
                if number == 0 {
                    return reset(socket.into_inner());
                }
                while let Some(Ok(_)) = socket.next().await {}
                notify.notify_one();
            }
        })
        .await;
        let forwarder = forwarder(address);
        let front = front(Protocol::Http1, forwarder.clone()).await;
        let mut socket = websocket(&front).await.unwrap();
        assert!(!matches!(socket.next().await, Some(Ok(_))), "the application left");
        let socket = websocket(&front).await.unwrap();
        drop(socket);
        tokio::time::timeout(PATIENCE, ended.notified()).await.expect("the client left");
    });
}

/// What the application sends with its 101 is the tunnel's already.
#[test]
fn early_bytes_are_not_lost() {
    worker(async {
        let address = application(|_, mut stream| async move {
            let head = read_head(&mut stream).await.unwrap();
            let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
            let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n\
                 sec-websocket-accept: {accept}\r\nset-cookie: a=1\r\nset-cookie: __Host-portcullis=x\r\n\r\n\x01\x02early"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
            while let Some(Ok(_)) = socket.next().await {}
        })
        .await;
        let front = front(Protocol::Http1, forwarder(address)).await;
        let mut client = front.connect().await;
        client.write_all(handshake("13", KEY).as_bytes()).await.unwrap();
        let head = read_head(&mut client).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(
            head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"),
            "{head}"
        );
        assert!(head.contains("set-cookie: a=1\r\n") && !head.contains("portcullis"), "{head}");
        let mut early = [0; 7];
        client.read_exact(&mut early).await.unwrap();
        assert_eq!(&early, b"\x01\x02early");
    });
}

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn handshake(version: &str, key: &str) -> String {
    let mut head =
        "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n".to_owned();
    for (name, value) in [("sec-websocket-version", version), ("sec-websocket-key", key)] {
        if !value.is_empty() {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    head + "\r\n"
}

#[test]
fn ws_04_a_bad_handshake_is_400_and_never_reaches_the_application() {
    worker(async {
        let (address, heads) = canned("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let front = front(Protocol::Http1, forwarder(address)).await;
        let good = handshake("13", KEY);
        let cases = [
            handshake("777", KEY),
            handshake("", KEY),
            handshake("13", ""),
            handshake("13", "short"),
            handshake("13", "dGhlIHNhbXBsZSBub25jZWV4dHJh"),
            good.replace("GET", "POST"),
            good.replace("\r\n\r\n", "\r\nsec-websocket-version: 13\r\n\r\n"),
            good.replace("\r\n\r\n", &format!("\r\nsec-websocket-key: {KEY}\r\n\r\n")),
            good.replace("\r\n\r\n", "\r\ncontent-length: 3\r\n\r\nabc"),
        ];
        for case in cases {
            let mut client = front.connect().await;
            client.write_all(case.as_bytes()).await.unwrap();
            let head = read_head(&mut client).await.unwrap();
            assert!(head.starts_with("HTTP/1.1 400 "), "{case}: {head}");
        }
        assert_eq!(*heads.borrow(), Vec::<String>::new());
    });
}

/// Without the application's own, matching 101 there is no tunnel: what follows is another request.
#[test]
fn ws_04_no_tunnel_without_the_applications_101() {
    worker(async {
        for answer in ["426 Upgrade Required", "200 OK", "403 Forbidden"] {
            let answer = format!("HTTP/1.1 {answer}\r\nupgrade: websocket\r\ncontent-length: 0\r\n\r\n");
            let (address, heads) = canned(answer.leak()).await;
            let front = front(Protocol::Http1, forwarder(address)).await;
            let next = "GET /next HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
            let (head, rest) = front.raw(&(handshake("13", KEY) + next)).await;
            assert!(!head.contains("upgrade"), "{head}");
            assert_eq!(String::from_utf8(rest).unwrap().matches("HTTP/1.1 ").count(), 1);
            let targets: Vec<_> =
                heads.borrow().iter().map(|head| head.lines().next().unwrap().to_owned()).collect();
            assert_eq!(targets, ["GET /ws HTTP/1.1", "GET /next HTTP/1.1"]);
            assert!(heads.borrow()[0].contains("upgrade: websocket\r\n"));
        }
    });
}

#[test]
fn ws_04_another_101_is_502() {
    worker(async {
        let right = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        for fields in [
            "upgrade: websocket\r\n".to_owned(),
            "upgrade: websocket\r\nsec-websocket-accept: AAAA\r\n".to_owned(),
            format!("upgrade: h2c\r\nsec-websocket-accept: {right}\r\n"),
            format!("sec-websocket-accept: {right}\r\n"),
            format!(
                "upgrade: websocket\r\nsec-websocket-accept: {right}\r\nsec-websocket-accept: {right}\r\n"
            ),
        ] {
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n{fields}\r\nHTTP/1.1 200 OK\r\n\r\n"
            );
            let (address, _) = canned(answer.leak()).await;
            let front = front(Protocol::Http1, forwarder(address)).await;
            let mut client = front.connect().await;
            client.write_all(handshake("13", KEY).as_bytes()).await.unwrap();
            let head = read_head(&mut client).await.unwrap();
            assert!(head.starts_with("HTTP/1.1 502 "), "{fields}: {head}");
        }
    });
}
