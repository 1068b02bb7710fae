//! REL-08 and what an application can do wrong before its answer begins.

use super::*;

#[test]
fn rel_08_a_closed_port_is_502_and_the_first_request_after_is_served() {
    worker(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let forwarder = forwarder(address);
        let error = get(&forwarder, "/").await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
        assert_eq!((error.status().as_u16(), error.blame()), (502, Blame::Upstream));
        assert!(error.to_string().contains(&format!("http://{address}")), "{error}");

        let listener = TcpListener::bind(address).await.unwrap();
        tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nback").await.unwrap();
        });
        assert_eq!(text(get(&forwarder, "/").await.unwrap()).await, "back");
    });
}

#[test]
fn rel_08_a_handshake_that_never_ends_is_504() {
    worker(async {
        let address = application(|_, mut stream| async move {
            read_rest(&mut stream).await;
        })
        .await;
        let host = address.ip().to_string();
        let upstream = Upstream::Tls { host, port: address.port(), roots: None };
        let error = get(&forwarder_with(&hasty(upstream)), "/").await.unwrap_err();
        assert!(matches!(error, Error::ConnectTimeout { .. }), "{error}");
        assert_eq!(error.status().as_u16(), 504);
    });
}

#[test]
fn rel_08_no_answer_is_504_and_ends_the_exchange() {
    worker(async {
        let ended = Rc::new(tokio::sync::Notify::new());
        let notify = ended.clone();
        let address = application(move |_, mut stream| {
            let notify = notify.clone();
            async move {
                read_rest(&mut stream).await;
                notify.notify_one();
            }
        })
        .await;
        let error = get(&forwarder_with(&hasty(tcp(address))), "/").await.unwrap_err();
        assert!(matches!(error, Error::ResponseTimeout), "{error}");
        assert_eq!(error.status().as_u16(), 504);
        tokio::time::timeout(PATIENCE, ended.notified()).await.expect("the connection was kept");
    });
}

#[test]
fn a_client_that_goes_away_ends_the_exchange() {
    worker(async {
        let (began, ended) = (Rc::new(tokio::sync::Notify::new()), Rc::new(tokio::sync::Notify::new()));
        let (begin, end) = (began.clone(), ended.clone());
        let address = application(move |_, mut stream| {
            let (begin, end) = (begin.clone(), end.clone());
            async move {
                let head = read_head(&mut stream).await.unwrap();
                if head.contains("/body") {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbeg").await;
                }
                begin.notify_one();
                read_rest(&mut stream).await;
                end.notify_one();
            }
        })
        .await;
        let front = front(Protocol::Http1, forwarder(address)).await;
        for target in ["/head", "/body"] {
            let mut client = front.connect().await;
            client.write_all(format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
            began.notified().await;
            drop(client);
            tokio::time::timeout(PATIENCE / 2, ended.notified()).await.expect("the exchange goes on");
        }
        assert_eq!(*front.tally.ends.borrow(), [End::Abandoned], "only the one with an answer is reported");
    });
}

/// What fails first is the way to the application, and that is not its fault.
#[test]
fn a_client_that_goes_away_in_the_midst_of_both_directions_is_to_blame() {
    worker(async {
        let address = application(|_, mut stream| async move {
            read_head(&mut stream).await.unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbeg").await;
            read_rest(&mut stream).await;
        })
        .await;
        let front = front(Protocol::Http1, forwarder(address)).await;
        let mut client = front.connect().await;
        client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nbeg").await.unwrap();
        read_head(&mut client).await.unwrap();
        drop(client);
        assert_eq!(front.tally.end().await, End::Abandoned);
    });
}

#[test]
fn what_is_no_answer_is_502() {
    let huge = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(200 * 1024));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(300));
    let cases = [
        ("", "Died"),
        ("HTTP/1.1 200 O", "Died"),
        ("HTTP/1.1 200 OK\r\ncontent-len", "Died"),
        ("garbage\r\n\r\n", "NotHttp"),
        ("\x16\x03\x01\x02\0\x01\0", "NotHttp"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "NotHttp"),
        ("HTTP/2.0 200 OK\r\n\r\n", "NotHttp"),
        ("HTTP/1.1 20x OK\r\n\r\n", "NotHttp"),
        ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "NotHttp"),
        ("HTTP/1.1 200 OK\r\nname : x\r\n\r\n", "NotHttp"),
        ("HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n", "NotHttp"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", "NotHttp"),
        ("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "NotHttp"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n", "NotHttp"),
        ("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "NotHttp"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nabc", "BadAnswer"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "BadAnswer"),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n", "BadAnswer"),
        (huge.leak(), "NotHttp"),
        (many.leak(), "NotHttp"),
    ];
    for (answer, expected) in cases {
        worker(async {
            let requests = Rc::new(Cell::new(0));
            let count = requests.clone();
            let address = application(move |_, mut stream| {
                let count = count.clone();
                async move {
                    read_head(&mut stream).await;
                    count.set(count.get() + 1);
                    // May fail: the proxy closes when it has seen enough.
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            })
            .await;
            let forwarder = forwarder(address);
            let error = get(&forwarder, "/").await.unwrap_err();
            let begin: String = answer.chars().take(60).collect();
            assert!(format!("{error:?}").starts_with(expected), "{begin:?}: {error:?}");
            assert_eq!((error.status().as_u16(), error.blame()), (502, Blame::Upstream), "{begin:?}");
            // An answer that is too large is asked for once more, by a connection that takes more.
            let attempts = if answer.len() > 1000 { 2 } else { 1 };
            assert_eq!(requests.get(), attempts, "a new connection's request is not sent again: {begin:?}");
            assert_eq!(forwarder.pool.len(), 0, "{begin:?}");
        });
    }
}

