//! The record of one request while it is being served. It is written when it is dropped: when the last byte of
//! the answer is out, or when the client has gone. No path can forget it.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response};

use super::LocalService;
use super::navigation::{Gist, Navigation};
use super::service::Service;
use crate::server::{Call, Phase, Tunnel};
use crate::telemetry::{
    AccessRecord, Action, DropReason, Grounds, Journal, ReadyGrounds, RequestCounters, RequestId, RuleName,
};
use crate::web::Body;
use crate::web::body::{End, Flow, Observer};

/// What is known so far of the request being served.
#[derive(Debug)]
pub(super) struct Entry {
    journal: Rc<Journal>,
    counters: Arc<RequestCounters>,
    /// When the request came, by the machine's clock.
    pub(super) time: SystemTime,
    /// When the request began.
    pub(super) started: Instant,
    status: u16,
    method: Method,
    /// The target as it came.
    target: Option<PathAndQuery>,
    tally: Rc<Tally>,
    forwarded: bool,
    /// The id of this request.
    pub(super) id: RequestId,
    /// Its number on its connection.
    pub(super) call: Call,
    /// Address of the client.
    pub(super) client: IpAddr,
    /// The proxy before us says that it came to it over TLS.
    pub(super) proxy_has_tls: bool,
    /// The service that it is for, once known.
    pub(super) local: Option<Rc<LocalService>>,
    /// What becomes of it.
    pub(super) action: Action,
    /// Why it is refused.
    pub(super) drop_reason: Option<DropReason>,
    /// On what somebody was let in, in place of the following three.
    pub(super) grounds: Option<Rc<ReadyGrounds>>,
    /// The rule that decided.
    pub(super) rule: Option<RuleName>,
    /// `sub` of the user.
    pub(super) subject: Option<Arc<str>>,
    /// Tags that decided.
    pub(super) tags: Option<Arc<[String]>>,
    /// The cause in words.
    pub(super) detail: Option<String>,
    /// What kind of request it is, and so who reads an answer of ours.
    pub(super) navigation: Navigation,
    /// Whether it wants to leave HTTP.
    pub(super) has_upgrade: bool,
    /// Whether it says where it comes from.
    pub(super) has_origin: bool,
    /// Cookies for the browser, whatever the answer will be.
    pub(super) cookies: Vec<HeaderValue>,
}

impl Entry {
    /// Opens the record. `counters` are those for requests of no service.
    pub(super) fn open(
        journal: &Rc<Journal>,
        counters: &Arc<RequestCounters>,
        id: RequestId,
        client: IpAddr,
        request: &Request<Body>,
    ) -> Self {
        let method = request.method();
        let Gist { navigation, has_origin, has_upgrade } = Gist::of(method, request.headers());
        Self {
            journal: journal.clone(),
            counters: counters.clone(),
            time: SystemTime::now(),
            started: Instant::now(),
            status: 0,
            method: method.clone(),
            target: request.uri().path_and_query().cloned(),
            tally: Rc::default(),
            forwarded: false,
            id,
            call: Call::default(),
            client,
            proxy_has_tls: false,
            local: None,
            // Until something accepts it, a request is not accepted: not even one whose client has gone.
            action: Action::Reject,
            drop_reason: None,
            grounds: None,
            rule: None,
            subject: None,
            tags: None,
            detail: None,
            navigation,
            has_upgrade,
            has_origin,
            cookies: Vec::new(),
        }
    }

    /// Notes the service that the request is for.
    pub(super) fn is_for(&mut self, local: &Rc<LocalService>) {
        self.counters = local.counters.clone();
        self.local = Some(local.clone());
    }

    /// The service that the request is for, once known.
    pub(super) fn service(&self) -> Option<&Service> {
        self.local.as_ref().map(|local| local.service.as_ref())
    }

    /// Notes that the request is served, unless it is only observed.
    pub(super) fn accept(&mut self) {
        if self.action != Action::Observe {
            self.action = Action::Accept;
        }
    }

    /// Notes that the request was not served, and why.
    pub(super) fn reject(&mut self, reason: DropReason) {
        self.action = Action::Reject;
        self.drop_reason = Some(reason);
    }

    /// Hears what passes between client and application; to be called for a request that is forwarded.
    pub(super) fn observer(&self) -> Rc<dyn Observer> {
        self.tally.clone()
    }

