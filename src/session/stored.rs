//! Sessions whose record is in the store: the browser's cookie holds a ticket only.
//!
//! Owns how a session goes into the store and comes back, how its use is told there, and how what was ended is shared
//! with other processes. It does not know how the store is reached, or who asks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::runtime::Handle;

use super::redis::{Ending, Endings, Heard, Lease, Replaced, Scope, ScopeId, Store, StoreError, Ticket};
use super::revocation::{Ledger, LedgerError, Revocation, Written};
use super::{Absent, MAX_CLOCK_DIFFERENCE, Revocations, Session, SessionError, Sessions, parts};
use crate::clock::UnixTime;

/// The store, for the sessions of one service.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    store: Arc<Store>,
    scope: Scope,
}

impl Sessions {
    /// The same, with records in `store`.
    pub fn with_store(self, store: Arc<Store>, scope: Scope) -> Self {
        Self { shelf: Some(Shelf { store, scope }), ..self }
    }

    /// Whether sessions are in the store, and cookies are tickets.
    pub fn are_stored(&self) -> bool {
        self.shelf.is_some()
    }

    /// Whose sessions they are in the store, if that is where they are.
    pub fn scope(&self) -> Option<&Scope> {
        self.shelf.as_ref().map(|shelf| &shelf.scope)
    }

    /// Whether sessions can be believed now: without a fresh look at the store nobody knows what has been ended.
    pub fn check_store(&self) -> Result<(), Absent> {
        match &self.shelf {
            Some(shelf) if !shelf.store.is_fresh() => Err(Absent::StoreUnavailable),
            _ => Ok(()),
        }
    }

    /// Why the store can't be used, for the record.
    pub fn store_outage(&self) -> Option<String> {
        self.shelf.as_ref()?.store.outage().map(|outage| outage.to_string())
    }

    /// The ticket in a request's cookies. Two different ones are nobody's.
    pub fn ticket(&self, headers: &HeaderMap) -> Result<Ticket, Absent> {
        let mut found: Option<Ticket> = None;
        for bytes in parts::join(&self.sealer, &self.config.cookie_name, headers)? {
            let Some(ticket) = Ticket::from_bytes(&bytes) else { continue };
            match &found {
                Some(other) if *other != ticket => return Err(Absent::Ambiguous),
                _ => found = Some(ticket),
            }
        }
        found.ok_or(Absent::Unreadable)
    }

    /// The session of a ticket. Asking is no use.
    pub async fn load(&self, ticket: &Ticket) -> Result<Session, Absent> {
        let Some(Shelf { store, scope }) = &self.shelf else { return Err(Absent::Unreadable) };
        let loaded = store.load(scope, ticket).await.map_err(|_| Absent::StoreUnavailable)?;
        let loaded = loaded.ok_or(Absent::NotInStore)?;
        let mut session = Session::from_payload(&loaded.payload).ok_or(Absent::Unreadable)?;
        // The record's life in the store is what idleness is judged by.
        let unused = self.record_life(&session).saturating_sub(loaded.idle_left);
        session.sealed_at = self.clock.now().minus(unused);
        session.ticket = Some(ticket.clone());
        self.check(&session)?;
        Ok(session)
    }

    /// Puts a new session into the store, if that is where sessions are.
    pub async fn put(&self, session: &mut Session) -> Result<(), SessionError> {
        let Some(Shelf { store, scope }) = &self.shelf else { return Ok(()) };
        let ticket = Ticket::new().map_err(|error| store_error(session, error))?;
        let payload = session.to_payload(self.clock.now())?;
        let created = store.create(scope, &ticket, &payload, self.record_life(session)).await;
        created.map_err(|error| store_error(session, error))?;
        session.ticket = Some(ticket);
        Ok(())
    }

    /// Tells the store that the session is in use, and returns it so. A session that is not in the store comes back as
    /// it is.
    pub async fn touch(&self, session: &Session) -> Result<Session, Absent> {
        let mut session = session.clone();
        let (Some(Shelf { store, scope }), Some(ticket)) = (&self.shelf, &session.ticket) else {
            return Ok(session);
        };
        match store.touch(scope, ticket, self.record_life(&session)).await {
            Ok(true) => {
                session.sealed_at = self.clock.now();
                Ok(session)
            }
            Ok(false) => Err(Absent::NotInStore),
            Err(_) => Err(Absent::StoreUnavailable),
        }
    }

