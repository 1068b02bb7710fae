//! Logout tokens (OpenID Connect Back-Channel Logout 1.0 section 2.6): the provider says that a session, or all
//! of a person's, is over. Anybody can send one, so every step is taken and nothing is trusted before. Whether
//! a token was seen before is for the caller to remember.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::UnixTime;

use super::error::{Error, Refusal, Shown};
use super::jwt::{Purpose, SignedClaims};
use super::provider::Provider;
use super::standard_claims::{
    Expected, check_audience, check_authorized_party, check_issuer, check_subject, check_times,
};

/// A logout that the provider asks for, now, of us. At least one of `sid` and `subject` is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogoutToken {
    /// The token's own name: seen twice, it is a replay. 1 to [`MAX_TEXT_BYTES`] bytes.
    pub jti: String,
    /// The provider's session that is over; without it, all of the person's are. 1 to [`MAX_TEXT_BYTES`] bytes.
    pub sid: Option<String>,
    /// `sub`: whose sessions.
    pub subject: Option<String>,
    /// `iat`: sessions that began later are not meant.
    pub issued_at: UnixTime,
    /// `exp`: how long `jti` has to be remembered, clock skew added.
    pub expires_at: UnixTime,
}

/// Why a logout token ends nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogoutTokenError {
    /// It is no good: 400.
    #[error("the logout token is refused: {0}")]
    Refused(Refusal),
    /// It can't be judged now, for the provider's metadata or keys can't be had: 503, and the provider may try
    /// again.
    #[error("the logout token can't be judged now: {0}")]
    Unavailable(Error),
}

impl LogoutTokenError {
    /// A short name that stays the same over versions, for metrics and log searches.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code(),
            Self::Unavailable(error) => error.code(),
        }
    }
}

impl From<Error> for LogoutTokenError {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(refusal) => Self::Refused(refusal),
            other => Self::Unavailable(other),
        }
    }
}

/// Largest logout token that is looked at. Real ones have about 1 KB.
pub const MAX_LOGOUT_TOKEN_BYTES: usize = 16 * 1024;
/// Longest `jti` and `sid`.
pub const MAX_TEXT_BYTES: usize = 512;
/// Oldest `iat` that is believed, clock skew not counted: such tokens are sent the moment they are made.
const MAX_AGE: Duration = Duration::from_secs(10 * 60);
/// The event that makes a token a logout token (section 2.4).
const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

impl Provider {
    /// Judges a logout token that somebody sent.
    pub async fn verify_logout_token(self: &Arc<Self>, text: &str) -> Result<LogoutToken, LogoutTokenError> {
        if text.len() > MAX_LOGOUT_TOKEN_BYTES {
            return Err(LogoutTokenError::Refused(Refusal::TokenTooLarge { max: MAX_LOGOUT_TOKEN_BYTES }));
        }
        let text = text.to_owned();
        self.on_control(|this| async move {
            let metadata = this.metadata().await?;
            let signed = this.verify_signature(&text, Purpose::LogoutToken, &metadata).await?;
            LogoutToken::check(signed, &this.expected()).map_err(LogoutTokenError::Refused)
        })
        .await
    }
}

impl LogoutToken {
    /// Checks the claims of a token whose signature is good: section 2.6, steps 3 to 7, in its order.
    pub(super) fn check(claims: SignedClaims, expected: &Expected<'_>) -> Result<Self, Refusal> {
        let claims = claims.into_inner();
        check_issuer(&claims, expected)?; // step 3, in the same way as for an ID token
        check_audience(&claims, expected)?;
        check_authorized_party(&claims, expected)?;
        let times = check_times(&claims, expected, MAX_AGE + expected.clock_skew)?;
        let (subject, sid) = check_named(&claims)?; // step 4
        check_event(&claims)?; // step 5
        if claims.contains_key("nonce") {
            return Err(Refusal::NoncePresent); // step 6
        }
        let jti = text(&claims, "jti")?.ok_or(Refusal::Missing("jti"))?; // for step 7, the caller's
        Ok(Self {
            jti,
            sid,
            subject,
            issued_at: times.issued_at,
            expires_at: times.expires_at.plus(expected.clock_skew),
        })
    }
}

fn check_named(claims: &Map<String, Value>) -> Result<(Option<String>, Option<String>), Refusal> {
    let subject = match claims.contains_key("sub") {
        true => Some(check_subject(claims)?),
        false => None,
    };
    let sid = text(claims, "sid")?;
    match subject.is_none() && sid.is_none() {
        true => Err(Refusal::NobodyNamed),
        false => Ok((subject, sid)),
    }
}

fn check_event(claims: &Map<String, Value>) -> Result<(), Refusal> {
    let event = claims.get("events").and_then(Value::as_object).and_then(|events| events.get(LOGOUT_EVENT));
    match event {
        Some(Value::Object(_)) => Ok(()),
        _ => Err(Refusal::Events { event: LOGOUT_EVENT }),
    }
}

fn text(claims: &Map<String, Value>, claim: &'static str) -> Result<Option<String>, Refusal> {
    match claims.get(claim) {
        None => Ok(None),
        Some(Value::String(text)) if (1..=MAX_TEXT_BYTES).contains(&text.len()) => Ok(Some(text.clone())),
        found => Err(Refusal::Text { claim, found: Shown::of(found), max: MAX_TEXT_BYTES }),
    }
}
