//! Forwarding of an allowed request to the application, and cleaning of its answer.
//!
//! Owns the header rules of both directions, the connections to the application, the timeouts and the one
//! retry, and the tunnels of WebSockets and other upgrades. May not know how a request came to be allowed: a [`Permit`] is all it
//! needs and the only thing of `policy` that it imports. Nor does it know sessions or pages: an [`Error`]
//! says who is to blame, and the gate makes the answer.
//!
//! [`Permit`]: crate::policy::Permit
//!
//! With HTTP/1.1, a request's connection to the application is driven by the task that serves the client:
//! while the answer is awaited by [`Forwarder::forward`], and afterwards by whoever reads the answer's body.
//! So there is no task, channel or wake-up between the two sockets, backpressure is the sockets' own, and a
//! client that goes away takes the exchange with it. With HTTP/2 many requests share a connection, which has a
//! task of its own; a request that is given up resets its stream.

mod bell;
mod client;
mod connect;
mod error;
mod exchange;
mod forward;
mod frames;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod goodbye;
mod headers;
mod http2;
mod identity;
mod io;
mod media;
mod overheard;
mod pool;
mod pump;
mod trailers;
mod tunnel;
mod upgrade;
mod upload;
mod written;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::time::Instant;

use crate::secret;
use crate::web::body::Observer;
use crate::web::lifeline::Lifeline;

pub use client::{Client, ClientInfo};
pub use connect::{ConfigError, Connector};
pub use error::{Blame, Error, WEBSOCKET_VERSION};
pub use forward::Forwarder;
pub use identity::{Identity, Mapping, Unmapped, UnmappedReason};

/// What a service's forwarding is set up with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the application listens.
    pub upstream: Upstream,
    /// What it speaks there.
    pub version: HttpVersion,
    /// Longest time for a connection to the application to stand, names, TLS and the greeting of HTTP/2
    /// included.
    pub connect_timeout: Duration,
    /// Longest wait for the head of an answer, counted from the last progress of the request's body.
    pub response_timeout: Duration,
    /// Longest silence within a body, in either direction. Event streams, gRPC calls and tunnels may be silent.
    pub body_idle_timeout: Duration,
    /// How long an unused connection to the application is kept.
    pub idle_timeout: Duration,
    /// Headers that `claimsToHTTPHeaderMappings` can set: removed from every request, whoever sends it.
    pub mapped_headers: Vec<HeaderName>,
    /// Base names of the cookies that are ours (`__Host-portcullis`, ...): never accepted from the
    /// application, neither as they are nor with a `.suffix`.
    pub own_cookies: Vec<String>,
}

/// What is spoken to the application. It is told, never found out: a guess would cost a round trip, and turn
/// out differently behind another load balancer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1 (RFC 9112), one request at a time on a connection.
    #[default]
    Http1,
    /// HTTP/2 (RFC 9113): in TLS by ALPN, without TLS by prior knowledge (section 3.3).
    Http2,
}

/// Where the application listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// Plain TCP. `localhost` means `::1` and `127.0.0.1`, whichever accepts.
    Tcp {
        /// A name or an address (IPv6 without brackets).
        host: String,
        /// The port.
        port: u16,
    },
    /// TLS; the certificate is always verified, for `host`.
    Tls {
        /// A name or an address (IPv6 without brackets).
        host: String,
        /// The port.
        port: u16,
        /// PEM certificates to trust instead of the system's.
        roots: Option<secret::Source>,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// What is to be done about the Cookie header, so that our own cookies never reach the application.
#[derive(Clone, Debug, Default)]
pub enum CookieHeader {
    /// None of ours in it: it goes on as it came.
    #[default]
    Unchanged,
    /// What is left without ours; `None` if nothing is.
    Replace(Option<HeaderValue>),
}

/// Passes on one informational answer.
pub type Inform<'a> = dyn Fn(StatusCode, &HeaderMap) + 'a;

/// The terms on which one allowed request goes on.
pub struct Terms<'a> {
    /// Whom the application is told about.
    pub client: &'a Client,
    /// The id that the log knows this request by.
    pub request_id: &'a str,
    /// The mapped claims of the caller's session, if there is one.
    pub identity: Option<&'a Identity>,
    /// The Cookie header without our cookies.
    pub cookie: CookieHeader,
    /// Sends the client an informational answer of the application (103 Early Hints, ...), cleaned by the rules
    /// for answers. `None`: the client can't be informed.
    pub inform: Option<&'a Inform<'a>>,
    /// The request is not public: an answer that says nothing about caching becomes `private`
    /// (RFC 9111 section 5.2.2.7).
    pub private: bool,
    /// Is told the bytes of both directions, and the end of the answer or tunnel. Once `forward` has
    /// returned an answer, [`Observer::ended`] is called exactly once; after an error it is not called.
    pub observer: Option<Rc<dyn Observer>>,
    /// When a body or tunnel that still flows is cut: the end of the caller's session.
    pub ends_at: Option<Instant>,
    /// Whose cut ends them before.
    pub lifeline: Option<Rc<Lifeline>>,
}

/// What becomes of a request's headers, for measuring it alone: `benches/micro.rs`.
#[doc(hidden)]
#[derive(Debug)]
pub struct HeaderRules(headers::Mapped);

#[doc(hidden)]
impl HeaderRules {
    pub fn new(mapped_headers: &[HeaderName]) -> Self {
        Self(headers::Mapped::new(mapped_headers))
    }

    pub fn apply(&self, headers: &mut HeaderMap, terms: &Terms<'_>) {
        headers::prepare(headers, &headers::Noted::of(headers, &self.0), terms);
    }
}
