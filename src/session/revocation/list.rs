//! The list in memory: bounded, ordered by time, and never forgetting.

use std::collections::{BTreeSet, HashMap};

use super::super::Session;
use super::entry::{Kind, Mark, Revocation, Why};
use crate::clock::{Millis, UnixTime};

/// What was ended in one service.
#[derive(Debug)]
pub(super) struct List {
    facts: HashMap<Mark, Fact>,
    order: BTreeSet<(Millis, Mark)>,
    /// Sessions born up to here are over.
    floor: Option<(Millis, Why)>,
    most: usize,
    /// Whether the last entry only found room by folding one that was still needed.
    folding: bool,
}

#[derive(Clone, Copy, Debug)]
struct Fact {
    why: Why,
    made: Millis,
    expires_at: UnixTime,
}

impl List {
    pub(super) fn new() -> Self {
        Self::of_at_most(MAX_ENTRIES)
    }

    pub(super) fn of_at_most(most: usize) -> Self {
        Self { facts: HashMap::new(), order: BTreeSet::new(), floor: None, most, folding: false }
    }

    /// Why the session is over, if it is.
    pub(super) fn ended(&self, session: &Session) -> Option<Why> {
        let found = (!self.facts.is_empty()).then(|| {
            Mark::all_of(session).find_map(|mark| {
                let fact = self.facts.get(&mark)?;
                (!mark.is_of_a_time() || session.born <= fact.made).then_some(fact.why)
            })
        });
        let (floor, why) = self.floor.unzip();
        found.flatten().or_else(|| why.filter(|_| floor.is_some_and(|floor| session.born <= floor)))
    }

    /// Takes in a revocation, and folds what is expired or has no room. Returns the line "sessions born up to then
    /// are over" if folding has moved it.
    pub(super) fn put(&mut self, revocation: Revocation, now: UnixTime) -> Option<Revocation> {
        let Revocation { mark, why, made, expires_at } = revocation;
        if mark.kind == Kind::Everything {
            self.raise(made, why);
        } else if mark.is_timeless() || self.floor.is_none_or(|(floor, _)| made > floor) {
            self.insert(mark, Fact { why, made, expires_at });
        }
        self.fold(now)
    }

    /// Whether entries that are still needed are being folded for want of room.
    pub(super) fn is_folding(&self) -> bool {
        self.folding
    }

    /// Whether it holds just this one.
    pub(super) fn holds(&self, revocation: &Revocation) -> bool {
        match revocation.mark.kind {
            Kind::Everything => self.floor.is_some_and(|(floor, _)| floor == revocation.made),
            _ => self.facts.get(&revocation.mark).is_some_and(|fact| fact.made == revocation.made),
        }
    }

    /// All that is in it, the oldest first.
    pub(super) fn revocations(&self) -> impl Iterator<Item = Revocation> {
        let facts = self.order.iter().filter_map(|(_, mark)| {
            let Fact { why, made, expires_at } = *self.facts.get(mark)?;
            Some(Revocation { mark: *mark, why, made, expires_at })
        });
        self.line().into_iter().chain(facts)
    }

    /// "Sessions born up to then are over", if it says so.
    pub(super) fn line(&self) -> Option<Revocation> {
        self.floor.map(|(floor, why)| Revocation::everything(why, floor))
    }

    fn insert(&mut self, mark: Mark, fact: Fact) {
        match self.facts.get_mut(&mark) {
            Some(known) if known.made >= fact.made => return,
            Some(known) => {
                self.order.remove(&(known.made, mark));
                *known = fact;
            }
            None => {
                self.facts.insert(mark, fact);
            }
        }
        self.order.insert((fact.made, mark));
    }

    /// Moves the line, and drops what it makes superfluous.
    fn raise(&mut self, to: Millis, why: Why) {
        if self.floor.is_some_and(|(floor, _)| floor >= to) {
            return;
        }
        self.floor = Some((to, why));
        let below = self.order.iter().take_while(|(made, _)| *made <= to);
        let below: Vec<_> = below.filter(|(_, mark)| !mark.is_timeless()).copied().collect();
        for entry in below {
            self.order.remove(&entry);
            self.facts.remove(&entry.1);
        }
    }

    /// An entry leaves the list only by raising the line over it: should the clock come back from a jump, or the
    /// maximal lifetime be raised, then nobody is revived.
    fn fold(&mut self, now: UnixTime) -> Option<Revocation> {
        let before = self.floor;
        self.folding = false;
        while let Some((made, mark)) = self.order.first().copied() {
            let expired = self.facts.get(&mark).is_none_or(|fact| fact.expires_at <= now);
            if !expired && self.order.len() <= self.most {
                break;
            }
            self.folding |= !expired;
            self.order.remove(&(made, mark));
            self.facts.remove(&mark);
            self.raise(made, Why::Older);
        }
        self.line().filter(|_| self.floor != before)
    }
}

/// Entries of one service that are remembered one by one: about 15 MiB. More logouts than that within the maximal
/// lifetime of a session end the oldest sessions of all.
pub const MAX_ENTRIES: usize = 100_000;
