//! The end of a tunnel that we end: what is said to both sides, and for how long they are heard.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aws_lc_rs::rand;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::frames::{self, Frames};
use super::pump::{Pump, Pumps};

/// Why a tunnel is closed, as a WebSocket says it (RFC 6455 section 7.4.1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Reason {
    code: u16,
    text: &'static str,
}

/// The session has ended: who is there may not be there any more.
pub(super) const SESSION_ENDED: Reason = Reason { code: 1008, text: "session ended" };

/// The process drains: whoever connects again finds another.
pub(super) const GOING_AWAY: Reason = Reason { code: 1001, text: "going away" };

/// Sends both sides of a WebSocket a Close, where no frame is under way, and hears them until theirs has come. What
/// else they say goes nowhere. A tunnel of anything else has no goodbye.
pub(super) async fn say<C, U>(reason: Reason, pumps: Pumps<'_>, client: &mut C, upstream: &mut U)
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let Pumps { up, down, scratch, .. } = pumps;
    let (Some(to_upstream), Some(to_client)) = (up.frames, down.frames) else { return };
    let mut mask = [0; 4];
    // A mask keeps scripts from writing another protocol's bytes (section 10.3); these are no script's.
    let _ = rand::fill(&mut mask);
    let for_client = to_client.takes_close().then(|| frames::close(reason.code, reason.text, None));
    let for_upstream = to_upstream.takes_close().then(|| frames::close(reason.code, reason.text, Some(mask)));
    tokio::join!(
        part(client, for_client, heard_from(to_upstream, &up), scratch),
        part(upstream, for_upstream, heard_from(to_client, &down), scratch),
    );
}

/// The place in what was read: after what was written comes what was not any more.
fn heard_from(mut frames: Frames, pump: &Pump) -> Frames {
    frames.follow(&pump.rest);
    frames
}

async fn part<P>(peer: &mut P, close: Option<Vec<u8>>, mut heard: Frames, scratch: &RefCell<Vec<u8>>)
where
    P: AsyncRead + AsyncWrite + Unpin,
{
    let Some(close) = close else { return };
    if peer.write_all(&close).await.is_err() || peer.flush().await.is_err() {
        return;
    }
    poll_fn(|cx| poll_close(cx, peer, &mut heard, &mut scratch.borrow_mut())).await;
}

/// Ready once the peer's Close has come, or its end.
fn poll_close<P: AsyncRead + Unpin>(
    cx: &mut Context<'_>,
    peer: &mut P,
    heard: &mut Frames,
    scratch: &mut [u8],
) -> Poll<()> {
    while !heard.has_close() {
        let mut space = ReadBuf::new(scratch);
        let read = ready!(Pin::new(&mut *peer).poll_read(cx, &mut space));
        if read.is_err() || space.filled().is_empty() {
            break;
        }
        heard.follow(space.filled());
    }
    Poll::Ready(())
}
