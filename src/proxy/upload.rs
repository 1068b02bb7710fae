//! The body of a request on its way to the application.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use super::Error;
use crate::web::Body;
use crate::web::body::BodyError;

/// A request's body as hyper's client takes it: the client's bytes without its trailers, which could say
/// what the header rules forbid.
pub(super) struct Upload {
    body: Body,
    progress: Option<Rc<Progress>>,
}

/// How far an upload is. Shared between the [`Upload`], which hyper owns, and the exchange that waits.
pub(super) struct Progress {
    /// hyper has taken all of the body, or has given it up.
    over: Cell<bool>,
    /// hyper asked for more, and the client had none.
    starved: Cell<bool>,
    /// Nothing goes out before the application has said `100 Continue`.
    held: Cell<bool>,
    /// The client has sent all of it, and hyper has taken it.
    complete: Cell<bool>,
    moved: Cell<Instant>,
    fault: Cell<Option<Fault>>,
}

#[derive(Clone, Copy)]
enum Fault {
    Stalled,
    Gone,
}

impl Upload {
    /// Wraps `body`; with `held`, it waits for [`Progress::release`].
    pub(super) fn new(body: Body, held: bool) -> (Self, Option<Rc<Progress>>) {
        let progress = (!body.is_end_stream()).then(|| {
            Rc::new(Progress {
                over: Cell::new(false),
                starved: Cell::new(false),
                held: Cell::new(held),
                complete: Cell::new(false),
                moved: Cell::new(Instant::now()),
                fault: Cell::new(None),
            })
        });
        (Self { body, progress: progress.clone() }, progress)
    }

    /// The body of a request without one.
    pub(super) fn empty() -> Self {
        Self { body: Body::Empty, progress: None }
    }
}

impl Progress {
    /// Whether the rest of the body is still to come, and may.
    pub(super) fn is_flowing(&self) -> bool {
        !self.over.get() && !self.held.get()
    }

    /// Whether the application was given the body to its last byte.
    pub(super) fn is_complete(&self) -> bool {
        self.complete.get()
    }

    /// Whether the body waits for [`Progress::release`].
    pub(super) fn is_held(&self) -> bool {
        self.held.get()
    }

    /// Lets the body go.
    pub(super) fn release(&self) {
        self.held.set(false);
        self.moved.set(Instant::now());
    }

    /// Since when the application is the one to move: it is not while the client owes us bytes.
    pub(super) fn waiting_since(&self) -> Instant {
        if self.starved.get() && !self.over.get() { Instant::now() } else { self.moved.get() }
    }

    /// The client's fault in a failed exchange, if it was that.
    pub(super) fn fault(&self) -> Option<Error> {
        self.fault.get().map(|fault| match fault {
            Fault::Stalled => Error::ClientStalled,
            Fault::Gone => Error::ClientGone,
        })
    }

    fn saw(&self, frame: &Poll<Option<Result<Frame<Bytes>, BodyError>>>) {
        self.starved.set(frame.is_pending());
        match frame {
            Poll::Pending => {}
            Poll::Ready(Some(Err(BodyError::Stalled))) => self.fault.set(Some(Fault::Stalled)),
            Poll::Ready(Some(Err(_))) => self.fault.set(Some(Fault::Gone)),
            Poll::Ready(_) => self.moved.set(Instant::now()),
        }
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.progress.as_ref().is_some_and(|progress| progress.is_held()) {
            // The exchange polls the connection again when it releases the body.
            return Poll::Pending;
        }
        loop {
            let frame = Pin::new(&mut self.body).poll_frame(cx);
            if let Some(progress) = &self.progress {
                progress.saw(&frame);
                progress.complete.set(matches!(frame, Poll::Ready(None)) || self.body.is_end_stream());
            }
            match frame {
                Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => {}
                frame => return frame,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(progress) = &self.progress {
            progress.over.set(true);
        }
    }
}
