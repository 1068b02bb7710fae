//! Refreshing what is known of a session (OIDC Core section 12, RFC 6749 section 6).
//!
//! A refresh token that rotates is good for one use, and its successor exists only in the answer. So a refresh
//! is asked for once and never repeated; it runs to its end on the control runtime, whoever has stopped
//! waiting; and once the token endpoint has given a new refresh token, no trouble of another endpoint makes us
//! lose it: then the session goes on with what was known of it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::clock::UnixTime;
use crate::secret::Secret;
use crate::tag::Claims;

use super::breaker::Breaker;
use super::claims::Merged;
use super::discovery::Metadata;
use super::error::{Error, Refusal};
use super::event::{Event, Trouble};
use super::flow::Tokens;
use super::id_token::{Occasion, VerifiedIdToken};
use super::identity::Grant;
use super::jwt::Purpose;
use super::provider::Provider;
use super::told::Sent;

/// What is known of the session to refresh.
#[derive(Clone)]
pub struct Refresh {
    /// The refresh token of its [`Grant`].
    pub refresh_token: Secret<String>,
    /// `sub` of its login.
    pub subject: String,
    /// The nonce of its login.
    pub nonce: String,
    /// When the person authenticated, as far as is known.
    pub auth_time: Option<UnixTime>,
    /// The claims that were kept of it.
    pub claims: Claims,
    /// Those of them that UserInfo brought.
    pub from_user_info: BTreeSet<String>,
}

/// What a refresh brought.
#[derive(Clone)]
pub struct Refreshed {
    /// What to refresh with next time: the new refresh token, or the old one where the answer had none.
    pub grant: Grant,
    /// The new ID token, if there was one that could be verified.
    pub id_token: Option<NewIdToken>,
    /// The claims: made anew, or the old ones where that was not possible.
    pub claims: Claims,
    /// Those of them that UserInfo brought.
    pub from_user_info: BTreeSet<String>,
}

/// The ID token of a refresh.
#[derive(Clone)]
pub struct NewIdToken {
    /// The token as it came, for `id_token_hint`.
    pub text: Secret<String>,
    /// `exp`.
    pub expires_at: UnixTime,
    /// The authentication context that it states.
    pub acr: Option<String>,
    /// When the person authenticated: never later than was known before, for a refresh is no authentication.
    pub auth_time: Option<UnixTime>,
    /// The provider's name of its own session.
    pub sid: Option<String>,
}

/// Why there is nothing new.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RefreshError {
    /// The session is over: the grant was refused, or the new ID token is not a good one.
    #[error("the session ends with its refresh: {0}")]
    Ended(Refusal),
    /// The provider is down, as far as this goes: the session lives on to its own bounds.
    #[error("the session could not be refreshed: {0}")]
    Unavailable(Error),
}

impl RefreshError {
    /// A short name that stays the same over versions, for metrics and log searches.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Ended(refusal) => refusal.code(),
            Self::Unavailable(error) => error.code(),
        }
    }
}

impl From<Error> for RefreshError {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(refusal) => Self::Ended(refusal),
            other => Self::Unavailable(other),
        }
    }
}

/// How long a refresh may take, from the wait for its turn to the last claim.
pub const REFRESH_TIMEOUT: Duration = Duration::from_secs(15);
/// Most refreshes of one service at once; more wait. Fewer than the calls that may be under way, so that a
/// token endpoint that hangs leaves room for logins.
pub const MAX_REFRESHES: usize = 32;
/// When to try again after a refresh whose ID token could not be verified for want of keys.
const UNJUDGED_LIFETIME: Duration = Duration::from_secs(60);

/// The refreshes of one provider.
pub(super) struct Refreshes {
    turns: Semaphore,
    breaker: Breaker,
    trouble: Trouble,
    /// Never over: it may be about one person's claims while all others' are well.
    kept: Trouble,
}

impl Default for Refreshes {
    fn default() -> Self {
        Self {
            turns: Semaphore::new(MAX_REFRESHES),
            breaker: Breaker::default(),
            trouble: Trouble::default(),
            kept: Trouble::default(),
        }
    }
}

/// What the answer of the token endpoint says of the person.
struct Renewed {
    id_token: Option<NewIdToken>,
    person: Merged,
}

impl Provider {
    /// Refreshes a session: one call of the token endpoint, and what belongs to it. After a failure the next
    /// calls fail at once for a moment, without asking. Ends within [`REFRESH_TIMEOUT`]; goes on if the caller
    /// does not wait for it.
    pub async fn refresh(self: &Arc<Self>, refresh: Refresh) -> Result<Refreshed, RefreshError> {
        // Here, so that an outage costs the control runtime nothing, however many sessions are due.
        if let Some(reason) = self.refreshes.breaker.paused(Instant::now()) {
            return Err(Error::Paused(reason).into());
        }
        self.on_control(|this| async move { this.take_turn(refresh).await }).await
    }

