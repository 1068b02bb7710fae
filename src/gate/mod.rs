//! The gate: takes a request from the listener, finds its service, decides, forwards or answers.
//!
//! The only module that knows several of its siblings. [`Worker::handle`] is the outer layer: it opens the
//! record, calls the happy path in `admit`, turns a refusal into a response in `reject`, and hands the record to
//! the body. It has no rules, cookies or tokens of its own: those belong to `policy`, `session` and `oidc`.

mod admit;
mod callers;
mod credentials;
mod endpoints;
mod entry;
mod forward;
mod forwarded;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod host;
mod login;
mod logout;
mod navigation;
mod recollection;
mod refresh;
mod reject;
mod service;
mod streams;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    STRICT_TRANSPORT_SECURITY, VARY,
};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use self::admit::Arrived;
use self::callers::Callers;
use self::entry::Entry;
use self::host::{HostTable, RequestHost};
use self::reject::Refusal;
use self::streams::Streams;
use crate::clock::Clock;
use crate::proxy::Forwarder;
use crate::server::{Call, Connection, Handler, Lifecycle, Phase, RequestBody};
use crate::telemetry::{Journal, Log, Metrics, RequestCounters, RequestIds};
use crate::web::Body;
use crate::web::body::{BodyError, PeerBody};
use crate::web::respond::Reply;

pub use self::refresh::Refreshes;
pub use self::service::{
    CALLBACK_PATH, KnownProviderSessions, RESERVED_PATHS, Redeemed, RelyingParty, Service,
};

/// How requests come in on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// TLS, terminated here.
    Tls,
    /// Plain, from a proxy that terminates TLS (`TLSType: None`).
    BehindProxy,
    /// Plain, for checks: only what is public, and credentials are never read.
    PublicOnly,
    /// Plain, only to send browsers to https.
    Redirect,
}

/// One listener and the services behind it.
#[derive(Clone, Debug)]
pub struct Listener {
    /// How requests come in.
    pub entrance: Entrance,
    /// Its services, by their place in [`Gate::services`].
    pub services: Vec<usize>,
}

/// Bounds that the gate itself holds requests to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest target in bytes.
    pub target_bytes: usize,
    /// Longest wait for a part of a body that we read ourselves.
    pub body_idle_timeout: Duration,
    /// Most bytes that the opened sessions of one service may take on one worker.
    pub session_cache_bytes: usize,
}

/// Everything that the workers share.
#[derive(Clone, Debug)]
pub struct Gate {
    /// All services.
    pub services: Vec<Arc<Service>>,
    /// All listeners, in the order in which the server numbers them.
    pub listeners: Vec<Listener>,
    /// Bounds.
    pub limits: Limits,
    /// Where records go.
    pub log: Log,
    /// Where things are counted.
    pub metrics: Metrics,
    /// The wall clock.
    pub clock: Clock,
    /// The life of the process: tunnels end when it drains.
    pub lifecycle: Lifecycle,
}

impl Gate {
    /// The part of one worker. To be called on the worker's own thread.
    pub fn worker(&self) -> Rc<Worker> {
        let locals: Vec<Rc<LocalService>> = self
            .services
            .iter()
            .map(|service| {
                Rc::new(LocalService {
                    service: service.clone(),
                    callers: Callers::new(),
                    streams: Streams::new(),
                    forwarder: Forwarder::new(&service.proxy, service.connector.clone()),
                    counters: self.metrics.requests(Some(&service.name)),
                    lifecycle: self.lifecycle.clone(),
                })
            })
            .collect();
        tokio::task::spawn_local(close_tunnels(self.lifecycle.clone(), locals.clone()));
        for local in &locals {
            tokio::task::spawn_local(streams::watch(local.clone()));
        }
        let hosts = |listener: &Listener| {
            let locals = listener.services.iter().filter_map(|index| locals.get(*index));
            HostTable::new(
                locals.flat_map(|local| local.service.hosts.iter().map(|host| (host.clone(), local.clone()))),
            )
        };
        Rc::new(Worker {
            listeners: self
                .listeners
                .iter()
                .map(|listener| LocalListener {
                    entrance: listener.entrance,
                    hosts: hosts(listener),
                    recent: RefCell::new(None),
                })
                .collect(),
            counters: self.metrics.requests(None),
            ids: RequestIds::new(),
            limits: self.limits,
            journal: Journal::open(&self.log),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
        })
    }
}

async fn close_tunnels(lifecycle: Lifecycle, locals: Vec<Rc<LocalService>>) {
    lifecycle.reached(Phase::Draining).await;
    for local in &locals {
        local.forwarder.close_tunnels();
    }
}

