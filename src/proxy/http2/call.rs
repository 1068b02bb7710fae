//! One request and its answer.

use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::Reason;
use h2::client::ResponseFuture;
use http::{Method, Request, Response, StatusCode, response};
use http_body::Body as _;
use tokio::time::Instant;

use super::Room;
use super::receiving::{Busy, Receiving, stated_length};
use super::sending::Sending;
use crate::proxy::Error;
use crate::proxy::overheard::Heard;
use crate::proxy::upload::{Progress, Upload};
use crate::web::body::PeerBody;
use crate::web::lifeline::{LISTEN_AFTER, Lifeline, until_cut};

/// An answer: its head, and its body unless it has none.
pub(in crate::proxy) struct Answer {
    pub(in crate::proxy) head: response::Parts,
    pub(in crate::proxy) body: Option<PeerBody>,
}

/// How long an answer's head may take, and what comes before it.
#[derive(Clone, Copy)]
pub(in crate::proxy) struct Wait<'a> {
    /// Longest wait, counted from the last progress of the request's body.
    pub(in crate::proxy) limit: Option<Duration>,
    /// When it ends in any case: with the caller's session.
    pub(in crate::proxy) end: Option<Instant>,
    /// Whose cut ends it too.
    pub(in crate::proxy) lifeline: Option<&'a Lifeline>,
    /// Who is told of informational answers meanwhile.
    pub(in crate::proxy) inform: Option<&'a Heard<'a>>,
}

impl Wait<'_> {
    fn poll_answer(
        &self,
        mut answer: Pin<&mut ResponseFuture>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<h2::RecvStream>, h2::Error>> {
        if let Some(inform) = self.inform {
            while let Poll::Ready(Some(Ok(early))) = answer.poll_informational(cx) {
                let (early, ()) = early.into_parts();
                inform(early.status, early.headers);
            }
        }
        answer.poll(cx)
    }
}

/// Why a call gave no answer.
pub(in crate::proxy) enum Failure {
    /// The application has not processed the request and never will: it may be sent again, whatever it is.
    Refused(Box<Request<Upload>>, Error),
    /// The connection, which had served before, ended without an answer. The application may or may not have
    /// seen the request.
    Died(Error),
    /// Another attempt would not help, or not be safe.
    Final(Error),
}

impl Failure {
    /// What the log is told, when there is no other attempt.
    pub(in crate::proxy) fn into_error(self) -> Error {
        match self {
            Failure::Refused(_, error) | Failure::Died(error) | Failure::Final(error) => error,
        }
    }
}

impl Room {
    /// Sends `request`, whose target is absolute, and waits for the head of its answer.
    pub(in crate::proxy) async fn call(
        mut self,
        request: Request<Upload>,
        progress: Option<&Progress>,
        wait: Wait<'_>,
    ) -> Result<Answer, Failure> {
        let (start, had_served) = (Instant::now(), self.link.has_served());
        let (head, upload) = request.into_parts();
        let is_head = head.method == Method::HEAD;
        let ended = upload.is_end_stream();
        let sent = self.sender.send_request(Request::from_parts(head.clone(), ()), ended);
        let again = |upload: Upload| Box::new(Request::from_parts(head.clone(), upload));
        let (answer, stream) = match sent {
            Ok(sent) => sent,
            Err(error) if is_of_connection(&error) => {
                self.link.retire();
                return Err(Failure::Refused(again(upload), Error::Lost(error)));
            }
            // The request can't be expressed in HTTP/2.
            Err(_) => return Err(Failure::Final(Error::BadTarget)),
        };
        let mut unsent = None;
        let mut sending = None;
        if ended {
            unsent = Some(upload);
        } else {
            sending = Some(Sending::begin(upload, stream).await);
        }
        match head_of(answer, progress, wait).await {
            Ok(answer) => {
                self.link.receive();
                self.accept(answer, is_head, sending).map_err(Failure::Final)
            }
            Err(Missed::Late(error)) => {
                // A connection on which nothing at all has come is not for others to try.
                if self.link.heard_at() < start {
                    self.link.retire();
                }
                Err(Failure::Final(error))
            }
            Err(Missed::Failed(error)) => {
                if let Some(fault) = progress.and_then(Progress::fault) {
                    return Err(Failure::Final(fault));
                }
                let back = || unsent.or_else(|| sending.and_then(Sending::take_back));
                if is_unprocessed(&error) {
                    let error = if error.is_reset() { Error::Reset(error) } else { Error::Lost(error) };
                    return Err(match back() {
                        Some(upload) => Failure::Refused(again(upload), error),
                        None => Failure::Final(error),
                    });
                }
                let error = self.explain(error);
                Err(match error {
                    Error::Lost(_) | Error::Unresponsive if had_served => Failure::Died(error),
                    _ => Failure::Final(error),
                })
            }
        }
    }

