//! The front around a byte stream: what hyper reads from and writes to in place of the connection itself.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::frames::FrameWatch;
use super::framing::{Framing, Progress, Then};
use super::head::Bounds;
use super::interim::{Insertion, Interim};
use super::stream_interim::{StreamInsertion, StreamInterim};
use super::wire::{Upgrade, Wire};
use super::{STAND_IN, Violation};

/// A connection behind the front. Reads go straight into the reader's buffer and are looked at there; only
/// the beginning of an unfinished head is copied and held back.
#[derive(Debug)]
pub(in crate::server) struct Front<T> {
    inner: T,
    wire: Arc<Wire>,
    reader: Reader,
    /// Accepted bytes that the reader's buffer had no place for, or that were held back before.
    ready: Vec<u8>,
    ready_from: usize,
    write_blocked: bool,
    inserts: Inserts,
    /// The end of the connection is all that tells the client that it got everything, so it is an end only after a
    /// proper one: whatever else drops the connection resets it.
    resets: bool,
    closing: Closing,
}

/// What is written between hyper's bytes.
#[derive(Debug)]
enum Inserts {
    Nothing,
    Http1(Arc<Interim>, Insertion),
    Http2(Arc<StreamInterim>, StreamInsertion),
}

#[derive(Debug)]
enum Reader {
    Http1(Box<Http1>),
    Http2(Box<FrameWatch>, Arc<StreamInterim>),
    /// HTTP/2 that is being thrown off: what still comes is discarded.
    Http2Over,
    /// No longer HTTP.
    Tunnel,
    /// A head was refused: nothing more is read, and no end either, so that the answer can be written.
    Refused,
    /// A body was refused: reading fails.
    Broken(Violation),
}

#[derive(Debug)]
struct Http1 {
    framing: Framing,
    /// The beginning of a head, or what came after a request for an upgrade.
    held: Vec<u8>,
    awaits_upgrade: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    No,
    /// The write side is shut; so many more bytes are read and thrown away.
    Lingers(usize),
    Done,
}

/// A client's byte stream: it can be waited on without a buffer to read into, and reset.
pub(in crate::server) trait Arrivals {
    /// Ready when the next read would not wait: true if it would give bytes, false if it would give the end. Takes
    /// nothing away from that read.
    fn poll_arrival(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<bool>>;

    /// Whether the other side is known to have left, however many of its bytes have not been read. `by_end`: an end of
    /// what it sends is enough to tell.
    fn has_left(&self, by_end: bool) -> bool;

    /// Whether dropping it resets the connection, what was written and not yet sent being lost, or ends it.
    fn reset_when_dropped(&self, resets: bool);
}

impl Inserts {
    fn note_write(&mut self) {
        match self {
            Self::Nothing => {}
            Self::Http1(_, insertion) => insertion.note_write(),
            Self::Http2(_, insertion) => insertion.note_write(),
        }
    }

    fn note_flush(&mut self) {
        match self {
            Self::Nothing => {}
            Self::Http1(interim, insertion) => insertion.note_flush(interim),
            Self::Http2(interim, insertion) => insertion.note_flush(interim),
        }
    }
}

impl<T> Front<T> {
    /// An HTTP/1 connection.
    pub(in crate::server) fn http1(inner: T, wire: Arc<Wire>, interim: Arc<Interim>, bounds: Bounds) -> Self {
        let http1 = Http1 { framing: Framing::new(bounds), held: Vec::new(), awaits_upgrade: false };
        let inserts = Inserts::Http1(interim, Insertion::default());
        Self::new(inner, wire, Reader::Http1(Box::new(http1)), inserts)
    }

    /// An HTTP/2 connection.
    pub(in crate::server) fn http2(inner: T, wire: Arc<Wire>, interim: Arc<StreamInterim>) -> Self {
        wire.progress(0, false, true);
        let watch = Box::new(FrameWatch::new(Instant::now()));
        let inserts = Inserts::Http2(interim.clone(), StreamInsertion::default());
        Self::new(inner, wire, Reader::Http2(watch, interim), inserts)
    }

    /// A connection whose first bytes are known to be wrong, whatever they are.
    pub(in crate::server) fn refused(inner: T, wire: Arc<Wire>, violation: Violation) -> Self {
        wire.refuse(1, violation);
        let mut front = Self::new(inner, wire, Reader::Refused, Inserts::Nothing);
        front.ready = STAND_IN.to_vec();
        front
    }

    fn new(inner: T, wire: Arc<Wire>, reader: Reader, inserts: Inserts) -> Self {
        Self {
            inner,
            wire,
            reader,
            ready: Vec::new(),
            ready_from: 0,
            write_blocked: false,
            inserts,
            resets: false,
            closing: Closing::No,
        }
    }

