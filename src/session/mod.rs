//! Who is logged in, kept in sealed cookies of the browser.
//!
//! Owns the session and its bounds, the key ring, the seal, the text of every cookie that we set, and the
//! cookies of logins in progress. It does not know how a login happens, what a rule is, or which claims
//! mean what: it is told the claims to keep and hands them back.
//!
//! A session is a text sealed for one service, host, issuer and client. It is not stored here, so whatever
//! the browser sends is judged by what it says, by the clock, and by what was ended ([`revocation`]), at every
//! request.

mod activity;
mod cookie;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod key_file;
mod keygen;
mod keys;
mod login;
mod own;
mod packed;
mod parts;
mod payload;
pub mod redis;
pub mod revocation;
mod seal;
mod shrunk;
mod stored;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use zeroize::Zeroizing;

use self::activity::Activity;
use self::stored::Shelf;
use crate::clock::{Clock, UnixTime};

pub use cookie::{CookieName, CookieNameError};
pub use key_file::{KeyError, KeySource, STATE_KEY_FILE};
pub use keygen::{KeyPlace, add_key, new_key};
pub use keys::{KeyId, KeyMistake, KeyRing, MAX_KEYS};
pub use login::{LOGIN_LIFETIME, LoginCookies, MAX_LOGINS, TransactionId};
pub use own::{OwnCookies, Stripped};
pub use payload::{Grant, MOST_REPLACED, NewSession, Session, SessionId};
pub use revocation::{Revocations, Why};
pub use seal::{Binding, MAX_PLAIN_BYTES, Purpose, SealError, Sealer};
pub use stored::{Leased, SharedEndings, StoreLedger};

/// How the sessions of one service are named and how long they live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The cookie's name; further parts of a large session are `<name>.1`, `<name>.2`, ...
    pub cookie_name: CookieName,
    /// A session that no request has used for this long is over.
    pub idle_timeout: Duration,
    /// A session is over this long after its login, however busy.
    pub max_lifetime: Duration,
    /// Whether a session that can't be refreshed also ends with the ID token that it was made from.
    pub bound_to_token: bool,
    /// How long before its tokens expire a session is refreshed; at most half of their lifetime.
    pub refresh_before: Duration,
}

/// The sessions of one service: opens what browsers send, seals what they keep.
#[derive(Clone, Debug)]
pub struct Sessions {
    config: Config,
    sealer: Sealer,
    clock: Clock,
    activity: Arc<Activity>,
    /// When the store was told of such use.
    told: Arc<Activity>,
    /// Where records are, if not in the cookies.
    shelf: Option<Shelf>,
}

impl Sessions {
    /// Sessions sealed by `sealer`, whose bounds are judged by `clock`.
    pub fn new(config: Config, sealer: Sealer, clock: Clock) -> Self {
        Self { config, sealer, clock, activity: Arc::default(), told: Arc::default(), shelf: None }
    }

    /// The session in a request's cookies, or why there is none.
    ///
    /// Several cookies of one name are all tried, within a bound: a browser may send, beside ours, one that
    /// another site planted. Only what we sealed counts. Two different live sessions are nobody's.
    pub fn open(&self, headers: &HeaderMap) -> Result<Session, Absent> {
        let mut reason = Absent::Unreadable;
        let mut found: Option<Session> = None;
        for payload in parts::join(&self.sealer, &self.config.cookie_name, headers)? {
            let payload = shrunk::restore(payload);
            let Some(session) = payload.and_then(|payload| Session::from_payload(&payload)) else { continue };
            if let Err(ended) = self.check(&session) {
                reason = ended;
                continue;
            }
            found = match found {
                Some(other) if other.id != session.id => return Err(Absent::Ambiguous),
                Some(other) if other.age_order() >= session.age_order() => Some(other),
                _ => Some(session),
            };
        }
        found.ok_or(reason)
    }

    /// Seals `session` as used now, and returns the Set-Cookie fields: its parts, and the deletion of parts
    /// in the request that are no longer needed. `request` holds the headers of the request.
    pub fn seal(&self, session: &Session, request: &HeaderMap) -> Result<Vec<HeaderValue>, SessionError> {
        let name = &self.config.cookie_name;
        let sealed = self.cookie_values(session)?;
        let mut fields: Vec<_> = (0..)
            .zip(&sealed)
            .map(|(number, text)| cookie::set(&cookie::part_name(name, number), text, None))
            .collect();
        fields.extend(cookie::delete_parts(request, name, sealed.len()));
        Ok(fields)
    }

