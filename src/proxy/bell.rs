//! What a connection to the application rings when something happens on it.
//!
//! hyper's future registers one waker, that of the connection, for as long as the connection lives. Who hears it
//! changes with every request: the task of the client that it serves, or nobody while it waits for one. That is
//! cheaper than a new waker for each, and it spares the task of the client the calls that it would make to itself:
//! whoever takes bytes from the body is going to ask for more, and needs no waking for it.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

/// The bell of one connection. All of it happens on one thread; the types are those that a [`Waker`] asks for.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rings: AtomicU64,
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

    /// While it is muffled, it only counts.
    pub(super) fn muffle(&self, muffled: bool) {
        self.is_muffled.store(muffled, Relaxed);
    }

    /// How often it has rung. The same number twice: nothing has happened in between.
    pub(super) fn rings(&self) -> u64 {
        self.rings.load(Relaxed)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rings.fetch_add(1, Relaxed);
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
            let before = (bell.rings(), heard.rings());
            rope.wake_by_ref();
            assert_eq!(
                (bell.rings(), heard.rings()),
                (before.0 + 1, before.1 + u64::from(listens && !muffled))
            );
        }
        bell.muffle(false);
        bell.leave();
        rope.wake();
        assert_eq!((bell.rings(), heard.rings()), (4, 1));
    }
}
