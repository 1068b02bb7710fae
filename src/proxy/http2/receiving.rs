//! The body of an answer on its way out of a stream.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};

use super::Room;
use super::link::Link;
use super::sending::Sending;
use crate::proxy::Error;
use crate::web::body::{BodyError, Carrier};

/// An answer's body. What the application may send is given back to it as its bytes are taken, and that is when more is
/// asked for: whoever holds on to a piece gets the rest of a window, and no more.
pub(super) struct Receiving {
    stream: RecvStream,
    /// Bytes of the last piece.
    taken: usize,
    link: Rc<Link>,
    /// What is left of a length that was stated. That it is kept is seen to by h2.
    left: Option<u64>,
    data_is_over: bool,
    /// The end has been seen. The stream itself forgets it when the rest of the request is given up.
    over: bool,
}

impl Receiving {
    pub(super) fn new(stream: RecvStream, link: Rc<Link>, length: Option<u64>) -> Self {
        Self { stream, taken: 0, link, left: length, data_is_over: false, over: false }
    }
}

impl Body for Receiving {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if self.taken > 0 {
            let taken = std::mem::take(&mut self.taken);
            // Fails only for a stream that has ended, which needs no room.
            let _ = self.stream.flow_control().release_capacity(taken);
        }
        if !self.data_is_over {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    self.link.receive();
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    self.taken = data.len();
                    self.over = self.stream.is_end_stream();
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(cut(error)))),
                None => self.data_is_over = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => {
                self.link.receive();
                self.over = true;
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Err(error) => Poll::Ready(Some(Err(cut(error)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// An answer that ends before its end. The reason goes on to clients of HTTP/2, but only as far as it is true
/// for them: `NO_ERROR` would make half an answer look whole, and `REFUSED_STREAM` invite to a repetition of
/// what was done.
fn cut(error: h2::Error) -> BodyError {
    let error = match error.reason() {
        None | Some(Reason::CANCEL | Reason::INTERNAL_ERROR | Reason::ENHANCE_YOUR_CALM) => error,
        Some(_) => Reason::INTERNAL_ERROR.into(),
    };
    BodyError::Reset(Box::new(error))
}

/// The length that an answer states.
pub(super) fn stated_length(headers: &HeaderMap) -> Result<Option<u64>, Error> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return Ok(None) };
    let length = first.to_str().ok().and_then(|text| text.parse().ok());
    match length {
        Some(_) if lengths.all(|other| other == first) => Ok(length),
        _ => Err(Error::BadAnswer("its Content-Length is not one number")),
    }
}

/// What an answer's body keeps busy: the place on its connection, and a request that is still being sent. Both
/// end with the body.
pub(super) struct Busy {
    pub(super) _room: Room,
    pub(super) _sending: Option<Sending>,
}

impl Carrier for Busy {
    /// The connection is driven by its own task.
    fn poll_carry(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn release(self: Box<Self>) {}
}
