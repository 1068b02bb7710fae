//! Which connection a call goes on, and what becomes of connections.

use tokio::sync::Notify;

use super::*;

fn links(forwarder: &Forwarder) -> usize {
    forwarder.links.as_ref().unwrap().len()
}

/// Answers with the number of the connection once it is let.
async fn numbering(builder: h2::server::Builder, go: Rc<Notify>) -> SocketAddr {
    calls_with(builder, move |mut call| {
        let go = go.clone();
        async move {
            if call.head.uri.path() == "/wait" {
                go.notified().await;
            }
            let number = call.connection.to_string();
            call.answer(&[]).send_data(number.into(), true).unwrap();
        }
    })
    .await
}

async fn answers(
    forwarder: &Rc<Forwarder>,
    count: usize,
    target: &'static str,
) -> Vec<tokio::task::JoinHandle<String>> {
    let all = (0..count)
        .map(|_| {
            let forwarder = forwarder.clone();
            tokio::task::spawn_local(async move { text(get(&forwarder, target).await.unwrap()).await })
        })
        .collect();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    all
}

#[test]
fn calls_share_a_connection() {
    worker(async {
        let go = Rc::new(Notify::new());
        let forwarder = http2_forwarder(numbering(h2::server::Builder::new(), go.clone()).await);
        let waiting = answers(&forwarder, 50, "/wait").await;
        assert_eq!(text(get(&forwarder, "/").await.unwrap()).await, "0");
        assert_eq!(links(&forwarder), 1);
        go.notify_waiters();
        for answer in waiting {
            go.notify_one();
            assert_eq!(soon(answer).await.unwrap(), "0");
        }
    });
}

#[test]
fn a_full_connection_gets_company_up_to_a_bound() {
    worker(async {
        let go = Rc::new(Notify::new());
        let mut builder = h2::server::Builder::new();
        builder.max_concurrent_streams(2);
        let address = numbering(builder, go.clone()).await;
        let config = Config { connect_timeout: SHORT, ..over_http2(address) };
        let forwarder = forwarder_with(&config);
        let waiting = answers(&forwarder, 32, "/wait").await;
        let error = get(&forwarder, "/").await.unwrap_err();
        assert!(matches!(error, Error::Saturated), "{error:?}");
        assert_eq!((error.status().as_u16(), links(&forwarder)), (503, 16));
        // One that ends makes room for one that waits.
        let late = answers(&forwarder, 1, "/").await;
        go.notify_one();
        for answer in late {
            soon(answer).await.unwrap();
        }
        for answer in waiting {
            go.notify_one();
            soon(answer).await.unwrap();
        }
    });
}

#[test]
fn an_application_that_allows_no_call_is_not_asked_again_and_again() {
    worker(async {
        let mut builder = h2::server::Builder::new();
        builder.max_concurrent_streams(0);
        let address = numbering(builder, Rc::default()).await;
        let forwarder = forwarder_with(&Config { connect_timeout: SHORT, ..over_http2(address) });
        for _ in 0..3 {
            let error = get(&forwarder, "/").await.unwrap_err();
            assert!(matches!(error, Error::Saturated), "{error:?}");
        }
        assert_eq!(links(&forwarder), 1);
    });
}

/// An application that says goodbye with every answer.
#[test]
fn a_connection_that_says_goodbye_is_replaced() {
    worker(async {
        let address = application(|connection, stream| async move {
            let Ok(mut server) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((_, mut reply))) = server.accept().await {
                let mut answer = reply.send_response(response(&[]), false).unwrap();
                answer.send_data(connection.to_string().into(), true).unwrap();
                server.graceful_shutdown();
            }
        })
        .await;
        let forwarder = http2_forwarder(address);
        for number in 0..5 {
            let upload = post("/", "x".repeat(1000));
            let answer = send(&forwarder, upload).await.unwrap();
            let connection: usize = text(answer).await.parse().unwrap();
            assert!(connection <= number, "{connection}");
        }
    });
}

#[test]
fn what_was_not_processed_is_sent_again_once_whatever_it_is() {
    worker(async {
        for (refusals, expected) in [(1, Some("again")), (2, None)] {
            for size in [0, 1, 60_000] {
                let count = Rc::new(Cell::new(0));
                let seen = count.clone();
                let address = calls(move |mut call| {
                    let count = seen.clone();
                    async move {
                        count.set(count.get() + 1);
                        if count.get() <= refusals {
                            if call.head.method == Method::POST && size > 0 {
                                call.read().await;
                            }
                            return call.reply.send_reset(Reason::REFUSED_STREAM);
                        }
                        assert_eq!(call.read_all().await.len(), size);
                        call.finish("again");
                    }
                })
                .await;
                let forwarder = http2_forwarder(address);
                match (send(&forwarder, post("/", "x".repeat(size))).await, expected) {
                    (Ok(answer), Some(expected)) => assert_eq!(text(answer).await, expected),
                    (Err(error), None) => {
                        assert!(matches!(error, Error::Reset(_)), "{error:?}");
                        assert_eq!(error.status().as_u16(), 502);
                    }
                    (outcome, _) => panic!("{refusals} {size}: {outcome:?}"),
                }
                assert_eq!(count.get(), 2);
            }
        }
    });
}

