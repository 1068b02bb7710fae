//! Who is calling: the session in a request's cookies, opened once per cookie and worker.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use lru::LruCache;

use super::admit::name_of;
use super::service::{RelyingParty, Service};
use crate::clock::UnixTime;
use crate::policy::{Caller, Held, Policy, Rule};
use crate::proxy::{CookieHeader, Identity};
use crate::session::redis::Ticket;
use crate::session::{Absent, Session};
use crate::tag::TagSet;
use crate::telemetry::{ReadyGrounds, RuleName};
use crate::web::lifeline::Lifeline;

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
    /// When somebody else has to be asked about it: the provider, for a refresh, or the store.
    due_at: Option<UnixTime>,
    /// Its newest revision, for those who still come with this one.
    successor: RefCell<Option<Rc<Known>>>,
    /// What its streams on this worker hang on.
    pub(super) lifeline: Rc<Lifeline>,
    /// Whether those who look for the end of streams know it.
    pub(super) is_listed: Cell<bool>,
    renewal: RefCell<Option<Renewal>>,
    /// On what it was let in last.
    grounds: RefCell<Option<Rc<ReadyGrounds>>>,
    /// The epoch of the revocations among which this session was last looked for.
    looked_for: Cell<u64>,
    /// What it holds, in bytes of text, that is not in the request's cookies.
    stored_bytes: usize,
}

/// A session's cookies sealed anew, for all the requests that still come with the old ones.
#[derive(Debug)]
struct Renewal {
    sealed_at: UnixTime,
    offered_at: UnixTime,
    cookies: Vec<HeaderValue>,
}

impl Known {
    fn new(session: Session, service: &Service, party: &RelyingParty) -> Self {
        let tags = TagSet::from_claims(&session.claims);
        let (identity, _dropped) = Identity::from_claims(&session.claims, &service.mappings);
        // Of a session in the store its use is told there, in time.
        let in_use_till = session.sealed_at.plus(party.sessions.seal_age());
        let touch_at = session.ticket.as_ref().map(|_| in_use_till);
        Self {
            subject: session.subject.as_str().into(),
            held: service.policy.bind(&tags),
            identity,
            due_at: party.sessions.due_at(&session).into_iter().chain(touch_at).min(),
            stored_bytes: if session.ticket.is_some() { session.text_bytes() } else { 0 },
            session,
            successor: RefCell::new(None),
            lifeline: Rc::default(),
            is_listed: Cell::new(false),
            renewal: RefCell::new(None),
            grounds: RefCell::new(None),
            looked_for: Cell::new(0),
        }
    }

    /// As the rules see them.
    pub(super) fn caller(&self) -> Caller<'_> {
        Caller::Known {
            held: &self.held,
            acr: self.session.acr.as_deref(),
            auth_time: self.session.auth_time,
        }
    }

    /// On what `rule` lets it in, for the record. Written down once for many requests of one rule.
    pub(super) fn grounds(&self, rule: &Rule, policy: &Policy) -> Rc<ReadyGrounds> {
        let mut last = self.grounds.borrow_mut();
        if let Some(last) = &*last
            && is_name_of(last.rule(), rule)
        {
            return last.clone();
        }
        let tags = policy.deciding_tags(rule, &self.held);
        let made = Rc::new(ReadyGrounds::new(name_of(rule), self.subject.clone(), tags));
        *last = Some(made.clone());
        made
    }

    /// Whether the provider or the store has to be asked.
    pub(super) fn is_due(&self, now: UnixTime) -> bool {
        self.due_at.is_some_and(|due| now >= due)
    }

    /// The same for a newer revision of the session.
    pub(super) fn succeeded_by(&self, newer: &Session, service: &Service, party: &RelyingParty) -> Rc<Known> {
        let mut successor = self.successor.borrow_mut();
        match &*successor {
            Some(known) if known.session.revision == newer.revision => known.clone(),
            _ => {
                let known = Rc::new(Known::new(newer.clone(), service, party));
                *successor = Some(known.clone());
                known
            }
        }
    }

    /// The cookies to set when the session has been used long enough since it was sealed, else none. Requests
    /// that come with the old cookies meanwhile share one sealing, and only now and then one of them carries
    /// it: a browser needs to get it once.
    pub(super) fn renewed(
        &self,
        party: &RelyingParty,
        headers: &HeaderMap,
        now: UnixTime,
    ) -> Vec<HeaderValue> {
        if self.session.ticket.is_some() || !party.sessions.is_seal_due(&self.session, now) {
            return Vec::new();
        }
        let mut renewal = self.renewal.borrow_mut();
        let age = party.sessions.seal_age();
        match &mut *renewal {
            Some(made) if now.since(made.sealed_at) < age => {
                if now.since(made.offered_at) < age / OFFERS_PER_SEAL {
                    return Vec::new();
                }
                made.offered_at = now;
                made.cookies.clone()
            }
            _ => {
                let cookies = party.sessions.seal(&self.session, headers).unwrap_or_default();
                *renewal = Some(Renewal { sealed_at: now, offered_at: now, cookies: cookies.clone() });
                cookies
            }
        }
    }

    /// Whether the browser may have got something later than this session's cookies meanwhile: a newer revision, or
    /// their deletion. The application may have taken long for its answer.
    pub(super) fn is_outlived(&self, party: &RelyingParty) -> bool {
        // A ticket is the same for every revision.
        let is_replaced = self.session.ticket.is_none() && party.refreshes.known(&self.session).is_some();
        is_replaced || self.check_revocations(party).is_err()
    }

    /// Whether the session has been ended, and why.
    pub(super) fn check_revocations(&self, party: &RelyingParty) -> Result<(), Absent> {
        // Read before the look: what is ended in between moves it on.
        let epoch = party.revocations.epoch();
        if self.looked_for.get() == epoch {
            return Ok(());
        }
        if let Some(why) = party.revocations.ended(&self.session) {
            return Err(Absent::LoggedOut(why));
        }
        self.looked_for.set(epoch);
        Ok(())
    }
}

