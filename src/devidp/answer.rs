//! What the provider's and the demo app's answers have in common.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Frame, SizeHint};
use serde_json::Value;
use tokio::time::Interval;

/// What a site answers.
pub(super) type Answer = Response<Content>;

/// The body of an answer. It cannot fail.
pub(super) enum Content {
    /// In one piece.
    Whole(Option<Bytes>),
    /// Bit by bit.
    Events(Events),
}

impl http_body::Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match &mut *self {
            Content::Whole(bytes) => bytes.take(),
            Content::Events(events) => ready!(events.poll_next(context)),
        };
        Poll::Ready(data.map(Frame::data).map(Ok))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Content::Events(_) => SizeHint::default(),
        }
    }
}

/// A stream of server-sent events, one a second, that ends by itself.
pub(super) struct Events {
    seconds: Interval,
    sent: u32,
}

impl Events {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.sent == MOST_EVENTS {
            return Poll::Ready(None);
        }
        ready!(self.seconds.poll_tick(context));
        self.sent += 1;
        Poll::Ready(Some(format!("data: {{\"event\":{}}}\n\n", self.sent).into()))
    }
}

/// A stream of events.
pub(super) fn events() -> Answer {
    let events = Events { seconds: tokio::time::interval(Duration::from_secs(1)), sent: 0 };
    answer(StatusCode::OK, "text/event-stream", Content::Events(events))
}

/// A page. `policy` is its content security policy.
pub(super) fn page(status: StatusCode, page: &impl askama::Template, policy: &str) -> Answer {
    match page.render() {
        Ok(html) => {
            let mut answer = whole(status, "text/html; charset=utf-8", html);
            if let Ok(policy) = HeaderValue::try_from(policy) {
                answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
            }
            answer
        }
        // Only a failing formatter could do this.
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the page could not be written\n"),
    }
}

/// A line of text.
pub(super) fn text(status: StatusCode, text: &'static str) -> Answer {
    whole(status, "text/plain; charset=utf-8", text)
}

/// JSON.
pub(super) fn json(status: StatusCode, value: &Value) -> Answer {
    whole(status, "application/json", value.to_string())
}

/// On with a GET.
pub(super) fn see_other(location: &str) -> Answer {
    let Ok(location) = HeaderValue::try_from(location) else {
        return text(StatusCode::BAD_REQUEST, "that is no address to go to\n");
    };
    let mut answer = whole(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", "");
    answer.headers_mut().insert(header::LOCATION, location);
    answer
}

/// The source that a content security policy needs to allow exactly `text` inline.
pub(super) fn hash_source(text: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

fn whole(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Answer {
    answer(status, media_type, Content::Whole(Some(body.into())))
}

fn answer(status: StatusCode, media_type: &'static str, content: Content) -> Answer {
    let mut answer = Response::new(content);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Events of one stream.
const MOST_EVENTS: u32 = 600;
