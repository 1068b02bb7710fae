//! Tokens that may be used once.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use crate::clock::{Clock, UnixTime};

/// The `jti`s of logout tokens that were obeyed (OpenID Connect Back-Channel Logout section 2.6). For one service,
/// and so for one issuer; forgotten with the process.
///
/// At most [`MAX_REPLAYS`] are remembered. Only what the provider signed gets here, so it is the provider who is
/// busy when they are that many. Then the one that expires first is forgotten: a logout that is replayed ends a
/// session once more than it should, a logout that is refused leaves one alive.
#[derive(Debug)]
pub struct Replays {
    clock: Clock,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    names: HashMap<Name, UnixTime>,
    by_end: BTreeSet<(UnixTime, Name)>,
}

/// Of one size however long the `jti` is.
type Name = [u8; SHA256_OUTPUT_LEN];

impl Replays {
    /// Knows none yet.
    pub fn new(clock: Clock) -> Self {
        Self { clock, seen: Mutex::default() }
    }

    /// True the first time. To be asked last, when nothing else speaks against the token. `expires_at` is when the
    /// token itself would be refused, with all tolerance.
    pub fn first_time(&self, jti: &str, expires_at: UnixTime) -> bool {
        let name = name_of(jti);
        let now = self.clock.now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.names.contains_key(&name) {
            return false;
        }
        seen.names.insert(name, expires_at);
        seen.by_end.insert((expires_at, name));
        while let Some((end, first)) = seen.by_end.first().copied() {
            if end > now && seen.by_end.len() <= MAX_REPLAYS {
                break;
            }
            seen.by_end.remove(&(end, first));
            seen.names.remove(&first);
        }
        true
    }

    /// The token was not obeyed after all, and may come again.
    pub fn forget(&self, jti: &str) {
        let name = name_of(jti);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(end) = seen.names.remove(&name) {
            seen.by_end.remove(&(end, name));
        }
    }
}

fn name_of(jti: &str) -> Name {
    let mut name = Name::default();
    name.copy_from_slice(digest(&SHA256, jti.as_bytes()).as_ref());
    name
}

/// Logout tokens that are remembered: about 1.5 MiB.
pub const MAX_REPLAYS: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_token_is_obeyed_once_while_it_could_be_believed() {
        let (clock, hand) = Clock::manual(UnixTime(1000));
        let replays = Replays::new(clock);
        assert!(replays.first_time("a", UnixTime(1060)));
        assert!(!replays.first_time("a", UnixTime(1060)));
        replays.forget("a");
        replays.forget("never seen");
        assert!(replays.first_time("a", UnixTime(1060)), "it was not obeyed");
        assert!(!replays.first_time("a", UnixTime(1060)));
        assert!(replays.first_time("b", UnixTime(1060)));
        hand.advance(Duration::from_secs(59));
        assert!(!replays.first_time("a", UnixTime(1060)));
        hand.advance(Duration::from_secs(1));
        assert!(replays.first_time("c", UnixTime(1120)));
        assert_eq!(replays.seen.lock().unwrap().names.len(), 1, "what has expired takes no room");
    }

    #[test]
    fn there_is_a_bound_and_the_nearest_to_its_end_goes() {
        let (clock, _) = Clock::manual(UnixTime(0));
        let replays = Replays::new(clock);
        for number in 0..=MAX_REPLAYS as u64 {
            assert!(replays.first_time(&number.to_string(), UnixTime(100 + number)));
        }
        let seen = replays.seen.lock().unwrap();
        assert_eq!((seen.names.len(), seen.by_end.len()), (MAX_REPLAYS, MAX_REPLAYS));
        drop(seen);
        assert!(!replays.first_time("1", UnixTime(101)));
        assert!(replays.first_time("0", UnixTime(1_000_000)), "it had gone");
    }
}
