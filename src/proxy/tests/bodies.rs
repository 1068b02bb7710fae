//! REL-09, streaming, and stalls.

use super::*;

const MEBIBYTE: usize = 1024 * 1024;

/// How an answer announces its length.
const FRAMINGS: [&str; 3] = ["content-length: 1048576", "transfer-encoding: chunked", "connection: close"];

/// An application that breaks off after 1 KiB of 1 MiB.
async fn breaking(framing: &'static str, by_reset: bool) -> SocketAddr {
    application(move |_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n").as_bytes()).await.unwrap();
        let kibibyte = "x".repeat(1024);
        let part = if framing.contains("chunked") { format!("400\r\n{kibibyte}\r\n") } else { kibibyte };
        stream.write_all(part.as_bytes()).await.unwrap();
        if by_reset {
            reset(stream);
        }
    })
    .await
}

#[test]
fn rel_09_a_cut_answer_is_never_a_complete_one() {
    for framing in FRAMINGS {
        for by_reset in [true, false] {
            if framing == FRAMINGS[2] && !by_reset {
                continue; // a body that ends with the connection has ended
            }
            worker(async {
                let case = format!("{framing}, reset: {by_reset}");
                let forwarder = forwarder(breaking(framing, by_reset).await);
                if let Ok(answer) = get(&forwarder, "/").await {
                    assert!(answer.into_body().collect().await.is_err(), "{case}");
                }

                // hyper may close before it has written the head, if the fault is seen as early as that.
                let h1 = front(Protocol::Http1, forwarder.clone()).await;
                let mut client = h1.connect().await;
                client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
                let answer = String::from_utf8(read_until_stop(&mut client).await).unwrap();
                if answer.is_empty() || answer.contains(" 200 ") {
                    assert!(answer.len() < MEBIBYTE, "{case}");
                    assert!(!answer.ends_with("0\r\n\r\n"), "{case}");
                    assert_eq!(h1.tally.end().await, End::Cut, "{case}");
                }

                let h2 = front(Protocol::Http2, forwarder).await;
                let request = Request::builder().uri("http://a/").body(Default::default()).unwrap();
                match h2.http2().await.send_request(request).await {
                    Ok(answer) if answer.status() == 200 => {
                        assert!(answer.into_body().collect().await.is_err(), "{case}");
                    }
                    Ok(answer) => assert_eq!(answer.status().as_u16(), 502, "{case}"),
                    Err(error) => assert!(!error.is_closed(), "only the stream ends: {error:?}, {case}"),
                }
            });
        }
    }
}

/// All of an answer that may leave the connection open, as our own 502 does.
async fn read_until_stop(client: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(Ok(read @ 1..)) = tokio::time::timeout(SHORT, client.read(&mut buffer)).await {
        all.extend_from_slice(&buffer[..read]);
    }
    all
}

#[test]
fn bodies_pass_whole_in_both_directions() {
    worker(async {
        // Echoes a chunked request in chunks, one for each read.
        let address = application(|_, mut stream| async move {
            let head = read_head(&mut stream).await.unwrap();
            assert!(head.contains("transfer-encoding: chunked"), "{head}");
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
            let mut all = Vec::new();
            let mut buffer = vec![0; 64 * 1024];
            while !all.ends_with(b"\r\n0\r\n\r\n") {
                let read = stream.read(&mut buffer).await.unwrap();
                all.extend_from_slice(&buffer[..read]);
                // The client's chunks, with their framing, are ours again.
                stream.write_all(&buffer[..read]).await.unwrap();
            }
        })
        .await;
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let front = front(protocol, forwarder(address)).await;
            let sent: Vec<u8> = (0..3 * MEBIBYTE).map(|index| (index % 251) as u8).collect();
            let stream = http_body_util::StreamBody::new(futures_util::stream::iter(
                sent.chunks(10_000)
                    .map(|chunk| {
                        Ok::<_, std::convert::Infallible>(http_body::Frame::data(Bytes::copy_from_slice(
                            chunk,
                        )))
                    })
                    .collect::<Vec<_>>(),
            ));
            let request = Request::post("http://a/").header("host", "a").body(stream).unwrap();
            let io = TokioIo::new(front.connect().await);
            let answer = if protocol == Protocol::Http1 {
                let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
                tokio::task::spawn_local(connection);
                sender.send_request(request).await.unwrap()
            } else {
                let (mut sender, connection) = hyper::client::conn::http2::handshake(Here, io).await.unwrap();
                tokio::task::spawn_local(connection);
                sender.send_request(request).await.unwrap()
            };
            let echoed = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(echoed == sent, "{} bytes of {}", echoed.len(), sent.len());
            assert_eq!(front.tally.end().await, End::Complete);
            assert_eq!((front.tally.received.get(), front.tally.sent.get()), (sent.len(), sent.len()));
        }
    });
}

