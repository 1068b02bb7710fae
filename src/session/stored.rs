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
use super::{Absent, Revocations, Session, SessionError, Sessions, parts};

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
    control: Handle,
}

impl StoreLedger {
    /// For one service. `control` is the runtime that does the work.
    pub fn new(store: Arc<Store>, scope: &Scope, control: Handle) -> Self {
        Self { store, scope: scope.id(), control }
    }
}

impl Ledger for StoreLedger {
    fn append(&self, _service: &str, revocation: &Revocation) -> Written {
        let (store, ending) = (self.store.clone(), ending(self.scope, revocation));
        let told = self.control.spawn(async move { store.end(ending).await });
        Box::pin(async move {
            match told.await {
                Ok(Ok(())) => Ok(()),
                _ => Err(LedgerError),
            }
        })
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
            revocations.known().into_iter().map(|revocation| ending(*scope, &revocation))
        });
        all.collect()
    }
}

impl fmt::Debug for SharedEndings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedEndings").field(&self.0.len()).finish()
    }
}

fn ending(scope: ScopeId, revocation: &Revocation) -> Ending {
    Ending { scope, entry: revocation.to_bytes().to_vec(), expires_at: revocation.expires_at() }
}
