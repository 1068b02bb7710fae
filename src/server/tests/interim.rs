//! Informational answers between hyper's own.

use http::Request;
use http_body_util::{BodyExt as _, Full};
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
    let mut http2 = server.http2().await;
    let request = Request::get("https://a/hints?3").body(Full::default()).unwrap();
    let answer = within(http2.send_request(request)).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hinted");
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