/// The gate on one worker: nothing in it is shared with another thread's requests but counters and the log.
#[derive(Debug)]
pub struct Worker {
    listeners: Vec<LocalListener>,
    counters: Arc<RequestCounters>,
    ids: RequestIds,
    limits: Limits,
    journal: Rc<Journal>,
    metrics: Metrics,
    clock: Clock,
}

#[derive(Debug)]
struct LocalListener {
    entrance: Entrance,
    hosts: HostTable<LocalService>,
    /// The host of the last request that named one: the next one is likely to name the same.
    recent: RefCell<Option<Rc<RequestHost>>>,
}

/// A service on one worker: its opened sessions, their streams, and its connections to the application.
struct LocalService {
    service: Arc<Service>,
    callers: Callers,
    streams: Streams,
    forwarder: Forwarder,
    counters: Arc<RequestCounters>,
    lifecycle: Lifecycle,
}

impl std::fmt::Debug for LocalService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LocalService").field(&self.service.name).finish()
    }
}

impl From<RequestBody> for Body {
    fn from(body: RequestBody) -> Self {
        if body.is_end_stream() {
            return Body::Empty;
        }
        Body::Peer(Box::new(PeerBody::streaming(Box::new(body.map_err(BodyError::Cut)), None)))
    }
}

impl Handler for Worker {
    type Received = Body;
    type Body = Body;

    async fn handle(
        self: Rc<Self>,
        request: &mut Request<Body>,
        connection: Rc<Connection>,
        call: Call,
    ) -> Response<Body> {
        let client = connection.peer.ip().to_canonical();
        let mut entry = Entry::open(&self.journal, &self.counters, self.ids.next_id(), client, request);
        entry.call = call;
        let origin =
            entry.has_origin.then(|| service::origin(request.headers())).flatten().map(str::to_owned);
        let admitted = caught(pin!(self.admit(request, &connection, &mut entry))).await;
        let mut response = match admitted.unwrap_or_else(|| Err(Refusal::Internal(PANICKED.to_owned()))) {
            Ok(response) => {
                // Whoever answers without forwarding says so if it is a refusal.
                if entry.drop_reason.is_none() {
                    entry.accept();
                }
                response
            }
            Err(refusal) => {
                let mut response = refusal.respond(&mut entry);
                self.allow_origin(&entry, origin.as_deref(), response.headers_mut());
                response
            }
        };
        login::append_cookies(response.headers_mut(), entry.cookies.drain(..));
        self.stamp(&entry, &connection, response.headers_mut());
        entry.seal(response)
    }
}

/// Runs to the end, or to a panic: a bug that one request meets is that request's problem only.
async fn caught<T>(mut work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    std::future::poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        polled.map_or(Poll::Ready(None), |poll| poll.map(Some))
    })
    .await
}

/// What the record of a request says that met a bug.
const PANICKED: &str = "a bug in Portcullis; please report it with the lines around this one";

impl Worker {
    /// Makes our own answers for the people and programs of one request.
    fn reply<'a>(&self, arrived: &'a Arrived<'_>, entry: &'a Entry) -> Reply<'a> {
        Reply {
            audience: entry.navigation.audience(),
            request_id: entry.id.as_str(),
            service: Some(&arrived.local.service.name),
        }
    }

    /// Lets the scripts of a listed origin read our refusal; a 401 that a script can't see is a riddle.
    fn allow_origin(&self, entry: &Entry, origin: Option<&str>, headers: &mut HeaderMap) {
        let (Some(origin), Some(service)) = (origin, entry.service()) else { return };
        headers.append(VARY, HeaderValue::from_static("Origin"));
        if !service.lists_origin(origin) {
            return;
        }
        let Ok(origin) = HeaderValue::try_from(origin) else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("WWW-Authenticate, Retry-After, X-Request-Id"),
        );
    }

    fn stamp(&self, entry: &Entry, connection: &Connection, headers: &mut HeaderMap) {
        // RFC 6797 section 7.2: not over plain HTTP.
        let encrypted =
            self.listeners.get(connection.listener).is_some_and(|listener| match listener.entrance {
                Entrance::Tls => true,
                Entrance::BehindProxy => entry.proxy_has_tls,
                Entrance::PublicOnly | Entrance::Redirect => false,
            });
        if let Some(hsts) = entry.service().and_then(|service| service.hsts.clone())
            && encrypted
        {
            headers.insert(STRICT_TRANSPORT_SECURITY, hsts);
        }
    }
}
