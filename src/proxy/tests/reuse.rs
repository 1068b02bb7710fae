//! REL-10: waiting connections, those that die, and the one retry.

use http::Version;

use super::*;

/// What an application did with its connections.
#[derive(Default)]
struct Log {
    connections: Cell<usize>,
    /// The first line of each request, with the number of its connection.
    requests: RefCell<Vec<(usize, String)>>,
}

/// What an application does with a request.
#[derive(Clone, Copy, PartialEq)]
enum Reaction {
    Answer,
    AnswerAndClose,
    /// Says nothing about it.
    CloseAfterAnswer,
    Vanish,
    Reset,
}

/// An application that reacts to the requests of each connection as `plan(connection, request)` says.
async fn planned(plan: impl Fn(usize, usize) -> Reaction + 'static) -> (SocketAddr, Rc<Log>) {
    let log = Rc::new(Log::default());
    let (seen, plan) = (log.clone(), Rc::new(plan));
    let address = application(move |connection, mut stream| {
        let (seen, plan) = (seen.clone(), plan.clone());
        async move {
            seen.connections.set(seen.connections.get() + 1);
            for number in 0.. {
                let Some(head) = read_head(&mut stream).await else { return };
                let line = head.lines().next().unwrap().replace(" HTTP/1.1", "");
                if head.contains("content-length: 3") {
                    stream.read_exact(&mut [0; 3]).await.unwrap();
                }
                seen.requests.borrow_mut().push((connection, line));
                let close =
                    if plan(connection, number) == Reaction::AnswerAndClose { "close" } else { "keep-alive" };
                let answer = format!("HTTP/1.1 200 OK\r\nconnection: {close}\r\ncontent-length: 2\r\n\r\nok");
                match plan(connection, number) {
                    Reaction::Vanish => return,
                    Reaction::Reset => return reset(stream),
                    Reaction::Answer | Reaction::AnswerAndClose => {
                        stream.write_all(answer.as_bytes()).await.unwrap()
                    }
                    Reaction::CloseAfterAnswer => return stream.write_all(answer.as_bytes()).await.unwrap(),
                }
            }
        }
    })
    .await;
    (address, log)
}

fn with_body(method: Method) -> Request<Body> {
    let mut request = request(method, "/");
    *request.body_mut() = Body::from("abc");
    request
}

#[test]
fn one_connection_serves_requests_in_turn() {
    worker(async {
        let (address, log) = planned(|_, _| Reaction::Answer).await;
        let forwarder = forwarder(address);
        for _ in 0..5 {
            assert_eq!(text(get(&forwarder, "/").await.unwrap()).await, "ok");
            assert_eq!(text(send(&forwarder, with_body(Method::POST)).await.unwrap()).await, "ok");
        }
        assert_eq!((log.connections.get(), log.requests.borrow().len()), (1, 10));
    });
}

#[test]
fn concurrent_requests_have_connections_of_their_own_and_few_of_them_stay() {
    worker(async {
        let (address, log) = planned(|_, _| Reaction::Answer).await;
        let forwarder = forwarder(address);
        let all = futures_util::future::join_all((0..200).map(|_| get(&forwarder, "/"))).await;
        for answer in all {
            assert_eq!(text(answer.unwrap()).await, "ok");
        }
        assert_eq!(log.connections.get(), 200);
        assert_eq!(forwarder.pool.len(), 128);
    });
}

#[test]
fn a_connection_that_was_said_to_close_is_not_kept() {
    worker(async {
        let (address, log) = planned(|_, _| Reaction::AnswerAndClose).await;
        let forwarder = forwarder(address);
        for _ in 0..2 {
            assert_eq!(text(get(&forwarder, "/").await.unwrap()).await, "ok");
            assert_eq!(forwarder.pool.len(), 0);
        }
        assert_eq!(log.connections.get(), 2);
    });
}

/// The application closed while the connection waited: seen before the next request is written, so that
/// even a POST is safe.
#[test]
fn a_waiting_connection_that_was_closed_is_not_used() {
    for method in [Method::GET, Method::POST] {
        worker(async {
            let (address, log) = planned(|_, _| Reaction::CloseAfterAnswer).await;
            let forwarder = forwarder(address);
            for _ in 0..50 {
                let answer = send(&forwarder, with_body(method.clone())).await.unwrap();
                assert_eq!(text(answer).await, "ok");
                // Lets the close arrive; what is under test is that it is then noticed.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            assert_eq!((log.connections.get(), log.requests.borrow().len()), (50, 50), "{method}");
        });
    }
}

/// The same where the runtime has not yet heard of it: before a request that can't be repeated, it is asked.
#[test]
fn news_of_a_close_are_heard_before_a_post() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let ((close, closing), (closed, closes)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        while let Ok((mut stream, _)) = listener.accept() {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
            let Ok(()) = closing.recv() else { return };
            drop(stream);
            closed.send(()).unwrap();
        }
    });
    worker(async {
        let forwarder = forwarder(address);
        for _ in 0..20 {
            let answer = send(&forwarder, request(Method::POST, "/")).await.unwrap();
            assert_eq!(text(answer).await, "ok");
            assert_eq!(forwarder.pool.len(), 1);
            // Blocks the runtime until the close has happened.
            close.send(()).unwrap();
            closes.recv_timeout(PATIENCE).unwrap();
        }
    });
}

