//! Keeps one connection, and judges by it whether the store can be used.
//!
//! Four times a second a small write and a look at the revocations: whoever gets both knows what has ended
//! everywhere, and on a server that takes writes. A session is believed only while the last such look is no
//! older than [`MAX_STALENESS`]. Nothing else judges: a command that fails is only its caller's.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_lc_rs::rand;
use tokio::time::{Instant, sleep, sleep_until};

use super::config::Config;
use super::connect::connect;
use super::error::Unavailable;
use super::event::Event;
use super::link::Link;
use super::tail::{Ending, Endings, Heard, Tail};
use super::{Store, Told};

impl Store {
    /// Connects, and keeps the connection and the knowledge of what has ended. Never ends; run it once, on the
    /// control runtime.
    pub async fn keep_connected(self: Arc<Self>, endings: Arc<dyn Endings>) {
        loop {
            let next = Instant::now() + jittered(RECONNECT_PAUSE);
            let reason = match self.begin(endings.as_ref()).await {
                Err(reason) => {
                    self.tell(Told::Unavailable, &reason);
                    reason
                }
                Ok((link, tail)) => {
                    self.link.store(Some(Arc::new(link.clone())));
                    self.tell(Told::Available, &Unavailable::NotYet);
                    let reason = self.follow(link, tail, endings.as_ref()).await;
                    self.link.store(None);
                    reason
                }
            };
            self.reason.store(Arc::new(reason));
            // A connection that was good for a while is replaced at once.
            sleep_until(next).await;
        }
    }

    /// A connection over which everything that has ended is known.
    async fn begin(&self, endings: &dyn Endings) -> Result<(Link, Tail), Unavailable> {
        let link = connect(&self.config).await?;
        let mut tail = Tail::new();
        self.look(&link, &mut tail, endings, true).await?;
        Ok((link, tail))
    }

    /// Looks until that fails.
    async fn follow(&self, link: Link, mut tail: Tail, endings: &dyn Endings) -> Unavailable {
        loop {
            sleep(POLL_INTERVAL).await;
            let again = self.append_failed.swap(false, Ordering::AcqRel);
            if let Err(reason) = self.look(&link, &mut tail, endings, again).await {
                return reason;
            }
        }
    }

    async fn look(
        &self,
        link: &Link,
        tail: &mut Tail,
        endings: &dyn Endings,
        again: bool,
    ) -> Result<(), Unavailable> {
        let begun = self.since_start();
        tail.poll(link, endings, again).await?;
        // What ended while we read may have been missed, so the beginning counts.
        self.synced.store(begun, Ordering::Release);
        Ok(())
    }

    /// Tells a change of state, and only that.
    fn tell(&self, state: Told, reason: &Unavailable) {
        if self.told.swap(state as u8, Ordering::AcqRel) == state as u8 {
            return;
        }
        (self.events)(match state {
            Told::Available => Event::Available,
            _ => Event::Unavailable(reason.clone()),
        });
    }
}

/// Connects once and does what every look does, for `portcullis check`. `Ok`: a store would work.
pub async fn try_once(config: &Config) -> Result<(), Unavailable> {
    struct Nobody;

    impl Endings for Nobody {
        fn learn(&self, _: Heard) {}

        fn known(&self) -> Vec<Ending> {
            Vec::new()
        }
    }

    let link = connect(config).await?;
    Tail::new().poll(&link, &Nobody, true).await
}

/// Between all of `pause` and five quarters of it: many replicas must not come in step.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness there is no jitter, which is no reason to fail.
    let _ = rand::fill(&mut byte);
    let [byte] = byte;
    pause + pause.mul_f64(f64::from(byte) / 1024.0)
}

/// How old the last look may be while sessions are believed.
pub const MAX_STALENESS: Duration = Duration::from_secs(1);
/// How often a look is taken.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// From the beginning of one attempt to connect to the next, at least.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn pauses_differ_and_none_is_shorter_than_it_should_be() {
        let pause = Duration::from_secs(4);
        let pauses: BTreeSet<_> = (0..1000).map(|_| jittered(pause)).collect();
        assert!(pauses.len() > 100, "of 256 that there can be: {}", pauses.len());
        assert!(pauses.iter().all(|jittered| (pause..pause * 5 / 4).contains(jittered)), "{pauses:?}");
    }
}
