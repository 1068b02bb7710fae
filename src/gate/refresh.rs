//! Refreshing sessions (OIDC Core section 12): one token call however many requests want it, and the newest
//! session for everybody who still comes with an older cookie.
//!
//! Owns who waits for whom, and what becomes of the provider's answer. It does not know tokens (that is `oidc`)
//! or cookies (that is `session`). A refresh runs on the control runtime: a client that goes away never leaves a
//! rotated token behind that nobody has.
//!
//! What is kept is found by the id of the session, which is sealed, fixed at the login and never used again: a
//! cookie leads to newer sessions of its own login, and to nobody else's.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use super::service::{RelyingParty, Service};
use crate::clock::Clock;
use crate::oidc;
use crate::session::redis::{Lease, Replaced};
use crate::session::revocation::Entry as Ending;
use crate::session::{Grant, Leased, Session, SessionId, Why};
use crate::telemetry::{Event, Level, Log, Metrics, RefreshResult};

/// The refreshes of one service, under way and done lately. Shared by all workers.
pub struct Refreshes {
    control: Handle,
    clock: Clock,
    log: Log,
    metrics: Metrics,
    state: Mutex<State>,
}

struct State {
    /// The newest revision of each session that was refreshed, for requests that come with an older one.
    newest: LruCache<SessionId, Newest>,
    /// What they take.
    newest_bytes: usize,
    /// Token calls under way.
    running: HashMap<SessionId, Flight>,
    /// When to try again what the provider could not do.
    retry_at: LruCache<SessionId, Instant>,
}

struct Newest {
    session: Arc<Session>,
    since: Instant,
    bytes: usize,
}

#[derive(Clone)]
struct Flight {
    began: Instant,
    /// Closed when the call is over.
    over: watch::Receiver<()>,
}

/// What to do about a session that is due.
enum Step {
    /// Somebody else has refreshed it, and it is not due again.
    Use(Arc<Session>),
    /// A call is under way.
    Wait(Flight, Option<Arc<Session>>),
    /// Not now: the provider could not a moment ago, or too many calls are under way.
    Later(Option<Arc<Session>>),
}

impl Refreshes {
    /// No refresh yet. Calls run on `control`.
    pub fn new(control: Handle, clock: Clock, log: Log, metrics: Metrics) -> Self {
        let state = State {
            newest: LruCache::new(MAX_NEWEST),
            newest_bytes: 0,
            running: HashMap::new(),
            retry_at: LruCache::new(MAX_NEWEST),
        };
        Self { control, clock, log, metrics, state: Mutex::new(state) }
    }

    /// The newest revision of a session that is due, if there is a newer one than the caller has. Begins a
    /// refresh, or joins the one under way, for [`MAX_WAIT`] from its begin; then the caller goes on with what it
    /// has.
    pub(super) async fn newest(
        &self,
        service: &Arc<Service>,
        party: &RelyingParty,
        session: &Session,
    ) -> Option<Arc<Session>> {
        match self.step(service, party, session) {
            Step::Use(newer) => Some(newer),
            Step::Later(newer) => newer,
            Step::Wait(mut flight, newer) => {
                // An error is the end of the call: the sender is gone.
                let over = flight.over.changed();
                let _ = tokio::time::timeout_at(flight.began + MAX_WAIT, over).await;
                self.known(session).or(newer)
            }
        }
    }

    /// The newest known revision of the same login, if it is newer.
    pub(super) fn known(&self, session: &Session) -> Option<Arc<Session>> {
        self.state().newer_than(session)
    }

    fn step(&self, service: &Arc<Service>, party: &RelyingParty, session: &Session) -> Step {
        let mut state = self.state();
        let newer = state.newer_than(session);
        if let Some(newer) = &newer
            && party.sessions.due_at(newer).is_none_or(|due| self.clock.now() < due)
        {
            return Step::Use(newer.clone());
        }
        if let Some(flight) = state.running.get(&session.id) {
            return Step::Wait(flight.clone(), newer);
        }
        let now = Instant::now();
        let early = state.retry_at.peek(&session.id).is_some_and(|at| now < *at);
        if early || state.running.len() >= MAX_RUNNING {
            return Step::Later(newer);
        }
        let (sender, over) = watch::channel(());
        let flight = Flight { began: now, over };
        state.running.insert(session.id, flight.clone());
        let base = newer.clone().unwrap_or_else(|| Arc::new(session.clone()));
        let service = service.clone();
        self.control.spawn(async move {
            if let Some(party) = &service.relying_party {
                // Also when it panics, nobody waits for ever.
                let _landed = Landing { refreshes: &party.refreshes, id: base.id };
                party.refreshes.refresh(&service, party, &base).await;
            }
            drop(sender);
        });
        Step::Wait(flight, newer)
    }

