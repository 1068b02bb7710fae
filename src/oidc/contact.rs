//! Whether the provider can be reached now. A browser is not sent to a provider that is down: it would be
//! left with its own error page, and our 503 says more.

use std::sync::{Mutex as StdMutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use crate::web::outbound::Outbound;

/// When the provider was last reached.
#[derive(Default)]
pub(super) struct Contact {
    reached: StdMutex<Option<Instant>>,
    /// The last knock that failed. Whoever holds it is the only one who knocks.
    failed: Mutex<Option<(Instant, String)>>,
}

/// How long a contact counts as a sign of life.
const FRESH: Duration = Duration::from_secs(5);
/// How long a failed knock says something about the provider.
const STALE: Duration = Duration::from_secs(30);
/// Shortest time between a failed knock and the next.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How long a knock waits for a connection.
const PATIENCE: Duration = Duration::from_secs(2);

impl Contact {
    /// The provider has just answered something.
    pub fn note(&self) {
        *self.reached.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// As if it had never answered anything.
    #[cfg(test)]
    pub(super) fn forget(&self) {
        *self.reached.lock().unwrap() = None;
    }

    /// Whether it has answered lately.
    pub fn is_fresh(&self) -> bool {
        let reached = *self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        reached.is_some_and(|at| at.elapsed() < FRESH)
    }

    /// Why the last knock failed, if that was lately and none has succeeded since. A knock under way says
    /// nothing yet.
    pub fn last_failure(&self) -> Option<String> {
        let failed = self.failed.try_lock().ok()?;
        failed.as_ref().filter(|(at, _)| at.elapsed() < STALE).map(|(_, reason)| reason.clone())
    }

    /// Opens a TCP connection to `endpoint`, unless the provider has answered lately.
    pub async fn confirm(&self, outbound: &Outbound, endpoint: &Url) -> Result<(), String> {
        let mut failed = self.failed.lock().await;
        if self.is_fresh() {
            return Ok(());
        }
        if let Some((at, reason)) = failed.as_ref()
            && at.elapsed() < AFTER_FAILURE
        {
            return Err(reason.clone());
        }
        match outbound.knock(endpoint, PATIENCE).await {
            Ok(()) => {
                *failed = None;
                self.note();
                Ok(())
            }
            Err(error) => {
                let reason = error.to_string();
                *failed = Some((Instant::now(), reason.clone()));
                Err(reason)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::trust::Trust;

    fn ago(duration: Duration) -> Instant {
        Instant::now().checked_sub(duration).unwrap()
    }

    #[test]
    fn a_contact_is_fresh_for_a_while() {
        let contact = Contact::default();
        assert!(!contact.is_fresh());
        contact.note();
        assert!(contact.is_fresh());
        for (since, fresh) in [(FRESH / 2, true), (FRESH, false), (2 * FRESH, false)] {
            *contact.reached.lock().unwrap() = Some(ago(since));
            assert_eq!(contact.is_fresh(), fresh, "{since:?}");
        }
    }

    #[tokio::test]
    async fn a_failure_is_told_while_it_says_something() {
        let contact = Contact::default();
        assert_eq!(contact.last_failure(), None);
        for (since, told) in [(Duration::ZERO, true), (STALE / 2, true), (STALE, false), (2 * STALE, false)] {
            *contact.failed.lock().await = Some((ago(since), "refused".to_owned()));
            assert_eq!(contact.last_failure(), told.then(|| "refused".to_owned()), "{since:?}");
        }
        *contact.failed.lock().await = Some((ago(Duration::ZERO), "refused".to_owned()));
        let _knocking = contact.failed.lock().await;
        assert_eq!(contact.last_failure(), None, "a knock under way says nothing yet");
    }

    #[tokio::test]
    async fn one_knocks_only_where_nothing_is_known() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url: Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let outbound = Outbound::new(&url, Trust::system()).unwrap();
        let contact = Contact::default();
        // It failed a moment ago: nobody knocks, although somebody would answer.
        *contact.failed.lock().await = Some((ago(Duration::ZERO), "refused".to_owned()));
        assert_eq!(contact.confirm(&outbound, &url).await, Err("refused".to_owned()));
        *contact.failed.lock().await = Some((ago(AFTER_FAILURE), "refused".to_owned()));
        assert_eq!(contact.confirm(&outbound, &url).await, Ok(()));
        assert!(contact.is_fresh() && contact.last_failure().is_none());
        drop(listener);
        assert_eq!(contact.confirm(&outbound, &url).await, Ok(()), "it answered just now");
        *contact.reached.lock().unwrap() = Some(ago(FRESH));
        let failure = contact.confirm(&outbound, &url).await.unwrap_err();
        assert_eq!(contact.last_failure(), Some(failure));
    }
}
