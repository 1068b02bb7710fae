//! The HTTP server: listeners, workers, TLS handshakes, the strict front, limits, draining.
//!
//! It owns every byte between a client and the handler, and every deadline on the way. It knows nothing of
//! rules, sessions, providers or the application: a [`Handler`] gets each request and makes each answer,
//! those to refused requests too.
//!
//! ```text
//! listener   bound once, shared by the workers
//! accept     permit -> socket
//! balance    socket -> the worker that serves it
//! handshake  socket -> PROXY header where one is due -> TLS or plain, SNI, ALPN
//! front      the strict reading of HTTP/1, before hyper; a watch over HTTP/2 frames
//! calls      hyper's call -> intake -> the handler -> the answer
//! park       hyper let go of while an HTTP/1 connection is idle
//! turns      a few streams of each HTTP/2 connection at a time
//! drive      the deadlines of one connection, and its end
//! ```
//!
//! A worker is a thread with its own runtime; a connection never leaves the worker that serves it, and handlers
//! need not be `Send`. What the workers share is the listening sockets, the connection permits and counts, and the
//! [`Lifecycle`].

mod accept;
mod balance;
mod calls;
mod connection;
mod descriptors;
mod drive;
mod front;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod handshake;
mod intake;
mod lifecycle;
mod limits;
mod listener;
mod park;
mod proxy_protocol;
mod reply;
mod request_body;
mod roster;
mod run;
mod serve;
mod turns;
mod worker;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};

pub use balance::ConnectionCounts;
pub use connection::{Call, Connection, Protocol, Tunnel};
pub use front::Violation;
pub use lifecycle::{Lifecycle, Phase};
pub use limits::Limits;
pub use listener::{BindError, Bound, Kind, Listener, TlsSource, bind};
pub use request_body::RequestBody;
pub use run::{RunError, Stopped, run};

/// Answers requests. One per worker, never sent between threads.
pub trait Handler: 'static {
    /// What it makes of the bodies of requests.
    type Received: From<RequestBody> + 'static;

    /// The body of its answers.
    type Body: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Unpin
        + 'static;

    /// Makes the answer to `request`.
    ///
    /// The handler must look at [`Violation::of`] first: with one, the request was refused and only an error
    /// answer with that status is due; nothing else of such a request means anything. Otherwise the target
    /// is in origin-form on HTTP/1, and on HTTP/2 carries `:authority` beside the path; that a `Host` field
    /// agrees with that authority is for the handler to check.
    ///
    /// An upgrade is granted by answering 101, and only on HTTP/1; `hyper::upgrade::on` then gives the bytes.
    /// The future is dropped when the client goes away. The request is the handler's to take apart; it is lent only
    /// because moving it around would be dear.
    fn handle(
        self: Rc<Self>,
        request: &mut Request<Self::Received>,
        connection: Rc<Connection>,
        call: Call,
    ) -> impl Future<Output = Response<Self::Body>>;
}

/// Takes events; called on any thread, and must not block.
pub type Events = Arc<dyn Fn(Event) + Send + Sync>;

/// What the operator should hear about. Clients can't flood it: a worker tells at most one of them a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `limits.connections` is more than the process has file descriptors for.
    ConnectionsReduced {
        /// The configured number.
        wanted: usize,
        /// What is used instead.
        possible: usize,
    },
    /// The system has no descriptors or memory for another connection. Accepting goes on in a moment.
    AcceptPaused {
        /// What the system said.
        reason: String,
    },
    /// A client did not get through its TLS handshake, or a load balancer sent no good PROXY header.
    HandshakeFailed {
        /// Who, by the socket's address.
        peer: SocketAddr,
        /// On which listener, by its index.
        listener: usize,
        /// Why.
        reason: String,
    },
}

#[cfg(test)]
mod tests;