    /// Gives the reader what is ready. False: there is nothing.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let waiting = self.ready.get(self.ready_from..).unwrap_or_default();
        if waiting.is_empty() {
            return false;
        }
        let now = waiting.get(..buf.remaining()).unwrap_or(waiting);
        buf.put_slice(now);
        self.ready_from += now.len();
        if self.ready_from == self.ready.len() {
            // Freed rather than kept: most connections never need it again.
            self.ready = Vec::new();
            self.ready_from = 0;
        }
        true
    }

    /// Goes by what the machine said about the bytes after those that passed.
    fn follow(&mut self, then: Then) {
        let Reader::Http1(http1) = &mut self.reader else { return };
        let heads = http1.framing.heads();
        let unfinished = then == Then::Hold;
        self.wire.progress(heads, http1.framing.in_body(), unfinished);
        match then {
            Then::Continue => {}
            Then::Hold if self.wire.head_expired() => self.refuse(heads, Violation::HeadTimeout),
            Then::Hold => {}
            Then::AwaitUpgrade => {
                http1.awaits_upgrade = true;
                self.wire.await_upgrade();
            }
            Then::RefuseHead(violation) => self.refuse(heads, violation),
            Then::RefuseBody(violation) => {
                self.wire.refuse_body(violation);
                self.reader = Reader::Broken(violation);
            }
        }
    }

    fn refuse(&mut self, heads: u64, violation: Violation) {
        self.wire.refuse(heads + 1, violation);
        self.ready.extend_from_slice(STAND_IN);
        self.reader = Reader::Refused;
    }

    /// Lets the machine look at the bytes of `buf` after `before`, and leaves there what may pass.
    fn sift(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let Reader::Http1(http1) = &mut self.reader else { return };
        let fresh = buf.filled().get(before..).unwrap_or_default();
        let then = if http1.held.is_empty() && !http1.awaits_upgrade {
            let Progress { pass, then } = http1.framing.advance(fresh);
            if matches!(then, Then::Hold | Then::AwaitUpgrade) {
                http1.held.extend_from_slice(fresh.get(pass..).unwrap_or_default());
            }
            buf.set_filled(before + pass);
            then
        } else {
            http1.held.extend_from_slice(fresh);
            buf.set_filled(before);
            if http1.awaits_upgrade {
                return;
            }
            self.release()
        };
        self.follow(then);
    }

    /// Lets the machine look at what is held, and makes ready what may pass.
    fn release(&mut self) -> Then {
        let Reader::Http1(http1) = &mut self.reader else { return Then::Continue };
        let Progress { pass, then } = http1.framing.advance(&http1.held);
        if pass > 0 {
            let rest = http1.held.split_off(pass);
            // `ready` is empty: the reader is given all of it before anything new is read.
            self.ready = std::mem::replace(&mut http1.held, rest);
        }
        then
    }