/// The application reads the second request of a connection and closes without an answer.
#[test]
fn rel_10_only_idempotent_requests_without_a_body_are_sent_again_and_once() {
    let rows = [
        (request(Method::GET, "/"), true),
        (request(Method::HEAD, "/"), true),
        (request(Method::OPTIONS, "/"), true),
        (request(Method::DELETE, "/"), true),
        (request(Method::PUT, "/"), true),
        (request(Method::POST, "/"), false),
        (request(Method::PATCH, "/"), false),
        (request(Method::from_bytes(b"PURGE").unwrap(), "/"), false),
        (with_body(Method::POST), false),
        (with_body(Method::PUT), false),
        (with_body(Method::GET), false),
    ];
    for (second, again) in rows {
        for dying in [Reaction::Vanish, Reaction::Reset] {
            let case = format!("{} {:?}", second.method(), second.body());
            let mut copy = request(second.method().clone(), "/");
            if !matches!(second.body(), Body::Empty) {
                *copy.body_mut() = Body::from("abc");
            }
            worker(async {
                let (address, log) = planned(move |connection, number| match (connection, number) {
                    (0, 1) => dying,
                    _ => Reaction::Answer,
                })
                .await;
                let forwarder = forwarder(address);
                text(get(&forwarder, "/").await.unwrap()).await;
                match send(&forwarder, copy).await {
                    Ok(answer) => {
                        assert!(again, "{case}");
                        assert_eq!(answer.status().as_u16(), 200);
                    }
                    Err(error) => {
                        assert!(!again && matches!(error, Error::Died(_)), "{case}: {error:?}");
                        assert_eq!(error.status().as_u16(), 502);
                    }
                }
                let requests = log.requests.borrow().len();
                assert_eq!(requests, if again { 3 } else { 2 }, "{case}");
            });
        }
    }
}

#[test]
fn rel_10_the_second_death_is_final() {
    worker(async {
        let (address, log) =
            planned(
                |connection, number| {
                    if (connection, number) == (0, 0) { Reaction::Answer } else { Reaction::Vanish }
                },
            )
            .await;
        let forwarder = forwarder(address);
        text(get(&forwarder, "/").await.unwrap()).await;
        assert!(matches!(get(&forwarder, "/").await, Err(Error::Died(_))));
        assert_eq!(log.requests.borrow().len(), 3);
        // Nor is a new connection's first request sent again.
        assert!(matches!(get(&forwarder, "/").await, Err(Error::Died(_))));
        assert_eq!(log.requests.borrow().len(), 4);
    });
}

#[test]
fn rel_10_a_timeout_or_garbage_is_no_reason_to_send_again() {
    worker(async {
        for second in ["", "garbage\r\n\r\n"] {
            let requests = Rc::new(Cell::new(0));
            let count = requests.clone();
            let address = application(move |_, mut stream| {
                let count = count.clone();
                async move {
                    while read_head(&mut stream).await.is_some() {
                        count.set(count.get() + 1);
                        let first = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                        let answer = if count.get() == 1 { first } else { second };
                        let _ = stream.write_all(answer.as_bytes()).await;
                    }
                }
            })
            .await;
            let forwarder = forwarder_with(&hasty(tcp(address)));
            text(get(&forwarder, "/").await.unwrap()).await;
            assert!(matches!(get(&forwarder, "/").await, Err(Error::ResponseTimeout | Error::NotHttp(_))));
            assert_eq!(requests.get(), 2);
        }
    });
}

