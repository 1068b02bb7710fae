//! Refusals about the request as such, and failures here or in the application behind.

use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{Response, StatusCode};

use super::page::{Gate, HOME, Link};
use super::respond::{Notice, Reply};
use crate::web::Body;

/// Requests that are wrong for everybody.
impl Reply<'_> {
    /// 400: `what` is wrong with the request, as the end of "This request cannot be served: ...".
    pub fn bad_request(&self, what: &str) -> Response<Body> {
        self.wrong(
            StatusCode::BAD_REQUEST,
            "bad-request",
            "That address does not work",
            format!("This request cannot be served: {what}."),
        )
    }

    /// 421: nothing is served under this host name here (RFC 9110 section 15.5.20).
    pub fn misdirected(&self) -> Response<Body> {
        self.wrong(
            StatusCode::MISDIRECTED_REQUEST,
            "unknown-host",
            "Nothing is served under this name",
            "The name in the address bar is not one that is served here.".to_owned(),
        )
    }

    /// 404: a path that only Portcullis may serve, and that serves nothing in this version.
    pub fn not_found(&self) -> Response<Body> {
        self.wrong(
            StatusCode::NOT_FOUND,
            "not-found",
            "There is nothing here",
            "This address is kept for a later use; nothing is served at it.".to_owned(),
        )
    }

    /// 405: a reserved path knows only the methods in `allow`, which is the text of the `Allow` field.
    pub fn method_not_allowed(&self, allow: &'static str) -> Response<Body> {
        let mut response = self.wrong(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "That is not possible here",
            format!("This address can only be used with {}.", allow.replace(", ", " or ")),
        );
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
        response
    }

    /// 408: the request did not arrive in time.
    pub fn request_timeout(&self) -> Response<Body> {
        self.wrong(
            StatusCode::REQUEST_TIMEOUT,
            "request-timeout",
            "The request took too long to arrive",
            "We stopped waiting for the rest of what your browser was sending.".to_owned(),
        )
    }

    /// 413: the body is larger than what may be sent here.
    pub fn content_too_large(&self) -> Response<Body> {
        self.wrong(
            StatusCode::PAYLOAD_TOO_LARGE,
            "content-too-large",
            "That is too large",
            "What was sent is larger than what is accepted here.".to_owned(),
        )
    }

    /// 414: the target is longer than `limits.targetBytes`.
    pub fn uri_too_long(&self) -> Response<Body> {
        self.wrong(
            StatusCode::URI_TOO_LONG,
            "uri-too-long",
            "That address is too long",
            "The address is longer than what is accepted here.".to_owned(),
        )
    }

    /// 431: more or larger header fields than `limits.headerFields` and `limits.headerBytes` allow.
    pub fn header_fields_too_large(&self) -> Response<Body> {
        let next = "Most often this means that too many cookies have piled up. Deleting the cookies of this site helps.";
        self.refuse(&Notice {
            next: next.into(),
            ..Notice::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "header-fields-too-large",
                "Your browser sent too much",
                "The header fields of the request, cookies among them, are larger than what is accepted here.",
                "The header fields are too many or too large.",
            )
        })
    }

    /// 501: a method or a transfer coding that nobody here knows.
    pub fn not_implemented(&self) -> Response<Body> {
        self.wrong(
            StatusCode::NOT_IMPLEMENTED,
            "not-implemented",
            "That is not possible here",
            "The request uses a feature of HTTP that is not supported here.".to_owned(),
        )
    }

    fn wrong(
        &self,
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        what: String,
    ) -> Response<Body> {
        self.refuse(&Notice {
            next: "Check the address, or go back to where you came from.".into(),
            links: if status == StatusCode::MISDIRECTED_REQUEST { vec![] } else { vec![HOME] },
            ..Notice::new(status, kind, title, what.clone(), what)
        })
    }
}

/// Failures: not the caller's fault.
impl Reply<'_> {
    /// 500: a mistake of ours.
    pub fn internal_error(&self) -> Response<Body> {
        self.failed(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal-error",
            "Something went wrong here",
            "The request could not be handled, and that is our mistake, not yours.",
            "The proxy failed to handle this request.",
        )
    }

    /// 502: the application can't be reached, or what it answers is not HTTP.
    pub fn bad_gateway(&self) -> Response<Body> {
        self.failed(
            StatusCode::BAD_GATEWAY,
            "application-unreachable",
            "The application does not answer",
            "You got this far, but the application behind this gate cannot be reached. It may be restarting.",
            "The application refused the connection or broke off before it had answered.",
        )
    }

    /// 504: the application did not answer in time.
    pub fn gateway_timeout(&self) -> Response<Body> {
        self.failed(
            StatusCode::GATEWAY_TIMEOUT,
            "application-too-slow",
            "The application takes too long",
            "You got this far, but the application behind this gate did not answer in time. It may or may not have done what you asked for.",
            "The application did not answer in time. It may have acted on the request.",
        )
    }

    /// 503: more work than the limits allow, or about to stop.
    pub fn overloaded(&self, retry_after: Duration) -> Response<Body> {
        let notice = Notice {
            gate: Gate::Trouble,
            next: "Wait a moment, then try again.".into(),
            links: vec![AGAIN],
            ..Notice::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                "Too much is going on",
                "There are more requests right now than can be handled.",
                "A limit is reached, or this instance is about to stop. Try again later.",
            )
        };
        self.refuse_for_now(&notice, retry_after)
    }

    fn failed(
        &self,
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        happened: &'static str,
        detail: &'static str,
    ) -> Response<Body> {
        let next = "Wait a moment, then load the page again. If it stays like this, tell whoever runs this site, and give them the request id below.";
        self.refuse(&Notice {
            next: next.into(),
            links: vec![AGAIN, HOME],
            ..Notice::new(status, kind, title, happened, detail)
        })
    }
}

/// The same address again, by GET.
const AGAIN: Link<'static> = Link { text: "Try again", href: "" };