    /// The sealed texts of all parts. An ID token is dropped where it is what makes the session too large: it only
    /// spares a question at the logout.
    fn cookie_values(&self, session: &Session) -> Result<Vec<String>, SessionError> {
        let name = &self.config.cookie_name;
        let payload = match &session.ticket {
            Some(ticket) => Zeroizing::new(ticket.to_bytes().to_vec()),
            None => shrunk::shrink(session.to_payload(self.clock.now())?),
        };
        if let Some(sealed) = parts::split(&self.sealer, name, &payload)? {
            return Ok(sealed);
        }
        if session.id_token.is_some() {
            return self.cookie_values(&Session { id_token: None, ..session.clone() });
        }
        Err(session.too_large())
    }

    /// Whether the session fits into cookies, or why not.
    pub fn fits(&self, session: &Session) -> Result<(), SessionError> {
        self.cookie_values(session).map(|_| ())
    }

    /// When the session is to be refreshed, if it can be.
    pub fn due_at(&self, session: &Session) -> Option<UnixTime> {
        session.grant.as_ref().map(|grant| grant.due_at(self.config.refresh_before))
    }

    /// Whether the session has been used long enough after its last sealing to be sealed anew: a tenth of the
    /// idle timeout.
    pub fn needs_new_seal(&self, session: &Session) -> bool {
        self.is_seal_due(session, self.clock.now())
    }

    /// The same for whoever knows what time it is.
    pub fn is_seal_due(&self, session: &Session, now: UnixTime) -> bool {
        now.since(session.sealed_at) >= self.seal_age()
    }

    /// How old a sealing may be before the next is due.
    pub fn seal_age(&self) -> Duration {
        self.config.idle_timeout / SEALS_PER_IDLE_TIMEOUT
    }

    /// Whether the session is within its bounds now. [`Sessions::open`] has asked already; a session that was
    /// kept in memory must be asked again at every request.
    pub fn check(&self, session: &Session) -> Result<(), Absent> {
        self.check_at(session, self.clock.now())
    }

    /// The same for whoever knows what time it is.
    pub fn check_at(&self, session: &Session, now: UnixTime) -> Result<(), Absent> {
        // The clock was wrong when this was sealed, or is wrong now. Believing it would prolong the session
        // past its bounds by as much as the clock is off; a new login puts it right.
        let latest = now.plus(MAX_CLOCK_DIFFERENCE);
        let granted_at = session.grant.as_ref().map(|grant| grant.received_at);
        if session.logged_in_at > latest || session.sealed_at > latest || granted_at > Some(latest) {
            return Err(Absent::FromTheFuture);
        }
        if now.since(session.logged_in_at) >= self.config.max_lifetime {
            return Err(Absent::MaxLifetime);
        }
        if self.ends_with_token(session) && now >= session.token_expires_at {
            return Err(Absent::TokenExpired);
        }
        let is_idle = |last_used| now.since(last_used) >= self.config.idle_timeout;
        if is_idle(session.sealed_at) && is_idle(self.last_used(session, now)) {
            return Err(Absent::IdleTimeout);
        }
        Ok(())
    }

    /// Notes that the session is in use although no request says so. Its next request may come later for that, with
    /// a cookie that would be too old.
    pub fn note_use(&self, session: &Session) {
        let now = self.clock.now();
        self.activity.note(session.id, now);
        self.touch_soon(session, now);
    }

    /// When the session was last used, by what its cookie says and by what was noted in this process.
    fn last_used(&self, session: &Session, now: UnixTime) -> UnixTime {
        let latest = now.plus(MAX_CLOCK_DIFFERENCE);
        // What was noted by a clock that was wrong prolongs nothing.
        let noted = self.activity.last(session.id).filter(|noted| *noted <= latest);
        noted.map_or(session.sealed_at, |noted| noted.max(session.sealed_at))
    }

