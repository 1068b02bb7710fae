//! Which sessions are over before their bounds, whyever: logout, a word of the provider, an administrator, a
//! refused refresh.
//!
//! Owns the list of what was ended, its order in time, and how it is kept over restarts. It does not know how a
//! session is found, who asked for its end, or what else is to be done about it.
//!
//! A session in a cookie can't be taken back from the browser, so its end has to be remembered for as long as the
//! cookie could be believed. Memory is what requests are judged by; a [`Ledger`] only brings it back after a
//! restart, or to another process. Nothing that was ended is ever forgotten: what the list has no more room or
//! need for becomes one line, "sessions born up to then are over".
//!
//! Two things are compared with that line, and neither is the wall clock: [`Session::born`] and the moment of an
//! end are drawn from one count per service that follows the wall clock forward and never goes back
//! ([`Revocations::birth`]). So a clock that jumps back revives nobody, and one that jumped forward for a while
//! keeps nobody from a new login.

mod disk;
mod entry;
mod file;
mod ledger;
mod list;
mod replays;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use super::{MAX_CLOCK_DIFFERENCE, Session, SessionId};
use crate::clock::{Clock, Millis, UnixTime};

use self::list::List;

pub use self::disk::{DiskEvent, DiskEvents, DiskLedger, LEDGER_FILE};
pub use self::entry::{Entry, REVOCATION_BYTES, Revocation, Why};
pub use self::ledger::{Ledger, LedgerError, SharedAndKept, Written};
pub use self::list::MAX_ENTRIES;
pub use self::replays::{MAX_REPLAYS, Replays};

/// Which sessions of one service are over before their bounds. Shared by all workers, behind an `Arc`.
pub struct Revocations {
    service: Arc<str>,
    /// How long a session can be believed: its maximal lifetime, and what two clocks may be apart.
    remembered_for: Duration,
    clock: Clock,
    ledger: Option<Arc<dyn Ledger>>,
    events: Events,
    epoch: AtomicU64,
    /// The latest moment that was drawn or heard of.
    latest: AtomicU64,
    list: Mutex<List>,
    /// Whether the ledger did not answer in time when it was asked last.
    slow: Arc<AtomicBool>,
}

impl Revocations {
    /// For a service whose sessions live `max_lifetime` at most. Without a ledger, ends last as long as the
    /// process.
    pub fn new(
        service: Arc<str>,
        max_lifetime: Duration,
        clock: Clock,
        ledger: Option<Arc<dyn Ledger>>,
        events: Events,
    ) -> Self {
        Self {
            service,
            remembered_for: max_lifetime + MAX_CLOCK_DIFFERENCE,
            clock,
            ledger,
            events,
            epoch: AtomicU64::new(0),
            latest: AtomicU64::new(0),
            list: Mutex::new(List::new()),
            slow: Arc::default(),
        }
    }

    /// The service.
    pub fn service(&self) -> &Arc<str> {
        &self.service
    }

    /// How long its sessions live at most.
    pub(super) fn max_lifetime(&self) -> Duration {
        self.remembered_for.saturating_sub(MAX_CLOCK_DIFFERENCE)
    }

    /// By the clock that it has.
    pub(super) fn now(&self) -> UnixTime {
        self.clock.now()
    }

    /// Changes with every end that is made or learned of. A session that [`Self::ended`] knew nothing of at one
    /// epoch need not be looked for again at the same. One atomic load.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The moment for a session that is being made: later than every end that is known here.
    pub fn birth(&self) -> Millis {
        self.moment()
    }

    /// Why the session is over, if it is. Takes a lock: to be asked only when the epoch has moved.
    pub fn ended(&self, session: &Session) -> Option<Why> {
        // Whatever ends this session later has to be later, also if another replica's clock is ahead.
        self.latest.fetch_max(session.born.0, Ordering::Relaxed);
        self.list().ended(session)
    }

    /// Ends what `entry` names, for every worker at once: it is done when this returns, also if the future is
    /// dropped. The future is there for those who want to answer "done": it resolves when the end would survive
    /// the process, or, if the ledger is broken or takes longer than [`DURABLE_WITHIN`], with an error and an event.
    /// Wants a runtime with a timer.
    #[must_use = "wait for it before telling anybody that the session is over for good"]
    pub fn end(&self, entry: Entry<'_>, why: Why) -> Written {
        self.end_those_until(entry, self.moment(), why)
    }

    /// The same of several sessions.
    #[must_use = "wait for it before telling anybody that the sessions are over for good"]
    pub fn end_each(&self, sessions: impl IntoIterator<Item = SessionId>, why: Why) -> Written {
        all_written(sessions.into_iter().map(|id| self.end(Entry::Session(id), why)).collect())
    }

    /// At the provider's word that its session `sid`, of this person if it says so, is over: ends also those of the
    /// person's sessions that came without a `sid` up to `time`, which counts as in [`Self::end_until`].
    #[must_use = "wait for it before telling anybody that the session is over for good"]
    pub fn end_provider_session(
        &self,
        issuer: &str,
        (sid, subject): (&str, Option<&str>),
        time: UnixTime,
        why: Why,
    ) -> Written {
        let unplaced = subject.map(|subject| Entry::Unplaced { issuer, subject });
        let entries = [Some(Entry::ProviderSession { issuer, sid }), unplaced].into_iter().flatten();
        all_written(entries.map(|entry| self.end_until(entry, time, why)).collect())
    }