    /// Notes that the application answered: its answer's end closes the record.
    pub(super) fn answered(&mut self) {
        self.forwarded = true;
    }

    /// Notes that the connection goes on as a tunnel, which the server waits for when it drains.
    pub(super) fn tunnels(&self, tunnel: Tunnel) {
        *self.tally.tunnel.borrow_mut() = Some(tunnel);
    }

    /// Hands the record to whoever ends the answer.
    pub(super) fn seal(mut self, response: Response<Body>) -> Response<Body> {
        self.status = response.status().as_u16();
        let tally = self.tally.clone();
        if self.forwarded {
            tally.keep(self);
            return response;
        }
        let response = response.map(|body| body.observe(Flow::ToClient, tally.clone()));
        tally.keep(self);
        response
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        self.counters.count(self.action, self.status, duration);
        // Nobody tells those apart who are dropped, but when.
        let is_cut_off = || self.local.as_ref().is_some_and(|local| local.lifecycle.phase() == Phase::Over);
        let ending = match (self.status, self.tally.end.get()) {
            (0, _) | (_, Some(End::Abandoned)) if is_cut_off() => Some(STOPS),
            (0, _) => Some("the client went away before there was an answer"),
            (_, Some(End::Cut)) => {
                self.drop_reason = self.drop_reason.or(Some(DropReason::Dial));
                Some("the application ended the answer, or its connection, before its last byte")
            }
            (_, Some(End::Stalled)) => {
                self.drop_reason = self.drop_reason.or(Some(DropReason::Dial));
                Some("the application sent no more of the answer for limits.bodyIdleTimeout")
            }
            (_, Some(End::Untaken)) => {
                Some("the client took no more of the answer for limits.bodyIdleTimeout")
            }
            (_, Some(End::SessionEnded)) => Some("the session ended"),
            (_, Some(End::Closed)) => Some(STOPS),
            (_, Some(End::Abandoned)) => Some("the client went away before the end of the answer"),
            (_, Some(End::Complete) | None) => None,
        };
        self.journal.access(&AccessRecord {
            time: self.time,
            request_id: self.id,
            service: self.service().map(|service| service.name.as_ref()),
            client: self.client,
            method: cut(self.method.as_str(), MAX_METHOD_BYTES),
            path: cut(self.target.as_ref().map_or("/", PathAndQuery::path), MAX_PATH_BYTES),
            status: self.status,
            duration,
            bytes_in: self.tally.received.get(),
            bytes_out: self.tally.sent.get(),
            action: self.action,
            drop_reason: self.drop_reason,
            grounds: match &self.grounds {
                Some(ready) => Grounds::Ready(ready),
                None => Grounds::Loose {
                    rule: self.rule.as_ref(),
                    subject: self.subject.as_deref(),
                    tags: self.tags.as_deref(),
                },
            },
            detail: self.detail.as_deref().or(ending),
        });
    }
}

/// Counts the bytes of one exchange, and holds its record until the exchange is over.
#[derive(Debug, Default)]
struct Tally {
    received: Cell<u64>,
    sent: Cell<u64>,
    end: Cell<Option<End>>,
    entry: RefCell<Option<Entry>>,
    tunnel: RefCell<Option<Tunnel>>,
}

impl Tally {
    /// Keeps the record until [`Observer::ended`], which may have been called already.
    fn keep(&self, entry: Entry) {
        if self.end.get().is_none() {
            *self.entry.borrow_mut() = Some(entry);
        }
    }
}

impl Observer for Tally {
    fn received(&self, bytes: usize) {
        self.received.set(self.received.get() + bytes as u64);
    }

    fn sent(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes as u64);
    }

    fn ended(&self, end: End) {
        self.end.set(Some(end));
        // Taken out before it is dropped: the record reads this tally.
        let over = (self.entry.borrow_mut().take(), self.tunnel.borrow_mut().take());
        drop(over);
    }
}

/// How a request ends that `limits.drain` cut off.
const STOPS: &str = "ended because the process stops";

/// At most `bytes` of `text`, cut between characters.
fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

/// Most bytes of a path in a record.
const MAX_PATH_BYTES: usize = 2048;
/// Most bytes of a method in a record.
const MAX_METHOD_BYTES: usize = 32;
