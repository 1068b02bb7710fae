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
use crate::session::{Absent, Session, Sessions};
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
/// every [`LOOK_AT_BOUNDS_EVERY`] for what the wall clock ends: a stream's own timer does not know when that was set.
/// Sleeps while there are none.
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

/// Whether the session has been ended, or has come to its end.
fn is_over(known: &Known, party: &RelyingParty) -> bool {
    known.check_revocations(party).is_err() || is_past_its_end(&known.session, &party.sessions)
}

/// Idleness is no end of a stream: its bytes count as use, and it may be quiet by nature.
fn is_past_its_end(session: &Session, sessions: &Sessions) -> bool {
    sessions.check(session).is_err_and(|absent| absent != Absent::IdleTimeout)
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

/// How often it asks each session with streams for its bounds.
const LOOK_AT_BOUNDS_EVERY: Duration = Duration::from_millis(500);

const TURNS: u128 = LOOK_AT_BOUNDS_EVERY.as_millis() / LOOK_EVERY.as_millis();

/// Sessions that are listed before any is let go.
const LEAST_ROOM: usize = 64;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arc_swap::ArcSwap;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::clock::{Clock, UnixTime};
    use crate::session::{Binding, Config, CookieName, KeyRing, NewSession, Sealer};

    #[test]
    fn streams_end_by_the_clock_however_it_came_there_but_not_by_idleness() {
        const START: UnixTime = UnixTime(1_800_000_000);
        const HOUR: Duration = Duration::from_secs(3600);
        let (clock, hand) = Clock::manual(START);
        let keys = KeyRing::parse(&STANDARD.encode([1; 32])).unwrap();
        let [service, host, issuer, client_id] =
            ["app", "app.test", "https://idp.test", "client"].map(str::to_owned);
        let binding = Binding { service, host, issuer, client_id };
        let config = Config {
            cookie_name: CookieName::parse(CookieName::SESSION).unwrap(),
            idle_timeout: HOUR,
            max_lifetime: 12 * HOUR,
            bound_to_token: false,
            refresh_before: Duration::ZERO,
        };
        let sealer = Sealer::new(Arc::new(ArcSwap::from_pointee(keys)), &binding);
        let sessions = Sessions::new(config, sealer, clock);
        let login = NewSession {
            issuer: &binding.issuer,
            subject: "alice",
            sid: None,
            claims: &crate::tag::Claims::new(),
            keep: &std::collections::BTreeSet::new(),
            born: START.into(),
            token_expires_at: START.plus(HOUR),
            acr: None,
            auth_time: None,
            grant: None,
            id_token: None,
            replaced: Vec::new(),
        };
        let session = Session::new(login, START).unwrap();
        for (now, wanted) in [
            (START, false),
            (START.plus(2 * HOUR), false),
            (START.plus(11 * HOUR), false),
            (START.plus(12 * HOUR), true),
            (START.plus(1000 * HOUR), true),
            (START.minus(HOUR), true),
        ] {
            hand.set(now);
            assert_eq!(is_past_its_end(&session, &sessions), wanted, "{now:?}");
        }
    }
}