    /// Acts on the answer to a request for an upgrade. False: there is none yet.
    fn resolve_upgrade(&mut self, cx: &Context<'_>) -> bool
    where
        T: Arrivals + Unpin,
    {
        let Reader::Http1(http1) = &mut self.reader else { return true };
        if !http1.awaits_upgrade {
            return true;
        }
        match self.wire.upgrade(cx) {
            Upgrade::Awaited => return false,
            Upgrade::Granted => {
                self.ready = std::mem::take(&mut http1.held);
                self.reader = Reader::Tunnel;
                self.guard_end();
            }
            Upgrade::Declined => {
                http1.awaits_upgrade = false;
                http1.framing.decline_upgrade();
                let then = self.release();
                self.follow(then);
            }
        }
        true
    }

    /// Remembers whether writing stalls, so that the driver can bound it.
    fn note_write<R>(&mut self, result: &Poll<io::Result<R>>) {
        if result.is_pending() != self.write_blocked {
            self.write_blocked = result.is_pending();
            self.wire.write_blocked(self.write_blocked);
        }
    }

    /// Writes what is due before hyper's own bytes. Ready when they may follow.
    fn poll_insert(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        T: AsyncWrite + Unpin,
    {
        let result = match &mut self.inserts {
            Inserts::Http1(interim, insertion) if insertion.is_due(interim) => {
                insertion.poll_write(interim, &mut self.inner, cx)
            }
            Inserts::Http2(interim, insertion) if insertion.is_due(interim) => {
                insertion.poll_write(interim, &mut self.inner, cx)
            }
            _ => return Poll::Ready(Ok(())),
        };
        self.note_write(&result);
        result
    }

    /// Whether the client may still be sending something that nobody will read. Closing a socket over unread
    /// bytes resets the connection, and the answer is lost with it.
    fn leaves_bytes_unread(&self) -> bool {
        match &self.reader {
            Reader::Http1(http1) => http1.framing.in_body() || !http1.held.is_empty(),
            Reader::Refused | Reader::Broken(_) | Reader::Http2Over => true,
            Reader::Http2(..) | Reader::Tunnel => false,
        }
    }

    /// Notes that there is nothing to read. False: the head under way took too long.
    fn runs_dry(&self) -> bool {
        let Reader::Http1(http1) = &self.reader else { return true };
        let between = http1.framing.awaits_head() && http1.held.is_empty() && self.closing == Closing::No;
        !self.wire.read_dry(between)
    }
}

impl<T: Arrivals + Unpin> Front<T> {
    /// Ready when there is something for a reader that there is none of yet; see [`Arrivals`].
    pub(in crate::server) fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        match self.ready.is_empty() {
            true => Pin::new(&mut self.inner).poll_arrival(cx),
            false => Poll::Ready(Ok(true)),
        }
    }

    /// Sees to it that an end is a proper one, where nothing else tells it from a connection that broke.
    fn guard_end(&mut self) {
        if !self.resets && (self.wire.ends_by_closing() || matches!(self.reader, Reader::Tunnel)) {
            self.resets = true;
            self.inner.reset_when_dropped(true);
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Arrivals + Unpin> AsyncRead for Front<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.give(buf) {
                return Poll::Ready(Ok(()));
            }
            let decided = this.resolve_upgrade(cx);
            if !this.ready.is_empty() {
                continue;
            }
            match &this.reader {
                Reader::Refused => return Poll::Pending,
                Reader::Broken(violation) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, *violation)));
                }
                // Enough of what may be a tunnel's bytes; the decision wakes this task.
                Reader::Http1(http1) if !decided && http1.held.len() >= MAX_EARLY_BYTES => {
                    return Poll::Pending;
                }
                _ => {}
            }
            match Pin::new(&mut this.inner).poll_read(cx, buf) {
                Poll::Ready(result) => result?,
                Poll::Pending if this.runs_dry() => return Poll::Pending,
                Poll::Pending => this.follow(Then::Hold),
            }
            let fresh = buf.filled().get(before..).unwrap_or_default();
            match &mut this.reader {
                Reader::Refused | Reader::Broken(_) => continue,
                _ if fresh.is_empty() => return Poll::Ready(Ok(())),
                Reader::Tunnel => return Poll::Ready(Ok(())),
                Reader::Http1(_) => this.sift(buf, before),
                Reader::Http2(watch, streams) => {
                    let watched = watch.advance(fresh, Instant::now(), streams);
                    this.wire.progress(0, false, watched.unfinished);
                    if watched.abusive {
                        this.wire.abusive();
                        this.reader = Reader::Http2Over;
                        buf.set_filled(before);
                    }
                }
                Reader::Http2Over => buf.set_filled(before),
            }
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Arrivals + Unpin> AsyncWrite for Front<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_insert(cx))?;
        this.inserts.note_write();
        this.guard_end();
        let result = Pin::new(&mut this.inner).poll_write(cx, bytes);
        this.note_write(&result);
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_insert(cx))?;
        this.inserts.note_write();
        this.guard_end();
        let result = Pin::new(&mut this.inner).poll_write_vectored(cx, slices);
        this.note_write(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // In the middle of a body its end is the client's; after a whole request it may still wait for the answer.
        if this.wire.is_to_look() && this.inner.has_left(this.wire.is_in_body()) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        this.inserts.note_flush();
        ready!(this.poll_insert(cx))?;
        let result = Pin::new(&mut this.inner).poll_flush(cx);
        this.note_write(&result);
        result
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match this.closing {
                Closing::Done => return Poll::Ready(Ok(())),
                Closing::No => {
                    this.wire.closes();
                    let result = Pin::new(&mut this.inner).poll_shutdown(cx);
                    this.note_write(&result);
                    ready!(result)?;
                    if this.resets {
                        this.inner.reset_when_dropped(false);
                    }
                    this.closing = match this.leaves_bytes_unread() {
                        true => Closing::Lingers(MAX_DISCARDED_BYTES),
                        false => Closing::Done,
                    };
                }
                Closing::Lingers(left) => {
                    this.wire.lingers();
                    let mut scratch = [0; DISCARD_BYTES];
                    let mut sink = ReadBuf::new(&mut scratch);
                    let result = ready!(Pin::new(&mut this.inner).poll_read(cx, &mut sink));
                    let discarded = sink.filled().len();
                    this.closing = match (result, left.checked_sub(discarded)) {
                        (Ok(()), Some(left)) if discarded > 0 => Closing::Lingers(left),
                        _ => Closing::Done,
                    };
                }
            }
        }
    }
}

/// Bytes after a request for an upgrade that are read before it is answered.
const MAX_EARLY_BYTES: usize = 16 * 1024;

/// Bytes of a body that nobody wants that are read so that the client gets to read the answer.
const MAX_DISCARDED_BYTES: usize = 1024 * 1024;

/// How many of them at a time.
const DISCARD_BYTES: usize = 8 * 1024;

#[cfg(test)]
#[path = "io_tests.rs"]
mod tests;
