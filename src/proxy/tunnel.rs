//! The tunnel that an accepted WebSocket becomes: bytes both ways until one side is done.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::io::Io;
use crate::web::body::{End, Observer};

/// The open tunnels of one worker and service.
#[derive(Default)]
pub(super) struct Tunnels {
    open: Cell<usize>,
    closing: Cell<bool>,
    close: Notify,
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

/// Bytes in flight in each direction of a tunnel.
const BUFFER_BYTES: usize = 8 * 1024;

/// How long one direction may go on after the other has ended. WebSockets end both at once.
const HALF_CLOSED_LIMIT: Duration = Duration::from_secs(30);

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
            let pumps = Pumps::new(tunnel.early, tunnel.observer);
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

/// Both directions.
struct Pumps {
    up: Pump,
    down: Pump,
    observer: Option<Rc<dyn Observer>>,
}

impl Pumps {
    fn new(early: Bytes, observer: Option<Rc<dyn Observer>>) -> Self {
        Self { up: Pump::new(Bytes::new()), down: Pump::new(early), observer }
    }

    async fn run<C, U>(mut self, client: &mut C, upstream: &mut U) -> End
    where
        C: AsyncRead + AsyncWrite + Unpin,
        U: AsyncRead + AsyncWrite + Unpin,
    {
        let mut half_closed = None;
        std::future::poll_fn(|cx| {
            let up = self.up.poll(cx, client, upstream);
            let down = self.down.poll(cx, upstream, client);
            if let Some(observer) = &self.observer {
                observer.received(std::mem::take(&mut self.up.moved));
                observer.sent(std::mem::take(&mut self.down.moved));
            }
            match (up, down) {
                (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(End::Cut),
                (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(End::Complete),
                (Poll::Pending, Poll::Pending) => Poll::Pending,
                _ => {
                    let limit = || Box::pin(tokio::time::sleep(HALF_CLOSED_LIMIT));
                    half_closed.get_or_insert_with(limit).as_mut().poll(cx).map(|()| End::Cut)
                }
            }
        })
        .await
    }
}

/// One direction.
struct Pump {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Written since the observer was last told.
    moved: usize,
    unflushed: bool,
    reader_done: bool,
    done: bool,
}

impl Pump {
    fn new(early: Bytes) -> Self {
        let end = early.len();
        let mut buffer = Vec::from(early);
        buffer.resize(end.max(BUFFER_BYTES), 0);
        Self { buffer, start: 0, end, moved: 0, unflushed: false, reader_done: false, done: false }
    }

    fn poll<R, W>(&mut self, cx: &mut Context<'_>, reader: &mut R, writer: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            if self.done {
                return Poll::Ready(Ok(()));
            }
            while self.start < self.end {
                let rest = self.buffer.get(self.start..self.end).unwrap_or_default();
                let written = ready!(Pin::new(&mut *writer).poll_write(cx, rest))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.start += written;
                self.moved += written;
                self.unflushed = true;
            }
            if self.reader_done {
                ready!(Pin::new(&mut *writer).poll_shutdown(cx))?;
                self.done = true;
                continue;
            }
            let mut space = ReadBuf::new(&mut self.buffer);
            match Pin::new(&mut *reader).poll_read(cx, &mut space)? {
                Poll::Ready(()) => {
                    (self.start, self.end) = (0, space.filled().len());
                    self.reader_done = self.end == 0;
                }
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut *writer).poll_flush(cx))?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}
