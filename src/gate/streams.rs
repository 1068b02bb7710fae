//! The open streams of one worker and service: WebSockets, event streams, calls, long downloads and uploads. They end
//! when their session does.
//!
//! Owns who has streams open here, and the look at them in turns. May not know how a stream ends: it cuts the
//! session's [`Lifeline`], and `proxy` does the rest. Nor does it know why a session is over.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use super::LocalService;
use super::callers::Known;
use super::service::RelyingParty;
use crate::session::Absent;
use crate::web::lifeline::Lifeline;

/// The sessions that may have streams open on one worker.
#[derive(Debug)]
pub(super) struct Streams {
    /// As opened sessions are kept for as long as they have streams, at most about twice as many are kept as there
    /// are requests under way.
    open: RefCell<Vec<Rc<Known>>>,
    /// How long the list may grow before those without streams are let go.
    room: Cell<usize>,
    began: Notify,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self { open: RefCell::default(), room: Cell::new(LEAST_ROOM), began: Notify::new() }
    }

    /// What the streams of a session's request are to hang on.
    pub(super) fn lifeline(&self, known: &Rc<Known>, party: &RelyingParty) -> Rc<Lifeline> {
        if !known.is_listed.replace(true) {
            self.list(known, party);
        }
        known.lifeline.clone()
    }

    fn list(&self, known: &Rc<Known>, party: &RelyingParty) {
        // What has happened between its admission and now is not looked for any more.
        if known.check_revocations(party).is_err() {
            known.lifeline.cut();
        }
        let mut open = self.open.borrow_mut();
        if open.len() >= self.room.get() {
            open.retain(|known| is_kept(known, party));
            self.room.set(LEAST_ROOM.max(2 * open.len()));
        }
        if open.is_empty() {
            self.began.notify_one();
        }
        open.push(known.clone());
    }

    /// Ends the streams of sessions that are over, and lets go of who has none.
    fn look(&self, party: &RelyingParty) {
        self.open.borrow_mut().retain(|known| {
            if !known.lifeline.is_cut() && is_over(known, party) {
                known.lifeline.cut();
            }
            is_kept(known, party)
        });
    }

    fn is_empty(&self) -> bool {
        self.open.borrow().is_empty()
    }
}

/// Looks at the streams of a service for as long as the worker lives: at all of them when sessions have been ended, and
/// every [`LOOK_AT_BOUNDS_EVERY`] for what the clock ends. Sleeps while there are none.
pub(super) async fn watch(local: Rc<LocalService>) {
    let Some(party) = &local.service.relying_party else { return };
    let mut seen = epoch(party);
    let mut turn = 0;
    loop {
        if local.streams.is_empty() {
            local.streams.began.notified().await;
        }
        tokio::time::sleep(LOOK_EVERY).await;
        turn = (turn + 1) % TURNS;
        let now = epoch(party);
        if now != seen || turn == 0 {
            seen = now;
            local.streams.look(party);
        }
    }
}

/// Changes when sessions have been ended.
fn epoch(party: &RelyingParty) -> u64 {
    party.revocations.epoch()
}

/// Whether the session has been ended, or has come to its end. Idleness is no end here: bytes of a stream count as
/// use, and a stream without any may be quiet by nature.
fn is_over(known: &Known, party: &RelyingParty) -> bool {
    let bounds = party.sessions.check(&known.session);
    known.check_revocations(party).is_err() || bounds.is_err_and(|absent| absent != Absent::IdleTimeout)
}

/// Whether a session still has streams. Tells of their movement while somebody knows of them.
fn is_kept(known: &Rc<Known>, party: &RelyingParty) -> bool {
    // A session whose cookie is fresh is known to be in use.
    if known.lifeline.take_movement() && party.sessions.needs_new_seal(&known.session) {
        party.sessions.note_use(&known.session);
    }
    let has_streams = Rc::strong_count(&known.lifeline) > 1;
    known.is_listed.set(has_streams);
    has_streams
}

/// How often the worker asks whether any session has been ended.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How often it asks each session with streams for its bounds: the wall clock may have been set.
const LOOK_AT_BOUNDS_EVERY: Duration = Duration::from_millis(500);

const TURNS: u128 = LOOK_AT_BOUNDS_EVERY.as_millis() / LOOK_EVERY.as_millis();

/// Sessions that are listed before any is let go.
const LEAST_ROOM: usize = 64;
