//! One connection to the application, and one request and answer on it.
//!
//! A connection has no task of its own: hyper's connection future is polled by whoever waits for the
//! answer, then by whoever reads its body.

use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::{EXPECT, HeaderMap};
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};

use super::Error;
use super::bell::Bell;
use super::headers::KEEP_ALIVE;
use super::io::Io;
use super::overheard::{Ear, Heard, Overheard};
use super::pool::Pool;
use super::upload::{Progress, Upload};
use super::written::Written;
use crate::web::body::Carrier;
use crate::web::lifeline::{Lifeline, until_cut};

/// A connection to the application.
pub(super) struct Conn {
    sender: SendRequest<Upload>,
    connection: Connection<TokioIo<Overheard<Io>>, Upload>,
    ear: Rc<Ear>,
    written: Rc<Written>,
    bell: Arc<Bell>,
    /// The bell's.
    waker: Waker,
    /// How often the bell had rung when this was last settled.
    settled_at: u64,
    /// hyper's future has ended; it may not be polled again.
    over: bool,
    /// For how long the last answer allows the connection to wait for another request, if it does.
    keep: Option<Duration>,
    idle_until: Instant,
    idle_limit: Duration,
    /// One timer for all the waits of this connection's life: setting it later is nearly free.
    timer: Pin<Box<Sleep>>,
    home: Weak<Pool>,
    /// Takes answers with many fields.
    is_wide: bool,
}

/// Largest head of an answer, status line included. Also the most that is read of its body at a time: what is read
/// should still be near the processor when it is encrypted.
const MAX_ANSWER_HEAD_BYTES: usize = 128 * 1024;

/// How long the body of a request with `Expect: 100-continue` is held back for an application that does not
/// say a word (RFC 9110 section 10.1.1: "for a reasonable period").
const EXPECT_PATIENCE: Duration = Duration::from_secs(1);

/// Most fields of an answer on a connection that is made for many; on others hyper takes 100. Room for more is
/// made on the heap for every answer, so it is made only where it was once missing.
const MAX_ANSWER_FIELDS: usize = 256;

/// Why an exchange gave no answer.
pub(super) enum Failure {
    /// Not a byte of the request was written: it may be sent on another connection, whatever it is.
    Unsent(Box<Request<Upload>>, hyper::Error),
    /// The connection ended before an answer. The application may or may not have seen the request.
    Died(hyper::Error),
    /// The head of the answer has more fields, or is longer, than this connection takes.
    TooLarge(hyper::Error),
    /// No other connection would help.
    Final(Error),
}

impl Failure {
    /// What the log is told, when there is no other attempt.
    pub(super) fn into_error(self) -> Error {
        match self {
            Failure::Unsent(_, error) | Failure::Died(error) => Error::Died(error),
            Failure::TooLarge(error) => Error::NotHttp(error),
            Failure::Final(error) => error,
        }
    }
}

impl Conn {
    /// HTTP/1.1 over `io`. Between requests it waits in the pool `home`, for at most `idle_limit`.
    pub(super) async fn new(io: Io, home: &Rc<Pool>, idle_limit: Duration) -> Result<Box<Self>, Error> {
        let mut builder = Builder::new();
        builder.max_header_size(MAX_ANSWER_HEAD_BYTES).max_buf_size(MAX_ANSWER_HEAD_BYTES);
        let is_wide = home.is_wide();
        if is_wide {
            builder.max_headers(MAX_ANSWER_FIELDS);
        }
        let bell = Arc::new(Bell::default());
        let (io, ear, written) = Overheard::new(io, bell.clone());
        let handshake = builder.handshake(TokioIo::new(io));
        let (sender, connection) = handshake.await.map_err(Error::Died)?;
        let now = Instant::now();
        Ok(Box::new(Self {
            sender,
            connection,
            ear,
            written,
            waker: bell.clone().into(),
            bell,
            settled_at: 0,
            over: false,
            keep: None,
            idle_until: now,
            idle_limit,
            timer: Box::pin(tokio::time::sleep_until(now)),
            home: Rc::downgrade(home),
            is_wide,
        }))
    }

