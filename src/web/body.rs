//! The one body type: of the requests that we forward, the answers that we pass on, and the pages that
//! we make ourselves.
//!
//! Owns the deadlines of a streamed body, the count of its bytes, how far it may be ahead of its reader, and the rule
//! that a body cut short is an error and never a clean end, unless its reader knows better. May not know where a body
//! comes from beyond hyper, nor who counts.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::deadline::Deadline;
use super::lifeline::Lifeline;
use super::trailers::{is_too_large, without_forbidden};
use super::transit::Transit;

/// A message body. Not `Send`: it lives and dies on the worker that made it.
#[derive(Debug, Default)]
pub enum Body {
    /// Nothing.
    #[default]
    Empty,
    /// Bytes that are all here.
    Full(Bytes),
    /// What a peer is sending, as it comes. Boxed: most messages have none, and every message is moved.
    Peer(Box<PeerBody>),
}

impl Body {
    /// Tells `observer` what passes from here on, and the end. A body that is already here is reported
    /// at once.
    pub fn observe(mut self, flow: Flow, observer: Rc<dyn Observer>) -> Self {
        match &mut self {
            Body::Peer(peer) => peer.observer = Some((flow, observer)),
            Body::Full(bytes) => report_whole(&*observer, flow, bytes.len()),
            Body::Empty => report_whole(&*observer, flow, 0),
        }
        self
    }
}

impl Body {
    /// Whether nothing is asked of the peer now, because what came before has not been taken: it is the reader who is
    /// slow, and not the peer.
    pub fn is_held(&self) -> bool {
        match self {
            Body::Peer(peer) => peer.transit.as_ref().is_some_and(Transit::is_over),
            Body::Empty | Body::Full(_) => false,
        }
    }
}

