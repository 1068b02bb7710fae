//! What a session says, and how it is written down.
//!
//! Owns the session and its payload. It does not know cookies, seals, or how long a session lives.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::seal::SealError;
use crate::clock::UnixTime;
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
    /// When the session was last sealed, which is when it was last known to be in use.
    pub sealed_at: UnixTime,
    /// When the ID token expires (`exp`).
    pub token_expires_at: UnixTime,
    /// How the person was authenticated (`acr`).
    pub acr: Option<String>,
    /// When the person was authenticated (`auth_time`).
    pub auth_time: Option<UnixTime>,
}

/// What a login found out, for [`Session::new`].
#[derive(Clone, Copy)]
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
    /// `exp` of the ID token.
    pub token_expires_at: UnixTime,
    /// `acr` of the ID token.
    pub acr: Option<&'a str>,
    /// `auth_time` of the ID token.
    pub auth_time: Option<UnixTime>,
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
            sealed_at: now,
            token_expires_at: login.token_expires_at,
            acr: login.acr.map(str::to_owned),
            auth_time: login.auth_time,
        })
    }

    /// Whether the session was made with all of these claims in mind. If not, it can't be judged by rules that
    /// name them ([`super::Absent::ClaimsNotKept`]): "not kept" must not pass for "the person has none".
    pub fn keeps(&self, needed: &BTreeSet<String>) -> bool {
        needed.is_subset(&self.kept)
    }

    /// The claim that takes most room, and how much, in bytes of JSON.
    pub(super) fn biggest_claim(&self) -> (String, usize) {
        let sizes = self.claims.iter().map(|(name, value)| (name.clone(), value.to_string().len()));
        sizes.max_by_key(|(_, bytes)| *bytes).unwrap_or_else(|| ("sub".to_owned(), self.subject.len()))
    }

    pub(super) fn to_payload(&self, sealed_at: UnixTime) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let payload = Payload {
            version: PAYLOAD_VERSION,
            id: self.id.to_string().into(),
            issuer: self.issuer.as_str().into(),
            subject: self.subject.as_str().into(),
            sid: self.sid.as_deref().map(Cow::Borrowed),
            claims: Cow::Borrowed(&self.claims),
            kept: Cow::Borrowed(&self.kept),
            logged_in_at: self.logged_in_at,
            sealed_at,
            token_expires_at: self.token_expires_at,
            acr: self.acr.as_deref().map(Cow::Borrowed),
            auth_time: self.auth_time,
        };
        serde_json::to_vec(&payload).map(Zeroizing::new).map_err(|_| SealError::Encoding)
    }

    pub(super) fn from_payload(payload: &[u8]) -> Option<Session> {
        let payload: Payload<'_> = serde_json::from_slice(payload).ok()?;
        if payload.version != PAYLOAD_VERSION {
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
            sealed_at: payload.sealed_at,
            token_expires_at: payload.token_expires_at,
            acr: payload.acr.map(Cow::into_owned),
            auth_time: payload.auth_time,
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
pub struct SessionId([u8; 16]);

impl SessionId {
    pub(super) fn new() -> Result<Self, SealError> {
        let mut bytes = [0; 16];
        rand::fill(&mut bytes).map_err(|_| SealError::Random)?;
        Ok(Self(bytes))
    }

    fn parse(text: &str) -> Option<Self> {
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

/// The session as JSON. The version changes when an older Portcullis could misread it; another version is
/// no session, and its owner logs in again.
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
    #[serde(rename = "s")]
    sealed_at: UnixTime,
    #[serde(rename = "exp")]
    token_expires_at: UnixTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    acr: Option<Cow<'a, str>>,
    #[serde(rename = "at", default, skip_serializing_if = "Option::is_none")]
    auth_time: Option<UnixTime>,
}

const PAYLOAD_VERSION: u8 = 1;
