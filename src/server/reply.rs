//! The body of an answer on its way out: the handler's, with the connection's bookkeeping around it.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
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
    /// See [`super::Handler::is_held`].
    pub(super) is_held: fn(&B) -> bool,
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
        if let Some(stream) = &this.stream {
            match frame.is_pending() && (this.is_held)(&this.body) {
                true => stream.go_on_waiting(),
                false => stream.set_waiting(frame.is_ready()),
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Since when an HTTP/2 stream has been waiting for its client to take data. hyper asks a body for more only
/// when the client's flow control lets it send, so a body that is not asked has a client that does not read.
#[derive(Debug, Default)]
pub(super) struct StreamClock {
    waiting_since: Cell<Option<Instant>>,
}

impl StreamClock {
    /// Whether the stream waits for its client, from now on.
    pub(super) fn set_waiting(&self, waiting: bool) {
        self.waiting_since.set(waiting.then(Instant::now));
    }

    /// The stream waits for its client, since when it began to, or from now on: what it has not taken may have begun to
    /// hold the body up just now.
    fn go_on_waiting(&self) {
        self.waiting_since.set(Some(self.waiting_since.get().unwrap_or_else(Instant::now)));
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
            let Some(since) = clock.waiting_since.get() else { return Poll::Pending };
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

    /// Gives nothing, and says whether that is for want of its client.
    struct Quiet(Cell<bool>);

    impl Body for Quiet {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Pending
        }
    }

    #[test]
    fn a_client_is_timed_while_it_holds_a_body_up_and_not_while_the_body_is_late() {
        let roster = Rc::new(Roster::default());
        let (activity, _presence) = roster.enter();
        let stream = Rc::new(StreamClock::default());
        let mut reply = Reply {
            body: Quiet(Cell::new(false)),
            stream: Some(stream.clone()),
            is_held: |body: &Quiet| body.0.get(),
            _in_flight: activity.begin_tunnel(),
        };
        let mut since = |is_held| {
            reply.body.0.set(is_held);
            let frame = Pin::new(&mut reply).poll_frame(&mut Context::from_waker(Waker::noop()));
            assert!(frame.is_pending());
            stream.waiting_since.get()
        };
        assert_eq!(since(false), None);
        let held = since(true);
        assert!(held.is_some(), "held up from now on");
        assert_eq!(since(true), held, "and not only since the last look");
        assert_eq!(since(false), None);
    }
}