    /// The same for a session that is in use without requests: in the background, and no more often than for requests.
    /// Wants a runtime.
    pub(super) fn touch_soon(&self, session: &Session, now: UnixTime) {
        let (Some(shelf), Some(ticket)) = (self.shelf.clone(), session.ticket.clone()) else { return };
        if self.told.last(session.id).is_some_and(|told| now.since(told) < self.seal_age()) {
            return;
        }
        self.told.note(session.id, now);
        let life = self.record_life(session);
        // If it fails, the next request tells it, or the session is idle by the store's clock.
        tokio::spawn(async move { shelf.store.touch(&shelf.scope, &ticket, life).await });
    }

    /// Takes the right to refresh the session.
    pub async fn lease(&self, session: &Session) -> Leased {
        let (Some(Shelf { store, scope }), Some(ticket)) = (&self.shelf, &session.ticket) else {
            return Leased::NotNeeded;
        };
        match store.lease(scope, ticket).await {
            Ok(Some(lease)) => Leased::Ours(lease),
            Ok(None) => Leased::Others,
            Err(unavailable) => Leased::Unavailable(unavailable.to_string()),
        }
    }

    /// Writes a refreshed session in place of the old one.
    pub async fn replace(&self, session: &Session, lease: &Lease) -> Result<Replaced, SessionError> {
        let (Some(Shelf { store, scope }), Some(ticket)) = (&self.shelf, &session.ticket) else {
            return Ok(Replaced::Yes);
        };
        let payload = session.to_payload(session.sealed_at)?;
        store.replace(scope, ticket, &payload, lease).await.map_err(|error| store_error(session, error))
    }

    /// Takes the record of a session that was ended away. If that fails it expires by itself, and nobody can use it.
    pub async fn remove(&self, session: &Session) {
        if let (Some(Shelf { store, scope }), Some(ticket)) = (&self.shelf, &session.ticket) {
            let _ = store.remove(scope, ticket).await;
        }
    }

    /// How long a record lives without use.
    fn record_life(&self, session: &Session) -> Duration {
        let left = self.expires_at(session).since(self.clock.now());
        left.min(self.config.idle_timeout).max(Duration::from_secs(1))
    }
}

/// The right to refresh a session.
#[derive(Debug)]
pub enum Leased {
    /// Only this process has the session: nobody has to be asked.
    NotNeeded,
    /// It is ours until it is dropped.
    Ours(Lease),
    /// Another process has it.
    Others,
    /// The store can't tell.
    Unavailable(String),
}

fn store_error(session: &Session, error: StoreError) -> SessionError {
    match error {
        StoreError::TooLarge { .. } => session.too_large(),
        error => SessionError::Store(error),
    }
}

/// Writes what was ended into the store, for every process.
#[derive(Debug)]
pub struct StoreLedger {
    store: Arc<Store>,
    scope: ScopeId,
    max_lifetime: Duration,
    control: Handle,
}

impl StoreLedger {
    /// For one service, whose sessions live `max_lifetime` at most. `control` is the runtime that does the work.
    pub fn new(store: Arc<Store>, scope: &Scope, max_lifetime: Duration, control: Handle) -> Self {
        Self { store, scope: scope.id(), max_lifetime, control }
    }
}

impl Ledger for StoreLedger {
    fn append(&self, _service: &str, revocation: &Revocation) -> Written {
        let (store, ending) = (self.store.clone(), ending(self.scope, revocation, self.max_lifetime));
        let told = self.control.spawn(async move { store.end(ending).await });
        Box::pin(async move {
            match told.await {
                Ok(Ok(())) => Ok(()),
                _ => Err(LedgerError::NotShared),
            }
        })
    }

    fn is_shared(&self) -> bool {
        true
    }
}

/// Takes what other processes have ended, for all services.
pub struct SharedEndings(Vec<(ScopeId, Arc<Revocations>)>);

impl SharedEndings {
    /// For these services.
    pub fn new(services: Vec<(Scope, Arc<Revocations>)>) -> Self {
        Self(services.into_iter().map(|(scope, revocations)| (scope.id(), revocations)).collect())
    }
}

impl Endings for SharedEndings {
    fn learn(&self, heard: Heard) {
        match heard {
            Heard::Ending(Ending { scope, entry, .. }) => {
                for (_, revocations) in self.0.iter().filter(|(known, _)| *known == scope) {
                    match Revocation::from_bytes(&entry) {
                        Some(revocation) => revocations.learn(revocation),
                        // Something was ended, and nobody here knows what.
                        None => revocations.end_all_until_now(),
                    }
                }
            }
            Heard::AllBefore(time) => {
                for (_, revocations) in &self.0 {
                    revocations.end_all_until(time);
                }
            }
        }
    }

