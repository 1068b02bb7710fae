//! What the byte side and the request side of one connection tell each other.
//!
//! The two sides run in one task, yet the byte side has to be `Send`, because hyper hands it over as such
//! when a connection is upgraded. Hence a mutex that nobody ever waits for.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use tokio::time::Instant;

use super::Violation;

/// Shared by the front of a connection, its service and its driver.
#[derive(Debug, Default)]
pub(in crate::server) struct Wire(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    signals: Signals,
    /// Request heads that hyper was given, the stand-in among them.
    heads: u64,
    in_body: bool,
    refusal: Option<(u64, Violation)>,
    body_violation: Option<Violation>,
    head_expired: bool,
    upgrade: Upgrade,
    /// The last call whose answer is known, and whether that was 101.
    answered: (u64, bool),
    reader: Option<Waker>,
}

/// What the driver watches. Instants say since when.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::server) struct Signals {
    /// A head (on HTTP/2: the preface, a header block or a frame that is not data) has begun and not ended.
    pub(in crate::server) head_since: Option<Instant>,
    /// The client takes nothing of what we write.
    pub(in crate::server) write_blocked_since: Option<Instant>,
    /// The answer is written, the write side is shut, and what the client still sends is being discarded.
    pub(in crate::server) lingering_since: Option<Instant>,
    /// The client floods an HTTP/2 connection with frames that carry nothing.
    pub(in crate::server) abusive: bool,
    /// On HTTP/1, hyper has read all that it was given, and that ends where a request may begin.
    pub(in crate::server) between_requests: bool,
}

/// Where a request to leave HTTP stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Upgrade {
    /// There is none, or it was answered with anything but 101.
    #[default]
    Declined,
    Awaited,
    /// The answer was 101: the bytes are no longer HTTP.
    Granted,
}

impl State {
    /// Settles the upgrade that the last head asked for, if that head is answered.
    fn decide(&mut self) {
        let (call, switching) = self.answered;
        if self.upgrade == Upgrade::Awaited && call == self.heads {
            self.upgrade = if switching { Upgrade::Granted } else { Upgrade::Declined };
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
        }
    }
}

impl Wire {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the driver.
    pub(in crate::server) fn signals(&self) -> Signals {
        self.lock().signals
    }

    /// For the driver: the head that is under way took too long. The front refuses it when next polled.
    pub(in crate::server) fn expire_head(&self) {
        let mut state = self.lock();
        state.head_expired = true;
        state.signals.head_since = None;
    }

    /// For the service, at its `call`th call (from 1): whether this call stands for a refused head. A call
    /// without a head is one that hyper found and the front did not.
    pub(in crate::server) fn refusal_of(&self, call: u64) -> Option<Violation> {
        let state = self.lock();
        match state.refusal {
            _ if call > state.heads => Some(Violation::Desynchronised),
            Some((at, violation)) if at == call => Some(violation),
            _ => None,
        }
    }

    /// For the service: the answer of the `call`th call is known. Decides an upgrade that it asked for, and
    /// tells whether the client was still sending the body of that very request.
    pub(in crate::server) fn answered(&self, call: u64, switching: bool) -> bool {
        let mut state = self.lock();
        state.answered = (call, switching);
        state.decide();
        call == state.heads && state.in_body
    }

    /// For the handler: what was wrong with the body that is being received, once it broke.
    pub(in crate::server) fn body_violation(&self) -> Option<Violation> {
        self.lock().body_violation
    }

    /// For the front: where the machine stands after some bytes.
    pub(super) fn progress(&self, heads: u64, in_body: bool, head_unfinished: bool) {
        let mut state = self.lock();
        if state.heads != heads {
            // The head that was timed is complete; what is unfinished now is the next one.
            state.signals.head_since = None;
            state.head_expired = false;
        }
        state.heads = heads;
        state.in_body = in_body;
        state.signals.between_requests = false;
        match (head_unfinished, state.signals.head_since) {
            (true, None) if !state.head_expired => state.signals.head_since = Some(Instant::now()),
            (false, _) => {
                state.signals.head_since = None;
                state.head_expired = false;
            }
            (true, _) => {}
        }
    }

    /// For the front: hyper gets a stand-in as its `at`th request.
    pub(super) fn refuse(&self, at: u64, violation: Violation) {
        let mut state = self.lock();
        state.heads = at;
        state.refusal = Some((at, violation));
        state.signals.head_since = None;
    }

    /// For the front: the body under way is broken.
    pub(super) fn refuse_body(&self, violation: Violation) {
        self.lock().body_violation = Some(violation);
    }

