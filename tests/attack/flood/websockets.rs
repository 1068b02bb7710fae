//! WebSockets that stand still, that carry next to nothing very often, and that are not read.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::wire::{self, Crowd, Member, PATIENCE, SLACK, Tls};
use crate::{HOST, Outcome, Plan};

async fn open(crowd: &Crowd, plan: &Plan, path: &str) -> Result<(Tls, Member), String> {
    let (mut stream, member) = crowd.connect(plan.port, &wire::client(b"http/1.1")).await?;
    let port = plan.port;
    let handshake = format!(
        "GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nOrigin: https://{HOST}:{port}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    wire::send(&mut stream, handshake.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut first = [0; 12];
    let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut first)).await;
    read.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
    match &first {
        b"HTTP/1.1 101" => Ok((stream, member)),
        other => Err(String::from_utf8_lossy(other).into_owned()),
    }
}

/// Many that carry nothing. They stay.
pub async fn idle(plan: Plan) -> Outcome {
    let crowd = Crowd::new();
    let held = crowd
        .run(plan.count, |_| {
            let (crowd, plan) = (crowd.clone(), plan.clone());
            async move {
                let (mut stream, _member) = open(&crowd, &plan, "/public/ws-sink").await?;
                if wire::is_ended(&mut stream, Duration::from_secs_f64(plan.seconds)).await {
                    return Err("an idle WebSocket was ended".to_owned());
                }
                Ok(Duration::from_secs_f64(plan.seconds))
            }
        })
        .await;
    held.outcome(&crowd, |held| format!("{} WebSockets held for {:.0?}", held.ended, held.longest))
}

/// Empty messages, as fast as they are taken.
pub async fn tiny(plan: Plan) -> Outcome {
    let crowd = Crowd::new();
    let sent = std::rc::Rc::new(std::cell::Cell::new(0));
    let held = crowd
        .run(plan.count, |_| {
            let (crowd, plan, sent) = (crowd.clone(), plan.clone(), sent.clone());
            async move {
                let (mut stream, _member) = open(&crowd, &plan, "/public/ws-sink").await?;
                // Masked, as a client must (RFC 6455 section 5.1).
                let frames = [0x82, 0x80, 1, 2, 3, 4].repeat(1000);
                let since = Instant::now();
                while since.elapsed() < Duration::from_secs_f64(plan.seconds) {
                    wire::send(&mut stream, &frames).await.map_err(|error| format!("cut: {error}"))?;
                    sent.set(sent.get() + 1000);
                    tokio::task::yield_now().await;
                }
                Ok(since.elapsed())
            }
        })
        .await;
    held.outcome(&crowd, |held| format!("{} empty messages on {} WebSockets", sent.get(), held.ended))
}

/// The application talks, and nobody listens.
pub async fn unread(plan: Plan) -> Outcome {
    let crowd = Crowd::new();
    let held = crowd
        .run(plan.count, |_| {
            let (crowd, plan) = (crowd.clone(), plan.clone());
            async move {
                let (mut stream, _member) = open(&crowd, &plan, "/public/ws-source").await?;
                tokio::time::sleep(Duration::from_secs_f64(plan.seconds)).await;
                // Whether it was ended or not, it can be left.
                let _ = tokio::time::timeout(SLACK, stream.shutdown()).await;
                Ok(Duration::from_secs_f64(plan.seconds))
            }
        })
        .await;
    held.outcome(&crowd, |held| format!("{} WebSockets unread for {:.0?}", held.ended, held.longest))
}
