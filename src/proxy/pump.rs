//! Bytes both ways through a tunnel, with each side's backpressure and half-close passed on to the other.
//!
//! May not know why a tunnel is there or what ends it early. Of a WebSocket it knows the frames, for the sake of its
//! end. A direction keeps a buffer only while its writer
//! stalls: what is read goes out from a scratch space that all tunnels of a worker share.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::frames::Frames;
use crate::web::body::{End, Observer};
use crate::web::lifeline::Lifeline;

/// Both directions.
pub(super) struct Pumps<'s> {
    /// From the client.
    pub(super) up: Pump,
    /// To the client.
    pub(super) down: Pump,
    pub(super) scratch: &'s RefCell<Vec<u8>>,
    listeners: Listeners,
    half_closed: Option<Pin<Box<Sleep>>>,
}

/// Who is told of what moves.
pub(super) struct Listeners {
    pub(super) observer: Option<Rc<dyn Observer>>,
    pub(super) lifeline: Option<Rc<Lifeline>>,
}

/// One direction.
#[derive(Default)]
pub(super) struct Pump {
    /// Read and not yet written.
    pub(super) rest: Bytes,
    /// The place in the frames that were written, where there are frames.
    pub(super) frames: Option<Frames>,
    /// Written since the observer was last told.
    moved: usize,
    unflushed: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Reads,
    /// The reader is at its end. An HTTP/2 stream that was reset says the same as one that ended properly, and
    /// its other half says better, once that has had its turn.
    Ended,
    /// The end is being passed on.
    Shuts,
    Done,
}

/// Which side of a direction failed.
enum Broken {
    Reader,
    Writer,
}

/// Most bytes in flight in each direction of a tunnel: the most that one TLS record holds.
const BUFFER_BYTES: usize = 16 * 1024;

/// How long a tunnel of which one direction has ended may be silent in the other.
const HALF_CLOSED_LIMIT: Duration = Duration::from_secs(30);

impl<'s> Pumps<'s> {
    /// `early` was read from upstream already. `scratch` is empty or what another tunnel left.
    pub(super) fn new(
        early: Bytes,
        frames: Option<Frames>,
        scratch: &'s RefCell<Vec<u8>>,
        listeners: Listeners,
    ) -> Self {
        scratch.borrow_mut().resize(BUFFER_BYTES, 0);
        let up = Pump { frames, ..Pump::default() };
        let down = Pump { rest: early, frames, ..Pump::default() };
        Self { up, down, scratch, listeners, half_closed: None }
    }

    /// Runs until both directions have ended, or one breaks. `client` and `upstream` may still want to be shut.
    /// Given up, it can be asked where it was.
    pub(super) async fn run<C, U>(&mut self, client: &mut C, upstream: &mut U) -> End
    where
        C: AsyncRead + AsyncWrite + Unpin,
        U: AsyncRead + AsyncWrite + Unpin,
    {
        std::future::poll_fn(|cx| self.poll(cx, client, upstream)).await
    }

    fn poll<C, U>(&mut self, cx: &mut Context<'_>, client: &mut C, upstream: &mut U) -> Poll<End>
    where
        C: AsyncRead + AsyncWrite + Unpin,
        U: AsyncRead + AsyncWrite + Unpin,
    {
        let up = self.up.poll(cx, client, upstream, self.scratch);
        let down = self.down.poll(cx, upstream, client, self.scratch);
        let (received, sent) = (std::mem::take(&mut self.up.moved), std::mem::take(&mut self.down.moved));
        self.listeners.tell(received, sent);
        match (up, down) {
            (Poll::Ready(Err(Broken::Writer)), _) | (_, Poll::Ready(Err(Broken::Reader))) => {
                Poll::Ready(End::Cut)
            }
            (Poll::Ready(Err(Broken::Reader)), _) | (_, Poll::Ready(Err(Broken::Writer))) => {
                Poll::Ready(End::Abandoned)
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(End::Complete),
            (Poll::Pending, Poll::Pending) => Poll::Pending,
            _ => self.poll_half_closed(cx, received + sent > 0).map(|()| End::Cut),
        }
    }

    fn poll_half_closed(&mut self, cx: &mut Context<'_>, moved: bool) -> Poll<()> {
        let end = Instant::now() + HALF_CLOSED_LIMIT;
        let timer = self.half_closed.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        if moved {
            timer.as_mut().reset(end);
        }
        timer.as_mut().poll(cx)
    }
}

impl Listeners {
    fn tell(&self, received: usize, sent: usize) {
        if let Some(observer) = &self.observer {
            observer.received(received);
            observer.sent(sent);
        }
        if let Some(lifeline) = &self.lifeline
            && received + sent > 0
        {
            lifeline.note_movement();
        }
    }
}

impl Pump {
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        scratch: &RefCell<Vec<u8>>,
    ) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + AsyncWrite + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            while !self.rest.is_empty() {
                let written = ready!(write(cx, writer, &self.rest))?;
                let part = self.rest.split_to(written);
                self.wrote(&part);
            }
            self.rest = Bytes::new();
            match self.stage {
                Stage::Reads => ready!(self.pass(cx, reader, writer, &mut scratch.borrow_mut()))?,
                Stage::Ended => {
                    self.stage = Stage::Shuts;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Stage::Shuts => {
                    if let Poll::Ready(Err(_)) = Pin::new(&mut *reader).poll_flush(cx) {
                        return Poll::Ready(Err(Broken::Reader));
                    }
                    ready!(Pin::new(&mut *writer).poll_shutdown(cx)).map_err(|_| Broken::Writer)?;
                    self.stage = Stage::Done;
                }
                Stage::Done => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Passes on what is there to be read. What the writer does not take becomes the rest.
    fn pass<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        scratch: &mut [u8],
    ) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut space = ReadBuf::new(scratch);
        if Pin::new(reader).poll_read(cx, &mut space).map_err(|_| Broken::Reader)?.is_pending() {
            if self.unflushed {
                ready!(Pin::new(writer).poll_flush(cx)).map_err(|_| Broken::Writer)?;
                self.unflushed = false;
            }
            return Poll::Pending;
        }
        let fresh = space.filled();
        if fresh.is_empty() {
            self.stage = Stage::Ended;
            return Poll::Ready(Ok(()));
        }
        let written = match write(cx, writer, fresh)? {
            Poll::Ready(written) => written,
            Poll::Pending => 0,
        };
        let (part, rest) = fresh.split_at_checked(written).unwrap_or((fresh, &[]));
        self.wrote(part);
        self.rest = Bytes::copy_from_slice(rest);
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, bytes: &[u8]) {
        self.moved += bytes.len();
        self.unflushed |= !bytes.is_empty();
        if let Some(frames) = &mut self.frames {
            frames.follow(bytes);
        }
    }
}

fn write<W: AsyncWrite + Unpin>(
    cx: &mut Context<'_>,
    writer: &mut W,
    bytes: &[u8],
) -> Poll<Result<usize, Broken>> {
    match ready!(Pin::new(writer).poll_write(cx, bytes)) {
        Ok(written @ 1..) => Poll::Ready(Ok(written)),
        Ok(_) | Err(_) => Poll::Ready(Err(Broken::Writer)),
    }
}