    /// The Set-Cookie fields that delete every session cookie of this service that the request carries, with
    /// the attributes that they were set with (a browser ignores the deletion of a `__Host-` cookie otherwise).
    pub fn clear(&self, request: &HeaderMap) -> Vec<HeaderValue> {
        cookie::delete_parts(request, &self.config.cookie_name, 0)
    }

    /// All that the request says about a session of this service, byte for byte: two requests with the same
    /// key carry the same session. For a cache of opened sessions; secret, like the cookies themselves.
    pub fn cookie_key<'a>(&self, headers: &'a HeaderMap) -> Option<Cow<'a, [u8]>> {
        cookie::key(headers, &self.config.cookie_name)
    }

    /// When the session ends however busy it is.
    pub fn expires_at(&self, session: &Session) -> UnixTime {
        let end = session.logged_in_at.plus(self.config.max_lifetime);
        if self.ends_with_token(session) { end.min(session.token_expires_at) } else { end }
    }

    fn ends_with_token(&self, session: &Session) -> bool {
        self.config.bound_to_token && session.grant.is_none()
    }

    /// When the session ends if it is not sealed anew.
    pub fn idle_expires_at(&self, session: &Session) -> UnixTime {
        self.last_used(session, self.clock.now()).plus(self.config.idle_timeout).min(self.expires_at(session))
    }
}

/// Why a request has no session. For the log; the browser is only told to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Absent {
    /// There is no session cookie.
    #[error("no session cookie")]
    NoCookie,
    /// The request is for a host of the service that is not its canonical one. Logins end there, and browsers send its
    /// cookies nowhere else.
    #[error("sessions are for the canonical host of the service only")]
    OtherHost,
    /// Parts of a split session are missing, or belong to another.
    #[error("parts of the session cookie are missing")]
    Incomplete,
    /// Not sealed by us for this service with a key of today: forged, damaged, or from before a key was
    /// removed or the configuration changed.
    #[error("the session cookie can't be opened")]
    Unreadable,
    /// Two different live sessions came with one request, so at least one was planted. A new login can't
    /// remove a planted cookie: don't answer this by another round to the provider for ever.
    #[error("the request carries two different sessions")]
    Ambiguous,
    /// Sealed or logged in later than now: the clock has been wrong.
    #[error("the session is dated in the future; check the clock")]
    FromTheFuture,
    /// Not used for longer than the idle timeout.
    #[error("the session was idle for too long")]
    IdleTimeout,
    /// Older than the maximal lifetime.
    #[error("the session reached its maximal lifetime")]
    MaxLifetime,
    /// The ID token that the session is bound to has expired.
    #[error("the ID token that the session is bound to has expired")]
    TokenExpired,
    /// Ended before its bounds, and the cookie came all the same.
    #[error("{0}")]
    LoggedOut(Why),
    /// There is no record in the store that the cookie's ticket opens: it was idle for too long, or ended.
    #[error("the session is not in the store any more")]
    NotInStore,
    /// The session may be there, and nobody can tell.
    #[error("the session store can't be used now")]
    StoreUnavailable,
    /// The configuration now names claims that this session did not keep (see [`Session::keeps`]).
    #[error("the session lacks claims that the configuration now names")]
    ClaimsNotKept,
}

/// Why a session could not be turned into cookies.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The provider gave more than fits in cookies (12 of them, 40 KiB together).
    #[error(
        "the session is too large for cookies: {part} alone takes {bytes} bytes; \
         have the identity provider send less of it"
    )]
    TooLarge {
        /// What takes most room.
        part: LargestPart,
        /// How much, in bytes.
        bytes: usize,
    },
    /// The session could not be put into the store.
    #[error(transparent)]
    Store(redis::StoreError),
    /// The seal failed.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// The part of a session that takes most room.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LargestPart {
    /// A claim, by its name.
    #[error("the claim `{0}`")]
    Claim(String),
    /// What it is refreshed with.
    #[error("the refresh token")]
    RefreshToken,
}

/// A session is sealed anew when this part of the idle timeout has passed.
const SEALS_PER_IDLE_TIMEOUT: u32 = 10;

/// How far the clocks of two replicas may be apart; a session dated later than this is refused.
pub const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(60);
