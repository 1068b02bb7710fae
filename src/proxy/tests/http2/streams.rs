//! Bodies that flow both ways at once, stop, and are given up.

use tokio::sync::Notify;

use super::*;

pub(super) const GRPC: (&str, &str) = ("content-type", "application/grpc+proto");

/// Says back what it hears, piece by piece; the head of its answer comes first or with the first piece.
async fn echo(head_first: bool) -> SocketAddr {
    calls(move |mut call| async move {
        let mut answer = head_first.then(|| call.answer(&[GRPC]));
        while let Some(data) = call.read().await {
            let data = data.unwrap();
            let answer =
                answer.get_or_insert_with(|| call.reply.send_response(response(&[GRPC]), false).unwrap());
            answer.send_data(data, false).unwrap();
        }
        answer.unwrap().send_trailers(fields(&[("grpc-status", "0")])).unwrap();
    })
    .await
}

#[test]
fn both_directions_take_turns() {
    worker(async {
        for head_first in [true, false] {
            let front = front(Protocol::Http2, http2_forwarder(echo(head_first).await)).await;
            let mut call = ClientCall::begin(&front, &[GRPC]).await;
            let mut body = None;
            if head_first {
                body = Some(call.response().await.into_body());
            }
            for _ in 0..20 {
                call.send("ping", false);
                if body.is_none() {
                    body = Some(call.response().await.into_body());
                }
                assert_eq!(next(body.as_mut().unwrap()).await.unwrap().unwrap(), "ping");
            }
            call.send("", true);
            let mut body = body.unwrap();
            assert!(next(&mut body).await.is_none());
            assert_eq!(soon(body.trailers()).await.unwrap().unwrap()["grpc-status"], "0");
            assert_eq!(front.tally.end().await, End::Complete);
            assert_eq!((front.tally.received.get(), front.tally.sent.get()), (80, 80));
        }
    });
}

/// Many streams of much data at once on one connection, each way as fast as it goes.
#[test]
fn much_goes_both_ways_at_once() {
    worker(async {
        let front = front(Protocol::Http2, http2_forwarder(echo(false).await)).await;
        let one = async || {
            let mut call = ClientCall::begin(&front, &[]).await;
            let mut upload = call.upload;
            tokio::task::spawn_local(async move {
                for _ in 0..64 {
                    let mut left = Bytes::from(vec![b'x'; 16 * 1024]);
                    while !left.is_empty() {
                        upload.reserve_capacity(left.len());
                        let room =
                            std::future::poll_fn(|cx| upload.poll_capacity(cx)).await.unwrap().unwrap();
                        upload.send_data(left.split_to(room.min(left.len())), false).unwrap();
                    }
                }
                upload.send_data(Bytes::new(), true).unwrap();
            });
            let mut body = soon(&mut call.answer).await.unwrap().into_body();
            let mut total = 0;
            while let Some(data) = next(&mut body).await {
                total += data.unwrap().len();
            }
            assert_eq!(total, 1 << 20);
        };
        futures_util::future::join_all((0..10).map(|_| one())).await;
    });
}

/// Small messages cost more memory than bytes, so h2 bounds them for a whole connection. A few clients that read
/// slowly must not reach that bound for all.
#[test]
fn small_messages_that_nobody_reads_end_no_connection() {
    worker(async {
        let address = calls(|mut call| async move {
            if call.head.uri.path() == "/small" {
                return call.finish("small");
            }
            let mut answer = call.answer(&[GRPC]);
            let mut sent = 0;
            while sent < 128 * 1024 {
                sent += 8;
                answer.send_data(Bytes::from_static(b"8 bytes."), sent == 128 * 1024).unwrap();
            }
            let _ = std::future::poll_fn(|cx| answer.poll_reset(cx)).await;
        })
        .await;
        let forwarder = http2_forwarder(address);
        let mut stalled = Vec::new();
        for _ in 0..4 {
            stalled.push(get(&forwarder, "/").await.unwrap());
        }
        for _ in 0..20 {
            assert_eq!(text(get(&forwarder, "/small").await.unwrap()).await, "small");
        }
        for answer in stalled {
            assert_eq!(text(answer).await.len(), 128 * 1024);
        }
    });
}

/// A client that does not read holds its own stream up, and nothing else; and not much is kept for it.
#[test]
fn a_client_that_does_not_read_is_not_read_for() {
    worker(async {
        let sent = Rc::new(Cell::new(0));
        let count = sent.clone();
        let address = calls(move |mut call| {
            let count = count.clone();
            async move {
                if call.head.uri.path() == "/small" {
                    return call.finish("small");
                }
                let mut answer = call.answer(&[]);
                loop {
                    answer.reserve_capacity(16 * 1024);
                    let Some(Ok(room)) = std::future::poll_fn(|cx| answer.poll_capacity(cx)).await else {
                        return;
                    };
                    if room > 0 {
                        count.set(count.get() + room);
                        answer.send_data(Bytes::from(vec![b'x'; room]), false).unwrap();
                    }
                }
            }
        })
        .await;
        let forwarder = http2_forwarder(address);
        let mut stalled = Vec::new();
        for _ in 0..100 {
            stalled.push(get(&forwarder, "/").await.unwrap());
        }
        for _ in 0..50 {
            assert_eq!(text(get(&forwarder, "/small").await.unwrap()).await, "small");
        }
        assert!(sent.get() <= 100 * 128 * 1024, "{}", sent.get());
        assert_eq!(forwarder.links.as_ref().unwrap().len(), 1);
    });
}