    fn accept(
        self,
        answer: Response<h2::RecvStream>,
        is_head: bool,
        sending: Option<Sending>,
    ) -> Result<Answer, Error> {
        let (head, stream) = answer.into_parts();
        // What may not have a body (RFC 9110 section 6.4.1) is passed on without what came as one.
        let has_none = is_head || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if stream.is_end_stream() {
            return Ok(Answer { head, body: None });
        }
        if has_none {
            self.link.clone().see_out(stream, self);
            return Ok(Answer { head, body: None });
        }
        let length = stated_length(&head.headers)?;
        let body = Receiving::new(stream, self, length);
        let sending = sending.filter(|sending| !sending.is_over());
        if let Some(sending) = &sending {
            sending.settle();
        }
        let busy = Busy { _sending: sending };
        Ok(Answer { head, body: Some(PeerBody::streaming(Box::new(body), Some(Box::new(busy)))) })
    }

    fn explain(&self, error: h2::Error) -> Error {
        if self.link.is_unresponsive() {
            Error::Unresponsive
        } else if error.is_reset() {
            Error::Reset(error)
        } else {
            Error::Lost(error)
        }
    }
}

/// Why there is no head.
enum Missed {
    Late(Error),
    Failed(h2::Error),
}

async fn head_of(
    answer: ResponseFuture,
    progress: Option<&Progress>,
    wait: Wait<'_>,
) -> Result<Response<h2::RecvStream>, Missed> {
    let start = Instant::now();
    let mut answer = pin!(answer);
    let due = |progress: Option<&Progress>| {
        let since = progress.map_or(start, Progress::waiting_since).max(start);
        [wait.limit.map(|limit| since + limit), wait.end].into_iter().flatten().min()
    };
    let listen = wait.lifeline.map(|_| start + LISTEN_AFTER);
    let Some(first) = [due(None), listen].into_iter().flatten().min() else {
        return poll_fn(|cx| wait.poll_answer(answer.as_mut(), cx)).await.map_err(Missed::Failed);
    };
    let mut timer = pin!(tokio::time::sleep_until(first));
    let mut cut = pin!(until_cut(wait.lifeline));
    let mut listening = false;
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(answer) = wait.poll_answer(answer.as_mut(), cx) {
                return Poll::Ready(answer.map_err(Missed::Failed));
            }
            if listening && cut.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(Missed::Late(Error::SessionEnded)));
            }
            if !timer.is_elapsed() {
                ready!(timer.as_mut().poll(cx));
            }
            let now = Instant::now();
            if wait.end.is_some_and(|end| end <= now) {
                return Poll::Ready(Err(Missed::Late(Error::SessionEnded)));
            }
            match due(progress) {
                Some(due) if due > now => timer.as_mut().reset(due),
                Some(_) => return Poll::Ready(Err(Missed::Late(Error::ResponseTimeout))),
                None if listening => return Poll::Pending,
                None => {}
            }
            listening = true;
        }
    })
    .await
}

/// Whether the peer said that it did not and will not process the request: by REFUSED_STREAM, or by a GOAWAY
/// that leaves it out (RFC 9113 section 8.7). A stream that a GOAWAY does not leave out has no such error.
fn is_unprocessed(error: &h2::Error) -> bool {
    error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM))
}

/// Whether sending failed because of the connection, before anything was sent.
fn is_of_connection(error: &h2::Error) -> bool {
    error.is_io() || error.is_go_away()
}
