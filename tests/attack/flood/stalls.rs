//! DOS-01, DOS-02, DOS-03, DOS-05: who takes time, and nothing else.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::AsyncWriteExt as _;

use crate::wire::{self, Crowd, Held, PATIENCE, SLACK, Tls};
use crate::{HOST, Outcome, Plan};

const SECOND: Duration = Duration::from_secs(1);

/// The beginning of a request that never comes to its end.
fn beginning(method: &str, target: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n")
}

/// Sends a part and, after each second, another one. Ends when the connection does; how long that took.
async fn trickle(mut stream: Tls, first: &[u8], more: &[u8], bound: Duration) -> Result<Duration, String> {
    let since = Instant::now();
    let (mut reader, mut writer) = tokio::io::split(&mut stream);
    let writing = async {
        let mut bytes = first;
        while writer.write_all(bytes).await.is_ok() && writer.flush().await.is_ok() {
            tokio::time::sleep(SECOND).await;
            bytes = more;
        }
        std::future::pending().await
    };
    let ended = tokio::select! {
        ended = wire::is_ended(&mut reader, bound + SLACK) => ended,
        () = writing => false,
    };
    if ended { Ok(since.elapsed()) } else { Err(format!("still open after {:.1?}", since.elapsed())) }
}

/// DOS-01: a field a second.
pub async fn slow_heads(plan: Plan) -> Outcome {
    let first = beginning("GET", "/public/");
    slowly(plan, first.into_bytes(), b"X-a: b\r\n").await
}

/// DOS-01: a byte of the request line a second, each in a TLS record of its own.
pub async fn byte_a_second(plan: Plan) -> Outcome {
    slowly(plan, b"G".to_vec(), b"E").await
}

async fn slowly(plan: Plan, first: Vec<u8>, more: &'static [u8]) -> Outcome {
    let (crowd, config) = (Crowd::new(), wire::client(b"http/1.1"));
    let bound = Duration::from_secs_f64(plan.header_timeout);
    let held = crowd
        .run(plan.count, |_| {
            let (crowd, config, first) = (crowd.clone(), config.clone(), first.clone());
            async move {
                let (stream, _member) = crowd.connect(plan.port, &config).await?;
                trickle(stream, &first, more, bound).await
            }
        })
        .await;
    held.outcome(&crowd, |held| {
        format!("{} connections ended, the last after {:.1?} (bound {bound:?})", held.ended, held.longest)
    })
}

/// DOS-02: bodies of which a byte comes each second. Such an upload may go on; it is held for a while.
pub async fn slow_bodies(plan: Plan) -> Outcome {
    let (crowd, config) = (Crowd::new(), wire::client(b"http/1.1"));
    let end = Duration::from_secs_f64(plan.seconds);
    let begun = Instant::now();
    let held = crowd
        .run(plan.count, |_| {
            let (crowd, config) = (crowd.clone(), config.clone());
            async move {
                let (mut stream, _member) = crowd.connect(plan.port, &config).await?;
                let head = beginning("POST", "/public/sink") + "Content-Length: 1000000\r\n\r\n";
                let since = Instant::now();
                let mut bytes = head.as_bytes();
                while begun.elapsed() < end {
                    wire::send(&mut stream, bytes)
                        .await
                        .map_err(|error| format!("an upload was cut: {error}"))?;
                    tokio::time::sleep(SECOND).await;
                    bytes = b"x";
                }
                Ok(since.elapsed())
            }
        })
        .await;
    held.outcome(&crowd, |held| {
        format!("{} uploads of a byte a second, held for {:.1?}", held.ended, held.longest)
    })
}

/// DOS-02: bodies of which nothing comes any more.
pub async fn stalled_bodies(plan: Plan) -> Outcome {
    let (crowd, config) = (Crowd::new(), wire::client(b"http/1.1"));
    let bound = Duration::from_secs_f64(plan.body_idle_timeout);
    let held = crowd
        .run(plan.count, |_| {
            let (crowd, config) = (crowd.clone(), config.clone());
            async move {
                let (mut stream, _member) = crowd.connect(plan.port, &config).await?;
                let head = beginning("POST", "/public/sink") + "Content-Length: 1000000\r\n\r\nx";
                wire::send(&mut stream, head.as_bytes()).await.map_err(|error| error.to_string())?;
                let since = Instant::now();
                if wire::is_ended(&mut stream, bound + SLACK).await {
                    return Ok(since.elapsed());
                }
                Err(format!("still open after {:.1?}", since.elapsed()))
            }
        })
        .await;
    held.outcome(&crowd, |held| {
        format!("{} connections ended, the last after {:.1?} (bound {bound:?})", held.ended, held.longest)
    })
}