/// A GET of unknown length keeps its body, and trailers of requests don't pass.
#[test]
fn a_chunked_get_keeps_its_body_and_loses_its_trailers() {
    worker(async {
        let address = application(|_, mut stream| async move {
            let head = read_head(&mut stream).await.unwrap();
            let mut body = Vec::new();
            while !body.ends_with(b"0\r\n\r\n") {
                body.push(stream.read_u8().await.unwrap());
            }
            let seen = format!("{head}{}", String::from_utf8(body).unwrap());
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{seen}", seen.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let front = front(Protocol::Http1, forwarder(address)).await;
        let (_, seen) = front
            .raw(
                "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntrailer: x-user\r\ntransfer-encoding: chunked\r\n\r\n\
                 3\r\nabc\r\n0\r\nx-user: root\r\n\r\n",
            )
            .await;
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.contains("transfer-encoding: chunked\r\n"), "{seen}");
        assert!(seen.ends_with("\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), "{seen}");
        assert!(!seen.contains("x-user"), "{seen}");
    });
}

#[test]
fn an_answer_that_stalls_is_cut_and_an_event_stream_is_not() {
    worker(async {
        let go_on = Rc::new(tokio::sync::Notify::new());
        let next = go_on.clone();
        let address = application(move |_, mut stream| {
            let next = next.clone();
            async move {
                let head = read_head(&mut stream).await.unwrap();
                let kind = if head.contains("/events") { "Text/event-stream; x=y" } else { "text/plain" };
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: 8\r\n\r\none\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                next.notified().await;
                let _ = stream.write_all(b"two\n").await;
            }
        })
        .await;
        let forwarder = forwarder(address);
        let body = get(&forwarder, "/plain").await.unwrap().into_body();
        let error = body.collect().await.unwrap_err();
        assert!(matches!(error, crate::web::body::BodyError::Stalled), "{error}");
        go_on.notify_one();

        let mut body = get(&forwarder, "/events").await.unwrap().into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first, "one\n", "an event arrives before the next one exists");
        assert!(tokio::time::timeout(2 * SHORT, body.frame()).await.is_err(), "silence ended the stream");
        go_on.notify_one();
        assert_eq!(body.collect().await.unwrap().to_bytes(), "two\n");
    });
}

#[test]
fn a_stream_ends_with_its_session() {
    worker(async {
        let address = application(|_, mut stream| async move {
            read_head(&mut stream).await;
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
            while stream.write_all(b"1\r\nx\r\n").await.is_ok() {
                tokio::time::sleep(SHORT / 20).await;
            }
        })
        .await;
        let end = Instant::now() + 3 * SHORT;
        let front = front_until(Protocol::Http1, forwarder(address), Some(end)).await;
        let (_, body) = front.raw("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(Instant::now() >= end, "too early");
        assert!(!body.is_empty() && !body.ends_with(b"0\r\n\r\n"));
        assert_eq!(front.tally.end().await, End::Cut);
    });
}

#[test]
fn a_client_that_stalls_gets_408_and_the_application_an_end() {
    worker(async {
        let (address, bodies) = uploads("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let mut config = config(tcp(address));
        config.response_timeout = PATIENCE;
        let front = front(Protocol::Http1, forwarder_with(&config)).await;
        let mut client = front.connect().await;
        client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc").await.unwrap();
        let head = read_head(&mut client).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
        assert_eq!(bodies.recv().await, b"abc");
    });
}

/// As long as the client is the one who is slow, the application is not blamed for it.
#[test]
fn a_slow_upload_does_not_run_into_the_response_timeout() {
    worker(async {
        let (address, _) = canned_after(9, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        let mut config = config(tcp(address));
        config.body_idle_timeout = PATIENCE;
        let front = front(Protocol::Http1, forwarder_with(&config)).await;
        let mut client = front.connect().await;
        client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n").await.unwrap();
        for part in [b"abc", b"def", b"ghi"] {
            tokio::time::sleep(SHORT + SHORT / 4).await;
            client.write_all(part).await.unwrap();
        }
        let head = read_head(&mut client).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    });
}

#[test]
fn a_client_that_breaks_off_does_not_complete_its_request() {
    worker(async {
        for framing in ["content-length: 9\r\n\r\nabc", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
            let (address, bodies) = uploads("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            let mut config = config(tcp(address));
            (config.response_timeout, config.body_idle_timeout) = (PATIENCE, PATIENCE);
            let front = front(Protocol::Http1, forwarder_with(&config)).await;
            let mut client = front.connect().await;
            client.write_all(format!("POST / HTTP/1.1\r\nhost: a\r\n{framing}").as_bytes()).await.unwrap();
            bodies.began.notified().await;
            drop(client);
            let body = bodies.recv().await;
            assert!(!body.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&body));
        }
    });
}

/// An application may refuse an upload and close: its answer arrives although writing to it fails.
#[test]
fn an_early_refusal_of_an_upload_reaches_the_client() {
    worker(async {
        let address = application(|_, mut stream| async move {
            read_head(&mut stream).await;
            let answer =
                "HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 5\r\n\r\nlarge";
            stream.write_all(answer.as_bytes()).await.unwrap();
            reset_after_answer(stream).await;
        })
        .await;
        let forwarder = forwarder(address);
        for round in 0..20 {
            let mut upload = request(Method::POST, "/");
            *upload.body_mut() = Body::from("x".repeat(4 * MEBIBYTE));
            let answer = send(&forwarder, upload).await.unwrap_or_else(|error| panic!("{round}: {error}"));
            assert_eq!(answer.status().as_u16(), 413);
            assert_eq!(text(answer).await, "large");
        }
        assert_eq!(forwarder.pool.len(), 0);
    });
}

/// A client may send all of its request before it reads a byte, although the application answers as it reads.
#[test]
fn an_upload_goes_on_while_nobody_reads_the_answer() {
    worker(async {
        let address = application(|_, stream| async move {
            let (mut reader, mut writer) = stream.into_split();
            let head = read_head(&mut reader).await.unwrap();
            assert!(head.contains("content-length: 33554432"), "{head}");
            writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 33554432\r\n\r\n").await.unwrap();
            // Reads all while it writes: neither waits for the other.
            let writing = async { writer.write_all(&vec![b'y'; 32 * MEBIBYTE]).await.unwrap() };
            let reading = async {
                let mut left = 32 * MEBIBYTE;
                let mut buffer = vec![0; 64 * 1024];
                while left > 0 {
                    left -= reader.read(&mut buffer).await.unwrap();
                }
            };
            tokio::join!(writing, reading);
        })
        .await;
        let mut config = config(tcp(address));
        (config.response_timeout, config.body_idle_timeout) = (PATIENCE, PATIENCE);
        let front = front(Protocol::Http1, forwarder_with(&config)).await;
        let mut client = front.connect().await;
        let head = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 33554432\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(&vec![b'x'; 32 * MEBIBYTE]).await.unwrap();
        let head = read_head(&mut client).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(read_rest(&mut client).await.len(), 32 * MEBIBYTE);
    });
}

#[test]
fn a_client_that_does_not_read_slows_the_application_down() {
    worker(async {
        let written = Rc::new(Cell::new(0));
        let count = written.clone();
        let address = application(move |_, mut stream| {
            let count = count.clone();
            async move {
                read_head(&mut stream).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n").await.unwrap();
                let part = vec![b'x'; 64 * 1024];
                while stream.write_all(&part).await.is_ok() {
                    count.set(count.get() + part.len());
                }
            }
        })
        .await;
        let front = front(Protocol::Http1, forwarder(address)).await;
        let mut client = front.connect().await;
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut before = usize::MAX;
        while before != written.get() {
            before = written.get();
            tokio::time::sleep(SHORT).await;
        }
        assert!(before < 64 * MEBIBYTE, "{before} bytes are somewhere");
    });
}

#[test]
fn a_body_waits_for_the_applications_continue() {
    worker(async {
        let address = application(|_, mut stream| async move {
            let head = read_head(&mut stream).await.unwrap();
            assert!(head.contains("expect: 100-continue"), "{head}");
            let mut byte = [0];
            if head.contains("/refuse") {
                stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                assert!(!matches!(stream.read(&mut byte).await, Ok(1)), "the body came all the same");
                return;
            }
            if head.contains("/accept") {
                let early = tokio::time::timeout(SHORT / 2, stream.read(&mut byte)).await;
                assert!(early.is_err(), "the body came before it was asked for");
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            }
            let mut body = [0; 3];
            stream.read_exact(&mut body).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        })
        .await;
        let mut config = config(tcp(address));
        (config.response_timeout, config.body_idle_timeout) = (PATIENCE, PATIENCE);
        let front = front(Protocol::Http1, forwarder_with(&config)).await;
        for (target, first) in [("/accept", "100"), ("/silent", "100"), ("/refuse", "403")] {
            let mut client = front.connect().await;
            let head = format!(
                "POST {target} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n"
            );
            client.write_all(head.as_bytes()).await.unwrap();
            let head = read_head(&mut client).await.unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {first} ")), "{target}: {head}");
            if first == "100" {
                client.write_all(b"abc").await.unwrap();
                let head = read_head(&mut client).await.unwrap();
                assert!(head.starts_with("HTTP/1.1 200 "), "{target}: {head}");
            }
        }
    });
}

/// What an application read of each request's body, however it ended.
struct Bodies {
    began: tokio::sync::Notify,
    bodies: tokio::sync::Mutex<tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>>,
}

impl Bodies {
    async fn recv(&self) -> Vec<u8> {
        let mut bodies = self.bodies.lock().await;
        tokio::time::timeout(PATIENCE, bodies.recv()).await.expect("no body ended").unwrap()
    }
}

/// An application that reads a body to the end of its connection and never answers before.
async fn uploads(_answer: &'static str) -> (SocketAddr, Rc<Bodies>) {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let bodies = Rc::new(Bodies { began: tokio::sync::Notify::new(), bodies: receiver.into() });
    let seen = bodies.clone();
    let address = application(move |_, mut stream| {
        let (sender, seen) = (sender.clone(), seen.clone());
        async move {
            read_head(&mut stream).await;
            let mut body = vec![stream.read_u8().await.unwrap()];
            seen.began.notify_one();
            body.extend(read_rest(&mut stream).await);
            sender.send(body).unwrap();
        }
    })
    .await;
    (address, bodies)
}

/// An application that answers after so many bytes of body.
async fn canned_after(bytes: usize, answer: &'static str) -> (SocketAddr, ()) {
    let address = application(move |_, mut stream| async move {
        read_head(&mut stream).await;
        let mut body = vec![0; bytes];
        stream.read_exact(&mut body).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        read_rest(&mut stream).await;
    })
    .await;
    (address, ())
}

/// Closes with unread bytes in the receive buffer, which makes the kernel send RST.
async fn reset_after_answer(mut stream: TcpStream) {
    let mut some = [0; 1024];
    let _ = stream.read(&mut some).await;
}
