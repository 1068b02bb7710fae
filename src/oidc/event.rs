//! What happens between us and the provider, for whoever keeps the log.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// One thing that happened. Not one a request: only changes are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Discovery succeeded for the first time, or again after it had failed.
    Discovered,
    /// Discovery failed, for another reason than before.
    DiscoveryFailed {
        /// What the operator should know.
        reason: String,
        /// Whether an older, good answer goes on being used.
        keeps_old: bool,
    },
    /// The provider's set of keys is another than before.
    KeysChanged {
        /// How many usable keys it has.
        usable: usize,
    },
    /// The keys could not be fetched, for another reason than before. Older, good ones go on being used.
    KeysFailed {
        /// What the operator should know.
        reason: String,
    },
    /// Refreshes fail, for another reason than before: the sessions live on with what is known of them.
    RefreshFailed {
        /// What the operator should know.
        reason: String,
    },
    /// Refreshes work again.
    RefreshRecovered,
    /// A refresh succeeded, and the old claims were kept all the same, for another reason than before.
    ClaimsKept {
        /// Why the new ones can't be had.
        reason: String,
    },
    /// A refresh token could not be revoked, for another reason than before: it is good at the provider until
    /// it expires there.
    RevocationFailed {
        /// What the operator should know.
        reason: String,
    },
    /// An optional endpoint of the discovery document can't be used, and is as if it were not there.
    EndpointIgnored {
        /// What the operator should know.
        reason: String,
    },
    /// A file with the client secret or the certificate authority has changed and is in use.
    Reloaded {
        /// The file.
        path: PathBuf,
    },
    /// Such a file has changed and can't be used: the older content stays in use.
    ReloadFailed {
        /// The file.
        path: PathBuf,
        /// What the operator should know.
        reason: String,
    },
}

/// Where events go. Called from any thread; must not block.
pub type Events = Arc<dyn Fn(Event) + Send + Sync>;

/// A trouble that is told once for each reason, again when it has been over, and again after [`REMINDER`].
#[derive(Default)]
pub(super) struct Trouble(Mutex<Option<(String, Instant)>>);

/// How long the same trouble goes on untold.
const REMINDER: Duration = Duration::from_secs(10 * 60);

impl Trouble {
    /// Whether this is news.
    pub fn is_news(&self, reason: &str) -> bool {
        self.is_news_at(reason, Instant::now())
    }

    fn is_news_at(&self, reason: &str, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let old = told
            .as_ref()
            .is_some_and(|(last, at)| last == reason && now.saturating_duration_since(*at) < REMINDER);
        if !old {
            *told = Some((reason.to_owned(), now));
        }
        !old
    }

    /// It is over; whether there was any.
    pub fn is_over(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_other_reasons_and_reminders() {
        let (trouble, begin) = (Trouble::default(), Instant::now());
        let after = |seconds| begin + Duration::from_secs(seconds);
        for (reason, at, news) in
            [("a", 0, true), ("a", 1, false), ("b", 2, true), ("b", 601, false), ("b", 602, true)]
        {
            assert_eq!(trouble.is_news_at(reason, after(at)), news, "{reason} after {at} s");
        }
        assert!(trouble.is_over() && !trouble.is_over());
        assert!(trouble.is_news_at("b", after(603)));
    }
}