    /// Sends `outgoing`, which is taken, and waits for the head of its answer: at most `limit` from `start`, which is
    /// now, or from the last byte of the body that the client gave and the application took. `inform` is told of what
    /// comes before the answer. A body
    /// that still flows when `lifeline` is cut ends there.
    pub(super) async fn exchange(
        &mut self,
        outgoing: &mut Option<Request<Upload>>,
        progress: Option<&Progress>,
        (start, limit): (Instant, Duration),
        inform: Option<&Heard<'_>>,
        lifeline: Option<&Lifeline>,
    ) -> Result<Response<Incoming>, Failure> {
        self.ear.listen(inform.is_some());
        let mut consent = outgoing.as_mut().and_then(|request| Consent::listen(request, progress, limit));
        let request = outgoing.take().ok_or(Failure::Final(Error::BadTarget))?;
        let mut answer = pin!(self.sender.try_send_request(request));
        let mut cut = pin!(until_cut(lifeline));
        self.timer.as_mut().reset(start + limit);
        std::future::poll_fn(|cx| {
            loop {
                let _ = self.poll_drive(cx);
                self.ear.tell(inform);
                // Only the line above can bring the answer, so there is nobody to wake.
                if let Poll::Ready(answer) = answer.as_mut().poll(&mut asleep()) {
                    return Poll::Ready(answer.map_err(|error| classify(error, progress)));
                }
                if consent.as_mut().is_some_and(|consent| consent.poll(cx).is_ready()) {
                    consent = None;
                    // hyper says so to clients of HTTP/1.1 when it is asked for the body.
                    if let Some(inform) = inform {
                        inform(StatusCode::CONTINUE, HeaderMap::new());
                    }
                    continue;
                }
                // An application that takes nothing keeps the body from noticing it.
                if progress.is_some_and(Progress::is_flowing) && cut.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(Failure::Final(Error::SessionEnded)));
                }
                std::task::ready!(self.timer.as_mut().poll(cx));
                let since = progress.map_or(start, Progress::waiting_since).max(start);
                if since + limit <= Instant::now() {
                    return Poll::Ready(Err(Failure::Final(Error::ResponseTimeout)));
                }
                self.timer.as_mut().reset(since + limit);
            }
        })
        .await
        .inspect(|answer| self.keep = keep_for(answer.version(), answer.headers()))
    }

    /// Whether what is written from now on is kept, to be [`Self::written`] again.
    pub(super) fn keep_written(&self, keeps: bool) {
        self.written.begin(keeps);
    }

    /// The request that was written last, if it was kept.
    pub(super) fn written(&self) -> Option<Request<Upload>> {
        self.written.request()
    }

    /// The naked connection and what was read ahead, after a `101` has ended HTTP on it.
    pub(super) async fn into_io(mut self: Box<Self>) -> (Io, Bytes) {
        std::future::poll_fn(|cx| self.poll_drive(cx)).await;
        let parts = self.connection.into_parts();
        (parts.io.into_inner().into_inner(), parts.read_buf)
    }

    /// Moves what can be moved. The task of `cx` is woken when there is more.
    fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.bell.listen(cx);
        self.drive()
    }

    fn drive(&mut self) -> Poll<()> {
        let mut cx = Context::from_waker(&self.waker);
        if !self.over && Pin::new(&mut self.connection).poll(&mut cx).is_ready() {
            // An error has gone to the answer or its body already.
            self.over = true;
        }
        if self.over { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Whether another request may be tried on this connection. Looks, without waiting, at what came in
    /// since: the end, as a rule.
    pub(super) fn is_open(&mut self, now: Instant) -> bool {
        now < self.idle_until && (self.settled_at == self.bell.rings() || self.drive().is_pending())
    }

    pub(super) fn is_wide(&self) -> bool {
        self.is_wide
    }

    /// Finishes what the last exchange left and tells whether another one may follow.
    pub(super) fn settle(&mut self) -> bool {
        let Some(keep) = self.keep.take() else { return false };
        self.idle_until = Instant::now() + keep.min(self.idle_limit);
        self.bell.leave();
        // Before the look: what happens after it is heard of.
        self.settled_at = self.bell.rings();
        // Not ready: the application answered before it had read all of the request.
        self.drive().is_pending() && self.sender.is_ready()
    }
}

impl Carrier for Conn {
    fn poll_carry(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_drive(cx)
    }

    fn muffle(&self, muffled: bool) {
        self.bell.muffle(muffled);
    }

    fn release(self: Box<Self>) {
        if let Some(pool) = self.home.upgrade() {
            pool.put(self);
        }
    }
}

/// A connection driven by a task of its own. For an answer that begins while the request's body is still
/// on its way: the body has to go on even when the client is slow to take the answer.
pub(super) struct Background(JoinHandle<()>);

impl Background {
    pub(super) fn spawn(mut conn: Box<Conn>) -> Self {
        Self(tokio::task::spawn_local(std::future::poll_fn(move |cx| conn.poll_drive(cx))))
    }
}

impl Carrier for Background {
    fn poll_carry(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    /// Such a connection is not used again.
    fn release(self: Box<Self>) {}
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The application's `100 Continue`, or the end of our patience: either lets the body go.
struct Consent<'a> {
    given: Arc<AtomicBool>,
    patience: Pin<Box<Sleep>>,
    progress: &'a Progress,
}

impl<'a> Consent<'a> {
    fn listen(
        request: &mut Request<Upload>,
        progress: Option<&'a Progress>,
        limit: Duration,
    ) -> Option<Self> {
        let progress = progress.filter(|progress| progress.is_held())?;
        let given = Arc::new(AtomicBool::new(false));
        let heard = given.clone();
        // An application that ignores the expectation still has half of its time for the answer.
        let patience = EXPECT_PATIENCE.min(limit / 2);
        hyper::ext::on_informational(request, move |answer| {
            if answer.status() == StatusCode::CONTINUE {
                heard.store(true, Ordering::Relaxed);
            }
        });
        Some(Self { given, patience: Box::pin(tokio::time::sleep(patience)), progress })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.given.load(Ordering::Relaxed) || self.patience.as_mut().poll(cx).is_ready() {
            self.progress.release();
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

/// Whether the client waits for `100 Continue` before it sends the body that it announces.
pub(super) fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

fn classify(
    mut error: hyper::client::conn::TrySendError<Request<Upload>>,
    progress: Option<&Progress>,
) -> Failure {
    let unsent = error.take_message();
    let error = error.into_error();
    if let Some(request) = unsent {
        return Failure::Unsent(Box::new(request), error);
    }
    if let Some(fault) = progress.and_then(Progress::fault) {
        return Failure::Final(fault);
    }
    if error.is_parse_too_large() {
        return Failure::TooLarge(error);
    }
    if error.is_parse() {
        return Failure::Final(Error::NotHttp(error));
    }
    Failure::Died(error)
}

/// How long the application is willing to wait for the next request. An application that speaks HTTP/1.0
/// gets none: hyper would then speak it too, and leave out bodies of unknown length.
fn keep_for(version: Version, headers: &HeaderMap) -> Option<Duration> {
    if version != Version::HTTP_11 {
        return None;
    }
    let hint = headers.get(KEEP_ALIVE).and_then(|value| {
        let mut parameters = value.to_str().ok()?.split(',');
        parameters.find_map(|parameter| parameter.trim().strip_prefix("timeout=")?.parse::<u32>().ok())
    });
    Some(match hint {
        // A little less than it says, so that we are the ones who close first.
        Some(seconds) => Duration::from_secs(seconds.into()) * 4 / 5,
        None => Duration::MAX,
    })
}

/// For polls that only look.
fn asleep() -> Context<'static> {
    Context::from_waker(Waker::noop())
}
