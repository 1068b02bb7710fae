//! Applications that break off, break rules, fall silent, or speak something else.

use super::*;

#[test]
fn half_an_answer_never_looks_whole() {
    worker(async {
        for (reason, expected) in [
            (Some(Reason::INTERNAL_ERROR), Reason::INTERNAL_ERROR),
            (Some(Reason::CANCEL), Reason::CANCEL),
            (Some(Reason::NO_ERROR), Reason::INTERNAL_ERROR),
            (Some(Reason::REFUSED_STREAM), Reason::INTERNAL_ERROR),
            (None, Reason::INTERNAL_ERROR),
        ] {
            let address = application(move |_, stream| async move {
                let Ok(mut server) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((_, mut reply))) = server.accept().await {
                    let mut answer = reply.send_response(response(&[]), false).unwrap();
                    answer.send_data(Bytes::from_static(b"half"), false).unwrap();
                    // What was written before has to be on its way.
                    for _ in 0..20 {
                        let _ = tokio::time::timeout(Duration::from_millis(2), server.accept()).await;
                    }
                    match reason {
                        Some(reason) => answer.send_reset(reason),
                        None => return,
                    }
                }
            })
            .await;
            let front = front(Protocol::Http2, http2_forwarder(address)).await;
            let mut call = ClientCall::begin(&front, &[]).await;
            call.send("", true);
            let mut body = call.response().await.into_body();
            assert_eq!(next(&mut body).await.unwrap().unwrap(), "half");
            let error = next(&mut body).await.expect("no end").unwrap_err();
            assert_eq!(error.reason(), Some(expected), "{reason:?}");
            assert_eq!(front.tally.end().await, End::Cut);

            let front = super::super::front(Protocol::Http1, http2_forwarder(address)).await;
            let (_, body) = front.raw("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            assert!(!body.ends_with(b"0\r\n\r\n"), "{reason:?} {}", String::from_utf8_lossy(&body));
        }
    });
}

#[test]
fn a_reset_in_place_of_an_answer_is_an_error() {
    worker(async {
        let address = calls(|mut call| async move { call.reply.send_reset(Reason::INTERNAL_ERROR) }).await;
        let forwarder = http2_forwarder(address);
        for method in [Method::GET, Method::POST] {
            let error = send(&forwarder, request(method, "/")).await.unwrap_err();
            assert!(matches!(error, Error::Reset(_)), "{error:?}");
            assert_eq!(error.status().as_u16(), 502);
        }
        assert_eq!(forwarder.links.as_ref().unwrap().len(), 1, "the connection is as good as before");
    });
}

#[test]
fn a_head_that_is_too_large_is_an_error() {
    worker(async {
        let address = calls(|mut call| async move {
            let mut answer = response(&[]);
            let fields = call.head.uri.path()[1..].parse::<usize>().unwrap();
            for index in 0..fields {
                let name = HeaderName::try_from(format!("x-{index}")).unwrap();
                answer.headers_mut().insert(name, "y".repeat(100).parse().unwrap());
            }
            let _ = call.reply.send_response(answer, true);
        })
        .await;
        let forwarder = http2_forwarder(address);
        assert_eq!(get(&forwarder, "/256").await.unwrap().headers().len(), 256);
        let error = get(&forwarder, "/4000").await.unwrap_err();
        assert_eq!(error.status().as_u16(), 502, "{error:?}");
    });
}

#[test]
fn an_application_that_takes_too_long_is_given_up() {
    worker(async {
        let address = calls(|mut call| async move {
            call.reset().await;
        })
        .await;
        let error = get(&hasty_http2(address), "/").await.unwrap_err();
        assert!(matches!(error, Error::ResponseTimeout), "{error:?}");
        assert_eq!(error.status().as_u16(), 504);
    });
}

/// A SETTINGS frame, and its acknowledgement.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

#[test]
fn a_peer_that_answers_nothing_is_found_out() {
    worker(async {
        let address = application(|_, mut stream| async move {
            stream.write_all(&SETTINGS).await.unwrap();
            read_rest(&mut stream).await;
        })
        .await;
        let forwarder = hasty_http2(address);
        let mut call = request(Method::POST, "/");
        call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let error = soon(send(&forwarder, call)).await.unwrap_err();
        assert!(matches!(error, Error::Unresponsive), "{error:?}");
        assert_eq!(error.status().as_u16(), 504);
        assert_eq!(forwarder.links.as_ref().unwrap().len(), 0);
    });
}

/// One that is only silent is asked, answers, and is not asked again soon.
#[test]
fn a_peer_that_is_only_silent_is_left_alone() {
    worker(async {
        let pings = Rc::new(Cell::new(0));
        let seen = pings.clone();
        let address = application(move |_, mut stream| {
            let seen = seen.clone();
            async move {
                stream.write_all(&SETTINGS).await.unwrap();
                let mut preface = [0; 24];
                stream.read_exact(&mut preface).await.unwrap();
                loop {
                    let mut header = [0; 9];
                    if stream.read_exact(&mut header).await.is_err() {
                        return;
                    }
                    let length = usize::from(header[1]) << 8 | usize::from(header[2]);
                    let mut payload = vec![0; length];
                    stream.read_exact(&mut payload).await.unwrap();
                    if header[3] == 6 {
                        seen.set(seen.get() + 1);
                        header[4] = 1;
                        stream.write_all(&header).await.unwrap();
                        stream.write_all(&payload).await.unwrap();
                    }
                }
            }
        })
        .await;
        let forwarder = hasty_http2(address);
        let mut call = request(Method::POST, "/");
        call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        assert!(tokio::time::timeout(8 * SHORT, send(&forwarder, call)).await.is_err());
        assert_eq!(pings.get(), 1);
    });
}

#[test]
fn an_application_that_speaks_something_else_is_named() {
    worker(async {
        let (http1, requests) =
            canned("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        let closing = application(|_, stream| async move { drop(stream) }).await;
        let silent = application(|_, mut stream| async move { drop(read_rest(&mut stream).await) }).await;
        for (address, how) in [
            (http1, "something else"),
            (closing, "closed"),
            (silent, "said nothing within limits.connectTimeout"),
        ] {
            let config = Config { connect_timeout: SHORT, ..over_http2(address) };
            let connector = Connector::new(&config.upstream, config.version).unwrap();
            for error in [
                get(&forwarder_with(&config), "/").await.unwrap_err(),
                connector.probe(SHORT).await.unwrap_err(),
            ] {
                let text = error.to_string();
                assert!(matches!(error, Error::NotHttp2 { .. }), "{error:?}");
                assert_eq!((error.status().as_u16(), error.blame()), (502, Blame::Upstream));
                assert!(text.contains(how) && text.contains("h2c://127.0.0.1:"), "{text}");
                assert!(text.contains("write upstream with http://"), "{text}");
            }
        }
        assert_eq!(requests.borrow()[..2], ["PRI * HTTP/2.0\r\n\r\n", "SM\r\n\r\n"]);
        // And the other way round.
        let address = calls(|_| async {}).await;
        let error = get(&forwarder(address), "/").await.unwrap_err();
        assert!(error.to_string().contains("h2c://"), "{error}");
    });
}

#[test]
fn a_probe_of_http2_succeeds() {
    worker(async {
        let address = calls(|_| async {}).await;
        Connector::new(&tcp(address), HttpVersion::Http2).unwrap().probe(PATIENCE).await.unwrap();
    });
}
