//! Keeps the provider's metadata: found once, looked for again while it is not, never lost to a bad answer.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::discovery::{Metadata, Problem};
use super::event::{Event, Events};

/// The metadata of one provider as it is now.
pub(super) struct Finder {
    found: ArcSwapOption<Found>,
    problem: ArcSwapOption<Problem>,
    /// Whoever holds it is the only one who asks the provider.
    attempt: Mutex<Option<Attempt>>,
    events: Events,
}

struct Found {
    metadata: Arc<Metadata>,
    at: Instant,
}

/// How the last attempt ended.
struct Attempt {
    ended: Instant,
    outcome: Result<(), Problem>,
}

/// Shortest time between a failed attempt and the next, however many logins ask.
pub(super) const AFTER_FAILURE: Duration = Duration::from_secs(1);

impl Finder {
    pub fn new(events: Events) -> Self {
        Self {
            found: ArcSwapOption::empty(),
            problem: ArcSwapOption::empty(),
            attempt: Mutex::default(),
            events,
        }
    }

    /// The metadata, if there ever was a good answer.
    pub fn metadata(&self) -> Option<Arc<Metadata>> {
        self.found.load().as_ref().map(|found| Arc::clone(&found.metadata))
    }

    /// As if everything here had happened earlier.
    #[cfg(test)]
    pub(super) fn age_by(&self, time: Duration) {
        if let Some(found) = self.found.load_full() {
            let at = found.at.checked_sub(time).unwrap();
            self.found.store(Some(Arc::new(Found { metadata: Arc::clone(&found.metadata), at })));
        }
        if let Some(last) = self.attempt.try_lock().unwrap().as_mut() {
            last.ended = last.ended.checked_sub(time).unwrap();
        }
    }

    /// How old the metadata is.
    pub fn age(&self) -> Option<Duration> {
        self.found.load().as_ref().map(|found| found.at.elapsed())
    }

    /// Why the last attempt failed; none if it did not, or there was none yet.
    pub fn problem(&self) -> Option<Arc<Problem>> {
        self.problem.load_full()
    }

    /// Asks the provider by `fetch`, or shares the answer of an attempt that ended meanwhile, or repeats a
    /// failure that is less than [`AFTER_FAILURE`] old.
    pub async fn find(
        &self,
        fetch: impl Future<Output = Result<Metadata, Problem>>,
    ) -> Result<Arc<Metadata>, Problem> {
        let asked = Instant::now();
        let mut attempt = self.attempt.lock().await;
        if let Some(last) = attempt.as_ref() {
            let shared = last.ended >= asked;
            match (&last.outcome, self.metadata()) {
                (Ok(()), Some(metadata)) if shared => return Ok(metadata),
                (Err(problem), _) if shared || last.ended.elapsed() < AFTER_FAILURE => {
                    return Err(problem.clone());
                }
                _ => {}
            }
        }
        let outcome = fetch.await.map(Arc::new);
        *attempt = Some(Attempt {
            ended: Instant::now(),
            outcome: outcome.as_ref().map(drop).map_err(Clone::clone),
        });
        match &outcome {
            Ok(metadata) => self.keep(Arc::clone(metadata)),
            Err(problem) => self.note(problem),
        }
        outcome
    }

    fn keep(&self, metadata: Arc<Metadata>) {
        let found = Arc::new(Found { metadata: Arc::clone(&metadata), at: Instant::now() });
        let before = self.found.swap(Some(found));
        let failed = self.problem.swap(None).is_some();
        if before.is_none() || failed {
            (self.events)(Event::Discovered);
        }
        let known = before.as_ref().map_or(&[][..], |before| &before.metadata.ignored);
        for reason in metadata.ignored.iter().filter(|reason| !known.contains(reason)) {
            (self.events)(Event::EndpointIgnored { reason: reason.clone() });
        }
    }

    fn note(&self, problem: &Problem) {
        let before = self.problem.swap(Some(Arc::new(problem.clone())));
        if before.as_deref() != Some(problem) {
            let keeps_old = self.found.load().is_some();
            (self.events)(Event::DiscoveryFailed { reason: problem.to_string(), keeps_old });
        }
    }
}
