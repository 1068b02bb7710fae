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
/// Shortest time between a failed knock and the next.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How long a knock waits for a connection.
const PATIENCE: Duration = Duration::from_secs(2);

impl Contact {
    /// The provider has just answered something.
    pub fn note(&self) {
        *self.reached.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether it has answered lately.
    pub fn is_fresh(&self) -> bool {
        let reached = *self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        reached.is_some_and(|at| at.elapsed() < FRESH)
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
