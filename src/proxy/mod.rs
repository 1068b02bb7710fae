//! Forwarding of an allowed request to the application, and cleaning of its answer.
//!
//! Owns the header rules of both directions, the connections to the application, the timeouts and the one
//! retry, and WebSocket tunnels. May not know how a request came to be allowed: a [`Permit`] is all it
//! needs and the only thing of `policy` that it imports. Nor does it know sessions or pages: an [`Error`]
//! says who is to blame, and the gate makes the answer.
//!
//! [`Permit`]: crate::policy::Permit
//!
//! A request's connection to the application is driven by the task that serves the client: while the answer
//! is awaited by [`Forwarder::forward`], and afterwards by whoever reads the answer's body. So there is no
//! task, channel or wake-up between the two sockets, backpressure is the sockets' own, and a client that
//! goes away takes the exchange with it.

mod connect;
mod error;
mod exchange;
mod forward;
mod headers;
mod identity;
mod overheard;
mod pool;
mod tunnel;
mod upgrade;
mod upload;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::time::Instant;

use crate::secret;
use crate::web::body::Observer;

pub use connect::{ConfigError, Connector};
pub use error::{Blame, Error};
pub use forward::Forwarder;
pub use identity::{Identity, Mapping, Unmapped, UnmappedReason};

/// What a service's forwarding is set up with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the application listens.
    pub upstream: Upstream,
    /// Longest time for a connection to the application to stand, names and TLS included.
    pub connect_timeout: Duration,
    /// Longest wait for the head of an answer, counted from the last progress of the request's body.
    pub response_timeout: Duration,
    /// Longest silence within a body, in either direction. Event streams and tunnels may be silent.
    pub body_idle_timeout: Duration,
    /// How long an unused connection to the application is kept.
    pub idle_timeout: Duration,
    /// Headers that `claimsToHTTPHeaderMappings` can set: removed from every request, whoever sends it.
    pub mapped_headers: Vec<HeaderName>,
    /// Base names of the cookies that are ours (`__Host-portcullis`, ...): never accepted from the
    /// application, neither as they are nor with a `.suffix`.
    pub own_cookies: Vec<String>,
}

/// Where the application listens. HTTP/1.1 is spoken to all of them.
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

/// What the application is told about the client, each `X-Forwarded-*` from one field.
#[derive(Clone, Copy, Debug)]
pub struct ClientInfo<'a> {
    /// The client's address; behind a trusted proxy the one that it reports.
    pub address: IpAddr,
    /// `https`, or `http` on a public plain listener.
    pub scheme: &'static str,
    /// The host that was judged, as sent: with the port, if the client sent one. It goes on as Host.
    pub host: &'a str,
    /// The port that the client connected to.
    pub port: u16,
    /// The id that the log knows this request by.
    pub request_id: &'a str,
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
    pub client: ClientInfo<'a>,
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
}
