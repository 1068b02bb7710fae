//! How connections are split over the workers.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;

use super::support::*;
use crate::server::{Limits, Phase};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Waits until the workers have so many connections together.
async fn settled(server: &Server, wanted: usize) -> Vec<usize> {
    within(async {
        loop {
            let now = server.counts.now();
            if now.iter().sum::<usize>() == wanted {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
}

/// 64 clients that keep their connections, all at once and one after the other: no worse than 40:60.
#[tokio::test]
async fn connections_that_stay_are_split_evenly() {
    let server = Server::start(limits()).await;
    for round in 0..20 {
        let mut clients = JoinSet::new();
        for _ in 0..64 {
            // Every fourth round they come one after the other.
            let (plain, in_turn) = (server.plain, round % 4 == 3);
            let client = async move {
                let mut stream = tokio::net::TcpStream::connect(plain).await.unwrap();
                stream.write_all(GET.as_bytes()).await.unwrap();
                read_until(&mut stream, "ok").await;
                stream
            };
            clients.spawn(client);
            if in_turn {
                tokio::task::yield_now().await;
            }
        }
        let streams = within(clients.join_all()).await;
        let split = settled(&server, 64).await;
        assert!(split.iter().all(|count| (26..=38).contains(count)), "round {round}: {split:?}");
        drop(streams);
        settled(&server, 0).await;
    }
}

/// The same over TLS, whose handshakes keep the workers busy meanwhile.
#[tokio::test]
async fn tls_connections_are_split_evenly() {
    let server = Server::start(limits()).await;
    for _ in 0..3 {
        let streams = within(futures_util::future::join_all((0..64).map(|_| server.connect(b"h2")))).await;
        let split = settled(&server, 64).await;
        assert!(split.iter().all(|count| (26..=38).contains(count)), "{split:?}");
        drop(streams);
        settled(&server, 0).await;
    }
}

/// A connection that another worker accepted has its place, its deadlines and its end like any other.
#[tokio::test]
async fn connections_that_were_passed_on_count_and_drain() {
    let mut server = Server::start(Limits { connections: 64, ..limits() }).await;
    let mut streams = Vec::new();
    for _ in 0..64 {
        let mut stream = server.connect_plain().await;
        stream.write_all(GET.as_bytes()).await.unwrap();
        read_until(&mut stream, "ok").await;
        streams.push(stream);
    }
    settled(&server, 64).await;
    server.stop();
    server.lifecycle.reached(Phase::Draining).await;
    // Each is still good for one more request, which it is told is the last.
    for stream in &mut streams {
        stream.write_all(GET.as_bytes()).await.unwrap();
    }
    for mut stream in streams {
        let answer = read_all(&mut stream).await;
        assert!(answer.contains("connection: close") && answer.ends_with("ok"), "{answer}");
    }
    assert_eq!(server.ended().await.cut, 0);
}
