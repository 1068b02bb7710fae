//! The life of the process as its parts see it: starting, serving, leaving, draining, over. The server moves
//! it on; readiness, connections and tunnels follow it.

use tokio::sync::watch;

/// Where in its life the process is. The order is the order in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The listeners are not up yet: not ready.
    Starting,
    /// Ready.
    Serving,
    /// Asked to stop: not ready any more, and still accepting for `limits.shutdownDelay`, so that whoever
    /// routes traffic here can notice.
    Leaving,
    /// No longer accepting; what is under way may finish within `limits.drain`.
    Draining,
    /// What is left is cut off.
    Over,
}

/// The current [`Phase`], shared by all threads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lifecycle(watch::Sender<Phase>);

impl Lifecycle {
    /// A life that is about to start.
    pub fn new() -> Self {
        Self(watch::Sender::new(Phase::Starting))
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Whether traffic should be sent here.
    pub fn is_ready(&self) -> bool {
        self.phase() == Phase::Serving
    }

    /// Resolves once `phase` is reached or passed.
    pub fn reached(&self, phase: Phase) -> impl Future<Output = ()> + use<> {
        let mut watched = self.0.subscribe();
        async move {
            // The error is that the server is gone, which is as far as a life can go.
            let _ = watched.wait_for(|now| *now >= phase).await;
        }
    }

    /// Moves on to `phase`; never back.
    pub(super) fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let later = phase > *now;
            if later {
                *now = phase;
            }
            later
        });
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_only_goes_forward_and_late_watchers_are_told() {
        let life = Lifecycle::new();
        let draining = tokio::spawn(life.reached(Phase::Draining));
        assert!(!life.is_ready());
        life.advance(Phase::Serving);
        assert!(life.is_ready());
        life.advance(Phase::Over);
        life.advance(Phase::Serving);
        assert_eq!(life.phase(), Phase::Over);
        draining.await.unwrap();
        life.reached(Phase::Leaving).await;
    }
}
