//! DOS-02 and H2-04 on HTTP/2: windows that are never opened, and connections that are not read.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::frames::*;
use crate::wire::{self, Crowd, SLACK};
use crate::{Outcome, Plan};

/// Streams of a connection: as many as are allowed by default.
const STREAMS: u32 = 100;

/// Largest window (RFC 9113 section 6.9.1).
const WIDE: u32 = 0x7fff_ffff;

fn requests(method: &str, path: &str, flags: u8) -> Vec<u8> {
    let block = request(method, path);
    (0..STREAMS).flat_map(|number| frame(HEADERS, END_HEADERS | flags, number * 2 + 1, &block)).collect()
}

/// Every stream of a connection asks for a large answer and grants it no window.
pub async fn zero_window(plan: Plan) -> Outcome {
    let (crowd, config) = (Crowd::new(), wire::client(b"h2"));
    let bound = Duration::from_secs_f64(plan.body_idle_timeout);
    let held = crowd
        .run(plan.count, |_| {
            let (crowd, config) = (crowd.clone(), config.clone());
            async move {
                let (mut stream, _member) = crowd.connect(plan.port, &config).await?;
                let hello = [preface(&[(4, 0)]), requests("GET", "/public/large", END_STREAM)].concat();
                wire::send(&mut stream, &hello).await.map_err(|error| error.to_string())?;
                let all = STREAMS as usize;
                let back = Back::read(&mut stream, bound + SLACK * 2, |back| back.resets >= all).await;
                if back.ended || back.resets >= all {
                    return Ok(back.took);
                }
                Err(format!("after {:.1?}, {} of {all} streams were reset", back.took, back.resets))
            }
        })
        .await;
    held.outcome(&crowd, |held| {
        format!(
            "{STREAMS} streams on each of {} connections reset after {:.1?} (bound {bound:?})",
            held.ended, held.longest
        )
    })
}

/// Every stream of a connection asks for a large answer, with all windows wide open, and nothing is read.
pub async fn unread(plan: Plan) -> Outcome {
    let wide = frame(WINDOW_UPDATE, 0, 0, &(WIDE - 65_535).to_be_bytes());
    let hello = [preface(&[(4, WIDE)]), wide, requests("GET", "/public/large", END_STREAM)].concat();
    hold(plan, hello).await
}

/// Every stream of a connection sends as much as the windows allow, to an application that takes none of it.
pub async fn uploads(plan: Plan) -> Outcome {
    let (crowd, config) = (Crowd::new(), wire::client(b"h2"));
    let end = Instant::now() + Duration::from_secs_f64(plan.seconds);
    let sent = Rc::new(Cell::new(0));
    let held = crowd
        .run(plan.count, |_| {
            let (crowd, config, sent) = (crowd.clone(), config.clone(), sent.clone());
            async move {
                let (mut stream, _member) = crowd.connect(plan.port, &config).await?;
                let hello = [preface(&[]), requests("POST", "/public/deaf", 0)].concat();
                wire::send(&mut stream, &hello).await.map_err(|error| error.to_string())?;
                let since = Instant::now();
                // Whether it is cut or not: the bound is on memory.
                let _ = tokio::time::timeout_at(end.into(), fill(&mut stream, &sent)).await;
                Ok(since.elapsed())
            }
        })
        .await;
    held.outcome(&crowd, |held| {
        let (count, mebibytes) = (held.ended, sent.get() >> 20);
        format!("{STREAMS} uploads that nobody took on each of {count} connections, {mebibytes} MiB in all")
    })
}

/// Sends DATA on all streams in turn, within the windows that the other side opens (RFC 9113 section 5.2).
async fn fill(stream: &mut wire::Tls, sent: &Cell<usize>) -> std::io::Result<()> {
    const PART: i64 = 16_000;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (mut whole, mut initial) = (65_535, 65_535);
    let mut windows = vec![0; STREAMS as usize];
    loop {
        for (number, taken) in (0..).zip(&mut windows) {
            if whole >= PART && initial - *taken >= PART {
                let data = frame(DATA, 0, number * 2 + 1, &[b'x'; PART as usize]);
                writer.write_all(&data).await?;
                sent.set(sent.get() + data.len());
                (whole, *taken) = (whole - PART, *taken + PART);
            }
        }
        writer.flush().await?;
        let mut header = [0; 9];
        reader.read_exact(&mut header).await?;
        let mut payload = vec![0; u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize];
        reader.read_exact(&mut payload).await?;
        let at = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
        let number = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_be_bytes);
        match header[3] {
            WINDOW_UPDATE if at == 0 => whole += i64::from(number(&payload)),
            WINDOW_UPDATE => windows[(at / 2) as usize] -= i64::from(number(&payload)),
            SETTINGS => {
                for setting in payload.chunks_exact(6).filter(|setting| setting[..2] == [0, 4]) {
                    initial = i64::from(number(&setting[2..]));
                }
            }
            _ => {}
        }
    }
}

/// Sends, and then reads nothing until the bound for that is over. The connection has ended then, or ends soon.
async fn hold(plan: Plan, hello: Vec<u8>) -> Outcome {
    let (crowd, config) = (Crowd::new(), wire::client(b"h2"));
    let bound = Duration::from_secs_f64(plan.body_idle_timeout);
    let all_open = Rc::new(tokio::sync::Barrier::new(plan.count));
    let held = crowd
        .run(plan.count, |_| {
            let (crowd, config, hello) = (crowd.clone(), config.clone(), hello.clone());
            let all_open = all_open.clone();
            async move {
                let opened = async {
                    let (mut stream, member) = crowd.connect(plan.port, &config).await?;
                    wire::send(&mut stream, &hello).await.map_err(|error| error.to_string())?;
                    Ok::<_, String>((stream, member))
                }
                .await;
                all_open.wait().await;
                let (mut stream, _member) = opened?;
                let since = Instant::now();
                // Buffers of TCP grow, and its probes get a few bytes through at first, ever more rarely: all of it is
                // movement.
                tokio::time::sleep(bound * 7 / 2 + SLACK).await;
                let back = Back::read(&mut stream, SLACK * 2, |back| back.resets >= STREAMS as usize).await;
                // One of the streams may have been the one that moved.
                if !back.ended && back.resets + 1 < STREAMS as usize {
                    return Err(format!("answers were still being sent: {back:?}"));
                }
                Ok(since.elapsed())
            }
        })
        .await;
    held.outcome(&crowd, |held| {
        format!(
            "{STREAMS} unread answers on each of {} connections, over after {:.1?} (bound {bound:?})",
            held.ended, held.longest
        )
    })
}
