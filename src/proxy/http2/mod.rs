//! HTTP/2 to the application: the connections of one worker and service, and the streams on them.
//!
//! ```text
//! Links     the connections; finds room for a call, or makes it
//! link      one connection and its task      vigil  whether its peer is there, whether it is needed
//! greeting  whether the peer speaks HTTP/2   call   one request and its answer
//! sending   the body of a request            receiving  the body of an answer
//! ```
//!
//! May not know headers, services or clients: what crosses, and how it is cleaned, is settled around it.

mod call;
mod greeting;
mod link;
mod receiving;
mod sending;
mod vigil;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

use super::{Connector, Error};
use link::{Link, Patience};

pub(super) use call::{Answer, Failure, Wait};

/// The connections of one worker and service. Most of the time there is one.
pub(super) struct Links {
    connector: Connector,
    live: RefCell<Vec<Rc<Link>>>,
    /// Connections are made one at a time: those who wait for one share it.
    opening: Mutex<()>,
    freed: Rc<Notify>,
    waiting: Cell<usize>,
    connect_timeout: Duration,
    patience: Patience,
}

/// Most connections that take new calls, for each worker and service.
const MAX_LINKS: usize = 16;

/// How often they look for room who wait for it.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Most calls that wait for room when all connections are full.
const MAX_WAITING: usize = 1024;

impl Links {
    /// No connections yet.
    pub(super) fn new(connector: Connector, connect_timeout: Duration, idle_timeout: Duration) -> Self {
        Self {
            connector,
            live: RefCell::default(),
            opening: Mutex::default(),
            freed: Rc::default(),
            waiting: Cell::new(0),
            connect_timeout,
            patience: Patience::new(idle_timeout),
        }
    }

    /// Room for one call, on a connection that was there or a new one. Waits at most as long as connecting may
    /// take.
    pub(super) async fn room(&self) -> Result<Room, Error> {
        let by = Instant::now() + self.connect_timeout;
        loop {
            if let Some(room) = self.free() {
                return Ok(room);
            }
            if self.may_open() {
                self.open(by).await?;
            } else {
                let _waiting = Waiting::enter(&self.waiting)?;
                // The application may allow more streams at any time, and nobody is told of that.
                let again = by.min(Instant::now() + LOOK_AGAIN);
                let freed = tokio::time::timeout_at(again, self.freed.notified()).await;
                if freed.is_err() && again == by {
                    return Err(Error::Saturated);
                }
            }
        }
    }

    /// Makes a connection, unless another caller has meanwhile.
    async fn open(&self, by: Instant) -> Result<(), Error> {
        let late = |_| Error::ConnectTimeout { upstream: self.connector.to_string() };
        let _opening = tokio::time::timeout_at(by, self.opening.lock()).await.map_err(late)?;
        if self.may_open() && !self.live.borrow().iter().any(|link| link.sender().is_some()) {
            let limit = by.saturating_duration_since(Instant::now());
            let link = Link::open(&self.connector, limit, self.patience, self.freed.clone()).await?;
            self.live.borrow_mut().push(link);
        }
        Ok(())
    }

    /// Room on the oldest connection that has some: under little load the others grow old and go.
    fn free(&self) -> Option<Room> {
        let mut live = self.live.borrow_mut();
        let found = live.iter().find_map(|link| Some((link.clone(), link.sender()?)));
        live.retain(|link| !link.is_retired());
        let (link, sender) = found?;
        link.begin_call();
        Some(Room { link, sender })
    }

    /// Whether another connection would help: not if there are enough, nor if there is one that has no room
    /// although nothing is under way on it, as the next would not have any either.
    fn may_open(&self) -> bool {
        let live = self.live.borrow();
        live.len() < MAX_LINKS && live.iter().all(|link| link.is_retired() || link.calls() > 0)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.live.borrow().iter().filter(|link| !link.is_retired()).count()
    }

    #[cfg(test)]
    pub(super) fn calls(&self) -> usize {
        self.live.borrow().iter().map(|link| link.calls()).sum()
    }

    #[cfg(test)]
    pub(super) fn hurry(&mut self, quiet: Duration, spacing: Duration) {
        self.patience = Patience { quiet, pong: quiet, spacing, ..self.patience };
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.live.borrow().iter().for_each(|link| link.retire());
    }
}

/// Whether the application speaks HTTP/2 on a new connection, within `limit`.
pub(super) async fn probe(connector: &Connector, limit: Duration) -> Result<(), Error> {
    link::greet(connector, limit).await.map(drop)
}

/// The right to one stream.
pub(super) struct Room {
    link: Rc<Link>,
    sender: SendRequest<Bytes>,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.link.end_call();
    }
}

/// Counts one who waits.
struct Waiting<'a>(&'a Cell<usize>);

impl<'a> Waiting<'a> {
    fn enter(count: &'a Cell<usize>) -> Result<Self, Error> {
        if count.get() >= MAX_WAITING {
            return Err(Error::Saturated);
        }
        count.set(count.get() + 1);
        Ok(Self(count))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