fn report_whole(observer: &dyn Observer, flow: Flow, bytes: usize) {
    flow.count(observer, bytes);
    if flow == Flow::ToClient {
        observer.ended(End::Complete);
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Body::Empty => Poll::Ready(None),
            Body::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Body::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Body::Peer(peer) => peer.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Empty => true,
            Body::Full(bytes) => bytes.is_empty(),
            Body::Peer(peer) => peer.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Empty => SizeHint::with_exact(0),
            Body::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Body::Peer(peer) => peer.incoming.size_hint(),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Body::Empty } else { Body::Full(bytes) }
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

/// What a peer is sending. Waits at most the idle limit for the next bytes; what the peer broke off is an
/// error.
pub struct PeerBody {
    // Dropped before the carrier, so that a connection never outlives the interest in what it brings.
    incoming: Source,
    carrier: Option<Box<dyn Carrier>>,
    deadline: Deadline,
    observer: Option<(Flow, Rc<dyn Observer>)>,
    farewell: Farewell,
    /// Made for the first of several pieces: most bodies have one.
    transit: Option<Transit>,
    /// It is an answer's: what was given before it failed is to reach the client, and with it that there was an answer.
    is_answer: bool,
    /// The other direction of the same exchange.
    counterpart: Option<Rc<dyn Counterpart>>,
    /// Why it failed, and how many turns whoever writes it still has to send what came before.
    failed: Option<(BodyError, u8)>,
    over: bool,
}

impl PeerBody {
    /// Wraps what hyper receives. `carrier` is the connection that brings it, where the reader of the body
    /// is the one who drives that connection.
    pub fn new(incoming: Incoming, carrier: Option<Box<dyn Carrier>>) -> Self {
        Self::from_source(Source::Hyper(incoming), carrier)
    }

    /// Wraps what arrives in another way than by hyper.
    pub fn streaming(stream: Box<dyn Stream>, carrier: Option<Box<dyn Carrier>>) -> Self {
        Self::from_source(Source::Other(stream), carrier)
    }

    fn from_source(incoming: Source, carrier: Option<Box<dyn Carrier>>) -> Self {
        Self {
            is_answer: carrier.is_some(),
            counterpart: None,
            failed: None,
            incoming,
            carrier,
            deadline: Deadline::default(),
            observer: None,
            farewell: Farewell::default(),
            transit: None,
            over: false,
        }
    }

    /// The longest wait for the next bytes; `None` is for streams that are quiet by nature.
    pub fn set_idle_limit(&mut self, limit: Option<Duration>) {
        self.deadline.idle = limit;
    }

    /// The session that the body belongs to: when it ends at `end`, or `lifeline` is cut, so does the body, however
    /// busy it is. Bytes of the body are its movement.
    pub fn belongs_to(&mut self, end: Option<Instant>, lifeline: Option<Rc<Lifeline>>) {
        self.deadline.end = end;
        self.deadline.lifeline = lifeline;
    }

    /// The body that its sender is receiving meanwhile.
    pub fn set_counterpart(&mut self, counterpart: Rc<dyn Counterpart>) {
        self.counterpart = Some(counterpart);
    }

    /// How the reader is told of that end.
    pub fn set_farewell(&mut self, farewell: Farewell) {
        self.farewell = farewell;
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if self.failed.is_some() {
            return self.poll_failed(cx);
        }
        if self.deadline.is_cut() && !self.incoming.is_end_stream() {
            return Poll::Ready(self.part());
        }
        if self.transit.as_ref().is_some_and(|transit| transit.must_wait(cx)) {
            return match self.deadline.poll_held(cx) {
                Poll::Ready(BodyError::SessionEnded) => Poll::Ready(self.part()),
                Poll::Ready(missed) => {
                    self.carrier = None;
                    self.finish(End::Untaken);
                    self.fail(missed, cx)
                }
                Poll::Pending => Poll::Pending,
            };
        }
        let frame = match self.poll_incoming(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => match self.deadline.poll(cx) {
                Poll::Ready(BodyError::SessionEnded) => return Poll::Ready(self.part()),
                Poll::Ready(missed) => Some(Err(missed)),
                Poll::Pending => return Poll::Pending,
            },
        };
        self.deadline.moved();
        let frame = match frame {
            Some(Ok(frame)) if frame.trailers_ref().is_some_and(is_too_large) => {
                Some(Err(BodyError::TrailersTooLarge))
            }
            frame => frame,
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if let (Some(bytes), Some((flow, observer))) = (frame.data_ref(), &self.observer) {
                    flow.count(&**observer, bytes.len());
                }
                // Whoever writes trailers need not ask for what comes after them.
                if frame.is_trailers() || self.incoming.is_end_stream() {
                    self.finish(End::Complete);
                    if self.transit.is_none() {
                        return Poll::Ready(Some(Ok(without_forbidden(frame))));
                    }
                }
                let transit = self.transit.get_or_insert_default();
                Some(Ok(without_forbidden(frame.map_data(|bytes| transit.carry(bytes)))))
            }
            Some(Err(error)) => {
                self.carrier = None;
                self.finish(match error {
                    BodyError::Stalled => End::Stalled,
                    // What its sender can't have whole, it can't answer.
                    _ if self.counterpart.as_ref().is_some_and(|upload| upload.broke_off()) => End::Abandoned,
                    _ => End::Cut,
                });
                return self.fail(error, cx);
            }
            None => {
                self.finish(End::Complete);
                None
            }
        })
    }

    /// hyper and h2 drop what they have not sent, the head too, as soon as a body fails: a client that was told nothing
    /// takes the connection for one that was just closing, and repeats the request. So an answer's failure comes when
    /// they have had the turns to send what came before.
    fn fail(
        &mut self,
        error: BodyError,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.failed = Some((error, if self.is_answer { TURNS_TO_SEND } else { 0 }));
        self.poll_failed(cx)
    }

    fn poll_failed(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.failed {
            Some((_, turns @ 1..)) => {
                *turns -= 1;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            failed => Poll::Ready(failed.take().map(|(error, _)| Err(error))),
        }
    }

    /// The end of a body whose session has ended.
    fn part(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        self.over = true;
        self.carrier = None;
        self.finish(End::SessionEnded);
        match self.farewell {
            Farewell::Error => Some(Err(BodyError::SessionEnded)),
            Farewell::End => None,
            Farewell::GrpcStatus => Some(Ok(Frame::trailers(unauthenticated()))),
        }
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut frame = self.take_frame(cx);
        if frame.is_pending()
            && let Some(carrier) = &mut self.carrier
        {
            if carrier.poll_carry(cx).is_ready() {
                self.carrier = None;
            }
            frame = self.take_frame(cx);
        }
        frame
    }

    fn take_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(carrier) = &self.carrier else { return self.incoming.poll_frame(cx) };
        carrier.muffle(true);
        let frame = self.incoming.poll_frame(cx);
        carrier.muffle(false);
        frame
    }

    fn finish(&mut self, end: End) {
        if let Some(carrier) = self.carrier.take() {
            carrier.release();
        }
        if let Some((Flow::ToClient, observer)) = self.observer.take() {
            observer.ended(end);
        }
    }
}