#[test]
fn an_application_that_does_not_read_stops_the_client() {
    worker(async {
        let address = calls(|mut call| async move {
            let _answer = call.answer(&[GRPC]);
            std::future::pending::<()>().await;
        })
        .await;
        let front = front(Protocol::Http2, http2_forwarder(address)).await;
        let mut call = ClientCall::begin(&front, &[GRPC]).await;
        let _response = call.response().await;
        let mut sent = 0;
        loop {
            call.upload.reserve_capacity(16 * 1024);
            let room = std::future::poll_fn(|cx| call.upload.poll_capacity(cx));
            let Ok(Some(Ok(room))) = tokio::time::timeout(SHORT, room).await else { break };
            sent += room;
            call.upload.send_data(Bytes::from(vec![b'x'; room]), false).unwrap();
            assert!(sent < 8 << 20, "{sent}");
        }
    });
}

#[test]
fn a_client_that_goes_away_takes_its_call_along() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum When {
        Waiting,
        Uploading,
        Downloading,
        Blocked,
    }
    worker(async {
        for when in [When::Waiting, When::Uploading, When::Downloading, When::Blocked] {
            for polite in [true, false] {
                let (began, ended) = (Rc::new(Notify::new()), Rc::new(RefCell::new(None)));
                let (begin, end) = (began.clone(), ended.clone());
                let address = calls(move |mut call| {
                    let (begin, end) = (begin.clone(), end.clone());
                    async move {
                        let mut answer = None;
                        if matches!(when, When::Downloading | When::Blocked) {
                            answer = Some(call.answer(&[GRPC]));
                        }
                        begin.notify_one();
                        let reason = match &mut answer {
                            Some(answer) => {
                                soon(std::future::poll_fn(|cx| answer.poll_reset(cx))).await.unwrap()
                            }
                            None => call.reset().await,
                        };
                        *end.borrow_mut() = Some(reason);
                        begin.notify_one();
                    }
                })
                .await;
                let front = front(Protocol::Http2, http2_forwarder(address)).await;
                let mut call = ClientCall::begin(&front, &[GRPC]).await;
                call.send("first", when == When::Waiting);
                if when == When::Blocked {
                    call.upload.send_data(Bytes::from(vec![b'x'; 256 * 1024]), false).unwrap();
                }
                let response = match when {
                    When::Waiting | When::Uploading => None,
                    When::Downloading | When::Blocked => Some(call.response().await),
                };
                soon(began.notified()).await;
                if polite {
                    call.upload.send_reset(Reason::CANCEL);
                }
                drop((call, response));
                soon(began.notified()).await;
                assert_eq!(*ended.borrow(), Some(Reason::CANCEL), "{when:?} {polite}");
                if when != When::Waiting && when != When::Uploading {
                    assert_eq!(front.tally.end().await, End::Abandoned);
                }
            }
        }
    });
}

/// Half an upload must not look like a whole one.
#[test]
fn a_client_that_breaks_off_does_not_complete_its_request() {
    worker(async {
        let ends = Rc::new(RefCell::new(Vec::new()));
        let (seen, began) = (ends.clone(), Rc::new(Notify::new()));
        let begin = began.clone();
        let address = calls(move |mut call| {
            let (seen, begin) = (seen.clone(), begin.clone());
            async move {
                assert_eq!(call.read().await.unwrap().unwrap(), "half");
                begin.notify_one();
                let end = call.read().await;
                seen.borrow_mut().push(end.is_some_and(|end| end.is_err()));
                begin.notify_one();
            }
        })
        .await;
        for http2 in [true, false] {
            let protocol = if http2 { Protocol::Http2 } else { Protocol::Http1 };
            let front = front(protocol, http2_forwarder(address)).await;
            if http2 {
                let mut call = ClientCall::begin(&front, &[]).await;
                call.send("half", false);
                soon(began.notified()).await;
                call.upload.send_reset(Reason::CANCEL);
                soon(began.notified()).await;
            } else {
                let mut client = front.connect().await;
                let half = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n";
                client.write_all(half.as_bytes()).await.unwrap();
                soon(began.notified()).await;
                drop(client);
                soon(began.notified()).await;
            }
        }
        assert_eq!(*ends.borrow(), [true, true]);
    });
}

