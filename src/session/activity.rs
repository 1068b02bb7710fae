//! Sessions that are in use without a request: by the bytes of a WebSocket, say.
//!
//! A cookie says when its session was last used, as far as requests tell. This says the rest, for as long as the
//! process lives: who sits in front of an open page for longer than `session.idleTimeout` is still there.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use lru::LruCache;

use super::SessionId;
use crate::clock::UnixTime;

/// When streams last moved, for the latest [`MAX_ACTIVE`] sessions.
#[derive(Debug, Default)]
pub(super) struct Activity(Mutex<Option<LruCache<SessionId, UnixTime>>>);

impl Activity {
    /// Notes that a session is in use now.
    pub(super) fn note(&self, id: SessionId, now: UnixTime) {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        used.get_or_insert_with(|| LruCache::new(MAX_ACTIVE)).put(id, now);
    }

    /// When it last was, if that is known.
    pub(super) fn last(&self, id: SessionId) -> Option<UnixTime> {
        let used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        used.as_ref()?.peek(&id).copied()
    }
}

/// Sessions that are remembered: about 10 MiB when full.
const MAX_ACTIVE: NonZeroUsize = NonZeroUsize::new(100_000).unwrap();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_use_of_the_latest_sessions_is_remembered() {
        let activity = Activity::default();
        let ids: Vec<SessionId> = (0..=MAX_ACTIVE.get()).map(|_| SessionId::new().unwrap()).collect();
        assert_eq!(activity.last(ids[0]), None);
        activity.note(ids[0], UnixTime(1));
        for id in &ids[1..] {
            activity.note(*id, UnixTime(2));
        }
        assert_eq!(activity.last(ids[0]), None, "one too many");
        activity.note(ids[1], UnixTime(3));
        assert_eq!(activity.last(ids[1]), Some(UnixTime(3)));
        assert_eq!(activity.last(ids[2]), Some(UnixTime(2)));
    }
}
