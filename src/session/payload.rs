//! What a session says, and how it is written down.
//!
//! Owns the session and its payload. It does not know cookies, seals, or how long a session lives.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::redis::Ticket;
use super::seal::SealError;
use super::{LargestPart, SessionError, packed};
use crate::clock::{Millis, UnixTime};
use crate::secret::Secret;
use crate::tag::Claims;

/// One login of one person in one browser.
#[derive(Clone, PartialEq)]
pub struct Session {
    /// Made at the login, the same through every new seal.
    pub id: SessionId,
    /// Who vouches for the person (`iss`).
    pub issuer: String,
    /// The person (`sub`).
    pub subject: String,
    /// The provider's own session (`sid`).
    pub sid: Option<String>,
    /// The claims that were kept.
    pub claims: Claims,
    /// The names of the claims that were asked for; those not in `claims` the provider did not send.
    pub kept: BTreeSet<String>,
    /// When the login ended well.
    pub logged_in_at: UnixTime,
    /// The same to the millisecond, in the order in which sessions are made and ended
    /// ([`super::Revocations::birth`]).
    pub born: Millis,
    /// When the session was last sealed, which is when it was last known to be in use.
    pub sealed_at: UnixTime,
    /// When the ID token expires (`exp`).
    pub token_expires_at: UnixTime,
    /// How the person was authenticated (`acr`).
    pub acr: Option<String>,
    /// When the person was authenticated (`auth_time`).
    pub auth_time: Option<UnixTime>,
    /// How often the session has been refreshed. Of two revisions of one session the higher one counts.
    pub revision: u32,
    /// What it can be refreshed with, if the provider gave a refresh token.
    pub grant: Option<Grant>,
    /// The last ID token, where it may be needed as the hint of a logout (RP-Initiated Logout 1.0 section 2).
    pub id_token: Option<Secret<String>>,
    /// Sessions of the same person that the same browser had before, the latest first: what is open in them goes on, and
    /// ends with this one at the logout. At most [`MOST_REPLACED`]. Where this one comes to its end by itself, they come
    /// to theirs.
    pub replaced: Vec<SessionId>,
    /// The ticket of its record, if that is in the store. Not part of the record.
    pub ticket: Option<Ticket>,
}

/// Most sessions that one takes the place of without ending them.
pub const MOST_REPLACED: usize = 3;

/// What a session is refreshed with, and when that is due.
#[derive(Clone, PartialEq)]
pub struct Grant {
    /// The refresh token (RFC 6749 section 1.5). Of one that rotates, the latest.
    pub refresh_token: Secret<String>,
    /// The nonce of the login, which a new ID token may repeat (OIDC Core section 12.2).
    pub nonce: String,
    /// When the provider answered.
    pub received_at: UnixTime,
    /// When what it answered expires: the access token, or the ID token if that is earlier.
    pub expires_at: UnixTime,
    /// The claims that its UserInfo endpoint told.
    pub from_user_info: BTreeSet<String>,
}

impl Grant {
    /// When the session is to be refreshed: `margin` ahead of the expiry, at most half of the lifetime.
    pub fn due_at(&self, margin: Duration) -> UnixTime {
        self.expires_at.minus(margin.min(self.expires_at.since(self.received_at) / 2))
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// What a login found out, for [`Session::new`].
#[derive(Clone)]
pub struct NewSession<'a> {
    /// `iss` of the ID token.
    pub issuer: &'a str,
    /// `sub` of the ID token.
    pub subject: &'a str,
    /// `sid` of the ID token.
    pub sid: Option<&'a str>,
    /// All claims.
    pub claims: &'a Claims,
    /// The top-level claims to keep: those that rules and mappings name.
    pub keep: &'a BTreeSet<String>,
    /// When its login came back from the provider ([`super::Revocations::birth`]).
    pub born: Millis,
    /// `exp` of the ID token.
    pub token_expires_at: UnixTime,
    /// `acr` of the ID token.
    pub acr: Option<&'a str>,
    /// `auth_time` of the ID token.
    pub auth_time: Option<UnixTime>,
    /// What came with it to refresh the session.
    pub grant: Option<Grant>,
    /// The ID token itself, if it is to be kept.
    pub id_token: Option<Secret<String>>,
    /// What it takes the place of; see [`Session::replaced`].
    pub replaced: Vec<SessionId>,
}

impl Session {
    /// The session of a login that ended well just now, with an id that no session had before.
    pub fn new(login: NewSession<'_>, now: UnixTime) -> Result<Session, SealError> {
        let claims = login.claims.iter().filter(|(name, _)| login.keep.contains(*name));
        Ok(Session {
            id: SessionId::new()?,
            issuer: login.issuer.to_owned(),
            subject: login.subject.to_owned(),
            sid: login.sid.map(str::to_owned),
            claims: claims.map(|(name, value)| (name.clone(), value.clone())).collect(),
            kept: login.keep.clone(),
            logged_in_at: now,
            born: login.born,
            sealed_at: now,
            token_expires_at: login.token_expires_at,
            acr: login.acr.map(str::to_owned),
            auth_time: login.auth_time,
            revision: 0,
            grant: login.grant,
            id_token: login.id_token,
            replaced: login.replaced,
            ticket: None,
        })
    }