/// An answer that is over ends the rest of its request.
#[test]
fn an_early_answer_ends_the_upload() {
    worker(async {
        let end = Rc::new(Notify::new());
        let notify = end.clone();
        let address = calls(move |mut call| {
            let notify = notify.clone();
            async move {
                call.finish("enough");
                while let Some(Ok(_)) = call.read().await {}
                notify.notify_one();
            }
        })
        .await;
        let front = front(Protocol::Http2, http2_forwarder(address)).await;
        let mut call = ClientCall::begin(&front, &[]).await;
        call.send("first", false);
        let mut body = call.response().await.into_body();
        assert_eq!(next(&mut body).await.unwrap().unwrap(), "enough");
        assert!(next(&mut body).await.is_none(), "a proper end");
        soon(end.notified()).await;
    });
}

#[test]
fn silence_ends_a_body_but_not_a_call_of_grpc() {
    worker(async {
        for (kind, survives) in [("text/plain", false), (GRPC.1, true)] {
            let go = Rc::new(Notify::new());
            let next_go = go.clone();
            let address = calls(move |mut call| {
                let go = next_go.clone();
                async move {
                    go.notified().await;
                    let mut answer = call.answer(&[("content-type", kind)]);
                    answer.send_data(Bytes::from_static(b"one"), false).unwrap();
                    go.notified().await;
                    answer.send_data(Bytes::from_static(b"two"), true).unwrap();
                }
            })
            .await;
            let front = front(Protocol::Http2, hasty_http2(address)).await;
            let mut call = ClientCall::begin(&front, &[("content-type", kind)]).await;
            tokio::time::sleep(3 * SHORT).await;
            if !survives {
                // The client stalls, and the application is not to blame.
                assert_eq!(call.response().await.status().as_u16(), 408);
                continue;
            }
            call.send("message", false);
            tokio::time::sleep(3 * SHORT).await;
            go.notify_one();
            let mut body = call.response().await.into_body();
            assert_eq!(next(&mut body).await.unwrap().unwrap(), "one");
            tokio::time::sleep(3 * SHORT).await;
            go.notify_one();
            assert_eq!(next(&mut body).await.unwrap().unwrap(), "two");
        }
    });
}

#[test]
fn a_call_ends_with_its_session() {
    worker(async {
        let address = calls(|mut call| async move {
            let mut answer = None;
            if call.head.uri.path() == "/" {
                answer = Some(call.answer(&[GRPC]));
            }
            call.reset().await;
            drop(answer);
        })
        .await;
        let forwarder = http2_forwarder(address);
        let terms = || Terms { ends_at: Some(Instant::now() + SHORT), ..terms() };
        for target in ["/", "/no-head"] {
            let path = NormalPath::parse(target, &path::Options::default()).unwrap();
            let mut request = request(Method::POST, target);
            request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            match soon(forwarder.send(&mut request, &path, terms())).await {
                Ok(answer) => assert!(soon(answer.into_body().collect()).await.is_err()),
                Err(error) => assert!(matches!(error, Error::SessionEnded), "{error:?}"),
            }
        }
    });
}

/// DOS-02: answers that nobody takes wait here, each up to its window, which is a narrow one where there are many.
#[test]
fn many_calls_have_narrow_windows_and_few_have_wide_ones() {
    const MANY: usize = 100;
    const NARROW: usize = 8 * 1024;
    worker(async {
        let (told, mut rooms) = tokio::sync::mpsc::unbounded_channel();
        let (again, mut more) = tokio::sync::mpsc::unbounded_channel();
        let address = calls(move |mut call| {
            let (told, again) = (told.clone(), again.clone());
            async move {
                let mut stream = call.answer(&[]);
                stream.reserve_capacity(1 << 20);
                let room = soon(std::future::poll_fn(|cx| stream.poll_capacity(cx))).await;
                let room = room.unwrap().unwrap();
                stream.send_data(vec![b'x'; room].into(), false).unwrap();
                told.send(room).unwrap();
                stream.reserve_capacity(1 << 20);
                if let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
                    again.send(room).unwrap();
                    stream.send_data(vec![b'x'; room].into(), false).unwrap();
                }
                let _ = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
            }
        })
        .await;
        let forwarder = hasty_http2(address);
        let mut answers = Vec::new();
        for number in 0..MANY {
            answers.push(get(&forwarder, "/").await.unwrap());
            let room = soon(rooms.recv()).await.unwrap();
            assert!(number + 1 < MANY || room == NARROW, "{room} bytes of call {number}");
        }
        // What has been taken makes room for more only once more is asked for.
        let mut last = answers.pop().unwrap().into_body();
        assert_eq!(soon(last.frame()).await.unwrap().unwrap().into_data().unwrap().len(), NARROW);
        let early = tokio::time::timeout(SHORT, more.recv()).await;
        assert!(early.is_err(), "room for {early:?} more");
        let (next, room) = tokio::join!(soon(last.frame()), soon(more.recv()));
        next.unwrap().unwrap();
        assert_eq!(room, Some(NARROW));
        drop((answers, last));
        // When the connection is looked at next.
        let widened = async {
            loop {
                let answer = get(&forwarder, "/").await.unwrap();
                if rooms.recv().await.unwrap() > NARROW {
                    return drop(answer);
                }
                tokio::time::sleep(SHORT / 10).await;
            }
        };
        soon(widened).await;
    });
}
