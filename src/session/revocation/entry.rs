//! What was ended, and its form in a ledger.
//!
//! Owns the names of what can be ended and the bytes that stand for them. A name that the provider gave is only
//! kept as a digest: entries are of one size however long it is, and a ledger tells nobody who was logged out.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};

use super::super::{Session, SessionId};
use crate::clock::{Millis, UnixTime};

/// What is to end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Entry<'a> {
    /// One session.
    Session(SessionId),
    /// The sessions that were made in one session of the provider, also if the login is still under way.
    ProviderSession {
        /// `iss`.
        issuer: &'a str,
        /// `sid`.
        sid: &'a str,
    },
    /// The sessions that a person has now.
    Subject {
        /// `iss`.
        issuer: &'a str,
        /// `sub`.
        subject: &'a str,
    },
    /// Those of them of which it is not known in which session of the provider they were made: any may be the one that
    /// a `sid` means.
    Unplaced {
        /// `iss`.
        issuer: &'a str,
        /// `sub`.
        subject: &'a str,
    },
    /// All sessions that there are now.
    Everything,
}

/// Shows what kind it is, never whose.
impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(id) => write!(f, "Session({id})"),
            Self::ProviderSession { .. } => f.write_str("ProviderSession"),
            Self::Subject { .. } => f.write_str("Subject"),
            Self::Unplaced { .. } => f.write_str("Unplaced"),
            Self::Everything => f.write_str("Everything"),
        }
    }
}

/// Why a session is over before its bounds; in the record of a request that comes with it all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Why {
    /// Its user logged out.
    #[error("the session was logged out")]
    Logout,
    /// OpenID Connect Back-Channel Logout.
    #[error("the identity provider ended the session (back-channel logout)")]
    BackChannel,
    /// OpenID Connect Front-Channel Logout.
    #[error("the identity provider ended the session (front-channel logout)")]
    FrontChannel,
    /// A call of the admin listener.
    #[error("an administrator ended the session")]
    Admin,
    /// The provider refused to refresh it, or its answer was refused.
    #[error("the identity provider did not prolong the session")]
    Refused,
    /// Somebody else has logged in in the same browser.
    #[error("somebody else has logged in in the same browser")]
    Replaced,
    /// From a time of which it is no longer known what was ended.
    #[error("the session is from before the point up to which all sessions are over")]
    Older,
}

/// An [`Entry`] that holds from `made` on: what a ledger keeps and other processes hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    pub(super) mark: Mark,
    pub(super) why: Why,
    pub(super) made: Millis,
    pub(super) expires_at: UnixTime,
}

impl Revocation {
    pub(super) fn new(entry: Entry<'_>, why: Why, made: Millis, expires_at: UnixTime) -> Self {
        Self { mark: Mark::of(entry), why, made, expires_at }
    }

    /// "Sessions born up to `made` are over."
    pub(super) fn everything(why: Why, made: Millis) -> Self {
        Self { mark: Mark::EVERYTHING, why, made, expires_at: UnixTime(u64::MAX) }
    }

    /// Why.
    pub fn why(&self) -> Why {
        self.why
    }

    /// The moment up to which sessions are meant.
    pub fn made(&self) -> Millis {
        self.made
    }

    /// When no session that it is about can be believed any more.
    pub fn expires_at(&self) -> UnixTime {
        self.expires_at
    }

    /// For a ledger.
    pub fn to_bytes(&self) -> [u8; REVOCATION_BYTES] {
        let mut bytes = [0; REVOCATION_BYTES];
        let fields = [
            self.mark.to_bytes().as_slice(),
            &[code(self.why)],
            &self.made.0.to_be_bytes(),
            &self.expires_at.0.to_be_bytes(),
        ]
        .concat();
        bytes.copy_from_slice(&fields);
        bytes
    }

    /// The inverse. `None` for bytes that no version up to this one wrote: then it can't be known what was ended.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (mark, rest) = bytes.split_first_chunk::<MARK_BYTES>()?;
        let (why, rest) = rest.split_first()?;
        let (made, rest) = rest.split_first_chunk()?;
        Some(Self {
            mark: Mark::from_bytes(mark)?,
            why: why_of(*why)?,
            made: Millis(u64::from_be_bytes(*made)),
            expires_at: UnixTime(u64::from_be_bytes(rest.try_into().ok()?)),
        })
    }
}