/// Waiting connections are closed at random moments under load.
#[test]
fn rel_10_no_get_fails_and_no_post_is_repeated() {
    worker(async {
        let (address, log) = planned(|connection, number| {
            let dice = (connection * 31 + number * 17) % 7;
            if dice == 0 && number > 0 {
                Reaction::Vanish
            } else if dice == 1 {
                Reaction::CloseAfterAnswer
            } else {
                Reaction::Answer
            }
        })
        .await;
        let forwarder = forwarder(address);
        let (mut posts, mut failed) = (0, 0);
        for round in 0..2000 {
            if round % 10 == 0 {
                posts += 1;
                match send(&forwarder, with_body(Method::POST)).await {
                    Ok(answer) => assert_eq!(text(answer).await, "ok"),
                    Err(error) => {
                        assert!(matches!(error, Error::Died(_)), "{error:?}");
                        failed += 1;
                    }
                }
            }
            let answer = get(&forwarder, "/").await.unwrap_or_else(|error| panic!("{round}: {error}"));
            assert_eq!(text(answer).await, "ok", "{round}");
        }
        let seen = log.requests.borrow().iter().filter(|(_, line)| line.starts_with("POST")).count();
        assert!(seen <= posts, "{seen} of {posts}");
        assert!(failed < posts, "every POST failed");
    });
}

#[test]
fn a_second_answer_that_nobody_asked_for_is_not_the_next_ones() {
    worker(async {
        let (address, heads) = canned(
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        )
        .await;
        let forwarder = forwarder(address);
        for _ in 0..3 {
            assert_eq!(text(get(&forwarder, "/").await.unwrap()).await, "ok");
            assert_eq!(forwarder.pool.len(), 0);
        }
        assert_eq!(heads.borrow().len(), 3);
    });
}

#[test]
fn http_1_0_answers_are_passed_on_and_their_connections_are_not_kept() {
    worker(async {
        let (address, _) =
            canned("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok").await;
        let forwarder = forwarder(address);
        let answer = get(&forwarder, "/").await.unwrap();
        assert_eq!(answer.version(), Version::HTTP_11);
        assert_eq!(text(answer).await, "ok");
        assert_eq!(forwarder.pool.len(), 0);
    });
}

#[test]
fn an_answer_that_is_not_read_to_its_end_costs_its_connection() {
    worker(async {
        let (address, _) = canned("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc").await;
        let forwarder = forwarder(address);
        drop(get(&forwarder, "/").await.unwrap());
        assert_eq!(forwarder.pool.len(), 0);
    });
}

#[test]
fn an_answer_before_the_end_of_the_request_costs_its_connection() {
    worker(async {
        let address = application(|_, mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            // Neither reads on nor closes.
            std::future::pending().await
        })
        .await;
        let forwarder = forwarder(address);
        let mut upload = request(Method::POST, "/");
        *upload.body_mut() = Body::from("x".repeat(32 * 1024 * 1024));
        assert_eq!(send(&forwarder, upload).await.unwrap().status().as_u16(), 200);
        assert_eq!(forwarder.pool.len(), 0);
    });
}

#[test]
fn waiting_ends_with_the_idle_timeout_or_what_the_application_says() {
    let rows = [
        ("", PATIENCE, Duration::from_secs(9), true),
        ("", PATIENCE, Duration::from_secs(11), false),
        ("keep-alive: timeout=5, max=100\r\n", PATIENCE, Duration::from_secs(3), true),
        ("keep-alive: timeout=5\r\n", PATIENCE, Duration::from_millis(4500), false),
        ("keep-alive: timeout=500\r\n", PATIENCE, Duration::from_secs(11), false),
        ("keep-alive: nonsense\r\n", PATIENCE, Duration::from_secs(9), true),
    ];
    for (field, idle_timeout, pause, kept) in rows {
        worker(async {
            let answer = format!("HTTP/1.1 200 OK\r\n{field}content-length: 2\r\n\r\nok");
            let (address, _) = canned(answer.leak()).await;
            let forwarder = forwarder_with(&Config { idle_timeout, ..config(tcp(address)) });
            text(get(&forwarder, "/").await.unwrap()).await;
            assert_eq!(forwarder.pool.len(), 1);
            let later = Instant::now() + pause;
            assert_eq!(forwarder.pool.take(later).is_some(), kept, "{field} {pause:?}");
        });
    }
}

#[test]
fn connections_that_nobody_uses_are_closed() {
    worker(async {
        let ended = Rc::new(tokio::sync::Notify::new());
        let notify = ended.clone();
        let address = application(move |_, mut stream| {
            let notify = notify.clone();
            async move {
                read_head(&mut stream).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                assert_eq!(read_rest(&mut stream).await, b"");
                notify.notify_one();
            }
        })
        .await;
        let forwarder = forwarder_with(&Config { idle_timeout: SHORT, ..config(tcp(address)) });
        text(get(&forwarder, "/").await.unwrap()).await;
        assert_eq!(forwarder.pool.len(), 1);
        tokio::time::timeout(PATIENCE, ended.notified()).await.expect("it is kept for ever");
        assert_eq!(forwarder.pool.len(), 0);
    });
}