/// A session as one request brought it.
#[derive(Clone, Debug)]
pub(super) struct Presented {
    /// Whose it is.
    pub(super) known: Rc<Known>,
    /// The request's Cookie field without ours.
    pub(super) cookie: CookieHeader,
    /// The request came with an older revision, and the answer carries the newest.
    pub(super) outdated: bool,
}

/// The sessions that one worker has opened lately. Bounds are asked again at every request.
#[derive(Debug)]
pub(super) struct Callers(RefCell<Cache>);

#[derive(Debug)]
struct Cache {
    /// By all that the request's Cookie fields say: a browser sends the same ones again and again.
    by_fields: Shelf<Rc<Remembered<Presented>>>,
    /// By the full text of our own cookies, so that no two can be confused: for requests whose other cookies
    /// have changed.
    by_cookie: Shelf<Rc<Known>>,
    /// The key ring that opened them.
    ring: u64,
    /// No other cache has the same.
    token: Rc<()>,
}

impl Cache {
    fn new(ring: u64) -> Self {
        Self { by_fields: Shelf::new(), by_cookie: Shelf::new(), ring, token: Rc::default() }
    }
}

/// What requests with these Cookie fields bring.
#[derive(Debug)]
struct Remembered<V> {
    brought: V,
    fields: Rc<[u8]>,
    /// Of the cache that it is in: what one service lets in is nobody at another.
    token: Rc<()>,
}

/// What the last request of a connection brought, for as long as a cache has it. To compare cookies with those of one
/// request is cheaper than to find them among all.
#[derive(Debug)]
pub(super) struct Recent<V = Presented>(RefCell<Weak<Remembered<V>>>);

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<V> Recent<V> {
    fn note(&self, remembered: &Rc<Remembered<V>>) {
        *self.0.borrow_mut() = Rc::downgrade(remembered);
    }

    fn of(&self, token: &Rc<()>, fields: &[u8]) -> Option<Rc<Remembered<V>>> {
        let recent = self.0.borrow().upgrade()?;
        (Rc::ptr_eq(&recent.token, token) && *recent.fields == *fields).then_some(recent)
    }
}

impl Callers {
    pub(super) fn new() -> Self {
        Self(RefCell::new(Cache::new(0)))
    }