    /// For the front: whether the driver gave up on the head under way.
    pub(super) fn head_expired(&self) -> bool {
        self.lock().head_expired
    }

    /// For the front: there is nothing to read, and whether a request may begin next. Tells whether the driver gave
    /// up on the head under way.
    pub(super) fn read_dry(&self, between_requests: bool) -> bool {
        let mut state = self.lock();
        state.signals.between_requests = between_requests;
        state.head_expired
    }

    /// For the front: the write side is being shut, and no other request will come.
    pub(super) fn closes(&self) {
        self.lock().signals.between_requests = false;
    }

    /// For the front: the last head asked for an upgrade.
    pub(super) fn await_upgrade(&self) {
        let mut state = self.lock();
        state.upgrade = Upgrade::Awaited;
        state.decide();
    }

    /// For the front: how the upgrade stands. While it is awaited, the decision wakes the task of `cx`.
    pub(super) fn upgrade(&self, cx: &Context<'_>) -> Upgrade {
        let mut state = self.lock();
        if state.upgrade == Upgrade::Awaited {
            state.reader = Some(cx.waker().clone());
        }
        state.upgrade
    }

    /// For the front: writing stalls, or goes on.
    pub(super) fn write_blocked(&self, blocked: bool) {
        self.lock().signals.write_blocked_since = blocked.then(Instant::now);
    }

    /// For the front: only discarding is left to do.
    pub(super) fn lingers(&self) {
        let mut state = self.lock();
        state.signals.write_blocked_since = None;
        state.signals.lingering_since.get_or_insert_with(Instant::now);
    }

    /// For the front: HTTP/2 frames that say nothing are too many.
    pub(super) fn abusive(&self) {
        self.lock().signals.abusive = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_a_head_or_the_stand_in_or_nobodys() {
        let wire = Wire::default();
        assert_eq!(wire.refusal_of(1), Some(Violation::Desynchronised), "no head was passed on");
        wire.progress(2, false, false);
        assert_eq!((wire.refusal_of(1), wire.refusal_of(2)), (None, None));
        assert_eq!(wire.refusal_of(3), Some(Violation::Desynchronised));
        wire.refuse(3, Violation::Field);
        assert_eq!((wire.refusal_of(2), wire.refusal_of(3)), (None, Some(Violation::Field)));
        assert_eq!(wire.refusal_of(4), Some(Violation::Desynchronised));
    }

    #[test]
    fn a_connection_is_between_requests_until_bytes_pass_or_it_closes() {
        let wire = Wire::default();
        assert!(!wire.signals().between_requests, "nothing has been read");
        for ends in [Wire::closes, |wire: &Wire| wire.progress(1, false, false)] {
            assert!(!wire.read_dry(true) && wire.signals().between_requests);
            ends(&wire);
            assert!(!wire.signals().between_requests);
        }
        wire.read_dry(true);
        wire.read_dry(false);
        assert!(!wire.signals().between_requests);
        wire.expire_head();
        assert!(wire.read_dry(false), "the front is told as well");
    }

    #[test]
    fn each_head_has_its_own_time() {
        let wire = Wire::default();
        wire.progress(0, false, true);
        let first = wire.signals().head_since;
        wire.progress(0, false, true);
        assert_eq!(wire.signals().head_since, first, "more of the same head");
        while Some(Instant::now()) == first {}
        wire.progress(1, false, true);
        assert!(wire.signals().head_since > first, "the next one, begun with the end of the first");
        wire.expire_head();
        wire.progress(1, false, true);
        assert!(wire.head_expired() && wire.signals().head_since.is_none());
        wire.progress(2, false, false);
        assert!(!wire.head_expired() && wire.signals().head_since.is_none());
    }

    #[test]
    fn only_the_answer_to_the_asking_request_decides_an_upgrade() {
        let cx = Context::from_waker(Waker::noop());
        for (early, switching, wanted) in [
            (false, true, Upgrade::Granted),
            (false, false, Upgrade::Declined),
            (true, true, Upgrade::Granted),
        ] {
            let wire = Wire::default();
            wire.progress(2, false, false);
            wire.answered(1, true);
            if early {
                // Before the body of the asking request has ended.
                wire.answered(2, switching);
            }
            wire.await_upgrade();
            if !early {
                assert_eq!(wire.upgrade(&cx), Upgrade::Awaited);
                wire.answered(2, switching);
            }
            assert_eq!(wire.upgrade(&cx), wanted);
        }
    }
}
