//! What the handler knows of the connection that a request came on, and what it may ask of it.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use http::{HeaderMap, StatusCode};

use super::balance::Counted;
use super::front::{Interim, StreamInterim, Violation, Wire};
use super::lifecycle::{Lifecycle, Phase};
use super::listener::Kind;
use super::roster::{Activity, InFlight, Presence, Wish};

/// One connection of a client. While any clone of its `Rc` lives, it counts against `limits.connections` and
/// the process waits for it when it drains.
#[derive(Debug)]
pub struct Connection {
    /// The client: the other end of the socket, or, where that is a load balancer that sends a PROXY header, the
    /// other end of its socket. An IPv4 address is one also on a socket of both families.
    pub peer: SocketAddr,
    /// The port that the client connected to.
    pub local_port: u16,
    /// The index of the listener among those that were bound.
    pub listener: usize,
    /// What is spoken on that listener.
    pub kind: Kind,
    /// The server name that the client sent in the TLS handshake, in lower case.
    pub sni: Option<String>,
    /// Whether the client speaks TLS with us. On a TLS listener it may not: see [`Violation::PlainText`].
    pub is_tls: bool,
    /// The protocol that carries requests.
    pub protocol: Protocol,
    /// What the handler wants to find again at the next request of the connection.
    pub memory: RefCell<Option<Rc<dyn Any>>>,
    pub(super) wire: Arc<Wire>,
    pub(super) interim: Informed,
    pub(super) activity: Rc<Activity>,
    pub(super) lifecycle: Lifecycle,
    pub(super) last_answer: Cell<bool>,
    pub(super) _place: Place,
}

/// The version of HTTP on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// The number of a request on its connection, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call(pub(super) u64);

/// Who takes in what a client is told before its answer.
#[derive(Debug)]
pub(super) enum Informed {
    Http1(Arc<Interim>),
    Http2(Arc<StreamInterim>),
}

impl Informed {
    /// Of a connection of which nothing has been read.
    pub(super) fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Http1 => Self::Http1(Arc::default()),
            Protocol::Http2 => Self::Http2(Arc::default()),
        }
    }
}

/// What a connection occupies.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) _permit: OwnedSemaphorePermit,
    pub(super) _presence: Presence,
    pub(super) _counted: Counted,
}

impl Connection {
    /// Ends the connection once the answer that is being made is written: `Connection: close` on HTTP/1,
    /// GOAWAY on HTTP/2, where other requests under way are finished first.
    pub fn close_after_this_response(&self) {
        match self.protocol {
            Protocol::Http1 => self.last_answer.set(true),
            Protocol::Http2 => self.activity.ask(Wish::Leave),
        }
    }

    /// Whether [`Self::inform`] reaches the client of the request that is being handled. Not on HTTP/1.0, which
    /// has no informational answers.
    pub fn takes_informational(&self) -> bool {
        match &self.interim {
            Informed::Http1(interim) => interim.is_accepted(),
            Informed::Http2(interim) => interim.is_accepted(),
        }
    }

    /// Sends an informational answer (RFC 9110 section 15.2) ahead of the one to `call` that is being made. Only hints:
    /// none that hyper sends itself (100 over HTTP/1) or that is final (101), and it may be dropped: where there are many,
    /// and where the client has not taken what came before.
    pub fn inform(&self, call: Call, status: StatusCode, headers: &HeaderMap) {
        let is_taken = match &self.interim {
            Informed::Http1(interim) => interim.push(status, headers),
            Informed::Http2(interim) => interim.push(call.0, status, headers),
        };
        if is_taken {
            // hyper flushes whenever it has polled the handler; nowhere does it promise to.
            self.activity.wake();
        }
    }

    /// What broke in the body that the client is sending, once reading it has failed because of that.
    pub fn body_violation(&self) -> Option<Violation> {
        self.wire.body_violation()
    }

    /// For what goes on after an upgrade: to be held as long as bytes are carried.
    pub fn tunnel(self: &Rc<Self>) -> Tunnel {
        Tunnel { _in_flight: self.activity.begin_tunnel(), connection: self.clone() }
    }
}

/// Keeps an upgraded connection known to the server while it is held.
#[derive(Debug)]
pub struct Tunnel {
    _in_flight: InFlight,
    connection: Rc<Connection>,
}

impl Tunnel {
    /// Resolves when the process drains: the tunnel should end properly now.
    pub fn closing(&self) -> impl Future<Output = ()> + use<> {
        self.connection.lifecycle.reached(Phase::Draining)
    }
}
