//! Bodies that stall, wait, or end before their time.

use super::*;
use crate::web::body::BodyError;

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
        let forwarder = forwarder_with(&hasty(tcp(address)));
        let body = get(&forwarder, "/plain").await.unwrap().into_body();
        let error = body.collect().await.unwrap_err();
        assert!(matches!(error, BodyError::Stalled), "{error}");
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
        for (kind, ends_well) in [("text/event-stream", true), ("video/mp4", false)] {
            let address = application(move |_, mut stream| async move {
                read_head(&mut stream).await;
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
                let _ = stream.write_all(head.as_bytes()).await;
                while stream.write_all(b"1\r\nx\r\n").await.is_ok() {
                    tokio::time::sleep(SHORT / 20).await;
                }
            })
            .await;
            let end = Instant::now() + 3 * SHORT;
            let front = front_until(Protocol::Http1, forwarder(address), Some(end)).await;
            let (_, body) = front.raw("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
            assert!(Instant::now() >= end, "too early");
            assert!(!body.is_empty() && body.ends_with(b"0\r\n\r\n") == ends_well, "{kind}");
            assert_eq!(front.tally.end().await, End::SessionEnded);
        }
    });
}

#[test]
fn a_client_that_stalls_gets_408_and_the_application_an_end() {
    worker(async {
        let (address, bodies) = uploads().await;
        let config = Config { body_idle_timeout: SHORT, ..config(tcp(address)) };
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
        let address = canned_after(9, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        let config = Config { response_timeout: SHORT, ..config(tcp(address)) };
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

/// DOS-02: where a body gets one piece at a time because much is held, it is still known who is late.
#[test]
fn an_upload_that_nobody_takes_ends_however_much_is_held() {
    worker(async {
        let address = application(|_, mut stream| async move {
            read_head(&mut stream).await;
            std::future::pending().await
        })
        .await;
        let front = front(Protocol::Http1, forwarder_with(&hasty(tcp(address)))).await;
        let much = crate::web::transit::pressure();
        let (mut reader, mut writer) = front.connect().await.into_split();
        tokio::task::spawn_local(async move {
            let _ = writer.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999\r\n\r\n").await;
            while writer.write_all(&[b'x'; 65_536]).await.is_ok() {}
        });
        let mut status = [0; 12];
        reader.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 504");
        drop(much);
    });
}

#[test]
fn a_client_that_breaks_off_does_not_complete_its_request() {
    worker(async {
        for framing in ["content-length: 9\r\n\r\nabc", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
            let (address, bodies) = uploads().await;
            let front = front(Protocol::Http1, forwarder(address)).await;
            let mut client = front.connect().await;
            client.write_all(format!("POST / HTTP/1.1\r\nhost: a\r\n{framing}").as_bytes()).await.unwrap();
            bodies.began.notified().await;
            drop(client);
            let body = bodies.recv().await;
            assert!(!body.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&body));
        }
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
        let front = front(Protocol::Http1, forwarder(address)).await;
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
async fn uploads() -> (SocketAddr, Rc<Bodies>) {
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
async fn canned_after(bytes: usize, answer: &'static str) -> SocketAddr {
    application(move |_, mut stream| async move {
        read_head(&mut stream).await;
        let mut body = vec![0; bytes];
        stream.read_exact(&mut body).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        read_rest(&mut stream).await;
    })
    .await
}
