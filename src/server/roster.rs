//! The connections of one worker: what each is doing, who must leave, and when the last one is gone.
//! Worker-local, without locks.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// All connections of a worker. Its size is bounded by the connection permits.
#[derive(Debug, Default)]
pub(super) struct Roster {
    next: Cell<u64>,
    members: RefCell<HashMap<u64, Rc<Activity>>>,
    draining: Cell<bool>,
    emptied: Notify,
}

/// What one connection is doing.
#[derive(Debug)]
pub(super) struct Activity {
    in_flight: Cell<usize>,
    calls: Cell<u64>,
    /// How often it was parked.
    parks: Cell<u64>,
    idle_since: Cell<Instant>,
    wish: Cell<Wish>,
    driver: RefCell<Option<Waker>>,
}

/// What a connection is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Nothing.
    Stay,
    /// To end, without cutting a request off and without turning away one that is just arriving.
    Leave,
    /// To end at once unless it is busy: others wait for its place.
    MakeRoom,
}

/// Keeps a connection on the roster while it is held.
#[derive(Debug)]
pub(super) struct Presence {
    roster: Rc<Roster>,
    id: u64,
}

/// Counts as one request under way while it is held.
#[derive(Debug)]
pub(super) struct InFlight(Rc<Activity>);

impl Roster {
    /// Enters a connection.
    pub(super) fn enter(self: &Rc<Self>) -> (Rc<Activity>, Presence) {
        let activity = Rc::new(Activity {
            in_flight: Cell::new(0),
            calls: Cell::new(0),
            parks: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            wish: Cell::new(if self.draining.get() { Wish::Leave } else { Wish::Stay }),
            driver: RefCell::new(None),
        });
        let id = self.next.get();
        self.next.set(id + 1);
        self.members.borrow_mut().insert(id, activity.clone());
        (activity, Presence { roster: self.clone(), id })
    }

    /// Asks every connection to leave, and those that still enter.
    pub(super) fn drain(&self) {
        self.draining.set(true);
        for member in self.members.borrow().values() {
            member.ask(Wish::Leave);
        }
    }

    /// Asks those to end that have been idle longest, a few at a time, because there is no place left.
    pub(super) fn make_room(&self) {
        let now = Instant::now();
        let members = self.members.borrow();
        let mut idle: Vec<_> =
            members.values().filter(|member| member.idle_for(now) >= SHORTEST_IDLE).collect();
        idle.sort_by_key(|member| member.idle_since.get());
        for member in idle.iter().take(ROOM) {
            member.ask(Wish::MakeRoom);
        }
    }

    /// How many connections there are.
    pub(super) fn len(&self) -> usize {
        self.members.borrow().len()
    }

    /// Resolves once there are none.
    pub(super) async fn empty(&self) {
        while self.len() > 0 {
            self.emptied.notified().await;
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.roster.members.borrow_mut().remove(&self.id);
        if self.roster.len() == 0 {
            self.roster.emptied.notify_one();
        }
    }
}

impl Activity {
    /// Begins a request: its number on the connection, from 1, and the guard that ends it.
    pub(super) fn begin(self: &Rc<Self>) -> (u64, InFlight) {
        self.in_flight.set(self.in_flight.get() + 1);
        self.calls.set(self.calls.get() + 1);
        (self.calls.get(), InFlight(self.clone()))
    }

    /// Begins what goes on after an upgrade.
    pub(super) fn begin_tunnel(self: &Rc<Self>) -> InFlight {
        self.in_flight.set(self.in_flight.get() + 1);
        InFlight(self.clone())
    }

    /// Requests that have begun and not ended.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Counts that it was parked. Only for who looks at it with a debugger, and for tests.
    pub(super) fn park(&self) {
        self.parks.set(self.parks.get() + 1);
    }

    /// Requests that have begun.
    pub(super) fn calls(&self) -> u64 {
        self.calls.get()
    }

    /// When the last request ended, or the connection began.
    pub(super) fn idle_since(&self) -> Instant {
        self.idle_since.get()
    }

    /// Counts idleness from now on: the handshake is over.
    pub(super) fn touch(&self) {
        self.idle_since.set(Instant::now());
    }

    /// What the connection is asked to do.
    pub(super) fn wish(&self) -> Wish {
        self.wish.get()
    }

    /// Asks the connection for something. That it should leave is never taken back.
    pub(super) fn ask(&self, wish: Wish) {
        if self.wish.get() != Wish::Leave {
            self.wish.set(wish);
        }
        self.wake();
    }

    /// Resolves when the connection has to make room for others. For the time before its driver runs.
    pub(super) async fn must_make_room(&self) {
        std::future::poll_fn(|cx| {
            self.driven_by(cx);
            if self.wish.get() == Wish::MakeRoom { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Has the connection looked after.
    pub(super) fn wake(&self) {
        if let Some(driver) = self.driver.borrow().as_ref() {
            driver.wake_by_ref();
        }
    }

    /// Whom to wake when something is asked.
    pub(super) fn driven_by(&self, cx: &Context<'_>) {
        let mut driver = self.driver.borrow_mut();
        match driver.as_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *driver = Some(cx.waker().clone()),
        }
    }

    fn idle_for(&self, now: Instant) -> Duration {
        if self.in_flight.get() > 0 { Duration::ZERO } else { now.duration_since(self.idle_since.get()) }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get().saturating_sub(1));
        if self.0.in_flight.get() == 0 {
            self.0.touch();
        }
    }
}

/// Connections that are asked at once to make room.
const ROOM: usize = 32;

/// Idle for less than this, a connection is probably about to be used.
const SHORTEST_IDLE: Duration = Duration::from_secs(1);
