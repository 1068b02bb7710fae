//! What the byte side and the request side of one connection tell each other.
//!
//! The two sides run in one task, yet the byte side has to be `Send`, because hyper hands it over as such
//! when a connection is upgraded. Hence atomics, all of them relaxed: on one thread they are plain memory. Only
//! where a request to leave HTTP waits for its answer, there is a mutex, which nobody ever waits for.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::{Context, Waker};

use tokio::time::{Duration, Instant};

use super::Violation;

/// Shared by the front of a connection, its service and its driver.
#[derive(Debug)]
pub(in crate::server) struct Wire {
    begun: Instant,
    head_since: Moment,
    write_blocked_since: Moment,
    lingering_since: Moment,
    abusive: AtomicBool,
    between_requests: AtomicBool,
    /// Since bytes were read, nobody has read on until there were none.
    unread: AtomicBool,
    to_look: AtomicBool,
    /// Request heads that hyper was given, the stand-in among them.
    heads: AtomicU64,
    in_body: AtomicBool,
    ends_by_closing: AtomicBool,
    refusal: OnceLock<(u64, Violation)>,
    body_violation: OnceLock<Violation>,
    head_expired: AtomicBool,
    upgrade: AtomicU8,
    /// The last call whose answer is known, and whether that was 101.
    answered: AtomicU64,
    switching: AtomicBool,
    reader: Mutex<Option<Waker>>,
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
    /// There may be something to read, and nobody reads it: the end of the connection would go unnoticed behind it.
    pub(in crate::server) unread: bool,
}

impl Signals {
    /// Whether there is nothing to watch.
    pub(in crate::server) fn is_quiet(&self) -> bool {
        self.head_since.is_none() && self.write_blocked_since.is_none() && self.lingering_since.is_none()
    }
}

/// Where a request to leave HTTP stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Upgrade {
    /// There is none, or it was answered with anything but 101.
    Declined,
    Awaited,
    /// The answer was 101: the bytes are no longer HTTP.
    Granted,
}

/// A time, or none.
#[derive(Debug, Default)]
struct Moment(AtomicU64);

impl Moment {
    /// Notes the time now, on a clock that began at `begun`.
    fn begin(&self, begun: Instant) {
        let nanoseconds = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX - 1);
        self.0.store(nanoseconds + 1, Relaxed);
    }

    fn clear(&self) {
        self.0.store(0, Relaxed);
    }

    fn is_some(&self) -> bool {
        self.0.load(Relaxed) != 0
    }

    fn get(&self, begun: Instant) -> Option<Instant> {
        Some(begun + Duration::from_nanos(self.0.load(Relaxed).checked_sub(1)?))
    }
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            head_since: Moment::default(),
            write_blocked_since: Moment::default(),
            lingering_since: Moment::default(),
            abusive: AtomicBool::new(false),
            between_requests: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            to_look: AtomicBool::new(false),
            heads: AtomicU64::new(0),
            in_body: AtomicBool::new(false),
            ends_by_closing: AtomicBool::new(false),
            refusal: OnceLock::new(),
            body_violation: OnceLock::new(),
            head_expired: AtomicBool::new(false),
            upgrade: AtomicU8::new(Upgrade::Declined as u8),
            answered: AtomicU64::new(0),
            switching: AtomicBool::new(false),
            reader: Mutex::new(None),
        }
    }
}

impl Wire {
    /// For the driver.
    pub(in crate::server) fn signals(&self) -> Signals {
        Signals {
            head_since: self.head_since.get(self.begun),
            write_blocked_since: self.write_blocked_since.get(self.begun),
            lingering_since: self.lingering_since.get(self.begun),
            abusive: self.abusive.load(Relaxed),
            between_requests: self.between_requests.load(Relaxed),
            unread: self.unread.load(Relaxed),
        }
    }

    /// For the driver: when next polled, the front looks whether the client has left.
    pub(in crate::server) fn look(&self) {
        self.to_look.store(true, Relaxed);
    }

    /// For the driver: the head that is under way took too long. The front refuses it when next polled.
    pub(in crate::server) fn expire_head(&self) {
        self.head_expired.store(true, Relaxed);
        self.head_since.clear();
    }

    /// For the service, at its `call`th call (from 1): whether this call stands for a refused head. A call
    /// without a head is one that hyper found and the front did not.
    pub(in crate::server) fn refusal_of(&self, call: u64) -> Option<Violation> {
        match self.refusal.get() {
            _ if call > self.heads.load(Relaxed) => Some(Violation::Desynchronised),
            Some((at, violation)) if *at == call => Some(*violation),
            _ => None,
        }
    }

    /// For the service: the answer of the `call`th call is known. Decides an upgrade that it asked for, and
    /// tells whether the client was still sending the body of that very request.
    pub(in crate::server) fn answered(&self, call: u64, switching: bool) -> bool {
        self.answered.store(call, Relaxed);
        self.switching.store(switching, Relaxed);
        self.decide();
        call == self.heads.load(Relaxed) && self.in_body.load(Relaxed)
    }

    /// For the service: the request is one of HTTP/1.0, whose answer may have no other end than that of the connection.
    pub(in crate::server) fn end_by_closing(&self) {
        self.ends_by_closing.store(true, Relaxed);
    }

    /// For the front: whether a request said so.
    pub(super) fn ends_by_closing(&self) -> bool {
        self.ends_by_closing.load(Relaxed)
    }

    /// For the handler: what was wrong with the body that is being received, once it broke.
    pub(in crate::server) fn body_violation(&self) -> Option<Violation> {
        self.body_violation.get().copied()
    }

