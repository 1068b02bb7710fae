//! What all streams of one session hang on: when it is cut, they end.
//!
//! Owns the signal, and the mark that bytes have moved. May not know what a session is or why one ends. It lives on
//! one worker, and costs a request nothing but a reference: what ends before it could matter never listens.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

/// A signal that comes once, for any number of streams.
#[derive(Debug, Default)]
pub struct Lifeline {
    is_cut: Cell<bool>,
    has_moved: Cell<bool>,
    cut: Notify,
}

/// How long something waits before it listens for the cut, and so the latest that it may notice one: most waits are
/// over sooner, and are spared the listening.
pub const LISTEN_AFTER: Duration = Duration::from_millis(250);

impl Lifeline {
    /// Ends what hangs on it, now and later.
    pub fn cut(&self) {
        self.is_cut.set(true);
        self.cut.notify_waiters();
    }

    /// Whether it was cut.
    pub fn is_cut(&self) -> bool {
        self.is_cut.get()
    }

    /// Resolves once it is cut.
    pub async fn until_cut(&self) {
        let cut = pin!(self.cut.notified());
        if !self.is_cut() {
            cut.await;
        }
    }

    /// The same, to be kept.
    pub(super) fn listen(self: &Rc<Self>) -> Pin<Box<dyn Future<Output = ()>>> {
        let lifeline = self.clone();
        Box::pin(async move { lifeline.until_cut().await })
    }

    /// Notes that a stream has moved bytes.
    pub fn note_movement(&self) {
        self.has_moved.set(true);
    }

    /// Whether any stream has moved bytes since this was last asked.
    pub fn take_movement(&self) -> bool {
        self.has_moved.take()
    }
}

/// Resolves once `lifeline` is cut; never, where there is none.
pub async fn until_cut(lifeline: Option<&Lifeline>) {
    match lifeline {
        Some(lifeline) => lifeline.until_cut().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn whoever_listens_is_told_once_it_is_cut() {
        let lifeline = Rc::new(Lifeline::default());
        let mut asleep = Context::from_waker(Waker::noop());
        let [mut early, mut unpolled] = [lifeline.listen(), lifeline.listen()];
        let mut nobodys = pin!(until_cut(None));
        assert!(early.as_mut().poll(&mut asleep).is_pending());
        lifeline.cut();
        let mut late = lifeline.listen();
        for listening in [&mut early, &mut unpolled, &mut late] {
            assert!(listening.as_mut().poll(&mut asleep).is_ready());
        }
        assert!(lifeline.is_cut());
        assert!(nobodys.as_mut().poll(&mut asleep).is_pending());
    }

    #[test]
    fn movement_is_told_once() {
        let lifeline = Lifeline::default();
        assert!(!lifeline.take_movement());
        lifeline.note_movement();
        lifeline.note_movement();
        assert!(lifeline.take_movement() && !lifeline.take_movement());
    }
}