    fn known(&self) -> Vec<Ending> {
        let all = self.0.iter().flat_map(|(scope, revocations)| {
            let (max_lifetime, now) = (revocations.max_lifetime(), revocations.now());
            let known = revocations.known().into_iter();
            // What the store has let go because it expired must not be given to it again and again.
            known
                .map(move |revocation| ending(*scope, &revocation, max_lifetime))
                .filter(move |ending| ending.expires_at > now)
        });
        all.collect()
    }
}

impl fmt::Debug for SharedEndings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedEndings").field(&self.0.len()).finish()
    }
}

/// The line "sessions born up to then are over" has no end of its own. In the store it needs one, or nothing behind it
/// would ever leave: when the last session that it is about is over anyway.
fn ending(scope: ScopeId, revocation: &Revocation, max_lifetime: Duration) -> Ending {
    let made = UnixTime(revocation.made().0.div_ceil(1000));
    let expires_at = revocation.expires_at().min(made.plus(max_lifetime + MAX_CLOCK_DIFFERENCE));
    Ending { scope, entry: revocation.to_bytes().to_vec(), expires_at }
}

#[cfg(test)]
mod tests {
    use super::super::revocation::{Entry, Why};
    use super::super::{Binding, SessionId};
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn everything_that_is_shared_has_an_end() {
        const START: UnixTime = UnixTime(1_800_000_000);
        const HOUR: Duration = Duration::from_secs(3600);
        let (clock, hand) = Clock::manual(START);
        let [service, host, issuer, client_id] =
            ["app", "app.test", "https://idp.test", "client"].map(str::to_owned);
        let scope = Scope::new(&Binding { service, host, issuer, client_id });
        let revocations = Revocations::new("app".into(), HOUR, clock, None, Arc::new(|_, _| {}));
        let revocations = Arc::new(revocations);
        let shared = SharedEndings::new(vec![(scope, revocations.clone())]);
        // The second end finds the first one expired, and makes a line of it.
        for _ in 0..2 {
            drop(revocations.end(Entry::Session(SessionId::new().unwrap()), Why::Logout));
            let [known] = &shared.known()[..] else { panic!("{:?}", shared.known()) };
            assert_eq!(known.expires_at, revocations.now().plus(HOUR + MAX_CLOCK_DIFFERENCE));
            hand.advance(HOUR + MAX_CLOCK_DIFFERENCE);
            assert_eq!(shared.known(), [], "it ends at its end");
        }
        hand.advance(HOUR);
        assert_eq!(revocations.known().len(), 2, "it is still known here");
        for revocation in revocations.known() {
            let shared = ending(shared.0[0].0, &revocation, HOUR);
            assert!(shared.expires_at < revocations.now(), "{:?}", shared.expires_at);
        }
    }

    /// What another process ended is over here, in its service and in no other; what can't be read ends everything.
    #[test]
    fn what_others_ended_is_over_in_its_own_service() {
        let (clock, _hand) = Clock::manual(UnixTime(1_800_000_000));
        let service = |name: &str| {
            let [host, issuer, client_id] = ["app.test", "https://idp.test", "client"].map(str::to_owned);
            let scope = Scope::new(&Binding { service: name.to_owned(), host, issuer, client_id });
            let hour = Duration::from_secs(3600);
            let revocations = Revocations::new(name.into(), hour, clock.clone(), None, Arc::new(|_, _| {}));
            (scope, Arc::new(revocations))
        };
        let ((one, of_one), (two, of_two)) = (service("one"), service("two"));
        let shared = SharedEndings::new(vec![(one.clone(), of_one.clone()), (two, of_two.clone())]);
        let (_, elsewhere) = service("one");
        drop(elsewhere.end(Entry::Session(SessionId::new().unwrap()), Why::Logout));
        let ended = elsewhere.known()[0];
        let heard = ending(one.id(), &ended, of_one.max_lifetime());
        shared.learn(Heard::Ending(heard.clone()));
        assert_eq!((of_one.known(), of_two.known()), (vec![ended], vec![]));
        shared.learn(Heard::Ending(Ending { entry: b"of a later version".to_vec(), ..heard }));
        assert_eq!((of_one.known().len(), of_two.known().len()), (1, 0), "one line in place of all before");
        assert!(of_one.known() != [ended]);
        shared.learn(Heard::AllBefore(clock.now()));
        assert_eq!(of_two.known().len(), 1, "said of every service");
    }
}
