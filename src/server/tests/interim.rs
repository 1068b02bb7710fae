//! Informational answers between hyper's own.

use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use http::{Request, StatusCode};
use tokio::io::AsyncWriteExt as _;

use super::support::*;

fn get(target: &str, version: &str) -> String {
    format!("GET {target} HTTP/{version}\r\nHost: a\r\n\r\n")
}

const LAST: &str = "GET /last HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn hints_come_before_the_answer_and_in_order() {
    let server = Server::start(limits()).await;
    // The second request is taken up while the first is being answered.
    let requests = get("/hints?2", "1.1") + &get("/", "1.1") + &get("/hints?3", "1.1") + LAST;
    let answers = exchange(&server, &requests).await;
    assert_eq!(statuses(&answers), [103, 103, 200, 200, 103, 103, 103, 200, 200], "{answers}");
    let first = "HTTP/1.1 103 Early Hints\r\nlink: </0.css>; rel=preload\r\n\r\nHTTP/1.1 103 Early Hints\r\n\
                 link: </1.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n";
    assert!(answers.starts_with(first), "{answers}");
    let mut plain = server.connect_plain().await;
    plain.write_all(requests.as_bytes()).await.unwrap();
    assert_eq!(statuses(&read_all(&mut plain).await), [103, 103, 200, 200, 103, 103, 103, 200, 200]);
}

#[tokio::test]
async fn hints_do_not_wait_for_the_answer() {
    let server = Server::start(limits()).await;
    let mut stream = server.connect(b"http/1.1").await;
    for _ in 0..2 {
        stream.write_all(get("/hints-hold", "1.1").as_bytes()).await.unwrap();
        let hint = read_until(&mut stream, "\r\n\r\n").await;
        assert_eq!(statuses(&hint), [103]);
        server.shared.release.notify_one();
        let answer = read_until(&mut stream, "hinted").await;
        assert_eq!(statuses(&answer), [200]);
    }
}

/// A client that is slow to take one answer gets the hints of the next behind it, or not at all.
#[tokio::test]
async fn hints_never_get_into_another_answer() {
    let server = Server::start(limits()).await;
    let mut stream = server.connect(b"http/1.1").await;
    for target in ["/hints", "/hints-hold"] {
        let requests = get("/large", "1.1") + &get(target, "1.1");
        stream.write_all(requests.as_bytes()).await.unwrap();
        let head = read_until(&mut stream, "\r\n\r\n").await;
        assert_eq!(statuses(&head), [200]);
        within(async {
            // The next request is taken up as soon as hyper has all of the answer in its buffer.
            let mut left = LARGE;
            while left > 0 {
                let mut part = vec![0; left.min(100_000)];
                let read = tokio::io::AsyncReadExt::read(&mut stream, &mut part).await.unwrap();
                assert!(part[..read].iter().all(|byte| *byte == b'x'), "a hint inside the body");
                left -= read;
            }
        })
        .await;
        if target == "/hints-hold" {
            assert_eq!(statuses(&read_until(&mut stream, "\r\n\r\n").await), [103]);
            server.shared.release.notify_one();
        }
        let rest = statuses(&read_until(&mut stream, "hinted").await);
        assert_eq!(rest.last(), Some(&200), "{rest:?}");
    }
}

#[tokio::test]
async fn who_knows_no_hints_gets_none() {
    let server = Server::start(limits()).await;
    let answers = exchange(&server, get("/hints?3", "1.0")).await;
    assert_eq!(statuses(&answers), [200], "{answers}");
}

/// What a client of HTTP/2 is told of one request before its answer, and that.
async fn told(mut answer: h2::client::ResponseFuture) -> (Vec<String>, u16) {
    within(async {
        let mut links = Vec::new();
        loop {
            let next = std::future::poll_fn(|cx| match answer.poll_informational(cx) {
                Poll::Ready(Some(hint)) => Poll::Ready(Ok(hint.unwrap())),
                _ => Pin::new(&mut answer).poll(cx).map(Err),
            });
            match next.await {
                Ok(hint) => {
                    assert_eq!(hint.status(), StatusCode::EARLY_HINTS);
                    links.push(hint.headers()["link"].to_str().unwrap().to_owned());
                }
                Err(answer) => return (links, answer.unwrap().status().as_u16()),
            }
        }
    })
    .await
}

