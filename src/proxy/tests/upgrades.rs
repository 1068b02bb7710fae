//! SMG-16: other protocols than WebSocket, and how the ends of a tunnel are passed on.

use super::*;

/// An application that answers each request with `head`, and hands the connection to `then`.
async fn switching<F, S>(head: &'static str, then: S) -> (SocketAddr, Rc<RefCell<Vec<String>>>)
where
    F: Future<Output = ()> + 'static,
    S: Fn(TcpStream) -> F + 'static,
{
    let heads = Rc::new(RefCell::new(Vec::new()));
    let (seen, then) = (heads.clone(), Rc::new(then));
    let address = application(move |_, mut stream| {
        let (seen, then) = (seen.clone(), then.clone());
        async move {
            let Some(asked) = read_head(&mut stream).await else { return };
            let mut body = vec![0; if asked.contains("content-length: 4") { 4 } else { 0 }];
            stream.read_exact(&mut body).await.unwrap();
            while asked.contains("transfer-encoding: chunked") && !body.ends_with(b"\r\n\r\n") {
                body.push(stream.read_u8().await.unwrap());
            }
            seen.borrow_mut().push(asked + &String::from_utf8(body).unwrap());
            stream.write_all(head.as_bytes()).await.unwrap();
            then(stream).await;
        }
    })
    .await;
    (address, heads)
}

async fn echo(mut stream: TcpStream) {
    let (mut reader, mut writer) = stream.split();
    let _ = tokio::io::copy(&mut reader, &mut writer).await;
}

const SWITCHED: &str = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: TCP\r\n\r\n";

#[test]
fn the_applications_own_101_makes_a_tunnel() {
    worker(async {
        let (address, heads) = switching(SWITCHED, echo).await;
        let front = front(Protocol::Http1, forwarder(address)).await;
        for request in [
            "GET /a HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: tcp\r\n\r\n",
            // As Docker's clients ask (RFC 9110 section 7.8 wants the whole request read first).
            "POST /a HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: tcp\r\ncontent-length: 4\r\n\r\nbody",
            // Whoever writes trailers does not ask for what comes after them; the request is whole all the same.
            "POST /a HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: tcp\r\ntrailer: x-sum\r\n\
             transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nx-sum: 7\r\n\r\n",
        ] {
            let mut client = front.connect().await;
            client.write_all(request.as_bytes()).await.unwrap();
            let head = read_head(&mut client).await.unwrap();
            assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("upgrade: tcp\r\n"), "{head}");
            let bytes: Vec<u8> = (0..1_000_000_u32).map(|number| number as u8).collect();
            let (mut reader, mut writer) = client.split();
            let mut echoed = Vec::new();
            let ((), read) = tokio::join!(
                async {
                    writer.write_all(&bytes).await.unwrap();
                    writer.shutdown().await.unwrap();
                },
                reader.read_to_end(&mut echoed)
            );
            read.unwrap();
            assert!(echoed == bytes, "{} bytes came back", echoed.len());
            let seen = heads.take().concat();
            assert!(seen.contains("connection: upgrade\r\n") && seen.contains("upgrade: tcp\r\n"), "{seen}");
            assert_eq!(seen.contains("body"), request.starts_with("POST"));
            assert_eq!(seen.ends_with("x-sum: 7\r\n\r\n"), request.contains("trailer"), "{seen}");
        }
        assert_eq!(front.tally.ends.borrow().as_slice(), [End::Complete; 3]);
    });
}

/// Without it, or with one that answers something else, what follows is HTTP or nothing.
#[test]
fn smg_16_no_other_101_makes_one() {
    worker(async {
        let wish = "connection: upgrade\r\nupgrade: tcp\r\n";
        let answer =
            |fields: &str| format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\nHTTP/1.1 200 OK\r\n\r\n");
        for (asked, fields) in [
            (wish, "connection: upgrade\r\nupgrade: tls\r\n"),
            (wish, "connection: upgrade\r\nupgrade: tcp, tls\r\n"),
            (wish, "connection: upgrade\r\nupgrade: tcp\r\nupgrade: tcp\r\n"),
            (wish, "connection: upgrade\r\n"),
            (wish, "upgrade: tcp\r\n"),
            ("connection: upgrade\r\nupgrade: h2c\r\n", "connection: upgrade\r\nupgrade: h2c\r\n"),
            ("upgrade: tcp\r\n", "connection: upgrade\r\nupgrade: tcp\r\n"),
        ] {
            let (address, _) = canned(answer(fields).leak()).await;
            let front = front(Protocol::Http1, forwarder(address)).await;
            let mut client = front.connect().await;
            client.write_all(format!("GET /a HTTP/1.1\r\nhost: a\r\n{asked}\r\n").as_bytes()).await.unwrap();
            let head = read_head(&mut client).await.unwrap();
            assert!(head.starts_with("HTTP/1.1 502 "), "{asked} {fields}: {head}");
        }
        // Before the application can have read the request, a tunnel would take the body for its own bytes.
        let (address, _) = canned(SWITCHED).await;
        let front = front(Protocol::Http1, forwarder(address)).await;
        let mut client = front.connect().await;
        let head = format!("POST /a HTTP/1.1\r\nhost: a\r\n{wish}content-length: 4\r\n\r\nbo");
        client.write_all(head.as_bytes()).await.unwrap();
        let head = read_head(&mut client).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    });
}

