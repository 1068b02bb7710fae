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
///
/// A writer of HTTP/1 that has the stated length drops the body, and the end of the stream may be in a frame that has
/// not come yet: then the connection waits for it. To reset the stream would be untrue, and servers end connections with
/// many resets.
pub(super) struct Receiving {
    /// `None` once it is left to the connection.
    stream: Option<RecvStream>,
    /// The place of the stream on its connection, until it has ended.
    room: Option<Room>,
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
    pub(super) fn new(stream: RecvStream, room: Room, length: Option<u64>) -> Self {
        let link = room.link.clone();
        let (stream, room) = (Some(stream), Some(room));
        Self { stream, room, taken: 0, link, left: length, data_is_over: false, over: false }
    }

    fn end(&mut self) {
        self.over = true;
        self.room = None;
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        let is_whole = self.left == Some(0) && !self.over;
        if is_whole && let (Some(mut stream), Some(room)) = (self.stream.take(), self.room.take()) {
            let _ = stream.flow_control().release_capacity(self.taken);
            self.link.see_out(stream, room);
        }
    }
}

impl Body for Receiving {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(stream) = this.stream.as_mut().filter(|_| !this.over) else { return Poll::Ready(None) };
        if this.taken > 0 {
            let taken = std::mem::take(&mut this.taken);
            // Fails only for a stream that has ended, which needs no room.
            let _ = stream.flow_control().release_capacity(taken);
        }
        if !this.data_is_over {
            match ready!(stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    this.link.receive();
                    this.left = this.left.map(|left| left.saturating_sub(data.len() as u64));
                    this.taken = data.len();
                    if stream.is_end_stream() {
                        this.end();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => {
                    this.end();
                    return Poll::Ready(Some(Err(cut(error))));
                }
                None => this.data_is_over = true,
            }
        }
        let trailers = ready!(stream.poll_trailers(cx));
        this.end();
        Poll::Ready(match trailers {
            Ok(trailers) => {
                this.link.receive();
                trailers.map(|trailers| Ok(Frame::trailers(trailers)))
            }
            Err(error) => Some(Err(cut(error))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.stream.as_ref().is_none_or(RecvStream::is_end_stream)
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

/// What an answer's body keeps busy: a request that is still being sent, which ends with the body.
pub(super) struct Busy {
    pub(super) _sending: Option<Sending>,
}

impl Carrier for Busy {
    /// The connection is driven by its own task.
    fn poll_carry(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn release(self: Box<Self>) {}
}
