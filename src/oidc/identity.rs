//! What the provider proved of a person, and what it can be asked with later.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::clock::UnixTime;
use crate::secret::Secret;
use crate::tag::Claims;

/// Who logged in, as far as the provider proved it.
#[derive(Clone)]
pub struct Identity {
    /// `sub`: 1 to 255 ASCII characters.
    pub subject: String,
    /// The issuer; a subject is only unique together with it.
    pub issuer: String,
    /// All claims of the ID token, and those that UserInfo added.
    pub claims: Claims,
    /// The top-level claims that UserInfo added or replaced.
    pub from_user_info: BTreeSet<String>,
    /// The authentication context that the ID token states.
    pub acr: Option<String>,
    /// When the person authenticated.
    pub auth_time: Option<UnixTime>,
    /// The provider's name of its own session.
    pub sid: Option<String>,
    /// The nonce of the ID token.
    pub nonce: String,
    /// The ID token as it came, for `id_token_hint`.
    pub id_token: Secret<String>,
    /// `exp` of the ID token.
    pub id_token_expires_at: UnixTime,
    /// What the session can be refreshed with, if the provider gave a refresh token.
    pub grant: Option<Grant>,
}

/// What a session can be refreshed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The refresh token. Where they rotate, it is good for one use.
    pub refresh_token: Secret<String>,
    /// When it came.
    pub received_at: UnixTime,
    /// When what came with it is due to be refreshed: the earlier of the access token's `expires_in`
    /// ([`DEFAULT_LIFETIME`] where the provider does not say) and the ID token's `exp` where there was one, and
    /// never less than [`MIN_LIFETIME`] away.
    pub expires_at: UnixTime,
}

/// How long an access token is taken to be good for where the provider does not say.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(5 * 60);
/// Shortest time between two refreshes of one session, whatever the provider says: a token that is over by our
/// clock when it comes must not make every request a refresh.
pub const MIN_LIFETIME: Duration = Duration::from_secs(10);

impl Grant {
    pub(super) fn new(
        refresh_token: Secret<String>,
        received_at: UnixTime,
        expires_in: Option<Duration>,
        id_token_expires_at: Option<UnixTime>,
    ) -> Self {
        let earliest = received_at.plus(MIN_LIFETIME);
        let by_access_token = received_at.plus(expires_in.unwrap_or(DEFAULT_LIFETIME));
        let expires_at = id_token_expires_at.map_or(by_access_token, |at| at.min(by_access_token));
        Self { refresh_token, received_at, expires_at: expires_at.max(earliest) }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("subject", &self.subject).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_due_at_the_earlier_of_both() {
        const NOW: u64 = 1_800_000_000;
        for (expires_in, id_token, due) in [
            (Some(3600), None, 3600),
            (Some(3600), Some(300), 300),
            (Some(60), Some(36_000), 60),
            (None, None, 300),
            (None, Some(36_000), 300),
            (None, Some(60), 60),
            (Some(1), None, 10),
            (Some(3600), Some(0), 10),
            (Some(3600), Some(-60), 10),
        ] {
            let grant = Grant::new(
                Secret::new("token".to_owned()),
                UnixTime(NOW),
                expires_in.map(Duration::from_secs),
                id_token.map(|after: i64| UnixTime(NOW.saturating_add_signed(after))),
            );
            assert_eq!(grant.expires_at.0 - NOW, due, "{expires_in:?} {id_token:?}");
            assert!(!format!("{grant:?}").contains("token\""), "{grant:?}");
        }
    }
}