    /// Of two copies of one session the greater counts: refreshed more often, then sealed later.
    pub(super) fn age_order(&self) -> (u32, UnixTime) {
        (self.revision, self.sealed_at)
    }

    /// Whether this is the same login as `other`, of the same person.
    pub fn is_same_login(&self, other: &Session) -> bool {
        self.id == other.id && self.issuer == other.issuer && self.subject == other.subject
    }

    /// Whether the session was made with all of these claims in mind. If not, it can't be judged by rules that
    /// name them ([`super::Absent::ClaimsNotKept`]): "not kept" must not pass for "the person has none".
    pub fn keeps(&self, needed: &BTreeSet<String>) -> bool {
        needed.is_subset(&self.kept)
    }

    /// What its largest parts take as text: the claims and the tokens. For bounds of memory.
    pub fn text_bytes(&self) -> usize {
        let claims: usize =
            self.claims.iter().map(|(name, value)| name.len() + value.to_string().len()).sum();
        let hint = self.id_token.as_ref().map_or(0, |token| token.expose().len());
        let grant = self.grant.as_ref().map_or(0, |grant| grant.refresh_token.expose().len());
        claims + hint + grant
    }

    /// The error that it is.
    pub(super) fn too_large(&self) -> SessionError {
        let (part, bytes) = self.largest_part();
        SessionError::TooLarge { part, bytes }
    }

    /// What takes most room, and how much, in bytes of JSON.
    fn largest_part(&self) -> (LargestPart, usize) {
        let claim = |name: &str| LargestPart::Claim(name.to_owned());
        let claims = self.claims.iter().map(|(name, value)| (claim(name), value.to_string().len()));
        let token =
            self.grant.as_ref().map(|grant| (LargestPart::RefreshToken, grant.refresh_token.expose().len()));
        let sizes = claims.chain(token).max_by_key(|(_, bytes)| *bytes);
        sizes.unwrap_or_else(|| (claim("sub"), self.subject.len()))
    }

    pub(super) fn to_payload(&self, sealed_at: UnixTime) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let id_token = self.id_token.as_ref().map(|text| text.expose().as_str());
        let packed = id_token.and_then(packed::pack).map(Zeroizing::new);
        let payload = Payload {
            version: PAYLOAD_VERSION,
            id: self.id.to_string().into(),
            issuer: self.issuer.as_str().into(),
            subject: self.subject.as_str().into(),
            sid: self.sid.as_deref().map(Cow::Borrowed),
            claims: Cow::Borrowed(&self.claims),
            kept: Cow::Borrowed(&self.kept),
            logged_in_at: self.logged_in_at,
            born: self.born,
            sealed_at,
            token_expires_at: self.token_expires_at,
            acr: self.acr.as_deref().map(Cow::Borrowed),
            auth_time: self.auth_time,
            revision: self.revision,
            grant: self.grant.as_ref().map(GrantText::of),
            id_token: id_token.filter(|_| packed.is_none()).map(Cow::Borrowed),
            replaced: self.replaced.iter().map(ToString::to_string).collect(),
        };
        let mut bytes = Zeroizing::new(serde_json::to_vec(&payload).map_err(|_| SealError::Encoding)?);
        if let Some(packed) = packed {
            bytes.push(TOKEN_FOLLOWS);
            bytes.extend_from_slice(&packed);
        }
        Ok(bytes)
    }