    /// For the front: where the machine stands after some bytes.
    pub(super) fn progress(&self, heads: u64, in_body: bool, head_unfinished: bool) {
        if self.heads.load(Relaxed) != heads {
            // The head that was timed is complete; what is unfinished now is the next one.
            self.head_since.clear();
            self.head_expired.store(false, Relaxed);
        }
        self.heads.store(heads, Relaxed);
        self.in_body.store(in_body, Relaxed);
        self.between_requests.store(false, Relaxed);
        self.unread.store(true, Relaxed);
        if !head_unfinished {
            self.head_since.clear();
            self.head_expired.store(false, Relaxed);
        } else if !self.head_since.is_some() && !self.head_expired.load(Relaxed) {
            self.head_since.begin(self.begun);
        }
    }

    /// For the front: hyper gets a stand-in as its `at`th request. Nothing is read after it.
    pub(super) fn refuse(&self, at: u64, violation: Violation) {
        self.heads.store(at, Relaxed);
        // The first refusal is the only one.
        let _ = self.refusal.set((at, violation));
        self.head_since.clear();
    }

    /// For the front: the body under way is broken. Nothing is read after it.
    pub(super) fn refuse_body(&self, violation: Violation) {
        // The first one is the only one.
        let _ = self.body_violation.set(violation);
    }

    /// For the front: whether the driver gave up on the head under way.
    pub(super) fn head_expired(&self) -> bool {
        self.head_expired.load(Relaxed)
    }

    /// For the front: there is nothing to read, and whether a request may begin next. Tells whether the driver gave
    /// up on the head under way.
    pub(super) fn read_dry(&self, between_requests: bool) -> bool {
        self.between_requests.store(between_requests, Relaxed);
        self.unread.store(false, Relaxed);
        self.head_expired()
    }

    /// For the front: whether a body is being received.
    pub(super) fn is_in_body(&self) -> bool {
        self.in_body.load(Relaxed)
    }

    /// For the front: whether the driver asked for a look, which is then done with.
    pub(super) fn is_to_look(&self) -> bool {
        self.to_look.load(Relaxed) && self.to_look.swap(false, Relaxed)
    }

    /// For the front: the write side is being shut, and no other request will come.
    pub(super) fn closes(&self) {
        self.between_requests.store(false, Relaxed);
    }

    /// For the front: the last head asked for an upgrade.
    pub(super) fn await_upgrade(&self) {
        self.upgrade.store(Upgrade::Awaited as u8, Relaxed);
        self.decide();
    }

    /// For the front: how the upgrade stands. While it is awaited, the decision wakes the task of `cx`.
    pub(super) fn upgrade(&self, cx: &Context<'_>) -> Upgrade {
        match self.upgrade.load(Relaxed) {
            stands if stands == Upgrade::Awaited as u8 => {
                *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
                Upgrade::Awaited
            }
            stands if stands == Upgrade::Granted as u8 => Upgrade::Granted,
            _ => Upgrade::Declined,
        }
    }

    /// Settles the upgrade that the last head asked for, if that head is answered.
    fn decide(&self) {
        let awaited = self.upgrade.load(Relaxed) == Upgrade::Awaited as u8;
        if awaited && self.answered.load(Relaxed) == self.heads.load(Relaxed) {
            let stands = if self.switching.load(Relaxed) { Upgrade::Granted } else { Upgrade::Declined };
            self.upgrade.store(stands as u8, Relaxed);
            if let Some(reader) = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take() {
                reader.wake();
            }
        }
    }

    /// For the front: writing stalls, or goes on.
    pub(super) fn write_blocked(&self, blocked: bool) {
        if blocked {
            self.write_blocked_since.begin(self.begun);
        } else {
            self.write_blocked_since.clear();
        }
    }

    /// For the front: only discarding is left to do.
    pub(super) fn lingers(&self) {
        self.write_blocked_since.clear();
        if !self.lingering_since.is_some() {
            self.lingering_since.begin(self.begun);
        }
    }

    /// For the front: HTTP/2 frames that say nothing are too many.
    pub(super) fn abusive(&self) {
        self.abusive.store(true, Relaxed);
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
    fn what_is_watched_is_not_quiet() {
        type Begin = fn(&Wire);
        let begins: [Begin; 3] =
            [|wire| wire.progress(0, false, true), |wire| wire.write_blocked(true), Wire::lingers];
        assert!(Wire::default().signals().is_quiet());
        for (number, begin) in begins.into_iter().enumerate() {
            let wire = Wire::default();
            while wire.begun.elapsed().is_zero() {}
            begin(&wire);
            let signals = wire.signals();
            assert!(!signals.is_quiet(), "{number}");
            let since = [signals.head_since, signals.write_blocked_since, signals.lingering_since];
            let now = Instant::now();
            let times: Vec<bool> =
                since.iter().map(|since| since.is_some_and(|at| wire.begun < at && at <= now)).collect();
            assert_eq!(times, [0, 1, 2].map(|each| each == number), "{signals:?}");
        }
    }

    #[test]
    fn a_look_is_taken_once_for_each_time_that_it_is_asked_for() {
        let wire = Wire::default();
        assert!(!wire.is_to_look());
        for _ in 0..2 {
            wire.look();
            assert!(wire.is_to_look() && !wire.is_to_look());
        }
    }

    #[test]
    fn lingering_has_one_beginning_and_nothing_else_is_timed_then() {
        let wire = Wire::default();
        wire.write_blocked(true);
        wire.lingers();
        let first = wire.signals();
        assert!(first.lingering_since.is_some() && first.write_blocked_since.is_none());
        while Some(Instant::now()) == first.lingering_since {}
        wire.lingers();
        assert_eq!(wire.signals().lingering_since, first.lingering_since);
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
