//! The body of an answer on its way out: the handler's, with the connection's bookkeeping around it.

use std::cell::{Cell, OnceCell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::roster::InFlight;
use super::turns::{Ticket, Turns};

/// An answer's body. Its request is under way until it is dropped.
#[derive(Debug)]
pub(super) struct Reply<B> {
    pub(super) body: B,
    pub(super) stream: Option<Rc<StreamClock>>,
    pub(super) _in_flight: InFlight,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Reply<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        let Some(stream) = &this.stream else { return frame };
        stream.asked(frame.is_pending());
        match frame {
            // Who gives the last piece is not asked again.
            Poll::Ready(Some(Ok(frame))) if !this.body.is_end_stream() => {
                Poll::Ready(Some(Ok(frame.map_data(|bytes| stream.give(bytes)))))
            }
            frame => frame,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Since when an HTTP/2 stream has been waiting for its client to take data.
///
/// hyper asks a body for more only when the client's flow control lets it send, so a body that is not asked has a client
/// that does not read. A body that is asked and has nothing to give waits for its client as long as something of what it
/// gave before has not been sent.
#[derive(Debug, Default)]
pub(super) struct StreamClock {
    waiting_since: Cell<Option<Instant>>,
    /// The body had nothing to give when it was last asked.
    is_late: Cell<bool>,
    /// Made for the first of several pieces: most answers have one.
    given: OnceCell<Arc<Given>>,
}

/// Pieces of an answer that have not been sent. They are counted as they are dropped, by whoever writes them.
#[derive(Debug)]
struct Given {
    begun: Instant,
    pieces: AtomicUsize,
    /// When the last of them was sent, in nanoseconds after `begun`.
    sent_after: AtomicU64,
}

struct Piece {
    bytes: Bytes,
    of: Arc<Given>,
}

impl StreamClock {
    /// The answer's head has been given.
    pub(super) fn answered(&self) {
        self.waiting_since.set(Some(Instant::now()));
    }

    /// The body was asked for more. A piece that joins others which the client has not taken is no movement of its.
    fn asked(&self, is_late: bool) {
        self.is_late.set(is_late);
        if self.pieces() == 0 {
            self.waiting_since.set((!is_late).then(Instant::now));
        }
    }

    /// The same bytes, until they are sent.
    fn give(&self, bytes: Bytes) -> Bytes {
        let given = self.given.get_or_init(|| {
            let begun = Instant::now();
            Arc::new(Given { begun, pieces: AtomicUsize::new(0), sent_after: AtomicU64::new(0) })
        });
        given.pieces.fetch_add(1, Relaxed);
        Bytes::from_owner(Piece { bytes, of: given.clone() })
    }

    fn pieces(&self) -> usize {
        self.given.get().map_or(0, |given| given.pieces.load(Relaxed))
    }

    /// Since when the client has taken nothing, if it is the client whom the stream waits for.
    fn waiting_since(&self) -> Option<Instant> {
        let since = self.waiting_since.get()?;
        let Some(given) = self.given.get() else { return Some(since) };
        if self.is_late.get() && given.pieces.load(Relaxed) == 0 {
            self.waiting_since.set(None);
            return None;
        }
        Some(since.max(given.begun + Duration::from_nanos(given.sent_after.load(Relaxed))))
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let after = u64::try_from(self.of.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.of.sent_after.store(after, Relaxed);
        self.of.pieces.fetch_sub(1, Relaxed);
    }
}

/// Runs the streams of one HTTP/2 connection as tasks of this thread, each when it has its turn, and resets those whose
/// client has not taken anything for too long.
#[derive(Clone, Debug)]
pub(super) struct StreamExecutor {
    next: Rc<RefCell<Option<Rc<StreamClock>>>>,
    turns: Rc<Turns>,
    limit: Duration,
}

impl StreamExecutor {
    /// An executor whose streams may stand still for `limit`.
    pub(super) fn new(turns: Rc<Turns>, limit: Duration) -> Self {
        Self { next: Rc::default(), turns, limit }
    }

    /// The clock of the stream that is executed next: hyper calls the service and executes the stream of
    /// that call in one go.
    pub(super) fn clock(&self) -> Rc<StreamClock> {
        let clock = Rc::new(StreamClock::default());
        *self.next.borrow_mut() = Some(clock.clone());
        clock
    }
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for StreamExecutor {
    fn execute(&self, stream: F) {
        let clock = self.next.borrow_mut().take();
        let (turns, limit) = (self.turns.clone(), self.limit);
        let stream = Box::pin(stream);
        tokio::task::spawn_local(async move {
            match clock {
                Some(clock) => bounded(stream, &turns, &clock, limit).await,
                // What writes a tunnel's bytes. Tunnels may stand still; a client that takes nothing of one that
                // has ended keeps a stream of its own for it, until its connection is idle.
                None => stream.await,
            }
        });
    }
}

/// Runs `stream` to its end, or until its client has kept it waiting for `limit`: dropping it resets it.
///
/// It comes in a box: a task is moved on its way to its place, and this one is not small.
async fn bounded(
    mut stream: Pin<Box<impl Future<Output = ()>>>,
    turns: &Turns,
    clock: &StreamClock,
    limit: Duration,
) {
    let (mut alarm, mut ticket) = (None, Ticket::default());
    std::future::poll_fn(|cx| {
        ready!(turns.poll_turn(&mut ticket, cx));
        loop {
            if stream.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let Some(since) = clock.waiting_since() else { return Poll::Pending };
            let alarm = alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(since + limit)));
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if Instant::now() >= since + limit {
                return Poll::Ready(());
            }
            // The alarm was set for an earlier wait.
            alarm.as_mut().reset(since + limit);
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::super::roster::Roster;
    use super::*;

    /// Gives a piece each time that it has one.
    #[derive(Default)]
    struct Dripping(Rc<Cell<usize>>);

    impl Body for Dripping {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            match self.0.get().checked_sub(1) {
                Some(left) => {
                    self.0.set(left);
                    Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"drop")))))
                }
                None => Poll::Pending,
            }
        }
    }

    #[test]
    fn a_client_is_timed_from_what_it_took_last_and_not_while_the_body_is_late() {
        let roster = Rc::new(Roster::default());
        let (activity, _presence) = roster.enter();
        let (stream, source) = (Rc::new(StreamClock::default()), Rc::new(Cell::new(0)));
        let mut reply = Reply {
            body: Dripping(source.clone()),
            stream: Some(stream.clone()),
            _in_flight: activity.begin_tunnel(),
        };
        let mut ask = |pieces| {
            source.set(pieces);
            match Pin::new(&mut reply).poll_frame(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Some(Ok(frame))) => Some(frame.into_data().unwrap()),
                _ => None,
            }
        };
        let since = || stream.waiting_since();
        stream.answered();
        assert_eq!(ask(0), None);
        assert_eq!(since(), None, "the body is late");
        let before = Instant::now();
        let first = ask(1).unwrap();
        let begun = since();
        assert!(begun >= Some(before));
        let next = ask(1).unwrap();
        assert_eq!(since(), begun, "nothing was taken yet");
        assert_eq!(ask(0), None);
        assert_eq!(since(), begun, "late, and the client as well");
        let before = Instant::now();
        drop(first);
        let taken = since();
        assert!(taken >= Some(before) && taken > begun, "a piece was taken");
        assert_eq!(ask(0), None);
        assert_eq!(since(), taken);
        drop(next);
        assert_eq!(since(), None, "all was taken");
        let before = Instant::now();
        let _last = ask(1).unwrap();
        assert!(since() >= Some(before));
    }
}
