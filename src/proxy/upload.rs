//! The body of a request on its way to the application.

use std::cell::Cell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Version};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use super::headers::Mapped;
use super::{Error, trailers};
use crate::web::Body;
use crate::web::body::{BodyError, Counterpart};

/// A request's body as a connection takes it: the client's bytes, and those of its trailers that may cross.
pub(super) struct Upload {
    /// Sent before, on a connection that did not take the request; they come again first.
    again: VecDeque<Bytes>,
    body: Body,
    mapped: Option<Rc<Mapped>>,
    progress: Option<Rc<Progress>>,
    /// It comes over HTTP/2, where an end that the client did not say is none: hyper takes a stream that is reset with
    /// NO_ERROR for a body that is over.
    says_its_end: bool,
}

/// How far an upload is. Shared between the [`Upload`], which the connection owns, and the exchange that waits.
pub(super) struct Progress {
    /// All of the body was taken, or it was given up.
    over: Cell<bool>,
    /// More was asked for, and the client had none.
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
    SessionEnded,
    Trailers,
}

impl Upload {
    /// Wraps the `body` of a request of this `version`; with `held`, it waits for [`Progress::release`].
    pub(super) fn new(
        body: Body,
        version: Version,
        mapped: Rc<Mapped>,
        held: bool,
    ) -> (Self, Option<Rc<Progress>>) {
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
        let says_its_end = version == Version::HTTP_2;
        let (again, mapped) = (VecDeque::new(), Some(mapped));
        (Self { again, body, mapped, progress: progress.clone(), says_its_end }, progress)
    }

    /// The same body for another connection, with the bytes that were taken from it before.
    pub(super) fn rewound(mut self, taken: VecDeque<Bytes>) -> Self {
        self.again = taken;
        self
    }

    /// The body of a request without one.
    pub(super) fn empty() -> Self {
        Self { again: VecDeque::new(), body: Body::Empty, mapped: None, progress: None, says_its_end: false }
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
            Fault::SessionEnded => Error::SessionEnded,
            Fault::Trailers => Error::TrailersTooLarge,
        })
    }

    fn saw(&self, frame: &Poll<Option<Result<Frame<Bytes>, BodyError>>>, held: bool) {
        self.starved.set(frame.is_pending() && !held);
        match frame {
            Poll::Pending => {}
            Poll::Ready(Some(Err(BodyError::Stalled))) => self.fault.set(Some(Fault::Stalled)),
            Poll::Ready(Some(Err(BodyError::SessionEnded))) => self.fault.set(Some(Fault::SessionEnded)),
            Poll::Ready(Some(Err(BodyError::TrailersTooLarge))) => self.fault.set(Some(Fault::Trailers)),
            Poll::Ready(Some(Err(_))) => self.fault.set(Some(Fault::Gone)),
            Poll::Ready(_) => self.moved.set(Instant::now()),
        }
    }
}

impl Counterpart for Progress {
    fn broke_off(&self) -> bool {
        self.fault.get().is_some_and(|fault| matches!(fault, Fault::Gone | Fault::Stalled))
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
        if let Some(bytes) = self.again.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        loop {
            let mut frame = Pin::new(&mut self.body).poll_frame(cx);
            if self.says_its_end && matches!(frame, Poll::Ready(None)) && !self.body.is_end_stream() {
                frame =
                    Poll::Ready(Some(Err(BodyError::Reset("the stream was reset without an error".into()))));
            }
            if let Some(progress) = &self.progress {
                progress.saw(&frame, self.body.is_held());
                progress.complete.set(is_last(&frame) || self.body.is_end_stream());
            }
            match (frame, &self.mapped) {
                (Poll::Ready(Some(Ok(frame))), Some(mapped)) if frame.is_trailers() => {
                    if let Some(trailers) = what_may_cross(frame, mapped) {
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                }
                (frame, _) => return frame,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.again.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Asked for before the first byte is taken only.
        self.body.size_hint()
    }
}

/// Nobody need ask for what comes after trailers.
fn is_last(frame: &Poll<Option<Result<Frame<Bytes>, BodyError>>>) -> bool {
    match frame {
        Poll::Ready(None) => true,
        Poll::Ready(Some(Ok(frame))) => frame.is_trailers(),
        _ => false,
    }
}

fn what_may_cross(frame: Frame<Bytes>, mapped: &Mapped) -> Option<HeaderMap> {
    let mut trailers = frame.into_trailers().ok()?;
    trailers::strip(&mut trailers, mapped);
    (!trailers.is_empty()).then_some(trailers)
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(progress) = &self.progress {
            progress.over.set(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::body::PeerBody;

    /// Gives one piece, and then stops without having said that this is the end.
    struct Given(Option<&'static [u8]>, bool);

    impl http_body::Body for Given {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(Bytes::from_static(bytes)))))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_none() && self.1
        }
    }

    #[test]
    fn an_end_that_was_not_said_is_none_over_http2() {
        for (version, says_it, is_cut) in [
            (Version::HTTP_2, true, false),
            (Version::HTTP_2, false, true),
            (Version::HTTP_11, true, false),
            // There the framing says it, and hyper fails where it does not.
            (Version::HTTP_11, false, false),
        ] {
            let stream = Box::new(Given(Some(b"part"), says_it));
            let body = Body::Peer(Box::new(PeerBody::streaming(stream, None)));
            let (mut upload, progress) = Upload::new(body, version, Rc::new(Mapped::new(&[])), false);
            let mut next =
                || Pin::new(&mut upload).poll_frame(&mut Context::from_waker(std::task::Waker::noop()));
            assert!(matches!(next(), Poll::Ready(Some(Ok(_)))));
            let end = next();
            assert_eq!(matches!(end, Poll::Ready(Some(Err(BodyError::Reset(_))))), is_cut, "{version:?}");
            assert_eq!(matches!(end, Poll::Ready(None)), !is_cut, "{version:?}");
            let progress = progress.unwrap();
            assert_eq!(
                (progress.is_complete(), progress.fault().is_some()),
                (!is_cut, is_cut),
                "{version:?}"
            );
        }
    }
}