    /// The same of those sessions of a person that were made up to `time`, which others have said: it counts
    /// only where it has passed. What else ends does so whenever it began.
    #[must_use = "wait for it before telling anybody that the session is over for good"]
    pub fn end_until(&self, entry: Entry<'_>, time: UnixTime, why: Why) -> Written {
        let moment = self.moment();
        // Where the wall clock has gone back, nobody knows which moment was that of a time.
        let follows = moment.0 <= Millis::from(self.clock.now().plus(FOLLOWS_WITHIN)).0;
        let made = match entry {
            Entry::Subject { .. } | Entry::Unplaced { .. } if follows => moment.min(Millis::from(time)),
            _ => moment,
        };
        self.end_those_until(entry, made, why)
    }

    fn end_those_until(&self, entry: Entry<'_>, made: Millis, why: Why) -> Written {
        let revocation = Revocation::new(entry, why, made, self.clock.now().plus(self.remembered_for));
        let folded = self.remember(revocation);
        // It goes with the end of a session of the provider, which is one word.
        if !matches!(entry, Entry::Unplaced { .. }) {
            (self.events)(&self.service, Event::Ended { why });
        }
        let Some(ledger) = &self.ledger else { return Box::pin(std::future::ready(Ok(()))) };
        let written = ledger.append(&self.service, &revocation);
        if let Some(folded) = folded {
            // In the same commit most likely; if it is lost, the next one says the same and more.
            drop(ledger.append(&self.service, &folded));
        }
        let (service, events, slow) = (self.service.clone(), self.events.clone(), self.slow.clone());
        let too_late = if ledger.is_shared() { LedgerError::NotShared } else { LedgerError::NotDurable };
        Box::pin(async move {
            // What is wrong with it, a ledger tells itself; that it hangs, it can't.
            let written = tokio::time::timeout(DURABLE_WITHIN, written).await;
            let hangs = written.is_err();
            if !slow.swap(hangs, Ordering::Relaxed) && hangs {
                events(&service, Event::LedgerSlow);
            }
            written.unwrap_or(Err(too_late))
        })
    }

    /// Takes over an end that was made by another process, or by this one before it was started again.
    pub fn learn(&self, revocation: Revocation) {
        self.latest.fetch_max(revocation.made().0, Ordering::Relaxed);
        // A ledger that is read again must not send every worker looking.
        if !self.list().holds(&revocation) {
            self.remember(revocation);
        }
    }

    /// Everything that is known to have been ended.
    pub fn known(&self) -> Vec<Revocation> {
        self.list().revocations().collect()
    }

    /// Every session that was born up to `time` is over: what was ended of them can't be known any more.
    pub fn end_all_until(&self, time: UnixTime) {
        // The whole second: born has milliseconds.
        self.learn(Revocation::everything(Why::Older, Millis::from(time.plus(Duration::from_secs(1)))));
    }

    /// The same for every session so far.
    pub fn end_all_until_now(&self) {
        self.lose();
    }

    /// Everything that was made up to now, by the wall clock, is over: what had been ended can't be known any more,
    /// nor which moments had been drawn.
    fn lose(&self) -> Revocation {
        let expires_at = self.clock.now().plus(self.remembered_for);
        let revocation = Revocation::new(Entry::Everything, Why::Older, self.moment(), expires_at);
        self.remember(revocation);
        revocation
    }

    /// Returns the line "sessions born up to then are over" if the list had to move it.
    fn remember(&self, revocation: Revocation) -> Option<Revocation> {
        let mut list = self.list();
        let was_folding = list.is_folding();
        let moved = list.put(revocation, self.clock.now());
        let folds = list.is_folding() && !was_folding;
        // Under the lock and after the change: whoever sees the new epoch finds the entry.
        self.epoch.fetch_add(1, Ordering::Release);
        drop(list);
        if folds {
            (self.events)(&self.service, Event::Folding);
        }
        moved
    }

    /// Later than every moment before it, and not before the wall clock.
    fn moment(&self) -> Millis {
        let now = self.clock.now_millis().0;
        let next = |latest: u64| now.max(latest.saturating_add(1));
        let drawn =
            self.latest.fetch_update(Ordering::AcqRel, Ordering::Acquire, |latest| Some(next(latest)));
        Millis(next(drawn.unwrap_or_default()))
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When all of them are written; the worst of what becomes of them.
fn all_written(mut all: Vec<Written>) -> Written {
    let mut outcome = Ok(());
    Box::pin(poll_fn(move |cx| {
        all.retain_mut(|one| match one.as_mut().poll(cx) {
            Poll::Ready(written) => {
                // That others don't know is worse than that this process may forget.
                if outcome != Err(LedgerError::NotShared) && written.is_err() {
                    outcome = written;
                }
                false
            }
            Poll::Pending => true,
        });
        if all.is_empty() { Poll::Ready(outcome) } else { Poll::Pending }
    }))
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations").field("service", &self.service).field("epoch", &self.epoch()).finish()
    }
}

/// What happens to the revocations of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something was ended at this process.
    Ended {
        /// Why.
        why: Why,
    },
    /// An end holds, but a restart would undo it: the ledger did not answer within [`DURABLE_WITHIN`]. Told once,
    /// until it is in time again.
    LedgerSlow,
    /// There are more than [`MAX_ENTRIES`]: the oldest became "sessions born up to then are over", which also
    /// ends sessions of that time that nobody asked to end. Told once, until there is room again.
    Folding,
}

/// Hears what happens, with the name of the service. Called on any thread; must not block.
pub type Events = Arc<dyn Fn(&Arc<str>, Event) + Send + Sync>;

/// How far moments may be ahead of the wall clock in the ordinary course of things.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(2);

/// Longest wait for an end to become durable.
pub const DURABLE_WITHIN: Duration = Duration::from_secs(2);
