//! REL-09, and streaming in both directions.

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

/// A GET of unknown length keeps its body, and of its trailers those that are announced and may cross.
#[test]
fn a_chunked_get_keeps_its_body_and_some_of_its_trailers() {
    worker(async {
        let address = application(|_, mut stream| async move {
            let head = read_head(&mut stream).await.unwrap();
            let mut body = Vec::new();
            while !(body.ends_with(b"\r\n\r\n") && body.starts_with(b"3\r\nabc\r\n0")) {
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
                "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntrailer: x-user, x-sum\r\ntransfer-encoding: chunked\r\n\r\n\
                 3\r\nabc\r\n0\r\nx-user: root\r\nx-sum: 6\r\nx-silent: 1\r\n\r\n",
            )
            .await;
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.contains("transfer-encoding: chunked\r\n"), "{seen}");
        assert!(seen.contains("trailer: x-sum\r\n"), "{seen}");
        assert!(seen.ends_with("\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 6\r\n\r\n"), "{seen}");
        assert!(!seen.contains("x-user") && !seen.contains("x-silent"), "{seen}");
        // Without an announcement there is nothing to write them with; the body is complete all the same.
        let (_, seen) = front
            .raw(
                "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
                 3\r\nabc\r\n0\r\nx-sum: 6\r\n\r\n",
            )
            .await;
        assert!(String::from_utf8(seen).unwrap().ends_with("\r\n\r\n3\r\nabc\r\n0\r\n\r\n"));
    });
}

/// Trailers of an answer reach clients that take them, without what only a head may say.
#[test]
fn trailers_of_answers_cross() {
    worker(async {
        let answer = "HTTP/1.1 200 OK\r\ntrailer: x-sum, set-cookie\r\ntransfer-encoding: chunked\r\n\r\n\
                      2\r\nok\r\n0\r\nx-sum: 7\r\nset-cookie: a=b\r\n\r\n";
        let (address, heads) = canned(answer).await;
        for (te, trailers) in [("te: trailers\r\n", "x-sum: 7\r\n"), ("", "")] {
            let front1 = front(Protocol::Http1, forwarder(address)).await;
            let (_, body) =
                front1.raw(&format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{te}\r\n")).await;
            assert_eq!(String::from_utf8(body).unwrap(), format!("2\r\nok\r\n0\r\n{trailers}\r\n"));
            let told = heads.borrow_mut().pop().unwrap();
            assert_eq!(
                told.contains("te: trailers\r\n") && told.contains("connection: te\r\n"),
                !te.is_empty()
            );
            assert_eq!(front1.tally.end().await, End::Complete);
        }
        let front2 = front(Protocol::Http2, forwarder(address)).await;
        let request = Request::builder().uri("http://a/").body(http_body_util::Full::default()).unwrap();
        let answer = front2.http2().await.send_request(request).await.unwrap();
        let body = answer.into_body().collect().await.unwrap();
        let trailers = body.trailers().unwrap();
        assert_eq!((trailers.len(), trailers["x-sum"].as_bytes()), (1, &b"7"[..]));
        assert_eq!(front2.tally.end().await, End::Complete);
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
        let front = front(Protocol::Http1, forwarder(address)).await;
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

/// Closes with unread bytes in the receive buffer, which makes the kernel send RST.
async fn reset_after_answer(mut stream: TcpStream) {
    let mut some = [0; 1024];
    let _ = stream.read(&mut some).await;
}