    /// The caller, or why nobody is logged in. At most `most_bytes` are used for remembering.
    pub(super) fn find(
        &self,
        service: &Service,
        party: &RelyingParty,
        headers: &HeaderMap,
        (recent, now): (&Recent, UnixTime),
        most_bytes: usize,
    ) -> Result<Presented, Missing> {
        let fields = cookie_fields(headers).ok_or(Absent::NoCookie)?;
        let remembered = {
            let mut cache = self.of_ring(party.sealer.ring());
            recent
                .of(&cache.token, &fields)
                .or_else(|| cache.by_fields.get(&fields).inspect(|remembered| recent.note(remembered)))
        };
        let presented = match remembered {
            Some(remembered) => match party.sessions.check_at(&remembered.brought.known.session, now) {
                Ok(()) => remembered.brought.clone(),
                Err(absent) => {
                    self.0.borrow_mut().by_fields.remove(&fields);
                    return Err(missing(party, headers, absent));
                }
            },
            None => {
                let known = self.open(service, party, headers, most_bytes / 2)?;
                self.remember(service, headers, known, most_bytes / 2)
            }
        };
        presented.known.check_revocations(party)?;
        party.sessions.check_store()?;
        Ok(presented)
    }

    /// Keeps a session that has come from the store, in place of what was kept of it.
    pub(super) fn keep(
        &self,
        service: &Service,
        party: &RelyingParty,
        headers: &HeaderMap,
        session: Session,
        most_bytes: usize,
    ) -> Result<Presented, Absent> {
        let key = party.sessions.cookie_key(headers).ok_or(Absent::NoCookie)?;
        let known = self.make_known(service, party, &key, session, most_bytes / 2)?;
        known.check_revocations(party)?;
        Ok(self.remember(service, headers, known, most_bytes / 2))
    }

    fn remember(
        &self,
        service: &Service,
        headers: &HeaderMap,
        known: Rc<Known>,
        most_bytes: usize,
    ) -> Presented {
        let presented =
            Presented { known, cookie: service.own_cookies.strip(headers).into(), outdated: false };
        if let Some(fields) = cookie_fields(headers) {
            let weight = weight(&fields, presented.known.stored_bytes);
            let fields = Rc::<[u8]>::from(&*fields);
            let mut cache = self.0.borrow_mut();
            let token = cache.token.clone();
            let remembered = Remembered { brought: presented.clone(), fields: fields.clone(), token };
            cache.by_fields.put(fields, Rc::new(remembered), weight, most_bytes);
        }
        presented
    }

    fn open(
        &self,
        service: &Service,
        party: &RelyingParty,
        headers: &HeaderMap,
        most_bytes: usize,
    ) -> Result<Rc<Known>, Missing> {
        let key = party.sessions.cookie_key(headers).ok_or(Absent::NoCookie)?;
        let remembered = self.0.borrow_mut().by_cookie.get(&key);
        if let Some(known) = remembered {
            return match party.sessions.check(&known.session) {
                Ok(()) => Ok(known),
                Err(absent) => {
                    self.0.borrow_mut().by_cookie.remove(&key);
                    Err(missing(party, headers, absent))
                }
            };
        }
        if party.sessions.are_stored() {
            return Err(missing(party, headers, Absent::NotInStore));
        }
        let session = party.sessions.open(headers)?;
        Ok(self.make_known(service, party, &key, session, most_bytes)?)
    }

    fn make_known(
        &self,
        service: &Service,
        party: &RelyingParty,
        key: &[u8],
        session: Session,
        most_bytes: usize,
    ) -> Result<Rc<Known>, Absent> {
        if !session.keeps(&party.needed_claims) {
            return Err(Absent::ClaimsNotKept);
        }
        if party.front_channel_logout {
            party.provider_sessions.note(&session);
        }
        let known = Rc::new(Known::new(session, service, party));
        let weight = weight(key, known.stored_bytes);
        self.0.borrow_mut().by_cookie.put(key.into(), known.clone(), weight, most_bytes);
        Ok(known)
    }

    /// What was opened under this key ring: a key that is removed opens nothing any more.
    fn of_ring(&self, ring: u64) -> std::cell::RefMut<'_, Cache> {
        let mut cache = self.0.borrow_mut();
        if cache.ring != ring {
            *cache = Cache::new(ring);
        }
        cache
    }
}

/// Whether it is this very rule: no two have a pattern and a method in common.
fn is_name_of(name: &RuleName, rule: &Rule) -> bool {
    Arc::ptr_eq(&name.uri, rule.uri())
        && Arc::ptr_eq(&name.method, rule.method())
        && Arc::ptr_eq(&name.spec, rule.spec())
}

