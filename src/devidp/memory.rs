//! What the provider remembers: bounded, and each entry for a limited time.

use std::num::NonZeroUsize;
use std::time::Duration;

use aws_lc_rs::error::Unspecified;
use lru::LruCache;

use super::key::random_token;
use crate::clock::UnixTime;

/// Entries under random names, each valid for the same time. A full store forgets what was used least recently.
pub(super) struct Memory<V> {
    entries: LruCache<String, Entry<V>>,
    lifetime: Duration,
}

struct Entry<V> {
    value: V,
    since: UnixTime,
}

impl<V> Memory<V> {
    /// An empty store for entries that live for `lifetime`.
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { entries: LruCache::new(MOST_ENTRIES), lifetime }
    }

    /// Keeps `value` and gives it a name that nobody can guess.
    pub(super) fn keep(&mut self, value: V, now: UnixTime) -> Result<String, Unspecified> {
        let name = random_token()?;
        self.entries.put(name.clone(), Entry { value, since: now });
        Ok(name)
    }

    /// What is kept under `name`, unless its time is over.
    pub(super) fn find(&mut self, name: &str, now: UnixTime) -> Option<&mut V> {
        let entry = self.entries.get_mut(name)?;
        (now.since(entry.since) < self.lifetime).then_some(&mut entry.value)
    }

    /// Forgets what is kept under `name`.
    pub(super) fn forget(&mut self, name: &str) {
        self.entries.pop(name);
    }
}

/// More logins than anybody makes by hand, yet little memory.
const MOST_ENTRIES: NonZeroUsize = match NonZeroUsize::new(512) {
    Some(number) => number,
    None => NonZeroUsize::MIN,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_end_with_their_time() {
        let mut memory = Memory::new(Duration::from_secs(60));
        let name = memory.keep("code", UnixTime(1000)).unwrap();
        assert_eq!(memory.find(&name, UnixTime(1059)), Some(&mut "code"));
        assert_eq!(memory.find(&name, UnixTime(1060)), None);
        assert_eq!(memory.find("other", UnixTime(1000)), None);
        memory.forget(&name);
        assert_eq!(memory.find(&name, UnixTime(1000)), None);
    }

    #[test]
    fn the_store_is_bounded() {
        let mut memory = Memory::new(Duration::from_secs(60));
        let first = memory.keep(0, UnixTime(0)).unwrap();
        for number in 0..MOST_ENTRIES.get() {
            memory.keep(number, UnixTime(0)).unwrap();
        }
        assert_eq!(memory.find(&first, UnixTime(0)), None);
        assert_eq!(memory.entries.len(), MOST_ENTRIES.get());
    }
}
