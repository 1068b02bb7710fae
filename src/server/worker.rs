//! One worker: a thread with its own runtime, on which a connection lives from accept to end.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::accept::{Doors, accept};
use super::balance::{Arrivals, Counted, Peers};
use super::connection::Place;
use super::lifecycle::{Lifecycle, Phase};
use super::limits::Limits;
use super::listener::Kind;
use super::roster::Roster;
use super::serve::{http1, serve};
use super::turns::Crowd;
use super::{Event, Events, Handler};

/// What the connections of a worker share.
pub(super) struct Worker<H> {
    pub(super) handler: Rc<H>,
    pub(super) limits: Arc<Limits>,
    pub(super) lifecycle: Lifecycle,
    pub(super) http1: http1::Builder,
    pub(super) roster: Rc<Roster>,
    /// Its HTTP/2 connections whose streams wait for each other.
    pub(super) crowd: Rc<Crowd>,
    /// Shared by all workers.
    pub(super) permits: Arc<Semaphore>,
    events: Events,
    silent_until: Cell<Instant>,
}

/// A listener as its connections know it.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) index: usize,
    pub(super) number: u16,
    pub(super) kind: Kind,
    pub(super) balancers: Option<Arc<[IpNet]>>,
}

impl Port {
    /// Whether connections of this peer begin with a PROXY header.
    pub(super) fn is_balancer(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.balancers.as_ref().is_some_and(|networks| networks.iter().any(|network| network.contains(&peer)))
    }
}

/// What a worker is started with.
pub(super) struct Start<F> {
    pub(super) index: usize,
    pub(super) doors: Vec<(std::net::TcpListener, Port)>,
    pub(super) peers: (Peers, Arrivals),
    pub(super) limits: Arc<Limits>,
    pub(super) lifecycle: Lifecycle,
    pub(super) permits: Arc<Semaphore>,
    pub(super) events: Events,
    pub(super) factory: Arc<F>,
}

impl<F> Start<F> {
    /// Runs the worker on this thread until the process is over or, once it drains, all connections have
    /// ended. Calls `is_up` when connections are accepted. Returns how many were cut off.
    pub(super) fn run<H: Handler>(self, is_up: impl FnOnce()) -> std::io::Result<usize>
    where
        F: Fn(usize) -> Rc<H>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .build()?;
        let local = LocalSet::new();
        let cut = runtime.block_on(async {
            let cut = local.run_until(self.work(is_up)).await;
            // Here, so that what the tasks drop still finds its runtime.
            drop(local);
            cut
        });
        runtime.shutdown_timeout(BLOCKING_PATIENCE);
        cut
    }

    async fn work<H: Handler>(self, is_up: impl FnOnce()) -> std::io::Result<usize>
    where
        F: Fn(usize) -> Rc<H>,
    {
        let worker = Rc::new(Worker {
            handler: (self.factory)(self.index),
            http1: http1(&self.limits),
            limits: self.limits,
            lifecycle: self.lifecycle,
            roster: Rc::default(),
            crowd: Rc::default(),
            permits: self.permits,
            events: self.events,
            silent_until: Cell::new(Instant::now()),
        });
        let doors = Doors::open(self.doors)?;
        is_up();
        let over = worker.lifecycle.reached(Phase::Over);
        let finished = async {
            // Those who are here leave while those who are queued come in: under a full house, the ones need
            // the places of the others.
            let told = async {
                worker.lifecycle.reached(Phase::Draining).await;
                worker.roster.drain();
            };
            tokio::join!(accept(&worker, doors, self.peers), told);
            worker.roster.empty().await;
        };
        tokio::select! {
            () = finished => {}
            () = over => {}
        }
        Ok(worker.roster.len())
    }
}

impl<H: Handler> Worker<H> {
    /// Takes an accepted connection in.
    pub(super) fn admit(
        self: &Rc<Self>,
        port: &Rc<Port>,
        accepted: (TcpStream, std::net::SocketAddr),
        (permit, counted): (OwnedSemaphorePermit, Counted),
    ) {
        let (activity, presence) = self.roster.enter();
        let place = Place { _permit: permit, _presence: presence, _counted: counted };
        tokio::task::spawn_local(serve(self.clone(), port.clone(), accepted, (activity, place)));
    }

    /// Connections of this worker and, since they are spread evenly, about as many of each other one.
    pub(super) fn open_connections(&self) -> usize {
        self.roster.len() * self.limits.workers.max(1)
    }

    /// Tells an event, unless one was told a moment ago: clients must not be able to flood the log.
    pub(super) fn report(&self, event: impl FnOnce() -> Event) {
        let now = Instant::now();
        if now >= self.silent_until.get() {
            self.silent_until.set(now + EVENT_EVERY);
            (self.events)(event());
        }
    }
}

/// Threads of a worker for what blocks: name resolution, mostly.
const BLOCKING_THREADS: usize = 8;

/// How long they may go on at the end.
const BLOCKING_PATIENCE: Duration = Duration::from_millis(100);

/// A worker tells at most one event in this time.
const EVENT_EVERY: Duration = Duration::from_secs(1);