#[tokio::test]
async fn hints_over_http2_are_of_their_stream() {
    let server = Server::start(limits()).await;
    let (mut client, connection) = within(h2::client::handshake(server.connect(b"h2").await)).await.unwrap();
    tokio::spawn(connection);
    let mut ask = |target: &str, more: usize| {
        let request = Request::get(format!("https://a{target}"));
        // So that there is something to learn for the tables of both sides.
        let request = (0..more).fold(request, |request, at| request.header(format!("x-{at}"), target));
        client.send_request(request.body(()).unwrap(), true).unwrap().0
    };
    let links = |count: usize| (0..count).map(|at| format!("</{at}.css>; rel=preload")).collect::<Vec<_>>();
    for round in 0..3 {
        let held = ask("/hints-hold?1", round);
        let answers = [1, 4, 0, 2].map(|count| (count, ask(&format!("/hints?{count}"), round)));
        for (count, answer) in answers {
            assert_eq!(told(answer).await, (links(count), 200), "{round}");
        }
        assert_eq!(told(ask("/", 0)).await, (vec![], 200));
        server.shared.release.notify_one();
        assert_eq!(told(held).await, (links(1), 200));
    }
    // Not before the answer only, but without waiting for it.
    let mut held = ask("/hints-hold?2", 0);
    for link in links(2) {
        let hint = within(std::future::poll_fn(|cx| held.poll_informational(cx))).await.unwrap().unwrap();
        assert_eq!(hint.headers()["link"], link);
    }
    server.shared.release.notify_one();
    assert_eq!(told(held).await, (vec![], 200));
}

/// Beside a download that the client does not take, hints are dropped or come whole.
#[tokio::test]
async fn hints_over_http2_do_not_break_what_is_under_way() {
    let server = Server::start(limits()).await;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 24).initial_connection_window_size(1 << 24);
    let (mut client, connection) =
        within(builder.handshake::<_, Bytes>(server.connect(b"h2").await)).await.unwrap();
    tokio::spawn(connection);
    let mut ask = |target: &str| {
        let request = Request::get(format!("https://a{target}")).body(()).unwrap();
        client.send_request(request, true).unwrap().0
    };
    let download = ask("/large");
    let hinted: Vec<_> = (0..50).map(|_| ask("/hints?3")).collect();
    let mut body = within(download).await.unwrap().into_body();
    let mut left = LARGE;
    while let Some(data) = within(body.data()).await {
        let data = data.unwrap();
        left -= data.len();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(left, 0);
    for answer in hinted {
        let (links, status) = told(answer).await;
        assert_eq!(status, 200);
        assert!(links.len() <= 3, "{links:?}");
    }
}

/// What can't be told apart is not told at all.
#[tokio::test]
async fn hints_over_http2_end_with_a_smaller_table() {
    let server = Server::start(limits()).await;
    let mut builder = h2::client::Builder::new();
    builder.header_table_size(0);
    let (mut client, connection) =
        within(builder.handshake::<_, Bytes>(server.connect(b"h2").await)).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..2 {
        let request = Request::get("https://a/hints?3").body(()).unwrap();
        let answer = client.send_request(request, true).unwrap().0;
        assert_eq!(told(answer).await, (vec![], 200));
    }
}

#[tokio::test]
async fn too_many_hints_are_dropped_and_the_answer_is_not() {
    let server = Server::start(limits()).await;
    let answers = exchange(&server, get("/hints?1000", "1.1") + &get("/hints?2", "1.1") + LAST).await;
    let statuses = statuses(&answers);
    let (hints, rest) = statuses.split_at(statuses.iter().position(|status| *status == 200).unwrap());
    assert!(hints.len() > 10 && hints.len() < 100, "{}", hints.len());
    assert_eq!(rest, [200, 103, 103, 200, 200]);
}
