//! The tunnels that accepted upgrades become: which are open, when each ends, and who is told.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::frames::Frames;
use super::goodbye::{self, GOING_AWAY, SESSION_ENDED};
use super::io::Io;
use super::pump::{Listeners, Pumps};
use crate::web::body::{End, Observer};
use crate::web::lifeline::{Lifeline, until_cut};

/// The open tunnels of one worker and service.
#[derive(Default)]
pub(super) struct Tunnels {
    open: Cell<usize>,
    closing: Cell<bool>,
    close: Notify,
    /// What all of them read into, one at a time, so that a quiet tunnel has no buffer at all.
    scratch: RefCell<Vec<u8>>,
}

/// What a tunnel connects and when it ends by itself.
pub(super) struct Tunnel {
    pub(super) client: OnUpgrade,
    pub(super) upstream: Io,
    /// What the application sent right after its 101.
    pub(super) early: Bytes,
    /// Both sides speak in the frames of WebSockets.
    pub(super) has_frames: bool,
    pub(super) ends_at: Option<Instant>,
    pub(super) lifeline: Option<Rc<Lifeline>>,
    pub(super) observer: Option<Rc<dyn Observer>>,
}

/// How long saying goodbye to both sides may take, and then shutting the connections to them.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

impl Tunnels {
    pub(super) fn open(&self) -> usize {
        self.open.get()
    }

    /// Ends all tunnels, and those that are about to open.
    pub(super) fn close(&self) {
        self.closing.set(true);
        self.close.notify_waiters();
    }

    /// Runs `tunnel` until it ends. Silence does not end it: a peer that is gone is found by TCP keepalive.
    pub(super) async fn run(self: Rc<Self>, tunnel: Tunnel) {
        let mut ending = Ending::new(&self, tunnel.observer.clone());
        let Ok(client) = tunnel.client.await else { return };
        let mut client = TokioIo::new(client);
        let mut upstream = tunnel.upstream;
        let has_frames = tunnel.has_frames;
        let frames = has_frames.then(Frames::new);
        let listeners = Listeners { observer: tunnel.observer, lifeline: tunnel.lifeline.clone() };
        let mut pumps = Pumps::new(tunnel.early, frames, &self.scratch, listeners);
        ending.end = tokio::select! {
            // Nothing passes once the tunnel is over.
            biased;
            () = self.until_closed() => End::Closed,
            () = until_cut(tunnel.lifeline.as_deref()) => End::SessionEnded,
            () = until(tunnel.ends_at) => End::SessionEnded,
            end = pumps.run(&mut client, &mut upstream) => end,
        };
        let reason = match ending.end {
            End::Closed => Some(GOING_AWAY),
            End::SessionEnded => Some(SESSION_ENDED),
            End::Complete | End::Cut | End::Stalled | End::Untaken | End::Abandoned => None,
        };
        // Whether the goodbyes arrive makes no difference to us. They are made of what a quiet tunnel has no room
        // for.
        if let Some(reason) = reason {
            let goodbye = Box::pin(goodbye::say(reason, pumps, &mut client, &mut upstream));
            let _ = tokio::time::timeout(CLOSE_LIMIT, goodbye).await;
        }
        if !has_frames && matches!(ending.end, End::Cut | End::Abandoned) {
            // Nothing within the bytes says where they should have ended: each side is to see that the other broke off.
            return upstream.abort();
        }
        let shut = async { tokio::join!(client.shutdown(), upstream.shutdown()) };
        let _ = tokio::time::timeout(CLOSE_LIMIT, shut).await;
    }

    async fn until_closed(&self) {
        let close = pin!(self.close.notified());
        if !self.closing.get() {
            close.await;
        }
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// Counts a tunnel and reports its end, however it comes.
struct Ending {
    tunnels: Rc<Tunnels>,
    observer: Option<Rc<dyn Observer>>,
    end: End,
}

impl Ending {
    fn new(tunnels: &Rc<Tunnels>, observer: Option<Rc<dyn Observer>>) -> Self {
        tunnels.open.set(tunnels.open.get() + 1);
        Self { tunnels: tunnels.clone(), observer, end: End::Abandoned }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.tunnels.open.set(self.tunnels.open.get().saturating_sub(1));
        if let Some(observer) = &self.observer {
            observer.ended(self.end);
        }
    }
}
