//! DOS-03, and what TLS allows beside: handshakes that stall, and handshakes that are made for their cost.

use std::time::{Duration, Instant};

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt as _;

use crate::wire::{self, Crowd, SLACK};
use crate::{HOST, Outcome, Plan};

/// The records of a ClientHello.
fn hello() -> Vec<u8> {
    let name = ServerName::try_from(HOST).unwrap();
    let mut connection = ClientConnection::new(wire::client(b"h2"), name).unwrap();
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// DOS-03: a ClientHello, and then nothing.
pub async fn stalled_hellos(plan: Plan) -> Outcome {
    stall(plan, 0).await
}

/// DOS-03: a ClientHello in segments of one byte, ever more slowly than its time allows.
pub async fn split_hellos(plan: Plan) -> Outcome {
    stall(plan, 1).await
}

/// Sends a ClientHello whole, or `pieces` bytes at a time, and waits for the end.
async fn stall(plan: Plan, pieces: usize) -> Outcome {
    let (crowd, hello) = (Crowd::new(), hello());
    let bound = Duration::from_secs_f64(plan.handshake_timeout);
    // As many seconds as twice the bound has.
    let pause = bound * 2 / u32::try_from(hello.len()).unwrap();
    let held = crowd
        .run(plan.count, |_| {
            let (crowd, hello) = (crowd.clone(), hello.clone());
            async move {
                let stream = wire::connect_plain(plan.port).await.map_err(|error| error.to_string())?;
                let _member = crowd.enter();
                let since = Instant::now();
                let (mut reader, mut writer) = stream.into_split();
                let writing = async {
                    for part in hello.chunks(if pieces == 0 { hello.len() } else { pieces }) {
                        if writer.write_all(part).await.is_err() {
                            break;
                        }
                        tokio::time::sleep(pause).await;
                    }
                    std::future::pending().await
                };
                let ended = tokio::select! {
                    ended = wire::is_ended(&mut reader, bound + SLACK) => ended,
                    () = writing => false,
                };
                if ended {
                    Ok(since.elapsed())
                } else {
                    Err(format!("still open after {:.1?}", since.elapsed()))
                }
            }
        })
        .await;
    held.outcome(&crowd, |held| {
        format!("{} connections ended, the last after {:.1?} (bound {bound:?})", held.ended, held.longest)
    })
}

/// DOS-03: the same ClientHello again and again, which costs its sender nothing and the other side a signature.
pub async fn hellos(plan: Plan) -> Outcome {
    let (crowd, hello) = (Crowd::new(), hello());
    let places = std::rc::Rc::new(tokio::sync::Semaphore::new(32));
    let held = crowd
        .run(plan.count, |_| {
            let (crowd, hello, places) = (crowd.clone(), hello.clone(), places.clone());
            async move {
                let _place = places.acquire().await.map_err(|error| error.to_string())?;
                let mut stream = wire::connect_plain(plan.port).await.map_err(|error| error.to_string())?;
                let _member = crowd.enter();
                let since = Instant::now();
                stream.write_all(&hello).await.map_err(|error| error.to_string())?;
                // Until the answer comes: who leaves before it may have cost nothing.
                stream.readable().await.map_err(|error| error.to_string())?;
                Ok(since.elapsed())
            }
        })
        .await;
    held.outcome(&crowd, |held| {
        format!("{} handshakes begun, the slowest answered after {:.1?}", held.ended, held.longest)
    })
}

/// KeyUpdate messages (RFC 8446 section 4.6.3), each of which asks for one in return: on one connection after the
/// other, for as long as each lives.
pub async fn key_updates(plan: Plan) -> Outcome {
    let (crowd, config) = (Crowd::new(), wire::client(b"http/1.1"));
    let (begun, mut sent, mut connections, mut wrong) = (Instant::now(), 0, 0, Vec::new());
    while sent < plan.count && begun.elapsed() < Duration::from_secs_f64(plan.seconds) {
        let (mut stream, _member) = match crowd.connect(plan.port, &config).await {
            Ok(connected) => connected,
            Err(what) => {
                wrong.push(what);
                break;
            }
        };
        connections += 1;
        while sent < plan.count && stream.get_mut().1.refresh_traffic_keys().is_ok() {
            sent += 1;
            if stream.flush().await.is_err() {
                break;
            }
            // What comes back is taken in, or the other side would have to wait.
            if wire::is_ended(&mut stream, Duration::from_micros(100)).await {
                break;
            }
        }
    }
    let words = format!("{sent} KeyUpdates on {connections} connections in {:.1?}", begun.elapsed());
    Outcome { connections: crowd.most(), wrong, words, at_rest: None }
}
