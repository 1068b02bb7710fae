//! Ends of streams that come late, not at all, or with too much.

use tokio::sync::Notify;

use super::streams::GRPC;
use super::*;

/// Who writes HTTP/1 has an answer with its last announced byte, and one without a body with its head; servers like
/// Node's send the end of the stream after that. It is no answer that was given up, and its stream is not reset.
#[test]
fn the_end_of_a_stream_may_come_after_the_end_of_its_answer() {
    worker(async {
        let (told, mut resets) = tokio::sync::mpsc::unbounded_channel();
        let next_call = Rc::new(Notify::new());
        let address = calls(move |mut call| {
            let (told, next_call) = (told.clone(), next_call.clone());
            async move {
                let target = call.head.uri.path().to_owned();
                if target == "/next" {
                    next_call.notify_one();
                    return call.finish("next");
                }
                let (status, length) = match target.as_str() {
                    "/204" => (204, None),
                    "/304" => (304, Some("5")),
                    "/empty" => (200, Some("0")),
                    _ => (200, Some("5")),
                };
                let mut head = response(&[]);
                *head.status_mut() = status.try_into().unwrap();
                head.headers_mut()
                    .extend(length.map(|length| (http::header::CONTENT_LENGTH, length.parse().unwrap())));
                let mut answer = call.reply.send_response(head, false).unwrap();
                if target == "/five" && call.head.method != Method::HEAD {
                    answer.send_data(Bytes::from_static(b"bytes"), false).unwrap();
                }
                // On the same connection, and so after a reset of this one.
                soon(next_call.notified()).await;
                let reset = std::future::poll_fn(|cx| std::task::Poll::Ready(answer.poll_reset(cx))).await;
                let late = answer.send_data(Bytes::new(), true);
                told.send((target, reset.is_ready(), late.is_err())).unwrap();
            }
        })
        .await;
        let forwarder = http2_forwarder(address);
        for (method, target) in
            [("GET", "/five"), ("HEAD", "/five"), ("GET", "/204"), ("GET", "/304"), ("GET", "/empty")]
        {
            let front = front(Protocol::Http1, forwarder.clone()).await;
            let mut client = front.connect().await;
            let request = format!("{method} {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            soon(client.read_to_string(&mut answer)).await.unwrap();
            assert_eq!(answer.ends_with("\r\n\r\nbytes"), method == "GET" && target == "/five", "{answer}");
            assert_eq!(front.tally.end().await, End::Complete, "{method} {target}");
            assert_eq!(text(get(&forwarder, "/next").await.unwrap()).await, "next");
            let (of, was_reset, was_late) = soon(resets.recv()).await.unwrap();
            assert_eq!((of.as_str(), was_reset, was_late), (target, false, false), "{method}");
        }
        let links = forwarder.links.as_ref().unwrap();
        let freed = async {
            while links.calls() > 0 {
                tokio::task::yield_now().await;
            }
        };
        soon(freed).await;
        assert_eq!(links.len(), 1, "one connection for all");
    });
}

/// An application that never ends its streams keeps only so many of them, and not for long.
#[test]
fn ends_are_not_awaited_for_ever() {
    worker(async {
        let resets = Rc::new(Cell::new(0));
        let count = resets.clone();
        let address = calls(move |mut call| {
            let count = count.clone();
            async move {
                let mut answer = call.answer(&[("content-length", "5")]);
                answer.send_data(Bytes::from_static(b"bytes"), false).unwrap();
                let _ = std::future::poll_fn(|cx| answer.poll_reset(cx)).await;
                count.set(count.get() + 1);
            }
        })
        .await;
        let forwarder = http2_forwarder(address);
        let links = forwarder.links.as_ref().unwrap();
        let front = front(Protocol::Http1, forwarder.clone()).await;
        for _ in 0..40 {
            let mut client = front.connect().await;
            client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            soon(client.read_to_string(&mut answer)).await.unwrap();
            assert!(answer.ends_with("bytes"), "{answer}");
        }
        let bounded = async {
            while resets.get() < 8 {
                tokio::task::yield_now().await;
            }
        };
        soon(bounded).await;
        assert_eq!((links.calls(), links.len()), (32, 1));
    });
}

/// h2 leaves out what would be more than it takes, and says so for heads only.
#[test]
fn trailers_that_are_too_large_are_no_proper_end() {
    const FIELD: usize = 1024;
    let many = |count: usize| -> HeaderMap {
        let names = (0..count).map(|number| format!("x-trailer-{number}").parse::<HeaderName>().unwrap());
        let value: HeaderValue = "v".repeat(FIELD).parse().unwrap();
        names.map(|name| (name, value.clone())).collect()
    };
    worker(async {
        let said = Rc::new(RefCell::new(Vec::new()));
        let say = said.clone();
        let address = calls(move |mut call| {
            let say = say.clone();
            async move {
                let count: usize = call.head.uri.path()[1..].parse().unwrap();
                while let Some(Ok(_)) = call.read().await {}
                let whole = call.body.trailers().await.is_ok_and(|trailers| trailers.is_some());
                say.borrow_mut().push(whole);
                let mut answer = call.answer(&[GRPC]);
                answer.send_data(Bytes::from_static(b"data"), false).unwrap();
                answer.send_trailers(many(count)).unwrap();
            }
        })
        .await;
        for (count, passes) in [(50, true), (70, false), (150, false)] {
            let forwarder = http2_forwarder(address);
            let answer = get(&forwarder, &format!("/{count}")).await.unwrap();
            let body = soon(answer.into_body().collect()).await;
            let came = body.ok().and_then(|body| body.trailers().map(HeaderMap::len));
            assert_eq!(came, passes.then_some(count));
            // And those of a request.
            let front = front(Protocol::Http2, forwarder).await;
            let mut call = ClientCall::begin_at(&front, "/1", &[GRPC]).await;
            call.send("data", false);
            call.upload.send_trailers(many(count)).unwrap();
            let status = soon(&mut call.answer).await.map(|answer| answer.status().as_u16());
            assert_eq!(status.ok(), Some(if passes { 200 } else { 431 }), "{count}");
            assert_eq!(said.borrow().last(), Some(&passes), "{count}");
        }
    });
}