#[test]
fn interim_answers_are_skipped() {
    worker(async {
        let (address, _) = canned(
            "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
             HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        )
        .await;
        let answer = get(&forwarder(address), "/").await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers().get("link")), (200, None));
        assert_eq!(text(answer).await, "ok");
    });
}

/// None of them has a body, whatever its headers say, and the connection is good for the next request.
#[test]
fn answers_without_a_body_do_not_wait_for_one() {
    let rows = [
        (Method::GET, "204 No Content", "content-length: 7\r\n", None),
        (Method::GET, "304 Not Modified", "content-length: 7\r\n", Some("7")),
        (Method::HEAD, "200 OK", "content-length: 7\r\n", Some("7")),
        (Method::HEAD, "200 OK", "transfer-encoding: chunked\r\n", None),
        (Method::GET, "200 OK", "content-length: 0\r\n", Some("0")),
        (Method::POST, "205 Reset Content", "content-length: 0\r\n", Some("0")),
    ];
    for (method, status, field, length) in rows {
        worker(async {
            let (address, heads) = canned(format!("HTTP/1.1 {status}\r\n{field}\r\n").leak()).await;
            let forwarder = forwarder(address);
            for _ in 0..2 {
                let answer = send(&forwarder, request(method.clone(), "/")).await.unwrap();
                assert_eq!(answer.status().as_str(), &status[..3]);
                let found = answer.headers().get("content-length").map(|value| value.to_str().unwrap());
                assert_eq!(found, length, "{method} {status}");
                assert_eq!(text(answer).await, "");
                assert_eq!(forwarder.pool.len(), 1, "{method} {status}");
            }
            assert_eq!(heads.borrow().len(), 2);
        });
    }
}

#[test]
fn chunked_beats_a_length_that_came_along() {
    worker(async {
        let (address, _) = canned(
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        )
        .await;
        let answer = get(&forwarder(address), "/").await.unwrap();
        assert_eq!(answer.headers().get("content-length"), None);
        assert_eq!(text(answer).await, "hello");
    });
}

#[test]
fn a_repeated_length_becomes_one() {
    worker(async {
        for field in ["content-length: 2, 2", "content-length: 2\r\ncontent-length: 2"] {
            let (address, _) = canned(format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\nok").leak()).await;
            let front = front(Protocol::Http1, forwarder(address)).await;
            let (head, body) = front.raw("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
            assert_eq!(head.matches("content-length: 2\r\n").count(), 1, "{head}");
            assert_eq!(body, b"ok");
        }
    });
}

#[test]
fn a_permit_forwards_one_request() {
    worker(async {
        let (address, heads) = canned("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        let path = NormalPath::parse("/a", &path::Options::default()).unwrap();
        let permit = crate::policy::Permit::for_test();
        let answer =
            forwarder(address).forward(&mut request(Method::GET, "/a"), permit, &path, terms()).await;
        assert_eq!(text(answer.unwrap()).await, "ok");
        assert_eq!(heads.borrow().len(), 1);
    });
}

/// hyper takes a hundred fields; an application that once had more gets connections for that.
#[test]
fn many_fields_in_an_answer_are_taken() {
    worker(async {
        let requests = Rc::new(RefCell::new(Vec::new()));
        let seen = requests.clone();
        let address = application(move |connection, mut stream| {
            let seen = seen.clone();
            async move {
                while let Some(head) = read_head(&mut stream).await {
                    seen.borrow_mut().push(connection);
                    let target = head.split(' ').nth(1).unwrap();
                    let fields: usize = target[1..].parse().unwrap();
                    let mut answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n".to_owned();
                    (0..fields).for_each(|index| answer.push_str(&format!("x-{index}: y\r\n")));
                    let _ = stream.write_all(format!("{answer}\r\n").as_bytes()).await;
                }
            }
        })
        .await;
        let few = forwarder(address);
        // What is not safe to repeat is not repeated, but helps those that come after.
        get(&few, "/1").await.unwrap();
        let error = send(&few, request(Method::POST, "/200")).await.unwrap_err();
        assert!(matches!(error, Error::NotHttp(_)), "{error:?}");
        assert_eq!(send(&few, request(Method::POST, "/200")).await.unwrap().headers().len(), 201);
        assert_eq!(*requests.borrow(), [0, 0, 1]);

        let first = forwarder(address);
        for _ in 0..2 {
            assert_eq!(get(&first, "/255").await.unwrap().headers().len(), 256);
        }
        assert_eq!(requests.borrow()[3..], [2, 3, 3]);
        // A bound remains, and nothing is repeated for it.
        assert!(matches!(get(&first, "/256").await, Err(Error::NotHttp(_))));
        assert_eq!(requests.borrow()[6..], [3]);
    });
}