/// A goodbye that names an earlier stream says that this one was not looked at (RFC 9113 section 6.8).
#[test]
fn a_call_that_a_goodbye_leaves_out_is_sent_again() {
    worker(async {
        let address = application(|connection, mut stream| async move {
            if connection == 0 {
                let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
                stream.write_all(&settings).await.unwrap();
                // The preface, and the frames up to the one with the request's head.
                stream.read_exact(&mut [0; 24]).await.unwrap();
                loop {
                    let mut header = [0; 9];
                    stream.read_exact(&mut header).await.unwrap();
                    stream.read_exact(&mut vec![0; usize::from(header[2])]).await.unwrap();
                    if header[3] == 1 {
                        break;
                    }
                }
                let goodbye = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                stream.write_all(&goodbye).await.unwrap();
                drop(read_rest(&mut stream).await);
                return;
            }
            let mut server = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut reply))) = server.accept().await {
                let mut body = request.into_body();
                tokio::task::spawn_local(async move {
                    let data = body.data().await.unwrap().unwrap();
                    reply.send_response(response(&[]), false).unwrap().send_data(data, true).unwrap();
                });
            }
        })
        .await;
        let answer = send(&http2_forwarder(address), post("/", "once")).await.unwrap();
        assert_eq!(text(answer).await, "once");
    });
}

/// More than is kept of a body can't be sent again.
#[test]
fn a_long_body_is_not_sent_again() {
    worker(async {
        let count = Rc::new(Cell::new(0));
        let seen = count.clone();
        let address = calls(move |mut call| {
            seen.set(seen.get() + 1);
            async move {
                for _ in 0..10 {
                    call.read().await;
                }
                call.reply.send_reset(Reason::REFUSED_STREAM);
            }
        })
        .await;
        let error = send(&http2_forwarder(address), post("/", "x".repeat(1 << 20))).await.unwrap_err();
        assert!(matches!(error, Error::Reset(_)), "{error:?}");
        assert_eq!(count.get(), 1);
    });
}

#[test]
fn what_may_have_been_processed_is_repeated_only_if_that_is_safe() {
    worker(async {
        for (method, expected) in [(Method::GET, 3), (Method::POST, 2)] {
            let count = Rc::new(Cell::new(0));
            let seen = count.clone();
            let address = application(move |_, stream| {
                let count = seen.clone();
                async move {
                    let Ok(mut server) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((_, mut reply))) = server.accept().await {
                        count.set(count.get() + 1);
                        if count.get() == 2 {
                            // The connection ends under it.
                            return;
                        }
                        reply.send_response(response(&[]), true).map(drop).unwrap();
                    }
                }
            })
            .await;
            let forwarder = http2_forwarder(address);
            get(&forwarder, "/").await.unwrap();
            let second = send(&forwarder, request(method.clone(), "/")).await;
            assert_eq!(second.is_ok(), method == Method::GET, "{second:?}");
            if let Err(error) = second {
                assert!(matches!(error, Error::Lost(_)), "{error:?}");
            }
            assert_eq!(count.get(), expected);
        }
    });
}

#[test]
fn a_connection_that_nobody_uses_is_closed() {
    worker(async {
        let ended = Rc::new(Notify::new());
        let notify = ended.clone();
        let address = application(move |_, stream| {
            let notify = notify.clone();
            async move {
                let Ok(mut server) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((_, mut reply))) = server.accept().await {
                    reply.send_response(response(&[]), true).map(drop).unwrap();
                }
                notify.notify_one();
            }
        })
        .await;
        let forwarder = forwarder_with(&Config { idle_timeout: SHORT, ..over_http2(address) });
        get(&forwarder, "/").await.unwrap();
        assert_eq!(links(&forwarder), 1);
        soon(ended.notified()).await;
        assert_eq!(links(&forwarder), 0);
        get(&forwarder, "/").await.unwrap();
        // So it is when nobody is left who could use it.
        drop(forwarder);
        soon(ended.notified()).await;
    });
}