/// Why a request's caller is not known here.
#[derive(Debug)]
pub(super) enum Missing {
    /// Nobody is logged in.
    Nobody(Absent),
    /// The store knows.
    Stored(Ticket),
}

impl From<Absent> for Missing {
    fn from(absent: Absent) -> Self {
        Self::Nobody(absent)
    }
}

/// What an end by `absent` means: of a session in the store the store has the last word, for other processes have told
/// it what they know.
fn missing(party: &RelyingParty, headers: &HeaderMap, absent: Absent) -> Missing {
    if !party.sessions.are_stored() {
        return absent.into();
    }
    let ticket = party.sessions.check_store().and_then(|()| party.sessions.ticket(headers));
    ticket.map_or_else(Missing::Nobody, Missing::Stored)
}

/// A map bounded by what its entries take; the least used go first.
#[derive(Debug)]
struct Shelf<V> {
    /// With the weight of each.
    entries: LruCache<Rc<[u8]>, (V, usize)>,
    bytes: usize,
}

impl<V: Clone> Shelf<V> {
    fn new() -> Self {
        Self { entries: LruCache::unbounded(), bytes: 0 }
    }

    fn get(&mut self, key: &[u8]) -> Option<V> {
        self.entries.get(key).map(|(value, _)| value.clone())
    }

    fn put(&mut self, key: Rc<[u8]>, value: V, weight: usize, most_bytes: usize) {
        self.bytes += weight;
        if let Some((_, (_, weight))) = self.entries.push(key, (value, weight)) {
            self.bytes -= weight;
        }
        while self.bytes > most_bytes {
            let Some((_, (_, weight))) = self.entries.pop_lru() else { break };
            self.bytes -= weight;
        }
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some((_, weight)) = self.entries.pop(key) {
            self.bytes -= weight;
        }
    }
}

/// All Cookie fields as one text: the field itself, where there is one. Between several stands what no field
/// can hold, so that no two requests look the same that are not.
fn cookie_fields(headers: &HeaderMap) -> Option<Cow<'_, [u8]>> {
    let mut fields = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let first = fields.next()?;
    Some(fields.fold(first.into(), |mut all: Cow<'_, [u8]>, field| {
        all.to_mut().push(b'\n');
        all.to_mut().extend(field);
        all
    }))
}

/// What a cached session takes, about: its claims, in its cookies or in the store, are there again as tags and headers.
fn weight(key: &[u8], stored_bytes: usize) -> usize {
    4 * (key.len() + stored_bytes) + 512
}

/// How often the new cookies are offered before they are sealed anew themselves.
const OFFERS_PER_SEAL: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_connection_brought_last_counts_for_the_same_cookies_in_the_same_cache() {
        let (one, another) = (Cache::new(0).token, Cache::new(0).token);
        let recent = Recent::default();
        assert!(recent.of(&one, b"a=1").is_none());
        let fields = Rc::from(&b"a=1"[..]);
        let remembered = Rc::new(Remembered { brought: (), fields, token: one.clone() });
        recent.note(&remembered);
        assert!(recent.of(&one, b"a=1").is_some_and(|found| Rc::ptr_eq(&found, &remembered)));
        for fields in [&b"a=2"[..], b"a=", b"a=1;", b""] {
            assert!(recent.of(&one, fields).is_none(), "{fields:?}");
        }
        assert!(recent.of(&another, b"a=1").is_none(), "another service, or another key ring");
        drop(remembered);
        assert!(recent.of(&one, b"a=1").is_none(), "it does not keep what the cache has let go");
    }

    #[test]
    fn what_is_only_in_the_store_weighs_too() {
        const MOST: usize = 4 << 20;
        for (stored_bytes, kept) in [(0, 1_000), (100_000, 10), (MOST, 0)] {
            let mut shelf = Shelf::new();
            for number in 0..1_000_u32 {
                let key = number.to_be_bytes();
                shelf.put(key.into_iter().collect(), number, weight(&key, stored_bytes), MOST);
            }
            assert_eq!(shelf.entries.len(), kept, "{stored_bytes} bytes each");
            assert!(shelf.bytes <= MOST);
            for number in 0..1_000_u32 {
                shelf.remove(&number.to_be_bytes());
            }
            assert_eq!((shelf.entries.len(), shelf.bytes), (0, 0));
        }
    }
}