    async fn take_turn(&self, refresh: Refresh) -> Result<Refreshed, RefreshError> {
        let deadline = Instant::now() + REFRESH_TIMEOUT;
        let turn = timeout_at(deadline, self.refreshes.turns.acquire()).await;
        let _turn = turn.map_err(|_| Error::Busy)?;
        let attempt = self.refreshes.breaker.admit(Instant::now()).map_err(Error::Paused)?;
        let outcome = self.renew(refresh, deadline).await;
        match &outcome {
            Err(RefreshError::Unavailable(error)) => {
                let reason = error.to_string();
                attempt.failed(reason.clone(), Instant::now());
                if self.refreshes.trouble.is_news(&reason) {
                    self.tell(Event::RefreshFailed { reason });
                }
            }
            Ok(_) | Err(RefreshError::Ended(_)) => {
                attempt.succeeded();
                if self.refreshes.trouble.is_over() {
                    self.tell(Event::RefreshRecovered);
                }
            }
        }
        outcome
    }

    async fn renew(&self, refresh: Refresh, deadline: Instant) -> Result<Refreshed, RefreshError> {
        let metadata = timeout_at(deadline, self.metadata()).await.map_err(|_| Error::TooSlow)??;
        let secret = self.credentials.secret();
        let left = deadline.saturating_duration_since(Instant::now());
        let caller = self.caller(&metadata, secret.as_deref());
        let tokens = caller.refresh(&refresh.refresh_token, left).await?;
        self.note_contact();
        let received_at = self.clock.now();
        let client_secret = secret.as_deref().map_or("", |secret| secret.expose());
        let sent = [refresh.refresh_token.expose(), client_secret, tokens.access_token.expose()];
        let judging = timeout_at(deadline, self.judge(&refresh, &tokens, &metadata)).await;
        let judging = judging.map(|judged| judged.map_err(|error| error.without(Sent(&sent))));
        let old =
            || Merged { claims: refresh.claims.clone(), from_user_info: refresh.from_user_info.clone() };
        let (renewed, expires_in) = match judging.unwrap_or(Err(Error::TooSlow)) {
            Ok(renewed) => (renewed, tokens.expires_in),
            Err(Error::Refused(refusal)) => return Err(RefreshError::Ended(refusal)),
            // Not judged is neither good nor bad. The grant is kept, for the old refresh token may be used up.
            Err(error) => {
                self.tell_kept(&error);
                let soon = tokens.expires_in.map_or(UNJUDGED_LIFETIME, |after| after.min(UNJUDGED_LIFETIME));
                (Renewed { id_token: None, person: old() }, Some(soon))
            }
        };
        let Renewed { id_token, person } = renewed;
        let id_token_expires_at = id_token.as_ref().map(|token| token.expires_at);
        let refresh_token = tokens.refresh_token.unwrap_or(refresh.refresh_token);
        Ok(Refreshed {
            grant: Grant::new(refresh_token, received_at, expires_in, id_token_expires_at),
            id_token,
            claims: person.claims,
            from_user_info: person.from_user_info,
        })
    }

    /// What the new tokens say. An error that is no refusal says nothing about them.
    async fn judge(&self, refresh: &Refresh, tokens: &Tokens, metadata: &Metadata) -> Result<Renewed, Error> {
        let old = Merged { claims: refresh.claims.clone(), from_user_info: refresh.from_user_info.clone() };
        let (id_token, outcome) = match &tokens.id_token {
            Some(text) => {
                let verified = self.verify_refreshed(text.expose(), refresh, metadata).await?;
                let completed = self.complete_claims(&verified, &tokens.access_token, metadata).await;
                (Some(new_id_token(text, &verified, refresh)), completed)
            }
            None => {
                let subject = &refresh.subject;
                (None, self.renew_claims(&old, subject, &tokens.access_token, metadata).await)
            }
        };
        let person = match outcome {
            Ok(person) => person,
            Err(refused @ Error::Refused(_)) => return Err(refused),
            // UserInfo fails, or a claim was too large: the old claims stay until the next try.
            Err(error) => {
                self.tell_kept(&error);
                old
            }
        };
        Ok(Renewed { id_token, person })
    }

    async fn verify_refreshed(
        &self,
        text: &str,
        refresh: &Refresh,
        metadata: &Metadata,
    ) -> Result<VerifiedIdToken, Error> {
        let signed = self.verify_signature(text, Purpose::IdToken, metadata).await?;
        let occasion = Occasion::Refresh { nonce: &refresh.nonce, subject: &refresh.subject };
        Ok(VerifiedIdToken::check(signed, &self.expected(), &occasion)?)
    }

    fn tell_kept(&self, error: &Error) {
        let reason = error.to_string();
        if self.refreshes.kept.is_news(&reason) {
            self.tell(Event::ClaimsKept { reason });
        }
    }
}

/// OIDC Core section 12.2: `auth_time` is that of the original authentication. Some providers put the time of
/// the refresh there, which would keep a login fresh for ever: the earlier of both is believed.
fn new_id_token(text: &Secret<String>, verified: &VerifiedIdToken, refresh: &Refresh) -> NewIdToken {
    let auth_times = verified.authenticated_at().into_iter().chain(refresh.auth_time);
    NewIdToken {
        text: text.clone(),
        expires_at: verified.expires_at(),
        acr: verified.acr().map(str::to_owned),
        auth_time: auth_times.min(),
        sid: verified.session_id().map(str::to_owned),
    }
}

impl fmt::Debug for Refresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refresh").field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl fmt::Debug for Refreshed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refreshed").field("grant", &self.grant).finish_non_exhaustive()
    }
}

impl fmt::Debug for NewIdToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewIdToken").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}