impl Drop for PeerBody {
    fn drop(&mut self) {
        // Who has all bytes that were announced need not ask for the end, and writers of HTTP/1 don't.
        let is_whole = self.failed.is_none() && self.incoming.size_hint().exact() == Some(0);
        self.carrier = None;
        self.finish(if is_whole { End::Complete } else { End::Abandoned });
    }
}

impl fmt::Debug for PeerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerBody").finish_non_exhaustive()
    }
}

/// One for hyper to send what it has; over HTTP/2 the task of the connection sends, and has to come between.
const TURNS_TO_SEND: u8 = 2;

/// A body that arrives in another way than by hyper.
pub trait Stream: http_body::Body<Data = Bytes, Error = BodyError> + Unpin {}

impl<S: http_body::Body<Data = Bytes, Error = BodyError> + Unpin> Stream for S {}

enum Source {
    Hyper(Incoming),
    Other(Box<dyn Stream>),
}

impl Source {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Source::Hyper(incoming) => Pin::new(incoming)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(BodyError::Cut))),
            Source::Other(stream) => Pin::new(stream).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Source::Hyper(incoming) => incoming.is_end_stream(),
            Source::Other(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Source::Hyper(incoming) => incoming.size_hint(),
            Source::Other(stream) => stream.size_hint(),
        }
    }
}

/// How the reader of a body is told that the session ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Farewell {
    /// By an error: nobody may take what came for the whole.
    #[default]
    Error,
    /// As if it were complete: for streams of which no part is the last, and whose reader comes again.
    End,
    /// By the status UNAUTHENTICATED of a gRPC call.
    GrpcStatus,
}

/// What a gRPC call ends with (gRPC over HTTP/2, "Responses").
fn unauthenticated() -> HeaderMap {
    [("grpc-status", "16"), ("grpc-message", "the session ended")]
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .into_iter()
        .collect()
}

/// The connection that a body arrives on, driven by whoever reads the body: no task, no channel and no
/// wake-up of their own.
pub trait Carrier {
    /// Moves bytes. Ready once the connection is over; it is not polled again then.
    fn poll_carry(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// While it is muffled, the connection wakes nobody: its reader takes bytes from it, and asks for more by itself.
    fn muffle(&self, _muffled: bool) {}

    /// The body was read to its end: the connection may serve again. A carrier that is dropped instead
    /// takes its connection with it.
    fn release(self: Box<Self>);
}

/// The body of the request that an answer belongs to.
pub trait Counterpart {
    /// Whether the client broke it off.
    fn broke_off(&self) -> bool;
}

/// Which way a body flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The body of a request.
    FromClient,
    /// The body of an answer.
    ToClient,
}

impl Flow {
    fn count(self, observer: &dyn Observer, bytes: usize) {
        match self {
            Flow::FromClient => observer.received(bytes),
            Flow::ToClient => observer.sent(bytes),
        }
    }
}

/// Is told what passes through the bodies (or the tunnel) of one exchange.
pub trait Observer {
    /// So many more bytes came from the client.
    fn received(&self, bytes: usize);

    /// So many more bytes went to the client.
    fn sent(&self, bytes: usize);

    /// The answer is over. Called exactly once.
    fn ended(&self, end: End);
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With its last byte, as handed to the connection.
    Complete,
    /// By the sender, before its last byte; the client was made to notice.
    Cut,
    /// By us, because nothing came for as long as the idle limit; the client was made to notice.
    Stalled,
    /// By us, because the client took nothing for that long.
    Untaken,
    /// By us, because the session ended; the client was made to notice.
    SessionEnded,
    /// By us, because the process drains; the client was made to notice.
    Closed,
    /// The client went away.
    Abandoned,
}

/// Why a body ended before its last byte.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The peer, or the connection to it, broke off.
    #[error("the body was cut short: {0}")]
    Cut(#[source] hyper::Error),
    /// The peer reset the stream, or the connection broke; the source is for whoever passes it on.
    #[error("the body was cut short: {0}")]
    Reset(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing came for as long as the idle limit.
    #[error("the body stalled for longer than limits.bodyIdleTimeout")]
    Stalled,
    /// The session that this body belongs to has ended.
    #[error("the session ended before the body did")]
    SessionEnded,
    /// The trailers have more than [`MAX_TRAILER_BYTES`](super::trailers::MAX_TRAILER_BYTES).
    #[error("the trailers after the body are larger than 64 KiB")]
    TrailersTooLarge,
}
