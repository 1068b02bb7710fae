//! Leaves a provider alone that has just failed: an outage must not become a flood of calls.
//!
//! While all is well any number of calls are under way. The first that fails begins a pause; when it is over,
//! one call may try again, and only its success ends the pauses. Time is the caller's, and monotonic.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Whether calls may be made now.
#[derive(Default)]
pub(super) struct Breaker {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Counts verdicts: one of an attempt that began before the last is stale.
    verdicts: u64,
    failures: usize,
    pause: Option<Pause>,
}

struct Pause {
    until: Instant,
    reason: String,
    probing: bool,
}

/// A call that may be made; tell its outcome. Dropped without one, it counts as failed for the reason before.
pub(super) struct Attempt<'a> {
    breaker: &'a Breaker,
    began_after: u64,
    told: bool,
}

/// How long the provider is left alone after the first, the second, and every further failure.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5)];

impl Breaker {
    /// A call that may be made now, or why the last one failed.
    pub fn admit(&self, now: Instant) -> Result<Attempt<'_>, String> {
        let mut state = self.lock();
        if let Some(pause) = &mut state.pause {
            if pause.probing || now < pause.until {
                return Err(pause.reason.clone());
            }
            pause.probing = true;
        }
        Ok(Attempt { breaker: self, began_after: state.verdicts, told: false })
    }

    /// Why no call may be made now, if so. Takes nothing.
    pub fn paused(&self, now: Instant) -> Option<String> {
        let state = self.lock();
        let pause = state.pause.as_ref()?;
        (pause.probing || now < pause.until).then(|| pause.reason.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt<'_> {
    /// The provider answered as it should: all is well, whatever was before.
    pub fn succeeded(mut self) {
        self.told = true;
        let mut state = self.breaker.lock();
        state.verdicts += 1;
        state.failures = 0;
        state.pause = None;
    }

    /// It did not.
    pub fn failed(mut self, reason: String, now: Instant) {
        self.fail(Some(reason), now);
    }

    fn fail(&mut self, reason: Option<String>, now: Instant) {
        self.told = true;
        let mut state = self.breaker.lock();
        // Of the many calls that an outage meets under way, one is enough to begin the pause.
        if state.verdicts != self.began_after {
            return;
        }
        state.verdicts += 1;
        let pause = PAUSES.get(state.failures).or(PAUSES.last()).copied().unwrap_or_default();
        state.failures = state.failures.saturating_add(1);
        let reason = reason.or_else(|| state.pause.as_ref().map(|pause| pause.reason.clone()));
        state.pause = Some(Pause {
            until: now + pause,
            reason: reason.unwrap_or_else(|| "it was given up".to_owned()),
            probing: false,
        });
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.fail(None, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a call may be made `after` the beginning; it fails if it may.
    fn try_and_fail(breaker: &Breaker, now: Instant) -> bool {
        breaker.admit(now).map(|attempt| attempt.failed("down".to_owned(), now)).is_ok()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_outage_is_met_with_longer_and_longer_pauses() {
        let (breaker, begin) = (Breaker::default(), Instant::now());
        let after = (0..200).map(|tenths| Duration::from_millis(tenths * 100));
        let tried: Vec<_> = after.filter(|after| try_and_fail(&breaker, begin + *after)).collect();
        assert_eq!(tried, [0, 1, 3, 8, 13, 18].map(seconds));
        assert_eq!(breaker.paused(begin + seconds(19)).as_deref(), Some("down"));
    }

    #[test]
    fn one_success_ends_it() {
        let (breaker, begin) = (Breaker::default(), Instant::now());
        for after in [0, 5, 10] {
            assert!(try_and_fail(&breaker, begin + seconds(after)));
        }
        breaker.admit(begin + seconds(15)).unwrap().succeeded();
        assert!(breaker.paused(begin + seconds(15)).is_none());
        assert!(try_and_fail(&breaker, begin + seconds(15)));
        assert!(breaker.admit(begin + seconds(16)).is_ok(), "the pauses begin from the first again");
    }

    #[test]
    fn a_failure_from_before_a_success_says_nothing() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        let (one, late) = (breaker.admit(now).unwrap(), breaker.admit(now).unwrap());
        one.succeeded();
        late.failed("down".to_owned(), now);
        assert!(breaker.admit(now).is_ok());
    }

    #[test]
    fn only_one_probes() {
        let (breaker, begin) = (Breaker::default(), Instant::now());
        assert!(try_and_fail(&breaker, begin));
        let probe = breaker.admit(begin + seconds(1)).unwrap();
        assert!(breaker.admit(begin + seconds(60)).is_err());
        assert!(breaker.paused(begin + seconds(60)).is_some());
        drop(probe);
        let now = Instant::now();
        assert!(breaker.admit(now).is_err(), "a probe that was given up is a failure");
        assert!(breaker.admit(now + seconds(2)).is_ok());
    }

    #[test]
    fn a_burst_counts_once_and_old_failures_not_at_all() {
        let (breaker, begin) = (Breaker::default(), Instant::now());
        let burst: Vec<_> = (0..50).map(|_| breaker.admit(begin).unwrap()).collect();
        let late = breaker.admit(begin).unwrap();
        for attempt in burst {
            attempt.failed("down".to_owned(), begin);
        }
        breaker.admit(begin + seconds(1)).unwrap().succeeded();
        late.failed("down".to_owned(), begin + seconds(1));
        assert!(breaker.admit(begin + seconds(1)).is_ok());
    }
}
