//! Who is calling: the session in a request's cookies, opened once per cookie and worker.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderMap;
use lru::LruCache;

use super::service::{RelyingParty, Service};
use crate::policy::{Caller, Held};
use crate::proxy::Identity;
use crate::session::{Absent, Session};
use crate::tag::TagSet;

/// Somebody who is logged in, with everything that requests need ready made.
#[derive(Debug)]
pub(super) struct Known {
    /// The session.
    pub(super) session: Session,
    /// `sub`.
    pub(super) subject: Arc<str>,
    /// Which of the rules' requirements hold.
    pub(super) held: Held,
    /// The mapped claims.
    pub(super) identity: Identity,
}

impl Known {
    fn new(session: Session, service: &Service) -> Self {
        let tags = TagSet::from_claims(&session.claims);
        let (identity, _dropped) = Identity::from_claims(&session.claims, &service.mappings);
        Self { subject: session.subject.as_str().into(), held: service.policy.bind(&tags), identity, session }
    }

    /// As the rules see them.
    pub(super) fn caller(&self) -> Caller<'_> {
        Caller::Known {
            held: &self.held,
            acr: self.session.acr.as_deref(),
            auth_time: self.session.auth_time,
        }
    }
}

/// The sessions that one worker has opened lately, by the full text of their cookies, so that no two can be
/// confused. Bounds are asked again at every request.
#[derive(Debug)]
pub(super) struct Callers(RefCell<Cache>);

#[derive(Debug)]
struct Cache {
    sessions: LruCache<Box<[u8]>, Rc<Known>>,
    bytes: usize,
}

impl Callers {
    pub(super) fn new() -> Self {
        Self(RefCell::new(Cache { sessions: LruCache::unbounded(), bytes: 0 }))
    }

    /// The caller, or why nobody is logged in.
    pub(super) fn find(
        &self,
        service: &Service,
        party: &RelyingParty,
        headers: &HeaderMap,
    ) -> Result<Rc<Known>, Absent> {
        let key = party.sessions.cookie_key(headers).ok_or(Absent::NoCookie)?;
        let cached = self.0.borrow_mut().sessions.get(key.as_ref()).cloned();
        if let Some(known) = cached {
            party.sessions.check(&known.session).inspect_err(|_| self.forget(key.as_ref()))?;
            return Ok(known);
        }
        let session = party.sessions.open(headers)?;
        if !session.keeps(&party.needed_claims) {
            return Err(Absent::ClaimsNotKept);
        }
        let known = Rc::new(Known::new(session, service));
        self.keep(key.as_ref(), known.clone());
        Ok(known)
    }

    fn keep(&self, key: &[u8], known: Rc<Known>) {
        let mut cache = self.0.borrow_mut();
        cache.bytes += weight(key);
        if let Some((old, _)) = cache.sessions.push(key.into(), known) {
            cache.bytes -= weight(&old);
        }
        while cache.bytes > MAX_BYTES {
            let Some((old, _)) = cache.sessions.pop_lru() else { break };
            cache.bytes -= weight(&old);
        }
    }

    fn forget(&self, key: &[u8]) {
        let mut cache = self.0.borrow_mut();
        if let Some((old, _)) = cache.sessions.pop_entry(key) {
            cache.bytes -= weight(&old);
        }
    }
}

/// What a cached session takes, about: its cookies hold its claims, which are there again as tags and headers.
fn weight(key: &[u8]) -> usize {
    4 * key.len() + 512
}

/// Most bytes that the opened sessions of one worker may take.
const MAX_BYTES: usize = 64 * 1024 * 1024;