/// An [`Entry`] without its moment, in a form of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Mark {
    pub(super) kind: Kind,
    name: [u8; NAME_BYTES],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Session,
    ProviderSession,
    Subject,
    Unplaced,
    Everything,
}

impl Mark {
    pub(super) const EVERYTHING: Self = Self { kind: Kind::Everything, name: [0; NAME_BYTES] };

    pub(super) fn of(entry: Entry<'_>) -> Self {
        match entry {
            Entry::Session(id) => Self { kind: Kind::Session, name: id.0 },
            Entry::ProviderSession { issuer, sid } => Self::named(Kind::ProviderSession, issuer, sid),
            Entry::Subject { issuer, subject } => Self::named(Kind::Subject, issuer, subject),
            Entry::Unplaced { issuer, subject } => Self::named(Kind::Unplaced, issuer, subject),
            Entry::Everything => Self::EVERYTHING,
        }
    }

    /// Everything but [`Mark::EVERYTHING`] that would end this session.
    pub(super) fn all_of(session: &Session) -> impl Iterator<Item = Self> {
        let (issuer, subject) = (session.issuer.as_str(), session.subject.as_str());
        let place = match session.sid.as_deref() {
            Some(sid) => Entry::ProviderSession { issuer, sid },
            None => Entry::Unplaced { issuer, subject },
        };
        [Entry::Session(session.id), Entry::Subject { issuer, subject }, place].into_iter().map(Self::of)
    }

    fn named(kind: Kind, issuer: &str, name: &str) -> Self {
        let mut digest = Context::new(&SHA256);
        // With its length before it, no issuer can borrow from the name.
        digest.update(&(issuer.len() as u64).to_be_bytes());
        digest.update(issuer.as_bytes());
        digest.update(name.as_bytes());
        let mut short = [0; NAME_BYTES];
        for (short, long) in short.iter_mut().zip(digest.finish().as_ref()) {
            *short = *long;
        }
        Self { kind, name: short }
    }

    /// Whether it ends also sessions that are born later.
    pub(super) fn is_timeless(self) -> bool {
        self.kind == Kind::ProviderSession
    }

    /// Whether it ends only what was born before: a person may log in again.
    pub(super) fn is_of_a_time(self) -> bool {
        matches!(self.kind, Kind::Subject | Kind::Unplaced)
    }

    fn to_bytes(self) -> [u8; MARK_BYTES] {
        let mut bytes = [0; MARK_BYTES];
        let (kind, name) = bytes.split_at_mut(1);
        kind.fill(match self.kind {
            Kind::Session => b's',
            Kind::ProviderSession => b'p',
            Kind::Subject => b'u',
            Kind::Unplaced => b'w',
            Kind::Everything => b'e',
        });
        name.copy_from_slice(&self.name);
        bytes
    }

    fn from_bytes(bytes: &[u8; MARK_BYTES]) -> Option<Self> {
        let (kind, name) = bytes.split_first()?;
        let kind = match kind {
            b's' => Kind::Session,
            b'p' => Kind::ProviderSession,
            b'u' => Kind::Subject,
            b'w' => Kind::Unplaced,
            b'e' => Kind::Everything,
            _ => return None,
        };
        Some(Self { kind, name: name.try_into().ok()? })
    }
}

fn code(why: Why) -> u8 {
    match why {
        Why::Logout => b'l',
        Why::BackChannel => b'b',
        Why::FrontChannel => b'f',
        Why::Admin => b'a',
        Why::Refused => b'r',
        Why::Replaced => b'n',
        Why::Older => b'o',
    }
}

fn why_of(code: u8) -> Option<Why> {
    [Why::Logout, Why::BackChannel, Why::FrontChannel, Why::Admin, Why::Refused, Why::Replaced, Why::Older]
        .into_iter()
        .find(|why| self::code(*why) == code)
}

/// A session id, or the first half of a SHA-256: enough that nobody finds another name with the same.
const NAME_BYTES: usize = 16;
pub(super) const MARK_BYTES: usize = 1 + NAME_BYTES;
/// Length of [`Revocation::to_bytes`].
pub const REVOCATION_BYTES: usize = MARK_BYTES + 1 + 8 + 8;
