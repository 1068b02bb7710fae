//! Who waits for whom on a worker that has its hands full.

use tokio::io::AsyncWriteExt as _;

use super::http2::{Back, GET, Raw, block, frame};
use super::support::*;
use crate::server::Limits;

/// Connections that keep the worker busy, and the streams of each.
const CROWD: usize = 20;
const STREAMS: u32 = 100;

#[tokio::test]
async fn who_connects_anew_waits_for_a_few_streams_of_each_connection_and_all_have_their_turn() {
    let server = Server::start(Limits { workers: 1, ..limits() }).await;
    let ask = block(&[GET[0], GET[1], GET[2], (":path", "/busy")]);
    let all: Vec<u8> = (0..STREAMS).flat_map(|number| frame(1, 5, number * 2 + 1, &ask)).collect();
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(Raw::connect(&server).await);
    }
    for member in &mut crowd {
        member.send(&all).await;
    }
    server.shared.begun.notified().await;
    let mut newcomer = server.connect(b"http/1.1").await;
    newcomer.write_all(b"GET /new HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(read_all(&mut newcomer).await.starts_with("HTTP/1.1 200"));
    for member in &mut crowd {
        for _ in 0..STREAMS {
            assert_eq!(member.back().await, Back::Headers(200));
        }
    }
    let seen = server.shared.seen();
    let before = seen.iter().position(|what| what == "GET /new").unwrap();
    assert_eq!(seen.len(), CROWD * STREAMS as usize + 1);
    assert!(before < CROWD * STREAMS as usize / 2, "after {before} of {}", seen.len());
}
