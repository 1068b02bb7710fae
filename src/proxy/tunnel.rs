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

use super::io::Io;
use super::pump::Pumps;
use crate::web::body::{End, Observer};

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
    pub(super) ends_at: Option<Instant>,
    pub(super) observer: Option<Rc<dyn Observer>>,
}

/// How long saying goodbye to both sides may take.
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
        let closed = pin!(self.close.notified());
        if self.closing.get() {
            ending.end = End::Cut;
        } else {
            let pumps = Pumps::new(tunnel.early, &self.scratch, tunnel.observer);
            ending.end = tokio::select! {
                end = pumps.run(&mut client, &mut upstream) => end,
                () = closed => End::Closed,
                () = until(tunnel.ends_at) => End::Closed,
            };
        }
        let goodbye = async { tokio::join!(client.shutdown(), upstream.shutdown()) };
        // Whether the goodbyes arrive makes no difference to us.
        let _ = tokio::time::timeout(CLOSE_LIMIT, goodbye).await;
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