    pub(super) fn from_payload(payload: &[u8]) -> Option<Session> {
        let mut parts = payload.splitn(2, |byte| *byte == TOKEN_FOLLOWS);
        let payload: Payload<'_> = serde_json::from_slice(parts.next()?).ok()?;
        let id_token = match parts.next() {
            Some(packed) => Some(packed::unpack(packed)?),
            None => payload.id_token.map(Cow::into_owned),
        };
        if !READABLE.contains(&payload.version) {
            return None;
        }
        Some(Session {
            id: SessionId::parse(&payload.id)?,
            issuer: payload.issuer.into_owned(),
            subject: payload.subject.into_owned(),
            sid: payload.sid.map(Cow::into_owned),
            claims: payload.claims.into_owned(),
            kept: payload.kept.into_owned(),
            logged_in_at: payload.logged_in_at,
            // Sealed by a version without it: as early as it may have been, so that whatever ended then stays so.
            born: if payload.born == Millis(0) { payload.logged_in_at.into() } else { payload.born },
            sealed_at: payload.sealed_at,
            token_expires_at: payload.token_expires_at,
            acr: payload.acr.map(Cow::into_owned),
            auth_time: payload.auth_time,
            revision: payload.revision,
            grant: payload.grant.map(GrantText::into_grant),
            id_token: id_token.map(Secret::new),
            replaced: payload.replaced.iter().map(|id| SessionId::parse(id)).collect::<Option<_>>()?,
            ticket: None,
        })
    }
}

/// Shows the id and the times, never who it is.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("logged_in_at", &self.logged_in_at)
            .field("sealed_at", &self.sealed_at)
            .finish_non_exhaustive()
    }
}

/// 128 random bits. Names a session in logs and revocations; whoever knows it has no session yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub(super) [u8; 16]);

impl SessionId {
    pub(super) fn new() -> Result<Self, SealError> {
        let mut bytes = [0; 16];
        rand::fill(&mut bytes).map_err(|_| SealError::Random)?;
        Ok(Self(bytes))
    }

    /// The inverse of its text.
    pub fn parse(text: &str) -> Option<Self> {
        Some(Self(URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?))
    }
}

/// Base64url without padding.
impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The session as JSON, with the ID token behind it if that can be packed. The version changes when an older Portcullis
/// could misread it; another version is no session, and its owner logs in again.
#[derive(Serialize, Deserialize)]
struct Payload<'a> {
    #[serde(rename = "v")]
    version: u8,
    id: Cow<'a, str>,
    #[serde(rename = "iss")]
    issuer: Cow<'a, str>,
    #[serde(rename = "sub")]
    subject: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sid: Option<Cow<'a, str>>,
    #[serde(rename = "c")]
    claims: Cow<'a, Claims>,
    #[serde(rename = "k")]
    kept: Cow<'a, BTreeSet<String>>,
    #[serde(rename = "l")]
    logged_in_at: UnixTime,
    #[serde(rename = "b", default)]
    born: Millis,
    #[serde(rename = "s")]
    sealed_at: UnixTime,
    #[serde(rename = "exp")]
    token_expires_at: UnixTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    acr: Option<Cow<'a, str>>,
    #[serde(rename = "at", default, skip_serializing_if = "Option::is_none")]
    auth_time: Option<UnixTime>,
    #[serde(rename = "r", default, skip_serializing_if = "is_zero")]
    revision: u32,
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    grant: Option<GrantText<'a>>,
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    id_token: Option<Cow<'a, str>>,
    #[serde(rename = "p", default, skip_serializing_if = "Vec::is_empty")]
    replaced: Vec<String>,
}

/// A [`Grant`] as JSON.
#[derive(Serialize, Deserialize)]
struct GrantText<'a> {
    #[serde(rename = "t")]
    refresh_token: Cow<'a, str>,
    #[serde(rename = "n")]
    nonce: Cow<'a, str>,
    #[serde(rename = "r")]
    received_at: UnixTime,
    #[serde(rename = "e")]
    expires_at: UnixTime,
    #[serde(rename = "u", default, skip_serializing_if = "no_names")]
    from_user_info: Cow<'a, BTreeSet<String>>,
}

impl<'a> GrantText<'a> {
    fn of(grant: &'a Grant) -> Self {
        Self {
            refresh_token: grant.refresh_token.expose().as_str().into(),
            nonce: grant.nonce.as_str().into(),
            received_at: grant.received_at,
            expires_at: grant.expires_at,
            from_user_info: Cow::Borrowed(&grant.from_user_info),
        }
    }

    fn into_grant(self) -> Grant {
        Grant {
            refresh_token: Secret::new(self.refresh_token.into_owned()),
            nonce: self.nonce.into_owned(),
            received_at: self.received_at,
            expires_at: self.expires_at,
            from_user_info: self.from_user_info.into_owned(),
        }
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[allow(clippy::ptr_arg, reason = "the signature that serde asks for")]
fn no_names(names: &Cow<'_, BTreeSet<String>>) -> bool {
    names.is_empty()
}

/// What stands between the JSON and a packed token. No JSON has such a byte: in strings it is escaped.
const TOKEN_FOLLOWS: u8 = 0;

/// Version 2 has the grant. An older Portcullis would drop it without a word.
const PAYLOAD_VERSION: u8 = 2;
const READABLE: [u8; 2] = [1, PAYLOAD_VERSION];
