//! The provider's keys as they are now: kept while they are good, fetched again when a token names another.
//!
//! A token with an unknown `kid` costs at most one fetch, whoever else waits for it shares it, and a flood of
//! made-up ids costs no more than [`MAX_UNKNOWN_FETCHES`] in [`UNKNOWN_WINDOW`]. Tokens that anybody can send
//! have such a budget of their own, so that a flood of them takes nothing away from logins. A bad answer never
//! replaces good keys, and a good one drops what it no longer lists.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::StatusCode;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use crate::web::outbound::Outbound;

use super::error::Error;
use super::event::{Event, Events};
use super::jwks::KeySet;

/// The keys of one provider.
pub(super) struct KeyCache {
    current: ArcSwapOption<Fetched>,
    fetching: Mutex<History>,
    events: Events,
}

/// Keys, and when they came.
pub(super) struct Fetched {
    pub keys: KeySet,
    at: Instant,
}

/// Who brought a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bringer {
    /// The token endpoint, asked by us.
    Provider,
    /// Whoever can reach us.
    Anybody,
}

/// What the next fetch depends on; whoever holds it is the only one who fetches.
#[derive(Default)]
struct History {
    provided: Budget,
    unsolicited: Budget,
    failure: Option<(Instant, String)>,
}

/// The last fetches for an unknown `kid`, oldest first.
#[derive(Default)]
struct Budget([Option<Instant>; MAX_UNKNOWN_FETCHES]);

/// Most fetches for unknown key ids in any [`UNKNOWN_WINDOW`], for each [`Bringer`].
pub(super) const MAX_UNKNOWN_FETCHES: usize = 2;
/// See [`MAX_UNKNOWN_FETCHES`]. Providers that rotate every half minute are still followed.
pub(super) const UNKNOWN_WINDOW: Duration = Duration::from_secs(15);
/// How old keys may get before they must be fetched again to be believed: a key that was taken back because
/// it leaked must not be good for ever only because the provider can't be asked.
pub(super) const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Shortest time between a failed fetch and the next.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

impl KeyCache {
    pub fn new(events: Events) -> Self {
        Self { current: ArcSwapOption::empty(), fetching: Mutex::default(), events }
    }

    /// The keys, fetched if there are none that may still be believed.
    pub async fn get(&self, outbound: &Outbound, url: &Url) -> Result<Arc<Fetched>, Error> {
        if let Some(fresh) = self.believed() {
            return Ok(fresh);
        }
        let mut history = self.fetching.lock().await;
        match self.believed() {
            Some(fresh) => Ok(fresh),
            None => self.fetch(&mut history, outbound, url).await,
        }
    }

    /// Other keys than `seen`, in which a key id was not found. None if there have been too many such
    /// questions lately.
    pub async fn newer(
        &self,
        seen: &Arc<Fetched>,
        bringer: Bringer,
        outbound: &Outbound,
        url: &Url,
    ) -> Result<Option<Arc<Fetched>>, Error> {
        let mut history = self.fetching.lock().await;
        if let Some(current) = self.current.load_full().filter(|current| !Arc::ptr_eq(current, seen)) {
            return Ok(Some(current));
        }
        if !history.budget(bringer).take(Instant::now()) {
            // The last answer may just have been a failure: then this is no verdict on the token.
            return match &history.failure {
                Some((_, failure)) => Err(Error::Keys(failure.clone())),
                None => Ok(None),
            };
        }
        self.fetch(&mut history, outbound, url).await.map(Some)
    }

    /// Fetches the keys whether they are needed or not.
    pub async fn refresh(&self, outbound: &Outbound, url: &Url) -> Result<(), Error> {
        let asked = Instant::now();
        let mut history = self.fetching.lock().await;
        match self.current.load().as_ref().is_some_and(|current| current.at >= asked) {
            true => Ok(()),
            false => self.fetch(&mut history, outbound, url).await.map(drop),
        }
    }

    /// As if everything here had happened earlier.
    #[cfg(test)]
    pub(super) fn age_by(&self, time: Duration) {
        if let Some(current) = self.current.swap(None) {
            let Fetched { keys, at } = Arc::into_inner(current).unwrap();
            self.current.store(Some(Arc::new(Fetched { keys, at: at.checked_sub(time).unwrap() })));
        }
        if let Some((at, _)) = self.fetching.try_lock().unwrap().failure.as_mut() {
            *at = at.checked_sub(time).unwrap();
        }
    }

    /// How old the keys are; none if there are none.
    pub fn age(&self) -> Option<Duration> {
        self.current.load().as_ref().map(|current| current.at.elapsed())
    }

    fn believed(&self) -> Option<Arc<Fetched>> {
        self.current.load_full().filter(|current| current.at.elapsed() < MAX_AGE)
    }

    async fn fetch(
        &self,
        history: &mut History,
        outbound: &Outbound,
        url: &Url,
    ) -> Result<Arc<Fetched>, Error> {
        if let Some((at, failure)) = &history.failure
            && at.elapsed() < AFTER_FAILURE
        {
            return Err(Error::Keys(failure.clone()));
        }
        match download(outbound, url).await {
            Ok(keys) => {
                let fetched = Arc::new(Fetched { keys, at: Instant::now() });
                let old = self.current.swap(Some(Arc::clone(&fetched)));
                history.failure = None;
                if old.is_none_or(|old| !old.keys.same_ids(&fetched.keys)) {
                    (self.events)(Event::KeysChanged { usable: fetched.keys.len() });
                }
                Ok(fetched)
            }
            Err(failure) => {
                let repeated = history.failure.as_ref().is_some_and(|(_, before)| *before == failure);
                history.failure = Some((Instant::now(), failure.clone()));
                if !repeated {
                    (self.events)(Event::KeysFailed { reason: failure.clone() });
                }
                Err(Error::Keys(failure))
            }
        }
    }
}

impl History {
    fn budget(&mut self, bringer: Bringer) -> &mut Budget {
        match bringer {
            Bringer::Provider => &mut self.provided,
            Bringer::Anybody => &mut self.unsolicited,
        }
    }
}

impl Budget {
    fn take(&mut self, now: Instant) -> bool {
        if self.0.first().copied().flatten().is_some_and(|oldest| now - oldest < UNKNOWN_WINDOW) {
            return false;
        }
        self.0.rotate_left(1);
        if let Some(newest) = self.0.last_mut() {
            *newest = Some(now);
        }
        true
    }
}

pub(super) async fn download(outbound: &Outbound, url: &Url) -> Result<KeySet, String> {
    let answer = outbound.get(url).await.map_err(|error| error.to_string())?;
    match answer.status() {
        StatusCode::OK => {
            KeySet::parse(answer.body()).map_err(|error| format!("jwks_uri answers, but {error}"))
        }
        status => Err(format!("jwks_uri answers {}", status.as_u16())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rp_23_unknown_ids_have_a_budget() {
        let begin = Instant::now();
        let mut history = History::default();
        for bringer in [Bringer::Anybody, Bringer::Provider] {
            let asked = (0..1000).map(|i| begin + Duration::from_millis(10 * i));
            let budget = history.budget(bringer);
            assert_eq!(asked.filter(|now| budget.take(*now)).count(), MAX_UNKNOWN_FETCHES, "{bringer:?}");
            assert!(budget.take(begin + UNKNOWN_WINDOW));
        }
    }
}