    /// One token call, and what becomes of its answer. Of a session in the store, only one process makes it.
    async fn refresh(&self, service: &Service, party: &RelyingParty, base: &Session) {
        let lease = match party.sessions.lease(base).await {
            Leased::NotNeeded => return self.ask_provider(service, party, base, None).await,
            Leased::Ours(lease) => lease,
            Leased::Others => return self.follow(party, base).await,
            Leased::Unavailable(reason) => {
                self.state().retry_at.put(base.id, Instant::now() + FOLLOW_PAUSE);
                let event = Event::new("refresh-failed", Level::Warning).blame("store");
                return self.tell(service, base, event.message(reason));
            }
        };
        // Another may have been quicker before the lease was ours.
        let Some(ticket) = &base.ticket else { return };
        match party.sessions.load(ticket).await {
            Ok(session) if session.revision > base.revision => self.keep(session),
            Ok(session) => self.ask_provider(service, party, &session, Some(&lease)).await,
            // Ended meanwhile, or nobody can tell: the requests will find out.
            Err(_) => drop(self.state().retry_at.put(base.id, Instant::now() + FOLLOW_PAUSE)),
        }
    }

    /// Another process refreshes: what it wrote is there in a moment.
    async fn follow(&self, party: &RelyingParty, base: &Session) {
        let Some(ticket) = &base.ticket else { return };
        let began = Instant::now();
        while began.elapsed() < FOLLOW_FOR {
            match party.sessions.load(ticket).await {
                Ok(session) if session.revision > base.revision => return self.keep(session),
                // As long as requests wait, often.
                Ok(_) if began.elapsed() < MAX_WAIT => tokio::time::sleep(FOLLOW_EVERY).await,
                Ok(_) => tokio::time::sleep(FOLLOW_ON_EVERY).await,
                Err(_) => break,
            }
        }
        self.state().retry_at.put(base.id, Instant::now() + FOLLOW_PAUSE);
    }

    async fn ask_provider(
        &self,
        service: &Service,
        party: &RelyingParty,
        base: &Session,
        lease: Option<&Lease>,
    ) {
        let Some(grant) = &base.grant else { return };
        let asked = oidc::Refresh {
            refresh_token: grant.refresh_token.clone(),
            subject: base.subject.clone(),
            nonce: grant.nonce.clone(),
            auth_time: base.auth_time,
            claims: base.claims.clone(),
            from_user_info: grant.from_user_info.clone(),
        };
        let renewed = match party.provider.refresh(asked).await {
            Ok(refreshed) => {
                let token = refreshed.grant.refresh_token.clone();
                // Nobody is to be left with the token of a session that is over.
                self.renew(party, base, refreshed).inspect_err(|_| party.provider.revoke(token))
            }
            Err(oidc::RefreshError::Ended(reason)) => Err(reason.to_string()),
            Err(oidc::RefreshError::Unavailable(reason)) => {
                let failed_before = self.state().retry_at.put(base.id, Instant::now() + RETRY_PAUSE);
                self.metrics.refresh(&service.name, RefreshResult::unavailable);
                if failed_before.is_some() {
                    return;
                }
                let message = format!("{reason}; the session goes on with the tags that it has");
                let event = Event::new("refresh-failed", Level::Warning).blame("provider");
                return self.tell(service, base, event.message(message));
            }
        };
        match renewed {
            Ok(session) => {
                let event = Event::new("refresh", Level::Info);
                let event = match changed_claims(base, &session) {
                    changed if changed.is_empty() => event,
                    changed => event.message(format!("changed claims: {}", changed.join(", "))),
                };
                let written = match lease {
                    Some(lease) => self.write(service, party, &session, lease).await,
                    None => true,
                };
                if written && party.revocations.ended(&session).is_none() {
                    self.keep(session);
                } else if let Some(grant) = session.grant {
                    // Ended meanwhile: nobody may be left with the token that came after.
                    party.provider.revoke(grant.refresh_token);
                }
                // Only now: who reads of it finds the new session.
                self.metrics.refresh(&service.name, RefreshResult::success);
                self.tell(service, base, event);
            }
            Err(reason) => {
                // An old copy that is refused says nothing about the session that came after it.
                if self.known(base).is_none() {
                    // It is over here, whoever can be told.
                    let _ = party.revocations.end(Ending::Session(base.id), Why::Refused).await;
                    party.sessions.remove(base).await;
                }
                self.metrics.refresh(&service.name, RefreshResult::refused);
                let event = Event::new("refresh-refused", Level::Warning).blame("provider");
                self.tell(service, base, event.message(format!("{reason}; the session is over")));
            }
        }
    }

