//! The body of a request, and what becomes of it when nobody wants it any more.
//!
//! An HTTP/1 client that has begun to send a body often reads nothing before it has sent all of it. If the rest were
//! left where it is, such a client and an answer that is larger than the buffers between us would wait for each other;
//! and whoever closes a connection over unread bytes resets it, and the answer is lost with it (RFC 9112 section 9.6).
//! So the rest is read and thrown away, beside the answer. HTTP/2 has streams that can be reset, and needs none of
//! this.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

/// The body of a request as the handler gets it. Dropped before its end, it is read on for a while.
#[derive(Debug)]
pub struct RequestBody {
    /// Taken when it is dropped.
    incoming: Option<Incoming>,
    /// Its rest would be in the way: it is one of HTTP/1.1.
    blocks: bool,
    /// Nothing of it comes before it has been asked for.
    waits: bool,
    /// When something of it came, or it began.
    moved: Instant,
}

impl RequestBody {
    /// What an HTTP/1.1 client sends. One that `waits` to be asked for it (RFC 9110 section 10.1.1) sends nothing before
    /// the body is read for the first time.
    pub(super) fn http11(incoming: Incoming, waits: bool) -> Self {
        Self { incoming: Some(incoming), blocks: true, waits, moved: Instant::now() }
    }

    /// What a client sends over HTTP/2; and over HTTP/1.0, where it may wait for the end of the connection.
    pub(super) fn other(incoming: Incoming) -> Self {
        Self { incoming: Some(incoming), blocks: false, waits: false, moved: Instant::now() }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.waits = false;
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let frame = Pin::new(incoming).poll_frame(cx);
        if self.blocks && frame.is_ready() {
            self.moved = Instant::now();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(SizeHint::default, Incoming::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let is_coming = self.blocks && !self.waits;
        if let Some(rest) = self.incoming.take().filter(|rest| is_coming && !rest.is_end_stream()) {
            tokio::task::spawn_local(discard(rest, self.moved));
        }
    }
}

/// Ends with the body, with its connection, or when it has taken too long since something came.
async fn discard(mut rest: Incoming, mut moved: Instant) {
    let end = Instant::now() + AT_MOST;
    while let Ok(Some(Ok(_))) = timeout_at(end.min(moved + SILENCE), rest.frame()).await {
        moved = Instant::now();
    }
}

/// How long the rest of a body may take in all.
const AT_MOST: Duration = Duration::from_secs(30);

/// How long nothing of it may come.
const SILENCE: Duration = Duration::from_secs(2);
