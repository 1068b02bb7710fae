//! What a connection to the application rings when something happens on it.
//!
//! hyper's future registers one waker, that of the connection, for as long as the connection lives. Who hears it
//! changes with every request: the task of the client that it serves, or nobody while it waits for one. That is
//! cheaper than a new waker for each, and it spares the task of the client the calls that it would make to itself:
//! whoever takes bytes from the body is going to ask for more, and needs no waking for it.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

/// The bell of one connection. All of it happens on one thread; the types are those that a [`Waker`] asks for.
#[derive(Debug, Default)]
pub(super) struct Bell {
    has_rung: AtomicBool,
    is_muffled: AtomicBool,
    listener: Mutex<Option<Waker>>,
}

impl Bell {
    /// From now on the task of `cx` hears it.
    pub(super) fn listen(&self, cx: &Context<'_>) {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *listener {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    /// From now on nobody does.
    pub(super) fn leave(&self) {
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// While it is muffled, it only remembers that it rang.
    pub(super) fn muffle(&self, muffled: bool) {
        self.is_muffled.store(muffled, Relaxed);
    }

    /// Whether it has rung since this was last asked.
    pub(super) fn take_ring(&self) -> bool {
        self.has_rung.swap(false, Relaxed)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_rung.store(true, Relaxed);
        if self.is_muffled.load(Relaxed) {
            return;
        }
        if let Some(listener) = &*self.listener.lock().unwrap_or_else(PoisonError::into_inner) {
            listener.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_listens_is_woken_unless_it_is_muffled() {
        let (heard, bell) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
        let (task, rope) = (Waker::from(heard.clone()), Waker::from(bell.clone()));
        for (listens, muffled) in [(false, false), (true, false), (true, true)] {
            if listens {
                bell.listen(&Context::from_waker(&task));
            }
            bell.muffle(muffled);
            rope.wake_by_ref();
            assert!(bell.take_ring() && !bell.take_ring());
            assert_eq!(heard.take_ring(), listens && !muffled);
        }
        bell.muffle(false);
        bell.leave();
        rope.wake();
        assert!(bell.take_ring() && !heard.take_ring());
    }
}