    /// Writes a refreshed session into the store; false: it was ended there. What can't be written is kept here, for
    /// the provider may take the old token no more.
    async fn write(&self, service: &Service, party: &RelyingParty, session: &Session, lease: &Lease) -> bool {
        for _ in 0..WRITE_TRIES {
            match party.sessions.replace(session, lease).await {
                Ok(Replaced::Yes) => return true,
                Ok(Replaced::Gone) => return false,
                // Whoever has it now has asked with the old token; there is no telling who was first.
                Ok(Replaced::LeaseLost) => break,
                Err(error) => {
                    let event = Event::new("refresh-unwritten", Level::Warning).blame("store");
                    self.tell(service, session, event.message(error.to_string()));
                    tokio::time::sleep(WRITE_PAUSE).await;
                }
            }
        }
        true
    }

    fn keep(&self, session: Session) {
        let mut state = self.state();
        state.retry_at.pop(&session.id);
        state.put_newest(session);
    }

    /// The session as the provider sees it now.
    fn renew(
        &self,
        party: &RelyingParty,
        base: &Session,
        refreshed: oidc::Refreshed,
    ) -> Result<Session, String> {
        let oidc::Refreshed { grant, id_token, claims, from_user_info } = refreshed;
        let nonce = base.grant.as_ref().map(|grant| grant.nonce.clone()).unwrap_or_default();
        let mut session = Session {
            revision: base.revision.saturating_add(1),
            sealed_at: self.clock.now(),
            claims: claims.into_iter().filter(|(name, _)| party.needed_claims.contains(name)).collect(),
            kept: party.needed_claims.clone(),
            grant: Some(Grant {
                refresh_token: grant.refresh_token,
                nonce,
                received_at: grant.received_at,
                expires_at: grant.expires_at,
                from_user_info,
            }),
            ..base.clone()
        };
        if let Some(new) = id_token {
            session.token_expires_at = new.expires_at;
            session.acr = new.acr.or(session.acr);
            session.auth_time = new.auth_time.or(session.auth_time);
            session.sid = new.sid.or(session.sid);
            session.id_token = party.kept_id_token(new.text);
        }
        party.sessions.fits(&session).map_err(|error| error.to_string())?;
        Ok(session)
    }

    fn tell(&self, service: &Service, session: &Session, event: Event) {
        self.log.event(event.service(&service.name).subject(&session.subject));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put_newest(&mut self, session: Session) {
        let (id, bytes) = (session.id, session.text_bytes());
        let newest = Newest { session: Arc::new(session), since: Instant::now(), bytes };
        self.newest_bytes += bytes;
        if let Some((_, old)) = self.newest.push(id, newest) {
            self.newest_bytes -= old.bytes;
        }
        // The latest stays, for requests that are waiting for it.
        while self.newest_bytes > MAX_NEWEST_BYTES && self.newest.len() > 1 {
            let Some((_, old)) = self.newest.pop_lru() else { break };
            self.newest_bytes -= old.bytes;
        }
    }

    fn newer_than(&mut self, session: &Session) -> Option<Arc<Session>> {
        let newest = self.newest.get(&session.id)?;
        if newest.since.elapsed() >= KEPT_FOR {
            if let Some(old) = self.newest.pop(&session.id) {
                self.newest_bytes -= old.bytes;
            }
            return None;
        }
        let newer = newest.session.revision > session.revision && newest.session.is_same_login(session);
        newer.then(|| newest.session.clone())
    }
}

/// Ends a flight, however it ends.
struct Landing<'a> {
    refreshes: &'a Refreshes,
    id: SessionId,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.refreshes.state().running.remove(&self.id);
    }
}

impl std::fmt::Debug for Refreshes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Refreshes")
    }
}

/// The names of the claims that are not what they were: for the log, which must not know the values.
fn changed_claims(before: &Session, after: &Session) -> Vec<String> {
    let names: std::collections::BTreeSet<_> = before.claims.keys().chain(after.claims.keys()).collect();
    names.into_iter().filter(|name| before.claims.get(*name) != after.claims.get(*name)).cloned().collect()
}

/// Longest wait of a request for a refresh.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// How long an old cookie leads to the newest session. Then its own refresh token is asked for, and refused.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// Refreshed sessions that are kept for older cookies.
const MAX_NEWEST: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();
/// What they may take, in bytes of text: sessions in the store can be large.
const MAX_NEWEST_BYTES: usize = 64 * 1024 * 1024;
/// Token calls of one service under way.
const MAX_RUNNING: usize = 1_000;
/// How long a session that another process refreshes is looked for: a refresh takes 15 s at most.
const FOLLOW_FOR: Duration = Duration::from_secs(16);
/// How often, while requests wait for it, and later.
const FOLLOW_EVERY: Duration = Duration::from_millis(50);
const FOLLOW_ON_EVERY: Duration = Duration::from_millis(500);
/// The pause after that, or when the store can't tell.
const FOLLOW_PAUSE: Duration = Duration::from_secs(1);
/// How often, and in what pauses, a refreshed session is written.
const WRITE_TRIES: u32 = 5;
const WRITE_PAUSE: Duration = Duration::from_millis(500);
/// The pause of one session after the provider could not refresh it.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