/// DOS-02: answers without end that nobody reads. What the system had taken in is read once the bound is over.
pub async fn slow_readers(plan: Plan) -> Outcome {
    let (crowd, config) = (Crowd::new(), wire::client(b"http/1.1"));
    let bound = Duration::from_secs_f64(plan.body_idle_timeout);
    let all_open = std::rc::Rc::new(tokio::sync::Barrier::new(plan.count));
    let held = crowd
        .run(plan.count, |_| {
            let (crowd, config, all_open) = (crowd.clone(), config.clone(), all_open.clone());
            async move {
                let opened = async {
                    let (mut stream, member) = crowd.connect(plan.port, &config).await?;
                    let head = beginning("GET", "/public/large") + "\r\n";
                    wire::send(&mut stream, head.as_bytes()).await.map_err(|error| error.to_string())?;
                    Ok::<_, String>((stream, member))
                }
                .await;
                // While others still open theirs, the machine has more to do than to fill what nobody reads.
                all_open.wait().await;
                let (mut stream, _member) = opened?;
                let since = Instant::now();
                // The probes of TCP get a few bytes through at first, ever more rarely, and each of them is movement.
                tokio::time::sleep(bound * 5 / 2 + SLACK).await;
                if wire::is_ended(&mut stream, SLACK * 2).await {
                    return Ok(since.elapsed());
                }
                Err("an answer that nobody read was still being sent".to_owned())
            }
        })
        .await;
    held.outcome(&crowd, |held| format!("{} unread answers cut (bound {bound:?})", held.ended))
}

/// DOS-03: TCP connections that say nothing.
pub async fn silent(plan: Plan) -> Outcome {
    let crowd = Crowd::new();
    let bound = Duration::from_secs_f64(plan.handshake_timeout);
    let held = crowd
        .run(plan.count, |_| {
            let crowd = crowd.clone();
            async move {
                let mut stream = wire::connect_plain(plan.port).await.map_err(|error| error.to_string())?;
                let _member = crowd.enter();
                let since = Instant::now();
                // Some had to wait for a place before their time began.
                if wire::is_ended(&mut stream, bound * 2 + SLACK).await {
                    return Ok(since.elapsed());
                }
                Err(format!("still open after {:.1?}", since.elapsed()))
            }
        })
        .await;
    held.outcome(&crowd, |held| {
        format!("{} connections ended, the last after {:.1?} (bound {bound:?})", held.ended, held.longest)
    })
}

/// DOS-05: connections that were answered once and then wait. All of them stay.
pub async fn idle(plan: Plan) -> Outcome {
    let (crowd, config) = (Crowd::new(), wire::client(b"http/1.1"));
    let ready = std::rc::Rc::new(tokio::sync::Barrier::new(plan.count));
    // When the last one was open, and when the first one was closed.
    let (all_open, closing) = (std::rc::Rc::new(Cell::new(None)), std::rc::Rc::new(Cell::new(None)));
    let held = crowd
        .run(plan.count, |_| {
            let (crowd, config, ready) = (crowd.clone(), config.clone(), ready.clone());
            let (all_open, closing) = (all_open.clone(), closing.clone());
            async move {
                let opened = async {
                    let (mut stream, member) = crowd.connect(plan.port, &config).await?;
                    let head = beginning("GET", "/public/idle") + "\r\n";
                    wire::send(&mut stream, head.as_bytes()).await.map_err(|error| error.to_string())?;
                    let mut first = [0; 12];
                    let read = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut first);
                    let read =
                        tokio::time::timeout(PATIENCE, read).await.map_err(|_| "no answer".to_owned())?;
                    read.map_err(|error| error.to_string())?;
                    if first != *b"HTTP/1.1 200" {
                        return Err(String::from_utf8_lossy(&first).into_owned());
                    }
                    Ok((stream, member))
                }
                .await;
                ready.wait().await;
                all_open.set(Some(now()));
                let (mut stream, _member) = opened?;
                if wire::is_ended(&mut stream, Duration::from_secs_f64(plan.seconds)).await {
                    return Err("an idle connection was ended".to_owned());
                }
                closing.set(closing.get().or(Some(now())));
                Ok(Duration::from_secs_f64(plan.seconds))
            }
        })
        .await;
    let words = |held: &Held| format!("{} connections held idle for {:.0?}", held.ended, held.longest);
    // A second for what the opening left to do.
    let at_rest = all_open.get().zip(closing.get()).map(|(begin, end): (f64, f64)| (begin + 1.0, end));
    Outcome { at_rest, ..held.outcome(&crowd, words) }
}

/// Seconds of Unix time.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