#[test]
fn smg_16_a_declined_upgrade_is_a_plain_request() {
    worker(async {
        let (address, heads) = canned("HTTP/1.1 200 OK\r\nupgrade: tcp\r\ncontent-length: 0\r\n\r\n").await;
        let front = front(Protocol::Http1, forwarder(address)).await;
        for (asked, offered) in [
            ("connection: upgrade\r\nupgrade: tcp", Some("upgrade: tcp\r\n")),
            ("connection: upgrade\r\nupgrade: SPDY/3.1", Some("upgrade: SPDY/3.1\r\n")),
            ("connection: upgrade\r\nupgrade: tcp, spdy", None),
            ("connection: upgrade\r\nupgrade: tcp\r\nupgrade: tcp", None),
            ("connection: upgrade\r\nupgrade: HTTP/2.0", None),
            ("connection: upgrade\r\nupgrade: TLS/1.0", None),
            ("connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk", None),
            // Not a wish: the connection option is missing (RFC 9110 section 7.8).
            ("connection: keep-alive\r\nupgrade: websocket\r\nsec-websocket-version: 777", None),
        ] {
            let first = format!("GET /a HTTP/1.1\r\nhost: a\r\n{asked}\r\n\r\n");
            let next = "GET /b HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
            let (head, rest) = front.raw(&(first + next)).await;
            assert!(head.starts_with("HTTP/1.1 200 ") && !head.contains("upgrade"), "{head}");
            assert_eq!(String::from_utf8(rest).unwrap().matches("HTTP/1.1 200 ").count(), 1);
            let seen = heads.take();
            assert_eq!(seen.len(), 2, "{seen:?}");
            match offered {
                Some(offered) => assert!(seen[0].contains(offered), "{seen:?}"),
                None => assert!(!seen[0].contains("upgrade"), "{seen:?}"),
            }
            assert!(!seen[0].contains("http2") && !seen[1].contains("upgrade"), "{seen:?}");
        }
    });
}

const ASK: &[u8] = b"GET /a HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: tcp\r\n\r\n";

/// Either side may stop talking and go on listening.
#[test]
fn half_closes_are_passed_on() {
    worker(async {
        // The client is done first.
        let (address, _) = switching(SWITCHED, |mut stream| async move {
            let heard = read_rest(&mut stream).await;
            assert_eq!(heard, b"question");
            stream.write_all(b"answer").await.unwrap();
        })
        .await;
        let served = front(Protocol::Http1, forwarder(address)).await;
        let mut client = served.connect().await;
        client.write_all(ASK).await.unwrap();
        read_head(&mut client).await.unwrap();
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read_rest(&mut client).await, b"answer");
        assert_eq!(served.tally.end().await, End::Complete);

        // The application is.
        let (heard, mut hear) = tokio::sync::mpsc::channel(1);
        let (address, _) = switching(SWITCHED, move |mut stream| {
            let heard = heard.clone();
            async move {
                stream.write_all(b"all I have").await.unwrap();
                stream.shutdown().await.unwrap();
                heard.send(read_rest(&mut stream).await).await.unwrap();
            }
        })
        .await;
        let served = front(Protocol::Http1, forwarder(address)).await;
        let mut client = served.connect().await;
        client.write_all(ASK).await.unwrap();
        read_head(&mut client).await.unwrap();
        assert_eq!(read_rest(&mut client).await, b"all I have");
        client.write_all(b"much more").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(served.tally.end().await, End::Complete);
        assert_eq!(hear.recv().await.unwrap(), b"much more");
        assert_eq!((served.tally.received.get(), served.tally.sent.get()), (9, 10));
    });
}

/// The record names who broke a tunnel off.
#[test]
fn a_reset_is_no_end() {
    worker(async {
        let (address, _) = switching(SWITCHED, |mut stream| async move {
            let mut byte = [0];
            if stream.read(&mut byte).await.is_ok_and(|read| read > 0) {
                reset(stream);
            }
        })
        .await;
        for (by_client, wanted) in [(false, End::Cut), (true, End::Abandoned)] {
            let served = front(Protocol::Http1, forwarder(address)).await;
            let mut client = served.connect().await;
            client.write_all(ASK).await.unwrap();
            read_head(&mut client).await.unwrap();
            if by_client {
                reset(client);
                assert_eq!(served.tally.end().await, wanted);
            } else {
                client.write_all(b"x").await.unwrap();
                assert_eq!(served.tally.end().await, wanted);
            }
        }
    });
}

/// A side that does not read holds the other back, and nothing grows meanwhile.
#[test]
fn backpressure_passes_through() {
    worker(async {
        let sent = Rc::new(Cell::new(0));
        let counted = sent.clone();
        let (address, _) = switching(SWITCHED, move |mut stream| {
            let sent = counted.clone();
            async move {
                let block = [7; 64 * 1024];
                while sent.get() < 64 << 20 {
                    stream.write_all(&block).await.unwrap();
                    sent.set(sent.get() + block.len());
                }
            }
        })
        .await;
        let served = front(Protocol::Http1, forwarder(address)).await;
        let mut client = served.connect().await;
        client.write_all(ASK).await.unwrap();
        read_head(&mut client).await.unwrap();
        // Until the sockets on the way are full.
        let mut before = usize::MAX;
        while before != sent.get() {
            before = sent.get();
            tokio::time::sleep(SHORT).await;
        }
        assert!(before < 64 << 20, "nothing held the application back");
        let mut received = 0;
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = client.read(&mut buffer).await {
            assert!(buffer[..read].iter().all(|byte| *byte == 7));
            received += read;
        }
        assert_eq!(received, 64 << 20);
    });
}
