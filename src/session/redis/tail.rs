//! Follows the revocations that all processes share: a stream in Redis, read from where the last look ended.
//!
//! Redis can forget: FLUSHALL, a restart without persistence, a failover to a replica that lags. So every page
//! begins with the entry that was read last; if that is not there any more, or is another, everything is read
//! again from the start, and what we know and the server does not is given to it again. Entries may therefore
//! come more than once.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use redis::Value;

use super::commands::{self, MAX_REVOCATIONS, PAGE};
use super::error::Unavailable;
use super::link::Link;
use super::record::{SCOPE_ID_BYTES, ScopeId};
use crate::clock::UnixTime;

/// One thing that is over, as the processes tell each other. Redis and this module do not know what it means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ending {
    /// Whose it is.
    pub scope: ScopeId,
    /// What has ended, in the words of whoever gave it to [`super::Store::end`]. At most [`MAX_ENTRY_BYTES`].
    pub entry: Vec<u8>,
    /// When it need not be known any more.
    pub expires_at: UnixTime,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Heard {
    /// Something has ended. It may have been heard before, or said by ourselves.
    Ending(Ending),
    /// There were too many entries, and the oldest are gone: every session of every service that began before
    /// this time, by the clock of Redis, is to be taken for ended.
    AllBefore(UnixTime),
}

/// Who keeps what has ended. Called on the control runtime; must not block.
pub trait Endings: Send + Sync {
    /// Something has ended.
    fn learn(&self, heard: Heard);

    /// Everything that is known to have ended and has not expired. Asked for at every new connection, and when
    /// Redis has forgotten something.
    fn known(&self) -> Vec<Ending>;
}

/// Where the last look ended.
pub(super) struct Tail {
    last: Option<Entry>,
    hasher: RandomState,
    /// What the server lacks, by the hash of scope and entry.
    missing: HashMap<u64, Ending>,
}

/// Ids, each with the names and values of its fields.
pub(super) type Page = Vec<(String, Vec<(String, Vec<u8>)>)>;

/// An entry of the stream.
#[derive(Clone, PartialEq, Eq)]
struct Entry {
    id: String,
    scope: Vec<u8>,
    entry: Vec<u8>,
    expires_at: u64,
}

impl Tail {
    /// Nothing has been read.
    pub(super) fn new() -> Self {
        Self { last: None, hasher: RandomState::new(), missing: HashMap::new() }
    }

    /// Reads everything new, and writes a little: a server that only reads does not count. With `again` all is
    /// read, and compared with what is known.
    pub(super) async fn poll(
        &mut self,
        link: &Link,
        endings: &dyn Endings,
        again: bool,
    ) -> Result<(), Unavailable> {
        if again {
            self.last = None;
        }
        let mut whole = self.last.is_none();
        let mut read = Vec::new();
        for _ in 0..MOST_PAGES {
            let start = self.last.as_ref().map_or("-", |last| last.id.as_str());
            let (_, page): (Value, Value) = link.run_all(&commands::poll(start)).await?;
            let (page, mut entries) = parsed(page)?;
            if let Some(last) = &self.last {
                if entries.first() != Some(last) {
                    (self.last, whole) = (None, true);
                    read.clear();
                    continue;
                }
                entries.remove(0);
            }
            for entry in &entries {
                let hash = self.hasher.hash_one((&entry.scope, &entry.entry));
                self.missing.remove(&hash);
                if whole {
                    read.push(hash);
                }
                if let Some(heard) = entry.heard() {
                    endings.learn(heard);
                }
            }
            self.last = entries.pop().or(self.last.take());
            if page < PAGE {
                if whole {
                    self.compare(&read, endings);
                }
                return self.give_back(link).await;
            }
        }
        Err(Unavailable::Unexpected("more revocations than there can be".to_owned()))
    }

    /// Finds what is known here and was not read.
    fn compare(&mut self, read: &[u64], endings: &dyn Endings) {
        let known = endings.known().into_iter();
        self.missing = known
            .map(|ending| (self.hasher.hash_one((ending.scope.0.as_slice(), &ending.entry)), ending))
            .collect();
        for hash in read {
            self.missing.remove(hash);
        }
    }

    /// Gives the server some of what it lacks; the rest at the next looks. Others do the same, in another
    /// order, and what they gave is not given again.
    async fn give_back(&mut self, link: &Link) -> Result<(), Unavailable> {
        let some: Vec<u64> = self.missing.keys().copied().take(GIVEN_AT_ONCE).collect();
        for hash in some {
            let Some(ending) = self.missing.get(&hash) else { continue };
            let append = commands::append(&ending.scope.0, &ending.entry, ending.expires_at);
            let _: i64 = link.run(&append).await?;
            self.missing.remove(&hash);
        }
        Ok(())
    }
}

impl Entry {
    /// What it says; nothing if it was not written by us.
    fn heard(&self) -> Option<Heard> {
        if self.scope.is_empty() {
            let till = std::str::from_utf8(&self.entry).ok()?.parse().ok()?;
            return Some(Heard::AllBefore(UnixTime(till)));
        }
        let scope: [u8; SCOPE_ID_BYTES] = self.scope.as_slice().try_into().ok()?;
        let expires_at = UnixTime(self.expires_at);
        Some(Heard::Ending(Ending { scope: ScopeId(scope), entry: self.entry.clone(), expires_at }))
    }
}

/// How many entries the page had, and those of them that have our form.
fn parsed(page: Value) -> Result<(usize, Vec<Entry>), Unavailable> {
    let page: Page = redis::from_redis_value(page)
        .map_err(|_| Unavailable::Unexpected("revocations of another form".to_owned()))?;
    let entries = page.iter().map(|(id, fields)| {
        let field = |name: &str| {
            let found = fields.iter().find(|(field, _)| field == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let expires_at = String::from_utf8(field("x")).ok().and_then(|text| text.parse().ok());
        Entry { id: id.clone(), scope: field("s"), entry: field("e"), expires_at: expires_at.unwrap_or(0) }
    });
    Ok((page.len(), entries.collect()))
}

/// Most bytes of one entry.
pub const MAX_ENTRY_BYTES: usize = 4 * 1024;
/// Most pages that one look reads: all that there can be, twice.
const MOST_PAGES: usize = 2 * MAX_REVOCATIONS / PAGE + 2;
/// Entries that one look gives back to a server that forgot them.
const GIVEN_AT_ONCE: usize = 256;
