//! HTTP/1 on one connection, with hyper only while it is needed: between requests a connection is parked, which
//! takes the front and a timer. hyper's buffers would be most of what an idle connection holds.
//!
//! hyper can be let go of where it has nothing left to read or write and the next byte begins a request. It knows
//! nothing then that a new one would not; the number of a request is counted outside of it.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::server::conn::http1::UpgradeableConnection;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWrite;

use super::Handler;
use super::calls::Calls;
use super::drive::Conversation;
use super::front::Front;
use super::handshake::Stream;
use super::worker::Worker;

/// An HTTP/1 connection.
pub(super) struct Http1<H: Handler> {
    worker: Rc<Worker<H>>,
    state: State<H>,
}

enum State<H: Handler> {
    /// Waits for the first byte of a request.
    Parked(Front<Stream>, Calls<H>),
    /// Boxed, so that a parked connection keeps no room for it.
    Speaking(Box<Speaking<H>>),
    /// Says goodbye.
    Ending(Front<Stream>),
    Over,
}

type Speaking<H> = UpgradeableConnection<TokioIo<Front<Stream>>, Calls<H>>;

impl<H: Handler> Http1<H> {
    /// A connection of which nothing has been read.
    pub(super) fn new(worker: Rc<Worker<H>>, front: Front<Stream>, calls: Calls<H>) -> Self {
        Self { worker, state: State::Parked(front, calls) }
    }

    /// What becomes of a parked connection when bytes have arrived, or when it has to end.
    fn unpark(&mut self, has_bytes: bool) {
        self.state = match std::mem::replace(&mut self.state, State::Over) {
            State::Parked(front, calls) if has_bytes => {
                let hyper = self.worker.http1.serve_connection(TokioIo::new(front), calls);
                State::Speaking(Box::new(hyper.with_upgrades()))
            }
            State::Parked(front, _) => State::Ending(front),
            other => other,
        };
    }
}

impl<H: Handler> Future for Http1<H> {
    type Output = hyper::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Parked(front, _) => match front.poll_arrival(cx) {
                    Poll::Ready(arrived) => this.unpark(arrived.unwrap_or(false)),
                    Poll::Pending => {
                        // TLS may have something to say of its own. A failure shows when it is read next.
                        let _ = Pin::new(front).poll_flush(cx);
                        return Poll::Pending;
                    }
                },
                State::Speaking(hyper) => return Pin::new(hyper.as_mut()).poll(cx),
                State::Ending(front) => {
                    // There is nobody to tell that the client did not wait for a proper end.
                    let _ = ready!(Pin::new(front).poll_shutdown(cx));
                    this.state = State::Over;
                }
                State::Over => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<H: Handler> Conversation for Http1<H> {
    fn wind_up(self: Pin<&mut Self>) {
        let this = self.get_mut();
        match &mut this.state {
            State::Speaking(hyper) => Pin::new(hyper.as_mut()).graceful_shutdown(),
            _ => this.unpark(false),
        }
    }

    fn can_park(&self) -> bool {
        matches!(self.state, State::Speaking(_))
    }

    fn park(self: Pin<&mut Self>) {
        let this = self.get_mut();
        this.state = match std::mem::replace(&mut this.state, State::Over) {
            State::Speaking(hyper) => match hyper.into_parts() {
                Some(parts) => State::Parked(parts.io.into_inner(), parts.service),
                None => State::Over,
            },
            other => other,
        };
    }
}
